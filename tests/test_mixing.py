"""Mixing against an oracle that looks up every pixel of every mixture, and against the distributions of Algorithm 1."""

import random
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import binom, chisquare
from torch import Generator

from rsbook import mixing, positions
from rsbook.positions import AreaTables

AREA_RANGES = ((0.1, 0.3), (0.1, 0.7), (0.3, 0.5), (0.3, 0.7), (0.02, 1.0), (0.5, 0.5), (1.0, 1.0))
DTYPES = (np.uint8, np.uint16, np.float16, np.float32)


def generator(seed):
    return Generator().manual_seed(seed)


def raw(tensor):
    """The bytes of a tensor, so that not-a-numbers and signed zeros are compared too."""
    array = (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
    return array.view(f"u{array.itemsize}")


def some_box_fits(height, width, area_range):
    sizes = product(range(1, height + 1), range(1, width + 1))
    return any(area_range[0] <= h * w / (height * width) <= area_range[1] for h, w in sizes)


class Case:
    """One random batch: images of any bytes, noisy labels, class positions as one boolean layer a class."""

    batch = 200

    def __init__(self, number):
        rng = np.random.default_rng(number)
        self.number, self.classes = number, int(rng.choice((1, 2, 6, 7, 19, 31, 32, rng.integers(1, 33))))
        self.min_pixels, self.probability = int(rng.choice((0, 0, 1, 3, 10))), float(rng.choice((0, 0.5, 0.5, 1, 1)))
        self.aligned = bool(rng.integers(4) == 0)
        while True:
            bands, self.height, self.width = int(rng.integers(1, 5)), int(rng.integers(1, 14)), int(rng.integers(1, 14))
            self.area_range = AREA_RANGES[rng.integers(len(AREA_RANGES))]
            if some_box_fits(self.height, self.width, self.area_range):
                break
        dtype = np.dtype(DTYPES[number % len(DTYPES)])
        content = rng.integers(0, 256, (self.batch, bands, self.height, self.width * dtype.itemsize), dtype=np.uint8)
        self.images = torch.from_numpy(content.view(dtype))
        self.labels = torch.from_numpy(rng.random((self.batch, self.classes)) < 0.4)

        # The data set is larger than the batch and in another order.
        self.index = torch.from_numpy(rng.permutation(self.batch + 40)[: self.batch])
        shape = (self.batch + 40, self.height, self.width)
        if number % 2:
            maps = torch.from_numpy(rng.integers(0, self.classes + 1, shape))  # the last index is background
            every_mask = torch.stack([maps == layer for layer in range(self.classes)], dim=1)
            every_bit = positions.from_reference_maps(maps, self.classes, background=self.classes)
        else:
            share = rng.random((shape[0], self.classes, 1, 1)) ** 2
            every_mask = torch.from_numpy(rng.random((shape[0], self.classes, *shape[1:])) < share)
            every_bit = positions.from_explanation_masks(every_mask)
        self.masks, self.bits = every_mask[self.index].numpy(), every_bit[self.index]
        self.tables = AreaTables(every_bit, self.classes)[self.index]

    def cutmix(self, class_positions):
        return mixing.cutmix(
            self.images,
            self.labels,
            class_positions,
            area_range=self.area_range,
            probability=self.probability,
            aligned=self.aligned,
            min_pixels=self.min_pixels if class_positions is not None else 0,
            generator=generator(self.number),
        )

    def fmix(self, class_positions):
        return mixing.fmix(
            self.images,
            self.labels,
            class_positions,
            area_range=self.area_range,
            probability=self.probability,
            min_pixels=self.min_pixels,
            generator=generator(self.number),
        )

    def cutmix_rare(self, class_positions):
        return mixing.cutmix(
            self.images,
            self.labels,
            class_positions,
            area_range=self.area_range,
            probability=self.probability,
            min_pixels=self.min_pixels,
            class_weights=torch.arange(1.0, self.classes + 1),
            generator=generator(self.number),
        )

    def cuda(self):
        self.images, self.labels, self.bits = self.images.cuda(), self.labels.cuda(), self.bits.cuda()
        self.tables = self.tables.to("cuda")
        return self


def origin(i, partner, box, source, height, width):
    """Where each pixel of mixture i comes from: scenes, rows and columns (H·W), one pixel after another."""
    top, left, bottom, right = box
    from_top, from_left, _, _ = source
    scenes, rows, columns = [], [], []
    for row in range(height):
        for column in range(width):
            inside = top <= row < bottom and left <= column < right
            scenes.append(partner if inside else i)
            rows.append(row - top + from_top if inside else row)
            columns.append(column - left + from_left if inside else column)
    return scenes, rows, columns


def check_against_oracle(case):
    """All ways to mix the batch of `case` against its pixels; returns boxes and sources."""
    before = [tensor.clone() for tensor in (case.images, case.labels, case.bits)]
    by_area, by_bits, by_tables = case.cutmix(None), case.cutmix(case.bits), case.cutmix(case.tables)
    ways = (by_area, by_bits, by_tables)
    for way in ways[1:]:
        for field in ("boxes", "sources", "partner", "applied"):
            assert torch.equal(getattr(way, field), getattr(by_area, field))
    gathered = mixing._paste_by_gather(case.images, by_area.boxes, by_area.sources, by_area.partner, by_area.applied)

    size = case.height * case.width
    pixels, given = raw(case.images), case.labels.numpy()
    expected_images = pixels.copy()
    expected_masks, propagated = case.masks.copy(), given.astype(np.float32)
    averaged = propagated.copy()
    boxes, sources = by_area.boxes.tolist(), by_area.sources.tolist()
    for i in by_area.applied.nonzero().flatten().tolist():
        j, (top, left, bottom, right) = int(by_area.partner[i]), boxes[i]
        scene, row, column = origin(i, j, boxes[i], sources[i], case.height, case.width)
        expected_images[i] = pixels[scene, :, row, column].T.reshape(expected_images[i].shape)
        layers = case.masks[scene, :, row, column].T
        expected_masks[i] = layers.reshape(expected_masks[i].shape)
        propagated[i] = layers.sum(axis=1) > case.min_pixels
        area = (bottom - top) * (right - left)
        for layer in range(case.classes):
            own, other = int(given[i, layer]), int(given[j, layer])
            averaged[i, layer] = (own * (size - area) + other * area) / size

    for way in ways:
        assert way.images.shape == case.images.shape
        assert way.images.dtype == case.images.dtype
        assert np.array_equal(raw(way.images), expected_images)
        assert way.labels.dtype == torch.float32
    assert np.array_equal(raw(gathered), expected_images)
    assert np.array_equal(by_area.labels.numpy(), averaged)
    assert by_area.positions is None
    expected_bits = (expected_masks.astype(np.int64) << np.arange(case.classes).reshape(-1, 1, 1)).sum(axis=1)
    for way in ways[1:]:
        assert np.array_equal(way.labels.numpy(), propagated)
        assert np.array_equal(way.positions.numpy().astype(np.int64) & 0xFFFFFFFF, expected_bits)
        read = positions.to_labels(way.positions, case.classes, case.min_pixels).float()
        assert torch.equal(read[way.applied], way.labels[way.applied])
    for tensor, copy in zip((case.images, case.labels, case.bits), before, strict=True):
        assert np.array_equal(raw(tensor), raw(copy))
    return by_area


def test_a_hundred_thousand_boxes_equal_the_pixel_oracle():
    drawn, mixed, touched = 0, 0, Counter()
    for number in range(500):
        case = Case(number)
        result = check_against_oracle(case)
        drawn, mixed = drawn + case.batch, mixed + int(result.applied.sum())
        for kind, boxes in (("hole", result.boxes), ("patch", result.sources)):
            top, left, bottom, right = boxes[result.applied].unbind(dim=1)
            assert (top >= 0).all()
            assert (left >= 0).all()
            for side, touches in (
                ("top", top == 0),
                ("left", left == 0),
                ("bottom", bottom == case.height),
                ("right", right == case.width),
            ):
                touched[kind, side] += int(touches.sum())
    assert drawn == 100_000
    assert mixed > 50_000
    assert len(touched) == 8
    assert min(touched.values()) > 10_000


@pytest.mark.parametrize("box", [(0, 0, 2, 3), (0, 2, 2, 5), (2, 0, 4, 3), (2, 2, 4, 5), (0, 0, 4, 5), (0, 0, 4, 1)])
@pytest.mark.parametrize("paste", [mixing._paste_by_slices, mixing._paste_by_gather])
def test_both_pastes_reach_every_border(paste, box):
    images = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)
    boxes = torch.tensor([box, box])
    mixed = paste(images, boxes, boxes, torch.tensor([1, 0]), torch.tensor([True, False]))
    top, left, bottom, right = box
    expected = images.clone()
    expected[0, :, top:bottom, left:right] = images[1, :, top:bottom, left:right]
    assert torch.equal(mixed, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("number", range(8))
def test_cuda_gives_what_the_cpu_gives(number):
    for mix, drawn in (
        (Case.cutmix, ("boxes", "sources", "partner", "applied")),
        (Case.cutmix_rare, ("boxes", "sources", "partner", "applied")),
        (Case.fmix, ("masks", "partner", "applied")),
    ):
        on_cpu, on_gpu = Case(number), Case(number).cuda()
        expected = mix(on_cpu, on_cpu.tables)
        for found in (mix(on_gpu, on_gpu.bits), mix(on_gpu, on_gpu.tables)):
            assert found.images.device.type == found.positions.device.type == "cuda"
            for field in ("images", "labels", "positions", *drawn):
                assert np.array_equal(raw(getattr(found, field).cpu()), raw(getattr(expected, field)))
    by_area = Case(number).fmix(None), Case(number).cuda().fmix(None)
    torch.testing.assert_close(by_area[1].labels.cpu(), by_area[0].labels)


@pytest.mark.parametrize("layout", ["channels_last", "strided", "expanded"])
@pytest.mark.parametrize("positions_as", ["bits", "tables"])
def test_any_memory_layout_gives_the_same_mixture(layout, positions_as):
    images = torch.rand(6, 3, 8, 8, generator=generator(0))
    if layout == "expanded":
        images = images[:1].expand(6, 3, 8, 8)
    bits = torch.randint(0, 8, (6, 8, 8), generator=generator(1), dtype=torch.int32)
    labels = positions.to_labels(bits, 3)
    laid_out = {
        "channels_last": images.to(memory_format=torch.channels_last),
        "strided": images.repeat_interleave(2, dim=3)[..., ::2],
        "expanded": images,
    }[layout]
    given = bits.transpose(1, 2).contiguous().transpose(1, 2)
    given = given if positions_as == "bits" else AreaTables(given, 3)
    plain = mixing.cutmix(images.contiguous(), labels, bits, area_range=(0.3, 0.7), generator=generator(2))
    mixed = mixing.cutmix(laid_out, labels, given, area_range=(0.3, 0.7), generator=generator(2))
    by_gather = mixing._paste_by_gather(laid_out, plain.boxes, plain.sources, plain.partner, plain.applied)
    for found, expected in (
        (mixed.images, plain.images),
        (by_gather, plain.images),
        (mixed.labels, plain.labels),
        (mixed.positions, plain.positions),
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.bfloat16, torch.float32])
def test_mixing_in_place_gives_the_same_and_overwrites_only_what_is_the_batch_alone(dtype, layout):
    images = torch.randint(0, 255, (64, 3, 9, 7), generator=generator(0)).to(dtype).contiguous(memory_format=layout)
    labels, options = torch.zeros(64, 2), {"area_range": (0.2, 0.8), "probability": 0.7}
    for mix in (mixing.cutmix, mixing.cutout):
        expected = mix(images, labels, generator=generator(1), **options).images
        assert not np.array_equal(raw(expected), raw(images))
        given = images.clone()
        found = mix(given, labels, inplace=True, generator=generator(1), **options).images
        assert np.array_equal(raw(found), raw(expected))
        assert (found.data_ptr() == given.data_ptr()) == (layout == torch.contiguous_format)
        shared = images[:1].expand(64, 3, 9, 7)  # 64 times the same memory
        before = raw(shared).copy()
        found = mix(shared, labels, inplace=True, generator=generator(1), **options).images
        assert np.array_equal(raw(shared), before)
        assert np.array_equal(raw(found), raw(mix(shared, labels, generator=generator(1), **options).images))


