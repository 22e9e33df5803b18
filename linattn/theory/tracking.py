"""How the lag of the value block disturbs the kernel gradient (C5)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.linalg import affine_chain, contract, stack_heads
from linattn.objectives.forms import SequenceForm
from linattn.objectives.joint import check_fits
from linattn.objectives.population import population
from linattn.objectives.profile import cheap_curvature_bound
from linattn.types import Params, Problem, Statistics

# Above the error of a singular value of matrices of these sizes, below any use of the bound.
SPECTRAL_SLACK = 1e-12


class TrackingBound(NamedTuple):
    """‖ε_track‖ ≤ factor·(coupling·‖Δ‖ + quadratic·‖Δ‖²) with Δ = V − V*(B).

    Attributes
    ----------
    coupling : float
        ‖J‖₂, J = ∂²_{BV}F(B, V*).
    quadratic : float
        κ = (Σp mean ‖M‖₂‖G‖₂²)·‖[B_1 … B_H]‖₂, heads side by side.
    factor : float
        1 for merged kernels, max_h (‖Q_h‖₂² + ‖K_h‖₂²)^½ for factored ones.
    lag : float
        ‖Δ‖.
    """

    coupling: float
    quadratic: float
    factor: float
    lag: float

    @property
    def value(self) -> float:
        """The bound, units of loss per kernel parameter."""
        return self.factor * (self.coupling * self.lag + self.quadratic * self.lag**2)


def tracking_bound(problem: Problem, params: Params) -> TrackingBound:
    """Return the C5 bound of ‖∂F(θ, V) − ∂F(θ, V*)‖ in the kernel parameters of `params`.

    Parameters
    ----------
    problem : Problem
    params : Params
        Kernel and value block V.

    Notes
    -----
    Source: C5. Cost: S d (Hd)² m for J, a singular value of a (Hd², Hdm) matrix.
    """
    check_fits(problem, params)
    system = population(problem).value_system(params.kernels())
    star = system.value
    coupling = coupling_matrix(
        problem.statistics, problem.sequence_weights, kernel=params.kernels(), value=star
    )
    return TrackingBound(
        coupling=_norm(coupling),
        quadratic=_quadratic(problem, params.kernels()),
        factor=factor_size(params),
        lag=float(np.linalg.norm(stack_heads(params.value) - system.minimizer)),
    )


def _norm(matrix: Array) -> float:
    return float(np.linalg.norm(matrix, 2)) * (1.0 + SPECTRAL_SLACK)


def _quadratic(problem: Problem, kernels: Array) -> float:
    moments = cheap_curvature_bound(problem).weighted_norms
    grams = np.linalg.norm(problem.statistics.gram, 2, axis=(1, 2))
    return float(moments @ grams**2) * _norm(np.concatenate(list(kernels), axis=1))


def factor_size(params: Params) -> float:
    """Return max_h (‖Q_h‖₂² + ‖K_h‖₂²)^½, or 1 for merged kernels: ‖ε_θ‖ ≤ it·‖ε_B‖ (C5).

    Notes
    -----
    Source: C5 (factored). Cost: singular values of 2H (d, r) matrices.
    """
    if not params.is_factored:
        return 1.0
    query, key = (np.linalg.norm(params[n], 2, axis=(1, 2)) for n in ("query", "key"))
    return float(np.sqrt(np.max(query**2 + key**2))) * (1.0 + SPECTRAL_SLACK)


def coupling_matrix(
    statistics: Statistics, weights: Array, *, kernel: Array, value: Array
) -> Array:
    """Return J = ∂²_{BV} of the data loss Σ w_s ℓ_s at (B, V), (Hd², Hdm).

    J[(h,a,b), (k,e,o)] = Σ w (M B_k G)_ae (G V_h)_bo + δ_hk R_ao G_be.

    Parameters
    ----------
    statistics : Statistics
    weights : array, shape (S,)
    kernel : array, shape (H, d, d)
    value : array, shape (H, d, m)

    Notes
    -----
    Source: C5. Cost: S d (Hd)² m multiply-adds, d (Hd)² m numbers.
    """
    heads, dim, outputs = value.shape
    gram, count = statistics.gram, len(statistics.gram)
    pushed = contract("sab,kbc,sce->sake", statistics.query_moments(), kernel, gram).reshape(
        count, -1
    )
    mapped = contract("sab,hbo->shao", gram, value).reshape(count, -1)
    tensor = (pushed * weights[:, None]).T @ mapped
    tensor = tensor.reshape(dim, heads, dim, heads, dim, outputs).transpose(3, 0, 4, 1, 2, 5)
    tensor = np.ascontiguousarray(tensor)
    residual = SequenceForm(statistics, weights).tensor.loss_and_gradient(kernel, value)[1]
    for h in range(heads):
        tensor[h, :, :, h] += residual.reshape(dim, dim, dim, outputs)
    return tensor.reshape(heads * dim**2, heads * dim * outputs)


def contracted_lag(start: float, norms: Array, pushes: Array) -> float:
    """Return a bound of ‖Δ‖ after some local steps: b ← ‖I − ηA‖₂ b + push.

    Parameters
    ----------
    start : float
        ‖Δ‖ at the first step.
    norms : array, shape (N,)
        ‖I − ηA(B̄)‖₂ of every step.
    pushes : array, shape (N,)
        η‖ε_V‖ + ‖V*(B⁺) − V*(B)‖ of every step.

    Notes
    -----
    Source: C5 (triangle inequality on the exact recursion). Cost: N.

    Examples
    --------
    >>> import numpy as np
    >>> contracted_lag(4.0, np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    1.5
    """
    return float(affine_chain(start, norms, pushes)[-1])
