"""Symmetries of the data term and the identities they imply (C11, C12)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._checks import as_float64, shown
from linattn._typing import Array
from linattn.objectives.joint import Joint
from linattn.objectives.population import population
from linattn.params import is_single_layer
from linattn.types import Params, Problem


class EulerSides(NamedTuple):
    """Both sides of the Euler identity, and the size of the terms before anything cancels."""

    left: Array
    right: Array
    scale: float


def euler_identity(problem: Problem, params: Params) -> EulerSides:
    """Return both sides of the Euler identity between the blocks.

    Merged, all head pairs, (H, H): ⟨∂_{B_h}F, B_k⟩ − μ⟨B_h, B_k⟩ = ⟨∂_{V_k}F, V_h⟩ − λ⟨V_k, V_h⟩.
    Factored, (H, r, r): Q_hᵀ∂Q_h − μQ_hᵀQ_h = (∂K_h)ᵀK_h − μK_hᵀK_h.

    Parameters
    ----------
    problem : Problem
    params : Params

    Raises
    ------
    ValueError
        If the parameters do not fit the problem.

    Notes
    -----
    Source: C11. Full gradients, ridges inside. Not for FedAvg fixed points, whose gradients are not
    those of F. Cost: one gradient.
    """
    slope = Joint(problem).gradient(params)
    mu, lam = problem.kernel_ridge, problem.value_ridge
    if params.is_factored:
        query, key = params["query"], params["key"]
        left = query.transpose(0, 2, 1) @ (slope["query"] - mu * query)
        right = (slope["key"] - mu * key).transpose(0, 2, 1) @ key
    else:
        left = _inner(slope["kernel"] - mu * params["kernel"], params["kernel"])
        right = _inner(slope["value"] - lam * params["value"], params["value"]).T
    held = population(problem)
    blocks = sum(
        float(np.linalg.norm(slope[name]) * np.linalg.norm(params[name]))
        for name in params.layout.names
    )
    return EulerSides(left, right, blocks + 2.0 * held.ridge(params) + held.form.energy)


def _inner(left: Array, right: Array) -> Array:
    """⟨left_h, right_k⟩ of all head pairs, (H, H)."""
    return np.tensordot(left, right, ((1, 2), (1, 2)))


def change_gauge(params: Params, change: Array) -> Params:
    """Return parameters that predict the same and (unless orthogonal) pay another ridge.

    Factored: (Q_h, K_h) → (Q_h M, K_h M⁻ᵀ) with M = `change`, (r, r). Merged: heads mix,
    B_h → Σ_k B_k T_kh and V_h → Σ_k (T⁻¹)_hk V_k with T = `change`, (H, H).

    Parameters
    ----------
    params : Params
    change : array, shape (r, r) or (H, H)
        Invertible.

    Raises
    ------
    ValueError
        If `change` has the wrong shape or is singular.

    Notes
    -----
    Source: C12. Ridges and gradient methods keep only the orthogonal changes. Cost: one inverse,
    r³ or H³.
    """
    if not is_single_layer(params.layout):
        raise ValueError("params must be of the single-layer model, got those of another one.")
    size = params["query"].shape[-1] if params.is_factored else params.num_heads
    matrix = as_float64("change", change, ndim=2)
    if matrix.shape != (size, size) or np.linalg.matrix_rank(matrix) < size:
        raise ValueError(
            f"change must be an invertible ({size}, {size}) matrix, got {shown(change)}."
        )
    inverse = np.linalg.inv(matrix)
    if params.is_factored:
        return params.replace(query=params["query"] @ matrix, key=params["key"] @ inverse.T)
    return params.replace(
        kernel=np.einsum("kab,kh->hab", params["kernel"], matrix),
        value=np.einsum("hk,kam->ham", inverse, params["value"]),
    )


def gauge_directions(params: Params) -> Array:
    """Return the directions along which predictions stay, (number of them, D).

    Merged: B_h → Σ_k B_k T_kh with V_h → Σ_k (T⁻¹)_hk V_k, the derivatives in T, H² of them, of
    which the diagonal ones balance a head's kernel against its values. Factored, per head: (Q, K) →
    (QM, KM⁻ᵀ), r² of them, and (Q, K) against V. Not independent if blocks are singular.

    Parameters
    ----------
    params : Params

    Notes
    -----
    Source: C12. Along them F changes by its ridges alone. Cost: D per direction.
    """
    size = params["query"].shape[-1] if params.is_factored else params.num_heads
    rows = []
    for h in range(params.num_heads):
        if params.is_factored:
            query, key, value = params["query"], params["key"], params["value"]
            rows.append(_moved(params, h, query=query[h], key=key[h], value=-2.0 * value[h]))
            for i, j in np.ndindex(size, size):
                unit = np.zeros((size, size))
                unit[i, j] = 1.0
                rows.append(_moved(params, h, query=query[h] @ unit, key=-key[h] @ unit.T))
        else:
            for k in range(size):
                moved = _moved(params, h, kernel=params["kernel"][k])
                rows.append(moved + _moved(params, k, value=-params["value"][h]))
    return np.stack(rows)


def _moved(like: Params, head: int, **blocks: Array) -> Array:
    """A flat direction with the given blocks of one head, zero elsewhere."""
    flat = np.zeros(like.layout.size)
    for name, block in blocks.items():
        like.layout.view(flat, name)[head] = block
    return flat
