"""TreeSatAI's aerial scenes: four bands at 0.2 m, fourteen tree genera and cleared land (data/treesatai/README.md)."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from pathlib import Path

import numpy as np

from rsbook.archives import geotiff, prepared
from rsbook.scenes import DataError

# The publisher's 15 "genus" classes, as in its labels file: Cleared, without trees, is one.
CLASSES = (
    *("Abies", "Acer", "Alnus", "Betula", "Cleared", "Fagus", "Fraxinus", "Larix", "Picea", "Pinus"),
    *("Populus", "Prunus", "Pseudotsuga", "Quercus", "Tilia"),
)
# The order in the files. torchgeo (TreeSatAI.all_bands_dict) takes it from the archive's own description, and the mean
# values that GEO-Bench-2 has measured (154, 92, 85, 79) are those of forests in this order: green above red.
BANDS = ("NIR", "green", "blue", "red")
SIZE = 304  # pixels of 0.2 m a side
COVER = 0.05  # a genus that covers at least this share of the scene is in its label (arXiv 2405.13451)
VALIDATION = 0.1  # of all scenes; they come out of the official training list
LONGEST = 255  # characters of a file's name
TOGETHER = 32  # scenes of one reading: 12 MB
PACKED = ("aerial_60m_*", "labels.*")  # the publisher's archives by name, without those of the Sentinels
LABELS = "TreeSatBA_v9_60m_multi_labels.json"
CURE = "`python -m rsbook data card treesatai` says what to unpack where"

PAPER = {"train": 40_332, "labels_per_scene": 1.59}  # Table I
PUBLISHER = {"scenes": 50_381, "train": "90 %", "test": "10 %"}

load = prepared.load


def source(raw: Path) -> prepared.Source:
    """The aerial scenes of 60 m in `raw` with the official test split and a tenth of all scenes for validation.

    Raises DataError for missing, unexpected or damaged files, with the cure.
    """
    splits, images, path = _splits(raw), _images(raw), _labels_file(raw)
    shares = _shares(path)
    if missing := sorted(splits.keys() - images.keys()):
        more = f", with {len(missing) - 1} more of the {len(splits)} listed" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]} is missing in {raw}{more}: unpack {_archive(missing[0])} there; {CURE}")
    if "train" not in splits.values():
        raise DataError(f"the lists of {raw} name no scenes for training: download them again; {CURE}")
    # Names begin with the species; ordered by hash, the first n scenes of a split are a fair sample everywhere.
    names = sorted(splits, key=_hash)
    labels = np.stack([_label(shares, name, path) for name in names])
    order = [splits[name] for name in names]
    paths = [images[name] for name in names]
    groups = [list(range(i, min(i + TOGETHER, len(names)))) for i in range(0, len(names), TOGETHER)]
    found = {split: order.count(split) for split in ("train", "val", "test")}
    found["labels_per_scene"] = round(float(labels[np.array(order) == "train"].sum(axis=1).mean()), 2)
    found["images_not_listed"] = len(images) - len(names)
    differ = [f"{name} {found[name]:,}, paper {value:,}" for name, value in PAPER.items() if found[name] != value]
    return prepared.Source(
        name="treesatai",
        version=f"{LABELS.removesuffix('.json')}; rules 1",
        classes=CLASSES,
        bands=BANDS,
        rgb=(3, 1, 2),
        min_pixels=int(COVER * SIZE * SIZE),
        size=SIZE,
        dtype="uint8",
        has_positions=False,
        scenes=[name.removesuffix(".tif") for name in names],
        splits=order,
        groups=groups,
        read=partial(_read, paths, labels),
        notes={"found": found, "publisher": PUBLISHER, "paper": PAPER, "differ": differ},
        inputs=prepared.identify([path, *raw.glob("*.lst")]),
        group_inputs=[prepared.identify(paths[i] for i in group) for group in groups],
    )


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _splits(raw: Path) -> dict[str, str]:
    """The split of every listed file: the official lists, with the validation scenes drawn by hash of their name.

    The hash does not depend on the version of a random generator, nor on the order of the lists.
    """
    listed = {split: _listed(raw / f"{split}_filenames.lst") for split in ("train", "test")}
    if both := sorted(listed["train"] & listed["test"]):
        raise DataError(f"{both[0]} is in both lists of {raw}: download them again; {CURE}")
    training = sorted(listed["train"], key=lambda name: _hash(f"validation {name}"))
    held_out = round(VALIDATION * (len(training) + len(listed["test"])))
    return (
        dict.fromkeys(training[held_out:], "train")
        | dict.fromkeys(training[:held_out], "val")
        | dict.fromkeys(listed["test"], "test")
    )


def _listed(path: Path) -> set[str]:
    try:
        names = set(path.read_text().split())
        if max(map(len, names), default=0) > LONGEST:
            raise ValueError("it is no list of file names")
        return names
    except (OSError, ValueError) as error:
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error}): download it beside the unpacked folders; {CURE}") from error


def _images(raw: Path) -> dict[str, Path]:
    """Every aerial image by its file name, wherever the archives were unpacked.

    s1.zip and s2.zip hold files of the same names, so only the folders of aerial images are looked at.
    """
    folders = [raw, raw / "aerial", raw / "aerial" / "60m", *sorted(raw.glob("aerial_60m_*"))]
    return {path.name: path for folder in folders for path in folder.glob("*.tif")}


def _archive(name: str) -> str:
    """The publisher's archive that has an image: Tilia_spec._9_99911_WEFL_NLF.tif is in aerial_60m_tilia_spec.zip."""
    species = re.sub(r"\.?_\d+_.*", "", name)
    return f"aerial_60m_{species.lower()}.zip"


def _labels_file(raw: Path) -> Path:
    return raw / LABELS if (raw / LABELS).is_file() else raw / "labels" / LABELS


def _shares(path: Path) -> dict[str, list[tuple[str, float]]]:
    """The genera of every image, each with the share of the scene that it covers, 0 … 1."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error}): unpack labels.zip in {path.parent}; {CURE}") from error


def _label(shares: dict[str, list[tuple[str, float]]], name: str, path: Path) -> np.ndarray:
    """The label (15,) bool of an image: the genera that cover at least 5 %. path: where the shares are from."""
    if name not in shares:
        raise DataError(f"{path} has no entry for {name}, which is listed: download both again; {CURE}")
    try:
        cover = {genus: float(share) for genus, share in shares[name]}
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged at {name} ({error}): unpack labels.zip again; {CURE}") from error
    if unknown := sorted(map(repr, cover.keys() - set(CLASSES))):
        raise DataError(f"{path} has {unknown[0]} at {name}, expected one of {', '.join(CLASSES)}: {CURE}")
    return np.array([cover.get(genus, 0) >= COVER for genus in CLASSES])


def _read(paths: list[Path], labels: np.ndarray, indices: list[int]) -> prepared.Patches:
    """Images (n,4,304,304) uint8, no class positions and labels (n,15) bool of these scenes."""
    return np.stack([_image(paths[i]) for i in indices]), None, labels[indices]


def _image(path: Path) -> np.ndarray:
    """The four bands (4,304,304) uint8; raises DataError when the file is missing, damaged or another."""
    return geotiff.read(path, (len(BANDS), SIZE, SIZE), "uint8", f"unpack {_archive(path.name)} again; {CURE}")
