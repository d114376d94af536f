"""AffinityNet against loops over single pairs of pixels, and its random walk against dense matrices."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator
from torch.utils._python_dispatch import TorchDispatchMode

from rsbook import affinity

OFFSETS = affinity.neighbours(5)
SIZES = [(1, 1), (3, 2), (2, 9), (6, 7)]  # all but the last smaller than the neighbourhood


def draw(seed=0, batch=2, classes=3, size=(6, 7), channels=4, spread=0.5):
    """Maps (B,L,h,w) in 0 … 1, present classes (B,L) and features (B,F,h,w)."""
    generator = Generator().manual_seed(seed)
    maps = torch.rand(batch, classes, *size, generator=generator) ** 2
    present = torch.rand(batch, classes, generator=generator) < 0.6
    return maps, present, spread * torch.randn(batch, channels, *size, generator=generator)


def pixels(*size):
    return [tuple(at) for at in torch.cartesian_prod(*map(torch.arange, size)).reshape(-1, len(size)).tolist()]


def slow_affinity(features, i, j):
    """Of one image (F,h,w)."""
    gaps = [abs(a - b) for a, b in zip(features[:, *i].tolist(), features[:, *j].tolist(), strict=True)]
    return math.exp(-sum(gaps) / len(gaps))


def slow_pairs(size, radius=5):
    """All pairs of different pixels nearer than the radius, each once, in the order of reading."""
    every = pixels(*size)
    return [(i, j) for n, i in enumerate(every) for j in every[n + 1 :] if math.dist(i, j) < radius]


def rounding(steps):
    """What so many steps may lose or gain: in float32 columns of T sum to 1 but for a rounding, and so do products."""
    return 1e-6 + 2.0**-22 * steps


def slow_transition(features, beta, radius=5):
    """Of one image, dense, float64: columns sum to one."""
    size = features.shape[1:]
    index = {at: n for n, at in enumerate(pixels(*size))}
    dense = torch.eye(len(index), dtype=torch.float64)
    for i, j in slow_pairs(size, radius):
        dense[index[i], index[j]] = dense[index[j], index[i]] = slow_affinity(features, i, j) ** beta
    return dense / dense.sum(dim=0)


# Neighbours


@pytest.mark.parametrize(("radius", "count"), [(2, 4), (3, 12), (4, 22), (5, 34), (6, 54), (8, 96)])
def test_neighbours_are_half_of_all_that_are_nearer(radius, count):
    found = affinity.neighbours(radius)
    square = range(-radius, radius + 1)
    near = {(y, x) for y in square for x in square if 0 < y * y + x * x < radius * radius}
    other_half = {(-y, -x) for y, x in found}
    assert set(found) | other_half == near
    assert not set(found) & other_half
    assert len(found) == len(set(found)) == len(near) // 2 == count
    assert found == sorted(found)


def test_the_papers_radius_has_34_neighbours_and_one_below_2_none():
    assert len(OFFSETS) == 34
    with pytest.raises(ValueError, match="radius=1: expected 2 pixels or more"):
        affinity.neighbours(1)


# Labels


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    levels=st.sampled_from([0, 2, 8]),
    exponents=st.sampled_from([(4.0, 32.0), (1.0, 1.0), (1.0, 2.0)]),
)
def test_labels_are_those_of_single_pixels(seed, levels, exponents):
    maps, present, _ = draw(seed)
    if levels:  # ties between classes and with the background, and pixels of 0 and 1
        maps = (maps * (levels + 1)).floor().clamp(max=levels) / levels
    low, high = exponents
    found = affinity.confident_labels(maps, present, low, high)
    for b, y, x in pixels(*found.shape):
        scores = [maps[b, c, y, x].item() if present[b, c] else 0.0 for c in range(3)]
        best = max(scores)
        expected = -1
        if best > (1 - best) ** low:
            expected = scores.index(best)
        if best <= (1 - best) ** high:
            expected = 3
        assert found[b, y, x].item() == expected


def test_the_low_exponent_asks_more_of_the_foreground_and_the_high_one_of_the_background():
    maps = torch.tensor([0.0, 0.06, 0.08, 0.27, 0.28, 1.0]).reshape(1, 1, 1, 6)
    present = torch.ones(1, 1, dtype=torch.bool)
    assert affinity.confident_labels(maps, present).tolist() == [[[1, 1, -1, -1, 0, 0]]]
    assert affinity.confident_labels(maps, present, low=32).tolist() == [[[1, 1, 0, 0, 0, 0]]]
    assert affinity.confident_labels(maps, present, high=4).tolist() == [[[1, 1, 1, 1, 0, 0]]]
    assert (affinity.confident_labels(maps, ~present) == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": torch.zeros(2, 3, 4)}, "maps: expected float of shape"),
        ({"maps": torch.zeros(2, 3, 4, 4, dtype=torch.int64)}, "maps: expected float of shape"),
        ({"maps": torch.full((2, 3, 4, 4), 1.5)}, r"maps: expected values in 0 … 1, got 1.5 … 1.5"),
        ({"maps": torch.full((2, 3, 4, 4), torch.nan)}, r"maps: expected values in 0 … 1"),
        ({"present": torch.ones(2, 3)}, r"present: expected bool of shape \(2, 3\)"),
        ({"present": torch.ones(2, 2, dtype=torch.bool)}, r"present: expected bool of shape \(2, 3\)"),
        ({"low": 33.0}, "low=33.0, high=32.0: expected exponents"),
        ({"low": 0.0}, "low=0.0, high=32.0: expected exponents"),
    ],
)
def test_labels_refuse_what_does_not_fit(change, message):
    given = {"maps": torch.zeros(2, 3, 4, 4), "present": torch.ones(2, 3, dtype=torch.bool)} | change
    with pytest.raises(ValueError, match=message):
        affinity.confident_labels(**given)


# Affinities and their loss


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [2, 5])
def test_affinities_are_those_of_single_pairs(size, radius):
    _, _, features = draw(size=size)
    offsets = affinity.neighbours(radius)
    found = affinity.affinities(features, offsets)
    assert found.shape == (2, len(offsets), *size)
    for b in range(2):
        expected = torch.zeros(len(offsets), *size)
        for i, j in slow_pairs(size, radius):
            expected[offsets.index((j[0] - i[0], j[1] - i[1])), *i] = slow_affinity(features[b], i, j)
        torch.testing.assert_close(found[b], expected)


def slow_loss(features, labels, background, radius=5):
    """By loops; differentiable, so that its gradients can be compared as well."""
    kinds = {"ground": [], "same": [], "different": []}
    for b in range(len(features)):
        for i, j in slow_pairs(labels.shape[1:], radius):
            one, other = labels[b, *i].item(), labels[b, *j].item()
            if one < 0 or other < 0:
                continue
            a = torch.exp(-(features[b, :, *i] - features[b, :, *j]).abs().mean())
            if one != other:
                kinds["different"].append(-torch.log(1 + 1e-5 - a))
            else:
                kinds["ground" if one == background else "same"].append(-torch.log(a))
    means = {kind: torch.stack(terms).mean() if terms else 0.0 for kind, terms in kinds.items()}
    return means["ground"] / 4 + means["same"] / 4 + means["different"] / 2


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("labelled", [[-1, 0, 1, 2], [2], [0], [0, 1], [-1, 2, 2, 2]])
def test_loss_and_gradient_are_those_of_single_pairs(size, labelled):
    generator = Generator().manual_seed(1)
    features = draw(size=size)[2].requires_grad_()
    labels = torch.tensor(labelled)[torch.randint(len(labelled), (2, *size), generator=generator)]
    found = affinity.affinity_loss(features, labels, 2, OFFSETS)
    expected = slow_loss(features, labels, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    gradients = [torch.autograd.grad(one, features)[0] for one in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_a_loss_without_a_pair_is_0_and_has_a_gradient():
    features = draw()[2].requires_grad_()
    loss = affinity.affinity_loss(features, torch.full((2, 6, 7), -1), 3, OFFSETS)
    loss.backward()
    assert loss.item() == 0
    assert (features.grad == 0).all()


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3, 1e30])
def test_loss_and_gradient_are_finite_for_pixels_that_are_equal_and_for_such_that_are_far_apart(scale):
    _, _, features = draw(spread=scale)
    labels = torch.randint(4, (2, 6, 7), generator=Generator().manual_seed(0)) - 1
    features.requires_grad_()
    loss = affinity.affinity_loss(features, labels, 2, OFFSETS)
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()


def test_loss_falls_to_nothing_where_affinities_are_as_the_labels_say():
    labels = torch.zeros(1, 6, 7, dtype=torch.int64)
    labels[:, :, 3:] = 1
    assert affinity.affinity_loss(1e3 * labels[:, None].float(), labels, 1, OFFSETS).item() == pytest.approx(
        0, abs=1e-4
    )
    assert affinity.affinity_loss(torch.zeros(1, 2, 6, 7), labels, 1, OFFSETS).item() == pytest.approx(5.756, abs=1e-2)


def test_loss_refuses_labels_of_another_size_and_offsets_of_both_halves():
    features = torch.zeros(1, 2, 4, 4)
    with pytest.raises(
        ValueError, match=r"labels: expected int64 of shape \(1, 4, 4\), got torch.int64 of \(1, 4, 5\)"
    ):
        affinity.affinity_loss(features, torch.zeros(1, 4, 5, dtype=torch.int64), 1, OFFSETS)
    with pytest.raises(ValueError, match="labels: expected int64"):
        affinity.affinity_loss(features, torch.zeros(1, 4, 4), 1, OFFSETS)
    for wrong in ([], [(0, 0), (0, 1)], [(0, -1)], OFFSETS[::-1], [(0, 1), (0, 1)]):
        with pytest.raises(ValueError, match=r"offsets=.*: expected sorted ones of half a plane"):
            affinity.affinities(features, wrong)


# The transition matrix and the walk


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("radius", [2, 5])
@pytest.mark.parametrize("beta", [1.0, 8.0])
def test_transition_is_the_dense_one(size, radius, beta):
    features = draw(size=size)[2][0].requires_grad_()
    offsets = affinity.neighbours(radius)
    matrix = affinity.transition(affinity.affinities(features[None], offsets)[0], offsets, beta)
    n = size[0] * size[1]
    assert matrix.layout == torch.sparse_csc
    assert matrix.shape == (n, n)
    assert matrix.dtype == torch.float32
    assert not matrix.requires_grad
    dense = matrix.to_dense()
    torch.testing.assert_close(dense.double(), slow_transition(features, beta, radius), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(dense.sum(dim=0), torch.ones(n))
    parts = matrix.ccol_indices(), matrix.row_indices(), matrix.values()
    torch.sparse_csc_tensor(*parts, matrix.shape, check_invariants=True)  # sorted, none twice, none outside


def test_transition_of_the_size_of_voc_stores_pairs_and_no_more():
    matrix = affinity.transition(affinity.affinities(torch.rand(1, 2, 41, 41), OFFSETS)[0], OFFSETS)
    pairs = sum((41 - dy) * (41 - abs(dx)) for dy, dx in OFFSETS)
    assert matrix.values().numel() == 41**2 + 2 * pairs < 41**4 / 24


def test_transition_refuses_affinities_of_other_offsets():
    with pytest.raises(ValueError, match=r"affinity: expected shape \(34,h,w\), got \(4, 6, 7\)"):
        affinity.transition(torch.zeros(4, 6, 7), OFFSETS)
    with pytest.raises(ValueError, match=r"affinity: expected shape \(34,h,w\), got \(1, 34, 6, 7\)"):
        affinity.transition(torch.zeros(1, 34, 6, 7), OFFSETS)


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 16, 255, 256, 1024])
def test_a_walk_is_so_many_steps(steps, spread):
    maps, _, features = draw(spread=spread)
    matrix = affinity.transition(affinity.affinities(features[:1], OFFSETS)[0], OFFSETS)
    given = maps[0].flatten(1).t().contiguous().t()  # as the walk lays them out itself; they must stay as they are
    before = given.clone()
    expected = given.double() @ torch.linalg.matrix_power(slow_transition(features[0], 8), steps)
    found = affinity.walk(given, matrix, steps)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=rounding(steps))
    products = given
    for _ in range(steps):
        products = products @ matrix.to_dense()
    torch.testing.assert_close(found, products, rtol=0, atol=rounding(steps))
    assert torch.equal(given, before)
    with pytest.raises(ValueError, match="steps=-1: expected 0 or more"):
        affinity.walk(given, matrix, -1)


@pytest.mark.parametrize("steps", [0, 1, 7, 256, 5000])
def test_a_walk_leaves_out_less_than_float32_can_tell_and_takes_few_products(steps):
    weights = affinity._walk_weights(steps)
    x = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    angles = x.arccos()
    series = sum(weight * torch.cos(k * angles) for k, weight in enumerate(weights))
    torch.testing.assert_close(series, x**steps, rtol=0, atol=1.1e-10)
    assert len(weights) - 1 <= min(steps, 6.5 * math.sqrt(steps) + 1)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    size=st.sampled_from(SIZES),
    radius=st.sampled_from([2, 3, 5]),
    beta=st.sampled_from([1.0, 8.0, 20.0]),
    steps=st.sampled_from([0, 1, 5, 64, 256]),
    alpha=st.sampled_from([1.0, 16.0]),
    spread=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_random_walk_equals_the_dense_computation(seed, size, radius, beta, steps, alpha, spread):
    maps, present, features = draw(seed, size=size, spread=spread)
    found = affinity.random_walk(
        maps,
        present,
        features,
        offsets=affinity.neighbours(radius),
        beta=beta,
        steps=steps,
        background_alpha=alpha,
    )
    assert found.shape == (2, 4, *size)
    for b in range(2):
        kept = maps[b].double() * present[b, :, None, None]
        columns = torch.cat([kept, (1 - kept.amax(dim=0, keepdim=True)) ** alpha]).flatten(1)
        power = torch.linalg.matrix_power(slow_transition(features[b], beta, radius), steps)
        torch.testing.assert_close(found[b].double(), (columns @ power).reshape(4, *size), rtol=0, atol=rounding(steps))
        assert (found[b, :3][~present[b]] == 0).all()
    assert ((found >= 0) & (found <= 1)).all()


class Largest(TorchDispatchMode):
    """The most values that any tensor had which was made meanwhile."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(one, torch.Tensor):
                count = one.numel() if one.layout == torch.strided else one._nnz()
                self.values = max(self.values, count)
        return out


