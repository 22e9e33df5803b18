"""Whether a theorem about runs speaks of a method and its settings at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from linattn._settings import Sampling
from linattn.federated.method import Method
from linattn.types import Params, Problem

MERGED, FACTORED = "merged kernel", "factored kernel"
PLAIN_STEPS = "plain gradient steps from the server's parameters"
AVERAGING = "averaging of client parameters"
NORMALIZED = "averaging of moves divided by their numbers of local steps"
FULL_BATCHES = "full batches"
FULL_PARTICIPATION = "full participation"

LOCAL = {
    "proximal": "adds a proximal term to the gradients",
    "corrected": "corrects the gradients, or follows another objective",
    "masked": "does not train every block in every round",
    "personal": "has models or blocks that stay with their clients",
}
"""What a method may say of itself (`Nature`) that makes its local steps others than plain."""
SERVER = {
    "normalized": "normalizes the moves of clients by their numbers of steps",
    "server_step": "does not step to the weighted mean",
    "adaptive": "has a step size per entry",
}
"""The same for its server."""


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


def _other_moves(method: Method | None) -> str:
    """Say why a method does not average normalized moves; what is None is left to the claim."""
    if method is None or method.nature.normalized:
        return _apart(method, {key: words for key, words in SERVER.items() if key != "normalized"})
    return _apart(method, SERVER) or f"{method.name} averages moves as they are"


def _apart(method: Method | None, words: dict[str, str]) -> str:
    """Say what sets a method apart from FedAvg in these respects; empty if nothing does."""
    if method is None:
        return ""
    found = [words[name] for name in method.nature.deviations if name in words]
    return f"{method.name} {' and '.join(found)}" if found else ""


def _minibatches(setting: Setting) -> str:
    size, largest = setting.batch_size, int(setting.problem.client_sizes.max())
    full = size is None or size >= largest
    return "" if full else f"a batch has {size} of up to {largest} sequences"


def _sampling(setting: Setting) -> str:
    clients = setting.problem.num_clients
    count = Sampling(setting.participation).draws(clients)
    if setting.method is not None and setting.method.nature.sampled:
        return f"{setting.method.name} chooses its participants"
    return "" if count == clients else f"{count} of {clients} clients take part in a round"


INSTEAD: dict[str, Callable[[Setting], str]] = {
    MERGED: lambda setting: "this one is factored" if setting.params.is_factored else "",
    FACTORED: lambda setting: "" if setting.params.is_factored else "this one is merged",
    PLAIN_STEPS: lambda setting: _apart(setting.method, LOCAL),
    AVERAGING: lambda setting: _apart(setting.method, SERVER),
    NORMALIZED: lambda setting: _other_moves(setting.method),
    FULL_BATCHES: _minibatches,
    FULL_PARTICIPATION: _sampling,
}
"""Every need, and what a setting has instead in words; empty where it is met."""


def refuse_others(what: str, method: Method | None) -> None:
    """Refuse a method that does not average plain gradient steps.

    Which blocks train is judged round by round by whoever calls: a mask alone is no reason.

    Raises
    ------
    ValueError
        Saying that `what` is not applicable, and why.
    """
    steps = {name: words for name, words in LOCAL.items() if name != "masked"}
    found = [words for words in (_apart(method, steps), _apart(method, SERVER)) if words]
    if found:
        raise ValueError(
            f"{what} is not applicable to this method: it is about averaging of plain gradient "
            f"steps, and {'; '.join(found)}."
        )
