"""Maps from a classifier, part by part, against the same scene by scene."""

from dataclasses import replace

import pytest
import torch
from torch import Generator
from torch.nn.functional import interpolate

from rsbook import affinity, metrics, models, segmentation, weak_maps, weak_segmentation

SCALES = (1, 0.5)
NOTHING = {"labels": torch.zeros(1, 3, dtype=torch.bool), "positions": None, "splits": {}}


@pytest.fixture
def data(tiny_scenes):
    """The tiny scenes, larger and square; class three as a background that no classifier knows of."""
    images = tiny_scenes.images[:, :, :, :12].repeat_interleave(2, 2).repeat_interleave(2, 3)
    maps = tiny_scenes.positions[:, :, :12].repeat_interleave(2, 1).repeat_interleave(2, 2)
    return replace(tiny_scenes, images=images, positions=maps)


def classifier(classes=3):
    return models.classifier("narrow_resnet", 3, classes, Generator().manual_seed(0)).eval()


def raw_maps(network, data, i, size):
    images = data.normalise(data.images[i : i + 1])
    return weak_segmentation.multi_scale_maps(network, images, size, SCALES)


@pytest.mark.parametrize("background", [None, 0.4])
def test_maps_and_their_confusion_scene_by_scene(data, background, monkeypatch):
    monkeypatch.setattr(weak_maps, "TOGETHER", 3)
    count = 3 if background is None else 2
    network, index = classifier(count), torch.tensor([7, 2, 9, 4])
    expected = []
    for i in index.tolist():
        present = data.labels[i : i + 1, :count]
        maps = weak_segmentation.normalised(raw_maps(network, data, i, (24, 24)), present)
        expected.append(weak_segmentation.segment(maps, present, background))
    expected = torch.cat(expected)
    assert torch.equal(torch.cat(list(weak_maps.cam_maps(network, data, index, SCALES, background))), expected)
    truth = segmentation.maps_of(data, index)
    found = weak_maps.map_confusion(network, data, index, SCALES, background)
    assert torch.equal(found, metrics.confusion_matrix(expected, truth, 3))
    assert found.sum() == truth.numel()


def test_confident_is_what_is_twice_as_high_as_the_next(data):
    network, index = classifier(), torch.tensor([7, 2, 9])
    found = weak_maps.confident(network, data, index, (6, 6), SCALES, None)
    for k, i in enumerate(index.tolist()):
        present = data.labels[i : i + 1]
        maps = weak_segmentation.normalised(raw_maps(network, data, i, (6, 6)), present)[0]
        for y in range(6):
            for x in range(6):
                order = sorted(range(3), key=lambda c, y=y, x=x, maps=maps: -maps[c, y, x].item())
                sure = maps[order[0], y, x] > 2 * maps[order[1], y, x]
                assert found[k, y, x] == (order[0] if sure else affinity.IGNORED)


def test_confident_with_a_background_is_the_papers(data):
    network, index = classifier(2), torch.tensor([7, 2])
    found = weak_maps.confident(network, data, index, (6, 6), SCALES, 0.4)
    for k, i in enumerate(index.tolist()):
        present = data.labels[i : i + 1, :2]
        maps = weak_segmentation.normalised(raw_maps(network, data, i, (6, 6)), present)
        assert torch.equal(found[k : k + 1], affinity.confident_labels(maps, present))


@pytest.mark.parametrize("background", [None, 0.4])
def test_walked_maps_scene_by_scene(data, background, monkeypatch):
    monkeypatch.setattr(weak_maps, "TOGETHER", 2)
    count = 3 if background is None else 2
    network, index = classifier(count), torch.tensor([7, 2, 9])
    net = weak_maps.affinity_net(network, data, Generator().manual_seed(1)).eval()
    found = torch.cat(list(weak_maps.walked_maps(network, net, data, index, 3, 16, 8.0, SCALES, background)))
    size = weak_maps.affinity_size(network, data)
    assert size == (6, 6)
    for k, i in enumerate(index.tolist()):
        present = data.labels[i : i + 1, :count]
        maps = weak_segmentation.normalised(raw_maps(network, data, i, size), present)
        stages = weak_maps.stage_maps(network, data.normalise(data.images[i : i + 1]))
        scores = affinity.random_walk(maps, present, net(stages, size), offsets=affinity.neighbours(3), steps=16)
        whole = interpolate(scores, size=(24, 24), mode="bilinear", align_corners=False)[0]
        allowed = [c for c in range(count) if present[0, c]] + ([count] if background is not None else [])
        best = torch.tensor(allowed)[whole[allowed].argmax(dim=0)]
        assert (found[k] == best).float().mean() > 0.99  # rounding where two are equal


