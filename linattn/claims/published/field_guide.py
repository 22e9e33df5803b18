"""Wang et al. 2021, the field guide: theorem 1 and its two lemmas, full gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from linattn.claims.along import shown
from linattn.claims.conditions import CLOSED_FORM, FINITE_FROZEN, client_steps
from linattn.claims.frozen_runs import FrozenRounds, frozen_places, smoothness, squared_rounding
from linattn.claims.record import (
    LONG_BUDGET,
    ROUNDING_BUDGET,
    Claim,
    Constant,
    Instance,
    Measurement,
)
from linattn.theory.published import field_guide_bound, field_guide_drift


def _constants(held: FrozenRounds) -> tuple[Constant, ...]:
    return (
        Constant("L", smoothness(held.stage), "exact, largest over clients"),
        Constant("ζ²", held.heterogeneity_sq, "largest at visited points"),
    )


def _theorem(instance: Instance) -> Measurement:
    held = frozen_places(instance)
    stage = held.stage
    bound = field_guide_bound(
        held.distance_sq,
        instance.rounds,
        step_size=stage.local_lr,
        smoothness=smoothness(stage),
        local_steps=stage.local_steps,
        heterogeneity_sq=held.heterogeneity_sq,
    )
    measured = float(held.excess(held.means[:, 1:]).mean())
    return Measurement(measured, bound, bound, constants=_constants(held))


def _drift(instance: Instance) -> Measurement:
    held = frozen_places(instance)
    stage = held.stage
    apart = np.sum((held.places - held.means[:, :, None]) ** 2, axis=(-2, -1))
    bound = field_guide_drift(stage.local_lr, stage.local_steps, held.heterogeneity_sq)
    scale = bound + float(np.sum(stage.start**2)) * 1e-8
    return Measurement(float(apart[:, :-1].max()), bound, scale, constants=_constants(held))


def _progress(instance: Instance) -> Measurement:
    """One round: mean progress, paid by the distance to V* and by the drift."""
    held = frozen_places(instance)
    stage, means = held.stage, held.means
    lag = np.sum((means - stage.minimizer.reshape(means.shape[-2:])) ** 2, axis=(-2, -1))
    apart = np.sum((held.places - means[:, :, None]) ** 2, axis=(-2, -1)) @ stage.weights
    length = stage.local_lr * stage.local_steps
    gained = (lag[:, 0] - lag[:, -1]) / (2.0 * length)
    drift = smoothness(stage) * apart[:, :-1].mean(axis=1)
    measured = held.excess(means[:, 1:]).mean(axis=1)
    noise = squared_rounding(stage) / (length * LONG_BUDGET)
    scale = np.abs(gained) + drift + lag[:, 0] / length + noise
    rows = [(float(m), float(b), float(s))
            for m, b, s in zip(measured, gained + drift, scale, strict=True)]  # fmt: skip
    return Measurement(*shown(rows, LONG_BUDGET), constants=_constants(held))


def _claim(
    name: str,
    statement: str,
    measure: Callable[[Instance], Measurement],
    budget: float = ROUNDING_BUDGET,
) -> Claim:
    return Claim(
        name,
        statement,
        "upper",
        "Wang et al. 2021",
        measure,
        needs=CLOSED_FORM,
        conditions=(FINITE_FROZEN, client_steps(0.25)),
        provenance="recalled",
        budget=budget,
    )


CLAIMS = (
    _claim("field guide", "mean of F(x̄) − F* over local steps ≤ D²/(2ηER) + 18E²η²Lζ²", _theorem),
    _claim("field guide drift", "‖x_i − x̄‖² ≤ 18E²η²ζ²", _drift),
    _claim(
        "field guide progress",
        "one round: mean F(x̄) − F* ≤ (‖x̄_0 − V*‖² − ‖x̄_E − V*‖²)/(2ηE) + L·mean Σp‖x_i − x̄‖²",
        _progress,
        LONG_BUDGET,
    ),
)
