"""Map noise against pixel-by-pixel oracles, its definitions on maps made by hand, and its rates."""

import random
from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import chisquare
from torch import Generator

from rsbook import noise

INTENSITIES = {
    "mask_shift": 6,
    "dilation_erosion": 3,
    "rectify_borders": 4,
    "border_deformation": 5,
    "segment_swap": None,
    "class_swap": None,
}
ON_MAPS = noise.KINDS[:-1]  # kinds whose fraction is one of maps
KINDS = pytest.mark.parametrize("kind", noise.KINDS)
KINDS_ON_MAPS = pytest.mark.parametrize("kind", ON_MAPS)


def generator(seed):
    return Generator().manual_seed(seed)


def simulate(kind, maps, fraction=1.0, num_classes=6, seed=0, **arguments):
    arguments = {"intensity": INTENSITIES[kind]} | arguments
    return noise.simulate(
        kind, maps, fraction=fraction, num_classes=num_classes, generator=generator(seed), **arguments
    )


def land(n, height=40, width=40, classes=6, seed=0):
    """Maps (N,H,W) of smooth patches of land."""
    fields = torch.randn(n, classes, 5, 5, generator=generator(seed))
    return torch.nn.functional.interpolate(fields, size=(height, width), mode="bicubic").argmax(dim=1)


def speckle(n, height, width, classes=32, seed=0):
    """The same map n times, whose pixels are all independent, so that what was done to it can be read off."""
    one = torch.randint(classes, (1, height, width), generator=generator(seed))
    return one.repeat(n, 1, 1)


def differs(before, after):
    return (before != after).flatten(1).any(dim=1)


def flood_fill(one):
    """Segments of a nested list of classes as sets of pixels; −1 is background."""
    height, width = len(one), len(one[0])
    left = {(r, c) for r, c in product(range(height), range(width)) if one[r][c] != -1}
    segments = []
    while left:
        segment, todo = set(), [min(left)]
        left.discard(todo[0])
        while todo:
            r, c = todo.pop()
            segment.add((r, c))
            for near in product((r - 1, r, r + 1), (c - 1, c, c + 1)):
                if near in left and one[near[0]][near[1]] == one[r][c]:
                    left.discard(near)
                    todo.append(near)
        segments.append(segment)
    return segments


def majority_around(one, segment):
    """Most frequent class in the ring around a segment, the lowest of equals; None without any."""
    ring = {near for r, c in segment for near in product((r - 1, r, r + 1), (c - 1, c, c + 1))} - segment
    found = Counter(one[r][c] for r, c in ring if 0 <= r < len(one) and 0 <= c < len(one[0]))
    del found[-1]
    return min(found, key=lambda layer: (-found[layer], layer)) if found else None


def cross(r, c):
    return {(r, c), (r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)}


def dilated(one, segment, times):
    result = [list(row) for row in one]
    layer, grown = one[min(segment)[0]][min(segment)[1]], set(segment)
    for _ in range(times):
        grown = {near for pixel in grown for near in cross(*pixel)}
    for r, c in grown:
        if 0 <= r < len(one) and 0 <= c < len(one[0]) and one[r][c] != -1:
            result[r][c] = layer
    return result


def eroded(one, segment, times):
    majority = majority_around(one, segment)
    if majority is None:
        return one
    result = [list(row) for row in one]
    inside, left = set(product(range(len(one)), range(len(one[0])))), set(segment)
    for _ in range(times):
        left = {pixel for pixel in left if cross(*pixel) & inside <= left}
    for r, c in segment - left:
        result[r][c] = majority
    return result


small_maps = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**31)).map(
    lambda t: np.random.default_rng(t[3]).integers(-1, t[2], (t[0], t[1]))
)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(small_maps)
def test_segments_equal_those_of_a_flood_fill(one):
    numbers = noise._segments(one)
    found = {frozenset(map(tuple, np.argwhere(numbers == k).tolist())) for k in range(1, numbers.max() + 1)}
    assert found == set(map(frozenset, flood_fill(one.tolist())))
    assert ((numbers == 0) == (one == -1)).all()


