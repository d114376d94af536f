"""Runs done again from their records alone: the same, or what differs, and what cannot be done again."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rsbook import cli, label_propagation, presets, provenance, replaying, runs
from rsbook.checkpoints import weights_path
from rsbook.replaying import ReplayError

NAME = "0123456789abcdef" * 2  # as weights are called


def work(*, seed=0, then=None, dataset=None, stage_one=None, root, device, checkpoint):
    """A run whose results depend on its parameters alone, unless the environment's OTHERWISE says more."""
    score = torch.rand(2, generator=torch.Generator().manual_seed(seed)).tolist()
    results = {"score": score[0], "history": [{"epoch": 1, "loss": score[1]}], "best": "first", "nothing": None}
    if stage_one is not None:
        results["begun_with"] = weights_path(checkpoint.parent, stage_one).read_text()
    if then == "weights":
        weights_path(checkpoint.parent, NAME).parent.mkdir(exist_ok=True)
        weights_path(checkpoint.parent, NAME).write_text("weights")
        results["weights"] = NAME
    if told := os.environ.get("OTHERWISE"):
        if told == "raise":
            raise LookupError(f"nothing\nin {checkpoint.parent}/weights/x.safetensors")
        results |= json.loads(told)
    return results


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("OTHERWISE", raising=False)
    monkeypatch.delenv("RSBOOK_STORE", raising=False)
    return tmp_path / "store"


@pytest.fixture
def made(store):
    """Makes the record of one run of `work`, and returns its path."""

    def made(**parameters):
        found = runs.table(work, [parameters], store=store, device="cpu", workers=0, progress=False)
        return Path(found["record"][0])

    return made


@pytest.fixture
def rewrite(monkeypatch):
    """Writes a record anew with other facts, under the name that these have: as if another rsbook had made it."""

    def rewrite(path, **facts):
        record = json.loads(path.read_text()) | facts
        name = runs._digest({key: record[key] for key in runs.FACTS})
        (other := path.with_name(f"{name}.json")).write_text(json.dumps(record | {"fingerprint": name}))
        return other

    return rewrite


def replay(path, *arguments):
    return cli.main(["replay", str(path), "--device", "cpu", *arguments])


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in Path(folder).rglob("*")}


# The same


@pytest.mark.parametrize("parameters", [{}, {"seed": 3}, {"then": "weights"}, {"dataset": "bluemarble", "seed": 1}])
def test_a_run_comes_out_the_same_and_nothing_is_written(store, made, capsys, parameters):
    path = made(**parameters)
    before = everything(store)
    assert replay(path) == 0
    assert capsys.readouterr() == ("the same results\n", "")
    assert everything(store) == before


def test_a_record_is_enough_wherever_it_lies(store, made, tmp_path, monkeypatch, capsys):
    moved = tmp_path / "from a colleague" / made(seed=2).name
    moved.parent.mkdir()
    os.rename(next(store.rglob("*.json")), moved)
    monkeypatch.chdir(moved.parent)
    assert replay(moved.name) == 0
    assert capsys.readouterr().out == "the same results\n"
    assert replaying.replay(moved.name, device="cpu") == ([], [])


# What differs


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"score": 0.25}, "score: 0.49625658988952637 in the record, 0.25 now"),
        ({"best": "last"}, "best: 'first' in the record, 'last' now"),
        ({"nothing": 0}, "nothing: None in the record, 0 now"),
        ({"history": [{"epoch": 2, "loss": 0.7682217955589294}]}, "history[0].epoch: 1 in the record, 2 now"),
        ({"history": [{"epoch": 1}]}, "history[0].loss: only in the record"),
        ({"history": []}, "history: [{'epoch': 1, 'loss': 0.7682217955589294}] in the record, [] now"),
        ({"more": [1]}, "more: only now"),
    ],
)
def test_what_comes_out_otherwise_is_listed_with_both_values(store, made, monkeypatch, capsys, now, told):
    path = made()
    before = everything(store)
    monkeypatch.setenv("OTHERWISE", json.dumps(now))
    assert replay(path) == 1
    assert capsys.readouterr() == (f"{told}\n", "")
    assert everything(store) == before


