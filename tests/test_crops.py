"""Part III's pre-training and classification: views, moments, frozen encoders, trials, from end to end."""

import inspect
import json

import pytest
import torch
from made_up_crops import make_pairs, make_series
from torch import Generator

from rsbook import checkpoints, contrastive, crops, crops_tasks, presets, runs, series, series_models

SETTINGS = {"epochs": 2, "batch_size": 128, "learning_rate": 1e-3, "weight_decay": 0.0}
TRAINING = {"epochs": 2, "batch_size": 8, "weight_decay": 0.0}
LSTM = {"hidden": 4, "layers": 1, "learning_rate": 0.01}
WHERE = {"dataset": "crops", "region": "somewhere"}


@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    """Series and pairs of the world that is asked for, without an archive."""
    monkeypatch.setattr(series, "load", lambda d, r, train, val, root, world: make_series(world, train=train, val=val))
    monkeypatch.setattr(series, "load_pairs", lambda d, r, count, root, world: make_pairs(world, count))


def pretrain(folder, method="bi_modal", rate=0.2, seed=1, **more):
    path = folder / "crops.pretrain" / f"{'0' * 32}.safetensors"
    path.parent.mkdir(exist_ok=True)
    given = {**WHERE, "pairs": 2700, **SETTINGS, **more}
    return crops.pretrain(method=method, rate=rate, seed=seed, **given, checkpoint=path, device="cpu")


def classify(folder, inputs="bands", weights=None, model="lstm", configuration=LSTM, seed=1, **more):
    path = folder / "crops.classify" / f"{'1' * 32}.safetensors"
    path.parent.mkdir(exist_ok=True)
    given = {
        **WHERE,
        "train_pixels": 8,
        "val_pixels": 4,
        "mean": [1000.0] * 12,
        "std": [500.0] * 12,
        **TRAINING,
        **more,
    }
    return crops.classify(
        inputs=inputs,
        weights=weights,
        model=model,
        configuration=configuration,
        seed=seed,
        **given,
        checkpoint=path,
        device="cpu",
    )


def contrast(method="bi_modal", rate=0.5, **more):
    task = crops_tasks.Contrast(make_pairs(), method, rate, **more)
    task.to(torch.device("cpu"))
    return task


# Pairs and views


def test_held_out_pairs_are_never_trained_on_and_are_of_all_dates():
    task = contrast()
    assert task.size + len(task.held_out) == 3000
    assert not set(task.train.tolist()) & set(task.held_out.tolist())
    assert len(set(task.held_out.tolist())) == crops_tasks.HELD_OUT
    assert torch.equal(task.held_out, crops_tasks.held_out(3000))
    assert (task.held_out.diff() <= 2).all()


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match="pairs=2048: 2048 of them are held out, expected more"):
        crops_tasks.Contrast(make_pairs(count=2048), "bi_modal", 0.2)


def test_moments_are_those_of_the_training_pairs():
    task = contrast()
    for name, values in (("s2", make_pairs().s2), ("planet", make_pairs().planet)):
        found = task.moments()[name]
        kept = values[task.train].double()
        torch.testing.assert_close(found[0], kept.mean(dim=0).float(), rtol=1e-6, atol=0)
        torch.testing.assert_close(found[1], kept.std(dim=0, correction=0).float(), rtol=1e-5, atol=0)
    assert set(contrast("uni_modal").moments()) == {"s2"}


def changed(view, clean):
    return view != clean.float()


@pytest.mark.parametrize("method", crops_tasks.METHODS)
def test_what_each_method_sees(method):
    """Bi-modal: both sensors, both corrupted. Uni-modal: one sensor twice, one view of the two corrupted."""
    task, data = contrast(method), make_pairs()
    rows = task.train[:256]
    first, second = task.batch(torch.arange(256), Generator().manual_seed(3))
    s2, planet = data.s2[rows], data.planet[rows]
    if method == "bi_modal":
        assert (changed(first, s2).sum(dim=1) <= 6).all()
        assert (changed(second, planet).sum(dim=1) <= 18).all()
        assert changed(first, s2).float().mean() > 0.4
        assert changed(second, planet).float().mean() > 0.4
    elif method == "uni_modal":
        assert changed(first, s2).float().mean() > 0.4
        assert not changed(second, s2).any()
    else:  # the bug: whatever is corrupted, both views are the same
        assert torch.equal(first, second)


