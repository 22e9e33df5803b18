"""C6: how far clients drift apart within a round, with all parameters and at a frozen kernel."""

from __future__ import annotations

import numpy as np

from linattn._typing import Array
from linattn.analysis.trajectory import LocalPath, client_gradients
from linattn.claims.along import finite, frozen_rounds, shown, warmup_rounds
from linattn.claims.record import (
    LONG_BUDGET,
    Claim,
    Condition,
    Constant,
    Instance,
    Measurement,
    merged_condition,
    refused,
    shared,
)
from linattn.claims.value_descent import stage_of
from linattn.theory.consensus import (
    consensus_chain,
    frozen_consensus_bound,
    frozen_contraction_bound,
    secant_constants,
    segment_constant,
)
from linattn.theory.frozen import FrozenStage
from linattn.types import Params

MAX_SEGMENTS = 6


def _full_batches(instance: Instance) -> Condition:
    return Condition("full batches", 0.0 if instance.batch_size is None else -1.0)


def _prepared(instance: Instance, *extra: Condition) -> tuple[list[LocalPath], list[Condition]]:
    """One round, and the conditions; the round is empty where it is not finite."""
    paths = warmup_rounds(instance)[:1]
    return paths, [*extra, _full_batches(instance), finite(paths, 1)]


def _spreads(instance: Instance, path: LocalPath) -> tuple[Array, Array, Array]:
    """D_0..D_E, ζ_0..ζ_{E−1}, and ∇F_i(w_i) − ∇F_i(w̄), (E, P, D)."""
    at_mean = client_gradients(instance.problem, instance.params, path.participants, path.mean[:-1])
    distances = path.spread(path.places)
    distances[0] = 0.0  # all start at the server's parameters; a weighted mean may round
    return distances, path.spread(at_mean), path.full_gradients - at_mean


def _measurement(
    distances: Array, constants: Array, zetas: Array, eta: float
) -> tuple[float, float, float]:
    """Every step of the recursion from the measured D_e; shown is the bound unrolled from 0."""
    chain = consensus_chain(eta, constants, zetas)
    single = (1.0 + eta * constants) * distances[:-1] + eta * zetas
    scale = float(distances.max() + eta * zetas.max())
    rows = [(float(d), float(b), scale) for d, b in zip(distances[1:], single, strict=True)]
    return shown([*rows, (float(distances[-1]), float(chain[-1]), scale)], LONG_BUDGET)


def _secant(instance: Instance) -> Measurement:
    paths, conditions = _prepared(instance)
    if not paths:
        return refused(*conditions)
    (path,) = paths
    distances, zetas, changes = _spreads(instance, path)
    constants = secant_constants(path.weights, changes, distances[:-1])
    return Measurement(
        *_measurement(distances, constants, zetas, path.step_size),
        conditions=tuple(conditions),
        constants=(
            Constant("max L_e", float(constants.max()), "secant along the path"),
            Constant("max ζ_e", float(zetas.max()), "measured along the path"),
        ),
        budget=LONG_BUDGET,
    )


def _segment(instance: Instance) -> Measurement:
    merged = merged_condition(instance.params)
    if merged.slack < 0:
        return refused(merged)
    paths, conditions = _prepared(instance, merged)
    if not paths:
        return refused(*conditions)
    (path,) = paths
    distances, zetas, _ = _spreads(instance, path)
    eta, mean, layout = path.step_size, path.mean, instance.params.layout
    scale = float(distances.max() + eta * zetas.max())
    rows, largest = [], 0.0
    for e in np.unique(np.linspace(0, len(zetas) - 1, MAX_SEGMENTS).astype(int)):
        here = Params(layout, mean[e])
        constant = max(
            segment_constant(instance.problem, int(i), here, Params(layout, path.places[e, k]))
            for k, i in enumerate(path.participants)
        )
        largest = max(largest, constant)
        bound = float((1.0 + eta * constant) * distances[e] + eta * zetas[e])
        rows.append((float(distances[e + 1]), bound, scale))
    return Measurement(
        *shown(rows, LONG_BUDGET),
        conditions=tuple(conditions),
        constants=(Constant("max L_e", largest, "Hessian on the segment, safe upper bound"),),
        budget=LONG_BUDGET,
    )


@shared
def _frozen(instance: Instance) -> tuple[FrozenStage, float, float, Condition]:
    """The stage, D_E, ζ = max_e ζ_e, and whether the round stayed finite."""
    stage = stage_of(instance)
    paths = frozen_rounds(instance)[:1]
    condition = finite(paths, 1)
    if not paths:
        return stage, np.nan, np.nan, condition
    (path,) = paths
    value = instance.params.layout.slices["value"]
    at_mean = client_gradients(
        instance.problem, instance.params, path.participants, path.mean[:-1]
    )[..., value]
    return stage, float(path.spread(path.places)[-1]), float(path.spread(at_mean).max()), condition


def _frozen_measurement(instance: Instance, *, contracting: bool) -> Measurement:
    stage, measured, zeta, condition = _frozen(instance)
    limit = 1.0 if contracting else 2.0
    small = Condition(f"ηλ_max(A_i) ≤ {limit:g}", limit - stage.largest_step_curvature)
    if condition.slack < 0:
        return refused(small, condition)
    # The expression is judged even beyond the condition when a verdict is forced.
    bound_of = frozen_contraction_bound if contracting else frozen_consensus_bound
    bound = bound_of(stage, zeta, force=True)
    assert bound is not None
    return Measurement(
        measured,
        bound,
        bound + float(np.linalg.norm(stage.start)),
        conditions=(small, condition),
        constants=(
            Constant("ζ", zeta, "largest along the path"),
            Constant("ηλ_max", stage.largest_step_curvature, "exact"),
        ),
        budget=LONG_BUDGET,
    )


def _frozen_linear(instance: Instance) -> Measurement:
    return _frozen_measurement(instance, contracting=False)


def _frozen_contracting(instance: Instance) -> Measurement:
    return _frozen_measurement(instance, contracting=True)


SOURCE = "theory section 3"
CLAIMS = (
    Claim(
        "C6",
        "D_{e+1} ≤ (1 + ηL_e)D_e + ηζ_e with the secant constant, unrolled over a round",
        "upper",
        SOURCE,
        _secant,
        assumptions=("full batches", "finite trajectory"),
    ),
    Claim(
        "C6 segment",
        "D_{e+1} ≤ (1 + ηL_e)D_e + ηζ_e with a bound of the Hessian on the segments",
        "upper",
        SOURCE,
        _segment,
        assumptions=("merged kernel", "full batches", "finite trajectory"),
        share=0.25,
    ),
    Claim(
        "C6 frozen",
        "frozen stage, η ≤ 2/λ_max: D_E ≤ ηEζ, ζ the largest over local steps",
        "upper",
        SOURCE,
        _frozen_linear,
        assumptions=("full batches", "full participation", "η ≤ 2/λ_max(A_i)"),
    ),
    Claim(
        "C6 contracting",
        "frozen stage, η ≤ 1/λ_max: D_E ≤ ζ(1 − (1 − ηa)^E)/a",
        "upper",
        SOURCE,
        _frozen_contracting,
        assumptions=("full batches", "full participation", "η ≤ 1/λ_max(A_i)"),
    ),
)
