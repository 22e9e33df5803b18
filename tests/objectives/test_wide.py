"""The convex problem behind C15, the descents to minima of P, and what threads share."""

import numpy as np
import pytest
import reference as ref
from bridge import make, population_on

import linattn as la
from linattn._threads import available_threads, each_in_threads
from linattn.objectives import descent, wide
from linattn.objectives.descent import Descents, kernel_part
from linattn.objectives.forms import SequenceForm
from linattn.objectives.moment_form import MomentForm
from linattn.objectives.population import population
from linattn.objectives.wide import (
    LastSteps,
    _cubic_roots,
    _Objective,
    lower_bound,
    wide_form,
)
from linattn.streams import stream

FORMS = pytest.mark.parametrize("form", [SequenceForm, MomentForm])


def case(seed, form, readout="token"):
    rng, inst, *_, problem, _ = make(seed, readout=readout, dim=3, num_outputs=2)
    return rng, inst, population_on(form, problem)


@FORMS
@pytest.mark.parametrize("readout", ["token", "mean"])
def test_loss_gradient_and_lines_against_the_twin(form, readout, monkeypatch):
    rng, inst, held = case(3, form, readout)
    monkeypatch.setattr("linattn.objectives.wide.MAX_MOMENT_ENTRIES", 0)
    data, heads, threshold = wide_form(held).tensor, 6, 0.3
    assert (data.gram is None) == (form is MomentForm)
    objective = _Objective(data, heads, threshold)
    flat, way = rng.standard_normal((2, heads * (9 + 6)))
    B, V = (rows.reshape(heads, 3, -1) for rows in objective.blocks(flat))
    point = objective.at(flat)
    ridge = 0.5 * threshold * flat @ flat
    assert objective.loss(point) == pytest.approx(ref.data_loss(inst, B, V) + ridge, rel=1e-9)
    slope = data.pull(point.weighed - data.cross)
    np.testing.assert_allclose(slope, ref.residual_matrix(inst, B, V), rtol=1e-9, atol=1e-10)
    bound = lower_bound(data, point.image, threshold)
    assert bound == pytest.approx(ref.lower_bound(inst, B, V, threshold), rel=1e-8, abs=1e-12)
    line = objective.line(point, way)
    assert line.coefficients[0] == pytest.approx(objective.gradient(point) @ way, rel=1e-9)
    for t in (-0.5, 1.0, 2.0):
        change = objective.loss(objective.at(flat + t * way)) - objective.loss(point)
        assert line.coefficients @ t ** np.arange(1, 5) == pytest.approx(change, rel=1e-8)
        there, again = objective.moved(point, line, t), objective.at(flat + t * way)
        np.testing.assert_allclose(there.weighed, again.weighed, rtol=1e-9, atol=1e-9)
    down = objective.line(point, -objective.gradient(point))
    t = down.minimum()
    losses = [objective.loss(objective.moved(point, down, s * t)) for s in (1.0, 0.99, 1.01)]
    assert t > 0.0
    assert losses[0] < min(losses[1:])


def test_the_last_steps_solve_a_quadratic():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    matrix = root @ root.T + np.eye(6)
    goal, x, memory = rng.standard_normal(6), np.zeros(6), LastSteps(6)
    for _ in range(7):  # with exact lines it ends after as many steps as there are dimensions
        slope = matrix @ (x - goal)
        if np.linalg.norm(slope) < 1e-12:
            break
        way = memory.direction(slope)
        step = -(slope @ way) / (way @ matrix @ way) * way
        memory.add(step, matrix @ step)
        x = x + step
    np.testing.assert_allclose(x, goal, rtol=1e-8)


@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_descents_in_both_variables_end_in_the_same_minimum(kind):
    *_, problem, params = make(5, kind, 2)
    runs = [Descents(population(problem), params) for _ in range(2)]
    runs[0].joint, runs[1].joint = False, True
    first = runs[0].follow(kernel_part(params))
    found = [run.follow(1.02 * kernel_part(first.params)) for run in runs]
    assert found[0].value == pytest.approx(first.value, rel=1e-9)
    assert found[0].value == pytest.approx(found[1].value, rel=1e-9)
    profile = la.KernelProfile(problem)
    for one in found:
        assert one.value == pytest.approx(profile.value(one.params), rel=1e-12)
        slope = profile.gradient(one.params).flat
        assert one.gradient_norm == pytest.approx(np.linalg.norm(slope), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_a_random_start_is_at_the_best_of_its_scales(kind):
    *_, problem, params = make(6, kind, 2)
    run = Descents(population(problem), params)
    start = run.random(np.random.default_rng(0))
    profile = la.KernelProfile(problem)
    values = [
        profile.value(descent.with_kernel(params, scale * start)) for scale in (0.5, 1.0, 2.0)
    ]
    assert values[1] == min(values)


def test_a_fit_in_single_precision_gives_a_bound_that_holds(monkeypatch):
    *_, problem, _ = make(2, dim=3, num_outputs=2)
    held, threshold = population(problem), 0.05
    exact = wide.wide_fit(held, threshold)
    monkeypatch.setattr(wide, "MAX_WORK", 0.0)
    monkeypatch.setattr(wide, "MIN_ITERATIONS", 300)
    rough = wide.wide_fit(held, threshold)
    assert exact.lower_bound * (1 - 1e-4) <= rough.lower_bound <= exact.lower_bound * (1 + 1e-6)
    assert rough.kernel.dtype == np.float64
    assert not np.array_equal(rough.kernel, exact.kernel)
    bound = wide.dual_lower_bound(held, rough.kernel, rough.value, threshold)
    assert bound <= exact.lower_bound * (1 + 1e-6)


def test_screened_starts_find_what_all_of_them_find(monkeypatch):
    *_, problem, params = make(7, "merged", 2)
    every = la.reference_value(problem, like=params, num_starts=6)
    monkeypatch.setattr(descent, "MAX_WORK", 0.0)
    few = la.reference_value(problem, like=params, num_starts=6)
    assert few.value == pytest.approx(every.value, rel=1e-10)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_every_item_once_in_order_and_no_threads_within_threads(monkeypatch, threads):
    monkeypatch.setenv("NUMBA_NUM_THREADS", threads)
    found = each_in_threads(lambda k: (k * k, available_threads()), range(20))
    assert found == [(k * k, 1) for k in range(20)]
    assert available_threads() == int(threads)
    assert each_in_threads(str, []) == []
    with pytest.raises(ZeroDivisionError):
        each_in_threads(lambda k: 1 // k, [2, 1, 0, 1])
    assert available_threads() == int(threads)


@pytest.mark.parametrize("zero", [None, 0, 3])
def test_roots_of_a_cubic_are_those_of_numpy(zero):
    for coefficients in stream(0, "cubics").normal(size=(50, 4)) * 10.0 ** np.arange(-3, 5, 2):
        if zero is not None:
            coefficients[zero] = 0.0
        assert np.array_equal(_cubic_roots(coefficients), np.roots(coefficients))
