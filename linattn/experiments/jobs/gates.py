"""ReLU gates along training, the gate-flip part of the mismatch, and FedSQ after pre-training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._typing import Array
from linattn.experiments.jobs.worlds import World, make_world, output_mismatch, padded, train
from linattn.experiments.method_specs import GatesSpec
from linattn.federated.method import Proposal

if TYPE_CHECKING:
    import xarray as xr


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

    world = make_world(spec)
    parts: dict[str, list[float]] = {"mismatch": [], "multilinear": [], "gate_flip": []}

    def observe(context: la.RoundContext, proposal: Proposal) -> None:
        for name, value in mismatch_parts(context, proposal).items():
            parts[name].append(value)

    warm = train(
        la.fed_avg(), world, spec, observe=observe, record_params=True, metrics=("objective",)
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
    result = train(method, world, spec, params=start, metrics=("objective",))
    return padded(result.columns["objective"], spec.rounds + 1)
