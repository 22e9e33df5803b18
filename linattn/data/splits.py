"""Federated splits of the data sets: who trains on what, and what is tested."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from linattn._checks import one_of, positive_int
from linattn._typing import AnyArray, Array, IntArray
from linattn.data.datasets import Dataset, load_dataset
from linattn.data.federated_data import FederatedData, group_of
from linattn.data.items import items_split
from linattn.data.partition import held_out, partition, refuse_given
from linattn.data.schools import schools_split
from linattn.data.sequences import digit_tokens, one_hot, row_moments, windows
from linattn.streams import stream

NUM_SHEETS = 14


def digits_split(
    split: str = "sheets",
    *,
    alpha: float | None = None,
    num_clients: int | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
    dataset: Dataset | None = None,
) -> FederatedData:
    """Federate the digits: rows as tokens (n = 8, d = 16), mean readout, ten one-hot targets.

    - ``"sheets"``: 14 clients, the *inferred* form sheets. The set names no writers; its labels
      repeat a form of 130 digits, and the 14 clients are the runs between the places where the form
      starts again.
    - ``"dirichlet"``, ``"iid"``: see `partition`.

    Every client keeps a stratified part of its items for testing (`stratified_split`).

    Parameters
    ----------
    split : "sheets" | "dirichlet" | "iid"
    alpha : float
        Dirichlet concentration ("dirichlet" only).
    num_clients : int
        Number of clients ("dirichlet" and "iid"); default 14, as many as there are sheets.
    seed : int
        Streams of `partition`, and (seed, "test_items", client).
    test_fraction : float
        Share of every client's items that is tested, in [0, 0.9].
    dataset : Dataset
        Another set of the same kind; default the shipped one.

    Returns
    -------
    FederatedData

    Raises
    ------
    ValueError
        If an argument is out of range or belongs to another split.

    Notes
    -----
    Source: the data set's own provenance, `load_dataset`. Cost: a few milliseconds.
    """
    one_of("split", split, DATASETS["digits"].names)
    data = load_dataset("digits") if dataset is None else dataset
    if split == "sheets":
        refuse_given(f"when split is {split!r}", alpha=alpha, num_clients=num_clients)
        owners = partition(data.labels, "natural", groups=group_of(data, "sheet"))
    else:
        count = NUM_SHEETS if num_clients is None else num_clients
        owners = partition(data.labels, split, num_clients=count, alpha=alpha, seed=seed)
    names = {
        "sheets": f"{len(owners)} inferred form sheets",
        "dirichlet": f"Dirichlet({alpha}) split",
        "iid": "IID split",
    }
    parts = held_out(data.labels, owners, test_fraction=test_fraction, seed=seed)
    tokens = digit_tokens(data)
    targets = one_hot(data.labels, len(data.class_names))
    tested = np.concatenate([test for _, test in parts])
    unit = "sheet" if split == "sheets" else "client"
    return FederatedData(
        description=f"{data.name}, {names[split]}",
        train=[(tokens[train], targets[train]) for train, _ in parts],
        test=(tokens[tested], data.labels[tested]),
        client_tests=[(tokens[test], data.labels[test]) for _, test in parts],
        class_names=data.class_names,
        client_names=tuple(f"{unit} {i}" for i in range(len(parts))),
        train_items=[train for train, _ in parts],
        test_items=tested,
    )


def watch_split(
    split: str = "sides",
    *,
    seed: int = 0,
    test_subjects: int | Sequence[int] | None = None,
    window: int = 50,
    stride: int = 25,
    dataset: Dataset | None = None,
) -> FederatedData:
    """Federate the watch recordings: one client per subject, windows as sequences, mean readout.

    Tokens are the channels, standardized with mean and standard deviation over all rows of all
    training recordings (no test recording enters), and a constant 1: n = window, d = 7, m = 7.

    - ``"sides"``: per subject and exercise one side is drawn for training, the other is tested.
    - ``"subjects"``: some subjects are left out of training and tested, both sides.

    A recording is trained on or tested, never both, so windows that overlap never cross.

    Parameters
    ----------
    split : "sides" | "subjects"
    seed : int
        Streams (seed, "train_side", k) for the k-th subject and (seed, "test_subjects").
    test_subjects : int or sequence of int
        How many subjects to leave out, drawn by seed (default 2), or which ("subjects" only).
    window, stride : int
        Rows per window and between starts, at 25 rows per second (2 s and 1 s).
    dataset : Dataset
        Another set with groups "subject" and "side"; default the shipped one.

    Returns
    -------
    FederatedData

    Raises
    ------
    ValueError
        If an argument is out of range or belongs to another split, a client would have no window,
        or a channel is constant over the training rows.

    Notes
    -----
    Source: the data set's own provenance, `load_dataset`. Cost: some ten milliseconds.
    """
    one_of("split", split, DATASETS["watch"].names)
    positive_int("window", window)
    data = load_dataset("watch") if dataset is None else dataset
    trained, what = _trained(data, split, test_subjects, seed)
    clients, train = _by_subject(data, trained)
    tested, tests = _by_subject(data, ~trained)
    if split == "sides" and not np.array_equal(clients, tested):
        raise ValueError(
            f"dataset must have recordings of both sides for every subject, got {data!r}."
        )
    mean, std = row_moments(data, np.flatnonzero(trained))
    train_cut = [_window_tokens(data, own, mean, std, window, stride) for own in train]
    test_cut = [_window_tokens(data, own, mean, std, window, stride) for own in tests]
    client_tests = [(tokens, data.labels[origin]) for tokens, origin in test_cut]
    test_items = np.concatenate([origin for _, origin in test_cut])
    num_classes = len(data.class_names)
    return FederatedData(
        description=f"{data.name}, {what} tested",
        train=[(tokens, one_hot(data.labels[origin], num_classes)) for tokens, origin in train_cut],
        test=(np.concatenate([tokens for tokens, _ in client_tests]), data.labels[test_items]),
        client_tests=client_tests if split == "sides" else None,
        class_names=data.class_names,
        client_names=tuple(f"subject {k}" for k in clients),
        train_items=[origin for _, origin in train_cut],
        test_items=test_items,
        channel_mean=mean,
        channel_std=std,
    )


class Splits(NamedTuple):
    """How a data set is federated.

    Attributes
    ----------
    make : callable (split, *, seed, **options) -> FederatedData
    names : tuple of str
        Splits it knows.
    usual : str
        The split that comparisons of methods use.
    work : int
        About Σ n_i d² of its training sequences: what a gradient of everything costs.
    classes : bool
        Whether targets are classes, as comparisons by test accuracy need them.
    """

    make: Callable[..., FederatedData]
    names: tuple[str, ...]
    usual: str
    work: int
    classes: bool = True


DATASETS = {
    "digits": Splits(digits_split, ("sheets", "dirichlet", "iid"), "dirichlet", 1437 * 16**2),
    "watch": Splits(watch_split, ("sides", "subjects"), "sides", 2300 * 7**2),
    "schools": Splits(schools_split, ("schools", "iid"), "schools", 5748 * 5**2,
                      classes=False),
}  # fmt: skip
"""Every data set with splits of its own."""
CLASSIFIED = tuple(name for name, held in DATASETS.items() if held.classes)
"""Those that simulations may name."""


def federated_split(
    data: str | Dataset, split: str | None = None, *, alpha: float | None = None, seed: int = 0
) -> FederatedData:
    """Return a split of a registered data set, or of any other one as `items_split` deals it out.

    Raises
    ------
    ValueError
        If there is no such data set or split, or `alpha`, of the Dirichlet split, does not belong
        to it.
    """
    if isinstance(data, Dataset):
        return items_split(split or "iid", dataset=data, alpha=alpha, seed=seed)
    chosen = check_split(data, split, alpha=alpha)
    options = {} if alpha is None else {"alpha": alpha}
    return DATASETS[data].make(chosen, seed=seed, **options)


def check_split(data: str, split: str | None = None, *, alpha: float | None = None) -> str:
    """Return the split of a data set, by default its usual one, after checking the arguments.

    Raises
    ------
    ValueError
        As `federated_split`.
    """
    held = DATASETS[one_of("data", data, DATASETS)]
    chosen = one_of("split", held.usual if split is None else split, held.names)
    check_alpha(chosen, alpha)
    return chosen


def check_alpha(split: str, alpha: float | None) -> None:
    """Refuse a concentration that the split has no use for, and a Dirichlet split without one.

    Raises
    ------
    ValueError
        One sentence.
    """
    if (alpha is not None) != (split == "dirichlet"):
        raise ValueError(
            f"alpha must be a number > 0 for the dirichlet split and null for all others, got "
            f"{alpha} for {split!r}."
        )


def _by_subject(data: Dataset, chosen: AnyArray) -> tuple[AnyArray, list[IntArray]]:
    """Subjects that have a chosen item, and the chosen items of each."""
    subject = group_of(data, "subject")
    found = np.unique(subject[chosen])
    return found, [np.flatnonzero(chosen & (subject == k)) for k in found]


def _window_tokens(
    data: Dataset, items: IntArray, mean: Array, std: Array, window: int, stride: int
) -> tuple[Array, IntArray]:
    """Standardized channels and a constant, (W, window, c + 1), and the item of every window."""
    tables, origin = windows(data, items.tolist(), length=window, stride=stride)
    if not origin.size:
        raise ValueError(f"window must leave every subject at least one window, got {window} rows.")
    constant = np.ones((*tables.shape[:2], 1))
    return np.concatenate([(tables - mean) / std, constant], axis=2), origin


def _trained(
    data: Dataset, split: str, test_subjects: int | Sequence[int] | None, seed: int
) -> tuple[AnyArray, str]:
    """Which items are trained on, and what is tested, in words."""
    if split == "sides":
        refuse_given(f"when split is {split!r}", test_subjects=test_subjects)
        return _trained_sides(data, seed), "one side per subject and exercise"
    subject = group_of(data, "subject")
    left_out = _left_out(np.unique(subject), test_subjects, seed)
    return ~np.isin(subject, left_out), f"subjects {', '.join(map(str, left_out.tolist()))}"


def _trained_sides(data: Dataset, seed: int) -> AnyArray:
    """Which items are trained on when a side is drawn per subject and exercise."""
    sides, side = np.unique(group_of(data, "side"), return_inverse=True)
    if sides.size != 2:
        raise ValueError(f"dataset must have two sides, got {sides.tolist()}.")
    subjects, subject = np.unique(group_of(data, "subject"), return_inverse=True)
    drawn = np.stack(
        [
            stream(seed, "train_side", k).integers(0, 2, size=len(data.class_names))
            for k in range(subjects.size)
        ]
    )
    trained: AnyArray = side == drawn[subject, data.labels]
    return trained


def _left_out(subjects: AnyArray, wanted: int | Sequence[int] | None, seed: int) -> AnyArray:
    if wanted is None or isinstance(wanted, int | np.integer):
        count = positive_int("test_subjects", 2 if wanted is None else wanted)
        if count >= subjects.size:
            raise ValueError(
                f"test_subjects must be < {subjects.size}, the number of subjects, got {count}."
            )
        drawn: AnyArray = stream(seed, "test_subjects").permutation(subjects)[:count]
        return np.sort(drawn)
    chosen = set(np.asarray(wanted).ravel().tolist())
    if not chosen < set(subjects.tolist()) or not chosen:
        raise ValueError(
            f"test_subjects must be some, not all, of {subjects.tolist()}, got {wanted!r}."
        )
    return np.array(sorted(chosen), dtype=subjects.dtype)
