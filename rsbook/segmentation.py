"""Segmentation: losses with a weight for each pixel, augmentation of images with their maps, and the training task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, grid_sample, kl_div, one_hot

from rsbook import metrics, positions
from rsbook.scenes import Scenes, take
from rsbook.training import room

TURNED = 0.2  # the share of a batch's images that is rotated
FLIPPED = 0.5
EPSILON = 1e-7


def weighted_cross_entropy(logits: Tensor, maps: Tensor, weights: Tensor) -> Tensor:
    """Σ W · CE / Σ W over all pixels of logits (B,K,H,W), maps (B,H,W) int64 and weights (B,H,W).

    Pixels whose map is negative count for nothing; without any weight the loss is 0.
    """
    weights = weights * (maps >= 0)
    losses = cross_entropy(logits.float(), maps.clamp(min=0), reduction="none")
    return (weights * losses).sum() / weights.sum().clamp(min=EPSILON)


def weighted_dice(probabilities: Tensor, maps: Tensor, weights: Tensor) -> Tensor:
    """1 − 2 Σ W p y / (Σ W p + Σ W y) for each class over all pixels of the batch, then the mean over the K classes.

    probabilities (B,K,H,W), maps (B,H,W) int64, negative where there is no label, weights (B,H,W). A class that no
    label of the batch names contributes 0, as in the authors' code.
    """
    classes = probabilities.shape[1]
    known = maps >= 0
    weights = (weights * known)[:, None]
    labels = (one_hot(maps.clamp(min=0), classes) * known[..., None]).to(probabilities.dtype).movedim(-1, 1)
    weighted = weights * probabilities
    both = (weighted * labels).sum(dim=(0, 2, 3))
    either = weighted.sum(dim=(0, 2, 3)) + (weights * labels).sum(dim=(0, 2, 3))
    there = labels.sum(dim=(0, 2, 3)) > 0
    return ((1 - 2 * both / either.clamp(min=EPSILON)) * there).mean()


def consistency(student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
    """KL divergence of the student's from the teacher's probabilities, summed over classes, Σ W · KL / Σ W over pixels.

    student, teacher: logits (B,K,H,W), the teacher's without a gradient; weights (B,H,W): how certain the teacher is.
    """
    target = teacher.detach().float().log_softmax(dim=1)
    losses = kl_div(student.float().log_softmax(dim=1), target, reduction="none", log_target=True).sum(dim=1)
    return (weights * losses).sum() / weights.sum().clamp(min=EPSILON)


def supervised(logits: Tensor, maps: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy and Dice of logits (B,K,H,W) against maps (B,H,W); weights (B,H,W), None: all pixels alike."""
    weights = torch.ones_like(maps, dtype=torch.float32) if weights is None else weights
    probabilities = logits.float().softmax(dim=1)
    return weighted_cross_entropy(logits, maps, weights) + weighted_dice(probabilities, maps, weights)


def augment(images: Tensor, maps: Tensor, generator: Generator, size: int | None = None) -> tuple[Tensor, Tensor]:
    """Images (B,C,H,W) float32 and their maps (B,H,W), cropped, flipped and rotated alike (CromSS, the authors' code).

    A random crop of size × size pixels where the images are larger; then, with a probability of one half, a flip
    (upright, sideways or both); then, with one of a fifth, a rotation of up to 90 degrees either way, what comes from
    outside mirrored: images bilinear, maps by nearest neighbour.
    """
    if size is not None and size < max(images.shape[2:]):
        images, maps = _crop(images, maps, size, generator)
    n = len(images)
    draws = torch.rand(4, n, generator=generator, device=generator.device)
    images, maps = images.clone(), maps.clone()
    kinds = (draws[1] * 3).long()
    for kind, axes in enumerate(((-1,), (-2,), (-2, -1))):
        chosen = ((draws[0] < FLIPPED) & (kinds == kind)).nonzero()[:, 0].to(images.device)
        images[chosen], maps[chosen] = images[chosen].flip(axes), maps[chosen].flip(axes)
    turned = (draws[2] < TURNED).nonzero()[:, 0]
    if len(turned):
        angles = (draws[3][turned] * 2 - 1) * torch.pi / 2
        turned = turned.to(images.device)
        images[turned], maps[turned] = rotate(images[turned], maps[turned], angles.to(images.device))
    return images, maps


