"""Claims judged on what simulations stored: the measured and the analytical number of every run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.store import load_results

if TYPE_CHECKING:
    import xarray as xr

    from linattn.claims import Verdict

SOURCE = "stored results"
C9_PARTS = ("kernel_bias", "value_transient", "value_floor", "value_cross")
C4_TERMS = (
    "descent_paid", "tracking_cost", "drift_cost", "noise_cost", "sampling_cost", "cross_term",
    "step_term",
)  # fmt: skip
IDENTITY_TERMS = ("paid", "tracking", "drift", "noise", "sampling", "curvature", "resolve")
Column = tuple[Any, Any, Any]
FORMULA_BUDGET = 1e-12
"""Of statements about long runs of matrix recursions, relative to the numbers compared."""


def verdicts(store: Path) -> list[Verdict]:
    """Return the verdict of every claim on the stored runs of the last sweeps.

    For each claim the worst case over all runs and entries is the one shown.
    """
    found: list[Verdict] = []
    for kind, checks in CHECKS.items():
        results = load_results(store, kind, sweep=kind) if store.is_dir() else []
        if results:
            found += [check([result.dataset for result in results]) for check in checks]
    return found


def worst(
    name: str,
    statement: str,
    kind: str,
    columns: Iterable[Column],
    budget: float = 1e-10,
) -> Verdict:
    """Judge the worst of many entries, each (measured, analytical, sum of the |terms|).

    Entries that are not finite are left out: they are past a divergence, which is stored as such.
    """
    from linattn.claims import Claim, Measurement, judge

    def flat(position: int) -> Array:
        return np.concatenate([np.ravel(np.broadcast_arrays(*c)[position]) for c in listed])

    listed = list(columns)
    measured, bound, scale = flat(0), flat(1), flat(2)
    usable = np.isfinite(measured) & np.isfinite(bound) & np.isfinite(scale)
    measured, bound, scale = measured[usable], bound[usable], scale[usable]
    sign = {"upper": measured - bound, "lower": bound - measured}
    excess = sign.get(kind, np.abs(measured - bound)) / np.where(scale > 0.0, scale, 1.0)
    at = int(np.argmax(excess)) if len(excess) else -1
    triple = [float(v[at]) if at >= 0 else 0.0 for v in (measured, bound, scale)]
    measurement = Measurement(triple[0], triple[1], triple[2])
    claim = Claim(name, statement, kind, SOURCE, lambda _: measurement, budget=budget)
    return judge(claim, measurement)


def _decomposition(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        parts = [run[name].values for name in C9_PARTS]
        size = abs(run["reference"].values) + sum(abs(part) for part in parts)
        return run["objective"].values, run["reference"].values + sum(parts), size

    return worst("C9 stored", "F − P_ref is the sum of its parts", "identity", map(column, runs))


def _reference(runs: Sequence[xr.Dataset]) -> Verdict:
    columns = [
        (run["reference"].values, run["reference_lower_bound"].values, abs(run["reference"].values))
        for run in runs
    ]
    return worst("C15 stored", "lower bound ≤ reference value", "lower", columns)


def _certificate(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        run = run.isel(round=slice(1, None))  # both are P(B_0) at the start
        size = abs(run["profile"].values) + sum(abs(run[name].values) for name in C4_TERMS)
        return run["profile"].values, run["certificate"].values, size

    return worst("C4 stored", "P(B_T) ≤ Cert(T)", "upper", map(column, runs))


def _additive(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        profile = run["profile"].values
        size = abs(profile) + sum(abs(run[name].values) for name in IDENTITY_TERMS)
        return profile, profile - run["residual"].values, size

    return worst("C4 identity stored", "P(B_T) by the ledger", "identity", map(column, runs))


def _closed_form(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        error = run["relative_error"].where(_tame(run)).values
        return 1.0 + error, np.ones_like(error), np.ones_like(error)

    statement = "simulated V_t is the closed form"
    return worst("C7 stored", statement, "identity", map(column, runs), FORMULA_BUDGET)


def _bias(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        scale = run["minimizer_norm"].values + run["bias_closed"].values
        return run["bias_simulated"].where(_tame(run)).values, run["bias_closed"].values, scale

    return worst("C8 stored", "simulated bias is the formula", "identity", map(column, runs), 1e-11)


def _bias_bound(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        run = run.sel(local_steps=run["local_steps"] > 1)  # both are zero at E = 1
        return run["bias"].values, run["bias_bound"].values, run["minimizer_norm"].values

    return worst("C8 bound stored", "bias ≤ bound", "upper", map(column, runs))


def _nulls(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(run: xr.Dataset) -> Column:
        stay = run["null_bias"].where(_tame(run)).values
        return 1.0 + stay, np.ones_like(stay), np.ones_like(stay)

    return worst("C8 null stored", "no bias in the controls", "identity", map(column, runs), 1e-11)


def _tame(run: xr.Dataset) -> xr.DataArray:
    """Where C7 is claimed: stable and well enough conditioned."""
    tame: Any = (run["stable"] > 0) & (run["condition"] <= 1e4)
    return tame  # type: ignore[no-any-return]


CHECKS: dict[str, tuple[Callable[[Sequence[Any]], Verdict], ...]] = {
    "bias_drift": (_decomposition, _reference),
    "certificate": (_certificate, _additive),
    "frozen_stage": (_closed_form, _bias, _bias_bound, _nulls),
}
