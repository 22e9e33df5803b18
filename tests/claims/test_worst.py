"""The tightest instances ever found: replayed, and the search that finds them."""

from pathlib import Path

import numpy as np
import pytest

import linattn as la
from linattn.claims import get_claim
from linattn.claims.adversary import BOX, FORBIDDEN, OPTIMIZERS, Part, decode, search, sizes
from linattn.claims.table import check_instance
from linattn.claims.worst import Found, file_name, joined, read_found, write_found

STORED = sorted((Path(__file__).parent / "worst").glob("*.json"))
# Recalled bounds that the search refuted, as recalled.
REFUTED = {"Charles–Konečný alignment"}


def test_every_bound_has_a_stored_instance():
    bounds = {claim.id for claim in la.claims() if claim.kind in ("upper", "lower")}
    assert {read_found(path).claim for path in STORED} == bounds


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_the_tightest_instance_is_replayed(path):
    """The point decodes to the same instance, on which the claim still holds."""
    found = read_found(path)
    claim = get_claim(found.claim)
    verdict = check_instance(claim, found.instance)
    assert path.name == file_name(found.claim)
    assert verdict.tightness == pytest.approx(found.tightness, rel=1e-6)
    if claim.id in REFUTED:
        assert claim.provenance == "recalled"
        assert verdict.status == "violated"
    else:
        assert verdict.status == "holds"
        assert verdict.tightness >= 1.0 - 1e-6


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_the_search_was_long_enough_and_beat_random_search(path):
    found = read_found(path)
    assert found.evaluations >= 20_000
    assert found.tightness < found.random_quantile
    assert found.optimizer in ("differential evolution", "dual annealing", "Nelder–Mead")


@pytest.mark.parametrize("factored", [False, True])
def test_every_point_of_the_box_is_an_instance(factored):
    size = sum(sizes(factored=factored))
    for corner in (-BOX, 0.3, BOX):
        instance = decode(np.full(size, corner), factored=factored)
        assert instance.params.is_factored is factored
        assert 1 <= instance.local_steps <= 16
        assert 1e-4 * (1 - 1e-9) <= instance.problem.value_ridge <= 1 + 1e-9
        assert instance.problem.weights.sum() == pytest.approx(1.0)
    first, second = (decode(np.full(size, c), factored=factored) for c in (-1.0, 1.0))
    assert first.local_lr * la.safe_step(second.problem, second.params) < second.local_lr * (
        la.safe_step(first.problem, first.params)
    )


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_search_improves_on_random_instances(optimizer):
    claim = get_claim("C3 bound")
    part = search(claim, optimizer, evaluations=300, seed=1)
    assert part.evaluations <= 300
    assert 0.0 - 1e-9 <= part.value <= part.random.min()
    assert part.at_random == (part.value == part.random.min())
    again = search(claim, optimizer, evaluations=300, seed=1)
    assert np.array_equal(again.vector, part.vector)
    replayed = check_instance(claim, decode(part.vector, factored=False))
    assert np.log(replayed.tightness) == pytest.approx(part.value, rel=1e-12)


def test_the_best_of_all_parts_is_found():
    def part(value, at_random=False):
        return Part(np.full(3, value), value, at_random, np.array([1.0, 3.0]), 5)

    found = joined("C3 bound", False, {"A": [part(0.5), part(0.2)], "B": [part(0.3)]})
    assert (found.optimizer, found.tightness, found.evaluations) == ("A", np.exp(0.2), 15)
    assert found.random_quantile == pytest.approx(np.e, rel=1e-2)
    assert joined("C3 bound", False, {"B": [part(0.1, at_random=True)]}).optimizer == (
        "random search"
    )
    with pytest.raises(ValueError, match="not judged on any of 5 instances"):
        joined("C3 bound", False, {"A": [part(FORBIDDEN)]})


def test_search_refuses_what_has_no_tightness():
    with pytest.raises(ValueError, match="claim must be an upper or lower bound, got C3"):
        search(get_claim("C3"), "Nelder–Mead", evaluations=20)
    with pytest.raises(ValueError, match="optimizer must be"):
        search(get_claim("C3 bound"), "guess", evaluations=20)
    nowhere = search(get_claim("C3 bound"), "Nelder–Mead", evaluations=20, factored=True)
    assert nowhere.value >= FORBIDDEN


def test_a_point_survives_its_file(tmp_path):
    vector = tuple(np.random.default_rng(0).normal(size=sum(sizes(factored=True))).tolist())
    found = Found("C8 bound", True, vector, 1.5, 2.0, 10, "Nelder–Mead")
    assert read_found(write_found(tmp_path, found)) == found
