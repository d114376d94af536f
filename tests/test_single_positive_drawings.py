"""Figures of Part IV: what is drawn, from the numbers behind it, and its words."""

import base64
import html
import io
import itertools
import re
import statistics
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from test_charts import csv_of, drawn_text
from test_single_positive_findings import NAMES, SEEDS, anything, draw_observed, of, run, slow_rate

from rsbook import figures
from rsbook import single_positive_drawings as drawings
from rsbook.single_positive_findings import METHOD_NAMES


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that are drawn, on light pages; what is shown is as ever."""
    found, show = [], figures.show

    def kept(draw, **options):
        found.append(draw(figures.THEMES["light"]))
        return show(draw, **options)

    monkeypatch.setattr(figures, "show", kept)
    return found


def words_of(page):
    """Alt text, and caption without its link."""
    alts = set(re.findall(r'alt="([^"]+)"', page.html))
    [caption] = re.findall(r"<figcaption>(.+?) <a", page.html)
    [alt] = alts
    assert html.unescape(alt) == page.text
    return page.text, html.unescape(caption)


def dotted(ax):
    """Where an axis has upright lines of dots."""
    return sorted(line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == ":")


def curves(ax, **having):
    """Points of the curves of an axis that have these properties."""
    lines = [line for line in ax.get_lines() if line.get_linestyle() == "-"]
    lines = [line for line in lines if all(getattr(line, f"get_{name}")() == value for name, value in having.items())]
    return [(list(line.get_xdata()), np.asarray(line.get_ydata(), dtype=float).tolist()) for line in lines]


def offsets(dots):
    return [tuple(np.ma.filled(point, np.nan)) for point in dots.get_offsets()]


# Labels


def one_each(labels):
    """The first class of each scene, and the last one."""
    found = {name: torch.zeros_like(labels) for name in ("random", "dominant")}
    for n, row in enumerate(labels.tolist()):
        there = [c for c, has in enumerate(row) if has]
        for one, c in zip(found.values(), (there[:1], there[-1:]), strict=True):
            one[n, c] = True
    return found


def test_labels_say_what_is_known_of_each_scene(tiny_scenes, drawn):
    tiny_scenes.labels[:4] = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]]).bool()
    index = [2, 0, 1, 3]
    observed = one_each(tiny_scenes.labels[index])
    page = drawings.draw_labels(tiny_scenes, index, observed)
    assert page.html.count('src="data:image/webp;base64,') == 2
    alt, caption = words_of(page)
    assert alt.startswith("4 satellite scenes in a row")
    assert "R: known with random positives, D: known with dominant positives." in caption
    text = re.search(r'download="labels.csv" href="data:text/csv;base64,([^"]+)"', page.html)[1]
    data = pd.read_csv(io.StringIO(base64.b64decode(text).decode()), keep_default_na=False)
    assert data.columns.tolist() == ["scene", "classes", "random", "dominant"]
    assert data.to_numpy().tolist() == [
        [2, "", "", ""],
        [0, "one; two; three", "one", "three"],
        [1, "two", "two", "two"],
        [3, "one; three", "one", "three"],
    ]
    [figure] = drawn
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "",
        "one (R)\ntwo\nthree (D)",
        "two (R, D)",
        "one (R)\nthree (D)",
    ]
    for ax, scene in zip(figure.axes, index, strict=True):
        assert ax.images[0].get_array().tolist() == tiny_scenes.images[scene].movedim(0, -1).tolist()


def test_one_scene_has_a_panel_as_well(tiny_scenes, drawn):
    drawings.draw_labels(tiny_scenes, [5], one_each(tiny_scenes.labels[[5]]))
    assert len(drawn[0].axes) == 1


# Rates


def test_rates_are_drawn_beside_how_many_hold_a_class(drawn):
    labels, observed = draw_observed()
    classes = ("one", "two", "three", "nowhere")
    data = csv_of(page := drawings.draw_rates(labels, observed, classes))
    assert data.columns.tolist() == ["class", "holds it", "random", "dominant"]
    assert data["class"].tolist() == list(classes)
    share = [sum(row[c] for row in labels.tolist()) / len(labels) for c in range(4)]
    assert data["holds it"].tolist() == pytest.approx(share, abs=5e-5)
    for name, one in observed.items():
        expected = [slow_rate(labels, one, [c]) for c in range(4)]
        assert ["–" if pd.isna(rate) else f"{100 * rate:.1f}" for rate in data[name]] == expected
    alt, caption = words_of(page)
    assert alt.startswith("A row a class: how often it is hidden with random and with dominant positives")
    assert "the share that does not say so" in caption
    [ax] = drawn[0].axes
    shown = {dots.get_label(): dots for dots in ax.collections}
    assert set(shown) == {"random", "dominant", "holds it"}
    for name, dots in shown.items():
        points = offsets(dots)
        assert [y for x, y in points if x == x] == list(range(4 if name == "holds it" else 3))
        assert [x / 100 for x, _ in points] == pytest.approx(data[name].tolist(), abs=5e-5, nan_ok=True)
    assert [text.get_text() for text in ax.get_yticklabels()] == list(classes)
    assert ax.yaxis_inverted()


def test_one_setting_is_drawn_alone(drawn):
    labels, observed = draw_observed()
    drawings.draw_rates(labels, {"dominant": observed["dominant"]}, "abcd")
    assert [dots.get_label() for dots in drawn[0].axes[0].collections] == ["dominant", "holds it"]


# Training


def trained(seeds=SEEDS, epochs=(1, 2, 3), begun=(1, 2, 2)):
    """AdaGC and AN, in this order, with histories as `train` returns them, no two numbers alike or evenly apart."""
    rows, number = [], itertools.count(1)
    for name in ("adagc", "an"):
        for k, seed in enumerate(seeds):
            history = []
            for epoch in epochs:
                row = {"epoch": epoch, "loss": 1.0, "map_observed": 0.1, "map_true": 0.2}
                row |= {
                    "score_hidden": round(next(number) ** 2 / 3000, 4),
                    "score_absent": round(next(number) ** 2 / 3000, 4),
                }
                if name == "adagc":
                    start = begun[k] if 0 <= begun[k] < epoch else -1
                    row |= {
                        "precision": round(next(number) ** 2 / 3000, 4),
                        "unobserved": round(next(number) ** 2 / 3000, 4),
                        "begun": start,
                    }
                history.append(row)
            rows.append(run(name, seed, 0.5, history=history))
    return pd.DataFrame(rows)


def test_mean_scores_of_what_is_hidden_and_what_is_absent(drawn):
    runs = trained()
    data = csv_of(page := drawings.draw_learning(runs))
    assert data.columns.tolist() == ["method", "seed", "epoch", "score_hidden", "score_absent", "begun"]
    expected = [
        [row["method"], row["seed"], past["epoch"], past["score_hidden"], past["score_absent"]]
        for row in runs.to_dict("records")
        for past in row["history"]
    ]
    assert data.iloc[:, :5].to_numpy().tolist() == expected
    assert data["begun"].tolist() == [1] * 3 + [2] * 6 + [-1] * 9
    alt, caption = words_of(page)
    assert alt == "Curves by epoch, a panel a method: mean scores of hidden positives and of true absences."
    assert "Of AdaGC it is the teacher's score." in caption
    [figure] = drawn
    assert [ax.get_title() for ax in figure.axes] == ["AN", "AdaGC, reconstructed"]
    assert [dotted(ax) for ax in figure.axes] == [[], [1, 2]]
    for ax, name in zip(figure.axes, ("an", "adagc"), strict=True):
        for column, colour in (("score_hidden", drawings.HIDDEN), ("score_absent", drawings.ABSENT)):
            by_seed = [[past[column] for past in row["history"]] for _, row in runs[runs["method"] == name].iterrows()]
            assert curves(ax, color=colour, linewidth=0.8) == [([1, 2, 3], scores) for scores in by_seed]
            [(epochs, means)] = curves(ax, color=colour, linewidth=2)
            assert epochs == [1, 2, 3]
            assert means == pytest.approx([statistics.mean(scores) for scores in zip(*by_seed, strict=True)])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["hidden positives", "true absences"]


@pytest.mark.parametrize("columns", [["score_hidden"], ["score_hidden", "score_absent"]])
@pytest.mark.parametrize("last", [True, False])
def test_a_training_of_seconds_is_drawn_whatever_it_lacks(drawn, columns, last):
    """One seed, two epochs, and nothing that is hidden, in both epochs or in the first."""
    runs = trained((42,), (1, 2), (-1,))
    for history in runs["history"]:
        for row in history if last else history[:1]:
            row |= dict.fromkeys(columns)
    data = csv_of(drawings.draw_learning(runs))
    for column in ("score_hidden", "score_absent"):
        assert data[column].isna().tolist() == [column in columns, column in columns and last] * 2
    [figure] = drawn
    assert [dotted(ax) for ax in figure.axes] == [[], []]
    for ax in figure.axes:
        for _, values in curves(ax, color=drawings.HIDDEN):
            assert [value != value for value in values] == [True, last]
    csv_of(drawings.draw_trigger(runs))


def test_what_the_trigger_sees_of_each_seed(drawn):
    runs = trained()
    data = csv_of(page := drawings.draw_trigger(runs))
    expected = [
        ["adagc", row["seed"], past["epoch"], past["precision"], past["unobserved"], row["history"][-1]["begun"]]
        for row in runs.to_dict("records")
        if row["method"] == "adagc"
        for past in row["history"]
    ]
    assert data.columns.tolist() == ["method", "seed", "epoch", "precision", "unobserved", "begun"]
    assert data.to_numpy().tolist() == expected
    alt, caption = words_of(page)
    assert alt.startswith("Two panels with a curve a seed")
    assert caption.startswith("What the trigger sees, on the training scenes")
    [figure] = drawn
    assert [ax.get_ylabel() for ax in figure.axes] == ["mAP against what is observed", "mean score of what is not"]
    for ax, column in zip(figure.axes, (3, 4), strict=True):
        by_seed = [[row[column] for row in expected if row[1] == seed] for seed in SEEDS]
        assert curves(ax) == [([1, 2, 3], values) for values in by_seed]
        assert dotted(ax) == [1, 2]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"seed {seed}" for seed in SEEDS]


def test_a_trigger_that_never_fires_has_no_line(drawn):
    drawings.draw_trigger(trained((42,), (1, 2), (-1,)))
    assert [dotted(ax) for ax in drawn[0].axes] == [[], []]
    drawings.draw_trigger(trained((42,), (1, 2), (0,)))  # before the first epoch
    assert [dotted(ax) for ax in drawn[1].axes] == [[0], [0]]


# Benchmarks


@pytest.mark.parametrize(
    ("given", "metric", "label"),
    [
        ({}, "map_macro", "mAP macro on the test scenes"),
        ({"metric": "f1_fixed", "label": "F1 macro at 0.5"}, "f1_fixed", "F1 macro at 0.5"),
    ],
)
@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[:1]])
def test_a_benchmark_has_a_point_a_seed_and_a_bar_for_the_mean(drawn, given, metric, label, seeds):
    runs = anything(seeds=seeds)
    page = drawings.draw_benchmark(runs, **given)
    assert f'download="benchmark_{metric}.csv"' in page.html
    data = csv_of(page)
    assert data.columns.tolist() == ["seed", *NAMES]
    assert data["seed"].tolist() == list(seeds)
    scores = {name: [100 * of(runs, name, seed, metric) for seed in seeds] for name in NAMES}
    for name in NAMES:
        assert data[name].tolist() == pytest.approx(scores[name], abs=5e-4)
    alt, caption = words_of(page)
    assert alt.startswith(f"A row a method: {label} of each seed")
    assert caption.startswith(f"{label}, against all labels")
    [ax] = drawn[0].axes
    assert ax.get_xlabel() == f"{label}, %"
    assert [text.get_text() for text in ax.get_yticklabels()] == [METHOD_NAMES[name] for name in NAMES[1:]]
    assert ax.yaxis_inverted()
    points, bars = ax.collections[::2], ax.collections[1::2]
    for y, (name, dots, bar) in enumerate(zip(NAMES[1:], points, bars, strict=True)):
        assert offsets(dots) == [(pytest.approx(score), y) for score in scores[name]]
        assert offsets(bar) == [(pytest.approx(statistics.mean(scores[name])), y)]
        for drawn_ones in (dots, bar):
            assert to_hex(drawn_ones.get_facecolor()[0]) == drawings.COLOURS[name].lower()
    an, full = ax.get_lines()
    assert (an.get_linestyle(), full.get_linestyle()) == ("--", "-")
    for line, name in ((an, "an"), (full, "full")):
        assert line.get_xdata() == pytest.approx([statistics.mean(scores[name])] * 2)


def test_without_the_upper_bound_there_is_no_line_of_it(drawn):
    drawings.draw_benchmark(anything(["an", "adagc"]))
    [ax] = drawn[0].axes
    assert [line.get_linestyle() for line in ax.get_lines()] == ["--"]
    assert {"AN", "AdaGC, reconstructed"} <= drawn_text(drawn[0])
