"""Local steps of single-layer problems in compiled code, client by client and round by round."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from linattn._threads import in_threads, one_blas_thread
from linattn._typing import Array, IntArray
from linattn.linalg import weighted_spread, weighted_sum
from linattn.objectives.clients import (
    WORK_PER_THREAD,
    client_gradients,
    full_work,
    minibatches,
    new_course,
    no_rounds,
    plain,
    shape_of,
    thread_bounds,
)
from linattn.objectives.packing import client_data, sequence_data
from linattn.objectives.population import client_normal_equations
from linattn.oracles.protocol import Draws, Evaluated, LocalTask, LocalTrace, Rounds
from linattn.types import Layout, Params, Problem

if TYPE_CHECKING:
    from linattn._kernels.layout import Data
    from linattn._kernels.local import Course, Rule

# Rounds in one call: a bound of what is computed in vain after a divergence, and of memory.
MAX_ROUNDS = 256
MAX_NUMBERS = 2**20


class Known(NamedTuple):
    """What is remembered of one server point: F_i, (C,), and ∇F_i, (C, D), of all clients."""

    point: Array
    objectives: Array
    gradients: Array


class CompiledTraining:
    """Gradients and local steps of the clients of a problem.

    Rounds that train the value block alone (full batches) run on A_i and C_i, which are all of F_i
    at a fixed kernel. Gradients of everybody at one point are remembered: what the history asks for
    is the first step of the next round.

    Parameters
    ----------
    problem : Problem
    layout : Layout
    data : Data, optional
        Stands for the problem's own statistics.
    """

    def __init__(self, problem: Problem, layout: Layout, data: Data | None = None) -> None:
        self.problem = problem
        self.layout = layout
        self.value = layout.slices["value"]
        self.kernel = slice(0, self.value.start)
        self.shape = shape_of(layout)
        self._given = data
        self._systems: tuple[bytes, Array, Array] | None = None
        self._known: Known | None = None

    def gradients(
        self, clients: IntArray, points: Array, batches: list[IntArray] | None = None
    ) -> tuple[Array, Array]:
        """F_i of clients[k] at points[k], (P,), and its gradient there, (P, D)."""
        ridges = self.problem.value_ridge, self.problem.kernel_ridge
        data = self._data(minibatch=batches is not None)
        return client_gradients(data, self.shape, clients, points, ridges=ridges, batches=batches)

    def everybody(self, flat: Array) -> Known:
        """F_i and ∇F_i of all clients at one point, remembered until another is asked for."""
        if not self._is_known(flat):
            everybody = np.arange(self.problem.num_clients)
            self._known = Known(flat, *self.gradients(everybody, flat[None]))
        assert self._known is not None
        return self._known

    def _is_known(self, starts: Array) -> bool:
        """Whether all start where everybody is remembered."""
        return self._known is not None and bool((starts == self._known.point).all())

    def train(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Run the local steps of a task."""
        if self._trains_value_only(task):
            return self._train_value(task)
        return self._train_all(task)

    def _trains_value_only(self, task: LocalTask) -> bool:
        kernel, value = self.kernel, self.value
        if task.batches is not None or task.mask[:, kernel].any() or not task.mask[:, value].all():
            return False
        return bool((task.starts[:, kernel] == task.starts[:1, kernel]).all())

    def _train_value(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        value, steps = self.value, task.local_steps if task.record else 0
        iterates, gradients = np.empty((2, steps, len(task.starts), value.stop - value.start))
        ends = task.starts.copy()
        ends[:, value] = self._value_steps(task, record=(iterates, gradients))
        if not task.record:
            return ends, None
        places = np.tile(task.starts, (steps, 1, 1))
        places[..., value] = iterates
        slopes = np.zeros_like(places)
        slopes[..., value] = gradients
        return ends, LocalTrace(places, slopes, slopes)

    def _value_steps(
        self,
        task: LocalTask,
        *,
        record: tuple[Array, Array] | None = None,
        course: Course | None = None,
    ) -> Array:
        """Where gradient steps on ½⟨V, A_iV⟩ − ⟨C_i, V⟩ end, (P, Hd·m); (Hd)² m each.

        The record is filled with the places and the gradients there, without prox and shift. Whole
        rounds fill their course; the task then starts as many as take part at once.
        """
        from linattn._kernels.local import Record, train_values

        hessians, linears = self._client_systems(task.starts[0])
        clients = np.asarray(task.participants, dtype=np.int64)
        if clients.size and not 0 <= clients.min() <= clients.max() < len(hessians):
            raise IndexError(f"clients must be below {len(hessians)}, got {clients.tolist()}.")
        starts = plain(task.starts[:, self.value])
        nothing = np.zeros((0, *starts.shape))
        places, slopes = (nothing, nothing) if record is None else record
        with one_blas_thread():
            return np.asarray(
                train_values(
                    plain(hessians),
                    plain(linears),
                    plain(clients),
                    starts,
                    rule_of(task, self.value),
                    task.local_steps,
                    Record(places, slopes, nothing),
                    no_rounds(starts.shape[1]) if course is None else course,
                )
            )

    def _client_systems(self, flat: Array) -> tuple[Array, Array]:
        """A_i and C_i of all clients at the kernel of `flat`, remembered while it is frozen."""
        key = flat[self.kernel].tobytes()
        if self._systems is None or self._systems[0] != key:
            kernels = Params(self.layout, flat).kernels()
            hessians, linears = client_normal_equations(self.problem, kernels)
            hessians = hessians + self.problem.value_ridge * np.eye(hessians.shape[-1])
            self._systems = (key, hessians, linears)
        return self._systems[1], self._systems[2]

    def _train_all(self, task: LocalTask) -> tuple[Array, LocalTrace | None]:
        """Split the participants over threads where the work pays for it."""
        minibatch = task.batches is not None
        data = self._data(minibatch=minibatch)
        shape = (task.local_steps if task.record else 0, *task.starts.shape)
        iterates, gradients = np.empty((2, *shape))
        trace = LocalTrace(iterates, gradients, np.empty(shape) if minibatch else gradients)
        ends = np.empty(task.starts.shape)

        def part(of: slice) -> None:
            own = LocalTrace(*(np.ascontiguousarray(array[:, of]) for array in trace))
            ends[of] = self._run(task.of(of), data, own, no_rounds(task.starts.shape[1]))
            for array, filled in zip(trace, own, strict=True):
                array[:, of] = filled

        steps, participants = task.local_steps, task.participants
        in_threads(part, thread_bounds(data, self.shape, participants, steps=steps))
        return ends, trace if task.record else None

    def _run(
        self,
        task: LocalTask,
        data: Data,
        record: LocalTrace,
        course: Course,
        *,
        asks: bool = True,
    ) -> Array:
        """One compiled call; whole rounds leave their first gradients in `course`, if it asks."""
        from linattn._kernels.layout import Ridges
        from linattn._kernels.local import Record, Start, train
        from linattn._kernels.sequences import Wanted

        tells = asks and len(course.drifts) > 0
        known = asks and task.batches is None and self._is_known(task.starts)
        objectives, first = np.empty(len(task.starts)), np.empty((0, task.starts.shape[1]))
        if known:
            assert self._known is not None
            chosen = task.participants[: len(task.starts)]
            objectives, first = self._known.objectives[chosen], self._known.gradients[chosen]
        elif tells:
            first = np.empty(task.starts.shape)
        trains_kernel = bool(task.mask[:, self.kernel].any())
        with one_blas_thread():
            ends: Array = train(
                data,
                self.shape,
                Ridges(self.problem.value_ridge, self.problem.kernel_ridge),
                Wanted(tells, trains_kernel or task.record or tells, True),
                plain(np.asarray(task.participants, dtype=np.int64)),
                Start(plain(task.starts), first, objectives, known),
                rule_of(task),
                task.local_steps,
                minibatches(data, task.batches),
                Record(*record),
                course,
            )
        return ends

    def together(self, task: LocalTask) -> int:
        """How many whole rounds one call may run: one where threads would share its work."""
        data = self._data(minibatch=False)
        work = full_work(data, self.shape, task.participants, steps=task.local_steps)
        if work >= 2 * WORK_PER_THREAD and not data.width:
            return 1
        by_work = 20 * WORK_PER_THREAD // max(work, 1)
        return max(1, min(MAX_ROUNDS, by_work, MAX_NUMBERS // self.layout.size))

    def rounds(self, task: LocalTask, draws: Draws, pushes: Array | None = None) -> Rounds:
        """Run whole rounds like `task`, which is the first, of all draws in one compiled call.

        To what rounds of all blocks reach, rows of `pushes`, (N, D), are added if given.
        """
        flat, count = task.starts[0], len(draws.offsets) - 1
        only_value = pushes is None and self._trains_value_only(task)
        task = task._replace(
            participants=draws.clients,
            starts=np.tile(flat, (draws.most, 1)),
            mask=np.tile(task.mask[0], (draws.most, 1)),
        )
        if only_value:
            course = new_course(draws.weights, draws.offsets, flat[self.value])
            self._value_steps(task, course=course)
            path = np.tile(flat, (count, 1))
            path[:, self.value] = course.path[1:]
            for t in range(1 if draws.everybody else count):
                # What rounding leaves, as in single rounds.
                weights = draws.round(t)[1]
                kernels = task.starts[: len(weights), self.kernel]
                spread = weighted_spread(weights, kernels, weighted_sum(weights, kernels))
                course.drifts[t:, 0] = spread
            return Rounds(path, course.drifts, None)
        data, shape = self._data(minibatch=False), (0, *task.starts.shape)
        course = new_course(draws.weights, draws.offsets, flat, pushes)
        nothing, everybody = np.empty(shape), draws.everybody
        self._run(task, data, LocalTrace(nothing, nothing, nothing), course, asks=everybody)
        starts = Evaluated(course.objectives, course.gradients) if everybody else None
        return Rounds(course.path[1:], course.drifts, starts)

    def _data(self, *, minibatch: bool) -> Data:
        if self._given is not None:
            return self._given
        if minibatch:
            return self.problem.derived(sequence_data)
        return client_data(self.problem, self.shape.heads)


def rule_of(task: LocalTask, entries: slice = slice(None)) -> Rule:
    """What the local steps of a task do to some entries, as compiled code reads it."""
    from linattn._kernels.local import Rule

    mask = task.mask[:, entries].astype(np.float64, order="C")
    anchor, shift = plain(task.anchor[entries]), plain(task.shift[:, entries])
    return Rule(float(task.local_lr), float(task.prox), anchor, mask, shift)
