"""Sample selection of CromSS against slow loops over single pixels, equation by equation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from rsbook import selection

SHAPE = {"batch": 3, "classes": 4, "height": 5, "width": 6}


def draw(seed=0, batch=3, classes=4, height=5, width=6, unlabelled=0.2, sharpness=2.0):
    """Probabilities (B,K,H,W) and maps (B,H,W), some of whose pixels have no label."""
    generator = Generator().manual_seed(seed)
    logits = sharpness * torch.randn(batch, classes, height, width, generator=generator)
    maps = torch.randint(classes, (batch, height, width), generator=generator)
    maps[torch.rand(maps.shape, generator=generator) < unlabelled] = -1
    return logits.softmax(dim=1), maps


def pixels(maps):
    return [tuple(at) for at in torch.cartesian_prod(*map(torch.arange, maps.shape)).tolist()]


def slow_weights(confidence, maps, ratio, ranking):
    """Eq. 3 by sorting lists: the lowest confidence among the share of the highest is what others are divided by."""
    known = [at for at in pixels(maps) if maps[at] >= 0]
    groups = {}
    for at in known:
        groups.setdefault(int(maps[at]) if ranking == "per_class" else 0, []).append(at)
    weights = torch.zeros(maps.shape)
    for members in groups.values():
        ordered = sorted((confidence[at].item() for at in members), reverse=True)
        threshold = ordered[max(1, math.floor(ratio * len(members) + 1e-6)) - 1]
        for at in members:
            weights[at] = min(1.0, confidence[at].item() / threshold) if threshold > 0 else 1.0
    return weights


@pytest.mark.parametrize("seed", range(3))
def test_label_confidence_is_the_probability_of_the_label(seed):
    probabilities, maps = draw(seed)
    found = selection.label_confidence(probabilities, maps)
    for b, y, x in pixels(maps):
        expected = probabilities[b, maps[b, y, x], y, x].item() if maps[b, y, x] >= 0 else 0.0
        assert found[b, y, x].item() == expected


@pytest.mark.parametrize("seed", range(3))
def test_entity_confidence_is_one_less_the_normalised_entropy(seed):
    probabilities, maps = draw(seed)
    found = selection.entity_confidence(probabilities)
    for b, y, x in pixels(maps):
        q = probabilities[b, :, y, x].tolist()
        expected = 1 + sum(p * math.log(p) for p in q) / math.log(len(q))
        assert found[b, y, x].item() == pytest.approx(expected, abs=1e-6)


def test_entity_confidence_of_one_who_is_certain_and_of_one_who_knows_nothing():
    certain = torch.zeros(1, 5, 2, 2)
    certain[:, 3] = 1
    assert (selection.entity_confidence(certain) == 1).all()
    assert selection.entity_confidence(torch.full((1, 5, 2, 2), 0.2)).abs().max() < 1e-6


def test_enhancement_keeps_what_both_believe_and_halves_what_one_alone_does():
    own = torch.tensor([1.0, 0.8, 0.8, 0.8, 0.0])
    other = torch.tensor([1.0, 1.0, 0.5, 0.0, 1.0])
    assert selection.enhance(own, other).tolist() == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.0])


def test_the_ramp_rises_from_almost_nothing_to_one_and_stays():
    values = [selection.ramp(epoch, 80) for epoch in range(100)]
    assert values[0] == pytest.approx(0.0067, abs=1e-4)
    assert values[40] == pytest.approx(math.exp(-5 / 4))
    assert values[80:] == [1.0] * 20
    assert values == sorted(values)
    assert selection.ramp(0, 0) == 1.0
    assert selection.selection_ratio(values[0]) == pytest.approx(1, abs=0.004)
    assert selection.selection_ratio(1.0) == 0.5


@settings(deadline=None, derandomize=True, max_examples=120)
@given(
    seed=st.integers(0, 2**31),
    ratio=st.sampled_from([0.01, 0.25, 0.5, 0.75, 0.999, 1.0]),
    ranking=st.sampled_from(selection.RANKINGS),
    unlabelled=st.sampled_from([0.0, 0.5, 1.0]),
    levels=st.sampled_from([0, 3]),
)
def test_selection_weights_are_those_of_sorted_lists(seed, ratio, ranking, unlabelled, levels):
    probabilities, maps = draw(seed, unlabelled=unlabelled)
    confidence = selection.label_confidence(probabilities, maps)
    if levels:  # ties, and confidences of zero
        confidence = (confidence * levels).floor() / levels
    found = selection.selection_weights(confidence, maps, ratio, ranking)
    torch.testing.assert_close(found, slow_weights(confidence, maps, ratio, ranking))
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[maps < 0] == 0).all()


def test_with_a_ratio_of_one_every_labelled_pixel_weighs_one():
    probabilities, maps = draw()
    confidence = selection.label_confidence(probabilities, maps)
    for ranking in selection.RANKINGS:
        assert torch.equal(selection.selection_weights(confidence, maps, 1.0, ranking), (maps >= 0).float())


def test_the_share_of_full_weights_is_the_ratio_over_the_batch_or_within_each_class():
    probabilities, maps = draw(batch=20, height=20, width=20, unlabelled=0.0)
    confidence = selection.label_confidence(probabilities, maps)
    confidence[maps == 0] *= 0.01  # a class that no network believes
    whole = selection.selection_weights(confidence, maps, 0.5) == 1
    apart = selection.selection_weights(confidence, maps, 0.5, "per_class") == 1
    assert whole.float().mean() == pytest.approx(0.5, abs=1e-3)
    assert whole[maps == 0].float().mean() < 0.01
    for c in range(4):
        assert apart[maps == c].float().mean() == pytest.approx(0.5, abs=1e-2)


def test_a_label_that_a_network_rules_out_in_every_pixel_keeps_its_weight():
    maps = torch.zeros(1, 2, 2, dtype=torch.long)
    assert (selection.selection_weights(torch.zeros(1, 2, 2), maps, 0.5) == 1).all()
    half = torch.tensor([[[0.0, 0.0], [0.5, 0.4]]])
    assert selection.selection_weights(half, maps, 0.5).flatten().tolist() == pytest.approx([0, 0, 1, 1])


@pytest.mark.parametrize(("change", "message"), [({"ratio": 0.0}, "ratio=0"), ({"ratio": 1.01}, "ratio=1.01")])
def test_ratios_that_are_no_share_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        selection.selection_weights(torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long), **change)


def test_another_ranking_is_refused():
    with pytest.raises(ValueError, match="ranking='class': expected one of global, per_class"):
        selection.selection_weights(torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long), 0.5, "class")


def test_consistency_weights_go_from_one_to_the_confidence():
    confidence = torch.tensor([0.0, 0.3, 1.0])
    assert selection.consistency_weights(confidence, 0.0).tolist() == [1, 1, 1]
    torch.testing.assert_close(selection.consistency_weights(confidence, 1.0), confidence)
    torch.testing.assert_close(selection.consistency_weights(confidence, 0.5), torch.tensor([0.5, 0.65, 1.0]))


@pytest.mark.parametrize("ranking", selection.RANKINGS)
def test_masks_of_two_modalities_put_the_equations_together(ranking):
    first, maps = draw(1)
    second, _ = draw(2)
    risen = 0.6
    labels, entities = selection.masks(torch.stack([first, second]).log(), maps, risen, ranking)
    alone = [selection.label_confidence(q, maps) for q in (first, second)]
    sure = [selection.entity_confidence(q) for q in (first, second)]
    for own, other in ((0, 1), (1, 0)):
        enhanced = 0.5 * (alone[own] + alone[own] * alone[other])
        torch.testing.assert_close(labels[own], slow_weights(enhanced, maps, 1 - 0.3, ranking))
        torch.testing.assert_close(entities[own], 0.4 + 0.6 * 0.5 * (sure[own] + sure[own] * sure[other]))


def test_masks_of_one_modality_are_not_enhanced():
    probabilities, maps = draw(1)
    [labels], [entities] = selection.masks(probabilities.log()[None], maps, 1.0)
    torch.testing.assert_close(
        labels, slow_weights(selection.label_confidence(probabilities, maps), maps, 0.5, "global")
    )
    torch.testing.assert_close(entities, selection.entity_confidence(probabilities))


def test_masks_have_no_gradient():
    probabilities, maps = draw()
    logits = torch.stack([probabilities, probabilities.flip(0)]).log().requires_grad_()
    for masks in selection.masks(logits, maps, 0.5):
        assert not any(mask.requires_grad for mask in masks)


def test_a_modality_that_is_certain_leaves_the_other_its_confidence_and_one_that_knows_nothing_takes_from_it():
    probabilities, maps = draw(unlabelled=0.0)
    certain = torch.nn.functional.one_hot(maps, 4).movedim(-1, 1).float()
    uniform = torch.full_like(probabilities, 0.25)
    own = selection.label_confidence(probabilities, maps)
    for other, factor in ((certain, 1.0), (uniform, 0.625)):
        beside = selection.label_confidence(other, maps)
        torch.testing.assert_close(selection.enhanced([own, beside])[0], own * factor)


def test_wrong_pixels_get_lower_weights_once_half_is_selected():
    """The spec's synthetic test: known noise, networks that have learned most of the truth."""
    generator = Generator().manual_seed(0)
    truth = torch.randint(4, (8, 16, 16), generator=generator)
    wrong = torch.rand(truth.shape, generator=generator) < 0.3
    noisy = torch.where(wrong, (truth + 1) % 4, truth)
    clean = torch.nn.functional.one_hot(truth, 4).movedim(-1, 1).float()
    logits = torch.stack([3 * clean + torch.randn(clean.shape, generator=generator) for _ in range(2)])
    before, _ = selection.masks(logits, noisy, 0.0)
    after, _ = selection.masks(logits, noisy, 1.0)
    for own, full in zip(after, before, strict=True):
        assert (full == 1).all()
        assert own[wrong].mean() < 0.5 * own[~wrong].mean()


