"""Pupils of schools as in-context regression: schools are clients, pupils are tokens."""

from __future__ import annotations

import numpy as np

from linattn._checks import one_of, positive_int
from linattn._typing import Array, IntArray
from linattn.data.datasets import Dataset, load_dataset
from linattn.data.federated_data import FederatedData, group_of
from linattn.data.partition import held_out, partition, refuse_given
from linattn.data.sequences import row_moments
from linattn.streams import stream

SPLITS = ("schools", "iid")
"""Schools as they are, or the same pupils dealt at random: the control."""


def schools_split(
    split: str = "schools",
    *,
    num_clients: int | None = None,
    context_length: int = 10,
    seed: int = 0,
    test_fraction: float = 0.2,
    dataset: Dataset | None = None,
) -> FederatedData:
    """Federate the schools: a sequence is n pupils of one client, the query is one more pupil.

    A token is (features, 1, result) of a pupil, the query (features, 1, 0), the target its result:
    what a school's other pupils tell about this one. Every training pupil is the query once, with
    n other training pupils of the same client as context; every test pupil as well, and no result
    of a test pupil is ever shown. Features and result are standardized over all training pupils,
    so that predicting zero has the loss ½ on them.

    - ``"schools"``: one client per school.
    - ``"iid"``: the same pupils dealt at random to as many clients, the control without schools.

    Parameters
    ----------
    split : "schools" | "iid"
    num_clients : int
        Number of clients ("iid" only); default as many as there are schools.
    context_length : int
        n, the same everywhere.
    seed : int
        Streams of `partition`, and (seed, name, client) with name in test_items, context,
        test_context.
    test_fraction : float
        Share of every client's pupils that is tested, in [0, 0.9].
    dataset : Dataset
        Another set of the same kind: items of one row, whose last channel is the result, with a
        group "school"; default the one that ``scripts/make_schools.py`` made.

    Returns
    -------
    FederatedData

    Raises
    ------
    FileNotFoundError
        If the set was not made yet; the sentence says how.
    ValueError
        If an argument is out of range or belongs to another split, a client has too few pupils, or
        a channel is constant.

    Notes
    -----
    A regression has no accuracy: measure the loss on ``test`` (tokens, targets, queries) against
    that of predicting zero, of the mean result of the context, and of "iid". A pupil is context of
    many sequences, so those of a client are not independent.
    Source: the data set's own provenance, `load_dataset`. Cost: some ten milliseconds.
    """
    one_of("split", split, SPLITS)
    length = positive_int("context_length", context_length)
    data = load_dataset("schools") if dataset is None else dataset
    if (np.diff(data.offsets) != 1).any():
        raise ValueError(f"dataset must hold one row per pupil, got {data!r}.")
    school = group_of(data, "school")
    schools = np.unique(school)
    if split == "schools":
        refuse_given(f"when split is {split!r}", num_clients=num_clients)
        owners = partition(data.labels, "natural", groups=school)
        names = [f"school {name}" for name in schools.tolist()]
    else:
        count = schools.size if num_clients is None else num_clients
        owners = partition(data.labels, "iid", num_clients=count, seed=seed)
        names = [f"client {i}" for i in range(len(owners))]
    parts = held_out(data.labels, owners, test_fraction=test_fraction, seed=seed)
    short = min(range(len(parts)), key=lambda i: parts[i][0].size)
    if parts[short][0].size <= length:
        raise ValueError(
            f"context_length must be less than the {parts[short][0].size} training pupils of "
            f"{names[short]}, the smallest client, got {length}."
        )
    mean, std = row_moments(data, np.concatenate([train for train, _ in parts]))
    pupils = (data.values - mean) / std
    pupils = np.concatenate([pupils[:, :-1], np.ones((len(pupils), 1)), pupils[:, -1:]], axis=1)
    trained, tested = [], []
    for i, (train, test) in enumerate(parts):
        keys = stream(seed, "context", i).random((train.size, train.size))
        np.fill_diagonal(keys, np.inf)  # nobody is context of their own question
        trained.append(_sequences(pupils, train, train, keys, length))
        keys = stream(seed, "test_context", i).random((test.size, train.size))
        tested.append(_sequences(pupils, test, train, keys, length))
    return FederatedData(
        description=f"{data.name}, {len(names)} {'schools' if split == 'schools' else 'IID parts'}",
        train=trained,
        test=tuple(np.concatenate(arrays) for arrays in zip(*tested, strict=True)),
        client_tests=tested,
        class_names=(data.channel_names[-1],),
        client_names=tuple(names),
        train_items=[train for train, _ in parts],
        test_items=np.concatenate([test for _, test in parts]),
        channel_mean=mean,
        channel_std=std,
        readout="queries",
    )


def _sequences(
    pupils: Array, asked: IntArray, around: IntArray, keys: Array, length: int
) -> tuple[Array, Array, Array]:
    """Tokens (S, n, d), targets (S, 1, 1) and queries (S, 1, d); the least keys are the context."""
    context = around[np.argsort(keys, axis=1)[:, :length]]
    questions = pupils[asked][:, None].copy()
    targets = questions[..., -1:].copy()
    questions[..., -1] = 0.0
    return pupils[context], targets, questions
