"""Input checks name the argument, the value and what is allowed."""

import numpy as np
import pytest

import linattn as la
from linattn._checks import as_float64, one_of, positive_int, real
from linattn.data.sequences import one_hot


def test_arrays_are_cast_from_integers_and_made_contiguous():
    array = as_float64("x", np.arange(6).reshape(2, 3).T)
    assert array.dtype == np.float64
    assert array.flags.c_contiguous


@pytest.mark.parametrize("value", [1.5, True, "3", None, 0, -2, np.float64(2), np.nan])
def test_integers_are_integers(value):
    with pytest.raises(ValueError, match="rounds must be an integer >= 1, got"):
        positive_int("rounds", value)


def test_integers_beyond_compiled_code_are_refused_by_name():
    with pytest.raises(ValueError, match=r"budget must be an integer <= 9223372036854775807, got"):
        la.selective(budget=10**19)
    assert positive_int("seed", 10**19, maximum=None) == 10**19


def test_numpy_integers_are_integers():
    assert positive_int("rounds", np.int32(4)) == 4
    assert positive_int("rounds", 0, minimum=0) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0, "a lot", None, [1, 2], 2.0, 1j])
def test_reals_respect_their_range(value):
    with pytest.raises(ValueError, match=r"lr must be .*> 0 and <= 1.*got"):
        real("lr", value, above=0.0, maximum=1.0)


def test_reals_accept_numpy_scalars_and_strings_are_no_numbers():
    assert real("x", np.float64(0.5), minimum=0.0) == 0.5
    with pytest.raises(ValueError, match=r"x must be a number \(>= 0\), got '0.5'"):
        real("x", "0.5", minimum=0.0)
    with pytest.raises(ValueError, match="x must be a number"):
        real("x", True)
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match=rf"x must be a finite number, got {value}\.$"):
            real("x", value)


def test_choices_suggest_the_nearest():
    assert one_of("readout", "mean", ("token", "mean")) == "mean"
    with pytest.raises(ValueError, match=r"'token', 'mean', got 'maen'; did you mean 'mean'\?$"):
        one_of("readout", "maen", ("token", "mean"))
    with pytest.raises(ValueError, match="readout must be one of"):
        one_of("readout", None, ("token", "mean"))


def test_ragged_lists_are_refused_by_name():
    with pytest.raises(ValueError, match="x must be a rectangular array"):
        as_float64("x", [[1.0], [1.0, 2.0]])


HIDDEN = np.ma.array([0, 1, 1], mask=[0, 0, 1])
NAMES = {"class_names": ["a", "b"], "channel_names": ["c"]}
ROWS = np.ones((3, 1))


@pytest.mark.parametrize(
    "call",
    [
        lambda: la.partition(HIDDEN, "iid", num_clients=2),
        lambda: la.partition([0, 1, 1], "natural", groups=HIDDEN),
        lambda: one_hot(HIDDEN, 2),
        lambda: la.save_dataset("a.npz", [HIDDEN[:, None]], [0], **NAMES),
        lambda: la.save_dataset("a.npz", [ROWS] * 3, HIDDEN, **NAMES),
        lambda: la.save_dataset("a.npz", [ROWS] * 3, [0, 1, 1], groups={"g": HIDDEN}, **NAMES),
        lambda: la.Params.merged(np.ma.array(np.eye(2)), np.eye(2)),
        lambda: la.Params.merged(np.eye(2), [list(np.ma.array(np.eye(2)))]),
    ],
)
def test_masked_arrays_are_refused_at_every_door(call):
    with pytest.raises(TypeError, match="must be without a mask, got a masked array"):
        call()


def test_float64_of_either_byte_order_is_float64():
    array = as_float64("x", np.array([1.5, 2.0], dtype=">f8"))
    assert array.dtype == np.float64
    assert array.tolist() == [1.5, 2.0]
    for dtype in (">f4", np.float16, object, "U3", complex):
        with pytest.raises(TypeError, match="x must be float64 or integer, got dtype"):
            as_float64("x", np.array([1, 2]).astype(dtype))
