"""The results explorer: groups, differences and classes against sums by hand, its page and CSV against Python."""

import csv
import inspect
import io
import json
import math
import statistics

import pandas as pd
import pytest
import traitlets
from explorer_page import copy_state, wait_two_frames, write_page
from made_up_runs import LARGE, SMALL, noisy, rows, runs_table, transfers

from rsbook import cromss, cromss_findings, figures, label_propagation, results, scenes
from rsbook.widgets import ResultsExplorer
from rsbook.widgets.run_columns import SETTINGS

CLASSES = ["water", "forest", "barren"]
STATE = ("filters", "metric", "group_by", "order", "reference", "pair")
NAN = float("nan")


def made_up(**changes):
    """Runs of three methods, two ranges, noise at two levels; a class that no test scene holds, a seed missing."""
    runs = runs_table(
        rows("none", None, [0.70, 0.72, 0.71]),
        rows("cutmix", SMALL, [0.69, 0.73, 0.705]),
        rows("cutmix", LARGE, [0.68, 0.74, 0.70]),
        rows("cutmix_lp_map", LARGE, [0.75, 0.76, 0.755]),
        noisy("cutmix_lp_map", [0.74, 0.73], "mask_shift", 0.5, 12.0),
        noisy("cutmix_lp_map", [0.72], "class_swap", 0.1),
    )
    runs["average_precision"] = [[m, m / 2, None] for m in runs["map_macro"]]
    return runs.assign(**changes)


PART_TWO = {
    "metrics": {"miou": "mean IoU", "oa": "OA", "aa": "AA"},
    "per_class": {"iou": "IoU"},
    "method": "encoder",
    "colours": cromss_findings.COLOURS,
}


def transferred():
    """Runs of Part II: six encoders, two modalities, two protocols, three seeds."""
    return runs_table(transfers(cromss.ENCODERS, ("vegetation", "optical"), cromss.PROTOCOLS))


def by_hand(runs, metric="map_macro"):
    """Scores by seed of each group of runs, from plain rows."""
    groups = {}
    for row in runs.to_dict("records"):
        key = (row["method"], str(row["area_range"]), str(row["noise"]), str(row["noise_fraction"]))
        groups.setdefault(key, {})[row["seed"]] = row[metric]
    return list(groups.values())


@pytest.mark.parametrize("metric", ["map_macro", "map_micro"])
def test_groups_have_the_mean_and_spread_of_their_runs(metric):
    made = ResultsExplorer(made_up(), CLASSES)
    made.metric = metric
    found = made.read_out()
    assert made.group_by == ["method", "area_range", "noise", "noise_fraction", "noise_intensity"]
    assert found["method"].tolist() == ["none", "cutmix", "cutmix", *["cutmix_lp_map"] * 3]
    assert found["area_range"].tolist() == ["", "0.1-0.3", *["0.3-0.7"] * 4]
    assert found["noise_intensity"].tolist() == ["", "", "", "", "12", ""]
    for row, scores in zip(found.itertuples(), by_hand(made_up(), metric), strict=True):
        assert row.runs == len(scores)
        assert row.mean == pytest.approx(statistics.mean(scores.values()))
        if len(scores) > 1:
            assert row.sd == pytest.approx(statistics.stdev(scores.values()))
        else:
            assert math.isnan(row.sd)


def test_differences_are_of_runs_with_the_same_seed():
    made = ResultsExplorer(made_up(), CLASSES)
    made.reference = ["none", "", "", "0", ""]
    reference, *_ = groups = by_hand(made_up())
    for row, scores in zip(made.read_out().itertuples(), groups, strict=True):
        differences = [scores[seed] - reference[seed] for seed in scores]
        assert row.seeds == len(scores)
        assert row.difference == pytest.approx(statistics.mean(differences), abs=1e-12)
        assert row.above == sum(difference > 0 for difference in differences)
        if len(differences) > 1:
            assert row.difference_sd == pytest.approx(statistics.stdev(differences), abs=1e-12)
    made.order = "score"
    assert made.read_out()["difference"].is_monotonic_decreasing
    made.reference = ["gone"]  # a group that is not there is none
    assert "difference" not in made.read_out()
    assert made.read_out()["mean"].is_monotonic_decreasing


