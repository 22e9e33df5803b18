"""C5, C6, C14: refused without an assumption, and violated when forced."""

import numpy as np
import pytest
import reference as ref
from bridge import average_stale_absentees, make

import linattn as la
from linattn.claims import Instance, get_claim
from linattn.claims.instances import random_instance
from linattn.claims.table import check_instance


def verdict(claim, instance, force=False):
    return check_instance(get_claim(claim), instance, force)


@pytest.fixture(scope="module")
def instance(small_problem, small_params):
    return Instance(small_problem, small_params, 2, 5, 0.02)


def test_tracking_bound_needs_the_quadratic_term(small_problem, small_params, monkeypatch):
    far = Instance(small_problem, small_params.replace(value=small_params.value + 1e4), 1, 1, 1e-12)
    assert verdict("C5", far).status == "holds"
    monkeypatch.setattr("linattn.theory.tracking._quadratic", lambda *arguments: 0.0)
    assert verdict("C5", far).status == "violated"


def test_tracking_bound_needs_the_coupling(small_problem, small_params, monkeypatch):
    star = la.KernelProfile(small_problem).minimizer(small_params)
    near = Instance(small_problem, small_params.replace(value=star + 1e-4), 1, 1, 1e-12)
    assert verdict("C5", near).status == "holds"
    monkeypatch.setattr("linattn.theory.tracking._norm", lambda matrix: 0.0)
    assert verdict("C5", near).status == "violated"


def test_factored_tracking_bound_needs_the_factors(small_problem, small_factored, monkeypatch):
    large = small_factored.replace(query=30.0 * small_factored.query, key=small_factored.key / 30)
    star = la.KernelProfile(small_problem).minimizer(large)
    instance = Instance(small_problem, large.replace(value=star + 1e-4), 1, 1, 1e-12)
    assert verdict("C5", instance).status == "holds"
    monkeypatch.setattr("linattn.theory.tracking.factor_size", lambda params: 1.0)
    assert verdict("C5", instance).status == "violated"


def test_recursion_needs_the_applied_weights(small_problem, small_params, monkeypatch):
    """Averaging over all clients, absentees at their old values, is not the virtual iterate."""
    instance = Instance(small_problem, small_params, 3, 4, 0.02, None, 0.5)
    for claim in ("C5 recursion", "C5 contraction"):
        assert verdict(claim, instance).status == "holds"
    average_stale_absentees(monkeypatch, small_problem)
    assert verdict("C5 recursion", instance).status == "violated"


def test_contraction_needs_the_moving_minimizer(instance, monkeypatch):
    from linattn.claims import c05_tracking

    start = instance.params.replace(
        value=la.KernelProfile(instance.problem).minimizer(instance.params)
    )
    still = instance._replace(params=start, local_steps=1, rounds=1)
    assert verdict("C5 contraction", still).status == "holds"
    honest = c05_tracking.contracted_lag
    monkeypatch.setattr(
        c05_tracking,
        "contracted_lag",
        lambda start, norms, pushes: honest(start, norms, 0 * pushes),
    )
    assert verdict("C5 contraction", still).status == "violated"


@pytest.mark.parametrize("claim", ["C5", "C5 recursion", "C5 contraction", "C6", "C14"])
def test_a_diverging_run_is_refused(instance, claim):
    assert verdict(claim, instance._replace(local_lr=50.0, local_steps=40)).status == "refused"


@pytest.mark.parametrize("claim", ["C6", "C6 segment"])
def test_consensus_needs_full_batches(small_problem, small_params, claim):
    """Identical clients have ζ = 0, but minibatches take them apart."""
    same = la.pool(small_problem)
    noisy = Instance(same, small_params, 1, 3, 0.02, batch_size=1)
    refused = verdict(claim, noisy)
    assert refused.status == "refused"
    assert refused.unmet[0].name == "full batches"
    assert verdict(claim, noisy, force=True).status == "violated"


def test_consensus_needs_all_of_the_heterogeneity(instance, monkeypatch):
    """The first step is an equality, D_1 = ηζ_0."""
    from linattn.claims import c06_consensus

    instance = instance._replace(local_steps=1)
    assert verdict("C6", instance).status == "holds"
    honest = c06_consensus.consensus_chain
    monkeypatch.setattr(
        c06_consensus, "consensus_chain", lambda a, b, zetas: honest(a, b, 0.9 * zetas)
    )
    assert verdict("C6", instance).status == "violated"


