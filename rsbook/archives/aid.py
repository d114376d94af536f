"""AID-multilabel: aerial scenes of 600 × 600 pixels in three colours, with 17 classes (data/aid/README.md)."""

from __future__ import annotations

import csv
import hashlib
import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from rsbook.archives import prepared
from rsbook.scenes import DataError

CLASSES = (
    *("airplane", "bare-soil", "buildings", "cars", "chaparral", "court", "dock", "field", "grass", "mobile-home"),
    *("pavement", "sand", "sea", "ship", "tanks", "trees", "water"),
)
SIZE = 600  # pixels a side
LONGEST = 255  # characters of a name
VALIDATION = 0.1  # of the images of the training folder
TOGETHER = 8  # images of one reading: 9 MB
FOLDERS = {"train": "images_tr", "test": "images_test"}
LABELS = ("multilabel_corrected.csv", "multilabel.csv")  # the first that is there is read
PACKED = ("*",)  # archives by name: any, as the publishers' drives name them otherwise
CURE = "`python -m rsbook data card aid` says what to unpack where"

PAPER = {"images": 3000, "scene_types": 30, "training_folder": 2400, "test": 600}

load = prepared.load


def source(raw: Path) -> prepared.Source:
    """The images of both folders in `raw`, with a tenth of those of the training folder for validation.

    Raises DataError for missing, unexpected or damaged files, with the cure.
    """
    images, path = _images(raw), _labels_file(raw)
    table = _table(path)
    if missing := sorted(table.keys() - images.keys()):
        more = f", with {len(missing) - 1} more of the {len(table)} listed" if len(missing) > 1 else ""
        raise DataError(f"{missing[0]}.jpg is missing in the folders of {raw}{more}: unpack both again; {CURE}")
    if unlisted := sorted(images.keys() - table.keys()):
        more = f", nor for {len(unlisted) - 1} more of the {len(images)} images" if len(unlisted) > 1 else ""
        raise DataError(f"{path} has no row for {unlisted[0]}{more}: {_completed(path)}")
    splits = _splits({name: split for name, (split, _) in images.items()})
    # Names begin with the scene type; ordered by hash, the first n images of a split are a fair sample everywhere.
    names = sorted(splits, key=_hash)
    labels = np.stack([table[name] for name in names])
    order = [splits[name] for name in names]
    paths = [images[name][1] for name in names]
    groups = [list(range(i, min(i + TOGETHER, len(names)))) for i in range(0, len(names), TOGETHER)]
    found = {
        "images": len(names),
        "scene_types": len({path.parent.name for path in paths}),
        "training_folder": order.count("train") + order.count("val"),
        **{split: order.count(split) for split in ("train", "val", "test")},
        "labels_per_scene": round(float(labels.sum(axis=1).mean()), 2),
        "images_without_label": int((~labels.any(axis=1)).sum()),
    }
    differ = [f"{name} {found[name]:,}, paper {value:,}" for name, value in PAPER.items() if found[name] != value]
    return prepared.Source(
        name="aid",
        version=f"{path.name}; rules 1",
        classes=CLASSES,
        bands=("red", "green", "blue"),
        rgb=(0, 1, 2),
        min_pixels=0,
        size=SIZE,
        dtype="uint8",
        has_positions=False,
        scenes=names,
        splits=order,
        groups=groups,
        read=partial(_read, paths, labels),
        notes={"labels_file": path.name, "found": found, "paper": PAPER, "differ": differ},
        inputs=prepared.identify([path]),
        group_inputs=[prepared.identify(paths[i] for i in group) for group in groups],
    )


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _images(raw: Path) -> dict[str, tuple[str, Path]]:
    """Split of the folder, "train" or "test", and path of every image by its name, which has no extension."""
    images: dict[str, tuple[str, Path]] = {}
    for split, folder in FOLDERS.items():
        paths = sorted((raw / folder).glob("*/*.jpg"))
        if not paths:
            raise DataError(f"there is no SCENE/*.jpg in {raw / folder}, it is missing or empty: unpack it; {CURE}")
        for path in paths:
            if path.stem in images:
                raise DataError(
                    f"{path.name} is in {images[path.stem][1].parent} and {path.parent}: unpack again; {CURE}"
                )
            images[path.stem] = split, path
    return images


def _splits(folders: dict[str, str]) -> dict[str, str]:
    """The split of every image: the fixed folders, with the validation images drawn by hash of their name.

    The hash does not depend on the version of a random generator, nor on the order of the files.
    """
    training = [name for name, split in folders.items() if split == "train"]
    training.sort(key=lambda name: _hash(f"validation {name}"))
    return folders | dict.fromkeys(training[: round(VALIDATION * len(training))], "val")


def _labels_file(raw: Path) -> Path:
    """The corrected labels where they are, else the publishers' first ones."""
    return next((raw / name for name in LABELS if (raw / name).is_file()), raw / LABELS[-1])


def _completed(path: Path) -> str:
    """The cure of a file of labels that lacks images or classes; one of two files is never filled from the other."""
    corrected = f"complete it, or move it away and {LABELS[-1]} is read"
    return f"{corrected if path.name == LABELS[0] else 'download it again'}; {CURE}"


def _table(path: Path) -> dict[str, np.ndarray]:
    r"""The label (17,) bool of every image by its name: rows of 0 and 1 below IMAGE\LABEL and the classes.

    The columns may be in any order. No 1 at all is a label too.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")) if any(row)]
    except (OSError, ValueError, csv.Error) as error:
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error}): download it beside the folders of images; {CURE}") from error
    header = [cell.strip() for cell in rows[0][1:]] if rows else []
    if missing := [name for name in CLASSES if name not in header]:
        raise DataError(f"{path} has no column {', '.join(missing)}: {_completed(path)}")
    if len(header) > len(CLASSES):
        raise DataError(f"{path} has other columns than the names of images and {', '.join(CLASSES)}: {CURE}")
    columns = [header.index(name) for name in CLASSES]
    table: dict[str, np.ndarray] = {}
    for number, row in enumerate(rows[1:], start=1):
        name, cells = row[0].strip(), [cell.strip() for cell in row[1:]]
        if len(cells) != len(CLASSES) or not set(cells) <= {"0", "1"} or len(name) > LONGEST:
            what = f"{path} is damaged at row {number}, expected a name and 0 or 1 for each class"
            raise DataError(f"{what}: download it again; {CURE}")
        if name in table:
            raise DataError(f"{path} has {name} twice: download it again; {CURE}")
        table[name] = np.array([cells[column] == "1" for column in columns])
    return table


def _read(paths: list[Path], labels: np.ndarray, indices: list[int]) -> prepared.Patches:
    """Images (n,3,600,600) uint8, no class positions and labels (n,17) bool of these scenes."""
    return np.stack([_image(paths[i]) for i in indices]), None, labels[indices]


def _image(path: Path) -> np.ndarray:
    """The three colours (3,600,600) uint8; raises DataError when the file is missing, damaged or another."""
    expected = f"{SIZE} × {SIZE} pixels of RGB"
    try:
        # Pillow, not rasterio, as for DeepGlobe: faster, and the pixels that other tools have.
        with Image.open(path, formats=("JPEG",)) as image:
            found = f"{image.width} × {image.height} pixels of {image.mode}"
            if found == expected:
                image.load()
                return np.asarray(image).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # of Pillow
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error}): unpack its folder again; {CURE}") from error
    raise DataError(f"{path} has {found}, expected {expected}: unpack its folder again; {CURE}")
