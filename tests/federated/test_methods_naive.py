"""Whole runs of the methods against loops written out for each of them."""

import numpy as np
import pytest
from bridge import relative_error
from method_cases import WEIGHTS, uneven_case

import linattn as la
from linattn.federated.method import RoundContext
from linattn.federated.methods.hypernetwork import make_hypernetwork
from linattn.federated.methods.moon import contrastive, directions
from linattn.federated.rounds import choose_participants
from linattn.oracles.statistics import StatisticsOracle

ROUNDS, STEPS = 6, 3
SHARES = pytest.mark.parametrize("participation", [1.0, 0.5])


class Loop:
    """Gradients of single clients, and who takes part with which weight."""

    def __init__(self, seed, participation):
        self.problem, self.params, self.step = uneven_case("factored", seed)
        self.alone = [la.Joint(self.problem.subset([i])) for i in range(4)]
        self.settings = {"participation": participation, "seed": 5}

    def gradient(self, client, flat):
        return self.alone[client].gradient(la.Params(self.params.layout, flat)).flat

    def rounds(self):
        for t in range(ROUNDS):
            chosen = choose_participants(4, self.settings["participation"], 5, t)
            yield t, chosen.tolist(), WEIGHTS[chosen] / WEIGHTS[chosen].sum()

    def descend(self, client, flat, extra=lambda flat: 0.0, mask=1.0):
        for _ in range(STEPS):
            flat = flat - self.step * mask * (self.gradient(client, flat) + extra(flat))
        return flat

    def run(self, method):
        return la.run(method, self.problem, self.params, rounds=ROUNDS, local_steps=STEPS,
                      local_lr=self.step, **self.settings)  # fmt: skip

    def check(self, method, reached, tolerance=1e-10):
        result = self.run(method)
        assert result.outcome.status == "completed"
        assert relative_error(result.params.flat, reached) < tolerance
        return result


@SHARES
@pytest.mark.parametrize(("option", "server_lr"), [(1, 1.0), (2, 1.0), (2, 0.7)])
def test_scaffold(option, server_lr, participation):
    loop = Loop(1, participation)
    x = loop.params.flat.copy()
    c, own = np.zeros_like(x), np.zeros((4, x.size))
    for _, chosen, weights in loop.rounds():
        ends, change = [], np.zeros_like(x)
        for i in chosen:
            end = loop.descend(i, x, lambda flat, i=i, c=c: c - own[i])
            new = loop.gradient(i, x) if option == 1 else own[i] - c + (x - end) / (
                STEPS * loop.step)  # fmt: skip
            change += WEIGHTS[i] * (new - own[i])
            own[i] = new
            ends.append(end)
        x = x + server_lr * (weights @ np.stack(ends) - x)
        c = c + change
    loop.check(la.scaffold(option=option, server_lr=server_lr), x)


@SHARES
def test_fed_prox(participation):
    loop = Loop(2, participation)
    x = loop.params.flat.copy()
    for _, chosen, weights in loop.rounds():
        ends = [loop.descend(i, x, lambda flat, x=x: 0.8 * (flat - x)) for i in chosen]
        x = weights @ np.stack(ends)
    loop.check(la.fed_prox(prox=0.8), x)


@SHARES
def test_moon_remembers_the_model_with_which_a_client_ended(participation):
    loop = Loop(3, participation)
    x, before = loop.params.flat.copy(), {}
    oracle = StatisticsOracle(loop.problem, loop.params.layout)
    for t, chosen, weights in loop.rounds():
        params = la.Params(loop.params.layout, x)
        context = RoundContext(
            t, params, np.array(chosen), weights, STEPS, loop.step, loop.problem, oracle
        )
        ends = []
        for i in chosen:
            previous = before.get(i, x)

            def pull(flat, i=i, previous=previous, context=context):
                toward = directions(context, i, previous)
                return 3.0 * contrastive(context, i, flat, toward, temperature=0.5)[1]

            ends.append(loop.descend(i, x, pull))
            before[i] = ends[-1]
        x = weights @ np.stack(ends)
    result = loop.check(la.moon(weight=3.0), x)
    assert relative_error(result.params.flat, loop.run(la.fed_avg()).params.flat) > 1e-4


@SHARES
def test_selective_averages_over_those_who_trained_a_block(participation):
    loop = Loop(4, participation)
    layout, x = loop.params.layout, loop.params.flat.copy()
    budgets = [1, 2, 1, 2]
    for _, chosen, weights in loop.rounds():
        ends, masks = [], []
        for i in chosen:
            gradient = loop.gradient(i, x)
            scores = {n: np.sum(gradient[part] ** 2) for n, part in layout.slices.items()}
            best = sorted(scores, key=scores.get)[-budgets[i] :]
            masks.append(best)
            ends.append(loop.descend(i, x, mask=layout.mask(best)))
        new = x.copy()
        for name, part in layout.slices.items():
            who = [k for k, best in enumerate(masks) if name in best]
            if who:
                share = weights[who] / weights[who].sum()
                new[part] = sum(w * ends[k][part] for w, k in zip(share, who, strict=True))
        x = new
    loop.check(la.selective(budget=budgets), x)


@SHARES
@pytest.mark.parametrize(("kind", "hidden"), [("linear", 0), ("mlp", 5)])
def test_fed_tp_with_jacobians_by_differences(kind, hidden, participation):
    loop = Loop(5, participation)
    layout, x = loop.params.layout, loop.params.flat.copy()
    mask = layout.mask(["query", "key"])
    z = 0.3 * np.random.default_rng(2).standard_normal((4, 3))
    network = make_hypernetwork(z, x[mask], hidden_dim=hidden, bias=True, seed=5)
    shapes = [a.shape for a in network]
    sizes = np.cumsum([0, *[a.size for a in network]])
    theta = np.concatenate([a.reshape(-1) for a in network])

    def generate(theta):
        parts = [theta[a:b].reshape(s) for a, b, s in zip(sizes, sizes[1:], shapes, strict=False)]
        rows = parts[0]
        if hidden:
            rows = np.maximum(rows @ parts[1] + parts[2], 0.0)
        return rows @ parts[3] + parts[4]

    velocity = np.zeros_like(theta)
    for _, chosen, weights in loop.rounds():
        made, gradient, ends = generate(theta), np.zeros_like(theta), []
        shifted = 1e-5 * np.eye(theta.size)
        jacobian = [(generate(theta + s) - generate(theta - s)) / 2e-5 for s in shifted]
        for i, weight in zip(chosen, weights, strict=True):
            start = x.copy()
            start[mask] = made[i]
            ends.append(loop.descend(i, start))
            move = weight * (made[i] - ends[-1][mask])
            gradient += np.array([j[i] @ move for j in jacobian])
        velocity = 0.4 * velocity + gradient
        theta = theta - 0.7 * velocity
        x = np.where(mask, 0.0, weights @ np.stack(ends))
        x[mask] = WEIGHTS @ generate(theta)
    method = la.fed_tp(
        hypernetwork=kind, embeddings=z, server_lr=0.7, server_momentum=0.4, hidden_dim=5
    )
    result = loop.check(method, x, tolerance=1e-8)
    for own, expected in zip(result.client_params, generate(theta), strict=True):
        assert relative_error(own.flat[mask], expected) < 1e-8
