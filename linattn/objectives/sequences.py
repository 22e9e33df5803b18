"""The value-block problem of single sequences: what minibatches draw from."""

from __future__ import annotations

import numpy as np

from linattn._typing import Array
from linattn.objectives.forms import NormalEquations, query_features
from linattn.types import Problem


def sequence_equations(problem: Problem, kernels: Array, client: int) -> NormalEquations:
    """Return H_s, (S, Hd, Hd), and C_s, (S, Hd, m), of a client's S sequences, without ridge.

    Block (h, k) of H_s is G B_hᵀ M B_k G, block h of C_s is G B_hᵀ K; their means are H_i and C_i.

    Notes
    -----
    Source: Model. Cost: S (Hd)² d, and S (Hd)² numbers.
    """
    held = problem.statistics.take(problem.client(client))
    heads, dim = kernels.shape[:2]
    if held.query is not None:
        assert held.target is not None
        features = query_features(held, kernels)
        return NormalEquations(
            features[:, :, None] * features[:, None, :],
            features[:, :, None] * held.target[:, None, :],
        )
    # Γ = [B_1 G … B_H G], (S, d, Hd).
    stacked = (kernels.reshape(heads * dim, dim) @ held.gram).reshape(-1, heads, dim, dim)
    wide = np.ascontiguousarray(stacked.transpose(0, 2, 1, 3)).reshape(-1, dim, heads * dim)
    turned = wide.transpose(0, 2, 1)
    return NormalEquations(turned @ (held.query_moments() @ wide), turned @ held.cross_moments())
