"""How rounds and theory see any problem: tasks, traces, and the functions of an oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from linattn._typing import Array, BoolArray, IntArray
from linattn.oracles.work import Work
from linattn.types import Federation, Layout, Params


class LocalTask(NamedTuple):
    """One round's local training, method-independent.

    Attributes
    ----------
    participants : array of int, shape (P,)
    starts : array, shape (P, D)
        Where every participant starts.
    anchor : array, shape (D,)
        Server parameters of the proximal term.
    mask : array of bool, shape (P, D)
        Which entries each participant trains.
    local_steps : int
    local_lr : float
    prox : float
        Weight of ``prox · (w − anchor)`` in the direction.
    shift : array, shape (P, D) or (0, D)
        Constant added to the direction of each participant.
    batches : list of array of int, shape (E, b_i), or None
        Every local minibatch, sequences counted from 0 within the client; None for full batches.
    record : bool
        Whether to hand back every local iterate and gradient.
    """

    participants: IntArray
    starts: Array
    anchor: Array
    mask: BoolArray
    local_steps: int
    local_lr: float
    prox: float
    shift: Array
    batches: list[IntArray] | None
    record: bool

    @classmethod
    def plain(
        cls,
        participants: IntArray,
        starts: Array,
        *,
        local_steps: int,
        local_lr: float,
    ) -> LocalTask:
        """Plain gradient steps on all parameters, full batches."""
        return cls(
            participants,
            starts,
            starts[0],
            np.ones(starts.shape, dtype=bool),
            local_steps,
            local_lr,
            0.0,
            np.zeros((0, starts.shape[1])),
            None,
            record=False,
        )

    def of(self, chosen: IntArray | slice) -> LocalTask:
        """The task of some of the participants."""
        places = np.arange(len(self.participants))[chosen].tolist()
        return self._replace(
            participants=self.participants[chosen],
            starts=self.starts[chosen],
            mask=self.mask[chosen],
            shift=self.shift[chosen] if len(self.shift) else self.shift,
            batches=None if self.batches is None else [self.batches[k] for k in places],
        )


class LocalTrace(NamedTuple):
    """Every local step of a round: arrays (E, P, D).

    Attributes
    ----------
    iterates : array
        w_{i,e} before step e.
    gradients : array
        ĝ_i there: the gradient that was used, ridges included, without prox and shift.
    full_gradients : array
        The full-batch gradient there; the same array as `gradients` without minibatches.

    In full-batch rounds that train the value block alone, kernel entries of the gradients are zero.
    """

    iterates: Array
    gradients: Array
    full_gradients: Array


class Draws(NamedTuple):
    """Who takes part in each of N rounds, and the weights of the averages.

    Attributes
    ----------
    clients : array of int, shape (Σ P_t,)
    weights : array, shape (Σ P_t,)
    offsets : array of int, shape (N + 1,)
        Round t is of the entries [offsets[t]:offsets[t + 1]].
    everybody : bool
        Whether these are all clients with the same weights, every round.
    """

    clients: IntArray
    weights: Array
    offsets: IntArray
    everybody: bool

    @classmethod
    def of(cls, rounds: Sequence[tuple[IntArray, Array]]) -> Draws:
        """Of the participants and weights of every round."""
        clients, weights = zip(*rounds, strict=True)
        offsets = np.cumsum([0, *map(len, clients)])
        return cls(np.concatenate(clients), np.concatenate(weights), offsets, everybody=False)

    @classmethod
    def same(cls, weights: Array, count: int) -> Draws:
        """Of all clients, `count` times."""
        size = len(weights)
        offsets, clients = size * np.arange(count + 1), np.arange(size)
        return cls(np.tile(clients, count), np.tile(weights, count), offsets, everybody=True)

    def round(self, t: int) -> tuple[IntArray, Array]:
        """The participants of a round, (P_t,), and their weights, (P_t,)."""
        of = slice(self.offsets[t], self.offsets[t + 1])
        return self.clients[of], self.weights[of]

    @property
    def most(self) -> int:
        """Clients that take part at once."""
        return int(np.diff(self.offsets).max())


class Evaluated(NamedTuple):
    """F, (N,), and ∇F, (N, D), at N server points, ridges included."""

    objectives: Array
    gradients: Array


class Rounds(NamedTuple):
    """Several whole rounds on full batches, averaged as given.

    Attributes
    ----------
    path : array, shape (N, D)
        Server parameters after every round.
    drifts : array, shape (N, 2)
        (Σ w_i ‖·_i − mean‖²)^½ of kernel and value entries, just before averaging.
    starts : Evaluated or None
        What the first local steps tell of the point where every round of everybody starts.
    """

    path: Array
    drifts: Array
    starts: Evaluated | None


class Features(NamedTuple):
    """Representations of some sequences, one row each, and how gradients return from them.

    Attributes
    ----------
    rows : array, shape (S, k)
        What the last linear map of the model multiplies, flattened over the queries of a sequence.
    pull_back : callable (cotangent (S, k)) -> array (D,)
    """

    rows: Array
    pull_back: Callable[[Array], Array]


class Oracle(Protocol):
    """What a problem answers for its clients: all that rounds and theory see of it."""

    layout: Layout
    num_clients: int
    metric_names: tuple[str, ...]

    def batch_limit(self, client: int) -> int:
        """Number of sequences of a client."""

    def gradient(self, client: int, flat: Array, batch: IntArray | None = None) -> Array:
        """∇F_i at flat parameters, ridges included, on all or some of the client's sequences.

        A batch counts sequences from 0 within the client.
        """

    def train(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Run the local steps of a task; return the ends (P, D) and, if recorded, the trace."""

    def gradients(self, clients: IntArray, points: Array) -> tuple[Array, Array]:
        """F_i of clients[k] at points[k], (P,), and its gradient there, (P, D)."""

    def metrics(
        self,
        points: Array,
        names: tuple[str, ...],
        *,
        known: Evaluated | None = None,
        next_round: bool = False,
    ) -> dict[str, Array]:
        """Those of `metric_names` that are asked for, (N,) each, at server points (N, D).

        F and ∇F may be `known` at the first of them. With `next_round` the gradients of all clients
        at the last point will be asked for by the next round.
        """

    def objective(self, client: int, flat: Array) -> float:
        """F_i at flat parameters."""

    def features(
        self, client: int, flat: Array, batch: IntArray | None = None
    ) -> Iterator[Features]:
        """Representations of all or some of the client's sequences, in groups."""

    def predictions(self, client: int, flat: Array) -> Array:
        """Predictions on the client's sequences, one row per query, (N, m).

        Made from statistics they are rows with the inner products of the true ones divided by q.
        """

    def with_gates(self, structural: Params) -> Oracle:
        """The same oracle with ReLU gates fixed by structural parameters.

        Raises
        ------
        TypeError, ValueError
            If the model has no gates, or the parameters are of another one.
        """

    def amount(self, client: int, batch: IntArray | None = None) -> tuple[int, int]:
        """Numbers of tokens and sequences of a client, or of one or more of its minibatches."""

    def gradient_work(self, trained: frozenset[str]) -> Work:
        """Multiply-adds of one gradient in the trained blocks; of a forward pass if none."""

    def feature_work(self, trained: frozenset[str]) -> Work:
        """The same for a loss on the features."""


