"""Exercises on series and encoders of single days: an index of bands, a loss of pairs, what pre-training is worth."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from rsbook import contrastive
from rsbook.exercises.answers import (
    NotAnAnswerError,
    as_name,
    exercise,
    judge_number,
    judge_per_cent,
    judge_tensor,
    reading,
    say_hint,
    say_right,
)
from rsbook.figures import Html
from rsbook.series import SCALE

NO_PAIR = "These runs hold no pair of the two inputs, so there is nothing to compare."


@exercise("a tensor with one number a date")
def check_ndvi(answer: Any, values: Tensor) -> Html:
    """NDVI of one pixel on all dates, from its stored values (T,12) uint16 (crops/4_data)."""
    stored = values.long()
    red, infrared = stored[:, 3], stored[:, 7]
    expected, total = _index(infrared, red), infrared + red
    wrapped = "Some dates are far off: whole numbers of few bits overflow. Use floats."
    single = "Below the line is one band. There belongs the sum of both."
    return judge_tensor(
        answer,
        expected,
        "The stored values need no scaling first: a factor that both bands share is gone from a ratio.",
        [
            (-expected, "The sign is the wrong way round: green leaves have a high NDVI."),
            (infrared / red, "This is the plain ratio of the two bands. NDVI sets their difference against their sum."),
            (infrared - red, "This is the difference alone. Which share of the sum of both is it?"),
            ((infrared - red) / SCALE, "This is the difference alone. Which share of the sum of both is it?"),
            (infrared - red / infrared + red, "Division comes before addition: difference and sum need brackets."),
            (1 / expected, "It is upside down: the sum belongs below the line."),
            ((infrared - red) / infrared, single),
            ((infrared - red) / red, single),
            (_index(stored[:, 8], stored[:, 4]), "Columns count from 0, and so do the numbers in the exercise."),
            (_index(stored[:, 6], stored[:, 2]), "The numbers in the exercise count from 0 already, as columns do."),
            (_index(stored[:, 8], red), "One of the bands is the narrow near infrared, 8A. Look up its number."),
            (
                _index(infrared, stored[:, 2]),
                "One of the bands is green, where leaves take up less. Look up its number.",
            ),
            (100 * expected, "This is a hundred times too much: NDVI lies between −1 and 1."),
            ((infrared - red) % 2**16 / (total % 2**16), wrapped),
            ((infrared - red) / total.short(), wrapped),
            ((infrared - red) // total.clamp(min=1), "Whole numbers are left: // rounds down. Divide with /."),
            (_index(*stored[[7, 3]]) if len(stored) > 7 else expected, "Rows are dates here, and bands are columns."),
            (expected.mean(), "This is the mean over the dates. Asked is one number a date."),
        ],
        otherwise="Take the two columns as floats; then their difference over their sum, date by date.",
    )


@exercise("a number")
def check_nt_xent(answer: Any, first: Tensor, second: Tensor, temperature: float) -> Html:
    """The symmetric NT-Xent loss of projections (N,D) of the same N pixels by two sensors (crops/3_method)."""
    first, second = first.detach().double(), second.detach().double()
    expected = contrastive.nt_xent(first, second, temperature).item()
    raw, n = torch.cat([first, second]), len(first)
    cosines = normalize(raw) @ normalize(raw).T
    logits, partner = _of_others(cosines / temperature), torch.arange(2 * n).roll(n)
    across, same = cosines[:n, n:] / temperature, torch.arange(n)
    there, back = cross_entropy(across, same), cross_entropy(across.T, same)
    alone = logits.scatter(1, partner[:, None], -torch.inf).logsumexp(dim=1) - logits[torch.arange(2 * n), partner]
    lengths = "These rows have lengths of their own. Cosines are products of rows of length 1."
    one_way = "The rows of one sensor alone are anchors. In the symmetric loss those of both are."
    narrow = "These anchors have no others of their own sensor to compare with. The denominator has those of both."
    return judge_number(
        answer,
        expected,
        "One matrix holds all there is to compare: every row is an anchor once, and a negative of all but its partner.",
        [
            (cross_entropy(_of_others(raw @ raw.T / temperature), partner), lengths),
            (cross_entropy(_of_others(raw @ raw.T), partner), f"{lengths} And the temperature is missing."),
            (cross_entropy(_of_others(cosines), partner), "The temperature is missing: cosines are divided by it."),
            (
                cross_entropy(_of_others(cosines * temperature), partner),
                "You multiply by the temperature. Cosines are divided by it.",
            ),
            (cross_entropy(logits[:n], partner[:n]), one_way),
            (cross_entropy(logits[n:], partner[n:]), one_way),
            ((there + back) / 2, narrow),
            (there, f"{narrow} And the rows of one sensor alone are anchors."),
            (back, f"{narrow} And the rows of one sensor alone are anchors."),
            (
                cross_entropy(cosines / temperature, partner),
                "Each row is compared with itself as well: leave the diagonal out.",
            ),
            (alone.mean(), "The partner is missing in your denominator."),
            (alone[:n].mean(), "This is the loss as printed, eq. 1a. Asked is the symmetric one, partner below."),
            (-expected, "The sign is the wrong way round: this loss is positive."),
            (2 * n * expected, "This is the sum over the anchors. Take their mean."),
            (n * expected, "This is a sum over the pixels. Take the mean."),
            (2 * expected, "This adds up both directions. Take the mean over the anchors of both."),
        ],
        tolerance=0.001,
        otherwise="Stack both, scale each row to length 1, and find all cosines over τ. Of each row: how far is its "
        "partner below the log of the sum of the exponentials of all others?",
    )


@exercise("a number, in per cent")
def check_win_share(answer: Any, ours: pd.Series, theirs: pd.Series) -> Html:
    """Of all pairs, the share in which one input is above another, in per cent (crops/6_task_1)."""
    lead = (ours - theirs).dropna()
    if lead.empty:
        return say_hint(NO_PAIR)
    wins, ties = lead > 0, lead == 0
    return judge_per_cent(
        answer,
        wins.mean(),
        "It counts a lead of a hundredth of a point like one of ten points: look at the gains as well.",
        [
            (wins.sum(), "This is a number of pairs. Which share of all pairs is it?"),
            ((wins | ties).mean(), "Equal scores are no win. Count the pairs in which ours is larger."),
            ((wins + ties / 2).mean(), "Equal scores count for neither here, not for half."),
            ((lead < 0).mean(), "This is the other way round: in these pairs ours is below."),
            (wins.sum() / (lead != 0).sum().clip(1), "Equal scores are no win, and yet they are pairs: count all."),
            (wins.sum() / len(ours), "A row without a score of both inputs is no pair: do not count it."),
            (lead.mean(), "This is the mean gain. Asked is how often there is one, however small."),
        ],
        otherwise="Compare the two columns row by row. What is the share of the rows in which this is true?",
    )


@exercise("a number, in per cent")
def check_relative_gain(answer: Any, ours: pd.Series, baseline: pd.Series) -> Html:
    """The gain over a baseline in per cent of the baseline, the mean over all pairs (crops/6_task_2)."""
    gain = (ours - baseline).dropna()
    ours, baseline = ours[gain.index], baseline[gain.index]
    if gain.empty:
        return say_hint(NO_PAIR)
    if (baseline == 0).any():
        return say_hint("An accuracy of the baseline is 0 here. Nothing can be said in per cent of it.")
    relative = gain / baseline
    return judge_per_cent(
        answer,
        relative.mean(),
        "Where the baseline is low a point is worth more of it, so a few weak runs can carry this mean.",
        [
            (gain.mean() / baseline.mean(), "This sets one mean against another. Divide within each pair first."),
            (gain.mean(), "This is the mean difference of the accuracies. Set each in proportion to its baseline."),
            ((gain / ours).mean(), "Divide by the accuracy that it starts from, not by the one that it reaches."),
            ((ours / baseline).mean(), "This is ours as a share of the baseline. By how much is it above?"),
            (-relative.mean(), "The sign is the wrong way round: where ours is larger, the gain is positive."),
            (-(gain / ours).mean(), "The two have changed places: this is what the baseline gains over ours."),
            (relative.median(), "This is the median of the pairs. Asked is their mean."),
            (relative.sum(), "This is the sum over the pairs. Take their mean."),
        ],
        otherwise="Of each pair: by how much is ours above, and which share of the baseline is that? Then average.",
    )


@exercise("the name of a class")
def check_hardest_class(answer: Any, confusion: Tensor, classes: Sequence[str]) -> Html:
    """The class that is most often called something else: the one of least recall (crops/6_task_3)."""
    answer, pixels = _as_name_of_class(answer), confusion.double()
    right, own, named = pixels.diagonal(), pixels.sum(dim=1), pixels.sum(dim=0)
    if not own.any():
        return say_hint("No pixel was counted here, so no class is harder than another.")
    if answer in _lowest(right / own, classes):
        return say_right("Which name do its pixels get instead? The largest other number of its row says it.")
    if answer not in classes:
        return say_hint("There is no such class: `data.classes` has the names.")
    mistakes = [
        (-right / own, "This class is recognised best. Asked is the one that is recognised least often."),
        (right / named, "This compares columns: what was called so, and is not. A class's own pixels are its row."),
        (right - own, "This class has most wrong pixels, but also more pixels than others. Compare shares."),
        (right - named, "Its name is given wrongly most often. Asked is whose own pixels get another name."),
    ]
    for values, said in mistakes:
        if answer in _lowest(values, classes):
            return say_hint(said)
    return say_hint("Another class is called something else more often. Divide the diagonal by what each row holds.")


@exercise("a number of points")
def check_learned(answer: Any, ours: pd.Series, random: pd.Series) -> Html:
    """What pre-training adds to a random encoder, in points: the mean over seeds of the mean over the pairs of each
    (crops/7_fair_controls).
    """
    gain = (ours - random).dropna()
    if gain.empty:
        return say_hint(NO_PAIR)
    points = 100 * gain
    by_seed = points.groupby("seed").mean()
    relative = points / random[gain.index]
    levels = [name for name in points.index.names if name != "seed"]
    return judge_number(
        answer,
        by_seed.mean(),
        "It is what is left of the gain over the bands once depth and width, which cost no learning, are taken off.",
        [
            (-by_seed.mean(), "The sign is the wrong way round: what is learnt is what the random encoder lacks."),
            (points.mean(), "This is the mean over all pairs: a seed with more of them counts more. Average by seed."),
            (points.median(), "This is the median of the pairs. Asked are means."),
            (by_seed.median(), "This is the median of the seeds. Asked is their mean."),
            (by_seed.sum(), "This is the sum over the seeds. Take their mean."),
            (by_seed.std(), "This is how much it varies from seed to seed. Asked is the mean."),
            (relative.groupby("seed").mean().mean(), "This is in per cent of the random encoder. Asked are points."),
            (relative.mean(), "This is in per cent of the random encoder. Asked are points, averaged by seed."),
            *(
                (points.groupby(name).mean().mean(), f"You average by {name} first. Average by seed.")
                for name in levels
            ),
            (by_seed.mean() / 100, "Accuracies lie between 0 and 1 here. A point is a hundredth."),
        ],
        tolerance=0.005,
        otherwise="Subtract one column from the other, row by row. Average by seed, and average what comes out.",
    )


def _index(a: Tensor, b: Tensor) -> Tensor:
    return (a - b) / (a + b)


def _of_others(products: Tensor) -> Tensor:
    """The same without the diagonal."""
    return products.clone().fill_diagonal_(-torch.inf)


def _lowest(values: Tensor, classes: Sequence[str]) -> list[str]:
    """The names of the classes with the least value, all of them where several have it."""
    values = values.nan_to_num(nan=torch.inf, posinf=torch.inf)
    return [name for name, least in zip(classes, (values <= values.min() + 1e-6).tolist(), strict=True) if least]


@reading
def _as_name_of_class(answer: Any) -> str:
    if isinstance(answer, Real | Tensor | np.ndarray) and not isinstance(answer, bool):
        raise NotAnAnswerError("Asked is a name. `data.classes` has one for the number of each class.")
    return as_name(answer)
