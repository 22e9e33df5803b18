"""The naive twin: every quantity of paper_notes.md, from tokens, with plain loops and numpy only.

Nothing here uses the statistics (G, M, K, c), closed forms that the library relies on, or any
code of the library: predictions are attention scores times values, gradients are sums over
tokens, matrices are built densely, powers by `np.linalg.matrix_power`. Clarity before speed.

Conventions
-----------
kernel   ``theta``: an array B (H, d, d) or a tuple ``(B,)`` for merged kernels, ``(Q, K)`` with
         arrays (H, d, r) for factored ones. Kernel gradients come back as tuples of blocks.
value    ``V`` (H, d, m); stacked to (H·d, m) with row index h·d + a where a matrix acts on it.
data     ``Instance.clients[i]`` is a list of (X, Y): tokens (n, d) and targets (q, m).
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

READOUTS = ("token", "mean", "last")


class Instance(NamedTuple):
    """Data, readout, weights p and ridges λ, μ (notes, section 1)."""

    clients: list
    readout: str
    weights: np.ndarray
    value_ridge: float
    kernel_ridge: float


# ------------------------------------------------------------------------ blocks and vectors


def blocks(theta):
    """The kernel parameters as a tuple of blocks: (B,) or (Q, K)."""
    return tuple(theta) if isinstance(theta, (tuple, list)) else (theta,)


def is_factored(theta):
    """True for (Q, K), False for B."""
    return len(blocks(theta)) == 2


def kernels(theta):
    """B (H, d, d); B_h = Q_h K_hᵀ for factored kernels (notes, section 1)."""
    parts = blocks(theta)
    if len(parts) == 1:
        return parts[0]
    return np.array([q @ k.T for q, k in zip(*parts, strict=True)])


def dot(a, b):
    """Euclidean inner product of two arrays or two tuples of arrays."""
    return float(sum(np.sum(x * y) for x, y in zip(blocks(a), blocks(b), strict=True)))


def norm_sq(a):
    """Squared Frobenius norm of an array or a tuple of arrays."""
    return dot(a, a)


def add(a, b, scale=1.0):
    """a + scale·b, block by block, always a tuple."""
    return tuple(x + scale * y for x, y in zip(blocks(a), blocks(b), strict=True))


def weighted_sum(weights, items):
    """Σ w_i item_i of tuples of arrays, always a tuple."""
    columns = zip(*(blocks(item) for item in items), strict=True)
    return tuple(sum(w * x for w, x in zip(weights, c, strict=True)) for c in columns)


def stack(value):
    """V (H, d, m) to (H·d, m)."""
    return np.concatenate(list(value), axis=0)


def unstack(matrix, num_heads):
    """(H·d, m) back to (H, d, m)."""
    return np.array(np.split(matrix, num_heads, axis=0))


def flatten(theta, value):
    """All parameters in one vector, kernel blocks first."""
    return np.concatenate([part.ravel() for part in (*blocks(theta), value)])


def unflatten(vector, theta, value):
    """Inverse of `flatten`, with the shapes of (theta, value)."""
    parts, start = [], 0
    for like in (*blocks(theta), value):
        parts.append(vector[start : start + like.size].reshape(like.shape))
        start += like.size
    return tuple(parts[:-1]), parts[-1]


# ------------------------------------------------------------------------ model and objective


def own_queries(X):
    """One to three queries that no readout makes: data that bring queries of their own."""
    return np.array([X[j % len(X)][::-1] + j for j in range(1 + len(X) % 3)])


def queries(X, readout):
    """U (q, d): all tokens, the mean token, the last token, or readout(X) (notes, section 1)."""
    if callable(readout):
        return readout(X)
    if readout == "token":
        return X
    if readout == "mean":
        return np.mean(X, axis=0)[None, :]
    if readout == "last":
        return X[-1][None, :]
    raise ValueError(f"readout {readout!r} is none of {READOUTS}")


def scores(X, theta, readout):
    """Attention scores uᵀB_h x_j / n of every head, query and token: list of (q, n)."""
    U = queries(X, readout)
    parts = blocks(theta)
    if len(parts) == 1:
        return [U @ B @ X.T / len(X) for B in parts[0]]
    return [(U @ Q) @ (X @ K).T / len(X) for Q, K in zip(*parts, strict=True)]


def predict(X, theta, V, readout):
    """Ŷ = Σ_h scores_h · (X V_h) = Σ_h U B_h G V_h (notes, section 1)."""
    return sum(s @ (X @ v) for s, v in zip(scores(X, theta, readout), V, strict=True))


def sequence_loss(X, Y, theta, V, readout):
    """ℓ = ‖Ŷ − Y‖²/(2q) (notes, section 1)."""
    residual = predict(X, theta, V, readout) - Y
    return float(np.sum(residual**2)) / (2 * len(Y))


def ridge(inst, theta, V):
    """(λ/2)‖V‖² + (μ/2)‖kernel parameters‖² (notes, section 1)."""
    return 0.5 * inst.value_ridge * norm_sq(V) + 0.5 * inst.kernel_ridge * norm_sq(theta)


def client_data_loss(inst, i, theta, V, batch=None):
    """Mean sequence loss of client i, or of the sequences listed in `batch`."""
    chosen = range(len(inst.clients[i])) if batch is None else batch
    losses = [sequence_loss(*inst.clients[i][s], theta, V, inst.readout) for s in chosen]
    return float(np.mean(losses))


def client_objective(inst, i, theta, V, batch=None):
    """F_i(B, V) (notes, section 1)."""
    return client_data_loss(inst, i, theta, V, batch) + ridge(inst, theta, V)


def data_loss(inst, theta, V):
    """Σ p_i times the mean sequence loss: F without the ridges."""
    return sum(p * client_data_loss(inst, i, theta, V) for i, p in enumerate(inst.weights))


def objective(inst, theta, V):
    """F = Σ p_i F_i (notes, section 1)."""
    return sum(p * client_objective(inst, i, theta, V) for i, p in enumerate(inst.weights))


# ------------------------------------------------------------------------ gradients


def sequence_gradient(X, Y, theta, V, readout):
    """Gradients of ℓ with respect to the kernel blocks and V, token by token (section 1)."""
    U, n = queries(X, readout), len(X)
    error = (predict(X, theta, V, readout) - Y) / len(Y)
    value = np.array([(s @ X).T @ error for s in scores(X, theta, readout)])
    parts = blocks(theta)
    if len(parts) == 1:
        return (np.array([U.T @ error @ (X @ v).T @ X / n for v in V]),), value
    triples = list(zip(*parts, V, strict=True))
    query = np.array([U.T @ error @ (X @ v).T @ (X @ K) / n for _, K, v in triples])
    key = np.array([X.T @ (X @ v) @ error.T @ (U @ Q) / n for Q, _, v in triples])
    return (query, key), value


def client_gradient(inst, i, theta, V, batch=None):
    """∂F_i: mean over the client's sequences (or the batch) plus the full ridge."""
    chosen = range(len(inst.clients[i])) if batch is None else batch
    kernel = tuple(inst.kernel_ridge * part for part in blocks(theta))
    value = inst.value_ridge * V
    for s in chosen:
        d_kernel, d_value = sequence_gradient(*inst.clients[i][s], theta, V, inst.readout)
        kernel = add(kernel, d_kernel, 1 / len(chosen))
        value = value + d_value / len(chosen)
    return kernel, value


