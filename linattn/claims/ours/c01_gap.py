"""C1: the gap to the profile is a quadratic form."""

import numpy as np

from linattn.claims.record import Claim, Instance, Measurement
from linattn.claims.sizes import loss_terms
from linattn.objectives import Joint, KernelProfile
from linattn.streams import stream


def _measure(instance: Instance) -> Measurement:
    """At a moderate distance from V*, where the subtraction still has digits."""
    joint, profile = Joint(instance.problem), KernelProfile(instance.problem)
    star = profile.minimizer(instance.params)
    away = stream(instance.seed, "distance").normal(size=star.shape)
    away *= 0.5 * (1.0 + np.linalg.norm(star)) / np.linalg.norm(away)
    params = instance.params.replace(value=star + away)
    value, lowest = joint.value(params), profile.value(params)
    scale = abs(value) + abs(lowest) + loss_terms(instance)
    return Measurement(value - lowest, joint.gap(params), scale)


CLAIMS = (Claim("C1", "F(B, V) − P(B) = ½⟨V − V*, A(V − V*)⟩", "identity", "Objectives", _measure),)
