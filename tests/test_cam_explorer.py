"""The CAM explorer, in Python and in a browser."""

import math
import re
import zlib
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import traitlets
from explorer_page import THEMES, copy_state, shown_rows, wait_two_frames
from test_explorers import random_scenes
from torch import Generator

from rsbook import metrics, models, report, segmentation, weak_segmentation
from rsbook.widgets import CamExplorer

STATE = ("scene", "class_name", "scales", "flip", "threshold")
CLASSES = ("one", "two", "three", "four")
SETTINGS = [  # scene, scales, flip, threshold
    (0, [0.5, 1.0, 1.5, 2.0], True, 0.0),
    (1, [0.5, 1.0, 1.5, 2.0], False, 0.3),
    (2, [1.0], False, 0.0),
    (3, [0.5], True, 0.15),
    (4, [1.0, 2.0], True, 0.9),
    (4, [1.5], False, 0.01),
    (0, [0.5, 2.0], True, 0.55),
]
SENTENCE = re.compile(
    r"(?:Threshold ([\d.]+): (nothing|(?:below )?[\d.]+\s%) of the scene is ([\w ]+), "
    r"and (nothing|(?:below )?[\d.]+\s%) "
    r"has the class that the reference map has there|"
    r"No threshold: every pixel has a class, and (nothing|(?:below )?[\d.]+\s%) that of the reference map)\."
)

MEANS = r"Mean IoU of this scene: (.+)\. From the pixels of all scenes \(\d+\) together: (.+)\."


def some_scenes(seed=0, classes=CLASSES):
    """Scenes with labels that lack some classes of their maps, and maps of which some rows have no class."""
    data = random_scenes(24, 32, 6, classes, seed)
    labels = data.labels & (torch.rand(data.labels.shape, generator=Generator().manual_seed(seed)) < 0.6)
    labels[:, 0] |= ~labels[:, : len(classes) - 1].any(dim=1)
    gone = data.positions.clone()
    gone[1, :3], gone[2, :, 20:] = 0, 0
    return replace(data, labels=labels, positions=gone)


def network(outputs=4, seed=0):
    return models.classifier("narrow_resnet", 3, outputs, Generator().manual_seed(seed))


def explorer(data=None, seed=0, index=(4, 0, 2, 1, 5), background=None, **options):
    data = data or some_scenes(seed)
    outputs = len(data.classes) - (background is not None)
    return CamExplorer(data, index, network(outputs, seed), background=background, **options)


def with_background(seed=0, background=0.15):
    return explorer(some_scenes(seed, (*CLASSES[:3], "background")), seed, background=background)


def set_state(made, setting, class_name=""):
    made.scene, made.scales, made.flip, made.threshold = setting
    made.class_name = class_name


def slow_segments(made, model):
    """Maps (n,H,W) of all offered scenes by `weak_segmentation` itself, 32 bits and all; the last class for nothing."""
    data, index = made.data, torch.tensor(made.scenes)
    raw = weak_segmentation.multi_scale_maps(
        model, data.normalise(data.images[index]), tuple(data.images.shape[2:]), made.scales, made.flip
    )
    present = data.labels[index][:, : raw.shape[1]]
    maps = weak_segmentation.normalised(raw, present)
    return maps, weak_segmentation.segment(maps, present, made.threshold or None)


