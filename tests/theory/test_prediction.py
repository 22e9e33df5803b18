"""Predicted runs against federated ones, and the orders of the ways to predict them."""

import numpy as np
import pytest
from bridge import relative_error
from method_cases import case, drifting_world, log_slope

import linattn as la
from linattn.theory.impulse import RoundMaps
from linattn.theory.interpolation import Clock, Forced, Node, next_interval, polynomial, retraced
from linattn.theory.prediction import prediction_error

RUN = {"rounds": 12, "local_steps": 4}


def fed_avg_path(problem, params, **settings):
    run = la.run(la.fed_avg(), problem, params, metrics=[], record_params=True, **settings)
    return np.stack([p.flat for p in run.path])


def error_of(predicted, path):
    """Largest relative error of θ over rounds."""
    gaps = np.linalg.norm(predicted.flats - path, axis=1)
    return float((gaps / np.linalg.norm(path, axis=1)).max())


@pytest.fixture(scope="module")
def base():
    """A start with drift enough to undo most of what training gains."""
    return drifting_world(weights=[0.1, 0.15, 0.2, 0.25, 0.3])


@pytest.mark.parametrize("kind", ["merged", "factored", "deep"])
@pytest.mark.parametrize("weights", [None, [0.1, 0.2, 0.3, 0.4]])
def test_every_round_measured_is_the_run(kind, weights):
    problem, params, size = case(kind, weights=weights)
    path = fed_avg_path(problem, params, local_lr=size, **RUN)
    predicted = la.predict_run(problem, params, local_lr=size, tolerance=0.0, **RUN)
    assert predicted.outcome == ("completed", 12, "")
    assert predicted.impulse_rounds.tolist() == list(range(12))
    assert relative_error(predicted.flats, path) < 1e-13
    one = la.drift_impulse(problem, predicted.path[7], local_steps=4, local_lr=size)
    assert relative_error(predicted.impulses[7], one.flat) < 1e-12


@pytest.mark.parametrize("readout", ["mean", "last"])
def test_other_readouts(readout):
    problem, params, size = case("merged", readout=readout)
    path = fed_avg_path(problem, params, local_lr=size, **RUN)
    predicted = la.predict_run(problem, params, local_lr=size, tolerance=0.0, **RUN)
    assert relative_error(predicted.flats, path) < 1e-13


def test_schedules_and_unequal_work_are_explicit_rounds(base):
    problem, params = base
    steps, sizes = [3, 1, 4, 2, 5], 0.05 / np.sqrt(1.0 + np.arange(40))
    settings = {"rounds": 40, "local_steps": steps}
    maps = RoundMaps(problem, params, local_steps=steps, local_lr=sizes)
    path = [params.flat]
    for t in range(40):
        path.append(maps.federated(path[-1], t))
    predicted = la.predict_run(problem, params, local_lr=sizes, tolerance=0.0, **settings)
    assert relative_error(predicted.flats, np.stack(path)) < 1e-13
    assert predicted.times[-1] == pytest.approx(sizes.sum() * (problem.weights @ steps))
    by_function = la.predict_run(
        problem, params, local_lr=lambda t: 0.05 / np.sqrt(1.0 + t), tolerance=0.01, **settings
    )
    assert by_function.num_impulses < 25
    assert error_of(by_function, np.stack(path)) < 2e-3


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("heads", [1, 2])
def test_a_few_impulses_predict_a_long_run(base, kind, heads):
    problem, _ = base
    params = la.initial_params(problem, kernel=kind, num_heads=heads, scale=0.7, seed=2)
    settings = {"rounds": 300, "local_steps": 10, "local_lr": 0.01}
    path = fed_avg_path(problem, params, **settings)
    fine = la.predict_run(problem, params, tolerance=0.01, **settings)
    coarse = la.predict_run(problem, params, tolerance=0.1, **settings)
    none = la.predict_run(problem, params, passes=0, **settings)
    assert coarse.num_impulses < fine.num_impulses < 100
    assert error_of(fine, path) < 0.2 * error_of(coarse, path) < 0.02
    assert error_of(none, path) > 10.0 * error_of(coarse, path)
    assert prediction_error(coarse, fine).max() > error_of(fine, path)
    assert fine.amplification < 100.0
    assert len(fine.interval_error) == fine.num_impulses - 1
    assert (fine.interval_error[np.diff(fine.impulse_rounds) > 1] <= 0.015).all()


