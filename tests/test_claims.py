"""What the records say to the paper's claims, on tables of runs with known answers."""

import json
import re

import pandas as pd
import pytest
from made_up_runs import LARGE, SMALL, WEAK, WHOLE, figure_6_parts, noisy, rows, runs_table

from rsbook import claims, comparisons, figures, noise, presets, tables

AS_CLAIMED = {
    ("none", None): [0.70, 0.71, 0.72],
    ("cutmix", SMALL): [0.72, 0.73, 0.74],
    ("cutmix", LARGE): [0.73, 0.74, 0.75],
    ("cutmix_lp_map", SMALL): [0.73, 0.74, 0.75],
    ("cutmix_lp_map", LARGE): [0.76, 0.77, 0.78],
}
CLEAN = [
    *rows("none", None, [0.70, 0.71, 0.72]),
    *rows("cutmix", LARGE, [0.73, 0.74, 0.75]),
    *rows("cutmix_lp_map", LARGE, [0.76, 0.77, 0.78]),
]


def table_of(scores, **options):
    return runs_table(*(rows(*case, values, **options) for case, values in scores.items()))


def reliable(scores, preset="quick", **options):
    return claims.reliable_maps(table_of(scores, **options), preset)


def verdicts(*args, **options):
    return reliable(*args, **options)["verdict"].tolist()


def spread(text, sd="0.00"):
    return f"{text}\u00a0±\u00a0{sd}"


def by_number(frame):
    return {row["number"]: row for row in frame.to_dict("records")}


def test_claims_hold_when_every_seed_agrees():
    assert verdicts(AS_CLAIMED) == ["holds"] * 6


def test_a_claim_that_fails_is_printed_as_failing():
    swapped = AS_CLAIMED | {
        ("cutmix", LARGE): AS_CLAIMED["cutmix_lp_map", LARGE],
        ("cutmix_lp_map", LARGE): AS_CLAIMED["cutmix", LARGE],
    }
    assert verdicts(swapped)[0] == "fails"


def test_one_range_that_disagrees_decides():
    assert verdicts(AS_CLAIMED | {("cutmix_lp_map", SMALL): [0.71, 0.72, 0.73]})[0] == "fails"


def test_a_seed_that_disagrees_leaves_the_claim_open():
    assert verdicts(AS_CLAIMED | {("cutmix_lp_map", LARGE): [0.76, 0.77, 0.74]})[0] == "open"


def test_one_seed_and_the_smoke_preset_prove_nothing():
    assert set(verdicts(AS_CLAIMED, seeds=(42,))) == {"open"}
    assert set(verdicts(AS_CLAIMED, preset="smoke")) == {"open"}


def test_seeds_are_paired():
    """The same scores in another order of seeds: the means agree, the pairs do not."""
    assert verdicts(AS_CLAIMED | {("cutmix_lp_map", SMALL): [0.75, 0.74, 0.73]})[0] == "open"


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1, 2, 3], "holds"),
        ([-1, 2, 3], "open"),
        ([-3, 1, 1], "open"),
        ([-3, -1, -1], "fails"),
        ([0, 0, 0], "fails"),
        ([1, None], "open"),
        ([1], "open"),
        ([], "open"),
    ],
)
def test_verdict(differences, expected):
    assert claims.verdict(pd.Series(differences, dtype=float)) == expected


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([0.1, -0.19, 0], "holds"),
        ([0.3, -0.3, 0], "holds"),  # 0 ± 0.17: what single seeds do is their spread
        ([0.5, -0.5, 0], "open"),  # 0 ± 0.29
        ([0.1, 0.3, 0.2], "open"),  # 0.2 ± 0.06
        ([0.1, 0.4, 0.25], "open"),  # 0.25 ± 0.09
        ([0.3, 0.5, 0.4], "fails"),  # 0.4 ± 0.06
        ([-0.3, -0.5, -0.4], "fails"),
        ([0.1, None], "open"),
        ([0.1], "open"),
        ([], "open"),
    ],
)
def test_verdict_within(points, expected):
    assert claims.verdict_within(0.2)(pd.Series(points, dtype=float) / 100) == expected


