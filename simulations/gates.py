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
from linattn.data.worlds import ModelSpec, World
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import FEW_CLIENTS, FEW_SEQUENCES, SMALL, WorldSpec, increasing
from linattn.experiments.tables import padded, single
from linattn.experiments.tuning import near
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
    parameters after `pretraining` rounds, FedSQ with the gates of those, each at its best step;
    ``factor`` is that of FedAvg from the start.
    """
    import xarray as xr

    world = spec.world()
    parts: dict[str, list[float]] = {"mismatch": [], "multilinear": [], "gate_flip": []}

    def observe(context: la.RoundContext, proposal: Proposal) -> None:
        for name, value in mismatch_parts(context, proposal).items():
            parts[name].append(value)

    best = spec.tuned(la.fed_avg(), world)
    warm = spec.train(
        la.fed_avg(), world, observe=observe, record_params=True, metrics=("objective",),
        local_lr=best.factor * world.local_lr,
    )  # fmt: skip
    length = spec.rounds + 1
    gates, weights = distances(world, warm.path)
    rows = {name: np.array([np.nan, *values]) for name, values in parts.items()}
    rows |= {"gate_distance": gates, "weight_distance": weights}
    data: dict[str, Any] = {
        name: ("round", padded(row, length), {"units": "1"}) for name, row in rows.items()
    }
    for name in ("fed_avg", "fed_sq"):
        curves = []
        for rounds in spec.pretraining:
            start = warm.path[min(rounds, len(warm.path) - 1)]
            method = la.fed_sq(structural=start) if name == "fed_sq" else la.fed_avg()
            tuned = spec.tuned(method, world, params=start, factors=near(best.factor))
            curves.append(padded(tuned.found.columns["objective"], length))
        data[name] = (("pretraining", "round"), np.stack(curves), {"units": "loss"})
    data |= single({"factor": best.factor}, {})
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


SIMULATION = Simulation(
    GatesSpec,
    run,
    presets={
        "paper": [Grid(GatesSpec(rounds=100, most_rounds=100, problem=FEW_SEQUENCES,
                                 pretraining=(0, 5, 20)),
                       {"seed": range(10)})],
        "quick": [Grid(GatesSpec(rounds=8, most_rounds=8, local_steps=4, factors=(3.0, 10.0, 30.0),
                                 problem=FEW_CLIENTS, pretraining=(0, 4)), {"seed": range(2)})],
        "tiny": [Grid(GatesSpec(rounds=4, most_rounds=4, local_steps=2, factors=(10.0, 30.0),
                                pretraining=(0, 2), model=ModelSpec(inner_dim=2), problem=SMALL),
                      {"seed": range(2)})],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