def test_filters_choose_runs_and_groups_may_be_wider():
    made = ResultsExplorer(made_up(), CLASSES)
    made.filters = {"method": ["cutmix", "cutmix_lp_map"], "seed": ["42", "44"], "noise": [""]}
    chosen = made_up().query("method != 'none' and seed != 43 and noise.isna()")
    assert made.selection()["map_macro"].tolist() == chosen["map_macro"].tolist()
    made.group_by = ["method"]
    found = made.read_out().set_index("method")
    assert found["runs"].to_dict() == {"cutmix": 4, "cutmix_lp_map": 2}
    assert found.loc["cutmix", "mean"] == pytest.approx(statistics.mean([0.69, 0.705, 0.68, 0.70]))
    made.reference = ["cutmix"]  # two runs a seed count as their mean
    gain = [0.75 - (0.69 + 0.68) / 2, 0.755 - (0.705 + 0.70) / 2]
    found = made.read_out().set_index("method").loc["cutmix_lp_map"]
    assert (found["difference"], found["seeds"]) == (pytest.approx(statistics.mean(gain)), 2)
    made.group_by = []
    assert made.read_out()["runs"].tolist() == [6]
    made.reference = []  # none, and not the group of all runs, whose settings are none
    assert "difference" not in made.read_out()
    assert made.read_out()["mean"].tolist() == pytest.approx([statistics.mean(chosen["map_macro"])])
    made.filters = {"method": []}
    assert made.read_out().empty
    assert made.read_out_classes()["class"].tolist() == CLASSES
    assert len(made.read_out_csv().splitlines()) == 1
    assert made.about() == "0 of 15 runs chosen, in 0 groups."


def test_classes_of_two_groups():
    made = ResultsExplorer(made_up(), CLASSES)
    made.pair = [["cutmix", "0.3-0.7", "", "0", ""], ["cutmix_lp_map", "0.3-0.7", "", "0", ""]]
    found = made.read_out_classes().set_index("class")
    assert found.loc["water", "first"] == pytest.approx(statistics.mean([0.68, 0.74, 0.70]))
    assert found.loc["forest", "second_sd"] == pytest.approx(statistics.stdev([0.375, 0.38, 0.3775]))
    assert found.loc["forest", "difference"] == pytest.approx((0.755 - 2.12 / 3) / 2)
    assert found.loc["barren", ["first", "second", "difference"]].isna().all()
    made.pair = [[], ["gone"]]  # then the first and the last
    assert made.read_out_classes()["first"][0] == pytest.approx(0.71)
    assert made.read_out_classes()["second"][0] == pytest.approx(0.72)


def test_the_csv_holds_what_was_chosen():
    made = ResultsExplorer(made_up(), CLASSES)
    made.filters = {"method": ["cutmix_lp_map"]}
    found = pd.read_csv(io.StringIO(made.read_out_csv()), keep_default_na=False, na_values=[""])
    chosen = made_up().query("method == 'cutmix_lp_map'")
    for column in ("method", "seed", "noise_fraction", "noise_intensity", "maps"):
        pd.testing.assert_series_equal(
            found[column], chosen[column].reset_index(drop=True), check_dtype=False, check_names=False
        )
    assert found["map_macro"].tolist() == pytest.approx(chosen["map_macro"].tolist(), abs=1e-6)
    assert found["average_precision_forest"].tolist() == pytest.approx(
        [row[1] for row in chosen["average_precision"]], abs=1e-6
    )
    assert found["average_precision_barren"].isna().all()


def test_groups_that_settings_do_not_tell_apart_are_named_too():
    made = ResultsExplorer(made_up(), CLASSES)
    for group_by, labels in (
        (["noise"], ["clean maps", "mask shift", "class swap"]),
        (["noise", "noise_fraction"], ["clean maps", "mask shift · f = 50 %", "class swap · f = 10 %"]),
        (["noise_fraction"], ["f = 0 %", "f = 50 %", "f = 10 %"]),
        (["area_range"], ["no box", "0.1–0.3", "0.3–0.7"]),
        (["noise_intensity"], ["noise intensity not set", "α = 12"]),
        ([], ["all runs"]),
    ):
        made.group_by = group_by
        assert [made._label(key) for key in made._groups()] == labels


