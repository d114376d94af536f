"""Part V, weakly supervised segmentation: the runs that make maps from image-level labels.

Each step is a run that keeps its weights: a classifier whose activation maps are the first maps (`classify`), and how
alike pixels are, which refines them (`refine`). What the maps are used for is in `weak_uses`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from rsbook import checkpoints, metrics, models, scenes, subcategories, training, weak_segmentation
from rsbook.devices import resolve_device
from rsbook.scenes import Scenes
from rsbook.weak_maps import (
    affinity_net,
    affinity_size,
    confidence,
    confident,
    confusion_of,
    map_confusion,
    pooled_features,
    walked_maps,
)
from rsbook.weak_tasks import (
    METHODS,
    MIXING,
    SUBCATEGORIES,
    Affinity,
    CamNetwork,
    Weak,
    augmentation,
    vision_transformer,
)

TEACHER = "vit"  # the vision transformer whose features Sub-category Teaching clusters
CLUSTER_STREAM = (0, 0, 8)  # keeps these draws apart from all others of a seed (training._loop)


def classify(
    *,
    dataset: str,
    method: str,
    seed: int,
    network: str,
    epochs: int,
    fitting: Mapping[str, Any],
    train_scenes: int | None = None,
    splits: Sequence[str] = ("train",),
    entropy: float = 0.02,
    concentration: float = 2e-4,
    as_coded: bool = False,
    stage_one: str | None = None,
    clustering: str = "finch",
    sub_weight: float = 1.0,
    scales: Sequence[float] = weak_segmentation.SCALES,
    background: float | None = None,
    output_stride: int | None = None,
    pretrained: bool = False,
    crop: int | None = None,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train a classifier from image-level labels and score its activation maps on the scenes that it was trained on.

    method: one of METHODS, or TEACHER, a vision transformer without maps, for "sct", whatever the network · fitting:
    the other settings of `training.fit` · train_scenes: the first so many of the splits, None for all · entropy,
    concentration: weights of the regularisers, of methods that mix; as_coded: both as in the report's code ·
    stage_one: weights of an earlier run whose features are clustered, of "cam" for "sce" and of TEACHER for "sct";
    clustering: one of subcategories.METHODS · scales, background: of the maps, see `weak_segmentation`; background None
    where every pixel has a class · crop: of photographs, see `weak_tasks.Weak`. The best epoch is the first with the
    highest mAP macro on validation labels.

    Returns map_macro and average_precision (L) on the test split, and of the maps, with the classes of the scenes'
    labels given, miou and iou at all scales with flips, and miou_single at one scale without; how many sub-classes
    there are; the best epoch, the history and the name of the weights. Raises ValueError for settings that do not fit.
    """
    _check(method, stage_one, checkpoint)
    data, index = opened(dataset, root, splits, train_scenes)
    generator, bands = Generator().manual_seed(seed), data.images.shape[1]
    labelled = _without(data, background)
    given = {"train": index, "val": data.split("val")}
    sublabels, classes = None, len(labelled.classes)
    if method in SUBCATEGORIES:
        first = _network(data, TEACHER if method == "sct" else network, classes, output_stride, pretrained)
        checkpoints.load_weights(first, checkpoint.parent, stage_one)
        features = pooled_features(first.to(resolve_device(device)), data, index)
        drawn = training.seeded(seed, *CLUSTER_STREAM)
        sublabels, _ = subcategories.subcategory_labels(features, labelled.labels[index], clustering, generator=drawn)
    if method == TEACHER:
        side = data.images.shape[3]
        made = trained = vision_transformer(bands, classes, side, generator, large=pretrained, pretrained=pretrained)
        task = training.Classification(labelled, **given, augment=augmentation(crop))
    else:
        trained = models.classifier(network, bands, classes, generator, output_stride, pretrained)
        subclasses = 0 if sublabels is None else sublabels.shape[1]
        made = CamNetwork(trained, subclasses, generator, fixed_statistics=pretrained)
        weights = {"entropy": entropy, "concentration": concentration} if method in MIXING else {}
        weights |= {"sublabels": sublabels, "sub_weight": sub_weight}
        task = Weak(labelled, **given, method=method, as_coded=as_coded, crop=crop, **weights)
    settings = {"seed": seed, "device": device, "checkpoint": checkpoint, "progress": False}
    history = training.fit(made, task, epochs=epochs, **settings, **fitting)
    test = data.split("test")
    results = training.score(training.predict(trained, data, test), labelled.labels[test])
    results |= {"best_epoch": max(history, key=lambda row: row[task.watch])["epoch"], "history": history}
    if method != TEACHER:
        found = map_confusion(trained, data, index, scales, background)
        single = map_confusion(trained, data, index, (1,), background, flip=False)
        results |= _scores(found) | {"miou_single": metrics.accuracies(single)["miou"]}
        results["subclasses"] = subclasses
    if checkpoint is not None:
        results["weights"] = checkpoints.save_weights(trained, checkpoint.parent)
    return results


