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


def test_pretrained_weights_are_asked_of_timm_where_there_are_any(monkeypatch):
    asked = []
    monkeypatch.setattr(models.timm, "create_model", lambda name, **given: asked.append((name, given)))
    models.classifier("resnet50", 12, 19, Generator(), pretrained=True)
    assert asked == [("resnet50", {"pretrained": True, "in_chans": 12, "num_classes": 19})]
    with pytest.raises(ValueError, match="narrow_resnet has no weights from ImageNet"):
        models.classifier("narrow_resnet", 3, 7, Generator(), pretrained=True)


def test_pretrained_encoders_are_asked_of_their_library_where_there_are_any(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "segmentation_models_pytorch.encoders.get_encoder", lambda name, **given: asked.append((name, given))
    )
    models.encoder("resnet101", 3, Generator(), pretrained=True)
    assert asked == [("resnet101", {"in_channels": 3, "depth": 5, "weights": "imagenet"})]
    with pytest.raises(ValueError, match="narrow_resnet has no weights from ImageNet"):
        models.encoder("narrow_resnet", 3, Generator(), pretrained=True)


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


# Segmentation


def unets(fusion="late", seed=0, name="narrow_resnet", bands=((3, 4), (0, 1, 2)), classes=7):
    return models.unets(name, bands, classes, Generator().manual_seed(seed), fusion)


@pytest.mark.parametrize("fusion", models.FUSIONS)
@pytest.mark.parametrize("side", [32, 40])
def test_unets_give_logits_for_every_modality_at_the_size_of_the_image(fusion, side):
    images = torch.randn(2, 5, side, side, generator=Generator().manual_seed(1))
    logits = unets(fusion).eval()(images)
    assert logits.shape == (2, 2, 7, side, side)
    assert logits.isfinite().all()


@pytest.mark.parametrize("fusion", models.FUSIONS)
def test_a_modality_sees_its_own_bands_alone(fusion):
    model = unets(fusion).eval()
    images = torch.randn(1, 5, 32, 32, generator=Generator().manual_seed(1))
    before = model(images)
    images[:, 3] += 1
    after = model(images)
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], after[0])


def test_middle_fusion_shares_the_decoder_and_late_fusion_nothing():
    assert [len(unets(fusion).decoders) for fusion in ("mid", "late")] == [1, 2]
    assert len(unets("late", bands=[(0, 1, 2)]).decoders) == 1
    size = {f: sum(p.numel() for p in unets(f).decoders.parameters()) for f in models.FUSIONS}
    assert size["late"] == 2 * size["mid"]


def test_unets_of_the_paper_are_those_of_segmentation_models_pytorch():
    from segmentation_models_pytorch import Unet

    ours = models.unets("resnet50", [range(2), range(2, 15)], 9, Generator().manual_seed(0), "late")
    for encoder, decoder, bands in zip(ours.encoders, ours.decoders, (2, 13), strict=True):
        theirs = Unet("resnet50", encoder_weights=None, in_channels=bands, classes=9)
        theirs.encoder.load_state_dict(encoder.state_dict())
        theirs.decoder.load_state_dict(decoder[0].state_dict())
        theirs.segmentation_head.load_state_dict(decoder[1].state_dict())


@pytest.mark.parametrize("name", ["narrow_resnet", "resnet18"])
def test_an_encoder_has_the_same_weights_at_any_depth(name):
    whole = models.encoder(name, 3, Generator().manual_seed(0))
    part = models.encoder(name, 3, Generator().manual_seed(0), depth=2)
    assert same(whole.state_dict(), part.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=Generator().manual_seed(1))
    found = part.eval()(images)
    assert [feature.shape[1] for feature in found] == list(part.out_channels)
    assert [feature.shape[2] for feature in found] == [32, 16, 8]
    for ours, theirs in zip(found, whole.eval()(images), strict=False):
        assert torch.equal(ours, theirs)


def psp(frozen=False, name="narrow_resnet", depth=2, **more):
    generator = Generator().manual_seed(0)
    encoder = models.encoder(name, 3, generator, depth)
    return models.pspnet(encoder, 16, 7, generator, frozen=frozen, **more)


@pytest.mark.parametrize(("name", "depth"), [("narrow_resnet", 2), ("resnet18", 3)])
def test_pspnet_gives_logits_at_the_size_of_the_image(name, depth):
    images = torch.randn(2, 3, 64, 64, generator=Generator().manual_seed(1))
    assert psp(name=name, depth=depth).eval()(images).shape == (2, 7, 64, 64)


def test_pspnet_of_the_paper_is_that_of_segmentation_models_pytorch():
    from segmentation_models_pytorch import PSPNet

    generator = Generator().manual_seed(0)
    ours = models.pspnet(models.encoder("resnet50", 13, generator, 3), 512, 8, generator).eval()
    theirs = PSPNet("resnet50", encoder_weights=None, in_channels=13, classes=8).eval()
    theirs.encoder.load_state_dict(ours.encoder.state_dict())
    theirs.decoder.load_state_dict(ours.decoder.state_dict())
    theirs.segmentation_head.load_state_dict(ours.head.state_dict())
    images = torch.randn(1, 13, 64, 64, generator=generator)
    torch.testing.assert_close(ours(images), theirs(images))


def test_a_frozen_encoder_keeps_its_weights_and_lets_its_statistics_adapt_unless_told_otherwise():
    images = torch.randn(4, 3, 32, 32, generator=Generator().manual_seed(1)) + 5
    for fixed in (False, True):
        model = psp(frozen=True, fixed_statistics=fixed).train()
        before = {key: value.clone() for key, value in model.encoder.state_dict().items()}
        model(images).sum().backward()
        after = model.encoder.state_dict()
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        assert not any(p.requires_grad for p in model.encoder.parameters())
        assert all(p.grad is not None for p in model.head.parameters())
        assert bool(moved) is not fixed
        assert all("running" in key or "num_batches" in key for key in moved)
    assert all(p.requires_grad for p in psp().parameters())


@pytest.mark.parametrize("make", [unets, psp])
def test_segmentation_weights_depend_on_the_generator_alone(make):
    torch.manual_seed(1)
    first, state = make().state_dict(), torch.get_rng_state()
    torch.manual_seed(2)
    assert same(first, make().state_dict())
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion": "early"}, "fusion='early': expected one of mid, late"),
        ({"name": "resnet5"}, "network='resnet5': neither 'narrow_resnet' nor an encoder of segmentation-models"),
        ({"bands": [()]}, "bands=0, classes=1: expected at least one of each"),
        ({"bands": []}, "bands=0, classes=7: expected at least one of each"),
        ({"classes": 0}, "bands=2, classes=0: expected at least one of each"),
    ],
)
def test_segmentation_networks_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        unets(**change)
