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
from linattn.data.worlds import InitialSpec, ProblemSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.checks import Column, worst
from linattn.experiments.specs import (
    SyntheticSpec,
)
from linattn.experiments.tables import (
    reference_variables,
    single,
    stacked,
)

if TYPE_CHECKING:
    import xarray as xr

CURVATURE_KINDS = ("exact", "cheap bound", "remainder")
UNITS = {"argmin_certificate": "rounds", "argmin_profile": "rounds", "warmup_star": "rounds"}


class CertificateSpec(SyntheticSpec):
    """The ledger C4 (or C4f) and the additive identity along a warm-up."""

    num_starts: Count = 20


def run(spec: CertificateSpec) -> xr.Dataset:
    """Return the certificate of every number of local steps, round by round.

    Dimensions: `local_steps`; `round` = 0..rounds. Besides the columns of
    `linattn.descent_certificate`: ``objective``, F after freezing at that round and training the
    value block to the end, and ``stable``; per number of local steps the argmin of certificate and
    profile, ``looseness``, and the relative ``regret`` of freezing at the certificate's argmin
    (NaN where ``tradeoff`` is 0); the reference value of P.
    """
    problem, params = spec.prepared()
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


HETEROGENEOUS = ProblemSpec(value_heterogeneity=0.75, covariate_heterogeneity=0.3)


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


SIMULATION = Simulation(
    CertificateSpec,
    run,
    presets={
        "paper": [
            Grid(
                CertificateSpec(rounds=100, local_steps=(1, 10, 50)),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
            Grid(
                CertificateSpec(
                    rounds=100,
                    local_steps=(1, 10, 50),
                    problem=HETEROGENEOUS,
                    initial=InitialSpec(kernel="factored", rank=3),
                ),
                {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
        ],
        "quick": [
            Grid(
                CertificateSpec(rounds=60, local_steps=(1, 20)),
                {
                    "seed": range(3),
                    "problem.value_heterogeneity": [1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
        ],
        "tiny": [
            Grid(
                CertificateSpec(rounds=10, local_steps=(1, 5), num_starts=4, problem=HETEROGENEOUS)
            ),
        ],
    },
    checks=(_certificate, _additive),
)


if __name__ == "__main__":
    SIMULATION.main()
