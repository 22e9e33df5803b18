"""The record of the tuned comparison: whole, and of today's numbers."""

from itertools import product

import numpy as np
import pytest

import linattn as la
from linattn.federated.methods.table import method_names
from scripts import module, simulation

SCRIPT = module("methods_findings", "scripts")


def test_the_record_is_whole():
    """At least ten seeds of all methods in every world; most best steps inside their grid."""
    rows = SCRIPT.rows()
    for world in {row["world"] for row in rows}:
        here = [(row["seed"], row["method"]) for row in rows if row["world"] == world]
        seeds, methods = ({pair[k] for pair in here} for k in (0, 1))
        assert len(seeds) >= SCRIPT.SEEDS
        assert methods == set(method_names(deep=world.startswith("deep"), common=True))
        assert sorted(here) == sorted(product(seeds, methods))
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
