"""Random instances on which claims are checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.analysis.applicable import FULL_BATCHES, FULL_PARTICIPATION
from linattn.claims.record import Claim, Instance
from linattn.data.tokens import problem_from_tokens
from linattn.objectives.starts import initial_params
from linattn.objectives.steps import safe_step
from linattn.streams import stream
from linattn.types import READOUTS, Problem

MAX_WEIGHT_RATIO = 50.0


def random_instance(seed: int, index: int) -> Instance:
    """Return instance `index` of the stream (seed, "instance").

    d 2..8, m 1..5, H 1..3, r 1..d, C 2..8, 3..20 sequences per client, ragged n 1..12, every
    readout, weights with ratio up to 50, E 1..50, η·L log-uniform in [1e-3, 2] with L the larger of
    L_K and λ_max(A_i) at the start, heterogeneities 0..2, λ and μ log-uniform in [1e-4, 1]; half
    of them factored, a third with minibatches, a third with partial participation.
    """
    draw = stream(seed, "instance", index)
    problem = _random_problem(draw)
    factored = bool(draw.random() < 0.5)
    params = initial_params(
        problem,
        num_heads=int(draw.integers(1, 4)),
        kernel="factored" if factored else "merged",
        rank=int(draw.integers(1, problem.dim + 1)) if factored else None,
        scale=_log_uniform(draw, 0.2, 2.0),
        value=str(draw.choice(["zeros", "normal", "minimizer"])),
        seed=int(draw.integers(2**31)),
    )
    eta_curvature = _log_uniform(draw, 1e-3, 2.0)
    return Instance(
        problem,
        params,
        rounds=int(draw.integers(2, 6)),
        local_steps=int(draw.integers(1, 51)),
        local_lr=eta_curvature * 2.0 * safe_step(problem, params),
        batch_size=int(draw.integers(1, 6)) if draw.random() < 1 / 3 else None,
        participation=float(draw.uniform(0.3, 0.9)) if draw.random() < 1 / 3 else 1.0,
        seed=int(draw.integers(2**31)),
    )


def suited(instance: Instance, claim: Claim) -> Instance:
    """Return a random instance as a claim can be checked on it.

    Without minibatches and sampling where the claim does not speak of them, and as it suits itself
    (`Claim.suit`).
    """
    changes: dict[str, Any] = {}
    if FULL_BATCHES in claim.needs:
        changes["batch_size"] = None
    if FULL_PARTICIPATION in claim.needs:
        changes["participation"] = 1.0
    like = instance._replace(**changes)
    return like if claim.suit is None else claim.suit(like)


def _log_uniform(draw: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(draw.uniform(np.log(low), np.log(high))))


def _random_problem(draw: np.random.Generator) -> Problem:
    dim, outputs = int(draw.integers(2, 9)), int(draw.integers(1, 6))
    readout = str(draw.choice(READOUTS))
    teacher = draw.normal(size=(dim, dim)) / np.sqrt(dim)
    teacher_value = draw.normal(size=(dim, outputs)) / np.sqrt(dim)
    spread = draw.uniform(0.0, 2.0, size=3)
    clients = [
        _random_client(draw, dim, readout, teacher, teacher_value, spread)
        for _ in range(int(draw.integers(2, 9)))
    ]
    ratios = np.exp(draw.uniform(0.0, np.log(MAX_WEIGHT_RATIO), size=len(clients)))
    weights = ratios / ratios.sum()
    return problem_from_tokens(
        clients,
        readout=readout,
        weights=None if draw.random() < 0.3 else weights.tolist(),
        value_ridge=_log_uniform(draw, 1e-4, 1.0),
        kernel_ridge=_log_uniform(draw, 1e-4, 1.0),
    )


def _random_client(
    draw: np.random.Generator,
    dim: int,
    readout: str,
    teacher: Array,
    teacher_value: Array,
    spread: Array,
) -> tuple[list[Array], list[Array]]:
    """Ragged sequences with this client's own mixing, teacher kernel and teacher value."""
    root = np.sqrt(dim)
    mixing = np.eye(dim) + spread[0] * draw.normal(size=(dim, dim)) / root
    kernel = teacher + spread[1] * draw.normal(size=teacher.shape) / root
    value = teacher_value + spread[2] * draw.normal(size=teacher_value.shape) / root
    tokens, targets = [], []
    for _ in range(int(draw.integers(3, 21))):
        x = draw.normal(size=(int(draw.integers(1, 13)), dim)) @ mixing.T
        queries = {"token": x, "mean": x.mean(axis=0, keepdims=True), "last": x[-1:]}[readout]
        clean = queries @ kernel @ (x.T @ x / len(x)) @ value
        tokens.append(x)
        targets.append(clean + 0.1 * draw.normal(size=clean.shape))
    return tokens, targets
