"""Activation maps of all classes: beside captum, pytorch-grad-cam and a plain forward pass.

python benchmarks/explain.py --network resnet18 --batch 8 --bands 3 --size 120 --rounds 30 --threads 1 2

With more classes, and more threads, there are fewer rounds. pytorch-grad-cam takes 19 classes as it takes six, only
longer: it is measured for six.
"""

import math
import warnings
from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace

import measuring
import numpy as np
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Generator, Tensor

from rsbook import explain, models

TOLERANCE = 1e-5  # of the largest value of the maps
CAPTUM_TARGETS = {6: 5, 19: 15}  # classes → how many times as long as our maps it takes, at least
MIN_CLASSES = min(CAPTUM_TARGETS)
GRAD_CAM_TARGETS = {6: 12}  # as long as our maps and masks: it enlarges and scales its maps too

FORWARD = "plain forward pass"
MAPS = "rsbook activation maps"
MASKS = "rsbook activation maps and explanation masks"
CAPTUM = "captum LayerGradCam"
GRAD_CAM = "pytorch-grad-cam GradCAM"
ROLES = {FORWARD: "limit", CAPTUM: "peer", GRAD_CAM: "peer"}


def main() -> None:
    """Check, time, write."""
    parser = measuring.parser(__file__, __doc__, batch=8, bands=3, size=120)
    parser.add_argument("--network", default="resnet18", help="a network of timm whose last block is named layer4")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="captum")  # that it makes images require gradients
    table = measuring.Table(arguments, ("captum", "grad-cam", "timm"))
    for device in table.machines():
        for classes, at_least in CAPTUM_TARGETS.items():
            batch = make_batch(classes, device, arguments)
            ways = make_ways(batch, device)
            check(batch, ways)
            slow = (classes > MIN_CLASSES) + 3 * (table.machine == ("cpu", 2))
            rounds = math.ceil(arguments.rounds / 2**slow)
            seconds = measuring.turns(ways, rounds, device, warm_up=1)
            case = f"{arguments.batch}×{arguments.bands}×{arguments.size}², {classes} classes"
            table.times(case, seconds, ROLES, items=arguments.batch)
            table.ratio(case, seconds, MAPS, FORWARD)
            table.ratio(case, seconds, CAPTUM, MAPS, at_least=at_least)
            if GRAD_CAM in ways:
                table.ratio(case, seconds, GRAD_CAM, MASKS, at_least=GRAD_CAM_TARGETS[classes])
    table.write()


def make_batch(classes: int, device: str, arguments: Namespace) -> SimpleNamespace:
    """Random images and a random network, with channels last in memory: all peers are faster so."""
    draw = Generator().manual_seed(0)
    images = torch.randn(arguments.batch, arguments.bands, arguments.size, arguments.size, generator=draw)
    network = models.classifier(arguments.network, arguments.bands, classes, draw).eval()
    return SimpleNamespace(
        images=images.to(device, memory_format=torch.channels_last),
        network=network.to(device, memory_format=torch.channels_last),
        labels=torch.ones(arguments.batch, classes, dtype=torch.bool, device=device),
        classes=classes,
    )


def make_ways(batch: SimpleNamespace, device: str) -> dict[str, Callable]:
    """What is timed: each explains all classes in the same images, each peer in its faster mode."""
    network, images = batch.network, batch.images

    def forward() -> Tensor:
        with torch.inference_mode():
            return network(images)

    def masks() -> Tensor:
        return explain.explanation_masks(explain.activation_maps(network, images), batch.labels, images.shape[2:])

    def with_captum(some: Tensor, targets: Tensor) -> Tensor:
        return layer.attribute(some, target=targets, relu_attributions=True).detach()

    def with_grad_cam(some: Tensor, targets: Tensor) -> Tensor:
        # Its hooks would slow down the other peers: they are set for the call, in less than 1 ms.
        with GradCAM(network, [network.layer4]) as peer:
            maps = peer(some, [ClassifierOutputTarget(target) for target in targets.tolist()])
        return torch.from_numpy(maps)[:, None]

    layer = LayerGradCam(network, network.layer4)
    ways = {
        FORWARD: forward,
        MAPS: lambda: explain.activation_maps(network, images),
        MASKS: masks,
        CAPTUM: faster(modes(with_captum, batch), device),
    }
    if batch.classes in GRAD_CAM_TARGETS:
        ways[GRAD_CAM] = faster(modes(with_grad_cam, batch), device)
    return ways


def modes(peer: Callable[[Tensor, Tensor], Tensor], batch: SimpleNamespace) -> dict[str, Callable]:
    """A peer that takes one class an image, for all classes: one after the other, or with a copy of the images each."""
    images, n = batch.images, len(batch.images)
    copies = images.repeat(batch.classes, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(batch.classes, device=images.device).repeat_interleave(n)
    return {
        "class by class": lambda: torch.cat([peer(images, part) for part in targets.split(n)], dim=1),
        "all classes in one batch": lambda: peer(copies, targets)[:, 0].unflatten(0, (-1, n)).transpose(0, 1),
    }


def faster(calls: dict[str, Callable], device: str) -> Callable:
    """The call that took least time in the round after one of warm-up."""
    seconds = measuring.turns(calls, 1, device, warm_up=1)
    return calls[min(seconds, key=seconds.get)]


def check(batch: SimpleNamespace, ways: dict[str, Callable]) -> None:
    """Stop unless our maps are those of the peers, and our masks those of their maps."""
    ours, captum = ways[MAPS](), ways[CAPTUM]()
    if not (ours - captum).abs().max() <= TOLERANCE * captum.max():
        raise SystemExit("maps: not those of captum")
    if GRAD_CAM not in ways:
        return
    # It scales before and after it upsamples, with a small constant against division by zero: do as it does.
    theirs, size = ways[GRAD_CAM]().numpy(), batch.images.shape[:1:-1]
    scaled = np.stack([scale_cam_image(scale_cam_image(maps, size)) for maps in ours.cpu().numpy()])
    if not np.abs(scaled - theirs).max() <= TOLERANCE:
        raise SystemExit(f"maps: {np.abs(scaled - theirs).max():.1e} from those of pytorch-grad-cam")
    differing = (ways[MASKS]().cpu().numpy() != (theirs > 0.1)).mean()
    if differing > 1e-4:  # where rounding decides
        raise SystemExit(f"masks: {differing:.2%} of the pixels are not those of pytorch-grad-cam's maps")


if __name__ == "__main__":
    main()
