"""Other augmentations to compare with (Burgert et al., arXiv 2405.13451, section V-E), from kornia, on the device."""

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
