"""CromSS: its losses from the equations, its runs on small made-up scenes, and what is refused."""

import inspect
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, nn

from rsbook import checkpoints, cromss, models, runs, scenes, segmentation, selection

MODALITIES = ["veg", "rgb"]
NOISE = [["class_swap", 0.3, None]]
PRETRAINING = {
    "network": "narrow_resnet",
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "evaluate_every": 1,
    "train_scenes": 8,
    "val_scenes": 4,
}
TRANSFER = {
    "network": "narrow_resnet",
    "depth": 2,
    "width": 8,
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "train_split": "val",
    "train_scenes": 4,
}


@pytest.fixture
def two_modal(tiny_scenes, monkeypatch):
    """The tiny scenes, larger and with two more bands as a second modality, under the name of the embedded ones."""
    grown = tiny_scenes.positions.repeat_interleave(2, 1).repeat_interleave(2, 2)
    bits, labels = scenes.from_maps(segmentation.positions.to_reference_maps(grown, 3), 3, min_pixels=20)
    images = tiny_scenes.images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    data = replace(
        tiny_scenes,
        images=torch.cat([images, images[:, :2].flip(0)], dim=1),
        positions=bits,
        labels=labels,
        min_pixels=20,
        mean=torch.full((5,), 128.0),
        std=torch.full((5,), 64.0),
        modalities={"veg": (3, 4), "rgb": (0, 1, 2)},
    )
    monkeypatch.setattr(scenes, "load", lambda name, root=None: data)
    return data


def pretrain(tmp_path=None, method="cromss_mid", modalities=None, **changes):
    modalities = modalities or (MODALITIES[:1] if method == "single_modal" else MODALITIES)
    folder = None if tmp_path is None else tmp_path / "cromss.pretrain"
    if folder is not None:
        folder.mkdir(exist_ok=True)
    given = {"dataset": "tiny", "seed": 1, "noise": NOISE, **PRETRAINING, **changes}
    where = {"device": "cpu", "checkpoint": None if folder is None else folder / "run.safetensors"}
    return cromss.pretrain(method=method, modalities=modalities, **given, **where)


def transfer(tmp_path=None, **changes):
    given = {"dataset": "tiny", "modality": "rgb", "encoder": "random", "protocol": "frozen", "seed": 1}
    where = {
        "device": "cpu",
        "checkpoint": None if tmp_path is None else tmp_path / "cromss.transfer" / "x.safetensors",
    }
    return cromss.transfer(**{**given, **TRANSFER, **changes}, **where)


# The objective


def draw(seed=0, classes=4):
    generator = Generator().manual_seed(seed)
    logits = torch.randn(2, 3, classes, 5, 6, generator=generator)
    maps = torch.randint(-1, classes, (3, 5, 6), generator=generator)
    return logits, maps


def slow_supervised(logits, maps, weights):
    """Weighted cross-entropy and Dice of one modality, pixel by pixel."""
    batch, classes, height, width = logits.shape
    q = logits.double().softmax(dim=1)
    places = [(b, y, x) for b in range(batch) for y in range(height) for x in range(width) if maps[b, y, x] >= 0]
    norm = sum(weights[at].item() for at in places)
    entropy = -sum(weights[b, y, x].item() * math.log(q[b, maps[b, y, x], y, x]) for b, y, x in places) / norm
    dice = 0.0
    for c in range(classes):
        both = sum(weights[b, y, x].item() * q[b, c, y, x].item() for b, y, x in places if maps[b, y, x] == c)
        either = sum(weights[b, y, x].item() * (q[b, c, y, x].item() + float(maps[b, y, x] == c)) for b, y, x in places)
        dice += 1 - 2 * both / either if (maps == c).any() else 0.0
    return entropy + dice / classes


def slow_divergence(student, teacher, weights):
    p, q = (one.double().softmax(dim=1) for one in (teacher, student))
    each = (p * (p / q).log()).sum(dim=1)
    return ((weights * each).sum() / weights.sum()).item()


@pytest.mark.parametrize("seed", range(3))
def test_the_objective_is_the_sum_of_its_four_parts(seed):
    logits, maps = draw(seed)
    labels, entities = selection.masks(logits, maps, 0.7)
    expected = sum(slow_supervised(logits[m], maps, labels[m]) for m in (0, 1))
    expected += slow_divergence(logits[0], logits[1], entities[1])  # weighted by who teaches
    expected += slow_divergence(logits[1], logits[0], entities[0])
    assert cromss.objective(logits, maps, True, labels, entities).item() == pytest.approx(expected, rel=1e-5)


