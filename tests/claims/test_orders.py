"""Fitted orders by hand: what is fitted, where there is nothing to fit, and where no fit counts."""

import dataclasses

import numpy as np
import pytest
from claim_cases.pairs import small

import linattn as la
from linattn.claims import Claim, Instance, get_claim
from linattn.claims.orders import CLEAR, NOISE, Errors, settled, slack_of
from linattn.claims.ours import c18_response
from linattn.claims.ours.c18_response import one_head
from linattn.claims.table import check_instance

SIZES = [0.4, 0.2, 0.1]


def errors(function, scale=1.0):
    return Errors.of(SIZES, [function(x) for x in SIZES], scale)


def judged(found, order):
    claim = Claim("X", "test", "order", "test", lambda at: found.against(order),
                  conditions=(settled("agree", lambda at: found),))  # fmt: skip
    return check_instance(claim, Instance(*small()))


def test_powers_have_their_order():
    found = errors(lambda x: 3.0 * x**2.5)
    assert found.order == pytest.approx(2.5)
    assert found.steps == pytest.approx([2.5, 2.5])
    assert (found.spread, slack_of(found)) == pytest.approx((0.0, 0.1))
    measured = found.against(2.0)
    assert measured[:3] == pytest.approx((2.5, 2.0, 2.0))
    assert measured.constants[-1].value == pytest.approx(3.0 * 0.1**2.5)


def test_the_fit_is_by_least_squares():
    found = Errors.of([4.0, 2.0, 1.0], [8.0, 2.0, 1.0], 1.0)
    assert found.steps == pytest.approx([2.0, 1.0])
    assert found.order == pytest.approx(1.5)
    assert slack_of(found) == pytest.approx(-0.9)


@pytest.mark.parametrize(
    ("function", "order", "status"),
    [
        (lambda x: x**3, 3.0, "holds"),
        (lambda x: x**4, 3.0, "holds"),
        (lambda x: x**2, 3.0, "violated"),
        (lambda x: x**2.7, 3.0, "violated"),
        (lambda x: x**3 + 0.6 * x**4, 3.0, "holds"),  # higher orders, small where they are fitted
        (lambda x: x**3 + 1e-2 * x, 3.0, "refused"),
        (lambda x: 1e-16 * x**3, 3.0, "vacuous"),
        (lambda x: 0.0, 3.0, "vacuous"),
        (lambda x: np.nan, 3.0, "refused"),
        (lambda x: np.inf if x > 0.3 else x**3, 3.0, "refused"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_only_orders_that_have_settled_are_judged(function, order, status):
    assert judged(errors(function), order).status == status


def test_an_error_is_one_where_it_is_far_above_its_rounding():
    limit = CLEAR * NOISE
    for share, nothing in ((0.99, True), (1.01, False)):
        assert errors(lambda x, share=share: share * limit * 7.0, scale=7.0).nothing is nothing


ORDERS = ("C17", "C17 plain", "C18", "C18 settled", "C21 inconsistency", "C21 consistency", "C23",
          "C24 order")  # fmt: skip


def test_the_list_is_that_of_the_table():
    assert tuple(claim.id for claim in la.claims() if claim.kind == "order") == ORDERS


@pytest.mark.parametrize("claim", ORDERS)
def test_one_local_step_leaves_no_order_to_fit(claim):
    at = Instance(*small(), local_steps=1)
    found = check_instance(get_claim(claim), one_head(at) if claim == "C18 settled" else at)
    assert found.status == "vacuous"
    assert found.reason == "Nothing was fitted: the errors are rounding."


@pytest.mark.parametrize("claim", ["C17", "C17 plain", "C18", "C23", "C24 order"])
def test_identical_clients_leave_no_order_to_fit(claim):
    problem, params = small()
    same = Instance(la.pool(problem), params, local_steps=4)
    assert check_instance(get_claim(claim), same).status == "vacuous"


def test_minimizers_that_are_not_isolated_have_no_settled_response():
    """Two heads turn into each other."""
    found = check_instance(get_claim("C18 settled"), Instance(*small(), local_steps=3))
    assert [c.name for c in found.unmet] == ["λ_min(H)/λ_max(H) ≥ 1e-6 at a minimizer"]
    assert abs(found.unmet[0].slack + 1e-6) < 1e-8
    alone = one_head(Instance(*small(), local_steps=9))
    assert (alone.params.num_heads, alone.local_steps, alone.params.is_factored) == (1, 5, False)
    condition = get_claim("C18 settled").conditions[0].judged(alone)
    assert condition.slack > 1e-4
    rest = c18_response._rest(alone)
    joint = la.Joint(alone.problem)
    there = la.Params(alone.params.layout, rest.flat)
    assert np.linalg.norm(joint.gradient(there).flat) < 1e-12
    assert joint.value(there) < joint.value(alone.params)
    unit = np.eye(rest.flat.size)[2]
    column = joint.hvp(there, la.Params(there.layout, unit)).flat
    assert rest.hessian[2] == pytest.approx(column, rel=1e-6, abs=1e-8)


def test_where_newton_does_not_settle_there_is_no_minimizer():
    """A valley that turns with two heads, along which the gradient is not yet zero."""
    problem = la.synthetic_problem(num_clients=1, sequences_per_client=2, num_tokens=2, dim=2,
                                   num_outputs=2, value_ridge=0.003, kernel_ridge=0.01,
                                   readout="last")  # fmt: skip
    params = la.initial_params(problem, num_heads=2, value="normal", seed=2)
    found = la.check("C18 settled", problem, params)
    assert found.status == "refused"
    assert [c.name[:24] for c in found.unmet] == ["a step of Newton's method"[:24]]


def test_what_a_claim_cannot_speak_of_is_refused(small_problem):
    """No ridge of the kernel; parameters that stay finite where the loss does not."""
    flat = dataclasses.replace(small_problem, kernel_ridge=0.0)
    for name in ("C22", "C22 stationary", "C22 bound"):
        for force in (False, True):
            assert [c.name for c in la.check(name, flat, force=force).unmet] == ["μ > 0"]
    problem = la.synthetic_problem(num_clients=3, sequences_per_client=4, num_tokens=4, dim=2,
                                   num_outputs=1, value_heterogeneity=1.0, value_ridge=0.1,
                                   covariate_heterogeneity=0.3, kernel_ridge=0.1)  # fmt: skip
    steps = {"rounds": 1, "local_steps": 5, "local_lr": 0.481115623125399}
    found = la.check("C24", problem, la.initial_params(problem, value="normal"), **steps)
    assert [c.name for c in found.unmet] == ["finite trajectory"]


def test_a_run_that_has_no_fixed_point_leaves_no_order(monkeypatch):
    """Newton's steps that go on moving are no place where a round stays."""
    honest = c18_response._fixed_point

    def moving(instance, eta):
        with monkeypatch.context() as patch:
            patch.setattr(c18_response, "STAYS", -1.0)
            return honest(instance, eta)

    monkeypatch.setattr(c18_response, "_fixed_point", moving)
    found = check_instance(get_claim("C18 settled"), one_head(Instance(*small(), local_steps=3)))
    assert found.status == "refused"
    assert np.isnan(found.unmet[-1].slack)
