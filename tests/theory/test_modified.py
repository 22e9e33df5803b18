"""Steps on the modified objective (C17), by Hessian products and by limits."""

import numpy as np
import pytest
from bridge import READOUTS, make, relative_error

import linattn as la
from linattn.theory.modified import modified_steps


@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize("readout", READOUTS)
def test_against_hessian_products_of_every_client(kind, readout):
    *_, problem, params = make(2, kind, num_clients=3, readout=readout)
    size = 0.3 * la.safe_step(problem, params)
    found = modified_steps(problem, params, count=3, step_size=size, drift_number=2.0 * size)
    clients, at = [la.Joint(problem.subset([i])) for i in range(3)], params
    for _ in range(3):
        slopes = np.stack([client.gradient(at).flat for client in clients])
        mean = problem.weights @ slopes
        away = [la.Params(at.layout, row) for row in slopes - mean]
        curved = [client.hvp(at, row).flat for client, row in zip(clients, away, strict=True)]
        pull = mean - 2.0 * size * (problem.weights @ np.stack(curved))
        at = la.Params(at.layout, at.flat - size * pull)
    assert relative_error(found.flat, at.flat) < 1e-12


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
