"""DeepLab-v2: sums of atrous convolutions, and the highest over scales."""

import pytest
import torch
from torch import Generator
from torch.nn.functional import interpolate

from rsbook import deeplab


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=Generator().manual_seed(0))


def test_logits_are_sums_of_branches_enlarged(images):
    model = deeplab.deeplab_v2("narrow_resnet", 3, 5, Generator().manual_seed(1), rates=(1, 2)).eval()
    features = model.encoder(images)[-1]
    coarse = model.branches[0](features) + model.branches[1](features)
    assert features.shape[2:] == (4, 4)
    expected = interpolate(coarse, size=(32, 32), mode="bilinear", align_corners=False)
    assert torch.allclose(model(images), expected, atol=1e-6)
    assert [branch.dilation for branch in model.branches] == [(1, 1), (2, 2)]


def test_the_highest_over_scales_comes_last(images):
    model = deeplab.deeplab_v2("narrow_resnet", 3, 5, Generator().manual_seed(1), (1, 2), (1.0, 0.5)).eval()
    found = model(images, every=True)
    assert len(found) == 3
    single = deeplab.deeplab_v2("narrow_resnet", 3, 5, Generator().manual_seed(1), (1, 2)).eval()
    assert torch.allclose(found[0], single(images), atol=1e-6)
    half = model(interpolate(images, scale_factor=0.5, mode="bilinear", align_corners=False), every=True)[0]
    assert found[1].shape == (2, 5, 32, 32)
    assert half.shape == (2, 5, 16, 16)
    assert torch.equal(model(images), found[-1])
    whole, small = (sum(b(model.encoder(x)[-1]) for b in model.branches) for x in (images, images[:, :, ::2, ::2]))
    assert whole.shape[2:] == (4, 4)
    assert small.shape[2:] == (2, 2)
    small = sum(
        branch(model.encoder(interpolate(images, scale_factor=0.5, mode="bilinear"))[-1]) for branch in model.branches
    )
    highest = torch.maximum(whole, interpolate(small, size=(4, 4), mode="bilinear", align_corners=False))
    assert torch.allclose(found[-1], interpolate(highest, size=(32, 32), mode="bilinear"), atol=1e-5)


def test_a_dilated_encoder_has_a_stride_of_eight():
    model = deeplab.deeplab_v2("resnet18", 4, 3, Generator().manual_seed(0)).eval()
    with torch.no_grad():
        features = model.encoder(torch.zeros(1, 4, 64, 64))[-1]
        assert features.shape[2:] == (8, 8)
        assert model(torch.zeros(1, 4, 64, 64)).shape == (1, 3, 64, 64)
    assert [branch.padding for branch in model.branches] == [(rate, rate) for rate in deeplab.RATES]


def test_weights_depend_on_the_generator_alone():
    first, second, other = (
        deeplab.deeplab_v2("narrow_resnet", 3, 5, Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
