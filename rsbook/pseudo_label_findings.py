"""What label propagation makes of one positive a scene and of pseudo-labels: tables and claims of Part IV.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

import pandas as pd

from rsbook import claims
from rsbook.comparisons import points
from rsbook.figures import mean_and_spread

MASK_NAMES = {  # by what masks are of, and how scenes are mixed
    ("none", "none"): "AN",
    ("none", "cutmix"): "AN, CutMix with area labels",
    ("observed", "cutmix_lp"): "AN, CutMix with LP, masks of the one positive",
    ("pseudo", "none"): "pseudo-labels",
    ("pseudo", "cutmix"): "pseudo-labels, CutMix with area labels",
    ("pseudo", "cutmix_lp"): "pseudo-labels, CutMix with LP, masks of these",
    ("reference", "none"): "all labels",
    ("reference", "cutmix_lp"): "all labels, CutMix with LP, reference maps",
}


def by_masks(runs: pd.DataFrame, metric: str = "map_macro") -> pd.DataFrame:
    """The metric of runs of `train_with_masks`: a row a seed, a column a (masks, mix) of MASK_NAMES."""
    table = runs.pivot(index="seed", columns=["masks", "mix"], values=metric)
    return table[[name for name in MASK_NAMES if name in table]]


def mask_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a way to train: mAP macro, its lead over AN, F1 at 0.5 and at the tuned threshold, and the precision and
    recall of the classes that were added to the one positive; per cent.
    """
    scores, fixed, tuned = (by_masks(runs, metric) for metric in ("map_macro", "f1_fixed", "f1_tuned"))
    plain, rows = scores["none", "none"], []
    for name in scores:
        part = runs[(runs["masks"] == name[0]) & (runs["mix"] == name[1])]
        added = [mean_and_spread(part[f"pseudo_{what}"].dropna(), 1) for what in ("precision", "recall")]
        rows.append(
            {
                "trained on": MASK_NAMES[name],
                "mAP": mean_and_spread(scores[name]),
                "over AN": "–" if name == ("none", "none") else points(scores[name] - plain),
                "F1 at 0.5": mean_and_spread(fixed[name]),
                "F1, tuned": mean_and_spread(tuned[name]),
                "added classes: precision": added[0],
                "recall": added[1],
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def mask_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Our expectations of label propagation from one positive."""
    scores = by_masks(runs)
    compared = {
        "lp_one": (
            "With the one positive alone, label propagation is above area labels",
            ("observed", "cutmix_lp"),
            ("none", "cutmix"),
        ),
        "lp_pseudo": (
            "With pseudo-labels, label propagation is above area labels",
            ("pseudo", "cutmix_lp"),
            ("pseudo", "cutmix"),
        ),
        "pseudo_an": ("Pseudo-labels are above AN", ("pseudo", "none"), ("none", "none")),
        "lp_an": (
            "Pseudo-labels and label propagation together are above AN",
            ("pseudo", "cutmix_lp"),
            ("none", "none"),
        ),
    }
    rows = [
        claims.state(number, claim, {"": scores[a] - scores[b]}, "not in the paper")
        for number, (claim, a, b) in compared.items()
    ]
    return claims.collect(rows, preset)
