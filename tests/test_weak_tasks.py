"""Tasks and networks of Part V, against what they are made of."""

from dataclasses import replace

import pytest
import torch
from torch import Generator, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rsbook import (
    affinity,
    batch_mixing,
    deeplab,
    explain,
    models,
    weak_maps,
    weak_segmentation,
    weak_tasks,
)
from rsbook.weak_tasks import CamNetwork, Weak


@pytest.fixture
def data(tiny_scenes):
    """The tiny scenes, larger and square."""
    images = tiny_scenes.images[:, :, :, :12].repeat_interleave(2, 2).repeat_interleave(2, 3)
    maps = tiny_scenes.positions[:, :, :12].repeat_interleave(2, 1).repeat_interleave(2, 2)
    return replace(tiny_scenes, images=images, positions=maps)


def cam_network(subclasses=0, seed=0):
    generator = Generator().manual_seed(seed)
    return CamNetwork(models.classifier("narrow_resnet", 3, 3, generator), subclasses, generator)


def weak(data, method="cam", **more):
    task = Weak(data, data.split("train"), data.split("val"), method=method, **more)
    task.to(torch.device("cpu"))
    return task


def test_a_cam_network_is_its_classifier_with_maps(data):
    model = cam_network(5).eval()
    images = data.normalise(data.images[:4])
    logits, maps, sub = model(images)
    assert torch.allclose(logits, model.network(images), atol=1e-5)
    mean = maps.mean(dim=(2, 3)) + model.network.get_classifier().bias
    assert torch.allclose(mean, logits, atol=1e-5)
    expected = explain.activation_maps(model.network, images) * maps[0, 0].numel()
    assert torch.allclose(maps.relu(), expected, atol=1e-4)
    assert sub.shape == (4, 5)
    assert cam_network()(images)[2] is None


@pytest.mark.parametrize("method", weak_tasks.METHODS)
def test_losses_are_what_they_say(data, method):
    sublabels = torch.rand(8, 5, generator=Generator().manual_seed(2)) < 0.5
    sub = method in weak_tasks.SUBCATEGORIES
    task = weak(data, method, sublabels=sublabels if sub else None, sub_weight=0.7, entropy=0.3, concentration=0.2)
    model = cam_network(5 if sub else 0).eval()
    batch = task.batch(torch.tensor([3, 0, 6, 1]), Generator().manual_seed(5))
    images, first = batch.images, batch.labels
    assert torch.equal(first > 0, data.labels[[3, 0, 6, 1]])
    second = first[batch.partner]
    if method == "mixup":
        images = batch.share * images + (1 - batch.share) * images[batch.partner]
    elif method == "fmix":
        assert batch.share == pytest.approx(batch.mask.float().mean().item())
        images = images.clone()
        images[:, :, ~batch.mask] = batch.images[batch.partner][:, :, ~batch.mask]
    if method in weak_tasks.MIXING:
        assert sorted(batch.partner.tolist()) == [0, 1, 2, 3]
    else:
        assert batch.partner.tolist() == [0, 1, 2, 3]
        assert batch.share == 1
    if method == "manifold":
        # the same choice again: input or one of the stages
        place = int(torch.randint(4, (), generator=Generator().manual_seed(9)))
        batch = replace(batch, generator=Generator().manual_seed(9))
        stages, mixed = weak_maps.stages_of(model.network), []

        def mix(_module, _inputs, output):
            mixed.append(output)
            return batch_mixing.mixup(output, batch.share, batch.partner)

        if place == 3:
            logits, maps, _ = model(batch_mixing.mixup(images, batch.share, batch.partner))
        else:
            hook = stages[place].register_forward_hook(mix)
            logits, maps, _ = model(images)
            hook.remove()
    else:
        logits, maps, found_sub = model(images)
    share = batch.share
    expected = share * binary_cross_entropy_with_logits(logits, first)
    expected = expected + (1 - share) * binary_cross_entropy_with_logits(logits, second)
    if sub:
        expected = expected + 0.7 * binary_cross_entropy_with_logits(found_sub, sublabels[[3, 0, 6, 1]].float())
    p = logits.sigmoid()
    expected = expected - 0.3 * (p * p.log() + (1 - p) * (1 - p).log()).mean()
    spread = share * weak_segmentation.concentration_loss(maps, first > 0)
    spread = spread + (1 - share) * weak_segmentation.concentration_loss(maps, second > 0)
    assert torch.allclose(task.loss(model, batch, 0), expected + 0.2 * spread, atol=1e-5)


def test_as_coded_has_no_entropy_and_the_other_concentration(data):
    task = weak(data, "mixup", entropy=0.5, concentration=0.2, as_coded=True)
    plain = weak(data, "mixup")
    model = cam_network().eval()
    batch = task.batch(torch.arange(4), Generator().manual_seed(1))
    _, maps, _ = model(batch_mixing.mixup(batch.images, batch.share, batch.partner))
    coded = weak_segmentation.concentration_loss_as_coded
    spread = batch.share * coded(maps, batch.labels > 0)
    spread = spread + (1 - batch.share) * coded(maps, batch.labels[batch.partner] > 0)
    assert torch.allclose(task.loss(model, batch, 0), plain.loss(model, batch, 0) + 0.2 * spread, atol=1e-5)


