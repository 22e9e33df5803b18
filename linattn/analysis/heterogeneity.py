"""How much clients differ, beside how much identical clients would by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.objectives.joint import check_fits
from linattn.objectives.population import population
from linattn.types import Params, Problem, Statistics


class Spread(NamedTuple):
    """How far client means lie apart, and how far those of identical clients would.

    Attributes
    ----------
    observed : float
        (Σp_i‖x̄_i − x̄‖²)^½, relative to the pooled quantity.
    chance : float
        Its root mean square if all sequences were independent draws from one distribution:
        (Σp_i(1 − p_i)v_i/S_i)^½ with v_i the variance within client i. NaN if no client has two
        sequences. Sequences that share tokens vary less within a client, and it is too small.
    """

    observed: float
    chance: float

    def __str__(self) -> str:
        return f"{self.observed:.3g} (by chance {self.chance:.3g})"


def pooled_gram(problem: Problem) -> Array:
    """Return Σp_i mean G, (d, d)."""
    return np.tensordot(problem.sequence_weights, problem.statistics.gram, 1)


def covariance_spread(problem: Problem) -> Spread:
    """Return the spread of the clients' mean Gram matrices, relative to ‖Σp_i mean G‖.

    Parameters
    ----------
    problem : Problem

    Notes
    -----
    Source: C8 (the bias vanishes where all A_i are equal). Cost: S d².
    """
    size = float(np.linalg.norm(pooled_gram(problem)))
    return _spread(problem, lambda part: part.gram.reshape(len(part.gram), -1), size)


def target_spread(problem: Problem, params: Params) -> Spread:
    """Return the spread of the clients' value gradients g_i* = A_iV* − C_i, relative to ‖C‖.

    Zero where one value block is best for every client at this kernel.

    Parameters
    ----------
    problem : Problem
    params : Params
        Gives the kernel; its value block is ignored.

    Notes
    -----
    Source: C8 (the bias vanishes where all g_i* are zero). Cost: one gradient on the sequences.
    """
    check_fits(problem, params)
    kernels = params.kernels()
    system = population(problem).value_system(kernels)
    star = system.value

    def slopes(part: Statistics) -> Array:
        """∂_Vℓ at V*, a row per sequence: G B_hᵀ R with R = M Z − K."""
        mapped = part.gram[:, None] @ star
        residual = part.query_moments() @ (kernels @ mapped).sum(axis=1) - part.cross_moments()
        pulled = part.gram[:, None] @ (kernels.transpose(0, 2, 1) @ residual[:, None])
        return np.asarray(pulled.reshape(len(pulled), -1))

    return _spread(problem, slopes, float(np.linalg.norm(system.linear)))


def _spread(problem: Problem, rows_of: Callable[[Statistics], Array], size: float) -> Spread:
    """Spread of the client means of rows (S_i, k), one client in memory at a time."""
    sizes, p = problem.client_sizes, problem.weights
    means, squares = [], np.zeros(len(sizes))
    for i in range(problem.num_clients):
        rows = rows_of(problem.statistics.take(problem.client(i)))
        means.append(rows.mean(axis=0))
        squares[i] = float(np.sum((rows - means[-1]) ** 2))
    apart = np.stack(means) - p @ np.stack(means)
    observed = float(p @ np.sum(apart**2, axis=1))
    several = sizes > 1
    if not several.any():
        return Spread(_ratio(observed, size), np.nan)
    within = np.full(len(sizes), squares.sum() / (sizes - 1).sum())  # for clients of one sequence
    within[several] = squares[several] / (sizes[several] - 1)
    return Spread(_ratio(observed, size), _ratio(float(p @ ((1.0 - p) * within / sizes)), size))


def _ratio(square: float, size: float) -> float:
    return float(np.sqrt(square)) / size if size > 0.0 else 0.0
