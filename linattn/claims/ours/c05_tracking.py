"""C5: what the lag of the value block costs, and how the lag moves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.claims.along import Row, shown, warmup_rounds
from linattn.claims.conditions import FED_AVG, FINITE_WARMUP, FINITE_WARMUP_ROUND
from linattn.claims.record import (
    LONG_BUDGET,
    ROUNDING_BUDGET,
    Claim,
    Constant,
    Instance,
    Measurement,
    Requirement,
    shared,
)
from linattn.claims.sizes import gradient_terms, rounded
from linattn.linalg import stack_heads
from linattn.objectives.population import Population, ValueSystem, population
from linattn.theory.tracking import TrackingBound, contracted_lag, tracking_bound
from linattn.types import Params

MAX_POINTS = 8
MAX_CONDITION = 1e8


def _tracking_error(instance: Instance, params: Params) -> tuple[float, float]:
    """‖∂F(θ, V) − ∂F(θ, V*)‖ in the kernel parameters, and the size of what is subtracted."""
    held = population(instance.problem)
    kernel = params.layout.mask(params.layout.kernel_blocks)
    star = held.value_system(params.kernels()).minimizer
    here = held.value_and_gradient(params)[1][kernel]
    there = held.profile_kernel_gradient(params, star)
    size = float(np.linalg.norm(here) + np.linalg.norm(there))
    size += rounded(gradient_terms(instance), ROUNDING_BUDGET)
    return float(np.linalg.norm(here - there)), size


def _bound(instance: Instance) -> Measurement:
    """At the virtual iterates of the first round, evenly spread over its local steps."""
    places = warmup_rounds(instance)[0].mean
    chosen = np.unique(np.linspace(0, len(places) - 1, MAX_POINTS).astype(int))
    rows: list[Row] = []
    bounds: list[TrackingBound] = []
    for e in chosen:
        params = Params(instance.params.layout, places[e])
        measured, size = _tracking_error(instance, params)
        bounds.append(tracking_bound(instance.problem, params))
        rows.append((measured, bounds[-1].value, size))
    row, last = shown(rows, ROUNDING_BUDGET), bounds[-1]
    return Measurement(
        *row,
        constants=(
            Constant("‖J‖₂", last.coupling, "singular value, safe within 1e-12"),
            Constant("κ", last.quadratic, "exact norms of the data"),
            Constant("factor", last.factor, "exact norms of the parameters"),
            Constant("‖Δ‖", last.lag, "exact, one value solve"),
        ),
    )


class _LagStep(NamedTuple):
    """One local step of the lag: both sides of the recursion, and its norm bound."""

    after: Array
    predicted: Array
    terms: float
    norm: float
    push: float


class _Lags(NamedTuple):
    """‖Δ_0‖, every local step, and the largest cond(A) on the way."""

    start: float
    steps: list[_LagStep]
    condition: float


@shared
def _lags(instance: Instance) -> _Lags:
    held, layout = population(instance.problem), instance.params.layout
    paths = warmup_rounds(instance)
    places = [np.array([instance.params.flat]), *(path.mean[1:] for path in paths)]
    models = [Params(layout, flat) for flat in np.concatenate(places)]
    gradients = np.concatenate(
        [np.einsum("p,epd->ed", path.weights, path.gradients) for path in paths]
    )
    systems = [held.value_system(model.kernels()) for model in models]
    steps = [
        _lag_step(held, instance.local_lr, models[k : k + 2], systems[k : k + 2], gradients[k])
        for k in range(len(gradients))
    ]
    start = float(np.linalg.norm(stack_heads(models[0].value) - systems[0].minimizer))
    return _Lags(start, steps, max(float(np.linalg.cond(s.hessian)) for s in systems))


def _lag_step(
    held: Population, eta: float, models: list[Params], systems: list[ValueSystem], update: Array
) -> _LagStep:
    """Δ⁺ against (I − ηA)Δ − ηε_V − [V*(B⁺) − V*(B)]."""
    here, there = models
    value = here.layout.slices["value"]
    gradient = held.value_and_gradient(here)[1][value]
    shape = systems[0].minimizer.shape
    error = (update[value] - gradient).reshape(shape)
    lag = stack_heads(here.value) - systems[0].minimizer
    moved = systems[1].minimizer - systems[0].minimizer
    after = stack_heads(there.value) - systems[1].minimizer
    pulled = eta * (systems[0].hessian @ lag)
    contraction = 1.0 - eta * np.linalg.eigvalsh(systems[0].hessian)
    parts = (there.value, systems[1].minimizer, systems[0].minimizer, lag, pulled, eta * error)
    return _LagStep(
        after,
        lag - pulled - eta * error - moved,
        float(sum(np.linalg.norm(part) for part in parts)),
        float(np.abs(contraction).max()),
        float(eta * np.linalg.norm(error) + np.linalg.norm(moved)),
    )


def _recursion(instance: Instance) -> Measurement:
    steps = _lags(instance).steps
    apart = [float(np.linalg.norm(s.after - s.predicted)) / s.terms for s in steps]
    step = steps[int(np.argmax(apart))]
    return Measurement(
        float(np.linalg.norm(step.after)),
        float(np.linalg.norm(step.predicted)),
        step.terms,
        residual=float(np.linalg.norm(step.after - step.predicted)),
    )


def _contraction(instance: Instance) -> Measurement:
    start, steps, _ = _lags(instance)
    norms, pushes = (np.array([getattr(s, name) for s in steps]) for name in ("norm", "push"))
    measured = [float(np.linalg.norm(step.after)) for step in steps]
    rows = [
        (measured[k], contracted_lag(start, norms[: k + 1], pushes[: k + 1]), steps[k].terms)
        for k in sorted({0, len(steps) // 2, len(steps) - 1})
    ]
    return Measurement(
        *shown(rows, LONG_BUDGET),
        constants=(Constant("max ‖I − ηA‖₂", float(norms.max()), "exact"),),
    )


SOLVABLE = Requirement(
    f"cond(A) ≤ {MAX_CONDITION:g} on the path", lambda at: MAX_CONDITION - _lags(at).condition
)
CLAIMS = (
    Claim(
        "C5",
        "‖ε_track‖ ≤ ‖J‖₂‖Δ‖ + κ‖Δ‖² (factored: times max_h (‖Q_h‖₂² + ‖K_h‖₂²)^½)",
        "upper",
        "Warm-up",
        _bound,
        conditions=(FINITE_WARMUP_ROUND,),
    ),
    Claim(
        "C5 recursion",
        "Δ⁺ = (I − ηA)Δ − ηε_V − [V*(B⁺) − V*(B)] at every local step",
        "identity",
        "Warm-up",
        _recursion,
        needs=FED_AVG,
        conditions=(FINITE_WARMUP, SOLVABLE),
        budget=LONG_BUDGET,
    ),
    Claim(
        "C5 contraction",
        "‖Δ⁺‖ ≤ ‖I − ηA‖₂‖Δ‖ + η‖ε_V‖ + ‖V*(B⁺) − V*(B)‖, unrolled",
        "upper",
        "Warm-up",
        _contraction,
        needs=FED_AVG,
        conditions=(FINITE_WARMUP, SOLVABLE),
        budget=LONG_BUDGET,
    ),
)
