"""The published tables against sums that were typed here from the paper's numbers, not from the files."""

import pandas
import pytest

from rsbook import published

RANGES = ["0.1-0.3", "0.1-0.5", "0.1-0.7", "0.3-0.5", "0.3-0.7"]
METHODS = {"none", "cutout", "cutmix", "cutmix_lp_map", "cutmix_lp_xai", "random_resized_crop", "random_rotate"}
BOX_TABLES = {"table_ii": "DeepGlobe-ML", "table_iii": "BigEarthNet-S2", "table_iv": "TreeSatAI"}

NOISY = ["single_modal", "mid_fusion", "late_fusion", "cromss_mid", "cromss_late"]  # pre-trained with noisy labels
ENCODERS = ["random", "dino", "moco", *NOISY]
PROTOCOLS = ["frozen", "fine_tuned"]

TASKS = [1, 2, 3]
CROP_MODELS = ["lstm", "inception_time", "transformer"]
GAINS = [f"{method}_gain{part}" for method in ["uni", "bi"] for part in ["", "_min", "_max"]]


def read(table: str) -> pandas.DataFrame:
    return published.table(f"label_propagation/{table}")


def by_range(table: str) -> pandas.DataFrame:
    """Rows: methods; columns: area ranges."""
    rows = read(table).dropna(subset="area_range")
    return rows.pivot(index="method", columns="area_range", values="map_macro")


def gaps(table: str, method: str) -> list[float]:
    """What label propagation adds to CutMix, range by range, in points."""
    scores = by_range(table)
    return (scores.loc[method] - scores.loc["cutmix"]).round(2).tolist()


def test_names():
    assert published.names() == sorted(published.names())
    expected = {f"label_propagation/{table}" for table in ["figure_4", "table_i", *BOX_TABLES, "table_v"]}
    expected |= {"cromss/table_1", "cromss/journal", "crops/table_1", "crops/wins", "crops/fields"}
    expected |= {"single_positive/large_loss"}
    expected |= {f"weak_segmentation/table_{i}" for i in (1, 2, 3)}
    assert expected <= set(published.names())


@pytest.mark.parametrize("name", published.names())
def test_every_file_is_tidy(name):
    frame = published.table(name)
    assert len(frame) > 0
    assert not frame.duplicated().any()
    assert frame.columns.is_unique
    assert {"section", "page"} <= set(frame.columns)
    assert frame["section"].notna().all() or name.startswith(
        ("cromss/", "crops/", "single_positive/", "weak_segmentation/")
    )  # not known there
    assert not any(str(column).startswith("Unnamed") for column in frame.columns)


@pytest.mark.parametrize("table", ["figure_4", "table_ii", "table_iii", "table_iv", "table_v"])
def test_methods_have_their_names(table):
    assert set(read(table)["method"]) <= METHODS


def test_table_i():
    frame = read("table_i").set_index("dataset")
    assert frame.index.tolist() == ["DeepGlobe-ML", "BigEarthNet-S2", "TreeSatAI"]
    assert frame["training_images"].sum() == 308_766
    assert frame["classes"].sum() == 40
    assert frame["bands"].sum() == 17
    assert frame["average_labels"].sum() == pytest.approx(6.25)
    assert (frame[["train_percent", "validation_percent", "test_percent"]].sum(axis=1) == 100).all()
    assert frame["train_percent"].tolist() == [60, 50, 80]
    assert set(frame["section"]) == {"IV-A"}


@pytest.mark.parametrize(("table", "dataset"), BOX_TABLES.items())
def test_box_tables_are_complete(table, dataset):
    frame = read(table)
    assert set(frame["dataset"]) == {dataset}
    assert frame["map_macro"].notna().all()
    assert frame.loc[frame["area_range"].isna(), "method"].tolist() == ["none"]
    scores = by_range(table)
    assert scores.columns.tolist() == RANGES
    assert scores.notna().all(axis=None)
    assert frame["map_macro"].between(0, 100).all()


@pytest.mark.parametrize(
    ("table", "sums"),
    [
        ("table_ii", {"none": 78.40, "cutmix": 398.60, "cutmix_lp_map": 406.30, "cutmix_lp_xai": 403.45}),
        ("table_iii", {"none": 71.46, "cutmix": 374.92, "cutmix_lp_map": 382.57, "cutmix_lp_xai": 388.33}),
        ("table_iv", {"none": 53.44, "cutmix": 304.88, "cutmix_lp_xai": 327.71}),
    ],
)
def test_row_sums(table, sums):
    found = read(table).groupby("method")["map_macro"].sum().to_dict()
    assert found == pytest.approx(sums)


