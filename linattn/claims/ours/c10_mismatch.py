"""C10: averaging client models is not averaging their predictions, by exactly a covariance."""

import numpy as np

from linattn.analysis.mismatch import aggregation_mismatch
from linattn.claims.along import warmup_rounds
from linattn.claims.conditions import FINITE_WARMUP_ROUND
from linattn.claims.record import Claim, Instance, Measurement
from linattn.types import Params


def _measure(instance: Instance) -> Measurement:
    path = warmup_rounds(instance)[0]
    models = [Params(instance.params.layout, flat) for flat in path.places[-1]]
    found = aggregation_mismatch(instance.problem, models, path.weights)
    predicted = found.kernel_value + found.query_key
    return Measurement(
        float(np.linalg.norm(found.measured)),
        float(np.linalg.norm(predicted)),
        2.0 * found.scale,
        residual=float(np.linalg.norm(found.measured - predicted)),
    )


CLAIMS = (
    Claim(
        "C10",
        "Σp Ŷ(θ_i) − Ŷ(θ̄) = the covariance of kernel and value (and of query and key)",
        "identity",
        "Warm-up",
        _measure,
        conditions=(FINITE_WARMUP_ROUND,),
    ),
)
