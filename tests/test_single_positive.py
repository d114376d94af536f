"""Single-positive multi-labels: every loss against a loop over entries that spells its formula, and gradients."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from rsbook import positions, scenes
from rsbook import single_positive as sp

B, L = 4, 5
UNIT = st.floats(0.001, 0.999)


def drawn(seed=0):
    """Logits, observed labels with one class a scene, and what a method may know."""
    generator = Generator().manual_seed(seed)
    logits = 2 * torch.randn(B, L, generator=generator)
    observed = torch.zeros(B, L)
    observed[torch.arange(B), torch.randint(L, (B,), generator=generator)] = 1.0
    known = sp.Known(
        epoch=3,
        epochs=7,
        targets=torch.rand(B, L, generator=generator) * 0.99,
        marked=torch.rand(B, L, generator=generator) < 0.4,
        estimates=torch.randn(B, L, generator=generator),
        positives=2.3,
        rate=0.05,
        strength=1.7,
    )
    return logits, observed, known


def entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def bce(p, label):
    return -label * math.log(p) - (1 - label) * math.log(1 - p)


def surplus(scores, k):
    return (sum(map(sum, scores)) / B - k) ** 2 / L**2


def large(scores, z, k):
    """The k unobserved entries with the largest −log(1 − p)."""
    entries = [(-math.log(1 - scores[b][c]), b, c) for b in range(B) for c in range(L) if not z[b][c]]
    return {(b, c) for _, b, c in sorted(entries)[::-1][:k]}


def by_hand(name, logits, observed, known):
    """The loss of the specification, entry by entry."""
    p, z = logits.double().sigmoid().tolist(), observed.tolist()
    t = known.targets.double().tolist()
    q = known.estimates.double().sigmoid().tolist()
    chosen = large(p, z, math.ceil(B * L * known.rate * known.epoch))
    done = known.epoch / (known.epochs - 1)
    total = 0.0
    for b in range(B):
        for c in range(L):
            s, is_one = p[b][c], z[b][c] == 1
            pos, neg = -math.log(s), -math.log(1 - s)
            marked = bool(known.marked[b, c])
            match name:
                case "an":
                    total += pos if is_one else neg
                case "an_ls":
                    total += 0.9 * pos + 0.1 * neg if is_one else 0.9 * neg + 0.1 * pos
                case "wan":
                    total += pos if is_one else neg / (L - 1)
                case "epr":
                    total += pos if is_one else 0
                case "role":
                    total += (0.5 * (pos - math.log(q[b][c])) if is_one else 0) + 0.5 * bce(s, q[b][c])
                    total += 0.5 * bce(q[b][c], s)
                case "em":
                    total += pos if is_one else -known.alpha * entropy(s)
                case "em_apl":
                    soft = known.beta * bce(s, t[b][c]) if marked else -known.alpha * entropy(s)
                    total += pos if is_one else soft
                case "ll_r":
                    total += pos if is_one else 0 if (b, c) in chosen else neg
                case "ll_ct":
                    total += pos if is_one or (b, c) in chosen else neg
                case "ll_cp":
                    total += pos if is_one or marked else neg
                case "gr":
                    w, bias, mu, width = 2 * done, -2, 0.5 + 0.3 * done, 2 - 1.5 * done
                    k = 1 / (1 + math.exp(-(w * s + bias)))
                    v = math.exp(-0.5 * ((s - mu) / width) ** 2)
                    total += pos if is_one else v * (k * (1 - s**0.01) / 0.01 + (1 - k) * s)
                case "hill":
                    total += pos if is_one else (1.5 - s) * s**2
                case "asl":
                    low = max(s - 0.05, 0)
                    total += pos if is_one else -(low**4) * math.log(1 - low)
                case "ml_elr":
                    total += (pos if is_one else neg) + 3 * math.log(1 - s * t[b][c])
                case "adagc":
                    total += pos if is_one else neg + known.strength * math.log(1 - s * t[b][c])
    extra = {"epr": surplus(p, known.positives)}
    extra["role"] = (extra["epr"] + surplus(q, known.positives)) / 2
    return total / (B * L) + extra.get(name, 0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", sp.LOSSES)
def test_every_loss_is_its_formula(name, seed):
    logits, observed, known = drawn(seed)
    assert sp.LOSSES[name](logits, observed, known).item() == pytest.approx(
        by_hand(name, logits, observed, known), rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize("name", sp.LOSSES)
def test_extreme_logits_have_finite_losses_and_gradients(name):
    _, observed, known = drawn()
    for value in (-80.0, 80.0):
        logits = torch.full((B, L), value, requires_grad=True)
        known = replace(known, targets=torch.full((B, L), sp.LARGEST))
        loss = sp.LOSSES[name](logits, observed, known)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


@settings(deadline=None)
@given(UNIT, UNIT, st.floats(0, 3))
def test_the_calibrated_gradient_is_that_of_the_loss(p, t, strength):
    logits = torch.logit(torch.tensor([[p, 0.5]])).requires_grad_()
    known = sp.Known(targets=torch.tensor([[t, t]]), strength=strength)
    sp.gradient_calibration(logits, torch.tensor([[0.0, 1.0]]), known).backward()
    closed = sp.calibrated_gradient(torch.tensor(p), torch.tensor(t), strength).item()
    assert 2 * logits.grad[0, 0].item() == pytest.approx(closed, rel=1e-3, abs=1e-4)
    assert 2 * logits.grad[0, 1].item() == pytest.approx(-0.5, abs=1e-5), "the positive stays plain"


def test_what_calibration_does_to_a_false_negative():
    p, sure = torch.linspace(0.05, 0.95, 19), torch.tensor(1 - 1e-6)
    assert torch.allclose(sp.calibrated_gradient(p, torch.tensor(0.0), 1.0), p), "an ordinary negative"
    assert sp.calibrated_gradient(p, sure, 1.0).abs().max() < 1e-4, "cancelled"
    assert (sp.calibrated_gradient(p, sure, 2.0) < 0).all(), "pushed up"
    assert (sp.calibrated_gradient(p, sure, 0.5) > 0).all(), "damped only"


def test_role_teaches_the_table_as_well():
    logits, observed, known = drawn()
    logits.requires_grad_()
    known.estimates.requires_grad_()
    sp.estimated_labels(logits, observed, known).backward()
    assert (logits.grad != 0).all()
    assert (known.estimates.grad != 0).all()


def test_large_losses_grow_by_the_rate_and_never_take_what_is_observed():
    logits, observed, _ = drawn()
    assert not sp.largest_losses(logits, observed, 0.0).any()
    for share in (0.05, 0.1, 0.5, 1.0):
        chosen = sp.largest_losses(logits, observed, share)
        assert chosen.sum() == min(math.ceil(B * L * share), B * L - B)
        assert not (chosen & (observed > 0)).any()


def test_one_positive_is_drawn_uniformly_from_each_label():
    labels = torch.tensor([[True, True, False, True], [False, False, True, False], [False] * 4]).repeat(9000, 1)
    observed = sp.random_positive(labels, Generator().manual_seed(1200))
    assert not (observed & ~labels).any()
    assert (observed.sum(dim=1) == labels.any(dim=1)).all()
    share = observed[::3].float().mean(dim=0)
    assert torch.allclose(share, torch.tensor([1 / 3, 1 / 3, 0, 1 / 3]), atol=0.02)
    assert (observed == sp.random_positive(labels, Generator().manual_seed(1200))).all()


def test_the_dominant_class_has_most_pixels_of_those_in_the_label():
    data = scenes.load("bluemarble")
    index = data.split("train")[:200]
    bits, labels = data.positions[index], data.labels[index]
    observed = sp.dominant_positive(bits, labels)
    for scene, label, found in zip(bits, labels, observed, strict=True):
        pixels = [int(((scene >> c) & 1).sum()) for c in range(len(label))]
        best = max((c for c in range(len(label)) if label[c]), key=lambda c: pixels[c])
        assert found.nonzero().flatten().tolist() == [best]


def test_labels_without_a_pixel_are_refused():
    bits = positions.from_reference_maps(torch.zeros(1, 3, 3, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match="no pixel of any class"):
        sp.dominant_positive(bits, torch.tensor([[False, True]]))


def test_false_negatives_are_counted_class_by_class():
    labels = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 0]], dtype=torch.bool)
    observed = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=torch.bool)
    rate = sp.false_negative_rate(labels, observed)
    assert rate[:2].tolist() == pytest.approx([1 / 4, 2 / 3])
    assert rate[2].isnan()


def test_stored_targets_are_a_moving_average_without_its_bias():
    scores, targets = torch.full((2, 3), 0.6), torch.zeros(2, 3)
    for visits in range(1, 30):
        targets = sp.fused(targets, scores, 0.9)
        assert torch.allclose(sp.unbiased(targets, 0.9, torch.tensor([visits] * 2)), scores, atol=1e-4)
    assert sp.fused(torch.ones(1), torch.ones(1), 0.5) <= sp.LARGEST
    with pytest.raises(ValueError, match="visits=0"):
        sp.unbiased(targets, 0.9, torch.tensor([3, 0]))


@pytest.mark.parametrize(
    ("precision", "unobserved", "expected"),
    [
        ([0.1, 0.3, 0.5, 0.7, 0.75, 0.76, 0.765, 0.766], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 7),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.1, 0.2, 0.3, 0.25, 0.2, 0.1], 5),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], None),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.5, 0.4, 0.3, 0.25, 0.2, 0.1], None),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.5, 0.4, 0.3, 0.31, 0.3, 0.29], 6),
        ([0.1, 0.2], [0.2, 0.1], None),
        ([], [], None),
    ],
)
def test_the_trigger_fires_when_learning_slows_or_scores_fall(precision, unobserved, expected):
    assert sp.trigger(precision, unobserved) == expected
    for n in range(len(precision)):
        earlier = sp.trigger(precision[:n], unobserved[:n])
        assert earlier is None if expected is None or n < expected else earlier == expected
