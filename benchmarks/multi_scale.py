"""Activation maps at several scales, mirrored too: beside the forward passes that they need.

python benchmarks/multi_scale.py --network resnet18 --batch 4 --size 120 --classes 19 --rounds 5 --threads 1 2
"""

from argparse import Namespace

import measuring
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import interpolate

from rsbook import models, weak_segmentation

PASSES = "forward passes alone"
MAPS = "rsbook multi_scale_maps"


def main() -> None:
    """Check, time, write."""
    parser = measuring.parser(__file__, __doc__, rounds=5, batch=4, size=120, classes=19, stride=32)
    parser.add_argument("--network", default="resnet18", help="of timm; default: resnet18")
    arguments = parser.parse_args()
    table = measuring.Table(arguments, ("timm",))
    for device in table.machines():
        case = f"{arguments.batch}×3×{arguments.size}², {arguments.classes} classes"
        images, network = make_case(device, arguments)
        batches = resized(images)
        check(network, images, batches)
        calls = {
            PASSES: lambda network=network, batches=batches: forward(network, batches),
            MAPS: lambda network=network, images=images: maps_of(network, images),
        }
        seconds = measuring.turns(calls, arguments.rounds, device, warm_up=1)
        table.times(case, seconds, {PASSES: "limit"}, items=arguments.batch)
        table.ratio(case, seconds, MAPS, PASSES, at_most=1.2)
    table.write()


def make_case(device: str, arguments: Namespace) -> tuple[Tensor, nn.Module]:
    """Random images and a random network, with channels last in memory."""
    generator = Generator().manual_seed(0)
    images = torch.randn(arguments.batch, 3, arguments.size, arguments.size, generator=generator)
    network = models.classifier(arguments.network, 3, arguments.classes, generator, arguments.stride).eval()
    return tuple(one.to(device, memory_format=torch.channels_last) for one in (images, network))


def resized(images: Tensor) -> list[Tensor]:
    """What the network sees, made beforehand: the images at every scale, each followed by its mirror image."""
    found = []
    for scale in weak_segmentation.SCALES:
        shape = [int(pixels * scale) for pixels in images.shape[2:]]
        one = interpolate(images, size=shape, mode="bilinear", align_corners=False)
        found += [one, one.flip(3).contiguous(memory_format=torch.channels_last)]
    return found


def maps_of(network: nn.Module, images: Tensor) -> Tensor:
    """Ours, as large as the images."""
    return weak_segmentation.multi_scale_maps(network, images, tuple(images.shape[2:]))


@torch.inference_mode()
def forward(network: nn.Module, batches: list[Tensor]) -> None:
    """The forward passes alone."""
    for batch in batches:
        network(batch)


@torch.inference_mode()
def check(network: nn.Module, images: Tensor, batches: list[Tensor]) -> None:
    """Stop unless our maps are the sum of ReLU(w·f) over all that the network sees."""
    expected = 0
    for i, batch in enumerate(batches):
        maps = torch.einsum("lc,bchw->blhw", network.get_classifier().weight, network.forward_features(batch)).relu()
        expected += interpolate(maps.flip(3) if i % 2 else maps, size=images.shape[2:], mode="bilinear")
    torch.testing.assert_close(maps_of(network, images), expected, rtol=0, atol=1e-4 * expected.max().item())


if __name__ == "__main__":
    main()
