"""When to freeze without knowing the answer: what a rule is, and the three rules of C13."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from linattn._checks import one_of
from linattn._typing import Array
from linattn.federated.method import Cost, Proposal, RoundContext
from linattn.objectives.population import population
from linattn.types import Params, single_layer


@dataclass(frozen=True)
class FreezeRule:
    """A rule that ends the warm-up of `fed_frozen` before the first round t ≥ 1 at which it fires.

    It sees a round before its update is accepted: ``context.params`` are the server's parameters
    before it, ``proposal.mean`` those that the round would make of them, (D,). If it fires, the
    update is discarded and its communication counted.

    Attributes
    ----------
    name : str
    fires : (RoundContext, Proposal) -> bool
        Depends on what it is given only, so that a run can be continued.
    uploads : (RoundContext) -> int, optional
        Floats that a client uploads for the rule in a round, besides its blocks; default none.
    work : (RoundContext, int) -> int, optional
        Multiply-adds of a client for the rule in a round; default none.
    everybody : bool
        Whether clients that do not take part are asked too; they fetch the kernel for it.
    records_steps : bool
        Whether the rule reads ``proposal.trace``, the local steps of the round.
    one_layer : bool
        Whether it needs a kernel profile, which only problems of one layer have.

    Examples
    --------
    Freeze as soon as the kernel hardly moves:

    >>> def settled(context, proposal):
    ...     before = kernel_entries(context.params, context.params.flat)
    ...     moved = kernel_entries(context.params, proposal.mean) - before
    ...     return bool(np.linalg.norm(moved) <= 1e-3 * np.linalg.norm(before))
    >>> FreezeRule("settled", settled)
    FreezeRule('settled')
    """

    name: str
    fires: Callable[[RoundContext, Proposal], bool]
    uploads: Callable[[RoundContext], int] | None = None
    records_steps: bool = False
    one_layer: bool = False
    work: Callable[[RoundContext, int], int] | None = None
    everybody: bool = False

    def __repr__(self) -> str:
        return f"FreezeRule({self.name!r})"

    def cost(self, context: RoundContext, client: int) -> Cost:
        """What asking a participant costs; the first one's is that of all absentees, too."""
        absent = set[int]()
        if self.everybody and client == context.participants[0]:
            absent = set(range(context.problem.num_clients)) - set(context.participants.tolist())
        return Cost(
            (1 + len(absent)) * (0 if self.uploads is None else self.uploads(context)),
            len(absent) * _kernel_size(context) if absent else 0,
            0 if self.work is None else sum(self.work(context, i) for i in (client, *absent)),
        )


def freeze_rule(name: str) -> FreezeRule:
    """Return a rule of C13 by its name.

    With ΔB_t the kernel movement of round t (inner products over (Q, K) if factored):

    - ``"profile"``: ⟨∇P(B_t), −ΔB_t⟩ ≤ 0. Needs the profile gradient, so it is a diagnostic.
    - ``"observable"``: ⟨Σ w_i g_i⁰, −ΔB_t⟩ ≤ 0 with g_i⁰ the client's first local kernel gradient,
      one extra upload of kernel size.
    - ``"certified"``: F(θ_{t+1}, V*(θ_t)) ≥ P(θ_t). By C3f the opposite inequality proves that P
      fell. All clients compute and upload A_i and C_i, those who do not take part as well.

    The first two are heuristics: P is not convex and may fall again.

    Parameters
    ----------
    name : {"profile", "observable", "certified"}

    Raises
    ------
    ValueError
        If there is no such rule.

    Notes
    -----
    Source: C13. Cost: profile and certified solve for V* once a round; observable is free. Counts
    leave out V*, which the server sends for certified, and the work of F_i there.
    """
    return RULES[one_of("name", name, RULES)]


def kernel_entries(params: Params, flat: Array) -> Array:
    """The kernel entries of a flat vector."""
    return flat[params.layout.mask(params.layout.kernel_blocks)]


def _points_up(context: RoundContext, proposal: Proposal, slope: Array) -> bool:
    """Whether the kernel moves against the downhill direction of `slope`."""
    movement = kernel_entries(context.params, proposal.mean - context.params.flat)
    return float(np.vdot(slope, -movement)) <= 0.0


def _profile_fires(context: RoundContext, proposal: Proposal) -> bool:
    held = population(single_layer(context.problem, "freeze_rule"))
    system = held.value_system(context.params.kernels())
    slope = held.profile_kernel_gradient(context.params, system.minimizer)
    return _points_up(context, proposal, slope)


def _observable_fires(context: RoundContext, proposal: Proposal) -> bool:
    assert proposal.trace is not None
    slope = kernel_entries(context.params, context.weights @ proposal.trace.gradients[0])
    return _points_up(context, proposal, slope)


def _certified_fires(context: RoundContext, proposal: Proposal) -> bool:
    params = context.params
    held = population(single_layer(context.problem, "freeze_rule"))
    system = held.value_system(params.kernels())
    moved = Params(params.layout, proposal.mean).replace(value=system.value)
    value, _ = held.value_and_gradient(moved)
    return bool(value >= held.profile_value(params, system))


def _kernel_size(context: RoundContext) -> int:
    layout = context.params.layout
    return sum(prod(layout.shapes[name]) for name in layout.kernel_blocks)


def _equations_size(context: RoundContext) -> int:
    """The symmetric A_i, C_i, and the scalar F_i at the proposed kernel."""
    return _equations_floats(context) + 1


def _equations_work(context: RoundContext, client: int) -> int:
    return equations_cost(context, client).multiply_adds


def _equations_floats(context: RoundContext) -> int:
    heads, dim, outputs = context.params.layout.shapes["value"]
    size = heads * dim
    return size * (size + 1) // 2 + size * outputs


def equations_cost(context: RoundContext, client: int) -> Cost:
    """What A_i and C_i of a client cost.

    A_i is symmetric; per sequence H²d³ + 2Hd³ + Hd²m, with one query H²d² + 2Hd² + Hdm.
    """
    heads, dim, outputs = context.params.layout.shapes["value"]
    size = heads * dim
    products = size * size + 2 * size * dim + size * outputs
    one_query = single_layer(context.problem, "A_i and C_i").statistics.query is not None
    return Cost(
        _equations_floats(context),
        multiply_adds=(products if one_query else dim * products)
        * context.oracle.batch_limit(client),
    )


_PROFILE = FreezeRule("profile", _profile_fires, one_layer=True)
_OBSERVABLE = FreezeRule("observable", _observable_fires, _kernel_size, True, one_layer=True)
_CERTIFIED = FreezeRule(
    "certified",
    _certified_fires,
    _equations_size,
    one_layer=True,
    work=_equations_work,
    everybody=True,
)
RULES = {rule.name: rule for rule in (_PROFILE, _OBSERVABLE, _CERTIFIED)}
