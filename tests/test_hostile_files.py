"""Whatever lies in the place of a file that rsbook reads: no code of it runs, and it is read or refused by name.

Three attacks on every reader: a pickle that would leave a file behind when it is loaded, in every form that something
in Python loads by itself; damage at random, seeded; and headers that claim far more than is there.
"""

import gzip
import hashlib
import io
import json
import pickle
import random
import resource
import shutil
import struct
import subprocess
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import make_archives
import make_archives_aid
import make_archives_bigearthnet
import make_archives_crops
import make_archives_sentinel
import make_archives_treesatai
import make_archives_voc
import numpy as np
import pandas as pd
import pyarrow
import pytest
import rasterio
import torch
from PIL import Image
from pyarrow import parquet
from safetensors import SafetensorError
from scipy.io import loadmat
from torch import nn
from zoo import notebook

from rsbook import checkpoints, cli, pages, planning, preparing, published, results, runs, scenes, series, unpacking
from rsbook.archives import aid, bigearthnet, breizhcrops, deepglobe, denethor, dfc2020, ssl4eo, treesatai, voc
from rsbook.parameters import BatchError, UsageError
from rsbook.runs import RunError
from rsbook.scenes import DataError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
ARCHIVES = ("unpacked.zip", "unpacked.tar.gz", "unpacked.tar.zst")


