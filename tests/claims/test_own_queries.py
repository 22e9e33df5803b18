"""Every claim on data that bring queries of their own, one to three per sequence."""

import pytest
import reference as ref
from bridge import make

import linattn as la
from linattn.claims.record import shared_runs


@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_claims_hold_with_queries_of_their_own(kind):
    *_, problem, params = make(5, kind, readout=ref.own_queries)
    assert problem.statistics.moment is not None
    step = 0.3 * la.safe_step(problem, params)
    with shared_runs():
        verdicts = [
            la.check(claim.id, problem, params, rounds=3, local_steps=4, local_lr=step)
            for claim in la.claims()
        ]
    assert "violated" not in {verdict.status for verdict in verdicts}
    assert sum(verdict.status == "holds" for verdict in verdicts) > len(verdicts) / 2
