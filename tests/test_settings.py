"""Local steps, step schedules and sampling, as rounds and theory read them."""

import numpy as np
import pytest

import linattn as la
from linattn._settings import (
    EVERYBODY,
    Sampling,
    check_local_steps,
    check_sampling,
    check_stragglers,
    constant_step,
    mean_local_steps,
    step_at,
    step_schedule,
    steps_per_client,
)

RUN = {"rounds": 3, "local_steps": 2, "local_lr": 0.01}


def test_equal_entries_are_one_number():
    assert check_local_steps(3) == 3
    assert check_local_steps([3, 3], 2) == 3
    assert check_local_steps(np.array([3, 1]), 2).tolist() == [3, 1]
    assert steps_per_client(3, 2).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("value", "clients", "message"),
    [
        (0, None, "local_steps must be an integer >= 1, got 0"),
        (2.0, None, "local_steps must be an integer >= 1, got 2.0"),
        ("22", None, "local_steps must be an integer >= 1, got '22'"),
        ([1, 0], 2, r"local_steps\[1\] must be an integer >= 1, got 0"),
        ([1, 2.5], 2, r"local_steps\[1\] must be an integer >= 1, got 2.5"),
        ([1, True], 2, r"local_steps\[1\] must be an integer >= 1, got True"),
        ({1, 2}, 2, "local_steps must be in the order of clients, got {1, 2}"),
        ([1, 2], 3, "local_steps must have 3, one per client, got 2 entries"),
        ([], None, "local_steps must have one per client, got 0 entries"),
        (np.ones((2, 2), dtype=int), 2, r"local_steps\[0\] must be an integer >= 1"),
    ],
)
def test_bad_local_steps(value, clients, message):
    with pytest.raises(ValueError, match=message):
        check_local_steps(value, clients)


def test_mean_steps_of_stragglers_by_listing():
    for count, share in ((1, 0.4), (5, 0.25), (8, 1.0), (3, 0.0)):
        listed = (1 - share) * count + share * np.mean(range(1, count + 1))
        assert mean_local_steps(count, share) == pytest.approx(listed, rel=1e-15)


def test_schedules():
    assert step_schedule("local_lr", 0.5) == 0.5
    assert step_at(0.5, 7) == 0.5
    assert [step_at(step_schedule("a", [1.0, 2.0], rounds=2), t) for t in range(2)] == [1.0, 2.0]
    assert step_at(step_schedule("a", lambda t: 1.0 / (1 + t)), 3) == 0.25


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.0, "local_lr must be > 0, got 0.0"),
        (float("nan"), "local_lr must be a finite number > 0, got nan"),
        ("fast", "local_lr must be a number"),
        ([0.1, 0.1], r"local_lr must have an entry for every round \(3\), got 2"),
        ([0.1, -0.1, 0.1], "local_lr must be > 0 in every round, got -0.1"),
        ([0.1, float("nan"), 0.1], "local_lr must be finite, got 1 NaN"),
        (np.ones((3, 1)), r"local_lr must have 1 axes, got shape \(3, 1\)"),
        (lambda t: -1.0, r"local_lr\(0\) must be > 0, got -1.0"),
        (lambda t: None, r"local_lr\(0\) must be a number"),
    ],
)
def test_bad_steps_are_refused_by_runs(small_problem, small_params, value, message):
    with pytest.raises(ValueError, match=message):
        la.run(la.fed_avg(), small_problem, small_params, **(RUN | {"local_lr": value}))


def test_server_steps_are_refused_at_their_round(small_problem, small_params):
    for step, message in (
        ([1.0], "server_lr must have an entry for round 1, got 1 entries"),
        (lambda t: 1.0 - t, r"server_lr\(1\) must be > 0, got 0.0"),
    ):
        with pytest.raises(ValueError, match=message):
            la.run(la.fed_avg(server_lr=step), small_problem, small_params, **RUN)


@pytest.mark.parametrize("value", [[0.1, 0.2], lambda t: 0.1, np.array([0.1])])
def test_theory_of_a_constant_step_says_so(small_problem, small_params, value):
    with pytest.raises(ValueError, match=r"local_lr must be one number: .* a step that is con"):
        la.frozen_stage(small_problem, small_params, local_steps=2, local_lr=value)
    with pytest.raises(ValueError, match="local_lr must be one number"):
        la.bias_drift(
            small_problem, small_params, warmup_lengths=[0], rounds=1, local_steps=2,
            local_lr=value, reference=0.0,
        )  # fmt: skip
    assert constant_step("a", 0.5, "this") == 0.5


def test_sampling():
    assert check_sampling(1.0, "uniform") == EVERYBODY
    assert EVERYBODY.is_everybody(3)
    assert not Sampling(1.0, "weighted").is_everybody(3)
    assert Sampling(0.9).is_everybody(4)
    assert [Sampling(share).draws(4) for share in (1e-9, 0.3, 0.5, 1.0)] == [1, 1, 2, 4]
    with pytest.raises(
        ValueError, match="sampling must be one of 'uniform', 'weighted', got 'uni'"
    ):
        check_sampling(0.5, "uni")
    with pytest.raises(ValueError, match=r"participation must be > 0 and <= 1, got 1\.5"):
        check_sampling(1.5, "uniform")
    with pytest.raises(ValueError, match="stragglers must be >= 0 and <= 1, got -1"):
        check_stragglers(-1)
