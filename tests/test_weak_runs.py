"""Runs of Part V on small made-up scenes: what they return, that they can be done again, and what they refuse."""

import json
from dataclasses import replace

import pytest
import torch

from rsbook import checkpoints, metrics, scenes, weak_maps, weak_runs, weak_uses

FITTING = {"batch_size": 4, "learning_rate": 1e-3, "weight_decay": 0.0}
ONCE = {"network": "narrow_resnet", "train_scenes": 8}
TRAINING = ONCE | {"fitting": FITTING | {"epochs": 2}}
WATCHED = ONCE | {"fitting": FITTING | {"epochs": 2, "evaluate_every": 1}}
SMALL = {"radius": 3, "steps": 8, "scales": (1, 0.5)}


@pytest.fixture
def data(tiny_scenes, monkeypatch):
    """The tiny scenes, larger and square, under the name of the embedded ones."""
    images = tiny_scenes.images[:, :, :, :12].repeat_interleave(2, 2).repeat_interleave(2, 3)
    maps = tiny_scenes.positions[:, :, :12].repeat_interleave(2, 1).repeat_interleave(2, 2)
    made = replace(tiny_scenes, images=images, positions=maps)
    monkeypatch.setattr(scenes, "load", lambda name, root=None: made)
    return made


@pytest.fixture
def at(tmp_path):
    def place(function, name="x"):
        module = "weak_uses" if function in ("segment", "propagate") else "weak_runs"
        return tmp_path / f"{module}.{function}" / f"{name}.safetensors"

    return place


def classify(method="cam", checkpoint=None, **changes):
    given = ONCE | {"epochs": 2, "fitting": FITTING | {"evaluate_every": 1}, "scales": (1, 0.5)} | changes
    return weak_runs.classify(dataset="tiny", method=method, seed=1, device="cpu", checkpoint=checkpoint, **given)


@pytest.mark.parametrize("method", [*weak_runs.METHODS, weak_runs.TEACHER])
def test_a_classifier_is_trained_and_its_maps_are_scored(data, at, method):
    extra = {}
    if method in ("sce", "sct"):
        first = classify("cam" if method == "sce" else "vit", at("classify", "first"))["weights"]
        extra["stage_one"] = first
    found = classify(method, at("classify"), **extra)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(classify(method, at("classify"), **extra)))
    assert checkpoints.weights_path(at("classify").parent, found["weights"]).is_file()
    if method == "vit":
        assert "miou" not in found
        return
    assert 0 <= found["miou"] <= 1
    assert len(found["iou"]) == 3
    assert (found["subclasses"] > 0) == (method in ("sce", "sct"))


def test_with_a_background_it_is_no_class_of_the_classifier(data, at):
    """The last class stands for the background: 20 of VOC's 21 have image-level labels."""
    first = classify("cam", at("classify"), background=0.3)
    assert len(first["average_precision"]) == 2
    assert len(first["iou"]) == 3
    second = classify("sce", at("classify"), background=0.3, stage_one=first["weights"])
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "background": 0.3} | TRAINING | SMALL
    refined = weak_runs.refine(stage_one=second["weights"], checkpoint=at("refine"), **given)
    kept = {"stage_one": second["weights"], "refined": refined["weights"]}
    given |= {"classifier": "narrow_resnet", "rates": (1, 2)}
    found = weak_uses.segment(source="walk", checkpoint=at("segment"), **kept, **given)
    assert len(found["iou"]) == 3


def test_from_labels_to_maps(data, at):
    first = classify(checkpoint=at("classify"))["weights"]
    refined = weak_runs.refine(
        dataset="tiny", stage_one=first, seed=1, device="cpu", checkpoint=at("refine"), **TRAINING, **SMALL
    )
    assert json.loads(json.dumps(refined))["miou"] == refined["miou"]
    assert 0 <= refined["confident"] <= 1
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "classifier": "narrow_resnet", "rates": (1, 2)}
    given |= TRAINING | SMALL
    for source, weights in (
        ("cam", {"stage_one": first}),
        ("walk", {"stage_one": first, "refined": refined["weights"]}),
        ("reference", {}),
    ):
        found = weak_uses.segment(source=source, checkpoint=at("segment"), **weights, **given)
        assert 0 <= found["miou"] <= 1
        assert found == weak_uses.segment(source=source, checkpoint=at("segment"), **weights, **given)
    with pytest.raises(ValueError, match="expected stage_one for 'cam', also refined for 'walk'"):
        weak_uses.segment(source="walk", stage_one=first, checkpoint=at("segment"), **given)
    with pytest.raises(ValueError, match="is missing: run what wrote these weights again"):
        weak_uses.segment(source="cam", stage_one="0" * 32, checkpoint=at("segment"), **given)


