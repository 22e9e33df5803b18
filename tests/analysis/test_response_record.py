"""The record of predicted trade-offs: whole, and of today's numbers."""

import numpy as np
import pytest

from scripts import module, simulation

RECORD = module("response_record", "scripts")
SCRIPT = module("response_findings", "scripts")
REGIMES = {(0.0, 0.3), (0.4, 0.3), (0.75, 0.0), (0.75, 0.3), (1.5, 0.3)}
FINER = {(0.2, 0.3), (0.6, 0.3), (1.0, 0.3)}
"""Worlds between them, of merged kernels only."""


def test_every_parametrization_was_tried_on_every_regime():
    for kind in SCRIPT.KINDS:
        some = [row for row in RECORD.rows("trade_offs") if row["kind"] == kind]
        worlds = [(row["target"], row["covariate"]) for row in some]
        assert set(worlds) == (REGIMES | FINER if kind == "merged" else REGIMES)
        for world in REGIMES:
            seeds = {row["seed"] for row, at in zip(some, worlds, strict=True) if at == world}
            assert seeds == set(range(10))


def test_no_seed_of_the_random_problems_is_left_out():
    seeds = RECORD.column(RECORD.rows("random"), "seed")
    assert seeds.tolist() == sorted(seeds)
    assert set(seeds) == set(range(len(seeds)))
    assert len(seeds) >= 200


def test_the_goals_of_the_prediction_are_met():
    held = [row for row in RECORD.rows("trade_offs") if row["tradeoff"] and row["trusted"]]
    assert np.mean(RECORD.column(held, "regret") <= 0.0) >= 0.95
    assert np.mean(RECORD.column(held, "regret") <= 0.05) >= 0.99
    error = RECORD.column(RECORD.rows("random"), "path_error")
    assert np.mean(error <= 0.05) >= 0.95


def test_the_tuned_optimum_is_predicted_for_ten_seeds_of_every_regime():
    held = RECORD.rows("tuned")
    cases = {(r["target"], r["covariate"], r["local_steps"], r["seed"]) for r in held}
    assert {case[:2] for case in cases} == REGIMES
    assert len(cases) == len(REGIMES) * 2 * 10
    assert len(held) == len(SCRIPT.METHODS) * len(cases)
    for method in SCRIPT.METHODS:
        some = [row for row in held if row["method"] == method]
        told = RECORD.column(some, "predicted_excess") / RECORD.column(some, "measured_excess")
        assert np.median(np.abs(told - 1.0)) <= 0.1


def test_a_run_of_the_record_is_todays():
    (row,) = [
        row for row in RECORD.rows("trade_offs")
        if (row["kind"], row["target"], row["covariate"], row["seed"]) == ("merged", 0.75, 0.3, 0)
        and RECORD.drift(row) == 0.2 and row["local_lr"] == 0.02
    ]  # fmt: skip
    (spec,) = [
        spec for spec in simulation("response").specs("paper", {"seed": 0, "routes": []})
        if spec.problem.value_heterogeneity == 0.75 and spec.problem.covariate_heterogeneity == 0.3
        and spec.local_steps == 21 and spec.local_lr == 0.02 and spec.initial.kernel == "merged"
        and spec.initial.num_heads == 1 and spec.weights == "sequences" and not spec.identical
    ]  # fmt: skip
    found = simulation("response").run(spec)
    assert float(found.law_rate) == pytest.approx(row["law_rate"], rel=1e-4)
    assert float(found.law_time) == pytest.approx(row["law_time"], rel=1e-3)
    assert int(found.warmup_star) == row["warmup_star"]
    assert int(found.predicted_star[-1]) == row["predicted_star"]
    assert float(found.stake) == pytest.approx(row["stake"], rel=1e-5)
    assert float(found.worst_error[-1]) == pytest.approx(row["worst_error"], rel=1e-3)
