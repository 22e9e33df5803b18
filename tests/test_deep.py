"""The deep model against token loops, the single-layer model, finite differences, autograd."""

import itertools
import pickle
import warnings

import numpy as np
import pytest
from bridge import relative_error, same_bits

import linattn as la

READOUTS, MAPS = ("token", "mean", "last"), ("identity", "relu")
LENGTHS = (4, 2, 4, 1)
AXES = {
    "readout": READOUTS,
    "feature_map": MAPS,
    "residual": (False, True),
    "num_layers": (1, 2, 3),
}
CASES = [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())]
cases = pytest.mark.parametrize(
    "options", CASES, ids=lambda case: "-".join(map(str, case.values()))
)


def build(seed=0, *, lengths=LENGTHS, dim=3, outputs=2, **options):
    """A model, parameters, ragged sequences and targets."""
    rng = np.random.default_rng(seed)
    sizes = {"num_layers": 2, "inner_dim": 2, "num_heads": 2} | options
    model = la.DeepAttention(dim=dim, num_outputs=outputs, **sizes)
    params = model.initial_params(scale=1.2, seed=seed)
    tokens = [rng.standard_normal((n, dim)) for n in lengths]
    targets = [
        rng.standard_normal((len(x) if model.readout == "token" else 1, outputs)) for x in tokens
    ]
    return rng, model, params, tokens, targets


def naive_predict(model, params, x):
    """One sequence, token by token, with every entry of the attention matrix."""
    relu = model.feature_map == "relu"
    for layer in range(model.num_layers):
        out = np.array(x) if model.residual else np.zeros_like(x)
        names = (f"layer{layer}.{part}" for part in ("query", "key", "value"))
        for query, key, value in zip(*(params[name] for name in names), strict=True):
            for a, b in np.ndindex(len(x), len(x)):
                left, right = x[a] @ query, x[b] @ key
                if relu:
                    left, right = np.maximum(left, 0), np.maximum(right, 0)
                out[a] += float(left @ right) * (x[b] @ value) / len(x)
        x = out
    read = {"token": x, "mean": x.mean(axis=0)[None], "last": x[-1:]}[model.readout]
    return read @ params["readout"]


def losses(model, params, tokens, targets):
    """Σ_s (1/2q)‖Ŷ − Y‖² and its gradient in the predictions."""
    errors = [y - t for y, t in zip(model.predict(params, tokens), targets, strict=True)]
    total = sum(0.5 * np.vdot(e, e) / len(e) for e in errors)
    return total, [e / len(e) for e in errors]


def numerical(function, flat, step):
    """Central differences."""
    moves = step * np.eye(flat.size)
    return np.array([function(flat + h) - function(flat - h) for h in moves]) / (2 * step)


# ------------------------------------------------------------------------ forward


@cases
def test_predictions_are_those_of_the_token_loops(options):
    _, model, params, tokens, _ = build(1, **options)
    predictions = model.predict(params, tokens)
    for x, predicted in zip(tokens, predictions, strict=True):
        assert relative_error(predicted, naive_predict(model, params, x)) < 1e-12
    features = model.features(params, tokens)
    for u, predicted in zip(features, predictions, strict=True):
        assert relative_error(u @ params["readout"], predicted) < 1e-14


def test_ragged_sequences_are_lists_and_equal_ones_arrays():
    _, model, params, tokens, _ = build()
    ragged = model.predict(params, tokens)
    assert [y.shape for y in ragged] == [(n, 2) for n in LENGTHS]
    same = model.predict(params, [tokens[0], tokens[2]])
    assert same.shape == (2, 4, 2)
    assert relative_error(same[1], ragged[2]) < 1e-14
    _, pooled, params, tokens, _ = build(readout="mean")
    assert pooled.predict(params, tokens).shape == (4, 1, 2)


