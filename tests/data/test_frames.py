"""From data frames to problems: the same as from arrays, in any order of rows, and refusals."""

import sys

import numpy as np
import pandas as pd
import pytest
from bridge import same_bits

import linattn as la

pytest.importorskip("narwhals", reason="frames are read through narwhals")
RIDGES = {"value_ridge": 0.1, "kernel_ridge": 0.2}
NAMES = {"client": "school", "sequence": "class", "features": ["a", "b"], "target": "y"}
LENGTHS = [[3, 1, 2], [2, 2]]
LIBRARIES = ["pandas", "polars", "pyarrow"]


def native(table, library):
    """The same table in another library."""
    if library == "pandas":
        return table
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    columns = {
        name: column.tolist() if column.dtype.kind not in "biuf" else column.to_numpy()
        for name, column in table.items()
    }
    return module.DataFrame(columns) if library == "polars" else module.table(columns)


def table(seed=0):
    """Rows of sequences of unequal length of two clients, `when` telling their order."""
    rng, rows = np.random.default_rng(seed), []
    for school, lengths in zip(["north", "south"], LENGTHS, strict=True):
        for k, n in enumerate(lengths):
            rows += [(school, k, t, *rng.normal(size=4)) for t in range(n)]
    return pd.DataFrame(rows, columns=["school", "class", "when", "a", "b", "y", "z"])


def arrays(held, target, chosen=slice(None)):
    """Tokens and targets of every client of a table, by plain loops."""
    clients = []
    for school in sorted(set(held.school)):
        own = held[held.school == school]
        parts = [own[own["class"] == k].sort_values("when") for k in sorted(set(own["class"]))]
        tokens = [part[["a", "b"]].to_numpy() for part in parts]
        clients.append((tokens, [part[target].to_numpy()[chosen] for part in parts]))
    return clients


def equal(left, right):
    columns = [(*p.statistics, p.offsets, p.weights) for p in (left, right)]
    return all(a is b is None or same_bits(a, b) for a, b in zip(*columns, strict=True))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_table_is_its_arrays_whatever_the_order_of_rows(library):
    held = table()
    expected = la.problem_from_tokens(arrays(held, ["y", "z"]), **RIDGES)
    shuffled = native(held.sample(frac=1, random_state=1), library)
    options = NAMES | {"target": ["y", "z"], "order": "when"} | RIDGES
    assert equal(la.problem_from_frame(shuffled, **options), expected)
    assert expected.client_sizes.tolist() == [3, 2]


def test_rows_keep_their_place_without_an_order():
    held = table()
    last = la.problem_from_tokens(arrays(held, ["y"], slice(-1, None)), readout="last", **RIDGES)
    assert equal(la.problem_from_frame(held, readout="last", **NAMES, **RIDGES), last)
    by_client = held.sort_values("school", ascending=False, kind="stable")
    assert equal(la.problem_from_frame(by_client, readout="last", **NAMES, **RIDGES), last)


def test_only_the_last_target_is_read_for_the_last_readout():
    held = table()
    ends = held.groupby(["school", "class"]).tail(1).index
    sparse = held.assign(y=held.y.where(held.index.isin(ends)))
    whole = la.problem_from_frame(held, readout="last", **NAMES, **RIDGES)
    assert equal(la.problem_from_frame(sparse, readout="last", **NAMES, **RIDGES), whole)


def test_mean_readout_wants_one_target_per_sequence():
    held = table()
    with pytest.raises(ValueError, match="target must be the same in all rows of a sequence"):
        la.problem_from_frame(held, readout="mean", **NAMES, **RIDGES)
    held["y"] = held.groupby(["school", "class"])["y"].transform("first")
    expected = la.problem_from_tokens(arrays(held, ["y"], slice(1)), readout="mean", **RIDGES)
    assert equal(la.problem_from_frame(held, readout="mean", **NAMES, **RIDGES), expected)


def with_questions(held):
    """The last row of every sequence, and some others, ask."""
    asks = held.groupby(["school", "class"]).cumcount(ascending=False) == 0
    return held[held.groupby(["school", "class"])["y"].transform("size") > 1].assign(asks=asks)


@pytest.mark.parametrize("library", LIBRARIES)
def test_query_rows_are_queries_and_do_not_show_their_answer(library):
    held = with_questions(table())
    clients = []
    for school in ("north", "south"):
        own = held[held.school == school]
        parts = [own[own["class"] == k] for k in sorted(set(own["class"]))]
        names = ["a", "b", "y"]
        clients.append((
            [part.loc[~part.asks, names].to_numpy() for part in parts],
            [part.loc[part.asks, ["y"]].to_numpy() for part in parts],
            [part.loc[part.asks, names].assign(y=0.0).to_numpy() for part in parts],
        ))  # fmt: skip
    expected = la.problem_from_tokens(clients, **RIDGES)
    options = NAMES | {"features": ["a", "b", "y"], "query": "asks"}
    found = la.problem_from_frame(native(held, library), **options, **RIDGES)
    assert found.readout == "queries"
    assert equal(found, expected)
    ones = held.assign(asks=held.asks.astype(int))
    assert equal(la.problem_from_frame(native(ones, library), **options, **RIDGES), expected)


