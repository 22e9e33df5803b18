"""The predicted distribution of sampled FedAvg against enumeration and ensembles of runs."""

from itertools import combinations, product

import numpy as np
import pytest
from bridge import relative_error
from method_cases import drifting_world
from worlds import world

import linattn as la
from linattn._settings import Sampling
from linattn.linalg import square_root
from linattn.theory.ensemble import PredictedEnsemble, Spread
from linattn.theory.gradient_noise import GradientNoise
from linattn.theory.impulse import RoundMaps
from linattn.theory.interpolation import Clock
from linattn.theory.polynomials import power_sums
from linattn.theory.weights import weight_moments


@pytest.fixture(scope="module")
def tiny():
    """Three clients of unequal weight with four sequences each."""
    problem = world(num_clients=3, sequences_per_client=4, num_tokens=4, dim=2, num_outputs=1,
                    value_heterogeneity=1.0, covariate_heterogeneity=0.5, value_ridge=0.1,
                    kernel_ridge=0.05, weights=[0.2, 0.3, 0.5])  # fmt: skip
    return problem, la.initial_params(problem, value="normal", scale=0.7)


def enumerated(problem, params, size, batch, draws):
    """Mean and covariance of θ after one local step, over all subsets and minibatches."""
    oracle, ends, chances = problem.oracle(params), [], []
    batches = [list(combinations(range(n), min(batch, n))) for n in problem.client_sizes]
    for subset in combinations(range(problem.num_clients), draws):
        shares = problem.weights[list(subset)] / problem.weights[list(subset)].sum()
        for chosen in product(*(batches[i] for i in subset)):
            steps = [
                oracle.gradient(i, params.flat, np.array(b))
                for i, b in zip(subset, chosen, strict=True)
            ]
            ends.append(params.flat - size * shares @ np.stack(steps))
            chances.append(1.0 / np.prod([len(batches[i]) for i in subset]))
    chances = np.array(chances) / np.sum(chances)
    mean = chances @ np.stack(ends)
    apart = np.stack(ends) - mean
    return mean, (apart * chances[:, None]).T @ apart


@pytest.mark.parametrize("batch", [2, 4])
@pytest.mark.parametrize("draws", [2, 3])
def test_one_round_of_one_step_is_exact(tiny, batch, draws):
    problem, params = tiny
    size = 0.1
    mean, covariance = enumerated(problem, params, size, batch, draws)
    predicted = la.predict_ensemble(
        problem, params, rounds=1, local_steps=1, local_lr=size, batch_size=batch,
        participation=draws / 3, rank=params.flat.size,
    )  # fmt: skip
    assert relative_error(predicted.path[1].flat, mean) < 1e-13
    scale = max(np.abs(covariance).max(), 1e-12)
    assert np.abs(predicted.covariance(1) - covariance).max() < 1e-10 * scale
    if (batch, draws) == (4, 3):
        assert not covariance.any() or np.abs(covariance).max() < 1e-30


def test_the_noise_of_local_steps_is_contracted(tiny):
    """Two local steps on a quadratic: with the kernel at zero F is quadratic in V near V = 0."""
    problem, params = tiny
    noise = GradientNoise(problem, params, 2)
    weights = weight_moments(problem.weights, Sampling())
    one = noise.of_round(params.flat, 1, 0.1, weights)
    alone = sum(
        w**2 * c for w, c in zip(problem.weights, noise.covariances(params.flat), strict=True)
    )
    assert relative_error(one, 0.01 * alone) < 1e-12
    many = noise.of_round(params.flat, 7, 0.1, weights)
    assert np.trace(many) < 7 * np.trace(one)
    unequal = noise.of_round(params.flat, np.array([7, 7, 7]), 0.1, weights)
    assert relative_error(unequal, many) < 1e-12
    np.testing.assert_allclose(power_sums(1.0 - np.array([0.5, -1.0]), 3).plain, [1.75, 1.0])


def test_square_roots_are_symmetric(tiny):
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(4, 3))
    matrix = matrix @ matrix.T
    root = square_root(matrix)
    assert relative_error(root, root.T) < 1e-12
    assert relative_error(root @ root, matrix) < 1e-10


