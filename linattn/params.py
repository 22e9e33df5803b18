"""Parameters: named blocks over one flat vector."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np

from linattn._checks import as_float64, shown
from linattn._files import as_path, save_file
from linattn._typing import AnyArray, Array, BoolArray

KERNEL_NAMES = ("kernel", "query", "key")
SINGLE_LAYER = ({"kernel", "value"}, {"query", "key", "value"})


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the parameter blocks inside one flat float64 vector.

    Averaging is then ``weights @ stacked``, a mask is a boolean vector, and compiled code sees
    plain arrays.

    Parameters
    ----------
    blocks : tuple of (name, shape)
        In storage order. A dotted name (``"layer0.query"``) belongs to the group of its last part.
    """

    blocks: tuple[tuple[str, tuple[int, ...]], ...]

    @cached_property
    def size(self) -> int:
        """Number of parameters."""
        return sum(prod(shape) for _, shape in self.blocks)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Block names in storage order."""
        return tuple(name for name, _ in self.blocks)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each block lies in the flat vector."""
        bounds = pairwise(accumulate((prod(shape) for _, shape in self.blocks), initial=0))
        return {name: slice(*ends) for name, ends in zip(self.names, bounds, strict=True)}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each block."""
        return dict(self.blocks)

    @cached_property
    def kernel_blocks(self) -> frozenset[str]:
        """Blocks that fix the attention kernel: ``kernel``, or ``query`` and ``key``."""
        return frozenset(n for n in self.names if n.rpartition(".")[2] in KERNEL_NAMES)

    @property
    def kernel_part(self) -> slice:
        """Where the kernel parameters of a single layer lie: all that precedes the value block."""
        return slice(0, self.slices["value"].start)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Groups of dotted names, in storage order; none in the single-layer model."""
        return tuple(dict.fromkeys(n.partition(".")[0] for n in self.names if "." in n))

    @cached_property
    def value_blocks(self) -> frozenset[str]:
        """All blocks that are not kernel blocks."""
        return frozenset(self.names) - self.kernel_blocks

    def view(self, flat: Array, name: str) -> Array:
        """Return block `name` of `flat` as an array of its shape, without copying.

        Axes before the last one of `flat` stay in front.
        """
        return flat[..., self.slices[name]].reshape(*flat.shape[:-1], *self.shapes[name])

    def mask(self, names: Iterable[str]) -> BoolArray:
        """Return the boolean vector that is True on the blocks `names`.

        Raises
        ------
        ValueError
            If a name is not a block of this layout.
        """
        mask = np.zeros(self.size, dtype=bool)
        for name in names:
            if name not in self.slices:
                raise ValueError(f"block must be one of {', '.join(self.names)}, got {name!r}.")
            mask[self.slices[name]] = True
        return mask


def is_single_layer(layout: Layout) -> bool:
    """Whether the blocks are those that `Params.merged` or `Params.factored` builds, in order."""
    value = layout.shapes.get("value", ())
    if len(value) != 3:
        return False
    heads, dim, _ = value
    last = ("value", value)
    if "query" not in layout.slices:
        return layout.blocks == (("kernel", (heads, dim, dim)), last)
    factor = (heads, dim, layout.shapes["query"][-1])
    return layout.blocks == (("query", factor), ("key", factor), last)