@dataclass(frozen=True)
class Target:
    """A file, what reads it, the errors that may be raised, and whether what is read is of the right type."""

    path: Path
    read: Callable
    errors: tuple = (DataError,)
    sound: Callable = lambda value: True
    before: Callable = lambda: None


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A file of every kind that rsbook reads, small, with its reader."""
    root = tmp_path_factory.mktemp("house")
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of affine
        make_archives.make_deepglobe(root / "deepglobe" / "raw" / "train", tiles=5, size=250)
        make_archives_bigearthnet.make_v2(root / "v2", rng)
        make_archives_bigearthnet.make_v1(root / "v1", rng)
        (root / "treesatai").mkdir()
        make_archives_treesatai.make(root / "treesatai", rng)
        make_archives_aid.make(root / "aid", rng)
        make_archives_sentinel.make_ssl4eo(root / "ssl4eo", rng)
        make_archives_sentinel.make_dfc2020(root / "dfc2020", rng)
        make_archives_crops.make_denethor(root / "denethor" / "raw", rng)
        make_archives_crops.make_breizhcrops(root / "breizhcrops", rng)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(denethor, "DRAWN", {"train": 9, "val": 3})
            patch.setattr(denethor, "PAIRS", 50)
            preparing.prepare("denethor", root, workers=0, progress=False)
        make_bluemarble(root / "bluemarble", rng)
        make_vegetation(root / "bluemarble_vegetation", rng)
        make_archives_voc.make(root / "voc" / "raw", rng)
    for name in ("deepglobe", "voc"):
        preparing.prepare(name, root, workers=0, progress=False)
    return root, {
        **targets_of_archives(root),
        **targets_of_crops(root),
        **targets_of_voc(root / "voc"),
        **targets_of_prepared(root / "deepglobe"),
        **targets_of_series(root / "denethor"),
        **targets_of_bluemarble(root / "bluemarble"),
        **targets_of_vegetation(root / "bluemarble_vegetation"),
        **targets_of_runs(root / "runs"),
        **targets_of_tables(root / "tables"),
        **targets_of_notebooks(root / "book"),
        **targets_of_downloads(root / "downloads"),
    }


def targets_of_archives(root):
    """What publishers ship."""
    tile = next((root / "deepglobe" / "raw" / "train").glob("*_sat.jpg"))
    mask = tile.with_name(tile.name.replace("_sat.jpg", "_mask.png"))
    band = next(root.glob("v2/BigEarthNet-S2/*/*/*_B02.tif"))
    plain_band = next(root.glob("v1/BigEarthNet-v1.0/*/*_B05.tif"))
    names = next(root.glob("v1/BigEarthNet-v1.0/*/*.json"))
    aerial = next(root.glob("treesatai/aerial_60m_abies/*.tif"))
    shares = root / "treesatai" / "labels" / treesatai.LABELS
    listed = root / "treesatai" / "train_filenames.lst"
    scene, table = root / "aid" / "images_tr" / "Port" / "port_9.jpg", root / "aid" / "multilabel.csv"
    radar = next(root.glob("ssl4eo/s1/0000011/*/VV.tif"))
    optical = next(root.glob("ssl4eo/s2c/0000011/*/B5.tif"))
    noisy = next(root.glob("ssl4eo/dw_noisy_labels/0000011/*/label.tif"))
    patch = {kind: root / f"dfc2020/ROIs0000_test/{kind}_0/ROIs0000_test_{kind}_0_p0.tif" for kind in dfc2020.FILES}
    packed_list = root / "v1" / "val.csv.gz"
    packed_list.write_bytes(gzip.compress((root / "v1" / "val.csv").read_bytes()))
    (root / "v1" / "val.csv").unlink()

    def is_source(source):
        return len(source.scenes) > 0

    def image(shape, dtype):
        return lambda array: (array.shape, array.dtype) == (shape, np.dtype(dtype))

    return {
        "JPEG": Target(tile, lambda: deepglobe._read_image(tile, [(0, 0)]), sound=image((1, 3, 120, 120), "uint8")),
        "PNG": Target(mask, lambda: deepglobe._look(mask.parent, mask.name.split("_")[0])),
        "GeoTIFF": Target(band, lambda: bigearthnet._raster(band, 120), sound=image((120, 120), "uint16")),
        "GeoTIFF without compression": Target(
            plain_band, lambda: bigearthnet._raster(plain_band, 60), sound=image((60, 60), "uint16")
        ),
        "GeoTIFF of four bands": Target(aerial, lambda: treesatai._image(aerial), sound=image((4, 304, 304), "uint8")),
        "radar": Target(
            radar, lambda: ssl4eo._band(radar.parent, "VV", ssl4eo.RADAR_TYPES), sound=image((1, 264, 264), "uint8")
        ),
        "optical band": Target(
            optical,
            lambda: ssl4eo._band(optical.parent, "B5", ssl4eo.OPTICAL_TYPES),
            sound=image((1, 264, 264), "uint8"),
        ),
        "noisy label": Target(noisy, lambda: ssl4eo._positions(noisy), sound=image((264, 264), "int32")),
        "radar of a patch": Target(
            patch["s1"], lambda: dfc2020._layers(patch["s1"], "s1"), sound=lambda array: array.shape == (2, 256, 256)
        ),
        "bands of a patch": Target(
            patch["s2"], lambda: dfc2020._layers(patch["s2"], "s2"), sound=image((13, 256, 256), "uint16")
        ),
        "map of a patch": Target(
            patch["dfc"], lambda: dfc2020._layers(patch["dfc"], "dfc"), sound=lambda array: array.shape == (1, 256, 256)
        ),
        "Parquet": Target(root / "v2" / "metadata.parquet", lambda: bigearthnet.source(root / "v2"), sound=is_source),
        "labels of a patch": Target(names, lambda: bigearthnet.source(root / "v1"), sound=is_source),
        "list of patches": Target(root / "v1" / "train.csv", lambda: bigearthnet.source(root / "v1"), sound=is_source),
        "packed list": Target(packed_list, lambda: bigearthnet.source(root / "v1"), sound=is_source),
        "shares": Target(shares, lambda: treesatai.source(root / "treesatai"), sound=is_source),
        "list of images": Target(listed, lambda: treesatai.source(root / "treesatai"), sound=is_source),
        "JPEG of a scene": Target(scene, lambda: aid._image(scene), sound=image((3, 600, 600), "uint8")),
        "table of labels": Target(table, lambda: aid.source(root / "aid"), sound=is_source),
    }


def targets_of_crops(root):
    """What publishers ship of series: HDF5, pickles that are only looked at, field boundaries, tables."""
    raw, part = root / "denethor" / "raw", root / "breizhcrops" / "2018" / "L1C" / "frh01.csv"
    bands = next(raw.glob("*train*/*_2018/bands.npy"))
    box, stamps = bands.with_name("bbox.pkl"), bands.with_name("timestamp.pkl")
    labels = next(raw.glob("*train_labels/*/labels.geojson"))
    planet = next(raw.glob("*train_source_planet/*/sr.tif"))
    codes = root / "breizhcrops" / "classmapping.csv"
    with h5py.File(part.with_suffix(".h5")) as file:
        folder = file["breizhcrops_dataset/2018/L1C/frh01/csv"]
        name = next(found.name for found in folder.values() if len(found) > 142)
    known = breizhcrops._codes(codes)
    return {
        "stack of bands": Target(bands, lambda: denethor._map(bands), sound=lambda array: array.ndim == 4),
        "pickled corners": Target(box, lambda: denethor._bounds(box), sound=lambda found: len(found) == 4),
        "pickled dates": Target(stamps, lambda: denethor._dates(stamps, 6, 2018), sound=lambda found: len(found) == 6),
        "field boundaries": Target(labels, lambda: denethor._fields(labels), sound=lambda found: len(found) == 3),
        "image of Planet": Target(
            planet, lambda: denethor._around(planet, 120, np.arange(9)), sound=lambda array: array.shape == (9, 36)
        ),
        "HDF5": Target(
            part.with_suffix(".h5"),
            lambda: breizhcrops._series([part.with_suffix(".h5")], [(0, name, 1)]),
            sound=lambda found: found[0].shape[1:] == (17,),
        ),
        "index of fields": Target(part, lambda: breizhcrops._fields({"frh01": part}, known)),
        "codes of cultures": Target(codes, lambda: breizhcrops._codes(codes)),
    }


def targets_of_voc(folder):
    """Photographs, maps in two formats and their lists; and what has been written of them beyond what others have."""
    raw, first = folder / "raw", "2007_000032"
    photo, painted = (raw / voc.VOC / name for name in (f"JPEGImages/{first}.jpg", f"SegmentationClass/{first}.png"))
    packed, plain = (raw / voc.SBD / "cls" / f"{name}.mat" for name in ("2008_000002", "2008_000015"))
    listed = {"list of photographs": raw / voc.VOC / "ImageSets" / "Segmentation" / "train.txt"}
    listed |= {"list of SBD": raw / voc.SBD / "val.txt"}

    def is_map(classes):
        return classes.dtype == np.uint8 and classes.ndim == 2 and max(classes.shape) <= 500

    def is_image(image):
        return image.dtype == np.uint8 and image.ndim == 3 and len(image) == 3 and max(image.shape) <= 500

    maps = {"PNG with a palette": painted, "MATLAB": packed, "MATLAB without compression": plain}
    table = folder / "scenes.csv"
    return {
        "photograph": Target(photo, lambda: voc._image(photo), sound=is_image),
        **{name: Target(path, lambda path=path: voc._map(path), sound=is_map) for name, path in maps.items()},
        **{
            name: Target(path, lambda: voc.source(raw), sound=lambda source: len(source.scenes) > 0)
            for name, path in listed.items()
        },
        "voc scenes.csv": Target(
            table, lambda: voc.load(folder, ""), sound=lambda data: isinstance(data, scenes.Scenes)
        ),
    }


def targets_of_series(folder):
    """What `rsbook.preparing` has written of an archive of series."""

    def load():
        data = series.load("denethor", "brandenburg_2018", 2, 1, folder.parent)
        preparing.summary(folder)
        return data, series.load_pairs("denethor", "brandenburg_2018", 60, folder.parent)

    def is_whole(found):
        return isinstance(found[0], series.Series) and found[1].planet.shape == (60, 36)

    names = ("series.npy", "pairs_s2.npy", "pairs_planet.npy", "pixels.csv", "manifest.json")
    return {
        f"denethor {name}": Target(folder / name, load, (DataError, ValueError), is_whole, lambda: resum(folder))
        for name in names
    }


def resum(folder):
    """A manifest that fits the files: the sha256 is no help against who makes both."""
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name[0] not in ".S"]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in paths]
    (folder / "SHA256SUMS").write_text("".join(lines))


def targets_of_prepared(folder):
    """What `rsbook.preparing` has written, and what it keeps beside it."""
    root = folder.parent

    def load():
        data = scenes.load("deepglobe", root)
        preparing.summary(folder)
        return data

    def anew():
        (folder / "SHA256SUMS").unlink()
        preparing.prepare("deepglobe", root, workers=0, progress=False)
        return scenes.load("deepglobe", root)

    def is_whole(data):
        return isinstance(data, scenes.Scenes) and data.images.dtype in (torch.uint8, torch.uint16)

    names = ("images.npy", "positions.npy", "labels.npy", "scenes.csv", "manifest.json")
    (folder / preparing.WORK).mkdir(exist_ok=True)
    found = {
        f"prepared {name}": Target(folder / name, load, sound=is_whole, before=lambda: resum(folder)) for name in names
    }
    return found | {
        "SHA256SUMS": Target(folder / "SHA256SUMS", load, sound=is_whole),
        "stamp": Target(folder / scenes.STAMP, load, (), is_whole),
        "journal": Target(folder / preparing.WORK / preparing.JOURNAL, anew, (), is_whole),
        "marks": Target(folder / unpacking.MARKS, anew, (), is_whole),
    }


def make_bluemarble(folder, rng):
    folder.mkdir()
    grid = {"driver": "GTiff", "height": 64, "width": 96, "dtype": "uint8"}
    for name, layers in (("image", rng.integers(0, 256, (3, 64, 96))), ("igbp", rng.integers(0, 17, (1, 64, 96)))):
        with rasterio.open(folder / f"{name}.tif", "w", count=len(layers), compress="deflate", **grid) as file:
            file.write(layers.astype(np.uint8))
    rows = [(row, column, "train") for row in (0, 32) for column in (0, 32, 64)]
    (folder / "scenes.csv").write_text("row,column,split\n" + "".join(f"{r},{c},{s}\n" for r, c, s in rows))


def targets_of_bluemarble(folder):
    def load():
        return scenes.load("bluemarble", folder.parent)

    return {
        f"bluemarble {name}": Target(folder / name, load, before=lambda: resum(folder))
        for name in ("image.tif", "igbp.tif", "scenes.csv")
    }


def make_vegetation(folder, rng):
    folder.mkdir()
    grid = {"driver": "GTiff", "height": 64, "width": 96, "count": 2, "dtype": "uint8", "compress": "deflate"}
    with rasterio.open(folder / "vegetation.tif", "w", **grid) as file:
        file.write(rng.integers(0, 256, (2, 64, 96), dtype=np.uint8))


def targets_of_vegetation(folder):
    """What is added to the scenes of another folder."""

    def seal():
        names = ("vegetation.tif", *(f"../bluemarble/{name}" for name in ("image.tif", "igbp.tif", "scenes.csv")))
        lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
        (folder / "SHA256SUMS").write_text("".join(lines))

    def load():
        return scenes.load("bluemarble_vegetation", folder.parent)

    return {
        "vegetation.tif": Target(
            folder / "vegetation.tif", load, sound=lambda data: data.images.shape == (6, 5, 32, 32), before=seal
        )
    }


def double(number, root=None, device=None, checkpoint=None):
    """A run, for a record."""
    return {"twice": 2 * number}


def targets_of_runs(store):
    """A record of a run, weights, and a state of a training."""
    [record] = [Path(p) for p in runs.table(double, [{"number": 1}], store=store, workers=0, progress=False)["record"]]
    model = nn.Linear(3, 2)
    name = checkpoints.save_weights(model, store)
    weights = checkpoints.weights_path(store, name)
    optimiser = torch.optim.AdamW(model.parameters())

    def restore():
        with pytest.warns(UserWarning, match="cannot be read .*: training starts from the beginning"):
            return checkpoints.Checkpoint(state, {"a": 1}, "score").restore(model, optimiser)

    def load_by_its_own_name():
        own = hashlib.sha256(weights.read_bytes()).hexdigest()[:32]
        checkpoints.weights_path(store, own).write_bytes(weights.read_bytes())
        checkpoints.load_weights(model, store, own)

    state = store / "state.safetensors"
    checkpoints.write(state, {"epoch": 1, "settings": {"a": 1}, "history": []}, {"model/weight": torch.ones(2, 3)})
    return {
        "record": Target(record, lambda: runs.load_record(record.parent, record.stem), (RunError,)),
        "weights": Target(weights, lambda: checkpoints.load_weights(model, store, name), (ValueError,)),
        "weights of another": Target(weights, load_by_its_own_name, (ValueError, SafetensorError)),
        "state of a training": Target(state, restore, ()),
    }


def targets_of_tables(folder):
    """The papers' tables and archived results."""
    folder.mkdir()
    (folder / "table.csv").write_text(
        "section,page,method,area_range,map_macro\nIV,3,none,,78\nIV,3,cutmix,0.3-0.7,80\n"
    )
    columns = "method,area_range,seed,map_macro,average_precision,commit\n"
    (folder / "runs.csv").write_text(f'{columns}cutmix,"[0.3, 0.7]",42,0.8,"[0.5, 0.6]",abc\n')
    (folder / "runs.json").write_text(json.dumps({"about": "made up", "seeds": [42], "runs": 1}))

    def archived():
        return results.load("runs", folder)

    def table():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(published, "FOLDER", folder)
            return published.table("table")

    def is_archived(found):
        return isinstance(found[0], pd.DataFrame) and isinstance(found[1], dict)

    return {
        "published table": Target(folder / "table.csv", table, (ValueError,), lambda t: isinstance(t, pd.DataFrame)),
        "archived results": Target(folder / "runs.csv", archived, (ValueError,), is_archived),
        "receipt of results": Target(folder / "runs.json", archived, (ValueError,), is_archived),
    }


