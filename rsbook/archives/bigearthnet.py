"""BigEarthNet-S2, version 1.0 or 2.0 (reBEN): ten Sentinel-2 bands, 19 classes (data/bigearthnet/README.md)."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from pyarrow import ArrowException, parquet

from rsbook.archives import geotiff, prepared
from rsbook.scenes import DataError

BANDS = ("B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12")  # first those of 10 m, then of 20 m
SIZE = 120  # pixels of 10 m a side
NATIVE = dict.fromkeys(BANDS[:4], SIZE) | dict.fromkeys(BANDS[4:], SIZE // 2)  # pixels a side of the publisher's files

FARMS_IN_NATURE = "Land principally occupied by agriculture, with significant areas of natural vegetation"
# The 19 classes, each with the codes of CORINE Land Cover, level 3, and their names in version 1.0. The classes are
# "label_conversion" of label_indices.json in git.tu-berlin.de/rsim/BigEarthNet-S2_19-classes_models, which torchgeo
# (BigEarthNet.label_converter) and bigearthnet_common (OLD2NEW_LABELS_DICT) repeat; the codes, which the maps of
# version 2.0 hold, are CORINE's, as in torchgeo (BigEarthNetV2.clc_codes).
NOMENCLATURE = {
    "Urban fabric": {111: "Continuous urban fabric", 112: "Discontinuous urban fabric"},
    "Industrial or commercial units": {121: "Industrial or commercial units"},
    "Arable land": {211: "Non-irrigated arable land", 212: "Permanently irrigated land", 213: "Rice fields"},
    "Permanent crops": {221: "Vineyards", 222: "Fruit trees and berry plantations", 223: "Olive groves"}
    | {241: "Annual crops associated with permanent crops"},
    "Pastures": {231: "Pastures"},
    "Complex cultivation patterns": {242: "Complex cultivation patterns"},
    FARMS_IN_NATURE: {243: FARMS_IN_NATURE},
    "Agro-forestry areas": {244: "Agro-forestry areas"},
    "Broad-leaved forest": {311: "Broad-leaved forest"},
    "Coniferous forest": {312: "Coniferous forest"},
    "Mixed forest": {313: "Mixed forest"},
    "Natural grassland and sparsely vegetated areas": {321: "Natural grassland", 333: "Sparsely vegetated areas"},
    "Moors, heathland and sclerophyllous vegetation": {322: "Moors and heathland", 323: "Sclerophyllous vegetation"},
    "Transitional woodland, shrub": {324: "Transitional woodland/shrub"},
    "Beaches, dunes, sands": {331: "Beaches, dunes, sands"},
    "Inland wetlands": {411: "Inland marshes", 412: "Peatbogs"},
    "Coastal wetlands": {421: "Salt marshes", 422: "Salines"},
    "Inland waters": {511: "Water courses", 512: "Water bodies"},
    "Marine waters": {521: "Coastal lagoons", 522: "Estuaries", 523: "Sea and ocean"},
}
WITHOUT_CLASS = (  # the rest of level 3: dropped from labels, no bit in class positions
    *("Road and rail networks and associated land", "Port areas", "Airports", "Mineral extraction sites", "Dump sites"),
    *("Construction sites", "Green urban areas", "Sport and leisure facilities", "Bare rock", "Burnt areas"),
    *("Glaciers and perpetual snow", "Intertidal flats"),
)
CLASSES = tuple(NOMENCLATURE)
CLASS_OF = {old: new for new, codes in NOMENCLATURE.items() for old in (*codes.values(), new)}  # of either version
BITS = np.zeros(2**16, dtype=np.int32)  # of every value a map may hold; a code without a class carries no bit
for _bit, _codes in enumerate(NOMENCLATURE.values()):
    BITS[list(_codes)] = 1 << _bit

PACKED = ("BigEarthNet-S2*", "Reference_Maps*")  # the publisher's archives by name, without those of Sentinel-1
SPLITS = {"train": "train", "validation": "val", "test": "test"}  # the words of metadata.parquet → ours
EXCLUDED = ("patches_with_seasonal_snow", "patches_with_cloud_and_shadow")  # version 1.0 has them as lists
COLUMNS, FLAGS = ("patch_id", "labels", "split"), ("contains_seasonal_snow", "contains_cloud_or_shadow")
MOST_VALUES, MOST_BYTES = 2**24, 2**27  # of metadata.parquet and of a list: several times what the publisher's hold
LONGEST = 255  # characters of a name
TOGETHER = 64  # scenes of one reading: 18 MB of images
LOOKED_AT = 256  # maps compared with the labels before anything is converted
CURE = "`python -m rsbook data card bigearthnet` says what to unpack where"

PAPER = {"train": 250_249, "labels_per_scene": 2.95}  # Table I of arXiv 2405.13451
PUBLISHER = {  # its own splits, without snow, cloud and shadow
    "1.0": {"train": 269_695, "val": 123_723, "test": 125_866},
    "2.0": {"train": 237_871, "val": 122_342, "test": 119_825},
}

load = prepared.load


@dataclass(frozen=True)
class Layout:
    """Where the patches have their folders: in `images` and, if there are maps, in `maps`; version 2.0 by tile."""

    version: str
    images: Path
    maps: Path | None

    def folder(self, root: Path, patch: str) -> Path:
        """The patch's folder in `images` or `maps`; a tile is named as its patches without their two grid indices."""
        return root / patch.rsplit("_", 2)[0] / patch if self.version == "2.0" else root / patch


