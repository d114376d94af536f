"""Tables and claims of Part V, against slow calculation on made-up runs."""

import random
import statistics
import warnings

import pandas as pd
import pytest
from test_mask_findings import silent, spread

from rsbook import published, weak_claims, weak_drawings, weak_tasks, weak_uses
from rsbook import weak_findings as findings
from rsbook.widgets import ResultsExplorer

SEEDS = (42, 43, 44)
CLASSES = ("one", "two", "three")
NAMES = tuple(findings.METHOD_NAMES)
VERDICTS = ("holds", "fails", "open")
SCORES = ("miou", "miou_single", "miou_before", "map_macro", "map_micro", "confident", "confident_right", "oa", "aa")
CAM = {"cam": 45.0, "sce": 46.5, "sct": 46.4, "mixup": 46.8, "manifold": 46.8, "fmix": 48.2}  # Table 1 of the report
WALK = {"cam": 55.6, "sce": 56.7, "sct": 55.2, "mixup": 55.8, "manifold": 56.6, "fmix": 58.4}
NETWORK = {"cam": 52.7, "sce": 54.3, "sct": 53.0, "mixup": 55.1, "manifold": 53.5, "fmix": 54.0}


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def anything(names=NAMES, seeds=SEEDS, luck=1, **more):
    """Runs of methods in an order of their own, with all that any run of Part V returns; no score says anything
    about another.
    """
    luck = random.Random(luck)
    rows = [
        {"method": name, "seed": seed, "dataset": "tiny", "epochs": 2, "stage_one": None, "weights": f"{name}-{seed}"}
        | {score: luck.random() for score in SCORES}
        | {"iou": [luck.random(), luck.random(), None], "history": [{"epoch": 1}], "record": f"{name}_{seed}.json"}
        | more
        for name in names
        for seed in seeds
    ]
    luck.shuffle(rows)
    return pd.DataFrame(rows)


def made_up(offsets, metric="miou", seeds=SEEDS, **more):
    """Runs that score 0.5, a hundredth more with each seed, and what `offsets` adds for each method, a number or one a
    seed; all other scores are 0.5.
    """
    rows = [
        dict.fromkeys(SCORES, 0.5) | {"method": name, "seed": seed, "iou": [0.5] * 3, metric: 0.5 + 0.01 * k} | more
        for name in offsets
        for k, seed in enumerate(seeds)
    ]
    for row in rows:
        one = offsets[row["method"]]
        row[metric] += one[seeds.index(row["seed"])] if isinstance(one, list) else one
    return pd.DataFrame(rows)


def of(runs, name, seed, metric="miou", **where):
    [found] = [
        row[metric]
        for row in runs.to_dict("records")
        if row["seed"] == seed
        and (row["method"] == name or (name is None and pd.isna(row["method"])))
        and all(row[key] == value for key, value in where.items())
    ]
    return found


def gap(values):
    """Differences in points, as pages print them."""
    text = f"{100 * statistics.mean(values):+.2f}".replace("-", "−")
    return text + (f"\u00a0±\u00a0{100 * statistics.stdev(values):.2f}" if len(values) > 1 else "")


def one_digit(value):
    return f"{value:+.1f}".replace("-", "−")


def two_digits(value):
    return f"{value:+.2f}".replace("-", "−")


def outcomes(yes, no):
    """What to put in for each verdict: all seeds say yes, none does, one does not."""
    return list(zip(VERDICTS, ([yes] * 3, [no] * 3, [yes, no, yes]), strict=True))


def row_of(frame, number):
    return frame.set_index("number").loc[number]


# Methods


def test_every_method_of_the_study_has_a_name_and_the_report_prints_it():
    assert set(NAMES) == set(weak_tasks.METHODS)
    assert set(findings.SOURCE_NAMES) == set(weak_uses.SOURCES)
    for name, theirs in ((findings.FIRST, CAM), (findings.SECOND, NETWORK)):
        assert set(published.table(name)["method"]) == set(theirs)


