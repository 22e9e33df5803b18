"""The figures of the simulations: files, exactly the drawn numbers in the CSV, missing results."""

import csv
import importlib
from pathlib import Path

import numpy as np
import pytest

from linattn.experiments import (
    BiasDriftSpec,
    CertificateSpec,
    FreezeRuleSpec,
    FrozenStageSpec,
    ProblemSpec,
    load_results,
)
from linattn.experiments.catalog import find_folder, load_script
from linattn.experiments.store import write_manifest, write_result
from linattn.report.marks import DIVERGED, power
from linattn.report.regimes import in_words, number, regimes, spread
from linattn.report.style import Sheet

FIGURES = {
    "bias_drift_decomposition": 1,
    "bias_drift_objective": 1,
    "frozen_stage": 1,
    "certificate": 2,
    "freeze_rule": 1,
}
SPECS = {
    "bias_drift": (BiasDriftSpec, {"rounds": 12, "num_lengths": 6, "num_starts": 2}),
    "frozen_stage": (FrozenStageSpec, {"rounds": 6, "settle_rounds": 40, "warmup_rounds": 3}),
    "certificate": (CertificateSpec, {"rounds": 5, "num_starts": 2}),
    "freeze_rule": (FreezeRuleSpec, {"rounds": 6}),
}
SIZE = {"num_clients": 3, "sequences_per_client": 6, "num_tokens": 5, "dim": 3, "num_outputs": 2}


def problems():
    return [
        ProblemSpec(**SIZE, value_heterogeneity=1.5, covariate_heterogeneity=amount)
        for amount in (0.0, 0.3)
    ]


def fill(store, kind):
    """Compute a few small runs of a kind into a store.

    With covariate heterogeneity 0.3 and E = 4, seed 1 is unstable and diverges.
    """
    cls, settings = SPECS[kind]
    specs = [
        cls(seed=seed, problem=problem, local_steps=(1, 4), local_lr=0.1, **settings)
        for problem in problems()
        for seed in (0, 1)
    ]
    module, _, function = cls.job.partition(":")
    run = getattr(importlib.import_module(module), function)
    for spec in specs:
        write_result(store, spec, run(spec))
    write_manifest(store, kind, preset="test", specs=specs)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    for kind in SPECS:
        fill(folder, kind)
    return folder


@pytest.fixture(scope="module")
def drawn(store, tmp_path_factory):
    """Every figure, drawn once."""
    folder = tmp_path_factory.mktemp("figures")
    return {name: figure(name).draw(store, folder) for name in FIGURES}


@pytest.fixture
def without_images(monkeypatch):
    """Figures write their CSV only, which is much faster."""
    monkeypatch.setattr(Sheet, "_arrange", lambda self: None)
    monkeypatch.setattr(Sheet, "_image", lambda self, suffix: b"")


def figure(name):
    return load_script(find_folder("figures") / f"{name}.py")


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def floats(rows, name):
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


@pytest.mark.parametrize("name", FIGURES)
def test_files(drawn, name):
    made = drawn[name]
    assert name == figure(name).NAME
    assert [path.suffix for path in made] == [".png", ".pdf", ".csv"] * FIGURES[name]
    assert made[0].stem == name
    assert all(path.stat().st_size > 0 for path in made)
    assert made[0].read_bytes().startswith(b"\x89PNG")
    assert made[1].read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", FIGURES)
def test_csv_is_what_is_drawn(store, tmp_path, monkeypatch, without_images, name):
    """Every labelled line of every panel has its numbers in the CSV, and nothing else is there."""
    sheets = []
    save = Sheet.save
    monkeypatch.setattr(
        Sheet, "save", lambda self, folder: sheets.append(self) or save(self, folder)
    )
    made = figure(name).draw(store, tmp_path)
    for drawn, path in zip(sheets, made[2::3], strict=True):
        rows = table(path)
        plotted = 0
        for axes, panel in drawn.panels.items():
            here = [row for row in rows if row["panel"] == panel.title]
            assert all(row["x_label"] for row in here)
            plotted += sum(compared(line, here) for line in axes.lines)
        curves = [row for row in rows if row["mark"] not in ("bar", "text", "row name")]
        assert plotted == len(curves)


def compared(line, rows):
    """Compare a drawn line with its rows; return how many they are."""
    label, x, y = line.get_label(), *map(np.asarray, line.get_data())
    if label.startswith("_") or not len(x):
        return 0
    series = [row for row in rows if row["series"] == label]
    marks = {row["mark"] for row in series}
    if marks & {"vertical", "horizontal"}:
        values = floats(series, "x" if "vertical" in marks else "y")
        assert (x if "vertical" in marks else y)[0] in values
        return 1
    drawn = np.stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)], axis=1)
    if marks == {"rim"}:
        drawn[:, 1] = np.nan
    stored = np.stack([floats(series, "x"), floats(series, "y")], axis=1)
    known = {tuple(np.nan_to_num(point, nan=-7.0)) for point in stored}
    assert all(tuple(np.nan_to_num(point, nan=-7.0)) in known for point in drawn)
    return len(drawn)


