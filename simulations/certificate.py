"""The descent certificate C4 along the warm-up: bought, paid, and how tight it is.

Run ``python simulations/certificate.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

import linattn as la
from linattn._fields import Count
from linattn.analysis.certificate import IDENTITY, LEDGER
from linattn.analysis.regret import best_length, has_tradeoff, relative_regret
from linattn.claims import Verdict
from linattn.experiments import Simulation
from linattn.experiments.checks import Column, worst
from linattn.experiments.specs import FACTORED, WORLDS, RegimeSpec, pairs, regimes
from linattn.experiments.tables import reference_variables, single

if TYPE_CHECKING:
    import xarray as xr

CURVATURE_KINDS = ("exact", "cheap bound", "remainder")
UNITS = {"argmin_certificate": "rounds", "argmin_profile": "rounds", "warmup_star": "rounds"}


class CertificateSpec(RegimeSpec):
    """The ledger C4 (or C4f) and the additive identity along a warm-up."""

    num_starts: Count = 20


def run(spec: CertificateSpec) -> xr.Dataset:
    """Return the certificate round by round, and what freezing after each round ends at.

    Dimension `round` = 0..rounds. Besides the columns of `linattn.descent_certificate`:
    ``objective``, F after freezing at that round and training the value block to the end, and
    ``stable``, NaN between the lengths of the warm-up table; argmin of certificate and profile,
    ``looseness``, the relative ``regret`` of freezing at the certificate's argmin (NaN where
    ``tradeoff`` is 0); the reference value of P.
    """
    problem, params = spec.prepared()
    reference = spec.reference(spec.num_starts)
    settings = {"rounds": spec.rounds, **spec.settings()}
    certificate = la.descent_certificate(problem, params, **settings)
    frozen_at = int(np.argmin(certificate["certificate"].values))
    lengths = sorted({*spec.lengths(), frozen_at})
    table = la.bias_drift(problem, params, warmup_lengths=lengths, reference=reference, **settings)
    ended = certificate.attrs["diverged_round"]
    values = {
        "argmin_certificate": frozen_at,
        "argmin_profile": int(np.argmin(certificate["profile"].values)),
        "looseness": la.looseness(certificate),
        "diverged_round": -1 if ended is None else ended,
        "curvature_kind": CURVATURE_KINDS.index(certificate.attrs["curvature_kind"]),
        "warmup_star": best_length(table),
        "tradeoff": has_tradeoff(table),
        "regret": relative_regret(table, float(table["objective"].sel(warmup=frozen_at))),
    }
    after = table[["objective", "stable"]].rename(warmup="round").astype(float)
    found = certificate.merge(after.reindex(round=certificate["round"])).drop_attrs(deep=False)
    return found.assign(single(values, UNITS) | reference_variables(reference))


def _certificate(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        run = run.isel(round=slice(1, None))  # both are P(B_0) at the start
        size = abs(run["profile"].values) + sum(abs(run[name].values) for name in LEDGER)
        return run["profile"].values, run["certificate"].values, size

    return worst("C4 stored", "P(B_T) ≤ Cert(T)", "upper", map(column, runs))


def _additive(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        profile = run["profile"].values
        size = abs(profile) + sum(abs(run[name].values) for name in IDENTITY)
        return profile, profile - run["residual"].values, size

    return worst("C4 identity stored", "P(B_T) by the ledger", "identity", map(column, runs))


FEW = [(0.02, 11), (0.02, 21)]
MAIN = [(0.75, 0.3)]
SIMULATION = Simulation(
    CertificateSpec,
    run,
    presets={
        "paper": [
            *regimes(CertificateSpec(), pairs((0.0, 0.02, 0.05, 0.1, 0.2, 0.5), 0.02), seeds=10),
            *regimes(CertificateSpec(), pairs((0.05, 0.1), 0.01), seeds=10),
            *regimes(CertificateSpec(initial=FACTORED), FEW, seeds=10, worlds=MAIN,
                     problem__kernel_heterogeneity=[0.0, 0.5]),
        ],
        "quick": [
            *regimes(CertificateSpec(num_starts=4), [(0.02, 6)], worlds=WORLDS[1:]),
            *regimes(CertificateSpec(num_starts=4), [(0.02, 21)], worlds=MAIN),
        ],
        "tiny": regimes(
            CertificateSpec(horizon=10.0, num_starts=2), [(0.02, 6), (0.02, 21)], worlds=MAIN
        ),
    },
    checks=(_certificate, _additive),
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
