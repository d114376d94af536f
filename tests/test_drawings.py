"""Drawings of made-up scenes: what a reader who cannot see them gets, and the numbers behind them."""

import base64
import dataclasses
import io
import re

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import Generator

from rsbook import drawings, mixing, positions, scenes


def ten_bands(data):
    """The scenes with ten bands of uint16, of which three in another order are shown, and pixels without a class."""
    generator = Generator().manual_seed(5)
    bits = data.positions.clone()
    bits[:, :3] = 0
    bits[1] = 0  # no class at all
    return dataclasses.replace(
        data,
        images=torch.randint(12_000, (16, 10, 12, 16), generator=generator).to(torch.uint16),
        positions=bits,
        mean=torch.arange(1.0, 11) * 500,
        std=torch.full((10,), 800.0),
        rgb=(2, 1, 0),
    )


@pytest.fixture(params=["bytes", "reflectances"])
def data(request, tiny_scenes):
    return tiny_scenes if request.param == "bytes" else ten_bands(tiny_scenes)


def csv_of(page, kind="webp"):
    """The numbers behind a drawing that is there in both themes, with words for those who do not see it."""
    found = re.findall(r'<img class="only-(light|dark)" alt="([^"]+)" src="data:image/([\w+]+);base64,', page.html)
    assert [(theme, of) for theme, _, of in found] == [("light", kind), ("dark", kind)]
    assert page.html.count("<img") == 2
    assert len({alt for _, alt, _ in found}) == 1
    assert re.search(r"<figcaption>\w[^<]+\. <a", page.html)
    assert page.html.count("text/csv") == 1
    text = re.search(r'href="data:text/csv;base64,([^"]+)"', page.html)[1]
    return pd.read_csv(io.StringIO(base64.b64decode(text).decode()))


def test_gallery(data):
    found = csv_of(drawings.draw_gallery(data, [0, 9, 4], columns=2))
    assert found["scene"].tolist() == [0, 9, 4]
    assert found[["one", "two", "three"]].to_numpy().tolist() == data.labels[[0, 9, 4]].int().tolist()
    pixels = [[int((data.positions[i] >> c & 1).sum()) for c in range(3)] for i in (0, 9, 4)]
    assert found[["one_pixels", "two_pixels", "three_pixels"]].to_numpy().tolist() == pixels


@pytest.fixture
def mixtures(data):
    options = {"area_range": (0.1, 0.7), "probability": 1.0, "min_pixels": data.min_pixels}
    return [
        mixing.cutmix(data.images, data.labels, where, **options, generator=Generator().manual_seed(1))
        for where in (None, data.positions)
    ]


def test_mixing(data, mixtures):
    area, propagated = mixtures
    found = csv_of(drawings.draw_mixing(data, list(range(16)), area, propagated, shown=2)).set_index("class")
    assert found["y₁"].tolist() == data.labels[2].int().tolist()
    assert found["y₂"].tolist() == data.labels[area.partner[2]].int().tolist()
    assert found["ỹ area"].tolist() == pytest.approx(area.labels[2].tolist(), abs=0.001)
    assert found["ỹ LP"].tolist() == propagated.labels[2].tolist()


def test_noise(data):
    noisy = data.positions[[3, 8]].clone()
    noisy[1, 6:] = 1 << 2
    found = csv_of(drawings.draw_noise(data, [3, 8], data.positions[[3, 8]], {"α = 3": noisy}))
    assert found["scene"].tolist() == [3, 8]
    changed = (data.positions[8, 6:] != 1 << 2).float().mean().item() / 2
    assert found["α = 3"].tolist() == pytest.approx([0, 100 * changed], abs=0.051)


