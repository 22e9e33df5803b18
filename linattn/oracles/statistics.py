"""How a single-layer problem answers for its clients: gradients, local training, objectives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from linattn._threads import available_threads, thread_pool
from linattn._typing import Array, IntArray
from linattn.objectives.forms import SequenceForm
from linattn.objectives.population import Population, client_normal_equations, population
from linattn.oracles.features import StatisticsFeatures
from linattn.oracles.packing import (
    batch_buffer,
    moment_data,
    prefers_client_moments,
    sequence_data,
)
from linattn.oracles.protocol import (
    METRICS,
    Features,
    LocalTask,
    LocalTrace,
    Oracle,
    explicit_steps,
)
from linattn.oracles.work import Work, statistics_work
from linattn.types import Layout, Params, Problem

if TYPE_CHECKING:
    from linattn._kernels.layout import LocalData, LocalShape

# Multiply-adds below which another thread costs more than it saves (about a millisecond).
WORK_PER_THREAD = 10**7


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
        self._features = StatisticsFeatures(problem, layout)
        self._given = data is not None
        # By whether they are moments; `data` stands for the problem's own statistics.
        self._data: dict[bool, LocalData] = {} if data is None else {False: data, True: data}

    def batch_limit(self, client: int) -> int:
        """Number of sequences of a client."""
        return int(self.problem.client_sizes[client])

    def gradient(self, client: int, flat: Array, batch: IntArray | None = None) -> Array:
        """∇F_i, (D,), by one recorded local step of size zero."""
        if not self._is_compiled(batch is not None):
            return self._value_and_gradient(client, flat, batch)[1]
        task = LocalTask.plain(
            np.array([client]), flat[None], local_steps=1, local_lr=0.0, record=True
        )
        _, trace = self.train(task if batch is None else task._replace(batches=[batch[None]]))
        assert trace is not None
        return np.asarray(trace.gradients[0, 0])

    def train(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Local training in compiled code, where there is such code for the statistics."""
        if task.batches is None and self._trains_value_only(task):
            return self._train_value(task)
        if not self._is_compiled(task.batches is not None):
            return explicit_steps(self, task)
        return self._train_all(task)

    def _is_compiled(self, minibatch: bool) -> bool:
        """Whether compiled code knows the form: on sequences, M must be G or have rank one."""
        if self.problem.statistics.moment is None or self._given:
            return True
        return not minibatch and prefers_client_moments(self.problem, self._local_shape().heads)

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
        """Split the participants over threads where the work pays for it.

        Every client is computed alone, so the bits do not depend on the number of threads.
        """
        data = self._local_data(task.batches is not None)
        count = min(self._worthwhile_threads(task, data), len(task.participants))
        if count == 1:
            return self._train_part(task)
        bounds = np.linspace(0, len(task.participants), count + 1).astype(int).tolist()
        parts = [part_of(task, slice(a, b)) for a, b in pairwise(bounds)]
        ends, traces = zip(*thread_pool(count).map(self._train_part, parts), strict=True)
        joined = np.concatenate(ends)
        if not task.record:
            return joined, None
        return joined, LocalTrace(
            *(np.concatenate(arrays, axis=1) for arrays in zip(*traces, strict=True))
        )

    def _worthwhile_threads(self, task: LocalTask, data: LocalData) -> int:
        if data.pair_moments.size or data.moments.size:
            return 1  # a round on moments takes less than a thread's start
        heads, dim, outputs = self.layout.shapes["value"]
        sequences = int(self.problem.client_sizes[task.participants].sum())
        work = sequences * task.local_steps * (5 * heads + 1) * dim**2 * outputs
        return max(1, min(available_threads(), work // WORK_PER_THREAD))

    def _train_part(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        from linattn._kernels.layout import LocalRule
        from linattn._kernels.local import local_round

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
        from linattn._kernels.layout import LocalShape

        heads, dim, outputs = self.layout.shapes["value"]
        rank = self.layout.shapes["query"][-1] if "query" in self.layout.shapes else 0
        return LocalShape(heads, dim, outputs, rank)

    def _local_data(self, minibatch: bool) -> LocalData:
        heads = self._local_shape().heads
        moments = not minibatch and prefers_client_moments(self.problem, heads)
        if moments not in self._data:
            self._data[moments] = (
                moment_data(self.problem, heads) if moments else sequence_data(self.problem)
            )
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

    def objective(self, client: int, flat: Array) -> float:
        """F_i from the client's statistics."""
        return self._value_and_gradient(client, flat)[0]

    def _value_and_gradient(
        self, client: int, flat: Array, batch: IntArray | None = None
    ) -> tuple[float, Array]:
        """F_i and ∇F_i in NumPy, on all or some of the client's sequences."""
        held = self.problem.statistics.take(self.problem.client(client))
        held = held if batch is None else held.take(batch)
        form = SequenceForm(held, np.full(len(held.energy), 1.0 / len(held.energy)))
        return Population(self.problem, form).value_and_gradient(Params(self.layout, flat))

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
