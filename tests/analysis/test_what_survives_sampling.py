"""Which statements outlive sampling, minibatches and unequal work: the instances of paper_notes.md.

Every entry of the table there is an instance here: *pathwise* on each draw, *in expectation* only,
or *not*, by an instance that breaks it.
"""

import dataclasses
import re
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from bridge import relative_error
from method_cases import WEIGHTS, case, uneven_case
from pages import NOTES, ROOT

import linattn as la
from linattn.analysis.descent_steps import descent_steps
from linattn.analysis.outcomes import frozen_ensemble
from linattn.analysis.trajectory import local_paths
from linattn.linalg import stack_heads
from linattn.objectives.population import population
from linattn.theory import published
from linattn.theory.bias import bound_with
from linattn.theory.consensus import consensus_chain
from linattn.theory.inexact import descent_chain, measured_moduli

STEPS = [1, 4, 2, 3]
RANDOM = {
    "sampling": {"local_steps": 3, "participation": 0.5, "seed": 2},
    "minibatches": {"local_steps": 3, "batch_size": 2, "seed": 2},
    "unequal work": {"local_steps": STEPS},
    "all": {"local_steps": STEPS, "participation": 0.5, "batch_size": 2, "seed": 2,
            "sampling": "weighted", "stragglers": 0.5},
}  # fmt: skip
EACH = pytest.mark.parametrize("name", RANDOM)


# ------------------------------------------------------------------------ pathwise


@EACH
@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_c4_is_pathwise(name, kind):
    problem, params, step = uneven_case(kind, 3)
    ledger = la.descent_certificate(problem, params, rounds=5, local_lr=2 * step, **RANDOM[name])
    scale = abs(float(ledger["profile"][0])) + float(ledger["descent_paid"][-1])
    assert int(ledger["violations"].sum()) == 0
    assert np.abs(ledger["residual"]).max() < 1e-12 * scale


@EACH
def test_c5_recursion_is_pathwise_with_the_applied_gradient(name):
    """Δ⁺ = (I − ηA)Δ − ηε_V − [V*(B⁺) − V*(B)], ε_V = Σ w_i ĝ_i − ∂_VF of those who work."""
    problem, params, step = uneven_case("merged", 3)
    held, value = population(problem), params.layout.slices["value"]
    paths = list(local_paths(problem, params, rounds=3, local_lr=step, **RANDOM[name]))
    assert len(paths) == 3
    for path in paths:
        for e, gradients in enumerate(path.gradients):
            here, there = (la.Params(params.layout, flat) for flat in path.mean[e : e + 2])
            before, after = (held.value_system(at.kernels()) for at in (here, there))
            applied = path.weights @ gradients[:, value]
            error = (applied - held.value_and_gradient(here)[1][value]).reshape(
                before.minimizer.shape
            )
            lag = stack_heads(here.value) - before.minimizer
            moved = after.minimizer - before.minimizer
            predicted = lag - step * (before.hessian @ lag) - step * error - moved
            found = stack_heads(there.value) - after.minimizer
            scale = np.linalg.norm(lag) + np.linalg.norm(after.minimizer)
            assert np.linalg.norm(found - predicted) < 1e-12 * scale


@EACH
def test_c14_is_pathwise(name):
    problem, params, step = uneven_case("merged", 3)
    steps = descent_steps(problem, params, rounds=4, local_lr=step, **RANDOM[name])
    assert steps.eta_L.max() <= 1.0
    moduli = measured_moduli(steps.profile[:-1], steps.slopes_sq, step)
    chain = descent_chain(float(steps.profile[0]), step, moduli, steps.errors_sq)
    assert (steps.profile[1:] <= chain * (1 + 1e-12)).all()


@EACH
def test_c13_certified_is_pathwise(name):
    """Every warm-up round that the rule accepts lowers P, whoever took part."""
    rule, accepted = la.fed_frozen(warmup_rounds=la.freeze_rule("certified")), 0
    for seed in range(12):
        problem, params, step = uneven_case("merged", seed)
        run = la.run(rule, problem, params, rounds=20, local_lr=step, metrics=["profile"],
                     **(RANDOM[name] | {"seed": seed}))  # fmt: skip
        last = 20 if run.freeze_round is None else run.freeze_round
        falls = np.diff(run.columns["profile"][1 : last + 1])
        assert (falls < 0).all()
        accepted += len(falls)
    assert accepted >= 10


