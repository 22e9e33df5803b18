"""FedTP: a hypernetwork on the server makes every client's attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from linattn._checks import as_float64, one_of, positive_int
from linattn._settings import StepSize, step_at, step_schedule
from linattn._typing import Array, BoolArray
from linattn.federated.method import Method, Plan, Proposal, RoundContext, average
from linattn.federated.methods.averaging import check_momentum
from linattn.federated.methods.hypernetwork import Hypernetwork, draw_embeddings, make_hypernetwork
from linattn.federated.methods.personal import check_blocks, matching_blocks
from linattn.federated.nature import Nature
from linattn.federated.result import Result

HYPERNETWORKS = ("linear", "mlp")


class TransformerMemory(NamedTuple):
    """Server memory: what is generated, the hypernetwork, and the velocity of its momentum."""

    blocks: tuple[str, ...]
    network: Hypernetwork
    velocity: Hypernetwork


def fed_tp(
    *,
    hypernetwork: str = "linear",
    embedding_dim: int | None = None,
    blocks: Sequence[str] = ("query", "key"),
    server_lr: StepSize,
    server_momentum: float = 0.0,
    bias: bool = True,
    train_embeddings: bool = True,
    embeddings: Any = None,
    hidden_dim: int = 32,
) -> Method:
    """Return FedTP: client i's attention blocks are W_i = h(φ; z_i), made on the server.

        client: all of (W_i, ξ) takes local steps and becomes (Ŵ_i, ξ_i)
        server: ξ ← Σ_S w_i ξ_i,   (φ, z) ← (φ, z) − η_h Σ_S w_i (∂h(z_i)/∂(φ, z))ᵀ(W_i − Ŵ_i)

    A client's model is (h(φ; z_i), ξ): ``result.client_params`` and `personal_objective`. In
    ``result.params`` the generated blocks are the mean Σ p_i h(z_i). The run starts with every
    W_i at the given parameters where the hypernetwork can (`make_hypernetwork`).

    Parameters
    ----------
    hypernetwork : {"linear", "mlp"}
        h(z) = Bz + b, or one hidden layer of ReLU.
    embedding_dim : int
        e; may be left out if embeddings are given.
    blocks : sequence of str
        Generated blocks, in full or by the last part of their name; all others are ξ.
    server_lr : float, array or callable (round) -> float
        η_h > 0.
    server_momentum : float
        β in [0, 1), of φ and z together, so absent clients' embeddings coast.
    bias : bool
        Whether h has biases.
    train_embeddings : bool
    embeddings : array, shape (C, e), optional
        z; default entries N(0, 1/e) from the stream (seed, "embedding", client).
    hidden_dim : int
        Width of the hidden layer.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range or the embeddings are not (C, embedding_dim); at the first
        round if a name matches no block or C is not the number of clients.

    Notes
    -----
    Source: FedTP (arXiv 2211.01572), and its code for the update. A linear h gives
    W_i⁺ = W_i + η_h Σ_j w_j ⟨z_i, z_j⟩(Ŵ_j − W_j) (plus the motion of z): the Gram matrix of the
    embeddings is the collaboration graph, orthogonal embeddings are local attention and equal ones
    FedAvg. Cost: the server's share is not in `multiply_adds`, which counts clients.
    """
    one_of("hypernetwork", hypernetwork, HYPERNETWORKS)
    given, size = _check_embeddings(embeddings, embedding_dim)
    names, biased = check_blocks(blocks), bool(bias)
    width = positive_int("hidden_dim", hidden_dim) if hypernetwork == "mlp" else 0
    parts = ["hidden", "head"]
    parts += ["hidden_bias", "head_bias"] if biased else []
    parts += ["embeddings"] if train_embeddings else []

    def begin(context: RoundContext) -> TransformerMemory:
        chosen = matching_blocks(context.params.layout, names)
        rows = _client_embeddings(context, given, size)
        target = context.params.flat[context.params.layout.mask(chosen)]
        network = make_hypernetwork(rows, target, hidden_dim=width, bias=biased, seed=context.seed)
        return TransformerMemory(tuple(sorted(chosen)), network, network.only(()))

    return _method(f"fed_tp({hypernetwork})", begin, parts, server_lr, server_momentum)


def fed_tp_newcomers(
    result: Result, *, server_lr: StepSize, server_momentum: float = 0.0
) -> Method:
    """Return the method by which new clients join FedTP through their embeddings alone.

        z_i ← z_i − η_h (∂h(z_i)/∂z_i)ᵀ(W_i − Ŵ_i),   φ and ξ stay

    Run it on the problem of the new clients, from ``result.params``. Every embedding starts at the
    mean of the trained ones; clients do not influence each other.

    Parameters
    ----------
    result : Result
        Of a run of `fed_tp`.
    server_lr : float, array or callable (round) -> float
        η_h > 0.
    server_momentum : float
        β in [0, 1).

    Raises
    ------
    TypeError, ValueError
        If the result is not that of `fed_tp` or an argument is out of range.

    Notes
    -----
    Source: FedTP (arXiv 2211.01572), new clients. Cost: generated blocks down, their change up.
    """
    trained = getattr(getattr(result, "memory", None), "server", None)
    if not isinstance(trained, TransformerMemory):
        raise TypeError(f"result must be that of a fed_tp run, got {result!r}.")

    def begin(context: RoundContext) -> TransformerMemory:
        mean = trained.network.embeddings.mean(axis=0)
        rows = np.tile(mean, (context.oracle.num_clients, 1))
        network = trained.network._replace(embeddings=rows)
        return trained._replace(network=network, velocity=network.only(()))

    return _method(
        "fed_tp_newcomers", begin, ["embeddings"], server_lr, server_momentum, alone=True
    )


def _method(
    name: str,
    begin: Callable[[RoundContext], TransformerMemory],
    parts: Sequence[str],
    server_lr: StepSize,
    server_momentum: float,
    *,
    alone: bool = False,
) -> Method:
    """The method whose server learns some parts of the hypernetwork.

    Clients that are `alone` train what is made for them, and nothing is averaged.
    """
    step, beta = step_schedule("server_lr", server_lr), check_momentum(server_momentum)

    def plan(context: RoundContext, memory: TransformerMemory) -> Plan:
        generated = frozenset(memory.blocks)
        trained = generated if alone else frozenset(context.params.layout.names)
        return Plan(trained, context.local_lr, generated=generated)

    def aggregate(
        context: RoundContext, memory: TransformerMemory, proposal: Proposal
    ) -> tuple[Array, TransformerMemory]:
        """v ← βv + Σ_i (∂h(z_i)/∂·)ᵀ moves_i, then a step along −v."""
        weights = np.ones(len(context.participants)) if alone else context.weights
        gradient = memory.network.pull_back(_moves(context, memory, proposal, weights)).only(parts)
        velocity = gradient.plus(memory.velocity, beta)
        network = memory.network.plus(velocity, -step_at(step, context.round))
        flat = average(context, proposal)
        # In the generated blocks the mean Σ p_i h(z_i).
        flat[_mask(context, memory)] = context.problem.weights @ network.generate()
        return flat, memory._replace(network=network, velocity=velocity)

    return Method(
        name,
        plan=plan,
        server_memory=begin,
        start=_own_model,
        personal=_own_model,
        aggregate=aggregate,
        declared=Nature(personal=True, memory=True, server_step=True),
    )


def _check_embeddings(embeddings: Any, embedding_dim: int | None) -> tuple[Array | None, int]:
    """The given embeddings and their size."""
    if embeddings is None:
        return None, positive_int("embedding_dim", embedding_dim)
    rows = as_float64("embeddings", embeddings, ndim=2)
    size = rows.shape[1] if embedding_dim is None else positive_int("embedding_dim", embedding_dim)
    if rows.shape[1] != size:
        raise ValueError(f"embeddings must have {size} columns, got {rows.shape[1]}.")
    return rows, size


def _client_embeddings(context: RoundContext, given: Array | None, size: int) -> Array:
    """z of all clients, (C, e)."""
    clients = context.oracle.num_clients
    if given is None:
        return draw_embeddings(clients, size, context.seed)
    if len(given) != clients:
        raise ValueError(f"embeddings must have {clients} rows, one per client, got {len(given)}.")
    return given


def _mask(context: RoundContext, memory: TransformerMemory) -> BoolArray:
    """Which entries are generated."""
    return context.params.layout.mask(memory.blocks)


def _own_model(context: RoundContext, client: int, memory: TransformerMemory, own: object) -> Array:
    """(h(z_i), ξ)."""
    flat = context.params.flat.copy()
    flat[_mask(context, memory)] = memory.network.generate()[client]
    return flat


def _moves(
    context: RoundContext, memory: TransformerMemory, proposal: Proposal, weights: Array
) -> Array:
    """weights_i (W_i − Ŵ_i) in the rows of the participants, zero in all others, (C, G)."""
    made = memory.network.generate()
    out, who = np.zeros_like(made), context.participants
    out[who] = weights[:, None] * (made[who] - proposal.ends[:, _mask(context, memory)])
    return out