def gradient(inst, theta, V):
    """∂F = Σ p_i ∂F_i as (tuple of kernel blocks, value)."""
    parts = [client_gradient(inst, i, theta, V) for i in range(len(inst.clients))]
    kernel = weighted_sum(inst.weights, [k for k, _ in parts])
    return kernel, weighted_sum(inst.weights, [v for _, v in parts])[0]


def data_gradient(inst, theta, V):
    """Gradients of the data loss alone (no ridge)."""
    return gradient(inst._replace(value_ridge=0.0, kernel_ridge=0.0), theta, V)


def line_derivative(function, step=1.0):
    """Derivative at 0 of t ↦ array by the 7-point stencil: exact for polynomials of degree 6."""
    far = function(3 * step) - function(-3 * step)
    mid = function(2 * step) - function(-2 * step)
    near = function(step) - function(-step)
    return (far - 9 * mid + 45 * near) / (60 * step)


def joint_hvp(inst, theta, V, d_theta, d_value, client=None, step=0.5):
    """Hessian-vector product of F (or F_i) by differences of gradients (notes, Second derivatives).

    Gradients are polynomials of degree ≤ 5 in the parameters, so the stencil is exact.
    """

    def moved_gradient(t):
        at = add(theta, d_theta, t), V + t * d_value
        parts = gradient(inst, *at) if client is None else client_gradient(inst, client, *at)
        return flatten(*parts)

    return unflatten(line_derivative(moved_gradient, step), theta, V)


def joint_hessian(inst, theta, V, client=None):
    """Dense Hessian of F (or F_i) over `flatten(theta, V)`; small instances only."""
    columns = []
    for unit in np.eye(flatten(theta, V).size):
        columns.append(flatten(*joint_hvp(inst, theta, V, *unflatten(unit, theta, V), client)))
    return np.array(columns).T


# ------------------------------------------------------------------------ value block


def features(X, theta, readout):
    """Φ = [U B_1 G … U B_H G] (q, H·d), so that Ŷ = Φ V (notes, section 1)."""
    return np.concatenate([s @ X for s in scores(X, theta, readout)], axis=1)


def client_hessian(inst, i, theta):
    """H_i(B) = mean ΦᵀΦ/q over client i (notes, section 1)."""
    phis = [features(X, theta, inst.readout) for X, _ in inst.clients[i]]
    return np.mean([phi.T @ phi / len(phi) for phi in phis], axis=0)


def client_linear(inst, i, theta):
    """C_i(B) = mean ΦᵀY/q, stacked (H·d, m) (notes, section 1)."""
    terms = [features(X, theta, inst.readout).T @ Y / len(Y) for X, Y in inst.clients[i]]
    return np.mean(terms, axis=0)


def client_matrix(inst, i, theta):
    """A_i = H_i + λI (notes, section 1)."""
    hessian = client_hessian(inst, i, theta)
    return hessian + inst.value_ridge * np.eye(len(hessian))


def value_matrix(inst, theta):
    """A = Σ p_i A_i (notes, section 1)."""
    return sum(p * client_matrix(inst, i, theta) for i, p in enumerate(inst.weights))


def value_linear(inst, theta):
    """C = Σ p_i C_i, stacked (H·d, m) (notes, section 1)."""
    return sum(p * client_linear(inst, i, theta) for i, p in enumerate(inst.weights))


def minimizer(inst, theta):
    """V*(B) = A⁻¹C as (H, d, m) (notes, section 2)."""
    solution = np.linalg.solve(value_matrix(inst, theta), value_linear(inst, theta))
    return unstack(solution, len(kernels(theta)))


def client_minimizer(inst, i, theta):
    """V_i* = A_i⁻¹C_i as (H, d, m) (notes, section 4)."""
    solution = np.linalg.solve(client_matrix(inst, i, theta), client_linear(inst, i, theta))
    return unstack(solution, len(kernels(theta)))


def weighted_norm_sq(matrix, V):
    """‖V‖²_A = ⟨V, A V⟩ with V stacked."""
    flat = stack(V)
    return float(np.sum(flat * (matrix @ flat)))


# ------------------------------------------------------------------------ kernel profile


def profile(inst, theta):
    """P(B) = F(B, V*(B)) (notes, section 2)."""
    return objective(inst, theta, minimizer(inst, theta))


def profile_gradient(inst, theta):
    """∇P(B) = ∂_B F(B, V*(B)), a tuple of blocks (notes, section 2, C2)."""
    return gradient(inst, theta, minimizer(inst, theta))[0]


def profile_hvp(inst, theta, d_theta, step=1e-3):
    """∇²P[D] by differences of the envelope gradient (notes, Second derivatives)."""

    def moved_gradient(t):
        return np.concatenate([g.ravel() for g in profile_gradient(inst, add(theta, d_theta, t))])

    derivative, empty = line_derivative(moved_gradient, step), np.zeros(0)
    return unflatten(derivative, theta, empty)[0]


def gap(inst, theta, V):
    """F − P = ½⟨V − V*, A(V − V*)⟩ (notes, section 2, C1)."""
    return 0.5 * weighted_norm_sq(value_matrix(inst, theta), V - minimizer(inst, theta))


# ------------------------------------------------------------------------ curvature: C3, C3f


def sequence_jacobian(X, V, readout):
    """dŶ/dB (q·m, H·d²): row (query, output), column (h, a, b) = u_a (G V_h)_b (section 2)."""
    U = queries(X, readout)
    rows = []
    for u in U:
        for o in range(V.shape[2]):
            rows.append(np.concatenate([np.outer(u, X.T @ (X @ v[:, o])).ravel() for v in V]))
    return np.array(rows) / len(X)


def curvature_matrix(inst, V, with_ridge=True):
    """𝓚(V) as a dense (H·d², H·d²) matrix; 𝓚₀ without the ridge (notes, section 2, C3)."""
    num_heads, dim, _ = V.shape
    total = np.zeros((num_heads * dim**2,) * 2)
    for p, client in zip(inst.weights, inst.clients, strict=True):
        for X, Y in client:
            J = sequence_jacobian(X, V, inst.readout)
            total += p / len(client) * (J.T @ J) / len(Y)
    return total + inst.kernel_ridge * np.eye(len(total)) * with_ridge


def curvature_apply(inst, V, D, with_ridge=True):
    """𝓚(V)[D] (H, d, d), from the dense matrix (notes, section 2, C3)."""
    return (curvature_matrix(inst, V, with_ridge) @ D.ravel()).reshape(D.shape)


