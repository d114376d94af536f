"""Exercises on one positive a scene: what it hides, calibrated gradients, ranks, annotators, and added labels."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rsbook import annotations, single_positive
from rsbook.exercises.answers import (
    NotAnAnswerError,
    as_name,
    exercise,
    judge_number,
    judge_per_cent,
    judge_tensor,
    mean,
    reading,
    say_hint,
    say_right,
)
from rsbook.figures import Html


@exercise("a number, in per cent")
def check_hidden_share(answer: Any, labels: Tensor, observed: Tensor) -> Html:
    """Of the positives of labels (N,L), the share not observed (N,L), in per cent (single_positive/1_problem)."""
    hidden, there = labels & ~observed, labels.sum()
    if not there:
        return say_hint("No scene has a class here, so nothing can be hidden.")
    return judge_per_cent(
        answer,
        hidden.sum() / there,
        "With one positive a scene it follows from the mean number of classes alone, however the positive is chosen.",
        [
            (hidden.sum(), "This is a number of positives. Which share of all positives is it?"),
            (mean(hidden), "You divide by all entries. Divide by those that are positive."),
            (1 - hidden.sum() / there, "These positives are known. Asked are those that are hidden."),
            (
                single_positive.false_negative_rate(labels, observed).nanmean(),
                "This is the mean of the classes' rates: rare classes count like common ones. Count all positives.",
            ),
            (
                (hidden.sum(dim=1) / labels.sum(dim=1)).nanmean(),
                "This is the mean of the scenes' shares. Count the positives of all scenes first, then divide.",
            ),
            (hidden.sum() / (~observed).sum(), "You divide by all that is not observed. Divide by all positives."),
            (hidden.sum() / observed.sum(), "You divide by the positives that are known. Divide by all of them."),
            (mean(hidden.any(dim=1)), "These are the scenes that hide something. Asked is a share of positives."),
            (mean(labels), "This is the share of entries that are positive. Which of these are not observed?"),
            (mean(~observed), "This is the share of entries that are not observed. Most of these are no positives."),
        ],
        otherwise="Count the entries that are true in `labels` and false in `observed`, and those true in `labels`.",
    )


@exercise("a tensor with one number an entry")
def check_calibrated(answer: Any, p: Tensor, t: Tensor, strength: float) -> Html:
    """The gradients of unobserved logits, of scores p (n,) and targets t (n,), as autograd finds them
    (single_positive/2_method).
    """
    p, t = p.detach().double(), t.detach().double()
    expected = single_positive.calibrated_gradient(p, t, strength)
    calibration = expected - p
    negative, agreement = -torch.log(1 - p), torch.log(1 - p * t)
    whole = negative + strength * agreement
    return judge_tensor(
        answer,
        expected,
        "Where it is negative the entry is pushed up, though its label says that it is absent.",
        [
            (p - calibration, "The calibration has the wrong sign: its log is added, not subtracted."),
            (single_positive.calibrated_gradient(p, t, 1.0), "The strength is missing: the second term counts λ-fold."),
            (expected / (p * (1 - p)), "This is the gradient with respect to the score. Asked is that of the logit."),
            (
                calibration,
                "This is the calibration alone. The cross-entropy of a negative belongs to the loss as well.",
            ),
            (p, "This is the cross-entropy alone, as for any negative. The calibration belongs to the loss as well."),
            (
                expected / len(p),
                "You take the mean of the entries. Take their sum: the loss of each has a weight of 1.",
            ),
            (-expected, "The sign is the wrong way round: this is where a step goes. Asked is the gradient."),
            (calibration - p, "The cross-entropy has the wrong sign: it is minus a log."),
            (
                p - 1 + calibration,
                "This takes the entries for positives. What is not observed has the log of 1 − p, not of p.",
            ),
            (
                -strength * p / (1 - p * t),
                "This is the gradient with respect to the targets. Asked is that of the logits.",
            ),
            (p - strength * p * t, "The product p·t belongs within the log: 1 − p·t, not 1 − p."),
            (
                single_positive.calibrated_gradient(p.sigmoid(), t, strength),
                "You take the scores for logits. The logit of a score is what the sigmoid makes this score of.",
            ),
            (
                expected[None],
                "`torch.autograd.grad` gives a tuple, with one tensor for each input. Take the tensor out.",
            ),
            (expected.sum(), "This is the sum of the gradients. Asked is one number an entry."),
            (whole, "This is the loss of each entry. Asked is its gradient."),
            (whole.sum(), "This is the loss. Asked is its gradient, one number an entry."),
        ],
        otherwise="Begin with logits that require a gradient, and compute score and loss from them: −log(1 − p) plus "
        "λ·log(1 − p·t). What does autograd find for the sum?",
    )


@exercise("a number")
def check_mean_rank(answer: Any, scores: pd.DataFrame) -> Html:
    """The mean over seeds, a row each, of AdaGC's rank among the methods, 1 for the best, without the upper bound
    (single_positive/3_benchmark_random).
    """
    if "adagc" not in scores or scores["adagc"].isna().all():
        return say_hint("This page was run without AdaGC, so there is no rank to find.")
    methods = scores.drop(columns="full", errors="ignore")
    places = _places(methods)
    bounded, upwards = _places(scores).mean(), methods.rank(axis=1)["adagc"].mean()
    return judge_number(
        answer,
        places.mean(),
        "A rank says nothing of distances: the first and the fourth may lie within what another seed changes.",
        [
            (places.mean() - 1, "You count from 0. The best has rank 1."),
            (bounded, "The upper bound is ranked as well. It knows all labels, so leave it out."),
            (bounded - 1, "You count from 0, and the upper bound is ranked as well. Leave it out, and begin with 1."),
            (upwards, "Your best method has the last rank. Rank from the highest score down."),
            (
                scores.rank(axis=1)["adagc"].mean(),
                "Your best method has the last rank. Rank from the highest score down.",
            ),
            (
                methods.mean().rank(ascending=False)["adagc"],
                "This is the rank of the mean score. Rank within each seed first, then average.",
            ),
            (
                methods.rank(ascending=False)["adagc"].mean(),
                "This ranks the seeds of a method. Rank the methods of a seed: a row, not a column.",
            ),
            *(
                (_places(methods, ties).mean(), "Methods with equal scores share the mean of their ranks here.")
                for ties in ("min", "max", "first", "dense")
            ),
            (places.median(), "This is the median of the ranks. Asked is their mean."),
            (places.min(), "This is the best of the ranks. Asked is their mean."),
            (places.max(), "This is the worst of the ranks. Asked is their mean."),
            (places.sum(), "This is the sum over the seeds. Take the mean."),
            (scores["adagc"].mean(), "This is the mean score. Asked is the mean rank."),
        ],
        otherwise="Rank the methods of each row, the upper bound left out, the highest score first; then average.",
    )


@exercise("the name of a class")
def check_most_hidden(answer: Any, labels: Tensor, observed: Tensor, classes: Sequence[str]) -> Html:
    """The class of labels (N,L) that is, where it is there, most often not observed (N,L): the one with the largest
    false-negative rate (single_positive/3_benchmark_dominant).
    """
    answer = _as_name_of_class(answer)
    rates, hidden = single_positive.false_negative_rate(labels, observed), (labels & ~observed).sum(dim=0).double()
    there = labels.sum(dim=0).double()
    if not there.any():
        return say_hint("No scene has a class here, so nothing can be hidden.")
    if answer in _largest(rates, classes):
        return say_right(
            "It is seldom the largest where it is, and assumed negatives teach a network that it is absent there."
        )
    if answer not in classes:
        return say_hint("There is no such class: `data.classes` has the names.")
    mistakes = [
        (-rates, "This class is hidden least often. Asked is the one that is hidden most often."),
        (hidden, "It is hidden in most scenes, but it is in more scenes as well. Which share of these is it?"),
        (-there.where(there > 0, torch.nan), "This class is the rarest. Asked is how often it is hidden where it is."),
        (there, "This class is the most frequent. Asked is how often it is hidden where it is."),
    ]
    for values, said in mistakes:
        if answer in _largest(values, classes):
            return say_hint(said)
    return say_hint("Another class is hidden more often. Divide, class by class, by the scenes that hold it.")


@exercise("a number")
def check_stored(answer: Any, scores: Tensor, memory: float) -> Html:
    """The stored target of an entry after visits with these scores (T,), from zero on, freed of its bias
    (single_positive/4_ablation).
    """
    scores, visits = scores.detach().double(), len(scores)
    if not visits:
        return say_hint("There was no visit here, so nothing is stored.")
    stored, swapped, left = _moved(scores, memory), _moved(scores, 1 - memory), torch.tensor(memory).double() ** visits
    first, exchanged = _moved(scores[1:], memory, scores[0]), "Memory and its rest have changed places in your update."
    power = "The exponent is the number of visits: all of them, the last included, and no more."
    return judge_number(
        answer,
        stored / (1 - left),
        "Not freed of it, the targets of the first epochs would be low for want of visits, not of confidence.",
        [
            (stored, "This is still held down by the zero it began with. Free it of that bias."),
            (scores.mean(), "This is the plain mean. Later visits count more than earlier ones."),
            (scores[-1], "This is the last score alone. Those before it are remembered."),
            (first, "You begin with the first score. Begin with zero, and free the end of its bias."),
            (first / (1 - left), "You begin with the first score, and free it of a bias that only a zero brings."),
            (swapped / (1 - (1 - memory) ** visits), exchanged),
            (swapped / (1 - left), exchanged),
            (swapped, f"{exchanged} And the bias of the zero is left."),
            (_moved(scores.flip(0), memory) / (1 - left), "Your visits run backwards: the last of them counts most."),
            (stored / (1 - memory), "You divide by the weight of a single score. How many have gone into it?"),
            (stored * (1 - left), "You multiply by what is missing from 1. Divide by it."),
            (stored / left, "You divide by what the zero still counts. Divide by the weight that the scores have."),
            (stored / (1 - left / memory), power),
            (stored / (1 - left * memory), power),
        ],
        tolerance=0.001,
        otherwise="Visit by visit: memory times what is stored, plus the rest times the score. Then divide by 1 less "
        "the weight that the zero at the beginning still has.",
    )


@exercise("a number")
def check_kappa(answer: Any, first: pd.DataFrame, second: pd.DataFrame) -> Html:
    """Cohen's kappa of the answers of two annotators, over what both have labelled (single_positive/5_annotate)."""
    every = annotations.merge(first, second)
    ours, theirs = every["label_first"], every["label_second"]
    both, either = every[(ours != "") & (theirs != "")], every[(ours != "") | (theirs != "")]
    if both.empty:
        return say_hint("No scene has a label of both annotators here, so there is no kappa.")
    observed, by_chance = _agreed(both), _by_chance(both)
    if by_chance > 1 - 1e-9:
        return say_hint("Both have given one class to all scenes here, so kappa is not defined.")
    kappa = _kappa(observed, by_chance)
    offered = {name for table in (first, second) for names in table["candidates"] for name in _split(names)}
    named = {*both["label_first"], *both["label_second"]}
    pooled = pd.concat([both["label_first"], both["label_second"]]).value_counts(normalize=True)
    skipped = "Scenes that somebody has skipped are among yours. Keep those that both have labelled."
    return judge_number(
        answer,
        kappa,
        "The same share of equal answers is worth less where one class is given to most scenes.",
        [
            (observed, "This is how often they agree. What would chance alone give?"),
            (100 * observed, "This is how often they agree, in per cent. What would chance alone give?"),
            (by_chance, "This is how often they would agree by chance. How far above it are they?"),
            (observed - by_chance, "This is the lead over chance. Set it against the most that there could be."),
            (100 * kappa, "This is in per cent. Kappa is 1 where both agree everywhere."),
            *(
                (
                    _kappa(observed, 1 / max(len(names), 1)),
                    "Chance is not 1 of so many classes: some are given more often.",
                )
                for names in (offered, named)
            ),
            *((_kappa(_agreed(rows), _by_chance(rows)), skipped) for rows in (every, either)),
            *((_kappa(_agreed(rows), _by_chance(rows, named)), skipped) for rows in (every, either)),
            *((_kappa(rows["same"].mean(), _by_chance(rows, named)), skipped) for rows in (every, either)),
            (_agreed(every), f"This is how often they agree. {skipped}"),
            (every["same"].mean(), f"This is how often they agree. {skipped}"),
            (
                _kappa(observed, (pooled**2).sum()),
                "You draw for both from their common answers. Each has shares of its own.",
            ),
            ((observed - by_chance) / by_chance, "Divide by what is left above chance, not by chance."),
            ((observed - by_chance) / observed, "Divide by what is left above chance, not by how often they agree."),
            (1 - observed, "This is how often they differ. Kappa is about how often they agree."),
        ],
        tolerance=0.005,
        otherwise="For each class: how often does each of the two give it? The sum of the products is what chance "
        "gives, and the lead over it is set against 1 less chance.",
    )


