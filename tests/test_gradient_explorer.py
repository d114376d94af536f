"""The gradient explorer, in Python and in a browser."""

import math
import re
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
import traitlets
from explorer_page import THEMES, copy_state, shown_rows, wait_two_frames
from scipy.optimize import brentq

from rsbook import report, single_positive
from rsbook.widgets import GradientExplorer
from rsbook.widgets.gradient_explorer import zero_crossing

STATE = ("strength", "target", "score")
SAID = re.compile(
    r"At p = ([\d.]+), t = ([\d.]+) and strength ([\d.]+) the gradient is "
    r"(zero|barely below zero|barely above zero|−?[\d.]+)"
    r"(?:, (that) of an assumed negative| instead of ([\d.]+): (?:(the entry is pushed up)|(below )?([\d.]+)\s% of an "
    r"assumed negative's is left))\. (?:No score is pushed up|The curve crosses zero at p = ([\d.]+): lower scores are "
    r"pushed up, higher ones down)\."
)
SETTINGS = [  # strength, target, score
    (1.0, 0.9, 0.6),
    (0.0, 0.9, 0.6),
    (3.0, 0.0, 0.01),
    (3.0, 0.99, 0.99),
    (3.0, 0.99, 0.9),
    (1.75, 0.9, 0.5),
    (2.0, 0.5, 0.5),  # λt = 1: the crossing is at p = 0
    (1.5, 0.8, 0.5),  # that at p = 0.5 is here
    (0.35, 0.55, 0.15),
    (1.05, 0.96, 0.16),
    (1.0, 0.99, 0.01),
]


def oracle(p, t, strength):
    return p * (1 - strength * t * (1 - p) / (1 - p * t))


def gradient(p, t, strength):
    return single_positive.calibrated_gradient(*torch.tensor([p, t], dtype=torch.float64), strength).item()


def entries(n=300, seed=0, share=0.3):
    """Hidden positives with high scores and targets, true absences with low ones."""
    draw = np.random.default_rng(seed)
    hidden = draw.random(n) < share
    p = np.where(hidden, draw.beta(3, 2, n), draw.beta(1, 5, n))
    t = np.where(hidden, draw.beta(5, 2, n), draw.beta(1, 4, n)) * 0.99
    return pd.DataFrame({"p": p, "t": t, "hidden": hidden})


def set_state(made, values):
    for name, value in zip(STATE, values, strict=True):
        setattr(made, name, value)


# In Python


def test_the_zero_crossing_is_where_a_root_finder_finds_it_and_lower_scores_are_pushed_up():
    crossed = 0
    for strength in np.arange(0, 3.001, 0.15):
        for t in [0, 0.01, *np.arange(0.1, 0.99, 0.08), 0.99]:
            p = np.linspace(1e-4, 1 - 1e-6, 2000)
            found, shown = zero_crossing(t, strength), oracle(p, t, strength)
            if found is None:
                assert (shown > -1e-9).all(), (strength, t)
                continue
            crossed += 1
            root = brentq(lambda p, t=t, s=strength: oracle(p, t, s), 1e-9, 1 - 1e-12, xtol=1e-13)
            assert found == pytest.approx(root, abs=1e-9)
            assert 0 < found < 1
            assert (shown[p < found - 1e-6] < 0).all()
            assert (shown[p > found + 1e-6] > 0).all()
    assert crossed > 50
    assert zero_crossing(0.5, 2.0) is zero_crossing(0.99, 1.0) is zero_crossing(0.0, 3.0) is None


@pytest.mark.parametrize("setting", SETTINGS)
def test_read_out_is_the_gradient_of_the_loss(setting):
    made = GradientExplorer()
    set_state(made, setting)
    strength, t, p = setting
    logit = torch.tensor([[math.log(p / (1 - p))]], dtype=torch.float64, requires_grad=True)
    known = single_positive.Known(targets=torch.tensor([[t]], dtype=torch.float64), strength=strength)
    single_positive.gradient_calibration(logit, torch.zeros_like(logit), known).backward()
    found = made.read_out()
    assert found["gradient"] == pytest.approx(logit.grad.item(), abs=1e-4)  # the loss is in float32
    assert found["assumed"] == p
    assert found["left"] == pytest.approx(logit.grad.item() / p, abs=1e-3)
    assert math.isnan(found["zero"]) == (strength * t <= 1)