# ------------------------------------------------------------------------ one layer


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("readout", READOUTS)
def test_one_layer_is_the_single_layer_model(readout, heads):
    """Predictions, F and the gradient by the chain rule with V = W_V W_O."""
    _, model, params, tokens, targets = build(3, num_layers=1, num_heads=heads, readout=readout)
    query, key, value = (params[f"layer0.{name}"] for name in ("query", "key", "value"))
    readout_weights = params["readout"]
    single = la.Params.factored(query, key, value @ readout_weights)
    for deep, flat in zip(
        model.predict(params, tokens), la.predict(single, tokens, readout=readout), strict=True
    ):
        assert relative_error(deep, flat) < 1e-13
    assert relative_error(
        model.loss(params, tokens, targets), la.loss(single, tokens, targets, readout=readout)
    ) < 1e-13  # fmt: skip

    clients = [(tokens[:3], targets[:3]), (tokens[3:], targets[3:])]
    mu, lam = 0.3, 0.2
    problem = la.problem_from_tokens(clients, readout=readout, kernel_ridge=mu, value_ridge=lam)
    deep = la.deep_problem(model, clients, ridge={"kernel": mu, "value": 0.0})
    joint = la.Joint(problem)
    ridge = 0.5 * lam * np.vdot(single.value, single.value)
    objective = la.run(
        la.fed_avg(), deep, params, rounds=1, local_steps=1, local_lr=0.1, record_params=True
    )
    assert relative_error(objective.columns["objective"][0], joint.value(single) - ridge) < 1e-12
    moved = la.Params(model.layout, (params.flat - objective.params.flat) / 0.1)
    gradient = joint.gradient(single)
    into_value = gradient.value - lam * single.value
    assert relative_error(moved["layer0.query"], gradient.query) < 1e-11
    assert relative_error(moved["layer0.key"], gradient.key) < 1e-11
    assert relative_error(moved["layer0.value"], into_value @ readout_weights.T) < 1e-11
    chained = np.einsum("hda,hdm->am", value, into_value)
    assert relative_error(moved["readout"], chained) < 1e-11


# ------------------------------------------------------------------------ backward


@cases
def test_gradient_against_central_differences(options):
    _, model, params, tokens, targets = build(5, **options)

    def total(flat):
        return losses(model, la.Params(model.layout, flat), tokens, targets)[0]

    gradient = model.backward(params, tokens, losses(model, params, tokens, targets)[1]).flat
    assert relative_error(gradient, numerical(total, params.flat, 1e-5)) < 1e-6


def test_cotangents_on_features_skip_the_readout():
    rng, model, params, tokens, _ = build(7, feature_map="relu", residual=True)
    cotangent = [rng.standard_normal(u.shape) for u in model.features(params, tokens)]

    def total(flat):
        held = model.features(la.Params(model.layout, flat), tokens)
        return sum(np.vdot(u, c) for u, c in zip(held, cotangent, strict=True))

    gradient = model.backward(params, tokens, cotangent, of="features")
    assert not gradient["readout"].any()
    assert relative_error(gradient.flat, numerical(total, params.flat, 1e-5)) < 1e-6


def test_one_pass_takes_both_cotangents():
    rng, model, params, tokens, _ = build(8, lengths=(3, 3))
    trace = model.trace(params.flat, np.stack(tokens))
    c, b = rng.standard_normal(trace.predictions.shape), rng.standard_normal(trace.features.shape)
    both = model.pull_back(trace, predictions=c, features=b)
    apart = model.pull_back(trace, predictions=c) + model.pull_back(trace, features=b)
    assert relative_error(both, apart) < 1e-13
    assert relative_error(model.backward(params, tokens, c).flat, apart - model.backward(
        params, tokens, b, of="features").flat) < 1e-12  # fmt: skip


@pytest.mark.parametrize("feature_map", MAPS)
@pytest.mark.parametrize("readout", READOUTS)
def test_gradient_is_that_of_automatic_differentiation(readout, feature_map):
    torch = pytest.importorskip("torch")
    _, model, params, tokens, targets = build(
        9, readout=readout, feature_map=feature_map, residual=True, num_layers=3
    )
    leaves = {
        name: torch.tensor(np.array(params[name]), requires_grad=True)
        for name in model.layout.names
    }
    phi = torch.relu if feature_map == "relu" else (lambda z: z)
    total = torch.zeros((), dtype=torch.float64)
    for x, y in zip(tokens, targets, strict=True):
        z = torch.tensor(x)
        for k in range(model.num_layers):
            query, key, value = (leaves[f"layer{k}.{n}"] for n in ("query", "key", "value"))
            scores = phi(z @ query) @ phi(z @ key).transpose(1, 2) / len(x)
            z = z + (scores @ (z @ value)).sum(dim=0)
        read = {"token": z, "mean": z.mean(dim=0)[None], "last": z[-1:]}[readout]
        error = read @ leaves["readout"] - torch.tensor(y)
        total = total + 0.5 * (error**2).sum() / len(y)
    total.backward()
    value, cotangent = losses(model, params, tokens, targets)
    assert relative_error(value, total.item()) < 1e-12
    gradient = model.backward(params, tokens, cotangent)
    for name, leaf in leaves.items():
        assert relative_error(gradient[name], leaf.grad.numpy()) < 1e-11


