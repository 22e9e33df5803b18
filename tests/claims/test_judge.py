"""How two numbers become a verdict, and verdicts a tally: by hand."""

import json

import numpy as np
import pytest

import linattn as la
from linattn.claims import Claim, Condition, Constant, Instance, Measurement, Requirement, judge
from linattn.claims.judge import STATUSES
from linattn.claims.record import LONG_BUDGET, shared, shared_runs
from linattn.claims.table import check_all, check_instance
from linattn.claims.tally import from_record, merged, tally, to_record

NAN, INF = float("nan"), float("inf")


def claim_of(kind, measure=lambda instance: None, **options):
    return Claim("X", "test", kind, "test", measure, **options)


def verdict(kind, *numbers, conditions=(), force=False, **options):
    return judge(claim_of(kind), Measurement(*numbers, **options), conditions, force=force)


@pytest.mark.parametrize(
    ("kind", "numbers", "tightness", "status"),
    [
        ("identity", (3.0, 1.0, 8.0), 0.25, "violated"),
        ("identity", (3.0, 1.0, 8.0, 1e-13), 1.25e-14, "holds"),  # the residual, where there is one
        ("identity", (3.0, 3.0, 8.0, 2.0), 0.25, "violated"),
        ("identity", (1.0, 1.0 + 1e-13, 1.0), 1e-13, "holds"),
        ("identity", (1.0, 1.0 + 1e-11, 1.0), 1e-11, "violated"),
        ("upper", (2.0, 3.0, 1.0), 1.5, "holds"),
        ("upper", (-2.0, 3.0, 1.0), -1.5, "holds"),
        ("upper", (3.0, 3.0 - 1e-12, 2.0), 1.0, "holds"),
        ("upper", (3.0, 3.0 - 3e-12, 2.0), 1.0, "violated"),
        ("upper", (2.0, -INF, 1.0), NAN, "violated"),
        ("lower", (3.0, 2.0, 1.0), 1.5, "holds"),
        ("lower", (3.0, 0.0, 1.0), NAN, "holds"),
        ("lower", (3.0, -1.0, 1.0), NAN, "holds"),
        ("lower", (3.0, 4.0, 1.0), 0.75, "violated"),
        ("report", (3.0, 4.0, 1.0), NAN, "reported"),
        ("statistical", (3.0, 4.0, 0.5), 2.0, "reported"),
        ("order", (2.9, 3.0, 3.0), 0.1, "holds"),
        ("order", (3.5, 3.0, 3.0), -0.5, "holds"),
        ("order", (2.801, 3.0, 3.0), 0.199, "holds"),
        ("order", (2.799, 3.0, 3.0), 0.201, "violated"),
        ("mostly", (2.0, 3.0, 1.0), 1.5, "reported"),
        ("mostly", (3.0, 2.0, 1.0), 2 / 3, "reported"),
        ("mostly", (1e-13, 2.0, 1.0), NAN, "reported"),
        # Nothing was measured.
        ("order", (0.0, 3.0, 0.0), NAN, "vacuous"),
        ("identity", (0.0, 0.0, 0.0), 0.0, "vacuous"),
        ("identity", (1e-13, 2e-13, 1.0), 1e-13, "vacuous"),
        ("identity", (1e-13, 0.0, 1.0, 1e-14), 1e-14, "vacuous"),
        ("upper", (1e-13, 1.0, 1.0), NAN, "vacuous"),
        ("upper", (1e-13, -1.0, 1.0), NAN, "violated"),
        ("upper", (2.0, INF, 1.0), NAN, "vacuous"),
        ("lower", (1e-13, -1.0, 1.0), NAN, "vacuous"),
        ("lower", (2.0, -INF, 1.0), NAN, "vacuous"),
        ("upper", (3e-160, 1e-160, 4e-160), 1 / 3, "vacuous"),  # squares have underflowed
        # What is no number is neither held nor violated.
        ("upper", (NAN, 1.0, 1.0), NAN, "refused"),
        ("upper", (1.0, NAN, 1.0), NAN, "refused"),
        ("upper", (INF, 1.0, 1.0), NAN, "refused"),
        ("upper", (1.0, 2.0, INF), NAN, "refused"),
        ("identity", (1.0, 1.0, 1.0, NAN), NAN, "refused"),
        ("report", (1.0, 1.0, NAN), NAN, "refused"),
    ],
)
def test_status_and_tightness_by_hand(kind, numbers, tightness, status):
    found = verdict(kind, *numbers)
    assert found.status == status
    assert found.tightness == pytest.approx(tightness, rel=1e-3, nan_ok=True)


