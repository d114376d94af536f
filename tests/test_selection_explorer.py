"""The selection explorer, in Python and in a browser."""

import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from explorer_page import copy_state, shown_rows
from test_explorers import random_scenes
from torch import Generator

from rsbook import segmentation, selection
from rsbook.widgets import SelectionExplorer

STATE = ("scene", "moment", "ratio", "gamma", "follows", "ranking")
EPOCHS = [1, 3, 9]


def two_modal(height=24, width=30, n=6):
    data = random_scenes(height, width, n)
    images = torch.cat([data.images, data.images[:, :2].flip(0)], dim=1)
    stats = {"mean": torch.full((5,), 128.0), "std": torch.full((5,), 64.0)}
    return replace(data, images=images, modalities={"veg": (3, 4), "rgb": (0, 1, 2)}, **stats)


def explorer(data=None, seed=0, shown=4):
    """Networks that come to know the truth, and maps of which a fifth is wrong and some pixels have no label."""
    data, generator = data or two_modal(), Generator().manual_seed(seed)
    index = torch.arange(len(data.images))
    clean = segmentation.maps_of(data, index)
    wrong = torch.rand(clean.shape, generator=generator) < 0.2
    noisy = torch.where(wrong, (clean + 1) % 3, clean)
    noisy[:, :2] = -1
    truth = torch.nn.functional.one_hot(clean, 3).movedim(-1, 1).float()
    noise = torch.randn(len(EPOCHS), 2, *truth.shape, generator=generator)
    logits = noise + truth * torch.tensor([0.0, 1.5, 4.0]).view(3, 1, 1, 1, 1, 1)
    return SelectionExplorer(data, index, noisy, logits, EPOCHS, 8, shown), noisy, logits


def unpacked(made, name):
    stored = made.arrays[name]
    return torch.from_numpy(
        np.frombuffer(zlib.decompress(stored["data"]), stored["dtype"]).reshape(stored["shape"]).copy()
    )


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


def test_scenes_offered_are_various_ones_of_the_batch_with_their_maps():
    made, noisy, logits = explorer()
    assert len(made.scenes) == len(made.names) == 4
    assert torch.equal(unpacked(made, "noisy").long(), noisy[made.scenes])
    assert torch.equal(unpacked(made, "predictions").long(), logits[:, :, made.scenes].argmax(dim=3))
    assert torch.equal(unpacked(made, "clean").long(), segmentation.maps_of(made.data, torch.tensor(made.scenes)))


def test_what_it_refuses():
    data = two_modal()
    _, noisy, logits = explorer(data)
    for change in ({"logits": logits[:, :1]}, {"logits": logits[:2]}, {"data": replace(data, modalities={})}):
        given = {"data": data, "scenes": range(6), "maps": noisy, "logits": logits, "epochs": EPOCHS} | change
        with pytest.raises(ValueError, match="random: expected 2 modalities and logits"):
            SelectionExplorer(**given, ramp_length=8)


def test_eight_scenes_of_six_moments_are_small():
    data = two_modal(32, 32, 8)
    clean = segmentation.maps_of(data, torch.arange(8))
    logits = torch.randn(6, 2, 8, 3, 4, 4, generator=Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(logits.flatten(0, 2), size=(32, 32), mode="bilinear")
    made = SelectionExplorer(data, range(8), clean, smooth.view(6, 2, 8, 3, 32, 32), [1, 2, 3, 4, 5, 6], 5)
    assert sum(len(array["data"]) for array in made.arrays.values()) < 300_000


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


def slide(page, name, value):
    page.get_by_label(name).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def test_sliders_lists_and_the_button_change_what_python_computes_too(opened):
    made, _, _ = explorer()
    page = opened(made, width=390)
    agree(page, made)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    again = page.get_by_role("button", name="α and γ of the epoch")
    assert again.is_disabled()
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
    page.get_by_label("Selection ratio α").press("ArrowRight")
    agree(page, made)
    assert made.ratio == 0.51


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
    assert {"clean map", "noisy map", "veg, W_l", "rgb, W_e"} <= set(names)
    painted = page.locator("canvas").evaluate_all(
        "(all) => all.map((one) => one.getContext('2d').getImageData(0, 0, one.width, one.height).data.some((v) => v))"
    )
    assert all(painted)
    legend = page.locator(".rsbook-legend span").all_inner_texts()
    assert legend == made.classes


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
