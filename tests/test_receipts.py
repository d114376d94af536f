import getpass
import json
import re
import shlex
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from zoo import make_root, notebook

from rsbook import receipts
from rsbook.figures import FACTS

GIVEN = {"preset": "quick", "seeds": [42, 43], "device": "cpu", "data_root": None}
PARAMETERS = 'preset: str = "quick"\nseeds: list[int] | None = None\ndevice: str = "auto"\ndata_root: str | None = None'


@pytest.fixture(autouse=True)
def page(tmp_path, monkeypatch):
    """A project with one notebook, work/page."""
    make_root(tmp_path / "root", work__page=notebook(PARAMETERS))
    monkeypatch.setattr(receipts, "ROOT", tmp_path / "root")


@pytest.fixture
def runs(tmp_path):
    """Two records: one from long ago on another machine, one of now."""
    for name, started, device, seed in (
        ("a", "2020-01-01T00:00:00+00:00", "Old processor", 42),
        ("b", "2999-01-01T00:00:00+00:00", "New <processor>", 43),
    ):
        record = {
            "function": "work.train",
            "parameters": {"seed": seed},
            "started": started,
            "seconds": 61.0,
            "provenance": {
                "device": device,
                "commit": "0123456789abcdef",
                "uncommitted_changes": False,
                "python": "3.11.7",
                "versions": {"torch": "2.11" if seed == 42 else "2.15", "timm": None},
            },
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    return pd.DataFrame({"record": [str(tmp_path / "a.json"), str(tmp_path / "b.json"), str(tmp_path / "a.json")]})


def test_a_receipt_says_what_made_the_page(tiny_scenes, runs):
    page = receipts.receipt("work/page", GIVEN | {"else": 1}, tiny_scenes, runs)
    facts = dict(line.split(": ", 1) for line in repr(page).splitlines())
    assert facts["Runs"] == "2, of which 1 trained for this page and 1 read from records"
    assert facts["Seeds"] == "42, 43"
    assert facts["Training"] == "2 min 2 s in all, on New <processor>; Old processor"
    assert facts["Code of the runs"] == "commit 0123456789ab"
    assert tiny_scenes.checksum[:16] in facts["Data set"]
    assert "data_root" not in facts["Parameters"]
    assert "torch" in facts["Versions"]
    assert facts["Versions of the runs"] == "Python 3.11.7, torch 2.11; Python 3.11.7, torch 2.15"
    assert "New &lt;processor&gt;" in page.html


def test_a_receipt_is_there_for_programs_too(tiny_scenes, runs):
    page = receipts.receipt("work/page", GIVEN | {"seeds": [42]}, tiny_scenes, runs)
    data = page._repr_mimebundle_()[1][FACTS]
    assert data == json.loads(json.dumps(page.data))
    assert (data["rsbook"], data["notebook"], data["preset"]) == ("receipt", "work/page", "quick")
    assert data["parameters"] == {"preset": "quick", "seeds": [42], "device": "cpu"}
    assert (data["dataset"], data["checksum"]) == ("tiny", tiny_scenes.checksum)
    assert data["seeds"] == [42, 43]  # those of the runs
    assert data["command"] in repr(page)
    assert {"commit", "uncommitted_changes", "device", "system", "python", "versions"} < set(data)
    assert datetime.fromisoformat(data["made"]).utcoffset().total_seconds() == 0
    assert data["seconds"] > 0
    behind = data["runs"]
    assert (behind["total"], behind["fresh"], behind["read"], behind["seconds"]) == (2, 1, 1, 122)
    assert behind["records"] == {"a": 61, "b": 61}


def test_a_page_without_training_has_the_seeds_of_its_parameters(tiny_scenes):
    page = receipts.receipt("work/page", GIVEN, tiny_scenes)
    facts = dict(line.split(": ", 1) for line in repr(page).splitlines())
    assert (facts["Preset"], facts["Seeds"]) == ("quick", "42, 43")
    assert page.data["runs"] is None
    without = receipts.receipt("work/page", GIVEN | {"seeds": None}, tiny_scenes)
    assert "Seeds: none of its own" in repr(without)


def test_a_receipt_is_folded(tiny_scenes):
    assert receipts.receipt("work/page", GIVEN, tiny_scenes).html.startswith(
        '<details class="rsbook-receipt"><summary>'
    )


def test_the_line_that_makes_the_page_again_is_read_by_the_command_line(tiny_scenes):
    from rsbook.cli import parse_parameters

    page = receipts.receipt("work/page", GIVEN, tiny_scenes)
    words = shlex.split(re.search(r"Make it again: (.*)", repr(page))[1])
    assert words[:5] == ["python", "-m", "rsbook", "run", "work/page"]
    assert parse_parameters(words[6::2]) == {name: value for name, value in GIVEN.items() if value is not None}


def test_a_receipt_names_no_person_and_no_folder(tiny_scenes, runs):
    page = receipts.receipt("work/page", GIVEN, tiny_scenes, runs)
    assert str(Path.home()) not in page.html
    assert str(Path(receipts.__file__).parents[1]) not in page.html
    if getpass.getuser() != "root":  # a word that may occur by chance
        assert getpass.getuser() not in page.html


def test_durations_of_any_length():
    said = {0: "0 s", 0.4: "0 s", 59.6: "1 min 0 s", 123: "2 min 3 s", 4553: "1 h 15 min", 360000: "100 h 0 min"}
    assert {seconds: receipts.duration(seconds) for seconds in said} == said


def test_only_smoke_pages_carry_a_notice():
    assert receipts.notice("quick") is None
    assert "mean nothing" in receipts.notice("smoke").html
