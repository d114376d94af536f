"""Exercises on maps and masks: what noise changes in them and in their labels, and how well two of them agree."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rsbook import noise
from rsbook.exercises.answers import exercise, judge_per_cent, judge_tensor, mean, say_hint
from rsbook.figures import Html


@exercise("a number, in per cent")
def check_changed_pixels(answer: Any, before: Tensor, after: Tensor) -> Html:
    """Share of the pixels that another class has taken, in per cent (5b_mask_shift)."""
    changed = before != after
    return judge_per_cent(
        answer,
        mean(changed),
        "Set it beside the labels lost in the table above: many more pixels change than labels.",
        [
            (mean(~changed), "These pixels stayed as they were. Asked are those that changed."),
            (mean(changed.flatten(1).any(dim=1)), "This counts maps with a change. Count pixels."),
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
        mean(same[changed]),
        "This noise is hard to find by looking at labels: it changes where a class is, not whether it is there.",
        [
            (mean(same), "This is the share of all maps. Look at the maps that changed only."),
            (mean(changed & same), "You divide by all maps. Divide by the number of maps that changed."),
            (1 - mean(same[changed]), "These labels changed. Asked are those that stayed."),
            (
                mean((before == after)[changed]),
                "This counts single classes. A label is the same when all classes are.",
            ),
            (mean(before == after), "This counts single classes, and all maps. Count labels, of maps that changed."),
            (mean(changed), "This is the share of maps that changed. How many of these have the label they had?"),
        ],
        otherwise="First find the maps in which some pixel differs. Then ask of these whether all classes agree.",
    )


@exercise("a number, in per cent")
def check_changed_scenes(answer: Any, before: Tensor, after: Tensor) -> Html:
    """Share of the scenes whose multi-label (n,L) is another one, in per cent (5b_class_swap)."""
    differ = before != after
    return judge_per_cent(
        answer,
        mean(differ.any(dim=1)),
        "Far more scenes are wrong than segments: one segment of several is enough to make a label wrong.",
        [
            (mean(differ), "This is the share of wrong entries. A scene is wrong as soon as one entry is."),
            (mean(~differ.any(dim=1)), "These labels are still right. Asked are the others."),
            (mean(differ.all(dim=1)), "This asks for every class to be wrong. One is enough."),
            (mean((before & ~after).any(dim=1)), "These lost a class. Others gained one, and are wrong as well."),
            (mean((after & ~before).any(dim=1)), "These gained a class. Others lost one, and are wrong as well."),
            (differ.any(dim=1).sum(), "This is a number of scenes. Asked is the share, in per cent."),
            (differ.sum() / before.sum(), "This counts wrong entries for each label. Count scenes."),
        ],
        otherwise="A scene counts once, when its two labels differ in any class.",
    )


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
            (mean(ours == theirs), "This counts pixels that neither names as agreement. IoU leaves them out."),
            (mean(ours & theirs), "You divide by all pixels. Divide by those that at least one of the two names."),
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
        mean(layers > 1),
        "A reference map has none of these pixels. They are why labels from masks name a class too many now and then.",
        [
            (mean(layers >= 1), "This counts pixels with at least one class. Several means more than one."),
            (mean(layers == 0), "These pixels have no class at all."),
            (mean(layers == 1), "These pixels have exactly one class. Asked are those with several."),
            (mean(layers == 2), "Pixels with three classes or more belong to it as well."),
            (mean(layers > 2), "Two classes are several: is it “more than two” that you want?"),
            (layers.float().mean(), "This is the mean number of classes of a pixel. Asked is a share of pixels."),
            ((layers > 1).sum(), "This is a number of pixels. Asked is the share, in per cent."),
            (mean(masks), "This averages over the classes. First count the classes of each pixel."),
            (
                (layers > 1).sum() / (layers >= 1).sum().clamp(min=1),
                "You divide by the pixels with a class. Divide by all pixels.",
            ),
        ],
        otherwise="Sum the masks over the dimension of the classes. What does the sum say about a pixel?",
    )


def _enlarged(maps: Tensor, factor: int) -> Tensor:
    return maps.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
