"""The noise laboratory, in Python and in a browser."""

import re
import zlib

import numpy as np
import pytest
import torch
from explorer_page import copy_state, drag, shown_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from test_explorers import random_scenes

from rsbook import label_propagation, noise
from rsbook.scenes import Scenes
from rsbook.widgets import NoiseLaboratory

LEVELS = {
    "mask_shift": [(0.25, 3), (0.5, 3), (1.0, 3), (0.25, 8), (0.5, 8), (1.0, 8)],
    "rectify_borders": [(1.0, 4), (0.5, 8), (1.0, 8)],  # not every pair
    "border_deformation": [(1.0, 20)],
    "class_swap": [(0.1, None), (0.3, None)],
}
STATE = ("level", "first", "second", "box", "source")


def laboratory(n=4, **options):
    return NoiseLaboratory(random_scenes(n=n), range(n), **{"kinds": list(LEVELS), "levels": LEVELS} | options)


def unpacked(made, name):
    stored = made.arrays[name]
    return np.frombuffer(zlib.decompress(stored["data"]), stored["dtype"]).reshape(stored["shape"])


def by_hand(made, maps):
    """Pixels of each class in the mixture of these maps (n,H,W) of class indices."""
    (top, left, bottom, right), (row, column) = made.box, made.source
    mixed = maps[made.first].copy()
    mixed[top:bottom, left:right] = maps[made.second][row : row + bottom - top, column : column + right - left]
    return [int((mixed == k).sum()) for k in range(len(made.classes))]


@pytest.fixture(scope="module")
def one():
    return laboratory()


@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_read_out_counts_what_the_packed_maps_hold(one, draw):
    made = one
    made.level = draw.draw(st.sampled_from(made.levels))
    made.first, made.second = draw.draw(st.integers(0, 3)), draw.draw(st.integers(0, 3))
    top, left = draw.draw(st.integers(0, 23)), draw.draw(st.integers(0, 29))
    bottom, right = draw.draw(st.integers(top + 1, 24)), draw.draw(st.integers(left + 1, 30))
    made.box = [top, left, bottom, right]
    made.source = [draw.draw(st.integers(0, 24 - bottom + top)), draw.draw(st.integers(0, 30 - right + left))]
    clean, noisy = unpacked(made, "clean"), unpacked(made, "noisy")[:, made.levels.index(made.level)]
    found = made.read_out()
    assert found["clean_pixels"].tolist() == by_hand(made, clean)
    assert found["noisy_pixels"].tolist() == by_hand(made, noisy)
    for way in ("clean", "noisy"):
        assert found[f"{way}_label"].tolist() == [pixels > 5 for pixels in found[f"{way}_pixels"]]
    assert made.changed().tolist() == pytest.approx((clean != noisy).mean(axis=(1, 2)).tolist())


def test_maps_are_those_that_a_run_with_this_seed_trains_on():
    data = random_scenes()
    made = NoiseLaboratory(data, [3, 1], kinds=["mask_shift"], levels=LEVELS, seed=7)
    trained = label_propagation.noisy(data.positions[[3, 1]], 3, "mask_shift", 1.0, 8, 7)
    assert (1 << unpacked(made, "noisy")[:, -1].astype(np.int32)).tolist() == trained.tolist()
    assert "seed 7" in made.caption


def test_background_stays_without_a_class():
    data = random_scenes()
    data.positions[:, :, :5] = 0
    made = NoiseLaboratory(data, range(4), kinds=list(LEVELS), levels=LEVELS)
    assert (unpacked(made, "clean")[:, :, :5] == -1).all()
    assert (unpacked(made, "noisy")[..., :5] == -1).all()
    assert (unpacked(made, "noisy")[..., 5:] >= 0).all()


