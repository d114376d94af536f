"""The one training loop: schedule, best epoch, determinism, exact resume, several devices, errors."""

import json
import math
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from safetensors.torch import save_file
from torch import Generator, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from rsbook import checkpoints, mixing, models, training
from rsbook.positions import AreaTables

SETTINGS = {"seed": 3, "epochs": 4, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu", "progress": False}
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Toy:
    """Sixteen random images whose label is learnable, with noise from the generator; watches minus the loss."""

    size, watch = 16, "fit"

    def __init__(self, stop_at=None, how=KeyError, noise=0.1):
        generator = Generator().manual_seed(0)
        self.images = torch.randn(16, 3, 32, 32, generator=generator)
        self.labels = (self.images[:, :, :16].mean(dim=(2, 3)) > 0).float()
        self.stop_at, self.how, self.noise, self.evaluated = stop_at, how, noise, 0

    def to(self, device):
        self.images, self.labels = self.images.to(device), self.labels.to(device)

    def batch(self, index, generator):
        images = self.images[index.to(self.images.device)]
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return images + self.noise * noise, self.labels[index.to(self.images.device)]

    def loss(self, model, batch, epoch=0):
        return binary_cross_entropy_with_logits(model(batch[0]), batch[1])

    def evaluate(self, model):
        self.evaluated += 1
        if self.evaluated == self.stop_at:
            raise self.how
        model.eval()
        with torch.no_grad():
            return {"fit": -self.loss(model, (self.images, self.labels)).item(), "evaluated": self.evaluated}


class Scripted(Toy):
    """Reports given values of its metric, and remembers the weights that it was shown."""

    def __init__(self, values):
        super().__init__()
        self.values, self.shown = iter(values), []

    def evaluate(self, model):
        self.shown.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"fit": next(self.values)}


def network(kind="convolutions"):
    """Convolutions wider than one pixel and band, since only their weights have more than one memory order."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        if kind == "linear":
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
        convolutions = nn.Conv2d(3, 6, 3, stride=4), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2)
        dropout = nn.Dropout(0.5 if kind == "dropout" else 0)
        return nn.Sequential(*convolutions, nn.Flatten(), dropout, nn.Linear(36, 3))


def fit(task=None, kind="convolutions", **changes):
    model = network(kind)
    return training.fit(model, task or Toy(), **{**SETTINGS, **changes}), model.state_dict()


def differing_bits(first, second):
    assert first.keys() == second.keys()
    pairs = [(first[k].contiguous().numpy().tobytes(), second[k].contiguous().numpy().tobytes()) for k in first]
    assert all(len(a) == len(b) for a, b in pairs)
    return sum((x ^ y).bit_count() for a, b in pairs for x, y in zip(a, b, strict=True))


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """Where checkpoints go, written after every epoch."""
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    return tmp_path / "deeper" / "run.safetensors"


# Schedule


def slow_learning_rate(step, steps, peak):
    """The rule of the authors' other code, one step at a time."""
    if steps > 10_000:
        warm_up = 10_000
    elif steps > 100:
        warm_up = 100
    else:
        warm_up = 0
    if step < warm_up:
        return peak / 10 + (peak - peak / 10) * step / warm_up
    return peak / 10 + (peak - peak / 10) * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up))) / 2


@pytest.mark.parametrize("steps", [1, 2, 99, 100, 101, 102, 5000, 10_000, 10_001, 20_000])
def test_learning_rates_follow_the_rule(steps):
    expected = [slow_learning_rate(step, steps, 5e-4) for step in range(steps)]
    np.testing.assert_allclose(training.learning_rates(steps, 5e-4), expected, rtol=1e-12)


def test_learning_rates_rise_from_a_tenth_and_fall_to_a_tenth():
    rates = training.learning_rates(7274, 5e-4)  # DeepGlobe-ML
    assert rates[0] == pytest.approx(5e-5)
    assert np.argmax(rates) == 100
    assert rates[100] == 5e-4
    assert rates[-1] == pytest.approx(5e-5, rel=1e-3)
    assert (np.diff(rates[:101]) > 0).all()
    assert (np.diff(rates[100:]) < 0).all()


def test_the_optimiser_takes_the_rate_of_each_step(monkeypatch):
    taken, step = [], torch.optim.AdamW.step

    def spy(self, *arguments, **keywords):
        taken.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    history, _ = fit(epochs=3)
    assert taken == training.learning_rates(6, SETTINGS["learning_rate"]).tolist()
    assert [row["learning_rate"] for row in history] == taken[1::2]


# What comes out


def test_loss_falls_on_a_learnable_problem():
    history, _ = fit(epochs=30, kind="linear")
    assert [row["epoch"] for row in history] == list(range(1, 31))
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["fit"] > history[0]["fit"]


