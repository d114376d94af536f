"""The thematic product: a map as a classifier makes it, better than chance and worse than the truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from rsbook import positions, scenes, thematic


@pytest.fixture(scope="module")
def data():
    return scenes.load("bluemarble")


@pytest.fixture(scope="module")
def product(data):
    return thematic.thematic_product(data, data.split("train")[:300])


def agreement(data, index, product):
    truth = positions.to_reference_maps(data.positions[index], len(data.classes))
    found = positions.to_reference_maps(product, len(data.classes))
    return (truth == found).float().mean().item(), torch.bincount(truth.flatten()).max().item() / truth.numel()


def test_a_product_is_mostly_right_and_sometimes_wrong(data, product):
    assert product.dtype == torch.int32
    assert product.shape == (300, 32, 32)
    right, most_frequent_class = agreement(data, data.split("train")[:300], product)
    assert most_frequent_class + 0.3 < right < 0.9
    for layer in range(len(data.classes)):
        assert (product == 1 << layer).any()  # every class is somewhere, and each pixel has one
    assert (positions.to_reference_maps(product, len(data.classes)) >= 0).all()


def test_labels_from_a_product_differ_from_those_of_the_map(data, product):
    truth = data.labels[data.split("train")[:300]]
    found = positions.to_labels(product, len(data.classes), data.min_pixels)
    assert 0.02 < (truth != found).float().mean() < 0.25


def test_small_segments_are_merged_into_their_neighbours(data, product):
    maps = positions.to_reference_maps(product, len(data.classes)).numpy()
    smallest = [
        np.bincount(ndimage.label(one == layer)[0].ravel())[1:].min() for one in maps for layer in np.unique(one)
    ]
    assert min(smallest) >= 12
    assert thematic.MIN_SEGMENT == 12


def test_a_product_is_one_map_whatever_was_drawn_before(data, product):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(thematic.thematic_product(data, data.split("train")[:300]), product)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002


def test_rows_follow_the_index(data):
    index = torch.tensor([700, 3, 1500, 42])
    right, most_frequent_class = agreement(data, index, thematic.thematic_product(data, index))
    assert right > max(0.8, most_frequent_class)  # so few scenes are learnt nearly by heart
    shuffled, _ = agreement(data, index.flip(0), thematic.thematic_product(data, index))
    assert shuffled < right - 0.2


def test_the_classifier_sees_bands_and_their_means_around_each_pixel():
    images = np.arange(2 * 3 * 6 * 5, dtype=np.uint8).reshape(2, 3, 6, 5) % 17
    features = thematic._features(images)
    assert features.shape == (2 * 6 * 5, 6)
    for scene, row, column in ((0, 1, 1), (1, 4, 3), (1, 2, 2)):
        found = features[(scene * 6 + row) * 5 + column]
        around = images[scene, :, row - 1 : row + 2, column - 1 : column + 2].astype(float)
        np.testing.assert_allclose(found, [*images[scene, :, row, column], *around.mean(axis=(1, 2))], rtol=1e-5)


def test_ground_without_a_class_teaches_nothing_but_is_mapped(data):
    index = data.split("train")[:40]
    known = data.positions.clone()
    known[:, :, :16] = 0
    half = thematic.thematic_product(replace(data, positions=known), index)
    assert (half != 0).all()
    right, most_frequent_class = agreement(data, index, half)
    assert right > most_frequent_class + 0.2


def test_scenes_without_maps_are_an_error(data):
    with pytest.raises(ValueError, match="bluemarble: these scenes have no reference maps for a classifier"):
        thematic.thematic_product(replace(data, positions=None), data.split("train")[:4])