def test_a_csv_is_read_as_it_was_written():
    given = pd.DataFrame({"a, b": ["=1+1", "x", None], "-n": [-1, 0, 1], "f": [-0.5, NAN, 1e-9]})
    given["mixed"] = pd.Series([-1, "-1.5", '+"1"\n'], dtype=object)
    text = figures.csv_text(given)
    assert text == '"a, b",\'-n,f,mixed\n\'=1+1,-1,-0.5,-1\nx,0,,-1.5\n,1,1e-09,"\'+""1""\n"\n'
    assert list(csv.reader(io.StringIO(text)))[3] == ["", "1", "1e-09", '\'+"1"\n']


@pytest.mark.parametrize("text", ["=1+1", "+x", "-1-1", "@x", "\tx", "\rx", " =1", "＝1", '=HYPERLINK("http:";"y,z")'])
def test_text_in_the_csv_is_no_formula_and_numbers_stay_numbers(text):
    runs = runs_table(rows(text, None, [0.5]), rows("a, b", SMALL, [-0.25]), noisy("c", [0.5], 'a "b"\nc', -0.5))
    made = ResultsExplorer(runs.assign(average_precision=[[0.1]] * 3, record=[text, "r", "-1"]), [text])
    lines = list(csv.reader(io.StringIO(made.read_out_csv())))
    assert lines[0][-2:] == [f"average_precision_{text}", "record"]
    assert [line[-1] for line in lines[1:]] == [f"'{text}", "r", "-1"]
    at = {name: i for i, name in enumerate(lines[0])}
    assert lines[1][at["method"]] == f"'{text}"
    assert lines[2][at["method"]] == "a, b"
    assert lines[2][at["map_macro"]] == "-0.250000"
    assert (lines[3][at["noise"]], lines[3][at["noise_fraction"]]) == ('a "b"\nc', "-0.5")


def test_archived_runs_and_their_provenance():
    runs, _ = results.load("label_propagation/wide")
    classes = scenes.load("bluemarble").classes
    made = ResultsExplorer(runs, classes, name="wide")
    assert made.about().startswith("105 of 105 runs chosen, in 21 groups. Made 2026-")
    assert "; commit bc00a6fc09e6." in made.about()
    found = made.read_out()
    expected = runs.assign(box=runs["area_range"].map(str)).groupby(["method", "box"], sort=False)["map_macro"]
    assert found["mean"].tolist() == pytest.approx(expected.mean().tolist(), abs=1e-6)
    assert "no augmentation" in made.fallback.html
    assert "82.61\u00a0±\u00a00.39" in made.fallback.html
    names = [name for name in made.keys if not name.startswith("_") and name not in ("layout", "comm")]
    assert len(json.dumps({name: getattr(made, name) for name in names})) < 30_000


def test_provenance_of_records(tmp_path):
    facts = {"device": "CPU", "commit": "a" * 40, "uncommitted_changes": True}
    paths = []
    for i, provenance in enumerate((facts, facts | {"commit": None, "device": "H200"}, None)):
        paths.append(str(tmp_path / f"{i}.json"))
        if provenance:
            record = {"started": f"2026-01-0{i + 1}T00:00:00", "provenance": provenance}
            (tmp_path / f"{i}.json").write_text(json.dumps(record))
    made = ResultsExplorer(made_up().head(3).assign(record=paths), CLASSES)
    assert made.about() == (
        f"3 of 3 runs chosen, in 1 group. Made from 2026-01-01 to 2026-01-02 on CPU and H200; commit {'a' * 12} with "
        "changes."
    )
    assert str(tmp_path) not in json.dumps([made.records, made.columns, made.origins])
    made.filters = {"seed": ["44"]}
    assert made.about().endswith("No record says what made them.")
    made.filters = {"seed": ["43"]}
    assert made.about().endswith("Made 2026-01-02 on H200; the commit is unknown.")


def test_masks_of_weaker_networks_are_another_group():
    first = rows("none", None, [0.4], [42], stop_after=1, weights="w1") + rows(
        "none", None, [0.7], [42], stop_after=None, weights="w0"
    )
    second = [rows("cutmix_lp_xai", LARGE, [0.6], [42], stage_one=w)[0] for w in ("w1", "w0")]
    runs = runs_table(first, second)
    made = ResultsExplorer(runs.assign(average_precision=[[0.1]] * 4), ["water"])
    assert made.read_out()[["stop_after", "stage_one_epochs"]].to_numpy().tolist() == [
        ["1", ""],
        ["", ""],
        ["", "1"],
        ["", ""],
    ]


