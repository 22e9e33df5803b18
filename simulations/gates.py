"""FedSQ's premise and promise: gates settle before weights, fixed gates remove gate flips.

Run ``python simulations/gates.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._fields import Index
from linattn._typing import Array
from linattn.analysis.outputs import output_mismatch
from linattn.data.worlds import ModelSpec, ProblemSpec, World
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import (
    WorldSpec,
    increasing,
)
from linattn.experiments.tables import (
    padded,
)
from linattn.federated.method import Proposal

if TYPE_CHECKING:
    import xarray as xr


class GatesSpec(WorldSpec):
    """ReLU gates along training, and FedSQ after pre-training of each of `pretraining` rounds."""

    deep: bool = True
    pretraining: tuple[Index, ...] = (0, 5, 20)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.deep or self.model.feature_map != "relu":
            raise ValueError("gates need a deep model with feature_map 'relu'.")
        increasing("pretraining", self.pretraining, most=self.rounds)


def run(spec: GatesSpec) -> xr.Dataset:
    """Return the stabilization of gates, the parts of the mismatch, and FedSQ beside FedAvg.

    Dimensions: `round` = 0..rounds; `pretraining`. ``gate_distance``: share of gates that differ
    from the last round's, relative to round 0; ``weight_distance``: the same for ‖w − w_R‖.
    ``mismatch`` of FedAvg's outputs in every round, relative, and its parts: ``multilinear``, the
    mismatch under the gates of the model that the round sent down, and ``gate_flip``, the norm of
    the rest. ``fed_avg`` and ``fed_sq``: objective along rounds when both start from FedAvg's
    parameters after `pretraining` rounds, FedSQ with the gates of those.
    """
    import xarray as xr

    world = spec.world()
    parts: dict[str, list[float]] = {"mismatch": [], "multilinear": [], "gate_flip": []}

    def observe(context: la.RoundContext, proposal: Proposal) -> None:
        for name, value in mismatch_parts(context, proposal).items():
            parts[name].append(value)

    warm = spec.train(
        la.fed_avg(), world, observe=observe, record_params=True, metrics=("objective",)
    )
    length = spec.rounds + 1
    data: dict[str, Any] = {
        name: ("round", padded(np.array([np.nan, *values]), length), {"units": "1"})
        for name, values in parts.items()
    }
    gates, weights = distances(world, warm.path)
    data["gate_distance"] = ("round", padded(gates, length), {"units": "1"})
    data["weight_distance"] = ("round", padded(weights, length), {"units": "1"})
    for name in ("fed_avg", "fed_sq"):
        curves = [_after(spec, world, warm.path[min(t, len(warm.path) - 1)], name)
                  for t in spec.pretraining]  # fmt: skip
        data[name] = (("pretraining", "round"), np.stack(curves), {"units": "loss"})
    return xr.Dataset(data, {"round": np.arange(length), "pretraining": list(spec.pretraining)})


def mismatch_parts(context: la.RoundContext, proposal: Proposal) -> dict[str, float]:
    """Norms of the output mismatch, of its part under fixed gates, and of the rest, relative."""
    models = [la.Params(context.params.layout, end) for end in proposal.ends]
    fixed = context.oracle.with_gates(context.params)
    problem, weights = context.problem, context.weights
    total, scale = output_mismatch(context.oracle, problem, models, weights)
    multilinear, _ = output_mismatch(fixed, problem, models, weights)
    return {
        "mismatch": float(np.linalg.norm(total)) / scale,
        "multilinear": float(np.linalg.norm(multilinear)) / scale,
        "gate_flip": float(np.linalg.norm(total - multilinear)) / scale,
    }


def distances(world: World, path: list[la.Params]) -> tuple[Array, Array]:
    """Distance of gates and of weights to those of the last round, relative to the first."""
    problem = world.problem
    assert isinstance(problem, la.DeepProblem)
    opened = [
        np.concatenate(
            [problem.model.open_gates(problem.model.trace(p.flat, g.tokens)).reshape(-1)
             for g in problem.groups]
        )
        for p in path
    ]  # fmt: skip
    gates = np.array([np.mean(held != opened[-1]) for held in opened])
    weights = np.array([np.linalg.norm(p.flat - path[-1].flat) for p in path])
    return gates / max(gates[0], 1e-300), weights / max(weights[0], 1e-300)


def _after(spec: GatesSpec, world: World, start: la.Params, name: str) -> Array:
    """Objective along the rounds of a method from pre-trained parameters."""
    method = la.fed_avg() if name == "fed_avg" else la.fed_sq(structural=start)
    result = spec.train(method, world, params=start, metrics=("objective",))
    return padded(result.columns["objective"], spec.rounds + 1)


SMALL = ProblemSpec(
    num_clients=4, sequences_per_client=16, value_heterogeneity=0.75, covariate_heterogeneity=0.3
)


SIMULATION = Simulation(
    GatesSpec,
    run,
    presets={
        "paper": [
            Grid(
                GatesSpec(rounds=200, local_lr=0.02, pretraining=(0, 5, 20, 50, 100)),
                {"seed": range(10), "problem.value_heterogeneity": [0.0, 0.75]},
            ),
        ],
        "quick": [
            Grid(
                GatesSpec(rounds=16, local_steps=3, problem=SMALL, pretraining=(0, 16)),
                {"seed": range(2)},
            ),
        ],
        "tiny": [
            Grid(
                GatesSpec(
                    rounds=4,
                    local_steps=2,
                    pretraining=(0, 2),
                    model=ModelSpec(inner_dim=2),
                    problem=ProblemSpec(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3),
                ),
                {"seed": range(2)},
            ),
        ],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
