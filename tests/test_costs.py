"""The page on what everything costs, from tables as benchmarks/measuring.py writes them."""

import json
import re

import pytest
from markdown_it import MarkdownIt

from rsbook import costs, pages

HEAD = "case,device,threads,what,role,unit,median,low,high,n,per_second,target,met\n"
ROWS = (
    "300 scenes,AMD EPYC,1,plain copy,limit,s,0.02,0.019,0.021,30,15000,,",
    "300 scenes,AMD EPYC,1,ours,ours,s,0.025,0.024,0.026,30,12000,,",
    "300 scenes,AMD EPYC,2,ours,ours,s,0.015,0.014,0.016,30,20000,,",
    "300 scenes,AMD EPYC,1,theirs,peer,s,0.05,0.049,0.051,30,6000,,",
    "300 scenes,AMD EPYC,1,theirs / ours,ratio,times,2.0,1.9,2.1,30,,≥ 1.5,yes",
    "300 scenes,AMD EPYC,1,plain copy / ours,ratio,times,0.8,0.75,0.85,30,,≥ 0.8,no",
)
GROWTH = (
    *(
        f"{path} · {amount} {axis},AMD EPYC,1,{what},ours,{unit},{amount / 1e3},{amount / 1e3},{amount / 1e3},3,,,"
        for path in ("mixing", "noise")
        for axis in ("pixels", "bands", "classes", "scenes")
        for what, unit in (("time", "s"), ("memory", "MB"))
        for amount in (3, 30, 300)
    ),
    "mixing · pixels,AMD EPYC,1,exponent of time,ratio,,1.02,1.02,1.02,1,,≤ 1.15,yes",
)
RECEIPT = {
    "title": "Mixing: beside a copy",
    "about": "It mixes in place.",
    "command": "python benchmarks/mixing.py",
    "settings": {"rounds": 30},
    "peers": {"timm": "1.0"},
    "provenance": {"device": "AMD EPYC", "python": "3.11", "versions": {"torch": "2.15.0"}},
    "made": "2026-11-29T16:00:00+00:00",
    "seconds": 12.3,
}


def leave(folder, name="mixing", rows=ROWS, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.csv").write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    (folder / f"{name}.json").write_text(json.dumps(RECEIPT | changes), encoding="utf-8")
    return folder


def test_the_page_says_which_targets_hold_and_lists_those_that_fail(tmp_path):
    page = costs.page(*costs.load(leave(tmp_path)))
    assert "Of 2 targets 1 hold." in page
    tables = re.findall(r"<table.*?</table>", page)
    assert len(tables) == 2
    assert tables[1].count('class="verdict-fails"') == tables[1].count('class="verdict-holds"') == 1
    assert "plain copy / ours" in tables[0]
    assert "theirs / ours" not in tables[0]
    assert tables[0].count("<tr>") == 2
    assert re.sub("<.*?>", "", tables[0]).endswith("300 scenes0.8 × (0.75–0.85)≥ 0.8")
    assert "2 × (" in tables[1]
    assert "## Mixing\n\nBeside a copy. It mixes in place." in page
    assert "Made on 2026-11-29 in 12 s on AMD EPYC, with Python 3.11" in page
    assert "timm 1.0" in page


def test_the_page_is_markdown_of_whole_blocks(tmp_path):
    leave(tmp_path)
    leave(tmp_path, "scaling", GROWTH, title="Growth: of all")
    kinds = [token.type for token in MarkdownIt().parse(costs.page(*costs.load(tmp_path)))]
    assert kinds.count("html_block") == 2 + 1 + 2 + 1 + 1 + 2  # summary · figures · tables · made
    assert "code_block" not in kinds


def test_benchmarks_follow_in_the_order_of_the_book_then_by_name(tmp_path):
    for name in ("zebra", "explain", "affinity", "mixing"):
        leave(tmp_path, name)
    assert [one.name for one in costs.load(tmp_path)[0]] == ["mixing", "explain", "affinity", "zebra"]


def test_without_results_the_page_says_so(tmp_path):
    assert "No benchmark has left its results yet" in costs.page(*costs.load(tmp_path / "missing"))


def test_a_figure_has_a_row_a_way_under_the_head_of_its_case(tmp_path):
    [one], _ = costs.load(leave(tmp_path, rows=[*ROWS, *(row.replace("300 scenes", "3 scenes") for row in ROWS)]))
    timed = one.rows[one.rows["unit"] == "s"]
    lines, height = costs._lines(timed)
    ways = ("plain copy", "ours", "theirs")
    assert [line.text for line in lines] == ["300 scenes", *ways, "3 scenes", *ways]
    assert [len(line.rows) for line in lines] == [0, 1, 2, 1] * 2
    middles = [line.y for line in lines]
    assert middles == sorted(middles)
    assert 0 < middles[0] < middles[-1] < height


def test_rows_of_a_gpu_are_named_so_and_have_no_part_in_the_limit(tmp_path):
    on_gpu = (
        ROWS[0].replace("AMD EPYC,1", "NVIDIA H200,").replace("limit", "ours") + "\n" + ROWS[5].replace(",1,", ",,")
    )
    page = costs.page(*costs.load(leave(tmp_path, rows=[*ROWS, *on_gpu.split("\n")])))
    assert "300 scenes, GPU" in page
    assert "Of 3 targets 1 hold." in page


def test_cases_with_one_way_each_have_a_row_each(tmp_path):
    rows = [ROWS[1], ROWS[1].replace("300 scenes", "3 scenes")]
    [one], _ = costs.load(leave(tmp_path, rows=rows))
    assert [line.text for line in costs._lines(one.rows)[0]] == ["300 scenes", "3 scenes"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mixing.csv", ""),
        ("mixing.csv", "case,what\na,b\n"),
        ("mixing.json", "{}"),
        ("mixing.json", "no JSON"),
        ("mixing.json", "[]"),
        ("mixing.json", json.dumps(RECEIPT | {"title": 3})),
        ("mixing.json", json.dumps({key: value for key, value in RECEIPT.items() if key != "provenance"})),
    ],
)
def test_a_damaged_table_is_named_with_the_cure_and_the_others_are_shown(tmp_path, name, text):
    leave(tmp_path, "affinity", title="Walks: beside others")
    (leave(tmp_path) / name).write_text(text)
    page = costs.page(*costs.load(tmp_path))
    assert "mixing.csv or its receipt cannot be shown" in page
    assert "make it again with python benchmarks/mixing.py" in page
    assert "## Walks" in page
    assert "## Mixing" not in page


def test_the_page_is_written_once(tmp_path):
    leave(tmp_path / "benchmarks" / "results")
    book = tmp_path / "book"
    costs.write(book, tmp_path)
    path = book / pages.FOLDER / "costs.md"
    before = path.stat().st_mtime_ns
    costs.write(book, tmp_path)
    assert path.stat().st_mtime_ns == before
    assert "Of 2 targets" in path.read_text("utf-8")