def test_half_of_the_released_batches_are_corrupted_alike():
    task, data = contrast("uni_modal_released", released=True), make_pairs()
    generator, seen = Generator().manual_seed(0), []
    for _ in range(40):
        first, _ = task.batch(torch.arange(64), generator)
        columns = changed(first, data.s2[task.train[:64]]).any(dim=0)
        assert int(columns.sum()) in (0, 6)
        seen.append(bool(columns.any()))
    assert 8 <= sum(seen) <= 32


def test_without_corruption_views_are_as_they_were_seen():
    data = make_pairs()
    for method, second in (("bi_modal", data.planet), ("uni_modal", data.s2)):
        task = contrast(method, rate=0.0)
        views = task.batch(torch.arange(32), Generator())
        for view, clean in zip(views, (data.s2, second), strict=True):
            assert torch.equal(view, clean[task.train[:32]].float())


def test_the_objective_is_that_of_the_projections():
    task = contrast(rate=0.0, loss="one_sided", temperature=0.2)
    model = crops_tasks.TwoViews(task.moments(), task.sensors, Generator().manual_seed(0)).eval()
    batch = task.batch(torch.arange(64), Generator())
    z = [model.projectors[s](model.encoders[s](x)) for s, x in zip(("s2", "planet"), batch, strict=True)]
    assert torch.equal(task.loss(model, batch, 0), contrastive.one_sided(*z, 0.2))


# Pre-training


def test_bi_modal_pretraining_learns_which_pixels_belong_together(tmp_path):
    """Seen by other bands, pixels are recognised far above chance; a network at its start does not."""
    history = pretrain(tmp_path, rate=0.0, epochs=12)["history"]
    assert history[-1]["retrieval"] > 4 * history[0]["retrieval"] > 20 / crops_tasks.HELD_OUT
    assert history[-1]["val_loss"] < history[0]["val_loss"]


def test_a_pretraining_is_a_function_of_its_seed(tmp_path):
    again = [pretrain(tmp_path, seed=seed) for seed in (1, 1, 2)]
    assert again[0] == again[1]
    for one in ("s2", "s2_start"):
        assert again[0]["weights"][one] != again[2]["weights"][one]
    assert again[0]["mean"] != again[2]["mean"]  # another seed, another world


def test_what_is_kept_can_be_loaded_again(tmp_path):
    for method in ("bi_modal", "uni_modal"):
        found = pretrain(tmp_path, method)
        run = {**found, "method": method, "record": str(tmp_path / "crops.pretrain" / f"{'0' * 32}.json")}
        network = crops.kept_network(run)
        task = crops_tasks.Contrast(make_pairs(1, 2700), method, 0.2)
        task.to(torch.device("cpu"))
        assert task.evaluate(network) == {name: found["history"][-1][name] for name in task.evaluate(network)}
        assert network.encoders["s2"][0].shift.tolist() == found["mean"]
        start = crops.kept_network(run, "start")
        assert task.evaluate(start)["val_loss"] > found["history"][-1]["val_loss"]


@pytest.mark.parametrize(("change", "message"), [({"method": "both"}, "method='both'"), ({"loss": "l2"}, "loss='l2'")])
def test_settings_of_pretraining_that_cannot_be_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        pretrain(tmp_path, **change)


# Standardising


@pytest.mark.parametrize(("scaling", "expected"), [("deviation", 2.0), ("variance", 2.0 / 0.05), ("none", 0.2)])
def test_scalings_of_bands(scaling, expected):
    """A band of mean 0.1 and standard deviation 0.05 reflectance, at 0.2."""
    front = crops_tasks.Standardise(torch.tensor([1000.0]), torch.tensor([500.0]), scaling)
    assert front(torch.tensor([[2000.0]])).item() == pytest.approx(expected)


# Classification


@pytest.mark.parametrize("model", series_models.BASE_MODELS)
def test_every_base_model_learns_from_bands(tmp_path, model):
    space = presets.crops.PRESETS["smoke"]["spaces"]
    configuration = series_models.configurations(model, 1, space=space[model])[0]
    found = classify(tmp_path, model=model, configuration=configuration, epochs=15, train_pixels=16)
    assert found["accuracy"] > 0.8
    assert found["accuracy"] == pytest.approx(sum(found["recall"]) / 3)  # as many pixels of each class
    assert torch.tensor(found["confusion"]).sum(dim=1).tolist() == [4, 4, 4]


