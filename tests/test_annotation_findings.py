"""Tables and claims on answers and what is learnt from them, against slow calculation."""

import random
import statistics
from dataclasses import replace

import pandas as pd
import pytest
import torch
from test_mask_findings import silent, spread
from test_single_positive_findings import SEEDS, gap, outcomes, run, verdict

from rsbook import annotation_findings as findings
from rsbook import annotations
from rsbook import single_positive_runs as sp

PAIRS = [[3, 0], [5, 2], [6, 1]]


def study(given, scores=(), seeds=SEEDS):
    """The runs of the page: AN and AdaGC from answers and from random positives, and all labels, of the same scenes.

    scores: (setting, method) → one a seed; 0.5 for others.
    """
    scores = dict(scores)
    cases = [(given, "an"), (given, "adagc"), ("random", "an"), ("random", "adagc"), ("all", "full")]
    return pd.DataFrame(
        [
            run(method, seed, scores.get((setting, method), [0.5] * 3)[k], setting, answers=PAIRS)
            for setting, method in cases
            for k, seed in enumerate(seeds)
        ]
    )


def test_every_setting_has_a_name_and_people_come_first():
    assert set(findings.SETTING_NAMES) == set(sp.SETTINGS)
    assert tuple(findings.SETTING_NAMES)[:2] == sp.ANSWERED


@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[:1]])
def test_every_cell_of_the_table_of_answers(seeds):
    luck = random.Random(1)
    cases = {
        ("manual", "an"): ("manual answers", "AN"),
        ("manual", "adagc"): ("manual answers", "AdaGC, reconstructed"),
        ("random", "an"): ("random positives", "AN"),
        ("random", "adagc"): ("random positives", "AdaGC, reconstructed"),
        ("all", "full"): ("all labels", "AN"),
    }
    scores = {case: [luck.random() for _ in seeds] for case in cases}
    table = findings.manual_table(study("manual", scores, seeds))
    assert table.to_dict("records") == [
        {
            "labels": labels,
            "method": method,
            "scenes": 3,
            "mAP": spread(scores[case]),
            "F1 at 0.5": spread([score / 2 for score in scores[case]]),
            "F1, tuned": spread([score / 2 + 0.05 for score in scores[case]]),
            "n": len(seeds),
        }
        for case, (labels, method) in cases.items()
    ]
    assert silent(table)


@pytest.mark.parametrize("given", ["manual", "simulated"])
@pytest.mark.parametrize(
    ("number", "case", "yes", "no"),
    [
        ("answers_adagc", "adagc", 0.51, 0.49),
        ("answers_adagc", "an", 0.49, 0.51),
        ("answers_random", "an", 0.49, 0.5),
        ("answers_random", "random", 0.51, 0.49),
    ],
)
def test_verdicts_on_answers_follow_the_numbers(given, number, case, yes, no):
    for expected, scores in outcomes(yes, no):
        runs = study(given, {("random", "an") if case == "random" else (given, case): scores})[::-1]
        assert verdict(findings.manual_claims(runs, "quick"), number) == expected
        assert set(findings.manual_claims(runs, "smoke")["verdict"]) == {"open"}


def test_numbers_behind_the_claims_on_answers_and_whose_they_are():
    luck = random.Random(2)
    for given, name in (("manual", "manual answers"), ("simulated", "simulated answers")):
        cases = [(given, "an"), (given, "adagc"), ("random", "an"), ("random", "adagc")]
        scores = {case: [luck.random() for _ in SEEDS] for case in cases}
        found = findings.manual_claims(study(given, scores), "quick").set_index("number")
        an, adagc, other = (scores[case] for case in cases[:3])
        assert found["here"].to_dict() == {
            "answers_adagc": gap([a - b for a, b in zip(adagc, an, strict=True)]),
            "answers_random": gap([a - b for a, b in zip(other, an, strict=True)]),
        }
        assert all(name in claim for claim in found["claim"])
        assert ("not available to us" in found.loc["answers_adagc", "paper"]) == (given == "manual")


def draw_answers(data, skipped=(), seed=0):
    """Answers to all scenes, right or wrong; candidates are one page, two, or the one class of a dataset of one."""
    luck = random.Random(seed)
    rows = []
    for scene in range(len(data.labels)):
        label = "" if scene in skipped else luck.choice(data.classes)
        shown = [f"other {k}" for k in range(luck.choice([3, 4, 7]))] + [label or "one"]
        rows.append((scene, label, "me", round(10 * luck.random(), 2), "; ".join(shown)))
    luck.shuffle(rows)
    return pd.DataFrame(rows, columns=list(annotations.COLUMNS))


