"""FedTP, local and averaged attention, judged on fresh sequences of every client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

import linattn as la
from linattn.experiments.jobs.common import along, single
from linattn.experiments.jobs.worlds import Clients, make_world, synthetic_clients, train
from linattn.experiments.method_specs import PersonalAttentionSpec

if TYPE_CHECKING:
    import xarray as xr

UNITS = {"train_objective": "loss", "test_loss": "loss"}


def run(spec: PersonalAttentionSpec) -> xr.Dataset:
    """Return what every method's clients end with.

    Dimension: `method`. ``test_loss``: mean loss without ridges of the models that clients use, on
    `test_sequences` fresh sequences of their own; ``train_objective``: Σ p_i F_i at them.
    ``kernel_spread``: relative spread (Σp‖B_i − B̄‖²)^½/‖B̄‖ of the kernels that clients with local
    attention end with under one shared value block, which fixes their scale.
    """
    import xarray as xr

    world = make_world(spec)
    count = spec.test_sequences
    larger = msgspec.structs.replace(spec.problem, sequences_per_client=count)
    tests = synthetic_clients(larger, seed=spec.seed, fresh=True)
    rows, spread = [], float("nan")
    methods = build(spec, tuple(world.params.layout.kernel_blocks))
    for name, method in methods.items():
        result = train(method, world, spec, metrics=("personal_objective",))
        diverged = result.outcome.status == "diverged"
        rows.append(
            {
                "train_objective": float(result.columns["personal_objective"][-1]),
                "test_loss": np.nan if diverged else _test_loss(spec, result.client_params, tests),
                "diverged": diverged,
            }
        )
        if name == "local_attention":
            spread = _kernel_spread(result.client_params, world.problem.weights)
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
