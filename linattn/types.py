"""The records everything else speaks in: `Layout`, `Params`, `Statistics`, `Problem`."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from linattn._checks import as_float64
from linattn._typing import Array, BoolArray, IntArray

READOUTS = ("token", "mean", "last")
KERNEL_NAMES = ("kernel", "query", "key")
WEIGHT_SUM_TOLERANCE = 1e-9


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
        ends = np.cumsum([0] + [prod(shape) for _, shape in self.blocks])
        return {
            name: slice(int(a), int(b))
            for name, a, b in zip(self.names, ends[:-1], ends[1:], strict=True)
        }

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each block."""
        return dict(self.blocks)

    @cached_property
    def kernel_blocks(self) -> frozenset[str]:
        """Blocks that fix the attention kernel: ``kernel``, or ``query`` and ``key``."""
        return frozenset(n for n in self.names if n.rpartition(".")[2] in KERNEL_NAMES)

    @cached_property
    def value_blocks(self) -> frozenset[str]:
        """All blocks that are not kernel blocks."""
        return frozenset(self.names) - self.kernel_blocks

    def view(self, flat: Array, name: str) -> Array:
        """Return block `name` of `flat` as an array of its shape, without copying."""
        return flat[self.slices[name]].reshape(self.shapes[name])

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
        """Write the blocks to an npz file (no pickle)."""
        with open(path, "wb") as file:
            np.savez(file, **{name: self[name] for name in self.layout.names})  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Params:
        """Read what `save` wrote.

        Raises
        ------
        ValueError
            If the file is not an npz of parameter blocks, or is damaged.
        """
        refusal = f"path must be an npz written by Params.save, got {path}."
        try:
            with open(path, "rb") as file:
                held = np.load(file, allow_pickle=False)
                blocks = {} if isinstance(held, np.ndarray) else {k: held[k] for k in held.files}
        except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(refusal) from error
        if not blocks:
            raise ValueError(refusal)
        if set(blocks) in ({"kernel", "value"}, {"query", "key", "value"}):
            order = [n for n in ("kernel", "query", "key", "value") if n in blocks]
            return cls._build({name: blocks[name] for name in order})
        layout = Layout(tuple((name, block.shape) for name, block in blocks.items()))
        arrays = [as_float64(name, block).reshape(-1) for name, block in blocks.items()]
        return cls(layout, np.concatenate(arrays))

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {shape}" for name, shape in self.layout.blocks)
        return f"Params({sizes}; {self.layout.size} parameters)"


class Statistics(NamedTuple):
    """Per-sequence statistics of S sequences: all that objectives and gradients need (theory 1).

    For the ``token`` readout M = G, so only `gram` and `cross` are kept. For ``mean`` and ``last``
    there is one query u per sequence, M = u uᵀ and K = u yᵀ have rank one, and u and y are kept
    instead.

    Attributes
    ----------
    gram : array, shape (S, d, d)
        G = XᵀX/n.
    cross : array, shape (S, d, m) or None
        K = UᵀY/q (token readout).
    query : array, shape (S, d) or None
        The query u (mean and last readout).
    target : array, shape (S, m) or None
        The target y (mean and last readout).
    energy : array, shape (S,)
        c = ‖Y‖²/q, units of the loss.
    """

    gram: Array
    cross: Array | None
    query: Array | None
    target: Array | None
    energy: Array

    def cross_moments(self) -> Array:
        """K = UᵀY/q of every sequence, (S, d, m)."""
        if self.cross is not None:
            return self.cross
        assert self.query is not None
        assert self.target is not None
        return self.query[:, :, None] * self.target[:, None, :]

    def query_moments(self) -> Array:
        """M = UᵀU/q of every sequence, (S, d, d)."""
        if self.query is None:
            return self.gram
        return self.query[:, :, None] * self.query[:, None, :]

    def take(self, index: IntArray | slice) -> Statistics:
        """Statistics of some of the sequences."""

        def part(array: Array) -> Array:
            return np.ascontiguousarray(array[index])

        return Statistics(
            part(self.gram),
            None if self.cross is None else part(self.cross),
            None if self.query is None else part(self.query),
            None if self.target is None else part(self.target),
            part(self.energy),
        )