@EACH
def test_one_exact_round_is_pathwise(name):
    problem, params, step = uneven_case("merged", 3)
    method = la.fed_frozen(warmup_rounds=2, frozen="one_shot")
    run = la.run(method, problem, params, rounds=3, local_lr=step, **RANDOM[name])
    assert run.columns["gap"][3] < 1e-24 * run.columns["gap"][2]


def test_c21_is_pathwise_under_unequal_work():
    problem, params, step = uneven_case("merged", 3)
    options = {"local_steps": STEPS, "local_lr": step}
    run = la.run(la.fed_frozen(warmup_rounds=0), problem, params, rounds=6, **options)
    stage = la.frozen_stage(problem, params, **options)
    assert relative_error(run.params.value, stage.after(6)) < 1e-12
    # Sampled without bias, the mean is C21 to the bit, and single runs are elsewhere.
    random = {"participation": 0.5, "sampling": "weighted"}
    assert np.array_equal(
        la.frozen_moments(problem, params, **options, **random).mean(6), stage.after(6)
    )
    drawn = la.run(la.fed_frozen(warmup_rounds=0), problem, params, rounds=6, **options, **random)
    assert relative_error(drawn.params.value, stage.after(6)) > 1e-2


def test_c24_is_pathwise_under_unequal_work():
    problem, params, step = uneven_case("merged", 3)
    options = {"rounds": 6, "local_steps": STEPS, "local_lr": step}
    run = la.run(la.fed_avg(), problem, params, record_params=True, **options)
    for more in ({"tolerance": 0.0}, {"passes": 6}):  # each pass has one more round right
        predicted = la.predict_run(problem, params, check_chaos=False, **options, **more)
        for one, other in zip(predicted.path, run.path, strict=True):
            assert relative_error(one.flat, other.flat) < 1e-12


# ------------------------------------------------------------------------ in expectation


@pytest.mark.parametrize(
    "random",
    [{"participation": 0.5, "sampling": "weighted"}, {"batch_size": 2}],
    ids=["sampling", "minibatches"],
)
def test_c7_and_c8_are_those_of_the_mean(random):
    """Single runs are elsewhere; E[V_t] is C7 with E[w_i] = p_i, to the bit."""
    problem, params, step = uneven_case("merged", 3)
    options = {"local_steps": 3, "local_lr": step}
    stage = la.frozen_stage(problem, params, **options)
    moments = la.frozen_moments(problem, params, **options, **random)
    assert np.array_equal(moments.mean(5), stage.after(5))
    assert np.array_equal(moments.stage.bias, stage.bias)
    run = la.run(la.fed_frozen(warmup_rounds=0), problem, params, rounds=5, **options, **random)
    assert relative_error(run.params.value, stage.after(5)) > 1e-2


def test_a_round_is_its_impulse_in_expectation_over_clients():
    """Mean over all subsets: the round of everybody with E[w_i], from the same point."""
    problem, params, step = uneven_case("merged", 3)
    options = {"rounds": 1, "local_steps": 3, "local_lr": 4 * step}
    subsets = list(combinations(range(4), 2))
    ends = [
        la.run(la.fed_avg(), pair_of(problem, pair), params, **options).params.flat
        for pair in subsets
    ]
    weights = np.zeros(4)
    for pair in subsets:
        weights[list(pair)] += WEIGHTS[list(pair)] / WEIGHTS[list(pair)].sum() / len(subsets)
    applied = dataclasses.replace(problem, weights=weights)
    predicted = la.predict_run(applied, params, tolerance=0.0, check_chaos=False, **options)
    assert relative_error(np.mean(ends, axis=0), predicted.path[1].flat) < 1e-13
    assert min(relative_error(end, predicted.path[1].flat) for end in ends) > 1e-2


def pair_of(problem, clients):
    """Some clients with their weights rescaled."""
    chosen = WEIGHTS[list(clients)]
    return dataclasses.replace(problem.subset(list(clients)), weights=chosen / chosen.sum())


