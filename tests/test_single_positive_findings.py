"""Tables and claims of Part IV, against slow calculation on made-up runs."""

import inspect
import itertools
import json
import random
import statistics
from collections import Counter

import pandas as pd
import pytest
import torch
from test_mask_findings import silent, spread

from rsbook import claims, figures, presets, published, single_positive_drawings
from rsbook import single_positive_findings as findings
from rsbook import single_positive_runs as sp
from rsbook.single_positive_tasks import OPTIONS
from rsbook.widgets import ResultsExplorer

SEEDS = (42, 43, 44)
CLASSES = ("one", "two", "three")
NAMES = tuple(findings.METHOD_NAMES)
VERDICTS = ("holds", "fails", "open")


def run(name, seed, score, setting="random", options=None, learning_rate=1e-3, **more):
    """A row as `runs.table(single_positive_runs.train, …)` makes it; "full" is AN where all labels are known."""
    adagc = {"student_map_macro": score - 0.02, "student_f1_fixed": score / 3, "begun": 1} if name == "adagc" else {}
    begun = {"precision": 0.4, "unobserved": 0.2, "begun": 1} if name == "adagc" else {}
    return {
        **{"options": options, "output_stride": None, "pretrained": False, "draw": 1200, "answers": None},
        **{"last": False, "keep": False, "dataset": "tiny", "network": "narrow_resnet", "epochs": 2, "batch_size": 4},
        **{"weight_decay": 0.01, "evaluate_every": 1, "train_scenes": 8, "learning_rate": learning_rate},
        **sp.named(name, setting),
        "seed": seed,
        **{"map_macro": score, "map_micro": score + 0.1, "average_precision": [score, score / 2, None]},
        **{"f1_fixed": score / 2, "f1_tuned": score / 2 + 0.05, "threshold": 0.3, "map_observed": score - 0.1},
        "best_epoch": 2,
        "history": [
            {"epoch": epoch, "loss": 1.0, "score_hidden": epoch / 10, "score_absent": 0.05, **begun} for epoch in (1, 2)
        ],
        **adagc,
        **{"seconds": 1.0, "record": f"_runs/{setting}_{name}_{seed}.json"},
        **more,
    }


def made_up(offsets, setting="random", seeds=SEEDS, **more):
    """Runs that score 0.5, a hundredth more with each seed, and what `offsets` adds for each method, a number or one a
    seed.
    """
    return pd.DataFrame(
        [
            run(name, seed, 0.5 + 0.01 * k + (one[k] if isinstance(one, list) else one), setting, **more)
            for name, one in offsets.items()
            for k, seed in enumerate(seeds)
        ]
    )


def anything(names=NAMES, setting="random", seeds=SEEDS, luck=1):
    """Runs of methods in an order of their own; no score says anything about another."""
    luck = random.Random(luck)
    scores = ("map_macro", "f1_fixed", "f1_tuned", "map_observed")
    rows = [
        run(name, seed, luck.random(), setting) | {score: luck.random() for score in scores}
        for name in names
        for seed in seeds
    ]
    luck.shuffle(rows)
    return pd.DataFrame(rows)


def of(runs, name, seed, metric="map_macro"):
    """The score of one run."""
    method, is_full = ("an", True) if name == "full" else (name, False)
    [found] = [
        row[metric]
        for row in runs.to_dict("records")
        if row["method"] == method and row["seed"] == seed and (row["setting"] == "all") == is_full
    ]
    return found


