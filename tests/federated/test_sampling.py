"""Who takes part: weighted sampling, participation of the second stage, the exact round of all."""

import dataclasses
from itertools import combinations, product

import numpy as np
import pytest
from bridge import relative_error, same_bits
from method_cases import KINDS, RUN, WEIGHTS, equal_runs, uneven_case

import linattn as la
from linattn._settings import EVERYBODY, Sampling
from linattn.federated.rounds import draw_participants
from linattn.streams import stream

HALF = {"participation": 0.5, "seed": 4}


def frequencies(sampling, rounds=4000):
    """Mean of w and of wwᵀ over drawn rounds."""
    drawn = np.zeros((rounds, 4))
    for t in range(rounds):
        participants, weights = draw_participants(WEIGHTS, sampling, seed=0, t=t)
        drawn[t, participants] = weights
    assert np.abs(drawn.sum(axis=1) - 1.0).max() < 1e-15
    return drawn.mean(axis=0), drawn.T @ drawn / rounds


def test_weighted_sampling_is_unbiased_and_uniform_sampling_is_not():
    mean, second = frequencies(Sampling(0.5, "weighted"))
    assert np.abs(mean - WEIGHTS).max() < 4 * 0.5 / np.sqrt(2 * 4000)
    expected = (np.diag(WEIGHTS) + np.outer(WEIGHTS, WEIGHTS)) / 2
    assert np.abs(second - expected).max() < 0.02
    mean, _ = frequencies(Sampling(0.5))
    pairs = list(combinations(range(4), 2))
    uniform = [sum(WEIGHTS[i] / WEIGHTS[list(s)].sum() for s in pairs if i in s) for i in range(4)]
    assert np.abs(mean - np.array(uniform) / len(pairs)).max() < 0.015
    assert np.abs(mean - WEIGHTS).max() > 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_weighted_sampling_against_a_naive_loop(kind):
    """A client drawn twice runs once and weighs 2/K."""
    problem, params, step = uneven_case(kind, 1)
    oracle, x, twice = problem.oracle(params), params.flat.copy(), 0
    for t in range(4):
        drawn = stream(4, "participation", t).choice(4, 3, p=WEIGHTS).tolist()
        twice += len(set(drawn)) < 3
        ends = []
        for i in drawn:
            w = x.copy()
            for _ in range(3):
                w = w - step * oracle.gradient(i, w)
            ends.append(w)
        x = np.mean(ends, axis=0)
    assert twice > 0
    options = RUN | {"local_lr": step, "participation": 0.75, "seed": 4, "sampling": "weighted"}
    result = la.run(la.fed_avg(), problem, params, **options)
    assert relative_error(result.params.flat, x) < 1e-12


def test_weighted_participation_of_one_is_not_everybody():
    participants, weights = draw_participants(WEIGHTS, Sampling(1.0, "weighted"), seed=0, t=0)
    assert len(participants) < 4
    assert set((4 * weights).tolist()) <= {1.0, 2.0, 3.0, 4.0}
    everybody = draw_participants(WEIGHTS, EVERYBODY, seed=0, t=0)
    assert everybody[0].tolist() == [0, 1, 2, 3]
    assert same_bits(everybody[1], WEIGHTS)


# ------------------------------------------------------------------------ the second stage


@pytest.mark.parametrize("scheme", ["uniform", "weighted"])
def test_the_second_stage_has_a_participation_of_its_own(scheme):
    problem, params, step = uneven_case("merged", 2)
    options = RUN | {"local_lr": step, "rounds": 5, "sampling": scheme, "seed": 4}
    asked = []

    def watched(method):
        return dataclasses.replace(
            method, extra_cost=lambda c, i, *memory: asked.append((c.round, i)) or la.Cost()
        )

    split = la.fed_frozen(warmup_rounds=2, frozen_participation=0.75)
    mixed = la.run(watched(split), problem, params, participation=0.25, **options)
    listed = [[i for t, i in asked if t == r] for r in range(5)]
    for t, found in enumerate(listed):
        shares = Sampling(0.25 if t < 2 else 0.75, scheme)
        assert found == draw_participants(WEIGHTS, shares, seed=4, t=t)[0].tolist()
    plain = la.fed_frozen(warmup_rounds=2)
    warm = la.run(plain, problem, params, participation=0.25, **(options | {"rounds": 2}))
    rest = la.run(plain, problem, warm.params, participation=0.75, start_round=2, **options)
    assert same_bits(mixed.params, rest.params)


def test_the_same_participation_changes_nothing():
    held = uneven_case("factored", 3)
    shares = (la.fed_frozen(warmup_rounds=1, frozen_participation=x) for x in (None, 0.5))
    equal_runs(*(held.run(method, **HALF) for method in shares))


def test_a_rule_that_fires_asks_the_participants_of_the_second_stage():
    held = uneven_case("merged", 4)
    options = {"local_lr": 20 * held.step, "rounds": 8, "participation": 0.25, "seed": 4}
    for name, second in product(("profile", "certified"), ({"frozen_participation": 0.75},
                                                           {"frozen": "one_shot"})):  # fmt: skip
        rule = la.fed_frozen(warmup_rounds=la.freeze_rule(name), **second)
        ruled = held.run(rule, **options)
        assert ruled.freeze_round not in (None, 0)
        fixed = held.run(la.fed_frozen(warmup_rounds=ruled.freeze_round, **second), **options)
        assert all(same_bits(a, b) for a, b in zip(ruled.path, fixed.path, strict=True))


@pytest.mark.parametrize("scheme", ["uniform", "weighted"])
def test_the_exact_round_asks_everybody_and_counts_it(scheme):
    problem, params, step = uneven_case("merged", 5)
    method = la.fed_frozen(warmup_rounds=3, frozen="one_shot")
    options = RUN | {"local_lr": step, "rounds": 5, "sampling": scheme} | HALF
    result = la.run(method, problem, params, **options)
    assert result.columns["gap"][4] < 1e-24 * result.columns["gap"][3]
    heads, dim, outputs = params.value.shape
    size, kernel, value = heads * dim, params.kernel.size, params.value.size
    assert result.columns["floats_up"][4] == 4 * (size * (size + 1) // 2 + size * outputs)
    # Everybody fetches the last kernel and value block before it; then one more round of V*.
    assert result.columns["floats_down"][4] == 4 * (kernel + value)
    later = draw_participants(WEIGHTS, Sampling(0.5, scheme), seed=4, t=4)[0]
    assert result.columns["floats_down"][5] == len(later) * value
    assert result.columns["floats_up"][5] == 0
    warm = la.run(la.fed_avg(), problem, params, **(options | {"rounds": 3}))
    assert all(same_bits(a, b) for a, b in zip(warm.path, result.path, strict=False))
