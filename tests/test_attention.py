"""The model: predictions, losses, accuracy and statistics against token-level loops."""

import numpy as np
import pytest
import reference as ref
from bridge import kinds, make, over, relative_error, seeds, to_params
from hypothesis import strategies as st

import linattn as la
from linattn.attention import sequence_statistics

readouts = st.sampled_from(ref.READOUTS)


def by_loops(X, B, V, readout):
    """Ŷ entry by entry: Σ_h Σ_j (uᵀB_h x_j)(x_jᵀV_h)/n."""
    U = ref.queries(X, readout)
    out = np.zeros((len(U), V.shape[2]))
    for a, u in enumerate(U):
        for b, v in zip(B, V, strict=True):
            for x in X:
                out[a] += (u @ b @ x) * (x @ v) / len(X)
    return out


@over(seeds, kinds, readouts)
def test_predictions_of_ragged_sequences(seed, kind, readout):
    _, inst, theta, V, _, params = make(seed, kind, readout=readout)
    for client in inst.clients:
        tokens = [X for X, _ in client]
        for X, got in zip(tokens, la.predict(params, tokens, readout=readout), strict=True):
            assert relative_error(got, ref.predict(X, theta, V, readout)) < 1e-12
            assert relative_error(got, by_loops(X, ref.kernels(theta), V, readout)) < 1e-12


def test_predictions_are_arrays_or_a_list_as_documented():
    params = la.Params.merged(np.eye(2), np.ones((2, 3)))
    same, ragged = np.ones((4, 5, 2)), [np.ones((1, 2)), np.ones((3, 2))]
    assert la.predict(params, same).shape == (4, 5, 3)
    assert la.predict(params, same, readout="last").shape == (4, 1, 3)
    assert [y.shape for y in la.predict(params, ragged)] == [(1, 3), (3, 3)]
    assert la.predict(params, ragged, readout="mean").shape == (2, 1, 3)
    assert la.predict(params, list(same)).shape == (4, 5, 3)


def test_one_token_by_hand():
    # x = 2: G = 4, Ŷ = x B G V = 2·3·4·5.
    params = la.Params.merged([[3.0]], [[5.0]])
    assert la.predict(params, [[[2.0]]]).item() == 120.0
    assert la.loss(params, [[[2.0]]], [[[100.0]]]) == 200.0


@over(seeds, kinds, readouts)
def test_loss_is_the_mean_sequence_loss(seed, kind, readout):
    _, inst, theta, V, _, params = make(seed, kind, readout=readout)
    for i, client in enumerate(inst.clients):
        tokens, targets = [X for X, _ in client], [Y for _, Y in client]
        got = la.loss(params, tokens, targets, readout=readout)
        assert got == pytest.approx(ref.client_data_loss(inst, i, theta, V), rel=1e-12)


@pytest.mark.parametrize(("readout", "shape"), [("mean", (4, 1, 3)), ("token", (4, 5, 1))])
def test_loss_takes_flat_targets_of_one_query_or_one_output(readout, shape):
    rng = np.random.default_rng(0)
    params = la.Params.merged(rng.standard_normal((2, 2)), rng.standard_normal((2, shape[2])))
    tokens, targets = rng.standard_normal((4, 5, 2)), rng.standard_normal(shape)
    flat = la.loss(params, tokens, targets.squeeze(), readout=readout)
    assert flat == la.loss(params, tokens, targets, readout=readout)


@over(seeds, readouts)
def test_statistics_give_the_sequence_loss(seed, readout):
    _, inst, (B,), V, _, _ = make(seed, readout=readout)
    X, Y = inst.clients[0][0]
    held = sequence_statistics(X[None], Y[None], readout)
    G, M, K, c = held.gram[0], held.query_moments()[0], held.cross_moments()[0], held.energy[0]
    Z = sum(b @ G @ v for b, v in zip(B, V, strict=True))
    loss = 0.5 * (c - 2 * np.sum(K * Z) + np.sum(Z * (M @ Z)))
    assert loss == pytest.approx(ref.sequence_loss(X, Y, B, V, readout), rel=1e-9, abs=1e-12 * c)
    assert np.array_equal(G, G.T)


@over(seeds, kinds)
def test_queries_of_their_own(seed, kind):
    """Predictions, loss and accuracy at one to three given queries per sequence."""
    _, inst, theta, V, _, params = make(seed, kind, readout=ref.own_queries)
    for i, client in enumerate(inst.clients):
        tokens, targets = [X for X, _ in client], [Y for _, Y in client]
        own = [ref.own_queries(X) for X in tokens]
        expected = [ref.predict(X, theta, V, inst.readout) for X in tokens]
        for got, twin in zip(la.predict(params, tokens, queries=own), expected, strict=True):
            assert relative_error(got, twin) < 1e-12
        got = la.loss(params, tokens, targets, queries=own, readout="queries")
        assert got == pytest.approx(ref.client_data_loss(inst, i, theta, V), rel=1e-12)
        labels = [y.argmax(axis=1) for y in expected]
        assert la.accuracy(params, tokens, labels, queries=own) == 1.0
        if V.shape[2] == 1:
            continue
        one_hot = [np.eye(V.shape[2])[k] for k in labels]
        assert la.accuracy(params, tokens, one_hot, queries=own) == 1.0


