"""The bias-drift trade-off: what every warm-up length costs, in exact parts (C9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from linattn._checks import positive_int, real
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.analysis.centralized import CentralizedDescent
from linattn.federated.methods import fed_avg
from linattn.federated.rounds import RoundDriver, Settings, check_settings
from linattn.objectives.joint import check_fits
from linattn.objectives.population import population
from linattn.objectives.reference import Reference, reference_value
from linattn.objectives.steps import check_frozen_lr
from linattn.theory.frozen import FrozenStage, frozen_stage
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr

INF = float("inf")
PARTS = ("kernel_bias", "value_transient", "value_floor", "value_cross")
"""What F(B_T, V_R) − P_ref is the sum of."""


class Row(NamedTuple):
    """One warm-up length; the fields are the variables of the table.

    Units of loss, except rate (ρ(M̂)), stable, and frozen_lr (1/curvature). Where ρ ≥ 1 and frozen
    rounds remain, the value parts are +inf and `stable` is False.
    """

    objective: float
    profile: float
    profile_synchronized: float
    value_transient: float
    value_floor: float
    value_cross: float
    kernel_bias: float
    residual: float
    rate: float
    stable: bool
    frozen_lr: float


def bias_drift(
    problem: Problem,
    params: Params,
    *,
    warmup_lengths: Sequence[int],
    rounds: int,
    local_steps: int,
    local_lr: float,
    frozen_lr: float | str | None = None,
    reference: float | Reference | None = None,
    path: Sequence[Params] | None = None,
    descent: CentralizedDescent | None = None,
) -> xr.Dataset:
    """Return the objective after T warm-up and R − T frozen rounds for many T, with its parts.

        F(B_T, V_R) − P_ref = [P(B_T) − P_ref] + ½‖a‖²_A + ½‖b‖²_A + ⟨a, A b⟩,
        a = M̂^{R−T}(V_T − V_∞),  b = V_∞ − V*

    The warm-up is simulated once and read at every T; the frozen stage is exact (C7).

    Parameters
    ----------
    problem : Problem
    params : Params
        Start of the warm-up.
    warmup_lengths : sequence of int
        T in 0..R, sorted and distinct after conversion.
    rounds : int
        R.
    local_steps : int
        E.
    local_lr : float
        η.
    frozen_lr : None, float or "safe"
        Step size of the frozen stage, as in `fed_frozen`.
    reference : float or Reference, optional
        P_ref; default `reference_value(problem, like=params)`.
    path : sequence of Params, optional
        Warm-up parameters after 0, 1, 2, … rounds, like the ``path`` of a run of `fed_avg`,
        so that a warm-up that was run already is not run again.
    descent : CentralizedDescent, optional
        The synchronized control, where several tables share it.

    Returns
    -------
    xarray.Dataset
        Over `warmup`, with the fields of `Row`. Attributes: ``reference`` (P_ref), ``lower_bound``
        (C15, NaN if unknown), ``certified``, ``warmup_star`` (T*, None if no entry is stable),
        ``rounds``.

    Raises
    ------
    ValueError
        If a warm-up length is negative or exceeds `rounds`, `path` does not start at `params` or is
        too short, or another argument is out of range.

    Notes
    -----
    Source: C9. Cost: one FedAvg run of max(T) rounds, E·max(T) centralized steps, and one
    eigendecomposition per T.
    """
    check_fits(problem, params)
    check_frozen_lr(frozen_lr)
    settings = check_settings(rounds=rounds, local_steps=local_steps, local_lr=local_lr)
    lengths = check_lengths(warmup_lengths, settings.rounds)
    found = reference_value(problem, like=params) if reference is None else reference
    target = found.value if isinstance(found, Reference) else real("reference", found)
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        reached = _recorded(path, params, lengths) or warmup_path(
            problem, params, lengths, settings.local_steps, settings.local_lr
        )
        steps = [settings.local_steps * t for t in lengths]
        synchronized = _checked_descent(descent, problem, params, settings.local_lr).at(steps)
        rows = [
            _row(problem, warm, smooth, settings.rounds - t, settings, frozen_lr, target)
            for t, warm, smooth in zip(lengths, reached, synchronized, strict=True)
        ]
    return _table(lengths, rows, settings, target, found)


def _checked_descent(
    descent: CentralizedDescent | None, problem: Problem, params: Params, step_size: float
) -> CentralizedDescent:
    if descent is None:
        return CentralizedDescent(problem, params, step_size)
    descent.check(problem, params, step_size)
    return descent


def _table(
    lengths: list[int],
    rows: list[Row],
    settings: Settings,
    target: float,
    found: float | Reference,
) -> xr.Dataset:
    import xarray as xr

    unitless = {"rate": {}, "stable": {}, "frozen_lr": {"units": "1/curvature"}}
    variables = {
        name: (
            "warmup",
            np.array([getattr(row, name) for row in rows]),
            unitless.get(name, {"units": "loss"}),
        )
        for name in Row._fields
    }
    bound = found.lower_bound if isinstance(found, Reference) else None
    attributes = {
        "rounds": settings.rounds,
        "reference": target,
        "lower_bound": float("nan") if bound is None else bound,
        "certified": isinstance(found, Reference) and found.certified,
        "warmup_star": warmup_star(lengths, rows),
    }
    return xr.Dataset(variables, coords={"warmup": lengths}, attrs=attributes)


def warmup_star(lengths: Sequence[int], rows: Sequence[Row]) -> int | None:
    """Return T*, the smallest argmin of the objective over stable entries, None without one."""
    best = min(
        ((row.objective, t) for t, row in zip(lengths, rows, strict=True) if row.stable),
        default=(INF, None),
    )
    return best[1] if np.isfinite(best[0]) else None


def check_lengths(warmup_lengths: Sequence[int], rounds: int) -> list[int]:
    """Return sorted, distinct warm-up lengths in 0..rounds."""
    lengths = sorted({positive_int("warmup_lengths", t, minimum=0) for t in warmup_lengths})
    if not lengths or lengths[-1] > rounds:
        raise ValueError(
            f"warmup_lengths must be numbers in 0..{rounds} (rounds), got {list(warmup_lengths)}."
        )
    return lengths


def _recorded(
    path: Sequence[Params] | None, start: Params, lengths: Sequence[int]
) -> list[Params] | None:
    """The entries of a recorded path at each warm-up length, after checking that it fits."""
    if path is None:
        return None
    if len(path) <= lengths[-1] or not np.array_equal(path[0].flat, start.flat):
        raise ValueError(
            f"path must start at params and hold {lengths[-1] + 1} entries, rounds 0 to "
            f"{lengths[-1]}, got {len(path)}."
        )
    return [path[t] for t in lengths]


def warmup_path(
    problem: Problem, params: Params, lengths: Sequence[int], local_steps: int, local_lr: float
) -> list[Params]:
    """Return the FedAvg parameters after each warm-up length, from one simulated run."""
    settings = check_settings(rounds=lengths[-1], local_steps=local_steps, local_lr=local_lr)
    oracle = problem.oracle(params)
    driver = RoundDriver(fed_avg(), problem, oracle, params, settings)
    wanted, out, current = set(lengths), [], params
    if 0 in wanted:
        out.append(params)
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(lengths[-1]):
            if np.isfinite(current.flat).all():
                current = Params(params.layout, driver.step(t).flat)
            if t + 1 in wanted:
                out.append(current)
    return out


def finite_profile(problem: Problem, params: Params) -> float:
    """P, or +inf where the parameters have diverged."""
    held = population(problem)
    if not np.isfinite(params.flat).all():
        return INF
    try:
        value = held.profile_value(params, held.value_system(params.kernels()))
    except FloatingPointError:
        return INF
    return value if np.isfinite(value) else INF


def _row(
    problem: Problem,
    params: Params,
    synchronized: Params,
    remaining: int,
    settings: Settings,
    frozen_lr: float | str | None,
    reference: float,
) -> Row:
    profile = finite_profile(problem, params)
    smooth = finite_profile(problem, synchronized)
    if not np.isfinite(profile):
        return Row(INF, INF, smooth, INF, INF, INF, INF, INF, INF, False, settings.local_lr)
    stage = frozen_stage(
        problem,
        params,
        local_steps=settings.local_steps,
        local_lr=settings.local_lr,
        frozen_lr=frozen_lr,
    )
    stable = stage.stable or remaining == 0
    objective = _final_objective(problem, params, stage, remaining)
    parts = _drift_parts(stage, remaining)
    residual = objective - profile - sum(parts) if stable else INF
    bias = profile - reference
    return Row(
        objective, profile, smooth, *parts, bias, residual, stage.rate, stable, stage.local_lr
    )


def _final_objective(problem: Problem, params: Params, stage: FrozenStage, remaining: int) -> float:
    """F(B_T, V_R) on the statistics, +inf where the frozen stage overflowed."""
    value = stage.after(remaining)
    if not np.isfinite(value).all():
        return INF
    objective = population(problem).value_and_gradient(params.replace(value=value))[0]
    return objective if np.isfinite(objective) else INF


def _drift_parts(stage: FrozenStage, remaining: int) -> tuple[float, float, float]:
    parts = stage.drift_parts(remaining)
    if remaining == 0 and not np.isfinite(parts).all():
        return stage.gap, 0.0, 0.0  # V_∞ has overflowed, but no frozen round is left to need it
    return parts


def synchronized_control(
    problem: Problem,
    params: Params,
    *,
    warmup_lengths: Sequence[int],
    rounds: int,
    local_steps: int,
    local_lr: float,
    descent: CentralizedDescent | None = None,
) -> Array:
    """Return the objective of the control without clients, for each warm-up length.

    E·T centralized gradient steps on everything, then E·(R − T) on the value block, all explicit.

    Parameters
    ----------
    problem, params, warmup_lengths, rounds, local_steps, local_lr, descent
        As in `bias_drift`.

    Returns
    -------
    array, shape (number of distinct lengths,)
        Units of loss; +inf where descent diverged.

    Notes
    -----
    Source: theory section 5. Cost: E·R centralized steps once, and E·(R − T) steps of (Hd)² m per
    length.
    """
    from linattn._kernels.local import value_round

    check_fits(problem, params)
    lengths = check_lengths(warmup_lengths, rounds)
    held = population(problem)
    marks = [local_steps * t for t in lengths]
    out = []
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        for t, reached in zip(
            lengths,
            _checked_descent(descent, problem, params, local_lr).at(marks),
            strict=True,
        ):
            if not np.isfinite(finite_profile(problem, reached)):
                out.append(INF)
                continue
            system = held.value_system(reached.kernels())
            start = reached.value.reshape(1, -1)
            empty = np.zeros((0, 1, start.size))
            value = value_round(
                system.hessian[None],
                system.linear[None],
                start.copy(),
                start[0].copy(),
                float(local_lr),
                0.0,
                np.zeros((0, start.size)),
                local_steps * (rounds - t),
                empty,
                empty,
            )
            if not np.isfinite(value).all():
                out.append(INF)
                continue
            last = reached.replace(value=value.reshape(reached.value.shape))
            out.append(held.value_and_gradient(last)[0])
    return np.array(out)
