"""Simulated crops by hand: a field through the year, and what two sensors see of it on a day, beside another crop."""

from __future__ import annotations

import calendar
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import traitlets
from matplotlib import patheffects
from matplotlib.figure import Figure

from rsbook import figures, scenes
from rsbook.archives import crop_fields, crop_optics, crop_sensors, crops
from rsbook.archives.crop_fields import CYCLE, CYCLES, Arrays
from rsbook.archives.crop_optics import BANDS, PLANET, S2
from rsbook.figures import Html
from rsbook.widgets.explorer import Explorer

# What can be moved: name → words, unit, lowest, highest, step. A name that is not changed has the value of the mean
# field; shift, fade and days are 0 there, and the gradient has no mean.
SLIDERS = {
    "shift": ("Everything later by", "days", -30, 30, 1),
    "fade": ("Yellow leaves later by", "days", -30, 30, 1),
    "leaf_area": ("Largest leaf area", "m²/m²", 0.5, 7.5, 0.1),
    "chlorophyll": ("Chlorophyll of leaves", "µg/cm²", 15, 75, 1),
    "drought": ("Drought in August", "", 0, 1, 0.01),
    "soil_brightness": ("Brightness of the soil", "", 0.3, 0.95, 0.01),
    "days": ("This pixel is ahead by", "days", -5, 5, 1),
    "gradient": ("Densest : thinnest pixel", "", 1, 4, 0.1),
}
OWN = {"shift": 0, "fade": 0, "days": 0, "gradient": 1.5}
DATED = ("rise", "fade", "end", "harvest", "plough", "flower_day")  # of a field: days of the year
RED, INFRARED = BANDS.index("B04"), BANDS.index("B08")
PLANET_BESIDE = {"B02": 0, "B03": 1, "B04": 2, "B08": 3}  # bands of Planet beside those of Sentinel-2
MONTHS, MONTH_STARTS = "JFMAMJJASOND", 1 + np.cumsum(calendar.mdays)[:12]
CLOUDS = 4096  # drawn for a mean one
SENTINEL_COLOUR, PLANET_COLOUR = "#3C8FD9", "#D55E00"  # as in crops_drawings


