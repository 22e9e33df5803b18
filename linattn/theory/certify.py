"""Interval certificates: identities and inequalities decided by ball arithmetic at 256 bits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.objectives.profile import KernelProfile
from linattn.streams import stream
from linattn.theory.balls import (
    Ball,
    Exact,
    Matrix,
    exact_ball,
    exact_problem,
    identity,
    inner,
    is_positive_definite,
    matrix,
    rayleigh,
    total,
)
from linattn.theory.frozen import FrozenStage, frozen_stage
from linattn.types import Params, Problem

MAX_RADIUS = 1e-30


class Certificate(NamedTuple):
    """What ball arithmetic proved about one statement on one problem.

    Attributes
    ----------
    name : str
    decided : bool or None
        True proved, False refuted, None if the balls are too wide to decide.
    value : float
        Middle of the ball: the residual of an identity, what must be positive otherwise.
    radius : float
        Radius of the ball.
    """

    name: str
    decided: bool | None
    value: float
    radius: float


def _identity(name: str, residual: Ball) -> Certificate:
    radius = float(residual.rad())
    decided: bool | None = bool(residual.contains(0))
    if decided and radius > MAX_RADIUS:
        decided = None
    return Certificate(name, decided, float(residual.mid()), radius)


def _positive(name: str, ball: Ball) -> Certificate:
    decided = True if ball > 0 else (False if ball < 0 else None)
    return Certificate(name, decided, float(ball.mid()), float(ball.rad()))


def _definite(name: str, *symmetric: Matrix) -> Certificate:
    """Whether all are positive definite."""
    found = [is_positive_definite(held) for held in symmetric]
    decided = False if False in found else (None if None in found else True)
    return Certificate(name, decided, float("nan"), float("nan"))


class _Point(NamedTuple):
    """The value block problem at a kernel: A, C, V*, P."""

    hessian: Matrix
    linear: Matrix
    star: Matrix
    profile: Ball


def _systems(exact: Exact, kernel: Matrix) -> tuple[list[Matrix], list[Matrix]]:
    """G Bᵀ M B G and G Bᵀ K of every sequence."""
    pairs = [(kernel * s.gram, s) for s in exact.sequences]
    squares = [turned.transpose() * s.moment * turned for turned, s in pairs]
    return squares, [turned.transpose() * s.cross for turned, s in pairs]


def _point(exact: Exact, kernel: Matrix) -> _Point:
    hessian, linear = (exact.mean(terms) for terms in _systems(exact, kernel))
    hessian = hessian + identity(hessian.nrows()) * exact.value_ridge
    star = hessian.solve(linear)
    energy = exact.mean([s.energy for s in exact.sequences])
    profile = (energy - inner(linear, star) + exact.kernel_ridge * inner(kernel, kernel)) / 2
    return _Point(hessian, linear, star, profile)


def _objective(exact: Exact, kernel: Matrix, value: Matrix) -> Ball:
    """F(B, V) from predictions, not from the normal equations."""
    losses = []
    for s in exact.sequences:
        product = kernel * s.gram * value
        losses.append(s.energy - 2 * inner(s.cross, product) + inner(product, s.moment * product))
    ridges = exact.value_ridge * inner(value, value) + exact.kernel_ridge * inner(kernel, kernel)
    return (exact.mean(losses) + ridges) / 2


def _gradients(exact: Exact, kernel: Matrix, value: Matrix) -> tuple[Matrix, Matrix]:
    """∂_BF and ∂_VF, ridges inside."""
    by_kernel, by_value = [], []
    for s in exact.sequences:
        mapped = s.gram * value
        residual = s.moment * (kernel * mapped) - s.cross
        by_kernel.append(residual * mapped.transpose())
        by_value.append(s.gram * kernel.transpose() * residual)
    return (
        exact.mean(by_kernel) + kernel * exact.kernel_ridge,
        exact.mean(by_value) + value * exact.value_ridge,
    )


def _curved(exact: Exact, value: Matrix, direction: Matrix) -> Matrix:
    """𝓚(V)[D]."""
    terms = []
    for s in exact.sequences:
        mapped = s.gram * value
        terms.append(s.moment * direction * mapped * mapped.transpose())
    return exact.mean(terms) + direction * exact.kernel_ridge


def certify(
    problem: Problem, params: Params, *, local_steps: int, local_lr: float, seed: int = 0
) -> list[Certificate]:
    """Return interval certificates of the claims on one small problem.

    Identities C1, C3, C4 (additive, one step) and C11: the residual ball contains zero with a
    radius of at most 1e-30. Inequalities C3f, C4 (one step), L_K ≥ λ_max, ρ < 1, the C8 bound, and
    the sign of every entry of the bias: decided by the sign of a ball.

    Parameters
    ----------
    problem : Problem
        Whose stored doubles are taken as exact rationals.
    params : Params
        One merged head, d ≤ 4.
    local_steps, local_lr : int, float
        Of the frozen stage; η is also the step of C4.
    seed : int
        Of the move of the kernel.

    Raises
    ------
    ValueError
        If the parameters are not certifiable.
    ImportError
        If python-flint is not installed.

    Notes
    -----
    Source: C1, C3, C4, C7, C8, C11. Cost: some thousand ball operations per sequence.
    """
    exact = exact_problem(problem, params)
    kernel, value = matrix(params["kernel"][0]), matrix(params.value[0])
    move = stream(seed, "certify").normal(size=params["kernel"][0].shape) / 4.0
    found = _warmup(exact, kernel, value, matrix(move))
    curvature = KernelProfile(problem).curvature(params)
    found += _descent(exact, kernel, matrix(move), local_lr, curvature)
    stage = frozen_stage(problem, params, local_steps=local_steps, local_lr=local_lr)
    return found + _frozen(exact, kernel, stage)


def _warmup(exact: Exact, kernel: Matrix, value: Matrix, move: Matrix) -> list[Certificate]:
    """C1, C3, C3f and C11."""
    here, there = _point(exact, kernel), _point(exact, kernel + move)
    lag, shift = value - here.star, there.star - here.star
    gap = _objective(exact, kernel, value) - here.profile - inner(lag, here.hessian * lag) / 2
    slope = _gradients(exact, kernel, here.star)[0]
    bend = inner(move, _curved(exact, here.star, move)) / 2
    gain = inner(shift, there.hessian * shift) / 2
    increment = there.profile - here.profile - inner(slope, move) - bend + gain
    by_kernel, by_value = _gradients(exact, kernel, value)
    euler = inner(by_kernel, kernel) - exact.kernel_ridge * inner(kernel, kernel)
    euler = euler - inner(by_value, value) + exact.value_ridge * inner(value, value)
    stale = _objective(exact, kernel + move, here.star) - there.profile
    return [
        _identity("C1", gap),
        _identity("C3", increment),
        _identity("C11", euler),
        _positive("C3f bound", stale),
    ]


def _descent(
    exact: Exact, kernel: Matrix, update: Matrix, step: float, curvature: float
) -> list[Certificate]:
    """C4 for one step along an arbitrary update g, and that the L_K used is an upper bound."""
    eta, largest = exact_ball(step), exact_ball(curvature)
    here = _point(exact, kernel)
    there = _point(exact, kernel - update * eta)
    slope = _gradients(exact, kernel, here.star)[0]
    error, shift = update - slope, there.star - here.star
    right = here.profile - eta / 2 * (inner(slope, slope) - inner(error, error))
    right = right - eta / 2 * (1 - eta * largest) * inner(update, update)
    curved = eta * eta / 2 * inner(update, _curved(exact, here.star, update))
    additive = here.profile - eta * inner(slope, slope) - eta * inner(slope, error) + curved
    additive = additive - inner(shift, there.hessian * shift) / 2
    operator = _operator_matrix(exact, here.star, kernel.nrows())
    return [
        _identity("C4 additive", there.profile - additive),
        _positive("C4", right - there.profile),
        _definite("C3 bound", identity(operator.nrows()) * largest - operator),
    ]


def _operator_matrix(exact: Exact, value: Matrix, dim: int) -> Matrix:
    """𝓚 as a (d², d²) matrix, row by row."""
    rows = []
    for unit in np.eye(dim * dim):
        rows += _curved(exact, value, matrix(unit.reshape(dim, dim))).entries()
    return type(value)(dim * dim, dim * dim, rows)


def _client_matrices(exact: Exact, kernel: Matrix) -> tuple[list[Matrix], list[Matrix]]:
    """A_i and C_i."""
    squares, mixed = _systems(exact, kernel)
    ridge = identity(kernel.nrows()) * exact.value_ridge
    clients = range(len(exact.weights))
    return (
        [exact.client_mean(i, squares) + ridge for i in clients],
        [exact.client_mean(i, mixed) for i in clients],
    )


def _frozen(exact: Exact, kernel: Matrix, stage: FrozenStage) -> list[Certificate]:
    """ρ < 1, the bound of C8, and the signs of the bias."""
    eta = exact_ball(stage.local_lr)
    hessians, linears = _client_matrices(exact, kernel)
    one = identity(kernel.nrows())
    sums = [_power_sum(one - a * eta, stage.common_steps) for a in hessians]
    pairs = list(zip(exact.weights, sums, hessians, linears, strict=True))
    surrogate = total([s * a * p for p, s, a, _ in pairs])
    surrogate = (surrogate + surrogate.transpose()) * exact_ball(0.5)
    right = total([s * c * p for p, s, _, c in pairs])
    star = _point(exact, kernel).star
    bias = surrogate.solve(right) - star
    # I − M̂ = η Σp S_iA_i and I + M̂ = 2I − (I − M̂).
    found = [_definite("ρ < 1", surrogate * eta, one * 2 - surrogate * eta)]
    found += [_positive(f"bias {k}", entry) for k, entry in enumerate(bias.entries())]
    if stage.bias_bound is not None and stage.common_steps > 1:
        found.append(_bias_bound(exact, stage, bias, (hessians, linears, surrogate, star)))
    return found


def _power_sum(base: Matrix, count: int) -> Matrix:
    """Σ_{k<E} base^k by Horner's rule."""
    one = identity(base.nrows())
    result = one
    for _ in range(count - 1):
        result = result * base + one
    return result


