"""The parts that claims are built from, by hand: rows shown, roundings, judgement, shared runs."""

import numpy as np
import pytest
import reference as ref
from claim_cases.build import CLIENTS, build, close, gradient_terms, loss_terms, norm
from claim_cases.frozen import Frozen
from claim_cases.profile import kernel_direction
from reference import norm_sq

import linattn as la
from linattn.claims import along, frozen_runs, get_claim, sizes
from linattn.claims.ours import c02_envelope, c05_tracking, inexact_descent
from linattn.claims.published import field_guide
from linattn.claims.record import LONG_BUDGET, Instance

# --- which step is shown


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        ([(1.0, 2.0, 1.0), (3.0, 4.0, 1.0)], 1),  # all fine: the last
        ([(2.1, 2.0, 1.0), (9.0, 9.05, 1.0), (1.0, 1.0, 1.0)], 0),  # not the largest
        ([(2.1, 2.0, 1.0), (2.2, 2.0, 1.0), (1.0, 3.0, 1.0)], 1),
        ([(2.1, 2.0, 0.1), (5.0, 4.0, 100.0), (1.0, 3.0, 1.0)], 0),  # relative to the terms
        ([(9.05, 9.0, 1.0), (1.0, 3.0, 1.0)], 1),  # within the budget
        ([(9.06, 9.0, 1.0), (1.0, 3.0, 1.0)], 0),
        ([(1.0, 0.0, 0.0), (1.0, 3.0, 1.0)], 0),  # no terms at all
    ],
)
def test_the_row_that_fails_the_most_is_shown_else_the_last(rows, index):
    assert along.shown(iter(rows), 0.055) == rows[index]


def test_recursion_shows_the_largest_relative_residual(monkeypatch):
    """Not the largest lag, nor the largest residual."""

    def step(after, predicted, terms):
        return c05_tracking._LagStep(np.array([after]), np.array([predicted]), terms, 1.0, 0.0)

    steps = [step(50.0, 50.1, 10.0), step(1.0, 1.2, 2.0), step(3.0, 2.0, 200.0)]
    lags = c05_tracking._Lags(1.0, steps, 2.0)
    monkeypatch.setattr(c05_tracking, "_lags", lambda instance: lags)
    found = c05_tracking._recursion(None)
    assert found[:3] == (1.0, 1.2, 2.0)
    assert found.residual == pytest.approx(0.2)


# --- differences of the profile (C2)


def test_difference_is_of_order_eight_from_a_tenth_down():
    """Odd moments of the stencil: 1/2 for the slope, 0 for powers up to seven."""
    k, c = np.arange(1, 5), np.array(c02_envelope.STENCIL)
    assert [c @ k**p for p in (1, 3, 5, 7)] == pytest.approx([0.5, 0, 0, 0], abs=1e-12)
    assert np.log10(c02_envelope.STEPS) == pytest.approx(-np.arange(1, 5, 0.5))


def test_difference_is_the_twins():
    case, step = build(kind="factored"), 0.05
    direction = kernel_direction(case, "direction", 1.0)
    flat = np.concatenate([*(part.ravel() for part in direction), 0 * case.value.ravel()])
    found = c02_envelope._difference(case.instance, flat, step)
    values = {k: ref.profile(case.inst, ref.add(case.theta, direction, k * step))
              for k in range(-4, 5)}  # fmt: skip
    pairs = list(enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), start=1))
    slope = sum(c * (values[k] - values[-k]) for k, c in pairs) / step
    size = sum(abs(c) * (values[k] + values[-k]) for k, c in pairs) + loss_terms(case)
    size /= step
    assert found == pytest.approx((slope, size), rel=1e-9)


def test_step_where_neighbours_agree_is_taken(monkeypatch):
    slopes = iter([5.0, 1.0, 3.0, 3.01, 4.0, 6.0, 7.0, 9.0])
    sizes = iter(range(8))
    monkeypatch.setattr(
        c02_envelope, "_difference", lambda *arguments: (next(slopes), float(next(sizes)))
    )
    found = get_claim("C2").measure(build().instance)
    assert (found.measured, found.scale) == (3.01, 3.0)


# --- the frozen stage by hand


def scalar_stage(hessians=(1.0, 3.0), linears=(2.0, -1.0), weights=(0.25, 0.75)):
    """Two clients with one parameter: A = 2.5, C = −0.25, V* = −0.1, V_0 = 2."""
    return la.FrozenStage(
        weights=np.array(weights), hessians=np.reshape(hessians, (2, 1, 1)),
        linears=np.reshape(linears, (2, 1, 1)), start=np.full((1, 1, 1), 2.0),
        local_steps=2, local_lr=0.1,
    )  # fmt: skip


