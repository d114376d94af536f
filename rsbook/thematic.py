"""A thematic product of our own: a land-cover map as an automatic classifier makes it, with a classifier's errors.

It stands in for the product behind BigEarthNet's labels (Burgert et al., arXiv 2405.13451, section V-C) where a data
set has only one map.
"""

from __future__ import annotations

import numpy as np
import torch
from rasterio.features import sieve
from scipy.ndimage import uniform_filter
from torch import Tensor

from rsbook import positions
from rsbook.scenes import Scenes

PIXELS = 5_000  # that the classifier learns from
MIN_SEGMENT = 12  # pixels: products merge smaller segments into their largest neighbour
SEED = 0  # a product is one map of the world, the same for every run


def thematic_product(data: Scenes, index: Tensor) -> Tensor:
    """Class positions (n,H,W) int32 of the scenes `index` as a random forest sees them.

    The forest learns from PIXELS random pixels of these scenes, each by its bands and their mean over 3×3 pixels, and
    then maps them all. Raises ValueError for scenes without class positions.
    """
    from sklearn.ensemble import RandomForestClassifier  # slow to import, and only this needs it

    if data.positions is None:
        raise ValueError(f"{data.name}: these scenes have no reference maps for a classifier to learn from")
    num_classes = len(data.classes)
    truth = positions.to_reference_maps(data.positions[index], num_classes).numpy()
    features = _features(data.images[index].numpy())
    rng = np.random.default_rng(SEED)
    known = np.flatnonzero(truth.reshape(-1) >= 0)
    sample = rng.choice(known, size=min(PIXELS, len(known)), replace=False)
    forest = RandomForestClassifier(20, max_depth=12, min_samples_leaf=5, random_state=SEED)
    forest.fit(features[sample], truth.reshape(-1)[sample])
    predicted = forest.predict(features).reshape(truth.shape).astype(np.uint8)
    maps = np.stack([sieve(sieve(one, MIN_SEGMENT), MIN_SEGMENT) for one in predicted])  # once leaves a few
    return positions.from_reference_maps(torch.from_numpy(maps), num_classes)


def _features(images: np.ndarray) -> np.ndarray:
    """Bands and their local means (n·H·W, 2C) of images (n,C,H,W)."""
    images = images.astype(np.float32)
    both = np.concatenate([images, uniform_filter(images, size=(1, 1, 3, 3))], axis=1)
    return np.moveaxis(both, 1, -1).reshape(-1, both.shape[1])