def test_settings_are_the_parameters_of_a_training():
    parameters = {
        name for train in (label_propagation.train, cromss.transfer) for name in inspect.signature(train).parameters
    }
    no_settings = {"stage_one", "weights", "root", "device", "checkpoint"}
    assert set(SETTINGS) - {"stage_one_epochs"} == parameters - no_settings


@pytest.mark.parametrize("metric", ["miou", "oa", "aa"])
def test_runs_with_other_scores_and_other_methods(metric):
    runs = transferred()
    made = ResultsExplorer(runs, CLASSES, **PART_TWO)
    assert made.metric == "miou"
    made.metric = metric
    assert [c["name"] for c in made.columns if c["offered"]] == ["encoder", "modality", "protocol", "seed"]
    assert made.group_by == ["encoder", "modality", "protocol"]
    found = made.read_out()
    expected = runs.groupby(made.group_by, sort=False)[metric].agg(["mean", "std"]).reset_index()
    assert found[made.group_by].to_numpy().tolist() == expected[made.group_by].to_numpy().tolist()
    assert found["mean"].tolist() == pytest.approx(expected["mean"].tolist(), abs=1e-6)
    assert found["sd"].tolist() == pytest.approx(expected["std"].tolist(), abs=1e-6)
    assert found["runs"].tolist() == [3] * 24

    made.reference = ["mid_fusion", "optical", "fine_tuned"]
    by_seed = runs.set_index([*made.group_by, "seed"])[metric].sort_index()
    differences = by_seed["cromss_mid", "optical", "fine_tuned"] - by_seed["mid_fusion", "optical", "fine_tuned"]
    row = made.read_out().set_index(made.group_by).loc[("cromss_mid", "optical", "fine_tuned")]
    assert row["difference"] == pytest.approx(differences.mean(), abs=1e-6)
    assert row["difference_sd"] == pytest.approx(differences.std(), abs=1e-6)
    assert (row["seeds"], row["above"]) == (3, (differences > 0).sum())

    made.filters = {"modality": ["optical"], "protocol": ["frozen"], "seed": ["42", "44"]}
    chosen = runs.query("modality == 'optical' and protocol == 'frozen' and seed != 43")
    assert made.selection()[metric].tolist() == pytest.approx(chosen[metric].tolist(), abs=1e-6)
    made.pair = [["random", "optical", "frozen"], ["cromss_late", "optical", "frozen"]]
    classes = made.read_out_classes().set_index("class")
    iou = chosen.set_index("encoder")["iou"]
    assert classes.loc["forest", "second"] == pytest.approx(statistics.mean(i[1] for i in iou["cromss_late"]), abs=1e-6)
    assert classes.loc["water", "first"] == pytest.approx(statistics.mean(i[0] for i in iou["random"]), abs=1e-6)
    assert classes.loc["barren", ["first", "second", "difference"]].isna().all()


def test_other_scores_and_methods_have_their_names_and_colours_everywhere():
    made = ResultsExplorer(transferred(), CLASSES, **PART_TWO)
    assert made.read_out_csv().splitlines()[0] == (
        "encoder,modality,protocol,dataset,depth,width,batch_size,learning_rate,schedule,train_split,fixed_statistics,seed,"
        "miou,oa,aa,iou_water,iou_forest,iou_barren,record"
    )
    assert made.head == made.read_out_csv().splitlines()[0]
    assert made.method_colours == [cromss_findings.COLOURS[name] for name in cromss.ENCODERS]
    labels = [made._label(key) for key in made._groups()]
    assert labels[:2] == ["random encoder · vegetation · frozen", "random encoder · optical · frozen"]
    assert labels[-1] == "CromSS-lateF · optical · fine-tuned"
    for text in ("mean IoU", "OA", "AA", *labels):
        assert text in made.fallback.html
    state = json.dumps({name: getattr(made, name) for name in made.keys if not name.startswith("_")}, default=str)
    for text in ("mAP", "map_m", "verage precision", "average_precision", "weights", "history"):
        assert text not in made.fallback.html + made.fallback.text + state
    with pytest.raises(traitlets.TraitError, match="metric='map_macro': expected one of miou, oa, aa"):
        made.metric = "map_macro"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "have no method, map_macro, map_micro and average_precision"),
        (PART_TWO | {"method": "coder", "per_class": {"ious": "IoU"}}, "have no coder and ious"),
        (PART_TWO | {"per_class": {"iou": "IoU", "f1": "F1"}}, "per_class=.*exactly one"),
        (PART_TWO | {"metrics": {}}, "metrics={}.*one column or more"),
        (PART_TWO | {"per_class": {"history": "loss"}}, "history of row 0 is .*expected 3 numbers"),
    ],
)
def test_scores_and_methods_that_are_not_there_are_said(changes, message):
    with pytest.raises(ValueError, match=message):
        ResultsExplorer(transferred(), CLASSES, **changes)


