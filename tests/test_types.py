"""Records: layouts, parameters, statistics, problems, weights, and their refusals."""

import errno
import os
import pickle
from contextlib import suppress

import numpy as np
import pytest
from bridge import over
from hypothesis import strategies as st

import linattn as la
from linattn.clients import check_weights
from linattn.types import Layout

RNG = np.random.default_rng(0)
KERNEL, VALUE = RNG.standard_normal((2, 3, 3)), RNG.standard_normal((2, 3, 4))
QUERY, KEY = RNG.standard_normal((2, 2, 3, 5))
LAYER = Layout((("layer0.query", (2, 3)), ("layer0.value", (4,)), ("head", (1, 2))))


def merged():
    return la.Params.merged(KERNEL, VALUE)


def factored():
    return la.Params.factored(QUERY, KEY, VALUE)


# ------------------------------------------------------------------------ layouts


def test_layout_maps_names_to_slices_views_and_masks():
    assert LAYER.size == 12
    assert LAYER.slices == {
        "layer0.query": slice(0, 6),
        "layer0.value": slice(6, 10),
        "head": slice(10, 12),
    }
    flat = np.arange(12.0)
    view = LAYER.view(flat, "layer0.query")
    assert view.shape == (2, 3)
    view[1, 2] = -1.0
    assert flat[5] == -1.0
    assert LAYER.kernel_blocks == {"layer0.query"}
    assert LAYER.value_blocks == {"layer0.value", "head"}
    assert np.flatnonzero(LAYER.mask(["head", "layer0.value"])).tolist() == [6, 7, 8, 9, 10, 11]


def test_layout_refuses_a_block_that_it_does_not_have():
    with pytest.raises(ValueError, match=r"block must be one of .*head, got 'hed'"):
        LAYER.mask(["hed"])


# ------------------------------------------------------------------------ parameters


def test_merged_and_factored_blocks():
    both = merged(), factored()
    assert both[0].query is both[0].key is both[1].kernel is None
    assert [p.num_heads for p in both] == [2, 2]
    assert [p.is_factored for p in both] == [False, True]
    assert np.array_equal(both[0].kernels(), KERNEL)
    assert np.allclose(both[1].kernels(), [q @ k.T for q, k in zip(QUERY, KEY, strict=True)])
    assert np.array_equal(both[1].query, QUERY)
    assert np.array_equal(both[1]["key"], KEY)
    assert np.array_equal(both[1].value, VALUE)


def test_one_head_may_leave_out_the_leading_axis():
    short = la.Params.merged(KERNEL[0], VALUE[0])
    assert short.kernels().shape == (1, 3, 3)
    assert np.array_equal(short.flat, la.Params.merged(KERNEL[:1], VALUE[:1]).flat)
    assert la.Params.factored(QUERY[0], KEY[0], VALUE[0]).query.shape == (1, 3, 5)


def test_parameters_are_copies_and_read_only():
    kernel = KERNEL.copy()
    params = la.Params.merged(kernel, VALUE)
    kernel[:] = 0.0
    assert np.array_equal(params.kernel, KERNEL)
    for array in (params.flat, params.kernel, params.value):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0
    with pytest.raises(AttributeError, match="immutable"):
        params.flat = kernel


def test_integers_are_cast():
    params = la.Params.merged(np.eye(2, dtype=int), [[1], [2]])
    assert params.flat.dtype == np.float64
    assert params.flat.flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.complex128, object, "U3"])
def test_other_number_types_are_refused(dtype):
    with pytest.raises(TypeError, match="kernel must be float64 or integer, got dtype"):
        la.Params.merged(np.ones((2, 2)).astype(dtype), np.ones((2, 1)))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ((np.ones((2, 3)), np.ones((2, 1))), r"kernel must have shape \(1, 2, 2\)"),
        ((np.ones((2, 2, 2)), np.ones((2, 1))), r"kernel must have shape \(1, 2, 2\)"),
        ((np.ones(2), np.ones((2, 1))), "kernel must have 2 or 3 axes"),
        ((np.ones((2, 2)), np.ones((2, 0))), "value must have shape"),
        ((np.full((2, 2), np.nan), np.ones((2, 1))), "kernel must be finite, got 4 NaN"),
        ((np.ones((2, 2)), np.array([[1.0], [np.inf]])), "value must be finite, got 1 NaN"),
        (([[1.0, 2.0], [3.0]], np.ones((2, 1))), "kernel must be a rectangular array"),
    ],
)
def test_merged_refuses_blocks_that_do_not_fit(blocks, message):
    with pytest.raises(ValueError, match=message):
        la.Params.merged(*blocks)