@pytest.mark.parametrize(
    ("values", "best"),
    [([1, 4, 2, 3], 1), ([4, 3, 2, 1], 0), ([1, 2, 3, 4], 3), ([-3, -1, -1, -2], 1), ([0, 0, 0, 0], 0)],
)
def test_model_holds_the_weights_of_the_first_best_epoch(values, best):
    task = Scripted(values)
    history, weights = fit(task)
    assert [row["fit"] for row in history] == values
    assert max(history, key=lambda row: row["fit"])["epoch"] == best + 1
    assert differing_bits(weights, task.shown[best]) == 0
    assert all(differing_bits(weights, shown) for i, shown in enumerate(task.shown) if i != best)


@pytest.mark.parametrize(("every", "expected"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])])
def test_evaluates_every_so_many_epochs_and_after_the_last(every, expected):
    task = Toy()
    history, _ = fit(task, epochs=5, evaluate_every=every)
    assert [row["epoch"] for row in history] == expected
    assert task.evaluated == len(expected)


def test_every_epoch_sees_every_sample_once_in_an_order_of_its_own():
    class Spy(Toy):
        size = 19  # 19 // 8 = 2 batches; three samples sit out, other ones each time

        def __init__(self):
            super().__init__()
            self.seen = []

        def batch(self, index, generator):
            self.seen.append(index.tolist())
            return super().batch(index % 16, generator)

    task = Spy()
    fit(task, epochs=6)
    epochs = [task.seen[i] + task.seen[i + 1] for i in range(0, 12, 2)]
    assert all(len(set(epoch)) == 16 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert set().union(*epochs) == set(range(19))


def test_any_task_trains_through_the_same_loop():
    class Segmentation:
        """One class a pixel, cross-entropy over the pixels: nothing of the classification task."""

        size, watch = 8, "pixels"

        def __init__(self):
            self.images = torch.randn(8, 1, 8, 8, generator=Generator().manual_seed(0))
            self.maps = (self.images[:, 0] > 0).long()

        def to(self, device):
            self.images, self.maps = self.images.to(device), self.maps.to(device)

        def batch(self, index, generator):
            return {"images": self.images[index], "maps": self.maps[index]}

        def loss(self, model, batch, epoch=0):
            return cross_entropy(model(batch["images"]), batch["maps"])

        def evaluate(self, model):
            return {"pixels": (model(self.images).argmax(dim=1) == self.maps).float().mean().item()}

    model = nn.Conv2d(1, 2, 3, padding=1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    settings = {**SETTINGS, "epochs": 40, "batch_size": 4, "learning_rate": 0.1}
    history = training.fit(model, Segmentation(), **settings)
    assert history[-1]["pixels"] > 0.95
    assert history[-1]["loss"] < history[0]["loss"]


def test_progress_goes_to_stderr_only_when_asked(capfd):
    fit(progress=False)
    assert capfd.readouterr() == ("", "")
    fit(progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "4/4" in err
    assert "fit=" in err
    fit(progress=True, stop_after=2)
    assert "2/2" in capfd.readouterr()[1]


@pytest.mark.parametrize("kind", ["convolutions", "dropout"])
@pytest.mark.parametrize(("stop_after", "every"), [(1, 1), (3, 1), (5, 1), (6, 1), (3, 2), (4, 3)])
def test_stopped_early_is_the_first_epochs_of_the_whole_training_bit_for_bit(kind, stop_after, every):
    whole, rising = Scripted(range(6)), Scripted(range(6))
    expected, _ = fit(whole, kind=kind, epochs=6)
    found, weights = fit(rising, kind=kind, epochs=6, stop_after=stop_after, evaluate_every=every)
    assert [row["epoch"] for row in found] == [e for e in range(1, stop_after + 1) if e % every == 0 or e == stop_after]
    for row in found:
        assert {**row, "fit": None} == {**expected[row["epoch"] - 1], "fit": None}
    assert differing_bits(weights, whole.shown[stop_after - 1]) == 0  # the best, as each is better than the one before


def test_a_batch_is_made_in_full_precision_and_the_loss_in_that_of_the_device(monkeypatch):
    class Spy(Toy):
        def batch(self, index, generator):
            precision["batch"] = torch.is_autocast_enabled("cpu")
            return super().batch(index, generator)

        def loss(self, model, batch, epoch=0):
            precision["loss"] = torch.is_autocast_enabled("cpu")
            return super().loss(model, batch, epoch)

    precision = {}
    mixed = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")  # as on a GPU
    monkeypatch.setattr(training, "_fabric", lambda device, devices: mixed)
    fit(Spy())
    assert precision == {"batch": False, "loss": True}


# Classification


CPU = torch.device("cpu")


@pytest.fixture
def classification(tiny_scenes):
    def make(augment=lambda images, labels, positions, generator: (images, labels.float()), **given):
        return training.Classification(
            tiny_scenes, tiny_scenes.split("train"), tiny_scenes.split("val"), augment, **given
        )

    return make


# Of the data on the device: nothing, the images (4608 bytes) but not the tables (10608 bytes), or all.
ROOMS = {"nothing": 0, "images": 10_608, "all": 10_609}


@pytest.fixture(params=ROOMS)
def room(request, monkeypatch):
    monkeypatch.setattr(training, "room", lambda device: ROOMS[request.param])
    return request.param


def test_classification_hands_normalised_images_labels_and_positions_to_augment(tiny_scenes, room):
    given = []

    def augment(images, labels, positions, generator):
        given.append((images, labels, positions, generator))
        return images * 0, labels * 0.5

    train, generator = torch.tensor([9, 2, 14, 5, 0, 7, 12, 1]), Generator()  # in an order of their own
    bits = tiny_scenes.positions[train].flip(2)  # others than the data set's
    task = training.Classification(tiny_scenes, train, tiny_scenes.split("val"), augment, positions=bits)
    task.to(CPU)
    images, labels = task.batch(torch.tensor([3, 1]), generator)
    scene = torch.tensor([5, 2])
    assert torch.equal(given[0][0], tiny_scenes.normalise(tiny_scenes.images[scene]))
    assert torch.equal(given[0][1], tiny_scenes.labels[scene])
    assert isinstance(given[0][2], AreaTables) == (room == "all")
    found = given[0][2].bits if room == "all" else given[0][2]
    assert torch.equal(found, tiny_scenes.positions[scene].flip(2))
    assert given[0][3] is generator
    assert images.abs().sum() == 0
    assert torch.equal(labels, tiny_scenes.labels[scene] * 0.5)


@pytest.mark.parametrize("room", ["images", "nothing"], indirect=True)
@pytest.mark.parametrize("kind", ["area labels", "boxes", "favoured", "blobs"])
def test_streaming_trains_to_the_same_bits_as_data_on_the_device(tiny_scenes, classification, room, kind, monkeypatch):
    def augment(images, labels, where, generator):
        mix = mixing.fmix if kind == "blobs" else mixing.cutmix
        more = {"class_weights": torch.tensor([1.0, 2.0, 3.0])} if kind == "favoured" else {}
        mixed = mix(images, labels, where, area_range=(0.3, 0.7), min_pixels=5, generator=generator, **more)
        return mixed.images, mixed.labels

    def trained():
        given = {} if kind == "area labels" else {"positions": tiny_scenes.positions[tiny_scenes.split("train")]}
        model = models.classifier("narrow_resnet", 3, 3, Generator().manual_seed(0))
        task = classification(augment, **given)
        history = training.fit(model, task, **{**SETTINGS, "batch_size": 4, "epochs": 2})
        return history, model.state_dict(), isinstance(task.where, AreaTables)

    history, weights, resident = trained()
    assert not resident
    monkeypatch.setattr(training, "room", lambda device: ROOMS["all"])
    expected, same, resident = trained()
    assert resident == (kind != "area labels")
    assert history == expected
    assert differing_bits(weights, same) == 0


def test_images_that_do_not_fit_stay_in_their_file(tiny_scenes, room, tmp_path):
    tiny_scenes.images.numpy().tofile(tmp_path / "images")
    size = tiny_scenes.images.numel()
    mapped = torch.from_file(str(tmp_path / "images"), shared=False, size=size, dtype=torch.uint8)
    data = replace(tiny_scenes, images=mapped.view(tiny_scenes.images.shape))
    task = training.Classification(
        data, data.split("train"), data.split("val"), lambda images, labels, *_: (images, labels)
    )
    assert task.images.data_ptr() == mapped.data_ptr()
    task.to(CPU)
    if room == "nothing":
        assert task.images.data_ptr() == mapped.data_ptr()
    else:
        assert torch.equal(task.images, data.images[data.split("train")])  # a copy of these and no others
        assert task.images.untyped_storage().nbytes() == 4608
    images, _ = task.batch(torch.tensor([7, 0]), Generator())
    assert torch.equal(images, data.normalise(tiny_scenes.images[[7, 0]]))


def test_the_room_for_data_is_a_quarter_of_what_is_free(monkeypatch):
    monkeypatch.setattr(training.psutil, "virtual_memory", lambda: SimpleNamespace(available=4001))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (801, 10**6))
    assert training.room(CPU) == 1000
    assert training.room(torch.device("cuda")) == 200


def test_given_labels_stand_in_for_the_data_sets_own_in_training_alone(classification, tiny_scenes):
    other = ~tiny_scenes.labels[tiny_scenes.split("train")]
    task = classification(labels=other)
    task.to(CPU)
    assert torch.equal(task.batch(torch.tensor([6, 1]), Generator())[1], other[[6, 1]].float())
    model = models.classifier("narrow_resnet", 3, 3, Generator().manual_seed(0))
    assert task.evaluate(model) == classification().evaluate(model)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": torch.zeros(7, 3)}, r"labels: has shape \(7, 3\), expected \(8, 3\), one row a training scene"),
        ({"labels": torch.zeros(16, 3)}, r"labels: has shape \(16, 3\), expected \(8, 3\)"),
        ({"labels": torch.zeros(8, 4)}, r"labels: has shape \(8, 4\), expected \(8, 3\)"),
        (
            {"positions": torch.zeros(16, 12, 16)},
            r"positions: has shape \(16, 12, 16\), expected \(8, 12, 16\), one row",
        ),
        ({"positions": torch.zeros(8, 16, 12)}, r"positions: has shape \(8, 16, 12\), expected \(8, 12, 16\)"),
        ({"positions": torch.zeros(8, 3, 12, 16)}, r"positions: has shape \(8, 3, 12, 16\)"),
    ],
)
def test_labels_and_positions_that_do_not_fit_are_errors(classification, given, message):
    with pytest.raises(ValueError, match=message):
        classification(**given)