@pytest.mark.parametrize("mix", [mixing.cutmix, mixing.cutout, mixing.fmix])
def test_images_that_require_gradients_are_refused(mix):
    images = torch.rand(2, 3, 6, 6, requires_grad=True)
    with pytest.raises(ValueError, match=r"give images\.detach\(\)"):
        mix(images, torch.zeros(2, 2), area_range=(0.2, 0.8), generator=generator(0))


def test_partners_come_from_the_batch_as_given_never_from_its_mixtures():
    # Every scene has one value: a mixture of mixtures would hold a third one.
    images = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 1, 6, 6)
    mixed = mixing.cutmix(
        images, torch.zeros(64, 1), area_range=(0.3, 0.7), probability=1.0, aligned=False, generator=generator(0)
    )
    assert sorted(mixed.partner.tolist()) == list(range(64))
    for i in range(64):
        assert set(mixed.images[i].unique().tolist()) == {float(i), float(mixed.partner[i])}


def test_unmixed_scenes_keep_labels_that_disagree_with_their_positions():
    labels = torch.tensor([[0.25, 1.0]]).repeat(400, 1)
    bits = torch.ones(400, 5, 5, dtype=torch.int32)  # class 0 everywhere, class 1 nowhere
    mixed = mixing.cutmix(torch.zeros(400, 1, 5, 5), labels, bits, area_range=(0.3, 0.7), generator=generator(0))
    assert 0 < mixed.applied.sum() < 400
    assert torch.equal(mixed.labels[~mixed.applied], labels[~mixed.applied])
    assert torch.equal(mixed.labels[mixed.applied], torch.tensor([[1.0, 0.0]]).expand(int(mixed.applied.sum()), 2))


