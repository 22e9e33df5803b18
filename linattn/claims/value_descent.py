"""The frozen stage as inexact gradient descent on a strongly convex quadratic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.claims.along import finite, frozen_rounds
from linattn.claims.record import Condition, Instance, shared
from linattn.theory.frozen import FrozenStage, frozen_stage

GAP_ROUNDING = 1e-29
"""Square of a few hundred roundings, relative to ‖A‖‖V*‖²cond(A)."""


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


class Curvatures(NamedTuple):
    """Exact extreme eigenvalues of A, and the largest of all A_i."""

    smallest: float
    largest: float
    clients: float


@shared
def stage_of(instance: Instance) -> FrozenStage:
    """The frozen stage of an instance."""
    return frozen_stage(
        instance.problem,
        instance.params,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
    )


def curvatures(stage: FrozenStage) -> Curvatures:
    """λ_min(A), λ_max(A), max_i λ_max(A_i)."""
    values = np.linalg.eigvalsh(stage.hessian)
    clients = float(np.linalg.eigvalsh(stage.hessians).max())
    return Curvatures(float(values[0]), float(values[-1]), clients)


def rounding(stage: FrozenStage, budget: float) -> float:
    """What to add to a scale so that the budget covers rounding of f − f* at V*.

    V* is solved with a backward error: its gap ½rᵀA⁻¹r with ‖r‖ ≈ 1e-16‖A‖‖V*‖ is not zero.
    """
    curved = curvatures(stage)
    condition = curved.largest / curved.smallest
    size = float(np.sum(stage.minimizer**2)) + float(np.sum(stage.start**2))
    return GAP_ROUNDING * curved.largest * size * condition / budget


def squared_rounding(stage: FrozenStage) -> float:
    """Square of the error with which V* is known: a few hundred roundings times cond(A)."""
    condition = float(np.linalg.cond(stage.hessian))
    size = float(np.sum(stage.minimizer**2)) + float(np.sum(stage.start**2))
    return GAP_ROUNDING * condition**2 * size


def value_descent(
    instance: Instance, stage: FrozenStage, *, every_round: bool
) -> tuple[ValueDescent | None, Condition]:
    """The frozen rounds of an instance as inexact steps: local ones of size η, or rounds of ηE."""
    paths = frozen_rounds(instance)
    condition = finite(paths, instance.rounds)
    if condition.slack < 0:
        return None, condition
    value = instance.params.layout.slices["value"]
    stride = stage.local_steps if every_round else 1
    places = [path.mean[:-1:stride, value] for path in paths]
    updates = [np.tensordot(path.weights, path.gradients[..., value], (0, 1)) for path in paths]
    # A round of E local steps is one step of size ηE along their mean gradient.
    applied = np.concatenate([rows.reshape(-1, stride, rows.shape[1]).mean(1) for rows in updates])
    points = np.concatenate([*places, paths[-1].mean[-1:, value]])
    return _described(stage, points, applied, stage.local_lr * stride), condition


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
