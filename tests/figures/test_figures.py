"""All figures: files, exactly the drawn numbers in the CSV, diverged runs, what captions state."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from linattn.report.marks import DIVERGED, power
from linattn.report.style import PageLook, Sheet

from linattn.data.worlds import InitialSpec, ProblemSpec
from linattn.experiments import load_results
from linattn.experiments.find import find_scripts, load_figure
from linattn.experiments.specs import WorldSpec
from linattn.experiments.store import Result
from linattn.federated.methods.table import METHODS
from linattn.report.groups import groups
from linattn.report.looks import LOOKS
from linattn.report.words import in_words, mostly, number, pages, reproduced, spread
from scripts import fill, module, simulation

FIGURES = {path.stem: load_figure(path) for path in find_scripts("figures")}
LOOK = PageLook()
SIZE = {"num_clients": 3, "sequences_per_client": 6, "num_tokens": 5, "dim": 3, "num_outputs": 2}
APART = [
    ProblemSpec(**SIZE, value_heterogeneity=1.5, covariate_heterogeneity=amount)
    for amount in (0.0, 0.3)
]
# With covariate heterogeneity 0.3 and E = 4, seed 1 is unstable and diverges.
SHORT = {"local_steps": (1, 4), "local_lr": 0.1}
RUNS = {
    "bias_drift": SHORT | {"rounds": 12, "num_lengths": 6, "num_starts": 2},
    "frozen_stage": SHORT | {"rounds": 6, "settle_rounds": 40, "warmup_rounds": 3},
    "certificate": SHORT | {"rounds": 5, "num_starts": 2},
    "freeze_rule": SHORT | {"rounds": 6},
    "bounds": {"rounds": 2, "local_steps": (2, 5, 40)},
    "orders": {
        "initial": InitialSpec(kernel="factored", rank=2), "rounds": 2, "local_steps": (2, 3, 5),
    },
}  # fmt: skip
COMPARISONS = [
    n for n, f in FIGURES.items() if issubclass(simulation(f.simulation).spec, WorldSpec)
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A few small runs of every simulation."""
    folder = tmp_path_factory.mktemp("store")
    for name in {figure.simulation for figure in FIGURES.values()}:
        held = simulation(name)
        if name in RUNS:
            pairs = [(problem, seed) for problem in APART for seed in (0, 1)]
            specs = [held.spec(seed=s, problem=p, **RUNS[name]) for p, s in pairs]
        else:
            specs = held.specs("tiny")
        fill(folder, name, specs)
    return folder


@pytest.fixture(scope="module")
def drawn(store, tmp_path_factory):
    """Files and sheets of every figure, drawn once; PDFs are left out for speed."""
    folder, sheets, save, image = tmp_path_factory.mktemp("figures"), [], Sheet.save, Sheet._image
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sheet, "save", lambda self, out: sheets.append(self) or save(self, out))
        patch.setattr(Sheet, "_image", lambda s, kind: image(s, kind) if kind == "png" else b"")
        for name, figure in FIGURES.items():
            first = len(sheets)
            files = figure.draw(load_results(store, figure.simulation), folder, LOOK)
            made[name] = (files, sheets[first:])
    return made


@pytest.fixture
def without_images(monkeypatch):
    """Figures write their CSV only, which is much faster."""
    monkeypatch.setattr(Sheet, "_arrange", lambda self: None)
    monkeypatch.setattr(Sheet, "_image", lambda self, suffix: b"")


def results(store, name, **where):
    return load_results(store, FIGURES[name].simulation, where=where)


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def floats(rows, name):
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


def caption_of(sheet):
    return " ".join(sheet.figure.get_suptitle().split()).replace("\u00a0", " ")


@pytest.mark.parametrize("name", FIGURES)
def test_files(drawn, name):
    files, sheets = drawn[name]
    assert FIGURES[name].name == name == files[0].stem
    assert [path.suffix for path in files] == [".png", ".pdf", ".csv"] * len(sheets)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files[::3])


