"""Which blocks which client trains: the selection problem (P1), and the errors E1 and E2."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.sparse

from linattn._checks import as_float64, listing, positive_int, real
from linattn._typing import Array, BoolArray, IntArray
from linattn.federated.method import RoundContext, applied_weights

# From this many binary choices on, best response replaces the exact program.
MAX_EXACT_CHOICES = 160


class SelectionErrors(NamedTuple):
    """What a selection of blocks does to the direction of a round, summed over blocks l.

    Attributes
    ----------
    unselected : float
        E1 = Σ_{l nobody trains} ‖∇_l F‖².
    skew : float
        E2 = Σ_{l somebody trains} χ²_l κ_l², χ²_l = Σ_i (w_{i,l} − p_i)²/p_i over all clients and
        κ_l² = Σ_i p_i ‖∇_l F_i − ∇_l F‖².
    error : float
        Σ_{l somebody trains} ‖Σ_i w_{i,l} ∇_l F_i − ∇_l F‖², at most `skew`.
    """

    unselected: float
    skew: float
    error: float


def selection_errors(context: RoundContext) -> SelectionErrors:
    """Return E1, E2 and the error that E2 bounds, of the masks that a planned round sends.

        ‖Σ_i w_{i,l} ∇_l F_i − ∇_l F‖² = ‖Σ_i (w_{i,l} − p_i)(∇_l F_i − ∇_l F)‖² ≤ χ²_l κ_l²

    by Cauchy–Schwarz, because Σ_i w_{i,l} = Σ_i p_i = 1; all gradients at the start of the round.

    Parameters
    ----------
    context : RoundContext
        Of a finished round (``Round.context``).

    Raises
    ------
    ValueError
        If the context is that of a round without a plan.

    Notes
    -----
    Source: the error terms of selective layer fine-tuning (arXiv 2408.15600), as its reviews
    describe them; the inequality is ours. Cost: one gradient of every client.
    """
    plan, flat = context.plan, context.params.flat
    if plan is None:
        raise ValueError("context must be that of a planned round, got one without a plan.")
    p = np.asarray(context.problem.weights)
    gradients = np.stack([context.oracle.gradient(i, flat) for i in range(len(p))])
    mean = p @ gradients
    spread = gradients - mean
    unselected = skew = error = 0.0
    for name, part in context.params.layout.slices.items():
        if name not in plan.trained:
            unselected += float(mean[part] @ mean[part])
            continue
        weights = np.zeros(len(p))
        weights[context.participants] = applied_weights(context, plan, name)
        off = (weights - p) @ spread[:, part]
        kappa_sq = float(p @ np.einsum("ij,ij->i", spread[:, part], spread[:, part]))
        skew += float(np.sum((weights - p) ** 2 / p)) * kappa_sq
        error += float(off @ off)
    return SelectionErrors(unselected, skew, error)


def solve_selection(
    scores: Array, budgets: IntArray, *, consistency: float = 0.0, exact: bool | None = None
) -> BoolArray:
    """Return the masks m that solve (P1).

        max Σ_i Σ_l m_{i,l} n_{i,l} − λ Σ_{i<j} Σ_l (m_{i,l} − m_{j,l})²,   Σ_l m_{i,l} ≤ R_i

    Parameters
    ----------
    scores : array, shape (P, L)
        n ≥ 0.
    budgets : array of int, shape (P,)
        R_i ≥ 1.
    consistency : float
        λ ≥ 0, in units of the scores.
    exact : bool, optional
        True for the mixed-integer program, False for best response; by default exact up to 160
        choices P·L.

    Returns
    -------
    array of bool, shape (P, L)
        Best response gives a Nash point that no single client can improve, the better one of two
        starts; it is exact for λ = 0.

    Raises
    ------
    ValueError
        If a score is negative or the budgets do not fit.

    Notes
    -----
    Source: selective layer fine-tuning (arXiv 2408.15600), its problem P1. With k_l clients on
    block l the penalty is λ k_l (P − k_l), so the program needs one binary variable per (l, k)
    instead of one per pair. Cost: the program grows exponentially with P·L at worst; best response
    sorts L scores per client and sweep.
    """
    scores = as_float64("scores", scores, ndim=2)
    budgets = np.array([positive_int("budgets", r) for r in listing("budgets", budgets)], dtype=int)
    consistency = real("consistency", consistency, minimum=0.0)
    if (scores < 0).any():
        raise ValueError(f"scores must be >= 0, got a minimum of {scores.min():g}.")
    if budgets.shape != scores.shape[:1]:
        raise ValueError(f"budgets must be {len(scores)} integers >= 1, got {budgets.tolist()}.")
    if (budgets >= scores.shape[1]).all():
        return np.ones(scores.shape, dtype=bool)  # no score is negative, and no mask differs
    if consistency == 0.0:
        return _largest(scores, budgets)
    exactly = scores.size <= MAX_EXACT_CHOICES if exact is None else exact
    return (_by_program if exactly else _by_best_response)(scores, budgets, consistency)


def selection_value(masks: BoolArray, scores: Array, consistency: float) -> float:
    """Value of (P1) at masks (P, L)."""
    count = masks.sum(axis=0)
    disagreement = float(np.sum(count * (len(masks) - count)))
    return float(scores[masks].sum()) - consistency * disagreement


def _largest(scores: Array, budgets: IntArray) -> BoolArray:
    """Every client's own largest scores, the first ones where they tie."""
    rank = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(rank < budgets[:, None])


