"""The relaxation behind C15: least squares plus the nuclear norm in W = Σ_h vec(B_h) vec(V_h)ᵀ.

min_W data(W) + τ‖W‖_* has no number of heads in it. W is (d², dm), so with min(d², dm) heads every
W is a product BᵀV, and τ‖W‖_* is the least (τ/2)(‖B‖² + ‖V‖²) over such products (`convex_fit`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array, IntArray
from linattn.objectives.compiled import CompiledForm
from linattn.objectives.forms import MAX_MOMENT_ENTRIES, DataForm, MomentForm
from linattn.objectives.population import Population
from linattn.types import Problem


class WideData(NamedTuple):
    """The data loss as a quadratic of Z, a linear image of W: ½c̄ − ⟨κ, Z⟩ + ½⟨Z, ΨZ⟩.

    G is symmetric, so W enters only through w_(bk) = W_ab,kc + W_ak,bc, b ≤ k. From moments Z is
    this w itself, (f, m), and Ψ the folded moments; from sequences it is Z_s = Σ w G_s, (S, d, m),
    and Ψ multiplies with weights and M_s. The cost is that of one product with w, whatever the
    number of heads.
    """

    gram: Array | None  # (S, d(d + 1)/2), or None for moments
    middle: Array  # (S, d, d), M with weights, or (f, f)
    cross: Array  # κ
    energy: float  # c̄
    low: IntArray
    high: IntArray

    @property
    def dim(self) -> int:
        """d."""
        return int(self.high[-1]) + 1

    def image(self, tensor: Array) -> Array:
        """Z of W (d², dm)."""
        dim, outputs = self.dim, self.cross.shape[-1]
        by_pair = tensor.reshape(dim, dim, dim, outputs).transpose(1, 2, 0, 3)
        rows = np.ascontiguousarray(by_pair).reshape(dim, dim, -1)
        folded = rows[self.low, self.high]
        folded[self.low != self.high] += rows[self.high, self.low][self.low != self.high]
        if self.gram is not None:
            return (self.gram @ folded).reshape(-1, dim, outputs)
        return folded.reshape(-1, dim, outputs).transpose(1, 0, 2).reshape(-1, outputs)

    def pull(self, image: Array) -> Array:
        """The gradient in W, (d², dm), of ⟨image, Z(W)⟩."""
        dim, outputs = self.dim, self.cross.shape[-1]
        if self.gram is not None:
            folded = self.gram.T @ image.reshape(len(image), -1)
        else:
            folded = image.reshape(dim, -1, outputs).transpose(1, 0, 2).reshape(len(self.low), -1)
        rows = np.empty((dim, dim, dim * outputs), dtype=folded.dtype)
        rows[self.low, self.high] = folded
        rows[self.high, self.low] = folded
        tensor = rows.reshape(dim, dim, dim, outputs).transpose(2, 0, 1, 3)
        return np.ascontiguousarray(tensor).reshape(dim**2, dim * outputs)

    def weigh(self, image: Array) -> Array:
        """ΨZ."""
        return np.asarray(self.middle @ image)

    def lower_bound(self, image: Array, threshold: float) -> float:
        """Return the C15(a) bound from the residual at Z."""
        weighed = self.weigh(image)
        slope = self.pull(weighed - self.cross)
        along = float(np.vdot(self.cross, image))
        square = self.energy - 2.0 * along + float(np.vdot(image, weighed))
        return _dual(square, along - self.energy, threshold, slope)


def _dual(rr: float, ry: float, threshold: float, slope: Array) -> float:
    """−½t²rr − t·ry at the best t with |t|·‖𝒢‖₂ ≤ τ."""
    if rr <= 0.0:
        return 0.0
    # The smaller Gram matrix gives the norm in a tenth of the time of a singular value.
    thin = slope if slope.shape[0] >= slope.shape[1] else slope.T
    norm = float(np.sqrt(max(np.linalg.eigvalsh(thin.T @ thin)[-1], 0.0)))
    limit = threshold / norm if norm > 0.0 else np.inf
    t = float(np.clip(-ry / rr, -limit, limit))
    return -0.5 * t * t * rr - t * ry


def wide_form(held: Population, problem: Problem) -> DataForm:
    """The form that is cheaper for many heads: moments wherever they fit, f² m for any width."""
    form = held.form.twin if isinstance(held.form, CompiledForm) else held.form
    if isinstance(form, MomentForm) or problem.dim**6 > MAX_MOMENT_ENTRIES:
        return form
    return MomentForm(problem.statistics, problem.sequence_weights)


def wide_data(held: Population, problem: Problem) -> WideData:
    """Return the data as a function of W alone."""
    form = wide_form(held, problem)
    if isinstance(form, MomentForm):
        moments, linear, low, high = form.folded
        return WideData(None, moments, linear, form.energy, low, high)
    low, high = np.triu_indices(problem.dim)
    statistics, weights = problem.statistics, problem.sequence_weights[:, None, None]
    return WideData(
        np.ascontiguousarray(statistics.gram[:, low, high]),
        statistics.query_moments() * weights,
        statistics.cross_moments() * weights,
        form.energy,
        low,
        high,
    )


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
    # ⟨∂_V, V⟩ = ⟨Z, MZ⟩ − ⟨K, Z⟩ and rr = c − 2⟨K, Z⟩ + ⟨Z, MZ⟩ give ry without another pass.
    ry = float(np.vdot(value_gradient, value)) - 2.0 * loss
    return _dual(2.0 * loss, ry, threshold, held.form.tensor_gradient(kernel, value))