def test_what_was_not_run_is_open_and_said_so():
    one_range = reliable({key: value for key, value in AS_CLAIMED.items() if key[1] != SMALL})
    assert one_range["verdict"].tolist() == ["holds"] * 4 + ["open"] * 2
    without_baseline = reliable({key: value for key, value in AS_CLAIMED.items() if key[0] != "none"})
    assert without_baseline["verdict"].tolist()[:4] == ["holds", "holds", "open", "open"]
    only_none = reliable({key: value for key, value in AS_CLAIMED.items() if key[0] == "none"})
    assert set(only_none["verdict"]) == {"open"}
    other_range = reliable({("cutmix", (0.2, 0.5)): [0.7, 0.7], ("cutmix_lp_map", (0.2, 0.5)): [0.8, 0.8]})
    assert other_range["here"][0] == spread("+10.00") + " at 0.2–0.5"
    assert other_range["paper"][0] == "not printed at 0.2–0.5"
    for frame in (one_range, without_baseline, only_none, other_range):
        assert not frame["here"].str.contains("nan").any()
        assert "None" not in frame.to_string()
    assert "not run" in without_baseline["here"][2]


def test_the_papers_side_of_the_claims_is_computed_from_its_tables():
    paper = reliable(AS_CLAIMED)["paper"].tolist()
    assert paper[0] == "+1.40 at 0.1–0.3; +1.81 at 0.3–0.7"
    assert paper[1:4] == ["+3.60 (Table V)", "+2.09", "+0.75 (Table V)"]
    assert paper[4].startswith("82.30")
    assert paper[5].startswith("+0.41")


def test_ours_less_the_papers_stands_where_both_have_a_number():
    frame = reliable(AS_CLAIMED)
    assert frame["difference"].tolist() == [
        "−0.40 at 0.1–0.3; +1.19 at 0.3–0.7",  # +1.00 and +3.00 against +1.40 and +1.81
        "−2.10 at 0.3–0.7",  # +1.50 against +3.60
        "+0.91 at 0.3–0.7",
        "+0.75 at 0.3–0.7",
        "–",  # the paper's lead is no number
        "+1.59",
    ]
    assert frame["n"].tolist() == [3] * 6
    assert frame["metric"].tolist() == ["map_macro", "map_micro", "map_macro", "map_micro", "map_macro", "map_macro"]
    one_range = reliable({key: value for key, value in AS_CLAIMED.items() if key[1] != SMALL})
    assert one_range["difference"].tolist()[-1] == "–"
    assert one_range["n"].tolist() == [3, 3, 3, 3, 0, 0]


def test_a_bound_is_no_number_to_compare_with():
    noises = noisy("cutmix_lp_map", [0.745, 0.755, 0.765], "mask_shift", 1.0, 10)
    assert claims.map_noise(runs_table(CLEAN, noises), "mask_shift", "quick")["difference"][0] == "–"
    noises = noisy("cutmix_lp_map", [0.7] * 3, "dilation_erosion", 1.0, 36)
    worst = claims.map_noise(runs_table(CLEAN, noises), "dilation_erosion", "quick")
    assert worst["difference"][0] == "−4.26"  # −4.00 against +0.26


def test_reliable_maps():
    here = {number: row["here"] for number, row in by_number(reliable(AS_CLAIMED)).items()}
    assert here == {
        "1": f"{spread('+1.00')} at 0.1–0.3; {spread('+3.00')} at 0.3–0.7",
        "1_micro": spread("+1.50") + " at 0.3–0.7",
        "4": spread("+3.00") + " at 0.3–0.7",
        "4_micro": spread("+1.50") + " at 0.3–0.7",
        "2": spread("+3.00") + " at 0.1–0.3",
        "3": spread("+2.00"),
    }


