"""C6: how far clients drift apart within a round, with all parameters and at a frozen kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from linattn._typing import Array
from linattn.analysis.applicable import FULL_BATCHES, MERGED, PLAIN_STEPS
from linattn.analysis.trajectory import LocalPath, client_gradients
from linattn.claims.along import frozen_rounds, shown, warmup_rounds
from linattn.claims.conditions import FINITE_FROZEN_ROUND, FINITE_WARMUP_ROUND, client_steps
from linattn.claims.frozen_runs import stage_of
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement
from linattn.claims.sizes import gradient_terms, path_size, rounded
from linattn.theory.consensus import (
    consensus_chain,
    frozen_consensus_bound,
    frozen_contraction_bound,
    secant_constants,
    segment_constant,
)
from linattn.types import Params

MAX_SEGMENTS = 6


def _spreads(instance: Instance, path: LocalPath) -> tuple[Array, Array, Array]:
    """D_0..D_E, ζ_0..ζ_{E−1}, and ∇F_i(w_i) − ∇F_i(w̄), (E, P, D)."""
    at_mean = client_gradients(instance.problem, instance.params, path.participants, path.mean[:-1])
    distances = path.spread(path.places)
    distances[0] = 0.0  # all start at the server's parameters; a weighted mean may round
    return distances, path.spread(at_mean), path.full_gradients - at_mean


def _scale(instance: Instance, path: LocalPath, distances: Array, zetas: Array) -> float:
    """Sum of |terms|; distances are differences of parameters, and sums of those of gradients."""
    moved = path.step_size * len(zetas) * gradient_terms(instance)
    terms = float(distances.max() + path.step_size * zetas.max())
    return terms + rounded(path_size(path) + moved, LONG_BUDGET)


def _secant(instance: Instance) -> Measurement:
    """Every step of the recursion from the measured D_e, and as the last row the unrolled bound."""
    path = warmup_rounds(instance)[0]
    distances, zetas, changes = _spreads(instance, path)
    constants = secant_constants(path.weights, changes, distances[:-1])
    eta, scale = path.step_size, _scale(instance, path, distances, zetas)
    chain = consensus_chain(eta, constants, zetas)
    single = (1.0 + eta * constants) * distances[:-1] + eta * zetas
    rows = [(float(d), float(b), scale) for d, b in zip(distances[1:], single, strict=True)]
    return Measurement(
        *shown([*rows, (float(distances[-1]), float(chain[-1]), scale)], LONG_BUDGET),
        constants=(
            Constant("max L_e", float(constants.max()), "secant along the path"),
            Constant("max ζ_e", float(zetas.max()), "measured along the path"),
        ),
    )


def _segment(instance: Instance) -> Measurement:
    path = warmup_rounds(instance)[0]
    distances, zetas, _ = _spreads(instance, path)
    eta, mean, layout = path.step_size, path.mean, instance.params.layout
    scale = _scale(instance, path, distances, zetas)
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
        constants=(Constant("max L_e", largest, "Hessian on the segment, safe upper bound"),),
    )


def _frozen(instance: Instance, bound_of: Callable[..., float | None]) -> Measurement:
    """D_E of the first round against a bound from ζ = max_e ζ_e."""
    stage, path = stage_of(instance), frozen_rounds(instance)[0]
    value = instance.params.layout.slices["value"]
    at_mean = client_gradients(instance.problem, instance.params, path.participants, path.mean[:-1])
    zeta = float(path.spread(at_mean[..., value]).max())
    # The expression is judged even beyond the condition when a verdict is forced.
    bound = bound_of(stage, zeta, force=True)
    assert bound is not None
    return Measurement(
        float(path.spread(path.places[-1, :, value])),
        bound,
        bound + float(np.linalg.norm(stage.start)),
        constants=(
            Constant("ζ", zeta, "largest along the path"),
            Constant("ηλ_max", stage.largest_step_curvature, "exact"),
        ),
    )


CLAIMS = (
    Claim(
        "C6",
        "D_{e+1} ≤ (1 + ηL_e)D_e + ηζ_e with the secant constant, unrolled over a round",
        "upper",
        "Warm-up",
        _secant,
        needs=(PLAIN_STEPS, FULL_BATCHES),
        conditions=(FINITE_WARMUP_ROUND,),
        budget=LONG_BUDGET,
    ),
    Claim(
        "C6 segment",
        "D_{e+1} ≤ (1 + ηL_e)D_e + ηζ_e with a bound of the Hessian on the segments",
        "upper",
        "Warm-up",
        _segment,
        needs=(MERGED, PLAIN_STEPS, FULL_BATCHES),
        conditions=(FINITE_WARMUP_ROUND,),
        budget=LONG_BUDGET,
        share=0.25,
    ),
    Claim(
        "C6 frozen",
        "frozen stage, η ≤ 2/λ_max: D_E ≤ ηEζ, ζ the largest over local steps",
        "upper",
        "Warm-up",
        partial(_frozen, bound_of=frozen_consensus_bound),
        needs=(PLAIN_STEPS, FULL_BATCHES),
        conditions=(client_steps(2.0), FINITE_FROZEN_ROUND),
        budget=LONG_BUDGET,
    ),
    Claim(
        "C6 contracting",
        "frozen stage, η ≤ 1/λ_max: D_E ≤ ζ(1 − (1 − ηa)^E)/a",
        "upper",
        "Warm-up",
        partial(_frozen, bound_of=frozen_contraction_bound),
        needs=(PLAIN_STEPS, FULL_BATCHES),
        conditions=(client_steps(1.0), FINITE_FROZEN_ROUND),
        budget=LONG_BUDGET,
    ),
)
