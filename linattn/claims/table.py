"""The claim table: every claim, and one check."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from linattn._checks import MOST_ENTRIES, one_of, positive_int
from linattn.analysis.applicable import FACTORED, MERGED, unmet_needs
from linattn.claims.judge import (
    MEASURABLE,
    OUT_OF_RANGE,
    VANISHING,
    Verdict,
    judge,
    without_measurement,
)
from linattn.claims.record import Claim, Condition, Instance, shared, shared_runs
from linattn.federated.method import Method
from linattn.federated.settings import check_settings
from linattn.objectives.joint import check_fits
from linattn.objectives.population import population
from linattn.objectives.starts import initial_params
from linattn.types import Params, Problem

FOLDERS = ("ours", "published")
MAX_CONDITION = 1e8
"""Of A at the start: beyond it V* has too few digits for any comparison."""


@lru_cache(maxsize=1)
def families() -> dict[Path, tuple[Claim, ...]]:
    """Return the claims of every file: ours by the names of their files, then those of papers."""
    found: dict[Path, tuple[Claim, ...]] = {}
    for folder in FOLDERS:
        package = importlib.import_module(f"linattn.claims.{folder}")
        for name in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
            module = importlib.import_module(f"{package.__name__}.{name}")
            found[Path(str(module.__file__))] = module.CLAIMS
    return found


def claims() -> tuple[Claim, ...]:
    """Return every claim, in the order of `families`."""
    return tuple(claim for family in families().values() for claim in family)


def get_claim(name: str) -> Claim:
    """Return the claim of an id.

    Raises
    ------
    ValueError
        If there is none; the sentence names the nearest.
    """
    table = {claim.id: claim for claim in claims()}
    return table[one_of("claim", name, table)]


def check(
    claim: str | Claim,
    problem: Problem,
    params: Params | None = None,
    *,
    rounds: int = 3,
    local_steps: int = 5,
    local_lr: float = 0.01,
    batch_size: int | None = None,
    participation: float = 1.0,
    seed: int = 0,
    method: Method | None = None,
    force: bool = False,
) -> Verdict:
    """Check one claim on a problem.

    Parameters
    ----------
    claim : str or Claim
        Id such as "C3", see `claims`.
    problem : Problem
    params : Params, optional
        Default `initial_params(problem, value="normal", seed=seed)`.
    rounds, local_steps, local_lr, batch_size, participation, seed
        Of the runs that the claim is about, as in `run`. A claim that does not speak of runs with
        these settings says so; one about a single point, such as C1, has no runs.
    method : Method, optional
        Of the runs; default averaging of plain gradient steps. Claims about the frozen stage freeze
        the kernel themselves.
    force : bool
        Measure and judge even where something is unmet, to show that it is needed; what cannot be
        measured without it stays unjudged.

    Returns
    -------
    Verdict

    Raises
    ------
    ValueError
        If there is no such claim, a setting is out of range or the parameters do not fit.
    TypeError
        If the problem has more than one layer.

    Notes
    -----
    The claim names its source. Cost: that of the claim; a few milliseconds to a second at the sizes
    of the simulations.
    """
    positive_int("rounds", rounds, maximum=MOST_ENTRIES)
    start = initial_params(problem, value="normal", seed=seed) if params is None else params
    check_fits(problem, start)
    check_settings(
        rounds=rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        batch_size=batch_size,
        participation=participation,
        seed=seed,
    )
    instance = Instance(
        problem, start, rounds, local_steps, local_lr, batch_size, participation, seed, method
    )
    return check_instance(get_claim(claim) if isinstance(claim, str) else claim, instance, force)


def check_all(chosen: Iterable[Claim], instance: Instance) -> list[Verdict]:
    """Check claims on one instance; they share its runs, which is most of the cost."""
    with shared_runs():
        return [check_instance(claim, instance) for claim in chosen]


def check_instance(claim: Claim, instance: Instance, force: bool = False) -> Verdict:
    """Judge what a claim needs, and only where that is met (or forced) measure and compare.

    Where the start or a run leaves the numbers in which a claim can be evaluated, by overflow or a
    singular matrix, that is no error: the claim is refused.
    """
    unmet = unmet_needs(claim.needs, instance)
    found = [Condition(need, -1.0, instead) for need, instead in unmet]
    status = "not applicable" if found else "refused"
    if found and (not force or {MERGED, FACTORED} & {condition.name for condition in found}):
        return without_measurement(claim, status, found)
    with shared_runs(), np.errstate(over="ignore", invalid="ignore"):
        try:
            if not _measurable(claim, instance, found, force=force):
                return without_measurement(claim, status, found)
            return judge(claim, claim.measure(instance), found, force=force)
        except (ArithmeticError, np.linalg.LinAlgError) as error:
            found.append(Condition(OUT_OF_RANGE, float("nan"), str(error)))
        except ValueError as error:
            if not force:
                raise  # without force this would be a fault of the claim
            if all(condition.met for condition in found):
                found.append(Condition(MEASURABLE, float("nan"), str(error).rstrip(".")))
    return without_measurement(claim, status, found)


def _measurable(claim: Claim, instance: Instance, found: list[Condition], *, force: bool) -> bool:
    """Whether to measure, after adding the conditions up to an essential one that is unmet."""
    _check_start(instance)
    for requirement in claim.conditions:
        found.append(requirement.judged(instance))
        if requirement.essential and not found[-1].met:
            return False
    return force or all(condition.met for condition in found)


@shared
def _check_start(instance: Instance) -> None:
    """Refuse a start where F or P is no finite number, V* has no digits, or squares vanish."""
    held, params = population(instance.problem), instance.params
    system = held.value_system(params.kernels())
    values = held.value_and_gradient(params)[0], held.profile_value(params, system)
    if not np.isfinite(values).all():
        raise FloatingPointError("the loss is not finite at the start")
    curvatures = np.linalg.svd(system.hessian, compute_uv=False)
    if curvatures[0] > MAX_CONDITION * curvatures[-1]:
        raise FloatingPointError(
            f"cond(A) > {MAX_CONDITION:g} at the start leaves V* too few digits"
        )
    if curvatures[-1] < VANISHING or 0.0 < held.form.energy < VANISHING:
        raise FloatingPointError("squares of the data vanish")
