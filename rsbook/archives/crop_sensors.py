"""What two sensors see of simulated fields: weather, clouds, Sentinel-2, and Planet's 3×3 pixels within one of it.

The archive's card, data/crops/README.md, says what is simulated and what is not. All that is random comes from a
generator that is passed in.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rsbook.archives.crop_fields import Arrays, take
from rsbook.archives.crop_optics import BANDS, PLANET, S2, SWIR, reflectance, state

DAYS = 367  # of the year, counted from 1; a timing may reach into the next
# Centres of the bands of Sentinel-2 in µm.
WAVELENGTHS = np.array([0.443, 0.492, 0.560, 0.665, 0.704, 0.741, 0.783, 0.833, 0.865, 0.945, 1.614, 2.202], np.float32)
B09, B12 = BANDS.index("B09"), BANDS.index("B12")


def dates(parameters: dict[str, Any]) -> np.ndarray:
    """Days of the year (T,) on which images are taken."""
    about = parameters["dates"]
    return np.floor(about["step"] * np.arange(about["count"])).astype(np.int64) + 1


def sun_zenith(days: np.ndarray, latitude: float, hour: float) -> np.ndarray:
    """Zenith angle of the sun in degrees, between 20 and 72, at an hour of local solar time (Cooper's declination)."""
    declination = np.radians(23.45 * np.sin(2 * np.pi * (284 + np.asarray(days)) / 365))
    north, angle = np.radians(latitude), np.radians(15 * (hour - 12))
    cosine = np.sin(north) * np.sin(declination) + np.cos(north) * np.cos(declination) * np.cos(angle)
    return np.clip(np.degrees(np.arccos(cosine)), 20, 72).astype(np.float32)


# Weather: what all pixels of a region share


def draw_weather(region: str, parameters: dict[str, Any], generator: np.random.Generator) -> Arrays:
    """The year of a region: by day of the year (367,) "moisture" of the soil and "snow", both 0 to 1; by date (T,) the
    "cover" of clouds and "aerosol"; by date and band "s2_gain" (T, 12) and "planet_gain" (T, 4).
    """
    about, rules, days = parameters["regions"][region], parameters["weather"], dates(parameters)
    moisture = _moisture(region, parameters, generator)
    snow = np.zeros(DAYS)
    for first, length in about["snow"]:
        melting = 1 - (np.arange(length) / length) ** 2
        snow[first : first + length] = generator.uniform(*rules["snow_fraction"]) * melting
    season = rules["cloud_season"] * np.cos(2 * np.pi * (days - 10) / 365)
    chance, cover = generator.random(len(days)), generator.random(len(days))
    cover = np.where(chance > 1 - about["cloud"]["overcast"] - season, 1, cover)
    cover = np.where(chance < about["cloud"]["clear"] - season, rules["clear_cover"], cover)
    s2, planet = parameters["sentinel2"], parameters["planet"]
    common = generator.normal(1, planet["common_gain"], (len(days), 1))
    weather = {
        "moisture": moisture,
        "snow": snow,
        "cover": cover,
        "aerosol": generator.gamma(2, 0.5, len(days)) - 1,
        "s2_gain": generator.normal(1, s2["scene_gain"], (len(days), 12)),
        "planet_gain": common * generator.normal(1, planet["scene_gain"], (len(days), 4)),
    }
    return {name: value.astype(np.float32) for name, value in weather.items()}


def calm_weather(region: str, parameters: dict[str, Any]) -> Arrays:
    """A year of the region as moist as 200 of its years in the mean, without snow: what `crop_optics.state` needs."""
    years = [_moisture(region, parameters, np.random.default_rng([0, year])) for year in range(200)]
    return {"moisture": np.mean(years, axis=0), "snow": np.zeros(DAYS, np.float32)}


def _moisture(region: str, parameters: dict[str, Any], generator: np.random.Generator) -> np.ndarray:
    """Moisture of the soil (367,) from 0 to 1: it dries day by day, and rain adds to it, rarely in a dry summer."""
    rules, drought = parameters["weather"]["moisture"], parameters["regions"][region]["drought"]
    summer = np.exp(-(((np.arange(DAYS) - 200) / 70) ** 2))
    often = rules["often"] * (rules["winter"] - rules["summer"] * summer * (0.5 + drought)) + rules["least"]
    rain = np.where(generator.random(DAYS) < often, generator.uniform(*rules["rain"], DAYS), 0)
    moisture, now = np.empty(DAYS, np.float32), rules["start"]
    for day in range(DAYS):
        moisture[day] = now = min(now * rules["kept"] + rain[day], 1)
    return moisture


# The surface, without weather between


def undisturbed(
    fields: Arrays,
    days: np.ndarray,
    region: str,
    optics: Arrays,
    parameters: dict[str, Any],
    weather: Arrays | None = None,
    bands: slice = S2,
) -> np.ndarray:
    """Reflectance (n, T, bands) of fields (n,) on days (T,): no clouds, no air, no noise, no pixels that differ.

    weather: of `draw_weather`, by default calm · bands: those of S2, or of PLANET at its angles.
    """
    now = state(fields, days, weather or calm_weather(region, parameters), parameters)
    latitude = parameters["regions"][region]["latitude"]
    angles = sentinel2_angles if bands == S2 else planet_angles
    return reflectance(now, *angles(days, latitude, parameters), optics, parameters, bands)


# Sentinel-2


def draw_pixels(n: int, parameters: dict[str, Any], generator: np.random.Generator) -> Arrays:
    """How n pixels differ from their fields: factors of chlorophyll and soil, days, logarithm of a factor of LAI."""
    sd = parameters["pixels"]
    means = {"leaf_area": 0, "days": 0, "chlorophyll": 1, "soil": 1}
    return {name: (mean + sd[name] * _noise(generator, n)).astype(np.float32) for name, mean in means.items()}


def sentinel2_angles(
    days: np.ndarray, latitude: float, parameters: dict[str, Any], shift: Arrays | None = None
) -> list:
    """Zenith of the sun and of the sensor and azimuth between them on these days, of two orbits that alternate.

    shift: by how much "view" and "azimuth" of each pixel (n,) differ from those of the middle of the orbit.
    """
    about, days = parameters["sentinel2"], np.asarray(days)
    orbit = days // about["orbit_days"] % 2
    view, azimuth = (np.array(about[name], np.float32)[orbit] for name in ("view", "azimuth"))
    if shift is not None:
        view, azimuth = view + shift["view"][:, None], azimuth + shift["azimuth"][:, None]
    return [sun_zenith(days, latitude, about["hour"]), view, azimuth]


def draw_orbit(n: int, parameters: dict[str, Any], generator: np.random.Generator) -> Arrays:
    """Where n pixels lie in the swath, as `shift` of `sentinel2_angles`."""
    about = parameters["sentinel2"]
    return {name: about[f"{name}_sd"] * _noise(generator, n) for name in ("view", "azimuth")}


def draw_clouds(cover: np.ndarray, n: int, parameters: dict[str, Any], generator: np.random.Generator) -> Arrays:
    """Clouds over n pixels of scenes with this cover (T,): "opacity" (n, T), 0 without, "light" (n, T, 12), the cloud's
    reflectance, and "shadow" (n, T, 12), by how much its shadow darkens.
    """
    rules, shape = parameters["weather"], (n, len(cover))

    def uniform(low: float = 0, high: float = 1) -> np.ndarray:
        return low + (high - low) * generator.random(shape, dtype=np.float32)

    cover = np.clip(cover + rules["cover_sd"] * _noise(generator, *shape), 0, 1)
    cloudy = uniform() < cover
    thick = uniform() < rules["thick"][0] + rules["thick"][1] * cover
    thin = rules["thin_opacity"] * generator.beta(1.2, 3, shape).astype(np.float32)
    opacity = np.where(cloudy, np.where(thick, uniform(0.6, 1), thin), 0).astype(np.float32)
    ice = SWIR[S2].astype(np.float32) * 0.22
    light = 1 - 0.10 * (WAVELENGTHS - 0.49) - ice * uniform(0.3, 1.6)[..., None]
    light *= uniform(0.35, 0.95)[..., None]
    light[..., B09] *= 0.75
    shaded = ~cloudy & (uniform() < rules["shadow"] * cover)
    shadow = 0.25 + 0.35 * WAVELENGTHS**-0.8 * uniform(0.5, 1)[..., None]
    return {"opacity": opacity, "light": light, "shadow": np.where(shaded[..., None], shadow, 1)}


def see_sentinel2(
    surface: np.ndarray,
    sun: np.ndarray,
    weather: Arrays,
    clouds: Arrays,
    region: str,
    parameters: dict[str, Any],
    generator: np.random.Generator,
) -> np.ndarray:
    """What Sentinel-2 measures (n, T, 12) of surfaces (n, T, 12) through clouds; weather: that of these T dates.

    At the top of the atmosphere where the region says so, otherwise corrected for it but for an error in aerosol.
    """
    about, shape = parameters["sentinel2"], surface.shape
    opacity, aerosol = clouds["opacity"][..., None], weather["aerosol"][:, None]
    seen = surface * clouds["shadow"]
    seen += opacity * (clouds["light"] - seen)
    if parameters["regions"][region]["top_of_atmosphere"]:
        path, through = atmosphere(sun, weather["aerosol"])
        seen = path * (1 - opacity) + through * seen / (1 - 0.1 * seen)
    else:
        error = about["aerosol"] * aerosol + about["aerosol_sd"] * _noise(generator, *shape[:2], 1)
        seen += (1 - opacity) * error * (WAVELENGTHS / 0.492) ** -1.4
    seen *= weather["s2_gain"] * (1 + about["pixel_gain"] * _noise(generator, *shape))
    return seen + about["noise"] * _noise(generator, *shape)


def atmosphere(sun: np.ndarray, aerosol: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reflectance of the air itself and its transmission down and up (T, 12), for a sun (T,) in degrees from zenith."""
    mu = np.cos(np.radians(sun))[:, None]
    air = 0.00877 * WAVELENGTHS**-4.05
    haze = np.abs(0.12 + 0.06 * aerosol)[:, None] * (WAVELENGTHS / 0.55) ** -1.3
    path = air * 0.75 * (1 + mu**2) / (4 * mu) + haze * 0.92 * 0.25 / (4 * mu)
    through = np.exp(-(0.52 * air + 0.16 * haze) * (1 / mu + 1))
    through[:, B09] *= 0.2
    through[:, B12] *= 0.93
    return path.astype(np.float32), through.astype(np.float32)


# Planet


def planet_angles(days: np.ndarray, latitude: float, parameters: dict[str, Any]) -> list:
    """Zenith of the sun and of the sensor and azimuth between them on these days."""
    about = parameters["planet"]
    return [sun_zenith(days, latitude, about["hour"]), np.float32(about["view"]), np.float32(about["azimuth"])]


# Series and pairs


def see_series(
    fields: Arrays,
    own: np.ndarray,
    weather: Arrays,
    region: str,
    optics: Arrays,
    parameters: dict[str, Any],
    generator: np.random.Generator,
) -> np.ndarray:
    """What Sentinel-2 measures (n, T, 12) of n pixels in the fields with indices `own` on all dates of the year.

    Some pixels lie on a border and hold a share of another field, drawn from all that are given.
    """
    n, days, sd = len(own), dates(parameters), parameters["pixels"]
    pixels = draw_pixels(n, parameters, generator)
    angles = sentinel2_angles(
        days, parameters["regions"][region]["latitude"], parameters, draw_orbit(n, parameters, generator)
    )
    share = np.where(generator.random(n) < sd["mixed"], generator.uniform(*sd["mixed_share"], n), 0)
    mixed, others = np.flatnonzero(share), generator.integers(0, len(fields["crop"]), n)
    now = state(take(fields, own), days, weather, parameters, pixels)
    surface = reflectance(now, *angles, optics, parameters, S2)
    if len(mixed):
        now = state(take(fields, others[mixed]), days, weather, parameters, take(pixels, mixed))
        other = reflectance(now, angles[0], angles[1][mixed], angles[2][mixed], optics, parameters, S2)
        surface[mixed] += share[mixed, None, None].astype(np.float32) * (other - surface[mixed])
    clouds = draw_clouds(weather["cover"], n, parameters, generator)
    return see_sentinel2(surface, angles[0], weather, clouds, region, parameters, generator)


def see_pairs(
    fields: Arrays,
    own: np.ndarray,
    date: int,
    weather: Arrays,
    region: str,
    optics: Arrays,
    parameters: dict[str, Any],
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """What Sentinel-2 (n, 12) and Planet (n, 4, 3, 3) measure on one date of n pixels in the fields with indices `own`.

    Some pixels lie on a border: a part of their 3×3 pixels is in another field, drawn from all that are given.
    """
    n, latitude, about = len(own), parameters["regions"][region]["latitude"], parameters["planet"]
    day = dates(parameters)[date]
    today = weather | {name: weather[name][[date]] for name in ("cover", "aerosol", "s2_gain", "planet_gain")}
    parts, pixels = _parts(len(fields["crop"]), own, parameters, generator)
    inside = take(fields, parts)

    def repeat(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, 9)[:, None]

    shift = draw_orbit(n, parameters, generator)
    sun, view, azimuth = sentinel2_angles(np.array([day]), latitude, parameters, shift)
    now = state(inside, np.array([day]), weather, parameters, pixels)
    surface = reflectance(now, sun, repeat(view), repeat(azimuth), optics, parameters, S2)
    surface = surface.reshape(n, 9, 1, 12).mean(axis=1)
    clouds = draw_clouds(today["cover"], n, parameters, generator)
    s2 = see_sentinel2(surface, sun, today, clouds, region, parameters, generator)[:, 0]

    # Planet's image of the day is filled with what it saw some days before or after.
    when = day + repeat(about["days"] * _noise(generator, n))
    now = state(inside, when, weather, parameters, pixels)
    angles = planet_angles(np.array([day]), latitude, parameters)
    planet = reflectance(now, *angles, optics, parameters, PLANET).reshape(n, 9, 4)
    hazy = np.where(generator.random(n) < about["haze"], generator.uniform(*about["haze_opacity"], n), 0)
    planet += hazy.astype(np.float32)[:, None, None] * (about["haze_brightness"] - planet)
    planet *= today["planet_gain"] * (1 + about["pixel_gain"] * _noise(generator, n, 9, 4))
    planet += about["noise"] * _noise(generator, n, 9, 4)
    return s2, planet.transpose(0, 2, 1).reshape(n, 4, 3, 3)


def _parts(count: int, own: np.ndarray, parameters: dict[str, Any], generator: np.random.Generator) -> tuple:
    """The field of each of the 3×3 pixels (n·9,) of n pixels, and how they differ from their field."""
    sd, n = parameters["pixels"], len(own)
    y, x = (axis.ravel() for axis in np.mgrid[-1:2, -1:2].astype(np.float32))
    angle, offset = generator.uniform(0, 2 * np.pi, (n, 1)), generator.uniform(-1, 1, (n, 1)) * sd["border_offset"]
    beyond = x * np.cos(angle) + y * np.sin(angle) > offset
    beyond ^= beyond.mean(axis=1, keepdims=True) > 0.5
    beyond &= generator.random((n, 1)) < sd["border"]
    parts = np.where(beyond, generator.integers(0, count, (n, 1)), own[:, None])
    pixels = {name: np.repeat(value, 9).reshape(n, 9) for name, value in draw_pixels(n, parameters, generator).items()}
    right, down = sd["planet_slope"] * _noise(generator, 2, n, 1)
    pixels["leaf_area"] += right * x + down * y + sd["planet_leaf_area"] * _noise(generator, n, 9)
    pixels["soil"] *= 1 + sd["planet_soil"] * _noise(generator, n, 9)
    return parts.ravel(), {name: value.ravel() for name, value in pixels.items()}


def _noise(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.standard_normal(shape, dtype=np.float32)
