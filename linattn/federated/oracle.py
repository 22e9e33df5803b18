"""How the round driver sees a problem: client gradients, local training, the global objective."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from linattn._typing import Array, BoolArray, IntArray
from linattn.federated.local_data import (
    batch_buffer,
    moment_data,
    prefers_client_moments,
    sequence_data,
)
from linattn.objectives.population import client_normal_equations, population
from linattn.types import Layout, Params, Problem

if TYPE_CHECKING:
    from linattn._kernels.local import LocalData, LocalShape


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


class Oracle(Protocol):
    """The functions through which `run_rounds` sees any problem."""

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

    def metrics(self, params: Params, names: tuple[str, ...]) -> dict[str, float]:
        """Global quantities at server parameters."""


METRICS = ("objective", "profile", "gap", "kernel_gradient_norm", "value_gradient_norm")


def explicit_steps(
    oracle: Oracle, task: LocalTask, penalty: Callable[[int, Array], Array] | None = None
) -> tuple[Array, LocalTrace | None]:
    """Local steps in Python: for oracles and directions that the compiled solver does not know.

    Parameters
    ----------
    oracle : Oracle
    task : LocalTask
    penalty : callable (client, w) -> array (D,), optional
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
                direction = direction + penalty(i, ends[k])
            ends[k] -= task.local_lr * (task.mask[k] * direction)
    if not task.record:
        return ends, None
    return ends, LocalTrace(iterates, gradients, gradients if task.batches is None else full)


