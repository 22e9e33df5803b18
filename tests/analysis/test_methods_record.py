"""The record of the tuned comparison: whole, what the notes say, and of today's numbers."""

import numpy as np
import pytest
from pages import told

import linattn as la
from scripts import module, simulation

SCRIPT = module("methods_findings", "scripts")


def test_the_notes_say_what_the_record_says():
    assert told("methods") == SCRIPT.findings()


def test_the_record_is_whole():
    """At least ten seeds and all methods in every world; most best steps inside their grid."""
    rows = SCRIPT.rows()
    worlds = {row["world"] for row in rows}
    methods = {row["method"] for row in rows}
    for world in worlds:
        seeds = {row["seed"] for row in rows if row["world"] == world}
        assert len(seeds) >= SCRIPT.SEEDS
        assert sum(row["world"] == world for row in rows) == len(seeds) * len(methods)
    assert np.mean([float(row["interior"]) for row in rows]) >= 0.9


def test_fed_avg_ends_today_where_the_record_says():
    (row,) = [
        row for row in SCRIPT.rows()
        if (row["world"], row["seed"], row["method"])
        == ("target 0.75, covariate 0.3", "0", "fed_avg")
    ]  # fmt: skip
    held = simulation("methods")
    (spec,) = [s for s in held.specs("paper", {"seed": 0, "deep": False, "data": "synthetic"})
               if s.problem.value_heterogeneity == 0.75 and s.most_rounds == 400
               and s.initial.kernel == "merged" and s.initial.scale != 1.0]  # fmt: skip
    world = spec.world()
    assert world.local_lr == pytest.approx(float(row["unit_step"]), rel=1e-7)
    step = float(row["factor"]) * world.local_lr
    ended = spec.train(la.fed_avg(), world, rounds=int(float(row["rounds"])), local_lr=step)
    assert ended.columns["objective"][-1] == pytest.approx(float(row["final_objective"]), rel=1e-6)
