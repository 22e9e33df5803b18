"""Partitions: every item exactly once, no empty client, nothing but named randomness."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linattn.data.partition import partition, stratified_split

labels_of = st.lists(st.integers(-2, 5), min_size=1, max_size=60)
alphas = st.sampled_from([1e-300, 1e-3, 0.05, 1.0, 100.0, 1e100])


def check_cover(parts, num_items):
    assert all(part.dtype == np.int64 and part.size for part in parts)
    assert all((np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(num_items))


@settings(max_examples=80, deadline=None)
@given(labels_of, st.data(), alphas, st.integers(0, 2**40))
def test_dirichlet_covers_every_item_once_and_leaves_nobody_empty(labels, data, alpha, seed):
    count = data.draw(st.integers(1, len(labels)))
    parts = partition(labels, "dirichlet", num_clients=count, alpha=alpha, seed=seed)
    assert len(parts) == count
    check_cover(parts, len(labels))
    again = partition(labels, "dirichlet", num_clients=count, alpha=alpha, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@settings(max_examples=40, deadline=None)
@given(labels_of, st.data(), st.integers(0, 2**40))
def test_iid_covers_and_sizes_differ_by_at_most_one(labels, data, seed):
    count = data.draw(st.integers(1, len(labels)))
    parts = partition(labels, "iid", num_clients=count, seed=seed)
    check_cover(parts, len(labels))
    sizes = [part.size for part in parts]
    assert len(parts) == count
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["ann", "bob", "cy"]), min_size=1, max_size=40))
def test_natural_gives_one_client_per_group_in_sorted_order(groups):
    parts = partition(np.zeros(len(groups), dtype=int), "natural", groups=groups)
    check_cover(parts, len(groups))
    assert [{groups[i] for i in part} for part in parts] == [{g} for g in sorted(set(groups))]


@pytest.mark.parametrize("scheme", ["iid", "dirichlet"])
def test_seeds_give_different_splits(scheme):
    labels = np.arange(200) % 10
    more = {"alpha": 0.5} if scheme == "dirichlet" else {}
    one, two = (partition(labels, scheme, num_clients=4, seed=s, **more) for s in (0, 1))
    assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_small_alpha_concentrates_and_large_alpha_levels_the_class_mix():
    labels = np.arange(2000) % 10

    def classes_per_client(alpha):
        parts = partition(labels, "dirichlet", num_clients=10, alpha=alpha, seed=3)
        return np.mean([np.unique(labels[part]).size for part in parts])

    assert classes_per_client(0.01) < 3
    assert classes_per_client(1e4) == 10
    level = partition(labels, "dirichlet", num_clients=10, alpha=1e8, seed=3)
    assert all(abs(part.size - 200) <= 10 for part in level)


def test_an_empty_client_receives_one_item_from_the_largest():
    # α → 0 gives each class to one client: of two classes and four clients at least two start
    # empty, and each of those ends with exactly one item.
    labels = [0] * 10 + [1] * 30
    sizes = sorted(
        part.size for part in partition(labels, "dirichlet", num_clients=4, alpha=1e-300, seed=1)
    )
    assert sizes in ([1, 1, 10, 28], [1, 1, 1, 37])


def test_the_order_of_items_does_not_depend_on_alpha():
    # With all labels equal and two clients the first holds a prefix of one fixed order.
    firsts = [
        set(partition([0] * 50, "dirichlet", num_clients=2, alpha=a, seed=7)[0].tolist())
        for a in (0.3, 1.0, 30.0)
    ]
    smallest, middle, largest = sorted(firsts, key=len)
    assert smallest <= middle <= largest


@pytest.mark.parametrize(
    ("scheme", "arguments", "named"),
    [
        ("shards", {"num_clients": 2}, "scheme"),
        ("iid", {}, "num_clients"),
        ("iid", {"num_clients": 0}, "num_clients"),
        ("iid", {"num_clients": True}, "num_clients"),
        ("iid", {"num_clients": 5}, "num_clients"),
        ("iid", {"num_clients": 2, "alpha": 1.0}, "alpha"),
        ("iid", {"num_clients": 2, "groups": [0, 0, 1, 1]}, "groups"),
        ("dirichlet", {"num_clients": 2}, "alpha"),
        ("dirichlet", {"num_clients": 2, "alpha": 0.0}, "alpha"),
        ("dirichlet", {"num_clients": 2, "alpha": float("nan")}, "alpha"),
        ("dirichlet", {"num_clients": 2, "alpha": float("inf")}, "alpha"),
        ("natural", {}, "groups"),
        ("natural", {"groups": [0, 1]}, "groups"),
        ("natural", {"groups": [0.5, 1.0, 2.0, 3.0]}, "groups"),
        ("natural", {"groups": [0, 0, 1, 1], "num_clients": 2}, "num_clients"),
    ],
)
def test_a_bad_argument_is_named(scheme, arguments, named):
    with pytest.raises(ValueError, match=rf"^{named} must"):
        partition([0, 1, 0, 1], scheme, **arguments)


@pytest.mark.parametrize("labels", [[], [[0, 1]], [0.0, 1.0]])
def test_bad_labels_are_named(labels):
    with pytest.raises(ValueError, match=r"^labels must"):
        partition(labels, "iid", num_clients=1)


@settings(max_examples=80, deadline=None)
@given(labels_of, st.floats(0.0, 0.9), st.integers(0, 2**40))
def test_stratified_split_covers_keeps_training_and_follows_the_class_mix(labels, fraction, seed):
    labels = np.array(labels)
    train, test = stratified_split(labels, fraction, np.random.default_rng(seed))
    assert train.size
    check_cover([part for part in (train, test) if part.size], labels.size)
    assert test.size == min(int(fraction * labels.size + 0.5), labels.size - 1)
    for k in np.unique(labels):
        quota = test.size * np.mean(labels == k)
        assert abs((labels[test] == k).sum() - quota) < 1 + 1e-9


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan"), "half"])
def test_a_bad_test_fraction_is_named(fraction):
    with pytest.raises(ValueError, match=r"^test_fraction must"):
        stratified_split([0, 1], fraction, np.random.default_rng(0))