def test_map_noise_is_judged_at_its_strongest_level_and_at_the_others():
    """The strongest has the highest fraction, and of these the highest intensity."""
    levels = {
        (0.5, 10): [0.9] * 3,
        (1.0, 10): [0.745, 0.755, 0.765],
        (1.0, 3): [0.76, 0.77, 0.78],
        (0.25, 3): [0.7] * 3,
    }
    noises = [row for level, scores in levels.items() for row in noisy("cutmix_lp_map", scores, "mask_shift", *level)]
    # Another kind, and CutMix w/o LP on noisy maps, which has nothing to do here.
    others = noisy("cutmix_lp_map", [0.1] * 3, "dilation_erosion", 1.0, 99) + noisy("cutmix", [0.9] * 3, "x", 1.0, 10)
    frame = claims.map_noise(runs_table(CLEAN, noises, others), "mask_shift", "quick")
    assert frame["number"].tolist() == ["5_mask_shift", "5_mask_shift_micro", "", ""]
    above, above_micro, weaker, growth = frame.to_dict("records")
    for row, gain, paper in ((above, "+1.50", "at least about +1.5"), (above_micro, "+0.75", "not printed")):
        assert "f = 100 %, α = 10, label propagation stays above" in row["claim"]
        assert (row["here"], row["paper"], row["verdict"]) == (spread(gain), paper, "holds")
    assert weaker["here"] == "; ".join(
        f"{gain} at f = {share} %, α = {alpha}"
        for gain, share, alpha in (
            (spread("−4.00", "1.00"), 25, 3),
            (spread("+16.00", "1.00"), 50, 10),
            (spread("+3.00"), 100, 3),
        )
    )
    assert weaker["verdict"] == "fails"  # as the worst of the three
    assert weaker["paper"] == growth["paper"] == "negligible; visible drop; still above CutMix without LP"
    # Against the weakest noise of as many maps, not against clean maps.
    assert growth["claim"] == "Noise of f = 100 %, α = 10 costs more than f = 100 %, α = 3"
    assert (growth["here"], growth["verdict"]) == (spread("+1.50"), "holds")


@pytest.mark.parametrize(
    ("levels", "first"),
    [
        ([(0.1, None), (0.2, None), (0.3, None)], "f = 10 %"),
        ([(0.5, 36), (1.0, 36)], "f = 50 %, α = 36"),
        ([(1.0, 36), (1.0, 12), (1.0, 24), (0.5, 36)], "f = 100 %, α = 12"),
    ],
)
def test_what_stronger_noise_costs_more_than(levels, first):
    noises = [row for level in levels for row in noisy("cutmix_lp_map", [0.7] * 3, "segment_swap", *level)]
    growth = claims.map_noise(runs_table(CLEAN, noises), "segment_swap", "quick").iloc[3]
    assert growth["claim"].endswith(f"costs more than {first}")
    assert (growth["here"], growth["verdict"]) == (spread("+0.00"), "fails")


@pytest.mark.parametrize(
    ("noisy_scores", "expected"),
    [([0.761, 0.769, 0.78], "holds"), ([0.761, 0.769, 0.775], "open"), ([0.75, 0.76, 0.77], "fails")],
)
def test_noise_that_is_said_to_change_nothing_is_judged_by_how_much_it_changes(noisy_scores, expected):
    noises = noisy("cutmix_lp_map", noisy_scores, "border_deformation", 1.0, 20)
    noises += noisy("cutmix_lp_map", [0.1] * 3, "border_deformation", 0.5, 20)
    *_, change = claims.map_noise(runs_table(CLEAN, noises), "border_deformation", "quick").to_dict("records")
    assert "f = 100 %, α = 20 changes the score by at most 0.2 points" in change["claim"]
    assert change["paper"] == "at most 0.2"
    assert change["verdict"] == expected
    if expected == "fails":
        assert change["here"] == spread("−1.00")


def test_class_swap_is_compared_with_cutmix_of_the_same_noisy_labels():
    noises = noisy("cutmix_lp_map", [0.72, 0.73, 0.74], "class_swap", 0.3)
    noises += noisy("cutmix_lp_map", [0.74, 0.75, 0.76], "class_swap", 0.1)
    plain = noisy("cutmix", [0.70, 0.71, 0.72], "class_swap", 0.3) + noisy("cutmix", [0.9] * 3, "class_swap", 0.1)
    frame = claims.map_noise(runs_table(CLEAN, noises, plain), "class_swap", "quick")
    above, above_micro, weaker, growth = frame.to_dict("records")
    assert above["here"] == spread("+2.00")  # −1.00 over CutMix w/o LP with clean labels
    assert above_micro["here"] == spread("+1.00")
    assert "f = 30 %," in above["claim"]
    assert above["paper"] == "about +1.5"
    assert weaker["here"] == spread("−15.00", "1.00") + " at f = 10 %"
    assert weaker["paper"].startswith("gain stays")
    assert growth["here"] == spread("+2.00")


