"""The bias-drift trade-off: final loss against warm-up length, in all its exact parts (C9).

Every run carries its controls: identical clients, one local step, and synchronized steps; and
beside them the same table along the predicted run (C24).
Run ``python simulations/bias_drift.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import linattn as la
from linattn._fields import Count, Fraction, Positive
from linattn.analysis.bias_drift import PARTS
from linattn.analysis.predicted import filled
from linattn.analysis.regret import best_length, has_tradeoff, relative_regret
from linattn.analysis.stability import boundary
from linattn.claims import Verdict
from linattn.data.worlds import InitialSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.checks import Column, worst
from linattn.experiments.specs import (
    COVARIATE,
    FACTORED,
    KERNEL,
    TARGET,
    WORLDS,
    RegimeSpec,
    pairs,
    regimes,
)
from linattn.experiments.tables import reference_variables, single

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = (*PARTS, "value_noise", "objective", "profile", "profile_synchronized", "rate", "stable")
EVERY = 10
"""One in so many warm-up lengths has a critical step."""
UNITS = {"warmup_star": "rounds", "warmup_identical": "rounds", "warmup_predicted": "rounds"}


class BiasDriftSpec(RegimeSpec):
    """The exact decomposition C9 over warm-up lengths, with all controls and the prediction."""

    frozen_lr: Positive | Literal["safe"] | None = None
    participation: Fraction = 1.0
    batch_size: Count | None = None
    num_starts: Count = 20

    @property
    def compared(self) -> bool:
        """Whether there are controls and a prediction: E > 1, and no clients or sequences drawn."""
        drawn = self.participation < 1.0 or self.batch_size is not None
        return self.local_steps > 1 and not drawn


def run(spec: BiasDriftSpec) -> xr.Dataset:
    """Return the table of C9 and its controls; dimension `warmup`.

    Besides columns of `linattn.bias_drift`: ``objective_one_step`` (E = 1, same number of rounds),
    ``objective_identical`` (identical clients), ``objective_synchronized`` (E·T centralized steps,
    then E·(R − T) on the value block) and ``objective_predicted`` (C24), which neither E = 1 has
    nor runs that draw clients or sequences; ``critical_step``, from which on frozen rounds at B_T
    are unstable, and ``safe_step``, 2/max λ_max(A_i(B_T)). Without dimension: the best lengths,
    −1 if nothing is stable; ``tradeoff``; ``regret_predicted``, relative; the reference value of P.
    """
    import xarray as xr

    problem, params = spec.prepared()
    reference = spec.reference(spec.num_starts)
    drawn: dict[str, Any] = {
        "participation": spec.participation, "batch_size": spec.batch_size, "seed": spec.seed,
    }  # fmt: skip
    result = la.run(la.fed_avg(), problem, params, rounds=spec.rounds, record_params=True,
                    metrics=(), **spec.settings(), **drawn)  # fmt: skip
    path = filled(result.path, spec.rounds)
    descent = la.CentralizedDescent(problem, params, spec.local_lr)
    table = partial(la.bias_drift, params=params, rounds=spec.rounds, reference=reference,
                    warmup_lengths=spec.lengths(), frozen_lr=spec.frozen_lr,
                    **spec.settings())  # fmt: skip
    found = table(problem=problem, path=path, descent=descent, **drawn)
    data = {name: found[name] for name in COLUMNS} | _stability(spec, problem, path)
    values = {"warmup_star": best_length(found), "tradeoff": has_tradeoff(found)}
    if spec.compared:
        columns, more = _beside(spec, problem, params, found, descent, table)
        data |= columns
        values |= more
    fixed = single(values, UNITS) | reference_variables(reference)
    return xr.Dataset(data | fixed, {"warmup": list(spec.lengths())})


def _beside(
    spec: BiasDriftSpec,
    problem: la.Problem,
    params: la.Params,
    found: xr.Dataset,
    descent: la.CentralizedDescent,
    table: partial[xr.Dataset],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The controls and the prediction: objectives by warm-up length, and what they say."""
    run = la.predict_run(problem, params, rounds=spec.rounds, check_chaos=False, **spec.settings())
    alike = la.pool(problem).subset([0])  # identical clients move identically
    tables = {
        "one_step": table(problem=problem, local_steps=1),
        "identical": table(problem=alike),
        "predicted": table(problem=problem, path=filled(run.path, spec.rounds), descent=descent),
    }
    columns: dict[str, Any] = {f"objective_{k}": v["objective"] for k, v in tables.items()}
    synchronized = la.synchronized_control(
        problem, params, warmup_lengths=spec.lengths(), rounds=spec.rounds, descent=descent,
        **spec.settings(),
    )  # fmt: skip
    columns["objective_synchronized"] = ("warmup", synchronized, {"units": "loss"})
    stars = {f"warmup_{name}": best_length(held) for name, held in tables.items()}
    length = stars["warmup_predicted"]
    ended = float(found["objective"].sel(warmup=length)) if length >= 0 else np.inf
    return columns, stars | {
        "regret_predicted": relative_regret(found, ended),
        "num_impulses": run.num_impulses + run.num_rejected,
    }