def gap(values):
    """Differences in points, as pages print them."""
    text = f"{100 * statistics.mean(values):+.2f}".replace("-", "−")
    return text + (f"\u00a0±\u00a0{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "")


def outcomes(yes, no):
    """What to put in for each verdict: all seeds say yes, none does, one does not."""
    return list(zip(VERDICTS, ([yes] * 3, [no] * 3, [yes, no, yes]), strict=True))


def verdict(frame, number):
    return frame.set_index("number").loc[number, "verdict"]


def test_made_up_runs_have_the_parameters_of_real_ones():
    where = {"root", "device", "checkpoint"}
    assert set(inspect.signature(sp.train).parameters) - where <= set(run("an", 42, 0.5))


# Benchmarks


@pytest.mark.parametrize("metric", ["map_macro", "f1_tuned"])
def test_scores_by_method_are_in_the_books_order(metric):
    runs = anything()
    found = findings.by_method(runs, metric)
    assert found.index.tolist() == list(SEEDS)
    assert found.columns.tolist() == list(NAMES)
    for name, seed in itertools.product(NAMES, SEEDS):
        assert found.loc[seed, name] == of(runs, name, seed, metric)
    assert findings.by_method(anything(["role", "an"])).columns.tolist() == ["an", "role"]


def test_every_method_has_a_name_and_a_colour():
    assert set(NAMES) == {"full", *sp.METHODS} == set(single_positive_drawings.COLOURS)
    assert len(set(findings.METHOD_NAMES.values())) == len(NAMES)
    named = [(findings.METHOD_NAMES[name], single_positive_drawings.COLOURS[name]) for name in NAMES]
    assert sorted(single_positive_drawings.NAMED_COLOURS.items()) == sorted(named)


def test_a_rank_is_one_more_than_how_many_are_better():
    runs = anything()
    found = findings.ranks(runs)
    assert found.columns.tolist() == list(NAMES[1:])
    for seed in SEEDS:
        scores = {name: of(runs, name, seed) for name in NAMES[1:]}
        for name, score in scores.items():
            assert found.loc[seed, name] == 1 + sum(other > score for other in scores.values())


def test_ties_share_the_better_rank_and_the_upper_bound_has_none():
    found = findings.ranks(made_up({"full": 0.4, "an": 0.1, "wan": 0.2, "hill": 0.1, "asl": 0.0}))
    assert found.to_dict("records") == [{"an": 2, "wan": 1, "hill": 2, "asl": 4}] * 3


def test_every_cell_of_the_benchmark_table():
    runs = anything()
    ranked = {name: findings.ranks(runs)[name].tolist() for name in NAMES[1:]}
    expected = []
    for name in NAMES:
        by = {metric: [of(runs, name, seed, metric) for seed in SEEDS] for metric in findings.METRICS}
        leads = [of(runs, name, seed) - of(runs, "an", seed) for seed in SEEDS]
        low, high = (min(ranked[name]), max(ranked[name])) if name != "full" else (0, 0)
        expected.append(
            {
                "method": findings.METHOD_NAMES[name],
                "mAP": spread(by["map_macro"]),
                "over AN": "–" if name == "an" else gap(leads),
                "rank": "–" if name == "full" else f"{low}" if low == high else f"{low}\u00a0to\u00a0{high}",
                "F1 at 0.5": spread(by["f1_fixed"]),
                "F1, tuned": spread(by["f1_tuned"]),
                "n": 3,
            }
        )
    table = findings.benchmark_table(runs)
    assert table.to_dict("records") == expected
    assert silent(table)


def test_leads_are_of_runs_with_the_same_seed():
    """Seeds differ by ten points, leads by one tenth of a point."""
    runs = made_up({"an": [0.0, 0.1, 0.2], "wan": [0.02, 0.121, 0.222]}, options={"rate": 0.1})
    wan = findings.benchmark_table(runs[::-1]).set_index("method").loc["WAN"]
    assert wan["over AN"] == "+2.10\u00a0±\u00a00.10"
    assert wan["rank"] == "1"


def test_one_seed_has_neither_spread_nor_span():
    table = findings.benchmark_table(made_up({"full": 0.2, "an": 0.0, "wan": -0.01}, seeds=(42,)))
    assert table["mAP"].tolist() == ["70.00", "50.00", "49.00"]
    assert table["over AN"].tolist() == ["+20.00", "–", "−1.00"]
    assert table["rank"].tolist() == ["–", "1", "2"]
    assert table["n"].tolist() == [1] * 3
    assert silent(table)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (None, ""),
        ({}, ""),
        ({"positives": 2.6, "weights_memory": 0.9, "scores_memory": 0.7, "begin": 3, "mixup": False}, ""),
        ({"alpha": 0.1, "beta": 0.02}, ", alpha 0.1, beta 0.02"),
        ({"weights_memory": 0.9, "strength": 2.0}, ", strength 2"),
        ({"rate": 0.1 / 15}, ", rate 0.0067"),
    ],
)
def test_settings_in_words_are_those_that_candidates_differ_by(options, text):
    assert findings.setting_text(run("an", 42, 0.5, options=options)) == f"learning rate 0.001{text}"
    series = made_up({"an": 0.0}, options=options, learning_rate=5e-5).iloc[0]
    assert findings.setting_text(series) == f"learning rate 5e-05{text}"


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_settings_in_words_tell_all_candidates_apart(preset):
    for grid in presets.load("single_positive", preset, "bluemarble")["grids"].values():
        assert len({findings.setting_text(one) for one in grid}) == len(grid)


# Candidates


def candidates(scores):
    """Trials of AN, EM and the upper bound, in the order of their grids, with these mAPs."""
    grids = {
        "full": [{"learning_rate": 0.1, "options": {}}, {"learning_rate": 0.2, "options": {}}],
        "an": [{"learning_rate": 0.1, "options": {}}, {"learning_rate": 0.2, "options": {}}],
        "em": [{"learning_rate": 0.1, "options": {"alpha": 0.3}}, {"learning_rate": 0.1, "options": {"alpha": 0.4}}],
    }
    rows = sp.candidates("random", grids, 42)
    runs = [
        run("full" if row["setting"] == "all" else row["method"], 42, 0.0, map_observed=score) | row
        for row, score in zip(rows, scores, strict=True)
    ]
    return pd.DataFrame(runs), grids


