"""Tables as `runs.table` makes them, with scores made up for the tests of what is said about them."""

import pandas as pd

SEEDS = (42, 43, 44)
LARGE, SMALL = (0.3, 0.7), (0.1, 0.3)


def rows(method, area_range, scores, seeds=SEEDS, **columns):
    """A run a seed; mAP micro lies half-way to 1, so that its differences are half as large."""
    return [
        {
            "method": method,
            "area_range": None if area_range is None else list(area_range),
            "seed": seed,
            "maps": "given",
            "noise": None,
            "noise_fraction": 0.0,
            "noise_intensity": None,
            "map_macro": score,
            "map_micro": 0.5 + score / 2,
            **columns,
        }
        for seed, score in zip(seeds, scores, strict=False)
    ]


def noisy(method, scores, kind, fraction, intensity=None):
    """Runs with boxes of 0.3–0.7 on maps with noise."""
    level = {"noise": kind, "noise_fraction": fraction, "noise_intensity": intensity}
    return rows(method, LARGE, scores, **level)


def runs_table(*parts):
    """The rows of all parts."""
    return pd.DataFrame([row for part in parts for row in part])


def figure_6_parts():
    """Stage one, trained for 1 and 3 epochs and in full, stage two with its masks, and runs to compare with."""
    lengths = {1: [0.30, 0.32], 3: [0.50, 0.52], None: [0.70, 0.72]}
    seeds = (42, 43)
    first, second = [], []
    for k, (epochs, scores) in enumerate(lengths.items()):
        for row in rows("none", None, scores, seeds, stop_after=epochs):
            weights = f"weights of seed {row['seed']}, epochs {epochs}"
            first.append(row | {"weights": weights})
            lifted = 0.69 + 0.03 * k + 0.02 * (row["seed"] - 42)  # one point below the whole training, 2 above, 5 above
            second += rows("cutmix_lp_xai", LARGE, [lifted], [row["seed"]], stage_one=weights)
    others = [row for row in first if row["stop_after"] is None] + rows("cutmix", LARGE, [0.71, 0.73], seeds)
    return runs_table(first), runs_table(second[::-1]), runs_table(others)