def _by_best_response(scores: Array, budgets: IntArray, consistency: float) -> BoolArray:
    """Clients answer in turn, from their own choice and from the common one; the better end."""
    common = np.tile(scores.sum(axis=0), (len(scores), 1))
    ends = [
        _respond(_largest(start, budgets), scores, budgets, consistency)
        for start in (scores, common)
    ]
    return max(ends, key=lambda masks: selection_value(masks, scores, consistency))


def _respond(masks: BoolArray, scores: Array, budgets: IntArray, consistency: float) -> BoolArray:
    """Given the others, client i gains n_{i,l} + λ Σ_{j≠i} (2m_{j,l} − 1) from block l."""
    masks, changed = masks.copy(), True
    while changed:
        changed = False
        for i, score in enumerate(scores):
            others = masks.sum(axis=0) - masks[i]
            gain = score + consistency * (2.0 * others - (len(masks) - 1))
            best = _largest(gain[None], budgets[i : i + 1])[0] & (gain > 0)
            # Only strict gains, so that the value of (P1) rises and the loop ends.
            if gain[best].sum() > gain[masks[i]].sum() * (1 + 1e-12) + 1e-300:
                masks[i], changed = best, True
    return masks


def _by_program(scores: Array, budgets: IntArray, consistency: float) -> BoolArray:
    """Mixed-integer program in m_{i,l} and u_{l,k} = 1[k_l = k]."""
    clients, blocks = scores.shape
    counts = np.arange(clients + 1)
    scale = max(float(scores.max()), consistency)
    pull = consistency * np.tile(counts * (clients - counts), blocks)
    objective = np.concatenate([-scores.reshape(-1), pull]) / scale
    eye, one = scipy.sparse.eye(blocks), np.ones((1, blocks))
    budget = scipy.sparse.kron(scipy.sparse.eye(clients), one)
    total = scipy.sparse.kron(np.ones((1, clients)), eye)
    chosen = scipy.sparse.kron(eye, np.ones((1, clients + 1)))
    number = scipy.sparse.kron(eye, counts[None])
    rows = scipy.sparse.bmat([[budget, None], [None, chosen], [total, -number]]).tocsc()
    low = np.concatenate([np.zeros(clients), np.ones(blocks), np.zeros(blocks)])
    high = np.concatenate([budgets, np.ones(blocks), np.zeros(blocks)])
    solved = scipy.optimize.milp(
        objective,
        constraints=scipy.optimize.LinearConstraint(rows, low, high),
        integrality=np.ones(len(objective)),
        bounds=scipy.optimize.Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
        raise RuntimeError(f"the selection problem was not solved: {solved.message}")
    return np.asarray(solved.x[: scores.size].reshape(scores.shape) > 0.5)
