"""Mixing with one share for a whole batch: Mixup, Manifold Mixup and FMix's mask as weak segmentation uses them.

A batch is mixed with itself in another order: `partner` (B,) int64 is a permutation, and `share` (λ) is the part of
each scene's own. The loss is shared out alike, see `weak_segmentation.mixed_loss`. Where each scene has a mask of its
own, and its labels are propagated, see `mixing`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor, nn

from rsbook.scenes import take


def sample_share(alpha: float, generator: Generator) -> float:
    """A share λ ~ Beta(α, α), in 0 … 1: the inverse of its distribution function at one uniform number of float64.

    Raises ValueError for an alpha that is not a finite number above 0.
    """
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha={alpha}: expected a finite number above 0")
    uniform = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64).item()
    return float(betaincinv(alpha, alpha, uniform))


def fmix_mask(height: int, width: int, share: float, generator: Generator, decay: float = 3.0) -> Tensor:
    """One mask (height,width) bool, on the generator's device, of a few smooth blobs: True where a scene is its own.

    The share·height·width highest pixels of `low_pass_noise`, rounded up or down by a fair coin (FMix: Harris et al.,
    arXiv 2002.12047, section 4.2, and the released code). The mixture is `torch.where(mask, images, images[partner])`,
    and the share of its labels `mask.float().mean().item()`. Raises ValueError for a share outside 0 … 1, and as
    `low_pass_noise` does.
    """
    _check_share(share)
    noise = low_pass_noise(height, width, generator, decay)
    area = share * height * width
    down, up = math.floor(area + 1e-6), math.ceil(area - 1e-6)  # the same for whole areas: 0.57·400 is 227.999…
    pixels = up if torch.rand((), generator=generator, device=generator.device) < 0.5 else down
    mask = torch.zeros(height * width, dtype=torch.bool, device=noise.device)
    mask[noise.flatten().topk(pixels).indices] = True
    return mask.view(height, width)


def low_pass_noise(height: int, width: int, generator: Generator, decay: float = 3.0) -> Tensor:
    """Grey noise (height,width) float64 whose amplitudes fall with the frequency to the power of −decay.

    White Gaussian noise over max(|frequency|, 1/max(height, width))^decay, but for a factor: the real part of FMix's
    complex noise has the same distribution (arXiv 2002.12047, section 4.2). Raises ValueError for a size below one
    pixel, or a decay that is negative or not finite.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height={height}, width={width}: expected at least one pixel each")
    if not 0 <= decay < math.inf:
        raise ValueError(f"decay={decay}: expected a finite number of at least 0")
    exact = {"dtype": torch.float64, "device": generator.device}  # the amplitudes differ by a factor of 10⁷
    rows, columns = torch.fft.fftfreq(height, **exact), torch.fft.rfftfreq(width, **exact)
    frequency = torch.hypot(rows[:, None], columns) * max(height, width)
    white = torch.fft.rfft2(torch.randn(height, width, generator=generator, **exact))
    return torch.fft.irfft2(white / frequency.clamp(min=1) ** decay, s=(height, width))


def mixup(images: Tensor, share: float, partner: Tensor) -> Tensor:
    """λ·x + (1 − λ)·x of the partner, for images or features (B,…) of floats (Zhang et al., arXiv 1710.09412).

    Raises ValueError for a share outside 0 … 1, images that are not floats, and a partner that is not (B,) int64.
    """
    _check_share(share)
    if not images.is_floating_point():
        raise ValueError(f"images: expected floats, got {images.dtype}")
    if partner.dtype != torch.int64 or partner.shape != images.shape[:1]:
        raise ValueError(
            f"partner: expected int64 of shape {tuple(images.shape[:1])}, got {partner.dtype} of {tuple(partner.shape)}"
        )
    return torch.lerp(take(images, partner.to(images.device)), images, share)


@contextmanager
def manifold_mixup(
    modules: Sequence[nn.Module], share: float, partner: Tensor, generator: Generator, network: nn.Module | None = None
) -> Iterator[nn.Module]:
    """Within it, the forward pass mixes the output (B,…) of one of the modules, drawn uniformly, as `mixup` does.

    With a network, its input is one more choice, as in the report (Verma et al., arXiv 1806.05236). Yields the module
    chosen. Whatever happens within, no hook stays. Raises ValueError for an empty choice or a share outside 0 … 1, in
    the forward pass as `mixup` does, and in the end where the chosen module has not run exactly once.
    """
    _check_share(share)
    choices = [*modules, *([] if network is None else [network])]
    if not choices:
        raise ValueError("modules: expected at least one whose output can be mixed")
    place = int(torch.randint(len(choices), (), generator=generator, device=generator.device))
    chosen, runs = choices[place], []

    def mix_output(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
        runs.append(place)
        return _mixed(output, share, partner)

    def mix_input(_module: nn.Module, inputs: tuple) -> tuple:
        runs.append(place)
        return (_mixed(inputs[0] if inputs else None, share, partner), *inputs[1:])

    at_input = place == len(modules)
    hook = chosen.register_forward_pre_hook(mix_input) if at_input else chosen.register_forward_hook(mix_output)
    try:
        yield chosen
    finally:
        hook.remove()
    if len(runs) != 1:
        raise ValueError(
            f"modules: {type(chosen).__name__}, number {place}, ran {len(runs)} times; expected one forward pass"
        )


def _mixed(values: object, share: float, partner: Tensor) -> Tensor:
    if not isinstance(values, Tensor):
        raise ValueError(f"modules: found {type(values).__name__} to be mixed, expected one tensor")
    return mixup(values, share, partner)


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: expected a number from 0 to 1")