@dataclass(frozen=True, eq=False)
class Problem:
    """A federated regression problem for linear attention: data, weights, ridges; no method.

    Make one with `problem_from_tokens` or `synthetic_problem`. The objective of client i is the
    mean of the sequence losses plus both ridges, F_i = mean ℓ + (λ/2)‖V‖² + (μ/2)‖kernel
    parameters‖², and F = Σ p_i F_i (theory section 1).

    Attributes
    ----------
    statistics : Statistics
        Of all sequences, client after client.
    offsets : array of int, shape (C + 1,)
        Client i owns the sequences offsets[i]:offsets[i + 1].
    weights : array, shape (C,)
        p_i > 0, summing to one.
    value_ridge, kernel_ridge : float
        λ and μ, units of loss per squared parameter.
    readout : {"token", "mean", "last"}
        Which tokens are queries.
    """

    statistics: Statistics
    offsets: IntArray
    weights: Array
    value_ridge: float
    kernel_ridge: float
    readout: str

    def __post_init__(self) -> None:
        for array in (*self.statistics, self.offsets, self.weights):
            if array is not None:
                array.setflags(write=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor, because an unpickled array is writable again.
        values = (self.statistics, self.offsets, self.weights)
        return (Problem, (*values, self.value_ridge, self.kernel_ridge, self.readout))

    @property
    def num_clients(self) -> int:
        """Number of clients C."""
        return len(self.weights)

    @property
    def num_sequences(self) -> int:
        """Number of sequences of all clients, S."""
        return len(self.statistics.energy)

    @property
    def dim(self) -> int:
        """Number of channels d of a token."""
        return int(self.statistics.gram.shape[1])

    @property
    def num_outputs(self) -> int:
        """Number of outputs m."""
        held = self.statistics.cross if self.statistics.target is None else self.statistics.target
        assert held is not None
        return int(held.shape[-1])

    @cached_property
    def client_sizes(self) -> IntArray:
        """Number of sequences of each client, (C,)."""
        return np.diff(self.offsets)

    @cached_property
    def sequence_weights(self) -> Array:
        """Weight p_i/n_i of every sequence in F, (S,); sums to one."""
        return np.repeat(self.weights / self.client_sizes, self.client_sizes)

    def client(self, index: int) -> slice:
        """Slice of the sequences of client `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def subset(self, clients: Sequence[int]) -> Problem:
        """Return the problem of some clients, with their weights scaled to sum to one.

        Parameters
        ----------
        clients : sequence of int
            Distinct client numbers in the order wanted.

        Raises
        ------
        ValueError
            If the list is empty, repeats a client or names one that does not exist.
        """
        chosen = check_clients(clients, self.num_clients)
        index = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in chosen])
        weights = self.weights[chosen]
        offsets = np.cumsum([0, *self.client_sizes[chosen]]).astype(np.int64)
        return self.rearranged(index, offsets, weights / weights.sum())

    def rearranged(self, index: IntArray, offsets: IntArray, weights: Array) -> Problem:
        """Return the problem whose clients hold the sequences `index`, cut at `offsets`."""
        return Problem(
            self.statistics.take(index),
            offsets,
            weights,
            self.value_ridge,
            self.kernel_ridge,
            self.readout,
        )

    def __repr__(self) -> str:
        return (
            f"Problem({self.num_clients} clients, {self.num_sequences} sequences, dim {self.dim}, "
            f"{self.num_outputs} outputs, readout {self.readout!r}, "
            f"value_ridge {self.value_ridge:g}, kernel_ridge {self.kernel_ridge:g})"
        )


def single_layer(problem: object, purpose: str = "kernel profile and value block") -> Problem:
    """Return the problem if it is one of a single layer.

    Parameters
    ----------
    problem : object
    purpose : str
        What needs it, for the sentence.

    Raises
    ------
    TypeError
        If it is any other problem: only one layer has a kernel profile and a value block.
    """
    if not isinstance(problem, Problem):
        raise TypeError(
            f"problem must be a single-layer Problem for {purpose}, got {type(problem).__name__}."
        )
    return problem


def check_clients(clients: Sequence[int], num_clients: int) -> list[int]:
    """Return the clients of a subset as a list.

    Raises
    ------
    ValueError
        If the list is empty, repeats a client or names one that does not exist.
    """
    chosen = list(clients)
    valid = len(set(chosen)) == len(chosen) > 0
    if not valid or not all(i in range(num_clients) for i in chosen):
        raise ValueError(f"clients must be distinct numbers in 0..{num_clients - 1}, got {chosen}.")
    return [int(i) for i in chosen]


def check_weights(weights: Any, sizes: IntArray) -> Array:
    """Return client weights p: proportional to `sizes`, equal, or the given ones checked.

    Raises
    ------
    ValueError
        If given weights have the wrong length, are not positive, or do not sum to one within 1e-9.
    """
    num_clients = len(sizes)
    if weights is None:
        return np.asarray(sizes / sizes.sum(), dtype=np.float64)
    if isinstance(weights, str):
        if weights != "equal":
            raise ValueError(f"weights must be None, 'equal' or an array, got {weights!r}.")
        return np.full(num_clients, 1.0 / num_clients)
    array = as_float64("weights", weights, ndim=1).copy()
    if array.size != num_clients:
        raise ValueError(f"weights must have {num_clients} entries, got {array.size}.")
    if not (array > 0).all():
        raise ValueError(f"weights must be positive, got a minimum of {array.min():g}.")
    if abs(array.sum() - 1.0) > WEIGHT_SUM_TOLERANCE:
        raise ValueError(
            f"weights must sum to 1 within {WEIGHT_SUM_TOLERANCE:g}, got {array.sum():.12g}."
        )
    return array


class Federation(Protocol):
    """What every federated problem has, whatever its model: clients, weights, sequences."""

    @property
    def weights(self) -> Array:
        """p_i > 0, summing to one, (C,)."""

    @property
    def num_clients(self) -> int:
        """Number of clients C."""

    @property
    def client_sizes(self) -> IntArray:
        """Number of sequences of each client, (C,)."""

    @property
    def num_sequences(self) -> int:
        """Number of sequences S of all clients."""

    def rearranged(self, index: IntArray, offsets: IntArray, weights: Array) -> Self:
        """Return the problem whose clients hold the sequences `index`, cut at `offsets`."""


Held = TypeVar("Held", bound=Federation)


def pool(problem: Held) -> Held:
    """Return the *identical clients* control: every client holds all sequences of all clients.

    Weights stay. Each F_i becomes the plain mean over all sequences, which equals F of the original
    problem when its weights are proportional to the numbers of sequences (the default).

    Notes
    -----
    Source: the null control of C9 (theory section 5). Memory and cost of a round grow C-fold.
    Identical clients move identically, so ``pool(problem).subset([0])`` runs the same trajectory at
    the cost of one client.
    """
    copies = np.tile(np.arange(problem.num_sequences), problem.num_clients)
    steps = np.arange(problem.num_clients + 1, dtype=np.int64)
    return problem.rearranged(copies, steps * problem.num_sequences, problem.weights.copy())