@settings(deadline=None, derandomize=True, max_examples=250)
@given(small_maps, st.integers(1, 4), st.integers(0, 2**31))
def test_dilation_and_erosion_equal_loops_over_pixels(one, times, seed):
    times = min(times, max(one.shape))
    before = one.tolist()
    outcomes = [way(before, segment, times) for segment in flood_fill(before) for way in (dilated, eroded)]
    after = simulate("dilation_erosion", torch.from_numpy(one[None]), intensity=times, background=-1, seed=seed)
    changed = [outcome for outcome in outcomes if outcome != before]
    if changed:
        assert after[0].tolist() in changed
    else:
        assert after[0].tolist() == before


def test_dilation_and_erosion_agree_with_scipy_in_every_pixel():
    ways = Counter()
    maps = land(80, 33, 47)
    for times in (1, 5, 12):
        results = simulate("dilation_erosion", maps, intensity=times).numpy()
        for before, after in zip(maps.numpy(), results, strict=True):
            segments = [
                (ndimage.label(before == layer, np.ones((3, 3))), layer) for layer in np.unique(before).tolist()
            ]
            found = set()
            for (numbers, count), layer in segments:
                for k in range(1, count + 1):
                    inside = numbers == k
                    grown = ndimage.binary_dilation(inside, iterations=times)
                    kept = ndimage.binary_erosion(inside, iterations=times, border_value=1)
                    ring = before[ndimage.binary_dilation(inside, np.ones((3, 3))) & ~inside]
                    if (np.where(grown, layer, before) == after).all():
                        found.add("dilated")
                    if (np.where(inside & ~kept, np.bincount(ring).argmax(), before) == after).all():
                        found.add("eroded")
            assert found
            ways[min(found)] += len(found) == 1
    assert ways["dilated"] + ways["eroded"] > 200
    assert chisquare([ways["dilated"], ways["eroded"]]).pvalue > 0.001


def test_every_segment_is_dilated_or_eroded_equally_often():
    one = [[0] * 12 for _ in range(9)]
    for r, c in product(range(9), range(12)):
        if c >= 8:
            one[r][c] = 1
        if 2 <= r < 5 and 2 <= c < 5:
            one[r][c] = 2  # an island
    one[8][0] = 3  # one pixel in a corner
    maps = torch.tensor(one).expand(2_000, 9, 12)
    found = Counter(str(after) for after in simulate("dilation_erosion", maps, intensity=1).tolist())
    expected = {str(way(one, segment, 1)) for segment in flood_fill(one) for way in (dilated, eroded)}
    assert set(found) == expected
    assert len(expected) == 8
    assert chisquare(list(found.values())).pvalue > 0.001