def slow_iou(found, truth, c):
    """IoU of class c by a walk over the pixels of maps; nan for a class that the truth has not."""
    both = either = there = 0
    for f, t in zip(found.flatten().tolist(), truth.flatten().tolist(), strict=True):
        if t >= 0:
            both, either, there = both + (f == t == c), either + (c in (f, t)), there + (t == c)
    return both / either if there else math.nan


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("background", [None, 0.15])
def test_read_out_is_that_of_the_segments_pixel_by_pixel(background, seed, setting):
    made = explorer(seed=seed) if background is None else with_background(seed, background)
    set_state(made, setting)
    objects = len(made.data.classes) - (background is not None)
    maps, segments = slow_segments(made, network(objects, seed))
    truth = segmentation.maps_of(made.data, torch.tensor(made.scenes))
    k = made.scene
    torch.testing.assert_close(made.maps(k)[0].float(), maps[k], rtol=1e-5, atol=1e-6)
    table = made.read_out()
    assert table["class"].tolist() == list(made.data.classes)
    label = [*made.data.labels[made.scenes[k], :objects].tolist(), *[True] * (background is not None)]
    assert table["present"].tolist() == label
    known = truth[k] >= 0
    for c, row in table.iterrows():
        assert row["map_pixels"] == (truth[k] == c).sum()
        assert row["found_pixels"] == ((segments[k] == c) & known).sum()
        expected = slow_iou(segments[k], truth[k], c) if label[c] else math.nan
        assert row["iou"] == pytest.approx(expected, nan_ok=True)
        assert row["iou_all"] == pytest.approx(slow_iou(segments, truth, c), nan_ok=True)
    means = made.read_out_means()
    confusion = metrics.confusion_matrix(segments, truth, objects + 1)
    assert means["iou_all"] == pytest.approx(metrics.accuracies(confusion)["miou"])
    if made.threshold:
        present = made.data.labels[made.scenes][:, :objects]
        found = weak_segmentation.background_confusions(maps, present, truth, [made.threshold])
        assert torch.equal(found[0], confusion)
    assert means["iou"] == pytest.approx(table["iou"].dropna().mean())
    assert means["below"] == pytest.approx((segments[k] == objects).float().mean().item())
    assert means["right"] == pytest.approx((segments[k] == truth[k])[known].float().mean().item())


def test_untrained_networks_make_cases_that_differ():
    """Otherwise the tests above and below would show little."""
    made, seen = explorer(), set()
    for setting in SETTINGS:
        set_state(made, setting)
        seen.add(tuple(made.read_out_means().round(6)))
    assert len(seen) == len(SETTINGS)
    assert made.read_out()["iou"].isna().any()
    assert 0 < made.read_out_means()["below"] < 1


def test_the_network_is_left_as_it_was_and_nothing_is_drawn_at_random():
    model, data = network().train(), some_scenes()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    made, again = (CamExplorer(data, [4, 0, 2], model) for _ in range(2))
    assert made.arrays == again.arrays
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_maps_are_stored_coarse_for_classes_of_the_label_only():
    made = explorer()
    pairs = int(made.labels.sum())
    shapes = [made.arrays[f"maps_{k}"]["shape"] for k in range(4)]
    assert shapes == [[2, pairs, *size] for size in ((2, 2), (3, 4), (5, 6), (6, 8))]
    assert all(made.arrays[f"maps_{k}"]["dtype"] == "float32" for k in range(4))
    stored = np.frombuffer(zlib.decompress(made.arrays["maps_1"]["data"]), "<f4").reshape(shapes[1])
    data, index = made.data, torch.tensor(made.scenes)
    for found, flip in zip(stored, (False, True), strict=True):
        images = data.normalise(data.images[index])
        (expected,) = weak_segmentation.scale_maps(network(), images, [1], flip)
        assert np.array_equal(found, expected[data.labels[index]].numpy())


def test_what_it_refuses():
    data, model = some_scenes(), network()
    with pytest.raises(ValueError, match="random: the explorer needs reference maps"):
        CamExplorer(replace(data, positions=None), [0], model)
    for index, expected in (([], "1 to 12 scenes"), (range(13), "1 to 12"), ([1, 1], "each once"), ([6], "0 to 5")):
        with pytest.raises(ValueError, match=rf"index=\[.*expected.*{expected}"):
            CamExplorer(data, index, model)
    with pytest.raises(ValueError, match="index: a scene of random has no class in its label"):
        CamExplorer(replace(data, labels=data.labels & False), [0], model)
    only = torch.zeros_like(data.labels)
    only[:, -1] = True
    with pytest.raises(ValueError, match="no class in its label"):
        CamExplorer(replace(data, labels=only), [0], network(3), background=0.1)
    with pytest.raises(ValueError, match="network: has 3 outputs, expected 4: one, two, three and four"):
        CamExplorer(data, [0], network(3))
    with pytest.raises(ValueError, match="network: has 4 outputs, expected 3: one, two and three"):
        CamExplorer(data, [0], model, background=0.1)
    for scales in ((), (1, 0), (1, -1), (1, 1)):
        with pytest.raises(ValueError, match=r"scales=\("):
            CamExplorer(data, [0], model, scales=scales)
    for background in (0.95, -0.01, 0.123, math.nan):
        with pytest.raises(ValueError, match=f"background={background}: expected 0 to 0.9 in steps of 0.01"):
            CamExplorer(data, [0], network(3), background=background)
    with torch.no_grad():
        model.get_classifier().weight.fill_(math.nan)
    with pytest.raises(ValueError, match="network: its maps are not finite"):
        CamExplorer(data, [0], model)


