"""What all explorers share, and the CutMix explorer, in Python and in a browser."""

import re
import zlib

import numpy as np
import pytest
import torch
from explorer_page import THEMES, copy_state, drag, shown_rows, wait_two_frames
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator

from rsbook import mixing, positions, report, scenes
from rsbook.widgets import CutMixExplorer, explorer


def random_scenes(height=24, width=30, n=4, classes=("one", "two", "three"), seed=0):
    """Scenes of random blocks, so that classes have borders."""
    generator = Generator().manual_seed(seed)
    maps = torch.randint(len(classes), (n, -(-height // 6), -(-width // 6)), generator=generator)
    maps = maps.repeat_interleave(6, 1).repeat_interleave(6, 2)[:, :height, :width]
    bits, labels = scenes.from_maps(maps, len(classes), min_pixels=5)
    return scenes.Scenes(
        name="random",
        images=torch.randint(256, (n, 3, height, width), generator=generator, dtype=torch.uint8),
        labels=labels,
        positions=bits,
        classes=classes,
        splits={"train": torch.arange(n), "val": torch.arange(0), "test": torch.arange(0)},
        mean=torch.full((3,), 128.0),
        std=torch.full((3,), 64.0),
        min_pixels=5,
        checksum="c" * 64,
    )


def by_hand(made, bits, k, threshold):
    """Pixels of class k in the mixture, from the mixed map itself."""
    top, left, bottom, right = made.box
    row, column = made.source
    mixed = bits[made.first].clone()
    patch = bits[made.second][row : row + bottom - top, column : column + right - left]
    mixed[top:bottom, left:right] = patch
    pixels = int((mixed >> k & 1).sum())
    return pixels, pixels > threshold


@given(st.integers(0, 3), st.integers(0, 3), st.data())
def test_read_out_counts_what_the_mixture_holds(first, second, draw):
    data = random_scenes()
    masks = positions.from_explanation_masks(
        torch.rand(4, 3, 24, 30, generator=Generator().manual_seed(1)) > 0.97
    )  # few pixels, near t_map
    made = CutMixExplorer(data, range(4), masks)
    top, left = draw.draw(st.integers(0, 23)), draw.draw(st.integers(0, 29))
    bottom, right = draw.draw(st.integers(top + 1, 24)), draw.draw(st.integers(left + 1, 30))
    made.first, made.second, made.box = first, second, [top, left, bottom, right]
    made.source = [draw.draw(st.integers(0, 24 - bottom + top)), draw.draw(st.integers(0, 30 - right + left))]
    found = made.read_out()
    share = (bottom - top) * (right - left) / 720
    for k in range(3):
        pixels, present = by_hand(made, data.positions, k, 5)
        weight = (1 - share) * float(data.labels[first, k]) + share * float(data.labels[second, k])
        assert found["pixels"][k] == pixels
        assert found["reference_map"][k] == present
        assert found["area"][k] == pytest.approx(weight)
        assert found["explanation_mask"][k] == by_hand(made, masks, k, 10)[1]


def test_read_out_is_what_cutmix_says():
    data, generator = random_scenes(), Generator().manual_seed(3)
    options = {"area_range": (0.1, 0.5), "probability": 1.0, "min_pixels": data.min_pixels}
    mixed = mixing.cutmix(data.images, data.labels, data.positions, generator=generator, **options)
    made = CutMixExplorer(data, range(4))
    for i in range(4):
        made.first, made.second = i, int(mixed.partner[i])
        made.box, made.source = mixed.boxes[i].tolist(), mixed.sources[i, :2].tolist()
        assert made.read_out()["reference_map"].astype(float).tolist() == mixed.labels[i].tolist()


def test_what_an_explorer_refuses():
    data = random_scenes()
    with pytest.raises(ValueError, match="two scenes or more"):
        CutMixExplorer(data, [0])
    with pytest.raises(ValueError, match="masks: have shape"):
        CutMixExplorer(data, [0, 1], data.positions)
    made = CutMixExplorer(data, [0, 1])
    made.box = [0, 0, 25, 10]
    with pytest.raises(ValueError, match=r"box=\[0, 0, 25, 10\]"):
        made.read_out()
    made.box, made.source = [0, 0, 10, 10], [20, 0]
    with pytest.raises(ValueError, match=r"source=\[20, 0, 30, 10\]"):
        made.read_out()
    with pytest.raises(ValueError, match="array of float64"):
        explorer.packed(np.zeros(3))


def test_packed_arrays_are_small_and_whole():
    array = torch.arange(24, dtype=torch.int32).view(2, 3, 4)
    stored = explorer.packed(array)
    assert stored["shape"] == [2, 3, 4]
    assert zlib.decompress(stored["data"]) == array.numpy().tobytes()
    made = CutMixExplorer(random_scenes(120, 120, 8), range(8))
    assert sum(len(array["data"]) for array in made.arrays.values()) < 500_000


def test_modules_are_one_file_without_imports():
    assert not re.search(r"^(import|export (?!default))", CutMixExplorer._esm, re.M)
    assert "innerHTML" not in CutMixExplorer._esm


def test_various_scenes_show_every_class():
    data = random_scenes(n=40, classes=("one", "two", "three", "four", "five"))
    chosen = explorer.various_scenes(data, data.split("train"), 6)
    assert len(set(chosen)) == 6
    assert data.labels[chosen].any(dim=0).all()
    assert explorer.various_scenes(data, torch.arange(3), 6) != []


def test_pictures_of_reflectances_are_bytes():
    data = random_scenes()
    reflectances = scenes.Scenes(**vars(data) | {"images": data.images.to(torch.int16) * 40, "rgb": (2, 1, 0)})
    pixels = explorer.rgb(reflectances, [0, 1])
    assert pixels.shape == (2, 24, 30, 3)
    assert pixels.dtype == torch.uint8
    assert torch.equal(explorer.rgb(data, [2])[0], data.images[2].movedim(0, -1))


def agree(page, made):
    """The table on the page says what Python computes for the page's state."""
    copy_state(page, made, ("first", "second", "box", "source", "area_range"))
    shown = shown_rows(page)
    assert shown
    for row in made.read_out().to_dict("records"):
        if row["class"] not in shown:
            assert row["pixels"] == 0
            assert row["area"] == 0
            continue
        texts = shown[row["class"]]
        assert int(texts[0]) == row["pixels"]
        ways = [(texts[1], row["area"]), (texts[2], row["reference_map"])]
        ways += [(texts[3], row["explanation_mask"])] if "explanation_mask" in row else []
        for text, value in ways:
            assert float(text.split()[0]) == pytest.approx(float(value), abs=0.005)
            assert ("wrongly added" in text) == (value > 0 and not row["reference_map"])
            assert ("wrongly removed" in text) == (value == 0 and row["reference_map"])


def test_drag_keys_and_choices_change_what_python_computes_too(opened):
    data = random_scenes()
    masks = positions.from_explanation_masks(torch.rand(4, 3, 24, 30, generator=Generator().manual_seed(1)) > 0.97)
    made = CutMixExplorer(data, range(4), masks)
    page = opened(made)
    hole, patch = page.locator("button.rsbook-box").all()
    before = made.box
    agree(page, made)
    drag(page, hole, -40, 30)
    agree(page, made)
    assert made.box != before
    assert [made.box[2] - made.box[0], made.box[3] - made.box[1]] == [before[2] - before[0], before[3] - before[1]]
    before = made.box
    drag(page, hole.locator("[data-corner=br]"), -20, -25)
    agree(page, made)
    assert made.box[:2] == before[:2]
    assert made.box[2] < before[2]
    source = made.source
    drag(page, patch, 20, -15)
    agree(page, made)
    assert made.source != source
    hole.focus()
    box = made.box
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "Shift+ArrowDown"):
        page.keyboard.press(key)
    agree(page, made)
    assert made.box == [box[0] + 2, box[1] + 1, box[2] + 3, box[3] + 1]
    page.get_by_label("First scene x₁").select_option(index=2)
    page.get_by_label("Second scene x₂").select_option(index=3)
    agree(page, made)
    assert (made.first, made.second) == (2, 3)
    page.get_by_label("Area range").select_option(index=0)
    for _ in range(5):
        page.get_by_role("button", name="Draw a box").click()
        agree(page, made)
        share = (made.box[2] - made.box[0]) * (made.box[3] - made.box[1]) / 720
        assert 0.1 <= share <= 0.3
        assert "within the range 0.1–0.3" in page.locator(".rsbook-area").inner_text()


def test_boxes_stay_in_their_scenes_whatever_is_dragged(opened):
    made = CutMixExplorer(random_scenes(), range(4))
    page = opened(made)
    hole, patch = page.locator("button.rsbook-box").all()
    for target, down, right in ((hole, -900, -900), (hole, 900, 900), (patch, 900, -900)):
        drag(page, target, down, right)
        agree(page, made)
    drag(page, hole.locator("[data-corner=tl]"), 500, 500)  # past the other corner
    agree(page, made)
    top, left, bottom, right = made.box
    assert top < bottom
    assert left < right


def test_screen_readers_hear_what_is_new_when_the_hand_rests(opened):
    masks = positions.from_explanation_masks(torch.zeros(4, 3, 24, 30) > 0)
    masks[0, :6, 5:20] = 0b111  # what the label by mask says depends on where the hole is
    page = opened(CutMixExplorer(random_scenes(), range(4), masks))
    told, hole = page.locator(".rsbook-told"), page.locator("button.rsbook-box").first
    verdict = page.locator(".rsbook-verdict")
    wait_two_frames(page)
    before, place = verdict.text_content(), hole.bounding_box()
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 6):
        page.mouse.move(x, y - 20 * step)
        wait_two_frames(page)
        assert told.text_content() == ""
    assert verdict.text_content() != before
    page.mouse.up()
    wait_two_frames(page)
    assert told.text_content() == verdict.text_content()
    for _ in range(9):
        hole.press("ArrowDown")
        wait_two_frames(page)
        assert told.text_content() == verdict.text_content()
    assert verdict.text_content() == before  # the hole is no longer where the masks are
    page.get_by_label("First scene x₁").select_option(index=2)
    wait_two_frames(page)
    assert told.text_content() == verdict.text_content() != before


def wrong_by_area():
    """An explorer of scenes with labels that their maps, also taken for masks, do not bear out."""
    data = random_scenes()
    data.positions[:2] = 0b011  # the first two classes everywhere
    data.labels[0] = data.labels[1] = torch.tensor([True, False, True])
    return CutMixExplorer(data, range(4), data.positions)


def test_the_verdict_names_only_what_is_wrong(opened):
    page = opened(wrong_by_area())
    assert page.locator(".rsbook-verdict").text_content() == (
        "Label by area: wrongly added three, wrongly removed two. Label by explanation mask: nothing wrong."
    )


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_and_verdicts_can_be_read(theme, opened):
    axe = report.fetch_assets() / "tools" / "axe.min.js"
    page = opened(wrong_by_area(), theme)
    assert all(page.locator(f"td.{kind}").count() for kind in ("added", "lost", "right"))
    page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    assert [f"{rule['id']}: {node['html'][:120]} {node['any'][:1]}" for rule in found for node in rule["nodes"]] == []


def swipe(page, locator, up, right=0, steps=10):
    """Swipe a finger by so many pixels of the screen from the middle of what is located."""
    session, box = page.context.new_cdp_session(page), locator.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for step in range(steps + 1):
        point = {"x": x + right * step / steps, "y": y - up * step / steps}
        kind = "touchMove" if step else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        wait_two_frames(page)
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    wait_two_frames(page)


def test_a_finger_scrolls_on_pictures_without_a_box_to_drag(opened):
    page = opened(CutMixExplorer(random_scenes(), range(4)), width=390, has_touch=True)
    page.evaluate("document.body.style.paddingBottom = '2000px'")
    swipe(page, page.locator("canvas").nth(0), 100)  # the first scene with its hole
    assert page.evaluate("scrollY") == 0
    swipe(page, page.locator("canvas").nth(2), 100)  # the mixture
    assert page.evaluate("scrollY") > 50


def test_a_finger_drags_too(opened):
    made = CutMixExplorer(random_scenes(), range(4))
    page = opened(made, width=390, has_touch=True)
    before = made.box
    swipe(page, page.locator("button.rsbook-box").first, 12, 12)
    agree(page, made)
    assert made.box != before
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_class_names_run_nothing(opened):
    payload = '<img src=x onerror="window.__hit=1"><script>window.__hit=1</script>'
    made = CutMixExplorer(random_scenes(classes=("one", payload, "</script><b>")), range(4))
    page = opened(made)
    agree(page, made)
    assert payload in shown_rows(page)
    assert page.evaluate("window.__hit") is None


def test_what_has_the_focus_keeps_its_keys_in_jupyterlab(opened):
    page = opened(CutMixExplorer(random_scenes(), range(4)))
    focusable = page.locator(".rsbook-explorer :is(button, input, select)")
    kept = page.locator(".rsbook-explorer :is(button, input, select)[data-lm-suppress-shortcuts=true]")
    assert focusable.count() == kept.count() >= 6
