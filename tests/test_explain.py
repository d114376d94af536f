"""Class explanation masks against slow, obvious code, and a model that is left as it was."""

import copy
import math
from dataclasses import replace

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, nn

from rsbook import explain, models, positions

CLASSES = 3
LINEAR = ["narrow_resnet", "resnet18", "densenet121", "regnetx_002"]  # average pooling and one layer, variously nested
OTHER = ["mobilenetv3_small_050", "convnext_atto", "resnetv2_18d"]  # a hidden layer; a normalisation; a convolution


def network(name="narrow_resnet", classes=CLASSES):
    return models.classifier(name, 3, classes, Generator().manual_seed(0)).eval()


def random_images(n=2, height=64, width=48):
    return torch.randn(n, 3, height, width, generator=Generator().manual_seed(1))


def grad_cam(model, images):
    """Selvaraju et al., equations 1 and 2, an image and a class at a time; the whole network is differentiated."""
    classes = model(images).shape[1]
    found = []
    for image in images:
        maps = []
        for layer in range(classes):
            features = model.forward_features(image[None])
            gradient = torch.autograd.grad(model.forward_head(features.clone())[0, layer], features)[0]
            alpha = gradient.mean(dim=(2, 3), keepdim=True)
            maps.append((alpha * features).sum(dim=1).clamp(min=0)[0])
        found.append(torch.stack(maps))
    return torch.stack(found).detach()


def mask(values, t_cam):
    """One map (H,W), already of the right size, pixel by pixel; None where rounding may decide."""
    rows = values.tolist()
    low, high = min(map(min, rows)), max(map(max, rows))
    if low == high:
        return [[low > 0] * len(row) for row in rows]
    scaled = [[(value - low) / (high - low) for value in row] for row in rows]
    return [[None if abs(value - t_cam) < 1e-5 else value > t_cam for value in row] for row in scaled]


def upsample(values, height, width):
    """Bilinear, pixel centres aligned, edges extended: one output pixel at a time."""

    def source(i, n_out, n_in):
        at = min(max((i + 0.5) * n_in / n_out - 0.5, 0), n_in - 1)
        first = min(int(at), n_in - 1)
        return first, min(first + 1, n_in - 1), at - first

    out = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        top, bottom, down = source(y, height, values.shape[0])
        for x in range(width):
            left, right, across = source(x, width, values.shape[1])
            above = (1 - across) * values[top, left] + across * values[top, right]
            below = (1 - across) * values[bottom, left] + across * values[bottom, right]
            out[y, x] = (1 - down) * above + down * below
    return out


# activation maps


@pytest.mark.parametrize("name", LINEAR + OTHER)
def test_maps_equal_autograd_an_image_and_a_class_at_a_time(name):
    model, images = network(name), random_images()
    maps, expected = explain.activation_maps(model, images), grad_cam(model, images)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert maps.shape == expected.shape
    assert expected.max() > 0
    assert (maps - expected).abs().max() < 1e-5 * min(1, expected.max())


@pytest.mark.parametrize("name", LINEAR + OTHER)
def test_only_heads_that_are_not_linear_are_differentiated(name, monkeypatch):
    calls, differentiate = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or differentiate(*a, **k))
    model = network(name)
    trunk = model.forward_features
    passes = []
    monkeypatch.setattr(model, "forward_features", lambda images: passes.append(1) or trunk(images))
    explain.activation_maps(model, random_images())
    assert len(passes) == 1
    assert len(calls) == (0 if name in LINEAR else CLASSES)


class MaxHead(nn.Module):
    """A head with the layer that average pooling would need, but another pooling before or activation behind it."""

    def __init__(self, model, pool, bend=nn.Identity()):  # noqa: B008
        super().__init__()
        self.model, self.pool, self.bend, self.num_features = model, pool, bend, model.num_features

    def get_classifier(self):
        return self.model.get_classifier()

    def forward_features(self, images):
        return self.model.forward_features(images)

    def forward_head(self, features):
        return self.bend(self.get_classifier()(self.pool(features).flatten(1)))

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