def test_mask_shift_has_a_uniform_direction_and_distance():
    side, reach, n = 16, 4.5, 6_000
    maps = speckle(n, side, side)
    one = maps[0].tolist()
    shifts = {}
    for down, right in product(range(-5, 6), range(-5, 6)):
        rows = [one[min(max(r - down, 0), side - 1)] for r in range(side)]
        shifts[str([[row[min(max(c - right, 0), side - 1)] for c in range(side)] for row in rows])] = (down, right)
    assert len(shifts) == 121
    found = Counter(
        shifts[str(after)] for after in simulate("mask_shift", maps, num_classes=32, intensity=reach).tolist()
    )
    # Expected: a fine grid over angles and distances, without those that do not move the map.
    angle, distance = (np.arange(2_000) + 0.5) / 2_000 * 2 * np.pi, (np.arange(2_000) + 0.5) / 2_000 * reach
    down = np.rint(distance[:, None] * np.sin(angle)).astype(int)
    right = np.rint(distance[:, None] * np.cos(angle)).astype(int)
    shares = np.bincount((down * 100 + right + 5_000).ravel(), minlength=10_000).astype(float)
    shares[5_000] = 0
    shares /= shares.sum()
    assert (0, 0) not in found
    cells = [(d, r) for d, r in product(range(-5, 6), range(-5, 6)) if shares[d * 100 + r + 5_000] * n >= 8]
    counts = [found[cell] for cell in cells]
    expected = [shares[d * 100 + r + 5_000] * n for d, r in cells]
    assert sum(counts) > 0.98 * n
    assert chisquare([*counts, n - sum(counts)], [*expected, n - sum(expected)]).pvalue > 0.001


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(32, 32, 5), (120, 120, 16), (7, 11, 3), (5, 9, 9), (4, 6, 2), (1, 5, 2)]
)
def test_rectified_blocks_hold_their_middle_pixel(height, width, factor):
    before = speckle(1, height, width)
    after = simulate("rectify_borders", before, num_classes=32, intensity=factor)
    for top, left in product(range(0, height, factor), range(0, width, factor)):
        bottom, right = min(top + factor, height), min(left + factor, width)
        middle = before[0, (top + bottom) // 2, (left + right) // 2]
        assert (after[0, top:bottom, left:right] == middle).all()


@pytest.mark.parametrize(("height", "width", "sides"), [(120, 60, ((4, 16), (2, 8))), (32, 33, ((2, 4), (2, 4)))])
def test_a_box_has_the_specified_sides_lies_anywhere_and_holds_one_of_its_classes(height, width, sides):
    before = speckle(3_000, height, width)
    after = simulate("border_deformation", before, num_classes=32, intensity=1)
    found = Counter()
    for old, new in zip(before.numpy(), after.numpy(), strict=True):
        rows, columns = np.nonzero(old != new)
        box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert len(set(new[box].ravel())) == 1
        assert new[box][0, 0] in old[box] or min(new[box].shape) < 4  # its last pixel may be outside the changed ones
        found["height", new[box].shape[0]] += 1
        found["width", new[box].shape[1]] += 1
        found["top"] += rows.min() == 0
        found["bottom"] += rows.max() == height - 1
        found["left"] += columns.min() == 0
        found["right"] += columns.max() == width - 1
    assert min(found[side] for side in ("top", "bottom", "left", "right")) > 5
    if height == 120:  # a smaller box has often a side that was of the filled class already
        for name, (low, high) in zip(("height", "width"), sides, strict=True):
            counts = [found[name, side] for side in range(low, high + 1)]
            assert sum(counts) > 0.995 * len(before)
            assert np.allclose(counts, len(before) / len(counts), rtol=0.25)
    for name, (_, high) in zip(("height", "width"), sides, strict=True):
        assert max(key[1] for key in found if key[0] == name) == high


def test_a_box_within_one_class_does_nothing():
    before = torch.zeros(40, 60, 60, dtype=torch.int64)
    before[:, :, 30:] = 1
    after = simulate("border_deformation", before, num_classes=3, intensity=20)
    rows, columns = (before != after).any(dim=0).nonzero(as_tuple=True)
    assert len(rows)
    assert columns.min() >= 30 - 7  # boxes of up to 8 pixels that reach across the border
    assert columns.max() <= 29 + 7
    assert set(after.unique().tolist()) == {0, 1}  # class 2 was in no box


def test_each_class_in_a_box_is_equally_likely_however_few_its_pixels():
    before = torch.zeros(600, 32, 32, dtype=torch.int64)
    before[:, 11, 17] = 1
    after = simulate("border_deformation", before, intensity=1)
    vanished = int((after == 0).flatten(1).all(dim=1).sum())
    assert chisquare([vanished, 600 - vanished]).pvalue > 0.001


def test_as_many_boxes_as_the_intensity_says():
    maps = speckle(300, 120, 120)
    areas = [
        (simulate("border_deformation", maps, num_classes=32, intensity=k) != maps).double().sum().item() / 300
        for k in (1, 8)
    ]
    assert 85 < areas[0] < 110  # mean side 10, and one pixel in 32 was of the class already
    assert 7 < areas[1] / areas[0] < 8  # some overlap


@settings(deadline=None, derandomize=True, max_examples=120)
@given(small_maps, st.integers(0, 2**31))
def test_segment_swap_fills_one_segment_and_adds_pixels_of_its_class_only(one, seed):
    before = one.tolist()
    after = simulate("segment_swap", torch.from_numpy(one[None]), background=-1, seed=seed)[0].numpy()
    explained = (after == one).all()
    for segment in flood_fill(before):
        majority = majority_around(before, segment)
        if majority is not None:
            r, c = min(segment)
            removed = one.copy()
            removed[tuple(zip(*segment, strict=True))] = majority
            explained |= (after[after != removed] == one[r, c]).all()
    assert explained
    possible = any(majority_around(before, segment) is not None for segment in flood_fill(before))
    if not possible:
        assert after.tolist() == before


def test_a_swapped_segment_leaves_its_place_and_returns_elsewhere_in_one_piece_of_its_size():
    maps = torch.zeros(400, 60, 50, dtype=torch.uint8)
    maps[:, 10:22, 20:30] = 2
    maps[:, 13:15, 23:26] = 1  # an island within
    after = simulate("segment_swap", maps)
    errors, centres, pieces = [], [], Counter()
    for new in after.numpy():
        if (new == 0).mean() > 0.9 and (new[10:22, 20:30] != 2).any() and (new == 1).sum() <= 6:  # class 2 was swapped
            errors.append(abs((new == 2).sum() - 114) / 114)
            centres.append(np.argwhere(new == 2).mean(axis=0))
            pieces[len(flood_fill(np.where(new == 2, 2, -1).tolist()))] += 1
    assert chisquare([len(errors), len(after) - len(errors)], [len(after) / 3, len(after) * 2 / 3]).pvalue > 0.001
    assert np.median(errors) < 0.05
    assert pieces[1] > 0.9 * len(errors)
    spread = np.ptp(centres, axis=0)
    assert spread[0] > 30
    assert spread[1] > 25


def test_a_swapped_segment_does_not_return_where_its_class_is_already():
    maps = torch.zeros(300, 60, 60, dtype=torch.int64)
    maps[:, :, :30] = 1
    maps[:, 20:26, 40:46] = 1  # swapped in one map of three
    after = simulate("segment_swap", maps)
    swapped = (after[:, :, :30] == 1).flatten(1).all(dim=1) & ((after[:, :, 30:] == 0).flatten(1).sum(dim=1) > 1_500)
    assert 60 < swapped.sum() < 140
    area = (after[swapped] == 1).flatten(1).sum(dim=1) - 60 * 30
    assert ((area - 36).abs() <= 9).double().mean() > 0.95


def test_swapped_segments_keep_their_area():
    before = land(90, 120, 120)
    errors = []
    for one in before.numpy():
        rng = np.random.default_rng(len(errors))
        for segments, number, _ in noise._random_segments(one, rng):
            removed = segments == number
            if 4 <= removed.sum() <= 1_440:
                takes = one != one[removed][0]
                polygon = noise._polygon_that_takes(removed.sum(), takes, rng)
                errors.append(takes[polygon].sum() / removed.sum() - 1)
    assert len(errors) > 200
    assert np.median(np.abs(errors)) < 0.02
    assert np.percentile(np.abs(errors), 90) < 0.06
    assert abs(np.mean(errors)) < 0.03


def test_polygons_lie_within_the_map_and_have_their_area():
    rng = np.random.default_rng(0)
    for area, shape in product((1, 4, 60, 700), ((30, 40), (80, 12), (1_000, 1))):
        if area > 0.6 * shape[0] * shape[1]:
            continue
        sizes, centres = [], []
        for _ in range(300):
            rows, columns = noise._polygon(area, shape, rng)
            assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(rows)
            assert not len(rows) or (min(rows.min(), columns.min()) >= 0)
            assert not len(rows) or (rows.max() < shape[0] and columns.max() < shape[1])
            sizes.append(len(rows))
            centres += [(rows.mean() / shape[0], columns.mean() / shape[1])] if len(rows) else []
        if min(shape) > 1:
            assert abs(np.mean(sizes) / area - 1) < max(0.02, 0.2 / area**0.5)
            assert np.allclose(np.mean(centres, axis=0), 0.5, atol=0.08)


def segments_of(maps):
    """Every segment of every map: index of the map, pixels as an index, class."""
    for i, one in enumerate(maps.tolist()):
        for segment in flood_fill(one):
            rows, columns = map(list, zip(*segment, strict=True))
            yield i, (rows, columns), one[rows[0]][columns[0]]


@pytest.mark.parametrize("fraction", [0, 0.1, 0.2, 0.3, 0.77, 1])
def test_class_swap_changes_exactly_the_fraction_of_all_segments(fraction):
    before = land(120, 14, 18)
    after = simulate("class_swap", before, fraction=fraction)
    total, swapped = 0, Counter()
    for i, pixels, old in segments_of(before):
        new = after[i][pixels].unique().tolist()
        assert len(new) == 1  # a segment changes as a whole
        total += 1
        if new[0] != old:
            swapped[old, new[0]] += 1
    assert total > 400
    assert sum(swapped.values()) == round(fraction * total)


def test_class_swap_draws_every_other_class_equally_often():
    before = torch.randint(4, (40, 30, 30), generator=generator(1))
    before[:, 1::2] = 9  # rows of background between the segments
    after = simulate("class_swap", before, num_classes=4, background=9)
    found = Counter(zip(before.flatten().tolist(), after.flatten().tolist(), strict=True))
    assert found.pop((9, 9)) == 40 * 15 * 30
    segments = Counter()
    for i, (rows, columns), old in segments_of(torch.where(before == 9, -1, before)):
        segments[old, int(after[i, rows[0], columns[0]])] += 1
    assert set(segments) == {(old, new) for old, new in product(range(4), range(4)) if old != new}
    for old in range(4):
        assert chisquare([segments[old, new] for new in range(4) if new != old]).pvalue > 0.001


@KINDS_ON_MAPS
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.333, 0.5, 1.0])
def test_exactly_the_fraction_of_maps_changes(kind, fraction):
    before = land(203)
    before = before[[len(one.unique()) > 1 for one in before]]
    after = simulate(kind, before, fraction=fraction)
    assert differs(before, after).sum() == round(fraction * len(before))
    assert noise.changes(before, after, 6)["maps_changed"] == pytest.approx(fraction, abs=0.01)


