"""Make data/crops/optics.npz from radiative transfer and measured soils (README.md says what is in it and why).

Once, in an environment of its own, since the project itself needs none of the three packages:

    python -m venv optics
    optics/bin/pip install progeosail==2.1.0 pyrsr==0.8.0 earthlib==1.1.0
    optics/bin/python data/crops/build_optics.py

It takes about three minutes on one core. The last line says how exact the emulator is on canopies that it has not seen.
"""

import hashlib
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import earthlib.read
import numpy as np
import pandas as pd
import progeosail
from pyrsr import RelativeSpectralResponse
from scipy.stats import qmc

HERE = Path(__file__).parent
WAVELENGTHS = np.arange(400, 2501)  # nm, of the radiative transfer

S2_BANDS = ("1", "2", "3", "4", "5", "6", "7", "8", "8A", "9", "11", "12")
PLANET_BANDS = {"blue": (455, 515), "green": (500, 590), "red": (590, 670), "nir": (780, 860)}  # nm, of Dove-C

# Lowest and highest of what the emulator is asked about, in the order of its inputs.
BOX = {
    "structure": (1.2, 2.3),  # N of PROSPECT, layers
    "chlorophyll": (2, 90),  # µg/cm²
    "carotenoids": (0.5, 20),  # µg/cm²
    "anthocyanins": (0, 4),  # µg/cm²
    "brown": (0, 1.5),  # brown pigments, arbitrary units
    "water": (0.002, 0.06),  # cm
    "dry_matter": (0.002, 0.016),  # g/cm²
    "lai": (0, 8),  # m²/m²
    "leaf_angle": (25, 78),  # mean, degrees
    "hotspot": (0.02, 0.6),
    "sun_zenith": (20, 80),  # degrees
    "view_zenith": (0, 13),  # degrees
    "azimuth": (0, 180),  # between sun and sensor, degrees
}
SAMPLES, UNSEEN, CHECKED = 2**15, 2**12, 50
HIDDEN, STEPS, BATCH, RATE = 128, 30_000, 1_024, 4e-3

SOILS = {"LAT": (42, 60), "LON": (-6, 30)}  # degrees: Europe from the Mediterranean coast to the Baltic
STRAWS = ("deadgras", "goldgras", "woodstrw", "brte_br")
# Reflectance at nm of petals of rapeseed (of which PETALS_LIT is seen) and of old snow: rounded estimates.
PETALS = {400: 0.05, 480: 0.06, 520: 0.20, 560: 0.40, 600: 0.45, 665: 0.42, 700: 0.45, 740: 0.50, 865: 0.55, 945: 0.52}
PETALS |= {1613: 0.28, 2202: 0.15}
PETALS_LIT = 0.8
SNOW = {400: 0.9, 865: 0.85, 945: 0.75, 1613: 0.10, 2202: 0.06}


def responses():
    """Spectral responses (16, 2101) of the bands, each summing to 1, their centres (16,) and widths (16,) in nm."""
    sentinel = RelativeSpectralResponse("Sentinel-2A", "MSI")
    curves = [np.interp(WAVELENGTHS, sentinel.rsrs_wvl, sentinel.rsrs[band], 0, 0) for band in S2_BANDS]
    for low, high in PLANET_BANDS.values():
        curves.append((1 + np.tanh((WAVELENGTHS - low) / 2.5)) * (1 + np.tanh((high - WAVELENGTHS) / 2.5)))
    curves = np.array(curves)
    widths = (curves > curves.max(axis=1, keepdims=True) / 2).sum(axis=1)
    curves /= curves.sum(axis=1, keepdims=True)
    return curves, curves @ WAVELENGTHS, widths


def canopies(unit):
    """Canopies (n, 13) in the order of BOX from points of the unit cube: thin canopies and little water more often."""
    unit = unit.copy()
    names = list(BOX)
    low, high = np.array(list(BOX.values()), dtype=float).T
    unit[:, names.index("lai")] **= 1.5
    values = low + unit * (high - low)
    water = names.index("water")
    values[:, water] = low[water] * (high[water] / low[water]) ** unit[:, water]
    return values


