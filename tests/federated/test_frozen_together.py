"""Frozen rounds after a rule has fired run in one call, and are those that run one by one."""

import pytest
from method_cases import check_continued
from singly import both, check_same

import linattn as la

SETTINGS = {"rounds": 40, "local_steps": 4, "local_lr": 0.05}


def early(context, proposal):
    return context.round == 7


RULES = {
    "profile": la.freeze_rule("profile"),
    "observable": la.freeze_rule("observable"),
    "own": la.FreezeRule("early", early, uploads=lambda context: 3, records_steps=True),
}


@pytest.mark.parametrize("frozen_lr", [None, "safe"])
@pytest.mark.parametrize("rule", RULES)
def test_frozen_rounds_are_those_one_by_one(
    small_problem, small_params, monkeypatch, rule, frozen_lr
):
    method = la.fed_frozen(warmup_rounds=RULES[rule], frozen_lr=frozen_lr)
    one, other = both(monkeypatch, method, small_problem, small_params, **SETTINGS)
    assert rule != "own" or one.freeze_round == 7
    check_same(one, other)


@pytest.mark.parametrize("second", ["scaffold", "one_shot", la.fed_prox(prox=0.3)], ids=str)
def test_second_stages_that_act_run_round_by_round(
    small_problem, small_params, monkeypatch, second
):
    method = la.fed_frozen(warmup_rounds=RULES["own"], frozen=second)
    check_same(*both(monkeypatch, method, small_problem, small_params, **SETTINGS))


def test_a_stage_of_few_clients_runs_round_by_round(small_problem, small_params, monkeypatch):
    method = la.fed_frozen(warmup_rounds=RULES["own"], frozen_participation=0.5)
    check_same(*both(monkeypatch, method, small_problem, small_params, **SETTINGS))


def test_divergence_ends_both_in_the_same_state(small_problem, small_params, monkeypatch):
    method = la.fed_frozen(warmup_rounds=RULES["own"], frozen_lr=50.0)
    one, other = both(monkeypatch, method, small_problem, small_params, **SETTINGS)
    assert one.outcome.status == "diverged"
    check_same(one, other)


def test_a_run_goes_on_as_it_was(small_problem, small_params):
    method = la.fed_frozen(warmup_rounds=RULES["profile"])
    frozen = la.run(method, small_problem, small_params, **SETTINGS).freeze_round
    stops = (3, frozen, frozen + 1, 30)
    check_continued(lambda: method, small_problem, small_params, stops, **SETTINGS)
