"""Class activation maps by hand: scales, mirroring and a threshold; the map they add up to, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import matplotlib
import numpy as np
import pandas as pd
import torch
import traitlets
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from rsbook import figures, metrics, segmentation, weak_segmentation
from rsbook.figures import Html
from rsbook.scenes import Scenes
from rsbook.weak_maps import device_of
from rsbook.weak_segmentation import SCALES
from rsbook.widgets.explorer import Explorer, rgb, scene_names

MAX_SCENES = 12  # so many are segmented anew within a frame, and small enough for a page
STEPS, HIGHEST = 100, 0.9  # thresholds 0.00, 0.01, … 0.90
UNASSIGNED = "unassigned"


class CamExplorer(Explorer):
    """Segmentation of scenes from a classifier's activation maps, as `weak_segmentation` does it.

    scene: which of the offered ones · class_name: a class of its label, whose map is shown, "" for the highest of all ·
    scales: those whose maps are added, one or more of `offered` · flip: each of them also mirrored · threshold: in
    hundredths, 0 … 0.90; 0 for none · below: what a pixel is whose maps are all no higher.
    """

    scene = traitlets.Int(0).tag(sync=True)
    class_name = traitlets.Unicode("").tag(sync=True)
    scales = traitlets.List(traitlets.Float()).tag(sync=True)
    flip = traitlets.Bool(True).tag(sync=True)
    threshold = traitlets.Float(0.0).tag(sync=True)
    offered = traitlets.List(traitlets.Float()).tag(sync=True)
    below = traitlets.Unicode().tag(sync=True)
    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(
        self,
        data: Scenes,
        index: Sequence[int] | Tensor,
        network: nn.Module,
        *,
        background: float | None = None,
        scales: Sequence[float] = SCALES,
    ) -> None:
        """Offer the scenes `index` of `data`, which have reference maps, 1 to 12, with the maps of a classifier.

        network: with an output for each class; but for the last one, where `background`, the threshold to begin with,
        says that this is the background. It runs here once a scale and direction, on its own device, and is left as it
        was. Raises ValueError for a scene without a class, and for arguments that do not fit.
        """
        chosen = [int(i) for i in index]
        _check(data, chosen, scales, background)
        objects = len(data.classes) - (background is not None)
        own = replace(data, labels=data.labels[:, :objects], classes=data.classes[:objects])
        self.data, self.scenes, self.labels = data, chosen, own.labels[chosen]
        if not self.labels.any(dim=1).all():
            raise ValueError(f"index: a scene of {data.name} has no class in its label, expected one or more in each")
        self.truth = segmentation.maps_of(data, torch.tensor(chosen))
        offered = sorted(float(scale) for scale in scales)
        self._maps = _coarse_maps(network, own, chosen, offered)
        heat = matplotlib.colormaps["viridis"](np.linspace(0, 1, STEPS + 1), bytes=True)[:, :3]
        below = UNASSIGNED if background is None else data.classes[-1]
        super().__init__(
            arrays={
                "images": rgb(data, chosen),
                "labels": self.labels.to(torch.uint8),
                "truth": self.truth.to(torch.int8),
                "heat": heat,
                **{f"maps_{k}": maps for k, maps in enumerate(self._maps)},
            },
            offered=offered,
            scales=offered,
            threshold=background or 0.0,
            below=below,
            classes=list(data.classes),
            colours=figures.class_colours(data.classes),
            names=scene_names(own, chosen),
            caption="A classifier that has seen the labels of scenes, and no map, says where it sees each class. The "
            "maps of a class at the chosen scales are added, and the sum is divided by its maximum. A pixel gets the "
            "class of the scene's label whose map is highest there; with a threshold, it is "
            f"{f'{below}, and left empty,' if background is None else below} where no map exceeds it. "
            "The reference map is what the network never saw. IoU: pixels that both have, of those that either has; "
            f"over all {len(chosen)} scenes, from their pixels together, a mean over the classes in the reference maps."
            + (" An unassigned pixel is wrong for the class it has there." if background is None else ""),
        )

    @cached_property
    def fallback(self) -> Html:
        """Scene, highest map, segmentation and reference map of the first scenes, as they are at first."""
        return self._draw(range(min(4, len(self.scenes))))

    @traitlets.validate("scene")
    def _validate_scene(self, proposal: dict) -> int:
        if not 0 <= proposal["value"] < len(self.scenes):
            raise ValueError(f"scene={proposal['value']}: expected 0 to {len(self.scenes) - 1}")
        return proposal["value"]

    @traitlets.validate("class_name")
    def _validate_class_name(self, proposal: dict) -> str:
        name, present = proposal["value"], self._present(self.scene)
        if name and name not in present:
            expected = figures.listed([repr(one) for one in present])
            raise ValueError(f"class_name={name!r}: expected one of scene {self.scene}, {expected}, or '' for all")
        return name

    @traitlets.validate("scales")
    def _validate_scales(self, proposal: dict) -> list[float]:
        found = sorted(proposal["value"])
        if not found or len(set(found)) < len(found) or not set(found) <= set(self.offered):
            offered = figures.listed([f"{scale:g}" for scale in self.offered])
            raise ValueError(f"scales={proposal['value']}: expected one or more of {offered}, each once")
        return found

    @traitlets.validate("threshold")
    def _validate_threshold(self, proposal: dict) -> float:
        _check_threshold("threshold", proposal["value"])
        return round(proposal["value"], 2)

    @traitlets.observe("scene")
    def _show_all_classes(self, change: traitlets.Bunch) -> None:
        """Of a class that is not in the new scene's label there is no map to show."""
        if self.class_name not in ("", *self._present(self.scene)):
            self.class_name = ""

    def maps(self, scene: int) -> Tensor:
        """Maps (1,L,H,W) float64, in 0 … 1, of one of the offered scenes, by `weak_segmentation.normalised`."""
        present, size = self.labels[scene : scene + 1], tuple(self.data.images.shape[2:])
        rows = torch.nonzero(self.labels)[:, 0] == scene
        total = torch.zeros(1, present.shape[1], *size, dtype=torch.float64)
        for k, scale in enumerate(self.offered):
            if scale in self.scales:
                coarse = self._maps[k][int(self.flip), rows][None].double()
                total[present] += interpolate(coarse, size=size, mode="bilinear", align_corners=False)[0]
        return weak_segmentation.normalised(total, present)

    def segment(self, scene: int) -> Tensor:
        """The class (H,W) int64 of each pixel of one of the offered scenes; L for `below`."""
        present = self.labels[scene : scene + 1]
        return weak_segmentation.segment(self.maps(scene), present, self.threshold or None)[0]

    def read_out(self) -> pd.DataFrame:
        """What the table says, a row a class that the label or reference map of any offered scene has.

        present: whether the scene's label has it, or it is the background · map_pixels, found_pixels: of the scene in
        the reference map and in the segmentation, where the former has a class · iou: of both, nan for a class that is
        not present or not in the reference map · iou_all: the same from the pixels of all offered scenes.
        """
        confusions = self._confusions()
        own, everywhere = confusions[self.scene], confusions.sum(dim=0)
        count = len(self.data.classes)
        present = torch.ones(count, dtype=torch.bool)
        present[: self.labels.shape[1]] = self.labels[self.scene]
        shown = everywhere.sum(dim=1)[:count] > 0
        shown[: self.labels.shape[1]] |= self.labels.any(dim=0)
        found = {
            "class": self.data.classes,
            "present": present,
            "map_pixels": own.sum(dim=1)[:count],
            "found_pixels": own.sum(dim=0)[:count],
            "iou": np.where(present, _iou(own, count), np.nan),
            "iou_all": _iou(everywhere, count),
        }
        return pd.DataFrame(found)[shown.numpy()].reset_index(drop=True)

    def read_out_means(self) -> pd.Series:
        """What the sentences say: iou, iou_all, the means over classes of what `read_out` says; nan for none.

        below: the share of the scene's pixels that no map is higher at than the threshold · right: the share of pixels
        with the class of the reference map, of those that have one there, nan where none has.
        """
        table, own = self.read_out(), self._confusion(self.scene)
        below = (self.segment(self.scene) == self.labels.shape[1]).double().mean().item()
        pixels = own.sum().item()
        return pd.Series(
            {
                "iou": table["iou"].mean(),
                "iou_all": table["iou_all"].mean(),
                "below": below,
                "right": own.diagonal().sum().item() / pixels if pixels else np.nan,
            },
            dtype=float,
        )

    def _present(self, scene: int) -> list[str]:
        classes = self.data.classes[: self.labels.shape[1]]
        return [name for name, has in zip(classes, self.labels[scene].tolist(), strict=True) if has]

    def _confusion(self, scene: int) -> Tensor:
        """Pixels (L+1,L+1) of one scene by class in the reference map and in the segmentation; L: `below`."""
        count = self.labels.shape[1] + 1
        return metrics.confusion_matrix(self.segment(scene), self.truth[scene], count)

    def _confusions(self) -> Tensor:
        return torch.stack([self._confusion(scene) for scene in range(len(self.scenes))])

    def _draw(self, shown: Sequence[int]) -> Html:
        found = [self.segment(k).numpy() for k in shown]
        rows = {"scene": [self.scenes[k] for k in shown]}
        for c, name in enumerate(self.classes):
            rows[f"{name}_found"] = [int((one == c).sum()) for one in found]
            rows[f"{name}_in_map"] = [int((self.truth[k] == c).sum()) for k in shown]
        return figures.show(
            lambda theme: self._figure(theme, shown, found),
            alt="Scenes in rows: the image, a heat map of the highest activation of any class of its label, the "
            "segmentation that follows from it, and the reference map.",
            caption="Segmentation from image-level labels: each pixel has the class of the scene's label with the "
            f"highest activation map. Mean IoU over {len(self.scenes)} scenes, which can be chosen where scripts run: "
            f"{self.read_out_means()['iou_all']:.3f}.",
            data=pd.DataFrame(rows),
            name="activation_segments",
            vector=False,
        )

    def _figure(self, theme: Mapping[str, str], shown: Sequence[int], found: Sequence[np.ndarray]) -> Figure:
        figure = Figure(figsize=(6.0, 1.5 * len(shown) + 0.6), layout="constrained")
        axes, count = figure.subplots(len(shown), 4, squeeze=False), len(self.classes)
        style = {"cmap": ListedColormap(self.colours), "norm": BoundaryNorm(np.arange(count + 1) - 0.5, count)}
        maps = [(segments, self.truth[k].numpy()) for k, segments in zip(shown, found, strict=True)]
        for k, row, both in zip(shown, axes, maps, strict=True):
            row[0].imshow(rgb(self.data, [self.scenes[k]])[0].numpy())
            row[1].imshow(self.maps(k)[0].amax(dim=0).numpy(), cmap="viridis", vmin=0, vmax=1)
            for ax, classes in zip(row[2:], both, strict=True):
                ax.imshow(np.ma.masked_outside(classes, 0, count - 1), interpolation="nearest", **style)
            for ax in row:
                ax.set(xticks=[], yticks=[])
            row[0].set_ylabel(f"scene {self.scenes[k]}", fontsize=8, color=theme["ink"])
        for ax, title in zip(axes[0], ("scene", "highest map", "segmentation", "reference map"), strict=True):
            ax.set_title(title, fontsize=8)
        used = [c for c in range(count) if any((one == c).any() for both in maps for one in both)]
        figure.legend(
            handles=[Patch(facecolor=self.colours[c], edgecolor=theme["muted"], label=self.classes[c]) for c in used],
            loc="outside lower center",
            ncols=4,
            fontsize=7.5,
        )
        return figure


