"""Crops and rotations: one draw an image, from the generator alone, and where each pixel of the result was before."""

import random

import numpy as np
import pytest
import torch
from torch import Generator

from rsbook import augmentations

BOTH = (augmentations.random_resized_crop, augmentations.random_rotate)
HEIGHT, WIDTH = 33, 41  # odd: there is a pixel in the middle


def generator(seed):
    return Generator().manual_seed(seed)


def places(batch, height=HEIGHT, width=WIDTH):
    """Images (B,2,H,W) whose bands are the row and the column of each pixel."""
    row, column = torch.arange(float(height)), torch.arange(float(width))
    return torch.stack(torch.meshgrid(row, column, indexing="ij")).expand(batch, -1, -1, -1).contiguous()


@pytest.mark.parametrize("augment", BOTH)
@pytest.mark.parametrize("shape", [(5, 3, 32, 32), (2, 10, 20, 28), (1, 1, 7, 5), (3, 4, 120, 120)])
def test_sizes_and_type_stay_and_the_images_given_are_not_touched(augment, shape):
    images = torch.rand(shape, generator=generator(0))
    before = images.clone()
    found = augment(images, generator(1))
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert not torch.equal(found, images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("augment", BOTH)
def test_the_same_generator_gives_the_same_bytes_whatever_was_drawn_before(augment):
    images = torch.rand(6, 3, 16, 16, generator=generator(0))
    torch.manual_seed(1)
    first = augment(images, generator(5))
    augment(torch.rand(2, 1, 9, 9), generator(6))
    torch.manual_seed(2)
    assert torch.equal(first, augment(images, generator(5)))
    assert not torch.equal(first, augment(images, generator(6)))
    one = generator(5)
    assert torch.equal(first, augment(images, one))
    assert not torch.equal(first, augment(images, one))  # the generator has moved on


@pytest.mark.parametrize("augment", BOTH)
def test_the_global_random_states_are_left_alone(augment):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    augment(places(3), generator(0))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]  # noqa: NPY002


@pytest.mark.parametrize("augment", BOTH)
def test_each_image_gets_a_draw_of_its_own_and_all_its_bands_the_same(augment):
    image = torch.rand(1, 1, 24, 24, generator=generator(0)).expand(8, 3, -1, -1).contiguous()
    found = augment(image, generator(1))
    assert all(torch.equal(found[:, 0], found[:, band]) for band in (1, 2))
    assert len({one.numpy().tobytes() for one in found}) == 8


def test_a_crop_is_a_part_of_8_to_100_percent_and_of_3_to_4_up_to_4_to_3_in_shape():
    found = augmentations.random_resized_crop(places(2_000), generator(1))
    rows, columns = found[:, 0], found[:, 1]
    torch.testing.assert_close(rows, rows[:, :, :1].expand_as(rows))  # no rotation and no shear
    torch.testing.assert_close(columns, columns[:, :1].expand_as(columns))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, HEIGHT - 1, 0, WIDTH - 1)
    height, width = rows[:, -1, 0] - rows[:, 0, 0] + 1, columns[:, 0, -1] - columns[:, 0, 0] + 1
    assert (height > 1).all()  # not mirrored
    assert (width > 1).all()
    area, shape = height * width / (HEIGHT * WIDTH), width / height
    assert 0.07 < area.min() < 0.12  # sides are whole pixels
    assert 0.95 < area.max() <= 1
    assert 0.4 < area.mean() < 0.55  # uniform, but the largest do not fit in every shape
    assert 0.68 < shape.min() < 0.8
    assert 1.25 < shape.max() < 1.42
    steps = rows.diff(dim=1)[:, :, 0]
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps), atol=1e-3, rtol=0)  # evenly enlarged


def test_a_rotation_is_by_up_to_30_degrees_about_the_centre():
    found = augmentations.random_rotate(places(2_000), generator(1))
    middle = found[:, :, HEIGHT // 2, WIDTH // 2]
    torch.testing.assert_close(middle, torch.tensor([HEIGHT // 2.0, WIDTH // 2.0]).expand_as(middle))
    right = found[:, :, HEIGHT // 2, WIDTH // 2 + 5] - middle  # five pixels to the right, turned
    torch.testing.assert_close(right.norm(dim=1), torch.full((2_000,), 5.0), atol=1e-3, rtol=0)
    degrees = torch.rad2deg(torch.atan2(right[:, 0], right[:, 1]))
    assert -30.01 < degrees.min() < -29
    assert 29 < degrees.max() < 30.01
    assert degrees.mean().abs() < 1.6  # four standard deviations of the mean
    assert degrees.std().item() == pytest.approx(60 / 12**0.5, rel=0.05)  # uniform


def test_corners_that_a_rotation_leaves_without_ground_are_zero():
    found = augmentations.random_rotate(torch.ones(50, 1, 40, 40), generator(2))
    assert found.min() == 0
    assert found.max() == pytest.approx(1)
    empty = (found == 0).flatten(1).float().mean(dim=1)
    assert 0.05 < empty.max() < 0.25
    torch.testing.assert_close(found[:, :, 12:28, 12:28], torch.ones(50, 1, 16, 16))  # never in the middle


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("augment", BOTH)
def test_cuda_gives_what_the_cpu_gives(augment):
    images, before = places(16), torch.cuda.get_rng_state()
    expected, found = augment(images, generator(3)), augment(images.cuda(), generator(3))
    assert found.device.type == "cuda"
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), expected, atol=0.05, rtol=0)  # of a pixel
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_images_are_turned_in_all_ways_that_cover_the_same_ground():
    image = torch.arange(9.0).view(1, 1, 3, 3)
    ways = {tuple(k.flatten().tolist()) for f in (image, image.flip(3)) for k in (f.rot90(q, (2, 3)) for q in range(4))}
    found = augmentations.turned(image.repeat(800, 1, 1, 1), Generator().manual_seed(0))
    counts = [sum(tuple(one.flatten().tolist()) == way for one in found) for way in ways]
    assert len(ways) == 8
    assert sum(counts) == 800
    assert min(counts) > 60
    wide = torch.arange(6.0).view(1, 1, 2, 3).repeat(100, 1, 1, 1)
    assert len({tuple(one.flatten().tolist()) for one in augmentations.turned(wide, Generator())}) == 4
