"""Segmentation: losses against loops and a kept library, augmentation against single pixels, the task."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from segmentation_models_pytorch.losses import DiceLoss
from torch import Generator, nn

from rsbook import positions, segmentation, training

CPU = torch.device("cpu")


def draw(seed=0, unlabelled=0.2, classes=4):
    """Logits (3,K,5,6), maps with some pixels without a label, and weights."""
    generator = Generator().manual_seed(seed)
    logits = torch.randn(3, classes, 5, 6, generator=generator)
    maps = torch.randint(classes, (3, 5, 6), generator=generator)
    maps[torch.rand(maps.shape, generator=generator) < unlabelled] = -1
    return logits, maps, torch.rand(maps.shape, generator=generator)


def pixels(maps):
    return list(itertools.product(*map(range, maps.shape)))


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropy_is_the_weighted_mean_over_labelled_pixels(seed):
    logits, maps, weights = draw(seed)
    total, norm = 0.0, 0.0
    for b, y, x in pixels(maps):
        if maps[b, y, x] >= 0:
            q = logits[b, :, y, x].double().softmax(dim=0)
            total -= weights[b, y, x].item() * math.log(q[maps[b, y, x]])
            norm += weights[b, y, x].item()
    assert segmentation.weighted_cross_entropy(logits, maps, weights).item() == pytest.approx(total / norm, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_dice_sums_over_the_batch_and_leaves_absent_classes_out(seed):
    logits, maps, weights = draw(seed, classes=5)
    maps[maps == 2] = 1  # an absent class
    q = logits.double().softmax(dim=1)
    losses = []
    for c in range(5):
        both = either = 0.0
        for b, y, x in pixels(maps):
            if maps[b, y, x] >= 0:
                w, p, label = weights[b, y, x].item(), q[b, c, y, x].item(), float(maps[b, y, x] == c)
                both += w * p * label
                either += w * (p + label)
        losses.append(1 - 2 * both / either if (maps == c).any() else 0.0)
    found = segmentation.weighted_dice(logits.softmax(dim=1), maps, weights)
    assert found.item() == pytest.approx(sum(losses) / 5, rel=1e-5)


def test_dice_without_weights_is_that_of_segmentation_models_pytorch():
    logits, maps, _ = draw(classes=5)
    maps[maps == 2] = 1
    ours = segmentation.weighted_dice(logits.softmax(dim=1), maps, torch.ones(maps.shape))
    theirs = DiceLoss("multiclass", ignore_index=-1)(logits, maps)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("seed", range(3))
def test_consistency_is_the_weighted_mean_of_the_divergence_from_the_teacher(seed):
    student, maps, weights = draw(seed)
    teacher, _, _ = draw(seed + 10)
    total = 0.0
    for b, y, x in pixels(maps):
        p, q = (logits[b, :, y, x].double().softmax(dim=0).tolist() for logits in (teacher, student))
        total += weights[b, y, x].item() * sum(t * math.log(t / s) for t, s in zip(p, q, strict=True))
    found = segmentation.consistency(student, teacher, weights)
    assert found.item() == pytest.approx(total / weights.sum().item(), rel=1e-5)


def test_only_the_student_learns_and_no_weight_has_a_gradient():
    student, _, weights = draw()
    teacher = student.flip(0).clone().requires_grad_()
    student.requires_grad_()
    segmentation.consistency(student, teacher, weights).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


def test_with_a_detached_teacher_divergence_and_cross_entropy_pull_alike():
    """Why the authors' code may use cross-entropy where the paper has KL."""
    student, _, weights = draw()
    teacher = student.flip(0)
    gradients = []
    for loss in (
        segmentation.consistency,
        lambda s, t, w: (w * -(t.softmax(1) * s.log_softmax(1)).sum(1)).sum() / w.sum(),
    ):
        leaf = student.clone().requires_grad_()
        loss(leaf, teacher, weights).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)