@pytest.mark.parametrize("labels", [[[1.0, 0.0], [0.0, 1.0]], [[0.3, 0.7], [0.0, 0.5]]])
def test_classification_loss_is_the_mean_cross_entropy_of_soft_or_hard_labels(classification, labels):
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.0]])
    expected = []
    for logit, label in zip(logits.flatten().tolist(), np.ravel(labels), strict=True):
        score = 1 / (1 + math.exp(-logit))
        expected.append(-label * math.log(score) - (1 - label) * math.log(1 - score))
    found = classification().loss(lambda images: logits, (torch.zeros(2, 3, 4, 4), torch.tensor(labels)), 0)
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-6)


def test_classification_trains_and_is_scored_on_the_validation_split(classification, tiny_scenes):
    model = models.classifier("narrow_resnet", 3, 3, Generator().manual_seed(0))
    history = training.fit(model, classification(), **SETTINGS)
    best = max(history, key=lambda row: row["map_macro"])
    val = tiny_scenes.split("val")
    found = training.score(training.predict(model, tiny_scenes, val), tiny_scenes.labels[val])
    assert found == {name: best[name] for name in found}
    assert json.loads(json.dumps(history)) == history


def test_predict_gives_the_same_scores_in_any_batch_size_and_order(tiny_scenes):
    model = models.classifier("narrow_resnet", 3, 3, Generator().manual_seed(0))
    whole = training.predict(model, tiny_scenes, torch.arange(16))
    parts = training.predict(model, tiny_scenes, torch.arange(16), batch_size=5)
    assert whole.shape == (16, 3)
    assert ((whole > 0) & (whole < 1)).all()
    torch.testing.assert_close(whole, parts)
    some = torch.tensor([11, 3, 3, 15])
    torch.testing.assert_close(training.predict(model, tiny_scenes, some), whole[some])
    assert len({tuple(row) for row in whole.tolist()}) == 16