class Params:
    """Immutable parameters: named blocks over one flat, read-only float64 vector.

    Make them with `Params.merged` or `Params.factored`. ``params["value"]`` is a block by name;
    `kernel`, `query`, `key` and `value` are the blocks of the single-layer model.
    """

    __slots__ = ("flat", "layout")
    flat: Array
    layout: Layout

    def __init__(self, layout: Layout, flat: Array) -> None:
        vector = np.array(flat, dtype=np.float64).reshape(-1)
        if vector.size != layout.size:
            raise ValueError(
                f"flat must have {layout.size} entries for this layout, got {vector.size}."
            )
        vector.setflags(write=False)
        object.__setattr__(self, "layout", layout)
        object.__setattr__(self, "flat", vector)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Params are immutable; build new ones with Params.merged or factored.")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Params, (self.layout, self.flat))

    @classmethod
    def merged(cls, kernel: Any, value: Any) -> Params:
        """Parameters with a trained kernel B.

        Parameters
        ----------
        kernel : array, shape (H, d, d) or (d, d)
            Kernel blocks B_h.
        value : array, shape (H, d, m) or (d, m)
            Value blocks V_h.

        Raises
        ------
        TypeError, ValueError
            If an array is not finite float64, or the shapes do not fit together.
        """
        return cls._build({"kernel": kernel, "value": value})

    @classmethod
    def factored(cls, query: Any, key: Any, value: Any) -> Params:
        """Parameters with query and key weights, B_h = Q_h K_hᵀ.

        Parameters
        ----------
        query, key : array, shape (H, d, r) or (d, r)
            Query and key weights of rank r ≥ 1 (r may exceed d).
        value : array, shape (H, d, m) or (d, m)
            Value blocks V_h.

        Raises
        ------
        TypeError, ValueError
            If an array is not finite float64, or the shapes do not fit together.
        """
        return cls._build({"query": query, "key": key, "value": value})

    @classmethod
    def _build(cls, blocks: dict[str, Any]) -> Params:
        arrays = {name: as_float64(name, block, ndim=(2, 3)) for name, block in blocks.items()}
        arrays = {n: a[None] if a.ndim == 2 else a for n, a in arrays.items()}
        value = arrays["value"]
        heads, dim, outputs = value.shape
        expected = {"kernel": (heads, dim, dim), "value": (heads, dim, outputs)}
        if "query" in arrays:
            expected["query"] = expected["key"] = (heads, dim, arrays["query"].shape[-1])
        for name, array in arrays.items():
            if array.shape != expected[name] or 0 in array.shape:
                raise ValueError(
                    f"{name} must have shape {expected[name]} to fit value {value.shape}, "
                    f"got {array.shape}."
                )
        layout = Layout(tuple((name, array.shape) for name, array in arrays.items()))
        return cls(layout, np.concatenate([a.reshape(-1) for a in arrays.values()]))

    def __getitem__(self, name: str) -> Array:
        return self.layout.view(self.flat, name)

    def _get(self, name: str) -> Array | None:
        return self[name] if name in self.layout.slices else None

    @property
    def kernel(self) -> Array | None:
        """Trained kernel B, (H, d, d), or None if factored."""
        return self._get("kernel")

    @property
    def query(self) -> Array | None:
        """Query weights Q, (H, d, r), or None if merged."""
        return self._get("query")

    @property
    def key(self) -> Array | None:
        """Key weights K, (H, d, r), or None if merged."""
        return self._get("key")

    @property
    def value(self) -> Array:
        """Value block V, (H, d, m)."""
        return self["value"]

    @property
    def is_factored(self) -> bool:
        """Whether query and key weights are trained instead of B."""
        return "query" in self.layout.slices

    @property
    def num_heads(self) -> int:
        """Number of heads H."""
        return int(self.layout.shapes["value"][0])

    def kernels(self) -> Array:
        """Kernels B_h, (H, d, d), for both parametrizations (B_h = Q_h K_hᵀ if factored)."""
        if self.is_factored:
            return np.asarray(self["query"] @ self["key"].transpose(0, 2, 1))
        return self["kernel"]

    def replace(self, **blocks: Any) -> Params:
        """Return new parameters with some blocks exchanged.

        Raises
        ------
        ValueError
            If a block does not exist or its shape differs.
        """
        flat = self.flat.copy()
        for name, block in blocks.items():
            self.layout.mask([name])
            array, shape = as_float64(name, block), self.layout.shapes[name]
            # For one head the leading axis may be left out; any other reshape would hide an error.
            if array.shape != shape and (1, *array.shape) != shape:
                raise ValueError(f"{name} must have shape {shape}, got {array.shape}.")
            flat[self.layout.slices[name]] = array.reshape(-1)
        return Params(self.layout, flat)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the blocks to an npz file (no pickle).

        Raises
        ------
        TypeError, ValueError
            If `path` cannot name a file.
        OSError
            If it cannot be written; a file of that name stays as it was.
        """
        buffer = io.BytesIO()
        np.savez(buffer, **{name: self[name] for name in self.layout.names})  # type: ignore[arg-type]
        save_file(as_path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Params:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is not an npz of parameter blocks, or is damaged.
        TypeError
            If `path` is none, or a block is not float64 or integer.
        FileNotFoundError
            If there is none.
        """
        file = as_path(path)
        try:
            blocks = _read_blocks(file.read_bytes())
        except FileNotFoundError as error:
            raise FileNotFoundError(f"path must be a file that is there, got {path}.") from error
        except Exception as error:  # a damaged archive raises about ten kinds
            raise ValueError(
                f"path must be an npz written by Params.save, got {shown(str(path))}."
            ) from error
        if set(blocks) in SINGLE_LAYER:
            order = [name for name in (*KERNEL_NAMES, "value") if name in blocks]
            return cls._build({name: blocks[name] for name in order})
        layout = Layout(tuple((name, block.shape) for name, block in blocks.items()))
        arrays = [as_float64(name, block).reshape(-1) for name, block in blocks.items()]
        return cls(layout, np.concatenate(arrays))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {shape}" for name, shape in self.layout.blocks)
        return f"Params({sizes}; {self.layout.size} parameters)"


def _read_blocks(content: bytes) -> dict[str, AnyArray]:
    """Arrays of an npz, if they are parameter blocks and as many as it counts itself."""
    with np.load(io.BytesIO(content), allow_pickle=False) as held:
        blocks = {name: held[name] for name in held.files}
    counted = int.from_bytes(content[-12:-10], "little")
    layers = any("." in name for name in blocks)
    if len(blocks) != counted or not (layers or set(blocks) in SINGLE_LAYER):
        raise ValueError("blocks are missing")
    return blocks
