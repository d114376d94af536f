"""What the runs of Part V found, looked at again: maps, activations, thresholds and clusters for figures and tables.

A run is a row of the table that `runs.table` gives, whose weights lie beside its record. Nothing here trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate

from rsbook import checkpoints, deeplab, metrics, segmentation, subcategories, weak_segmentation
from rsbook.devices import resolve_device
from rsbook.files import location
from rsbook.scenes import Scenes
from rsbook.weak_maps import (
    activations,
    affinity_net,
    affinity_size,
    cam_maps,
    confident,
    device_of,
    pooled_features,
    stages_of,
    together,
    walked_maps,
)
from rsbook.weak_runs import kept_classifier

Run = Mapping[str, Any]


def classifier_of(run: Run, data: Scenes) -> nn.Module:
    """The classifier of a run of `weak_runs.classify`, in evaluation mode. Raises ValueError for missing weights."""
    return _classifier(run, data, run["weights"], "cpu")


def maps_of(run: Run, data: Scenes, index: Tensor) -> Tensor:
    """Maps (n,H,W) int64 from the activations of a run of `weak_runs.classify` on the scenes `index`."""
    network = _classifier(run, data, run["weights"])
    return torch.cat(list(cam_maps(network, data, index, run["scales"], run["background"])))


def refined_maps_of(run: Run, data: Scenes, index: Tensor) -> tuple[Tensor, Tensor]:
    """Of a run of `weak_runs.refine`, on the scenes `index`: what it was sure of (n,h,w) and the walked maps (n,H,W),
    int64.
    """
    network = _classifier(run, data, run["stage_one"])
    net = affinity_net(network, data, Generator())
    checkpoints.load_weights(net, location(run["record"]).parent, run["weights"])
    net = net.to(device_of(network))
    known = confident(network, data, index, affinity_size(network, data), run["scales"], run["background"])
    options = (run["radius"], run["steps"], run["beta"], run["scales"], run["background"])
    return known, torch.cat(list(walked_maps(network, net, data, index, *options)))


def segmented_by(run: Run, data: Scenes, index: Tensor) -> Tensor:
    """Maps (n,H,W) int64 that the network of a run of `weak_uses.segment` finds in the scenes `index`."""
    shape = (run["network"], data.images.shape[1], len(data.classes))
    model = deeplab.deeplab_v2(*shape, Generator(), run["rates"], run["looks"])
    checkpoints.load_weights(model, location(run["record"]).parent, run["weights"])
    model, device = model.eval().to(resolve_device("auto")), resolve_device("auto")
    with torch.inference_mode():
        batches = (data.normalise(data.images[part].to(device)) for part in index.split(together(data)))
        return torch.cat([model(images).argmax(dim=1).cpu() for images in batches])


def activations_of(run: Run, data: Scenes, scene: int, class_index: int) -> dict[str, Tensor]:
    """Activations (H,W) of a class in a scene, by scale, mirrored ones added, and their sum, by what a figure says."""
    images, size = data.normalise(data.images[scene : scene + 1]), tuple(data.images.shape[2:])
    scaled = weak_segmentation.scale_maps(classifier_of(run, data), images, run["scales"])
    found = {
        f"scale {scale:g}": interpolate(maps.detach(), size=size, mode="bilinear", align_corners=False)[0, class_index]
        for scale, maps in zip(run["scales"], scaled, strict=True)
    }
    return found | {"sum": torch.stack(list(found.values())).sum(dim=0)}


def threshold_sweep(runs: Iterable[Run], data: Scenes, index: Tensor, thresholds: Sequence[float]) -> pd.DataFrame:
    """Mean IoU of the maps of runs of `weak_runs.classify` on the scenes `index` by the threshold of the background: a
    row a seed and threshold. Where there is no background, what is below belongs to no class, which is always wrong.
    """
    size, rows, present = tuple(data.images.shape[2:]), [], data.labels
    for run in runs:
        network, total = _classifier(run, data, run["weights"]), 0
        for part, maps in activations(network, data, index, size, run["scales"]):
            there = present[part][:, : maps.shape[1]].to(maps.device)
            scores, truth = weak_segmentation.normalised(maps, there), segmentation.maps_of(data, part, maps.device)
            total = total + weak_segmentation.background_confusions(scores, there, truth, thresholds).cpu()
        for threshold, confusion in zip(thresholds, total, strict=True):
            miou = metrics.accuracies(confusion)["miou"]
            rows.append({"seed": run["seed"], "threshold": threshold, "miou": miou})
    return pd.DataFrame(rows)


def stage_table(network: nn.Module, data: Scenes) -> pd.DataFrame:
    """The input and the stages of a classifier as Manifold Mixup sees them: name, channels, height, width, and whether
    it may mix there.
    """
    stages, kept = stages_of(network), []
    hooks = [stage.register_forward_hook(lambda _m, _i, output: kept.append(output.shape)) for stage in stages]
    images = data.normalise(data.images[:1])
    with torch.inference_mode():
        network.eval()(images)
    for hook in hooks:
        hook.remove()
    shapes = [images.shape, *kept]
    rows = [
        {"name": f"stage {k}" if k else "image", "channels": c, "height": h, "width": w, "mixed": k < len(stages)}
        for k, (_, c, h, w) in enumerate(shapes)
    ]
    return pd.DataFrame(rows)


def features_of(run: Run, data: Scenes, index: Tensor) -> Tensor:
    """Pooled features (n,D) of the scenes `index` by the classifier of a run of `weak_runs.classify`."""
    return pooled_features(classifier_of(run, data), data, index)


def cluster_table(features: Tensor, labels: Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """FINCH's partitions of the scenes that hold each class, from features (n,D) and labels (n,L) bool: how many
    clusters, from fine to coarse, and how many scenes each of the coarsest has.
    """
    rows = []
    for name, there in zip(classes, labels.T, strict=False):  # a background is a class without labels
        if not there.any():
            continue
        partitions = subcategories.finch(features[there])
        sizes = partitions[-1].bincount().sort(descending=True).values.tolist() if partitions else [int(there.sum())]
        row = {"class": name, "scenes": int(there.sum())}
        row["clusters, fine to coarse"] = " → ".join(str(int(p.max()) + 1) for p in partitions) or "1"
        rows.append(row | {"scenes of the coarsest": ", ".join(map(str, sizes))})
    return pd.DataFrame(rows)


def _classifier(run: Run, data: Scenes, weights: str, device: str = "auto") -> nn.Module:
    settings = (run["network"], weights, run["background"], run["output_stride"])
    return kept_classifier(data, *settings, location(run["record"])).to(resolve_device(device))