def test_read_out_of_entries_is_what_numpy_says():
    given = entries()
    made = GradientExplorer(given)
    pushed = []
    for made.strength in (0.0, 1.0, 1.75, 3.0):
        found = made.read_out_entries()
        for name, own in (("hidden positives", given[given["hidden"]]), ("true absences", given[~given["hidden"]])):
            each = oracle(own["p"].to_numpy(), own["t"].to_numpy(), made.strength)
            assert found.loc[name, "entries"] == len(own)
            assert found.loc[name, "assumed"] == pytest.approx(own["p"].mean(), abs=1e-6)
            assert found.loc[name, "calibrated"] == pytest.approx(each.mean(), abs=1e-5)
            assert found.loc[name, "pushed_up"] == pytest.approx((each < 0).mean(), abs=1e-9)
        pushed.append(found["pushed_up"].tolist())
    assert pushed[:2] == [[0, 0], [0, 0]]
    assert pushed[3][0] > pushed[2][0] > pushed[2][1] > 0


def test_entries_of_one_kind_leave_the_other_row_empty():
    made = GradientExplorer(entries().assign(hidden=False))
    found = made.read_out_entries()
    assert found["entries"].tolist() == [0, 300]
    assert found.loc["hidden positives", ["assumed", "calibrated", "pushed_up"]].isna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e.drop(columns="t"), r"entries: no column t, expected p, t and hidden"),
        (lambda e: e[["p"]], r"entries: no column t and hidden, expected"),
        (lambda e: e[:0], r"entries: 0 rows, expected 1 to 4000"),
        (lambda e: pd.concat([e] * 14), r"entries: 4200 rows, expected 1 to 4000"),
        (lambda e: e.assign(p=1.0), r"entries: p=1\.0, expected 0 ≤ p < 1"),
        (lambda e: e.assign(t=-0.25), r"entries: t=-0\.25, expected 0 ≤ t < 1"),
        (lambda e: e.assign(t=1 - 1e-9), r"entries: t=0\.999999999, expected 0 ≤ t < 1, as float32"),
        (lambda e: e.assign(p=[*e["p"][1:], np.nan]), r"entries: p=nan, expected"),
        (lambda e: e.assign(p="0.5"), r"entries: p is (str|object), expected numbers"),
        (lambda e: e.assign(hidden=1), r"entries: hidden is int64, expected bool"),
        (
            lambda e: e.assign(hidden=pd.array([None, *[True] * 299], "boolean")),
            r"hidden is boolean, expected bool, none",
        ),
    ],
)
def test_entries_that_it_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        GradientExplorer(change(entries()))


def test_settings_that_it_refuses():
    made = GradientExplorer()
    for name, value, expected in (
        ("strength", 3.05, "0 to 3 in steps of 0.05"),
        ("strength", 0.33, "0 to 3 in steps of 0.05"),
        ("target", 1.0, "0 to 0.99 in steps of 0.01"),
        ("score", 0.0, "0.01 to 0.99 in steps of 0.01"),
        ("score", math.nan, "0.01 to 0.99"),
    ):
        with pytest.raises((ValueError, traitlets.TraitError), match=f"{name}={value}: expected {expected}"):
            setattr(made, name, value)
    assert [getattr(made, name) for name in STATE] == [1.0, 0.9, 0.6]
    with pytest.raises(ValueError, match="entries=None"):
        made.read_out_entries()


