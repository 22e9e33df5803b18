"""Compiled values, gradients, Hessian products and normal equations against their NumPy twins."""

import numpy as np
import pytest

import linattn as la
from linattn.objectives.clients import (
    client_gradients,
    client_products,
    client_systems,
    merged_shape,
    shape_of,
)
from linattn.objectives.forms import SequenceForm
from linattn.objectives.packing import moment_data, sequence_data

# Below and above the number of channels where products replace loops; one block and several.
SIZES = [(3, 2, (4, 1, 7)), (6, 4, (180, 3)), (13, 5, (70, 2)), (4, 9, (150,))]


def instance(readout, heads, size):
    dim, outputs, counts = size
    rng = np.random.default_rng(3)
    queries = {"token": 4, "mean": 1, "queries": 3}[readout]
    clients = [
        (rng.normal(size=(n, 4, dim)), rng.normal(size=(n, queries, outputs))) for n in counts
    ]
    if readout == "queries":
        clients = [(*client, rng.normal(size=(len(client[0]), 3, dim))) for client in clients]
    problem = la.problem_from_tokens(clients, readout=readout, value_ridge=0.1, kernel_ridge=0.2)
    blocks = [rng.normal(size=(heads, dim, w)) for w in (dim, outputs, dim, outputs)]
    return problem, blocks


def packed(problem, heads, form):
    return sequence_data(problem) if form == "sequences" else moment_data(problem, heads == 1)


def twins(problem):
    """The NumPy form of every client."""
    for i in range(problem.num_clients):
        held = problem.statistics.take(problem.client(i))
        yield SequenceForm(held, np.full(len(held.energy), 1.0 / len(held.energy)))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.fixture(params=["sequences", "moments"])
def form(request):
    return request.param


@pytest.mark.parametrize("readout", ["token", "mean", "queries"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"d{size[0]}")
def test_against_numpy(readout, heads, size, form):
    if form == "moments" and size[0] > 6:
        pytest.skip("moments of many channels are too large")
    problem, (kernel, value, kernel_direction, value_direction) = instance(readout, heads, size)
    data, everybody = packed(problem, heads, form), np.arange(problem.num_clients)
    flat = np.concatenate([kernel.reshape(-1), value.reshape(-1)])
    along = np.concatenate([kernel_direction.reshape(-1), value_direction.reshape(-1)])
    shape = shape_of(la.Params.merged(kernel, value).layout)
    losses, slopes = client_gradients(data, shape, everybody, flat[None])
    images = client_products(data, shape, everybody, flat[None], along[None])
    systems = client_systems(data, shape, kernel.reshape(1, -1), everybody)
    for i, twin in enumerate(twins(problem)):
        expected = twin.gradient(kernel, value)
        close(losses[i], expected.loss)
        close(slopes[i], np.concatenate([expected.kernel.reshape(-1), expected.value.reshape(-1)]))
        product = twin.hvp(kernel, value, kernel_direction, value_direction)
        close(images[i], np.concatenate([part.reshape(-1) for part in product]))
        equations = twin.normal_equations(kernel)
        close(systems.hessian[0, i], equations.hessian)
        close(systems.linear[0, i], equations.linear)
        assert np.array_equal(systems.hessian[0, i], systems.hessian[0, i].T)


def test_parts_that_are_not_wanted_are_zero(form):
    problem, (kernel, value, *_) = instance("token", 1, SIZES[1])
    data, flat = packed(problem, 1, form), np.concatenate([kernel.reshape(-1), value.reshape(-1)])
    shape, first = shape_of(la.Params.merged(kernel, value).layout), np.zeros(1, np.int64)

    def gradient(**wanted):
        return client_gradients(data, shape, first, flat[None], **wanted)[1][0]

    full, split = gradient(), kernel.size
    assert np.array_equal(gradient(value=False), np.where(np.arange(flat.size) < split, full, 0.0))
    assert np.array_equal(gradient(kernel=False), np.where(np.arange(flat.size) < split, 0.0, full))


def test_sums_over_many_clients_are_those_of_single_ones():
    """More clients than groups, so that several share a sum."""
    size = (3, 2, (2,) * 37)
    problem, (kernel, *_) = instance("token", 2, size)
    data, everybody = sequence_data(problem), np.arange(37)
    weights = np.random.default_rng(0).dirichlet(np.ones(37))
    shape, kernels = merged_shape(2, 3, 2), np.stack([kernel.reshape(-1), -kernel.reshape(-1)])
    single = client_systems(data, shape, kernels, everybody)
    grouped = client_systems(data, shape, kernels, everybody, weights)
    assert grouped.hessian.shape[1] < 37
    for n in range(2):
        close(grouped.hessian[n].sum(axis=0), np.tensordot(weights, single.hessian[n], 1))
        close(grouped.linear[n].sum(axis=0), np.tensordot(weights, single.linear[n], 1))
        alone = client_systems(data, shape, kernels[n : n + 1], everybody, weights)
        assert np.array_equal(alone.hessian[0], grouped.hessian[n])
