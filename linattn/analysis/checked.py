"""What `assess` compares on the very problem: C9, C7, C4 and C15."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from linattn.analysis.bias_drift import PARTS
from linattn.analysis.certificate import descent_certificate, looseness
from linattn.federated import fed_frozen
from linattn.federated.rounds import run
from linattn.federated.settings import RunSettings
from linattn.objectives.reference import Reference
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr

IDENTITY_BUDGET = 1e-10
CERTIFICATE_ROUNDS = 20


class Check(NamedTuple):
    """One statement of the theory on this very problem.

    Attributes
    ----------
    claim : str
    statement : str
    measured, predicted : float
    holds : bool or None
        None where nothing could be compared.
    """

    claim: str
    statement: str
    measured: float
    predicted: float
    holds: bool | None


def has_noise(table: xr.Dataset) -> bool:
    """Whether clients or sequences of the frozen rounds were drawn."""
    return bool(np.nansum(table["value_noise"]) != 0.0)


def compare(
    problem: Problem,
    path: Sequence[Params],
    table: xr.Dataset,
    settings: RunSettings,
    *,
    frozen_lr: float | str | None,
    reference: float | Reference,
) -> list[Check]:
    """C9 and C7 where a length is stable, C4, and C15 where the reference has a lower bound."""
    found = [_certificate(problem, path[0], settings)]
    if table.attrs["warmup_star"] is not None:
        if not has_noise(table):
            found.insert(0, _frozen_stage(problem, path, table, settings, frozen_lr))
        found.insert(0, _decomposition(table))
    if isinstance(reference, Reference) and reference.lower_bound is not None:
        found.append(_lower_bound(reference.value, reference.lower_bound))
    return found


def _decomposition(table: xr.Dataset) -> Check:
    row = table.sel(warmup=table.attrs["warmup_star"])
    parts = [float(row[name]) for name in (*PARTS, "value_noise")]
    predicted = float(table.attrs["reference"]) + sum(parts)
    measured = float(row["objective"])
    scale = abs(measured) + sum(map(abs, parts))
    holds = abs(measured - predicted) <= IDENTITY_BUDGET * scale
    return Check("C9", "loss = reference + bias + drift parts", measured, predicted, holds)


def _frozen_stage(
    problem: Problem,
    path: Sequence[Params],
    table: xr.Dataset,
    settings: RunSettings,
    frozen_lr: float | str | None,
) -> Check:
    """The frozen rounds after T* by explicit local steps; nothing to compare if there are none."""
    best = table.attrs["warmup_star"]
    predicted = float(table["objective"].sel(warmup=best))
    statement = "simulated rounds = closed form"
    if best == settings["rounds"]:
        return Check("C7", statement, float("nan"), predicted, None)
    method = fed_frozen(warmup_rounds=best, frozen_lr=frozen_lr)
    metrics = ("objective",)
    ended = run(method, problem, path[best], start_round=best, metrics=metrics, **settings)
    measured = float(ended.columns["objective"][-1])
    holds = abs(measured - predicted) <= IDENTITY_BUDGET * abs(predicted)
    return Check("C7", statement, measured, predicted, holds)


def _certificate(problem: Problem, start: Params, settings: RunSettings) -> Check:
    first = settings.copy()
    first["rounds"] = min(settings["rounds"], CERTIFICATE_ROUNDS)
    certificate = descent_certificate(problem, start, **first)
    profile = certificate["profile"].values
    t = int(np.argmin(profile))
    loose = looseness(certificate)
    note = "" if np.isnan(loose) else f", looseness {loose:.2g}"
    whole = certificate.attrs["diverged_round"] is None and len(profile) > 1
    return Check(
        "C4",
        f"profile below certificate{note}",
        float(profile[t]),
        float(certificate["certificate"].values[t]),
        int(certificate["violations"].sum()) == 0 if whole else None,
    )


def _lower_bound(value: float, bound: float) -> Check:
    holds = bound <= value + IDENTITY_BUDGET * abs(value)
    return Check("C15", "lower bound below best known value", value, bound, holds)
