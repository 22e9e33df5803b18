"""Published bounds: formulas by hand, sharp cases, and what breaks them."""

from dataclasses import replace

import numpy as np
import pytest

import linattn as la
from linattn.theory.published import (
    alignment_bound,
    average_drift,
    biased_descent_bound,
    field_guide_bound,
    field_guide_drift,
    heterogeneous_smoothness,
    khaled_bound,
    khaled_step,
    operator_bound,
    surrogate_condition_bound,
)


def diagonal(curvatures, linears, *, weights=None, local_steps=3, local_lr=0.5):
    """Clients with diagonal A_i and one output."""
    curvatures, linears = np.atleast_2d(curvatures), np.atleast_2d(linears)
    count, size = curvatures.shape
    return la.FrozenStage(
        weights=np.full(count, 1.0 / count) if weights is None else np.array(weights),
        hessians=np.stack([np.diag(row) for row in curvatures]),
        linears=linears[..., None],
        start=np.zeros((1, size, 1)),
        local_steps=local_steps,
        local_lr=local_lr,
    )


@pytest.fixture
def stage():
    return diagonal([[0.2, 1.0], [0.6, 0.4]], [[1.0, 0.3], [-0.5, 0.8]], weights=[0.3, 0.7])


@pytest.mark.parametrize(("local_lr", "xi"), [(0.5, 1 - 0.5 * 0.2), (1.9, 1.9 * 1.0 - 1)])
def test_operator_bound_is_its_formula(stage, local_lr, xi):
    """The slowest eigenvalue decides: of the smallest curvature, or of the largest past ηL = 1."""
    stage, steps = replace(stage, local_lr=local_lr), 3
    star = np.linalg.solve(stage.hessian, np.tensordot(stage.weights, stage.linears, 1))
    moves = [
        np.linalg.norm(a @ star - c) for a, c in zip(stage.hessians, stage.linears, strict=True)
    ]
    total = local_lr * (0.3 * moves[0] + 0.7 * moves[1])
    expected = xi * (1 - xi ** (steps - 1)) / ((1 - xi) * (1 - xi**steps)) * total
    assert operator_bound(stage) == pytest.approx(expected, rel=1e-12)
    assert np.linalg.norm(stage.bias) <= operator_bound(stage)
    assert operator_bound(replace(stage, local_lr=2.0)) is None


@pytest.mark.parametrize("bound", [operator_bound, alignment_bound])
def test_bounds_vanish_at_one_local_step_and_are_about_the_minimizer_of_their_weights(stage, bound):
    """At E = 1 nothing is left, so around the minimizer of other weights the bound is false."""
    single, several = (replace(stage, local_steps=count) for count in (1, 2))
    assert bound(single) == pytest.approx(0.0, abs=1e-14)
    assert np.linalg.norm(single.bias) == 0.0
    assert bound(several) >= np.linalg.norm(several.bias) > 1e-3
    other = replace(single, weights=np.array([0.5, 0.5]))
    assert bound(other) == pytest.approx(0.0, abs=1e-14)
    assert np.linalg.norm(other.fixed_point - other.minimizer) < 1e-14
    assert np.linalg.norm(other.fixed_point - single.minimizer) > bound(other) + 0.1


def test_operator_bound_survives_a_slow_contraction():
    slow = diagonal([[1e-12, 1.0], [1e-12, 0.5]], [[0.0, 1.0], [0.0, -1.0]], local_steps=4)
    xi_sum = 3.0
    moves = np.linalg.norm(slow.gradients_at_minimizer, axis=(1, 2)).mean() * 0.5
    assert operator_bound(slow) == pytest.approx(xi_sum * moves / (4 * 0.5e-12), rel=1e-6)


def test_condition_bound_is_attained_by_one_client():
    alone = diagonal([[0.1, 1.5]], [[1.0, 1.0]], local_steps=5)
    values = np.linalg.eigvalsh(alone.surrogate_hessian)
    assert surrogate_condition_bound(alone) == pytest.approx(values[-1] / values[0], rel=1e-12)