def test_the_papers_side_of_noise_whose_worst_score_it_prints():
    noises = noisy("cutmix_lp_map", [0.7] * 3, "dilation_erosion", 1.0, 36)
    frame = claims.map_noise(runs_table(CLEAN, noises), "dilation_erosion", "quick")
    assert frame["paper"][0] == "+0.26 at the worst"  # 80.75 against 80.49 of CutMix w/o LP in Table II


@pytest.mark.parametrize("kind", noise.KINDS)
@pytest.mark.parametrize("preset", ["smoke", "quick", "full"])
def test_every_kind_of_noise_has_its_claims_at_the_levels_of_every_preset(kind, preset):
    """In any order of levels; smoke has one, which leaves nothing to compare it with."""
    levels = presets.load("label_propagation", preset)["noise_levels"][kind]
    methods = ("cutmix", "cutmix_lp_map") if kind == "class_swap" else ("cutmix_lp_map",)
    noises = [row for level in levels[::-1] for m in methods for row in noisy(m, [0.7, 0.7, 0.7], kind, *level)]
    frame = claims.map_noise(runs_table(CLEAN, noises), kind, preset)
    rest = [""] * (2 * (len(levels) > 1) + (kind == "border_deformation"))
    assert frame["number"].tolist() == [f"5_{kind}", f"5_{kind}_micro", *rest]
    assert (len(levels) == 1) == (preset == "smoke")
    strongest = comparisons.level_text(levels[-1])
    assert frame["claim"][:2].str.startswith(f"With noise of {strongest},").all()
    if len(levels) > 1:
        assert [part.split(" at ")[1] for part in frame["here"][2].split("; ")] == [
            comparisons.level_text(level) for level in sorted(levels, key=lambda level: (level[0], level[1] or 0))[:-1]
        ]
    assert (frame["verdict"] == "open").all() == (preset == "smoke")
    for nothing in ("nan", "None", "not run"):
        assert nothing not in frame.to_string()


def test_a_kind_of_noise_that_was_not_run_is_named():
    with pytest.raises(ValueError, match=r"'mask_shift'.*no such noise"):
        claims.map_noise(runs_table(CLEAN), "mask_shift", "quick")


def costliest(*parts, preset="quick", **changes):
    """Costs at the strongest levels: segments too large or too small 6 points, shifted 3, swapped 2."""
    scores = {
        "dilation_erosion": [0.70, 0.71, 0.72],
        "mask_shift": [0.73, 0.74, 0.75],
        "segment_swap": [0.74, 0.75, 0.76],
    }
    noises = [
        row
        for kind, values in (scores | changes).items()
        for row in noisy("cutmix_lp_map", values, kind, 0.3 if kind == "segment_swap" else 1.0, 36)
    ]
    return claims.costliest_noise(runs_table(CLEAN, noises, *parts), noise.KINDS, preset).to_dict("records")


def test_costliest_noise():
    (row,) = costliest()
    assert (row["number"], row["paper"]) == ("5_order", "the lowest curve")
    assert (row["here"], row["verdict"]) == (spread("+3.00"), "holds")
    assert costliest(preset="smoke")[0]["verdict"] == "open"


def test_the_costliest_other_kind_is_found_for_each_seed():
    """Swapped segments cost 4, 2, 7 points and shifted ones 3, 5, 3."""
    (row,) = costliest(segment_swap=[0.72, 0.75, 0.71], mask_shift=[0.73, 0.72, 0.75])
    assert row["here"] == spread("+0.67", "1.53")  # 2, 1, −1
    assert row["verdict"] == "open"
    assert costliest(mask_shift=[0.69, 0.70, 0.71])[0]["verdict"] == "fails"


def test_only_the_strongest_level_of_each_kind_that_leaves_the_labels_is_compared():
    weaker = noisy("cutmix_lp_map", [0.1] * 3, "mask_shift", 1.0, 12)
    weaker += noisy("cutmix_lp_map", [0.1] * 3, "mask_shift", 0.5, 36)
    weaker += noisy("cutmix_lp_map", [0.9] * 3, "dilation_erosion", 0.5, 36)
    swapped = [row for m in ("cutmix", "cutmix_lp_map") for row in noisy(m, [0.1] * 3, "class_swap", 0.3)]
    assert costliest(weaker, swapped) == costliest()


