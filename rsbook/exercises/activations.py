"""Exercises on segmentation from labels of whole images: activation maps, blobs, clusters, walks, seeds, and masks."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.linalg import matrix_power
from torch.nn.functional import normalize

from rsbook import explain, metrics, positions, subcategories, weak_segmentation
from rsbook.exercises.answers import (
    exercise,
    judge_count,
    judge_number,
    judge_per_cent,
    judge_tensor,
    mean,
    say_hint,
)
from rsbook.figures import Html

LEGACY_STEPS = 100_000  # what the report's code hands to its schedule, however few steps follow


@exercise("a tensor with one class a pixel")
def check_segmented(answer: Any, maps: Tensor, present: Tensor, background: float) -> Html:
    """The classes (B,h,w) of activation maps (B,L,h,w) in scenes where classes (B,L) bool are present; L is background
    (weak_segmentation/2_cam).
    """
    maps = maps.detach()  # of the type that the answer is computed in: its ties are these
    scores, positive, last = weak_segmentation.normalised(maps, present), maps.relu(), maps.shape[1]
    expected = weak_segmentation.segment(scores, present, background)
    highest, absent = positive.amax(dim=(2, 3), keepdim=True), ~present[:, :, None, None]

    def named(values: Tensor, level: float = background, every: bool = False) -> Tensor:
        best, classes = (values if every else values.masked_fill(absent, -torch.inf)).max(dim=1)
        return classes.where(best > level, last)

    scaled, alone = positive / (highest + weak_segmentation.SMALLEST), named(scores, -torch.inf)
    above = (positive > background) & ~absent
    hints = (
        "Maps of different heights are compared as they are. Divide each by its own maximum first.",
        "Classes that the scene does not have are among yours. Leave them out.",
        "Background is missing: it wins where no map is above the threshold.",
    )
    slips = [slip for slip in itertools.product((False, True), repeat=3) if any(slip)]  # each alone, and together
    shared = "Several maps are divided by one maximum. Each map, of one class in one scene, has its own."
    early = "You cut before the maps are divided by their maxima. The threshold is for maps from 0 to 1."
    zero = "A map that is zero everywhere is divided by zero here. Add 1e-5 to each maximum."
    return judge_tensor(
        answer,
        expected,
        "The label does much of the work: it rules out all classes that the network might see and that are not there.",
        [
            *(
                (
                    named(positive if raw else scaled, -torch.inf if bare else background, every),
                    " ".join(itertools.compress(hints, (raw, every, bare))),
                )
                for raw, every, bare in slips
            ),
            *((named(positive / highest.amax(dim=over, keepdim=True)), shared) for over in (1, 0, (0, 1))),
            (
                named(positive / positive.sum(dim=(2, 3), keepdim=True)),
                "You divide by the sum, as the concentration loss does. Here each map is divided by its maximum.",
            ),
            (alone.where(above.any(dim=1), last), early),
            (named(scaled * above, 0.0), early),
            *((named(positive / highest * ~absent, every=every), zero) for every in (False, True)),
            ((expected + 1) % (last + 1), "Your background is 0. Here classes begin with 0, and it has the number L."),
            (expected.where(expected < last, -1), "Your background is −1. Here it has the number after all classes."),
            (alone.where(expected == last, last), "It is the wrong way round: background is where no map is high."),
            (scores, "These are the scores of the classes. Which class has the highest?"),
            (scores.amax(dim=1), "These are the highest scores. Which class has them?"),
        ],
        otherwise="Divide each map by its maximum plus 1e-5, and leave absent classes out. The highest class wins, or "
        "background where even that is not above the threshold.",
    )


@exercise("a mask of the same shape as `noise`")
def check_fmix_mask(answer: Any, noise: Tensor, share: float) -> Html:
    """FMix's mask (h,w) bool: the given share of all pixels, those with the highest noise (h,w)
    (weak_segmentation/3_mixing).
    """
    noise, pixels = noise.detach(), round(share * noise.numel())

    def top(values: Tensor, count: int) -> Tensor:
        return _highest(values.flatten(), count).view(noise.shape)

    expected, (low, high) = top(noise, pixels), noise.aminmax()
    height = "The share is one of pixels, not of heights. How many pixels lie above a height is left to the noise."
    lines = "Each row or column has this share. Take the highest pixels of the whole image: of all at once."
    middle = "This leaves about half of the pixels, whatever the share. Cut where the right number is left."
    return judge_tensor(
        answer,
        expected,
        "Smooth noise is high in a few places, so the mask has a few blobs, and exactly the area that labels count.",
        [
            (~expected, "True and false have changed places. True is where the noise is highest."),
            (top(-noise, pixels), "These are the lowest pixels. Take the highest."),
            (
                top(noise, noise.numel() - pixels),
                "You cut at the quantile of λ, above which 1 − λ of the pixels lie. Cut where λ of them lie above.",
            ),
            (top(noise, pixels + 1), "There is one pixel too many. Is there a ≥ where > belongs?"),
            (top(noise, pixels - 1), "One pixel is missing. Is there a > where ≥ belongs?"),
            *((noise > level, height) for level in (low + share * (high - low), high - share * (high - low))),
            *((noise > level, height) for level in (share, 1 - share, share * high)),
            *((noise > level, middle) for level in (0, noise.mean(), noise.median())),
            (_highest(noise, round(share * noise.shape[1])), lines),
            (_highest(noise.T, round(share * noise.shape[0])).T, lines),
            (noise * expected, "These are heights. Asked is true or false for each pixel."),
        ],
        otherwise="How many pixels are this share of all? Find the height that just so many of them reach.",
    )


@exercise("a number of clusters")
def check_first_neighbours(answer: Any, features: Tensor) -> Html:
    """How many clusters the first partition of FINCH has, of features (n,D) (weak_segmentation/3_subcategories)."""
    features, n = features.detach().double(), len(features)
    if n < 2:
        return say_hint("There are not two scenes here, so there is no neighbour.")
    directions = normalize(features, dim=1)
    cosines = directions @ directions.T
    first, itself = _nearest(cosines), torch.arange(n)
    partitions = subcategories.finch(features)
    expected = int(partitions[0].max()) + 1 if partitions else 1
    mutual = int((first[first] == itself).sum())
    return judge_count(
        answer,
        expected,
        "Nobody chose this number. Each cluster has grown around one pair whose members are each other's neighbour.",
        [
            (
                _clusters(_nearest(-torch.cdist(features, features))),
                "Your neighbours are those at the smallest distance. Here they are those with the largest cosine.",
            ),
            (
                _clusters(_nearest(features @ features.T)),
                "Long features are near to all in yours: a cosine is the product of features of length 1.",
            ),
            (n, "Every point is alone: is each its own first neighbour? Leave the diagonal out."),
            (
                n - mutual // 2,
                "You join those alone that choose each other. One choice is enough, whichever of the two has made it.",
            ),
            (mutual, "So many points choose each other. They do so in pairs, and each pair is in one cluster."),
            (len(first.unique()), "So many are somebody's first neighbour. What is linked is one cluster."),
            (int(partitions[-1].max()) + 1 if partitions else 1, "This is the last partition. Asked is the first."),
            (len(partitions), "This is the number of partitions. How many clusters has the first of them?"),
            (_clusters(_nearest(-cosines)), "You link each to what is least alike. Take the largest cosine."),
        ],
        of=n,
        otherwise="Find, of each row of the cosines without the diagonal, the largest. Link each point to it; what is "
        "linked, directly or through others, is one cluster.",
    )


@exercise("a number, in per cent")
def check_mean_iou(answer: Any, confusion: Tensor) -> Html:
    """The mean IoU, in per cent, of a confusion matrix (K,K), or of matrices (n,K,K), one a scene, taken together
    (weak_segmentation/4_initial_maps).
    """
    each = confusion.double().reshape(-1, *confusion.shape[-2:])
    pixels = each.sum(dim=0)
    if not pixels.sum():
        return say_hint("No pixel was counted here, so there is no IoU.")
    found, scenes = metrics.accuracies(pixels), each[each.sum(dim=(1, 2)) > 0]
    right, true, named = pixels.diagonal(), pixels.sum(dim=1), pixels.sum(dim=0)
    there, iou = true > 0, right / (true + named - right)
    hits = scenes.diagonal(dim1=1, dim2=2)
    by_scene = hits / (scenes.sum(dim=1) + scenes.sum(dim=2) - hits)
    apart = "This averages over scenes, and classes that are hardly in one count in full. Add up the matrices first."
    return judge_per_cent(
        answer,
        found["miou"],
        "A class counts by all of its pixels, wherever they are, and in the mean a rare one as much as a common one.",
        [
            (found["oa"], "This is the overall accuracy. Divide, class by class, by the union, and average."),
            (found["aa"], "This is the mean recall. What is named so by mistake belongs below the line, too."),
            (mean((right / named)[there].nan_to_num()), "This is the mean precision. What was missed counts as well."),
            (found["f1"], "This is the mean F1, or Dice score. IoU has each pixel once below the line."),
            (mean((right / (true + named))[there]), "Your union counts the pixels on the diagonal twice."),
            (right.sum() / (true + named - right).sum(), "You add up all classes first. Divide, then average."),
            ((iou * true).nansum() / true.sum(), "You weigh classes by their pixels. In the mean all count the same."),
            (iou.nansum(), "This is the sum of the IoUs. Take their mean."),
            (
                mean(iou.nan_to_num()),
                "Classes without a pixel in the maps count as zero in yours. They have no IoU: leave them out.",
            ),
            (
                iou.nanmean(),
                "A class that is named, but has no pixel in the maps, counts as zero in yours. Leave it out.",
            ),
            (mean(torch.tensor([metrics.accuracies(one)["miou"] for one in scenes])), apart),
            *((by_scene.nanmean(dim=over).nanmean(), apart) for over in (1, 0, (0, 1))),
        ],
        otherwise="Of each class: its entry on the diagonal over the sum of its row and its column, less that entry.",
    )


@exercise("a tensor of the same shape as `scores`")
def check_walk(answer: Any, affinity: Tensor, scores: Tensor, beta: float, steps: int) -> Html:
    """Scores (L,n) after steps of a walk by affinities (n,n), symmetric, to the power of beta
    (weak_segmentation/4_refinement).
    """
    affinity, scores = affinity.detach().double(), scores.detach().double()
    sharp, identity = affinity**beta, torch.eye(len(affinity), dtype=torch.float64)
    matrix = _columns(sharp)
    expected = scores @ matrix_power(matrix, steps)
    rows = "The rows of yours sum to 1, so pixels hand out what they have. Let columns do, and each takes a mean."
    return judge_tensor(
        answer,
        expected,
        "Each pixel now has a weighted mean of the scores around it, and weights across an edge are next to nothing.",
        [
            (scores @ matrix_power(matrix.T, steps), rows),
            (scores @ matrix_power(_columns(affinity), steps), "The exponent β is missing, so edges hardly count."),
            (
                scores @ matrix_power(_columns(affinity) ** beta, steps),
                "Your columns no longer sum to 1: the exponent comes first, then they are divided by their sums.",
            ),
            (scores @ matrix_power(sharp, steps), "Divide each column by its sum, or scores grow with every step."),
            (scores @ matrix_power(sharp / sharp.sum(), steps), "You divide by one sum. Each column has its own."),
            (scores @ matrix, "This is one step. Walk on."),
            (scores @ matrix_power(matrix, steps + 1), "This is one step too many."),
            (scores @ matrix_power(matrix, max(steps - 1, 0)), "This is one step too few."),
            (
                scores @ matrix**steps,
                "This is each entry to the power of the steps. Multiply matrices: a step is one product.",
            ),
            (
                scores @ matrix_power(_columns(sharp - identity), steps),
                "A pixel's affinity to itself is missing: the diagonal of `affinity` counts as well.",
            ),
            (
                scores @ matrix_power(_columns(matrix_power(affinity, round(beta))), steps),
                "The exponent β is one of each entry. You have multiplied matrices.",
            ),
            (matrix_power(matrix, steps), "This is what walks. Multiply the scores by it."),
            (expected.T, "Classes and pixels have changed places."),
            (expected.argmax(dim=0), "These are the classes that win. Asked are the scores."),
            (scores, "Nothing has moved: these are the scores before the walk."),
        ],
        otherwise="Affinities to the power of β, each column over its sum: that is T. Then the scores times T, again "
        "and again.",
    )


@exercise("a number")
def check_poly_rate(answer: Any, peak: float, step: int, steps: int, power: float) -> Html:
    """The learning rate in a step, from 0 on, of so many, by the poly schedule (weak_segmentation/4_segmentation)."""
    left = 1 - step / steps
    expected, legacy = peak * left**power, peak * (1 - step / LEGACY_STEPS) ** power
    return judge_number(
        answer,
        expected,
        "It goes nearly straight down to zero: with an exponent a little below 1, a little later than a straight line.",
        [
            (legacy, "This divides by the steps that the report's code has: so many that its rate hardly falls."),
            (peak, "This is the rate of the first step. By now it has fallen."),
            (peak * left, "This is a straight line. The exponent is missing."),
            ((peak * left) ** power, "The peak is in your power. Only what is left of the steps belongs there."),
            (peak * (1 - (step / steps) ** power), "The power is one of what is left, not of what is done."),
            (peak * (step / steps) ** power, "This rises: it is made of what is done. Take what is left of the steps."),
            (peak * left ** (1 / power), "Your exponent is upside down."),
            (peak * left * power, "You multiply by the exponent. What is left of the steps is raised to its power."),
            (left**power, "This is the share of the peak. Multiply by it."),
            (peak * (1 + math.cos(math.pi * step / steps)) / 2, "This is half a cosine. Poly is a power."),
        ],
        tolerance=0.005 * abs(expected),
        otherwise="Which share of the steps is left? Raise it to the power, and multiply by the peak.",
    )


@exercise("a number of seeds")
def check_seeds_needed(answer: Any, gap: float, deviation: float) -> Html:
    """How many seeds make a gap at least two standard errors of a mean difference whose standard deviation over the
    seeds is given, both in points (weak_segmentation/4_more_data).
    """
    if not (abs(gap) > 0 and deviation > 0):
        return say_hint("There is no gap here, or no spread of it, as of one seed: no number follows from that.")
    ratio = deviation / abs(gap)
    exact = (2 * ratio) ** 2
    mistakes = [
        (2 * ratio, "The square is missing: four times the seeds make half the error."),
        (ratio**2, "The gap is one standard error with so many. Asked are two."),
        (2 * ratio**2, "The two is outside of your square. Two errors in place of one take four times the seeds."),
        (2 * exact, "This adds up the spreads of two methods. That of their paired difference has both in it."),
        (4 * deviation**2 / abs(gap), "The gap is not squared in yours, but the deviation is."),
        (1 / exact, "It is upside down: a larger spread takes more seeds, a larger gap fewer."),
        (exact + 1, "This is more than is needed. The smallest number is asked for."),
    ]
    whole = _whole(exact)
    return judge_number(
        answer,
        whole,
        "A single seed says little about a gap that is smaller than what another seed changes.",
        [
            (exact, "There is no part of a seed. Round it up."),
            (whole - 1, "This is just too few: the gap is a little less than two errors. Round up, not down."),
            *((_whole(value), said) for value, said in mistakes),
            *mistakes,
        ],
        tolerance=0.005,
        otherwise="The standard error of the mean of n differences is their deviation over √n. For which n is twice "
        "that no more than the gap?",
    )


@exercise("a number, in per cent")
def check_mask_iou(answer: Any, masks: Tensor, reference: Tensor, labels: Tensor) -> Html:
    """The mean over classes of the IoU, in per cent, of bit masks (n,H,W) with reference bit masks, each class in the
    scenes whose label (n,L) bool holds it (weak_segmentation/6_better_positions).
    """
    count = labels.shape[1]
    ious = explain.agreement(masks, reference, labels, count)
    if ious.isnan().all():
        return say_hint("No class has a pixel in a scene whose label holds it, so there is no IoU.")
    both, either, ours, theirs = (
        positions.count(bits, count).double() for bits in (masks & reference, masks | reference, masks, reference)
    )
    inner, outer, named, true = ((pixels * labels).sum(dim=0) for pixels in (both, either, ours, theirs))
    single = (both / either).where(labels, torch.nan)
    return judge_per_cent(
        answer,
        ious.nanmean(),
        "Whether masks that fit better make better labels, too, is another question: compare the scores of both.",
        [
            (
                (both.sum(dim=0) / either.sum(dim=0)).nanmean(),
                "All scenes count in yours. Of each class, take those whose label holds it.",
            ),
            (inner.sum() / outer.sum(), "You add up all classes first. Divide class by class, then average."),
            (single.nanmean(), "This is a mean over scenes. Add up the pixels of a class in all its scenes first."),
            (single.nanmean(dim=0).nanmean(), "This averages over scenes first. Add up their pixels, then divide."),
            (mean(masks == reference), "Whole bit masks are compared here. Ask of each class by itself, bit by bit."),
            (
                ((masks & reference) != 0).sum() / ((masks | reference) != 0).sum(),
                "A pixel counts here as soon as any of its classes is right. Ask of each class by itself, bit by bit.",
            ),
            ((2 * inner / (named + true)).nanmean(), "This is the Dice score (F1). IoU divides by the union."),
            ((inner / true).nanmean(), "This is what the masks find of the reference. What is in them besides?"),
            ((inner / named).nanmean(), "This is what is right of the masks. What do they miss?"),
            ((inner / (named + true)).nanmean(), "Your union counts the pixels that are in both twice."),
            (ious.nansum(), "This is the sum over the classes. Take the mean."),
            (mean(ious.nan_to_num()), "Classes that are in no mask count as zero in yours. They have no IoU."),
        ],
        otherwise="Of class c, look at bit c of both: how many pixels have it in both, and how many in at least one?",
    )


def _highest(values: Tensor, count: int) -> Tensor:
    """Where the highest are, so many along the last dimension; of equal ones any."""
    return values.argsort(dim=-1, descending=True).argsort(dim=-1) < count


def _nearest(similar: Tensor) -> Tensor:
    """Of each row (n,n) the most similar other."""
    return similar.clone().fill_diagonal_(-torch.inf).argmax(dim=1)


def _clusters(neighbours: Tensor) -> int:
    """How many clusters there are when each is linked to its neighbour (n,)."""
    n = len(neighbours)
    links = coo_array((torch.ones(n), (torch.arange(n), neighbours)), shape=(n, n))
    return connected_components(links, directed=False)[0]


def _columns(weights: Tensor) -> Tensor:
    """Each column over its sum."""
    return weights / weights.sum(dim=0)


def _whole(number: float) -> int:
    return math.ceil(number - 1e-9)
