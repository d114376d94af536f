"""Answers of annotators: their file, candidates, and agreement."""

import itertools
from dataclasses import replace

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from rsbook import annotations

CLASSES = ("water", "forest, dense", 'so-called "field"', "road", "Straße", "=1+1")
HEAD = "scene,label,annotator,seconds,candidates\n"


def answers(labels, annotator="ann", start=0):
    """A table with these labels of scenes start, start + 1, …; all classes were candidates."""
    rows = [(start + i, label, annotator, 1.5 + i, "; ".join(CLASSES)) for i, label in enumerate(labels)]
    return pd.DataFrame(rows, columns=list(annotations.COLUMNS))


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "labels.csv"
    table = answers([*CLASSES, ""])
    annotations.write(path, table, CLASSES, range(7))
    pd.testing.assert_frame_equal(annotations.read(path, CLASSES, range(7)), table)
    pd.testing.assert_frame_equal(annotations.read(str(path)), table)
    assert [found.name for found in path.parent.iterdir()] == ["labels.csv"]
    annotations.write(path, table[:0])
    assert path.read_text() == HEAD
    assert annotations.read(path).dtypes.to_dict() == table.dtypes.to_dict()


def test_append_adds_and_starts(tmp_path):
    path = tmp_path / "labels.csv"
    annotations.append(path, answers(["water"]))
    annotations.append(path, answers(["road"], "ben"))
    annotations.append(path, answers(["road"], start=1))
    assert annotations.read(path)[["scene", "label", "annotator"]].to_numpy().tolist() == [
        [0, "water", "ann"],
        [0, "road", "ben"],
        [1, "road", "ann"],
    ]
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"labels\.csv, line 5: scene 0 of 'ann': expected one answer a scene"):
        annotations.append(path, answers(["road"]))
    with pytest.raises(ValueError, match=r"labels\.csv, line 5: label 'sea': expected one of water"):
        annotations.append(path, answers(["sea"], start=2), CLASSES)
    with pytest.raises(ValueError, match="the table lacks seconds"):
        annotations.write(path, answers(["road"]).drop(columns="seconds"))
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["labels.csv"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: nothing: expected the columns scene, label, annotator, seconds, candidates; write them"),
        ("scene;label\n", r"line 1: scene;label: expected the columns"),
        (HEAD + "0,water,ann\n", r"line 2: 0,water,ann: expected 5 cells: .*; mend the line"),
        (HEAD + "0,water,ann,1,water\n\n1.5,water,ann,1,water\n", r"line 4: scene '1\.5': expected the index"),
        (HEAD + "-1,water,ann,1,water\n", r"line 2: scene '-1': expected"),
        (HEAD + "9,water,ann,1,water\n", r"line 2: scene 9: expected one of the 3 scenes of the task"),
        (HEAD + "0,sea,ann,1,water\n", r"line 2: label 'sea': expected one of water, "),
        (HEAD + "0,water,ann,1,water; sea\n", r"line 2: candidate 'sea': expected one of water, "),
        (HEAD + "0,water,ann,1,road\n", r"line 2: label 'water': expected one of its candidates, road"),
        (HEAD + "0,water, ,1,water\n", r"line 2: annotator ' ': expected a name"),
        (HEAD + "0,water,ann,soon,water\n", r"line 2: seconds 'soon': expected a number ≥ 0"),
        (HEAD + "0,water,ann,nan,water\n", r"line 2: seconds 'nan'"),
        (HEAD + "0,water,ann,inf,water\n", r"line 2: seconds 'inf'"),
        (HEAD + "0,water,ann,-1,water\n", r"line 2: seconds '-1'"),
        (HEAD + "0,water,ann,1,water\n0,road,ann,1,road\n", r"line 3: scene 0 of 'ann': .* remove one of the two"),
        (HEAD + '0,"water,ann,1,water\n', r"expected a CSV file in UTF-8"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as raised:
        annotations.read(path, CLASSES, range(3))
    assert str(path) in str(raised.value)


def test_files_of_spreadsheets_and_of_others(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + "0,water,ann,1,water\n").replace("\n", "\r\n").encode())
    assert annotations.read(path)["label"].tolist() == ["water"]
    path.write_bytes(HEAD.encode() + b"0,Stra\xdfe,ann,1,water\n")
    with pytest.raises(ValueError, match="UTF-8"):
        annotations.read(path)
    with pytest.raises(FileNotFoundError):
        annotations.read(tmp_path / "none.csv")


@settings(deadline=None)
@given(st.integers(0, 2**63), st.integers(0, 10**6), st.integers(1, 20))
def test_candidates_are_all_classes_in_pages_of_four(seed, scene, count):
    classes = [f"class {i}" for i in range(count)]
    pages = annotations.candidates(classes, seed, scene)
    assert sorted(itertools.chain(*pages)) == sorted(classes)
    assert [len(page) for page in pages[:-1]] == [4] * (len(pages) - 1)
    assert 1 <= len(pages[-1]) <= 4
    assert pages == annotations.candidates(classes[::-1], seed, scene)


def test_candidates_are_shuffled_alike_everywhere():
    assert annotations.candidates("abcdef", 0, 0) == annotations.candidates("abcdef", 0, 0)
    first = [annotations.candidates("abcdef", seed, scene)[0][0] for seed in range(30) for scene in range(40)]
    assert all(150 < first.count(name) < 250 for name in "abcdef")  # 200 ± 13
    with pytest.raises(ValueError, match="class 'a; b'"):
        annotations.candidates(["a; b"], 0, 0)
    for wrong in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="expected one or more, each once"):
            annotations.candidates(wrong, 0, 0)


