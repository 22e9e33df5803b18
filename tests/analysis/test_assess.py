"""The question in one call."""

import re

import pytest

import linattn as la


@pytest.fixture(scope="module")
def answer():
    problem = la.synthetic_problem(
        num_clients=4, sequences_per_client=16, num_tokens=8, dim=4, num_outputs=2,
        value_heterogeneity=1.5, covariate_heterogeneity=0.5, noise=0.1, value_ridge=0.05,
        kernel_ridge=0.01,
    )  # fmt: skip
    params = la.initial_params(problem, scale=0.6)
    return la.assess(problem, params=params, local_steps=20, local_lr=0.04, rounds=60)


def test_answer_is_the_table(answer):
    table, best = answer.table, answer.warmup_star
    assert 0 < best < 60
    assert answer.objective_star == float(table["objective"].min())
    assert answer.objective_never == float(table["objective"].sel(warmup=60))
    assert answer.objective_always == float(table["objective"].sel(warmup=0))
    total = answer.reference.value + sum(answer.parts.values())
    assert answer.objective_star == pytest.approx(total, rel=1e-12)


def test_every_prediction_is_checked(answer):
    assert [check.claim for check in answer.checks] == ["C9", "C7", "C4", "C15"]
    assert answer.holds


def test_repr_is_a_short_table(answer):
    text = repr(answer)
    assert text.count("\n") < 18
    assert re.search(rf"T\* = {answer.warmup_star} of R = 60 \(interior\)", text)
    assert "VIOLATED" not in text


def test_divergence_is_said(small_problem):
    answer = la.assess(small_problem, local_steps=5, local_lr=50.0, rounds=8)
    assert answer.warmup_star in (None, 0)
    assert repr(answer)


@pytest.mark.parametrize(("name", "value"), [("rounds", 0), ("local_steps", 0), ("local_lr", -1)])
def test_bad_input_is_one_sentence(small_problem, name, value):
    arguments = {"rounds": 3, "local_steps": 2, "local_lr": 0.1} | {name: value}
    with pytest.raises(ValueError, match=f"{name} must be"):
        la.assess(small_problem, **arguments)
