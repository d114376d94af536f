"""Contrastive losses, feature corruption and measures of embeddings, against slow loops over single pairs and rows."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from rsbook import contrastive

LOSSES = list(contrastive.LOSSES.values())
CORRUPTIONS = [contrastive.corrupt, contrastive.corrupt_as_released]


def draw(seed=0, n=5, d=4, dtype=torch.float32):
    """Projections of two modalities, partners somewhat alike."""
    generator = Generator().manual_seed(seed)
    first = torch.randn(n, d, generator=generator, dtype=dtype)
    return first, first + torch.randn(n, d, generator=generator, dtype=dtype)


def unit(row):
    length = math.sqrt(sum(x * x for x in row))
    return [x / length for x in row]


def units(rows):
    return [unit(row) for row in rows.tolist()]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def distance(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def slow_nt_xent(first, second, temperature):
    rows, n = units(first) + units(second), len(first)
    losses = []
    for i, anchor in enumerate(rows):
        near = [0.0 if k == i else math.exp(dot(anchor, row) / temperature) for k, row in enumerate(rows)]
        losses.append(-math.log(near[(i + n) % (2 * n)] / sum(near)))
    return sum(losses) / len(losses)


def slow_one_sided(first, second, temperature):
    first, second = units(first), units(second)
    losses = []
    for i, anchor in enumerate(first):
        within = sum(math.exp(dot(anchor, row) / temperature) for k, row in enumerate(first) if k != i)
        across = sum(math.exp(dot(anchor, row) / temperature) for m, row in enumerate(second) if m != i)
        losses.append(-math.log(math.exp(dot(anchor, second[i]) / temperature) / (within + across)))
    return sum(losses) / len(losses)


SLOW = {contrastive.nt_xent: slow_nt_xent, contrastive.one_sided: slow_one_sided}


# Losses


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 7),
    d=st.integers(1, 6),
    temperature=st.sampled_from([0.07, 0.5, 1.0, 3.0]),
    loss=st.sampled_from(LOSSES),
)
def test_losses_are_those_of_loops_over_pairs(seed, n, d, temperature, loss):
    first, second = draw(seed, n, d, torch.float64)
    expected = SLOW[loss](first, second, temperature)
    assert loss(first, second, temperature).item() == pytest.approx(expected, abs=1e-9)
    assert loss(first.float(), second.float(), temperature).item() == pytest.approx(expected, abs=1e-4)


def test_the_temperature_of_the_paper_is_the_default():
    first, second = draw()
    for loss in LOSSES:
        assert torch.equal(loss(first, second), loss(first, second, 0.07))


def test_losses_of_perfect_embeddings():
    """Orthogonal rows, partners alike: the 2N − 2 others have a cosine of 0."""
    rows, t = torch.eye(4), 0.5
    assert contrastive.nt_xent(rows, rows, t).item() == pytest.approx(math.log1p(6 * math.exp(-1 / t)))
    assert contrastive.one_sided(rows, rows, t).item() == pytest.approx(math.log(6) - 1 / t)


def test_losses_of_a_collapse_are_those_of_guessing():
    rows = torch.ones(5, 3)
    assert contrastive.nt_xent(rows, rows).item() == pytest.approx(math.log(9))
    assert contrastive.one_sided(rows, rows).item() == pytest.approx(math.log(8))


def test_nt_xent_treats_both_modalities_alike_and_the_printed_equation_does_not():
    first, second = draw()
    torch.testing.assert_close(contrastive.nt_xent(first, second), contrastive.nt_xent(second, first))
    assert not torch.isclose(contrastive.one_sided(first, second), contrastive.one_sided(second, first))


def test_the_printed_equation_does_not_compare_rows_of_the_second_modality_with_each_other():
    """A pair's rows of the second modality may be swapped for others that are as far from the anchors."""
    first = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    near, far = (torch.tensor([[0.6, 0.8, 0.0], [0.6, y, z]]) for y, z in ((0.8, 0.0), (0.0, 0.8)))
    assert torch.isclose(contrastive.one_sided(first, near), contrastive.one_sided(first, far))
    assert not torch.isclose(contrastive.nt_xent(first, near), contrastive.nt_xent(first, far))


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 7), loss=st.sampled_from(LOSSES))
def test_neither_the_order_of_the_pairs_nor_the_length_of_a_row_matters(seed, n, loss):
    first, second = draw(seed, n)
    generator = Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator)
    lengths = 0.1 + 10 * torch.rand(n, 1, generator=generator)
    changed = loss(first[order] * lengths, second[order] / lengths)
    torch.testing.assert_close(changed, loss(first, second), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    first, second = (rows.requires_grad_() for rows in draw(dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, 0.3), (first, second))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rows", [torch.ones(4, 3), torch.zeros(4, 3), torch.eye(4), -torch.ones(4, 1)])
@pytest.mark.parametrize("temperature", [0.07, contrastive.COLDEST])
def test_rows_that_are_alike_or_empty_have_finite_losses_and_gradients(loss, rows, temperature):
    first, second = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    value = loss(first, second, temperature)
    value.backward()
    assert value.isfinite()
    assert first.grad.isfinite().all()
    assert second.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_keep_full_precision_in_mixed_precision(loss):
    first, second = draw(n=64, d=16)
    expected = loss(first, second)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(first, second), expected)
        found = loss(first.bfloat16(), second.bfloat16())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), abs=0.02)


