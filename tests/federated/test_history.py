"""History, communication, outcomes and refusals of `la.run`."""

import numpy as np
import pytest
from bridge import make, same_bits
from method_cases import KINDS, case
from numpy.testing import assert_array_equal

import linattn as la
from linattn.federated.rounds import choose_participants
from linattn.streams import stream

NAMES = (
    "objective", "profile", "gap", "kernel_gradient_norm", "value_gradient_norm", "kernel_drift",
    "value_drift", "kernel_trained", "local_lr", "floats_up", "floats_down",
    "multiply_adds",
)  # fmt: skip
BASE = {"rounds": 5, "local_steps": 2, "local_lr": 0.01}


def test_fields_of_the_history(small_problem, small_params):
    result = la.run(la.fed_frozen(warmup_rounds=3), small_problem, small_params, **BASE)
    history = result.history
    assert tuple(history.data_vars) == NAMES
    assert dict(history.sizes) == {"round": 6}
    assert history["round"].values.tolist() == list(range(6))
    start = {name: history[name].values[0] for name in NAMES}
    assert np.isnan(start["kernel_drift"])
    assert np.isnan(start["value_drift"])
    assert start["kernel_trained"] == False  # noqa: E712
    assert start["floats_up"] == start["floats_down"] == 0
    assert history["kernel_trained"].dtype == bool
    assert history["floats_up"].dtype.kind == history["floats_down"].dtype.kind == "i"
    assert history["kernel_drift"].values[4:].tolist() == [0.0, 0.0]
    assert (history["value_drift"].values[1:] > 0).all()
    assert history["objective"].attrs["units"] == "loss"
    assert repr(result).startswith("Result(completed at round 5, final objective")
    assert "kernel frozen from 3" in repr(result)


def test_entry_zero_is_the_start(small_problem, small_params):
    columns = la.run(la.fed_avg(), small_problem, small_params, **BASE).columns
    joint = la.Joint(small_problem)
    assert columns["objective"][0] == pytest.approx(joint.value(small_params), rel=1e-14)
    assert columns["gap"][0] == joint.gap(small_params)
    assert columns["profile"][0] == la.KernelProfile(small_problem).value(small_params)


def test_metrics_pick_a_subset_and_do_not_change_the_run(small_problem, small_params):
    whole = la.run(la.fed_avg(), small_problem, small_params, **BASE)
    for names in (["gap", "floats_up"], ["local_lr"], [], ["profile"]):
        part = la.run(la.fed_avg(), small_problem, small_params, metrics=names, **BASE)
        assert list(part.columns) == names
        assert all(same_bits(part.columns[n], whole.columns[n]) for n in names)
        assert same_bits(part.params, whole.params)
        assert list(part.history.data_vars) == names
    with pytest.raises(ValueError, match=r"metrics must be one of .*did you mean 'objective'"):
        la.run(la.fed_avg(), small_problem, small_params, metrics=["objectiv"], **BASE)


def test_evaluate_adds_test_quantities(small_problem, small_params):
    result = la.run(
        la.fed_avg(), small_problem, small_params, metrics=["gap"],
        evaluate=lambda params: {"size": np.sum(params.value**2), "nan": np.nan}, **BASE,
    )  # fmt: skip
    assert list(result.columns) == ["gap", "size", "nan"]
    assert result.columns["size"][-1] == np.sum(result.params.value**2)
    assert result.outcome.status == "completed"


@pytest.mark.parametrize("kind", KINDS)
def test_communication_by_hand(kind):
    held = case(kind, 3)
    layout = held.params.layout
    kernel = int(layout.mask(layout.kernel_blocks).sum())
    value = layout.size - kernel
    columns = held.run(la.fed_frozen(warmup_rounds=2), **BASE).columns
    # Round 2 is frozen, but the kernel of round 1's average still has to reach the clients.
    both = 4 * (kernel + value)
    assert columns["floats_down"].tolist() == [0, both, both, both, 4 * value, 4 * value]
    assert columns["floats_up"].tolist() == [0, both, both, 4 * value, 4 * value, 4 * value]
    never = held.run(la.fed_frozen(warmup_rounds=0), **BASE).columns
    assert never["floats_down"].tolist() == [0, both, *[4 * value] * 4]


