"""Twenty rounds of Flower's strategies, in process, give the parameters of the methods here."""

import numpy as np
import pytest

import linattn as la

pytest.importorskip("flwr", reason="Flower has an environment of its own: constraints-flower.txt")
flower = pytest.importorskip("peers_flower")

ROUNDS, WARMUP = 20, 7
SIZES = [4, 9, 1, 6, 12]
ADAM = {"server_lr": 0.02, "beta1": 0.8, "beta2": 0.95, "tau": 1e-3}
THEIRS = {"eta": 0.02, "beta_1": 0.8, "beta_2": 0.95, "tau": 1e-3}
WORK = [
    {"local_steps": 5, "local_lr": 0.2},
    {"local_steps": 3, "local_lr": 0.15, "batch_size": 4, "participation": 0.5, "seed": 3},
]


@pytest.fixture(scope="module", params=["merged", "factored"])
def start(request):
    tokens = np.random.default_rng(4).standard_normal
    data = [
        (0.6 * tokens((size, 6, 3)) + 0.1 * k, tokens((size, 6, 2))) for k, size in enumerate(SIZES)
    ]
    problem = la.problem_from_tokens(data, value_ridge=0.05, kernel_ridge=0.01)
    return problem, la.initial_params(problem, scale=0.7, kernel=request.param, seed=1)


def theirs(name, layout):
    """A strategy of Flower, and the method here that it should be."""
    online = flower.ONLINE
    values = layout.value_blocks
    return {
        "fed_avg": lambda: (flower.FedAvg(**online), la.fed_avg()),
        "fed_prox": lambda: (flower.FedProx(proximal_mu=0.8, **online), la.fed_prox(prox=0.8)),
        "scaffold": lambda: (
            flower.Scaffold(layout, server_lr=0.7, **online),
            la.scaffold(server_lr=0.7),
        ),
        "fed_frozen": lambda: (
            flower.FedFrozen(WARMUP, values, **online),
            la.fed_frozen(warmup_rounds=WARMUP),
        ),
        "fed_adam": lambda: (flower.FedAdam(**THEIRS, **online), corrected_adam(**ADAM)),
        "fed_adam as published": lambda: (
            flower.PublishedFedAdam(**THEIRS, **online),
            la.fed_adam(**ADAM),
        ),
    }[name]()


def corrected_adam(*, server_lr, beta1, beta2, tau):
    """FedAdam with v from zero and the bias correction of Adam, one round ahead of it."""

    def aggregate(context, memory, proposal):
        flat, (first, second), t = context.params.flat, memory, context.round + 2
        move = proposal.mean - flat
        first = beta1 * first + (1 - beta1) * move
        second = beta2 * second + (1 - beta2) * move**2
        step = server_lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
        return flat + step * first / (np.sqrt(second) + tau), (first, second)

    zeros = lambda context: (np.zeros(context.params.layout.size),) * 2  # noqa: E731
    return la.Method("corrected adam", server_memory=zeros, aggregate=aggregate)


def both(name, start, work):
    problem, params = start
    strategy, method = theirs(name, params.layout)
    flat, grid = flower.run(strategy, problem, params, rounds=ROUNDS, work=flower.Work(**work))
    return flat, grid, la.run(method, problem, params, rounds=ROUNDS, **work)


@pytest.mark.parametrize("work", WORK, ids=["everybody", "sampled"])
@pytest.mark.parametrize(
    "name", ["fed_avg", "fed_prox", "scaffold", "fed_frozen", "fed_adam", "fed_adam as published"]
)
def test_twenty_rounds_are_the_same(name, start, work):
    flat, grid, ours = both(name, start, work)
    moved = np.abs(ours.params.flat - start[1].flat).max()
    assert moved > 0.05
    np.testing.assert_allclose(flat, ours.params.flat, rtol=0.0, atol=1e-12)
    assert grid.floats_up == ours.history["floats_up"].values[1:].tolist()


def test_their_fed_adam_is_not_the_published_one(start):
    problem, params = start
    work = WORK[0]
    flat, _, published = both("fed_adam", start, work)
    published = la.run(la.fed_adam(**ADAM), problem, params, rounds=ROUNDS, **work)
    assert np.abs(flat - published.params.flat).max() > 1e-3