@pytest.mark.parametrize("metric", ["miou", "map_macro"])
def test_scores_by_method_are_in_the_books_order(metric):
    runs = anything()
    found = findings.by_method(runs, metric)
    assert found.columns.tolist() == list(NAMES)
    assert found.index.tolist() == list(SEEDS)
    assert all(found.loc[seed, name] == of(runs, name, seed, metric) for seed in SEEDS for name in NAMES)
    assert findings.by_method(anything(["fmix", "cam"])).columns.tolist() == ["cam", "fmix"]


def test_a_teacher_without_maps_and_runs_without_a_method_are_left_out():
    teacher = [{"method": "vit", "seed": 42, "map_macro": 0.9}]
    runs = pd.concat([anything(["cam"]), pd.DataFrame(teacher), anything([None], source="reference")])
    assert findings.by_method(runs).columns.tolist() == ["cam"]
    assert findings.first_maps(runs)["n"].tolist() == [3]
    assert set(findings.explorable(runs)["method"]) == {"CAM", "upper bound"}


def test_two_runs_of_a_method_with_the_same_seed_are_refused():
    with pytest.raises(ValueError, match="duplicate"):
        findings.by_method(pd.concat([anything(["cam"])] * 2))


def test_runs_have_the_method_whose_weights_they_began_from():
    classified = anything(["cam", "fmix"])
    begun = ["fmix-43", None, "cam-42", float("nan")]
    found = findings.with_method(pd.DataFrame({"stage_one": begun, "miou": range(4)}), classified)
    assert [None if pd.isna(name) else name for name in found["method"]] == ["fmix", None, "cam", None]
    assert found["miou"].tolist() == [0, 1, 2, 3]
    assert found["miou_before"].tolist()[::2] == [of(classified, "fmix", 43), of(classified, "cam", 42)]
    assert found["miou_before"].isna().tolist() == [False, True, False, True]
    alone = findings.with_method(pd.DataFrame({"seed": [42]}), classified)
    assert alone["method"].isna().tolist() == [True]
    with pytest.raises(ValueError, match="stage_one='other': not among"):
        findings.with_method(pd.DataFrame({"stage_one": ["cam-42", "other"]}), classified)


# Table 1


@pytest.mark.parametrize(
    ("names", "seeds"), [(NAMES, SEEDS), (("cam", "fmix"), SEEDS), (NAMES, (42,)), (("fmix",), SEEDS)]
)
def test_every_cell_of_the_table_of_first_maps(names, seeds):
    runs = anything(names, seeds)
    expected = []
    for name in names:
        leads = [of(runs, name, s) - of(runs, "cam", s) for s in seeds] if "cam" in names else None
        expected.append(
            {
                "method": findings.METHOD_NAMES[name],
                "one scale": spread([of(runs, name, seed, "miou_single") for seed in seeds], 1),
                "all scales": spread([of(runs, name, seed) for seed in seeds], 1),
                "over CAM": "–" if name == "cam" else "not run" if leads is None else gap(leads),
                "paper": f"{CAM[name]:.1f}",
                "paper: over CAM": "–" if name == "cam" else one_digit(CAM[name] - 45.0),
                "mAP of labels": spread([of(runs, name, seed, "map_macro") for seed in seeds], 1),
                "n": len(seeds),
            }
        )
    table = findings.first_maps(runs)
    assert table.to_dict("records") == expected
    assert silent(table)
    assert all(table.columns)


def test_a_seed_that_is_missing_takes_the_spread_along():
    runs = anything(["cam", "fmix"], (42, 43))
    runs = runs[~((runs["method"] == "fmix") & (runs["seed"] == 43))]
    fmix = findings.first_maps(runs).set_index("method").loc["FMix-CAM"]
    assert fmix[["all scales", "over CAM", "n"]].tolist() == [spread([of(runs, "fmix", 42)], 1), "not run", 1]


