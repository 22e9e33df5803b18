"""``linattn verify``: every claim on fresh instances, and on what is stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from linattn.claims.c04_certificate import additive_measurement, upper_measurement
from linattn.claims.record import Condition, Measurement, Verdict, judge
from linattn.claims.table import Summary, get_claim, summarize

if TYPE_CHECKING:
    import xarray as xr

INSTANCES = 20


class Row(NamedTuple):
    """One line of the table of claims; numbers are those of the least tight verdict."""

    claim: str
    where: str
    measured: float
    analytical: float
    tightness: float
    median_tightness: float
    status: str
    checked: int
    refused: int
    kind: str


def verify(
    store: str | os.PathLike[str] | None = None,
    *,
    instances: int = INSTANCES,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Return one row per claim and place: fresh random instances, then stored sweeps.

    Parameters
    ----------
    store : path, optional
        Folder with stored results; none are needed.
    instances : int
        Fresh instances per claim (fewer for the expensive ones).
    seed : int
    progress : callable (claim id), optional

    Notes
    -----
    A claim is violated where any of its verdicts is. Heuristics are reported.
    """
    rows = [
        row_of(summary, "random instances")
        for summary in summarize(instances=instances, seed=seed, progress=progress)
    ]
    if store is None or not os.path.isdir(store):
        return rows
    for name, verdicts in _stored_verdicts(store).items():
        claim, where = name
        rows.append(row_of(Summary(get_claim(claim), verdicts), where))
    return rows


def row_of(summary: Summary, where: str) -> Row:
    """Return the line of a claim."""
    worst: Verdict | None = summary.worst
    nan = float("nan")
    refused = summary.count("refused")
    return Row(
        summary.claim.id,
        where,
        nan if worst is None else worst.measured,
        nan if worst is None else worst.bound,
        nan if worst is None else worst.tightness,
        summary.median_tightness,
        summary.status,
        len(summary.verdicts) - refused,
        refused,
        summary.claim.kind,
    )


def _stored_verdicts(
    store: str | os.PathLike[str],
) -> dict[tuple[str, str], list[Verdict]]:
    from linattn.experiments.store import load_results

    out: dict[tuple[str, str], list[Verdict]] = {}
    for result in load_results(store):
        kind = result.path.name.rpartition("-")[0]
        for name, measurement in _measurements(kind, result.dataset):
            claim = get_claim(name)
            key = (name, f"stored {kind}")
            out.setdefault(key, []).append(judge(claim, measurement))
    return out


def _measurements(kind: str, dataset: xr.Dataset) -> Iterator[tuple[str, Measurement]]:
    """The measurements that a stored run of this kind allows."""
    if kind == "certificate":
        for k in range(dataset.sizes["local_steps"]):
            ledger = dataset.isel(local_steps=k)
            yield from _ledger_measurements(ledger)
    elif kind == "bias_drift":
        for k in range(dataset.sizes["local_steps"]):
            yield "C9", table_measurement(dataset.isel(local_steps=k))
        yield "C15", reference_measurement(dataset)
    elif kind == "frozen_stage":
        for k in range(dataset.sizes["local_steps"]):
            yield "C7", stage_measurement(dataset.isel(local_steps=k))


def _ledger_measurements(ledger: xr.Dataset) -> Iterator[tuple[str, Measurement]]:
    from linattn.experiments.jobs.certificate import CURVATURE_KINDS

    kind = CURVATURE_KINDS[int(ledger["curvature_kind"])]
    ended = int(ledger["diverged_round"])
    named = ledger.assign_attrs(curvature_kind=kind, diverged_round=None if ended < 0 else ended)
    yield "C4f" if kind == "remainder" else "C4", upper_measurement(named)
    yield "C4 additive", additive_measurement(named)


def table_measurement(table: xr.Dataset) -> Measurement:
    """C9 on a stored table: the least exact of its stable lengths."""
    names = ("value_transient", "value_floor", "value_cross")
    stable = table["stable"].values.astype(bool)
    if not stable.any():
        return Measurement(*(float("nan"),) * 3, conditions=(Condition("ρ < 1", -1.0),))
    measured = table["objective"].values[stable]
    parts = np.stack([table["profile"].values[stable], *(table[n].values[stable] for n in names)])
    scale = np.abs(measured) + np.abs(parts).sum(axis=0)
    worst = int(np.argmax(np.abs(measured - parts.sum(axis=0)) / scale))
    return Measurement(float(measured[worst]), float(parts.sum(axis=0)[worst]), float(scale[worst]))


def reference_measurement(dataset: xr.Dataset) -> Measurement:
    """C15 on a stored reference value."""
    value, bound = float(dataset["reference"]), float(dataset["reference_lower_bound"])
    known = Condition("lower bound known", 0.0 if np.isfinite(bound) else -1.0)
    return Measurement(value, bound, abs(value) + abs(bound), conditions=(known,))


def stage_measurement(dataset: xr.Dataset) -> Measurement:
    """C7 on a stored stage: simulated against closed objective, the least exact round."""
    simulated, closed = dataset["objective_simulated"].values, dataset["objective_closed"].values
    stable = Condition("ρ < 1", 1.0 - float(dataset["rate"]))
    if stable.slack < 0:
        return Measurement(*(float("nan"),) * 3, conditions=(stable,))
    scale = np.abs(simulated) + np.abs(closed)
    worst = int(np.argmax(np.abs(simulated - closed) / scale))
    return Measurement(
        float(simulated[worst]), float(closed[worst]), float(scale[worst]), conditions=(stable,)
    )
