"""How a single-layer problem answers for its clients: gradients, local training, objectives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from linattn._threads import in_threads
from linattn._typing import Array, IntArray
from linattn.linalg import weighted_sum
from linattn.objectives.compiled import (
    client_gradients,
    minibatches,
    shape_of,
    thread_bounds,
    value_steps,
)
from linattn.objectives.packing import client_data, sequence_data
from linattn.objectives.population import client_normal_equations, population
from linattn.oracles.features import StatisticsFeatures
from linattn.oracles.protocol import METRICS, Features, LocalTask, LocalTrace, Oracle
from linattn.oracles.work import Work, statistics_work
from linattn.types import Layout, Params, Problem

if TYPE_CHECKING:
    from linattn._kernels.layout import Data


class StatisticsOracle:
    """Oracle of a single-layer `Problem`: compiled local steps on the sequence statistics.

    Rounds that train the value block alone (full batches) run on A_i and C_i, which are all of F_i
    at a fixed kernel. Gradients of all clients at one point are remembered: what the history asks
    for is the first step of the next round.
    """

    metric_names: tuple[str, ...] = METRICS

    def __init__(self, problem: Problem, layout: Layout, *, data: Data | None = None) -> None:
        self.problem = problem
        self.layout = layout
        self.num_clients = problem.num_clients
        self._value = layout.slices["value"]
        self._kernel = slice(0, self._value.start)
        self._given = data  # stands for the problem's own statistics
        self._systems: tuple[bytes, Array, Array] | None = None
        self._known: tuple[Array, Array, Array] | None = None
        self.shape = shape_of(layout)
        self._features = StatisticsFeatures(problem, layout)

    def batch_limit(self, client: int) -> int:
        """Number of sequences of a client."""
        return int(self.problem.client_sizes[client])

    def gradient(self, client: int, flat: Array, batch: IntArray | None = None) -> Array:
        """∇F_i, (D,)."""
        batches = None if batch is None else [batch]
        return np.asarray(self._gradients(np.array([client]), flat[None], batches)[1][0])

    def gradients(self, clients: IntArray, points: Array) -> tuple[Array, Array]:
        """F_i of clients[k] at points[k], (P,), and its gradient, (P, D)."""
        return self._gradients(clients, points, None)

    def _gradients(
        self, clients: IntArray, points: Array, batches: list[IntArray] | None
    ) -> tuple[Array, Array]:
        data = self._data(minibatch=batches is not None)
        return client_gradients(
            data,
            self.shape,
            clients,
            points,
            ridges=(self.problem.value_ridge, self.problem.kernel_ridge),
            batches=batches,
        )

    def _everybody(self, flat: Array) -> tuple[Array, Array]:
        """F_i and ∇F_i of all clients at one point, remembered."""
        if self._known is None or not np.array_equal(self._known[0], flat):
            self._known = (flat, *self.gradients(np.arange(self.num_clients), flat[None]))
        return self._known[1:]

    def train(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Local training in compiled code."""
        if task.batches is None and self._trains_value_only(task):
            return self._train_value(task)
        return self._train_all(task)

    def _trains_value_only(self, task: LocalTask) -> bool:
        if task.mask[:, self._kernel].any() or not task.mask[:, self._value].all():
            return False
        return bool((task.starts[:, self._kernel] == task.starts[:1, self._kernel]).all())

    def _client_systems(self, flat: Array) -> tuple[Array, Array]:
        """A_i and C_i of all clients at the kernel of `flat`, remembered while it is frozen."""
        key = flat[self._kernel].tobytes()
        if self._systems is None or self._systems[0] != key:
            hessians, linears = client_normal_equations(
                self.problem, Params(self.layout, flat).kernels()
            )
            hessians = hessians + self.problem.value_ridge * np.eye(hessians.shape[-1])
            self._systems = (key, hessians, linears)
        return self._systems[1], self._systems[2]

    def _train_value(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        hessians, linears = self._client_systems(task.starts[0])
        value, steps = self._value, task.local_steps if task.record else 0
        iterates, gradients = np.empty((2, steps, len(task.starts), value.stop - value.start))
        ends = task.starts.copy()
        ends[:, value] = value_steps(
            hessians[task.participants],
            linears[task.participants],
            task.starts[:, value],
            local_lr=task.local_lr,
            local_steps=task.local_steps,
            prox=task.prox,
            anchor=task.anchor[value],
            shift=task.shift[:, value],
            record=(iterates, gradients),
        )
        if not task.record:
            return ends, None
        places = np.tile(task.starts, (steps, 1, 1))
        places[..., value] = iterates
        slopes = np.zeros_like(places)
        slopes[..., value] = gradients
        return ends, LocalTrace(places, slopes, slopes)

    def _train_all(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Split the participants over threads where the work pays for it."""
        data, first = (
            self._data(minibatch=task.batches is not None),
            np.zeros((0, task.starts.shape[1])),
        )
        if task.batches is None and self._known is not None:
            known, _, gradients = self._known
            first = gradients[task.participants] if (task.starts == known).all() else first
        bounds = thread_bounds(data, self.shape, task.participants, steps=task.local_steps)

        def part(of: slice) -> tuple[Array, LocalTrace | None]:
            return self._train_part(part_of(task, of), data, first[of])

        ends, traces = zip(*in_threads(part, bounds), strict=True)
        if len(ends) == 1:
            return ends[0], traces[0]
        joined = np.concatenate(ends)
        if not task.record:
            return joined, None
        return joined, LocalTrace(
            *(np.concatenate(arrays, axis=1) for arrays in zip(*traces, strict=True))
        )

    def _train_part(
        self, task: LocalTask, data: Data, first: Array
    ) -> tuple[Array, LocalTrace | None]:
        from linattn._kernels.layout import Ridges
        from linattn._kernels.local import Record, Rule, Start, train
        from linattn._kernels.sequences import Wanted

        shape = (task.local_steps if task.record else 0, *task.starts.shape)
        iterates, gradients = np.empty((2, *shape))
        full = gradients if task.batches is None else np.empty(shape)
        ends = train(
            data,
            self.shape,
            Ridges(self.problem.value_ridge, self.problem.kernel_ridge),
            Wanted(False, bool(task.record or task.mask[:, self._kernel].any()), True),
            np.ascontiguousarray(task.participants, dtype=np.int64),
            Start(np.ascontiguousarray(task.starts), first, np.empty(0), len(first) > 0),
            Rule(
                float(task.local_lr),
                float(task.prox),
                np.array(task.anchor),
                task.mask.astype(np.float64),
                np.ascontiguousarray(task.shift),
            ),
            task.local_steps,
            minibatches(data, task.batches),
            Record(iterates, gradients, full),
        )
        return ends, LocalTrace(iterates, gradients, full) if task.record else None

    def _data(self, *, minibatch: bool) -> Data:
        if self._given is not None:
            return self._given
        if minibatch:
            return self.problem.derived(sequence_data)
        return client_data(self.problem, self.layout.shapes["value"][0])

    def metrics(
        self, params: Params, names: tuple[str, ...], *, next_round: bool = False
    ) -> dict[str, float]:
        """Those of `METRICS` that are asked for; gaps by C1, never by subtraction.

        With `next_round` from the gradients of all clients, which the next round needs anyway.
        """
        held, wanted = population(self.problem), set(names)
        out: dict[str, float] = {}
        if {"objective", "kernel_gradient_norm", "value_gradient_norm"} & wanted:
            if next_round:
                losses, gradients = self._everybody(params.flat)
                out["objective"] = float(weighted_sum(self.problem.weights, losses))
                gradient = weighted_sum(self.problem.weights, gradients)
            else:
                out["objective"], gradient = held.value_and_gradient(params)
            out["kernel_gradient_norm"] = float(np.linalg.norm(gradient[self._kernel]))
            out["value_gradient_norm"] = float(np.linalg.norm(gradient[self._value]))
        if {"profile", "gap"} & wanted:
            system = held.value_system(params.kernels())
            out["profile"] = held.profile_value(params, system)
            out["gap"] = held.gap(params, system)
        return {name: out[name] for name in names if name in out}

    def objective(self, client: int, flat: Array) -> float:
        """F_i from the client's statistics."""
        return float(self.gradients(np.array([client]), flat[None])[0][0])

    def features(
        self, client: int, flat: Array, batch: IntArray | None = None
    ) -> Iterator[Features]:
        """U B_h G of every sequence, heads side by side: what V multiplies."""
        yield Features(*self._features.rows(client, flat, batch))

    def predictions(self, client: int, flat: Array) -> Array:
        """Σ_h N B_h G V_h of every sequence, NᵀN = M, (S·q', m)."""
        heads, dim, outputs = self.layout.shapes["value"]
        value = flat[self._value].reshape(heads, dim, outputs)
        (group,) = self.features(client, flat)
        made = (group.rows.reshape(len(group.rows), heads, -1, dim) @ value).sum(axis=1)
        return np.asarray(made.reshape(-1, outputs))

    def with_gates(self, structural: Params) -> Oracle:
        """One layer has no gates."""
        raise TypeError("problem must be a DeepProblem for fed_sq: one layer has no gates.")

    def amount(self, client: int, batch: IntArray | None = None) -> tuple[int, int]:
        """Statistics have no tokens."""
        return 0, self.batch_limit(client) if batch is None else int(batch.size)

    def gradient_work(self, trained: frozenset[str]) -> Work:
        """Multiply-adds on the statistics of sequences, whatever path the code takes."""
        rank_one = self.problem.statistics.query is not None
        return statistics_work(self.layout, trained, rank_one=rank_one)

    def feature_work(self, trained: frozenset[str]) -> Work:
        """Multiply-adds of features and of their gradient in the kernel."""
        return self._features.work(trained)


def part_of(task: LocalTask, chosen: slice) -> LocalTask:
    """The task of some of the participants."""
    return task._replace(
        participants=task.participants[chosen],
        starts=task.starts[chosen],
        mask=task.mask[chosen],
        shift=task.shift[chosen] if len(task.shift) else task.shift,
        batches=None if task.batches is None else task.batches[chosen],
    )