def test_losses_of_maps_without_a_label_are_zero_and_finite():
    logits, maps, weights = draw(unlabelled=1.1)
    logits.requires_grad_()
    loss = segmentation.supervised(logits, maps, weights)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


def test_unweighted_is_a_weight_of_one():
    logits, maps, _ = draw()
    torch.testing.assert_close(
        segmentation.supervised(logits, maps), segmentation.supervised(logits, maps, torch.ones(maps.shape))
    )


# Augmentation


def numbered(n=64, height=8, width=8):
    """Images whose single band holds the same numbers as their maps, so that both must move alike."""
    maps = torch.arange(height * width).view(1, height, width).repeat(n, 1, 1)
    return maps[:, None].float(), maps


def test_images_and_maps_move_alike(monkeypatch):
    monkeypatch.setattr(segmentation, "TURNED", 0.0)
    images, maps = numbered()
    before = images.clone()
    found, labels = segmentation.augment(images, maps, Generator().manual_seed(0))
    assert torch.equal(found[:, 0].long(), labels)
    assert torch.equal(images, before)
    flips = {name: maps[0].flip(axes) for name, axes in (("left", (-1,)), ("up", (-2,)), ("both", (-1, -2)))}
    kinds = [next((n for n, f in flips.items() if torch.equal(one, f)), "none") for one in labels]
    assert {*kinds} == {"left", "up", "both", "none"}
    assert 20 <= kinds.count("none") <= 44  # half of 64