@pytest.mark.parametrize(
    ("slack", "status"), [(0.0, "holds"), (-1e-300, "refused"), (NAN, "refused")]
)
def test_a_condition_is_met_at_its_limit(slack, status):
    conditions = (Condition("needed", slack),)
    assert verdict("upper", 1.0, 2.0, 1.0, conditions=conditions).status == status
    forced = verdict("upper", 2.0, 1.0, 1.0, conditions=conditions, force=True)
    assert forced.status == "violated"
    assert len(forced.unmet) == (status == "refused")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "uper"}, "did you mean 'upper'"),
        ({"provenance": "theirs"}, "provenance must be one of"),
        ({"budget": 1e-9}, "budget must be >= 0 and <= 1e-10"),
        ({"share": 0.0}, "share must be > 0"),
    ],
)
def test_a_claim_that_could_not_be_judged_is_refused_at_once(options, named):
    with pytest.raises(ValueError, match=named):
        claim_of(**({"kind": "upper"} | options))
    assert claim_of("statistical", budget=LONG_BUDGET).budget == 1e-10


def test_reasons_are_sentences(small_problem, small_factored):
    """Of every status without a judgement, as people read them."""
    wild = {"rounds": 2, "local_steps": 80, "local_lr": 1e6}
    found = {
        "finite": la.check("C5", small_problem, small_factored, **wild),
        "step": la.check("C8 bound", small_problem, small_factored, local_lr=10.0),
        "kernel": la.check("C4", small_problem, small_factored),
        "one step": la.check("C8 bound", small_problem, small_factored, local_steps=1),
        "fine": la.check("C1", small_problem, small_factored),
    }
    reasons = {name: found[name].reason for name in found}
    assert reasons["finite"] == (
        "It was not judged; it needs: finite trajectory (the run leaves the floating-point "
        "numbers)."
    )
    assert reasons["step"].startswith("It was not judged; it needs: ηλ_max(A_i) < 2 (missed by ")
    assert reasons["kernel"] == (
        "It does not speak of this setting; it needs: merged kernel (this one is factored)."
    )
    assert reasons["one step"].startswith("Nothing was compared: what was measured, 0, is within")
    assert reasons["fine"] == ""
    assert repr(found["kernel"]) == f"Verdict(C4 not applicable: {reasons['kernel'][:-1]})"
    assert "tightness" in repr(found["fine"])
    assert "infinite" in verdict("upper", 2.0, INF, 1.0).reason


# --- what is judged before anything is measured


def never(instance):
    raise AssertionError("measured although a condition is unmet")


def test_nothing_is_measured_before_everything_is_met(small_problem, small_params):
    instance, asked = Instance(small_problem, small_params), []

    def slack_of(name, value):
        return lambda at: asked.append(name) or value

    fine = Requirement("fine", slack_of("fine", 1.0))
    soft = Requirement("soft", slack_of("soft", -2.0), "it is hard")
    hard = Requirement("hard", slack_of("hard", -1.0), essential=True)
    found = check_instance(claim_of("upper", never, conditions=(fine, soft, hard, fine)), instance)
    assert asked == ["fine", "soft", "hard"]  # what follows an essential one cannot be asked
    assert [(c.name, c.slack) for c in found.unmet] == [("soft", -2.0), ("hard", -1.0)]
    assert found.reason.endswith("it needs: soft (it is hard); hard (missed by 1).")
    measured = claim_of("upper", lambda at: Measurement(2.0, 1.0, 1.0), conditions=(fine, soft))
    assert check_instance(measured, instance).status == "refused"
    assert check_instance(measured, instance, force=True).status == "violated"
    needy = claim_of("upper", never, needs=("factored kernel",), conditions=(fine,))
    asked.clear()
    for force in (False, True):
        assert check_instance(needy, instance, force).status == "not applicable"
    assert asked == []