def transfer(canopy, soil):
    """All 21 terms of PROSPECT-D and 4SAIL at every nanometer for one canopy (13,) over a soil (2101,)."""
    n, cab, car, ant, brown, cw, cm, lai, angle, hotspot, sun, view, azimuth = canopy
    return progeosail.run_prosail(
        n, cab, car, brown, cw, cm, lai, angle, hotspot, sun, view, azimuth,
        ant=ant, prospect_version="D", typelidf=2, factor="ALLALL", rsoil0=soil,
    )  # fmt: skip


def over_soil(canopy, curves):
    """a, b and r (48,) of the 16 bands: over a soil s the canopy reflects a + b s / (1 − r s)."""
    tss, too, tsstoo, rdd, _, _, tsd, _, tdo, rso, *_ = transfer(canopy, np.zeros(len(WAVELENGTHS)))
    terms = (rso, tsstoo + (tss + tsd) * tdo + tsd * too, rdd)
    return np.concatenate([curves @ term for term in terms])


def inputs(canopy):
    """What the network is given of canopies (n, 13), before standardising: scaled so that it is smooth in them."""
    n, cab, car, ant, brown, cw, cm, lai, angle, hotspot, sun, view, azimuth = canopy.T
    columns = [n, np.sqrt(cab), np.sqrt(car), ant, brown, np.log(cw), cm, np.exp(-lai / 2), lai, angle / 30, hotspot]
    return np.stack([*columns, np.cos(np.radians(sun)), view / 10, np.cos(np.radians(azimuth))], axis=1)


def silu(x):
    """The activation and its derivative."""
    gate = 1 / (1 + np.exp(-x))
    return x * gate, gate * (1 + x * (1 - gate))


def rate(step):
    """One cycle: up to RATE over the first 30 %, then down to nothing, along cosines."""
    share = step / STEPS
    up = 0.04 + 0.96 * (1 - np.cos(np.pi * share / 0.3)) / 2
    return RATE * (up if share < 0.3 else (1 + np.cos(np.pi * (share - 0.3) / 0.7)) / 2)


def train(x, y, generator):
    """Weights and biases of a network of two hidden layers that finds y (n, 48) from x (n, 14), both standardised."""
    sizes = (x.shape[1], HIDDEN, HIDDEN, y.shape[1])
    layers = [generator.normal(0, (2 / a) ** 0.5, (a, b)).astype(np.float32) for a, b in pairwise(sizes)]
    layers = [part for weight in layers for part in (weight, np.zeros(weight.shape[1], np.float32))]
    first, second = ([np.zeros_like(part) for part in layers] for _ in range(2))
    for step in range(STEPS):
        chosen = generator.integers(0, len(x), BATCH)
        w1, b1, w2, b2, w3, b3 = layers
        h1, slope1 = silu(x[chosen] @ w1 + b1)
        h2, slope2 = silu(h1 @ w2 + b2)
        error = (h2 @ w3 + b3 - y[chosen]) * (2 / BATCH / y.shape[1])
        error2 = error @ w3.T * slope2
        error1 = error2 @ w2.T * slope1
        slopes = [x[chosen].T @ error1, error1.sum(0), h1.T @ error2, error2.sum(0), h2.T @ error, error.sum(0)]
        for i, slope in enumerate(slopes):  # Adam
            first[i] += 0.1 * (slope - first[i])
            second[i] += 0.001 * (slope**2 - second[i])
            mean, square = first[i] / (1 - 0.9 ** (step + 1)), second[i] / (1 - 0.999 ** (step + 1))
            layers[i] -= np.float32(rate(step)) * mean / (np.sqrt(square) + 1e-8)
    return layers


