"""Sub-classes against a slow FINCH that writes every link down, and properties that any clustering must give."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from torch import Generator

from rsbook import subcategories


def generator(seed=0):
    return Generator().manual_seed(seed)


def blobs(centres, each, dimensions=32, spread=0.3, seed=0):
    """Features around a few directions, shuffled, and which direction each belongs to."""
    draws = generator(seed)
    middles = torch.randn(centres, dimensions, generator=draws)
    group = torch.arange(centres).repeat_interleave(each)[torch.randperm(centres * each, generator=draws)]
    return middles[group] + spread * torch.randn(len(group), dimensions, generator=draws), group


def cosine(a, b):
    norms = (a @ a) ** 0.5 * (b @ b) ** 0.5
    return round(float(a @ b / norms), 11) if norms else 0.0


def slow_level(points):
    """Eq. 1 as it stands: the whole adjacency matrix, and a walk through it from each point in turn."""
    n = len(points)
    nearest = [max((j for j in range(n) if j != i), key=lambda j, i=i: cosine(points[i], points[j])) for i in range(n)]
    linked = [[j for j in range(n) if j == nearest[i] or nearest[j] == i or nearest[i] == nearest[j]] for i in range(n)]
    found = [-1] * n
    for start in range(n):
        if found[start] < 0:
            number, ahead = max(found) + 1, [start]
            while ahead:
                i = ahead.pop()
                if found[i] < 0:
                    found[i] = number
                    ahead += linked[i]
    return found


def slow_finch(features):
    """Algorithm 1 on lists: partitions of more than one cluster, the finest first."""
    points = features.double().numpy()
    partitions, groups = [], [[i] for i in range(len(points))]
    while len(groups) > 1:
        found = slow_level([points[group].mean(axis=0) for group in groups])
        joined = [[] for _ in range(max(found) + 1)]
        for group, k in zip(groups, found, strict=True):
            joined[k] += group
        groups = joined
        if len(groups) > 1:
            partitions.append([next(k for k, g in enumerate(groups) if i in g) for i in range(len(points))])
    return partitions


def is_numbered_as_it_appears(found):
    _, first = np.unique(found.numpy(), return_index=True)
    return (
        found.dtype == torch.int64 and found.unique().tolist() == list(range(len(first))) and (np.diff(first) > 0).all()
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 40), dimensions=st.integers(1, 6), levels=st.sampled_from([0, 2]))
def test_finch_is_that_of_the_written_out_adjacency(seed, n, dimensions, levels):
    features = torch.randn(n, dimensions, generator=generator(seed))
    if levels:  # ties, duplicates and vectors of zeros
        features = (features * levels).round() / levels
    found = subcategories.finch(features)
    assert [partition.tolist() for partition in found] == slow_finch(features)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 200))
def test_partitions_are_nested_halve_at_least_and_end_above_one(seed, n):
    found = subcategories.finch(torch.randn(n, 8, generator=generator(seed)))
    sizes = [n, *(int(partition.max()) + 1 for partition in found)]
    assert all(2 <= after <= before / 2 for before, after in pairwise(sizes))
    assert all(is_numbered_as_it_appears(partition) for partition in found)
    for fine, coarse in pairwise(found):
        pairs = set(zip(fine.tolist(), coarse.tolist(), strict=True))
        assert len(pairs) == int(fine.max()) + 1  # a fine cluster is in one coarse one


def test_finch_finds_groups_that_lie_apart():
    features, group = blobs(8, 30)
    scores = [adjusted_rand_score(group.numpy(), partition.numpy()) for partition in subcategories.finch(features)]
    assert max(scores) == 1.0


def test_finch_sees_directions_not_lengths():
    features, _ = blobs(5, 20)
    scaled = features * torch.linspace(1, 1.5, len(features))[:, None].double()
    assert torch.equal(subcategories.finch(features)[0], subcategories.finch(scaled)[0])


def test_of_neighbours_in_the_same_direction_the_first_is_taken():
    draws = generator(2)
    group = torch.arange(80) % 2
    lengths = 0.1 + torch.rand(80, 1, generator=draws, dtype=torch.float64)  # their cosines are 1 but for rounding
    features = torch.randn(2, 24, generator=draws, dtype=torch.float64)[group] * lengths
    assert [partition.tolist() for partition in subcategories.finch(features)] == [group.tolist()]


def test_finch_in_blocks_of_rows_is_finch_at_once(monkeypatch):
    features = torch.randn(50, 4, generator=generator())
    whole = subcategories.finch(features)
    monkeypatch.setattr(subcategories, "ROWS", 7)
    assert all(torch.equal(a, b) for a, b in zip(whole, subcategories.finch(features), strict=True))


@pytest.mark.parametrize("features", [torch.ones(1, 3), torch.ones(2, 3), torch.ones(9, 3), torch.zeros(4, 3)])
def test_what_is_one_cluster_has_no_partition(features):
    assert subcategories.finch(features) == []
    assert subcategories.clusters(features, "finch").tolist() == [0] * len(features)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(0, 3), "N ≥ 1"),
        (torch.zeros(3), "expected floats"),
        (torch.zeros(3, 2, dtype=torch.int64), "expected floats"),
        (torch.tensor([[1.0, torch.nan]]), "not finite"),
    ],
)
def test_features_that_cannot_be_clustered_are_refused(features, message):
    for method in subcategories.METHODS:
        with pytest.raises(ValueError, match=message):
            subcategories.clusters(features, method, 2, generator())


def test_clusters_take_the_coarsest_partition_of_finch():
    features, _ = blobs(6, 20)
    assert torch.equal(subcategories.clusters(features, "finch"), subcategories.finch(features)[-1])


def test_k_means_finds_groups_and_repeats_itself():
    features, group = blobs(5, 20)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    found = subcategories.clusters(features, "kmeans", 5, generator(3))
    assert adjusted_rand_score(group.numpy(), found.numpy()) == 1.0
    assert is_numbered_as_it_appears(found)
    assert torch.equal(found, subcategories.clusters(features, "kmeans", 5, generator(3)))
    assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.filterwarnings("error")  # of scikit-learn, where there are fewer different points than clusters
def test_k_means_makes_no_more_clusters_than_there_are_different_features():
    features = torch.tensor([[0.0, 1], [2, 2], [0, 1], [0, 1]])
    assert subcategories.clusters(features, "kmeans", 10, generator()).tolist() == [0, 1, 0, 0]
    assert subcategories.clusters(features[:1], "kmeans", 10, generator()).tolist() == [0]


def test_clusters_refuse_other_methods_counts_and_no_generator():
    features = torch.randn(6, 2, generator=generator())
    with pytest.raises(ValueError, match="method='dbscan': expected one of finch, kmeans"):
        subcategories.clusters(features, "dbscan")
    with pytest.raises(ValueError, match="count=0"):
        subcategories.clusters(features, "kmeans", 0, generator())
    with pytest.raises(ValueError, match="generator=None"):
        subcategories.clusters(features, "kmeans", 2)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 40),
    classes=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    method=st.sampled_from(subcategories.METHODS),
)
def test_a_scene_has_one_sub_label_for_each_of_its_classes_and_no_other(seed, n, classes, share, method):
    draws = generator(seed)
    features = torch.randn(n, 4, generator=draws)
    labels = torch.rand(n, classes, generator=draws) < share
    sub, parents = subcategories.subcategory_labels(features, labels, method, 3, draws)
    assert sub.dtype == torch.bool
    assert parents.dtype == torch.int64
    assert sub.shape == (n, len(parents))
    for i in range(n):
        assert parents[sub[i]].tolist() == labels[i].nonzero().flatten().tolist()
    assert sub.any(dim=0).all()  # no sub-class without a scene
    assert parents.tolist() == sorted(parents.tolist())
    if method == "kmeans":
        assert parents.bincount(minlength=classes).tolist() == labels.sum(dim=0).clamp(max=3).tolist()


def test_each_class_is_clustered_by_the_scenes_that_hold_it():
    features, group = blobs(4, 15)
    labels = torch.stack([group < 2, group == 3, group > 9, group > 0], dim=1)
    labels[:, 1] = False
    labels[7, 1] = True  # a class of one scene
    sub, parents = subcategories.subcategory_labels(features, labels, "finch")
    for layer in (0, 1, 3):
        holders = labels[:, layer]
        expected = subcategories.clusters(features[holders], "finch")
        assert torch.equal(sub[holders][:, parents == layer].int().argmax(dim=1), expected)
        assert not sub[~holders][:, parents == layer].any()
    assert (parents == 1).sum() == 1
    assert not (parents == 2).any()


def test_labels_that_do_not_fit_the_features_are_refused():
    features = torch.randn(6, 2, generator=generator())
    for labels in (torch.zeros(5, 2, dtype=torch.bool), torch.zeros(6, 2), torch.zeros(6, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"labels: expected bool of shape \(6,L\)"):
            subcategories.subcategory_labels(features, labels, "finch")
