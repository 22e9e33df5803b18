"""One exact round on the value block, as a method that a second stage can be."""

from __future__ import annotations

import numpy as np

from linattn._settings import EVERYBODY, Sampling
from linattn._typing import Array
from linattn.federated.freeze import equations_cost
from linattn.federated.method import Cost, Method, Plan, Proposal, RoundContext
from linattn.federated.nature import Nature
from linattn.linalg import solve_definite
from linattn.objectives.forms import NormalEquations
from linattn.objectives.population import one_client_equations
from linattn.types import Problem, single_layer


def exact_round() -> Method:
    """Return the method that asks all clients for A_i and C_i once and solves for V*.

        V* = (Σ p_i A_i)⁻¹ Σ p_i C_i

    After that nothing is left to train. Server memory: whether it is solved.

    Notes
    -----
    Source: Frozen stage. Cost: a client sends the Hd(Hd + 1)/2 + Hdm entries of the
    symmetric A_i and of C_i; the server solves one system of Hd unknowns.
    """
    return Method(
        "one_shot",
        server_memory=_unsolved,
        sampling=_everybody_once,
        plan=lambda context, solved: Plan(frozenset(), context.local_lr),
        probe=_equations,
        aggregate=_solve,
        extra_cost=_cost,
        declared=Nature(masked=True, sampled=True, server_step=True),
    )


def _problem(context: RoundContext) -> Problem:
    return single_layer(context.problem, "frozen='one_shot'")


def _unsolved(context: RoundContext) -> bool:
    _problem(context)
    return False


def _everybody_once(context: RoundContext, solved: bool) -> Sampling:
    return context.sampling if solved else EVERYBODY


def _equations(
    context: RoundContext, client: int, solved: bool, own: object
) -> NormalEquations | None:
    if solved:
        return None
    return one_client_equations(_problem(context), context.params.kernels(), client)


def _solve(context: RoundContext, solved: bool, proposal: Proposal) -> tuple[Array, bool]:
    params, hessian, linear = context.params, 0.0, 0.0
    if solved:
        return params.flat, True
    for weight, sent in zip(context.weights, context.probes, strict=True):
        hessian, linear = hessian + weight * sent.hessian, linear + weight * sent.linear
    ridge = _problem(context).value_ridge * np.eye(len(np.atleast_1d(linear)))
    value = solve_definite(hessian + ridge, np.asarray(linear))
    return params.replace(value=value.reshape(params.value.shape)).flat, True


def _cost(context: RoundContext, client: int, solved: bool, own: object) -> Cost:
    return Cost() if solved else equations_cost(context, client)
