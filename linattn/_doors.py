"""The public doors: arguments are of the kind that their annotation says, or one sentence says so.

Inside the package functions call each other past the doors, at no cost. Numbers, texts and arrays
are checked by the functions themselves, which know what they allow.
"""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import numpy as np

from linattn._checks import is_listing, shown

F = TypeVar("F", bound=Callable[..., Any])
Test = Callable[[Any], bool]


def door(name: str, function: F) -> F:
    """Return a public function that checks the kind of its arguments before it does anything.

    Parameters
    ----------
    name : str
        Under which the package has it, so that it can be pickled.
    function : callable

    Raises
    ------
    TypeError
        The function returned does, naming argument, what is allowed and what it got.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def opened(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:  # a wrong number of arguments is Python's own to say, below
            given = {}
        kinds = _kinds(function)
        for argument in [name for name in given if name in kinds]:
            words, fits = kinds[argument]
            if not fits(given[argument]):
                raise TypeError(f"{argument} must be {words}, got {described(given[argument])}.")
        try:
            return function(*args, **kwargs)
        except FloatingPointError as error:
            raise ValueError(
                f"arguments must keep numbers finite, but {error}; scale data, parameters or steps."
            ) from error

    opened.__module__, opened.__qualname__ = "linattn", name
    return cast(F, opened)


def described(value: Any) -> str:
    """What a value is, and for a function that it may lack its parentheses."""
    if inspect.isroutine(value):
        return f"the function {value.__name__}, perhaps without its parentheses"
    if inspect.isclass(value):
        return f"the class {value.__name__}, perhaps without its parentheses"
    return f"{type(value).__name__} {shown(value)}"


@cache
def _kinds(function: Callable[..., Any]) -> dict[str, tuple[str, Test]]:
    """Words and test of every argument whose annotation decides."""
    found: dict[str, tuple[str, Test]] = {}
    for name, text in inspect.get_annotations(function).items():
        try:
            kind = eval(text, function.__globals__) if isinstance(text, str) else text
        except NameError:  # imported for the type checker only
            continue
        members = _members(kind)
        parts = [_kind(part) for part in members]
        # Of texts and problems alone the function itself knows which it allows.
        left = all(kind in (str, type(None)) or _is_problem(kind) for kind in members)
        if name != "return" and all(parts) and not left:
            found[name] = _either([part for part in parts if part is not None])
    return found


def _either(parts: Sequence[tuple[str, Test]]) -> tuple[str, Test]:
    words = " or ".join(dict.fromkeys(words for words, _ in parts if words != "None"))
    return words, lambda value: any(test(value) for _, test in parts)


def _members(kind: Any) -> tuple[Any, ...]:
    """The kinds of a union, of a type variable its bound."""
    if isinstance(kind, TypeVar):
        kind = kind.__bound__
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(part for member in get_args(kind) for part in _members(member))
    return (kind,)


def _kind(kind: Any) -> tuple[str, Test] | None:
    """Words and test of one kind; None for numbers, texts and arrays, and what is not known."""
    origin = get_origin(kind) or kind
    if origin in (None, type(None)):
        return "None", lambda value: value is None
    if origin is str:
        return "a text", lambda value: isinstance(value, str)
    if origin is bool:
        return "True or False", lambda value: isinstance(value, bool | np.bool_)
    if origin is Callable:
        return "a function", lambda value: callable(value) and not inspect.isclass(value)
    if origin is Mapping:
        return "a mapping", lambda value: isinstance(value, Mapping)
    if origin in (Sequence, Iterable):
        return "a list", is_listing
    if origin is os.PathLike:
        return "a path", lambda value: isinstance(value, str | os.PathLike)
    if not inspect.isclass(origin) or not origin.__module__.startswith("linattn."):
        return None
    if _is_problem(origin):
        return "a Problem", _is_problem
    return origin.__name__, lambda value: isinstance(value, origin)


def _is_problem(value: Any) -> bool:
    """Whether a class or an object is of a problem kind: whatever answers for its clients."""
    return hasattr(value, "rearranged")
