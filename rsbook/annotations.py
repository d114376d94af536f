"""Labels that people give: one class a scene, in a CSV file of one or more annotators, and how well two of them agree.

A row is an answer: scene, an index into the dataset · label, a class, or nothing where the annotator skipped the scene
· annotator · seconds that the scene was looked at · candidates, the classes that were offered, joined by "; ".
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Generator, Tensor, rand

from rsbook import files, positions
from rsbook.scenes import Scenes

COLUMNS = ("scene", "label", "annotator", "seconds", "candidates")
SEPARATOR = "; "
PAGE = 4  # candidates that are shown at a time
CURE = "mend the line, or remove it and label the scene again"


def candidates(classes: Sequence[str], seed: int, scene: int) -> list[list[str]]:
    """All classes in an order that is a function of seed and scene alone, four a page, the last page may have fewer.

    They are sorted by a digest, so that the order is the same on every machine and with every version of a library.
    Raises ValueError for classes that a file cannot hold: none, one twice, an empty name, or one with "; " in it.
    """
    _check_classes(classes)
    order = sorted(classes, key=lambda name: hashlib.sha256(f"{seed}/{scene}/{name}".encode()).digest())
    return [order[start : start + PAGE] for start in range(0, len(order), PAGE)]


def read(
    path: Path | str, classes: Collection[str] | None = None, scenes: Collection[int] | None = None
) -> pd.DataFrame:
    """The answers of a file, in its order; labels and candidates checked against `classes`, scenes against `scenes`.

    Raises FileNotFoundError where there is no file, and ValueError, with file, line, value and what was expected, for
    a damaged one: other columns, cells too many or too few, no number, an unknown class or scene, an answer twice.
    """
    path = files.location(path)
    found: list[dict[str, Any]] = []
    known = set() if scenes is None else {int(scene) for scene in scenes}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark in front
            reader = csv.reader(file, strict=True)
            head = next(reader, [])
            if tuple(head) != COLUMNS:
                raise _damaged(path, 1, head, f"the columns {', '.join(COLUMNS)}", "write them to the first line")
            for row in reader:
                if row:
                    found.append(_answer(path, reader.line_num, row, classes, None if scenes is None else known))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: {error}: expected a CSV file in UTF-8; save it as one, or remove it") from error
    table = _table(found)
    if (twice := table.duplicated(["annotator", "scene"])).any():
        first = found[int(twice.to_numpy().argmax())]
        value = f"scene {first['scene']} of {first['annotator']!r}"
        raise _damaged(path, first["line"], value, "one answer a scene and annotator", "remove one of the two lines")
    return table


def write(
    path: Path | str,
    table: pd.DataFrame,
    classes: Collection[str] | None = None,
    scenes: Collection[int] | None = None,
) -> None:
    """Write answers to a file that is there whole or not at all, after the checks of `read`.

    Raises ValueError for answers that `read` would refuse; a file that was there stays as it was. OSError where the
    folder cannot be made or the file cannot be written.
    """
    path = files.location(path)
    if missing := [name for name in COLUMNS if name not in table]:
        raise ValueError(f"{path}: the table lacks {', '.join(missing)}: expected {', '.join(COLUMNS)}")
    with files.replacing(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(table[list(COLUMNS)].itertuples(index=False, name=None))
        try:
            read(temporary, classes, scenes)
        except ValueError as error:
            raise ValueError(str(error).replace(str(temporary), str(path))) from None


def append(
    path: Path | str,
    table: pd.DataFrame,
    classes: Collection[str] | None = None,
    scenes: Collection[int] | None = None,
) -> None:
    """Add answers to those of a file, or start one; the file is there whole, with all or with none of them.

    Raises ValueError for a damaged file, and for answers that `read` would refuse, such as a second one to a scene.
    """
    path = files.location(path)
    there = read(path, classes) if path.exists() else _table([])
    write(path, pd.concat([there, table], ignore_index=True) if len(there) else table, classes, scenes)


def merge(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """One table of two annotators, a row a scene that either has answered, by scene.

    label_first, label_second: "" for a skipped scene, and where only the other has answered · seconds_first,
    seconds_second: nan there · same: both have labelled the scene, with one class. Raises ValueError for a table with
    two answers to a scene, as of several annotators.
    """
    for name, table in (("first", first), ("second", second)):
        if (twice := table["scene"].duplicated()).any():
            scene = table["scene"][twice].iloc[0]
            raise ValueError(f"{name}: scene {scene} is there twice; expected the answers of one annotator, choose one")
    columns = ["scene", "label", "seconds"]
    found = first[columns].merge(second[columns], on="scene", how="outer", suffixes=("_first", "_second"))
    labels = ["label_first", "label_second"]
    found[labels] = found[labels].fillna("")
    found["same"] = (found["label_first"] == found["label_second"]) & (found["label_first"] != "")
    ordered = ["scene", *labels, "seconds_first", "seconds_second", "same"]
    return found.sort_values("scene")[ordered].reset_index(drop=True)


def agreement(first: pd.DataFrame, second: pd.DataFrame) -> float:
    """Cohen's kappa of two annotators: (p_o − p_e) / (1 − p_e), over the scenes that both have labelled.

    p_o: share of these scenes with one class from both · p_e: the share expected of two who draw classes as often as
    these do, but by chance. Raises ValueError where both have labelled no scene, and where p_e = 1, as both have given
    one class to all: kappa is not defined then.
    """
    both = merge(first, second)
    both = both[(both["label_first"] != "") & (both["label_second"] != "")]
    if not len(both):
        raise ValueError("agreement: no scene has a label of both annotators; expected one or more")
    if len(names := set(both["label_first"]) | set(both["label_second"])) == 1:
        raise ValueError(
            f"agreement: both have given {names.pop()!r} to all {len(both)} scenes; expected two classes or more"
        )
    from sklearn.metrics import cohen_kappa_score  # slow to import, and only this needs it

    return float(cohen_kappa_score(both["label_first"], both["label_second"]))


def simulate(
    classes: Sequence[str],
    areas: Tensor,
    scenes: Sequence[int],
    *,
    seed: int,
    slips: float,
    generator: Generator,
    name: str = "simulated",
) -> pd.DataFrame:
    """Answers of a *simulated* annotator, no person: of the first four candidates of which one is there,
    the one with the largest area; but with a probability of `slips` the first of these candidates.

    areas (n,L): pixels of each class in the scenes, n of them, 0 where it is absent; without any the scene is skipped.
    A person sees more than areas, and errs otherwise: what comes out says nothing about people. seconds are 0.
    """
    rows, slipped = [], rand(len(scenes), generator=generator) < slips
    place = {name: i for i, name in enumerate(classes)}
    for scene, own, slip in zip(scenes, areas.tolist(), slipped.tolist(), strict=True):
        shown: list[str] = []
        label = ""
        for page in candidates(classes, seed, scene):
            shown += page
            best = max(page, key=lambda name, own=own: own[place[name]])
            if own[place[best]] > 0:
                label = page[0] if slip else best
                break
        rows.append(dict(zip(COLUMNS, (scene, label, name, 0.0, SEPARATOR.join(shown)), strict=True)))
    return _table(rows)


def areas(data: Scenes, index: Tensor) -> Tensor:
    """Pixels (n,L) int64 of each class of the label in the scenes `index` (n,), 0 for others; 1 each without maps."""
    labels = data.labels[index].long()
    return labels if data.positions is None else labels * positions.count(data.positions[index], len(data.classes))


def pairs(table: pd.DataFrame, classes: Sequence[str]) -> list[list[int]]:
    """Scene and class of each answer that is no skip, as `single_positive_runs.train` takes them."""
    place = {name: i for i, name in enumerate(classes)}
    return [[int(row.scene), place[row.label]] for row in table.itertuples() if row.label]


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    types = {"scene": "int64", "label": "str", "annotator": "str", "seconds": "float64", "candidates": "str"}
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(types)


def _answer(
    path: Path, line: int, row: list[str], classes: Collection[str] | None, scenes: Collection[int] | None
) -> dict[str, Any]:
    if len(row) != len(COLUMNS):
        raise _damaged(path, line, row, f"{len(COLUMNS)} cells: {', '.join(COLUMNS)}")
    scene, label, annotator, seconds, offered = row
    if not scene.isdecimal():
        raise _damaged(path, line, f"scene {scene!r}", "the index of a scene, a whole number ≥ 0")
    if scenes is not None and int(scene) not in scenes:
        raise _damaged(path, line, f"scene {int(scene)}", f"one of the {len(scenes)} scenes of the task")
    names = offered.split(SEPARATOR) if offered else []
    if classes is not None:
        for kind, name in [("label", label), *(("candidate", name) for name in names)]:
            if name not in classes and not (kind == "label" and not name):
                raise _damaged(path, line, f"{kind} {name!r}", f"one of {', '.join(classes)}")
    if label and label not in names:
        raise _damaged(path, line, f"label {label!r}", f"one of its candidates, {offered}")
    if not annotator.strip():
        raise _damaged(path, line, f"annotator {annotator!r}", "a name")
    try:
        duration = float(seconds)
    except ValueError:
        duration = math.nan
    if not 0 <= duration < math.inf:
        raise _damaged(path, line, f"seconds {seconds!r}", "a number ≥ 0")
    return dict(zip(COLUMNS, (int(scene), label, annotator, duration, offered), strict=True)) | {"line": line}


def _damaged(path: Path, line: int, value: Any, expected: str, cure: str = CURE) -> ValueError:
    shown = value if isinstance(value, str) else ",".join(value) or "nothing"
    return ValueError(f"{path}, line {line}: {shown}: expected {expected}; {cure}")


def _check_classes(classes: Sequence[str]) -> None:
    if not classes or len(set(classes)) != len(classes):
        raise ValueError(f"classes={list(classes)}: expected one or more, each once")
    if wrong := [name for name in classes if not name.strip() or SEPARATOR in name]:
        raise ValueError(f"class {wrong[0]!r}: expected a name without {SEPARATOR!r}, which stands between candidates")