def targets_of_notebooks(root):
    """A source notebook, and an executed one, of which a page tells."""
    source, executed = root / "notebooks" / "part" / "one.ipynb", root / "executed" / "part" / "one.ipynb"
    for path in (source, executed):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(notebook('preset: str = "quick"', "1 + 1")))

    def read():
        return planning.plan(["part/one"], {}, root)

    return {
        "notebook": Target(source, read, (BatchError,), lambda plan: list(plan) == ["part/one"]),
        "executed notebook": Target(executed, lambda: pages.collect(root / "executed"), (), lambda p: len(p) == 1),
    }


def targets_of_downloads(folder):
    folder.mkdir()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("a", "b")
    found = {}
    for name in ARCHIVES:
        (folder / name).write_bytes(content.getvalue())
        read = lambda path=folder / name: unpacking.unpack(path, folder / "target")  # noqa: E731
        found[name] = Target(folder / name, read)
    return found


NAMES = (
    *("JPEG", "PNG", "GeoTIFF", "GeoTIFF without compression", "GeoTIFF of four bands", "Parquet"),
    *("labels of a patch", "list of patches", "packed list", "shares", "list of images"),
    *("JPEG of a scene", "table of labels", "photograph", "PNG with a palette", "MATLAB"),
    *("MATLAB without compression", "list of photographs", "list of SBD", "voc scenes.csv"),
    *("radar", "optical band", "noisy label", "radar of a patch", "bands of a patch", "map of a patch"),
    *("prepared images.npy", "prepared positions.npy", "prepared labels.npy", "prepared scenes.csv"),
    *("stack of bands", "pickled corners", "pickled dates", "field boundaries", "image of Planet"),
    *("HDF5", "index of fields", "codes of cultures", "denethor series.npy", "denethor pairs_s2.npy"),
    *("denethor pairs_planet.npy", "denethor pixels.csv", "denethor manifest.json"),
    *("prepared manifest.json", "SHA256SUMS", "stamp", "journal", "marks"),
    *("bluemarble image.tif", "bluemarble igbp.tif", "bluemarble scenes.csv", "vegetation.tif"),
    *("record", "weights", "weights of another", "state of a training"),
    *("published table", "archived results", "receipt of results", "notebook", "executed notebook", *ARCHIVES),
)
# What any text may be, or is left aside where it is none of ours: here the canary alone must not be there.
MAY_BE_READ = (
    *("list of patches", "packed list", "list of images", "published table", "receipt of results"),
    *("stamp", "journal", "marks", "executed notebook", "unpacked.zip"),
)


