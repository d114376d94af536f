"""A made-up archive of 60 arrays for test_prepared.py, and its reader; apart, so that worker processes start soon."""

import errno
import os
import signal
import time
from functools import partial

import numpy as np

from rsbook.archives import prepared

SIDE, BANDS, SCENES = 8, 4, 60


def read(raw, dtype, has_positions, pause, indices):
    """What raw/<index>.npy holds; each reading leaves a line in raw/../log."""
    time.sleep(pause)
    images = np.stack([np.load(f"{raw}/{i}.npy") for i in indices]).astype(dtype)
    bits = images[:, 0].astype(np.int32) & 7
    labels = (np.bitwise_or.reduce(bits.reshape(len(indices), -1), axis=1)[:, None] >> np.arange(3) & 1).astype(bool)
    with open(f"{raw}/../log", "a") as log:
        log.write(f"{indices[0]}\n")
    return images, bits if has_positions else None, labels


def make_source(raw, dtype="uint16", has_positions=True, pause=0.0, **changes):
    order = np.random.default_rng(0).permutation(SCENES).tolist()
    groups = [order[i : i + 3] for i in range(0, SCENES, 3)]
    facts = {
        "name": "deepglobe",
        "version": "made for a test",
        "classes": ("one", "two", "three"),
        "bands": tuple("abcd"),
        "rgb": (2, 1, 0),
        "min_pixels": 0,
        "size": SIDE,
        "dtype": dtype,
        "has_positions": has_positions,
        "scenes": [f"scene {i}" for i in range(SCENES)],
        "splits": [("train", "train", "val", "test")[i % 4] for i in range(SCENES)],
        "groups": groups,
        "read": partial(read, str(raw), dtype, has_positions, pause),
        "group_inputs": [prepared.identify(raw / f"{i}.npy" for i in group) for group in groups],
    }
    return prepared.Source(**facts | changes)


def slow_source(raw):
    return make_source(raw, pause=0.01)


def die(indices):
    """A reader that is killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def full(indices):
    """A reader that meets a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")
