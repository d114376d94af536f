"""Runs compared by seed, on tables with known answers; the paper's numbers are typed here from its pages."""

import pandas as pd
import pytest
from made_up_runs import LARGE, SMALL, noisy, rows, runs_table

from rsbook import comparisons

CLEAN = [
    *rows("none", None, [0.70, 0.71, 0.72]),
    *rows("cutmix", LARGE, [0.73, 0.74, 0.75]),
    *rows("cutmix_lp_map", LARGE, [0.76, 0.77, 0.78]),
]
NOISY = [
    *noisy("cutmix_lp_map", [0.74, 0.76, 0.78], "mask_shift", 1.0, 36),
    *noisy("cutmix_lp_map", [0.1, 0.1, 0.1], "mask_shift", 0.5, 36),
    *noisy("cutmix_lp_map", [0.70, 0.72, 0.71], "class_swap", 0.3),
    *noisy("cutmix", [0.69, 0.70, 0.72], "class_swap", 0.3),
]


def test_scores_are_those_of_clean_given_maps_unless_said_otherwise():
    runs = runs_table(
        CLEAN,
        rows("cutmix_lp_map", SMALL, [0.1, 0.2]),
        rows("cutmix_lp_map", LARGE, [0.3, 0.4], maps="product"),
        noisy("cutmix_lp_map", [0.5, 0.6], "mask_shift", 0.5, 12),
        noisy("cutmix_lp_map", [0.7, 0.8], "class_swap", 0.5),
    )
    archived = runs.astype({"noise_intensity": float})  # None becomes NaN, as in a CSV

    for table in (runs, archived, archived.assign(noise=runs["noise"].where(runs["noise"].notna(), float("nan")))):

        def found(*case, table=table, **where):
            return comparisons.scores(table, *case, **where).to_dict()

        assert found("cutmix_lp_map", "0.3-0.7") == {42: 0.76, 43: 0.77, 44: 0.78}
        assert found("cutmix_lp_map", "0.1-0.3") == {42: 0.1, 43: 0.2}
        assert found("cutmix_lp_map", "0.3-0.7", maps="product") == {42: 0.3, 43: 0.4}
        shifted = {"noise": "mask_shift", "noise_fraction": 0.5, "noise_intensity": 12}
        assert found("cutmix_lp_map", "0.3-0.7", **shifted) == {42: 0.5, 43: 0.6}
        assert found("cutmix_lp_map", "0.3-0.7", **shifted | {"noise_intensity": 24}) == {}
        swapped = {"noise": "class_swap", "noise_fraction": 0.5, "noise_intensity": None}
        assert found("cutmix_lp_map", "0.3-0.7", **swapped) == {42: 0.7, 43: 0.8}
        assert found("none") == {42: 0.70, 43: 0.71, 44: 0.72}
        assert found("none", metric="map_micro") == pytest.approx({42: 0.85, 43: 0.855, 44: 0.86})
        assert found("fmix", "0.3-0.7") == {}


def test_scores_of_runs_without_some_columns():
    runs = runs_table(CLEAN).drop(columns=["maps", "noise", "noise_fraction", "noise_intensity"])
    assert comparisons.scores(runs, "cutmix", "0.3-0.7").tolist() == [0.73, 0.74, 0.75]


def test_area_ranges_may_be_lists_or_tuples():
    runs = runs_table(CLEAN)
    runs["area_range"] = [tuple(r) if r else None for r in runs["area_range"]]
    assert comparisons.scores(runs, "cutmix", "0.3-0.7").tolist() == [0.73, 0.74, 0.75]


def test_several_runs_of_a_seed_are_not_chosen_from():
    runs = runs_table(CLEAN, rows("cutmix", LARGE, [0.7], [43], t_cam=0.3)).fillna({"t_cam": 0.1})
    with pytest.raises(ValueError, match=r"cutmix, 0\.3-0\.7.*same seed"):
        comparisons.scores(runs, "cutmix", "0.3-0.7")
    assert comparisons.scores(runs, "cutmix", "0.3-0.7", t_cam=0.3).to_dict() == {43: 0.7}


def test_gains_are_paired_by_seed():
    runs = runs_table(CLEAN, rows("cutmix", SMALL, [0.5, 0.6]), rows("cutmix_lp_map", SMALL, [0.9, 0.8], (44, 43)))
    found = comparisons.gains(runs, "cutmix_lp_map", "cutmix", "0.3-0.7")
    assert found.to_dict() == pytest.approx({42: 0.03, 43: 0.03, 44: 0.03})
    micro = comparisons.gains(runs, "cutmix_lp_map", "cutmix", "0.3-0.7", "map_micro")
    assert micro.tolist() == pytest.approx([0.015] * 3)
    small = comparisons.gains(runs, "cutmix_lp_map", "cutmix", "0.1-0.3")
    assert small.dropna().to_dict() == pytest.approx({43: 0.2})
    assert small.index.tolist() == [42, 43, 44]