@pytest.mark.parametrize(
    ("table", "sums"),
    [
        ("table_ii", [238.80, 239.61, 240.72, 244.42, 244.80]),
        ("table_iii", [229.35, 228.44, 227.95, 229.54, 230.54]),
        ("table_iv", [119.46, 122.29, 124.67, 132.59, 133.58]),
    ],
)
def test_column_sums(table, sums):
    assert by_range(table).sum().tolist() == pytest.approx(sums)


@pytest.mark.parametrize(
    ("table", "method", "expected"),
    [
        ("table_ii", "cutmix_lp_map", [1.40, 1.57, 0.96, 1.96, 1.81]),
        ("table_ii", "cutmix_lp_xai", [0.61, 0.53, 0.48, 1.71, 1.52]),
        ("table_iii", "cutmix_lp_map", [1.30, 1.42, 1.36, 2.24, 1.33]),
        ("table_iii", "cutmix_lp_xai", [1.79, 2.32, 2.52, 3.74, 3.04]),
        ("table_iv", "cutmix_lp_xai", [4.62, 4.73, 4.29, 4.95, 4.24]),
    ],
)
def test_label_propagation_gaps(table, method, expected):
    assert gaps(table, method) == pytest.approx(expected)
    assert min(gaps(table, method)) > 0


def test_masks_against_maps():
    """By how much explanation masks are above maps: products that err (BigEarthNet), reliable ones (DeepGlobe)."""
    noisy, reliable = by_range("table_iii"), by_range("table_ii")
    lead = (noisy.loc["cutmix_lp_xai"] - noisy.loc["cutmix_lp_map"]).round(2).tolist()
    assert lead == pytest.approx([0.49, 0.90, 1.16, 1.50, 1.71])
    lead = (reliable.loc["cutmix_lp_xai"] - reliable.loc["cutmix_lp_map"]).round(2).tolist()
    assert lead == pytest.approx([-0.79, -1.04, -0.48, -0.25, -0.29])


@pytest.mark.parametrize(
    ("method", "macro", "micro"),
    [
        ("none", 3.90, 4.35),
        ("cutout", 2.61, 2.32),
        ("random_resized_crop", 0.89, 0.53),
        ("random_rotate", 3.75, 3.50),
        ("cutmix", 1.81, 3.60),
        ("cutmix_lp_xai", 0.29, 0.37),
    ],
)
def test_the_lead_of_label_propagation_in_table_v(method, macro, micro):
    frame = read("table_v").set_index("method")[["map_macro", "map_micro"]]
    assert (frame.loc["cutmix_lp_map"] - frame.loc[method]).tolist() == pytest.approx([macro, micro])


def test_published_claims():
    for table in ["table_ii", "table_iv"]:
        assert set(by_range(table).idxmax(axis=1)) == {"0.3-0.7"}, table
    # Explanation masks beat the noisy thematic product, but not the reliable maps.
    noisy, reliable = by_range("table_iii"), by_range("table_ii")
    assert (noisy.loc["cutmix_lp_xai"] > noisy.loc["cutmix_lp_map"]).all()
    assert (reliable.loc["cutmix_lp_xai"] < reliable.loc["cutmix_lp_map"]).all()
    for table in BOX_TABLES:
        frame = read(table)
        baseline = frame.loc[frame["method"] == "none", "map_macro"].item()
        assert (frame.loc[frame["method"] != "none", "map_macro"] > baseline).all()


def test_table_v():
    frame = read("table_v").set_index("method")
    assert frame["map_macro"].sum() == pytest.approx(562.85)
    assert frame["map_micro"].sum() == pytest.approx(596.08)
    row_sums = {
        "none": 161.30,
        "cutout": 164.62,
        "random_resized_crop": 168.13,
        "random_rotate": 162.30,
        "cutmix": 164.14,
        "cutmix_lp_map": 169.55,
        "cutmix_lp_xai": 168.89,
    }
    assert (frame["map_macro"] + frame["map_micro"]).to_dict() == pytest.approx(row_sums)
    assert frame["map_macro"].idxmax() == frame["map_micro"].idxmax() == "cutmix_lp_map"
    # Table V repeats Table II: the baseline, and the range 0.3-0.7 of the CutMix rows.
    best = by_range("table_ii")["0.3-0.7"]
    assert frame.loc[best.index, "map_macro"].to_dict() == pytest.approx(best.to_dict())
    baseline = read("table_ii").query("method == 'none'")["map_macro"].item()
    assert frame.loc["none", "map_macro"] == baseline