def test_candidates_in_words_and_which_was_chosen():
    found = findings.candidate_table(*candidates([0.3, 0.4, 0.2, 0.1, 0.123456, 0.9]))
    assert found.to_numpy().tolist() == [
        ["all labels", "learning rate 0.2", "40.00", "30.00, 40.00"],
        ["AN", "learning rate 0.1", "20.00", "20.00, 10.00"],
        ["EM", "learning rate 0.1, alpha 0.4", "90.00", "12.35, 90.00"],
    ]


def test_the_candidate_that_is_marked_is_the_one_that_is_run():
    """Few different scores, so that there are equals: the first of them, and one for each method."""
    luck = random.Random(2)
    ties = 0
    for _ in range(30):
        scores = [luck.choice([0.1, 0.2]) for _ in range(6)]
        runs, grids = candidates(scores)
        table = findings.candidate_table(runs, grids)
        ties += sum(scores[start] == scores[start + 1] for start in (0, 2, 4))
        picked = [findings.setting_text(one) for one in sp.tuned(runs, grids).values()]
        assert table["chosen"].tolist() == picked
    assert ties > 20


# Beside the Large-Loss paper


def test_leads_beside_those_of_the_paper():
    runs = anything()
    theirs = published.table("single_positive/large_loss")
    theirs = {(row.training, row.method, row.dataset): row.map_macro for row in theirs.itertuples()}
    found = findings.general_table(runs)
    names = [name for name in NAMES if ("end_to_end", name, "VOC") in theirs and name != "an"]
    assert names == ["full", "an_ls", "wan", "epr", "role", "ll_r", "ll_ct", "ll_cp"]
    for name, row in zip(names, found.to_dict("records"), strict=True):
        expected = {
            "method": findings.METHOD_NAMES[name],
            "over AN, here": gap([of(runs, name, seed) - of(runs, "an", seed) for seed in SEEDS]),
        }
        for where in ("VOC", "COCO", "NUS", "CUB"):
            lead = theirs["end_to_end", name, where] - theirs["end_to_end", "an", where]
            expected[f"paper: {where}"] = f"{lead:+.1f}".replace("-", "−")
        assert row == expected
    role = found.set_index("method").loc["ROLE"]
    assert role[["paper: VOC", "paper: CUB"]].tolist() == ["+2.8", "−4.1"]  # by hand: 87.9 − 85.1, 15.0 − 19.1


# What is hidden


def known(labels, choose):
    """One positive of each scene (N,L), by `choose` of the classes that are there."""
    observed = torch.zeros_like(labels)
    for n, row in enumerate(labels.tolist()):
        there = [c for c, has in enumerate(row) if has]
        if there:
            observed[n, choose(there)] = True
    return observed


def draw_observed(seed=0, scenes=40, classes=3):
    """Labels (N,L), of which the last class is in no scene, and one positive of each in two settings."""
    luck = random.Random(seed)
    labels = torch.tensor([[luck.random() < 0.6 for _ in range(classes)] + [False] for _ in range(scenes)])
    labels[0] = False
    return labels, {"random": known(labels, luck.choice), "dominant": known(labels, min)}


def draw_often(labels, count=3):
    """Several draws of random positives, no two alike."""
    draws = [known(labels, random.Random(seed).choice) for seed in range(count)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(draws, 2))
    return draws


def slow_rate(labels, one, classes):
    """Of the scenes that hold these classes the share, in per cent, that does not say so."""
    holding = [(n, c) for n, row in enumerate(labels.tolist()) for c in classes if row[c]]
    hidden = sum(not one[n, c] for n, c in holding)
    return f"{100 * hidden / len(holding):.1f}" if holding else "–"


def test_every_cell_of_the_rate_table():
    labels, observed = draw_observed()
    classes = ("one", "two", "three", "nowhere")
    expected = [
        {
            "class": name,
            "holds it": f"{100 * sum(row[c] for row in labels.tolist()) / len(labels):.1f}",
            **{setting: slow_rate(labels, one, [c]) for setting, one in observed.items()},
        }
        for c, name in enumerate(classes)
    ]
    mean = sum(map(sum, labels.tolist())) / len(labels)
    last = {setting: slow_rate(labels, one, range(4)) for setting, one in observed.items()}
    expected.append({"class": "all", "holds it": f"{mean:.2f} classes a scene", **last})
    table = findings.rate_table(labels, observed, classes)
    assert table.to_dict("records") == expected
    assert table["random"].tolist()[3] == "–"
    assert silent(table)


