"""The reference value: best known P by multi-start, and its lower bound C15."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import scipy.optimize

from linattn._checks import positive_int
from linattn._display import facts_html
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.objectives.forms import MAX_MOMENT_ENTRIES, DataForm, MomentForm
from linattn.objectives.joint import check_fits
from linattn.objectives.population import Population, population
from linattn.objectives.starts import random_blocks
from linattn.streams import stream
from linattn.types import Params, Problem

CERTIFIED_GAP = 1e-6
# The bound is valid wherever the fit stops, so these limit only its tightness. A number of heads
# that is doubled afterwards need not be fitted to the end.
WIDE_ITERATIONS = 1000
NARROW_ITERATIONS = 250


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
        If μ = 0: then P need not have a minimizer; or if the data are on a scale where numbers
        overflow or the ridges are lost.

    Notes
    -----
    Source: C2 (gradient), C15 (lower bound). Cost: `num_starts` L-BFGS runs on P and one convex
    fit.
    """
    check_fits(problem, like)
    positive_int("num_starts", num_starts)
    positive_int("seed", seed, minimum=0)
    if problem.kernel_ridge <= 0.0:
        raise ValueError(
            "problem must have kernel_ridge > 0 for a reference value, got 0: (aB, V/a) predicts "
            "the same, so the profile need not have a minimizer."
        )
    # Many products of small matrices: BLAS threads would cost ten times what they gain.
    with one_blas_thread(), _on_scale():
        return _search(problem, like, num_starts, seed)


@contextmanager
def _on_scale() -> Iterator[None]:
    """Say of data beyond floating-point arithmetic what to do about them."""
    try:
        yield
    except (FloatingPointError, np.linalg.LinAlgError) as error:
        raise ValueError(
            f"problem must be on a scale where its profile can be computed, but {error}; scale "
            "tokens and targets."
        ) from error


def _search(problem: Problem, like: Params, num_starts: int, seed: int) -> Reference:
    held = population(problem)
    starts = [_kernel_part(like)]
    wide = None
    if not like.is_factored:
        threshold = float(np.sqrt(problem.value_ridge * problem.kernel_ridge))
        wide = wide_fit(held, problem, threshold)
        starts.append(_truncate(wide, like, problem))
    for index in range(len(starts), num_starts):
        starts.append(_random_start(problem, held, like, stream(seed, "reference", index)))
    found = [_minimize_profile(held, like, start) for start in starts[:num_starts]]
    value, gradient_norm, params = min(found, key=lambda item: item[0])
    lower = _lower_bound(held, problem, wide, value)
    scale = max(abs(value), 1e-300)
    certified = lower is not None and value - lower <= CERTIFIED_GAP * scale
    return Reference(value, params, gradient_norm, num_starts, lower, certified)