def test_figure_4():
    frame = read("figure_4")
    kinds = ["mask_shift", "dilation_erosion", "rectify_borders", "border_deformation", "segment_swap", "class_swap"]
    assert frame["noise"].unique().tolist() == kinds
    assert frame["effect"].notna().all()
    assert frame["value"].sum() == pytest.approx(85.45)
    assert (frame["value"].notna() == frame["relation"].notna()).all()
    assert (frame["value"].notna() == frame["quantity"].notna()).all()
    worst = frame.query("noise == 'dilation_erosion'")["value"].item()
    clean, without = by_range("table_ii").loc[["cutmix_lp_map", "cutmix"], "0.3-0.7"]
    assert without < worst < clean


def transfer(table: str = "table_1", metric: str = "miou", **where: str) -> pandas.Series:
    """The metric by input, protocol and encoder; where: other columns and what they must hold."""
    frame = published.table(f"cromss/{table}")
    for column, value in where.items():
        frame = frame[frame[column].isna() if value == "" else frame[column] == value]
    return frame.set_index(["input", "protocol", "encoder"])[metric].sort_index()


def test_cromss_tables_are_complete():
    cells = [
        (sensor, protocol, encoder)
        for sensor in ["S1", "S2"]
        for protocol in PROTOCOLS
        for encoder in ENCODERS
        if (sensor, encoder) != ("S1", "dino")
    ]
    frame = published.table("cromss/table_1")
    assert frame[["input", "protocol", "encoder"]].apply(tuple, axis=1).tolist() == cells
    assert set(frame["dataset"]) == {"DFC2020"}
    scores = frame[["oa", "oa_sd", "aa", "aa_sd", "miou", "miou_sd"]]
    assert scores.notna().all(axis=None)
    assert (frame["oa"] > frame["aa"]).all()
    assert (frame["aa"] > frame["miou"]).all()
    assert frame[["oa_sd", "aa_sd", "miou_sd"]].max(axis=None) == 1.33


@pytest.mark.parametrize(
    ("sensor", "protocol", "sums"),
    [
        ("S1", "frozen", [424.43, 2.95, 316.49, 2.59, 236.15, 1.64]),
        ("S1", "fine_tuned", [420.70, 3.71, 319.12, 4.12, 231.84, 2.69]),
        ("S2", "frozen", [523.14, 4.81, 415.70, 3.46, 314.98, 2.42]),
        ("S2", "fine_tuned", [525.42, 4.87, 412.42, 5.10, 314.49, 3.44]),
    ],
)
def test_cromss_column_sums(sensor, protocol, sums):
    rows = published.table("cromss/table_1").query("input == @sensor and protocol == @protocol")
    found = rows[["oa", "oa_sd", "aa", "aa_sd", "miou", "miou_sd"]].sum()
    assert found.tolist() == pytest.approx(sums)


@pytest.mark.parametrize(
    ("sensor", "protocol", "sums"),
    [
        ("S1", "frozen", [124.25, 142.59, 142.63, 141.73, 141.01, 141.11, 143.75]),
        ("S1", "fine_tuned", [123.18, 137.09, 140.98, 140.54, 144.20, 144.68, 140.99]),
        ("S2", "frozen", [133.04, 151.46, 151.92, 160.78, 163.11, 163.28, 168.27, 161.96]),
        ("S2", "fine_tuned", [138.27, 150.51, 143.34, 161.31, 161.84, 163.91, 166.64, 166.51]),
    ],
)
def test_cromss_row_sums(sensor, protocol, sums):
    """OA, AA and mIoU of each encoder together."""
    rows = published.table("cromss/table_1").query("input == @sensor and protocol == @protocol")
    assert rows[["oa", "aa", "miou"]].sum(axis=1).tolist() == pytest.approx(sums)


@pytest.mark.parametrize(
    ("sensor", "protocol", "mid", "late"),
    [
        ("S1", "frozen", -0.26, 0.65),
        ("S1", "fine_tuned", 1.31, -0.64),
        ("S2", "frozen", 1.37, -0.47),
        ("S2", "fine_tuned", 1.41, 0.79),
    ],
)
def test_what_selection_adds_to_fusion(sensor, protocol, mid, late):
    miou = transfer()[sensor, protocol]
    assert miou["cromss_mid"] - miou["mid_fusion"] == pytest.approx(mid)
    assert miou["cromss_late"] - miou["late_fusion"] == pytest.approx(late)