def slow_deviation(labels, one):
    """Of the false-negative rates of the classes that some scene holds: all there are, and no sample of others."""
    rows = labels.tolist()
    held = [c for c in range(labels.shape[1]) if any(row[c] for row in rows)]
    assert len(held) == labels.shape[1] - 1
    rates = [sum(row[c] and not one[n, c] for n, row in enumerate(rows)) / sum(row[c] for row in rows) for c in held]
    return (sum((rate - sum(rates) / len(rates)) ** 2 for rate in rates) / len(rates)) ** 0.5


@pytest.mark.parametrize("count", [1, 2, 5])
def test_how_much_more_unevenly_dominant_positives_hide_by_count_and_draw(count):
    labels, observed = draw_observed()
    draws = draw_often(labels, count)
    uneven = [slow_deviation(labels, observed["dominant"]) - slow_deviation(labels, one) for one in draws]
    assert len({round(one, 4) for one in uneven}) > count // 2
    [row] = findings.problem_claims(labels, draws, observed["dominant"], "quick").to_dict("records")
    assert (row["number"], row["metric"], row["n"]) == ("dominant_uneven", "rate", count)
    assert row["here"] == gap(uneven)


def test_verdicts_on_what_is_hidden_follow_the_draws():
    labels, observed = draw_observed()
    draws, dominant = draw_often(labels), observed["dominant"]
    cases = [
        (draws, dominant, "holds"),
        ([*draws, dominant], dominant, "open"),  # one draw is as uneven
        ([dominant] * 2, draws[0], "fails"),
        (draws[:1] * 2, draws[0], "fails"),  # as uneven is not more
        (draws[:1], dominant, "open"),
    ]
    for some, one, expected in cases:
        assert verdict(findings.problem_claims(labels, some, one, "quick"), "dominant_uneven") == expected
        assert verdict(findings.problem_claims(labels, some, one, "smoke"), "dominant_uneven") == "open"


def test_a_single_class_is_never_hidden_unevenly():
    labels, _ = draw_observed()
    labels = labels[:, [0, 3]]
    none = torch.zeros_like(labels)
    [row] = findings.problem_claims(labels, [none, labels], labels, "quick").to_dict("records")
    assert [row["here"], row["n"], row["verdict"]] == [gap([0.0, 0.0]), 2, "fails"]


# Claims of the benchmarks

LEADS = dict.fromkeys(NAMES, 0.01) | {"full": 0.3, "an": 0.0, "hill": 0.06, "adagc": 0.1}


def test_made_up_leads_make_all_claims_on_random_positives_hold():
    found = findings.random_claims(made_up(LEADS), "quick")
    numbers = ["adagc_an_random", "adagc_best_random", "large_loss_an", "role_an", "an_threshold"]
    assert found["number"].tolist() == numbers
    here = ["+10.00\u00a0±\u00a00.00", "+4.00\u00a0±\u00a00.00"]  # Hill, the best other, is at 0.06
    assert found["here"].tolist()[:2] == here
    assert set(found["verdict"]) == {"holds"}
    assert found["n"].tolist() == [3] * 5
    assert set(findings.random_claims(made_up(LEADS), "smoke")["verdict"]) == {"open"}
    assert set(findings.random_claims(made_up(LEADS, seeds=(42,)), "quick")["verdict"]) == {"open"}


@pytest.mark.parametrize(
    ("number", "method", "yes", "no"),
    [
        ("adagc_an_random", "adagc", 0.001, -0.001),
        ("adagc_an_random", "adagc", 0.001, 0.0),
        ("adagc_best_random", "adagc", 0.051, 0.049),  # Hill is at 0.06; all labels, at 0.3, are no method
        ("large_loss_an", "ll_r", 0.01, -0.01),
        ("large_loss_an", "ll_ct", 0.01, -0.01),
        ("large_loss_an", "ll_cp", 0.01, -0.01),
        ("role_an", "role", 0.01, -0.01),
    ],
)
def test_verdicts_on_random_positives_follow_the_numbers(number, method, yes, no):
    for expected, offsets in outcomes(yes, no):
        found = findings.random_claims(made_up(LEADS | {method: offsets}), "quick")
        assert verdict(found, number) == expected
        assert verdict(findings.random_claims(made_up(LEADS | {method: offsets}), "smoke"), number) == "open"


def test_the_verdict_on_thresholds_follows_f1_of_an_alone():
    for expected, gains in outcomes(0.01, -0.01):
        runs = made_up(LEADS)
        an = (runs["method"] == "an") & (runs["setting"] == "random")
        runs.loc[an, "f1_tuned"] = runs.loc[an, "f1_fixed"] + gains
        runs.loc[~an, "f1_tuned"] = 0.0
        found = findings.random_claims(runs, "quick")
        assert verdict(found, "an_threshold") == expected
        assert found.set_index("number").loc["an_threshold", "here"] == gap(gains)


