"""Jobs that compare methods: every stored array says what its kind promises, on tiny presets."""

import json

import numpy as np
import pytest

import linattn as la
from linattn.experiments import (
    GatesSpec,
    InitialSpec,
    MethodsSpec,
    ModelSpec,
    PartScheduleSpec,
    PersonalAttentionSpec,
    ProblemSpec,
    SecondStageSpec,
    SelectionSpec,
    UpdateJumpSpec,
)
from linattn.experiments.catalog import find_folder, load_sweep
from linattn.experiments.jobs.worlds import (
    make_world,
    observed,
    predictions,
    relative_mismatch,
    synthetic_clients,
    train,
)
from linattn.experiments.specs import spec_from, spec_json
from linattn.experiments.validation import canonical_json
from linattn.experiments.worker import compute

KINDS = (
    "methods", "second_stage", "update_jump", "part_schedule", "personal_attention", "gates",
    "selection",
)  # fmt: skip
SMALL = ProblemSpec(
    num_clients=3,
    sequences_per_client=6,
    num_tokens=5,
    dim=3,
    num_outputs=2,
    value_heterogeneity=1.0,
    covariate_heterogeneity=0.3,
)
MODEL = ModelSpec(inner_dim=2)


@pytest.mark.parametrize("kind", KINDS)
def test_presets_are_valid_specs(kind):
    sweep = load_sweep(find_folder("simulations") / f"{kind}.py")
    assert sweep.name == kind
    for preset in ("paper", "quick", "tiny"):
        specs = sweep.specs(preset)
        assert all(type(spec).__struct_config__.tag == kind for spec in specs)
        assert len({spec.seed for spec in specs}) > 1  # there is a spread to show


def test_synthetic_clients_are_those_of_the_problem():
    problem = la.synthetic_problem(
        **{n: getattr(SMALL, n) for n in SMALL.__struct_fields__}, seed=3
    )
    again = la.problem_from_tokens(
        synthetic_clients(SMALL, seed=3), readout="token", value_ridge=0.05, kernel_ridge=0.01
    )
    np.testing.assert_array_equal(again.statistics.gram, problem.statistics.gram)
    fresh = synthetic_clients(SMALL, seed=3, fresh=True)
    assert not np.allclose(fresh[0][0], synthetic_clients(SMALL, seed=3)[0][0])


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kernel", ["merged", "factored"])
def test_predictions_have_the_norms_of_the_loss(deep, kernel):
    """½‖F(w)‖² is F's loss with targets of zero, and one block alone has no mismatch."""
    spec = MethodsSpec(problem=SMALL, deep=deep, model=MODEL, initial=InitialSpec(kernel=kernel))
    world = make_world(spec)
    flat = np.random.default_rng(0).normal(size=world.params.flat.size)
    params = la.Params(world.params.layout, flat)
    oracle = world.problem.oracle(params)
    clients = synthetic_clients(SMALL, seed=0)
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
    spec = MethodsSpec(problem=SMALL, rounds=4, local_steps=3)
    world, seen = make_world(spec), []
    for method in (la.fed_avg(), la.scaffold()):
        plain = train(method, world, spec)
        watched = train(method, world, spec, observe=lambda c, p: seen.append(c.round))
        np.testing.assert_array_equal(plain.params.flat, watched.params.flat)
    assert seen == [0, 1, 2, 3] * 2


def test_mismatch_is_that_of_the_theory():
    spec = UpdateJumpSpec(problem=SMALL, rounds=3, local_steps=4)
    world, pairs = make_world(spec), []

    def observe(context, proposal):
        models = [la.Params(context.params.layout, end) for end in proposal.ends]
        maps = la.aggregation_mismatch(world.problem, models, context.weights)
        pairs.append((relative_mismatch(context, proposal), np.abs(maps.measured).max()))

    train(la.fed_avg(), world, spec, observe=observe)
    train(la.fed_part(initial_rounds=0, rounds_per_group=1), world, spec, observe=observe)
    assert all(shown > 1e-6 and maps > 1e-8 for shown, maps in pairs[1:3])
    assert all(shown < 1e-13 for shown, _ in pairs[4:])
    assert observed(la.fed_avg(), observe).name == "fed_avg"


@pytest.mark.parametrize("deep", [False, True])
def test_methods(deep):  # `method` is an argument of xarray's sel, so names go in a mapping
    spec = MethodsSpec(problem=SMALL, deep=deep, model=MODEL, rounds=5, local_steps=2,
                       warmup_rounds=2)  # fmt: skip
    found = compute(spec)
    assert found.method.values.tolist() == list(spec.names())
    assert not found.diverged.any()
    used = found.personal_objective.sel({"method": "fed_avg"})
    assert found.final_objective.sel({"method": "fed_avg"}) == used[-1]
    reached = int(found.rounds_to_target.sel({"method": "fed_avg"}))
    assert used[reached] <= found.target < used[reached - 1]
    size = make_world(spec).params.layout.size
    assert found.floats_to_target.sel({"method": "fed_avg"}) == 2 * reached * size * 3
    assert np.isnan(found.mismatch.sel({"method": ["fed_tp", "local_attention"]})).all()
    if not deep:
        assert found.mismatch.sel({"method": "freeze_start"}) < 1e-13
        assert found.kernel_drift.sel({"method": "freeze_start"})[-1] < 1e-14


def test_methods_on_real_data_have_an_accuracy():
    names = ("fed_avg", "frozen_one_shot")
    found = compute(MethodsSpec(data="digits", rounds=3, local_steps=2, warmup_rounds=1,
                                methods=names, initial=InitialSpec(scale=1.0)))  # fmt: skip
    accuracy = found.test_accuracy.values
    assert ((accuracy > 0) & (accuracy < 1)).all()
    assert accuracy[1] > accuracy[0]  # one exact round against three rounds of descent


