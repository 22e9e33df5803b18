"""Jobs that compare methods: every stored array says what its kind promises, on tiny presets."""

import numpy as np
import pytest

import linattn as la
from linattn.analysis.outputs import predictions, relative_mismatch
from linattn.data.worlds import InitialSpec, ModelSpec, ProblemSpec
from linattn.experiments.find import load_simulations
from linattn.experiments.specs import WorldSpec
from linattn.federated.method import observed
from scripts import run, simulation

SMALL = ProblemSpec(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3, num_outputs=2,
                    value_heterogeneity=1.0, covariate_heterogeneity=0.3)  # fmt: skip
MODEL = ModelSpec(inner_dim=2)
METHODS = simulation("methods")


def test_comparisons_have_a_spread_to_show():
    held = [s for s in load_simulations() if issubclass(s.spec, WorldSpec)]
    held = [s for s in held if s.name != "predicted_worlds"]  # compares a run with its prediction
    assert len(held) == 5
    for one in held:
        for preset in one.presets:
            assert len({spec.seed for spec in one.specs(preset)}) > 1


def test_synthetic_clients_are_those_of_the_problem():
    problem = SMALL.make(3)
    again = la.problem_from_tokens(
        SMALL.clients(3), readout="token", value_ridge=0.05, kernel_ridge=0.01
    )
    np.testing.assert_array_equal(again.statistics.gram, problem.statistics.gram)
    fresh = SMALL.clients(3, fresh=True)
    assert not np.allclose(fresh[0][0], SMALL.clients(3)[0][0])


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kernel", ["merged", "factored"])
def test_predictions_have_the_norms_of_the_loss(deep, kernel):
    """½‖F(w)‖² is F's loss with targets of zero, and one block alone has no mismatch."""
    spec = METHODS.spec(problem=SMALL, deep=deep, model=MODEL, initial=InitialSpec(kernel=kernel))
    world = spec.world()
    flat = np.random.default_rng(0).normal(size=world.params.flat.size)
    params = la.Params(world.params.layout, flat)
    oracle = world.problem.oracle(params)
    clients = SMALL.clients(0)
    model = world.problem.model if deep else None
    losses = []
    for tokens, targets in clients:
        zeros = np.zeros_like(targets)
        held = model.loss if deep else lambda p, x, y: la.loss(p, x, y, readout="token")
        losses.append(held(params, tokens, zeros))
    norm = np.linalg.norm(predictions(oracle, world.problem, params))
    scale = SMALL.num_tokens if deep else 1  # rows of the deep model are tokens, not divided by q
    assert 0.5 * norm**2 / scale == pytest.approx(np.mean(losses), rel=1e-10)


def test_observing_changes_nothing():
    spec = METHODS.spec(problem=SMALL, rounds=4, local_steps=3)
    world, seen = spec.world(), []
    for method in (la.fed_avg(), la.scaffold()):
        plain = spec.train(method, world)
        watched = spec.train(method, world, observe=lambda c, p: seen.append(c.round))
        np.testing.assert_array_equal(plain.params.flat, watched.params.flat)
    assert seen == [0, 1, 2, 3] * 2


def test_mismatch_is_that_of_the_theory():
    spec = METHODS.spec(problem=SMALL, rounds=3, local_steps=4)
    world, pairs = spec.world(), []

    def observe(context, proposal):
        models = [la.Params(context.params.layout, end) for end in proposal.ends]
        maps = la.aggregation_mismatch(world.problem, models, context.weights)
        pairs.append((relative_mismatch(context, proposal), np.abs(maps.measured).max()))

    spec.train(la.fed_avg(), world, observe=observe)
    spec.train(la.fed_part(initial_rounds=0, rounds_per_group=1), world, observe=observe)
    assert all(shown > 1e-6 and maps > 1e-8 for shown, maps in pairs[1:3])
    assert all(shown < 1e-13 for shown, _ in pairs[4:])
    assert observed(la.fed_avg(), observe).name == "fed_avg"


