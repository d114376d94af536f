"""Charts of made-up runs: what a reader who cannot see them gets, and the numbers behind them."""

import base64
import io
import re

import pandas as pd
import pytest
from made_up_runs import LARGE, SMALL, figure_6_parts, noisy, rows, runs_table

from rsbook import charts, noise, tables

HISTORY = [{"epoch": e, "loss": 1 / e, "map_macro": 0.5 + 0.1 * e} for e in (1, 2)]
MORE = {"average_precision": [0.5, 0.6, None], "history": HISTORY}
CLEAN = rows("cutmix_lp_map", LARGE, [0.76, 0.78]) + rows("cutmix", LARGE, [0.73, 0.75])


@pytest.fixture
def runs():
    return runs_table(
        rows("none", None, [0.70, 0.72], **MORE),
        rows("cutmix", LARGE, [0.73, 0.75], **MORE),
        rows("cutmix_lp_map", SMALL, [0.74, 0.76], **MORE),
        rows("cutmix_lp_map", LARGE, [0.76, 0.78], **MORE),
    )


def csv_of(page):
    """The numbers behind a figure that is there in both themes, with words for those who do not see it."""
    images = re.findall(r'<img class="only-(light|dark)" alt="([^"]+)" src="data:image/svg\+xml;base64,', page.html)
    assert [theme for theme, _ in images] == ["light", "dark"]
    assert page.html.count("<img") == 2
    assert len({alt for _, alt in images}) == 1
    assert re.search(r"<figcaption>\w[^<]+\. <a", page.html)
    assert page.html.count("text/csv") == 1
    text = re.search(r'href="data:text/csv;base64,([^"]+)"', page.html)[1]
    return pd.read_csv(io.StringIO(base64.b64decode(text).decode()), keep_default_na=False, na_values=[""])


