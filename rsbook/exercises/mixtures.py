"""Exercises on scenes and on what is mixed or cropped of them: labels, shared classes, boxes and holes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rsbook.exercises.answers import exercise, judge_count, judge_per_cent, judge_tensor, mean
from rsbook.figures import Html
from rsbook.mixing import Mixed
from rsbook.positions import AreaTables


@exercise("a number of mixtures")
def check_wrong_mixtures(answer: Any, area: Mixed, propagated: Mixed) -> Html:
    """How many mixtures have an area label that names a class that they do not hold (3_method)."""
    wrong = (area.labels > 0) & (propagated.labels == 0)
    missed = (area.labels == 0) & (propagated.labels > 0)
    return judge_count(
        answer,
        wrong.any(dim=1).sum(),
        "Each of them would teach a network that a class is there which is not.",
        [
            (wrong.sum(), "This counts wrong classes. A mixture with two of them is still one mixture."),
            (wrong.all(dim=1).sum(), "This counts mixtures in which every class is wrong. One wrong class is enough."),
            ((~wrong.any(dim=1)).sum(), "These are the mixtures without a wrong class. Which are left?"),
            (
                ((area.labels > 0) != (propagated.labels > 0)).sum(),
                "This counts entries that differ. Count mixtures, and only classes that are named and not held.",
            ),
            (missed.any(dim=1).sum(), "This is the other way round: classes that are held and not named."),
            (
                (area.labels != propagated.labels).any(dim=1).sum(),
                "This counts any difference. A weight of 0.6 for a class that is there names nothing wrong.",
            ),
        ],
        of=len(wrong),
        otherwise="Ask of each entry: is its weight by area above 0, and is it 0 when propagated?",
    )


@exercise("a tensor with a row and a column for each class")
def check_shared_scenes(answer: Any, together: Tensor) -> Html:
    """Of the scenes that hold the class of the row, the share that holds that of the column (4a_scenes)."""
    own = together.diagonal()
    return judge_tensor(
        answer,
        together / own[:, None],
        "A row reads: given this class, how likely is each other one? Frequent classes have high columns everywhere.",
        [
            (together / own, "Your columns are divided by their own counts. The scenes that are meant are the row's."),
            (together, "These are counts. Divide each row by the number of scenes that hold its class."),
            (100 * together / own[:, None], "These are per cent. The exercise asks for shares from 0 to 1."),
            (together / together.sum(dim=1, keepdim=True), "The sum of a row counts scenes several times."),
            (together / (own[:, None] * own).sqrt(), "This is symmetric, so it cannot tell the row from the column."),
        ],
        otherwise="The diagonal of `together` says how many scenes hold each class. Mind along which dimension it is "
        "spread when you divide.",
    )


@exercise("a number, in per cent")
def check_small_crops(answer: Any, area: Tensor, ratio: Tensor) -> Html:
    """Share of the crops that fit and cover less than half of the scene, in per cent (5e_other_augmentations)."""
    wide, tall, small = area * ratio <= 1, area / ratio <= 1, area < 0.5
    fits = wide & tall
    return judge_per_cent(
        answer,
        mean(small[fits]),
        "Refusing what does not fit makes small crops more frequent than the uniform draw suggests.",
        [
            (mean(small), "This is the share of all that were drawn. What does not fit is drawn again: leave it out."),
            (1 - mean(small[fits]), "These crops are larger than half of the scene."),
            (mean(small[wide]), "Width and height must both fit."),
            (mean(small[tall]), "Height and width must both fit."),
            (mean(fits), "This is the share of crops that fit. How many of these are smaller than half?"),
            (mean(fits & ~small), "These fit and are large."),
        ],
        otherwise="With the scene's side as 1, the squares of width and height are area · ratio and area / ratio. When "
        "does a crop fit?",
    )


@exercise("a tensor with a row for each scene and a column for each class")
def check_pixels_left(answer: Any, tables: AreaTables, boxes: Tensor) -> Html:
    """Pixels of each class (n,L) that a hole leaves in each scene (6_beyond_the_paper)."""
    totals, inside = tables.totals(), tables.counts(boxes)
    return judge_tensor(
        answer,
        totals - inside,
        "With eight candidate holes in place of one, this is all it takes to spare the rarest class.",
        [
            (inside, "These pixels lie in the hole and are lost. Asked are those that are left."),
            (totals, "These are the pixels before the cut."),
            (inside - totals, "The sign is the wrong way round."),
            ((totals - inside) / totals.clamp(min=1), "This is a share. Asked is a number of pixels."),
            ((totals - inside) > 0, "This says whether a class is left. Asked is how many pixels of it."),
        ],
        otherwise="What a scene holds, less what its hole takes: both are one call of `tables`.",
    )
