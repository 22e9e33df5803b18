"""C21: clients of unequal work. The E_i are drawn from the instance's seed, up to its E."""

from collections.abc import Callable

import numpy as np

from linattn._typing import Array
from linattn.analysis.applicable import FULL_BATCHES, FULL_PARTICIPATION, NORMALIZED, PLAIN_STEPS
from linattn.claims.along import frozen_method, settings
from linattn.claims.conditions import CLOSED_FORM, strict, well_conditioned
from linattn.claims.frozen_runs import curvatures, smoothness, stage_of
from linattn.claims.orders import Errors, settled
from linattn.claims.record import Claim, Constant, Instance, Measurement, Requirement, shared
from linattn.federated import fed_nova, run
from linattn.linalg import stack_heads
from linattn.streams import stream
from linattn.theory.frozen import FrozenStage, frozen_stage

FED_NOVA = (PLAIN_STEPS, NORMALIZED, FULL_BATCHES, FULL_PARTICIPATION)
REACH = 1e-2
"""ηE·max λ_max(A_i) for the largest η of an order."""
HALVINGS = 3


def work_of(instance: Instance) -> list[int]:
    """E_i of every client, uniform on 1..E."""
    draw = stream(instance.seed, "work")
    steps = draw.integers(1, instance.local_steps + 1, instance.problem.num_clients)
    return [int(count) for count in steps]


def _stage(instance: Instance, *, normalized: bool, local_lr: float | None = None) -> FrozenStage:
    return frozen_stage(
        instance.problem,
        instance.params,
        local_steps=work_of(instance),
        local_lr=local_lr or instance.local_lr,
        normalized=normalized,
    )


@shared
def _plain(instance: Instance) -> FrozenStage:
    return _stage(instance, normalized=False)


@shared
def _normalized(instance: Instance) -> FrozenStage:
    return _stage(instance, normalized=True)


def _work(instance: Instance) -> Constant:
    steps = work_of(instance)
    return Constant("max E_i / min E_i", max(steps) / min(steps), "drawn")


def _simulated(instance: Instance, start: Array, rounds: int) -> Array:
    """V after explicit frozen rounds of unequal work from V_0 = start."""
    how = settings(instance) | {"rounds": rounds, "local_steps": work_of(instance)}
    method = frozen_method(instance)
    params = instance.params.replace(value=start)
    return run(method, instance.problem, params, metrics=(), **how).params.value


def _closed_form(instance: Instance) -> Measurement:
    stage = _plain(instance)
    after = _simulated(instance, stage.start, instance.rounds)
    predicted, fixed = stage.after(instance.rounds), stage.fixed_point
    return Measurement(
        float(np.linalg.norm(after)),
        float(np.linalg.norm(predicted)),
        float(np.linalg.norm(stage.start - fixed) + np.linalg.norm(fixed)),
        residual=float(np.linalg.norm(after - predicted)),
        constants=(_work(instance),),
    )


def _fixed_point(instance: Instance) -> Measurement:
    """Of FedNova, unless another method is asked for."""
    stage = _normalized(instance)
    fixed = stage.fixed_point
    normal = instance if instance.method else instance._replace(method=fed_nova())
    after = _simulated(normal, fixed, 1)
    return Measurement(
        float(np.linalg.norm(after)),
        float(np.linalg.norm(fixed)),
        float(np.linalg.norm(fixed) + np.linalg.norm(stage.minimizer)),
        residual=float(np.linalg.norm(after - fixed)),
        constants=(_work(instance),),
    )


def _errors(instance: Instance, *, normalized: bool) -> Errors:
    """‖V_∞(η) − its limit‖ at halved η."""
    equal, steps = stage_of(instance), work_of(instance)
    largest = REACH / (max(steps) * smoothness(equal))
    sizes = [largest / 2**k for k in range(HALVINGS)]
    limit: Array = stack_heads(equal.minimizer)
    if not normalized:
        work = equal.weights * steps
        sides = (np.tensordot(work, part, 1) for part in (equal.hessians, equal.linears))
        limit = np.asarray(np.linalg.solve(*sides))
    stages = [_stage(instance, normalized=normalized, local_lr=size) for size in sizes]
    apart = [float(np.linalg.norm(stack_heads(one.fixed_point) - limit)) for one in stages]
    # V_∞ and its limit are solved for, which loses a condition number in digits.
    known = float(np.linalg.norm(limit)) * curvatures(instance).largest
    return Errors.of(sizes, apart, known / curvatures(instance).smallest)


@shared
def _inconsistency(instance: Instance) -> Errors:
    return _errors(instance, normalized=False)


@shared
def _consistency(instance: Instance) -> Errors:
    return _errors(instance, normalized=True)


def _contracts(name: str, stage: Callable[[Instance], FrozenStage]) -> Requirement:
    return Requirement(name, lambda at: strict(1.0 - stage(at).rate))


FLAT = well_conditioned(1e4)
AGREE = "orders at halved η agree within 0.1"
CLAIMS = (
    Claim(
        "C21",
        "V_t = V_∞ + M̂ᵗ(V_0 − V_∞) with E_i local steps of client i, against simulated rounds",
        "identity",
        "Sampling, minibatches, unequal work",
        _closed_form,
        needs=CLOSED_FORM,
        conditions=(_contracts("ρ(M̂) < 1 with unequal work", _plain), FLAT),
    ),
    Claim(
        "C21 normalized",
        "a simulated round of FedNova from its V_∞ stays there",
        "identity",
        "Sampling, minibatches, unequal work",
        _fixed_point,
        needs=FED_NOVA,
        conditions=(_contracts("ρ(M̂) < 1 of normalized averaging", _normalized), FLAT),
    ),
    Claim(
        "C21 inconsistency",
        "V_∞ → argmin Σp_iE_iF_i with error O(η), plain averaging of unequal work",
        "order",
        "Sampling, minibatches, unequal work",
        lambda at: _inconsistency(at).against(1.0, _work(at)),
        needs=CLOSED_FORM,
        conditions=(FLAT, settled(AGREE, _inconsistency)),
    ),
    Claim(
        "C21 consistency",
        "V_∞ → V* with error O(η), normalized averaging of unequal work",
        "order",
        "Sampling, minibatches, unequal work",
        lambda at: _consistency(at).against(1.0, _work(at)),
        needs=FED_NOVA,
        conditions=(FLAT, settled(AGREE, _consistency)),
    ),
)
