"""The descent certificate: the warm-up as inexact descent on the kernel profile (C4, C4f)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from linattn._settings import LocalSteps, StepSize
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.analysis.applicable import refuse_others
from linattn.analysis.step_errors import ErrorSplit, StepErrors
from linattn.analysis.trajectory import recorded_driver
from linattn.federated.method import Method
from linattn.federated.rounds import Round, check_settings
from linattn.linalg import largest_eigenvalue
from linattn.objectives.compiled import MAX_NUMBERS
from linattn.objectives.population import Population, ValueSystem, population
from linattn.objectives.profile import KernelCurvatureBound, cheap_curvature_bound
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr

EXACT_CURVATURE_SIZE = 256
VIOLATION_TOLERANCE = 1e-12
LEDGER = (
    "descent_paid",
    "tracking_cost",
    "drift_cost",
    "noise_cost",
    "sampling_cost",
    "cross_term",
    "step_term",
)
IDENTITY = ("paid", "tracking", "drift", "noise", "sampling", "curvature", "resolve")
ERRORS = ("track", "drift", "noise", "sampling")


def looseness(certificate: xr.Dataset) -> float:
    """Return (Cert(T) − P(B_T)) / (P(B_0) − P(B_T)) at T = argmin P; NaN if P never fell.

    Parameters
    ----------
    certificate : xarray.Dataset
        Of `descent_certificate`.

    Raises
    ------
    KeyError
        If it has no profile or certificate.

    Notes
    -----
    Source: C4; 0 is tight. Cost: none.
    """
    profile = certificate["profile"].values
    t = int(np.argmin(profile))
    fall = float(profile[0] - profile[t])
    if fall <= 0.0:
        return float("nan")
    return float((certificate["certificate"].values[t] - profile[t]) / fall)


def descent_certificate(
    problem: Problem,
    params: Params,
    *,
    rounds: int,
    local_steps: LocalSteps,
    local_lr: StepSize,
    batch_size: int | None = None,
    participation: float = 1.0,
    sampling: str = "uniform",
    stragglers: float = 0.0,
    seed: int = 0,
    method: Method | None = None,
    force: bool = False,
) -> xr.Dataset:
    """Return the descent certificate of a FedAvg warm-up.

    At the virtual iterate B̄ of every local step, with g = ∇P(B̄) + ε the averaged kernel gradient,

        P(B̄⁺) ≤ P(B̄) − (η/2)‖∇P‖² + (η/2)‖ε‖² − (η/2)(1 − ηL_K)‖g‖²          (merged, C4)
        P(θ⁺) = P(θ) − (η/2)‖∇P‖² + (η/2)‖ε‖² − (η/2)‖g‖² + ρ − resolve         (factored, C4f)

    Sums run over the participants that are still working: a client that has finished its E_i steps
    stays in B̄ and contributes nothing to g, to the drift or to the gradient that stands for all.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    rounds, local_steps, local_lr, batch_size, participation, sampling, stragglers, seed
        As in `run`.
    method : Method, optional
        Default `fed_avg()`.
    force : bool
        Judge a method that the certificate does not speak of all the same.

    Returns
    -------
    xarray.Dataset
        Over `round` = 0..rounds (0 = start), sums over all local steps so far, units of loss:
        ``certificate`` ≥ ``profile`` and its terms descent_paid, tracking_cost, drift_cost,
        noise_cost, sampling_cost, cross_term, step_term; the signed sums of the additive identity
        paid, tracking, drift, noise, sampling, curvature, resolve and its ``residual``;
        ``violations`` (local steps of that round) and ``eta_L``. After divergence +inf. Attributes:
        ``curvature_kind`` ("exact", "cheap bound" or, factored, "remainder") and
        ``diverged_round`` (None if it did not).

    Raises
    ------
    ValueError
        If an argument is out of range; if the certificate is not applicable to the method, or a
        round is met in which not everybody trains the kernel.

    Notes
    -----
    Source: C4, C4f, additive identity (Warm-up); unequal work, C21. L_K is exact for
    Hd² ≤ 256 and the cheap bound of C3 above; the attribute says which. Cost: per local step one
    profile, two gradients and one 𝓚 on the population, besides the run itself.
    """
    if not force:
        refuse_others("descent_certificate", method)
    settings = check_settings(
        rounds=rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        batch_size=batch_size,
        participation=participation,
        sampling=sampling,
        stragglers=stragglers,
        seed=seed,
    )
    driver = recorded_driver(problem, params, settings, method)
    ledger = Ledger(problem, params)
    ledger.follow(driver)
    return ledger.finish(settings.rounds)


class Ledger:
    """Observer of rounds that fills the certificate, local step by local step.

    ``steps`` holds ‖∇P‖², ‖ε‖² and ηL_K of every local step, ``profiles`` P around them.
    """

    def __init__(self, problem: Problem, params: Params) -> None:
        self.problem = problem
        self.layout = params.layout
        self.population: Population = population(problem)
        self.kernel = params.layout.kernel_part
        self.sums = dict.fromkeys((*LEDGER, *IDENTITY), 0.0)
        self.system = self.population.value_system(params.kernels())
        self.profile = self.initial = self.population.profile_value(params, self.system)
        self.rows: list[dict[str, float]] = []
        self.profiles = [self.profile]
        self.steps: list[tuple[float, float, float]] = []
        self.cheap: KernelCurvatureBound | None = None
        if params.is_factored:
            self.curvature_kind = "remainder"
        elif self.kernel.stop <= EXACT_CURVATURE_SIZE:
            self.curvature_kind = "exact"
        else:
            self.curvature_kind = "cheap bound"
            self.cheap = cheap_curvature_bound(problem)
        self._row(0, 0.0)

    def _row(self, violations: int, eta_curvature: float) -> None:
        s = self.sums
        costs = s["tracking_cost"] + s["drift_cost"] + s["noise_cost"] + s["sampling_cost"]
        certificate = self.initial - s["descent_paid"] + costs + s["cross_term"] - s["step_term"]
        predicted = self.initial + sum(s[name] for name in IDENTITY)
        self.rows.append(
            {
                **s,
                "profile": self.profile,
                "certificate": certificate,
                "residual": self.profile - predicted,
                "violations": violations,
                "eta_L": eta_curvature,
            }
        )

    def follow(self, driver: Iterable[Round]) -> bool:
        """Account for a whole run; False if it stopped being finite."""
        with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
            return all(bool(np.isfinite(d.flat).all()) and self.add(d) for d in driver)

    def add(self, done: Round) -> bool:
        """Account for all local steps of a round; False once an iterate is no longer finite."""
        assert done.trace is not None
        self._check_trains_kernel(done)
        step_size = done.plan.local_lr
        places = np.einsum("p,epd->ed", done.context.weights, done.trace.iterates)
        places = np.concatenate([places, done.flat[None]])
        split = ErrorSplit(self.problem, self.population, self.kernel, done)
        violations, eta_curvature = 0, 0.0
        chunk = max(1, MAX_NUMBERS // self.system.hessian.size)
        try:
            for first in range(0, len(places) - 1, chunk):
                part = places[first : first + chunk + 1]
                for violated, bend in self._steps(split, first, part, step_size):
                    violations += violated
                    eta_curvature = max(eta_curvature, bend)
        except FloatingPointError:
            return False
        self._row(violations, eta_curvature)
        return True

    def _steps(
        self, split: ErrorSplit, first: int, places: Array, eta: float
    ) -> Iterator[tuple[bool, float]]:
        """What `_step` says of all steps between places (n + 1, D).

        Raises
        ------
        FloatingPointError
            At the first that is not finite.
        """
        points = [Params(self.layout, flat) for flat in places]
        ahead = self.population.value_systems(np.stack([at.kernels() for at in points[1:]]))
        profiles = self.population.profiles_of(points[1:], ahead.saved).tolist()
        minimizers = np.concatenate([self.system.minimizer[None], ahead.minimizers[:-1]])
        found = split.steps(first, places[:-1], minimizers)
        for k, (update, errors, slope) in enumerate(found):
            if not np.isfinite(profiles[k]):
                raise FloatingPointError("the profile is not finite")
            following = ahead.one(k, self.system.dim)
            yield self._step(points[k], following, profiles[k], update, errors, slope, eta)

    def _check_trains_kernel(self, done: Round) -> None:
        """Refuse rounds in which not everybody trains the whole kernel."""
        kernel, plan = self.layout.kernel_blocks, done.plan
        if not all(kernel <= plan.trained_by(k) for k in range(len(done.ends))):
            raise ValueError(
                "rounds must train the kernel at every participant for the descent certificate, "
                f"got round {done.context.round}, which does not."
            )

    def _step(
        self,
        here: Params,
        following: ValueSystem,
        profile: float,
        update: Array,
        errors: StepErrors,
        slope: Array,
        eta: float,
    ) -> tuple[bool, float]:
        """Add the terms of one step to P = `profile`; return whether it violates C4, and η·L_K."""
        change = following.minimizer - self.system.minimizer
        resolve = 0.5 * float(np.vdot(change, following.hessian @ change))
        size = float(update @ update)
        if here.is_factored:
            curvature = self._factored_remainder(here, update, eta)
            step_term = 0.5 * eta * size - curvature
            eta_curvature = 2.0 * curvature / (eta * size) if size > 0.0 else 0.0
        else:
            bend, largest = self._merged_curvature(update)
            curvature = 0.5 * eta**2 * bend
            step_term = 0.5 * eta * (1.0 - eta * largest) * size
            eta_curvature = eta * largest
        terms = self._ledger_terms(errors, slope, eta, step_term)
        right = self.profile + sum(terms[n] for n in LEDGER if n not in _SUBTRACTED)
        right -= sum(terms[n] for n in _SUBTRACTED)
        scale = abs(self.profile) + sum(abs(x) for x in terms.values())
        violated = profile - right > VIOLATION_TOLERANCE * scale
        for name, term in terms.items():
            self.sums[name] += term
        for name, error in zip(ERRORS, errors, strict=True):
            self.sums[_IDENTITY_OF[name]] -= eta * float(slope @ error)
        self.sums["paid"] -= eta * float(slope @ slope)
        self.sums["curvature"] += curvature
        self.sums["resolve"] -= resolve
        self.profile, self.system = profile, following
        total = errors.track + errors.drift + errors.noise + errors.sampling
        self.steps.append((float(slope @ slope), float(total @ total), eta_curvature))
        self.profiles.append(profile)
        return violated, eta_curvature

    def _ledger_terms(
        self, errors: StepErrors, slope: Array, eta: float, step_term: float
    ) -> dict[str, float]:
        track, drift, noise, sampling = errors
        cross = track @ drift + (track + drift) @ noise + (track + drift + noise) @ sampling
        return {
            "descent_paid": 0.5 * eta * float(slope @ slope),
            "tracking_cost": 0.5 * eta * float(track @ track),
            "drift_cost": 0.5 * eta * float(drift @ drift),
            "noise_cost": 0.5 * eta * float(noise @ noise),
            "sampling_cost": 0.5 * eta * float(sampling @ sampling),
            "cross_term": eta * float(cross),
            "step_term": step_term,
        }

    def _merged_curvature(self, update: Array) -> tuple[float, float]:
        """⟨g, 𝓚g⟩ and a safe L_K at V*(B̄)."""
        held, ridge = self.population, self.population.kernel_ridge
        value = self.system.value
        if self.cheap is None:
            matrix = held.form.twin.kernel_hessian(value)
            bend = float(update @ (matrix @ update)) + ridge * float(update @ update)
            return bend, largest_eigenvalue(matrix) + ridge
        return self._data_bend(value, update) + ridge * float(update @ update), self.cheap(value)

    def _data_bend(self, value: Array, direction: Array) -> float:
        """⟨D, 𝓚₀D⟩ without forming 𝓚₀."""
        heads, dim = value.shape[:2]
        block = direction.reshape(heads, dim, dim)
        zero = np.zeros_like(block)
        image, _ = self.population.form.hvp(zero, value, block, np.zeros_like(value))
        return float(np.vdot(image, block))

    def _factored_remainder(self, here: Params, update: Array, eta: float) -> float:
        """ρ of C4f in closed form, without subtraction."""
        held = self.population
        value = self.system.value
        query, key = here["query"], here["key"]
        half = query.size
        query_step = update[:half].reshape(query.shape)
        key_step = update[half:].reshape(key.shape)
        product = query_step @ key_step.transpose(0, 2, 1)
        linear = query_step @ key.transpose(0, 2, 1) + query @ key_step.transpose(0, 2, 1)
        change = -eta * linear + eta**2 * product
        data_slope = held.form.gradient(here.kernels(), value).kernel
        bend = self._data_bend(value, change.reshape(-1))
        return (
            eta**2 * float(np.vdot(data_slope, product))
            + 0.5 * bend
            + 0.5 * held.kernel_ridge * eta**2 * float(update @ update)
        )

    def finish(self, rounds: int) -> xr.Dataset:
        """The certificate as a dataset, padded with +inf after divergence."""
        import xarray as xr

        reached = len(self.rows) - 1
        variables = {}
        for name in self.rows[0]:
            column = np.full(rounds + 1, 0.0 if name == "violations" else np.inf)
            column[: reached + 1] = [row[name] for row in self.rows]
            units = {} if name in ("violations", "eta_L") else {"units": "loss"}
            kind = np.int64 if name == "violations" else np.float64
            variables[name] = ("round", column.astype(kind), units)
        return xr.Dataset(
            variables,
            coords={"round": np.arange(rounds + 1)},
            attrs={
                "curvature_kind": self.curvature_kind,
                "diverged_round": reached if reached < rounds else None,
            },
        )


_SUBTRACTED = ("descent_paid", "step_term")
_IDENTITY_OF = {"track": "tracking", "drift": "drift", "noise": "noise", "sampling": "sampling"}