def test_a_mixture_may_be_left_without_any_label():
    mixed = mixing.cutmix(
        torch.zeros(8, 1, 5, 5),
        torch.ones(8, 2),
        torch.full((8, 5, 5), 3, dtype=torch.int32),
        area_range=(0.3, 0.7),
        probability=1.0,
        min_pixels=25,
        generator=generator(0),
    )
    assert not mixed.labels.any()


def test_a_batch_of_one_is_its_own_partner_and_an_empty_batch_stays_empty():
    for batch in (0, 1):
        images, labels = torch.rand(batch, 2, 4, 4, generator=generator(0)), torch.ones(batch, 3)
        for class_positions in (None, torch.full((batch, 4, 4), 7, dtype=torch.int32)):
            draws = {"area_range": (0.3, 0.7), "probability": 1.0, "aligned": True, "generator": generator(0)}
            ways = [mixing.cutmix(images, labels, class_positions, **draws)]
            del draws["aligned"]
            ways.append(mixing.fmix(images, labels, class_positions, **draws))
            for mixed in ways:
                assert torch.equal(mixed.images, images)
                assert torch.equal(mixed.labels, labels)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    batch=st.integers(1, 9),
    bands=st.integers(1, 4),
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    low=st.floats(0.05, 0.5),
    high=st.floats(0.55, 1.0),
    probability=st.floats(0, 1),
    aligned=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_properties_of_every_mixture(batch, bands, height, width, low, high, probability, aligned, seed):
    images = torch.rand(batch, bands, height, width, generator=generator(seed))
    bits = torch.randint(0, 16, (batch, height, width), generator=generator(seed), dtype=torch.int32)
    arguments = {"area_range": (low, high), "probability": probability, "aligned": aligned}
    labels = positions.to_labels(bits, 4)
    mixed = mixing.cutmix(images, labels, bits, **arguments, generator=generator(seed))
    again = mixing.cutmix(images, labels, AreaTables(bits, 4), **arguments, generator=generator(seed))
    for boxes in (mixed.boxes, mixed.sources):
        top, left, bottom, right = boxes.unbind(dim=1)
        assert ((top >= 0) & (left >= 0) & (bottom <= height) & (right <= width)).all()
        share = (bottom - top) * (right - left) / (height * width)
        assert ((share >= low - 1e-6) & (share <= high + 1e-6)).all()
    assert torch.equal(mixed.boxes[:, 2:] - mixed.boxes[:, :2], mixed.sources[:, 2:] - mixed.sources[:, :2])
    assert torch.equal(mixed.boxes, mixed.sources) or not aligned
    assert mixed.partner.sort().values.tolist() == list(range(batch))
    assert torch.equal(mixed.labels, positions.to_labels(mixed.positions, 4).float())  # the labels agreed before
    for field in ("images", "labels", "boxes", "sources", "partner", "applied", "positions"):
        assert torch.equal(getattr(mixed, field), getattr(again, field))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", [mixing._fill_by_slices, mixing._fill_by_mask])
