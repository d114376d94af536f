"""Part V: what maps from image-level labels are used for, as runs: to train a segmentation network (`segment`), and as
class positions for the label propagation of Part I (`propagate`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator

from rsbook import (
    checkpoints,
    deeplab,
    explain,
    label_propagation,
    metrics,
    models,
    segmentation,
    training,
    weak_segmentation,
)
from rsbook.devices import resolve_device
from rsbook.weak_maps import affinity_net, cam_maps, together, walked_maps
from rsbook.weak_runs import folder_of, kept_classifier, opened
from rsbook.weak_tasks import DeepLabMaps

SOURCES = ("cam", "walk", "reference")  # of the maps that a segmentation network is trained on
NEEDED = {"cam": (True, False), "walk": (True, True), "reference": (False, False)}  # stage_one, refined


def segment(
    *,
    dataset: str,
    source: str,
    seed: int,
    network: str,
    fitting: Mapping[str, Any],
    classifier: str,
    train_scenes: int | None = None,
    splits: Sequence[str] = ("train",),
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
    pretrained: bool = False,
    crop: int | None = None,
    zoom: tuple[float, float] | None = None,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train DeepLab-v2 on maps made from image-level labels and test it on scenes of which nothing is given.

    source: one of SOURCES: activation maps of the classifier with weights `stage_one`, these walked by the AffinityNet
    with weights `refined`, or, as the upper bound, the reference maps · classifier: the name of that network · network:
    DeepLab's encoder, with weights from ImageNet if pretrained; rates, looks: its atrous rates and scales · fitting:
    settings of `training.fit` · crop, zoom: of training images, see `segmentation.MapTask` · the rest as for
    `weak_runs.refine`. Returns miou, oa, aa and iou on the test split, the history and the name of the weights. Raises
    ValueError for a source that is none, or weights that do not go with it.
    """
    if source not in SOURCES or NEEDED[source] != (stage_one is not None, refined is not None):
        rule = "stage_one for 'cam', also refined for 'walk', neither for 'reference'"
        raise ValueError(f"source={source!r}, stage_one={stage_one!r}, refined={refined!r}: expected {rule}")
    data, index = opened(dataset, root, splits, train_scenes)
    maps = None
    if source != "reference":
        first = kept_classifier(data, classifier, stage_one, background, output_stride, checkpoint)
        first = first.to(resolve_device(device))
        found = cam_maps(first, data, index, scales, background)
        if source == "walk":
            net = affinity_net(first, data, Generator())
            checkpoints.load_weights(net, folder_of("refine", checkpoint), refined)
            net = net.to(resolve_device(device))
            found = walked_maps(first, net, data, index, radius, steps, beta, scales, background)
        maps = torch.cat([part.to(torch.int8) for part in found])
    generator = Generator().manual_seed(seed)
    model = deeplab.deeplab_v2(
        network, data.images.shape[1], len(data.classes), generator, rates, looks, pretrained=pretrained
    )
    task = DeepLabMaps(data, index, maps, crop=crop, zoom=zoom)
    settings = {"seed": seed, "device": device, "checkpoint": checkpoint, "progress": False}
    history = training.fit(model, task, evaluate_every=fitting["epochs"], **settings, **fitting)
    [confusion] = segmentation.confusion(model, data, data.split("test"), batch_size=together(data))
    results = {**metrics.accuracies(confusion), "iou": metrics.class_iou(confusion), "history": history}
    if checkpoint is not None:
        results["weights"] = checkpoints.save_weights(model, checkpoint.parent)
    return results


def propagate(
    *,
    dataset: str,
    maps: str,
    seed: int,
    network: str,
    fitting: Mapping[str, Any],
    area_range: tuple[float, float],
    train_scenes: int | None = None,
    splits: Sequence[str] = ("train",),
    stage_one: str | None = None,
    t_cam: float = 0.1,
    probability: float = 0.5,
    output_stride: int | None = None,
    root: str | Path | None = None,
    device: str = "auto",
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Train a classifier with CutMix whose labels are propagated through masks of another one (Part I, with Part V).

    maps: "none" (labels by area), "masks" (explanation masks of the weights `stage_one` of a run of
    `weak_runs.classify`, of the same network) or "reference" · fitting: settings of `training.fit`. Returns map_macro,
    map_micro and average_precision (L) on the test split, the mean IoU `mask_iou` of masks with reference maps over
    classes, the best epoch and the history. Raises ValueError for weights where there are no masks, or none where there
    are, and for scenes without reference maps or with padding.
    """
    if maps not in ("none", "masks", "reference") or (maps == "masks") != (stage_one is not None):
        rule = "'masks' with weights, or 'none' or 'reference' without"
        raise ValueError(f"maps={maps!r}, stage_one={stage_one!r}: expected {rule}")
    data, index = opened(dataset, root, splits, train_scenes)
    if data.positions is None or data.sizes is not None:
        raise ValueError(f"dataset={dataset!r}: expected scenes with reference maps that are not padded")
    labels, where, found = data.labels[index], None, {}
    if maps == "reference":
        where = label_propagation.class_positions(data, index)
    elif maps == "masks":
        first = kept_classifier(data, network, stage_one, None, output_stride, checkpoint)
        where = explain.explain_positions(first.to(resolve_device(device)), data, index, t_cam=t_cam)
        reference = data.positions[index]
        found["mask_iou"] = explain.agreement(where, reference, labels, len(data.classes)).nanmean().item()
    method = "cutmix" if maps == "none" else "cutmix_lp_xai"
    least = label_propagation.T_MAP if maps == "masks" else data.min_pixels
    augment = label_propagation.augmentation(method, area_range, probability, least)
    model = models.classifier(
        network, data.images.shape[1], len(data.classes), Generator().manual_seed(seed), output_stride
    )
    task = training.Classification(data, train=index, val=data.split("val"), augment=augment, positions=where)
    settings = {"seed": seed, "device": device, "checkpoint": checkpoint, "progress": False}
    history = training.fit(model, task, **settings, **fitting)
    test = data.split("test")
    results = training.score(training.predict(model, data, test), data.labels[test]) | found
    return results | {"best_epoch": max(history, key=lambda row: row[task.watch])["epoch"], "history": history}


def segmentations(runs: Iterable[Mapping[str, Any]], source: str, seeds: Iterable[int] = ()) -> list[dict[str, Any]]:
    """Grid of `segment`. runs: of `weak_runs.classify` for source "cam", of `weak_runs.refine` for "walk"; for
    "reference" none, but the seeds.
    """
    if source == "reference":
        return [{"source": source, "seed": seed} for seed in seeds]
    if source == "cam":
        return [{"source": source, "seed": run["seed"], "stage_one": run["weights"]} for run in runs]
    return [
        {"source": source, "seed": run["seed"], "stage_one": run["stage_one"], "refined": run["weights"]}
        for run in runs
    ]


def propagations(classified: Iterable[Mapping[str, Any]], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """Grid of `propagate`: labels by area and reference maps with each seed, and masks of each run of `classify`."""
    bounds = [{"maps": maps, "seed": seed} for maps in ("none", "reference") for seed in seeds]
    return bounds + [{"maps": "masks", "seed": run["seed"], "stage_one": run["weights"]} for run in classified]