@exercise("a number, in per cent")
def check_added(answer: Any, labels: Tensor, observed: Tensor, true: Tensor) -> Html:
    """Of the classes that pseudo-labels (N,L) add to what is observed (N,L), the share that is truly there, in per cent
    (single_positive/6_with_label_propagation).
    """
    added, hidden = labels & ~observed, true & ~observed
    right = (added & true).double()
    if not added.any():
        return say_hint("The pseudo-labels add nothing here, so there is no precision to find.")
    return judge_per_cent(
        answer,
        right.sum() / added.sum(),
        "Each wrong one among them gets a mask, and what is cut out with it carries a class that is not there.",
        [
            (right.sum(), "This is a number of classes. Which share of those that were added is it?"),
            (added.sum(), "This is how many were added. Which share of them is right?"),
            ((labels & true).sum() / labels.sum(), "What was known before is among yours, and right. Leave it out."),
            (right.sum() / hidden.sum(), "This is the recall: of the hidden classes, those that were added."),
            (right.sum() / true.sum(), "You divide by all that is there. Divide by what was added."),
            ((labels & true).sum() / true.sum(), "This is a recall: of what is there, the share that has a name now."),
            (right.sum() / labels.sum(), "You divide by all pseudo-labels. Divide by those that were added."),
            (1 - right.sum() / added.sum(), "These are wrong. Asked are those that are right."),
            (added.sum() / labels.sum(), "This is the share of the pseudo-labels that was added, right or wrong."),
            (mean(labels == true), "This counts absences as well. Look only at what was added."),
            (mean((added & true).any(dim=1)), "This counts scenes. Count classes, all that were added to a scene."),
            (
                (right.sum(dim=0) / added.sum(dim=0)).nanmean(),
                "This is a mean over the classes. Count what was added of all of them first, then divide.",
            ),
            (
                (right.sum(dim=1) / added.sum(dim=1)).nanmean(),
                "This is a mean over the scenes. Count what was added to all of them first, then divide.",
            ),
        ],
        otherwise="Added is what the pseudo-labels have and `observed` has not. How much of it is in `true`?",
    )


