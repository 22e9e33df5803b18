"""MOON: a contrastive term that pulls representations to those of the server's model."""

from __future__ import annotations

import numpy as np

from linattn._checks import real
from linattn._typing import Array, IntArray
from linattn.federated.method import Cost, Method, RoundContext
from linattn.federated.nature import Nature
from linattn.oracles.protocol import Features
from linattn.oracles.work import Work


def moon(*, weight: float, temperature: float = 0.5) -> Method:
    """Return MOON: local steps on F_i(w) + μ · mean over sequences of ℓ_con.

        ℓ_con = −log[e^{s_g/τ}/(e^{s_g/τ} + e^{s_p/τ})],  s_g = cos(z, z_glob),  s_p = cos(z, z_own)

    The **representation** z of a sequence is what the last linear map of the model multiplies, all
    queries of the sequence as one vector: U B_h G of all heads for the single layer (V is the last
    map, so the term moves the kernel alone), the features that W_O reads for the deep model. There
    is no projection head. z_glob is that of the model which the round sent down, z_own that of
    the model with which the client ended its previous participation. A client that takes part for
    the first time has none; it uses the global model, which makes the term vanish.

    Parameters
    ----------
    weight : float
        μ ≥ 0, units of loss; 0 is FedAvg through the general path.
    temperature : float
        τ > 0.

    Raises
    ------
    ValueError
        If weight is negative or temperature is not positive.

    Notes
    -----
    Source: MOON (arXiv 2103.16257). A zero representation has cosine 0 and gradient 0. The cosine
    does not see the scale of z, which for linear attention is half of what a kernel does. Cost per
    local step: two forward passes and one gradient of the features more than FedAvg; local steps
    run in Python.
    """
    weight = real("weight", weight, minimum=0.0)
    temperature = real("temperature", temperature, above=0.0)

    def penalty(
        context: RoundContext, client: int, own: Array, flat: Array, batch: IntArray | None
    ) -> Array:
        return (
            weight
            * contrastive(context, client, own, flat, batch=batch, temperature=temperature)[1]
        )

    return Method(
        f"moon({weight:g})",
        penalty_gradient=penalty,
        client_memory=lambda context, client: context.params.flat,
        update_client=lambda context, client, server, own, end: end,
        extra_cost=_cost,
        declared=Nature(corrected=True, memory=True),
    )


def contrastive(
    context: RoundContext,
    client: int,
    own: Array,
    flat: Array,
    *,
    batch: IntArray | None = None,
    temperature: float,
) -> tuple[float, Array]:
    """Return the mean of ℓ_con over the batch and its gradient at `flat`, (D,).

    Parameters
    ----------
    context : RoundContext
        Holds the global model.
    client : int
    own : array, shape (D,)
        The client's previous model.
    flat : array, shape (D,)
    batch : array of int or None
    temperature : float
    """
    oracle = context.oracle
    count = oracle.amount(client, batch)[1]
    models = (flat, context.params.flat, own)
    groups = zip(*(oracle.features(client, w, batch) for w in models), strict=True)
    value, gradient = 0.0, np.zeros(flat.size)
    for here, there, before in groups:
        loss, part = _group(here, there.rows, before.rows, temperature)
        value += loss / count
        gradient += part / count
    return value, gradient


def _group(here: Features, there: Array, before: Array, temperature: float) -> tuple[float, Array]:
    """Sum of ℓ_con = log(1 + e^{(s_p − s_g)/τ}) over sequences, and its gradient."""
    to_global, slope_global = _cosine(here.rows, there)
    to_own, slope_own = _cosine(here.rows, before)
    gap = (to_own - to_global) / temperature
    share = 1.0 / (1.0 + np.exp(-gap)) / temperature
    cotangent = share[:, None] * (slope_own - slope_global)
    return float(np.logaddexp(0.0, gap).sum()), here.pull_back(cotangent)


def _cosine(rows: Array, other: Array) -> tuple[Array, Array]:
    """cos(z, z') of every row, (S,), and its gradient in z, (S, k); both 0 where a row is 0."""
    squares = np.einsum("sk,sk->s", rows, rows), np.einsum("sk,sk->s", other, other)
    sizes = np.sqrt(squares[0] * squares[1])
    inverse = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    cosine = np.einsum("sk,sk->s", rows, other) * inverse
    shrink = np.divide(cosine, squares[0], out=np.zeros_like(cosine), where=sizes > 0)
    return cosine, inverse[:, None] * other - shrink[:, None] * rows


def _cost(context: RoundContext, client: int, server: object, own: Array) -> Cost:
    """Every local step: features of the two fixed models, and of w with their gradient."""
    assert context.plan is not None
    work = Work().plus(context.oracle.feature_work(frozenset()), 2)
    return Cost(per_step=work.plus(context.oracle.feature_work(context.plan.trained)))
