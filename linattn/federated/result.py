"""What a run returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linattn._typing import AnyArray
from linattn.oracles.protocol import Outcome as Outcome
from linattn.types import Params

if TYPE_CHECKING:
    import xarray as xr

UNITS = {
    "objective": "loss",
    "profile": "loss",
    "gap": "loss",
    "kernel_gradient_norm": "loss per parameter",
    "value_gradient_norm": "loss per parameter",
    "kernel_drift": "parameter norm",
    "value_drift": "parameter norm",
    "local_lr": "1/curvature",
    "floats_up": "floats",
    "floats_down": "floats",
    "multiply_adds": "multiply-adds",
    "personal_objective": "loss",
    "unselected_gradient": "squared gradient",
    "selection_skew": "squared gradient",
    "selection_error": "squared gradient",
}


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes
    ----------
    params : Params
        Last finite server parameters.
    client_params : list of Params
        The model that every client uses at the end: personal where the method makes them so, else
        the server's.
    path : list of Params
        Server parameters per round, entry 0 the start; empty unless recorded.
    outcome : Outcome
    freeze_round : int or None
        First round of the last stage in which the kernel did not train, None if it always did.
    start_round : int
    columns : dict of str to array
        The history as plain arrays, one entry per round and one for the start.
    memory : object
        For ``run(..., memory=)``.
    """

    params: Params
    client_params: list[Params]
    path: list[Params]
    outcome: Outcome
    freeze_round: int | None
    start_round: int
    columns: dict[str, AnyArray]
    memory: Any

    @property
    def history(self) -> xr.Dataset:
        """The history as a dataset over `round` = start_round..end (0 is the start)."""
        import numpy as np
        import xarray as xr

        count = len(next(iter(self.columns.values()), []))
        return xr.Dataset(
            {
                name: ("round", column, {"units": UNITS[name]} if name in UNITS else {})
                for name, column in self.columns.items()
            },
            coords={"round": self.start_round + np.arange(count)},
        )

    def __repr__(self) -> str:
        objective = self.columns.get("objective")
        final = "" if objective is None else f", final objective {objective[-1]:.6g}"
        frozen = "" if self.freeze_round is None else f", kernel frozen from {self.freeze_round}"
        return f"Result({self.outcome.status} at round {self.outcome.round}{final}{frozen})"
