"""Tuned ends at several participations against studies of the same runs, and what they refuse."""

import numpy as np
import pytest
from method_cases import case

import linattn as la
from linattn.analysis.budget import KINDS, TwoStageCost
from linattn.analysis.participation import ENDS, Plan, _beyond, _chosen, _Ends, tuned_ends

PLAN = Plan(rounds=6, local_steps=3, participation=0.5, num_draws=2, num_lengths=3)
STAGES = {"fed_frozen": 0.5, "fed_frozen_all": 1.0, "fed_frozen_exact": 1.0}


@pytest.fixture(scope="module")
def instance():
    problem, params, step = case("merged", 4)
    scores = tuned_ends(problem, params, PLAN, unit_step=step, evaluate=lambda at: at.value.sum())
    return problem, params, step, scores


def amount(problem, params, kind):
    """What FedAvg of everybody spends."""
    cost = TwoStageCost(problem, params, kind, local_steps=3, participation=1.0,
                        frozen_participation=1.0, seed=0)  # fmt: skip
    return float(cost.warmup(PLAN.rounds)[-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", STAGES)
def test_chosen_on_one_half_and_measured_on_the_other(instance, kind, end):
    """The study makes the same runs on its own; the choice is repeated by a plain loop."""
    problem, params, unit, found = instance
    place = KINDS.index(kind), ENDS.index(end)
    tried = [unit * 2.0**k for k in range(-6, 5)]
    most = int(max(found.rounds[place[0], place[1]], 0))
    lengths = sorted({round(most * f**2) for f in np.linspace(0, 1, PLAN.num_lengths)})
    name = end.replace("_all", "")
    study = la.study(
        problem, params, methods=(name,), local_lrs=tried, local_steps=3, participation=0.5,
        frozen_participation=STAGES[end], warmup_lengths=lengths, seeds=range(2),
        **{kind: amount(problem, params, kind)},
    )  # fmt: skip
    losses = np.nan_to_num(study.losses(name)[0], nan=np.inf)  # (steps, seeds, lengths)
    measured = []
    for chosen_on, other in ((0, 1), (1, 0)):
        step, length = np.unravel_index(losses[:, chosen_on].argmin(), losses[:, 0].shape)
        measured.append(losses[step, other, length])
    assert found.interior[place]
    assert found.loss[place] == pytest.approx(np.mean(measured), rel=1e-10)
    assert found.standard_error[place] == pytest.approx(np.std(measured, ddof=1) / np.sqrt(2))


def test_everybody_is_one_run(instance):
    problem, params, unit, _ = instance
    found = tuned_ends(problem, params, PLAN._replace(participation=1.0), unit_step=unit)
    steps = [float(s) for s in np.unique(found.local_lr)]
    ends = {
        step: la.run(la.fed_avg(), problem, params, rounds=6, local_steps=3, local_lr=step)
        for step in steps
    }
    for k in range(3):
        step = float(found.local_lr[k, 0])
        assert found.loss[k, 0] == pytest.approx(ends[step].history["objective"].values[-1])
        assert (found.loss[k, 1], found.noise[k, 1]) == (found.loss[k, 2], 0.0)
    assert not found.standard_error.any()


def test_ends_are_ordered_and_scored(instance):
    *_, found = instance
    assert (found.profile <= found.loss).all()
    np.testing.assert_array_equal(found.profile[:, 3], found.loss[:, 3])
    assert found.noise[0, 1] > 0.0  # frozen rounds of half of the clients
    np.testing.assert_array_equal(found.noise[:, [0, 2, 3]], 0.0)
    np.testing.assert_array_equal(np.isnan(found.score), [[False, True, True, False]] * 3)
    assert (found.warmup <= found.rounds).all()


def flat_ends(losses):
    """Ends of given mean losses by step power, alike for all draws, budgets and ends."""
    return {
        power: _Ends(*(np.full((2, 3, 4, 1), float(loss)) for _ in _Ends._fields))
        for power, loss in losses.items()
    }


def test_steps_go_on_until_the_best_is_inside():
    assert _beyond(flat_ends({-1: 3, 0: 2, 1: 1})) == [2]
    assert _beyond(flat_ends({-1: 1, 0: 2, 1: 3})) == [-2]
    assert _beyond(flat_ends({-1: 3, 0: 1, 1: np.inf})) == []
    assert _beyond(flat_ends({-1: np.inf, 0: np.inf, 1: np.inf})) == [-2]
    found = _chosen(flat_ends({-1: 3, 0: 1, 1: 2}), 0.5)
    assert (found.local_lr == 0.5).all()
    assert found.interior.all()


def test_a_step_that_explodes_for_some_clients_is_not_taken():
    """After one round everything is finite, and may be beyond all measure."""
    problem = la.synthetic_problem(
        num_clients=6, sequences_per_client=4, num_tokens=4, dim=3, num_outputs=1,
        value_heterogeneity=1.0, covariate_heterogeneity=0.6, value_ridge=0.1, kernel_ridge=0.1,
    )  # fmt: skip
    params = la.initial_params(problem, value="normal")
    found = tuned_ends(problem, params, Plan(1, 5, 0.2, num_draws=4), unit_step=0.1)
    assert found.loss.max() < 10.0


def test_noise_gains_nothing():
    """Ends of pure noise have the mean of the noise, not its minimum."""
    rng = np.random.default_rng(0)
    losses = [
        _chosen({k: _Ends(*rng.normal(size=(6, 4, 3, 4, 5))) for k in range(4)}, 1.0).loss
        for _ in range(20)
    ]
    assert abs(np.mean(losses)) < 4 / np.sqrt(20 * 12 * 2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_draws": 1}, "num_draws must be"),
        ({"num_lengths": 1}, "num_lengths must be"),
        ({"participation": 0.0}, "participation must be"),
        ({"rounds": 0}, "rounds must be"),
        *(({"local_steps": count}, "local_steps must be") for count in (0, -1, 2.5, [3, 4])),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_refusals(instance, change, sentence):
    problem, params, unit, _ = instance
    with pytest.raises(ValueError, match=sentence):
        tuned_ends(problem, params, PLAN._replace(**change), unit_step=unit)
    with pytest.raises(ValueError, match="unit_step must be"):
        tuned_ends(problem, params, PLAN, unit_step=0.0)
