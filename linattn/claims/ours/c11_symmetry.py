"""C11 and C12: Euler identities of the blocks, and what leaves the data term unchanged."""

import numpy as np

from linattn.claims.record import Claim, Instance, Measurement
from linattn.objectives.population import population
from linattn.streams import stream
from linattn.theory.symmetry import change_gauge, euler_identity
from linattn.types import Params


def _euler(instance: Instance) -> Measurement:
    sides = euler_identity(instance.problem, instance.params)
    return Measurement(
        float(np.linalg.norm(sides.left)),
        float(np.linalg.norm(sides.right)),
        sides.scale,
        residual=float(np.linalg.norm(sides.left - sides.right)),
    )


def _data_loss(instance: Instance, params: Params) -> float:
    return population(instance.problem).form.gradient(params.kernels(), params.value).loss


def _gauge(instance: Instance) -> Measurement:
    params = instance.params
    size = params["query"].shape[-1] if params.is_factored else params.num_heads
    noise = stream(instance.seed, "gauge").normal(size=(size, size))
    change = np.eye(size) + 0.3 * noise / np.sqrt(size)
    before = _data_loss(instance, params)
    after = _data_loss(instance, change_gauge(params, change))
    # Multiplying by a matrix and its inverse loses its condition number in digits, twice.
    energy = population(instance.problem).form.energy
    scale = float(np.linalg.cond(change)) ** 2 * (abs(before) + abs(after) + energy)
    return Measurement(after, before, scale)


CLAIMS = (
    Claim(
        "C11",
        "⟨∂_{B_h}F,B_k⟩ − μ⟨B_h,B_k⟩ = ⟨∂_{V_k}F,V_h⟩ − λ⟨V_k,V_h⟩; factored: Qᵀ∂Q, ∂KᵀK",
        "identity",
        "Objectives",
        _euler,
    ),
    Claim(
        "C12",
        "the data term is invariant to (Q, K) → (QM, KM⁻ᵀ) and to mixing heads",
        "identity",
        "Objectives",
        _gauge,
    ),
)