def test_cutout_fills_with_zeros_and_leaves_the_labels(dtype, fill, monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = torch.from_numpy(rng.integers(1, 255, (300, 2, 7, 9)).astype(dtype)), torch.rand(300, 4)
    before = raw(images).copy()
    monkeypatch.setattr(mixing, "_fill_by_slices", lambda images, boxes, applied, inplace: fill(images, boxes, applied))
    cut = mixing.cutout(images, labels, area_range=(0.3, 0.7), generator=generator(0))
    expected = before.copy()
    for i, (top, left, bottom, right) in enumerate(cut.boxes.tolist()):
        for row, column in product(range(7), range(9)):
            if cut.applied[i] and top <= row < bottom and left <= column < right:
                expected[i, :, row, column] = 0
    assert np.array_equal(raw(cut.images), expected)
    assert np.array_equal(raw(images), before)
    assert torch.equal(cut.labels, labels)
    assert cut.partner.tolist() == list(range(300))
    assert cut.positions is None


def algorithm_1(height, width, area_range):
    """Probability of every box, from all ordered corner draws that Algorithm 1 would keep."""
    kept = Counter()
    for r1, r2, c1, c2 in product(range(height + 1), range(height + 1), range(width + 1), range(width + 1)):
        (top, bottom), (left, right) = sorted((r1, r2)), sorted((c1, c2))
        if area_range[0] * height * width - 1e-9 <= (bottom - top) * (right - left) <= area_range[1] * height * width:
            kept[top, left, bottom, right] += 1
    return {box: n / kept.total() for box, n in kept.items()}


@pytest.mark.parametrize(
    ("height", "width", "area_range"),
    [(4, 4, (0.1, 0.3)), (4, 5, (0.3, 0.7)), (3, 6, (0.05, 1.0)), (6, 2, (0.5, 0.5)), (1, 7, (0.2, 0.9))],
)
def test_boxes_follow_algorithm_1(height, width, area_range):
    n = 40_000
    expected = algorithm_1(height, width, area_range)
    found = Counter(map(tuple, mixing.sample_boxes(n, height, width, area_range, generator(1)).tolist()))
    assert set(found) <= set(expected)
    assert chisquare([found[box] for box in expected], [n * p for p in expected.values()]).pvalue > 0.001


def test_hole_and_patch_corners_are_uniform_and_independent():
    n = 40_000
    mixed = mixing.cutmix(
        torch.zeros(n, 1, 5, 5), torch.zeros(n, 1), area_range=(6 / 25, 6 / 25), generator=generator(2)
    )
    for height, width in ((2, 3), (3, 2)):
        size = mixed.boxes[:, 2:] - mixed.boxes[:, :2]
        chosen = (size == torch.tensor([height, width])).all(dim=1)
        corners = torch.cat((mixed.boxes[chosen, :2], mixed.sources[chosen, :2]), dim=1)
        places = list(product(range(6 - height), range(6 - width)))
        cells = [hole + patch for hole, patch in product(places, places)]
        found = Counter(map(tuple, corners.tolist()))
        assert set(found) <= set(cells)
        assert chisquare([found[cell] for cell in cells]).pvalue > 0.001


def test_every_permutation_of_partners_is_equally_likely():
    draws = generator(3)
    images, labels = torch.zeros(3, 1, 2, 2), torch.zeros(3, 1)
    found = Counter(
        tuple(mixing.cutmix(images, labels, area_range=(0.2, 0.8), generator=draws).partner.tolist())
        for _ in range(1_200)
    )
    assert len(found) == 6
    assert chisquare(list(found.values())).pvalue > 0.001


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("function", [mixing.cutmix, mixing.cutout, mixing.fmix])
def test_the_rate_of_mixed_scenes_is_p(function, probability):
    n = 20_000
    images, labels = torch.zeros(n, 1, 3, 3, dtype=torch.uint8), torch.zeros(n, 1)
    mixed = function(images, labels, area_range=(0.1, 0.5), probability=probability, generator=generator(4))
    deviation = (probability * (1 - probability) / n) ** 0.5
    assert abs(mixed.applied.double().mean().item() - probability) <= 3 * deviation


@pytest.mark.parametrize(
    ("side", "area_range"),
    [(120, (0.1, 0.3)), (120, (0.1, 0.5)), (120, (0.1, 0.7)), (120, (0.3, 0.5)), (120, (0.3, 0.7)), (20, (0.28, 0.57))],
)
def test_the_bounds_of_an_area_range_belong_to_it(side, area_range):
    # In floating point 0.28·400 is above 112 and 0.57·400 below 228: boxes of exactly 28 % and 57 % count all the same.
    top, left, bottom, right = mixing.sample_boxes(200_000, side, side, area_range, generator(5)).unbind(dim=1)
    area = (bottom - top) * (right - left)
    assert area.min() == round(area_range[0] * side * side)
    assert area.max() == round(area_range[1] * side * side)


def test_a_narrow_range_costs_no_more_than_a_wide_one():
    boxes = mixing.sample_boxes(1_000, 2_448, 2_448, (1.0, 1.0), generator(0))
    assert (boxes == torch.tensor([0, 0, 2_448, 2_448])).all()


def every_way(seed):
    """Images and labels of every public way to mix one small batch."""
    images = torch.arange(20 * 2 * 6 * 6, dtype=torch.float32).view(20, 2, 6, 6)
    labels, bits = torch.ones(20, 3), torch.arange(20 * 36, dtype=torch.int32).view(20, 6, 6) % 8
    ways = [mixing.cutout(images, labels, area_range=(0.3, 0.7), generator=generator(seed))]
    for class_positions in (None, bits, AreaTables(bits, 3)):
        for mix in (mixing.cutmix, mixing.fmix):
            ways.append(mix(images, labels, class_positions, area_range=(0.3, 0.7), generator=generator(seed)))
    for class_positions in (bits, AreaTables(bits, 3)):
        favoured = {"class_weights": torch.tensor([1.0, 2.0, 5.0]), "area_range": (0.02, 0.1)}
        ways.append(mixing.cutmix(images, labels, class_positions, **favoured, generator=generator(seed)))
    return ways


def test_the_same_seed_gives_the_same_mixtures_and_another_seed_others():
    for first, second, other in zip(every_way(6), every_way(6), every_way(7), strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.labels, second.labels)
        assert not torch.equal(first.images, other.images)


def test_the_global_random_states_are_left_alone():
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    every_way(8)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))  # noqa: NPY002
    assert random.getstate() == states[2]