@pytest.mark.parametrize("degrees", [90, -90, 180, 0])
def test_quarter_turns_are_exact(degrees):
    images, maps = numbered(2)
    images, labels = segmentation.rotate(images, maps, torch.full((2,), math.radians(degrees)))
    expected = torch.rot90(maps, -degrees // 90, (1, 2))
    assert torch.equal(labels, expected)
    torch.testing.assert_close(images[:, 0], expected.float(), atol=1e-3, rtol=0)


def test_a_rotation_takes_each_pixel_from_where_it_came():
    """By hand, pixel by pixel: the nearest pixel of the map at the place turned back, mirrored at the edges."""
    _, maps = numbered(1, 7, 7)
    angle = math.radians(20)
    _, labels = segmentation.rotate(maps[:, None].float(), maps, torch.tensor([angle]))
    for y, x in itertools.product(range(7), range(7)):
        back_x = math.cos(angle) * (x - 3) + math.sin(angle) * (y - 3) + 3
        back_y = math.cos(angle) * (y - 3) - math.sin(angle) * (x - 3) + 3
        back_x, back_y = (-0.5 + abs(v + 0.5) if v < 3 else 6.5 - abs(6.5 - v) for v in (back_x, back_y))
        if min(abs(back_x % 1 - 0.5), abs(back_y % 1 - 0.5)) > 1e-3:  # no tie
            assert labels[0, y, x] == maps[0, round(back_y), round(back_x)]


def test_about_a_fifth_is_turned(monkeypatch):
    monkeypatch.setattr(segmentation, "FLIPPED", 0.0)
    images, maps = numbered(1000, 4, 4)
    _, labels = segmentation.augment(images, maps, Generator().manual_seed(1))
    assert (labels != maps).flatten(1).any(dim=1).float().mean() == pytest.approx(0.2, abs=0.05)


def test_no_class_appears_that_was_not_there_and_none_stays_none():
    maps = torch.full((64, 9, 9), 3)
    maps[:, :, :4] = -1
    _, labels = segmentation.augment(torch.zeros(64, 1, 9, 9), maps, Generator().manual_seed(0))
    assert labels.unique().tolist() == [-1, 3]


def test_crops_come_from_everywhere_and_keep_maps_with_their_images(monkeypatch):
    monkeypatch.setattr(segmentation, "TURNED", 0.0)
    monkeypatch.setattr(segmentation, "FLIPPED", 0.0)
    images, maps = numbered(200, 8, 8)
    found, labels = segmentation.augment(images, maps, Generator().manual_seed(0), size=6)
    assert found.shape == (200, 1, 6, 6)
    assert torch.equal(found[:, 0].long(), labels)
    corners = {divmod(int(one[0, 0]), 8) for one in labels}
    assert corners == set(itertools.product(range(3), range(3)))
    assert segmentation.augment(images, maps, Generator().manual_seed(0), size=8)[0].shape == (200, 1, 8, 8)


def test_the_same_generator_gives_the_same_batch():
    images, maps = numbered()
    first, second = (segmentation.augment(images, maps, Generator().manual_seed(3), 5) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# The task


def task(data, **more):
    return segmentation.Segmentation(data, data.split("train"), **more)


def test_batches_hold_normalised_images_and_their_maps(tiny_scenes, monkeypatch):
    monkeypatch.setattr(segmentation, "augment", lambda images, maps, generator, size: (images, maps))
    for room in (0, 10**9):
        monkeypatch.setattr(segmentation, "room", lambda device, room=room: room)
        one = task(tiny_scenes, bands=(2, 0))
        one.to(CPU)
        index = torch.tensor([5, 1])
        images, maps = one.batch(index, Generator().manual_seed(0))
        expected = tiny_scenes.normalise(tiny_scenes.images[tiny_scenes.split("train")[index]])
        assert torch.equal(images, expected[:, [2, 0]])
        assert torch.equal(maps, segmentation.maps_of(tiny_scenes, tiny_scenes.split("train")[index]))
        assert maps.dtype == torch.int64


def test_other_maps_stand_in_for_the_data_sets_own(tiny_scenes, monkeypatch):
    monkeypatch.setattr(segmentation, "augment", lambda images, maps, generator, size: (images, maps))
    others = torch.arange(8)[:, None, None].expand(8, 12, 16) % 3
    for room in (0, 10**9):
        monkeypatch.setattr(segmentation, "room", lambda device, room=room: room)
        one = task(tiny_scenes, maps=others)
        one.to(CPU)
        assert one.batch(torch.tensor([4, 7]), Generator())[1][:, 0, 0].tolist() == [1, 1]


def test_each_step_draws_one_season_of_a_place(tiny_scenes, monkeypatch):
    monkeypatch.setattr(segmentation, "augment", lambda images, maps, generator, size: (images, maps))
    data = replace(tiny_scenes, seasons=4)
    one = task(data)
    one.to(CPU)
    assert one.size == 2
    generator = Generator().manual_seed(0)
    drawn = [one.batch(torch.tensor([1, 0]), generator)[0] for _ in range(40)]
    normalised = data.normalise(data.images[:8])
    seen = [{next(i for i in range(8) if torch.equal(b[k], normalised[i])) for b in drawn} for k in range(2)]
    assert seen == [{4, 5, 6, 7}, {0, 1, 2, 3}]


def test_a_network_learns_the_maps(tiny_scenes):
    images = tiny_scenes.images.clone()
    images[:, 0] = segmentation.maps_of(tiny_scenes, torch.arange(16)).to(torch.uint8) * 100  # a band that tells all
    data = replace(tiny_scenes, images=images)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 3, 1))
    history = training.fit(
        model, task(data), seed=0, epochs=60, batch_size=4, learning_rate=0.03, evaluate_every=60, progress=False
    )
    found = segmentation.confusion(model, data, data.split("test"))
    assert found.shape == (1, 3, 3)
    assert found[0].diagonal().sum() / found.sum() > 0.9
    assert list(history[0]) == ["epoch", "loss", "learning_rate"]


def test_scenes_without_maps_are_refused(tiny_scenes):
    with pytest.raises(ValueError, match="tiny: these scenes have no maps"):
        task(replace(tiny_scenes, positions=None))


