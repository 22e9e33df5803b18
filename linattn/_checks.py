"""Input checks. Each says in one sentence which argument is wrong, its value, what is allowed."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from linattn._typing import Array

_SLICE = 2**20
MOST_ENTRIES = 2**31 - 1
"""Along one axis of an array."""
LARGEST = 2**63 - 1
"""Integer that compiled code can hold."""
LONGEST = 80
"""Characters of a value in a sentence."""


def as_float64(name: str, value: Any, *, ndim: int | tuple[int, ...] | None = None) -> Array:
    """Return `value` as a finite, C-contiguous float64 array; integers and byte orders are cast.

    Raises
    ------
    TypeError
        If the values are float32, float16, complex, objects or not numeric: silent casts would hide
        a loss of precision that the checks of this package cannot tell from a broken theorem. If
        they are masked: what is hidden would be taken for data.
    ValueError
        If lists are ragged, the number of axes is wrong or a value is NaN or infinite.
    """
    refuse_masked(name, value)
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be a rectangular array, got ragged lists.") from None
    if array.dtype.kind not in "iub" and array.dtype.newbyteorder("=") != np.float64:
        raise TypeError(f"{name} must be float64 or integer, got dtype {array.dtype}; convert it.")
    if ndim is not None:
        allowed = (ndim,) if isinstance(ndim, int) else ndim
        if array.ndim not in allowed:
            axes = " or ".join(str(k) for k in allowed)
            raise ValueError(f"{name} must have {axes} axes, got shape {array.shape}.")
    array = np.ascontiguousarray(array, dtype=np.float64)
    flat = array.reshape(-1)
    # In slices: the truth values of a memory-mapped array need not lie in memory at once.
    finite = sum(
        int(np.isfinite(flat[k : k + _SLICE]).sum()) for k in range(0, max(1, flat.size), _SLICE)
    )
    if finite < flat.size:
        bad = flat.size - finite
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite entries.")
    return array


def refuse_masked(name: str, value: Any) -> None:
    """Refuse masked arrays, also inside lists: NumPy would take what is hidden for data.

    Raises
    ------
    TypeError
    """
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must be without a mask, got a masked array; leave out or fill what it hides."
        )
    if isinstance(value, (list, tuple)):
        for part in value:
            refuse_masked(name, part)


def positive_int(name: str, value: Any, *, minimum: int = 1, maximum: int | None = LARGEST) -> int:
    """Return `value` as an int within the limits (booleans and floats are refused)."""
    integral = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    if not integral or value < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}, got {shown(value)}.")
    if maximum is not None and value > maximum:
        raise ValueError(f"{name} must be an integer <= {maximum}, got {shown(value)}.")
    return int(value)


def real(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> float:
    """Return `value` as a finite float within the stated range."""
    limits = []
    if above is not None:
        limits.append(f"> {above:g}")
    if minimum is not None:
        limits.append(f">= {minimum:g}")
    if maximum is not None:
        limits.append(f"<= {maximum:g}")
    allowed = " and ".join(limits) or "finite"
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number ({allowed}), got {shown(value)}.") from None
    if not np.isfinite(number):
        finite = f"a finite number {' and '.join(limits)}".rstrip()
        raise ValueError(f"{name} must be {finite}, got {shown(value)}.")
    outside = (
        (above is not None and number <= above)
        or (minimum is not None and number < minimum)
        or (maximum is not None and number > maximum)
    )
    if outside:
        raise ValueError(f"{name} must be {allowed}, got {shown(value)}.")
    return number


def one_of(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Return `value` if it is one of `allowed`, else name the nearest choice."""
    choices: Sequence[str] = tuple(allowed)
    if isinstance(value, str) and value in choices:
        return str(value)
    near = get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    known = ", ".join(map(repr, choices))
    raise ValueError(f"{name} must be one of {known}, got {shown(value)}{hint}")


def is_listing(value: Any) -> bool:
    """Whether a value is a list of things: no text, no mapping, no single number."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    listed = getattr(value, "__iter__", None) is not None and not isinstance(value, type)
    return listed and not isinstance(value, (str, bytes, Mapping))


def listing(name: str, value: Any) -> list[Any]:
    """Return `value` as a list, if it is a list of things."""
    if not is_listing(value):
        raise TypeError(f"{name} must be a list, got {shown(value)}.")
    return list(value)


def shown(value: Any) -> str:
    """Return a value as it stands in a sentence: on one line, and not longer than it must be."""
    plain = value.item() if isinstance(value, np.generic) else value
    text = " ".join(repr(plain).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
