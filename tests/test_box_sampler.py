"""The box sampler: its theory against all boxes one by one, its sampling against the theory, its page against both."""

import itertools
import json
import math

import matplotlib
import numpy as np
import pytest
import torch
import traitlets
from explorer_page import copy_state, wait_two_frames

from rsbook import mixing
from rsbook.widgets import BoxSampler

STATE = ("area_range", "seed", "draws")
BUTTON = 'div.rsbook-controls > button:text-is("{}")'


def every_draw(height, width, low, high):
    """Boxes of a fitting area, one for each draw of Algorithm 1 that it keeps, and the number of all draws."""
    rows, columns = (list(itertools.product(range(size + 1), repeat=2)) for size in (height, width))
    kept = []
    for (y1, y2), (x1, x2) in itertools.product(rows, columns):
        top, bottom, left, right = min(y1, y2), max(y1, y2), min(x1, x2), max(x1, x2)
        if low - 1e-9 <= (bottom - top) * (right - left) / (height * width) <= high + 1e-9:
            kept.append((top, left, bottom, right))
    return np.array(kept), len(rows) * len(columns)


@pytest.mark.parametrize(("height", "width"), [(7, 5), (4, 9), (1, 6), (8, 8)])
@pytest.mark.parametrize("area_range", [(0.3, 0.7), (0.05, 0.4), (0.5, 1.0), (0.05, 1.0)])
def test_theory_is_what_all_draws_come_to(height, width, area_range):
    made = BoxSampler(height, width, area_range)
    kept, draws = every_draw(height, width, *area_range)
    areas = (kept[:, 2] - kept[:, 0]) * (kept[:, 3] - kept[:, 1])
    found = made.read_out()["theory"]
    assert found["boxes"] == len(np.unique(kept, axis=0))
    assert len(kept) == 4 * found["boxes"]  # two orders of rows, two of columns
    assert found["kept"] == pytest.approx(len(kept) / draws)
    assert found["mean_area"] == pytest.approx(areas.mean() / (height * width))
    cover = np.zeros((height, width))
    for top, left, bottom, right in kept:
        cover[top:bottom, left:right] += 1 / len(kept)
    np.testing.assert_allclose(made.coverage()[1], cover)
    assert found["centre"] == pytest.approx(cover[height // 2, width // 2])
    assert found["corner"] == pytest.approx(cover[0, 0])
    shares = made.histogram()
    assert shares["theory"].sum() == pytest.approx(1)
    assert (shares["first"] <= shares["last"]).all()
    for row in shares.itertuples():
        assert row.theory == pytest.approx(((row.first <= areas) & (areas <= row.last)).mean())
    assert (shares["first"].iloc[0], shares["last"].iloc[-1]) == (
        math.ceil(area_range[0] * height * width - 1e-6),
        math.floor(area_range[1] * height * width + 1e-6),
    )


def test_theory_agrees_with_the_boxes_of_the_package():
    made = BoxSampler(32, 24, (0.1, 0.5))
    boxes = mixing.sample_boxes(20_000, 32, 24, (0.1, 0.5), torch.Generator().manual_seed(0)).numpy()
    cover = np.zeros((32, 24))
    for top, left, bottom, right in boxes:
        cover[top:bottom, left:right] += 1 / len(boxes)
    expected = made.coverage()[1]
    error = np.sqrt(expected * (1 - expected) / len(boxes))
    assert (np.abs(cover - expected) < 5 * error).all()


@pytest.mark.parametrize("area_range", [(0.1, 0.3), (0.3, 0.7), (0.05, 1.0)])
def test_what_is_sampled_follows_the_theory(area_range):
    made = BoxSampler(24, 30, area_range)
    made.draws = 100_000
    boxes, found, (cover, expected) = made.boxes(), made.read_out(), made.coverage()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 720
    assert ((areas >= area_range[0] - 1e-9) & (areas <= area_range[1] + 1e-9)).all()
    n, kept = len(boxes), found.loc["kept", "theory"]
    assert abs(n / made.draws - kept) < 5 * np.sqrt(kept * (1 - kept) / made.draws)
    assert abs(areas.mean() - found.loc["mean_area", "theory"]) < 5 * areas.std() / np.sqrt(n)
    assert (np.abs(cover - expected) <= 5 * np.sqrt(expected * (1 - expected) / n)).all()
    shares = made.histogram()
    assert (np.abs(shares["sampled"] - shares["theory"]) < 5 * np.sqrt(shares["theory"] / n) + 1 / n).all()


def test_another_range_keeps_other_boxes_of_the_same_draws():
    made = BoxSampler(20, 20, (0.05, 1.0))
    made.draws = 500
    wide = {tuple(box) for box in made.boxes()}
    made.area_range = [0.3, 0.5]
    assert {tuple(box) for box in made.boxes()} < wide
    made.seed = 2
    assert not {tuple(box) for box in made.boxes()} <= wide


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "height=0, width=5: expected 1 to 256"),
        ((5, 257), "height=5, width=257"),
        ((5, 5, (0.0, 0.5)), "expected 0 < A_min ≤ A_max ≤ 1"),
        ((5, 5, (0.5, 0.3)), "expected 0 < A_min"),
        ((5, 5, (0.5,)), "expected 0 < A_min"),
        ((5, 5, (0.33, 0.7)), "expected steps of 0.05"),
        ((5, 5, (0.3, 0.7), [(0.3, 1.1)]), "expected 0 < A_min"),
        ((1, 1, (0.3, 0.7)), "no box of whole pixels in 1×1"),
    ],
)
def test_what_cannot_be_sampled_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        BoxSampler(*arguments)