def test_the_random_encoder_is_the_one_that_pretraining_began_from(tmp_path, monkeypatch):
    """Its weights are those that `fit` got, the same for both methods, and its statistics those of pairs."""
    began = []

    def fit(model, task, **settings):
        began.append({name: value.clone() for name, value in model.encoders["s2"].state_dict().items()})
        return original(model, task, **settings)

    original = crops.training.fit
    monkeypatch.setattr(crops.training, "fit", fit)
    names = [pretrain(tmp_path, method)["weights"]["s2_start"] for method in ("bi_modal", "uni_modal")]
    assert names[0] == names[1]
    found = crops_tasks.encoder(torch.zeros(12), torch.ones(12), Generator().manual_seed(9))
    checkpoints.load_weights(found, tmp_path / "crops.pretrain", names[0])
    for name, value in found.state_dict().items():
        assert torch.equal(value, began[0][name]), name
    norm = found[1][1].inner[0]
    data = make_pairs(1, 2700)
    values = data.s2[crops_tasks.Contrast(data, "bi_modal", 0.2).train].float()
    seen = found[1][0](found[0](values))
    torch.testing.assert_close(norm.running_mean, seen.mean(dim=0).detach(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, seen.var(dim=0).detach(), rtol=1e-3, atol=1e-4)


def test_calibration_changes_statistics_alone():
    task = contrast()
    model = crops_tasks.TwoViews(task.moments(), task.sensors, Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    crops_tasks.calibrate(model, task)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "running" in name or "tracked" in name}
    assert {m.momentum for m in model.modules() if isinstance(m, torch.nn.BatchNorm1d)} == {0.1}


def front_after_training(tmp_path, monkeypatch, **more):
    """The encoder before and after a classification: its weights and statistics."""
    kept = {}

    def fit(model, task, **settings):
        kept["before"] = {name: value.clone() for name, value in model.front.state_dict().items()}
        history = original(model, task, **settings)
        kept["after"] = model.front.state_dict()
        return history

    original = crops.training.fit
    weights = pretrain(tmp_path)["weights"]["s2_start"]
    monkeypatch.setattr(crops.training, "fit", fit)
    found = classify(tmp_path, "random", weights, **more)
    same = {name: torch.equal(value, kept["after"][name]) for name, value in kept["before"].items()}
    return found, same


def test_a_frozen_encoder_does_not_change(tmp_path, monkeypatch):
    _, same = front_after_training(tmp_path, monkeypatch)
    assert all(same.values())


def test_statistics_may_adapt_while_weights_stay(tmp_path, monkeypatch):
    _, same = front_after_training(tmp_path, monkeypatch, adapting_statistics=True)
    running = {name for name in same if "running" in name}
    assert running
    assert not any(same[name] for name in running)
    assert all(same[name] for name in same if "running" not in name and "tracked" not in name)


def test_end_to_end_the_encoder_learns_too(tmp_path, monkeypatch):
    _, same = front_after_training(tmp_path, monkeypatch, frozen=False)
    assert not any(same[name] for name in same if name.endswith("weight"))
    assert same["0.shift"]


def test_features_computed_once_are_those_of_each_step(tmp_path, monkeypatch):
    weights = pretrain(tmp_path)["weights"]["s2_start"]
    once = classify(tmp_path, "random", weights)
    monkeypatch.setattr(crops_tasks, "FEATURES", 0)
    each_step = classify(tmp_path, "random", weights)
    assert once["history"][-1]["val_loss"] == pytest.approx(each_step["history"][-1]["val_loss"], rel=1e-4)


def test_a_pretrained_encoder_is_found_and_matters(tmp_path):
    kept = pretrain(tmp_path)["weights"]
    found = classify(tmp_path, "bi_modal", kept["s2"], rate=0.2)
    assert found == classify(tmp_path, "bi_modal", kept["s2"], rate=0.2)
    assert found["history"] != classify(tmp_path, "random", kept["s2_start"])["history"]


def test_few_labels_are_trained_on_for_as_many_steps(tmp_path):
    found = classify(tmp_path, batch_size=100, train_pixels=2, least_steps=7)  # 6 pixels are one batch
    assert found["history"][-1]["epoch"] == 7


def test_every_fifth_date_of_the_pixels_that_are_used():
    data = make_series(train=16)
    network = crops_tasks.EachDay(torch.nn.Identity(), torch.nn.Flatten(), frozen=False)
    task = crops_tasks.Classification(data, network, every=5)
    task.to(torch.device("cpu"))
    values, labels = task.batch(torch.tensor([0, 20]), Generator())
    assert torch.equal(values, data.values[data.split("train")[[0, 20]]][:, [0, 5, 10]].float())
    assert torch.equal(labels, data.labels[data.split("train")[[0, 20]]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": "pixels"}, "inputs='pixels': expected one of bands, random"),
        ({"scaling": "log"}, "scaling='log': expected one of deviation, variance, none"),
        ({"inputs": "bi_modal"}, "weights=None with inputs='bi_modal'"),
        ({"inputs": "random"}, "weights=None with inputs='random'"),
        ({"inputs": "bands", "weights": "a" * 32}, "with inputs='bands'"),
        ({"inputs": "bi_modal", "weights": "a" * 32}, "is missing"),
    ],
)
def test_settings_of_classification_that_cannot_be_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        classify(tmp_path, **change)


# Studies


def test_a_baseline_is_trained_once_a_seed_and_a_pretraining_once_each():
    pretrained = [
        {**row, "mean": [0.0], "std": [row["seed"]], "weights": kept(**row)}
        for row in crops.studies(["uni_modal", "bi_modal"], [0.2, 0.6], [1, 2])
    ]
    rows = crops.trials({"lstm": [{"hidden": 1}, {"hidden": 2}]}, pretrained, ["bands", "random"])
    assert len(rows) == 2 * (2 * 2 + len(pretrained))
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows)
    assert all(row["std"] == [row["seed"]] for row in rows)
    for row in rows:
        if row["inputs"] in crops_tasks.METHODS:
            assert row["weights"] == kept(row["inputs"], row["rate"], row["seed"])["s2"]
        else:
            assert "rate" not in row
            assert row.get("weights") == {"bands": None, "random": f"start {row['seed']}"}[row["inputs"]]


