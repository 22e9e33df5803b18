"""From tokens to a problem: statistics token by token, input forms, refusals."""

import numpy as np
import pytest
import reference as ref
from bridge import from_instance, make, over, readouts, relative_error, same_bits, seeds
from threadpoolctl import threadpool_limits

import linattn as la

RIDGES = {"value_ridge": 0.1, "kernel_ridge": 0.1}
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((3, 4, 2)), RNG.standard_normal((3, 4, 5))


@over(seeds, readouts)
def test_statistics_of_ragged_sequences_keep_their_order(seed, readout):
    _, inst, *_, problem, _ = make(seed, readout=readout)
    pairs = [pair for client in inst.clients for pair in client]
    assert problem.num_sequences == len(pairs)
    assert problem.client_sizes.tolist() == [len(client) for client in inst.clients]
    held = problem.statistics
    moments, crosses = held.query_moments(), held.cross_moments()
    for s, (tokens, targets) in enumerate(pairs):
        U = ref.queries(tokens, readout)
        assert relative_error(held.gram[s], tokens.T @ tokens / len(tokens)) < 1e-13
        assert relative_error(moments[s], U.T @ U / len(U)) < 1e-13
        assert relative_error(crosses[s], U.T @ targets / len(U)) < 1e-12
        assert held.energy[s] == pytest.approx(np.sum(targets**2) / len(U), rel=1e-13)


def test_only_what_is_needed_is_kept():
    token = la.problem_from_tokens([(X, Y)], **RIDGES).statistics
    assert token.query is token.target is None
    mean = la.problem_from_tokens([(X, Y[:, 0])], readout="mean", **RIDGES).statistics
    assert mean.cross is None
    assert np.allclose(mean.query, X.mean(axis=1))


def equal(left, right):
    columns = zip(left.statistics, right.statistics, strict=True)
    return all(a is b is None or np.array_equal(a, b) for a, b in columns)


def test_arrays_lists_and_generators_say_the_same():
    whole = la.problem_from_tokens([(X, Y)], **RIDGES)
    assert equal(whole, la.problem_from_tokens([(list(X), list(Y))], **RIDGES))
    assert equal(whole, la.problem_from_tokens([(X.tolist(), Y.tolist())], **RIDGES))
    assert equal(whole, la.problem_from_tokens(((X, Y) for _ in range(1)), **RIDGES))
    flat = la.problem_from_tokens([(X, Y[:, 0])], readout="last", **RIDGES)
    assert equal(flat, la.problem_from_tokens([(X, Y[:, :1])], readout="last", **RIDGES))
    single = la.problem_from_tokens([(X[:, :1], Y[:, 0])], **RIDGES)
    assert equal(single, la.problem_from_tokens([(X[:, :1], Y[:, :1])], **RIDGES))


def test_one_output_may_be_left_out_of_the_shape():
    flat = la.problem_from_tokens([(X, Y[..., 0])], **RIDGES)
    assert equal(flat, la.problem_from_tokens([(X, Y[..., :1])], **RIDGES))
    lists = la.problem_from_tokens([(list(X), [Y[0, :, 0], Y[1, :, :1], Y[2, :, 0]])], **RIDGES)
    assert equal(flat, lists)


def test_own_queries_that_a_readout_would_make_are_that_readout():
    token = la.problem_from_tokens([(X, Y)], **RIDGES).statistics
    own = la.problem_from_tokens([(X, Y, X)], **RIDGES)
    assert own.readout == "queries"
    assert np.array_equal(own.statistics.moment, token.gram)
    assert np.array_equal(own.statistics.cross, token.cross)
    last = la.problem_from_tokens([(X, Y[:, :1])], readout="last", **RIDGES)
    single = la.problem_from_tokens([(X, Y[:, :1], X[:, -1:])], readout="queries", **RIDGES)
    assert equal(last, single)  # rank one, and nothing else is kept


def test_clients_with_one_and_with_several_queries_share_a_problem():
    clients = [(X, Y[:, :1], X[:, :1]), (X, Y[:, :2], X[:, :2])]
    both = la.problem_from_tokens(clients, **RIDGES)
    alone = [la.problem_from_tokens([client], **RIDGES) for client in clients]
    for name in ("query_moments", "cross_moments"):
        parts = [getattr(problem.statistics, name)() for problem in alone]
        assert np.array_equal(getattr(both.statistics, name)(), np.concatenate(parts))
    assert both.statistics.query is None
    assert both.subset([0]).num_sequences == 3


