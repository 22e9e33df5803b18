"""How far averaged parameters predict from averaged predictions, in every model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linattn._typing import Array
from linattn.federated.method import Proposal, RoundContext
from linattn.oracles.protocol import Oracle
from linattn.types import Federation, Params


def predictions(oracle: Oracle, problem: Federation, params: Params) -> Array:
    """Return the predictions of a model on all training sequences as one vector.

    Sequences are scaled by (p_i/n_i)^½ and single-layer queries replaced by rows with the same
    inner products, so that norms are those of F's loss.
    """
    parts = []
    for client, weight in enumerate(problem.weights):
        root = np.sqrt(weight / oracle.batch_limit(client))
        parts.append(root * oracle.predictions(client, params.flat).reshape(-1))
    return np.concatenate(parts)


def output_mismatch(
    oracle: Oracle, problem: Federation, models: Sequence[Params], weights: Array
) -> tuple[Array, float]:
    """Return F(w̄) − Σ w_i F(w_i) on all training sequences, and the norm of Σ w_i F(w_i).

    Notes
    -----
    Source: C10 for one layer; the same difference for any model. Cost: one forward pass of every
    model over all sequences.
    """
    mean = Params(models[0].layout, weights @ np.stack([model.flat for model in models]))
    made = np.stack([predictions(oracle, problem, model) for model in models])
    averaged = weights @ made
    return predictions(oracle, problem, mean) - averaged, float(np.linalg.norm(averaged))


def relative_mismatch(context: RoundContext, proposal: Proposal) -> float:
    """‖F(w̄) − Σ w_i F(w_i)‖/‖Σ w_i F(w_i)‖ of a round, NaN where some block is not averaged."""
    if proposal.plan.kept or proposal.plan.generated:
        return float("nan")
    models = [Params(context.params.layout, end) for end in proposal.ends]
    off, scale = output_mismatch(context.oracle, context.problem, models, context.weights)
    return float(np.linalg.norm(off)) / max(scale, np.finfo(float).tiny)
