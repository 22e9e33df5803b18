"""Clients that differ in work: local steps of their own, stragglers, normalized averaging (C21)."""

import dataclasses

import numpy as np
import pytest
from bridge import relative_error, same_bits
from method_cases import (
    KINDS,
    NOISY,
    RUN,
    case,
    check_continued,
    equal_runs,
    log_slope,
    naive_run,
    uneven_case,
)

import linattn as la
from linattn.federated.rounds import RoundDriver, check_settings, draw_local_steps
from linattn.streams import stream

STEPS = [3, 1, 5, 2]


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["full", "noisy"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [la.fed_avg, la.fed_nova])
def test_against_a_naive_loop(build, kind, noise):
    held = uneven_case(kind, 1)
    reached = naive_run(held, steps=lambda t, i: STEPS[i], normalized=build is la.fed_nova, **noise)
    result = held.run(build(), local_steps=STEPS, **noise)
    assert relative_error(result.params.flat, reached) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_equal_entries_are_one_number_to_the_bit(kind):
    held = case(kind, 2)
    for noise in ({}, NOISY):
        runs = [held.run(la.fed_avg(), local_steps=e, **noise) for e in ([3] * 4, 3)]
        equal_runs(*runs)


def test_the_general_path_takes_the_same_steps():
    held = uneven_case("factored", 3)
    slow = la.Method("slow", penalty_gradient=lambda c, i, own, flat, batch: np.zeros_like(flat))
    left, right = (held.run(m, local_steps=STEPS, **NOISY) for m in (slow, la.fed_avg()))
    assert relative_error(left.params.flat, right.params.flat) < 1e-12
    assert same_bits(left.columns["multiply_adds"], right.columns["multiply_adds"])


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["full", "noisy"])
def test_a_finished_client_stays_in_the_trace_with_zero_gradients(noise):
    problem, params, step = uneven_case("merged", 4)
    settings = check_settings(rounds=1, local_steps=STEPS, local_lr=step, **noise)
    driver = RoundDriver(la.fed_avg(), problem, problem.oracle(params), params, settings,
                         record=True)  # fmt: skip
    done = driver.step(0)
    plain = RoundDriver(la.fed_avg(), problem, problem.oracle(params), params, settings).step(0)
    assert same_bits(done.ends, plain.ends)
    counts = done.context.local_steps
    assert len(done.trace.iterates) == counts.max()
    for k, count in enumerate(counts):
        for held in (done.trace.gradients, done.trace.full_gradients):
            assert not held[count:, k].any()
            assert all(held[e, k].any() for e in range(count))
        assert all(same_bits(at, done.ends[k]) for at in done.trace.iterates[count:, k])
        walked = done.trace.iterates[0, k] - step * done.trace.gradients[:, k].sum(axis=0)
        assert relative_error(walked, done.ends[k]) < 1e-14
    assert (done.trace.gradients is done.trace.full_gradients) == (not noise)


def test_work_is_counted_by_client():
    held = case("merged", 5)

    def work(problem, steps):
        run = held._replace(problem=problem).run(la.fed_avg(), local_steps=steps)
        return run.columns["multiply_adds"]

    alone = [work(held.problem.subset([i]), e) for i, e in enumerate(STEPS)]
    assert (work(held.problem, STEPS) == sum(alone)).all()


def test_control_variates_with_unequal_work_keep_their_fixed_point():
    """At V* with c_i = ∇F_i all local steps are zero, however many: option 2 divides by E_i."""
    problem, params, step = case("merged", 6)
    method = la.fed_frozen(warmup_rounds=0, frozen="scaffold")
    options = {"local_steps": STEPS, "local_lr": step, "metrics": ["gap"]}
    gaps = la.run(method, problem, params, rounds=600, **options).columns["gap"]
    assert gaps[-1] < 1e-5 * gaps[0]
    plain = la.run(la.fed_frozen(warmup_rounds=0), problem, params, rounds=600, **options)
    assert plain.columns["gap"][-1] > 1e-4 * gaps[0]


# ------------------------------------------------------------------------ stragglers


def test_stragglers_are_the_named_stream():
    held = uneven_case("merged", 7)

    def drawn(t, i):
        generator = stream(9, "stragglers", i, t)
        late = generator.random() < 0.6
        return int(generator.integers(1, STEPS[i], endpoint=True)) if late else STEPS[i]

    for build in (la.fed_avg, la.fed_nova):
        reached = naive_run(held, steps=drawn, normalized=build is la.fed_nova, **NOISY)
        result = held.run(build(), local_steps=STEPS, stragglers=0.6, **NOISY)
        assert relative_error(result.params.flat, reached) < 1e-12


def test_steps_of_stragglers_have_the_declared_distribution():
    settings = check_settings(rounds=1, local_steps=[4, 7], local_lr=0.1, stragglers=0.5, seed=3)
    clients = np.arange(2)
    drawn = np.array([draw_local_steps(settings, clients, t) for t in range(6000)])
    for column, count in zip(drawn.T, (4, 7), strict=True):
        shares = np.bincount(column, minlength=count + 1)[1:] / len(column)
        expected = np.full(count, 0.5 / count) + 0.5 * (np.arange(1, count + 1) == count)
        assert np.abs(shares - expected).max() < 4 * np.sqrt(0.25 / len(column))


def test_runs_with_stragglers_continue_to_the_bit():
    problem, params, step = case("merged", 8)
    options = RUN | {"local_lr": lambda t: step / (1 + t), "local_steps": STEPS, "stragglers": 0.5}
    options |= {"sampling": "weighted"} | NOISY
    check_continued(la.fed_nova, problem, params, (2,), **options)


# ------------------------------------------------------------------------ limits of FedNova


def test_unequal_work_leaves_plain_averaging_inconsistent_and_not_fed_nova():
    """Slopes of ‖V_∞ − V*‖ in η: 0 for plain averaging, 1 for normalized."""
    problem, params, step = uneven_case("merged", 9)
    sizes = step * np.array([0.4, 0.2, 0.1])
    bias = {
        normalized: [
            np.linalg.norm(
                la.frozen_stage(problem, params, local_steps=STEPS, local_lr=eta,
                                normalized=normalized).bias
            )
            for eta in sizes * 1e-3
        ]
        for normalized in (False, True)
    }  # fmt: skip
    assert abs(log_slope(sizes, bias[False])) < 1e-3
    assert abs(log_slope(sizes, bias[True]) - 1.0) < 1e-3
    for eta in sizes:
        options = {"local_steps": STEPS, "local_lr": eta}
        stage = la.frozen_stage(problem, params, **options, normalized=True)
        assert stage.rate < 0.9999
        reached = params.replace(value=stage.fixed_point)
        frozen = dataclasses.replace(la.fed_nova(), plan=la.fed_frozen(warmup_rounds=0).plan)
        stays = la.run(frozen, problem, reached, rounds=1, metrics=[], **options)
        assert relative_error(stays.params.value, stage.fixed_point) < 1e-13