@KINDS_ON_MAPS
def test_each_map_is_chosen_equally_often(kind):
    before = torch.tensor([[0, 1], [1, 1]]).repeat_interleave(3, 0).repeat_interleave(3, 1).expand(8, 6, 6)
    arguments = {"intensity": {"rectify_borders": 4, "border_deformation": 2}.get(kind, INTENSITIES[kind])}
    found = sum(differs(before, simulate(kind, before, fraction=0.5, seed=seed, **arguments)) for seed in range(150))
    assert found.sum() == 600
    assert chisquare(found.numpy()).pvalue > 0.001


@pytest.mark.parametrize("kind", ["mask_shift", "dilation_erosion", "border_deformation", "segment_swap"])
def test_a_map_with_one_odd_pixel_is_changed_too(kind):
    before = torch.zeros(30, 64, 64, dtype=torch.int64)
    before[torch.arange(30), torch.arange(30) * 2, 5] = 1
    intensity = None if kind == "segment_swap" else 1
    assert differs(before, simulate(kind, before, intensity=intensity)).all()


@KINDS
def test_fractions_are_nested_and_a_map_does_not_depend_on_the_others(kind):
    before = land(40)
    some, all_ = simulate(kind, before, fraction=0.3), simulate(kind, before)
    if kind == "class_swap":
        changed = before != some
        assert 0 < changed.sum() < changed.numel()
        assert torch.equal(some[changed], all_[changed])
    else:
        changed = differs(before, some)
        assert torch.equal(some[changed], all_[changed])
        others = before.clone()
        others[::2] = land(20, seed=1)
        assert torch.equal(simulate(kind, others)[1::2], all_[1::2])


