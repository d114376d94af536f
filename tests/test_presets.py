"""The presets, above all that `full` is the paper's protocol."""

import inspect

import pytest

from rsbook import label_propagation, presets


@pytest.mark.parametrize("work", presets.PRESETS)
def test_every_work_has_the_three_presets_with_the_same_settings(work):
    assert list(presets.PRESETS[work]) == ["smoke", "quick", "full"]
    shapes = [(set(preset), set(preset["training"])) for preset in presets.PRESETS[work].values()]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_settings_and_grid_are_all_that_a_run_needs(preset):
    chosen = presets.load("label_propagation", preset)
    for row in label_propagation.study(label_propagation.METHODS, chosen["area_ranges"], chosen["seeds"]):
        assert not row.keys() & chosen["training"].keys()
        inspect.signature(label_propagation.train).bind(dataset="bluemarble", **row, **chosen["training"])


def test_full_is_the_papers_protocol():
    full = presets.load("label_propagation", "full")  # section IV-B and Table II
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
    presets.load("label_propagation", "quick")["seeds"].append(99)
    assert 99 not in presets.load("label_propagation", "quick")["seeds"]
