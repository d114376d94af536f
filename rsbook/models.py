"""Networks by name: classifiers from timm, encoders and decoders of segmentation networks from
segmentation-models-pytorch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Generator, Tensor, nn

NARROW = "narrow_resnet"
NO_WEIGHTS = f"pretrained=True: {NARROW} has no weights from ImageNet"
FUSIONS = ("mid", "late")
UNET_WIDTHS = (256, 128, 64, 32, 16)  # of the decoder, from its coarsest block on
NARROW_WIDTHS = (32, 16)  # and a head that doubles the size: a third of the time of a block at full size


def classifier(
    name: str,
    bands: int,
    classes: int,
    generator: Generator,
    output_stride: int | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """A randomly initialised network: images (B,bands,H,W) float32 → logits (B,classes).

    `name` is any model of timm ("resnet18" is the paper's), or "narrow_resnet" for images of 32×32 pixels on a CPU. The
    weights depend on the generator alone; global random state is left as it was. output_stride: pixels of the image for
    each of the last feature map, where the network lets them be chosen (timm's ResNets: 8, 16 or 32); None for its own.
    pretrained: all but the last layer begins with timm's weights from ImageNet, which it downloads once.
    Raises ValueError for an unknown name, when there is no band or no class, and for pretrained weights of
    "narrow_resnet".
    """
    _check_name(name, timm.list_models(), "a model of timm", "timm.list_models()")
    _check_sizes(bands, classes)
    with drawn_from(generator):
        if name == NARROW:
            if output_stride not in (None, 8):
                raise ValueError(f"output_stride={output_stride}: that of {NARROW} is 8")
            if pretrained:
                raise ValueError(NO_WEIGHTS)
            return _narrow_resnet(bands, classes)
        stride = {} if output_stride is None else {"output_stride": output_stride}
        try:
            return timm.create_model(name, pretrained=pretrained, in_chans=bands, num_classes=classes, **stride)
        except (AssertionError, TypeError) as error:
            if not stride:
                raise
            raise ValueError(f"output_stride={output_stride}: {name} does not have it; leave it out") from error


class Unets(nn.Module):
    """U-Nets side by side, one a modality: images (B,C,H,W) float32 of all bands → logits (M,B,classes,H,W).

    With middle fusion they share one decoder and head, with late fusion each has its own; nothing else joins them
    (CromSS, section on networks). encoders: one a modality, whose weights can be kept on their own.
    """

    def __init__(self, encoders: Sequence[nn.Module], decoders: Sequence[nn.Module], bands: Sequence[Sequence[int]]):
        super().__init__()
        self.encoders, self.decoders, self.bands = nn.ModuleList(encoders), nn.ModuleList(decoders), bands

    def forward(self, images: Tensor) -> Tensor:
        """Logits (M,B,classes,H,W) of images (B,C,H,W)."""
        found = []
        for i, (encoder, bands) in enumerate(zip(self.encoders, self.bands, strict=True)):
            own = images[:, bands].contiguous(memory_format=torch.channels_last)
            found.append(self.decoders[i % len(self.decoders)](encoder(own)))
        return torch.stack(found)


def unets(name: str, bands: Sequence[Sequence[int]], classes: int, generator: Generator, fusion: str = "late") -> Unets:
    """Randomly initialised U-Nets for modalities with these bands each (one modality: a plain U-Net).

    name: any encoder of segmentation-models-pytorch ("resnet50" is the paper's, five stages deep), or "narrow_resnet"
    for images of 32×32 pixels on a CPU (three stages) · fusion: "mid" or "late". Raises ValueError for an unknown
    name or fusion, and when there is no band or no class.
    """
    from segmentation_models_pytorch.base import SegmentationHead
    from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder

    if fusion not in FUSIONS:
        raise ValueError(f"fusion={fusion!r}: expected one of {', '.join(FUSIONS)}")
    widths, enlarged = (NARROW_WIDTHS, 2) if name == NARROW else (UNET_WIDTHS, 1)
    encoders = [encoder(name, len(own), generator) for own in bands]
    _check_sizes(len(bands), classes)
    decoders = []
    with drawn_from(generator):
        for one in encoders if fusion == "late" else encoders[:1]:
            decoder = UnetDecoder(one.out_channels, widths, n_blocks=len(widths))
            head = SegmentationHead(widths[-1], classes, upsampling=enlarged)
            initialize_decoder(decoder)
            initialize_head(head)
            decoders.append(nn.Sequential(decoder, head))
    return Unets(encoders, decoders, [list(own) for own in bands])


class PspNet(nn.Module):
    """A PSPNet on the first stages of an encoder: images (B,bands,H,W) float32 → logits (B,classes,H,W).

    frozen: the encoder's weights get no gradient. Its batch normalisation still adapts to the batches, as in the
    authors' code, unless `fixed_statistics`.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module, frozen: bool, fixed_statistics: bool):
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.fixed_statistics = fixed_statistics
        encoder.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> PspNet:
        """Training mode, in which the statistics of a frozen encoder may stay as they are."""
        super().train(mode)
        if self.fixed_statistics:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B,classes,H,W) of images (B,bands,H,W)."""
        return self.head(self.decoder(self.encoder(images)))


def pspnet(
    encoder: nn.Module,
    width: int,
    classes: int,
    generator: Generator,
    *,
    frozen: bool = False,
    fixed_statistics: bool = False,
) -> PspNet:
    """A PSPNet with a fresh decoder, `width` channels wide, on an encoder that `encoder` made with depth 3 (or 2 for
    "narrow_resnet"): pools of 1, 2, 3 and 6 bins, dropout 0.2, logits enlarged to the image.

    Raises ValueError for fixed_statistics of an encoder that is not frozen.
    """
    from segmentation_models_pytorch.base import SegmentationHead
    from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
    from segmentation_models_pytorch.decoders.pspnet.decoder import PSPDecoder

    if fixed_statistics and not frozen:
        raise ValueError(
            f"fixed_statistics={fixed_statistics}: they are those of a frozen encoder, and it is not frozen"
        )
    with drawn_from(generator):
        decoder = PSPDecoder(encoder.out_channels, out_channels=width, dropout=0.2)
        head = SegmentationHead(width, classes, upsampling=2 ** (len(encoder.out_channels) - 1))
        initialize_decoder(decoder)
        initialize_head(head)
    return PspNet(encoder, decoder, head, frozen, fixed_statistics)


def encoder(
    name: str, bands: int, generator: Generator, depth: int | None = None, pretrained: bool = False
) -> nn.Module:
    """An encoder: images (B,bands,H,W) float32 → the image and its feature maps, each half as large as the one before;
    their channels are `out_channels`.

    depth: how many feature maps; None for all. Whatever the depth, the weights have the same names and sizes; they are
    random, or where pretrained those that segmentation-models-pytorch downloads once, from ImageNet. Raises ValueError
    as `unets` does, and for pretrained weights of "narrow_resnet".
    """
    from segmentation_models_pytorch.encoders import get_encoder, get_encoder_names

    _check_name(name, get_encoder_names(), "an encoder of segmentation-models-pytorch", "its encoders")
    _check_sizes(bands, 1)
    with drawn_from(generator):
        if name == NARROW:
            if pretrained:
                raise ValueError(NO_WEIGHTS)
            return _NarrowEncoder(bands, 3 if depth is None else depth)
        weights = "imagenet" if pretrained else None
        return get_encoder(name, in_channels=bands, depth=5 if depth is None else depth, weights=weights)


def fix_statistics(network: nn.Module) -> None:
    """Batch normalisation of the network goes by the statistics that it has, and does not change them."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


@contextmanager
def drawn_from(generator: Generator) -> Iterator[None]:
    """Networks made inside draw their weights from this generator: it seeds the global one, which is then put back."""
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class _NarrowEncoder(nn.Module):
    def __init__(self, bands: int, depth: int):
        super().__init__()
        self.network = _narrow_resnet(bands, 0)
        self.out_channels = [bands, 16, 32, 64][: depth + 1]

    def forward(self, images: Tensor) -> list[Tensor]:
        network = self.network
        features = [images, network.layer1(network.act1(network.bn1(network.conv1(images))))]
        for stage in (network.layer2, network.layer3)[: len(self.out_channels) - 2]:
            features.append(stage(features[-1]))
        return features


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


def _check_name(name: str, others: Sequence[str], what: str, where: str) -> None:
    if name != NARROW and name not in others:
        near = ", ".join(difflib.get_close_matches(name, [NARROW, *others], 5)) or f"none, see {where}"
        raise ValueError(f"network={name!r}: neither {NARROW!r} nor {what}; near: {near}")


def _check_sizes(bands: int, classes: int) -> None:
    if bands < 1 or classes < 1:
        raise ValueError(f"bands={bands}, classes={classes}: expected at least one of each")