def curvature(inst, theta):
    """L_K = λ_max 𝓚(V*(B)) (notes, section 2, C3)."""
    return float(np.linalg.eigvalsh(curvature_matrix(inst, minimizer(inst, theta)))[-1])


def head_curvature(inst, theta):
    """Largest λ_max over the diagonal head blocks of 𝓚(V*): the *wrong* constant (C3)."""
    V = minimizer(inst, theta)
    return max(np.linalg.eigvalsh(curvature_matrix(inst, V[h : h + 1]))[-1] for h in range(len(V)))


def curvature_safe_bound(inst, theta):
    """μ + ‖Σp mean ‖M‖₂ ΓΓᵀ‖₂ ≥ L_K, Γ the stack of G V_h (notes, section 2, C3)."""
    V, total = minimizer(inst, theta), 0.0
    for p, client in zip(inst.weights, inst.clients, strict=True):
        for X, _ in client:
            U = queries(X, inst.readout)
            gamma = np.concatenate([X.T @ (X @ v) / len(X) for v in V], axis=0)
            size = np.linalg.norm(U.T @ U / len(U), 2)
            total = total + p / len(client) * size * (gamma @ gamma.T)
    return inst.kernel_ridge + float(np.linalg.norm(total, 2))


def resolve_gain(inst, theta, theta_next):
    """½‖V*(B⁺) − V*(B)‖²_{A(B⁺)} (notes, section 2, C3)."""
    move = minimizer(inst, theta_next) - minimizer(inst, theta)
    return 0.5 * weighted_norm_sq(value_matrix(inst, theta_next), move)


def increment(inst, B, D):
    """C3 (merged): P(B + D), its exact expansion, and the upper bound with L_K."""
    slope = dot(profile_gradient(inst, B), D)
    quadratic = 0.5 * dot(D, curvature_apply(inst, minimizer(inst, B), D))
    start = profile(inst, B)
    return {
        "left": profile(inst, B + D),
        "right": start + slope + quadratic - resolve_gain(inst, B, B + D),
        "upper": start + slope + 0.5 * curvature(inst, B) * norm_sq(D),
    }


def increment_free(inst, theta, theta_next):
    """C3f: P(θ⁺), F(θ⁺, V*(θ)) − gain, and the upper bound F(θ⁺, V*(θ))."""
    upper = objective(inst, theta_next, minimizer(inst, theta))
    return {
        "left": profile(inst, theta_next),
        "right": upper - resolve_gain(inst, theta, theta_next),
        "upper": upper,
    }


def collapse(inst):
    """(σ_max(D ↦ Σp mean G Dᵀ K)², λμ): B = 0 is the merged minimizer iff first ≤ second."""
    zero = np.zeros((1, inst.clients[0][0][0].shape[1], inst.clients[0][0][0].shape[1]))
    empty = np.zeros((1, zero.shape[1], inst.clients[0][0][1].shape[1]))
    norm = np.linalg.norm(residual_matrix(inst, zero, empty), 2)
    return float(norm**2), inst.value_ridge * inst.kernel_ridge


# ------------------------------------------------------------------------ C11, C12


def euler_merged(inst, B, V):
    """C11: H×H matrices ⟨∂B_h, B_k⟩ − μ⟨B_h, B_k⟩ and ⟨∂V_k, V_h⟩ − λ⟨V_k, V_h⟩."""
    (dB,), dV = gradient(inst, B, V)
    heads = range(len(B))
    left = [[dot(dB[h] - inst.kernel_ridge * B[h], B[k]) for k in heads] for h in heads]
    right = [[dot(dV[k] - inst.value_ridge * V[k], V[h]) for k in heads] for h in heads]
    return np.array(left), np.array(right)


def gram(heads):
    """H×H Gram matrix of a list of blocks (notes, section 2, C11)."""
    return np.array([[dot(a, b) for b in heads] for a in heads])


def euler_factored(inst, Q, K, V):
    """C11: Q_hᵀ∂Q_h − μQ_hᵀQ_h and (∂K_h)ᵀK_h − μK_hᵀK_h, both (H, r, r)."""
    (dQ, dK), _ = gradient(inst, (Q, K), V)
    left = [q.T @ dq - inst.kernel_ridge * q.T @ q for q, dq in zip(Q, dQ, strict=True)]
    right = [dk.T @ k - inst.kernel_ridge * k.T @ k for k, dk in zip(K, dK, strict=True)]
    return np.array(left), np.array(right)


def imbalance(Q, K):
    """W_h = Q_hᵀQ_h − K_hᵀK_h (notes, section 2, C11)."""
    return np.array([q.T @ q - k.T @ k for q, k in zip(Q, K, strict=True)])


def mix_heads(B, V, T):
    """C12: B_h → Σ_k B_k T_kh, V_h → Σ_k (T⁻¹)_hk V_k leaves the prediction unchanged."""
    inverse, heads = np.linalg.inv(T), range(len(B))
    mixed = np.array([sum(B[k] * T[k, h] for k in heads) for h in heads])
    return mixed, np.array([sum(inverse[h, k] * V[k] for k in heads) for h in heads])


def change_basis(Q, K, bases):
    """C12: Q_h → Q_h T_h, K_h → K_h T_h⁻ᵀ leaves Q_h K_hᵀ unchanged."""
    query = np.array([q @ T for q, T in zip(Q, bases, strict=True)])
    return query, np.array([k @ np.linalg.inv(T).T for k, T in zip(K, bases, strict=True)])


def function_matrix(theta, V):
    """W = Σ_h vec(B_h) vec(V_h)ᵀ (d², d·m), what the predictions depend on (C12, C15)."""
    pairs = zip(kernels(theta), V, strict=True)
    return sum(np.outer(b.ravel(), v.ravel()) for b, v in pairs)


# ------------------------------------------------------------------------ C15


def residual_matrix(inst, theta, V):
    """𝒢 = Σp mean R ⊗ G, entry ((i,j),(k,o)) = R_io G_jk (notes, section 2, C15)."""
    total = 0.0
    for p, client in zip(inst.weights, inst.clients, strict=True):
        for X, Y in client:
            R = queries(X, inst.readout).T @ (predict(X, theta, V, inst.readout) - Y) / len(Y)
            G = X.T @ X / len(X)
            entries = R[:, None, None, :] * G[None, :, :, None]
            total = total + p / len(client) * entries
    dim, num_outputs = total.shape[0], total.shape[3]
    return total.reshape(dim**2, dim * num_outputs)


def threshold(inst):
    """τ = √(λμ) (notes, section 2, C15)."""
    return float(np.sqrt(inst.value_ridge * inst.kernel_ridge))


def residual_products(inst, theta, V):
    """rr = Σp mean ‖Ŷ − Y‖²/q and ry = Σp mean ⟨Ŷ − Y, Y⟩/q (notes, section 2, C15)."""
    rr = ry = 0.0
    for p, client in zip(inst.weights, inst.clients, strict=True):
        for X, Y in client:
            residual = predict(X, theta, V, inst.readout) - Y
            rr += p / len(client) * np.sum(residual**2) / len(Y)
            ry += p / len(client) * np.sum(residual * Y) / len(Y)
    return float(rr), float(ry)