def frozen_by_hand():
    """One round of two local steps of the scalar clients."""
    places = [[2.0, 2.0], [2.0, 1.3], [2.0, 0.81]]
    return frozen_runs.FrozenRounds(scalar_stage(), np.reshape(places, (1, 3, 2, 1, 1)))


def test_frozen_rounds_by_hand():
    held = frozen_by_hand()
    assert held.means.ravel() == pytest.approx([2.0, 0.5 + 0.975, 0.5 + 0.6075])
    assert held.excess(held.means).ravel() == pytest.approx(
        [1.25 * 2.1**2, 1.25 * 1.575**2, 1.25 * 1.2075**2]
    )
    assert held.distance_sq == pytest.approx(2.1**2)
    # ∇F_1 − ∇F = −1.5V − 2.25 is larger than ∇F_2 − ∇F = 0.5V + 0.75, and largest at V = 2.
    assert held.heterogeneity_sq == pytest.approx(5.25**2)


def test_heterogeneity_is_taken_at_local_and_virtual_iterates():
    """Client 2 has the steep difference 3V and is alone far from zero, so the mean is nearer."""
    held = scalar_stage(hessians=(1.0, 5.0), linears=(0.0, 0.0), weights=(0.75, 0.25))
    far = frozen_runs.FrozenRounds(held, np.reshape([0.0, 4.0], (1, 1, 2, 1, 1)))
    assert far.heterogeneity_sq == pytest.approx((3.0 * 4.0) ** 2)
    turned = frozen_runs.FrozenRounds(held, np.reshape([4.0, 0.0], (1, 1, 2, 1, 1)))
    assert turned.heterogeneity_sq == pytest.approx((3.0 * 3.0) ** 2)  # client 2 at the mean, 3


def test_curvatures_and_roundings_by_hand():
    held = la.FrozenStage(
        weights=np.array([0.5, 0.5]), hessians=np.array([np.diag([1.0, 8.0]), np.diag([3.0, 2.0])]),
        linears=np.array([[[6.0], [0.0]], [[6.0], [10.0]]]), start=np.array([[[5.0], [-2.0]]]),
        local_steps=1, local_lr=0.1,
    )  # fmt: skip
    assert frozen_runs.curvatures_of(held) == pytest.approx((2.0, 5.0))
    assert frozen_runs.smoothness(held) == pytest.approx(8.0)
    size = (3.0**2 + 1.0**2) + (5.0**2 + 2.0**2)  # ‖V*‖² + ‖V_0‖²
    found = 1e29 * frozen_runs.rounding(held, 1e-3), 1e29 * frozen_runs.squared_rounding(held)
    assert found == pytest.approx((5.0 * 2.5 * size * 1e3, 2.5**2 * size))


@pytest.mark.parametrize("every_round", [False, True])
def test_value_descent_is_the_twins(every_round):
    case = build(seed=1)
    held = Frozen(case)
    found = frozen_runs.value_descent(case.instance, 4 if every_round else 1)
    steps = held.steps(every_round)
    places = [x for x, _, _ in steps]
    close(found.excess, [held.excess(x) for x in (*places, steps[-1][2])])
    close(found.slopes, [held.slope(x).ravel() for x in places])
    close(found.errors, [e.ravel() for _, e, _ in steps])
    close(found.slope_norms, [norm(held.slope(x)) for x in places])
    close(found.error_norms, [norm(e) for _, e, _ in steps])
    close(found.client_norms, [[norm(g) for g in held.client_slopes([x] * 3)] for x in places])
    assert found.step_size == pytest.approx(case.eta * (4 if every_round else 1))


def descent_by_hand(excess, slopes, errors, step=0.5):
    columns = (np.reshape(part, (-1, 1)).astype(float) for part in (slopes, errors))
    return frozen_runs.ValueDescent(np.array(excess), *columns, np.zeros((len(slopes), 2)), step)


@pytest.fixture
def relative(monkeypatch):
    """The slacks and rows of a descent by hand, with L = 1 and μ = ½."""

    def of(descent):
        monkeypatch.setattr(inexact_descent, "local_descent", lambda instance: descent)
        curved = frozen_runs.Curvatures(0.5, 1.0)
        monkeypatch.setattr(inexact_descent, "curvatures", lambda instance: curved)
        monkeypatch.setattr(inexact_descent, "stage_of", lambda instance: scalar_stage())
        rows = []
        monkeypatch.setattr(inexact_descent, "shown", lambda r, budget: rows.extend(r) or r[-1])
        inexact_descent._relative(None)
        return rows, [slack for _, slack in inexact_descent._relative_slacks(None)]

    return of


