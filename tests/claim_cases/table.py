"""Every claim: its numbers by the twin, what it assumes in words, and where it fails without that.

A new claim gets one entry here. `recorded=False` says that no long run of it is stored yet.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from claim_cases import descent, frozen, impulses, noise, profile, published, sampled, warmup, world
from claim_cases.build import CLIENTS, TINY
from claim_cases.pairs import (
    Pair,
    along_eigenvector,
    chaotic,
    from_the_minimizer,
    one_steep_client,
    same_tokens,
    two_steps,
    unsettled,
    unstable,
)


class ClaimCase(NamedTuple):
    """What is known of one claim.

    Attributes
    ----------
    numbers : tuple of (function, options)
        Measured, bound, scale and constants by the twin, on `build(**options)`; None where what is
        measured is a search, which the twin does not repeat.
    assumes : str
        Its conditions as they are printed, besides a finite trajectory.
    forced : dict
        Condition and a pair of instances: judged all the same without it, the claim is violated.
    long : bool
        Whether its rounding budget is 1e-10 in place of 1e-12.
    recorded : bool
        Whether docs/record holds a long run of it.
    deviations : dict
        Of a claim that the tables in `claim_cases.guards` do not have: deviation of a run from what
        it needs, and the number of a drawn instance that breaks it, or in words why none does.
    """

    numbers: tuple[Any, ...]
    assumes: str = ""
    forced: dict[str, Callable[[], Pair]] = {}  # noqa: RUF012
    long: bool = False
    recorded: bool = True
    deviations: dict[str, int | str] = {}  # noqa: RUF012


Case, Long = ClaimCase, partial(ClaimCase, long=True)
New = partial(ClaimCase, recorded=False)
STIFF = CLIENTS | {"value_ridge": 1.0}
NOISY = {"batch_size": 2, "participation": 0.6}
SAMPLED = {"participation": 0.6}
FACTORED = {"kind": "factored"}
SEARCHED = {"heads": 1, "options": TINY}
ONE = {"rounds": 1, "local_steps": 1}
QUARTER, UNIT, TWO = (f"ηλ_max(A_i) ≤ {limit}" for limit in ("0.25", "1", "2"))
STABLE, STABLY = "ρ(M̂) < 1", "ρ(M̂) < 1; cond(A) ≤ 10000"
MEAN = "ηλ_max(A) ≤ 1"
FLAT = "cond(A) ≤ 1e+08 on the path"
RELATIVE = "η < 2/(L(1 + ε)) and ε ≤ 1"
ON_PATH = "ηλ_max(A_i) ≤ 2 on the path"
CHAIN = "ηL ≤ 1 at every step"
KHALED = "η ≤ min{1/(4L), 1/(8L(E − 1))}"
FLAT_A = "cond(A) ≤ 10000"
AGREE_ETA, AGREE_S = (f"orders at halved {name} agree within 0.1" for name in "ηs")
TAME = "moves of the start grow at most 10000 times"
FLOW = "without draws within 0.25 of the flow's motion of its end"
DRAWN = "at most 512 parameters; a start that is not stationary; something is drawn"
FEW = {"rounds": 1, "local_steps": 2}
SHORT = {"local_steps": 2}
LITTLE = {"options": {"num_clients": 2, "dim": 2, "num_outputs": 1, "sequences": (1, 1),
                      "tokens": (2, 3), "readout": "last"}, "heads": 1}  # fmt: skip
DRIFTING = {"seed": 8, "rounds": 40, "local_steps": 10, "multiple": 1.0, "options": TINY}
eigen = partial(partial, along_eigenvector)

CASES: dict[str, ClaimCase] = {
    "C1": Case(((profile.gap, {}), (profile.gap, FACTORED))),
    "C2": Long(((profile.envelope, {}), (profile.envelope, FACTORED))),
    "C3": Case(((profile.increment, {}),)),
    "C3 bound": Case(((profile.increment_bound, {}),)),
    "C3f": Case(((partial(profile.stale, bound="right"), FACTORED),)),
    "C3f bound": Case(((partial(profile.stale, bound="upper"), {}),)),
    "C4": Case(((partial(warmup.ledger, upper=True), NOISY),)),
    "C4f": Case(((partial(warmup.ledger, upper=True), NOISY | FACTORED | {"multiple": 0.03}),)),
    "C4 additive": Case(((partial(warmup.ledger, upper=False), NOISY),)),
    "C5": Case(((warmup.tracking_bound, NOISY | {"local_steps": 15, "rounds": 1, "options": TINY}),
                (warmup.tracking_bound, FACTORED | {"rounds": 1}))),
    "C5 recursion": Long(((warmup.recursion, NOISY),), FLAT),
    "C5 contraction": Long(((warmup.contraction, NOISY | FACTORED | {"local_steps": 3}),), FLAT),
    "C6": Long(((warmup.secant, SAMPLED), (warmup.secant, FACTORED))),
    "C6 segment": Long(((warmup.segment, SEARCHED | {"local_steps": 8, "rounds": 1}),)),
    "C6 frozen": Long(
        ((partial(warmup.frozen_consensus, bound="upper"), {"frozen": 1.7}),),
        TWO, {TWO: partial(same_tokens, (1.9, 4.0), rounds=1, local_steps=4)}),
    "C6 contracting": Long(
        ((partial(warmup.frozen_consensus, bound="upper_small_step"), {"frozen": 0.7}),),
        UNIT, {UNIT: partial(two_steps, 21, (1.0, 3.0), rounds=1, local_steps=2)}),
    "C7": Case(((frozen.closed_form, {"frozen": 1.2, "rounds": 3}),), STABLY, {STABLE: unstable}),
    "C8": Case(((frozen.fixed_point, {"frozen": 1.2}),), STABLY, {STABLE: unstable}),
    "C8 bound": Long(((frozen.bias_bound, {"frozen": 0.8}), (frozen.bias_bound, {"frozen": 1.6})),
                     "ηλ_max(A_i) < 2"),
    "C8 first order": Case(((frozen.first_order, {"frozen": 0.8}),)),
    "C9": Case(((frozen.trade_off, {"rounds": 4}), (frozen.trade_off, FACTORED | {"rounds": 1})),
               "ρ(M̂) < 1 at B_T"),
    "C10": Case(((warmup.mismatch, NOISY), (warmup.mismatch, FACTORED))),
    "C11": Case(((profile.euler, {}), (profile.euler, FACTORED))),
    "C12": Case(((profile.gauge, {}), (profile.gauge, FACTORED))),
    **{f"C13 {rule}": Case(((partial(frozen.freezing, rule=rule), {"rounds": 4}),))
       for rule in ("profile", "observable", "certified")},
    "C14": Long(((warmup.chain, NOISY | {"multiple": 0.1}),
                 (warmup.chain, FACTORED | {"multiple": 0.1})),
                CHAIN, {CHAIN: from_the_minimizer}),
    "C15": Long(((None, SEARCHED), (None, FACTORED | SEARCHED)),
                "μ > 0; moments of the data that fit in memory"),
    "C15 any point": Long(((profile.any_point, {}),), "μ > 0"),
    "C16": Case(((profile.moment, {}), (profile.moment, {"seed": 4}))),  # 4: the most tokens
    "C17": Case(((partial(impulses.modified, share=1.0), {}),
                (partial(impulses.modified, share=1.0), FACTORED)), AGREE_ETA),
    "C17 plain": Case(((partial(impulses.modified, share=0.0), {}),), AGREE_ETA),
    "C18": Case(((impulses.tangent, LITTLE | SHORT),), AGREE_S),
    "C18 settled": Case(((impulses.settled_bias, LITTLE | SHORT),),
                       "λ_min(H)/λ_max(H) ≥ 1e-6 at a minimizer; a step of Newton's method "
                       f"from there of at most 1e-08 of it; {AGREE_S}"),
    "C19": Case(((noise.spread, LITTLE | SHORT | {"participation": 0.5}),), f"{DRAWN}; {FLOW}"),
    "C19 profile": Case(
        ((noise.profile, LITTLE | SHORT | {"participation": 0.5}),), f"{DRAWN}; kernel {FLOW}"
    ),
    "C20": Case(((sampled.listed, NOISY | FEW), (sampled.listed, FACTORED | SAMPLED | FEW)),
               f"H·d + m ≤ 104; at most 20,000 draws to list; {FLAT_A}"),
    "C20 ensemble": Case(((sampled.ensemble, SAMPLED | {"frozen": 0.8}),),
                        "H·d + m ≤ 104; something is drawn; a second moment that contracts"),
    "C21": Case(((sampled.unequal_rounds, {"frozen": 1.2, "rounds": 3}),),
               f"ρ(M̂) < 1 with unequal work; {FLAT_A}"),
    "C21 normalized": Case(((sampled.normalized_fixed_point, {"frozen": 0.8}),),
                          f"ρ(M̂) < 1 of normalized averaging; {FLAT_A}"),
    "C21 inconsistency": Case(
        ((partial(sampled.limit_of_small_steps, normalized=False), {}),), f"{FLAT_A}; {AGREE_ETA}"),
    "C21 consistency": Case(
        ((partial(sampled.limit_of_small_steps, normalized=True), {}),), f"{FLAT_A}; {AGREE_ETA}"),
    "C22": Case(((world.loss, {}), (world.loss, {"seed": 3})), "μ > 0"),
    "C22 stationary": Case(((world.stationary, {}), (world.stationary, {"seed": 3})), "μ > 0"),
    "C22 bound": Case(((world.dual, {}),), "μ > 0", long=True),
    "C23": Case(((impulses.passes, LITTLE | SHORT),), AGREE_S, {AGREE_S: unsettled}),
    "C24": Case(((impulses.every_impulse, {"rounds": 4}), (impulses.every_impulse, FACTORED)),
               TAME, {TAME: chaotic}),
    "C24 order": Case(((impulses.intervals, LITTLE | SHORT | {"seed": 2}),),
                     "orders at halved k agree within 0.1"),
    "C24 estimate": Case(((impulses.two_tolerances, LITTLE | {"rounds": 40, "multiple": 1.0}),),
                        f"{TAME}; a relative error above 1e-08"),
    "C24 regret": Case(((impulses.predicted_length, DRIFTING),),
                      f"{TAME}; a stake of at least 1e-3"),
    "inexact absolute": Long(((descent.absolute, {"frozen": 0.8}),
                              (descent.absolute, NOISY | {"frozen": 0.8})),
                             MEAN, {MEAN: eigen((0.9, 2.1), **ONE)}),
    "inexact relative": Long(((descent.relative, {"frozen": 0.8, "rounds": 3}),),
                             RELATIVE, {RELATIVE: eigen((0.9, 2.5), **ONE)}),
    "inexact composite": Long(
        ((descent.composite, {"frozen": 0.4}),
         (descent.composite, {"frozen": 0.2, "rounds": 30, "options": STIFF})),
        f"ηEλ_max(A) ≤ 1; {UNIT}", {UNIT: one_steep_client}),
    "drift general": Long(((descent.general_drift, SAMPLED), (descent.general_drift, FACTORED))),
    "drift quadratic": Long(
        ((descent.quadratic_drift, {"frozen": 0.8}),),
        UNIT, {UNIT: eigen((0.1, 0.6), position=-2, rounds=1, local_steps=3)}),
    "drift blocks": Long(((descent.block_drift, SAMPLED), (descent.block_drift, FACTORED)),
                         ON_PATH, {ON_PATH: eigen((0.1, 2.5), rounds=1, local_steps=2)}),
    "PL rate": Long(((descent.exact, {"frozen": 1.5}), (descent.exact, {"frozen": 4.2}),
                     (descent.exact, {"frozen": 2.5, "local_steps": 12})),
                    "ηλ_max(A) ≤ 2; V_0 apart from V*",
                    {"ηλ_max(A) ≤ 2": eigen((0.9, 2.5), **ONE)}),
    "Malinovsky": Long(((published.operator, {"frozen": 1.6}),), "ηλ_max(A_i) < 2; ξ < 1"),
    "Charles–Konečný condition": Case(
        ((published.condition_number, {"frozen": 0.7}),),
        f"{UNIT}; k_E ≤ 1e+06", {UNIT: partial(two_steps, 37, (0.9, 1.9), local_steps=2)}),
    "Charles–Konečný alignment": Long(
        ((published.alignment, {"frozen": 0.7}),),
        UNIT, {UNIT: partial(two_steps, 71, (0.9, 2.05), local_steps=7)}),
    "Ajalloeian–Stich": Long(
        ((published.biased, {"frozen": 0.7}),
         (published.biased, {"seed": 2, "frozen": 0.7, "rounds": 30, "options": STIFF})),
        UNIT, {UNIT: eigen((0.9, 2.1), **ONE)}),
    "average drift": Long(((published.average_drift, {"frozen": 1.2}),), STABLY),
    "heterogeneous smoothness": Long(((published.smooth, {"frozen": 0.7}),)),
    "Khaled": Case(((published.khaled, {"frozen": 0.03}),),
                   KHALED, {KHALED: eigen((0.01, 2.5), rounds=2, local_steps=5)}),
    "field guide": Case(((published.field_guide, {"frozen": 0.2}),),
                        QUARTER, {QUARTER: eigen((0.2, 2.5), rounds=2, local_steps=5)}),
    "field guide drift": Case(
        ((published.guide_drift, {"frozen": 0.2}),),
        QUARTER, {QUARTER: partial(same_tokens, (0.2, 4.0), rounds=1, local_steps=12)}),
    "field guide progress": Long(((published.guide_progress, {"frozen": 0.2}),),
                                 QUARTER, {QUARTER: eigen((0.2, 2.05), **ONE)}),
}  # fmt: skip
