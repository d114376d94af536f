"""Part I, label propagation for CutMix (Burgert et al., arXiv 2405.13451): the runs of its study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Generator, Tensor, nn

from rsbook import augmentations, checkpoints, explain, mixing, models, positions, scenes, thematic, training
from rsbook import noise as map_noise
from rsbook.devices import resolve_device
from rsbook.files import location
from rsbook.positions import AreaTables
from rsbook.scenes import Scenes
from rsbook.training import Augment

WITHOUT_BOX = ("none", "random_resized_crop", "random_rotate")
FROM_MAPS = ("cutmix_lp_map", "cutmix_lp_map_rare", "fmix_lp_map")
METHODS = (*WITHOUT_BOX, "cutout", "cutmix", "fmix", *FROM_MAPS, "cutmix_lp_xai")
MAPS = ("given", "product")

T_MAP = 10  # pixels: the read-out of explanation masks (section III-D)
NOISE_STREAM = (0, 0, 2)  # keeps the draws of map noise apart from all others of a seed (training._loop)

AreaRange = tuple[float, float]


def study(methods: Iterable[str], area_ranges: Iterable[AreaRange], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The runs of a study: every method with every area range and seed; one without a box runs once a seed."""
    methods, area_ranges, seeds = list(methods), list(area_ranges), list(seeds)
    for name, values in (("methods", methods), ("area_ranges", area_ranges), ("seeds", seeds)):
        if not values or any(values.count(value) > 1 for value in values):
            raise ValueError(f"{name}={values}: expected at least one, and none twice")
    return [
        {"method": method, "area_range": area_range, "seed": seed}
        for method in methods
        for area_range in ([None] if method in WITHOUT_BOX else area_ranges)
        for seed in seeds
    ]


def with_noise(
    rows: Iterable[Mapping[str, Any]], kind: str, levels: Iterable[Sequence[float | None]]
) -> list[dict[str, Any]]:
    """Each of the runs at each level (fraction, intensity) of one kind of map noise."""
    rows = list(rows)
    return [
        {**row, "noise": kind, "noise_fraction": fraction, "noise_intensity": intensity}
        for fraction, intensity in levels
        for row in rows
    ]