def test_a_sampled_client_fetches_the_final_kernel_once():
    *_, problem, params = make(3, num_clients=6)
    value, kernel = params.value.size, params.kernel.size
    result = la.run(
        la.fed_frozen(warmup_rounds=3), problem, params, rounds=12, local_steps=1, local_lr=0.01,
        participation=1 / 3, seed=1,
    )  # fmt: skip
    held, expected = set(), [0]
    for t in range(12):
        chosen = set(stream(1, "participation", t).choice(6, 2, replace=False).tolist())
        fresh = chosen if t < 3 else chosen - held
        held = held | chosen if t >= 3 else set()
        expected.append(2 * value + kernel * len(fresh))
    assert result.columns["floats_down"].tolist() == expected


# ------------------------------------------------------------------------ divergence

METRIC_CHOICES = [None, ["floats_up"], ["profile"], ["objective", "gap"], []]


@pytest.mark.parametrize("metrics", METRIC_CHOICES)
@pytest.mark.parametrize("kind", ["merged", "factored"])
@pytest.mark.parametrize(
    "method",
    [
        la.fed_avg(),
        la.fed_frozen(warmup_rounds=2),
        la.fed_frozen(warmup_rounds=2, frozen_lr="safe"),
        *(
            la.fed_frozen(warmup_rounds=la.freeze_rule(rule), frozen_lr=lr)
            for rule in ("profile", "observable", "certified")
            for lr in (None, "safe")
        ),
    ],
    ids=repr,
)
@pytest.mark.parametrize("step", [3.0, 100.0, 1e30])
def test_divergence_is_an_outcome(method, kind, metrics, step):
    *_, problem, params = make(4, kind)
    result = la.run(
        method, problem, params, rounds=60, local_steps=3, local_lr=step, metrics=metrics,
        record_params=True,
    )  # fmt: skip
    if result.outcome.status == "completed":
        assert np.isfinite(result.params.flat).all()
        assert len(result.path) == 61
        return
    status, t, reason = result.outcome
    assert status == "diverged"
    assert reason
    assert 0 <= t < 60
    assert len(result.path) == t + 1
    assert np.isfinite(result.params.flat).all()
    assert same_bits(result.params, result.path[-1])
    assert result.history["round"].size in (t + 1, 0)
    for name in ("objective", "profile", "gap"):
        assert np.isfinite(result.columns.get(name, np.zeros(1))).all()
    assert f"diverged at round {t}" in repr(result)


@pytest.mark.parametrize("kind", KINDS)
def test_fed_avg_with_a_large_step_does_diverge(kind):
    held = case(kind, 4)
    result = held.run(la.fed_avg(), rounds=60, local_lr=100.0)
    assert result.outcome.status == "diverged"
    assert np.isfinite(result.params.flat).all()
    assert np.isfinite(result.columns["objective"]).all()
    continued = held.run(la.fed_avg(), rounds=70, start_round=10, local_lr=100.0)
    assert continued.outcome.round == result.outcome.round + 10
    assert continued.history["round"].values[0] == 10
    assert continued.history["round"].values[-1] == continued.outcome.round


def test_a_start_whose_objective_overflows_is_refused(small_problem):
    huge = la.Params.merged(np.full((3, 3), 1e160), np.ones((3, 2)))
    with pytest.raises(ValueError, match="params must have a finite objective"):
        la.run(la.fed_avg(), small_problem, huge, **BASE)


# ------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": -1}, "rounds must be an integer >= 0, got -1"),
        ({"rounds": 2.0}, "rounds must be an integer"),
        ({"rounds": 10**24}, "rounds must be an integer <= 2147483647, got 1000"),
        ({"local_steps": 0}, "local_steps must be an integer >= 1, got 0"),
        ({"local_steps": [2, 2, 2]}, "local_steps must have 4, one per client, got 3"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"participation": 0.0}, "participation must be > 0 and <= 1, got 0.0"),
        ({"participation": 1.1}, "participation must be > 0 and <= 1"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"start_round": -1}, "start_round must be an integer >= 0"),
    ],
)
def test_bad_settings_are_refused(small_problem, small_params, options, message):
    with pytest.raises(ValueError, match=message):
        la.run(la.fed_avg(), small_problem, small_params, **(BASE | options))


