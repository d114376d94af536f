import dataclasses

import pandas as pd
import pytest
import torch
from torch import Generator

from rsbook import claims, mixing, scenes


def runs_table(scores, seeds=(42, 43, 44)):
    """A table of runs from {(method, area_range): [mAP macro of each seed]}."""
    return pd.DataFrame(
        {
            "method": method,
            "area_range": None if area_range is None else list(area_range),
            "seed": seed,
            "map_macro": score,
            "map_micro": score + 0.1,
        }
        for (method, area_range), values in scores.items()
        for seed, score in zip(seeds, values, strict=False)
    )


LARGE, SMALL = (0.3, 0.7), (0.1, 0.3)
AS_CLAIMED = {
    ("none", None): [0.70, 0.71, 0.72],
    ("cutmix", SMALL): [0.72, 0.73, 0.74],
    ("cutmix", LARGE): [0.73, 0.74, 0.75],
    ("cutmix_lp_map", SMALL): [0.73, 0.74, 0.75],
    ("cutmix_lp_map", LARGE): [0.76, 0.77, 0.78],
}


def verdicts(scores, preset="quick", **options):
    return claims.claims_of_table_ii(runs_table(scores, **options), preset)["verdict"].tolist()


def test_claims_hold_when_every_seed_agrees():
    assert verdicts(AS_CLAIMED) == ["holds"] * 6


def test_a_claim_that_fails_is_printed_as_failing():
    swapped = AS_CLAIMED | {
        ("cutmix", LARGE): AS_CLAIMED["cutmix_lp_map", LARGE],
        ("cutmix_lp_map", LARGE): AS_CLAIMED["cutmix", LARGE],
    }
    assert verdicts(swapped)[0] == "fails"


def test_one_range_that_disagrees_decides():
    scores = AS_CLAIMED | {("cutmix_lp_map", SMALL): [0.71, 0.72, 0.73]}
    assert verdicts(scores)[0] == "fails"


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
        ([1], "open"),
        ([], "open"),
    ],
)
def test_verdict(differences, expected):
    assert claims.verdict(pd.Series(differences, dtype=float)) == expected


def test_what_was_not_run_is_open_and_said_so():
    def rows(scores):
        return claims.claims_of_table_ii(runs_table(scores), "quick")

    one_range = rows({key: value for key, value in AS_CLAIMED.items() if key[1] != SMALL})
    assert one_range["verdict"].tolist() == ["holds"] * 4 + ["open"] * 2
    without_baseline = rows({key: value for key, value in AS_CLAIMED.items() if key[0] != "none"})
    assert without_baseline["verdict"].tolist()[:4] == ["holds", "holds", "open", "open"]
    only_none = rows({key: value for key, value in AS_CLAIMED.items() if key[0] == "none"})
    assert set(only_none["verdict"]) == {"open"}
    other_range = rows({("cutmix", (0.2, 0.5)): [0.7, 0.7], ("cutmix_lp_map", (0.2, 0.5)): [0.8, 0.8]})
    assert other_range["here"][0] == "+10.00\u00a0±\u00a00.00 at 0.2–0.5"
    assert other_range["paper"][0] == "not printed at 0.2–0.5"
    for frame in (one_range, without_baseline, only_none, other_range):
        assert not frame["here"].str.contains("nan").any()
        assert "None" not in frame.to_string()
    assert "not run" in without_baseline["here"][2]


def test_the_papers_side_of_the_claims_is_computed_from_its_tables():
    paper = claims.claims_of_table_ii(runs_table(AS_CLAIMED), "quick")["paper"].tolist()
    assert "+1.40 at 0.1–0.3" in paper[0]
    assert "+1.81 at 0.3–0.7" in paper[0]
    assert paper[1:4] == ["+3.60 (Table V)", "+2.09", "+0.75 (Table V)"]
    assert paper[4].startswith("82.30")
    assert paper[5].startswith("+0.41")


def test_table_ii_sets_ours_beside_published():
    table = claims.table_ii(runs_table(AS_CLAIMED | {("cutout", LARGE): [0.7, 0.7, 0.7]}))
    rows = {(row["method"], row["box area"]): row for row in table.to_dict("records")}
    best = rows["CutMix with LP_map", "0.3–0.7"]
    assert best["mAP macro"] == "77.00\u00a0±\u00a01.00"
    assert best["mAP micro"] == "87.00\u00a0±\u00a01.00"
    assert best["n"] == 3
    assert best["gain over w/o LP"] == "+3.00"
    assert best["paper: macro"] == "82.30"
    assert best["paper: gain"] == "+1.81"
    assert rows["no augmentation", "–"]["paper: macro"] == "78.40"
    assert pd.isna(rows["CutOut", "0.3–0.7"]["paper: macro"])


def test_table_i_counts_the_training_split(tiny_scenes):
    first = claims.table_i(tiny_scenes).iloc[0]
    train = tiny_scenes.split("train")
    assert first["training scenes"] == f"{len(train):,}"
    assert first["classes a scene"] == round(float(tiny_scenes.labels[train].sum()) / len(train), 2)


def test_label_errors_equal_a_count_by_hand():
    data = scenes.load("bluemarble")
    data = dataclasses.replace(data, splits=data.splits | {"train": data.split("train")[:40]})
    row = claims.label_errors(data, [LARGE], seed=7, min_pixels=20, repeats=1).iloc[0]

    index = data.split("train")
    mixed = mixing.cutmix(
        data.images[index],
        data.labels[index],
        data.positions[index],
        area_range=LARGE,
        probability=1.0,
        generator=Generator().manual_seed(7),
    )
    wrong = lost = absent = weak = named = there = 0
    for i, bits in enumerate(mixed.positions):
        first, second = data.labels[index][i], data.labels[index][mixed.partner[i]]
        top, left, bottom, right = mixed.boxes[i].tolist()
        share = (bottom - top) * (right - left) / 1024
        error = False
        for c in range(len(data.classes)):
            weight = (1 - share) * float(first[c]) + share * float(second[c])
            present = int(((bits >> c) & 1).sum()) > 20
            named, there = named + (weight > 0), there + present
            lost += bool(first[c]) and not present
            absent += bool(second[c]) and not bool(first[c]) and not present
            error |= weight > 0 and not present
            weak += present and weight < 0.5
        wrong += error
    expected = [100 * wrong / 40, 100 * lost / named, 100 * absent / named, 100 * weak / there]
    assert row.tolist()[2:] == pytest.approx(expected, abs=0.051)


def test_label_errors_need_positions(tiny_scenes):
    with pytest.raises(ValueError, match="no class positions"):
        claims.label_errors(dataclasses.replace(tiny_scenes, positions=None), [LARGE], seed=1, min_pixels=0)


def test_propagated_labels_have_no_errors_by_construction(tiny_scenes):
    mixed = mixing.cutmix(
        tiny_scenes.images,
        tiny_scenes.labels,
        tiny_scenes.positions,
        area_range=LARGE,
        probability=1.0,
        min_pixels=tiny_scenes.min_pixels,
        generator=Generator().manual_seed(1),
    )
    bits = mixed.positions
    counted = torch.stack([((bits >> c) & 1).sum(dim=(1, 2)) for c in range(len(tiny_scenes.classes))], dim=1)
    assert torch.equal(counted > tiny_scenes.min_pixels, mixed.labels > 0)
