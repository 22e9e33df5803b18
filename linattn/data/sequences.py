"""From the items of a data set to tokens and one-hot targets."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from linattn._checks import positive_int, refuse_masked
from linattn._typing import Array, IntArray
from linattn.data.datasets import Dataset, class_labels


def one_hot(labels: ArrayLike, num_classes: int) -> Array:
    """Targets (S, m) with a one in the column of each label.

    Raises
    ------
    ValueError
        If a label is not an integer in 0..num_classes-1.

    Examples
    --------
    >>> one_hot([1, 0], 2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    refuse_masked("labels", labels)
    array = np.asarray(labels)
    if array.size == 0 and array.ndim == 1:
        return np.zeros((0, num_classes))
    return np.eye(positive_int("num_classes", num_classes))[class_labels(array, num_classes)]


def digit_tokens(dataset: Dataset) -> Array:
    """Rows of each 8×8 image as 8 tokens: 8 pixels in [0, 1], then a one-hot row position.

    Returns
    -------
    Array of shape (S, 8, 16)

    Raises
    ------
    ValueError
        If an item is not 8 rows of 8 pixels.
    """
    side = len(dataset.channel_names)
    if side != 8 or (np.diff(dataset.offsets) != 8).any():
        raise ValueError(f"dataset must hold images of 8 rows and 8 pixels, got {dataset!r}.")
    pixels = dataset.values.reshape(dataset.num_items, 8, 8)
    position = np.broadcast_to(np.eye(8), pixels.shape)
    return np.concatenate([pixels, position], axis=2)


def row_moments(dataset: Dataset, items: IntArray) -> tuple[Array, Array]:
    """Mean and standard deviation (c,) of every channel over all rows of some items.

    Raises
    ------
    ValueError
        If a channel is constant there.
    """
    rows = np.concatenate([dataset.item(i) for i in items.tolist()])
    std = rows.std(axis=0)
    if not (std > 0).all():
        flat = dataset.channel_names[int(np.argmin(std))]
        raise ValueError(f"dataset must vary in every channel, got {flat!r} constant in training.")
    return rows.mean(axis=0), std


def windows(
    dataset: Dataset, items: Iterable[int], *, length: int = 50, stride: int = 25
) -> tuple[Array, IntArray]:
    """Cut items into windows that start every ``stride`` rows; rows left over at the end are lost.

    Returns
    -------
    tables : Array of shape (W, length, c)
        Windows in the order of ``items`` and of time.
    origin : IntArray of shape (W,)
        Item each window was cut from. An item shorter than ``length`` gives none.

    Raises
    ------
    ValueError
        If length or stride is not a positive integer.
    """
    positive_int("length", length)
    positive_int("stride", stride)
    tables = [np.zeros((0, length, len(dataset.channel_names)))]
    origin: list[int] = []
    for i in items:
        rows = dataset.item(i)
        if len(rows) < length:
            continue
        cut = np.lib.stride_tricks.sliding_window_view(rows, length, axis=0)[::stride]
        tables.append(cut.transpose(0, 2, 1))
        origin += [int(i)] * len(cut)
    return np.ascontiguousarray(np.concatenate(tables)), np.array(origin, dtype=np.int64)