def test_any_column_can_be_the_method():
    made = ResultsExplorer(transferred().assign(fusion="early"), CLASSES, **PART_TWO | {"method": "fusion"})
    assert made.columns[0]["name"] == "fusion"
    assert made.method_colours == ["#1f77b4"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: runs.drop(columns=["seed", "map_micro"]), "have no seed and map_micro"),
        (lambda runs: runs.head(0), "there are none"),
        (lambda runs: runs.assign(average_precision=[[0.5]] * len(runs)), "row 0 is .*expected 3 numbers"),
        (lambda runs: runs.assign(average_precision=None), "row 0 is None, expected 3 numbers"),
    ],
)
def test_what_cannot_be_shown_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        ResultsExplorer(change(made_up()), CLASSES)


def test_what_cannot_be_asked_is_said():
    made = ResultsExplorer(made_up(), CLASSES)
    made.filters = {"colour": ["red"]}
    with pytest.raises(ValueError, match="the runs have no colour; they have method, "):
        made.read_out()
    for name, wrong in (("metric", "f1"), ("order", "best"), ("pair", [[]])):
        with pytest.raises(traitlets.TraitError):
            setattr(made, name, wrong)
    made.filters, made.group_by = {}, ["colour"]
    with pytest.raises(ValueError, match="group_by: the runs have no colour"):
        made.read_out()


# In a browser


def written(value, signed=False):
    text = f"{100 * value:+.2f}" if signed else f"{100 * value:.2f}"
    return "–" if pd.isna(value) else "0.00" if float(text) == 0 else text.replace("-", "−")


def spread(mean, sd, signed=False):
    return written(mean, signed) if pd.isna(sd) else f"{written(mean, signed)} ± {written(sd)}"


def assert_shown_is_read_out(page, made):
    found = made.read_out()
    compared = "difference" in found
    rows = page.locator(".rsbook-group").evaluate_all(
        "(all) => all.map((row) => [row.children[0].textContent, row.children[2].children[0].textContent,"
        " row.querySelectorAll('.rsbook-point').length])"
    )
    expected = []
    for row in found.itertuples():
        key = [getattr(row, name) for name in made.group_by]
        means = (row.difference, row.difference_sd, True) if compared else (row.mean, row.sd)
        text = "reference" if compared and key == made.reference else spread(*means)
        expected.append([made._label(key), text, row.seeds if compared else row.runs])
    assert rows == expected
    classes = page.locator(".rsbook-bars > li").evaluate_all(
        "(all) => all.map((row) => [row.children[0], ...row.querySelectorAll('.rsbook-value'), row.children[2]]"
        ".map((cell) => cell.textContent))"
    )
    assert classes == [
        [row[1], spread(row.first, row.first_sd), spread(row.second, row.second_sd), written(row.difference, True)]
        for row in (made.read_out_classes().itertuples() if len(found) else ())
    ]
    assert page.inner_text(".rsbook-area") == made.about()


def option(page, label, text):
    page.get_by_label(label, exact=True).select_option(label=text)


def test_what_a_reader_chooses_is_shown_as_python_has_it(opened):
    made = ResultsExplorer(made_up(), CLASSES)
    page = opened(made)
    assert_shown_is_read_out(page, made)
    option(page, "Metric", "mAP micro")
    option(page, "Order", "best first")
    copy_state(page, made, STATE)
    assert (made.metric, made.order) == ("map_micro", "score")
    assert_shown_is_read_out(page, made)
    option(page, "Compare with", "no augmentation")
    copy_state(page, made, STATE)
    assert made.reference == ["none", "", "", "0", ""]
    assert_shown_is_read_out(page, made)
    option(page, "First group", "CutMix w/o LP · 0.1–0.3")
    option(page, "Second group", "CutMix with LP_map · 0.3–0.7 · mask shift · f = 50 % · α = 12")
    copy_state(page, made, STATE)
    assert made.pair == [["cutmix", "0.1-0.3", "", "0", ""], ["cutmix_lp_map", "0.3-0.7", "mask_shift", "0.5", "12"]]
    assert_shown_is_read_out(page, made)


