"""Part II, CromSS (Liu et al., arXiv 2405.01217): pre-training on noisy maps, and what its encoders are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from rsbook import checkpoints, metrics, models, scenes, segmentation, selection, training
from rsbook import noise as map_noise
from rsbook.files import location
from rsbook.scenes import Scenes, take

FUSED = {"mid_fusion": "mid", "late_fusion": "late", "cromss_mid": "mid", "cromss_late": "late"}
METHODS = ("single_modal", *FUSED)
ENCODERS = ("random", *METHODS)
PROTOCOLS = ("frozen", "fine_tuned")

NOISE_STREAM = (0, 0, 3)  # keeps the draws of map noise apart from all others of a seed (training._loop)
BATCH = 256  # scenes at a time where nothing is trained
WATCHED = 128  # training scenes on which the masks are scored after each epoch

Noise = Sequence[tuple[str, float, float | None]]  # kinds of map noise with fraction and intensity, one after the other


def pretrain(
    *,
    dataset: str,
    method: str,
    modalities: Sequence[str],
    seed: int,
    network: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    evaluate_every: int,
    train_scenes: int | None,
    val_scenes: int | None,
    noise: Noise | None = None,
    ranking: str = "global",
    ramp_share: float = 0.8,
    crop: int | None = None,
    schedule: str = "cosine",
    warm_up: int | None = None,
    halve_after: int | None = None,
    keep_epochs: Sequence[int] = (),
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Pre-train one U-Net a modality on noisy maps and keep its encoders; the last epoch counts.

    method: one of METHODS · modalities: the names of those to train, one for single_modal, two for the others · noise:
    map noise that is drawn from the seed and laid over the reference maps of training and validation scenes, None where
    the data set's maps are noisy themselves · train_scenes, val_scenes: the first so many of the training and the last
    so many of the validation split, None for all · ranking: of `selection.selection_weights` · ramp_share: the share of
    the epochs in which selection ramps up (80 of 100 in the paper) · crop: pixels a side · schedule, warm_up,
    halve_after: as in `training.fit` · keep_epochs: evaluated epochs (from 1) after which the whole network is kept, to
    be looked at.

    Returns the history (val_loss on noisy maps; where the noise is known, how well the masks of each modality find
    wrong pixels: `Pretraining.evaluate`), and the names of the kept encoders by modality and of kept networks by epoch.
    Where the noise is known, also the share of wrong pixels in the training maps, and oa, aa, miou and f1 of each
    modality against the clean maps of the test split, which nothing was chosen by. Raises ValueError for settings that
    cannot be run.
    """
    _check(method, modalities, ranking)
    data = scenes.load(dataset, root)
    bands = [data.bands(name) for name in modalities]
    train, val = _first(data, "train", train_scenes), _last(data, "val", val_scenes)
    noisy, noisy_val = (noisy_maps(data, index, noise, (seed, part)) for part, index in enumerate((train, val)))
    fusion = FUSED.get(method, "late")
    model = models.unets(network, bands, len(data.classes), Generator().manual_seed(seed), fusion)
    task = Pretraining(
        data,
        train,
        noisy,
        val=val,
        val_maps=noisy_val,
        consistent=method != "single_modal",
        selects=method.startswith("cromss"),
        ranking=ranking,
        ramp_length=round(ramp_share * epochs),
        crop=crop,
        keep_epochs=keep_epochs,
        folder=None if checkpoint is None else checkpoint.parent,
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
        schedule=schedule,
        warm_up=warm_up,
        halve_after=halve_after,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    results: dict[str, Any] = {"history": history}
    if kept := {str(row["epoch"]): row["network"] for row in history if "network" in row}:
        results["networks"] = kept
    if noise is not None:
        clean = segmentation.maps_of(data, train)
        results["wrong"] = (noisy != clean)[clean >= 0].float().mean().item()
        found = segmentation.confusion(model, data, data.split("test"))
        results["test"] = {m: metrics.accuracies(one) for m, one in zip(modalities, found, strict=True)}
    if checkpoint is not None:
        results["weights"] = {
            name: checkpoints.save_weights(one, checkpoint.parent)
            for name, one in zip(modalities, model.encoders, strict=True)
        }
    return results


def transfer(
    *,
    dataset: str,
    modality: str,
    encoder: str,
    protocol: str,
    seed: int,
    network: str,
    depth: int,
    width: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    train_split: str,
    train_scenes: int | None,
    weights: str | None = None,
    schedule: str = "cosine",
    warm_up: int | None = None,
    fixed_statistics: bool = False,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train a PSPNet on a pre-trained encoder with few clean maps, and test it; the last epoch counts.

    encoder: which of ENCODERS · weights: those of the encoder, as `pretrain` kept them, beside `checkpoint`; None for a
    random one · protocol: "frozen" or "fine_tuned" · depth: feature maps of the encoder that are used · width: of the
    decoder · train_split, train_scenes: the first so many of that split, None for all · schedule, warm_up: as in
    `training.fit` · fixed_statistics: of batch
    normalisation in a frozen encoder (the authors' code lets them adapt).

    Returns oa, aa, miou and f1 on the test split, from one confusion matrix, and the IoU of each class. Raises
    ValueError for settings that cannot be run.
    """
    for name, value, known in (("encoder", encoder, ENCODERS), ("protocol", protocol, PROTOCOLS)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    if (encoder == "random") != (weights is None):
        raise ValueError(
            f"weights={weights!r} with encoder={encoder!r}: a random encoder has none, all others need them"
        )
    data = scenes.load(dataset, root)
    bands = data.bands(modality)
    generator = Generator().manual_seed(seed)
    backbone = models.encoder(network, len(bands), generator, depth)
    if weights is not None:
        if checkpoint is None:
            raise ValueError(f"weights={weights!r}: they lie beside a checkpoint, and none is given")
        checkpoints.load_weights(backbone, pretrained_folder(checkpoint), weights)
    frozen = protocol == "frozen"
    model = models.pspnet(
        backbone, width, len(data.classes), generator, frozen=frozen, fixed_statistics=fixed_statistics
    )
    task = segmentation.Segmentation(data, _first(data, train_split, train_scenes), bands=bands)
    history = training.fit(
        model,
        task,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate_every=epochs,
        schedule=schedule,
        warm_up=warm_up,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    [found] = segmentation.confusion(model, data, data.split("test"), bands)
    return {**metrics.accuracies(found), "iou": metrics.class_iou(found), "history": history}


class Pretraining(segmentation.MapTask):
    """Pre-training of U-Nets on noisy maps: segmentation losses, and a consistency loss between two modalities.

    maps (n,H,W): the noisy ones of the training scenes `index`, val_maps those of `val`; None for the data set's own ·
    consistent: whether modalities learn from each other · selects: whether selection masks weigh the losses ·
    ramp_length: epochs until they are at full strength · keep_epochs, folder: after which epochs the network
    is kept, and where.
    """

    def __init__(
        self,
        scenes: Scenes,
        index: Tensor,
        maps: Tensor | None,
        *,
        val: Tensor,
        val_maps: Tensor | None,
        consistent: bool,
        selects: bool,
        ranking: str = "global",
        ramp_length: int = 80,
        crop: int | None = None,
        keep_epochs: Sequence[int] = (),
        folder: Path | None = None,
    ) -> None:
        super().__init__(scenes, index, maps, crop=crop)
        self.noisy, self.val, self.val_maps = maps, val, val_maps
        self.consistent, self.selects, self.ranking = consistent, selects, ranking
        self.ramp_length, self.epoch = ramp_length, 0
        self.keep_epochs, self.folder = keep_epochs if folder is not None else (), folder

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], epoch: int) -> Tensor:
        """The sum over the modalities of segmentation and consistency losses, weighted by the masks of this epoch."""
        self.epoch = epoch
        images, maps = batch
        logits = model(images)
        if not self.selects:
            return objective(logits, maps, self.consistent)
        risen = selection.ramp(epoch, self.ramp_length)
        return objective(logits, maps, self.consistent, *selection.masks(logits, maps, risen, self.ranking))

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """val_loss, unweighted, on the noisy maps of the validation scenes; where the noise is known, also the
        `selection.quality` of each modality's masks on the first training scenes; and the name of a network that is
        kept.
        """
        found: dict[str, Any] = {"val_loss": self._validation_loss(model)}
        if self.noisy is not None:
            index = self.index[:WATCHED]
            noisy = self.noisy[: len(index)]
            logits = logits_of(model, self.scenes, index)
            wrong = noisy != segmentation.maps_of(self.scenes, index)
            risen = selection.ramp(self.epoch, self.ramp_length)
            found["quality"] = selection.quality(logits, noisy, wrong, risen, self.ranking)
        if self.epoch + 1 in self.keep_epochs:
            found["network"] = checkpoints.save_weights(model, self.folder)
        return found

    def _validation_loss(self, model: nn.Module) -> float:
        model.eval()
        total = torch.zeros((), device=self.device)
        with torch.inference_mode():
            for part in torch.arange(len(self.val)).split(BATCH):
                index = self.val[part]
                images = self.scenes.normalise(take(self.scenes.images, index).to(self.device))
                if self.val_maps is None:
                    maps = segmentation.maps_of(self.scenes, index, self.device)
                else:
                    maps = self.val_maps[part].to(self.device)
                total += len(part) * objective(model(images), maps, self.consistent)
        return (total / len(self.val)).item()


def objective(
    logits: Tensor,
    maps: Tensor,
    consistent: bool,
    labels: Sequence[Tensor] | None = None,
    entities: Sequence[Tensor] | None = None,
) -> Tensor:
    """The loss of CromSS from logits (M,B,K,H,W) and maps (B,H,W): L_s of each modality, and with `consistent` L_c of
    each towards the other.

    labels: W_l (B,H,W) of each modality, which weighs its L_s · entities: W_e of each, which weighs what the *other*
    learns from it; None: all pixels weigh the same.
    """
    whole = torch.ones_like(maps, dtype=torch.float32)
    labels, entities = labels or [whole] * len(logits), entities or [whole] * len(logits)
    loss = sum(segmentation.supervised(own, maps, weights) for own, weights in zip(logits, labels, strict=True))
    for student, teacher in ((0, 1), (1, 0)) if consistent else ():
        loss = loss + segmentation.consistency(logits[student], logits[teacher], entities[teacher])
    return loss


def noisy_maps(data: Scenes, index: Tensor, noise: Noise | None, seed: Sequence[int]) -> Tensor | None:
    """Noisy maps (n,H,W) int64 of the scenes `index`: kinds of map noise one after the other; None without noise."""
    if noise is None:
        return None
    maps = segmentation.maps_of(data, index)
    for i, (kind, fraction, intensity) in enumerate(noise):
        maps = map_noise.simulate(
            kind,
            maps,
            fraction=fraction,
            intensity=int(intensity) if intensity is not None and intensity == int(intensity) else intensity,
            num_classes=len(data.classes),
            background=-1,
            generator=training.seeded(*seed, i, *NOISE_STREAM),
        )
    return maps


def kept_networks(data: Scenes, run: Mapping[str, Any]) -> dict[int, models.Unets]:
    """The networks that a pre-training has kept, by epoch (from 1), on the CPU.

    run: a row of `runs.table`. Raises ValueError when weights are missing or damaged.
    """
    found = {}
    bands = [data.bands(name) for name in run["modalities"]]
    for epoch, name in run["networks"].items():
        network = models.unets(run["network"], bands, len(data.classes), Generator(), FUSED.get(run["method"], "late"))
        checkpoints.load_weights(network, location(run["record"]).parent, name)
        found[int(epoch)] = network.eval()
    return found


def logits_of(model: nn.Module, data: Scenes, index: Tensor) -> Tensor:
    """Logits (M,n,K,H,W) float32 on the CPU of the scenes `index` (n,)."""
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode():
        parts = [model(data.normalise(take(data.images, part).to(device))).float().cpu() for part in index.split(BATCH)]
    return torch.cat(parts, dim=1)


def study(methods: Iterable[str], modalities: Sequence[str], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The pre-trainings of a study: every method with every seed; single_modal once for each modality."""
    names = list(modalities)
    return [
        {"method": method, "modalities": chosen, "seed": seed}
        for method in methods
        for chosen in ([[name] for name in names] if method == "single_modal" else [names])
        for seed in seeds
    ]


def with_noise(rows: Iterable[Mapping[str, Any]], noises: Iterable[Noise]) -> list[dict[str, Any]]:
    """Each of the pre-trainings with each of these mixtures of map noise."""
    rows = list(rows)
    return [{**row, "noise": [list(kind) for kind in noise]} for noise in noises for row in rows]


def transfers(pretrained: Iterable[Mapping[str, Any]], modalities: Sequence[str]) -> list[dict[str, Any]]:
    """The transfers from these pre-trainings, results of `pretrain`, and from random encoders with the same seeds."""
    pretrained = list(pretrained)
    seeds = dict.fromkeys(run["seed"] for run in pretrained)
    encoders = [("random", seed, dict.fromkeys(modalities)) for seed in seeds]
    encoders += [(run["method"], run["seed"], run["weights"]) for run in pretrained]
    return [
        {"encoder": method, "modality": name, "protocol": protocol, "seed": seed}
        | ({} if weights is None else {"weights": weights})
        for protocol in PROTOCOLS
        for method, seed, kept in encoders
        for name, weights in kept.items()
    ]


def pretrained_folder(record: Path) -> Path:
    """Where the weights lie that `pretrain` kept, from the path of a record or checkpoint of `transfer`."""
    return record.parent.with_name("cromss.pretrain")


def _first(data: Scenes, split: str, n: int | None) -> Tensor:
    index = data.split(split)
    _check_count(data, split, n)
    return index if n is None else index[: n * data.seasons]


def _last(data: Scenes, split: str, n: int | None) -> Tensor:
    index = data.split(split)
    _check_count(data, split, n)
    return index if n is None else index[len(index) - n * data.seasons :]


def _check_count(data: Scenes, split: str, n: int | None) -> None:
    there = len(data.split(split)) // data.seasons
    if not there or (n is not None and not 1 <= n <= there):
        raise ValueError(f"scenes={n} of split {split!r}: {data.name} has {there} there; None takes all")


def _check(method: str, modalities: Sequence[str], ranking: str) -> None:
    for name, value, known in (("method", method, METHODS), ("ranking", ranking, selection.RANKINGS)):
        if value not in known:
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(known)}")
    if len(set(modalities)) != (expected := 1 if method == "single_modal" else 2) or len(modalities) != expected:
        raise ValueError(f"modalities={list(modalities)}: {method} needs {expected}, each once")