def lower_bound(inst, theta, V, tau=None):
    """C15(a): −½t²rr − t·ry, a lower bound on inf P (merged) for every number of heads."""
    tau = threshold(inst) if tau is None else tau
    rr, ry = residual_products(inst, theta, V)
    size = np.linalg.norm(residual_matrix(inst, theta, V), 2)
    limit = tau / size if size > 0 else np.inf
    t = np.clip(-ry / rr, -limit, limit) if rr > 0 else 0.0
    return float(-0.5 * t**2 * rr - t * ry)


def cubic_features(X, readout):
    """Rows u_i G_jk (q, d³): Ŷ is linear in them (C15; notes, Moments)."""
    G = X.T @ X / len(X)
    return np.array([np.outer(u, G.ravel()).ravel() for u in queries(X, readout)])


def least_squares(inst):
    """min_W data(W) by least squares over the cubic features (notes, section 2, C15)."""
    rows, targets = [], []
    for p, client in zip(inst.weights, inst.clients, strict=True):
        for X, Y in client:
            scale = np.sqrt(p / len(client) / len(Y))
            rows.append(scale * cubic_features(X, inst.readout))
            targets.append(scale * Y)
    design, target = np.concatenate(rows), np.concatenate(targets)
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    return 0.5 * norm_sq(design @ solution - target)


def factored_threshold(inst, best, plain):
    """C15(c): τ_f = 1.5(μ²λ)^⅓ t_max^−⅓ with t_max from the best known P and least squares."""
    base = 1.5 * (inst.kernel_ridge**2 * inst.value_ridge) ** (1 / 3)
    t_max = ((best - plain) / base) ** 1.5
    return base * t_max ** (-1 / 3)


def factored_lower_bound(inst, theta, V, best, plain):
    """C15(c): min(P_best, bound (a) with τ_f), never below the plain bound."""
    bound = lower_bound(inst, theta, V, factored_threshold(inst, best, plain))
    return max(plain, min(best, bound))


# ------------------------------------------------------------------------ FedAvg, explicitly


class Step(NamedTuple):
    """One local step of all participants: the virtual iterate and its errors (section 3)."""

    round: int
    local_step: int
    weights: dict
    theta: tuple
    value: np.ndarray
    update: tuple
    value_update: np.ndarray
    profile_gradient: tuple
    track: tuple
    drift: tuple
    noise: tuple
    sampling: tuple
    local: dict
    theta_next: tuple
    value_next: np.ndarray


class Run(NamedTuple):
    """A simulated run.

    `path[t]` = (theta, V) after t rounds; `steps` = traces of the warm-up local steps;
    `drifts[t]` = (kernel, value) client drift just before the averaging of round t.
    """

    path: list
    steps: list
    drifts: list


def applied_weights(inst, participants=None):
    """w_i = p_i / Σ_S p_j on the sampled set S, as a dict."""
    chosen = range(len(inst.clients)) if participants is None else participants
    total = sum(inst.weights[i] for i in chosen)
    return {i: inst.weights[i] / total for i in chosen}


def average(weights, models):
    """Σ w_i (theta_i, V_i) over a dict of models."""
    w = [weights[i] for i in models]
    theta = weighted_sum(w, [models[i][0] for i in models])
    return theta, weighted_sum(w, [models[i][1] for i in models])[0]


def local_gradients(inst, models, batches=None, local_step=0):
    """ĝ_i of every participant at its own model (on its own batch, if there is one)."""
    batch = {i: None if batches is None else batches[i][local_step] for i in models}
    return {i: client_gradient(inst, i, *models[i], batch[i]) for i in models}


def trace_step(inst, place, weights, models, gradients, step_sizes):
    """All errors of one local step at the virtual iterate (notes, section 3).

    `gradients` are those of the clients that still work; the others only stay in the mean.
    """
    theta, value = average(weights, models)
    update, value_update = average(weights, gradients)
    here = dict.fromkeys(gradients, (theta, value))
    exact_local, _ = average(weights, local_gradients(inst, {i: models[i] for i in gradients}))
    exact_mean, _ = average(weights, local_gradients(inst, here))
    full, _ = gradient(inst, theta, value)
    slope = profile_gradient(inst, theta)
    return Step(
        *place,
        weights=weights,
        theta=theta,
        value=value,
        update=update,
        value_update=value_update,
        profile_gradient=slope,
        track=add(full, slope, -1),
        drift=add(exact_local, exact_mean, -1),
        noise=add(update, exact_local, -1),
        sampling=add(exact_mean, full, -1),
        local=dict(models),
        theta_next=add(theta, update, -step_sizes[0]),
        value_next=value - step_sizes[1] * value_update,
    )


def take_step(models, gradients, kernel_lr, value_lr):
    """Every participant moves against its own gradient."""
    result = {}
    for i, (theta, value) in models.items():
        d_theta, d_value = gradients[i]
        result[i] = add(theta, d_theta, -kernel_lr), value - value_lr * d_value
    return result


def fedavg(
    inst,
    theta,
    V,
    *,
    rounds,
    local_steps,
    local_lr,
    warmup_rounds=None,
    frozen_lr=None,
    participants=None,
    applied=None,
    batches=None,
    trace=True,
):
    """FedAvg (or FedFrozen when `warmup_rounds` < `rounds`) by explicit simulation (section 3).

    participants[t] lists the clients of round t, or applied[t] maps them to their weights;
    batches[t][i][e] the sequences of client i in local step e; `local_steps` is one number or one
    per client. From round `warmup_rounds` on the kernel does not move and V uses `frozen_lr`.
    """
    clients = range(len(inst.clients))
    counts = [local_steps] * len(clients) if isinstance(local_steps, int) else local_steps
    warmup_rounds = rounds if warmup_rounds is None else warmup_rounds
    path, steps, drifts = [(blocks(theta), V)], [], []
    for t in range(rounds):
        warm = t < warmup_rounds
        value_lr = local_lr if warm or frozen_lr is None else frozen_lr
        sizes = (local_lr if warm else 0.0, value_lr)
        weights = applied_weights(inst, None if participants is None else participants[t])
        weights = weights if applied is None else applied[t]
        models = dict.fromkeys(weights, path[-1])
        for e in range(max(counts[i] for i in weights)):
            working = {i: model for i, model in models.items() if e < counts[i]}
            gradients = local_gradients(inst, working, None if batches is None else batches[t], e)
            if trace and warm:
                steps.append(trace_step(inst, (t, e), weights, models, gradients, sizes))
            models = models | take_step(working, gradients, *sizes)
        path.append(average(weights, models))
        drifts.append(tuple(client_spread(weights, part) for part in split(models)))
    return Run(path, steps, drifts)


def split(models):
    """Kernel parts and value parts of a dict of models."""
    return {i: m[0] for i, m in models.items()}, {i: m[1] for i, m in models.items()}


