"""Runs of Part IV on small made-up scenes: what they return, what they choose by, and what they refuse."""

import inspect
import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rsbook import checkpoints, presets, scenes, single_positive, single_positive_tasks
from rsbook import single_positive_runs as sp

TRAINING = {
    "network": "narrow_resnet",
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "evaluate_every": 1,
    "train_scenes": 8,
}


@pytest.fixture
def data(tiny_scenes, monkeypatch):
    """The tiny scenes, larger, under the name of the embedded ones."""
    grown = tiny_scenes.positions.repeat_interleave(2, 1).repeat_interleave(2, 2)
    images = tiny_scenes.images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    made = replace(tiny_scenes, images=images, positions=grown, min_pixels=20)
    monkeypatch.setattr(scenes, "load", lambda name, root=None: made)
    return made


def train(method="an", setting="random", checkpoint=None, **changes):
    changes = TRAINING | changes
    return sp.train(
        dataset="tiny", setting=setting, method=method, seed=1, device="cpu", checkpoint=checkpoint, **changes
    )


@pytest.mark.parametrize("method", sp.METHODS)
def test_a_run_returns_scores_that_json_holds_and_again_the_same(data, method):
    found = train(method)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(train(method)))
    means = {name for name in found if name.startswith("student_")}
    assert means == ({"student_map_macro", "student_f1_fixed"} if method == "adagc" else set())
    assert all(0 <= found[name] <= 1 for name in ("map_macro", "f1_fixed", "f1_tuned", "threshold", *means))
    assert ("begun" in found) == (method == "adagc")
    best = max(found["history"], key=lambda row: row["map_observed"])
    assert (found["best_epoch"], found["map_observed"]) == (best["epoch"], best["map_observed"])