class CropExplorer(Explorer):
    """The mean field of a crop, whose numbers a reader moves, and the mean field of another crop as it is.

    crop, other, region: names of the archive's tables · date: index into `days` · changes: what of `SLIDERS` is not as
    in the mean field → its value · cloudy: whether a cloud of this `opacity`, 0 to 1, is between the field and
    Sentinel-2 · composite: colours of the pictures. The weights of the emulator are rounded to 16 bits.
    """

    crop = traitlets.Unicode().tag(sync=True)
    other = traitlets.Unicode().tag(sync=True)
    region = traitlets.Unicode().tag(sync=True)
    date = traitlets.Int().tag(sync=True)
    changes = traitlets.Dict().tag(sync=True)
    cloudy = traitlets.Bool(False).tag(sync=True)
    opacity = traitlets.Float(0.5, min=0, max=1).tag(sync=True)
    composite = traitlets.Enum(("true", "infrared"), "true").tag(sync=True)
    days = traitlets.List(traitlets.Int()).tag(sync=True)
    crops = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colours = traitlets.List(traitlets.Unicode()).tag(sync=True)
    regions = traitlets.List().tag(sync=True)  # name, and as it is written
    bands = traitlets.List().tag(sync=True)  # name, nm, and which of Planet's is beside it
    sliders = traitlets.List().tag(sync=True)
    numbers = traitlets.List(traitlets.Unicode()).tag(sync=True)  # of a field, as the array of this name has them
    rules = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        folder: Path | None = None,
        crop: str = "wheat",
        other: str = "corn",
        region: str = "brandenburg_2018",
        date: int = 40,
    ) -> None:
        """Offer all crops in all regions of the archive in `folder`, by default that of the project.

        date: index of the image that is shown first. Raises TraitError for names and dates that there are not.
        """
        self.parameters, optics = crops.read(folder or scenes.location("crops"))
        self.optics = _rounded(optics)
        regions, grown = list(self.parameters["regions"]), list(self.parameters["crops"])
        self._weather = {name: crop_sensors.calm_weather(name, self.parameters) for name in regions}
        clouds = crop_sensors.draw_clouds(np.ones(1), CLOUDS, self.parameters, np.random.default_rng(0))
        self.cloud = clouds["light"].mean(axis=(0, 1))
        fields = [[crop_fields.mean_field(one, name, self.parameters) for one in grown] for name in regions]
        numbers = [name for name, value in fields[0][0].items() if value.ndim == 1 and value.dtype == np.float32]
        days = crop_sensors.dates(self.parameters)
        rules = self.parameters["state"]
        self._days = days
        super().__init__(
            arrays={name: value.view(np.uint16) for name, value in _halves(optics).items()}
            | {name: optics[name] for name in ("b1", "b2", "b3", "x_mean", "x_std", "y_mean", "y_std", "box")}
            | {
                "numbers": np.array([[[f[name][0] for name in numbers] for f in row] for row in fields]),
                "canopies": np.array([[[f[name][0] for name in CYCLE] for f in row] for row in fields]),
                "moisture": np.stack([self._weather[name]["moisture"] for name in regions]).astype(np.float32),
                "angles": np.stack([[self._angles(name, bands, days) for bands in (S2, PLANET)] for name in regions]),
                "spectra": _spectra(optics, fields[0][0]),
                "darkening": np.where(
                    crop_optics.SWIR, *(rules["soil_darkening"][k] for k in ("swir", "visible"))
                ).astype(np.float32),
                "cloud": self.cloud,
            },
            days=days.tolist(),
            crops=grown,
            colours=_colours(self.parameters),
            regions=[[name, _written(name)] for name in regions],
            bands=[
                [name, round(float(nm)), PLANET_BESIDE.get(name)]
                for name, nm in zip(BANDS, optics["wavelengths"], strict=True)
            ],
            sliders=[[name, *about, OWN.get(name)] for name, about in SLIDERS.items()],
            numbers=numbers,
            rules={
                **rules,
                "base": self.parameters["grass"]["base"],
                "petal_days": self.parameters["fields"]["petal_days"],
            },
            crop=crop,
            other=other,
            region=region,
            date=date,
            caption="A simulated field with all that is random at its mean: its year comes from the table of crops, "
            "what it reflects from radiative transfer, both computed in this page. Drag along the year to choose a "
            "day. Sliders begin at the crop's own means; the crop to compare with stays at its own. From the upper "
            "left to the lower right of PlanetScope's nine pixels leaf area grows by a fixed pattern, made up to show "
            "what 10 m hide; Sentinel-2 sees their mean. The cloud is the mean of the simulated ones, and only "
            "Sentinel-2 has it. Reflectance is that of the ground, in a year of mean moisture: no air, no noise.",
        )

    @traitlets.validate("crop", "other", "region", "date", "changes")
    def _known(self, proposal: Mapping[str, Any]) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        if name == "changes":
            for changed, number in value.items():
                lowest, highest = SLIDERS[changed][2:4] if changed in SLIDERS else (math.inf, -math.inf)
                if not isinstance(number, int | float) or not lowest <= number <= highest:
                    within = ", ".join(f"{one} {about[2]} … {about[3]}" for one, about in SLIDERS.items())
                    raise traitlets.TraitError(f"changes={value}: expected some of {within}")
        elif name == "date":
            if not 0 <= value < len(self._days):
                raise traitlets.TraitError(f"date={value}: expected 0 … {len(self._days) - 1}")
        elif value not in (known := self.parameters["regions" if name == "region" else "crops"]):
            raise traitlets.TraitError(f"{name}={value!r}: expected one of {', '.join(known)}")
        return value

    @cached_property
    def fallback(self) -> Html:
        """The year of both crops, and the spectra of the day."""
        year, day, pixels = self.year(), self.read_out().iloc[:-1], self.pixels()
        planet = [float(nm) for nm in self.optics["wavelengths"][PLANET]]

        def draw(theme: Mapping[str, str]) -> Figure:
            figure, (ndvi, spectrum) = figures.axes(theme, ncols=2, width_ratios=[3, 2])
            for name, column, line in ((self.crop, "ndvi", "-"), (self.other, "other", "--")):
                colour = self.colours[self.crops.index(name)]
                [drawn] = ndvi.plot(year["day"], year[column], color=colour, linewidth=1.8, linestyle=line, label=name)
                drawn.set_path_effects([patheffects.withStroke(linewidth=3.2, foreground=theme["ink"])])
            ndvi.axvline(self.days[self.date], color=theme["muted"], linewidth=1)
            ndvi.set_xticks(MONTH_STARTS, MONTHS)
            ndvi.set(ylabel="NDVI", ylim=(0, 1))
            ndvi.legend()
            for k, pixel in enumerate(pixels.reshape(4, 9).T):
                spectrum.plot(planet, pixel, color=PLANET_COLOUR, linewidth=0.8, label=None if k else "PlanetScope")
            spectrum.plot(day["nm"], day["s2"], color=SENTINEL_COLOUR, marker="o", markersize=4, label="Sentinel-2")
            spectrum.set(xscale="log", ylabel="reflectance", title=f"day {self.days[self.date]}")
            spectrum.set_xticks([500, 1000, 2000], ["500", "1000", "2000 nm"], minor=False)
            spectrum.set_xticks([], minor=True)
            spectrum.set_ylim(bottom=0)
            spectrum.legend()
            return figure

        return figures.show(
            draw,
            alt=f"NDVI through the year of {self.crop} as a solid line and of {self.other} as a dashed one, and the "
            f"spectra of {self.crop} on day {self.days[self.date]} as two sensors see it.",
            caption=f"Mean simulated fields in {_written(self.region)}: NDVI through the year, and reflectance of "
            f"{self.crop} on the marked day, of Sentinel-2's pixel and PlanetScope's nine.",
            data=year.round(4),
            name="crop_year",
        )

    def year(self) -> pd.DataFrame:
        """NDVI as Sentinel-2 sees it, a row a date: of the field without and through the cloud, and of the other crop.

        leaf_area: m²/m² of the pixel in the middle, without its yellow or lost leaves.
        """
        surface, now = self._nine(S2, self._days)
        surface = surface.mean(axis=0)
        return pd.DataFrame(
            {
                "day": self._days,
                "ndvi": _ndvi(surface, RED, INFRARED),
                "cloudy": _ndvi(self._through_cloud(surface), RED, INFRARED),
                "other": _ndvi(self._compared(self._days), RED, INFRARED),
                "leaf_area": now["lai"][4],
            }
        )

    def read_out(self) -> pd.DataFrame:
        """What both sensors see on the day, a row a band of Sentinel-2, then NDVI; nan where Planet has no such band.

        s2: of the field, through the cloud where there is one · other: of the other crop, without · planet, planet_low,
        planet_high: mean, least and most of the nine pixels.
        """
        day = self._days[[self.date]]
        s2 = self._nine(S2, day)[0].mean(axis=0)
        seen = (self._through_cloud(s2) if self.cloudy else s2)[0]
        other, nine = self._compared(day)[0], self.pixels().reshape(4, 9)
        planet = np.full((13, 9), np.nan)
        for name, k in PLANET_BESIDE.items():
            planet[BANDS.index(name)] = nine[k]
        planet[12] = _ndvi(nine.T, 2, 3)
        return pd.DataFrame(
            {
                "band": [*BANDS[S2], "NDVI"],
                "nm": [*self.optics["wavelengths"][S2], np.nan],
                "s2": [*seen, _ndvi(seen, RED, INFRARED)],
                "other": [*other, _ndvi(other, RED, INFRARED)],
                "planet": planet.mean(axis=1),
                "planet_low": planet.min(axis=1),
                "planet_high": planet.max(axis=1),
            }
        )

    def pixels(self) -> np.ndarray:
        """Reflectance (4, 3, 3) of the field on the day, as Planet sees it: blue, green, red and near infrared."""
        return self._nine(PLANET, self._days[[self.date]])[0][:, 0].T.reshape(4, 3, 3)

    def field(self) -> Arrays:
        """The field (1,) that the sliders make of the crop's mean one."""
        field = {name: value.copy() for name, value in self._mean(self.crop).items()}
        changed = OWN | self.changes
        for name in DATED:
            field[name] += changed["shift"]
        field["fade"][:, :2] += changed["fade"]  # what stands since autumn turns yellow with the rest
        if "leaf_area" in changed:
            grows = slice(1, CYCLES if field["grass"][0] else 2)  # grass grows again after a cut, and as much
            field["peak"][:, grows] *= np.float32(changed["leaf_area"]) / field["peak"][:, [1]]
        for name in ("chlorophyll", "drought", "soil_brightness"):
            field[name][:] = changed.get(name, field[name][0])
        return field

    def _mean(self, crop: str) -> Arrays:
        return crop_fields.mean_field(crop, self.region, self.parameters)

    def _nine(self, bands: slice, days: np.ndarray) -> tuple[np.ndarray, Arrays]:
        """Reflectance (9, T, bands) of the field's nine pixels on these days, and their state."""
        changed = OWN | self.changes
        steps = np.add.outer(np.arange(-1, 2), np.arange(-1, 2)).ravel() / 2
        pixels = {
            "leaf_area": (math.log(changed["gradient"]) / 2 * steps).astype(np.float32),
            "days": np.full(9, changed["days"], np.float32),
            "chlorophyll": np.ones(9, np.float32),
            "soil": np.ones(9, np.float32),
        }
        inside = crop_fields.take(self.field(), np.zeros(9, int))
        now = crop_optics.state(inside, days, self._weather[self.region], self.parameters, pixels)
        angles = self._angles(self.region, bands, days)
        return crop_optics.reflectance(now, *angles, self.optics, self.parameters, bands), now

    def _compared(self, days: np.ndarray) -> np.ndarray:
        weather = self._weather[self.region]
        return crop_sensors.undisturbed(
            self._mean(self.other), days, self.region, self.optics, self.parameters, weather
        )[0]

    def _angles(self, region: str, bands: slice, days: np.ndarray) -> np.ndarray:
        angles = crop_sensors.sentinel2_angles if bands == S2 else crop_sensors.planet_angles
        found = angles(days, self.parameters["regions"][region]["latitude"], self.parameters)
        return np.stack([np.broadcast_to(one, days.shape) for one in found]).astype(np.float32)

    def _through_cloud(self, surface: np.ndarray) -> np.ndarray:
        return surface + np.float32(self.opacity) * (self.cloud - surface)


