"""The record of sampled warm-ups: whole, and of today's numbers."""

import numpy as np
import pytest

import linattn as la
from linattn.data.worlds import InitialSpec
from linattn.experiments.specs import HETEROGENEOUS
from scripts import module

SCRIPT = module("sampling_findings", "scripts")
SAMPLED = {("0.4", "0.3"), ("0.75", "0"), ("0.75", "0.3"), ("1.5", "0.3")}


def test_the_record_is_whole():
    """Ten seeds of every world and of digits, every budget, every exact end finite."""
    noise, tuned = SCRIPT.record("noise"), SCRIPT.record("participation")
    for rows in (noise, [row for row in tuned if row["data"] == "synthetic"]):
        worlds = SCRIPT.grouped(rows, *SCRIPT.WORLD, "local_steps")
        assert {world[:2] for world, _ in worlds} >= SAMPLED
        assert all(len({row["seed"] for row in part}) >= 10 for _, part in worlds)
    assert len({row["seed"] for row in tuned if row["data"] == "digits"}) >= 10
    assert {row["budget"] for row in tuned} == set(SCRIPT.BUDGETS)
    exact = [row for row in tuned if row["end"] == "fed_frozen_exact"]
    assert np.isfinite([float(row["loss"]) for row in exact]).all()
    for row in tuned:
        if float(row["loss"]) < np.inf:
            assert float(row["profile"]) <= float(row["loss"]) + 1e-7


def test_drift_is_that_of_today():
    """P with everybody less that of as many centralized steps, run again."""
    (row,) = [
        row for row in SCRIPT.record("noise")
        if row["local_steps"] == "21" and row["seed"] == "0" and row["participation"] == "1"
        and (row["target"], row["covariate"]) == ("0.75", "0.3")
    ]  # fmt: skip
    problem = HETEROGENEOUS.make(0)
    step, rounds = float(row["local_lr"]), round(60.0 / (float(row["local_lr"]) * 21))
    table = la.bias_drift(
        problem, InitialSpec().make(problem, 0), warmup_lengths=[rounds], rounds=rounds,
        local_steps=21, local_lr=step, reference=0.0,
    )  # fmt: skip
    drift = float(table["profile"][-1] - table["profile_synchronized"][-1])
    assert drift == pytest.approx(float(row["drift_end"]), rel=1e-6)
