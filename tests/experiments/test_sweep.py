"""Sweeps: grids, presets and overrides."""

import pytest
from experiments.toy_runs import SWEEP, ToySpec

from linattn.experiments.specs import BiasDriftSpec
from linattn.experiments.sweep import Grid, Sweep, expand, parse_override


def test_a_grid_is_all_combinations_first_axis_slowest():
    grid = Grid(BiasDriftSpec(), {"seed": range(2), "problem.noise": [0, 0.5, 1]})
    found = [(spec.seed, spec.problem.noise) for spec in expand(grid)]
    assert found == [(0, 0), (0, 0.5), (0, 1), (1, 0), (1, 0.5), (1, 1)]
    assert expand(grid)[0].problem.dim == 6


def test_equal_specs_are_one_run():
    grids = [Grid(ToySpec(), {"delay": [0, 0.0]}), Grid(ToySpec(), {"seed": [0, 1]})]
    assert [spec.seed for spec in Sweep("x", {"p": grids}).specs("p")] == [0, 1]


def test_a_value_replaces_an_axis_and_a_list_is_an_axis():
    grid = Grid(BiasDriftSpec(), {"seed": range(3), "problem.noise": [0, 1]})
    sweep = Sweep("x", {"p": [grid]})
    assert len(sweep.specs("p", {"seed": 7})) == 2
    assert len(sweep.specs("p", {"seed": 7, "rounds": [10, 20, 30]})) == 6
    assert {s.problem.noise for s in sweep.specs("p", {"problem.noise": [3, 4]})} == {3.0, 4.0}


@pytest.mark.parametrize(("value", "steps"), [(50, (50,)), ([1, 50], (1, 50))])
def test_a_list_field_takes_the_list_as_its_value(value, steps):
    sweep = Sweep("x", {"p": [Grid(BiasDriftSpec())]})
    (spec,) = sweep.specs("p", {"local_steps": value})
    assert spec.local_steps == steps


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


def test_unknown_keys_and_presets_teach():
    with pytest.raises(
        ValueError, match="preset of toy must be one of quick, real, kinds, few, bad, got 'big'"
    ):
        SWEEP.specs("big")
    with pytest.raises(ValueError, match="unknown key 'sized'; did you mean size"):
        SWEEP.specs("quick", {"sized": 1})
    with pytest.raises(ValueError, match="unknown key 'noise'"):
        expand(Grid(ToySpec(), {"noise": [1]}))


@pytest.mark.parametrize("values", [[], "abc"])
def test_an_axis_needs_values(values):
    with pytest.raises(ValueError, match="mode must be a list of at least one value"):
        expand(Grid(ToySpec(), {"mode": values}))
