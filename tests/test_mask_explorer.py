"""The mask explorer, in Python and in a browser."""

import math
import re
import zlib

import numpy as np
import pytest
import torch
from explorer_page import copy_state, drag, shown_rows, wait_two_frames
from hypothesis import given, settings
from hypothesis import strategies as st
from test_explorers import random_scenes
from torch import Generator

from rsbook import explain
from rsbook.scenes import Scenes
from rsbook.widgets import MaskExplorer

STATE = ("scene", "class_index", "box", "t_cam", "t_map")


def random_activations(data, size=(4, 5), seed=0):
    """Random activations, some of them constant or zero."""
    n, classes = data.labels.shape
    found = torch.rand(n, classes, *size, generator=Generator().manual_seed(seed)) ** 3
    found[0, 0], found[1, 1] = 0.7, 0.0
    return found


def explorer(data=None, size=(4, 5), **options):
    data = data or random_scenes()
    return MaskExplorer(data, range(len(data.images)), random_activations(data, size), **options)


def unpacked(made, name):
    stored = made.arrays[name]
    return np.frombuffer(zlib.decompress(stored["data"]), stored["dtype"]).reshape(stored["shape"])


def by_hand(made, data, k):
    """Mask and map (H,W) of class k in the scene that is shown, and where its hole is not."""
    heat = made.activations[made.scene, k].clone()
    size = tuple(data.images.shape[2:])
    up = torch.nn.functional.interpolate(heat[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    mask = up - up.min() > made.t_cam * (up.max() - up.min())
    if heat.min() == heat.max():
        mask = torch.full(size, bool(heat.max() > 0))
    outside = torch.ones(size, dtype=torch.bool)
    top, left, bottom, right = made.box
    outside[top:bottom, left:right] = False
    return mask, (data.positions[made.scene] >> k & 1).bool(), outside


@pytest.fixture(scope="module")
def one():
    return explorer()


@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_read_out_counts_what_is_left(one, draw):
    made, data = one, one.data
    made.scene, made.t_map = draw.draw(st.integers(0, 3)), draw.draw(st.integers(0, 100))
    made.t_cam = draw.draw(st.integers(0, 99)) / 100
    top, left = draw.draw(st.integers(0, 23)), draw.draw(st.integers(0, 29))
    made.box = [top, left, draw.draw(st.integers(top + 1, 24)), draw.draw(st.integers(left + 1, 30))]
    found = made.read_out()
    label = [name for name, has in zip(data.classes, data.labels[made.scene].tolist(), strict=True) if has]
    assert found["class"].tolist() == label
    for row in found.to_dict("records"):
        mask, truth, outside = by_hand(made, data, data.classes.index(row["class"]))
        assert (row["mask_pixels"], row["mask_left"]) == (int(mask.sum()), int((mask & outside).sum()))
        assert (row["map_pixels"], row["map_left"]) == (int(truth.sum()), int((truth & outside).sum()))
        assert (row["psi"], row["phi"]) == (row["mask_left"] > made.t_map, row["map_left"] > 5)
        assert row["iou"] == pytest.approx(int((mask & truth).sum()) / int((mask | truth).sum()))


@pytest.mark.parametrize(("size", "scene"), [((1, 1), 24), ((4, 4), 24), ((7, 5), 120), ((120, 120), 120)])
def test_packed_masks_are_those_of_explain_at_every_threshold(size, scene):
    data = random_scenes(scene, scene, 3)
    made = explorer(data, size)
    passed = unpacked(made, "passed")
    for step in range(100):
        masks = explain.explanation_masks(made.activations, data.labels, (scene, scene), step / 100)
        assert (masks.numpy() == (passed > step)).all()
    assert made.arrays["passed"]["dtype"] == "uint8"
    if size != (120, 120):  # smooth, as class activation maps are
        assert sum(len(array["data"]) for array in made.arrays.values()) < 300_000


def test_what_it_refuses():
    data = random_scenes()
    activations = random_activations(data)
    with pytest.raises(ValueError, match="one scene or more"):
        MaskExplorer(data, [], activations[:0])
    with pytest.raises(ValueError, match=r"activations: have shape \(4, 3, 4, 5\), expected \(2,3,h,w\)"):
        MaskExplorer(data, [0, 1], activations)
    with pytest.raises(ValueError, match="activations"):
        MaskExplorer(data, range(4), activations[0])
    with pytest.raises(ValueError, match="not finite"):
        MaskExplorer(data, range(4), activations * math.nan)
    with pytest.raises(ValueError, match=r"t_cam=0\.123: expected one of 0\.00, 0\.01"):
        MaskExplorer(data, range(4), activations, t_cam=0.123)
    with pytest.raises(ValueError, match="min_pixels=-1"):
        MaskExplorer(data, range(4), activations, t_map=-1)
    unlabelled = Scenes(**vars(data) | {"labels": data.labels & False})
    with pytest.raises(ValueError, match="each with a class"):
        MaskExplorer(unlabelled, range(4), activations)
    made = explorer()
    made.box = [0, 0, 25, 10]
    with pytest.raises(ValueError, match=r"box=\[0, 0, 25, 10\]"):
        made.read_out()
    made.box, made.t_cam = [0, 0, 10, 10], 1.0
    with pytest.raises(ValueError, match=r"t_cam=1\.0"):
        made.read_out()


def agree(page, made):
    """What the page says is what Python computes for the page's state."""
    copy_state(page, made, STATE)
    found, shown = made.read_out(), shown_rows(page)
    assert list(shown) == found["class"].tolist()
    for row in found.to_dict("records"):
        texts = shown[row["class"]]
        assert [int(text.split()[0]) for text in texts[:2]] == [row["mask_left"], row["psi"]]
        if "phi" in row:
            assert [int(text) for text in texts[2:4]] == [row["map_left"], row["phi"]]
            assert float(texts[4].replace("–", "nan")) == pytest.approx(row["iou"], abs=0.00051, nan_ok=True)
            assert ("wrongly added" in texts[1]) == (row["psi"] and not row["phi"])
            assert ("wrongly removed" in texts[1]) == (row["phi"] and not row["psi"])
    row = found[found["class"] == made.classes[made.class_index]].iloc[0]
    said = page.locator(".rsbook-psi").inner_text()
    assert said.startswith(f"{row['mask_left']} of {row['mask_pixels']} pixels of the mask are left outside the hole: ")
    assert f"more than t_map = {made.t_map}, so ψ says {row['class']} is " in said
    assert ("present" in said) == row["psi"]
    assert ("not more" in said) == (not row["psi"])
    share = row["mask_pixels"] / np.prod(unpacked(made, "images").shape[1:3])
    covers = re.search(r"The mask covers (below )?([\d.]+)\s% of the scene", page.locator(".rsbook-area").inner_text())
    assert float(covers[2]) == pytest.approx(100 * share, abs=0.051)
    if "phi" in row:
        assert f"{row['map_left']} are left" in page.locator(".rsbook-phi").inner_text()


def slide(page, name, value):
    page.get_by_label(name).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def test_sliders_drag_and_keys_change_what_python_computes_too(opened):
    made = explorer()
    page = opened(made, width=390)
    agree(page, made)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    hole = page.locator("button.rsbook-box")
    before = made.box
    drag(page, hole, 20, -15)
    agree(page, made)
    assert made.box != before
    before = made.box
    drag(page, hole.locator("[data-corner=br]"), 60, 60)
    agree(page, made)
    assert made.box[:2] == before[:2]
    assert made.box[2] > before[2]
    hole.focus()
    before = made.box
    for key in ("ArrowUp", "ArrowRight", "Shift+ArrowUp"):
        page.keyboard.press(key)
    agree(page, made)
    assert made.box == [before[0] - 1, min(before[1] + 1, 30 - before[3] + before[1]), before[2] - 2, made.box[3]]
    page.get_by_label("t_cam").press("ArrowRight")
    page.get_by_label("t_map").press("ArrowLeft")
    agree(page, made)
    assert (made.t_cam, made.t_map) == (0.11, 9)


def test_masks_agree_with_python_at_every_scene_class_and_threshold(opened):
    data = random_scenes()
    made = explorer(data)
    page = opened(made)
    for i in range(4):
        page.get_by_label("Scene", exact=True).select_option(index=i)
        for k, name in enumerate(n for n, has in zip(data.classes, data.labels[i], strict=True) if has):
            page.get_by_label("Class of its label").select_option(name)
            for t_cam, t_map in ((0, 0), (29, 10), (99, 100)):
                slide(page, "t_cam", (t_cam + k) % 100)
                slide(page, "t_map", t_map)
                agree(page, made)
                assert (made.t_cam, made.t_map) == ((t_cam + k) % 100 / 100, t_map)
                assert made.classes[made.class_index] == name


def test_sliders_reach_every_threshold_that_was_given(opened):
    made = explorer(t_cam=0.99, t_map=250)
    page = opened(made)
    agree(page, made)
    assert [page.get_by_label(name).input_value() for name in ("t_cam", "t_map")] == ["99", "250"]
    page.get_by_label("t_map").press("ArrowLeft")
    agree(page, made)
    assert (made.t_cam, made.t_map) == (0.99, 249)


def test_heat_and_mask_are_painted(opened):
    made = explorer()
    page = opened(made)
    page.get_by_label("Scene", exact=True).select_option(index=2)
    agree(page, made)
    heat, mask = (
        np.array(
            page.evaluate(
                """(title) => [...document.querySelector(`canvas[aria-label="${title}"]`)
                  .getContext("2d").getImageData(0, 0, 30, 24).data]""",
                title,
            )
        ).reshape(24, 30, 4)
        for title in ("activation", "mask")
    )
    passed = unpacked(made, "passed")[2, made.class_index]
    assert (heat[..., :3] == unpacked(made, "heat")[passed]).all()
    expected, _, outside = by_hand(made, made.data, made.class_index)
    assert ((mask[..., 3] == 255) == (expected & outside).numpy()).all()
    assert mask[0, 0, 3] != mask[12, 15, 3]


def test_without_maps_there_is_nothing_to_compare_with(opened):
    made = explorer(Scenes(**vars(random_scenes()) | {"positions": None}))
    assert "phi" not in made.read_out()
    page = opened(made, "dark")
    agree(page, made)
    assert "There is no map to compare it with" in page.locator(".rsbook-area").inner_text()
    assert page.locator("canvas").count() == 4  # scene, activation, mask, colour scale


def test_a_class_that_the_scene_lacks_is_replaced(opened):
    data = random_scenes()
    labels = data.labels.clone()
    labels[:2] = torch.tensor([[True, False, True], [False, True, False]])
    made = explorer(Scenes(**vars(data) | {"labels": labels}))
    page = opened(made)
    page.get_by_label("Class of its label").select_option("three")
    page.get_by_label("Scene", exact=True).select_option(index=1)
    agree(page, made)
    assert made.class_index == 1
    page.evaluate("explorer.set('scene', 0)")  # from Python, and the class stays
    wait_two_frames(page)
    assert page.get_by_label("Class of its label").input_value() == "one"


def test_class_names_run_nothing(opened):
    payload = '<img src=x onerror="window.__hit=1"><script>window.__hit=1</script>'
    made = explorer(random_scenes(classes=("one", payload, "</script><b>")))
    page = opened(made)
    agree(page, made)
    assert payload in shown_rows(page)
    page.get_by_label("Class of its label").select_option(payload)
    agree(page, made)
    assert page.evaluate("window.__hit") is None


def test_a_fallback_is_there_without_scripts_and_without_maps():
    data = random_scenes(n=2)
    made = MaskExplorer(Scenes(**vars(data) | {"positions": None}), [0], random_activations(data)[:1])
    assert "<img" in made.fallback.html
