"""Runs of Part V on small made-up scenes: what they return, that they resume, and what they refuse."""

import json
from dataclasses import replace

import pytest

from rsbook import checkpoints, scenes, weak_runs

TRAINING = {
    "network": "narrow_resnet",
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "train_scenes": 8,
}
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
        return tmp_path / f"weak_runs.{function}" / f"{name}.safetensors"

    return place


def classify(method="cam", checkpoint=None, **changes):
    given = TRAINING | {"evaluate_every": 1, "scales": (1, 0.5)} | changes
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
    found = weak_runs.segment(source="walk", checkpoint=at("segment"), **kept, **given)
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
        found = weak_runs.segment(source=source, checkpoint=at("segment"), **weights, **given)
        assert 0 <= found["miou"] <= 1
        assert found == weak_runs.segment(source=source, checkpoint=at("segment"), **weights, **given)
    with pytest.raises(ValueError, match="expected stage_one for 'cam', also refined for 'walk'"):
        weak_runs.segment(source="walk", stage_one=first, checkpoint=at("segment"), **given)
    with pytest.raises(ValueError, match="is missing: run what wrote these weights again"):
        weak_runs.segment(source="cam", stage_one="0" * 32, checkpoint=at("segment"), **given)


def test_labels_are_propagated_by_masks(data, at):
    first = classify(checkpoint=at("classify"))["weights"]
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "area_range": (0.3, 0.7), "evaluate_every": 1} | TRAINING
    place = at("propagate")
    masks = weak_runs.propagate(maps="masks", stage_one=first, checkpoint=place, **given)
    assert 0 <= masks["mask_iou"] <= 1
    for maps in ("none", "reference"):
        assert "mask_iou" not in weak_runs.propagate(maps=maps, checkpoint=place, **given)
    with pytest.raises(ValueError, match="expected 'masks' with weights, or 'none' or 'reference' without"):
        weak_runs.propagate(maps="masks", checkpoint=place, **given)


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
    rows = weak_runs.study(["sce"], [1, 2])
    runs = [{"seed": 2, "weights": "b"}, {"seed": 1, "weights": "a"}]
    assert weak_runs.with_features(rows, runs) == [
        {"method": "sce", "seed": 1, "stage_one": "a"},
        {"method": "sce", "seed": 2, "stage_one": "b"},
    ]
    with pytest.raises(ValueError, match=r"no network with seed \[1\]"):
        weak_runs.with_features(rows, runs[:1])
