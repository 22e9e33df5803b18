"""MOON's contrastive term: value, representation and gradient by three routes."""

import gc
import weakref

import numpy as np
import pytest
from bridge import make, relative_error
from method_cases import deep_case

import linattn as la
from linattn.federated.method import RoundContext
from linattn.federated.methods.moon import contrastive, directions
from linattn.oracles.deep import DeepOracle
from linattn.oracles.statistics import StatisticsOracle

TEMPERATURE = 0.4


def context_of(problem, params, oracle):
    everyone = np.arange(problem.num_clients)
    return RoundContext(0, params, everyone, problem.weights, 1, 0.1, problem, oracle)


def instance(kind, readout, seed):
    """(context, tokens per client, previous model, model) with all models different."""
    rng = np.random.default_rng(seed)
    if kind == "deep":
        problem, params = deep_case(seed, readout=readout)
        oracle = DeepOracle(problem)
        tokens = None
    else:
        _, inst, *_, problem, params = make(seed, kind, num_clients=2, readout=readout)
        oracle = StatisticsOracle(problem, params.layout)
        tokens = [[X for X, _ in client] for client in inst.clients]
    models = [params.flat + 0.3 * rng.standard_normal(params.layout.size) for _ in range(2)]
    return context_of(problem, params, oracle), tokens, *models


def features(params, tokens, readout):
    """U B_h G of a sequence, all heads and queries in one vector."""
    gram = tokens.T @ tokens / len(tokens)
    rows = {"token": tokens, "mean": tokens.mean(axis=0)[None], "last": tokens[-1:]}[readout]
    return np.concatenate([(rows @ B @ gram).reshape(-1) for B in params.kernels()])


def term(context, client, own, flat, batch=None):
    """Value and gradient at `flat` beside the previous model `own`."""
    toward = directions(context, client, own, batch)
    return contrastive(context, client, flat, toward, batch=batch, temperature=TEMPERATURE)


def by_definition(z, z_glob, z_own):
    def cos(a, b):
        return a @ b / np.sqrt((a @ a) * (b @ b))

    s = np.array([cos(z, z_glob), cos(z, z_own)]) / TEMPERATURE
    return -np.log(np.exp(s[0]) / np.exp(s).sum())


@pytest.mark.parametrize("readout", ["token", "mean", "last"])
@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_value_from_tokens(kind, readout):
    context, tokens, own, flat = instance(kind, readout, 1)
    models = [la.Params(context.params.layout, w) for w in (flat, context.params.flat, own)]
    for client, sequences in enumerate(tokens):
        expected = np.mean(
            [by_definition(*(features(m, x, readout) for m in models)) for x in sequences]
        )
        value, _ = term(context, client, own, flat)
        assert value == pytest.approx(expected, rel=1e-10)


def test_value_of_the_deep_model():
    context, _, own, flat = instance("deep", "token", 2)
    model, layout = context.problem.model, context.params.layout
    batch = np.array([0, 2])
    lists = [
        [z for g in context.problem.rows(1, batch) for z in np.asarray(model.features(
            la.Params(layout, w), context.problem.groups[g[0]].tokens[g[1]]))]
        for w in (flat, context.params.flat, own)
    ]  # fmt: skip
    expected = np.mean([by_definition(*(z.reshape(-1) for z in zs)) for zs in zip(*lists,
                        strict=True)])  # fmt: skip
    value, _ = term(context, 1, own, flat, batch)
    assert value == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("readout", ["token", "mean", "last"])
@pytest.mark.parametrize("kind", ["merged", "factored", "deep"])
def test_gradient_against_differences_of_the_value(kind, readout):
    context, _, own, flat = instance(kind, readout, 3)
    rng = np.random.default_rng(0)
    for batch in (None, np.array([1])):

        def value(w, batch=batch):
            return term(context, 1, own, w, batch)[0]

        _, gradient = term(context, 1, own, flat, batch)
        assert np.linalg.norm(gradient) > 1e-6
        for _ in range(3):
            direction = rng.standard_normal(flat.size)
            sizes, errors = np.array([1e-2, 1e-3]), []
            for t in sizes:
                change = value(flat + t * direction) - value(flat - t * direction)
                errors.append(abs(change / (2 * t) - gradient @ direction))
            # Central differences err by t²; a wrong gradient does not improve with t.
            assert errors[1] < 0.05 * errors[0] + 1e-9


def test_the_first_participation_has_no_term_and_a_zero_representation_no_gradient():
    context, _, _, _ = instance("merged", "token", 4)
    start = context.params.flat
    value, gradient = term(context, 0, start, start + 0.1)
    assert value == pytest.approx(np.log(2.0))
    assert np.max(np.abs(gradient)) < 1e-15
    zero = np.where(context.params.layout.mask(["kernel"]), 0.0, start)
    assert (term(context, 0, start, zero)[1] == 0).all()


def test_the_value_block_of_one_layer_does_not_feel_it():
    context, _, own, flat = instance("factored", "mean", 5)
    _, gradient = term(context, 0, own, flat)
    assert (gradient[context.params.layout.mask(["value"])] == 0).all()
    assert (gradient[context.params.layout.mask(["query"])] != 0).any()


def test_a_method_keeps_nothing_of_a_run_that_is_over():
    problem, params = deep_case(7)
    method = la.moon(weight=0.5)
    la.run(method, problem, params, rounds=2, local_steps=2, local_lr=0.02)
    held = weakref.ref(problem)
    del problem, params
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("feature_map", ["identity", "relu"])
def test_against_automatic_differentiation(feature_map):
    torch = pytest.importorskip("torch")
    problem, params = deep_case(6, feature_map=feature_map)
    rng = np.random.default_rng(1)
    own, flat = (params.flat + 0.2 * rng.standard_normal(params.layout.size) for _ in range(2))
    context = context_of(problem, params, DeepOracle(problem))
    _, gradient = term(context, 2, own, flat)
    phi = torch.relu if feature_map == "relu" else (lambda z: z)

    def represent(w, x):
        def block(name):
            return w[params.layout.slices[name]].reshape(params.layout.shapes[name])

        for k in range(problem.model.num_layers):
            query, key, value = (block(f"layer{k}.{n}") for n in ("query", "key", "value"))
            heads = [phi(x @ query[h]) @ phi(x @ key[h]).T @ x @ value[h] for h in range(2)]
            x = x + sum(heads) / len(x)
        return x.reshape(-1)

    leaf = torch.tensor(flat, requires_grad=True)
    fixed = [torch.tensor(np.array(w)) for w in (params.flat, own)]
    losses = []
    for k, part in problem.rows(2):
        for tokens in problem.groups[k].tokens[part]:
            x = torch.tensor(np.array(tokens))
            z, there, before = (represent(w, x) for w in (leaf, *fixed))
            s = torch.stack(
                [torch.nn.functional.cosine_similarity(z, o, dim=0) for o in (there, before)]
            )
            losses.append(-torch.log_softmax(s / TEMPERATURE, dim=0)[0])
    torch.stack(losses).mean().backward()
    assert relative_error(gradient, leaf.grad.numpy()) < 1e-10
