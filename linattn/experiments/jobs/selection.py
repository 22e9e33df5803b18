"""Selective training along λ, with the errors E1 and E2 of the masks that were sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn.experiments.jobs.worlds import make_world, padded, train
from linattn.experiments.method_specs import SelectionSpec
from linattn.federated.method import Proposal

if TYPE_CHECKING:
    import xarray as xr

COLUMNS = {
    "objective": "loss",
    "unselected_gradient": "squared gradient",
    "selection_skew": "squared gradient",
    "selection_error": "squared gradient",
}


def run(spec: SelectionSpec) -> xr.Dataset:
    """Return selective training at every λ, and FedAvg beside it.

    Dimensions: `consistency` (λ); `block`; `round` = 0..rounds. The columns of the history:
    ``unselected_gradient`` is E1, ``selection_skew`` E2, ``selection_error`` what E2 bounds.
    ``chosen``: share of clients that trained a block, over all rounds. ``fed_avg``: its objective.
    """
    import xarray as xr

    world = make_world(spec)
    names = world.params.layout.names
    columns: dict[str, list[Any]] = {name: [] for name in (*COLUMNS, "chosen")}
    for weight in spec.consistency:
        shares: list[list[float]] = []

        def observe(
            context: la.RoundContext, proposal: Proposal, shares: list[list[float]] = shares
        ) -> None:
            sent = [proposal.plan.trained_by(k) for k in range(len(context.participants))]
            shares.append([float(np.mean([name in own for own in sent])) for name in names])

        method = la.selective(budget=spec.budget, consistency=weight, normalize=True)
        result = train(method, world, spec, observe=observe, metrics=tuple(COLUMNS))
        for name in COLUMNS:
            columns[name].append(padded(result.columns[name], spec.rounds + 1))
        columns["chosen"].append(np.mean(shares, axis=0))
    base = train(la.fed_avg(), world, spec, metrics=("objective",)).columns["objective"]
    data: dict[str, Any] = {
        name: (("consistency", "round"), np.stack(columns[name]), {"units": unit})
        for name, unit in COLUMNS.items()
    }
    data["chosen"] = (("consistency", "block"), np.stack(columns["chosen"]), {"units": "1"})
    data["fed_avg"] = ("round", padded(base, spec.rounds + 1), {"units": "loss"})
    return xr.Dataset(
        data,
        {
            "consistency": list(spec.consistency),
            "block": list(names),
            "round": np.arange(spec.rounds + 1),
        },
    )
