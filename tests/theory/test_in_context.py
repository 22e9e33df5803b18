"""C22: formula, exact moments, quadrature, differences, samples, and models that are not better."""

import itertools

import numpy as np
import pytest
import scipy.optimize
from bridge import direction_like, moved, relative_error

import linattn as la
from linattn.theory.in_context import check_in_context_optimum, in_context_optimum
from linattn.theory.in_context_law import InContextLaw, in_context_limit

RIDGES = {"value_ridge": 0.05, "kernel_ridge": 0.01}
WEIGHTS = [0.5, 0.2, 0.3]


def rotation(rng, dim):
    return np.linalg.qr(rng.normal(size=(dim, dim)))[0]


def commuting(seed, count=3, dim=3):
    """Covariances with common eigenvectors that are no axes."""
    rng = np.random.default_rng(seed)
    turn = rotation(rng, dim)
    return np.stack([turn * np.exp(rng.normal(size=dim)) @ turn.T for _ in range(count)])


def worlds():
    lengths, levels = [2, 5, 9], [0.0, 0.4, 1.1]
    for ridges in ({}, RIDGES, {"value_ridge": 1e-6, "kernel_ridge": 1e-3}):
        yield commuting(1), 4, 0.3, ridges
        yield commuting(2), lengths, levels, {"weights": WEIGHTS, **ridges}
        yield commuting(3, 1, 5), 1, 0.0, ridges
        yield np.diag([0.0, 2.0, 0.5]), 3, 0.1, ridges  # a feature that never varies


@pytest.mark.parametrize("world", list(worlds()))
def test_formula_is_what_exact_moments_say(world):
    *laws, options = world
    found = check_in_context_optimum(*laws, **options)
    assert found.formula == pytest.approx(found.moments, abs=1e-13 * found.scale)
    assert found.gradient_norm <= 1e-13 * found.scale
    # C15(b): no model of any number of heads is better.
    assert found.dual_norm <= found.threshold * (1 + 1e-12) + 1e-13 * found.scale


def test_moments_are_those_of_quadrature_over_the_task():
    """Three nodes per axis integrate every polynomial of degree five in w exactly."""
    rng = np.random.default_rng(0)
    covariance, n, noise = commuting(4, 1)[0], 4, 0.7
    law = InContextLaw(covariance, n, noise)
    middle, kernel = rng.normal(size=(4, 4)), rng.normal(size=(1, 4, 4))
    nodes, shares = np.polynomial.hermite_e.hermegauss(3)
    shares = shares / shares.sum()
    pair, linear = np.zeros((4, 4)), np.zeros(4)
    for index in itertools.product(range(3), repeat=3):
        w, share = nodes[list(index)], np.prod(shares[list(index)])
        cross = covariance @ w
        s = np.block(
            [[covariance, cross[:, None]], [cross[None], np.array([[w @ cross + noise**2]])]]
        )
        turned = s @ middle.T @ s + np.trace(middle @ s) * s
        pair += share * (s @ middle @ s + turned / n)
        linear += share * (s @ kernel[0].T @ np.append(cross, 0.0))
    assert relative_error(law.pair(middle), pair) < 1e-13
    assert relative_error(law.system(kernel)[1][:, 0], linear) < 1e-13
    queries = np.zeros((4, 4))
    queries[:3, :3] = covariance
    assert relative_error(law.system(kernel)[0], law.pair(kernel[0].T @ queries @ kernel[0])) == 0


@pytest.mark.parametrize("factored", [False, True])
def test_gradient_of_the_limit_against_differences(factored):
    rng = np.random.default_rng(5)
    limit = in_context_limit(commuting(5), [2, 3, 8], 0.2, weights=WEIGHTS, **RIDGES)
    value = rng.normal(size=(2, 4, 1))
    params = la.Params.merged(rng.normal(size=(2, 4, 4)), value)
    if factored:
        params = la.Params.factored(*rng.normal(size=(2, 2, 4, 3)), value)
    direction, step = direction_like(rng, params), 1e-5
    for function, slope in ((limit.objective, limit.joint_gradient), (limit.value, limit.gradient)):
        ends = [function(moved(params, direction, t)) for t in (step, -step)]
        measured = (ends[0] - ends[1]) / (2 * step)
        assert slope(params).flat @ direction.flat == pytest.approx(measured, rel=1e-7)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_one_client_is_the_published_optimum(noise):
    covariance, n = commuting(6, 1, 4)[0], 7
    spread = (np.trace(covariance) + noise**2) / n
    gamma = np.linalg.inv((1 + 1 / n) * covariance + spread * np.eye(4))
    found = in_context_optimum(covariance, n, noise)
    assert relative_error(found.params.kernel[0, :4, :4], gamma) < 1e-13
    assert not found.params.kernel[0, 4].any()
    assert not found.params.kernel[0, :, 4].any()
    loss = 0.5 * np.trace(covariance @ (np.eye(4) - covariance @ gamma))
    assert found.loss == pytest.approx(loss, rel=1e-13)