def test_filters_and_groups_by_keyboard(opened):
    made = ResultsExplorer(made_up(), CLASSES)
    page = opened(made)
    summaries = page.locator(".rsbook-several > summary")
    assert summaries.all_inner_texts() == [
        *("method: all", "area range: all", "map noise: all", "noisy share: all"),
        *("noise intensity: all", "seed: all", "Group by: all"),
    ]
    summaries.first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # no augmentation, off
    copy_state(page, made, STATE)
    assert made.filters == {"method": ["cutmix", "cutmix_lp_map"]}
    assert summaries.first.inner_text() == "method: CutMix w/o LP and CutMix with LP_map"
    assert_shown_is_read_out(page, made)
    page.keyboard.press("Space")
    copy_state(page, made, STATE)
    assert made.filters == {}

    summaries.last.click()
    for name in ("area range", "noisy share", "noise intensity"):
        page.get_by_role("group", name="Group by").get_by_label(name).uncheck()
    copy_state(page, made, STATE)
    assert made.group_by == ["method", "noise"]
    assert_shown_is_read_out(page, made)
    page.get_by_role("group", name="Group by").get_by_role("button", name="none").click()
    copy_state(page, made, STATE)
    assert made.group_by == []
    assert_shown_is_read_out(page, made)
    assert page.inner_text(".rsbook-title >> nth=0") == "mAP macro, %"
    assert page.locator(".rsbook-label").first.inner_text() == "all runs"
    page.get_by_role("group", name="method").get_by_role("button", name="none").click()
    copy_state(page, made, STATE)
    assert made.filters == {"method": []}
    assert "No run is chosen" in page.inner_text(".rsbook-strips")
    assert page.get_by_role("button", name="Download").is_disabled()
    assert_shown_is_read_out(page, made)


def test_the_table_has_every_seed(opened):
    made = ResultsExplorer(made_up(), CLASSES)
    made.reference = ["none", "", "", "0", ""]
    page = opened(made)
    page.click(".rsbook-numbers > summary")
    table = [row.split("\t") for row in page.inner_text("tbody").splitlines()]
    assert table[1] == ["CutMix w/o LP · 0.1–0.3", "−1.00", "+1.00", "−0.50", "−0.17 ± 1.04"]
    assert table[4][1:] == ["+4.00", "+1.00", "–", "+2.50 ± 2.12"]
    assert page.locator("thead th").all_inner_texts() == ["group", "seed 42", "seed 43", "seed 44", "mean ± sd"]


