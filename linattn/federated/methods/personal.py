"""Personal models without a server that makes them: local attention, FedAvg with fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linattn._checks import positive_int, real, shown
from linattn._typing import Array, BoolArray
from linattn.federated.method import Method, RoundContext, train_everything
from linattn.federated.nature import Nature
from linattn.oracles.protocol import LocalTask
from linattn.types import Layout


def matching_blocks(layout: Layout, blocks: Sequence[str]) -> frozenset[str]:
    """Return the blocks named in full or by the last part of their name ("query": all layers).

    Raises
    ------
    ValueError
        If a name matches no block.
    """
    found: set[str] = set()
    for wanted in blocks:
        held = {n for n in layout.names if wanted in (n, n.rpartition(".")[2])}
        if not held:
            raise ValueError(
                f"blocks must name blocks of the parameters ({', '.join(layout.names)}), "
                f"got {wanted!r}."
            )
        found |= held
    return frozenset(found)


def check_blocks(blocks: Sequence[str]) -> tuple[str, ...]:
    """Return block names as a tuple of at least one."""
    names = (blocks,) if isinstance(blocks, str) else tuple(blocks)
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"blocks must be at least one block name, got {shown(blocks)}.")
    return names


def local_attention(*, blocks: Sequence[str] = ("query", "key")) -> Method:
    """Return purely local attention: some blocks never leave their client, all others are averaged.

    Clients remember their blocks between participations; ``result.client_params`` are their models.
    In ``result.params`` the blocks stay at the start, so its objective is that of no client: look
    at `personal_objective`.

    Parameters
    ----------
    blocks : sequence of str
        Names in full, or their last part for all layers (``"query"``; ``"kernel"`` if merged).

    Raises
    ------
    ValueError
        If no name is given; at the first round if one matches no block.

    Notes
    -----
    Source: the comparator of FedTP (arXiv 2211.01572) that keeps self-attention local. Cost: that
    of FedAvg without the traffic of the local blocks.
    """
    names = check_blocks(blocks)

    def kept(context: RoundContext) -> frozenset[str]:
        return matching_blocks(context.params.layout, names)

    def mask(context: RoundContext) -> BoolArray:
        return context.params.layout.mask(kept(context))

    def own_model(context: RoundContext, client: int, server: object, own: Array) -> Array:
        flat = context.params.flat.copy()
        flat[mask(context)] = own
        return flat

    return Method(
        f"local_attention({', '.join(names)})",
        plan=lambda context, memory: train_everything(context, memory)._replace(kept=kept(context)),
        start=own_model,
        personal=own_model,
        client_memory=lambda context, client: context.params.flat[mask(context)],
        update_client=lambda context, client, server, own, end: end[mask(context)],
        declared=Nature(personal=True, memory=True),
    )


def fine_tuned(*, steps: int, local_lr: float | None = None) -> Method:
    """Return FedAvg whose clients use the server's model after some local steps of their own.

    Training is FedAvg to the bit; fine-tuning happens when a personal model is asked for, on all
    data of the client, and is forgotten. Its work is not that of a round and is not counted.

    Parameters
    ----------
    steps : int
        Local full-batch steps, ≥ 1.
    local_lr : float, optional
        Their step size; default that of the run.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Source: the comparator *FedAvg with local fine-tuning* of personalized methods (FedTP, arXiv
    2211.01572). Cost: `steps` gradients of every client whenever personal models are evaluated.
    """
    steps = positive_int("steps", steps)
    if local_lr is not None:
        local_lr = real("local_lr", local_lr, above=0.0)

    def tuned(context: RoundContext, client: int, server: object, own: object) -> Array:
        task = LocalTask.plain(
            np.array([client]),
            context.params.flat[None].copy(),
            local_steps=steps,
            local_lr=context.local_lr if local_lr is None else local_lr,
        )
        return np.asarray(context.oracle.train(task)[0][0])

    return Method(f"fine_tuned({steps})", personal=tuned)