@pytest.mark.parametrize("error", [FloatingPointError, np.linalg.LinAlgError, OverflowError,
                                   ZeroDivisionError])  # fmt: skip
def test_a_run_beyond_floating_point_is_refused(small_problem, small_params, error):
    def overflows(instance):
        raise error("no digits are left")

    found = check_instance(claim_of("upper", overflows), Instance(small_problem, small_params))
    assert found.status == "refused"
    assert found.reason == (
        "It was not judged; it needs: terms within floating-point range (no digits are left)."
    )


@pytest.mark.parametrize("slack", [-1e-300, -0.5])
def test_a_strict_limit_is_not_missed_by_a_number(slack):
    failure = Condition("μ > 0", slack).failure
    assert failure == ("μ > 0 (at the limit)" if slack > -0.1 else "μ > 0 (missed by 0.5)")


def test_a_fault_of_a_claim_is_not_swallowed(small_problem, small_params):
    def faulty(instance):
        raise ValueError("a fault")

    instance = Instance(small_problem, small_params, batch_size=1)
    with pytest.raises(ValueError, match="a fault"):
        check_instance(claim_of("upper", faulty), instance)
    forced = check_instance(claim_of("upper", faulty), instance, force=True)
    assert forced.reason.endswith("it needs: terms that can be measured (a fault).")
    needy = claim_of("upper", faulty, needs=("full batches",))
    assert check_instance(needy, instance, force=True).status == "not applicable"


def test_runs_are_shared_within_a_block_only():
    calls = []

    @shared
    def run(instance):
        calls.append(instance)
        return len(calls)

    first, second = Instance(None, None), Instance(None, None, seed=1)
    assert [run(first), run(first)] == [1, 2]
    with shared_runs():
        assert [run(first), run(second), run(first), run(second)] == [3, 4, 3, 4]
        with shared_runs():  # of check_instance within check_all
            assert run(first) == 3
        assert run(first) == 3
    assert run(first) == 5


# --- tallies


def many(kind, *numbers):
    """Verdicts that have a condition and a constant to keep."""
    kept = {"conditions": (Condition("c", 1.0),), "constants": (Constant("k", 2.0, "h"),)}
    return [verdict(kind, *row, **kept) for row in numbers]


def test_a_tally_counts_and_adds_up():
    listed = many("upper", (2.0, 3.0, 1.0), (2.0, 8.0, 1.0), (1e-9, 1.0, 1.0), (NAN, 1.0, 1.0),
                  (0.0, 0.0, 1.0))  # fmt: skip
    found = tally("X", listed)
    assert (found.status, found.total, found.resolved) == ("holds", 5, 2)
    counts = {"holds": 3, "refused": 1, "vacuous": 1}
    assert found.counts == dict.fromkeys(STATUSES, 0) | counts
    assert found.tightness == pytest.approx((1.5, 4.0, 1e9))
    assert found.worst.tightness > 9e8
    parts = [tally("X", listed[:2]), tally("X", listed[2:])]
    assert merged(claim_of("upper"), parts) == found
    assert from_record(json.loads(json.dumps(to_record(found)))) == found
    assert found.quantile(0.0) == 1.5
    bad = tally("X", [*listed, *many("upper", (2.0, 1.0, 1.0))])
    assert (bad.status, bad.worst.tightness) == ("violated", 0.5)