def _stability(spec: BiasDriftSpec, problem: la.Problem, path: list[la.Params]) -> dict[str, Any]:
    """Critical and sufficient steps of frozen rounds, NaN at the lengths in between."""
    lengths = spec.lengths()
    steps = np.full((2, len(lengths)), np.nan)
    for k in range(0, len(lengths), EVERY):
        reached = path[lengths[k]]
        if np.isfinite(reached.flat).all():
            stage = la.frozen_stage(problem, reached, **spec.settings())
            steps[:, k] = critical_step(stage), _sufficient(stage)
    named = zip(("critical_step", "safe_step"), steps, strict=True)
    return {name: ("warmup", row, {"units": "1/curvature"}) for name, row in named}


def _sufficient(stage: la.FrozenStage) -> float:
    return 2.0 * stage.local_lr / float(stage.largest_step_curvature)


def critical_step(stage: la.FrozenStage) -> float:
    """Return the step from which on rounds of a frozen stage are unstable, to one part in 10⁴.

    At 2/max λ_max(A_i) every client's map contracts, so that is where the search begins; averaging
    can hold several times of it.
    """
    return boundary(lambda step: stage.at_step(step).stable, _sufficient(stage))[0]


def _decomposition(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        parts = [run[name].values for name in (*PARTS, "value_noise")]
        size = abs(run["reference"].values) + sum(abs(part) for part in parts)
        return run["objective"].values, run["reference"].values + sum(parts), size

    return worst("C9 stored", "F − P_ref is the sum of its parts", "identity", map(column, runs))


def _reference(runs: Sequence[xr.Dataset]) -> Verdict:
    columns = [
        (run["reference"].values, run["reference_lower_bound"].values, abs(run["reference"].values))
        for run in runs
    ]
    return worst("C15 stored", "lower bound ≤ reference value", "lower", columns)


DRIFTS = (0.02, 0.05, 0.1, 0.2, 0.5)
STEPS = (0.005, 0.01, 0.02)
MAIN = [(0.75, 0.3)]
FEW = [(0.01, 11), (0.02, 11), (0.02, 21)]
UNSTABLE = Grid(BiasDriftSpec(local_lr=0.05, local_steps=20, horizon=200.0, num_starts=4),
                {TARGET: [1.5], COVARIATE: [0.3]})  # fmt: skip
"""Where averaging with a frozen kernel is beyond its boundary of stability."""

SIMULATION = Simulation(
    BiasDriftSpec,
    run,
    presets={
        "paper": [
            *regimes(BiasDriftSpec(), pairs((0.0, *DRIFTS), *STEPS), seeds=10),
            *regimes(BiasDriftSpec(), FEW, seeds=10, worlds=MAIN, **{KERNEL: [0.5]}),
            *regimes(BiasDriftSpec(initial=FACTORED), FEW, seeds=10, worlds=MAIN),
            *regimes(BiasDriftSpec(initial=InitialSpec(num_heads=2)), FEW, seeds=10, worlds=MAIN),
            *regimes(BiasDriftSpec(participation=0.25), FEW, seeds=10, worlds=MAIN),
            *regimes(BiasDriftSpec(batch_size=8), FEW, seeds=10, worlds=MAIN),
            replace(UNSTABLE, axes={**UNSTABLE.axes, "seed": range(10)}),
        ],
        "quick": [
            *regimes(BiasDriftSpec(num_starts=4), [(0.01, 1), *FEW], seeds=3, worlds=WORLDS[1:]),
            UNSTABLE,
        ],
        "tiny": regimes(BiasDriftSpec(horizon=10.0, num_starts=2), [(0.02, 6)], worlds=MAIN),
    },
    checks=(_decomposition, _reference),
)


if __name__ == "__main__":
    SIMULATION.main()
