"""Fields that several simulations share: a synthetic problem with a start, a regime, or a world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from msgspec.structs import replace

from linattn._checks import MOST_ENTRIES, one_of
from linattn._fields import Count, Positive
from linattn.analysis.study_cell import default_grid
from linattn.data.splits import CLASSIFIED, DATASETS, federated_split
from linattn.data.tokens import problem_from_tokens
from linattn.data.worlds import InitialSpec, ModelSpec, ProblemSpec, World
from linattn.experiments.simulation import Grid, Spec
from linattn.experiments.tuning import FACTORS, Tuned, best_step, near
from linattn.federated import fed_avg
from linattn.federated.method import Method, Proposal, RoundContext, observed
from linattn.federated.result import Result
from linattn.federated.rounds import run
from linattn.objectives.reference import Reference, reference_value
from linattn.objectives.steps import safe_step
from linattn.types import Params, Problem

S = TypeVar("S", bound=Spec)
Observe = Callable[[RoundContext, Proposal], None]
REAL_RIDGE = 1e-4
SETTLED = 0.01
"""Share of its whole fall that a settled objective falls by in the last tenth of the rounds."""
TARGET, COVARIATE = "problem.value_heterogeneity", "problem.covariate_heterogeneity"
KERNEL = "problem.kernel_heterogeneity"
WORLDS = ((0.0, 0.3), (0.4, 0.3), (0.75, 0.0), (0.75, 0.3), (1.5, 0.3))
"""Target and covariate heterogeneity of the regimes; the first has no trade-off."""
LOCAL_LRS = (0.001, 0.002, 0.004, 0.006, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.16)
"""Step sizes among which the best is sought in these regimes."""
HETEROGENEOUS = ProblemSpec(value_heterogeneity=0.75, covariate_heterogeneity=0.3)
FACTORED = InitialSpec(kernel="factored", rank=3)
FEW_SEQUENCES = replace(HETEROGENEOUS, sequences_per_client=16)
"""All clients, for deep models, whose gradients take long."""
FEW_CLIENTS = replace(FEW_SEQUENCES, num_clients=4)
SMALL = ProblemSpec(
    num_clients=3, sequences_per_client=6, num_tokens=5, dim=3, value_heterogeneity=0.75
)
"""For tests: a run takes a moment."""


class SyntheticSpec(Spec):
    """What every run on a synthetic problem has."""

    problem: ProblemSpec = ProblemSpec()
    initial: InitialSpec = InitialSpec()
    local_lr: Positive = 0.05

    def cost(self) -> float:
        """Gradient steps of one trajectory, times the data."""
        data = self.problem.num_clients * self.problem.sequences_per_client
        return float(self.num_steps() * data * self.problem.dim**2)

    def num_steps(self) -> int:
        """Gradient steps of one trajectory."""
        return 100

    def prepared(self) -> tuple[Problem, Params]:
        """Return the problem and its initial parameters, which runs of one world share."""
        return _prepared(self.problem, self.initial, self.seed)

    def reference(self, num_starts: int) -> Reference:
        """Return the reference value of P, which runs of one world share."""
        return _reference(self.problem, self.initial, self.seed, num_starts)


# A worker comes to the runs of a world one after the other, or nearly so; references are dear to
# find and small to keep.
@lru_cache(maxsize=32)
def _prepared(problem: ProblemSpec, initial: InitialSpec, seed: int) -> tuple[Problem, Params]:
    made = problem.make(seed)
    return made, initial.make(made, seed)


@lru_cache(maxsize=256)
def _reference(problem: ProblemSpec, initial: InitialSpec, seed: int, num_starts: int) -> Reference:
    made, start = _prepared(problem, initial, seed)
    return reference_value(made, like=start, num_starts=num_starts, seed=seed)


class KernelSpec(SyntheticSpec):
    """What is measured at one kernel: after `warmup_rounds` rounds of `warmup_local_steps` steps.

    One run covers all its `local_steps`.
    """

    local_steps: tuple[Count, ...] = (1, 20)
    warmup_rounds: Count = 10
    warmup_local_steps: Count = 10

    def __post_init__(self) -> None:
        increasing("local_steps", self.local_steps)

    def num_steps(self) -> int:
        """Those of the warm-up."""
        return self.warmup_rounds * self.warmup_local_steps

    def after_warmup(self) -> tuple[Problem, Params]:
        """Return the problem and its parameters after the warm-up."""
        problem, start = self.prepared()
        result = run(
            fed_avg(),
            problem,
            start,
            rounds=self.warmup_rounds,
            local_steps=self.warmup_local_steps,
            local_lr=self.local_lr,
            metrics=(),
        )
        return problem, result.params


class RegimeSpec(SyntheticSpec):
    """A regime of the trade-off: η, E and the horizon τ_R = ηER decide the number of rounds.

    The trade-off depends on η and E through the drift number s = η(E − 1)/2 and the warm-up time
    τ = ηET alone, up to corrections of the order of s² and of η.
    """

    local_lr: Positive = 0.02
    local_steps: Count = 11
    horizon: Positive = 60.0

    def __post_init__(self) -> None:
        if self.horizon / (self.local_lr * self.local_steps) > MOST_ENTRIES:
            raise ValueError(
                f"horizon must be at most {MOST_ENTRIES:,} rounds of local_lr × local_steps, got "
                f"{self.horizon:g} at {self.local_lr:g} × {self.local_steps}."
            )

    @property
    def rounds(self) -> int:
        """R = τ_R/(ηE), rounded."""
        return max(1, round(self.horizon / (self.local_lr * self.local_steps)))

    @property
    def drift(self) -> float:
        """The drift number s."""
        return 0.5 * self.local_lr * (self.local_steps - 1)

    def num_steps(self) -> int:
        """τ_R/η."""
        return self.rounds * self.local_steps

    def lengths(self) -> tuple[int, ...]:
        """Every warm-up length up to 200, else 200 of them."""
        return default_grid(self.rounds)

    def settings(self) -> dict[str, Any]:
        """E and η, as functions take them."""
        return {"local_steps": self.local_steps, "local_lr": self.local_lr}


def pairs(drifts: Iterable[float], *steps: float) -> list[tuple[float, int]]:
    """Return (η, E) with E = 1 + 2s/η for every step size η and drift number s.

    Examples
    --------
    >>> pairs((0.0, 0.1), 0.01, 0.02)
    [(0.01, 1), (0.01, 21), (0.02, 1), (0.02, 11)]
    """
    listed = list(drifts)
    return [(eta, round(1.0 + 2.0 * s / eta)) for eta in steps for s in listed]


def regimes(
    base: S,
    chosen: Iterable[tuple[float, int]],
    *,
    seeds: int = 1,
    worlds: Iterable[tuple[float, float]] = WORLDS,
    **axes: Sequence[Any],
) -> list[Grid]:
    """Return the grids of a `RegimeSpec` in some worlds, at some (η, E), over seeds.

    `axes` are further fields, with ``__`` for the dot.
    """
    listed = list(chosen)
    more = {name.replace("__", "."): values for name, values in axes.items()}
    return [
        Grid(base, {TARGET: [target], COVARIATE: [covariate], "local_lr": [eta],
                    "local_steps": [count], **more, "seed": range(seeds)})
        for target, covariate in worlds for eta, count in listed
    ]  # fmt: skip


class WorldSpec(Spec):
    """The clients that all methods of a run share, so that differences are paired.

    ``data="synthetic"`` is the problem of `linattn.synthetic_problem`; with ``deep`` its tokens and
    targets are those of a deep model. Real data: a Dirichlet split of the digits, and one side of
    every exercise of the watch recordings. FedAvg is run at `factors` times the unit step,
    `linattn.safe_step` for one layer and `deep_step` for deep models, other methods near the best
    of those, all at further ones until their best is inside; the best has the smallest training
    objective at the end. The number of rounds is
    doubled from `rounds` up to `most_rounds`, until FedAvg at its best step falls by less than 1 %
    of its whole fall in the last tenth of them.
    """

    data: str = "synthetic"
    alpha: Positive = 0.05
    deep: bool = False
    model: ModelSpec = ModelSpec()
    problem: ProblemSpec = HETEROGENEOUS
    initial: InitialSpec = InitialSpec()
    rounds: Count = 25
    most_rounds: Count = 25
    local_steps: Count = 10
    factors: tuple[Positive, ...] = FACTORS
    deep_step: Positive = 0.01

    def __post_init__(self) -> None:
        one_of("data", self.data, ("synthetic", *CLASSIFIED))
        if self.deep and self.data != "synthetic":
            raise ValueError(f"deep must be false for data {self.data!r}: it has one layer here.")
        increasing("factors", self.factors)
        if self.most_rounds < self.rounds:
            raise ValueError(
                f"most_rounds must be at least rounds = {self.rounds}, got {self.most_rounds}."
            )

    def cost(self) -> float:
        """Gradient steps of one trajectory at every step size, times the data."""
        if self.data == "synthetic":
            clients = self.problem.num_clients * self.problem.sequences_per_client
            data = clients * self.problem.dim**2
        else:
            data = DATASETS[self.data].work * self.initial.num_heads
        steps = self.most_rounds * self.local_steps * len(self.factors)
        return float(steps * data * (20 if self.deep else 1))

    def world(self) -> World:
        """Return problem, start and unit step."""
        if self.deep:
            return World(*self.model.make(self.problem, self.seed), self.deep_step)
        return single_layer_world(self.data, self.problem, self.initial, self.alpha, self.seed)

    def train(
        self, method: Method, world: World, *, observe: Observe | None = None, **more: Any
    ) -> Result:
        """Run a method at the unit step; `observe` sees every proposal before it is aggregated."""
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

    def tuned(
        self,
        method: Method,
        world: World,
        *,
        factors: Sequence[float] = (),
        personal: bool = True,
        **more: Any,
    ) -> Tuned[Result]:
        """Run a method at its best step: by the objective of the models that clients use."""
        measured = "personal_objective" if personal and method.personal is not None else "objective"
        more["metrics"] = tuple(dict.fromkeys((*more.get("metrics", ()), measured)))

        def run_at(factor: float) -> tuple[Result, float]:
            result = self.train(method, world, local_lr=factor * world.local_lr, **more)
            completed = result.outcome.status == "completed"
            return result, float(result.columns[measured][-1]) if completed else float("inf")

        return best_step(run_at, factors or self.factors)

    def tuned_in_turn(
        self, methods: Iterable[Method], world: World, *, factors: Sequence[float] = (), **more: Any
    ) -> Iterator[Tuned[Result]]:
        """Run relatives at their best steps, looked for around that of the one before."""
        for method in methods:
            found = self.tuned(method, world, factors=factors, **more)
            factors = near(found.factor)
            yield found

    def settled(self, world: World) -> int:
        """Return the number of rounds after which FedAvg at its best step has settled."""
        rounds = self.rounds
        while rounds < self.most_rounds:
            tuned = self.tuned(fed_avg(), world, rounds=rounds)
            if tuned.loss == float("inf"):
                break
            objective = tuned.found.columns["objective"]
            last = objective[-1 - max(1, rounds // 10)] - objective[-1]
            if last < SETTLED * (objective[0] - objective[-1]):
                break
            rounds = min(2 * rounds, self.most_rounds)
        return rounds


def single_layer_world(
    data: str, spec: ProblemSpec, initial: InitialSpec, alpha: float, seed: int
) -> World:
    """Return a synthetic problem or real clients with a start, and the safe step there."""
    if data == "synthetic":
        problem, tested = spec.make(seed), tuple[Any, ...]()
    else:
        concentration = alpha if DATASETS[data].usual == "dirichlet" else None
        held = federated_split(data, alpha=concentration, seed=seed)
        problem = problem_from_tokens(
            held.train, readout=held.readout, value_ridge=REAL_RIDGE, kernel_ridge=REAL_RIDGE
        )
        tested = held.readout, held.client_tests
    params = initial.make(problem, seed)
    return World(problem, params, safe_step(problem, params), *tested)


def increasing(
    name: str, values: tuple[Any, ...], *, most: float | None = None, limit: str = "rounds"
) -> None:
    """Refuse lists that are empty, not strictly increasing, or exceed a limit.

    Raises
    ------
    ValueError
        One sentence.
    """
    if not values or list(values) != sorted(set(values)):
        raise ValueError(f"{name} must be strictly increasing, at least one, got {list(values)}.")
    if most is not None and values[-1] > most:
        raise ValueError(f"{name} must be at most {limit} = {most:g}, got {values[-1]}.")


def distinct(name: str, values: tuple[Any, ...]) -> None:
    """Refuse lists that are empty or repeat an entry.

    Raises
    ------
    ValueError
        One sentence.
    """
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{name} must be distinct, at least one, got {list(values)}.")
