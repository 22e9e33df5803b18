"""Self-checks of the naive twin: the identities of paper_notes.md hold on random instances."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import reference as ref
from scipy.optimize import minimize

SEEDS = range(4)
KINDS = ("merged", "factored")
both_kinds = pytest.mark.parametrize("kind", KINDS)
seeds = pytest.mark.parametrize("seed", SEEDS)


TINY = {"dim": 2, "num_outputs": 2, "num_clients": 2, "sequences": (2, 2), "tokens": (3, 5),
        "value_ridge": 0.2, "kernel_ridge": 0.2, "noise": 0.3, "readout": "token"}  # fmt: skip


def make(seed, kind="merged", num_heads=None, **options):
    """A small random instance with parameters; the rest of the stream is returned too."""
    rng = np.random.default_rng(seed)
    options = {"sequences": (2, 4), "tokens": (1, 8), "dim": int(rng.integers(2, 5))} | options
    inst = ref.random_instance(rng, **options)
    theta, V = ref.random_params(rng, inst, kind, num_heads)
    return rng, inst, theta, V


def gentle_step(inst, theta, fraction=0.5):
    """A step size below 1/L_K, 1/λ_max(A_i), small enough for a stable warm-up."""
    return fraction * ref.safe_step(inst, theta)


def noisy_run(seed, kind, *, rounds=2, local_steps=3, sampled=True, fraction=0.5, **options):
    """A short FedAvg run, with minibatches and sampling if asked for."""
    rng, inst, theta, V = make(seed, kind, **options)
    eta, extra = gentle_step(inst, theta, fraction), {}
    if sampled:
        count = max(1, len(inst.clients) // 2)
        extra["participants"] = ref.random_participants(rng, inst, rounds=rounds, count=count)
        sizes = {"rounds": rounds, "local_steps": local_steps, "batch_size": 2}
        extra["batches"] = ref.random_batches(rng, inst, **sizes)
    run = ref.fedavg(inst, theta, V, rounds=rounds, local_steps=local_steps, local_lr=eta, **extra)
    return inst, run, eta


def close(left, right, scale=None, tolerance=1e-10):
    """Relative agreement, measured against `scale` or the larger of the two sides."""
    left, right = np.asarray(left), np.asarray(right)
    scale = max(np.max(np.abs(left)), np.max(np.abs(right))) if scale is None else scale
    return np.max(np.abs(left - right)) <= tolerance * scale


def step_scale(inst, step, eta):
    """|P| + Σ|terms|: the rounding scale of one local step of a certificate."""
    terms = ref.ledger_terms(inst, step, eta)
    return ref.profile(inst, step.theta) + sum(abs(x) for x in terms.values())


# ------------------------------------------------------------------------ model and gradients


@seeds
def test_random_instance_covers_the_promised_ranges(seed):
    inst = ref.random_instance(np.random.default_rng(seed))
    dim, num_outputs = ref.sizes(inst)
    assert 2 <= dim <= 8
    assert 1 <= num_outputs <= 5
    assert 2 <= len(inst.clients) <= 8
    assert all(3 <= len(client) <= 20 for client in inst.clients)
    assert abs(inst.weights.sum() - 1) < 1e-14
    assert inst.weights.max() / inst.weights.min() <= 50
    assert min(inst.value_ridge, inst.kernel_ridge) >= 1e-4
    for X, Y in (pair for client in inst.clients for pair in client):
        assert 1 <= len(X) <= 12
        assert len(Y) == len(ref.queries(X, inst.readout))


@seeds
def test_prediction_is_scores_times_values_and_features_times_value_block(seed):
    _, inst, (B,), V = make(seed)
    X, _ = inst.clients[0][0]
    G, U = X.T @ X / len(X), ref.queries(X, inst.readout)
    direct = sum(U @ b @ G @ v for b, v in zip(B, V, strict=True))
    assert close(ref.predict(X, B, V, inst.readout), direct)
    assert close(ref.features(X, B, inst.readout) @ ref.stack(V), direct)
    jacobian = ref.sequence_jacobian(X, V, inst.readout)
    assert close(jacobian @ B.ravel(), direct.ravel())


@seeds
def test_sequence_loss_equals_its_statistics_form(seed):
    _, inst, (B,), V = make(seed)
    X, Y = inst.clients[0][0]
    G, U = X.T @ X / len(X), ref.queries(X, inst.readout)
    M, K, c = U.T @ U / len(U), U.T @ Y / len(U), np.sum(Y**2) / len(U)
    Z = sum(b @ G @ v for b, v in zip(B, V, strict=True))
    loss = 0.5 * (c - 2 * np.sum(K * Z) + np.sum(Z * (M @ Z)))
    assert close(ref.sequence_loss(X, Y, B, V, inst.readout), loss)
    (dB,), dV = ref.sequence_gradient(X, Y, B, V, inst.readout)
    R = M @ Z - K
    assert close(dB, [R @ (G @ v).T for v in V])
    assert close(dV, [G @ b.T @ R for b in B])


@seeds
@both_kinds
def test_gradient_matches_differences_and_taylor_slope(seed, kind):
    rng, inst, theta, V = make(seed, kind)
    kernel, value = ref.gradient(inst, theta, V)
    by_value = ref.central_difference(lambda v: ref.objective(inst, theta, v), V)
    assert close(value, by_value, tolerance=1e-6)
    d_theta, d_value = ref.random_params(rng, inst, kind, len(V))
    d_theta = tuple(np.resize(d, t.shape) for d, t in zip(d_theta, theta, strict=True))
    slope = ref.dot(kernel, d_theta) + ref.dot(value, d_value)
    start, steps = ref.objective(inst, theta, V), np.array([1e-2, 1e-3])
    moved = [ref.objective(inst, ref.add(theta, d_theta, t), V + t * d_value) for t in steps]
    first, second = np.abs(np.array(moved) - start - steps * slope)
    assert 1.9 < np.log10(first / second) < 2.1


@seeds
@both_kinds
def test_minibatch_gradients_average_to_the_full_gradient(seed, kind):
    _, inst, theta, V = make(seed, kind)
    count = len(inst.clients[0])
    singles = [ref.client_gradient(inst, 0, theta, V, [s]) for s in range(count)]
    full_kernel, full_value = ref.client_gradient(inst, 0, theta, V)
    assert close(np.mean([v for _, v in singles], axis=0), full_value)
    mean = ref.weighted_sum(np.full(count, 1 / count), [k for k, _ in singles])
    assert all(close(a, b) for a, b in zip(mean, full_kernel, strict=True))


@seeds
def test_hessian_vector_product_matches_its_formula(seed):
    rng, inst, (B,), V = make(seed)
    D, W = ref.random_merged(rng, inst, len(V))
    kernel, value = inst.kernel_ridge * D, inst.value_ridge * W
    for p, client in zip(inst.weights, inst.clients, strict=True):
        for X, Y in client:
            G, U = X.T @ X / len(X), ref.queries(X, inst.readout)
            M = U.T @ U / len(U)
            R = U.T @ (ref.predict(X, B, V, inst.readout) - Y) / len(U)
            pairs = list(zip(D, W, B, V, strict=True))
            Z = sum(d @ G @ v + b @ G @ w for d, w, b, v in pairs)
            share = p / len(client)
            kernel_parts = [M @ Z @ (G @ v).T + R @ (G @ w).T for _, w, _, v in pairs]
            value_parts = [G @ b.T @ M @ Z + G @ d.T @ R for d, _, b, _ in pairs]
            kernel = kernel + share * np.array(kernel_parts)
            value = value + share * np.array(value_parts)
    (by_difference,), value_difference = ref.joint_hvp(inst, B, V, (D,), W)
    assert close(by_difference, kernel, tolerance=1e-9)
    assert close(value_difference, value, tolerance=1e-9)


@both_kinds
def test_profile_hessian_vector_product_eliminates_the_value_block(kind):
    rng, inst, theta, _ = make(5, kind, value_ridge=0.1)
    star = ref.minimizer(inst, theta)
    D = tuple(rng.standard_normal(t.shape) for t in theta)
    _, pull = ref.joint_hvp(inst, theta, star, D, np.zeros_like(star))
    W = -ref.unstack(np.linalg.solve(ref.value_matrix(inst, theta), ref.stack(pull)), len(star))
    kernel, value = ref.joint_hvp(inst, theta, star, D, W)
    by_difference = ref.profile_hvp(inst, theta, D)
    assert all(close(a, b, tolerance=1e-7) for a, b in zip(kernel, by_difference, strict=True))
    assert np.max(np.abs(value)) < 1e-10 * np.max(np.abs(pull))


# ------------------------------------------------------------------------ C1, C2, C3, C3f


@seeds
@both_kinds
def test_c1_gap_and_the_two_forms_of_the_profile(seed, kind):
    _, inst, theta, V = make(seed, kind)
    value = ref.profile(inst, theta)
    total = ref.objective(inst, theta, V)
    assert close(total - value, ref.gap(inst, theta, V), scale=total)
    assert close(value, ref.profile_closed_form(inst, theta), scale=total, tolerance=1e-9)
    residual = ref.gradient(inst, theta, ref.minimizer(inst, theta))[1]
    assert close(residual, 0 * residual, scale=np.max(np.abs(ref.value_linear(inst, theta))))


@pytest.mark.parametrize("seed", range(2))
@both_kinds
def test_c2_envelope_gradient_equals_differences_of_the_profile(seed, kind):
    _, inst, theta, _ = make(seed, kind, value_ridge=0.05, dim=3)
    envelope = ref.profile_gradient(inst, theta)
    differences = ref.profile_gradient_differences(inst, theta)
    assert all(close(a, b, tolerance=1e-5) for a, b in zip(envelope, differences, strict=True))


@seeds
def test_c3_increment_is_exact_and_bounded(seed):
    rng, inst, (B,), _ = make(seed)
    for scale in (1e-3, 0.1, 1.0, 10.0):
        sides = ref.increment(inst, B, scale * rng.standard_normal(B.shape))
        size = abs(sides["left"]) + abs(sides["upper"])
        assert close(sides["left"], sides["right"], scale=size)
        assert sides["left"] <= sides["upper"] + 1e-12 * size


@seeds
def test_c3_operator_is_the_kernel_hessian_and_its_bound_is_safe(seed):
    rng, inst, (B,), V = make(seed)
    D = rng.standard_normal(B.shape)
    (by_difference,), _ = ref.joint_hvp(inst, B, V, (D,), np.zeros_like(V))
    assert close(ref.curvature_apply(inst, V, D), by_difference, tolerance=1e-9)
    assert ref.curvature(inst, B) <= ref.curvature_safe_bound(inst, B) * (1 + 1e-12)
    assert ref.head_curvature(inst, B) <= ref.curvature(inst, B) * (1 + 1e-12)


def test_c3_operator_is_a_kronecker_product_and_heads_add_up():
    _, inst, (B,), V = make(3, num_heads=3)
    expected = inst.kernel_ridge * np.eye(B.size)
    for p, client in zip(inst.weights, inst.clients, strict=True):
        for X, _ in client:
            U, G = ref.queries(X, inst.readout), X.T @ X / len(X)
            gamma = [G @ v for v in V]
            M, share = U.T @ U / len(U), p / len(client)
            expected += share * np.block([[np.kron(M, g @ f.T) for f in gamma] for g in gamma])
    assert close(ref.curvature_matrix(inst, V), expected)
    same = np.repeat(B[:1], 3, axis=0)
    assert ref.curvature(inst, same) > 2.0 * ref.head_curvature(inst, same)


@seeds
@both_kinds
def test_c3f_has_no_constant(seed, kind):
    rng, inst, theta, _ = make(seed, kind)
    moved = tuple(t + 0.3 * rng.standard_normal(t.shape) for t in theta)
    sides = ref.increment_free(inst, theta, moved)
    assert close(sides["left"], sides["right"], scale=sides["upper"], tolerance=1e-9)
    assert sides["left"] <= sides["upper"] * (1 + 1e-12)


@pytest.mark.parametrize(("factor", "collapsed"), [(1.01, True), (0.99, False)])
def test_zero_kernel_is_the_minimizer_exactly_at_the_collapse_threshold(factor, collapsed):
    rng, inst, _, _ = make(8, value_ridge=0.3, dim=2, num_outputs=2)
    critical, _ = ref.collapse(inst)
    inst = inst._replace(kernel_ridge=factor * critical / inst.value_ridge)
    zero, start = np.zeros((2, 2, 2)), ref.profile(inst, np.zeros((2, 2, 2)))
    assert ref.norm_sq(ref.profile_gradient(inst, zero)) == 0
    gradient = ref.residual_matrix(inst, zero, np.zeros((2, 2, 2)))
    top = np.linalg.svd(gradient)[0][:, 0].reshape(2, 2)
    along = [ref.profile(inst, np.array([t * top, 0 * top])) for t in (0.01, 0.05)]
    if collapsed:
        tries = [ref.profile(inst, s * rng.standard_normal((2, 2, 2))) for s in (0.1, 0.5, 2.0)]
        assert start <= min(along + tries)
        assert close(ref.lower_bound(inst, zero, np.zeros((2, 2, 2))), start)
    else:
        assert min(along) < start


def test_zero_factors_are_a_strict_local_minimum_within_a_known_radius():
    """P(θ) > P(0) for 0 < ‖θ‖² < 4λμ/σ²: ‖C‖ ≤ σ‖B‖ ≤ σ‖θ‖²/2 and A⁻¹ ⪯ 1/λ (section 1)."""
    rng, inst, (Q, K), _ = make(9, "factored", **TINY)
    start, (critical, product) = ref.profile(inst, (0 * Q, 0 * K)), ref.collapse(inst)
    for _ in range(20):
        theta = rng.standard_normal(Q.shape), rng.standard_normal(Q.shape)
        radius = np.sqrt(0.99 * 4 * product / critical / ref.norm_sq(theta))
        assert ref.profile(inst, tuple(radius * block for block in theta)) > start


def test_rescaling_predicts_the_same_so_both_ridges_are_needed():
    _, inst, (B,), V = make(1)
    X, _ = inst.clients[0][0]
    moved = ref.rescale(B, V, 3.0)
    assert close(ref.predict(X, B, V, inst.readout), ref.predict(X, *moved, inst.readout))
    free = inst._replace(kernel_ridge=0.0)
    values = [ref.profile(free, factor * B) for factor in (1.0, 10.0, 100.0)]
    assert values[0] > values[1] > values[2]


# ------------------------------------------------------------------------ C11, C12, C15


@seeds
def test_c11_merged_euler_identities(seed):
    _, inst, (B,), V = make(seed)
    left, right = ref.euler_merged(inst, B, V)
    assert close(left, right)
    left, right = ref.euler_profile(inst, B)
    star = ref.minimizer(inst, B)
    size = inst.kernel_ridge * ref.norm_sq(B) + inst.value_ridge * ref.norm_sq(star)
    assert close(left, right, scale=size + abs(ref.profile(inst, B)))


@seeds
def test_c11_factored_identities_and_imbalance(seed):
    _, inst, (Q, K), V = make(seed, "factored")
    left, right = ref.euler_factored(inst, Q, K, V)
    assert close(left, right)
    after, predicted = ref.imbalance_step(inst, Q, K, V, 0.05)
    assert close(after, predicted, scale=ref.norm_sq(Q) + ref.norm_sq(K) + np.max(np.abs(after)))


def descend(inst, theta, steps=2000):
    """Towards a stationary point of the profile by L-BFGS on the envelope gradient."""
    theta, none = ref.blocks(theta), np.zeros(0)

    def both(vector):
        at = ref.unflatten(vector, theta, none)[0]
        return ref.profile(inst, at), ref.flatten(ref.profile_gradient(inst, at), none)

    options = {"maxiter": steps, "ftol": 0.0, "gtol": 1e-9}
    found = minimize(both, ref.flatten(theta, none), jac=True, method="L-BFGS-B", options=options)
    return ref.unflatten(found.x, theta, none)[0]


def test_c11_balance_at_stationary_points_and_c15_certificate():
    _, inst, (B,), _ = make(11, num_heads=3, **TINY)
    (B,) = descend(inst, B)
    star = ref.minimizer(inst, B)
    grams = inst.kernel_ridge * ref.gram(B), inst.value_ridge * ref.gram(star)
    assert close(*grams, tolerance=1e-5)
    assert np.max(grams[0]) > 1e-3
    norm, tau = np.linalg.norm(ref.residual_matrix(inst, B, star), 2), ref.threshold(inst)
    best = ref.profile(inst, B)
    assert norm <= tau * (1 + 1e-5)
    assert close(ref.lower_bound(inst, B, star), best, tolerance=1e-5)
    nuclear = np.sum(np.linalg.svd(ref.function_matrix(B, star))[1])
    assert close(ref.ridge(inst, B, star), tau * nuclear, tolerance=1e-5)


def test_c11_factored_balance_at_stationary_points():
    _, inst, theta, _ = make(12, "factored", num_heads=2, **TINY)
    Q, K = descend(inst, theta)
    star = ref.minimizer(inst, (Q, K))
    assert close(ref.imbalance(Q, K), 0 * ref.imbalance(Q, K), scale=ref.norm_sq(Q), tolerance=1e-5)
    for q, k, v in zip(Q, K, star, strict=True):
        assert close(ref.norm_sq(q), ref.norm_sq(k), scale=ref.norm_sq(Q), tolerance=1e-5)
        left, right = inst.kernel_ridge * ref.norm_sq(q), inst.value_ridge * ref.norm_sq(v)
        assert close(left, right, scale=inst.kernel_ridge * ref.norm_sq(Q), tolerance=1e-5)


@seeds
def test_c12_gauges_leave_the_data_term_alone(seed):
    rng, inst, (B,), V = make(seed)
    heads = len(V)
    orthogonal = np.linalg.qr(rng.standard_normal((heads, heads)))[0]
    general = orthogonal + 0.3 * np.triu(np.ones((heads, heads)))
    mixed = ref.mix_heads(B, V, general)
    assert close(ref.data_loss(inst, B, V), ref.data_loss(inst, *mixed))
    assert close(ref.function_matrix(B, V), ref.function_matrix(*mixed))
    rotated = ref.mix_heads(B, V, orthogonal)
    assert close(ref.objective(inst, B, V), ref.objective(inst, *rotated))
    assert close(ref.profile(inst, B), ref.profile(inst, rotated[0]))


@seeds
def test_c12_factor_basis(seed):
    rng, inst, (Q, K), V = make(seed, "factored")
    rank, heads = Q.shape[2], len(V)
    bases = [np.eye(rank) + 0.3 * rng.standard_normal((rank, rank)) for _ in range(heads)]
    moved = ref.change_basis(Q, K, bases)
    assert close(ref.kernels((Q, K)), ref.kernels(moved), tolerance=1e-8)
    orthogonal = [np.linalg.qr(base)[0] for base in bases]
    rotated = ref.change_basis(Q, K, orthogonal)
    assert close(ref.objective(inst, (Q, K), V), ref.objective(inst, rotated, V))


@seeds
def test_c15_lower_bounds_hold_from_any_point(seed):
    rng, inst, (B,), V = make(seed, dim=3, tokens=(1, 5))
    gradient = ref.residual_matrix(inst, B, V)
    ((dB,), dV) = ref.data_gradient(inst, B, V)
    assert close(dB[0].ravel(), gradient @ V[0].ravel())
    assert close(dV[0].ravel(), gradient.T @ B[0].ravel())
    plain = ref.least_squares(inst)
    starts = [ref.random_merged(rng, inst)[0] for _ in range(4)]
    starts += [descend(inst, start, 5)[0] for start in starts[:2]]
    best = min(ref.profile(inst, start) for start in starts)
    for start in starts:
        assert ref.lower_bound(inst, start, ref.minimizer(inst, start)) <= best + 1e-12
    assert plain <= best


@seeds
def test_c15_factored_bound_holds(seed):
    rng, inst, _, _ = make(seed, "factored", dim=3, tokens=(1, 5))
    plain = ref.least_squares(inst)
    starts = [ref.random_factored(rng, inst)[0] for _ in range(4)]
    starts += [descend(inst, start, 5) for start in starts[:2]]
    values = [ref.profile(inst, start) for start in starts]
    known = max(values)
    for start in starts:
        V = ref.minimizer(inst, start)
        assert ref.factored_lower_bound(inst, start, V, known, plain) <= min(values) + 1e-12


@seeds
@both_kinds
def test_data_loss_is_a_quadratic_in_cubic_moments(seed, kind):
    _, inst, theta, V = make(seed, kind, dim=3)
    square, linear, energy = ref.moments(inst)
    W = ref.cubic_coefficients(theta, V)
    value = 0.5 * (energy - 2 * np.sum(W * linear) + np.sum(W * (square @ W)))
    assert close(value, ref.data_loss(inst, theta, V), scale=energy + np.sum(W * (square @ W)))


# ------------------------------------------------------------------------ C4, C4f, C14


@seeds
@both_kinds
def test_c4_steps_with_minibatches_and_sampling(seed, kind):
    inst, run, eta = noisy_run(seed, kind)
    for step in run.steps:
        sides, scale = ref.descent_step(inst, step, eta), step_scale(inst, step, eta)
        assert close(sides["left"], sides["right"], scale=scale)
        assert sides["left"] <= sides["upper"] + 1e-12 * scale
        total = ref.add(ref.add(step.track, step.drift), ref.add(step.noise, step.sampling))
        error = ref.total_error(step)
        assert all(close(a, b, tolerance=1e-8) for a, b in zip(total, error, strict=True))
        subtracted = ref.step_remainder_by_subtraction(inst, step, eta)
        assert close(ref.step_remainder(inst, step, eta), subtracted, scale=scale)


@pytest.mark.parametrize("fraction", [4.0, 40.0])
def test_c4_holds_for_every_step_size(fraction):
    inst, run, eta = noisy_run(1, "merged", rounds=1, local_steps=2, fraction=fraction)
    for step in run.steps:
        sides, scale = ref.descent_step(inst, step, eta), step_scale(inst, step, eta)
        assert close(sides["left"], sides["right"], scale=scale)
        assert sides["left"] <= sides["upper"] + 1e-12 * scale


def test_c4_slack_is_eigenvalue_slack_plus_resolve_gain():
    inst, run, eta = noisy_run(2, "merged")
    for step in run.steps:
        sides, terms = ref.descent_step(inst, step, eta), ref.ledger_terms(inst, step, eta)
        top = 0.5 * eta**2 * ref.curvature(inst, step.theta) * ref.norm_sq(step.update)
        slack = top - terms["curvature"] - terms["resolve"]
        assert close(sides["upper"] - sides["left"], slack, scale=step_scale(inst, step, eta))


@both_kinds
def test_c4_ledger_accumulates_and_bounds_the_profile(kind):
    inst, run, eta = noisy_run(3, kind, rounds=3)
    table = ref.certificate(inst, run, eta)
    assert close(table["additive"], table["profile"])
    assert np.all(table["certificate"] >= table["profile"] * (1 - 1e-12))
    assert table["certificate"][0] == table["profile"][0]


@both_kinds
def test_null_errors_one_local_step_full_participation_identical_clients(kind):
    inst, run, _ = noisy_run(0, kind, rounds=2, local_steps=1, sampled=False)
    size = np.sqrt(ref.norm_sq(run.steps[0].update))
    for step in run.steps:
        for error in (step.drift, step.noise, step.sampling):
            assert np.sqrt(ref.norm_sq(error)) < 1e-12 * size
    twins = inst._replace(clients=[inst.clients[0]] * len(inst.clients))
    theta, V = run.path[0]
    options = {"rounds": 2, "local_steps": 3, "local_lr": gentle_step(twins, theta)}
    same = ref.fedavg(twins, theta, V, **options)
    assert max(np.sqrt(ref.norm_sq(step.drift)) for step in same.steps) < 1e-12 * size
    alone, _ = ref.centralized(twins, theta, V, steps=6, step_size=options["local_lr"])
    assert all(close(a, b) for a, b in zip(alone, same.path[-1][0], strict=True))


@both_kinds
def test_virtual_iterate_is_continuous_and_ends_at_the_server(kind):
    _, run, _ = noisy_run(2, kind)
    for before, after in zip(run.steps, run.steps[1:], strict=False):
        assert close(before.theta_next[0], after.theta[0])
        assert close(before.value_next, after.value)
    assert close(run.steps[-1].theta_next[0], run.path[-1][0][0])
    _, everyone, _ = noisy_run(2, kind, sampled=False)
    assert min(min(pair) for pair in everyone.drifts) > 0


def test_first_step_from_zero_value_is_the_pure_ridge_step():
    _, inst, (B,), V = make(4)
    run = ref.fedavg(inst, B, 0 * V, rounds=1, local_steps=1, local_lr=0.1)
    assert close(run.path[1][0][0], (1 - 0.1 * inst.kernel_ridge) * B)


@seeds
def test_c14_chain(seed):
    inst, run, eta = noisy_run(seed, "merged", rounds=3)
    sides = ref.pl_chain(inst, run, eta, reference=0.0)
    assert sides["eta_L"] <= 1
    assert sides["left"] <= sides["upper"] * (1 + 1e-10)


# ------------------------------------------------------------------------ C5, C6, C10


@seeds
def test_c5_tracking_bounds_and_coupling_matrix(seed):
    rng, inst, (B,), V = make(seed, dim=3, sequences=(2, 3))
    for scale in (0.1, 1.0, 10.0):
        error, upper = ref.tracking_bound(inst, B, scale * V)
        assert error <= upper * (1 + 1e-12)
    W = rng.standard_normal(V.shape)
    star = ref.minimizer(inst, B)
    (mixed,), _ = ref.joint_hvp(inst, B, star, (np.zeros_like(B),), W)
    assert close(ref.coupling_matrix(inst, B) @ W.ravel(), mixed.ravel(), tolerance=1e-8)


@seeds
def test_c5_factored_bound(seed):
    _, inst, (Q, K), V = make(seed, "factored")
    left, right = ref.tracking_bound_factored(inst, Q, K, V)
    assert left <= right * (1 + 1e-12)


@seeds
@both_kinds
def test_c5_recursion(seed, kind):
    inst, run, eta = noisy_run(seed, kind, sampled=False)
    for step in run.steps:
        left, right = ref.tracking_recursion(inst, step, eta)
        scale = np.max(np.abs(ref.minimizer(inst, step.theta))) + np.max(np.abs(step.value))
        assert close(left, right, scale=scale, tolerance=1e-8)


@seeds
@both_kinds
@pytest.mark.parametrize("fraction", [0.5, 8.0])
def test_c6_consensus_recursion(seed, kind, fraction):
    inst, run, eta = noisy_run(seed, kind, rounds=1, sampled=False, fraction=fraction)
    for step in run.steps:
        sides = ref.consensus_step(inst, step, eta)
        assert sides["left"] <= sides["upper"] * (1 + 1e-10)


def test_c6_secant_constant_is_below_the_segment_bound():
    inst, run, eta = noisy_run(1, "merged", sampled=False, num_heads=1, dim=2, num_clients=2)
    for step in run.steps[1:3]:
        secant = ref.consensus_step(inst, step, eta)["secant"]
        assert secant <= ref.segment_constant(inst, step) * (1 + 1e-9)


@seeds
def test_c6_frozen_consensus_bounds(seed):
    _, inst, theta, V = make(seed)
    frozen = ref.frozen_quantities(inst, theta, local_steps=1, step_size=0.1)
    for fraction in (0.1, 0.9):
        options = {"local_steps": 6, "step_size": fraction / frozen.largest}
        sides = ref.frozen_consensus(inst, theta, V, **options)
        assert sides["left"] <= sides["upper_small_step"] * (1 + 1e-12)
        assert sides["upper_small_step"] <= sides["upper"] * (1 + 1e-9)
    options = {"local_steps": 6, "step_size": 1.9 / frozen.largest}
    sides = ref.frozen_consensus(inst, theta, V, **options)
    assert sides["left"] <= sides["upper"] * (1 + 1e-12)


def test_c6_frozen_bounds_need_the_largest_spread_not_the_first():
    """d = m = 1, A = (1, 4), equal C: ζ_0 = 0 at V = 0, and yet the clients drift apart."""
    clients = [[(np.array([[x]]), np.array([[y]]))] for x, y in ((1.0, 1.0), (4 ** (1 / 6), 0.5))]
    inst = ref.Instance(clients, "token", np.array([0.5, 0.5]), 1e-12, 0.0)
    options = {"local_steps": 2, "step_size": 0.2}
    sides = ref.frozen_consensus(inst, np.ones((1, 1, 1)), np.zeros((1, 1, 1)), **options)
    assert sides["zeta_start"] < 1e-12
    assert close(sides["left"], 0.06)
    assert close(sides["upper_sum"], 0.06)
    assert close(sides["upper"], 0.12)


@seeds
@both_kinds
def test_c10_mismatch(seed, kind):
    rng, inst, theta, V = make(seed, kind)
    models = {}
    for i in range(len(inst.clients)):
        moved = tuple(t + 0.5 * rng.standard_normal(t.shape) for t in theta)
        models[i] = moved, V + 0.5 * rng.standard_normal(V.shape)
    X, _ = inst.clients[-1][0]
    left, right = ref.mismatch(inst, X, models)
    assert close(left, right)
    assert np.max(np.abs(left)) > 0
    alone = {i: ((moved[0], *theta[1:]), V) for i, (moved, _) in models.items()}
    left, _ = ref.mismatch(inst, X, alone)
    assert close(left, 0 * left, scale=np.max(np.abs(ref.predict(X, theta, V, inst.readout))) + 1)


# ------------------------------------------------------------------------ C7, C8, C9, C13


@seeds
@both_kinds
def test_c7_closed_form_equals_simulation(seed, kind):
    _, inst, theta, V = make(seed, kind)
    eta = gentle_step(inst, theta)
    frozen = ref.frozen_quantities(inst, theta, local_steps=4, step_size=eta)
    simulated = ref.frozen_rounds(inst, theta, V, rounds=5, local_steps=4, step_size=eta)
    scale = np.linalg.norm(ref.stack(V) - frozen.fixed_point) + np.linalg.norm(frozen.fixed_point)
    for t, value in enumerate(simulated):
        assert close(ref.frozen_after(frozen, V, t), value, scale=scale)
    assert frozen.rate < 1


@seeds
@pytest.mark.parametrize("local_steps", [1, 2, 7])
def test_c8_bias_formula_and_bounds(seed, local_steps):
    _, inst, theta, _ = make(seed, value_ridge=0.05)
    for fraction in (0.2, 0.9, 1.9):
        largest = ref.frozen_quantities(inst, theta, local_steps=1, step_size=0.1).largest
        frozen = ref.frozen_quantities(
            inst, theta, local_steps=local_steps, step_size=fraction / largest
        )
        difference = frozen.fixed_point - frozen.minimizer
        assert close(
            difference, frozen.bias, scale=np.max(np.abs(frozen.minimizer)), tolerance=1e-9
        )
        assert frozen.rate < 1
        size = np.linalg.norm(frozen.bias)
        assert size <= frozen.bound * (1 + 1e-10)
        if fraction < 1:
            assert size <= frozen.bound_small_step * (1 + 1e-10) + 1e-300
            assert frozen.bound_small_step <= frozen.bound * (1 + 1e-10)


def test_c8_first_order_richardson_and_infinite_local_steps():
    _, inst, theta, _ = make(6, value_ridge=0.5)
    largest = ref.frozen_quantities(inst, theta, local_steps=1, step_size=0.1).largest

    def at(step_size, local_steps=4):
        return ref.frozen_quantities(
            inst, theta, local_steps=local_steps, step_size=step_size / largest
        )

    errors, combined = [], []
    for size in (1e-2, 1e-3):
        one, two = at(size), at(2 * size)
        first = np.linalg.norm(one.bias_first_order)
        errors.append(np.linalg.norm(one.bias - one.bias_first_order) / first)
        combined.append(np.linalg.norm(2 * one.bias - two.bias))
    assert 0.9 < np.log10(errors[0] / errors[1]) < 1.1
    assert 1.9 < np.log10(combined[0] / combined[1]) < 2.1
    stars = [ref.stack(ref.client_minimizer(inst, i, theta)) for i in range(len(inst.clients))]
    limit = ref.matrix_mean(inst.weights, stars)
    far, further = (np.max(np.abs(at(0.9, count).fixed_point - limit)) for count in (500, 2500))
    assert further < 1e-2 * far


def test_c8_null_controls():
    rng, inst, theta, V = make(7, value_ridge=0.1)
    options = {"local_steps": 5, "step_size": gentle_step(inst, theta)}
    size = np.max(np.abs(ref.minimizer(inst, theta)))
    assert np.all(ref.frozen_quantities(inst, theta, **options | {"local_steps": 1}).bias == 0)
    shared = []
    for _ in inst.clients:
        outputs = [ref.predict(X, theta, V, inst.readout) for X, _ in inst.clients[0]]
        targets = [rng.standard_normal(Y.shape) for Y in outputs]
        shared.append([(X, Y) for (X, _), Y in zip(inst.clients[0], targets, strict=True)])
    same = ref.frozen_quantities(inst._replace(clients=shared), theta, **options)
    assert np.max(np.abs(same.bias)) < 1e-13 * np.max(np.abs(same.minimizer))
    star, everyone = ref.minimizer(inst, theta), range(len(inst.clients))
    controls = [ref.client_gradient(inst, i, theta, star)[1] for i in everyone]
    moved = ref.scaffold_local(inst, theta, star, controls, **options)
    assert np.max(np.abs(moved - star)) < 1e-13 * size


def test_sampled_frozen_rounds_follow_the_mean_weights_not_p():
    """The mean of w_i = p_i / Σ_S p_j is p_i only for equal weights (notes, Frozen stage)."""
    _, inst, theta, V = make(2, num_clients=4)
    equal = inst._replace(weights=np.full(4, 0.25))
    options = {"rounds": 1, "local_steps": 3, "local_lr": gentle_step(inst, theta)}
    for case, same in ((equal, True), (inst, False)):
        ends = []
        for chosen in combinations(range(4), 2):
            run = ref.fedavg(case, theta, V, participants=[chosen], warmup_rounds=0, **options)
            ends.append(run.path[1][1])
        full = ref.fedavg(case, theta, V, warmup_rounds=0, **options).path[1][1]
        assert close(np.mean(ends, axis=0), full) == same


@pytest.mark.parametrize("terms", [3, 4, 50])
def test_powers_of_contractions_without_cancellation(terms):
    x = np.array([1e-12, 1e-3, 0.5, 0.999])
    assert np.allclose(-np.expm1(terms * np.log1p(-x)), 1 - (1 - x) ** terms, atol=1e-13)
    y = np.array([1.001, 1.5, 1.999999])
    tail = np.exp(terms * np.log1p(y - 2))
    direct = -np.expm1(terms * np.log1p(y - 2)) if terms % 2 == 0 else 1 + tail
    assert np.allclose(direct, 1 - (1 - y) ** terms, rtol=1e-12)


@both_kinds
@pytest.mark.parametrize("warmup_rounds", [0, 2, 5])
def test_c9_decomposition_is_exact(kind, warmup_rounds):
    _, inst, theta, V = make(4, kind, value_ridge=0.1)
    eta = gentle_step(inst, theta)
    parts = ref.bias_drift(
        inst, theta, V, warmup_rounds=warmup_rounds, rounds=5, local_steps=3, local_lr=eta,
        frozen_lr=0.5 * eta, reference=0.1,
    )  # fmt: skip
    names = ("kernel_bias", "value_transient", "value_floor", "value_cross")
    total = 0.1 + sum(parts[name] for name in names)
    assert close(parts["objective"], total)
    if warmup_rounds == 0:
        assert parts["profile"] == parts["profile_synchronized"]


@both_kinds
def test_c13_signals_and_their_relation_to_c3f(kind):
    inst, run, _ = noisy_run(5, kind, sampled=False, rounds=4)
    for (theta, V), (theta_next, _) in zip(run.path, run.path[1:], strict=False):
        signals = ref.freeze_signals(inst, theta, V, theta_next)
        fell = ref.profile(inst, theta) - ref.profile(inst, theta_next)
        assert fell >= signals["certified"] - 1e-12 * ref.profile(inst, theta)
    for rule in ("profile", "observable", "certified"):
        fired = ref.freeze_round(inst, run.path, rule)
        assert fired is None or 1 <= fired <= 3


# ------------------------------------------------------------------------ C16


def covariance(rng, dim):
    factor = rng.standard_normal((dim, dim))
    return factor @ factor.T + 0.1 * np.eye(dim)


@pytest.mark.parametrize(("n", "readout"), [(1, "token"), (2, "token"), (2, "last"), (2, "mean")])
def test_c16_closed_formula_equals_wick_pairings(n, readout):
    rng = np.random.default_rng(n)
    S, P, Q = covariance(rng, 2), rng.standard_normal((2, 2)), rng.standard_normal((2, 2))
    brute = ref.psi_wick(S, P, Q, n, readout)
    scale = 1 / n if readout == "mean" else 1.0
    assert close(scale * ref.psi(S, P, Q, n), brute)


def gauss_hermite_instance(root, teacher, value, n, readout):
    """Every node of a tensor rule (exact to degree 7 per coordinate) as one weighted client."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights, clients, shares = weights / weights.sum(), [], []
    for chosen in product(range(4), repeat=n * len(root)):
        X = nodes[list(chosen)].reshape(n, len(root)) @ root.T
        clients.append([(X, ref.predict(X, teacher, value, readout))])
        shares.append(np.prod(weights[list(chosen)]))
    return ref.Instance(clients, readout, np.array(shares), 0.1, 0.1)


