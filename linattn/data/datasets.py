"""The two data sets that ship with the package, one file layout for all, and their splits.

A data set is a plain npz file that is only ever read with ``allow_pickle=False``:

    values         (N, c) rows of all items, one below the other; integers or float64
    offsets        (S + 1,) integers: item i is ``values[offsets[i]:offsets[i + 1]]``
    labels         (S,) integers 0..K-1
    class_names    (K,) strings;   channel_names (c,) strings
    scale          (c,) float64, optional: channel j in its own unit is ``scale[j] * values[:, j]``
    sampling_rate  float64, optional: rows per second
    group_<name>   (S,) integers or strings, any number of them: who or what an item belongs to

``<stem>.provenance.txt`` and ``<stem>.licence.txt`` beside it say where it comes from and on what
terms. `save_dataset` writes the layout; ``scripts/make_digits.py`` and ``scripts/make_watch.py``
make the shipped files.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from linattn._checks import as_float64, one_of, positive_int, real
from linattn._typing import AnyArray, Array, IntArray
from linattn.data.partition import partition, stratified_split
from linattn.streams import stream

FOLDER = Path(__file__).parent / "sets"
# Written by the build scripts; a shipped file that differs is refused.
SHIPPED = {
    "digits": "084fe361b996f997a31f72b5b81ab30ddc9e25712afaeb9f53d2a4c52d1479f2",
    "watch": "e4faf1d745589efc1dea92b40b0b5a276934fea9045417b9552f7838f1e9002b",
}
NUM_SHEETS = 14
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


@dataclass(frozen=True, eq=False, repr=False)
class FederatedData:
    """Tokens and targets of the training clients, and tokens and labels to test on (read-only).

    Attributes
    ----------
    description : str
        The data set and how it was split.
    train : list of (tokens (S_i, n, d), targets (S_i, m))
        One pair per client, as `problem_from_tokens` takes them; targets are one-hot.
    test : (tokens (S, n, d), labels (S,))
        All test sequences, in the order of the clients.
    client_tests : list of (tokens, labels), or None
        The same sequences by client, possibly none for a client; None where test sequences belong
        to no training client.
    class_names, client_names : tuple of str
        What the m outputs and the clients stand for.
    train_items : list of IntArray
        Item of the data set that each training sequence was cut from.
    test_items : IntArray
        The same for ``test``.
    channel_mean, channel_std : Array of shape (c,), or None
        What channels were standardized with (training items only).
    readout : str
        Which readout the tokens are made for.
    """

    description: str
    train: list[tuple[Array, Array]]
    test: tuple[Array, IntArray]
    client_tests: list[tuple[Array, IntArray]] | None
    class_names: tuple[str, ...]
    client_names: tuple[str, ...]
    train_items: list[IntArray]
    test_items: IntArray
    channel_mean: Array | None = None
    channel_std: Array | None = None
    readout: str = "mean"

    def __post_init__(self) -> None:
        for pair in (*self.train, self.test, *(self.client_tests or ())):
            for array in pair:
                array.flags.writeable = False

    def __repr__(self) -> str:
        sizes = [labels.shape[0] for _, labels in self.train]
        _, num_tokens, dim = self.test[0].shape
        return (
            f"FederatedData({self.description}: {len(sizes)} clients with {min(sizes)} to "
            f"{max(sizes)} training sequences ({sum(sizes)}), {self.test[1].size} test sequences, "
            f"n = {num_tokens}, d = {dim}, m = {len(self.class_names)})"
        )


# ---------------------------------------------------------------- reading and writing


def load_dataset(name_or_path: str | os.PathLike[str]) -> Dataset:
    """Read a shipped data set by name, or any npz file of the same layout (see the module).

    Nothing is ever unpickled. A shipped file must have the SHA-256 that this module records.

    Parameters
    ----------
    name_or_path : str or path
        "digits", "watch", or the path of an npz file.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        If the argument is neither a shipped name nor a file.
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
    shipped = isinstance(name_or_path, str) and name_or_path in SHIPPED
    path = FOLDER / f"{name_or_path}.npz" if shipped else Path(name_or_path)
    if not path.is_file():
        raise FileNotFoundError(
            f"name_or_path must be {', '.join(map(repr, SHIPPED))} or the path of an npz file, "
            f"got {str(name_or_path)!r}, which is not a file."
        )
    raw = path.read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if shipped and digest != SHIPPED[str(name_or_path)]:
        raise ValueError(
            f"the shipped data set {name_or_path!r} must have SHA-256 "
            f"{SHIPPED[str(name_or_path)]}, got {digest}: the file is damaged; reinstall linattn."
        )
    return _parse(_read_arrays(raw, path), path, digest)