def downloaded(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the selection (CSV)").click()
    return download.value.suggested_filename, download.value.path().read_bytes().decode()


def test_the_downloaded_csv_is_the_one_of_python(opened):
    runs, _ = results.load("label_propagation/wide")
    made = ResultsExplorer(runs, scenes.load("bluemarble").classes, name="wide")
    page = opened(made)
    assert downloaded(page) == ("wide.csv", made.read_out_csv())
    page.evaluate("explorer.set('filters', { method: ['cutmix', 'none'], area_range: ['', '0.1-0.3'] })")
    copy_state(page, made, STATE)
    _, text = downloaded(page)
    assert text == made.read_out_csv()
    assert len(text.splitlines()) == 1 + 10
    assert_shown_is_read_out(page, made)


def test_other_scores_and_methods_on_a_page_as_a_notebook_saves_it(opened):
    made = ResultsExplorer(transferred(), CLASSES, name="transfer", **PART_TWO)
    for name in ("columns", "scores", "origins", "metrics", "per_class"):  # nbformat sorts the keys of what it writes
        setattr(made, name, json.loads(json.dumps(getattr(made, name), sort_keys=True)))
    page = opened(made)
    assert_shown_is_read_out(page, made)
    assert page.locator(".rsbook-title").all_inner_texts() == ["mean IoU, %", "IoU of each class, %"]
    assert page.get_by_label("Metric", exact=True).locator("option").all_inner_texts() == ["mean IoU", "OA", "AA"]
    summaries = page.locator(".rsbook-several > summary").all_inner_texts()
    assert summaries == ["encoder: all", "modality: all", "protocol: all", "seed: all", "Group by: all"]
    assert downloaded(page) == ("transfer.csv", made.read_out_csv())

    colours = page.locator(".rsbook-group .rsbook-strip").evaluate_all(
        "(all) => all.map((one) => one.style.getPropertyValue('--method-colour'))"
    )
    assert colours == [cromss_findings.COLOURS[row.encoder] for row in made.read_out().itertuples()]
    page.locator(".rsbook-several > summary").nth(2).click()
    page.get_by_role("group", name="protocol").get_by_label("fine-tuned").uncheck()
    option(page, "Metric", "AA")
    option(page, "Order", "best first")
    option(page, "First group", "random encoder · optical · frozen")
    copy_state(page, made, STATE)
    assert (made.metric, made.filters) == ("aa", {"protocol": ["frozen"]})
    assert made.pair[0] == ["random", "optical", "frozen"]
    assert_shown_is_read_out(page, made)
    option(page, "Compare with", "midF · optical · frozen")
    copy_state(page, made, STATE)
    assert made.reference == ["mid_fusion", "optical", "frozen"]
    assert_shown_is_read_out(page, made)
    title = "AA, difference to midF · optical · frozen, in points; pairs with the same seed"
    assert page.locator(".rsbook-title").first.inner_text() == title
    assert downloaded(page) == ("transfer.csv", made.read_out_csv())
    shown = page.inner_html("#place")
    assert not [text for text in ("mAP", "map_m", "verage precision", "average_precision") if text in shown]


PAYLOADS = (
    "<img src=x onerror='window.__hit=1'>",
    '"><script>window.__hit=1</script>',
    "=cmd|'/C calc'!A0",
    "</style>",
    "=1+1;2",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_of_strangers_is_text(opened, payload):
    runs = runs_table(
        rows(payload, None, [0.5, 0.6], maps=payload),
        rows("b", SMALL, [0.5, 0.7]),
        noisy(payload, [0.4], payload, 0.5),
    )
    runs = runs.assign(average_precision=[[0.1, 0.2]] * len(runs), record=payload)
    runs = runs.assign(device=payload, started=payload, commit=payload)
    made = ResultsExplorer(runs, [payload, "other"], name="strange")
    page = opened(made)
    option(page, "Compare with", "b · 0.1–0.3")
    for summary in page.locator("summary").all():
        summary.click()
    copy_state(page, made, STATE)
    assert_shown_is_read_out(page, made)
    assert downloaded(page) == ("strange.csv", made.read_out_csv())
    wait_two_frames(page)
    assert page.evaluate("window.__hit") is None
    assert page.locator(".rsbook-explorer :is(img, script, style)").count() == 0
    assert payload in page.inner_text(".rsbook-strips")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_shows_it_without_sideways_scrolling_in_letters_of_12_pixels(opened, theme):
    made = ResultsExplorer(made_up(), CLASSES)
    made.reference = ["none", "", "", "0", ""]
    page = opened(made, theme, width=390)
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = page.locator(".rsbook-explorer *").evaluate_all(
        "(all) => all.filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))"
        ".map((one) => parseFloat(getComputedStyle(one).fontSize))"
    )
    assert min(sizes) >= 12
    for strip in page.locator(".rsbook-group .rsbook-strip").all():
        assert "seed" in strip.get_attribute("aria-label")


def test_the_state_is_plain_whatever_types_a_table_has(tmp_path):
    table = runs_table(rows("cutmix", LARGE, (0.5, 0.6)), rows("none", None, (0.4,), stop_after=1.0))
    table["average_precision"] = [[0.1, 0.2]] * len(table)
    write_page(ResultsExplorer(table, ("one", "two")), tmp_path / "page.html")  # json.dumps as Jupyter does


def test_scores_of_another_split_are_called_so():
    explorer = ResultsExplorer(made_up(), CLASSES, split="validation")
    assert explorer.caption.endswith("Validation scores.")
    assert "Validation scores in per cent" in explorer.fallback.html
