"""The reference value: best known P by multi-start, and its lower bound C15."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from linattn._checks import positive_int
from linattn._display import facts_html
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.objectives.descent import Descents, kernel_part, on_scale
from linattn.objectives.joint import check_fits
from linattn.objectives.moment_form import MomentForm
from linattn.objectives.population import Population, population
from linattn.objectives.wide import WideFit, wide_fit, wide_form
from linattn.streams import stream
from linattn.types import Params, Problem

CERTIFIED_GAP = 1e-6


@dataclass(frozen=True)
class Reference:
    """Best known value of the kernel profile.

    Attributes
    ----------
    value : float
        Best P over all starts.
    params : Params
        Where it is attained, with value block V*.
    gradient_norm : float
        ‖∇P‖ there.
    num_starts : int
    lower_bound : float or None
        Lower bound of inf P over every number of heads: C15(a) for merged kernels, C15(c) for
        factored ones; None where the moments that (c) needs are too large.
    certified : bool
        Whether the point is globally optimal: lower_bound within 1e-6 relative of value.
    """

    value: float
    params: Params
    gradient_norm: float
    num_starts: int
    lower_bound: float | None
    certified: bool

    def __repr__(self) -> str:
        bound = "none" if self.lower_bound is None else f"{self.lower_bound:.6g}"
        verdict = "certified" if self.certified else "best known"
        return (
            f"Reference({verdict} {self.value:.6g}, lower bound {bound}, "
            f"gradient norm {self.gradient_norm:.1e}, {self.num_starts} starts)"
        )

    def _repr_html_(self) -> str:
        return facts_html(
            f"Reference: {'certified' if self.certified else 'best known'} value of P",
            [
                ("value", self.value),
                ("lower bound", self.lower_bound),
                ("gradient norm", self.gradient_norm),
                ("starts", self.num_starts),
            ],
        )


def reference_value(
    problem: Problem, *, like: Params, num_starts: int = 20, seed: int = 0
) -> Reference:
    """Return the best known minimum of P and a lower bound no model of any width can beat.

    Starts: the kernel of `like`; for merged kernels the best rank-H truncation of the wide-head
    fit; the rest random, each at the best of several scales (small factored starts are trapped at
    the origin, which is a strict local minimum, notes, Objectives).

    Parameters
    ----------
    problem : Problem
    like : Params
        Gives parametrization, heads and rank.
    num_starts : int
        Number of L-BFGS runs.
    seed : int
        Of the stream ``(seed, "reference", start)``.

    Raises
    ------
    ValueError
        If μ = 0: then P need not have a minimizer.

    Notes
    -----
    Source: C2 (gradient), C15 (lower bound). Cost: `num_starts` L-BFGS runs on P and one convex
    fit.
    """
    check_fits(problem, like)
    positive_int("num_starts", num_starts)
    positive_int("seed", seed, minimum=0, maximum=None)
    if problem.kernel_ridge <= 0.0:
        raise ValueError(
            "problem must have kernel_ridge > 0 for a reference value, got 0: (aB, V/a) predicts "
            "the same, so the profile need not have a minimizer."
        )
    # Many products of small matrices: BLAS threads would cost ten times what they gain.
    with one_blas_thread(), on_scale(), np.errstate(over="ignore", invalid="ignore"):
        return _search(problem, like, num_starts, seed)


def _search(problem: Problem, like: Params, num_starts: int, seed: int) -> Reference:
    held = population(problem)
    descents = Descents(held, like)
    threshold = float(np.sqrt(problem.value_ridge * problem.kernel_ridge))
    fit = cache(lambda: wide_fit(held, threshold))
    starts: list[Callable[[], Array]] = [lambda: kernel_part(like)]
    if not like.is_factored:
        starts.append(lambda: _truncate(fit(), like, problem))
    for index in range(len(starts), num_starts):
        starts.append(partial(descents.random, stream(seed, "reference", index)))
    value, gradient_norm, params = descents.best(starts[:num_starts])
    lower = _factored_bound(held, value) if like.is_factored else fit().lower_bound
    scale = max(abs(value), 1e-300)
    certified = lower is not None and value - lower <= CERTIFIED_GAP * scale
    return Reference(value, params, gradient_norm, num_starts, lower, certified)


def _truncate(wide: WideFit, like: Params, problem: Problem) -> Array:
    """Best rank-H part of the wide fit, balanced: B_h = (σ√(λ/μ))^½ u, so μ‖B‖² = λ‖V‖²."""
    count, heads = len(wide.kernel), like.num_heads
    tensor = wide.kernel.reshape(count, -1).T @ wide.value.reshape(count, -1)
    left, sizes, _ = np.linalg.svd(tensor, full_matrices=False)
    ratio = np.sqrt(problem.value_ridge / problem.kernel_ridge)
    largest = np.sqrt(np.maximum(sizes[:heads], 1e-12) * ratio)
    kernel = np.zeros((heads, problem.dim**2))
    kernel[: len(largest)] = largest[:, None] * left[:, :heads].T
    return kernel.reshape(-1)


def _factored_bound(held: Population, best: float) -> float | None:
    """C15(c), clipped at the best known value; None where the moments are too large."""
    form = wide_form(held)
    if not isinstance(form, MomentForm):
        return None
    plain = form.solve_least_squares()
    unit = 1.5 * (held.kernel_ridge**2 * held.value_ridge) ** (1 / 3)
    if best <= plain:  # nothing to gain over no model, up to rounding
        return best
    reach = ((best - plain) / unit) ** 1.5
    threshold = unit * reach ** (-1 / 3)
    return max(plain, min(best, wide_fit(held, threshold).lower_bound))