def test_without_drift_intervals_double(base):
    """Impulses that are rounding do not drive the intervals."""
    problem, params = base
    predicted = la.predict_run(problem, params, rounds=500, local_steps=1, local_lr=0.02)
    assert predicted.num_impulses <= 11  # 0, 1, 3, 7, ...
    assert predicted.num_rejected == 0


def test_error_in_a_fixed_interval_has_order_three(base):
    """Parabolas: order 3, one more than chords; fitted over intervals of a smooth stretch."""
    problem, params = base
    settings = {"rounds": 192, "local_steps": 6, "local_lr": 0.01}
    path = fed_avg_path(problem, params, **settings)
    maps = RoundMaps(problem, params, local_steps=6, local_lr=0.01)
    course = Forced(maps, Clock.of(maps, 192))
    intervals = np.array([3, 4, 6, 8])
    errors = [
        np.abs(retraced(course, params.flat, range(k, 193, k)) - path).max() for k in intervals
    ]
    assert abs(log_slope(intervals, errors) - 3.0) < 0.3


def test_more_passes_than_rounds_change_nothing(base):
    problem, params = base
    settings = {"rounds": 3, "local_steps": 4, "local_lr": 0.05, "tolerance": 0.0}
    exact = la.run(la.fed_avg(), problem, params, rounds=3, local_steps=4, local_lr=0.05).params
    whole, more = (
        la.predict_run(problem, params, passes=count, **settings).path[-1].flat
        for count in (3, 10**9)
    )
    assert np.array_equal(whole, more)
    assert np.abs(whole - exact.flat).max() <= 1e-12


@pytest.mark.parametrize("passes", [0, 1, 2, 3])
def test_passes_have_order_k_plus_one(base, passes):
    """C23 at a short horizon, every round measured; s from .001 to .004 by the step size."""
    problem, params = base
    sizes, errors = np.array([0.002, 0.001, 0.0005]), []
    for size in sizes:
        settings = {"rounds": round(1.0 / (5 * size)), "local_steps": 5, "local_lr": float(size)}
        path = fed_avg_path(problem, params, **settings)
        predicted = la.predict_run(problem, params, tolerance=0.0, passes=passes, **settings)
        errors.append(np.abs(predicted.flats - path).max())
    assert abs(log_slope(sizes, errors) - (passes + 1)) < 0.2


def test_passes_need_few_impulses_too(base):
    problem, params = base
    settings = {"rounds": 300, "local_steps": 5, "local_lr": 0.01}
    every = la.predict_run(problem, params, tolerance=0.0, passes=2, **settings)
    few = la.predict_run(problem, params, tolerance=0.01, passes=2, **settings)
    assert few.num_impulses < 60
    assert error_of(few, every.flats) < 2e-3
    assert np.isnan(few.amplification)


def test_divergence_is_an_outcome_with_its_round(base):
    problem, params = base
    settings = {"rounds": 60, "local_steps": 3, "local_lr": 3.0}
    run = la.run(la.fed_avg(), problem, params, record_params=True, **settings)
    assert run.outcome.status == "diverged"
    for tolerance in (0.0, 0.01):
        predicted = la.predict_run(problem, params, tolerance=tolerance, **settings)
        assert predicted.outcome[:2] == run.outcome[:2]
        assert len(predicted.path) == run.outcome.round + 1
        assert np.isfinite(predicted.flats).all()
    passes = la.predict_run(problem, params, passes=2, **settings)
    assert passes.outcome.status == "diverged"
    assert len(passes.path) == passes.outcome.round + 1


@pytest.mark.parametrize("step", [1e200, 1e308])
def test_steps_beyond_floating_point_diverge_without_a_warning(base, step):
    assert la.predict_run(*base, rounds=3, local_steps=2, local_lr=step).outcome.round == 0


