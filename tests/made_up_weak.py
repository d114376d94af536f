"""Short trainings of Part V on the square scenes, as their tests begin with them."""

from rsbook import weak_runs

FITTING = {"batch_size": 4, "learning_rate": 1e-3, "weight_decay": 0.0}
ONCE = {"network": "narrow_resnet", "train_scenes": 8}
TRAINING = ONCE | {"fitting": FITTING | {"epochs": 2}}
WATCHED = ONCE | {"fitting": FITTING | {"epochs": 2, "evaluate_every": 1}}
SMALL = {"radius": 3, "steps": 8, "scales": (1, 0.5)}


def classify(method="cam", checkpoint=None, **changes):
    given = ONCE | {"epochs": 2, "fitting": FITTING | {"evaluate_every": 1}, "scales": (1, 0.5)} | changes
    return weak_runs.classify(dataset="tiny", method=method, seed=1, device="cpu", checkpoint=checkpoint, **given)