def test_equal_numbers_of_queries_give_one_array():
    params = la.Params.merged(np.eye(2), np.ones((2, 3)))
    ragged, own = [np.ones((1, 2)), np.ones((3, 2))], np.ones((2, 4, 2))
    assert la.predict(params, ragged, queries=own).shape == (2, 4, 3)
    uneven = [own[0], own[1, :1]]
    assert [y.shape for y in la.predict(params, ragged, queries=uneven)] == [(4, 3), (1, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": np.ones((2, 1, 1))}, "queries must hold 3 entries, one per sequence, got 2"),
        ({"queries": np.ones((3, 1, 2))}, "queries must have 1 channels like the tokens, got 2"),
        ({"queries": np.ones((3, 0, 1))}, r"queries\[0\] must have shape \(n >= 1, 1\)"),
        ({"queries": 3.0}, "queries must be an array or a list of arrays, got 3.0"),
        ({"readout": "queries"}, "readout must be 'queries' exactly where queries are given"),
        ({"readout": "last", "queries": np.ones((3, 1, 1))}, "got 'last' and queries were given"),
    ],
)
def test_bad_queries_are_refused(options, message):
    params, tokens = labelled()
    with pytest.raises(ValueError, match=message):
        la.predict(params, tokens, **options)


def labelled():
    """Tokens whose predicted class is the sign of the last token (mean token) of the sequence."""
    params = la.Params.merged([[1.0]], [[1.0, -1.0]])
    return params, np.array([[[1.0], [3.0]], [[-1.0], [-2.0]], [[2.0], [-1.0]]])


def test_accuracy_counts_queries():
    params, tokens = labelled()
    assert la.accuracy(params, tokens, [0, 1, 0]) == 1.0
    assert la.accuracy(params, tokens, [0, 1, 1], readout="last") == 1.0
    assert la.accuracy(params, tokens, np.eye(2)[[0, 0, 0]]) == pytest.approx(2 / 3)
    assert la.accuracy(params, tokens, np.eye(2)[[0, 1, 0]][:, None]) == 1.0
    per_token = np.array([[0, 0], [1, 1], [0, 0]])
    assert la.accuracy(params, tokens, per_token, readout="token") == pytest.approx(5 / 6)
    one_hot = np.eye(2)[per_token]
    assert la.accuracy(params, tokens, one_hot, readout="token") == pytest.approx(5 / 6)


@pytest.mark.filterwarnings("error")
def test_predictions_beyond_numbers_are_never_right():
    params, tokens = labelled()
    assert la.accuracy(params, tokens * [[[1e200]], [[1.0]], [[1.0]]], [0, 1, 0]) == 2 / 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p, x: la.predict(p, x, readout="men"), ValueError, "readout must be one of"),
        (lambda p, x: la.predict(p, np.ones((2, 3, 4))), ValueError, "tokens must have 1 channels"),
        (lambda p, x: la.predict(p, np.ones((3, 1))), ValueError, "tokens must have 3 axes"),
        (lambda p, x: la.predict(p, []), ValueError, "tokens must hold at least one sequence"),
        (lambda p, x: la.predict(p, [x[0], x[0][:0]]), ValueError, r"tokens\[1\] must have shape"),
        (lambda p, x: la.predict(p, np.nan * x), ValueError, "tokens must be finite"),
        (lambda p, x: la.predict(p, x.astype(np.float32)), TypeError, "tokens must be float64"),
        (lambda p, x: la.predict(p, np.ma.array(x)), TypeError, "tokens must be without a mask"),
        (lambda p, x: la.accuracy(p, x, np.ma.array([0, 1, 0])), TypeError, "labels must be witho"),
        (lambda p, x: la.loss(p, x, np.ones((2, 2, 2))), ValueError, "targets must hold 3 entries"),
        (lambda p, x: la.loss(p, x, np.ones((3, 4))), ValueError, r"targets\[0\] must have shape"),
        (
            lambda p, x: la.loss(p, x[:, :1], np.ones((3, 2, 1))),
            ValueError,
            r"targets\[0\] must have shape \(1, 2\)",
        ),
        (
            lambda p, x: la.loss(p, x, np.full((3, 2, 2), np.inf)),
            ValueError,
            r"targets\[0\] must be finite",
        ),
        (lambda p, x: la.accuracy(p, x, [0, 1]), ValueError, "labels must hold 3 entries"),
        (
            lambda p, x: la.accuracy(p, x, [0, 1, 7]),
            ValueError,
            "must be a class from 0 to 1",
        ),
        (lambda p, x: la.accuracy(p, x, [0, -1, 0]), ValueError, "from 0 to 1, got -1"),
        (lambda p, x: la.accuracy(p, x, [0.5, 0, 0]), ValueError, "from 0 to 1, got 0.5"),
        (lambda p, x: la.accuracy(p, x, [0.0, np.nan, 0]), ValueError, "must be finite"),
        (lambda p, x: la.accuracy(p, x, np.eye(3)), ValueError, "must have rows of 2 entries"),
        (lambda p, x: la.accuracy(p, x, np.zeros((3, 2))), ValueError, "one largest entry per row"),
        (lambda p, x: la.accuracy(p, x, np.ones((3, 3, 2))), ValueError, "labels must give 1"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    params, tokens = labelled()
    with pytest.raises(error, match=message):
        call(params, tokens)


def test_factored_parameters_predict_like_their_product():
    rng = np.random.default_rng(4)
    Q, K, V = rng.standard_normal((3, 2, 4, 4))
    tokens = rng.standard_normal((3, 5, 4))
    merged = la.Params.merged(Q @ K.transpose(0, 2, 1), V)
    assert (
        relative_error(la.predict(to_params((Q, K), V), tokens), la.predict(merged, tokens)) < 1e-13
    )
