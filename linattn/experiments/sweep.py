"""Sweeps: named presets, each a list of grids of specs, and overrides from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import msgspec
from msgspec import inspect

from linattn.experiments.specs import Spec, digest
from linattn.experiments.validation import build, dotted_fields, unknown_key


@dataclass(frozen=True)
class Grid:
    """A base spec and the values that some of its fields take, all combinations of them.

    Parameters
    ----------
    base : Spec
        Fields that are not in `axes`.
    axes : mapping of str to sequence
        Values by dotted field name, as ``{"problem.noise": [0, 0.1]}``; the first axis is the
        slowest.
    """

    base: Spec
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sweep:
    """An experiment: a name and the grids of every preset.

    Parameters
    ----------
    name : str
        Name of the experiment, used in listings.
    presets : mapping of str to sequence of Grid
        As ``{"quick": [Grid(...)]}``.
    """

    name: str
    presets: Mapping[str, Sequence[Grid]]

    def specs(self, preset: str, overrides: Mapping[str, Any] | None = None) -> list[Spec]:
        """Return the distinct specs of a preset in grid order.

        Parameters
        ----------
        preset : str
            One of the presets.
        overrides : mapping of str to value, optional
            Values by dotted field name; see `overridden`.

        Raises
        ------
        ValueError
            If the preset or a key is unknown, or a value is out of range.
        """
        if preset not in self.presets:
            known = ", ".join(self.presets)
            raise ValueError(f"preset of {self.name} must be one of {known}, got {preset!r}.")
        grids = [overridden(grid, overrides or {}) for grid in self.presets[preset]]
        return distinct(spec for grid in grids for spec in expand(grid))


def distinct(specs: Iterable[Spec]) -> list[Spec]:
    """Return the specs without repetition, in order of first appearance."""
    return list({digest(spec): spec for spec in specs}.values())


def expand(grid: Grid) -> list[Spec]:
    """Return all specs of a grid, checked and normalised.

    Raises
    ------
    ValueError
        If an axis is unknown or empty, or a combination is not a valid spec.
    """
    for name, values in grid.axes.items():
        _known(type(grid.base), name)
        if isinstance(values, str) or not len(values):
            raise ValueError(f"{name} must be a list of at least one value, got {values!r}.")
    start = msgspec.to_builtins(grid.base)
    return [
        build(type(grid.base), _with(start, dict(zip(grid.axes, point, strict=True))))
        for point in product(*grid.axes.values())
    ]


def overridden(grid: Grid, overrides: Mapping[str, Any]) -> Grid:
    """Return the grid with some fields set.

    A list replaces or adds the axis of that field, except for fields that are lists themselves
    (``local_steps``), where a list, or a single value, is the value of the field.

    Raises
    ------
    ValueError
        If a key is unknown.
    """
    axes = dict(grid.axes)
    for name, value in overrides.items():
        _known(type(grid.base), name)
        is_list = isinstance(dotted_fields(type(grid.base))[name], inspect.VarTupleType)
        spread = isinstance(value, list | tuple) and not is_list
        axes[name] = list(value) if spread else [value]
    return replace(grid, axes=axes)


def parse_override(text: str) -> tuple[str, Any]:
    """Return the key and the value of ``key=value``: JSON where it parses, else a string.

    Raises
    ------
    ValueError
        If there is no key or no equals sign.

    Examples
    --------
    >>> parse_override("problem.noise=[0, 0.1]")
    ('problem.noise', [0, 0.1])
    >>> parse_override("frozen_lr=safe")
    ('frozen_lr', 'safe')
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--set must be given as key=value, got {text!r}.")
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        return key.strip(), value.strip()


def _known(cls: type[Spec], name: str) -> None:
    if name not in dotted_fields(cls):
        raise unknown_key(name, cls)


def _with(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested `values` with some dotted names set."""
    changed = dict(values)
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        changed[head] = _with(changed[head], {rest: value}) if rest else value
    return changed
