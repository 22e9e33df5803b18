"""MOON: a contrastive term that pulls representations to those of the server's model."""

from __future__ import annotations

from collections.abc import Sequence

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
    local step, as it is billed: two forward passes and one gradient of the features more than
    FedAvg; on full batches the passes of the fixed models are made once a round. Local steps run in
    Python.
    """
    weight = real("weight", weight, minimum=0.0)
    temperature = real("temperature", temperature, above=0.0)
    held = _Directions()

    def penalty(
        context: RoundContext, client: int, own: Array, flat: Array, batch: IntArray | None
    ) -> Array:
        if batch is None:
            toward = held.of(context, client, own)
        else:
            toward = directions(context, client, own, batch)
        found = contrastive(context, client, flat, toward, batch=batch, temperature=temperature)
        return weight * found[1]

    def remember(
        context: RoundContext, client: int, server: object, own: Array, end: Array
    ) -> Array:
        held.forget()
        return end

    return Method(
        f"moon({weight:g})",
        penalty_gradient=penalty,
        client_memory=lambda context, client: context.params.flat,
        update_client=remember,
        extra_cost=_cost,
        declared=Nature(corrected=True, memory=True),
    )


def directions(
    context: RoundContext, client: int, own: Array, batch: IntArray | None = None
) -> list[Array]:
    """Return z_own/‖z_own‖ − z_glob/‖z_glob‖ of a batch by group, (S, k): all that ℓ_con reads.

    It is the same in all local steps, because both models are fixed.
    """
    models = context.params.flat, own
    pairs = zip(*(context.oracle.features(client, w, batch) for w in models), strict=True)
    return [_normed(before.rows) - _normed(there.rows) for there, before in pairs]


class _Directions:
    """`directions` of all sequences of a client, kept through the local steps of its round."""

    def __init__(self) -> None:
        self._last: tuple[RoundContext, int, Array, list[Array]] | None = None

    def of(self, context: RoundContext, client: int, own: Array) -> list[Array]:
        last = self._last  # read once: another thread may run the same method
        if last is None or last[0] is not context or last[1] != client or last[2] is not own:
            last = self._last = (context, client, own, directions(context, client, own))
        return last[3]

    def forget(self) -> None:
        """Keep nothing of a round that is over."""
        self._last = None


def contrastive(
    context: RoundContext,
    client: int,
    flat: Array,
    toward: Sequence[Array],
    *,
    batch: IntArray | None = None,
    temperature: float,
) -> tuple[float, Array]:
    """Return the mean of ℓ_con over the batch and its gradient at `flat`, (D,).

    Parameters
    ----------
    context : RoundContext
    client : int
    flat : array, shape (D,)
    toward : list of array, shape (S, k)
        `directions` of the batch.
    batch : array of int or None
    temperature : float
    """
    oracle = context.oracle
    count = oracle.amount(client, batch)[1]
    value, gradient = 0.0, np.zeros(flat.size)
    for here, direction in zip(oracle.features(client, flat, batch), toward, strict=True):
        loss, part = _group(here, direction, temperature)
        value += loss / count
        gradient += part / count
    return value, gradient


def _group(here: Features, toward: Array, temperature: float) -> tuple[float, Array]:
    """Sum of ℓ_con = log(1 + e^{(s_p − s_g)/τ}) over sequences, and its gradient.

    With the unit vectors u of the fixed models, s_p − s_g = ⟨z, u_p − u_g⟩/‖z‖.
    """
    rows, inverse = here.rows, _inverse_norms(here.rows)
    apart = np.einsum("sk,sk->s", rows, toward) * inverse
    gap = apart / temperature
    share = inverse / (1.0 + np.exp(-gap)) / temperature
    cotangent = share[:, None] * toward - (share * apart * inverse)[:, None] * rows
    return float(np.logaddexp(0.0, gap).sum()), here.pull_back(cotangent)


def _inverse_norms(rows: Array) -> Array:
    """1/‖z‖ of every row, (S,); 0 where a row is 0."""
    squares: Array = np.einsum("sk,sk->s", rows, rows)
    inverse: Array = np.zeros_like(squares)
    np.divide(1.0, np.sqrt(squares), out=inverse, where=squares > 0)
    return inverse


def _normed(rows: Array) -> Array:
    return np.asarray(_inverse_norms(rows)[:, None] * rows)


def _cost(context: RoundContext, client: int, server: object, own: Array) -> Cost:
    """Every local step: features of the two fixed models, and of w with their gradient."""
    assert context.plan is not None
    work = Work().plus(context.oracle.feature_work(frozenset()), 2)
    return Cost(per_step=work.plus(context.oracle.feature_work(context.plan.trained)))
