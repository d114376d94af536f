"""Claims of Part V by made-up runs: verdicts follow the numbers, and what was not run is open."""

import math
import statistics
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mask_findings import silent
from test_weak_findings import (
    CAM,
    FIRST,
    IOUS,
    NAMES,
    NETWORKS,
    PROPAGATED,
    SEEDS,
    WALK,
    _no_warnings,  # noqa: F401
    anything,
    gap,
    made_up,
    more_data,
    networks,
    of,
    outcomes,
    propagated,
    row_of,
    two_digits,
)

from rsbook import claims, weak_claims
from rsbook import weak_findings as findings


def first(offsets, **changes):
    return on_first_maps(made_up(offsets, **changes).assign(miou_single=0.45), "quick")


def on_first_maps(runs, preset):
    """The claims of three pages about activation maps, but for our own."""
    clustered = weak_claims.cluster_claims(runs, runs, preset)
    frames = [weak_claims.first_claims(runs, preset), weak_claims.scale_claims(runs, preset), clustered[:1]]
    return pd.concat(frames, ignore_index=True)


def test_our_own_claims_on_first_maps_are_about_pairs_of_runs():
    runs = made_up(FIRST)
    for expected, gains in outcomes(0.001, -0.001):
        less = runs.assign(miou=runs["miou"] - [gains[SEEDS.index(s)] for s in runs["seed"]])
        found = weak_claims.cluster_claims(runs, less[less["method"] == "sce"], "quick")
        assert row_of(found, "finch")["verdict"] == expected
        assert row_of(found, "sub_kmeans")["here"] == gap([0.02 - one for one in gains])
        found = weak_claims.regulariser_claims(runs, less[less["method"] == "fmix"], "quick")
        assert row_of(found, "regularisers")["verdict"] == expected
        assert "maps of FMix-CAM" in row_of(found, "regularisers")["claim"]
        assert row_of(found, "regularisers")["here"] == gap(gains)


def test_made_up_leads_make_all_claims_on_first_maps_hold():
    found = first(FIRST)
    assert set(found["verdict"]) == {"holds"}
    assert found["n"].tolist() == [3] * 5
    assert set(found["metric"]) == {"miou"}
    assert row_of(found, "fmix_best")["here"] == gap([0.01] * 3)
    assert row_of(found, "fmix_best")["paper"] == "+1.40"  # by hand: 48.2 less 46.8, that of both Mixups
    assert row_of(found, "mixing_cam")["paper"] == "+1.80 at Mixup-CAM; +1.80 at Manifold Mixup-CAM"
    assert row_of(found, "scales")["paper"] == "about +3"
    assert row_of(found, "scales")["difference"] == "+3.00"  # 51 less 45, less 3
    assert set(first(FIRST, seeds=(42,))["verdict"]) == {"open"}
    smoke = on_first_maps(made_up(FIRST).assign(miou_single=0.45), "smoke")
    assert set(smoke["verdict"]) == {"open"}


@pytest.mark.parametrize(
    ("number", "method", "yes", "no"),
    [
        ("mixing_cam", "mixup", 0.001, -0.001),
        ("mixing_cam", "manifold", 0.001, 0.0),
        ("fmix_cam", "fmix", 0.001, -0.001),
        ("fmix_best", "fmix", 0.021, 0.019),
        ("fmix_best", "sce", 0.029, 0.031),
        ("sub_cam", "sce", 0.001, -0.001),
        ("sub_cam", "sct", 0.001, -0.001),
        ("scales", "cam", -0.04, -0.08),  # one scale is at 0.45, all at 0.50 … 0.52
    ],
)
def test_verdicts_on_first_maps_follow_the_numbers(number, method, yes, no):
    for expected, offsets in outcomes(yes, no):
        assert row_of(first(FIRST | {method: offsets}), number)["verdict"] == expected


def test_the_lead_is_over_the_best_other_method_of_each_seed():
    """Over any one method FMix-CAM is ahead on average, over the best of each seed it is not."""
    others = {"cam": [0.0, 0.2, 0.0], "mixup": [0.2, 0.0, 0.0]}
    found = row_of(first({"fmix": 0.1} | others), "fmix_best")
    assert found["here"] == gap([-0.1, -0.1, 0.1])
    assert found["paper"] == "+1.40"
    assert row_of(first({"fmix": 0.1, "cam": 0.0}), "fmix_best")["paper"] == "+3.20"  # over the same others


