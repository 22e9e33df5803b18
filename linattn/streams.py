"""Named random streams: randomness has a name, so comparisons are paired by construction."""

import hashlib

import numpy as np


def stream(seed: int, name: str, *ids: int) -> np.random.Generator:
    """Return the random generator of the stream ``(seed, name, *ids)``.

    A stream depends on nothing but these, so drawing more from one never shifts another, adding a
    client never changes the data of the others, and data streams that do not mention the method
    give every method the same data.

    Parameters
    ----------
    seed : int
        Non-negative experiment seed.
    name : str
        What the numbers are for: ``"tokens"``, ``"participation"``, ...
    *ids : int
        Non-negative indices the stream may depend on, such as client and round.

    Raises
    ------
    ValueError
        If the seed or an index is negative.

    Notes
    -----
    The name enters through the first eight bytes of its SHA-256, so streams are the same on every
    platform and Python version (``hash`` of a string is not).

    Examples
    --------
    >>> bool(stream(0, "tokens", 3).normal() == stream(0, "tokens", 3).normal())
    True
    """
    if seed < 0 or any(i < 0 for i in ids):
        raise ValueError(f"seed and stream indices must be >= 0, got {(seed, *ids)}.")
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(digest, *ids)))
