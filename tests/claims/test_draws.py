"""C20 and C21 where draws and work are chosen: what is listed, what is drawn, what contracts."""

import numpy as np
import pytest
from claim_cases.build import build
from claim_cases.pairs import drawn, factored, small, with_step
from claim_cases.sampled import _draws
from claim_cases.table import FLOW
from enumeration import round_maps

import linattn as la
from linattn.analysis.outcomes import count_outcomes, frozen_outcomes
from linattn.claims import Instance, get_claim
from linattn.claims.instances import random_instance, suited
from linattn.claims.ours.c21_unequal import work_of
from linattn.claims.table import check_instance

C20, ENSEMBLE = get_claim("C20"), get_claim("C20 ensemble")


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"participation": 0.5}, {}])
def test_draws_are_counted_as_they_are_listed(options):
    case = build(rounds=1, local_steps=2, **options)
    count = len(round_maps(case.inst, case.theta, _draws(case)).chances)
    how = {"local_steps": 2, "local_lr": case.eta, **options}
    assert count_outcomes(case.instance.problem, rounds=1, **how) == count
    assert count_outcomes(case.instance.problem, rounds=3, **how) == count**3
    listed = frozen_outcomes(case.instance.problem, case.instance.params, rounds=1, **how)
    assert len(listed.chances) == count


def test_counting_needs_sound_settings():
    with pytest.raises(ValueError, match="local_steps must"):
        count_outcomes(small()[0], rounds=1, local_steps=0, local_lr=0.1)


@pytest.mark.parametrize("index", range(12))
def test_a_random_instance_is_made_one_whose_draws_can_be_listed(index):
    """Three clients of three sequences, and something to draw."""
    at = suited(random_instance(7, index), C20)
    how = {"local_steps": at.local_steps, "local_lr": at.local_lr,
           "batch_size": at.batch_size, "participation": at.participation}  # fmt: skip
    count = count_outcomes(at.problem, rounds=at.rounds, **how)
    assert 1 < count <= 20_000
    assert at.problem.num_clients <= 3
    assert at.problem.client_sizes.max() <= 3
    first = random_instance(7, index).problem.subset(range(at.problem.num_clients))
    assert np.array_equal(at.problem.weights, first.weights)
    kept = [first.statistics.gram[first.client(i)][:3] for i in range(first.num_clients)]
    assert np.array_equal(at.problem.statistics.gram, np.concatenate(kept))


def test_an_instance_of_ones_own_is_not_made_smaller():
    """6 sequences in batches of 3, 4 clients, 5 steps: 20^20 draws a round."""
    found = check_instance(C20, Instance(*small(), batch_size=3))
    assert [c.name for c in found.unmet] == ["at most 20,000 draws to list"]
    assert check_instance(C20, Instance(*small(), batch_size=3), force=True).status == "refused"
    assert check_instance(C20, Instance(*small(), participation=0.5)).status == "holds"


@pytest.mark.parametrize("claim", [C20, ENSEMBLE])
def test_moments_beyond_memory_are_refused(claim):
    problem, _ = small()
    params = la.initial_params(problem, num_heads=35)  # 105 rows, and two outputs
    found = check_instance(claim, Instance(problem, params, participation=0.5))
    assert [(c.name, c.slack) for c in found.unmet] == [("H·d + m ≤ 104", -3.0)]


def test_an_ensemble_needs_something_that_is_drawn():
    everybody = check_instance(ENSEMBLE, Instance(*small()))
    assert [c.name for c in everybody.unmet] == ["something is drawn"]
    pooled = Instance(la.pool(small()[0]), small()[1], participation=0.5)
    assert check_instance(ENSEMBLE, pooled).status == "refused"


def test_an_ensemble_needs_a_second_moment_that_contracts():
    """With one of four clients a round at 2.6/λ_max the mean is stable and the spread is not."""
    fine, wide = (with_step(Instance(*small(), 3, 1, participation=0.25), x) for x in (2.2, 2.6))
    assert check_instance(ENSEMBLE, fine).status == "reported"
    moments = la.frozen_moments(*wide[:2], local_steps=1, local_lr=wide.local_lr,
                                participation=0.25)  # fmt: skip
    assert moments.mean_rate < 1.0 < moments.second_moment_rate
    found = check_instance(ENSEMBLE, wide)
    assert [c.name for c in found.unmet] == ["a second moment that contracts"]
    assert found.unmet[0].slack == pytest.approx(1.0 - moments.second_moment_rate)


@pytest.mark.parametrize("index", [2, 5, 8])
def test_ensembles_are_within_four_errors(index):
    at = suited(random_instance(7, index), ENSEMBLE)._replace(rounds=3)
    found = check_instance(ENSEMBLE, at)
    assert found.status == "reported"
    assert found.tightness < 4.0


def test_an_ensemble_notices_what_was_not_drawn(monkeypatch):
    from linattn.claims.ours import c20_moments

    at = Instance(*factored(), 3, 4, 0.02, participation=0.25)
    assert check_instance(ENSEMBLE, at).tightness < 4.0
    honest = c20_moments.frozen_moments

    def half(*arguments, **settings):
        return honest(*arguments, **(settings | {"participation": 0.75}))

    monkeypatch.setattr(c20_moments, "frozen_moments", half)
    assert check_instance(ENSEMBLE, at).tightness > 5.0


def test_work_is_drawn_from_the_seed_alone():
    at = drawn(0, local_steps=9)
    work = work_of(at)
    assert work == work_of(at._replace(local_lr=1.0, rounds=7))
    assert all(1 <= count <= 9 for count in work)
    seeds = [work_of(at._replace(seed=seed)) for seed in range(40)]
    assert {1, 9} <= {count for work in seeds for count in work}
    assert work_of(at._replace(local_steps=1)) == [1] * at.problem.num_clients


def test_unequal_work_of_fed_nova_itself_is_what_is_checked():
    """Given as the method or not; plain averaging of the same work does not stay there."""
    at, claim = drawn(0, local_steps=9), get_claim("C21 normalized")
    alone, named = (check_instance(claim, one) for one in (at, at._replace(method=la.fed_nova())))
    assert alone.status == named.status == "holds"
    assert alone.measured == named.measured
    plain = at._replace(method=la.fed_avg())
    assert "fed_avg averages moves as they are" in check_instance(claim, plain).reason
    assert check_instance(claim, plain, force=True).status == "violated"


def test_a_kernel_that_drift_alone_moves_is_not_spoken_of():
    """From V = 0 the flow moves the kernel by 5e-6, drift by nearly twice as much again."""
    claim = get_claim("C19 profile")
    at = suited(random_instance(0, 213), claim)
    found = check_instance(claim, at)
    assert [c.name for c in found.unmet] == [f"kernel {FLOW}"]
    assert check_instance(claim, at, force=True).tightness > 5.0
    plain = check_instance(claim, at._replace(local_steps=1))
    assert (plain.status, plain.tightness < 4.0) == ("reported", True)
    every = get_claim("C19").conditions[-1]
    assert (every.name, every.judged(at).met) == (FLOW, True)
