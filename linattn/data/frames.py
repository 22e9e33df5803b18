"""From a data frame, one row per token, to a `Problem`; pandas, polars and others by narwhals."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from linattn._checks import as_float64, one_of, real
from linattn._typing import Array, BoolArray, IntArray
from linattn.attention import check_readout
from linattn.clients import check_weights
from linattn.data.tokens import Stacked, grouped_statistics
from linattn.types import Problem

Table = Any  # narwhals is optional, and its types with it


def problem_from_frame(
    frame: Any,
    *,
    client: str,
    sequence: str,
    features: Sequence[str],
    target: str | Sequence[str],
    value_ridge: float,
    kernel_ridge: float,
    query: str | None = None,
    order: str | None = None,
    weights: Sequence[float] | Mapping[Any, float] | str | None = None,
    readout: str | None = None,
) -> Problem:
    """Return the federated problem of a table with one row per token.

    Clients are the distinct values of a column, in increasing order; a client's sequences are those
    of another column, in increasing order as well, so that rows may come in any order.

    Parameters
    ----------
    frame : data frame
        Of pandas, polars or any other library that narwhals knows; lazy ones must be collected.
    client, sequence : str
        Columns that tell whose a row is and which sequence of this client's it belongs to.
    features : sequence of str
        The d channels of a token; numbers.
    target : str or sequence of str
        The m outputs; numbers. Token readout: of every row. Last: of the last row. Mean: the same
        in all rows of a sequence.
    value_ridge, kernel_ridge : float
        λ > 0 and μ ≥ 0.
    query : str, optional
        Column of truth values: where it is true, the row is a query of its own with a target; the
        others are the context. A target that is a feature, too, is set to zero in queries: the
        answer is not shown.
    order : str, optional
        Column by which rows stand within a sequence; default the order of the frame.
    weights : None, "equal", sequence of float or mapping
        p_i, in the order of the clients or by their value.
    readout : {"token", "mean", "last", "queries"}
        Default ``queries`` with a query column, else ``token``.

    Raises
    ------
    ImportError
        If narwhals is missing; the sentence says how to install it.
    TypeError, ValueError
        If the frame is none, a column is missing, repeated or not numeric, a value is missing or
        not finite, targets are features without a query column, or a sequence has no query or no
        context.

    Warns
    -----
    UserWarning
        If columns are float32 or float16 and were cast to float64.

    Notes
    -----
    Source: Model. Cost: one sort of the rows, then that of `problem_from_tokens`; the
    table is read one column at a time.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"who": [0, 0, 1], "when": [0, 0, 0], "x": [1, 3, 2], "y": [1, 1, 5]})
    >>> problem_from_frame(frame, client="who", sequence="when", features=["x"], target="y",
    ...     value_ridge=0.1, kernel_ridge=0.1).statistics.gram.ravel().tolist()
    [5.0, 4.0]
    """
    value_ridge = real("value_ridge", value_ridge, above=0.0)
    kernel_ridge = real("kernel_ridge", kernel_ridge, minimum=0.0)
    readout = check_readout(readout, query is not None)
    table = _open(frame)
    channels = _names("features", features, table)
    outputs = _names("target", [target] if isinstance(target, str) else target, table)
    one_of("client", client, table.columns)
    one_of("sequence", sequence, table.columns)
    for name, column in (("query", query), ("order", order)):
        if column is not None:
            one_of(name, column, table.columns)
    rows = _arrange(table, client, sequence, order)
    reader = _Reader(table, rows.order)
    if query is None:
        held = _sequences(reader, channels, outputs, rows.spans, readout)
    else:
        held = _with_queries(reader, channels, outputs, rows.spans, query)
    if reader.narrow:
        warnings.warn(
            f"columns {', '.join(map(repr, reader.narrow))} hold fewer digits than float64 and "
            "were cast; a step or a residual below their last digit means nothing.",
            stacklevel=3,  # past the public door
        )
    sizes = np.bincount(rows.owners).astype(np.int64)
    return Problem(
        grouped_statistics(held.shapes, len(channels), held.stack, readout),
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        check_weights(_weights(weights, rows.clients), sizes),
        value_ridge,
        kernel_ridge,
        readout,
    )


class _Rows(NamedTuple):
    """Rows in the order of clients and sequences.

    `order` (N,) are rows of the frame; those of sequence s stand at spans[s]:spans[s + 1], and it
    belongs to client owners[s], whose value is clients[owners[s]].
    """

    order: IntArray
    spans: IntArray
    owners: IntArray
    clients: list[Any]


class _Sequences(NamedTuple):
    """Rows of tokens, of targets and of the queries beside these, and where each sequence's lie."""

    tokens: Array
    token_spans: IntArray
    targets: Array
    target_spans: IntArray
    queries: Array | None = None

    @property
    def shapes(self) -> IntArray:
        """n and q of every sequence, (S, 2)."""
        return np.stack([np.diff(self.token_spans), np.diff(self.target_spans)], axis=1)

    def stack(self, index: IntArray) -> Stacked:
        """Tokens, targets and queries of some sequences of one shape."""
        tokens, answers = (
            spans[index][:, None] + np.arange(spans[index[0] + 1] - spans[index[0]])
            for spans in (self.token_spans, self.target_spans)
        )
        own = None if self.queries is None else self.queries[answers]
        return self.tokens[tokens], self.targets[answers], own


