"""From fields to reflectance: the state of a canopy on a day, and an emulator of radiative transfer.

The emulator has learnt from PROSPECT-D and 4SAIL; the archive's card, data/crops/README.md, says how exact it is.
Everything is a plain function of arrays (n, T), n pixels on T days; bands are counted as in BANDS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rsbook.archives.crop_fields import Arrays, canopy, logistic

S2 = slice(0, 12)
PLANET = slice(12, 16)
BANDS = (
    "B01",
    "B02",
    "B03",
    "B04",
    "B05",
    "B06",
    "B07",
    "B08",
    "B8A",
    "B09",
    "B11",
    "B12",
    "blue",
    "green",
    "red",
    "nir",
)
SWIR = np.array([name in ("B11", "B12") for name in BANDS])
# What the emulator is asked about, in the order of its box.
INPUTS = (
    *("structure", "chlorophyll", "carotenoids", "anthocyanins", "brown_pigments", "water", "dry_matter"),
    *("lai", "leaf_angle", "hotspot"),
)


def load(path: Path) -> Arrays:
    """The arrays of optics.npz: the emulator's weights, and soils, straws, petals and snow at the bands."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def state(
    fields: Arrays,
    days: np.ndarray,
    weather: Arrays,
    parameters: dict[str, Any],
    pixels: Arrays | None = None,
) -> Arrays:
    """What pixels of fields (n,) are on days (T,) or (n, T): leaves, canopy and ground, arrays (n, T) or (n, 1).

    weather: of `crop_sensors.draw_weather` or `calm_weather` · pixels: how each differs from its field, arrays (n,) of
    `crop_sensors.draw_pixels`; by default not at all.
    """
    rules = parameters["state"]
    own = {name: value[:, None] for name, value in fields.items() if value.ndim == 1}
    pixel = {name: value[:, None] for name, value in (pixels or _same(fields)).items()}
    days = np.asarray(days, dtype=np.float32) + pixel["days"]
    of_year = np.clip(np.rint(days), 1, len(weather["moisture"]) - 1).astype(np.int64)
    leaves, yellow = canopy(fields, days)

    grass = own["grass"]
    drought = own["drought"] * np.exp(-(((days - rules["drought"][0]) / rules["drought"][1]) ** 2))
    winter = (0.5 + 0.5 * np.cos(2 * np.pi * (days - rules["winter_day"]) / 365)) ** 3
    by_winter = rules["winter_yellow"]["crops"] * (1 - grass) + rules["winter_yellow"]["grass"] * grass
    yellow = yellow + own["brown"] + rules["drought_yellow"] * drought + by_winter * winter * own["winter_damage"]
    yellow = np.clip(yellow, 0, 1)

    left = (1 - rules["winter_loss"] * winter) * (1 - rules["yellow_loss"] * yellow)
    left *= np.exp(pixel["leaf_area"]) * (1 - rules["drought_loss"] * drought)
    green = own["chlorophyll"] * pixel["chlorophyll"] * (1 - 0.92 * yellow) + 1
    area = (leaves + parameters["grass"]["base"] * grass) * left

    moisture = np.clip(weather["moisture"][of_year] * own["soil_wetness"], 0, 1)
    straw = own["straw"] * logistic((days - own["harvest"]) / 0.8) * (1 - logistic(days - own["plough"]))
    straw *= np.clip(1 - rules["straw_decay"] * (days - own["harvest"]), 0, 1)
    flowering = np.exp(-(((days - own["flower_day"]) / parameters["fields"]["petal_days"]) ** 2) / 2)
    return {
        "structure": own["structure"] + 0.25 * yellow,
        "chlorophyll": green * (0.85 + 0.15 * np.minimum(leaves / 2, 1)),
        "carotenoids": 0.2 * own["chlorophyll"] * pixel["chlorophyll"] * (1 - 0.6 * yellow) + 0.6,
        "anthocyanins": 0.4 + 3 * yellow * (1 - yellow),
        "brown_pigments": 1.05 * yellow,
        "water": own["water"] * (1 - 0.82 * yellow),
        "dry_matter": own["dry_matter"],
        "lai": area,
        "leaf_angle": own["leaf_angle"] + 5 * yellow,
        "hotspot": own["hotspot"],
        "soil": own["soil"],
        "soil_brightness": own["soil_brightness"] * pixel["soil"],
        "moisture": moisture,
        "straw": straw,
        "straw_kind": own["straw_kind"],
        "gaps": own["gaps"],
        "petals": own["petals"] * flowering * np.minimum(leaves / 2.5, 1),
        "snow": weather["snow"][of_year] * np.exp(-parameters["weather"]["snow_canopy"] * area),
    }