def test_numbers_behind_the_claims_on_random_positives():
    runs = anything()
    found = findings.random_claims(runs, "quick").set_index("number")

    def leads(name, over="an"):
        return [of(runs, name, seed) - of(runs, over, seed) for seed in SEEDS]

    others = [name for name in NAMES if name not in ("full", "adagc")]
    best = [of(runs, "adagc", s) - max(of(runs, name, s) for name in others) for s in SEEDS]
    assert found.loc["adagc_an_random", "here"] == gap(leads("adagc"))
    assert found.loc["adagc_best_random", "here"] == gap(best)
    assert found.loc["role_an", "here"] == f"{gap(leads('role'))} at ROLE"
    large = {"LL-R": ("ll_r", 89.2), "LL-Ct": ("ll_ct", 89.0), "LL-Cp": ("ll_cp", 88.4)}
    assert found.loc["large_loss_an", "here"] == "; ".join(
        f"{gap(leads(m))} at {name}" for name, (m, _) in large.items()
    )
    assert found.loc["large_loss_an", "paper"] == "+4.10 at LL-R; +3.90 at LL-Ct; +3.30 at LL-Cp"
    less = [f"{100 * statistics.mean(leads(m)) - (there - 85.1):+.2f} at {name}" for name, (m, there) in large.items()]
    assert found.loc["large_loss_an", "difference"] == "; ".join(less).replace("-", "−").replace("LL−", "LL-")
    assert found.loc["adagc_an_random", "paper"] == findings.UNAVAILABLE
    assert set(found["metric"]) == {"map_macro", "f1"}


DOMINANT = {"full": 0.3, "an": -0.05, "hill": 0.0, "adagc": 0.0}
RANDOM = {"full": 0.3, "an": 0.0, "adagc": 0.1}


def test_made_up_leads_make_all_claims_on_dominant_positives_hold():
    runs, others = made_up(DOMINANT, "dominant"), made_up(RANDOM)
    found = findings.dominant_claims(runs, others, "quick")
    assert dict(zip(found["number"], found["here"], strict=True)) == {
        "adagc_an_dominant": "+5.00\u00a0±\u00a00.00",
        "adagc_best_dominant": "+0.00\u00a0±\u00a00.00",
        "dominant_gain": "+5.00\u00a0±\u00a00.00",
        "dominant_harder": "+5.00\u00a0±\u00a00.00",
    }
    assert set(found["verdict"]) == {"holds"}
    assert set(findings.dominant_claims(runs, others, "smoke")["verdict"]) == {"open"}


@pytest.mark.parametrize(
    ("number", "dominant", "yes", "no"),
    [
        ("adagc_an_dominant", True, {"adagc": -0.04}, {"adagc": -0.06}),
        ("adagc_best_dominant", True, {"adagc": -0.009}, {"adagc": -0.011}),
        ("dominant_gain", True, {"adagc": 0.04}, {"adagc": 0.06}),
        ("dominant_gain", False, {"adagc": 0.06}, {"adagc": 0.04}),
        ("dominant_harder", True, {"an": -0.01}, {"an": 0.01}),
        ("dominant_harder", False, {"an": -0.04}, {"an": -0.06}),
    ],
)
def test_verdicts_on_dominant_positives_follow_the_numbers(number, dominant, yes, no):
    [(method, high)], [low] = yes.items(), no.values()
    for expected, offsets in outcomes(high, low):
        runs = made_up(DOMINANT | {method: offsets} if dominant else DOMINANT, "dominant")
        others = made_up(RANDOM if dominant else RANDOM | {method: offsets})[::-1]  # seeds meet, whatever their order
        assert verdict(findings.dominant_claims(runs, others, "quick"), number) == expected
        assert verdict(findings.dominant_claims(runs, others, "smoke"), number) == "open"


# Ablation

PARTS = {
    "part_calibration": "no calibration",
    "part_trigger": "fixed warm-up",
    "part_warm_up": "no warm-up",
    "part_second": "no second stage",
    "part_weights": "no EMA of weights",
    "part_scores": "no EMA of scores",
    "part_mixup": "no Mixup",
}
EPOCHS = 6
WHOLE = "AdaGC, reconstructed"


def begun(options, trigger):
    """The epoch from which AdaGC calibrates, −1 for never."""
    begin = {**OPTIONS["adagc"], **(options or {})}["begin"]
    return trigger if begin is None else next((epoch for epoch in range(EPOCHS) if epoch >= begin), -1)


