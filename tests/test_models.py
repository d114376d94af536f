"""Networks by name: shapes, and weights that depend on the generator alone."""

import random

import numpy as np
import pytest
import torch
from torch import Generator

from rsbook import models


def weights(name="narrow_resnet", seed=0, bands=3, classes=4):
    return models.classifier(name, bands, classes, Generator().manual_seed(seed)).state_dict()


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["narrow_resnet", "resnet18"])
@pytest.mark.parametrize(("bands", "classes"), [(1, 1), (3, 7), (10, 19)])
def test_logits_have_one_column_a_class_for_any_bands(name, bands, classes):
    model = models.classifier(name, bands, classes, Generator().manual_seed(0)).eval()
    images = torch.randn(2, bands, 32, 32, generator=Generator().manual_seed(1))
    logits = model(images)
    assert logits.shape == (2, classes)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


def test_last_feature_map_of_the_narrow_resnet_is_four_by_four():
    model = models.classifier("narrow_resnet", 3, 7, Generator().manual_seed(0))
    assert model.forward_features(torch.randn(1, 3, 32, 32)).shape == (1, 64, 4, 4)
    assert model.forward_features(torch.randn(1, 3, 120, 120)).shape == (1, 64, 15, 15)
    assert sum(p.numel() for p in model.parameters()) < 100_000


@pytest.mark.parametrize(("stride", "side"), [(None, 2), (8, 8), (16, 4), (32, 2)])
def test_output_stride_is_the_pixels_of_the_image_for_each_of_the_last_feature_map(stride, side):
    model = models.classifier("resnet18", 3, 7, Generator().manual_seed(0), stride).eval()
    assert model.forward_features(torch.randn(1, 3, 64, 64)).shape == (1, 512, side, side)
    assert same(weights("resnet18", classes=7), model.state_dict())  # the weights are those of any stride


def test_the_narrow_resnet_has_one_output_stride():
    chosen = models.classifier("narrow_resnet", 3, 4, Generator().manual_seed(0), 8)
    assert same(weights(), chosen.state_dict())
    for other in (4, 16, 32):
        with pytest.raises(ValueError, match=f"output_stride={other}: that of narrow_resnet is 8"):
            models.classifier("narrow_resnet", 3, 4, Generator().manual_seed(0), other)


def test_other_models_of_timm_are_taken_by_name():
    assert weights("mobilenetv3_small_050", classes=5)["classifier.weight"].shape[0] == 5


@pytest.mark.parametrize("name", ["narrow_resnet", "resnet18"])
def test_weights_depend_on_the_generator_alone(name):
    torch.manual_seed(1)
    first = weights(name, seed=0)
    torch.manual_seed(2)
    assert same(first, weights(name, seed=0))
    assert not same(first, weights(name, seed=1))


def test_one_generator_gives_other_weights_each_time():
    generator = Generator().manual_seed(0)
    first, second = (models.classifier("narrow_resnet", 3, 4, generator).state_dict() for _ in range(2))
    assert not same(first, second)


def test_global_random_state_is_left_as_it_was():
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    weights()
    weights("resnet18")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


@pytest.mark.parametrize(
    ("name", "near"), [("renset18", "resnet18"), ("narow_resnet", "narrow_resnet"), ("resnet18.a1_in1k", "resnet18")]
)
def test_unknown_name_is_an_error_that_names_near_ones(name, near):
    with pytest.raises(ValueError, match=rf"network='{name}'.*near: .*\b{near}\b"):
        weights(name)


def test_a_name_near_to_none_says_where_to_look():
    with pytest.raises(ValueError, match=r"timm\.list_models\(\)"):
        weights("")


@pytest.mark.parametrize("sizes", [{"bands": 0}, {"classes": 0}])
def test_no_band_or_no_class_is_an_error(sizes):
    with pytest.raises(ValueError, match="at least one of each"):
        weights(**sizes)