# FMix


def test_blobs_mix_as_the_pixel_oracle_says():
    mixed, fields = 0, ("masks", "partner", "applied")
    for number in range(48):
        case = Case(number)
        before = [tensor.clone() for tensor in (case.images, case.labels, case.bits)]
        by_area, by_bits, by_tables = case.fmix(None), case.fmix(case.bits), case.fmix(case.tables)
        for way in (by_bits, by_tables):
            assert all(torch.equal(getattr(way, field), getattr(by_area, field)) for field in fields)
            assert way.boxes is way.sources is None
        assert by_area.positions is None

        size, given = case.height * case.width, case.labels.numpy()
        expected_images, expected_masks = raw(case.images).copy(), case.masks.copy()
        propagated = given.astype(np.float32)
        averaged = propagated.copy()
        for i in by_area.applied.nonzero().flatten().tolist()[:30]:
            j, hole = int(by_area.partner[i]), by_area.masks[i].tolist()
            for row, column in product(range(case.height), range(case.width)):
                if hole[row][column]:
                    expected_images[i, :, row, column] = raw(case.images)[j, :, row, column]
                    expected_masks[i, :, row, column] = case.masks[j, :, row, column]
            propagated[i] = expected_masks[i].sum(axis=(1, 2)) > case.min_pixels
            area = sum(map(sum, hole))
            for layer in range(case.classes):
                own, other = int(given[i, layer]), int(given[j, layer])
                averaged[i, layer] = (own * (size - area) + other * area) / size
        looked_at = by_area.applied.cumsum(0) <= 30  # these and all that are not mixed
        bits = (expected_masks.astype(np.int64) << np.arange(case.classes).reshape(-1, 1, 1)).sum(axis=1)
        for way in (by_area, by_bits, by_tables):
            assert way.images.dtype == case.images.dtype
            assert np.array_equal(raw(way.images)[looked_at], expected_images[looked_at])
        for way in (by_bits, by_tables):
            assert np.array_equal(way.labels[looked_at].numpy(), propagated[looked_at])
            assert np.array_equal(way.positions[looked_at].numpy().astype(np.int64) & 0xFFFFFFFF, bits[looked_at])
        np.testing.assert_allclose(by_area.labels[looked_at].numpy(), averaged[looked_at], rtol=0, atol=1e-7)
        agreed = np.isin(averaged, (0, 1)) & looked_at.numpy()[:, None]  # these are exact
        assert np.array_equal(by_area.labels.numpy()[agreed], averaged[agreed])
        assert all(
            np.array_equal(raw(a), raw(b)) for a, b in zip((case.images, case.labels, case.bits), before, strict=True)
        )
        mixed += min(30, int(by_area.applied.sum()))
    assert mixed > 800