def test_losses_fall_as_partners_come_closer():
    first, _ = draw(n=32, d=8)
    noise = torch.randn(first.shape, generator=Generator().manual_seed(1))
    for loss in LOSSES:
        values = [loss(first, first + scale * noise).item() for scale in (0.0, 0.5, 1.0, 4.0)]
        assert values == sorted(values)


def test_a_few_steps_of_the_loss_find_the_partners():
    first, second = (rows.requires_grad_() for rows in draw(n=16, d=8))
    optimiser = torch.optim.Adam([first, second], lr=0.05)
    before = contrastive.retrieval(first, second)
    for _ in range(40):
        optimiser.zero_grad()
        contrastive.nt_xent(first, second).backward()
        optimiser.step()
    assert before < 1
    assert contrastive.retrieval(first, second) == 1


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.02}, "temperature=0.02: expected at least 0.025"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"second": torch.ones(4, 2)}, r"shapes \(3, 2\), \(4, 2\), expected \(N,D\)"),
        ({"second": torch.ones(3, 1)}, r"shapes \(3, 2\), \(3, 1\)"),
        ({"first": torch.ones(3), "second": torch.ones(3)}, r"shapes \(3,\), \(3,\)"),
        ({"first": torch.ones(1, 2), "second": torch.ones(1, 2)}, "1 rows, expected at least 2"),
    ],
)
def test_losses_that_cannot_be_are_refused(loss, change, message):
    with pytest.raises(ValueError, match=message):
        loss(**{"first": torch.ones(3, 2), "second": torch.ones(3, 2)} | change)


# Corruption


def rows_that_tell(n, features, dtype=torch.int64):
    """Values (n,features), each of which says from which row and which column it is."""
    return (torch.arange(n).unsqueeze(1) + n * torch.arange(features)).to(dtype)


def origin(corrupted, n):
    """Row and column that each value was taken from."""
    values = corrupted.long()
    return values % n, values // n


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 12),
    features=st.integers(1, 12),
    rate=st.floats(0, 1),
    dtype=st.sampled_from([torch.uint8, torch.uint16, torch.int16, torch.int64, torch.float32, torch.float64]),
    change=st.sampled_from(CORRUPTIONS),
)
def test_what_is_replaced_comes_from_the_same_column_and_the_rest_stays(seed, n, features, rate, dtype, change):
    values = rows_that_tell(n, features, dtype)
    before = values.clone()
    found = change(values, rate, Generator().manual_seed(seed))
    assert torch.equal(values, before)
    assert found.data_ptr() != values.data_ptr()
    assert (found.dtype, found.shape) == (dtype, values.shape)
    rows, columns = origin(found, n)
    assert (columns == torch.arange(features)).all()
    replaced = (rows != torch.arange(n).unsqueeze(1)).sum(dim=1)
    assert replaced.max() <= math.floor(rate * features + 1e-6)
    again = change(values, rate, Generator().manual_seed(seed))
    assert torch.equal(found, again)


