"""Aggregation mismatch: averaging models is not averaging their predictions (C10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.clients import check_weights
from linattn.objectives.joint import check_fits
from linattn.types import Params, Problem


class Mismatch(NamedTuple):
    """Σp Z(θ_i) − Z(θ̄) on every sequence, and the covariances that it equals; each (S, d, m).

    Predictions are U Z, so multiplying by the queries gives the mismatch of predictions.

    Attributes
    ----------
    measured : array
        By averaging the maps of the models and mapping their average.
    kernel_value : array
        Σ_h Σp (B_i − B̃) G (V_i − V̄), B̃ the mean of the kernels.
    query_key : array
        Σ_h Cov_p(Q_i, K_i) G V̄; zero for merged kernels.
    scale : float
        ‖Σp Z(θ_i)‖ over all sequences.
    """

    measured: Array
    kernel_value: Array
    query_key: Array
    scale: float


def aggregation_mismatch(problem: Problem, models: Sequence[Params], weights: Array) -> Mismatch:
    """Return how far the averaged model is from the average of the models, with its cause.

        Σp Ŷ(θ_i) − Ŷ(θ̄) = Σ_h U [Σp (B_i − B̃) G (V_i − V̄) + Cov_p(Q_i, K_i) G V̄]

    Parameters
    ----------
    problem : Problem
        Gives the sequences.
    models : sequence of Params
        Of one layout.
    weights : array, shape (number of models,)

    Raises
    ------
    ValueError
        If the models do not fit the problem or each other, or weights are not one positive number
        per model that sum to one.

    Notes
    -----
    Source: C10. Zero when one factor block alone differs between the models. Cost: one map of all
    sequences per model, S H d² (d + m).
    """
    if not (models := list(models)):
        raise ValueError("models must be at least one, got none.")
    for model in models:
        check_fits(problem, model)
    gram, layout = problem.statistics.gram, models[0].layout
    shares = check_weights(weights, np.ones(len(models), dtype=np.int64))
    if any(model.layout != layout for model in models):
        raise ValueError("models must share one layout, got several.")
    mean = Params(layout, shares @ np.stack([model.flat for model in models]))
    kernels = [model.kernels() for model in models]
    kernel_mean = np.tensordot(shares, np.stack(kernels), 1)
    shape = (*gram.shape[:2], mean.value.shape[-1])
    averaged, covariance = np.zeros(shape), np.zeros(shape)
    for weight, kernel, model in zip(shares, kernels, models, strict=True):
        averaged += weight * value_maps(gram, kernel, model.value)
        covariance += weight * value_maps(gram, kernel - kernel_mean, model.value - mean.value)
    return Mismatch(
        averaged - value_maps(gram, mean.kernels(), mean.value),
        covariance,
        value_maps(gram, kernel_mean - mean.kernels(), mean.value),
        float(np.linalg.norm(averaged)),
    )


def value_maps(gram: Array, kernels: Array, value: Array) -> Array:
    """Return Z = Σ_h B_h G V_h of every sequence, (S, d, m); predictions are U Z."""
    out = np.zeros((*gram.shape[:2], value.shape[-1]))
    for kernel, block in zip(kernels, value, strict=True):
        out += kernel @ (gram @ block)
    return out
