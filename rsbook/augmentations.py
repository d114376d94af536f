"""Augmentations of images alone: those to compare with (Burgert et al., arXiv 2405.13451, section V-E), from kornia,
and turns by right angles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor


def random_resized_crop(images: Tensor, generator: Generator) -> Tensor:
    """A random part of each image (B,C,H,W) float32, 8 to 100 % of its area and 3/4 to 4/3 in shape, enlarged to H×W.

    Scale and shape are those that the authors use elsewhere; the labels of the scenes stay as they are.
    """
    return _apply("RandomResizedCrop", images, generator)


def random_rotate(images: Tensor, generator: Generator) -> Tensor:
    """Each image (B,C,H,W) float32 turned by up to 30 degrees either way; corners without ground are zero."""
    return _apply("RandomRotation", images, generator)


def turned(images: Tensor, generator: Generator) -> Tensor:
    """Each image (B,C,H,W) flipped or turned in one of the ways that cover the same ground, eight for squares, else
    four.
    """
    ways = torch.randint(8, (len(images),), generator=generator)  # looked at on the CPU: a device need not wait
    step = 1 if images.shape[2] == images.shape[3] else 2  # quarters
    found = torch.empty_like(images)
    for way in range(8):
        rows = (ways == way).nonzero()[:, 0].to(images.device)
        chosen = images[rows]
        found[rows] = (chosen.flip(3) if way >= 4 else chosen).rot90(step * (way % 4), (2, 3))
    return found


def _apply(name: str, images: Tensor, generator: Generator) -> Tensor:
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    # kornia draws from the global generators: they are seeded for the call and put back
    with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if images.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        return _augmentation(name, *images.shape[2:])(images)


@cache
def _augmentation(name: str, height: int, width: int) -> Callable[[Tensor], Tensor]:
    from kornia import augmentation  # slow to import, and only these two need it

    if name == "RandomResizedCrop":
        return augmentation.RandomResizedCrop((height, width), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), p=1.0)
    return augmentation.RandomRotation(30.0, p=1.0)
