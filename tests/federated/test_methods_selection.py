"""The selection problem against brute force; E1, E2 and the inequality, and a wrong weight."""

from itertools import product

import numpy as np
import pytest
from bridge import relative_error
from method_cases import NOISY, case

import linattn as la
from linattn.federated import method as method_module
from linattn.federated.method import RoundContext
from linattn.federated.selection import selection_value


def feasible(budgets, blocks):
    """All masks within the budgets."""
    rows = [
        [np.array(m, dtype=bool) for m in product([False, True], repeat=blocks) if sum(m) <= r]
        for r in budgets
    ]
    return [np.stack(choice) for choice in product(*rows)]


@pytest.mark.parametrize("consistency", [0.0, 0.05, 0.3, 1.0, 20.0])
@pytest.mark.parametrize("seed", range(4))
def test_p1_is_solved_exactly_and_best_response_stays_close(seed, consistency):
    rng = np.random.default_rng(seed)
    scores, budgets = rng.exponential(size=(3, 4)), rng.integers(1, 4, size=3)
    best = max(selection_value(m, scores, consistency) for m in feasible(budgets, 4))
    exact = la.solve_selection(scores, budgets, consistency=consistency, exact=True)
    near = la.solve_selection(scores, budgets, consistency=consistency, exact=False)
    for masks in (exact, near):
        assert (masks.sum(axis=1) <= budgets).all()
    assert selection_value(exact, scores, consistency) == pytest.approx(best, rel=1e-9)
    reached = selection_value(near, scores, consistency)
    assert reached <= best + 1e-12
    # No client gains by answering alone.
    for i in range(3):
        for row in feasible(budgets[i : i + 1], 4):
            other = near.copy()
            other[i] = row[0]
            assert selection_value(other, scores, consistency) <= reached + 1e-9


def test_the_two_ends_of_consistency():
    rng = np.random.default_rng(5)
    scores = rng.exponential(size=(5, 6))
    alone = la.solve_selection(scores, np.full(5, 2))
    assert (alone == (scores >= np.sort(scores, axis=1)[:, [-2]])).all()
    for exact in (True, False):
        together = la.solve_selection(scores, np.full(5, 2), consistency=1e3, exact=exact)
        common = scores.sum(axis=0) >= np.sort(scores.sum(axis=0))[-2]
        assert (together == common).all()
    everything = la.solve_selection(0 * scores, np.full(5, 6), consistency=0.1)
    assert everything.all()


def test_large_federations_take_best_response():
    rng = np.random.default_rng(6)
    scores, budgets = rng.exponential(size=(40, 12)), np.full(40, 3)
    masks = la.solve_selection(scores, budgets, consistency=0.02)
    alone = la.solve_selection(scores, budgets)
    assert selection_value(masks, scores, 0.02) >= selection_value(alone, scores, 0.02)


def test_pairs_and_counts_are_the_same_penalty():
    rng = np.random.default_rng(7)
    masks, scores = rng.random((5, 3)) < 0.5, np.zeros((5, 3))
    pairs = sum(
        float(masks[i, j] != masks[k, j]) for j in range(3) for i in range(5) for k in range(i)
    )
    assert selection_value(masks, scores, 1.0) == -pairs


# ------------------------------------------------------------------------ E1 and E2

ERRORS = ["unselected_gradient", "selection_skew", "selection_error"]


@pytest.mark.parametrize("noise", [{}, NOISY], ids=["full", "noisy"])
@pytest.mark.parametrize("kind", ["factored", "deep"])
def test_e2_bounds_the_error_of_the_masks_that_were_sent(kind, noise):
    for consistency in (0.0, 0.5):
        method = la.selective(budget=[1, 2, 1, 2], consistency=consistency)
        run = case(kind, 1).run(method, rounds=6, local_steps=2, metrics=ERRORS, **noise)
        columns = run.columns
        lost, skew, error = (columns[name][1:] for name in ERRORS)
        assert (error <= skew * (1 + 1e-12)).all()
        assert (skew > 0).any()
        assert (error > 0.01 * skew).any()  # not vacuous
        assert (lost >= 0).all()


