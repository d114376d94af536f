"""Sweeps: from the file to executions, to one table of the runs behind them; kernels are left to test_batch.py."""

import csv
import json
import os
from pathlib import Path

import pytest
from zoo import FIRST, FakePapermill, make_root, notebook, write

from rsbook import cli, execution, figures, planning, sweeps
from rsbook.parameters import BatchError, UsageError

CELL = FIRST + 'rate: float = 0.5  # 0 … 1\nword = "x"\nboxes: list[list[float]] | None = None\n'


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with two notebooks, and the folder of the sweep files."""
    monkeypatch.delenv("RSBOOK_STORE", raising=False)
    made = make_root(tmp_path / "project", w__a=notebook(CELL, "1"), w__b=notebook("b = 1", "2"))
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture
def papermill(monkeypatch):
    return FakePapermill().install(monkeypatch)


def sweep_file(text, name="seeds.yml"):
    Path(name).write_text(text, "utf-8")
    return name


def jobs(root, grid, more="", name="seeds.yml"):
    return sweeps.jobs(sweep_file(f"notebook: w/a\n{more}\ngrid: {grid}", name), root)


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(Path(folder).rglob("*"))}


# From the file to executions


def test_a_grid_is_every_combination_in_the_order_of_the_file(root):
    made = jobs(root, "{seeds: [[1], [2, 3]], rate: [0.5, 1]}", "preset: smoke\nparameters: {device: cpu}")
    points = [(job.parameters["seeds"], job.parameters["rate"]) for job in made]
    assert points == [([1], 0.5), ([1], 1.0), ([2, 3], 0.5), ([2, 3], 1.0)]
    common = {"preset": "smoke", "dataset": "bluemarble", "data_root": None, "device": "cpu", "word": "x"}
    assert all(job.parameters.items() >= (common | {"boxes": None}).items() for job in made)
    assert [list(job.parameters) for job in made] == [list(jobs(root, "{rate: [1]}")[0].parameters)] * 4
    assert made[2].label == "w/a [seeds=[2, 3], rate=0.5]"
    assert {job.name for job in made} == {"w/a"}
    folder = root / "_build" / "sweeps" / "seeds"
    assert {job.target.parent for job in made} == {folder}
    assert [job.failed for job in made] == [folder / "failed" / job.target.name for job in made]
    assert len({job.target for job in made}) == 4


def test_an_execution_has_its_file_whatever_else_is_in_the_grid(root):
    few = jobs(root, "{rate: [0.5], seeds: [[1], [2]]}")
    more = jobs(root, "{seeds: [[3], [2], [1]], rate: [0.1, 0.5]}", "preset: smoke\nparameters: {word: other}")

    def files(made):
        return {json.dumps([job.parameters["rate"], job.parameters["seeds"]]): job.target for job in made}

    assert files(few).items() <= files(more).items()
    assert len(files(more)) == 6
    # of all machines and releases: whoever changes the rule leaves all that was executed behind
    assert files(few)["[0.5, [1]]"].name == "a-5a423973834a.ipynb"


def test_values_are_what_the_notebook_takes_them_for(root):
    made = jobs(root, "{rate: [1e-2, 0], word: [yes it is, '1'], boxes: [~, [[0, 1]]]}")
    assert [job.parameters["rate"] for job in made] == [0.01] * 4 + [0.0] * 4
    assert {type(job.parameters["rate"]) for job in made} == {float}
    assert {job.parameters["word"] for job in made} == {"yes it is", "1"}
    assert [job.parameters["boxes"] for job in made[:2]] == [None, [[0.0, 1.0]]]


@pytest.mark.parametrize("notebook", ["w/a", "notebooks/w/a.ipynb", "'*/a'"])
def test_the_notebook_is_named_as_for_run(root, notebook):
    assert sweeps.jobs(sweep_file(f"notebook: {notebook}\ngrid: {{rate: [1]}}"), root)[0].name == "w/a"


BAD = {
    # no YAML
    "notebook: [": "cannot be read as YAML (",
    "notebook: w/a\ngrid:\n\t- 1": "cannot be read as YAML (found character",
    "notebook: w/a\ngrid: {rate: [\0]}": "cannot be read as YAML (unacceptable character #x0000",
    "notebook: w/a\ngrid: {rate: [2020-13-45]}": "cannot be read as YAML (",
    "a: " + "[" * 5000: "cannot be read as YAML (",
    "notebook: !!python/object/apply:os.system [touch hit]\ngrid: {rate: [1]}": "it holds a YAML tag (",
    "notebook: w/a\ngrid: {rate: [!!python/name:os.system ]}": "it holds a YAML tag (",
    "notebook: w/a\ngrid: {rate: &all [1], seeds: *all}": "it holds a YAML alias (*)",
    "notebook: w/a\ngrid: {rate: [" + "0.1, " * 3000 + "]}": "it is longer than 10,000 characters",
    # no sweep
    "": "is None, expected a sweep; for an example: python -m rsbook sweep --help",
    "w/a": "is 'w/a', expected a sweep; for an example",
    "- notebook: w/a": "is [{'notebook': 'w/a'}], expected a sweep; for an example",
    "notebook: w/a": "has no grid; for an example: python -m rsbook sweep --help",
    "{}": "has no notebook and no grid; for an example",
    "notebook: w/a\nGird: {rate: [1]}": "unknown parameter 'Gird' of a sweep; did you mean 'grid'? It takes: notebook,",
    "notebook: w/a\nseeds: [[1]]\ngrid: {rate: [1]}": "unknown parameter 'seeds' of a sweep; It takes: notebook,",
    "notebook: w/a\n1: 2\ngrid: {rate: [1]}": "1 is no name: expected text",
    "notebook: [w/a]\ngrid: {rate: [1]}": "notebook is ['w/a'], expected the name of one",
    "notebook: no\ngrid: {rate: [1]}": "notebook is False, expected the name of one",
    "notebook: w/a\npreset:\ngrid: {rate: [1]}": "preset is None, expected the name of one",
    "notebook: w/a\nparameters: [1]\ngrid: {rate: [1]}": "parameters is [1], expected names with a value each",
    "notebook: w/a\ngrid: [rate]": "grid is ['rate'], expected names with a list of values each",
    # no grid
    "notebook: w/a\ngrid: {}": "the grid is empty: give it a list of values, such as seeds: [[42], [43]]",
    "notebook: w/a\ngrid: {rate: []}": "grid: rate is [], expected a list: write for example rate: [1, 2]",
    "notebook: w/a\ngrid: {rate: 0.5}": "grid: rate is 0.5, expected a list: write for example rate: [1, 2]",
    "notebook: w/a\ngrid: {rate: {a: 1}}": "grid: rate is {'a': 1}, expected a list",
    "notebook: w/a\ngrid: {rate: [1, 1.0]}": "the grid has the point rate=1.0 twice: leave one out",
    "notebook: w/a\ngrid: {rate: [0, 1], seeds: [[1], [1]]}": "the grid has the point rate=0.0, seeds=[1] twice",
    "notebook: w/a\ngrid: {"
    + ", ".join(f"{k}: {list(range(99))}" for k in ("rate", "word", "boxes"))
    + "}": "the grid has 970,299 points, expected at most 10,000: make several sweeps of it",
    # parameters
    "notebook: w/a\ngrid: {rates: [1]}": "unknown parameter 'rates' of w/a; did you mean 'rate'? It takes: preset,",
    "notebook: w/a\nparameters: {sede: 1}\ngrid: {rate: [1]}": "unknown parameter 'sede' of w/a; did you mean 'seeds'?",
    "notebook: w/a\ngrid: {1: [1]}": "1 is no name: expected text, such as preset or seeds",
    "notebook: w/a\nparameters: {~: 1}\ngrid: {rate: [1]}": "None is no name: expected text",
    "notebook: w/a\ngrid: {rate: [0.5, 2]}": (
        "parameter 'rate' of w/a is 2, expected 0 … 1: write for example rate: [0.5]"
    ),
    "notebook: w/a\nparameters: {rate: 2}\ngrid: {word: [a]}": (
        "parameter 'rate' of w/a is 2, expected 0 … 1: write for example rate: 0.5"
    ),
    "notebook: w/a\ngrid: {seeds: [42, 43]}": (
        "parameter 'seeds' of w/a is 42 (int), expected list[int]: write for example seeds: [[3, 3]]"
    ),
    "notebook: w/a\ngrid: {rate: [.nan]}": "holds nan, which is no finite number",
    "notebook: w/a\ngrid: {word: [2020-01-01]}": "parameter 'word' of w/a holds a date, expected str",
    "notebook: w/a\npreset: ful\ngrid: {rate: [1]}": "parameter 'preset' of w/a is 'ful', expected smoke · quick",
    "notebook: w/a\npreset: ''\ngrid: {rate: [1]}": "parameter 'preset' of w/a is '', expected smoke",
    "notebook: w/b\npreset: full\ngrid: {b: [1]}": "unknown parameter 'preset' of w/b; It takes: b",
    # the same twice
    "notebook: w/a\nparameters: {rate: 1}\ngrid: {rate: [1]}": "rate: given twice, for all points or in the grid",
    "notebook: w/a\npreset: full\ngrid: {preset: [smoke]}": "preset: given twice",
    "notebook: w/a\npreset: full\nparameters: {preset: smoke}\ngrid: {rate: [1]}": "preset: given twice",
    "notebook: w/a\ngrid: {rate: [1]}\ngrid: {word: [a]}": "grid is there twice: leave one out",
    "notebook: w/a\ngrid: {rate: [0], word: [a], rate: [1]}": "rate is there twice: leave one out",
    # notebooks
    "notebook: w/c\ngrid: {rate: [1]}": "no notebook matches 'w/c'; nearest: w/",
    "notebook: ''\ngrid: {rate: [1]}": "no notebook matches ''",
    "notebook: ../../etc\ngrid: {rate: [1]}": "no notebook matches '../../etc'",
    "notebook: w/*\ngrid: {rate: [1]}": "notebook 'w/*' is 2 notebooks, and a sweep has one: take w/a or w/b",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_wrong_with_a_file_is_one_line_with_its_name(root, papermill, capsys, text):
    sweep_file(text)
    before = everything(".")
    assert cli.main(["sweep", "seeds.yml"], root) == 2
    said = capsys.readouterr()
    assert said.err.startswith("rsbook: seeds.yml: ")
    assert BAD[text] in said.err
    assert said.err.count("\n") == 1
    assert len(said.err) < 500
    assert said.out == ""
    assert papermill.ran == []
    assert everything(".") == before, "nothing was written, and no tag was obeyed"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.yml", None, "absent.yml: cannot be read (No such file or directory)"),
        ("project", None, "project: cannot be read (Is a directory)"),
        ("x" * 300, None, "cannot be read (File name too long)"),
        ("a\0.yml", None, "cannot be read as YAML (embedded null byte)"),
        ("latin.yml", b"notebook: w/\xe4", "latin.yml: cannot be read as YAML ('utf-8' codec can't decode byte 0xe4"),
        ("binary.yml", bytes(range(256)), "binary.yml: cannot be read as YAML ("),
    ],
)
def test_what_is_no_file_of_text_is_said(root, capsys, name, content, message):
    if content is not None:
        Path(name).write_bytes(content)
    assert cli.main(["sweep", name], root) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["two words.yml", "...yml", ".yml", "a;b.yml", "$(ls).yml", "a'b.yml", "a\nb.yml"])
def test_a_name_that_makes_no_folder_is_refused(root, name):
    with pytest.raises(UsageError, match=r"use letters, digits, - and _ for its name, as in seeds\.yml"):
        jobs(root, "{rate: [1]}", name=name)


@pytest.mark.parametrize("name", ["seeds", "seeds.v2.yml", "_a-1.yaml", "-x.yml", "größe.yml"])
def test_other_names_do(root, name):
    [job] = jobs(root, "{rate: [1]}", name=name)
    assert job.target.parent == root / "_build" / "sweeps" / Path(name).stem
    Path("folder").mkdir()
    [inside] = jobs(root, "{rate: [1]}", name=f"folder/{name}")
    assert inside.target == job.target


def test_a_byte_order_mark_is_no_harm(root):
    Path("bom.yml").write_bytes(b"\xef\xbb\xbfnotebook: w/a\r\ngrid: {rate: [1]}\r\n")
    assert len(sweeps.jobs("bom.yml", root)) == 1


def test_a_notebook_that_is_not_in_order_is_an_error_of_its_own(root, capsys):
    write(root, "w/a", notebook("import os"))
    assert cli.main(["sweep", sweep_file("notebook: w/a\ngrid: {rate: [1]}")], root) == 1
    assert capsys.readouterr().err.startswith("rsbook: the parameters cell of w/a: `import os`")


# What it is made of

ODD = ['a, "b"', "two\nlines\r\n", "'", "é ∞ 字", "=1+1", " ", "", "#", "\ttab", "null"]


def test_what_was_declared_is_read_again(root):
    grid = json.dumps({"word": ODD, "boxes": [None, [[0.1, 1e-7]]]}, ensure_ascii=False)
    made = jobs(root, grid, "preset: full")
    assert sweeps.begun(root) == []
    path = sweeps.declare(made)
    assert path == root / "_build" / "sweeps" / "seeds" / "sweep.csv"
    assert sweeps.begun(root) == ["seeds"]
    again = sweeps.declared("seeds", root)

    def facts(jobs):
        return [(job.name, job.parameters, job.target, job.failed) for job in jobs]

    assert facts(again) == facts(made)
    assert len(again) == 2 * len(ODD)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [list(row) for row in rows] == [["executed", "notebook", "parameters"]] * len(made)
    assert list(path.parent.iterdir()) == [path]


def test_a_sweep_that_is_declared_again_is_what_it_is_now(root):
    sweeps.declare(jobs(root, "{rate: [0, 1]}"))
    sweeps.declare(jobs(root, "{rate: [0.5]}"))
    assert [job.parameters["rate"] for job in sweeps.declared("seeds", root)] == [0.5]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"executed,notebook,parameters\n",
        b"executed,notebook\na.ipynb,w/a\n",
        b"executed,notebook,parameters\na.ipynb,w/a\n",
        b'executed,notebook,parameters\na.ipynb,w/a,{"rate"\n',
        b"executed,notebook,parameters\na.ipynb,w/a,[1]\n",
        b"executed,notebook,parameters\n../../a.ipynb,w/a,{}\n",
        b"executed,notebook,parameters\n/etc/a.ipynb,w/a,{}\n",
        b"executed,notebook,parameters\n,w/a,{}\n",
        b"executed,notebook,parameters\na.ipynb,w/a,\xff\n",
        b"executed,notebook,parameters\na\0.ipynb,w/a,{}\n",
        b'executed,notebook,parameters\na.ipynb,w/a,"' + b"x" * 200_000 + b'"\n',
        b"executed,notebook,parameters\na.ipynb,w/a," + b"[" * 100_000 + b"\n",
        b"\x89PNG\r\n\x1a\n\0\0",
    ],
    ids=range(14),
)
def test_a_damaged_declaration_is_named_with_the_cure(root, content):
    path = sweeps.declare(jobs(root, "{rate: [1]}"))
    path.write_bytes(content)
    with pytest.raises(BatchError, match=r"^_build/sweeps/seeds/sweep\.csv is damaged: run the sweep again, and"):
        sweeps.declared("seeds", root)


# Execution


def test_a_sweep_executes_each_point_once_and_then_nothing(root, papermill, capsys):
    name = sweep_file("notebook: w/a\npreset: smoke\ngrid: {rate: [0, 1], seeds: [[1], [2]]}")
    assert cli.main(["sweep", name], root) == 0
    assert [(p["rate"], p["seeds"], p["preset"]) for _, p in papermill.ran] == [
        *((0.0, [1], "smoke"), (0.0, [2], "smoke")),
        *((1.0, [1], "smoke"), (1.0, [2], "smoke")),
    ]
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("run w/a [rate=0.0, seeds=[1]] (missing) … ")
    assert out[4:] == ["runs behind it: _build/sweeps/seeds/runs.csv"]
    before = everything(root)
    assert cli.main(["sweep", name], root) == 0
    assert capsys.readouterr().out.splitlines() == [
        *(f"w/a [rate={rate}, seeds=[{seed}]] … up to date" for rate in (0.0, 1.0) for seed in (1, 2)),
        "runs behind it: _build/sweeps/seeds/runs.csv",
    ]
    assert everything(root) == before
    sweep_file("notebook: w/a\npreset: smoke\ngrid: {rate: [0.5, 1], seeds: [[2], [1], [3]]}")
    assert cli.main(["sweep", name], root) == 0
    assert len(papermill.ran) == 4 + 4
    assert not (root / "book").exists()
    assert cli.main(["sweep", name, "--force"], root) == 0
    assert len(papermill.ran) == 4 + 4 + 6


def test_a_dry_run_says_what_and_why_and_writes_nothing(root, papermill, capsys):
    name = sweep_file("notebook: w/a\ngrid: {rate: [0, 1]}")
    before = everything(".")
    assert cli.main(["sweep", name, "--dry-run"], root) == 0
    assert capsys.readouterr() == ("run w/a [rate=0.0] (missing)\nrun w/a [rate=1.0] (missing)\n", "")
    assert everything(".") == before
    assert cli.main(["sweep", name], root) == 0
    Path(root, "requirements.lock").write_text("torch==3\n")
    sweep_file("notebook: w/a\nparameters: {word: y}\ngrid: {rate: [1, 0.5]}")
    before = everything(".")
    capsys.readouterr()
    assert cli.main(["sweep", name, "--dry-run"], root) == 0
    told = "run w/a [rate=1.0] (parameters, lock file changed)\nrun w/a [rate=0.5] (missing)\n"
    assert capsys.readouterr() == (told, "")
    assert everything(".") == before
    assert len(papermill.ran) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--timeout", "0"], "--timeout 0: expected seconds above 0"),
        (["--timeout", "nan"], "--timeout nan: expected seconds above 0"),
        (["--workers", "-1"], "--workers -1: expected a number of processes, 0 for this one"),
        (["--store", "nowhere://x"], "the store 'nowhere://x' cannot be reached"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    root, papermill, capsys, monkeypatch, arguments, message
):
    monkeypatch.setenv("RSBOOK_STORE", "")  # to be put back
    name = sweep_file("notebook: w/a\ngrid: {rate: [0, 1]}")
    before = everything(".")
    for command in (["sweep", name], ["run", "w/b"]):
        assert cli.main([*command, *arguments], root) == 2
        said = capsys.readouterr()
        assert said.err.startswith(f"rsbook: {message}")
        assert said.err.count("\n") == 1
        assert said.out == ""
    assert everything(".") == before
    assert papermill.ran == []


# The runs behind it


def put(store, key, seed, score, method="cutmix", **more):
    """A record in the store."""
    record = {
        "fingerprint": key,
        "function": "work.train",
        "parameters": {"seed": seed, "method": method, "area_range": [0.3, 0.7]},
        "results": {"map_macro": score, "flag": True, "history": [{"loss": 1.0}], **more},
        "seconds": 12.5 + seed,
        "started": f"2026-01-0{seed}T00:00:00+00:00",
    }
    path = Path(store, "work.train", f"{key}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def outputs(*keys):
    """What a cell leaves that shows a receipt of these runs, among other things."""
    runs = {"function": "work.train", "records": dict.fromkeys(keys, 12.5)} if keys else None
    another = {"rsbook": "table", "runs": {"function": "other", "records": {"0": 1}}}
    left = [{"rsbook": "receipt", "runs": runs}, another, "text", None]
    return [{"output_type": "display_data", "data": {}, "metadata": {figures.FACTS: facts}} for facts in left]


def page(*keys):
    made = notebook(CELL, "1")
    made["cells"][1]["outputs"] = outputs(*keys)
    return made


class Receipts(FakePapermill):
    """Leaves on each page a receipt of a run with its seed, and of one that is behind all pages."""

    def __init__(self, store, fails=()):
        super().__init__()
        self.store, self.fails = store, fails

    def __call__(self, source, temporary, job, *rest):
        seed = job.parameters["seeds"][0]
        super().__call__(source, temporary, job, *rest)
        put(self.store, f"{seed}" * 32, seed, seed / 8)
        put(self.store, "9" * 32, 9, 0.25, method="none", weights="abc")
        content = json.loads(temporary.read_text())
        content["cells"][1]["outputs"] = outputs(f"{seed}" * 32, "9" * 32)
        temporary.write_text(json.dumps(content))
        return "cell 2 raised E: m" if seed in self.fails else None, False


@pytest.fixture
def swept(root, monkeypatch):
    """Runs a sweep over seeds and returns its exit code and the path of its table."""

    def run(seeds, *arguments, fails=()):
        Receipts(root / "_runs", fails).install(monkeypatch)
        name = sweep_file(f"notebook: w/a\ngrid: {{seeds: {[[seed] for seed in seeds]}}}")
        return cli.main(["sweep", name, *arguments], root), root / "_build" / "sweeps" / "seeds" / "runs.csv"

    return run


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_run_is_a_row_with_its_parameters_and_single_results(swept):
    code, path = swept([1, 2])
    assert code == 0
    rows = read(path)
    assert [row["record"] for row in rows] == ["1" * 32, "2" * 32, "9" * 32]
    assert rows[0] == {
        "function": "work.train",
        "record": "1" * 32,
        "seed": "1",
        "method": "cutmix",
        "area_range": "[0.3, 0.7]",
        "map_macro": "0.125",
        "flag": "true",
        "weights": "",
    }
    assert rows[2]["weights"] == "abc"


def test_the_table_has_the_same_bytes_whoever_did_what_when(swept, root):
    _, path = swept([1, 2, 3])
    first = path.read_bytes()
    assert b"\r" not in first
    for later in ([3, 1, 2], [2, 3, 1]):
        for folder in ("_build", "_runs"):
            os.rename(root / folder, root / f"{folder}-{later[0]}")
        for seed in later[:2]:  # in steps, and the last step has all
            swept([seed])
        _, path = swept(later)
        for record in (root / "_runs").glob("*/*.json"):  # on another machine, another day
            record.write_text(json.dumps(json.loads(record.read_text()) | {"seconds": 0.5, "started": "later"}))
        assert swept(later)[1].read_bytes() == first
        assert path.read_bytes() == first


def test_rows_are_in_the_order_of_their_parameters_whatever_came_out(root):
    [job] = jobs(root, "{rate: [1]}")
    for key, (seed, score) in {"a": (2, 0.1), "b": (1, 0.5), "c": (3, 0.3), "d": (1, 0.4)}.items():
        put(root / "_runs", key * 32, seed, score)
    job.target.parent.mkdir(parents=True)
    job.target.write_text(json.dumps(page(*(key * 32 for key in "abcd"))))
    rows = read(sweeps.collect([job], root / "_runs"))
    assert [(row["seed"], row["map_macro"]) for row in rows] == [("1", "0.4"), ("1", "0.5"), ("2", "0.1"), ("3", "0.3")]


def test_the_order_of_rows_does_not_depend_on_what_fingerprints_are(root):
    [job] = jobs(root, "{rate: [1]}")
    tables = []
    for keys in (("a", "b", "c"), ("b", "c", "a")):
        for seed, key in enumerate(keys):
            put(root / "_runs", key * 32, seed, 0.5)
        job.target.parent.mkdir(parents=True, exist_ok=True)
        job.target.write_text(json.dumps(page(*(key * 32 for key in keys))))
        tables.append(read(sweeps.collect([job], root / "_runs")))
    assert [[row["seed"] for row in rows] for rows in tables] == [["0", "1", "2"]] * 2
    assert [row["record"][0] for row in tables[1]] == ["b", "c", "a"]
    keys = [f"{i:02}" * 16 for i in range(20)]
    for key in keys:
        put(root / "_runs", key, 1, 0.5)
    job.target.write_text(json.dumps(page(*reversed(keys))))
    assert [row["record"] for row in read(sweeps.collect([job], root / "_runs"))] == keys


def test_a_failed_execution_leaves_no_row_even_where_it_had_one_before(swept, root, capsys):
    code, path = swept([1, 2])
    assert code == 0
    before = path.read_bytes()
    Path(root, "requirements.lock").write_text("torch==3\n")
    capsys.readouterr()
    code, path = swept([1, 2], fails=[2])
    assert code == 1
    assert [row["seed"] for row in read(path)] == ["1", "9"]
    said = capsys.readouterr()
    assert "run w/a [seeds=[2]] (lock file changed) … failed\n" in said.out
    assert said.out.endswith("runs behind it: _build/sweeps/seeds/runs.csv\n")
    assert "partial notebook: _build/sweeps/seeds/failed/a-" in said.err
    assert said.err.endswith("rsbook: 1 failed: w/a [seeds=[2]]\n")
    assert swept([1, 2])[0] == 0
    assert path.read_bytes() == before
    assert not list((path.parent / "failed").iterdir()), "a success ends the failure"


def test_a_sweep_that_fails_as_a_whole_has_a_table_without_rows(swept):
    code, path = swept([1, 2], fails=[1, 2])
    assert code == 1
    assert path.read_text() == "function,record\n"


def test_pages_without_runs_make_a_table_without_rows(root, papermill, capsys):
    write(root, "w/a", page())
    assert cli.main(["sweep", sweep_file("notebook: w/a\ngrid: {rate: [0, 1]}")], root) == 0
    assert (root / "_build/sweeps/seeds/runs.csv").read_text() == "function,record\n"


def damage(text):
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Path.unlink, "is missing, a run behind the sweep: name the store that the sweep was run with (--store), or"),
        (damage(""), "is damaged (JSONDecodeError): delete it, and run the sweep with --force"),
        (damage("[]"), "is damaged (TypeError): delete it"),
        (damage("{}"), "is damaged (KeyError): delete it"),
        (damage(json.dumps({"fingerprint": "0" * 32})), "is damaged (ValueError): delete it"),
        (damage(json.dumps({"fingerprint": "1" * 32, "parameters": [], "results": {}})), "is damaged (AttributeError)"),
        (lambda path: path.write_bytes(b"\xff"), "is damaged (UnicodeDecodeError): delete it"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read (Is a directory)"),
    ],
)
def test_a_record_that_cannot_be_read_is_named_with_the_cure(swept, root, capsys, change, message):
    _, path = swept([1, 2])
    before, record = path.read_bytes(), root / "_runs" / "work.train" / f"{'1' * 32}.json"
    change(record)
    capsys.readouterr()
    assert swept([1, 2])[0] == 1
    said = capsys.readouterr().err
    assert said.startswith(f"rsbook: {record} {message}")
    assert said.count("\n") == 1
    assert path.read_bytes() == before


def test_another_store_is_asked_for(swept, root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RSBOOK_STORE", "")  # to be put back
    _, path = swept([1])
    before = path.read_bytes()
    os.rename(root / "_runs", tmp_path / "elsewhere")
    assert swept([1], "--store", str(tmp_path / "nothing"))[0] == 1
    assert "(--store)" in capsys.readouterr().err
    assert swept([1], "--store", str(tmp_path / "elsewhere"))[0] == 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [{"outputs": [3]}]}'])
def test_an_executed_notebook_that_cannot_be_read_is_named(root, text):
    [job] = jobs(root, "{rate: [1]}")
    assert sweeps.collect([job], root / "_runs").read_text() == "function,record\n", "none is executed so far"
    job.target.write_text(text)
    with pytest.raises(BatchError, match=r"a-\w+\.ipynb is damaged \(\w+\): run the sweep with --force"):
        sweeps.collect([job], root / "_runs")
    assert sweeps.collect([job], root / "_runs", [job.label]).is_file()


def test_an_interrupted_sweep_gives_130_and_goes_on_later(root, papermill, monkeypatch, capsys):
    def interrupted(source, temporary, job, *rest):
        if job.parameters["rate"] == 1:
            raise KeyboardInterrupt
        return papermill(source, temporary, job, *rest)

    name = sweep_file("notebook: w/a\ngrid: {rate: [0, 1, 0.5]}")
    monkeypatch.setattr(execution, "_papermill", interrupted)
    assert cli.main(["sweep", name], root) == 130
    assert [job.parameters["rate"] for job in sweeps.declared("seeds", root)] == [0.0, 1.0, 0.5]
    assert [p["rate"] for _, p in papermill.ran] == [0.0]
    papermill.install(monkeypatch)
    assert cli.main(["sweep", name], root) == 0
    assert [p["rate"] for _, p in papermill.ran] == [0.0, 1.0, 0.5]
    assert [planning.why_run(job, root) for job in sweeps.jobs(name, root)] == [None] * 3
