"""What can be counted without a training: wrong labels of mixtures, noisy maps, masks and what they propagate.

Part I, label propagation for CutMix (Burgert et al., arXiv 2405.13451). Nothing here can change a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Generator, Tensor, nn

from rsbook import explain, label_propagation, mixing, noise, positions
from rsbook.comparisons import level_text
from rsbook.positions import AreaTables
from rsbook.scenes import Scenes

COUNTED = 5_000  # training scenes that are mixed to be counted, at most

Level = tuple[float, float | None]  # fraction and intensity of map noise


def label_errors(
    data: Scenes, area_ranges: Sequence[tuple[float, float]], seed: int, min_pixels: int, repeats: int = 10
) -> pd.DataFrame:
    """How often area labels (eq. 6) disagree with what mixtures of training scenes hold, in per cent.

    A class is held by more than `min_pixels` pixels. One row an area range, four columns: mixtures whose label names a
    class that they do not hold; of all named classes, those of x₁ that went with the hole; those of x₂ that did not
    come with the patch; of all held classes, those with a weight under one half. Raises ValueError for scenes without
    class positions.
    """
    if data.positions is None:
        raise ValueError(f"{data.name} has no class positions to hold the labels against")
    index = data.split("train")[:COUNTED]
    images, labels = data.images[index], data.labels[index]
    tables = AreaTables(data.positions[index], len(data.classes))
    rows = []
    for area_range in area_ranges:
        counts = np.zeros(6)
        for repeat in range(repeats):
            # The same seed twice: the same mixtures, labelled in two ways.
            by_area, by_map = (
                mixing.cutmix(
                    images,
                    labels,
                    where,
                    area_range=area_range,
                    probability=1.0,
                    min_pixels=min_pixels,
                    generator=Generator().manual_seed(seed + repeat),
                )
                for where in (None, tables)
            )
            there, named = by_map.labels > 0, by_area.labels > 0
            lost, absent = labels & ~there, labels[by_area.partner] & ~labels & ~there
            weak = there & (by_area.labels < 0.5)
            counts += [(lost | absent).any(dim=1).sum(), lost.sum(), absent.sum(), weak.sum(), named.sum(), there.sum()]
        wrong, lost, absent, weak, named, there = counts
        rows.append(
            {
                "box area": f"{area_range[0]}–{area_range[1]}",
                "held by more than": f"{min_pixels} px",
                "mixtures with a named class not held": wrong / (repeats * len(index)),
                "named, gone with the hole": lost / named,
                "named, not pasted": absent / named,
                "held, with a weight under ½": weak / there,
            }
        )
    frame = pd.DataFrame(rows)
    return frame.assign(**{column: (100 * frame[column]).round(1) for column in frame.columns[2:]})


def activations(network: nn.Module, data: Scenes, index: Tensor, explainer: str = "cam") -> Tensor:
    """What the network, on the CPU, looks at for every class, (n,L,h,w) float32, in the scenes `index`, in batches."""
    parts = [
        explain.attributions(network, data.normalise(data.images[part]).contiguous(), explainer)
        for part in index.split(256)
    ]
    return torch.cat(parts)


def noise_changes(bits: Tensor, data: Scenes, kind: str, levels: Iterable[Level], seed: int) -> pd.DataFrame:
    """How far maps with one kind of noise differ from clean ones, in per cent: a row a level.

    bits: class positions (n,H,W) of the clean maps. A class is in a label by the data set's own rule.
    """
    num_classes = len(data.classes)
    clean, rows = positions.to_reference_maps(bits, num_classes), []
    for level in levels:
        noisy = label_propagation.noisy(bits, num_classes, kind, *level, seed)
        found = noise.changes(
            clean, positions.to_reference_maps(noisy, num_classes), num_classes, data.min_pixels, background=-1
        )
        rows.append({"noise": level_text(level)} | {name: round(100 * share, 1) for name, share in found.items()})
    names = {
        "maps_changed": "maps changed",
        "pixels_changed": "pixels changed",
        "mean_iou": "mean IoU with the clean maps",
        "labels_lost": "labels lost",
        "labels_gained": "labels gained",
    }
    return pd.DataFrame(rows).rename(columns=names)


def product_quality(bits: Tensor, data: Scenes, index: Tensor) -> pd.DataFrame:
    """How far class positions (n,H,W) of the scenes `index` agree with the reference maps, in per cent: a row a class.

    Share of the map's pixels that carry the class here as well, of the pixels here that carry it there, and IoU.
    """
    truth, num_classes = data.positions[index], len(data.classes)
    both, ours, theirs = (positions.count(b, num_classes).sum(dim=0).double() for b in (bits & truth, bits, truth))
    shares = {
        "found of the reference map's pixels": both / theirs,
        "right of the pixels named": both / ours,
        "IoU": both / (ours + theirs - both),
    }
    frame = pd.DataFrame({"class": data.classes} | {k: (100 * v).numpy().round(1) for k, v in shares.items()})
    right = (both.sum() / theirs.sum(), both.sum() / ours.sum(), shares["IoU"].nanmean())
    frame.loc[len(frame)] = ["all (IoU: mean)", *[round(100 * value.item(), 1) for value in right]]
    return frame


def whole_scenes(data: Scenes, index: Tensor) -> Tensor:
    """Class positions (n,H,W) int32 that say: every class of the scene's label is everywhere."""
    bits = positions.from_explanation_masks(data.labels[index][:, :, None, None])
    return bits.expand(-1, *data.images.shape[2:])


