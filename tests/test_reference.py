"""Self-checks of the naive twin: the identities of paper_notes.md hold on random instances."""

from __future__ import annotations

from itertools import product

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
@both_kinds
def test_minibatch_gradients_average_to_the_full_gradient(seed, kind):
    _, inst, theta, V = make(seed, kind)
    count = len(inst.clients[0])
    singles = [ref.client_gradient(inst, 0, theta, V, [s]) for s in range(count)]
    full_kernel, full_value = ref.client_gradient(inst, 0, theta, V)
    assert close(np.mean([v for _, v in singles], axis=0), full_value)
    mean = ref.weighted_sum(np.full(count, 1 / count), [k for k, _ in singles])
    assert all(close(a, b) for a, b in zip(mean, full_kernel, strict=True))


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


# ------------------------------------------------------------------------ C3


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
    rescaled = ref.predict(X, 3.0 * B, V / 3.0, inst.readout)
    assert close(ref.predict(X, B, V, inst.readout), rescaled)
    free = inst._replace(kernel_ridge=0.0)
    values = [ref.profile(free, factor * B) for factor in (1.0, 10.0, 100.0)]
    assert values[0] > values[1] > values[2]


# ------------------------------------------------------------------------ C11, C12, C15


@seeds
def test_c11_euler_identity_of_the_profile(seed):
    """⟨∇P, B⟩ = μ‖B‖² − λ‖V*‖²."""
    _, inst, (B,), _ = make(seed)
    kernel = inst.kernel_ridge * ref.norm_sq(B)
    value = inst.value_ridge * ref.norm_sq(ref.minimizer(inst, B))
    along = ref.dot(ref.profile_gradient(inst, B), B)
    assert close(along, kernel - value, scale=kernel + value + abs(ref.profile(inst, B)))


@seeds
def test_c11_imbalance_of_factors(seed):
    """W after one gradient step is (1 − 2ημ)W + η²(∂Qᵀ∂Q − ∂Kᵀ∂K)."""
    _, inst, (Q, K), V = make(seed, "factored")
    (dQ, dK), _ = ref.gradient(inst, (Q, K), V)
    after = ref.imbalance(Q - 0.05 * dQ, K - 0.05 * dK)
    predicted = (1 - 0.1 * inst.kernel_ridge) * ref.imbalance(Q, K)
    predicted += 0.05**2 * ref.imbalance(dQ, dK)
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


# ------------------------------------------------------------------------ C4


@pytest.mark.parametrize(
    ("seed", "kind", "fraction"),
    [*product(SEEDS, KINDS, [0.5]), (1, "merged", 4.0), (1, "merged", 40.0)],
)
def test_c4_steps_with_minibatches_and_sampling_at_every_step_size(seed, kind, fraction):
    lengths = {"rounds": 1, "local_steps": 2} if fraction > 1 else {}
    inst, run, eta = noisy_run(seed, kind, fraction=fraction, **lengths)
    for step in run.steps:
        sides, scale = ref.descent_step(inst, step, eta), step_scale(inst, step, eta)
        assert close(sides["left"], sides["right"], scale=scale)
        assert sides["left"] <= sides["upper"] + 1e-12 * scale
        total = ref.add(ref.add(step.track, step.drift), ref.add(step.noise, step.sampling))
        error = ref.total_error(step)
        assert all(close(a, b, tolerance=1e-8) for a, b in zip(total, error, strict=True))


def test_c4_slack_is_eigenvalue_slack_plus_resolve_gain():
    inst, run, eta = noisy_run(2, "merged")
    for step in run.steps:
        sides, terms = ref.descent_step(inst, step, eta), ref.ledger_terms(inst, step, eta)
        top = 0.5 * eta**2 * ref.curvature(inst, step.theta) * ref.norm_sq(step.update)
        slack = top - terms["curvature"] - terms["resolve"]
        assert close(sides["upper"] - sides["left"], slack, scale=step_scale(inst, step, eta))


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


# ------------------------------------------------------------------------ C5, C6


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


def test_c6_secant_constant_is_below_the_segment_bound():
    inst, run, eta = noisy_run(1, "merged", sampled=False, num_heads=1, dim=2, num_clients=2)
    for step in run.steps[1:3]:
        secant = ref.consensus_step(inst, step, eta)["secant"]
        assert secant <= ref.segment_constant(inst, step) * (1 + 1e-9)


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


# ------------------------------------------------------------------------ C13


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