@pytest.mark.parametrize("as_in_a_csv", [False, True])
def test_the_lead_and_the_cost_of_noise(as_in_a_csv):
    runs = runs_table(CLEAN, NOISY)
    if as_in_a_csv:
        runs = runs.astype({"noise_intensity": float})
    for kind, level, lead, cost in (
        ("mask_shift", (1.0, 36), [0.01, 0.02, 0.03], [0.02, 0.01, 0]),
        ("class_swap", (0.3, None), [0.01, 0.02, -0.01], [0.06, 0.05, 0.07]),
    ):
        assert comparisons.noise_lead(runs, kind, level).tolist() == pytest.approx(lead)
        assert comparisons.noise_cost(runs, kind, level).tolist() == pytest.approx(cost)
        assert comparisons.noise_lead(runs, kind, level, "map_micro").tolist() == pytest.approx([x / 2 for x in lead])
        assert comparisons.noise_cost(runs, kind, level, "map_micro").tolist() == pytest.approx([x / 2 for x in cost])
    assert comparisons.noise_cost(runs, "mask_shift", (0.25, 36)).isna().all()


def test_noise_levels():
    runs = runs_table(CLEAN, NOISY)
    for table in (runs, runs.astype({"noise_intensity": float})):
        assert comparisons.noise_levels(table, "mask_shift") == [(1.0, 36), (0.5, 36)]
        assert comparisons.noise_levels(table, "class_swap") == [(0.3, None)]
        assert comparisons.noise_levels(table, "segment_swap") == []
    assert comparisons.noise_levels(runs.drop(columns="noise"), "mask_shift") == []


def test_level_text():
    assert comparisons.level_text((0.5, 12.0)) == "f = 50 %, α = 12"
    assert comparisons.level_text((0.3, None)) == "f = 30 %"
    assert comparisons.at_level("mask_shift", (0.5, 12)) == {
        "noise": "mask_shift",
        "noise_fraction": 0.5,
        "noise_intensity": 12,
    }


def test_published_scores_and_gains():
    assert comparisons.published_score("cutmix_lp_map", "0.3-0.7") == 82.30
    assert comparisons.published_score("none") == 78.40
    assert comparisons.published_score("cutmix_lp_map", "0.3-0.7", "label_propagation/table_iii") == 76.72
    assert comparisons.published_score("cutout", "0.3-0.7") is None
    assert comparisons.published_gain("0.3-0.7") == pytest.approx(1.81)
    assert comparisons.published_gain("0.3-0.7", "cutmix_lp_xai") == pytest.approx(1.52)
    assert comparisons.published_gain("0.2-0.5") is None


@pytest.mark.parametrize(
    ("differences", "text"),
    [
        ([0.01, 0.03], "+2.00\u00a0±\u00a01.41"),
        ([-0.01], "−1.00"),
        ([0.01, None], "not run"),
        ([], "not run"),
    ],
)
def test_points(differences, text):
    assert comparisons.points(pd.Series(differences, dtype=float)) == text


def test_how_differences_are_written():
    assert comparisons.signed(-1.234) == "−1.23"
    assert comparisons.signed(float("nan")) == "not run"
    assert comparisons.printed(None) == "not printed"
    assert comparisons.printed(1.5) == "+1.50"
    assert comparisons.dashed("0.3-0.7") == "0.3–0.7"


def test_pairs_have_the_same_seed_and_range_and_nothing_else_is_paired():
    table = runs_table(
        rows("cutmix", LARGE, (0.70, 0.72, 0.74), stop_after=None),
        rows("cutmix", SMALL, (0.80, 0.60), stop_after=None),
        rows("cutmix_lp_map", LARGE, (0.71, 0.75), stop_after=None),  # the third seed has no partner
        rows("cutmix_lp_map", SMALL, (0.79, 0.64), stop_after=None),
        rows("cutmix_lp_map", LARGE, (0.99,), maps="product", stop_after=None),
        rows("cutmix_lp_map", LARGE, (0.99,), noise="mask_shift", stop_after=None),
        rows("none", None, (0.65, 0.66), stop_after=None),
        rows("none", None, (0.10,), stop_after=1.0),
    )
    found = comparisons.pairs(table, "cutmix_lp_map", "cutmix")
    assert sorted(zip(found["map_macro"], found["map_macro_over"], strict=True)) == [
        (0.64, 0.60),
        (0.71, 0.70),
        (0.75, 0.72),
        (0.79, 0.80),
    ]
    assert len(comparisons.pairs(table, "cutmix_lp_map", "none")) == 4  # no augmentation has no range: seeds alone
    shown = comparisons.pairs_table(table, [("cutmix_lp_map", "cutmix")])
    assert shown["mAP"].tolist() == ["macro", "micro"]
    assert shown["ahead"].tolist() == [3, 3]
    assert shown["pairs"].tolist() == [4, 4]
    assert shown["lowest, with"][0] == "64.00"
    assert shown["highest, without"][0] == "80.00"
    assert shown["points"][0].startswith("+1.75")