def test_settings_that_it_refuses():
    made = explorer()
    present = [name for name, has in zip(CLASSES, made.labels[0].tolist(), strict=True) if has]
    absent = next(name for name in CLASSES if name not in present)
    listed = ".*".join(f"'{name}'" for name in present)
    for name, value, expected in (
        ("scene", 5, "expected 0 to 4"),
        ("scene", -1, "expected 0 to 4"),
        ("class_name", absent, f"expected one of scene 0, {listed}, or '' for all"),
        ("class_name", "none", "expected one of scene 0"),
        ("scales", [], "expected one or more of 0.5, 1, 1.5 and 2, each once"),
        ("scales", [1.0, 3.0], "expected one or more"),
        ("scales", [1.0, 1.0], "expected one or more"),
        ("threshold", 0.91, "expected 0 to 0.9 in steps of 0.01"),
        ("threshold", 0.125, "expected 0 to 0.9 in steps of 0.01"),
        ("threshold", math.nan, "expected 0 to 0.9"),
        ("flip", "yes", ""),
    ):
        shown = re.escape(f"{name}={value!r}: ") if expected else "flip"
        with pytest.raises((ValueError, traitlets.TraitError), match=shown + expected):
            setattr(made, name, value)
    assert [getattr(made, name) for name in STATE] == [0, "", [0.5, 1.0, 1.5, 2.0], True, 0.0]


def test_settings_are_put_in_order_and_a_class_goes_with_its_scene():
    made = explorer()
    made.scales, made.threshold = [2, 0.5], 0.29
    assert (made.scales, made.threshold) == ([0.5, 2.0], 0.29)
    for k, j in product(range(5), range(5)):
        made.scene = k
        made.class_name = made._present(k)[-1]
        kept = made.class_name in made._present(j)
        made.scene = j
        assert made.class_name == (made._present(k)[-1] if kept else "")


def test_a_background_begins_with_its_threshold_and_is_no_class_to_choose():
    made = with_background(background=0.3)
    assert (made.threshold, made.below) == (0.3, "background")
    assert "background" not in " ".join(made.names)
    assert (explorer().threshold, explorer().below) == (0.0, "unassigned")


def test_a_scene_without_a_pixel_that_counts_has_no_scores():
    data = some_scenes()
    gone = data.positions.clone()
    gone[3] = 0
    made = explorer(replace(data, positions=gone), index=[3, 0])
    assert made.read_out()["iou"].isna().all()
    means = made.read_out_means()
    assert means[["iou", "right"]].isna().all()
    assert means["iou_all"] > 0


def test_where_scripts_are_off_a_figure_stands_for_it_and_is_drawn_when_asked_for():
    made = explorer()
    assert "fallback" not in vars(made)
    assert made.fallback.html.count("<img") == 2
    assert "reference map" in made.fallback.text
    assert f"{made.read_out_means()['iou_all']:.3f}" in made.fallback.html
    assert "<img" in with_background().fallback.html


# In a browser


def close(text, value, digits=3):
    return text == "–" if math.isnan(value) else abs(float(text) - value) <= 0.51 * 10**-digits


def share(text):
    return 0.0 if text == "nothing" else float(re.search(r"[\d.]+", text)[0]) / 100


