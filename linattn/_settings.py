"""How settings of rounds are read: who takes part, how many local steps, at which step size.

Rounds and theory must read them the same way and never import each other, so it is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from linattn._checks import as_float64, is_listing, one_of, positive_int, real, shown
from linattn._typing import Array, IntArray

SCHEMES = ("uniform", "weighted")
MOST_STEPS = 2**53
"""Local steps beyond which a float is no integer."""

LocalSteps: TypeAlias = int | Sequence[int] | IntArray
"""E, or E_i of every client."""

StepSize: TypeAlias = float | Sequence[float] | Array | Callable[[int], float]
"""A constant, one entry per round, or a function of the round."""

Step: TypeAlias = float | Callable[[int], float]
"""A `StepSize` that was checked."""


class Sampling(NamedTuple):
    """Who takes part in a round.

    Attributes
    ----------
    participation : float
        In (0, 1]; K = max(1, round(participation·C)) draws.
    scheme : {"uniform", "weighted"}
        Without replacement, each client alike, averaged with w_i = p_i/Σ_S p_j; or with
        replacement, client i with probability p_i, averaged with w_i = (times drawn)/K.
    """

    participation: float = 1.0
    scheme: str = "uniform"

    def draws(self, num_clients: int) -> int:
        """K."""
        return max(1, round(self.participation * num_clients))

    def is_everybody(self, num_clients: int) -> bool:
        """Whether every round has all clients with their weights p_i."""
        return self.scheme == "uniform" and self.draws(num_clients) == num_clients


EVERYBODY = Sampling()


def check_sampling(participation: Any, sampling: Any) -> Sampling:
    """Return the checked arguments `participation` and `sampling`."""
    share = real("participation", participation, above=0.0, maximum=1.0)
    return Sampling(share, one_of("sampling", sampling, SCHEMES))


def check_local_steps(local_steps: Any, num_clients: int | None = None) -> int | IntArray:
    """Return E as an int, or the E_i as an array (C,) if they differ.

    Raises
    ------
    ValueError
        If an entry is not a positive integer, or there is not one for each of `num_clients`.
    """
    if isinstance(local_steps, Set):
        raise ValueError(f"local_steps must be in the order of clients, got {shown(local_steps)}.")
    if not is_listing(local_steps):
        return positive_int("local_steps", local_steps, maximum=MOST_STEPS)
    entries = [
        positive_int(f"local_steps[{i}]", e, maximum=MOST_STEPS) for i, e in enumerate(local_steps)
    ]
    if not entries or (num_clients is not None and len(entries) != num_clients):
        wanted = "one per client" if num_clients is None else f"{num_clients}, one per client"
        raise ValueError(f"local_steps must have {wanted}, got {len(entries)} entries.")
    equal = num_clients is not None and len(set(entries)) == 1
    return entries[0] if equal else np.array(entries, dtype=np.int64)


def steps_per_client(local_steps: int | IntArray, num_clients: int) -> IntArray:
    """Return E_i of every client, (C,)."""
    return np.broadcast_to(np.asarray(local_steps, dtype=np.int64), (num_clients,))


def check_stragglers(stragglers: Any) -> float:
    """Return the share of stragglers."""
    return real("stragglers", stragglers, minimum=0.0, maximum=1.0)


def mean_local_steps(local_steps: int | IntArray, stragglers: float) -> Array:
    """Return E[steps] where a straggler's number is uniform on 1..E_i; (C,) or ().

    Examples
    --------
    >>> float(mean_local_steps(9, 0.5))
    7.0
    """
    full = np.asarray(local_steps, dtype=np.float64)
    return np.asarray((1.0 - stragglers) * full + 0.5 * stragglers * (full + 1.0))


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
    if callable(value) and not isinstance(value, type):
        return lambda t: _called(name, value, t)
    if not is_listing(value):
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


def _called(name: str, schedule: Callable[[int], float], t: int) -> float:
    """The step of round t, if the function takes the round."""
    try:
        value = schedule(t)
    except TypeError as error:
        raise ValueError(f"{name} must be a function of the round, but {error}.") from error
    return real(f"{name}({t})", value, above=0.0)


def _entry(name: str, entries: Array, t: int) -> float:
    if t >= len(entries):
        raise ValueError(f"{name} must have an entry for round {t}, got {len(entries)} entries.")
    return float(entries[t])


def step_at(step: Step, t: int) -> float:
    """Return the step size of round t."""
    return step(t) if callable(step) else step


def constant_step(name: str, value: Any, purpose: str) -> float:
    """Return a step size that theory takes to be the same in every round.

    Raises
    ------
    ValueError
        If it is a schedule or not positive.
    """
    if callable(value) or is_listing(value):
        raise ValueError(f"{name} must be one number: {purpose} needs a step that is constant.")
    return real(name, value, above=0.0)
