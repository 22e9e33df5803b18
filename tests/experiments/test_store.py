"""The store: what goes in comes out, equal runs are equal bytes, damage is seen."""

import errno
import io
import os
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from experiments.toy import SIMULATION, ToySpec, run
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import netcdf_file

from linattn.experiments import files, store
from linattn.experiments.files import open_folder, remove_temporary, write_atomically
from linattn.experiments.netcdf import RESERVED
from linattn.experiments.simulation import NUMERICS
from linattn.experiments.store import (
    DamagedError,
    encode,
    inspect_file,
    load_results,
    read_manifest,
    read_result,
    scan,
    set_aside,
    write_manifest,
)
from scripts import put, simulation

SPEC = ToySpec(seed=3, size=4)
TASK = SIMULATION.task(SPEC)
CONTENT = encode(TASK, SIMULATION, run(SPEC))


def encoded(dataset):
    return encode(TASK, SIMULATION, dataset)


def state(path):
    return inspect_file(path, SIMULATION).state


def test_round_trip(tmp_path):
    path = put(tmp_path, SIMULATION, SPEC)
    assert path.name.startswith("toy-")
    found = read_result(path)
    assert found.spec == {"seed": 3, "size": 4, "delay": 0.0, "mode": "draw"}
    np.testing.assert_array_equal(found.dataset.draws, run(SPEC).draws)
    assert found.dataset.draws.dtype == np.float64
    assert list(found.dataset.name.values) == ["a", "bcd"]
    assert found.dataset.stable.item() == 1
    assert found.provenance["numerics"] == NUMERICS
    assert set(found.provenance["versions"]) >= {"python", "numpy", "scipy", "numba", "linattn"}
    assert not found.dataset.attrs


def test_special_values_survive(tmp_path):
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e308])
    path = put(tmp_path, SIMULATION, SPEC, xr.Dataset({"x": ("i", values)}))
    np.testing.assert_array_equal(read_result(path).dataset.x, values)


def test_bytes_do_not_depend_on_the_order_of_variables():
    dataset = run(SPEC)
    backwards = dataset[list(reversed(list(dataset.variables)))]
    assert encoded(backwards) == CONTENT == encoded(dataset)


def test_attributes_are_plain_text():
    with netcdf_file(io.BytesIO(CONTENT), mmap=False) as file:
        kinds = {type(value) for value in file._attributes.values()}
        kinds |= {type(v) for var in file.variables.values() for v in var._attributes.values()}
    assert kinds == {bytes}


def one(values, attributes=None, name="x", dimension="i"):
    """A dataset of one variable."""
    return xr.Dataset({name: (dimension, values, attributes or {})})


LARGE = "must fit into 32-bit integers; store it as float64."
PLAIN = "must be one text or numbers (integers of 32 bits), got "
NAME = "must be letters, digits, _, - and ., not starting with a digit, got "


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        (one([2**31]), f"x {LARGE}"),
        (one([-(2**63)]), f"x {LARGE}"),
        (one(np.array([2**64 - 1], np.uint64)), f"x {LARGE}"),
        (one([1j]), "x must be real"),
        (one(np.array([1.0], np.float16)), "x must be float32 or float64, got float16"),
        (one(np.array(["2020-01-01"], "M8[ns]")), "x must be numbers or texts, got dtype datetime"),
        (one(np.array([None, {}], dtype=object)), "x must be numbers or texts, got dtype object"),
        (one(["a\0b"]), "x must be text without the character NUL, got "),
        (one(["\ud800"]), "x must be text that UTF-8 holds, got "),
        (one([1.0], name="a/b"), f"name of a variable or dimension {NAME}'a/b'"),
        (one([1.0], name=3), f"name of a variable or dimension {NAME}3"),
        (one([1.0], dimension=""), f"name of a variable or dimension {NAME}''"),
        (one([1.0], dimension="string3"), "dimension 'string3' has a name that texts use"),
        *((one([1.0], {"a": value}), f"attribute 'a' of x {PLAIN}")
          for value in (True, None, 2**31, -(2**63), 1j, ["a", "b"], np.float16(1), [[1.0]], len)),
        *((one([1.0], {name: 2.0}), f"attribute {name!r} of x is NetCDF's; use another name.")
          for name in ("_FillValue", "_Unsigned", "add_offset", "coordinates", "missing_value")),
        (one([1.0], {"a b": "c"}), f"name of an attribute of x {NAME}'a b'"),
        (one([1.0], {"a": "\0"}), "attribute 'a' of x must be text without the character NUL"),
        *((one([1.0]).assign_attrs({name: "c"}), f"attribute {name!r} of the dataset is the store")
          for name in RESERVED),
    ],
)  # fmt: skip
def test_what_cannot_be_stored_is_one_sentence(dataset, sentence):
    with pytest.raises((ValueError, TypeError), match=re.escape(sentence)) as error:
        encoded(dataset)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(0), np.array([], object), np.array([-(2**31), 2**31 - 1]), np.ones(2, np.int8),
        np.ones(2, np.float32), np.ones(2, ">f8"), np.array([9.969209968386869e36]),
        np.array(["", "ä𝛼"]), np.array([["a", ""], ["bb", "c "]]), np.array([b"\xff", b"a"]),
    ],
    ids=repr,
)  # fmt: skip
def test_what_can_be_stored_comes_back(tmp_path, values):
    dataset = one(values, dimension=("i", "j")[: values.ndim]).set_coords("x")
    found = read_result(put(tmp_path, SIMULATION, SPEC, dataset)).dataset
    np.testing.assert_array_equal(found["x"].values, values)
    assert set(found.coords) == {"x"}