def test_several_queries_and_targets_known_only_there():
    held = with_questions(table())
    held.loc[held.index[0], "asks"] = True
    held["y"] = held.y.where(held.asks)
    found = la.problem_from_frame(held, query="asks", **NAMES, **RIDGES)
    assert found.statistics.moment.shape == (4, 2, 2)
    first = held.iloc[[0, 2]][["a", "b"]].to_numpy()  # both queries of the first sequence
    assert np.allclose(found.statistics.moment[0], first.T @ first / 2, rtol=1e-14)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_narrow_columns_are_cast_with_one_note(library):
    held = native(table().astype({"a": "float32", "y": "float32"}), library)
    with pytest.warns(UserWarning, match="columns 'a', 'y' hold fewer digits") as notes:
        found = la.problem_from_frame(held, **NAMES, **RIDGES)
    assert len(notes) == 1
    assert notes[0].filename == __file__
    wide = table().astype({"a": "float32", "y": "float32"}).astype({"a": float, "y": float})
    assert equal(found, la.problem_from_frame(wide, **NAMES, **RIDGES))


def test_integers_truth_values_and_nullable_numbers_are_numbers():
    held = table().assign(a=[1, 2] * 5, b=[True, False] * 5)
    plain = la.problem_from_frame(held.astype({"a": float, "b": float}), **NAMES, **RIDGES)
    assert equal(la.problem_from_frame(held, **NAMES, **RIDGES), plain)
    nullable = held.astype({"a": "Int64", "b": "boolean", "y": "Float64"})
    assert equal(la.problem_from_frame(nullable, **NAMES, **RIDGES), plain)


def test_weights_by_client():
    weights = {"south": 0.25, "north": 0.75}
    found = la.problem_from_frame(table(), weights=weights, **NAMES, **RIDGES)
    assert found.weights.tolist() == [0.75, 0.25]
    given = la.problem_from_frame(table(), weights=[0.75, 0.25], **NAMES, **RIDGES)
    assert equal(found, given)
    with pytest.raises(ValueError, match="weights must name each of the 2 clients and no other"):
        la.problem_from_frame(table(), weights={"south": 1.0}, **NAMES, **RIDGES)


def test_many_sequences_are_stacked_a_few_at_a_time(monkeypatch):
    from linattn.data import tokens

    whole = la.problem_from_frame(table(), **NAMES, **RIDGES)
    monkeypatch.setattr(tokens, "CHUNK_ENTRIES", 1)
    assert equal(la.problem_from_frame(table(), **NAMES, **RIDGES), whole)


def test_without_narwhals_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "narwhals", None)
    with pytest.raises(ImportError, match=r"needs narwhals: pip install 'linattn\[frame\]'"):
        la.problem_from_frame(table(), **NAMES, **RIDGES)


def test_a_lazy_frame_must_be_collected():
    lazy = native(table(), "polars").lazy()
    with pytest.raises(TypeError, match="got LazyFrame; collect a lazy one"):
        la.problem_from_frame(lazy, **NAMES, **RIDGES)


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (dict, {}, TypeError, "frame must be a data frame .* got dict"),
        (lambda t: t[:0], {}, ValueError, "frame must have at least one row and strings"),
        (lambda t: t.rename(columns={"z": 3}), {}, ValueError, r"strings as column .* \[3\]"),
        (lambda t: t.rename(columns={"z": "y"}), {}, ValueError, "name every column once"),
        (None, {"client": "schol"}, ValueError, "client must be one of .*mean 'school'"),
        (None, {"client": None}, ValueError, "client must be one of"),
        (None, {"order": "then"}, ValueError, "order must be one of"),
        (None, {"features": "a"}, TypeError, "features must be a list, got str 'a'"),
        (None, {"features": []}, ValueError, "features must be a list of column names"),
        (None, {"features": ["a", "a"]}, ValueError, "features must name every column once"),
        (None, {"features": ["a", "c"]}, ValueError, "features must be one of"),
        (None, {"target": "a"}, ValueError, "target must not be among the features"),
        (None, {"readout": "queries"}, ValueError, "readout must be 'queries' exactly"),
        (None, {"query": "when", "readout": "last"}, ValueError, "readout must be 'queries'"),
        (None, {"query": "when"}, ValueError, "query must be a column of truth values .* with 2"),
        (lambda t: t.assign(when=True), {"query": "when"}, ValueError, "context, got 5 of 5"),
        (lambda t: t.assign(when=0), {"query": "when"}, ValueError, "a query, got 5 of 5"),
        (lambda t: t.astype({"a": str}), {}, TypeError, "'a' must hold numbers, got dtype"),
        (lambda t: t.astype({"a": object}), {}, TypeError, "numbers, got dtype object"),
        (lambda t: t.astype({"a": complex}), {}, TypeError, "numbers, got dtype comp"),
        (lambda t: t.assign(a=np.nan), {}, ValueError, "no missing values .* 10 of 10"),
        (lambda t: t.assign(y=np.inf), {}, ValueError, "column 'y' must be finite"),
        (lambda t: t.assign(school=None), {}, ValueError, "'school' must have no missing"),
        (
            lambda t: t.assign(when=np.nan),
            {"order": "when"},
            ValueError,
            "'when' must have no miss",
        ),
        (None, {"value_ridge": 0.0}, ValueError, "value_ridge must be > 0"),
        (None, {"weights": [1.0]}, ValueError, "weights must have 2 entries, got 1"),
    ],
)
def test_bad_tables_are_refused(change, options, error, message):
    held = table() if change is None else change(table())
    with pytest.raises(error, match=message):
        la.problem_from_frame(held, **(NAMES | RIDGES | options))
