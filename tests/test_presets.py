"""The presets, above all that `full` is the paper's protocol."""

import inspect
from itertools import product

import pytest
import torch
from torch import Generator

from rsbook import (
    cromss,
    label_propagation,
    noise,
    presets,
    scenes,
    segmentation,
    training,
    weak_runs,
    weak_tasks,
    weak_uses,
)
from rsbook.archives import bluemarble_vegetation, sentinel


@pytest.mark.parametrize("work", presets.WORKS)
def test_every_work_has_the_three_presets_with_the_same_settings(work):
    assert list(presets.WORKS[work].PRESETS) == ["smoke", "quick", "full"]
    shapes = [(set(preset), set(preset["training"])) for preset in presets.WORKS[work].PRESETS.values()]
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
        ("cromss", "", "preset='': expected one of smoke, quick, full"),
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


# Part II


CROMSS = ("bluemarble_vegetation", "ssl4eo")


def pretrained(chosen):
    """What the pages pre-train, as rows of the results."""
    study = cromss.study(cromss.METHODS, list(chosen["modalities"]), chosen["seeds"])
    return [row | {"weights": {name: f"of {name}" for name in row["modalities"]}} for row in study]


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
@pytest.mark.parametrize("dataset", CROMSS)
def test_settings_of_cromss_are_all_that_its_runs_need(preset, dataset):
    chosen = presets.load("cromss", preset, dataset)
    modalities, where = list(chosen["modalities"]), {"root": None, "device": "cpu", "checkpoint": None}
    signature = inspect.signature(cromss.pretrain)
    for row in cromss.study(cromss.METHODS, modalities, chosen["seeds"]):
        signature.bind(dataset=dataset, noise=chosen["noise"], **row, **chosen["training"], **where)
    signature = inspect.signature(cromss.transfer)
    rows = cromss.transfers(pretrained(chosen), modalities)
    assert len(rows) == len(chosen["seeds"]) * len(modalities) * len(cromss.PROTOCOLS) * len(cromss.ENCODERS)
    for row in rows:
        signature.bind(**row, **chosen["transfer"], **where)
    assert chosen["noise_training"].keys() <= chosen["training"].keys()
    for settings in (chosen["training"], chosen["training"] | chosen["noise_training"]):
        assert settings["epochs"] % settings["evaluate_every"] == 0
        assert settings["train_scenes"] is None or settings["train_scenes"] >= settings["batch_size"]


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_the_kinds_of_noise_of_part_ii_come_alone_and_bind(preset):
    chosen = presets.load("cromss", preset, "bluemarble_vegetation")
    levels = chosen["noise_levels"]
    study = cromss.study(["mid_fusion", "cromss_mid"], list(chosen["modalities"]), chosen["seeds"])
    rows = cromss.with_noise(study, [[(kind, *level)] for kind in levels for level in levels[kind]])
    signature = inspect.signature(cromss.pretrain)
    maps = torch.arange(2 * 32 * 32).view(2, 32, 32) // 40 % 3
    for row in rows:
        signature.bind(dataset="x", **row, **chosen["training"] | chosen["noise_training"])
    for kind, fraction, intensity in {tuple(row["noise"][0]) for row in rows}:
        options = {"num_classes": 3, "background": -1, "generator": Generator().manual_seed(0)}
        noise.simulate(kind, maps, fraction=fraction, intensity=intensity, **options)
    assert len(rows) == sum(map(len, levels.values())) * len(study)


@pytest.mark.parametrize("dataset", CROMSS)
def test_rates_are_three_fractions_at_the_highest_intensity(dataset):
    highest = {  # of the scenes of 32 pixels
        "mask_shift": 10,
        "dilation_erosion": 10,
        "rectify_borders": 8,
        "border_deformation": 20,
        "segment_swap": None,
        "class_swap": None,
    }
    for preset in ("quick", "full"):
        levels = presets.load("cromss", preset, dataset)["noise_levels"]
        assert list(levels) == list(noise.KINDS)
        for kind, found in levels.items():
            fractions = [0.1, 0.2, 0.3] if kind.endswith("swap") else [0.25, 0.5, 1.0]
            assert found == [(fraction, highest[kind]) for fraction in fractions]
    smoke = presets.load("cromss", "smoke", dataset)["noise_levels"]
    assert smoke == {kind: [(0.3 if kind.endswith("swap") else 1.0, highest[kind])] for kind in noise.KINDS}


