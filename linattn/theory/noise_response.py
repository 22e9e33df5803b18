"""What sampling and minibatches add to the centralized path: covariance and mean shift (C19)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.theory.drift_field import DriftField
from linattn.theory.gradient_noise import GradientNoise
from linattn.theory.weights import WeightMoments

ERROR = 5e-4
"""Relative difference of one step and two half steps that is accepted."""
FIRST_STEP = 0.05


class NoiseResponse(NamedTuple):
    """Of the linear theory along the path, at its stored times.

    Attributes
    ----------
    sampling_covariance, batch_covariance : array, shape (N, D, D)
        Σ per unit of ηE, from the draw of clients, and per unit of η, from minibatches.
    sampling_shift, batch_shift : array, shape (N, D)
        m per unit of ηE, and of η.
    """

    sampling_covariance: Array
    batch_covariance: Array
    sampling_shift: Array
    batch_shift: Array


class _Units(NamedTuple):
    """Covariances (2, D, D) and shifts (2, D) of both kinds of noise."""

    covariance: Array
    shift: Array


def noise_response(
    flow: DriftField,
    weights: WeightMoments,
    batch_size: int | None,
    times: Array,
    path: Callable[[float], Array],
) -> NoiseResponse:
    """Return covariance and mean shift along a path.

        Σ' = −HΣ − ΣH + Q,     m' = −Hm − ½∇³F:Σ,     Σ(0) = 0, m(0) = 0

    for Q_S = Cov(Σ_S w_i e_i g_i) and Q_b = Σ E[w_i²]e_iγ_i Cov_s(g_{i,s}). The system is linear in
    Q, so one pass per unit serves every η and E.

    Parameters
    ----------
    flow : DriftField
    weights : WeightMoments
        Of the draw of clients.
    batch_size : int or None
    times : array, shape (N,)
        Where to store, from 0.
    path : callable (τ) -> array (D,)

    Notes
    -----
    Source: C19. Each step is exact for H, Q and Σ of its middle (order 2), and accepted where one
    step and two half steps agree within 5e-4. Cost: a step has three Hessians (2 D gradients each),
    their eigendecompositions, and, per kind of noise, about 2 rank(Σ) gradients.
    """
    noise = None
    if batch_size is not None:
        noise = GradientNoise(flow.problem, flow.like, batch_size)
    stepper = _Stepper(flow, weights, noise, path)
    size = path(0.0).size
    state = _Units(np.zeros((2, size, size)), np.zeros((2, size)))
    stored, step = [state], FIRST_STEP
    for left, right in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        state, step = stepper.advance(state, left, right, step)
        stored.append(state)
    covariance = np.stack([held.covariance for held in stored])
    shift = np.stack([held.shift for held in stored])
    return NoiseResponse(covariance[:, 0], covariance[:, 1], shift[:, 0], shift[:, 1])


class _Stepper:
    """Steps of the moments with the path given."""

    def __init__(
        self,
        flow: DriftField,
        weights: WeightMoments,
        noise: GradientNoise | None,
        path: Callable[[float], Array],
    ) -> None:
        self.flow, self.noise, self.path = flow, noise, path
        self.weights = weights

    def sources(self, flat: Array) -> Array:
        """Q_S and Q_b, (2, D, D)."""
        own = self.flow.work[:, None] * self.flow.all_gradients(flat)
        apart = own - own.mean(axis=0)
        out = np.zeros((2, flat.size, flat.size))
        out[0] = apart.T @ self.weights.covariance @ apart
        if self.noise is not None:
            shares = self.weights.squares * self.flow.work
            out[1] = np.tensordot(shares, self.noise.covariances(flat), 1)
        return out

    def advance(
        self, state: _Units, left: float, right: float, step: float
    ) -> tuple[_Units, float]:
        """From one time to another, in steps that are halved and doubled as the error asks."""
        now = left
        while right - now > 1e-9 * right:
            h = min(step, right - now)
            whole = self.step(state, now, h)
            half = self.step(self.step(state, now, 0.5 * h), now + 0.5 * h, 0.5 * h)
            error = _difference(whole, half)
            if error > ERROR:
                step = 0.5 * h
                continue
            state, now = half, now + h
            if h == step:
                step *= min(2.0, (0.5 * ERROR / max(error, 1e-12)) ** (1.0 / 3.0))
        return state, step

    def step(self, state: _Units, now: float, h: float) -> _Units:
        """One step with everything but Σ and m of its middle."""
        middle = self.path(now + 0.5 * h)
        values, vectors = np.linalg.eigh(self.flow.hessian(middle))
        sums = values[:, None] + values
        turned = vectors.T @ np.concatenate([state.covariance, self.sources(middle)]) @ vectors
        after = np.exp(-h * sums) * turned[:2] + _integral(sums, h) * turned[2:]
        covariance = vectors @ after @ vectors.T
        mean = 0.5 * (state.covariance + covariance)
        push = np.stack([-0.5 * self.flow.third(middle, held) for held in mean])
        moved = np.exp(-h * values) * (state.shift @ vectors)
        moved = moved + _integral(values, h) * (push @ vectors)
        return _Units(covariance, moved @ vectors.T)


def _integral(rates: Array, h: float) -> Array:
    """∫_0^h e^{−xt} dt = (1 − e^{−xh})/x."""
    x = rates * h
    small = np.abs(x) < 1e-8
    return np.asarray(h * np.where(small, 1.0 - 0.5 * x, -np.expm1(-x) / np.where(small, 1.0, x)))


def _difference(left: _Units, right: _Units) -> float:
    """The largest relative difference of covariances and shifts."""
    gaps = [0.0]
    for a, b in zip(
        (*left.covariance, *left.shift), (*right.covariance, *right.shift), strict=True
    ):
        size = float(np.linalg.norm(b))
        if size > 0.0:
            gaps.append(float(np.linalg.norm(a - b)) / size)
    return max(gaps)
