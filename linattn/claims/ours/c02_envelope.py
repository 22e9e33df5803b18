"""C2: the gradient of the profile is the kernel gradient of F at V*."""

from itertools import pairwise

import numpy as np

from linattn._typing import Array
from linattn.claims.record import LONG_BUDGET, Claim, Instance, Measurement
from linattn.claims.sizes import loss_terms
from linattn.objectives import Joint, KernelProfile
from linattn.streams import stream
from linattn.types import Params

# Eighth-order central difference: coefficients of P(±h), P(±2h), P(±3h), P(±4h).
STENCIL = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
# P is rational in the kernel with poles at a distance that depends on λ, so no one step fits all.
STEPS = tuple(10.0**-k for k in (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5))


def _difference(instance: Instance, direction: Array, step: float) -> tuple[float, float]:
    """The directional derivative of P by differences, and the sum of |terms| behind it."""
    params, profile = instance.params, KernelProfile(instance.problem)
    terms = [
        c * sign * profile.value(Params(params.layout, params.flat + sign * k * step * direction))
        for k, c in enumerate(STENCIL, start=1)
        for sign in (1, -1)
    ]
    size = sum(abs(term) for term in terms) + loss_terms(instance)
    return sum(terms) / step, size / step


def _measure(instance: Instance) -> Measurement:
    params = instance.params
    kernel = params.layout.mask(params.layout.kernel_blocks)
    direction = np.where(kernel, stream(instance.seed, "direction").normal(size=kernel.size), 0.0)
    direction *= np.linalg.norm(params.flat[kernel]) / np.linalg.norm(direction)
    found = [_difference(instance, direction, step) for step in STEPS]
    # The step at which neighbours agree best, without looking at the prediction.
    changes = [abs(a[0] - b[0]) for a, b in pairwise(found)]
    measured, scale = found[int(np.argmin(changes)) + 1]
    at_minimizer = params.replace(value=KernelProfile(instance.problem).minimizer(params))
    slope = Joint(instance.problem).gradient(at_minimizer).flat @ direction
    return Measurement(measured, float(slope), scale)


CLAIMS = (
    Claim("C2", "∇P(B) = ∂_B F(B, V*(B))", "identity", "Objectives", _measure, budget=LONG_BUDGET),
)
