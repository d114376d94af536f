"""The scenes of Blue Marble with two products of the vegetation as a second modality; see the archive's card in data/.

The card, data/bluemarble_vegetation/README.md, says what the two layers are and what a network sees where they end.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from rsbook import scenes
from rsbook.archives import bluemarble, geotiff

MODALITIES = {"vegetation": (3, 4), "optical": (0, 1, 2)}
CURE = "restore it with `git checkout -- data/bluemarble_vegetation`"


def load(folder: Path, checksum: str) -> scenes.Scenes:
    """Read the scenes of `bluemarble` beside the folder and add the windows of vegetation.tif as bands 3 and 4.

    Raises DataError for files that are not what they should be; `scenes.load` has checked the sha256 before.
    """
    beside = folder.parent / "bluemarble"
    data = bluemarble.load(beside, checksum)
    corners, _ = bluemarble.read_windows(beside / "scenes.csv")
    _, *grid = geotiff.read(beside / "igbp.tif", (1, None, None), "uint8", bluemarble.CURE).shape
    layers = geotiff.read(folder / "vegetation.tif", (2, *grid), "uint8", CURE)
    vegetation = torch.from_numpy(bluemarble.cut(layers, corners))
    # Pixels without a value count as the 0 that they are, as in what a network is given.
    training = vegetation[data.split("train")].double()
    return replace(
        data,
        name="bluemarble_vegetation",
        images=torch.cat([data.images, vegetation], dim=1),
        mean=torch.cat([data.mean, training.mean(dim=(0, 2, 3)).float()]),
        std=torch.cat([data.std, training.std(dim=(0, 2, 3)).float()]),
        modalities=MODALITIES,
    )