def refine(
    *,
    dataset: str,
    stage_one: str,
    seed: int,
    network: str,
    fitting: Mapping[str, Any],
    train_scenes: int | None = None,
    splits: Sequence[str] = ("train",),
    radius: int = 5,
    steps: int = 256,
    beta: float = 8.0,
    scales: Sequence[float] = weak_segmentation.SCALES,
    background: float | None = None,
    output_stride: int | None = None,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Learn from the confident parts of a classifier's maps how alike pixels are, and walk the maps by it.

    AffinityNet (Ahn and Kwak, 2018), without its dense CRF.

    stage_one: weights of a run of `classify` · fitting: settings of `training.fit` · radius, steps, beta: see
    `affinity` · the rest as for `classify`. The classifier stays as it is; the paper trains it along. Returns miou and
    iou of the walked maps on the training scenes, the share of confident pixels and how many of them are right, the
    history and the name of the weights. Raises ValueError for weights that are missing.
    """
    data, index = opened(dataset, root, splits, train_scenes)
    classifier = kept_classifier(data, network, stage_one, background, output_stride, checkpoint)
    classifier = classifier.to(resolve_device(device))
    labels = confident(classifier, data, index, affinity_size(classifier, data), scales, background)
    net = affinity_net(classifier, data, Generator().manual_seed(seed))
    task = Affinity(data, index, classifier, labels, objects(data, background), radius)
    settings = {"seed": seed, "device": device, "checkpoint": checkpoint, "progress": False}
    history = training.fit(net, task, evaluate_every=fitting["epochs"], **settings, **fitting)
    walked = walked_maps(classifier, net, data, index, radius, steps, beta, scales, background)
    results = _scores(confusion_of(walked, data, index)) | {"history": history} | confidence(labels, data, index)
    if checkpoint is not None:
        results["weights"] = checkpoints.save_weights(net, checkpoint.parent)
    return results


def study(methods: Iterable[str], seeds: Iterable[int], epochs: Mapping[str, int]) -> list[dict[str, Any]]:
    """Grid of `classify`: each method with each seed, for as many epochs as the method is given."""
    return [{"method": method, "seed": seed, "epochs": epochs[method]} for method in methods for seed in seeds]


def with_features(rows: Iterable[Mapping[str, Any]], stage_one: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each of the runs with the network of the same seed whose features are clustered. Raises ValueError for a seed
    without one. stage_one: results of `classify`.
    """
    kept, rows = {run["seed"]: run["weights"] for run in stage_one}, list(rows)
    if missing := sorted({row["seed"] for row in rows} - set(kept)):
        raise ValueError(f"stage_one: no network with seed {missing}; expected one for each seed")
    return [{**row, "stage_one": kept[row["seed"]]} for row in rows]


def refinements(classified: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Grid of `refine`: the classifier of each run of `classify`, with its seed."""
    return [{"stage_one": run["weights"], "seed": run["seed"]} for run in classified]


def opened(
    dataset: str, root: str | Path | None, splits: Sequence[str], train_scenes: int | None
) -> tuple[Scenes, Tensor]:
    """The scenes, and the first train_scenes of some splits.

    Raises ValueError for more than there are, and for splits that choose an epoch or test.
    """
    if not splits or {"val", "test"} & set(splits):
        raise ValueError(
            f"splits={tuple(splits)}: expected those to train on; val chooses an epoch, test is for scores"
        )
    data = scenes.load(dataset, root)
    index = torch.cat([data.split(name) for name in splits])
    if train_scenes is not None and not 1 <= train_scenes <= len(index):
        raise ValueError(f"train_scenes={train_scenes}: {dataset} has 1 to {len(index)}; None takes all")
    return data, index[:train_scenes]


def objects(data: Scenes, background: float | None) -> int:
    """How many classes a classifier tells apart: all, but for a background, which is the last."""
    return len(data.classes) - (background is not None)


def kept_classifier(
    data: Scenes,
    name: str,
    weights: str,
    background: float | None,
    output_stride: int | None,
    record: Path | None,
) -> nn.Module:
    """The classifier called `name` with the weights of a run of `classify`, from the record or checkpoint of any run.

    Raises ValueError for weights that are missing, damaged or another network's, and for a run without a record.
    """
    if record is None:
        raise ValueError(f"stage_one={weights!r}: weights lie beside records, and this run has none")
    network = _network(data, name, objects(data, background), output_stride)
    checkpoints.load_weights(network, folder_of("classify", record), weights)
    return network.eval().to(memory_format=torch.channels_last)  # a third less time on a CPU


def folder_of(function: str, record: Path) -> Path:
    """Where the runs of another function of this module lie, from the path of a record or checkpoint of any run."""
    return record.parent.with_name(f"{__name__.rpartition('.')[2]}.{function}")


def _without(data: Scenes, background: float | None) -> Scenes:
    """The scenes with labels of the classes that a classifier tells apart."""
    if background is None:
        return data
    return replace(data, labels=data.labels[:, :-1], classes=data.classes[:-1])


def _network(data: Scenes, name: str, classes: int, output_stride: int | None, large: bool = False) -> nn.Module:
    bands, generator = data.images.shape[1], Generator()
    if name == TEACHER:
        return vision_transformer(bands, classes, data.images.shape[3], generator, large)
    return models.classifier(name, bands, classes, generator, output_stride)


def _scores(confusion: Tensor) -> dict[str, Any]:
    return {"miou": metrics.accuracies(confusion)["miou"], "iou": metrics.class_iou(confusion)}


def _check(method: str, stage_one: str | None, checkpoint: Path | None) -> None:
    if method not in (*METHODS, TEACHER):
        raise ValueError(f"method={method!r}: expected one of {', '.join((*METHODS, TEACHER))}")
    needed = method in SUBCATEGORIES
    if needed != (stage_one is not None) or (needed and checkpoint is None):
        rule = f"the weights of an earlier run for {' and '.join(SUBCATEGORIES)}, and for no other"
        raise ValueError(f"stage_one={stage_one!r} with method={method!r}: expected {rule}")
