"""Numbers of C22: the in-context world of a seed, its optimum by bisection of one scalar."""

import numpy as np

from claim_cases.build import Numbers
from linattn.streams import stream


def world(case):
    """Eigenvalues (C, D), contexts, noise and weights."""
    draw = stream(case.instance.seed, "in-context world")
    features, clients = int(draw.integers(1, 5)), int(draw.integers(1, 5))
    draw.normal(size=(features, features))  # the common eigenvectors
    eigenvalues = np.exp(draw.normal(size=(clients, features)))
    lengths, noise = draw.integers(1, 21, clients), draw.uniform(0.0, 1.0, clients)
    return eigenvalues, lengths, noise, draw.dirichlet(np.full(clients, 2.0))


def optimum(case):
    """(loss, γ, v, ½tr Σp_iΛ_i): the best of γ for every v, by stationarity in v."""
    eigenvalues, lengths, noise, weights = world(case)
    value_ridge, kernel_ridge = case.inst.value_ridge, case.inst.kernel_ridge
    spread = (eigenvalues.sum(axis=1) + noise**2) / lengths
    slope = weights @ eigenvalues**2
    bend = weights @ (eigenvalues**2 * ((1 + 1 / lengths)[:, None] * eigenvalues + spread[:, None]))
    size = 0.5 * float(weights @ eigenvalues.sum(axis=1))

    def gamma(v):
        return v * slope / (v**2 * bend + kernel_ridge)

    def pull(v):
        """Of the loss in v, at the best γ; falls with v after division by it."""
        g = gamma(v)
        return (g @ slope - v * (g**2 @ bend)) / v - value_ridge

    low, high = 1e-12, 1.0
    if pull(low) <= 0:
        return size, 0 * slope, 0.0, size
    while pull(high) > 0:
        high *= 2
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if pull(middle) > 0 else (low, middle)
    g = gamma(low)
    loss = size - low * g @ slope + 0.5 * low**2 * (g**2 @ bend)
    ridge = 0.5 * kernel_ridge * float(g @ g) + 0.5 * value_ridge * low**2
    return loss + ridge, g, low, size


def loss(case):
    best, *_, size = optimum(case)
    return Numbers([(best, best, size)])


def stationary(case):
    _, gamma, v, size = optimum(case)
    ridges = np.hypot(case.inst.kernel_ridge * np.linalg.norm(gamma), case.inst.value_ridge * v)
    return Numbers([(ridges, ridges, ridges + size)])


def dual(case):
    """Away from collapse the largest singular value is attained along (B, V)."""
    best, gamma, _, size = optimum(case)
    assert gamma.any()
    threshold = np.sqrt(case.inst.value_ridge * case.inst.kernel_ridge)
    return Numbers([(threshold, threshold, threshold + size)], {"loss": best})