def local_minimum(
    problem: Problem, start: Params, *, max_iterations: int = 2000
) -> tuple[float, float, Params]:
    """Return P, ‖∇P‖ and the model with V* where one L-BFGS run from the kernel of `start` ends.

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
    with one_blas_thread(), _on_scale():
        held = population(problem)
        return _minimize_profile(held, start, _kernel_part(start), max_iterations)


def _kernel_part(params: Params) -> Array:
    return params.flat[: params.layout.size - params.value.size]


def _with_kernel(like: Params, kernel_part: Array) -> Params:
    return Params(like.layout, np.concatenate([kernel_part, np.zeros(like.value.size)]))


def _minimize_profile(
    held: Population, like: Params, start: Array, max_iterations: int = 2000
) -> tuple[float, float, Params]:
    """One L-BFGS run on P; returns P, ‖∇P‖ and the parameters with V*."""

    def objective(flat: Array) -> tuple[float, Array]:
        params = _with_kernel(like, flat)
        system = held.value_system(params.kernels())
        gradient = held.profile_kernel_gradient(params, system.minimizer)
        return held.profile_value(params, system), gradient

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
    params = _with_kernel(like, result.x)
    system = held.value_system(params.kernels())
    value, gradient = objective(result.x)
    full = params.replace(value=system.minimizer.reshape(like.value.shape))
    return value, float(np.linalg.norm(gradient)), full


def _random_start(
    problem: Problem, held: Population, like: Params, generator: np.random.Generator
) -> Array:
    """A random kernel at the scale, among powers of two, where P is smallest."""
    blocks = random_blocks(
        problem,
        num_heads=like.num_heads,
        kernel="factored" if like.is_factored else "merged",
        rank=like["query"].shape[-1] if like.is_factored else None,
        scale=1.0,
        generator=generator,
    )
    unit = np.concatenate([block.reshape(-1) for block in blocks.values()])

    def profile(scale: float) -> float:
        params = _with_kernel(like, scale * unit)
        return held.profile_value(params, held.value_system(params.kernels()))

    return unit * min((2.0**k for k in range(-3, 4)), key=profile)


class WideFit:
    """A near-minimizer of the convex problem min_W data(W) + τ‖W‖_*, as balanced wide heads."""

    def __init__(self, kernel: Array, value: Array, threshold: float) -> None:
        self.kernel = kernel
        self.value = value
        self.threshold = threshold

    def singular_triplets(self) -> tuple[Array, Array, Array]:
        """SVD of W = Σ_h vec(B_h) vec(V_h)ᵀ."""
        heads = len(self.kernel)
        tensor = self.kernel.reshape(heads, -1).T @ self.value.reshape(heads, -1)
        left, sizes, right = np.linalg.svd(tensor, full_matrices=False)
        return left, sizes, right


def wide_fit(held: Population, problem: Problem, threshold: float) -> WideFit:
    """Minimize data + (τ/2)(‖B‖² + ‖V‖²) over many heads: the nuclear-norm problem of C15.

    Heads are doubled until ‖𝒢‖₂ ≤ τ(1 + 1e-4) (the optimality condition of the convex problem) or
    the rank of W is exhausted; the bound of C15(a) is valid wherever the fit stops.

    Parameters
    ----------
    held : Population
    problem : Problem
    threshold : float
        τ > 0.

    Notes
    -----
    Source: C15. Cost: L-BFGS in H (d² + dm) variables.
    """
    dim, outputs = problem.dim, problem.num_outputs
    limit = min(dim**2, dim * outputs)
    heads = min(limit, 4)
    held = Population(problem, wide_form(held, problem))
    generator = stream(0, "wide fit")
    kernel = generator.normal(size=(heads, dim, dim)) / dim
    value = generator.normal(size=(heads, dim, outputs)) / dim
    while True:
        iterations = WIDE_ITERATIONS if heads == limit else NARROW_ITERATIONS
        kernel, value = _fit_heads(held, kernel, value, threshold, iterations)
        norm = float(np.linalg.norm(held.form.tensor_gradient(kernel, value), 2))
        if norm <= threshold * (1.0 + 1e-4) or heads == limit:
            return WideFit(kernel, value, threshold)
        extra = min(2 * heads, limit) - heads
        scale = 1e-2 * max(float(np.abs(kernel).max()), 1e-2)
        kernel = np.concatenate([kernel, scale * generator.normal(size=(extra, dim, dim))])
        value = np.concatenate([value, scale * generator.normal(size=(extra, dim, outputs))])
        heads += extra


def wide_form(held: Population, problem: Problem) -> DataForm:
    """The form that is cheaper for many heads: moments wherever they fit, f² m for any width."""
    if isinstance(held.form, MomentForm) or problem.dim**6 > MAX_MOMENT_ENTRIES:
        return held.form
    return MomentForm(problem.statistics, problem.sequence_weights)


def _fit_heads(
    held: Population, kernel: Array, value: Array, threshold: float, iterations: int
) -> tuple[Array, Array]:
    split = kernel.size

    def objective(flat: Array) -> tuple[float, Array]:
        b, v = flat[:split].reshape(kernel.shape), flat[split:].reshape(value.shape)
        loss, kernel_gradient, value_gradient = held.form.gradient(b, v)
        gradient = np.concatenate([kernel_gradient.reshape(-1), value_gradient.reshape(-1)])
        return loss + 0.5 * threshold * float(flat @ flat), gradient + threshold * flat

    result = scipy.optimize.minimize(
        objective,
        np.concatenate([kernel.reshape(-1), value.reshape(-1)]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "ftol": 1e-14, "gtol": 1e-8, "maxcor": 20},
    )
    return result.x[:split].reshape(kernel.shape), result.x[split:].reshape(value.shape)


def _truncate(wide: WideFit, like: Params, problem: Problem) -> Array:
    """Best rank-H part of the wide fit, balanced: B_h = (σ√(λ/μ))^½ u, so μ‖B‖² = λ‖V‖²."""
    left, sizes, _ = wide.singular_triplets()
    heads = like.num_heads
    kernel = np.zeros((heads, problem.dim**2))
    for h in range(min(heads, len(sizes))):
        ratio = np.sqrt(problem.value_ridge / problem.kernel_ridge)
        kernel[h] = np.sqrt(max(sizes[h], 1e-12) * ratio) * left[:, h]
    return kernel.reshape(-1)


def dual_lower_bound(held: Population, kernel: Array, value: Array, threshold: float) -> float:
    """Return the C15(a) lower bound of min_W data(W) + τ‖W‖_* from any point (B, V).

    Parameters
    ----------
    held : Population
    kernel : array, shape (H, d, d)
    value : array, shape (H, d, m)
    threshold : float
        τ; for merged kernels √(λμ).

    Notes
    -----
    With rr = 2·data loss, ry = Σ w(⟨K, Z⟩ − c), t = clip(−ry/rr, ±τ/‖𝒢‖₂): −½t²rr − t·ry.
    Source: C15(a), weak duality.
    """
    loss, _, value_gradient = held.form.gradient(kernel, value)
    rr = 2.0 * loss
    if rr <= 0.0:
        return 0.0
    # ⟨∂_V, V⟩ = ⟨Z, MZ⟩ − ⟨K, Z⟩ and rr = c − 2⟨K, Z⟩ + ⟨Z, MZ⟩ give ry without another pass.
    ry = float(np.vdot(value_gradient, value)) - rr
    norm = float(np.linalg.norm(held.form.tensor_gradient(kernel, value), 2))
    limit = threshold / norm if norm > 0.0 else np.inf
    t = float(np.clip(-ry / rr, -limit, limit))
    return -0.5 * t * t * rr - t * ry


def _lower_bound(
    held: Population, problem: Problem, wide: WideFit | None, best: float
) -> float | None:
    """C15: (a) for merged kernels; for factored ones (c), clipped at the best known value."""
    if wide is not None:
        return dual_lower_bound(held, wide.kernel, wide.value, wide.threshold)
    form = wide_form(held, problem)
    if not isinstance(form, MomentForm):
        return None
    plain = form.solve_least_squares()
    unit = 1.5 * (problem.kernel_ridge**2 * problem.value_ridge) ** (1 / 3)
    if best <= plain:  # nothing to gain over no model, up to rounding
        return best
    reach = ((best - plain) / unit) ** 1.5
    threshold = unit * reach ** (-1 / 3)
    fit = wide_fit(held, problem, threshold)
    dual = dual_lower_bound(held, fit.kernel, fit.value, threshold)
    return max(plain, min(best, dual))