@pytest.mark.parametrize("method", ["adagc", "role", "em_apl", "ll_cp", "ml_elr"])
def test_an_interrupted_run_ends_with_the_same_bytes(data, method, tmp_path, monkeypatch):
    """All that a method keeps is in the checkpoint."""
    options = {"adagc": {"begin": 1}, "em_apl": {"begin": 1}, "ll_cp": {"rate": 0.1}}.get(method)
    expected = train(method, options=options)
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    whole, path = sp.SinglePositive.loss, tmp_path / "run.safetensors"

    def killed(self, model, batch, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return whole(self, model, batch, epoch)

    monkeypatch.setattr(sp.SinglePositive, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        train(method, options=options, checkpoint=path)
    monkeypatch.setattr(sp.SinglePositive, "loss", whole)
    assert train(method, options=options, checkpoint=path) == expected


def test_the_last_epoch_counts_where_it_is_asked_for(data):
    found, best = train("adagc", last=True), train("adagc")
    assert found["best_epoch"] == TRAINING["epochs"]
    assert found["map_observed"] == found["history"][-1]["map_observed"]
    assert found["history"] == best["history"]
    assert found["map_macro"] == train("adagc", last=True, evaluate_every=3)["map_macro"]


def test_settings_say_what_is_observed(data):
    for split in data.splits:
        labels = data.labels[data.split(split)]
        random = sp.observe(data, split, "random")
        assert not (random & ~labels).any()
        assert (random.sum(dim=1) == labels.any(dim=1)).all()
        dominant = sp.observe(data, split, "dominant")
        pixels = single_positive.positions.count(data.positions[data.split(split)], 3) * labels
        assert (pixels[dominant] == pixels.max(dim=1).values[labels.any(dim=1)]).all()
        assert torch.equal(sp.observe(data, split, "all"), labels)
    assert not torch.equal(sp.observe(data, "train", "random"), sp.observe(data, "train", "random", 7))
    for wrong in ("manual", "odd"):
        with pytest.raises(ValueError, match=f"setting='{wrong}': expected random, dominant or all"):
            sp.observe(data, "train", wrong)
    with pytest.raises(ValueError, match="no class positions"):
        sp.observe(replace(data, positions=None), "train", "dominant")


def test_manual_answers_alone_are_trained_on(data, monkeypatch):
    seen = []
    whole = sp.SinglePositive.__init__

    def looked_at(self, scenes, index, observed, *rest, **more):
        seen.append((index.tolist(), observed.tolist()))
        whole(self, scenes, index, observed, *rest, **more)

    monkeypatch.setattr(sp.SinglePositive, "__init__", looked_at)
    train(setting="manual", answers=[[2, 1], [5, 0], [7, 2]], batch_size=64, train_scenes=None)
    assert seen == [([2, 5, 7], [[False, True, False], [True, False, False], [False, False, True]])]
    train(setting="random", answers=[[2, 1], [5, 0]], batch_size=64, train_scenes=None)
    assert seen[1] == ([2, 5], sp.observe(data, "train", "random")[[2, 5]].tolist())
    for wrong in ([[9, 1]], [[2, -1]], [[2, 3]]):
        with pytest.raises(ValueError, match=r"expected a training scene of tiny and a class, 0 … 2"):
            train(setting="manual", answers=wrong, train_scenes=None)
    with pytest.raises(ValueError, match="answers: 2 of 1 scenes; expected one a scene"):
        train(setting="manual", answers=[[2, 1], [2, 0]], train_scenes=None)
    with pytest.raises(ValueError, match="train_scenes=8: tiny has none beside answers"):
        train(setting="simulated", answers=[[2, 1]])
    with pytest.raises(ValueError, match="setting='manual' needs some"):
        train(setting="manual")


def test_what_is_refused(data):
    with pytest.raises(ValueError, match="setting='some': expected one of random"):
        train(setting="some")
    with pytest.raises(ValueError, match="method='bce': expected one of an"):
        train("bce")
    with pytest.raises(ValueError, match="with setting='all' nothing is unknown"):
        train("wan", "all")
    with pytest.raises(ValueError, match="wan takes no alpha"):
        train("wan", options={"alpha": 1})
    with pytest.raises(ValueError, match="train_scenes=9: tiny has 1 to 8"):
        train(train_scenes=9)


def test_validation_and_test_labels_choose_nothing(data, monkeypatch):
    """The weights are the same whatever is true of validation and test scenes, as long as the one positive is."""
    expected = train("adagc")
    observed = {split: sp.observe(data, split, "random") for split in data.splits}
    changed = data.labels.clone()
    changed[8:] = torch.cat([observed["val"], torch.eye(4, 3).bool()])
    monkeypatch.setattr(sp, "observe", lambda data, split, setting, draw: observed[split])
    monkeypatch.setattr(scenes, "load", lambda name, root=None: replace(data, labels=changed))
    found = train("adagc")
    for name in ("map_observed", "best_epoch", "threshold"):
        assert found[name] == expected[name]
    assert found["map_macro"] != expected["map_macro"]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=30).filter(
        lambda x: any(b for _, b in x)
    )
)
def test_the_tuned_threshold_is_the_best_of_all(entries):
    scores = torch.tensor([[k / 6] for k, _ in entries], dtype=torch.float32)
    observed = torch.tensor([[b] for _, b in entries])

    def worth(threshold):
        named = scores > threshold
        return (observed & named).sum().item() ** 2 / max(named.sum().item(), 1)

    every = [(k - 0.5) / 6 for k in range(8)]
    assert worth(single_positive.tuned_threshold(scores, observed)) == pytest.approx(max(map(worth, every)))


def test_entries_are_what_the_explorer_wants(data, tmp_path):
    found = train("adagc", keep=True, checkpoint=tmp_path / "sp.train" / "x.safetensors")
    entries = pd.DataFrame(found["entries"])
    observed = sp.observe(data, "train", "random")
    assert len(entries) == (~observed).sum()
    assert entries["hidden"].sum() == (data.labels[:8] & ~observed).sum()
    assert entries[["p", "t"]].stack().between(0, 1).all()
    assert checkpoints.weights_path(tmp_path / "sp.train", found["weights"]).is_file()


