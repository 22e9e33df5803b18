"""Methods and settings that claims do not speak of: instances that break them, or why none does."""

from collections.abc import Callable

import linattn as la
from claim_cases.pairs import drawn, with_step
from claim_cases.table import CASES
from linattn.claims import Instance
from linattn.claims.ours.c18_response import one_head


def _frozen_part(at):
    return [name for name in at.params.layout.names if name != "value"]


def _later(at, **changes):
    """At least three rounds: in the first one memories are empty."""
    return at._replace(rounds=max(3, at.rounds), **changes)


# Deviations from averaging of plain gradient steps, with everybody and on full batches.
DEVIATIONS: dict[str, Callable[[Instance], Instance]] = {
    **{f"fed_prox {share:g}": lambda at, share=share: at._replace(
        method=la.fed_prox(prox=share / at.local_lr)) for share in (0.9, 1.9, 3.5)},
    **{f"moon {weight:g}": lambda at, weight=weight: at._replace(
        method=la.moon(weight=weight)) for weight in (1e2, 1e5)},
    "scaffold": lambda at: _later(at, method=la.scaffold()),
    "sampled scaffold": lambda at: _later(at, method=la.scaffold(), participation=0.5),
    "momentum": lambda at: _later(at, method=la.fed_avg(server_momentum=0.9)),
    "fed_adam": lambda at: _later(at, method=la.fed_adam(server_lr=0.5)),
    "fed_nova": lambda at: _later(at, method=la.fed_nova()),
    "fed_part": lambda at: _later(
        at, method=la.fed_part(groups="block", initial_rounds=0, rounds_per_group=1)),
    "fed_frozen": lambda at: _later(at, method=la.fed_frozen(warmup_rounds=1)),
    "local_attention": lambda at: _later(at, method=la.local_attention(blocks=_frozen_part(at))),
    "minibatches": lambda at: at._replace(batch_size=1),
    "sampling": lambda at: at._replace(participation=0.5),
}  # fmt: skip


def settled(index):
    """Identical clients at V*, where whatever moves is not the gradient."""
    at = drawn(index)
    at = at._replace(problem=la.pool(at.problem), rounds=2, local_steps=5)
    star = la.KernelProfile(at.problem).minimizer(at.params)
    return with_step(at._replace(params=at.params.replace(value=star)), 0.02)


def steps(index, multiple, rounds, local_steps):
    return with_step(drawn(index), multiple, rounds=rounds, local_steps=local_steps)


def alone(index):
    """One merged head, whose minimizers are isolated."""
    return one_head(drawn(index))


def short(index):
    """Two local steps: orders are fitted to runs of a hundred rounds."""
    return drawn(index, local_steps=2)


RUNS = {"C18": lambda: short(1), "C24": 0, "C23": lambda: short(1), "C24 order": lambda: short(1)}
ROUND, WORK = {"C17": 0, "C17 plain": 0}, {"C21": 0, "C21 normalized": 0}
# Of C18 settled, by deviation.
AT_REST = {"fed_prox 0.9": 0, "sampled scaffold": 6, "fed_adam": 6, "fed_part": 0,
           "local_attention": 6, "minibatches": 6, "sampling": 6}  # fmt: skip
# Deviation -> claim -> an instance that breaks it; a number is that of a drawn one.
BROKEN = {
    "fed_prox 0.9": {**ROUND, "C21": 0, "C21 normalized": 1, **RUNS, "C4": 0, "C4f": 4,
                     "C4 additive": 0, "C5 recursion": 1, "C5 contraction": 1, "C9": 0,
                     "C14": 0, "average drift": 1, "field guide progress": 1},
    "fed_prox 1.9": {"inexact relative": 1},
    "fed_prox 3.5": {"C6": 7, "C6 segment": 7, "C6 frozen": 0, "C6 contracting": 0, "C7": 0,
                     "C8": 0, "inexact absolute": 0, "inexact composite": 0,
                     "drift general": lambda: settled(3), "drift quadratic": 0,
                     "drift blocks": lambda: steps(5, 0.02, 2, 5), "Ajalloeian–Stich": 1,
                     "field guide": 9, "field guide drift": 0, "Khaled": 3},
    "moon 100": {"C21 normalized": 0, **RUNS, "C18": lambda: short(0), "C4 additive": 0},
    "moon 100000": {"C4": 0, "C4f": 1, "C9": 5, "C14": 0, "drift general": 0},
    "scaffold": {**WORK, **RUNS},
    "fed_nova": {"C21": 0},
    "fed_frozen": {**RUNS},
    "sampled scaffold": {**ROUND, "C4": 13, "C4f": 4, "C4 additive": 0, "C5 recursion": 1,
                         "C7": 0, "C8": 1, "C9": 0, "C14": lambda: settled(3),
                         "inexact composite": 0, "drift general": 8, "drift quadratic": 8,
                         "average drift": 1},
    "momentum": {**WORK, **RUNS, "C4": 11, "C4f": 2, "C4 additive": 0, "C5 recursion": 1,
                 "C7": 1, "C9": 0, "C14": 9, "inexact absolute": 7,
                 "inexact relative": lambda: steps(1, 0.2, 5, 3)},
    "fed_adam": {**ROUND, **WORK, **RUNS, "C4": 11, "C4f": 1, "C4 additive": 0,
                 "C5 recursion": 0, "C7": 1, "C9": 0, "C14": 9, "inexact absolute": 1,
                 "inexact relative": 1, "inexact composite": 1, "Ajalloeian–Stich": 1,
                 "average drift": 1},
    "fed_part": {"C17": 1, "C17 plain": 1, **RUNS, "C5 recursion": 1, "C5 contraction": 1},
    "local_attention": {**ROUND, **RUNS, "C4": 0, "C4f": 4, "C4 additive": 0, "C14": 0},
    "minibatches": {**ROUND, **WORK, **RUNS, "C6": 0, "C6 segment": 3, "C6 frozen": 7,
                    "C6 contracting": 7, "C7": 0, "C8": 1, "C9": 0,
                    "inexact composite": 0, "drift general": 0, "drift quadratic": 0,
                    "drift blocks": 0, "field guide": lambda: settled(0),
                    "field guide progress": 7, "Khaled": lambda: settled(0), "average drift": 1},
    "sampling": {**ROUND, **WORK, **RUNS, "C7": 1, "C8": 1, "C9": 0, "inexact composite": 0,
                 "average drift": 1},
}  # fmt: skip
OWN = {(claim, name): how for claim, case in CASES.items() for name, how in case.deviations.items()}
"""What the cases themselves say."""
BREAKS = {
    (claim, deviation): at if callable(at) else lambda at=at: drawn(at)
    for deviation, instances in BROKEN.items()
    for claim, at in instances.items()
} | {("C18 settled", name): lambda index=index: alone(index) for name, index in AT_REST.items()}
BREAKS |= {pair: lambda at=at: drawn(at) for pair, at in OWN.items() if isinstance(at, int)}

