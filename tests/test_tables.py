"""Ours beside published, on tables of runs with known answers; the paper's numbers are typed here from its pages."""

import pandas as pd
import pytest
from made_up_runs import BETTER, LARGE, SMALL, WEAK, figure_6_parts, noisy, rows, runs_table

from rsbook import tables

PLAIN = rows("cutmix", SMALL, [0.72, 0.73, 0.74]) + rows("cutmix", LARGE, [0.73, 0.74, 0.75])
REFERENCE = rows("none", None, [0.70, 0.71, 0.72]) + PLAIN
MAPS = rows("cutmix_lp_map", SMALL, [0.73, 0.74, 0.75]) + rows("cutmix_lp_map", LARGE, [0.76, 0.77, 0.78])
MASKS = rows("cutmix_lp_xai", LARGE, [0.75, 0.76, 0.77])
PRODUCT = rows("cutmix_lp_map", LARGE, [0.74, 0.75, 0.76], maps="product")


def spread(mean, sd):
    return f"{mean}\u00a0±\u00a0{sd}"


def by_range(*parts, **options):
    frame = tables.by_area_range(runs_table(*parts), **options)
    return {(row["method"], row["box area"]): row for row in frame.to_dict("records")}


def test_table_i_counts_the_training_split(tiny_scenes):
    table = tables.table_i(tiny_scenes)
    first, deepglobe = table.iloc[0], table.iloc[1]
    train = tiny_scenes.split("train")
    assert first["training scenes"] == f"{len(train):,}"
    assert first["classes a scene"] == round(float(tiny_scenes.labels[train].sum()) / len(train), 2)
    assert first["train / val / test, %"] == "50 / 25 / 25"
    assert first["data set"] == "tiny (ours)"
    assert (first["classes"], first["bands"]) == (3, 3)
    assert len(table) == 4
    assert deepglobe.tolist() == ["DeepGlobe-ML (paper)", "18,185", 6, 1.71, 3, "60 / 20 / 20"]


def test_table_ii_sets_ours_beside_published():
    found = by_range(REFERENCE, MAPS, rows("cutout", LARGE, [0.7, 0.7, 0.7]))
    assert found["CutMix with LP_map", "0.3–0.7"] == {
        "method": "CutMix with LP_map",
        "box area": "0.3–0.7",
        "mAP macro": spread("77.00", "1.00"),
        "mAP micro": spread("88.50", "0.50"),
        "gain over w/o LP": "+3.00",
        "n": 3,
        "paper: macro": "82.30",
        "paper: gain": "+1.81",
        "difference of gains": "+1.19",
    }
    small, baseline = found["CutMix with LP_map", "0.1–0.3"], found["no augmentation", "–"]
    assert (small["gain over w/o LP"], small["paper: macro"], small["paper: gain"]) == ("+1.00", "80.33", "+1.40")
    assert small["difference of gains"] == "−0.40"
    assert baseline["paper: macro"] == "78.40"
    assert pd.isna(baseline["gain over w/o LP"])
    assert pd.isna(baseline["paper: gain"])
    cutout = found["CutOut", "0.3–0.7"]
    assert pd.isna(cutout["paper: macro"])
    assert (cutout["gain over w/o LP"], cutout["paper: gain"]) == ("−4.00", "not printed")
    assert pd.isna(cutout["difference of gains"])


def test_gains_are_paired_by_seed():
    """A seed that only one side has is left out of the gain, though not out of the mean."""
    found = by_range(
        rows("cutmix", LARGE, [0.5, 0.7], seeds=(42, 43)), rows("cutmix_lp_map", LARGE, [0.8, 0.9], (43, 44))
    )
    ours = found["CutMix with LP_map", "0.3–0.7"]
    assert ours["gain over w/o LP"] == "+10.00"
    assert ours["mAP macro"].startswith("85.00")
    assert pd.isna(by_range(MASKS)["CutMix with LP_XAI", "0.3–0.7"]["gain over w/o LP"])


def test_table_iii_tells_the_product_from_the_given_maps():
    found = by_range(REFERENCE, MAPS, MASKS, PRODUCT, table="table_iii", maps="product")
    product = found["CutMix with LP_map, thematic product", "0.3–0.7"]
    assert product["mAP macro"] == spread("75.00", "1.00")
    assert (product["gain over w/o LP"], product["n"]) == ("+1.00", 3)
    assert (product["paper: macro"], product["paper: gain"]) == ("76.72", "+1.33")
    given = found["CutMix with LP_map", "0.3–0.7"]
    assert (given["mAP macro"], given["gain over w/o LP"]) == (spread("77.00", "1.00"), "+3.00")
    masks = found["CutMix with LP_XAI", "0.3–0.7"]
    assert (masks["gain over w/o LP"], masks["paper: macro"], masks["paper: gain"]) == ("+2.00", "78.43", "+3.04")