def slow_facts(answers, data):
    """Pixel by pixel and answer by answer."""
    given = [row for row in answers.to_dict("records") if row["label"]]
    inside, largest, early = 0, 0, 0
    for row in given:
        chosen = data.classes.index(row["label"])
        label = data.labels[row["scene"]].tolist()
        inside += label[chosen]
        early += row["candidates"].count(";") + 1 <= 4
        if data.positions is not None:
            area = [0] * len(label)
            for bits in data.positions[row["scene"]].flatten().tolist():
                for c, has in enumerate(label):
                    area[c] += has and bits >> c & 1
            largest += area[chosen] == max(area) > 0

    def share(count):
        return f"{100 * count / len(given):.1f}"

    return {
        "scenes labelled": str(len(given)),
        "skipped": str(len(answers) - len(given)),
        "in the label of the archive, %": share(inside),
        "the largest class of the scene, %": "–" if data.positions is None else share(largest),
        "among the first four candidates, %": share(early),
        "median seconds": f"{statistics.median(row['seconds'] for row in given):.1f}",
    }


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("skipped", [(), (0, 7, 9)])
def test_what_answers_are_like_pixel_by_pixel(tiny_scenes, maps, skipped):
    data = tiny_scenes if maps else replace(tiny_scenes, positions=None)
    for seed in range(5):
        answers = draw_answers(data, skipped, seed)
        table = findings.answer_table(answers, data)
        facts = dict(zip(table["answers"], table["value"], strict=True))
        assert facts == slow_facts(answers, data)
        assert facts["skipped"] == str(len(skipped))
    shares = [float(value) for name, value in facts.items() if "%" in name and value != "–"]
    assert len(shares) == (3 if maps else 2)
    assert all(0 < share < 100 for share in shares)


def test_a_class_that_is_not_there_is_never_the_largest(tiny_scenes):
    """In a scene without a class none is; and of two equally large ones both are."""
    answers = pd.DataFrame([(0, "one", "me", 1.0, "one")], columns=list(annotations.COLUMNS))
    nothing = tiny_scenes.labels.clone()
    nothing[0] = False
    shown = findings.answer_table(answers, replace(tiny_scenes, labels=nothing)).set_index("answers")["value"]
    assert shown["the largest class of the scene, %"] == "0.0"
    assert shown["in the label of the archive, %"] == "0.0"
    halves, both = tiny_scenes.positions.clone(), tiny_scenes.labels.clone()
    halves[0, :6], halves[0, 6:] = 1 << 0, 1 << 2
    both[0] = torch.tensor([True, False, True])
    data = replace(tiny_scenes, labels=both, positions=halves)
    for label, share in (("one", "100.0"), ("two", "0.0"), ("three", "100.0")):
        shown = findings.answer_table(answers.assign(label=label), data).set_index("answers")["value"]
        assert shown["the largest class of the scene, %"] == share


@pytest.mark.parametrize("maps", [True, False])
def test_where_all_was_skipped_nothing_is_said(tiny_scenes, maps):
    data = tiny_scenes if maps else replace(tiny_scenes, positions=None)
    table = findings.answer_table(draw_answers(data, range(16)), data)
    assert table["value"].tolist() == ["0", "16", "–", "–", "–", "–"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [([0.0, 0.0, 0.0], "–"), ([0.0, 0.0, 6.0], "0.0"), ([0.0, 2.5, 6.0], "2.5")]
)
def test_only_answers_that_all_took_no_time_have_no_median(tiny_scenes, seconds, shown):
    """Nobody took them; and how long a skipped scene was looked at counts not at all."""
    rows = [(k, "one", "me", one, "one") for k, one in enumerate(seconds)] + [(3, "", "me", 9.0, "one")]
    table = findings.answer_table(pd.DataFrame(rows, columns=list(annotations.COLUMNS)), tiny_scenes)
    assert table.set_index("answers")["value"]["median seconds"] == shown


def test_simulated_answers_name_the_largest_class_of_all_that_is_offered(tiny_scenes):
    """Without slips, and with three classes on one page, the simulated annotator errs never."""
    areas = annotations.areas(tiny_scenes, torch.arange(16))
    made = annotations.simulate(
        tiny_scenes.classes, areas, range(16), seed=1, slips=0.0, generator=torch.Generator().manual_seed(1)
    )
    table = findings.answer_table(made, tiny_scenes)
    labelled = int(tiny_scenes.labels.any(dim=1).sum())
    assert table["value"].tolist() == [str(labelled), str(16 - labelled), "100.0", "100.0", "100.0", "–"]
