"""The contrastive loss by hand: epoch, temperature, loss and anchor; what pulls at a pair, and what pushes how hard."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import torch
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import normalize

from rsbook import contrastive, figures
from rsbook.figures import Html
from rsbook.widgets.explorer import Explorer

# Steps of 0.005 below 0.1, of 0.01 below 0.2, of 0.05 up to 1: what a temperature does depends on its ratio to another.
TEMPERATURES = [k / 1000 for k in itertools.chain(range(30, 100, 5), range(100, 200, 10), range(200, 1001, 50))]
SCALE = "RdYlBu"  # of cosines −1 … 1, as in `crop_drawings.draw_similarities`
PUSH = "#D55E00"


class ContrastExplorer(Explorer):
    """What a contrastive loss does to the pairs of a small batch, at several moments of a training.

    moment: index into `epochs` · temperature: τ, one of `temperatures` · loss: one of `contrastive.LOSSES` · anchor:
    the pair whose row of the first sensor asks for its partner, which is that of the second.
    """

    moment = traitlets.Int().tag(sync=True)
    temperature = traitlets.Float().tag(sync=True)
    loss = traitlets.Enum(tuple(contrastive.LOSSES)).tag(sync=True)
    anchor = traitlets.Int().tag(sync=True)
    epochs = traitlets.List(traitlets.Int()).tag(sync=True)
    temperatures = traitlets.List(traitlets.Float()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    sensors = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(
        self,
        projections: Mapping[int, tuple[Tensor, Tensor]],
        labels: Sequence[str | int],
        *,
        temperature: float = contrastive.TEMPERATURE,
        sensors: Sequence[str] = ("Sentinel-2", "PlanetScope"),
    ) -> None:
        """Offer a batch of pairs, each with a label to tell it by, such as its crop and day, or its day.

        projections: epoch → those of both sensors (N,D) · sensors: names of both. The first anchor is the pair whose
        loss at the last moment is the median. Raises ValueError for shapes that do not fit together, fewer than two
        pairs, no epoch, projections that are not finite, and for a temperature that is not offered.
        """
        _check(projections, labels, sensors)
        self._projections = [tuple(rows.detach().cpu().double() for rows in both) for both in projections.values()]
        upper = torch.stack([_cosines(*both).float().triu(1) for both in self._projections])
        self._cosines = (upper + upper.mT).double()  # those that the page has, to the bit
        heat = matplotlib.colormaps[SCALE](np.linspace(0, 1, 256), bytes=True)[:, :3]
        super().__init__(
            arrays={"cosines": upper, "heat": heat},
            moment=len(projections) - 1,
            temperature=temperature,
            loss="nt_xent",
            anchor=0,
            epochs=list(projections),
            temperatures=TEMPERATURES,
            names=[f"{k} ({label})" for k, label in enumerate(labels, 1)],
            sensors=list(sensors),
            caption=f"A batch of {len(labels)} pairs. In the matrix, rows are projections of {sensors[0]} and columns "
            f"of {sensors[1]}; partners lie on the diagonal and have a dot. Click a row to make it the anchor, or move "
            "it with the arrow keys. A push is the derivative of the anchor's loss by its cosine with a negative. All "
            "pushes add up to the pull on the partner, which is at most 1/τ, and are shown as shares of it. Effective "
            "negatives: as many equal ones would push as unevenly. The nearest is looked for in the anchor's row of "
            "the matrix. In the column of the batch, means over all anchors that the loss has.",
        )
        losses, _ = self._anchors()
        self.anchor = int(losses[: len(labels)].sort().indices[(len(labels) - 1) // 2])

    @functools.cached_property
    def fallback(self) -> Html:
        """Cosines and pushes as they are when it is asked for."""
        return _draw(self)

    def read_out(self) -> pd.DataFrame:
        """What the table says, a row a quantity, for the batch (means) and for the anchor.

        loss · pull: on the partner, minus the derivative of the anchor's loss by their cosine · negatives: exp of the
        entropy of the pushes · found: whether the nearest row of the second sensor is the partner; of the batch, the
        share of anchors of the first. Raises ValueError for a state that is not offered.
        """
        losses, gradient = self._anchors()
        first, second = self._projections[self.moment]
        n, i = len(first), self.anchor
        pulls = -gradient[torch.arange(len(gradient)), _partners(gradient)]
        negatives = torch.special.entr(_shares(gradient)).sum(dim=1).exp()
        nearest = self._cosines[self.moment, i, n:].argmax()
        batch = {
            "loss": contrastive.LOSSES[self.loss](first, second, self.temperature).item(),
            "pull": pulls.mean().item(),
            "negatives": negatives.mean().item(),
            "found": contrastive.retrieval(first, second),
        }
        anchor = [losses[i].item(), pulls[i].item(), negatives[i].item(), float(nearest == i)]
        return pd.DataFrame({"batch": batch, "anchor": dict(zip(batch, anchor, strict=True))})

    def read_out_pushes(self) -> pd.DataFrame:
        """What each pair does to the anchor, a row a pair: first and second are the rows of either sensor.

        cosine_: with the anchor · gradient_: of the anchor's loss by that cosine, below zero for the pull on the
        partner · share_: of all pushes; nan for the anchor itself and, in shares, for its partner. Raises ValueError
        for a state that is not offered.
        """
        _, gradient = self._anchors()
        n, i = len(self.names), self.anchor
        cosines, shares = self._cosines[self.moment, i].clone(), _shares(gradient)[i]
        found = {"cosine": cosines, "gradient": gradient[i], "share": shares}
        for values in found.values():
            values[i] = torch.nan
        shares[n + i] = torch.nan
        parts = {"first": slice(0, n), "second": slice(n, 2 * n)}
        columns = {f"{name}_{part}": v[where] for name, v in found.items() for part, where in parts.items()}
        return pd.DataFrame({"pair": self.names, **columns})

    def _anchors(self) -> tuple[Tensor, Tensor]:
        """Losses (A,) of all anchors that the loss has, and of each its derivatives (A,2N) by its cosines."""
        self._check_state()
        cosines = self._cosines[self.moment]
        if self.loss == "one_sided":
            cosines = cosines[: len(self.names)]
        cosines = cosines.clone().requires_grad_()
        losses = anchor_losses(cosines, self.temperature, self.loss)
        [gradient] = torch.autograd.grad(losses.sum(), cosines)  # each loss knows its own row alone
        return losses.detach(), gradient

    def _check_state(self) -> None:
        for name, offered in (("moment", range(len(self.epochs))), ("anchor", range(len(self.names)))):
            if getattr(self, name) not in offered:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 … {len(offered) - 1}")
        if self.temperature not in TEMPERATURES:
            raise ValueError(f"temperature={self.temperature}: expected one of {', '.join(map(str, TEMPERATURES))}")


def anchor_losses(cosines: Tensor, temperature: float, loss: str) -> Tensor:
    """The loss of each anchor (A,), whose mean is that of the batch, from its cosines (A,2N) with the rows of a batch.

    loss: "nt_xent", where A may be 2N, or "one_sided", where the partner is not in the denominator and A is N · row k
    of either sensor is the partner of row k of the other, and anchor a is row a. With s = cosine/τ and p_j the softmax
    of s over the others, the derivative by a cosine is (p_j − 1[j is the partner])/τ; of eq. (1a) it is p_j/τ with the
    softmax over negatives alone, and −1/τ for the partner.
    """
    scaled = cosines / temperature
    own = torch.arange(len(scaled))
    partners = _partners(scaled)
    left_out = torch.zeros_like(scaled, dtype=torch.bool)
    left_out[own, own] = True
    if loss == "one_sided":
        left_out[own, partners] = True
    return scaled.masked_fill(left_out, -torch.inf).logsumexp(dim=1) - scaled[own, partners]


def _partners(rows: Tensor) -> Tensor:
    """The partner's column of each row of (A,2N)."""
    return (torch.arange(len(rows)) + rows.shape[1] // 2) % rows.shape[1]


def _shares(gradient: Tensor) -> Tensor:
    """The shares (A,2N) of all pushes on each anchor: of its derivatives, those by cosines with negatives."""
    pushes = gradient.clone()
    pushes[torch.arange(len(pushes)), _partners(pushes)] = 0.0
    return pushes / pushes.sum(dim=1, keepdim=True)


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    rows = normalize(torch.cat([first, second]))
    return rows @ rows.T


def _check(
    projections: Mapping[int, tuple[Tensor, Tensor]], labels: Sequence[str | int], sensors: Sequence[str]
) -> None:
    shapes = {tuple(rows.shape) for both in projections.values() for rows in both}
    if not projections or len(sensors) != 2 or any(len(both) != 2 for both in projections.values()):
        raise ValueError("projections: expected those of one epoch or more, each of two sensors, and two names")
    if len(labels) < 2 or len(shapes) > 1 or any(len(one) != 2 or one[0] != len(labels) for one in shapes):
        raise ValueError(
            f"projections: shapes {sorted(shapes)} with {len(labels)} labels, expected (N,D), the same for all, N ≥ 2"
        )
    if not all(rows.isfinite().all() for both in projections.values() for rows in both):
        raise ValueError("projections: expected finite numbers")


def _draw(made: ContrastExplorer) -> Html:
    pushes = made.read_out_pushes()
    n, i = len(pushes), made.anchor
    cosines = made._cosines[made.moment, :n, n:].numpy()

    def draw(theme: Mapping[str, str]) -> Figure:
        figure, (left, right) = figures.axes(theme, height=1.6 + 0.13 * n, ncols=2)
        image = left.imshow(cosines, cmap=SCALE, vmin=-1, vmax=1)
        left.scatter(range(n), range(n), s=3, color="black")
        left.add_patch(Rectangle((-0.5, i - 0.5), n, 1, fill=False, edgecolor=theme["ink"], linewidth=1.6))
        left.set(xlabel=made.sensors[1], ylabel=made.sensors[0], xticks=[], title="cosines")
        left.set_yticks(range(n), range(1, n + 1), fontsize=6.5)
        left.grid(False)
        figure.colorbar(image, ax=left, shrink=0.5)
        for k, part in enumerate(("first", "second")):
            places, shares = np.arange(n) + 0.4 * k - 0.2, 100 * pushes[f"share_{part}"]
            face = "none" if k else PUSH
            right.barh(places, shares, height=0.35, facecolor=face, edgecolor=PUSH, label=made.sensors[k])
        right.set_yticks(range(n), made.names, fontsize=6.5)
        right.set(xlabel="share of the push, %", ylim=(n - 0.4, -0.6), title=f"pushes on {made.names[i]}")
        right.legend(fontsize=8)
        return figure

    return figures.show(
        draw,
        alt=f"The matrix of cosines of {n} pairs, the row of one anchor framed, and beside it bars for how hard each "
        "of the other rows pushes that anchor away.",
        caption=f"Epoch {made.epochs[made.moment]}, τ = {made.temperature:g}: cosines of {made.sensors[0]} rows with "
        f"{made.sensors[1]} rows, partners dotted, and the pushes on the framed anchor, as shares of all of them.",
        data=pushes.round(4),
        name="contrast",
        vector=False,
    )
