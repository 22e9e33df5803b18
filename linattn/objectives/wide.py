"""The relaxation behind C15: least squares plus the nuclear norm in W = Σ_h vec(B_h) vec(V_h)ᵀ.

min_W data(W) + τ‖W‖_* has no number of heads in it. W is (d², dm), so with min(d², dm) heads every
W is a product BᵀV, and τ‖W‖_* is the least (τ/2)(‖B‖² + ‖V‖²) over such products (`convex_fit`).
"""

from __future__ import annotations

import numpy as np

from linattn._typing import Array
from linattn.objectives.moment_form import MAX_MOMENT_ENTRIES, DataForm, MomentForm
from linattn.objectives.population import Population
from linattn.objectives.tensor import TensorData
from linattn.types import Problem


def lower_bound(data: TensorData, image: Array, threshold: float) -> float:
    """Return the C15(a) bound from the residual at Z."""
    weighed = data.weigh(image)
    along = float(np.vdot(data.cross, image))
    rr = data.energy - 2.0 * along + float(np.vdot(image, weighed))
    if rr <= 0.0:
        return 0.0
    slope = data.pull(weighed - data.cross)
    # The smaller Gram matrix gives the norm in a tenth of the time of a singular value.
    thin = slope if slope.shape[0] >= slope.shape[1] else slope.T
    norm = float(np.sqrt(max(np.linalg.eigvalsh(thin.T @ thin)[-1], 0.0)))
    limit, ry = threshold / norm if norm > 0.0 else np.inf, along - data.energy
    t = float(np.clip(-ry / rr, -limit, limit))
    return -0.5 * t * t * rr - t * ry


def wide_form(held: Population, problem: Problem) -> DataForm:
    """The form that is cheaper for many heads: moments wherever they fit, f² m for any width."""
    if isinstance(held.form.twin, MomentForm) or problem.dim**6 > MAX_MOMENT_ENTRIES:
        return held.form.twin
    return MomentForm(problem.statistics, problem.sequence_weights)


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
    data, heads = held.form.twin.tensor, len(kernel)
    product = kernel.reshape(heads, -1).T @ value.reshape(heads, -1)
    return lower_bound(data, data.image(product), threshold)
