"""Pascal VOC 2012: photographs with maps of 20 kinds of objects, and those that SBD adds (data/voc/README.md)."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from rsbook import scenes
from rsbook.archives import prepared
from rsbook.scenes import DataError

OBJECTS = (  # the publishers' indices 1 … 20, in their order
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CLASSES = (*OBJECTS, "background")
SIZE = 500  # pixels a side, to which images and maps are padded at the right and at the bottom
PADDING = (124, 116, 104)  # the mean colour of ImageNet; a map has no class there
IGNORE = 255  # in the publishers' maps: the borders of objects, and what is too difficult
VALIDATION = 0.1  # of the images of the training list
TOGETHER = 8  # images of one reading: 14 MB with their maps
VOC = Path("VOCdevkit", "VOC2012")
SBD = Path("benchmark_RELEASE", "dataset")
LISTS = {"train": "train.txt", "test": "val.txt"}  # VOC's, by our split
LISTS_SBD = ("train.txt", "val.txt")  # both: they are split in another way than VOC's
NAME = r"[0-9]{4}_[0-9]{6}"
PACKED = ("VOCtrainval*", "benchmark*")
CURE = "`python -m rsbook data card voc` says what to unpack where"

PAPER = {"train_list": 1464, "test": 1449, "augmented": 10_582}

BITS = np.zeros(256, dtype=np.int32)  # the class bit of each index in the publishers' maps
BITS[: len(CLASSES)] = [1 << len(OBJECTS), *(1 << i for i in range(len(OBJECTS)))]

# Of MATLAB's files of level 5: the version and the order of bytes in the header, kinds of elements, classes of arrays.
LEVEL_5 = b"\x00\x01IM"
UINT8_VALUES, MATRIX, COMPRESSED = 2, 14, 15
STRUCT, UINT8 = 2, 9
MOST_BYTES = 2**23  # of a file of SBD, packed or unpacked; its map has up to 250,000
MOST_PARTS = 64  # of an array


@dataclass(frozen=True)
class Source(prepared.Source):
    """A source of padded images, whose statistics leave the padding out.

    sizes: height and width of each image without it · lists: of each scene, "voc" or "sbd", by whose list it is here.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    lists: list[str] = field(default_factory=list)

    def tables(self, folder: Path, sums: list[int], squares: list[int]) -> dict[str, str]:
        """scenes.csv (scene, split, list, height, width) and manifest.json, by name, of the arrays in `folder`."""
        tables = super().tables(folder, sums, squares)
        pixels = sum(h * w for (h, w), split in zip(self.sizes, self.splits, strict=True) if split == "train")
        padded = self.splits.count("train") * self.size**2 - pixels
        sums = [s - padded * value for s, value in zip(sums, PADDING, strict=True)]
        squares = [q - padded * value**2 for q, value in zip(squares, PADDING, strict=True)]
        mean, std = prepared._moments(pixels, sums, squares)
        manifest = json.loads(tables["manifest.json"]) | {"mean": mean, "std": std}
        rows = zip(self.scenes, self.splits, self.lists, *zip(*self.sizes, strict=True), strict=True)
        table = prepared.to_csv(["scene", "split", "list", "height", "width"], rows)
        return {"scenes.csv": table, "manifest.json": prepared.to_json(manifest)}


def load(folder: Path, checksum: str) -> scenes.Scenes:
    """The prepared archive in `folder` as Scenes; what SBD adds is split "extra", which is there only with SBD.

    Raises DataError as `prepared.load` does.
    """
    import torch  # here: preparing does without it

    data, path = prepared.load(folder, checksum), folder / "scenes.csv"
    with prepared.explained(path), path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
        lists = [row["list"] for row in rows]
        if strange := sorted(map(str, set(lists) - {"voc", "sbd"})):
            raise ValueError(f"{strange[0]!r:.50} is no list")
        sizes = torch.tensor([[int(row["height"]), int(row["width"])] for row in rows])
        if len(sizes) and not 1 <= sizes.min() <= sizes.max() <= SIZE:
            raise ValueError(f"a height or width is outside 1 … {SIZE}")
    added, train = torch.tensor([name == "sbd" for name in lists]), data.split("train")
    if not added.any():
        return replace(data, sizes=sizes)
    return replace(
        data, sizes=sizes, splits={**data.splits, "train": train[~added[train]], "extra": train[added[train]]}
    )


