"""Simulations: specs validated in sentences, canonical form, digests, grids and overrides."""

import json
import math
from dataclasses import replace
from typing import Literal

import pytest
from experiments.toy import SIMULATION, ToySpec
from hypothesis import given
from hypothesis import strategies as st

from linattn.data.worlds import InitialSpec, ProblemSpec
from linattn.experiments import Grid, Simulation, Spec
from linattn.experiments import simulation as module
from linattn.experiments.simulation import parse_override, parse_overrides, spec_json
from linattn.experiments.specs import pairs
from scripts import simulation

BIAS_DRIFT = simulation("bias_drift")
BiasDriftSpec = BIAS_DRIFT.spec
SIZES = st.integers(0, 5)


def digest(spec):
    return BIAS_DRIFT.task(spec).digest


def presets(*grids):
    return Simulation(type(grids[0].base), SIMULATION.run, presets={"p": list(grids)})


@st.composite
def mappings(draw):
    """A valid bias_drift spec as a mapping whose numbers are often integers."""
    number = st.one_of(SIZES, st.floats(0, 1e6))
    return {
        "seed": draw(st.integers(0, 2**40)),
        "local_lr": draw(st.one_of(st.integers(1, 9), st.floats(1e-6, 1e3))),
        "local_steps": draw(st.integers(1, 99)),
        "problem": {"noise": draw(number), "value_heterogeneity": draw(number)},
    }


@given(mappings())
def test_digest_does_not_depend_on_the_spelling(values):
    backwards = {key: values[key] for key in reversed(values)}
    as_floats = {**values, "local_lr": float(values["local_lr"])}
    as_floats["problem"] = {key: float(value) for key, value in values["problem"].items()}
    direct = BiasDriftSpec(**{**values, "problem": ProblemSpec(**values["problem"])})
    read = [BIAS_DRIFT.spec_from(v) for v in (values, backwards, as_floats)]
    assert len({digest(spec) for spec in [*read, direct]}) == 1


@given(mappings())
def test_canonical_json_round_trips(values):
    text = spec_json(BIAS_DRIFT.spec_from(values))
    assert spec_json(BIAS_DRIFT.spec_from(json.loads(text))) == text
    assert " " not in text


@given(mappings(), mappings())
def test_different_specs_have_different_digests(one, other):
    a, b = BIAS_DRIFT.spec_from(one), BIAS_DRIFT.spec_from(other)
    assert (a == b) == (digest(a) == digest(b))


def test_digest_covers_name_version_and_numerics(monkeypatch):
    own = SIMULATION.task(ToySpec()).digest
    assert replace(SIMULATION, version=2).task(ToySpec()).digest != own
    assert (
        replace(SIMULATION, path=SIMULATION.path.with_stem("other")).task(ToySpec()).digest != own
    )
    moved = replace(SIMULATION, path=SIMULATION.path.parent / "elsewhere" / "toy.py")
    assert moved.task(ToySpec()).digest == own
    monkeypatch.setattr(module, "NUMERICS", module.NUMERICS + 1)
    assert SIMULATION.task(ToySpec()).digest != own


def test_negative_zero_is_zero():
    problems = [ProblemSpec(noise=-0.0), ProblemSpec(noise=0)]
    assert len({digest(BiasDriftSpec(problem=problem)) for problem in problems}) == 1


