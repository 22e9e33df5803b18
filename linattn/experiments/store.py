"""The store: one NetCDF file per run, written whole or not at all.

The bytes of a file depend on the spec, the numbers and their provenance only; wall times go to a
side file. Every file carries a SHA-256 over all its bytes, so damage is seen before anything is
believed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from linattn.experiments.files import write_atomically
from linattn.experiments.provenance import provenance
from linattn.experiments.specs import NUMERICS, Spec, digest, kind_of, spec_from, spec_json
from linattn.experiments.validation import canonical_json

if TYPE_CHECKING:
    import xarray as xr

_NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
State = Literal["stored", "stale", "damaged"]
TIMINGS = "timings.jsonl"

_BLANK = b"0" * 64
# Name, type NC_CHAR and length of the attribute, as the header of a NetCDF-3 file spells them.
_MARK = b"checksum" + (2).to_bytes(4, "big") + (64).to_bytes(4, "big")


class Entry(NamedTuple):
    """A file of the store as `scan` sees it: path, state, kind and canonical spec."""

    path: Path
    state: State
    kind: str
    spec: str


class Result(NamedTuple):
    """A stored run: its spec, its arrays, where they come from and where they lie.

    `spec` is a plain mapping if the kind or a key is not known to this version.
    """

    spec: Spec | Mapping[str, Any]
    dataset: xr.Dataset
    provenance: Mapping[str, Any]
    path: Path


class DamagedError(ValueError):
    """A stored file is not what was written."""


def result_path(store: str | os.PathLike[str], spec: Spec) -> Path:
    """Return where the result of a spec lies: ``<kind>-<first 16 digits of the digest>.nc``."""
    return Path(store) / f"{kind_of(spec)}-{digest(spec)[:16]}.nc"


def write_result(store: str | os.PathLike[str], spec: Spec, dataset: xr.Dataset) -> Path:
    """Store a run: temporary name, fsync, rename, so a reader never sees half a file.

    Raises
    ------
    OSError
        If it cannot be written (full disk, no permission); an older file stays as it was.
    """
    path = result_path(store, spec)
    write_atomically(path, encode(spec, dataset))
    return path


def encode(spec: Spec, dataset: xr.Dataset) -> bytes:
    """Return the NetCDF bytes of a run, checksum included; equal runs give equal bytes."""
    import xarray as xr

    names = sorted(map(str, dataset.variables))
    variables = {name: _storable(name, dataset[name].variable) for name in names}
    attributes = {
        "checksum": _BLANK.decode(),
        "spec": spec_json(spec),
        "provenance": canonical_json(provenance()),
        **{str(name): dataset.attrs[name] for name in sorted(dataset.attrs)},
    }
    fresh = xr.Dataset(variables, attrs=attributes).set_coords(sorted(map(str, dataset.coords)))
    unfilled = {name: {"_FillValue": None} for name in names}
    content = bytes(fresh.to_netcdf(engine="scipy", encoding=unfilled))
    start = content.index(_MARK) + len(_MARK)
    checksum = hashlib.sha256(content).hexdigest().encode()
    return content[:start] + checksum + content[start + 64 :]


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read one stored run.

    Raises
    ------
    DamagedError
        If the file is truncated or altered.
    OSError
        If it cannot be read.
    """
    import xarray as xr

    content = _intact(Path(path))
    dataset = xr.load_dataset(io.BytesIO(content), engine="scipy", decode_times=False)
    origin = json.loads(dataset.attrs.pop("provenance"))
    values = json.loads(dataset.attrs.pop("spec"))
    dataset.attrs.pop("checksum")
    try:
        spec: Spec | Mapping[str, Any] = spec_from(values)
    except ValueError:
        spec = values
    return Result(spec, dataset, origin, Path(path))


def state_of(path: Path) -> State | Literal["missing"]:
    """Tell whether a file is missing, damaged, stale (older numerics) or stored."""
    return inspect_file(path).state if path.exists() else "missing"


def inspect_file(path: Path) -> Entry:
    """Return what a file of the store is, without loading its arrays."""
    from scipy.io import netcdf_file

    try:
        content = _intact(path)
    except (DamagedError, FileNotFoundError):
        return Entry(path, "damaged", path.name.rpartition("-")[0], "")
    with netcdf_file(io.BytesIO(content), mmap=False) as file:
        spec, origin = file.spec.decode(), json.loads(file.provenance)
    state: State = "stored" if origin["numerics"] == NUMERICS else "stale"
    return Entry(path, state, str(json.loads(spec)["kind"]), spec)


def scan(store: str | os.PathLike[str]) -> list[Entry]:
    """Return an entry for every result file of the store, by name.

    Raises
    ------
    ValueError
        If the store is not a folder.
    """
    folder = Path(store)
    if not folder.is_dir():
        raise ValueError(f"store must be a folder with results, got {folder}; run a sweep first.")
    return [inspect_file(path) for path in sorted(folder.glob("*.nc"))]


def set_aside(path: Path) -> str:
    """Rename a damaged file to ``*.damaged`` and return the sentence that says so."""
    aside = path.with_name(path.name + ".damaged")
    with suppress(FileNotFoundError):  # another process was faster
        os.replace(path, aside)
    return f"{path.name} is damaged; it is kept as {aside.name} and computed again."