def test_other_byte_orders_are_cast():
    whole = la.problem_from_tokens([(X, Y)], **RIDGES)
    assert equal(whole, la.problem_from_tokens([(X.astype(">f8"), Y.astype(">f8"))], **RIDGES))


def test_the_callers_arrays_stay_writable_and_separate():
    tokens, targets, weights = X.copy(), Y[:, :1].copy(), np.array([1.0])
    problem = la.problem_from_tokens([(tokens, targets)], readout="mean", weights=weights, **RIDGES)
    before = problem.statistics.target.copy()
    tokens[:], targets[:], weights[:] = 0.0, 0.0, 0.0
    assert np.array_equal(problem.statistics.target, before)
    assert problem.weights[0] == 1.0


def test_a_client_does_not_depend_on_the_others():
    _, inst, *_ = make(3, num_clients=3)
    whole, last = (
        from_instance(inst),
        from_instance(inst._replace(clients=inst.clients[2:], weights=np.ones(1))),
    )
    assert np.array_equal(whole.statistics.gram[whole.client(2)], last.statistics.gram)


def ragged(change):
    """Three valid sequences with one of them replaced."""
    sequences = list(X)
    sequences[1] = change(sequences[1])
    return sequences


@pytest.mark.parametrize(
    ("clients", "message"),
    [
        ([], "clients must hold at least one client, got none"),
        (5, "clients must be a list, got int 5"),
        ([(1e160 * X, Y)], "so small that sums of their products are finite, got an overflow"),
        ([(X, 1e160 * Y)], "so small that sums of their products are finite"),
        ([(X, Y), (X[:0], Y[:0])], r"clients\[1\] must hold at least one sequence, got none"),
        ([(X, Y), ([], [])], r"clients\[1\] must hold at least one sequence"),
        ([(X, Y), (X[..., :1], Y)], r"clients\[1\] must have 2 channels and 5 outputs like the"),
        ([(X, Y), (X, Y[..., :3])], r"clients\[1\] must have 2 channels and 5 .* got 2 and 3"),
        ([(X[0], Y)], r"clients\[0\] tokens must have 3 axes, got shape \(4, 2\)"),
        ([(ragged(lambda x: x[:0]), Y)], r"tokens\[1\] must have shape \(n >= 1, 2\)"),
        ([(ragged(lambda x: x[:, :1]), Y)], r"tokens\[1\] must have shape .* got \(4, 1\)"),
        ([(np.where(X > 1, np.nan, X), Y)], r"clients\[0\] tokens must be finite, got \d+ NaN"),
        ([(X, np.where(Y > 1, np.inf, Y))], r"clients\[0\] targets must be finite"),
        ([(X, Y, X[:2])], r"clients\[0\] queries must hold 3 entries, one per sequence, got 2"),
        ([(X, Y[:, :3], X)], r"targets\[0\] must have shape \(4, 5\).*got \(3, 5\)"),
        ([(X, Y, None)], r"clients\[0\] queries must be an array or a list of arrays, got None"),
        ([(X, Y[:2])], r"targets must hold 3 entries, one per sequence, got 2"),
        ([(X, Y[:, :2])], r"targets\[0\] must have shape \(4, 5\).*got \(2, 5\)"),
        ([(X, Y[..., :0])], r"targets\[0\] must have shape \(4, m >= 1\) .*, got \(4, 0\)"),
        ([(X[..., :0], Y)], r"tokens\[0\] must have shape \(n >= 1, d >= 1\), got \(4, 0\)"),
        ([(X, Y[:, 0])], r"targets\[0\] must have shape"),
        ([(X, Y[0, 0])], r"targets must have 2 or 3 axes|targets must hold"),
        ([X], r"clients\[0\] must be a pair \(tokens, targets\)"),
        ([(X, Y, Y)], r"clients\[0\] queries must have 2 channels like the tokens, got 5"),
        (
            [(X, Y), (X, Y, X)],
            r"clients\[1\] must be a pair .*, got tuple of 3 for readout 'token'",
        ),
        (
            [(X, Y, X), (X, Y)],
            r"clients\[1\] must be three .*, got tuple of 2 for readout 'queries'",
        ),
        ([5], r"clients\[0\] must be a pair \(tokens, targets\)"),
        ([(None, Y)], r"clients\[0\] tokens must be an array or a list of arrays"),
        ([(X, 3.0)], r"clients\[0\] targets must be an array or a list of arrays"),
    ],
)
def test_bad_data_is_refused(clients, message):
    with pytest.raises((ValueError, TypeError), match=message):
        la.problem_from_tokens(clients, **RIDGES)


