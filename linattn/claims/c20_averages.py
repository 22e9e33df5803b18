"""Published bounds on averages over local steps of the frozen stage: all recalled."""

from __future__ import annotations

import numpy as np

from linattn.claims.along import shown
from linattn.claims.published_runs import (
    FrozenRounds,
    frozen_places,
    recalled,
    small_step,
    smoothness,
)
from linattn.claims.record import (
    LONG_BUDGET,
    Condition,
    Constant,
    Instance,
    Measurement,
    refused,
)
from linattn.claims.value_descent import squared_rounding
from linattn.theory.published import (
    field_guide_bound,
    field_guide_drift,
    khaled_bound,
    khaled_step,
)


def _khaled(instance: Instance) -> Measurement:
    held, condition = frozen_places(instance)
    if held is None:
        return refused(condition)
    stage = held.stage
    largest, steps = smoothness(stage), stage.local_steps
    small = Condition("ηL ≤ min(1/4, 1/(8(E − 1)))", khaled_step(largest, steps)
                      - stage.local_lr)  # fmt: skip
    at_star = stage.gradients_at_minimizer
    sigma_sq = float(stage.weights @ np.sum(at_star**2, axis=(1, 2)))
    bound = khaled_bound(
        held.distance_sq,
        instance.rounds * steps,
        step_size=stage.local_lr,
        smoothness=largest,
        local_steps=steps,
        dissimilarity_sq=sigma_sq,
    )
    return Measurement(
        float(held.excess(held.means[:, :-1]).mean()),
        bound,
        bound,
        conditions=(condition, small),
        constants=(
            Constant("L", largest, "exact, largest over clients"),
            Constant("σ*²", sigma_sq, "exact at V*"),
        ),
    )


def _guide_constants(held: FrozenRounds) -> tuple[Constant, ...]:
    return (
        Constant("L", smoothness(held.stage), "exact, largest over clients"),
        Constant("ζ²", held.heterogeneity_sq, "largest at visited points"),
    )


def _guide(instance: Instance) -> Measurement:
    held, condition = frozen_places(instance)
    if held is None:
        return refused(condition)
    stage = held.stage
    bound = field_guide_bound(
        held.distance_sq,
        instance.rounds,
        step_size=stage.local_lr,
        smoothness=smoothness(stage),
        local_steps=stage.local_steps,
        heterogeneity_sq=held.heterogeneity_sq,
    )
    return Measurement(
        float(held.excess(held.means[:, 1:]).mean()),
        bound,
        bound,
        conditions=(condition, small_step(stage, 0.25)),
        constants=_guide_constants(held),
    )


def _guide_drift(instance: Instance) -> Measurement:
    held, condition = frozen_places(instance)
    if held is None:
        return refused(condition)
    stage = held.stage
    apart = np.sum((held.places - held.means[:, :, None]) ** 2, axis=(-2, -1))
    bound = field_guide_drift(stage.local_lr, stage.local_steps, held.heterogeneity_sq)
    return Measurement(
        float(apart[:, :-1].max()),
        bound,
        bound + float(np.sum(stage.start**2)) * 1e-8,
        conditions=(condition, small_step(stage, 0.25)),
        constants=_guide_constants(held),
    )


def _guide_progress(instance: Instance) -> Measurement:
    """One round: mean progress, paid by the distance to V* and by the drift."""
    held, condition = frozen_places(instance)
    if held is None:
        return refused(condition)
    stage, means = held.stage, held.means
    lag = np.sum((means - stage.minimizer.reshape(means.shape[-2:])) ** 2, axis=(-2, -1))
    apart = np.sum((held.places - means[:, :, None]) ** 2, axis=(-2, -1)) @ stage.weights
    gained = (lag[:, 0] - lag[:, -1]) / (2.0 * stage.local_lr * stage.local_steps)
    drift = smoothness(stage) * apart[:, :-1].mean(axis=1)
    measured = held.excess(means[:, 1:]).mean(axis=1)
    length = stage.local_lr * stage.local_steps
    noise = squared_rounding(stage) / (length * LONG_BUDGET)
    scale = np.abs(gained) + drift + lag[:, 0] / length + noise
    rows = [(float(m), float(g + d), float(s)) for m, g, d, s
            in zip(measured, gained, drift, scale, strict=True)]  # fmt: skip
    return Measurement(
        *shown(rows, LONG_BUDGET),
        conditions=(condition, small_step(stage, 0.25)),
        constants=_guide_constants(held),
        budget=LONG_BUDGET,
    )


SMALL = "ηL ≤ 1/4"
CLAIMS = (
    recalled(
        "Khaled",
        "mean of F(x̂_t) − F* over t < T ≤ 2D²/(ηT) + 24η²σ*²E²L",
        _khaled,
        "η ≤ min{1/(4L), 1/(8L(E − 1))}",
    ),
    recalled(
        "field guide",
        "mean of F(x̄) − F* over local steps ≤ D²/(2ηER) + 18E²η²Lζ²",
        _guide,
        SMALL,
    ),
    recalled("field guide drift", "‖x_i − x̄‖² ≤ 18E²η²ζ²", _guide_drift, SMALL),
    recalled(
        "field guide progress",
        "one round: mean F(x̄) − F* ≤ (‖x̄_0 − V*‖² − ‖x̄_E − V*‖²)/(2ηE) + L·mean Σp‖x_i − x̄‖²",
        _guide_progress,
        SMALL,
    ),
)
