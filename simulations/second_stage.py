"""FedFrozen with each second stage: averaging, control variates, one exact round.

Run ``python simulations/second_stage.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import linattn as la
from linattn._fields import Count, NonNegative
from linattn._typing import Array
from linattn.experiments import Simulation
from linattn.experiments.specs import FACTORED, WORLDS, RegimeSpec, increasing, regimes
from linattn.experiments.tables import padded, reference_variables

if TYPE_CHECKING:
    import xarray as xr

Stage = Literal["fed_avg", "scaffold", "one_shot"]


class SecondStageSpec(RegimeSpec):
    """FedFrozen with each second stage, forked from one warm-up at each of some warm-up times."""

    local_steps: Count = 21
    warmup_times: tuple[NonNegative, ...] = (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0)
    stages: tuple[Stage, ...] = ("fed_avg", "scaffold", "one_shot")
    num_starts: Count = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        increasing("warmup_times", self.warmup_times, most=self.horizon, limit="horizon")
        if "fed_avg" not in self.stages:
            raise ValueError("stages must have fed_avg, which the others are compared with.")

    def forks(self) -> list[int]:
        """The warm-up lengths T nearest to the times, one round short of R at most."""
        each = self.local_lr * self.local_steps
        return [min(round(time / each), self.rounds - 1) for time in self.warmup_times]


def run(spec: SecondStageSpec) -> xr.Dataset:
    """Return every second stage, forked from one warm-up at every warm-up time.

    Dimensions: `stage`; `time`; `round` = 0..rounds (NaN before the fork). ``gap``: F − P(B_T) by
    C1, what is left of the value block's problem; ``floor`` its limit under averaging by C7, ∞
    where that is unstable; ``kernel_bias`` P(B_T) − P_ref; ``length`` T; ``floats``, both ways, of
    the second stage.
    """
    import xarray as xr

    problem, params = spec.prepared()
    reference = spec.reference(spec.num_starts)
    path = la.run(la.fed_avg(), problem, params, rounds=spec.rounds, record_params=True,
                  metrics=(), **spec.settings()).path  # fmt: skip
    lengths = spec.forks()
    shape = (len(spec.stages), len(lengths))
    gap, floats = np.full((*shape, spec.rounds + 1), np.nan), np.full(shape, np.nan)
    parts = np.full((2, len(lengths)), np.nan)
    for k, length in enumerate(lengths):
        if length >= len(path):
            continue
        reached = path[length]
        stage = la.frozen_stage(problem, reached, **spec.settings())
        bias = la.KernelProfile(problem).value(reached) - reference.value
        parts[:, k] = bias, stage.floor if stage.stable else np.inf
        for s, name in enumerate(spec.stages):
            columns = _forked(spec, problem, reached, name, length)
            gap[s, k, length:] = padded(columns["gap"], spec.rounds + 1 - length)
            floats[s, k] = columns["floats_up"].sum() + columns["floats_down"].sum()
    data: dict[str, Any] = {
        "gap": (("stage", "time", "round"), gap, {"units": "loss"}),
        "kernel_bias": ("time", parts[0], {"units": "loss"}),
        "floor": ("time", parts[1], {"units": "loss"}),
        "length": ("time", lengths, {"units": "rounds"}),
        "floats": (("stage", "time"), floats, {"units": "floats"}),
    }
    coordinates = {
        "stage": list(spec.stages),
        "time": ("time", list(spec.warmup_times), {"units": "1/curvature"}),
        "round": np.arange(spec.rounds + 1),
    }
    return xr.Dataset(data | reference_variables(reference), coordinates)


def _forked(
    spec: SecondStageSpec, problem: la.Problem, start: la.Params, stage: str, length: int
) -> dict[str, Array]:
    """History of the second stage from the recorded warm-up."""
    method = la.fed_frozen(warmup_rounds=length, frozen=stage)
    metrics = ("gap", "floats_up", "floats_down")
    return la.run(method, problem, start, rounds=spec.rounds, start_round=length, metrics=metrics,
                  **spec.settings()).columns  # fmt: skip


FEW = [(0.02, 21)]
SIMULATION = Simulation(
    SecondStageSpec,
    run,
    presets={
        "paper": [
            *regimes(SecondStageSpec(), [(0.02, 6), *FEW], seeds=10),
            *regimes(SecondStageSpec(initial=FACTORED), FEW, seeds=10, worlds=[(0.75, 0.3)],
                     problem__kernel_heterogeneity=[0.0, 0.5]),
        ],
        "quick": regimes(SecondStageSpec(num_starts=4), FEW, worlds=WORLDS[2:]),
        "tiny": regimes(SecondStageSpec(horizon=6.0, warmup_times=(0.0, 2.0), num_starts=2),
                        [(0.02, 21)], seeds=2, worlds=[(0.75, 0.3)]),
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
