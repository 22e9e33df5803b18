"""What a simulation is: a spec, a function that computes a run of it, and presets, in one file.

A run is a task: the path of that file and the canonical JSON of the spec. The digest of a task
covers the name, the version of the simulation, the spec, and `NUMERICS`; equal specs have equal
digests whether a float was given as ``1`` or ``1.0``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, inspect

from linattn._checks import positive_int, real
from linattn._fields import Index, Part
from linattn.experiments.validation import (
    OWN,
    build,
    canonical_json,
    dotted_fields,
    normalised,
    unknown_key,
)

if TYPE_CHECKING:
    import xarray as xr

    from linattn.claims import Verdict

NUMERICS = 4
"""Version of the numbers of the library: raise it whenever stored results would change."""

Own = Annotated[str, Meta(extra={OWN: True})]
"""A file of the user's own, ``PATH`` or ``PATH:NAME``, that enters the digest by its SHA-256."""

_PLACE = re.compile(r"^.*[/\\](?=[^/\\#]*#[0-9a-f]{16}(:|$))")


class Spec(Part):
    """What every run has; subclass it with annotated fields that have defaults.

    Attributes
    ----------
    seed : int
        Seeds vary the start and the draws.
    """

    seed: Index = 0

    def cost(self) -> float:
        """Rough cost in gradient steps, for starting the longest runs first."""
        return 1.0


S = TypeVar("S", bound=Spec)
Check = Callable[[Sequence["xr.Dataset"]], "Verdict"]
"""A claim judged on stored runs of a simulation."""


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


class Task(NamedTuple):
    """A run to compute: all of it is text, so that any process on any machine can take it.

    Attributes
    ----------
    path : str
        File of the simulation.
    name : str
        Its stem.
    spec : str
        Canonical JSON.
    digest : str
        SHA-256 of {name, numerics, spec, version}, in hexadecimal.
    cost : float
        Rough cost, in gradient steps.
    """

    path: str
    name: str
    spec: str
    digest: str
    cost: float

    @property
    def file(self) -> str:
        """Name of the stored result: ``<name>-<first 16 digits of the digest>.nc``."""
        return f"{self.name}-{self.digest[:16]}.nc"


def _declaring_file() -> Path:
    """The file that makes a `Simulation`: this is called from its constructor."""
    file = sys._getframe(2).f_globals.get("__file__", "")
    return Path(file).resolve() if file else Path()