def agree(page, made):
    """What the page says and paints is what Python computes for the page's state."""
    copy_state(page, made, STATE)
    table, means, rows = made.read_out(), made.read_out_means(), shown_rows(page)
    assert list(rows) == [*table["class"], "mean"]
    for row in table.to_dict("records"):
        texts = rows[row["class"]]
        assert texts[:2] == [str(row["map_pixels"]), str(row["found_pixels"])]
        assert close(texts[2], row["iou"])
        assert close(texts[3], row["iou_all"])
    assert rows["mean"][:2] == ["", ""]
    first, second = page.locator(".rsbook-said").all_inner_texts()
    said = SENTENCE.fullmatch(first).groups()
    right = said[3] or said[4]
    assert share(right) == pytest.approx(means["right"], abs=0.00051)
    if made.threshold:
        assert (float(said[0]), said[2]) == (made.threshold, made.below)
        assert share(said[1]) == pytest.approx(means["below"], abs=0.00051)
    numbers = re.fullmatch(MEANS, second).groups()
    for text, again, name in zip(numbers, rows["mean"][2:], ("iou", "iou_all"), strict=True):
        assert text == again
        assert close(text, means[name])
    agree_in_pictures(page, made)


def painted(page, k):
    return (
        page.locator("canvas")
        .nth(k)
        .evaluate("(one) => [...one.getContext('2d').getImageData(0, 0, one.width, one.height).data]")
    )


def agree_in_pictures(page, made):
    shape = (*made.data.images.shape[2:], 4)
    heat, segments, truth = (np.array(painted(page, k)).reshape(shape) for k in (1, 2, 3))
    colours = np.array([[int(c[at : at + 2], 16) for at in (1, 3, 5)] for c in made.colours])
    chosen = made.class_name and made.classes.index(made.class_name)
    maps = made.maps(made.scene)[0]
    shown = (maps[chosen] if made.class_name else maps.amax(dim=0)).numpy()
    scale = np.frombuffer(zlib.decompress(made.arrays["heat"]["data"]), np.uint8).reshape(-1, 3)
    assert np.array_equal(heat[..., :3], scale[np.floor(100 * shown + 0.5).astype(int)])
    for pixels, classes in ((segments, made.segment(made.scene)), (truth, made.truth[made.scene])):
        classes = classes.numpy()
        there = (classes >= 0) & (classes < len(colours))
        full = there & ((classes == chosen) if made.class_name else True)
        assert np.array_equal(pixels[..., 3] == 0, ~there)
        assert np.array_equal(pixels[..., 3] == 255, full)
        assert np.array_equal(pixels[full][:, :3], colours[classes[full]])


def test_the_page_agrees_with_python_in_every_setting(opened):
    for made in (explorer(), with_background(1)):
        page = opened(made)
        agree(page, made)
        for setting in SETTINGS:
            page.evaluate(
                "(state) => { for (const [name, value] of Object.entries(state)) explorer.set(name, value); }",
                dict(zip(("scene", "scales", "flip", "threshold"), setting, strict=True)),
            )
            for k, name in enumerate(["", *made._present(setting[0])]):
                page.get_by_label("Class of its label").select_option(index=k)
                agree(page, made)
                assert (made.scene, made.scales, made.flip, made.threshold) == setting
                assert made.class_name == name


def test_the_page_agrees_where_sizes_are_odd_and_maps_larger_than_the_scene(opened):
    data = some_scenes()
    data = replace(data, images=data.images[:, :, :19, :23], positions=data.positions[:, :19, :23])
    made = CamExplorer(data, range(6), models.classifier("narrow_resnet", 3, 4, Generator()), scales=(0.3, 9))
    page = opened(made)
    agree(page, made)
    page.get_by_label("9", exact=True).click()
    agree(page, made)
    assert made.scales == [0.3]