@KINDS
@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    n=st.integers(0, 6),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    classes=st.integers(1, 5),
    background=st.sampled_from([None, -1, 7, 2, 0]),
    fraction=st.floats(0, 1),
    smooth=st.booleans(),
    dtype=st.sampled_from([torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16]),
    seed=st.integers(0, 2**31),
)
def test_properties_of_every_noise(kind, n, height, width, classes, background, fraction, smooth, dtype, seed):
    if smooth:
        maps = land(max(n, 1), height, width, classes, seed)[:n]
    else:
        maps = torch.randint(classes, (n, height, width), generator=generator(seed))
    if background == -1 and dtype in (torch.uint8, torch.uint16):
        background = 255
    if background is not None:
        maps[torch.rand(maps.shape, generator=generator(seed)) < 0.2] = background
    maps = maps.to(dtype)
    copy, longest = maps.clone(), max(height, width)
    arguments = {"num_classes": classes, "background": background, "seed": seed}
    if INTENSITIES[kind] is not None:
        arguments["intensity"] = min(INTENSITIES[kind], longest)
    if kind == "rectify_borders" and longest < 2:
        return
    after = simulate(kind, maps, fraction, **arguments)
    assert after.shape == maps.shape
    assert after.dtype == dtype
    assert torch.equal(maps, copy)
    assert not n or after.data_ptr() != maps.data_ptr()
    assert torch.equal(after, simulate(kind, maps, fraction, **arguments))
    assert torch.equal(maps, simulate(kind, maps, 0, **arguments))
    values, before = after.long(), maps.long()
    known = before == before if background is None else before != background
    assert torch.equal(values[~known], before[~known])
    assert ((values[known] >= 0) & (values[known] < classes)).all()
    assert background is None or (values[known] != background).all()
    if kind != "class_swap":
        assert differs(before, values).sum() <= round(fraction * n)
        present = [set(one.unique().tolist()) for one in before]  # no class comes from nowhere
        assert all(set(one.unique().tolist()) <= old for one, old in zip(values, present, strict=True))


