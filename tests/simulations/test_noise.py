"""The noise simulation: its cells against single tables and moments, and what its checks catch."""

from itertools import combinations

import numpy as np
import pytest
from method_cases import log_slope

import linattn as la
from linattn.experiments import load_results
from linattn.report.words import in_words
from scripts import fill, module, simulation

HELD = simulation("noise")
(SPEC, *_) = HELD.specs("tiny")


@pytest.fixture(scope="module")
def found():
    return HELD.run(SPEC)


def test_everybody_on_full_batches_is_one_table(found):
    problem, params = SPEC.prepared()
    alone = la.bias_drift(
        problem, params, warmup_lengths=SPEC.lengths(), rounds=SPEC.rounds,
        reference=float(found.reference), **SPEC.settings(),
    )  # fmt: skip
    cell = found.sel(participation=1.0, batch_size=6)
    np.testing.assert_array_equal(cell.objective, alone.objective)
    np.testing.assert_allclose(cell.profile, alone.profile, rtol=1e-14)
    np.testing.assert_allclose(
        cell.unreached, alone.profile_synchronized - found.reference, atol=1e-12
    )
    for name in ("objective_error", "profile_error", "shift", "spread", "value_noise"):
        np.testing.assert_allclose(cell[name], 0.0, atol=1e-12)


def test_cells_are_means_over_runs_of_consecutive_seeds(found):
    problem, params = SPEC.prepared()
    tables = [
        la.bias_drift(problem, params, warmup_lengths=SPEC.lengths(), rounds=SPEC.rounds,
                      reference=float(found.reference), participation=0.5, batch_size=2, seed=k,
                      **SPEC.settings())
        for k in range(SPEC.num_draws)
    ]  # fmt: skip
    cell = found.sel(participation=0.5, batch_size=2)
    for name in ("objective", "profile"):
        values = np.array([table[name] for table in tables])
        np.testing.assert_allclose(cell[name], values.mean(axis=0), rtol=1e-13)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        np.testing.assert_allclose(cell[f"{name}_error"], error, atol=1e-13)
    assert (cell.value_noise[:-1] > 0.0).all()


def test_frozen_stage_is_that_of_the_best_kernel(found):
    problem, params = SPEC.prepared()
    best = int(np.argmin(found.objective.sel(participation=1.0, batch_size=6).values))
    length = SPEC.lengths()[best]
    at = la.run(la.fed_avg(), problem, params, rounds=max(length, 1), record_params=True,
                **SPEC.settings()).path[length]  # fmt: skip
    moments = la.frozen_moments(problem, at, participation=0.5, batch_size=2, **SPEC.settings())
    cell = found.sel(participation=0.5, batch_size=2, step=SPEC.local_lr)
    assert [float(cell.floor_bias), float(cell.floor_noise)] == list(moments.floor_parts)


def test_bias_of_unequal_work_stays_and_of_normalized_vanishes(found):
    """Floors are quadratic in the bias: slope 0 without, 2 with normalization."""
    for name, slope in (("plain", 0.0), ("normalized", 2.0), ("equal", 2.0)):
        floors = found[f"floor_{name}"].values[-3:]
        assert log_slope(found.small_step.values[-3:], floors) == pytest.approx(slope, abs=0.1)


def test_checks_notice_what_is_broken(found):
    assert [check([found]).status for check in HELD.checks] == ["holds", "holds"]
    for name, check in zip(("value_noise", "critical_second_moment"), HELD.checks, strict=True):
        assert check([found.assign({name: found[name] * 1.5 + 1e-3})]).status == "violated"


def test_refusals():
    for field in ("participation", "batch_sizes"):
        with pytest.raises(ValueError, match=f"{field} must be distinct"):
            HELD.spec(**{field: ()})
    with pytest.raises(ValueError, match="num_draws"):
        HELD.specs("tiny", {"num_draws": 1})


def test_the_figure_says_what_is_stored(tmp_path):
    figure = module("noise", "figures")
    fill(tmp_path, "noise", HELD.specs("tiny"))
    results = load_results(tmp_path, "noise")
    part = figure._main(results)
    lowest = [r.dataset.profile.sel(batch_size=6).min("warmup") - r.dataset.reference
              for r in results]  # fmt: skip
    ratios = [float(held.sel(participation=0.5) / held.sel(participation=1.0)) for held in lowest]
    assert f"{in_words(ratios)} at 0.5" in figure.summary(results)
    # κ is the variance of the mean of two of three clients in units of that of one client.
    pairs = np.array([np.mean(pair) for pair in combinations([0.0, 1.0, 5.0], 2)])
    kappa = pairs.var() / np.var([0.0, 1.0, 5.0])
    steps = SPEC.local_steps
    np.testing.assert_allclose(figure._kappa(part), [0.0, kappa * steps / (steps - 1)])
