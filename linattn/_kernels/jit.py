"""The two ways in which functions are compiled here.

Neither reorders sums: two compiled copies of a function must give the same bits, whichever of them
a process happens to run (see `lanes`).
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])
Generate = Callable[[Any, Any, Any, Any], Any]


def inner(function: Function) -> Function:
    """Compile what compiled code alone calls: nothing unpacks its arguments from Python."""
    made: Function = njit(cache=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return made


def outer(function: Function) -> Function:
    """Compile what Python calls, also several threads at once."""
    made: Function = njit(cache=True, nogil=True)(function)
    return made


def operation(typed: Callable[..., tuple[Any, Generate]]) -> Any:
    """Make what compiled code calls of a function (typing, *types) -> (signature, generator)."""
    return intrinsic(typed)
