"""Exercises on noisy maps and what a segmentation is worth: kept classes, enhanced confidences, accuracies, masks."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rsbook import metrics, selection
from rsbook.exercises.answers import exercise, judge_per_cent, judge_tensor, mean, say_hint
from rsbook.figures import Html


@exercise("a tensor with one number a class")
def check_kept_pixels(answer: Any, clean: Tensor, noisy: Tensor, num_classes: int) -> Html:
    """Of each class's pixels, the share that keeps it, in per cent (cromss/2_data)."""
    confusion = metrics.confusion_matrix(noisy, clean, num_classes).double()
    right, true, named = confusion.diagonal(), confusion.sum(dim=1), confusion.sum(dim=0)
    return judge_tensor(
        answer,
        100 * right / true,
        "These are the recalls of the noisy map, and their mean is its average accuracy.",
        [
            (right / true, "This is a fraction of 1. The exercise asks for per cent."),
            (
                100 * right / named,
                "Divide by the class's pixels in the clean map, not by those in the noisy one.",
            ),
            (100 * right / true.sum(), "Divide by the class's own pixels, not by all pixels."),
            (100 * named / true, "This counts all pixels with the class's name. Count those that had it before."),
            (right, "These are numbers of pixels. Which share of the class's pixels are they?"),
            (100 - 100 * right / true, "These pixels were lost. Asked are those that keep their class."),
            (100 * right.sum() / true.sum(), "This is the share of all pixels. Asked is one number a class."),
        ],
        otherwise="For class c, look only at the pixels where `clean == c`: how many of them have `noisy == c`?",
    )


@exercise("a tensor of the same shape as `first`")
def check_enhanced(answer: Any, first: Tensor, second: Tensor) -> Html:
    """The confidence of the first modality, enhanced by the second, eq. 2 (cromss/3_method)."""
    product = first * second
    return judge_tensor(
        answer,
        selection.enhance(first, second),
        "Where both are sure the first keeps all of its confidence, and where it stands alone it keeps half.",
        [
            (selection.enhance(second, first), "This is the second modality's, enhanced by the first."),
            ((first + second) / 2, "This is the mean of both. The second modality enters through a product."),
            (product, "Half of it is this product. The other half is the first modality's own confidence."),
            (first + product, "This may exceed 1. Equation 2 takes half of the sum."),
        ],
        otherwise="Equation 2: half of the sum of F and of F times the other modality's F.",
    )


@exercise("a number, in per cent")
def check_average_accuracy(answer: Any, confusion: Tensor) -> Html:
    """The average accuracy of a confusion matrix, in per cent (cromss/4_transfer)."""
    found, pixels = metrics.accuracies(confusion), confusion.double()
    recall, precision = (pixels.diagonal() / pixels.sum(dim=d).clamp(min=1) for d in (1, 0))
    return judge_per_cent(
        answer,
        found["aa"],
        "A rare class counts as much as a common one in it, which is why it lies below the overall accuracy here.",
        [
            (found["oa"], "This is the overall accuracy: the trace over the sum. Average over the classes instead."),
            (found["miou"], "This is the mean IoU. Divide by the pixels of the class alone."),
            (found["f1"], "This is the mean F1, to which precision belongs as well. Average the recalls alone."),
            (mean(precision), "These are shares of what was predicted (columns). Recall has the map below the line."),
            (recall.sum(), "This is the sum of the recalls. Take their mean."),
        ],
        otherwise="The recall of a class is its entry on the diagonal over the sum of its row. Average the recalls.",
    )


@exercise("a number, in per cent")
def check_precision(answer: Any, weights: Tensor, wrong: Tensor) -> Html:
    """Of the pixels with a weight below 1, the share that is wrong, in per cent (cromss/5_noise_rates)."""
    low = weights < 1
    caught = (low & wrong).sum().double()
    if not low.any():
        return say_hint("No pixel has a weight below 1 here, so there is no precision to find.")
    return judge_per_cent(
        answer,
        caught / low.sum(),
        "When half of all pixels are held back and fewer than half are wrong, it cannot come near 100 %.",
        [
            (caught / wrong.sum(), "This is the recall: of the wrong pixels, those with a weight below 1."),
            (caught / low.numel(), "Divide by the pixels with a weight below 1, not by all pixels."),
            (caught, "This is a number of pixels. Which share of those with a weight below 1 is it?"),
            (mean(wrong), "This is the share of wrong pixels among all. Look only at those with a weight below 1."),
            (mean(low), "This is the share of pixels with a weight below 1, right or wrong."),
            ((low & ~wrong).sum() / low.sum(), "These are the right ones among them. Asked are the wrong ones."),
            (mean(wrong[~low]), "These have their full weight. Asked are those below 1."),
        ],
        otherwise="Choose the pixels with `weights < 1`, and average `wrong` over them.",
    )