class _Reader:
    """Reads columns of a table as float64, rows in a given order, and notes which were narrower."""

    def __init__(self, table: Table, order: IntArray) -> None:
        self.table = table
        self.order = order
        self.narrow: list[str] = []

    def read(self, names: Sequence[str], chosen: IntArray | slice = slice(None)) -> Array:
        """Return columns side by side, at some of the rows; what lies elsewhere may be missing."""
        rows = self.order[chosen]
        out = np.empty((len(rows), len(names)))
        for k, name in enumerate(names):
            out[:, k] = self._column(name, rows)
        return out

    def _column(self, name: str, rows: IntArray) -> Array:
        import narwhals as nw

        column = self.table[name]
        exact = column.dtype == nw.Float64 or column.dtype == nw.Boolean
        if not exact and not column.dtype.is_integer() and not column.dtype.is_float():
            kind = getattr(column.to_native(), "dtype", column.dtype)
            raise TypeError(f"column {name!r} must hold numbers, got dtype {kind}; convert it.")
        if not exact and column.dtype.is_float():
            self.narrow.append(name)
        missing = column.is_null().to_numpy()[rows]
        if missing.any():
            raise ValueError(
                f"column {name!r} must have no missing values where it is used, got "
                f"{int(missing.sum())} of {len(rows)}."
            )
        if column.null_count():
            column = column.fill_null(0)
        values = column.cast(nw.Float64).to_numpy()[rows]
        return as_float64(f"column {name!r}", values)

    def truth(self, name: str) -> BoolArray:
        """Return a column of truth values, or of zeros and ones."""
        values = self.read([name])[:, 0]
        if not np.isin(values, (0.0, 1.0)).all():
            raise ValueError(
                f"query must be a column of truth values or of zeros and ones, got {name!r} with "
                f"{values[~np.isin(values, (0.0, 1.0))][0]:g}."
            )
        return np.asarray(values == 1.0)


def _sequences(
    reader: _Reader, channels: list[str], outputs: list[str], spans: IntArray, readout: str
) -> _Sequences:
    """Sequences whose queries a readout makes."""
    shown = [name for name in outputs if name in channels]
    if shown:
        raise ValueError(
            "target must not be among the features without a query column, because the answer "
            f"would be shown; got {shown[0]!r}."
        )
    tokens, single = reader.read(channels), np.arange(len(spans))
    if readout == "token":
        return _Sequences(tokens, spans, reader.read(outputs), spans)
    if readout == "last":
        return _Sequences(tokens, spans, reader.read(outputs, spans[1:] - 1), single)
    targets = reader.read(outputs)
    first = targets[spans[:-1]]
    if (np.repeat(first, np.diff(spans), axis=0) != targets).any():
        raise ValueError(
            "target must be the same in all rows of a sequence for readout 'mean', got one that "
            "changes; use readout 'token' or 'last'."
        )
    return _Sequences(tokens, spans, first, single)