@pytest.mark.parametrize(
    ("numbers", "status"),
    [([], "not checked"), ([(0.0, 0.0, 1.0)], "vacuous"), ([(NAN, 1.0, 1.0)], "refused"),
     ([(NAN, 1.0, 1.0), (0.0, 0.0, 1.0)], "vacuous")],
)  # fmt: skip
def test_a_tally_without_a_judgement_does_not_hold(numbers, status):
    assert tally("X", many("upper", *numbers)).status == status


def test_a_statistical_claim_is_judged_over_its_record():
    """Of 100 true deviations one in a thousand records has one beyond 4.4 standard errors."""
    errors = np.random.default_rng(0).normal(size=100)
    rows = [(1.0 + 0.1 * e, 1.0, 0.1) for e in errors]
    fine = tally("X", many("statistical", *rows))
    assert fine.counts["reported"] == 100
    assert fine.status == "holds"
    assert fine.allowed_errors == pytest.approx(4.4172, abs=1e-4)
    assert tally("X", many("statistical", *rows, (1.5, 1.0, 0.1))).status == "violated"
    one = tally("X", many("statistical", (1.5, 1.0, 0.1)))
    assert (one.allowed_errors, one.status) == (pytest.approx(3.2905, abs=1e-4), "violated")


def test_what_holds_mostly_is_judged_over_its_record():
    """Of 100 instances 12 exceptions are likely once in 250 records of a share of 5 %, 14 not."""
    rows = [(2.0, 3.0, 1.0)] * 88

    def record(exceptions):
        return tally("X", many("mostly", *rows, *[(3.0, 2.0, 1.0)] * exceptions))

    assert record(12).exceptions == 12
    assert record(12).chance_of_exceptions == pytest.approx(0.0043, abs=2e-4)
    assert [record(k).status for k in (0, 5, 12, 14)] == ["holds"] * 3 + ["violated"]
    assert record(0).chance_of_exceptions == 1.0
    assert record(5).worst.tightness == pytest.approx(2 / 3)
    assert tally("X", many("mostly", (1e-13, 2.0, 1.0))).status == "reported"


# --- the public call


def test_unknown_claim_names_the_nearest(small_problem):
    with pytest.raises(ValueError, match="did you mean 'C3f'"):
        la.check("C3ff", small_problem)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rounds", NAN), ("rounds", 0), ("rounds", 2.5), ("local_steps", 0), ("local_lr", NAN),
     ("local_lr", 0.0), ("batch_size", 0), ("participation", 0.0), ("seed", -1)],
)  # fmt: skip
def test_settings_are_checked_whether_a_claim_runs_or_not(small_problem, name, value):
    for claim in ("C1", "C7"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            la.check(claim, small_problem, **{name: value})


def test_parameters_must_fit(small_problem, small_params):
    with pytest.raises(ValueError, match="value block of shape"):
        la.check("C1", small_problem, la.Params.merged(np.zeros((1, 2, 2)), np.zeros((1, 2, 2))))
    with pytest.raises(TypeError, match="single-layer"):
        la.check("C1", object(), small_params)


EXTREME = [(1.0, 0.05, eta) for eta in (1e-17, 1e-300, 1e10)]
EXTREME += [(size, 0.05, 0.01) for size in (1e-155, 1e-30, 1e30)] + [(1.0, 1e-9, 1e-3)]


@pytest.mark.parametrize(("size", "ridge", "eta"), EXTREME)
def test_nothing_is_violated_by_rounding_or_overflow(size, ridge, eta):
    """Steps that do not move anything, data of any size, ridges near zero, a perfect fit."""
    rng = np.random.default_rng(0)
    teacher = la.Params.merged(rng.normal(size=(1, 3, 3)), rng.normal(size=(1, 3, 2)))
    tokens = rng.normal(size=(3, 4, 5, 3))
    clients = [(size * part, la.predict(teacher, part, readout="token")) for part in tokens]
    problem = la.problem_from_tokens(clients, value_ridge=ridge, kernel_ridge=ridge)
    tried = [claim for claim in la.claims() if claim.id != "C15" or size == 1.0]
    for found in check_all(tried, Instance(problem, teacher, local_lr=eta)):
        assert found.status != "violated", found