def test_affinities_are_learnt_from_confident_pixels(data):
    network = cam_network().network
    labels = torch.randint(-1, 3, (8, 6, 6), generator=Generator().manual_seed(0))
    task = weak_tasks.Affinity(data, data.split("train"), network, labels, 3, radius=3)
    task.to(torch.device("cpu"))
    maps, batch_labels = task.batch(torch.tensor([5, 2]), Generator())
    assert torch.equal(batch_labels, labels[[5, 2]])
    assert [one.shape[1] for one in maps] == [16, 32, 64]
    net = weak_maps.affinity_net(network, data, Generator().manual_seed(0))
    expected = affinity.affinity_loss(net(maps, (6, 6)), labels[[5, 2]], 3, affinity.neighbours(3))
    loss = task.loss(net, (maps, batch_labels), 0)
    assert torch.equal(loss, expected)
    loss.backward()
    assert all(p.grad is None for p in network.parameters())
    assert all((p.grad != 0).any() for p in net.parameters())


def test_a_small_transformer_gives_logits_and_features(data):
    network = weak_tasks.vision_transformer(3, 4, 24, Generator().manual_seed(0))
    assert network(torch.zeros(2, 3, 24, 24)).shape == (2, 4)
    features = weak_maps.pooled_features(network, data, torch.arange(5), batch_size=2)
    assert features.shape == (5, 64)
    head = nn.Linear(64, 4)
    head.load_state_dict(network.network.head.state_dict())
    images = data.normalise(data.images[:5])
    assert torch.allclose(head(features), network.eval()(images), atol=1e-4)
    for side, expected in ((30, 24), (5, 8), (500, 224)):
        assert weak_tasks.vision_transformer(3, 4, side, Generator()).side == expected
    half = network(torch.zeros(2, 3, 12, 12))  # resized
    assert torch.allclose(half, network(torch.zeros(2, 3, 24, 24)), atol=1e-5)


def test_the_pretrained_transformer_is_asked_of_timm(monkeypatch):
    asked = []
    monkeypatch.setattr(weak_tasks.timm, "create_model", lambda name, **given: asked.append((name, given)))
    made = weak_tasks.vision_transformer(3, 20, 500, Generator(), large=True, pretrained=True)
    assert asked == [("vit_base_patch16_224", {"pretrained": True, "in_chans": 3, "num_classes": 20})]
    assert made.side == 224


@pytest.mark.parametrize("looks", [(1.0,), (1.0, 0.5)])
def test_deeplab_learns_from_every_scale_and_from_known_pixels_alone(data, looks):
    maps = torch.randint(-1, 3, (8, 24, 24), generator=Generator().manual_seed(0))
    task = weak_tasks.DeepLabMaps(data, data.split("train"), maps)
    task.to(torch.device("cpu"))
    model = deeplab.deeplab_v2("narrow_resnet", 3, 3, Generator().manual_seed(1), (1, 2), looks).eval()
    images, labels = task.batch(torch.tensor([4, 1]), Generator().manual_seed(2))
    expected = 0.0
    for logits in model(images, every=True):
        chances = logits.softmax(dim=1)
        known = [(b, y, x) for b, y, x in torch.cartesian_prod(*map(torch.arange, labels.shape)).tolist()
                 if labels[b, y, x] >= 0]  # fmt: skip
        expected -= sum(chances[b, labels[b, y, x], y, x].log() for b, y, x in known) / len(known)
    assert torch.allclose(task.loss(model, (images, labels), 0), expected, atol=1e-4)
    nothing = task.loss(model, (images, torch.full_like(labels, -1)), 0)
    assert nothing == 0
    assert task.evaluate(model) == {}


def test_photographs_stay_upright_and_are_cropped(data):
    images = torch.arange(24.0)[None, None, :, None].expand(6, 3, 24, 24).clone()  # brighter to the bottom
    found, labels = weak_tasks.augmentation(9)(images, torch.ones(6, 3), None, Generator().manual_seed(0))
    assert found.shape == (6, 3, 9, 9)
    inside = found[:, :, 1:-1]
    assert (inside.diff(dim=2) > -1e-4).all()
    assert labels.dtype == torch.float32
    plain, _ = weak_tasks.augmentation(None)(
        images.repeat(9, 1, 1, 1), torch.ones(54, 3), None, Generator().manual_seed(0)
    )
    assert plain.shape == (54, 3, 24, 24)
    assert (plain.diff(dim=2) < 0).any()


@pytest.mark.parametrize("fixed", [True, False])
def test_statistics_stay_as_they_are_where_they_are_fixed(data, fixed):
    images = data.normalise(data.images[:4])
    classifier = models.classifier("narrow_resnet", 3, 3, Generator().manual_seed(0))
    backbone = models.encoder("narrow_resnet", 3, Generator().manual_seed(0))
    for made in (
        CamNetwork(classifier, 0, Generator(), fixed_statistics=fixed),
        deeplab.DeepLabV2(backbone, 3, (1, 2), (1.0, 0.5), fixed_statistics=fixed),
    ):
        before = {name: value.clone() for name, value in made.named_buffers()}
        made.train()(images)
        assert all(torch.equal(before[name], value) for name, value in made.named_buffers()) == fixed


def test_manifold_mixup_never_mixes_the_logits(data):
    """After the last stage nothing is left but a mean and a linear layer."""
    task, model = weak(data, "manifold"), cam_network()
    stages = weak_maps.stages_of(model.network)
    mixed = set()
    original = batch_mixing.manifold_mixup

    def spy(modules, *arguments):
        mixed.update(id(module) for module in modules)
        return original(modules, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_mixing, "manifold_mixup", spy)
        task.loss(model, task.batch(torch.arange(4), Generator().manual_seed(0)), 0)
    assert mixed == {id(stage) for stage in stages[:-1]}