@pytest.mark.parametrize(
    ("pool", "bend"),
    [
        (nn.AdaptiveMaxPool2d(1), nn.Identity()),
        (nn.AdaptiveAvgPool2d(1), nn.Tanh()),
        (nn.Sequential(nn.Threshold(0.05, 0, inplace=True), nn.AdaptiveAvgPool2d(1)), nn.Identity()),
    ],
    ids=["max", "tanh", "in place"],
)
@pytest.mark.parametrize("scale", [1, 1e-4])
def test_a_head_that_only_looks_linear_is_differentiated(pool, bend, scale):
    model = MaxHead(network(), pool, bend).eval()
    with torch.no_grad():
        model.get_classifier().weight.mul_(scale)  # so small that an absolute tolerance would see no difference
        model.get_classifier().bias.fill_(0.5)
    expected = grad_cam(model, random_images())
    assert (explain.activation_maps(model, random_images()) - expected).abs().max() < 1e-5 * expected.max()


def test_the_head_may_be_without_bias_and_the_weights_zero():
    model = network()
    model.fc = nn.Linear(model.num_features, CLASSES, bias=False)
    expected = grad_cam(model, random_images())
    assert (explain.activation_maps(model, random_images()) - expected).abs().max() < 1e-5
    nn.init.zeros_(model.fc.weight)
    assert not explain.activation_maps(model, random_images()).any()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_networks_without_feature_maps_are_refused(name):
    model = network(name)
    with pytest.raises(ValueError, match=r"model: features of .* have shape \(1, .*no feature maps"):
        explain.activation_maps(model, random_images(1, 224, 224))


def test_networks_of_other_libraries_are_refused():
    with pytest.raises(ValueError, match="model: expected a convolutional network of timm, got Sequential"):
        explain.activation_maps(nn.Sequential(nn.Conv2d(3, 4, 3)), random_images())


