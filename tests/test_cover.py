"""The globes of the cover against the map they are made from."""

import numpy as np
import pytest

from rsbook import cover

WORLD = np.arange(180 * 360).reshape(180, 360, 1)  # one pixel a degree


def degrees(pixel):
    """Latitude and longitude of the middle of a pixel of WORLD."""
    return 89.5 - pixel // 360, pixel % 360 - 179.5


def test_the_middle_is_where_one_looks():
    for latitude, longitude in ((0, 0), (14, 20), (-8, -58), (70, 179)):
        seen = cover.globe(WORLD, latitude, longitude, 401)
        found = degrees(int(seen[200, 200, 0]))
        assert found == pytest.approx((latitude, longitude), abs=1.1)


def test_a_known_place_is_where_trigonometry_puts_it():
    looking = np.radians([10.0, 30.0])
    place = np.radians([40.0, 50.0])
    size = 601
    x = np.cos(place[0]) * np.sin(place[1] - looking[1])
    y = np.cos(looking[0]) * np.sin(place[0]) - np.sin(looking[0]) * np.cos(place[0]) * np.cos(place[1] - looking[1])
    row, column = round((1.01 - y) / 2.02 * (size - 1)), round((x + 1.01) / 2.02 * (size - 1))
    seen = cover.globe(WORLD, 10, 30, size)
    assert degrees(int(seen[row, column, 0])) == pytest.approx((40, 50), abs=1.1)


def test_space_is_transparent():
    seen = cover.globe(np.full((180, 360, 3), 7, dtype=np.uint8), 0, 0, 200)
    assert seen.shape == (200, 200, 4)
    assert seen[0, 0, 3] == 0
    assert seen[100, 100, 3] == 255


def test_cover_shows_the_same_box_on_image_and_map():
    shown = cover.draw_cover()
    assert shown.html.count("<img") == 2
    assert "South America" in shown.text
    hole, patch = (np.diff(np.reshape(box, (2, 2)), axis=0).tolist() for box in (cover.HOLE, cover.PATCH))
    assert hole == patch