@pytest.mark.parametrize(("protocol", "mid", "late"), [("frozen", 0.64, 0.71), ("fine_tuned", 0.11, 0.70)])
def test_what_fusion_adds_to_single_modalities(protocol, mid, late):
    miou = transfer()["S2", protocol]
    assert miou["mid_fusion"] - miou["single_modal"] == pytest.approx(mid)
    assert miou["late_fusion"] - miou["single_modal"] == pytest.approx(late)


@pytest.mark.parametrize(
    ("sensor", "protocol", "least", "most"),
    [
        ("S1", "frozen", 4.99, 5.64),
        ("S1", "fine_tuned", 5.50, 6.81),
        ("S2", "frozen", 9.38, 11.39),
        ("S2", "fine_tuned", 7.50, 9.02),
    ],
)
def test_what_noisy_labels_add_to_a_random_encoder(sensor, protocol, least, most):
    miou = transfer()[sensor, protocol]
    gains = miou[NOISY] - miou["random"]
    assert [gains.min(), gains.max()] == pytest.approx([least, most])


def test_noisy_labels_against_self_supervision():
    """On S2 every noisy-label encoder is above MoCo and DINO in every score; on S1 not."""
    for metric in ["oa", "aa", "miou"]:
        for protocol in PROTOCOLS:
            scores = transfer(metric=metric)["S2", protocol]
            assert scores[NOISY].min() > scores[["moco", "dino"]].max()
    s1 = transfer()["S1", "frozen"]
    assert s1["late_fusion"] < s1["moco"]


@pytest.mark.parametrize(
    ("sensor", "protocol", "sums"),
    [
        ("S1", "frozen", [297.25, 225.34, 165.47, 215.99]),
        ("S1", "fine_tuned", [290.88, 223.74, 158.14, 208.34]),
        ("S2", "frozen", [456.42, 362.97, 272.38, 354.06]),
        ("S2", "fine_tuned", [460.28, 363.88, 274.22, 355.59]),
    ],
)
def test_cromss_journal_column_sums(sensor, protocol, sums):
    rows = published.table("cromss/journal").query("input == @sensor and protocol == @protocol")
    assert rows[["oa", "aa", "miou", "f1"]].sum().tolist() == pytest.approx(sums)


@pytest.mark.parametrize(
    ("sensor", "bands", "encoder", "frozen", "fine_tuned"),
    [
        ("S1", "", "random", 162.24, 159.52),
        ("S1", "", "moco", 186.79, 178.86),
        ("S1", "", "decur", 185.23, 174.75),
        ("S1", "", "cromss_mid", 185.00, 184.04),
        ("S1", "", "cromss_late", 184.79, 183.93),
        ("S2", "13B", "random", 173.89, 182.49),
        ("S2", "", "dino", 199.60, 199.54),
        ("S2", "", "moco", 201.35, 189.44),
        ("S2", "13B", "cromss_mid", 220.81, 223.64),
        ("S2", "13B", "cromss_late", 215.21, 217.18),
        ("S2", "9B", "cromss_mid", 214.71, 222.26),
        ("S2", "9B", "cromss_late", 220.26, 219.42),
    ],
)
def test_cromss_journal_row_sums(sensor, bands, encoder, frozen, fine_tuned):
    """OA, AA, mIoU and F1 of an encoder together."""
    sums = sum(transfer("journal", metric, bands=bands)[sensor] for metric in ["oa", "aa", "miou", "f1"])
    assert [sums[protocol, encoder] for protocol in PROTOCOLS] == pytest.approx([frozen, fine_tuned])


def test_cromss_journal_is_complete():
    frame = published.table("cromss/journal")
    assert len(frame) == 2 * (5 + 7)
    assert set(frame["encoder"]) - set(ENCODERS) == {"decur"}
    assert set(frame["protocol"]) == set(PROTOCOLS)
    assert frame[["oa", "aa", "miou", "f1"]].notna().all(axis=None)


def crops() -> pandas.DataFrame:
    """Scores and gains by task and model."""
    return published.table("crops/table_1").set_index(["task", "model"])


