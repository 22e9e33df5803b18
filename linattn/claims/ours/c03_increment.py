"""C3 and C3f: what a move of the kernel does to the profile, exactly and as upper bounds."""

import numpy as np

from linattn.analysis.applicable import MERGED
from linattn.claims.record import Claim, Constant, Instance, Measurement
from linattn.claims.sizes import loss_terms
from linattn.objectives import Joint, KernelProfile, ValueBlock
from linattn.streams import stream
from linattn.types import Params


def _moved(instance: Instance) -> tuple[Params, Params]:
    """The instance at V*, and a random kernel move of a third of the kernel's size."""
    params = instance.params
    kernel = params.layout.mask(params.layout.kernel_blocks)
    move = np.where(kernel, stream(instance.seed, "move").normal(size=kernel.size), 0.0)
    move *= np.linalg.norm(params.flat[kernel]) / (3.0 * np.linalg.norm(move))
    start = params.replace(value=KernelProfile(instance.problem).minimizer(params))
    return start, Params(params.layout, start.flat + move)


def _terms(instance: Instance, moved: Params) -> float:
    """The sizes of what P is made of, before and after."""
    return loss_terms(instance) + loss_terms(instance._replace(params=moved))


def _resolve_gain(instance: Instance, start: Params, moved: Params) -> float:
    """½‖V*(θ⁺) − V*(θ)‖²_{A(θ⁺)}."""
    return ValueBlock(instance.problem, moved).gap(start.value)


def _increment(instance: Instance) -> Measurement:
    start, moved = _moved(instance)
    profile, joint = KernelProfile(instance.problem), Joint(instance.problem)
    move = Params(start.layout, moved.flat - start.flat)
    terms = [
        profile.value(start),
        float(profile.gradient(start).flat @ move.flat),
        0.5 * float(joint.hvp(start, move)["kernel"].reshape(-1) @ move["kernel"].reshape(-1)),
        -_resolve_gain(instance, start, moved),
    ]
    measured = profile.value(moved)
    scale = abs(measured) + sum(abs(term) for term in terms) + _terms(instance, moved)
    return Measurement(measured, sum(terms), scale)


def _smoothness(instance: Instance) -> Measurement:
    start, moved = _moved(instance)
    profile = KernelProfile(instance.problem)
    move = moved.flat - start.flat
    curvature = profile.curvature(start)
    here, slope = profile.value(start), float(profile.gradient(start).flat @ move)
    bend = 0.5 * curvature * float(move @ move)
    measured = profile.value(moved)
    return Measurement(
        measured,
        here + slope + bend,
        abs(measured) + abs(here) + abs(slope) + bend + _terms(instance, moved),
        constants=(Constant("L_K", curvature, "λ_max of 𝓚(V*(B)), safe within 1e-8"),),
    )


def _stale_value(instance: Instance) -> Measurement:
    _, moved = _moved(instance)
    bound = Joint(instance.problem).value(moved)
    measured = KernelProfile(instance.problem).value(moved)
    return Measurement(measured, bound, abs(measured) + abs(bound) + _terms(instance, moved))


def _stale_identity(instance: Instance) -> Measurement:
    start, moved = _moved(instance)
    value = Joint(instance.problem).value(moved)
    gain = _resolve_gain(instance, start, moved)
    measured = KernelProfile(instance.problem).value(moved)
    scale = abs(measured) + abs(value) + gain + _terms(instance, moved)
    return Measurement(measured, value - gain, scale)


CLAIMS = (
    Claim(
        "C3",
        "P(B+D) = P + ⟨∇P,D⟩ + ½⟨D,𝓚D⟩ − ½‖V*(B+D) − V*(B)‖²_A",
        "identity",
        "Objectives",
        _increment,
        needs=(MERGED,),
    ),
    Claim(
        "C3 bound",
        "P(B+D) ≤ P + ⟨∇P,D⟩ + ½L_K‖D‖²",
        "upper",
        "Objectives",
        _smoothness,
        needs=(MERGED,),
    ),
    Claim(
        "C3f",
        "P(θ⁺) = F(θ⁺,V*(θ)) − ½‖V*(θ⁺) − V*(θ)‖²_A",
        "identity",
        "Objectives",
        _stale_identity,
    ),
    Claim("C3f bound", "P(θ⁺) ≤ F(θ⁺, V*(θ))", "upper", "Objectives", _stale_value),
)
