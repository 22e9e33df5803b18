"""FedSQ: training under the gates of a frozen structural copy."""

from __future__ import annotations

from linattn.federated.method import Cost, Method, RoundContext
from linattn.federated.nature import Nature
from linattn.types import Params


def fed_sq(*, structural: Params) -> Method:
    """Return FedSQ: FedAvg with the gates of ReLU features fixed by a structural copy.

        Q = 1[X^S W_Q^S > 0] ⊙ (X W_Q),   K = 1[X^S W_K^S > 0] ⊙ (X W_K)   in every layer

    X^S are the tokens of the structural parameters' own forward pass, with their own residual
    stream; only the other copy, w, trains. Training and history use the gates; so must
    predictions: ``model.predict(params, tokens, gates=model.gates(structural, tokens))``. With
    φ = identity there are no gates and this is FedAvg to the bit.

    Parameters
    ----------
    structural : Params
        Of the model of the problem.

    Raises
    ------
    TypeError, ValueError
        If structural is not parameters of a `DeepAttention`; at the first round if the problem has
        one layer only or another model.

    Notes
    -----
    Source: FedSQ (known to us by its abstract), re-implemented; the rule of a layer is inferred
    from it. Given the gates a layer is linear in each of W_Q, W_K and W_V but not jointly, unlike
    the affine regime of a ReLU network. The structural copy is sent once to every client, which
    runs it once over its sequences. Cost: besides, that of FedAvg.
    """
    if not isinstance(structural, Params):
        raise TypeError(f"structural must be Params, got {type(structural).__name__}.")
    if not structural.layout.layers:
        raise ValueError(
            "structural must be parameters of a DeepAttention with ReLU gates, got blocks "
            f"{', '.join(structural.layout.names)}, which have none."
        )

    def cost(context: RoundContext, client: int, server: object, seen: bool) -> Cost:
        if seen:
            return Cost()
        tokens, sequences = context.oracle.amount(client)
        work = context.oracle.feature_work(frozenset()).total(tokens, sequences, 1)
        return Cost(floats_down=structural.layout.size, multiply_adds=work)

    return Method(
        "fed_sq",
        oracle=lambda oracle: oracle.with_gates(structural),
        client_memory=lambda context, client: False,
        update_client=lambda context, client, server, seen, end: True,
        extra_cost=cost,
        declared=Nature(corrected=True),  # by the gates; the memory only counts traffic
    )
