"""What answers of annotators are like, and what networks learn from them: tables and claims of Part IV.

Nothing here trains: this module may change without a run being done again.
"""

from __future__ import annotations

import pandas as pd
import torch

from rsbook import annotations, claims
from rsbook.figures import mean_and_spread
from rsbook.scenes import Scenes
from rsbook.single_positive_findings import METHOD_NAMES, UNAVAILABLE, per_cent

SETTING_NAMES = {  # those of people first
    "manual": "manual answers",
    "simulated": "simulated answers",
    "random": "random positives",
    "dominant": "dominant positives",
    "all": "all labels",
}


def manual_table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a source of labels and method: mAP macro and F1 of training on the scenes of the answers, per cent."""
    rows = []
    for (setting, method), part in runs.groupby(["setting", "method"], sort=False):
        rows.append(
            {
                "labels": SETTING_NAMES[setting],
                "method": METHOD_NAMES[method],
                "scenes": len(part["answers"].iloc[0]),
                "mAP": mean_and_spread(part["map_macro"]),
                "F1 at 0.5": mean_and_spread(part["f1_fixed"]),
                "F1, tuned": mean_and_spread(part["f1_tuned"]),
                "n": len(part),
            }
        )
    return pd.DataFrame(rows)


def manual_claims(runs: pd.DataFrame, preset: str) -> pd.DataFrame:
    """Our expectations of answers: AdaGC is above AN with them, and AN learns less from them than from random ones."""
    given = next(setting for setting in SETTING_NAMES if setting in set(runs["setting"]))

    def scores(setting: str, method: str) -> pd.Series:
        return runs[(runs["setting"] == setting) & (runs["method"] == method)].set_index("seed")["map_macro"]

    rows = [
        claims.state(
            "answers_adagc",
            f"From {SETTING_NAMES[given]}, AdaGC, reconstructed, is above AN",
            {"": scores(given, "adagc") - scores(given, "an")},
            UNAVAILABLE if given == "manual" else "not in the paper, whose answers are people's",
        ),
        claims.state(
            "answers_random",
            f"AN from {SETTING_NAMES[given]} is below AN from random positives of the same scenes",
            {"": scores("random", "an") - scores(given, "an")},
            "not in the paper",
        ),
    ]
    return claims.collect(rows, preset)


def answer_table(answers: pd.DataFrame, data: Scenes) -> pd.DataFrame:
    """What answers are like: how many, how often the class is in the scene's label, how often it is the largest one
    there (a dash without maps), and how long they took. Shares are of the scenes labelled, in per cent.
    """
    given = answers[answers["label"] != ""]
    index = torch.tensor(given["scene"].tolist(), dtype=torch.long)
    chosen = torch.tensor([data.classes.index(name) for name in given["label"]], dtype=torch.long)
    areas, rows = annotations.areas(data, index), torch.arange(len(index))
    largest = (areas[rows, chosen] == areas.amax(dim=1)) & (areas[rows, chosen] > 0)
    early = [text.count(annotations.SEPARATOR) < annotations.PAGE for text in given["candidates"]]
    facts = {
        "scenes labelled": str(len(given)),
        "skipped": str(len(answers) - len(given)),
        "in the label of the archive, %": per_cent(data.labels[index][rows, chosen].float().mean().item()),
        "the largest class of the scene, %": "–" if data.positions is None else per_cent(largest.float().mean().item()),
        "among the first four candidates, %": per_cent(pd.Series(early, dtype=float).mean()),
        "median seconds": f"{given['seconds'].median():.1f}" if given["seconds"].any() else "–",  # nobody took none
    }
    return pd.DataFrame({"answers": list(facts), "value": list(facts.values())})
