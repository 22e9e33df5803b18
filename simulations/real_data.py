"""FedAvg and FedFrozen on two real data sets: digits by form sheet, watch recordings by subject.

Every run has all warm-up lengths and numbers of local steps of one split, start and number of
heads. Run ``python simulations/real_data.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from msgspec import Meta

import linattn as la
from linattn._fields import Count, Index, Positive
from linattn._typing import Array, IntArray
from linattn.analysis.regret import best_length
from linattn.data.sequences import one_hot
from linattn.data.splits import DATASETS, check_split, federated_split
from linattn.data.worlds import InitialSpec
from linattn.experiments import Grid, Simulation, Spec
from linattn.experiments.specs import (
    increasing,
    warmup_grid,
)
from linattn.experiments.tables import (
    Variables,
    along,
    reference_variables,
    single,
    stacked,
)
from linattn.objectives.reference import local_minimum

if TYPE_CHECKING:
    import xarray as xr

UNITS = {
    "objective_simulated": "loss",
    "test_loss": "loss",
    "refit_test_loss": "loss",
    "safe_step": "1/curvature",
    "step": "1/curvature",
    "warmup_star": "rounds",
    "attempt_local_steps": "local steps",
    "attempt_warmup": "rounds",
    "attempt_round": "rounds",
}
MOST_HALVINGS = 60
RISING = 1e-9
"""Relative rise per round that is growth, not rounding or the last bit of settling."""


class HeldOut(NamedTuple):
    """Test sequences as statistics: Gram matrices, mean tokens, one-hot targets and labels."""

    gram: Array
    query: Array
    target: Array
    labels: IntArray


class Curve(NamedTuple):
    """One simulated run: every round from 0 on, and where it ended.

    `diverged` is the round at which it diverged, −1 if it did not; then the arrays end there.
    """

    local_steps: int
    warmup: int
    objective: Array
    accuracy: Array
    loss: Array
    diverged: int


class Attempt(NamedTuple):
    """All runs at one step factor, with the warm-up paths; the last one may have diverged."""

    factor: float
    curves: list[Curve]
    paths: dict[int, list[la.Params]]

    @property
    def diverged(self) -> bool:
        """Whether its last run diverged, so that the factor must be halved."""
        return self.curves[-1].diverged >= 0


class RealDataSpec(Spec):
    """FedAvg and FedFrozen over warm-up lengths on a shipped data set, with test quantities.

    The step size is `step_factor` · `linattn.safe_step` at the start for all methods; whenever one
    run diverges, the factor is halved for all and everything is repeated. `reference` is how P_ref
    is found: "multi_start" is `linattn.reference_value` with `num_starts` starts, "descent" is one
    L-BFGS descent on P from the start, of at most `reference_iterations` iterations.
    """

    data: Literal["digits", "watch"] = "digits"
    split: str = "dirichlet"
    alpha: Positive | None = None
    initial: InitialSpec = InitialSpec(scale=1.0)
    value_ridge: Positive = 1e-4
    kernel_ridge: Positive = 1e-4
    rounds: Count = 200
    local_steps: tuple[Count, ...] = (1, 20)
    step_factor: Positive = 2.0
    frozen_lr: Positive | Literal["safe"] | None = None
    num_lengths: Annotated[int, Meta(ge=2)] = 8
    warmup_lengths: tuple[Index, ...] = ()
    reference: Literal["descent", "multi_start"] = "descent"
    reference_iterations: Count = 200
    num_starts: Count = 2

    def __post_init__(self) -> None:
        increasing("local_steps", self.local_steps)
        if self.warmup_lengths:
            increasing("warmup_lengths", self.warmup_lengths, most=self.rounds)
        check_split(self.data, self.split, alpha=self.alpha)

    def lengths(self) -> tuple[int, ...]:
        """The warm-up lengths of this run; `rounds`, which is FedAvg, is always there."""
        given = self.warmup_lengths or warmup_grid(self.rounds, self.num_lengths)
        return tuple(sorted({*given, self.rounds}))

    def cost(self) -> float:
        """Gradient steps of one warm-up per number of local steps, times heads and data."""
        steps = self.rounds * sum(self.local_steps)
        return float(steps * self.initial.num_heads * DATASETS[self.data].work)

    def prepared(self) -> tuple[la.Problem, la.Params, HeldOut]:
        """Return the training problem, the start, and the test set."""
        data = federated_split(self.data, self.split, alpha=self.alpha, seed=self.seed)

        def stated(clients: list[tuple[Array, Array]]) -> la.Problem:
            return la.problem_from_tokens(
                clients,
                readout=data.readout,
                value_ridge=self.value_ridge,
                kernel_ridge=self.kernel_ridge,
            )

        problem = stated(data.train)
        tokens, labels = data.test
        held = stated([(tokens, one_hot(labels, len(data.class_names)))]).statistics
        assert held.query is not None
        assert held.target is not None
        params = self.initial.make(problem, self.seed)
        return problem, params, HeldOut(held.gram, held.query, held.target, labels)


def run(spec: RealDataSpec) -> xr.Dataset:
    """Return the simulated runs of every number of local steps and warm-up length, and C9.

    Dimensions: `local_steps`; `warmup`, whose last entry R is FedAvg; `round` = 0..R; `attempt`,
    one per step factor tried. Besides the columns of `linattn.bias_drift` on the training problem:

    - ``objective_simulated``, ``test_accuracy``, ``test_loss``: at the end of the simulated run;
      ``stability``: standard deviation of test accuracy over the last R/10 rounds;
    - ``refit_test_accuracy``, ``refit_test_loss``: with V* at B_T, the ceiling; at T = R the final
      kernel of FedAvg;
    - ``accuracy_rounds``, ``loss_rounds``, ``objective_rounds``: along rounds, simulated;
    - ``attempt_*``: step factors tried in turn; which run diverged first and when (−1: none did),
      and its training objective.
    """
    problem, params, test = spec.prepared()
    step = la.safe_step(problem, params)
    attempts = settle(spec, problem, params, test, step)
    final = attempts[-1]
    reference = find_reference(spec, problem, params)
    target = float(reference["reference"][1])
    parts = [
        _panel(spec, problem, test, final, target, steps, final.factor * step)
        for steps in spec.local_steps
    ]
    values = {
        "safe_step": step,
        "step_factor": final.factor,
        "step": final.factor * step,
        "num_clients": problem.num_clients,
        "num_train": problem.num_sequences,
        "num_test": len(test.labels),
    }
    whole = stacked(parts, spec.local_steps)
    return whole.assign(reference | single(values, UNITS) | _attempt_variables(spec, attempts))


def find_reference(spec: RealDataSpec, problem: la.Problem, params: la.Params) -> Variables:
    """Return P_ref and what is known about it, by the way that the spec names."""
    if spec.reference == "multi_start":
        return reference_variables(
            la.reference_value(problem, like=params, num_starts=spec.num_starts, seed=spec.seed)
        )
    value, norm = local_minimum(problem, params, max_iterations=spec.reference_iterations)
    return reference_variables(la.Reference(value, params, norm, 1, None, False))


def _panel(
    spec: RealDataSpec,
    problem: la.Problem,
    test: HeldOut,
    final: Attempt,
    reference: float,
    local_steps: int,
    local_lr: float,
) -> xr.Dataset:
    """All warm-up lengths at one number of local steps."""
    path = final.paths[local_steps]
    table = la.bias_drift(
        problem,
        path[0],
        warmup_lengths=spec.lengths(),
        rounds=spec.rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        frozen_lr=spec.frozen_lr,
        reference=reference,
        path=path,
    )
    curves = {c.warmup: c for c in final.curves if c.local_steps == local_steps}
    ordered = [curves[length] for length in spec.lengths()]
    rows = [_ending(spec, problem, test, path[c.warmup], c) for c in ordered]
    lines = {
        "accuracy_rounds": ([c.accuracy for c in ordered], "1"),
        "loss_rounds": ([c.loss for c in ordered], "loss"),
        "objective_rounds": ([c.objective for c in ordered], "loss"),
    }
    found = table.assign(along("warmup", rows, UNITS)).assign(
        {
            name: (("warmup", "round"), np.stack(values), {"units": unit})
            for name, (values, unit) in lines.items()
        }
    )
    found = found.assign_coords(round=np.arange(spec.rounds + 1))
    return found.assign(single({"warmup_star": best_length(table)}, UNITS))


def _ending(
    spec: RealDataSpec, problem: la.Problem, test: HeldOut, reached: la.Params, curve: Curve
) -> dict[str, float]:
    """What a run ends with, and what V* at its kernel would give."""
    best = la.KernelProfile(problem).minimizer(reached)
    ceiling = measure(test, features(test, reached.kernels()), best)
    last = max(2, spec.rounds // 10)  # one round has no spread
    return {
        "objective_simulated": float(curve.objective[-1]),
        "test_accuracy": float(curve.accuracy[-1]),
        "test_loss": float(curve.loss[-1]),
        "stability": float(np.std(curve.accuracy[-last:])),
        "refit_test_accuracy": ceiling["accuracy"],
        "refit_test_loss": ceiling["loss"],
    }


def _attempt_variables(spec: RealDataSpec, attempts: list[Attempt]) -> dict[str, Any]:
    """Step factors tried, and the run that diverged first at each of them."""
    none = np.full(spec.rounds + 1, np.nan)
    rows = [
        {
            "attempt_step_factor": tried.factor,
            "attempt_local_steps": tried.curves[-1].local_steps if tried.diverged else -1,
            "attempt_warmup": tried.curves[-1].warmup if tried.diverged else -1,
            "attempt_round": tried.curves[-1].diverged,
        }
        for tried in attempts
    ]
    lost = np.stack([t.curves[-1].objective if t.diverged else none for t in attempts])
    data: dict[str, Any] = dict(along("attempt", rows, UNITS))
    data["attempt_objective"] = (("attempt", "round"), lost, {"units": "loss"})
    return data


def features(test: HeldOut, kernels: Array) -> Array:
    """Return G B_hᵀ u of every test sequence, (S, Hd): predictions are these times V."""
    pulled = np.tensordot(test.query, kernels, (1, 1))  # (S, H, d): B_hᵀ u
    return np.asarray((pulled @ test.gram).reshape(len(pulled), -1))


def measure(test: HeldOut, held: Array, value: Array) -> dict[str, float]:
    """Return test accuracy and mean test loss ½‖ŷ − y‖² from the features at a kernel."""
    prediction = held @ value.reshape(-1, value.shape[-1])
    error = prediction - test.target
    right = prediction.argmax(axis=1) == test.labels
    return {"accuracy": float(right.mean()), "loss": 0.5 * float(np.vdot(error, error)) / len(held)}


def settle(
    spec: RealDataSpec, problem: la.Problem, params: la.Params, test: HeldOut, step: float
) -> list[Attempt]:
    """Try step factors s, s/2, s/4, … until no run diverges; return all attempts.

    Raises
    ------
    ValueError
        If runs still diverge after `MOST_HALVINGS` halvings.
    """
    factor, attempts = spec.step_factor, []
    for _ in range(MOST_HALVINGS + 1):
        attempts.append(attempt(spec, problem, params, test, factor, step))
        if not attempts[-1].diverged:
            return attempts
        factor *= 0.5
    raise ValueError(
        f"step_factor must be small enough for a run that does not diverge, but {MOST_HALVINGS} "
        f"halvings of {spec.step_factor:g} were not enough."
    )


def attempt(
    spec: RealDataSpec,
    problem: la.Problem,
    params: la.Params,
    test: HeldOut,
    factor: float,
    step: float,
) -> Attempt:
    """Simulate every method at one step size, until the first one diverges."""
    tried = Attempt(factor, [], {})
    # The largest number of local steps diverges first, so that a bad factor costs little.
    for steps in reversed(spec.local_steps):
        result, curve = fed_avg_curve(spec, problem, params, test, steps, factor * step)
        tried.curves.append(curve)
        if tried.diverged:
            return tried
        tried.paths[steps] = result.path
        for length in spec.lengths()[:-1]:
            tried.curves.append(
                fed_frozen_curve(spec, problem, test, result.path, curve, length, factor * step)
            )
            if tried.diverged:
                return tried
    return tried


def fed_avg_curve(
    spec: RealDataSpec,
    problem: la.Problem,
    params: la.Params,
    test: HeldOut,
    local_steps: int,
    local_lr: float,
) -> tuple[la.Result, Curve]:
    """Simulate FedAvg, which is also the warm-up of every length."""
    result = la.run(
        la.fed_avg(),
        problem,
        params,
        rounds=spec.rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        record_params=True,
        metrics=("objective",),
        evaluate=lambda reached: measure(test, features(test, reached.kernels()), reached.value),
    )
    columns = {name: np.asarray(column) for name, column in result.columns.items()}
    return result, _curve(spec, local_steps, spec.rounds, columns, result)


def fed_frozen_curve(
    spec: RealDataSpec,
    problem: la.Problem,
    test: HeldOut,
    path: list[la.Params],
    warmup: Curve,
    length: int,
    local_lr: float,
) -> Curve:
    """Simulate the frozen rounds from the recorded warm-up: the run FedFrozen(T) to the bit."""
    start = path[length]
    held, block = features(test, start.kernels()), la.ValueBlock(problem, start)
    result = la.run(
        la.fed_frozen(warmup_rounds=length, frozen_lr=spec.frozen_lr),
        problem,
        start,
        rounds=spec.rounds,
        local_steps=warmup.local_steps,
        local_lr=local_lr,
        start_round=length,
        metrics=(),
        evaluate=lambda reached: (
            {"objective": block.value(reached.value)} | measure(test, held, reached.value)
        ),
    )
    before = {name: getattr(warmup, name)[:length] for name in ("objective", "accuracy", "loss")}
    columns = {name: np.concatenate([before[name], result.columns[name]]) for name in before}
    return _curve(spec, warmup.local_steps, length, columns, result)


def _curve(
    spec: RealDataSpec,
    local_steps: int,
    length: int,
    columns: Mapping[str, Array],
    result: la.Result,
) -> Curve:
    """A curve over all rounds, NaN after divergence.

    A run that still rises at its end, above its start, has diverged as well: its numbers are finite
    only because it ran out of rounds.
    """
    objective = columns["objective"]
    diverged = result.outcome.round if result.outcome.status == "diverged" else -1
    if diverged < 0 and objective[-1] > max(objective[0], objective[-2] * (1.0 + RISING)):
        diverged = spec.rounds
    missing = spec.rounds + 1 - len(objective)
    padded = {
        name: np.concatenate([columns[name], np.full(missing, np.nan)])
        for name in ("objective", "accuracy", "loss")
    }
    return Curve(local_steps, length, **padded, diverged=diverged)


SPLITS: list[dict[str, Any]] = [
    {"data": "digits", "split": "sheets"},
    {"data": "digits", "split": "dirichlet", "alpha": 0.05},
    {"data": "digits", "split": "dirichlet", "alpha": 0.5},
    {"data": "digits", "split": "iid"},
    {"data": "watch", "split": "sides"},
    {"data": "watch", "split": "subjects"},
]


def start(num_heads: int) -> InitialSpec:
    """Return the start: kernel entries N(0, 1/d), V = 0."""
    return InitialSpec(num_heads=num_heads, scale=1.0)


def grid(split: Mapping[str, Any], *, heads: int, seeds: range, **fields: Any) -> Grid:
    """Return the runs of one split and number of heads over seeds."""
    return Grid(RealDataSpec(**split, initial=start(heads), **fields), {"seed": seeds})


def paper(split: Mapping[str, Any], *, heads: int, **fields: Any) -> Grid:
    """Return the runs of the paper preset of one split and number of heads."""
    return grid(
        split,
        heads=heads,
        seeds=range(5),
        rounds=300,
        local_steps=(1, 5, 20),
        warmup_lengths=(0, 3, 10, 30, 60, 100, 150, 200, 250, 300),
        # The bound C15 takes seconds on the watch recordings and minutes on the digits.
        reference="multi_start" if split["data"] == "watch" else "descent",
        reference_iterations=1000,
        **fields,
    )


SIMULATION = Simulation(
    RealDataSpec,
    run,
    presets={
        "paper": [
            *(paper(split, heads=heads) for split in SPLITS for heads in (1, 4)),
            # Freezing in the middle of the warm-up can be unstable at a step that FedAvg survives.
            *(paper(SPLITS[k], heads=1, frozen_lr="safe") for k in (1, 3)),
        ],
        "quick": [
            grid(
                split,
                heads=1,
                seeds=range(3),
                rounds=100,
                local_steps=(1, 20),
                warmup_lengths=(0, 3, 10, 30, 60, 100),
            )
            for split in (SPLITS[1], SPLITS[4])
        ],
        "tiny": [
            grid(
                split,
                heads=1,
                seeds=range(1),
                rounds=20,
                local_steps=(1, 5),
                warmup_lengths=(0, 2, 5, 10, 20),
            )
            for split in (SPLITS[1], SPLITS[4])
        ],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
