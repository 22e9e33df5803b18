"""FedPart: rounds that train one group of blocks at a time."""

from __future__ import annotations

import numpy as np

from linattn._checks import one_of, positive_int, real
from linattn.federated.method import Method, Plan, RoundContext, train_everything
from linattn.streams import stream
from linattn.types import Layout

GROUPS = ("block", "layer", "kernel_value")
ORDERS = ("sequential", "reverse", "random")


def fed_part(
    *,
    groups: str | int = "block",
    initial_rounds: int,
    rounds_per_group: int,
    order: str = "sequential",
    repeat_initial: bool = True,
) -> Method:
    """Return FedPart: W rounds on everything, then R rounds on each group of blocks, and again.

    Parameters
    ----------
    groups : {"block", "layer", "kernel_value"} or int
        ``"block"``: every block alone. ``"layer"``: all blocks of a layer, and the readout alone;
        a single layer is one group. ``"kernel_value"``: per layer its kernel blocks, then its value
        blocks, with the readout in the last group. An integer M: the blocks in storage order cut
        into M runs of nearly equal length.
    initial_rounds : int
        W ≥ 0.
    rounds_per_group : int
        R ≥ 1.
    order : {"sequential", "reverse", "random"}
        Of the groups, from the first layer up; random is drawn anew in every cycle from the stream
        (seed, "fed_part order", cycle).
    repeat_initial : bool
        Whether the W full rounds come before every cycle, as in the public code, or once.

    Raises
    ------
    ValueError
        If an argument is out of range; at the first round if M exceeds the number of blocks.

    Notes
    -----
    Source: FedPart (arXiv 2410.11559). All participants train the same group. Groups share blocks
    with nobody, so whatever a round does not train stays exactly. Cost: a group's blocks up, what
    has changed since the client's last round down.
    """
    if isinstance(groups, str):
        one_of("groups", groups, GROUPS)
    else:
        groups = positive_int("groups", groups)
    initial = positive_int("initial_rounds", initial_rounds, minimum=0)
    per_group = positive_int("rounds_per_group", rounds_per_group)
    one_of("order", order, ORDERS)

    def plan(context: RoundContext, memory: object) -> Plan:
        held = part_groups(context.params.layout, groups)
        cycle, place = _place(context.round, initial, per_group * len(held), repeat_initial)
        if place < 0:
            return train_everything(context, memory)
        chosen = _ordered(order, len(held), context.seed, cycle)[place // per_group]
        return Plan(held[chosen], context.local_lr)

    return Method(f"fed_part({groups})", plan=plan)


def part_groups(layout: Layout, groups: str | int) -> list[frozenset[str]]:
    """Return the groups of blocks that `fed_part` trains, in storage order; see there.

    Raises
    ------
    ValueError
        If there are more groups than blocks.
    """
    if isinstance(groups, int):
        if groups > len(layout.names):
            raise ValueError(
                f"groups must be at most {len(layout.names)}, the number of blocks, got {groups}."
            )
        cuts = np.array_split(np.arange(len(layout.names)), groups)
        return [frozenset(layout.names[k] for k in part) for part in cuts]
    if groups == "block":
        return [frozenset({name}) for name in layout.names]
    layers: dict[str, set[str]] = {}
    for name in layout.names:
        layers.setdefault(name.rpartition(".")[0], set()).add(name)
    if groups == "layer":
        return [frozenset(names) for names in layers.values()]
    out: list[frozenset[str]] = []
    for names in layers.values():
        kernel = layout.kernel_blocks & names
        if kernel:
            out += [kernel, frozenset(names - kernel)]
        else:  # the readout
            out[-1] |= names
    return out


def _place(t: int, initial: int, partial: int, repeat: bool) -> tuple[int, int]:
    """Cycle and place among its partial rounds, negative in a full round."""
    if repeat:
        cycle, place = divmod(t, initial + partial)
        return cycle, place - initial
    if t < initial:
        return 0, -1
    return divmod(t - initial, partial)


def _ordered(order: str, count: int, seed: int, cycle: int) -> list[int]:
    """Group numbers in the order of a cycle."""
    if order == "random":
        drawn: list[int] = stream(seed, "fed_part order", cycle).permutation(count).tolist()
        return drawn
    return list(range(count)) if order == "sequential" else list(range(count))[::-1]


def fed_part_cost(
    *,
    backward_fraction: float,
    num_groups: int = 10,
    initial_rounds: int = 5,
    rounds_per_group: int = 2,
) -> float:
    """Return the paper's cost model of a cycle's computation relative to full rounds.

        (W + M R c) / (W + M R)

    It is bookkeeping, not a measurement: a partial round is taken to cost the share c of a full one
    whatever its group. The multiply-adds of a run are in its history instead.

    Parameters
    ----------
    backward_fraction : float
        c in (0, 1]; the paper's figure is c = 2/3 (a forward pass of cost 1 and half of a backward
        pass of cost 2).
    num_groups, initial_rounds, rounds_per_group : int
        M, W, R; by default those of its ResNet-8.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Source: FedPart (arXiv 2410.11559), cost tables; c = 2/3 is inferred from their ratios.
    Cost: none.

    Examples
    --------
    >>> round(fed_part_cost(backward_fraction=2 / 3), 3)
    0.733
    """
    share = real("backward_fraction", backward_fraction, above=0.0, maximum=1.0)
    initial = positive_int("initial_rounds", initial_rounds, minimum=0)
    partial = positive_int("num_groups", num_groups) * positive_int(
        "rounds_per_group", rounds_per_group
    )
    return (initial + partial * share) / (initial + partial)
