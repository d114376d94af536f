"""Maps from a classifier of Part V: its activations, their confident parts, and what a walk makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate

from rsbook import affinity, metrics, segmentation, weak_segmentation
from rsbook.scenes import Scenes, take

STAGES = ("layer1", "layer2", "layer3", "layer4")  # of timm's ResNets
TOGETHER = 64  # scenes at a time, of 64 × 64 pixels
PIXELS = 2**21  # at a time, of larger scenes, which maps at scale 2 enlarge fourfold
DISTINCT = 2.0  # times as high as the next class is what is confident where there is no background (ours)


def cam_maps(
    network: nn.Module,
    data: Scenes,
    index: Tensor,
    scales: Sequence[float],
    background: float | None,
    flip: bool = True,
) -> Iterable[Tensor]:
    """Maps (n,H,W) int64 of the scenes `index`, part by part: the present class with the highest activation, −1 in
    padding.
    """
    for part, raw in activations(network, data, index, tuple(data.images.shape[2:]), scales, flip):
        present = data.labels[part][:, : raw.shape[1]].to(raw.device)
        found = weak_segmentation.segment(weak_segmentation.normalised(raw, present), present, background).cpu()
        yield found.masked_fill(padding(data, part), -1)


def map_confusion(
    network: nn.Module,
    data: Scenes,
    index: Tensor,
    scales: Sequence[float] = weak_segmentation.SCALES,
    background: float | None = None,
    flip: bool = True,
) -> Tensor:
    """Pixels (K,K) by class in the reference maps and in the activation maps of the scenes `index`."""
    return confusion_of(cam_maps(network, data, index, scales, background, flip), data, index)


def confident(
    network: nn.Module,
    data: Scenes,
    index: Tensor,
    size: tuple[int, int],
    scales: Sequence[float],
    background: float | None,
) -> Tensor:
    """Affinity labels (n,h,w) int64 of the scenes `index`, by `affinity.confident_labels`.

    Where every pixel has a class, there is no background to compare with: confident is what is DISTINCT times as high
    as the next class (ours), and nothing else.
    """
    found = []
    for part, raw in activations(network, data, index, size, scales):
        present = data.labels[part][:, : raw.shape[1]].to(raw.device)
        maps = weak_segmentation.normalised(raw, present)
        if background is not None:
            labels = affinity.confident_labels(maps, present).cpu()
            found.append(labels.masked_fill(padding(data, part, size), affinity.IGNORED))
            continue
        (first, second), (winner, _) = (one.unbind(dim=1) for one in maps.topk(2, dim=1))
        labels = winner.where(first > DISTINCT * second, affinity.IGNORED).cpu()
        found.append(labels.masked_fill(padding(data, part, size), affinity.IGNORED))
    return torch.cat(found)


def walked_maps(
    network: nn.Module,
    net: nn.Module,
    data: Scenes,
    index: Tensor,
    radius: int,
    steps: int,
    beta: float,
    scales: Sequence[float],
    background: float | None,
) -> Iterable[Tensor]:
    """Maps (n,H,W) int64 of the scenes `index`, part by part, from activations walked by learnt affinities, −1 in
    padding.
    """
    size, whole = affinity_size(network, data), tuple(data.images.shape[2:])
    offsets = affinity.neighbours(radius)
    net.eval()
    for part, raw in activations(network, data, index, size, scales):
        present = data.labels[part][:, : raw.shape[1]].to(raw.device)
        images = data.normalise(take(data.images, part).to(raw.device))
        with torch.inference_mode():
            features = net(stage_maps(network, images), size).float()
        inside = ~padding(data, part, size).to(raw.device)
        maps, options = weak_segmentation.normalised(raw, present), {"beta": beta, "steps": steps, "inside": inside}
        scores = affinity.random_walk(maps, present, features, offsets=offsets, **options)
        if background is None:
            scores = scores[:, :-1].masked_fill(~present[:, :, None, None], -1.0)
        found = interpolate(scores, size=whole, mode="bilinear", align_corners=False).argmax(dim=1).cpu()
        yield found.masked_fill(padding(data, part), -1)


def affinity_net(network: nn.Module, data: Scenes, generator: Generator) -> affinity.AffinityNet:
    """An untrained AffinityNet for the last three stages of a classifier, as wide as they are, or as the paper's."""
    images = data.normalise(data.images[:1].to(device_of(network)))
    channels = [maps.shape[1] for maps in stage_maps(network, images)]
    return affinity.AffinityNet(
        channels, generator, [min(pair) for pair in zip(channels, affinity.WIDTHS, strict=True)]
    )


