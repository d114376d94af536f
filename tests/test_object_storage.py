"""A store in S3, on a local server: nothing is lost, half-written or done twice, and what goes wrong is said."""

import json
import os
import re
import socket
import sys
import time
from contextlib import contextmanager

import buckets
import pandas as pd
import pytest
import torch
from botocore.exceptions import EndpointConnectionError
from torch import nn
from zoo import make_root, notebook

from rsbook import checkpoints, cli, files, planning, replaying, runs, status, sweeps, training
from rsbook.files import fetched, location, reached, replacing
from rsbook.parameters import BatchError, UsageError
from rsbook.runs import RunError


@pytest.fixture(scope="module", autouse=True)
def storage():
    with buckets.environment():
        yield


@pytest.fixture
def store():
    """An address in a bucket of its own."""
    return f"{buckets.new()}/folder/store"


@pytest.fixture
def calls(tmp_path):
    """The folder where runs note that they were called."""
    (folder := tmp_path / "calls").mkdir()
    return folder


@pytest.fixture
def table(store, calls):
    def table(*values, function=buckets.work, **given):
        how = {"store": store, "device": "cpu", "workers": 0, "progress": False, "calls": str(calls)} | given
        name = "value" if function is buckets.work else "seed"
        return runs.table(function, [{name: value} for value in values], **how)

    return table


def names(store, suffix):
    return [name for name in buckets.objects(store) if name.endswith(suffix)]


def put(address, text):
    with replacing(location(address)) as temporary:
        temporary.write_text(text)


@contextmanager
def no_upload(address, monkeypatch, of=""):
    """A block in which nothing whose name ends so reaches the storage: the connection ends on the way."""
    fs = location(address).fs
    working = fs._call_s3

    async def failing(method, *given, **options):
        if method in ("put_object", "upload_part") and options["Key"].endswith(of):
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1/")
        return await working(method, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "_call_s3", failing)
        yield


# Files


