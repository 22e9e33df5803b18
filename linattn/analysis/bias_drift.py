"""The bias-drift trade-off: what every warm-up length costs, in exact parts (C9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from linattn._checks import real
from linattn._settings import LocalSteps, check_local_steps, constant_step, step_at
from linattn._threads import one_blas_thread
from linattn._typing import Array, BoolArray
from linattn.analysis.centralized import CentralizedDescent
from linattn.analysis.synchronized import (
    central_round,
    check_lengths,
    finite_losses,
    finite_profiles,
    synchronized_path,
)
from linattn.federated import fed_avg
from linattn.federated.rounds import RoundDriver, Settings, check_settings
from linattn.federated.stretch import stretches
from linattn.objectives.joint import check_fits
from linattn.objectives.reference import Reference, reference_value
from linattn.objectives.steps import check_frozen_lr
from linattn.theory.frozen import FrozenStage, frozen_stages
from linattn.theory.moments import FrozenMoments, check_moment_rows, frozen_moments
from linattn.theory.weights import weight_moments
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr

INF = float("inf")
PARTS = ("kernel_bias", "value_transient", "value_floor", "value_cross")
"""What F(B_T, V_R) − P_ref is the sum of, with ``value_noise`` where anything is random."""


class Row(NamedTuple):
    """One warm-up length; the fields are the variables of the table.

    Units of loss, except rate (ρ(M̂)), stable, and frozen_lr (1/curvature). `profile_synchronized`
    is P after T rounds of `central_round`: E·T steps on F, of mean work with stragglers. Where the
    frozen stage is unstable and frozen rounds remain, the value parts are +inf and `stable` is
    False. Under sampling, minibatches or stragglers `rate` is that of the mean, `stable` is about
    the second moment.
    """

    objective: float
    profile: float
    profile_synchronized: float
    value_transient: float
    value_floor: float
    value_cross: float
    value_noise: float
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
    local_steps: LocalSteps,
    local_lr: float,
    participation: float = 1.0,
    batch_size: int | None = None,
    sampling: str = "uniform",
    stragglers: float = 0.0,
    seed: int = 0,
    frozen_lr: float | str | None = None,
    frozen_participation: float | None = None,
    reference: float | Reference | None = None,
    path: Sequence[Params] | None = None,
    descent: CentralizedDescent | None = None,
) -> xr.Dataset:
    """Return the objective after T warm-up and R − T frozen rounds for many T, with its parts.

        F(B_T, V_R) − P_ref = [P(B_T) − P_ref] + ½‖a‖²_A + ½‖b‖²_A + ⟨a, A b⟩,
        a = M̂^{R−T}(V_T − V_∞),  b = V_∞ − V*

    The warm-up is simulated once and read at every T; the frozen stage is exact (C7). Under
    sampling, minibatches or stragglers it is exact in expectation, given the warm-up (C20): the
    objective is E F(B_T, V_R), a and b belong to the mean round, with E[w_i] in place of p_i, and
    there is one part more, ``value_noise`` = ½ tr(A Cov V_R), zero without randomness.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start of the warm-up.
    warmup_lengths : sequence of int
        T in 0..R, sorted and distinct after conversion.
    rounds : int
        R.
    local_steps : int, or one int per client
        E, or the E_i of all clients.
    local_lr : float
        η.
    participation, batch_size, sampling, stragglers, seed
        As in `run`, for both stages.
    frozen_lr : None, float or "safe"
        Step size of the frozen stage, as in `fed_frozen`.
    frozen_participation : float, optional
        Participation of the frozen stage, as in `fed_frozen`.
    reference : float or Reference, optional
        P_ref; default `reference_value(problem, like=params)`.
    path : sequence of Params, optional
        Warm-up parameters after 0, 1, 2, … rounds, like the ``path`` of a run, whatever made them.
    descent : CentralizedDescent, optional
        The synchronized control, where several tables of equal work share it.

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
        too short, another argument is out of range, or `frozen_moments` refuses.

    Notes
    -----
    Source: C9; in expectation C20, unequal work C21. Cost: one FedAvg run of max(T) rounds,
    E·max(T) centralized steps (`central_round` where work is unequal), and one eigendecomposition,
    or `frozen_moments`, per T.
    """
    check_fits(problem, params)
    settings = check_settings(
        rounds=rounds,
        local_steps=check_local_steps(local_steps, problem.num_clients),
        local_lr=constant_step("local_lr", local_lr, "the frozen stage in closed form"),
        batch_size=batch_size,
        participation=participation,
        sampling=sampling,
        stragglers=stragglers,
        seed=seed,
    )
    second = SecondStage.checked(problem, params, settings, frozen_lr, frozen_participation)
    lengths = check_lengths(warmup_lengths, settings.rounds)
    recorded = _recorded(path, params, lengths)
    found = reference_value(problem, like=params) if reference is None else reference
    target = found.value if isinstance(found, Reference) else real("reference", found)
    central = central_round(problem, settings.local_steps, second.local_lr, stragglers=stragglers)
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        reached = recorded or warmup_path(problem, params, lengths, settings)
        synchronized = synchronized_path(central, params, lengths, descent)
        remaining = [settings.rounds - t for t in lengths]
        rows = _rows(problem, reached, synchronized, remaining, second, target)
    return _table(lengths, rows, settings, target, found)


def is_drawn(problem: Problem, settings: Settings) -> bool:
    """Whether clients, minibatches or stragglers are drawn."""
    drawn = settings.batch_size is not None or settings.stragglers > 0.0
    return drawn or not settings.sampling.is_everybody(problem.num_clients)


class SecondStage(NamedTuple):
    """Settings of the frozen stage, whose step size is `frozen_lr` where it is set apart."""

    settings: Settings
    frozen_lr: float | str | None

    @classmethod
    def checked(
        cls,
        problem: Problem,
        params: Params,
        settings: Settings,
        frozen_lr: float | str | None,
        participation: float | None,
    ) -> SecondStage:
        """Those of the warm-up but for what is set apart; refused before it if moments would be."""
        check_frozen_lr(frozen_lr)
        if participation is not None:
            share = real("frozen_participation", participation, above=0.0, maximum=1.0)
            sampling = settings.sampling._replace(participation=share)
            settings = settings._replace(sampling=sampling)
        if is_drawn(problem, settings):
            check_moment_rows(params)
            weight_moments(problem.weights, settings.sampling)
        return cls(settings, frozen_lr)

    @property
    def local_lr(self) -> float:
        """η of the warm-up."""
        return step_at(self.settings.local_lr, 0)

    def at(self, problem: Problem, params: Params) -> tuple[FrozenStage, FrozenMoments | None]:
        """The (mean) stage at a kernel, and its moments where anything is random."""
        return self.each(problem, [params])[0]

    def each(
        self, problem: Problem, points: Sequence[Params]
    ) -> list[tuple[FrozenStage, FrozenMoments | None]]:
        """The same at many points."""
        settings = self.settings
        steps: dict[str, Any] = {
            "local_steps": settings.local_steps,
            "local_lr": self.local_lr,
            "frozen_lr": self.frozen_lr,
        }
        if not is_drawn(problem, settings):
            return [(stage, None) for stage in frozen_stages(problem, points, **steps)]
        drawn: dict[str, Any] = {
            "participation": settings.sampling.participation,
            "sampling": settings.sampling.scheme,
            "batch_size": settings.batch_size,
            "stragglers": settings.stragglers,
        }
        found = [frozen_moments(problem, params, **steps, **drawn) for params in points]
        return [(moments.stage, moments) for moments in found]


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
        "warmup_star": warmup_star(lengths, variables["objective"][1], variables["stable"][1]),
    }
    return xr.Dataset(variables, coords={"warmup": lengths}, attrs=attributes)


def warmup_star(lengths: Sequence[int], objective: Array, stable: BoolArray) -> int | None:
    """Return T*, the smallest argmin of the objective over stable entries, None without one."""
    held = np.where(stable & np.isfinite(objective), objective, INF)
    best = int(np.argmin(held))
    return int(lengths[best]) if np.isfinite(held[best]) else None


def _recorded(
    path: Sequence[Params] | None, start: Params, lengths: Sequence[int]
) -> list[Params] | None:
    """The entries of a recorded path at each warm-up length, after checking that it fits."""
    if path is None:
        return None
    if len(path) <= lengths[-1]:
        raise ValueError(
            f"path must hold {lengths[-1] + 1} entries, rounds 0 to {lengths[-1]}, got {len(path)}."
        )
    if any(point.layout != start.layout for point in path):
        raise ValueError("path must have the layout of params, got another one.")
    if not np.array_equal(path[0].flat, start.flat):
        raise ValueError("path must start at params, got another start.")
    return [path[t] for t in lengths]


def warmup_path(
    problem: Problem, params: Params, lengths: Sequence[int], settings: Settings
) -> list[Params]:
    """Return the FedAvg parameters after each warm-up length, from one simulated run."""
    settings = settings._replace(rounds=lengths[-1])
    driver = RoundDriver(fed_avg(), problem, problem.oracle(params), params, settings)
    driver.counts_costs, path = False, [params.flat]
    with np.errstate(over="ignore", invalid="ignore"):
        for done in stretches(driver):
            path += list(done.path)
            if not np.isfinite(done.path[-1]).all():
                break
    return [Params(params.layout, path[min(t, len(path) - 1)]) for t in lengths]


def _rows(
    problem: Problem,
    reached: Sequence[Params],
    synchronized: Sequence[Params],
    remaining: Sequence[int],
    second: SecondStage,
    reference: float,
) -> list[Row]:
    """One row per warm-up length; what all need is computed for all of them at once."""
    profiles = finite_profiles(problem, reached).tolist()
    smooth = finite_profiles(problem, synchronized).tolist()
    held = [k for k, profile in enumerate(profiles) if np.isfinite(profile)]
    points = [reached[k] for k in held]
    stages = second.each(problem, points)
    values = [stage.after(remaining[k]) for k, (stage, _) in zip(held, stages, strict=True)]
    losses = finite_losses(problem, points, values)
    rows = [
        Row(INF, INF, control, INF, INF, INF, INF, INF, INF, INF, False, second.local_lr)
        for control in smooth
    ]
    for k, (stage, moments), loss in zip(held, stages, losses.tolist(), strict=True):
        rounds, profile = remaining[k], profiles[k]
        stable = rounds == 0 or (stage.stable if moments is None else moments.stable)
        noise = 0.0 if moments is None else moments.noise(rounds)
        parts = (*stage.drift_parts(rounds), noise) if stable else (INF,) * 4
        objective = loss + noise
        residual = objective - profile - sum(parts) if stable else INF
        bias, rate, step = profile - reference, stage.rate, stage.local_lr
        rows[k] = Row(objective, profile, smooth[k], *parts, bias, residual, rate, stable, step)
    return rows


def loss_after(problem: Problem, params: Params, stage: FrozenStage, rounds: int) -> float:
    """Return F(B, V) on the statistics after frozen rounds, +inf where they overflow.

    The loss of the mean where the stage is random.
    """
    return float(finite_losses(problem, [params], [stage.after(rounds)])[0])