def test_nothing_is_dense_in_a_walk_of_the_size_of_voc():
    maps, present, features = draw(batch=1, classes=20, size=(41, 41), channels=16)
    affinity._pattern.cache_clear()
    with Largest() as largest:
        affinity.random_walk(maps, present, features, offsets=OFFSETS)
    assert 0 < largest.values <= 2 * (2 * 34 + 1) * 41**2 < 41**4 / 10
    with Largest() as dense:
        torch.eye(41**2) @ torch.eye(41**2)
    assert dense.values == 41**4


def test_scenes_of_a_batch_do_not_meet_and_a_walk_has_no_gradient():
    maps, present, features = draw()
    both = affinity.random_walk(maps, present, features.requires_grad_(), offsets=OFFSETS)
    assert not both.requires_grad
    for b in range(2):
        alone = affinity.random_walk(*(one[b : b + 1] for one in (maps, present, features)), offsets=OFFSETS)
        assert torch.equal(both[b : b + 1], alone)


def test_a_walk_fills_what_looks_alike_and_stops_where_it_does_not():
    """A class seen on most of one field is then seen on all of it, and not in the next one."""
    features, maps = torch.zeros(1, 1, 12, 12), torch.zeros(1, 2, 12, 12)
    features[..., 6:] = 10.0
    maps[0, 0, :, :6] = (torch.rand(12, 6, generator=Generator().manual_seed(0)) < 0.7).float()
    present = torch.tensor([[True, False]])
    before = affinity.random_walk(maps, present, features, offsets=OFFSETS, steps=0).argmax(dim=1)
    after = affinity.random_walk(maps, present, features, offsets=OFFSETS).argmax(dim=1)
    assert torch.equal(before == 0, maps[:, 0] == 1)
    assert (after[..., :6] == 0).all()
    assert (after[..., 6:] == 2).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": torch.full((2, 3, 6, 7), -0.5)}, "maps: expected values in 0 … 1, got -0.5"),
        ({"present": torch.ones(3, 2, dtype=torch.bool)}, "present: expected bool"),
        ({"features": torch.zeros(2, 4, 7, 6)}, r"features: expected \(B,F,h,w\) to fit maps \(2, 3, 6, 7\)"),
        ({"features": torch.zeros(1, 4, 6, 7)}, r"features: .* got \(1, 4, 6, 7\)"),
        ({"features": torch.zeros(2, 6, 7)}, r"features: .* got \(2, 6, 7\)"),
        ({"offsets": [(0, -1)]}, "offsets="),
        ({"steps": -1}, "steps=-1"),
    ],
)
def test_a_random_walk_refuses_what_does_not_fit(change, message):
    maps, present, features = draw()
    given = {"maps": maps, "present": present, "features": features, "offsets": OFFSETS} | change
    with pytest.raises(ValueError, match=message):
        affinity.random_walk(**given)