def centralized(inst, theta, V, *, steps, step_size, train_kernel=True):
    """Gradient descent on F: the synchronized control (notes, section 5)."""
    theta = blocks(theta)
    for _ in range(steps):
        d_theta, d_value = gradient(inst, theta, V)
        theta = add(theta, d_theta, -step_size * train_kernel)
        V = V - step_size * d_value
    return theta, V


def client_spread(weights, items):
    """(Σ w_i‖x_i − x̄‖²)^½ of a dict of arrays or tuples: drift before averaging (C6)."""
    w = [weights[i] for i in items]
    mean = weighted_sum(w, [items[i] for i in items])
    return float(np.sqrt(sum(weights[i] * norm_sq(add(items[i], mean, -1)) for i in items)))


# ------------------------------------------------------------------------ C4, C4f, C14


def total_error(step):
    """ε = g − ∇P (notes, section 3)."""
    return add(step.update, step.profile_gradient, -1)


def step_remainder(inst, step, step_size):
    """(η²/2)⟨g, 𝓚g⟩ if merged (C3), ρ by its closed form if factored (C4f)."""
    V = minimizer(inst, step.theta)
    if not is_factored(step.theta):
        g = step.update[0]
        return 0.5 * step_size**2 * dot(g, curvature_apply(inst, V, g))
    (Q, K), (gQ, gK) = step.theta, step.update
    pairs = list(zip(Q, K, gQ, gK, strict=True))
    second = np.array([gq @ gk.T for _, _, gq, gk in pairs])
    first = np.array([gq @ k.T + q @ gk.T for q, k, gq, gk in pairs])
    move = -step_size * first + step_size**2 * second
    slope = data_gradient(inst, kernels(step.theta), V)[0][0]
    bent = 0.5 * dot(move, curvature_apply(inst, V, move, with_ridge=False))
    shrink = 0.5 * inst.kernel_ridge * step_size**2 * norm_sq(step.update)
    return step_size**2 * dot(slope, second) + bent + shrink


def ledger_terms(inst, step, step_size):
    """The five kinds of terms of C4 (C4f) and the additive identity, for one local step."""
    eta, errors = step_size, (step.track, step.drift, step.noise, step.sampling)
    pairs = [(a, b) for a in range(4) for b in range(a)]
    slope, g_sq = step.profile_gradient, norm_sq(step.update)
    remainder = step_remainder(inst, step, eta)
    if is_factored(step.theta):
        stepped = 0.5 * eta * g_sq - remainder
    else:
        stepped = 0.5 * eta * (1 - eta * curvature(inst, step.theta)) * g_sq
    tracking, drift, noise, sampling = (0.5 * eta * norm_sq(e) for e in errors)
    return {
        "descent_paid": 0.5 * eta * norm_sq(slope),
        "tracking_cost": tracking,
        "drift_cost": drift,
        "noise_cost": noise,
        "sampling_cost": sampling,
        "cross_term": eta * sum(dot(errors[a], errors[b]) for a, b in pairs),
        "step_term": stepped,
        "paid": -eta * norm_sq(slope),
        "tracking": -eta * dot(slope, step.track),
        "drift": -eta * dot(slope, step.drift),
        "noise": -eta * dot(slope, step.noise),
        "sampling": -eta * dot(slope, step.sampling),
        "curvature": remainder,
        "resolve": -resolve_gain(inst, step.theta, step.theta_next),
    }


COSTS = ("tracking_cost", "drift_cost", "noise_cost", "sampling_cost", "cross_term")
SIGNED = ("paid", "tracking", "drift", "noise", "sampling", "curvature", "resolve")


def descent_right_side(terms):
    """What C4 (C4f without the gain) adds to P(B̄): the ledger of one local step."""
    return sum(terms[name] for name in COSTS) - terms["descent_paid"] - terms["step_term"]


def descent_step(inst, step, step_size):
    """C4 and C4f: P(B̄⁺), the certificate's right side, and the additive identity's."""
    terms = ledger_terms(inst, step, step_size)
    start = profile(inst, step.theta)
    return {
        "left": profile(inst, step.theta_next),
        "upper": start + descent_right_side(terms),
        "right": start + sum(terms[name] for name in SIGNED),
    }


def certificate(inst, run, step_size):
    """Cumulative ledger by round, entry 0 the start: dict of arrays (notes, section 3, C4)."""
    rows = [ledger_terms(inst, step, step_size) for step in run.steps]
    num_rounds = 1 + max(step.round for step in run.steps)
    table = {}
    for name in rows[0]:
        table[name] = np.zeros(num_rounds + 1)
        for step, row in zip(run.steps, rows, strict=True):
            table[name][step.round + 1 :] += row[name]
    start = profile(inst, run.path[0][0])
    table["certificate"] = start + descent_right_side(table)
    table["additive"] = start + sum(table[name] for name in SIGNED)
    table["profile"] = np.array([profile(inst, th) for th, _ in run.path[: num_rounds + 1]])
    return table


# ------------------------------------------------------------------------ C5, C6, C10


def coupling_matrix(inst, theta):
    """J = ∂²_{BV}F(B, V*): (kernel size, H·d·m); differences are exact, ∂_BF is quadratic in V."""
    V = minimizer(inst, theta)
    columns = []
    for unit in np.eye(V.size):
        W = unit.reshape(V.shape)
        up, down = gradient(inst, theta, V + W)[0], gradient(inst, theta, V - W)[0]
        columns.append(np.concatenate([(a - b).ravel() / 2 for a, b in zip(up, down, strict=True)]))
    return np.array(columns).T


def coupling_constant(inst, theta):
    """κ = (Σp mean ‖M‖₂‖G‖₂²)·‖[B_1 … B_H]‖₂, heads side by side (notes, section 3, C5)."""
    total = 0.0
    for p, client in zip(inst.weights, inst.clients, strict=True):
        for X, _ in client:
            U = queries(X, inst.readout)
            query_size = np.linalg.norm(U.T @ U / len(U), 2)
            total += p / len(client) * query_size * np.linalg.norm(X.T @ X / len(X), 2) ** 2
    return float(total * np.linalg.norm(np.concatenate(list(kernels(theta)), axis=1), 2))


def tracking_bound(inst, theta, V):
    """C5 (merged): ‖ε_track‖ and ‖J‖₂‖Δ‖ + κ‖Δ‖²."""
    B = kernels(theta)
    delta = np.sqrt(norm_sq(V - minimizer(inst, B)))
    error = add(gradient(inst, B, V)[0], profile_gradient(inst, B), -1)
    upper = np.linalg.norm(coupling_matrix(inst, B), 2) * delta
    return float(np.sqrt(norm_sq(error))), float(upper + coupling_constant(inst, B) * delta**2)


