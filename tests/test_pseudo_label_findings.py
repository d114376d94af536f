"""Tables and claims on label propagation from one positive, against slow calculation on made-up runs."""

import inspect
import itertools
import random

import pandas as pd
import pytest
from test_mask_findings import silent, spread
from test_single_positive_findings import SEEDS, gap, outcomes, verdict

from rsbook import pseudo_label_findings as findings
from rsbook import single_positive_runs as sp
from rsbook.single_positive_findings import METHOD_NAMES

WAYS = tuple(findings.MASK_NAMES)


def run(way, seed, score, **more):
    """A row as `runs.table(single_positive_runs.train_with_masks, …)` makes it."""
    masks, mix = way
    found = {"pseudo_precision": score / 2, "pseudo_recall": score / 3} if masks == "pseudo" else {}
    return {
        **{"setting": "random", "masks": masks, "mix": mix, "seed": seed, "area_range": [0.3, 0.7], "dataset": "tiny"},
        **{"stage_one": f"w{seed}" if masks in ("observed", "pseudo") else None, "probability": 0.5, "t_cam": 0.1},
        **{"network": "narrow_resnet", "epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "weight_decay": 0.01},
        **{"evaluate_every": 1, "train_scenes": 8, "output_stride": None, "pretrained": False, "draw": 1200},
        **{"map_macro": score, "map_micro": score + 0.1, "average_precision": [score, None, score]},
        **{"f1_fixed": score / 2, "f1_tuned": score / 2 + 0.05, "threshold": 0.3, "map_observed": score - 0.1},
        **{"best_epoch": 2, "history": [{"epoch": epoch, "loss": 1.0, "map_observed": 0.3} for epoch in (1, 2)]},
        **found,
        **{"seconds": 1.0, "record": f"_runs/{masks}_{mix}_{seed}.json"},
        **more,
    }


def anything(ways=WAYS, seeds=SEEDS):
    """Runs in an order of their own; no score says anything about another."""
    luck = random.Random(1)
    scores = ("map_macro", "f1_fixed", "f1_tuned")
    rows = [
        run(way, seed, luck.random()) | {score: luck.random() for score in scores} for way in ways for seed in seeds
    ]
    luck.shuffle(rows)
    return pd.DataFrame(rows)


def of(runs, way, metric="map_macro", seeds=SEEDS):
    """The scores of one way to train, by seed."""
    found = {row["seed"]: row[metric] for row in runs.to_dict("records") if (row["masks"], row["mix"]) == way}
    return [found[seed] for seed in seeds]


def leads(runs, way, over):
    return [a - b for a, b in zip(of(runs, way), of(runs, over), strict=True)]


def test_ways_are_those_that_runs_allow():
    where = {"root", "device", "checkpoint"}
    assert set(inspect.signature(sp.train_with_masks).parameters) - where <= set(run(WAYS[0], 42, 0.5))
    for masks, mix in WAYS:
        stage_one = "w" if masks in ("observed", "pseudo") else None
        sp._check_masks(masks, mix, stage_one, "record")
    assert len(set(findings.MASK_NAMES.values())) == len(WAYS)


def test_every_way_that_runs_allow_has_a_name():
    allowed = set()
    for masks, mix in itertools.product(sp.MASKS, ("none", "cutmix", "cutmix_lp")):
        try:
            sp._check_masks(masks, mix, "w" if masks in ("observed", "pseudo") else None, "record")
        except ValueError:
            continue
        allowed.add((masks, mix))
    assert allowed - set(WAYS) == {("reference", "cutmix")}  # which no page shows
    assert findings.MASK_NAMES["reference", "none"] == METHOD_NAMES["full"]


@pytest.mark.parametrize("metric", ["map_macro", "f1_fixed"])
def test_scores_by_way_are_in_the_books_order(metric):
    runs = anything()
    found = findings.by_masks(runs, metric)
    assert found.index.tolist() == list(SEEDS)
    assert found.columns.tolist() == list(WAYS)
    for way in WAYS:
        assert found[way].tolist() == of(runs, way, metric)
    some = findings.by_masks(anything(WAYS[4:2:-1]))
    assert some.columns.tolist() == [("pseudo", "none"), ("pseudo", "cutmix")]


def test_every_cell_of_the_mask_table():
    runs = anything()
    table = findings.mask_table(runs)
    assert table.to_dict("records") == [
        {
            "trained on": findings.MASK_NAMES[way],
            "mAP": spread(of(runs, way)),
            "over AN": "–" if way == ("none", "none") else gap(leads(runs, way, ("none", "none"))),
            "F1 at 0.5": spread(of(runs, way, "f1_fixed")),
            "F1, tuned": spread(of(runs, way, "f1_tuned")),
            "added classes: precision": spread(of(runs, way, "pseudo_precision"), 1) if way[0] == "pseudo" else "–",
            "recall": spread(of(runs, way, "pseudo_recall"), 1) if way[0] == "pseudo" else "–",
            "n": 3,
        }
        for way in WAYS
    ]
    assert silent(table)


def test_where_no_class_was_added_there_is_no_precision():
    """As in a training of seconds, whose networks score nothing above their threshold."""
    none = [
        run(way, 42, 0.5, **({"pseudo_precision": None, "pseudo_recall": 0.0} if way[0] == "pseudo" else {}))
        for way in WAYS
    ]
    table = findings.mask_table(pd.DataFrame(none)).set_index("trained on")
    pseudo = table.loc["pseudo-labels"]
    assert pseudo[["added classes: precision", "recall", "mAP", "n"]].tolist() == ["–", "0.0", "50.00", 1]
    assert silent(table.reset_index())
    some = [run(("none", "none"), s, 0.5) for s in SEEDS] + [
        run(("pseudo", "none"), s, 0.5, pseudo_precision=p) for s, p in zip(SEEDS, (None, 0.2, 0.4), strict=True)
    ]
    assert findings.mask_table(pd.DataFrame(some))["added classes: precision"].tolist() == ["–", spread([0.2, 0.4], 1)]


COMPARED = {  # from weak to strong
    "lp_one": (("none", "cutmix"), ("observed", "cutmix_lp")),
    "lp_pseudo": (("pseudo", "cutmix"), ("pseudo", "cutmix_lp")),
    "pseudo_an": (("none", "none"), ("pseudo", "none")),
    "lp_an": (("none", "none"), ("pseudo", "cutmix_lp")),
}


def test_numbers_behind_the_claims_on_masks():
    runs = anything()
    found = findings.mask_claims(runs, "quick").set_index("number")
    assert list(found.index) == list(COMPARED)
    for number, (weak, strong) in COMPARED.items():
        assert found.loc[number, ["here", "n"]].tolist() == [gap(leads(runs, strong, weak)), 3]


@pytest.mark.parametrize("number", COMPARED)
def test_verdicts_on_masks_follow_the_numbers(number):
    weak, strong = COMPARED[number]
    for expected, scores in outcomes(0.51, 0.49):
        ways = {way: scores if way == strong else [0.5] * 3 for way in WAYS}
        runs = pd.DataFrame([run(way, s, one[k]) for way, one in ways.items() for k, s in enumerate(SEEDS)])
        assert verdict(findings.mask_claims(runs, "quick"), number) == expected
        assert set(findings.mask_claims(runs, "smoke")["verdict"]) == {"open"}
        other = runs[::-1].copy()  # what is compared with is below both, so that nothing else decides
        other.loc[(other["masks"] == weak[0]) & (other["mix"] == weak[1]), "map_macro"] = 0.4
        assert verdict(findings.mask_claims(other, "quick"), number) == "holds"