def test_score_reports_absent_classes_as_none():
    scores = torch.tensor([[0.9, 0.2], [0.1, 0.3]])
    found = training.score(scores, torch.tensor([[True, False], [False, False]]))
    assert found == {"map_macro": 1, "map_micro": 1, "average_precision": [1, None]}


def test_augment_gets_no_positions_that_nobody_asked_for(classification):
    given = []
    task = classification(lambda images, labels, positions, generator: given.append(positions) or (images, labels))
    task.to(CPU)
    task.batch(torch.arange(4), Generator())
    assert given == [None]


# Determinism


@pytest.mark.parametrize("kind", ["convolutions", "dropout"])
def test_same_seed_same_bytes_other_seed_other_weights(kind):
    torch.manual_seed(1)
    history, weights = fit(kind=kind)
    torch.manual_seed(2)
    again, same = fit(kind=kind)
    assert history == again
    assert differing_bits(weights, same) == 0
    assert differing_bits(weights, fit(kind=kind, seed=4)[1])


def test_seeds_and_epochs_draw_from_streams_of_their_own():
    states = {training.seeded(seed, epoch).initial_seed() for seed in range(30) for epoch in range(30)}
    assert len(states) == 900


def test_global_random_states_are_left_as_they_were(checkpoint):
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    fit(kind="dropout", checkpoint=checkpoint)
    with pytest.raises(KeyError):
        fit(Toy(stop_at=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


# Resume


@pytest.mark.parametrize("kind", ["convolutions", "dropout"])
@pytest.mark.parametrize(("stop_at", "every"), [(2, 1), (4, 1), (2, 2), (3, 2), (2, 3)])
def test_resumed_training_equals_an_uninterrupted_one_bit_for_bit(checkpoint, kind, stop_at, every):
    settings = {"epochs": 6, "evaluate_every": every}
    expected, weights = fit(kind=kind, **settings)
    with pytest.raises(KeyError):
        fit(Toy(stop_at=stop_at), kind=kind, checkpoint=checkpoint, **settings)
    task = Toy()
    task.evaluated = stop_at - 1
    history, resumed = fit(task, kind=kind, checkpoint=checkpoint, **settings)
    assert history == expected
    assert differing_bits(weights, resumed) == 0
    assert task.evaluated == len(expected)  # it went on, it did not start again


def test_resumed_at_every_epoch_equals_an_uninterrupted_one(checkpoint):
    expected, weights = fit()
    for epoch in (2, 3, 4):
        task = Toy(stop_at=epoch)
        task.evaluated = epoch - 2
        with pytest.raises(KeyError):
            fit(task, checkpoint=checkpoint)
    task = Toy()
    task.evaluated = 3
    history, resumed = fit(task, checkpoint=checkpoint)
    assert history == expected
    assert differing_bits(weights, resumed) == 0


def test_a_training_to_be_stopped_early_resumes_and_is_not_taken_for_the_whole(checkpoint):
    settings = {"epochs": 6, "stop_after": 4}
    expected, weights = fit(**settings)
    with pytest.raises(KeyError):
        fit(Toy(stop_at=3), checkpoint=checkpoint, **settings)
    task = Toy()
    task.evaluated = 2
    history, resumed = fit(task, checkpoint=checkpoint, **settings)
    assert (history, task.evaluated) == (expected, 4)
    assert differing_bits(weights, resumed) == 0
    with pytest.raises(ValueError, match=r"belongs to a run with other settings.*'stop_after': 4"):
        fit(checkpoint=checkpoint, epochs=6)


def test_stopping_after_all_epochs_is_not_stopping(checkpoint):
    expected, _ = fit(checkpoint=checkpoint, stop_after=4)
    task = Toy()
    assert fit(task, checkpoint=checkpoint)[0] == expected
    assert task.evaluated == 0


def test_best_epoch_before_the_interruption_is_kept(checkpoint):
    class Declining(Scripted):
        def evaluate(self, model):
            found = super().evaluate(model)
            if found["fit"] is None:
                raise KeyError
            return found

    first = Declining([9, 1, None])
    with pytest.raises(KeyError):
        fit(first, checkpoint=checkpoint)
    history, weights = fit(Declining([2, 3]), checkpoint=checkpoint)
    assert [row["fit"] for row in history] == [9, 1, 2, 3]
    assert differing_bits(weights, first.shown[0]) == 0


def test_a_finished_checkpoint_is_not_trained_again(checkpoint):
    expected, weights = fit(checkpoint=checkpoint)
    task = Toy()
    history, same = fit(task, checkpoint=checkpoint)
    assert (history, task.evaluated) == (expected, 0)
    assert differing_bits(weights, same) == 0


def test_killed_process_resumes_bit_for_bit(checkpoint):
    script = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(training.__file__).parents[1])]!r}