def source(raw: Path) -> prepared.Source:
    """What `raw` holds: BigEarthNet-S2/ (version 2.0) or BigEarthNet-v1.0/, with the publisher's splits and labels.

    Raises DataError for missing, unexpected or damaged files, with the cure.
    """
    v1, v2, maps = raw / "BigEarthNet-v1.0", raw / "BigEarthNet-S2", raw / "Reference_Maps"
    if v1.is_dir() == v2.is_dir():
        what = "both" if v1.is_dir() else "neither"
        raise DataError(f"{raw} holds {what} of {v1.name} and {v2.name}, expected one of them: {CURE}")
    if v2.is_dir():
        layout = Layout("2.0", v2, maps)
        splits, names, excluded = _from_metadata(raw / "metadata.parquet")
    else:
        layout = Layout("1.0", v1, maps if maps.is_dir() else None)
        splits, excluded = _from_lists(raw)
    if "train" not in splits.values():
        raise DataError(f"no scenes for training are listed in {raw}: download its lists again; {CURE}")
    unlisted = _check_folders(layout, layout.images, splits)
    if layout.maps is not None:
        _check_folders(layout, layout.maps, splits)
    if v1.is_dir():
        names = {patch: _names(layout.folder(v1, patch) / f"{patch}_labels_metadata.json") for patch in splits}

    # Neighbours in a tile look alike; ordered by hash, the first n scenes of a split are a fair sample everywhere.
    scenes = sorted(splits, key=lambda patch: hashlib.sha256(patch.encode()).digest())
    labels = np.stack([_label(names[patch], patch, raw) for patch in scenes])
    order = [splits[patch] for patch in scenes]
    found = {split: order.count(split) for split in SPLITS.values()}
    found["labels_per_scene"] = round(float(labels[np.array(order) == "train"].sum(axis=1).mean()), 2)
    found |= {"excluded_for_snow_cloud_or_shadow": excluded, "folders_not_listed": unlisted}
    if layout.maps is not None:
        found["maps_unlike_their_label"] = _compare(layout, scenes[:LOOKED_AT], labels)
    differ = [f"{name} {found[name]:,}, paper {value:,}" for name, value in PAPER.items() if found[name] != value]
    return prepared.Source(
        name="bigearthnet",
        version=f"BigEarthNet-S2 {layout.version}; rules 1",
        classes=CLASSES,
        bands=BANDS,
        rgb=(2, 1, 0),
        min_pixels=0,
        size=SIZE,
        dtype="uint16",
        has_positions=layout.maps is not None,
        scenes=scenes,
        splits=order,
        groups=[list(range(i, min(i + TOGETHER, len(scenes)))) for i in range(0, len(scenes), TOGETHER)],
        read=partial(_read, layout, scenes, labels),
        notes={"found": found, "publisher": PUBLISHER[layout.version], "paper": PAPER, "differ": differ},
        inputs=prepared.identify([*raw.glob("*.parquet"), *raw.glob("*.csv*")]),
    )


