"""How drift, bias and mismatch grow with the step size and with the local steps.

Run ``python simulations/orders.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import linattn as la
from linattn._fields import Count
from linattn.analysis.trajectory import LocalPath, local_paths
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import FACTORED, HETEROGENEOUS, KERNEL, KernelSpec
from linattn.experiments.tables import along
from linattn.federated.method import Method
from linattn.linalg import stack_heads

if TYPE_CHECKING:
    import xarray as xr

UNITS = {
    "bias": "parameter norm",
    "excess": "loss",
    "drift_sq": "parameter norm²",
    "round_error": "gradient norm",
    "covariance": "kernel norm",
}


class OrdersSpec(KernelSpec):
    """Drift, bias and mismatch at η = local_lr · 2⁻ᵏ, k < `halvings`, and for every E."""

    local_steps: tuple[Count, ...] = (2, 3, 5, 9, 17, 33, 65)
    local_steps_fixed: Count = 10
    halvings: Count = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.local_steps_fixed < 2 or min(self.local_steps) < 2:
            raise ValueError("local_steps_fixed and local_steps must be at least 2: at 1 no drift.")


def run(spec: OrdersSpec) -> xr.Dataset:
    """Return drift, bias and mismatch for every step size at E, and for every E at a step size.

    Dimensions: `step_size`, η = local_lr · 2⁻ᵏ at `local_steps_fixed` local steps, and
    `local_steps` at the smallest η. Names end in ``_by_step`` and ``_by_count``. At the kernel
    after the warm-up: ``bias`` ‖V_∞ − V*‖, its ``excess`` F(V_∞) − F(V*), ``drift_sq`` the largest
    Σp‖V_i − V̄‖² of a frozen round from V*, ``round_error`` ‖e‖ of a warm-up round as one gradient
    step, and ``covariance`` ‖Cov_p(Q_i, K_i)‖ after that round (zero for merged kernels).
    """
    import xarray as xr

    problem, params = spec.after_warmup()
    steps = spec.local_lr * 0.5 ** np.arange(spec.halvings)
    by_step = [_measured(problem, params, float(eta), spec.local_steps_fixed) for eta in steps]
    smallest = float(steps[-1])
    by_count = [_measured(problem, params, smallest, count) for count in spec.local_steps]
    curvature = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0)
    named = {f"{name}_by_step": v for name, v in along("step_size", by_step, UNITS).items()}
    named |= {f"{name}_by_count": v for name, v in along("local_steps", by_count, UNITS).items()}
    return xr.Dataset(
        named | {"curvature": ((), curvature.largest_step_curvature, {"units": "curvature"})},
        coords={"step_size": steps, "local_steps": list(spec.local_steps)},
    )


def _measured(
    problem: la.Problem, params: la.Params, local_lr: float, local_steps: int
) -> dict[str, float]:
    stage = la.frozen_stage(problem, params, local_steps=local_steps, local_lr=local_lr)
    flat = stack_heads(stage.bias)

    def one_round(at: la.Params, method: Method) -> LocalPath | None:
        return next(
            local_paths(
                problem, at, rounds=1, local_steps=local_steps, local_lr=local_lr, method=method
            ),
            None,
        )

    star = params.replace(value=stage.minimizer)
    apart, path = one_round(star, la.fed_frozen(warmup_rounds=0)), one_round(params, la.fed_avg())
    values = {
        "bias": float(np.linalg.norm(flat)),
        "excess": 0.5 * float(np.vdot(flat, stage.hessian @ flat)),
        **dict.fromkeys(("drift_sq", "round_error", "covariance"), np.nan),  # where it diverges
    }
    if apart is not None:
        values["drift_sq"] = float(apart.spread(apart.places).max() ** 2)
    if path is not None:
        change = path.gradients.mean(axis=0) - path.full_gradients[0]
        values["round_error"] = float(np.linalg.norm(path.weights @ change))
        values["covariance"] = _covariance(path, params)
    return values


def _covariance(path: LocalPath, params: la.Params) -> float:
    """‖Σp Q_iK_iᵀ − Q̄K̄ᵀ‖ after the round."""
    models = [la.Params(params.layout, flat) for flat in path.places[-1]]
    kernels = np.stack([model.kernels() for model in models])
    mean = la.Params(params.layout, path.mean[-1]).kernels()
    return float(np.linalg.norm(np.tensordot(path.weights, kernels, 1) - mean))


SPEC = OrdersSpec(problem=HETEROGENEOUS, initial=FACTORED)
TINY = OrdersSpec(problem=HETEROGENEOUS, initial=FACTORED, warmup_rounds=2, halvings=4,
                  local_steps=(2, 4, 8))  # fmt: skip
SIMULATION = Simulation(
    OrdersSpec,
    run,
    presets={
        "paper": [Grid(SPEC, {KERNEL: [0.0, 0.5], "seed": range(10)})],
        "quick": [Grid(SPEC, {"seed": range(3)})],
        "tiny": [Grid(TINY)],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