def test_clients_of_one_covariance_are_one_client():
    covariance = commuting(7, 1)[0]
    alone = in_context_optimum(covariance, 5, 0.3, **RIDGES)
    both = in_context_optimum(np.stack([covariance] * 2), 5, 0.3, weights=[0.9, 0.1], **RIDGES)
    assert both.loss == pytest.approx(alone.loss, rel=1e-14)
    assert np.allclose(both.client_losses, alone.client_losses, rtol=1e-14)


def test_ridges_against_a_search_along_the_family():
    """B = diag(Γ, 0), V = v e: the best Γ at every v is linear; the best v by bounded search."""
    covariances, n, noise = commuting(8, 2), 3, 0.2
    limit = in_context_limit(covariances, n, noise, **RIDGES)
    found = in_context_optimum(covariances, n, noise, **RIDGES)

    def along(v):
        gap = scipy.optimize.minimize(
            lambda scales: limit.objective(member(scales, v)), np.zeros(3), method="BFGS",
            options={"gtol": 1e-10},
        )  # fmt: skip
        return gap.fun

    turn = np.linalg.eigh(covariances.sum(axis=0))[1]

    def member(scales, v):
        kernel = np.zeros((4, 4))
        kernel[:3, :3] = (turn * scales) @ turn.T
        return la.Params.merged(kernel, np.append(np.zeros(3), v)[:, None])

    best = scipy.optimize.minimize_scalar(along, bounds=(0.05, 2.0), method="bounded")
    assert found.loss == pytest.approx(best.fun, rel=1e-8)
    assert found.params.value[0, -1, 0] == pytest.approx(best.x, rel=1e-3)


@pytest.mark.parametrize("heads", [1, 2])
def test_no_start_finds_a_better_model(heads):
    covariances = commuting(9, 2, 2)
    limit = in_context_limit(covariances, 3, 0.2, **RIDGES)
    best = in_context_optimum(covariances, 3, 0.2, **RIDGES).loss
    rng = np.random.default_rng(heads)
    ends = []
    for _ in range(3):
        kernel = np.eye(3) + rng.normal(size=(heads, 3, 3))
        start = la.Params.merged(kernel, np.zeros((heads, 3, 1)))

        def profile(flat, layout=start.layout):
            params = la.Params(layout, flat)
            return limit.value(params), limit.gradient(params).flat

        ends.append(scipy.optimize.minimize(profile, start.flat, jac=True, method="BFGS").fun)
    assert min(ends) == pytest.approx(best, rel=1e-9)
    assert min(ends) >= best * (1 - 1e-12)


def test_strong_ridges_leave_nothing():
    eigenvalues = np.linalg.eigvalsh(commuting(10))
    covariances = np.stack([np.diag(row) for row in eigenvalues])
    edge = float(np.sum(np.mean(eigenvalues**2, axis=0) ** 2))  # Σ_k a_k²
    for factor, collapsed in ((1.01, True), (0.99, False)):
        ridge = np.sqrt(factor * edge)
        found = in_context_optimum(covariances, 4, value_ridge=ridge, kernel_ridge=ridge)
        assert (found.params.flat == 0.0).all() == collapsed
        zero = 0.5 * np.mean([np.trace(c) for c in covariances])
        assert (found.loss == pytest.approx(zero, rel=1e-14)) == collapsed
        check = check_in_context_optimum(covariances, 4, value_ridge=ridge, kernel_ridge=ridge)
        assert check.dual_norm <= ridge * (1 + 1e-12)


