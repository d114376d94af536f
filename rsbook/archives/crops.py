"""Simulated crops: series of Sentinel-2, and pairs of it and Planet, from a table of numbers; see the archive's card.

Each region can be drawn in many worlds: the same number gives the same bytes on the same kind of processor. What has
been simulated is kept in .simulated under the archive's folder, which may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from threadpoolctl import threadpool_limits

from rsbook import scenes, sources
from rsbook.archives import crop_fields, crop_optics, crop_sensors
from rsbook.archives.crop_fields import Arrays
from rsbook.files import replacing
from rsbook.series import SCALE, Pairs, Series

REGIONS = ("brandenburg_2018", "brandenburg_2019", "brittany_2018")
STREAMS = ("fields", "weather", "pairs", "train", "val")  # each with random numbers of its own
SERIES_CHUNK, PAIRS_CHUNK = 8, 128  # pixels that are drawn together: of each class, and of each date
MAPPED = 64 * 2**20  # bytes: larger arrays stay on the disk

Shapes = dict[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class World:
    """A region drawn once: its fields (`crop_fields.draw_region`) and its weather (`crop_sensors.draw_weather`).

    parameters, optics: of the archive's folder · classes, splits: what "class", "label" and "split" of fields count.
    """

    region: str
    number: int
    parameters: dict[str, Any]
    optics: Arrays
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    fields: Arrays
    weather: Arrays


def load_series(folder: Path, checksum: str, region: str, train: int, val: int, world: int) -> Series:
    """The series of a region in one world, `train` and `val` pixels a class, drawn with replacement from its fields.

    The first pixels of a class are the same however many are asked for. Raises ValueError for a negative number.
    """
    _refuse_negative(train=train, val=val, world=world)
    parameters, _ = read(folder)
    classes, days = tuple(parameters["regions"][region]["fields"]), crop_sensors.dates(parameters)
    first, count = train * len(classes), (train + val) * len(classes)
    shapes = {"values": ((count, len(days), 12), "<u2"), "labels": ((count,), "<i8"), "fields": ((count,), "<i8")}

    def parts() -> Iterator[tuple[np.ndarray, ...]]:
        drawn = draw_world(folder, region, world)
        for split, wanted in (("train", train), ("val", val)):
            members = _members(drawn, split)
            make = partial(_series_chunk, drawn, split, crop_fields.take(drawn.fields, members))
            for block, (values, labels, own) in enumerate(_in_threads(make, -(-wanted // SERIES_CHUNK))):
                left = min(wanted - block * SERIES_CHUNK, SERIES_CHUNK) * len(classes)
                yield values[:left], labels[:left], members[own[:left]]

    arrays = _kept(folder, ["series", checksum, region, train, val, world], shapes, parts)
    arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
    splits = {"train": torch.arange(first), "val": torch.arange(first, count)}
    return Series(
        "crops", region, **arrays, days=torch.from_numpy(days), classes=classes, splits=splits, checksum=checksum
    )


def load_pairs(folder: Path, checksum: str, region: str, count: int, world: int) -> Pairs:
    """Pairs of the fields of a region that are there to pre-train on, in one world: by date, as many on each.

    `count` is rounded down to a multiple of the number of dates. Raises ValueError for a negative number, and for a
    region without such fields.
    """
    _refuse_negative(count=count, world=world)
    parameters, _ = read(folder)
    regions, days = parameters["regions"], crop_sensors.dates(parameters)
    if "pretrain" not in regions[region]["splits"]:
        having = ", ".join(name for name in regions if "pretrain" in regions[name]["splits"])
        raise ValueError(f"region={region!r}: crops has no fields to pre-train on there; those are in {having}")
    each = count // len(days)
    total = each * len(days)
    shapes = {"s2": ((total, 12), "<u2"), "planet": ((total, 36), "<u2")}

    def parts() -> Iterator[tuple[np.ndarray, ...]]:
        drawn = draw_world(folder, region, world)
        fields = crop_fields.take(drawn.fields, _members(drawn, "pretrain"))
        return _in_threads(partial(_pairs_chunk, drawn, fields, each), len(days) * -(-each // PAIRS_CHUNK))

    arrays = _kept(folder, ["pairs", checksum, region, total, world], shapes, parts)
    arrays = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return Pairs("crops", region, **arrays, day=torch.from_numpy(days).repeat_interleave(each), checksum=checksum)


def read(folder: Path) -> tuple[dict[str, Any], Arrays]:
    """The table of parameters and the optics (`crop_optics.load`) in the archive's folder."""
    parameters = yaml.safe_load((folder / "parameters.yaml").read_text(encoding="utf-8"))
    return parameters, crop_optics.load(folder / "optics.npz")


def draw_world(folder: Path, region: str, number: int = 0) -> World:
    """A region of the archive's folder in the world of this number, 0 or more."""
    parameters, optics = read(folder)
    about = parameters["regions"][region]
    fields = crop_fields.draw_region(region, parameters, _generator(about["seed"], number, "fields"))
    weather = crop_sensors.draw_weather(region, parameters, _generator(about["seed"], number, "weather"))
    return World(region, number, parameters, optics, tuple(about["fields"]), tuple(about["splits"]), fields, weather)