def test_masks(data):
    activations = torch.rand(2, 3, 3, 4, generator=Generator().manual_seed(1))
    activations[0, 0] = 0.5  # constant
    masks = positions.from_explanation_masks(torch.rand(2, 3, 12, 16) > 0.5)  # several classes a pixel
    found = csv_of(drawings.draw_masks(data, [9, 3], activations, masks))
    expected = [(i, c) for i in (9, 3) for c in torch.nonzero(data.labels[i]).flatten().tolist()]
    assert list(zip(found["scene"], found["class"], strict=True)) == [(i, data.classes[c]) for i, c in expected]
    row = {9: 0, 3: 1}
    assert found["mask_pixels"].tolist() == [int((masks[row[i]] >> c & 1).sum()) for i, c in expected]
    assert found["map_pixels"].tolist() == [int((data.positions[i] >> c & 1).sum()) for i, c in expected]


def test_masks_of_scenes_without_maps(tiny_scenes):
    without = dataclasses.replace(tiny_scenes, positions=None)
    found = csv_of(drawings.draw_masks(without, [3], torch.rand(1, 3, 3, 4), tiny_scenes.positions[[3]]))
    assert found["class"].tolist() == ["two"]
    assert found["map_pixels"].isna().all()


def test_blobs(data):
    found = csv_of(drawings.draw_blobs(data, list(range(16)), (0.3, 0.7), seed=1, columns=3))
    mixed = mixing.fmix(
        data.images,
        data.labels,
        data.positions,
        area_range=(0.3, 0.7),
        probability=1.0,
        min_pixels=data.min_pixels,
        generator=Generator().manual_seed(1),
    )
    assert found[["one", "two", "three"]].to_numpy().tolist() == mixed.labels[:3].int().tolist()
    assert found["two_pixels"].tolist() == (mixed.positions[:3] >> 1 & 1).sum(dim=(1, 2)).tolist()


def test_boxes():
    boxes = {r: mixing.sample_boxes(50, 12, 16, r, Generator().manual_seed(1)) for r in [(0.1, 0.3), (0.3, 0.7)]}
    found = csv_of(drawings.draw_boxes(boxes, 12, 16), "svg+xml")
    assert found[["share_0.1-0.3", "share_0.3-0.7"]].sum().tolist() == pytest.approx([1, 1])
    assert (found.loc[found["share_0.3-0.7"] > 0, "area_to"] > 0.3).all()


def test_class_frequencies(data):
    found = csv_of(drawings.draw_class_frequencies(data), "svg+xml").set_index("class")
    expected = 100 * data.labels[data.split("train")].float().mean(dim=0)
    assert found["train_percent"].tolist() == pytest.approx(expected.tolist(), abs=0.001)


def test_world():
    found = csv_of(drawings.draw_world(scenes.location("bluemarble"), step=20))
    assert set(found["split"]) == {"train", "val", "test"}


def shown_image(data, image):
    ax = Figure().subplots()
    drawings._show_image(ax, data, image)
    return ax.images[0].get_array()


def test_bytes_are_shown_as_they_are(tiny_scenes):
    assert (shown_image(tiny_scenes, 3) == tiny_scenes.images[3].movedim(0, -1).numpy()).all()


def test_reflectances_are_shown_by_their_own_bands_and_nothing_leaves_the_range(tiny_scenes):
    data = ten_bands(tiny_scenes)
    found = shown_image(data, 3)
    assert found.shape == (12, 16, 3)
    for k, band in enumerate((2, 1, 0)):
        white = 500 * (band + 1) + 3 * 800
        expected = (data.images[3, band].float() / white).clamp(max=1)
        assert found[:, :, k].data == pytest.approx(expected.numpy(), abs=1e-6)
    assert (shown_image(data, data.images[3]) == found).all()


def test_the_coverage_of_boxes_equals_a_count():
    boxes = mixing.sample_boxes(200, 7, 9, (0.05, 1.0), Generator().manual_seed(3))
    counted = torch.zeros(7, 9)
    for top, left, bottom, right in boxes.tolist():
        counted[top:bottom, left:right] += 1
    assert drawings._coverage(boxes, 7, 9) == pytest.approx((counted / 200).numpy())
