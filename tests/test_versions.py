"""The script that tries versions reads every requirement, and says which Python is not there."""

import pytest
import try_versions


def test_every_requirement_has_a_lower_bound():
    bounds = try_versions.lower_bounds(try_versions.declared())
    assert {"numpy", "numba", "typer", "pytest", "hypothesis"} <= bounds.keys()
    assert len(bounds) == len(try_versions.declared())


def test_a_requirement_without_a_lower_bound_is_refused():
    with pytest.raises(ValueError, match="must be NAME>=VERSION, got 'numpy<3'"):
        try_versions.lower_bounds(["scipy>=1.13", "numpy<3"])


def test_an_interpreter_that_is_not_there_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(try_versions, "interpreter", lambda version: None)
    found = try_versions.attempt("newest-3.13", tmp_path, [])
    assert found == {"combination": "newest-3.13", "outcome": "no Python 3.13 here"}