@pytest.mark.parametrize(
    ("maps", "own", "other"), [("product", ", thematic product", ""), ("given", "", ", thematic product")]
)
def test_the_papers_numbers_stand_only_beside_the_maps_that_they_compare_with(maps, own, other):
    found = by_range(REFERENCE, MAPS, MASKS, PRODUCT, table="table_iii", maps=maps)
    names = "CutMix with LP_map, thematic product", "CutMix with LP_map"
    ours, others = (found[name, "0.3–0.7"] for name in (names if maps == "product" else names[::-1]))
    assert (ours["paper: macro"], ours["paper: gain"]) == ("76.72", "+1.33")
    assert pd.isna(others["paper: macro"])
    assert pd.isna(others["paper: gain"])
    gains = ("+1.00", "+3.00") if maps == "product" else ("+3.00", "+1.00")
    assert (ours["gain over w/o LP"], others["gain over w/o LP"]) == gains
    # Whatever does not read maps is comparable in any case.
    assert found["no augmentation", "–"]["paper: macro"] == "71.46"
    assert found["CutMix w/o LP", "0.3–0.7"]["paper: macro"] == "75.39"
    assert found["CutMix with LP_XAI", "0.3–0.7"]["paper: gain"] == "+3.04"


def test_the_product_has_no_counterpart_in_table_ii():
    found = by_range(REFERENCE, MAPS, PRODUCT)
    assert found["CutMix with LP_map", "0.3–0.7"]["paper: gain"] == "+1.81"
    assert pd.isna(found["CutMix with LP_map, thematic product", "0.3–0.7"]["paper: macro"])


def test_table_iv_has_masks_only():
    masks = by_range(REFERENCE, MASKS, table="table_iv")["CutMix with LP_XAI", "0.3–0.7"]
    assert (masks["paper: macro"], masks["paper: gain"]) == ("68.91", "+4.24")
    maps = by_range(REFERENCE, MAPS, table="table_iv")["CutMix with LP_map", "0.3–0.7"]
    assert pd.isna(maps["paper: macro"])
    assert maps["paper: gain"] == "not printed"


def test_table_v_has_one_area_range_and_both_metrics():
    others = (
        rows("random_resized_crop", None, [0.75]) + rows("cutout", SMALL, [0.9]) + rows("cutout", LARGE, [0.7, 0.7])
    )
    found = tables.table_v(runs_table(REFERENCE, MAPS, others, rows("fmix", LARGE, [0.6]))).set_index("method")
    assert found.loc["CutMix with LP_map"].tolist() == [
        spread("77.00", "1.00"),
        spread("88.50", "0.50"),
        3,
        "82.30",
        "87.25",
    ]
    assert found.loc["RandomResizedCrop"].tolist() == ["75.00", "87.50", 1, "81.41", "86.72"]
    assert found.loc["CutOut"].tolist() == [spread("70.00", "0.00"), spread("85.00", "0.00"), 2, "79.69", "84.93"]
    assert found.loc["CutMix w/o LP", "n"] == 3
    assert found.loc["FMix w/o LP", ["paper: macro", "paper: micro"]].isna().all()
    assert len(found) == 6


SHIFTED = noisy("cutmix_lp_map", [0.75, 0.76, 0.77], "mask_shift", 0.5, 12)
SHIFTED += noisy("cutmix_lp_map", [0.72, 0.73, 0.74], "mask_shift", 1.0, 36)
SWAPPED = noisy("cutmix_lp_map", [0.72, 0.73, 0.74], "class_swap", 0.3) + noisy(
    "cutmix", [0.70, 0.71, 0.72], "class_swap", 0.3
)


def test_figure_4():
    frame = tables.figure_4(runs_table(REFERENCE, MAPS, SHIFTED, SWAPPED), "mask_shift")
    assert frame["noise"].tolist() == ["clean maps", "f = 50 %, α = 12", "f = 100 %, α = 36"]
    assert frame["mAP macro"].tolist() == [spread(mean, "1.00") for mean in ("77.00", "76.00", "73.00")]
    assert frame["mAP micro"].tolist() == [spread(mean, "0.50") for mean in ("88.50", "88.00", "86.50")]
    assert pd.isna(frame["change, macro"][0])
    assert frame["change, macro"].tolist()[1:] == ["−1.00", "−4.00"]
    assert frame["change, micro"].tolist()[1:] == ["−0.50", "−2.00"]
    assert frame["gain over w/o LP, macro"].tolist() == ["+3.00", "+2.00", "−1.00"]
    assert frame["gain over w/o LP, micro"].tolist() == ["+1.50", "+1.00", "−0.50"]
    assert frame["n"].tolist() == [3, 3, 3]


def test_figure_4_compares_class_swap_with_cutmix_of_the_same_noisy_labels():
    clean, swapped = tables.figure_4(runs_table(REFERENCE, MAPS, SWAPPED), "class_swap").to_dict("records")
    assert swapped["noise"] == "f = 30 %"
    assert (swapped["change, macro"], swapped["gain over w/o LP, macro"]) == ("−4.00", "+2.00")
    assert clean["gain over w/o LP, macro"] == "+3.00"


