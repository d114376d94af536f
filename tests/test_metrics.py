"""Average precision and accuracies of maps against scikit-learn, and what they do with absent classes."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    jaccard_score,
)
from torch import Generator

from rsbook import metrics


def draw(scenes, classes, levels, share, seed):
    """Scores (N,L) on so many levels (few: many ties; 0: no ties) and labels that are present with the given share."""
    generator = Generator().manual_seed(seed)
    scores = torch.rand(scenes, classes, generator=generator)
    if levels:
        scores = (scores * levels).round() / levels
    return scores, torch.rand(scenes, classes, generator=generator) < share


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    scenes=st.integers(1, 60),
    classes=st.integers(1, 5),
    levels=st.sampled_from([0, 1, 2, 7]),
    share=st.sampled_from([0.05, 0.3, 0.9]),
    seed=st.integers(0, 2**31),
)
def test_equals_scikit_learn(scenes, classes, levels, share, seed):
    scores, labels = draw(scenes, classes, levels, share, seed)
    found = metrics.average_precision(scores, labels)
    absent = [c for c in range(labels.shape[1]) if not labels[:, c].any()]
    expected = {i: average_precision_score(labels[:, i], scores[:, i]) for i in range(classes) if i not in absent}
    assert found.shape == (classes,)
    assert [i for i in range(classes) if math.isnan(found[i])] == absent
    assert absent == [i for i in range(classes) if not labels[:, i].sum()]
    for i, value in expected.items():
        assert found[i].item() == pytest.approx(value, abs=1e-6)
    if expected:
        mean = sum(expected.values()) / len(expected)
        assert metrics.map_macro(scores, labels) == pytest.approx(mean, abs=1e-6)
        micro = average_precision_score(labels.flatten(), scores.flatten())
        assert metrics.map_micro(scores, labels) == pytest.approx(micro, abs=1e-6)


def test_equals_scikit_learn_on_a_whole_test_split():
    scores, labels = draw(20_000, 3, 0, torch.tensor([0.001, 0.1, 0.9]), 0)
    for i, value in enumerate(metrics.average_precision(scores, labels).tolist()):
        assert value == pytest.approx(average_precision_score(labels[:, i], scores[:, i]), abs=1e-6)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(seed=st.integers(0, 2**31))
def test_depends_on_the_order_of_scores_alone(seed):
    scores, labels = draw(40, 3, 6, 0.4, seed)
    labels[0] = True
    shuffled = torch.randperm(40, generator=Generator().manual_seed(seed))
    expected = metrics.average_precision(scores, labels)
    torch.testing.assert_close(metrics.average_precision(scores**3 / 2, labels), expected)
    torch.testing.assert_close(metrics.average_precision(scores[shuffled], labels[shuffled]), expected)


def test_worked_by_hand():
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6]])
    labels = torch.tensor([[True], [False], [True], [False]])
    assert metrics.map_macro(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.map_macro(-scores + 1, labels) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_equal_scores_give_the_share_of_positives():
    labels = torch.tensor([[True, False], [False, False], [False, True], [False, True]])
    found = metrics.average_precision(torch.full((4, 2), 0.5), labels)
    assert found.tolist() == pytest.approx([0.25, 0.5])
    assert metrics.map_micro(torch.full((4, 2), 0.5), labels) == pytest.approx(3 / 8)


def test_perfect_scores_give_one():
    labels = torch.tensor([[True, False], [False, True], [True, True]])
    assert metrics.map_macro(labels.float(), labels) == 1
    assert metrics.map_micro(labels.float(), labels) == 1


def test_absent_classes_are_left_out_of_macro_and_reported():
    scores = torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.2, 0.6], [0.5, 0.3, 0.2]])
    labels = torch.tensor([[True, False, False], [False, False, True], [False, False, True]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torchmetrics warns of classes without positives: we say it once, our way
        found = metrics.average_precision(scores, labels)
        assert metrics.map_macro(scores, labels) == 1
    assert found[[0, 2]].tolist() == [1, 1]
    assert math.isnan(found[1])
    assert metrics.average_precision(scores, labels).isnan().tolist() == [False, True, False]
    assert metrics.map_micro(scores, labels) < 1  # the negatives of the absent class still count here


def test_no_positive_at_all_is_an_error():
    scores, labels = torch.rand(4, 2), torch.zeros(4, 2, dtype=torch.bool)
    assert metrics.average_precision(scores, labels).isnan().all()
    for mean in (metrics.map_macro, metrics.map_micro):
        with pytest.raises(ValueError, match="no class has a positive"):
            mean(scores, labels)


@pytest.mark.parametrize("metric", [metrics.average_precision, metrics.map_macro, metrics.map_micro])
@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (torch.rand(4, 2), torch.ones(4, 3, dtype=torch.bool), r"got torch.float32 of shape \(4, 2\)"),
        (torch.rand(4), torch.ones(4, dtype=torch.bool), r"scores \(N,L\)"),
        (torch.rand(4, 2), torch.ones(4, 2), "torch.float32 of shape"),
        (torch.ones(4, 2, dtype=torch.int64), torch.ones(4, 2, dtype=torch.bool), "of floats"),
        (torch.rand(0, 2), torch.ones(0, 2, dtype=torch.bool), r"\(0, 2\)"),
        (torch.tensor([[0.5], [torch.nan]]), torch.ones(2, 1, dtype=torch.bool), "diverged"),
        (torch.tensor([[0.5], [torch.inf]]), torch.ones(2, 1, dtype=torch.bool), "diverged"),
        (torch.tensor([[0.5], [30.0]]), torch.ones(2, 1, dtype=torch.bool), "from 0 to 1; pass logits through"),
        (torch.tensor([[0.5], [-0.1]]), torch.ones(2, 1, dtype=torch.bool), "from 0 to 1"),
    ],
)
def test_errors(metric, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        metric(scores, labels)


# Maps


def maps_of(seed, classes=4, unknown=0.2):
    generator = Generator().manual_seed(seed)
    predictions = torch.randint(classes, (3, 7, 5), generator=generator)
    maps = torch.randint(classes, (3, 7, 5), generator=generator)
    maps[torch.rand(maps.shape, generator=generator) < unknown] = -1
    return predictions, maps


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**30), st.sampled_from([0.2, 0.5, 0.8]))
def test_f1_is_that_of_scikit_learn(scenes, classes, seed, threshold):
    generator = Generator().manual_seed(seed)
    scores = torch.rand(scenes, classes, generator=generator)
    labels = torch.rand(scenes, classes, generator=generator) < 0.4
    there = labels.any(dim=0)
    if not there.any():
        with pytest.raises(ValueError, match="no class has a positive"):
            metrics.f1_macro(scores, labels, threshold)
        return
    named, columns = scores > threshold, there.nonzero()[:, 0].tolist()
    expected = sum(f1_score(labels[:, c], named[:, c], zero_division=0) for c in columns) / len(columns)
    assert metrics.f1_macro(scores, labels, threshold) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_confusion_matrix_counts_pixels_one_by_one(seed):
    predictions, maps = maps_of(seed)
    expected = torch.zeros(4, 4, dtype=torch.int64)
    for found, true in zip(predictions.flatten().tolist(), maps.flatten().tolist(), strict=True):
        if true >= 0:
            expected[true, found] += 1
    assert torch.equal(metrics.confusion_matrix(predictions, maps, 4), expected)
    parts = [metrics.confusion_matrix(p[None], m[None], 4) for p, m in zip(predictions, maps, strict=True)]
    assert torch.equal(sum(parts), expected)
    assert torch.equal(metrics.confusion_matrix(predictions, maps - (maps < 0) * 7, 4), expected)


@pytest.mark.parametrize("seed", range(3))
def test_accuracies_are_those_of_scikit_learn(seed):
    predictions, maps = maps_of(seed)
    known = maps >= 0
    true, found = maps[known].numpy(), predictions[known].numpy()
    expected = {
        "oa": accuracy_score(true, found),
        "aa": balanced_accuracy_score(true, found),
        "miou": jaccard_score(true, found, average="macro"),
        "f1": f1_score(true, found, average="macro"),
    }
    confusion = metrics.confusion_matrix(predictions, maps, 4)
    assert metrics.accuracies(confusion) == pytest.approx(expected)
    assert metrics.class_iou(confusion) == pytest.approx(jaccard_score(true, found, average=None))


def test_a_class_that_no_map_holds_is_left_out_of_the_means():
    confusion = torch.tensor([[8, 0, 2], [0, 0, 0], [0, 5, 5]])
    found = metrics.accuracies(confusion)
    assert found == pytest.approx({"oa": 13 / 20, "aa": (0.8 + 0.5) / 2, "miou": (0.8 + 5 / 12) / 2, "f1": found["f1"]})
    assert metrics.class_iou(confusion) == [pytest.approx(0.8), None, pytest.approx(5 / 12)]
    assert metrics.class_iou(torch.tensor([[3, 0], [0, 0]])) == [1.0, None]


def test_what_has_no_pixel_has_no_accuracy():
    with pytest.raises(ValueError, match="no pixel was counted"):
        metrics.accuracies(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"predictions \(3, 7, 5\) and maps \(2, 7, 5\) differ"):
        metrics.confusion_matrix(*[one[: 3 - i] for i, one in enumerate(maps_of(0))], 4)