PRODUCT = [
    *CLEAN,
    *rows("cutmix_lp_map", LARGE, [0.74, 0.75, 0.76], maps="product"),
    *rows("cutmix_lp_xai", LARGE, [0.75, 0.76, 0.77]),
]


def test_thematic_product():
    """Reliable maps, at 76, 77, 78, have no part in it."""
    frame = claims.thematic_product(runs_table(PRODUCT), "quick", "product")
    assert frame["number"].tolist() == ["6", "6_micro", ""]
    assert frame["here"].tolist() == [f"{spread(gain)} at 0.3–0.7" for gain in ("+1.00", "+0.50", "+1.00")]
    assert frame["paper"].tolist() == ["+1.71 at 0.3–0.7", "not printed", "+1.33 at 0.3–0.7"]
    assert frame["verdict"].tolist() == ["holds"] * 3


def test_where_the_given_map_is_a_product_it_is_the_one_compared():
    frame = claims.thematic_product(runs_table(PRODUCT), "quick", "given")
    assert frame["here"].tolist() == [f"{spread(gain)} at 0.3–0.7" for gain in ("−1.00", "−0.50", "+3.00")]
    assert frame["verdict"].tolist() == ["fails", "fails", "holds"]


def test_explanation_masks():
    frame = claims.explanation_masks(runs_table(PRODUCT, rows("cutmix", SMALL, [0.1] * 3)), "quick")
    assert frame["number"].tolist() == ["9", "9_micro", "10"]
    assert frame["here"].tolist() == [f"{spread(gain)} at 0.3–0.7" for gain in ("+2.00", "+1.00", "+1.00")]
    assert frame["paper"].tolist() == ["+1.52 at 0.3–0.7", "+3.23 at 0.3–0.7 (Table V)", "+0.29 at 0.3–0.7"]
    assert frame["verdict"].tolist() == ["holds"] * 3


def test_where_there_are_no_maps_explanation_masks_are_not_compared_with_them():
    runs = runs_table([row for row in PRODUCT if row["method"] != "cutmix_lp_map"])
    assert claims.explanation_masks(runs, "quick")["number"].tolist() == ["9", "9_micro"]


def test_pretraining_quality():
    """Masks of one epoch lose a point and those of three win two: a claim is as good as its worst case."""
    frame = claims.pretraining_quality(tables.figure_6(*figure_6_parts()), "quick")
    macro, micro, rising = frame.to_dict("records")
    assert frame["number"].tolist() == ["7", "7_micro", ""]
    epochs = ("1 epoch", "3 epochs")
    assert macro["here"].replace("\u00a0", " ") == (
        f"−1.00 ± 0.00 at {epochs[0]}, mAP 31 %; +2.00 ± 0.00 at {epochs[1]}, mAP 51 %"
    )
    assert macro["verdict"] == micro["verdict"] == "fails"
    assert "30 %" in macro["paper"]
    assert micro["here"] == f"{spread('−0.50')} at {epochs[0]}; {spread('+1.00')} at {epochs[1]}"
    assert (rising["here"], rising["paper"], rising["verdict"]) == (spread("+6.00"), "a rising curve", "holds")


def test_a_longer_stage_one_that_kept_the_same_weights_is_no_better():
    same = WEAK, (None, *WEAK[1:])
    macro, _, rising = claims.pretraining_quality(tables.figure_6(*figure_6_parts(*same)), "quick").to_dict("records")
    assert macro["here"].startswith(spread("−1.00") + " at 1 epoch, mAP 31")
    assert (rising["here"], rising["verdict"]) == (spread("+0.00"), "fails")


def test_a_whole_stage_one_that_was_not_run_is_said_to_be_missing():
    first, second, others = figure_6_parts(WEAK, WHOLE)
    frame = claims.pretraining_quality(tables.figure_6(first[:2], second[:2], others), "quick")
    assert frame["here"][2] == "not run"
    assert frame["verdict"].tolist() == ["fails", "fails", "open"]


OTHERS = [
    *PRODUCT,
    *rows("cutout", LARGE, [0.71, 0.72, 0.73]),
    *rows("cutout", SMALL, [0.9, 0.9, 0.9]),  # Table V has boxes of 0.3–0.7
    *rows("random_resized_crop", None, [0.755, 0.765, 0.775]),
    *rows("random_rotate", None, [0.70, 0.71, 0.72]),
]


