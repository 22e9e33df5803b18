"""What a NetCDF-3 file can hold and give back unchanged; anything else is refused in a sentence."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import xarray as xr

RESERVED = ("checksum", "provenance", "simulation", "spec")
"""Attributes of the dataset that are the store's."""
_INTERPRETED = ("_FillValue", "_Unsigned", "add_offset", "coordinates", "missing_value",
                "scale_factor")  # fmt: skip
_INT32 = (-(2**31), 2**31 - 1)
_NAME = re.compile(r"[^\W\d][\w.-]*")


def storable(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with names sorted, truth as int8 and integers as int32.

    Raises
    ------
    ValueError, TypeError
        If something in it cannot be stored: one sentence names it.
    """
    for name in (*dataset.variables, *dataset.dims):
        _named("a variable or dimension", name)
    for name in dataset.dims:
        if re.fullmatch(r"string\d+", str(name)):
            raise ValueError(f"dimension {name!r} has a name that texts use; use another one.")
    names = sorted(map(str, dataset.variables))
    kept = {name: _variable(name, dataset[name].variable) for name in names}
    made = type(dataset)(kept, attrs=_attributes("the dataset", dataset.attrs))
    return made.set_coords(sorted(map(str, dataset.coords)))


def _variable(name: str, variable: xr.Variable) -> xr.Variable:
    import numpy as np

    values = np.asarray(variable.values)
    kind = values.dtype.kind
    if kind == "b":
        values = values.astype(np.int8)
    elif kind in "iu":
        if values.size and not _INT32[0] <= int(values.min()) <= int(values.max()) <= _INT32[1]:
            raise ValueError(f"{name} must fit into 32-bit integers; store it as float64.")
        values = values.astype(np.int32)
    elif kind == "c":
        raise TypeError(f"{name} must be real; store real and imaginary parts apart.")
    elif kind == "f":
        if values.dtype.itemsize not in (4, 8):
            raise TypeError(f"{name} must be float32 or float64, got {values.dtype}.")
    elif kind != "S":
        if kind != "U" and not all(isinstance(v, str) for v in values.flat):
            raise TypeError(f"{name} must be numbers or texts, got dtype {values.dtype}.")
        for text in values.flat:
            _plain(name, text)
    return type(variable)(variable.dims, values, attrs=_attributes(name, variable.attrs))


def _attributes(owner: str, attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes in an order of their own."""
    taken = dict.fromkeys(_INTERPRETED, "NetCDF's")
    if owner == "the dataset":
        taken |= dict.fromkeys(RESERVED, "the store's")
    kept = {}
    for key in sorted(attributes, key=str):
        _named(f"an attribute of {owner}", key)
        if key in taken:
            raise ValueError(f"attribute {key!r} of {owner} is {taken[key]}; use another name.")
        kept[key] = _value(f"attribute {key!r} of {owner}", attributes[key])
    return kept


def _value(what: str, value: Any) -> Any:
    import numpy as np

    if isinstance(value, str):
        return _plain(what, value)
    array = np.asarray(value)
    shown = " ".join(repr(value).split())
    small = array.dtype.kind == "f" and array.dtype.itemsize in (4, 8)
    if array.dtype.kind in "iu" and array.size:
        small = _INT32[0] <= int(array.min()) <= int(array.max()) <= _INT32[1]
    if not small or array.ndim > 1 or isinstance(value, bool):
        raise TypeError(
            f"{what} must be one text or numbers (integers of 32 bits), got {shown}; make it a "
            "variable or a text."
        )
    return value


def _named(what: str, name: Hashable) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"name of {what} must be letters, digits, _, - and ., not starting with a digit, got "
            f"{name!r}."
        )


def _plain(what: str, text: str) -> str:
    """The text, if a file gives it back."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} must be text that UTF-8 holds, got {text!r}.") from error
    if "\0" in text:
        raise ValueError(f"{what} must be text without the character NUL, got {text!r}.")
    return text
