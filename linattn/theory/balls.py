"""The model in ball arithmetic: every number with a proved radius (needs python-flint)."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.types import Params, Problem

PRECISION = 256
MAX_DIM = 4
Ball = Any
Matrix = Any


def flint() -> Any:
    """Return the module python-flint, at 256 bits.

    Raises
    ------
    ImportError
        If it is not installed; the sentence says how to install it.
    """
    try:
        import flint as module
    except ImportError as error:
        raise ImportError(
            "interval certificates need python-flint: pip install 'linattn[certify]'."
        ) from error
    if module.ctx.prec < PRECISION:
        module.ctx.prec = PRECISION
    return module


def exact_ball(number: float) -> Ball:
    """Return a double, which is a rational, as an exact ball."""
    return flint().arb(float(number))


def matrix(array: Array) -> Matrix:
    """Return doubles, which are rationals, as an exact ball matrix."""
    held = np.atleast_2d(np.asarray(array, dtype=np.float64))
    module = flint()
    return module.arb_mat(*held.shape, [module.arb(float(x)) for x in held.ravel()])


def identity(size: int) -> Matrix:
    """Return the identity matrix."""
    return matrix(np.eye(size))


def inner(left: Matrix, right: Matrix) -> Ball:
    """Return ⟨left, right⟩."""
    return (left.transpose() * right).trace()


def is_positive_definite(symmetric: Matrix) -> bool | None:
    """Whether a symmetric ball matrix is positive definite: None where pivots cannot decide.

    Notes
    -----
    Source: C1 (A is positive definite). By Sylvester's law the pivots of elimination without
    exchanges are all positive exactly for positive definite matrices. Cost: N³ ball operations.
    """
    rows = [list(row) for row in symmetric.tolist()]
    for k, pivot_row in enumerate(rows):
        pivot = pivot_row[k]
        if not pivot > 0:
            return False if pivot < 0 else None
        for row in rows[k + 1 :]:
            factor = row[k] / pivot
            for j in range(k, len(row)):
                row[j] = row[j] - factor * pivot_row[j]
    return True


def rayleigh(symmetric: Matrix, vector: Array) -> Ball:
    """Return the Rayleigh quotient at a vector: between the extreme eigenvalues, whatever it is."""
    v = matrix(vector.reshape(-1, 1))
    return inner(v, symmetric * v) / inner(v, v)


class Sequence(NamedTuple):
    """Statistics of a sequence as exact ball matrices, with its weight in its client and in F."""

    gram: Matrix
    moment: Matrix
    cross: Matrix
    energy: Ball
    client: int
    within: Ball


class Exact(NamedTuple):
    """A problem with one merged head whose stored doubles are taken as exact rationals."""

    sequences: list[Sequence]
    weights: list[Ball]
    value_ridge: Ball
    kernel_ridge: Ball

    def mean(self, terms: list[Any]) -> Any:
        """Σ p_i mean over client i of one term per sequence."""
        pairs = zip(self.sequences, terms, strict=True)
        return total([term * (self.weights[s.client] * s.within) for s, term in pairs])

    def client_mean(self, client: int, terms: list[Any]) -> Any:
        """Mean over one client's sequences."""
        pairs = zip(self.sequences, terms, strict=True)
        return total([term * s.within for s, term in pairs if s.client == client])


def total(parts: list[Any]) -> Any:
    """Return the sum of balls or ball matrices."""
    return reduce(add, parts)


def exact_problem(problem: Problem, params: Params) -> Exact:
    """Return the problem in ball arithmetic.

    Raises
    ------
    ValueError
        For several heads, factored kernels or d > 4.

    Notes
    -----
    Source: Model. The doubles G, M, K, c of the problem are the exact input; what they
    were computed from is not certified.
    """
    if params.is_factored or params.num_heads != 1 or problem.dim > MAX_DIM:
        raise ValueError(
            f"params must have one merged head and d <= {MAX_DIM} to be certified, got {params!r}."
        )
    held = problem.statistics
    owners = np.repeat(np.arange(problem.num_clients), problem.client_sizes)
    moments, cross = held.query_moments(), held.cross_moments()
    sequences = [
        Sequence(
            matrix(held.gram[s]),
            matrix(moments[s]),
            matrix(cross[s]),
            exact_ball(held.energy[s]),
            int(owner),
            1 / exact_ball(problem.client_sizes[owner]),
        )
        for s, owner in enumerate(owners)
    ]
    return Exact(
        sequences,
        [exact_ball(p) for p in problem.weights],
        exact_ball(problem.value_ridge),
        exact_ball(problem.kernel_ridge),
    )