def drawn_text(figure):
    """All labels of a matplotlib figure."""
    return {text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))}


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that are drawn, light and dark in turn."""
    figures = []

    def show(draw, **options):
        figures.append(draw(charts.figures.THEMES["light"]))
        return options["data"]

    monkeypatch.setattr(charts.figures, "show", show)
    return figures


@pytest.mark.parametrize(("metric", "best"), [("map_macro", 78), ("map_micro", 89)])
def test_scores(runs, metric, best):
    data = csv_of(charts.draw_scores(runs, metric))
    assert len(data) == len(runs)
    assert data[metric].max() == best
    assert data["method"].tolist() == runs["method"].tolist()


def test_scores_without_a_baseline(runs):
    assert len(csv_of(charts.draw_scores(runs[runs["method"] != "none"]))) == 6


def test_learning_curves(runs):
    data = csv_of(charts.draw_learning_curves(runs))
    assert len(data) == len(runs) * len(HISTORY)
    assert data["epoch"].max() == 2


def test_class_scores(runs):
    data = csv_of(charts.draw_class_scores(runs, ["a", "b", "never there"]))
    assert data.groupby("class")["average_precision"].mean().dropna().to_dict() == {"a": 50, "b": 60}


def test_table_v_has_both_metrics_and_one_area_range(runs):
    data = csv_of(charts.draw_table_v(pd.concat([runs, runs_table(rows("random_rotate", None, [0.71]))])))
    assert data["method"].value_counts().to_dict() == {"none": 2, "cutmix": 2, "cutmix_lp_map": 2, "random_rotate": 1}
    assert data["map_macro"].max() == 78
    assert data["map_micro"].max() == 89


def test_stage_one():
    joined = tables.figure_6(*figure_6_parts())
    data = csv_of(charts.draw_stage_one(joined, 0.2))
    assert sorted(data["stage_one_map"]) == [30, 32, 50, 52, 70, 72]
    assert sorted(data["map_macro"]) == [69, 71, 72, 74, 75, 77]


def test_stage_one_has_the_means_the_methods_that_ran_and_chance(drawn):
    joined = tables.figure_6(*figure_6_parts())
    charts.draw_stage_one(joined, 0.2)
    lines = {line.get_label(): line for line in drawn[0].axes[0].get_lines()}
    assert list(lines) == ["no augmentation", "CutMix w/o LP", "CutMix with LP_XAI", "stage one by chance"]
    assert list(lines["stage one by chance"].get_xdata()) == [20, 20]
    assert list(lines["no augmentation"].get_ydata()) == pytest.approx([71, 71])
    assert list(lines["CutMix w/o LP"].get_ydata()) == pytest.approx([72, 72])
    assert lines["CutMix with LP_XAI"].get_xdata().tolist() == pytest.approx([31, 51, 71])
    assert lines["CutMix with LP_XAI"].get_ydata().tolist() == pytest.approx([70, 73, 76])
    legend = {text.get_text() for text in drawn[0].legends[0].get_texts()}
    assert legend == set(lines)
    charts.draw_stage_one(joined[joined["method"] != "cutmix"], 0.2)
    assert "CutMix w/o LP" not in drawn_text(drawn[1])


def test_captions_name_the_boxes_and_the_classes_that_are_absent(runs):
    page = charts.draw_class_scores(runs[runs["method"] != "cutmix_lp_map"], ["a", "b", "never there"])
    assert "boxes of 0.3–0.7:" in page.html
    assert "No test scene holds never there" in page.html
    assert "boxes of 0.3–0.7 and 0.1–0.3:" in charts.draw_learning_curves(runs).html
    assert "boxes of" not in charts.draw_learning_curves(runs[runs["method"] == "none"]).html


def sweep(kind, levels):
    found = [row for k, level in enumerate(levels) for row in noisy("cutmix_lp_map", [0.7 - k / 100] * 2, kind, *level)]
    if kind == "class_swap":
        found += [row for level in levels for row in noisy("cutmix", [0.65, 0.66], kind, *level)]
    return found


CROSS = [(0.5, 12), (1.0, 12), (0.5, 36), (1.0, 36)]
SHARES = [(0.1, None), (0.3, None)]


@pytest.mark.parametrize("metric", ["map_macro", "map_micro"])
@pytest.mark.parametrize(
    ("kind", "levels"),
    [("mask_shift", CROSS), ("mask_shift", CROSS[-1:]), ("segment_swap", SHARES), ("class_swap", SHARES[-1:])],
)
def test_a_noise_sweep_has_the_points_of_its_kind_and_of_clean_maps(kind, levels, metric):
    runs = runs_table(CLEAN, sweep(kind, levels), sweep("rectify_borders", CROSS), rows("none", None, [0.1]))
    data = csv_of(charts.draw_noise_sweep(runs, [kind], metric))
    expected = runs[runs["method"].isin(["cutmix", "cutmix_lp_map"]) & (runs["noise"].isna() | (runs["noise"] == kind))]
    assert len(data) == len(expected)
    assert set(data["kind"]) == {kind}
    assert sorted(data[metric]) == pytest.approx(sorted(100 * expected[metric]))
    assert sorted(data["noise_fraction"].unique()) == [0, *sorted({f for f, _ in levels})]


def test_six_kinds_have_a_panel_each():
    every = [row for kind in noise.KINDS for row in sweep(kind, SHARES if kind.endswith("swap") else CROSS)]
    data = csv_of(charts.draw_noise_sweep(runs_table(CLEAN, every), noise.KINDS))
    assert data["kind"].unique().tolist() == list(noise.KINDS)
    assert len(data) == len(every) + 6 * len(CLEAN)


@pytest.mark.parametrize(("number", "panels"), [(1, 1), (3, 3), (4, 4), (6, 6)])
def test_panels_are_named_and_none_is_empty(drawn, number, panels):
    kinds = noise.KINDS[:number]
    every = [row for kind in kinds for row in sweep(kind, SHARES if kind.endswith("swap") else CROSS)]
    charts.draw_noise_sweep(runs_table(CLEAN, every), kinds)
    axes = drawn[0].axes
    assert len(axes) == panels
    assert [ax.get_title(loc="left") or ax.get_title() for ax in axes] == (
        [""] if number == 1 else [kind.replace("_", " ") for kind in kinds]
    )


def test_a_sweep_has_a_line_an_intensity_and_begins_at_clean_maps(drawn):
    charts.draw_noise_sweep(runs_table(CLEAN, sweep("mask_shift", CROSS)), ["mask_shift"])
    weak, strong, plain = drawn[0].axes[0].get_lines()
    assert [line.get_label() for line in (weak, strong, plain)] == ["LP_map, α = 12", "LP_map, α = 36", "CutMix w/o LP"]
    assert weak.get_xdata().tolist() == [0, 50, 100]
    assert weak.get_ydata().tolist() == pytest.approx([77, 70, 69])
    assert strong.get_ydata().tolist() == pytest.approx([77, 68, 67])
    assert list(plain.get_ydata()) == pytest.approx([74, 74])


def test_a_sweep_of_class_swap_draws_cutmix_at_each_share_as_it_is_trained_again(drawn):
    charts.draw_noise_sweep(runs_table(CLEAN, sweep("class_swap", SHARES)), ["class_swap"])
    ax = drawn[0].axes[0]
    propagated, plain = ax.get_lines()
    assert (propagated.get_label(), plain.get_label()) == ("CutMix with LP_map", "CutMix w/o LP")
    assert plain.get_xdata().tolist() == [0, 10, 30]
    assert plain.get_ydata().tolist() == pytest.approx([74, 65.5, 65.5])
    assert "swapped segments, %" in drawn_text(drawn[0])