def oracle_of(problem: Federation, params: Params) -> Oracle:
    """Return the oracle of a problem.

    Raises
    ------
    TypeError
        If it is not a problem.
    ValueError
        If the parameters do not fit it.
    """
    if not hasattr(problem, "rearranged"):
        raise TypeError(
            "problem must be a Problem, a DeepProblem or have their method `oracle`, "
            f"got {type(problem).__name__}."
        )
    return problem.oracle(params)


class Outcome(NamedTuple):
    """How a run ended.

    Attributes
    ----------
    status : {"completed", "diverged", ...}
    round : int
        Rounds completed, or the round at which it ended early.
    reason : str
        Empty when completed.
    """

    status: str
    round: int
    reason: str


class Gradients(Protocol):
    """What explicit local steps need of an oracle."""

    def gradient(self, client: int, flat: Array, batch: IntArray | None = None) -> Array:
        """As in `Oracle`."""


def steps_together(
    gradients: Callable[[Array], Array], task: LocalTask
) -> tuple[Array, LocalTrace | None]:
    """`explicit_steps` of all participants at once, on full batches.

    Parameters
    ----------
    gradients : callable (P, D) -> (P, D)
        Of every participant at its own point.
    task : LocalTask
    """
    ends, places, slopes = task.starts.copy(), [], []
    shift = task.shift if len(task.shift) else 0.0
    for _ in range(task.local_steps):
        gradient = gradients(ends)
        if task.record:
            places.append(ends.copy())
            slopes.append(gradient)
        direction = gradient + task.prox * (ends - task.anchor) + shift
        ends -= task.local_lr * (task.mask * direction)
    if not task.record:
        return ends, None
    held = np.array(slopes).reshape(-1, *ends.shape)
    return ends, LocalTrace(np.array(places).reshape(held.shape), held, held)


METRICS = ("objective", "profile", "gap", "kernel_gradient_norm", "value_gradient_norm")


def explicit_steps(
    oracle: Gradients,
    task: LocalTask,
    penalty: Callable[[int, Array, IntArray | None], Array] | None = None,
) -> tuple[Array, LocalTrace | None]:
    """Local steps in Python: for oracles and directions that the compiled solver does not know.

    Parameters
    ----------
    oracle : Oracle, or anything with its `gradient`
    task : LocalTask
    penalty : callable (client, w, batch) -> array (D,), optional
        Added to the direction.
    """
    ends = task.starts.copy()
    shape = (task.local_steps if task.record else 0, *ends.shape)
    iterates, gradients, full = np.empty(shape), np.empty(shape), np.empty(shape)
    for k, i in enumerate(task.participants.tolist()):
        shift = task.shift[k] if len(task.shift) else 0.0
        for e in range(task.local_steps):
            batch = None if task.batches is None else task.batches[k][e]
            gradient = oracle.gradient(i, ends[k], batch)
            if task.record:
                iterates[e, k], gradients[e, k] = ends[k], gradient
                full[e, k] = gradient if batch is None else oracle.gradient(i, ends[k])
            direction = gradient + task.prox * (ends[k] - task.anchor) + shift
            if penalty is not None:
                direction = direction + penalty(i, ends[k], batch)
            ends[k] -= task.local_lr * (task.mask[k] * direction)
    if not task.record:
        return ends, None
    return ends, LocalTrace(iterates, gradients, gradients if task.batches is None else full)
