"""Any data set as a federation: items are sequences, their rows tokens, their classes targets."""

import numpy as np

from linattn._typing import Array, IntArray
from linattn.data.datasets import Dataset
from linattn.data.federated_data import FederatedData, group_of
from linattn.data.partition import held_out, partition
from linattn.data.sequences import one_hot, row_moments

DEALT = ("dirichlet", "iid")
"""Splits of every data set; the others are names of its groups."""
NUM_CLIENTS = 10


def items_split(
    split: str = "iid",
    *,
    dataset: Dataset,
    alpha: float | None = None,
    num_clients: int = NUM_CLIENTS,
    seed: int = 0,
    test_fraction: float = 0.2,
) -> FederatedData:
    """Federate any data set: an item is a sequence of its rows, its class a one-hot target.

    Tokens are the channels, standardized with mean and standard deviation over all rows that are
    trained on, and a constant 1; mean readout. Items may differ in length. Every client keeps a
    stratified part of its items for testing.

    Parameters
    ----------
    split : "dirichlet" | "iid" | name of a group
        See `partition`; with a group, one client per value of it.
    dataset : Dataset
    alpha : float
        Dirichlet concentration ("dirichlet" only).
    num_clients : int
        "dirichlet" and "iid".
    seed : int
        Streams of `partition`, and (seed, "test_items", client).
    test_fraction : float
        Share of every client's items that is tested, in [0, 0.9].

    Raises
    ------
    ValueError
        If the set has no such group, an argument is out of range or belongs to another split, or a
        channel is constant over the training rows.

    Notes
    -----
    Source: the data set's own provenance, `load_dataset`. Cost: a pass over the items.
    """
    if split in DEALT:
        owners = partition(dataset.labels, split, num_clients=num_clients, alpha=alpha, seed=seed)
        names = [f"client {i}" for i in range(len(owners))]
    else:
        group = group_of(dataset, split)
        owners = partition(dataset.labels, "natural", groups=group, alpha=alpha)
        names = [f"{split} {value}" for value in np.unique(group).tolist()]
    parts = held_out(dataset.labels, owners, test_fraction=test_fraction, seed=seed)
    mean, std = row_moments(dataset, np.concatenate([train for train, _ in parts]))

    def tokens(items: IntArray) -> list[Array]:
        rows = [(dataset.item(i) - mean) / std for i in items.tolist()]
        return [np.column_stack([table, np.ones(len(table))]) for table in rows]

    targets = one_hot(dataset.labels, len(dataset.class_names))
    tested = np.concatenate([test for _, test in parts])
    return FederatedData(
        description=f"{dataset.name}, split {split}",
        train=[(tokens(train), targets[train]) for train, _ in parts],
        test=(tokens(tested), dataset.labels[tested]),
        client_tests=[(tokens(test), dataset.labels[test]) for _, test in parts],
        class_names=dataset.class_names,
        client_names=tuple(names),
        train_items=[train for train, _ in parts],
        test_items=tested,
        channel_mean=mean,
        channel_std=std,
    )