@pytest.mark.parametrize("readout", ref.READOUTS)
@pytest.mark.parametrize("n", [1, 2])
def test_c16_population_blocks_equal_exact_quadrature(n, readout):
    rng = np.random.default_rng(n)
    S, B, T = covariance(rng, 2), rng.standard_normal((2, 2, 2)), rng.standard_normal((2, 2, 2))
    V, D = rng.standard_normal((2, 2, 3)), rng.standard_normal((2, 2, 2))
    inst = gauss_hermite_instance(np.linalg.cholesky(S), T, V, n, readout)
    H, C, energy = ref.population_blocks(S, B, T, V, n, readout=readout)
    assert close(ref.value_matrix(inst, B), H + 0.1 * np.eye(4))
    assert close(ref.value_linear(inst, B), C)
    assert close(2 * ref.data_loss(inst, 0 * B, V), energy)
    operator = ref.population_curvature_apply(S, V, D, n, 0.1, readout)
    assert close(ref.curvature_apply(inst, V, D), operator)
    noisy = ref.population_blocks(S, B, T, V, n, readout=readout, noise=0.5)
    assert close(noisy[2] - energy, 3 * 0.25)


def test_c16_population_limit_is_the_noise_free_limit():
    rng = np.random.default_rng(1)
    S, P, Q = covariance(rng, 3), rng.standard_normal((3, 3)), rng.standard_normal((3, 3))
    assert close(ref.psi(S, P, Q, 1e14), S @ P @ S @ Q @ S)
    assert close(ref.psi(S, P, Q, 4.0).T, ref.psi(S, Q.T, P.T, 4.0))
