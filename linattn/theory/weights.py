"""The averaging weights of sampled rounds: their exact mean and covariance."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

from linattn._settings import Sampling
from linattn._typing import Array

MAX_SUBSETS = 20_000
# Weights that differ by rounding only are equal.
EQUAL_WEIGHTS = 1e-13


class WeightMoments(NamedTuple):
    """Of w, the averaging weights of a round with zeros for absentees.

    Attributes
    ----------
    mean : array, shape (C,)
        E[w_i].
    covariance : array, shape (C, C)
        E[w_i w_j] − E[w_i]E[w_j].
    """

    mean: Array
    covariance: Array

    @property
    def squares(self) -> Array:
        """E[w_i²], (C,)."""
        return np.diag(self.covariance) + self.mean**2


def weight_moments(weights: Array, sampling: Sampling) -> WeightMoments:
    """Return the mean and covariance of the averaging weights.

    With K draws: weighted sampling has mean p and covariance (diag p − ppᵀ)/K; uniform sampling of
    clients of equal weight mean 1/C and covariance (C − K)/(K(C − 1)C) (I − 11ᵀ/C); of unequal
    weight all subsets are enumerated.

    Parameters
    ----------
    weights : array, shape (C,)
        p.
    sampling : Sampling

    Raises
    ------
    ValueError
        If there are more than `MAX_SUBSETS` subsets to enumerate.

    Notes
    -----
    Source: C20. Cost: (number of subsets) · K², or C².

    Examples
    --------
    >>> import numpy as np
    >>> from linattn._settings import Sampling
    >>> p = np.array([0.048, 0.238, 0.571, 0.143])
    >>> weight_moments(p, Sampling(0.5)).mean.round(3)
    array([0.083, 0.292, 0.405, 0.221])
    """
    clients = len(weights)
    draws = sampling.draws(clients)
    if sampling.is_everybody(clients):
        return WeightMoments(weights, np.zeros((clients, clients)))
    if sampling.scheme == "weighted":
        spread = np.diag(weights) - np.outer(weights, weights)
        return WeightMoments(weights, spread / draws)
    if np.ptp(weights) <= EQUAL_WEIGHTS * weights.max():
        scale = (clients - draws) / (draws * (clients - 1) * clients)
        return WeightMoments(weights, scale * (np.eye(clients) - 1.0 / clients))
    return _enumerated(weights, draws)


def _enumerated(weights: Array, draws: int) -> WeightMoments:
    clients = len(weights)
    count = comb(clients, draws)
    if count > MAX_SUBSETS:
        raise ValueError(
            f"participation must leave at most {MAX_SUBSETS:,} subsets of clients of unequal "
            f"weight, got {count:,} ({draws} of {clients}); take sampling='weighted', equal "
            "weights, or the mean of many runs."
        )
    subsets = np.array(list(combinations(range(clients), draws)))
    drawn = np.zeros((count, clients))
    shares = weights[subsets]
    np.put_along_axis(drawn, subsets, shares / shares.sum(axis=1, keepdims=True), axis=1)
    mean = drawn.mean(axis=0)
    apart = drawn - mean
    return WeightMoments(mean, apart.T @ apart / count)