def test_second_stage_forks_are_the_whole_runs():
    spec = SecondStageSpec(problem=SMALL, rounds=6, local_steps=3, warmup_lengths=(0, 2))
    found = compute(spec)
    assert np.isnan(found.gap.sel(warmup=2, round=[0, 1])).all()
    assert (found.gap.sel(stage="one_shot").isel(round=-1) < 1e-20).all()
    world = make_world(spec)
    for stage in spec.stages:
        whole = train(la.fed_frozen(warmup_rounds=2, frozen=stage), world, spec, metrics=("gap",))
        kept = found.gap.sel(stage=stage, warmup=2)[2:]
        np.testing.assert_allclose(kept, whole.columns["gap"][2:], rtol=1e-9, atol=1e-25)
    long = compute(SecondStageSpec(problem=SMALL, rounds=900, local_steps=5, warmup_lengths=(2,),
                                   stages=("fed_avg",)))  # fmt: skip
    np.testing.assert_allclose(long.gap[0, :, -1], long.floor, rtol=1e-6)


def test_update_jump():
    found = compute(UpdateJumpSpec(problem=SMALL, rounds=5, local_steps=6))
    assert dict(found.sizes) == {"variant": 3, "round": 5}
    assert (found.mismatch.sel(variant=["one_block", "value_only"]) < 1e-13).all()
    assert (found.mismatch.sel(variant="full")[1:] > 1e-6).all()
    assert (found.after.sel(variant="value_only") > found.before.sel(variant="value_only")).all()


def test_part_schedule():
    spec = PartScheduleSpec(problem=SMALL, model=ModelSpec(num_layers=3, inner_dim=2), rounds=6,
                            local_steps=2, initial_rounds=(2, 0), rounds_per_group=1)  # fmt: skip
    found = compute(spec)
    assert found.schedule.values.tolist() == [
        "fed_avg", "sequential, 2", "reverse, 2", "random, 2", "sequential, 0",
    ]  # fmt: skip
    first = found.isel(round=2)
    np.testing.assert_array_equal(first.objective[:4], first.objective[0])  # the full rounds
    assert (found.floats[1:, -1] < found.floats[0, -1]).all()
    assert (found.multiply_adds[1:, -1] < found.multiply_adds[0, -1]).all()


def test_personal_attention():
    problem = ProblemSpec(num_clients=3, sequences_per_client=6, num_tokens=5, dim=3,
                          kernel_heterogeneity=1.0)  # fmt: skip
    spec = PersonalAttentionSpec(problem=problem, rounds=40, local_steps=10, test_sequences=40)
    found = compute(spec)
    assert not found.diverged.any()
    loss = {str(m): float(found.test_loss.sel({"method": m})) for m in found.method.values}
    assert loss["fine_tuned"] < loss["fed_avg"]
    assert loss["fed_tp_linear"] < loss["fed_avg"]
    assert found.kernel_spread > 0.1


def test_gates():
    found = compute(GatesSpec(problem=SMALL, model=MODEL, rounds=4, local_steps=3,
                              pretraining=(0, 4)))  # fmt: skip
    for name in ("gate_distance", "weight_distance"):
        np.testing.assert_array_equal(found[name][[0, -1]], [1.0, 0.0])
    parts = found.isel(round=slice(1, None))
    assert (parts.mismatch <= parts.multilinear + parts.gate_flip + 1e-12).all()
    np.testing.assert_array_equal(np.isnan(found.mismatch), found["round"].values == 0)
    assert (found.fed_avg[:, -1] < found.fed_avg[:, 0]).all()


def test_selection():
    found = compute(SelectionSpec(problem=SMALL, model=MODEL, rounds=3, local_steps=2,
                                  consistency=(0.0, 100.0)))  # fmt: skip
    rounds = found.isel(round=slice(1, None))
    assert (rounds.selection_error <= rounds.selection_skew * (1 + 1e-9)).all()
    np.testing.assert_allclose(rounds.selection_skew.sel(consistency=100.0), 0.0, atol=1e-20)
    np.testing.assert_allclose(found.chosen.sum("block"), 3.0)  # two, and the readout
    assert set(found.chosen.sel(consistency=100.0).values.tolist()) <= {k / 3 for k in range(4)}


@pytest.mark.parametrize(
    ("cls", "fields", "words"),
    [
        (MethodsSpec, {"methods": ("fed_sq", "fed_avg")}, "methods must be among"),
        (MethodsSpec, {"methods": ("moon",)}, "must have fed_avg"),
        (MethodsSpec, {"deep": True, "data": "watch"}, "deep must be false"),
        (SecondStageSpec, {"warmup_lengths": (40,)}, "below rounds = 40"),
        (SecondStageSpec, {"stages": ("scaffold",)}, "must have fed_avg"),
        (PartScheduleSpec, {"initial_rounds": (5, 5)}, "initial_rounds must be distinct"),
        (PersonalAttentionSpec, {"data": "digits"}, "synthetic"),
        (GatesSpec, {"model": ModelSpec(feature_map="identity")}, "relu"),
        (GatesSpec, {"pretraining": (0, 99)}, "at most rounds = 40"),
        (SelectionSpec, {"consistency": (1.0, 0.0)}, "strictly increasing"),
    ],
)
def test_impossible_specs_are_refused(cls, fields, words):
    with pytest.raises(ValueError, match=words):
        cls(**fields)


def test_specs_survive_the_store():
    spec = GatesSpec(problem=SMALL, model=MODEL)
    assert spec_from(json.loads(spec_json(spec))) == spec
    assert canonical_json({}) == "{}"
