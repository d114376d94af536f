"""Archived results: what was archived is what is loaded, with who made it, and nothing about anyone's folders."""

import json
import re
from functools import partial

import pandas as pd
import pytest
from made_up_runs import LARGE, SMALL, noisy, rows, runs_table

from rsbook import claims, crops_findings, results, single_positive_findings, tables, weak_findings

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VERSIONS = {"torch": "2.9", "numpy": "2.4"}


def provenance(**changes):
    facts = {"commit": COMMIT, "uncommitted_changes": False, "python": "3.11", "system": "Linux x86_64"}
    return facts | {"device": "a made-up processor", "versions": VERSIONS} | changes


def with_records(runs, folder, *provenances):
    """The runs with a record each, as `runs.table` leaves them."""
    folder.mkdir()
    paths = []
    for k, run in enumerate(runs.to_dict("records")):
        given = {"method": run["method"], "area_range": run["area_range"], "seed": run["seed"]}
        record = {
            "fingerprint": f"f{k:031x}",
            "function": "rsbook.label_propagation.train",
            "parameters": given | {"dataset": "bluemarble", "epochs": 40, "batch_size": 300 if k else 64},
            "data": {"bluemarble": "d" * 64},
            "sources": {"rsbook/training.py": "s" * 64},
            "results": {"map_macro": run["map_macro"]},
            "started": f"2026-11-{k + 1:02}T10:00:00+00:00",
            "seconds": run["seconds"],
            "provenance": provenances[k % len(provenances)],
        }
        path = folder / f"{record['fingerprint']}.json"
        path.write_text(json.dumps(record))
        paths.append(str(path))
    return runs.assign(record=paths)


@pytest.fixture
def runs(tmp_path):
    more = {"average_precision": [0.25, None, 1.0], "best_epoch": 12, "seconds": 1800.5, "history": [{"epoch": 1}]}
    table = runs_table(
        rows("none", None, [0.70, 0.71], **more),
        rows("cutmix", SMALL, [0.72, 0.73], **more),
        rows("cutmix", LARGE, [0.73, 0.74], **more),
        rows("cutmix_lp_map", LARGE, [0.76, 1 / 1.3], **more),
        rows("cutmix_lp_map", LARGE, [0.75, 0.76], **more, maps="product"),
        [row | more for row in noisy("cutmix_lp_map", [0.74, 0.75], "mask_shift", 1.0, 36)],
        [row | more for row in noisy("cutmix_lp_map", [0.71, 0.72], "class_swap", 0.3)],
        [row | more for row in noisy("cutmix", [0.70, 0.71], "class_swap", 0.3)],
    )
    return with_records(table, tmp_path / "store", provenance(), provenance(device="another one"))


def archive(runs, folder, name="label_propagation/made_up"):
    results.archive(name, runs, "made up, for a test.", "python make_up.py", folder)


def test_what_is_archived_is_what_is_loaded(runs, tmp_path):
    archive(runs, tmp_path / "results")
    loaded, _ = results.load("label_propagation/made_up", tmp_path / "results")
    kept = [*results.KEPT["label_propagation"], "seconds"]
    assert loaded.columns.tolist() == [*kept, "started", "commit", "device", "record"]
    for column in kept:
        for ours, theirs in zip(loaded[column], runs[column], strict=True):
            assert ours == theirs or (pd.isna(ours) and pd.isna(theirs))
    assert loaded["area_range"].tolist() == runs["area_range"].tolist()  # lists and None
    assert loaded["average_precision"].tolist() == [[0.25, None, 1.0]] * len(runs)


def test_archived_runs_say_the_same_to_tables_and_claims(runs, tmp_path):
    archive(runs, tmp_path / "results")
    loaded, _ = results.load("label_propagation/made_up", tmp_path / "results")
    for judge in (
        tables.table_v,
        lambda table: tables.by_area_range(table[table["noise"].isna()], "table_iii", "product"),
        lambda table: tables.figure_4_whole(table, ["mask_shift", "class_swap"]),
        lambda table: tables.rare_classes(table, ("a", "b", "c"), [0.5, 0.2, 0.3]),
        lambda table: claims.reliable_maps(table, "full"),
        lambda table: claims.map_noise(table, "mask_shift", "full"),
        lambda table: claims.map_noise(table, "class_swap", "full"),
        lambda table: claims.thematic_product(table, "full", "product"),
        lambda table: claims.beyond_the_paper(table, [0], "full"),
    ):
        pd.testing.assert_frame_equal(judge(loaded), judge(runs))


def test_the_receipt_says_what_made_it(runs, tmp_path):
    archive(runs, tmp_path / "results")
    loaded, receipt = results.load("label_propagation/made_up", tmp_path / "results")
    assert receipt == {
        "about": "made up, for a test.",
        "command": "python make_up.py",
        "runs": len(runs),
        "seeds": [42, 43],
        "settings": {"dataset": "bluemarble", "epochs": 40},  # what all runs share
        "data": {"bluemarble": "d" * 64},
        "sources": {"rsbook/training.py": "s" * 64},
        "provenance": [provenance(), provenance(device="another one")],
        "seconds": round(1800.5 * len(runs)),
    }
    assert set(loaded["commit"]) == {COMMIT}
    assert loaded["device"].tolist()[:2] == ["a made-up processor", "another one"]
    assert loaded["started"][3] == "2026-11-04T10:00:00+00:00"
    assert loaded["record"][3] == f"f{3:031x}"


