"""Derivatives of gradients along directions, by differences that are exact for polynomials.

∇F of one layer is a polynomial along every line: of degree three with merged kernels, five with
factored ones, and of degree two in the entries of a single block. Central differences of enough
points then have no truncation error whatever the step, so steps are as large as the parameters and
rounding stays small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from linattn._typing import Array

Gradients = Callable[[Array], Array]
"""Points (N, D) -> gradients (N, D)."""

# Offsets j = 1, 2, … with weights of f(j) − f(−j), and of f(j) + f(−j) − 2 f(0).
FIRST = {False: (2.0 / 3.0, -1.0 / 12.0), True: (0.75, -0.15, 1.0 / 60.0)}
SECOND = {False: (1.0,), True: (4.0 / 3.0, -1.0 / 12.0)}


def slopes(gradients: Gradients, flat: Array, directions: Array, *, factored: bool) -> Array:
    """Return the Hessian times each direction, (N, D) -> (N, D).

    Parameters
    ----------
    gradients : callable (N, D) -> (N, D)
        ∇F of a single-layer objective.
    flat : array, shape (D,)
    directions : array, shape (N, D)
    factored : bool
        Whether kernels are factored: then ∇F has degree five along a line, else three.

    Notes
    -----
    Source: Second derivatives. Exact but for rounding. Cost: 4 N gradients,
    6 N factored.
    """
    weights = FIRST[factored]
    steps = reach(flat, directions)
    moved = _around(flat, steps, directions, len(weights))
    found = gradients(np.concatenate(moved)).reshape(len(weights), 2, *directions.shape)
    return np.asarray(np.tensordot(weights, found[:, 0] - found[:, 1], 1) / steps)


def second_slopes(gradients: Gradients, flat: Array, directions: Array, *, factored: bool) -> Array:
    """Return D²∇F[v, v] for each direction v, (N, D) -> (N, D).

    Parameters
    ----------
    gradients, flat, directions, factored
        As in `slopes`.

    Notes
    -----
    Source: C19 (∇³F:Σ = Σ_k λ_k D²∇F[v_k, v_k] over eigenpairs of Σ). Exact but for rounding. Cost:
    2 N + 1 gradients, 4 N + 1 factored.
    """
    weights = SECOND[factored]
    steps = reach(flat, directions)
    moved = _around(flat, steps, directions, len(weights))
    found = gradients(np.concatenate([flat[None], *moved]))
    pairs = found[1:].reshape(len(weights), 2, *directions.shape).sum(axis=1) - 2.0 * found[0]
    return np.asarray(np.tensordot(weights, pairs, 1) / steps**2)


def _around(flat: Array, steps: Array, directions: Array, count: int) -> list[Array]:
    """Points j steps away on both sides along every direction, j = 1 … `count`, (N, D) each."""
    offsets = [sign * j for j in range(1, count + 1) for sign in (1, -1)]
    return [flat + offset * steps * directions for offset in offsets]


def reach(flat: Array, directions: Array) -> Array:
    """Factors that make directions as long as the parameters, (N, 1); 1 for zero directions."""
    sizes = np.linalg.norm(directions, axis=1, keepdims=True)
    length = float(np.linalg.norm(flat)) or 1.0
    return np.where(sizes > 0.0, length / np.where(sizes > 0.0, sizes, 1.0), 1.0)


def hessian(gradients: Gradients, flat: Array) -> Array:
    """Return ∇²F of a single-layer objective, (D, D), symmetrized.

    In one entry ∇F is quadratic, so two points do.

    Notes
    -----
    Source: Second derivatives. Exact but for rounding. Cost: 2 D gradients.
    """
    units = (float(np.linalg.norm(flat)) or 1.0) * np.eye(flat.size) / np.sqrt(flat.size)
    found = gradients(np.concatenate([flat + units, flat - units]))
    size = flat.size
    raw = (found[:size] - found[size:]) / (2.0 * units[0, 0])
    return np.asarray(0.5 * (raw + raw.T))