def _check(data: Scenes, chosen: Sequence[int], scales: Sequence[float], background: float | None) -> None:
    if data.positions is None:
        raise ValueError(f"{data.name}: the explorer needs reference maps")
    if not 1 <= len(chosen) <= MAX_SCENES or len(set(chosen)) < len(chosen):
        raise ValueError(f"index={chosen}: expected 1 to {MAX_SCENES} scenes, each once")
    if min(chosen) < 0 or max(chosen) >= len(data.images):
        raise ValueError(f"index={chosen}: expected scenes from 0 to {len(data.images) - 1}")
    if len(set(scales)) < len(scales):
        raise ValueError(f"scales={tuple(scales)}: expected each once")
    if background is not None:
        _check_threshold("background", background)
    if len(data.classes) < 1 + (background is not None):
        raise ValueError(f"classes={data.classes}: expected one or more beside the background")


def _check_threshold(name: str, value: float) -> None:
    steps = value * STEPS
    if not (0 <= value <= HIGHEST and abs(steps - round(steps)) < 1e-6):  # nan is not
        raise ValueError(f"{name}={value}: expected 0 to {HIGHEST:g} in steps of {1 / STEPS:g}")


def _coarse_maps(network: nn.Module, data: Scenes, chosen: Sequence[int], scales: Sequence[float]) -> list[Tensor]:
    """Of each scale, maps (2,P,h,w) float32 ≥ 0 of the P pairs of a scene and a class of its label, in this order.

    The first ones are of the images, the second ones have those of the mirrored images added.
    """
    present = data.labels[chosen]
    images = data.normalise(data.images[chosen].to(device_of(network)))
    found = []
    both = (weak_segmentation.scale_maps(network, images, scales, flip) for flip in (False, True))
    for pair in zip(*both, strict=True):
        if pair[0].shape[1] != present.shape[1]:
            expected = f"{present.shape[1]}: {figures.listed(data.classes)}"
            raise ValueError(f"network: has {pair[0].shape[1]} outputs, expected {expected}")
        maps = torch.stack([one.detach().float().cpu()[present] for one in pair])
        if not maps.isfinite().all():
            raise ValueError("network: its maps are not finite; has the training diverged?")
        found.append(maps)
    return found


def _iou(confusion: Tensor, count: int) -> np.ndarray:
    return np.array(metrics.class_iou(confusion)[:count], dtype=float)
