"""Claims about predicted runs: what is chaotic, too exact, or without a stake is refused."""

import numpy as np
import pytest
from claim_cases.build import build
from claim_cases.pairs import chaotic, small
from claim_cases.table import DRIFTING, LITTLE

import linattn as la
from linattn.claims import Instance, get_claim
from linattn.claims.instances import random_instance, suited
from linattn.claims.table import check_instance

ESTIMATE, REGRET = get_claim("C24 estimate"), get_claim("C24 regret")


def unmet(claim, instance):
    return [condition.name for condition in check_instance(claim, instance).unmet]


def test_growth_of_a_move_is_that_of_two_runs():
    """The slack of the condition, by the runs themselves."""
    fine, wild = chaotic()
    condition = get_claim("C24").conditions[1]
    growths = []
    for at in (fine, wild):
        rng, how = (
            np.random.default_rng(0),
            {"local_steps": at.local_steps, "local_lr": at.local_lr},
        )
        move = rng.normal(size=at.params.flat.size)
        move *= 1e-9 * np.linalg.norm(at.params.flat) / np.linalg.norm(move)
        starts = (at.params, la.Params(at.params.layout, at.params.flat + move))
        paths = [la.run(la.fed_avg(), at.problem, start, rounds=at.rounds, metrics=[],
                        record_params=True, **how).path for start in starts]  # fmt: skip
        apart = [np.linalg.norm(a.flat - b.flat) for a, b in zip(*paths, strict=True)]
        growths.append(max(apart) / apart[0])
    assert growths[0] < 10.0
    assert growths[1] > 1e6
    assert condition.judged(fine).slack > 1e4 - 10.0
    assert condition.judged(wild).slack < -1e6


def test_an_error_of_rounding_has_no_estimate():
    """One local step has no drift: nothing is predicted."""
    assert unmet(ESTIMATE, Instance(*small(), 20, 1, 0.01)) == ["a relative error above 1e-08"]
    found = check_instance(ESTIMATE, build(rounds=40, multiple=1.0, **LITTLE).instance)
    assert (found.status, found.tightness > 1.0) == ("reported", True)


def test_the_regret_needs_a_stake():
    at = build(**DRIFTING).instance
    assert check_instance(REGRET, at).status == "reported"
    assert unmet(REGRET, at._replace(local_steps=1)) == ["a stake of at least 1e-3"]


@pytest.mark.parametrize("claim", [ESTIMATE, REGRET])
def test_random_instances_are_made_long_enough(claim):
    """Sixty rounds of ten steps of at least .05/curvature."""
    for index in range(5):
        drawn = random_instance(4, index)
        at, safe = suited(drawn, claim), la.safe_step(drawn.problem, drawn.params)
        assert (at.rounds, at.local_steps, at.batch_size, at.participation) == (60, 10, None, 1.0)
        wanted = 2.0 * safe if claim is REGRET else max(0.1 * safe, drawn.local_lr)
        assert at.local_lr == pytest.approx(wanted)