def test_drift_of_the_value_has_a_formula():
    """At the optimal kernel the frozen stage moves v alone, with a_i and c_i of every client."""
    covariances, n, noise = commuting(11), 6, 0.3
    options = {"weights": WEIGHTS, **RIDGES}
    optimum = in_context_optimum(covariances, n, noise, **options)
    limit = in_context_limit(covariances, n, noise, **options)
    turn = np.linalg.eigh(covariances.sum(axis=0))[1]
    scales = np.diag(turn.T @ optimum.params.kernel[0, :3, :3] @ turn)
    eigenvalues = np.stack([np.diag(turn.T @ c @ turn) for c in covariances])
    spread = (1 + 1 / n) * eigenvalues + (eigenvalues.sum(axis=1)[:, None] + noise**2) / n
    curvature = (scales**2 * eigenvalues**2 * spread).sum(axis=1) + RIDGES["value_ridge"]
    linear = (scales * eigenvalues**2).sum(axis=1)
    for local_steps in (1, 20):
        eta = 0.5 / curvature.max()
        share = np.asarray(WEIGHTS) * (1 - (1 - eta * curvature) ** local_steps)
        settled = (share @ (linear / curvature)) / share.sum()
        stage = limit.frozen_stage(optimum.params, local_steps=local_steps, local_lr=eta)
        assert stage.fixed_point.ravel() == pytest.approx([0, 0, 0, settled], abs=1e-13)
        lag = settled - optimum.params.value[0, -1, 0]
        floor = 0.5 * float(np.asarray(WEIGHTS) @ curvature) * lag**2
        gap = limit.objective(optimum.params.replace(value=stage.fixed_point)) - optimum.loss
        assert gap == pytest.approx(floor, rel=1e-6, abs=1e-14)
        assert (abs(lag) < 1e-13) == (local_steps == 1)


def test_samples_scatter_around_the_formula():
    options = {"context_length": [3, 8], "noise": [0.2, 0.6]}
    covariances = commuting(12, 2)
    optimum = in_context_optimum(covariances, *options.values())
    clients = la.in_context_clients(covariances, sequences_per_client=20_000, seed=3, **options)
    for expected, (tokens, targets, queries) in zip(optimum.client_losses, clients, strict=True):
        error = la.predict(optimum.params, tokens, queries=queries) - targets
        losses = 0.5 * error[:, 0, 0] ** 2
        allowed = 4.0 * losses.std() / np.sqrt(losses.size)
        assert allowed < 0.1 * expected
        assert losses.mean() == pytest.approx(expected, abs=allowed)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.eye(2), 3), {"value_ridge": 0.1}, "value_ridge and kernel_ridge must be both zero or"),
        ((1e101 * np.eye(2), 3), {}, r"covariances must be at most 1e\+100"),
        ((np.eye(2), 2**60), {}, r"context_length must be at most 2\*\*53"),
        ((np.eye(2), 0), {}, "context_length must be an integer >= 1, got 0"),
        ((np.eye(2), [3, 4]), {}, "context_length must be one number or 1, one per client, got 2"),
        ((np.eye(2), 3, -0.1), {}, "noise must be >= 0, got -0.1"),
        (([[1.0, 0.5], [0.0, 1.0]], 3), {}, "covariances must be symmetric and positive"),
        ((np.diag([1.0, -1.0]), 3), {}, "covariances must be symmetric and positive semidefinite"),
        ((np.ones((1, 2, 3)), 3), {}, r"covariances must have shape \(C, D, D\) or \(D, D\), got"),
        (([[[2.0, 0], [0, 1]], [[1, 0.5], [0.5, 1]]], 3), {}, "covariances must commute"),
        ((np.stack([np.eye(2)] * 2), 3), {"weights": [0.5, 0.6]}, "weights must sum to 1"),
    ],
)
def test_bad_worlds_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        in_context_optimum(*arguments, **options)


@pytest.mark.parametrize("ridge", [1e-300, 1e-200, 1e-12])
def test_weak_ridges_have_the_limit_without(ridge):
    """And no overflow on the way, which would be an error here."""
    free = in_context_optimum(np.eye(3), 4, 0.2)
    weak = in_context_optimum(np.eye(3), 4, 0.2, value_ridge=ridge, kernel_ridge=ridge)
    assert weak.loss == pytest.approx(free.loss, rel=2e-11)
    product = weak.params.value[0, -1, 0] * weak.scales
    assert product == pytest.approx(free.scales, rel=1e-9)


def test_covariances_that_do_not_commute_have_a_limit_all_the_same():
    rng = np.random.default_rng(13)
    covariances = np.stack([commuting(k, 1)[0] for k in (1, 2)])
    limit = in_context_limit(covariances, 4, 0.1, **RIDGES)
    params = la.Params.merged(rng.normal(size=(4, 4)), np.zeros((4, 1)))
    star = params.replace(value=limit.minimizer(params))
    assert limit.objective(star) == pytest.approx(limit.value(params), rel=1e-14)
    assert np.abs(limit.joint_gradient(star)["value"]).max() < 1e-12