@pytest.mark.parametrize("explainer", explain.EXPLAINERS)
@pytest.mark.parametrize("images", [torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_images_that_are_not_normalised_batches_are_refused(explainer, images):
    with pytest.raises(ValueError, match="images: expected normalised float32 of shape"):
        explain.attributions(network(), images, explainer)


@pytest.mark.parametrize("name", ["narrow_resnet", "mobilenetv3_small_050"])
@pytest.mark.parametrize("explainer", explain.EXPLAINERS)
def test_model_and_images_are_left_as_they_were(name, explainer):
    model, images = network(name).train(), random_images()
    model.bn1.eval()  # a frozen normalisation in a network that trains
    next(model.parameters()).requires_grad_(False)
    model(images).sum().backward()
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    grads = [copy.deepcopy(parameter.grad) for parameter in model.parameters()]
    state, before = copy.deepcopy(model.state_dict()), images.clone()
    with torch.no_grad():  # as a caller may
        first = explain.attributions(model, images, explainer)

    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (parameter.grad is None) if grad is None else torch.equal(parameter.grad, grad)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert images.grad is None
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())
    assert torch.equal(first, explain.attributions(model.eval(), images, explainer))  # explained as it predicts


def test_mode_is_put_back_when_the_network_fails():
    model = network().train()
    with pytest.raises(RuntimeError):
        explain.activation_maps(model, torch.zeros(1, 4, 32, 32))
    assert all(module.training for module in model.modules())


# other explainers


def test_unknown_explainer_is_an_error_that_names_the_known():
    with pytest.raises(ValueError, match="explainer='lime': expected one of cam, deeplift"):
        explain.attributions(network(), random_images(), "lime")


def test_cam_is_the_first_explainer():
    assert explain.EXPLAINERS[0] == "cam"
    assert torch.equal(
        explain.attributions(network(), random_images(), "cam"), explain.activation_maps(network(), random_images())
    )


def negated(model):
    """The same network with all logits negated: what is positive for one is negative for the other."""
    mirror = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in mirror.get_classifier().parameters():
            parameter.neg_()
    return mirror


@pytest.mark.parametrize("name", ["narrow_resnet", "resnet18"])
def test_deeplift_explains_the_whole_difference_to_the_mean_image(name):
    model, images = network(name), random_images()
    with pytest.warns(UserWarning, match="Setting forward, backward hooks"):
        signed = captum.attr.DeepLift(without_in_place(model)).attribute(images.clone().requires_grad_(), target=1)
    difference = (model(images) - model(torch.zeros_like(images))).detach()
    torch.testing.assert_close(signed.sum(dim=(1, 2, 3)).detach(), difference[:, 1], atol=1e-5, rtol=1e-3)

    positive = explain.attributions(model, images, "deeplift")
    assert positive.shape == (2, CLASSES, 64, 48)
    torch.testing.assert_close(positive[:, 1], signed.sum(dim=1).clamp(min=0).detach())
    both = positive - explain.attributions(negated(model), images, "deeplift")
    torch.testing.assert_close(both.sum(dim=(2, 3)), difference, atol=1e-5, rtol=1e-3)


def without_in_place(model):
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def test_input_x_gradient_is_what_its_name_says():
    model, images = network(), random_images()
    leaf = images.clone().requires_grad_()
    expected = []
    for layer in range(CLASSES):
        gradient = torch.autograd.grad(model(leaf)[:, layer].sum(), leaf)[0]
        expected.append((gradient * images).sum(dim=1).clamp(min=0))
    found = explain.attributions(model, images, "input_x_gradient")
    torch.testing.assert_close(found, torch.stack(expected, dim=1))


@pytest.mark.parametrize("explainer", explain.CAPTUM)
def test_captum_says_nothing(explainer, recwarn):
    explain.attributions(network(), random_images(), explainer)
    assert not [str(w.message) for w in recwarn]


# masks


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 2),
    size=st.tuples(*[st.integers(1, 11)] * 2),
    t_cam=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    seed=st.integers(0, 2**31),
)
def test_masks_equal_a_loop_over_pixels(shape, size, t_cam, seed):
    draw = Generator().manual_seed(seed)
    maps = torch.randn(2, CLASSES, *shape, generator=draw).relu() * 10 ** torch.randint(-6, 3, (1,), generator=draw)
    labels = torch.rand(2, CLASSES, generator=draw) < 0.6
    masks = explain.explanation_masks(maps, labels, size, t_cam)
    assert masks.dtype == torch.bool
    assert masks.shape == (2, CLASSES, *size)
    for i in range(2):
        for layer in range(CLASSES):
            if not labels[i, layer]:
                assert not masks[i, layer].any()
                continue
            source = maps[i, layer].double()
            large = source if (source == source[0, 0]).all() else upsample(source, *size)
            if large.max() - large.min() < 1e-5 * large.max() and large is not source:
                continue  # one pixel, or two that mirror each other: only rounding is left to scale
            expected = mask(large.expand(size) if large.numel() == 1 else large, t_cam)
            if large is source:
                expected = [[bool(source[0, 0] > 0)] * size[1]] * size[0]
            for row, expected_row in zip(masks[i, layer].tolist(), expected, strict=True):
                assert all(e is None or f == e for f, e in zip(row, expected_row, strict=True))


@pytest.mark.parametrize(
    ("t_cam", "inside"), [(0.0, range(1, 11)), (0.1, range(2, 11)), (0.5, range(6, 11)), (0.9, [10])]
)
@pytest.mark.parametrize("offset", [0, 5])
def test_threshold_is_strict_and_relative_to_the_map_s_own_range(t_cam, inside, offset):
    maps = torch.arange(11.0).view(1, 1, 1, 11) + offset
    found = explain.explanation_masks(maps, torch.ones(1, 1, dtype=torch.bool), (1, 11), t_cam)
    assert found.flatten().nonzero().flatten().tolist() == list(inside)


def test_range_is_that_of_the_upsampled_map():
    maps = torch.tensor([[[[0.0, 1.0]]]])  # becomes 0, ¼, ¾, 1; four to three: 0, ½, 1 of 1/6 … 5/6 before scaling
    present = torch.ones(1, 1, dtype=torch.bool)
    assert explain.explanation_masks(maps, present, (1, 3), 0.15).flatten().tolist() == [False, True, True]
    peaked = torch.tensor([[[[0.0, 4.0, 0.0, 0.0]]]])  # at half the size 2 and 0, not 4 and 0
    assert explain.explanation_masks(peaked, present, (1, 2), 0.6).flatten().tolist() == [True, False]