def test_crop_tables_are_complete():
    cells = [(task, model) for task in TASKS for model in CROP_MODELS]
    frame = crops()
    assert frame.index.tolist() == cells
    assert frame[["supervised", "supervised_sd", *GAINS]].notna().all(axis=None)
    wins = published.table("crops/wins")
    expected = [(*cell, "bi_modal", other) for cell in cells for other in ["supervised", "uni_modal"]]
    assert wins[["task", "model", "a", "b"]].apply(tuple, axis=1).tolist() == expected
    assert set(wins["of"]) == {20}
    assert wins["wins"].between(0, 20).all()


@pytest.mark.parametrize(
    ("task", "supervised", "gains"),
    [
        (1, [163.93, 11.72], [-9.33, -49.94, 12.76, 21.45, -10.98, 45.84]),
        (2, [160.57, 12.42], [-10.52, -31.58, 14.48, 7.14, -7.69, 30.62]),
        (3, [69.26, 13.03], [-3.89, -33.80, 15.98, 5.15, -8.76, 19.50]),
    ],
)
def test_crop_column_sums(task, supervised, gains):
    sums = crops().loc[task].sum(numeric_only=True)
    assert sums[["supervised", "supervised_sd"]].tolist() == pytest.approx(supervised)
    assert sums[GAINS].tolist() == pytest.approx(gains)


@pytest.mark.parametrize(
    ("task", "sums"), [(1, [58.02, 28.07, 99.36]), (2, [92.06, 13.87, 69.51]), (3, [51.98, 7.36, 17.13])]
)
def test_crop_row_sums(task, sums):
    """All eight numbers of a cell together, model by model."""
    rows = crops().loc[task, ["supervised", "supervised_sd", *GAINS]]
    assert rows.sum(axis=1).tolist() == pytest.approx(sums)


@pytest.mark.parametrize(
    ("task", "leads"), [(1, [6.01, 19.35, 5.42]), (2, [5.73, 7.55, 4.38]), (3, [1.77, 3.62, 3.65])]
)
def test_what_the_second_sensor_adds(task, leads):
    """By how much bi-modal pre-training is above uni-modal, model by model."""
    rows = crops().loc[task]
    assert (rows["bi_gain"] - rows["uni_gain"]).tolist() == pytest.approx(leads)


def test_the_one_cell_where_bi_modal_pre_training_is_below_the_baseline():
    gains = crops()["bi_gain"]
    assert gains[gains < 0].to_dict() == {(2, "transformer"): -0.25}
    assert gains[gains > 0].min() == gains[3, "inception_time"] == 0.42


@pytest.mark.parametrize(
    ("task", "over_supervised", "over_uni_modal"),
    [(1, [17, 19, 20], [19, 20, 20]), (2, [20, 17, 10], [17, 20, 19]), (3, [20, 9, 18], [20, 15, 19])],
)
def test_crop_wins(task, over_supervised, over_uni_modal):
    rows = published.table("crops/wins").query("task == @task").set_index("b")["wins"]
    assert rows["supervised"].tolist() == over_supervised
    assert rows["uni_modal"].tolist() == over_uni_modal


def test_wins_and_gains_agree():
    """A method that wins every pair has no gain below zero, and one that does not has."""
    frame, wins = crops(), published.table("crops/wins")
    over_supervised = wins[wins["b"] == "supervised"].set_index(["task", "model"])["wins"]
    assert (over_supervised.sum(), wins["wins"].sum()) == (150, 319)
    assert ((over_supervised == 20) == (frame["bi_gain_min"] > 0)).all()
    for method in ["uni", "bi"]:
        assert (frame[f"{method}_gain_min"] < frame[f"{method}_gain"]).all()
        assert (frame[f"{method}_gain"] < frame[f"{method}_gain_max"]).all()


def test_relative_gain_is_neither_clearly_points_nor_percent():
    frame = crops()
    lowest = frame["supervised"] + frame["uni_gain_min"]
    assert lowest[1, "inception_time"] == pytest.approx(11.04)  # chance with nine classes: points
    assert lowest[3, "inception_time"] == pytest.approx(-7.44)  # below zero: not points