@KINDS
def test_another_seed_gives_other_noise_and_the_next_call_too(kind):
    before = land(20)
    first, other = simulate(kind, before, 0.5, seed=1), simulate(kind, before, 0.5, seed=2)
    assert not torch.equal(first, other)
    draws = generator(1)
    arguments = {"fraction": 0.5, "intensity": INTENSITIES[kind], "num_classes": 6, "generator": draws}
    again, following = (noise.simulate(kind, before, **arguments) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, following)
    draws = [generator(3), generator(3)]
    for fraction, draw in zip((0, 1), draws, strict=True):
        noise.simulate(kind, before, **(arguments | {"fraction": fraction, "generator": draw}))
    assert torch.equal(draws[0].get_state(), draws[1].get_state())


def test_maps_at_different_places_get_different_noise():
    for kind in noise.KINDS:
        if kind != "rectify_borders":  # has nothing random but the choice of maps
            before = land(1).expand(10, 40, 40)
            assert len({str(one) for one in simulate(kind, before).tolist()}) > 5


def test_the_global_random_states_are_left_alone():
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    for kind in noise.KINDS:
        noise.changes(land(5), simulate(kind, land(5)), 6)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))  # noqa: NPY002
    assert random.getstate() == states[2]


@KINDS
def test_what_cannot_change_stays_as_it_is(kind):
    one_class = torch.full((3, 9, 8), 4)
    if kind != "class_swap":  # one segment that covers the map
        assert torch.equal(simulate(kind, one_class), one_class)
    assert torch.equal(simulate(kind, one_class * 0, num_classes=1), one_class * 0)
    empty = torch.full((3, 9, 8), 255)
    assert torch.equal(simulate(kind, empty, background=255), empty)
    with_background = one_class.clone()
    with_background[:, 4] = 255
    if kind != "class_swap":
        assert torch.equal(simulate(kind, with_background, background=255), with_background)
    assert torch.equal(simulate(kind, one_class[:0]), one_class[:0])


