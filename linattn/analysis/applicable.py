"""Whether a theorem about runs speaks of a method and its settings at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from linattn.federated.method import Method, train_everything
from linattn.federated.settings import choose_participants
from linattn.types import Params, Problem

MERGED, FACTORED = "merged kernel", "factored kernel"
PLAIN = "averaging of plain gradient steps"
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
        Among `MERGED`, `FACTORED`, `PLAIN`, `FULL_BATCHES`, `FULL_PARTICIPATION`.
    setting : Setting
    """
    found = ((need, INSTEAD[need](setting)) for need in needs)
    return tuple(Unmet(need, instead) for need, instead in found if instead)


def _other_method(setting: Setting) -> str:
    return "" if setting.method is None else "; ".join(deviations(setting.method))


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
    PLAIN: _other_method,
    FULL_BATCHES: _minibatches,
    FULL_PARTICIPATION: _sampling,
}
"""Every need, and what a setting has instead in words; empty where it is met."""


def deviations(method: Method) -> tuple[str, ...]:
    """Return in words where a method leaves averaging of plain gradient steps; empty for FedAvg.

    Judged by its slots: one that happens to do nothing (a proximal weight of zero) counts.
    """
    return tuple(f"{method.name} {words}" for words in _deviations(method))


def _deviations(method: Method) -> Iterator[str]:
    if method.oracle is not None:
        yield "exchanges the objective of the clients"
    if method.plan is not train_everything:
        yield "does not train every block in every round"
    if method.start is not None:
        yield "starts clients elsewhere than at the server's parameters"
    if method.direction is not None or method.penalty_gradient is not None:
        yield "adds to the gradients"
    if method.review is not None:
        yield "may discard a round"
    if method.aggregate is not None:
        yield "does not step to the weighted mean"


def refuse_others(what: str, method: Method | None) -> None:
    """Refuse a method that is not averaging of plain gradient steps.

    Raises
    ------
    ValueError
        Saying that `what` is not applicable, and why.
    """
    found = () if method is None else deviations(method)
    if found:
        raise ValueError(f"{what} is not applicable: it needs {PLAIN}, but {'; '.join(found)}.")