@pytest.mark.parametrize("names", [("cam", "fmix"), ("fmix",), ("cam",), ("mixup", "sct"), ()])
def test_claims_on_what_was_not_run_are_open(names):
    """Nothing is said of methods that are missing, and claims say in words that they were not run."""
    runs = anything(names or NAMES)
    runs = runs if names else runs[:0]
    needed = {
        "mixing_cam": [{"cam", "mixup"}, {"cam", "manifold"}],
        "fmix_cam": [{"cam", "fmix"}],
        "fmix_best": [{"fmix", other} for other in NAMES if other != "fmix"],
        "sub_cam": [{"cam", "sce"}, {"cam", "sct"}],
        "scales": [{"cam"}],
        "walk_gain": [{name} for name in NAMES],
        "walk_fmix": [{"fmix", other} for other in NAMES if other != "fmix"],
    }
    tables = [on_first_maps(runs, "quick"), weak_claims.refinement_claims(runs, "quick")]
    found = pd.concat(tables).set_index("number")
    assert set(found.index) == set(needed)
    for number, ways in needed.items():
        was_run = any(way <= set(names) for way in ways)
        assert ("not run" in found.loc[number, "here"]) != was_run
        assert found.loc[number, "n"] == (3 if was_run else 0)
        assert was_run or found.loc[number, "verdict"] == "open"
    for table in tables:
        assert silent(table)


def test_a_method_that_lacks_a_seed_leaves_its_claims_open():
    runs = made_up(FIRST | {"mixup": 0.02})
    whole = runs.assign(miou_single=0.45)
    found = on_first_maps(whole[~((whole["method"] == "mixup") & (whole["seed"] == 43))], "quick")
    for number in ("mixing_cam", "fmix_best"):
        assert row_of(found, number)["verdict"] == "open"
    assert row_of(found, "fmix_best")["here"] == "not run"
    assert row_of(found, "fmix_cam")["verdict"] == "holds"


@pytest.mark.parametrize("method", ["cam", "sce", "fmix"])
def test_the_verdict_on_the_walk_is_that_of_its_worst_method(method):
    for expected, gains in outcomes(0.01, -0.01):
        runs = made_up(dict.fromkeys(NAMES, 0.1)).assign(miou_before=0.5)
        runs.loc[runs["method"] == method, "miou_before"] = runs.loc[runs["method"] == method, "miou"] - gains
        assert row_of(weak_claims.refinement_claims(runs, "quick"), "walk_gain")["verdict"] == expected


def test_numbers_behind_the_claims_on_walked_maps():
    runs = anything(["cam", "fmix", "sce"])
    found = weak_claims.refinement_claims(runs, "quick")
    gains = {n: [of(runs, n, s) - of(runs, n, s, "miou_before") for s in SEEDS] for n in ("cam", "sce", "fmix")}
    names = findings.METHOD_NAMES
    assert row_of(found, "walk_gain")["here"] == "; ".join(f"{gap(v)} at {names[n]}" for n, v in gains.items())
    assert row_of(found, "walk_gain")["paper"] == "; ".join(
        f"{two_digits(WALK[name] - CAM[name])} at {names[name]}" for name in gains
    )
    leads = [of(runs, "fmix", s) - max(of(runs, "cam", s), of(runs, "sce", s)) for s in SEEDS]
    assert row_of(found, "walk_fmix")["here"] == gap(leads)
    assert row_of(found, "walk_fmix")["paper"] == "+1.70"  # 58.4 less 56.7


def test_made_up_networks_make_all_claims_hold():
    found = weak_claims.segmentation_claims(networks(NETWORKS), "quick")
    assert set(found["verdict"]) == {"holds"}
    assert row_of(found, "network_cam")["paper"] == "+2.40 at Mixup-CAM; +1.30 at FMix-CAM"  # less 52.7
    assert row_of(found, "network_mixup")["paper"] == "+1.10"
    assert row_of(found, "network_walk")["here"] == gap([0.02] * 3)
    assert row_of(found, "network_truth")["here"] == gap([0.15] * 3)
    assert found["paper"].tolist()[2:] == [weak_claims.OURS] * 2


