"""The log law of the best warm-up time: drift against the slowest mode of the approach (C18)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from linattn._checks import real
from linattn._typing import Array
from linattn.objectives.profile import KernelProfile
from linattn.theory.drift_field import DriftField
from linattn.theory.response import FLAT, SETTLED, DriftResponse
from linattn.theory.symmetry import gauge_directions
from linattn.types import Params

LEFT = 3e-3
"""Share of P(0) − P° at which the constants are read: earlier the fast modes speak, later the
balance of the blocks is nearly all that is left."""
MOST_STEPS = 50
STATIONARY = 1e-9
"""‖∇F‖ at which Newton's method ends."""
LONGEST = 1.0
"""Of a Newton step in the parameters."""
EQUAL = 1e-12
"""Weights that differ by less are the same."""


@dataclass(frozen=True)
class LogLaw:
    """What late drift does to P near the floor P° to which a centralized path falls.

    With the slowest mode alone left of the path and of its tangent u,

        P(B + s u_B) ≈ P° + ½a²e^{−2κ(τ − τ₀)} + s·β·e^{−κ(τ − τ₀)} + O(s²) .

    Attributes
    ----------
    rate : float
        κ, units of curvature.
    time : float
        τ₀, where three thousandths of P(0) − P° are left, or the horizon.
    excess : float
        a² = 2(P(τ₀) − P°), units of loss.
    crossing : float
        β = ⟨∇P, u_B⟩ at τ₀, units of loss per drift number: negative where the drift lies beyond
        the optimum as seen from the approach.
    left : float
        (P(τ₀) − P°)/(P(0) − P°): above 3e-3 where the path has not come near by the horizon.
    """

    rate: float
    time: float
    excess: float
    crossing: float
    left: float

    @property
    def has_interior(self) -> bool:
        """The sign condition β < 0: whether there is a time at which to freeze."""
        return self.crossing < 0.0

    def best_time(self, drift_number: float) -> float:
        """Return τ* = τ₀ + log(a²/(s|β|))/κ, at least 0; +inf where β ≥ 0 or s = 0."""
        s = real("drift_number", drift_number, minimum=0.0)
        if s == 0.0 or not self.has_interior:
            return float("inf")
        lag = float(np.log(self.excess / (s * -self.crossing))) / self.rate
        return max(0.0, self.time + lag)

    def saving(self, drift_number: float) -> float:
        """Return what freezing at τ* instead of never saves, s²β²/(2a²), units of loss."""
        s = real("drift_number", drift_number, minimum=0.0)
        return 0.5 * (s * self.crossing) ** 2 / self.excess if self.has_interior else 0.0


def log_law(response: DriftResponse) -> LogLaw:
    """Return the constants of the log law for the path of a response.

    P° is P at the rest point next to the end of the path, and κ the least curvature of F there,
    both without the directions along which predictions stay: the balance of kernel and value block
    is moved by the ridges alone, so slowly that neither path nor drift have settled in it.

    Parameters
    ----------
    response : DriftResponse
        Of equal work, and averaging weights with mean p_i.

    Raises
    ------
    ValueError
        If the path is not that of F, or does not end near a minimum.

    Notes
    -----
    Source: C18. Cost: a few Hessians of 2 D gradients, one profile gradient.

    Examples
    --------
    >>> import linattn as la
    >>> from linattn.theory.log_law import log_law
    >>> problem = la.synthetic_problem(num_clients=3, sequences_per_client=6, num_tokens=5, dim=2,
    ...     num_outputs=1, value_heterogeneity=1.0, value_ridge=0.1, kernel_ridge=0.1)
    >>> law = log_law(la.drift_response(problem, la.initial_params(problem), 60.0))
    >>> law.best_time(0.01) >= law.best_time(0.1)
    True
    """
    flow, problem = response.flow, response.flow.problem
    if np.abs(flow.shares - problem.weights).max() > EQUAL:
        raise ValueError(
            "response must be of equal work and of draws whose weights have mean p_i, got a path "
            "of another objective than P."
        )
    profile = KernelProfile(problem)
    floor = rest_point(flow, response.at(len(response.time) - 1))
    above = response.profile - profile.value(floor.params)
    if not (floor.rates[0] > FLAT * floor.rates[-1] and floor.slope <= SETTLED and above[0] > 0.0):
        raise ValueError(
            "response must end near a minimum, got a least curvature of "
            f"{floor.rates[0]:.2g} and a gradient of norm {floor.slope:.2g} at the rest point."
        )
    at = int(np.argmax(above <= LEFT * above[0])) or len(above) - 1
    slope = profile.gradient(response.at(at)).flat
    part = floor.params.layout.kernel_part
    return LogLaw(
        rate=float(floor.rates[0]),
        time=float(response.time[at]),
        excess=2.0 * float(above[at]),
        crossing=float(slope[part] @ response.drift[at][part]),
        left=float(above[at] / above[0]),
    )


class RestPoint(NamedTuple):
    """Where the flow rests but for the balance of blocks.

    Attributes
    ----------
    params : Params
    rates : array
        Curvatures of F across the directions along which predictions stay, rising.
    slope : float
        ‖∇F‖ across them.
    """

    params: Params
    rates: Array
    slope: float


def rest_point(flow: DriftField, start: Params) -> RestPoint:
    """Return the rest point that Newton's method finds across the gauge directions.

    Parameters
    ----------
    flow : DriftField
    start : Params

    Notes
    -----
    Source: C18. Steps are at most 1 long, with |curvature| in place of negative ones. Cost: 2 D
    gradients per step, a few steps from nearby.
    """
    at = start
    for _ in range(MOST_STEPS):
        across = _across(at)
        slope = across.T @ flow.gradient(at.flat)
        rates, modes = np.linalg.eigh(across.T @ flow.hessian(at.flat) @ across)
        size = float(np.linalg.norm(slope))
        if size <= STATIONARY:
            break
        bent = np.maximum(np.abs(rates), FLAT * np.abs(rates).max())
        step = across @ (modes @ ((modes.T @ slope) / bent))
        length = float(np.linalg.norm(step))
        at = Params(at.layout, at.flat - step * min(1.0, LONGEST / length))
    return RestPoint(at, rates, size)


def _across(params: Params) -> Array:
    """Orthonormal directions across those along which predictions stay, (D, D − their number)."""
    found = np.linalg.svd(gauge_directions(params))
    apart = np.count_nonzero(found.S / found.S[0] > FLAT)
    return np.asarray(found.Vh[apart:].T)
