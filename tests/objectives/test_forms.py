"""Both data forms answer alike, and like the twin, whichever would be chosen."""

import numpy as np
import pytest
import reference as ref
from bridge import READOUTS, kinds, make, over, population_on, readouts, relative_error, seeds

import linattn as la
from linattn.objectives.forms import SequenceForm, sequence_equations
from linattn.objectives.moment_form import MomentForm, data_form, prefers_moments
from linattn.objectives.population import client_normal_equations, population

cases = over(seeds, readouts, kinds)
FORMS = (SequenceForm, MomentForm)


def case(seed, readout, kind="merged", num_heads=None):
    rng, inst, theta, V, problem, params = make(seed, kind, num_heads, readout=readout)
    forms = [form(problem.statistics, problem.sequence_weights) for form in FORMS]
    return rng, inst, theta, V, problem, params, forms


@cases
def test_gradients(seed, readout, kind):
    _, inst, theta, V, _, params, forms = case(seed, readout, kind)
    (kernel,), value = ref.data_gradient(inst, ref.kernels(theta), V)
    loss = ref.data_loss(inst, theta, V)
    for form in forms:
        got = form.gradient(params.kernels(), params.value)
        assert got.loss == pytest.approx(loss, rel=1e-9)
        assert relative_error(got.kernel, kernel) < 1e-9
        assert relative_error(got.value, value) < 1e-9


@cases
def test_normal_equations(seed, readout, kind):
    _, inst, theta, _, problem, params, forms = case(seed, readout, kind)
    hessian = ref.value_matrix(inst._replace(value_ridge=0.0), theta)
    for form in forms:
        got = form.normal_equations(params.kernels())
        assert relative_error(got.hessian, hessian) < 1e-9
        assert relative_error(got.linear, ref.value_linear(inst, theta)) < 1e-9
        assert np.array_equal(got.hessian, got.hessian.T)
    clients = client_normal_equations(problem, params.kernels())
    for i in range(problem.num_clients):
        assert relative_error(clients.hessian[i], ref.client_hessian(inst, i, theta)) < 1e-10
        assert relative_error(clients.linear[i], ref.client_linear(inst, i, theta)) < 1e-10


@cases
def test_kernel_hessian(seed, readout, kind):
    rng, inst, _, V, _, params, forms = case(seed, readout, kind)
    expected = ref.curvature_matrix(inst, V, with_ridge=False)
    direction = rng.standard_normal(len(expected))
    for form in forms:
        assert relative_error(form.kernel_hessian(params.value), expected) < 1e-9
        image = form.kernel_operator(params.value)(direction)
        assert relative_error(image, expected @ direction) < 1e-9


@cases
def test_hvp(seed, readout, kind):
    rng, inst, theta, V, _, params, forms = case(seed, readout, kind)
    plain = inst._replace(value_ridge=0.0, kernel_ridge=0.0)
    B = ref.kernels(theta)
    D, W = rng.standard_normal(B.shape), rng.standard_normal(V.shape)
    (kernel,), value = ref.joint_hvp(plain, (B,), V, (D,), W)
    for form in forms:
        got = form.hvp(params.kernels(), params.value, D, W)
        assert relative_error(got[0], kernel) < 1e-8
        assert relative_error(got[1], value) < 1e-8


@cases
def test_tensor_gradient(seed, readout, kind):
    _, inst, theta, V, _, params, forms = case(seed, readout, kind)
    expected = ref.residual_matrix(inst, theta, V)
    for form in forms:
        _, slope = form.tensor.loss_and_gradient(params.kernels(), params.value)
        assert relative_error(slope, expected) < 1e-9


@pytest.mark.parametrize("readout", READOUTS)
def test_least_squares(readout):
    for seed in range(3):
        _, inst, *_, forms = case(seed, readout)
        assert forms[1].solve_least_squares() == pytest.approx(
            ref.least_squares(inst), rel=1e-6, abs=1e-9 * forms[1].energy
        )


def test_many_chunks_of_moments_add_up():
    """More sequences than one chunk holds: d⁴ · S above the chunk size."""
    rng = np.random.default_rng(0)
    tokens, targets = rng.standard_normal((700, 3, 8)), rng.standard_normal((700, 3, 2))
    problem = la.problem_from_tokens([(tokens, targets)], value_ridge=0.1, kernel_ridge=0.1)
    forms = [form(problem.statistics, problem.sequence_weights) for form in FORMS]
    B, V = 0.3 * rng.standard_normal((2, 8, 8)), 0.3 * rng.standard_normal((2, 8, 2))
    for left, right in zip(*(form.gradient(B, V) for form in forms), strict=True):
        assert relative_error(left, right) < 1e-10


def test_the_cheaper_form_is_chosen():
    def problem(sequences, dim):
        rng = np.random.default_rng(0)
        data = rng.standard_normal((2, sequences, 2, dim))
        return la.problem_from_tokens([(data[0], data[1])], value_ridge=1, kernel_ridge=1)

    many, few_sequences, wide = problem(400, 3), problem(2, 4), problem(3, 14)
    assert prefers_moments(many.statistics)
    assert not prefers_moments(few_sequences.statistics)
    assert not prefers_moments(wide.statistics)
    assert isinstance(data_form(many.statistics, many.sequence_weights), MomentForm)
    assert isinstance(data_form(wide.statistics, wide.sequence_weights), SequenceForm)


def test_the_population_is_built_once_and_forgotten_with_its_problem(small_problem):
    assert population(small_problem) is population(small_problem)


@cases
def test_objectives_do_not_depend_on_the_form(seed, readout, kind):
    *_, problem, params = make(seed, kind, readout=readout)
    by_form = [population_on(form, problem) for form in FORMS]
    values = [held.value_and_gradient(params) for held in by_form]
    assert values[0][0] == pytest.approx(values[1][0], rel=1e-9)
    assert relative_error(values[0][1], values[1][1]) < 1e-9
    systems = [held.value_system(params.kernels()) for held in by_form]
    profiles = [h.profile_value(params, s) for h, s in zip(by_form, systems, strict=True)]
    assert profiles[0] == pytest.approx(profiles[1], rel=1e-8)


@pytest.mark.parametrize("readout", READOUTS)
def test_equations_of_sequences_are_those_of_single_features(readout):
    """H_s = ΦᵀΦ/q and C_s = ΦᵀY/q of every sequence, and their means are the client's."""
    _, inst, theta, _, problem, params = make(8, "merged", 2, readout=readout)
    means = client_normal_equations(problem, params.kernels())
    for i, client in enumerate(inst.clients):
        hessians, linears = sequence_equations(problem, params.kernels(), i)
        for (X, Y), hessian, linear in zip(client, hessians, linears, strict=True):
            phi = ref.features(X, theta, readout)
            assert relative_error(hessian, phi.T @ phi / len(phi)) < 1e-12
            assert relative_error(linear, phi.T @ Y / len(Y)) < 1e-12
        assert relative_error(hessians.mean(axis=0), means.hessian[i]) < 1e-12
        assert relative_error(linears.mean(axis=0), means.linear[i]) < 1e-12