@pytest.mark.parametrize(
    ("height", "width", "area_range"), [(4, 5, (0.3, 0.7)), (3, 6, (0.05, 1.0)), (6, 2, (0.5, 0.5)), (1, 7, (0.2, 0.9))]
)
def test_blobs_have_exactly_the_areas_of_boxes(height, width, area_range):
    n, expected = 20_000, Counter()
    for (top, left, bottom, right), share in algorithm_1(height, width, area_range).items():
        expected[(bottom - top) * (right - left)] += share
    masks = mixing.sample_blobs(n, height, width, area_range, generator(1))
    assert masks.shape == (n, height, width)
    assert masks.dtype == torch.bool
    found = Counter(masks.sum(dim=(1, 2)).tolist())
    assert set(found) <= set(expected)
    if len(expected) > 1:
        assert chisquare([found[area] for area in expected], [n * p for p in expected.values()]).pvalue > 0.001


def test_every_pixel_is_as_often_in_a_blob():
    n = 4_000
    masks = mixing.sample_blobs(n, 12, 15, (0.1, 0.7), generator(2))
    rate, mean = masks.float().mean(dim=0), masks.float().mean()
    assert (rate - mean).abs().max() < 4.5 * (mean * (1 - mean) / n) ** 0.5


def pieces(masks):
    """Mean number of connected pieces of masks (n,H,W)."""
    return np.mean([ndimage.label(mask)[1] for mask in masks.numpy()])


def test_blobs_are_few_and_the_fewer_the_faster_the_spectrum_falls():
    found = [pieces(mixing.sample_blobs(200, 32, 32, (0.3, 0.7), generator(3), decay)) for decay in (0.0, 1.5, 3.0)]
    assert found[0] > 50  # white noise
    assert 4 < found[1] < 50
    assert 1 <= found[2] < 2.5
    assert pieces(mixing.sample_blobs(200, 120, 120, (0.3, 0.7), generator(3))) < 2.5  # whatever the size


def test_blobs_are_about_as_wide_as_high():
    masks = mixing.sample_blobs(600, 16, 16, (0.3, 0.7), generator(4))
    across = (masks[:, :, 1:] != masks[:, :, :-1]).float().mean()
    down = (masks[:, 1:] != masks[:, :-1]).float().mean()
    assert 0.75 < across / down < 1.4  # half a spectrum, as in FMix's own code, has a little more of one direction


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    n=st.integers(0, 9),
    height=st.integers(2, 40),
    width=st.integers(2, 40),
    low=st.floats(0.05, 0.5),
    high=st.floats(0.55, 1.0),
    seed=st.integers(0, 2**31),
)
def test_blobs_depend_on_the_generator_alone_and_are_of_the_range(n, height, width, low, high, seed):
    torch.manual_seed(seed % 7)
    masks = mixing.sample_blobs(n, height, width, (low, high), generator(seed))
    torch.manual_seed(8)
    assert torch.equal(masks, mixing.sample_blobs(n, height, width, (low, high), generator(seed)))
    share = masks.double().mean(dim=(1, 2))
    assert ((share >= low - 1e-6) & (share <= high + 1e-6)).all()


