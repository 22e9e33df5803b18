"""When to freeze without knowing the answer: the three rules of C13."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from linattn._checks import one_of
from linattn._typing import Array
from linattn.federated.method import Proposal, RoundContext
from linattn.objectives.population import population
from linattn.types import Params, single_layer

RULES = ("profile", "observable", "certified")


@dataclass(frozen=True)
class FreezeRule:
    """A named freeze rule for `fed_frozen`; make one with `freeze_rule`."""

    name: str

    def __repr__(self) -> str:
        return f"freeze_rule({self.name!r})"


def freeze_rule(name: str) -> FreezeRule:
    """Return a rule that freezes the kernel before the first round t ≥ 1 at which it fires.

    With ΔB_t the kernel movement of round t (inner products over (Q, K) if factored):

    - ``"profile"``: ⟨∇P(B_t), −ΔB_t⟩ ≤ 0. Needs the profile gradient, so it is a diagnostic.
    - ``"observable"``: ⟨Σ w_i g_i⁰, −ΔB_t⟩ ≤ 0 with g_i⁰ the client's first local kernel gradient,
      one extra upload of kernel size.
    - ``"certified"``: F(θ_{t+1}, V*(θ_t)) ≥ P(θ_t). By C3f the opposite inequality proves that P
      fell. Costs uploads of A_i and C_i.

    The first two are heuristics: P is not convex and may fall again.

    Parameters
    ----------
    name : {"profile", "observable", "certified"}

    Notes
    -----
    Source: C13. The update of the round at which the rule fires is discarded, its communication
    counted.
    """
    return FreezeRule(one_of("rule", name, RULES))


def kernel_entries(params: Params, flat: Array) -> Array:
    """The kernel entries of a flat vector."""
    return flat[params.layout.mask(params.layout.kernel_blocks)]


def rule_fires(rule: FreezeRule, context: RoundContext, proposal: Proposal) -> bool:
    """Whether the rule freezes before the round that made `proposal`."""
    params = context.params
    held = population(single_layer(context.problem, "freeze_rule"))
    if rule.name == "observable":
        assert proposal.trace is not None
        slope = kernel_entries(params, context.weights @ proposal.trace.gradients[0])
    else:
        system = held.value_system(params.kernels())
        if rule.name == "certified":
            shape = params.value.shape
            moved = Params(params.layout, proposal.mean).replace(
                value=system.minimizer.reshape(shape)
            )
            value, _ = held.value_and_gradient(moved)
            return value >= held.profile_value(params, system)
        slope = held.profile_kernel_gradient(params, system.minimizer)
    movement = kernel_entries(params, proposal.mean - params.flat)
    return float(np.vdot(slope, -movement)) <= 0.0


def rule_uploads(rule: FreezeRule, context: RoundContext) -> int:
    """Floats per participant that the rule uploads in a warm-up round from t = 1 on."""
    if context.round == 0 or rule.name == "profile":
        return 0
    if rule.name == "observable":
        layout = context.params.layout
        return int(layout.mask(layout.kernel_blocks).sum())
    heads, dim, outputs = context.params.layout.shapes["value"]
    size = heads * dim
    # The symmetric A_i, C_i, and the scalar F_i at the proposed kernel.
    return size * (size + 1) // 2 + size * outputs + 1
