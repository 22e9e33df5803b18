"""The bias of the frozen stage between its bounds as ηE grows, and the rate that it buys.

Run ``python simulations/bounds.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import linattn as la
from linattn._fields import Count
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import COVARIATE, TARGET, KernelSpec
from linattn.experiments.tables import single, stacked
from linattn.theory.published import (
    alignment_bound,
    average_drift,
    operator_bound,
    surrogate_condition_bound,
)

if TYPE_CHECKING:
    import xarray as xr

NORM = "parameter norm"
UNITS = dict.fromkeys(
    ("bias", "lower", "certified", "crude", "operator", "alignment", "minimizer_norm"), NORM
) | {"step": "1/curvature"}


class BoundsSpec(KernelSpec):
    """The bias of the frozen stage between its bounds, and the rate, for every E."""

    local_steps: tuple[Count, ...] = (2, 3, 5, 8, 13, 20, 32, 50, 80, 130, 200, 320)


def run(spec: BoundsSpec) -> xr.Dataset:
    """Return bias, bounds and rate for every number of local steps.

    Dimension `local_steps`. ``lower`` = Eρ/λ_max(Σp S_iA_i) ≤ bias, from Σp S_iA_i(V* − V_∞) =
    Σp S_i g_i*; ``certified`` and ``crude`` are C8, ``operator`` Malinovsky et al., ``alignment``
    Charles and Konečný (recalled); NaN where a bound is refused. ``rate`` is ρ(M̂), ``condition``
    that of Σp S_iA_i with its bound.
    """
    problem, params = spec.after_warmup()
    parts = [_panel(problem, params, spec.local_lr, steps) for steps in spec.local_steps]
    return stacked(parts, spec.local_steps)


def _panel(problem: la.Problem, params: la.Params, local_lr: float, steps: int) -> xr.Dataset:
    import xarray as xr

    stage = la.frozen_stage(problem, params, local_steps=steps, local_lr=local_lr)
    surrogate = np.full(2, np.nan)
    if np.isfinite(stage.surrogate_hessian).all():
        surrogate = np.linalg.eigvalsh(stage.surrogate_hessian)
    small = stage.largest_step_curvature <= 1.0
    values = {
        "bias": float(np.linalg.norm(stage.bias)),
        "lower": average_drift(stage) * steps / float(surrogate[-1]),
        "certified": _or_nan(stage.bias_bound),
        "crude": _or_nan(stage.crude_bias_bound),
        "operator": _or_nan(operator_bound(stage)),
        "alignment": alignment_bound(stage) if small else np.nan,
        "rate": stage.rate,
        "stable": float(stage.stable),
        "condition": float(surrogate[-1] / surrogate[0]),
        "condition_bound": surrogate_condition_bound(stage) if small else np.nan,
        "largest_step_curvature": stage.largest_step_curvature,
        "step": stage.local_lr,
        "minimizer_norm": float(np.linalg.norm(stage.minimizer)),
    }
    return xr.Dataset(single(values, UNITS))


def _or_nan(bound: float | None) -> float:
    return np.nan if bound is None else bound


SIMULATION = Simulation(
    BoundsSpec,
    run,
    presets={
        "paper": [Grid(BoundsSpec(), {TARGET: [0.75, 1.5], COVARIATE: [0.0, 0.3],
                                      "seed": range(10)})],
        "quick": [Grid(BoundsSpec(), {TARGET: [1.5], COVARIATE: [0.0, 0.3], "seed": range(3)})],
        "tiny": [Grid(BoundsSpec(warmup_rounds=2, local_steps=(2, 20)),
                      {TARGET: [1.5], COVARIATE: [0.3]})],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