def test_labels_are_propagated_by_masks(data, at):
    first = classify(checkpoint=at("classify"))["weights"]
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "area_range": (0.3, 0.7)} | WATCHED
    place = at("propagate")
    masks = weak_uses.propagate(maps="masks", stage_one=first, checkpoint=place, **given)
    assert 0 <= masks["mask_iou"] <= 1
    for maps in ("none", "reference"):
        assert "mask_iou" not in weak_uses.propagate(maps=maps, checkpoint=place, **given)
    with pytest.raises(ValueError, match="expected 'masks' with weights, or 'none' or 'reference' without"):
        weak_uses.propagate(maps="masks", checkpoint=place, **given)


def test_what_is_refused(data, at):
    with pytest.raises(ValueError, match="method='gradcam': expected one of cam, mixup"):
        classify("gradcam")
    with pytest.raises(ValueError, match="weights of an earlier run for sce and sct, and for no other"):
        classify("sce", at("classify"))
    with pytest.raises(ValueError, match="and for no other"):
        classify("cam", at("classify"), stage_one="0" * 32)
    with pytest.raises(ValueError, match="train_scenes=9: tiny has 1 to 8"):
        classify(train_scenes=9)


def test_features_come_from_the_network_of_the_same_seed():
    rows = weak_runs.study(["sce"], [1, 2], {"sce": 5})
    runs = [{"seed": 2, "weights": "b"}, {"seed": 1, "weights": "a"}]
    assert weak_runs.with_features(rows, runs) == [
        {"method": "sce", "seed": 1, "epochs": 5, "stage_one": "a"},
        {"method": "sce", "seed": 2, "epochs": 5, "stage_one": "b"},
    ]
    with pytest.raises(ValueError, match=r"no network with seed \[1\]"):
        weak_runs.with_features(rows, runs[:1])


def test_what_runs_found_can_be_looked_at(data, at):
    """The maps of a run, from its record's row and its weights, give the scores that it has told."""
    index = data.split("train")
    run = classify(checkpoint=at("classify")) | {"record": at("classify").with_suffix(".json"), "background": None}
    run |= {"network": "narrow_resnet", "output_stride": None, "scales": [1, 0.5]}
    found = weak_runs.maps_of(run, data, index)
    confusion = weak_maps.confusion_of([found], data, index)
    assert metrics.accuracies(confusion)["miou"] == run["miou"]
    given = {"dataset": "tiny", "seed": 1, "device": "cpu"} | SMALL
    refined = weak_runs.refine(stage_one=run["weights"], checkpoint=at("refine"), **given, **TRAINING)
    row = refined | TRAINING | SMALL | {"stage_one": run["weights"], "record": at("refine").with_suffix(".json")}
    row |= {"background": None, "output_stride": None, "beta": 8.0}
    known, walked = weak_runs.refined_maps_of(row, data, index)
    assert metrics.accuracies(weak_maps.confusion_of([walked], data, index))["miou"] == refined["miou"]
    assert weak_maps.confidence(known, data, index)["confident"] == refined["confident"]
    more = {"classifier": "narrow_resnet", "rates": (1, 2)}
    trained = weak_uses.segment(source="reference", checkpoint=at("segment"), **given, **TRAINING, **more)
    row = trained | {"network": "narrow_resnet", "rates": [1, 2], "looks": [1.0]}
    found = weak_uses.segmented_by(row | {"record": at("segment").with_suffix(".json")}, data, data.split("test"))
    confusion = weak_maps.confusion_of([found], data, data.split("test"))
    assert metrics.accuracies(confusion)["miou"] == trained["miou"]


def test_grids_go_on_from_what_is_there():
    classified = [{"seed": 1, "weights": "a"}, {"seed": 2, "weights": "b"}]
    refined = [row | {"weights": row["stage_one"] + "+"} for row in weak_runs.refinements(classified)]
    assert weak_uses.segmentations(refined, "walk") == [
        {"source": "walk", "seed": 1, "stage_one": "a", "refined": "a+"},
        {"source": "walk", "seed": 2, "stage_one": "b", "refined": "b+"},
    ]
    assert weak_uses.segmentations(classified[:1], "cam") == [{"source": "cam", "seed": 1, "stage_one": "a"}]
    assert weak_uses.segmentations([], "reference", [3]) == [{"source": "reference", "seed": 3}]
    assert weak_uses.propagations(classified[1:], [2]) == [
        {"maps": "none", "seed": 2},
        {"maps": "reference", "seed": 2},
        {"maps": "masks", "seed": 2, "stage_one": "b"},
    ]


def test_more_splits_are_more_scenes_but_none_that_decides(data, monkeypatch):
    more = replace(data, splits=data.splits | {"extra": torch.tensor([9, 8])})
    monkeypatch.setattr(scenes, "load", lambda name, root=None: more)
    _, index = weak_runs.opened("tiny", None, ("train", "extra"), None)
    assert index.tolist() == [*data.split("train").tolist(), 9, 8]
    assert len(weak_runs.opened("tiny", None, ("extra",), 1)[1]) == 1
    for wrong in (("train", "val"), ("test",), ()):
        with pytest.raises(ValueError, match="val chooses an epoch, test is for scores"):
            weak_runs.opened("tiny", None, wrong, None)