def test_other_augmentations():
    found = by_number(claims.other_augmentations(runs_table(OTHERS), "quick"))
    assert list(found) == ["8", "8_micro", "8_xai", "8_xai_micro"]
    names = ("CutOut", "RandomResizedCrop", "RandomRotate")

    def at(*gains):
        return "; ".join(f"{gain} over {name}" for gain, name in zip(gains, names, strict=True))

    assert found["8"]["here"] == at(spread("+5.00"), spread("+0.50"), spread("+6.00"))
    assert found["8_xai_micro"]["here"] == at(spread("+2.00"), spread("−0.25"), spread("+2.50"))
    assert [row["verdict"] for row in found.values()] == ["holds", "holds", "fails", "fails"]
    # Table V: 82.30 and 82.01 macro, 87.25 and 86.88 micro, against 79.69/84.93, 81.41/86.72 and 78.55/83.75.
    assert found["8"]["paper"] == at("+2.61", "+0.89", "+3.75")
    assert found["8_micro"]["paper"] == at("+2.32", "+0.53", "+3.50")
    assert found["8_xai"]["paper"] == at("+2.32", "+0.60", "+3.46")
    assert found["8_xai_micro"]["paper"] == at("+1.95", "+0.16", "+3.13")


def test_only_augmentations_that_were_run_are_compared():
    runs = runs_table([row for row in OTHERS if row["method"] != "random_resized_crop"])
    assert "RandomResizedCrop" not in claims.other_augmentations(runs, "quick").to_string()


def test_beyond_the_paper():
    """Looking lifts the rare classes and lowers the others; a class that no test scene holds has no AP."""
    boxes, looks, blobs, plain_blobs = (
        rows(method, LARGE, scores, average_precision=precision)
        for method, scores, precision in (
            ("cutmix_lp_map", [0.80, 0.81], [0.9, 0.4, None, 0.6]),
            ("cutmix_lp_map_rare", [0.79, 0.80], [0.7, 0.5, None, 0.7]),
            ("fmix_lp_map", [0.82, 0.80], [0.8, 0.5, None, 0.6]),
            ("fmix", [0.78, 0.78], [0.8, 0.5, None, 0.6]),
        )
    )
    runs = runs_table(boxes, looks, blobs, plain_blobs)
    frame = claims.beyond_the_paper(runs, [1, 2, 3], "quick")
    assert "paper" not in frame
    found = {number: (row["here"], row["verdict"]) for number, row in by_number(frame).items()}
    assert found == {
        "beyond_a_rare": (spread("+10.00"), "holds"),
        "beyond_a": (spread("−1.00"), "fails"),
        "beyond_a_micro": (spread("−0.50"), "fails"),
        "beyond_b": (spread("+0.50", "2.12"), "open"),
        "beyond_b_gain": (spread("+3.00", "1.41"), "holds"),
        "beyond_b_gain_micro": (spread("+1.50", "0.71"), "holds"),
    }
    assert claims.beyond_the_paper(runs, [], "quick")["here"][0] == "not run"
    assert "rare" not in runs  # the table itself is as it was


@pytest.mark.parametrize(
    "judge",
    [
        claims.reliable_maps,
        lambda runs, preset: claims.map_noise(runs, "class_swap", preset),
        lambda runs, preset: claims.costliest_noise(runs, noise.KINDS, preset),
        lambda runs, preset: claims.thematic_product(runs, preset, "product"),
        claims.explanation_masks,
        lambda runs, preset: claims.pretraining_quality(runs.assign(stage_one_epochs=1, stage_one_map=0.3), preset),
        claims.other_augmentations,
        lambda runs, preset: claims.beyond_the_paper(runs.assign(average_precision=[[0.5]] * len(runs)), [0], preset),
    ],
)
def test_the_smoke_preset_leaves_every_claim_open(judge):
    swapped = [row for m in ("cutmix", "cutmix_lp_map") for row in noisy(m, [0.7] * 3, "class_swap", 0.1)]
    swapped += noisy("cutmix_lp_map", [0.7] * 3, "segment_swap", 0.1)
    swapped += noisy("cutmix_lp_map", [0.6] * 3, "dilation_erosion", 1.0, 36)
    runs = runs_table(OTHERS, swapped, rows("cutmix_lp_map_rare", LARGE, [0.9] * 3))
    assert set(judge(runs, "smoke")["verdict"]) == {"open"}
    assert set(judge(runs, "quick")["verdict"]) != {"open"}


