"""How settings of rounds are read: how many local steps, at which step size.

Rounds and theory must read them the same way and never import each other, so it is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from linattn._checks import as_float64, positive_int, real
from linattn._typing import Array, IntArray

LocalSteps: TypeAlias = int | Sequence[int] | IntArray
"""E, or E_i of every client."""

StepSize: TypeAlias = float | Sequence[float] | Array | Callable[[int], float]
"""A constant, one entry per round, or a function of the round."""

Step: TypeAlias = float | Callable[[int], float]
"""A `StepSize` that was checked."""


def check_local_steps(local_steps: Any, num_clients: int | None = None) -> int | IntArray:
    """Return E as an int, or the E_i as an array (C,) if they differ.

    Raises
    ------
    ValueError
        If an entry is not a positive integer, or there is not one for each of `num_clients`.
    """
    if not _is_listing(local_steps):
        return positive_int("local_steps", local_steps)
    entries = [positive_int(f"local_steps[{i}]", e) for i, e in enumerate(local_steps)]
    if not entries or (num_clients is not None and len(entries) != num_clients):
        wanted = "one per client" if num_clients is None else f"{num_clients}, one per client"
        raise ValueError(f"local_steps must have {wanted}, got {len(entries)} entries.")
    equal = num_clients is not None and len(set(entries)) == 1
    return entries[0] if equal else np.array(entries, dtype=np.int64)


def step_schedule(name: str, value: Any, *, rounds: int | None = None) -> Step:
    """Return a positive number, or a function of the round that checks what it returns.

    Parameters
    ----------
    name : str
        Of the argument, for sentences.
    value : float, array or callable
        A constant; one entry per round; a function of the round t = 0, 1, ...
    rounds : int, optional
        Entries that an array needs at least.

    Raises
    ------
    ValueError
        If a step is not positive and finite, or an array is too short; a function is asked, and may
        be refused, at the round itself.
    """
    if callable(value):
        return lambda t: real(f"{name}({t})", value(t), above=0.0)
    if not _is_listing(value):
        return real(name, value, above=0.0)
    entries = as_float64(name, value, ndim=1)
    if len(entries) < (1 if rounds is None else rounds):
        raise ValueError(
            f"{name} must have an entry for every round ({rounds or 'one at least'}), "
            f"got {len(entries)}."
        )
    if not (entries > 0.0).all():
        raise ValueError(f"{name} must be > 0 in every round, got {entries.min():g}.")
    return lambda t: _entry(name, entries, t)


def _entry(name: str, entries: Array, t: int) -> float:
    if t >= len(entries):
        raise ValueError(f"{name} must have an entry for round {t}, got {len(entries)} entries.")
    return float(entries[t])


def step_at(step: Step, t: int) -> float:
    """Return the step size of round t."""
    return step(t) if callable(step) else step


def _is_listing(value: Any) -> bool:
    """Whether a value has entries: a list, a tuple or an array with axes."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
