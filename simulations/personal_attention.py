"""FedTP against local and averaged attention as clients need different kernels.

Run ``python simulations/personal_attention.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

import linattn as la
from linattn._fields import Count, Positive
from linattn.data.worlds import Clients, ProblemSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import KERNEL, SMALL, WorldSpec
from linattn.experiments.tables import along, single

if TYPE_CHECKING:
    import xarray as xr

UNITS = {"train_objective": "loss", "test_loss": "loss"}


class PersonalAttentionSpec(WorldSpec):
    """FedTP, local attention and averaged attention on fresh sequences of every client."""

    test_sequences: Count = 64
    embedding_dim: Count = 8
    server_lr: Positive = 2.0
    tuning_steps: Count = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data != "synthetic" or self.deep:
            raise ValueError("personal_attention is about the single layer on synthetic data.")


def run(spec: PersonalAttentionSpec) -> xr.Dataset:
    """Return what every method's clients end with, each at its best step on the training data.

    Dimension: `method`. ``test_loss``: mean loss without ridges of the models that clients use, on
    `test_sequences` fresh sequences of their own; ``train_objective``: Σ p_i F_i at them.
    ``factor`` of the unit step, and whether it is ``interior``. ``kernel_spread``: relative spread
    (Σp‖B_i − B̄‖²)^½/‖B̄‖ of the kernels that clients with local attention end with under one shared
    value block, which fixes their scale.
    """
    import xarray as xr

    world = spec.world()
    count = spec.test_sequences
    larger = msgspec.structs.replace(spec.problem, sequences_per_client=count)
    tests = larger.clients(spec.seed, fresh=True)
    rows, spread = [], float("nan")
    methods = build(spec, tuple(world.params.layout.kernel_blocks))
    found = spec.tuned_in_turn(methods.values(), world)
    for name, tuned in zip(methods, found, strict=True):
        models = tuned.found.client_params
        completed = np.isfinite(tuned.loss)
        loss = _test_loss(spec, models, tests) if completed else np.nan
        rows.append({"train_objective": tuned.loss, "test_loss": loss, **tuned.said()})
        if name == "local_attention":
            spread = _kernel_spread(models, world.problem.weights)
    data: dict[str, Any] = dict(along("method", rows, UNITS))
    return xr.Dataset(data | single({"kernel_spread": spread}, {}), {"method": list(methods)})


def build(spec: PersonalAttentionSpec, kernel: tuple[str, ...]) -> dict[str, la.Method]:
    """Averaged attention, also as fast as FedTP and fine-tuned; local; FedTP linear and MLP."""
    made = {
        "fed_avg": la.fed_avg(),
        # A linear hypernetwork with bias moves what clients share by η_h times their mean move;
        # momentum 1 − 1/η_h does the same to FedAvg, so speed is not mistaken for personalization.
        "fed_avg_momentum": la.fed_avg(server_momentum=max(0.0, 1.0 - 1.0 / spec.server_lr)),
        "fine_tuned": la.fine_tuned(steps=spec.tuning_steps),
        "local_attention": la.local_attention(blocks=kernel),
    }
    for network in ("linear", "mlp"):
        made[f"fed_tp_{network}"] = la.fed_tp(
            hypernetwork=network,
            embedding_dim=spec.embedding_dim,
            blocks=kernel,
            server_lr=spec.server_lr if network == "linear" else 0.5 * spec.server_lr,
        )
    return made


def _test_loss(spec: PersonalAttentionSpec, models: Sequence[la.Params], tests: Clients) -> float:
    """Mean over clients of the loss of their model on their own fresh sequences."""
    losses = [
        la.loss(model, tokens, targets, readout=spec.problem.readout)
        for model, (tokens, targets) in zip(models, tests, strict=True)
    ]
    return float(np.mean(losses))


def _kernel_spread(models: Sequence[la.Params], weights: Any) -> float:
    kernels = np.stack([model.kernels().reshape(-1) for model in models])
    mean = weights @ kernels
    return float(np.sqrt(weights @ np.sum((kernels - mean) ** 2, axis=1)) / np.linalg.norm(mean))


FEW = ProblemSpec(sequences_per_client=8)
SIMULATION = Simulation(
    PersonalAttentionSpec,
    run,
    version=2,
    presets={
        "paper": [Grid(
            PersonalAttentionSpec(rounds=200, most_rounds=200, test_sequences=256,
                                  problem=ProblemSpec()),
            {"problem.sequences_per_client": [8, 64], KERNEL: [0.0, 0.2, 0.5, 1.0],
             "seed": range(10)},
        )],
        "quick": [Grid(PersonalAttentionSpec(problem=FEW, factors=(0.1, 0.3, 1.0)),
                       {KERNEL: [0.0, 0.5, 1.0], "seed": range(2)})],
        "tiny": [Grid(PersonalAttentionSpec(rounds=5, most_rounds=5, local_steps=2,
                                            factors=(0.3, 1.0), test_sequences=6, problem=SMALL),
                      {KERNEL: [0.0, 0.5], "seed": range(2)})],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
