"""The code exercises of the book: each check says that an answer is right, or gives a hint that fits the mistake.

A hint never tells the solution. What is right is computed from the page's own data, and so is what comes out of each
typical mistake. A check takes any answer whatever and raises nothing.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rsbook import metrics, noise
from rsbook.answers import (
    NotAnAnswerError,
    exercise,
    judge_count,
    judge_number,
    judge_per_cent,
    judge_tensor,
    say_hint,
    say_right,
)
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


@exercise("a number of points")
def check_spread_of_gain(answer: Any, scores: pd.DataFrame) -> Html:
    """Standard deviation of the gain of label propagation, seed by seed, in points (5a_reliable_maps)."""
    if not {"cutmix", "cutmix_lp_map"} <= set(scores) or len(scores) < 2:
        return say_hint(
            "This page was run with one seed or without one of the two methods: there is no spread to find."
        )
    ours, plain = 100 * scores["cutmix_lp_map"], 100 * scores["cutmix"]
    gain = ours - plain
    return judge_number(
        answer,
        gain.std(),
        "The yardstick for a gain is the spread of the gain, since both methods share what a seed brings.",
        [
            (gain.std() / 100, "Scores lie between 0 and 1 here. A point is a hundredth."),
            (gain.mean(), "This is the mean gain. How much does it vary from seed to seed?"),
            (gain.std(ddof=0), "This divides by n. From a sample one divides by n − 1, as pandas does."),
            (math.hypot(ours.std(), plain.std()), "This treats the runs as unrelated. Pair them: one gain a seed."),
            (ours.std(), "This is the spread of one method. Take the difference first, seed by seed."),
            (plain.std(), "This is the spread of plain CutMix. Take the difference first, seed by seed."),
            (abs(ours.std() - plain.std()), "A difference of two spreads is not the spread of a difference."),
            (
                gain.std() / len(gain) ** 0.5,
                "This is the standard error of the mean. Asked is the spread of the gains.",
            ),
        ],
        tolerance=0.005,
        otherwise="Subtract one column of `scores` from the other, and look at how these differences vary.",
    )


@exercise("a number, in per cent")
def check_changed_pixels(answer: Any, before: Tensor, after: Tensor) -> Html:
    """Share of the pixels that another class has taken, in per cent (5b_mask_shift)."""
    changed = before != after
    return judge_per_cent(
        answer,
        _mean(changed),
        "Set it beside the labels lost in the table above: many more pixels change than labels.",
        [
            (_mean(~changed), "These pixels stayed as they were. Asked are those that changed."),
            (_mean(changed.flatten(1).any(dim=1)), "This counts maps with a change. Count pixels."),
            (changed.sum(), "This is a number of pixels. Which share of all pixels is it?"),
            (
                changed.sum() / max(int(changed.any(dim=0).sum()), 1),
                "Divide by all pixels of all maps, not by the places where some map changed.",
            ),
        ],
        otherwise="Compare the two tensors pixel by pixel, and average over all of them.",
    )


@exercise("a tensor with one number a class")
def check_lost_labels(answer: Any, before: Tensor, after: Tensor) -> Html:
    """How many scenes lose each class from their label (5b_dilation_erosion)."""
    lost, gained = before & ~after, after & ~before
    return judge_tensor(
        answer,
        lost.sum(dim=0),
        "What counts for a network is which classes lose labels, and not how many pixels moved.",
        [
            (gained.sum(dim=0), "These labels were gained. A lost one was there before and is not there after."),
            ((before != after).sum(dim=0), "This counts changes both ways, lost and gained."),
            (before.sum(dim=0) - after.sum(dim=0), "Gains hide losses in this difference. Count the losses alone."),
            (100 * lost.sum(dim=0) / before.sum(dim=0), "This is a share. Asked is a number of scenes."),
            (lost.float().mean(dim=0), "This is a share. Asked is a number of scenes."),
            (
                lost.sum(dim=1),
                "This counts classes in each scene. Count scenes for each class: sum over the other one.",
            ),
            (lost.sum(), "This is the total. Asked is one number a class."),
        ],
        otherwise="An entry of `before` is true where the clean map gives the label. Which entries are no longer true?",
    )


@exercise("maps of the same shape as before")
def check_rectified(answer: Any, maps: Tensor, factor: int) -> Html:
    """Maps sampled down by a factor, the middle pixel of each block, and up again (5b_rectify_borders)."""
    num_classes = int(maps.max()) + 1
    expected, first, last = maps, maps, maps
    if factor > 1:
        options = {"fraction": 1.0, "intensity": factor, "num_classes": num_classes, "background": -1}
        expected = noise.simulate("rectify_borders", maps, generator=torch.Generator().manual_seed(0), **options)
        first, last = (_enlarged(maps[:, at::factor, at::factor], factor) for at in (0, factor - 1))
    return judge_tensor(
        answer,
        expected,
        "You have written one of the six kinds of noise, exactly as the pages use it.",
        [
            (first, "Each block shows its first pixel, which moves the map. Take the one in the middle."),
            (last, "Each block shows its last pixel, which moves the map. Take the one in the middle."),
            (maps, "Nothing has changed: these are the clean maps."),
            (maps[:, factor // 2 :: factor, factor // 2 :: factor], "Now bring the small maps back to their old size."),
            (expected.mT, "Rows and columns have changed places."),
        ],
        otherwise=f"Take every {factor}th row and column, beginning in the middle of the first block, and repeat each.",
    )


@exercise("a number, in per cent")
def check_border_growth(answer: Any, before: Tensor, after: Tensor) -> Html:
    """By how many per cent the borders within rows grow: neighbours of different class, maps (B,H,W)
    (5b_border_deformation).
    """
    old, new = (int((m[:, :, 1:] != m[:, :, :-1]).sum()) for m in (before, after))
    tall_old, tall_new = (int((m[:, 1:] != m[:, :-1]).sum()) for m in (before, after))
    if not old:
        return say_hint("The clean maps have no borders, so nothing can be said of their growth.")
    return judge_per_cent(
        answer,
        new / old - 1,
        "Frayed borders are longer: few pixels change, and those that do lie where two classes meet.",
        [
            (new / old, "This is the new length as a share of the old one. By how much did it grow?"),
            (new - old, "This is a number of pairs. Set it in proportion to the old number."),
            (1 - new / old, "The sign is the wrong way round: growth is positive."),
            ((new - old) / new, "Growth is measured against the old length, not against the new one."),
            (
                tall_new / max(tall_old, 1) - 1,
                "This compares each pixel with the one below. Compare with the one to the right: the last dimension.",
            ),
        ],
        otherwise="Compare all columns but the first with all but the last, and count where they differ, in both.",
    )


@exercise("a number, in per cent")
def check_kept_labels(answer: Any, clean: Tensor, noisy: Tensor, before: Tensor, after: Tensor) -> Html:
    """Of the maps (n,H,W) that changed, the share whose labels (n,L) stayed the same, in per cent (5b_segment_swap)."""
    changed = (clean != noisy).flatten(1).any(dim=1)
    same = (before == after).all(dim=1)
    if not changed.any():
        return say_hint("No map has changed here, so there is no share to find.")
    return judge_per_cent(
        answer,
        _mean(same[changed]),
        "This noise is hard to find by looking at labels: it changes where a class is, not whether it is there.",
        [
            (_mean(same), "This is the share of all maps. Look at the maps that changed only."),
            (_mean(changed & same), "You divide by all maps. Divide by the number of maps that changed."),
            (1 - _mean(same[changed]), "These labels changed. Asked are those that stayed."),
            (
                _mean((before == after)[changed]),
                "This counts single classes. A label is the same when all classes are.",
            ),
            (_mean(before == after), "This counts single classes, and all maps. Count labels, of maps that changed."),
            (_mean(changed), "This is the share of maps that changed. How many of these have the label they had?"),
        ],
        otherwise="First find the maps in which some pixel differs. Then ask of these whether all classes agree.",
    )


@exercise("a number, in per cent")
def check_changed_scenes(answer: Any, before: Tensor, after: Tensor) -> Html:
    """Share of the scenes whose multi-label (n,L) is another one, in per cent (5b_class_swap)."""
    differ = before != after
    return judge_per_cent(
        answer,
        _mean(differ.any(dim=1)),
        "Far more scenes are wrong than segments: one segment of several is enough to make a label wrong.",
        [
            (_mean(differ), "This is the share of wrong entries. A scene is wrong as soon as one entry is."),
            (_mean(~differ.any(dim=1)), "These labels are still right. Asked are the others."),
            (_mean(differ.all(dim=1)), "This asks for every class to be wrong. One is enough."),
            (_mean((before & ~after).any(dim=1)), "These lost a class. Others gained one, and are wrong as well."),
            (_mean((after & ~before).any(dim=1)), "These gained a class. Others lost one, and are wrong as well."),
            (differ.any(dim=1).sum(), "This is a number of scenes. Asked is the share, in per cent."),
            (differ.sum() / before.sum(), "This counts wrong entries for each label. Count scenes."),
        ],
        otherwise="A scene counts once, when its two labels differ in any class.",
    )


@exercise("the name of a kind of noise, in quotes")
def check_costliest(answer: Any, cost: pd.DataFrame) -> Html:
    """Which kind of noise that leaves the labels alone costs most mAP micro (5b_summary)."""
    if not isinstance(answer, str):
        raise NotAnAnswerError("Asked is a name, as in the index of `cost`, in quotes or computed.")
    macro, micro = (cost.drop("class_swap")[column] for column in ("map_macro", "map_micro"))
    names = ", ".join(cost.index)
    if answer == micro.idxmax():
        return say_right("Costs this small deserve a look at their spread before anybody builds a theory on them.")
    if answer not in cost.index:
        return say_hint(f"There is no such kind. The kinds are {names}.")
    if answer == "class_swap":
        return say_hint("This kind changes the multi-labels too. Leave it out, and look again.")
    if answer == micro.idxmin():
        return say_hint("This kind costs least. A positive cost is a loss, so look for the largest.")
    if answer == macro.idxmax():
        return say_hint("This kind costs most in mAP macro. The exercise asks for micro.")
    return say_hint("Another kind costs more. Look at the column of mAP micro, and leave class swap out.")


@exercise("a number, in per cent")
def check_iou(answer: Any, ours: Tensor, theirs: Tensor) -> Html:
    """Intersection over union of two masks (n,H,W) of a class, over all scenes together, in per cent
    (5c_thematic_product).
    """
    both, either = (ours & theirs).sum(), (ours | theirs).sum()
    if not either:
        return say_hint("Neither map shows this class anywhere, so it has no IoU.")
    single = (ours & theirs).flatten(1).sum(dim=1) / (ours | theirs).flatten(1).sum(dim=1)
    return judge_per_cent(
        answer,
        both / either,
        "It is the row of this class in the table above.",
        [
            (both / theirs.sum(), "This is the share of the reference map that was found. What is named wrongly, too?"),
            (both / ours.sum(), "This is the share of the named pixels that is right. What was missed, too?"),
            (2 * both / (ours.sum() + theirs.sum()), "This is the Dice score (F1). IoU divides by the union."),
            (both / (ours.sum() + theirs.sum()), "The pixels that both name are counted twice in your union."),
            (_mean(ours == theirs), "This counts pixels that neither names as agreement. IoU leaves them out."),
            (_mean(ours & theirs), "You divide by all pixels. Divide by those that at least one of the two names."),
            (single.nanmean(), "This is a mean over scenes. Count the pixels of all scenes first, then divide."),
        ],
        otherwise="Count the pixels that both name, and those that at least one of them names.",
    )


@exercise("a number, in per cent")
def check_overlap(answer: Any, masks: Tensor) -> Html:
    """Share of the pixels that lie in the masks (n,L,H,W) of several classes, in per cent (5d_explanation_masks)."""
    layers = masks.sum(dim=1)
    return judge_per_cent(
        answer,
        _mean(layers > 1),
        "A reference map has none of these pixels. They are why labels from masks name a class too many now and then.",
        [
            (_mean(layers >= 1), "This counts pixels with at least one class. Several means more than one."),
            (_mean(layers == 0), "These pixels have no class at all."),
            (_mean(layers == 1), "These pixels have exactly one class. Asked are those with several."),
            (_mean(layers == 2), "Pixels with three classes or more belong to it as well."),
            (_mean(layers > 2), "Two classes are several: is it “more than two” that you want?"),
            (layers.float().mean(), "This is the mean number of classes of a pixel. Asked is a share of pixels."),
            ((layers > 1).sum(), "This is a number of pixels. Asked is the share, in per cent."),
            (_mean(masks), "This averages over the classes. First count the classes of each pixel."),
            (
                (layers > 1).sum() / (layers >= 1).sum().clamp(min=1),
                "You divide by the pixels with a class. Divide by all pixels.",
            ),
        ],
        otherwise="Sum the masks over the dimension of the classes. What does the sum say about a pixel?",
    )


@exercise("a number, in per cent")
def check_blind_network(answer: Any, share: Tensor, labels: Tensor) -> Html:
    """mAP micro in per cent of a network that gives every scene the same scores (5d_pretraining_quality)."""
    scores = share.expand(labels.shape).contiguous()
    own = labels.float().mean(dim=0)
    return judge_per_cent(
        answer,
        metrics.map_micro(scores, labels),
        "Without a look at any image. Keep it in mind when a micro score looks high.",
        [
            (metrics.map_macro(scores, labels), "This is mAP macro, or the mean share. Rank all pairs in one list."),
            (own.mean(), "This is the share of all pairs that are positive: scores drawn by chance. These are not."),
            (
                metrics.map_micro(own.expand(labels.shape).contiguous(), labels),
                "These are the shares of the test scenes, which no network may know. Use `share`.",
            ),
            ((share @ own) / share.sum(), "This weighs the classes. mAP micro ranks pairs: `metrics` has it."),
        ],
        otherwise="Give every test scene the scores `share`, so that they have the shape of `labels`, and score them.",
    )


@exercise("a number, in per cent")
def check_small_crops(answer: Any, area: Tensor, ratio: Tensor) -> Html:
    """Share of the crops that fit and cover less than half of the scene, in per cent (5e_other_augmentations)."""
    wide, tall, small = area * ratio <= 1, area / ratio <= 1, area < 0.5
    fits = wide & tall
    return judge_per_cent(
        answer,
        _mean(small[fits]),
        "Refusing what does not fit makes small crops more frequent than the uniform draw suggests.",
        [
            (_mean(small), "This is the share of all that were drawn. What does not fit is drawn again: leave it out."),
            (1 - _mean(small[fits]), "These crops are larger than half of the scene."),
            (_mean(small[wide]), "Width and height must both fit."),
            (_mean(small[tall]), "Height and width must both fit."),
            (_mean(fits), "This is the share of crops that fit. How many of these are smaller than half?"),
            (_mean(fits & ~small), "These fit and are large."),
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


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    return maps.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def _mean(values: Tensor) -> float:
    return values.double().mean().item()