@pytest.fixture
def target(house, request):
    """One of these files, which is as it was when the test has ended."""
    _, targets = house
    assert sorted(targets) == sorted(NAMES)
    one = targets[request.param]
    before = one.path.read_bytes() if one.path.is_file() else None
    sums = one.path.parent / "SHA256SUMS"
    listed = sums.read_bytes() if sums.is_file() else None
    yield one
    one.path.unlink(missing_ok=True)
    if before is not None:
        one.path.write_bytes(before)
    if listed is not None:
        sums.write_bytes(listed)


def attack(target, content):
    """What comes of reading this content in the file's place: the value, or the error that refuses it by name."""
    target.path.parent.mkdir(exist_ok=True)
    target.path.write_bytes(content)
    target.before()
    begin = time.monotonic()
    try:
        value, error = target.read(), None
    except target.errors as refused:
        value, error = None, refused
    assert time.monotonic() - begin < 5
    if error is None:
        assert target.sound(value)
    elif not isinstance(error, SafetensorError):
        named = (target.path.name, str(target.path.parent), target.path.stem, target.path.parent.name)
        assert any(name in str(error) for name in named), error
        assert len(str(error)) < 3000
    return value, error


# Pickles


@pytest.fixture
def canary(tmp_path):
    """A file that the payloads make, and a function that tells whether one has."""
    return tmp_path / "canary"


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def torch_saved(path, **options):
    content = io.BytesIO()
    torch.save({"weight": Bomb(path)}, content, **options)
    return content.getvalue()


def numpy_saved(path):
    content = io.BytesIO()
    np.save(content, np.array([Bomb(path)], dtype=object), allow_pickle=True)
    return content.getvalue()


def numpy_packed(path):
    content = io.BytesIO()
    np.savez(content, images=np.array([Bomb(path)], dtype=object))
    return content.getvalue()


def parquet_with(metadata, field=None):
    content = io.BytesIO()
    columns = {"patch_id": ["a_1_1"], "labels": [["Pastures"]], "split": ["train"]}
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    if field is not None:
        table = table.set_column(2, table.field(2).with_metadata(field), table.column(2))
    parquet.write_table(table, content, store_schema=True)
    return content.getvalue()


def as_json(path):
    return json.dumps({"py/reduce": [{"py/type": "builtins.open"}, {"py/tuple": [str(path), "w"]}]}).encode()


def virtual_raster(path):
    """A VRT, which GDAL reads whatever its name: a band that is computed by Python."""
    code = f"open({str(path)!r}, 'w')\ndef f(*arguments, **options): open({str(path)!r}, 'w')"
    return f"""<VRTDataset rasterXSize="120" rasterYSize="120"><VRTRasterBand dataType="UInt16" band="1"
subClass="VRTDerivedRasterBand"><PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python
</PixelFunctionLanguage><PixelFunctionCode><![CDATA[{code}]]></PixelFunctionCode></VRTRasterBand></VRTDataset>""".encode()


def as_notebook(path):
    return json.dumps(notebook(f'preset: str = open({str(path)!r}, "w").name', f"open({str(path)!r}, 'w')")).encode()


