"""What the slots of a method return: refused in one sentence before it reaches compiled code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from linattn._checks import positive_int, real, shown
from linattn._settings import Sampling, check_sampling
from linattn._typing import Array
from linattn.federated.method import Cost, Direction, Method, Plan, RoundContext, train_everything
from linattn.oracles.protocol import Oracle
from linattn.types import Layout

Check = Callable[[str, Any, Any], Any]
"""(slot, what it returned, its first argument) -> what goes on."""


def checked(method: Method, layout: Layout) -> Method:
    """Return the method with slots that check what they return.

    Raises
    ------
    TypeError, ValueError
        The slots do, naming method and slot, what is allowed and what it got.
    """
    slots = _Slots(method.name, layout)
    checks: Mapping[str, Check] = {
        "plan": slots.plan,
        "direction": slots.direction,
        "penalty_gradient": slots.vector,
        "aggregate": slots.aggregated,
        "oracle": slots.oracle,
        "start": slots.vector,
        "personal": slots.vector,
        "extra_cost": slots.cost,
        "sampling": slots.sampling,
    }
    own: dict[str, Any] = {
        name: _followed(getattr(method, name), name, check)
        for name, check in checks.items()
        if getattr(method, name) not in (None, train_everything)
    }
    return replace(method, **own)


def stacked(terms: Sequence[Direction], size: int) -> tuple[float, Array]:
    """Return the prox weight that directions share, and their shifts (P, D), (0, D) if none has.

    Raises
    ------
    ValueError
        If they have several prox weights.
    """
    if len({term.prox for term in terms}) > 1:
        raise ValueError("direction must give all participants of a round the same prox.")
    shifts = [np.zeros(size) if term.shift is None else term.shift for term in terms]
    any_shift = any(term.shift is not None for term in terms)
    return terms[0].prox, np.stack(shifts) if any_shift else np.zeros((0, size))


def _followed(slot: Callable[..., Any], name: str, check: Check) -> Callable[..., Any]:
    return lambda *arguments: check(name, slot(*arguments), arguments[0])


class _Slots:
    """Checks for the parameters of one layout."""

    def __init__(self, method: str, layout: Layout) -> None:
        self.method = method
        self.layout = layout

    def kind(self, slot: str, value: Any, allowed: type) -> Any:
        """Refuse what is of another class."""
        if not isinstance(value, allowed):
            raise TypeError(
                f"{slot} of {self.method} must return a {allowed.__name__}, got {shown(value)}."
            )
        return value

    def vector(self, slot: str, value: Any, context: Any = None) -> Array:
        """Refuse what is not (D,), in float64; divergence may have made it infinite."""
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" or array.shape != (self.layout.size,):
            raise ValueError(
                f"{slot} of {self.method} must return {self.layout.size} numbers, got an array of "
                f"shape {array.shape} and dtype {array.dtype}."
            )
        return array.astype(np.float64, copy=False)

    def direction(self, slot: str, value: Any, context: Any) -> Direction:
        """Refuse weights that are negative, and shifts of another size."""
        term = self.kind(slot, value, Direction)
        prox = real(f"prox of {slot} of {self.method}", term.prox, minimum=0.0)
        return Direction(prox, None if term.shift is None else self.vector(slot, term.shift))

    def plan(self, slot: str, value: Any, context: RoundContext) -> Plan:
        """Refuse blocks that the model has not, and other numbers of them than participants."""
        plan: Plan = self.kind(slot, value, Plan)
        known, count = frozenset(self.layout.names), len(context.participants)
        if plan.blocks is not None and len(plan.blocks) != count:
            raise ValueError(
                f"{slot} of {self.method} must give blocks to {count} participants, got "
                f"{len(plan.blocks)}."
            )
        for blocks in (plan.trained, *(plan.blocks or ()), plan.kept, plan.generated):
            if not isinstance(blocks, frozenset) or not blocks <= known:
                raise ValueError(
                    f"{slot} of {self.method} must name blocks among "
                    f"{', '.join(self.layout.names)} in a frozenset, got {shown(blocks)}."
                )
        real(f"local_lr of {slot} of {self.method}", plan.local_lr, above=0.0)
        return plan

    def cost(self, slot: str, value: Any, context: Any) -> Cost:
        """Refuse what is not counted."""
        cost: Cost = self.kind(slot, value, Cost)
        for number in cost[:3]:
            positive_int(f"{slot} of {self.method}", number, minimum=0)
        return cost

    def sampling(self, slot: str, value: Any, context: Any) -> Sampling:
        """Refuse what is no sampling."""
        found: Sampling = self.kind(slot, value, Sampling)
        return check_sampling(*found)

    def oracle(self, slot: str, value: Any, context: Any) -> Oracle:
        """Refuse what trains nobody."""
        if not hasattr(value, "train"):
            raise TypeError(f"{slot} of {self.method} must return an Oracle, got {shown(value)}.")
        found: Oracle = value
        return found

    def aggregated(self, slot: str, value: Any, context: Any) -> tuple[Array, Any]:
        """Refuse anything but parameters (D,) and a memory."""
        if not isinstance(value, tuple) or len(value) != 2:
            raise TypeError(
                f"{slot} of {self.method} must return parameters and memory, got {shown(value)}."
            )
        return self.vector(slot, value[0]), value[1]