def test_full_is_the_protocol_of_the_workshop_paper():
    full = presets.load("cromss", "full", "ssl4eo")
    assert len(full["seeds"]) == 3
    assert full["noise"] is None  # Dynamic World's maps are noisy themselves
    assert full["modalities"] == {"s1": "S1", "s2": "S2"}
    assert full["training"] == {
        "network": "resnet50",
        "epochs": 100,
        "batch_size": 128,
        "learning_rate": 5e-4,
        "weight_decay": 0.0,
        "evaluate_every": 1,
        "train_scenes": None,
        "val_scenes": None,
        "schedule": "constant",
        "warm_up": None,
        "halve_after": 30,
        "crop": 256,
    }
    assert full["transfer"] == {
        "dataset": "dfc2020",
        "train_split": "train",
        "train_scenes": None,
        "network": "resnet50",
        "depth": 3,
        "width": 512,
        "epochs": 50,
        "batch_size": 32,
        "learning_rate": 5e-5,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warm_up": None,
    }
    defaults = {name: p.default for name, p in inspect.signature(cromss.pretrain).parameters.items()}
    assert (defaults["ranking"], defaults["ramp_share"]) == ("global", 0.8)  # all pixels; 80 of 100 epochs
    assert not inspect.signature(cromss.transfer).parameters["fixed_statistics"].default  # as the authors' code


def test_work_of_cromss_grows_from_smoke_to_full():
    amounts = []
    for name in ("smoke", "quick", "full"):
        chosen = presets.load("cromss", name, "bluemarble_vegetation")
        training, transfer = chosen["training"], chosen["transfer"]
        shorter = training | chosen["noise_training"]
        amounts.append(
            (
                len(pretrained(chosen)) * training["epochs"] * (training["train_scenes"] or 2016),
                len(pretrained(chosen)) * transfer["epochs"] * transfer["width"],
                sum(map(len, chosen["noise_levels"].values())) * shorter["epochs"] * (shorter["train_scenes"] or 2016),
            )
        )
        assert shorter["epochs"] <= training["epochs"]
    for each in zip(*amounts, strict=True):
        assert list(each) == sorted(set(each))
    assert len(presets.load("cromss", "quick", "ssl4eo")["seeds"]) >= 3


@pytest.mark.parametrize("dataset", ["bluemarble", "dfc2020", "", "ssl4eo "])
def test_a_data_set_without_settings_is_refused_by_name(dataset):
    message = f"dataset='{dataset}': cromss has settings for bluemarble_vegetation, ssl4eo"
    with pytest.raises(ValueError, match=message):
        presets.load("cromss", "quick", dataset)


def test_modalities_are_those_of_the_archives_and_stand_beside_both_inputs():
    for dataset, there in zip(CROMSS, (bluemarble_vegetation.MODALITIES, sentinel.MODALITIES), strict=True):
        modalities = presets.load("cromss", "quick", dataset)["modalities"]
        assert list(modalities.values()) == ["S1", "S2"]
        assert modalities.keys() <= there.keys()


def test_a_page_of_part_ii_that_changes_its_preset_changes_no_other():
    before = repr(presets.load("cromss", "quick", "bluemarble_vegetation"))
    chosen = presets.load("cromss", "quick", "bluemarble_vegetation")
    chosen["noise"][0][1] = 0.5
    chosen["modalities"].clear()
    chosen["transfer"]["epochs"] = chosen["noise_training"]["epochs"] = 1
    assert repr(presets.load("cromss", "quick", "bluemarble_vegetation")) == before
    assert presets.cromss.MIXTURE[0][1] == 1.0


@pytest.fixture(scope="module")
def vegetation():
    return scenes.load("bluemarble_vegetation")


def test_the_mixture_leaves_as_many_pixels_right_as_dynamic_world_has(vegetation):
    index = vegetation.split("train")[:512]
    clean = segmentation.maps_of(vegetation, index)
    chosen = presets.load("cromss", "quick", "bluemarble_vegetation")
    assert chosen["noise"] == presets.cromss.MIXTURE
    noisy = cromss.noisy_maps(vegetation, index, chosen["noise"], (42, 0))
    assert (clean >= 0).all()
    assert 0.70 <= (noisy == clean).float().mean() <= 0.75


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_embedded_scenes_are_as_many_as_are_asked_for_and_serve_one_purpose(preset, vegetation):
    """Encoders are tested with few clean scenes that pre-training has not seen, as few as DFC2020 has."""
    chosen = presets.load("cromss", preset, "bluemarble_vegetation")
    training, transfer = chosen["training"], chosen["transfer"]
    there = {name: len(vegetation.split(name)) for name in ("train", "val", "test")}
    assert (training["train_scenes"] or 1) <= there["train"]
    assert transfer["train_split"] == "val"
    if training["val_scenes"] is not None:  # the last ones; the transfer takes the first
        assert training["val_scenes"] + transfer["train_scenes"] <= there["val"]
    shares = [n / (n + tested) for n, tested in ((transfer["train_scenes"], there["test"]), (986, 5128))]
    assert shares[0] == pytest.approx(shares[1], abs=0.005)