def load_results(
    store: str | os.PathLike[str],
    kind: str | None = None,
    *,
    sweep: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> list[Result]:
    """Return the stored runs of current numerics, ordered by spec.

    Parameters
    ----------
    store : path
        The output folder of a sweep.
    kind : str, optional
        Only runs of this kind.
    sweep : str, optional
        Only the runs that the last sweep of this name asked for.
    where : mapping of str to value, optional
        Only runs with these values, by dotted field name, as ``{"problem.noise": 0.1}``.

    Raises
    ------
    ValueError
        If the store is not a folder.

    Warns
    -----
    UserWarning
        For every damaged file; it is left out.
    """
    entries = [e for e in scan(store) if kind in (None, e.kind)]
    wanted = None if sweep is None else set(read_manifest(store, sweep).get("files", []))
    kept = []
    for entry in entries:
        if wanted is not None and entry.path.name not in wanted:
            continue
        if entry.state == "damaged":
            warnings.warn(f"{entry.path.name} is damaged and left out.", stacklevel=2)
        elif entry.state == "stored" and _matches(json.loads(entry.spec), where or {}):
            kept.append(entry)
    return [read_result(entry.path) for entry in sorted(kept, key=lambda e: _order(e.spec))]


def combine(results: Iterable[Result], over: Iterable[str]) -> xr.Dataset:
    """Return one dataset of several runs with a new dimension for each of some fields.

    Parameters
    ----------
    results : iterable of Result
        Runs that differ in the fields of `over` only (combinations that were not run are NaN).
    over : iterable of str
        Dotted field names; the dimension is called by the last part, as ``value_heterogeneity``.

    Raises
    ------
    ValueError
        If there are no results.
    """
    import xarray as xr

    names = list(over)
    parts = []
    for result in results:
        values = json.loads(spec_text(result.spec))
        point = {name.rpartition(".")[2]: [lookup(values, name)] for name in names}
        parts.append(result.dataset.expand_dims(point))
    if not parts:
        raise ValueError("results must not be empty; run the simulation first.")
    combined = xr.combine_by_coords(parts, combine_attrs="drop_conflicts", join="outer")
    assert isinstance(combined, xr.Dataset)
    return combined


def spec_text(spec: Spec | Mapping[str, Any]) -> str:
    """Return the canonical JSON of a spec, or of the mapping that stands for one."""
    return spec_json(spec) if isinstance(spec, Spec) else canonical_json(spec)


def lookup(values: Mapping[str, Any], name: str) -> Any:
    """Return the value of a dotted field name in a nested mapping, None if it is not there."""
    found: Any = values
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def write_manifest(store: Path, name: str, *, preset: str, specs: Iterable[Spec]) -> None:
    """Remember which runs the last sweep of a name asked for, for those who draw it."""
    folder = store / "sweeps"
    folder.mkdir(exist_ok=True)
    files = [result_path(store, spec).name for spec in specs]
    text = json.dumps({"preset": preset, "files": files}, indent=1)
    write_atomically(folder / f"{name}.json", text.encode())


def read_manifest(store: str | os.PathLike[str], name: str) -> dict[str, Any]:
    """Return preset and files of the last sweep of a name; empty if there was none."""
    try:
        text = (Path(store) / "sweeps" / f"{name}.json").read_text(encoding="utf-8")
        return dict(json.loads(text))
    except (OSError, ValueError):
        return {}


def record_time(store: Path, spec: Spec, seconds: float) -> None:
    """Append the wall time of a run to the side file (a lost line loses nothing else)."""
    line = canonical_json({"file": result_path(store, spec).name, "seconds": round(seconds, 4)})
    with suppress(OSError), open(store / TIMINGS, "a", encoding="utf-8") as file:
        file.write(line + "\n")


def _intact(path: Path) -> bytes:
    """Return the bytes of a file after comparing them with their checksum."""
    content = path.read_bytes()
    start = content.find(_MARK) + len(_MARK)
    blanked = content[:start] + _BLANK + content[start + 64 :]
    expected = hashlib.sha256(blanked).hexdigest().encode()
    if start < len(_MARK) or content[start : start + 64] != expected:
        raise DamagedError(f"{path} is damaged: its bytes do not fit their checksum.")
    return content


def _storable(name: str, variable: xr.Variable) -> xr.Variable:
    """Return the variable in a type that NetCDF-3 has: int8 for truth, int32 for integers."""
    import numpy as np

    values = np.asarray(variable.values)
    if values.dtype.kind == "b":
        values = values.astype(np.int8)
    elif values.dtype.kind in "iu":
        if values.size and np.abs(values).max() > np.iinfo(np.int32).max:
            raise ValueError(f"{name} must fit into 32-bit integers; store it as float64.")
        values = values.astype(np.int32)
    return type(variable)(variable.dims, values, attrs=variable.attrs)


def _matches(values: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    tidy = {name: list(v) if isinstance(v, tuple) else v for name, v in where.items()}
    return all(lookup(values, name) == value for name, value in tidy.items())


def _order(spec: str) -> tuple[Any, ...]:
    """Sort key of a canonical spec: numbers by size, not by their digits."""
    return tuple(
        (0, float(part), "") if index % 2 else (1, 0.0, part)
        for index, part in enumerate(_NUMBER.split(spec))
    )
