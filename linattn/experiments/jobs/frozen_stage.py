"""Frozen rounds by explicit simulation beside the closed forms C7 and C8, with null controls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

import linattn as la
from linattn._typing import Array
from linattn.experiments.jobs.common import (
    along,
    one_of_identical,
    prepared,
    single,
    stacked,
    with_trained_kernel,
)
from linattn.experiments.specs import FrozenStageSpec

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


def run(spec: FrozenStageSpec) -> xr.Dataset:
    """Return simulated and closed-form frozen stages for every number of local steps.

    Dimensions: `local_steps`; `round` = 0..rounds; `control`.
    """
    problem, params = with_trained_kernel(spec, spec.warmup_rounds)
    controls = {
        "shared_tokens": _shared(spec),
        "identical_clients": one_of_identical(problem),
        "consistent_targets": consistent_targets(problem, params),
    }
    parts = [
        _panel(spec, problem, params, local_steps=steps, controls=controls)
        for steps in spec.local_steps
    ]
    return stacked(parts, spec.local_steps)


def _shared(spec: FrozenStageSpec) -> la.Problem:
    """The same spec with the same tokens at every client, so that all A_i are equal."""
    return prepared(
        msgspec.structs.replace(
            spec, problem=msgspec.structs.replace(spec.problem, shared_tokens=True)
        )
    )[0]


def consistent_targets(problem: la.Problem, params: la.Params) -> la.Problem:
    """Return the problem with targets for which every client's own gradient vanishes at V*.

    Client i gets the targets Φ V_i with V_i = V° + λ H_i⁻¹ V°, so that C_i = A_i V° and all
    g_i* = 0 although the A_i differ (null control of C8). V° is the value minimizer of `problem`.
    """
    shape = params.value.shape
    common = la.ValueBlock(problem, params).minimizer().reshape(-1, shape[-1])
    kernels, held = params.kernels(), problem.statistics
    fields: dict[str, list[Array]] = {"cross": [], "target": [], "energy": []}
    for i in range(problem.num_clients):
        hessian = la.ValueBlock(problem.subset([i]), params).hessian
        features = hessian - problem.value_ridge * np.eye(len(hessian))
        teacher = common + problem.value_ridge * np.linalg.solve(features, common)
        part = held.take(problem.client(i))
        pulled = np.einsum("hab,sbc,hcm->sam", kernels, part.gram, teacher.reshape(shape))
        if part.query is None:
            cross = part.gram @ pulled
            fields["cross"].append(cross)
            fields["energy"].append(np.einsum("sam,sam->s", pulled, cross))
        else:
            target = np.einsum("sa,sam->sm", part.query, pulled)
            fields["target"].append(target)
            fields["energy"].append(np.einsum("sm,sm->s", target, target))
    new = {name: np.concatenate(arrays) for name, arrays in fields.items() if arrays}
    return replace(problem, statistics=held._replace(**new))


def _panel(
    spec: FrozenStageSpec,
    problem: la.Problem,
    params: la.Params,
    *,
    local_steps: int,
    controls: dict[str, la.Problem],
) -> xr.Dataset:
    import xarray as xr

    stage = la.frozen_stage(problem, params, local_steps=local_steps, local_lr=spec.local_lr)
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
        **_settled(spec, problem, params, local_steps=local_steps),
        "bias_first_order": _norm(first),
        "first_order_error": _norm(bias - first),
        "bias_bound": np.nan if stage.bias_bound is None else stage.bias_bound,
    }
    data = single(values, UNITS)
    data |= along("round", _rounds(spec, problem, params, local_steps=local_steps), UNITS)
    nulls = [_null(spec, controls[name], params, local_steps=local_steps) for name in CONTROLS]
    data |= along("control", nulls, {})
    return xr.Dataset(data, coords={"round": np.arange(spec.rounds + 1), "control": list(CONTROLS)})


def _rounds(
    spec: FrozenStageSpec, problem: la.Problem, params: la.Params, *, local_steps: int
) -> list[dict[str, float]]:
    """Simulated and closed-form value blocks of every round, and how far they are apart."""
    stage = la.frozen_stage(problem, params, local_steps=local_steps, local_lr=spec.local_lr)
    path = _simulated(spec, problem, params, local_steps=local_steps, rounds=spec.rounds)
    block = la.ValueBlock(problem, params)
    limit = stage.fixed_point
    scale = _norm(params.value - limit) + _norm(limit)
    rows = []
    for t in range(spec.rounds + 1):
        value, closed = path[min(t, len(path) - 1)].value, stage.after(t)
        lost = len(path) <= t  # the simulation diverged before round t
        rows.append(
            {
                "objective_simulated": np.nan if lost else block.value(value),
                "objective_closed": block.value(closed),
                "distance_simulated": np.nan if lost else _norm(value - limit),
                "distance_closed": _norm(closed - limit),
                "relative_error": np.nan if lost else _norm(value - closed) / scale,
            }
        )
    return rows


def _null(
    spec: FrozenStageSpec, problem: la.Problem, params: la.Params, *, local_steps: int
) -> dict[str, float]:
    """Bias of a control relative to ‖V*‖: by the formula and by simulation from V*."""
    start = _at_minimizer(problem, params)
    stage = la.frozen_stage(problem, start, local_steps=local_steps, local_lr=spec.local_lr)
    path = _simulated(spec, problem, start, local_steps=local_steps, rounds=spec.rounds)
    scale = _norm(start.value)
    moved = _norm(path[-1].value - start.value)
    return {"null_bias": _norm(stage.bias) / scale, "null_simulated": moved / scale}


def _settled(
    spec: FrozenStageSpec, problem: la.Problem, params: la.Params, *, local_steps: int
) -> dict[str, float]:
    """Distance from V* after settling from V*, where a stage without bias would stay: simulated
    and in closed form.
    """
    start = _at_minimizer(problem, params)
    stage = la.frozen_stage(problem, start, local_steps=local_steps, local_lr=spec.local_lr)
    rounds = spec.settle_rounds
    path = _simulated(spec, problem, start, local_steps=local_steps, rounds=rounds)
    diverged = len(path) <= spec.settle_rounds
    return {
        "bias_simulated": np.nan if diverged else _norm(path[-1].value - start.value),
        "bias_closed": _norm(stage.after(spec.settle_rounds) - start.value),
    }


def _at_minimizer(problem: la.Problem, params: la.Params) -> la.Params:
    return params.replace(value=la.ValueBlock(problem, params).minimizer())


def _simulated(
    spec: FrozenStageSpec, problem: la.Problem, params: la.Params, *, local_steps: int, rounds: int
) -> list[la.Params]:
    """Frozen rounds by explicit local gradient steps; the path ends where it diverges."""
    result = la.run(
        la.fed_frozen(warmup_rounds=0),
        problem,
        params,
        rounds=rounds,
        local_steps=local_steps,
        local_lr=spec.local_lr,
        record_params=True,
        metrics=(),
    )
    return result.path


def _norm(array: Array) -> float:
    return float(np.linalg.norm(array))