def test_methods_with_common_masks_have_no_skew():
    held = case("factored", 2)
    problem, params = held.problem, held.params
    frozen = held.run(la.fed_frozen(warmup_rounds=2), local_steps=2, metrics=ERRORS)
    columns = frozen.columns
    assert (columns["selection_skew"][1:] == 0).all()
    gradient = la.Joint(problem).gradient(frozen.path[3])
    kernel = params.layout.mask(params.layout.kernel_blocks)
    assert columns["unselected_gradient"][1:3].tolist() == [0.0, 0.0]
    expected = float(np.sum(gradient.flat[kernel] ** 2))
    assert columns["unselected_gradient"][4] == pytest.approx(expected, rel=1e-10)
    drawn = {"participation": 0.5, "seed": 1}
    sampled = held.run(la.fed_avg(), local_steps=2, metrics=ERRORS, **drawn).columns
    assert (sampled["selection_error"][1:] <= sampled["selection_skew"][1:] * (1 + 1e-12)).all()
    assert (sampled["selection_skew"][1:] > 0).all()


def measured_errors(problem, params, step):
    """Per round: ‖(movement)/η − gradient‖² over trained blocks, from one local step; and E2."""
    kept: list[RoundContext] = []
    plan = la.selective(budget=1)

    def watch(context, memory):
        made = plan.plan(context, memory)
        kept.append(context._replace(plan=made))
        return made

    watched = la.Method("watched", probe=plan.probe, plan=watch)
    result = la.run(watched, problem, params, rounds=5, local_steps=1, local_lr=step,
                    record_params=True)  # fmt: skip
    out = []
    for t, context in enumerate(kept):
        mask = params.layout.mask(context.plan.trained)
        direction = (result.path[t].flat - result.path[t + 1].flat) / step
        off = (direction - la.Joint(problem).gradient(result.path[t]).flat)[mask]
        out.append((float(off @ off), la.selection_errors(context)))
    return out


def test_a_wrong_weight_breaks_the_inequality(monkeypatch):
    problem, params, step = case("factored", 3)
    honest = measured_errors(problem, params, step)
    for moved, errors in honest:
        assert moved == pytest.approx(errors.error, rel=1e-6)
        assert moved <= errors.skew * (1 + 1e-9)

    def not_renormalized(context, plan, name):
        chosen = [name in plan.trained_by(k) for k in range(len(context.participants))]
        return np.where(chosen, context.weights, 0.0)

    monkeypatch.setattr(method_module, "applied_weights", not_renormalized)
    broken = measured_errors(problem, params, step)
    assert any(moved > errors.skew * 1.01 for moved, errors in broken)


def test_scores():
    problem, params, step = case("factored", 4)
    gradients = [la.Joint(problem.subset([i])).gradient(params) for i in range(4)]
    seen = {}
    for kind in ("gradient", "relative", "snr"):
        plain = la.selective(budget=1, scores=kind)

        def watch(context, memory, plain=plain, kind=kind):
            seen[kind] = np.stack(context.probes)
            return plain.plan(context, memory)

        la.run(la.Method("w", probe=plain.probe, plan=watch), problem, params, rounds=1,
               local_steps=1, local_lr=step)  # fmt: skip
    names = params.layout.names
    squares = np.array([[np.sum(g[n] ** 2) for n in names] for g in gradients])
    sizes = np.array([np.linalg.norm(params[n]) for n in names])
    assert relative_error(seen["gradient"], squares) < 1e-11
    assert relative_error(seen["relative"], np.sqrt(squares) / sizes) < 1e-11
    assert seen["snr"].shape == (4, 3)
    assert (seen["snr"] > 0).all()


def test_a_block_that_nobody_trains_stays():
    held = case("factored", 5)
    result, params = held.run(la.selective(budget=1, consistency=1e6), rounds=1), held.params
    assert sum((result.params[n] != params[n]).any() for n in params.layout.names) == 1