def _from_metadata(path: Path) -> tuple[dict[str, str], dict[str, list[str]], int]:
    """Split and class names of every patch of version 2.0, and how many were left out for snow, cloud or shadow."""
    table = _columns(path)
    flags = [table[name] for name in FLAGS if name in table]
    kept = [i for i in range(len(table["patch_id"])) if not any(flag[i] for flag in flags)]
    patches = [table["patch_id"][i] for i in kept]
    splits = {patch: table["split"][i] for patch, i in zip(patches, kept, strict=True)}
    if len(splits) < len(patches) or not set(splits.values()) <= set(SPLITS):
        raise DataError(f"{path} names a patch twice or a split other than {', '.join(SPLITS)}: {CURE}")
    labels = {patch: table["labels"][i] for patch, i in zip(patches, kept, strict=True)}
    return {patch: SPLITS[split] for patch, split in splits.items()}, labels, len(table["patch_id"]) - len(kept)


def _columns(path: Path) -> dict[str, list[Any]]:
    """The columns of metadata.parquet that are used and there, each as a list.

    What the file says of pandas, and of types that are not Parquet's own, is not looked at.
    """
    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in (*COLUMNS, *FLAGS) if name in file.schema_arrow.names]
            if missing := [name for name in COLUMNS if name not in names]:
                raise DataError(f"{path} has no column {', '.join(missing)}: download it again; {CURE}")
            if (values := _count(file.metadata, names)) > MOST_VALUES:
                raise ValueError(f"it claims to hold {values:,} values, expected at most {MOST_VALUES:,}")
            table = file.read(columns=names, use_threads=False).to_pydict()
        if wrong := [name for name in names if not all(_fits(name, value) for value in table[name])]:
            raise ValueError(f"values of another type in {', '.join(wrong)}")
    except (OSError, ValueError, KeyError, ArrowException) as error:
        what = "damaged" if path.is_file() else "missing"
        raise DataError(f"{path} is {what} ({error}): download it beside the unpacked folders; {CURE}") from error
    return table


def _fits(name: str, value: Any) -> bool:
    if name in FLAGS:
        return isinstance(value, bool)
    return _are_names(value if name == "labels" else [value])


