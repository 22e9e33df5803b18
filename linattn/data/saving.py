"""Writes data sets in the layout of `linattn.data.datasets`, the same bytes for the same arrays."""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from linattn._checks import listing, refuse_masked
from linattn._files import as_path, save_file
from linattn._typing import AnyArray, Array
from linattn.data.datasets import parse_arrays


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
    OSError
        If it cannot be written; a file of that name stays as it was.

    Notes
    -----
    Cost: one pass over the arrays.
    """
    path = as_path(path)
    if path.suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {str(path)!r}.")
    refuse_masked("items, labels and groups", [items, labels, *(groups or {}).values()])
    tables = [np.asarray(item) for item in listing("items", items)]
    channel_names = listing("channel_names", channel_names)
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
    parse_arrays(arrays, path, "")
    raw = _npz_bytes(arrays)
    save_file(path, raw)
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
