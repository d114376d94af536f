"""Part I, label propagation for CutMix (Burgert et al., arXiv 2405.13451): the runs of its study."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Generator, Tensor

from rsbook import mixing, models, scenes, training
from rsbook.positions import AreaTables
from rsbook.training import Augment

METHODS = ("none", "cutout", "cutmix", "cutmix_lp_map")

AreaRange = tuple[float, float]


def study(methods: Iterable[str], area_ranges: Iterable[AreaRange], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The runs of a study: every method with every area range and seed; "none" has no box, so it runs once a seed."""
    methods, area_ranges, seeds = list(methods), list(area_ranges), list(seeds)
    for name, values in (("methods", methods), ("area_ranges", area_ranges), ("seeds", seeds)):
        if not values or any(values.count(value) > 1 for value in values):
            raise ValueError(f"{name}={values}: expected at least one, and none twice")
    return [
        {"method": method, "area_range": area_range, "seed": seed}
        for method in methods
        for area_range in ([None] if method == "none" else area_ranges)
        for seed in seeds
    ]


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
    min_pixels: int | None = None,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train one network with one augmentation and test the weights of its best validation epoch (section IV-B).

    method: one of METHODS · area_range: box areas as fractions of the image, None for "none" · train_scenes: the first
    so many of the training split, None for all · min_pixels: the read-out's threshold, None for the rule by which the
    data set got its labels. Returns map_macro, map_micro and average_precision (L) on the test split, in 0 … 1, the
    best epoch and the history of the validation split. Raises ValueError for a method or settings that cannot be run.
    """
    data = scenes.load(dataset, root)
    train_split = data.split("train")
    if train_scenes is not None and not 1 <= train_scenes <= len(train_split):
        raise ValueError(f"train_scenes={train_scenes}: {dataset} has 1 to {len(train_split)}; None takes all")
    task = training.Classification(
        data,
        train=train_split[:train_scenes],
        val=data.split("val"),
        augment=augmentation(method, area_range, probability, data.min_pixels if min_pixels is None else min_pixels),
    )
    model = models.classifier(network, data.images.shape[1], len(data.classes), Generator().manual_seed(seed))
    history = training.fit(
        model,
        task,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate_every=evaluate_every,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    test = data.split("test")
    scores = training.predict(model, data, data.images[test])
    best = max(history, key=lambda row: row[task.watch])["epoch"]
    return {**training.score(scores, data.labels[test]), "best_epoch": best, "history": history}


def augmentation(method: str, area_range: AreaRange | None, probability: float, min_pixels: int) -> Augment:
    """What `method` does to a batch: images (B,C,H,W), labels (B,L), positions, generator → images, labels (B,L) float.

    Raises ValueError for an unknown method, or an area range where there is no box or none where there is one. What it
    returns raises ValueError when labels are to be propagated and there are no positions.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    if (area_range is None) != (method == "none"):
        rule = "'none' takes no area range, all others need one"
        raise ValueError(f"area_range={area_range} with method={method!r}: {rule}")

    def augment(
        images: Tensor, labels: Tensor, positions: AreaTables | None, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        box = {"area_range": area_range, "probability": probability, "generator": generator}
        if method == "none":
            return images, labels.float()
        if method == "cutout":
            mixed = mixing.cutout(images, labels, **box)
        elif method == "cutmix":
            mixed = mixing.cutmix(images, labels, **box)
        elif positions is None:  # cutmix would fall back on area labels
            raise ValueError(f"method={method!r}: these scenes have no class positions to propagate labels from")
        else:
            mixed = mixing.cutmix(images, labels, positions, min_pixels=min_pixels, **box)
        return mixed.images, mixed.labels

    return augment
