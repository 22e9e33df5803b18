"""The store: what goes in comes out, equal runs are equal bytes, damage is seen."""

import errno
import io
import os
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


@pytest.mark.parametrize(
    ("dataset", "sentence"),
    [
        ({"count": ("i", [2**31])}, "count must fit into 32-bit integers"),
        ({"count": ("i", [-(2**63)])}, "count must fit into 32-bit integers"),
        ({"wave": ("i", [1j])}, "wave must be real"),
        ({"what": ("i", np.array([None, {}], dtype=object))}, "what must be numbers or texts"),
        ({"x": ("i", [1.0], {"flag": True})}, "attribute 'flag' of x must be a text or numbers"),
    ],
)
def test_what_cannot_be_stored_is_one_sentence(dataset, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        encoded(xr.Dataset(dataset))


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"spec": "mine"}, "attribute 'spec' of the dataset is the store's; use another name"),
        ({"names": ["a", "b"]}, "attribute 'names' of the dataset must be one text"),
        ({"nothing": None}, "attribute 'nothing' of the dataset must be a text or numbers"),
        ({"large": 2**40}, "attribute 'large' of the dataset must be a text or numbers"),
    ],
)
def test_attributes_that_cannot_be_stored_are_one_sentence(attributes, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        encoded(xr.Dataset({"x": 1.0}, attrs=attributes))


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
    sentence = set_aside(bad)
    assert (
        sentence == f"{bad.name} is damaged; it is kept as {bad.name}.damaged and computed again."
    )
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