def test_defaults_are_the_base_problem():
    problem, initial = ProblemSpec(), InitialSpec()
    assert (problem.num_clients, problem.sequences_per_client, problem.num_tokens) == (8, 64, 16)
    assert (problem.dim, problem.num_outputs, problem.num_heads) == (6, 4, 1)
    assert (problem.value_ridge, problem.kernel_ridge, problem.noise) == (0.05, 0.01, 0.1)
    assert (problem.readout, initial.kernel, initial.value) == ("token", "merged", "zeros")
    assert initial.scale**2 / problem.dim == pytest.approx(0.09, rel=1e-15)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"local_lr": -1}, "local_lr must be a finite number > 0, got -1."),
        ({"local_lr": math.inf}, "local_lr must be a finite number > 0, got inf."),
        ({"local_lr": math.nan}, "local_lr must be a finite number > 0, got nan."),
        ({"num_starts": 0}, "num_starts must be an integer >= 1, got 0."),
        ({"local_steps": 2.5}, "local_steps must be an integer >= 1, got 2.5."),
        ({"seed": True}, "seed must be an integer >= 0, got true."),
        ({"problem": {"noise": "x"}}, 'problem.noise must be a finite number >= 0, got "x".'),
        (
            {"problem": {"value_ridge": 0}},
            "problem.value_ridge must be a finite number > 0, got 0.",
        ),
        (
            {"problem": {"readout": "max"}},
            'problem.readout must be "last" or "mean" or "token", got "max".',
        ),
        (
            {"frozen_lr": "fast"},
            'frozen_lr must be a finite number > 0 or "safe" or null, got "fast".',
        ),
        ({"participation": 1.5}, "participation must be "),
        ({"problem": {"nois": 1}}, "unknown key 'problem.nois'; did you mean problem.noise?"),
        ({"noise": 1}, "unknown key 'noise'; did you mean problem.noise?"),
        ({"num_head": 1}, "unknown key 'num_head'; did you mean problem.num_heads or initial.num"),
        ({"local_step": 1}, "unknown key 'local_step'; did you mean local_steps?"),
        ({"zzz": 1}, "unknown key 'zzz'; known keys are seed, problem.num_clients"),
        ({"initial": {"rank": 3}}, "initial.rank must be null for merged kernels, got 3;"),
        ({"horizon": 1e308}, "horizon must be at most 2,147,483,647 rounds of local_lr × local"),
    ],
)
def test_a_bad_value_is_one_sentence(values, sentence):
    with pytest.raises(ValueError, match=r"must|unknown") as error:
        BIAS_DRIFT.spec_from(values)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_bad_values_are_seen_in_specs_made_by_hand_too():
    with pytest.raises(ValueError, match="num_starts must be an integer >= 1, got -4"):
        digest(BiasDriftSpec(num_starts=-4))


class PlainSpec(Spec):
    """What a stranger writes: plain annotations."""

    step: float = 0.1
    sizes: tuple[int, ...] = (1, 2)
    label: str = "x"
    mode: Literal["a", "b"] = "a"
    limit: float | None = None