@pytest.mark.parametrize(
    "masked", [np.ma.array(X), list(np.ma.array(X)), [list(np.ma.array(x)) for x in X]]
)
def test_masked_arrays_are_refused(masked):
    with pytest.raises(TypeError, match=r"tokens.* must be without a mask, got a masked array"):
        la.problem_from_tokens([(masked, Y)], **RIDGES)
    with pytest.raises(TypeError, match=r"queries.* must be without a mask"):
        la.problem_from_tokens([(X, Y, masked)], **RIDGES)


@pytest.mark.parametrize("dtype", [np.float32, complex, ">f4", object])
def test_other_number_types_are_refused(dtype):
    for clients in ([(X.astype(dtype), Y)], [(X, Y.astype(dtype))], [(list(X.astype(dtype)), Y)]):
        with pytest.raises(TypeError, match=r"clients\[0\] .* must be float64 or integer"):
            la.problem_from_tokens(clients, **RIDGES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value_ridge": 0.0}, "value_ridge must be > 0, got 0.0"),
        ({"value_ridge": np.nan}, "value_ridge must be a finite number > 0, got nan"),
        ({"kernel_ridge": -0.1}, "kernel_ridge must be >= 0, got -0.1"),
        ({"kernel_ridge": "a"}, r"kernel_ridge must be a number \(>= 0\), got 'a'"),
        (
            {"readout": "first"},
            "readout must be one of 'token', 'mean', 'last', 'queries', got 'fi",
        ),
        ({"readout": "queries"}, r"clients\[0\] must be three \(tokens, targets, queries\)"),
        ({"weights": [0.5, 0.5]}, "weights must have 1 entries, got 2"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        la.problem_from_tokens([(X, Y)], **(RIDGES | options))


def test_kernel_ridge_zero_and_one_token_and_one_channel_are_allowed():
    problem = la.problem_from_tokens(
        [(np.ones((1, 1, 1)), np.ones((1, 1, 1)))], value_ridge=1, kernel_ridge=0
    )
    assert (problem.dim, problem.num_outputs, problem.num_sequences) == (1, 1, 1)


def test_chunks_and_memory_maps_change_nothing(tmp_path, monkeypatch):
    """A memory-mapped client, stacked two sequences at a time, has the statistics of the array."""
    from linattn.data import tokens as module

    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(7, 5, 3)), "y": rng.normal(size=(7, 5, 2))}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in arrays]
    ridges = {"value_ridge": 0.1, "kernel_ridge": 0.1}
    whole = la.problem_from_tokens([tuple(arrays.values())], **ridges)
    monkeypatch.setattr(module, "CHUNK_ENTRIES", 2 * 5 * 3)
    parts = la.problem_from_tokens([tuple(mapped)], **ridges)
    for left, right in zip(whole.statistics, parts.statistics, strict=True):
        if left is not None:
            np.testing.assert_allclose(left, right, rtol=1e-14)
    ragged = [arrays["x"][s, : 2 + s % 3] for s in range(7)]
    targets = [arrays["y"][s, : 2 + s % 3] for s in range(7)]
    few = la.problem_from_tokens([(ragged, targets)], **ridges)
    monkeypatch.setattr(module, "CHUNK_ENTRIES", 2**22)
    many = la.problem_from_tokens([(ragged, targets)], **ridges)
    np.testing.assert_allclose(few.statistics.gram, many.statistics.gram, rtol=1e-14)


def test_bits_do_not_depend_on_the_threads_of_the_library_that_multiplies():
    rng = np.random.default_rng(0)
    tokens, targets = rng.standard_normal((1, 400, 130)), rng.standard_normal((1, 400, 5))
    own = rng.standard_normal((1, 300, 130))
    params = la.Params.merged(rng.standard_normal((130, 130)), rng.standard_normal((130, 5)))

    def numbers(threads):
        with threadpool_limits(threads):
            token = la.problem_from_tokens([(tokens, targets)], **RIDGES).statistics
            held = la.problem_from_tokens([(tokens, targets[:, :300], own)], **RIDGES).statistics
            made = la.predict(params, tokens)
        return token.gram, token.cross, held.moment, held.cross, made

    one, many = numbers(1), numbers(2)
    assert all(same_bits(a, b) for a, b in zip(one, many, strict=True))