def reflectance(
    state: Arrays,
    sun: np.ndarray,
    view: np.ndarray,
    azimuth: np.ndarray,
    optics: Arrays,
    parameters: dict[str, Any],
    bands: slice = slice(None),
) -> np.ndarray:
    """Reflectance (n, T, bands) of the ground in this state (n, T), without atmosphere, clouds or noise.

    sun, view: zenith angles, and azimuth between them, in degrees, arrays that broadcast to (n, T).
    """
    ground = soil(state, optics, parameters, bands)
    a, b, r = emulate(state, sun, view, azimuth, optics, bands)
    plants = a + b * ground / (1 - r * ground)
    gaps, petals, snow = (state[name][..., None] for name in ("gaps", "petals", "snow"))
    mixed = (1 - gaps) * plants + gaps * 0.8 * ground
    mixed += petals * (optics["petals"][bands] - mixed)
    mixed += snow * (optics["snow"][bands] - mixed)
    return np.clip(mixed, 0.001, 1, out=mixed)


def soil(state: Arrays, optics: Arrays, parameters: dict[str, Any], bands: slice = slice(None)) -> np.ndarray:
    """Reflectance (n, T, bands) of the ground under the plants: a soil, darker when wet, partly under straw."""
    rules = parameters["state"]["soil_darkening"]
    darker = np.where(SWIR[bands], rules["swir"], rules["visible"]).astype(np.float32)
    moisture, straw = state["moisture"][..., None], state["straw"][..., None]
    straws = _chosen(optics["straws"][:, bands], state["straw_kind"])
    ground = (
        _chosen(optics["soils"][:, bands], state["soil"])
        * state["soil_brightness"][..., None]
        * (1 - moisture * darker)
    )
    if straw.any():
        ground += straw * (straws * (1 - 0.3 * moisture) - ground)
    return ground


def emulate(
    state: Arrays, sun: np.ndarray, view: np.ndarray, azimuth: np.ndarray, optics: Arrays, bands: slice = slice(None)
) -> list[np.ndarray]:
    """a, b and r (n, T, bands) of canopies, which reflect a + b s / (1 − r s) over a soil s: light in plants, emulated.

    A network of two hidden layers; what lies outside the box that it has learnt is taken to its edge.
    """
    asked = [state[name] for name in INPUTS] + [sun, view, azimuth]
    shape = np.broadcast_shapes(*(np.shape(one) for one in asked))
    asked = [np.clip(one, *edges) for one, edges in zip(asked, optics["box"], strict=True)]
    n, cab, car, ant, brown, water, dry, area, angle, hotspot, sun, view, azimuth = asked
    columns = [n, np.sqrt(cab), np.sqrt(car), ant, brown, np.log(water), dry, np.exp(-area / 2), area, angle / 30]
    columns += [hotspot, np.cos(np.radians(sun)), view / 10, np.cos(np.radians(azimuth))]
    x = np.empty((*shape, len(columns)), np.float32)
    for i, column in enumerate(columns):
        x[..., i] = (column - optics["x_mean"][i]) / optics["x_std"][i]
    x = x.reshape(-1, len(columns))
    for layer in ("1", "2"):
        x = _silu(x @ optics[f"w{layer}"] + optics[f"b{layer}"])
    terms = []
    for i in range(3):
        chosen = np.arange(len(BANDS))[bands] + i * len(BANDS)
        weight = optics["w3"][:, chosen] * optics["y_std"][chosen]
        bias = optics["b3"][chosen] * optics["y_std"][chosen] + optics["y_mean"][chosen]
        terms.append((x @ weight + bias).reshape(*shape, len(chosen)))
    return terms


def _chosen(spectra: np.ndarray, share: np.ndarray) -> np.ndarray:
    return spectra[np.minimum((share * len(spectra)).astype(np.int64), len(spectra) - 1)]


def _silu(x: np.ndarray) -> np.ndarray:
    gate = logistic(x)
    gate *= x
    return gate


def _same(fields: Arrays) -> Arrays:
    zero = np.zeros(len(fields["peak"]), np.float32)
    return {"leaf_area": zero, "days": zero, "chlorophyll": zero + 1, "soil": zero + 1}
