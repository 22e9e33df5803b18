"""The iteration of control variates in the frozen stage against explicit rounds."""

import dataclasses

import numpy as np
import pytest
from bridge import relative_error
from method_cases import frozen_world

import linattn as la
from linattn.federated.methods.scaffold import scaffold


@pytest.fixture(scope="module")
def federation():
    return frozen_world(num_heads=2)


def value_only(option, server_lr):
    """SCAFFOLD that trains the value block alone."""
    inner = scaffold(option=option, server_lr=server_lr)
    return dataclasses.replace(
        inner, plan=lambda context, memory: la.Plan(frozenset({"value"}), context.local_lr)
    )


@pytest.mark.parametrize("server_lr", [1.0, 0.6])
@pytest.mark.parametrize("option", [1, 2])
@pytest.mark.parametrize("steps", [1, 7])
def test_the_iteration_is_what_explicit_rounds_do(federation, steps, option, server_lr):
    problem, params, step = federation
    stage = la.scaffold_stage(
        problem, params, local_steps=steps, local_lr=step, option=option, server_lr=server_lr
    )
    result = la.run(value_only(option, server_lr), problem, params, rounds=9, local_steps=steps,
                    local_lr=step, record_params=True)  # fmt: skip
    for t, at in enumerate(result.path):
        assert relative_error(at.value, stage.after(t)) < 1e-11


def test_the_frozen_stage_of_fed_frozen_is_that_iteration(federation):
    """Also with a step size of its own, which option 2 has to divide by."""
    problem, params, step = federation
    stage = la.scaffold_stage(problem, params, local_steps=4, local_lr=step, frozen_lr=0.3 * step)
    method = la.fed_frozen(warmup_rounds=0, frozen="scaffold", frozen_lr=0.3 * step)
    result = la.run(method, problem, params, rounds=9, local_steps=4, local_lr=step)
    assert relative_error(result.params.value, stage.after(9)) < 1e-11


def test_the_rate_is_the_slope_of_the_error(federation):
    problem, params, step = federation
    for steps in (1, 5, 20):
        stage = la.scaffold_stage(problem, params, local_steps=steps, local_lr=step)
        late = [np.linalg.norm(stage.after(t) - stage.stage.minimizer) for t in (100, 200)]
        if late[1] > 1e-13:
            measured = (late[1] / late[0]) ** (1 / 100)
            assert abs(measured - stage.rate) < 0.01
        assert stage.stable
        assert 0.0 < stage.rounds_to(1e-10) < np.inf
        assert stage.rounds_to(1e12) == 0.0


def test_one_local_step_is_centralized_descent(federation):
    problem, params, step = federation
    stage = la.scaffold_stage(problem, params, local_steps=1, local_lr=step)
    smallest = np.linalg.eigvalsh(stage.stage.hessian)[0]
    assert abs(stage.rate - (1.0 - step * smallest)) < 1e-10


def test_the_first_option_may_be_unstable_where_the_second_is_stable():
    problem, params, step = frozen_world()
    rates = [
        la.scaffold_stage(problem, params, local_steps=50, local_lr=step, option=option).rate
        for option in (1, 2)
    ]
    assert np.round(rates, 2).tolist() == [1.24, 0.9]
    gaps = [
        la.run(value_only(option, 1.0), problem, params, rounds=60, local_steps=50, local_lr=step,
               metrics=["gap"]).columns["gap"][-1]
        for option in (1, 2)
    ]  # fmt: skip
    assert gaps[0] > 1.0 > 1e-3 > gaps[1]


def test_large_steps_are_unstable_and_say_so(federation):
    problem, params, step = federation
    stage = la.scaffold_stage(problem, params, local_steps=5, local_lr=10 * step)
    assert not stage.stable
    assert stage.rounds_to(1e-6) == float("inf")
    assert repr(stage).startswith("ScaffoldStage(unstable, rate")
    beyond = la.scaffold_stage(problem, params, local_steps=5, local_lr=1e200)
    assert (beyond.rate, beyond.stable, beyond.rounds_to(1.0)) == (np.inf, False, np.inf)
    assert not np.isfinite(stage.after(10**4)).any()


def test_the_cost_does_not_grow_with_the_local_steps(federation):
    """S_i is ((I − (I − ηA)^E)/η)A⁻¹, and A⁻¹/η once the clients have settled."""
    problem, params, step = federation
    stage = la.scaffold_stage(problem, params, local_steps=10**9, local_lr=step)
    settled = np.linalg.inv(stage.stage.hessians) / step
    assert relative_error(stage._sums, settled) < 1e-9


def test_bad_arguments_are_refused(federation):
    problem, params, step = federation
    with pytest.raises(ValueError, match="option must be one of '1', '2', got '3'"):
        la.scaffold_stage(problem, params, local_steps=1, local_lr=step, option=3)
    with pytest.raises(ValueError, match="server_lr must be > 0"):
        la.scaffold_stage(problem, params, local_steps=1, local_lr=step, server_lr=0.0)
    with pytest.raises(ValueError, match="error must be > 0"):
        la.scaffold_stage(problem, params, local_steps=1, local_lr=step).rounds_to(0.0)
