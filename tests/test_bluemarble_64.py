"""The wider scenes against the narrow ones that they are made of, and against their card."""

import pytest
import torch

from rsbook import positions, scenes
from rsbook.archives import bluemarble, bluemarble_64

CARD = (scenes.DATA / "bluemarble_64" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data():
    return scenes.load("bluemarble_64")


def test_counts_are_those_of_the_card(data):
    assert f"{len(data.images):,} scenes of 64 × 64 pixels" in CARD
    for split, index in data.splits.items():
        mean = data.labels[index].sum(dim=1).float().mean()
        assert f"| {split} | {len(index):,} | {mean:.2f} |" in CARD


def test_every_scene_is_four_windows_of_its_split(data):
    narrow = scenes.load("bluemarble")
    corners, splits = bluemarble.read_windows(scenes.DATA / "bluemarble" / "scenes.csv")
    number = {corner: k for k, corner in enumerate(corners)}
    found, found_splits = bluemarble_64.wider(corners, splits)
    assert len(found) == len(data.images)
    for split, index in data.splits.items():
        assert {found_splits[i] for i in index.tolist()} == {split}
    for i in range(0, len(found), 37):
        row, column = found[i]
        for down in (0, 32):
            for right in (0, 32):
                k = number[row + down, column + right]
                assert splits[k] == found_splits[i]
                area = slice(down, down + 32), slice(right, right + 32)
                assert torch.equal(data.images[i, :, *area], narrow.images[k])
                assert torch.equal(data.positions[i, *area], narrow.positions[k])


def test_no_wider_scene_is_left_out():
    corners, splits = bluemarble.read_windows(scenes.DATA / "bluemarble" / "scenes.csv")
    at = dict(zip(corners, splits, strict=True))
    expected = 0
    for row, column in corners:
        square = [at.get((row + a, column + b)) for a in (0, 32) for b in (0, 32)]
        expected += None not in square and len(set(square)) == 1
    assert len(bluemarble_64.wider(corners, splits)[0]) == expected


def test_labels_are_of_more_than_two_per_cent(data):
    pixels = positions.count(data.positions, len(data.classes))
    assert torch.equal(data.labels, pixels > 81)
    assert data.min_pixels == 81


def test_its_checksum_is_its_own(data):
    assert data.checksum == scenes.checksum("bluemarble_64") != scenes.checksum("bluemarble")
