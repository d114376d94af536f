"""Class positions against masks kept one class at a time, pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from rsbook import positions
from rsbook.positions import AreaTables

properties = settings(deadline=None, derandomize=True, max_examples=60)


@st.composite
def masks_of_scenes(draw, least=0):
    """Explanation masks (B,L,H,W) of up to 32 classes, from empty to full."""
    shape = (draw(st.integers(least, 4)), draw(st.integers(1, 32)), draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    share = draw(st.sampled_from((0.0, 0.1, 0.5, 1.0)))
    return torch.rand(shape, generator=Generator().manual_seed(draw(st.integers(0, 999)))) < share


def pack(masks):
    """Bit masks as unsigned Python integers, pixel by pixel."""
    packed = np.zeros((len(masks), *masks.shape[2:]), dtype=np.int64)
    for i, layer, row, column in masks.nonzero().tolist():
        packed[i, row, column] += 1 << layer
    return packed


def unsigned(bits):
    return bits.numpy().astype(np.int64) & 0xFFFFFFFF


@properties
@given(masks_of_scenes())
def test_explanation_masks_become_one_bit_a_class_and_come_back(masks):
    bits = positions.from_explanation_masks(masks)
    assert bits.dtype == torch.int32
    assert np.array_equal(unsigned(bits), pack(masks))
    assert torch.equal(positions.to_masks(bits, masks.shape[1]), masks)


@properties
@given(masks_of_scenes(), st.integers(0, 12))
def test_labels_say_which_classes_more_than_min_pixels_carry(masks, min_pixels):
    bits = positions.from_explanation_masks(masks)
    pixels = masks.sum(dim=(2, 3))
    assert torch.equal(positions.count(bits, masks.shape[1]).long(), pixels)
    assert torch.equal(positions.to_labels(bits, masks.shape[1], min_pixels), pixels > min_pixels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.int64])
@pytest.mark.parametrize("num_classes", [1, 6, 31, 32])
def test_reference_maps_set_the_bit_of_their_class_and_none_for_background(num_classes, dtype):
    maps = torch.randint(0, num_classes + 1, (5, 7, 4), generator=Generator().manual_seed(num_classes))
    masks = torch.stack([maps == layer for layer in range(num_classes)], dim=1)
    bits = positions.from_reference_maps(maps.to(dtype), num_classes, background=num_classes)
    assert bits.dtype == torch.int32
    assert np.array_equal(unsigned(bits), pack(masks))


@pytest.mark.parametrize("background", [-1, 255, 0])
def test_background_may_be_any_index(background):
    maps = torch.tensor([[[0, 1], [2, background]]])
    expected = [[0 if index == background else 1 << index for index in row] for row in maps[0].tolist()]
    assert positions.from_reference_maps(maps, 3, background).tolist() == [expected]


def test_reference_map_and_explanation_masks_of_the_same_ground_are_equal():
    maps = torch.randint(0, 32, (3, 8, 5), generator=Generator().manual_seed(0))
    masks = torch.nn.functional.one_hot(maps, 32).movedim(-1, 1).bool()
    assert torch.equal(positions.from_reference_maps(maps, 32), positions.from_explanation_masks(masks))


@properties
@given(st.integers(1, 32), st.integers(0, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 999), st.booleans())
def test_reference_maps_come_back_from_their_bit_masks(num_classes, batch, height, width, seed, all_known):
    maps = torch.randint(-1 + all_known, num_classes, (batch, height, width), generator=Generator().manual_seed(seed))
    bits = positions.from_reference_maps(maps, num_classes, background=-1)
    before = bits.clone()
    found = positions.to_reference_maps(bits, num_classes)
    assert found.dtype == torch.int64
    assert torch.equal(found, maps)
    assert torch.equal(bits, before)


def test_a_pixel_of_two_classes_has_no_reference_map():
    bits = torch.tensor([[[1, 2], [0, 3]]], dtype=torch.int32)
    with pytest.raises(ValueError, match="positions: a pixel carries several classes, so there is no reference map"):
        positions.to_reference_maps(bits, 3)
    bits[0, 1, 1] = -(2**31)  # class 31 alone is the sign bit, and no two classes
    assert positions.to_reference_maps(bits, 32).tolist() == [[[0, 1], [-1, 31]]]
    bits[0, 1, 1] += 1
    with pytest.raises(ValueError, match="several classes"):
        positions.to_reference_maps(bits, 32)


@properties
@given(masks_of_scenes(least=1), st.data())
def test_area_tables_count_what_a_slice_counts(masks, data):
    batch, classes, height, width = masks.shape
    tables = AreaTables(positions.from_explanation_masks(masks), classes)
    index = data.draw(st.lists(st.integers(0, batch - 1), min_size=1, max_size=6))
    boxes = []
    for _ in index:
        top, bottom = sorted(data.draw(st.tuples(st.integers(0, height), st.integers(0, height))))
        left, right = sorted(data.draw(st.tuples(st.integers(0, width), st.integers(0, width))))
        boxes.append((top, left, bottom, right))
    batch_tables = tables[torch.tensor(index)]
    expected = [masks[i, :, t:b, le:r].sum(dim=(1, 2)).tolist() for i, (t, le, b, r) in zip(index, boxes, strict=True)]
    assert batch_tables.counts(torch.tensor(boxes)).tolist() == expected
    assert batch_tables.totals().tolist() == [masks[i].sum(dim=(1, 2)).tolist() for i in index]
    assert len(batch_tables) == len(index)
    assert torch.equal(positions.to_masks(batch_tables.bits, classes), masks[index])


@pytest.mark.parametrize("side", [181, 182, 260])
def test_area_tables_hold_images_around_the_reach_of_16_bits(side):
    bits = torch.full((2, side, side), 1, dtype=torch.int32)
    tables = AreaTables(bits, 2)
    whole, rest = (0, 0, side, side), (1, 0, side, side - 1)
    assert tables.totals().tolist() == [[side * side, 0]] * 2
    assert tables.counts(torch.tensor((whole, rest))).tolist() == [[side * side, 0], [(side - 1) ** 2, 0]]


def test_views_of_views_share_the_tables():
    bits = positions.from_reference_maps(torch.arange(6).view(6, 1, 1).expand(6, 3, 4).contiguous(), 6)
    tables = AreaTables(bits, 6)
    view = tables[torch.tensor([5, 3, 1])][torch.tensor([2, 0])].to("cpu")
    assert view.totals().tolist() == [[0, 12, 0, 0, 0, 0], [0, 0, 0, 0, 0, 12]]
    assert view._rows.data_ptr() == tables._rows.data_ptr()


def test_counting_in_parts_does_not_depend_on_the_size_of_a_part(monkeypatch):
    bits = torch.randint(0, 2**19, (7, 6, 5), generator=Generator().manual_seed(0), dtype=torch.int32)
    counts = []
    for pixels in (1, 30, 61, 2**17):
        monkeypatch.setattr(positions, "CACHED_PIXELS", pixels)
        counts.append(positions.count(bits, 19))
    assert all(torch.equal(count, counts[0]) for count in counts)


MAPS = torch.zeros(2, 4, 4, dtype=torch.int64)
BITS = torch.zeros(2, 4, 4, dtype=torch.int32)
MASKS = torch.zeros(2, 3, 4, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: positions.from_reference_maps(MAPS, 33), "num_classes=33.* 1 to 32"),
        (lambda: positions.from_reference_maps(MAPS, 0), "num_classes=0"),
        (lambda: positions.from_reference_maps(MAPS + 3, 3), "maps: class index 3 is outside 0 … 2.*background"),
        (lambda: positions.from_reference_maps(MAPS - 1, 3), "maps: class index -1 is outside 0 … 2"),
        (lambda: positions.from_reference_maps(MAPS + 2**32, 3), "maps: class index 4294967296 is outside"),
        (lambda: positions.from_reference_maps(MAPS + 7, 3, background=255), "maps: class index 7"),
        (lambda: positions.from_reference_maps(MAPS.float(), 3), "maps: expected integers.*float32"),
        (lambda: positions.from_reference_maps(MAPS.bool(), 3), "maps: expected integers.*bool"),
        (lambda: positions.from_reference_maps(MAPS[0], 3), r"maps: expected .*\(B,H,W\).*\(4, 4\)"),
        (lambda: positions.from_explanation_masks(MASKS.float()), "masks: expected bool .*float32"),
        (lambda: positions.from_explanation_masks(MASKS[0]), r"masks: expected .*\(B,L,H,W\).*\(3, 4, 4\)"),
        (lambda: positions.from_explanation_masks(MASKS.repeat(1, 11, 1, 1)), "num_classes=33"),
        (lambda: positions.from_explanation_masks(MASKS[:, :0]), "num_classes=0"),
        (lambda: positions.to_masks(BITS.long(), 3), "positions: expected int32 .*int64"),
        (lambda: positions.to_reference_maps(BITS.long(), 3), "positions: expected int32 .*int64"),
        (lambda: positions.to_reference_maps(BITS[0], 3), r"positions: expected .*\(B,H,W\).*\(4, 4\)"),
        (lambda: positions.to_reference_maps(BITS, 33), "num_classes=33"),
        (lambda: positions.count(BITS[0], 3), r"positions: expected .*\(B,H,W\).*\(4, 4\)"),
        (lambda: positions.to_labels(BITS, 3, min_pixels=-1), "min_pixels=-1: expected .* ≥ 0"),
        (lambda: positions.to_labels(BITS, 40), "num_classes=40"),
        (lambda: AreaTables(MASKS, 3), "positions: expected int32 .*bool"),
        (lambda: AreaTables(BITS, 33), "num_classes=33"),
    ],
)
def test_wrong_input_is_named_with_its_value_and_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()