PAYLOADS = {
    **{f"pickle {i}": lambda path, i=i: pickle.dumps(Bomb(path), protocol=i) for i in (0, 2, 5)},
    "pickle in a string": lambda path: json.dumps({"data": pickle.dumps(Bomb(path), 0).decode()}).encode(),
    "pickle in gzip": lambda path: gzip.compress(pickle.dumps(Bomb(path))),
    "torch": torch_saved,
    "torch of old": lambda path: torch_saved(path, _use_new_zipfile_serialization=False),
    "numpy": numpy_saved,
    "numpy packed": numpy_packed,
    "pandas in Parquet": lambda path: parquet_with({b"pandas": pickle.dumps(Bomb(path), 0)}),
    "Arrow in Parquet": lambda path: parquet_with(
        {b"ARROW:schema": pickle.dumps(Bomb(path))},
        {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Bomb(path))},
    ),
    "jsonpickle": as_json,
    "YAML": lambda path: f"!!python/object/apply:builtins.open [{path}, w]".encode(),
    "VRT": virtual_raster,
    "notebook": as_notebook,
}


def test_the_payloads_are_live(canary):
    """Loaded by what trusts them they leave their file, so the test below can fail."""
    trusting = {
        **dict.fromkeys(("pickle 0", "pickle 2", "pickle 5"), pickle.loads),
        "pickle in gzip": lambda content: pickle.loads(gzip.decompress(content)),
        **dict.fromkeys(("torch", "torch of old"), lambda content: torch.load(io.BytesIO(content), weights_only=False)),
        "numpy": lambda content: np.load(io.BytesIO(content), allow_pickle=True),
        "numpy packed": lambda content: np.load(io.BytesIO(content), allow_pickle=True)["images"],
    }
    for name, load in trusting.items():
        assert not canary.exists()
        load(PAYLOADS[name](canary))
        canary.unlink()


@pytest.mark.parametrize("target", NAMES, indirect=True)
def test_no_payload_runs_in_any_file(target, canary, request):
    must_refuse = target.errors and request.node.callspec.params["target"] not in MAY_BE_READ
    for name, payload in PAYLOADS.items():
        _, error = attack(target, payload(canary))
        assert not canary.exists(), name
        assert error is not None or not must_refuse, name


@pytest.mark.parametrize("tag", ["object/apply:os.system", "object/new:os.system", "name:os.system", "module:os"])
def test_no_tag_of_yaml_makes_an_object(canary, tag):
    for text in (f"!!python/{tag} ['touch {canary}']", f"[!!python/{tag} 'touch {canary}']"):
        with pytest.raises(UsageError):
            cli.parse_parameters([f"seeds={text}"])
    assert not canary.exists()


# Damage at random


def mutated(whole, draw):
    """Cut off anywhere, or with some bytes changed, half of them in what is most likely a header."""
    if draw.random() < 0.3:
        return whole[: draw.randrange(len(whole))]
    changed = bytearray(whole)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        at = draw.randrange(len(changed) if draw.random() < 0.5 else min(400, len(changed)))
        changed[at] = draw.randrange(256) if draw.random() < 0.5 else changed[at] ^ 1 << draw.randrange(8)
    return bytes(changed)


SLOW = ("stamp", "journal", "marks")  # their reading is a whole preparation
FUZZED = [name for name in NAMES if name not in ("weights of another", "state of a training", *SLOW, *ARCHIVES)]


@pytest.mark.parametrize("target", FUZZED, indirect=True)
def test_damage_is_read_as_the_right_type_or_refused_by_name(target):
    whole, draw, refused = target.path.read_bytes(), random.Random(0), 0
    for _ in range(120):
        _, error = attack(target, mutated(whole, draw))
        refused += error is not None
    assert refused > 10 or not target.errors


NESTED = b"[" * 200_000 + b"\n"
TEXTS = (b"", b"\0", b"\n\n", b"\xff\xfe", b"null", b"[]", b"{}", b"3", b'"a"', b"[[]]", b"[1e999]", b'{"a": [{}]}')
OURS = [name for name in FUZZED if name not in ("record", "notebook", "executed notebook")]


@pytest.mark.parametrize("target", [*FUZZED, *SLOW], indirect=True)
def test_any_other_text_is_refused_by_name(target, request):
    name = request.node.callspec.params["target"]
    for content in [*TEXTS, NESTED] if name in [*OURS, *SLOW] else TEXTS:
        attack(target, content)


# Well-formed, and wrong


