"""Modalities as pictures, and scenes beside their clean and noisy maps."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from rsbook import modality_drawings, segmentation, selection


@pytest.fixture
def two_modal(tiny_scenes):
    images = torch.cat([tiny_scenes.images, tiny_scenes.images[:, :2].flip(0)], dim=1)
    images[3, 3:, :4] = 0
    return replace(
        tiny_scenes,
        images=images,
        mean=torch.full((5,), 128.0),
        std=torch.full((5,), 64.0),
        modalities={"radar": (3, 4), "optical": (0, 1, 2)},
    )


def test_a_modality_with_the_three_colours_is_seen_in_them(two_modal):
    found = modality_drawings.picture(two_modal, 3, "optical")
    assert np.array_equal(found, two_modal.images[3, :3].movedim(0, -1).numpy())
    swapped = modality_drawings.picture(replace(two_modal, rgb=(2, 1, 0)), 3, "optical")
    assert np.array_equal(swapped, found[..., ::-1])


def test_another_modality_has_its_bands_in_green_and_magenta_and_grey_without_a_value(two_modal):
    found = modality_drawings.picture(two_modal, 3, "radar")
    first, second = two_modal.images[3, 3:].numpy()
    for y in range(12):
        for x in range(16):
            expected = [second[y, x], first[y, x], second[y, x] // 2] if first[y, x] or second[y, x] else [150] * 3
            assert found[y, x].tolist() == expected
    assert (found[:4] == 150).all()


def test_reflectances_are_scaled_by_the_training_mean_and_spread(two_modal):
    data = replace(
        two_modal, images=two_modal.images.to(torch.int32) * 20, mean=two_modal.mean * 20, std=two_modal.std * 20
    )
    found = modality_drawings.picture(data, 0, "optical")
    expected = (two_modal.images[0, :3].movedim(0, -1).double() / (128 + 3 * 64) * 255).clamp(0, 255)
    assert abs(found - expected.numpy()).max() <= 1


def test_one_band_alone_is_a_picture_too(two_modal):
    data = replace(two_modal, modalities={"radar": (3,)})
    first = two_modal.images[5, 3].numpy()
    assert np.array_equal(modality_drawings.picture(data, 5, "radar")[..., 1][first > 0], first[first > 0])


def test_pairs_say_what_is_seen_and_how_much_is_wrong(two_modal):
    scenes = torch.tensor([3, 9])
    clean = segmentation.maps_of(two_modal, scenes)
    noisy = clean.clone()
    noisy[1, :6] = (noisy[1, :6] + 1) % 3
    shown = modality_drawings.draw_pairs(two_modal, scenes, noisy)
    assert "radar and optical" in shown.text
    assert "hatched" in shown.text
    [link] = re.findall(r"data:text/csv;base64,([^\"]+)", shown.html)
    table = pd.read_csv(io.BytesIO(base64.b64decode(link)))
    assert table.to_dict("list") == {"scene": [3, 9], "wrong_per_cent": [0.0, 50.0]}
    assert len(set(re.findall(r"data:image/webp;base64,([^\"]+)", shown.html))) == 2  # light and dark


def test_the_flow_of_selection_says_what_masks_do_to_right_and_wrong_pixels(two_modal):
    noisy = segmentation.maps_of(two_modal, torch.tensor([5]))[0]
    wrong = torch.zeros_like(noisy, dtype=torch.bool)
    wrong[:4] = True
    noisy = torch.where(wrong, (noisy + 1) % 3, noisy)
    logits = torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    shown = modality_drawings.draw_selection(two_modal, 5, noisy, logits, 0.7, "per_class")
    [link] = re.findall(r"data:text/csv;base64,([^\"]+)", shown.html)
    table = pd.read_csv(io.BytesIO(base64.b64decode(link))).set_index(["modality", "what"])
    labels, entities = selection.masks(logits[:, None], noisy[None], 0.7, "per_class")
    alone = [selection.label_confidence(own[None].softmax(dim=1), noisy[None]) for own in logits]
    for m, name in enumerate(("radar", "optical")):
        for what, found in (
            ("W_l", labels),
            ("W_e", entities),
            ("F_l", alone),
            ("F′_l", selection.enhanced(alone)),
        ):
            assert table.loc[(name, what), "right"] == pytest.approx(found[m][0][~wrong].mean().item(), abs=1e-4)
            assert table.loc[(name, what), "wrong"] == pytest.approx(found[m][0][wrong].mean().item(), abs=1e-4)
    assert len(table) == 12


def test_a_scene_without_a_wrong_pixel_is_drawn_too(two_modal):
    noisy = segmentation.maps_of(two_modal, torch.tensor([5]))[0]
    assert "noisy map" in modality_drawings.draw_selection(two_modal, 5, noisy, torch.zeros(2, 3, 12, 16), 1.0).text