def _with_queries(
    reader: _Reader, channels: list[str], outputs: list[str], spans: IntArray, query: str
) -> _Sequences:
    """Sequences with queries of their own, whose answers are not shown."""
    flags = reader.truth(query)
    before = np.concatenate([[0], np.cumsum(flags)])[spans]
    context, asked = spans - before, before
    for what, bounds in (("context", context), ("a query", asked)):
        without = int((np.diff(bounds) == 0).sum())
        if without:
            raise ValueError(
                f"query must leave every sequence {what}, got {without} of {len(spans) - 1} "
                "sequences without."
            )
    tokens, rows = reader.read(channels), np.flatnonzero(flags)
    queries = tokens[rows]
    queries[:, [k for k, name in enumerate(channels) if name in outputs]] = 0.0
    return _Sequences(tokens[~flags], context, reader.read(outputs, rows), asked, queries)


def _open(frame: Any) -> Table:
    """Return the narwhals view of a frame."""
    try:
        import narwhals as nw
        from narwhals.exceptions import NarwhalsError
    except ImportError as error:
        raise ImportError(
            "problem_from_frame needs narwhals: pip install 'linattn[frame]'."
        ) from error
    try:
        table = nw.from_native(frame, eager_only=True)
    except TypeError:
        raise TypeError(
            "frame must be a data frame that lies in memory, of pandas, polars or another library "
            f"that narwhals knows, got {type(frame).__name__}; collect a lazy one."
        ) from None
    except NarwhalsError as error:
        raise ValueError(f"frame must name every column once: {error}.") from None
    odd = [name for name in table.columns if not isinstance(name, str)]
    if odd or len(table) == 0:
        raise ValueError(
            "frame must have at least one row and strings as column names, got "
            f"{len(table)} rows and {odd[:1] if odd else 'strings'}."
        )
    return table


def _names(argument: str, names: Any, table: Table) -> list[str]:
    """Return column names after refusing unknown, repeated or no ones."""
    given = [] if isinstance(names, str) or not np.iterable(names) else list(names)
    if not given:
        raise ValueError(f"{argument} must be a list of column names, got {names!r}.")
    chosen = [one_of(argument, name, table.columns) for name in given]
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{argument} must name every column once, got {chosen}.")
    return chosen


def _arrange(table: Table, client: str, sequence: str, order: str | None) -> _Rows:
    """Sort the rows by client, sequence and order; equal ones stay as they stand in the frame."""
    keys = [name for name in dict.fromkeys([client, sequence, order]) if name is not None]
    for name in keys:
        column, absent = table[name], table[name].is_null()
        if column.dtype.is_float():
            absent = absent | column.fill_null(0).is_nan()
        missing = int(absent.sum())
        if missing:
            raise ValueError(f"column {name!r} must have no missing values, got {missing}.")
    number = "row" + max(keys, key=len)  # longer than any of them, so the name of none
    held = table.select(keys).with_row_index(number)
    try:
        held = held.sort(*keys, number)
    except TypeError:
        raise TypeError(
            f"columns {', '.join(map(repr, keys))} must hold values that can be sorted."
        ) from None
    owner, label = (held[name].to_numpy() for name in (client, sequence))
    new_client = np.concatenate([[True], owner[1:] != owner[:-1]])
    starts = np.flatnonzero(new_client | np.concatenate([[True], label[1:] != label[:-1]]))
    return _Rows(
        held[number].to_numpy().astype(np.int64),
        np.append(starts, len(owner)),
        np.cumsum(new_client)[starts] - 1,
        owner[new_client].tolist(),
    )


def _weights(given: Any, clients: list[Any]) -> Any:
    """Return weights in the order of the clients where they are given by value."""
    if not isinstance(given, Mapping):
        return given
    if set(given) != set(clients):
        odd = sorted(map(repr, set(given) ^ set(clients)))
        raise ValueError(
            f"weights must name each of the {len(clients)} clients and no other, got a difference "
            f"in {', '.join(odd[:3])}."
        )
    return [given[name] for name in clients]