# The network


def stages(seed=0):
    generator = Generator().manual_seed(seed)
    shapes = [(2, 8, 16, 16), (2, 12, 8, 8), (2, 20, 4, 4)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_features_have_the_size_of_the_coarsest_map_but_one_or_the_given_one():
    network = affinity.AffinityNet((8, 12, 20), Generator().manual_seed(0))
    assert network(stages()).shape == (2, 448, 8, 8)
    assert network(stages(), (5, 9)).shape == (2, 448, 5, 9)
    single = affinity.AffinityNet((8,), Generator().manual_seed(0), widths=(3,))
    assert single(stages()[:1]).shape == (2, 3, 16, 16)


def test_features_are_matrix_products_and_elu_at_every_pixel():
    network = affinity.AffinityNet((8, 12), Generator().manual_seed(0), widths=(3, 5))
    maps = [stages()[1][:, :8], stages()[1]]  # of one size, so that nothing is resized
    with torch.no_grad():
        found = network(maps)
        weights = [stage.weight[:, :, 0, 0] for stage in (*network.stages, network.joint)]
        for b, y, x in pixels(2, 8, 8):
            parts = [torch.nn.functional.elu(w @ one[b, :, y, x]) for w, one in zip(weights, maps, strict=False)]
            expected = torch.nn.functional.elu(weights[-1] @ torch.cat(parts))
            torch.testing.assert_close(found[b, :, y, x], expected, rtol=1e-4, atol=1e-5)


def test_weights_depend_on_the_generator_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again = (affinity.AffinityNet((8, 12, 20), Generator().manual_seed(0)) for _ in range(2))
    other = affinity.AffinityNet((8, 12, 20), Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first(stages()), again(stages()))
    assert not torch.equal(first(stages()), other(stages()))


def test_a_network_learns_where_one_field_ends_from_maps_of_a_fixed_backbone():
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[:, :, 4:] = 1
    labels[:, 6:] = -1
    maps = stages()
    maps[1][:, 0] += 2 * labels
    network = affinity.AffinityNet((8, 12, 20), Generator().manual_seed(0), widths=(4, 4, 4))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = affinity.affinity_loss(network(maps), labels, 1, OFFSETS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_network_refuses_other_numbers_of_maps():
    generator = Generator().manual_seed(0)
    for channels in ((8, 12), ()):
        with pytest.raises(ValueError, match="expected one width for each map's channels"):
            affinity.AffinityNet(channels, generator)
    network = affinity.AffinityNet((8, 12, 20), generator)
    with pytest.raises(ValueError, match="maps: expected 3, got 2"):
        network(stages()[:2])


def test_no_background_comes_from_padding():
    """An object that fills its photograph stays one, however far the walk goes; with padding as ground it is lost."""
    maps = torch.zeros(1, 1, 16, 16)
    maps[:, :, :10] = 0.2
    inside = torch.zeros(1, 16, 16, dtype=torch.bool)
    inside[:, :10] = True
    given = {"offsets": affinity.neighbours(3), "steps": 256}
    features, present = torch.zeros(1, 4, 16, 16), torch.ones(1, 1, dtype=torch.bool)
    found = affinity.random_walk(maps, present, features, inside=inside, **given)
    assert (found.argmax(dim=1)[inside] == 0).all()
    without = affinity.random_walk(maps, present, features, **given)
    assert (without.argmax(dim=1)[inside] == 1).any()
    everywhere = affinity.random_walk(maps, present, features, inside=torch.ones_like(inside), **given)
    assert torch.equal(everywhere, without)