@pytest.mark.parametrize("name", FIGURES)
def test_same_results_same_csv(store, drawn, tmp_path, without_images, name):
    again = figure(name).draw(store, tmp_path)
    for one, two in zip(drawn[name][2::3], again[2::3], strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_same_results_same_images(store, drawn, tmp_path):
    again = figure("bias_drift_objective").draw(store, tmp_path)
    for one, two in zip(drawn["bias_drift_objective"], again, strict=True):
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_missing_results(tmp_path, name):
    module = figure(name)
    for output in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=f"linattn run simulations/{module.KIND}.py"):
            module.draw(output, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("name", FIGURES)
def test_summary_names_every_regime_or_rule(store, name):
    words = figure(name).summary(store)
    wanted = ("profile", "observable", "certified") if name == "freeze_rule" else ("0.3",)
    assert all(word in words for word in wanted)


def test_decomposition_is_the_median_of_stored_parts(store, drawn):
    rows = table(drawn["bias_drift_decomposition"][2])
    runs = load_results(store, "bias_drift", where={"problem.covariate_heterogeneity": 0.0})
    here = [row for row in rows if row["panel"] == "target 1.5, covariate 0, E = 4"]
    names = {"kernel bias": "kernel_bias", "value drift: frozen floor": "value_floor"}
    for series, name in names.items():
        values = np.stack([run.dataset[name].sel(local_steps=4).values for run in runs])
        kept = [row for row in here if row["series"] == series]
        np.testing.assert_array_equal(floats(kept, "y"), np.median(values, axis=0))
        np.testing.assert_allclose(floats(kept, "high"), np.quantile(values, 0.9, axis=0))
    total = floats([r for r in here if r["series"].startswith("final loss")], "y")
    values = np.stack(
        [run.dataset["objective"].sel(local_steps=4) - run.dataset["reference"] for run in runs]
    )
    np.testing.assert_array_equal(total, np.median(values, axis=0))


def test_looseness_is_in_the_csv(store, drawn):
    rows = table(drawn["certificate"][5])
    run = load_results(store, "certificate", where={"problem.covariate_heterogeneity": 0.0})
    values = [float(r.dataset["looseness"].sel(local_steps=4)) for r in run]
    kept = [
        r
        for r in rows
        if r["series"] == "looseness (1)" and r["panel"].endswith("covariate 0, E = 4")
    ]
    assert float(kept[0]["y"]) == pytest.approx(np.median(values), rel=1e-12)


@pytest.mark.parametrize("name", ["bias_drift_decomposition", "bias_drift_objective"])
def test_unstable_entries_are_not_drawn(store, drawn, name):
    rows = table(drawn[name][2])
    runs = load_results(store, "bias_drift", where={"problem.covariate_heterogeneity": 0.3})
    objective = np.stack([run.dataset["objective"].sel(local_steps=4) for run in runs])
    finite = (objective < DIVERGED).all(axis=0)
    assert finite.any()
    assert not finite.all()
    here = [row for row in rows if row["panel"] == "target 1.5, covariate 0.3, E = 4"]
    total = [row for row in here if row["series"].startswith(("final loss", "FedFrozen"))]
    assert [bool(row["y"]) for row in total] == finite.tolist()
    assert "inf" not in {row[name] for row in total for name in ("y", "low", "high")}
    rim = [row for row in here if row["mark"] == "rim"]
    np.testing.assert_array_equal(floats(rim, "x"), floats(total, "x")[~finite])


def test_spread_counts_unstable_seeds_as_worst():
    middle, (low, high) = spread(np.array([[1.0, 1.0], [3.0, np.inf], [2.0, np.inf]]))
    np.testing.assert_array_equal(middle, [2.0, np.inf])
    np.testing.assert_array_equal(high[1], np.inf)
    np.testing.assert_allclose([low[0], high[0]], np.quantile([1.0, 2.0, 3.0], [0.1, 0.9]))


def test_regimes_leave_out_the_seed(store):
    found = regimes(load_results(store, "freeze_rule"))
    assert [regime.label for regime in found] == [
        "target 1.5, covariate 0",
        "target 1.5, covariate 0.3",
    ]
    assert [regime.seeds for regime in found] == [2, 2]
    assert found[0].values("objective").shape == (2, 2, 7)


def test_words():
    assert in_words([]) == "none"
    assert in_words([1e-15]) == "0"
    assert number(float("nan")) == "undefined"
    assert [power(value) for value in (0.0, 1e-3, -10.0)] == ["0", "10⁻³", "−10"]


def test_modules_do_not_import_matplotlib():
    folder = find_folder("figures")
    for name in FIGURES:
        text = Path(folder / f"{name}.py").read_text(encoding="utf-8")
        assert "\nimport matplotlib" not in text
        assert "\nfrom matplotlib" not in text