def test_each_numbered_claim_is_left_for_the_page_of_its_part(monkeypatch):
    left = []
    monkeypatch.setattr(figures, "display", lambda data, **options: left.append((data, options)))
    frame = pd.DataFrame(
        {
            "number": ["1", "", "2_micro"],
            "claim": ["<b>bold</b>", "reference", "other"],
            "here": ["+1.00 & <i>more</i>", "+2.00", "−3.00"],
            "paper": ["+1.81", "+0.29", "none"],
            "verdict": ["holds", "holds", "fails"],
        }
    )
    page = claims.claims_table(frame, "quick preset on <bluemarble>")
    mime = "application/papermill.record/"
    assert left == [
        (
            {f"{mime}text/html": said, f"{mime}text/plain": text},
            {"raw": True, "metadata": {"scrapbook": {"name": name, "mime_prefix": mime}}},
        )
        for name, said, text in (
            (
                "claim_1",
                '+1.00 &amp; &lt;i&gt;more&lt;/i&gt; <span class="verdict-holds">holds</span>',
                "+1.00 & <i>more</i>: holds",
            ),
            ("claim_2_micro", '−3.00 <span class="verdict-fails">fails</span>', "−3.00: fails"),
        )
    ]
    assert page.data["where"] == "quick preset on <bluemarble>"
    assert page.data["rows"] == frame.to_dict("records")
    assert "quick preset on &lt;bluemarble&gt;" in page.html
    assert "<b>" not in page.html
    assert "<i>" not in page.html
    assert "2_micro" not in page.html
    assert '<td class="verdict-fails">fails</td>' in page.html
    assert "published" in page.html


def test_claims_of_our_own_have_no_papers_side(monkeypatch):
    monkeypatch.setattr(figures, "display", lambda data, **options: None)
    frame = pd.DataFrame([{"number": "a", "claim": "own", "here": "+1.00", "verdict": "open"}])
    page = claims.claims_table(frame.assign(metric="rare"), "here")
    assert "paper" not in page.html
    assert "rare" not in page.html
    assert page.data["rows"][0]["metric"] == "rare"


def test_a_claims_table_holds_paper_ours_n_difference_and_verdict(monkeypatch):
    monkeypatch.setattr(figures, "display", lambda data, **options: None)
    page = claims.claims_table(reliable(AS_CLAIMED), "quick preset on bluemarble")
    heads = re.findall(r"<th(?: class=\"([a-z ]+)\")?>([a-z]+)</th>", page.html.split("</thead>")[0])
    assert [name for _, name in heads] == ["claim", "here", "n", "paper", "difference", "verdict"]
    assert {name: "published" in kind for kind, name in heads}["paper"]
    assert json.loads(json.dumps(page.data)) == page.data
    assert page.data["rows"][1]["metric"] == "map_micro"


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ([], "Claims: points of mAP macro (micro where said), mean ± standard deviation over n seeds; quick on x."),
        (["points of mean IoU"], "Claims: points of mean IoU, mean ± standard deviation over n seeds; quick on x."),
        (["<i>IoU</i>"], "Claims: &lt;i&gt;IoU&lt;/i&gt;, mean ± standard deviation over n seeds; quick on x."),
    ],
)
def test_a_claims_table_says_what_its_numbers_measure(monkeypatch, measure, said):
    left = []
    monkeypatch.setattr(figures, "display", lambda data, **options: left.append(data))
    frame = reliable(AS_CLAIMED)
    page = claims.claims_table(frame, "quick on x", *measure)
    caption = re.search(r"<caption>(.*?) <a ", page.html, re.S)[1]
    assert caption == (
        f"{said} A claim about several cases is as good as its worst. The difference is ours less the paper&#x27;s."
    )
    assert page.data == {"rsbook": "claims", "where": "quick on x", "rows": frame.to_dict("records")}
    assert len(left) == 6  # what other pages get says nothing of it
    assert "IoU" not in str(left)