def test_merge_has_a_row_a_scene():
    found = annotations.merge(answers(["water", "road", ""]), answers(["road", "", "water"], "ben", start=1))
    assert found["scene"].tolist() == [0, 1, 2, 3]
    assert found["label_first"].tolist() == ["water", "road", "", ""]
    assert found["label_second"].tolist() == ["", "road", "", "water"]
    assert found["same"].tolist() == [False, True, False, False]
    assert found["seconds_second"].isna().tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="second: scene 0 is there twice; expected the answers of one annotator"):
        annotations.merge(answers(["water"]), pd.concat([answers(["water"]), answers(["road"], "ben")]))


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=30))
def test_agreement_is_cohens_kappa(pairs):
    ours, theirs = zip(*pairs, strict=True)
    if len({*ours, *theirs}) == 1:
        with pytest.raises(ValueError, match="expected two classes or more"):
            annotations.agreement(answers(ours), answers(theirs, "ben"))
        return
    observed = sum(a == b for a, b in pairs) / len(pairs)
    by_chance = sum(ours.count(name) * theirs.count(name) for name in CLASSES) / len(pairs) ** 2
    found = annotations.agreement(answers(ours), answers(theirs, "ben"))
    assert found == pytest.approx((observed - by_chance) / (1 - by_chance), abs=1e-9)


def test_agreement_by_hand_and_without_common_scenes():
    ours, theirs = ["water", "water", "road", "road", ""], ["water", "road", "road", "road", "road", "water"]
    # 3 of 4 alike; by chance 2/4 · 1/4 + 2/4 · 3/4 = 1/2
    assert annotations.agreement(answers(ours), answers(theirs, "ben")) == pytest.approx(0.5)
    for other in (answers(["road"], "ben", start=9), answers(["", ""], "ben"), answers([], "ben")):
        with pytest.raises(ValueError, match="no scene has a label of both annotators"):
            annotations.agreement(answers(ours), other)


def test_a_simulated_annotator_takes_the_largest_of_the_first_candidates_that_fit():
    areas = torch.randint(0, 3, (40, 6), generator=Generator().manual_seed(0))
    areas[0] = 0
    found = annotations.simulate(CLASSES, areas, range(10, 50), seed=3, slips=0.0, generator=Generator())
    assert found.loc[0, "label"] == ""
    for row, own in zip(found.itertuples(), areas.tolist(), strict=True):
        size = dict(zip(CLASSES, own, strict=True))
        pages = annotations.candidates(CLASSES, 3, row.scene)
        fitting = next((k for k, page in enumerate(pages) if any(size[name] for name in page)), len(pages) - 1)
        assert row.candidates == "; ".join(name for page in pages[: fitting + 1] for name in page)
        if row.label:
            assert row.label in pages[fitting]
            assert size[row.label] == max(size[name] for name in pages[fitting]) > 0
    slipping = annotations.simulate(CLASSES, areas, range(10, 50), seed=3, slips=0.3, generator=Generator())
    changed = (slipping["label"] != found["label"]).mean()
    assert 0 < changed < 0.4
    again = annotations.simulate(CLASSES, areas, range(10, 50), seed=3, slips=0.3, generator=Generator())
    pd.testing.assert_frame_equal(slipping, again)


def test_simulated_answers_can_be_written(tmp_path):
    found = annotations.simulate(CLASSES, torch.ones(5, 6), range(5), seed=0, slips=0.5, generator=Generator())
    annotations.write(tmp_path / "made.csv", found, CLASSES)
    pd.testing.assert_frame_equal(annotations.read(tmp_path / "made.csv", CLASSES), found, check_dtype=False)


def test_areas_and_pairs(tiny_scenes):
    index = torch.tensor([9, 2])
    found = annotations.areas(tiny_scenes, index)
    for row, scene in zip(found.tolist(), index.tolist(), strict=True):
        for c, pixels in enumerate(row):
            there = ((tiny_scenes.positions[scene] >> c) & 1).sum().item()
            assert pixels == (there if tiny_scenes.labels[scene, c] else 0)
    without = replace(tiny_scenes, positions=None)
    assert torch.equal(annotations.areas(without, index), tiny_scenes.labels[index].long())
    assert annotations.pairs(answers(["road", "", "water"]), CLASSES) == [[0, 3], [2, 0]]
