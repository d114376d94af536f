"""What runs found, looked at again: the same as what they told, and as what is computed step by step."""

from dataclasses import replace

import torch
from made_up_weak import SMALL, TRAINING, classify
from torch.nn.functional import interpolate

from rsbook import (
    metrics,
    models,
    scenes,
    segmentation,
    subcategories,
    weak_maps,
    weak_runs,
    weak_segmentation,
    weak_uses,
    weak_views,
)


def test_what_runs_found_can_be_looked_at(square_scenes, weak_place):
    """The maps of a run, from its record's row and its weights, give the scores that it has told."""
    index = square_scenes.split("train")
    run = classify(checkpoint=weak_place("classify")) | {
        "record": weak_place("classify").with_suffix(".json"),
        "background": None,
    }
    run |= {"network": "narrow_resnet", "output_stride": None, "scales": [1, 0.5]}
    found = weak_views.maps_of(run, square_scenes, index)
    confusion = weak_maps.confusion_of([found], square_scenes, index)
    assert metrics.accuracies(confusion)["miou"] == run["miou"]
    given = {"dataset": "tiny", "seed": 1, "device": "cpu"} | SMALL
    refined = weak_runs.refine(stage_one=run["weights"], checkpoint=weak_place("refine"), **given, **TRAINING)
    row = (
        refined | TRAINING | SMALL | {"stage_one": run["weights"], "record": weak_place("refine").with_suffix(".json")}
    )
    row |= {"background": None, "output_stride": None, "beta": 8.0}
    known, walked = weak_views.refined_maps_of(row, square_scenes, index)
    assert metrics.accuracies(weak_maps.confusion_of([walked], square_scenes, index))["miou"] == refined["miou"]
    assert weak_maps.confidence(known, square_scenes, index)["confident"] == refined["confident"]
    more = {"classifier": "narrow_resnet", "rates": (1, 2)}
    trained = weak_uses.segment(source="reference", checkpoint=weak_place("segment"), **given, **TRAINING, **more)
    row = trained | {"network": "narrow_resnet", "rates": [1, 2], "looks": [1.0]}
    found = weak_views.segmented_by(
        row | {"record": weak_place("segment").with_suffix(".json")}, square_scenes, square_scenes.split("test")
    )
    confusion = weak_maps.confusion_of([found], square_scenes, square_scenes.split("test"))
    assert metrics.accuracies(confusion)["miou"] == trained["miou"]


def trained(weak_place):
    """A row of the table of `classify`."""
    run = classify(checkpoint=weak_place("classify")) | {"record": weak_place("classify").with_suffix(".json")}
    return run | {"network": "narrow_resnet", "output_stride": None, "scales": [1, 0.5], "background": None, "seed": 1}


def test_activations_add_up_to_what_is_segmented(square_scenes, weak_place):
    run = trained(weak_place)
    found = weak_views.activations_of(run, square_scenes, 3, 1)
    assert list(found) == ["scale 1", "scale 0.5", "sum"]
    network = weak_views.classifier_of(run, square_scenes)
    images = square_scenes.normalise(square_scenes.images[3:4])
    expected = weak_segmentation.multi_scale_maps(network, images, (24, 24), (1, 0.5))[0, 1]
    assert torch.allclose(found["sum"], expected, atol=1e-5)
    [alone] = weak_segmentation.scale_maps(network, images, (0.5,))
    alone = interpolate(alone, size=(24, 24), mode="bilinear", align_corners=False)[0, 1]
    assert torch.allclose(found["scale 0.5"], alone, atol=1e-5)


