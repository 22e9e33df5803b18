"""The sizes of what is added up, in which the rounding budget of a measurement is counted.

A loss near its optimum, a gradient there and the move of a tiny step are small differences of
large numbers: a comparison of them can be no more exact than these numbers are.
"""

from __future__ import annotations

import numpy as np

from linattn._typing import Array
from linattn.analysis.trajectory import LocalPath
from linattn.claims.record import Instance, shared
from linattn.objectives.population import population
from linattn.theory.tracking import factor_size

FEW_ROUNDINGS = 1e-15


def rounded(size: float, budget: float) -> float:
    """What to add to a scale so that the budget covers a few roundings of numbers of a size."""
    return FEW_ROUNDINGS * size / budget


@shared
def loss_terms(instance: Instance) -> float:
    """c̄ + ‖A‖₂‖V*‖² at the start: P = ½c̄ − ½⟨V*, AV*⟩ + ridge, however small it is."""
    held = population(instance.problem)
    system = held.value_system(instance.params.kernels())
    largest = float(np.linalg.norm(system.hessian, 2))
    return float(held.form.energy) + largest * float(np.sum(system.minimizer**2))


@shared
def gradient_terms(instance: Instance) -> float:
    """The largest (‖M‖‖Z‖ + ‖K‖)(‖GV‖ + ‖GBᵀ‖) of a sequence at the start, and the ridges.

    A gradient is R(GV)ᵀ and GBᵀR with R = MZ − K, however small R is.
    """
    problem, params = instance.problem, instance.params
    held = problem.statistics
    mapped = np.einsum("sab,hbo->shao", held.gram, params.value)
    turned = np.einsum("sab,hcb->shac", held.gram, params.kernels())
    predicted = np.einsum("hab,shbo->sao", params.kernels(), mapped)
    residuals = _norms(held.query_moments()) * _norms(predicted) + _norms(held.cross_moments())
    products = residuals * (_norms(mapped) + _norms(turned))
    ridge = max(problem.kernel_ridge, problem.value_ridge) * float(np.linalg.norm(params.flat))
    return max(1.0, factor_size(params)) * float(products.max()) + ridge


def path_size(path: LocalPath) -> float:
    """The largest ‖w_i‖ at which a gradient of a round is taken."""
    return float(np.linalg.norm(path.places[:-1], axis=-1).max())


def _norms(rows: Array) -> Array:
    return np.asarray(np.linalg.norm(rows.reshape(len(rows), -1), axis=1))