# ------------------------------------------------------------------------ gates


@pytest.mark.parametrize("residual", [False, True])
def test_own_gates_reproduce_the_model(residual):
    rng, model, params, tokens, _ = build(10, feature_map="relu", residual=residual, num_layers=3)
    gates = model.gates(params, tokens)
    assert [g.shape for g in gates] == [(3, 2, n, 2, 2) for n in LENGTHS]
    predictions = model.predict(params, tokens)
    gated = model.predict(params, tokens, gates=gates)
    cotangent = [rng.standard_normal(y.shape) for y in predictions]
    assert all(same_bits(a, b) for a, b in zip(predictions, gated, strict=True))
    assert same_bits(
        model.backward(params, tokens, cotangent),
        model.backward(params, tokens, cotangent, gates=gates),
    )


def test_gates_are_those_of_the_structural_stream():
    """By hand, layer by layer: the structural copy feeds its own residual stream."""
    _, model, params, tokens, _ = build(11, feature_map="relu", residual=True, lengths=(5, 5))
    structural = model.initial_params(seed=99)
    gates = model.gates(structural, tokens)
    stream = np.stack(tokens)
    for layer in range(2):
        one = la.DeepAttention(num_layers=1, dim=3, inner_dim=2, num_outputs=3, num_heads=2,
                               feature_map="relu", residual=True)  # fmt: skip
        parts = [structural[f"layer{layer}.{n}"] for n in ("query", "key", "value")]
        for j, weights in enumerate(parts[:2]):
            expected = np.einsum("snd,hdr->snhr", stream, weights) > 0
            assert np.array_equal(gates[:, layer, j], expected)
        flat = np.concatenate([w.reshape(-1) for w in (*parts, np.eye(3))])
        stream = one.predict(la.Params(one.layout, flat), stream)
    assert not np.allclose(
        model.predict(params, tokens), model.predict(params, tokens, gates=gates)
    )


def test_with_fixed_gates_the_output_is_linear_in_every_block_of_one_layer():
    rng, model, params, tokens, _ = build(12, feature_map="relu", num_layers=1)
    gates = model.gates(model.initial_params(seed=5), tokens)
    for name in model.layout.names:
        blocks = [params[name], rng.standard_normal(params[name].shape)]
        apart = [model.predict(params.replace(**{name: w}), tokens, gates=gates) for w in blocks]
        mixed = model.predict(
            params.replace(**{name: blocks[0] - 2 * blocks[1]}), tokens, gates=gates
        )
        for whole, one, two in zip(mixed, *apart, strict=True):
            assert relative_error(whole, one - 2 * two) < 1e-11


def test_gradient_under_gates_against_central_differences():
    _, model, params, tokens, targets = build(13, feature_map="relu", residual=True, num_layers=3)
    gates = model.gates(model.initial_params(seed=5), tokens)

    def errors(flat):
        held = model.predict(la.Params(model.layout, flat), tokens, gates=gates)
        return [y - t for y, t in zip(held, targets, strict=True)]

    gradient = model.backward(params, tokens, errors(params.flat), gates=gates).flat
    expected = numerical(
        lambda flat: sum(0.5 * np.vdot(e, e) for e in errors(flat)), params.flat, 1e-5
    )
    assert relative_error(gradient, expected) < 1e-7


# ------------------------------------------------------------------------ records


def test_blocks_and_their_groups():
    model = la.DeepAttention(num_layers=2, dim=3, inner_dim=4, num_outputs=5, num_heads=6)
    assert dict(model.layout.blocks) == {
        "layer0.query": (6, 3, 4), "layer0.key": (6, 3, 4), "layer0.value": (6, 3, 3),
        "layer1.query": (6, 3, 4), "layer1.key": (6, 3, 4), "layer1.value": (6, 3, 3),
        "readout": (3, 5),
    }  # fmt: skip
    assert model.layout.value_blocks == {"layer0.value", "layer1.value", "readout"}
    assert len(model.layout.kernel_blocks) == 4