def test_entries_are_stored_as_given_and_small():
    given = entries(4000)
    made = GradientExplorer(given)
    stored = np.frombuffer(zlib.decompress(made.arrays["p"]["data"]), "<f4")
    assert np.array_equal(stored, given["p"].to_numpy(np.float32))
    assert sum(len(array["data"]) for array in made.arrays.values()) < 36_000
    assert GradientExplorer().arrays == {}


@pytest.mark.filterwarnings("error")
def test_what_becomes_of_the_table_of_entries_later_changes_nothing():
    given = entries().astype({"p": np.float32, "t": np.float32})
    made = GradientExplorer(given)
    before = made.read_out_entries()
    given.loc[:, "p"] = 0.0
    assert made.read_out_entries().equals(before)


def test_where_scripts_are_off_a_figure_stands_for_it():
    made = GradientExplorer()
    assert "by its score" in made.fallback.text
    assert made.fallback.html.count("<img") == 2
    assert "scores below 0.89 are pushed up" in made.fallback.html
    assert len(made.fallback.html) < 250_000


# In a browser


def number(text):
    return float(text.replace("−", "-"))


def points(page, name):
    """Where the parts of a path begin, as scores and gradients."""
    d = page.locator(f".rsbook-gradients path.{name}").get_attribute("d")
    depth = -min(map(number, page.locator(".rsbook-plot-y").inner_text().split()))
    found = np.array([pair.split(",") for pair in re.findall(r"[ML ]([\d.]+,[\d.]+)", d)], float)
    return found[:, 0] / 1000, 1 - found[:, 1] / 100 * (1 + depth)


def agree(page, made):
    """What the page says and draws is what Python computes for the page's state."""
    copy_state(page, made, STATE)
    found = made.read_out()
    said = SAID.fullmatch(page.locator(".rsbook-said").first.inner_text()).groups()
    assert [float(one) for one in said[:3]] == [made.score, made.target, made.strength]
    expected = gradient(made.score, made.target, made.strength)
    assert expected == found["gradient"]
    if said[3][0] in "zb":
        assert abs(expected) < 0.0005
        assert said[3] == ("zero" if expected == 0 else f"barely {'below' if expected < 0 else 'above'} zero")
    else:
        assert number(said[3]) == pytest.approx(expected, abs=0.00051)
    assert (said[4] is not None) == (expected == made.score)
    assert (said[6] is not None) == (expected < 0)
    if said[5]:
        assert float(said[5]) == made.score
    if said[8] and not said[7]:
        assert float(said[8]) == pytest.approx(100 * found["left"], abs=0.051)
    assert (said[9] is None) == math.isnan(found["zero"])
    if said[9]:
        assert float(said[9]) == pytest.approx(found["zero"], abs=0.00051)

    scores, gradients = points(page, "calibrated")
    assert (scores[0], scores[-1]) == (0, 1)
    assert gradients == pytest.approx([gradient(p, made.target, made.strength) for p in scores], abs=3e-4)
    (score,), (marked,) = points(page, "chosen")
    assert (score, marked) == pytest.approx((made.score, expected), abs=1e-4)
    assert number(page.locator(".rsbook-plot-words .value").inner_text()) == pytest.approx(expected, abs=0.0051)
    if page.locator(".rsbook-explorer-table").count():
        agree_entries(page, made)


def agree_entries(page, made):
    rows, found = shown_rows(page), made.read_out_entries()
    assert list(rows) == list(found.index)
    p, t, hidden = (made._entries[name] for name in ("p", "t", "hidden"))
    all_gradients = single_positive.calibrated_gradient(p.double(), t.double(), made.strength).numpy()
    counts = []
    for (name, row), kind, wanted in zip(found.iterrows(), ("positives", "absences"), (1, 0), strict=True):
        own, n = (hidden == wanted).numpy(), int(row["entries"])
        assert rows[name][0] == f"{n:,}"
        counts.append(f"{round(row['pushed_up'] * n) if n else 0:,} of {n:,} {name}")
        if not n:
            assert rows[name][1:] == ["–"] * 3
            continue
        for text, column, factor, digits in zip(
            rows[name][1:], ("assumed", "calibrated", "pushed_up"), (1, 1, 100), (3, 3, 2), strict=True
        ):
            assert number(text) == pytest.approx(factor * row[column], abs=0.51 * 10**-digits)
        scores, gradients = points(page, f"points.{kind}")
        assert scores == pytest.approx(p.numpy()[own], abs=1e-6)
        assert gradients == pytest.approx(all_gradients[own], abs=1e-4)
    assert page.locator(".rsbook-said").last.inner_text() == f"Pushed up: {', '.join(counts)}."


