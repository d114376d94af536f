"""The presets, above all that `full` is the paper's protocol."""

import inspect
from itertools import product

import pytest
import torch
from torch import Generator

from rsbook import label_propagation, noise, presets


@pytest.mark.parametrize("work", presets.PRESETS)
def test_every_work_has_the_three_presets_with_the_same_settings(work):
    assert list(presets.PRESETS[work]) == ["smoke", "quick", "full"]
    shapes = [(set(preset), set(preset["training"])) for preset in presets.PRESETS[work].values()]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
@pytest.mark.parametrize("dataset", ["bluemarble", "deepglobe"])
def test_settings_and_grid_are_all_that_a_run_needs(preset, dataset):
    chosen = presets.load("label_propagation", preset, dataset)
    signature = inspect.signature(label_propagation.train)
    for row in label_propagation.study(label_propagation.METHODS, chosen["area_ranges"], chosen["seeds"]):
        assert not row.keys() & chosen["training"].keys()
        signature.bind(dataset=dataset, **row, **chosen["training"])
    assert chosen["thematic_product"] in label_propagation.MAPS
    assert len(set(chosen["stage_one_epochs"])) == len(chosen["stage_one_epochs"])
    for epochs in chosen["stage_one_epochs"]:
        assert 1 <= epochs < chosen["training"]["epochs"]


def test_the_settings_of_a_data_set_suit_its_images():
    assert presets.load("label_propagation", "full", "bluemarble")["training"]["output_stride"] == 8
    for preset, dataset in (("quick", "bluemarble"), ("full", "deepglobe")):
        assert "output_stride" not in presets.load("label_propagation", preset, dataset)["training"]
    products = {
        name: presets.load("label_propagation", "full", name)["thematic_product"] for name in ("a", "bluemarble")
    }
    assert products == {"a": "given", "bluemarble": "product"}
    assert presets.load("label_propagation", "quick") == presets.load("label_propagation", "quick", "bluemarble")


# Map noise


def noise_levels(preset, dataset="bluemarble"):
    return presets.load("label_propagation", preset, dataset)["noise_levels"]


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
@pytest.mark.parametrize("dataset", ["bluemarble", "deepglobe"])
def test_every_level_of_every_kind_is_noise_that_can_be_made(preset, dataset):
    side = 32 if dataset == "bluemarble" else 120
    maps = torch.arange(2 * side * side).view(2, side, side) // 40 % 3
    levels = noise_levels(preset, dataset)
    assert list(levels) == list(noise.KINDS)
    for kind in levels:
        assert len(set(levels[kind])) == len(levels[kind]) >= 1
        for fraction, intensity in levels[kind]:
            changed = noise.simulate(
                kind, maps, fraction=fraction, intensity=intensity, num_classes=3, generator=Generator().manual_seed(0)
            )
            assert changed.shape == maps.shape
            assert type(intensity) in (int, type(None))  # as JSON gives it back


def test_full_has_the_levels_of_section_v_b():
    levels = noise_levels("full", "deepglobe")
    for kind in ("mask_shift", "dilation_erosion"):
        assert set(levels[kind]) == set(product((0.25, 0.5, 1.0), (12, 24, 36)))
    for kind in ("rectify_borders", "border_deformation"):
        assert {fraction for fraction, _ in levels[kind]} == {0.25, 0.5, 1.0}
        assert len(levels[kind]) == 9
    for kind in ("segment_swap", "class_swap"):
        assert levels[kind] == [(0.1, None), (0.2, None), (0.3, None)]


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_noise_on_small_scenes_is_as_strong_relative_to_their_size(preset):
    small, large = noise_levels(preset), noise_levels(preset, "deepglobe")
    for kind in ("mask_shift", "dilation_erosion"):
        assert [fraction for fraction, _ in small[kind]] == [fraction for fraction, _ in large[kind]]
        for (_, here), (_, there) in zip(small[kind], large[kind], strict=True):
            assert here == pytest.approx(there * 32 / 120, abs=0.5)
    for kind in ("border_deformation", "segment_swap", "class_swap"):
        assert small[kind] == large[kind]


@pytest.mark.parametrize("dataset", ["bluemarble", "deepglobe"])
def test_cross_is_each_intensity_in_most_maps_and_each_fraction_at_the_highest_intensity(dataset):
    everything, crossed, one = (noise_levels(preset, dataset) for preset in ("full", "quick", "smoke"))
    for kind, levels in everything.items():
        fractions, intensities = {fraction for fraction, _ in levels}, {intensity for _, intensity in levels}
        most, strongest = max(fractions), max(intensities, key=lambda value: value or 0)
        cross = {(most, intensity) for intensity in intensities} | {(fraction, strongest) for fraction in fractions}
        assert set(crossed[kind]) == cross
        assert len(crossed[kind]) == len(cross)
        assert one[kind] == [(most, strongest)]
        assert len(levels) == len(fractions) * len(intensities)


def test_full_is_the_papers_protocol():
    full = presets.load("label_propagation", "full", "deepglobe")  # section IV-B and Table II
    assert full["seeds"] == [42, 43, 44, 45, 46]
    assert [tuple(a) for a in full["area_ranges"]] == [(0.1, 0.3), (0.1, 0.5), (0.1, 0.7), (0.3, 0.5), (0.3, 0.7)]
    assert full["training"] == {
        "network": "resnet18",
        "epochs": 120,
        "batch_size": 300,
        "learning_rate": 5e-4,
        "weight_decay": 0.01,
        "evaluate_every": 1,
        "probability": 0.5,
        "train_scenes": None,
    }


def test_work_grows_from_smoke_to_full():
    amounts = []
    for name in ("smoke", "quick", "full"):
        chosen = presets.load("label_propagation", name)
        grid = label_propagation.study(label_propagation.METHODS, chosen["area_ranges"], chosen["seeds"])
        amounts.append(len(grid) * chosen["training"]["epochs"])
    assert amounts == sorted(set(amounts))
    assert len(presets.load("label_propagation", "quick")["seeds"]) >= 3  # a mean and a spread


@pytest.mark.parametrize(
    ("work", "preset", "message"),
    [
        ("label_propagatoin", "quick", "work='label_propagatoin': expected one of label_propagation"),
        ("label_propagation", "fast", "preset='fast': expected one of smoke, quick, full"),
    ],
)
def test_unknown_names_are_errors_that_list_the_known(work, preset, message):
    with pytest.raises(ValueError, match=message):
        presets.load(work, preset)


def test_a_page_that_changes_its_preset_changes_no_other():
    before = repr(presets.load("label_propagation", "quick"))
    chosen = presets.load("label_propagation", "quick")
    chosen["seeds"].append(99)
    chosen["training"]["epochs"] = 1
    for levels in chosen["noise_levels"].values():
        levels.clear()
    assert repr(presets.load("label_propagation", "quick")) == before