def test_plain_annotations_are_checked_too():
    own = Simulation(PlainSpec, SIMULATION.run, presets={"p": [Grid(PlainSpec())]})
    assert own.specs("p", {"sizes": 3, "limit": 2})[0] == PlainSpec(sizes=(3,), limit=2.0)
    for value, words in (("x", "a finite number"), (math.nan, "a finite number, got nan")):
        with pytest.raises(ValueError, match=f"step must be {words}"):
            own.specs("p", {"step": value})
    with pytest.raises(ValueError, match="label must be a text, got 3"):
        own.specs("p", {"label": 3})
    with pytest.raises(AttributeError):
        PlainSpec().step = 3.0
    with pytest.raises(TypeError, match="nothing"):
        PlainSpec(nothing=3)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"spec": int}, "spec must be a subclass of Spec"),
        ({"version": 0}, "version must be an integer >= 1"),
        ({"presets": {"p": [Grid(PlainSpec())]}}, r"presets must be lists of Grid\(ToySpec"),
        ({"presets": {"p": [ToySpec()]}}, "got ToySpec in 'p'"),
    ],
)
def test_a_simulation_is_checked_when_it_is_declared(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(SIMULATION, **wrong)


class ComplexSpec(Spec):
    """A field that no result could name."""

    number: complex = 1j


def test_fields_are_json_values():
    with pytest.raises(ValueError, match="fields of ComplexSpec must be JSON values"):
        replace(SIMULATION, spec=ComplexSpec, presets={"p": [Grid(ComplexSpec())]}).specs("p")


@pytest.mark.parametrize(
    ("cost", "sentence"),
    [
        (lambda self: 1.0 / 0.0, "cost of .*Spec cannot be computed: ZeroDivisionError"),
        (lambda self: float("nan"), "cost must be"),
        (lambda self: -1.0, "cost must be >= 0, got -1.0"),
        (lambda self: None, "cost of .*Spec cannot be computed: TypeError"),
    ],
)
def test_a_cost_is_a_number(monkeypatch, cost, sentence):
    monkeypatch.setattr(ToySpec, "cost", cost)
    with pytest.raises(ValueError, match=sentence):
        SIMULATION.task(ToySpec())


def test_a_grid_is_all_combinations_first_axis_slowest():
    found = presets(Grid(BiasDriftSpec(), {"seed": range(2), "problem.noise": [0, 0.5, 1]}))
    specs = found.specs("p")
    assert [(s.seed, s.problem.noise) for s in specs] == [
        (0, 0), (0, 0.5), (0, 1), (1, 0), (1, 0.5), (1, 1),
    ]  # fmt: skip
    assert specs[0].problem.dim == 6


def test_equal_specs_are_one_run():
    grids = [Grid(ToySpec(), {"delay": [0, 0.0]}), Grid(ToySpec(), {"seed": [0, 1]})]
    assert [spec.seed for spec in presets(*grids).specs("p")] == [0, 1]


def test_a_value_replaces_an_axis_and_a_list_is_an_axis():
    held = presets(Grid(BiasDriftSpec(), {"seed": range(3), "problem.noise": [0, 1]}))
    assert len(held.specs("p", {"seed": 7})) == 2
    assert len(held.specs("p", {"seed": 7, "horizon": [10, 20, 30]})) == 6
    assert {s.problem.noise for s in held.specs("p", {"problem.noise": [3, 4]})} == {3.0, 4.0}
    bounds = simulation("bounds")
    for value, steps in ((50, (50,)), ([1, 50], (1, 50))):  # a field that is a list itself
        assert {s.local_steps for s in bounds.specs("tiny", {"local_steps": value})} == {steps}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("rounds=3", "rounds", 3),
        ("problem.noise=[0, 0.1]", "problem.noise", [0, 0.1]),
        ("frozen_lr=safe", "frozen_lr", "safe"),
        ('frozen_lr="safe"', "frozen_lr", "safe"),
        ("initial.rank=null", "initial.rank", None),
        ("problem.shared_tokens=true", "problem.shared_tokens", True),
        ("a=b=c", "a", "b=c"),
    ],
)
def test_overrides_are_json_or_text(text, key, value):
    assert parse_override(text) == (key, value)


@pytest.mark.parametrize("text", ["rounds", "=3", ""])
def test_an_override_needs_key_and_value(text):
    with pytest.raises(ValueError, match="--set must be given as key=value"):
        parse_override(text)


def test_a_key_is_given_once():
    with pytest.raises(ValueError, match="--set must give every key once, got 'a' twice"):
        parse_overrides(["a=1", "b=2", "a=3"])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: SIMULATION.specs("big"),
            "preset of toy must be one of quick, few, bad, got 'big'",
        ),
        (lambda: SIMULATION.specs("quick", {"sized": 1}), "unknown key 'sized'; did you mean size"),
        (lambda: presets(Grid(ToySpec(), {"noise": [1]})).specs("p"), "unknown key 'noise'"),
        (lambda: presets(Grid(ToySpec(), {"mode": []})).specs("p"), "mode must be a list of at le"),
        (lambda: presets(Grid(ToySpec(), {"mode": "abc"})).specs("p"), "mode must be a list of at"),
        (lambda: presets(Grid(ToySpec(), {"seed": 3})).specs("p"), "seed must be a list of at"),
        (lambda: presets(Grid(ToySpec(), {"seed": iter([3])})).specs("p"), "seed must be a list"),
        (
            lambda: replace(SIMULATION, presets={}).specs("quick"),
            "must be one of none, got 'quick'",
        ),
    ],
)
def test_unknown_keys_presets_and_axes_teach(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@given(st.floats(0.0, 0.5), st.sampled_from([0.005, 0.01, 0.02]))
def test_pairs_have_the_drift_number(drift, step):
    ((eta, count),) = pairs((drift,), step)
    assert eta == step
    assert abs(BiasDriftSpec(local_lr=eta, local_steps=count).drift - drift) <= 0.25 * step + 1e-12


def test_every_simulation_declares_the_three_presets():
    from linattn.experiments.find import load_simulations

    for held in load_simulations():
        assert {"paper", "quick", "tiny"} <= set(held.presets), held.name
        assert all(held.specs(preset) for preset in held.presets)