def save_dataset(
    path: str | os.PathLike[str],
    items: Sequence[ArrayLike] | Array,
    labels: ArrayLike,
    *,
    class_names: Sequence[str],
    channel_names: Sequence[str],
    groups: Mapping[str, ArrayLike] | None = None,
    scale: ArrayLike | None = None,
    sampling_rate: float | None = None,
) -> str:
    """Write a data set in the layout of this module; the same arrays give the same bytes.

    The archive is stored uncompressed with fixed time stamps, because compressed bytes depend on
    the version of the compressor. What cannot be read back by `load_dataset` is not written.

    Parameters
    ----------
    path : str or path
        File to write; must end in ``.npz``.
    items : sequence of arrays of shape (n_i, c)
        Integers (kept in their type) or float64.
    labels : array of shape (S,)
        Class of every item, 0..K-1.
    class_names, channel_names : sequence of str
        K and c names.
    groups : mapping of str to array of shape (S,)
        Integers or strings.
    scale : array of shape (c,)
        Positive factor that turns a stored value into the unit of its channel; default 1.
    sampling_rate : float
        Rows per second.

    Returns
    -------
    str
        SHA-256 of the file.

    Raises
    ------
    ValueError, TypeError
        As `load_dataset`.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {str(path)!r}.")
    tables = [np.asarray(item) for item in items]
    if not tables or any(t.ndim != 2 or t.shape[1] != len(channel_names) for t in tables):
        raise ValueError(
            f"items must be one or more arrays of shape (rows, {len(channel_names)}), "
            f"got {len(tables)} with shapes {sorted({t.shape for t in tables})[:3]}."
        )
    arrays: dict[str, AnyArray] = {
        "values": np.concatenate(tables),
        "offsets": np.cumsum([0] + [len(t) for t in tables], dtype=np.int64),
        "labels": np.asarray(labels),
        "class_names": np.array(class_names, dtype=np.str_),
        "channel_names": np.array(channel_names, dtype=np.str_),
    }
    if scale is not None:
        arrays["scale"] = np.asarray(scale, dtype=np.float64)
    if sampling_rate is not None:
        arrays["sampling_rate"] = np.array(sampling_rate, dtype=np.float64)
    arrays |= {f"group_{name}": np.asarray(owner) for name, owner in (groups or {}).items()}
    _parse(arrays, path, "")
    raw = _npz_bytes(arrays)
    path.write_bytes(raw)
    return hashlib.sha256(raw).hexdigest()


def _npz_bytes(arrays: Mapping[str, AnyArray]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # otherwise the byte differs between platforms
            content = io.BytesIO()
            little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            np.lib.format.write_array(
                content, little_endian.reshape(array.shape), version=(1, 0), allow_pickle=False
            )
            archive.writestr(entry, content.getvalue())
    return buffer.getvalue()


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


def _parse(arrays: Mapping[str, AnyArray], path: Path, digest: str) -> Dataset:
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
    labels = _labels(arrays["labels"], len(classes))
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


def _labels(array: AnyArray, num_classes: int) -> IntArray:
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


# ---------------------------------------------------------------- tokens and targets


def one_hot(labels: ArrayLike, num_classes: int) -> Array:
    """Targets (S, m) with a one in the column of each label.

    Raises
    ------
    ValueError
        If a label is not an integer in 0..num_classes-1.

    Examples
    --------
    >>> one_hot([1, 0], 2).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    array = np.asarray(labels)
    if array.size == 0 and array.ndim == 1:
        return np.zeros((0, num_classes))
    return np.eye(positive_int("num_classes", num_classes))[_labels(array, num_classes)]


def digit_tokens(dataset: Dataset) -> Array:
    """Rows of each 8×8 image as 8 tokens: 8 pixels in [0, 1], then a one-hot row position.

    Returns
    -------
    Array of shape (S, 8, 16)

    Raises
    ------
    ValueError
        If an item is not 8 rows of 8 pixels.
    """
    side = len(dataset.channel_names)
    if side != 8 or (np.diff(dataset.offsets) != 8).any():
        raise ValueError(f"dataset must hold images of 8 rows and 8 pixels, got {dataset!r}.")
    pixels = dataset.values.reshape(dataset.num_items, 8, 8)
    position = np.broadcast_to(np.eye(8), pixels.shape)
    return np.concatenate([pixels, position], axis=2)


def windows(
    dataset: Dataset, items: Iterable[int], *, length: int = 50, stride: int = 25
) -> tuple[Array, IntArray]:
    """Cut items into windows that start every ``stride`` rows; rows left over at the end are lost.

    Returns
    -------
    tables : Array of shape (W, length, c)
        Windows in the order of ``items`` and of time.
    origin : IntArray of shape (W,)
        Item each window was cut from. An item shorter than ``length`` gives none.

    Raises
    ------
    ValueError
        If length or stride is not a positive integer.
    """
    positive_int("length", length)
    positive_int("stride", stride)
    tables = [np.zeros((0, length, len(dataset.channel_names)))]
    origin: list[int] = []
    for i in items:
        rows = dataset.item(i)
        if len(rows) < length:
            continue
        cut = np.lib.stride_tricks.sliding_window_view(rows, length, axis=0)[::stride]
        tables.append(cut.transpose(0, 2, 1))
        origin += [int(i)] * len(cut)
    return np.ascontiguousarray(np.concatenate(tables)), np.array(origin, dtype=np.int64)