def ablated(scores, triggers=(3, 3, 3), strength=1.0, seeds=SEEDS, counted=()):
    """Runs of all variants. scores: variant → a number or one a seed; 0.5 where there is none · counted: variant → the
    epoch that counts, one a seed; the last where there is none.
    """
    options = {"weights_memory": 0.9, "scores_memory": 0.7, "strength": strength}
    variants = sp.ablation({"learning_rate": 1e-3, "options": options}, 2, EPOCHS)
    counted = dict(counted)
    assert set(scores) | set(counted) <= set(variants)
    rows = []
    for name, changed in variants.items():
        found = scores.get(name, 0.5)
        for k, seed in enumerate(seeds):
            score = found[k] if isinstance(found, list) else found
            start = begun(changed["options"], triggers[k])
            epoch = counted.get(name, [EPOCHS] * len(seeds))[k]
            rows.append(run("adagc", seed, score, begun=start, best_epoch=epoch) | changed)
    return pd.DataFrame(rows)


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_every_variant_is_told_by_its_options(strength):
    runs = ablated({}, strength=strength)
    expected = [name for name in sp.ablation({"options": {}}, 2, EPOCHS) for _ in SEEDS]
    assert len(set(expected)) == 8
    assert [findings.variant(row) for row in runs.to_dict("records")] == expected
    assert [findings.variant(row) for _, row in runs.iterrows()] == expected
    through_json = [{**row, "options": json.loads(json.dumps(row["options"]))} for row in runs.to_dict("records")]
    assert [findings.variant(row) for row in through_json] == expected


