"""The warm-up table against the twin, against explicit runs, and at its edges (C9)."""

import numpy as np
import pytest
import reference as ref
from bridge import make, moved

import linattn as la
from linattn.analysis.bias_drift import PARTS, _recorded


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", ["token", "mean", "last"])
def test_table_is_the_twins(kind, readout):
    _, inst, theta, value, problem, params = make(3 + len(readout), kind, readout=readout)
    options = {"rounds": 6, "local_steps": 3, "local_lr": 0.05 * ref.safe_step(inst, theta)}
    frozen = 0.5 * options["local_lr"]
    table = la.bias_drift(
        problem, params, warmup_lengths=[0, 2, 6], reference=0.25, frozen_lr=frozen, **options
    )
    for warmup in (0, 2, 6):
        theirs = ref.bias_drift(
            inst, theta, value, warmup_rounds=warmup, reference=0.25, frozen_lr=frozen, **options
        )
        row = table.sel(warmup=warmup)
        for name, number in theirs.items():
            scale = 1.0 if name == "rate" else abs(theirs["objective"]) + abs(theirs["profile"])
            assert float(row[name]) == pytest.approx(number, abs=1e-11 * scale), name


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("frozen_lr", [None, 0.02, "safe"])
def test_objective_is_what_explicit_runs_reach(kind, frozen_lr):
    _, _, _, _, problem, params = make(21, kind)
    options = {"rounds": 12, "local_steps": 6, "local_lr": 0.4 * la.safe_step(problem, params)}
    lengths = [0, 1, 5, 12]
    table = la.bias_drift(
        problem, params, warmup_lengths=lengths, reference=0.0, frozen_lr=frozen_lr, **options
    )
    for warmup in lengths:
        method = la.fed_frozen(warmup_rounds=warmup, frozen_lr=frozen_lr)
        result = la.run(method, problem, params, metrics=("objective",), **options)
        reached = float(result.history["objective"][-1])
        assert float(table["objective"].sel(warmup=warmup)) == pytest.approx(reached, rel=1e-12)


def test_parts_add_up(small_problem, small_params):
    table = la.bias_drift(
        small_problem, small_params, warmup_lengths=range(9), rounds=8, local_steps=5,
        local_lr=0.03,
    )  # fmt: skip
    total = table.attrs["reference"] + sum(table[name] for name in PARTS)
    np.testing.assert_allclose(table["objective"], total, rtol=1e-12)
    assert np.abs(table["residual"]).max() <= 1e-12 * np.abs(table["objective"]).max()
    assert table.attrs["lower_bound"] <= table.attrs["reference"]
    assert (table["kernel_bias"] >= -1e-9).all()
    best = int(np.argmin(table["objective"].values))
    assert table.attrs["warmup_star"] == int(table["warmup"][best])


def test_synchronized_profile_is_centralized_descent(small_problem, small_params):
    steps, rate = 3, 0.02
    table = la.bias_drift(
        small_problem, small_params, warmup_lengths=[0, 1, 4], rounds=4, local_steps=steps,
        local_lr=rate, reference=0.0,
    )  # fmt: skip
    flat = small_params.flat
    joint, profile = la.Joint(small_problem), la.KernelProfile(small_problem)
    for done in range(1, 4 * steps + 1):
        flat = flat - rate * joint.gradient(la.Params(small_params.layout, flat)).flat
        if done in (steps, 4 * steps):
            expected = profile.value(la.Params(small_params.layout, flat))
            found = float(table["profile_synchronized"].sel(warmup=done // steps))
            assert found == pytest.approx(expected, rel=1e-12)


def test_one_local_step_has_no_client_drift(small_problem, small_params):
    table = la.bias_drift(
        small_problem, small_params, warmup_lengths=[0, 3, 9], rounds=9, local_steps=1,
        local_lr=0.05, reference=0.0,
    )  # fmt: skip
    assert np.array_equal(table["value_floor"], np.zeros(3))
    np.testing.assert_allclose(table["profile"], table["profile_synchronized"], rtol=1e-12)


def test_unstable_frozen_stage_is_infinite_never_nan(small_problem, small_params):
    rate = 3.0 / float(np.linalg.eigvalsh(la.ValueBlock(small_problem, small_params).hessian)[-1])
    table = la.bias_drift(
        small_problem, small_params, warmup_lengths=[0, 1, 3], rounds=3, local_steps=4,
        local_lr=1e-3, frozen_lr=rate, reference=0.0,
    )  # fmt: skip
    assert not any(np.isnan(table[name].values).any() for name in table.data_vars)
    assert table["stable"].values.tolist() == [False, False, True]
    for name in ("value_transient", "value_floor", "value_cross"):
        assert np.isinf(table[name].values[:2]).all()
    start = small_params.replace(value=small_params.value)
    options = {"rounds": 3, "local_steps": 4, "local_lr": 1e-3, "metrics": ("objective",)}
    result = la.run(la.fed_frozen(warmup_rounds=0, frozen_lr=rate), small_problem, start, **options)
    assert float(table["objective"][0]) == pytest.approx(float(result.columns["objective"][-1]))
    assert table.attrs["warmup_star"] == 3


def test_diverging_warmup_has_no_best_length(small_problem, small_params):
    table = la.bias_drift(
        small_problem, small_params, warmup_lengths=[5, 20], rounds=20, local_steps=5,
        local_lr=50.0, reference=0.0,
    )  # fmt: skip
    assert table.attrs["warmup_star"] is None
    assert np.isinf(table["objective"]).all()
    assert not table["stable"].any()


@pytest.mark.parametrize("lengths", [[-1], [4], [0.5], []])
def test_bad_lengths_are_refused(small_problem, small_params, lengths):
    with pytest.raises(ValueError, match="warmup_lengths must be"):
        la.bias_drift(
            small_problem, small_params, warmup_lengths=lengths, rounds=3, local_steps=1,
            local_lr=0.1, reference=0.0,
        )  # fmt: skip


def test_synchronized_control_is_explicit_descent(small_problem, small_factored):
    options = {"rounds": 3, "local_steps": 4, "local_lr": 0.02}
    found = la.synchronized_control(small_problem, small_factored, warmup_lengths=[1], **options)
    joint, flat = la.Joint(small_problem), small_factored.flat
    kernel = small_factored.layout.mask(small_factored.layout.kernel_blocks)
    for step in range(12):
        slope = joint.gradient(la.Params(small_factored.layout, flat)).flat
        flat = flat - 0.02 * np.where(kernel & (step >= 4), 0.0, slope)
    expected = joint.value(la.Params(small_factored.layout, flat))
    assert found == pytest.approx([expected], rel=1e-12)


def test_a_recorded_path_must_reach_the_last_length(small_problem, small_params):
    path = [moved(small_params, small_params, 0.1 * t) for t in range(4)]
    assert _recorded(path, small_params, [0, 3]) == [path[0], path[3]]
    assert _recorded(path, small_params, [1]) == [path[1]]
    for wrong, lengths in ((path[:3], [0, 3]), (path[1:], [0, 2])):
        with pytest.raises(ValueError, match="path must start at params"):
            _recorded(wrong, small_params, lengths)