def test_all_differences_are_listed_and_long_ones_cut(made, monkeypatch, capsys):
    path = made()
    monkeypatch.setenv("OTHERWISE", json.dumps({"score": "x" * 1000, "best": "last", "history": [{"epoch": 2}]}))
    assert replay(path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["score", "history[0].epoch", "history[0].loss", "best"]
    assert max(map(len, lines)) < 300


def test_a_record_whose_results_were_edited_does_not_stand(made, capsys):
    path = made()
    record = json.loads(path.read_text())
    results = record["results"] | {"score": 0.9, "best": "x" * 1000}
    path.write_text(json.dumps(record | {"results": results}))
    assert replay(path) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == "score: 0.9 in the record, 0.49625658988952637 now"
    assert re.fullmatch(r"best: 'x+ … x+' in the record, 'first' now", second)
    assert len(second) < 200


@pytest.mark.parametrize(
    ("within", "code"), [("0", 1), ("0.0009", 1), ("0.0011", 0), ("1e-2", 0), ("1", 0), ("inf", 0)]
)
def test_numbers_may_differ_within_what_is_allowed(made, monkeypatch, within, code):
    path = made()
    score, loss = torch.rand(2, generator=torch.Generator().manual_seed(0)).tolist()
    now = {"score": score + 0.001, "history": [{"epoch": 1, "loss": loss - 0.001}]}
    monkeypatch.setenv("OTHERWISE", json.dumps(now))
    assert replay(path, "--within", within) == code


@pytest.mark.parametrize("now", [{"best": "last"}, {"nothing": 0}, {"score": True}, {"history": []}, {"more": 0}])
def test_only_numbers_may(made, monkeypatch, now):
    path = made()
    monkeypatch.setenv("OTHERWISE", json.dumps(now))
    assert replay(path, "--within", "100") == 1


def test_weights_are_compared_only_where_every_bit_is(made, monkeypatch, capsys):
    path = made(then="weights")
    monkeypatch.setenv("OTHERWISE", json.dumps({"weights": "f" * 32}))
    assert replay(path) == 1
    assert capsys.readouterr().out == f"weights: {NAME!r} in the record, {'f' * 32!r} now\n"
    assert replay(path, "--within", "1e-9") == 0


@pytest.mark.parametrize("within", ["nan", "-1", "-inf"])
def test_a_tolerance_that_is_none_is_wrong_usage(made, capsys, within):
    assert replay(made(), f"--within={within}") == 2
    said = capsys.readouterr()
    assert said.err == f"rsbook: --within {within}: expected a number, 0 or above\n"
    assert said.out == ""


def test_what_else_is_not_as_it_was_is_said_and_is_no_error(made, rewrite, capsys):
    path = made(dataset="bluemarble")
    record = json.loads(path.read_text())
    others = {
        "sources": record["sources"] | {"rsbook.mixing": "0", "rsbook.gone": "1"},
        "libraries": record["libraries"] | {"torch": "1.0", "timm": "0.1"},
        "data": {"bluemarble": "0"},
        "provenance": record["provenance"] | {"device": "Another GPU", "commit": "another, as is usual"},
    }
    path = rewrite(path, **others)
    assert replay(path) == 0
    said = capsys.readouterr()
    assert said.out == "the same results\n"
    here = provenance.device_name("cpu")
    assert said.err.splitlines() == [
        "rsbook: not as it was recorded: data: bluemarble",
        "rsbook: not as it was recorded: sources: rsbook.gone, rsbook.mixing",
        "rsbook: not as it was recorded: libraries: timm, torch",
        f"rsbook: not as it was recorded: device: 'Another GPU' there, {here!r} here",
    ]


# Runs that begin with the weights of another


def test_the_weights_that_a_run_begins_with_are_found_beside_its_record(store, made, capsys):
    weights = weights_path(made(then="weights").parent, NAME)
    path = made(stage_one=NAME)
    assert json.loads(path.read_text())["results"]["begun_with"] == "weights"
    assert replay(path) == 0
    before = everything(store)
    weights.write_text("others")
    assert replay(path) == 1
    assert "begun_with: 'weights' in the record, 'others' now\n" in capsys.readouterr().out
    weights.unlink()
    assert replay(path) == 1
    said = capsys.readouterr()
    assert said.err.startswith("rsbook: the run fails here: FileNotFoundError: ")
    assert str(weights) in said.err, "not in the folder that is gone by now"
    assert said.err.count("\n") == 1
    assert everything(store).keys() == before.keys() - {weights}


def test_a_parameter_brings_no_file_but_weights(made, rewrite, tmp_path, monkeypatch):
    outside = "../../../secrets/" + "x" * 15  # as long as the name of weights
    weights = weights_path(made(then="weights").parent, outside)
    for secrets in (tmp_path / "secrets", tmp_path / "a" / "secrets"):
        secrets.mkdir(parents=True)
    (tmp_path / "a" / "b").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "a" / "b"))
    weights.resolve().write_text("secret")
    path = rewrite(made(seed=1), parameters={"then": NAME, "stage_one": outside})
    with pytest.raises(ReplayError, match="the run fails here: FileNotFoundError"):
        replaying.replay(path)
    assert list(secrets.iterdir()) == []


# What cannot be done again