def source(raw: Path) -> Source:
    """The images of VOC's segmentation lists in `raw`, and those that SBD adds for training where it is there.

    A tenth of VOC's training list is for validation, VOC's validation list for testing. Raises DataError for missing,
    unexpected or damaged files, with the cure.
    """
    paths = {split: raw / VOC / "ImageSets" / "Segmentation" / name for split, name in LISTS.items()}
    listed = {split: _names(path, VOC) for split, path in paths.items()}
    if both := sorted(listed["train"] & listed["test"]):
        raise DataError(f"{both[0]} is in {paths['train']} and {paths['test']}: {_again(VOC)}")
    texts, extra = list(paths.values()), set[str]()
    if (raw / SBD.parts[0]).exists():
        texts += (added := [raw / SBD / name for name in LISTS_SBD])
        extra = set.union(*(_names(path, SBD) for path in added)) - listed["train"] - listed["test"]
    # Ordered by hash, the first n images of a split are a fair sample of its years.
    names = sorted(listed["train"] | listed["test"] | extra, key=_hash)
    images, maps = _files(raw, names, extra)
    held_out = sorted(listed["train"], key=lambda name: _hash(f"validation {name}"))
    split_of = dict.fromkeys(names, "train") | dict.fromkeys(listed["test"], "test")
    split_of |= dict.fromkeys(held_out[: round(VALIDATION * len(held_out))], "val")
    splits = [split_of[name] for name in names]
    groups = [list(range(i, min(i + TOGETHER, len(names)))) for i in range(0, len(names), TOGETHER)]
    found = {
        "images": len(names),
        "train_list": len(listed["train"]),
        "train": splits.count("train") - len(extra),
        **{split: splits.count(split) for split in ("val", "test")},
        **({"extra": len(extra), "augmented": len(listed["train"]) + len(extra)} if extra else {}),
    }
    papers = {name: value for name, value in PAPER.items() if name in found}
    return Source(
        name="voc",
        version=f"VOC 2012{' and SBD' if extra else ''}; rules 1",
        classes=CLASSES,
        bands=("red", "green", "blue"),
        rgb=(0, 1, 2),
        min_pixels=0,
        size=SIZE,
        dtype="uint8",
        has_positions=True,
        scenes=names,
        splits=splits,
        groups=groups,
        read=partial(_read, images, maps),
        notes={
            "found": found,
            "paper": papers,
            "differ": [f"{k} {found[k]:,}, paper {value:,}" for k, value in papers.items() if found[k] != value],
        },
        inputs=prepared.identify(texts),
        group_inputs=[prepared.identify([files[i] for files in (images, maps) for i in group]) for group in groups],
        sizes=[_size(path) for path in images],
        lists=["sbd" if name in extra else "voc" for name in names],
    )


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _again(archive: Path) -> str:
    return f"unpack {archive.parts[0]} again; {CURE}"


def _names(path: Path, archive: Path) -> set[str]:
    """The images that a list names, one a line; raises DataError for a list that is missing, damaged or empty."""
    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error}): {_again(archive)}") from error
    strange = next((line for line in lines if not re.fullmatch(NAME, line)), None)
    if strange is not None or len(set(lines)) < len(lines) or not lines:
        what = "names an image twice" if lines else "is empty"
        what = what if strange is None else f"names {strange!r:.50}"
        raise DataError(f"{path} {what}, expected images as 2007_000032, each once: {_again(archive)}")
    return set(lines)


def _files(raw: Path, names: list[str], extra: set[str]) -> tuple[list[Path], list[Path]]:
    """Image and map of each name, the map of those in `extra` from SBD; raises DataError where one is missing."""
    images = [raw / VOC / "JPEGImages" / f"{name}.jpg" for name in names]
    maps = [
        raw / SBD / "cls" / f"{name}.mat" if name in extra else raw / VOC / "SegmentationClass" / f"{name}.png"
        for name in names
    ]
    if missing := [path for path in (*images, *maps) if not path.is_file()]:
        more = f", with {len(missing) - 1} more of the {2 * len(names)} images and maps" if len(missing) > 1 else ""
        lists = raw / (SBD if missing[0].stem in extra else VOC / "ImageSets" / "Segmentation")
        archive = SBD if missing[0].suffix == ".mat" else VOC
        raise DataError(f"{missing[0]} is missing{more}, which the lists in {lists} name: {_again(archive)}")
    return images, maps


def _read(image_paths: list[Path], map_paths: list[Path], indices: list[int]) -> prepared.Patches:
    """Images (n,3,500,500) uint8, positions (n,500,500) int32 and labels (n,21) bool of these scenes, padded."""
    n = len(indices)
    images = np.broadcast_to(np.array(PADDING, dtype=np.uint8)[:, None, None], (n, 3, SIZE, SIZE)).copy()
    positions = np.zeros((n, SIZE, SIZE), dtype=np.int32)
    for row, i in enumerate(indices):
        image, classes = _image(image_paths[i]), _map(map_paths[i])
        height, width = classes.shape
        if image.shape[1:] != classes.shape:
            expected = f"expected {image.shape[2]} × {image.shape[1]} as {image_paths[i].name} has"
            raise DataError(f"{map_paths[i]} has {width} × {height} pixels, {expected}: unpack both again; {CURE}")
        images[row, :, :height, :width] = image
        positions[row, :height, :width] = BITS[classes]
    present = np.bitwise_or.reduce(positions.reshape(n, -1), axis=1)
    return images, positions, (present[:, None] >> np.arange(len(CLASSES)) & 1).astype(bool)


