"""Khaled, Mishchenko and Richtárik 2020: the mean loss over local steps, convex clients."""

import numpy as np

from linattn.claims.conditions import CLOSED_FORM, FINITE_FROZEN
from linattn.claims.frozen_runs import frozen_places, smoothness, stage_of
from linattn.claims.record import Claim, Constant, Instance, Measurement, Requirement
from linattn.theory.published import khaled_bound, khaled_step


def _measure(instance: Instance) -> Measurement:
    held = frozen_places(instance)
    stage, largest = held.stage, smoothness(held.stage)
    at_star = stage.gradients_at_minimizer
    sigma_sq = float(stage.weights @ np.sum(at_star**2, axis=(1, 2)))
    bound = khaled_bound(
        held.distance_sq,
        instance.rounds * stage.local_steps,
        step_size=stage.local_lr,
        smoothness=largest,
        local_steps=stage.local_steps,
        dissimilarity_sq=sigma_sq,
    )
    return Measurement(
        float(held.excess(held.means[:, :-1]).mean()),
        bound,
        bound,
        constants=(
            Constant("L", largest, "exact, largest over clients"),
            Constant("σ*²", sigma_sq, "exact at V*"),
        ),
    )


SMALL = Requirement(
    "η ≤ min{1/(4L), 1/(8L(E − 1))}",
    lambda at: khaled_step(smoothness(stage_of(at)), at.local_steps) - at.local_lr,
)
CLAIMS = (
    Claim(
        "Khaled",
        "mean of F(x̂_t) − F* over t < T ≤ 2D²/(ηT) + 24η²σ*²E²L",
        "upper",
        "Khaled, Mishchenko and Richtárik 2020",
        _measure,
        needs=CLOSED_FORM,
        conditions=(FINITE_FROZEN, SMALL),
        provenance="recalled",
    ),
)
