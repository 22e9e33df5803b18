"""Every claim: its numbers by the twin, what it assumes in words, and where it fails without that.

A new claim gets one entry here. `recorded=False` says that no long run of it is stored yet.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from claim_cases import descent, frozen, profile, published, warmup
from claim_cases.build import CLIENTS, TINY, Case, Numbers
from claim_cases.pairs import (
    Pair,
    along_eigenvector,
    from_the_minimizer,
    one_steep_client,
    same_tokens,
    two_steps,
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
    forced : tuple of (condition, pair)
        Judged all the same without this one condition, the claim is violated.
    long : bool
        Whether its rounding budget is 1e-10 in place of 1e-12.
    recorded : bool
        Whether docs/record holds a long run of it.
    """

    numbers: tuple[tuple[Callable[[Case], Numbers] | None, dict[str, Any]], ...]
    assumes: str = ""
    forced: tuple[tuple[str, Callable[[], Pair]], ...] = ()
    long: bool = False
    recorded: bool = True


STIFF = CLIENTS | {"value_ridge": 1.0}
NOISY = {"batch_size": 2, "participation": 0.6}
FACTORED = {"kind": "factored"}
ONE = {"rounds": 1, "local_steps": 1}
STABLE = "ρ(M̂) < 1; cond(A) ≤ 10000"
FLAT = "cond(A) ≤ 1e+08 on the path"
QUARTER = "ηλ_max(A_i) ≤ 0.25"
UNIT = "ηλ_max(A_i) ≤ 1"
RELATIVE = "η < 2/(L(1 + ε)) and ε ≤ 1"
ON_PATH = "ηλ_max(A_i) ≤ 2 on the path"
CHAIN = "ηL ≤ 1 at every step"
KHALED = "η ≤ min{1/(4L), 1/(8L(E − 1))}"

