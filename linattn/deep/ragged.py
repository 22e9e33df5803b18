"""Sequences of several lengths: a list of arrays outside, one stacked array per length inside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from linattn._checks import as_float64, refuse_masked
from linattn._typing import AnyArray


def scatter(parts: Iterable[tuple[AnyArray, AnyArray]]) -> AnyArray | list[AnyArray]:
    """Put rows back in the order of the sequences: an array if shapes are equal, else a list.

    Parameters
    ----------
    parts : iterable of (index, rows)
        Sequence numbers and one row per number; together every number once.
    """
    rows = {int(s): row for index, block in parts for s, row in zip(index, block, strict=True)}
    ordered = [rows[s] for s in range(len(rows))]
    return np.stack(ordered) if len({row.shape for row in ordered}) == 1 else ordered


def check_rows(
    name: str, rows: Any, shapes: Sequence[tuple[int, ...]], *, kind: type = float
) -> list[AnyArray]:
    """Return one array of the given shape per sequence.

    Raises
    ------
    TypeError, ValueError
        If there is not one per sequence, a shape differs, or values are not finite float64 (bool
        for ``kind=bool``).
    """
    if not hasattr(rows, "__len__") or len(rows) != len(shapes):
        held = len(rows) if hasattr(rows, "__len__") else repr(rows)
        raise ValueError(f"{name} must hold {len(shapes)} entries, one per sequence, got {held}.")
    out = []
    for s, (row, shape) in enumerate(zip(rows, shapes, strict=True)):
        refuse_masked(f"{name}[{s}]", row)
        array = np.asarray(row) if kind is bool else as_float64(f"{name}[{s}]", row)
        if kind is bool and array.dtype != np.bool_:
            raise TypeError(f"{name}[{s}] must be boolean, got dtype {array.dtype}.")
        if array.shape != shape:
            raise ValueError(f"{name}[{s}] must have shape {shape}, got {array.shape}.")
        out.append(array)
    return out