def _places(scores: pd.DataFrame, ties: str = "average") -> pd.Series:
    """AdaGC's rank in each row."""
    return scores.rank(axis=1, ascending=False, method=ties)["adagc"]


def _moved(scores: Tensor, memory: float, stored: Tensor | float = 0.0) -> Tensor:
    """What is stored after these scores (T,)."""
    for score in scores:
        stored = memory * stored + (1 - memory) * score
    return torch.as_tensor(stored)


def _agreed(both: pd.DataFrame) -> float:
    return (both["label_first"] == both["label_second"]).mean()


def _by_chance(both: pd.DataFrame, names: set[str] | None = None) -> float:
    """How often two who draw labels with the shares of these rows agree; with names, on one of these."""
    ours, theirs = (both[column].value_counts(normalize=True) for column in ("label_first", "label_second"))
    products = ours.mul(theirs, fill_value=0)
    return products.sum() if names is None else products[products.index.isin(names)].sum()


def _kappa(observed: float, by_chance: float) -> float:
    return (observed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


def _split(names: str) -> list[str]:
    return names.split(annotations.SEPARATOR) if names else []


def _largest(values: Tensor, classes: Sequence[str]) -> list[str]:
    """The names of the classes with the largest value, all of them where several have it; NaN is none."""
    values = values.nan_to_num(nan=-torch.inf)
    return [name for name, most in zip(classes, (values >= values.max() - 1e-6).tolist(), strict=True) if most]


@reading
def _as_name_of_class(answer: Any) -> str:
    if isinstance(answer, Real | Tensor | np.ndarray) and not isinstance(answer, bool):
        raise NotAnAnswerError("Asked is a name. `data.classes` has one for the number of each class.")
    return as_name(answer)