def augment_photographs(
    images: Tensor, maps: Tensor | None, generator: Generator, size: int, zoom: tuple[float, float]
) -> tuple[Tensor, Tensor | None]:
    """Images (B,C,H,W) float32 and their maps (B,H,W), if any, as size × size pixels that stay upright.

    Each is enlarged by a factor drawn uniformly from `zoom`, mirrored with a probability of one half, and cropped at a
    random place, or placed at random where it is smaller; around it images are 0 and maps −1. Images bilinear, maps by
    nearest neighbour. Raises ValueError for a size below 1, or a zoom that is not 0 < lowest ≤ highest.
    """
    if size < 1 or not 0 < zoom[0] <= zoom[1]:
        raise ValueError(f"size={size}, zoom={zoom}: expected a pixel at least, and 0 < lowest ≤ highest")
    n, height, width = len(images), *images.shape[2:]
    draws = torch.rand(4, n, generator=generator, device=generator.device).to(images.device)
    factor = zoom[0] + (zoom[1] - zoom[0]) * draws[0]
    grid = [
        _places(pixels, size, factor, draw, images.device) for pixels, draw in ((height, draws[1]), (width, draws[2]))
    ]
    mirrored = torch.where(draws[3] < FLIPPED, -1.0, 1.0)[:, None]
    rows, columns = grid[0][:, :, None].expand(n, size, size), (grid[1] * mirrored)[:, None].expand(n, size, size)
    where, options = torch.stack([columns, rows], dim=-1), {"padding_mode": "zeros", "align_corners": False}
    cropped = grid_sample(images, where, mode="bilinear", **options)
    if maps is None:
        return cropped, None
    raised = grid_sample(maps[:, None].float() + 1, where, mode="nearest", **options)[:, 0]
    return cropped, raised.round().to(maps.dtype) - 1


def _places(pixels: int, size: int, factor: Tensor, draw: Tensor, device: torch.device) -> Tensor:
    """Where in −1 … 1 along an image's side the middles of the crop's pixels lie: (n,size)."""
    enlarged = factor * pixels
    offset = draw * (enlarged - size)  # of what is outside on both sides, if negative
    at = torch.arange(size, device=device) + 0.5
    return 2 * (at + offset[:, None]) / enlarged[:, None] - 1


def rotate(images: Tensor, maps: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B,C,H,W) and maps (B,H,W) turned about their centres by angles (B,) in radians, mirrored at the edges."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - (height - 1) / 2
    columns = torch.arange(width, device=images.device) - (width - 1) / 2
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    sine, cosine = angles.sin()[:, None, None], angles.cos()[:, None, None]
    grid = torch.stack([(cosine * x + sine * y) * 2 / width, (cosine * y - sine * x) * 2 / height], dim=-1)
    options = {"padding_mode": "reflection", "align_corners": False}
    turned = grid_sample(images, grid, mode="bilinear", **options)
    return turned, grid_sample(maps[:, None].float(), grid, mode="nearest", **options)[:, 0].to(maps.dtype)