@pytest.mark.parametrize("name", FIGURES)
def test_csv_is_what_is_drawn(drawn, name):
    """Every labelled line of every panel has its numbers in the CSV, and nothing else is there."""
    files, sheets = drawn[name]
    for sheet, path in zip(sheets, files[2::3], strict=True):
        rows = table(path)
        assert all(row["panel"] and row["x_label"] for row in rows)
        count = 0
        for axes, panel in sheet.panels.items():
            here = [row for row in rows if row["panel"] == panel.title]
            count += sum(compared(line, here) for line in axes.lines)
        assert count > 5


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
def test_same_results_same_csv_and_a_summary(store, drawn, tmp_path, without_images, name):
    held = results(store, name)
    again = FIGURES[name].draw(held, tmp_path, LOOK)
    for one, two in zip(drawn[name][0][2::3], again[2::3], strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert FIGURES[name].summary(held)


def test_same_results_same_images(store, tmp_path):
    held = results(store, "bounds")
    first, again = (FIGURES["bounds"].draw(held, tmp_path / k, LOOK) for k in "ab")
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_width_and_style_are_respected(store, tmp_path):
    import matplotlib.image

    style = tmp_path / "mine.mplstyle"
    style.write_text("savefig.dpi: 50\n")
    look = PageLook(str(style), 3.5)
    made = FIGURES["bounds"].draw(results(store, "bounds"), tmp_path, look)
    assert matplotlib.image.imread(made[0]).shape[1] == 175


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_caption_states_the_claim_and_its_outcome(store, drawn, name):
    caption = caption_of(drawn[name][1][0])
    assert any(word in caption for word in ("Claim", "Premise", "Prediction"))
    assert "reproduced" in caption
    assert "10–90 %" in caption
    words = FIGURES[name].summary(results(store, name))
    assert "reproduced" in words
    assert "target 0" in words


@pytest.mark.parametrize("name", COMPARISONS)
def test_diverged_runs_are_drawn_as_far_as_they_go(tmp_path, without_images, name):
    held = simulation(FIGURES[name].simulation)
    fill(tmp_path, held.name, held.specs("tiny", {"local_lr": 5.0, "seed": [0, 1]}))
    found = load_results(tmp_path, held.name)
    assert FIGURES[name].draw(found, tmp_path / "figures", LOOK)
    assert FIGURES[name].summary(found)


def test_the_outcome_is_computed(store, monkeypatch):
    """Swapping the two ways of training in the stored numbers turns the verdict around."""
    figure, found = module("update_jump", "figures"), groups(results(store, "update_jump"))
    assert "vanishes for one block of one layer is reproduced in both worlds" in figure._claims(
        found
    )
    monkeypatch.setattr(figure, "_mismatch", lambda world, variant: np.ones(2))
    assert "is not reproduced in any of 2 worlds" in figure._claims(found)


def test_decomposition_is_the_median_of_stored_parts(store, drawn):
    rows = table(drawn["bias_drift_decomposition"][0][2])
    runs = load_results(store, "bias_drift", where={"problem.covariate_heterogeneity": 0.0})
    here = [row for row in rows if row["panel"] == "target 1.5, covariate 0, E = 4"]
    names = {"kernel bias": "kernel_bias", "value drift: frozen floor": "value_floor"}
    for series, name in names.items():
        values = np.stack([run.dataset[name].sel(local_steps=4).values for run in runs])
        kept = [row for row in here if row["series"] == series]
        np.testing.assert_array_equal(floats(kept, "y"), np.median(values, axis=0))
        np.testing.assert_allclose(floats(kept, "high"), np.quantile(values, 0.9, axis=0))


def test_looseness_is_in_the_csv(store, drawn):
    rows = table(drawn["certificate"][0][5])
    run = load_results(store, "certificate", where={"problem.covariate_heterogeneity": 0.0})
    values = [float(r.dataset["looseness"].sel(local_steps=4)) for r in run]
    kept = [r for r in rows if r["series"] == "looseness (1)"]
    (own,) = [r for r in kept if r["panel"].endswith("covariate 0, E = 4")]
    assert float(own["y"]) == pytest.approx(np.median(values), rel=1e-12)


@pytest.mark.parametrize("name", ["bias_drift_decomposition", "bias_drift_objective"])
def test_unstable_entries_are_not_drawn(store, drawn, name):
    rows = table(drawn[name][0][2])
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


def test_tightness_is_sorted_by_its_median(store, drawn):
    shown = module("tightness", "figures").rows(results(store, "tightness"))
    medians = [float(np.median(r.tightness)) for r in shown if r.tightness.size]
    assert medians == sorted(medians)
    lines = [row for row in table(drawn["tightness"][0][2]) if row["series"] == "proved here"]
    assert set(floats(lines, "x")) <= set(medians)


def test_argmin_figure_has_a_point_per_run(store, drawn):
    figure, held = module("certificate_argmin", "figures"), results(store, "certificate_argmin")
    runs = figure.collect(groups(held))
    assert sorted(runs.argmin.tolist()) == sorted(
        int(a) for result in held for a in result.dataset["argmin_certificate"].values
    )
    lines = table(drawn["certificate_argmin"][0][2])
    first = [r for r in lines if r["panel"].startswith("argmin") and r["series"] == "merged"]
    assert floats(first, "y").tolist() == runs.argmin[runs.oracle >= 0].tolist()


def test_real_data_figure_holds_the_stored_numbers(store, drawn):
    rows = table(drawn["real_data"][0][2])
    kept = [
        row
        for row in rows
        if row["panel"] == "watch, one side tested: test accuracy"
        and row["series"] == "FedFrozen(T), E = 5"
    ]
    (result,) = load_results(store, "real_data", where={"data": "watch"})
    data = result.dataset.sel(local_steps=5)
    assert floats(kept, "x").tolist() == data.warmup.values.tolist()
    np.testing.assert_allclose(floats(kept, "y"), 100 * data.test_accuracy)
    best = int(data.objective.values[:-1].argmin())
    gain = 100 * float(data.test_accuracy[best] - data.test_accuracy[-1])
    last = FIGURES["real_data"].summary(results(store, "real_data")).splitlines()[-1]
    assert f"FedFrozen({data.warmup.values[best]}) − FedAvg {gain:.3g} (" in last


def test_slopes_are_the_published_exponents(store):
    figure = module("orders", "figures")
    for regime in groups(results(store, "orders")):
        for name, order in figure.ORDERS.items():
            for by_step in (True, False):
                slope = figure.slopes(regime, name, by_step=by_step)
                assert np.median(slope) == pytest.approx(order.exponent, abs=0.05), (name, by_step)


def test_spread_counts_unstable_seeds_as_worst():
    middle, (low, high) = spread(np.array([[1.0, 1.0], [3.0, np.inf], [2.0, np.inf]]))
    np.testing.assert_array_equal(middle, [2.0, np.inf])
    np.testing.assert_array_equal(high[1], np.inf)
    np.testing.assert_allclose([low[0], high[0]], np.quantile([1.0, 2.0, 3.0], [0.1, 0.9]))


def test_groups_leave_out_the_seed(store):
    found = groups(load_results(store, "freeze_rule"))
    assert [g.label for g in found] == ["target 1.5, covariate 0", "target 1.5, covariate 0.3"]
    assert [g.seeds for g in found] == [2, 2]
    assert found[0].values("objective").shape == (2, 2, 7)
    spread_along = "problem.kernel_heterogeneity"
    (along,) = groups(load_results(store, "personal_attention"), along=spread_along)
    assert along.seeds == 4


def test_every_setting_of_every_preset_has_a_label_of_its_own():
    for name in {figure.simulation for figure in FIGURES.values()}:
        held = simulation(name)
        along = "problem.kernel_heterogeneity" if name == "personal_attention" else "seed"
        for preset in held.presets:
            specs = [json.loads(task.spec) for task in held.tasks(preset)]
            found = groups([Result(spec, None, {}, Path()) for spec in specs], along=along)
            assert len({group.label for group in found}) == len(found), (name, preset)


def test_every_method_has_a_look_of_its_own():
    shown = {(LOOKS[n].colour, LOOKS[n].line, LOOKS[n].marker) for n in METHODS}
    assert len(shown) == len(METHODS)
    assert all(LOOKS[name].label == row.label for name, row in METHODS.items())


def test_words():
    assert in_words([]) == "none"
    assert in_words([1e-15]) == "0"
    assert number(float("nan")) == "undefined"
    assert [power(value) for value in (0.0, 1e-3, -10.0)] == ["0", "10⁻³", "−10"]
    assert reproduced([]) == "not tested"
    assert reproduced([False, False]) == "not reproduced in any of 2 worlds"
    assert mostly([True, True, False]) is False
    assert [list(p) for p in pages([1, 2, 3], 2)] == [[1, 2], [3]]


def test_modules_do_not_import_matplotlib():
    for figure in FIGURES.values():
        text = figure.path.read_text(encoding="utf-8")
        assert "\nimport matplotlib" not in text
        assert "\nfrom matplotlib" not in text
