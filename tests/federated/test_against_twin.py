"""`la.run` against the twin's FedAvg from tokens: same participants, same batches, same numbers."""

import numpy as np
import pytest
import reference as ref
from bridge import INSTANCE, READOUTS, make, over, relative_error, to_theta
from hypothesis import strategies as st

import linattn as la
from linattn.streams import stream

SHARES = st.sampled_from([0.01, 0.3, 0.5, 0.75, 1.0])
STEPS = st.sampled_from([None, "larger", "safe"])
SIZES = {"num_clients": 4, "sequences": (2, 4), "tokens": (1, 5)}


def documented_participants(inst, rounds, participation, seed):
    """max(1, round(participation·C)) clients from the stream (seed, participation, round)."""
    total = len(inst.clients)
    count = max(1, round(participation * total))
    draws = [stream(seed, "participation", t).choice for t in range(rounds)]
    return [sorted(draw(total, count, replace=False).tolist()) for draw in draws]


def documented_batches(inst, rounds, local_steps, batch_size, seed):
    """batches[t][i][e] from the stream (seed, batch, client, round), one draw per local step."""
    table = []
    for t in range(rounds):
        row = []
        for i, client in enumerate(inst.clients):
            draws, size = stream(seed, "batch", i, t), min(batch_size, len(client))
            row.append([draws.choice(len(client), size, replace=False) for _ in range(local_steps)])
        table.append(row)
    return table


def check_path(result, twin):
    """Every round's server parameters agree with the twin's."""
    assert len(result.path) == len(twin.path)
    for params, (theta, V) in zip(result.path, twin.path, strict=True):
        assert relative_error(params.flat, ref.flatten(theta, V)) < 1e-10
    history = result.columns
    for t, (kernel, value) in enumerate(twin.drifts):
        size = 1e-12 * np.linalg.norm(result.path[t + 1].flat)
        assert history["kernel_drift"][t + 1] == pytest.approx(kernel, rel=1e-7, abs=size)
        assert history["value_drift"][t + 1] == pytest.approx(value, rel=1e-7, abs=size)


@over(*INSTANCE, st.integers(1, 4), st.sampled_from([1, 4]), examples=20)
def test_full_batches_and_full_participation(seed, kind, readout, local_steps, rounds):
    _, inst, theta, V, problem, params = make(seed, kind, readout=readout, **SIZES)
    options = {
        "rounds": rounds,
        "local_steps": local_steps,
        "local_lr": 0.1 * ref.safe_step(inst, theta),
    }
    twin = ref.fedavg(inst, theta, V, trace=False, **options)
    result = la.run(la.fed_avg(), problem, params, record_params=True, **options)
    check_path(result, twin)
    assert result.outcome == ("completed", rounds, "")
    assert result.freeze_round is None
    for t, at in enumerate(twin.path):
        slope_kernel, slope_value = ref.gradient(inst, *at)
        row = {name: column[t] for name, column in result.columns.items()}
        assert row["objective"] == pytest.approx(ref.objective(inst, *at), rel=1e-9)
        assert row["profile"] == pytest.approx(ref.profile(inst, at[0]), rel=1e-8)
        assert row["gap"] == pytest.approx(ref.gap(inst, *at), rel=1e-7, abs=1e-11)
        size = np.sqrt(ref.norm_sq(slope_kernel))
        assert row["kernel_gradient_norm"] == pytest.approx(size, rel=1e-7)
        size = np.sqrt(ref.norm_sq(slope_value))
        assert row["value_gradient_norm"] == pytest.approx(size, rel=1e-7)


@over(*INSTANCE, st.integers(0, 50), SHARES, st.sampled_from([None, 1, 2, 3, 100]), examples=20)
def test_minibatches_and_participation(seed, kind, readout, run_seed, participation, batch_size):
    _, inst, theta, V, problem, params = make(seed, kind, readout=readout, **SIZES)
    options = {"rounds": 3, "local_steps": 2, "local_lr": 0.1 * ref.safe_step(inst, theta)}
    batches = None
    if batch_size is not None:
        batches = documented_batches(inst, 3, 2, batch_size, run_seed)
    twin = ref.fedavg(
        inst, theta, V, trace=False, batches=batches,
        participants=documented_participants(inst, 3, participation, run_seed), **options,
    )  # fmt: skip
    result = la.run(
        la.fed_avg(), problem, params, record_params=True, seed=run_seed,
        participation=participation, batch_size=batch_size, **options,
    )  # fmt: skip
    check_path(result, twin)