def _refuse_negative(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 0:
            raise ValueError(f"{name}={number}: must not be negative")


def _generator(seed: int, world: int, stream: str, *block: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, world, STREAMS.index(stream), *block]))


def _members(world: World, split: str) -> np.ndarray:
    """Indices of the fields of a split."""
    return np.flatnonzero(world.fields["split"] == world.splits.index(split))


def _series_chunk(world: World, split: str, fields: Arrays, block: int) -> tuple[np.ndarray, ...]:
    """Values (n,T,12), labels (n,) and fields (n,) of one block of pixels, of one class after the other in turn."""
    seed = world.parameters["regions"][world.region]["seed"]
    generator = _generator(seed, world.number, split, block)
    chance = generator.random((SERIES_CHUNK, len(world.classes)))
    members = [np.flatnonzero(fields["label"] == i) for i in range(len(world.classes))]
    own = np.stack([some[(chance[:, i] * len(some)).astype(int)] for i, some in enumerate(members)], axis=1).ravel()
    values = crop_sensors.see_series(
        fields, own, world.weather, world.region, world.optics, world.parameters, generator
    )
    return _stored(values), fields["label"][own], own


def _pairs_chunk(world: World, fields: Arrays, each: int, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Sentinel-2 (n,12) and Planet (n,36) of one block of pixels on one date."""
    date, part = divmod(block, -(-each // PAIRS_CHUNK))
    generator = _generator(world.parameters["regions"][world.region]["seed"], world.number, "pairs", date, part)
    own = generator.integers(0, len(fields["crop"]), PAIRS_CHUNK)
    s2, planet = crop_sensors.see_pairs(
        fields, own, date, world.weather, world.region, world.optics, world.parameters, generator
    )
    left = min(each - part * PAIRS_CHUNK, PAIRS_CHUNK)
    return _stored(s2[:left]), _stored(planet[:left].reshape(left, -1))


def _stored(reflectance: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(reflectance * SCALE), 1, 65_535).astype(np.uint16)


def _in_threads(make: Callable, blocks: int) -> Iterator:
    """make(block) of each block, in order; each on one thread alone, so that their number changes no bit."""
    workers = max(1, min(os.cpu_count() or 1, 8, torch.get_num_threads()))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        for start in range(0, blocks, 32):  # not all at once: results wait in memory until they are taken
            yield from pool.map(make, range(start, min(start + 32, blocks)))


# What is kept


def _kept(folder: Path, request: list, shapes: Shapes, parts: Callable[[], Iterator]) -> Arrays:
    """The arrays of this request: kept ones that are whole, or simulated now, and kept where that is possible."""
    code = sources.reachable(__name__, Path(__file__))
    key = hashlib.sha256(json.dumps([request, sorted(code.items())]).encode()).hexdigest()[:32]
    target = folder / ".simulated" / key
    arrays = _read(target, shapes)
    if arrays is None:
        with suppress(OSError):  # a folder that may not be written to, or a full disk
            _make(target, shapes, parts)
            arrays = _read(target, shapes)
    return arrays if arrays is not None else _in_memory(shapes, parts())


def _make(target: Path, shapes: Shapes, parts: Callable[[], Iterator]) -> None:
    """Write the arrays beside the target and rename them; another process may have come first."""
    temporary, damaged = (target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp") for _ in range(2))
    try:
        temporary.mkdir(parents=True)
        _write(temporary, shapes, parts())
        try:
            temporary.rename(target)
        except OSError:
            if _read(target, shapes) is not None:  # of another process
                return
            target.rename(damaged)
            temporary.rename(target)
    finally:
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, shapes: Shapes, parts: Iterator) -> None:
    """Append the parts of each array to its file, then the list of their sha256."""
    files = {name: (folder / f"{name}.npy").open("wb") for name in shapes}
    try:
        for name, (shape, kind) in shapes.items():
            header = {"descr": kind, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(files[name], header)
        for part in parts:
            for (name, (_, kind)), piece in zip(shapes.items(), part, strict=True):
                files[name].write(np.ascontiguousarray(piece, kind).data)
    finally:
        for file in files.values():
            file.close()
    sums = [f"{scenes.sha256(folder / f'{name}.npy')}  {name}.npy\n" for name in shapes]
    with replacing(folder / "SHA256SUMS") as path:
        path.write_text("".join(sums))


def _read(folder: Path, shapes: Shapes) -> Arrays | None:
    """The arrays in this folder, None unless all are there and whole."""
    try:
        sums, arrays = scenes.listed(folder), {}
        for name in shapes:
            path = folder / f"{name}.npy"
            if scenes.sha256(path) != sums[path.name]:
                return None
            mode = "c" if path.stat().st_size > MAPPED else None
            arrays[name] = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, KeyError, scenes.DataError):
        return None
    return arrays


def _in_memory(shapes: Shapes, parts: Iterator) -> Arrays:
    arrays, start = {name: np.empty(shape, kind) for name, (shape, kind) in shapes.items()}, 0
    for part in parts:
        for array, piece in zip(arrays.values(), part, strict=True):
            array[start : start + len(piece)] = piece
        start += len(part[0])
    return arrays
