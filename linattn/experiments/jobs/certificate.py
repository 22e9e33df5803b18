"""The ledger of the warm-up (C4, C4f), the additive identity, and the cost of freezing there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import linattn as la
from linattn.experiments.jobs.common import (
    best_length,
    has_tradeoff,
    prepared,
    reference_variables,
    relative_regret,
    single,
    stacked,
)
from linattn.experiments.specs import CertificateSpec

if TYPE_CHECKING:
    import xarray as xr

CURVATURE_KINDS = ("exact", "cheap bound", "remainder")
UNITS = {"argmin_certificate": "rounds", "argmin_profile": "rounds", "warmup_star": "rounds"}


def run(spec: CertificateSpec) -> xr.Dataset:
    """Return the certificate of every number of local steps, round by round.

    Dimensions: `local_steps`; `round` = 0..rounds. Besides the columns of
    `linattn.descent_certificate`: ``objective``, F after freezing at that round and training the
    value block to the end, and ``stable``; per number of local steps the argmin of certificate and
    profile, ``looseness``, and the relative ``regret`` of freezing at the certificate's argmin
    (NaN where ``tradeoff`` is 0); the reference value of P.
    """
    problem, params = prepared(spec)
    reference = la.reference_value(problem, like=params, num_starts=spec.num_starts, seed=spec.seed)
    parts = [
        _panel(spec, problem, params, reference=reference, local_steps=steps)
        for steps in spec.local_steps
    ]
    return stacked(parts, spec.local_steps).assign(reference_variables(reference))


def _panel(
    spec: CertificateSpec,
    problem: la.Problem,
    params: la.Params,
    *,
    reference: la.Reference,
    local_steps: int,
) -> xr.Dataset:
    certificate = la.descent_certificate(
        problem, params, rounds=spec.rounds, local_steps=local_steps, local_lr=spec.local_lr
    )
    table = la.bias_drift(
        problem,
        params,
        warmup_lengths=range(spec.rounds + 1),
        rounds=spec.rounds,
        local_steps=local_steps,
        local_lr=spec.local_lr,
        reference=reference,
    )
    frozen_at = int(np.argmin(certificate["certificate"].values))
    ended = certificate.attrs["diverged_round"]
    values = {
        "argmin_certificate": frozen_at,
        "argmin_profile": int(np.argmin(certificate["profile"].values)),
        "looseness": la.looseness(certificate),
        "diverged_round": -1 if ended is None else ended,
        "curvature_kind": CURVATURE_KINDS.index(certificate.attrs["curvature_kind"]),
        "warmup_star": best_length(table),
        "tradeoff": has_tradeoff(table),
        "regret": relative_regret(table, float(table["objective"][frozen_at])),
    }
    after = {
        name: ("round", table[name].values, table[name].attrs) for name in ("objective", "stable")
    }
    return certificate.assign(after).assign(single(values, UNITS))
