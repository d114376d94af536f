import getpass
import json
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from rsbook import receipts


@pytest.fixture
def runs(tmp_path):
    """Two records: one from long ago on another machine, one of now."""
    for name, started, device, seed in (
        ("a", "2020-01-01T00:00:00+00:00", "Old processor", 42),
        ("b", "2999-01-01T00:00:00+00:00", "New <processor>", 43),
    ):
        record = {
            "parameters": {"seed": seed},
            "started": started,
            "seconds": 61.0,
            "provenance": {"device": device, "commit": "0123456789abcdef", "uncommitted_changes": False},
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    return pd.DataFrame({"record": [str(tmp_path / "a.json"), str(tmp_path / "b.json"), str(tmp_path / "a.json")]})


def test_a_receipt_says_what_made_the_page(tiny_scenes, runs):
    page = receipts.receipt("work/page", {"preset": "quick", "seeds": [42], "data_root": None}, tiny_scenes, runs)
    facts = dict(line.split(": ", 1) for line in repr(page).splitlines())
    assert facts["Runs"] == "2, of which 1 trained for this page and 1 read from records"
    assert facts["Seeds"] == "42, 43"
    assert facts["Training"] == "2 min 2 s in all, on New <processor>; Old processor"
    assert facts["Code of the runs"] == "commit 0123456789ab"
    assert tiny_scenes.checksum[:16] in facts["Data set"]
    assert "data_root" not in facts["Parameters"]
    assert "torch" in facts["Versions"]
    assert "New &lt;processor&gt;" in page.html


def test_the_line_that_makes_the_page_again_is_read_by_the_command_line(tiny_scenes):
    from rsbook.cli import parse_parameters

    given = {"preset": "quick", "seeds": [42, 43], "device": "cpu"}
    page = receipts.receipt("work/page", given, tiny_scenes)
    words = shlex.split(re.search(r"Make it again: (.*)", repr(page))[1])
    assert words[:5] == ["python", "-m", "rsbook", "run", "work/page"]
    assert parse_parameters(words[6::2]) == given


def test_a_receipt_names_no_person_and_no_folder(tiny_scenes, runs):
    page = receipts.receipt("work/page", {"preset": "quick"}, tiny_scenes, runs)
    assert str(Path.home()) not in page.html
    assert str(Path(receipts.__file__).parents[1]) not in page.html
    if getpass.getuser() != "root":  # a word that may occur by chance
        assert getpass.getuser() not in page.html