def test_levels_are_those_of_the_full_preset_unless_given():
    data = random_scenes(120, 120, 8)
    made = NoiseLaboratory(data, range(8))
    assert {kind for kind, *_ in made.levels} == set(noise.KINDS)
    assert len(made.levels) == 42
    assert made.level == ["mask_shift", 1.0, 36]
    assert sum(len(array["data"]) for array in made.arrays.values()) < 900_000  # random images alone: 350,000
    assert len(made.arrays["noisy"]["data"]) < 300_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kinds": []}, "kinds=\\[\\]"),
        ({"kinds": ["salt"]}, "kinds=\\['salt'\\]: expected some of mask_shift"),
        ({"kinds": ["mask_shift", "mask_shift"]}, "none twice"),
        ({"kinds": ["segment_swap"]}, "levels: .* for segment_swap"),
        ({"kinds": ["mask_shift"], "levels": {"mask_shift": [(1.0, 3), (1.0, 3)]}}, "levels: .* none twice"),
        ({"kinds": ["mask_shift"], "levels": {"mask_shift": [(1.0,)]}}, "levels: expected pairs"),
        ({"kinds": ["mask_shift"], "levels": {"mask_shift": [(1.0, 99)]}}, "intensity"),
    ],
)
def test_what_it_refuses(options, said):
    with pytest.raises(ValueError, match=said):
        laboratory(**options)


def test_scenes_and_states_that_it_refuses():
    data = random_scenes()
    with pytest.raises(ValueError, match="two scenes or more"):
        NoiseLaboratory(data, [0])
    with pytest.raises(ValueError, match="with reference maps"):
        NoiseLaboratory(Scenes(**vars(data) | {"positions": None}), [0, 1])
    made = laboratory()
    made.level = ["mask_shift", 0.3, 3]
    with pytest.raises(ValueError, match="level="):
        made.read_out()
    made.level, made.box = made.levels[0], [0, 0, 25, 10]
    with pytest.raises(ValueError, match=r"box=\[0, 0, 25, 10\]"):
        made.read_out()
    made.box, made.source = [0, 0, 10, 10], [20, 0]
    with pytest.raises(ValueError, match=r"source=\[20, 0, 30, 10\]"):
        made.read_out()


def agree(page, made):
    """What the page says is what Python computes for the page's state."""
    copy_state(page, made, STATE)
    shown, added, lost = shown_rows(page), 0, 0
    for row in made.read_out().to_dict("records"):
        if row["class"] not in shown:
            assert (row["clean_pixels"], row["noisy_pixels"]) == (0, 0)
            continue
        texts = shown[row["class"]]
        clean, noisy = row["clean_label"], row["noisy_label"]
        assert [int(text.split()[0]) for text in texts] == [row["clean_pixels"], row["noisy_pixels"], clean, noisy]
        assert ("wrongly added" in texts[3]) == (noisy and not clean)
        assert ("wrongly removed" in texts[3]) == (clean and not noisy)
        added, lost = added + (noisy and not clean), lost + (clean and not noisy)
    verdict = page.locator(".rsbook-verdict").inner_text()
    assert ("Because of the noise" in verdict) == (added + lost > 0)
    share = made.changed()
    status = page.locator(".rsbook-area").inner_text()
    assert f"{int((share > 0).sum())} of {len(share)} maps changed" in status
    options = page.get_by_label("First scene x₁").locator("option").all_inner_texts()
    assert [option.startswith("changed – ") for option in options] == (share > 0).tolist()
    titles = page.locator(".rsbook-quads").inner_text()
    assert float(re.search(r"x₁: ([\d.]+)\s% changed", titles)[1]) == pytest.approx(
        100 * share[made.first].item(), abs=0.051
    )


