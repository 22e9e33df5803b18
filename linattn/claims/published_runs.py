"""Frozen rounds with every client's value block, for published bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.claims.along import finite, frozen_rounds
from linattn.claims.record import Claim, Condition, Instance, Measurement, shared
from linattn.claims.value_descent import stage_of
from linattn.theory.frozen import FrozenStage

SOURCE = "literature: frozen stage"
FULL = ("full batches", "full participation", "weights p_i in place of 1/M")


class FrozenRounds(NamedTuple):
    """Frozen rounds: V_{i,e} as (R, E + 1, C, Hd, m), and the stage."""

    stage: FrozenStage
    places: Array

    def excess(self, places: Array) -> Array:
        """F(B, ·) − F(B, V*) at stacked value blocks."""
        lag = places - self.stage.minimizer.reshape(places.shape[-2:])
        return np.asarray(0.5 * np.sum(lag * (self.stage.hessian @ lag), axis=(-2, -1)))

    @property
    def means(self) -> Array:
        """Virtual iterates, (R, E + 1, Hd, m)."""
        return np.asarray(np.einsum("i,reiam->ream", self.stage.weights, self.places))

    @property
    def distance_sq(self) -> float:
        """‖V_0 − V*‖²."""
        return float(np.sum((self.stage.start - self.stage.minimizer) ** 2))

    @property
    def heterogeneity_sq(self) -> float:
        """Largest ‖∇F_i − ∇F‖² over clients at all local and virtual iterates."""
        stage = self.stage
        shared = np.broadcast_to(self.means[:, :, None], self.places.shape)
        linear = np.tensordot(stage.weights, stage.linears, 1)
        largest = 0.0
        for points in (self.places, shared):
            apart = (stage.hessians - stage.hessian) @ points - (stage.linears - linear)
            largest = max(largest, float(np.sum(apart**2, axis=(-2, -1)).max()))
        return largest


@shared
def frozen_places(instance: Instance) -> tuple[FrozenRounds | None, Condition]:
    """The frozen rounds of an instance, and whether they stayed finite."""
    stage = stage_of(instance)
    paths = frozen_rounds(instance)
    condition = finite(paths, instance.rounds)
    if condition.slack < 0:
        return None, condition
    value = instance.params.layout.slices["value"]
    places = np.stack([path.places[..., value] for path in paths])
    shape = (*places.shape[:3], stage.hessian.shape[0], stage.start.shape[-1])
    return FrozenRounds(stage, places.reshape(shape)), condition


def smoothness(stage: FrozenStage) -> float:
    """L = max λ_max(A_i)."""
    return stage.largest_step_curvature / stage.local_lr


def small_step(stage: FrozenStage, limit: float) -> Condition:
    """The condition ηL ≤ limit."""
    return Condition(f"ηL ≤ {limit:g}", limit - stage.largest_step_curvature)


def recalled(
    name: str, statement: str, measure: Callable[[Instance], Measurement], *assumptions: str
) -> Claim:
    """A published upper bound whose paper could not be compared."""
    return Claim(
        name, statement, "upper", SOURCE, measure, provenance="recalled",
        assumptions=(*FULL, *assumptions),
    )  # fmt: skip
