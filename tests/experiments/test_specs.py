"""Specs: validation in sentences, canonical form, digests."""

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linattn.experiments.specs import (
    NUMERICS,
    BiasDriftSpec,
    CertificateSpec,
    FreezeRuleSpec,
    FrozenStageSpec,
    InitialSpec,
    ProblemSpec,
    Spec,
    digest,
    register,
    spec_from,
    spec_json,
    warmup_grid,
)
from linattn.experiments.validation import build, canonical_json

SIZES = st.integers(0, 5)


@st.composite
def mappings(draw):
    """A valid bias_drift spec as a mapping whose numbers are often integers."""
    number = st.one_of(SIZES, st.floats(0, 1e6))
    return {
        "kind": "bias_drift",
        "seed": draw(st.integers(0, 2**40)),
        "local_lr": draw(st.one_of(st.integers(1, 9), st.floats(1e-9, 1e3))),
        "local_steps": sorted(draw(st.sets(st.integers(1, 99), min_size=1, max_size=4))),
        "problem": {"noise": draw(number), "value_heterogeneity": draw(number)},
    }


@given(mappings())
def test_digest_does_not_depend_on_the_spelling(values):
    backwards = {key: values[key] for key in reversed(values)}
    as_floats = {**values, "local_lr": float(values["local_lr"])}
    as_floats["problem"] = {key: float(value) for key, value in values["problem"].items()}
    direct = BiasDriftSpec(
        seed=values["seed"],
        local_lr=values["local_lr"],
        local_steps=tuple(values["local_steps"]),
        problem=ProblemSpec(**values["problem"]),
    )
    found = {digest(spec_from(v)) for v in (values, backwards, as_floats)} | {digest(direct)}
    assert len(found) == 1


@given(mappings())
def test_canonical_json_round_trips(values):
    text = spec_json(spec_from(values))
    assert spec_json(spec_from(json.loads(text))) == text
    assert " " not in text


@given(mappings(), mappings())
def test_different_specs_have_different_digests(one, other):
    a, b = spec_from(one), spec_from(other)
    assert (a == b) == (digest(a) == digest(b))


def test_digest_covers_kind_and_numerics():
    spec = CertificateSpec()
    assert digest(spec) != digest(FreezeRuleSpec())
    assert digest(spec) != digest(spec, numerics=NUMERICS + 1)
    assert digest(spec) == digest(CertificateSpec(local_lr=0.05))


def test_negative_zero_is_zero():
    assert digest(BiasDriftSpec(problem=ProblemSpec(noise=-0.0))) == digest(
        BiasDriftSpec(problem=ProblemSpec(noise=0))
    )


def test_defaults_are_the_base_problem():
    problem, initial = ProblemSpec(), InitialSpec()
    assert (problem.num_clients, problem.sequences_per_client, problem.num_tokens) == (8, 64, 16)
    assert (problem.dim, problem.num_outputs, problem.num_heads) == (6, 4, 1)
    assert (problem.value_ridge, problem.kernel_ridge, problem.noise) == (0.05, 0.01, 0.1)
    assert (problem.readout, initial.kernel, initial.value) == ("token", "merged", "zeros")
    assert initial.scale**2 / problem.dim == pytest.approx(0.09, rel=1e-15)
    assert BiasDriftSpec().local_lr == 0.05


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"local_lr": -1}, "local_lr must be a finite number > 0, got -1."),
        ({"local_lr": math.inf}, "local_lr must be a finite number > 0, got Infinity."),
        ({"local_lr": math.nan}, "local_lr must be a finite number > 0, got NaN."),
        ({"rounds": 0}, "rounds must be an integer >= 1, got 0."),
        ({"rounds": 2.5}, "rounds must be an integer >= 1, got 2.5."),
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
        (
            {"local_steps": [0, 1]},
            "local_steps must be a list of entries that are each an integer >= 1, got [0, 1].",
        ),
        (
            {"local_steps": [5, 1]},
            "local_steps must be strictly increasing, at least one, got [5, 1].",
        ),
        ({"warmup_lengths": [0, 300]}, "warmup_lengths must be at most rounds = 200, got 300."),
        ({"problem": {"nois": 1}}, "unknown key 'problem.nois'; did you mean problem.noise?"),
        ({"noise": 1}, "unknown key 'noise'; did you mean problem.noise?"),
        ({"num_head": 1}, "unknown key 'num_head'; did you mean problem.num_heads or initial.num"),
        ({"local_step": 1}, "unknown key 'local_step'; did you mean local_steps?"),
        ({"initial": {"rank": 3}}, "initial.rank must be null for merged kernels, got 3;"),
    ],
)
def test_a_bad_value_is_one_sentence(values, sentence):
    with pytest.raises(ValueError, match=r"must|unknown") as error:
        build(BiasDriftSpec, values)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_an_unrelated_key_lists_what_there_is():
    with pytest.raises(ValueError, match=r"known keys are seed, problem\.num_clients"):
        build(FrozenStageSpec, {"zzz": 1})


def test_bad_values_are_seen_in_specs_made_by_hand_too():
    with pytest.raises(ValueError, match="rounds must be an integer >= 1, got -4"):
        digest(CertificateSpec(rounds=-4))


def test_unknown_kind():
    with pytest.raises(ValueError, match=r"kind must be one of bias_drift, .* got 'bias'"):
        spec_from({"kind": "bias"})


def test_rules_must_be_distinct():
    with pytest.raises(ValueError, match="rules must be distinct"):
        build(FreezeRuleSpec, {"rules": ["profile", "profile"]})


def test_specs_are_frozen():
    with pytest.raises(AttributeError):
        BiasDriftSpec().rounds = 3


def test_a_tag_belongs_to_one_class():
    class Other(
        Spec, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind",
        tag="certificate",
    ):  # fmt: skip
        job = "a:b"

    with pytest.raises(ValueError, match="'certificate' is CertificateSpec already"):
        register(Other)


def test_a_kind_needs_a_job():
    class Idle(msgspec.Struct):
        job = ""

    with pytest.raises(ValueError, match="Idle needs a tag and a job"):
        register(Idle)


@given(st.integers(1, 2000), st.integers(2, 40))
def test_warmup_lengths_span_the_rounds(rounds, count):
    lengths = warmup_grid(rounds, count)
    assert lengths[0] == 0
    assert lengths[-1] == rounds
    assert len(lengths) <= count
    assert list(lengths) == sorted(set(lengths))


def test_warmup_lengths_of_the_contract():
    assert warmup_grid(400, 20)[:6] == (0, 1, 2, 3, 5, 8)
    assert len(warmup_grid(400, 20)) == 20
    assert len(warmup_grid(200, 12)) == 12


def test_canonical_json_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(math.nan)