import torch
from pathlib import Path
import test_training
from rsbook import checkpoints, training

torch.set_num_threads({torch.get_num_threads()})
checkpoints.SECONDS_BETWEEN_CHECKPOINTS = 0
class Kill(test_training.Toy):
    def batch(self, index, generator):
        self.batches = getattr(self, "batches", 0) + 1
        if self.batches == 6:  # in the middle of the third epoch
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(index, generator)
test_training.fit(Kill(), checkpoint=Path({str(checkpoint)!r}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]
    expected, weights = fit()
    task = Toy()
    task.evaluated = 2
    history, resumed = fit(task, checkpoint=checkpoint)
    assert history == expected
    assert differing_bits(weights, resumed) == 0


def test_no_checkpoint_is_written_before_its_time(tmp_path):
    fit(checkpoint=tmp_path / "run.safetensors")  # a minute has not passed
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_older_checkpoint(checkpoint, monkeypatch):
    with pytest.raises(KeyError):
        fit(Toy(stop_at=2), checkpoint=checkpoint)
    before = checkpoint.read_bytes()

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        fit(checkpoint=checkpoint)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "foreign", "incomplete"])
def test_damaged_checkpoint_is_said_and_training_starts_afresh(checkpoint, damage):
    expected, weights = fit(checkpoint=checkpoint)
    whole = checkpoint.read_bytes()
    if damage == "foreign":
        save_file({"weight": torch.zeros(2)}, checkpoint)
    elif damage == "incomplete":
        save_file({"weight": torch.zeros(2)}, checkpoint, metadata={"rsbook": "{}"})
    else:
        checkpoint.write_bytes({"empty": b"", "garbage": b"\x00garbage" * 99, "truncated": whole[:-99]}[damage])
    with pytest.warns(UserWarning, match=r"run\.safetensors cannot be read .*starts from the beginning"):
        history, again = fit(checkpoint=checkpoint)
    assert history == expected
    assert differing_bits(weights, again) == 0
    assert checkpoint.read_bytes() == whole


