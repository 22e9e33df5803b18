"""Interval certificates: what holds is proved, what does not is refuted, the rest is left open."""

from dataclasses import replace

import numpy as np
import pytest
from worlds import world

import linattn as la
from linattn.claims.instances import random_instance
from linattn.theory import certify as module
from linattn.theory.certify import MAX_RADIUS, certify

IDENTITIES = ("C1", "C3", "C11", "C4 additive")
INEQUALITIES = ("C3f bound", "C4", "C3 bound", "ρ < 1", "C8 bound")


@pytest.fixture(autouse=True)
def flint():
    """Ball arithmetic is an extra."""
    return pytest.importorskip("flint")


def small(index, readout="token"):
    problem = world(num_clients=3, sequences_per_client=4, dim=2 + index % 3,
                    value_heterogeneity=1.0, covariate_heterogeneity=0.5, readout=readout,
                    weights=[0.5, 0.3, 0.2], seed=index)  # fmt: skip
    params = la.initial_params(problem, scale=0.7, value="normal", seed=index)
    return problem, params, 0.7 * 2.0 * la.safe_step(problem, params)


@pytest.mark.parametrize("readout", ["token", "mean", "last"])
@pytest.mark.parametrize("index", range(3))
def test_every_claim_is_proved(index, readout):
    problem, params, step = small(index, readout)
    found = {c.name: c for c in certify(problem, params, local_steps=5, local_lr=step)}
    for name in IDENTITIES:
        assert found[name].decided is True
        assert found[name].radius <= MAX_RADIUS
    for name in INEQUALITIES:
        assert found[name].decided is True, name
    stage = la.frozen_stage(problem, params, local_steps=5, local_lr=step)
    signs = [found[f"bias {k}"] for k in range(stage.bias.size)]
    assert [c.decided for c in signs] == list((stage.bias > 0).ravel())
    assert np.allclose([c.value for c in signs], stage.bias.ravel(), rtol=1e-8, atol=1e-13)


def test_no_bias_is_left_undecided():
    """At E = 1 the bias is zero: no sign can be proved."""
    problem, params, step = small(0)
    found = {c.name: c for c in certify(problem, params, local_steps=1, local_lr=step)}
    assert {c.decided for name, c in found.items() if name.startswith("bias")} == {None}
    assert "C8 bound" not in found


def test_an_unstable_stage_is_refuted():
    problem, params, _ = small(1)
    top = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
    found = {c.name: c for c in certify(problem, params, local_steps=3, local_lr=4.0 / top)}
    assert found["ρ < 1"].decided is False
    assert "C8 bound" not in found


def test_a_curvature_that_is_too_small_is_refuted(monkeypatch):
    problem, params, step = small(1)
    honest = la.KernelProfile.curvature
    monkeypatch.setattr(la.KernelProfile, "curvature", lambda self, p: 0.99 * honest(self, p))
    found = {c.name: c for c in certify(problem, params, local_steps=3, local_lr=step)}
    assert found["C3 bound"].decided is False


@pytest.mark.parametrize(
    ("part", "broken"), [("_curved", {"C3", "C4 additive"}), ("_gradients", {"C3", "C11"})]
)
def test_a_wrong_term_is_refuted(monkeypatch, part, broken):
    problem, params, step = small(2)
    honest = getattr(module, part)

    def wrong(*arguments):
        value = honest(*arguments)
        factor = module.matrix(np.array(1.001)).entries()[0]
        return (value[0] * factor, value[1]) if isinstance(value, tuple) else value * factor

    monkeypatch.setattr(module, part, wrong)
    found = {c.name: c for c in certify(problem, params, local_steps=3, local_lr=step)}
    assert {name for name in IDENTITIES if found[name].decided is False} >= broken


def test_low_precision_cannot_decide(monkeypatch, flint):
    problem, params, step = small(2)
    from linattn.theory import balls

    monkeypatch.setattr(balls, "PRECISION", 40)
    flint.ctx.prec = 40
    try:
        found = {c.name: c for c in certify(problem, params, local_steps=5, local_lr=step)}
    finally:
        flint.ctx.prec = 256
    assert {found[name].decided for name in IDENTITIES} == {None}


def test_only_small_merged_problems_are_certified():
    problem, _, step = small(0)
    two = la.initial_params(problem, num_heads=2)
    factored = la.initial_params(problem, kernel="factored")
    for bad in (two, factored):
        with pytest.raises(ValueError, match="one merged head"):
            certify(problem, bad, local_steps=2, local_lr=step)
    wide = next(i for i in (random_instance(0, k) for k in range(50)) if i.problem.dim > 4)
    with pytest.raises(ValueError, match="one merged head"):
        certify(wide.problem, la.initial_params(wide.problem), local_steps=2, local_lr=step)


def test_identical_clients_have_no_provable_bias():
    problem, params, step = small(0)
    same = replace(la.pool(problem), weights=np.array([0.5, 0.25, 0.25]))
    found = certify(same, params, local_steps=4, local_lr=step)
    assert {c.decided for c in found if c.name.startswith("bias")} == {None}
