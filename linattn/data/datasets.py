"""Data sets as plain npz files, only ever read with ``allow_pickle=False``; two of them ship.

    values         (N, c) rows of all items, one below the other; integers or float64
    offsets        (S + 1,) integers: item i is ``values[offsets[i]:offsets[i + 1]]``
    labels         (S,) integers 0..K-1
    class_names    (K,) strings;   channel_names (c,) strings
    scale          (c,) float64, optional: channel j in its own unit is ``scale[j] * values[:, j]``
    sampling_rate  float64, optional: rows per second
    group_<name>   (S,) integers or strings, any number of them: who or what an item belongs to

``<stem>.provenance.txt`` and ``<stem>.licence.txt`` beside it say where it comes from and on what
terms. `linattn.save_dataset` writes the layout; ``scripts/make_digits.py`` and
``scripts/make_watch.py`` make the shipped files. A set whose tables stand under other terms is not
shipped: ``scripts/make_schools.py`` makes it, from a package that the user installs.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np

from linattn._checks import as_float64, real
from linattn._typing import AnyArray, Array, IntArray

FOLDER = Path(__file__).parent / "sets"
# Written by the build scripts; a shipped file that differs is refused.
SHIPPED = {
    "digits": "084fe361b996f997a31f72b5b81ab30ddc9e25712afaeb9f53d2a4c52d1479f2",
    "watch": "e4faf1d745589efc1dea92b40b0b5a276934fea9045417b9552f7838f1e9002b",
}
# Made by a script in the user's own folder; one that differs is refused as well.
MADE = {"schools": "f362910532be701d11499a291c5260a83fbb7fdf4b75b33421d706d2c70b07e8"}
_Array = TypeVar("_Array", bound=AnyArray)
_REQUIRED = ("values", "offsets", "labels", "class_names", "channel_names")
_OPTIONAL = ("scale", "sampling_rate")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled items of possibly different length, each a table of rows by channels (read-only).

    Attributes
    ----------
    name : str
        Shipped name, or the stem of the file.
    values : Array of shape (N, c)
        Rows of all items, one below the other, in the unit of each channel.
    offsets : IntArray of shape (S + 1,)
        Item i is ``values[offsets[i]:offsets[i + 1]]``.
    labels : IntArray of shape (S,)
        Class of every item, 0..K-1.
    class_names, channel_names : tuple of str
        K and c names.
    groups : mapping of str to array of shape (S,)
        Who or what an item belongs to, by name of the grouping.
    sampling_rate : float or None
        Rows per second.
    provenance, licence : str
        Text of the two files stored beside the data; empty if there are none.
    sha256 : str
        Digest of the file that was read.
    """

    name: str
    values: Array
    offsets: IntArray
    labels: IntArray
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    groups: Mapping[str, AnyArray]
    sampling_rate: float | None
    provenance: str
    licence: str
    sha256: str

    @property
    def num_items(self) -> int:
        """Number of items S."""
        return self.labels.size

    def item(self, index: int) -> Array:
        """Rows of one item, (n_i, c), without copying."""
        if not 0 <= index < self.num_items:
            raise IndexError(f"index must be in 0..{self.num_items - 1}, got {index!r}.")
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __repr__(self) -> str:
        rows = np.diff(self.offsets)
        groups = ", ".join(f"{k} ({np.unique(v).size})" for k, v in self.groups.items())
        return (
            f"Dataset({self.name!r}: {self.num_items} items of {rows.min()} to {rows.max()} rows, "
            f"{len(self.channel_names)} channels, {len(self.class_names)} classes, "
            f"groups: {groups or 'none'}; sha256 {self.sha256[:12]})"
        )


def data_folder() -> Path:
    """Return where scripts put the sets that are not shipped: ``LINATTN_DATA``, or a usual place.

    The usual place is ``~/.local/share/linattn``.
    """
    return Path(os.environ.get("LINATTN_DATA") or Path.home() / ".local" / "share" / "linattn")


def load_dataset(name_or_path: str | os.PathLike[str]) -> Dataset:
    """Read a data set by name, or any npz file of the same layout (see the module).

    Nothing is ever unpickled. A named file must have the SHA-256 that this module records.

    Parameters
    ----------
    name_or_path : str or path
        "digits", "watch", "schools" (not shipped; made by ``scripts/make_schools.py``), or the
        path of an npz file.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        If the argument is neither a name nor a file, or names a set that was not made yet.
    ValueError, TypeError
        If the file is damaged, needs pickle, or does not follow the layout; if a value is NaN or
        infinite, or float32.

    Notes
    -----
    Cost: one pass over the file; the larger shipped set takes a few milliseconds.

    Examples
    --------
    >>> load_dataset("digits").num_items
    1797
    """
    name = name_or_path if isinstance(name_or_path, str) else ""
    recorded = (SHIPPED | MADE).get(name)
    folder = FOLDER if name in SHIPPED else data_folder()
    path = Path(name_or_path) if recorded is None else folder / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(_missing(str(name_or_path)))
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if recorded is not None and digest != recorded:
        again = "reinstall linattn" if name in SHIPPED else f"run scripts/make_{name}.py again"
        raise ValueError(
            f"the data set {name!r} must have SHA-256 {recorded}, got {digest}: the file is "
            f"damaged or of another version; {again}."
        )
    return parse_arrays(_read_arrays(raw, path), path, digest)