@pytest.mark.parametrize("name", ["sampling", "minibatches", "all"])
def test_c9_needs_the_noise(name):
    problem, params, step = uneven_case("merged", 3)
    params = params.replace(value=la.ValueBlock(problem, params).minimizer())
    settings = RANDOM[name] | {"local_lr": step}
    moments = la.frozen_moments(
        problem, params, **{k: v for k, v in settings.items() if k != "seed"}
    )
    found = frozen_ensemble(problem, params, num_runs=200, rounds=5, **settings)
    assert abs(found.mean - moments.expected_gap(5)) < 4 * found.standard_error
    assert found.mean - moments.bias(5) > 4 * found.standard_error


# ------------------------------------------------------------------------ not


def test_c7_is_not_that_of_the_mean_for_renormalized_weights():
    """Uniform sampling of unequal p: at E = 1 C8 has no bias, the mean does, beyond every bound."""
    problem, params, step = uneven_case("merged", 3)
    options = {"local_steps": 1, "local_lr": step}
    stage = la.frozen_stage(problem, params, **options)
    moments = la.frozen_moments(problem, params, participation=0.5, **options)
    assert not stage.bias.any()
    assert stage.bias_bound == 0.0
    assert np.linalg.norm(moments.stage.bias) > 1e-2 * np.linalg.norm(stage.minimizer)
    assert moments.stage.bias_bound is None


def test_c8_bound_is_not_one_of_unequal_work():
    """It vanishes with η, objective inconsistency does not."""
    problem, params, step = uneven_case("merged", 3)
    for share in (1e-3, 1e-5):
        options = {"local_lr": share * step}
        stage = la.frozen_stage(problem, params, local_steps=STEPS, **options)
        equal = la.frozen_stage(problem, params, local_steps=max(STEPS), **options)
        forced = bound_with(equal, 0.5 * equal.local_lr * (max(STEPS) - 1))
        assert np.linalg.norm(stage.bias) > 10 * forced


@pytest.mark.parametrize("name", ["sampling", "minibatches"])
def test_bounds_of_the_loss_do_not_cover_noise(name):
    """Started at V*, for ever: the bounds are of the order of η², the noise floor of that of η."""
    problem, params, step = uneven_case("merged", 3)
    random = {k: v for k, v in RANDOM[name].items() if k != "seed"} | {"local_steps": 2}
    for share in (1e-3, 1e-5):
        stage = la.frozen_stage(problem, params, local_steps=2, local_lr=share * step)
        eta, largest = stage.local_lr, stage.largest_step_curvature / stage.local_lr
        spread = float(WEIGHTS @ np.sum(stage.gradients_at_minimizer**2, axis=(1, 2)))
        assert published.khaled_step(largest, 2) >= eta
        floors = (24.0 * eta**2 * spread * 4 * largest, 18.0 * 4 * eta**2 * largest * spread)
        moments = la.frozen_moments(problem, params, local_lr=eta, sampling="weighted", **random)
        assert moments.floor_parts.noise > 1.5 * max(floors)


@pytest.mark.parametrize("name", ["minibatches", "unequal work"])
def test_c6_is_not_one_of_minibatches_or_unequal_work(name):
    """Identical clients have ζ = 0, so the chain stays at zero; they drift apart all the same."""
    problem, params, step = case("merged", 3)
    pooled = la.pool(problem)
    (path,) = local_paths(pooled, params, rounds=1, local_lr=step, **RANDOM[name])
    spread = path.spread(path.places)
    count = len(spread) - 1
    chain = consensus_chain(step, np.full(count, 100.0), np.zeros(count))
    assert not chain.any()
    assert spread[-1] > 1e-3 * np.linalg.norm(params.flat)
    # Sampling of clients alone keeps it: those who take part are as alike as all.
    (kept,) = local_paths(pooled, params, rounds=1, local_lr=step, **RANDOM["sampling"])
    assert kept.spread(kept.places).max() < 1e-13 * np.linalg.norm(params.flat)


