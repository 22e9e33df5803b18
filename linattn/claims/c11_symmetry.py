"""C11 and C12: Euler identities of the blocks, and what leaves the data term unchanged."""

import numpy as np

from linattn._typing import Array
from linattn.claims.record import Claim, Instance, Measurement
from linattn.objectives import Joint
from linattn.objectives.population import population
from linattn.streams import stream
from linattn.types import Params


def _inner(left: Array, right: Array) -> Array:
    """⟨left_h, right_k⟩ of all head pairs, (H, H)."""
    return np.tensordot(left, right, ((1, 2), (1, 2)))


def _euler(instance: Instance) -> Measurement:
    problem, params = instance.problem, instance.params
    slope = Joint(problem).gradient(params)
    mu = problem.kernel_ridge
    if params.is_factored:
        query, key = params["query"], params["key"]
        left = [query.transpose(0, 2, 1) @ slope["query"], -mu * query.transpose(0, 2, 1) @ query]
        right = [slope["key"].transpose(0, 2, 1) @ key, -mu * key.transpose(0, 2, 1) @ key]
    else:
        left = [_inner(slope["kernel"], params["kernel"])]
        left.append(-mu * _inner(params["kernel"], params["kernel"]))
        right = [_inner(slope["value"], params["value"]).T]
        right.append(-problem.value_ridge * _inner(params["value"], params["value"]).T)
    difference = left[0] + left[1] - right[0] - right[1]
    return Measurement(
        float(np.linalg.norm(left[0] + left[1])),
        float(np.linalg.norm(right[0] + right[1])),
        _euler_scale(instance, slope),
        residual=float(np.linalg.norm(difference)),
    )


def _euler_scale(instance: Instance, slope: Params) -> float:
    """Products of the norms that enter, before anything cancels."""
    params, energy = instance.params, population(instance.problem).form.energy
    blocks = sum(
        float(np.linalg.norm(slope[name]) * np.linalg.norm(params[name]))
        for name in params.layout.names
    )
    return blocks + 2.0 * population(instance.problem).ridge(params) + energy


def _data_loss(instance: Instance, params: Params) -> float:
    return population(instance.problem).form.gradient(params.kernels(), params.value).loss


def _gauge(instance: Instance) -> Measurement:
    params = instance.params
    generator = stream(instance.seed, "gauge")
    if params.is_factored:
        rank = params["query"].shape[-1]
        change = np.eye(rank) + 0.3 * generator.normal(size=(rank, rank)) / np.sqrt(rank)
        changed = params.replace(
            query=params["query"] @ change, key=params["key"] @ np.linalg.inv(change).T
        )
        conditioning = float(np.linalg.cond(change))
    else:
        heads = params.num_heads
        change = np.eye(heads) + 0.3 * generator.normal(size=(heads, heads)) / np.sqrt(heads)
        inverse = np.linalg.inv(change)
        changed = params.replace(
            kernel=np.einsum("kab,kh->hab", params["kernel"], change),
            value=np.einsum("hk,kam->ham", inverse, params["value"]),
        )
        conditioning = float(np.linalg.cond(change))
    before, after = _data_loss(instance, params), _data_loss(instance, changed)
    energy = population(instance.problem).form.energy
    scale = conditioning**2 * (abs(before) + abs(after) + energy)
    return Measurement(after, before, scale)


CLAIMS = (
    Claim(
        "C11",
        "⟨∂_{B_h}F,B_k⟩ − μ⟨B_h,B_k⟩ = ⟨∂_{V_k}F,V_h⟩ − λ⟨V_k,V_h⟩; factored: Qᵀ∂Q − μQᵀQ = ∂KᵀK − μKᵀK",
        "identity",
        "theory section 2",
        _euler,
    ),
    Claim(
        "C12",
        "the data term is invariant to (Q, K) → (QM, KM⁻ᵀ) and to mixing heads",
        "identity",
        "theory section 2",
        _gauge,
    ),
)