@pytest.mark.parametrize("deep", [False, True])
def test_methods(deep):  # `method` is an argument of xarray's sel, so names go in a mapping
    spec = METHODS.spec(
        problem=SMALL, deep=deep, model=MODEL, rounds=5, most_rounds=5, local_steps=2,
        factors=(1.0, 3.0),
    )  # fmt: skip
    found, world = METHODS.run(spec), spec.world()
    assert found.method.values.tolist() == list(spec.names())
    average = found.sel({"method": "fed_avg"})
    step = float(average.factor) * world.local_lr
    held = spec.train(la.fed_avg(), world, local_lr=step).columns["objective"]
    assert float(average.final_objective) == held[-1]
    assert found.start == held[0]
    np.testing.assert_allclose(found.target, held[-1] + 0.01 * (held[0] - held[-1]))
    reached = int(average.rounds_to_target)
    assert held[reached] <= found.target < held[reached - 1]
    assert average.floats_to_target == 2 * reached * world.params.layout.size * 3
    assert found.interior.any()
    if not deep:
        assert found.kernel_drift.sel({"method": "freeze_start"}) < 1e-14


def test_the_best_step_and_setting_are_the_best_of_all():
    spec = METHODS.spec(problem=SMALL, rounds=5, most_rounds=5, local_steps=3, factors=(0.3, 1.0),
                        methods=("fed_avg", "fed_prox"), prox=(0.0, 10.0))  # fmt: skip
    found, world = METHODS.run(spec), spec.world()
    ends = {
        (prox, factor): spec.train(
            la.fed_prox(prox=prox), world, local_lr=factor * world.local_lr
        ).columns["objective"][-1]
        for prox in spec.prox for factor in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    }  # fmt: skip
    best = found.sel({"method": "fed_prox"})
    assert float(best.final_objective) == np.nanmin(list(ends.values()))
    assert ends[float(best.setting), float(best.factor)] == best.final_objective
    assert best.final_objective == found.final_objective.sel({"method": "fed_avg"})  # prox = 0


