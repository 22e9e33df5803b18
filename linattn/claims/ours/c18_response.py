"""C18: a run is the centralized path and its tangent in the drift number, to second order."""

from typing import NamedTuple

import numpy as np
import scipy.optimize

from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.claims.along import server_path
from linattn.claims.conditions import CLOSED_FORM
from linattn.claims.orders import Errors, settled
from linattn.claims.record import Claim, Instance, Requirement, shared
from linattn.objectives import Joint
from linattn.objectives.steps import safe_step
from linattn.theory.drift_field import DriftField
from linattn.theory.response import settled_drift
from linattn.types import Params

HORIZON, ROUNDS, HALVINGS = 0.5, 8, 3
"""τ times the curvature, and rounds at the largest η; twice as many at every halving."""
MOST_STEPS = 5
REACH = 0.01
"""Drift number times the curvature, for the largest η at the minimizer."""
SOFTEST = 1e-6
"""Softest curvature of a minimizer, of the steepest."""
NEWTON = 12
STAYS = 1e-8
"""Relative move of the last step towards a fixed point that was found."""


def _flow(instance: Instance) -> DriftField:
    problem = instance.problem
    return DriftField(problem, instance.params, problem.weights, np.ones(problem.num_clients))


def _with_tangent(flow: DriftField, start: Array, eta: float, count: int) -> tuple[Array, Array]:
    """θ and u after steps θ⁺ = θ − ηg, u⁺ = u − η(Hu − c)."""
    flat, tangent = start, np.zeros_like(start)
    for _ in range(count):
        pull = flow.slope(flat, tangent) - flow.drift(flat)
        flat, tangent = flat - eta * flow.gradient(flat), tangent - eta * pull
    return flat, tangent


@shared
def _errors(instance: Instance) -> Errors:
    """‖θ_FedAvg − θ − s·u‖ at one τ, path and tangent taken with the same steps."""
    count, flow, start = instance.local_steps, _flow(instance), instance.params.flat
    longest = HORIZON * 2.0 * safe_step(instance.problem, instance.params) / (ROUNDS * count)
    drifts, apart, largest = [], [], 0.0
    for h in range(HALVINGS):
        eta, rounds = longest / 2**h, ROUNDS * 2**h
        path = server_path(instance, rounds=rounds, local_lr=eta)
        with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
            flat, tangent = _with_tangent(flow, start, eta, rounds * count)
        drifts.append(0.5 * eta * (count - 1))
        whole = len(path) > rounds
        gap = float(np.linalg.norm(path[-1] - flat - drifts[-1] * tangent))
        apart.append(gap if whole else float("inf"))
        largest = max(largest, float(np.linalg.norm(path, axis=1).max()))
    return Errors.of(drifts, apart, largest)


def _minimizer(instance: Instance, flow: DriftField) -> Array:
    """A stationary point below the start: quasi-Newton steps, then Newton's."""
    joint, layout = Joint(instance.problem), instance.params.layout

    def loss(flat: Array) -> tuple[float, Array]:
        value, slope = joint.value_and_gradient(Params(layout, flat))
        return value, slope.flat

    options = {"maxiter": 2000, "gtol": 1e-9}
    flat: Array = scipy.optimize.minimize(
        loss, instance.params.flat, jac=True, method="BFGS", options=options
    ).x
    for _ in range(NEWTON):
        flat = flat - np.linalg.solve(flow.hessian(flat), flow.gradient(flat))
    return flat


class _Rest(NamedTuple):
    """A stationary point with the Hessian there, in parameters without symmetry.

    `step` is the next step of Newton's method relative to it, next to nothing at such a point.
    """

    flat: Array
    hessian: Array
    step: float

    @property
    def curvatures(self) -> Array:
        return np.asarray(np.linalg.eigvalsh(self.hessian))


@shared
def _rest(instance: Instance) -> _Rest:
    with np.errstate(over="ignore", invalid="ignore"):
        flow = _flow(instance)
        flat = _minimizer(instance, flow)
        hessian = flow.hessian(flat)
        step = np.linalg.norm(np.linalg.solve(hessian, flow.gradient(flat)))
        return _Rest(flat, hessian, float(step / np.linalg.norm(flat)))


def _fixed_point(instance: Instance, eta: float) -> Array:
    """Where a round of `run` stays, from θ* by steps with the Hessian there; inf if nowhere."""
    rest, layout = _rest(instance), instance.params.layout
    flat, length = rest.flat, eta * instance.local_steps
    for _ in range(NEWTON):
        there = instance._replace(params=Params(layout, flat))
        ended = server_path(there, rounds=1, local_lr=eta)[-1]
        move = np.linalg.solve(rest.hessian, ended - flat) / length
        flat = flat + move
    stays = np.linalg.norm(move) <= STAYS * np.linalg.norm(flat)
    return flat if stays else np.full_like(flat, np.inf)


@shared
def _settled_errors(instance: Instance) -> Errors:
    """‖θ_∞ − θ* − s·u_∞‖ at halved η."""
    rest, count = _rest(instance), instance.local_steps
    tangent = settled_drift(_flow(instance), rest.flat)
    largest = 2.0 * REACH / (rest.curvatures[-1] * max(1, count - 1))
    drifts, apart = [], []
    for h in range(HALVINGS):
        eta = largest / 2**h
        drifts.append(0.5 * eta * (count - 1))
        bias = _fixed_point(instance, eta) - rest.flat
        apart.append(float(np.linalg.norm(bias - drifts[-1] * tangent)))
    # The fixed point is solved for, which loses a condition number in digits.
    known = float(np.linalg.norm(rest.flat)) * rest.curvatures[-1] / rest.curvatures[0]
    return Errors.of(drifts, apart, known)


def _strict(instance: Instance) -> float:
    rest = _rest(instance).curvatures
    return float(rest[0] / rest[-1] - SOFTEST)


def few_steps(instance: Instance) -> Instance:
    """Up to five local steps, which take less time than fifty."""
    return instance._replace(local_steps=min(MOST_STEPS, instance.local_steps))


def one_head(instance: Instance) -> Instance:
    """The same of one merged head, whose minimizers are isolated."""
    params = instance.params
    alone = Params.merged(params.kernels()[:1], params.value[:1])
    return few_steps(instance)._replace(params=alone)


CLAIMS = (
    Claim(
        "C18",
        "θ_FedAvg = θ + s·u + O(s²) at a fixed τ, centralized path and tangent with the same steps",
        "order",
        "Drift as impulses",
        lambda at: _errors(at).against(2.0),
        needs=CLOSED_FORM,
        conditions=(settled("orders at halved s agree within 0.1", _errors),),
        share=0.1,
        record=1_000,
        suit=few_steps,
    ),
    Claim(
        "C18 settled",
        "the fixed point of FedAvg is θ* + s·H⁻¹c + O(s²)",
        "order",
        "Drift as impulses",
        lambda at: _settled_errors(at).against(2.0),
        needs=CLOSED_FORM,
        conditions=(
            Requirement("λ_min(H)/λ_max(H) ≥ 1e-6 at a minimizer", _strict, essential=True),
            Requirement(
                f"a step of Newton's method from there of at most {STAYS:g} of it",
                lambda at: STAYS - _rest(at).step,
                essential=True,
            ),
            settled("orders at halved s agree within 0.1", _settled_errors),
        ),
        share=0.1,
        record=1_000,
        suit=one_head,
    ),
)
