"""C17: a round of local steps is one of centralized steps on a modified objective."""

import numpy as np

from linattn.claims.along import settings
from linattn.claims.conditions import CLOSED_FORM
from linattn.claims.orders import Errors, settled
from linattn.claims.record import Claim, Constant, Instance, Measurement, shared
from linattn.federated import fed_avg, run
from linattn.objectives.steps import safe_step
from linattn.theory.modified import modified_steps

REACH = 0.01
"""ηE times the curvature, for the largest η: a short round."""
HALVINGS = 3


def _errors(instance: Instance, share: float) -> Errors:
    """‖one round − E steps on F̃_s‖ at halved η, with `share` of the drift number."""
    problem, start, count = instance.problem, instance.params, instance.local_steps
    longest = REACH * 2.0 * safe_step(problem, start) / count
    sizes = [longest / 2**k for k in range(HALVINGS)]
    apart = []
    for size in sizes:
        how = settings(instance) | {"rounds": 1, "local_lr": size}
        method = instance.method or fed_avg()
        end = run(method, problem, start, metrics=(), **how).params
        drift = share * 0.5 * size * (count - 1)
        steps = modified_steps(problem, start, count=count, step_size=size, drift_number=drift)
        apart.append(float(np.linalg.norm(end.flat - steps.flat)))
    return Errors.of(sizes, apart, float(np.linalg.norm(start.flat)))


@shared
def _modified(instance: Instance) -> Errors:
    return _errors(instance, 1.0)


@shared
def _plain(instance: Instance) -> Errors:
    return _errors(instance, 0.0)


def _order(instance: Instance) -> Measurement:
    found = _modified(instance)
    return found.against(3.0, Constant("largest η", found.sizes[0], f"{REACH}/(E·curvature)"))


def _plain_order(instance: Instance) -> Measurement:
    found = _plain(instance)
    return found.against(2.0, Constant("largest η", found.sizes[0], f"{REACH}/(E·curvature)"))


AGREE = "orders at halved η agree within 0.1"
CLAIMS = (
    Claim(
        "C17",
        "a round = E centralized steps on F − (s/2)Σp‖∇F_i − ∇F‖² up to O(η³), s = η(E − 1)/2",
        "order",
        "Drift as impulses",
        _order,
        needs=CLOSED_FORM,
        conditions=(settled(AGREE, _modified),),
        share=0.25,
    ),
    Claim(
        "C17 plain",
        "a round = E centralized steps on F up to O(η²)",
        "order",
        "Drift as impulses",
        _plain_order,
        needs=CLOSED_FORM,
        conditions=(settled(AGREE, _plain),),
        share=0.25,
    ),
)