CASES: dict[str, ClaimCase] = {
    "C1": ClaimCase(((profile.gap, {}), (profile.gap, FACTORED))),
    "C2": ClaimCase(((profile.envelope, {}), (profile.envelope, FACTORED)), long=True),
    "C3": ClaimCase(((profile.increment, {}),)),
    "C3 bound": ClaimCase(((profile.increment_bound, {}),)),
    "C3f": ClaimCase(((partial(profile.stale, bound="right"), FACTORED),)),
    "C3f bound": ClaimCase(((partial(profile.stale, bound="upper"), {}),)),
    "C4": ClaimCase(((partial(warmup.ledger, upper=True), NOISY),)),
    "C4f": ClaimCase(
        ((partial(warmup.ledger, upper=True), NOISY | FACTORED | {"multiple": 0.03}),)
    ),
    "C4 additive": ClaimCase(((partial(warmup.ledger, upper=False), NOISY),)),
    "C5": ClaimCase((
        (warmup.tracking_bound, NOISY | {"local_steps": 15, "rounds": 1, "options": TINY}),
        (warmup.tracking_bound, FACTORED | {"rounds": 1}),
    )),
    "C5 recursion": ClaimCase(((warmup.recursion, NOISY),), FLAT, long=True),
    "C5 contraction": ClaimCase(
        ((warmup.contraction, NOISY | FACTORED | {"local_steps": 3}),), FLAT, long=True
    ),
    "C6": ClaimCase(
        ((warmup.secant, {"participation": 0.6}), (warmup.secant, FACTORED)), long=True
    ),
    "C6 segment": ClaimCase(
        ((warmup.segment, {"local_steps": 8, "rounds": 1, "heads": 1, "options": TINY}),), long=True
    ),
    "C6 frozen": ClaimCase(
        ((partial(warmup.frozen_consensus, bound="upper"), {"frozen": 1.7}),),
        "ηλ_max(A_i) ≤ 2",
        (("ηλ_max(A_i) ≤ 2", partial(same_tokens, (1.9, 4.0), rounds=1, local_steps=4)),),
        long=True,
    ),
    "C6 contracting": ClaimCase(
        ((partial(warmup.frozen_consensus, bound="upper_small_step"), {"frozen": 0.7}),),
        UNIT,
        ((UNIT, partial(two_steps, 21, (1.0, 3.0), rounds=1, local_steps=2)),),
        long=True,
    ),
    "C7": ClaimCase(
        ((frozen.closed_form, {"frozen": 1.2, "rounds": 3}),), STABLE, (("ρ(M̂) < 1", unstable),)
    ),
    "C8": ClaimCase(((frozen.fixed_point, {"frozen": 1.2}),), STABLE, (("ρ(M̂) < 1", unstable),)),
    "C8 bound": ClaimCase(
        ((frozen.bias_bound, {"frozen": 0.8}), (frozen.bias_bound, {"frozen": 1.6})),
        "ηλ_max(A_i) < 2",
        long=True,
    ),
    "C8 first order": ClaimCase(((frozen.first_order, {"frozen": 0.8}),)),
    "C9": ClaimCase(
        ((frozen.trade_off, {"rounds": 4}), (frozen.trade_off, FACTORED | {"rounds": 1})),
        "ρ(M̂) < 1 at B_T",
    ),
    "C10": ClaimCase(((warmup.mismatch, NOISY), (warmup.mismatch, FACTORED))),
    "C11": ClaimCase(((profile.euler, {}), (profile.euler, FACTORED))),
    "C12": ClaimCase(((profile.gauge, {}), (profile.gauge, FACTORED))),
    **{
        f"C13 {rule}": ClaimCase(((partial(frozen.freezing, rule=rule), {"rounds": 4}),))
        for rule in ("profile", "observable", "certified")
    },
    "C14": ClaimCase(
        ((warmup.chain, NOISY | {"multiple": 0.1}), (warmup.chain, FACTORED | {"multiple": 0.1})),
        CHAIN,
        ((CHAIN, from_the_minimizer),),
        long=True,
    ),
    "C15": ClaimCase(
        ((None, {"heads": 1, "options": TINY}), (None, FACTORED | {"heads": 1, "options": TINY})),
        "μ > 0; moments of the data that fit in memory",
        long=True,
    ),
    "C15 any point": ClaimCase(((profile.any_point, {}),), "μ > 0", long=True),
    # The second is at the largest number of tokens.
    "C16": ClaimCase(((profile.moment, {}), (profile.moment, {"seed": 4}))),
    "inexact absolute": ClaimCase(
        ((descent.absolute, {"frozen": 0.8}), (descent.absolute, NOISY | {"frozen": 0.8})),
        "ηλ_max(A) ≤ 1",
        (("ηλ_max(A) ≤ 1", partial(along_eigenvector, (0.9, 2.1), **ONE)),),
        long=True,
    ),
    "inexact relative": ClaimCase(
        ((descent.relative, {"frozen": 0.8, "rounds": 3}),),
        RELATIVE,
        ((RELATIVE, partial(along_eigenvector, (0.9, 2.5), **ONE)),),
        long=True,
    ),
    "inexact composite": ClaimCase(
        (
            (descent.composite, {"frozen": 0.4}),
            (descent.composite, {"frozen": 0.2, "rounds": 30, "options": STIFF}),
        ),
        f"ηEλ_max(A) ≤ 1; {UNIT}",
        ((UNIT, one_steep_client),),
        long=True,
    ),
    "drift general": ClaimCase(
        ((descent.general_drift, {"participation": 0.6}), (descent.general_drift, FACTORED)),
        long=True,
    ),
    "drift quadratic": ClaimCase(
        ((descent.quadratic_drift, {"frozen": 0.8}),),
        UNIT,
        ((UNIT, partial(along_eigenvector, (0.1, 0.6), position=-2, rounds=1, local_steps=3)),),
        long=True,
    ),
    "drift blocks": ClaimCase(
        ((descent.block_drift, {"participation": 0.6}), (descent.block_drift, FACTORED)),
        ON_PATH,
        ((ON_PATH, partial(along_eigenvector, (0.1, 2.5), rounds=1, local_steps=2)),),
        long=True,
    ),
    "PL rate": ClaimCase(
        (
            (descent.exact, {"frozen": 1.5}),
            (descent.exact, {"frozen": 4.2}),
            (descent.exact, {"frozen": 2.5, "local_steps": 12}),
        ),
        "ηλ_max(A) ≤ 2; V_0 apart from V*",
        (("ηλ_max(A) ≤ 2", partial(along_eigenvector, (0.9, 2.5), **ONE)),),
        long=True,
    ),
    "Malinovsky": ClaimCase(
        ((published.operator, {"frozen": 1.6}),), "ηλ_max(A_i) < 2; ξ < 1", long=True
    ),
    "Charles–Konečný condition": ClaimCase(
        ((published.condition_number, {"frozen": 0.7}),),
        f"{UNIT}; k_E ≤ 1e+06",
        ((UNIT, partial(two_steps, 37, (0.9, 1.9), local_steps=2)),),
    ),
    "Charles–Konečný alignment": ClaimCase(
        ((published.alignment, {"frozen": 0.7}),),
        UNIT,
        ((UNIT, partial(two_steps, 71, (0.9, 2.05), local_steps=7)),),
        long=True,
    ),
    "Ajalloeian–Stich": ClaimCase(
        (
            (published.biased, {"frozen": 0.7}),
            (published.biased, {"seed": 2, "frozen": 0.7, "rounds": 30, "options": STIFF}),
        ),
        UNIT,
        ((UNIT, partial(along_eigenvector, (0.9, 2.1), **ONE)),),
        long=True,
    ),
    "average drift": ClaimCase(((published.average_drift, {"frozen": 1.2}),), STABLE, long=True),
    "heterogeneous smoothness": ClaimCase(((published.smooth, {"frozen": 0.7}),), long=True),
    "Khaled": ClaimCase(
        ((published.khaled, {"frozen": 0.03}),),
        KHALED,
        ((KHALED, partial(along_eigenvector, (0.01, 2.5), rounds=2, local_steps=5)),),
    ),
    "field guide": ClaimCase(
        ((published.field_guide, {"frozen": 0.2}),),
        QUARTER,
        ((QUARTER, partial(along_eigenvector, (0.2, 2.5), rounds=2, local_steps=5)),),
    ),
    "field guide drift": ClaimCase(
        ((published.guide_drift, {"frozen": 0.2}),),
        QUARTER,
        ((QUARTER, partial(same_tokens, (0.2, 4.0), rounds=1, local_steps=12)),),
    ),
    "field guide progress": ClaimCase(
        ((published.guide_progress, {"frozen": 0.2}),),
        QUARTER,
        ((QUARTER, partial(along_eigenvector, (0.2, 2.05), **ONE)),),
        long=True,
    ),
}  # fmt: skip
