"""Sub-classes of classes, from clusters of the scenes that hold each (Sub-category Exploration and Teaching).

Sub-category Exploration (Chang et al., arXiv 2008.01183) clusters with k-means, the report with FINCH (Sarfraz et al.,
arXiv 1902.11266), which has no parameter and is written here from its paper.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Generator, Tensor
from torch.nn.functional import normalize

METHODS = ("finch", "kmeans")
COUNT = 10  # sub-classes a class of Sub-category Exploration
ROWS = 2048  # whose similarities to all others are in memory at once
DECIMALS = 12  # of similarities: what is equal but for rounding is a tie


def finch(features: Tensor) -> list[Tensor]:
    """Partitions (N,) int64 of features (N,D), finest first, each with clusters 0 … k − 1 in order of appearance.

    Everyone is linked to its first neighbour, the one with the most similar direction (of equal ones the first), and
    what is linked is a cluster; the means of the members are clustered in the same way, until one cluster is left
    (Sarfraz et al., CVPR 2019, eq. 1 and algorithm 1). The partition into one cluster is not given, so the list may be
    empty. Raises ValueError for features that are not finite floats of shape (N,D), N ≥ 1.
    """
    points = _check_features(features)
    partitions, members = [], torch.arange(len(points))
    while True:
        sums = torch.zeros(int(members.max()) + 1, points.shape[1], dtype=points.dtype)
        joined = _linked(_first_neighbours(sums.index_add_(0, members, points)))  # sums have the directions of means
        if joined.max() == 0:
            return partitions
        members = joined[members]
        partitions.append(members)


def clusters(features: Tensor, method: str, count: int = COUNT, generator: Generator | None = None) -> Tensor:
    """Clusters (N,) int64 of features (N,D), 0 … k − 1 in order of appearance, by one of METHODS.

    "finch": the coarsest partition of more than one cluster, as the report takes it; one cluster where there is none.
    "kmeans": scikit-learn's, begun from the generator, in `count` clusters, or as many as there are different features
    if these are fewer. Raises ValueError for an unknown method, a count below 1, k-means without a generator, and
    features as `finch` does.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    points = _check_features(features)
    if method == "finch":
        return (finch(points) or [torch.zeros(len(points), dtype=torch.int64)])[-1]
    if count < 1:
        raise ValueError(f"count={count}: expected at least one cluster")
    if generator is None:
        raise ValueError("generator=None: expected a torch.Generator, from which k-means begins")
    from sklearn.cluster import KMeans  # slow to import, and only this needs it

    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    different = len(torch.unique(points, dim=0))
    found = KMeans(min(count, different), n_init=10, random_state=seed).fit_predict(points.numpy())
    return _in_order(torch.from_numpy(found.astype(np.int64)))


def subcategory_labels(
    features: Tensor, labels: Tensor, method: str, count: int = COUNT, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Sub-labels (N,S) bool of scenes with features (N,D) and labels (N,L) bool, and the class (S,) int64 of each.

    The scenes that hold a class are clustered for themselves; each has the label of its cluster for every class that it
    holds, and no other. Sub-classes are in the order of their classes: a class of one scene has one, a class without a
    scene none. Give training scenes only: the report's code clusters those it validates on as well. Raises ValueError
    for labels that do not fit, and as `clusters` does.
    """
    if labels.ndim != 2 or labels.dtype != torch.bool or len(labels) != len(features):
        raise ValueError(
            f"labels: expected bool of shape ({len(features)},L), got {labels.dtype} of {tuple(labels.shape)}"
        )
    columns, parents = [], []
    for layer in range(labels.shape[1]):
        holders = labels[:, layer].nonzero().flatten()
        if not len(holders):
            continue
        found = clusters(features[holders.to(features.device)], method, count, generator)
        own = torch.zeros(len(labels), int(found.max()) + 1, dtype=torch.bool)
        own[holders.cpu(), found] = True
        columns.append(own)
        parents += [layer] * own.shape[1]
    empty = torch.zeros(len(labels), 0, dtype=torch.bool)
    return torch.cat([empty, *columns], dim=1), torch.tensor(parents, dtype=torch.int64)


def _first_neighbours(points: Tensor) -> Tensor:
    """κ (N,): the other point with the highest cosine; each point's own index where there is no other."""
    if len(points) == 1:
        return torch.zeros(1, dtype=torch.int64)
    directions = normalize(points, dim=1)  # no direction, no similarity
    nearest = torch.empty(len(points), dtype=torch.int64)
    for start in range(0, len(points), ROWS):
        similar = (directions[start : start + ROWS] @ directions.T).round_(decimals=DECIMALS)
        similar.diagonal(start).fill_(-torch.inf)
        nearest[start : start + ROWS] = similar.argmax(dim=1)
    return nearest


def _linked(neighbours: Tensor) -> Tensor:
    """The connected component (N,) int64 of each point, in order of appearance.

    Two points with the same first neighbour are linked through it: their own link in eq. 1 changes no component.
    """
    n = len(neighbours)
    links = coo_array((np.ones(n, dtype=bool), (np.arange(n), neighbours.numpy())), shape=(n, n))
    return _in_order(torch.from_numpy(connected_components(links, directed=False)[1].astype(np.int64)))


def _in_order(found: Tensor) -> Tensor:
    """The same clusters, numbered 0 … k − 1 as they appear."""
    _, first, numbers = np.unique(found.numpy(), return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[numbers].astype(np.int64))


def _check_features(features: Tensor) -> Tensor:
    if features.ndim != 2 or not features.is_floating_point() or not len(features):
        raise ValueError(
            f"features: expected floats of shape (N,D), N ≥ 1, got {features.dtype} of {tuple(features.shape)}"
        )
    if not features.isfinite().all():
        raise ValueError("features: not finite; has the training diverged?")
    return features.detach().cpu().double()