# ---------------------------------------------------------------- splits


def digits_split(
    split: str = "sheets",
    *,
    alpha: float | None = None,
    num_clients: int | None = None,
    seed: int = 0,
    test_fraction: float = 0.2,
    dataset: Dataset | None = None,
) -> FederatedData:
    """Federate the digits: rows as tokens (n = 8, d = 16), mean readout, ten one-hot targets.

    - ``"sheets"``: 14 clients, the *inferred* form sheets. The set names no writers; its labels
      repeat a form of 130 digits, and the 14 clients are the runs between the places where the form
      starts again.
    - ``"dirichlet"``, ``"iid"``: see `partition`.

    Every client keeps a stratified part of its items for testing (`stratified_split`).

    Parameters
    ----------
    split : "sheets" | "dirichlet" | "iid"
    alpha : float
        Dirichlet concentration ("dirichlet" only).
    num_clients : int
        Number of clients ("dirichlet" and "iid"); default 14, as many as there are sheets.
    seed : int
        Streams of `partition`, and (seed, "test_items", client).
    test_fraction : float
        Share of every client's items that is tested, in [0, 0.9].
    dataset : Dataset
        Another set of the same kind; default the shipped one.

    Raises
    ------
    ValueError
        If an argument is out of range or belongs to another split.

    Notes
    -----
    Cost: a few milliseconds.
    """
    one_of("split", split, ("sheets", "dirichlet", "iid"))
    data = load_dataset("digits") if dataset is None else dataset
    if split == "sheets":
        _refuse(split, alpha=alpha, num_clients=num_clients)
        owners = partition(data.labels, "natural", groups=_group(data, "sheet"))
    else:
        count = NUM_SHEETS if num_clients is None else num_clients
        owners = partition(data.labels, split, num_clients=count, alpha=alpha, seed=seed)
    names = {
        "sheets": f"{len(owners)} inferred form sheets",
        "dirichlet": f"Dirichlet({alpha}) split",
        "iid": "IID split",
    }
    parts = [
        tuple(items[part] for part in stratified_split(data.labels[items], test_fraction, rng))
        for items, rng in ((own, stream(seed, "test_items", i)) for i, own in enumerate(owners))
    ]
    tokens = digit_tokens(data)
    targets = one_hot(data.labels, len(data.class_names))
    tested = np.concatenate([test for _, test in parts])
    unit = "sheet" if split == "sheets" else "client"
    return FederatedData(
        description=f"{data.name}, {names[split]}",
        train=[(tokens[train], targets[train]) for train, _ in parts],
        test=(tokens[tested], data.labels[tested]),
        client_tests=[(tokens[test], data.labels[test]) for _, test in parts],
        class_names=data.class_names,
        client_names=tuple(f"{unit} {i}" for i in range(len(parts))),
        train_items=[train for train, _ in parts],
        test_items=tested,
    )


