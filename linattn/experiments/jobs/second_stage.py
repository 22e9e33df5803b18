"""FedFrozen with each second stage: how much frozen value drift is left, and who recovers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._typing import Array
from linattn.experiments.jobs.common import single
from linattn.experiments.jobs.real_data import descended
from linattn.experiments.jobs.worlds import World, make_world, share_right, train
from linattn.experiments.method_specs import SecondStageSpec

if TYPE_CHECKING:
    import xarray as xr


def run(spec: SecondStageSpec) -> xr.Dataset:
    """Return every second stage, forked from one warm-up at every warm-up length.

    Dimensions: `stage`; `warmup`; `round` = 0..rounds (NaN before the fork). ``gap``: F − P(B_T) by
    C1, what is left of the value block's problem; ``floor`` its limit under
    averaging by C7, ∞ where that is unstable; ``kernel_bias`` P(B_T) − P_ref, P_ref by one L-BFGS
    descent on P from the start; ``test_accuracy`` at the end (real data); ``floats``, both ways, of
    the second stage.
    """
    import xarray as xr

    world = make_world(spec)
    warm = train(la.fed_avg(), world, spec, record_params=True, metrics=("objective",))
    assert isinstance(world.problem, la.Problem)
    reference, norm = descended(world.problem, world.params, spec.reference_iterations)
    profile = la.KernelProfile(world.problem)
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
    assert isinstance(world.problem, la.Problem)
    stage = la.frozen_stage(
        world.problem, start, local_steps=spec.local_steps, local_lr=world.local_lr
    )
    return stage.floor if stage.stable else float("inf")


def _forked(
    spec: SecondStageSpec, world: World, start: la.Params, stage: str, length: int
) -> tuple[dict[str, Array], float]:
    """History of the second stage from the recorded warm-up, and test accuracy at its end."""
    result = train(
        la.fed_frozen(warmup_rounds=length, frozen=stage),
        world,
        spec,
        params=start,
        start_round=length,
        metrics=("gap", "floats_up", "floats_down"),
    )
    return result.columns, share_right(world, result.client_params)