def test_factored_refuses_factors_of_different_rank():
    with pytest.raises(ValueError, match=r"key must have shape \(2, 3, 5\)"):
        la.Params.factored(QUERY, KEY[..., :4], VALUE)
    with pytest.raises(ValueError, match="query must have shape"):
        la.Params.factored(QUERY[..., :0], KEY[..., :0], VALUE)


def test_a_flat_vector_of_the_wrong_size_is_refused():
    with pytest.raises(ValueError, match="flat must have 42 entries"):
        la.Params(merged().layout, np.zeros(3))


def test_replace_exchanges_blocks_and_checks_their_shapes():
    params = merged().replace(value=2 * VALUE)
    assert np.array_equal(params.value, 2 * VALUE)
    assert np.array_equal(params.kernel, KERNEL)
    single = la.Params.merged(KERNEL[0], VALUE[0])
    assert np.array_equal(single.replace(value=-VALUE[0]).value, -VALUE[:1])
    with pytest.raises(ValueError, match="block must be one of kernel, value, got 'query'"):
        params.replace(query=QUERY)
    for wrong in (VALUE[0], VALUE.transpose(0, 2, 1), VALUE.reshape(6, 4)):
        with pytest.raises(ValueError, match=r"value must have shape \(2, 3, 4\)"):
            params.replace(value=wrong)


def layered():
    return la.Params(LAYER, np.arange(12.0))


@pytest.mark.parametrize("make", [merged, factored, layered])
def test_save_and_load_and_pickle_keep_every_bit(make, tmp_path):
    params = make()
    params.save(tmp_path / "params.npz")
    for copy in (la.Params.load(tmp_path / "params.npz"), pickle.loads(pickle.dumps(params))):
        assert copy.layout == params.layout
        assert copy.flat.tobytes() == params.flat.tobytes()
        assert not copy.flat.flags.writeable


