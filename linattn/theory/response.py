"""Drift response: the centralized path and its tangent in the drift number (C17, C18)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from linattn._checks import as_float64, positive_int, real
from linattn._display import axes_or_new, facts_html
from linattn._settings import check_sampling
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.linalg import lowest_point, stack_heads
from linattn.objectives.joint import check_fits
from linattn.objectives.population import client_normal_equations, population
from linattn.theory.drift_field import DriftField, relative_work
from linattn.theory.drift_flow import check_moves, integrate, stored_times
from linattn.theory.noise_response import NoiseResponse, noise_response
from linattn.theory.weights import weight_moments
from linattn.types import Params, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_NOISE_SIZE = 512
SETTLED = 1e-6


def drift_response(
    problem: Problem,
    params: Params,
    horizon: float,
    *,
    work: Sequence[float] | Array | None = None,
    noise: bool = False,
    participation: float = 1.0,
    batch_size: int | None = None,
    sampling: str = "uniform",
) -> DriftResponse:
    """Return the gradient flow θ(τ) from `params` and its tangent u(τ) in the drift number.

        θ' = −g(θ),     u' = −H(θ)u + c(θ),     u(0) = 0,     c = Σ p_i H_i (g_i − g)

    FedAvg of E local steps of size η is θ(τ) + s·u(τ) + O(s²) + O(η) at τ = ηE·(rounds), with the
    drift number s = η(E − 1)/2: one response serves every step size and number of local steps.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start; must not be stationary.
    horizon : float
        Largest τ > 0, units of 1/curvature.
    work : array, shape (C,), optional
        Numbers in proportion to the clients' E_i; path and tangent belong to F_q, q_i = p_iE_i/Ē.
    noise : bool
        Whether to add mean shift and covariance of sampling and minibatches (D ≤ 512).
    participation, batch_size, sampling
        As in `run`; a batch size needs noise. Where E[w_i] ≠ p_i the path belongs to Σ E[w_i] F_i.

    Raises
    ------
    TypeError, ValueError
        If the parameters do not fit the problem, are stationary, an argument is out of range, the
        path is not finite up to the horizon or takes more than 200,000 evaluations, or D > 512
        with noise.

    Notes
    -----
    Source: C18; C19 for the noise. Integrated by DOP853 (scipy) at a relative tolerance of 1e-6.
    Cost: 12 stages per step, each of 5 C + 5 gradients (merged; 7 C + 7 factored), a step being
    about 5/λ_max; with noise see `noise_response`.

    Examples
    --------
    >>> import linattn as la
    >>> problem = la.synthetic_problem(num_clients=3, sequences_per_client=4, num_tokens=4, dim=2,
    ...     num_outputs=1, value_heterogeneity=1.0, value_ridge=0.1, kernel_ridge=0.1)
    >>> response = la.drift_response(problem, la.initial_params(problem), 10.0)
    >>> bool(response.profile[0] > response.profile[-1])
    True
    """
    check_fits(problem, params)
    end = real("horizon", horizon, above=0.0)
    shares = check_sampling(participation, sampling)
    batch = None if batch_size is None else positive_int("batch_size", batch_size)
    if batch is not None and not noise:
        raise ValueError(
            f"batch_size must be left out without noise=True, got {batch}: minibatches move "
            "neither path nor drift."
        )
    if noise and params.flat.size > MAX_NOISE_SIZE:
        raise ValueError(
            f"params must have at most {MAX_NOISE_SIZE} entries for noise=True, got "
            f"{params.flat.size}: covariances have D² entries."
        )
    weights = weight_moments(problem.weights, shares)
    relative = relative_work(work, weights.mean)
    flow = DriftField(problem, params, weights.mean, relative)
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        check_moves(flow, params)
        solution = integrate(flow, params.flat, end)
        times, profile = stored_times(problem, params, solution, end)
        states = solution(times).T
        size = params.flat.size
        path, drift = states[:, :size], states[:, size:]
        found = None
        if noise:
            found = noise_response(flow, weights, batch, times, lambda tau: solution(tau)[:size])
    return DriftResponse(times, path, drift, profile, found, params, flow)


@dataclass(frozen=True, eq=False)
class DriftResponse:
    """The centralized path and how drift moves it; see `drift_response`.

    Attributes
    ----------
    time : array, shape (N,)
        τ: 0, every integer up to the horizon, the horizon, and more where P bends.
    path, drift : array, shape (N, D)
        θ(τ) and u(τ).
    profile : array, shape (N,)
        P along the path, units of loss.
    noise : NoiseResponse or None
        Mean shift and covariance.
    params : Params
        The start.
    flow : DriftField
    """

    time: Array
    path: Array
    drift: Array
    profile: Array
    noise: NoiseResponse | None = field(repr=False)
    params: Params = field(repr=False)
    flow: DriftField = field(repr=False)

    def __repr__(self) -> str:
        return (
            f"DriftResponse(τ up to {self.time[-1]:g} at {len(self.time)} times, "
            f"{self.path.shape[1]} parameters, profile {self.profile[0]:.6g} to "
            f"{self.profile[-1]:.6g}{', with noise' if self.noise is not None else ''})"
        )

    def _repr_html_(self) -> str:
        return facts_html(
            "DriftResponse",
            [
                ("horizon τ", float(self.time[-1])),
                ("stored times", len(self.time)),
                ("parameters", self.path.shape[1]),
                ("P at the start", float(self.profile[0])),
                ("P at the horizon", float(self.profile[-1])),
                ("‖u‖ at the horizon", float(np.linalg.norm(self.drift[-1]))),
                ("noise", None if self.noise is None else "of clients and minibatches"),
            ],
        )

    def plot(
        self, axes: Axes | None = None, *, drift_numbers: Sequence[float] = (0.0, 0.02, 0.05, 0.1)
    ) -> Axes:
        """Draw `objective` against the time at which the kernel is frozen, and `best_time`.

        Parameters
        ----------
        axes : matplotlib Axes, optional
        drift_numbers : sequence of float
            One curve for each s; the first order is good up to about 0.1.

        Returns
        -------
        matplotlib Axes
        """
        axes = axes_or_new(axes)
        for s in drift_numbers:
            curve = self.objective(s)
            (line,) = axes.plot(self.time, curve, label=f"s = {s:g}")
            best = lowest_point(self.time, curve)
            axes.plot(best, np.interp(best, self.time, curve), "*", color=line.get_color())
        axes.set(xlabel="frozen at time τ (1/curvature)", ylabel="loss at the horizon")
        axes.legend()
        return axes

    @property
    def sampling_covariance(self) -> Array:
        """Σ per unit of ηE from the draw of clients, (N, D, D)."""
        return self._noise().sampling_covariance

    @property
    def batch_covariance(self) -> Array:
        """Σ per unit of η from minibatches, (N, D, D)."""
        return self._noise().batch_covariance

    @property
    def sampling_shift(self) -> Array:
        """m per unit of ηE from the draw of clients, (N, D)."""
        return self._noise().sampling_shift

    @property
    def batch_shift(self) -> Array:
        """m per unit of η from minibatches, (N, D)."""
        return self._noise().batch_shift

    def _noise(self) -> NoiseResponse:
        if self.noise is None:
            raise AttributeError("this response was made without noise; ask with noise=True.")
        return self.noise

    def at(self, index: int, drift_number: float = 0.0) -> Params:
        """θ(τ) + s·u(τ) at a stored time."""
        flat = self.path[index] + drift_number * self.drift[index]
        return Params(self.params.layout, flat)

    def objective(self, drift_number: float) -> Array:
        """Return Φ(τ; s), (N,): freeze at τ, go on with the value block to the horizon.

        P(B + s u_B) + ½‖e^{−A(τ_R − τ)}(V + s u_V − V* − s b) + s b‖²_A, with A and V* at B + s u_B
        and b = A⁻¹Σ p_i(A_i − A)g_i* (C8 to first order): C9 in the limit of small η.

        Notes
        -----
        Source: C18. Cost: one eigendecomposition per stored time.
        """
        s = real("drift_number", drift_number, minimum=0.0)
        return np.array([self._frozen_at(k, s) for k in range(len(self.time))])

    def _frozen_at(self, index: int, drift_number: float) -> float:
        params, problem = self.at(index, drift_number), self.flow.problem
        held = population(problem)
        system = held.value_system(params.kernels())
        parts = client_normal_equations(problem, params.kernels())
        hessians = parts.hessian + problem.value_ridge * np.eye(len(system.hessian))
        shares, work = self.flow.shares, self.flow.work
        hessian = np.tensordot(shares, hessians, 1)
        star = np.linalg.solve(hessian, np.tensordot(shares, parts.linear, 1))
        slopes = np.tensordot(shares * work, hessians @ (hessians @ star - parts.linear), 1)
        limit = star + drift_number * np.linalg.solve(hessian, slopes)
        values, vectors = np.linalg.eigh(hessian)
        decay = np.exp(-values * (self.time[-1] - self.time[index]))
        lag = vectors @ (decay[:, None] * (vectors.T @ (stack_heads(params.value) - limit)))
        lag = lag + limit - system.minimizer
        gap = 0.5 * float(np.vdot(lag, system.hessian @ lag))
        return held.profile_value(params, system) + gap

    def best_time(self, drift_numbers: Sequence[float] | Array | float) -> Array:
        """Return τ*(s), the best time to freeze to first order in s, for every drift number.

        The argmin of `objective` over stored times, refined by a parabola through its neighbours.

        Notes
        -----
        Source: C18. Cost: one `objective` per drift number.
        """
        asked = np.atleast_1d(as_float64("drift_numbers", drift_numbers))
        best = np.array(
            [lowest_point(self.time, self.objective(float(s))) for s in asked.reshape(-1)]
        )
        return best.reshape(np.shape(drift_numbers)) if np.ndim(drift_numbers) else best[0]

    def settled(self, params: Params) -> Array:
        """Return u_∞ = H⁻¹c at a stationary point of the flow, (D,).

        s·u_∞ is the bias of FedAvg to first order. Directions in which F is flat (rotations of
        several heads) are left out.

        Parameters
        ----------
        params : Params
            Where ‖∇F‖ ≤ 1e-6 (1 + ‖θ‖).

        Raises
        ------
        ValueError
            If `params` are not stationary or of other blocks.

        Notes
        -----
        Source: C18 (b). Cost: 2 D gradients and (D)³.
        """
        if params.layout != self.params.layout:
            raise ValueError(f"params must have the blocks of the start, got {params!r}.")
        size = float(np.linalg.norm(self.flow.gradient(params.flat)))
        if size > SETTLED * (1.0 + float(np.linalg.norm(params.flat))):
            raise ValueError(f"params must be stationary, got a gradient of norm {size:.2g}.")
        return settled_drift(self.flow, params.flat)


def settled_drift(flow: DriftField, flat: Array) -> Array:
    """Return u_∞ = H⁻¹c without the directions in which F is flat to rounding, (D,).

    Notes
    -----
    Source: C18 settled, (c) of the fixed point of FedAvg. Cost: 2 D gradients and D³.
    """
    values, vectors = np.linalg.eigh(flow.hessian(flat))
    firm = np.abs(values) > FLAT * np.abs(values).max()
    turned = vectors.T @ flow.drift(flat)
    return np.asarray(vectors[:, firm] @ (turned[firm] / values[firm]))


# Curvature below this share of the largest is that of a symmetry.
FLAT = 1e-9
