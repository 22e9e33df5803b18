"""C19: covariance and mean profile of sampled runs, along the centralized path."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from linattn._settings import check_sampling
from linattn._typing import Array
from linattn.claims.along import server_path
from linattn.claims.conditions import FED_AVG, yes_or_no
from linattn.claims.ours.c20_moments import sampled
from linattn.claims.record import Claim, Constant, Instance, Measurement, Requirement, shared
from linattn.objectives import Joint, KernelProfile
from linattn.objectives.steps import safe_step
from linattn.theory.drift_flow import STATIONARY
from linattn.theory.response import MAX_NOISE_SIZE, DriftResponse, drift_response
from linattn.theory.weights import weight_moments
from linattn.types import Params

RUNS = 100
"""Of an ensemble, fixed before any was run."""
HORIZON, ROUNDS = 0.5, 25
"""τ times the curvature, and rounds: noise of a fiftieth of 1/curvature a round."""
MOST_STEPS = 3
DIFFERENCE, NEGLIGIBLE = 1e-4, 1e-6
TINY = 1e-16
"""Variance relative to ‖θ‖² that is rounding."""
NEAR = 0.25
"""Share of the motion of the flow by which a run of finite steps may miss its end: the moments are
those of first order in the step, and a kernel that hardly moves is moved by drift alone."""


def _step(instance: Instance) -> float:
    length = HORIZON * 2.0 * safe_step(instance.problem, instance.params)
    return length / (ROUNDS * instance.local_steps)


@shared
def _response(instance: Instance) -> DriftResponse:
    return drift_response(
        instance.problem,
        instance.params,
        _step(instance) * instance.local_steps * ROUNDS,
        noise=True,
        participation=instance.participation,
        batch_size=instance.batch_size,
    )


class _Spread(NamedTuple):
    """Mean shift m (D,) and covariance Σ (D, D) of the last round."""

    shift: Array
    covariance: Array


@shared
def _predicted(instance: Instance) -> _Spread:
    noise, eta = _response(instance).noise, _step(instance)
    assert noise is not None
    length = eta * instance.local_steps
    return _Spread(
        length * noise.sampling_shift[-1] + eta * noise.batch_shift[-1],
        length * noise.sampling_covariance[-1] + eta * noise.batch_covariance[-1],
    )


def _end(instance: Instance, **changes: Any) -> Array:
    """Where a run like that of an instance ends, at the step of the instance."""
    changed = instance._replace(**changes)
    return np.asarray(server_path(changed, rounds=ROUNDS, local_lr=_step(instance))[-1])


@shared
def _still(instance: Instance) -> Array:
    """Where the run of the mean weights and full batches ends, (D,)."""
    drawn = check_sampling(instance.participation, "uniform")
    weights = weight_moments(instance.problem.weights, drawn).mean
    everybody = replace(instance.problem, weights=weights)
    return _end(instance, problem=everybody, participation=1.0, batch_size=None)


class _Ends(NamedTuple):
    """Where sampled runs end, (N, D), and the run without draws, (D,)."""

    sampled: Array
    still: Array


@shared
def _ends(instance: Instance) -> _Ends:
    runs = [_end(instance, seed=instance.seed + k) for k in range(RUNS)]
    return _Ends(np.stack(runs), _still(instance))


def _against(found: Array, expected: float, variance: float, *constants: Constant) -> Measurement:
    """A mean over runs beside its expectation, in standard errors.

    Squares are skewed: runs among which the rare large ones are missing have both too small a mean
    and too small a spread. So the variance is at least that of a normal θ.
    """
    spread = max(float(found.var(ddof=1)), variance)
    error = float(np.sqrt(spread / len(found)))
    return Measurement(float(found.mean()), expected, error, constants=constants)


def _spread(instance: Instance) -> Measurement:
    """E‖θ − θ_still‖² = tr Σ + ‖m‖²."""
    (shift, covariance), ends = _predicted(instance), _ends(instance)
    size, away = float(np.trace(covariance)), float(shift @ shift)
    found = np.sum((ends.sampled - ends.still) ** 2, axis=1)
    variance = 2.0 * float(np.vdot(covariance, covariance)) + 4.0 * float(
        shift @ covariance @ shift
    )
    share = Constant("‖m‖²", away / (size + away), "share of it")
    return _against(found, size + away, variance, share)


def _profile(instance: Instance) -> Measurement:
    """E[P(B) − P(B_still) − ⟨∇P, B − B_still⟩] = ½⟨∇²P, Σ⟩; the rest is linear in the shift."""
    spread, ends, layout = _predicted(instance).covariance, _ends(instance), instance.params.layout
    profile, still = KernelProfile(instance.problem), Params(layout, ends.still)
    values = np.array([profile.value(Params(layout, end)) for end in ends.sampled])
    linear = (ends.sampled - ends.still) @ profile.gradient(still).flat
    kernel = layout.mask(layout.kernel_blocks)
    sizes, vectors = np.linalg.eigh(spread * np.outer(kernel, kernel))
    kept = sizes > NEGLIGIBLE * sizes[-1]
    ways = vectors[:, kept] * np.sqrt(sizes[kept])  # Σ = ways·waysᵀ
    curved = [_curved(profile, still, way) for way in ways.T]
    bends = ways.T @ np.reshape(curved, (-1, still.flat.size)).T
    variance = 0.5 * float(np.vdot(bends, bends.T))
    found = values - profile.value(still) - linear
    return _against(found, 0.5 * float(np.trace(bends)), variance)


def _curved(profile: KernelProfile, at: Params, direction: Array) -> Array:
    """∇²P v by a central difference of ∇P."""
    size = DIFFERENCE * float(np.linalg.norm(at.flat) / np.linalg.norm(direction))
    ends = (Params(at.layout, at.flat + sign * size * direction) for sign in (1.0, -1.0))
    up, down = (profile.gradient(end).flat for end in ends)
    return np.asarray((up - down) / (2.0 * size))


def _variance(instance: Instance) -> float:
    """tr Σ relative to ‖θ‖²."""
    flat = instance.params.flat
    return float(np.trace(_predicted(instance).covariance) / (flat @ flat))


def _moves(instance: Instance) -> float:
    """How far the start is from standing still, as the response asks for it."""
    slope = Joint(instance.problem).gradient(instance.params).flat
    size = max(1.0, float(np.linalg.norm(instance.params.flat)))
    return float(np.linalg.norm(slope)) - 2.0 * STATIONARY * size


def _follows(instance: Instance, *, kernel: bool) -> float:
    """Slack of the run without draws ending where the flow does, in all blocks or the kernel's."""
    layout, path = instance.params.layout, _response(instance).path
    part = layout.mask(layout.kernel_blocks if kernel else frozenset(layout.names))
    moved = float(np.linalg.norm((path[-1] - path[0])[part]))
    return NEAR * moved - float(np.linalg.norm((_still(instance) - path[-1])[part]))


