"""What callbacks of a run answer: names of their own, the same every round, and numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from linattn._checks import shown


class Answers:
    """Checks what one callback returns, round after round.

    Parameters
    ----------
    argument : str
        Its name in `run`.
    taken : collection of str
        Columns that the history has already.
    """

    def __init__(self, argument: str, taken: Collection[str]) -> None:
        self.argument = argument
        self.taken = taken
        self.names: frozenset[str] | None = None

    def __call__(self, made: Any, others: Collection[str] = ()) -> dict[str, float]:
        """Return the numbers by name; `others` are the names of another callback.

        Raises
        ------
        TypeError
            If it is no mapping of texts to numbers.
        ValueError
            If a name is taken, or the names are not those of the round before.
        """
        if not isinstance(made, Mapping):
            raise TypeError(f"{self.argument} must return a mapping, got {shown(made)}.")
        taken = {*self.taken, *others}
        found = {self._name(name, taken): self._number(name, x) for name, x in made.items()}
        if self.names is not None and self.names != found.keys():
            raise ValueError(
                f"{self.argument} must return the same names every round, got "
                f"{', '.join(found) or 'none'} after {', '.join(sorted(self.names)) or 'none'}."
            )
        self.names = frozenset(found)
        return found

    def _name(self, name: Any, taken: Collection[str]) -> str:
        if not isinstance(name, str) or not name:
            raise TypeError(f"{self.argument} must return names that are texts, got {shown(name)}.")
        if name in taken:
            raise ValueError(
                f"{self.argument} must return names that the history has not, got {name!r}."
            )
        return name

    def _number(self, name: Any, value: Any) -> float:
        array = np.asarray(value)
        masked = isinstance(value, np.ma.MaskedArray)
        if masked or array.ndim or array.dtype.kind not in "fiub":
            raise TypeError(
                f"{self.argument} must return numbers, got {shown(value)} for {shown(name)}."
            )
        return float(array)