def test_classes_kept_apart_by_background_do_not_meet_in_a_box_or_a_ring():
    maps = torch.zeros(2, 20, 20, dtype=torch.int64)
    maps[:, :, 8:12] = -1
    maps[:, :, 12:] = 1
    for kind in ("border_deformation", "segment_swap"):
        assert torch.equal(simulate(kind, maps, background=-1), maps)
    after = simulate("dilation_erosion", maps, intensity=5, background=-1)
    assert torch.equal(after[:, :, 8:12], maps[:, :, 8:12])
    assert differs(maps, after).all()  # five steps of dilation reach across four pixels of background


@KINDS
@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_any_memory_layout_gives_the_same_maps(kind, layout):
    plain = land(1).repeat(6, 1, 1) if layout == "expanded" else land(6)
    given_as = {
        "transposed": plain.transpose(1, 2).contiguous().transpose(1, 2),
        "strided": plain.repeat_interleave(2, dim=2)[..., ::2],
        "expanded": plain[:1].expand(6, 40, 40),
    }[layout]
    assert torch.equal(simulate(kind, given_as), simulate(kind, plain))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@KINDS
def test_cuda_gives_what_the_cpu_gives(kind):
    before = land(8)
    after = simulate(kind, before.cuda())
    assert after.device.type == "cuda"
    assert torch.equal(after.cpu(), simulate(kind, before))
    assert noise.changes(before.cuda(), after, 6) == noise.changes(before, after.cpu(), 6)


def test_stronger_noise_changes_more():
    before = land(150)
    for kind, intensities in (
        ("mask_shift", (2, 6, 18)),
        ("dilation_erosion", (1, 4, 16)),
        ("rectify_borders", (2, 6, 18)),
        ("border_deformation", (2, 10, 50)),
    ):
        iou = [noise.changes(before, simulate(kind, before, intensity=k), 6)["mean_iou"] for k in intensities]
        assert all(a > b for a, b in pairwise(iou))


def test_changes_of_two_small_maps():
    before = torch.tensor([[[0, 0, 1], [0, 9, 1]], [[2, 2, 2], [2, 2, 2]]])
    after = torch.tensor([[[0, 0, 0], [0, 9, 3]], [[2, 2, 2], [2, 2, 2]]])
    found = noise.changes(before, after, 5, background=9)
    assert found == {
        "maps_changed": 1 / 2,
        "pixels_changed": 2 / 11,
        "mean_iou": (3 / 4 + 0 + 1 + 0) / 4,  # class 4 is nowhere
        "labels_lost": 1 / 3,
        "labels_gained": 1 / 3,
    }
    above_one = noise.changes(before, after, 5, min_pixels=1, background=9)
    assert (above_one["labels_lost"], above_one["labels_gained"]) == (1 / 3, 0)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    n=st.integers(0, 150),
    classes=st.integers(1, 5),
    min_pixels=st.integers(0, 5),
    background=st.sampled_from([None, -1, 1, 9]),
    seed=st.integers(0, 2**31),
)
def test_changes_equal_a_count_of_pixels(n, classes, min_pixels, background, seed):
    rng = np.random.default_rng(seed)
    old, new = rng.integers(0, classes, (2, n, 3, 4))
    new = np.where(rng.random((n, 1, 1)) < 0.5, old, new)
    if background is not None:
        old[rng.random(old.shape) < 0.3] = background
        new[rng.random(new.shape) < 0.3] = background
    found = noise.changes(torch.from_numpy(old), torch.from_numpy(new), classes, min_pixels, background)
    pixels = [
        pair for pair in zip(old.ravel().tolist(), new.ravel().tolist(), strict=True) if pair != (background,) * 2
    ]
    ious, before, lost, gained = [], 0, 0, 0
    for layer in set(range(classes)) - {background}:
        either = sum(layer in pair for pair in pixels)
        ious += [sum(pair == (layer, layer) for pair in pixels) / either] if either else []
        for a, b in zip(old, new, strict=True):
            was, now = (a == layer).sum() > min_pixels, (b == layer).sum() > min_pixels
            before, lost, gained = before + was, lost + (was and not now), gained + (now and not was)
    expected = {
        "maps_changed": (sum((a != b).any() for a, b in zip(old, new, strict=True)), n),
        "pixels_changed": (sum(a != b for a, b in pixels), len(pixels)),
        "mean_iou": (sum(ious), len(ious)),
        "labels_lost": (lost, before),
        "labels_gained": (gained, before),
    }
    assert list(found) == list(expected)
    for name, (part, whole) in expected.items():
        share = part / whole if whole else (float("nan") if part == 0 else float("inf"))
        assert found[name] == pytest.approx(share, nan_ok=True), name