def test_expectations_are_exact_for_cubic_functions(tiny):
    """Moments of a Gaussian of known factors by hand: E xᵀMx and E (aᵀx)³."""
    _, params = tiny
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(1, params.flat.size, 3))
    held = PredictedEnsemble([params], np.zeros(1), factors, np.zeros(0, dtype=np.int64), 0, None)
    covariance, a = held.covariance(0), rng.normal(size=params.flat.size)
    quadratic = held.expectation(lambda p: float(p.flat @ p.flat), 0)
    assert quadratic == pytest.approx(params.flat @ params.flat + np.trace(covariance))
    mean = float(a @ params.flat)
    cubic = held.expectation(lambda p: float(a @ p.flat) ** 3, 0)
    assert cubic == pytest.approx(mean**3 + 3.0 * mean * (a @ covariance @ a))


def test_without_randomness_it_is_the_predicted_run(small_problem, small_params):
    settings = {"rounds": 60, "local_steps": 3, "local_lr": 0.03}
    run = la.predict_run(small_problem, small_params, tolerance=0.001, **settings)
    ensemble = la.predict_ensemble(small_problem, small_params, tolerance=0.001, **settings)
    assert not ensemble.factors.any()
    last = ensemble.path[-1].flat
    assert relative_error(last, run.path[-1].flat) < 1e-6
    assert repr(ensemble).startswith("PredictedEnsemble(completed at round 60; ")


@pytest.mark.parametrize(
    ("kind", "batch", "sampling"),
    [("merged", None, "uniform"), ("merged", 2, "weighted"), ("factored", 2, "uniform")],
)
def test_an_ensemble_of_runs_is_within_its_error(kind, batch, sampling):
    """E P and the trace of the covariance over 150 runs; budgets of four standard errors, plus 10 %
    for what the closure leaves out."""
    problem, _ = drifting_world(num_clients=4, dim=2)
    params = la.initial_params(problem, scale=0.7, value="minimizer", kernel=kind, seed=1)
    settings = {"rounds": 30, "local_steps": 4, "local_lr": 0.02, "participation": 0.5,
                "batch_size": batch, "sampling": sampling}  # fmt: skip
    ends = [
        la.run(la.fed_avg(), problem, params, metrics=[], seed=seed, **settings).params
        for seed in range(150)
    ]
    profile = la.KernelProfile(problem)
    values = np.array([profile.value(end) for end in ends])
    predicted = la.predict_ensemble(problem, params, **settings)
    found = predicted.expectation(profile.value, 30)
    budget = 4.0 * values.std() / np.sqrt(150)
    assert abs(found - values.mean()) < budget
    mean_shift = predicted.path[-1].flat - np.mean([end.flat for end in ends], axis=0)
    trace = np.trace(np.cov(np.stack([end.flat for end in ends]).T))
    assert np.linalg.norm(mean_shift) < 4.0 * np.sqrt(trace / 150)
    assert np.trace(predicted.covariance(30)) == pytest.approx(trace, rel=0.35)
    without = profile.value(predicted.path[-1])
    assert found > without


def test_a_gaussian_does_not_run_away_at_negative_curvature():
    """At the saddle of the origin a linear covariance grows without bound; this one does not."""
    problem, _ = drifting_world(num_clients=4, dim=2, num_outputs=1)
    params = la.initial_params(problem, scale=0.05, value="zeros", seed=1)
    predicted = la.predict_ensemble(
        problem, params, rounds=400, local_steps=5, local_lr=0.02, participation=0.5
    )
    assert predicted.outcome.status == "completed"
    assert np.linalg.norm(predicted.factors, axis=(1, 2)).max() < 3.0


def test_parts_of_a_state_fit_together(tiny):
    problem, params = tiny
    maps = RoundMaps(problem, params, local_steps=2, local_lr=0.1)
    course = Spread(
        maps, Clock.of(maps, 3), (params.flat.size, 2, 1.0),
        weight_moments(problem.weights, Sampling(2 / 3)), None,
    )  # fmt: skip
    state = np.arange(float(params.flat.size * 4))
    mean, factor, shift = course.parts(state)
    assert mean.tolist() == state[: params.flat.size].tolist()
    assert factor.shape == (params.flat.size, 2)
    assert shift.tolist() == state[-params.flat.size :].tolist()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rank": 0}, "rank must be an integer >= 1"),
        ({"participation": 0.0}, "participation must be > 0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"sampling": "unifrom"}, "did you mean 'uniform'"),
    ],
)
def test_refusals(tiny, change, sentence):
    problem, params = tiny
    with pytest.raises(ValueError, match=sentence):
        la.predict_ensemble(problem, params, rounds=2, local_steps=2, local_lr=0.1, **change)
