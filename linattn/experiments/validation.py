"""Turning plain mappings into validated specs: one clear sentence for every mistake."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from linattn._fields import LARGEST
from linattn.experiments.own import pinned

S = TypeVar("S", bound=msgspec.Struct)

OWN = "own"
"""Extra of a field that may name a file of the user's own."""

_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys, no whitespace and floats by repr: equal values, equal text.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def dotted_fields(cls: type[msgspec.Struct], prefix: str = "") -> dict[str, inspect.Type]:
    """Return the type of every leaf field by its dotted name, as ``problem.noise``."""
    found: dict[str, inspect.Type] = {}
    for field in _fields(cls):
        name = prefix + field.name
        if isinstance(field.type, inspect.StructType):
            found.update(dotted_fields(field.type.cls, name + "."))
        else:
            found[name] = field.type
    return found


def unknown_key(key: str, cls: type[msgspec.Struct]) -> ValueError:
    """Return the error that teaches which keys are near `key`, or which there are."""
    names = list(dotted_fields(cls))
    last = {name: name.rpartition(".")[2] for name in names}
    close = get_close_matches(key.rpartition(".")[2], sorted(set(last.values())), cutoff=0.75)
    near = [name for match in close for name in names if last[name] == match]
    near = near or get_close_matches(key, names, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known keys are {', '.join(names)}."
    return ValueError(f"unknown key {key!r}; {hint}")


def build(cls: type[S], values: Mapping[str, Any]) -> S:
    """Return a `cls` made of `values`, checked and normalised (integers given for floats become
    floats, a single value given for a list becomes a list of one).

    Raises
    ------
    ValueError
        One sentence: the argument, the value received, what is allowed.
    """
    tidy = _tidy(cls, cls, values, "")
    try:
        return msgspec.convert(tidy, cls)
    except msgspec.ValidationError as error:
        raise ValueError(_sentence(error, cls, tidy)) from error


def normalised(spec: S) -> S:
    """Return `spec` checked and normalised as `build` does it.

    Raises
    ------
    ValueError
        If a value is out of range, or of a kind that JSON has not.
    """
    try:
        held = msgspec.to_builtins(spec)
    except TypeError as error:
        raise ValueError(f"fields of {type(spec).__name__} must be JSON values: {error}") from error
    return build(type(spec), held)


def describe(kind: inspect.Type) -> str:
    """Say in words which values a field type allows."""
    if isinstance(kind, inspect.Metadata):
        return describe(kind.type)
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        noun = "an integer" if isinstance(kind, inspect.IntType) else "a finite number"
        limits = ((">=", kind.ge), (">", kind.gt), ("<=", kind.le), ("<", kind.lt))
        stated = [f"{sign} {n:g}" for sign, n in limits if n is not None and n != LARGEST]
        return " ".join([noun, " and ".join(stated)]).strip()
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(json.dumps(value) for value in kind.values)
    if isinstance(kind, inspect.UnionType):
        return " or ".join(describe(part) for part in kind.types)
    if isinstance(kind, inspect.VarTupleType):
        return f"a list of entries that are each {describe(kind.item_type)}"
    if isinstance(kind, inspect.StructType):
        return f"an object with the keys {', '.join(f.name for f in _fields(kind.cls))}"
    words = {inspect.NoneType: "null", inspect.BoolType: "true or false", inspect.StrType: "a text"}
    return words.get(type(kind), "another type")


@cache
def _fields(cls: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return info.fields


def _tidy(
    root: type[msgspec.Struct], cls: type[msgspec.Struct], values: Mapping[str, Any], prefix: str
) -> dict[str, Any]:
    """Refuse unknown keys and wrap single values meant as lists, at every level."""
    kinds = {field.name: field.type for field in _fields(cls)}
    tidy = {}
    for name, value in values.items():
        kind = kinds.get(name)
        if kind is None:
            raise unknown_key(prefix + name, root)
        if isinstance(kind, inspect.StructType) and isinstance(value, Mapping):
            value = _tidy(root, kind.cls, value, f"{prefix}{name}.")
        elif isinstance(kind, inspect.VarTupleType):
            parts = value if isinstance(value, list | tuple) else [value]
            value = [_tidy_leaf(prefix + name, kind.item_type, part) for part in parts]
        else:
            value = _tidy_leaf(prefix + name, kind, value)
        tidy[name] = value
    return tidy


def _tidy_leaf(name: str, kind: inspect.Type, value: Any) -> Any:
    """Pin files of the user's own, refuse what is no number or text, and let -0.0 be 0.0."""
    if isinstance(value, str) and not _is_text(value):
        raise ValueError(f"{name} must be {describe(kind)}, got {value!r}.")
    if isinstance(kind, inspect.Metadata) and isinstance(value, str):
        return pinned(name, value) if (kind.extra or {}).get(OWN) else value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{name} must be {describe(kind)}, got {value}.")
        return value + 0.0
    return value


def _is_text(value: str) -> bool:
    """Whether it can be written down: half of a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sentence(error: msgspec.ValidationError, cls: type[msgspec.Struct], values: Any) -> str:
    """Reword a msgspec error; errors of our own checks already are sentences."""
    if isinstance(error.__cause__, ValueError):
        return str(error.__cause__)
    match = _PATH.search(str(error))
    path = match["path"] if match else ""
    kind: inspect.Type | None = inspect.type_info(cls)
    for part in filter(None, path.split(".")):
        name = part.partition("[")[0]
        if isinstance(kind, inspect.StructType):
            kind = next((f.type for f in _fields(kind.cls) if f.name == name), None)
            values = values[name]
    if kind is None or not path:
        return f"{path or cls.__name__}: {_PATH.sub('', str(error))}."
    field = path.partition("[")[0]
    return f"{field} must be {describe(kind)}, got {json.dumps(values, default=repr)}."
