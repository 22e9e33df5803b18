"""FedAvg, FedProx, SCAFFOLD, FedAdam and FedFrozen as Flower apps around the gradients of here.

Server loop, messages, aggregation and averaging are Flower's; a grid of one process stands between
its strategies and a client app whose local steps are written out. Nodes are numbered from one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx
from flwr.supercore.task_identity import TaskIdentity

from linattn.federated.rounds import draw_batches, draw_participants
from linattn.federated.settings import Sampling
from linattn.oracles.protocol import oracle_of
from linattn.streams import stream
from linattn.types import Layout, Params, Problem

__all__ = ["FedAdam", "FedAvg", "FedFrozen", "FedProx", "PublishedFedAdam", "Scaffold", "run"]

# No federated evaluation, and a round waits for nobody: who takes part is who is online.
ONLINE = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
CONTROL, CHANGE = "control.", "change."

logging.getLogger("flwr").setLevel(logging.ERROR)


class Work(NamedTuple):
    """What clients do in a round, whatever the strategy."""

    local_steps: int
    local_lr: float
    batch_size: int | None = None
    participation: float = 1.0
    seed: int = 0


def to_arrays(params: Params) -> dict[str, Any]:
    """Parameters by block."""
    return {name: params[name] for name in params.layout.names}


def flat_of(layout: Layout, arrays: ArrayRecord, prefix: str = "") -> Any:
    """Blocks of a record as one vector (D,), zero where it has none."""
    flat = np.zeros(layout.size)
    for name, part in layout.slices.items():
        if prefix + name in arrays:
            flat[part] = arrays[prefix + name].numpy().ravel()
    return flat


def record_of(
    layout: Layout, flat: Any, names: Iterable[str] | None = None, prefix: str = ""
) -> dict[str, Array]:
    """Some blocks of a vector (D,), all by default, as arrays of Flower."""
    chosen = layout.names if names is None else names
    blocks = to_arrays(Params(layout, flat))
    return {prefix + name: Array(blocks[name]) for name in chosen}


def client_app(problem: Problem, params: Params, work: Work) -> ClientApp:
    """Return an app whose node i trains client i: E gradient steps, and what a strategy adds."""
    app, layout, oracle = ClientApp(), params.layout, oracle_of(problem, params)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client, config = int(context.node_config["client"]), message.content["config"]
        arrays, t = message.content["arrays"], int(config["server-round"]) - 1
        names = list(config.get("trained", layout.names))
        anchor = flat_of(layout, arrays)
        batches: Any = [None] * work.local_steps
        if work.batch_size is not None:
            generator = stream(work.seed, "batch", client, t)
            limit = oracle.batch_limit(client)
            batches = draw_batches(limit, work.batch_size, work.local_steps, generator)
        own = context.state.get("variate", ArrayRecord({}))
        variate = flat_of(layout, own)
        control = flat_of(layout, arrays, CONTROL)
        prox, mask = float(config.get("proximal-mu", 0.0)), layout.mask(frozenset(names))
        end = anchor.copy()
        for batch in batches:
            slope = oracle.gradient(client, end, batch)
            slope += prox * (end - anchor) + control - variate
            end -= work.local_lr * np.where(mask, slope, 0.0)
        reply = record_of(layout, end, names)
        if any(key.startswith(CONTROL) for key in arrays):
            new = variate - control + (anchor - end) / (work.local_steps * work.local_lr)
            context.state["variate"] = ArrayRecord(record_of(layout, new))
            reply |= record_of(layout, new - variate, prefix=CHANGE)
        weight = MetricRecord({"num-examples": float(problem.weights[client])})
        return Message(
            RecordDict({"arrays": ArrayRecord(reply), "metrics": weight}), reply_to=message
        )

    return app


class OneProcess:
    """A grid without a network: online are the participants of the round."""

    def __init__(self, app: ClientApp, problem: Problem, work: Work) -> None:
        self.app, self.work, self.weights = app, work, problem.weights
        self.round = 0
        self.floats_up: list[int] = []
        # Messages carry who wrote them; their own runtime would say so.
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
        self.contexts = [
            Context(0, i + 1, {"client": i}, RecordDict({}), {})
            for i in range(len(problem.weights))
        ]

    def get_node_ids(self) -> list[int]:
        sampling, seed = Sampling(self.work.participation), self.work.seed
        drawn, _ = draw_participants(self.weights, sampling, seed=seed, t=self.round)
        return [i + 1 for i in drawn.tolist()]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        asked = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        if not asked:  # no evaluation
            return []
        replies = [self.app(m, self.contexts[m.metadata.dst_node_id - 1]) for m in asked]
        self.round += 1
        sent = [array for m in replies for array in m.content["arrays"].values()]
        self.floats_up.append(sum(array.numpy().size for array in sent))
        return replies


class FedFrozen(FedAvg):
    """Everything trains in the first rounds, then some blocks only, and only they are sent up."""

    def __init__(self, warmup_rounds: int, trained: Iterable[str], **options: Any) -> None:
        super().__init__(**options)
        self.warmup_rounds, self.trained = warmup_rounds, sorted(trained)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        self.current = arrays
        if server_round > self.warmup_rounds:
            config["trained"] = self.trained
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[Any, Any]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        return ArrayRecord({**self.current, **arrays}), metrics


class Scaffold(FedAvg):
    """Control variates, option 2: c goes down with the parameters, changes of c_i come up."""

    def __init__(self, layout: Layout, *, server_lr: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.layout, self.server_lr = layout, server_lr
        self.control = np.zeros(layout.size)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        self.current = flat_of(self.layout, arrays)
        control = record_of(self.layout, self.control, prefix=CONTROL)
        sent = ArrayRecord({**arrays, **control})
        return super().configure_train(server_round, sent, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[Any, Any]:
        held = list(replies)
        arrays, metrics = super().aggregate_train(server_round, held)
        share = sum(m.content["metrics"]["num-examples"] for m in held)  # Σ_S p_i
        self.control = self.control + share * flat_of(self.layout, arrays, CHANGE)
        move = flat_of(self.layout, arrays) - self.current
        moved = self.current + self.server_lr * move
        return ArrayRecord(record_of(self.layout, moved)), metrics


class PublishedFedAdam(FedAdam):
    """FedAdam as published: v begins at τ², and steps are not corrected for the bias of m and v."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.server_lr = self.eta

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[Any, Any]:
        if not self.v_t:
            start = self.current_arrays or {}
            self.v_t = {name: np.full_like(array, self.tau**2) for name, array in start.items()}
        first, second = (1.0 - beta ** (server_round + 1.0) for beta in (self.beta_1, self.beta_2))
        self.eta = self.server_lr * first / np.sqrt(second)
        return super().aggregate_train(server_round, replies)


def run(
    strategy: FedAvg, problem: Problem, params: Params, *, rounds: int, work: Work
) -> tuple[Any, OneProcess]:
    """Return the parameters (D,) after some rounds of a strategy's own loop, and its grid."""
    grid = OneProcess(client_app(problem, params, work), problem, work)
    start = ArrayRecord(record_of(params.layout, params.flat))
    result = strategy.start(grid=grid, initial_arrays=start, num_rounds=rounds)
    return flat_of(params.layout, result.arrays), grid