def _missing(name: str) -> str:
    """The sentence about a set that is not there."""
    if name in MADE:
        return (
            f"the data set {name!r} is not shipped, because its tables stand under other terms; "
            f"make it with 'pip install linattn[{name}]' and 'python scripts/make_{name}.py', "
            f"which writes it into {data_folder()}."
        )
    known = ", ".join(map(repr, (*SHIPPED, *MADE)))
    return (
        f"name_or_path must be {known} or the path of an npz file, got {name!r}, which is not a "
        "file."
    )


def _read_arrays(raw: bytes, path: Path) -> dict[str, AnyArray]:
    """Arrays of an npz file; whatever is wrong with it becomes one sentence."""
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged zip fails in a dozen ways, all of them mean this:
        raise ValueError(
            f"name_or_path must be a readable npz file of plain arrays, got {str(path)!r}, which "
            "is damaged, cut short, of another format, or would need pickle (never used)."
        ) from error


def parse_arrays(arrays: Mapping[str, AnyArray], path: Path, digest: str) -> Dataset:
    """Return the data set that arrays of the layout hold, once they are checked."""
    missing = [name for name in _REQUIRED if name not in arrays]
    known = (*_REQUIRED, *_OPTIONAL)
    unknown = [k for k in arrays if k not in known and not k.startswith("group_")]
    if missing or unknown:
        raise ValueError(
            f"{path.name} must hold the arrays {', '.join(_REQUIRED)} and may hold "
            f"{', '.join(_OPTIONAL)}, group_<name>; missing: {missing}, unknown: {unknown}."
        )
    channels, classes = (_names(arrays[k], k) for k in ("channel_names", "class_names"))
    values = as_float64("values", arrays["values"], ndim=2)
    if values.shape[1] != len(channels):
        raise ValueError(f"values must have {len(channels)} columns, got shape {values.shape}.")
    labels = class_labels(arrays["labels"], len(classes))
    return Dataset(
        name=path.stem,
        values=_frozen(values * _scale(arrays.get("scale"), len(channels))),
        offsets=_offsets(arrays["offsets"], labels.size, len(values)),
        labels=labels,
        class_names=classes,
        channel_names=channels,
        groups=_groups(arrays, labels.size),
        sampling_rate=_sampling_rate(arrays.get("sampling_rate")),
        provenance=_text_beside(path, "provenance"),
        licence=_text_beside(path, "licence"),
        sha256=digest,
    )


def _frozen(array: _Array) -> _Array:
    array.flags.writeable = False
    return array


def _integers(name: str, array: AnyArray) -> IntArray:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be one-dimensional integers, got shape {array.shape}, {array.dtype}."
        )
    return array.astype(np.int64)


def _names(array: AnyArray, name: str) -> tuple[str, ...]:
    if array.ndim != 1 or array.size == 0 or array.dtype.kind != "U":
        raise ValueError(
            f"{name} must be one or more strings, got shape {array.shape}, {array.dtype}."
        )
    return tuple(array.tolist())


def _scale(scale: AnyArray | None, num_channels: int) -> Array:
    if scale is None:
        return np.ones(num_channels)
    factors = as_float64("scale", scale, ndim=1)
    if factors.size != num_channels or not (factors > 0).all():
        raise ValueError(f"scale must be {num_channels} positive numbers, got {factors.tolist()}.")
    return factors


def _sampling_rate(rate: AnyArray | None) -> float | None:
    if rate is None:
        return None
    if rate.shape != ():
        raise ValueError(f"sampling_rate must be one number, got shape {rate.shape}.")
    return real("sampling_rate", rate, above=0.0)


def _offsets(array: AnyArray, num_items: int, num_rows: int) -> IntArray:
    offsets = _integers("offsets", array)
    ends = offsets.size == num_items + 1 and offsets[0] == 0 and offsets[-1] == num_rows
    if not ends or (np.diff(offsets) <= 0).any():
        raise ValueError(
            f"offsets must be {num_items + 1} increasing integers from 0 to the {num_rows} rows "
            f"of values, got {offsets.size} that start with {offsets[:3].tolist()}."
        )
    return _frozen(offsets)


def class_labels(array: AnyArray, num_classes: int) -> IntArray:
    """Return labels as integers after refusing those outside 0..num_classes − 1."""
    labels = _integers("labels", array)
    if labels.size == 0 or labels.min() < 0 or labels.max() >= num_classes:
        found = f"{labels.min()}..{labels.max()}" if labels.size else "none"
        raise ValueError(f"labels must be integers in 0..{num_classes - 1}, got {found}.")
    return _frozen(labels)


def _groups(arrays: Mapping[str, AnyArray], num_items: int) -> Mapping[str, AnyArray]:
    found = {k.removeprefix("group_"): v for k, v in arrays.items() if k.startswith("group_")}
    for name, owner in found.items():
        if owner.shape != (num_items,) or owner.dtype.kind not in "iuU":
            raise ValueError(
                f"group_{name} must be {num_items} integers or strings, "
                f"got shape {owner.shape}, {owner.dtype}."
            )
    copies = {k: v.astype(np.int64 if v.dtype.kind in "iu" else v.dtype) for k, v in found.items()}
    return MappingProxyType({k: _frozen(v) for k, v in copies.items()})


def _text_beside(path: Path, what: str) -> str:
    file = path.with_name(f"{path.stem}.{what}.txt")
    return file.read_text(encoding="utf-8") if file.is_file() else ""
