"""Named streams: defined by seed, name and indices, and by nothing else."""

import hashlib

import numpy as np
import pytest
from bridge import over
from hypothesis import strategies as st
from processes import printed

from linattn.streams import stream


def by_definition(seed, name, *ids):
    """The documented recipe, written out again."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key, *ids))))


@over(st.integers(0, 2**63), st.text(max_size=8), st.lists(st.integers(0, 99), max_size=3))
def test_a_stream_is_its_documented_recipe(seed, name, ids):
    assert np.array_equal(
        stream(seed, name, *ids).integers(0, 2**62, 4),
        by_definition(seed, name, *ids).integers(0, 2**62, 4),
    )


def test_streams_are_the_same_in_another_process_with_another_hash_seed():
    code = "from linattn.streams import stream; print(stream(7, 'tokens', 2).integers(0, 2**62))"
    found = int(printed("-c", code, PYTHONHASHSEED="123"))
    assert found == stream(7, "tokens", 2).integers(0, 2**62)


def test_different_seeds_names_and_indices_give_different_numbers():
    keys = [(0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 0), (0, "a", 1, 0)]
    drawn = {int(stream(*key).integers(0, 2**62)) for key in keys}
    assert len(drawn) == len(keys)


def test_streams_do_not_interfere():
    alone = stream(0, "noise", 1).normal(size=3)
    stream(0, "tokens", 1).normal(size=100)
    assert np.array_equal(stream(0, "noise", 1).normal(size=3), alone)


@pytest.mark.parametrize("arguments", [(-1, "a"), (0, "a", -1), (0, "a", 2, -3)])
def test_negative_seeds_and_indices_are_refused(arguments):
    with pytest.raises(ValueError, match="seed and stream indices must be >= 0"):
        stream(*arguments)
