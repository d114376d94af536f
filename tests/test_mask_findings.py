"""What noise does to maps and what masks find of it, against loops over pixels and runs, on made-up maps and runs."""

import html
import random
import re
import statistics
import warnings
from collections import Counter

import pandas as pd
import pytest
import torch
from test_charts import csv_of
from torch import Generator

from rsbook import comparisons, cromss, figures, mask_findings, noise, selection

MODALITIES = ["vegetation", "optical"]
SEEDS = (42, 43, 44)
SCORES = ("auroc", "auroc_confidence", "auroc_alone", "precision", "recall")
NOTHING = dict.fromkeys(SCORES)  # of a map without a wrong pixel
NAMES = {
    "single_modal": "single-modal",
    "mid_fusion": "midF",
    "late_fusion": "lateF",
    "cromss_mid": "CromSS-midF",
    "cromss_late": "CromSS-lateF",
}


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def run(method, seed, quality, noise=(("class_swap", 0.2, None),), miou=(0.4, 0.5), wrong=0.25, modalities=None):
    """A row as `runs.table(cromss.pretrain, …)` makes it. quality: what was found after the last epoch, by modality;
    after an earlier one, masks are said to find nothing at all.
    """
    modalities = modalities or MODALITIES
    before = [dict.fromkeys(SCORES, 0.0)] * len(modalities)
    return {
        "noise": [list(kind) for kind in noise],
        "ranking": "global",
        "method": method,
        "modalities": list(modalities),
        "seed": seed,
        "history": [
            {"epoch": epoch, "loss": 1.0, "learning_rate": 1e-3, "val_loss": 2.0, "quality": found}
            for epoch, found in ((2, before), (4, list(quality)))
        ],
        "wrong": wrong,
        "test": {
            name: {"oa": score + 0.3, "aa": score + 0.1, "miou": score, "f1": score + 0.05}
            for name, score in zip(modalities, miou, strict=True)
        },
        "weights": {name: f"{method} {name} {seed}" for name in modalities},
        "seconds": 1.0,
        "record": f"{method}_{seed}.json",
    }


def spread(values, digits=2):
    """Fractions in per cent, as pages print them."""
    values = [100 * value for value in values]
    if len(values) < 2:
        return f"{values[0]:.{digits}f}" if values else "–"
    return f"{statistics.mean(values):.{digits}f}\u00a0±\u00a0{statistics.stdev(values):.{digits}f}"


def points(text, sd="0.00"):
    return f"{text}\u00a0±\u00a0{sd}"


def silent(frame):
    """Nothing in a table that a reader would take for an error."""
    shown = figures.draw_table(frame, caption="A table.").html
    body = re.sub(r"<[^>]+>", " ", shown.split("<tbody>")[1])
    return not re.search(r"\b(nan|none|inf)\b", body, re.I)


# What is wrong in maps


def draw_maps(seed, classes=4, unlabelled=0.1, wrong=0.4):
    """Clean and noisy maps (3,6,7); both have no class at the same pixels, as noise leaves these alone."""
    generator = Generator().manual_seed(seed)
    clean = torch.randint(classes, (3, 6, 7), generator=generator)
    other = torch.randint(classes, clean.shape, generator=generator)
    noisy = torch.where(torch.rand(clean.shape, generator=generator) < wrong, other, clean)
    nowhere = torch.rand(clean.shape, generator=generator) < unlabelled
    clean[nowhere] = noisy[nowhere] = -1
    return clean, noisy


def slow_errors(clean, noisy, classes):
    """One pixel at a time: the shares of each class, and the pairs of classes that are exchanged."""
    pairs = Counter((was, now) for was, now in zip(clean.flatten().tolist(), noisy.flatten().tolist(), strict=True))
    pairs = {pair: n for pair, n in pairs.items() if pair[0] >= 0}
    total = sum(pairs.values())
    rows = []
    for c in range(classes):
        true = sum(n for (was, _), n in pairs.items() if was == c)
        named = sum(n for (_, now), n in pairs.items() if now == c)
        kept = pairs.get((c, c), 0)
        lost = {now: n for (was, now), n in pairs.items() if was == c != now}
        rows.append(
            {
                "share, clean": 100 * true / total,
                "share, noisy": 100 * named / total,
                "kept": 100 * kept / true if true else None,
                "right where named": 100 * kept / named if named else None,
                "most lost to": min(now for now, n in lost.items() if n == max(lost.values())) if lost else None,
            }
        )
    return rows, 100 * sum(n for (was, now), n in pairs.items() if was == now) / total


