"""Contrastive pre-training on pairs: losses, feature corruption, and what can be measured of the two embeddings.

Bi-modal pre-training for crops (Patnala et al. 2024). Rows of two tensors that share an index are what two modalities,
or two views, show of the same thing; every other row is something else.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import normalize

TEMPERATURE = 0.07
COLDEST = 0.025  # cosines over it are at most 40: their exponentials, and sums of these, fit into single precision
APPLIED = 0.5  # of the batches are corrupted by the released code


def nt_xent(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Symmetric NT-Xent of projections (N,D) each: the mean over all 2N rows as anchors, a scalar.

    An anchor's positive is its partner, which is in the denominator too, with the 2N − 2 others of both modalities
    (SimCLR: Chen et al., arXiv 2002.05709, eq. 1; the authors' code). Raises ValueError for shapes that differ, fewer
    than two rows, and a temperature below 0.025.
    """
    with _full_precision(first):
        x, y = _scaled(first, second, temperature)
        across = x @ y.T  # serves the anchors of both modalities: three N×N products do the work of a 2N×2N one
        exponentials = across.exp()
        of_first = (_sum_over_others(x, x) + exponentials.sum(dim=1)).log()
        of_second = (_sum_over_others(y, y) + exponentials.sum(dim=0)).log()
        return ((of_first + of_second) / 2 - across.diagonal()).mean()


def one_sided(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """The loss as the paper prints it (eq. 1a): rows of `first` (N,D) alone are anchors, the mean over N, a scalar.

    The denominator has the other rows of both modalities, without the positive, so the loss has no lower bound of 0.
    Raises ValueError as `nt_xent` does.
    """
    with _full_precision(first):
        x, y = _scaled(first, second, temperature)
        return ((_sum_over_others(x, x) + _sum_over_others(x, y)).log() - (x * y).sum(dim=1)).mean()


LOSSES = {"nt_xent": nt_xent, "one_sided": one_sided}


def corrupt(values: Tensor, rate: float, generator: Generator) -> Tensor:
    """A copy of values (N,M), integer or float, in which ⌊rate · M⌋ features of each row are drawn anew.

    Each comes from the same feature of a row of the batch, drawn for it alone from all N, its own included: the
    empirical marginal (SCARF: Bahri et al., arXiv 2106.15147, algorithm 1). Raises ValueError for another shape and a
    rate outside 0 … 1.
    """
    n, features = _check_values(values, rate)
    count, device = replaced_count(features, rate), generator.device
    columns = torch.rand(n, features, generator=generator, device=device).topk(count).indices.to(values.device)
    rows = torch.randint(n, (n, count), generator=generator, device=device).to(values.device)
    moved = _as_moved(values)
    return moved.scatter(1, columns, moved[rows, columns]).view(values.dtype)


def corrupt_as_released(values: Tensor, rate: float, generator: Generator) -> Tensor:
    """A copy of values (N,M), integer or float, that is corrupted as in the authors' code, or with probability 0.5 not.

    One set of ⌊rate · M⌋ features is drawn for the whole batch; each row takes all of them from one other row, at a
    cyclic offset of its own. Raises ValueError as `corrupt` does, and for a single row.
    """
    n, features = _check_values(values, rate)
    if n < 2:
        raise ValueError(f"values: {n} rows, expected at least 2, for there to be another one")
    device = generator.device
    applied = torch.rand((), generator=generator, device=device) < APPLIED
    columns = torch.randperm(features, generator=generator, device=device)[: replaced_count(features, rate)]
    offsets = torch.randint(1, n, (n,), generator=generator, device=device)
    corrupted = values.clone()
    if applied:
        rows = ((torch.arange(n, device=device) + offsets) % n).to(values.device)
        columns = columns.to(values.device)
        _as_moved(corrupted)[:, columns] = _as_moved(values)[rows.unsqueeze(1), columns]
    return corrupted


def replaced_count(features: int, rate: float) -> int:
    """How many of so many features a rate replaces: ⌊rate · features⌋."""
    return math.floor(rate * features + 1e-6)  # 0.29 · 100 is a little less than 29


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of partners on the unit sphere, from rows (N,D) each; 0 … 4, lower is closer.

    Wang & Isola, arXiv 2005.10242, section 4, with α = 2. Raises ValueError for shapes that differ.
    """
    x, y = _units(first, second)
    return (x - y).square().sum(dim=1).mean().item()


def uniformity(rows: Tensor) -> float:
    """Log of the mean over pairs of exp(−2 · squared distance) on the unit sphere, from rows (N,D); 0 where all agree,
    lower is more evenly spread.

    Wang & Isola, arXiv 2005.10242, section 4, with t = 2. Raises ValueError for fewer than two rows.
    """
    [x] = _units(rows)
    _check_two(x)
    scaled = 2 * x  # −2 |x − y|² = (2x)·(2y) − 4
    with _full_precision(x):
        return (_sum_over_others(scaled, scaled).sum().log() - 4 - math.log(len(x) * (len(x) - 1))).item()


def retrieval(first: Tensor, second: Tensor) -> float:
    """The share of rows of `first` (N,D) whose nearest row of `second` (N,D), by cosine, is their partner; 0 … 1.

    Of rows that are equally near the first counts, so where all are alike it is 1/N. Raises ValueError for shapes that
    differ.
    """
    x, y = _units(first, second)
    with _full_precision(x):
        nearest = (x @ y.T).argmax(dim=1)
    return (nearest == torch.arange(len(x), device=x.device)).float().mean().item()


def _scaled(first: Tensor, second: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Unit rows over √τ, whose dot products are cosines over τ."""
    if not temperature >= COLDEST:
        raise ValueError(f"temperature={temperature}: expected at least {COLDEST}, or sums would overflow")
    _check_pairs(first, second)
    _check_two(first)
    return _unit(first) / math.sqrt(temperature), _unit(second) / math.sqrt(temperature)


def _full_precision(rows: Tensor) -> torch.autocast:
    """Mixed precision ends here: bf16 is too coarse for cosines that are divided by 0.07, and for which is nearest."""
    return torch.autocast(rows.device.type, enabled=False)


def _sum_over_others(anchors: Tensor, rows: Tensor) -> Tensor:
    """Σ_{k≠i} exp(anchor_i · row_k), (N,)."""
    return (anchors @ rows.T).fill_diagonal_(-torch.inf).exp().sum(dim=1)


def _units(*tensors: Tensor) -> list[Tensor]:
    _check_pairs(*tensors)
    return [_unit(rows.detach()) for rows in tensors]


def _unit(rows: Tensor) -> Tensor:
    return normalize(rows.to(torch.promote_types(rows.dtype, torch.float32)))


def _as_moved(values: Tensor) -> Tensor:
    """The same bytes in a type that torch can move: it has few kernels for uint16."""
    return values.view(torch.int16) if values.dtype == torch.uint16 else values


def _check_pairs(*tensors: Tensor) -> None:
    shapes = [tuple(rows.shape) for rows in tensors]
    if len(shapes[0]) != 2 or len(set(shapes)) > 1:
        raise ValueError(f"projections: shapes {', '.join(map(str, shapes))}, expected (N,D), the same for each")


def _check_two(rows: Tensor) -> None:
    if len(rows) < 2:
        raise ValueError(f"projections: {len(rows)} rows, expected at least 2, for there to be something else")


def _check_values(values: Tensor, rate: float) -> tuple[int, int]:
    if values.ndim != 2:
        raise ValueError(f"values: expected (N,M), got shape {tuple(values.shape)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate}: expected a number from 0 to 1")
    return len(values), values.shape[1]
