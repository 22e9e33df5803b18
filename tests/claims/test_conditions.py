"""The conditions of claims: their slacks by the twin, and a refusal just beyond each limit.

A verdict only asks whether a slack is negative, so a wrong limit shows on few instances. Slacks
along a run are computed once more, and each claim is tried just below and just beyond its limits.
"""

import numpy as np
import pytest
import reference as ref
from claim_cases import build as twin
from claim_cases.build import CLIENTS, named, warmup
from claim_cases.frozen import Frozen, stage
from claim_cases.published import surrogate
from claim_cases.table import CASES, FLOW
from claim_cases.warmup import step_curvature
from reference import stack

import linattn as la
from linattn.claims import get_claim
from linattn.claims.table import check_instance

FORCED = [(claim, *row) for claim, case in CASES.items() for row in case.forced.items()]


def build(**options):
    """A case at η = 1/3 of 1/max(L_K, max λ_max(A_i)) at the start, unless it is given."""
    return twin.build(multiple=1 / 3, **{"options": CLIENTS} | options)


def final_rate(case):
    """At the kernel after half of the rounds."""
    theta, _ = warmup(case).path[case.instance.rounds // 2]
    return 1.0 - stage(case._replace(theta=theta)).rate


def worst_condition(case):
    """Over all local steps of the warm-up and its end."""
    steps = warmup(case).steps
    places = [step.theta for step in steps] + [steps[-1].theta_next]
    return 1e8 - max(np.linalg.cond(ref.value_matrix(case.inst, theta)) for theta in places)


def profile_curvature(case):
    """1 − max ηL_K along the warm-up; factored: 2ρ/(η‖g‖²) in place of ηL_K."""
    return 1.0 - max(step_curvature(case, step) for step in warmup(case).steps)


def path_curvature(case):
    """2 − η max λ_max(A_i) at every client's own kernels in the first round."""
    steps = warmup(case).steps[: case.instance.local_steps]
    places = [(i, theta) for step in steps for i, (theta, _) in step.local.items()]
    tops = [np.linalg.eigvalsh(ref.client_matrix(case.inst, i, theta))[-1] for i, theta in places]
    return 2.0 - case.eta * max(tops)


def relative_slack(case):
    """Least over the local steps up to the first whose error is too large."""
    held, slacks = Frozen(case), []
    for place, error, _ in held.steps(False):
        share = np.linalg.norm(error) / np.linalg.norm(held.slope(place))
        slacks.append(min(2 - case.eta * case.largest * (1 + share), 1 - share))
        if slacks[-1] < 0 and len(slacks) > 1:
            return min(slacks[:-1])
    return min(slacks)


def surrogate_condition(case):
    """1e6 − k_E."""
    return 1e6 - surrogate(Frozen(case))[1]


def khaled_limit(case):
    return 1 / (case.top * max(4, 8 * (case.instance.local_steps - 1)))


FACTORED = {"kind": "factored"}
SLACKS = [
    ("C5 recursion", "cond(A) ≤ 1e+08 on the path", worst_condition, {}),
    # The condition fails at its limit by the least that can be told.
    ("C8 bound", "ηλ_max(A_i) < 2", lambda case: 2.0 - case.eta * case.top - 1e-12, {}),
    ("C9", "ρ(M̂) < 1 at B_T", final_rate, {"rounds": 4}),
    ("C14", "ηL ≤ 1 at every step", profile_curvature, {}),
    ("C14", "ηL ≤ 1 at every step", profile_curvature, FACTORED | {"rounds": 1}),
    ("inexact relative", "η < 2/(L(1 + ε)) and ε ≤ 1", relative_slack, {"local_lr": 0.02}),
    ("drift blocks", "ηλ_max(A_i) ≤ 2 on the path", path_curvature, {}),
    ("Charles–Konečný condition", "k_E ≤ 1e+06", surrogate_condition, {}),
]  # fmt: skip
# Yes or no, or of ridges and data, each with a test of its own.
OTHERS = {"finite trajectory", "moments of the data that fit in memory", "V_0 apart from V*",
          "ξ < 1", "μ > 0", "cond(A) ≤ 10000",
          # In test_orders.py, test_draws.py and test_predicted.py.
          *(f"orders at halved {name} agree within 0.1" for name in "ηsk"),
          "H·d + m ≤ 104", "at most 20,000 draws to list", "something is drawn",
          "a second moment that contracts", "moves of the start grow at most 10000 times",
          "λ_min(H)/λ_max(H) ≥ 1e-6 at a minimizer", "at most 512 parameters",
          "a step of Newton's method from there of at most 1e-08 of it",
          "a start that is not stationary", "a relative error above 1e-08",
          "a stake of at least 1e-3", FLOW, f"kernel {FLOW}"}  # fmt: skip


@pytest.mark.parametrize(("claim", "name", "slack", "options"), SLACKS, ids=named(SLACKS))
def test_the_slack_is_the_twins(claim, name, slack, options):
    case = build(**options)
    (condition,) = [c for c in get_claim(claim).conditions if c.name == name]
    expected = slack(case)
    assert abs(expected) > 1e-3
    # Twice the rounding of a limit of 1e8, and far below a shift of 1e-12 in a limit of 2.
    found = condition.judged(case.instance)
    assert found.slack == pytest.approx(expected, rel=1e-13, abs=1e-13 if "<" in name else 1e-9)


# --- the step just beyond the limit


def per_profile_curvature(case):
    return 1 / ref.curvature(case.inst, case.theta)


# One local step of one round: M̂ = I − ηA, the path is the start, and the error is zero.
ONCE = {"rounds": 1, "local_steps": 1}
LIMITS = {
    "ηλ_max(A_i) ≤ 0.25": (lambda case: 0.25 / case.top, {}),
    "ηλ_max(A_i) ≤ 1": (lambda case: 1 / case.top, {}),
    "ηλ_max(A_i) ≤ 2": (lambda case: 2 / case.top, {}),
    "ηλ_max(A_i) < 2": (lambda case: 2 / case.top, {}),
    "ηλ_max(A_i) ≤ 2 on the path": (lambda case: 2 / case.top, ONCE),
    "ηλ_max(A) ≤ 1": (lambda case: 1 / case.largest, {}),
    "ηλ_max(A) ≤ 2": (lambda case: 2 / case.largest, {}),
    "ηEλ_max(A) ≤ 1": (lambda case: 1 / (case.instance.local_steps * case.largest), {}),
    "ρ(M̂) < 1 with unequal work": (lambda case: 2 / case.largest, ONCE),
    "ρ(M̂) < 1 of normalized averaging": (lambda case: 2 / case.largest, ONCE),
    "ρ(M̂) < 1": (lambda case: 2 / case.largest, ONCE),
    "ρ(M̂) < 1 at B_T": (lambda case: 2 / case.largest, ONCE),
    "ηL ≤ 1 at every step": (per_profile_curvature, ONCE),
    "η < 2/(L(1 + ε)) and ε ≤ 1": (lambda case: 2 / case.largest, ONCE),
    "η ≤ min{1/(4L), 1/(8L(E − 1))}": (khaled_limit, {}),  # more than one local step
}
BEYOND = [(claim.id, c.name) for claim in la.claims() for c in claim.conditions if c.name in LIMITS
          and (claim.id, c.name) != ("inexact composite", "ηλ_max(A_i) ≤ 1")]  # fmt: skip


def test_every_condition_is_tried():
    names = {condition.name for claim in la.claims() for condition in claim.conditions}
    assert names == {row[1] for row in SLACKS} | set(LIMITS) | OTHERS


@pytest.mark.parametrize(("claim", "name"), BEYOND, ids=named(BEYOND))
def test_the_claim_is_refused_just_beyond_its_limit(claim, name):
    limit, options = LIMITS[name]
    case = build(**options)
    step = limit(case)
    below, above = (check_instance(get_claim(claim), case.at(step * share).instance)
                    for share in (1 - 1e-6, 1 + 1e-6))  # fmt: skip
    # One local step from the server's parameters measures nothing where drift is meant.
    assert below.status == "holds" or (below.status, options) == ("vacuous", ONCE)
    assert above.status == "refused"
    assert [c.name for c in above.unmet] == [name]
    assert f"needs: {name} (missed by " in above.reason


def test_a_client_may_be_too_steep_though_the_mean_is_not():
    """ηλ_max(A_i) > 1 with ηEL < 1: the second condition of the composite bound alone."""
    case = build(options=CLIENTS | {"weights": np.array([0.98, 0.01, 0.01])}, local_steps=1)
    steep = case.at(1.01 / case.top)
    assert steep.eta * steep.largest < 1
    verdict = check_instance(get_claim("inexact composite"), steep.instance)
    assert [c.name for c in verdict.unmet] == ["ηλ_max(A_i) ≤ 1"]


@pytest.mark.parametrize(
    ("claim", "name", "ridge"),
    [
        *[
            (claim, "cond(A) ≤ 10000", 1e-6)
            for claim in (
                "C7",
                "C8",
                "C20",
                "C21",
                "C21 normalized",
                "C21 inconsistency",
                "C21 consistency",
                "average drift",
            )
        ],
        ("Charles–Konečný condition", "k_E ≤ 1e+06", 1e-6),
        ("C1", "terms within floating-point range", 1e-12),  # of every claim
    ],
)
def test_the_claim_is_refused_where_a_is_too_flat(claim, name, ridge):
    """With one token in all of a client's sequences A_i is λ in every other direction."""
    few = {"sequences": (1, 1), "tokens": (1, 1), "num_clients": 2, "readout": "last"}
    case = build(options=CLIENTS | few | {"value_ridge": ridge})
    found = check_instance(get_claim(claim), case.instance)
    assert [c.name for c in found.unmet] == [name]


@pytest.mark.parametrize(("share", "refused"), [(0.8e-10, True), (1.25e-10, False)])
def test_rate_is_judged_where_the_gap_is_no_rounding(share, refused):
    """From V* + share·‖V*‖ along the top eigenvector of A the gap is ½L(share·‖V*‖)²."""
    case = twin.build(seed=3, heads=1)
    star = stack(ref.minimizer(case.inst, case.theta))
    away = np.zeros_like(star)
    away[:, 0] = np.linalg.eigh(case.mean)[1][:, -1] * share * np.linalg.norm(star)
    params = case.instance.params
    there = params.replace(value=(star + away).reshape(params.value.shape))
    found = check_instance(get_claim("PL rate"), case.instance._replace(params=there))
    assert [c.name for c in found.unmet] == (["V_0 apart from V*"] if refused else [])


@pytest.mark.parametrize("claim", ["C15", "C15 any point"])
def test_lower_bounds_need_a_kernel_ridge_above_zero(claim):
    free = build(options=CLIENTS | {"kernel_ridge": 0.0})
    found = check_instance(get_claim(claim), free.instance)
    assert [(c.name, c.slack) for c in found.unmet] == [("μ > 0", -1e-300)]
    assert check_instance(get_claim(claim), free.instance, force=True).status == "refused"


@pytest.mark.parametrize(("claim", "name", "pair"), FORCED, ids=named(FORCED))
def test_bound_is_refused_without_its_condition_and_violated_when_forced(claim, name, pair):
    """Only the named condition is unmet; the forced numbers are finite and clearly apart."""
    fine, broken = pair()
    assert check_instance(get_claim(claim), fine).status == "holds"
    without = check_instance(get_claim(claim), broken)
    assert (without.status, [c.name for c in without.unmet]) == ("refused", [name])
    forced = check_instance(get_claim(claim), broken, force=True)
    assert np.isfinite([forced.measured, forced.bound]).all()
    assert forced.status == "violated"
    if forced.kind == "upper":
        # An increment may be negative; elsewhere a bound below zero is violated by anything.
        assert forced.bound >= 0.0 or claim == "field guide progress"
        assert forced.measured - forced.bound > 1e-3 * forced.measured


RUNNING = [claim for claim in la.claims() if "finite trajectory" in claim.assumptions]


@pytest.mark.parametrize("claim", RUNNING, ids=lambda claim: claim.id)
def test_a_diverging_run_is_refused(claim):
    kind = "factored" if "factored kernel" in claim.needs else "merged"
    wild = build(kind=kind, local_lr=1e6, local_steps=80)
    for force in (False, True):
        without = check_instance(claim, wild.instance, force)
        assert without.status == "refused"
        assert without.unmet[-1].name == "finite trajectory"
        assert without.reason.endswith("(the run leaves the floating-point numbers).")
