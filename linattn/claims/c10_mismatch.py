"""C10: averaging client models is not averaging their predictions, by exactly a covariance."""

import numpy as np

from linattn._typing import Array
from linattn.analysis.mismatch import aggregation_mismatch
from linattn.claims.record import Claim, Condition, Instance, Measurement, refused
from linattn.federated.methods import fed_avg
from linattn.federated.oracle import StatisticsOracle
from linattn.federated.rounds import RoundDriver, check_settings
from linattn.types import Params


def _client_models(instance: Instance) -> tuple[Array, Array]:
    """Weights and client parameters (P, D) at the end of one round of local steps."""
    settings = check_settings(
        rounds=1,
        local_steps=instance.local_steps,
        local_lr=instance.local_lr,
        batch_size=instance.batch_size,
        participation=instance.participation,
        seed=instance.seed,
    )
    oracle = StatisticsOracle(instance.problem, instance.params.layout)
    driver = RoundDriver(fed_avg(), instance.problem, oracle, instance.params, settings)
    with np.errstate(over="ignore", invalid="ignore"):
        done = driver.step(0)
    return done.context.weights, done.ends


def _measure(instance: Instance) -> Measurement:
    weights, ends = _client_models(instance)
    finite = Condition("finite trajectory", 0.0 if np.isfinite(ends).all() else -1.0)
    if finite.slack < 0:
        return refused(finite)
    models = [Params(instance.params.layout, flat) for flat in ends]
    found = aggregation_mismatch(instance.problem, models, weights)
    predicted = found.kernel_value + found.query_key
    return Measurement(
        float(np.linalg.norm(found.measured)),
        float(np.linalg.norm(predicted)),
        2.0 * found.scale,
        residual=float(np.linalg.norm(found.measured - predicted)),
        conditions=(finite,),
    )


CLAIMS = (
    Claim(
        "C10",
        "Σp Ŷ(θ_i) − Ŷ(θ̄) = the covariance of kernel and value (and of query and key)",
        "identity",
        "theory section 3",
        _measure,
        assumptions=("finite local steps",),
    ),
)
