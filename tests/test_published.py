"""The published tables against sums that were typed here from the paper's numbers, not from the files."""

import pandas
import pytest

from rsbook import published

RANGES = ["0.1-0.3", "0.1-0.5", "0.1-0.7", "0.3-0.5", "0.3-0.7"]
METHODS = {"none", "cutout", "cutmix", "cutmix_lp_map", "cutmix_lp_xai", "random_resized_crop", "random_rotate"}
BOX_TABLES = {"table_ii": "DeepGlobe-ML", "table_iii": "BigEarthNet-S2", "table_iv": "TreeSatAI"}


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
    assert expected <= set(published.names())


@pytest.mark.parametrize("name", published.names())
def test_every_file_is_tidy(name):
    frame = published.table(name)
    assert len(frame) > 0
    assert not frame.duplicated().any()
    assert frame.columns.is_unique
    assert frame["section"].notna().all()
    assert "page" in frame.columns
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


@pytest.mark.parametrize("typed", ["label_propagation/tableii", "table_ii", "label_propagation/table_ii.csv"])
def test_unknown_name_points_to_the_nearest(typed):
    with pytest.raises(ValueError, match="did you mean 'label_propagation/table_ii'") as error:
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
