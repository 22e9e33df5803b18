"""Inexact descent and drift: refused without an assumption, and violated when forced."""

from dataclasses import replace

import numpy as np
import pytest

import linattn as la
from linattn.claims import Instance, get_claim
from linattn.claims.table import check_instance


def verdict(claim, instance, force=False):
    return check_instance(get_claim(claim), instance, force)


@pytest.fixture(scope="module")
def instance(small_problem, small_params):
    return Instance(small_problem, small_params, 3, 4, 0.02)


def with_step(instance, multiple, **changes):
    """The instance with η = multiple / λ_max of all A_i."""
    top = la.frozen_stage(
        instance.problem, instance.params, local_steps=1, local_lr=1.0
    ).largest_step_curvature
    return instance._replace(local_lr=multiple / top, **changes)


def pooled(instance):
    """Identical clients: A_i = A and no error, so that the step size alone matters."""
    return instance._replace(problem=la.pool(instance.problem))


@pytest.mark.parametrize(
    ("claim", "beyond"),
    [
        ("inexact absolute", 2.1),
        ("inexact relative", 2.5),
        ("PL rate", 2.5),
        ("Ajalloeian–Stich", 2.1),
    ],
)
def test_the_step_must_be_small(instance, claim, beyond):
    """One step from the top eigenvector of A multiplies f − f* by (1 − ηL)²."""
    same = pooled(instance)
    block = la.ValueBlock(same.problem, same.params)
    top = np.linalg.eigh(block.hessian)[1][:, -1]
    away = np.outer(top, np.ones(2)).reshape(same.params.value.shape)
    start = same.params.replace(value=block.minimizer() + away)
    same = same._replace(params=start, rounds=1, local_steps=1)
    assert verdict(claim, with_step(same, 0.9)).status == "holds"
    wide = with_step(same, beyond)
    assert verdict(claim, wide).status == "refused"
    assert verdict(claim, wide, force=True).status == "violated"


def test_absolute_error_is_needed(instance, monkeypatch):
    from linattn.claims import c17_inexact

    far = with_step(instance, 0.9, rounds=40, local_steps=10)
    assert verdict("inexact absolute", far).status == "holds"
    honest = c17_inexact.descent_chain
    monkeypatch.setattr(c17_inexact, "descent_chain", lambda a, b, c, d: honest(a, b, c, 0 * d))
    assert verdict("inexact absolute", far).status == "violated"


def test_composite_bound_needs_the_offset(instance, monkeypatch):
    """Without G_d the bound goes to zero, while rounds end at the biased fixed point."""
    from linattn.claims import c17_inexact

    stiff = replace(instance.problem, value_ridge=2.0)
    far = with_step(instance._replace(problem=stiff), 0.09, rounds=400, local_steps=10)
    assert verdict("inexact composite", far).status == "holds"
    monkeypatch.setattr(c17_inexact, "dissimilarity", lambda *arguments: 0.0)
    assert verdict("inexact composite", far).status == "violated"


def test_composite_bound_is_refused_for_long_rounds(instance):
    assert (
        verdict("inexact composite", with_step(instance, 0.9, local_steps=30)).status == "refused"
    )


def test_relative_bound_is_refused_at_the_minimizer(instance):
    """There the gradient is zero and no error is small against it."""
    star = la.KernelProfile(instance.problem).minimizer(instance.params)
    there = with_step(instance, 0.9)._replace(params=instance.params.replace(value=star))
    assert verdict("inexact relative", there).status == "refused"


def test_rate_is_refused_at_the_minimizer(instance):
    """There rounding alone would be compared."""
    star = la.KernelProfile(instance.problem).minimizer(instance.params)
    there = with_step(instance, 0.9)._replace(params=instance.params.replace(value=star))
    assert verdict("PL rate", there).status == "refused"


def test_quadratic_factor_needs_a_small_step(instance):
    """E = 3: a direction of ηλ = 1.5 drifts by ¾, the top one by less."""
    same = pooled(instance)
    block = la.ValueBlock(same.problem, same.params)
    values, vectors = np.linalg.eigh(block.hessian)
    away = np.outer(vectors[:, -2], np.ones(2)).reshape(same.params.value.shape)
    start = same.params.replace(value=block.minimizer() + away)
    wide = same._replace(params=start, rounds=1, local_steps=3, local_lr=1.5 / values[-2])
    assert verdict("drift quadratic", wide).status == "refused"
    assert verdict("drift quadratic", wide, force=True).status == "violated"
    assert verdict("drift quadratic", with_step(wide, 1.0)).status == "holds"


@pytest.mark.parametrize("claim", ["drift general", "drift blocks"])
def test_drift_needs_full_batches(instance, claim):
    """At E = 1 the factor is zero, but a minibatch is not the full gradient."""
    noisy = instance._replace(local_steps=1, batch_size=1)
    assert verdict(claim, noisy).status == "refused"
    assert verdict(claim, noisy, force=True).status == "violated"


@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_general_factor_is_not_the_quadratic_one(small_problem, kind, monkeypatch):
    """The joint objective is not convex: the value block's factor is too small for all blocks."""
    from linattn.claims import c18_drift
    from linattn.theory.drift import quadratic_drift_factor

    monkeypatch.setattr(
        c18_drift, "general_drift_factor", lambda x, e: quadratic_drift_factor(min(x, 1.0), e)
    )
    states = set()
    for seed in range(12):
        rank = {"rank": 2} if kind == "factored" else {}
        params = la.initial_params(
            small_problem, kernel=kind, scale=0.05, value="normal", seed=seed, **rank
        )
        params = la.Params(params.layout, 0.05 * params.flat)
        states.add(verdict("drift general", Instance(small_problem, params, 1, 30, 0.05)).status)
    assert "violated" in states


def test_blocks_are_needed(instance, monkeypatch):
    from linattn.claims import c18_drift

    one = instance._replace(problem=instance.problem.subset([0]), local_steps=2, local_lr=1e-3)
    honest, states = c18_drift.block_drift, []
    for kept in ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0)):
        monkeypatch.setattr(
            c18_drift, "block_drift",
            lambda *a, kept=kept, **k: tuple(np.multiply(kept, honest(*a, **k))),
        )  # fmt: skip
        states.append(verdict("drift blocks", one).status)
    assert states == ["holds", "violated", "violated"]


def test_blocks_need_a_small_value_step(instance):
    wide = with_step(instance, 3.0, rounds=1, local_steps=3)
    unmet = [c.name for c in verdict("drift blocks", wide).unmet]
    assert unmet == ["ηλ_max(A_i) ≤ 2 on the path"]