def test_thresholds_are_swept_as_one_by_one(square_scenes, weak_place):
    run, index = trained(weak_place), torch.tensor([2, 0, 5])
    sweep = weak_views.threshold_sweep([run], square_scenes, index, (0.0, 0.4, 0.95))
    assert sweep["threshold"].tolist() == [0.0, 0.4, 0.95]
    assert set(sweep["seed"]) == {1}
    network = weak_views.classifier_of(run, square_scenes)
    images = square_scenes.normalise(square_scenes.images[index])
    maps = weak_segmentation.multi_scale_maps(network, images, (24, 24), (1, 0.5))
    present = square_scenes.labels[index]
    scores = weak_segmentation.normalised(maps, present)
    for row in sweep.itertuples():
        found = weak_segmentation.segment(scores, present, row.threshold)
        confusion = metrics.confusion_matrix(found, segmentation.maps_of(square_scenes, index), 4)
        assert row.miou == metrics.accuracies(confusion)["miou"]
    assert sweep["miou"].iloc[0] > sweep["miou"].iloc[-1]


def test_the_stages_of_a_network_and_where_they_are_mixed(square_scenes):
    network = models.classifier("narrow_resnet", 3, 3, torch.Generator().manual_seed(0))
    table = weak_views.stage_table(network, square_scenes)
    assert table["name"].tolist() == ["image", "stage 1", "stage 2", "stage 3"]
    assert table["channels"].tolist() == [3, 16, 32, 64]
    assert table["height"].tolist() == [24, 12, 6, 3]
    assert table["mixed"].tolist() == [True, True, True, False]
    assert not any(module._forward_hooks for module in network.modules())


def test_clusters_of_each_class_are_counted(square_scenes, weak_place):
    run, index = trained(weak_place), square_scenes.split("train")
    features = weak_views.features_of(run, square_scenes, index)
    table = weak_views.cluster_table(features, square_scenes.labels[index], square_scenes.classes)
    for row in table.to_dict("records"):
        members = square_scenes.labels[index, square_scenes.classes.index(row["class"])]
        partitions = subcategories.finch(features[members])
        assert row["scenes"] == members.sum()
        sizes = [int(size) for size in row["scenes of the coarsest"].split(", ")]
        assert sum(sizes) == row["scenes"]
        assert sizes == sorted(sizes, reverse=True)
        counts = [int(count) for count in row["clusters, fine to coarse"].split(" → ")]
        assert counts == ([int(p.max()) + 1 for p in partitions] or [1])
        assert len(sizes) == counts[-1]


def test_padded_scenes_with_a_background_can_be_looked_at(square_scenes, weak_place, monkeypatch):
    """As Pascal VOC's: the last class is the background, and what is no image has none."""
    sizes, positions = torch.tensor([[20, 24]]).repeat(16, 1), square_scenes.positions.clone()
    positions[:, 20:] = 0
    made = replace(square_scenes, sizes=sizes, positions=positions)
    monkeypatch.setattr(scenes, "load", lambda name, root=None: made)
    run = classify(checkpoint=weak_place("classify"), background=0.3)
    given = TRAINING | SMALL | {"background": 0.3}
    refined = weak_runs.refine(
        dataset="tiny", seed=1, device="cpu", stage_one=run["weights"], checkpoint=weak_place("refine"), **given
    )
    row = run | {"network": "narrow_resnet", "output_stride": None, "scales": [1, 0.5], "background": 0.3, "seed": 1}
    row |= {"record": weak_place("classify").with_suffix(".json")}
    index, outside = made.split("val"), weak_maps.padding(made, made.split("val"))
    maps = weak_views.maps_of(row, made, index)
    assert torch.equal(maps < 0, outside)
    walk = given | refined | {"stage_one": run["weights"], "output_stride": None, "beta": 8.0}
    known, walked = weak_views.refined_maps_of(
        walk | {"record": weak_place("refine").with_suffix(".json")}, made, index
    )
    assert torch.equal(walked < 0, outside)
    assert (known[weak_maps.padding(made, index, tuple(known.shape[1:]))] < 0).all()
    sweep = weak_views.threshold_sweep([row], made, index, (0.3,))
    confusion = weak_maps.confusion_of([maps], made, index)
    assert sweep["miou"].tolist() == [metrics.accuracies(confusion)["miou"]]
    labels = made.labels[index, :2]
    table = weak_views.cluster_table(weak_views.features_of(row, made, index), labels, made.classes)
    assert set(table["class"]) <= {"one", "two"}