def kept(method, rate, seed):
    return {"s2": f"{method} {rate} {seed}", "s2_start": f"start {seed}"}


def test_configurations_of_all_models_are_the_published_ones_unless_others_are_given():
    found = crops.configurations(2)
    assert list(found) == list(series_models.BASE_MODELS)
    assert found["lstm"] == series_models.configurations("lstm", 2)
    assert crops.configurations(1, {"lstm": {"hidden": [3]}}) == {"lstm": [{"hidden": 3}]}


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
@pytest.mark.parametrize("dataset", ["crops", "denethor"])
def test_presets_hold_all_that_a_run_needs(preset, dataset):
    chosen = presets.load("crops", preset, dataset)
    bind = inspect.signature(crops.pretrain).bind
    rows = crops.studies(crops_tasks.METHODS, chosen["rates"], chosen["seeds"])
    for row in rows:
        bind(**row, **chosen["pretraining"])
    made = [{**row, "mean": [], "std": [], "weights": {"s2": "", "s2_start": ""}} for row in rows]
    trials = crops.trials(crops.configurations(chosen["trials"], chosen["spaces"]), made, ["bands", "random"])
    for task in (1, 2, 3):
        for row in trials:
            inspect.signature(crops.classify).bind(**row, **chosen["tasks"][task], **chosen["training"])
    runs._plain({"rows": trials})


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_few_labels_get_the_steps_of_many(preset):
    chosen = presets.load("crops", preset, "crops")
    controls, training, task = chosen["controls"], chosen["training"], chosen["tasks"][1]
    assert max(controls["scarce"]) == task["train_pixels"]
    assert controls["end_to_end"] in controls["scarce"]
    assert controls["least_steps"] == training["epochs"] * (9 * task["train_pixels"] // training["batch_size"])


def test_full_is_the_protocol_of_the_paper():
    chosen = presets.load("crops", "full", "denethor")
    settings = chosen["pretraining"]
    assert settings["pairs"] == 144 * 100_000
    assert (settings["epochs"], settings["batch_size"], settings["learning_rate"]) == (100, 2048, 1e-3)
    defaults = {name: p.default for name, p in inspect.signature(crops.pretrain).parameters.items()}
    assert (defaults["temperature"], defaults["schedule"], defaults["loss"]) == (0.07, "constant", "nt_xent")
    assert chosen["rates"] == [0.2, 0.6]
    assert chosen["seeds"][0] == 32
    assert chosen["trials"] == 10
    assert chosen["spaces"] is None
    assert (chosen["training"]["epochs"], chosen["training"]["batch_size"]) == (20, 256)
    pixels = {task: (one["train_pixels"], one["val_pixels"]) for task, one in chosen["tasks"].items()}
    assert pixels == {1: (5000, 1000), 2: (5000, 1000), 3: (9000, 1000)}
    assert chosen["tasks"][3]["dataset"] == "breizhcrops"