def test_confusion_counts_every_modality_and_no_pixel_without_a_class(tiny_scenes):
    bits = tiny_scenes.positions.clone()
    bits[:, :2] = 0
    data = replace(tiny_scenes, positions=bits)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Parameter(torch.zeros(1))

        def forward(self, images):
            logits = torch.zeros(2, len(images), 3, *images.shape[2:])
            logits[0, :, 2] = logits[1, :, 0] = 1
            return logits

    index = data.split("test")
    found = segmentation.confusion(Two(), data, index, batch_size=3)
    counted = positions.count(data.positions[index], 3).sum(dim=0)
    assert torch.equal(found[0][:, 2], counted.long())
    assert torch.equal(found[1][:, 0], counted.long())
    assert found[0].sum() == len(index) * 10 * 16
    with pytest.raises(ValueError, match="tiny: there is no scene to test on"):
        segmentation.confusion(Two(), data, index[:0])


# Photographs


def slow_photograph(image, labels, size, factor, top, left, mirror):
    """Each pixel on its own: image (H,W), labels (H,W); bilinear with zeros around, and the nearest label or −1."""
    height, width = image.shape
    value, found = torch.zeros(size, size), torch.full((size, size), -1)
    for row, column in itertools.product(range(size), range(size)):
        y = (row + 0.5 + top) / factor - 0.5
        x = (column + 0.5 + left) / factor - 0.5
        x = width - 1 - x if mirror else x
        for v, u in itertools.product((math.floor(y), math.floor(y) + 1), (math.floor(x), math.floor(x) + 1)):
            if 0 <= v < height and 0 <= u < width:
                value[row, column] += image[v, u] * (1 - abs(y - v)) * (1 - abs(x - u))
        near = round(y), round(x)
        if 0 <= near[0] < height and 0 <= near[1] < width:
            found[row, column] = labels[near]
    return value, found


@pytest.mark.parametrize(("size", "zoom"), [(6, (0.9, 1.7)), (20, (0.5, 0.8)), (9, (1.0, 1.0))])
def test_photographs_pixel_by_pixel(size, zoom):
    generator = Generator().manual_seed(4)
    images = torch.randn(5, 2, 11, 13, generator=generator)
    maps = torch.randint(-1, 4, (5, 11, 13), generator=generator)
    found, labels = segmentation.augment_photographs(images, maps, Generator().manual_seed(7), size, zoom)
    draws = torch.rand(4, 5, generator=Generator().manual_seed(7)).tolist()
    assert found.shape == (5, 2, size, size)
    assert {draws[3][i] < 0.5 for i in range(5)} == {True, False}
    for i in range(5):
        factor = zoom[0] + (zoom[1] - zoom[0]) * draws[0][i]
        top, left = draws[1][i] * (factor * 11 - size), draws[2][i] * (factor * 13 - size)
        value, label = slow_photograph(images[i, 1], maps[i], size, factor, top, left, draws[3][i] < 0.5)
        assert torch.allclose(found[i, 1], value, atol=1e-4)
        assert (labels[i] == label).float().mean() > 0.97  # ties are rounded either way
    alone, none = segmentation.augment_photographs(images, None, Generator().manual_seed(7), size, zoom)
    assert none is None
    assert torch.equal(alone, found)


@pytest.mark.parametrize(("size", "zoom"), [(0, (1, 2)), (4, (0, 1)), (4, (2, 1))])
def test_photographs_that_cannot_be_cut_are_refused(size, zoom):
    with pytest.raises(ValueError, match=f"size={size}, zoom="):
        segmentation.augment_photographs(torch.zeros(1, 3, 8, 8), None, Generator(), size, zoom)


def test_a_task_with_a_zoom_cuts_photographs(tiny_scenes):
    task = segmentation.Segmentation(tiny_scenes, tiny_scenes.split("train"), crop=7, zoom=(0.5, 1.5))
    task.to(CPU)
    images, maps = task.batch(torch.tensor([1, 0]), Generator().manual_seed(1))
    assert images.shape == (2, 3, 7, 7)
    assert maps.shape == (2, 7, 7)
    assert maps.min() >= -1