@pytest.mark.parametrize(
    ("features", "rate", "count"),
    [(12, 0.2, 2), (12, 0.6, 7), (36, 0.2, 7), (36, 0.6, 21), (5, 0.6, 3), (100, 0.29, 29), (12, 0, 0), (12, 1, 12)],
)
def test_the_number_of_replaced_features_is_rounded_down(features, rate, count):
    assert contrastive.replaced_count(features, rate) == count
    n = 5000
    rows, _ = origin(contrastive.corrupt(rows_that_tell(n, features), rate, Generator().manual_seed(0)), n)
    replaced = (rows != torch.arange(n).unsqueeze(1)).sum(dim=1)
    assert replaced.max() == count
    assert (replaced == count).float().mean() > 0.97  # one in 5000 draws is of the row itself


def test_every_row_draws_its_own_features_and_every_feature_its_own_row():
    n, features = 20_000, 12
    rows, _ = origin(contrastive.corrupt(rows_that_tell(n, features), 0.6, Generator().manual_seed(0)), n)
    replaced = rows != torch.arange(n).unsqueeze(1)
    assert replaced.float().mean(dim=0).tolist() == pytest.approx([7 / 12] * 12, abs=0.015)
    assert len({tuple(row) for row in replaced.tolist()}) > 700  # of 792 sets of 7 of 12
    sources = rows[replaced].double() / n
    assert sources.mean().item() == pytest.approx(0.5, abs=0.005)
    assert sources.var().item() == pytest.approx(1 / 12, abs=0.002)
    one, other = (torch.where(replaced[:, i], rows[:, i].double(), torch.nan) for i in (0, 1))
    both = torch.stack([one, other])[:, replaced[:, 0] & replaced[:, 1]]
    assert abs(torch.corrcoef(both)[0, 1]) < 0.03


def test_a_row_may_draw_itself():
    rows, _ = origin(contrastive.corrupt(rows_that_tell(2, 1000), 1.0, Generator().manual_seed(0)), 2)
    kept = rows == torch.arange(2).unsqueeze(1)
    assert kept.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_corruption_keeps_the_distribution_of_every_feature():
    generator = Generator().manual_seed(0)
    values = torch.randn(20_000, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, 3.0, 9.0])
    found = contrastive.corrupt(values, 1.0, generator)
    torch.testing.assert_close(found.mean(dim=0), values.mean(dim=0), atol=0.1, rtol=0)
    torch.testing.assert_close(found.std(dim=0), values.std(dim=0), atol=0.1, rtol=0.05)


def test_the_released_corruption_draws_one_set_of_features_and_one_other_row_for_each():
    n, features, batches = 7, 12, 400
    generator, values = Generator().manual_seed(0), rows_that_tell(7, 12)
    own, applied = torch.arange(n).unsqueeze(1), 0
    sets, shifts, various = torch.zeros(features), torch.zeros(n), 0
    for _ in range(batches):
        rows, _ = origin(contrastive.corrupt_as_released(values, 0.2, generator), n)
        replaced = rows != own
        if not replaced.any():
            continue
        applied += 1
        assert (replaced == replaced[0]).all()  # the same features in every row
        assert replaced[0].sum() == 2
        sources = rows[:, replaced[0]]
        assert (sources == sources[:, :1]).all()  # one other row for all of them
        sets += replaced[0]
        shift = (sources[:, 0] - own[:, 0]) % n
        shifts += torch.bincount(shift, minlength=n)
        various += len(shift.unique()) > 1  # each row has an offset of its own
    assert applied / batches == pytest.approx(0.5, abs=0.07)
    assert (sets / applied).tolist() == pytest.approx([2 / 12] * 12, abs=0.08)
    assert various == applied
    assert shifts[0] == 0
    assert (shifts[1:] / shifts.sum()).tolist() == pytest.approx([1 / 6] * 6, abs=0.05)


@pytest.mark.parametrize("change", CORRUPTIONS)
def test_a_rate_of_zero_is_a_copy(change):
    values = rows_that_tell(4, 3)
    for seed in range(8):
        found = change(values, 0.0, Generator().manual_seed(seed))
        assert torch.equal(found, values)
        assert found.data_ptr() != values.data_ptr()