def test_attributes_survive(tmp_path):
    held = {"note": "ρ < 1", "count": 3, "share": 0.5}
    path = put(tmp_path, SIMULATION, SPEC, xr.Dataset({"x": 1.0}, attrs=held))
    assert read_result(path).dataset.attrs == held


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_any_changed_byte_is_seen(tmp_path_factory, position, change):
    damaged = bytearray(CONTENT)
    damaged[position] ^= change
    path = tmp_path_factory.mktemp("damaged") / "toy-0.nc"
    path.write_bytes(bytes(damaged))
    with pytest.raises(DamagedError, match="is damaged"):
        read_result(path)
    assert state(path) == "damaged"


@given(st.integers(0, len(CONTENT) - 1))
def test_any_truncation_is_seen(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("truncated") / "toy-0.nc"
    path.write_bytes(CONTENT[:length])
    assert state(path) == "damaged"


def test_a_damaged_file_is_left_out_and_kept(tmp_path):
    good = put(tmp_path, SIMULATION, SPEC)
    bad = put(tmp_path, SIMULATION, ToySpec(seed=4))
    bad.write_bytes(bad.read_bytes()[:-7])
    with pytest.warns(UserWarning, match=f"{bad.name} is damaged and left out"):
        assert [r.path for r in load_results(tmp_path)] == [good]
    sentence = f"{bad.name} is damaged; it is kept as {bad.name}.damaged and computed again."
    assert set_aside(bad) == sentence
    assert set(os.listdir(tmp_path)) == {good.name, bad.name + ".damaged"}
    assert set_aside(bad)  # another process was faster: no error


def test_one_rule_says_what_is_stale(tmp_path, monkeypatch):
    """Other numerics; another version; another text of a script that is not the package's own."""
    path = put(tmp_path, SIMULATION, SPEC)
    assert state(path) == "stored"
    assert inspect_file(path, replace(SIMULATION, version=2)).state == "stale"
    other = tmp_path / "toy.py"
    other.write_text("# another text")
    assert inspect_file(path, replace(SIMULATION, path=other)).state == "stale"
    monkeypatch.setattr(store, "shipped", lambda path: True)
    assert inspect_file(path, replace(SIMULATION, path=other)).state == "stored"
    monkeypatch.setattr(store, "NUMERICS", NUMERICS + 1)
    assert state(path) == inspect_file(path).state == "stale"
    assert load_results(tmp_path, "toy") == []


def test_only_the_newest_version_is_loaded(tmp_path):
    put(tmp_path, SIMULATION, SPEC)
    newer = put(tmp_path, replace(SIMULATION, version=2), SPEC)
    assert [result.path for result in load_results(tmp_path, "toy")] == [newer]


def test_load_results_selects(tmp_path):
    for spec in (ToySpec(seed=10), ToySpec(seed=2), ToySpec(seed=2, size=5)):
        put(tmp_path, SIMULATION, spec)
    other = simulation("bounds")
    put(tmp_path, other, other.spec(local_steps=(1, 5)), xr.Dataset({"x": 1.0}))
    assert [r.spec["seed"] for r in load_results(tmp_path, "toy")] == [2, 2, 10]
    assert len(load_results(tmp_path)) == len(scan(tmp_path)) == 4
    assert [r.spec["size"] for r in load_results(tmp_path, where={"seed": 2})] == [3, 5]
    (found,) = load_results(tmp_path, where={"local_steps": (1, 5)})
    assert found.spec["problem"]["dim"] == 6
    assert load_results(tmp_path, where={"nothing": 1}) == []
    write_manifest(tmp_path, "toy", "quick", [SIMULATION.task(ToySpec(seed=10))])
    assert [r.spec["seed"] for r in load_results(tmp_path, "toy", preset="quick")] == [10]


@pytest.mark.parametrize(
    ("name", "preset", "sentence"),
    [
        ("toys", None, "has no results of 'toys'; did you mean 'toy'"),
        ("frozen", None, "has no results of 'frozen'; there are toy"),
        ("toy", "quick", "preset must be one that ran to its end, tiny, got 'quick'"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, name, preset, sentence):
    put(tmp_path, SIMULATION, SPEC)
    write_manifest(tmp_path, "toy", "tiny", [])
    with pytest.raises(ValueError, match=sentence):
        load_results(tmp_path, name, preset=preset)


@pytest.mark.parametrize("text", ["[1]", "{", '{"quick": 3}', ""])
def test_a_manifest_that_is_none_is_no_manifest(tmp_path, text):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "toy.json").write_text(text)
    assert read_manifest(tmp_path, "toy") == {}


def test_a_store_must_be_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"store must be a folder with results"):
        load_results(tmp_path / "nowhere")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_failed_write_harms_nothing(tmp_path, monkeypatch, code):
    path = tmp_path / "result.nc"
    write_atomically(path, b"old")

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(OSError, match=f"cannot be written .{os.strerror(code)}.; what is stored"):
        write_atomically(path, b"new")
    assert os.listdir(tmp_path) == ["result.nc"]
    assert path.read_bytes() == b"old"


def test_old_leftovers_go_and_new_ones_stay(tmp_path):
    old, new, mine = (tmp_path / f".r.nc.{pid}.ab.tmp" for pid in (1, 2, 3))
    for path in (old, new, mine):
        path.touch()
    os.utime(old, (time.time() - 1e6,) * 2)
    open_folder(tmp_path)
    assert not old.exists()
    assert new.exists()
    remove_temporary(tmp_path, [3])
    assert new.exists()
    assert not mine.exists()


def test_an_output_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "results").write_text("")
    with pytest.raises(OSError, match="output must be a folder with room"):
        open_folder(tmp_path / "results")