def test_crop_fields():
    frame = published.table("crops/fields")
    values = frame[frame["crop"].isna()].set_index(["subject", "quantity"])["value"]
    fields = frame.dropna(subset="crop")
    assert fields["value"].tolist() == [305, 276, 137, 45, 251, 201, 23, 954, 339]
    assert fields["value"].sum() == 2_531
    assert (fields["subject"] + fields["quantity"]).unique().tolist() == ["denethor_2018fields"]
    assert values["denethor_2018", "fields"] + values["denethor_2019", "fields"] == 4_598
    assert values["denethor_2018", "dates"] * values["pretraining", "pixels_per_date"] == 14_400_000
    assert values["pretraining", "pairs"] == 14_400_000
    of_2018 = [("pretraining", "fields_percent"), *(("task_1", f"{s}_fields_percent") for s in ["train", "validation"])]
    assert values[of_2018].tolist() == [70, 21, 9]
    classes, train, validation = (
        [values[f"task_{task}", quantity] for task in TASKS]
        for quantity in ["classes", "train_pixels_per_class", "validation_pixels_per_class"]
    )
    assert (classes, train, validation) == ([9, 9, 6], [5_000, 5_000, 9_000], [1_000, 1_000, 1_000])


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("label_propagation/tableii", "label_propagation/table_ii"),
        ("label_propagation/table_ii.csv", "label_propagation/table_ii"),
        ("figure_4", "label_propagation/figure_4"),
        ("table_ii", "label_propagation/table_ii"),
        ("journl", "cromss/journal"),
        ("cromss/tabel_1", "cromss/table_1"),
        ("crops/win", "crops/wins"),
    ],
)
def test_unknown_name_points_to_the_nearest(typed, nearest):
    with pytest.raises(ValueError, match=f"did you mean '{nearest}'") as error:
        published.table(typed)
    assert repr(typed) in str(error.value)
    for name in published.names():
        assert name in str(error.value)


@pytest.mark.parametrize("typed", ["", ".", "label_propagation", "label_propagation/", "label_propagation//table_ii"])
def test_incomplete_names_are_unknown(typed):
    with pytest.raises(ValueError, match="there is no published table"):
        published.table(typed)


@pytest.mark.parametrize(
    "typed",
    [
        "../README",
        "label_propagation/../label_propagation/table_ii",
        "..",
        "/etc/passwd",
        str(published.FOLDER / "label_propagation" / "table_ii"),
        "label_propagation\\table_ii",
        "..\\secrets",
        "C:/table_ii",
        "label_propagation/table_ii\0",
    ],
)
def test_names_cannot_leave_the_folder(typed):
    with pytest.raises(ValueError, match="without a path"):
        published.table(typed)


def test_each_call_returns_its_own_frame():
    first = read("table_ii")
    first["map_macro"] = 0.0
    assert read("table_ii")["map_macro"].min() > 0


def test_large_loss_table_is_whole_and_in_the_order_of_its_text():
    frame = published.table("single_positive/large_loss")
    assert set(frame["method"]) == {"full", "an", "an_ls", "wan", "epr", "role", "ll_r", "ll_ct", "ll_cp"}
    scores = frame.pivot(index="method", columns=["training", "dataset"], values="map_macro")
    assert scores.shape == (9, 8)
    assert scores.notna().all(axis=None)
    assert scores.loc["full"].sum() == pytest.approx(90.2 + 78.0 + 54.5 + 32.9 + 91.1 + 77.2 + 54.9 + 34.0)
    assert scores.sum(axis=1).sub(scores.loc["an"].sum()).loc[["ll_r", "ll_ct", "ll_cp"]].round(1).tolist() == [
        24.6,
        25.8,
        23.2,
    ]
    assert (scores.loc["full"] > scores.drop("full")).all(axis=None)


def test_the_tables_of_the_weak_segmentation_report():
    first = published.table("weak_segmentation/table_1").pivot(index="method", columns="maps", values="miou")
    assert first.shape == (6, 2)
    assert first["cam"].sum() == pytest.approx(45.0 + 46.5 + 46.4 + 46.8 + 46.8 + 48.2)
    assert first["walk"].sum() == pytest.approx(55.6 + 56.7 + 55.2 + 55.8 + 56.6 + 58.4)
    assert first.idxmax().tolist() == ["fmix", "fmix"]
    second = published.table("weak_segmentation/table_2").set_index("method")["miou"]
    assert set(second.index) == set(first.index)
    assert second.idxmax() == "mixup"  # the order of Table 1 does not survive
    assert second.sum() == pytest.approx(52.7 + 54.3 + 53.0 + 55.1 + 53.5 + 54.0)
    third = published.table("weak_segmentation/table_3")
    assert third["miou"].tolist() == [61.7, 66.1, 65.6, 61.2]
    assert (third["source"] == "quoted").sum() == 3