def _bias_bound(
    exact: Exact, stage: FrozenStage, bias: Matrix, held: tuple[Any, ...]
) -> Certificate:
    """bound − ‖V_∞ − V*‖ with every constant of the bound rounded down.

    Rayleigh quotients at computed eigenvectors are proved bounds of the eigenvalues from inside:
    they make 1/λ_min, |s'(λ_min)| and spectral norms too small, so what is proved is stronger.
    """
    hessians, linears, surrogate, star = held
    mean = total([a * p for p, a in zip(exact.weights, hessians, strict=True)])
    spread = []
    for p, a, c in zip(exact.weights, hessians, linears, strict=True):
        apart, slope = a - mean, a * star - c
        spread.append(p * inner(apart, apart).sqrt() * _top(slope).sqrt())
    smallest = rayleigh(surrogate, _lowest(surrogate)) / stage.common_steps
    bound = _lipschitz(stage, hessians) / smallest * total(spread)
    return _positive("C8 bound", bound - inner(bias, bias).sqrt())


def _middle(held: Matrix) -> Array:
    return np.array([[float(x.mid()) for x in row] for row in held.tolist()])


def _lowest(symmetric: Matrix) -> Array:
    return np.asarray(np.linalg.eigh(_middle(symmetric))[1][:, 0])


def _top(rectangle: Matrix) -> Ball:
    """A proved lower bound of ‖G‖₂²."""
    square = rectangle.transpose() * rectangle
    return rayleigh(square, np.asarray(np.linalg.eigh(_middle(square))[1][:, -1]))


def _lipschitz(stage: FrozenStage, hessians: list[Matrix]) -> Ball:
    """|s'| at an upper bound of the smallest eigenvalue, or η(E − 1)/2 beyond ηλ_max ≤ 1."""
    eta, count = exact_ball(stage.local_lr), stage.common_steps
    if stage.largest_step_curvature > 1.0:
        return eta * (count - 1) / 2
    lowest = min((rayleigh(a, _lowest(a)) for a in hessians), key=lambda ball: float(ball.mid()))
    base = 1 - eta * lowest
    return eta / count * total([k * base ** (k - 1) for k in range(1, count)])
