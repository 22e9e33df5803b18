"""C10: averaging client models is not averaging their predictions, by exactly a covariance."""

import numpy as np

from linattn._typing import Array
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


def _maps(gram: Array, kernels: Array, value: Array) -> Array:
    """Z = Σ_h B_h G V_h of every sequence, (S, d, m); predictions are U Z."""
    return sum(
        (b @ (gram @ v) for b, v in zip(kernels, value, strict=True)),
        np.zeros((*gram.shape[:2], value.shape[-1])),
    )


def _measure(instance: Instance) -> Measurement:
    weights, ends = _client_models(instance)
    finite = Condition("finite trajectory", 0.0 if np.isfinite(ends).all() else -1.0)
    if finite.slack < 0:
        return refused(finite)
    gram = instance.problem.statistics.gram
    models = [Params(instance.params.layout, flat) for flat in ends]
    mean = Params(instance.params.layout, weights @ ends)
    averaged = sum(
        w * _maps(gram, model.kernels(), model.value)
        for w, model in zip(weights, models, strict=True)
    )
    left = averaged - _maps(gram, mean.kernels(), mean.value)
    kernel_mean = np.einsum("p,phab->hab", weights, np.stack([m.kernels() for m in models]))
    right = sum(
        w * _maps(gram, model.kernels() - kernel_mean, model.value - mean.value)
        for w, model in zip(weights, models, strict=True)
    )
    # Factored: the mean of the kernels differs from the kernel of the means by a covariance.
    right = right + _maps(gram, kernel_mean - mean.kernels(), mean.value)
    size = float(np.linalg.norm(np.asarray(averaged)))
    return Measurement(
        float(np.linalg.norm(left)),
        float(np.linalg.norm(right)),
        2.0 * size,
        residual=float(np.linalg.norm(left - right)),
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