@over(*INSTANCE, st.integers(0, 4), STEPS, st.sampled_from([None, 2]), examples=20)
def test_fed_frozen(seed, kind, readout, warmup, frozen_lr, batch_size):
    _, inst, theta, V, problem, params = make(seed, kind, readout=readout, **SIZES)
    options = {"rounds": 4, "local_steps": 3, "local_lr": 0.1 * ref.safe_step(inst, theta)}
    frozen_lr = 2 * options["local_lr"] if frozen_lr == "larger" else frozen_lr
    batches = None if batch_size is None else documented_batches(inst, 4, 3, batch_size, 7)
    method = la.fed_frozen(warmup_rounds=warmup, frozen_lr=frozen_lr)
    result = la.run(
        method, problem, params, record_params=True, seed=7, batch_size=batch_size, **options
    )
    step = options["local_lr"] if frozen_lr is None else frozen_lr
    if frozen_lr == "safe":
        kernel, _ = to_theta(result.path[warmup])
        tops = [np.linalg.norm(ref.client_matrix(inst, i, kernel), 2) for i in range(4)]
        step = min(options["local_lr"], 1 / max(tops))
    twin = ref.fedavg(
        inst, theta, V, trace=False, warmup_rounds=warmup, frozen_lr=step, batches=batches,
        **options,
    )  # fmt: skip
    check_path(result, twin)
    assert result.freeze_round == (warmup if warmup < 4 else None)
    trained = result.columns["kernel_trained"]
    assert trained.tolist() == [False] + [t < warmup for t in range(4)]
    rates = [options["local_lr"] if t < warmup else step for t in range(4)]
    assert np.isnan(result.columns["local_lr"][0])
    assert np.allclose(result.columns["local_lr"][1:], rates, rtol=1e-10)


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", READOUTS)
def test_many_sequences_per_client(kind, readout):
    """Enough sequences that full batches may run on moments; whole minibatches never do."""
    many = {"dim": 2, "num_clients": 3, "sequences": (60, 80), "tokens": (1, 4)}
    for num_heads in (1, 2):
        _, inst, theta, V, problem, params = make(11, kind, num_heads, readout=readout, **many)
        step = 0.1 * ref.safe_step(inst, theta)
        options = {"rounds": 2, "local_steps": 3, "local_lr": step}
        twin = ref.fedavg(inst, theta, V, trace=False, **options)
        for batch_size in (None, 10**6):
            result = la.run(
                la.fed_avg(), problem, params, record_params=True, batch_size=batch_size,
                **options,
            )  # fmt: skip
            check_path(result, twin)


def test_recorded_gradients_are_the_clients_gradients():
    """The trace that certificates read: iterates, applied and full gradients of every step."""
    from linattn.federated.rounds import RoundDriver, check_settings
    from linattn.oracles.statistics import StatisticsOracle

    for kind, batch_size in (("merged", None), ("factored", 2)):
        _, inst, theta, V, problem, params = make(5, kind, **SIZES)
        settings_ = check_settings(rounds=1, local_steps=3, local_lr=0.01, batch_size=batch_size)
        oracle = StatisticsOracle(problem, params.layout)
        driver = RoundDriver(la.fed_avg(), problem, oracle, params, settings_, record=True)
        trace = driver.step(0).trace
        batches = documented_batches(inst, 1, 3, batch_size or 99, 0)[0]
        for e, i in np.ndindex(3, 4):
            at = ref.unflatten(trace.iterates[e, i], theta, V)
            batch = None if batch_size is None else batches[i][e]
            used = ref.flatten(*ref.client_gradient(inst, i, *at, batch))
            full = ref.flatten(*ref.client_gradient(inst, i, *at))
            assert relative_error(trace.gradients[e, i], used) < 1e-10
            assert relative_error(trace.full_gradients[e, i], full) < 1e-10
            assert relative_error(oracle.gradient(i, trace.iterates[e, i]), full) < 1e-10
            if e:
                step = trace.iterates[e - 1, i] - 0.01 * trace.gradients[e - 1, i]
                assert relative_error(trace.iterates[e, i], step) < 1e-14