@dataclass(frozen=True)
class Simulation(Generic[S]):
    """A simulation: one Python file that ends in ``SIMULATION = Simulation(...)``.

    Parameters
    ----------
    spec : subclass of Spec
        Fields of a run.
    run : callable (spec) -> xarray.Dataset
        Computes a run; anything it depends on is in the spec.
    presets : mapping of str to sequence of Grid
        Named sweeps, as ``{"quick": [Grid(...)]}``.
    version : int
        Raise it whenever results of this simulation change; stored ones are then stale.
    checks : sequence of callable (list of xarray.Dataset) -> Verdict
        Claims judged on the stored runs of a preset, by ``linattn verify``.
    path : Path
        The file that declares it, found by itself; its stem is the name.

    Raises
    ------
    ValueError
        If the spec is no subclass of `Spec`, the version no positive integer, or a grid has specs
        of another class.
    """

    spec: type[S]
    run: Callable[[S], xr.Dataset]
    presets: Mapping[str, Sequence[Grid]]
    version: int = 1
    checks: Sequence[Check] = ()
    path: Path = field(default_factory=_declaring_file, kw_only=True)

    def __post_init__(self) -> None:
        if not (isinstance(self.spec, type) and issubclass(self.spec, Spec)):
            raise ValueError(f"spec must be a subclass of Spec, got {self.spec!r}.")
        positive_int("version", self.version)
        for preset, grids in self.presets.items():
            for grid in grids:
                if not isinstance(grid, Grid) or type(grid.base) is not self.spec:
                    raise ValueError(
                        f"presets must be lists of Grid({self.spec.__name__}(...), ...), got "
                        f"{type(grid).__name__} in {preset!r}."
                    )

    @property
    def name(self) -> str:
        """Stem of the file."""
        return self.path.stem

    def specs(self, preset: str, overrides: Mapping[str, Any] | None = None) -> list[S]:
        """Return the distinct specs of a preset in grid order.

        Parameters
        ----------
        preset : str
            One of the presets.
        overrides : mapping of str to value, optional
            Values by dotted field name. A list replaces or adds the axis of that field, except for
            fields that are lists themselves, where a list, or a single value, is the value.

        Raises
        ------
        ValueError
            If the preset or a key is unknown, or a value is out of range.
        """
        if preset not in self.presets:
            known = ", ".join(self.presets) or "none"
            raise ValueError(f"preset of {self.name} must be one of {known}, got {preset!r}.")
        grids = [_overridden(grid, overrides or {}) for grid in self.presets[preset]]
        made = [spec for grid in grids for spec in _expanded(self.spec, grid)]
        return list({spec_json(spec): spec for spec in made}.values())

    def task(self, spec: S) -> Task:
        """Return the task that computes a spec, checked and normalised.

        Raises
        ------
        ValueError
            If a field is out of range, or the cost no finite number of at least 0.
        """
        checked = normalised(spec)
        text = canonical_json(msgspec.to_builtins(checked))
        return Task(str(self.path), self.name, text, self._digest(checked), _cost(checked))

    def tasks(self, preset: str, overrides: Mapping[str, Any] | None = None) -> list[Task]:
        """Return the tasks of a preset, as `specs` orders them."""
        return [self.task(spec) for spec in self.specs(preset, overrides)]

    def spec_from(self, values: Mapping[str, Any]) -> S:
        """Return the spec of a mapping, with defaults for what it leaves out.

        Raises
        ------
        ValueError
            If a key is unknown or a value out of range.
        """
        return build(self.spec, values)

    def _digest(self, spec: S) -> str:
        """Files of the user's own count by name and SHA-256, wherever they lie."""
        held = {
            "name": self.name,
            "numerics": NUMERICS,
            "spec": _unplaced(msgspec.to_builtins(spec)),
            "version": self.version,
        }
        return hashlib.sha256(canonical_json(held).encode()).hexdigest()

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Entry point of the file as a script: run a preset."""
        from linattn.cli import simulation_main

        simulation_main(self, arguments)


def spec_json(spec: Spec) -> str:
    """Return the canonical JSON of the normalised spec.

    Examples
    --------
    >>> spec_json(Spec(seed=3))
    '{"seed":3}'
    """
    return canonical_json(msgspec.to_builtins(normalised(spec)))


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


def parse_overrides(texts: Iterable[str]) -> dict[str, Any]:
    """Return all overrides of a command line.

    Raises
    ------
    ValueError
        If one cannot be read, or a key is given twice.
    """
    found: dict[str, Any] = {}
    for key, value in map(parse_override, texts):
        if key in found:
            raise ValueError(f"--set must give every key once, got {key!r} twice.")
        found[key] = value
    return found


def parse_shard(text: str) -> tuple[int, int]:
    """Return k and N of ``k/N``, 1 ≤ k ≤ N.

    Raises
    ------
    ValueError
        If it is anything else.

    Examples
    --------
    >>> parse_shard("2/5")
    (2, 5)
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    k, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= k <= count:
        raise ValueError(f"--shard must be K/N with 1 <= K <= N, got {text!r}.")
    return k, count


def _cost(spec: Spec) -> float:
    """The cost of a run, as its spec says it."""
    try:
        cost = float(spec.cost())
    except Exception as error:
        raise ValueError(
            f"cost of {type(spec).__name__} cannot be computed: {type(error).__name__}: {error}"
        ) from error
    return real("cost", cost, minimum=0.0)


def _expanded(cls: type[S], grid: Grid) -> list[S]:
    """All specs of a grid, checked and normalised."""
    for name, values in grid.axes.items():
        _known(cls, name)
        if isinstance(values, str) or not (isinstance(values, Sequence) and len(values)):
            raise ValueError(f"{name} must be a list of at least one value, got {values!r}.")
    start = msgspec.to_builtins(normalised(grid.base))
    return [
        build(cls, _with(start, dict(zip(grid.axes, point, strict=True))))
        for point in product(*grid.axes.values())
    ]


def _overridden(grid: Grid, overrides: Mapping[str, Any]) -> Grid:
    """The grid with some fields set."""
    axes = dict(grid.axes)
    for name, value in overrides.items():
        _known(type(grid.base), name)
        is_list = isinstance(dotted_fields(type(grid.base))[name], inspect.VarTupleType)
        spread = isinstance(value, list | tuple) and not is_list
        axes[name] = list(value) if spread else [value]
    return replace(grid, axes=axes)


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


def _unplaced(value: Any) -> Any:
    """The same values without the folders of pinned files."""
    if isinstance(value, Mapping):
        return {key: _unplaced(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_unplaced(part) for part in value]
    return _PLACE.sub("", value) if isinstance(value, str) else value
