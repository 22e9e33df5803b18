"""Whether a theorem about runs speaks of a method and its settings at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from linattn.federated.method import Method, train_everything
from linattn.federated.settings import choose_participants
from linattn.types import Params, Problem

MERGED, FACTORED = "merged kernel", "factored kernel"
PLAIN_STEPS = "plain gradient steps from the server's parameters"
AVERAGING = "averaging of client parameters"
FULL_BATCHES = "full batches"
FULL_PARTICIPATION = "full participation"


class Setting(Protocol):
    """What decides whether a theorem applies: a problem, a start, and how rounds are run.

    A method that is None is FedAvg.
    """

    @property
    def problem(self) -> Problem: ...
    @property
    def params(self) -> Params: ...
    @property
    def method(self) -> Method | None: ...
    @property
    def batch_size(self) -> int | None: ...
    @property
    def participation(self) -> float: ...


class Unmet(NamedTuple):
    """What a theorem needs, and what is the case instead."""

    need: str
    instead: str


def unmet_needs(needs: Iterable[str], setting: Setting) -> tuple[Unmet, ...]:
    """Return what a theorem needs and a setting lacks; empty if the theorem speaks of it.

    What a run does counts: batches that hold every sequence are full, and participation that
    rounds to all clients is full.

    Parameters
    ----------
    needs : iterable of str
        Among the keys of `INSTEAD`.
    setting : Setting
    """
    found = ((need, INSTEAD[need](setting)) for need in needs)
    return tuple(Unmet(need, instead) for need, instead in found if instead)


def other_steps(method: Method | None) -> str:
    """Say why the local steps of a method are not plain; empty if they are, as FedAvg's.

    Judged by slots: one that happens to do nothing (a proximal weight of zero) counts.
    """
    if method is None:
        return ""
    slots = {
        "exchanges the objective of the clients": method.oracle is not None,
        "does not train every block in every round": method.plan is not train_everything,
        "starts clients elsewhere": method.start is not None,
        "adds to the gradients": method.direction is not None,
        "adds a penalty to the loss": method.penalty_gradient is not None,
    }
    return _listed(method, slots)


def other_server(method: Method | None) -> str:
    """Say why the server of a method does not go to the weighted mean; empty if it does."""
    if method is None:
        return ""
    slots = {
        "does not step to the weighted mean": method.aggregate is not None,
        "may discard a round": method.review is not None,
    }
    return _listed(method, slots)


def _listed(method: Method, slots: dict[str, bool]) -> str:
    found = [words for words, filled in slots.items() if filled]
    return f"{method.name} {' and '.join(found)}" if found else ""


def _minibatches(setting: Setting) -> str:
    size, largest = setting.batch_size, int(setting.problem.client_sizes.max())
    full = size is None or size >= largest
    return "" if full else f"a batch has {size} of up to {largest} sequences"


def _sampling(setting: Setting) -> str:
    clients = setting.problem.num_clients
    count = len(choose_participants(clients, setting.participation, 0, 0))
    return "" if count == clients else f"{count} of {clients} clients take part in a round"


INSTEAD: dict[str, Callable[[Setting], str]] = {
    MERGED: lambda setting: "this one is factored" if setting.params.is_factored else "",
    FACTORED: lambda setting: "" if setting.params.is_factored else "this one is merged",
    PLAIN_STEPS: lambda setting: other_steps(setting.method),
    AVERAGING: lambda setting: other_server(setting.method),
    FULL_BATCHES: _minibatches,
    FULL_PARTICIPATION: _sampling,
}
"""Every need, and what a setting has instead in words; empty where it is met."""


def refuse_others(what: str, method: Method | None) -> None:
    """Refuse a method that is not averaging of plain gradient steps.

    Raises
    ------
    ValueError
        Saying that `what` is not applicable, and why.
    """
    found = [words for words in (other_steps(method), other_server(method)) if words]
    if found:
        raise ValueError(
            f"{what} is not applicable to this method: it is about averaging of plain gradient "
            f"steps, and {'; '.join(found)}."
        )
