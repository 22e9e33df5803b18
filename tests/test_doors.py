"""The public doors: a wrong kind of argument is one sentence, before anything is done."""

import inspect
import pickle

import numpy as np
import pytest
from hostile import calls

import linattn as la
from linattn import _doors

RUN = {"rounds": 1, "local_steps": 1, "local_lr": 0.1}
BARE = ", perhaps without its parentheses."


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": la.fed_avg}, f"method must be Method, got the function fed_avg{BARE}"),
        ({"method": la.Method}, f"method must be Method, got the class Method{BARE}"),
        ({"method": "fed_avg"}, "method must be Method, got str 'fed_avg'."),
        ({"params": la.pool}, f"params must be Params, got the function pool{BARE}"),
        ({"record_params": "no"}, "record_params must be True or False, got str 'no'."),
        ({"metrics": "objective"}, "metrics must be a list, got str 'objective'."),
        (
            {"metrics": np.array("gap")},
            "metrics must be a list, got ndarray array('gap', dtype='<U3').",
        ),
        ({"evaluate": 3}, "evaluate must be a function, got int 3."),
    ],
)
def test_a_wrong_kind_is_one_sentence(small_problem, small_params, change, sentence):
    arguments = {"method": la.fed_avg(), "problem": small_problem, "params": small_params, **RUN}
    with pytest.raises(TypeError) as error:
        la.run(**(arguments | change))
    assert str(error.value) == sentence


def test_a_wrong_number_of_arguments_is_pythons_own_to_say():
    with pytest.raises(TypeError, match=r"fed_prox\(\) missing 1 required keyword-only argument"):
        la.fed_prox()


def test_overflow_is_one_sentence(small_problem, small_params):
    huge = la.Params(small_params.layout, 1e300 * small_params.flat)
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(ValueError, match=r"arguments must keep numbers finite, but .* scale data"),
    ):
        la.safe_step(small_problem, huge)


def test_every_public_function_is_a_door_and_can_be_pickled():
    functions = [name for name in la.__all__ if inspect.isfunction(getattr(la, name))]
    assert len(functions) > 50
    for name in functions:
        opened = getattr(la, name)
        assert opened.__wrapped__ is not opened
        assert pickle.loads(pickle.dumps(opened)) is opened
        assert inspect.signature(opened) == inspect.signature(opened.__wrapped__)


def test_kinds_are_read_from_annotations():
    kinds = _doors._kinds(inspect.unwrap(la.run))
    words = {name: words for name, (words, _) in kinds.items()}
    assert words == {
        "method": "Method", "params": "Params", "record_params": "True or False",
        "metrics": "a list", "evaluate": "a function", "evaluate_clients": "a function",
    }  # fmt: skip


def test_bad_calls_are_answers_or_sentences(tmp_path):
    found = calls.run(seed=7, count=250, folder=tmp_path)
    assert found.faults == []
    assert found.counts["sentence"] > 150