def saved(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def metadata(**columns):
    """A metadata.parquet of one patch, with columns of any type."""
    content, given = io.BytesIO(), {"patch_id": ["a_1_1"], "labels": [["Pastures"]], "split": ["train"]}
    parquet.write_table(pyarrow.table(given | columns), content)
    return content.getvalue()


def raster(path, value, dtype="uint8", shape=(1, 64, 96)):
    layout = dict(zip(("count", "height", "width"), shape, strict=True))
    with rasterio.open(path, "w", driver="GTiff", dtype=dtype, **layout) as file:
        file.write(np.full(shape, value, dtype))
    return path.read_bytes()


def photograph(size, mode, kind="JPEG"):
    content = io.BytesIO()
    Image.new(mode, (size, size)).save(content, kind)
    return content.getvalue()


def painted(path, size, value):
    make_archives_voc.painted(path, np.full((size, size), value, dtype=np.uint8))
    return path.read_bytes()


def element(kind, content):
    """A part of a MATLAB file; one that is packed (15) is not filled up to 8 bytes."""
    return struct.pack("<LL", kind, len(content)) + content + bytes(-len(content) % 8 if kind != 15 else 0)


def array(number, shape, name=b"", *parts):
    """An array in a MATLAB file, of any class and shape."""
    head = element(6, struct.pack("<LL", number, 0)) + element(5, struct.pack(f"<{len(shape)}l", *shape))
    return element(14, head + element(1, name) + b"".join(parts))


def matlab(*parts):
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + b"".join(parts)


def of_sbd(*parts, names=(b"Segmentation",), name=b"GTcls", shape=(1, 1)):
    """A MATLAB file of a struct with these fields."""
    width, fields = element(5, struct.pack("<L", 32)), b"".join(field.ljust(32, b"\0") for field in names)
    return matlab(array(2, shape, name, width, element(1, fields), *parts))


def pointing(path):
    """A VRT that shows another file as if it were this one."""
    raster(path, 7, "uint16", (1, 120, 120))
    return f"""<VRTDataset rasterXSize="120" rasterYSize="120"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>
<SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>""".encode()


def changed(path, **parts):
    return json.dumps(json.loads(path.read_bytes()) | parts).encode()


def wrong(folder, path):
    """By name of the target: contents that a reader of its kind of file takes, and that are not what they must be."""
    binary = pyarrow.array([b"\xff\xfe"])
    text, long = binary.view(pyarrow.string()), "x" * 9999
    columns = [{"patch_id": value} for value in (text, binary, [7], [long], ["../../a_1_1"])]
    columns += [{"labels": value} for value in ([[None]], [None], ["Pastures"], [[long]])]
    columns += [{"split": value} for value in ([None], text, ["test"])] + [{"contains_seasonal_snow": ["no"]}]
    names = ("abc", 3, [3], [[]], {}, None)
    shares = (None, 5, "ab", [3], [["Abies"]], [[[], 1]], [["Abies", "x"]])
    rows = [b"", b"0,0,train\n", b"row,column\n0,0\n", b"row,column,split\n", b"row,column,split\na,0,train\n"]
    rows += [b"row,column,split\n0,0,other\n", b"row,column,split\n-1,0,train\n", b"row,column,split\n0,65,train\n"]
    no_class = b",0" * len(aid.CLASSES) + b"\n"
    parts = [{"has_positions": 1}, {"mean": "abc"}, {"mean": [1, None, 3]}, {"mean": [1.0]}, {"rgb": [0, 1, 9]}]
    parts += [
        {"modalities": value} for value in (None, [], {"a": 3}, {"a": ["0"]}, {"a": [0.0]}, {"a": [9]}, {"a": [-1]})
    ]
    parts += [{"seasons": value} for value in (None, 0, -1, True, 1.0, "1", 10**9)]
    parts += [{"min_pixels": "3"}, {"classes": [1, 2]}, {"classes": []}, {"scenes": {"train": "x"}}, {"notes": 3}]
    other, values = {"shape": (1, 120, 120)}, element(2, bytes(6))
    pixels = array(9, (2, 3), b"", values)
    return {
        "GeoTIFF": lambda: [pointing(folder / "b.tif"), raster(folder / "a.tif", 1, "int16", **other)],
        "radar": lambda: [
            raster(folder / "a.tif", 1, "float32", (1, 132, 132)),
            raster(folder / "b.tif", 1, "complex64"),
        ],
        "optical band": lambda: [raster(folder / "a.tif", 1, "uint16", (1, 200, 264)), pointing(folder / "b.tif")],
        "noisy label": lambda: [raster(folder / "a.tif", 1, "uint8", (3, 264, 264)), pointing(folder / "b.tif")],
        "map of a patch": lambda: [raster(folder / "a.tif", 1, "float32", (1, 256, 256))],
        "bluemarble igbp.tif": lambda: [raster(folder / "a.tif", 17), raster(folder / "b.tif", 1, "float32")],
        "bluemarble image.tif": lambda: [raster(folder / "a.tif", 1), raster(folder / "b.tif", 1, shape=(3, 20, 20))],
        "bluemarble scenes.csv": lambda: rows,
        "vegetation.tif": lambda: [
            *(raster(folder / f"{i}.tif", 1, shape=(i, 64, 96)) for i in (1, 3)),
            *(raster(folder / f"{w}.tif", 1, shape=(2, 64, w)) for w in (64, 128)),
            raster(folder / "a.tif", 1, "int16", (2, 64, 96)),
        ],
        "prepared images.npy": lambda: [saved(np.load(path).astype(kind)) for kind in ("float32", "int64", "U3")],
        "prepared positions.npy": lambda: [saved(np.load(path).astype("float32")), saved(np.load(path)[:-1])],
        "prepared labels.npy": lambda: [saved(np.load(path).astype("uint8")), saved(np.load(path)[:, :2])],
        "prepared scenes.csv": lambda: [*rows[:3], b"scene,split\n", b"scene,split\na,train\n", b'scene,split\n"' * 9],
        "prepared manifest.json": lambda: [changed(path, **part) for part in parts],
        "denethor series.npy": lambda: [saved(np.load(path)[:, :9]), saved(np.load(path).astype("int32"))],
        "denethor pairs_s2.npy": lambda: [saved(np.load(path)[:4]), saved(np.load(path)[..., :11])],
        "denethor pixels.csv": lambda: [*rows, b"region,split,class,field\n", path.read_bytes() + b"a,test,rye,1\n"],
        "denethor manifest.json": lambda: [
            *(changed(path, days={"brandenburg_2018": days}) for days in (None, 3, [], ["1"], [0], [1, 2])),
            *(changed(path, **{name: None}) for name in ("name", "classes", "days", "dates_first", "counts")),
            *(changed(path, counts={"a": "b"}), changed(path, classes=[1, 2]), changed(path, days={})),
        ],
        "JPEG of a scene": lambda: [photograph(size, mode) for size, mode in ((512, "RGB"), (600, "L"), (600, "CMYK"))],
        "photograph": lambda: [photograph(501, "RGB"), photograph(90, "CMYK"), photograph(90, "RGB", "PNG")],
        "PNG with a palette": lambda: [
            *(photograph(90, mode, "PNG") for mode in ("RGB", "L", "1", "RGBA")),
            *(painted(folder / "a.png", size, value) for size, value in ((501, 0), (90, 21), (90, 254))),
            photograph(90, "P", "GIF"),
        ],
        **dict.fromkeys(
            ("MATLAB", "MATLAB without compression"),
            lambda: [
                of_sbd(),
                of_sbd(pixels, pixels),
                of_sbd(pixels, names=(b"segmentation",)),
                of_sbd(pixels, name=b"GTinst"),
                of_sbd(pixels, shape=(2, 1)),
                *(of_sbd(array(9, shape, b"", values)) for shape in ((2, 2), (-2, -3), (6,), (3, 2, 1), ())),
                *(of_sbd(array(number, (2, 3), b"", values)) for number in (1, 2, 6, 8, 99)),
                of_sbd(array(9, (2, 3), b"", element(9, bytes(48)))),
                of_sbd(array(9, (2, 3))),
                of_sbd(array(9, (2, 3), b"", element(2, b"\x15" * 6))),
                matlab(pixels),
                matlab(element(15, zlib.compress(pixels)[:-5])),
                matlab(element(15, zlib.compress(element(15, zlib.compress(pixels))))),
            ],
        ),
        **dict.fromkeys(
            ("list of photographs", "list of SBD"),
            lambda: [b"../../a\n", b"2007_000032.jpg\n", b"2007_000032\n" * 2, b"2007_999999\n", long.encode()],
        ),
        "voc scenes.csv": lambda: [
            *rows,
            b"scene,split,list\na,train,voc\n",
            *(path.read_bytes().replace(b",sbd,", name) for name in (b",", b",coco,", b",,")),
            path.read_bytes().replace(b",train,", b",extra,"),
        ],
        "table of labels": lambda: [
            *(path.read_bytes() + name + no_class for name in (b"port_9", b"../../a", b"", long.encode())),
            *(path.read_bytes().replace(b"desert_7,0", b"desert_7," + cell) for cell in (b"2", b"", b"0,0", b"true")),
            *(path.read_bytes().replace(b"tanks", column) for column in (b"tank", b"ship", b"tanks,tanks")),
            path.read_bytes().replace(b"desert_7", b"desert_9"),
        ],
        "Parquet": lambda: [metadata(**column) for column in columns],
        "labels of a patch": lambda: [json.dumps({"labels": value}).encode() for value in names],
        "shares": lambda: [json.dumps(dict.fromkeys(make_archives_treesatai.LABELS, v)).encode() for v in shares],
    }


@pytest.mark.parametrize("target", wrong(None, None), indirect=True)
def test_what_is_well_formed_and_wrong_is_refused_by_name(target, tmp_path, request):
    contents = wrong(tmp_path, target.path)[request.node.callspec.params["target"]]()
    for i, content in enumerate(contents):
        _, error = attack(target, content)
        assert error is not None, i


def test_the_made_files_of_matlab_are_whole(tmp_path):
    """They are read when nothing of them is wrong, so the test above can fail."""
    path = tmp_path / "a.mat"
    pixels = array(9, (2, 3), b"", element(2, bytes(range(6))))
    for content in (of_sbd(pixels), matlab(element(15, zlib.compress(of_sbd(pixels)[128:])))):
        path.write_bytes(content)
        assert (voc._map(path) == [[0, 2, 4], [1, 3, 5]]).all()
        assert (loadmat(path)["GTcls"][0]["Segmentation"][0] == voc._map(path)).all()


def test_a_journal_of_other_lines_is_no_harm(house):
    """The plan is right and the arrays are there, so every line is looked at."""
    root, targets = house
    folder = root / "deepglobe"
    expected = scenes.load("deepglobe", root).checksum
    source = deepglobe.source(folder / "raw")
    good = {"group": 0, "inputs": source.group_inputs[0], "sums": [1, 2, 3], "squares": [1, 2, 3]}
    parts = [{"group": value} for value in (99, -1, [0], "0", True)]
    parts += [{"sums": value} for value in (3, [1, 2], [1.5] * 3, None)] + [{"squares": ["a", "b", "c"]}]
    for line in [3, None, [], {}, {"group": 0}, *(good | part for part in parts)]:
        work = folder / preparing.WORK
        shutil.rmtree(work, ignore_errors=True)
        preparing._resume(source, work, preparing.fingerprint(source), progress=False)
        with (work / preparing.JOURNAL).open("a") as file:
            file.write(json.dumps(line) + "\n")
        assert targets["journal"].read().checksum == expected


# Headers that claim more than is there


def tiff(path, tags, shape=(1, 120, 120), dtype="uint16", **options):
    """A GeoTIFF with some of its tags replaced."""
    layout = dict(zip(("count", "height", "width"), shape, strict=True))
    with rasterio.open(path, "w", driver="GTiff", dtype=dtype, compress="deflate", **layout, **options) as file:
        file.write(np.zeros(shape, dtype))
    content = bytearray(path.read_bytes())
    [start] = struct.unpack_from("<L", content, 4)
    [number] = struct.unpack_from("<H", content, start)
    places = {struct.unpack_from("<H", content, at)[0]: at for at in range(start + 2, start + 2 + 12 * number, 12)}
    for tag, value in tags.items():
        struct.pack_into("<HHLL", content, places[tag], tag, 4, 1, value)  # one number of 32 bits
    return bytes(content)


def chunk(kind, content):
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def png(width, height, colours=2):
    """A PNG of any size that holds a line of it; colours: 2 for three bands, 3 for a palette."""
    header = struct.pack(">LLBBBBB", width, height, 8, colours, 0, 0, 0)
    pieces = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def jpeg(whole, width, height):
    """The JPEG with another size in its header."""
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]


