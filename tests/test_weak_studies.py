"""Studies of Part V: which runs are asked for, from whose weights, and in which order, without training any."""

import pandas as pd
import pytest

from rsbook import presets, runs, weak_runs, weak_studies, weak_uses


@pytest.fixture
def chosen():
    return presets.load("weak_segmentation", "smoke", "bluemarble_64")


@pytest.fixture
def asked(monkeypatch):
    """What `runs.table` is asked for; its rows have weights that tell what they are of."""
    calls = []

    def table(function, grid, **fixed):
        calls.append((function, list(grid), fixed))
        names = [f"{row.get('method', function.__name__)}-{row['seed']}-{len(calls)}" for row in calls[-1][1]]
        return pd.DataFrame([row | {"weights": name} for row, name in zip(calls[-1][1], names, strict=True)])

    monkeypatch.setattr(runs, "table", table)
    return calls


def test_those_whose_features_are_clustered_are_trained_first(chosen, asked):
    found = weak_studies.classifiers(["sct", "fmix", "sce"], [1, 2], chosen, dataset="d", workers=2)
    assert found[["method", "seed"]].values.tolist() == [[m, s] for m in ("sct", "fmix", "sce") for s in (1, 2)]
    assert {function for function, _, _ in asked} == {weak_runs.classify}
    trained = [sorted({row["method"] for row in grid}) for _, grid, _ in asked]
    assert trained == [["cam", "fmix"], ["vit"], ["sct"], ["sce"]]
    begun = dict(zip(zip(found["method"], found["seed"], strict=True), found["stage_one"], strict=True))
    assert begun["sct", 2] == "vit-2-2"
    assert begun["sce", 1] == "cam-1-1"
    assert pd.isna(begun["fmix", 1])
    for _, _, fixed in asked:
        assert (fixed["dataset"], fixed["workers"]) == ("d", 2)
    assert asked[1][2]["fitting"] == chosen["teacher"]["fitting"]
    assert asked[3][2] == chosen["recommended"] | {"dataset": "d", "workers": 2, "clustering": "finch"}


def test_settings_that_differ_are_those_of_the_page(chosen, asked):
    weak_studies.classifiers(["cam"], [1], chosen, "report", entropy=0.0, train_scenes=9)
    [(_, grid, fixed)] = asked
    assert grid == [{"method": "cam", "seed": 1, "epochs": chosen["epochs"]["cam"]}]
    assert fixed == chosen["report"] | {"entropy": 0.0, "train_scenes": 9}
    weak_studies.classifiers(["sce"], [1], chosen, clustering="kmeans")
    assert [fixed.get("clustering") for _, _, fixed in asked[1:]] == [None, "kmeans"]


def test_maps_are_walked_and_networks_trained_on_them(chosen, asked):
    first = weak_studies.classifiers(["cam"], [1, 2], chosen)
    walked = weak_studies.refined(first, chosen, device="cpu")
    weak_studies.segmented(walked, first[:1], [7], chosen)
    (_, _, _), (refine, grid, fixed), (segment, maps, others) = asked
    assert (refine, segment) == (weak_runs.refine, weak_uses.segment)
    assert grid == [{"stage_one": "cam-1-1", "seed": 1}, {"stage_one": "cam-2-1", "seed": 2}]
    assert fixed == chosen["refinement"] | {"device": "cpu"}
    assert others == chosen["segmentation"]
    assert [row["source"] for row in maps] == ["walk", "walk", "cam", "reference"]
    assert maps[1] == {"source": "walk", "seed": 2, "stage_one": "cam-2-1", "refined": "refine-2-2"}
    weak_studies.segmented(walked, None, [], chosen)
    assert [row["source"] for row in asked[-1][1]] == ["walk", "walk"]


def test_unknown_methods_and_recipes_are_refused(chosen, asked):
    with pytest.raises(ValueError, match="methods='vit': expected one of cam, mixup"):
        weak_studies.classifiers(["vit"], [1], chosen)
    with pytest.raises(ValueError, match="recipe='reported': expected one of recommended, report"):
        weak_studies.classifiers(["cam"], [1], chosen, "reported")
    assert asked == []
