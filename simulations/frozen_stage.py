"""The frozen stage: simulated rounds against the closed form C7, and the bias C8 as ηE grows.

Run ``python simulations/frozen_stage.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

import linattn as la
from linattn._fields import Count
from linattn._typing import Array
from linattn.claims import Verdict
from linattn.data.worlds import consistent_targets
from linattn.experiments import Grid, Simulation
from linattn.experiments.checks import FORMULA_BUDGET, Column, worst
from linattn.experiments.specs import COVARIATE, FACTORED, HETEROGENEOUS, KERNEL, TARGET, KernelSpec
from linattn.experiments.tables import along, single, stacked

if TYPE_CHECKING:
    import xarray as xr

UNITS = {
    "step": "1/curvature",
    "floor": "loss",
    "bias": "parameter norm",
    "bias_simulated": "parameter norm",
    "bias_closed": "parameter norm",
    "bias_first_order": "parameter norm",
    "bias_bound": "parameter norm",
    "first_order_error": "parameter norm",
    "minimizer_norm": "parameter norm",
    "distance_simulated": "parameter norm",
    "distance_closed": "parameter norm",
    "objective_simulated": "loss",
    "objective_closed": "loss",
}
CONTROLS = ("shared_tokens", "identical_clients", "consistent_targets")


class FrozenStageSpec(KernelSpec):
    """Frozen rounds at one kernel against the closed forms C7 and C8.

    `rounds` frozen rounds are simulated and recorded for every entry of `local_steps`, and
    `settle_rounds` rounds from V* measure the bias.
    """

    rounds: Count = 40
    local_steps: tuple[Count, ...] = (1, 2, 5, 10, 20, 50, 100)
    settle_rounds: Count = 200


def run(spec: FrozenStageSpec) -> xr.Dataset:
    """Return simulated and closed-form frozen stages for every number of local steps.

    Dimensions: `local_steps`; `round` = 0..rounds; `control`.
    """
    problem, params = spec.after_warmup()
    controls = {
        "shared_tokens": replace(spec.problem, shared_tokens=True).make(spec.seed),  # equal A_i
        "identical_clients": la.pool(problem).subset([0]),  # identical clients move identically
        "consistent_targets": consistent_targets(problem, params),
    }
    parts = [_panel(spec, problem, params, steps, controls) for steps in spec.local_steps]
    return stacked(parts, spec.local_steps)


def _panel(
    spec: FrozenStageSpec,
    problem: la.Problem,
    params: la.Params,
    local_steps: int,
    controls: dict[str, la.Problem],
) -> xr.Dataset:
    import xarray as xr

    settings = {"local_steps": local_steps, "local_lr": spec.local_lr}
    stage, path = _stage_and_path(problem, params, spec.rounds, settings)
    bias, first = stage.bias, stage.first_order_bias
    values = {
        "rate": stage.rate,
        "stable": stage.stable,
        "floor": stage.floor,
        "step": stage.local_lr,
        "largest_step_curvature": stage.largest_step_curvature,
        "condition": float(np.linalg.cond(stage.hessian)),
        "minimizer_norm": _norm(stage.minimizer),
        "bias": _norm(bias),
        **_settled(problem, params, spec.settle_rounds, settings),
        "bias_first_order": _norm(first),
        "first_order_error": _norm(bias - first),
        "bias_bound": np.nan if stage.bias_bound is None else stage.bias_bound,
    }
    data = single(values, UNITS)
    block = la.ValueBlock(problem, params)
    data |= along("round", [_round(block, stage, path, t) for t in range(spec.rounds + 1)], UNITS)
    nulls = [_null(controls[name], params, spec.rounds, settings) for name in CONTROLS]
    data |= along("control", nulls, {})
    return xr.Dataset(data, coords={"round": np.arange(spec.rounds + 1), "control": list(CONTROLS)})


def _round(
    block: la.ValueBlock, stage: la.FrozenStage, path: list[la.Params], t: int
) -> dict[str, float]:
    """Simulated and closed-form value blocks after t rounds, and how far they are apart."""
    limit = stage.fixed_point
    scale = _norm(path[0].value - limit) + _norm(limit) or 1.0
    value, closed = path[min(t, len(path) - 1)].value, stage.after(t)
    lost = len(path) <= t  # the simulation diverged before round t
    return {
        "objective_simulated": np.nan if lost else block.value(value),
        "objective_closed": block.value(closed) if np.isfinite(closed).all() else np.inf,
        "distance_simulated": np.nan if lost else _norm(value - limit),
        "distance_closed": _norm(closed - limit),
        "relative_error": np.nan if lost else _norm(value - closed) / scale,
    }


def _null(
    problem: la.Problem, params: la.Params, rounds: int, settings: dict[str, Any]
) -> dict[str, float]:
    """Bias of a control relative to ‖V*‖: by the formula and by simulation from V*."""
    stage, path = _stage_and_path(problem, _at_minimizer(problem, params), rounds, settings)
    start = path[0].value
    moved, scale = _norm(path[-1].value - start), _norm(start)
    return {"null_bias": _norm(stage.bias) / scale, "null_simulated": moved / scale}


def _settled(
    problem: la.Problem, params: la.Params, rounds: int, settings: dict[str, Any]
) -> dict[str, float]:
    """Distance from V* after settling from V*, where a stage without bias would stay: simulated
    and in closed form.
    """
    stage, path = _stage_and_path(problem, _at_minimizer(problem, params), rounds, settings)
    start, diverged = path[0].value, len(path) <= rounds
    return {
        "bias_simulated": np.nan if diverged else _norm(path[-1].value - start),
        "bias_closed": _norm(stage.after(rounds) - start),
    }


def _at_minimizer(problem: la.Problem, params: la.Params) -> la.Params:
    return params.replace(value=la.ValueBlock(problem, params).minimizer())


def _stage_and_path(
    problem: la.Problem, params: la.Params, rounds: int, settings: dict[str, Any]
) -> tuple[la.FrozenStage, list[la.Params]]:
    """The closed form, and frozen rounds by explicit local gradient steps until they diverge."""
    result = la.run(la.fed_frozen(warmup_rounds=0), problem, params, rounds=rounds,
                    record_params=True, metrics=(), **settings)  # fmt: skip
    return la.frozen_stage(problem, params, **settings), result.path


def _norm(array: Array) -> float:
    return float(np.linalg.norm(array))


def _closed_form(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        error = run["relative_error"].where(_tame(run)).values
        return 1.0 + error, np.ones_like(error), np.ones_like(error)

    statement = "simulated V_t is the closed form"
    return worst("C7 stored", statement, "identity", map(column, runs), FORMULA_BUDGET)


def _bias(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        scale = run["minimizer_norm"].values + run["bias_closed"].values
        return run["bias_simulated"].where(_tame(run)).values, run["bias_closed"].values, scale

    return worst("C8 stored", "simulated bias is the formula", "identity", map(column, runs), 1e-11)


def _bias_bound(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        run = run.sel(local_steps=run["local_steps"] > 1)  # both are zero at E = 1
        return run["bias"].values, run["bias_bound"].values, run["minimizer_norm"].values

    return worst("C8 bound stored", "bias ≤ bound", "upper", map(column, runs))


def _nulls(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        stay = run["null_bias"].where(_tame(run)).values
        return 1.0 + stay, np.ones_like(stay), np.ones_like(stay)

    return worst("C8 null stored", "no bias in the controls", "identity", map(column, runs), 1e-11)


def _tame(run: xr.Dataset) -> xr.DataArray:
    """Where C7 is claimed: stable and well enough conditioned."""
    tame: Any = (run["stable"] > 0) & (run["condition"] <= 1e4)
    return tame  # type: ignore[no-any-return]


PAPER = FrozenStageSpec(rounds=100, local_steps=(1, 2, 3, 5, 10, 20, 50, 100, 200, 400))
SIMULATION = Simulation(
    FrozenStageSpec,
    run,
    presets={
        "paper": [
            Grid(PAPER, {TARGET: [0.75, 1.5], COVARIATE: [0.0, 0.3], "seed": range(10)}),
            Grid(FrozenStageSpec(problem=HETEROGENEOUS, initial=FACTORED),
                 {KERNEL: [0.0, 0.5], "seed": range(10)}),
        ],
        "quick": [
            Grid(FrozenStageSpec(), {TARGET: [1.5], COVARIATE: [0.0, 0.3], "seed": range(3)}),
        ],
        "tiny": [
            Grid(FrozenStageSpec(problem=HETEROGENEOUS, rounds=10, local_steps=(1, 5),
                                 settle_rounds=100)),
        ],
    },
    checks=(_closed_form, _bias, _bias_bound, _nulls),
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