@pytest.mark.parametrize(("name", "stays"), [
    ("sampling", True), ("unequal work", True), ("minibatches", False),
])  # fmt: skip
def test_the_fixed_point_of_control_variates(name, stays):
    """V* with c_i = g_i* is fixed whoever takes part and works however long; not on minibatches."""
    problem, params, step = uneven_case("merged", 3)
    at = params.replace(value=la.ValueBlock(problem, params).minimizer())
    oracle, kernel = problem.oracle(params), params.layout.mask(params.layout.kernel_blocks)
    slopes = [np.where(kernel, 0.0, oracle.gradient(i, at.flat)) for i in range(4)]
    method = dataclasses.replace(
        la.fed_frozen(warmup_rounds=0),
        direction=lambda context, client, *memory: la.Direction(shift=-slopes[client]),
    )
    run = la.run(method, problem, at, rounds=4, local_lr=step, **RANDOM[name])
    moved = np.linalg.norm(run.params.flat - at.flat) / np.linalg.norm(at.flat)
    assert (moved < 1e-13) == stays
    assert stays or moved > 1e-3


def test_a_round_is_not_its_impulse_in_expectation_over_minibatches():
    """Two steps on all pairs of batches: exact at the first step, of the order of η² after it."""
    problem, params, _ = uneven_case("merged", 3)
    oracle = problem.subset([0]).oracle(params)
    batches = [np.array(pair) for pair in combinations(range(5), 2)]

    def mean_over_batches(flat):
        return np.mean([oracle.gradient(0, flat, batch) for batch in batches], axis=0)

    apart = []
    for step in (1e-3, 5e-4):
        full = params.flat - step * oracle.gradient(0, params.flat)
        first = [params.flat - step * oracle.gradient(0, params.flat, b) for b in batches]
        assert relative_error(np.mean(first, axis=0), full) < 1e-13
        second = np.mean([flat - step * mean_over_batches(flat) for flat in first], axis=0)
        apart.append(np.linalg.norm(second - (full - step * oracle.gradient(0, full))))
    assert apart[0] > 1e-10
    assert 6.0 < apart[0] / apart[1] < 10.0  # η³: the second derivative of ∇F, twice a scatter of η


@pytest.mark.parametrize("name", ["sampling", "minibatches"])
def test_c23_and_c24_are_not_those_of_draws(name):
    """Their path is that of everybody on full batches; draws scatter, and their mean is shifted."""
    problem, params, step = case("merged", 3)
    options = {"rounds": 12, "local_lr": step}
    drawn = RANDOM[name] | options
    predicted = la.predict_run(
        problem, params, local_steps=3, tolerance=0.0, check_chaos=False, **options
    )
    ends = np.array([
        la.run(la.fed_avg(), problem, params, metrics=(), **(drawn | {"seed": seed})).params.flat
        for seed in range(200)
    ])  # fmt: skip
    there = predicted.path[-1].flat
    mean, error = ends.mean(axis=0), ends.std(axis=0, ddof=1) / np.sqrt(200)
    assert min(relative_error(end, there) for end in ends) > 1e-3
    # Unshifted standardized means have mean square 1, and if all were one, a spread of 2^½.
    assert np.mean(((mean - there) / error) ** 2) > 1 + 4 * np.sqrt(2)


# ------------------------------------------------------------------------ the table


class Entry(NamedTuple):
    """A row of the table of paper_notes.md."""

    statement: str
    verdicts: tuple[str, ...]
    instances: tuple[str, ...]


TABLE = "| statement | sampling of clients | minibatches | unequal work, stragglers | instance |"
WORDS = ("pathwise", "in expectation", "not", "outside", "refused", "for the mean", "as C21")
CLAIMS = {f"C{k}" for k in range(1, 25)} - {"C17", "C18"} | {"C4f", "C3f"}


def entries():
    text = NOTES.read_text(encoding="utf-8")
    lines = text[text.index(TABLE) :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [Entry(r[0], tuple(r[1:4]), tuple(re.findall(r"`([^`]+)`", r[4]))) for r in rows]


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.statement)
def test_every_row_has_a_verdict_and_an_instance(entry):
    """Instances are tests, here or where the row says; statements about points need none."""
    assert all(v.startswith(WORDS) for v in entry.verdicts)
    if set(entry.verdicts) != {"outside"}:
        assert entry.instances
    for name in entry.instances:
        file, _, test = name.rpartition("::") if "::" in name else ("", "", name)
        held = ROOT / file if file else Path(__file__)
        if name.endswith(".py"):
            assert (ROOT / name).exists()
        else:
            assert f"\ndef {test}(" in held.read_text(encoding="utf-8"), name


def test_every_claim_is_in_the_table():
    told = re.findall(r"\bC\d+f?", " ".join(entry.statement for entry in entries()))
    assert set(told) >= CLAIMS
