"""What is counted without a training, against counts by hand and slow loops."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Generator

from rsbook import analyses, explain, label_propagation, mixing, models, noise, positions, scenes

LARGE = (0.3, 0.7)


def made_of(data, maps):
    """Scenes with these maps (n,H,W) of three classes, −1 for none, where one pixel makes a label; random images."""
    bits = positions.from_reference_maps(maps, 3, background=-1)
    images = torch.randint(256, (len(maps), 3, *maps.shape[1:]), generator=Generator().manual_seed(0)).byte()
    splits = {"train": torch.arange(len(maps))}
    changes = {"positions": bits, "labels": positions.to_labels(bits, 3), "images": images, "splits": splits}
    return dataclasses.replace(data, **changes, min_pixels=0)


def mixed_again(data, index, seed, **options):
    return mixing.cutmix(
        data.images[index],
        data.labels[index],
        data.positions[index],
        area_range=LARGE,
        probability=1.0,
        generator=Generator().manual_seed(seed),
        **options,
    )


def holds(bits, layer, min_pixels):
    return int(((bits >> layer) & 1).sum()) > min_pixels


def test_label_errors_equal_a_count_by_hand():
    data = scenes.load("bluemarble")
    data = dataclasses.replace(data, splits=data.splits | {"train": data.split("train")[:40]})
    row = analyses.label_errors(data, [LARGE], seed=7, min_pixels=20, repeats=1).iloc[0]

    index = data.split("train")
    mixed = mixed_again(data, index, 7)
    wrong = lost = absent = weak = named = there = 0
    for i, bits in enumerate(mixed.positions):
        first, second = data.labels[index][i], data.labels[index][mixed.partner[i]]
        top, left, bottom, right = mixed.boxes[i].tolist()
        share = (bottom - top) * (right - left) / 1024
        error = False
        for c in range(len(data.classes)):
            weight = (1 - share) * float(first[c]) + share * float(second[c])
            present = holds(bits, c, 20)
            named, there = named + (weight > 0), there + present
            lost += bool(first[c]) and not present
            absent += bool(second[c]) and not bool(first[c]) and not present
            error |= weight > 0 and not present
            weak += present and weight < 0.5
        wrong += error
    expected = [100 * wrong / 40, 100 * lost / named, 100 * absent / named, 100 * weak / there]
    assert row.tolist()[2:] == pytest.approx(expected, abs=0.051)


def test_no_more_training_scenes_are_mixed_than_are_counted(tiny_scenes, monkeypatch):
    index = tiny_scenes.split("train")
    few = dataclasses.replace(tiny_scenes, splits=tiny_scenes.splits | {"train": index[:5]})

    def errors(data):
        return analyses.label_errors(data, [LARGE], seed=7, min_pixels=20)

    def shares(index):
        return analyses.class_shares(tiny_scenes, index, LARGE, 1.0, seed=1)

    uncapped, expected = (errors(tiny_scenes), shares(index)), (errors(few), shares(index[:5]))
    monkeypatch.setattr(analyses, "COUNTED", 5)
    for found, one, other in zip((errors(tiny_scenes), shares(index)), expected, uncapped, strict=True):
        pd.testing.assert_frame_equal(found, one)
        assert not found.equals(other)


@pytest.mark.parametrize("explainer", ["cam", "input_x_gradient"])
def test_activations_are_those_of_each_scene_on_its_own(tiny_scenes, explainer):
    """More scenes than a batch holds, in any order and more than once."""
    network = models.classifier("narrow_resnet", 3, 3, Generator().manual_seed(0)).train()
    index = torch.randint(16, (300,), generator=Generator().manual_seed(2))
    found = analyses.activations(network, tiny_scenes, index, explainer)
    assert found.dtype == torch.float32
    assert network.training
    for i in (0, 17, 255, 256, 299):
        image = tiny_scenes.normalise(tiny_scenes.images[index[i : i + 1]])
        alone = explain.attributions(network, image.contiguous(), explainer)[0]
        torch.testing.assert_close(found[i], alone, rtol=1e-4, atol=1e-6)
    assert found.shape[:2] == (300, 3)
    assert (explainer == "cam") == (found.shape[2:] != (12, 16))
    assert found.flatten(1).unique(dim=0).shape[0] > 1


def test_activations_are_cams_unless_another_explainer_is_named(tiny_scenes):
    network = models.classifier("narrow_resnet", 3, 3, Generator().manual_seed(0))
    index = tiny_scenes.split("test")
    cams = analyses.activations(network, tiny_scenes, index, "cam")
    assert torch.equal(analyses.activations(network, tiny_scenes, index), cams)


def test_label_errors_need_positions(tiny_scenes):
    with pytest.raises(ValueError, match="no class positions"):
        analyses.label_errors(dataclasses.replace(tiny_scenes, positions=None), [LARGE], seed=1, min_pixels=0)


def test_propagated_labels_have_no_errors_by_construction(tiny_scenes):
    mixed = mixed_again(tiny_scenes, slice(None), 1, min_pixels=tiny_scenes.min_pixels)
    counted = torch.tensor([[holds(bits, c, tiny_scenes.min_pixels) for c in range(3)] for bits in mixed.positions])
    assert torch.equal(counted, mixed.labels > 0)


@pytest.mark.parametrize(("kind", "levels"), [("mask_shift", [(0.5, 3), (1.0, 6.0)]), ("class_swap", [(0.3, None)])])
def test_noise_changes_are_those_between_clean_maps_and_the_maps_a_run_trains_on(tiny_scenes, kind, levels):
    bits = tiny_scenes.positions
    found = analyses.noise_changes(bits, tiny_scenes, kind, levels, seed=42)
    assert found["noise"].tolist() == [
        f"f = {100 * f:.0f} %" + ("" if alpha is None else f", α = {alpha:.0f}") for f, alpha in levels
    ]
    for row, level in zip(found.to_dict("records"), levels, strict=True):
        after = label_propagation.noisy(bits, 3, kind, *level, 42)
        changes = noise.changes(bits >> 1, after >> 1, 3, 5)  # bits 1, 2, 4 are classes 0, 1, 2
        assert list(row.values())[1:] == [round(100 * share, 1) for share in changes.values()]
        different = bits != after
        assert row["pixels changed"] == pytest.approx(100 * different.float().mean().item(), abs=0.051)
        assert row["maps changed"] == pytest.approx(100 * different.flatten(1).any(1).float().mean().item(), abs=0.051)
        assert row["pixels changed"] > 0
    assert list(found.columns)[1:] == [
        "maps changed",
        "pixels changed",
        "mean IoU with the clean maps",
        "labels lost",
        "labels gained",
    ]


def test_a_product_that_is_the_map_is_right_everywhere(tiny_scenes):
    index = tiny_scenes.split("test")
    found = analyses.product_quality(tiny_scenes.positions[index], tiny_scenes, index)
    assert found["class"].tolist() == ["one", "two", "three", "all (IoU: mean)"]
    assert (found.iloc[:, 1:] == 100).all(axis=None)


def test_product_quality_equals_a_confusion_by_hand(tiny_scenes):
    """Map 0 0 / 1 −, product 0 1 / 1 1: the pixel without class is right nowhere; class 2 is nowhere."""
    data = made_of(tiny_scenes, torch.tensor([[[0, 0], [1, -1]]]))
    product = positions.from_reference_maps(torch.tensor([[[0, 1], [1, 1]]]), 3)
    found = analyses.product_quality(product, data, torch.tensor([0])).set_index("class")
    assert found.loc["one"].tolist() == [50.0, 100.0, 50.0]
    assert found.loc["two"].tolist() == [100.0, 33.3, 33.3]
    assert found.loc["three"].isna().all()
    assert found.loc["all (IoU: mean)"].tolist() == [66.7, 50.0, 41.7]


def test_whole_scenes_carry_each_class_of_the_label_everywhere(tiny_scenes):
    index = torch.tensor([9, 4])
    bits = analyses.whole_scenes(tiny_scenes, index)
    assert bits.shape == (2, 12, 16)
    assert bits.dtype == torch.int32
    everywhere = tiny_scenes.labels[index][:, :, None, None].expand(-1, -1, 12, 16)
    assert torch.equal(positions.to_masks(bits, 3), everywhere)


def test_mask_agreement(tiny_scenes):
    maps = torch.full((3, 2, 5), -1)
    maps[0], maps[1, 0] = 0, 1
    maps[1, 1, :3] = 0
    data, index = made_of(tiny_scenes, maps), torch.tensor([1, 0])
    masks = {"the maps": data.positions[index], "whole scene": analyses.whole_scenes(data, index)}
    found = analyses.mask_agreement(masks, data, index).set_index("class")
    assert found.loc[["one", "two", "mean"], "the maps"].tolist() == [100, 100, 100]
    assert found.loc["one", "whole scene"] == 65  # 10 of 10 pixels and 3 of 10
    assert found.loc["two", "whole scene"] == 50
    assert found.loc["mean", "whole scene"] == 57.5
    assert found.loc["three"].isna().all()


def thresholds(data, activations, index, t_cams, t_maps):
    options = {"t_cams": t_cams, "t_maps": t_maps, "area_range": LARGE, "seed": 3}
    return analyses.mask_labels(activations, data, index, **options)


def test_perfect_activations_lose_nothing(tiny_scenes):
    index = tiny_scenes.split("train")
    activations = positions.to_masks(tiny_scenes.positions[index], 3).float()
    found = thresholds(tiny_scenes, activations, index, (0.1, 0.5), (tiny_scenes.min_pixels,))
    assert (found["classes lost"] == 0).all()
    assert (found["classes wrong"] == 0).all()
    assert (found["empty labels"] == 0).all()
    assert (found["IoU of the masks"] == 100).all()


def test_blind_activations_lose_everything(tiny_scenes):
    index = tiny_scenes.split("train")
    row = thresholds(tiny_scenes, torch.zeros(8, 3, 4, 4), index, (0.1,), (0,)).iloc[0]
    assert row.tolist() == [0.1, 0, 100, 0, 100, 0]


def test_mask_labels_equal_a_slow_loop(tiny_scenes):
    index = torch.arange(15, 3, -1)
    activations = torch.rand(12, 3, 4, 5, generator=Generator().manual_seed(1))
    found = thresholds(tiny_scenes, activations, index, (0.6, 0.8), (0, 30))
    assert found[["t_cam", "t_map"]].to_numpy().tolist() == [[0.6, 0], [0.6, 30], [0.8, 0], [0.8, 30]]
    mixed = mixed_again(tiny_scenes, index, 3)
    labels = tiny_scenes.labels[index]
    for row in found.to_dict("records"):
        masks = explain.explanation_masks(activations, labels, (12, 16), row["t_cam"])
        lost = wrong = held = named = empty = 0
        for i in range(len(index)):
            (top, left, bottom, right), (y, x, *_) = mixed.boxes[i].tolist(), mixed.sources[i].tolist()
            pasted = masks[i].clone()
            patch = masks[mixed.partner[i], :, y : y + bottom - top, x : x + right - left]
            pasted[:, top:bottom, left:right] = patch
            present = [holds(mixed.positions[i], c, tiny_scenes.min_pixels) for c in range(3)]
            says = [int(pasted[c].sum()) > row["t_map"] for c in range(3)]
            held, named, empty = held + sum(present), named + sum(says), empty + (not any(says))
            lost += sum(p and not s for p, s in zip(present, says, strict=True))
            wrong += sum(s and not p for p, s in zip(present, says, strict=True))
        assert row["classes lost"] == pytest.approx(100 * lost / held, abs=0.051)
        assert row["classes wrong"] == pytest.approx(100 * wrong / named, abs=0.051)
        assert row["empty labels"] == pytest.approx(100 * empty / 12, abs=0.051)
        bits = positions.from_explanation_masks(masks)
        iou = explain.agreement(bits, tiny_scenes.positions[index], labels, 3).nanmean().item()
        assert row["IoU of the masks"] == pytest.approx(100 * iou, abs=0.051)
    assert found["classes lost"].nunique() > 2


def test_cutmix_that_looks_raises_the_rare_class(tiny_scenes):
    maps = torch.zeros(80, 12, 16, dtype=torch.int64)
    maps[:, :, 12:] = 2
    maps[::8, 4:8, 4:10] = 1  # in one scene of eight
    data = made_of(tiny_scenes, maps)
    found = analyses.class_shares(data, data.split("train"), (0.1, 0.3), 1.0, seed=1)
    assert isinstance(found, pd.DataFrame)
    assert found["class"][0] == "two"
    before, blind, looking = found.iloc[0, 1:]
    assert before == 12.5
    assert looking > blind + 5
    assert np.diff(found["scenes"]).min() >= 0
    unmixed = analyses.class_shares(data, data.split("train"), (0.1, 0.3), 0.0, seed=1)
    assert (unmixed["CutMix, random patches"] == unmixed["scenes"]).all()
    assert (unmixed["CutMix that looks"] == unmixed["scenes"]).all()


def test_class_shares_are_rounded_as_they_are_printed(tiny_scenes):
    """9 of 70 scenes are 12.9 per cent, not 12.899999618530273."""
    maps = torch.zeros(70, 4, 4, dtype=torch.int64)
    maps[:9, 0] = 1
    data = made_of(tiny_scenes, maps)
    found = analyses.class_shares(data, data.split("train"), LARGE, 0.0, seed=1)
    assert found["scenes"].tolist() == [0.0, 12.9, 100.0]
    assert (found.dtypes[1:] == np.float64).all()
