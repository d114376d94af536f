"""Runs of Part V on small made-up scenes: what they return, that they can be done again, and what they refuse."""

import json
from dataclasses import replace

import pytest
import torch
from made_up_weak import SMALL, TRAINING, classify

from rsbook import checkpoints, scenes, weak_runs, weak_uses


@pytest.mark.parametrize("method", [*weak_runs.METHODS, weak_runs.TEACHER])
def test_a_classifier_is_trained_and_its_maps_are_scored(square_scenes, weak_place, method):
    extra = {}
    if method in ("sce", "sct"):
        first = classify("cam" if method == "sce" else "vit", weak_place("classify", "first"))["weights"]
        extra["stage_one"] = first
    found = classify(method, weak_place("classify"), **extra)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(classify(method, weak_place("classify"), **extra)))
    assert checkpoints.weights_path(weak_place("classify").parent, found["weights"]).is_file()
    if method == "vit":
        assert "miou" not in found
        return
    assert 0 <= found["miou"] <= 1
    assert len(found["iou"]) == 3
    assert (found["subclasses"] > 0) == (method in ("sce", "sct"))


def test_with_a_background_it_is_no_class_of_the_classifier(square_scenes, weak_place):
    """The last class stands for the background: 20 of VOC's 21 have image-level labels."""
    first = classify("cam", weak_place("classify"), background=0.3)
    assert len(first["average_precision"]) == 2
    assert len(first["iou"]) == 3
    second = classify("sce", weak_place("classify"), background=0.3, stage_one=first["weights"])
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "background": 0.3} | TRAINING | SMALL
    refined = weak_runs.refine(stage_one=second["weights"], checkpoint=weak_place("refine"), **given)
    kept = {"stage_one": second["weights"], "refined": refined["weights"]}
    given |= {"classifier": "narrow_resnet", "rates": (1, 2)}
    found = weak_uses.segment(source="walk", checkpoint=weak_place("segment"), **kept, **given)
    assert len(found["iou"]) == 3


def test_what_is_refused(square_scenes, weak_place):
    with pytest.raises(ValueError, match="method='gradcam': expected one of cam, mixup"):
        classify("gradcam")
    with pytest.raises(ValueError, match="weights of an earlier run for sce and sct, and for no other"):
        classify("sce", weak_place("classify"))
    with pytest.raises(ValueError, match="and for no other"):
        classify("cam", weak_place("classify"), stage_one="0" * 32)
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


def test_more_splits_are_more_scenes_but_none_that_decides(square_scenes, monkeypatch):
    more = replace(square_scenes, splits=square_scenes.splits | {"extra": torch.tensor([9, 8])})
    monkeypatch.setattr(scenes, "load", lambda name, root=None: more)
    _, index = weak_runs.opened("tiny", None, ("train", "extra"), None)
    assert index.tolist() == [*square_scenes.split("train").tolist(), 9, 8]
    assert len(weak_runs.opened("tiny", None, ("extra",), 1)[1]) == 1
    for wrong in (("train", "val"), ("test",), ()):
        with pytest.raises(ValueError, match="val chooses an epoch, test is for scores"):
            weak_runs.opened("tiny", None, wrong, None)