def test_parameters_that_do_not_fit_are_refused(small_problem):
    with pytest.raises(ValueError, match="params must have a value block of shape"):
        la.run(la.fed_avg(), small_problem, la.Params.merged(np.eye(2), np.ones((2, 2))), **BASE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_rounds": -1}, "warmup_rounds must be an integer >= 0, got -1"),
        ({"warmup_rounds": 1.5}, "warmup_rounds must be an integer"),
        ({"warmup_rounds": "profile"}, "warmup_rounds must be an integer"),
        ({"warmup_rounds": 1, "frozen_lr": 0.0}, "frozen_lr must be > 0"),
        ({"warmup_rounds": 1, "frozen_lr": "save"}, "frozen_lr must be one of 'safe', got 'save'"),
        (
            {"warmup_rounds": 1, "frozen_lr": np.inf},
            "frozen_lr must be a finite number > 0",
        ),
    ],
)
def test_bad_methods_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        la.fed_frozen(**options)


def test_participation_follows_its_formula():
    for clients, share, count in ((4, 0.01, 1), (4, 0.5, 2), (5, 0.5, 2), (7, 0.5, 4), (3, 1.0, 3)):
        chosen = choose_participants(clients, share, 0, 3)
        assert len(chosen) == max(1, round(share * clients)) == count
        assert_array_equal(chosen, np.unique(chosen))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, "evaluate must return a mapping, got None."),
        ([("a", 1.0)], "evaluate must return a mapping, got [('a', 1.0)]."),
        ({3: 1.0}, "evaluate must return names that are texts, got 3."),
        ({"": 1.0}, "evaluate must return names that are texts, got ''."),
        (
            {"objective": 1.0},
            "evaluate must return names that the history has not, got 'objective'.",
        ),
        ({"round": 1.0}, "evaluate must return names that the history has not, got 'round'."),
        ({"a": "x"}, "evaluate must return numbers, got 'x' for 'a'."),
        ({"a": None}, "evaluate must return numbers, got None for 'a'."),
        ({"a": 1j}, "evaluate must return numbers, got 1j for 'a'."),
        ({"a": [1.0]}, "evaluate must return numbers, got [1.0] for 'a'."),
        ({"a": {}}, "evaluate must return numbers, got {} for 'a'."),
        ({"a": np.ma.masked}, "evaluate must return numbers, got masked for 'a'."),
    ],
)
@pytest.mark.parametrize("name", ["evaluate", "evaluate_clients"])
def test_what_a_callback_may_answer(small_problem, small_params, name, answer, sentence):
    with pytest.raises((TypeError, ValueError)) as error:
        la.run(la.fed_avg(), small_problem, small_params, rounds=1, local_steps=1, local_lr=0.01,
               **{name: lambda models: answer})  # fmt: skip
    assert str(error.value) == sentence.replace("evaluate", name, 1)


def test_callbacks_answer_the_same_names_every_round(small_problem, small_params):
    names = iter("aab")
    with pytest.raises(ValueError, match="same names every round, got b after a"):
        la.run(la.fed_avg(), small_problem, small_params, rounds=2, local_steps=1, local_lr=0.01,
               evaluate=lambda params: {next(names): 1.0})  # fmt: skip


def test_callbacks_do_not_overwrite_each_other(small_problem, small_params):
    with pytest.raises(ValueError, match="evaluate_clients must return names that the hist"):
        la.run(la.fed_avg(), small_problem, small_params, rounds=1, local_steps=1, local_lr=0.1,
               evaluate=lambda _: {"a": 1}, evaluate_clients=lambda _: {"a": 2})  # fmt: skip


def test_callbacks_answer_any_kind_of_number(small_problem, small_params):
    answer = {"a": True, "b": np.float32(0.5), "c": np.array(2), "d": np.nan}
    found = la.run(la.fed_avg(), small_problem, small_params, rounds=1, local_steps=1,
                   local_lr=0.01, evaluate=lambda params: answer)  # fmt: skip
    assert found.history[["a", "b", "c"]].to_array().values[:, 0].tolist() == [1.0, 0.5, 2.0]
    assert np.isnan(found.history.d).all()
