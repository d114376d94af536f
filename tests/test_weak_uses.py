"""What maps are used for, on small made-up scenes: segmentation networks and label propagation."""

import pytest
from made_up_weak import SMALL, TRAINING, WATCHED, classify

from rsbook import weak_runs, weak_uses


def test_from_labels_to_maps(square_scenes, weak_place):
    first = classify(checkpoint=weak_place("classify"))["weights"]
    refined = weak_runs.refine(
        dataset="tiny", stage_one=first, seed=1, device="cpu", checkpoint=weak_place("refine"), **TRAINING, **SMALL
    )
    assert 0 <= refined["miou"] <= 1
    assert 0 <= refined["confident"] <= 1
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "classifier": "narrow_resnet", "rates": (1, 2)}
    given |= TRAINING | SMALL
    for source, weights in (
        ("cam", {"stage_one": first}),
        ("walk", {"stage_one": first, "refined": refined["weights"]}),
        ("reference", {}),
    ):
        found = weak_uses.segment(source=source, checkpoint=weak_place("segment"), **weights, **given)
        assert 0 <= found["miou"] <= 1
        assert found == weak_uses.segment(source=source, checkpoint=weak_place("segment"), **weights, **given)
    with pytest.raises(ValueError, match="expected stage_one for 'cam', also refined for 'walk'"):
        weak_uses.segment(source="walk", stage_one=first, checkpoint=weak_place("segment"), **given)
    with pytest.raises(ValueError, match="is missing: run what wrote these weights again"):
        weak_uses.segment(source="cam", stage_one="0" * 32, checkpoint=weak_place("segment"), **given)


def test_labels_are_propagated_by_masks(square_scenes, weak_place):
    first = classify(checkpoint=weak_place("classify"))["weights"]
    given = {"dataset": "tiny", "seed": 1, "device": "cpu", "area_range": (0.3, 0.7)} | WATCHED
    place = weak_place("propagate")
    masks = weak_uses.propagate(maps="masks", stage_one=first, checkpoint=place, **given)
    assert 0 <= masks["mask_iou"] <= 1
    for maps in ("none", "reference"):
        assert "mask_iou" not in weak_uses.propagate(maps=maps, checkpoint=place, **given)
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
