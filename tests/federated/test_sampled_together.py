"""Plain rounds of drawn clients run in one call, and are those that run one by one."""

import numpy as np
import pytest
from method_cases import check_continued
from singly import both, check_same
from worlds import world

import linattn as la
from linattn.analysis.bias_drift import warmup_path
from linattn.analysis.outcomes import frozen_ensemble
from linattn.federated import stretch
from linattn.federated.method import FOREVER, train_everything
from linattn.federated.rounds import check_settings
from linattn.oracles.training import CompiledTraining

SETTINGS = {"rounds": 40, "local_steps": 4, "local_lr": 0.004, "seed": 3}
METHODS = [
    la.fed_avg(),
    la.fed_frozen(warmup_rounds=13),
    la.fed_frozen(warmup_rounds=5, freeze="value"),
]
DRAWN = {
    "few": {"participation": 0.5},
    "one": {"participation": 0.1},
    "weighted": {"participation": 0.75, "sampling": "weighted"},
    "all_weighted": {"sampling": "weighted"},
}


@pytest.fixture
def calls(monkeypatch):
    """How many rounds each compiled call of several rounds ran."""
    counts, rounds = [], CompiledTraining.rounds

    def counted(self, task, draws, pushes=None):
        counts.append(len(draws.offsets) - 1)
        return rounds(self, task, draws, pushes)

    monkeypatch.setattr(CompiledTraining, "rounds", counted)
    return counts


def unequal():
    """Clients of unequal weight, of which a weighted draw takes a varying number."""
    return world(num_clients=6, sequences_per_client=4, covariate_heterogeneity=0.3,
                 value_heterogeneity=1.0, noise=0.0, weights=[0.05, 0.35, 0.2, 0.1, 0.1, 0.2],
                 seed=2)  # fmt: skip


def start_of(problem, **more):
    return la.initial_params(problem, value="normal", seed=1, **more)


@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("kernel", ["merged", "factored"])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_rounds_of_drawn_clients_are_those_one_by_one(monkeypatch, calls, method, kernel, drawn):
    problem = unequal()
    params = start_of(problem, num_heads=2, kernel=kernel)
    one, other = both(monkeypatch, method, problem, params, **SETTINGS, **DRAWN[drawn])
    assert one.outcome.status == "completed"
    assert sum(calls) == SETTINGS["rounds"]
    check_same(one, other)


@pytest.mark.parametrize("drawn", DRAWN)
def test_a_divergence_leaves_the_last_good_round(monkeypatch, drawn):
    problem = unequal()
    params = start_of(problem)
    settings = SETTINGS | {"local_lr": 0.045}
    one, other = both(monkeypatch, la.fed_avg(), problem, params, **settings, **DRAWN[drawn])
    assert one.outcome.status == "diverged"
    assert one.outcome.round > 2
    check_same(one, other)


def test_a_run_goes_on_where_it_was_left():
    problem, settings = unequal(), SETTINGS | DRAWN["few"]
    method = la.fed_frozen(warmup_rounds=20)
    check_continued(lambda: method, problem, start_of(problem), (17,), **settings)


def test_methods_that_draw_themselves_run_round_by_round(monkeypatch, calls):
    problem = unequal()
    params = start_of(problem)
    method = la.fed_frozen(warmup_rounds=10, frozen_participation=0.5)
    check_same(*both(monkeypatch, method, problem, params, **SETTINGS, **DRAWN["few"]))
    assert not calls


def costly(context, client, server, own):
    """More for whom few others take part with, by the weight in the average."""
    place = int(np.searchsorted(context.participants, client))
    assert len(context.weights) == len(context.participants)
    return la.Cost(len(context.participants), int(1000 * context.weights[place]), context.round)


@pytest.mark.parametrize("drawn", DRAWN)
def test_what_a_client_costs_is_asked_in_its_own_round(monkeypatch, calls, drawn):
    problem = unequal()
    method = la.Method(
        "costly",
        plan=lambda context, memory: train_everything(context, memory)._replace(rounds=FOREVER),
        extra_cost=costly,
    )
    settings = SETTINGS | DRAWN[drawn]
    check_same(*both(monkeypatch, method, problem, start_of(problem), **settings))
    assert sum(calls) == SETTINGS["rounds"]


def test_rounds_that_nobody_counts_leave_the_same_memory():
    """A run without costs goes on with those of a run that counted all the way."""
    problem = unequal()
    method, settings = la.fed_frozen(warmup_rounds=10), SETTINGS | DRAWN["few"]
    whole = la.run(method, problem, start_of(problem), **settings)
    half = la.run(method, problem, start_of(problem), metrics=(), **settings | {"rounds": 23})
    rest = la.run(method, problem, half.params, start_round=23, memory=half.memory, **settings)
    assert np.array_equal(whole.columns["floats_down"][24:], rest.columns["floats_down"][1:])


def test_ensembles_of_drawn_frozen_rounds_are_one_call_each(monkeypatch, calls):
    problem = unequal()
    settings = SETTINGS | DRAWN["few"]
    together = frozen_ensemble(problem, start_of(problem), num_runs=3, **settings)
    assert calls == [40] * 3
    monkeypatch.setattr(stretch, "may_stretch", lambda driver: False)
    single = frozen_ensemble(problem, start_of(problem), num_runs=3, **settings)
    assert np.array_equal(together.gaps, single.gaps)


def test_warm_ups_of_drawn_clients_are_one_call(monkeypatch, calls):
    problem = unequal()
    params = start_of(problem)
    settings = check_settings(**SETTINGS, **DRAWN["few"])
    together = warmup_path(problem, params, [0, 3, 40], settings)
    assert calls == [40]
    monkeypatch.setattr(stretch, "may_stretch", lambda driver: False)
    single = warmup_path(problem, params, [0, 3, 40], settings)
    assert all(np.array_equal(a.flat, b.flat) for a, b in zip(together, single, strict=True))