def test_no_folder_of_this_machine_is_archived(runs, tmp_path):
    archive(runs, tmp_path / "results")
    for path in (tmp_path / "results").rglob("*.*"):
        assert str(tmp_path) not in path.read_text()


def test_an_unknown_name_lists_those_that_exist(runs, tmp_path):
    with pytest.raises(ValueError, match=r"'wide' is not archived.*these are: none"):
        results.load("wide", tmp_path)
    archive(runs, tmp_path, "label_propagation/wide")
    archive(runs, tmp_path, "label_propagation/protocol")
    with pytest.raises(
        ValueError, match=r"'wide' is not archived.*these are: label_propagation/protocol, label_propagation/wide"
    ):
        results.load("wide", tmp_path)


def test_a_table_that_cannot_be_archived_leaves_the_older_one(runs, tmp_path, monkeypatch):
    folder = tmp_path / "results"
    archive(runs, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    with pytest.raises(FileNotFoundError):
        archive(runs.assign(record="gone.json"), folder)

    def fails(frame, path, **options):
        path.write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", fails)
    with pytest.raises(OSError, match="No space"):
        archive(runs, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def draw(runs, folder, monkeypatch, **options):
    archive(runs, folder)
    monkeypatch.setattr(results, "load", partial(results.load, folder=folder))
    return results.draw_archived("label_propagation/made_up", pd.DataFrame({"method": ["x"]}), **options)


def test_the_caption_of_archived_results_says_what_ran_where(runs, tmp_path, monkeypatch):
    page = draw(runs, tmp_path / "results", monkeypatch, published=("method",))
    caption = re.search("<caption>(.*?)<a", page.html)[1]
    assert "made up, for a test. Seeds 42, 43; 16 runs, 8.0 hours on a made-up processor; another one;" in caption
    assert f"commit {COMMIT[:12]}." in caption
    assert COMMIT not in caption
    assert 'download="label_propagation_made_up.csv"' in page.html
    assert '<th class="published text">method</th>' in page.html


def test_runs_without_a_git_checkout_have_no_commit_to_name(runs, tmp_path, monkeypatch):
    runs = with_records(runs, tmp_path / "elsewhere", provenance(commit=None, uncommitted_changes=None))
    assert "commit unknown." in draw(runs, tmp_path / "results", monkeypatch).html


ARCHIVED = sorted(path.relative_to(results.FOLDER).with_suffix("").as_posix() for path in results.FOLDER.rglob("*.csv"))
PATHS = re.compile(r"(?<![\w.:/])/\w[\w.-]*/|[a-z]:\\|~/|file:", re.IGNORECASE)


@pytest.mark.parametrize("name", ARCHIVED)
def test_every_archived_table_loads_and_has_its_receipt(name):
    runs, receipt = results.load(name)
    assert len(runs) == receipt["runs"] > 0
    assert sorted(set(runs["seed"])) == receipt["seeds"]
    assert runs["record"].is_unique
    assert runs["record"].str.fullmatch("[0-9a-f]{32}").all()
    means = ["map_macro", "map_micro"]
    scores = {
        "label_propagation": means,
        "single_positive": [*means, "f1_fixed", "f1_tuned"],
        "crops": ["accuracy"],
        "weak_segmentation": ["miou"],
    }
    scores = scores[name.partition("/")[0]]
    assert runs[scores].stack().between(0, 1).all()
    assert {facts["device"] for facts in receipt["provenance"]} == set(runs["device"])
    assert {facts["commit"] for facts in receipt["provenance"]} == set(runs["commit"])
    assert re.fullmatch(r"python data/results/build\.py [\w/]+.*", receipt["command"])
    for suffix in (".csv", ".json"):
        assert not PATHS.search((results.FOLDER / f"{name}{suffix}").read_text(encoding="utf-8"))
    if name.startswith("label_propagation/"):
        assert not tables.by_area_range(runs).empty
    elif name == "single_positive/ablation":
        assert len(single_positive_findings.ablation_table(runs)) == 8
    elif name.startswith("single_positive/"):
        assert len(single_positive_findings.benchmark_table(runs)) == 16
    elif name.startswith("weak_segmentation/"):
        assert set(runs["step"]) == {"classify", *(() if name.endswith("/report") else ("refine", "segment"))}
        found = weak_findings.first_maps(runs[runs["step"] == "classify"])
        assert found["method"].tolist() == list(weak_findings.METHOD_NAMES.values())
        assert set(found["n"]) == {len(receipt["seeds"])}
        assert not runs.groupby(["step", "method", "source"], dropna=False)["seed"].nunique().ne(found["n"][0]).any()
    else:
        scores = crops_findings.paired(runs[runs["region"] == runs["region"].iloc[0]])
        assert not scores[["bands", "random", "bi_modal"]].isna().any().any()


def test_every_receipt_has_its_table():
    receipts = {path.relative_to(results.FOLDER).with_suffix("").as_posix() for path in results.FOLDER.rglob("*.json")}
    assert receipts == set(ARCHIVED)


@pytest.mark.parametrize("text", ["/home/me/x", "ran in /tmp/y", r"C:\me", "~/runs"])
def test_paths_would_be_found(text):
    assert PATHS.search(text)
    assert not PATHS.search("rsbook/training.py, data/results/build.py, https://example.org/data/x")


def test_the_readme_names_what_is_archived():
    text = (results.FOLDER / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `([\w/]+)` \|", text, re.M)) == ARCHIVED
