"""The ledger of the warm-up (C4, C4f), the additive identity, and what freezing there would cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn.analysis.bias_drift import bias_drift
from linattn.analysis.certificate import DescentCertificate, descent_certificate
from linattn.experiments.jobs.common import (
    prepared,
    reference_variables,
    relative_regret,
    stacked,
)
from linattn.experiments.specs import CertificateSpec

if TYPE_CHECKING:
    import xarray as xr

    from linattn.analysis.bias_drift import BiasDrift


def run(spec: CertificateSpec) -> xr.Dataset:
    """Return the certificate of every number of local steps, round by round.

    Dimensions: `local_steps`; `round` = 0..rounds. Besides the columns of
    `linattn.descent_certificate`: ``objective``, F after freezing at that round and training the
    value block to the end, from which the regret of the certificate's argmin follows.
    """
    problem, params = prepared(spec)
    reference = la.reference_value(problem, like=params, num_starts=spec.num_starts, seed=spec.seed)
    parts = []
    for steps in spec.local_steps:
        certificate = descent_certificate(
            problem, params, rounds=spec.rounds, local_steps=steps, local_lr=spec.local_lr
        )
        table = bias_drift(
            problem,
            params,
            warmup_lengths=range(spec.rounds + 1),
            rounds=spec.rounds,
            local_steps=steps,
            local_lr=spec.local_lr,
            reference=reference,
        )
        parts.append(_panel(certificate, table))
    kind = ("exact", "cheap bound", "remainder").index(certificate.curvature_kind)
    whole = stacked(parts, spec.local_steps).assign(reference_variables(reference))
    return whole.assign(curvature_kind=((), kind, {"flags": "exact, cheap bound, remainder"}))


def _panel(certificate: DescentCertificate, table: BiasDrift) -> xr.Dataset:
    import xarray as xr

    data: dict[str, Any] = {
        name: ("round", column, {} if name in ("violations", "eta_L") else {"units": "loss"})
        for name, column in certificate.columns.items()
    }
    data["objective"] = ("round", table["objective"], {"units": "loss"})
    data["stable"] = ("round", table["stable"])
    frozen_at = certificate.argmin_certificate
    ended = certificate.diverged_round
    star = table.warmup_star
    single = {
        "argmin_certificate": frozen_at,
        "argmin_profile": certificate.argmin_profile,
        "looseness": certificate.looseness,
        "diverged_round": -1 if ended is None else ended,
        "warmup_star": -1 if star is None else star,
        "regret": relative_regret(table, float(table["objective"][frozen_at])),
    }
    data |= {name: ((), value) for name, value in single.items()}
    return xr.Dataset(data, coords={"round": np.arange(len(table.warmup))})
