"""The selection explorer, in Python and in a browser."""

import re
import zlib
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from explorer_page import THEMES, copy_state, shown_rows, wait_two_frames
from test_explorers import random_scenes
from torch import Generator

from rsbook import report, segmentation, selection
from rsbook.widgets import SelectionExplorer

STATE = ("scene", "moment", "ratio", "gamma", "follows", "ranking")
EPOCHS = [1, 3, 9]


def two_modal(height=24, width=30, n=6):
    data = random_scenes(height, width, n)
    images = torch.cat([data.images, data.images[:, :2].flip(0)], dim=1)
    stats = {"mean": torch.full((5,), 128.0), "std": torch.full((5,), 64.0)}
    return replace(data, images=images, modalities={"veg": (3, 4), "rgb": (0, 1, 2)}, **stats)


def explorer(data=None, seed=0, shown=4, unlabelled=-1):
    """Networks that come to know the truth, and maps of which a fifth is wrong and some pixels have no label."""
    data, generator = data or two_modal(), Generator().manual_seed(seed)
    index = torch.arange(len(data.images))
    clean = segmentation.maps_of(data, index)
    wrong = torch.rand(clean.shape, generator=generator) < 0.2
    noisy = torch.where(wrong, (clean + 1) % 3, clean)
    noisy[:, :2] = unlabelled
    truth = torch.nn.functional.one_hot(clean, 3).movedim(-1, 1).float()
    noise = torch.randn(len(EPOCHS), 2, *truth.shape, generator=generator)
    logits = noise + truth * torch.tensor([0.0, 1.5, 4.0]).view(3, 1, 1, 1, 1, 1)
    return SelectionExplorer(data, index, noisy, logits, EPOCHS, 8, shown), noisy, logits


def unpacked(made, name):
    stored = made.arrays[name]
    return torch.from_numpy(
        np.frombuffer(zlib.decompress(stored["data"]), stored["dtype"]).reshape(stored["shape"]).copy()
    )