@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_variants_of_each_preset_are_told_apart(preset):
    chosen = presets.load("single_positive", preset, "bluemarble")
    epochs = chosen["training"]["epochs"]
    for settings in chosen["grids"]["adagc"]:
        for name, one in sp.ablation(settings, epochs // 3, epochs).items():
            begin = one["options"].get("begin")
            start = 1 if begin is None else next((epoch for epoch in range(epochs) if epoch >= begin), -1)
            assert findings.variant({"options": one["options"], "begun": float(start)}) == name


def test_a_run_without_options_is_the_whole_method():
    assert findings.variant(run("adagc", 42, 0.5)) == WHOLE
    assert findings.variant(run("adagc", 42, 0.5, options={})) == WHOLE == findings.METHOD_NAMES["adagc"]


def test_every_cell_of_the_ablation_table():
    luck = random.Random(4)
    names = list(sp.ablation({"options": {}}, 2, EPOCHS))
    scores = {name: [luck.random() for _ in SEEDS] for name in names}
    counted = {name: [luck.randint(1, 60) for _ in SEEDS] for name in names}
    middle = [statistics.median(counted[name]) for name in names]
    assert middle != [statistics.mean(counted[name]) for name in names]
    assert len(set(middle)) > 4
    table = findings.ablation_table(ablated(scores, triggers=(3, -1, 4), counted=counted)[::-1])
    starts = {"fixed warm-up": "2", "no warm-up": "0", "no second stage": "never"}
    assert table.to_dict("records") == [
        {
            "variant": name,
            "mAP": spread(scores[name]),
            "over the whole": "–"
            if name == WHOLE
            else gap([a - b for a, b in zip(scores[name], scores[WHOLE], strict=True)]),
            "mAP of the student": spread([score - 0.02 for score in scores[name]]),
            "F1 at 0.5": spread([score / 2 for score in scores[name]]),
            "calibrates after": starts.get(name, "3.5"),  # of 3 and 4: the third never does
            "epoch that counts": str(epochs),
            "n": 3,
        }
        for name, epochs in zip(names[::-1], middle[::-1], strict=True)
    ]
    assert silent(table)


def test_of_two_seeds_the_median_lies_between_their_epochs():
    counted = {WHOLE: [5, 6], "no Mixup": [2, 4]}
    table = findings.ablation_table(ablated({}, (1, 4), seeds=(42, 43), counted=counted)).set_index("variant")
    assert table.loc[[WHOLE, "no Mixup", "no warm-up"], "epoch that counts"].tolist() == ["5.5", "3", "6"]
    assert table.loc[WHOLE, "calibrates after"] == "2.5"


def test_one_seed_of_the_ablation_with_a_trigger_that_never_fires():
    table = findings.ablation_table(ablated({"no Mixup": 0.4}, triggers=(-1,), seeds=(42,))).set_index("variant")
    assert table.loc["no Mixup", ["mAP", "over the whole", "n"]].tolist() == ["40.00", "−10.00", 1]
    assert table.loc[WHOLE, ["calibrates after", "epoch that counts"]].tolist() == ["never", "6"]


def test_parts_are_told_from_what_is_claimed_of_them():
    """The authors claim something of gradient calibration, and of the second stage, which is nothing else."""
    found = findings.ablation_claims(ablated({}), "quick").set_index("number")
    claimed = [number for number, said in found["paper"].items() if said == findings.UNAVAILABLE]
    assert claimed == ["part_calibration", "part_second"]
    assert set(found["paper"].drop(claimed)) == {findings.PART}
    assert findings.PART != findings.UNAVAILABLE
    assert all(claim.endswith(f" adds to {WHOLE}") for claim in found["claim"])
    starts = ("Gradient calib", "The trigger", "A warm-up", "The second", "The average of w", "The average of s", "Mix")
    for claim, start in zip(found["claim"], starts, strict=True):
        assert claim.startswith(start)


@pytest.mark.parametrize("number", PARTS)
def test_verdicts_on_parts_follow_the_numbers(number):
    for expected, scores in outcomes(0.49, 0.51):
        found = findings.ablation_claims(ablated({PARTS[number]: scores}), "quick")
        assert found["number"].tolist() == list(PARTS)
        assert verdict(found, number) == expected
        others = found[found["number"] != number]
        assert set(others["verdict"]) == {"fails"}  # equal to the whole, so nothing is added
        row = found.set_index("number").loc[number]
        assert row["here"] == gap([0.5 - score for score in scores])
        smoke = findings.ablation_claims(ablated({PARTS[number]: scores}), "smoke")
        assert set(smoke["verdict"]) == {"open"}


def test_parts_that_were_not_run_are_open():
    runs = ablated({})
    runs = runs[[findings.variant(row) in (WHOLE, "no Mixup") for row in runs.to_dict("records")]]
    found = findings.ablation_claims(runs, "quick").set_index("number")
    assert found.loc["part_trigger", ["here", "verdict"]].tolist() == ["not run", "open"]
    assert found.loc["part_mixup", "verdict"] == "fails"


# Tables of two methods


def test_the_method_table_has_a_student_where_there_is_one():
    runs = anything(["an", "adagc"]).sort_values("method", ascending=False)
    table = findings.method_table(runs)
    assert table.to_dict("records") == [
        {
            "method": findings.METHOD_NAMES[name],
            "mAP": spread([of(runs, name, seed) for seed in SEEDS]),
            "mAP of the student": spread([of(runs, name, s, "student_map_macro") for s in SEEDS])
            if name == "adagc"
            else "–",
            "F1 at 0.5": spread([of(runs, name, seed, "f1_fixed") for seed in SEEDS]),
            "F1, tuned": spread([of(runs, name, seed, "f1_tuned") for seed in SEEDS]),
            "n": 3,
        }
        for name in ("an", "adagc")
    ]
    assert silent(table)


def test_average_precision_of_each_class_and_none_where_no_scene_holds_it():
    luck = random.Random(5)
    dominant, others = anything(["full", "an", "wan", "adagc"], "dominant"), anything(["full", "an", "adagc"])
    for runs in (dominant, others):
        runs["average_precision"] = [[luck.random(), luck.random() if k % 2 else None, None] for k in range(len(runs))]
    table = findings.class_table(dominant, others, CLASSES)
    columns = {
        "AN, random": (others, "an"),
        "AN, dominant": (dominant, "an"),
        "AdaGC, reconstructed, dominant": (dominant, "adagc"),
    }
    assert table.columns.tolist() == ["class", *columns]
    for c, row in enumerate(table.to_dict("records")):
        assert row["class"] == CLASSES[c]
        for name, (runs, method) in columns.items():
            scores = [of(runs, method, seed, "average_precision")[c] for seed in SEEDS]
            assert row[name] == spread([score for score in scores if score is not None], 1)
    assert table.iloc[2].tolist() == ["three", "–", "–", "–"]
    assert silent(table)


# What the method needs to be true


def entries(seed, told=True, count=40):
    """Unobserved entries; with `told`, stored targets of hidden positives tend to be higher, else lower."""
    luck = random.Random(seed)
    hidden = [k % 3 == 0 for k in range(count)]
    t = [round(0.5 * luck.random() + 0.4 * (one == told), 2) for one in hidden]  # two digits, so that there are ties
    return {"p": [0.1 + 0.8 * luck.random() for _ in hidden], "t": t, "hidden": hidden}


def explained(told=(True, True, True)):
    """Runs of AdaGC with entries."""
    rows = [run("adagc", seed, 0.5, entries=entries(k, told[k])) for k, seed in enumerate(SEEDS)]
    return pd.DataFrame(rows[::-1])


def slow_auroc(found):
    pairs = [
        (a > b) + (a == b) / 2
        for a, one in zip(found["t"], found["hidden"], strict=True)
        for b, other in zip(found["t"], found["hidden"], strict=True)
        if one and not other
    ]
    return sum(pairs) / len(pairs)


def slow_left(found, hidden):
    rows = [(p, t) for p, t, one in zip(found["p"], found["t"], found["hidden"], strict=True) if one is hidden]
    return sum(p * (1 - t * (1 - p) / (1 - p * t)) for p, t in rows) / sum(p for p, _ in rows)


def test_what_gradient_calibration_needs_by_pairs_and_sums():
    found = findings.method_claims(explained(), "quick")
    assert found["number"].tolist() == ["targets_tell", "gradient_left"]
    here = found["here"].tolist()
    assert here[0] == gap([slow_auroc(entries(k)) - 0.5 for k in range(3)])
    assert here[1] == gap([slow_left(entries(k), False) - slow_left(entries(k), True) for k in range(3)])
    assert found["metric"].tolist() == ["auroc", "share"]
    assert found["verdict"].tolist() == ["holds"] * 2
    assert found["n"].tolist() == [3] * 2


def test_verdicts_on_the_method_follow_the_numbers():
    for expected, told in outcomes(True, False):
        found = findings.method_claims(explained(told=told), "quick")
        assert found["verdict"].tolist() == [expected, expected]
        assert set(findings.method_claims(explained(told=told), "smoke")["verdict"]) == {"open"}


@pytest.mark.parametrize("kept", [True, False])
def test_runs_of_other_methods_say_nothing_of_calibration(kept):
    """Entries that would turn both verdicts, or none at all."""
    runs = explained()
    others = [
        run(name, seed, 0.5, entries=entries(k, False) if kept else None)
        for name in ("an", "wan")
        for k, seed in enumerate(SEEDS)
    ]
    found = findings.method_claims(pd.concat([pd.DataFrame(others), runs]), "quick")
    pd.testing.assert_frame_equal(found, findings.method_claims(runs, "quick"))


# What the results explorer is given


def test_runs_for_the_explorer_say_in_words_what_differs():
    runs = anything(["full", "an", "adagc"]).assign(entries=None, weights="w")
    found = findings.explorable(runs[1:])
    assert not {"options", "history", "answers", "dataset", "entries", "weights"} & set(found)
    assert found.index.tolist() == list(range(len(runs) - 1))
    for row, given in zip(found.to_dict("records"), runs[1:].to_dict("records"), strict=True):
        assert row["method"] == findings.METHOD_NAMES["full" if given["setting"] == "all" else given["method"]]
        assert row["settings"] == findings.setting_text(given)
        assert row["map_macro"] == given["map_macro"]
    assert "options" in runs  # the table itself stays as it was


@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[:1]])
def test_the_explorer_groups_a_benchmark_by_method(seeds):
    runs = anything(seeds=seeds)
    code = {findings.METHOD_NAMES[name]: name for name in NAMES}
    made = ResultsExplorer(
        findings.explorable(runs),
        CLASSES,
        name="random",
        metrics=findings.METRICS,
        colours=single_positive_drawings.NAMED_COLOURS,
    )
    assert [one["cell"] for one in made.columns[0]["levels"]] == list(
        dict.fromkeys(findings.explorable(runs)["method"])
    )
    for level, colour in zip(made.columns[0]["levels"], made.method_colours, strict=True):
        assert colour == single_positive_drawings.COLOURS[code[level["cell"]]]
    made.group_by = ["method"]
    shown = made.read_out()
    assert sorted(shown["method"]) == sorted(code)
    for row in shown.to_dict("records"):
        expected = [of(runs, code[row["method"]], seed) for seed in seeds]
        assert row["runs"] == len(seeds)
        assert row["mean"] == pytest.approx(statistics.mean(expected), abs=1e-6)
    assert made.fallback.html.count("<tr>") == 1 + len(NAMES)


