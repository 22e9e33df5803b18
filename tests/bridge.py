"""Between the twin (`reference`) and the library: the same instance in both languages."""

from __future__ import annotations

import numpy as np
import pytest
import reference as ref
from hypothesis import given, settings
from hypothesis import strategies as st

import linattn as la
from linattn.federated.rounds import RoundDriver
from linattn.objectives.population import Population

READOUTS = (*ref.READOUTS, ref.own_queries)
seeds = st.integers(0, 10**6)
kinds = st.sampled_from(["merged", "factored"])
readouts = st.sampled_from(READOUTS)
INSTANCE = (seeds, kinds, readouts)


def over(*strategies, examples=25):
    """Run a test on a few instances that Hypothesis draws, the same ones every time."""
    few = settings(max_examples=examples, deadline=None, derandomize=True)
    return lambda test: few(given(*strategies)(test))


def from_instance(inst: ref.Instance) -> la.Problem:
    """The library's problem of a twin's instance."""
    own = callable(inst.readout)
    data = [
        [[X for X, _ in client], [Y for _, Y in client]]
        + ([[inst.readout(X) for X, _ in client]] if own else [])
        for client in inst.clients
    ]
    return la.problem_from_tokens(
        data,
        readout="queries" if own else inst.readout,
        weights=inst.weights,
        value_ridge=inst.value_ridge,
        kernel_ridge=inst.kernel_ridge,
    )


def to_params(theta, value) -> la.Params:
    """(B,) or (Q, K) and V as `Params`."""
    parts = ref.blocks(theta)
    build = la.Params.factored if ref.is_factored(theta) else la.Params.merged
    return build(*parts, value)


def to_theta(params: la.Params):
    """`Params` as the twin's (theta, V)."""
    names = ("query", "key") if params.is_factored else ("kernel",)
    return tuple(params[name] for name in names), params.value


def make(seed, kind="merged", num_heads=None, **options):
    """A small random instance of both languages: (rng, inst, theta, V, problem, params)."""
    rng = np.random.default_rng(seed)
    drawn = {
        "dim": int(rng.integers(2, 5)),
        "value_ridge": float(np.exp(rng.uniform(np.log(0.02), 0.0))),
        "kernel_ridge": float(np.exp(rng.uniform(np.log(0.005), 0.0))),
        "sequences": (2, 5),
        "tokens": (1, 6),
    }
    inst = ref.random_instance(rng, **(drawn | options))
    theta, value = ref.random_params(rng, inst, kind, num_heads)
    return rng, inst, theta, value, from_instance(inst), to_params(theta, value)


def population_on(form, problem):
    """The population with its data as `form` holds them, whichever form would be cheaper."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("linattn.objectives.compiled.data_form", form)
        return Population(problem)


def direction_like(rng, params: la.Params) -> la.Params:
    """A random direction with the blocks of `params`."""
    return la.Params(params.layout, rng.standard_normal(params.layout.size))


def moved(params: la.Params, direction: la.Params, t: float) -> la.Params:
    """params + t·direction."""
    return la.Params(params.layout, params.flat + t * direction.flat)


def relative_error(left, right, scale=None) -> float:
    """Largest entry of |left − right| against the largest entry of both (or `scale`)."""
    left, right = np.asarray(left), np.asarray(right)
    assert left.shape == right.shape
    if scale is None:
        scale = max(np.max(np.abs(left)), np.max(np.abs(right)), 1e-300)
    return float(np.max(np.abs(left - right)) / scale)


def same_bits(left, right) -> bool:
    """Whether two arrays (or parameters) are equal byte for byte."""
    left, right = (x.flat if isinstance(x, la.Params) else np.asarray(x) for x in (left, right))
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def average_stale_absentees(monkeypatch, problem) -> None:
    """Let the server average over all clients, absentees at the old parameters."""
    honest = RoundDriver._aggregate

    def with_stale_absentees(self, context, proposal):
        share = problem.weights[context.participants].sum()
        return share * honest(self, context, proposal) + (1 - share) * context.params.flat

    monkeypatch.setattr(RoundDriver, "_aggregate", with_stale_absentees)