def test_the_partners_of_blobs_are_a_permutation_of_the_batch_as_given():
    images = torch.arange(64.0).view(64, 1, 1, 1).expand(64, 1, 6, 6)
    mixed = mixing.fmix(images, torch.zeros(64, 1), area_range=(0.3, 0.7), probability=1.0, generator=generator(0))
    assert sorted(mixed.partner.tolist()) == list(range(64))
    for i in range(64):
        assert set(mixed.images[i].unique().tolist()) == {float(i), float(mixed.partner[i])}


# Patches chosen by what they hold


@pytest.mark.parametrize("number", range(24))
def test_chosen_patches_are_pasted_and_counted_as_any_other(number):
    case = Case(number)
    by_bits, by_tables = case.cutmix_rare(case.bits), case.cutmix_rare(case.tables)
    for field in ("images", "labels", "boxes", "sources", "partner", "applied", "positions"):
        assert np.array_equal(raw(getattr(by_bits, field)), raw(getattr(by_tables, field)))
    top, left, bottom, right = by_bits.sources.unbind(dim=1)
    assert ((top >= 0) & (left >= 0) & (bottom <= case.height) & (right <= case.width)).all()
    assert torch.equal(by_bits.boxes[:, 2:] - by_bits.boxes[:, :2], by_bits.sources[:, 2:] - by_bits.sources[:, :2])
    assert ((by_bits.partner >= 0) & (by_bits.partner < case.batch)).all()
    pixels = raw(case.images)
    for i in range(case.batch):
        expected, masks, label = pixels[i], case.masks[i], case.labels[i].numpy()
        if by_bits.applied[i]:
            scene, row, column = origin(
                i,
                int(by_bits.partner[i]),
                by_bits.boxes[i].tolist(),
                by_bits.sources[i].tolist(),
                case.height,
                case.width,
            )
            expected = pixels[scene, :, row, column].T.reshape(expected.shape)
            masks = case.masks[scene, :, row, column].T
            label = masks.sum(axis=1) > case.min_pixels
        assert np.array_equal(raw(by_bits.images[i]), expected)
        assert np.array_equal(by_bits.labels[i].numpy(), label)


def rate_of_rare(weights, share=0.1, batch=10_000, **arguments):
    """How often the patch comes from a scene of class 1, where each scene is of one class and `share` of them of 1."""
    rare = torch.arange(batch) < share * batch
    bits = torch.where(rare, 2, 1).to(torch.int32).view(-1, 1, 1).expand(-1, 4, 4).contiguous()
    labels = torch.stack((~rare, rare), dim=1)
    draws = {"area_range": (0.2, 0.8), "probability": 1.0, "class_weights": weights, "generator": generator(9)}
    mixed = mixing.cutmix(torch.zeros(batch, 1, 4, 4), labels, bits, **draws, **arguments)
    return rare[mixed.partner].double().mean().item()


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 0.5), (1.0, 10.0), (10.0, 1.0), (1.0, 0.0), (0.0, 1.0)])
def test_a_patch_is_chosen_from_eight_by_the_weight_of_what_it_holds(weights):
    common, rare = weights
    expected = sum(
        binom.pmf(k, 8, 0.1) * k * (rare + 1e-6) / (k * (rare + 1e-6) + (8 - k) * (common + 1e-6)) for k in range(9)
    )
    deviation = (expected * (1 - expected) / 10_000) ** 0.5
    assert rate_of_rare(torch.tensor(weights)) == pytest.approx(expected, abs=4 * deviation + 1e-5)
    if common == rare:
        assert expected == pytest.approx(0.1)
        assert rate_of_rare(None) == pytest.approx(0.1)  # a permutation


def test_a_patch_holds_a_class_by_the_same_threshold_as_a_scene():
    favoured = torch.tensor([1.0, 10.0])
    assert rate_of_rare(favoured, min_pixels=3) == rate_of_rare(favoured) > 0.3  # all patches have more pixels
    assert rate_of_rare(favoured, min_pixels=13) == pytest.approx(0.1, abs=0.01)  # no patch has so many: all are equal


def test_a_rare_class_is_pasted_more_often_than_by_chance():
    # Class 2 is one corner of a twentieth of the scenes: neither partner nor place are chosen without looking.
    maps = torch.randint(0, 2, (2_000, 12, 12), generator=generator(0))
    maps[:100, 8:, 8:] = 2
    bits = positions.from_reference_maps(maps, 3)
    labels, tables = positions.to_labels(bits, 3), AreaTables(bits, 3)
    images = torch.zeros(2_000, 1, 12, 12)

    def brought(weights):
        draws = {"area_range": (0.1, 0.3), "probability": 1.0, "class_weights": weights, "generator": generator(1)}
        mixed = mixing.cutmix(images, labels, tables, **draws)
        return (tables[mixed.partner].counts(mixed.sources)[:, 2] > 0).float().mean().item()

    chance = brought(None)
    assert 0.005 < chance < 0.05
    assert abs(brought(torch.ones(3)) - chance) < 0.02  # what holds three classes weighs more than what holds two
    assert brought(1 / labels.float().mean(dim=0)) > 4 * chance


