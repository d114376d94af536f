"""Simulated fields: what grows on each and when, drawn once a field; see the archive's card, data/crops/README.md.

A field is a set of numbers, so fields are a dictionary of arrays (n,), or (n, 6) for the up to six canopies that follow
each other in a year. Their leaf area on any day is a formula of these numbers. All that is random comes from a
generator that is passed in; without one, everything takes its mean, or what is most likely.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

CYCLES = 6  # canopies a year at most: of grass one before the first cut in two parts, and four that grow again
CYCLE = {"peak": 0, "rise": -999, "rise_days": 1, "fade": 9999, "fade_days": 1, "end": 9999}  # one that is not there
CUT_DAYS = 0.8  # how steeply the leaf area falls when it is cut, harvested or ploughed


def draw_region(region: str, parameters: dict[str, Any], generator: np.random.Generator) -> Arrays:
    """All fields of a region: those of `draw_fields`, and of each the "class" that grows there, the "label" that its
    farmer declared, and the "split" that it belongs to, as indices (n,) into the region's classes and splits.
    """
    about = parameters["regions"][region]
    names, crops = list(about["fields"]), list(parameters["crops"])
    kinds, growing = [], []
    for i, (name, count) in enumerate(about["fields"].items()):
        shares = parameters["classes"][name]
        chosen = _choose(generator, list(shares.values()), count)
        growing.append(np.array([crops.index(crop) for crop in shares])[chosen])
        kinds.append(np.full(count, i))
    kinds, growing = np.concatenate(kinds), np.concatenate(growing)
    fields = draw_fields(growing, region, parameters, generator)
    other = (kinds + generator.integers(1, len(names), len(kinds))) % len(names)
    labels = np.where(_happens(generator, parameters["misdeclared"], len(kinds)), other, kinds)
    return fields | {"class": kinds, "label": labels, "split": split_fields(labels, about["splits"], generator)}


def split_fields(labels: np.ndarray, splits: dict[str, float], generator: np.random.Generator) -> np.ndarray:
    """To which split each field (n,) belongs: of each label these shares, the last split at least one field."""
    result = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        sizes = [round(share * len(members)) for share in list(splits.values())[1:]]
        sizes[-1] = max(sizes[-1], 1)
        ends = np.cumsum([len(members) - sum(sizes), *sizes])[:-1]
        for i, part in enumerate(np.split(members, ends)):
            result[part] = i
    return result


def mean_field(crop: str, region: str, parameters: dict[str, Any]) -> Arrays:
    """The one field (1,) of a crop, with all that is random at its mean or what is most likely."""
    return draw_fields(np.array([list(parameters["crops"]).index(crop)]), region, parameters)


def draw_fields(
    crops: np.ndarray,
    region: str,
    parameters: dict[str, Any],
    generator: np.random.Generator | None = None,
) -> Arrays:
    """Fields (n,) with these crops (n,), indices into the table of crops; without a generator, mean ones.

    Of each: "crop", "grass" (0 or 1), its canopies (n, 6) "peak" (leaf area), "rise", "rise_days", "fade", "fade_days",
    "end" (days of the year), the days of "harvest", "plough" and "flower_day", and what of its leaves, canopy and soil
    does not change in a year. "soil" and "straw_kind", 0 to 1, say which of the spectra of `crop_optics.load` it has.
    """
    fields: Arrays = {"crop": crops}
    for i in np.unique(crops):
        where = np.flatnonzero(crops == i)
        crop = list(parameters["crops"].values())[i]
        part = _draw(crop, len(where), parameters["regions"][region], parameters, generator)
        for name, value in part.items():
            fields.setdefault(name, np.zeros((len(crops), *value.shape[1:]), np.float32))[where] = value
    return fields


def take(fields: Arrays, index: np.ndarray) -> Arrays:
    """The fields (m,) with these indices (m,)."""
    return {name: value[index] for name, value in fields.items()}


def lai(fields: Arrays, days: np.ndarray) -> np.ndarray:
    """Leaf area index (n, T) of fields (n,) on days (T,) or (n, T) of the year."""
    return canopy(fields, days)[0]


def canopy(fields: Arrays, days: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaf area index (n, T) and the share of it that has turned yellow, of fields (n,) on days (T,) or (n, T).

    The sum over canopies of peak · s((t − rise) / rise_days) · (1 − s((t − end) / 0.8)), s being the logistic function;
    of each, the share s((t − fade) / fade_days) is yellow.
    """
    days = np.asarray(days, dtype=np.float32)
    shape = np.broadcast_shapes((len(fields["peak"]), 1), days.shape)
    total, yellow = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for k in range(CYCLES):
        one = {name: fields[name][:, k, None] for name in CYCLE}
        if one["peak"].any():
            leaves = one["peak"] * logistic((days - one["rise"]) / one["rise_days"])
            leaves *= logistic((one["end"] - days) / CUT_DAYS)
            total += leaves
            if (one["fade"] < CYCLE["fade"]).any():
                yellow += leaves * logistic((days - one["fade"]) / one["fade_days"])
    return total, yellow / np.maximum(total, 1e-6)


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(−x)), without overflow."""
    return 0.5 * np.tanh(0.5 * x) + 0.5


# What is random


def _normal(generator: np.random.Generator | None, n: int, mean: Any, sd: Any, *limits: float) -> np.ndarray:
    values = mean + np.zeros(n) if generator is None else mean + sd * generator.standard_normal(n)
    return np.clip(values, *limits) if limits else values


def _uniform(generator: np.random.Generator | None, n: int) -> np.ndarray:
    return np.full(n, 0.5) if generator is None else generator.random(n)


def _happens(generator: np.random.Generator | None, probability: float, n: int) -> np.ndarray:
    return _uniform(generator, n) < probability if generator is not None else np.full(n, probability > 0.5)


def _choose(generator: np.random.Generator | None, shares: list[float], n: int) -> np.ndarray:
    if generator is None:
        return np.full(n, int(np.argmax(shares)))
    return np.minimum(np.searchsorted(np.cumsum(shares), generator.random(n), side="right"), len(shares) - 1)


# One crop


def _draw(
    crop: dict[str, Any],
    n: int,
    region: dict[str, Any],
    parameters: dict[str, Any],
    generator: np.random.Generator | None,
) -> Arrays:
    """The numbers of n fields of one crop."""
    spread, common = parameters["spread"], parameters["fields"]
    grass = crop["season"] == "grass"
    kind = "grass" if grass else "crops"
    limits = common["limits"][kind]

    def normal(mean: Any, sd: Any, *between: float) -> np.ndarray:
        return _normal(generator, n, mean, sd * spread, *between)

    def later(day: Any) -> Any:
        return day + np.interp(day, parameters["shift_days"], region["shift"])

    def day_of(name: str) -> np.ndarray:
        return normal(later(crop[name][0]), crop[name][1])

    main = CYCLE | {
        "rise": day_of("rise"),
        "rise_days": normal(crop["rise_days"], common["rise_days_sd"][kind], *limits["rise_days"]),
        "peak": np.clip(normal(*crop["peak"]) * region["leaf_area"], *limits["peak"]),
    }
    before = CYCLE | {
        "rise": normal(*common["overwinter_rise"]),
        "rise_days": common["overwinter_rise_days"],
    }
    if crop["season"] != "spring":
        factor = region[f"overwinter_{kind}"] * common["overwinter_factor"][kind]
        before["peak"] = np.clip(normal(*crop["overwinter"]) * factor, *limits["overwinter"])
    harvest = plough = np.full(n, float(CYCLE["end"]))
    if grass:
        new = _happens(generator, crop.get("new_leys", 0), n)
        before["peak"] = np.where(new, 0, before["peak"])
        main["rise"] = main["rise"] + np.where(new, parameters["grass"]["new_ley_later"], 0)
        cycles = _meadow(crop, n, before, main, parameters["grass"], later, normal, generator)
    else:
        harvest = np.maximum(day_of("harvest"), main["rise"] + common["harvest_after_rise"])
        main["fade"] = np.minimum(day_of("fade"), harvest + common["fade_after_harvest"])
        main["fade_days"] = normal(crop["fade_days"], common["fade_days_sd"], *limits["fade_days"])
        main["end"] = harvest
        if crop["season"] == "winter":
            before |= {name: main[name] for name in ("fade", "fade_days", "end")}
        else:
            before |= _winter_cover(n, main["rise"], parameters["winter_cover"], limits, normal, generator)
        after, plough = _after_harvest(n, harvest, parameters["after_harvest"], later, normal, generator)
        cycles = [before, main, *after]

    cycles += [CYCLE] * (CYCLES - len(cycles))
    values = {name: np.stack([cycle[name] + np.zeros(n) for cycle in cycles], axis=1) for name in CYCLE}
    flower_day = main["rise"] + normal(*crop["flowers_after_rise"]) if "flowers_after_rise" in crop else np.zeros(n)
    if "flowers_on" in crop:
        flower_day = day_of("flowers_on")
    brown = normal(*common["brown"][:2]) + grass * common["brown_grass"] * _uniform(generator, n)
    gaps, gap_sd, *gap_limits = common["gaps"]
    water_sd = common["water_share_sd"][kind] * crop["water"]
    return values | {
        "grass": np.full(n, float(grass)),
        "harvest": harvest,
        "plough": plough,
        "flower_day": flower_day,
        "petals": normal(*crop["petals"], *common["petals"]) if "petals" in crop else np.zeros(n),
        "chlorophyll": normal(*crop["chlorophyll"], *limits["chlorophyll"]),
        "leaf_angle": normal(*crop["leaf_angle"], *limits["leaf_angle"]),
        "water": normal(crop["water"], water_sd, *limits["water"]),
        "structure": normal(*common["structure"]),
        "hotspot": normal(*common["hotspot"]),
        "dry_matter": normal(*common["dry_matter"]),
        "soil": _uniform(generator, n),
        "soil_brightness": normal(*common["soil_brightness"]),
        "soil_wetness": normal(*common["soil_wetness"]),
        "straw": normal(*common["straw"]),
        "straw_kind": _uniform(generator, n),
        "brown": np.clip(brown, *common["brown"][2:]),
        "gaps": normal(gaps + crop.get("gaps", 0), gap_sd, *gap_limits),
        "winter_damage": normal(*common["winter_damage"]),
        "drought": region["drought"] * common["drought"][kind] * _uniform(generator, n),
    }


def _winter_cover(n, rise, parameters, limits, normal, generator) -> Arrays:
    """What stands on a field of a spring crop until it is destroyed before the crop is sown."""
    kinds = list(parameters["shares"])
    kind = _choose(generator, list(parameters["shares"].values()), n)
    peaks = [np.clip(normal(*parameters[name]), *limits["overwinter"]) if name in parameters else 0 for name in kinds]
    before, sd = parameters["destroyed_before_rise"]
    frost = normal(*parameters["frost"])
    return {
        "peak": np.choose(kind, [peak + np.zeros(n) for peak in peaks]),
        "end": rise - normal(before, sd),
        "fade": np.where(_happens(generator, parameters["frost_killed"], n), frost, CYCLE["fade"]),
        "fade_days": parameters["frost_days"],
    }


def _after_harvest(n, harvest, parameters, later, normal, generator) -> tuple[list[Arrays], np.ndarray]:
    """Volunteers until the plough, and what is sown next; and the day of the plough."""
    names, kinds = list(parameters["next"]), list(parameters["next"].values())
    kind = _choose(generator, [one["share"] for one in kinds], n)
    sown = kind != names.index("none")
    kind = np.where((harvest > parameters["late"]) & sown, names.index("winter cereal"), kind)
    rise = np.choose(kind, [normal(later(one["rise"][0]), one["rise"][1]) for one in kinds])
    rise = np.maximum(rise, harvest + parameters["next_after_harvest"])
    peak = np.choose(kind, [normal(*one["peak"]) for one in kinds])
    plough = harvest + normal(*parameters["plough_after"])
    plough = np.where(sown, np.minimum(plough, rise - parameters["plough_before_next"]), plough)
    volunteers = CYCLE | {
        "peak": np.maximum(normal(*parameters["volunteers"]), 0),
        "rise": harvest + parameters["volunteers_after"],
        "rise_days": parameters["volunteers_rise_days"],
        "end": plough,
    }
    following = {"peak": np.where(sown, np.maximum(peak, 0.1), 0), "rise": rise}
    return [volunteers, CYCLE | following | {"rise_days": parameters["next_rise_days"]}], plough


def _meadow(crop, n, before, main, parameters, later, normal, generator) -> list[Arrays]:
    """The canopies of grass: one up to the first cut, and one that grows again after each cut."""
    number = _choose(generator, crop["share_by_cuts"], n)
    days = np.stack([normal(later(day), crop["cut_sd"]) for day in crop["cuts"]])
    few = number <= parameters["few_cuts"]
    for k, delay in enumerate(parameters["few_cuts_later"]):
        days[k] += np.where(few, delay, 0)
    days = np.sort(days, axis=0)
    cuts = [np.where(number > k, day, CYCLE["end"]) for k, day in enumerate(days)]
    cycles = [before | {"end": cuts[0]}, main | {"end": cuts[0]}]
    for k, cut in enumerate(cuts):
        share = parameters["regrowth_peak"] - parameters["regrowth_less"] * k
        peak = np.clip(normal(main["peak"] * share, parameters["regrowth_sd"]), 0.3, None)
        again = {"peak": np.where(number > k, peak, 0), "rise": cut + normal(*parameters["regrowth"])}
        end = cuts[k + 1] if k + 1 < len(cuts) else CYCLE["end"]
        cycles.append(CYCLE | again | {"rise_days": parameters["regrowth_rise_days"], "end": end})
    return cycles