def _crop(images: Tensor, maps: Tensor, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    room = torch.tensor(images.shape[2:]) - size
    corners = (torch.rand(len(images), 2, generator=generator) * (room + 1)).long().tolist()
    parts = [(slice(top, top + size), slice(left, left + size)) for top, left in corners]
    cropped = torch.stack([image[:, rows, columns] for image, (rows, columns) in zip(images, parts, strict=True)])
    return cropped, torch.stack([one[rows, columns] for one, (rows, columns) in zip(maps, parts, strict=True)])


class MapTask:
    """What segmentation tasks share: scenes with their maps, drawn in batches, cropped and augmented.

    index: the training scenes (n,); where the data set has several seasons, each step draws one of a place. maps:
    (n,H,W) integers stand in for the data set's own class positions. bands: which to give the network, None for all.
    crop, zoom: of `augment`, or with a zoom of `augment_photographs`.
    """

    watch = None  # no validation scenes decide: the last epoch counts

    def __init__(
        self,
        scenes: Scenes,
        index: Tensor,
        maps: Tensor | None = None,
        bands: Sequence[int] | None = None,
        crop: int | None = None,
        zoom: tuple[float, float] | None = None,
    ) -> None:
        if scenes.positions is None:
            raise ValueError(f"{scenes.name}: these scenes have no maps to learn a segmentation from")
        if zoom is not None and crop is None:
            raise ValueError(f"zoom={zoom}: expected a crop with it, of so many pixels a side")
        self.scenes, self.index, self.bands, self.crop, self.zoom = scenes, index, bands, crop, zoom
        self.images, self.rows, self.maps = scenes.images, index, maps
        self.size = len(index) // scenes.seasons
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> None:
        """Move images and maps to the device, those that fit; larger ones stream from their file."""
        self.device = device
        each = self.scenes.images[:1].nbytes + self.scenes.images[0, 0].numel()
        if each * len(self.index) < room(device):
            self.images, self.rows = self.images[self.index].to(device), torch.arange(len(self.index))
            parts = [maps_of(self.scenes, part) for part in self.index.split(256)] if self.maps is None else [self.maps]
            self.maps = torch.cat([part.to(torch.int8) for part in parts]).to(device)

    def batch(self, index: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Images (B,C,H,W) float32, normalised and augmented, and their maps (B,H,W) int64, −1 without a class."""
        seasons = self.scenes.seasons
        drawn = torch.randint(seasons, index.shape, generator=generator) if seasons > 1 else 0
        index = index * seasons + drawn
        images = self.scenes.normalise(take(self.images, self.rows[index].to(self.images.device)).to(self.device))
        if self.maps is None:
            maps = maps_of(self.scenes, self.index[index], self.device)
        else:
            maps = self.maps[index.to(self.maps.device)].to(self.device).long()
        if self.bands is not None:
            images = images[:, list(self.bands)]
        if self.zoom is not None:
            return augment_photographs(images, maps, generator, self.crop, self.zoom)
        return augment(images, maps, generator, self.crop)


class Segmentation(MapTask):
    """Segmentation of single-modal images with cross-entropy and Dice, as in the transfer of CromSS."""

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], epoch: int) -> Tensor:
        """Cross-entropy and Dice, all pixels with the same weight."""
        images, maps = batch
        return supervised(model(images.contiguous(memory_format=torch.channels_last)), maps)

    def evaluate(self, model: nn.Module) -> dict[str, Any]:
        """Nothing: there are no validation scenes."""
        return {}


def maps_of(scenes: Scenes, index: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Maps (n,H,W) int64 of the scenes `index`, −1 where there is no class; made on the device that wants them."""
    return positions.to_reference_maps(scenes.positions[index].to(device), len(scenes.classes))


def confusion(
    model: nn.Module, scenes: Scenes, index: Tensor, bands: Sequence[int] | None = None, batch_size: int = 256
) -> Tensor:
    """Pixels (M,K,K) by class in the maps and in what the model finds, of the scenes `index` (n,).

    M: the modalities that the model gives logits for; 1 for a model of one. Raises ValueError for no scene.
    """
    if not len(index):
        raise ValueError(f"{scenes.name}: there is no scene to test on")
    model.eval()
    device = next(model.parameters()).device
    counts = []
    with torch.inference_mode():
        for part in index.split(batch_size):
            images = scenes.normalise(take(scenes.images, part).to(device))
            images = images if bands is None else images[:, list(bands)]
            logits = model(images.contiguous(memory_format=torch.channels_last))
            found = (logits if logits.ndim == 5 else logits[None]).argmax(dim=2)
            maps = maps_of(scenes, part, device)
            counts.append(torch.stack([metrics.confusion_matrix(one, maps, len(scenes.classes)) for one in found]))
    return torch.stack(counts).sum(dim=0).cpu()