MAPS = torch.zeros(4, 5, 6, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "shift"}, "kind='shift': expected one of mask_shift, dilation_erosion"),
        ({"maps": MAPS[0]}, r"maps: expected \(N,H,W\) .*got shape \(5, 6\)"),
        ({"maps": MAPS[:, :0]}, r"maps: .*at least one pixel"),
        ({"maps": MAPS.float()}, "maps: expected integers"),
        ({"maps": MAPS.bool()}, "maps: expected integers"),
        ({"maps": MAPS + 3}, "maps: class index 3 is outside 0 … 2"),
        ({"maps": MAPS - 1}, "maps: class index -1 is outside 0 … 2"),
        ({"maps": MAPS - 1, "background": 255}, "maps: class index -1 is outside 0 … 2"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"fraction": -0.1}, "fraction=-0.1: expected a number from 0 to 1"),
        ({"fraction": 25}, "fraction=25: expected a number from 0 to 1"),
        ({"fraction": float("nan")}, "fraction=nan"),
        ({"fraction": None}, "fraction=None"),
        ({"intensity": None}, "intensity=None: for mask_shift expected a number of pixels, at least 1"),
        ({"intensity": 0.5}, "intensity=0.5"),
        ({"intensity": True}, "intensity=True"),
        ({"intensity": 6.5}, "intensity=6.5: .*at most the longer side of the map, 6"),
        ({"intensity": float("nan")}, "intensity=nan"),
        ({"kind": "dilation_erosion", "intensity": 1.5}, "intensity=1.5: for dilation_erosion expected an integer"),
        ({"kind": "dilation_erosion", "intensity": 0}, "intensity=0"),
        ({"kind": "dilation_erosion", "intensity": 7}, "intensity=7"),
        ({"kind": "rectify_borders", "intensity": 1}, "intensity=1: for rectify_borders expected an integer, at least"),
        ({"kind": "rectify_borders", "intensity": None}, "intensity=None"),
        ({"kind": "border_deformation", "intensity": 0}, "intensity=0: .*at least 1$"),
        ({"kind": "border_deformation", "intensity": None}, "intensity=None"),
        ({"kind": "segment_swap", "intensity": 3}, "intensity=3: segment_swap has none, expected None"),
        ({"kind": "class_swap", "intensity": 0}, "intensity=0: class_swap has none, expected None"),
    ],
)
def test_bad_input_is_named(arguments, message):
    arguments = {"kind": "mask_shift", "maps": MAPS, "fraction": 0.5, "intensity": 2, "num_classes": 3} | arguments
    with pytest.raises(ValueError, match=message):
        noise.simulate(**arguments, generator=generator(0))


def test_bad_input_to_changes_is_named():
    with pytest.raises(ValueError, match=r"after: expected the shape of before \(4, 5, 6\), got \(3, 5, 6\)"):
        noise.changes(MAPS, MAPS[:3], 3)
    with pytest.raises(ValueError, match="maps: class index 3 is outside"):
        noise.changes(MAPS, MAPS + 3, 3)
    with pytest.raises(ValueError, match="min_pixels=-1"):
        noise.changes(MAPS, MAPS, 3, min_pixels=-1)