@pytest.mark.parametrize(
    ("errors", "slacks"),
    [
        ([0.2, 1.0, -0.5], [0.9, 0.5, 0.75]),  # shares 0.1, 0.5, 0.25: 1 − ε is the slack
        ([0.2, 2.2, -0.5], [0.9]),  # the second is larger than its slope
        ([3.0, 1.0, -0.5], [-0.5, 0.5, 0.75]),  # so is the first, which is judged all the same
        ([3.0, 2.2, -0.5], [-0.5]),
        ([2.0, 0.2, 0.2], [0.0, 0.9, 0.9]),
        ([0.2, 2.0, 0.2], [0.9, 0.0, 0.9]),  # just as large is not too large
    ],
)
def test_relative_rows_end_before_an_error_is_too_large(errors, slacks, relative):
    descent = descent_by_hand([8.0, 4.0, 2.0, 1.0], [2.0, 2.0, 2.0], errors)
    rows, found = relative(descent)
    shares = [abs(e) / 2.0 for e in errors[: len(slacks)]]
    assert found == pytest.approx([min(2 - 0.5 * (1 + s), 1 - s) for s in shares])
    assert found == pytest.approx(slacks)
    expected = [(descent.excess[k + 1],
                 (1 - 0.5 * (1 - s) * 0.5 * (2 - 0.5 * (1 - s))) * descent.excess[k])
                for k, s in enumerate(shares)]  # fmt: skip
    assert np.array(rows)[:, :2] == pytest.approx(np.array(expected))


def test_slack_of_a_relative_error_at_a_large_step(relative):
    """ηL = 1.5 and ε = 0.2: 2 − ηL(1 + ε) = 0.2 is less than 1 − ε."""
    descent = descent_by_hand([8.0, 4.0], [2.0], [0.4], step=1.5)
    assert relative(descent)[1] == pytest.approx([0.2])


def test_roundings_are_part_of_the_scales(monkeypatch):
    """Where everything else is zero they are the scale; else they add to it."""
    held = scalar_stage()
    still = descent_by_hand([0.0, 0.0], [0.0], [0.0])
    assert still.scale(held, LONG_BUDGET) == frozen_runs.rounding(held, LONG_BUDGET) > 0
    steep = descent_by_hand([0.0, 0.0], [3.0], [0.0])  # V_0 = 2 is known to a few roundings
    added = steep.scale(held, LONG_BUDGET) - still.scale(held, LONG_BUDGET)
    assert added == pytest.approx(1e-15 * 3.0 * 2.0 / LONG_BUDGET)
    case = build(multiple=0.1)
    for module, name, claim in (
        (frozen_runs, "rounding", "Ajalloeian–Stich"),
        (field_guide, "squared_rounding", "field guide progress"),
    ):
        before = get_claim(claim).measure(case.instance).scale
        monkeypatch.setattr(module, name, lambda *arguments: 1e-3)
        added = get_claim(claim).measure(case.instance).scale - before
        length = case.eta * case.instance.local_steps
        share = 1.0 if name == "rounding" else 1.0 / (length * LONG_BUDGET)
        assert added == pytest.approx(1e-3 * share, rel=1e-6)


def test_allowance_of_the_drift_is_a_share_of_the_start():
    found = get_claim("field guide drift").measure(build(multiple=0.1).instance)
    expected = 1e-8 * norm_sq(build().value)
    assert found.scale - found.bound == pytest.approx(expected, rel=1e-4)


def test_sizes_by_hand():
    """One client, X = 2, Y = 6 and B = 3, V = 1: G = M = 4, K = 12, c = 36, Z = 12, A = 4·12²."""
    problem = la.problem_from_tokens([([[[2.0]]], [[[6.0]]])], value_ridge=1.0, kernel_ridge=2.0)
    at = Instance(problem, la.Params.merged([[[3.0]]], [[[1.0]]]))
    assert sizes.loss_terms(at) == pytest.approx(36.0 + 577.0 * (144.0 / 577.0) ** 2)
    ridge = 2.0 * np.sqrt(10.0)
    assert sizes.gradient_terms(at) == pytest.approx((4.0 * 12.0 + 12.0) * (4.0 + 12.0) + ridge)
    factors = at._replace(params=la.Params.factored([[[3.0]]], [[[1.0]]], [[[1.0]]]))
    factored = np.sqrt(10.0) * (4.0 * 12.0 + 12.0) * 16.0 + 2.0 * np.sqrt(11.0)
    assert sizes.gradient_terms(factors) == pytest.approx(factored)
    assert sizes.rounded(3.0, 1e-12) == pytest.approx(3e-3)


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", ["token", "mean", "last"])
def test_sizes_are_the_twins(kind, readout):
    case = build(kind=kind, options=CLIENTS | {"readout": readout})
    assert sizes.gradient_terms(case.instance) == pytest.approx(gradient_terms(case))
    assert sizes.loss_terms(case.instance) == pytest.approx(loss_terms(case))