def tracking_bound_factored(inst, Q, K, V):
    """C5 (factored): ‖ε_θ‖² and max_h(‖Q_h‖₂² + ‖K_h‖₂²)‖ε_B‖²."""
    theta, B = (Q, K), kernels((Q, K))
    error = add(gradient(inst, theta, V)[0], profile_gradient(inst, theta), -1)
    merged = add(gradient(inst, B, V)[0], profile_gradient(inst, B), -1)
    pairs = zip(Q, K, strict=True)
    size = max(np.linalg.norm(q, 2) ** 2 + np.linalg.norm(k, 2) ** 2 for q, k in pairs)
    return norm_sq(error), float(size * norm_sq(merged))


def tracking_recursion(inst, step, step_size):
    """C5: Δ⁺ and (I − ηA)Δ − ηε_V − [V*(B⁺) − V*(B)], stacked (full participation)."""
    star, star_next = minimizer(inst, step.theta), minimizer(inst, step.theta_next)
    delta = stack(step.value - star)
    error = stack(step.value_update - gradient(inst, step.theta, step.value)[1])
    left = stack(step.value_next - star_next)
    right = delta - step_size * (value_matrix(inst, step.theta) @ delta) - step_size * error
    return left, right - stack(star_next - star)


def joint_models(models):
    """Models as one tuple per client, V last, so that norms run over all parameters."""
    return {i: (*theta, value) for i, (theta, value) in models.items()}


def consensus_step(inst, step, step_size):
    """C6: D_{e+1} and (1 + ηL_e)D_e + ηζ_e with the secant constant L_e (full participation)."""
    weights = step.weights
    here = dict.fromkeys(step.local, (step.theta, step.value))
    moved = take_step(step.local, local_gradients(inst, step.local), step_size, step_size)
    at_mean = joint_models(local_gradients(inst, here))
    at_local = joint_models(local_gradients(inst, step.local))
    change = [weights[i] * norm_sq(add(at_local[i], at_mean[i], -1)) for i in at_mean]
    before = client_spread(weights, joint_models(step.local))
    secant = np.sqrt(sum(change)) / before if before > 0 else 0.0
    upper = (1 + step_size * secant) * before + step_size * client_spread(weights, at_mean)
    after = client_spread(weights, joint_models(moved))
    return {"left": after, "upper": float(upper), "secant": float(secant), "before": before}


def segment_constant(inst, step):
    """C6 (merged): max over clients of a Hessian bound on the segment from w̄ to w_i."""
    worst = 0.0
    for i, (theta, value) in step.local.items():
        middle = tuple(0.5 * (a + b) for a, b in zip(step.theta, theta, strict=True))
        start = joint_hessian(inst, step.theta, step.value, i)
        half = joint_hessian(inst, middle, 0.5 * (step.value + value), i)
        end = joint_hessian(inst, theta, value, i)
        for matrix in (start, end, 2 * half - 0.5 * (start + end)):
            worst = max(worst, float(np.linalg.norm(matrix, 2)))
    return worst


# ------------------------------------------------------------------------ frozen stage: C7, C8


def frozen_rounds(inst, theta, V, *, rounds, local_steps, step_size):
    """The frozen stage by explicit simulation: list of V, entry 0 the start (section 4)."""
    options = {"local_steps": local_steps, "local_lr": step_size, "warmup_rounds": 0}
    run = fedavg(inst, theta, V, rounds=rounds, trace=False, **options)
    return [value for _, value in run.path]


def power_sum(matrix, step_size, coefficients):
    """Σ_k coefficient_k (I − ηA)^k, term by term."""
    base = np.eye(len(matrix)) - step_size * matrix
    terms = [c * np.linalg.matrix_power(base, k) for k, c in enumerate(coefficients)]
    return sum(terms, np.zeros_like(matrix))


class Frozen(NamedTuple):
    """Everything of C7 and C8 at a fixed kernel; value-block matrices are stacked (H·d, m)."""

    matrices: list
    linears: list
    contraction: np.ndarray
    fixed_point: np.ndarray
    minimizer: np.ndarray
    rate: float
    bias: np.ndarray
    bias_first_order: np.ndarray
    floor: float
    bound: float
    bound_small_step: float
    largest: float


def frozen_quantities(inst, theta, *, local_steps, step_size):
    """C7 and C8 by dense sums of matrix powers (notes, section 4)."""
    p, eta, count = inst.weights, step_size, local_steps
    A_i = [client_matrix(inst, i, theta) for i in range(len(p))]
    C_i = [client_linear(inst, i, theta) for i in range(len(p))]
    S_i = [power_sum(a, eta, np.ones(count)) for a in A_i]
    T_i = [power_sum(a, eta, np.arange(count)[::-1]) for a in A_i]
    powers = [np.linalg.matrix_power(np.eye(len(a)) - eta * a, count) for a in A_i]
    A, star = value_matrix(inst, theta), stack(minimizer(inst, theta))
    g_i = [a @ star - c for a, c in zip(A_i, C_i, strict=True)]
    SA = matrix_mean(p, [s @ a for s, a in zip(S_i, A_i, strict=True)])
    SC = matrix_mean(p, [s @ c for s, c in zip(S_i, C_i, strict=True)])
    pull = matrix_mean(p, [t @ a @ g for t, a, g in zip(T_i, A_i, g_i, strict=True)])
    bias = eta * np.linalg.solve(SA, pull)
    first = matrix_mean(p, [(a - A) @ g for a, g in zip(A_i, g_i, strict=True)])
    contraction = matrix_mean(p, powers)
    products = [np.linalg.norm(a - A) * np.linalg.norm(g, 2) for a, g in zip(A_i, g_i, strict=True)]
    spread = sum(w * x for w, x in zip(p, products, strict=True))
    spread = float(spread / np.linalg.eigvalsh(SA / count)[0])
    return Frozen(
        matrices=A_i,
        linears=C_i,
        contraction=contraction,
        fixed_point=np.linalg.solve(SA, SC),
        minimizer=star,
        rate=float(np.linalg.norm(contraction, 2)),
        bias=bias,
        bias_first_order=0.5 * eta * (count - 1) * np.linalg.solve(A, first),
        floor=0.5 * float(np.sum(bias * (A @ bias))),
        bound=0.5 * eta * (count - 1) * spread,
        bound_small_step=averaging_slope(A_i, eta, count) * spread,
        largest=max(float(np.linalg.eigvalsh(a)[-1]) for a in A_i),
    )


def matrix_mean(weights, items):
    """Σ w_i M_i."""
    return sum(w * x for w, x in zip(weights, items, strict=True))


def averaging_slope(matrices, step_size, local_steps):
    """|s'(a)| at a = min λ_min(A_i), s(x) = (1/E) Σ_k (1 − ηx)^k (notes, section 4, C8)."""
    a = min(float(np.linalg.eigvalsh(matrix)[0]) for matrix in matrices)
    terms = [k * (1 - step_size * a) ** (k - 1) for k in range(1, local_steps)]
    return step_size * sum(terms) / local_steps