def test_a_cap_stops_the_prediction(base):
    problem, params = base
    settings = {"rounds": 300, "local_steps": 10, "local_lr": 0.01}
    whole = la.predict_run(problem, params, **settings)
    capped = la.predict_run(problem, params, max_impulses=12, **settings)
    assert capped.outcome.status == "stopped"
    assert capped.num_impulses + capped.num_rejected == 12
    assert capped.outcome.round == len(capped.path) - 1 < 300
    assert np.array_equal(capped.flats, whole.flats[: len(capped.path)])
    along = la.predict_run(problem, params, max_impulses=12, passes=1, **settings)
    assert along.outcome.status == "stopped"


def test_a_chaotic_run_is_unpredictable(base):
    """Beyond a step of .08 clients overshoot, and a move by 1e-9 grows to order one."""
    problem, params = base
    settings = {"rounds": 200, "local_steps": 2}
    calm = la.predict_run(problem, params, local_lr=0.02, **settings)
    wild = la.predict_run(problem, params, local_lr=0.086, **settings)
    assert calm.outcome.status == "completed"
    assert calm.amplification < 10.0
    assert wild.outcome.status == "unpredictable"
    assert wild.amplification > 1e4
    assert "moved by 1e-09" in wild.outcome.reason
    assert len(wild.path) == 201


@pytest.mark.parametrize("kind", ["merged", "factored", "deep"])
def test_a_start_of_zeros(kind):
    problem, params, size = case(kind)
    zeros = la.Params(params.layout, np.zeros_like(params.flat))
    predicted = la.predict_run(problem, zeros, local_lr=size, tolerance=0.0, **RUN)
    path = fed_avg_path(problem, zeros, local_lr=size, **RUN)
    np.testing.assert_allclose(predicted.flats, path, rtol=0.0, atol=1e-12)


def test_no_rounds_at_all(base):
    problem, params = base
    for passes in (None, 2):
        predicted = la.predict_run(
            problem, params, rounds=0, local_steps=2, local_lr=0.1, passes=passes
        )
        assert len(predicted.path) == 1
        assert predicted.num_impulses == 0
        assert predicted.impulses.shape == (0, params.flat.size)


def test_polynomials_and_intervals_by_hand():
    nodes = [Node(t, float(t), np.array([t * t - 3.0 * t, 1.0]), 0.0) for t in (0, 1, 4)]
    values = polynomial(nodes, np.array([2.0, 5.0]))
    np.testing.assert_allclose(values, [[-2.0, 1.0], [10.0, 1.0]], atol=1e-12)
    assert next_interval(4, 0.01, 0.0) == 8
    assert next_interval(8, 0.01, 0.08) == 4  # (1/8)^(1/3)
    assert next_interval(4, 0.0, 0.1) == 1
    assert next_interval(4, 0.01, float("inf")) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rounds": -1}, "rounds must be an integer >= 0"),
        ({"tolerance": -0.1}, "tolerance must be >= 0"),
        ({"passes": -1}, "passes must be an integer >= 0"),
        ({"max_impulses": 0}, "max_impulses must be an integer >= 1"),
        ({"local_lr": [0.1, 0.1]}, r"local_lr must have an entry for every round \(3\), got 2"),
        ({"local_lr": lambda t: 0.1 if t < 2 else -1.0}, r"local_lr\(2\) must be > 0, got -1.0"),
    ],
)
def test_refusals(base, change, sentence):
    problem, params = base
    with pytest.raises(ValueError, match=sentence):
        la.predict_run(
            problem, params, **({"rounds": 3, "local_steps": 2, "local_lr": 0.1} | change)
        )


def test_repr_tells_the_verdict(base):
    problem, params = base
    settings = {"rounds": 3, "local_steps": 2, "local_lr": 0.01}
    predicted = la.predict_run(problem, params, **settings)
    assert repr(predicted).startswith("PredictedRun(completed at round 3; 3 impulses, 0 rejected")