def test_the_state_is_checked():
    made = BoxSampler(20, 20)
    with pytest.raises((ValueError, traitlets.TraitError), match="A_min"):
        made.area_range = [0.7, 0.3]
    for wrong in (-1, made.max_draws + 1):
        with pytest.raises(traitlets.TraitError):
            made.draws = wrong
    assert made.area_range == [0.3, 0.7]


def test_a_range_without_boxes_has_no_shares():
    made = BoxSampler(7, 7)
    made.area_range = [0.95, 0.95]
    made.draws = 100
    found = made.read_out()
    assert found.loc["boxes"].tolist() == [0, 0]
    assert found.loc["kept"].tolist() == [0, 0]
    assert found.loc[["mean_area", "centre", "corner"]].isna().all(axis=None)
    assert made.histogram().empty


def test_the_state_is_small_and_the_fallback_a_figure():
    made = BoxSampler(120, 120)
    state = {name: getattr(made, name) for name in ("area_range", "area_ranges", "seed", "draws", "caption")}
    assert len(json.dumps(state)) + len(made.arrays["colours"]["data"]) < 3000
    assert made.fallback.html.count("<img") == 2
    assert "areas" in made.fallback.text


# In a browser


def share(value):
    return "–" if np.isnan(value) else f"{100 * value:.2f} %"


def assert_shown_is_read_out(page, made):
    found = made.read_out().T.to_dict("records")
    rows = [[cell.inner_text() for cell in row.locator("th,td").all()][1:] for row in page.locator("tbody tr").all()]
    assert rows == [
        [f"{column['boxes']:,.0f}" for column in found],
        ["–" if np.isnan(column["mean_area"]) else f"{column['mean_area']:.4f}" for column in found],
        *([share(column[name]) for column in found] for name in ("kept", "centre", "corner")),
    ]
    assert_painted(page, made)


def assert_painted(page, made):
    """The two pictures of coverage are what Python has, in the colours of matplotlib."""
    colours = (np.array(matplotlib.colormaps["viridis"].colors) * 255).round()
    painted = page.evaluate(
        "JSON.stringify([...document.querySelectorAll('.rsbook-shown canvas')].map((c) =>"
        " [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]))"
    )
    for pixels, cover in zip(json.loads(painted), made.coverage(), strict=True):
        pixels = np.array(pixels).reshape(made.height, made.width, 4)
        if np.isnan(cover).all():
            assert (pixels == 0).all()
            continue
        level = 255 * cover  # one level is two where it is half-way between them
        near = [colours[np.floor(level + 0.5 + nudge).astype(int).clip(0, 255)] for nudge in (-1e-9, 1e-9)]
        assert all((pixels[..., 3] == 255).ravel())
        assert np.minimum(*(np.abs(pixels[..., :3] - one).max(axis=-1) for one in near)).max() == 0


