"""The drift field and steps on the modified objective (C17), by differences and by limits."""

import numpy as np
import pytest
from bridge import READOUTS, make, relative_error

import linattn as la
from linattn.theory.modified import DriftGradients, modified_steps


def variance(problem, layout, flat):
    """½Σ p_i‖∇F_i − ∇F‖²."""
    params = la.Params(layout, flat)
    clients = [la.Joint(problem.subset([i])) for i in range(problem.num_clients)]
    slopes = np.stack([client.gradient(params).flat for client in clients])
    return 0.5 * float(problem.weights @ ((slopes - problem.weights @ slopes) ** 2).sum(axis=1))


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", READOUTS)
def test_the_drift_field_is_the_slope_of_the_variance_of_gradients(kind, readout):
    rng, *_, problem, params = make(2, kind, num_clients=3, readout=readout)
    slope, field = DriftGradients(problem)(params)
    assert relative_error(slope, la.Joint(problem).gradient(params).flat) < 1e-13
    for _ in range(3):
        move = 1e-5 * rng.normal(size=field.size)
        ends = [variance(problem, params.layout, params.flat + t * move) for t in (1, -1)]
        assert field @ move == pytest.approx(0.5 * (ends[0] - ends[1]), rel=1e-6)


def test_without_drift_they_are_steps_on_the_objective(small_problem, small_params):
    how = {"count": 3, "step_size": 0.05}
    same, params = la.pool(small_problem), small_params
    central = la.run(la.fed_avg(), same, params, rounds=3, local_steps=1, local_lr=0.05).params
    drifting = modified_steps(same, params, drift_number=0.1, **how)  # identical clients
    assert relative_error(drifting.flat, central.flat) < 1e-13
    plain, drifted = (modified_steps(small_problem, params, drift_number=s, **how)
                      for s in (0.0, 0.1))  # fmt: skip
    joint, flat = la.Joint(small_problem), params.flat
    for _ in range(3):
        flat = flat - 0.05 * joint.gradient(la.Params(params.layout, flat)).flat
    assert relative_error(plain.flat, flat) < 1e-13
    assert np.linalg.norm(drifted.flat - plain.flat) > 1e-5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"count": 0}, "count must be an integer >= 1"), ({"step_size": 0.0}, "step_size must be > 0"),
     ({"drift_number": float("nan")}, "drift_number must be"),
     ({"params": la.Params.merged(np.eye(2), np.ones((2, 1)))}, "params must have")],
)  # fmt: skip
def test_refusals(small_problem, small_params, change, sentence):
    how = {"params": small_params, "count": 2, "step_size": 0.1, "drift_number": 0.1} | change
    with pytest.raises(ValueError, match=sentence):
        modified_steps(small_problem, how.pop("params"), **how)
