"""Activation maps of all classes against their peers, in one run: see README.md for how it is measured.

python benchmarks/explain.py --threads 1 --repeats 30 --batch 16 --bands 3 --size 120 --network resnet18 --device cpu
"""

import argparse
import csv
import datetime
import platform
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import timm
import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Generator

from rsbook import explain, models

RESULTS = Path(__file__).parent / "results" / "explain.csv"
WARM_UP = 5  # rounds that are not counted
TOLERANCE = 1e-5  # of the largest value of the maps

FORWARD = "plain forward pass"
MAPS = "rsbook activation maps"
MASKS = "rsbook activation maps and explanation masks"
CAPTUM = "captum LayerGradCam"
GRAD_CAM = "pytorch-grad-cam GradCAM"
# Classes → peers; pytorch-grad-cam takes 19 classes as it takes six, only longer.
RUNS = {6: (FORWARD, MAPS, MASKS, CAPTUM, GRAD_CAM), 19: (FORWARD, MAPS, MASKS, CAPTUM)}
OURS = {CAPTUM: MAPS, GRAD_CAM: MASKS}  # what gives the same: pytorch-grad-cam upsamples and scales its maps
FLOORS = {(CAPTUM, 6): 5, (GRAD_CAM, 6): 12}  # how many times as long as ours the peer takes, at least


def main() -> None:
    """Check, time, print and write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", module="captum")  # that it makes images require gradients
    rows = []
    for classes, names in RUNS.items():
        case = make_case(classes, arguments)
        peers, modes = make_peers(case, names)
        check(case, peers)
        seconds = measure(peers, arguments.repeats, synchronise(arguments.device))
        rows += summarise(seconds, modes, classes, arguments)
    report(rows)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def parse() -> argparse.Namespace:
    """Parameters from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("threads", 1), ("repeats", 30), ("batch", 16), ("bands", 3), ("size", 120)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--network", default="resnet18", help="a network of timm whose last block is named layer4")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def make_case(classes: int, arguments: argparse.Namespace) -> SimpleNamespace:
    """Random images and a random network, with channels last in memory: all peers are faster so."""
    draw = Generator().manual_seed(0)
    images = torch.randn(arguments.batch, arguments.bands, arguments.size, arguments.size, generator=draw)
    network = models.classifier(arguments.network, arguments.bands, classes, draw).eval()
    return SimpleNamespace(
        images=images.to(arguments.device, memory_format=torch.channels_last),
        network=network.to(arguments.device, memory_format=torch.channels_last),
        labels=torch.ones(arguments.batch, classes, dtype=torch.bool, device=arguments.device),
        classes=classes,
    )


def make_peers(case: SimpleNamespace, names: tuple[str, ...]) -> tuple[dict[str, Callable], dict[str, str]]:
    """What is timed, and in which mode: every peer explains all classes in the same images."""
    network, images, classes, size = case.network, case.images, range(case.classes), tuple(case.images.shape[2:])
    # What a peer can do class by class, it can also do with one copy of the images a class: it gets what is faster.
    copies = images.repeat(case.classes, 1, 1, 1).contiguous(memory_format=torch.channels_last)
    targets = torch.arange(case.classes, device=images.device).repeat_interleave(len(images))

    def with_captum(batch, target):
        return layer.attribute(batch, target=target, relu_attributions=True).detach()

    def with_grad_cam(batch, target):
        # Its hooks would slow down the other peers: they are set for the call, in less than 1 ms.
        with GradCAM(network, [network.layer4]) as peer:
            return torch.from_numpy(peer(batch, [ClassifierOutputTarget(int(layer)) for layer in target]))[:, None]

    def all_at_once(maps):
        return maps.unflatten(0, (case.classes, len(images))).transpose(0, 1)[:, :, 0]

    def forward():
        with torch.inference_mode():
            return network(images)

    def masks():
        return explain.explanation_masks(explain.activation_maps(network, images), case.labels, size)

    layer = LayerGradCam(network, network.layer4)
    candidates = {
        FORWARD: {"": forward},
        MAPS: {"": lambda: explain.activation_maps(network, images)},
        MASKS: {"": masks},
        CAPTUM: {
            "class by class": lambda: torch.cat([with_captum(images, target) for target in classes], dim=1),
            "all classes in one batch": lambda: all_at_once(with_captum(copies, targets)),
        },
        GRAD_CAM: {
            "class by class": lambda: torch.cat([with_grad_cam(images, [t] * len(images)) for t in classes], dim=1),
            "all classes in one batch": lambda: all_at_once(with_grad_cam(copies, targets)),
        },
    }
    modes = {name: fastest(candidates[name]) for name in names}
    return {name: candidates[name][mode] for name, mode in modes.items()}, modes


