"""Networks by name, from timm."""

from __future__ import annotations

import difflib

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Generator, nn

NARROW = "narrow_resnet"


def classifier(
    name: str, bands: int, classes: int, generator: Generator, output_stride: int | None = None
) -> nn.Module:
    """A randomly initialised network: images (B,bands,H,W) float32 → logits (B,classes).

    `name` is any model of timm ("resnet18" is the paper's), or "narrow_resnet" for images of 32×32 pixels on a CPU. The
    weights depend on the generator alone; global random state is left as it was. output_stride: pixels of the image for
    each of the last feature map, where the network lets them be chosen (timm's ResNets: 8, 16 or 32); None for its own.
    Raises ValueError for an unknown name, and when there is no band or no class.
    """
    known = [NARROW, *timm.list_models()]
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, 5)) or "none, see timm.list_models()"
        raise ValueError(f"network={name!r}: neither {NARROW!r} nor a model of timm; near: {near}")
    if bands < 1 or classes < 1:
        raise ValueError(f"bands={bands}, classes={classes}: expected at least one of each")
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):  # timm draws its weights from the global generator
        torch.default_generator.manual_seed(seed)
        if name == NARROW:
            if output_stride not in (None, 8):
                raise ValueError(f"output_stride={output_stride}: that of {NARROW} is 8")
            return _narrow_resnet(bands, classes)
        stride = {} if output_stride is None else {"output_stride": output_stride}
        try:
            return timm.create_model(name, pretrained=False, in_chans=bands, num_classes=classes, **stride)
        except (AssertionError, TypeError) as error:
            if not stride:
                raise
            raise ValueError(f"output_stride={output_stride}: {name} does not have it; leave it out") from error


def _narrow_resnet(bands: int, classes: int) -> nn.Module:
    """A ResNet of three basic blocks, 16–32–64 wide, whose last feature map is 4×4 for images of 32×32 pixels.

    That is as fine, relative to the image, as ResNet18's on the paper's 120×120: what boxes and activation maps need.
    """
    network = ResNet(
        BasicBlock,
        (1, 1, 1),
        channels=(16, 32, 64),
        stem_type="deep",
        stem_width=8,
        in_chans=bands,
        num_classes=classes,
    )
    network.conv1 = nn.Conv2d(bands, 16, kernel_size=3, stride=2, padding=1, bias=False)  # one convolution, not three
    network.maxpool = nn.Identity()
    network.layer4 = nn.Identity()  # timm's forward pass names four stages
    return network
