"""What maps are used for, on small made-up scenes: segmentation networks and label propagation."""

from dataclasses import replace

import pytest
import torch
from made_up_weak import SMALL, TRAINING, WATCHED, classify

from rsbook import explain, scenes, weak_runs, weak_uses


def test_from_labels_to_maps(square_scenes, weak_place):
    first = classify(checkpoint=weak_place("classify"))["weights"]
    refined = weak_runs.refine(
        dataset="tiny", stage_one=first, seed=1, device="cpu", checkpoint=weak_place("refine"), **TRAINING, **SMALL
    )
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "classifier": "narrow_resnet", "rates": (1, 2)}
    given |= TRAINING | SMALL
    learnt = []
    for source, weights in (
        ("cam", {"stage_one": first}),
        ("walk", {"stage_one": first, "refined": refined["weights"]}),
        ("reference", {}),
    ):
        found = weak_uses.segment(source=source, checkpoint=weak_place("segment"), **weights, **given)
        learnt.append(found["history"][-1]["loss"])
        assert found == weak_uses.segment(source=source, checkpoint=weak_place("segment"), **weights, **given)
    assert len(set(learnt)) == 3  # each from maps of its own
    with pytest.raises(ValueError, match="expected stage_one for 'cam', also refined for 'walk'"):
        weak_uses.segment(source="walk", stage_one=first, checkpoint=weak_place("segment"), **given)
    with pytest.raises(ValueError, match="is missing: run what wrote these weights again"):
        weak_uses.segment(source="cam", stage_one="0" * 32, checkpoint=weak_place("segment"), **given)


def test_labels_are_propagated_by_masks(square_scenes, weak_place):
    first = classify(checkpoint=weak_place("classify"))["weights"]
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "area_range": (0.3, 0.7)} | WATCHED
    place = weak_place("propagate")
    masks = weak_uses.propagate(maps="masks", stage_one=first, checkpoint=place, **given)
    index = square_scenes.split("train")
    network = weak_runs.kept_classifier(square_scenes, "narrow_resnet", first, None, None, place)
    where = explain.explain_positions(network, square_scenes, index, t_cam=0.1)
    labels, reference = square_scenes.labels[index], square_scenes.positions[index]
    assert masks["mask_iou"] == explain.agreement(where, reference, labels, 3).nanmean().item()
    losses = {masks["history"][-1]["loss"]}
    for maps in ("none", "reference"):
        found = weak_uses.propagate(maps=maps, checkpoint=place, **given)
        assert "mask_iou" not in found
        losses.add(found["history"][-1]["loss"])
    assert len(losses) == 3  # each with labels of its own
    with pytest.raises(ValueError, match="expected 'masks' with weights, or 'none' or 'reference' without"):
        weak_uses.propagate(maps="masks", checkpoint=place, **given)


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


def test_masks_of_padded_photographs_are_refused(square_scenes, weak_place, monkeypatch):
    padded = replace(square_scenes, sizes=torch.full((16, 2), 20))
    monkeypatch.setattr(scenes, "load", lambda name, root=None: padded)
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "area_range": (0.3, 0.7)} | WATCHED
    with pytest.raises(ValueError, match="dataset='tiny': expected scenes with reference maps that are not padded"):
        weak_uses.propagate(maps="none", checkpoint=weak_place("propagate"), **given)