@pytest.mark.parametrize("change", CORRUPTIONS)
def test_corruption_leaves_the_global_random_state_as_it_was(change):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    change(rows_that_tell(8, 3), 0.5, Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("change", CORRUPTIONS)
def test_cuda_gives_what_the_cpu_gives(change):
    for dtype in (torch.uint16, torch.float32):
        values = rows_that_tell(64, 12, dtype)
        for seed in range(4):
            expected = change(values, 0.6, Generator().manual_seed(seed))
            found = change(values.cuda(), 0.6, Generator().manual_seed(seed))
            assert found.device.type == "cuda"
            assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("change", CORRUPTIONS)
@pytest.mark.parametrize(
    ("values", "rate", "message"),
    [
        (torch.ones(4, 3), -0.1, "rate=-0.1: expected a number from 0 to 1"),
        (torch.ones(4, 3), 1.1, "rate=1.1"),
        (torch.ones(4, 3), math.nan, "rate=nan"),
        (torch.ones(4), 0.5, r"values: expected \(N,M\), got shape \(4,\)"),
        (torch.ones(4, 3, 2), 0.5, r"got shape \(4, 3, 2\)"),
    ],
)
def test_corruption_that_cannot_be_is_refused(change, values, rate, message):
    with pytest.raises(ValueError, match=message):
        change(values, rate, Generator())


def test_one_row_alone_has_no_other_to_take_from():
    with pytest.raises(ValueError, match="values: 1 rows, expected at least 2"):
        contrastive.corrupt_as_released(torch.ones(1, 3), 0.5, Generator())
    assert torch.equal(contrastive.corrupt(torch.ones(1, 3), 1.0, Generator()), torch.ones(1, 3))


# Measures


@settings(deadline=None, derandomize=True, max_examples=40)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 7), d=st.integers(1, 6))
def test_measures_are_those_of_loops_over_pairs(seed, n, d):
    first, second = draw(seed, n, d, torch.float64)
    x, y = units(first), units(second)
    pairs = [(i, k) for i in range(n) for k in range(i)]
    apart = sum(map(distance, x, y)) / n
    spread = math.log(sum(math.exp(-2 * distance(x[i], x[k])) for i, k in pairs) / len(pairs))
    assert contrastive.alignment(first, second) == pytest.approx(apart)
    assert contrastive.uniformity(first) == pytest.approx(spread, abs=1e-12)
    if d > 1:  # on a line all rows of one sign are equally near
        hits = sum(max(range(n), key=lambda k: dot(x[i], y[k])) == i for i in range(n))
        assert contrastive.retrieval(first, second) == pytest.approx(hits / n)


def test_measures_of_perfect_of_opposite_and_of_collapsed_embeddings():
    rows = torch.eye(4)
    assert contrastive.alignment(rows, 3 * rows) == 0
    assert contrastive.alignment(rows, -rows) == 4
    assert contrastive.uniformity(rows) == pytest.approx(-4)  # squared distances of 2
    assert contrastive.uniformity(torch.ones(4, 3)) == pytest.approx(0, abs=1e-5)
    assert contrastive.retrieval(rows, 3 * rows) == 1
    assert contrastive.retrieval(rows, rows.roll(1, 0)) == 0
    assert contrastive.retrieval(torch.ones(4, 3), torch.ones(4, 3)) == 0.25


def test_uniformity_of_a_collapse_onto_few_points_is_higher_than_that_of_a_sphere():
    generator = Generator().manual_seed(0)
    sphere = torch.randn(300, 16, generator=generator)
    few = sphere[:3].repeat(100, 1)
    assert contrastive.uniformity(sphere) < -3.4
    assert contrastive.uniformity(few) > -1.5


def test_measures_take_embeddings_with_a_gradient_and_in_half_precision():
    first, second = draw(n=64, d=2)
    expected = contrastive.alignment(first, second)
    assert contrastive.alignment(first.requires_grad_(), second) == expected
    assert contrastive.alignment(first.bfloat16(), second.bfloat16()) == pytest.approx(expected, abs=0.02)
    spread, near = contrastive.uniformity(first), contrastive.retrieval(first, first + 1e-4 * second)
    with torch.autocast("cpu", torch.bfloat16):
        assert contrastive.uniformity(first) == spread
        assert contrastive.retrieval(first, first + 1e-4 * second) == near


@pytest.mark.parametrize("measure", [contrastive.alignment, contrastive.retrieval])
def test_measures_of_rows_that_are_no_partners_are_refused(measure):
    with pytest.raises(ValueError, match=r"shapes \(3, 2\), \(4, 2\), expected"):
        measure(torch.ones(3, 2), torch.ones(4, 2))


def test_one_row_alone_has_no_uniformity():
    with pytest.raises(ValueError, match="1 rows, expected at least 2"):
        contrastive.uniformity(torch.ones(1, 2))