def test_each_image_and_class_has_a_range_of_its_own():
    maps = torch.tensor([[1.0, 2.0], [100.0, 300.0], [0.001, 0.002], [0.0, 50.0]]).view(2, 2, 1, 2)
    found = explain.explanation_masks(maps, torch.ones(2, 2, dtype=torch.bool), (1, 2))
    assert found.flatten(2).tolist() == [[[False, True]] * 2] * 2


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 5)])
@pytest.mark.parametrize(("value", "everywhere"), [(0.0, False), (0.3, True), (1e-30, True), (-0.3, False)])
def test_constant_maps_are_everywhere_where_positive(shape, value, everywhere):
    maps = torch.full((1, 1, *shape), value)
    found = explain.explanation_masks(maps, torch.ones(1, 1, dtype=torch.bool), (17, 23))
    assert (found == everywhere).all()


def test_no_class_in_any_label_gives_empty_masks():
    found = explain.explanation_masks(torch.rand(2, 3, 4, 4), torch.zeros(2, 3, dtype=torch.bool), (8, 8))
    assert found.shape == (2, 3, 8, 8)
    assert not found.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activations": torch.rand(2, 4, 4)}, r"activations: expected floats of shape \(B,L,h,w\), .*\(2, 4, 4\)"),
        ({"activations": torch.ones(2, 3, 4, 4, dtype=torch.int64)}, "activations: expected floats .*int64"),
        ({"activations": torch.full((2, 3, 4, 4), math.nan)}, "activations: not finite"),
        ({"labels": torch.ones(2, 3)}, "labels: expected bool .*float32"),
        ({"labels": torch.ones(2, 4, dtype=torch.bool)}, r"labels: expected bool of shape \(2, 3\), .*\(2, 4\)"),
        ({"t_cam": 1.0}, "t_cam=1.0: expected"),
        ({"t_cam": -0.1}, "t_cam=-0.1: expected"),
        ({"t_cam": math.nan}, "t_cam=nan: expected"),
    ],
)
def test_masks_refuse_what_they_cannot_use(changes, message):
    given = {"activations": torch.rand(2, 3, 4, 4), "labels": torch.ones(2, 3, dtype=torch.bool), "size": (8, 8)}
    with pytest.raises(ValueError, match=message):
        explain.explanation_masks(**given | changes)


# class positions


@pytest.mark.parametrize("explainer", explain.EXPLAINERS)
def test_positions_are_the_masks_of_all_scenes_in_any_batch_size(tiny_scenes, explainer):
    model, index = network(), torch.tensor([3, 0, 15, 9, 8, 4, 11])
    expected = []
    for i in index.tolist():
        images = tiny_scenes.normalise(tiny_scenes.images[i : i + 1])
        maps = explain.attributions(model, images, explainer)
        masks = explain.explanation_masks(maps, tiny_scenes.labels[i : i + 1], (12, 16))
        expected.append(positions.from_explanation_masks(masks))
    for batch_size in (1, 3, 256):
        found = explain.explain_positions(model, tiny_scenes, index, explainer=explainer, batch_size=batch_size)
        assert found.dtype == torch.int32
        assert found.shape == (7, 12, 16)
        assert (found != torch.cat(expected)).sum() <= 2  # a pixel at the threshold, where the order of a sum decides


def test_positions_of_other_labels_than_the_data_sets(tiny_scenes):
    model, index = network(), torch.tensor([3, 0, 15, 9])
    own = explain.explain_positions(model, tiny_scenes, index)
    assert torch.equal(explain.explain_positions(model, tiny_scenes, index, labels=tiny_scenes.labels[index]), own)
    one = torch.zeros(4, 3, dtype=torch.bool)
    one[:, 1] = True
    found = explain.explain_positions(model, tiny_scenes, index, labels=one, batch_size=3)
    assert found.any()
    assert not (found & ~(1 << 1)).any()


def test_only_classes_in_the_label_are_anywhere(tiny_scenes):
    index = torch.arange(16)
    present = positions.count(explain.explain_positions(network(), tiny_scenes, index), CLASSES) > 0
    assert present.any()
    assert not (present & ~tiny_scenes.labels).any()


