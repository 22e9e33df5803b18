"""The bias of local steps is linear in the step size, and extrapolation leaves its square.

A constant step size moves the fixed point of FedAvg on heterogeneous clients by (η(E − 1)/2)
H⁻¹Σp H_i g_i to first order, and 2θ(η) − θ(2η) has none of it (Mangold, Durmus, Dieuleveut,
Samsonov and Moulines, arXiv 2412.01389). Here on the value block at a frozen kernel, in closed form
(C7), by the twin's dense powers and by explicit rounds; and on the whole model, which is not
quadratic, by explicit rounds.
"""

import re
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import reference as ref
from bridge import make, relative_error
from method_cases import log_slope
from pages import NOTES
from worlds import world

import linattn as la

LOCAL_STEPS = 5
SIZES = 2.0 ** -np.arange(4)
"""Halved step sizes; every one but the first extrapolates with its double."""


def fitted(places, minimizer):
    """Slopes in η of the distances of fixed points, plain and extrapolated."""
    plain = [np.linalg.norm(place - minimizer) for place in places[1:]]
    beyond = [np.linalg.norm(2 * a - b - minimizer) for b, a in pairwise(places)]
    return tuple(log_slope(SIZES[1:], distances) for distances in (plain, beyond))


@lru_cache(maxsize=1)
def frozen():
    """The twin, the problem, the kernel and step sizes with ηL ≤ .02."""
    _, inst, theta, _, problem, params = make(14, value_ridge=0.3, heterogeneity=(0.5, 0.5, 1.0))
    top = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0).largest_step_curvature
    return inst, theta, problem, params, 0.02 / top * SIZES


def stage_at(eta, local_steps=LOCAL_STEPS):
    _, _, problem, params, _ = frozen()
    return la.frozen_stage(problem, params, local_steps=local_steps, local_lr=eta)


def by_closed_form():
    *_, etas = frozen()
    stages = [stage_at(eta) for eta in etas]
    return [stage.fixed_point for stage in stages], stages[0].minimizer


def by_dense_powers():
    inst, theta, *_, etas = frozen()
    naive = [
        ref.frozen_quantities(inst, theta, local_steps=LOCAL_STEPS, step_size=eta) for eta in etas
    ]
    return [one.fixed_point for one in naive], naive[0].minimizer


def by_rounds():
    """Rounds until the start is forgotten to rounding."""
    _, _, problem, params, etas = frozen()
    places = []
    for eta in etas:
        rounds = int(np.ceil(np.log(1e-16) / np.log(stage_at(eta).rate)))
        run = la.run(
            la.fed_frozen(warmup_rounds=0), problem, params,
            rounds=rounds, local_steps=LOCAL_STEPS, local_lr=eta, metrics=[],
        )  # fmt: skip
        places.append(run.params.value)
    return places, la.ValueBlock(problem, params).minimizer()


@lru_cache(maxsize=1)
def whole():
    """A problem and a stationary point of the whole model: one local step has no drift."""
    problem = world(num_clients=3, sequences_per_client=5, num_tokens=6, dim=2,
                    covariate_heterogeneity=0.5, value_heterogeneity=1.0, value_ridge=0.3,
                    kernel_ridge=0.3)  # fmt: skip
    start = la.initial_params(problem, value="minimizer", seed=1)
    return problem, fed_avg_at(problem, start, 1, 0.05, 4000)


def fed_avg_at(problem, start, local_steps, eta, rounds):
    run = la.run(
        la.fed_avg(), problem, start,
        rounds=rounds, local_steps=local_steps, local_lr=eta, metrics=[],
    )  # fmt: skip
    return run.params


@lru_cache(maxsize=1)
def by_rounds_of_the_whole_model():
    problem, rest = whole()
    places = [
        fed_avg_at(problem, rest, LOCAL_STEPS, eta, int(30 / eta)).flat for eta in 0.008 * SIZES
    ]
    return places, rest.flat


ROUTES = {
    "closed form": by_closed_form,
    "dense powers": by_dense_powers,
    "explicit rounds": by_rounds,
    "explicit rounds, whole model": by_rounds_of_the_whole_model,
}


@pytest.mark.parametrize("route", ROUTES)
def test_linear_before_and_quadratic_after(route):
    plain, beyond = fitted(*ROUTES[route]())
    assert plain == pytest.approx(1.0, abs=0.03)
    assert beyond == pytest.approx(2.0, abs=0.06)
    notes = NOTES.read_text(encoding="utf-8")
    told = re.search(rf"^\| {route} \| ([\d.]+) \| ([\d.]+) \|$", notes, re.M)
    assert told is not None, f"the notes lack the slopes of {route}"
    assert (plain, beyond) == pytest.approx([float(text) for text in told.groups()], abs=0.006)


def test_the_stationary_point_is_one():
    problem, rest = whole()
    assert np.linalg.norm(la.Joint(problem).gradient(rest).flat) < 1e-13
    assert np.linalg.norm(rest.kernel) > 0.1


def test_the_linear_part_is_the_published_one():
    """(η(E − 1)/2) H⁻¹ Σp H_i g_i with H_i from the twin, not from the stage that is compared."""
    inst, theta, _, _, etas = frozen()
    star = ref.frozen_quantities(inst, theta, local_steps=1, step_size=1.0).minimizer
    hessians = [ref.client_matrix(inst, i, theta) for i in range(len(inst.weights))]
    naive = ref.frozen_quantities(inst, theta, local_steps=1, step_size=1.0)
    pull = sum(
        p * h @ (h @ star - c)
        for p, h, c in zip(inst.weights, hessians, naive.linears, strict=True)
    )
    mean = sum(p * h for p, h in zip(inst.weights, hessians, strict=True))
    published = 0.5 * etas[-1] * (LOCAL_STEPS - 1) * np.linalg.solve(mean, pull)
    stage = stage_at(etas[-1])
    assert relative_error(ref.stack(stage.first_order_bias), published) < 1e-9
    assert relative_error(ref.stack(stage.bias), published) < 5e-3


def test_the_linear_part_of_the_whole_model():
    """s·u_∞ of the drift response, from second derivatives and no run."""
    problem, rest = whole()
    settled = la.drift_response(problem, la.initial_params(problem), 1.0).settled(rest)
    places, _ = by_rounds_of_the_whole_model()
    number = 0.5 * 0.008 * SIZES[-1] * (LOCAL_STEPS - 1)
    assert relative_error(places[-1] - rest.flat, number * settled) < 2e-2


def test_extrapolation_in_vain_without_drift():
    """One local step has nothing to extrapolate, whatever the step size."""
    *_, etas = frozen()
    stages = [stage_at(eta, local_steps=1) for eta in etas[:2]]
    beyond = 2 * stages[1].fixed_point - stages[0].fixed_point
    assert np.array_equal(beyond, stages[0].minimizer)


def test_minibatches_move_no_mean_on_a_quadratic():
    """The other part of the published bias is in third derivatives, and here there are none."""
    _, _, problem, params, etas = frozen()
    moments = la.frozen_moments(
        problem, params, local_steps=LOCAL_STEPS, local_lr=etas[0], batch_size=1
    )
    assert moments.noise_floor > 0.0
    rounds = int(np.ceil(np.log(1e-16) / np.log(moments.mean_rate)))
    assert relative_error(moments.mean(rounds), stage_at(etas[0]).fixed_point) < 1e-10