def watch_split(
    split: str = "sides",
    *,
    seed: int = 0,
    test_subjects: int | Sequence[int] | None = None,
    window: int = 50,
    stride: int = 25,
    dataset: Dataset | None = None,
) -> FederatedData:
    """Federate the watch recordings: one client per subject, windows as sequences, mean readout.

    Tokens are the channels, standardized with mean and standard deviation over all rows of all
    training recordings (no test recording enters), and a constant 1: n = window, d = 7, m = 7.

    - ``"sides"``: per subject and exercise one side is drawn for training, the other is tested.
    - ``"subjects"``: some subjects are left out of training and tested, both sides.

    A recording is trained on or tested, never both, so windows that overlap never cross.

    Parameters
    ----------
    split : "sides" | "subjects"
    seed : int
        Streams (seed, "train_side", k) for the k-th subject and (seed, "test_subjects").
    test_subjects : int or sequence of int
        How many subjects to leave out, drawn by seed (default 2), or which ("subjects" only).
    window, stride : int
        Rows per window and between starts, at 25 rows per second (2 s and 1 s).
    dataset : Dataset
        Another set with groups "subject" and "side"; default the shipped one.

    Raises
    ------
    ValueError
        If an argument is out of range or belongs to another split, a client would have no window,
        or a channel is constant over the training rows.

    Notes
    -----
    Cost: some ten milliseconds.
    """
    one_of("split", split, ("sides", "subjects"))
    positive_int("window", window)
    data = load_dataset("watch") if dataset is None else dataset
    if split == "sides":
        _refuse(split, test_subjects=test_subjects)
        trained = _trained_sides(data, seed)
        description = f"{data.name}, one side per subject and exercise tested"
    else:
        left_out = _left_out(np.unique(_group(data, "subject")), test_subjects, seed)
        trained = ~np.isin(_group(data, "subject"), left_out)
        description = f"{data.name}, subjects {', '.join(map(str, left_out.tolist()))} tested"
    clients, train = _by_subject(data, trained)
    tested, tests = _by_subject(data, ~trained)
    if split == "sides" and not np.array_equal(clients, tested):
        raise ValueError(
            f"dataset must have recordings of both sides for every subject, got {data!r}."
        )
    mean, std = _moments(data, np.flatnonzero(trained))
    train_cut = [_window_tokens(data, own, mean, std, window, stride) for own in train]
    test_cut = [_window_tokens(data, own, mean, std, window, stride) for own in tests]
    client_tests = [(tokens, data.labels[origin]) for tokens, origin in test_cut]
    test_items = np.concatenate([origin for _, origin in test_cut])
    num_classes = len(data.class_names)
    return FederatedData(
        description=description,
        train=[(tokens, one_hot(data.labels[origin], num_classes)) for tokens, origin in train_cut],
        test=(np.concatenate([tokens for tokens, _ in client_tests]), data.labels[test_items]),
        client_tests=client_tests if split == "sides" else None,
        class_names=data.class_names,
        client_names=tuple(f"subject {k}" for k in clients),
        train_items=[origin for _, origin in train_cut],
        test_items=test_items,
        channel_mean=mean,
        channel_std=std,
    )


def _group(data: Dataset, name: str) -> AnyArray:
    if name not in data.groups:
        raise ValueError(f"dataset must have the group {name!r}, got {sorted(data.groups)}.")
    return data.groups[name]


def _refuse(split: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} must be left out when split is {split!r}, got {value!r}.")


def _by_subject(data: Dataset, chosen: AnyArray) -> tuple[AnyArray, list[IntArray]]:
    """Subjects that have a chosen item, and the chosen items of each."""
    subject = _group(data, "subject")
    found = np.unique(subject[chosen])
    return found, [np.flatnonzero(chosen & (subject == k)) for k in found]


def _window_tokens(
    data: Dataset, items: IntArray, mean: Array, std: Array, window: int, stride: int
) -> tuple[Array, IntArray]:
    """Standardized channels and a constant, (W, window, c + 1), and the item of every window."""
    tables, origin = windows(data, items.tolist(), length=window, stride=stride)
    if not origin.size:
        raise ValueError(f"window must leave every subject at least one window, got {window} rows.")
    constant = np.ones((*tables.shape[:2], 1))
    return np.concatenate([(tables - mean) / std, constant], axis=2), origin


def _trained_sides(data: Dataset, seed: int) -> AnyArray:
    """Which items are trained on when a side is drawn per subject and exercise."""
    sides, side = np.unique(_group(data, "side"), return_inverse=True)
    if sides.size != 2:
        raise ValueError(f"dataset must have two sides, got {sides.tolist()}.")
    subjects, subject = np.unique(_group(data, "subject"), return_inverse=True)
    drawn = np.stack(
        [
            stream(seed, "train_side", k).integers(0, 2, size=len(data.class_names))
            for k in range(subjects.size)
        ]
    )
    trained: AnyArray = side == drawn[subject, data.labels]
    return trained


def _left_out(subjects: AnyArray, wanted: int | Sequence[int] | None, seed: int) -> AnyArray:
    if wanted is None or isinstance(wanted, int | np.integer):
        count = positive_int("test_subjects", 2 if wanted is None else wanted)
        if count >= subjects.size:
            raise ValueError(
                f"test_subjects must be < {subjects.size}, the number of subjects, got {count}."
            )
        drawn: AnyArray = stream(seed, "test_subjects").permutation(subjects)[:count]
        return np.sort(drawn)
    chosen = set(np.asarray(wanted).ravel().tolist())
    if not chosen < set(subjects.tolist()) or not chosen:
        raise ValueError(
            f"test_subjects must be some, not all, of {subjects.tolist()}, got {wanted!r}."
        )
    return np.array(sorted(chosen), dtype=subjects.dtype)


def _moments(data: Dataset, items: IntArray) -> tuple[Array, Array]:
    """Mean and standard deviation of every channel over all rows of the items."""
    rows = np.concatenate([data.item(i) for i in items.tolist()])
    std = rows.std(axis=0)
    if not (std > 0).all():
        flat = data.channel_names[int(np.argmin(std))]
        raise ValueError(f"dataset must vary in every channel, got {flat!r} constant in training.")
    return rows.mean(axis=0), std