def npy(shape, descr="|u1", length=None):
    """A .npy file of any shape that holds a few bytes."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header) if length is None else length) + header + bytes(64)


def hdf5(root, shape, options):
    """A file in whose series nothing has been written, of any shape, at the place of the first one."""
    path = root / "made.h5"
    with h5py.File(root / "breizhcrops" / "2018" / "L1C" / "frh01.h5") as whole, h5py.File(path, "w") as file:
        for name in whole["breizhcrops_dataset/2018/L1C/frh01/csv"]:
            file.create_dataset(f"breizhcrops_dataset/2018/L1C/frh01/csv/{name}", shape, "f8", **options)
    return path.read_bytes()


def many_values(content):
    """30 million values that take 70 kB."""
    values = pyarrow.DictionaryArray.from_arrays(np.zeros(30_000_000, dtype=np.int32), ["a_1_1"])
    parquet.write_table(pyarrow.table({"patch_id": values, "labels": values, "split": values}), content)
    return content.read_bytes()


def zeros_in_zip(megabytes):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as file:
        for _ in range(megabytes):
            file.write(bytes(2**20))
    return content.getvalue()


def claims(root):
    """Small files by what reads them; what they claim to hold would take gigabytes, or hours."""
    path, side, blocks = root / "made", 2**31 - 1, {"tiled": True, "blockxsize": 128, "blockysize": 128}
    photo = next((root / "deepglobe" / "raw" / "train").glob("*_sat.jpg")).read_bytes()
    sizes = [(65500, 65500), (13_000, 13_000), (9_000, 9_000)]
    shapes = [(2**40,), (10**30,), (2**63 - 1, 2), (-1, 5), "(" * 5000, f"({'9,' * 3000})"]
    chunked = {"chunks": (143, 17), "maxshape": (None, None), "compression": "gzip"}
    kinds = ["|O", [("a", "|O")], "(32768,32768)f8", "|U2147483647", "<M8[s]", "|V0"]
    arrays = [*map(npy, shapes), *(npy((2,), kind) for kind in kinds), npy((3, 2), length=65000)]
    cells = [array(number, (side, side), b"GTcls", element(2, bytes(6))) for number in (1, 2, 3, 5, 9)]
    packed = [matlab(element(15, zlib.compress(content, 1))) for content in (bytes(2**28), b"\1\0\1\0" * 2**26)]
    return {
        "GeoTIFF": [
            *(tiff(path, tags) for tags in ({256: side, 257: side}, {277: 65535}, {278: 2**32 - 1})),
            *(tiff(path, {322: size, 323: size}, **blocks) for size in (2**14, 2**15, 2**20)),
        ],
        "GeoTIFF of four bands": [tiff(path, {256: side}, (4, 304, 304), "uint8")],
        **{
            name: [tiff(path, {256: w, 257: w}, shape, kind) for w in (side, 13_000)]
            for name, shape, kind in (
                ("radar", (1, 264, 264), "float32"),
                ("optical band", (1, 132, 132), "uint16"),
                ("noisy label", (1, 264, 264), "uint8"),
                ("bands of a patch", (13, 256, 256), "uint16"),
            )
        },
        "bluemarble image.tif": [tiff(path, {256: side, 257: side}, (3, 64, 96), "uint8")],
        "vegetation.tif": [
            tiff(path, tags, (2, 64, 96), "uint8") for tags in ({256: side, 257: side}, {277: 65535}, {278: 2**32 - 1})
        ],
        "bluemarble igbp.tif": [tiff(path, {256: 10**5, 257: 10**5}, (1, 64, 96), "uint8")],
        "PNG": [png(*size) for size in [*sizes, (side, 1)]],
        **{name: [jpeg(photo, *size) for size in sizes] for name in ("JPEG", "JPEG of a scene", "photograph")},
        "PNG with a palette": [png(*size, 3) for size in [*sizes, (side, 1)]],
        "MATLAB": [
            *(matlab(cell) for cell in cells),
            *(of_sbd(cell) for cell in cells),
            *(matlab(struct.pack("<LL", kind, 2**32 - 1), *cells) for kind in (14, 15)),
            *(matlab(content * 2**20) for content in (bytes(8), b"\1\0\1\0" + bytes(4))),
            *packed,
            of_sbd(*cells * 10_000, names=[b"a"] * 50_000),
        ],
        "Parquet": [many_values(path)],
        "packed list": [gzip.compress(bytes(2**29), 1), gzip.compress(b"a" * 2**28, 1)],
        **{f"prepared {name}.npy": arrays for name in ("images", "positions", "labels")},
        **dict.fromkeys(("stack of bands", "denethor series.npy", "denethor pairs_s2.npy"), arrays),
        "image of Planet": [tiff(path, {256: side, 257: side}, (4, 400, 400))],
        "HDF5": [hdf5(root, *claim) for claim in (((2**40, 17), {}), ((143, 17, 2**30), {}), ((143, 17), chunked))],
        "unpacked.zip": [zeros_in_zip(400)],
    }


def measured(root):
    """Read every file of `claims` in its place: a line for each that was not refused, or took memory or time."""
    root = Path(root)
    targets = {
        **targets_of_archives(root),
        **targets_of_crops(root),
        **targets_of_voc(root / "voc"),
        **targets_of_prepared(root / "deepglobe"),
        **targets_of_series(root / "denethor"),
        **targets_of_bluemarble(root / "bluemarble"),
        **targets_of_vegetation(root / "bluemarble_vegetation"),
        **targets_of_downloads(root / "again"),
    }
    bad, made = [], claims(root)  # all are made before anything is measured
    for name, contents in made.items():
        whole = targets[name].path.read_bytes()
        for i, content in enumerate(contents):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            begin = time.monotonic()
            _, error = attack(targets[name], content)
            megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            seconds = time.monotonic() - begin
            if error is None or megabytes > 300 or seconds > 3:
                bad.append(f"{name} {i}: {error!r:.80}, {megabytes:.0f} MB, {seconds:.1f} s")
        targets[name].path.write_bytes(whole)
        targets[name].before()
    return bad


def test_what_a_header_claims_is_not_believed(house, tmp_path):
    """In a process of its own, whose memory is measured."""
    root = shutil.copytree(house[0], tmp_path / "house")
    (root / "v1" / "val.csv").write_bytes(gzip.decompress((root / "v1" / "val.csv.gz").read_bytes()))
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_hostile_files as tests"
    code += f"; print(*tests.measured({str(root)!r}), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split("\n") == ["", ""]