def small_and_sampled(instance: Instance) -> Instance:
    """Up to three local steps, and something to draw."""
    return sampled(instance)._replace(local_steps=min(MOST_STEPS, instance.local_steps))


CONDITIONS = (
    Requirement(
        f"at most {MAX_NOISE_SIZE} parameters",
        lambda at: float(MAX_NOISE_SIZE - at.params.flat.size),
        essential=True,
    ),
    Requirement("a start that is not stationary", _moves, essential=True),
    yes_or_no("something is drawn", lambda at: _variance(at) > TINY, "no draw matters"),
)
NEARLY_THE_FLOW = f"without draws within {NEAR:g} of the flow's motion of its end"
CLAIMS = (
    Claim(
        "C19",
        f"E‖θ − θ_everybody‖² = tr Σ + ‖m‖² along the path, against {RUNS} runs",
        "statistical",
        "Drift as impulses",
        _spread,
        needs=FED_AVG,
        conditions=(
            *CONDITIONS,
            Requirement(NEARLY_THE_FLOW, lambda at: _follows(at, kernel=False)),
        ),
        share=0.02,
        record=200,
        suit=small_and_sampled,
    ),
    Claim(
        "C19 profile",
        f"E[P(B) − P(B_everybody)] = ½⟨∇²P, Σ⟩ without the linear part, against {RUNS} runs",
        "statistical",
        "Drift as impulses",
        _profile,
        needs=FED_AVG,
        conditions=(
            *CONDITIONS,
            Requirement(f"kernel {NEARLY_THE_FLOW}", lambda at: _follows(at, kernel=True)),
        ),
        share=0.02,
        record=200,
        suit=small_and_sampled,
    ),
)
