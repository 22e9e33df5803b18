"""The comparison of participations: its rows against single ends, digits, and what is said."""

import numpy as np
import pytest

from linattn.analysis.budget import KINDS
from linattn.analysis.participation import ENDS, Plan, tuned_ends
from linattn.experiments import load_results
from linattn.report.words import number
from scripts import fill, module, simulation

HELD = simulation("participation")
(SPEC, *_) = HELD.specs("tiny")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    fill(folder, "participation", HELD.specs("tiny"))
    return folder


def test_rows_are_tuned_ends(store):
    (first, _) = load_results(store, "participation")
    world, data = SPEC.world(), first.dataset
    plan = Plan(SPEC.rounds, SPEC.local_steps, 0.3, SPEC.num_draws, SPEC.num_lengths)
    alone = tuned_ends(world.problem, world.params, plan, unit_step=world.local_lr)
    row = data.sel(participation=0.3)
    for name, values in alone._asdict().items():
        np.testing.assert_array_equal(row[name].values, values)
    assert data.budget.values.tolist() == list(KINDS)
    assert data.end.values.tolist() == list(ENDS)


def test_digits_are_scored_by_what_clients_keep_for_testing():
    world = HELD.spec(data="digits").world()
    assert world.problem.num_clients == 14
    assert 0.0 <= world.share_right([world.params] * 14) <= 0.3  # a start that knows nothing


def test_the_check_notices_a_loss_below_the_profile(store):
    (check,) = HELD.checks
    data = load_results(store, "participation")[0].dataset
    assert check([data]).status == "holds"
    assert check([data.assign(loss=data.loss - 1.0)]).status == "violated"


def test_the_figure_says_the_paired_ratio(store):
    figure, results = module("participation", "figures"), load_results(store, "participation")
    ratios = []
    for result in results:
        held = result.dataset
        loss = held.loss.sel(budget="multiply_adds") - held.reference
        few = loss.sel(participation=0.3, end="fed_frozen_exact")
        ratios.append(float(few / loss.sel(participation=1.0, end="fed_avg")))
    said = figure.summary(results)
    below = sum(ratio < 1.0 for ratio in ratios)
    line = next(line for line in said.splitlines() if "client work" in line)
    assert f"value round: {number(float(np.median(ratios)))} [" in line
    assert f"below 1 in {below} of 2, of the loss of FedAvg of everybody" in line


def test_refusals():
    with pytest.raises(ValueError, match="participation must be distinct"):
        HELD.spec(participation=(0.5, 0.5))