# How well masks find wrong pixels


def slow_auroc(scores, right):
    """The share of pairs of a right and a wrong pixel in which the right one is higher; ties count half."""
    good, bad = scores[right].tolist(), scores[~right].tolist()
    return sum((g > b) + 0.5 * (g == b) for g in good for b in bad) / (len(good) * len(bad))


@pytest.mark.parametrize("seed", range(3))
def test_quality_counts_pairs_and_pixels(seed):
    first, maps = draw(seed, batch=2)
    second, _ = draw(seed + 10, batch=2)
    wrong = torch.rand(maps.shape, generator=Generator().manual_seed(seed)) < 0.3
    logits = torch.stack([first, second]).log()
    found = selection.quality(logits, maps, wrong, 0.8)
    labels, _ = selection.masks(logits, maps, 0.8)
    known = maps >= 0
    alone = [selection.label_confidence(q, maps) for q in (first, second)]
    for m in range(2):
        low = [at for at in pixels(maps) if known[at] and labels[m][at] < 1]
        bad = [at for at in pixels(maps) if known[at] and wrong[at]]
        caught = len(set(low) & set(bad))
        right = ~wrong[known]
        expected = {
            "auroc": slow_auroc(labels[m][known], right),
            "auroc_confidence": slow_auroc(selection.enhanced(alone)[m][known], right),
            "auroc_alone": slow_auroc(alone[m][known], right),
            "precision": caught / len(low),
            "recall": caught / len(bad),
        }
        assert found[m] == pytest.approx(expected, abs=1e-6)


def test_quality_of_maps_without_a_wrong_pixel_has_no_number_for_it():
    probabilities, maps = draw()
    [found] = selection.quality(probabilities.log()[None], maps, torch.zeros_like(maps, dtype=torch.bool), 0.0)
    assert found == {
        "auroc": None,
        "auroc_confidence": None,
        "auroc_alone": None,
        "precision": None,
        "recall": None,
    }