def test_rounds_are_doubled_until_fed_avg_has_settled():
    spec = METHODS.spec(problem=SMALL, rounds=1, most_rounds=64, local_steps=3, factors=(1.0, 3.0))
    world = spec.world()
    rounds = spec.settled(world)
    assert rounds in (2, 4, 8, 16, 32, 64)
    curve = spec.tuned(la.fed_avg(), world, rounds=rounds // 2).found.columns["objective"]
    last = curve[-1 - max(1, rounds // 20)] - curve[-1]
    assert last >= 0.01 * (curve[0] - curve[-1])


def test_methods_on_real_data_have_an_accuracy():
    _, found = run("methods", data="digits", rounds=3, most_rounds=3, local_steps=2, factors=(1.0,),
                   methods=("fed_avg", "frozen_one_shot"),
                   initial=InitialSpec(scale=1.0))  # fmt: skip
    accuracy = found.test_accuracy.values
    assert ((accuracy > 0) & (accuracy < 1)).all()
    assert accuracy[1] > accuracy[0]  # one exact round against three rounds of descent


def test_second_stage_forks_are_the_whole_runs():
    spec = simulation("second_stage").spec(
        problem=SMALL, horizon=0.9, local_steps=3, local_lr=0.05, warmup_times=(0.0, 0.3),
        num_starts=2,
    )  # fmt: skip
    found = simulation("second_stage").run(spec)
    assert found.length.values.tolist() == [0, 2]
    assert np.isnan(found.gap.sel(time=0.3, round=[0, 1])).all()
    assert (found.gap.sel(stage="one_shot").isel(round=-1) < 1e-20).all()
    problem, start = spec.prepared()
    for stage in spec.stages:
        whole = la.run(la.fed_frozen(warmup_rounds=2, frozen=stage), problem, start, rounds=6,
                       metrics=("gap",), **spec.settings())  # fmt: skip
        kept = found.gap.sel(stage=stage, time=0.3)[2:]
        np.testing.assert_allclose(kept, whole.columns["gap"][2:], rtol=1e-9, atol=1e-25)
    _, long = run("second_stage", problem=SMALL, horizon=225.0, local_lr=0.05, local_steps=5,
                  warmup_times=(0.5,), stages=("fed_avg",), num_starts=2)  # fmt: skip
    np.testing.assert_allclose(long.gap[0, :, -1], long.floor, rtol=1e-6)


def test_update_jump():
    _, found = run("update_jump", problem=SMALL, rounds=5, local_steps=6)
    assert dict(found.sizes) == {"variant": 3, "round": 5}
    assert (found.mismatch.sel(variant=["one_block", "value_only"]) < 1e-13).all()
    assert (found.mismatch.sel(variant="full")[1:] > 1e-6).all()
    assert (found.after.sel(variant="value_only") > found.before.sel(variant="value_only")).all()


def test_part_schedule():
    model = ModelSpec(num_layers=3, inner_dim=2)
    _, found = run("part_schedule", problem=SMALL, model=model, rounds=6, local_steps=2,
                   initial_rounds=(2, 0), rounds_per_group=1)  # fmt: skip
    orders = ["fed_avg", "sequential, 2", "reverse, 2", "random, 2", "sequential, 0"]
    assert found.schedule.values.tolist() == orders
    first = found.isel(round=2)
    np.testing.assert_array_equal(first.objective[:4], first.objective[0])  # the full rounds
    assert (found.floats[1:, -1] < found.floats[0, -1]).all()
    assert (found.multiply_adds[1:, -1] < found.multiply_adds[0, -1]).all()


def test_personal_attention():
    problem = ProblemSpec(
        num_clients=3, sequences_per_client=6, num_tokens=5, dim=3, kernel_heterogeneity=1.0
    )
    _, found = run("personal_attention", problem=problem, rounds=40, most_rounds=40, local_steps=10,
                   test_sequences=40, factors=(0.3, 1.0))  # fmt: skip
    assert np.isfinite(found.test_loss).all()
    loss = {str(m): float(found.test_loss.sel({"method": m})) for m in found.method.values}
    assert loss["fine_tuned"] < loss["fed_avg"]
    assert loss["fed_tp_linear"] < loss["fed_avg"]
    assert found.kernel_spread > 0.1


def test_gates():
    _, found = run("gates", problem=SMALL, model=MODEL, rounds=4, local_steps=3, pretraining=(0, 4))
    for name in ("gate_distance", "weight_distance"):
        np.testing.assert_array_equal(found[name][[0, -1]], [1.0, 0.0])
    parts = found.isel(round=slice(1, None))
    assert (parts.mismatch <= parts.multilinear + parts.gate_flip + 1e-12).all()
    np.testing.assert_array_equal(np.isnan(found.mismatch), found["round"].values == 0)
    assert (found.fed_avg[:, -1] < found.fed_avg[:, 0]).all()


def test_selection():
    _, found = run(
        "selection", problem=SMALL, model=MODEL, rounds=3, local_steps=2, consistency=(0.0, 100.0)
    )
    rounds = found.isel(round=slice(1, None))
    assert (rounds.selection_error <= rounds.selection_skew * (1 + 1e-9)).all()
    np.testing.assert_allclose(rounds.selection_skew.sel(consistency=100.0), 0.0, atol=1e-20)
    np.testing.assert_allclose(found.chosen.sum("block"), 3.0)  # two, and the readout
    assert set(found.chosen.sel(consistency=100.0).values.tolist()) <= {k / 3 for k in range(4)}


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("methods", {"methods": ("fed_sq", "fed_avg")}, "methods must be among"),
        ("methods", {"methods": ("fed_avg", "a.py:fed_avg")}, "methods must have names of their"),
        ("methods", {"methods": ("moon",)}, "must have fed_avg"),
        ("methods", {"deep": True, "data": "watch"}, "deep must be false"),
        ("second_stage", {"warmup_times": (0.0, 61.0)}, "at most horizon = 60, got 61"),
        ("second_stage", {"stages": ("scaffold",)}, "must have fed_avg"),
        ("part_schedule", {"initial_rounds": (5, 5)}, "initial_rounds must be distinct"),
        ("personal_attention", {"data": "digits"}, "synthetic"),
        ("gates", {"model": ModelSpec(feature_map="identity")}, "relu"),
        ("gates", {"pretraining": (0, 99)}, "at most rounds = 25"),
        ("selection", {"consistency": (1.0, 0.0)}, "strictly increasing"),
    ],
)
def test_impossible_specs_are_refused(name, fields, words):
    with pytest.raises(ValueError, match=words):
        simulation(name).spec(**fields)