@pytest.mark.parametrize(
    ("number", "source", "method", "yes", "no"),
    [
        ("network_cam", "walk", "mixup", 0.03, 0.01),
        ("network_cam", "walk", "fmix", 0.03, 0.01),
        ("network_mixup", "walk", "mixup", 0.05, 0.03),
        ("network_mixup", "walk", "fmix", 0.04, 0.06),
        ("network_walk", "walk", "cam", 0.01, -0.01),
        ("network_walk", "cam", "cam", 0.01, 0.03),
        ("network_truth", "reference", None, 0.06, 0.04),
        ("network_truth", "walk", "mixup", 0.19, 0.21),
        ("network_truth", "cam", "cam", 0.19, 0.21),
    ],
)
def test_verdicts_on_networks_follow_the_numbers(number, source, method, yes, no):
    for expected, offsets in outcomes(yes, no):
        walk = NETWORKS | ({method: offsets} if source == "walk" else {})
        cam = {"cam": offsets if source == "cam" else 0.0}
        runs = networks(walk, cam, offsets if source == "reference" else 0.2)
        assert row_of(weak_claims.segmentation_claims(runs[::-1], "quick"), number)["verdict"] == expected
        assert set(weak_claims.segmentation_claims(runs, "smoke")["verdict"]) == {"open"}


def test_claims_on_more_scenes_are_about_what_was_run():
    found = weak_claims.more_data_claims(more_data({"fmix": 0.0}, {"fmix": 0.08}), "quick")
    assert found["number"].tolist() == ["more_scenes_fmix"]
    row = row_of(found, "more_scenes_fmix")
    assert row[["here", "paper", "difference", "verdict"]].tolist() == [gap([0.08] * 3), "+7.20", "+0.80", "holds"]
    both = weak_claims.more_data_claims(more_data({"fmix": 0.0, "cam": 0.0}, {"fmix": 0.08, "cam": 0.01}), "quick")
    assert row_of(both, "more_scenes_cam")[["paper", "difference"]].tolist() == [weak_claims.OURS, "–"]
    half = weak_claims.more_data_claims(more_data({"cam": 0.0}, {}), "quick")
    assert half["here"].tolist() == ["not run"] * 2
    assert set(half["verdict"]) == {"open"}


@pytest.mark.parametrize("name", ["fmix", "cam"])
def test_verdicts_on_more_scenes_follow_the_numbers(name):
    for expected, offsets in outcomes(0.01, -0.01):
        runs = more_data({"fmix": 0.0, "cam": 0.0}, {"fmix": 0.005, "cam": 0.005} | {name: offsets})
        assert row_of(weak_claims.more_data_claims(runs[::-1], "quick"), f"more_scenes_{name}")["verdict"] == expected
        assert set(weak_claims.more_data_claims(runs, "smoke")["verdict"]) == {"open"}


def test_made_up_masks_make_all_claims_hold():
    found = weak_claims.position_claims(propagated(PROPAGATED, IOUS), "quick")
    assert found["number"].tolist() == ["masks_fmix", "propagated_fmix", "propagated_area", "propagated_truth"]
    assert found["metric"].tolist() == ["mask_iou", "map_macro", "map_macro", "map_macro"]
    assert set(found["verdict"]) == {"holds"}
    assert set(found["paper"]) == {weak_claims.OURS}
    here = [0.02, 0.01, 0.02, 0.07]  # the masks with the highest IoU are FMix-CAM's, not those with the highest mAP
    assert found["here"].tolist() == [gap([value] * 3) for value in here]


@pytest.mark.parametrize(
    ("number", "changed", "yes", "no"),
    [
        ("masks_fmix", {"iou": "fmix"}, 0.01, -0.01),
        ("masks_fmix", {"iou": "cam"}, 0.01, 0.03),
        ("propagated_fmix", {"score": "fmix"}, 0.02, 0.005),
        ("propagated_area", {"score": "fmix"}, 0.01, -0.01),
        ("propagated_area", {"alone": "none"}, 0.01, 0.025),
        ("propagated_truth", {"score": "mixup"}, 0.09, 0.11),
        ("propagated_truth", {"alone": "reference"}, 0.04, 0.02),
    ],
)
def test_verdicts_on_masks_follow_the_numbers(number, changed, yes, no):
    for expected, offsets in outcomes(yes, no):
        scores, ious, alone = dict(PROPAGATED), dict(IOUS), {}
        [(kind, name)] = changed.items()
        {"score": scores, "iou": ious, "alone": alone}[kind][name] = offsets
        runs = propagated(scores, ious, **alone)
        assert row_of(weak_claims.position_claims(runs[::-1], "quick"), number)["verdict"] == expected
        assert set(weak_claims.position_claims(runs, "smoke")["verdict"]) == {"open"}


