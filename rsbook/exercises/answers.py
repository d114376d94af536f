"""An answer to an exercise held against what is right: a number, a share, a tensor; and what to say to it.

An answer may be anything whatever: nothing here raises for it in the end, executes it or repeats it. What it is held
against comes from the page, and is no fault of the reader: errors there are raised.
"""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from rsbook.figures import Html

Mistakes = Iterable[tuple[Any, str]]  # what somebody answers who makes a mistake, and what to tell them

ROUNDED = 0.05  # per cent and points may be given with one decimal

FRACTION = "This is a fraction of 1. The exercise asks for per cent."
IMAGINED = "That is no number to compare with (infinite or not a number). Is there a division by zero in your line?"


class NotAnAnswerError(Exception):
    """The answer is not of the kind that was asked for; the message is the hint, without one what was wanted is."""


def exercise(wanted: str) -> Callable[[Callable[..., Html]], Callable[..., Html]]:
    """Say what to do while the answer is still `...`, and give a hint where a check could not read the answer."""

    def decorate(check: Callable[..., Html]) -> Callable[..., Html]:
        @functools.wraps(check)
        def checked(answer: Any, *context: Any) -> Html:
            if answer is ...:
                return _say("open", "Not answered yet.", f"Replace the three dots by {wanted}, and run the cell.")
            try:
                return check(answer, *context)
            except NotAnAnswerError as error:
                return say_hint(str(error) or f"This answer cannot be compared. Expected is {wanted}.")

        return checked

    return decorate


def reading(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Take whatever an answer may do when it is looked at for an answer that cannot be compared."""

    @functools.wraps(read)
    def safely(answer: Any) -> Any:
        try:
            return read(answer)
        except NotAnAnswerError:
            raise
        except Exception:
            raise NotAnAnswerError from None

    return safely


def judge_number(
    answer: Any, expected: Any, why: str, mistakes: Mistakes, *, otherwise: str, tolerance: float = ROUNDED
) -> Html:
    """Right within the tolerance; else the hint of the first mistake that gives this number; else the general one."""
    given, expected = _as_number(answer), float(expected)
    if abs(given - expected) <= tolerance:
        return say_right(why)
    for value, said in mistakes:
        if abs(given - float(value)) <= tolerance:
            return say_hint(said)
    return say_hint(f"Not this: it is too {'large' if given > expected else 'small'}. {otherwise}")


def judge_per_cent(answer: Any, expected: Any, why: str, mistakes: Mistakes, *, otherwise: str) -> Html:
    """A share, to be given in per cent; expected and mistakes are fractions of 1.

    Counts may stand among the mistakes: what is compared with the answer as it is as well as a hundredfold.
    """
    given, expected, mistakes = _as_number(answer), float(expected), [(float(value), said) for value, said in mistakes]
    if abs(given - 100 * expected) > ROUNDED:
        for value, said in [(expected, FRACTION), *mistakes]:
            if abs(given - value) <= ROUNDED / 100:
                return say_hint(said if said == FRACTION or value > 1 else f"{said} {FRACTION}")
    return judge_number(
        given, 100 * expected, why, [(100 * value, said) for value, said in mistakes], otherwise=otherwise
    )


def judge_count(answer: Any, expected: Any, why: str, mistakes: Mistakes, *, of: int, otherwise: str) -> Html:
    """A whole number, of so many."""
    given, expected = _as_number(answer), int(expected)
    if abs(given - 100 * expected / of) <= ROUNDED and given != expected:
        mistakes = [*mistakes, (given, "This is the share in per cent. Asked is the number.")]
    if abs(given - expected / of) <= ROUNDED / 100 and given != expected:
        mistakes = [*mistakes, (given, "This is a share. Asked is the number.")]
    return judge_number(given, expected, why, mistakes, otherwise=otherwise, tolerance=1e-6)


def judge_tensor(answer: Any, expected: Tensor, why: str, mistakes: Mistakes, *, otherwise: str) -> Html:
    """Right when all entries are; else the hint of the first mistake that gives these entries; else one on the shape,
    or how many are wrong.
    """
    given, expected = _as_tensor(answer), expected.detach().cpu().double()
    if _equal(given, expected):
        return say_right(why)
    for value, said in mistakes:
        if _equal(given, value.detach().cpu().double()):
            return say_hint(said)
    if given.shape != expected.shape:
        return say_hint(f"The shape is {tuple(given.shape)}, expected is {tuple(expected.shape)}. {otherwise}")
    if not given.isfinite().all():
        return say_hint("Some entries are infinite or not a number. Is there a division by zero in your line?")
    wrong = int(((given - expected).abs() > 1e-3).sum())
    return say_hint(f"{wrong} of {given.numel()} entries are wrong. {otherwise}")


def _equal(given: Tensor, expected: Tensor) -> bool:
    return given.shape == expected.shape and torch.allclose(given, expected, rtol=0, atol=1e-3, equal_nan=True)


@reading
def as_name(answer: Any) -> str:
    """The answer, if it is a name.

    Raises NotAnAnswerError when it is none.
    """
    if not isinstance(answer, str):
        raise NotAnAnswerError("Asked is a name, in quotes or computed.")
    return "".join(answer)


@reading
def _as_number(answer: Any) -> float:
    if isinstance(answer, Tensor | np.ndarray | pd.Series) and math.prod(answer.shape) == 1:
        answer = answer.item()
    if isinstance(answer, Tensor | np.ndarray | pd.Series | pd.DataFrame):
        shape = tuple(answer.shape)
        raise NotAnAnswerError(f"Asked is a single number, and this has shape {shape}. Sum or average what is left.")
    if isinstance(answer, bool | np.bool_):
        raise NotAnAnswerError("This is true or false. Asked is a number.")
    if isinstance(answer, str):
        raise NotAnAnswerError("This is text. Asked is a number, without quotes.")
    if not isinstance(answer, Real):
        raise NotAnAnswerError(f"This is of type {type(answer).__name__}. Asked is a number.")
    given = float(answer)
    if not math.isfinite(given):
        raise NotAnAnswerError(IMAGINED)
    return given


@reading
def _as_tensor(answer: Any) -> Tensor:
    if isinstance(answer, pd.Series | pd.DataFrame):
        answer = answer.to_numpy()
    if isinstance(answer, Tensor):
        return torch.from_numpy(np.array(answer.detach().cpu().double().numpy()))  # of no class but Tensor
    if isinstance(answer, bool | str | bytes) or not isinstance(answer, np.ndarray | list | tuple | Real):
        raise NotAnAnswerError(f"This is of type {type(answer).__name__}. Asked is a tensor.")
    try:
        return torch.as_tensor(np.asarray(answer)).double()
    except (TypeError, ValueError):
        raise NotAnAnswerError("This is not made of numbers. Asked is a tensor of numbers.") from None


def mean(values: Tensor) -> float:
    """The mean of numbers, or the share of what is true."""
    return values.double().mean().item()


def say_right(why: str) -> Html:
    """Say that the answer is right, and why it matters."""
    return _say("right", "Right.", why)


def say_hint(text: str) -> Html:
    """Say that the answer is not right yet, and what may help."""
    return _say("hint", "Not yet.", text)


def _say(state: str, word: str, text: str) -> Html:
    shown = f"<strong>{word}</strong> {html.escape(text, quote=False)}"
    return Html(f'<p class="rsbook-check rsbook-check-{state}">{shown}</p>', text=f"{word} {text}")