def slow_read_out(made, maps):
    """The same from saved bytes, pixel by pixel and with Python's own fractions; the scenes offered are the batch."""
    labels, entities = (
        unpacked(made, name).long().cumsum(-1).cumsum(-2)[made.moment].remainder(256).tolist()
        for name in ("labels", "entities")
    )
    clean, rows = unpacked(made, "clean").tolist(), []
    pixels = [(i, y, x) for i, one in enumerate(maps) for y, row in enumerate(one) for x in range(len(row))]
    for m in range(2):
        enhanced = {}
        for i, y, x in pixels:
            own, other = (Fraction(labels[k][i][y][x], 255) for k in (m, 1 - m))
            enhanced[i, y, x] = (own + own * other) / 2
        counts = {"low": 0, "both": 0, "bad": 0}
        weights, teaches = {True: [], False: []}, []
        for y, x in ((y, x) for i, y, x in pixels if i == made.scene):
            own, other = (Fraction(entities[k][made.scene][y][x], 255) for k in (m, 1 - m))
            teaches.append(1 - made.gamma + made.gamma * float((own + own * other) / 2))
            label = maps[made.scene][y][x]
            if label < 0:
                continue
            rivals = [
                enhanced[j, v, u]
                for j, v, u in pixels
                if maps[j][v][u] == label or (made.ranking == "global" and maps[j][v][u] >= 0)
            ]
            least = sorted(rivals, reverse=True)[round(100 * made.ratio) * len(rivals) // 100 - 1]
            weight = min(Fraction(1), enhanced[made.scene, y, x] / least) if least else Fraction(1)
            wrong = label != clean[made.scene][y][x]
            weights[wrong].append(weight)
            counts["low"] += weight < 1
            counts["bad"] += wrong
            counts["both"] += weight < 1 and wrong
        rows.append(
            {
                "precision": counts["both"] / counts["low"] if counts["low"] else float("nan"),
                "recall": counts["both"] / counts["bad"],
                "right": float(sum(weights[False]) / len(weights[False])),
                "wrong": float(sum(weights[True]) / len(weights[True])),
                "teaches": sum(teaches) / len(teaches),
            }
        )
    return rows


def set_state(made, **state):
    for name, value in state.items():
        setattr(made, name, value)


@pytest.mark.parametrize("ranking", selection.RANKINGS)
@pytest.mark.parametrize(("moment", "ratio", "gamma"), [(0, 1.0, 0.0), (1, 0.73, 0.4), (2, 0.5, 1.0)])
def test_read_out_is_what_the_package_says_of_rounded_confidences(ranking, moment, ratio, gamma):
    made, noisy, logits = explorer()
    probabilities = logits[moment].softmax(dim=2)
    rounded = [(selection.label_confidence(q, noisy) * 255).round() / 255 for q in probabilities]
    sure = [(selection.entity_confidence(q) * 255).round() / 255 for q in probabilities]
    clean = segmentation.maps_of(made.data, torch.arange(len(noisy)))
    for scene, which in enumerate(made.scenes):
        set_state(made, scene=scene, moment=moment, ratio=ratio, gamma=gamma, ranking=ranking)
        found = made.read_out()
        assert found["modality"].tolist() == ["veg", "rgb"]
        for m, row in enumerate(found.to_dict("records")):
            weights = selection.selection_weights(selection.enhanced(rounded)[m], noisy, ratio, ranking)[which]
            known, wrong = noisy[which] >= 0, (noisy != clean)[which] & (noisy[which] >= 0)
            low = known & (weights < 1 - 1e-6)
            teaches = selection.consistency_weights(selection.enhanced(sure)[m], gamma)[which].mean()
            expected = {
                "precision": (low & wrong).sum() / low.sum() if low.any() else float("nan"),
                "recall": (low & wrong).sum() / wrong.sum(),
                "right": weights[known & ~wrong].mean(),
                "wrong": weights[wrong].mean(),
                "teaches": teaches,
            }
            for name, value in expected.items():
                assert row[name] == pytest.approx(float(value), abs=1e-5, nan_ok=True), name


@pytest.mark.parametrize("ranking", selection.RANKINGS)
@pytest.mark.parametrize(("moment", "ratio", "gamma"), [(0, 0.9, 0.2), (1, 0.73, 0.4), (2, 1.0, 1.0), (2, 0.5, 0.0)])
def test_read_out_is_what_a_slow_loop_finds_in_the_saved_bytes(ranking, moment, ratio, gamma):
    made, noisy, _ = explorer(two_modal(9, 8, 3), shown=3)
    set_state(made, scene=1, moment=moment, ratio=ratio, gamma=gamma, ranking=ranking)
    found = made.read_out()
    for row, expected in zip(found.to_dict("records"), slow_read_out(made, noisy[made.scenes].tolist()), strict=True):
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def test_selection_finds_wrong_pixels_once_networks_know():
    made, _, _ = explorer()
    set_state(made, moment=2, ratio=0.5, gamma=1.0)
    late = made.read_out()
    assert (late["wrong"] < 0.7 * late["right"]).all()
    set_state(made, moment=0, ratio=1.0)
    assert (made.read_out()[["right", "wrong"]] == 1).all(axis=None)


def test_alpha_and_gamma_begin_as_the_ramp_has_them():
    made, _, _ = explorer()
    assert made.ramp == [
        [round(1 - selection.ramp(e - 1, 8) / 2, 2), round(selection.ramp(e - 1, 8), 2)] for e in EPOCHS
    ]
    assert (made.moment, made.ratio, made.gamma, made.follows) == (2, 0.5, 1.0, True)


def test_alpha_and_gamma_follow_the_moment_until_one_is_set_to_another_value():
    made, _, _ = explorer()
    made.moment = 1
    assert ([made.ratio, made.gamma], made.follows) == (made.ramp[1], True)
    made.gamma = 0.9
    assert not made.follows
    made.moment = 0
    assert (made.ratio, made.gamma) == (made.ramp[1][0], 0.9)
    made.follows = True
    assert [made.ratio, made.gamma] == made.ramp[0]
    made.ratio = made.ramp[0][0]
    assert made.follows
    made.set_state({"moment": 2, "ratio": made.ramp[2][0], "gamma": made.ramp[2][1]})  # as a page sends it
    assert ([made.ratio, made.gamma], made.follows) == (made.ramp[2], True)
    made.set_state({"ratio": 0.81, "follows": False})
    assert (made.ratio, made.follows) == (0.81, False)


def test_any_negative_number_says_that_there_is_no_label():
    few, many = (explorer(unlabelled=value)[0] for value in (-1, -255))
    assert unpacked(many, "noisy").min() == -1
    assert few.read_out().equals(many.read_out())


def test_scenes_offered_are_various_ones_of_the_batch_with_their_maps():
    made, noisy, logits = explorer()
    assert len(made.scenes) == len(made.names) == 4
    assert torch.equal(unpacked(made, "noisy").long(), noisy[made.scenes])
    assert torch.equal(unpacked(made, "predictions").long(), logits[:, :, made.scenes].argmax(dim=3))
    assert torch.equal(unpacked(made, "clean").long(), segmentation.maps_of(made.data, torch.tensor(made.scenes)))


def test_what_it_refuses():
    data = two_modal()
    made, noisy, logits = explorer(data)
    given = {"data": data, "scenes": range(6), "maps": noisy, "logits": logits, "epochs": EPOCHS, "ramp_length": 8}
    for change in (
        {"logits": logits[:, :1]},
        {"logits": logits[:2]},
        {"maps": noisy[:5]},
        {"data": replace(data, modalities={})},
        {"scenes": [], "maps": noisy[:0], "logits": logits[:, :, :0]},
        {"shown": 0},
    ):
        with pytest.raises(ValueError, match=r"random: expected 2 modalities, maps \(\d, 24, 30\) and logits"):
            SelectionExplorer(**given | change)
    with pytest.raises(ValueError, match="random: the explorer needs reference maps"):
        SelectionExplorer(**given | {"data": replace(data, positions=None)})
    for change in ({"maps": noisy + 1}, {"logits": logits * float("nan")}):
        with pytest.raises(ValueError, match="random: expected classes below 3 in maps, and logits that are finite"):
            SelectionExplorer(**given | change)
    for state in ({"ratio": 0.4}, {"ratio": 0.505}, {"ratio": 0.5, "gamma": 1.1}):
        set_state(made, **state)
        with pytest.raises(ValueError, match=r"expected one of 0\.50, 0\.51, … 1\.00, and 0 … 1"):
            made.read_out()


def test_eight_scenes_of_six_moments_are_small():
    data = two_modal(32, 32, 8)
    clean = segmentation.maps_of(data, torch.arange(8))
    logits = torch.randn(6, 2, 8, 3, 4, 4, generator=Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(logits.flatten(0, 2), size=(32, 32), mode="bilinear")
    made = SelectionExplorer(data, range(8), clean, smooth.view(6, 2, 8, 3, 32, 32), [1, 2, 3, 4, 5, 6], 5)
    assert sum(len(array["data"]) for array in made.arrays.values()) * 4 / 3 < 250_000  # in a page: base64


def test_where_scripts_are_off_a_figure_stands_for_it():
    made, _, _ = explorer()
    assert "heat maps" in made.fallback.text


# In a browser


def agree(page, made):
    """What the page says is what Python computes for the page's state."""
    copy_state(page, made, STATE)
    shown = shown_rows(page)
    for row in made.read_out().to_dict("records"):
        texts = shown[row["modality"]]
        for text, name in zip(texts[:2], ("precision", "recall"), strict=True):
            number = re.match(r"([\d.]+)\s%", text)
            assert (float(number[1]) if number else float("nan")) == pytest.approx(
                100 * row[name], abs=0.051, nan_ok=True
            )
        for text, name in zip(texts[2:], ("right", "wrong", "teaches"), strict=True):
            assert float(text) == pytest.approx(row[name], abs=0.00501)
    said = page.locator(".rsbook-masks").inner_text()
    assert said.startswith(f"Epoch {made.epochs[made.moment]}, α = {made.ratio:.2f}, γ = {made.gamma:.2f}: ")
    counted = re.findall(r"(\d+) of (\d+) wrong and (\d+) of (\d+) right pixels in (\w+)", said)
    for row, (*numbers, name) in zip(made.read_out().to_dict("records"), counted, strict=True):
        caught, wrong, held, right = map(int, numbers)
        maps, clean = made.maps[made.scene], made.clean[made.scene]
        assert (name, wrong + right) == (row["modality"], int((maps >= 0).sum()))
        assert wrong == int((maps != clean)[maps >= 0].sum())
        assert caught / wrong == pytest.approx(row["recall"])
        assert (caught / (caught + held) if caught + held else float("nan")) == pytest.approx(
            row["precision"], nan_ok=True
        )


def slide(page, name, value):
    page.get_by_label(name).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def test_sliders_lists_and_the_button_change_what_python_computes_too(opened):
    made, _, _ = explorer()
    page = opened(made, width=390)
    agree(page, made)
    again = page.get_by_role("button", name="α and γ follow the epoch")
    assert again.get_attribute("aria-pressed") == "true"
    slide(page, "Epoch", 1)
    agree(page, made)
    assert [made.ratio, made.gamma, made.follows] == [*made.ramp[1], True]
    slide(page, "Selection ratio α", 81)
    slide(page, "Weight γ", 33)
    agree(page, made)
    assert (made.ratio, made.gamma, made.follows) == (0.81, 0.33, False)
    slide(page, "Epoch", 2)  # what was set by hand stays
    page.get_by_label("Ranked among").select_option("pixels of each label")
    agree(page, made)
    assert (made.ratio, made.ranking, made.moment) == (0.81, "per_class", 2)
    again.click()
    agree(page, made)
    assert [made.ratio, made.gamma, made.follows] == [*made.ramp[2], True]
    again.click()  # and off: both stay where they are
    slide(page, "Epoch", 0)
    agree(page, made)
    assert ([made.ratio, made.gamma], made.moment, made.follows) == (made.ramp[2], 0, False)


def test_everything_is_done_with_keys_too(opened):
    made, _, _ = explorer()
    page = opened(made)
    page.get_by_label("Epoch", exact=True).press("ArrowLeft")
    agree(page, made)
    assert ([made.ratio, made.gamma], made.moment) == (made.ramp[1], 1)
    page.get_by_label("Selection ratio α").press("ArrowRight")
    page.get_by_label("Weight γ").press("ArrowRight")
    agree(page, made)
    assert ([made.ratio, made.gamma], made.follows) == ([round(value + 0.01, 2) for value in made.ramp[1]], False)
    again = page.get_by_role("button", name="α and γ follow the epoch")
    again.press("Enter")
    agree(page, made)
    assert ([made.ratio, made.gamma], made.follows) == (made.ramp[1], True)
    assert again.evaluate("(one) => one === document.activeElement")  # the focus is not lost
    page.get_by_label("Ranked among").press("ArrowDown")
    page.get_by_label("Scene", exact=True).press("ArrowDown")
    agree(page, made)
    assert (made.ranking, made.scene) == ("per_class", 1)


@pytest.mark.parametrize("width", [390, 900])
@pytest.mark.parametrize("side", [24, 120])
def test_neither_the_page_nor_its_table_scrolls_sideways(opened, width, side):
    data = two_modal(side, side)
    data = replace(data, modalities=dict(zip(("vegetation", "optical"), data.modalities.values(), strict=True)))
    page = opened(explorer(data)[0], width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    table = page.locator(".rsbook-masks-table")
    assert table.evaluate("(one) => one.scrollWidth - one.clientWidth") == 0


def test_screen_readers_hear_what_the_masks_do_once_a_key_is_up(opened):
    page = opened(explorer()[0])
    wait_two_frames(page)
    told, said = page.locator(".rsbook-told"), page.locator(".rsbook-masks")
    assert told.text_content() == ""
    before = said.text_content()
    page.get_by_label("Selection ratio α").press("ArrowRight")
    wait_two_frames(page)
    assert told.text_content() == said.text_content() != before
    page.get_by_label("Scene", exact=True).select_option(index=2)
    wait_two_frames(page)
    assert told.text_content() == said.text_content()
    names = page.locator("input[type=range]").evaluate_all("(all) => all.map((one) => one.ariaValueText)")
    assert names == ["9", "0.51", "1.00"]


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(theme, opened):
    axe = report.fetch_assets() / "tools" / "axe.min.js"
    page = opened(explorer()[0], theme)
    page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    assert [f"{rule['id']}: {node['html'][:120]} {node['any'][:1]}" for rule in found for node in rule["nodes"]] == []


def test_masks_agree_with_python_in_every_scene_and_moment(opened):
    made, _, _ = explorer()
    page = opened(made)
    for i in range(4):
        page.get_by_label("Scene", exact=True).select_option(index=i)
        for moment in range(3):
            slide(page, "Epoch", moment)
            for ranking in ("all pixels", "pixels of each label"):
                page.get_by_label("Ranked among").select_option(ranking)
                slide(page, "Selection ratio α", 50 + (17 * i + 5 * moment) % 51)
                agree(page, made)


@pytest.mark.parametrize("theme", ["light", "dark", "jupyterlab-dark"])
def test_pictures_are_painted_and_named(opened, theme):
    made, _, _ = explorer()
    page = opened(made, theme)
    names = page.locator("canvas").evaluate_all("(all) => all.map((one) => one.getAttribute('aria-label'))")
    assert {"clean map", "noisy map, wrong pixels striped", "veg", "veg, W_l", "rgb, W_e"} <= set(names)
    assert len(set(names)) == len(names) == 2 + 2 * 7 + 1
    painted = page.locator("canvas").evaluate_all(
        "(all) => all.map((one) => one.getContext('2d').getImageData(0, 0, one.width, one.height).data.some((v) => v))"
    )
    assert all(painted)
    legend = page.locator(".rsbook-legend span").all_inner_texts()
    assert legend == [*made.classes, "wrong in the noisy map"]


@pytest.mark.parametrize("side", [(24, 30), (120, 100)])
def test_stripes_in_black_and_white_are_on_wrong_pixels_and_on_no_others(opened, side):
    made, _, _ = explorer(two_modal(*side))
    page = opened(made)
    page.get_by_label("Scene", exact=True).select_option(index=2)
    wait_two_frames(page)
    height, width, pixels = page.get_by_label("noisy map").evaluate(
        "(one) => [one.height, one.width, [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data]]"
    )
    zoom = height // side[0]
    assert (height, width) == (zoom * side[0], zoom * side[1])
    cells = np.array(pixels).reshape(side[0], zoom, side[1], zoom, 4).swapaxes(1, 2)
    black, white = ((cells == [v, v, v, 255]).all(axis=-1).any(axis=(-1, -2)) for v in (0, 255))
    maps, clean = made.maps[2].numpy(), made.clean[2].numpy()
    wrong = (maps >= 0) & (maps != clean)
    assert not (black | white)[~wrong].any()
    if zoom >= 8:  # a whole period in every pixel
        assert (black & white)[wrong].all()
    assert (black | white)[wrong].mean() > 0.5
    assert (cells[maps < 0, ..., 3] == 0).all()


def test_the_weights_that_are_painted_are_those_of_the_heat_scale(opened):
    made, _, _ = explorer()
    page = opened(made)
    set_state(made, scene=0, moment=2, ratio=0.5)
    agree(page, made)
    heat = unpacked(made, "heat").numpy()
    pixels = page.get_by_label("veg, W_l").evaluate(
        "(one) => [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data]"
    )
    colours = np.array(pixels).reshape(-1, 4)[:, :3]
    values = np.array([np.flatnonzero((heat == colour).all(axis=1))[0] for colour in colours]) / 255
    maps = made.maps[0].flatten().numpy()
    wrong = (made.maps[0] != made.clean[0]).flatten().numpy() & (maps >= 0)
    row = made.read_out().iloc[0]
    assert values[wrong].mean() == pytest.approx(row["wrong"], abs=0.004)
    assert values[(maps >= 0) & ~wrong].mean() == pytest.approx(row["right"], abs=0.004)
    assert (values[maps < 0] == 0).all()


def test_markup_in_names_stays_text(opened):
    data = replace(two_modal(), classes=("one", "<img src=x onerror=alert(1)>", "</script><b>"))
    made, _, _ = explorer(data)
    page = opened(made)
    assert page.locator(".rsbook-explorer img, .rsbook-explorer b").count() == 0
    assert page.locator(".rsbook-legend span").nth(1).inner_text() == "<img src=x onerror=alert(1)>"
