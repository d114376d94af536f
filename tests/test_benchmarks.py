"""How benchmarks measure, that those without peers of their own run to their end, and the tables that are kept."""

import ast
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from rsbook import costs

FOLDER = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(FOLDER))
import measuring  # noqa: E402
import run  # noqa: E402

SMALL = {  # those that need nothing but what the book needs, with little to do
    "mixing": "--rounds 2 --batch 8 --size 32 --threads 1",
    "training": "--rounds 1 --epochs 2 --threads 1",
    "noise": "--maps 50 --size 40 --rounds 1",
    "multi_scale": "--rounds 1 --size 64 --batch 1 --threads 1",
}


@pytest.fixture
def table(tmp_path):
    arguments = measuring.parser("path.py", "A path: beside another.\n\npython path.py\n\nMore\nof it.").parse_args(
        ["--output", str(tmp_path / "path.csv")]
    )
    return measuring.Table(arguments)


def test_the_documentation_is_the_title_and_what_is_said(table):
    assert (table.arguments.title, table.arguments.about) == ("A path: beside another", "More of it.")
    assert (table.arguments.rounds, table.arguments.threads) == (30, [1, 2])


def test_a_target_is_met_by_the_worse_quartile(table):
    for values, met in (([1, 2, 3, 4, 5], ("yes", "no")), ([4, 4, 4, 4, 4], ("yes", "yes"))):
        table.add("case", "what", values, at_least=2)
        table.add("case", "what", values, at_least=2.01 if met[1] == "no" else 4)
        assert tuple(row["met"] for row in table.rows[-2:]) == met
    table.add("case", "what", [1, 2, 3, 4, 5], at_most=4)
    table.add("case", "what", [1, 2, 3, 4, 5], at_most=3.9)
    assert [(row["target"], row["met"]) for row in table.rows[-2:]] == [("≤ 4", "yes"), ("≤ 3.9", "no")]


def test_targets_hold_on_the_machine_they_are_stated_for(table):
    table.machine = ("cpu", 2)
    for on in (measuring.ONE_THREAD, ("cpu", 2), ("cpu", None), None):
        table.add("case", "what", [1.0], at_least=1, on=on)
    assert [row["target"] for row in table.rows] == ["", "≥ 1", "≥ 1", "≥ 1"]


def test_ratios_are_taken_round_by_round(table):
    table.ratio("case", {"a": [2.0, 9.0, 4.0], "b": [1.0, 3.0, 2.0]}, "a", "b")
    assert (table.rows[0]["median"], table.rows[0]["low"], table.rows[0]["high"]) == ("2", "2", "2.5")


def test_items_a_second_are_of_the_median(table):
    table.times("case", {"a": [1.0, 2.0, 9.0]}, {"a": "peer"}, items=300)
    assert (table.rows[0]["per_second"], table.rows[0]["role"]) == ("150", "peer")


def test_ways_take_turns_and_the_warm_up_is_not_counted():
    called = []
    seconds = measuring.turns({name: lambda name=name: called.append(name) for name in "ab"}, 3, warm_up=2, best_of=2)
    assert "".join(called) == "aabb" * 5
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_the_table_and_its_receipt_are_read_by_the_page(table, tmp_path):
    table.add("case", "what", [1.0, 2.0], at_most=2)
    table.write()
    [one], _ = costs.load(tmp_path)
    assert list(one.rows.columns) == list(measuring.COLUMNS)
    assert one.receipt["settings"] == {"rounds": 30, "threads": [1, 2]}
    assert one.receipt["provenance"]["versions"]["torch"]


@pytest.mark.parametrize("name", SMALL)
def test_a_small_benchmark_runs_to_its_end(name, tmp_path):
    output = tmp_path / f"{name}.csv"
    command = [sys.executable, FOLDER / f"{name}.py", *SMALL[name].split(), "--output", output]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(output)
    assert set(found["role"]) <= set(measuring.ROLES)
    assert (found["median"] >= 0).all() or name == "training"  # a share may be below nothing, within the noise
    assert "## " in costs.page(*costs.load(tmp_path))


def test_all_scripts_are_run_and_have_left_their_tables():
    scripts = {path.stem for path in FOLDER.glob("*.py")} - {"measuring", "run"}
    assert set(run.PATHS) == scripts
    found, damaged = costs.load(FOLDER / "results")
    assert not damaged
    assert {one.name for one in found} == scripts
    for one in found:
        assert set(one.rows["role"]) <= set(measuring.ROLES)
        documentation = ast.get_docstring(ast.parse((FOLDER / f"{one.name}.py").read_text("utf-8")))
        assert measuring.parser(f"{one.name}.py", documentation).parse_args([]).title == one.receipt["title"]


def test_the_driver_refuses_a_name_that_is_no_benchmark(capsys):
    assert run.main(["mixed"]) == 2
    assert "'mixed': expected some of mixing" in capsys.readouterr().out