def fastest(candidates: dict[str, Callable]) -> str:
    """The mode that took least time in three rounds after one of warm-up."""
    if len(candidates) == 1:
        return next(iter(candidates))
    seconds = measure(candidates, 3, lambda: torch.cuda.is_available() and torch.cuda.synchronize(), warm_up=1)
    return min(seconds, key=lambda mode: min(seconds[mode]))


def check(case: SimpleNamespace, peers: dict[str, Callable]) -> None:
    """Stop unless our maps are those of the peers, and our masks those of their maps."""
    ours, captum = peers[MAPS](), peers[CAPTUM]()
    if not (ours - captum).abs().max() <= TOLERANCE * captum.max():
        raise SystemExit("maps: not those of captum")
    if GRAD_CAM in peers:
        # It scales before and after it upsamples, with a small constant against division by zero: do as it does.
        theirs, size = peers[GRAD_CAM]().numpy(), case.images.shape[:1:-1]
        scaled = np.stack([scale_cam_image(scale_cam_image(maps, size)) for maps in ours.cpu().numpy()])
        if not np.abs(scaled - theirs).max() <= TOLERANCE:
            raise SystemExit(f"maps: {np.abs(scaled - theirs).max():.1e} from those of pytorch-grad-cam")
        differing = (peers[MASKS]().cpu().numpy() != (theirs > 0.1)).mean()
        if differing > 1e-4:  # where rounding decides
            raise SystemExit(f"masks: {differing:.2%} of the pixels are not those of pytorch-grad-cam's maps")


def synchronise(device: str) -> Callable[[], None]:
    """A function that waits until the device has done its work."""
    return torch.cuda.synchronize if torch.device(device).type == "cuda" else (lambda: None)


def measure(peers: dict[str, Callable], repeats: int, wait: Callable, warm_up: int = WARM_UP) -> dict[str, list[float]]:
    """Seconds of every call. All peers take turns, so that a slower moment of the machine meets all of them."""
    seconds = {name: [] for name in peers}
    for turn in range(warm_up + repeats):
        for name, function in peers.items():
            wait()
            start = time.perf_counter()
            function()
            wait()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summarise(
    seconds: dict[str, list[float]], modes: dict[str, str], classes: int, arguments: argparse.Namespace
) -> list[dict]:
    """One row a peer: median, quartiles, images a second; ratios are taken by round, then their quartiles."""
    rows = []
    for name, times in seconds.items():
        low, median, high = np.percentile(times, (25, 50, 75))
        slower = np.percentile(np.divide(times, seconds[OURS[name]]), (25, 50)) if name in OURS else None
        rows.append(
            {
                "peer": f"{name}, {modes[name]}" if modes[name] else name,
                "classes": classes,
                "median_milliseconds": f"{1e3 * median:.1f}",
                "lower_quartile": f"{1e3 * low:.1f}",
                "upper_quartile": f"{1e3 * high:.1f}",
                "images_per_second": f"{arguments.batch / median:.1f}",
                "forward_passes": f"{np.median(np.divide(times, seconds[FORWARD])):.2f}",
                "times_ours": f"{slower[1]:.2f}" if name in OURS else "",
                "times_ours_lower_quartile": f"{slower[0]:.2f}" if name in OURS else "",
                "floor": FLOORS.get((name, classes), ""),
                "network": arguments.network,
                "batch": arguments.batch,
                "bands": arguments.bands,
                "size": arguments.size,
                "repeats": arguments.repeats,
                "threads": arguments.threads,
                "device": device_name(arguments.device),
                "torch": torch.__version__,
                "timm": timm.__version__,
                "captum": version("captum"),
                "grad_cam": version("grad-cam"),
                "date": datetime.date.today().isoformat(),
            }
        )
    return rows


def device_name(device: str) -> str:
    """The processor or accelerator in words."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def report(rows: list[dict]) -> None:
    """The table on the screen."""
    print(f"{'classes':>7} {'ms':>8} {'quartiles':>17} {'images/s':>9} {'forwards':>8} {'times ours':>10} {'floor':>5}")
    for row in rows:
        quartiles = f"{row['lower_quartile']} – {row['upper_quartile']}"
        print(
            f"{row['classes']:>7} {row['median_milliseconds']:>8} {quartiles:>17} {row['images_per_second']:>9} "
            f"{row['forward_passes']:>8} {row['times_ours']:>10} {row['floor']:>5}  {row['peer']}"
        )


if __name__ == "__main__":
    main()