def check_errors(clean, noisy, classes):
    frame = mask_findings.map_errors(clean, noisy, classes)
    *rows, everything = frame.to_dict("records")
    expected, right = slow_errors(clean, noisy, len(classes))
    assert [row["class"] for row in rows] == list(classes)
    for row, found in zip(rows, expected, strict=True):
        for name in ("share, clean", "share, noisy", "kept", "right where named"):
            if found[name] is None:
                assert pd.isna(row[name])
            else:
                assert row[name] == pytest.approx(found[name], abs=0.0501)
                assert row[name] == round(row[name], 1)
        if found["most lost to"] is None:
            assert pd.isna(row["most lost to"])
        else:
            assert row["most lost to"] == classes[found["most lost to"]]
    assert everything["class"] == "all"
    assert everything["share, clean"] == everything["share, noisy"] == 100
    assert everything["kept"] == everything["right where named"] == pytest.approx(right, abs=0.0501)
    assert pd.isna(everything["most lost to"])
    assert silent(frame)
    return frame


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("wrong", [0.0, 0.3, 1.0])
def test_errors_of_maps_are_counted_pixel_by_pixel(seed, wrong):
    check_errors(*draw_maps(seed, wrong=wrong), ("water", "forest", "grass", "ice"))


def test_a_class_that_is_absent_has_no_share_that_is_kept():
    clean, noisy = draw_maps(0)
    clean[clean == 2], noisy[noisy == 2] = 0, 1  # nowhere in either
    clean[clean == 3] = 1  # only where the noise has put it
    noisy[noisy == 0] = 1  # has lost every pixel
    frame = check_errors(clean, noisy, ("lost", "forest", "absent", "only noise", "beyond"))
    assert frame.set_index("class").loc["lost", ["share, noisy", "kept", "most lost to"]].tolist() == [0, 0, "forest"]
    assert frame["right where named"].isna().tolist() == [True, False, True, False, True, False]
    assert frame["kept"].isna().tolist() == [False, False, True, True, True, False]
    only_noise = frame.set_index("class").loc["only noise"]
    assert (only_noise["share, clean"], only_noise["right where named"]) == (0, 0)
    assert only_noise["share, noisy"] > 0
    shown = figures.draw_table(frame, caption="Errors.").html
    assert re.search(r"<th[^>]*>absent</th><td>0.0</td><td>0.0</td><td>–</td><td>–</td><td[^>]*>–</td>", shown)


def test_errors_of_maps_with_a_kind_of_noise_of_the_book():
    clean = torch.arange(4 * 32 * 32).view(4, 32, 32) // 60 % 3
    noisy = noise.simulate(
        "rectify_borders",
        clean,
        fraction=1.0,
        intensity=4,
        num_classes=3,
        background=-1,
        generator=Generator().manual_seed(0),
    )
    assert check_errors(clean, noisy, ("a", "b", "c"))["kept"].max() < 100


# Runs with one kind of noise each


LEVELS = {"mask_shift": [(0.25, 10), (0.5, 10), (1.0, 10)], "class_swap": [(0.1, None), (0.3, None)]}


def anything(levels=LEVELS, seeds=SEEDS):
    """Runs whose numbers have nothing to do with each other, as `cromss.with_noise` orders them."""
    luck = random.Random(2)
    rows = []
    for kind, pairs in levels.items():
        for fraction, intensity in pairs:
            wrong = {seed: luck.random() for seed in seeds}
            for method in ("mid_fusion", "cromss_mid"):
                for seed in seeds:
                    quality = [{score: luck.random() for score in SCORES} for _ in MODALITIES]
                    miou = [luck.random(), luck.random()]
                    rows.append(run(method, seed, quality, [(kind, fraction, intensity)], miou, wrong[seed]))
    return pd.DataFrame(rows)