@pytest.mark.parametrize("right", [[0.5, 0.25, 0.75], [0.5, None, 0.75], [None] * 3])
def test_every_cell_of_the_table_of_walked_maps(right):
    runs = anything(["fmix", "sct"])
    for seed, value in zip(SEEDS, right, strict=True):
        runs.loc[(runs["method"] == "sct") & (runs["seed"] == seed), "confident_right"] = value
    known = [value for value in right if value is not None]
    table = findings.refined_maps(runs)
    rights = {"sct": known, "fmix": [of(runs, "fmix", seed, "confident_right") for seed in SEEDS]}
    assert table.to_dict("records") == [
        {
            "method": findings.METHOD_NAMES[name],
            "before": spread([of(runs, name, seed, "miou_before") for seed in SEEDS], 1),
            "walked": spread([of(runs, name, seed) for seed in SEEDS], 1),
            "gain": gap([of(runs, name, s) - of(runs, name, s, "miou_before") for s in SEEDS]),
            "paper: walked": f"{WALK[name]:.1f}",
            "paper: gain": one_digit(WALK[name] - CAM[name]),
            "confident": spread([of(runs, name, seed, "confident") for seed in SEEDS], 1),
            "of these right": spread(rights[name], 1),
            "n": 3,
        }
        for name in ("sct", "fmix")
    ]
    assert silent(table)


def test_iou_of_each_class_and_none_where_no_scene_holds_it():
    runs = anything(["fmix", "cam"])
    table = findings.class_table(runs, CLASSES)
    assert table.columns.tolist() == ["class", "CAM", "FMix-CAM"]
    for c, row in enumerate(table.to_dict("records")):
        for name in ("cam", "fmix"):
            expected = spread([of(runs, name, seed, "iou")[c] for seed in SEEDS], 1) if c < 2 else "–"
            assert row[findings.METHOD_NAMES[name]] == expected
    assert silent(table)


# Claims of Table 1

FIRST = dict.fromkeys(NAMES, 0.01) | {"cam": 0.0, "fmix": 0.03, "sce": 0.02}


# Table 2


def networks(walk, cam=(("cam", 0.0),), truth=0.2, seeds=SEEDS):
    """Runs of `weak_uses.segment`: offsets of methods by source, and that of reference maps."""
    frames = [made_up(dict(walk), seeds=seeds, source="walk"), made_up(dict(cam), seeds=seeds, source="cam")]
    if truth is not None:
        frames.append(made_up({"truth": truth}, seeds=seeds, source="reference").assign(method=None))
    return pd.concat(frames, ignore_index=True)


NETWORKS = {"cam": 0.02, "mixup": 0.05, "fmix": 0.04}


def test_every_cell_of_the_table_of_networks():
    parts = [anything(["fmix", "cam"], luck=1, source="walk"), anything(["cam"], luck=2, source="cam")]
    runs = pd.concat([anything([None], luck=3, source="reference"), *parts])
    rows = [("cam", "cam", "–"), ("cam", "walk", "52.7"), ("fmix", "walk", "54.0"), (None, "reference", "–")]
    table = findings.segmented(runs)
    assert table.to_dict("records") == [
        {
            "method": findings.METHOD_NAMES.get(name, "upper bound"),
            "trained on": findings.SOURCE_NAMES[source],
            "mIoU": spread([of(runs, name, seed, source=source) for seed in SEEDS]),
            "overall accuracy": spread([of(runs, name, seed, "oa", source=source) for seed in SEEDS]),
            "paper": paper,
            "n": 3,
        }
        for name, source, paper in rows
    ]
    assert silent(table)


@pytest.mark.parametrize("source", ["walk", "cam", "reference"])
def test_networks_of_one_source_alone(source):
    runs = networks(NETWORKS)
    runs = runs[runs["source"] == source]
    found = weak_claims.segmentation_claims(runs, "quick").set_index("number")
    assert (found.loc["network_cam", "verdict"] == "holds") == (source == "walk")
    assert set(found.loc[["network_walk", "network_truth"], "verdict"]) == {"open"}
    assert silent(found.reset_index())
    assert len(findings.segmented(runs)) == {"walk": 3, "cam": 1, "reference": 1}[source]


# Table 3


def more_data(fewer, every, seeds=SEEDS):
    frames = [
        made_up(offsets, seeds=seeds, source="walk", scenes=label, n_scenes=count)
        for label, count, offsets in (("all", 1200, every), ("fewer", 150, fewer))
        if offsets
    ]
    return pd.concat(frames, ignore_index=True)


