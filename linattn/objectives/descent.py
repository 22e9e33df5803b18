"""Local minima of the profile P from many starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import scipy.optimize
from scipy.linalg.lapack import dtrtrs

from linattn._threads import each_in_threads, one_blas_thread
from linattn._typing import Array
from linattn.objectives.forms import NormalEquations
from linattn.objectives.moment_form import MomentForm
from linattn.objectives.population import Population, population
from linattn.objectives.starts import random_kernel
from linattn.types import Params, Problem

MAX_ITERATIONS = 2000
# Where P in B alone costs this many times more than F in (B, V), more iterations of F cost less.
JOINT_RATIO = 3.0
# All starts are followed to the end where that takes less than this; else those that look best.
MAX_WORK = 4e10  # multiply-adds
TYPICAL_EVALUATIONS = 500
SCREENING_ITERATIONS = 60
FEWEST_FOLLOWED = 2


class Minimum(NamedTuple):
    """Where a descent ended: P, ‖∇P‖ and the parameters with V*."""

    value: float
    gradient_norm: float
    params: Params


def kernel_part(params: Params) -> Array:
    """The flat kernel parameters."""
    return params.flat[params.layout.kernel_part]


def with_kernel(like: Params, part: Array) -> Params:
    """Parameters with these kernel parameters and values of zero."""
    return Params(like.layout, np.concatenate([part, np.zeros(like.value.size)]))


@contextmanager
def on_scale() -> Iterator[None]:
    """Say of data beyond floating-point arithmetic what to do about them."""
    try:
        yield
    except (FloatingPointError, np.linalg.LinAlgError) as error:
        raise ValueError(
            f"problem must be on a scale where its profile can be computed, but {error}; scale "
            "tokens and targets."
        ) from error


def local_minimum(
    problem: Problem, start: Params, *, max_iterations: int = MAX_ITERATIONS
) -> Minimum:
    """Return P, ‖∇P‖ and the model with V* where one descent from the kernel of `start` ends.

    Where the wide fit behind a lower bound takes minutes this takes a second; the gradient norm
    says how far from stationary it stopped.

    Parameters
    ----------
    problem : Problem
    start : Params
    max_iterations : int

    Notes
    -----
    Source: C2 (gradient). Cost: one L-BFGS run, a tenth of `reference_value` or less.
    """
    with one_blas_thread(), on_scale():
        return Descents(population(problem), start).follow(kernel_part(start), max_iterations)


class Descents:
    """L-BFGS runs to minima of P from kernel parameters.

    They take P in the kernel parameters (C2), or F in (B, L⁻ᵀU), LLᵀ = A at the start of the run:
    the value block is then as well scaled as it can be, and no A is formed at the other steps.

    Parameters
    ----------
    held : Population
    like : Params
        Gives parametrization, heads and rank.
    """

    def __init__(self, held: Population, like: Params) -> None:
        self.held = held
        self.like = like
        self.joint, self.work = _cost(held, like.num_heads)

    def best(self, starts: Sequence[Callable[[], Array]]) -> Minimum:
        """The best of the minima below the starts that are followed to the end."""
        count = max(FEWEST_FOLLOWED, int(MAX_WORK / (self.work * TYPICAL_EVALUATIONS)))
        limit = SCREENING_ITERATIONS if count < len(starts) else MAX_ITERATIONS
        found = each_in_threads(lambda start: self.follow(start(), limit), starts)
        if count < len(starts):
            found.sort(key=lambda one: one.value)
            found = each_in_threads(lambda one: self.follow(kernel_part(one.params)), found[:count])
        return min(found, key=lambda one: one.value)

    def follow(self, start: Array, max_iterations: int = MAX_ITERATIONS) -> Minimum:
        """One run; P and V* are those at its end."""
        if self.joint:
            end = self._joint(start, max_iterations)
        else:
            end = _lbfgs(lambda part: self._profile(part)[:2], start, max_iterations)
        value, gradient, best = self._profile(end)
        params = with_kernel(self.like, end).replace(value=best)
        return Minimum(value, float(np.linalg.norm(gradient)), params)

    def _profile(self, part: Array) -> tuple[float, Array, Array]:
        """P, ∇P and V* at kernel parameters."""
        params = with_kernel(self.like, part)
        system = self.held.value_system(params.kernels())
        gradient = self.held.profile_kernel_gradient(params, system.minimizer)
        return self.held.profile_value(params, system), gradient, system.value

    def _joint(self, start: Array, max_iterations: int) -> Array:
        held, layout, split = self.held, self.like.layout, start.size
        system = held.value_system(with_kernel(self.like, start).kernels())
        factor, shape = system.factor, system.minimizer.shape

        def objective(flat: Array) -> tuple[float, Array]:
            value = dtrtrs(factor, flat[split:].reshape(shape), lower=1, trans=1)[0]
            point = np.concatenate([flat[:split], value.reshape(-1)])
            values, slopes = held.values_and_gradients(layout, point[None])
            slope = slopes[0]
            pulled = dtrtrs(factor, slope[split:].reshape(shape), lower=1)[0]
            return float(values[0]), np.concatenate([slope[:split], pulled.reshape(-1)])

        scaled = factor.T @ system.minimizer
        first = np.concatenate([start, scaled.reshape(-1)])
        return _lbfgs(objective, first, max_iterations)[:split]

    def random(self, generator: np.random.Generator) -> Array:
        """A random kernel at the scale, among powers of two, where P is smallest.

        Normal equations at one scale give those at all of them.
        """
        held, like = self.held, self.like
        unit = random_kernel(like.layout, 1.0, generator)
        params, scales = with_kernel(like, unit), 2.0 ** np.arange(-3, 4)
        equations = held.form.systems(params.kernels()[None])
        factors = (scales**2 if like.is_factored else scales)[:, None, None]
        systems = held.solved(
            NormalEquations(factors**2 * equations.hessian, factors * equations.linear)
        )
        values = scales**2 * held.kernel_penalty(params) - systems.saved
        return np.asarray(unit * scales[int(np.argmin(values))])


def _lbfgs(
    objective: Callable[[Array], tuple[float, Array]], start: Array, max_iterations: int
) -> Array:
    """Where scipy's L-BFGS ends."""
    result = scipy.optimize.minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": max_iterations,
            "maxfun": max(4000, 2 * max_iterations),
            "ftol": 1e-15,
            "gtol": 1e-9,
            "maxcor": 20,
        },
    )
    return np.asarray(result.x)


def _cost(held: Population, heads: int) -> tuple[bool, float]:
    """Whether to descend in (B, V), and the multiply-adds of one evaluation of what descends."""
    problem = held.problem
    count, dim, outputs = problem.num_sequences, problem.dim, problem.num_outputs
    if isinstance(held.form.twin, MomentForm):
        return False, 4.0 * dim**6
    if problem.statistics.query is not None:
        return False, float(count * heads * dim**2 * (heads + 6))
    gradient = float(count * (5 * heads + 1) * dim**2 * outputs)
    system = float(count * (2 * heads + heads**2) * dim**3)
    joint = system > JOINT_RATIO * gradient
    return joint, gradient if joint else gradient + system