def test_keys_move_everything(opened):
    made = explorer()
    page = opened(made, width=390)
    cut = page.get_by_label("Threshold")
    cut.press("End")
    agree(page, made)
    assert made.threshold == 0.9
    for _ in range(10):
        cut.press("ArrowLeft")
    agree(page, made)
    assert made.threshold == 0.8
    page.keyboard.press("Shift+Tab")  # mirrored
    page.keyboard.press("Space")
    agree(page, made)
    assert not made.flip
    for left in ([0.5, 1.0, 1.5], [0.5, 1.0], [0.5], [0.5]):  # the last one stays
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Space")
        agree(page, made)
        assert made.scales == left
        ticked = [box.is_checked() for box in page.locator("fieldset").first.locator("input").all()]
        assert ticked == [scale in left for scale in (0.5, 1.0, 1.5, 2.0)]
    page.get_by_label("Scene", exact=True).press("ArrowDown")
    agree(page, made)
    assert made.scene == 1
    page.get_by_label("Class of its label").press("ArrowDown")
    agree(page, made)
    assert made.class_name == made._present(1)[0]
    cut.press("Home")
    agree(page, made)
    assert page.locator("output").inner_text() == "none"


def test_every_step_of_the_slider_is_one_that_python_takes(opened):
    made = explorer()
    page = opened(made)
    reached = []
    for k in range(91):
        reached.append(page.evaluate("explorer.state.threshold"))
        made.threshold = reached[-1]
        assert made.threshold == k / 100
        page.get_by_label("Threshold").press("ArrowRight")
    assert len(set(reached)) == 91


def test_a_class_stays_with_the_next_scene_where_that_has_it(opened):
    made = explorer()
    page = opened(made)
    for k, j in product(range(5), range(5)):
        page.get_by_label("Scene", exact=True).select_option(index=k)
        name = made._present(k)[-1]
        page.get_by_label("Class of its label").select_option(name)
        page.get_by_label("Scene", exact=True).select_option(index=j)
        copy_state(page, made, STATE)
        assert made.class_name == (name if name in made._present(j) else "")
    agree(page, made)


def test_what_python_sets_is_shown(opened):
    made = with_background()
    set_state(made, (2, [1.0, 1.5], False, 0.42), made._present(2)[0])
    page = opened(made)
    agree(page, made)
    assert page.locator("output").inner_text() == "0.42"
    assert page.get_by_label("Class of its label").input_value() == made.class_name
    assert page.locator("canvas").nth(1).get_attribute("aria-label") == f"map of {made.class_name}"
    assert not page.get_by_label("mirrored too").is_checked()


def test_screen_readers_hear_the_sentences_once_a_key_is_up(opened):
    page = opened(explorer())
    wait_two_frames(page)
    told = page.locator(".rsbook-told")
    assert told.text_content() == ""
    page.get_by_label("Threshold").press("End")
    wait_two_frames(page)
    assert told.text_content() == "".join(page.locator(".rsbook-said").all_text_contents())
    assert page.get_by_role("group", name="Scales, one or more").get_by_role("checkbox").count() == 4
    assert page.get_by_label("Threshold").get_attribute("aria-valuetext") == "0.90"


@pytest.mark.parametrize("width", [390, 700, 1300])
def test_neither_the_page_nor_its_table_scrolls_sideways(opened, width):
    names = ("water", "agriculture and built-up", "snow and ice", "rangeland")
    page = opened(explorer(some_scenes(classes=names)), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    scrolled = page.locator(".rsbook-explorer-scroll").evaluate("(one) => one.scrollWidth - one.clientWidth")
    assert scrolled == 0


def test_class_names_run_nothing(opened):
    payload = '<img src=x onerror="window.__hit=1"><script>window.__hit=1</script>'
    data = some_scenes(classes=("one", payload, "</script><b>", "four"))
    made = explorer(data, index=[int(i) for i in torch.nonzero(data.labels[:, 1])[:, 0]])
    page = opened(made)
    assert payload in shown_rows(page)
    page.get_by_label("Class of its label").select_option(payload)
    agree(page, made)
    assert page.evaluate("window.__hit") is None


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(theme, opened):
    axe = report.fetch_assets() / "tools" / "axe.min.js"
    page = opened(explorer(), theme)
    page.get_by_label("Threshold").press("End")
    page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    assert [f"{rule['id']}: {node['html'][:120]} {node['any'][:1]}" for rule in found for node in rule["nodes"]] == []
