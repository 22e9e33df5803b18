"""Whatever the layout of an array in memory: the same numbers, by code that is compiled once."""

import numpy as np
import pytest

from linattn._kernels.local import train, train_values
from linattn._kernels.second_order import products, systems
from linattn._kernels.solve import solve
from linattn.objectives.clients import NormalEquations, solve_systems
from linattn.oracles.protocol import LocalTask
from linattn.theory.drift_field import DriftField

COMPILED = (train, train_values, products, systems, solve)
LAYOUTS = {
    "Fortran": np.asfortranarray,
    "every second": lambda array: np.repeat(array, 2, axis=0)[::2],
    "backwards": lambda array: array[::-1].copy()[::-1],
    "columns of more": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "read-only": lambda array: frozen(array.copy()),
}


def frozen(array):
    array.flags.writeable = False
    return array


def answers(problem, params, points, lay):
    """What every compiled function answers to arrays of some layout."""
    oracle, split = problem.oracle(params), params.layout.slices["value"]
    clients = np.arange(len(points)) % problem.num_clients
    task = LocalTask.plain(lay(clients), lay(points), local_steps=3, local_lr=0.05)
    task = task._replace(record=True)
    task = task._replace(
        prox=0.1, anchor=lay(task.anchor), shift=lay(0.01 * points), mask=lay(task.mask)
    )
    ends, trace = oracle.train(task)
    kernel_only = np.tile(points[0], (len(points), 1))
    kernel_only[:, split] = points[:, split]
    only_values = np.zeros(task.mask.shape, dtype=bool)
    only_values[:, split] = True
    values, _ = oracle.train(
        task._replace(starts=lay(kernel_only), mask=lay(only_values), record=False)
    )
    field = DriftField(problem, params, problem.weights, np.ones(problem.num_clients))
    yield from (ends, *trace, values, field.gradients(lay(points)), field.hessian(lay(points[0])))
    matrices = np.stack([(k + 1.0) * np.eye(3) + 0.1 for k in range(4)])
    yield from solve_systems(NormalEquations(lay(matrices), lay(matrices[:, :, :2].copy())), 0.1)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_numbers_of_the_plain_one(small_problem, small_params, name):
    """Numba 0.60 computed others from points in Fortran's order, and not always the same ones."""
    shifts = 0.1 * np.random.default_rng(0).normal(size=(7, small_params.flat.size))
    points = small_params.flat + shifts
    plain = list(answers(small_problem, small_params, points, np.ascontiguousarray))
    known = [set(function.signatures) for function in COMPILED]
    for _ in range(5):
        found = answers(small_problem, small_params, points, LAYOUTS[name])
        for one, other in zip(plain, found, strict=True):
            assert np.array_equal(one, other)
    assert [set(function.signatures) for function in COMPILED] == known


def test_points_of_many_layouts_are_those_of_their_rows(small_problem, small_params):
    field = DriftField(small_problem, small_params, small_problem.weights, np.ones(4))
    rng = np.random.default_rng(1)
    for k in range(40):
        points = small_params.flat + 0.1 * rng.normal(size=(7, small_params.flat.size))
        laid = list(LAYOUTS.values())[k % len(LAYOUTS)](points)
        alone = np.stack([field.gradient(row.copy()) for row in points])
        assert np.array_equal(field.gradients(laid), alone)