def frozen_after(frozen, V, rounds):
    """C7: V_t = V_∞ + M̂ᵗ(V_0 − V_∞), as (H, d, m)."""
    power = np.linalg.matrix_power(frozen.contraction, rounds)
    moved = frozen.fixed_point + power @ (stack(V) - frozen.fixed_point)
    return unstack(moved, len(V))


def frozen_consensus(inst, theta, V, *, local_steps, step_size):
    """C6, frozen stage: D_E, ζ_0, max_e ζ_e along the virtual iterate, and the bounds.

    The bounds need ζ = max_e ζ_e (or the sum η Σ_e ζ_e): ζ_0 alone is not enough.
    `upper_small_step` is meant for η ≤ 1/λ_max (NaN once ηa ≥ 1).
    """
    weights = applied_weights(inst)
    models = dict.fromkeys(weights, (blocks(theta), V))
    zetas = []
    for _ in range(local_steps):
        _, mean = average(weights, models)
        here = {i: client_gradient(inst, i, theta, mean)[1] for i in models}
        zetas.append(client_spread(weights, here))
        models = take_step(models, local_gradients(inst, models), 0.0, step_size)
    after = client_spread(weights, {i: v for i, (_, v) in models.items()})
    smallest = [np.linalg.eigvalsh(client_matrix(inst, i, theta))[0] for i in weights]
    a = float(min(smallest))
    return {
        "left": after,
        "zeta_start": zetas[0],
        "zeta": max(zetas),
        "upper": step_size * local_steps * max(zetas),
        "upper_sum": step_size * sum(zetas),
        "upper_small_step": -max(zetas) * np.expm1(local_steps * np.log1p(-step_size * a)) / a,
    }


# ------------------------------------------------------------------------ C9, C13


def bias_drift(
    inst, theta, V, *, warmup_rounds, rounds, local_steps, local_lr, frozen_lr=None, reference=0.0
):
    """C9 at one warm-up length: simulated objective and the exact parts (notes, section 5)."""
    frozen_lr = local_lr if frozen_lr is None else frozen_lr
    options = {"local_steps": local_steps, "local_lr": local_lr, "trace": False}
    run = fedavg(
        inst, theta, V, rounds=rounds, warmup_rounds=warmup_rounds, frozen_lr=frozen_lr, **options
    )
    kernel, value = run.path[warmup_rounds]
    sync, _ = centralized(inst, theta, V, steps=local_steps * warmup_rounds, step_size=local_lr)
    frozen = frozen_quantities(inst, kernel, local_steps=local_steps, step_size=frozen_lr)
    power = np.linalg.matrix_power(frozen.contraction, rounds - warmup_rounds)
    a, b = power @ (stack(value) - frozen.fixed_point), frozen.fixed_point - frozen.minimizer
    A = value_matrix(inst, kernel)
    return {
        "objective": objective(inst, *run.path[rounds]),
        "profile": profile(inst, kernel),
        "profile_synchronized": profile(inst, sync),
        "kernel_bias": profile(inst, kernel) - reference,
        "value_transient": 0.5 * float(np.sum(a * (A @ a))),
        "value_floor": 0.5 * float(np.sum(b * (A @ b))),
        "value_cross": float(np.sum(a * (A @ b))),
        "rate": frozen.rate,
    }


def freeze_signals(inst, theta, V, theta_next):
    """C13 at one round: freeze before the update when a signal is ≤ 0 (notes, section 6).

    profile ⟨∇P, −ΔB⟩; observable ⟨Σp g_i⁰, −ΔB⟩ (full participation, full batch);
    certified P(θ_t) − F(θ_{t+1}, V*(θ_t)).
    """
    move = add(theta, theta_next, -1)
    star = minimizer(inst, theta)
    return {
        "profile": dot(profile_gradient(inst, theta), move),
        "observable": dot(gradient(inst, theta, V)[0], move),
        "certified": objective(inst, theta, star) - objective(inst, theta_next, star),
    }


def freeze_round(inst, path, rule):
    """First round t ≥ 1 of a FedAvg path at which the rule fires, or None (C13)."""
    for t, ((theta, V), (theta_next, _)) in enumerate(pairwise(path)):
        if t >= 1 and freeze_signals(inst, theta, V, theta_next)[rule] <= 0:
            return t
    return None


# ------------------------------------------------------------------------ C16: population limit


def psi(S, P, Q, n):
    """Ψ(P, Q) = E[G P G Q G] for n tokens N(0, S), the closed formula (notes, section 7)."""
    tr = np.trace
    first = (
        S @ P @ S @ Q.T @ S + tr(Q @ S) * S @ P @ S
        + S @ P.T @ S @ Q @ S + tr(P @ S) * S @ Q @ S
        + S @ Q.T @ S @ P.T @ S + tr(P @ S @ Q @ S) * S
    )  # fmt: skip
    second = (
        S @ P.T @ S @ Q.T @ S + tr(Q @ S) * S @ P.T @ S
        + S @ Q @ S @ P @ S + S @ Q @ S @ P.T @ S
        + tr(P @ S) * S @ Q.T @ S + S @ Q.T @ S @ P @ S
        + (tr(P @ S) * tr(Q @ S) + tr(S @ Q @ S @ P.T)) * S
    )  # fmt: skip
    return S @ P @ S @ Q @ S + first / n + second / n**2


def pairings(items):
    """All perfect matchings of an even tuple (15 of six items)."""
    if not items:
        return [()]
    head, rest = items[0], items[1:]
    found = []
    for j, partner in enumerate(rest):
        others = rest[:j] + rest[j + 1 :]
        found += [((head, partner), *tail) for tail in pairings(others)]
    return found


def wick_moment(S, tokens, channels):
    """E[Π_k x_{tokens[k], channels[k]}] of independent tokens N(0, S), by Wick's theorem."""
    total = 0.0
    for matching in pairings(tuple(range(len(tokens)))):
        term = 1.0
        for a, b in matching:
            term *= S[channels[a], channels[b]] * (tokens[a] == tokens[b])
        total += term
    return total


def wick_product(S, P, Q, tokens):
    """E[x_a x_bᵀ P x_c x_dᵀ Q x_e x_fᵀ] for six token labels, index by index."""
    dim = len(S)
    result = np.zeros((dim, dim))
    for channels in product(range(dim), repeat=6):
        first, j, k, s, t, last = channels
        result[first, last] += P[j, k] * Q[s, t] * wick_moment(S, tokens, channels)
    return result


def psi_wick(S, P, Q, n):
    """E[G P G Q G] by brute force over all tokens and pairings; small d and n only."""
    triples = product(range(n), repeat=3)
    return sum(wick_product(S, P, Q, (a, a, t, t, b, b)) for a, t, b in triples) / n**3


