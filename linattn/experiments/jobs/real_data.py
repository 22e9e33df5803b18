"""FedAvg and FedFrozen on the shipped data sets: test accuracy and loss beside the parts of C9."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._typing import Array
from linattn.experiments.jobs.common import (
    Variables,
    along,
    best_length,
    reference_variables,
    single,
    stacked,
)
from linattn.experiments.jobs.real_data_runs import (
    Attempt,
    Curve,
    HeldOut,
    features,
    federated,
    measure,
    prepared,
    settle,
)
from linattn.experiments.specs import RealDataSpec

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
    data = federated(spec)
    problem, params, test = prepared(spec, data)
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
    value, norm = descended(problem, params, spec.reference_iterations)
    return reference_variables(la.Reference(value, params, norm, 1, None, False))


def descended(problem: la.Problem, params: la.Params, iterations: int) -> tuple[float, float]:
    """Return P and ‖∇P‖ after an L-BFGS descent on P from the kernel of `params`.

    The wide fit behind the lower bound C15 takes minutes on the digits; this takes a second, and
    the gradient norm says how far from stationary it stopped.
    """
    from scipy.optimize import minimize

    profile = la.KernelProfile(problem)
    size = params.layout.size - params.value.size

    def objective(kernel: Array) -> tuple[float, Array]:
        moved = la.Params(params.layout, np.concatenate([kernel, params.flat[size:]]))
        value, gradient = profile.value_and_gradient(moved)
        return value, gradient.flat[:size]

    options = {"maxiter": iterations, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-9}
    found = minimize(objective, params.flat[:size], jac=True, method="L-BFGS-B", options=options)
    value, gradient = objective(found.x)
    return value, float(np.linalg.norm(gradient))


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
