"""Fields that several simulations share: a synthetic problem with a start, or a world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from linattn._fields import Count, Positive
from linattn.data.splits import DATASETS, federated_split
from linattn.data.tokens import problem_from_tokens
from linattn.data.worlds import InitialSpec, ModelSpec, ProblemSpec, World
from linattn.experiments.simulation import Spec
from linattn.federated.method import Method, Proposal, RoundContext, observed
from linattn.federated.methods import fed_avg
from linattn.federated.result import Result
from linattn.federated.rounds import run
from linattn.objectives.steps import safe_step
from linattn.types import Params, Problem

Observe = Callable[[RoundContext, Proposal], None]
REAL_RIDGE = 1e-4


class SyntheticSpec(Spec):
    """What every run on a synthetic problem has.

    One run covers all its `local_steps`: they share the problem, the reference value and the
    synchronized trajectory.
    """

    problem: ProblemSpec = ProblemSpec()
    initial: InitialSpec = InitialSpec()
    rounds: Count = 200
    local_steps: tuple[Count, ...] = (1, 20)
    local_lr: Positive = 0.05

    def __post_init__(self) -> None:
        increasing("local_steps", self.local_steps)

    def cost(self) -> float:
        """Gradient steps of one trajectory per number of local steps, times the data."""
        data = self.problem.num_clients * self.problem.sequences_per_client
        return float(self.rounds * sum(self.local_steps) * data * self.problem.dim**2)

    def prepared(self) -> tuple[Problem, Params]:
        """Return the problem and its initial parameters."""
        problem = self.problem.make(self.seed)
        return problem, self.initial.make(problem, self.seed)

    def after_warmup(self, rounds: int, local_steps: int) -> tuple[Problem, Params]:
        """Return the problem and its parameters after some FedAvg rounds."""
        problem, start = self.prepared()
        result = run(
            fed_avg(),
            problem,
            start,
            rounds=rounds,
            local_steps=local_steps,
            local_lr=self.local_lr,
            metrics=(),
        )
        return problem, result.params


class TrainedKernelSpec(SyntheticSpec):
    """What is measured at one kernel: after `rounds` rounds of `warmup_local_steps` steps."""

    rounds: Count = 10
    warmup_local_steps: Count = 10

    def cost(self) -> float:
        """Gradient steps of the warm-up, times the data."""
        data = self.problem.num_clients * self.problem.sequences_per_client
        return float(self.rounds * self.warmup_local_steps * data * self.problem.dim**2)


class WorldSpec(Spec):
    """The clients that all methods of a run share, so that differences are paired.

    ``data="synthetic"`` is the problem of `linattn.synthetic_problem`; with ``deep`` its tokens and
    targets are those of a deep model. Real data: a Dirichlet split of the digits, and one side of
    every exercise of the watch recordings; there the step is `step_factor` · `linattn.safe_step`.
    """

    data: Literal["synthetic", "digits", "watch"] = "synthetic"
    alpha: Positive = 0.05
    deep: bool = False
    model: ModelSpec = ModelSpec()
    problem: ProblemSpec = ProblemSpec(value_heterogeneity=0.75, covariate_heterogeneity=0.3)
    initial: InitialSpec = InitialSpec()
    rounds: Count = 40
    local_steps: Count = 10
    local_lr: Positive = 0.05
    step_factor: Positive = 2.0

    def __post_init__(self) -> None:
        if self.deep and self.data != "synthetic":
            raise ValueError(f"deep must be false for data {self.data!r}: it has one layer here.")

    def cost(self) -> float:
        """Gradient steps of one trajectory, times the data."""
        if self.data == "synthetic":
            clients = self.problem.num_clients * self.problem.sequences_per_client
            data = clients * self.problem.dim**2
        else:
            data = DATASETS[self.data].work
        return float(self.rounds * self.local_steps * data * (20 if self.deep else 1))

    def world(self) -> World:
        """Return problem, start and step size."""
        if self.data != "synthetic":
            return self._real_world()
        if self.deep:
            return World(*self.model.make(self.problem, self.seed), self.local_lr)
        problem = self.problem.make(self.seed)
        return World(problem, self.initial.make(problem, self.seed), self.local_lr)

    def _real_world(self) -> World:
        alpha = self.alpha if DATASETS[self.data].usual == "dirichlet" else None
        held = federated_split(self.data, alpha=alpha, seed=self.seed)
        problem = problem_from_tokens(
            held.train, readout=held.readout, value_ridge=REAL_RIDGE, kernel_ridge=REAL_RIDGE
        )
        params = self.initial.make(problem, self.seed)
        step = self.step_factor * safe_step(problem, params)
        return World(problem, params, step, held.readout, held.client_tests)

    def train(
        self, method: Method, world: World, *, observe: Observe | None = None, **more: Any
    ) -> Result:
        """Run a method in a world; `observe` sees every proposal before it is aggregated."""
        settings: dict[str, Any] = {
            "rounds": self.rounds,
            "local_steps": self.local_steps,
            "local_lr": world.local_lr,
            "seed": self.seed,
        }
        if observe is not None:
            method = observed(method, observe)
        start = more.pop("params", world.params)
        return run(method, world.problem, start, **settings | more)


def increasing(name: str, values: tuple[Any, ...], *, most: int | None = None) -> None:
    """Refuse lists that are empty, not strictly increasing, or exceed the rounds.

    Raises
    ------
    ValueError
        One sentence.
    """
    if not values or list(values) != sorted(set(values)):
        raise ValueError(f"{name} must be strictly increasing, at least one, got {list(values)}.")
    if most is not None and values[-1] > most:
        raise ValueError(f"{name} must be at most rounds = {most}, got {values[-1]}.")


def distinct(name: str, values: tuple[Any, ...]) -> None:
    """Refuse lists that are empty or repeat an entry.

    Raises
    ------
    ValueError
        One sentence.
    """
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{name} must be distinct, at least one, got {list(values)}.")


def warmup_grid(rounds: int, count: int) -> tuple[int, ...]:
    """Return at most `count` warm-up lengths: 0, 1, 2, 3, 5, 8, then geometric up to `rounds`.

    Examples
    --------
    >>> warmup_grid(200, 12)
    (0, 1, 2, 3, 5, 8, 14, 23, 40, 68, 117, 200)
    """
    head = [t for t in (0, 1, 2, 3, 5, 8)[: count - 1] if t < rounds]
    tail = count - len(head)
    first = max(head[-1], 1)
    ratio = (rounds / first) ** (1.0 / tail)
    grown = [round(first * ratio**k) for k in range(1, tail)]
    return tuple(sorted({*head, *grown, rounds}))