def test_condition_bound_needs_a_small_step():
    """At ηλ = 1 local steps solve at once, at ηλ = 1.5 they do not: the order is lost."""
    wide = diagonal([[0.1, 1.0, 1.5]], [[1.0, 1.0, 1.0]], local_steps=2, local_lr=1.0)
    values = np.linalg.eigvalsh(wide.surrogate_hessian)
    assert values[-1] / values[0] > surrogate_condition_bound(wide)


def test_condition_bound_falls_from_the_plain_condition_number(stage):
    found = [surrogate_condition_bound(replace(stage, local_steps=e)) for e in (1, 2, 5, 50, 5000)]
    assert found[0] == pytest.approx(5.0)
    assert (np.diff(found) < 0).all()
    assert found[-1] == pytest.approx(1.0)


def test_alignment_bound_is_its_formula(stage):
    k_end = (1 - 0.5**3) / (1 - 0.9**3)
    minimizers = [np.linalg.norm(np.linalg.solve(a, c))
                  for a, c in zip(stage.hessians, stage.linears, strict=True)]  # fmt: skip
    root, end = np.sqrt(5.0), np.sqrt(k_end)
    expected = 8 * max(minimizers) * (root - end) / (root + end)
    assert alignment_bound(stage) == pytest.approx(expected, rel=1e-12)


def test_numbers_by_hand():
    khaled = khaled_bound(
        4.0, 10, step_size=0.1, smoothness=2.0, local_steps=3, dissimilarity_sq=0.5
    )
    assert khaled == pytest.approx(2 * 4 / 1.0 + 24 * 0.01 * 0.5 * 9 * 2)
    steps = [khaled_step(2.0, count) for count in (1, 2, 3)]
    assert steps == pytest.approx([1 / 8, 1 / 16, 1 / 32])
    guide = field_guide_bound(
        4.0, 5, step_size=0.1, smoothness=2.0, local_steps=3, heterogeneity_sq=0.5
    )
    assert field_guide_drift(0.1, 3, 0.5) == pytest.approx(18 * 9 * 0.01 * 0.5)
    assert guide == pytest.approx(4 / (2 * 0.1 * 3 * 5) + 2.0 * 18 * 9 * 0.01 * 0.5)
    biased = biased_descent_bound(3.0, 2, step_size=0.5, modulus=0.4, relative=0.25, absolute=0.09)
    assert biased == pytest.approx((1 - 0.5 * 0.4 * 0.75) ** 2 * 3 + 0.09 / (2 * 0.4 * 0.75))


def test_average_drift_is_the_mean_move_from_the_minimizer(stage):
    places = np.stack([stage.minimizer.reshape(2, 1)] * 2)
    for _ in range(3):
        places = places - 0.5 * (stage.hessians @ places - stage.linears)
    moved = stage.minimizer.reshape(2, 1) - np.tensordot(stage.weights, places, 1)
    assert average_drift(stage) == pytest.approx(np.linalg.norm(moved) / 1.5, rel=1e-12)
    assert average_drift(replace(stage, local_steps=1)) == 0.0


def test_heterogeneous_smoothness_is_attained_and_needs_the_centre():
    """A = (1, 3), V = (1, −1): both sides are 1; without the mean at 0 the left side is larger."""
    clients = diagonal([[1.0], [3.0]], [[0.0], [0.0]])
    places, means = np.array([1.0, -1.0]), 0.0
    left = abs(0.5 * (1 - 2) * places[0] + 0.5 * (3 - 2) * places[1])
    spread = np.sqrt(np.mean((places - means) ** 2))
    assert heterogeneous_smoothness(clients) * spread == pytest.approx(left)
    shifted = np.array([11.0, 9.0])
    around_zero = abs(np.mean(np.array([1.0, 3.0]) * (shifted - 0.0)))
    assert around_zero > heterogeneous_smoothness(clients) * np.sqrt(np.mean(shifted**2))


def test_recalled_bounds_are_marked():
    recalled = {claim.id for claim in la.claims() if claim.provenance == "recalled"}
    assert {"Khaled", "field guide", "Charles–Konečný alignment"} <= recalled
    assert "Malinovsky" not in recalled