def test_every_cell_of_the_table_on_more_scenes():
    """What the report quotes stands alone: in no row with a score of ours, and in no column of the report's own."""
    runs = more_data({"fmix": 0.0, "cam": 0.01}, {"fmix": [0.03, 0.02, 0.04]})
    table = findings.more_data_table(runs)
    quoted = [("AffinityNet", "61.7"), ("Sub-category Exploration", "66.1"), ("Mixup-CAM", "65.6")]
    head = ["method", "scenes", "mIoU", "over fewer", "paper", "paper: images", "quoted there", "n"]
    assert table.columns.tolist() == head
    rows = [
        ["CAM", "fewer (150)", spread([0.51, 0.52, 0.53]), "–", "52.7", "1,464", "–", "3"],
        ["FMix-CAM", "fewer (150)", spread([0.5, 0.51, 0.52]), "–", "54.0", "1,464", "–", "3"],
        ["FMix-CAM", "all (1,200)", spread([0.53, 0.53, 0.56]), gap([0.03, 0.02, 0.04]), "61.2", "10,582", "–", "3"],
        *([f"{name}, by its authors", "–", "–", "–", "–", "10,582", miou, "–"] for name, miou in quoted),
    ]
    assert table.to_numpy().tolist() == rows
    assert silent(table)
    assert findings.more_data_table(runs[:0])["quoted there"].tolist() == ["61.7", "66.1", "65.6"]


# Label propagation


def propagated(scores, ious, none=0.0, reference=0.1, seeds=SEEDS):
    """Runs of `weak_uses.propagate`: offsets of mAP macro and of the IoU of masks by method."""
    masks = made_up(scores, "map_macro", seeds, maps="masks")
    masks["mask_iou"] = made_up(ious, "mask_iou", seeds)["mask_iou"]
    others = [
        made_up({"none": offset}, "map_macro", seeds, maps=maps).assign(method=None, mask_iou=None)
        for maps, offset in (("none", none), ("reference", reference))
        if offset is not None
    ]
    return pd.concat([masks.astype({"mask_iou": float}), *others], ignore_index=True)


PROPAGATED = {"cam": 0.01, "mixup": 0.03, "fmix": 0.02}
IOUS = {"cam": 0.0, "mixup": 0.01, "fmix": 0.02}


def test_every_cell_of_the_table_on_label_propagation():
    luck = random.Random(3)
    draws = {name: [luck.random() for _ in SEEDS] for name in ("fmix", "cam")}
    ious = {name: [luck.random() / 9 for _ in SEEDS] for name in ("fmix", "cam")}
    runs = propagated(draws, ious, none=[0.1, 0.3, 0.2], reference=[0.4, 0.2, 0.5])
    plain = [of(runs, None, seed, "map_macro", maps="none") for seed in SEEDS]
    kinds = [("none", None, "labels by area"), ("masks", "cam", "masks of CAM"), ("masks", "fmix", "masks of FMix-CAM")]
    expected = []
    for maps, name, words in [*kinds, ("reference", None, "reference maps")]:
        scores = [of(runs, name, seed, "map_macro", maps=maps) for seed in SEEDS]
        expected.append(
            {
                "labels from": words,
                "mAP": spread(scores),
                "over labels by area": "–"
                if maps == "none"
                else gap([a - b for a, b in zip(scores, plain, strict=True)]),
                "IoU of the masks": spread([of(runs, name, s, "mask_iou") for s in SEEDS]) if maps == "masks" else "–",
                "n": 3,
            }
        )
    table = findings.position_table(runs[::-1])
    assert table.to_dict("records") == expected
    assert silent(table)


@pytest.mark.parametrize("missing", ["masks", "none", "reference", "fmix", "cam", "everything"])
def test_label_propagation_without_some_of_its_runs(missing):
    runs = propagated(PROPAGATED, IOUS)
    runs = runs[(runs["maps"] != missing) & (runs["method"] != missing)][: 0 if missing == "everything" else None]
    found = weak_claims.position_claims(runs, "quick").set_index("number")
    gone = {
        "masks": list(found.index),
        "none": ["propagated_area"],
        "reference": ["propagated_truth"],
        "fmix": ["masks_fmix", "propagated_fmix"],
        "cam": ["masks_fmix", "propagated_fmix"],
        "everything": list(found.index),
    }[missing]
    assert found.index[found["here"] == "not run"].tolist() == gone
    assert set(found.loc[gone, "verdict"]) == {"open"}
    assert set(found["verdict"].drop(gone)) <= {"holds"}
    table = findings.position_table(runs)
    assert len(table) == {"masks": 2, "everything": 0}.get(missing, 4)
    if missing == "none":
        assert set(table["over labels by area"]) == {"not run"}


