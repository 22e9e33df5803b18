"""Defects that were reported of other public tools, asked of this one.

Which report is held by which test stands in the notes, "What was reported elsewhere"; here are
those that no test of a room holds.
"""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest
from bridge import relative_error
from experiments.toy import SIMULATION, ToySpec
from pages import NOTES, ROOT
from worlds import world

import linattn as la
from linattn.data.partition import partition
from linattn.federated.rounds import choose_participants
from scripts import put

BASE = {"rounds": 4, "local_steps": 3, "local_lr": 0.05}


def test_every_report_names_tests_that_are_there():
    text = NOTES.read_text(encoding="utf-8")
    part = text[text.index("### What was reported elsewhere") :].split("\n#", 1)[0]
    rows = [line for line in part.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for path, name in named:
            assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), row


def test_a_client_listed_twice_has_twice_the_weight(small_problem, small_params):
    """Averages elsewhere were unweighted."""
    sizes, every = small_problem.client_sizes, np.arange(small_problem.num_sequences)
    counts = np.array([sizes[0], *sizes], dtype=float)
    shares = counts / counts.sum()
    twice = small_problem.rearranged(
        np.concatenate([every[: sizes[0]], every]), np.cumsum([0, sizes[0], *sizes]), shares
    )
    doubled = np.array([2 * shares[0], *shares[2:]])
    once = small_problem.rearranged(every, small_problem.offsets, doubled)
    listed, weighted = (la.run(la.fed_avg(), p, small_params, **BASE) for p in (twice, once))
    assert relative_error(listed.params.flat, weighted.params.flat) < 1e-13


def test_participants_depend_on_seed_and_round_and_pairs_are_uniform():
    """Elsewhere the draw was seeded by the round alone, or seed s + 1 was seed s a round later."""
    draws = {
        (s, t): tuple(choose_participants(6, 1 / 3, s, t)) for s in range(12) for t in range(200)
    }
    sequences = {tuple(draws[s, t] for t in range(199)) for s in range(12)}
    later = {tuple(draws[s, t] for t in range(1, 200)) for s in range(12)}
    assert len(sequences) == len(later) == 12
    assert not sequences & later
    counts = Counter(draws.values())
    assert set(counts) == set(combinations(range(6), 2))
    expected = len(draws) / 15
    chi_sq = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi_sq < 36.1  # 14 degrees of freedom, once in a thousand


def test_a_run_inside_a_measurement_changes_nothing(small_problem, small_params):
    """Evaluation elsewhere drew from the stream of training."""

    def nested(params):
        inner = la.run(la.fed_avg(), small_problem, params, participation=0.5, batch_size=2, **BASE)
        return {"inner": inner.columns["objective"][-1]}

    drawn = {**BASE, "participation": 0.5, "batch_size": 2, "seed": 3}
    plain = la.run(la.fed_avg(), small_problem, small_params, **drawn)
    measured = la.run(la.fed_avg(), small_problem, small_params, evaluate=nested, **drawn)
    assert np.array_equal(plain.params.flat, measured.params.flat)


def test_row_t_measures_the_model_after_round_t(small_problem, small_params):
    """Elsewhere the model of the round before was evaluated."""
    result = la.run(
        la.fed_avg(), small_problem, small_params, record_params=True,
        evaluate=lambda params: {"size": np.linalg.norm(params.flat)}, **BASE,
    )  # fmt: skip
    assert np.array_equal(
        result.columns["size"], [np.linalg.norm(params.flat) for params in result.path]
    )


@pytest.mark.parametrize("batch_size", [None, 2])
def test_threads_share_a_fresh_problem(small_params, batch_size):
    """Lazy caches of one object, filled by several threads at once."""

    def run(problem):
        return la.run(la.fed_avg(), problem, small_params, batch_size=batch_size, **BASE).params

    shared = world()
    with ThreadPoolExecutor(8) as executor:
        together = list(executor.map(run, [shared] * 8))
    alone = run(world())
    assert all(np.array_equal(params.flat, alone.flat) for params in together)


@pytest.mark.parametrize("alpha", [5e-324, 1e-300, 1e-3, 1e100])
@pytest.mark.parametrize("clients", [1, 60, 600])
def test_any_concentration_leaves_nobody_empty(alpha, clients):
    """Redrawn for ever elsewhere, or NaN; warnings are errors here."""
    labels = np.repeat(np.arange(10), 60)
    parts = partition(labels, "dirichlet", num_clients=clients, alpha=alpha, seed=1)
    assert sorted(np.concatenate(parts)) == list(range(600))
    assert min(map(len, parts)) >= 1


def test_stored_arrays_come_back_in_the_order_of_this_machine(tmp_path):
    """NetCDF-3 is big-endian, and tables built of such arrays cannot be grouped."""
    put(tmp_path, SIMULATION, ToySpec())
    (result,) = la.load_results(tmp_path, "toy")
    for name, variable in result.dataset.variables.items():
        assert variable.dtype.isnative, name


@pytest.mark.parametrize("scale", [1e-150, 1e20])
def test_data_of_any_scale_give_no_nan(scale):
    """Unscaled data elsewhere did."""
    rng = np.random.default_rng(0)
    clients = [(scale * rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 1))) for _ in range(2)]
    problem = la.problem_from_tokens(clients, value_ridge=0.1, kernel_ridge=0.1)
    step = la.safe_step(problem, la.initial_params(problem))
    text = str(la.assess(problem, rounds=4, local_steps=2, local_lr=step))
    assert text
    assert "nan" not in text.lower()