def with_masks(rows: Iterable[Mapping[str, Any]], stage_one: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each of the runs with the masks that the network of the same seed explains.

    stage_one: results of runs of the method "none", with `seed` and `weights`. Raises ValueError when a seed has none.
    """
    stage_one, rows = list(stage_one), list(rows)
    kept = {run["seed"]: run["weights"] for run in stage_one}
    if len(kept) < len(stage_one):
        raise ValueError(f"stage_one: {len(stage_one)} runs with {len(kept)} seeds; expected one for each seed")
    if missing := sorted({row["seed"] for row in rows} - set(kept)):
        raise ValueError(f"stage_one: no run without augmentation with seed {missing}; expected one for each seed")
    return [{**row, "stage_one": kept[row["seed"]]} for row in rows]


def train(
    *,
    dataset: str,
    method: str,
    area_range: AreaRange | None,
    seed: int,
    network: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    evaluate_every: int,
    probability: float,
    train_scenes: int | None,
    output_stride: int | None = None,
    stop_after: int | None = None,
    min_pixels: int | None = None,
    maps: str = "given",
    noise: str | None = None,
    noise_fraction: float = 0.0,
    noise_intensity: float | None = None,
    stage_one: str | None = None,
    explainer: str = "cam",
    t_cam: float = 0.1,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train one network with one augmentation and test the weights of its best validation epoch (section IV-B).

    method: one of METHODS · area_range: box areas as fractions of the image, None where there is no box · train_scenes:
    the first so many of the training split, None for all · stop_after: end after so many of the epochs · min_pixels:
    the read-out's threshold, None for the rule by which the data set got its labels, or T_MAP for explanation masks ·
    maps: the data set's own ("given") or a classifier's ("product") · noise, noise_fraction, noise_intensity: map noise
    as in `noise.simulate`, drawn from the seed, on training scenes only; class_swap changes their labels as well ·
    stage_one: for cutmix_lp_xai, the weights whose explanation masks propagate the labels, as an earlier run of the
    method "none" returned them, kept beside `checkpoint`; explainer, t_cam: how the masks are made.

    Returns map_macro, map_micro and average_precision (L) on the test split, in 0 … 1, the best epoch, the history of
    the validation split, and for "none" the name of its weights. Raises ValueError for a method or settings that cannot
    be run.
    """
    _check_used(method, noise, noise_fraction, noise_intensity, stage_one, explainer, t_cam, maps)
    data = scenes.load(dataset, root)
    index = data.split("train")
    if train_scenes is not None and not 1 <= train_scenes <= len(index):
        raise ValueError(f"train_scenes={train_scenes}: {dataset} has 1 to {len(index)}; None takes all")
    index = index[:train_scenes]
    store = None if checkpoint is None else checkpoint.parent
    shape = data.images.shape[1], len(data.classes)
    model = models.classifier(network, *shape, Generator().manual_seed(seed), output_stride)

    labels, where = data.labels[index], None
    if method == "cutmix_lp_xai":
        if stage_one is None or store is None:
            raise ValueError(f"stage_one={stage_one!r}: {method} needs the weights that a run of 'none' has kept")
        settings = {"network": network, "output_stride": output_stride}
        first = stage_one_network(data, settings, checkpoint, stage_one).to(resolve_device(device))
        where = explain.explain_positions(first, data, index, explainer=explainer, t_cam=t_cam)
    elif method in FROM_MAPS or noise == "class_swap":
        where = class_positions(data, index, maps)
    if noise is not None:
        if where is None or method == "cutmix_lp_xai":
            raise ValueError(f"noise={noise!r}: method={method!r} does not look at the maps, so there is nothing to do")
        where = noisy(where, len(data.classes), noise, noise_fraction, noise_intensity, seed)
    if noise == "class_swap":
        labels = positions.to_labels(where, len(data.classes), data.min_pixels)
    if min_pixels is None:
        min_pixels = T_MAP if method == "cutmix_lp_xai" else data.min_pixels

    task = training.Classification(
        data,
        train=index,
        val=data.split("val"),
        augment=augmentation(method, area_range, probability, min_pixels, rarity(labels)),
        labels=labels,
        positions=where if "_lp_" in method else None,
    )
    history = training.fit(
        model,
        task,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate_every=evaluate_every,
        stop_after=stop_after,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    test = data.split("test")
    results = training.score(training.predict(model, data, test), data.labels[test])
    best = max(history, key=lambda row: row[task.watch])["epoch"]
    kept = {"weights": checkpoints.save_weights(model, store)} if method == "none" and store else {}
    return {**results, "best_epoch": best, "history": history, **kept}


def _check_used(
    method: str,
    noise: str | None,
    noise_fraction: float,
    noise_intensity: float | None,
    stage_one: str | None,
    explainer: str,
    t_cam: float,
    maps: str,
) -> None:
    # A setting that changes nothing would still make a record of its own.
    for name, given, used in (
        ("noise_fraction, noise_intensity", noise_fraction != 0 or noise_intensity is not None, noise is not None),
        ("stage_one", stage_one is not None, method == "cutmix_lp_xai"),
        ("explainer, t_cam", (explainer, t_cam) != ("cam", 0.1), method == "cutmix_lp_xai"),
        ("maps", maps != "given", method in FROM_MAPS or noise is not None),
    ):
        if given and not used:
            raise ValueError(f"{name}: a run with method={method!r}, noise={noise!r} does not use it; leave it out")


def stage_one_network(data: Scenes, settings: Mapping[str, Any], record: str | Path, weights: str) -> nn.Module:
    """The network of a run without augmentation, to look at what it explains.

    settings: those of the run's training · record: the run's, beside which the weights lie. Raises ValueError when the
    weights are missing, damaged or another network's.
    """
    shape = data.images.shape[1], len(data.classes)
    network = models.classifier(settings["network"], *shape, Generator(), settings.get("output_stride"))
    checkpoints.load_weights(network, location(record).parent, weights)
    return network


def class_positions(data: Scenes, index: Tensor, maps: str = "given") -> Tensor:
    """Bit masks (n,H,W) int32 of the scenes `index`: from the reference maps of the data set, or a thematic product.

    Raises ValueError for another word, and for scenes without reference maps.
    """
    if maps not in MAPS:
        raise ValueError(f"maps={maps!r}: expected one of {', '.join(MAPS)}")
    if maps == "product":
        return thematic.thematic_product(data, index)
    if data.positions is None:
        raise ValueError(f"{data.name}: these scenes have no class positions to propagate labels from")
    return data.positions[index]


def noisy(bits: Tensor, num_classes: int, kind: str, fraction: float, intensity: float | None, seed: int) -> Tensor:
    """Bit masks (n,H,W) int32 of reference maps with noise, as the run with this seed trains on (section V-B)."""
    if intensity is not None and intensity == int(intensity):
        intensity = int(intensity)  # what YAML and JSON may have made a float
    maps = map_noise.simulate(
        kind,
        positions.to_reference_maps(bits, num_classes),
        fraction=fraction,
        intensity=intensity,
        num_classes=num_classes,
        background=-1,
        generator=training.seeded(seed, *NOISE_STREAM),
    )
    return positions.from_reference_maps(maps, num_classes, background=-1)


def rarity(labels: Tensor) -> Tensor:
    """How rare each class (L,) is in labels (N,L): the inverse of its share of the scenes."""
    return 1 / labels.float().mean(dim=0).clamp(min=1 / len(labels))


def augmentation(
    method: str,
    area_range: AreaRange | None,
    probability: float,
    min_pixels: int,
    class_weights: Tensor | None = None,
) -> Augment:
    """What `method` does to a batch: images (B,C,H,W), labels (B,L), positions, generator → images, labels (B,L) float.

    class_weights (L,): which classes cutmix_lp_map_rare prefers. Crops and rotations change every image, as is usual.
    What it returns may overwrite the images that it is given, and raises ValueError where labels are to be propagated
    and there are no positions. Raises ValueError for an unknown method, or an area range where there is no box or none
    where there is one.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    if (area_range is None) != (method in WITHOUT_BOX):
        rule = f"{', '.join(map(repr, WITHOUT_BOX))} take no area range, all others need one"
        raise ValueError(f"area_range={area_range} with method={method!r}: {rule}")

    def augment(
        images: Tensor, labels: Tensor, where: AreaTables | Tensor | None, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        if "_lp_" in method and where is None:  # cutmix would fall back on area labels
            raise ValueError(f"method={method!r}: these scenes have no class positions to propagate labels from")
        box = {"area_range": area_range, "probability": probability, "generator": generator}
        paste = box | {"inplace": True}
        propagated = {"positions": where, "min_pixels": min_pixels}
        match method:
            case "none":
                return images, labels.float()
            case "random_resized_crop":
                return augmentations.random_resized_crop(images, generator), labels.float()
            case "random_rotate":
                return augmentations.random_rotate(images, generator), labels.float()
            case "cutout":
                mixed = mixing.cutout(images, labels, **paste)
            case "cutmix":
                mixed = mixing.cutmix(images, labels, **paste)
            case "fmix":
                mixed = mixing.fmix(images, labels, **box)
            case "fmix_lp_map":
                mixed = mixing.fmix(images, labels, **propagated, **box)
            case "cutmix_lp_map_rare":
                mixed = mixing.cutmix(images, labels, **propagated, class_weights=class_weights, **paste)
            case _:
                mixed = mixing.cutmix(images, labels, **propagated, **paste)
        return mixed.images, mixed.labels

    return augment
