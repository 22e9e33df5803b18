"""C22: the best model of in-context regression, in a world drawn from the instance's seed."""

from typing import Any

import numpy as np

from linattn.claims.ours.c15_reference import RIDGE
from linattn.claims.record import LONG_BUDGET, Claim, Constant, Instance, Measurement, shared
from linattn.streams import stream
from linattn.theory.in_context import (
    InContextCheck,
    check_in_context_optimum,
    in_context_optimum,
)
from linattn.theory.in_context_law import in_context_limit

MOST_FEATURES, MOST_CLIENTS, LONGEST = 4, 4, 20


@shared
def world_of(instance: Instance) -> dict[str, Any]:
    """Covariances that commute, unequal contexts, noise and weights; ridges of the instance."""
    draw = stream(instance.seed, "in-context world")
    features, clients = (int(draw.integers(1, most + 1)) for most in (MOST_FEATURES, MOST_CLIENTS))
    turn = np.linalg.qr(draw.normal(size=(features, features)))[0]
    eigenvalues = np.exp(draw.normal(size=(clients, features)))
    return {
        "covariances": (turn * eigenvalues[:, None]) @ turn.T,
        "context_length": draw.integers(1, LONGEST + 1, clients).tolist(),
        "noise": draw.uniform(0.0, 1.0, clients).tolist(),
        "weights": draw.dirichlet(np.full(clients, 2.0)),
        "value_ridge": instance.problem.value_ridge,
        "kernel_ridge": instance.problem.kernel_ridge,
    }


@shared
def _checked(instance: Instance) -> InContextCheck:
    return check_in_context_optimum(**world_of(instance))


def _loss(instance: Instance) -> Measurement:
    found = _checked(instance)
    return Measurement(found.moments, found.formula, found.scale)


def _stationary(instance: Instance) -> Measurement:
    """The gradient of the data loss is minus that of the ridges, in all entries of B and V."""
    world = world_of(instance)
    params = in_context_optimum(**world).params
    ridges = params.replace(
        kernel=world["kernel_ridge"] * params.kernel, value=world["value_ridge"] * params.value
    ).flat
    whole = in_context_limit(**world).joint_gradient(params).flat
    size = float(np.linalg.norm(ridges))
    return Measurement(
        float(np.linalg.norm(whole - ridges)),
        size,
        size + _checked(instance).scale,
        residual=float(np.linalg.norm(whole)),
    )


def _global(instance: Instance) -> Measurement:
    found = _checked(instance)
    return Measurement(
        found.dual_norm,
        found.threshold,
        found.threshold + found.scale,
        constants=(Constant("loss", found.formula, "closed form"),),
    )


CLAIMS = (
    Claim(
        "C22",
        "loss at B = diag(Γ, 0), V = v e of the closed form, against exact moments of the world",
        "identity",
        "In-context regression",
        _loss,
        conditions=(RIDGE,),
    ),
    Claim(
        "C22 stationary",
        "∇F = 0 there, in all entries of B and V",
        "identity",
        "In-context regression",
        _stationary,
        conditions=(RIDGE,),
    ),
    Claim(
        "C22 bound",
        "‖𝒢‖₂ ≤ √(λμ) there: no model of any number of heads is better (C15)",
        "upper",
        "In-context regression",
        _global,
        conditions=(RIDGE,),
        budget=LONG_BUDGET,
    ),
)
