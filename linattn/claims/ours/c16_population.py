"""C16: the population limit's sixth moment, in closed form and by enumeration."""

import numpy as np

from linattn.claims.record import Claim, Instance, Measurement
from linattn.streams import stream
from linattn.theory.wick import psi, psi_by_pairings

MAX_TOKENS = 12


def _measure(instance: Instance) -> Measurement:
    """At the instance's mean Gram matrix and its first kernel, for a random number of tokens."""
    problem = instance.problem
    covariance = np.tensordot(problem.sequence_weights, problem.statistics.gram, 1)
    draw = stream(instance.seed, "pairings")
    left = instance.params.kernels()[0]
    right = draw.normal(size=left.shape)
    tokens = int(draw.integers(1, MAX_TOKENS + 1))
    closed = psi(covariance, left, right, tokens)
    brute = psi_by_pairings(covariance, left, right, tokens)
    top = float(np.linalg.norm(covariance, 2))
    # Fifteen terms, each at most this.
    scale = 15.0 * top**3 * float(np.linalg.norm(left) * np.linalg.norm(right)) * len(left)
    return Measurement(
        float(np.linalg.norm(brute)),
        float(np.linalg.norm(closed)),
        scale,
        residual=float(np.linalg.norm(closed - brute)),
    )


CLAIMS = (
    Claim(
        "C16",
        "Ψ(P, Q) = E[GPGQG] of n Gaussian tokens: closed formula against all 15 pairings",
        "identity",
        "Population limit",
        _measure,
    ),
)