def test_the_chain_is_compared_step_by_step_and_seed_by_seed():
    fewer = [made_up({"fmix": 0.0}).assign(map_macro=0.7), made_up({"fmix": 0.1}), made_up({"fmix": 0.2})]
    every = [made_up({"fmix": [0.1, 0.0, 0.0]}).assign(map_macro=[0.8, 0.7, 0.7])]
    every += [made_up({"fmix": 0.1})[::-1], made_up({"fmix": 0.3})]
    table = findings.chain_table(fewer, every)
    assert table["step"].tolist()[:2] == ["labels, mAP", "activation maps"]
    assert table["gain"].tolist() == [gap([0.1, 0, 0]), gap([0.1, 0, 0]), gap([0, 0, 0]), gap([0.1] * 3)]
    expected = [of(every[0], "fmix", seed) for seed in SEEDS]
    assert table["all"][1] == spread(expected)
    assert table["fewer"][0] == spread([0.7] * 3)


def test_classes_of_other_groups_than_methods():
    runs = pd.concat([made_up({"fmix": 0.0}).assign(scenes="fewer"), made_up({"fmix": 0.1}).assign(scenes="all")])
    runs["iou"] = [[0.1, 0.2, None] if scenes == "fewer" else [0.3, 0.4, 0.5] for scenes in runs["scenes"]]
    table = findings.class_table(runs, CLASSES, by="scenes")
    assert list(table) == ["class", "fewer", "all"]
    assert table["all"].tolist() == [spread([x] * 3, 1) for x in (0.3, 0.4, 0.5)]
    assert table["fewer"].tolist()[:2] == [spread([x] * 3, 1) for x in (0.1, 0.2)]


# Against slow calculation, whatever the numbers


# What the results explorer is given


@pytest.mark.parametrize("function", ["classify", "segment"])
@pytest.mark.parametrize("seeds", [SEEDS, SEEDS[:1]])
def test_the_explorer_groups_runs_by_method(function, seeds):
    runs = anything(["fmix", "cam"], seeds)
    if function == "segment":
        runs = pd.concat([runs.assign(source="walk"), anything([None], seeds, source="reference")])
    teacher = pd.DataFrame([{"method": "vit", "seed": 42, "map_macro": 0.9}])
    given = findings.explorable(pd.concat([teacher, runs]))
    made = ResultsExplorer(
        given,
        CLASSES,
        metrics=findings.METRICS[function],
        per_class=findings.PER_CLASS,
        colours=weak_drawings.NAMED_COLOURS,
    )
    made.group_by = ["method"]
    shown = made.read_out().set_index("method")
    assert set(shown.index) == {"CAM", "FMix-CAM"} | ({"upper bound"} if function == "segment" else set())
    for name in ("cam", "fmix"):
        mean = statistics.mean(of(runs, name, seed) for seed in seeds)
        assert shown.loc[findings.METHOD_NAMES[name], "mean"] == pytest.approx(mean, abs=1e-6)
    levels = [one["cell"] for one in made.columns[0]["levels"]]
    colours = dict(zip(levels, made.method_colours, strict=True))
    assert colours["CAM"] == weak_drawings.COLOURS["cam"]


def test_the_explorer_tells_by_words_what_a_network_was_trained_on():
    runs = pd.concat([anything(["cam"], source=source) for source in ("cam", "walk", "reference")])
    found = findings.explorable(runs)
    assert list(dict.fromkeys(found["maps"])) == ["activation", "walked", "reference"]
    assert not {"source", "history", "weights", "dataset", "stage_one"} & set(found)
    assert found.index.tolist() == list(range(9))
    made = ResultsExplorer(found, CLASSES, metrics=findings.METRICS["segment"], per_class=findings.PER_CLASS)
    made.group_by = ["method", "maps"]
    assert made.read_out()["maps"].tolist() == ["activation", "walked", "reference"]
    assert "walked maps" in made.fallback.html
    assert "source" in runs  # the table itself stays as it was


# Pages
