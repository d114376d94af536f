"""DeepLab-v2 (Chen et al., arXiv 1606.00915): atrous convolutions of several rates, summed, on any dilated encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate

from rsbook.models import NARROW, drawn_from, encoder, fix_statistics

RATES = (6, 12, 18, 24)
STRIDE = 8  # pixels of the image for each of the last feature map


class DeepLabV2(nn.Module):
    """images (B,bands,H,W) float32 → logits (B,classes,H,W), the highest over scales (section 3.1 and 4.1).

    encoder: gives the image and its feature maps, of which the last is used · rates: of the 3 × 3 convolutions that are
    summed · scales: at which an image is looked at · fixed_statistics: batch normalisation stays as it is.
    """

    def __init__(
        self,
        backbone: nn.Module,
        classes: int,
        rates: Sequence[int] = RATES,
        scales: Sequence[float] = (1.0,),
        fixed_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.scales, self.fixed_statistics = backbone, tuple(scales), fixed_statistics
        width = backbone.out_channels[-1]
        self.branches = nn.ModuleList(nn.Conv2d(width, classes, 3, padding=rate, dilation=rate) for rate in rates)
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def train(self, mode: bool = True) -> DeepLabV2:
        """Training mode, in which statistics may stay as they are."""
        super().train(mode)
        if self.fixed_statistics:
            fix_statistics(self)
        return self

    def forward(self, images: Tensor, every: bool = False) -> Tensor | list[Tensor]:
        """Logits (B,classes,H,W), by the highest over scales at each pixel of the coarse map, enlarged; every: those of
        each scale as well, before it.
        """
        size, coarse = images.shape[2:], []
        for scale in self.scales:
            shape = [max(1, int(pixels * scale + 1e-6)) for pixels in size]
            resized = images if scale == 1 else interpolate(images, size=shape, mode="bilinear", align_corners=False)
            features = self.encoder(resized.contiguous(memory_format=torch.channels_last))[-1]
            coarse.append(sum(branch(features) for branch in self.branches))
        if len(coarse) > 1:
            whole = coarse[0].shape[2:]
            alike = [interpolate(one, size=whole, mode="bilinear", align_corners=False) for one in coarse]
            coarse.append(torch.stack(alike).amax(dim=0))
        wanted = coarse if every else coarse[-1:]
        found = [interpolate(one, size=size, mode="bilinear", align_corners=False) for one in wanted]
        return found if every else found[0]


def deeplab_v2(
    name: str,
    bands: int,
    classes: int,
    generator: Generator,
    rates: Sequence[int] = RATES,
    scales: Sequence[float] = (1.0,),
    pretrained: bool = False,
) -> DeepLabV2:
    """A DeepLab-v2 on an encoder by name ("resnet101" is the report's), dilated to a stride of 8, or on
    "narrow_resnet", which has it.

    Its weights are random; pretrained, those of the encoder are ImageNet's, and batch normalisation keeps its
    statistics. Raises ValueError as `models.encoder` does.
    """
    backbone = encoder(name, bands, generator, pretrained=pretrained)
    if name != NARROW:
        backbone.make_dilated(STRIDE)
    with drawn_from(generator):
        return DeepLabV2(backbone, classes, rates, scales, fixed_statistics=pretrained)