# Part V


@pytest.mark.parametrize("dataset", ["bluemarble_64", "voc"])
@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_weak_segmentation_has_all_that_its_runs_need(preset, dataset):
    chosen = presets.load("weak_segmentation", preset, dataset)
    methods, seeds = weak_tasks.METHODS, chosen["seeds"]
    assert set(chosen["epochs"]) == {*methods, weak_runs.TEACHER}
    for name in ("recommended", "report", "teacher"):
        for row in weak_runs.study(methods, seeds, chosen["epochs"]):
            assert not row.keys() & chosen[name].keys()
            inspect.signature(weak_runs.classify).bind(dataset=dataset, **row, **chosen[name])
    [first, *_] = classified = [{"seed": seed, "weights": "w"} for seed in seeds]
    for function, rows, name in (
        (weak_runs.refine, weak_runs.refinements(classified), "refinement"),
        (weak_uses.segment, weak_uses.segmentations([first | {"stage_one": "v"}], "walk"), "segmentation"),
        (weak_uses.segment, weak_uses.segmentations([], "reference", seeds), "segmentation"),
        (weak_uses.propagate, weak_uses.propagations(classified, seeds), "propagation"),
    ):
        for row in rows:
            assert not row.keys() & chosen[name].keys()
            inspect.signature(function).bind(dataset=dataset, **row, **chosen[name])
    fit = set(inspect.signature(training.fit).parameters)
    for name in ("recommended", "report", "teacher", "refinement", "segmentation", "propagation"):
        assert set(chosen[name]["fitting"]) <= fit
        assert set(chosen["more"]) <= set(chosen[name])
    assert len(seeds) >= 2


def test_the_full_presets_are_those_recommended_beside_the_reports():
    chosen = presets.load("weak_segmentation", "full", "voc")
    fitting, report = chosen["recommended"]["fitting"], chosen["report"]["fitting"]
    assert (fitting["learning_rate"], fitting["momentum"], fitting["weight_decay"]) == (0.01, 0.9, 5e-4)
    assert (report["learning_rate"], report["momentum"], report["weight_decay"]) == (0.1, 5e-4, 5e-4)
    assert (fitting["schedule"], report["schedule"], report["clip_norm"]) == ("poly", "constant", 1.0)
    assert (chosen["report"]["as_coded"], chosen["report"]["sub_weight"]) == (True, 2.0)
    assert (chosen["epochs"]["cam"], chosen["epochs"]["fmix"]) == (15, 25)
    assert (chosen["recommended"]["background"], chosen["recommended"]["crop"]) == (0.15, 300)
    walk = {name: chosen["refinement"][name] for name in ("radius", "steps", "beta")}
    assert walk == {"radius": 5, "steps": 256, "beta": 8.0}
    assert chosen["more"]["splits"] == ["train", "extra"]
    deeplab = chosen["segmentation"]
    assert (deeplab["network"], deeplab["crop"], deeplab["fitting"]["learning_rate"]) == ("resnet101", 321, 2.5e-4)
    assert deeplab["fitting"]["factors"] == {"branches.*.weight": 10.0, "branches.*.bias": 20.0}
    for images, epochs in (
        (1318, deeplab["fitting"]["epochs"]),
        (10_582 - 146, chosen["more_network"]["fitting"]["epochs"]),
    ):
        assert images // 10 * epochs == pytest.approx(20_000, rel=0.05)
    quick = presets.load("weak_segmentation", "quick", "bluemarble_64")
    assert quick["more_network"]["fitting"] == quick["segmentation"]["fitting"]
    embedded = presets.load("weak_segmentation", "full", "bluemarble_64")
    assert not embedded["recommended"]["pretrained"]
    assert embedded["recommended"]["crop"] is None
