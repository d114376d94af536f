"""Gradient calibration by hand: strength, stored target and score; what is left of an assumed negative's gradient."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
import traitlets
from matplotlib.figure import Figure

from rsbook import figures
from rsbook.figures import Html
from rsbook.single_positive import calibrated_gradient
from rsbook.widgets.explorer import Explorer

SLIDERS = {"strength": (0.0, 3.0, 0.05), "target": (0.0, 0.99, 0.01), "score": (0.01, 0.99, 0.01)}  # lowest … step
MAX_ENTRIES = 4000  # as many points move within a frame
GROUPS = {"hidden positives": True, "true absences": False}
DRAWN = {0.0: ("#8a8f98", ":"), 0.5: ("#3C8FD9", "--"), 0.9: ("#D55E00", "-")}  # targets of the figure


class GradientExplorer(Explorer):
    """What `single_positive.calibrated_gradient` leaves of the gradient of an unobserved class, by its score.

    strength: λ · target: t, what the teacher has stored · score: p, of the network; each in the steps of its slider.
    """

    strength = traitlets.Float(1.0).tag(sync=True)
    target = traitlets.Float(0.9).tag(sync=True)
    score = traitlets.Float(0.6).tag(sync=True)
    sliders = traitlets.Dict(SLIDERS, read_only=True).tag(sync=True)

    def __init__(self, entries: pd.DataFrame | None = None) -> None:
        """Offer all targets and scores, and beside them entries that a training has met.

        entries: a row for each unobserved entry, with columns p and t, from 0 to below 1, and hidden, bool: the class
        is there, and the label does not say so. Raises ValueError for other columns or values, and for no entry or
        more than 4000.
        """
        arrays = {} if entries is None else _checked(entries)
        self._entries = {name: torch.tensor(array) for name, array in arrays.items()}
        caption = (
            "An unobserved class of a scene has the score p, and the teacher has stored the target t for it. As an "
            "assumed negative, its logit has the gradient p. Gradient calibration leaves p·[1 − λt(1 − p)/(1 − pt)]. A "
            "step of training lowers a logit whose gradient is above zero, and raises one whose gradient is below. "
            "Scores are pushed up only where λt is above 1."
        )
        if entries is not None:
            caption += (
                f" Points and table: {len(entries):,} unobserved entries, each with its own p and t. Of a hidden "
                "positive the class is there, though no label says so; of a true absence it is not."
            )
        super().__init__(arrays=arrays, caption=caption)

    @functools.cached_property
    def fallback(self) -> Html:
        """Curves of three targets at two strengths, as a figure; drawn when it is asked for."""
        return _draw()

    @traitlets.validate("strength", "target", "score")
    def _validate_setting(self, proposal: dict) -> float:
        name, value = proposal["trait"].name, proposal["value"]
        low, high, step = SLIDERS[name]
        if not low <= value <= high or abs(value / step - round(value / step)) > 1e-6:
            raise ValueError(f"{name}={value}: expected {low:g} to {high:g} in steps of {step:g}")
        return round(value, 9)

    def read_out(self) -> pd.Series:
        """What the sentence says: gradient · assumed, that of an assumed negative · left, their ratio · zero, the score
        at which the curve crosses zero, nan where it does not.
        """
        found = calibrated_gradient(*torch.tensor([self.score, self.target], dtype=torch.float64), self.strength).item()
        zero = zero_crossing(self.target, self.strength)
        return pd.Series(
            {"gradient": found, "assumed": self.score, "left": found / self.score, "zero": zero}, dtype=float
        )

    def read_out_entries(self) -> pd.DataFrame:
        """What the table says, a row a group, hidden positives and true absences.

        entries: how many · assumed, calibrated: their mean gradients · pushed_up: the share whose gradient is below
        zero; nan where there are none. Raises ValueError without entries.
        """
        if not self._entries:
            raise ValueError("entries=None: expected a table of entries")
        p, t = self._entries["p"].double(), self._entries["t"].double()
        gradient = calibrated_gradient(p, t, self.strength)
        rows = {}
        for name, hidden in GROUPS.items():
            own = self._entries["hidden"].bool() == hidden
            means = [one[own].mean().item() for one in (p, gradient, (gradient < 0).double())]
            rows[name] = [int(own.sum()), *means]
        columns = ["entries", "assumed", "calibrated", "pushed_up"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def zero_crossing(target: float, strength: float) -> float | None:
    """The score p in (0, 1) at which the calibrated gradient is zero, None where there is none.

    1 − pt = λt(1 − p) holds at p = (λt − 1)/(t(λ − 1)), which is between 0 and 1 where λt > 1. Lower scores are pushed
    up, since the bracket is 1 − λt near p = 0; higher ones are pushed down, since it is 1 at p = 1.
    """
    if strength * target <= 1 + 1e-9:  # steps of the sliders are larger
        return None
    return (strength * target - 1) / (target * (strength - 1))


def _checked(entries: pd.DataFrame) -> dict[str, np.ndarray]:
    """p, t and hidden as a page has them: float32 and uint8, (n,) each."""
    missing = [name for name in ("p", "t", "hidden") if name not in entries]
    if missing:
        raise ValueError(f"entries: no column {figures.listed(missing)}, expected p, t and hidden")
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise ValueError(f"entries: {len(entries)} rows, expected 1 to {MAX_ENTRIES}")
    found = {}
    for name in ("p", "t"):
        if not pd.api.types.is_numeric_dtype(entries[name]):
            raise ValueError(f"entries: {name} is {entries[name].dtype}, expected numbers")
        found[name] = entries[name].to_numpy(np.float32, na_value=np.nan)
        wrong = entries[name][~((found[name] >= 0) & (found[name] < 1))]  # nan is neither
        if len(wrong):
            raise ValueError(f"entries: {name}={wrong.iloc[0]}, expected 0 ≤ {name} < 1, as float32")
    if not pd.api.types.is_bool_dtype(entries["hidden"]) or entries["hidden"].isna().any():
        raise ValueError(f"entries: hidden is {entries['hidden'].dtype}, expected bool, none missing")
    return found | {"hidden": entries["hidden"].to_numpy(np.uint8)}


def _draw() -> Html:
    strengths, p = (1.0, 2.0), torch.linspace(0, 1, 101, dtype=torch.float64)
    curves = {
        (strength, t): calibrated_gradient(p, torch.tensor(t, dtype=torch.float64), strength)
        for strength in strengths
        for t in DRAWN
    }

    def draw(theme: Mapping[str, str]) -> Figure:
        figure, both = figures.axes(theme, ncols=2, sharey=True)
        for ax, strength in zip(both, strengths, strict=True):
            ax.axhline(0, color=theme["muted"], linewidth=0.8)
            for t, (colour, style) in DRAWN.items():
                name = f"t = {t:g}" if t else "t = 0, assumed negative"
                ax.plot(p, curves[strength, t], color=colour, linestyle=style, linewidth=1.8, label=name)
            ax.set(xlabel="score p", title=f"strength λ = {strength:g}", xlim=(0, 1), ylim=(-0.55, 1.05))
            ax.text(0.02, -0.5, "below zero: pushed up", color=theme["muted"], fontsize=8)
        both[0].set_ylabel("gradient of the logit")
        both[0].legend(loc="upper left", fontsize=8)
        return figure

    zero = zero_crossing(0.9, 2.0)
    columns = {(s, t): {"strength": s, "t": t, "p": p.numpy(), "gradient": g.numpy()} for (s, t), g in curves.items()}
    return figures.show(
        draw,
        alt="The gradient of an unobserved logit by its score, for three stored targets, at two strengths. At strength "
        "1 a higher target leaves less of it; at strength 2 and target 0.9 it is below zero for most scores.",
        caption="Gradient calibration, p·[1 − λt(1 − p)/(1 − pt)]: what is left of an assumed negative's gradient p. "
        f"At λ = 2 and t = 0.9 scores below {zero:.2f} are pushed up, higher ones down.",
        data=pd.concat([pd.DataFrame(one) for one in columns.values()]).round(4),
        name="gradient_calibration",
    )
