"""The records everything else speaks in: `Layout`, `Params`, `Statistics`, `Problem`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar, cast

import numpy as np

from linattn._display import facts_html, spread
from linattn._typing import Array, IntArray
from linattn.clients import Clients
from linattn.params import Layout as Layout
from linattn.params import Params as Params

if TYPE_CHECKING:
    from linattn.oracles.protocol import Oracle

Made = TypeVar("Made")

READOUTS = ("token", "mean", "last")
OWN_QUERIES = "queries"
"""The readout of data that bring queries of their own."""


class Statistics(NamedTuple):
    """Statistics of S sequences: all that objectives and gradients need (notes, Model).

    For the ``token`` readout M = G, so only `gram` and `cross` are kept. With one query u per
    sequence (``mean``, ``last``, or one of its own) M = u uᵀ and K = u yᵀ have rank one, and u and
    y are kept instead. Several queries of their own have an M of their own.

    Attributes
    ----------
    gram : array, shape (S, d, d)
        G = XᵀX/n.
    cross : array, shape (S, d, m) or None
        K = UᵀY/q (token readout, several queries).
    query : array, shape (S, d) or None
        The query u (one query per sequence).
    target : array, shape (S, m) or None
        The target y (one query per sequence).
    energy : array, shape (S,)
        c = ‖Y‖²/q, units of the loss.
    moment : array, shape (S, d, d) or None
        M = UᵀU/q (several queries of their own).
    """

    gram: Array
    cross: Array | None
    query: Array | None
    target: Array | None
    energy: Array
    moment: Array | None = None

    @property
    def num_outputs(self) -> int:
        """Number of outputs m."""
        held = self.cross if self.target is None else self.target
        assert held is not None
        return int(held.shape[-1])

    def cross_moments(self) -> Array:
        """K = UᵀY/q of every sequence, (S, d, m)."""
        if self.cross is not None:
            return self.cross
        assert self.query is not None
        assert self.target is not None
        return self.query[:, :, None] * self.target[:, None, :]

    def query_moments(self) -> Array:
        """M = UᵀU/q of every sequence, (S, d, d)."""
        if self.query is not None:
            return self.query[:, :, None] * self.query[:, None, :]
        return self.gram if self.moment is None else self.moment

    def take(self, index: IntArray | slice) -> Statistics:
        """Statistics of some of the sequences."""
        return Statistics._make(None if a is None else np.ascontiguousarray(a[index]) for a in self)

    def spelled_out(self) -> Statistics:
        """The same statistics with M and K of every sequence, whatever their rank."""
        return Statistics(
            self.gram, self.cross_moments(), None, None, self.energy, self.query_moments()
        )


@dataclass(frozen=True, eq=False)
class Problem(Clients):
    """A federated regression problem for linear attention: data, weights, ridges; no method.

    Make one with `problem_from_tokens` or `synthetic_problem`. The objective of client i is the
    mean of the sequence losses plus both ridges, F_i = mean ℓ + (λ/2)‖V‖² + (μ/2)‖kernel
    parameters‖², and F = Σ p_i F_i (notes, Model).

    Attributes
    ----------
    statistics : Statistics
        Of all sequences, client after client.
    offsets : array of int, shape (C + 1,)
        Client i owns the sequences offsets[i]:offsets[i + 1].
    weights : array, shape (C,)
        p_i > 0, summing to one.
    value_ridge, kernel_ridge : float
        λ and μ, units of loss per squared parameter.
    readout : {"token", "mean", "last", "queries"}
        Which tokens are queries; ``queries``: the data's own.
    """

    statistics: Statistics
    offsets: IntArray
    weights: Array
    value_ridge: float
    kernel_ridge: float
    readout: str

    has_profile = True  # one layer: at a fixed kernel the best value block is a linear solve

    def __post_init__(self) -> None:
        for array in (*self.statistics, self.offsets, self.weights):
            if array is not None:
                array.setflags(write=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, because an unpickled array is writable again.
        values = (self.statistics, self.offsets, self.weights)
        return (Problem, (*values, self.value_ridge, self.kernel_ridge, self.readout))

    @property
    def dim(self) -> int:
        """Number of channels d of a token."""
        return int(self.statistics.gram.shape[1])

    @property
    def num_outputs(self) -> int:
        """Number of outputs m."""
        return self.statistics.num_outputs

    def derived(self, build: Callable[..., Made], *details: Any) -> Made:
        """Return ``build(self, *details)``, made at its first use and kept with the problem."""
        key = (build, *details)
        if key not in self._made:
            self._made[key] = build(self, *details)
        made: Made = self._made[key]
        return made

    @cached_property
    def _made(self) -> dict[Any, Any]:
        return {}

    def oracle(self, params: Params) -> Oracle:
        """Return what answers for the clients: gradients, local steps, objectives, work.

        Raises
        ------
        ValueError
            If `params` do not fit the problem.
        """
        from linattn.objectives.joint import check_fits
        from linattn.oracles.statistics import StatisticsOracle

        check_fits(self, params)
        return StatisticsOracle(self, params.layout)

    def rearranged(self, index: IntArray, offsets: IntArray, weights: Array) -> Problem:
        """Return the problem whose clients hold the sequences `index`, cut at `offsets`."""
        held = self.statistics.take(index)
        return replace(self, statistics=held, offsets=offsets, weights=weights)

    def _repr_html_(self) -> str:
        return facts_html(
            "Problem",
            [
                ("clients C", self.num_clients),
                ("sequences", self.num_sequences),
                ("sequences per client", spread(self.client_sizes)),
                ("weights p_i", spread(self.weights)),
                ("channels d", self.dim),
                ("outputs m", self.num_outputs),
                ("readout", self.readout),
                ("value ridge λ", self.value_ridge),
                ("kernel ridge μ", self.kernel_ridge),
            ],
        )

    def __repr__(self) -> str:
        return (
            f"Problem({self.num_clients} clients, {self.num_sequences} sequences, dim {self.dim}, "
            f"{self.num_outputs} outputs, readout {self.readout!r}, "
            f"value_ridge {self.value_ridge:g}, kernel_ridge {self.kernel_ridge:g})"
        )


def single_layer(problem: object, purpose: str = "kernel profile and value block") -> Problem:
    """Return the problem if it has a kernel profile, which only those of a single layer have.

    Parameters
    ----------
    problem : object
    purpose : str
        What needs it, for the sentence.

    Raises
    ------
    TypeError
        If it is any other problem.
    """
    if not getattr(problem, "has_profile", False):
        raise TypeError(
            f"problem must be a single-layer Problem for {purpose}, got {type(problem).__name__}."
        )
    return cast(Problem, problem)


class Federation(Protocol):
    """A problem kind: clients, weights, sequences, and an oracle that answers for its clients.

    Whatever has these runs through the one loop. ``has_profile`` tells whether it has a kernel
    profile and a value block, too, which only a single layer has.
    """

    has_profile: bool

    @property
    def weights(self) -> Array:
        """p_i > 0, summing to one, (C,)."""

    @property
    def num_clients(self) -> int:
        """Number of clients C."""

    @property
    def client_sizes(self) -> IntArray:
        """Number of sequences of each client, (C,)."""

    @property
    def num_sequences(self) -> int:
        """Number of sequences S of all clients."""

    def oracle(self, params: Params) -> Oracle:
        """Return what answers for the clients, once `params` are known to fit the problem."""

    def rearranged(self, index: IntArray, offsets: IntArray, weights: Array) -> Self:
        """Return the problem whose clients hold the sequences `index`, cut at `offsets`."""


Held = TypeVar("Held", bound=Federation)


def pool(problem: Held) -> Held:
    """Return the *identical clients* control: every client holds all sequences of all clients.

    Weights stay. Each F_i becomes the plain mean over all sequences, which equals F of the original
    problem when its weights are proportional to the numbers of sequences (the default).

    Parameters
    ----------
    problem : Problem or DeepProblem

    Raises
    ------
    TypeError
        If it is neither.

    Notes
    -----
    Source: the null control of C9 (Trade-off). Cost: memory and work of a round grow C-fold.
    Identical clients move identically, so ``pool(problem).subset([0])`` runs the same trajectory at
    the cost of one client.
    """
    if not hasattr(problem, "rearranged"):
        raise TypeError(f"problem must be a Problem or DeepProblem, got {type(problem).__name__}.")
    copies = np.tile(np.arange(problem.num_sequences), problem.num_clients)
    steps = np.arange(problem.num_clients + 1, dtype=np.int64)
    return problem.rearranged(copies, steps * problem.num_sequences, problem.weights.copy())
