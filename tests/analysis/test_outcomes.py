"""The sampled frozen stage by listing and by running, against its exact moments (C20)."""

import numpy as np
import pytest
import reference as ref
from bridge import make, relative_error
from enumeration import Draws, listed_moments
from worlds import world

import linattn as la
from linattn.analysis.outcomes import frozen_ensemble, frozen_outcomes

CASES = [
    {"local_steps": [2, 2, 2], "participation": 2 / 3},
    {"local_steps": [1, 2, 1], "participation": 1.0, "batch_size": 1},
    {"local_steps": [3, 1, 2], "participation": 2 / 3, "sampling": "weighted"},
    {"local_steps": [2, 1, 2], "participation": 1 / 3, "batch_size": 2, "stragglers": 0.4},
]


def small(seed):
    return make(seed, ("merged", "factored")[seed % 2], num_clients=3, sequences=(2, 3), dim=2,
                readout=ref.READOUTS[seed % 3], value_ridge=0.2)  # fmt: skip


@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_list_is_that_of_the_twin_and_gives_the_moments(options):
    _, inst, theta, V, problem, params = small(CASES.index(options))
    eta = 0.3 * ref.safe_step(inst, theta)
    listed = frozen_outcomes(problem, params, rounds=2, local_lr=eta, **options)
    draws = Draws(options["local_steps"], eta, round(3 * options["participation"]),
                  options.get("sampling", "uniform"), options.get("batch_size"),
                  options.get("stragglers", 0.0))  # fmt: skip
    twin = listed_moments(inst, theta, V, draws, 2)
    assert len(listed.chances) == twin.outcomes
    assert listed.chances.sum() == pytest.approx(1.0, abs=1e-12)
    assert listed.expected_gap == pytest.approx(twin.expected_gap, rel=1e-12)
    assert relative_error(listed.second_moment, twin.second_moment) < 1e-12
    moments = la.frozen_moments(problem, params, local_lr=eta, **options)
    assert moments.expected_gap(2) == pytest.approx(listed.expected_gap, rel=1e-12)


def test_every_run_is_on_the_list():
    *_, problem, params = small(3)
    options = CASES[3] | {"rounds": 2, "local_lr": 0.2 * la.safe_step(problem, params)}
    listed = frozen_outcomes(problem, params, **options)
    star = la.ValueBlock(problem, params).minimizer().reshape(listed.errors.shape[1:])
    for seed in range(5):
        run = la.run(la.fed_frozen(warmup_rounds=0), problem, params, seed=seed, **options)
        error = run.params.value.reshape(star.shape) - star
        off = np.abs(listed.errors - error).max(axis=(1, 2))
        assert off.min() < 1e-13 * np.abs(listed.errors).max()


def test_an_ensemble_is_its_runs():
    *_, problem, params = small(4)
    options = {"rounds": 3, "local_steps": 2, "local_lr": 0.01, "participation": 0.4}
    found = frozen_ensemble(problem, params, num_runs=4, seed=5, **options)
    gaps = [
        la.run(la.fed_frozen(warmup_rounds=0), problem, params, seed=s, metrics=["gap"], **options)
        .columns["gap"][-1]
        for s in range(5, 9)
    ]  # fmt: skip
    assert found.gaps.tolist() == gaps
    assert found.mean == pytest.approx(np.mean(gaps))
    assert found.standard_error == pytest.approx(np.std(gaps, ddof=1) / 2)


@pytest.mark.parametrize("random", [
    {"participation": 0.5, "batch_size": 2},
    {"participation": 0.75, "sampling": "weighted"},
    {"participation": 1.0, "batch_size": 1, "stragglers": 0.5},
])  # fmt: skip
def test_means_of_ensembles_are_within_four_errors(random):
    problem = world(sequences_per_client=5, num_tokens=6, covariate_heterogeneity=0.3,
                    value_heterogeneity=1.0, weights=[0.1, 0.2, 0.3, 0.4])  # fmt: skip
    params = la.initial_params(problem, value="normal")
    options = {"local_steps": [2, 3, 1, 2], "local_lr": 1.5 * la.safe_step(problem, params)}
    moments = la.frozen_moments(problem, params, **options, **random)
    found = frozen_ensemble(problem, params, num_runs=300, rounds=6, **options, **random)
    assert abs(found.mean - moments.expected_gap(6)) < 4 * found.standard_error
    # The error tells noise apart: without it the mean would be off.
    assert moments.noise(6) > 4 * found.standard_error


@pytest.mark.parametrize(("change", "message"), [
    ({"batch_size": 1}, "at most 200,000 outcomes to list, got 729 per round in 2 rounds"),
    ({"local_lr": [0.1, 0.1]}, "local_lr must be one number"),
    ({"local_steps": [1, 2]}, "local_steps must have 3, one per client, got 2"),
])  # fmt: skip
def test_lists_that_make_no_sense_are_refused(change, message):
    problem = world(num_clients=3, sequences_per_client=3)
    params = la.initial_params(problem)
    options = {"rounds": 2, "local_steps": 2, "local_lr": 0.1}
    with pytest.raises(ValueError, match=message):
        frozen_outcomes(problem, params, **(options | change))


def test_one_run_is_no_ensemble(small_problem, small_params):
    with pytest.raises(ValueError, match="num_runs must be an integer >= 2, got 1"):
        frozen_ensemble(small_problem, small_params, num_runs=1, rounds=1, local_steps=1,
                        local_lr=0.1)  # fmt: skip
