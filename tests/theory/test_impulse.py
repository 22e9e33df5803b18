"""A round as a centralized round and a drift impulse, against explicit steps and expansions."""

import numpy as np
import pytest
from bridge import READOUTS, make, relative_error
from method_cases import case, deep_case

import linattn as la
from linattn.theory.impulse import RoundMaps


def steps_on(problem, flat, layout, *, count, size):
    """Gradient steps on F of a problem, one after the other, on the interpreted path."""
    joint = la.Joint(problem)
    for _ in range(count):
        flat = flat - size * joint.gradient(la.Params(layout, flat)).flat
    return flat


def naive_impulse(problem, params, steps, size):
    """Σ p_i Φ_i − Φ by explicit steps; with unequal work Φ belongs to F_q."""
    counts = np.broadcast_to(steps, problem.num_clients)
    ends = [
        steps_on(problem.subset([i]), params.flat, params.layout, count=int(e), size=size)
        for i, e in enumerate(counts)
    ]
    work = problem.weights * counts
    mean = work.sum()
    central = int(np.ceil(mean - 1e-9))
    weighted = la.types.Problem(
        problem.statistics, problem.offsets, work / mean,
        problem.value_ridge, problem.kernel_ridge, problem.readout,
    )  # fmt: skip
    smooth = steps_on(
        weighted, params.flat, params.layout, count=central, size=size * mean / central
    )
    return problem.weights @ np.stack(ends) - smooth


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("steps", [4, (1, 3, 2)])
def test_against_explicit_steps(kind, readout, steps):
    *_, problem, params = make(4, kind, num_clients=3, readout=readout)
    size = 0.3 * la.safe_step(problem, params)
    found = la.drift_impulse(problem, params, local_steps=steps, local_lr=size)
    expected = naive_impulse(problem, params, steps, size)
    assert found.layout == params.layout
    assert relative_error(found.flat, expected, scale=np.abs(params.flat).max()) < 1e-13
    assert np.abs(expected).max() > 1e-6


@pytest.mark.parametrize("kind", ["merged", "factored", "deep"])
def test_no_impulse_with_one_step_or_identical_clients(kind):
    problem, params, size = case(kind)
    options = {"local_lr": size}
    assert np.abs(la.drift_impulse(problem, params, local_steps=1, **options).flat).max() < 1e-15
    same = la.pool(problem)
    assert np.abs(la.drift_impulse(same, params, local_steps=5, **options).flat).max() < 1e-14
    assert np.abs(la.drift_impulse(problem, params, local_steps=5, **options).flat).max() > 1e-6


@pytest.mark.parametrize("kind", ["merged", "factored", "deep"])
def test_a_round_of_fed_avg_is_both_together(kind):
    problem, params, size = case(kind)
    run = la.run(la.fed_avg(), problem, params, rounds=1, local_steps=3, local_lr=size, metrics=[])
    maps = RoundMaps(problem, params, local_steps=3, local_lr=size)
    whole = maps.central(params.flat, 0) + maps.impulse(params.flat, 0)
    assert relative_error(whole, run.params.flat) < 1e-14
    assert np.array_equal(maps.federated(params.flat, 0), run.params.flat)


def test_many_starts_are_as_good_as_one(small_problem, small_params):
    maps = RoundMaps(small_problem, small_params, local_steps=(2, 1, 3, 2), local_lr=0.05)
    starts = np.stack([small_params.flat, 0.5 * small_params.flat])
    both = maps.clients(starts, 0)
    assert both.shape == (2, 4, small_params.flat.size)
    for found, start in zip(both, starts, strict=True):
        assert np.array_equal(found, maps.clients(start[None], 0)[0])
    central = maps.central(starts, 0)
    assert np.array_equal(central[1], maps.central(starts[1], 0))


def test_divergence_is_named_before_it_is_infinite(small_problem, small_params):
    maps = RoundMaps(small_problem, small_params, local_steps=1, local_lr=0.1)
    assert maps.trouble(small_params.flat) == ""
    assert maps.trouble(1e10 * small_params.flat) == ""
    with np.errstate(over="ignore", invalid="ignore"):
        assert maps.trouble(1e100 * small_params.flat) == "non-finite objective"
    assert maps.trouble(np.full(small_params.flat.size, np.inf)) == "non-finite parameters"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"local_steps": 0}, "local_steps must be an integer >= 1, got 0"),
        ({"local_steps": [1, 2]}, "local_steps must have 4, one per client, got 2"),
        ({"local_steps": 2.5}, "local_steps must be an integer"),
        ({"local_lr": -1.0}, "local_lr must be > 0, got -1.0"),
        ({"local_lr": [0.1, -0.1]}, "local_lr must be > 0 in every round"),
        ({"local_lr": lambda t: float("nan")}, r"local_lr\(0\) must be a finite number > 0"),
    ],
)
def test_refusals(small_problem, small_params, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        la.drift_impulse(
            small_problem, small_params, **({"local_steps": 2, "local_lr": 0.1} | change)
        )


def test_refusals_of_what_is_no_problem(small_problem, small_params):
    with pytest.raises(TypeError, match="problem must be a Problem"):
        la.drift_impulse(3, small_params, local_steps=2, local_lr=0.1)
    with pytest.raises(ValueError, match="params must have a value block"):
        la.drift_impulse(small_problem, deep_case()[1], local_steps=2, local_lr=0.1)


@pytest.mark.parametrize("kind", ["merged", "factored", "deep"])
@pytest.mark.parametrize("schedule", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
def test_pushed_rounds_are_single_ones_to_the_bit(kind, schedule, steps):
    """Whether they run in one compiled call, in several of one step size each, or one by one."""
    problem, params, size = case(kind)
    sizes = size * np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25]) if schedule else size
    maps = RoundMaps(problem, params, local_steps=steps, local_lr=sizes, rounds=8)
    pushes = 1e-3 * np.random.default_rng(0).standard_normal((6, params.layout.size))
    found, flat = maps.follow(params.flat, 1, pushes), params.flat
    for t, (reached, push) in enumerate(zip(found, pushes, strict=True), start=1):
        flat = maps.central(flat, t) + push
        np.testing.assert_array_equal(reached, flat)
    assert maps.follow(params.flat, 1, pushes[:0]).shape == (0, params.layout.size)