def _count(metadata: parquet.FileMetaData, names: list[str]) -> int:
    """How many values these columns hold: one that is repeated costs nothing in the file, but much in memory."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    return sum(c.num_values for c in columns if c.path_in_schema.partition(".")[0] in names)


def _from_lists(raw: Path) -> tuple[dict[str, str], int]:
    """Split of every patch of version 1.0, and how many were left out for snow, cloud or shadow."""
    splits: dict[str, str] = {}
    for split in SPLITS.values():
        for patch in _listed(raw, split, required=True):
            if patch in splits:
                raise DataError(f"{patch} is in {splits[patch]}.csv and in {split}.csv of {raw}: {CURE}")
            splits[patch] = split
    kept = splits.keys() - {patch for name in EXCLUDED for patch in _listed(raw, name, required=False)}
    return {patch: split for patch, split in splits.items() if patch in kept}, len(splits) - len(kept)


def _listed(raw: Path, name: str, required: bool) -> list[str]:
    """The patches of name.csv or name.csv.gz: the first field of a line (a second is the patch of Sentinel-1)."""
    for path in (raw / f"{name}.csv", raw / f"{name}.csv.gz"):
        if path.is_file():
            try:
                with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                    content = file.read(MOST_BYTES + 1)
                if len(content) > MOST_BYTES:
                    raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
                fields = (line.partition(",")[0].strip(' "') for line in content.decode().splitlines())
                patches = [field for field in fields if field]
                if not patches or max(map(len, patches)) > LONGEST:
                    raise ValueError("it is no list of patches")
                return patches
            except (OSError, EOFError, ValueError, zlib.error) as error:
                raise DataError(f"{path} is damaged ({error}): download it again; {CURE}") from error
    if required:
        raise DataError(f"{raw / name}.csv is missing: download it beside the unpacked folder; {CURE}")
    return []


def _check_folders(layout: Layout, root: Path, patches: dict[str, str]) -> int:
    """How many folders under `root` are of no listed patch; raises DataError when a listed patch has none."""
    found = {path.name for path in root.glob("*/*" if layout.version == "2.0" else "*")}
    if missing := sorted(patches.keys() - found):
        first = layout.folder(root, missing[0])
        raise DataError(f"{first} is missing, with {len(missing) - 1} more of {len(patches)}: unpack it again; {CURE}")
    return len(found) - len(patches)


def _names(path: Path) -> list[str]:
    try:
        names = json.loads(path.read_text())["labels"]
        if not _are_names(names):
            raise ValueError("its labels are no list of names")
        return names
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"{'damaged' if path.is_file() else 'missing'} ({type(error).__name__}: {error})"
        raise DataError(f"{path} is {what}: unpack its archive again; {CURE}") from error


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and len(name) <= LONGEST for name in value)


def _label(names: Iterable[str], patch: str, raw: Path) -> np.ndarray:
    """The label (19,) bool of class names of either nomenclature; names without a class are dropped."""
    if unknown := sorted(set(names) - CLASS_OF.keys() - set(WITHOUT_CLASS)):
        what = f"{patch} of {raw} has the class {unknown[0]!r}, which is in neither nomenclature"
        raise DataError(f"{what}: download its labels again; {CURE}")
    present = {CLASS_OF.get(name) for name in names}
    return np.array([name in present for name in CLASSES])


def _compare(layout: Layout, patches: list[str], labels: np.ndarray) -> str:
    """How many of these maps hold other classes than the label, which stands: "3 of 256 looked at"."""
    bits = [np.bitwise_or.reduce(_positions(layout, patch), axis=None) for patch in patches]
    unlike = labels[: len(bits)] @ (1 << np.arange(len(CLASSES))) != bits
    return f"{unlike.sum()} of {len(bits)} looked at"


def _read(layout: Layout, scenes: list[str], labels: np.ndarray, indices: list[int]) -> prepared.Patches:
    """Images (n,10,120,120) uint16, class positions (n,120,120) int32 or None and labels (n,19) bool of these scenes.

    Raises DataError for a missing or damaged file.
    """
    patches = [scenes[i] for i in indices]
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):  # else every opening lists the folder first
        images = np.stack([_image(layout, patch) for patch in patches])
        maps = None if layout.maps is None else np.stack([_positions(layout, patch) for patch in patches])
    return images, maps, labels[indices]


def _image(layout: Layout, patch: str) -> np.ndarray:
    """Ten bands at 10 m; a pixel of 20 m becomes four equal ones, so that every stored value was measured."""
    folder = layout.folder(layout.images, patch)
    layers = {band: _raster(folder / f"{patch}_{band}.tif", NATIVE[band]) for band in BANDS}
    return np.stack([layer.repeat(SIZE // len(layer), 0).repeat(SIZE // len(layer), 1) for layer in layers.values()])


def _positions(layout: Layout, patch: str) -> np.ndarray:
    return BITS[_raster(layout.folder(layout.maps, patch) / f"{patch}_reference_map.tif", SIZE)]


def _raster(path: Path, size: int) -> np.ndarray:
    """The only band (size,size) uint16 of a GeoTIFF; raises DataError when it is missing, damaged or another."""
    return geotiff.read(path, (1, size, size), "uint16", f"unpack its archive again; {CURE}")[0]