def test_half_written_file_of_a_dead_process_is_not_taken_for_a_checkpoint(checkpoint):
    checkpoint.parent.mkdir()
    (checkpoint.parent / f".{checkpoint.name}.123.tmp").write_bytes(b"half")
    expected, weights = fit()
    history, found = fit(checkpoint=checkpoint)
    assert history == expected
    assert differing_bits(weights, found) == 0


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"epochs": 5}, {"learning_rate": 1e-3}, {"weight_decay": 0.1}, {"stop_after": 3}]
)
def test_checkpoint_of_other_settings_is_an_error(checkpoint, change):
    fit(checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=r"run\.safetensors belongs to a run with other settings.*delete or move it"):
        fit(checkpoint=checkpoint, **change)
    assert checkpoint.read_bytes() == before


def test_checkpoint_of_another_network_is_an_error(checkpoint):
    fit(checkpoint=checkpoint)
    with pytest.raises(ValueError, match="belongs to a run with another network"):
        fit(checkpoint=checkpoint, kind="linear")


# Several devices


def test_two_processes_train_a_linear_model_as_one_does(checkpoint):
    alone, weights = fit(Toy(noise=0), kind="linear")
    both, shared = fit(Toy(noise=0), kind="linear", devices=2, checkpoint=checkpoint)
    for name in weights:
        torch.testing.assert_close(shared[name], weights[name], rtol=0, atol=1e-5)
    for one, two in zip(alone, both, strict=True):
        assert two == pytest.approx(one, abs=1e-5)
    again, resumed = fit(Toy(noise=0), kind="linear", devices=2, checkpoint=checkpoint)
    assert again == both
    assert differing_bits(shared, resumed) == 0


def test_two_processes_report_their_error():
    with pytest.raises(RuntimeError, match=r"(?s)in one of 2 processes.*fit is nan in epoch 1"):
        fit(Scripted([math.nan]), devices=2)


# Errors


@pytest.mark.parametrize("rate", [1e30, math.inf])
def test_loss_that_is_not_finite_is_an_error(rate):
    with pytest.raises(RuntimeError, match=r"the loss is (nan|inf) in epoch \d: lower learning_rate="):
        fit(learning_rate=rate)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_metric_that_is_not_finite_is_an_error(value):
    with pytest.raises(RuntimeError, match=f"fit is {value} in epoch 2"):
        fit(Scripted([1.0, value]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs=0: expected a whole number ≥ 1"),
        ({"epochs": 1.5}, "epochs=1.5: expected a whole number"),
        ({"batch_size": 0}, "batch_size=0: expected"),
        ({"batch_size": 17}, "batch_size=17: only 16 training samples"),
        ({"evaluate_every": 0}, "evaluate_every=0: expected"),
        ({"stop_after": 0}, "stop_after=0: expected a whole number ≥ 1"),
        ({"stop_after": 1.0}, "stop_after=1.0: expected a whole number"),
        ({"stop_after": 5}, "stop_after=5: expected at most epochs=4"),
        ({"devices": 0}, "devices=0: expected"),
        ({"devices": 3}, "batch_size=8: not a multiple of devices=3"),
        ({"seed": -1}, "seed=-1: expected a whole number ≥ 0"),
        ({"seed": "42"}, "seed='42': expected a whole number"),
        ({"device": "gpu"}, "device='gpu': expected auto, cpu or cuda"),
        ({"learning_rate": -1.0}, "learning rate: -1.0"),
        ({"learning_rate": math.nan}, "learning rate: nan"),
        ({"weight_decay": -1.0}, "weight_decay value: -1.0"),
    ],
)
def test_settings_that_cannot_be_run_are_errors(change, message):
    before = network().state_dict()
    model = network()
    with pytest.raises(ValueError, match=message):
        training.fit(model, Toy(), **{**SETTINGS, **change})
    assert differing_bits(before, model.state_dict()) == 0


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="devices=2: PyTorch finds 1 here"):
        fit(device="cuda", devices=2)


# CUDA


@gpu
def test_trains_on_cuda_and_resumes(checkpoint):
    expected, _ = fit(device="cuda", epochs=10)
    with pytest.raises(KeyError):
        fit(Toy(stop_at=5), device="cuda", epochs=10, checkpoint=checkpoint)
    task = Toy()
    task.evaluated = 4
    history, weights = fit(task, device="cuda", epochs=10, checkpoint=checkpoint)
    assert len(history) == 10
    assert next(iter(weights.values())).device.type == "cuda"
    assert history[-1]["loss"] == pytest.approx(expected[-1]["loss"], abs=0.05)