def test_figure_4_without_cutmix_says_so():
    assert tables.figure_4(runs_table(MAPS), "mask_shift")["gain over w/o LP, macro"].tolist() == ["not run"]


def test_figure_4_whole_has_all_kinds_below_each_other():
    runs = runs_table(REFERENCE, MAPS, SHIFTED, SWAPPED)
    frame = tables.figure_4_whole(runs, ["mask_shift", "class_swap"])
    assert frame["noise"].tolist() == [
        "mask_shift, clean maps",
        "mask_shift, f = 50 %, α = 12",
        "mask_shift, f = 100 %, α = 36",
        "class_swap, clean maps",
        "class_swap, f = 30 %",
    ]
    alone = tables.figure_4(runs, "class_swap").drop(columns="noise")
    pd.testing.assert_frame_equal(frame.iloc[3:].drop(columns="noise").reset_index(drop=True), alone)


def test_stage_two_knows_the_stage_one_whose_weights_it_explains():
    first, second, others = figure_6_parts()
    joined = tables.figure_6(first, second, others)
    assert len(joined) == len(others) + len(second)
    masks = joined[joined["method"] == "cutmix_lp_xai"]
    for row in masks.itertuples():
        seen = first[first["weights"] == row.stage_one].iloc[0]
        assert seen["seed"] == row.seed
        assert row.stage_one_map == seen["map_macro"]
        assert row.stage_one_epochs == (0 if pd.isna(seen["stop_after"]) else seen["stop_after"])
    assert masks["stage_one_map"].nunique() == 6
    assert "stage_one_map" not in second


def test_stage_one_runs_that_kept_the_same_weights_have_their_own_epochs():
    """The best epoch of three may be the first; then one network explains the masks of both."""
    same = (BETTER[0], *WEAK[1:])
    first, second, others = figure_6_parts(WEAK, same)
    assert first["weights"].nunique() == 2
    joined = tables.figure_6(first, second, others)
    masks = joined[joined["method"] == "cutmix_lp_xai"]
    assert len(joined) == len(others) + 4
    assert masks["stage_one_epochs"].tolist() == [1, 1, 3, 3]
    assert masks["stage_one_map"].tolist() == [0.30, 0.32, 0.30, 0.32]
    frame = tables.stage_one_table(joined)
    assert frame["stage one"].tolist() == ["1 epoch", "3 epochs"]
    assert frame["n"].tolist() == [2, 2]
    assert frame.iloc[0, 1:].tolist() == frame.iloc[1, 1:].tolist()


def test_stage_two_in_another_order_is_refused():
    first, second, others = figure_6_parts()
    for other in (second[::-1], second[:-1], pd.concat([second, second])):
        with pytest.raises(ValueError, match="one run for each of first, in its order"):
            tables.figure_6(first, other, others)


def test_the_index_of_the_tables_of_figure_6_does_not_matter():
    first, second, others = figure_6_parts()
    shifted = tables.figure_6(first.set_axis(range(7, 13)), second, others.set_axis(range(5, 9)))
    pd.testing.assert_frame_equal(shifted, tables.figure_6(first, second, others))


def test_stage_one_table():
    frame = tables.stage_one_table(tables.figure_6(*figure_6_parts()))
    assert frame["stage one"].tolist() == ["1 epoch", "3 epochs", "whole training"]
    assert frame["its mAP macro"].tolist() == [spread(mean, "1.41") for mean in ("31.00", "51.00", "71.00")]
    assert frame["LP_XAI, mAP macro"].tolist() == [spread(mean, "1.41") for mean in ("70.00", "73.00", "76.00")]
    assert frame["LP_XAI, mAP micro"].tolist() == [spread(mean, "0.71") for mean in ("85.00", "86.50", "88.00")]
    assert frame["gain over no augmentation"].tolist() == ["−1.00", "+2.00", "+5.00"]
    assert frame["gain over w/o LP"].tolist() == ["−2.00", "+1.00", "+4.00"]
    assert frame["n"].tolist() == [2, 2, 2]


def test_rare_classes_come_first_and_one_that_is_nowhere_has_no_score():
    runs = runs_table(
        rows("none", None, [0.7], average_precision=[0.9, 0.3, None]),
        rows("none", None, [0.7], [43], average_precision=[0.9, 0.5, None]),
        rows("cutmix_lp_map_rare", LARGE, [0.7], average_precision=[0.8, 0.6, None]),
    )
    frame = tables.rare_classes(runs, ("common", "rare", "nowhere"), [0.8, 0.123, 0.0])
    assert frame["class"].tolist() == ["nowhere", "rare", "common"]
    assert frame["training scenes, %"].tolist() == pytest.approx([0, 12.3, 80])
    assert frame["no augmentation"].tolist() == ["–", spread("40.0", "14.1"), spread("90.0", "0.0")]
    assert frame["CutMix that looks, LP_map"].tolist() == ["–", "60.0", "80.0"]