def slide(page, name, value):
    page.get_by_label(name, exact=True).evaluate(
        "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
    )


def test_the_page_agrees_with_python_in_every_setting(opened):
    made = GradientExplorer(entries())
    page = opened(made)
    agree(page, made)
    for setting in SETTINGS:
        page.evaluate(
            "(state) => { for (const [name, value] of Object.entries(state)) explorer.set(name, value); }",
            dict(zip(STATE, setting, strict=True)),
        )
        agree(page, made)
        assert tuple(getattr(made, name) for name in STATE) == setting


def test_sliders_change_the_sentence_the_points_and_the_table(opened):
    made = GradientExplorer(entries())
    page = opened(made, width=390)
    before = shown_rows(page), points(page, "points.positives")[1], page.locator(".rsbook-said").first.inner_text()
    slide(page, "Strength λ", 2.2)
    agree(page, made)
    assert made.strength == 2.2
    assert shown_rows(page)["hidden positives"][2:] != before[0]["hidden positives"][2:]
    assert shown_rows(page)["hidden positives"][:2] == before[0]["hidden positives"][:2]
    assert (points(page, "points.positives")[1] < before[1]).all()
    rows = shown_rows(page)
    slide(page, "Stored target t", 0.75)
    slide(page, "Score p", 0.2)
    agree(page, made)
    assert (made.target, made.score) == (0.75, 0.2)
    assert shown_rows(page) == rows  # entries keep their own
    assert "the entry is pushed up" in page.locator(".rsbook-said").first.inner_text() != before[2]


def test_every_step_of_a_slider_is_one_that_python_takes(opened):
    made = GradientExplorer()
    page = opened(made)
    for label, name in (("Strength λ", "strength"), ("Stored target t", "target"), ("Score p", "score")):
        slider = page.get_by_label(label, exact=True)
        slider.press("Home")
        low, high, step = made.sliders[name]
        reached = [page.evaluate(f"explorer.state.{name}")]
        for _ in range(round((high - low) / step)):
            slider.press("ArrowRight")
            reached.append(page.evaluate(f"explorer.state.{name}"))
        for value in reached:
            setattr(made, name, value)
        assert reached == pytest.approx(np.arange(len(reached)) * step + low)
        assert reached[-1] == high
    agree(page, made)


def test_what_python_sets_is_shown(opened):
    made = GradientExplorer()
    set_state(made, (1.65, 0.95, 0.3))
    page = opened(made)
    agree(page, made)
    assert page.locator("output").all_inner_texts() == ["1.65", "0.95", "0.30"]


def test_without_entries_there_is_neither_a_table_nor_points(opened):
    page = opened(GradientExplorer())
    assert page.locator(".rsbook-explorer-table").count() == 0
    assert page.locator(".rsbook-said").count() == 1
    assert page.locator(".rsbook-lines > span").all_inner_texts() == ["assumed negative", "calibrated, for this t"]
    drawn = page.locator("path.points").evaluate_all("(all) => all.map((one) => one.getAttribute('d'))")
    assert drawn == [None, None]


def test_entries_of_one_kind_are_shown(opened):
    made = GradientExplorer(entries().assign(hidden=True))
    page = opened(made)
    agree(page, made)
    assert shown_rows(page)["true absences"] == ["0", "–", "–", "–"]