class StatisticsOracle:
    """Oracle of a single-layer `Problem`: compiled local steps on the sequence statistics.

    Rounds that train the value block alone (full batches) run on A_i and C_i, which are all of F_i
    at a fixed kernel.
    """

    metric_names: tuple[str, ...] = METRICS

    def __init__(self, problem: Problem, layout: Layout, *, data: LocalData | None = None) -> None:
        self.problem = problem
        self.layout = layout
        self.num_clients = problem.num_clients
        self._value = layout.slices["value"]
        self._systems: tuple[bytes, Array, Array] | None = None
        # By whether they are moments; `data` stands for the problem's own statistics.
        self._data: dict[bool, LocalData] = {} if data is None else {False: data, True: data}

    def batch_limit(self, client: int) -> int:
        """Number of sequences of a client."""
        return int(self.problem.client_sizes[client])

    def gradient(self, client: int, flat: Array, batch: IntArray | None = None) -> Array:
        """∇F_i, (D,), by one recorded local step of size zero."""
        _, trace = self.train(
            LocalTask(
                np.array([client]),
                flat[None],
                flat,
                np.ones((1, flat.size), dtype=bool),
                1,
                0.0,
                0.0,
                np.zeros((0, flat.size)),
                None if batch is None else [batch[None]],
                True,
            )
        )
        assert trace is not None
        return np.asarray(trace.gradients[0, 0])

    def train(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Local training in compiled code."""
        if task.batches is None and self._trains_value_only(task):
            return self._train_value(task)
        return self._train_all(task)

    def _trains_value_only(self, task: LocalTask) -> bool:
        kernel_part = slice(0, self._value.start)
        shared = bool((task.starts[:, kernel_part] == task.starts[:1, kernel_part]).all())
        return (
            shared and not task.mask[:, kernel_part].any() and bool(task.mask[:, self._value].all())
        )

    def _client_systems(self, flat: Array) -> tuple[Array, Array]:
        """A_i and C_i of all clients at the kernel of `flat`, remembered while it is frozen."""
        key = flat[: self._value.start].tobytes()
        if self._systems is None or self._systems[0] != key:
            hessians, linears = client_normal_equations(
                self.problem, Params(self.layout, flat).kernels()
            )
            hessians = hessians + self.problem.value_ridge * np.eye(hessians.shape[-1])
            self._systems = (key, hessians, linears)
        return self._systems[1], self._systems[2]

    def _train_value(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        from linattn._kernels.local import value_round

        hessians, linears = self._client_systems(task.starts[0])
        value = self._value
        steps = task.local_steps if task.record else 0
        shape = (steps, len(task.participants), value.stop - value.start)
        iterates, gradients = np.empty(shape), np.empty(shape)
        ends = task.starts.copy()
        ends[:, value] = value_round(
            hessians[task.participants],
            linears[task.participants],
            np.ascontiguousarray(task.starts[:, value]),
            np.ascontiguousarray(task.anchor[value]),
            task.local_lr,
            task.prox,
            np.ascontiguousarray(task.shift[:, value]),
            task.local_steps,
            iterates,
            gradients,
        )
        if not task.record:
            return ends, None
        places = np.tile(task.starts, (steps, 1, 1))
        places[..., value] = iterates
        slopes = np.zeros_like(places)
        slopes[..., value] = gradients
        return ends, LocalTrace(places, slopes, slopes)

    def _train_all(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        from linattn._kernels.local import LocalRule, local_round

        size = self.layout.size
        shape = (task.local_steps if task.record else 0, len(task.participants), size)
        minibatch = task.batches is not None
        iterates, gradients = np.empty(shape), np.empty(shape)
        full = np.empty(shape if minibatch else (0, *shape[1:]))
        batches, offsets, largest = _flatten_batches(task, self.problem.offsets)
        rule = LocalRule(
            self.problem.value_ridge,
            self.problem.kernel_ridge,
            float(task.local_lr),
            float(task.prox),
            task.mask.astype(np.float64),
            np.ascontiguousarray(task.shift),
        )
        data = self._local_data(minibatch)
        ends = local_round(
            data,
            self._local_shape(),
            rule,
            np.ascontiguousarray(task.participants, dtype=np.int64),
            np.array(task.starts),
            np.array(task.anchor),
            task.local_steps,
            bool(task.record or task.mask[:, : self._value.start].any()),
            batches,
            offsets,
            batch_buffer(data, largest),
            iterates,
            gradients,
            full,
        )
        if not task.record:
            return ends, None
        return ends, LocalTrace(iterates, gradients, full if minibatch else gradients)

    def _local_shape(self) -> LocalShape:
        from linattn._kernels.local import LocalShape

        heads, dim, outputs = self.layout.shapes["value"]
        rank = self.layout.shapes["query"][-1] if "query" in self.layout.shapes else 0
        return LocalShape(heads, dim, outputs, rank)

    def _local_data(self, minibatch: bool) -> LocalData:
        moments = not minibatch and prefers_client_moments(self.problem, self._local_shape().heads)
        if moments not in self._data:
            build = moment_data if moments else sequence_data
            self._data[moments] = build(self.problem)
        return self._data[moments]

    def metrics(self, params: Params, names: tuple[str, ...]) -> dict[str, float]:
        """Those of `METRICS` that are asked for; gaps by C1, never by subtraction."""
        held = population(self.problem)
        out: dict[str, float] = {}
        if {"objective", "kernel_gradient_norm", "value_gradient_norm"} & set(names):
            out["objective"], gradient = held.value_and_gradient(params)
            out["kernel_gradient_norm"] = float(np.linalg.norm(gradient[: self._value.start]))
            out["value_gradient_norm"] = float(np.linalg.norm(gradient[self._value]))
        if {"profile", "gap"} & set(names):
            system = held.value_system(params.kernels())
            out["profile"] = held.profile_value(params, system)
            out["gap"] = held.gap(params, system)
        return {name: out[name] for name in names if name in out}


def _flatten_batches(task: LocalTask, starts: IntArray) -> tuple[IntArray, IntArray, int]:
    """All minibatches of a round in one vector, where each participant's start, the largest.

    Sequences become those of the problem: client i's first one is number starts[i].
    """
    if task.batches is None:
        return np.zeros(0, dtype=np.int64), np.zeros(len(task.participants) + 1, np.int64), 0
    flat = [
        np.ascontiguousarray(starts[i] + b, dtype=np.int64).reshape(-1)
        for i, b in zip(task.participants, task.batches, strict=True)
    ]
    offsets = np.cumsum([0, *[b.size for b in flat]]).astype(np.int64)
    return np.concatenate(flat), offsets, max(b.shape[-1] for b in task.batches)
