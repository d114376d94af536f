"""Part V, weakly supervised segmentation: the runs of its study, from image-level labels to maps.

Each step is a run that keeps its weights: a classifier whose activation maps are the first maps (`classify`), how alike
pixels are, which refines them (`refine`), and a segmentation network trained on either (`segment`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from rsbook import (
    checkpoints,
    deeplab,
    explain,
    label_propagation,
    metrics,
    models,
    scenes,
    segmentation,
    subcategories,
    training,
    weak_segmentation,
)
from rsbook.devices import resolve_device
from rsbook.scenes import Scenes
from rsbook.weak_maps import (
    TOGETHER,
    affinity_net,
    affinity_size,
    cam_maps,
    confidence,
    confident,
    confusion_of,
    device_of,
    map_confusion,
    pooled_features,
    walked_maps,
)
from rsbook.weak_tasks import METHODS, MIXING, SUBCATEGORIES, Affinity, CamNetwork, Weak, vision_transformer

TEACHER = "vit"  # the vision transformer whose features Sub-category Teaching clusters
SOURCES = ("cam", "walk", "reference")  # of the maps that a segmentation network is trained on
CLUSTER_STREAM = (0, 0, 8)  # keeps these draws apart from all others of a seed (training._loop)


def classify(
    *,
    dataset: str,
    method: str,
    seed: int,
    network: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    evaluate_every: int,
    train_scenes: int | None,
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
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train a classifier from image-level labels and score its activation maps on the scenes that it was trained on.

    method: one of METHODS, or TEACHER, a small vision transformer without maps, for "sct" · entropy, concentration:
    weights of the regularisers, of methods that mix; as_coded: both as in the report's code · stage_one: weights of an
    earlier run whose features are clustered, of "cam" for "sce" and of TEACHER for "sct"; clustering: one of
    subcategories.METHODS · scales, background: of the maps, see `weak_segmentation`; background None where every pixel
    has a class. The best epoch is the first with the highest mAP macro on validation labels.

    Returns map_macro and average_precision (L) on the test split, and of the maps, with the classes of the scenes'
    labels given, miou and iou at all scales with flips, and miou_single at one scale without; how many sub-classes
    there are; the best epoch, the history and the name of the weights. Raises ValueError for settings that do not fit.
    """
    _check(method, stage_one, checkpoint)
    data, index = _opened(dataset, root, train_scenes)
    generator = Generator().manual_seed(seed)
    shape, objects = (data.images.shape[1], _objects(data, background)), _without(data, background)
    sublabels = None
    if method in SUBCATEGORIES:
        first = _network(data, TEACHER if method == "sct" else network, shape[1], output_stride)
        checkpoints.load_weights(first, checkpoint.parent, stage_one)
        features = pooled_features(first.to(resolve_device(device)), data, index)
        drawn = training.seeded(seed, *CLUSTER_STREAM)
        labels = objects.labels[index]
        sublabels, _ = subcategories.subcategory_labels(features, labels, clustering, generator=drawn)
    if method == TEACHER:
        made = vision_transformer(*shape, data.images.shape[3], generator)
    else:
        made = models.classifier(network, *shape, generator, output_stride, pretrained)
        made = CamNetwork(made, 0 if sublabels is None else sublabels.shape[1], generator)
    mixes = method in MIXING
    given = {"train": index, "val": data.split("val")}
    if method == TEACHER:
        task = training.Classification(objects, **given, augment=label_propagation.augmentation("none", None, 0.0, 0))
    else:
        task = Weak(
            objects,
            **given,
            method=method,
            sublabels=sublabels,
            sub_weight=sub_weight,
            entropy=entropy if mixes else 0.0,
            concentration=concentration if mixes else 0.0,
            as_coded=as_coded,
        )
    history = training.fit(
        made,
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
    trained = made if method == TEACHER else made.network
    test = data.split("test")
    results = training.score(training.predict(trained, data, test), objects.labels[test])
    results |= {"best_epoch": max(history, key=lambda row: row[task.watch])["epoch"], "history": history}
    if method != TEACHER:
        found = map_confusion(trained, data, index, scales, background)
        single = map_confusion(trained, data, index, (1,), background, flip=False)
        results |= _scores(found) | {"miou_single": metrics.accuracies(single)["miou"]}
        results["subclasses"] = 0 if sublabels is None else sublabels.shape[1]
    if checkpoint is not None:
        results["weights"] = checkpoints.save_weights(trained, checkpoint.parent)
    return results


def refine(
    *,
    dataset: str,
    stage_one: str,
    seed: int,
    network: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    train_scenes: int | None,
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

    stage_one: weights of a run of `classify` · radius, steps, beta: see `affinity` · the rest as for `classify`. The
    classifier stays as it is; the paper trains it along. Returns miou and iou of the walked maps on the training
    scenes, miou_before of those that were walked, the share of confident pixels and how many of them are right, the
    history and the name of the weights. Raises ValueError for weights that are missing.
    """
    data, index = _opened(dataset, root, train_scenes)
    classifier = _kept(data, network, stage_one, background, output_stride, checkpoint, "classify")
    classifier = classifier.to(resolve_device(device))
    grid = affinity_size(classifier, data)
    labels = confident(classifier, data, index, grid, scales, background)
    net = affinity_net(classifier, data, Generator().manual_seed(seed))
    task = Affinity(data, index, classifier, labels, _objects(data, background), radius)
    history = training.fit(
        net,
        task,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate_every=epochs,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    walked = confusion_of(
        walked_maps(classifier, net, data, index, radius, steps, beta, scales, background), data, index
    )
    before = map_confusion(classifier, data, index, scales, background)
    results = _scores(walked) | {"miou_before": metrics.accuracies(before)["miou"], "history": history}
    results |= confidence(labels, data, index)
    if checkpoint is not None:
        results["weights"] = checkpoints.save_weights(net, checkpoint.parent)
    return results


def segment(
    *,
    dataset: str,
    source: str,
    seed: int,
    network: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    train_scenes: int | None,
    classifier: str,
    stage_one: str | None = None,
    refined: str | None = None,
    radius: int = 5,
    steps: int = 256,
    beta: float = 8.0,
    rates: Sequence[int] = deeplab.RATES,
    looks: Sequence[float] = (1.0,),
    scales: Sequence[float] = weak_segmentation.SCALES,
    background: float | None = None,
    output_stride: int | None = None,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train DeepLab-v2 on maps made from image-level labels and test it on scenes of which nothing is given.

    source: one of SOURCES: activation maps of the classifier with weights `stage_one`, these walked by the AffinityNet
    with weights `refined`, or, as the upper bound, the reference maps · classifier: the name of that network · network:
    DeepLab's encoder; rates, looks: its atrous rates and scales. Returns miou, oa, aa and iou on the test split and the
    history. Raises ValueError for a source that is none, or weights that do not go with it.
    """
    needed = {"cam": (True, False), "walk": (True, True), "reference": (False, False)}
    if source not in SOURCES or needed[source] != (stage_one is not None, refined is not None):
        rule = "stage_one for 'cam', also refined for 'walk', neither for 'reference'"
        raise ValueError(f"source={source!r}, stage_one={stage_one!r}, refined={refined!r}: expected {rule}")
    data, index = _opened(dataset, root, train_scenes)
    maps = None
    if source != "reference":
        first = _kept(data, classifier, stage_one, background, output_stride, checkpoint, "classify")
        first = first.to(resolve_device(device))
        if source == "cam":
            maps = torch.cat(list(cam_maps(first, data, index, scales, background)))
        else:
            net = affinity_net(first, data, Generator())
            checkpoints.load_weights(net, _folder(checkpoint, "refine"), refined)
            net = net.to(device_of(first))
            maps = torch.cat(list(walked_maps(first, net, data, index, radius, steps, beta, scales, background)))
    generator = Generator().manual_seed(seed)
    count = _objects(data, background) + (background is not None)
    model = deeplab.deeplab_v2(network, data.images.shape[1], count, generator, rates, looks)
    history = training.fit(
        model,
        segmentation.Segmentation(data, index, maps),
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        evaluate_every=epochs,
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    [found] = segmentation.confusion(model, data, data.split("test"), batch_size=TOGETHER)
    return {**metrics.accuracies(found), "iou": metrics.class_iou(found), "history": history}


def propagate(
    *,
    dataset: str,
    maps: str,
    seed: int,
    network: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    evaluate_every: int,
    train_scenes: int | None,
    area_range: tuple[float, float],
    stage_one: str | None = None,
    t_cam: float = 0.1,
    probability: float = 0.5,
    output_stride: int | None = None,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train a classifier with CutMix whose labels are propagated through masks of another one (Part I, with Part V).

    maps: "none" (labels by area), "masks" (explanation masks of the weights `stage_one` of a run of `classify`) or
    "reference". Returns map_macro, map_micro and average_precision (L) on the test split, the mean IoU `mask_iou` of
    masks with reference maps over classes, the best epoch and the history. Raises ValueError for weights where there
    are no masks, or none where there are.
    """
    if maps not in ("none", "masks", "reference") or (maps == "masks") != (stage_one is not None):
        rule = "'masks' with weights, or 'none' or 'reference' without"
        raise ValueError(f"maps={maps!r}, stage_one={stage_one!r}: expected {rule}")
    data, index = _opened(dataset, root, train_scenes)
    labels, where, found = data.labels[index], None, {}
    if maps == "reference":
        where = label_propagation.class_positions(data, index)
    elif maps == "masks":
        first = _kept(data, network, stage_one, None, output_stride, checkpoint, "classify")
        where = explain.explain_positions(first.to(resolve_device(device)), data, index, t_cam=t_cam)
        reference = data.positions[index]
        found["mask_iou"] = explain.agreement(where, reference, labels, len(data.classes)).nanmean().item()
    method = "cutmix" if maps == "none" else "cutmix_lp_xai"
    least = label_propagation.T_MAP if maps == "masks" else data.min_pixels
    model = models.classifier(
        network, data.images.shape[1], len(data.classes), Generator().manual_seed(seed), output_stride
    )
    task = training.Classification(
        data,
        train=index,
        val=data.split("val"),
        augment=label_propagation.augmentation(method, area_range, probability, least),
        positions=where,
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
        device=device,
        checkpoint=checkpoint,
        progress=False,
    )
    test = data.split("test")
    results = training.score(training.predict(model, data, test), data.labels[test]) | found
    return results | {"best_epoch": max(history, key=lambda row: row[task.watch])["epoch"], "history": history}


def study(methods: Iterable[str], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """The classifiers of a study that need no other: each method with each seed."""
    return [{"method": method, "seed": seed} for method in methods for seed in seeds]


def with_features(rows: Iterable[Mapping[str, Any]], stage_one: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each of the runs with the network of the same seed whose features are clustered. Raises ValueError for a seed
    without one. stage_one: results of `classify`.
    """
    kept, rows = {run["seed"]: run["weights"] for run in stage_one}, list(rows)
    if missing := sorted({row["seed"] for row in rows} - set(kept)):
        raise ValueError(f"stage_one: no network with seed {missing}; expected one for each seed")
    return [{**row, "stage_one": kept[row["seed"]]} for row in rows]


def _opened(dataset: str, root: str | Path | None, train_scenes: int | None) -> tuple[Scenes, Tensor]:
    data = scenes.load(dataset, root)
    index = data.split("train")
    if train_scenes is not None and not 1 <= train_scenes <= len(index):
        raise ValueError(f"train_scenes={train_scenes}: {dataset} has 1 to {len(index)}; None takes all")
    return data, index[:train_scenes]


def _objects(data: Scenes, background: float | None) -> int:
    """How many classes a classifier tells apart: all, but for a background, which is the last."""
    return len(data.classes) - (background is not None)


def _without(data: Scenes, background: float | None) -> Scenes:
    """The scenes with labels of the classes that a classifier tells apart."""
    if background is None:
        return data
    return replace(data, labels=data.labels[:, :-1], classes=data.classes[:-1])


def _network(data: Scenes, name: str, classes: int, output_stride: int | None) -> nn.Module:
    bands, generator = data.images.shape[1], Generator()
    if name == TEACHER:
        return vision_transformer(bands, classes, data.images.shape[3], generator)
    return models.classifier(name, bands, classes, generator, output_stride)


def _kept(
    data: Scenes,
    name: str,
    weights: str,
    background: float | None,
    output_stride: int | None,
    checkpoint: Path | None,
    function: str,
) -> nn.Module:
    if checkpoint is None:
        raise ValueError(f"stage_one={weights!r}: weights lie beside records, and this run has none")
    network = _network(data, name, _objects(data, background), output_stride)
    checkpoints.load_weights(network, _folder(checkpoint, function), weights)
    return network.eval()


def _folder(record: Path, function: str) -> Path:
    """Where the weights of the runs of another function of this module lie, from the path of a record or checkpoint."""
    return record.parent.with_name(f"{__name__.rpartition('.')[2]}.{function}")


def _scores(confusion: Tensor) -> dict[str, Any]:
    return {"miou": metrics.accuracies(confusion)["miou"], "iou": metrics.class_iou(confusion)}


def _check(method: str, stage_one: str | None, checkpoint: Path | None) -> None:
    if method not in (*METHODS, TEACHER):
        raise ValueError(f"method={method!r}: expected one of {', '.join((*METHODS, TEACHER))}")
    needed = method in SUBCATEGORIES
    if needed != (stage_one is not None) or (needed and checkpoint is None):
        rule = f"the weights of an earlier run for {' and '.join(SUBCATEGORIES)}, and for no other"
        raise ValueError(f"stage_one={stage_one!r} with method={method!r}: expected {rule}")