def test_how_many_confident_pixels_are_right(data):
    index = torch.arange(3)
    truth = segmentation.maps_of(data, index)[:, ::4, ::4]
    labels = truth.clone()
    labels[:, 0] = affinity.IGNORED
    labels[0, 1:3] = (labels[0, 1:3] + 1) % 3
    found = weak_maps.confidence(labels, data, index)
    assert found["confident"] == pytest.approx(5 / 6)
    assert found["confident_right"] == pytest.approx(1 - 12 / 90)
    nothing = weak_maps.confidence(torch.full_like(labels, affinity.IGNORED), data, index)
    assert nothing == {"confident": 0.0, "confident_right": None}


def test_stages_are_those_that_do_something():
    assert len(weak_maps.stages_of(classifier())) == 3
    resnet = models.classifier("resnet18", 3, 3, Generator())
    assert weak_maps.stages_of(resnet) == [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
    found = weak_maps.stage_maps(resnet.eval(), torch.zeros(1, 3, 64, 64))
    assert [tuple(one.shape[1:]) for one in found] == [(128, 8, 8), (256, 4, 4), (512, 2, 2)]
    assert not any(module._forward_hooks for module in resnet.modules())


# Padding


def padded(data):
    """The scenes as if what is right of column 18 and below row 15 were padding."""
    sizes = torch.tensor([[15, 18]]).repeat(len(data.images), 1)
    positions = data.positions.clone()
    positions[:, 15:], positions[:, :, 18:] = 0, 0
    return replace(data, sizes=sizes, positions=positions)


def test_padding_is_what_the_sizes_leave(data):
    made = padded(data)
    found = weak_maps.padding(made, torch.tensor([3, 1]))
    assert not found[:, :15, :18].any()
    assert found[:, 15:].all()
    assert found[:, :, 18:].all()
    small = weak_maps.padding(made, torch.tensor([0]), (8, 8))  # middles at 1.5, 4.5, …
    assert (~small[0]).nonzero().amax(dim=0).tolist() == [4, 5]
    assert not weak_maps.padding(data, torch.arange(3)).any()


@pytest.mark.parametrize("background", [None, 0.4])
def test_nothing_is_found_or_learnt_from_in_padding(data, background):
    made, count = padded(data), 3 if background is None else 2
    network, index = classifier(count), torch.tensor([5, 2])
    net = weak_maps.affinity_net(network, made, Generator().manual_seed(0))
    outside = weak_maps.padding(made, index)
    [maps] = weak_maps.cam_maps(network, made, index, SCALES, background)
    [walked] = weak_maps.walked_maps(network, net, made, index, 2, 4, 8.0, SCALES, background)
    for found in (maps, walked):
        assert torch.equal(found < 0, outside)
    known = weak_maps.confident(network, made, index, (6, 6), SCALES, background)
    assert (known[weak_maps.padding(made, index, (6, 6))] == affinity.IGNORED).all()
    assert (known != affinity.IGNORED).any()
    truth = segmentation.maps_of(made, index)
    perfect = weak_maps.confidence(truth.where(truth >= 0, 0), made, index)
    assert perfect == {"confident": 1.0, "confident_right": 1.0}


def test_the_highest_activation_of_a_map_is_inside(data):
    made = padded(data)
    network, index = classifier(), torch.tensor([1])
    [(_, raw)] = list(weak_maps.activations(network, made, index, (24, 24), SCALES))
    assert (raw[:, :, weak_maps.padding(made, index)[0]] == 0).all()
    expected = raw_maps(network, made, 1, (24, 24))[:, :, :15, :18]
    assert torch.allclose(raw[:, :, :15, :18], expected, atol=1e-5)


def test_affinity_features_are_no_wider_than_the_papers(data):
    network = models.classifier("resnet18", 3, 3, Generator().manual_seed(0)).eval()
    net = weak_maps.affinity_net(network, data, Generator().manual_seed(0))
    assert [layer.out_channels for layer in net.modules() if isinstance(layer, torch.nn.Conv2d)] == [64, 128, 256, 448]


def test_fewer_scenes_at_a_time_where_they_are_larger(data):
    assert weak_maps.together(data) == 64
    assert weak_maps.together(replace(data, images=torch.zeros(1, 3, 500, 500, dtype=torch.uint8), **NOTHING)) == 8
    assert weak_maps.together(replace(data, images=torch.zeros(1, 3, 2, 2**21, dtype=torch.uint8), **NOTHING)) == 1
