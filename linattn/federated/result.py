"""What a run returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from linattn._display import axes_or_new, facts_html
from linattn._typing import AnyArray, IntArray
from linattn.oracles.protocol import Outcome as Outcome
from linattn.types import Params

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

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
    entries : array of int (entries,)
        Rounds of the entries of the history: the start, every so many rounds, and the last.
    columns : dict of str to array (entries,)
        The history as plain arrays.
    memory : object
        For ``run(..., memory=)``.
    """

    params: Params
    client_params: list[Params]
    path: list[Params]
    outcome: Outcome
    freeze_round: int | None
    start_round: int
    entries: IntArray
    columns: dict[str, AnyArray]
    memory: Any

    @property
    def history(self) -> xr.Dataset:
        """The history as a dataset over `round` (0 is the start)."""
        import xarray as xr

        return xr.Dataset(
            {
                name: ("round", column, {"units": UNITS[name]} if name in UNITS else {})
                for name, column in self.columns.items()
            },
            coords={"round": self.entries},
        )

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw objective and profile against the round, with the round at which the kernel froze.

        Returns
        -------
        matplotlib Axes
        """
        axes, history = axes_or_new(axes), self.history
        for name, line in (("objective", "-"), ("profile", "--")):
            if name in self.columns:
                axes.plot(history["round"].values, history[name].values, line, label=name)
        if self.freeze_round is not None:
            axes.axvline(self.freeze_round, color="grey", linestyle=":", label="kernel frozen")
        axes.set(xlabel="round", ylabel="loss")
        axes.legend()
        return axes

    def _repr_html_(self) -> str:
        last = {name: column[-1] for name, column in self.columns.items() if len(column)}
        facts: list[tuple[str, object]] = [
            ("status", self.outcome.status),
            ("rounds", self.outcome.round),
            ("reason", self.outcome.reason or None),
            ("kernel frozen from round", self.freeze_round),
        ]
        return facts_html("Result", [*facts, *((f"final {k}", last[k]) for k in last)])

    def __repr__(self) -> str:
        objective = self.columns.get("objective")
        final = "" if objective is None else f", final objective {objective[-1]:.6g}"
        frozen = "" if self.freeze_round is None else f", kernel frozen from {self.freeze_round}"
        return f"Result({self.outcome.status} at round {self.outcome.round}{final}{frozen})"