def test_without_masks_all_pixels_weigh_the_same_and_a_single_modality_learns_from_labels_alone():
    logits, maps = draw()
    whole = torch.ones(maps.shape)
    alone = [slow_supervised(logits[m], maps, whole) for m in (0, 1)]
    both = slow_divergence(*logits, whole) + slow_divergence(*logits.flip(0), whole)
    assert cromss.objective(logits, maps, True).item() == pytest.approx(sum(alone) + both, rel=1e-5)
    assert cromss.objective(logits[:1], maps, False).item() == pytest.approx(alone[0], rel=1e-5)


class Fixed(nn.Module):
    """Logits that are what they were made to be."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images):
        return self.logits


@pytest.mark.parametrize("epoch", [0, 4, 8, 9])
@pytest.mark.parametrize("method", ["single_modal", "mid_fusion", "cromss_mid"])
def test_selection_follows_the_ramp_of_the_epoch(two_modal, epoch, method):
    logits, maps = draw()
    logits = logits[:1] if method == "single_modal" else logits
    task = cromss.Pretraining(
        two_modal,
        two_modal.split("train"),
        None,
        val=two_modal.split("val"),
        val_maps=None,
        consistent=method != "single_modal",
        selects=method.startswith("cromss"),
        ramp_length=8,
    )
    found = task.loss(Fixed(logits), (torch.zeros(3, 5, 5, 6), maps), epoch)
    masks = selection.masks(logits, maps, selection.ramp(epoch, 8)) if method.startswith("cromss") else ()
    torch.testing.assert_close(found, cromss.objective(logits, maps, method != "single_modal", *masks))
    found.backward()  # there is something to learn


def test_the_first_epoch_hardly_selects_and_later_ones_do():
    logits, maps = draw()
    plain = cromss.objective(logits, maps, True).item()
    first, last = (
        cromss.objective(logits, maps, True, *selection.masks(logits, maps, selection.ramp(e, 8))).item()
        for e in (0, 8)
    )
    assert abs(first - plain) < 0.1 * abs(last - plain)


# Noisy maps


def test_noise_is_laid_over_noise_and_depends_on_the_seed_alone(two_modal):
    index = two_modal.split("train")
    clean = segmentation.maps_of(two_modal, index)
    mixture = [("mask_shift", 1.0, 4), ("class_swap", 0.3, None)]
    first = cromss.noisy_maps(two_modal, index, mixture, (7, 0))
    assert torch.equal(first, cromss.noisy_maps(two_modal, index, mixture, (7, 0)))
    shifted = cromss.noisy_maps(two_modal, index, mixture[:1], (7, 0))
    assert not torch.equal(shifted, clean)
    assert not torch.equal(shifted, first)
    for other in ((8, 0), (7, 1)):
        assert not torch.equal(first, cromss.noisy_maps(two_modal, index, mixture, other))
    assert cromss.noisy_maps(two_modal, index, None, (7, 0)) is None
    assert torch.equal(cromss.noisy_maps(two_modal, index, [], (7, 0)), clean)


def test_numbers_from_yaml_and_json_give_the_same_noise(two_modal):
    index = two_modal.split("train")
    found = [cromss.noisy_maps(two_modal, index, [[kind, 1.0, 4.0]], (7, 0)) for kind in ("mask_shift", "mask_shift")]
    assert torch.equal(found[0], cromss.noisy_maps(two_modal, index, [("mask_shift", 1.0, 4)], (7, 0)))


# Runs


@pytest.mark.parametrize("method", cromss.METHODS)
def test_pretraining_keeps_an_encoder_for_each_modality_that_can_be_transferred(two_modal, tmp_path, method):
    found = pretrain(tmp_path, method)
    names = MODALITIES[:1] if method == "single_modal" else MODALITIES
    assert list(found["weights"]) == names == list(found["test"])
    assert len(set(found["weights"].values())) == len(names)
    for name, weights in found["weights"].items():
        bands = len(two_modal.bands(name))
        encoder = models.encoder("narrow_resnet", bands, Generator().manual_seed(99))
        checkpoints.load_weights(encoder, tmp_path / "cromss.pretrain", weights)
        results = transfer(tmp_path, encoder=method, modality=name, weights=weights)
        assert 0 <= results["miou"] <= results["aa"] <= 1
        assert len(results["iou"]) == 3
    json.dumps(found, allow_nan=False)
    row = found["history"][-1]
    assert row["epoch"] == 2
    assert row["val_loss"] > 0
    assert [set(q) for q in row["quality"]] == [
        {"auroc", "auroc_confidence", "auroc_alone", "precision", "recall"}
    ] * len(names)


def test_runs_are_functions_of_their_parameters(two_modal, tmp_path):
    first, second, other = (pretrain(tmp_path, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first["weights"] != other["weights"]
    weights = first["weights"]["rgb"]
    for protocol in cromss.PROTOCOLS:
        given = {"encoder": "cromss_mid", "weights": weights, "protocol": protocol}
        assert transfer(tmp_path, **given) == transfer(tmp_path, **given)
    assert transfer(seed=1) != transfer(seed=2)


def test_methods_differ_in_what_they_train(two_modal, tmp_path):
    found = {method: pretrain(tmp_path, method)["weights"]["veg"] for method in cromss.METHODS}
    assert len(set(found.values())) == len(found)
    assert pretrain(tmp_path, ranking="per_class")["weights"]["veg"] != found["cromss_mid"]


def test_a_frozen_encoder_and_a_fine_tuned_one_end_differently(two_modal, tmp_path):
    weights = pretrain(tmp_path)["weights"]["rgb"]
    given = {"encoder": "cromss_mid", "weights": weights}
    losses = [transfer(tmp_path, protocol=p, **given)["history"][-1]["loss"] for p in cromss.PROTOCOLS]
    losses.append(transfer(tmp_path, fixed_statistics=True, **given)["history"][-1]["loss"])
    losses.append(transfer(tmp_path)["history"][-1]["loss"])
    assert len(set(losses)) == 4


def test_maps_that_are_noisy_themselves_have_no_quality_and_no_test(two_modal):
    found = pretrain(noise=None)
    assert "quality" not in found["history"][-1]
    assert set(found) == {"history"}


def test_training_scenes_are_the_first_and_validation_scenes_the_last(two_modal, monkeypatch):
    seen = {}

    class Spy(cromss.Pretraining):
        def __init__(self, data, index, maps, *, val, **more):
            seen["train"], seen["val"] = index.tolist(), val.tolist()
            super().__init__(data, index, maps, val=val, **more)

    monkeypatch.setattr(cromss, "Pretraining", Spy)
    pretrain(train_scenes=5, val_scenes=2, batch_size=2)
    assert seen == {"train": [0, 1, 2, 3, 4], "val": [10, 11]}
    pretrain(train_scenes=None, val_scenes=None)
    assert seen == {"train": list(range(8)), "val": [8, 9, 10, 11]}


def test_validation_loss_is_the_unweighted_objective_on_noisy_maps(two_modal, monkeypatch):
    monkeypatch.setattr(cromss, "BATCH", 3)
    val = two_modal.split("val")
    noisy = cromss.noisy_maps(two_modal, val, NOISE, (1, 1))
    model = models.unets("narrow_resnet", [(3, 4), (0, 1, 2)], 3, Generator().manual_seed(0))
    task = cromss.Pretraining(
        two_modal, two_modal.split("train"), None, val=val, val_maps=noisy, consistent=True, selects=True
    )
    found = task.evaluate(model)["val_loss"]
    parts = [
        (len(part), cromss.objective(cromss.logits_of(model, two_modal, val[part]), noisy[part], True).item())
        for part in torch.arange(4).split(3)
    ]
    assert found == pytest.approx(sum(n * loss for n, loss in parts) / 4)


def test_networks_are_kept_at_the_epochs_that_are_asked_for(two_modal, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "checksum", lambda name, root=None: "c" * 64)
    where = {"store": tmp_path, "workers": 0, "progress": False, "dataset": "bluemarble", "device": "cpu"}
    rows = cromss.study(["cromss_mid"], MODALITIES, [1])
    settings = {**PRETRAINING, "epochs": 3}
    run = runs.table(cromss.pretrain, rows, noise=NOISE, keep_epochs=[1, 3], **settings, **where).iloc[0]
    kept = cromss.kept_networks(two_modal, run)
    assert list(kept) == [1, 3]
    last = kept[3].encoders[1].state_dict()
    encoder = models.encoder("narrow_resnet", 3, Generator())
    checkpoints.load_weights(encoder, tmp_path / "cromss.pretrain", run["weights"]["rgb"])
    assert all(torch.equal(last[key], value) for key, value in encoder.state_dict().items())
    index = two_modal.split("test")
    assert not torch.equal(*[cromss.logits_of(network, two_modal, index) for network in kept.values()])
    gone = checkpoints.weights_path(tmp_path / "cromss.pretrain", run["networks"]["1"])
    gone.unlink()  # a record without its networks is no record
    again = runs.table(cromss.pretrain, rows, noise=NOISE, keep_epochs=[1, 3], **settings, **where).iloc[0]
    assert again["networks"] == run["networks"]
    assert gone.is_file()


# Grids


def test_a_study_trains_single_modalities_apart_and_the_others_together():
    rows = cromss.study(["single_modal", "cromss_mid"], MODALITIES, [1, 2])
    assert [(row["method"], row["modalities"], row["seed"]) for row in rows] == [
        ("single_modal", ["veg"], 1),
        ("single_modal", ["veg"], 2),
        ("single_modal", ["rgb"], 1),
        ("single_modal", ["rgb"], 2),
        ("cromss_mid", MODALITIES, 1),
        ("cromss_mid", MODALITIES, 2),
    ]
    noisy = cromss.with_noise(rows[-1:], [[("mask_shift", 1.0, 3)], [("class_swap", 0.1, None)]])
    assert [row["noise"] for row in noisy] == [[["mask_shift", 1.0, 3]], [["class_swap", 0.1, None]]]
    signature = inspect.signature(cromss.pretrain)
    for row in [*rows, *noisy]:
        signature.bind(dataset="x", **PRETRAINING, **row)


def test_every_encoder_is_transferred_in_both_protocols_and_random_ones_once_a_seed():
    kept = [
        {"method": "single_modal", "seed": 1, "weights": {"veg": "a"}},
        {"method": "single_modal", "seed": 1, "weights": {"rgb": "b"}},
        {"method": "cromss_mid", "seed": 1, "weights": {"veg": "c", "rgb": "d"}},
    ]
    rows = cromss.transfers(kept, MODALITIES)
    half = [(r["encoder"], r["modality"], r.get("weights")) for r in rows if r["protocol"] == "frozen"]
    assert half == [
        ("random", "veg", None),
        ("random", "rgb", None),
        ("single_modal", "veg", "a"),
        ("single_modal", "rgb", "b"),
        ("cromss_mid", "veg", "c"),
        ("cromss_mid", "rgb", "d"),
    ]
    assert len(rows) == 12
    for row in rows:
        inspect.signature(cromss.transfer).bind(dataset="x", **TRANSFER, **row)


def test_records_lead_from_transfer_to_the_encoders_of_pretraining(two_modal, tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "checksum", lambda name, root=None: "c" * 64)
    where = {"store": tmp_path, "workers": 0, "progress": False, "dataset": "bluemarble", "device": "cpu"}
    rows = cromss.study(["cromss_mid"], MODALITIES, [1])
    first = runs.table(cromss.pretrain, rows, noise=NOISE, **PRETRAINING, **where)
    grid = cromss.transfers(first.to_dict("records"), MODALITIES)
    second = runs.table(cromss.transfer, grid, **TRANSFER, **where)
    assert len(second) == 8
    assert second["miou"].between(0, 1).all()
    folder = cromss.pretrained_folder(type(tmp_path)(second["record"][0]))
    assert folder == tmp_path / "cromss.pretrain"
    weights = checkpoints.weights_path(folder, first["weights"][0]["rgb"])
    weights.unlink()  # the run is done again, as its encoders are what it is for
    again = runs.table(cromss.pretrain, rows, noise=NOISE, **PRETRAINING, **where)
    assert again["weights"][0] == first["weights"][0]
    assert weights.is_file()


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "early_fusion"}, "method='early_fusion': expected one of single_modal, mid_fusion"),
        ({"modalities": ["veg"]}, r"modalities=\['veg'\]: cromss_mid needs 2, each once"),
        ({"modalities": ["veg", "veg"]}, "cromss_mid needs 2, each once"),
        ({"modalities": ["veg", "radar"]}, "modality='radar': the modalities of tiny are veg, rgb"),
        ({"method": "single_modal", "modalities": MODALITIES}, "single_modal needs 1, each once"),
        ({"ranking": "local"}, "ranking='local': expected one of global, per_class"),
        ({"train_scenes": 9}, "scenes=9 of split 'train': tiny has 8 there; None takes all"),
        ({"val_scenes": 0}, "scenes=0 of split 'val': tiny has 4 there; None takes all"),
        ({"noise": [["class_drop", 0.1, None]]}, "class_drop"),
    ],
)
def test_pretrainings_that_cannot_be_run_are_refused(two_modal, change, message):
    with pytest.raises(ValueError, match=message):
        pretrain(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "fine_tuned", "fixed_statistics": True}, "those of a frozen encoder, and it is not frozen"),
        ({"encoder": "moco"}, "encoder='moco': expected one of random, single_modal"),
        ({"protocol": "linear"}, "protocol='linear': expected one of frozen, fine_tuned"),
        ({"weights": "a" * 32}, "a random encoder has none, all others need them"),
        ({"encoder": "cromss_mid"}, "weights=None with encoder='cromss_mid'"),
        ({"encoder": "cromss_mid", "weights": "a" * 32}, "they lie beside a checkpoint, and none is given"),
        ({"train_scenes": 5}, "scenes=5 of split 'val': tiny has 4"),
    ],
)
def test_transfers_that_cannot_be_run_are_refused(two_modal, change, message):
    with pytest.raises(ValueError, match=message):
        transfer(**change)


def test_weights_that_are_gone_are_named(two_modal, tmp_path):
    with pytest.raises(ValueError, match=r"cromss\.pretrain.*is missing"):
        transfer(tmp_path, encoder="cromss_mid", weights="a" * 32)
