"""A step of bi-modal pre-training: what share of it is matrix products, and how fast it is.

python benchmarks/contrast.py --batch 2048 --threads 1

Shares are of the time that PyTorch's profiler finds inside operators, for a step as `training.fit` makes it: batch,
corruption, loss, gradient, AdamW. It is also timed without the profiler, and beside it the same step with NT-Xent as
it is usually written, over one 2N × 2N matrix.
"""

import argparse
import csv
import datetime
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Generator
from torch.nn.functional import cross_entropy, normalize
from torch.profiler import ProfilerActivity, profile

from rsbook import crops_tasks, series

RESULTS = Path(__file__).parent / "results" / "contrast.csv"
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")
PAIRS = 8 * 2048


def main() -> None:
    """Profile and time steps in turn, print and write."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    task, model, optimiser = set_up(device)
    peer = crops_tasks.Contrast(pairs(), "bi_modal", 0.2)
    peer.objective = usual
    peer.to(device)
    batch = task.batch(torch.arange(arguments.batch), Generator().manual_seed(1))
    agree = [float(one.loss(model, batch, 0).detach()) for one in (task, peer)]
    if abs(agree[0] - agree[1]) > 1e-4 * abs(agree[1]):
        raise SystemExit(f"the losses differ: {agree}")
    ours, theirs = [], []
    for _ in range(arguments.rounds + 2):
        ours.append(timed(lambda: step(task, model, optimiser, arguments.batch), device))
        theirs.append(timed(lambda: step(peer, model, optimiser, arguments.batch), device))
    ours, theirs = ours[2:], theirs[2:]
    row = {
        "batch": arguments.batch,
        "products_per_cent": round(100 * products(task, model, optimiser, arguments, device), 1),
        "target_per_cent": 80,
        "step_seconds": round(statistics.median(ours), 4),
        "pairs_a_second": round(arguments.batch / statistics.median(ours)),
        "usual_over_ours": round(statistics.median(t / o for t, o in zip(theirs, ours, strict=True)), 3),
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or "cpu",
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }
    print(row)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("w", newline="") as file:
        table = csv.DictWriter(file, row, lineterminator="\n")
        table.writeheader()
        table.writerow(row)


def parse() -> argparse.Namespace:
    """Parameters from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("batch", 2048), ("threads", 1), ("rounds", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def pairs() -> series.Pairs:
    """Pairs of random values: the time of a step does not depend on them."""
    drawn = Generator().manual_seed(0)
    s2, planet = (torch.randint(1, 5000, (PAIRS, width), generator=drawn) for width in series.SENSORS.values())
    return series.Pairs("random", "nowhere", s2.to(torch.uint16), planet.to(torch.uint16), torch.ones(PAIRS), "")


def set_up(device: torch.device):
    """The task of bi-modal pre-training, its network and its optimiser, as `training.fit` makes it."""
    task = crops_tasks.Contrast(pairs(), "bi_modal", 0.2)
    model = crops_tasks.TwoViews(task.moments(), task.sensors, Generator().manual_seed(0)).to(device)
    task.to(device)
    return task, model, torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


def step(task, model, optimiser, size: int) -> None:
    """One training step."""
    batch = task.batch(torch.arange(size), Generator().manual_seed(0))
    loss = task.loss(model, batch, 0)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def usual(first, second, temperature: float):
    """NT-Xent over one 2N × 2N matrix."""
    rows = normalize(torch.cat([first, second]))
    logits = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(rows), device=rows.device).roll(len(first))
    return cross_entropy(logits, partner)


def products(task, model, optimiser, arguments: argparse.Namespace, device: torch.device) -> float:
    """The share of a step's time in operators that matrix products take."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as found:
        for _ in range(3):
            step(task, model, optimiser, arguments.batch)
    kind = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, kind) for event in found.key_averages()}
    return sum(times.get(name, 0) for name in PRODUCTS) / sum(times.values())


def timed(call, device: torch.device) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
