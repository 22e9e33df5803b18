"""Deep local steps of all participants at once are those of one after the other."""

import numpy as np
import pytest
from bridge import same_bits
from method_cases import deep_case

import linattn as la
from linattn.oracles import deep
from linattn.oracles.deep import DeepOracle
from linattn.oracles.protocol import LocalTask, explicit_steps


def even_case(readout, feature_map, clients=4, sequences=3, length=5):
    model = la.DeepAttention(num_layers=2, dim=3, inner_dim=2, num_outputs=2, num_heads=2,
                             feature_map=feature_map, readout=readout)  # fmt: skip
    rng = np.random.default_rng(0)
    rows = length if readout == "token" else 1
    data = [
        (rng.standard_normal((sequences, length, 3)), rng.standard_normal((sequences, rows, 2)))
        for _ in range(clients)
    ]
    problem = la.deep_problem(model, data, ridge={"kernel": 0.03, "value": 0.05})
    return problem, model.initial_params(scale=0.5, seed=0)


def task_of(params, *, record):
    """Three of the clients from different points, parts of them masked, drawn and shifted."""
    rng = np.random.default_rng(1)
    shape = (3, params.layout.size)
    return LocalTask(
        np.array([0, 2, 3]), params.flat + 0.1 * rng.standard_normal(shape), params.flat,
        rng.random(shape) < 0.8, 4, 0.05, 0.3, 0.1 * rng.standard_normal(shape), None, record,
    )  # fmt: skip


@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("feature_map", ["identity", "relu"])
@pytest.mark.parametrize("readout", ["token", "mean", "last"])
def test_participants_step_together_to_the_bit(readout, feature_map, gated, record):
    problem, params = even_case(readout, feature_map)
    structural = params.replace(readout=2.0 * params["readout"]) if gated else None
    oracle, task = DeepOracle(problem, structural=structural), task_of(params, record=record)
    assert oracle._even_gradients(task) is not None
    ends, trace = oracle.train(task)
    expected, steps = explicit_steps(oracle, task)
    assert same_bits(ends, expected)
    assert (trace is None) == (not record)
    if record:
        assert all(same_bits(a, b) for a, b in zip(trace, steps, strict=True))


def test_only_equally_many_sequences_of_one_length_on_full_batches_step_together(monkeypatch):
    ragged, start = deep_case()
    assert DeepOracle(ragged)._even_gradients(task_of(start, record=False)) is None
    problem, params = even_case("token", "relu")
    oracle, task = DeepOracle(problem), task_of(params, record=False)
    batches = [np.zeros((4, 2), dtype=np.int64)] * 3
    assert oracle._even_gradients(task._replace(batches=batches)) is None
    monkeypatch.setattr(deep, "FEW_NUMBERS", 3 * 3 * 5 * 3 - 1)
    assert oracle._even_gradients(task) is None
    monkeypatch.setattr(deep, "FEW_NUMBERS", 3 * 3 * 5 * 3)
    assert oracle._even_gradients(task) is not None