def test_what_is_written_comes_back_and_nothing_else_is_left(store, tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    path = location(store) / "deeper" / "a b%20ü#.json"
    for text in ("old", "", "new"):
        with replacing(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
        with fetched(path) as copy:
            assert copy.read_text() == text
    assert buckets.objects(store) == ["deeper/a b%20ü#.json"]
    assert list(tmp_path.iterdir()) == []


def test_a_failing_upload_leaves_the_older_object_and_names_the_address(store, tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    put(f"{store}/record.json", "old")
    with no_upload(store, monkeypatch), pytest.raises(OSError, match="Could not connect") as raised:
        put(f"{store}/record.json", "new")
    assert raised.value.filename == f"{store}/record.json"
    with pytest.raises(LookupError), replacing(location(f"{store}/record.json")) as temporary:
        raise LookupError(temporary.write_text("half"))
    assert location(f"{store}/record.json").read_text() == "old"
    assert buckets.objects(store) == ["record.json"]
    assert list(tmp_path.iterdir()) == []


def test_what_others_write_is_seen_at_once(store):
    folder = location(store)
    put(f"{store}/f/a.json", "text")
    assert [path.name for path in folder.glob("*/*.json")] == ["a.json"]
    assert not (folder / "f" / "b.json").exists()
    code = "from rsbook.files import location\nlocation(sys.argv[1]).write_text('text')"
    buckets.said(buckets.python(code, f"{store}/f/b.json"))
    assert [path.name for path in folder.glob("*/*.json")] == ["a.json", "b.json"]
    assert (folder / "f" / "b.json").is_file()


# Records


def test_records_are_read_again_and_only_what_is_missing_is_done(table, store, calls):
    first = table(3, 1)
    assert first["record"].str.startswith(f"{store}/buckets.work/").all()
    assert buckets.objects(store) == sorted(path.removeprefix(f"{store}/") for path in first["record"])
    record = json.loads(location(first["record"][0]).read_text("utf-8"))
    assert (record["parameters"]["value"], record["results"]["score"]) == (3, 0.375)
    pd.testing.assert_frame_equal(table(1, 3), first.iloc[::-1].reset_index(drop=True))
    assert table(3, 2, 1)["score"].tolist() == [0.375, 0.25, 0.125]
    assert buckets.called(calls) == [1, 2, 3]
    in_a_folder = table(3, 1, store=calls.parent / "store")
    ours = ["seconds", "record"]
    pd.testing.assert_frame_equal(in_a_folder.drop(columns=ours), first.drop(columns=ours))


def test_stored_runs_are_those_of_the_table_without_what_is_damaged(table, store):
    assert runs.stored(buckets.work, store=store).empty
    first = table(1, 2, 3)
    pd.testing.assert_frame_equal(runs.stored(buckets.work, store=store), first)
    assert runs.stored(buckets.work, store=store, value=2)["score"].tolist() == [0.25]
    location(first["record"][1]).write_text("{")
    assert runs.stored(buckets.work, store=store)["value"].tolist() == [1, 3]


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b'{"fingerprint": "\xff\xfe"}'])
def test_a_damaged_record_is_named_with_its_address_and_its_cure(table, calls, damage):
    address = table(1)["record"][0]
    location(address).write_bytes(damage)
    with pytest.raises(RunError, match=rf"{address} is damaged \(.*\): delete it, and the run is done again"):
        table(1, 2)
    location(address).unlink()
    assert table(1)["score"].tolist() == [0.125]
    assert buckets.called(calls) == [1, 1]


def test_workers_of_other_processes_do_the_runs(table, store, calls):
    found = table(4, 1, 3, 2, workers=2)
    assert found["score"].tolist() == [0.5, 0.125, 0.375, 0.25]
    assert buckets.called(calls) == [1, 2, 3, 4]
    assert str(os.getpid()) not in {path.name.split()[1] for path in calls.iterdir()}
    assert len(names(store, "")) == 4  # and no lease is left


def test_two_processes_at_once_do_each_run_once(table, store, calls):
    code = """
import buckets, json
from rsbook import runs
rows = [{"value": value} for value in json.loads(sys.argv[3])]
how = {"store": sys.argv[1], "calls": sys.argv[2], "device": "cpu", "workers": 0, "progress": False}
print("ready", flush=True)
sys.stdin.readline()
print(runs.table(buckets.work, rows, seconds=0.3, **how)["score"].tolist())
"""
    orders = [1, 2, 3, 4, 5, 6], [1, 2, 3, 6, 5, 4]
    both = [buckets.python(code, store, calls, order) for order in orders]
    assert [process.stdout.readline() for process in both] == ["ready\n"] * 2
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    told = [json.loads(buckets.said(process)) for process in both]
    assert told == [[value / 8 for value in order] for order in orders]
    assert buckets.called(calls) == [1, 2, 3, 4, 5, 6]
    assert len({path.name.split()[1] for path in calls.iterdir()}) == 2  # both had some
    assert table(*range(1, 7), seconds=0.3)["score"].tolist() == sorted(told[0])
    assert len(buckets.called(calls)) == len(names(store, "")) == 6


def test_a_run_that_fails_leaves_nothing_and_does_not_stop_the_others(table, store):
    with pytest.raises(RunError, match=r"1 of 1 runs failed.*\n  LookupError: no 1 in the run with"):
        table(1, fails=True)
    assert buckets.objects(store) == []


# Training


def weights(seed):
    model = nn.Linear(8, 1)
    nn.init.constant_(model.weight, seed)
    return model


def test_weights_come_back_and_damage_is_named_with_the_address(store):
    folder, found = location(store), weights(0)
    name = checkpoints.save_weights(weights(1), folder)
    assert buckets.objects(store) == [f"weights/{name}.safetensors"]
    checkpoints.load_weights(found, folder, name)
    assert torch.equal(found.weight, weights(1).weight)
    path = checkpoints.weights_path(folder, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{path} is damaged .*: delete it, and run what wrote it again"):
        checkpoints.load_weights(found, folder, name)
    path.unlink()
    with pytest.raises(ValueError, match=rf"{path} is missing: run what wrote these weights again"):
        checkpoints.load_weights(found, folder, name)


def test_a_training_that_was_interrupted_goes_on_to_the_same_bits(table, store, calls, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    (calls / "stop").touch()
    with pytest.raises(RunError, match="interrupted at 3"):
        table(7, function=buckets.trained)
    [begun] = buckets.objects(store)
    assert re.fullmatch(r"buckets\.trained/[0-9a-f]{32}\.safetensors", begun)
    (calls / "stop").unlink()
    resumed = table(7, function=buckets.trained).iloc[0]
    whole = table(7, function=buckets.trained, store=calls.parent / "store").iloc[0]
    assert (resumed["evaluated"], whole["evaluated"]) == (3, 5)
    assert resumed["history"] == whole["history"]
    assert resumed["weights"] == whole["weights"]  # named by their bytes
    kept = [f"buckets.trained/{begun[16:48]}.json", f"buckets.trained/weights/{whole['weights']}.safetensors"]
    assert buckets.objects(store) == kept
    checkpoints.load_weights(nn.Linear(8, 1), location(resumed["record"]).parent, resumed["weights"])
    [difference] = replaying.replay(resumed["record"], device="cpu")[1]
    assert difference.startswith("evaluated: 3 ")  # how it came about, and nothing else


def test_a_record_that_could_not_be_sent_costs_no_epoch(table, store, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    with no_upload(store, monkeypatch, of=".json"), pytest.raises(RunError, match=rf"Could not connect.*'{store}/"):
        table(7, function=buckets.trained)
    assert names(store, ".json") == []
    assert table(7, function=buckets.trained)["evaluated"].tolist() == [0]
    assert len(names(store, ".json")) == 1


def test_a_checkpoint_that_was_damaged_is_told_and_begun_anew(table, store, calls, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    (calls / "stop").touch()
    with pytest.raises(RunError, match="interrupted at 3"):
        table(7, function=buckets.trained)
    (calls / "stop").unlink()
    [begun] = buckets.objects(store)
    path = location(f"{store}/{begun}")
    path.write_bytes(path.read_bytes()[:99])
    with pytest.warns(UserWarning, match=rf"{path} cannot be read .*: training starts from the beginning"):
        assert table(7, function=buckets.trained)["evaluated"].tolist() == [5]


def test_a_training_in_several_processes_keeps_its_checkpoint_in_the_store(store, monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    path = location(store) / "run.safetensors"
    assert not path.exists()  # which connects, and no connection outlives a fork
    how = {"seed": 1, "epochs": 1, "batch_size": 8, "learning_rate": 0.01, "device": "cpu", "progress": False}
    history = training.fit(weights(1), buckets.Points(), devices=2, checkpoint=path, **how)
    assert checkpoints.read(path)[0]["history"] == history


# What looks into the store


def test_status_and_plans_look_into_the_store(table, store, tmp_path, monkeypatch):
    monkeypatch.setenv("RSBOOK_STORE", store)
    root = make_root(tmp_path / "root", w__n=notebook("a = 1", "runs.stored(f)"))
    empty = planning.records(root)
    assert f"records in {store}: 0" in status.report(root)
    first = table(1, 2)
    known = planning.records(root)
    assert known != empty
    put(f"{store}/buckets.work/.{'0' * 32}.json.lease", "somebody 3")
    put(f"{store}/buckets.work/{'0' * 32}.safetensors", "state")
    assert planning.records(root) == known
    assert f"records in {store}: 2, 1 " in status.report(root)
    location(first["record"][0]).write_text("{")
    assert f"damaged: {first['record'][0]}: " in status.report(root)
    location(first["record"][0]).unlink()
    assert planning.records(root) not in (empty, known)


def test_the_runs_behind_a_sweep_are_collected_from_the_store(table, store, tmp_path):
    found = table(2, 1)
    facts = {"function": "buckets.work", "records": {location(path).stem: 0.1 for path in found["record"]}}
    shown = {"output_type": "display_data", "data": {}, "metadata": {"rsbook": {"rsbook": "receipt", "runs": facts}}}
    executed = notebook("a = 1")
    executed["cells"][0]["outputs"] = [shown]
    job = planning.Job("w/n [a=1]", "w/n", {"a": 1}, tmp_path / "sweep" / "n.ipynb", tmp_path / "failed" / "n.ipynb")
    job.target.parent.mkdir()
    job.target.write_text(json.dumps(executed))
    rows = pd.read_csv(sweeps.collect([job], store))
    assert rows["value"].tolist() == [1, 2]
    assert rows["score"].tolist() == [0.125, 0.25]
    location(found["record"][0]).unlink()
    with pytest.raises(BatchError, match=rf"{found['record'][0]} is missing"):
        sweeps.collect([job], store)


def test_notebooks_put_their_runs_into_the_store_and_a_second_batch_trains_nothing(store, calls, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (buckets.TESTS, buckets.TESTS.parent))))
    cells = [
        "preset = 'smoke'\ncalls = ''",
        "from rsbook import runs\nimport buckets",
        "found = runs.table(buckets.work, [{'value': v} for v in (1, 2)], calls=calls, device='cpu', progress=False)",
        "print(found['score'].tolist(), found['record'].tolist())",
    ]
    root = make_root(tmp_path / "root", w__n=notebook(*cells))
    code = "from pathlib import Path\nfrom rsbook import cli\nsys.exit(cli.main(sys.argv[2:], Path(sys.argv[1])))"
    run = [root, "run", "--store", store, "--workers", "1", "-p", f"calls={calls}"]
    buckets.said(buckets.python(code, *run))
    executed = (root / "book/_executed/w/n.ipynb").read_text("utf-8")
    assert f"[0.125, 0.25] ['{store}/buckets.work/" in executed
    assert buckets.called(calls) == [1, 2]
    kept = buckets.objects(store)
    assert [name.split("/")[0] for name in kept] == ["buckets.work"] * 2
    assert "up to date" in buckets.said(buckets.python(code, *run))
    buckets.said(buckets.python(code, *run, "--force"))
    assert buckets.called(calls) == [1, 2]
    assert buckets.objects(store) == kept


# What goes wrong


def closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def authentication():
    """A block in which the server believes nobody."""
    from urllib.request import Request, urlopen

    def switch(unchecked):
        plain = {"Content-Type": "application/octet-stream"}
        urlopen(Request(f"{buckets.address()}/moto-api/reset-auth", unchecked, plain)).close()

    switch(b"0")
    try:
        yield
    finally:
        switch(b"inf")


@contextmanager
def out_of_use(kind):
    if kind == "unreachable":
        with buckets.environment(AWS_ENDPOINT_URL=f"http://127.0.0.1:{closed_port()}"):
            yield
    elif kind == "no credentials":
        with buckets.environment(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY=""):
            yield
    elif kind == "wrong credentials":
        with authentication():
            yield
    else:
        yield


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("unreachable", "Could not connect to the endpoint URL"),
        ("no credentials", "Unable to locate credentials"),
        ("wrong credentials", "Access Key Id you provided does not exist"),
        ("no such bucket", "bucket does not exist"),
    ],
)
def test_a_store_that_cannot_be_used_is_said_in_seconds_with_its_address(table, store, calls, capsys, kind, why):
    address = "s3://no-such-bucket/store" if kind == "no such bucket" else store
    told = rf".*{why}.*\(are address, bucket, credentials and.* AWS_ENDPOINT_URL right\?\)"
    root = make_root(calls.parent / "root", w__n=notebook("a = 1"))
    begin = time.monotonic()
    with out_of_use(kind), pytest.MonkeyPatch.context() as patch:
        for use in (lambda: table(1, store=address), lambda: runs.stored(buckets.work, store=address)):
            with pytest.raises(OSError, match=rf"{told}: '{address}'"):
                use()
        patch.setenv("RSBOOK_STORE", address)
        with pytest.raises(BatchError, match=rf"the store {address} cannot be used: {told}"):
            planning.store(root)
        for command in (["status"], ["run"]):
            assert cli.main([*command, "--store", address], root) == 1
            [line] = capsys.readouterr().err.splitlines()
            assert re.fullmatch(rf"rsbook: the store {address} cannot be used: {told}", line)
    assert time.monotonic() - begin < 30
    assert buckets.called(calls) == []


def test_a_bucket_that_may_be_read_but_not_written_is_said_before_anything_runs(table, store, calls, monkeypatch):
    first, fs = table(1), location(store).fs
    working = fs._call_s3

    async def forbidding(method, *given, **options):
        if method == "put_object":
            raise PermissionError("Access Denied")
        return await working(method, *given, **options)

    monkeypatch.setattr(fs, "_call_s3", forbidding)
    assert table(1).equals(first)
    with pytest.raises(RunError, match=rf"{store}/.*\.json cannot be written: Access Denied; .*choose another store"):
        table(2)
    assert buckets.called(calls) == [1]


def test_a_silent_server_is_given_up(store, monkeypatch):
    options = location(store).fs.config_kwargs
    assert options["read_timeout"] * options["retries"]["total_max_attempts"] * location(store).fs.retries <= 75
    monkeypatch.setattr(files, "PATIENCE", {"read_timeout": 0.1, "retries": {"total_max_attempts": 1}})
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(100)
        silent_address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with buckets.environment(AWS_ENDPOINT_URL=silent_address), pytest.raises(OSError, match=f"timeout.*'{store}'"):
            reached(store)


def test_settings_of_the_user_come_first(store, monkeypatch):
    from fsspec.config import conf

    given = {"config_kwargs": {"read_timeout": 60, "s3": {"addressing_style": "path"}}}
    monkeypatch.setitem(conf, "s3", given)  # as from FSSPEC_S3_CONFIG_KWARGS
    found = location(store).fs.config_kwargs
    assert found == given["config_kwargs"] | {"retries": files.PATIENCE["retries"]}


def test_an_address_that_no_library_knows_is_said(table, calls, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    root = make_root(calls.parent / "root", w__n=notebook("a = 1"))
    for address in ("foo://bucket/store", "gs://bucket/store"):
        with pytest.raises(ValueError, match=rf"'{address}' cannot be reached \(.+\)"):
            table(1, store=address)
        with pytest.raises(ValueError, match=rf"'{address}' cannot be reached"):
            runs.stored(buckets.work, store=address)
        monkeypatch.setenv("RSBOOK_STORE", address)
        with pytest.raises(UsageError, match=rf"the store '{address}' cannot be reached"):
            planning.store(root)
        assert cli.main(["status", "--store", address], root) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert buckets.called(calls) == []


def test_without_s3fs_what_to_install_is_said(store, tmp_path):
    code = "sys.modules['s3fs'] = None\nfrom rsbook.files import location\nlocation(sys.argv[1])"
    process = buckets.python(code, store)
    err = process.communicate(timeout=60)[1]
    assert err.endswith(
        f"ValueError: '{store}' cannot be reached (Install s3fs to access S3); for s3:// install rsbook[cluster]\n"
    )