def measured(centres, widths):
    """Soils and straws (n, 16) at the bands, and the soils (n, 2101) at every nanometer, from earthlib's library."""
    library = files("earthlib") / "data"
    table = pd.read_csv(library / "spectra.csv")
    spectra = earthlib.read.spectral_library(str(library / "spectra.sli"))
    grid = np.asarray(spectra.sensor.band_centers, dtype=float) * 1000  # nm, every 10, without the bands of water
    values = np.asarray(spectra.data, dtype=float)
    bell = np.exp(-4 * np.log(2) * ((grid - centres[:, None]) / np.maximum(widths, 20)[:, None]) ** 2)
    bell /= bell.sum(axis=1, keepdims=True)
    european = table.SOURCE.eq("icraf-isric-soil-database")
    for column, (low, high) in SOILS.items():
        european &= table[column].between(low, high)
    soils, straws = values[european], values[[table.NAME.eq(name).idxmax() for name in STRAWS]]
    soils = soils[np.argsort(soils.mean(axis=1))]  # from dark to bright: the middle one is a mean soil
    return soils @ bell.T, straws @ bell.T, np.array([np.interp(WAVELENGTHS, grid, soil) for soil in soils])


def at(nodes, centres):
    """A spectrum (16,) from a few reflectances by wavelength."""
    return np.interp(centres, list(nodes), list(nodes.values()))


def main():
    """Write optics.npz and its line of SHA256SUMS beside this script."""
    generator = np.random.default_rng(0)
    curves, centres, widths = responses()
    soils, straws, soils_nm = measured(centres, widths)
    seen = canopies(qmc.Sobol(len(BOX), seed=0).random(SAMPLES))
    unseen = canopies(generator.random((UNSEEN, len(BOX))))
    y, y_unseen = (np.array([over_soil(one, curves) for one in some]) for some in (seen, unseen))
    x = inputs(seen)
    moments = {"x_mean": x.mean(0), "x_std": x.std(0), "y_mean": y.mean(0), "y_std": y.std(0)}
    arrays = {name: value.astype(np.float32) for name, value in moments.items()}
    standardised = [
        ((part - arrays[f"{name}_mean"]) / arrays[f"{name}_std"]).astype(np.float32)
        for name, part in (("x", x), ("y", y))
    ]
    layers = train(*standardised, generator)
    arrays |= dict(zip(("w1", "b1", "w2", "b2", "w3", "b3"), layers, strict=True))
    arrays["box"] = np.array(list(BOX.values()), dtype=np.float32)  # (13, 2) in the order of `inputs`
    arrays["wavelengths"] = centres.astype(np.float32)
    arrays |= {name: value.round(4).astype(np.float32) for name, value in (("soils", soils), ("straws", straws))}
    arrays["petals"] = (PETALS_LIT * at(PETALS, centres)).round(4).astype(np.float32)
    arrays["snow"] = at(SNOW, centres).round(4).astype(np.float32)
    # For the tests: what the radiative transfer itself says of unseen canopies over whole spectra of soils.
    over = generator.integers(0, len(soils), CHECKED)
    spectra = [curves @ transfer(canopy, soils_nm[s])[17] for canopy, s in zip(unseen, over, strict=False)]
    arrays |= {"check_canopies": unseen[:CHECKED].astype(np.float32), "check_soils": over.astype(np.int16)}
    arrays["check_reflectance"] = np.array(spectra).astype(np.float32)
    np.savez_compressed(HERE / "optics.npz", **arrays)
    report(arrays, unseen, y_unseen, soils[generator.integers(0, len(soils), UNSEEN)])
    names = ("optics.npz", "parameters.yaml")
    sums = [f"{hashlib.sha256((HERE / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (HERE / "SHA256SUMS").write_text("".join(sums))


def report(arrays, unseen, expected, soil):
    """Print the emulator's errors on unseen canopies: of its terms and of reflectance over soils (n, 16)."""
    x = (inputs(unseen) - arrays["x_mean"]) / arrays["x_std"]
    for layer in "12":
        x = silu(x @ arrays[f"w{layer}"] + arrays[f"b{layer}"])[0]
    found = (x @ arrays["w3"] + arrays["b3"]) * arrays["y_std"] + arrays["y_mean"]
    rho = [a + b * soil / (1 - r * soil) for a, b, r in (np.split(terms, 3, axis=1) for terms in (found, expected))]
    errors = {"a, b, r": found - expected, "reflectance": rho[0] - rho[1]}
    parts = [f"{name} {np.sqrt((e**2).mean()):.4f} (largest {np.abs(e).max():.3f})" for name, e in errors.items()]
    print(f"{len(unseen)} unseen canopies, root mean square error: {', '.join(parts)}")


if __name__ == "__main__":
    main()