def of(runs, kind, fraction, method, seed):
    [found] = [
        r
        for r in runs.to_dict("records")
        if r["noise"][0][:2] == [kind, fraction] and (r["method"], r["seed"]) == (method, seed)
    ]
    return found


def mean_miou(row):
    return statistics.mean(one["miou"] for one in row["test"].values())


def mean_quality(row, score):
    return statistics.mean(q[score] for q in row["history"][-1]["quality"])


def slow_lead(runs, kind, fraction, seed):
    ours, plain = (of(runs, kind, fraction, method, seed) for method in ("cromss_mid", "mid_fusion"))
    return mean_miou(ours) - mean_miou(plain)


def test_the_long_form_has_a_row_a_run_and_modality():
    runs = anything()
    rows = mask_findings.noise_frame(runs).to_dict("records")
    expected = [
        {
            "kind": row["noise"][0][0],
            "level": comparisons.level_text(tuple(row["noise"][0][1:])),
            "fraction": row["noise"][0][1],
            "wrong": row["wrong"],
            "method": row["method"],
            "seed": row["seed"],
            "modality": MODALITIES[m],
            "miou": row["test"][MODALITIES[m]]["miou"],
            "oa": row["test"][MODALITIES[m]]["oa"],
            **row["history"][-1]["quality"][m],
        }
        for row in runs.to_dict("records")
        for m in range(2)
    ]
    assert rows == expected
    assert {row["level"] for row in rows} >= {"f = 25 %, α = 10", "f = 100 %, α = 10", "f = 30 %"}


def test_the_long_form_has_what_selection_measures():
    logits = torch.randn(2, 1, 3, 4, 4, generator=Generator().manual_seed(0))
    maps = torch.arange(16).view(1, 4, 4) % 3
    measured = selection.quality(logits, maps, maps == 1, 1.0)
    assert tuple(measured[0]) == mask_findings.QUALITY == SCORES
    [first, second] = mask_findings.noise_frame(pd.DataFrame([run("mid_fusion", 42, measured)])).to_dict("records")
    assert [{score: row[score] for score in SCORES} for row in (first, second)] == measured


def test_a_run_with_a_mixture_of_noises_is_no_run_with_one_kind():
    mixed = run("mid_fusion", 42, [NOTHING] * 2, [("rectify_borders", 1.0, 4), ("class_swap", 0.2, None)])
    with pytest.raises(ValueError, match="unpack"):
        mask_findings.noise_frame(pd.DataFrame([mixed]))


def test_leads_are_those_of_pairs_of_runs():
    runs = anything()
    shuffled = runs.sample(frac=1, random_state=3)
    for table in (runs, shuffled):
        found = mask_findings.noise_leads(mask_findings.noise_frame(table)).to_dict("records")
        assert len(found) == 5 * len(SEEDS)
        for row in found:
            where = (row["kind"], row["fraction"], row["seed"])
            assert row["lead"] == pytest.approx(slow_lead(runs, *where))
            assert row["wrong"] == of(runs, row["kind"], row["fraction"], "mid_fusion", row["seed"])["wrong"]
        assert len({(row["kind"], row["level"], row["seed"]) for row in found}) == len(found)