def affinity_size(network: nn.Module, data: Scenes) -> tuple[int, int]:
    """The size (h,w) at which affinities are learnt: that of the last stage but one."""
    images = data.normalise(data.images[:1].to(device_of(network)))
    return tuple(stage_maps(network, images)[-2].shape[2:])


def stages_of(network: nn.Module) -> list[nn.Module]:
    """The stages of a ResNet of timm that do something."""
    found = [getattr(network, name, None) for name in STAGES]
    return [stage for stage in found if stage is not None and not isinstance(stage, nn.Identity)]


@torch.no_grad()
def stage_maps(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Feature maps [(B,C,h,w), …] float32 of the last three stages of a classifier, fine to coarse; no gradient."""
    with _outputs(stages_of(network)[-3:]) as kept:
        network.forward_features(images.contiguous(memory_format=torch.channels_last))
    return [one.float() for one in kept]


@contextmanager
def _outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What the modules give in a forward pass within, in their order."""
    kept: list[Tensor] = []
    hooks = [module.register_forward_hook(lambda _m, _i, output: kept.append(output)) for module in modules]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def pooled_features(network: nn.Module, data: Scenes, index: Tensor, batch_size: int = 256) -> Tensor:
    """Features (n,D) float32 on the CPU of the scenes `index` before the last layer of a network of timm."""
    network.eval()
    device, found = next(network.parameters()).device, []
    with torch.inference_mode():
        for part in index.split(batch_size):
            images = data.normalise(take(data.images, part).to(device))
            features = network.forward_head(network.forward_features(images), pre_logits=True)
            found.append(features.float().cpu())
    return torch.cat(found)


def activations(
    network: nn.Module,
    data: Scenes,
    index: Tensor,
    size: tuple[int, int],
    scales: Sequence[float],
    flip: bool = True,
) -> Iterable[tuple[Tensor, Tensor]]:
    """Scenes (b,) and their activation maps (b,L,h,w), part by part; zero in padding, where nothing may be highest."""
    for part in index.split(together(data)):
        images = data.normalise(take(data.images, part).to(device_of(network))).contiguous(
            memory_format=torch.channels_last
        )
        maps = weak_segmentation.multi_scale_maps(network, images, size, scales, flip).detach()
        yield part, maps.masked_fill(padding(data, part, size)[:, None].to(maps.device), 0)


def together(data: Scenes) -> int:
    """How many scenes are looked at in one pass: their memory grows with their pixels."""
    return max(1, min(TOGETHER, PIXELS // (data.images.shape[2] * data.images.shape[3])))


def padding(data: Scenes, index: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Where (n,h,w) bool the scenes `index` are padding and no image, at the size of the images or a smaller one."""
    whole = tuple(data.images.shape[2:])
    height, width = size or whole
    if data.sizes is None:
        return torch.zeros(len(index), height, width, dtype=torch.bool)
    inside = data.sizes[index][:, :, None]
    rows, columns = (
        (torch.arange(n) + 0.5) * pixels / n >= inside[:, i]
        for i, (n, pixels) in enumerate(zip((height, width), whole, strict=True))
    )
    return rows[:, :, None] | columns[:, None]


def confusion_of(found: Iterable[Tensor], data: Scenes, index: Tensor) -> Tensor:
    """Pixels (K,K) by class in the reference maps and in maps (n,H,W) that come part by part, of scenes `index`."""
    count, start, total = len(data.classes), 0, torch.zeros((), dtype=torch.int64)
    for part in found:
        truth = segmentation.maps_of(data, index[start : start + len(part)])
        total, start = total + metrics.confusion_matrix(part, truth, count), start + len(part)
    return total


def confidence(labels: Tensor, data: Scenes, index: Tensor) -> dict[str, float | None]:
    """Which share of the pixels with a truth is confident, and which of these is right, at the labels' size."""
    height, width = data.images.shape[2:]
    rows = torch.arange(labels.shape[1]) * height // labels.shape[1]
    columns = torch.arange(labels.shape[2]) * width // labels.shape[2]
    truth = torch.cat(
        [segmentation.maps_of(data, part)[:, rows][:, :, columns] for part in index.split(together(data))]
    )
    known = (labels != affinity.IGNORED) & (truth >= 0)
    right = (labels == truth)[known]
    return {
        "confident": (known.sum() / (truth >= 0).sum()).item(),
        "confident_right": right.float().mean().item() if len(right) else None,
    }


def device_of(network: nn.Module) -> torch.device:
    """The device of a network."""
    return next(network.parameters()).device