def test_the_best_masks_are_chosen_for_each_seed():
    """Once FMix-CAM's agree best with the maps, once CAM's, once Mixup-CAM's."""
    scores = {"cam": [0.1, 0.2, 0.3], "mixup": [0.4, 0.5, 0.6], "fmix": [0.7, 0.8, 0.9]}
    ious = {"cam": [0.0, 0.2, 0.0], "mixup": [0.1, 0.1, 0.2], "fmix": [0.2, 0.0, 0.1]}
    found = weak_claims.position_claims(propagated(scores, ious), "quick")
    assert row_of(found, "propagated_area")["here"] == gap([0.7, 0.2, 0.6])
    assert row_of(found, "propagated_truth")["here"] == gap([-0.6, -0.7, -0.8])


def test_masks_of_unknown_quality_are_not_passed_over():
    """Without the IoU of FMix-CAM's masks for one seed, no one knows which are the best."""
    runs = propagated(PROPAGATED, IOUS)
    runs.loc[(runs["method"] == "fmix") & (runs["seed"] == 43), "mask_iou"] = None
    found = weak_claims.position_claims(runs, "quick").set_index("number")
    assert found.index[found["here"] == "not run"].tolist() == ["masks_fmix", "propagated_area"]


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_the_lead_over_the_best_other_whatever_the_numbers(data):
    """Few different scores, so that there are equals."""
    others = data.draw(st.lists(st.sampled_from([n for n in NAMES if n != "fmix"]), min_size=1, unique=True))
    seeds = SEEDS[: data.draw(st.integers(1, 3))]
    score = st.sampled_from([0.1, 0.2, 0.3])
    drawn = {name: [data.draw(score) for _ in seeds] for name in ("fmix", *others)}
    rows = [{"method": n, "seed": s, "miou": v} for n, one in drawn.items() for s, v in zip(seeds, one, strict=True)]
    runs = pd.DataFrame(data.draw(st.permutations(rows))).assign(miou_single=0.1, miou_before=0.1)
    leads = [drawn["fmix"][k] - max(drawn[name][k] for name in others) for k in range(len(seeds))]
    printed = {"fmix_best": CAM["fmix"] - max(CAM[n] for n in others)}
    printed["walk_fmix"] = WALK["fmix"] - max(WALK[n] for n in others)
    ahead = {lead > 0 for lead in leads}
    expected = "open" if len(seeds) == 1 or len(ahead) == 2 else "holds" if ahead == {True} else "fails"
    tables = {"fmix_best": weak_claims.first_claims, "walk_fmix": weak_claims.refinement_claims}
    for number, claimed in tables.items():
        row = row_of(claimed(runs, "quick"), number)
        assert row["here"] == gap(leads)
        assert row["verdict"] == expected
        assert row["paper"] == two_digits(printed[number])
        less = 100 * statistics.mean(leads) - printed[number]
        assert math.isclose(float(row["difference"].replace("−", "-")), less, abs_tol=0.00501)


def test_claims_of_all_pages_have_numbers_of_their_own_and_are_shown():
    frames = [
        first(FIRST),
        weak_claims.refinement_claims(made_up(FIRST), "quick"),
        weak_claims.segmentation_claims(networks(NETWORKS), "quick"),
        weak_claims.more_data_claims(more_data({"fmix": 0.0, "cam": 0.0}, {"fmix": 0.1, "cam": 0.1}), "quick"),
        weak_claims.position_claims(propagated(PROPAGATED, IOUS), "quick"),
    ]
    numbers = Counter(number for frame in frames for number in frame["number"])
    assert set(numbers.values()) == {1}
    assert len(numbers) == 17
    for frame in frames:
        shown = claims.claims_table(frame, "quick preset on tiny", weak_claims.MEASURE)
        assert len(shown.data["rows"]) == len(frame)
        assert silent(frame)
        for row in frame.to_dict("records"):
            assert (row["metric"] == "map_macro") == ("in mAP macro" in row["claim"])