def test_every_cell_of_the_noise_table():
    runs = anything()
    rows = mask_findings.noise_table(mask_findings.noise_frame(runs)).to_dict("records")
    expected = []
    for kind, levels in LEVELS.items():
        for fraction, intensity in levels:
            ours, plain = (
                [of(runs, kind, fraction, method, seed) for seed in SEEDS] for method in ("cromss_mid", "mid_fusion")
            )
            leads = [100 * slow_lead(runs, kind, fraction, seed) for seed in SEEDS]
            sign = "+" if statistics.mean(leads) > 0 else "−"
            expected.append(
                {
                    "noise": f"{kind.replace('_', ' ')}, {comparisons.level_text((fraction, intensity))}",
                    "wrong pixels": f"{100 * statistics.mean(r['wrong'] for r in ours):.1f}",
                    "midF, mIoU": spread([mean_miou(r) for r in plain]),
                    "CromSS-midF, mIoU": spread([mean_miou(r) for r in ours]),
                    "lead": points(f"{sign}{abs(statistics.mean(leads)):.2f}", f"{statistics.stdev(leads):.2f}"),
                    "AUROC": spread([mean_quality(r, "auroc") for r in ours], 1),
                    "precision": spread([mean_quality(r, "precision") for r in ours], 1),
                    "recall": spread([mean_quality(r, "recall") for r in ours], 1),
                    "n": 3,
                }
            )
    assert rows == expected
    assert len({row["lead"][0] for row in rows}) == 2, "leads of both signs"


def test_a_run_that_is_missing_leaves_no_lead():
    runs = anything()
    gone = [r["noise"][0][:2] == ["mask_shift", 1.0] and r["method"] == "cromss_mid" for r in runs.to_dict("records")]
    runs = runs.drop(index=runs[gone].index[2:])  # seed 44
    frame = mask_findings.noise_frame(runs)
    leads = mask_findings.noise_leads(frame)
    assert leads["lead"].isna().sum() == 1
    table = mask_findings.noise_table(frame).set_index("noise")
    assert (table["lead"] == "not run").tolist() == [False, False, True, False, False]
    claims = by_number(mask_findings.noise_claims(frame, "quick"))
    assert claims["9"]["here"].startswith("not run at mask shift; ")
    assert claims["8"]["here"].startswith("not run at mask shift; ")
    assert claims["9"]["n"] == 2
    assert silent(table.reset_index())


# Claims


def by_number(frame):
    return {row["number"]: row for row in frame.to_dict("records")}


STEADY = {  # by kind and rate: leads by seed, and of the masks AUROC, that of F′ and that of F
    ("mask_shift", 1.0): ([0.03, 0.04, 0.05], 0.6, 0.7, 0.65),
    ("mask_shift", 0.25): ([0.01, 0.02, 0.03], 0.9, 0.9, 0.1),
    ("mask_shift", 0.5): ([-0.5, -0.5, -0.5], 0.1, 0.1, 0.9),  # in between, which no claim is about
    ("class_swap", 0.1): ([0.00, 0.01, -0.01], 0.2, 0.2, 0.8),
    ("class_swap", 0.3): ([0.02, 0.01, 0.03], 0.8, 0.9, 0.86),
}


def claimed(cases=STEADY, preset="quick", seeds=SEEDS, unfindable=()):
    """The claims on runs with these leads and masks; unfindable: (kind, rate, seed) of runs without a wrong pixel."""
    rows = []
    for (kind, fraction), (leads, auroc, both, alone) in cases.items():
        for seed, lead in zip(SEEDS, leads, strict=True):
            for method in ("mid_fusion", "cromss_mid"):
                plain = 0.3 + seed / 1000
                miou = [plain, plain] if method == "mid_fusion" else [plain, plain + 2 * lead]
                # Modalities differ about their mean; masks of midF, which does not select, are nobody's claim.
                quality = [
                    {
                        "auroc": auroc + d,
                        "auroc_confidence": both - d,
                        "auroc_alone": alone + d,
                        "precision": 0.5,
                        "recall": 0.5,
                    }
                    if method == "cromss_mid"
                    else dict.fromkeys(SCORES, 0.01)
                    for d in (0.01, -0.01)
                ]
                if (kind, fraction, seed) in unfindable:
                    quality = [NOTHING] * 2
                if seed in seeds:
                    intensity = 10 if kind == "mask_shift" else None
                    rows.append(run(method, seed, quality, [(kind, fraction, intensity)], miou))
    return mask_findings.noise_claims(mask_findings.noise_frame(pd.DataFrame(rows)), preset)


