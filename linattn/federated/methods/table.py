"""The one table of methods: what studies and simulations call by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from linattn._checks import one_of
from linattn.federated.method import Method
from linattn.federated.methods.adaptive import fed_adam, fed_yogi
from linattn.federated.methods.averaging import fed_avg, fed_nova, fed_prox
from linattn.federated.methods.fed_tp import fed_tp
from linattn.federated.methods.frozen import fed_frozen
from linattn.federated.methods.gated import fed_sq
from linattn.federated.methods.moon import moon
from linattn.federated.methods.part import fed_part
from linattn.federated.methods.personal import fine_tuned, local_attention
from linattn.federated.methods.scaffold import scaffold
from linattn.federated.methods.selective import selective
from linattn.types import Params


class Choices(NamedTuple):
    """Settings of the methods of a comparison; each takes those that are its own.

    Attributes
    ----------
    params : Params
        The start: its blocks, and the structural copy of FedSQ.
    local_steps : int
        Steps of fine-tuning.
    warmup_rounds, prox, server_momentum, contrast, budget, embedding_dim, server_lr, initial_rounds
        As in the methods.
    """

    params: Params
    local_steps: int
    warmup_rounds: int = 10
    prox: float = 0.1
    server_momentum: float = 0.5
    contrast: float = 0.1
    budget: int = 1
    embedding_dim: int = 4
    server_lr: float = 1.0
    initial_rounds: int = 5


class Listed(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    label : str
        Name in figures.
    make : callable (Choices) -> Method
    single, deep : bool
        Whether models of one layer, and deep ones with ReLU features, can be trained by it.
    personal : bool
        Whether clients end with models of their own, which fit their own data only.
    common : bool
        Whether comparisons have it unless told otherwise.
    """

    label: str
    make: Callable[[Choices], Method]
    single: bool = True
    deep: bool = True
    personal: bool = False
    common: bool = True


def _frozen(c: Choices, **options: Any) -> Method:
    return fed_frozen(warmup_rounds=c.warmup_rounds, **options)


def _fed_tp(c: Choices) -> Method:
    kernel = tuple(c.params.layout.kernel_blocks)
    return fed_tp(embedding_dim=c.embedding_dim, blocks=kernel, server_lr=c.server_lr)


def _local_attention(c: Choices) -> Method:
    return local_attention(blocks=tuple(c.params.layout.kernel_blocks))


METHODS: dict[str, Listed] = {
    "fed_avg": Listed("FedAvg", lambda c: fed_avg()),
    "fed_avg_momentum": Listed(
        "FedAvg, server momentum", lambda c: fed_avg(server_momentum=c.server_momentum)
    ),
    "fed_prox": Listed("FedProx", lambda c: fed_prox(prox=c.prox)),
    # FedNova is FedAvg where all work is equal; the others need a server step of their own.
    "fed_nova": Listed("FedNova", lambda c: fed_nova(), common=False),
    "fed_adam": Listed("FedAdam", lambda c: fed_adam(), common=False),
    "fed_yogi": Listed("FedYogi", lambda c: fed_yogi(), common=False),
    "scaffold": Listed("SCAFFOLD", lambda c: scaffold()),
    "moon": Listed("MOON", lambda c: moon(weight=c.contrast)),
    "fed_frozen": Listed("FedFrozen", _frozen),
    "frozen_scaffold": Listed("FedFrozen, SCAFFOLD", lambda c: _frozen(c, frozen="scaffold")),
    "frozen_one_shot": Listed(
        "FedFrozen, one-shot", lambda c: _frozen(c, frozen="one_shot"), deep=False
    ),
    "freeze_value": Listed("value frozen instead", lambda c: _frozen(c, freeze="value")),
    "freeze_start": Listed("frozen from the start", lambda c: fed_frozen(warmup_rounds=0)),
    "fed_part": Listed(
        "FedPart", lambda c: fed_part(initial_rounds=c.initial_rounds, rounds_per_group=2)
    ),
    "selective": Listed("selective", lambda c: selective(budget=c.budget)),
    "fed_tp": Listed("FedTP, linear", _fed_tp, personal=True),
    "local_attention": Listed("local attention", _local_attention, personal=True),
    "fine_tuned": Listed(
        "FedAvg, fine-tuned", lambda c: fine_tuned(steps=c.local_steps), personal=True
    ),
    "fed_sq": Listed("FedSQ", lambda c: fed_sq(structural=c.params), single=False),
}


def method_names(*, deep: bool = False, common: bool = False) -> tuple[str, ...]:
    """Return the methods that can train a model of one layer, or a deep one; all or the common."""
    return tuple(
        name
        for name, row in METHODS.items()
        if (row.deep if deep else row.single) and (row.common or not common)
    )


def make_method(name: str, choices: Choices) -> Method:
    """Return the method of a name.

    Raises
    ------
    ValueError
        If there is none.
    """
    return METHODS[one_of("method", name, METHODS)].make(choices)