def test_controls_drag_and_keys_change_what_python_computes_too(opened):
    made = laboratory()
    page = opened(made, width=390)
    agree(page, made)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    hole, patch = page.locator("button.rsbook-box").all()
    before = made.box
    drag(page, hole, -20, 15)
    agree(page, made)
    assert made.box != before
    assert made.source == [3, 7]
    before = made.box
    drag(page, patch.locator("[data-corner=br]"), -15, -20)
    agree(page, made)
    assert [made.box[0], made.box[1]] == before[:2]
    assert made.box[2] < before[2]
    hole.focus()
    before = made.box
    for key in ("ArrowUp", "ArrowLeft", "Shift+ArrowDown"):
        page.keyboard.press(key)
    agree(page, made)
    assert made.box == [before[0] - 1, before[1] - 1, before[2], before[3] - 1]
    page.get_by_label("First scene x₁").select_option(index=2)
    page.get_by_label("Second scene x₂").select_option(index=3)
    agree(page, made)
    assert (made.first, made.second) == (2, 3)


def test_every_level_can_be_reached_with_its_sliders(opened):
    made = laboratory()
    page = opened(made, width=390)
    kind, intensity, fraction = (page.get_by_label(name) for name in ("Kind of noise", "Intensity", "Fraction"))
    assert made.level == ["mask_shift", 1.0, 8]
    fraction.press("ArrowLeft")
    agree(page, made)
    assert made.level == ["mask_shift", 0.5, 8]
    assert "Mask shift, up to 8 pixels, in 50 % of the maps: 2 of 4 maps" in page.locator(".rsbook-area").inner_text()
    intensity.press("Home")
    agree(page, made)
    assert made.level == ["mask_shift", 0.5, 3]
    kind.select_option("rectify borders")
    agree(page, made)
    assert made.level == ["rectify_borders", 1.0, 4]
    fraction.press("ArrowLeft")  # there is none at this intensity: the nearest one that has it
    agree(page, made)
    assert made.level == ["rectify_borders", 0.5, 8]
    intensity.press("ArrowLeft")
    agree(page, made)
    assert made.level == ["rectify_borders", 1.0, 4]
    kind.select_option("border deformation")
    agree(page, made)
    assert not intensity.is_visible()
    assert not fraction.is_visible()
    kind.select_option("class swap")
    agree(page, made)
    assert not intensity.is_visible()
    fraction.press("End")
    agree(page, made)
    assert made.level == ["class_swap", 0.3, None]
    assert "Class swap, in 30 % of all segments" in page.locator(".rsbook-area").inner_text()
    page.evaluate("explorer.set('level', ['class_swap', 0.9, null])")  # not offered: the page stays as it is
    page.evaluate("explorer.set('level', ['mask_shift', 0.25, 8])")
    agree(page, made)
    assert intensity.is_visible()


def test_a_page_of_one_kind_has_no_choice_of_kinds(opened):
    made = laboratory(kinds=["mask_shift"])
    page = opened(made, "dark")
    assert not page.get_by_label("Kind of noise").is_visible()
    agree(page, made)


def test_differences_are_painted_where_maps_differ(opened):
    made = laboratory()
    page = opened(made, width=390)
    painted = page.evaluate(
        """() => [...document.querySelectorAll("canvas[aria-label='x₁: difference']")].map((canvas) =>
          [...canvas.getContext("2d").getImageData(0, 0, 30, 24).data].filter((_, i) => i % 4 === 3))[0]"""
    )
    differ = unpacked(made, "clean")[0] != unpacked(made, "noisy")[0, made.levels.index(made.level)]
    assert ((np.array(painted) == 255) == differ.flatten()).all()
    assert differ.any()


def test_class_names_run_nothing(opened):
    payload = '<img src=x onerror="window.__hit=1"><script>window.__hit=1</script>'
    data = random_scenes(classes=("one", payload, "</script><b>"))
    made = NoiseLaboratory(data, range(4), kinds=list(LEVELS), levels=LEVELS)
    page = opened(made, width=390)
    agree(page, made)
    assert payload in shown_rows(page)
    assert page.evaluate("window.__hit") is None


def test_a_fallback_is_there_without_scripts():
    made = laboratory()
    assert "<img" in made.fallback.html
    assert torch.equal(made.maps, random_scenes().positions)