def test_what_each_claim_says_is_found():
    frame = claimed()
    assert frame.columns.tolist() == ["number", "claim", "here", "n", "verdict", "metric"]
    claims = by_number(frame)
    assert {number: row["here"] for number, row in claims.items()} == {
        "7": f"{points('+10.00')} at mask shift; {points('+30.00')} at class swap",
        "8": f"{points('+2.00')} at mask shift; {points('+2.00', '2.00')} at class swap",  # 2, 0 and 4
        "9": f"{points('+4.00', '1.00')} at mask shift; {points('+2.00', '1.00')} at class swap",
        "10": f"{points('+5.00')} at mask shift; {points('+4.00')} at class swap",
    }
    assert {number: row["verdict"] for number, row in claims.items()} == {
        "7": "holds",
        "8": "open",  # for one seed of class swap the highest rate is worth no more than the lowest
        "9": "holds",
        "10": "holds",
    }
    assert {number: row["metric"] for number, row in claims.items()} == {
        "7": "auroc",
        "8": "miou",
        "9": "miou",
        "10": "auroc",
    }
    assert set(frame["n"]) == {3}


@pytest.mark.parametrize(
    ("number", "changed"),
    [
        ("7", {("class_swap", 0.3): ([0.02, 0.03, 0.04], 0.49, 0.9, 0.86)}),
        ("8", {("mask_shift", 0.25): ([0.04, 0.05, 0.06], 0.9, 0.9, 0.1)}),
        ("9", {("class_swap", 0.3): ([-0.02, -0.03, -0.04], 0.8, 0.9, 0.86)}),
        ("10", {("mask_shift", 1.0): ([0.03, 0.04, 0.05], 0.6, 0.6, 0.7)}),
    ],
)
def test_one_kind_of_noise_that_contradicts_makes_a_claim_fail(number, changed):
    """Other claims stay as they are, but for the growth where the highest rate has become the worst."""
    steady = {number: row["verdict"] for number, row in by_number(claimed()).items()}
    found = {number: row["verdict"] for number, row in by_number(claimed(STEADY | changed)).items()}
    assert found[number] == "fails"
    assert {k: v for k, v in found.items() if k not in (number, "8")} == {
        k: v for k, v in steady.items() if k not in (number, "8")
    }


def test_claims_do_not_depend_on_the_order_of_rates():
    backwards = dict(sorted(STEADY.items(), key=lambda case: case[0]))
    assert list(backwards) != list(STEADY)
    mine, theirs = claimed(), claimed(backwards)
    for column in ("number", "claim", "n", "verdict"):
        assert mine[column].tolist() == theirs[column].tolist()
    for here, there in zip(mine["here"], theirs["here"], strict=True):
        assert set(here.split("; ")) == set(there.split("; "))


def test_the_smoke_preset_and_one_seed_leave_all_claims_open():
    assert set(claimed(preset="smoke")["verdict"]) == {"open"}
    one = claimed(seeds=(43,))
    assert set(one["verdict"]) == {"open"}
    assert set(one["n"]) == {1}


def test_a_single_rate_says_nothing_about_higher_ones():
    highest = {case: found for case, found in STEADY.items() if case[1] in (0.3, 1.0)}
    claims = by_number(claimed(highest))
    assert (claims["8"]["here"], claims["8"]["n"], claims["8"]["verdict"]) == ("not run", 0, "open")
    everything = by_number(claimed())
    assert [claims[k] for k in ("7", "9", "10")] == [everything[k] for k in ("7", "9", "10")]
    mixed = by_number(claimed({case: v for case, v in STEADY.items() if case != ("class_swap", 0.1)}))
    assert mixed["8"]["here"] == points("+2.00") + " at mask shift"
    assert mixed["8"]["verdict"] == "holds"


# No wrong pixel, and no weight below one


def test_a_seed_without_a_wrong_pixel_says_nothing_about_masks():
    frame = claimed(unfindable=[("mask_shift", 1.0, 44)])
    claims = by_number(frame)
    assert claims["7"]["here"].startswith(points("+10.00") + " at mask shift")
    assert [claims[k]["n"] for k in ("7", "8", "9", "10")] == [2, 3, 3, 2]
    assert [claims[k]["verdict"] for k in ("7", "9", "10")] == ["holds"] * 3
    assert silent(frame)


