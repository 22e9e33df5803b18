"""Runs of several rounds at once beside the same runs with every round on its own."""

import numpy as np

import linattn as la
from linattn.federated import rounds


def both(monkeypatch, *arguments, **settings):
    """A run as it is, and with every round on its own."""
    together = la.run(*arguments, record_params=True, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(rounds, "may_stretch", lambda driver: False)
        return together, la.run(*arguments, record_params=True, **settings)


def check_same(one, other):
    """Every number of two runs is the same, bit for bit."""
    assert (one.freeze_round, one.outcome) == (other.freeze_round, other.outcome)
    assert np.array_equal([p.flat for p in one.path], [p.flat for p in other.path], equal_nan=True)
    assert np.array_equal(one.params.flat, other.params.flat)
    assert all(
        np.array_equal(a.flat, b.flat)
        for a, b in zip(one.client_params, other.client_params, strict=True)
    )
    assert one.columns.keys() == other.columns.keys()
    for name, values in one.columns.items():
        assert np.array_equal(values, other.columns[name], equal_nan=True), name