def refused(path, capsys, *arguments):
    """The one line on stderr of a replay that gives 1."""
    assert replay(path, *arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize("name", ["absent.json", "", ".", "store", f"{NAME}.json/x", "\0.json", "x" * 300])
def test_a_path_that_is_no_record_is_said(store, made, capsys, monkeypatch, name):
    made()
    monkeypatch.chdir(store.parent)
    assert refused(name, capsys).startswith("rsbook: ")


def test_a_missing_record_is_said_with_what_was_given(store, capsys):
    path = store / "f" / f"{NAME}.json"
    assert refused(path, capsys) == f"rsbook: {path}: there is no such record, or the weights that it names are gone\n"


def test_an_address_that_nobody_knows_is_said(capsys):
    assert "cannot be reached" in refused("nowhere://x/y.json", capsys)


def test_a_record_whose_weights_are_gone_is_said(made, capsys):
    path = made(then="weights")
    weights_path(path.parent, NAME).unlink()
    assert "or the weights that it names are gone" in refused(path, capsys)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"fingerprint": "0"}', "\ud800"])
def test_a_damaged_record_is_said_with_its_path(made, capsys, text):
    path = made()
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    assert refused(path, capsys).startswith(f"rsbook: {path} is damaged (")


def test_a_record_of_changed_parameters_is_damaged(made, capsys):
    path = made(seed=1)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"parameters": {"seed": 2}}))
    assert "its fingerprint is not that of its name and contents" in refused(path, capsys)


@pytest.mark.parametrize(
    "name",
    [
        *("test_replaying.gone", "gone.work", "work", "", ".", "..x.y", "rsbook.label_propagation", "test_replaying."),
        # there, and no functions that do runs
        *("os.system", "os.getcwd", "subprocess.Popen", "builtins.print", "test_replaying.NAME", "runs.table"),
        *("test_replaying.pytest", "label_propagation.study", "test_replaying.Path"),
    ],
)
def test_a_function_that_is_not_here_is_named(made, rewrite, capsys, name):
    path = rewrite(made(), function=name, parameters={})
    said = f"the record is of {name}, which this rsbook does not have: check out the commit of the record"
    assert refused(path, capsys) == f"rsbook: {said}\n"


def test_a_function_is_found_in_rsbook_first(monkeypatch):
    monkeypatch.setitem(sys.modules, "label_propagation", SimpleNamespace(train=work))
    assert replaying.resolve("label_propagation.train") is label_propagation.train
    assert replaying.resolve("rsbook.label_propagation.train") is label_propagation.train
    assert replaying.resolve("test_replaying.work") is work


@pytest.mark.parametrize("parameters", [{"sede": 1}, {"seed": 1, "checkpoint": "/tmp/x"}])
def test_a_function_that_takes_other_parameters_by_now_is_said(made, rewrite, capsys, parameters):
    path = rewrite(made(), parameters=parameters)
    said = refused(path, capsys)
    assert said.startswith("rsbook: test_replaying.work takes other parameters here (")
    assert said.endswith("): check out the commit of the record\n")


def test_a_run_that_fails_is_one_line(store, made, monkeypatch, capsys):
    path = made()
    monkeypatch.setenv("OTHERWISE", "raise")
    said = f"the run fails here: LookupError: nothing in {path.parent}/weights/x.safetensors"
    assert refused(path, capsys) == f"rsbook: {said}\n"


def test_results_that_json_cannot_hold_are_a_failure(made, monkeypatch, capsys):
    path = made()
    monkeypatch.setenv("OTHERWISE", '{"score": NaN}')
    assert "the run fails here: RunError: JSON cannot hold" in refused(path, capsys)


def test_data_that_are_not_here_are_said(made, tmp_path, capsys):
    path = made(dataset="bluemarble")
    assert "the run fails here: DataError: " in refused(path, capsys, "--root", str(tmp_path / "nothing"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_said(made, capsys):
    assert cli.main(["replay", str(made()), "--device", "cuda"]) == 1
    assert "PyTorch finds no GPU here" in capsys.readouterr().err


# The book's own


def test_a_training_in_the_smoke_preset_comes_out_bit_for_bit(store, capsys):
    settings = presets.load("label_propagation", "smoke")["training"] | {"dataset": "bluemarble", "seed": 42}
    how = {"store": store, "device": "cpu", "workers": 0, "progress": False}
    first = runs.table(label_propagation.train, [{"method": "none", "area_range": None}], **how, **settings)
    second = {"method": "cutmix_lp_xai", "area_range": (0.3, 0.7), "stage_one": first["weights"][0]}
    found = runs.table(label_propagation.train, [second], **how, **settings)
    before = everything(store)
    for path in (first["record"][0], found["record"][0]):
        assert replay(path) == 0
        assert capsys.readouterr() == ("the same results\n", "")
    assert everything(store) == before
    assert [len(json.loads(Path(path).read_text())["results"]["history"]) for path in found["record"]] == [2]


def test_a_record_imports_nothing_but_rsbook_and_what_is_there(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'trap')!r}, 'w')\ndef f(root, device, checkpoint): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evil.f", "this.s", "__main__.main", "rsbook.evil.f"):
        with pytest.raises(replaying.ReplayError, match="which this rsbook does not have"):
            replaying.resolve(name)
    assert not (tmp_path / "trap").exists()
    assert replaying.resolve("label_propagation.train").__name__ == "train"