@pytest.mark.parametrize("name", ["", ".", "a\0b", b"bytes", 3, None])
def test_what_names_no_file_is_refused_in_a_sentence(name):
    for call in (merged().save, la.Params.load):
        with pytest.raises((TypeError, ValueError), match=r"^path must (be|name) a "):
            call(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_is_never_replaced_by_one(tmp_path):
    """As a pipe or a device: saving to the null device must not remove it."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="path must be a file that can be written"):
            merged().save(path)
    assert (tmp_path / "pipe").is_fifo()


def damaged_files(tmp_path):
    path = tmp_path / "params.npz"
    merged().save(path)
    whole = path.read_bytes()
    yield "truncated", whole[: len(whole) // 2]
    yield "empty", b""
    yield "text", b"these are no parameters"
    middle = whole.index(KERNEL.tobytes()[:64])
    yield "flipped", whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    np.save(tmp_path / "bare.npy", KERNEL)
    yield "bare array", (tmp_path / "bare.npy").read_bytes()
    np.savez(tmp_path / "none.npz")
    yield "no blocks", (tmp_path / "none.npz").read_bytes()
    first = whole.index(b"PK\1\2")  # the list at the end, without its second entry
    second = whole.index(b"PK\1\2", first + 4)
    shorter = (second - first).to_bytes(4, "little")
    yield "block lost", whole[:second] + whole[-22:-10] + shorter + whole[-6:]
    np.savez(tmp_path / "pickled.npz", value=np.array([{}], dtype=object))
    yield "pickled", (tmp_path / "pickled.npz").read_bytes()


def test_damaged_files_are_refused_in_one_sentence(tmp_path):
    for kind, content in damaged_files(tmp_path):
        path = tmp_path / f"{kind}.bin"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"path must be an npz written by Params\.save"):
            la.Params.load(path)
    with pytest.raises(FileNotFoundError):
        la.Params.load(tmp_path / "missing.npz")


def test_any_changed_byte_is_seen_or_changes_nothing(tmp_path):
    path, params = tmp_path / "params.npz", merged()
    params.save(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        with suppress(ValueError):  # any other error, or other parameters, would be a fault
            found = la.Params.load(path)
            assert found.layout == params.layout
            assert found.flat.tobytes() == params.flat.tobytes()


def test_a_failing_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "params.npz"
    merged().save(path)
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"but .* cannot \(No space left on device\); what"):
        factored().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_representations_tell_sizes(small_problem):
    assert repr(merged()) == "Params(kernel (2, 3, 3), value (2, 3, 4); 42 parameters)"
    assert "query (2, 3, 5)" in repr(factored())
    assert "4 clients, 24 sequences, dim 3, 2 outputs" in repr(small_problem)


# ------------------------------------------------------------------------ weights


def test_weights_by_default_follow_the_numbers_of_sequences():
    sizes = np.array([1, 3, 4])
    assert np.array_equal(check_weights(None, sizes), sizes / 8)
    assert np.array_equal(check_weights("equal", sizes), np.full(3, 1 / 3))


def test_weights_are_never_rescaled():
    given = [0.5, 0.25, 0.25 + 5e-10]
    assert check_weights(given, np.ones(3, int)).tolist() == given


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("equl", "weights must be None, 'equal' or an array, got 'equl'"),
        ([0.5, 0.5], "weights must have 3 entries, got 2"),
        ([0.5, 0.5, 0.0], "weights must be positive, got a minimum of 0"),
        ([0.9, 0.2, -0.1], "weights must be positive"),
        ([0.5, 0.25, 0.26], "weights must sum to 1 within 1e-09"),
        ([0.5, 0.25, 0.25 + 2e-9], "weights must sum to 1"),
        ([0.5, 0.25, np.nan], "weights must be finite"),
        ([[0.5, 0.25, 0.25]], "weights must have 1 axes"),
    ],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        check_weights(weights, np.ones(3, dtype=np.int64))


@over(st.lists(st.integers(1, 50), min_size=1, max_size=6), examples=20)
def test_sequence_weights_sum_to_one_and_share_the_client_weight(sizes):
    clients = [(np.ones((n, 2, 1)), np.ones((n, 2, 1))) for n in sizes]
    problem = la.problem_from_tokens(clients, value_ridge=1, kernel_ridge=1, weights="equal")
    shares = np.split(problem.sequence_weights, problem.offsets[1:-1])
    assert np.allclose([s.sum() for s in shares], 1 / len(sizes))
    assert problem.client_sizes.tolist() == sizes


# ------------------------------------------------------------------------ problems


def arrays_of(problem):
    return [a for a in (*problem.statistics, problem.offsets, problem.weights) if a is not None]


def test_problems_are_immutable_also_after_pickling(small_problem):
    for problem in (small_problem, pickle.loads(pickle.dumps(small_problem))):
        for array in arrays_of(problem):
            assert not array.flags.writeable
            assert array.flags.c_contiguous
        with pytest.raises(AttributeError):
            problem.value_ridge = 1.0


def test_subset_takes_clients_in_the_order_wanted(small_problem):
    part = small_problem.subset([2, 0])
    assert part.num_clients == 2
    assert part.weights.sum() == pytest.approx(1.0, abs=1e-15)
    assert np.array_equal(
        part.statistics.gram[part.client(0)], small_problem.statistics.gram[small_problem.client(2)]
    )
    assert np.array_equal(
        part.statistics.energy[part.client(1)],
        small_problem.statistics.energy[small_problem.client(0)],
    )


@pytest.mark.parametrize("clients", [[], [0, 0], [4], [-1], [1.5]])
def test_subset_refuses_clients_that_do_not_exist(small_problem, clients):
    with pytest.raises(ValueError, match=r"clients must be distinct numbers in 0..3"):
        small_problem.subset(clients)


@pytest.mark.parametrize("readout", ["token", "mean", "last"])
def test_pool_gives_every_client_all_data(readout):
    rows = 3 if readout == "token" else 1
    draw = RNG.standard_normal
    clients = [(draw((n, 3, 2)), draw((n, rows, 2))) for n in (1, 2, 4)]
    problem = la.problem_from_tokens(
        clients, readout=readout, value_ridge=0.1, kernel_ridge=0.1, weights=[0.2, 0.3, 0.5]
    )
    pooled = la.pool(problem)
    assert np.array_equal(pooled.weights, problem.weights)
    assert pooled.client_sizes.tolist() == [7, 7, 7]
    for i in range(3):
        held = pooled.statistics.take(pooled.client(i))
        assert all(
            a is None or np.array_equal(a, b) for a, b in zip(problem.statistics, held, strict=True)
        )


def test_rank_one_statistics_expand_to_the_moments():
    tokens, targets = RNG.standard_normal((4, 3, 2)), RNG.standard_normal((4, 1, 5))
    problem = la.problem_from_tokens(
        [(tokens, targets)], readout="last", value_ridge=1, kernel_ridge=0
    )
    u, y = tokens[:, -1], targets[:, 0]
    assert np.allclose(problem.statistics.query_moments(), np.einsum("sa,sb->sab", u, u))
    assert np.allclose(problem.statistics.cross_moments(), np.einsum("sa,sc->sac", u, y))
    assert problem.num_outputs == 5
