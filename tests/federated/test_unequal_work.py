"""Clients that differ in work: local steps of their own, stragglers, normalized averaging (C21)."""

import dataclasses

import numpy as np
import pytest
from bridge import relative_error, same_bits
from method_cases import KINDS, NOISY, RUN, case, equal_runs, log_slope

import linattn as la
from linattn.federated.rounds import (
    RoundDriver,
    check_settings,
    choose_participants,
    draw_batches,
    draw_local_steps,
)
from linattn.streams import stream

STEPS = [3, 1, 5, 2]
WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])


def unequal(kind, seed):
    """A case with unequal weights where the kind has them as a field."""
    problem, params, step = case(kind, seed)
    return dataclasses.replace(problem, weights=WEIGHTS), params, step


def naive_run(problem, params, *, steps, local_lr, rounds, normalized=False, batch_size=None,
              participation=1.0, seed=0):  # fmt: skip
    """FedAvg or FedNova, one client and one gradient at a time."""
    oracle, x = problem.oracle(params), params.flat.copy()
    for t in range(rounds):
        chosen = choose_participants(len(WEIGHTS), participation, seed, t)
        weights = WEIGHTS[chosen] / WEIGHTS[chosen].sum()
        moves, counts = [], []
        for i in chosen.tolist():
            count, w = steps(t, i), x.copy()
            batches = [None] * count
            if batch_size is not None:
                generator = stream(seed, "batch", i, t)
                batches = draw_batches(oracle.batch_limit(i), batch_size, count, generator)
            for batch in batches:
                w = w - local_lr * oracle.gradient(i, w, batch)
            moves.append(w - x)
            counts.append(count)
        if normalized:
            mean = sum(p * e for p, e in zip(weights, counts, strict=True))
            moves = [mean * move / e for move, e in zip(moves, counts, strict=True)]
        x = x + sum(p * move for p, move in zip(weights, moves, strict=True))
    return x


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["full", "noisy"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", [la.fed_avg, la.fed_nova])
def test_against_a_naive_loop(build, kind, noise):
    problem, params, step = unequal(kind, 1)
    reached = naive_run(problem, params, steps=lambda t, i: STEPS[i], local_lr=step, rounds=4,
                        normalized=build is la.fed_nova, **noise)  # fmt: skip
    options = RUN | {"local_lr": step, "local_steps": STEPS} | noise
    result = la.run(build(), problem, params, **options)
    assert relative_error(result.params.flat, reached) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_equal_entries_are_one_number_to_the_bit(kind):
    problem, params, step = case(kind, 2)
    for noise in ({}, NOISY):
        options = RUN | {"local_lr": step} | noise
        one = la.run(la.fed_avg(), problem, params, **options)
        equal_runs(
            la.run(la.fed_avg(), problem, params, **(options | {"local_steps": [3] * 4})), one
        )


def test_the_general_path_takes_the_same_steps():
    problem, params, step = unequal("factored", 3)
    options = RUN | {"local_lr": step, "local_steps": STEPS} | NOISY
    slow = la.Method("slow", penalty_gradient=lambda c, i, own, flat, batch: np.zeros_like(flat))
    left, right = (la.run(m, problem, params, **options) for m in (slow, la.fed_avg()))
    assert relative_error(left.params.flat, right.params.flat) < 1e-12
    assert same_bits(left.columns["multiply_adds"], right.columns["multiply_adds"])


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["full", "noisy"])
def test_a_finished_client_stays_in_the_trace_with_zero_gradients(noise):
    problem, params, step = unequal("merged", 4)
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
    problem, params, step = case("merged", 5)
    options = RUN | {"local_lr": step, "metrics": ["multiply_adds"]}
    work = {e: la.run(la.fed_avg(), problem.subset([i]), params, **(options | {"local_steps": e}))
            .columns["multiply_adds"] for i, e in enumerate(STEPS)}  # fmt: skip
    together = la.run(la.fed_avg(), problem, params, **(options | {"local_steps": STEPS}))
    assert (together.columns["multiply_adds"] == sum(work.values())).all()


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
    problem, params, step = unequal("merged", 7)

    def drawn(t, i):
        generator = stream(9, "stragglers", i, t)
        late = generator.random() < 0.6
        return int(generator.integers(1, STEPS[i], endpoint=True)) if late else STEPS[i]

    for build in (la.fed_avg, la.fed_nova):
        reached = naive_run(problem, params, steps=drawn, local_lr=step, rounds=4,
                            normalized=build is la.fed_nova, **NOISY)  # fmt: skip
        options = RUN | {"local_lr": step, "local_steps": STEPS, "stragglers": 0.6} | NOISY
        result = la.run(build(), problem, params, **options)
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
    whole = la.run(la.fed_nova(), problem, params, **options)
    first = la.run(la.fed_nova(), problem, params, **(options | {"rounds": 2}))
    rest = la.run(
        la.fed_nova(), problem, first.params, start_round=2, memory=first.memory, **options
    )
    assert same_bits(rest.params, whole.params)


# ------------------------------------------------------------------------ limits of FedNova


def test_unequal_work_leaves_plain_averaging_inconsistent_and_not_fed_nova():
    """Slopes of ‖V_∞ − V*‖ in η: 0 for plain averaging, 1 for normalized."""
    problem, params, step = unequal("merged", 9)
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