def test_the_explorer_groups_an_ablation_by_variant():
    runs = ablated({"no Mixup": 0.4})
    runs["variant"] = [findings.variant(row) for row in runs.to_dict("records")]
    made = ResultsExplorer(
        findings.explorable(runs),
        CLASSES,
        name="ablation",
        metrics=findings.METRICS,
        method="variant",
    )
    assert made.group_by == ["variant"]
    means = made.read_out().set_index("variant")["mean"]
    assert list(means.index) == list(dict.fromkeys(runs["variant"]))
    assert means[[WHOLE, "no Mixup"]].tolist() == pytest.approx([0.5, 0.4])


# Pages


def test_claims_of_all_pages_have_numbers_of_their_own_and_are_shown():
    labels, observed = draw_observed()
    frames = [
        findings.problem_claims(labels, draw_often(labels), observed["dominant"], "quick"),
        findings.method_claims(explained(), "quick"),
        findings.random_claims(made_up(LEADS), "quick"),
        findings.dominant_claims(made_up(DOMINANT, "dominant"), made_up(RANDOM), "quick"),
        findings.ablation_claims(ablated({}), "quick"),
    ]
    numbers = Counter(number for frame in frames for number in frame["number"])
    assert set(numbers.values()) == {1}
    for frame in frames:
        shown = claims.claims_table(frame, "quick preset on tiny", findings.MEASURE)
        assert len(shown.data["rows"]) == len(frame)
        assert silent(frame.assign(claim=frame["claim"].str.replace("A warm-up, against none,", "A warm-up,")))
    assert (
        figures.draw_table(findings.candidate_table(*candidates([0.1] * 6)), caption="Trials.").html.count("<tr") == 4
    )


def test_a_share_of_nothing_is_a_dash():
    assert [findings.per_cent(value) for value in (0.1234, 0.0, 1.0, None, float("nan"))] == [
        *("12.3", "0.0", "100.0", "–", "–")
    ]