@gpu
def test_cuda_comes_near_the_cpu(classification):
    losses = []
    for device in ("cpu", "cuda"):
        model = models.classifier("narrow_resnet", 3, 3, Generator().manual_seed(0))
        losses.append(training.fit(model, classification(), **{**SETTINGS, "device": device})[-1]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


@gpu
def test_on_cuda_too_streaming_gives_the_batches_of_data_on_the_device(tiny_scenes, classification, room):
    given = []

    def augment(images, labels, where, generator):
        given.append(where.bits if isinstance(where, AreaTables) else where)
        return images, labels.float()

    task, index = classification(augment, positions=tiny_scenes.positions[:8]), torch.tensor([6, 1, 3])
    task.to(torch.device("cuda"))
    images, labels = task.batch(index, Generator())
    assert task.images.device.type == ("cpu" if room == "nothing" else "cuda")
    assert images.device.type == labels.device.type == given[0].device.type == "cuda"
    torch.testing.assert_close(images.cpu(), tiny_scenes.normalise(tiny_scenes.images[index]))
    assert torch.equal(labels.cpu(), tiny_scenes.labels[index].float())
    assert torch.equal(given[0].cpu(), tiny_scenes.positions[index])


# No validation scenes decide, and a rate that is halved


class Falling(Toy):
    """Whose val_loss is what it is told, an epoch each."""

    watch = None

    def __init__(self, losses):
        super().__init__()
        self.losses = list(losses)
        self.told = iter(self.losses)

    def evaluate(self, model):
        return {"val_loss": next(self.told)}


def test_without_a_metric_to_watch_the_last_epoch_counts():
    class Unwatched(Scripted):
        watch = None

    task = Unwatched([3, 1, 2])
    history, weights = fit(task, epochs=3)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert differing_bits(weights, task.shown[2]) == 0


def test_the_rate_is_halved_when_the_loss_has_not_fallen_for_long_enough():
    losses = [5, 4, 4, 4, 3, 3, 3, 3, 3, 3]
    history, _ = fit(Falling(losses), epochs=10, schedule="constant", halve_after=1, learning_rate=0.08)
    # two in a row without a lower one: after the fourth, the seventh and the ninth epoch
    assert [row["learning_rate"] for row in history] == [0.08] * 4 + [0.04] * 3 + [0.02] * 2 + [0.01]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    losses=st.lists(st.integers(1, 5).map(float) | st.sampled_from([0.99995, 0.9998, 1.0]), max_size=30),
    patience=st.integers(1, 4),
)
def test_halvings_are_those_of_reduce_on_plateau(losses, patience):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, "min", factor=0.5, patience=patience, threshold=1e-4, eps=0
    )
    for i, loss in enumerate(losses):
        schedule.step(loss)
        assert optimiser.param_groups[0]["lr"] == 0.5 ** training.halvings(losses[: i + 1], patience)


def test_a_halved_rate_is_resumed_as_it_was(checkpoint):
    losses = [5, 5, 5, 4, 4, 4]
    expected, weights = fit(Falling(losses), epochs=6, schedule="constant", halve_after=1)
    with pytest.raises(StopIteration):
        fit(Falling(losses[:4]), epochs=6, schedule="constant", halve_after=1, checkpoint=checkpoint)
    found, resumed = fit(Falling(losses[4:]), epochs=6, schedule="constant", halve_after=1, checkpoint=checkpoint)
    assert found == expected
    assert differing_bits(weights, resumed) == 0


def test_a_validation_loss_that_is_no_number_ends_the_training():
    with pytest.raises(RuntimeError, match="val_loss is nan in epoch 2"):
        fit(Falling([1.0, math.nan, 1.0, 1.0]))


def test_a_constant_rate_stays_and_a_warm_up_has_the_length_that_is_given():
    history, _ = fit(epochs=3, schedule="constant", learning_rate=0.01)
    assert [row["learning_rate"] for row in history] == [0.01] * 3
    rates = training.learning_rates(140, 1.0, warm_up=10)
    assert rates[:11].tolist() == pytest.approx([0.1 + 0.09 * i for i in range(11)])
    assert rates.argmax() == 10
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    assert training.learning_rates(140, 1.0).argmax() == 100  # the rule


