"""C4 and C4f: the warm-up is inexact descent on the profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from linattn.analysis.certificate import IDENTITY, LEDGER
from linattn.claims.along import warmup_descent
from linattn.claims.record import (
    Claim,
    Condition,
    Constant,
    Instance,
    Measurement,
    factored_condition,
    merged_condition,
    refused,
)
from linattn.objectives.population import population

if TYPE_CHECKING:
    import xarray as xr


def _finite(ledger: xr.Dataset) -> Condition:
    finite = ledger.attrs["diverged_round"] is None
    return Condition("finite trajectory", 0.0 if finite else -1.0)


def upper_measurement(ledger: xr.Dataset, *conditions: Condition) -> Measurement:
    """P(B_T) beside Cert(T) at the last round."""
    finite = _finite(ledger)
    if finite.slack < 0:
        return refused(*conditions, finite)
    last = ledger.isel(round=-1)
    scale = abs(float(ledger["profile"][0])) + sum(abs(float(last[name])) for name in LEDGER)
    return Measurement(
        float(last["profile"]),
        float(last["certificate"]),
        scale,
        conditions=(*conditions, finite),
        constants=(
            Constant("max ηL_K", float(ledger["eta_L"].max()), ledger.attrs["curvature_kind"]),
            Constant("violated local steps", float(ledger["violations"].sum()), "counted"),
        ),
    )


def additive_measurement(ledger: xr.Dataset, *conditions: Condition) -> Measurement:
    """P(B_T) beside the signed sums of the additive identity at the last round."""
    finite = _finite(ledger)
    if finite.slack < 0:
        return refused(*conditions, finite)
    last = ledger.isel(round=-1)
    terms = [float(ledger["profile"][0]), *(float(last[name]) for name in IDENTITY)]
    measured = float(last["profile"])
    scale = abs(measured) + sum(abs(term) for term in terms)
    return Measurement(measured, sum(terms), scale, conditions=(*conditions, finite))


def _merged(instance: Instance) -> Measurement:
    condition = merged_condition(instance.params)
    if condition.slack < 0:
        return refused(condition)
    return upper_measurement(warmup_descent(instance).ledger, condition)


def _factored(instance: Instance) -> Measurement:
    condition = factored_condition(instance.params)
    if condition.slack < 0:
        return refused(condition)
    return upper_measurement(warmup_descent(instance).ledger, condition)


def _additive(instance: Instance) -> Measurement:
    found = additive_measurement(warmup_descent(instance).ledger)
    # P = ½c̄ − ½⟨C, V*⟩ + ridge: its own terms are of the size of c̄, however small P is.
    return found._replace(scale=found.scale + population(instance.problem).form.energy)


SOURCE = "theory section 3"
CLAIMS = (
    Claim(
        "C4",
        "P(B_T) ≤ Cert(T) = P(B_0) − paid + tracking + drift + cross − step",
        "upper",
        SOURCE,
        _merged,
        assumptions=("merged kernel", "finite trajectory"),
    ),
    Claim(
        "C4f",
        "P(θ_T) ≤ Cert(T) with the exact remainder ρ in place of L_K",
        "upper",
        SOURCE,
        _factored,
        assumptions=("factored kernel", "finite trajectory"),
    ),
    Claim(
        "C4 additive",
        "P(B_T) = P(B_0) + paid + tracking + drift + noise + sampling + curvature + resolve",
        "identity",
        SOURCE,
        _additive,
        assumptions=("finite trajectory",),
    ),
)
