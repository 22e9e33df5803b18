"""Selective layer fine-tuning: every client trains the blocks that its scores ask for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linattn._checks import is_listing, one_of, positive_int, real
from linattn._typing import Array, IntArray
from linattn.federated.method import Cost, Method, Plan, RoundContext
from linattn.federated.methods.personal import check_blocks, matching_blocks
from linattn.federated.selection import solve_selection

SCORES = ("gradient", "relative", "snr")


def selective(
    *,
    budget: int | Sequence[int],
    consistency: float = 0.0,
    scores: str = "gradient",
    always: Sequence[str] = ("readout",),
    normalize: bool = False,
) -> Method:
    """Return selective fine-tuning: clients upload scores, the server solves (P1), masks go down.

        max Σ_i Σ_l m_{i,l} n_{i,l} − λ Σ_{i<j} Σ_l (m_{i,l} − m_{j,l})²,   Σ_l m_{i,l} ≤ R_i

    Every participant trains its blocks; a block becomes the mean over those who trained it, with
    weights w_{i,l} = w_i/Σ_{j trains l} w_j, and stays where nobody did.

    Parameters
    ----------
    budget : int or sequence of int
        R, or R_i per client: number of blocks, ≥ 1; all blocks (or more) is FedAvg to the bit.
    consistency : float
        λ ≥ 0, in units of the scores.
    scores : {"gradient", "relative", "snr"}
        n_{i,l}: ‖∇_l F_i‖²; ‖∇_l F_i‖/‖w_l‖; or ‖∇_l F_i‖² over the variance of the gradient
        between the client's sequences (of which it then needs two). All at the server's
        parameters, from all data of the client.
    always : sequence of str
        Blocks, named in full, that all participants always train and that no budget counts. A
        single layer has no readout.
    normalize : bool
        Divide the scores of a round by their mean, so that λ has no units; the paper does not.

    Raises
    ------
    ValueError
        If an argument is out of range; at the first round if budgets do not match the clients.

    Notes
    -----
    Source: selective layer fine-tuning (arXiv 2408.15600), from its reviews and its code. Exact
    for small federations, else best response; see `solve_selection`. Clients do take their local
    steps and blocks are averaged over all who trained them, unlike in that code. Cost: a full
    gradient of every participant per round (every sequence's own for "snr"), L floats up and L
    down.
    """
    budgets = _check_budget(budget)
    consistency = real("consistency", consistency, minimum=0.0)
    one_of("scores", scores, SCORES)
    kept_open = frozenset(check_blocks(always) if tuple(always) else ())

    def choices(context: RoundContext) -> tuple[str, ...]:
        matching_blocks(context.params.layout, tuple(kept_open - {"readout"}))  # or refuse
        return tuple(n for n in context.params.layout.names if n not in kept_open)

    def probe(context: RoundContext, client: int, server: object, own: object) -> Array:
        return block_scores(context, client, choices(context), scores)

    def plan(context: RoundContext, memory: object) -> Plan:
        names = choices(context)
        held = np.stack(context.probes)
        if not np.isfinite(held).all():
            raise FloatingPointError("non-finite scores")
        if normalize and held.any():
            held = held / held.mean()
        masks = solve_selection(held, _budgets(budgets, context), consistency=consistency)
        common = frozenset(context.params.layout.names) - frozenset(names)
        blocks = tuple(common | {n for n, on in zip(names, m, strict=True) if on} for m in masks)
        return Plan(frozenset().union(*blocks), context.local_lr, blocks)

    def cost(context: RoundContext, client: int, server: object, own: object) -> Cost:
        names = frozenset(choices(context))
        work = context.oracle.gradient_work(names).total(*context.oracle.amount(client), 1)
        return Cost(len(names), len(names), work)

    return Method(f"selective({budget})", probe=probe, plan=plan, extra_cost=cost)


def _check_budget(budget: int | Sequence[int]) -> int | list[int]:
    if is_listing(budget):
        assert not isinstance(budget, int)
        return [positive_int(f"budget[{i}]", r) for i, r in enumerate(budget)]
    return positive_int("budget", budget)


def _budgets(budgets: int | list[int], context: RoundContext) -> IntArray:
    """R_i of the participants."""
    clients = context.oracle.num_clients
    if isinstance(budgets, int):
        return np.full(len(context.participants), budgets)
    if len(budgets) != clients:
        raise ValueError(f"budget must have {clients} entries, one per client, got {len(budgets)}.")
    return np.array(budgets)[context.participants]


def block_scores(context: RoundContext, client: int, names: tuple[str, ...], kind: str) -> Array:
    """Return the scores n_{i,l} of a client, (L,); see `selective`."""
    flat, layout = context.params.flat, context.params.layout
    parts = [layout.slices[name] for name in names]
    gradient = context.oracle.gradient(client, flat)
    squares = np.array([gradient[part] @ gradient[part] for part in parts])
    if kind == "gradient":
        return squares
    if kind == "relative":
        sizes = np.array([np.linalg.norm(flat[part]) for part in parts])
        # A block at zero ranks first, by a finite number.
        floor = 1e-12 * (np.linalg.norm(flat) or 1.0)
        return np.asarray(np.sqrt(squares) / np.maximum(sizes, floor))
    return squares / np.maximum(_variances(context, client, parts), 1e-12 * squares + 1e-300)


def _variances(context: RoundContext, client: int, parts: list[slice]) -> Array:
    """Mean over sequences of ‖g_s − ḡ‖² per block, (L,)."""
    count = context.oracle.batch_limit(client)
    if count < 2:
        raise ValueError(f"scores='snr' needs two sequences per client, client {client} has one.")
    single = [
        context.oracle.gradient(client, context.params.flat, np.array([s])) for s in range(count)
    ]
    spread = np.stack(single) - np.mean(single, axis=0)
    return np.array([np.sum(spread[:, part] ** 2) / count for part in parts])
