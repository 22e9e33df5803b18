"""Stored results by regime: everything but the seed is the same, so seeds give the spread."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from linattn._typing import Array
from linattn.experiments.store import Result, spec_text
from linattn.report.style import QUANTILES

WORDS = {
    "problem.value_heterogeneity": "target",
    "problem.covariate_heterogeneity": "covariate",
    "problem.kernel_heterogeneity": "kernel",
}
ALWAYS = ("problem.value_heterogeneity", "problem.covariate_heterogeneity")
UNUSED = ("kind", "seed", "local_steps", "initial.rank")
HUGE = 1e300
ROUNDING = 1e-9


@dataclass(frozen=True)
class Regime:
    """The runs of one regime, by seed.

    Attributes
    ----------
    label : str
        The regime in words, as ``target 1.5, covariate 0.3``.
    results : list of Result
        One per seed.
    heterogeneity : tuple of float
        Of targets, covariates and kernels.
    factored : bool
    """

    label: str
    results: list[Result]
    heterogeneity: tuple[float, ...]
    factored: bool

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.results)

    @property
    def local_steps(self) -> list[int]:
        """The numbers of local steps E of every run."""
        return [int(steps) for steps in self.results[0].dataset["local_steps"].values]

    def coordinate(self, name: str) -> Array:
        """Return a coordinate that all seeds share, as `warmup` or `round`."""
        return np.asarray(self.results[0].dataset[name].values, dtype=float)

    def values(self, name: str, local_steps: int | None = None) -> Array:
        """Return a variable of all seeds, seed first, at one number of local steps or at all."""
        arrays = [np.asarray(result.dataset[name].values, dtype=float) for result in self.results]
        if local_steps is not None:
            place = self.local_steps.index(local_steps)
            arrays = [array[place] for array in arrays]
        return np.stack(arrays)

    def title(self, local_steps: int) -> str:
        """Name the regime at one number of local steps."""
        return f"{self.label}, E = {local_steps}"


def regimes(results: Sequence[Result]) -> list[Regime]:
    """Group results by everything but the seed; merged kernels first, then by heterogeneity."""
    groups: dict[str, list[Result]] = {}
    fields: dict[str, dict[str, Any]] = {}
    for result in results:
        flat = spec_fields(result)
        seed = flat.pop("seed", None)
        text = json.dumps(flat, sort_keys=True)
        groups.setdefault(text, []).append(result)
        fields[text] = flat | {"seed": seed}
    found = [_regime(groups[text], fields[text], []) for text in groups]
    if len({regime.label for regime in found}) < len(found):
        # Those with words of their own are in the label already.
        named = {*UNUSED, *WORDS, "initial.kernel"}
        shown = [name for name in varying(list(fields.values())) if name not in named]
        found = [_regime(groups[text], fields[text], shown) for text in groups]
    return sorted(found, key=lambda r: (r.factored, r.heterogeneity[2], r.heterogeneity))


def spread(values: ArrayLike, axis: int = 0) -> tuple[Any, tuple[Any, Any]]:
    """Return median and band over seeds, where +inf (unstable, diverged) is worse than anything.

    A median or a quantile that falls on an unstable seed is +inf.

    Examples
    --------
    >>> middle, (low, high) = spread([1.0, 2.0, float("inf")])
    >>> float(middle), round(float(low), 3), float(high)
    (2.0, 1.2, inf)
    """
    array = np.nan_to_num(np.asarray(values, dtype=float), nan=np.nan, posinf=HUGE)
    low, middle, high = np.quantile(array, (QUANTILES[0], 0.5, QUANTILES[1]), axis=axis)
    lifted = [np.where(edge > HUGE**0.5, np.inf, edge) for edge in (middle, low, high)]
    return lifted[0], (lifted[1], lifted[2])


def in_words(values: ArrayLike, *, digits: int = 3, percent: bool = False) -> str:
    """Return ``median (low to high)``, or the value alone if there is one; below 1e-9 is 0.

    Examples
    --------
    >>> in_words([0.1, 0.2, 0.3], percent=True)
    '20 % (12 to 28 %)'
    >>> in_words([14.0])
    '14'
    """
    array = np.atleast_1d(np.asarray(values, dtype=float))
    if not array.size:
        return "none"
    array = np.where(np.abs(array) < ROUNDING, 0.0, array)
    middle, (low, high) = spread(100.0 * array if percent else array)
    unit = " %" if percent else ""
    first, *ends = (number(edge, digits) for edge in (middle, low, high))
    alone = array.size == 1 or ends[0] == ends[1]
    return f"{first}{unit}" if alone else f"{first}{unit} ({ends[0]} to {ends[1]}{unit})"


def number(value: float, digits: int = 3) -> str:
    """Return a number with a few digits, without an exponent where it can be read without.

    Examples
    --------
    >>> number(163.4), number(0.01234), number(float("inf"))
    ('163', '0.0123', '∞')
    """
    if not np.isfinite(value):
        return "∞" if value > 0 else "undefined"
    whole = abs(value) >= 10 ** (digits - 1) and abs(value) < 1e6
    return f"{value:.0f}" if whole else f"{value:.{digits}g}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def spec_fields(result: Result) -> dict[str, Any]:
    """Return the fields of the spec of a run, nested ones under dotted names."""
    return dict(_flat(json.loads(spec_text(result.spec))))


def varying(fields: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the fields that are not the same in all runs."""
    names = {name for row in fields for name in row}
    return sorted(n for n in names if len({json.dumps(row.get(n)) for row in fields}) > 1)


def _regime(results: list[Result], fields: Mapping[str, Any], shown: Sequence[str]) -> Regime:
    factored = fields.get("initial.kernel") == "factored"
    levels = tuple(float(fields.get(name, 0.0)) for name in WORDS)
    parts = [
        f"{word} {level:g}"
        for (name, word), level in zip(WORDS.items(), levels, strict=True)
        if name in ALWAYS or level
    ]
    parts += ["factored"] if factored else []
    parts += [f"{name.rpartition('.')[2].replace('_', ' ')} {fields.get(name)}" for name in shown]
    return Regime(", ".join(parts), results, levels, factored)