def test_patches_that_hold_nothing_are_chosen_all_the_same():
    nothing = torch.zeros(50, 4, 4, dtype=torch.int32)
    draws = {"area_range": (0.3, 0.7), "probability": 1.0, "generator": generator(0)}
    mixed = mixing.cutmix(torch.zeros(50, 1, 4, 4), torch.ones(50, 2), nothing, class_weights=torch.ones(2), **draws)
    assert not mixed.labels.any()
    assert len(mixed.partner.unique()) > 20


# Errors


IMAGES, LABELS = torch.zeros(4, 3, 5, 6), torch.zeros(4, 2)
BITS = torch.zeros(4, 5, 6, dtype=torch.int32)


def mix_with(function, images=IMAGES, labels=LABELS, class_positions=None, area_range=(0.3, 0.7), **arguments):
    return function(images, labels, class_positions, area_range=area_range, generator=generator(0), **arguments)


@pytest.mark.parametrize("function", [mixing.cutmix, mixing.fmix])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": IMAGES[0]}, r"images: expected \(B,C,H,W\), got shape \(3, 5, 6\)"),
        ({"labels": LABELS[:3]}, r"labels: expected \(B,L\) with B = 4, got shape \(3, 2\)"),
        ({"labels": LABELS[:, 0]}, r"labels: expected \(B,L\) .* got shape \(4,\)"),
        ({"labels": torch.zeros(4, 33), "class_positions": BITS}, "num_classes=33.* 1 to 32"),
        ({"probability": -0.1}, "probability=-0.1: expected a number from 0 to 1"),
        ({"probability": 1.1}, "probability=1.1"),
        ({"probability": float("nan")}, "probability=nan"),
        ({"min_pixels": -1}, "min_pixels=-1: expected .* ≥ 0"),
        ({"min_pixels": -1, "class_positions": BITS}, "min_pixels=-1"),
        ({"class_positions": BITS.long()}, "positions: expected int32 bit masks .* got torch.int64"),
        ({"class_positions": BITS.float()}, "positions: expected int32 bit masks .* got torch.float32"),
        ({"class_positions": BITS[0]}, r"positions: expected .*\(B,H,W\), got .* shape \(5, 6\)"),
        ({"class_positions": BITS[:3]}, r"positions: \(B,L,H,W\) is \(3, 2, 5, 6\), but .* say \(4, 2, 5, 6\)"),
        ({"class_positions": BITS.transpose(1, 2)}, r"positions: .* is \(4, 2, 6, 5\), but .* say \(4, 2, 5, 6\)"),
        ({"class_positions": AreaTables(BITS, 3)}, r"positions: .* is \(4, 3, 5, 6\), but .* say \(4, 2, 5, 6\)"),
        ({"class_positions": AreaTables(BITS[:2], 2)}, r"positions: .* is \(2, 2, 5, 6\)"),
        ({"class_positions": BITS.to("meta")}, "positions: on meta, but images are on cpu"),
        ({"images": IMAGES[:, :, :0]}, "height=0, width=6: expected at least one pixel"),
        ({"area_range": (0.0, 0.5)}, r"area_range=\(0.0, 0.5\): expected 0 < A_min ≤ A_max ≤ 1"),
        ({"area_range": (-0.1, 0.5)}, r"area_range=\(-0.1, 0.5\)"),
        ({"area_range": (0.5, 1.01)}, r"area_range=\(0.5, 1.01\)"),
        ({"area_range": (0.7, 0.3)}, r"area_range=\(0.7, 0.3\)"),
        ({"area_range": (float("nan"), 0.3)}, r"area_range=\(nan, 0.3\)"),
        ({"area_range": (29 / 30, 29 / 30)}, r"area_range=.*: no box of whole pixels in 5×6"),
        ({"area_range": (0.001, 0.002)}, r"area_range=\(0.001, 0.002\): no box of whole pixels in 5×6"),
    ],
)
def test_wrong_input_is_named_with_its_value_and_what_was_expected(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        mix_with(function, **arguments)


@pytest.mark.parametrize("arguments", [{}, {"class_positions": BITS, "aligned": True}])
def test_patches_are_chosen_by_what_they_hold_only_where_that_is_known_and_they_can_move(arguments):
    with pytest.raises(ValueError, match=r"class_weights: .* needs positions and no `aligned`"):
        mix_with(mixing.cutmix, class_weights=torch.ones(2), **arguments)


def test_cutout_checks_what_it_is_given():
    for arguments, message in (
        ({"probability": 2}, "probability=2"),
        ({"area_range": (0.5, 0.4)}, r"area_range=\(0.5, 0.4\)"),
    ):
        with pytest.raises(ValueError, match=message):
            mixing.cutout(IMAGES, LABELS, **{"area_range": (0.3, 0.7), "generator": generator(0)} | arguments)


def test_an_index_outside_the_tables_is_refused():
    with pytest.raises(IndexError):
        AreaTables(BITS, 2)[torch.tensor([4])]