def population_blocks(S, theta, teacher, teacher_value, n, *, readout="token", noise=0.0):
    """C16: population H (Hd, Hd), C (Hd, m) and c̄ with a teacher and noise of std `noise`."""
    B, T = kernels(theta), kernels(teacher)
    scale = 1 / n if readout == "mean" else 1.0
    hessian = np.block([[scale * psi(S, b.T, c, n) for c in B] for b in B])
    pairs = list(zip(T, teacher_value, strict=True))
    linear = [scale * sum(psi(S, b.T, t, n) @ v for t, v in pairs) for b in B]
    signal = 0.0
    for (t, v), (s, w) in product(pairs, repeat=2):
        signal += np.trace(v.T @ psi(S, t.T, s, n) @ w)
    return hessian, np.concatenate(linear), scale * signal + noise**2 * teacher_value.shape[2]


def population_curvature_apply(S, V, D, n, kernel_ridge, readout="token"):
    """C16: 𝓚(V)[D]_k = Σ_h Ψ(D_h, V_hV_kᵀ) + μD_k (first term over n for `mean`)."""
    scale = 1 / n if readout == "mean" else 1.0
    result = []
    for k in range(len(V)):
        data = sum(psi(S, D[h], V[h] @ V[k].T, n) for h in range(len(V)))
        result.append(scale * data + kernel_ridge * D[k])
    return np.array(result)


# ------------------------------------------------------------------------ random instances


def _log_uniform(rng, low, high):
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _or_draw(value, draw):
    return draw() if value is None else value


def _client_data(rng, mixing, kernel, value, *, readout, sequences, tokens, noise):
    """Sequences of one client: x = W z, Y = teacher prediction + noise."""
    data = []
    for _ in range(rng.integers(sequences[0], sequences[1] + 1)):
        n = int(rng.integers(tokens[0], tokens[1] + 1))
        X = rng.standard_normal((n, len(mixing))) @ mixing.T
        Y = predict(X, kernel, value, readout)
        data.append((X, Y + noise * rng.standard_normal(Y.shape)))
    return data


def random_weights(rng, num_clients, ratio=50.0):
    """Weights p > 0 with Σp = 1 and max/min ≤ ratio."""
    raw = np.array([_log_uniform(rng, 1.0, ratio) for _ in range(num_clients)])
    return raw / raw.sum()


def random_instance(
    rng,
    *,
    dim=None,
    num_outputs=None,
    num_clients=None,
    readout=None,
    sequences=(3, 20),
    tokens=(1, 12),
    weights=None,
    value_ridge=None,
    kernel_ridge=None,
    heterogeneity=None,
    noise=None,
):
    """A random problem; whatever is None is drawn from `rng`.

    d 2..8, m 1..5, C 2..8, 3..20 ragged sequences of 1..12 tokens, all readouts, weights with
    ratio up to 50, λ and μ log-uniform in [1e-4, 1], (covariate, kernel, value) heterogeneity
    uniform in [0, 2] and sometimes exactly 0, one or two teacher heads.
    """
    dim = _or_draw(dim, lambda: int(rng.integers(2, 9)))
    num_outputs = _or_draw(num_outputs, lambda: int(rng.integers(1, 6)))
    num_clients = _or_draw(num_clients, lambda: int(rng.integers(2, 9)))
    readout = _or_draw(readout, lambda: READOUTS[int(rng.integers(3))])
    levels = rng.uniform(0, 2, 3) * (rng.random(3) > 0.2)
    covariate, kernel_level, value_level = _or_draw(heterogeneity, lambda: levels)
    noise = _or_draw(noise, lambda: float(rng.uniform(0, 0.5)))
    heads, scale = int(rng.integers(1, 3)), 1 / np.sqrt(dim)
    kernel = rng.standard_normal((heads, dim, dim)) * scale
    value = rng.standard_normal((heads, dim, num_outputs)) * scale
    options = {"readout": readout, "sequences": sequences, "tokens": tokens, "noise": noise}
    clients = []
    for _ in range(num_clients):
        mixing = np.eye(dim) + covariate * scale * rng.standard_normal((dim, dim))
        own_kernel = kernel + kernel_level * scale * rng.standard_normal(kernel.shape)
        own_value = value + value_level * scale * rng.standard_normal(value.shape)
        clients.append(_client_data(rng, mixing, own_kernel, own_value, **options))
    return Instance(
        clients,
        readout,
        _or_draw(weights, lambda: random_weights(rng, num_clients)),
        _or_draw(value_ridge, lambda: _log_uniform(rng, 1e-4, 1)),
        _or_draw(kernel_ridge, lambda: _log_uniform(rng, 1e-4, 1)),
    )


def sizes(inst):
    """(d, m) of an instance."""
    X, Y = inst.clients[0][0]
    return X.shape[1], Y.shape[1]


def random_merged(rng, inst, num_heads=None, scale=1.0):
    """(B, V): kernels (H, d, d) and values (H, d, m), H in 1..3, entries N(0, scale²/d)."""
    dim, num_outputs = sizes(inst)
    num_heads = _or_draw(num_heads, lambda: int(rng.integers(1, 4)))
    spread = scale / np.sqrt(dim)
    kernel = spread * rng.standard_normal((num_heads, dim, dim))
    return kernel, spread * rng.standard_normal((num_heads, dim, num_outputs))


def random_factored(rng, inst, num_heads=None, rank=None, scale=1.0):
    """((Q, K), V): factors (H, d, r), H in 1..3, r in 1..d, so that E‖QKᵀ‖² = scale²·d."""
    dim, num_outputs = sizes(inst)
    num_heads = _or_draw(num_heads, lambda: int(rng.integers(1, 4)))
    rank = _or_draw(rank, lambda: int(rng.integers(1, dim + 1)))
    spread = np.sqrt(scale / np.sqrt(rank * dim))
    factors = [spread * rng.standard_normal((num_heads, dim, rank)) for _ in range(2)]
    value = scale / np.sqrt(dim) * rng.standard_normal((num_heads, dim, num_outputs))
    return tuple(factors), value


def random_params(rng, inst, kind, num_heads=None, scale=1.0):
    """(theta, V) with kind `merged` or `factored`."""
    if kind == "factored":
        return random_factored(rng, inst, num_heads, scale=scale)
    kernel, value = random_merged(rng, inst, num_heads, scale)
    return (kernel,), value


def random_batches(rng, inst, *, rounds, local_steps, batch_size):
    """batches[t][i][e]: sequences without replacement, min(batch_size, n_i) of them."""
    table = []
    for _ in range(rounds):
        row = []
        for client in inst.clients:
            count, size = len(client), min(batch_size, len(client))
            row.append([rng.choice(count, size, replace=False) for _ in range(local_steps)])
        table.append(row)
    return table


def random_participants(rng, inst, *, rounds, count):
    """participants[t]: sorted client indices, uniform without replacement."""
    total = len(inst.clients)
    return [sorted(rng.choice(total, count, replace=False).tolist()) for _ in range(rounds)]


def safe_step(inst, theta):
    """0.5 / max(L_K(V*(B)), max_i λ_max(A_i(B))), with B = QKᵀ for factored kernels."""
    tops = [np.linalg.eigvalsh(client_matrix(inst, i, theta))[-1] for i in range(len(inst.clients))]
    return 0.5 / max(curvature(inst, kernels(theta)), *map(float, tops))