def test_starts_have_their_stated_size_and_own_streams():
    model = la.DeepAttention(num_layers=2, dim=40, inner_dim=10, num_outputs=30)
    params = model.initial_params(scale=0.5, seed=3)
    kernel = params["layer1.query"][0] @ params["layer1.key"][0].T
    assert 0.8 < np.sum(kernel**2) / (0.25 * 40) < 1.2
    for name in ("layer0.value", "readout"):
        assert 0.9 < np.var(params[name]) / (0.25 / 40) < 1.1
    deeper = la.DeepAttention(num_layers=3, dim=40, inner_dim=10, num_outputs=30)
    again = deeper.initial_params(scale=0.5, seed=3)
    assert same_bits(again["layer1.key"], params["layer1.key"])
    assert not same_bits(again["layer1.key"], again["layer2.key"])


def test_models_survive_pickles():
    _, model, params, tokens, _ = build(14)
    again, held = pickle.loads(pickle.dumps((model, params)))
    assert again == model
    assert same_bits(again.predict(held, tokens)[0], model.predict(params, tokens)[0])


def test_accuracy_is_the_share_of_right_answers():
    _, model, params, tokens, _ = build(15, readout="last")
    classes = model.predict(params, tokens)[:, 0].argmax(axis=1)
    assert model.accuracy(params, tokens, classes) == 1.0
    classes[0] = 1 - classes[0]
    assert model.accuracy(params, tokens, classes) == 0.75
    with pytest.raises(ValueError, match=r"must be a class from 0 to 1, got -1"):
        model.accuracy(params, tokens, classes - 1)
    with warnings.catch_warnings(action="error"):
        assert model.accuracy(la.Params(params.layout, 1e200 * params.flat), tokens, classes) == 0.0


# ------------------------------------------------------------------------ refusals

GOOD = {"num_layers": 1, "dim": 3, "inner_dim": 2, "num_outputs": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "num_layers must be an integer >= 1, got 0"),
        ({"inner_dim": 1.5}, "inner_dim must be an integer >= 1, got 1.5"),
        ({"num_heads": -1}, "num_heads must be an integer >= 1"),
        ({"feature_map": "rellu"}, "feature_map must be one of .*did you mean 'relu'"),
        ({"readout": "first"}, "readout must be one of 'token', 'mean', 'last', got 'first'"),
        ({"residual": 1}, "residual must be True or False, got 1"),
    ],
)
def test_bad_models_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        la.DeepAttention(**(GOOD | options))


def test_bad_arguments_are_refused():
    _, model, params, tokens, targets = build(16)
    relu = build(16, feature_map="relu")[1]
    gates = relu.gates(params, tokens)
    refused = [
        (lambda: model.initial_params(scale=0.0), "scale must be > 0, got 0.0"),
        (lambda: model.initial_params(seed=-1), "seed must be an integer >= 0, got -1"),
        (lambda: model.predict(params, [np.ones((2, 4))]), "tokens must have 3 channels like"),
        (lambda: model.gates(params, tokens), "gates need a model with feature_map='relu', got 'i"),
        (lambda: model.predict(params, tokens, gates=gates), "gates need a model with feature_map"),
        (lambda: relu.predict(params, tokens, gates=gates[:3]), "gates must hold 4 entries, one p"),
        (lambda: relu.predict(params, tokens, gates=gates[::-1]), r"gates\[0\] must have shape"),
        (lambda: relu.predict(params, tokens, gates=[1.0 * g for g in gates]), "must be boolean"),
        (lambda: model.backward(params, tokens, targets, of="loss"), "of must be one of 'predic"),
        (lambda: model.backward(params, tokens, targets[:2]), "cotangent must hold 4 entries"),
        (lambda: model.backward(params, tokens, 1.0), "cotangent must hold 4 entries.*got 1.0"),
        (lambda: model.backward(params, tokens, targets, of="features"),
         r"cotangent\[0\] must have shape \(4, 3\), got \(4, 2\)"),
        (lambda: model.loss(params, tokens, targets[:3]), "targets must hold 4 entries"),
        (lambda: model.predict(la.Params.merged(np.eye(3), np.eye(3)), tokens),
         "params must have the blocks of the model, layer0.query"),
        (lambda: model.predict(params.flat, tokens), "params must be Params, got ndarray"),
        (lambda: la.predict(params, tokens), "params must be of the single-layer model"),
    ]  # fmt: skip
    for call, message in refused:
        with pytest.raises((ValueError, TypeError), match=message):
            call()