def test_a_kind_of_noise_without_any_wrong_pixel_leaves_claims_on_masks_open():
    nowhere = [("mask_shift", 1.0, seed) for seed in SEEDS]
    claims = by_number(claimed(unfindable=nowhere))
    for number in ("7", "10"):
        assert claims[number]["verdict"] == "open"
        assert claims[number]["here"].startswith("not run at mask shift; ")
    assert claims["9"]["verdict"] == "holds"
    everywhere = [(*case, seed) for case in STEADY for seed in SEEDS]
    frame = claimed(unfindable=everywhere)
    assert frame["verdict"].tolist() == ["open", "open", "holds", "open"]
    assert silent(frame)


def without(quality, *scores):
    return [one | dict.fromkeys(scores) for one in quality]


SURE = [dict.fromkeys(SCORES, 0.75), dict.fromkeys(SCORES, 0.25)]


def test_what_masks_did_not_find_is_left_out_of_the_noise_table():
    """Seed 42 has no weight below one, seed 43 no wrong pixel; of a second kind of noise no seed has either."""
    found = {42: without(SURE, "precision"), 43: [NOTHING] * 2, 44: SURE}
    rows = []
    for kind in ("mask_shift", "segment_swap"):
        for method in ("mid_fusion", "cromss_mid"):
            for seed in SEEDS:
                quality = found[seed] if kind == "mask_shift" else [NOTHING] * 2
                rows.append(run(method, seed, quality, [(kind, 1.0, 10)]))
    table = mask_findings.noise_table(mask_findings.noise_frame(pd.DataFrame(rows)))
    first, second = table.to_dict("records")
    assert [first[k] for k in ("AUROC", "precision", "recall")] == [
        points("50.0", "0.0"),
        "50.0",
        points("50.0", "0.0"),
    ]
    assert [second[k] for k in ("AUROC", "precision", "recall")] == ["–"] * 3
    assert [first["lead"], second["lead"]] == [points("+0.00")] * 2
    assert [first["n"], second["n"]] == [3, 3]
    assert silent(table)


def test_numbers_that_no_run_has_leave_the_long_form_one_of_numbers():
    frame = mask_findings.noise_frame(pd.DataFrame([run(m, 42, [NOTHING] * 2) for m in ("mid_fusion", "cromss_mid")]))
    assert frame[list(SCORES)].dtypes.tolist() == [float] * 5
    assert frame[list(SCORES)].isna().all(axis=None)
    assert "csv;base64," in figures.draw_table(frame, caption="The long form.").html
    assert silent(frame)


# How well masks find wrong pixels, in the runs of the other pages


def pretrainings(seeds=SEEDS):
    luck = random.Random(3)
    rows = []
    for given in cromss.study(cromss.METHODS, MODALITIES, seeds):
        quality = [{score: luck.random() for score in SCORES} for _ in given["modalities"]]
        miou = [luck.random() for _ in quality]
        rows.append(run(given["method"], given["seed"], quality, miou=miou, modalities=given["modalities"]))
    return pd.DataFrame(rows)


def qualities(runs, method, modality, epoch=-1):
    return [
        row["history"][epoch]["quality"][row["modalities"].index(modality)]
        for row in runs.to_dict("records")
        if row["method"] == method and modality in row["modalities"]
    ]


def test_every_cell_of_the_quality_table():
    runs = pretrainings()
    rows = mask_findings.quality_table(runs).to_dict("records")
    assert rows == [
        {
            "method": NAMES[method],
            "modality": modality,
            "AUROC of W_l": spread([q["auroc"] for q in found], 1),
            "of F′_l": spread([q["auroc_confidence"] for q in found], 1),
            "of F_l alone": spread([q["auroc_alone"] for q in found], 1),
            "precision": spread([q["precision"] for q in found], 1),
            "recall": spread([q["recall"] for q in found], 1),
            "n": 3,
        }
        for method in cromss.METHODS
        for modality in MODALITIES
        for found in [qualities(runs, method, modality)]
    ]