def masked(mix="cutmix_lp", masks="observed", stage_one=None, checkpoint=None, **changes):
    settings = TRAINING | {"area_range": (0.3, 0.7), "setting": "random"} | changes
    return sp.train_with_masks(
        dataset="tiny",
        masks=masks,
        mix=mix,
        stage_one=stage_one,
        seed=1,
        device="cpu",
        checkpoint=checkpoint,
        **settings,
    )


@pytest.mark.parametrize("masks", sp.MASKS)
@pytest.mark.parametrize("mix", ["none", "cutmix", "cutmix_lp"])
def test_labels_are_propagated_from_masks(data, masks, mix, tmp_path):
    kept = train("adagc", keep=True, checkpoint=tmp_path / "single_positive_runs.train" / "a.safetensors")["weights"]
    record = tmp_path / "single_positive_runs.train_with_masks" / "b.safetensors"
    first = {"stage_one": kept, "checkpoint": record} if masks in ("observed", "pseudo") else {}
    if masks not in (sp.MASKS[1:] if mix == "cutmix_lp" else ("none", "pseudo", "reference")):
        with pytest.raises(ValueError, match=f"masks='{masks}' with mix='{mix}': expected one of"):
            masked(mix, masks, **first)
        return
    found = masked(mix, masks, **first)
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(masked(mix, masks, **first)))
    assert ("pseudo_recall" in found) == (masks == "pseudo")
    if first:
        with pytest.raises(ValueError, match="expected weights for"):
            masked(mix, masks)


def test_without_mixing_it_is_training_with_assumed_negatives(data):
    found, expected = masked("none", "none"), train("an")
    assert found["map_macro"] == expected["map_macro"]
    assert [row["map_observed"] for row in found["history"]] == [row["map_observed"] for row in expected["history"]]


def test_pseudo_labels_are_scored():
    true = torch.tensor([[1, 1, 0, 1]]).bool()
    observed = torch.tensor([[1, 0, 0, 0]]).bool()
    added = torch.tensor([[1, 1, 1, 0]]).bool()
    assert sp._quality(added, observed, true) == {"pseudo_precision": 0.5, "pseudo_recall": 0.5}
    assert sp._quality(observed, observed, true) == {"pseudo_precision": None, "pseudo_recall": 0.0}


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
@pytest.mark.parametrize("dataset", ["bluemarble", "aid", "bigearthnet"])
def test_a_benchmark_is_all_that_a_run_needs(preset, dataset):
    chosen = presets.load("single_positive", preset, dataset)
    grids, signature = chosen["grids"], inspect.signature(sp.train)
    assert set(grids) == {"full", *sp.METHODS}
    tried = sp.candidates("random", grids, 42)
    picked = sp.tuned(pd.DataFrame(tried).assign(map_observed=0.5), grids)
    assert picked == {method: grid[0] for method, grid in grids.items()}
    rows = tried + sp.study("dominant", picked, chosen["seeds"])
    assert len(rows) == len(tried) + len(grids) * len(chosen["seeds"])
    steps = sp.ablation(grids["adagc"][0], 2, chosen["training"]["epochs"])
    rows += [{"setting": "random", "method": "adagc", "seed": 1, **one} for one in steps.values()]
    for row in rows:
        assert not row.keys() & chosen["training"].keys()
        signature.bind(dataset=dataset, **row, **chosen["training"])
        single_positive_tasks.checked(row["method"], row["options"])


def test_candidates_and_what_is_chosen_of_them():
    grids = {"full": [{"learning_rate": 1}, {"learning_rate": 2}], "an": [{"learning_rate": 1}, {"learning_rate": 2}]}
    rows = sp.candidates("random", grids, 42)
    assert [(row["method"], row["setting"], row["learning_rate"]) for row in rows] == [
        ("an", "all", 1),
        ("an", "all", 2),
        ("an", "random", 1),
        ("an", "random", 2),
    ]
    runs = pd.DataFrame(rows).assign(map_observed=[0.1, 0.2, 0.3, 0.3])
    assert sp.tuned(runs, grids) == {"full": {"learning_rate": 2}, "an": {"learning_rate": 1}}
    with pytest.raises(ValueError, match="expected as many candidates for each method"):
        sp.candidates("random", grids | {"wan": []}, 42)
