"""The figure of the real data: from the store alone, the same bytes, its CSV what it shows."""

import csv
from pathlib import Path

import numpy as np
import pytest

from linattn.experiments.catalog import load_script, load_sweep
from linattn.experiments.store import write_manifest, write_result
from linattn.experiments.worker import compute

ROOT = Path(__file__).parents[2]
FIGURE = load_script(ROOT / "figures" / "real_data.py")
SPECS = load_sweep(ROOT / "simulations" / "real_data.py").specs("tiny")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    found = {spec.data: compute(spec) for spec in SPECS}
    for spec in SPECS:
        write_result(folder, spec, found[spec.data])
    write_manifest(folder, "real_data", preset="tiny", specs=SPECS)
    return folder, found


@pytest.fixture(scope="module")
def files(store, tmp_path_factory):
    return FIGURE.draw(store[0], tmp_path_factory.mktemp("figures"))


def test_files_and_their_bytes(store, files, tmp_path):
    assert [path.name for path in files] == ["real_data.png", "real_data.pdf", "real_data.csv"]
    for first, second in zip(files, FIGURE.draw(store[0], tmp_path), strict=True):
        assert first.stat().st_size > 1000
        assert first.read_bytes() == second.read_bytes()


def test_csv_holds_what_is_drawn(store, files):
    _, found = store
    table = files[-1]
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["panel"].partition(":")[0] for row in rows} == {
        "digits, Dirichlet(0.05)",
        "watch, one side tested",
    }
    assert all(row["x_label"] and row["y_label"] for row in rows)

    def drawn(panel, series):
        kept = [r for r in rows if (r["panel"], r["series"]) == (panel, series)]
        return [float(r["x"]) for r in kept], [float(r["y"]) for r in kept]

    data = found["watch"]
    x, y = drawn("watch, one side tested: test accuracy", "FedFrozen(T), E = 5")
    assert x == data.warmup.values.tolist()
    np.testing.assert_allclose(y, 100 * data.test_accuracy.sel(local_steps=5))
    data = found["digits"]
    parts = "digits, Dirichlet(0.05): exact parts of training F, E = 5"
    shares = [drawn(parts, label)[1] for label in ("kernel bias", "value drift: transient",
              "value drift: frozen floor", "value drift: cross term")]  # fmt: skip
    np.testing.assert_allclose(
        np.sum(shares, axis=0), drawn(parts, "F − P_ref, simulated")[1], rtol=1e-9
    )


def test_summary_says_what_is_gained(store):
    lines = FIGURE.summary(store[0]).splitlines()
    assert len(lines) == 4
    data = store[1]["watch"].sel(local_steps=5)
    best = int(data.objective.values[:-1].argmin())
    gain = 100 * float(data.test_accuracy[best] - data.test_accuracy[-1])
    assert lines[-1].startswith("watch, one side tested, H = 1, E = 5: FedAvg ")
    assert f"FedFrozen({data.warmup.values[best]}) − FedAvg {gain:.3g} (" in lines[-1]


def test_missing_results_are_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`linattn run simulations/real_data.py"):
        FIGURE.draw(tmp_path, tmp_path)
