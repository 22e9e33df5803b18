"""The store: what goes in comes out, equal runs are equal bytes, damage is seen."""

import errno
import io
import json
import os
import time

import numpy as np
import pytest
import xarray as xr
from experiments.toy_runs import ToySpec, run
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import netcdf_file

from linattn.experiments import files, store
from linattn.experiments.files import open_folder, remove_temporary, write_atomically
from linattn.experiments.specs import NUMERICS, BiasDriftSpec, ProblemSpec
from linattn.experiments.store import (
    DamagedError,
    combine,
    encode,
    inspect_file,
    load_results,
    read_result,
    result_path,
    scan,
    set_aside,
    state_of,
    write_manifest,
    write_result,
)

SPEC = ToySpec(seed=3, size=4)
CONTENT = encode(SPEC, run(SPEC))


def test_round_trip(tmp_path):
    path = write_result(tmp_path, SPEC, run(SPEC))
    assert path == result_path(tmp_path, SPEC)
    assert path.name.startswith("toy-")
    found = read_result(path)
    assert found.spec == SPEC
    np.testing.assert_array_equal(found.dataset.draws, run(SPEC).draws)
    assert found.dataset.draws.dtype == np.float64
    assert list(found.dataset.name.values) == ["a", "bcd"]
    assert found.dataset.stable.item() == 1
    assert found.provenance["numerics"] == NUMERICS
    assert set(found.provenance["versions"]) >= {"python", "numpy", "scipy", "numba", "linattn"}
    assert not found.dataset.attrs


def test_special_values_survive(tmp_path):
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e308])
    path = write_result(tmp_path, SPEC, xr.Dataset({"x": ("i", values)}))
    np.testing.assert_array_equal(read_result(path).dataset.x, values)


def test_bytes_do_not_depend_on_the_order_of_variables():
    dataset = run(SPEC)
    backwards = dataset[list(reversed(list(dataset.variables)))]
    assert encode(SPEC, backwards) == CONTENT == encode(SPEC, dataset)


def test_attributes_are_plain_text():
    with netcdf_file(io.BytesIO(CONTENT), mmap=False) as file:
        kinds = {type(value) for value in file._attributes.values()}
        kinds |= {type(v) for var in file.variables.values() for v in var._attributes.values()}
    assert kinds == {bytes}


def test_large_integers_are_refused():
    with pytest.raises(ValueError, match="count must fit into 32-bit integers"):
        encode(SPEC, xr.Dataset({"count": ("i", np.array([2**31]))}))


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_any_changed_byte_is_seen(tmp_path_factory, position, change):
    damaged = bytearray(CONTENT)
    damaged[position] ^= change
    path = tmp_path_factory.mktemp("damaged") / "toy-0.nc"
    path.write_bytes(bytes(damaged))
    with pytest.raises(DamagedError, match="is damaged"):
        read_result(path)
    assert state_of(path) == "damaged"


@given(st.integers(0, len(CONTENT) - 1))
def test_any_truncation_is_seen(tmp_path_factory, length):
    path = tmp_path_factory.mktemp("truncated") / "toy-0.nc"
    path.write_bytes(CONTENT[:length])
    assert state_of(path) == "damaged"


def test_a_damaged_file_is_left_out_and_kept(tmp_path):
    good = write_result(tmp_path, SPEC, run(SPEC))
    bad = write_result(tmp_path, ToySpec(seed=4), run(SPEC))
    bad.write_bytes(bad.read_bytes()[:-7])
    with pytest.warns(UserWarning, match=f"{bad.name} is damaged and left out"):
        assert [r.path for r in load_results(tmp_path)] == [good]
    sentence = set_aside(bad)
    assert (
        sentence == f"{bad.name} is damaged; it is kept as {bad.name}.damaged and computed again."
    )
    assert set(os.listdir(tmp_path)) == {good.name, bad.name + ".damaged"}
    assert set_aside(bad)  # another process was faster: no error


def test_older_numerics_are_stale(tmp_path, monkeypatch):
    path = write_result(tmp_path, SPEC, run(SPEC))
    assert state_of(path) == "stored"
    monkeypatch.setattr(store, "NUMERICS", NUMERICS + 1)
    assert inspect_file(path).state == "stale"
    assert load_results(tmp_path) == []
    assert state_of(tmp_path / "toy-none.nc") == "missing"


def test_load_results_selects(tmp_path):
    for spec in (ToySpec(seed=10), ToySpec(seed=2), ToySpec(seed=2, size=5)):
        write_result(tmp_path, spec, run(spec))
    other = BiasDriftSpec(local_steps=(1, 5))
    write_result(tmp_path, other, xr.Dataset({"x": 1.0}))
    assert [r.spec.seed for r in load_results(tmp_path, "toy")] == [2, 2, 10]
    assert len(load_results(tmp_path)) == 4
    assert [r.spec.size for r in load_results(tmp_path, where={"seed": 2})] == [3, 5]
    assert load_results(tmp_path, where={"local_steps": (1, 5)})[0].spec == other
    assert load_results(tmp_path, where={"nothing": 1}) == []
    write_manifest(tmp_path, "last", preset="quick", specs=[ToySpec(seed=10)])
    assert [r.spec.seed for r in load_results(tmp_path, sweep="last")] == [10]
    assert load_results(tmp_path, sweep="never") == []
    assert len(scan(tmp_path)) == 4


def test_a_store_must_be_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"store must be a folder with results"):
        load_results(tmp_path / "nowhere")


def test_a_result_of_an_unknown_version_is_a_mapping(tmp_path):
    values = {"kind": "toy", "seed": 1, "later_field": 3}
    path = tmp_path / "toy-1.nc"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "spec_json", lambda spec: json.dumps(values))
        path.write_bytes(encode(SPEC, run(SPEC)))
    assert read_result(path).spec == values


def test_combine_makes_dimensions_of_fields(tmp_path):
    specs = [BiasDriftSpec(seed=s, problem={"noise": float(n)}) for s in range(2) for n in range(3)]
    noises = [ProblemSpec(noise=noise) for noise in (0.0, 1.0, 2.0)]
    specs = [BiasDriftSpec(seed=seed, problem=noise) for seed in range(2) for noise in noises]
    for spec in specs:
        data = xr.Dataset({"x": ("warmup", [spec.seed + 10.0 * spec.problem.noise, 0.0])})
        write_result(tmp_path, spec, data.assign_coords(warmup=[0, 5]))
    whole = combine(load_results(tmp_path), ["seed", "problem.noise"])
    assert dict(whole.sizes) == {"seed": 2, "noise": 3, "warmup": 2}
    assert whole.x.sel(seed=1, noise=2.0, warmup=0).item() == 21.0
    with pytest.raises(ValueError, match="results must not be empty"):
        combine([], ["seed"])


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
