"""C4 and C4f: the warm-up is inexact descent on the profile."""

from linattn.analysis.applicable import FACTORED, MERGED
from linattn.analysis.certificate import IDENTITY, LEDGER
from linattn.claims.along import warmup_descent
from linattn.claims.conditions import FED_AVG, FINITE_DESCENT
from linattn.claims.record import Claim, Constant, Instance, Measurement
from linattn.claims.sizes import loss_terms


def _certificate(instance: Instance) -> Measurement:
    """P(B_T) beside Cert(T) at the last round."""
    ledger = warmup_descent(instance).ledger
    last = ledger.isel(round=-1)
    terms = [float(ledger["profile"][0]), *(float(last[name]) for name in LEDGER)]
    return Measurement(
        float(last["profile"]),
        float(last["certificate"]),
        sum(abs(term) for term in terms) + loss_terms(instance),
        constants=(
            Constant("max ηL_K", float(ledger["eta_L"].max()), ledger.attrs["curvature_kind"]),
            Constant("violated local steps", float(ledger["violations"].sum()), "counted"),
        ),
    )


def _additive(instance: Instance) -> Measurement:
    """P(B_T) beside the signed sums of the additive identity at the last round."""
    ledger = warmup_descent(instance).ledger
    last = ledger.isel(round=-1)
    terms = [float(ledger["profile"][0]), *(float(last[name]) for name in IDENTITY)]
    measured = float(last["profile"])
    scale = abs(measured) + sum(abs(term) for term in terms) + loss_terms(instance)
    return Measurement(measured, sum(terms), scale)


CLAIMS = (
    Claim(
        "C4",
        "P(B_T) ≤ Cert(T) = P(B_0) − paid + tracking + drift + cross − step",
        "upper",
        "Warm-up",
        _certificate,
        needs=(MERGED, *FED_AVG),
        conditions=(FINITE_DESCENT,),
    ),
    Claim(
        "C4f",
        "P(θ_T) ≤ Cert(T) with the exact remainder ρ in place of L_K",
        "upper",
        "Warm-up",
        _certificate,
        needs=(FACTORED, *FED_AVG),
        conditions=(FINITE_DESCENT,),
    ),
    Claim(
        "C4 additive",
        "P(B_T) = P(B_0) + paid + tracking + drift + noise + sampling + curvature + resolve",
        "identity",
        "Warm-up",
        _additive,
        needs=FED_AVG,
        conditions=(FINITE_DESCENT,),
    ),
)
