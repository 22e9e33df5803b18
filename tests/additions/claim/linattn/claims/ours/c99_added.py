"""C99: the gradient of F is the mean of those of the clients."""

import numpy as np

from linattn._typing import Array
from linattn.analysis.applicable import FULL_BATCHES
from linattn.claims.record import Claim, Instance, Measurement
from linattn.objectives import Joint
from linattn.oracles.protocol import oracle_of


def mean_gradient(instance: Instance) -> Array:
    """Σ p_i ∇F_i at the start, on the first minibatch if there are any.

    Notes
    -----
    Source: C99.
    """
    problem, params = instance.problem, instance.params
    oracle, total = oracle_of(problem, params), np.zeros_like(params.flat)
    for client, weight in enumerate(problem.weights):
        batch = None if instance.batch_size is None else np.arange(instance.batch_size)
        total += weight * oracle.gradient(client, params.flat, batch)
    return total


def _measure(instance: Instance) -> Measurement:
    mean, whole = mean_gradient(instance), Joint(instance.problem).gradient(instance.params).flat
    norms = float(np.linalg.norm(mean)), float(np.linalg.norm(whole))
    return Measurement(*norms, sum(norms), residual=float(np.linalg.norm(mean - whole)))


CLAIMS = (Claim("C99", "∇F = Σp∇F_i", "identity", "C99", _measure, (FULL_BATCHES,)),)