@contextmanager
def _opened(path: Path, kind: str, modes: tuple[str, ...]) -> Iterator[Image.Image]:
    """An image of one of these modes, opened and not yet decoded.

    Raises DataError when it is missing, damaged, of another mode or over 500 × 500 pixels.
    """
    try:
        with Image.open(path, formats=(kind,)) as image:
            if image.mode not in modes or not 0 < min(image.size) <= max(image.size) <= SIZE:
                expected = f"expected at most {SIZE} × {SIZE} of {' or '.join(modes)}"
                what = f"{image.width} × {image.height} pixels of {image.mode}, {expected}"
                raise DataError(f"{path} has {what}: {_again(VOC)}")
            yield image
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:  # of Pillow
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error}): {_again(VOC)}") from error


def _size(path: Path) -> tuple[int, int]:
    """Height and width of an image, which is not decoded."""
    with _opened(path, "JPEG", ("RGB", "L")) as image:
        return image.height, image.width


def _image(path: Path) -> np.ndarray:
    """The three colours (3,H,W) uint8 of a JPEG."""
    # Pillow, not rasterio, as for DeepGlobe: faster, and the pixels that other tools have.
    with _opened(path, "JPEG", ("RGB", "L")) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _map(path: Path) -> np.ndarray:
    """The class of each pixel (H,W) uint8: 0 … 20 or 255, of a PNG with a palette or of a file of SBD."""
    archive = SBD if path.suffix == ".mat" else VOC
    if archive == VOC:
        with _opened(path, "PNG", ("P",)) as image:
            classes = np.asarray(image)
    else:
        classes = _segmentation(path)
    if (strange := (classes >= len(CLASSES)) & (classes != IGNORE)).any():
        row, column = np.argwhere(strange)[0]
        what = f"class {classes[row, column]} at row {row}, column {column}"
        raise DataError(f"{path} has {what}, expected 0 … {len(OBJECTS)} or {IGNORE}: {_again(archive)}")
    return classes


def _segmentation(path: Path) -> np.ndarray:
    """GTcls.Segmentation (H,W) uint8 of a MATLAB file of level 5; raises DataError for anything else.

    Not by scipy.io.loadmat, which makes as many cells as a file claims to have before it looks for them.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if content[124:128] != LEVEL_5 or len(content) > MOST_BYTES:
            raise ValueError(f"expected a MATLAB file of level 5 of at most {MOST_BYTES:,} bytes")
        kind, body = next(_elements(content[128:]), (0, b""))
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            content = stream.decompress(body, MOST_BYTES)
            if not stream.eof:
                raise ValueError(f"cut off, or over {MOST_BYTES:,} bytes unpacked")
            kind, body = next(_elements(content), (0, b""))
        *found, parts = _matrix(kind, body)
        if found != [STRUCT, (1, 1), b"GTcls"]:
            raise ValueError("expected the struct GTcls at its beginning")
        [(_, width), (_, names), *fields] = parts
        step = int.from_bytes(width, "little")
        names = [bytes(names[at : at + step]).rstrip(b"\0") for at in range(0, len(names), step)]
        number, shape, _, values = _matrix(*dict(zip(names, fields, strict=True))[b"Segmentation"])
        (stored, content), *_ = values
        if (number, stored, len(shape)) != (UINT8, UINT8_VALUES, 2) or not 0 < min(shape) <= max(shape) <= SIZE:
            raise ValueError(f"Segmentation is {shape!s:.50}, expected at most {SIZE} × {SIZE} of uint8")
        return np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F")
    except (OSError, LookupError, ValueError, TypeError, struct.error, zlib.error) as error:
        what = f"damaged ({type(error).__name__}: {error!s:.200})" if path.is_file() else "missing"
        raise DataError(f"{path} is {what}: {_again(SBD)}") from error


def _elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and content of each element; raises ValueError for one that is longer than what is there."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from("<LL", content, at)
        start, room = at + 8, len(content) - at - 8
        if kind >> 16:  # a small one has its content in what is else its size
            kind, size, start, room = kind & 0xFFFF, kind >> 16, at + 4, 4
        if size > room:
            raise ValueError(f"an element of {size:,} bytes where {room:,} are left")
        yield kind, content[start : start + size]
        at += 8 if start == at + 4 else 8 + size + -size % 8


def _matrix(kind: int, content: bytes) -> tuple[int, tuple[int, ...], bytes, list[tuple[int, bytes]]]:
    """Class, shape and name of an array, and its other elements."""
    if kind != MATRIX:
        raise ValueError(f"an element of kind {kind}, expected an array")
    (_, flags), (_, shape), (_, name), *parts = islice(_elements(content), MOST_PARTS)
    return flags[0], tuple(np.frombuffer(shape, dtype="<i4").tolist()), bytes(name), parts