def mask_agreement(masks: Mapping[str, Tensor], data: Scenes, index: Tensor) -> pd.DataFrame:
    """IoU of masks (n,H,W) with the reference maps of the scenes `index`, in per cent: a row a class, a column a
    kind.
    """
    truth, labels = data.positions[index], data.labels[index]
    columns = {
        name: (100 * explain.agreement(bits, truth, labels, len(data.classes))).numpy().round(1)
        for name, bits in masks.items()
    }
    frame = pd.DataFrame({"class": data.classes} | columns)
    frame.loc[len(frame)] = ["mean", *[round(float(np.nanmean(column)), 1) for column in columns.values()]]
    return frame


def mask_labels(
    activations: Tensor,
    data: Scenes,
    index: Tensor,
    *,
    t_cams: Sequence[float],
    t_maps: Sequence[int],
    area_range: tuple[float, float],
    seed: int,
) -> pd.DataFrame:
    """How often labels propagated from explanation masks disagree with the mixtures' maps, for each pair of thresholds.

    activations: (n,L,h,w) of the training scenes `index`, each mixed once. In per cent: classes lost, of those that the
    mixture holds by the data set's rule; classes wrong, of those named; mixtures with an empty label; IoU of the masks.
    """
    images, labels, size = data.images[index], data.labels[index], data.images.shape[2:]
    box = {"area_range": area_range, "probability": 1.0}
    truth = AreaTables(data.positions[index], len(data.classes))
    given = mixing.cutmix(images, labels, truth, min_pixels=data.min_pixels, generator=_seeded(seed), **box).labels > 0
    rows = []
    for t_cam in t_cams:
        masks = torch.cat(
            [
                positions.from_explanation_masks(explain.explanation_masks(a, y, size, t_cam))
                for a, y in zip(activations.split(256), labels.split(256), strict=True)
            ]
        )
        iou = explain.agreement(masks, data.positions[index], labels, len(data.classes)).nanmean().item()
        tables = AreaTables(masks, len(data.classes))
        for t_map in t_maps:
            mixed = mixing.cutmix(images, labels, tables, min_pixels=t_map, generator=_seeded(seed), **box)
            named = mixed.labels > 0
            rows.append(
                {
                    "t_cam": t_cam,
                    "t_map": t_map,
                    "classes lost": (given & ~named).sum().item() / given.sum().item(),
                    "classes wrong": (named & ~given).sum().item() / max(named.sum().item(), 1),
                    "empty labels": (~named.any(dim=1)).float().mean().item(),
                    "IoU of the masks": iou,
                }
            )
    frame = pd.DataFrame(rows)
    return frame.assign(**{column: (100 * frame[column]).round(1) for column in frame.columns[2:]})


def class_shares(
    data: Scenes, index: Tensor, area_range: tuple[float, float], probability: float, seed: int
) -> pd.DataFrame:
    """How many scenes hold each class, in per cent: before mixing, and after CutMix that chooses blindly or looks."""
    index = index[:COUNTED]
    images, labels = data.images[index], data.labels[index]
    tables = AreaTables(data.positions[index], len(data.classes))
    options = {"area_range": area_range, "probability": probability, "min_pixels": data.min_pixels}
    weights = label_propagation.rarity(labels)
    blind = mixing.cutmix(images, labels, tables, generator=_seeded(seed), **options)
    looking = mixing.cutmix(images, labels, tables, class_weights=weights, generator=_seeded(seed), **options)
    columns = {"scenes": labels, "CutMix, random patches": blind.labels, "CutMix that looks": looking.labels}
    shares = {name: (100 * found.double().mean(dim=0)).numpy().round(1) for name, found in columns.items()}
    return pd.DataFrame({"class": data.classes} | shares).sort_values("scenes", ignore_index=True)


def _seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)