def test_buttons_draw_boxes_and_what_is_shown_is_what_python_has(opened):
    made = BoxSampler(30, 24)
    page = opened(made)
    assert_shown_is_read_out(page, made)
    for text, total in (("Draw 1 box", 1), ("Draw 100 boxes", 101), ("Draw 1,000 boxes", 1101)):
        page.click(BUTTON.format(text))
        copy_state(page, made, STATE)
        assert len(made.boxes()) == total
        assert_shown_is_read_out(page, made)
    last = page.locator(".rsbook-shown rect").evaluate_all(
        "(all) => all.map((r) => ['y', 'x', 'height', 'width'].map((name) => +r.getAttribute(name)))"
    )
    boxes = made.boxes()[-12:]
    assert last == np.column_stack((boxes[:, :2], boxes[:, 2:] - boxes[:, :2])).tolist()
    assert page.locator(".rsbook-shown rect.newest").count() == 1
    found = made.read_out()
    assert f"kept 1,101 of {made.draws:,} draws" in page.inner_text(".rsbook-area")
    kept = found.loc["kept", "theory"]
    assert abs(found.loc["kept", "sampled"] - kept) < 5 * np.sqrt(kept / made.draws)
    heights = page.locator("rect.sampled").evaluate_all("(all) => all.map((r) => +r.getAttribute('height'))")
    shares = made.histogram()["sampled"]
    np.testing.assert_allclose(np.array(heights) / max(heights), shares / shares.max())

    page.click(BUTTON.format("Start again"))
    copy_state(page, made, STATE)
    assert (made.seed, made.draws) == (2, 0)
    assert page.locator(".rsbook-shown rect").count() == 0
    assert_shown_is_read_out(page, made)


def test_sliders_keep_their_order_by_key_and_mouse_and_the_draws_stay(opened):
    made = BoxSampler(20, 32, (0.3, 0.35))
    page = opened(made)
    page.click(BUTTON.format("Draw 100 boxes"))
    smallest, largest = page.get_by_label("Smallest area A_min"), page.get_by_label("Largest area A_max")
    copy_state(page, made, STATE)
    draws = made.draws
    for key, slider, expected in (
        ("ArrowRight", smallest, [0.35, 0.35]),
        ("ArrowRight", smallest, [0.4, 0.4]),  # takes the other with it
        ("ArrowUp", largest, [0.4, 0.45]),
        ("Home", largest, [0.05, 0.05]),
        ("End", largest, [0.05, 1.0]),
    ):
        slider.press(key)
        copy_state(page, made, STATE)
        assert (made.area_range, made.draws) == (expected, draws)
        assert_shown_is_read_out(page, made)
    where = largest.bounding_box()
    page.mouse.click(where["x"] + where["width"] / 2, where["y"] + where["height"] / 2)
    copy_state(page, made, STATE)
    assert made.area_range[0] == 0.05
    assert 0.4 <= made.area_range[1] <= 0.6
    assert_shown_is_read_out(page, made)
    assert largest.get_attribute("aria-valuetext") == f"{made.area_range[1]:.2f}"

    page.get_by_role("button", name="0.1–0.7").click()
    copy_state(page, made, STATE)
    assert made.area_range == [0.1, 0.7]
    pressed = page.locator("[aria-pressed=true]").all_inner_texts()
    assert pressed == ["0.1–0.7"]
    assert_shown_is_read_out(page, made)


def test_a_range_without_boxes_and_one_with_few_end_the_drawing(opened):
    made = BoxSampler(7, 7)
    page = opened(made)
    page.evaluate("explorer.set('area_range', [0.95, 0.95])")
    copy_state(page, made, STATE)
    assert "No box of whole pixels in 7 × 7" in page.inner_text(".rsbook-area")
    assert page.locator(BUTTON.format("Draw 1 box")).is_disabled()
    assert_shown_is_read_out(page, made)

    made = BoxSampler(120, 120, (1.0, 1.0))
    page = opened(made)
    page.click(BUTTON.format("Draw 1,000 boxes"))
    copy_state(page, made, STATE)
    assert made.draws == made.max_draws  # about one draw in 50 million fits
    assert "start again" in page.inner_text(".rsbook-area")
    assert_shown_is_read_out(page, made)
    page.click(BUTTON.format("Start again"))
    copy_state(page, made, STATE)
    assert page.locator(BUTTON.format("Draw 1 box")).is_enabled()


def test_as_large_as_the_papers_images_the_page_counts_as_python_does(opened):
    made = BoxSampler(120, 120)
    page = opened(made)
    for area_range in made.area_ranges:
        page.evaluate("(range) => explorer.set('area_range', range)", area_range)
        copy_state(page, made, STATE)
        assert_shown_is_read_out(page, made)
    page.click(BUTTON.format("Draw 1,000 boxes"))
    copy_state(page, made, STATE)
    assert_shown_is_read_out(page, made)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_it_without_sideways_scrolling_and_all_is_named(opened, theme):
    page = opened(BoxSampler(32, 32), theme, width=390)
    page.click(BUTTON.format("Draw 100 boxes"))
    wait_two_frames(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    unnamed = page.locator(".rsbook-explorer canvas, .rsbook-explorer [role=img], .rsbook-explorer input")
    for one in unnamed.all():
        assert one.get_attribute("aria-label") or page.locator(f"label[for={one.get_attribute('id')}]").count()