def test_a_linear_rate_falls_by_the_same_amount_in_each_step_until_nothing_is_left():
    rates = training.learning_rates(8, 0.04, schedule="linear").tolist()
    assert rates == pytest.approx([0.04 - 0.005 * step for step in range(8)])
    history, _ = fit(epochs=3, schedule="linear", learning_rate=0.01)
    assert [row["learning_rate"] for row in history] == sorted((r["learning_rate"] for r in history), reverse=True)
    assert history[-1]["learning_rate"] < history[0]["learning_rate"] < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "constant", "halve_after": 0}, "halve_after=0: expected a whole number ≥ 1"),
        ({"warm_up": 0}, "warm_up=0: expected a whole number ≥ 1"),
        ({"schedule": "steps"}, "schedule='steps': expected one of cosine, linear, poly, constant"),
        ({"schedule": "linear", "halve_after": 3}, "halve_after goes with a constant schedule"),
        ({"schedule": "linear", "warm_up": 3}, "warm_up with a cosine"),
        ({"halve_after": 3}, "halve_after goes with a constant schedule"),
        ({"schedule": "constant", "warm_up": 3}, "warm_up with a cosine"),
    ],
)
def test_schedules_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fit(**change)


# SGD


def slow_sgd(model, task, steps, momentum, clip_norm, factors, weight_decay=0.1, peak=0.05):
    """One step after another, by the formula: g ← clipped gradient + λw; v ← μv + g; w ← w − lr·factor·v."""
    speed = {}
    rates = [peak * (1 - step / steps) ** 0.9 for step in range(steps)]
    generator_of = {epoch: training.seeded(SETTINGS["seed"], epoch, 0, 1) for epoch in range(steps // 2)}
    for step in range(steps):
        epoch = step // 2
        if step % 2 == 0:
            order = torch.randperm(16, generator=training.seeded(SETTINGS["seed"], epoch))
            generator = generator_of[epoch]
            torch.randint(2**62, (), generator=generator)
            model.train()
        batch = task.batch(order[8 * (step % 2) : 8 * (step % 2) + 8], generator)
        model.zero_grad()
        task.loss(model, batch, epoch).backward()
        norm = torch.stack([weight.grad.norm() for weight in model.parameters()]).norm().item()
        scale = min(1.0, clip_norm / (norm + 1e-6))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                gradient = weight.grad * scale + weight_decay * weight
                speed[name] = momentum * speed[name] + gradient if step else gradient
                weight -= rates[step] * factors.get(name, 1.0) * speed[name]


def test_sgd_with_momentum_clipping_and_factors_is_the_formula():
    factors = {"6.weight": 10.0, "6.bias": 20.0}
    expected, task = network(), Toy()
    task.to(torch.device("cpu"))
    slow_sgd(expected, task, 6, 0.9, 0.5, factors)
    options = {"momentum": 0.9, "clip_norm": 0.5, "factors": factors, "schedule": "poly", "weight_decay": 0.1}
    _, found = fit(epochs=3, learning_rate=0.05, **options)
    for name, weight in expected.state_dict().items():
        assert torch.allclose(found[name].float(), weight.float(), atol=1e-5), name


def test_patterns_of_names_give_factors_and_the_first_that_fits_decides():
    model = network()
    settings = {"learning_rate": 1.0, "weight_decay": 0.0, "momentum": None, "factors": {"6.b*": 20, "6.*": 10}}
    groups = training._optimiser(model, settings).param_groups
    named = {weight: name for name, weight in model.named_parameters()}
    found = {named[weight]: group["factor"] for group in groups for weight in group["params"]}
    assert found.pop("6.bias") == 20
    assert found.pop("6.weight") == 10
    assert set(found.values()) == {1.0}


@pytest.mark.parametrize("momentum", [0.0, 5e-4, 0.9])
def test_sgd_resumes_bit_for_bit(checkpoint, momentum):
    settings = {"momentum": momentum, "clip_norm": 1.0, "factors": {"6.*": 10.0}, "schedule": "poly"}
    expected, weights = fit(**settings)
    with pytest.raises(KeyError):
        fit(Toy(stop_at=3), checkpoint=checkpoint, **settings)
    task = Toy()
    task.evaluated = 2
    history, resumed = fit(task, checkpoint=checkpoint, **settings)
    assert history == expected
    assert differing_bits(weights, resumed) == 0


def test_the_poly_schedule_falls_with_the_power_of_nine_tenths():
    rates = training.learning_rates(20_000, 2.5e-4, schedule="poly")
    assert rates[[0, 10_000, 19_999]].tolist() == pytest.approx([2.5e-4, 2.5e-4 * 0.5**0.9, 2.5e-4 / 20_000**0.9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"momentum": 1.0}, "momentum=1.0: expected a number ≥ 0, below 1"),
        ({"momentum": -0.1}, "momentum=-0.1: expected"),
        ({"momentum": math.nan}, "momentum=nan: expected"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0: expected a number ≥ 0"),
        ({"factors": {"head.*": 10.0}}, r"factors=.*: no parameter is called 'head\.\*'; expected some of"),
    ],
)
def test_settings_of_sgd_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fit(**change)
