"""The frozen stage of an instance: in closed form, as inexact descent, client by client."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.claims.along import frozen_rounds
from linattn.claims.record import Constant, Instance, shared
from linattn.claims.sizes import rounded
from linattn.theory.frozen import FrozenStage, frozen_stage

GAP_ROUNDING = 1e-29
"""Square of some fifteen roundings, relative to ‖A‖‖V*‖²cond(A)."""


@shared
def stage_of(instance: Instance) -> FrozenStage:
    """The frozen stage in closed form: all clients, full batches, plain steps."""
    return frozen_stage(
        instance.problem,
        instance.params,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
    )


class Curvatures(NamedTuple):
    """Exact extreme eigenvalues of A."""

    smallest: float
    largest: float

    @property
    def constants(self) -> tuple[Constant, Constant]:
        """L and μ of V ↦ F(B, V)."""
        return (
            Constant("L = λ_max(A)", self.largest, "exact"),
            Constant("μ = λ_min(A)", self.smallest, "exact"),
        )


@shared
def curvatures(instance: Instance) -> Curvatures:
    """λ_min(A) and λ_max(A)."""
    return curvatures_of(stage_of(instance))


def curvatures_of(stage: FrozenStage) -> Curvatures:
    """As `curvatures`."""
    values = np.linalg.eigvalsh(stage.hessian)
    return Curvatures(float(values[0]), float(values[-1]))


def smoothness(stage: FrozenStage) -> float:
    """L = max λ_max(A_i)."""
    return stage.largest_step_curvature / stage.local_lr


def rounding(stage: FrozenStage, budget: float) -> float:
    """What to add to a scale so that the budget covers rounding of f − f* at V*.

    V* is solved with a backward error: its gap ½rᵀA⁻¹r with ‖r‖ ≈ 1e-16‖A‖‖V*‖ is not zero.
    """
    curved = curvatures_of(stage)
    return GAP_ROUNDING * curved.largest * _size(stage) * curved.largest / curved.smallest / budget


def squared_rounding(stage: FrozenStage) -> float:
    """Square of the error with which V* is known: some fifteen roundings times cond(A)."""
    return GAP_ROUNDING * float(np.linalg.cond(stage.hessian)) ** 2 * _size(stage)


def _size(stage: FrozenStage) -> float:
    return float(np.sum(stage.minimizer**2)) + float(np.sum(stage.start**2))


class ValueDescent(NamedTuple):
    """Points x_0..x_N of V ↦ F(B, V) with x⁺ = x − γ(∇f + e).

    Attributes
    ----------
    excess : array, shape (N + 1,)
        f − f* by C1, units of loss.
    slopes, errors : array, shape (N, Hdm)
        ∇f and e.
    client_norms : array, shape (N, C)
        ‖∇F_i‖ at the points.
    step_size : float
        γ.
    """

    excess: Array
    slopes: Array
    errors: Array
    client_norms: Array
    step_size: float

    @property
    def slope_norms(self) -> Array:
        """‖∇f‖, (N,)."""
        return np.asarray(np.linalg.norm(self.slopes, axis=1))

    @property
    def error_norms(self) -> Array:
        """‖e‖, (N,)."""
        return np.asarray(np.linalg.norm(self.errors, axis=1))

    def scale(self, stage: FrozenStage, budget: float) -> float:
        """Sum of the sizes of the terms, rounding of V* and of the points included."""
        paid = 0.5 * self.step_size * np.max(self.error_norms**2)
        along = float(self.slope_norms.max() * np.linalg.norm(stage.start))
        return float(self.excess.max() + paid) + rounding(stage, budget) + rounded(along, budget)


@shared
def local_descent(instance: Instance) -> ValueDescent:
    """The frozen rounds as inexact steps of size η, with minibatches and sampling if there are."""
    return value_descent(instance, 1)


def value_descent(instance: Instance, stride: int) -> ValueDescent:
    """The frozen rounds as inexact steps: `stride` local steps are one of size stride·η."""
    stage, paths = stage_of(instance), frozen_rounds(instance)
    value = instance.params.layout.slices["value"]
    places = [path.mean[:-1:stride, value] for path in paths]
    updates = [np.tensordot(path.weights, path.gradients[..., value], (0, 1)) for path in paths]
    # Several local steps are one step along their mean gradient.
    applied = np.concatenate([rows.reshape(-1, stride, rows.shape[1]).mean(1) for rows in updates])
    points = np.concatenate([*places, paths[-1].mean[-1:, value]])
    return _described(stage, points, applied, stage.local_lr * stride)


def _described(stage: FrozenStage, points: Array, applied: Array, step: float) -> ValueDescent:
    shape = (-1, stage.hessian.shape[0], stage.start.shape[-1])
    held, flat = points.reshape(shape), (len(applied), -1)
    lag = held - stage.minimizer.reshape(shape[1:])
    slopes = stage.hessian @ lag
    clients = stage.hessians @ held[:-1, None] - stage.linears
    return ValueDescent(
        0.5 * np.einsum("nam,nam->n", lag, slopes),
        slopes[:-1].reshape(flat),
        applied - slopes[:-1].reshape(flat),
        np.asarray(np.linalg.norm(clients, axis=(2, 3))),
        step,
    )


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
        common = np.broadcast_to(self.means[:, :, None], self.places.shape)
        linear = np.tensordot(stage.weights, stage.linears, 1)
        largest = 0.0
        for points in (self.places, common):
            apart = (stage.hessians - stage.hessian) @ points - (stage.linears - linear)
            largest = max(largest, float(np.sum(apart**2, axis=(-2, -1)).max()))
        return largest


@shared
def frozen_places(instance: Instance) -> FrozenRounds:
    """Every client's value block in the frozen rounds.

    Raises
    ------
    ValueError
        If some clients were not asked.
    """
    stage, paths = stage_of(instance), frozen_rounds(instance)
    if len(paths[0].participants) < len(stage.weights):
        raise ValueError("participation must be full for what compares all clients.")
    value = instance.params.layout.slices["value"]
    places = np.stack([path.places[..., value] for path in paths])
    shape = (*places.shape[:3], stage.hessian.shape[0], stage.start.shape[-1])
    return FrozenRounds(stage, places.reshape(shape))