def test_threshold_reaches_the_masks(tiny_scenes):
    low, high = (
        positions.count(explain.explain_positions(network(), tiny_scenes, torch.arange(8), t_cam=t_cam), CLASSES).sum()
        for t_cam in (0.1, 0.8)
    )
    assert low > high > 0


def test_maps_of_all_classes_exist_for_one_batch_only(tiny_scenes, monkeypatch):
    sizes, function = [], explain.attributions
    monkeypatch.setattr(explain, "attributions", lambda m, x, e: sizes.append(len(x)) or function(m, x, e))
    explain.explain_positions(network(), tiny_scenes, torch.arange(16), batch_size=6)
    assert sizes == [6, 6, 4]


def test_no_scenes_have_no_positions(tiny_scenes):
    none = torch.arange(0)
    assert explain.explain_positions(network(), tiny_scenes, none).shape == (0, 12, 16)


def test_positions_refuse_what_they_cannot_use(tiny_scenes):
    with pytest.raises(ValueError, match="batch_size=0: expected"):
        explain.explain_positions(network(), tiny_scenes, torch.arange(2), batch_size=0)
    with pytest.raises(ValueError, match=r"labels: expected bool of shape \(2, 5\), got .*\(2, 3\)"):
        explain.explain_positions(network(classes=5), tiny_scenes, torch.arange(2))
    with pytest.raises(ValueError, match="explainer='lime'"):
        explain.explain_positions(network(), tiny_scenes, torch.arange(2), explainer="lime")
    unknown = replace(tiny_scenes, std=torch.zeros(3))
    with pytest.raises(ValueError, match="not finite"):
        explain.explain_positions(network(), unknown, torch.arange(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_positions_on_a_gpu_are_those_on_a_cpu(tiny_scenes):
    model, index = network(), torch.arange(16)
    on_cpu = explain.explain_positions(model, tiny_scenes, index)
    on_gpu = explain.explain_positions(model.cuda(), tiny_scenes, index)
    assert on_gpu.device.type == "cpu"
    assert (on_gpu != on_cpu).float().mean() < 0.01


# agreement


def test_agreement_by_hand():
    both = 0b11
    bits = torch.tensor([[[1, 1, 0, both]], [[2, 2, 2, 0]], [[1, 1, 1, 1]]], dtype=torch.int32)
    reference = torch.tensor([[[1, 0, 0, 2]], [[2, 2, 1, 1]], [[0, 0, 0, 0]]], dtype=torch.int32)
    labels = torch.tensor([[True, True, False, True], [False, True, False, False], [False, False, False, False]])
    found = explain.agreement(bits, reference, labels, 4)
    # class 0 in scene 0: pixel 0 of pixels 0, 1, 3. Class 1 in scenes 0 and 1: pixels 3 | 0, 1 of 3 | 0, 1, 2.
    # Class 2 is in no label, class 3 in no pixel.
    torch.testing.assert_close(found, torch.tensor([1 / 3, 3 / 4, math.nan, math.nan]).double(), equal_nan=True)
    assert found.nanmean() == pytest.approx((1 / 3 + 3 / 4) / 2)


def test_agreement_of_class_positions_with_themselves_is_one(tiny_scenes):
    found = explain.agreement(tiny_scenes.positions, tiny_scenes.positions, tiny_scenes.labels, CLASSES)
    assert found.tolist() == [1.0] * CLASSES


def test_agreement_refuses_what_does_not_fit(tiny_scenes):
    bits, labels = tiny_scenes.positions, tiny_scenes.labels
    with pytest.raises(ValueError, match=r"reference_bits: has shape \(15, 12, 16\), expected \(16, 12, 16\)"):
        explain.agreement(bits, bits[1:], labels, CLASSES)
    with pytest.raises(ValueError, match=r"labels: expected bool of shape \(16, 3\), got .*int64"):
        explain.agreement(bits, bits, labels.long(), CLASSES)
    with pytest.raises(ValueError, match="labels: expected bool"):
        explain.agreement(bits, bits, labels, 4)
    with pytest.raises(ValueError, match="positions: expected int32"):
        explain.agreement(bits.long(), bits.long(), labels, CLASSES)