def test_the_plot_holds_all_that_is_drawn_at_any_strength(opened):
    given = pd.DataFrame({"p": [0.9, 0.99, 0.999], "t": [0.9999, 0.99999, 0.9], "hidden": [True, True, False]})
    made = GradientExplorer(given)
    page = opened(made)
    slide(page, "Stored target t", 0.99)
    for strength in (1, 1.5, 1.55, 2, 2.05, 3):
        slide(page, "Strength λ", strength)
        wait_two_frames(page)
        for name in ("calibrated", "points.positives", "points.absences"):
            d = page.locator(f".rsbook-gradients path.{name}").get_attribute("d")
            heights = [float(y) for y in re.findall(r"[ML ][\d.]+,(-?[\d.]+)", d)]
            assert min(heights) >= 0
            assert max(heights) <= 100


@pytest.mark.parametrize("strength", [0, 1, 2.5, 3])
@pytest.mark.parametrize("score", [0.01, 0.5, 0.9, 0.99])
def test_the_value_stays_inside_the_plot_on_a_phone(opened, strength, score):
    made = GradientExplorer()
    set_state(made, (strength, 0.99, score))
    page = opened(made, width=360)
    value, plot = (page.locator(one).bounding_box() for one in (".rsbook-plot-words .value", ".rsbook-plot"))
    assert value["x"] >= plot["x"]
    assert value["x"] + value["width"] <= 360
    assert plot["y"] <= value["y"] <= plot["y"] + plot["height"] - value["height"]


@pytest.mark.parametrize("width", [360, 700, 1300])
def test_neither_the_page_nor_its_table_scrolls_sideways(opened, width):
    made = GradientExplorer(entries(4000, share=0.5))
    made.strength = 3.0
    page = opened(made, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    scrolled = page.locator(".rsbook-explorer-scroll").evaluate("(one) => one.scrollWidth - one.clientWidth")
    assert scrolled == 0


def test_screen_readers_hear_the_sentence_once_a_key_is_up(opened):
    page = opened(GradientExplorer(entries()))
    wait_two_frames(page)
    told, said = page.locator(".rsbook-told"), page.locator(".rsbook-said")
    assert told.text_content() == ""
    page.get_by_label("Score p", exact=True).press("ArrowRight")
    wait_two_frames(page)
    assert told.text_content() == said.first.text_content()
    page.get_by_label("Strength λ", exact=True).press("End")
    wait_two_frames(page)
    assert told.text_content() == "".join(said.all_text_contents())
    names = page.locator("input[type=range]").evaluate_all("(all) => all.map((one) => one.ariaValueText)")
    assert names == ["3.0", "0.90", "0.61"]
    assert page.get_by_role("group", name="Gradient explorer").locator("input").count() == 3
    label = page.locator(".rsbook-gradients").get_attribute("aria-label")
    assert "for t = 0.90 and strength 3.0" in label
    assert "below zero up to p = 0.944; marked at p = 0.61, where it is −" in label


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing(theme, opened):
    axe = report.fetch_assets() / "tools" / "axe.min.js"
    page = opened(GradientExplorer(entries()), theme)
    page.evaluate(axe.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")["violations"]
    assert [f"{rule['id']}: {node['html'][:120]} {node['any'][:1]}" for rule in found for node in rule["nodes"]] == []


@pytest.mark.parametrize("theme", THEMES)
def test_the_curve_the_zero_line_and_the_points_stand_out_from_the_paper(theme, opened):
    page = opened(GradientExplorer(entries()), theme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for name, least in (("calibrated", 4.5), ("zero", 4.5), ("assumed", 4.5), ("positives", 3), ("absences", 3)):
        stroke = page.locator(f".rsbook-gradients path.{name}").evaluate("(one) => getComputedStyle(one).stroke")
        assert contrast(stroke, paper) >= least, name


def contrast(*colours):
    """The ratio of WCAG 2 between two colours, rgb(…)."""
    found = []
    for colour in colours:
        c = np.array(re.findall(r"\d+", colour)[:3], float) / 255
        found.append(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])
    return (max(found) + 0.05) / (min(found) + 0.05)