def test_segment_claim_holds_on_random_instances():
    drawn = (random_instance(2, index) for index in range(40))
    usable = [i for i in drawn if i.batch_size is None and not i.params.is_factored]
    verdicts = [verdict("C6 segment", i) for i in usable[:8]]
    assert {v.status for v in verdicts} == {"holds"}
    assert all(v.tightness >= 1 - 1e-9 for v in verdicts)
    assert verdict("C6 segment", usable[0]._replace(params=la.initial_params(
        usable[0].problem, kernel="factored"))).status == "refused"  # fmt: skip


def shared_tokens(eta_curvature):
    """Clients with the same tokens and other targets, and a step beyond the condition."""
    problem = la.synthetic_problem(
        num_clients=3, sequences_per_client=6, num_tokens=5, dim=3, num_outputs=2, noise=0.1,
        value_heterogeneity=1.0, value_ridge=0.05, kernel_ridge=0.01, shared_tokens=True,
    )  # fmt: skip
    params = la.initial_params(problem, value="zeros")
    top = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
    return Instance(problem, params, 1, 4, eta_curvature / top)


def test_frozen_consensus_needs_a_small_step():
    assert verdict("C6 frozen", shared_tokens(1.9)).status == "holds"
    beyond = shared_tokens(4.0)
    assert verdict("C6 frozen", beyond).status == "refused"
    assert verdict("C6 frozen", beyond, force=True).status == "violated"


def test_contracting_consensus_needs_a_small_step():
    drawn = random_instance(5, 21)
    top = la.frozen_stage(
        drawn.problem, drawn.params, local_steps=1, local_lr=1.0
    ).largest_step_curvature
    beyond = drawn._replace(local_lr=3.0 / top, rounds=1, local_steps=2)
    assert verdict("C6 contracting", beyond).status == "refused"
    assert verdict("C6 contracting", beyond, force=True).status == "violated"
    assert verdict("C6 contracting", beyond._replace(local_lr=1 / top)).status == "holds"


def test_chain_needs_a_small_step():
    drawn = random_instance(5, 8)
    start = drawn.params.replace(value=la.KernelProfile(drawn.problem).minimizer(drawn.params))
    beyond = drawn._replace(
        params=start, rounds=1, local_steps=1, batch_size=None, participation=1.0,
        local_lr=3.0 * la.safe_step(drawn.problem, drawn.params),
    )  # fmt: skip
    assert verdict("C14", beyond).status == "refused"
    assert verdict("C14", beyond, force=True).status == "violated"


def test_chain_needs_the_errors(instance, monkeypatch):
    from linattn.claims import c14_chain

    noisy = instance._replace(rounds=20, local_steps=20, local_lr=0.005, batch_size=1)
    assert verdict("C14", noisy).status == "holds"
    honest = c14_chain.descent_chain
    monkeypatch.setattr(
        c14_chain, "descent_chain", lambda a, b, c, errors: honest(a, b, c, 0 * errors)
    )
    assert verdict("C14", noisy).status == "violated"


@pytest.mark.parametrize("seed", range(3))
def test_chain_is_the_twins(seed):
    from linattn.analysis.descent_steps import descent_steps
    from linattn.theory.inexact import descent_chain, measured_moduli

    _, inst, theta, value, problem, params = make(seed)
    eta = 0.2 * ref.safe_step(inst, theta)
    run = ref.fedavg(inst, theta, value, rounds=2, local_steps=3, local_lr=eta)
    sides = ref.pl_chain(inst, run, eta, reference=0.0)
    steps = descent_steps(problem, params, rounds=2, local_steps=3, local_lr=eta)
    moduli = measured_moduli(steps.profile[:-1], steps.slopes_sq, eta)
    chain = descent_chain(float(steps.profile[0]), eta, moduli, steps.errors_sq)
    assert chain[-1] == pytest.approx(sides["upper"], rel=1e-9)
    assert steps.profile[-1] == pytest.approx(sides["left"], rel=1e-9)
    assert steps.eta_L.max() == pytest.approx(sides["eta_L"], rel=1e-8)
    assert np.isfinite(steps.end.flat).all()
