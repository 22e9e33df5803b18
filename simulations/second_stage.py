"""FedFrozen with each second stage: averaging, control variates, one exact round.

Run ``python simulations/second_stage.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import linattn as la
from linattn._fields import Count, Index
from linattn._typing import Array
from linattn.data.worlds import InitialSpec, ProblemSpec, World
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import (
    WorldSpec,
    increasing,
)
from linattn.experiments.tables import (
    single,
)
from linattn.objectives.reference import local_minimum
from linattn.types import single_layer

if TYPE_CHECKING:
    import xarray as xr


Stage = Literal["fed_avg", "scaffold", "one_shot"]


class SecondStageSpec(WorldSpec):
    """FedFrozen with each second stage, forked from one warm-up at each of `warmup_lengths`."""

    warmup_lengths: tuple[Index, ...] = (0, 5, 10, 20)
    stages: tuple[Stage, ...] = ("fed_avg", "scaffold", "one_shot")
    reference_iterations: Count = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deep:
            raise ValueError(
                "deep must be false: the one-shot round and the profile need one layer."
            )
        increasing("warmup_lengths", self.warmup_lengths, most=self.rounds - 1)
        if "fed_avg" not in self.stages:
            raise ValueError("stages must have fed_avg, which the others are compared with.")


def run(spec: SecondStageSpec) -> xr.Dataset:
    """Return every second stage, forked from one warm-up at every warm-up length.

    Dimensions: `stage`; `warmup`; `round` = 0..rounds (NaN before the fork). ``gap``: F − P(B_T) by
    C1, what is left of the value block's problem; ``floor`` its limit under
    averaging by C7, ∞ where that is unstable; ``kernel_bias`` P(B_T) − P_ref, P_ref by one L-BFGS
    descent on P from the start; ``test_accuracy`` at the end (real data); ``floats``, both ways, of
    the second stage.
    """
    import xarray as xr

    world = spec.world()
    warm = spec.train(la.fed_avg(), world, record_params=True, metrics=("objective",))
    problem = single_layer(world.problem)
    reference, norm = local_minimum(problem, world.params, max_iterations=spec.reference_iterations)
    profile = la.KernelProfile(problem)
    lengths = [t for t in spec.warmup_lengths if t < len(warm.path)]
    parts = np.full((2, len(spec.warmup_lengths)), np.nan)
    for k, length in enumerate(lengths):
        reached = warm.path[length]
        parts[:, k] = profile.value(reached) - reference, _floor(spec, world, reached)
    shape = (len(spec.stages), len(spec.warmup_lengths))
    gap = np.full((*shape, spec.rounds + 1), np.nan)
    ends = np.full((2, *shape), np.nan)
    for s, stage in enumerate(spec.stages):
        for k, length in enumerate(lengths):
            columns, accuracy = _forked(spec, world, warm.path[length], stage, length)
            gap[s, k, length : length + len(columns["gap"])] = columns["gap"]
            ends[:, s, k] = accuracy, columns["floats_up"].sum() + columns["floats_down"].sum()
    data: dict[str, Any] = {
        "gap": (("stage", "warmup", "round"), gap, {"units": "loss"}),
        "kernel_bias": ("warmup", parts[0], {"units": "loss"}),
        "floor": ("warmup", parts[1], {"units": "loss"}),
        "test_accuracy": (("stage", "warmup"), ends[0], {"units": "1"}),
        "floats": (("stage", "warmup"), ends[1], {"units": "floats"}),
    }
    data |= single({"reference": reference, "reference_gradient_norm": norm}, {"reference": "loss"})
    coordinates = {
        "stage": list(spec.stages),
        "warmup": list(spec.warmup_lengths),
        "round": np.arange(spec.rounds + 1),
    }
    return xr.Dataset(data, coordinates)


def _floor(spec: SecondStageSpec, world: World, start: la.Params) -> float:
    """½‖V_∞ − V*‖²_A of averaging at the kernel of `start`, in closed form."""
    stage = la.frozen_stage(
        single_layer(world.problem), start, local_steps=spec.local_steps, local_lr=world.local_lr
    )
    return stage.floor if stage.stable else float("inf")


def _forked(
    spec: SecondStageSpec, world: World, start: la.Params, stage: str, length: int
) -> tuple[dict[str, Array], float]:
    """History of the second stage from the recorded warm-up, and test accuracy at its end."""
    result = spec.train(
        la.fed_frozen(warmup_rounds=length, frozen=stage),
        world,
        params=start,
        start_round=length,
        metrics=("gap", "floats_up", "floats_down"),
    )
    return result.columns, world.share_right(result.client_params)


REAL = InitialSpec(scale=1.0)
SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=16, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)


SIMULATION = Simulation(
    SecondStageSpec,
    run,
    presets={
        "paper": [
            Grid(
                SecondStageSpec(
                    rounds=400, local_steps=20, warmup_lengths=(0, 5, 10, 20, 50, 100, 200)
                ),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
            Grid(
                SecondStageSpec(
                    rounds=400,
                    local_steps=20,
                    warmup_lengths=(0, 5, 10, 20, 50, 100, 200),
                    initial=InitialSpec(kernel="factored", rank=3),
                ),
                {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
            Grid(
                SecondStageSpec(
                    rounds=200,
                    local_steps=20,
                    warmup_lengths=(0, 5, 10, 20, 50, 100),
                    initial=REAL,
                    step_factor=0.5,
                ),
                {"seed": range(10), "data": ["digits", "watch"]},
            ),
        ],
        "quick": [
            Grid(
                SecondStageSpec(
                    rounds=40, local_steps=20, warmup_lengths=(0, 5, 20), problem=SMALL
                ),
                {"seed": range(2)},
            ),
            Grid(
                SecondStageSpec(
                    rounds=16,
                    warmup_lengths=(0, 8),
                    initial=REAL,
                    reference_iterations=30,
                ),
                {"seed": range(2), "data": ["digits", "watch"]},
            ),
        ],
        "tiny": [
            Grid(
                SecondStageSpec(
                    rounds=6,
                    local_steps=3,
                    warmup_lengths=(0, 2),
                    problem=ProblemSpec(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3),
                ),
                {"seed": range(2)},
            ),
        ],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