def _halves(optics: Arrays) -> Arrays:
    return {name: optics[name].astype(np.float16) for name in ("w1", "w2", "w3")}


def _rounded(optics: Arrays) -> Arrays:
    """The optics with the emulator's weights as a page has them."""
    return optics | {name: value.astype(np.float32) for name, value in _halves(optics).items()}


def _spectra(optics: Arrays, field: Arrays) -> np.ndarray:
    """Soil and straw of mean fields, and petals, at the bands: (3, 16)."""
    chosen = [
        optics[name][min(int(field[share][0] * len(optics[name])), len(optics[name]) - 1)]
        for name, share in (("soils", "soil"), ("straws", "straw_kind"))
    ]
    return np.stack([*chosen, optics["petals"]]).astype(np.float32)


def _colours(parameters: Mapping[str, Any]) -> list[str]:
    """Of each crop that of the first class which it belongs to."""
    classes = parameters["classes"]
    colours = figures.class_colours(classes)
    return [
        next(c for c, crops in zip(colours, classes.values(), strict=True) if crop in crops)
        for crop in parameters["crops"]
    ]


def _written(region: str) -> str:
    return region.replace("_", " ").capitalize()


def _ndvi(reflectance: np.ndarray, red: int, infrared: int) -> np.ndarray:
    red, infrared = reflectance[..., red], reflectance[..., infrared]
    return (infrared - red) / (infrared + red)