FROZEN = ("C6 frozen", "C6 contracting", "C7", "C8", "C9", "inexact absolute", "inexact relative",
          "inexact composite", "drift quadratic", "Ajalloeian–Stich", "average drift",
          "heterogeneous smoothness", "Khaled", "field guide", "field guide drift",
          "field guide progress")  # fmt: skip
WARM = ("C4", "C4f", "C4 additive", "C5 recursion", "C5 contraction", "C6", "C6 segment", "C14",
        "drift general", "drift blocks")  # fmt: skip
CLOSED = ("C8 bound", "C8 first order", "C21 inconsistency", "C21 consistency", "Malinovsky",
          "Charles–Konečný condition", "Charles–Konečný alignment")  # fmt: skip
PREDICTED = ("C17", "C17 plain", "C18", "C18 settled", "C23", "C24", "C24 order")
LOOSE = ("inexact absolute", "inexact relative", "inexact composite", "Ajalloeian–Stich", "Khaled",
         "field guide", "field guide drift", "field guide progress")  # fmt: skip

# Why no instance breaks the claim: with the claims and the deviations it is about.
REASONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "the method plans itself what is trained, so the claim cannot freeze the kernel for it": (
        (*FROZEN, "C21", "C21 normalized"), ("fed_part", "fed_frozen", "local_attention")),
    "the statement compares all clients, of which some were not asked": (
        ("heterogeneous smoothness", *LOOSE[4:]), ("sampling", "scaffold")),
    "nothing is simulated: these are formulas of V_∞, and C8 shows when it is left": (
        CLOSED, ("fed_prox", "moon", "scaffold", "momentum", "fed_adam", "fed_part", "fed_frozen",
                 "local_attention", "minibatches", "sampling")),
    "the contrastive term acts on the kernel, and does nothing while that is frozen": (
        (*FROZEN, "C21"), ("moon",)),
    "all draws are listed for plain steps, whatever the method": (
        ("C20",), ("fed_prox", "moon", "scaffold", "momentum", "fed_adam", "fed_nova", "fed_part",
                   "fed_frozen", "local_attention")),
    "one round is measured, in which a method has nothing to remember and freezes nothing": (
        ("C17", "C17 plain", "C18 settled"), ("moon", "scaffold", "momentum", "fed_frozen")),
    "the contrastive term acts on the kernel, and the lag is that of the value block": (
        ("C5 recursion", "C5 contraction"), ("moon",)),
    "one round is measured, and memories are empty in the first": (
        ("C8", "average drift", "C6", "C6 segment", "C6 frozen", "C6 contracting", "drift blocks"),
        ("momentum", "scaffold", "local_attention")),
    "until the method freezes it is FedAvg, and then no kernel step is recorded": (
        WARM, ("fed_frozen",)),
    "the certificate itself refuses a round in which the kernel is not trained": (
        ("C4", "C4f", "C4 additive", "C14"), ("fed_part",)),
    "blocks that a round leaves out are recorded as not moved": (
        ("C6", "C6 segment", "drift general", "drift blocks"), ("fed_part",)),
    "with equal work it is FedAvg to the bit": (
        (*WARM, *FROZEN, *CLOSED, *PREDICTED), ("fed_nova",)),
    "where the mean step is zero, a server makes nothing of it": (("C8",), ("fed_adam",)),
    "true at any places of all clients, stated for those of plain steps": (
        ("heterogeneous smoothness",), ("fed_prox", "scaffold")),
    "client kernels have a mean, which moves by the mean of their steps": (
        ("C5 recursion", "C5 contraction", "drift general"), ("local_attention",)),
    "a norm bound of the recursion, with slack where that breaks": (
        ("C5 contraction",), ("scaffold", "momentum", "fed_adam")),
    "too loose to break: none of sixty instances did, at up to 1e5 times the loss": (
        ("C6", "C6 segment", "drift blocks"), ("moon",)),
    "too loose to break: none of sixty instances did": (
        LOOSE, ("scaffold", "momentum", "fed_adam", "minibatches")),
}  # fmt: skip
