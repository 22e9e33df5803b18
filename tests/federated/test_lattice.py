"""Identity lattice: methods that must coincide, to the bit or to rounding."""

import numpy as np
import pytest
from bridge import from_instance, kinds, make, moved, over, relative_error, same_bits, seeds
from method_cases import NOISY, RUN, close_runs

import linattn as la


@pytest.mark.parametrize("noise", [{}, NOISY])
def test_every_warmup_is_a_prefix_of_fed_avg_and_then_keeps_its_kernel(noise):
    *_, problem, params = make(2)
    options = {**RUN, "local_lr": la.safe_step(problem, params), **noise}
    average = la.run(la.fed_avg(), problem, params, **options)
    for warmup in range(4):
        frozen = la.run(la.fed_frozen(warmup_rounds=warmup), problem, params, **options)
        assert all(same_bits(frozen.path[t], average.path[t]) for t in range(warmup + 1))
        for later in frozen.path[warmup:]:
            assert same_bits(later.kernel, average.path[warmup].kernel)


@over(seeds, kinds, examples=10)
def test_one_local_step_is_centralized_gradient_descent(seed, kind):
    *_, problem, params = make(seed, kind)
    joint, step = la.Joint(problem), la.safe_step(problem, params)
    options = RUN | {"local_steps": 1}
    result = la.run(la.fed_avg(), problem, params, local_lr=step, **options)
    at = params
    for reached in result.path[1:]:
        at = moved(at, joint.gradient(at), -step)
        assert relative_error(reached.flat, at.flat) < 1e-11


@over(seeds, kinds, examples=10)
def test_identical_clients_are_one_client(seed, kind):
    *_, problem, params = make(seed, kind)
    pooled, step = la.pool(problem), la.safe_step(problem, params)
    many = la.run(la.fed_avg(), pooled, params, local_lr=step, **RUN)
    one = la.run(la.fed_avg(), pooled.subset([0]), params, local_lr=step, **RUN)
    close_runs(many, one, tolerance=1e-11)
    assert np.all(many.columns["kernel_drift"][1:] < 1e-13 * np.linalg.norm(params.flat))
    sampled = la.run(la.fed_avg(), pooled, params, local_lr=step, participation=0.5, **RUN)
    close_runs(sampled, one, tolerance=1e-11)


@over(seeds, kinds, examples=10)
def test_the_order_of_clients_does_not_matter(seed, kind):
    rng, *_, problem, params = make(seed, kind)
    order = rng.permutation(problem.num_clients).tolist()
    step = la.safe_step(problem, params)
    plain, mixed = (
        la.run(la.fed_frozen(warmup_rounds=2), p, params, local_lr=step, **RUN)
        for p in (problem, problem.subset(order))
    )
    close_runs(plain, mixed, tolerance=1e-11)
    for name in ("objective", "profile", "value_drift"):
        assert np.allclose(plain.columns[name][1:], mixed.columns[name][1:], rtol=1e-8, atol=1e-13)


@over(seeds, kinds, examples=10)
def test_the_order_of_sequences_does_not_matter(seed, kind):
    _, inst, _, _, problem, params = make(seed, kind)
    mixed = from_instance(inst._replace(clients=[client[::-1] for client in inst.clients]))
    step = la.safe_step(problem, params)
    runs = [la.run(la.fed_avg(), p, params, local_lr=step, **RUN) for p in (problem, mixed)]
    close_runs(*runs, tolerance=1e-11)


def nothing(context, client, memory, flat, batch):
    return np.zeros_like(flat)


@pytest.mark.parametrize("noise", [{}, NOISY])
@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_the_general_path_is_the_compiled_path(kind, noise):
    for seed, warmup in ((3, 2), (4, 9)):
        *_, problem, params = make(seed, kind)
        plan = la.fed_frozen(warmup_rounds=warmup).plan
        options = {**RUN, "local_lr": la.safe_step(problem, params), **noise}
        slow = la.run(la.Method("slow", plan=plan, penalty_gradient=nothing), problem, params,
                      **options)  # fmt: skip
        fast = la.run(la.Method("fast", plan=plan), problem, params, **options)
        close_runs(slow, fast, tolerance=1e-11)
        for name in ("kernel_drift", "floats_up", "floats_down", "kernel_trained"):
            assert np.allclose(
                slow.columns[name][1:], fast.columns[name][1:], rtol=1e-7, atol=1e-12
            )


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("warmup", [0, 2, 9])
def test_prox_and_shift_are_the_same_on_both_paths(kind, warmup):
    """prox·(w − anchor) + shift, compiled, against a penalty gradient that says the same."""
    rng, *_, problem, params = make(7, kind)
    shifts = 0.1 * rng.standard_normal((problem.num_clients, params.layout.size))
    plan = la.fed_frozen(warmup_rounds=warmup).plan
    fast = la.Method(
        "fast", plan=plan, direction=lambda c, client, *_: la.Direction(0.7, shifts[client])
    )
    slow = la.Method(
        "slow",
        plan=plan,
        penalty_gradient=lambda c, client, own, w, batch: (
            0.7 * (w - c.params.flat) + shifts[client]
        ),
    )
    mixed = la.Method(
        "mixed",
        plan=plan,
        direction=lambda c, client, *_: la.Direction(0.7),
        penalty_gradient=lambda c, client, own, w, batch: shifts[client],
    )
    options = {**RUN, "local_lr": la.safe_step(problem, params), "participation": 0.6}
    runs = [la.run(method, problem, params, **options) for method in (fast, slow, mixed)]
    for other in runs[1:]:
        close_runs(runs[0], other, tolerance=1e-11)


def test_whole_batches_are_full_batches():
    for kind in ("merged", "factored"):
        *_, problem, params = make(8, kind)
        options = {**RUN, "local_lr": la.safe_step(problem, params)}
        method = la.fed_frozen(warmup_rounds=2)
        full, whole = (
            la.run(method, problem, params, batch_size=size, **options) for size in (None, 10**6)
        )
        close_runs(full, whole, tolerance=1e-11)


def test_no_rounds_return_the_start(small_problem, small_params):
    result = la.run(
        la.fed_avg(), small_problem, small_params, rounds=0, local_steps=1, local_lr=0.1,
        record_params=True,
    )  # fmt: skip
    assert same_bits(result.params, small_params)
    assert len(result.path) == len(result.columns["objective"]) == 1
    assert result.outcome == ("completed", 0, "")