def test_a_single_training_has_a_quality_without_a_spread():
    [first, second] = mask_findings.quality_table(pd.DataFrame([run("cromss_mid", 42, SURE)])).to_dict("records")
    assert (first["modality"], first["AUROC of W_l"], first["n"]) == ("vegetation", "75.0", 1)
    assert (second["modality"], second["recall"], second["n"]) == ("optical", "25.0", 1)


def test_modalities_are_found_in_whatever_order_a_run_has_them():
    runs = pd.DataFrame([run("mid_fusion", 42, SURE), run("mid_fusion", 43, SURE[::-1], modalities=MODALITIES[::-1])])
    table = mask_findings.quality_table(runs).set_index("modality")
    assert table["recall"].to_dict() == {"vegetation": points("75.0", "0.0"), "optical": points("25.0", "0.0")}


def test_what_masks_did_not_find_is_left_out_of_the_quality_table():
    runs = pd.DataFrame(
        [
            run("mid_fusion", 42, without(SURE, "precision")),
            run("mid_fusion", 43, [SURE[0], NOTHING]),
            run("cromss_mid", 42, [NOTHING] * 2),
            run("cromss_mid", 43, [NOTHING] * 2),
        ]
    )
    table = mask_findings.quality_table(runs)
    rows = table.to_dict("records")
    assert [row["AUROC of W_l"] for row in rows] == [points("75.0", "0.0"), "25.0", "–", "–"]
    assert [row["precision"] for row in rows] == ["75.0", "–", "–", "–"]
    assert [row["n"] for row in rows] == [2] * 4
    assert silent(table)


