"""A step of bi-modal pre-training: beside the same step with NT-Xent as it is usually written, on one 2N × 2N matrix.

python benchmarks/contrast.py --batch 2048 --rounds 5 --threads 1 2

A step is what `training.fit` makes of it: batch, corruption, loss, gradient, AdamW. The share of matrix products is of
the time that PyTorch's profiler finds inside operators.
"""

from collections.abc import Callable

import measuring
import torch
from torch import Generator, Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.profiler import ProfilerActivity, profile

from rsbook import crops_tasks, series

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")
PAIRS = 8 * 2048

OURS = "rsbook step"
USUAL = "step with one 2N × 2N matrix"


def main() -> None:
    """Check, time, profile, write."""
    arguments = measuring.parser(__file__, __doc__, rounds=5, batch=2048).parse_args()
    table = measuring.Table(arguments)
    for device in table.machines():
        case = f"{arguments.batch} pairs"
        steps = make_steps(arguments.batch, device)
        seconds = measuring.turns(steps, arguments.rounds, device, warm_up=2)
        table.times(case, seconds, {USUAL: "peer"}, items=arguments.batch)
        table.ratio(case, seconds, USUAL, OURS)
        shares = [share_of_products(steps[OURS], device) for _ in range(arguments.rounds)]
        table.add(case, f"matrix products in {OURS}", shares, role="ratio", unit="share", at_least=0.8)
    table.write()


def make_steps(batch: int, device: str) -> dict[str, Callable]:
    """What is timed: a step of one network with our loss and with the usual one, once both are known to agree."""
    ours, theirs = (crops_tasks.Contrast(make_pairs(), "bi_modal", 0.2) for _ in range(2))
    theirs.objective = usual_loss
    model = crops_tasks.TwoViews(ours.moments(), ours.sensors, Generator().manual_seed(0)).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for task in (ours, theirs):
        task.to(torch.device(device))

    def loss(task: crops_tasks.Contrast) -> Tensor:
        return task.loss(model, task.batch(torch.arange(batch), Generator().manual_seed(0)), 0)

    def step(task: crops_tasks.Contrast) -> None:
        found = loss(task)
        optimiser.zero_grad()
        found.backward()
        optimiser.step()

    torch.testing.assert_close(loss(ours), loss(theirs), rtol=1e-4, atol=0)
    return {OURS: lambda: step(ours), USUAL: lambda: step(theirs)}


def make_pairs() -> series.Pairs:
    """Pairs of random values: the time of a step does not depend on them."""
    drawn = Generator().manual_seed(0)
    s2, planet = (torch.randint(1, 5000, (PAIRS, width), generator=drawn) for width in series.SENSORS.values())
    return series.Pairs("random", "nowhere", s2.to(torch.uint16), planet.to(torch.uint16), torch.ones(PAIRS), "")


def usual_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent over one 2N × 2N matrix."""
    rows = normalize(torch.cat([first, second]))
    logits = (rows @ rows.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(rows), device=rows.device).roll(len(first))
    return cross_entropy(logits, partner)


def share_of_products(step: Callable, device: str) -> float:
    """The share of a step's time in operators that matrix products take."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities) as found:
        step()
    kind = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    times = {event.key: getattr(event, kind) for event in found.key_averages()}
    return sum(times.get(name, 0) for name in PRODUCTS) / sum(times.values())


if __name__ == "__main__":
    main()
