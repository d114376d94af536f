"""Maps, segments and regularisers of weak segmentation against slow loops over single maps and pixels."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator
from torch.nn.functional import interpolate, multilabel_soft_margin_loss

from rsbook import metrics, models, weak_segmentation
from rsbook.weak_segmentation import SMALLEST

THRESHOLDS = (0.0, 0.15, 0.5, 0.9, 1.5)


def draw(seed=0, batch=3, classes=4, height=5, width=6, share=0.5):
    """Maps of either sign, and which classes are present."""
    generator = Generator().manual_seed(seed)
    maps = torch.randn(batch, classes, height, width, generator=generator)
    return maps, torch.rand(batch, classes, generator=generator) < share


def every(shape):
    return product(*map(range, shape))


def slow_spread(distribution):
    """Variance of one distribution of places, as nested lists, with coordinates of the middles of pixels."""
    height, width = len(distribution), len(distribution[0])
    at = {(y, x): ((2 * y + 1) / height - 1, (2 * x + 1) / width - 1) for y, x in every((height, width))}
    centre = [sum(distribution[y][x] * at[y, x][k] for y, x in at) for k in range(2)]
    return sum(distribution[y][x] * sum((at[y, x][k] - centre[k]) ** 2 for k in range(2)) for y, x in at)


@pytest.mark.parametrize("seed", range(3))
def test_maps_are_normalised_by_their_own_maximum(seed):
    maps, present = draw(seed)
    maps[0, 0] = -maps[0, 0].abs()  # a class that is nowhere
    found = weak_segmentation.normalised(maps, present)
    for b, c, y, x in every(maps.shape):
        highest = max(0.0, maps[b, c].max().item())
        expected = max(0.0, maps[b, c, y, x].item()) / (highest + 1e-5) if present[b, c] else 0.0
        assert found[b, c, y, x].item() == pytest.approx(expected, rel=1e-5)
    assert not found[0, 0].any()
    assert ((found >= 0) & (found < 1)).all()


def test_absent_classes_are_zero_whatever_their_maps_hold():
    maps, present = draw()
    maps[~present] = torch.nan
    assert (weak_segmentation.normalised(maps, present)[~present] == 0).all()


def network(size=32):
    return models.classifier("narrow_resnet", 3, 4, Generator().manual_seed(0)).eval()


def images(n=2, height=32, width=40):
    return torch.randn(n, 3, height, width, generator=Generator().manual_seed(1))


@torch.no_grad()
def slow_multi_scale(model, batch, size, scales, flip):
    """Image by image and class by class, from features and the weights of the last layer."""
    weights = model.get_classifier().weight
    total = torch.zeros(len(batch), len(weights), *size)
    for scale, mirrored in product(scales, (False, True) if flip else (False,)):
        for i, image in enumerate(batch):
            shape = [int(pixels * scale) for pixels in image.shape[1:]]
            resized = interpolate(image[None], size=shape, mode="bilinear", align_corners=False)
            features = model.forward_features(resized.flip(3) if mirrored else resized)[0]
            for c, weight in enumerate(weights):
                one = (weight[:, None, None] * features).sum(dim=0).relu()[None, None]
                large = interpolate(one, size=size, mode="bilinear", align_corners=False)[0, 0]
                total[i, c] += large.flip(1) if mirrored else large
    return total


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("scales", [(1,), (1, 0.5, 1.5, 2), (0.75,)])
@pytest.mark.parametrize("size", [(32, 40), (17, 50)])
def test_maps_of_all_scales_are_those_of_single_images_and_classes(size, scales, flip):
    model, batch = network(), images()
    found = weak_segmentation.multi_scale_maps(model, batch, size, scales, flip)
    expected = slow_multi_scale(model, batch, size, scales, flip)
    assert expected.max() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * expected.max().item())


def test_each_scale_and_direction_is_one_forward_pass_and_leaves_the_model_as_it_was():
    model, batch, passes = network().train(), images(), []
    features = model.forward_features

    def counted(x):
        assert not model.training
        passes.append(tuple(x.shape[2:]))
        return features(x)

    model.forward_features = counted
    found = weak_segmentation.multi_scale_maps(model, batch, (32, 40))
    assert passes == [size for size in ((32, 40), (16, 20), (48, 60), (64, 80)) for _ in range(2)]
    assert model.training
    assert not found.requires_grad


def test_maps_of_a_mirrored_image_are_mirrored():
    model, batch = network(), images()
    found = weak_segmentation.multi_scale_maps(model, batch.flip(3), (32, 40))
    torch.testing.assert_close(found.flip(3), weak_segmentation.multi_scale_maps(model, batch, (32, 40)))


@pytest.mark.parametrize("scales", [(), (1, 0), (1, -2)])
def test_scales_that_cannot_be_are_refused(scales):
    with pytest.raises(ValueError, match="scales="):
        weak_segmentation.multi_scale_maps(network(), images(), (8, 8), scales)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    classes=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    background=st.sampled_from([0.0, 0.15, 0.5, 1.0]),
    levels=st.sampled_from([0, 2]),
)
def test_segments_are_those_of_a_walk_over_pixels(seed, classes, share, background, levels):
    maps, present = draw(seed, classes=classes, share=share)
    scores = weak_segmentation.normalised(maps, present)
    if levels:  # ties
        scores = (scores * levels).round() / levels
    found = weak_segmentation.segment(scores, present, background)
    assert found.dtype == torch.int64
    for b, y, x in every(found.shape):
        expected, highest = classes, background  # background, unless a class is above it
        for c in range(classes):
            if present[b, c] and scores[b, c, y, x].item() > highest:
                expected, highest = c, scores[b, c, y, x].item()
        assert found[b, y, x] == expected


@pytest.mark.parametrize("seed", range(3))
def test_without_background_every_pixel_has_a_present_class(seed):
    maps, present = draw(seed)
    present[:, 2] = True
    scores = weak_segmentation.normalised(maps, present)
    scores[0] = 0  # nothing anywhere
    found = weak_segmentation.segment(scores, present, None)
    for b, y, x in every(found.shape):
        assert found[b, y, x] == max(present[b].nonzero().flatten().tolist(), key=lambda c: scores[b, c, y, x].item())
    present[1] = False
    with pytest.raises(ValueError, match="a scene has no class"):
        weak_segmentation.segment(scores, present, None)
    assert (weak_segmentation.segment(scores, present)[1] == maps.shape[1]).all()


def test_segments_go_with_the_confusion_matrix():
    maps, present = draw(batch=20)
    scores = weak_segmentation.normalised(maps, present)
    found = weak_segmentation.segment(scores, present)
    confusion = metrics.confusion_matrix(found, found, 5)
    assert confusion.sum() == found.numel()
    assert confusion[4, 4] == (found == 4).sum() > 0
    assert metrics.accuracies(confusion)["miou"] == 1.0


def slow_miou(predictions, truth, count):
    ious = []
    for c in range(count):
        both = either = there = 0
        for at in every(truth.shape):
            if truth[at] >= 0:
                right, named = truth[at] == c, predictions[at] == c
                both, either, there = both + bool(right & named), either + bool(right | named), there + bool(right)
        if there:
            ious.append(both / either)
    return sum(ious) / len(ious)


@pytest.mark.parametrize("seed", range(3))
def test_each_background_has_the_mean_iou_of_its_segments(seed):
    maps, present = draw(seed)
    scores = weak_segmentation.normalised(maps, present)
    truth = torch.randint(-1, 5, (3, 5, 6), generator=Generator().manual_seed(seed))
    found = weak_segmentation.background_confusions(scores, present, truth, THRESHOLDS)
    for threshold, confusion in zip(THRESHOLDS, found, strict=True):
        predictions = weak_segmentation.segment(scores, present, threshold)
        assert metrics.accuracies(confusion)["miou"] == pytest.approx(slow_miou(predictions, truth, 5))


def test_the_background_that_made_the_truth_is_best():
    maps, present = draw(batch=20)
    scores = weak_segmentation.normalised(maps, present)
    truth = weak_segmentation.segment(scores, present, 0.5)
    found = weak_segmentation.background_confusions(scores, present, truth, THRESHOLDS)
    scored = {t: metrics.accuracies(one)["miou"] for t, one in zip(THRESHOLDS, found, strict=True)}
    assert max(scored, key=scored.get) == 0.5
    assert scored[0.5] == 1.0


def test_confusions_of_batches_add_up():
    maps, present = draw(batch=6)
    truth = torch.randint(-1, 5, (6, 5, 6), generator=Generator().manual_seed(2))
    parts = [
        weak_segmentation.background_confusions(maps[part], present[part], truth[part], THRESHOLDS)
        for part in (slice(2), slice(2, 6))
    ]
    whole = weak_segmentation.background_confusions(maps, present, truth, THRESHOLDS)
    assert whole.shape == (len(THRESHOLDS), 5, 5)
    assert torch.equal(sum(parts), whole)


def test_truth_with_unknown_numbers_is_refused():
    maps, present = draw()
    truth = torch.full((3, 5, 6), 255)  # VOC's number for what is to be ignored
    with pytest.raises(ValueError, match="truth: holds 255, expected at most 4"):
        weak_segmentation.background_confusions(maps, present, truth, THRESHOLDS)
    with pytest.raises(ValueError, match="differ in shape"):
        weak_segmentation.background_confusions(maps, present, torch.zeros(3, 5, 5).long(), THRESHOLDS)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_mixed_loss_is_that_of_both_labels_by_share(share):
    generator = Generator().manual_seed(3)
    logits = 3 * torch.randn(6, 4, generator=generator)
    first, second = (torch.rand(2, 6, 4, generator=generator) < 0.4).unbind()
    expected = share * multilabel_soft_margin_loss(logits, first.float())
    expected = expected + (1 - share) * multilabel_soft_margin_loss(logits, second.float())
    torch.testing.assert_close(weak_segmentation.mixed_loss(logits, first, second, share), expected)
    torch.testing.assert_close(weak_segmentation.mixed_loss(logits, first, second, torch.tensor(share)), expected)


def test_the_entropy_is_that_of_single_scores():
    logits = 4 * torch.randn(5, 3, generator=Generator().manual_seed(4), dtype=torch.float64)
    scores = [1 / (1 + math.exp(-x)) for x in logits.flatten().tolist()]
    expected = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in scores) / len(scores)
    assert weak_segmentation.entropy_loss(logits).item() == pytest.approx(expected, rel=1e-5)
    assert weak_segmentation.entropy_loss(torch.zeros(2, 2)).item() == pytest.approx(math.log(2))


def test_the_entropy_pushes_scores_apart_and_is_finite_for_any_logit():
    logits = torch.tensor([[-200.0, -2, -0.1, 0.1, 2, 200]], requires_grad=True)
    loss = weak_segmentation.entropy_loss(logits)
    loss.backward()
    assert loss.isfinite()
    assert (-logits.grad).sign().tolist() == [[0, -1, -1, 1, 1, 0]]  # where a step goes


@pytest.mark.parametrize("seed", range(3))
def test_the_concentration_is_the_variance_of_single_maps(seed):
    maps, present = draw(seed)
    maps = maps.double()
    expected = 0.0
    for b, c in present.nonzero().tolist():
        one = maps[b, c].clamp(min=0)
        expected += slow_spread((one / one.sum()).tolist()) / len(maps)
    assert weak_segmentation.concentration_loss(maps, present).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_concentration_as_coded_is_of_a_softmax_across_classes(seed):
    maps, present = draw(seed)
    expected = 0.0
    for b, c in present.nonzero().tolist():
        odds = [[0.0] * maps.shape[3] for _ in range(maps.shape[2])]
        for y, x in every(maps.shape[2:]):
            powers = [math.exp(max(0.0, value)) for value in maps[b, :, y, x].tolist()]
            odds[y][x] = powers[c] / sum(powers) + 1e-3
        total = sum(map(sum, odds))
        expected += slow_spread([[value / total for value in row] for row in odds]) / len(maps)
    assert weak_segmentation.concentration_loss_as_coded(maps, present).item() == pytest.approx(expected, rel=1e-5)


def test_a_point_has_no_variance_and_two_corners_have_the_most():
    maps, present = torch.zeros(2, 1, 9, 9), torch.ones(2, 1, dtype=torch.bool)
    maps[0, 0, 3, 5] = maps[1, 0, 0, 8] = 7.0
    assert weak_segmentation.concentration_loss(maps, present).item() == pytest.approx(0, abs=1e-6)
    maps[:, 0, 0, 0] = maps[:, 0, 8, 8] = 1e6
    assert weak_segmentation.concentration_loss(maps, present).item() == pytest.approx(2 * (8 / 9) ** 2, rel=1e-3)


def test_the_concentration_sees_neither_the_size_of_maps_nor_absent_classes():
    maps, present = draw()
    one = weak_segmentation.concentration_loss(maps, present)
    torch.testing.assert_close(weak_segmentation.concentration_loss(100 * maps, present), one)
    other = maps.where(present[:, :, None, None], 5.0)
    torch.testing.assert_close(weak_segmentation.concentration_loss(other, present), one)
    assert not torch.isclose(
        weak_segmentation.concentration_loss_as_coded(other, present),
        weak_segmentation.concentration_loss_as_coded(maps, present),
    )


@pytest.mark.parametrize("loss", [weak_segmentation.concentration_loss, weak_segmentation.concentration_loss_as_coded])
@pytest.mark.parametrize("fill", [0.0, -1.0, 1e-30, SMALLEST, 1e30])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_concentration_and_its_gradient_are_finite(loss, fill, share):
    maps, present = draw(share=share)
    maps = torch.full_like(maps, fill).requires_grad_()
    found = loss(maps, present)
    found.backward()
    assert found.isfinite()
    assert maps.grad.isfinite().all()
    if share == 0:
        assert found == 0


@pytest.mark.parametrize("loss", [weak_segmentation.concentration_loss, weak_segmentation.concentration_loss_as_coded])
def test_a_step_down_the_gradient_concentrates(loss):
    maps, present = draw(share=1.0)
    maps = maps.abs().requires_grad_()
    before = loss(maps, present)
    before.backward()
    assert loss(maps - 0.1 * maps.grad / maps.grad.abs().max(), present) < before


@pytest.mark.parametrize(
    "call",
    [
        weak_segmentation.normalised,
        weak_segmentation.segment,
        weak_segmentation.concentration_loss,
        weak_segmentation.concentration_loss_as_coded,
        lambda maps, present: weak_segmentation.background_confusions(
            maps, present, torch.zeros(3, 5, 6).long(), [0.1]
        ),
    ],
)
def test_maps_and_labels_that_do_not_fit_are_refused(call):
    maps, present = draw()
    with pytest.raises(ValueError, match=r"maps: expected floats of shape \(B,L,h,w\), got torch.int64"):
        call(maps.long(), present)
    with pytest.raises(ValueError, match="maps: expected floats"):
        call(maps[0], present)
    with pytest.raises(ValueError, match=r"present: expected bool of shape \(3, 4\), got torch.float32"):
        call(maps, present.float())
    with pytest.raises(ValueError, match="present: expected bool"):
        call(maps, present[:, 1:])
