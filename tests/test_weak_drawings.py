"""Figures of Part V: what is drawn, from the numbers behind it, and its words."""

import base64
import html
import io
import random
import re
import statistics
import warnings
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from test_bluemarble import VISION, linear, oklab
from test_charts import csv_of, drawn_text
from test_figures import contrast
from test_weak_findings import NAMES, SEEDS, anything, of, propagated

from rsbook import affinity, batch_mixing, figures, segmentation
from rsbook import weak_drawings as drawings
from rsbook.weak_findings import METHOD_NAMES


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that are drawn, on light pages; what is shown is as ever."""
    found, show = [], figures.show

    def kept(draw, **options):
        found.append(draw(figures.THEMES["light"]))
        return show(draw, **options)

    monkeypatch.setattr(figures, "show", kept)
    return found


def data_of(page, name):
    """The numbers behind a picture in both themes, by the name of its file."""
    assert page.html.count('src="data:image/webp;base64,') == 2
    [(found, text)] = re.findall(r'download="([^"]+)\.csv" href="data:text/csv;base64,([^"]+)"', page.html)
    assert found == name
    return pd.read_csv(io.StringIO(base64.b64decode(text).decode()), keep_default_na=False)


def words_of(page):
    """Alt text, and caption without its link."""
    [alt] = set(re.findall(r'alt="([^"]+)"', page.html))
    [caption] = re.findall(r"<figcaption>(.+?) <a", page.html)
    assert html.unescape(alt) == page.text
    return page.text, html.unescape(caption)


def pictures(figure):
    """What each panel of a figure shows, row by row; None where it is empty."""
    return [np.ma.filled(ax.images[-1].get_array(), -1).tolist() if ax.images else None for ax in figure.axes]


def pixels(data, scene):
    return data.images[scene].movedim(0, -1).tolist()


def offsets(dots):
    return [tuple(point) for point in np.asarray(dots.get_offsets()).tolist()]


def legend_of(figure):
    [legend] = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def draw_maps(classes, shape, seed, least=0):
    return torch.randint(least, classes, shape, generator=torch.Generator().manual_seed(seed))


# Colours


def test_every_method_has_a_colour_and_a_mark_of_its_own():
    assert set(drawings.COLOURS) == set(drawings.MARKERS) == set(NAMES)
    assert len(set(drawings.MARKERS.values())) == len(NAMES)
    assert {METHOD_NAMES[name]: drawings.COLOURS[name] for name in NAMES} == drawings.NAMED_COLOURS


@pytest.mark.parametrize("vision", VISION)
def test_every_eye_tells_every_method_from_every_other(vision):
    seen = {name: oklab(np.clip(VISION[vision] @ linear(one), 0, 1)) for name, one in drawings.COLOURS.items()}
    for first, second in combinations(NAMES, 2):
        assert np.linalg.norm(seen[first] - seen[second]) > 0.1, (first, second)


@pytest.mark.parametrize("theme", list(figures.THEMES))
def test_every_method_can_be_seen(theme):
    for colour in drawings.COLOURS.values():
        assert contrast(colour, figures.THEMES[theme]["paper"]) >= 2.9


# Maps


def slow_shares(found, truth):
    """Per cent of the pixels with a class that are right, and that are not sure, pixel by pixel."""
    pairs = [(a, b) for a, b in zip(found.flatten().tolist(), truth.flatten().tolist(), strict=True) if b >= 0]
    return [100 * sum(a == b for a, b in pairs) / len(pairs), 100 * sum(a == -1 for a, _ in pairs) / len(pairs)]


def test_maps_stand_beside_the_truth_with_their_shares_of_right_pixels(tiny_scenes, drawn):
    tiny_scenes.positions[9, :3] = 0  # no class
    index = [9, 2]
    truth = segmentation.maps_of(tiny_scenes, torch.tensor(index))
    assert (truth[0] < 0).sum() == 48
    maps = {"sure": truth.clamp(min=0), "CAM": draw_maps(3, truth.shape, 1), "some": draw_maps(3, truth.shape, 2, -1)}
    page = drawings.draw_maps(tiny_scenes, torch.tensor(index), maps, "walked", "A caption.", "Maps of two scenes.")
    assert words_of(page) == ("Maps of two scenes.", "A caption.")
    data = data_of(page, "walked")
    expected = [
        [scene, name, *slow_shares(one[k], truth[k])] for name, one in maps.items() for k, scene in enumerate(index)
    ]
    assert data.columns.tolist() == ["scene", "map", "right", "not_sure"]
    assert data[["scene", "map"]].to_numpy().tolist() == [row[:2] for row in expected]
    assert data[["right", "not_sure"]].to_numpy() == pytest.approx(np.array([row[2:] for row in expected]), abs=1e-4)
    assert data["right"].tolist()[:2] == [100, 100]
    [figure] = drawn
    panels = iter(pictures(figure))
    for k, scene in enumerate(index):
        assert next(panels) == pixels(tiny_scenes, scene)
        assert next(panels) == truth[k].tolist()
        for one in maps.values():
            assert next(panels) == one[k].tolist()
    assert [ax.get_title() for ax in figure.axes[:5]] == ["image", "reference map", *maps]
    below = [ax.get_xlabel() for ax in figure.axes]
    for k, row in enumerate((below[:5], below[5:])):
        shares = [slow_shares(one[k], truth[k]) for one in maps.values()]
        assert row[:4] == ["", "", "100 % right", f"{shares[1][0]:.0f} % right"]
        assert row[4] == f"{shares[2][0]:.0f} % right\n{shares[2][1]:.0f} % not sure"
    muted = figures.THEMES["light"]["muted"]
    assert to_hex(figure.axes[4].get_facecolor()) == muted != to_hex(figure.axes[1].get_facecolor())
    assert legend_of(figure) == ["one", "two", "three", "not sure"]
    assert to_hex(figure.legends[0].get_patches()[-1].get_facecolor()) == muted


def test_the_legend_names_what_occurs_in_the_colours_of_the_maps(tiny_scenes, drawn):
    index = [0, 1]
    assert set(segmentation.maps_of(tiny_scenes, torch.tensor(index)).flatten().tolist()) == {1}
    found = torch.full((2, 12, 16), 2)
    found[0, 0, 0] = 1
    data = data_of(drawings.draw_maps(tiny_scenes, index, {"CAM": found}, "m", "A caption.", "Four words of alt."), "m")
    assert data["not_sure"].tolist() == [0, 0]
    [figure] = drawn
    assert legend_of(figure) == ["two", "three"]
    colours = figures.class_colours(tiny_scenes.classes)
    shown = [to_hex(patch.get_facecolor()) for patch in figure.legends[0].get_patches()]
    assert shown == [one.lower() for one in colours[1:]]
    image = figure.axes[2].images[0]
    assert [to_hex(image.to_rgba(image.get_array())[0, x][:3]) for x in (0, 1)] == shown
    assert "not sure" not in drawn_text(figure)


def test_smaller_maps_are_enlarged_pixel_by_pixel(tiny_scenes, drawn):
    small = draw_maps(3, (1, 6, 4), 3, -1)
    drawings.draw_maps(tiny_scenes, [12], {"confident": small}, "m", "A caption.", "Four words of alt.")
    shown = pictures(drawn[0])[2]
    expected = [[small[0, y // 2, x // 4].item() for x in range(16)] for y in range(12)]
    assert shown == expected
    assert affinity.IGNORED == -1 in small


def test_scenes_without_a_class_anywhere_have_no_share(tiny_scenes, drawn):
    tiny_scenes.positions[3] = 0
    one = {"CAM": torch.zeros(1, 12, 16, dtype=torch.int64)}
    page = drawings.draw_maps(tiny_scenes, [3], one, "m", "A caption.", "Four words of alt.")
    assert data_of(page, "m")[["right", "not_sure"]].to_numpy().tolist() == [["", ""]]
    assert drawn[0].axes[2].get_xlabel() == "–"


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), min_size=1, max_size=12))
def test_shares_whatever_the_pixels(both):
    found, truth = torch.tensor(both).T
    if (truth >= 0).any():
        assert drawings._right(found, truth) == pytest.approx(slow_shares(found, truth), abs=1e-4)


# Activations


def test_activations_are_divided_by_their_own_maximum(tiny_scenes, drawn):
    maps = {
        "one scale": torch.tensor([[0.0, 3.0], [6.0, 1.5]]),
        "FMix-CAM": torch.rand(12, 16),
        "none": -torch.ones(2, 2),
    }
    page = drawings.draw_activations(tiny_scenes, 5, 1, maps)
    data = data_of(page, "activations")
    assert data["map"].tolist() == list(maps)
    assert data["maximum"].tolist() == pytest.approx([one.max().item() for one in maps.values()], abs=1e-4)
    over = (maps["FMix-CAM"] > maps["FMix-CAM"].max() / 2).float().mean().item()
    assert data["over_half"].tolist() == pytest.approx([0.25, over, 0], abs=1e-4)
    alt, caption = words_of(page)
    assert "3 heat maps" in alt
    assert "class “two” over scene 5" in caption
    image, *panels, bar = drawn[0].axes
    assert image.images[0].get_array().tolist() == pixels(tiny_scenes, 5)
    for ax, (name, one) in zip(panels, maps.items(), strict=True):
        assert ax.get_title() == name
        below, above = ax.images
        assert below.get_array().tolist() == pixels(tiny_scenes, 5)
        scaled = one / one.max() if one.max() > 0 else torch.zeros(2, 2)
        assert above.get_array().tolist() == pytest.approx(scaled.numpy(), abs=1e-6)
        assert above.get_clim() == (0, 1)
        clear, top = above.get_alpha()[scaled.numpy() == 0], above.get_alpha()[scaled.numpy() == 1]
        assert set(clear.tolist()) <= {0}  # there the scene is seen
        assert (top > 0.8).all()
        assert above.get_extent() == [-0.5, 15.5, 11.5, -0.5]  # of the image, whatever the size
    assert [text.get_text() for text in bar.get_yticklabels()] == ["0", "half", "maximum"]


# Thresholds


def swept(seeds=SEEDS):
    luck = random.Random(5)
    rows = [{"seed": s, "threshold": t, "miou": luck.random()} for s in seeds for t in (0.0, 0.15, 0.3)]
    luck.shuffle(rows)
    return pd.DataFrame(rows)


@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[:1]])
def test_thresholds_a_line_a_seed_and_their_mean(drawn, seeds):
    sweep = swept(seeds)
    page = drawings.draw_thresholds(sweep)
    data = csv_of(page)
    scores = {(row["seed"], row["threshold"]): 100 * row["miou"] for row in sweep.to_dict("records")}
    assert data["miou"].tolist() == pytest.approx([scores[key] for key in sorted(scores)], abs=5e-5)
    mean = {t: statistics.mean(scores[s, t] for s in seeds) for t in (0.0, 0.15, 0.3)}
    best = max(mean, key=mean.get)
    *lines, bold, mark = drawn[0].axes[0].get_lines()
    for seed, line in zip(seeds, lines, strict=True):
        assert line.get_xdata().tolist() == [0.0, 0.15, 0.3]
        assert line.get_ydata().tolist() == pytest.approx([scores[seed, t] for t in mean], abs=5e-5)
        assert line.get_linewidth() < bold.get_linewidth()
    assert list(bold.get_ydata()) == pytest.approx(list(mean.values()), abs=1e-4)
    assert [mark.get_xdata()[0], mark.get_ydata()[0]] == pytest.approx([best, mean[best]], abs=1e-4)
    assert legend_of(drawn[0]) == ["a seed", "mean", f"best: {mean[best]:.1f} % at {best:g}"]
    assert "reference maps" in words_of(page)[1]


# FMix


def test_masks_are_in_rows_by_decay_and_columns_by_share(drawn):
    generator = torch.Generator().manual_seed(0)
    keys = [(0.7, 3.0), (0.2, 1.0), (0.2, 3.0)]
    masks = {key: batch_mixing.fmix_mask(8, 10, key[0], generator, key[1]) for key in keys}
    data = data_of(page := drawings.draw_fmix_masks(masks), "fmix_masks")
    assert data.to_numpy().tolist() == [[s, d, round(masks[s, d].sum().item() / 80, 4)] for s, d in keys]
    [figure] = drawn
    expected = [(0.2, 1.0), (0.7, 1.0), (0.2, 3.0), (0.7, 3.0)]
    assert pictures(figure) == [masks[key].tolist() if key in masks else None for key in expected]
    assert [ax.get_xlabel() for ax in figure.axes] == ["20.0 %", "", "20.0 %", "70.0 %"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["decay 1", "", "decay 3", ""]
    assert [ax.get_title() for ax in figure.axes] == ["λ = 0.2", "λ = 0.7", "", ""]
    alt, caption = words_of(page)
    assert "2 shares from left to right, 2 decays from top to bottom" in alt
    assert "blue" in caption
    assert drawings.ONE == "#3C8FD9"  # which the caption calls blue


# Mixtures


def test_mixtures_are_shown_as_the_scenes_are(tiny_scenes, drawn):
    first, second = [3, 0], [7, 2]
    x, y = (tiny_scenes.normalise(tiny_scenes.images[one]) for one in (first, second))
    mixtures = {"nothing": x, "Mixup": torch.lerp(y, x, 0.25), "far": 9 * y}
    page = drawings.draw_mixtures(tiny_scenes, torch.tensor(first), second, mixtures)
    data = data_of(page, "mixtures")
    assert data[["first", "second"]].to_numpy().tolist() == [[3, 7], [0, 2]]
    names = [
        "; ".join(c for c, has in zip(tiny_scenes.classes, tiny_scenes.labels[i], strict=True) if has) for i in second
    ]
    assert data["classes_second"].tolist() == names
    assert "nothing, Mixup and far" in words_of(page)[1]
    [figure] = drawn
    assert [ax.get_title() for ax in figure.axes[:5]] == ["x₁", "x₂", *mixtures]
    shown = iter(pictures(figure))
    for i, j in zip(first, second, strict=True):
        assert next(shown) == pixels(tiny_scenes, i)
        assert next(shown) == pixels(tiny_scenes, j)
        assert next(shown) == pixels(tiny_scenes, i)
        mixed = 0.25 * tiny_scenes.images[i].double() + 0.75 * tiny_scenes.images[j].double()
        assert np.abs(np.array(next(shown)) - mixed.movedim(0, -1).numpy()).max() <= 0.5001
        far = (9 * (tiny_scenes.images[j].double() - 128) + 128).round().clamp(0, 255)
        assert np.abs(np.array(next(shown)) - far.movedim(0, -1).numpy()).max() <= 1


def test_mixtures_of_reflectances_are_shown_in_red_green_and_blue(tiny_scenes, drawn):
    images = torch.cat([tiny_scenes.images, tiny_scenes.images[:, :1]], dim=1).to(torch.int16) * 20
    data = replace(
        tiny_scenes, images=images, mean=torch.full((4,), 2560.0), std=torch.full((4,), 1280.0), rgb=(3, 1, 0)
    )
    same = data.normalise(images[[4]])
    drawings.draw_mixtures(data, [4], [5], {"same": same})
    x, _, mixed = pictures(drawn[0])
    assert np.abs(np.array(x) - np.array(mixed)).max() <= 1
    assert np.array(x).shape == (12, 16, 3)
    assert np.array(x)[..., 0].tolist() == np.array(x)[..., 2].tolist()  # the fourth band is as the first


# Manifold Mixup


def test_stages_have_a_mark_where_mixing_may_happen(drawn):
    stages = pd.DataFrame(
        {
            "name": ["input", "stage 1", "stage 2"],
            "channels": [3, 64, 128],
            "height": [60, 30, 15],
            "width": [64, 32, 16],
            "mixed": [True, True, False],
        }
    )
    page = drawings.draw_stages(stages)
    assert csv_of(page).to_numpy().tolist() == stages.to_numpy().tolist()
    assert "from input, stage 1 and stage 2 to the labels; λ after input and stage 1" in words_of(page)[0]
    [ax] = drawn[0].axes
    texts = {text.get_text(): text for text in ax.texts if text.get_text()}
    assert {"input", "3 channels\n60 × 64", "64 channels\n30 × 32", "128 channels\n15 × 16", "labels"} <= set(texts)
    marks = sorted(text.get_position()[0] for text in ax.texts if text.get_text() == "λ")
    boxes = sorted(patch.get_x() for patch in ax.patches)
    assert len(boxes) == 3
    assert [box for box in boxes if any(box < mark < box + 1 for mark in marks)] == boxes[:2]
    assert len(marks) == 2
    drawings.draw_stages(stages.drop(columns="mixed"))
    assert sum(text.get_text() == "λ" for text in drawn[1].axes[0].texts) == 3


# Sub-classes


def test_the_five_largest_clusters_with_their_first_scenes(tiny_scenes, drawn):
    clusters = torch.tensor([5, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4])
    index = torch.arange(16).flip(0)
    page = drawings.draw_subcategories(tiny_scenes, index, clusters, 2, per_cluster=3)
    data = data_of(page, "subcategories_2")
    members = [[9, 8, 7, 6], [3, 2, 1, 0], [12, 11, 10], [14, 13], [5, 4], [15]]
    assert data.to_numpy().tolist() == [[k, scene] for k, found in enumerate(members, start=1) for scene in found]
    [figure] = drawn
    shown = [pixels(tiny_scenes, s) for found in members[:3] for s in found[:3]]
    for found in members[3:5]:
        shown += [*(pixels(tiny_scenes, scene) for scene in found), None]
    assert pictures(figure) == shown
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == [f"{n} scenes" for n in (4, 4, 3, 2, 2)]
    alt, caption = words_of(page)
    assert "hold three, a row for each of 5 clusters" in alt
    assert "the 5 largest of 6 clusters" in caption


def test_a_class_of_one_scene_has_one_cluster(tiny_scenes, drawn):
    page = drawings.draw_subcategories(tiny_scenes, [4], torch.tensor([0]), 0)
    assert "all clusters" in words_of(page)[1]
    assert pictures(drawn[0]) == [pixels(tiny_scenes, 4), *[None] * 5]
    assert drawn[0].axes[0].get_ylabel() == "1 scene"


# Methods


@pytest.mark.parametrize("names", [NAMES, ("fmix", "cam")])
@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[:1]])
def test_a_point_a_seed_and_a_bar_for_the_mean_beside_the_report(drawn, names, seeds):
    teacher = pd.DataFrame([{"method": "vit", "seed": 42, "map_macro": 0.9}])
    runs = pd.concat([teacher, anything(names, seeds)])
    theirs = {"cam": 45.0, "fmix": 48.2, "other": 1.0}
    page = drawings.draw_by_method(runs, "miou_single", "mean IoU", theirs)
    assert 'download="by_method_miou_single.csv"' in page.html
    ordered = [name for name in NAMES if name in names]
    data = csv_of(page)
    for row in data.to_dict("records"):
        assert row["miou_single"] == pytest.approx(100 * of(runs, row["method"], row["seed"], "miou_single"), abs=5e-5)
        assert row["paper"] == theirs.get(row["method"]) or (pd.isna(row["paper"]) and row["method"] not in theirs)
    assert len(data) == len(ordered) * len(seeds)
    alt, caption = words_of(page)
    assert alt == "A row a method: mean IoU of each seed and their mean, beside the report's."
    assert caption.startswith("mean IoU: a point a seed")
    [ax] = drawn[0].axes
    assert ax.get_xlabel() == "mean IoU, %"
    assert [text.get_text() for text in ax.get_yticklabels()] == [METHOD_NAMES[name] for name in ordered]
    assert ax.yaxis_inverted()
    *collections, printed = ax.collections
    for y, (name, dots, bar) in enumerate(zip(ordered, collections[::2], collections[1::2], strict=True)):
        scores = [100 * of(runs, name, seed, "miou_single") for seed in seeds]
        assert sorted(offsets(dots)) == [(pytest.approx(score, abs=5e-5), y) for score in sorted(scores)]
        assert offsets(bar) == [(pytest.approx(statistics.mean(scores), abs=5e-5), y)]
        for one in (dots, bar):
            assert to_hex(one.get_facecolor()[0]) == drawings.COLOURS[name].lower()
    assert sorted(offsets(printed)) == [(45.0, ordered.index("cam")), (48.2, ordered.index("fmix"))]
    assert len(printed.get_facecolor()) == 0  # outlined
    assert legend_of(drawn[0]) == ["the report"]


@pytest.mark.parametrize("theirs", [None, {}, {"sct": 46.4}])
def test_without_the_report_there_is_nothing_of_it(drawn, theirs):
    page = drawings.draw_by_method(anything(["cam", "mixup"]), "miou", "mean IoU", theirs)
    assert csv_of(page).columns.tolist() == ["method", "seed", "miou"]
    assert len(drawn[0].axes[0].collections) == 4
    assert not drawn[0].legends
    assert not any("report" in text for text in words_of(page))


# Label propagation


@pytest.mark.parametrize("none", [0.05, None])
def test_masks_and_scores_have_a_point_a_run(drawn, none):
    luck = random.Random(6)
    scores, ious = ({name: [luck.random() for _ in SEEDS] for name in ("fmix", "cam")} for _ in range(2))
    runs = propagated(scores, ious, none=none)
    data = csv_of(page := drawings.draw_masks_and_scores(runs))
    assert data.columns.tolist() == ["maps", "method", "seed", "mask_iou", "map_macro"]
    assert len(data) == len(runs)
    [ax] = drawn[0].axes
    for name, dots in zip(("cam", "fmix"), ax.collections, strict=True):
        pairs = [(100 * of(runs, name, seed, "mask_iou"), 100 * of(runs, name, seed, "map_macro")) for seed in SEEDS]
        assert offsets(dots) == [pytest.approx(pair, abs=1e-4) for pair in pairs]
        assert dots.get_label() == METHOD_NAMES[name]
        assert to_hex(dots.get_facecolor()[0]) == drawings.COLOURS[name].lower()
    assert len({dots.get_paths()[0].vertices.shape for dots in ax.collections}) == 2  # a mark each
    lines = [line.get_ydata()[0] for line in ax.get_lines()]
    mean = [100 * statistics.mean(of(runs, None, s, "map_macro", maps="none") for s in SEEDS)] if none else []
    assert lines == pytest.approx(mean, abs=1e-4)
    assert legend_of(drawn[0]) == ["CAM", "FMix-CAM", *["labels by area"] * (none is not None)]
    assert "IoU of the masks" in words_of(page)[0]
