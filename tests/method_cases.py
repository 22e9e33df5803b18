"""Small instances on which the methods are compared: one layer in both languages, and two."""

from __future__ import annotations

import numpy as np
from bridge import same_bits

import linattn as la

RUN = {"rounds": 4, "local_steps": 3, "record_params": True}
NOISY = {"batch_size": 2, "participation": 0.5, "seed": 9}
KINDS = ("merged", "factored", "deep")


def deep_case(seed=0, *, weights=None, num_clients=4, **options):
    """(problem, params) of a two-layer model on ragged random data."""
    sizes = {"num_layers": 2, "dim": 3, "inner_dim": 2, "num_outputs": 2, "num_heads": 2}
    model = la.DeepAttention(**(sizes | {"feature_map": "relu", "residual": True} | options))
    clients = []
    for i in range(num_clients):
        rng = np.random.default_rng((seed, i))
        tokens = [rng.standard_normal((2 + s % 3, model.dim)) + 0.2 * i for s in range(3 + i)]
        rows = [len(x) if model.readout == "token" else 1 for x in tokens]
        clients.append((tokens, [rng.standard_normal((q, model.num_outputs)) for q in rows]))
    problem = la.deep_problem(model, clients, ridge={"kernel": 0.03, "value": 0.05},
                              weights=weights)  # fmt: skip
    return problem, model.initial_params(scale=0.5, seed=seed)


def case(kind, seed=0, **options):
    """(problem, params, step size) of a kind; steps at which a few rounds stay finite."""
    if kind == "deep":
        return *deep_case(seed, **options), 0.02
    problem = la.synthetic_problem(
        num_clients=4, sequences_per_client=5, num_tokens=6, dim=3, num_outputs=2, noise=0.1,
        covariate_heterogeneity=0.3, kernel_heterogeneity=0.5, value_heterogeneity=1.0,
        value_ridge=0.05, kernel_ridge=0.01, seed=seed, **options,
    )  # fmt: skip
    params = la.initial_params(
        problem, num_heads=2, kernel=kind, scale=0.7, value="normal", seed=seed
    )
    return problem, params, la.safe_step(problem, params)


def equal_runs(left, right, but=()):
    """Paths and whole histories equal to the bit."""
    assert left.outcome.status == right.outcome.status == "completed"
    assert all(same_bits(a, b) for a, b in zip(left.path, right.path, strict=True))
    for name, column in right.columns.items():
        if name not in but:
            assert same_bits(column, left.columns[name]), name


def log_slope(sizes, values):
    """Slope of log values against log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