# Figures


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figures that are drawn, on light pages."""
    found = []

    def show(draw, **options):
        found.append(draw(figures.THEMES["light"]))
        return options["data"]

    monkeypatch.setattr(figures, "show", show)
    return found


def alt_of(page):
    return html.unescape(re.search(r'alt="([^"]+)"', page.html)[1])


def test_the_figure_of_qualities_has_its_numbers_and_words():
    runs = pretrainings()
    page = mask_findings.draw_quality(runs, MODALITIES)
    expected = [
        (row["method"], row["seed"], name, past["epoch"], past["quality"][m]["auroc"])
        for row in runs.to_dict("records")
        for past in row["history"]
        for m, name in enumerate(row["modalities"])
    ]
    data = csv_of(page)
    assert data.columns.tolist() == ["method", "seed", "modality", "epoch", "auroc"]
    assert len(data) == (2 + 4 * 2) * 3 * 2
    assert [tuple(row) for row in data.itertuples(index=False)] == expected
    assert alt_of(page).startswith("Lines of the area under the curve with which selection masks tell wrong from right")


def test_each_panel_of_qualities_has_a_line_a_method_through_the_means_and_chance(drawn):
    runs = pretrainings()
    mask_findings.draw_quality(runs, MODALITIES)
    [figure] = drawn
    assert [ax.get_title() for ax in figure.axes] == MODALITIES
    for ax, modality in zip(figure.axes, MODALITIES, strict=True):
        *lines, chance = ax.get_lines()
        assert set(chance.get_ydata()) == {0.5}
        assert [line.get_label() for line in lines] == list(NAMES.values())
        for line, dots, method in zip(lines, ax.collections, NAMES, strict=True):
            by_epoch = [[q["auroc"] for q in qualities(runs, method, modality, k)] for k in (0, 1)]
            assert list(line.get_xdata()) == [2, 4]
            assert list(line.get_ydata()) == pytest.approx([statistics.mean(values) for values in by_epoch])
            expected = [(e, v) for e, values in zip((2, 4), by_epoch, strict=True) for v in values]
            assert sorted(map(tuple, dots.get_offsets().tolist())) == sorted(expected)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(NAMES.values())


@pytest.mark.parametrize("found", [NOTHING, None])
def test_qualities_that_are_missing_are_drawn_as_gaps(drawn, found):
    runs = pd.DataFrame([run("cromss_mid", 42, [NOTHING] * 2), run("cromss_mid", 43, [found or SURE[0]] * 2)])
    for row in runs["history"]:
        row[0]["quality"] = [NOTHING] * 2
    data = mask_findings.draw_quality(runs, MODALITIES)
    line = drawn[0].axes[0].get_lines()[0]
    ends = [y for y in line.get_ydata() if y == y]
    assert ends == ([] if found else [0.75])
    assert data["auroc"].isna().sum() == (8 if found else 6)
    assert data["auroc"].dtype == float


def test_the_figure_of_noise_rates_has_its_numbers_and_words():
    runs = anything()
    page = mask_findings.draw_noise(mask_findings.noise_frame(runs))
    data = csv_of(page)
    assert data.columns.tolist() == ["kind", "level", "fraction", "seed", "wrong", "lead", "auroc"]
    assert len(data) == 5 * len(SEEDS)
    for row in data.to_dict("records"):
        where = (row["kind"], row["fraction"], row["seed"])
        ours = of(runs, row["kind"], row["fraction"], "cromss_mid", row["seed"])
        assert row["wrong"] == pytest.approx(100 * ours["wrong"], abs=0.01)
        assert row["lead"] == pytest.approx(100 * slow_lead(runs, *where), abs=1e-3)
        assert row["auroc"] == pytest.approx(mean_quality(ours, "auroc"))
    assert alt_of(page).startswith("Two panels against the share of wrong pixels, one line for each kind of map noise")


def test_the_lines_of_noise_rates_join_the_means_of_each_level(drawn):
    runs = anything()
    mask_findings.draw_noise(mask_findings.noise_frame(runs))
    [figure] = drawn
    for ax, level in zip(figure.axes, (0.0, 0.5), strict=True):
        chance, *lines = ax.get_lines()
        assert set(chance.get_ydata()) == {level}
        assert [line.get_label() for line in lines] == ["mask shift", "class swap"]
        for line, dots, (kind, levels) in zip(lines, ax.collections, LEVELS.items(), strict=True):
            single = [
                [
                    (
                        100 * of(runs, kind, fraction, "cromss_mid", seed)["wrong"],
                        100 * slow_lead(runs, kind, fraction, seed)
                        if level == 0
                        else mean_quality(of(runs, kind, fraction, "cromss_mid", seed), "auroc"),
                    )
                    for seed in SEEDS
                ]
                for fraction, _ in levels
            ]
            for at, axis in ((0, line.get_xdata()), (1, line.get_ydata())):
                assert list(axis) == pytest.approx([statistics.mean(p[at] for p in one) for one in single], abs=0.01)
            everything = sorted(pair for one in single for pair in one)
            for seen, expected in zip(sorted(map(tuple, dots.get_offsets().tolist())), everything, strict=True):
                assert seen == pytest.approx(expected, abs=0.01)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mask shift", "class swap"]


@pytest.mark.parametrize("kinds", [["mask_shift"], ["mask_shift", "class_swap"]])
def test_noise_rates_without_a_wrong_pixel_are_drawn(drawn, kinds):
    runs = anything({kind: LEVELS[kind] for kind in kinds})
    for row in runs.to_dict("records"):
        if row["noise"][0][0] == "mask_shift":
            row["history"][-1]["quality"][:] = [NOTHING] * 2
    data = mask_findings.draw_noise(mask_findings.noise_frame(runs))
    assert data["auroc"].isna().tolist() == (data["kind"] == "mask_shift").tolist()
    assert data["lead"].notna().all()
    assert len(drawn[0].axes[0].get_lines()) == 1 + len(kinds)


def test_every_kind_of_noise_has_a_colour_and_a_marker_of_its_own():
    assert list(mask_findings.KINDS) == list(noise.KINDS)
    assert len({colour for colour, _ in mask_findings.KINDS.values()}) == len(noise.KINDS)
    assert len({marker for _, marker in mask_findings.KINDS.values()}) == len(noise.KINDS)
    levels = {kind: [(1.0, None)] for kind in noise.KINDS}
    data = csv_of(mask_findings.draw_noise(mask_findings.noise_frame(anything(levels, (42,)))))
    assert data["kind"].tolist() == list(noise.KINDS)
