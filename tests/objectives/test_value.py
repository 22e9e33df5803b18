"""The value block: a quadratic with the twin's matrices."""

import numpy as np
import pytest
import reference as ref
from bridge import kinds, make, over, readouts, relative_error, seeds

import linattn as la

cases = over(seeds, kinds, readouts)


@cases
def test_everything_against_the_twin(seed, kind, readout):
    rng, inst, theta, V, problem, params = make(seed, kind, readout=readout)
    block = la.ValueBlock(problem, params)
    assert relative_error(block.hessian, ref.value_matrix(inst, theta)) < 1e-9
    assert relative_error(block.linear, ref.value_linear(inst, theta)) < 1e-9
    assert relative_error(block.minimizer(), ref.minimizer(inst, theta)) < 1e-8
    for value in (V, rng.standard_normal(V.shape)):
        assert block.value(value) == pytest.approx(ref.objective(inst, theta, value), rel=1e-9)
        assert relative_error(block.gradient(value), ref.gradient(inst, theta, value)[1]) < 1e-8
        assert block.gap(value) == pytest.approx(ref.gap(inst, theta, value), rel=1e-8)


@cases
def test_it_is_the_joint_objective_at_a_fixed_kernel(seed, kind, readout):
    *_, problem, params = make(seed, kind, readout=readout)
    block, joint = la.ValueBlock(problem, params), la.Joint(problem)
    assert block.value(params.value) == pytest.approx(joint.value(params), rel=1e-9)
    assert relative_error(block.gradient(params.value), joint.gradient(params).value) < 1e-8
    assert block.gap(params.value) == pytest.approx(joint.gap(params), rel=1e-12)
    assert block.value(block.minimizer()) == pytest.approx(
        la.KernelProfile(problem).value(params), rel=1e-9
    )


@cases
def test_the_gradient_against_differences(seed, kind, readout):
    rng, *_, problem, params = make(seed, kind, readout=readout)
    block, W = la.ValueBlock(problem, params), rng.standard_normal(params.value.shape)
    slope = 0.5 * (block.value(params.value + W) - block.value(params.value - W))
    scale = block.value(params.value + W) + block.value(params.value - W)
    assert abs(slope - np.vdot(block.gradient(params.value), W)) < 1e-12 * scale


def test_one_head_may_leave_out_the_leading_axis(small_problem):
    params = la.initial_params(small_problem, value="normal")
    block = la.ValueBlock(small_problem, params)
    assert block.value(params.value[0]) == block.value(params.value)
    assert block.gradient(params.value[0]).shape == params.value.shape


def test_other_shapes_are_refused(small_problem, small_params):
    block = la.ValueBlock(small_problem, small_params)
    value = small_params.value
    for wrong in (value[0], value.transpose(0, 2, 1), value.reshape(-1, 2), value.reshape(-1)):
        for call in (block.value, block.gradient, block.gap):
            with pytest.raises(ValueError, match=r"value must have shape \(2, 3, 2\)"):
                call(wrong)
    with pytest.raises(ValueError, match="value must be finite"):
        block.value(np.full(value.shape, np.nan))
    with pytest.raises(TypeError, match="value must be float64 or integer"):
        block.value(value.astype(np.float32))
    assert repr(block) == "ValueBlock(2 heads, dim 3, 2 outputs)"
