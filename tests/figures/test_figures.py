"""All figures: files, numbers of the CSV, redrawing, diverged runs, what summaries state."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import linattn as la
from linattn.data.worlds import InitialSpec, ProblemSpec
from linattn.experiments import load_results
from linattn.experiments.find import PageLook, find_scripts, load_figure
from linattn.experiments.specs import WorldSpec
from linattn.experiments.store import Result
from linattn.federated.methods.table import METHODS
from linattn.report import draw as drawing
from linattn.report.canvas import FEW_SEEDS, MOST_PANELS, Axis, Page, log, read_page
from linattn.report.groups import groups
from linattn.report.looks import LOOKS, looks_of
from linattn.report.regimes import excess, worlds
from linattn.report.words import bounded, in_words, mostly, number, pages, reproduced, spread
from scripts import fill, module, simulation

FIGURES = {path.stem: load_figure(path) for path in find_scripts("figures")}
LOOK = PageLook()
NOTHING = re.compile(r"\bnone\b|undefined|\bof 0\b|\bin 0( runs|;|$)", re.M)
"""What a sentence about no runs would say."""
SIZE = {"num_clients": 3, "sequences_per_client": 6, "num_tokens": 5, "dim": 3, "num_outputs": 2}
APART = [
    ProblemSpec(**SIZE, value_heterogeneity=1.5, covariate_heterogeneity=amount)
    for amount in (0.0, 0.3)
]
# With covariate heterogeneity 0.3, seed 1 is unstable and diverges.
REGIME = {"local_steps": 4, "local_lr": 0.1, "horizon": 4.8}
RUNS = {
    "bias_drift": REGIME | {"num_starts": 2},
    "certificate": REGIME | {"num_starts": 2},
    "freeze_rule": REGIME,
    "second_stage": REGIME | {"warmup_times": (0.0, 1.2, 2.4), "num_starts": 2},
    "frozen_stage": {"local_steps": (1, 4), "local_lr": 0.1, "rounds": 6, "settle_rounds": 40,
                     "warmup_rounds": 3},
    "bounds": {"warmup_rounds": 2, "local_steps": (2, 5, 40)},
    "orders": {
        "initial": InitialSpec(kernel="factored", rank=2), "warmup_rounds": 2,
        "local_steps": (2, 3, 5),
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
    """Files of every figure, drawn once; PDFs are left out for speed."""
    folder, made, image = tmp_path_factory.mktemp("figures"), {}, drawing._image
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_image", lambda f, kind: image(f, kind) if kind == "png" else b"")
        for name, figure in FIGURES.items():
            made[name] = figure.draw(load_results(store, figure.simulation), folder, LOOK)
    return made


@pytest.fixture
def without_images(monkeypatch):
    """Figures write their numbers and texts only, which is much faster."""
    monkeypatch.setattr(drawing, "images", lambda page, look: {})


def results(store, name, **where):
    return load_results(store, FIGURES[name].simulation, where=where)


def with_suffix(files, suffix):
    return [path for path in files if path.suffix == suffix and path.parent.name != "tables"]


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def floats(rows, name):
    return np.array([float(row[name]) if row[name] else np.nan for row in rows])


@pytest.mark.parametrize("name", FIGURES)
def test_files(drawn, name):
    files = drawn[name]
    assert FIGURES[name].name == name == files[0].stem
    stems = [path.stem for path in with_suffix(files, ".png")]
    for suffix in (".pdf", ".csv", ".md", ".json"):
        assert [path.stem for path in with_suffix(files, suffix)] == stems
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in with_suffix(files, ".png"))
    tables = [path for path in files if path.parent.name == "tables"]
    assert [path.suffix for path in tables] == [".csv", ".tex"] * (len(tables) // 2)


@pytest.mark.parametrize("name", FIGURES)
def test_every_page_is_fit_for_a_paper(drawn, name):
    import matplotlib.image

    for path in with_suffix(drawn[name], ".json"):
        page = read_page(path)
        assert 0 < len(page.panels) <= MOST_PANELS
        assert all("\n" not in panel.title and panel.title for panel in page.panels)
        assert len(page.findings) <= 3
        text = path.with_suffix(".md").read_text(encoding="utf-8")
        assert page.caption in text
        assert all(line in text for line in page.findings)
        width = matplotlib.image.imread(path.with_suffix(".png")).shape[1]
        assert width == 1440  # 7.2 inches at 200 dots


@pytest.mark.parametrize("name", FIGURES)
def test_a_page_is_drawn_again_from_its_csv_and_json(drawn, tmp_path, without_images, name):
    for path in with_suffix(drawn[name], ".json"):
        again = read_page(path).save(tmp_path, LOOK)
        assert {p.suffix for p in again} == {".csv", ".md", ".json"}
        for copy in again:
            assert copy.read_bytes() == path.with_suffix(copy.suffix).read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_same_results_same_csv_and_a_short_summary(store, drawn, tmp_path, without_images, name):
    held = results(store, name)
    again = FIGURES[name].draw(held, tmp_path, LOOK)
    first = with_suffix(drawn[name], ".csv")
    for one, two in zip(first, with_suffix(again, ".csv"), strict=True):
        assert one.read_bytes() == two.read_bytes()
    words = FIGURES[name].summary(held)
    assert words
    assert len(words.splitlines()) <= 3


@pytest.mark.parametrize(
    "name", [n for n, f in FIGURES.items() if f.simulation in {*RUNS, "sampled_response"}]
)
def test_sentences_without_a_tradeoff_say_so(tmp_path, without_images, name):
    """No run of the smallest preset has one."""
    held = simulation(FIGURES[name].simulation)
    fill(tmp_path, held.name, held.specs("tiny"))
    files = FIGURES[name].draw(load_results(tmp_path, held.name), tmp_path / "figures", LOOK)
    for path in with_suffix(files, ".md"):
        assert not NOTHING.search(path.read_text(encoding="utf-8").partition("\n- ")[2])


def test_worlds_that_are_not_there_are_told(tmp_path):
    held = simulation("second_stage")
    fill(tmp_path, "second_stage", [held.spec(problem=APART[0], **RUNS["second_stage"])])
    alike = load_results(tmp_path, "second_stage")
    assert FIGURES["second_stage"].summary(alike) == "covariates differ in no world"
    other = simulation("participation")
    spec = json.loads(other.task(other.spec(data="digits")).spec)
    digits = [result._replace(spec=spec) for result in alike]
    with pytest.raises(ValueError, match="runs must be of a synthetic problem too"):
        module("participation", "figures").summary(digits)


def test_captions_say_a_setting_once(drawn):
    (path,) = with_suffix(drawn["noise"], ".json")
    assert [read_page(path).caption.count(name) for name in ("η = ", "E = ")] == [1, 1]


def test_data_of_one_class_are_called_so(tmp_path, without_images):
    items = list(np.random.default_rng(0).normal(size=(200, 3, 2)))
    names = {"class_names": ["only"], "channel_names": ["a", "b"]}
    la.save_dataset(tmp_path / "one.npz", items, np.zeros(200, int), **names)
    held = simulation("real_data")
    setting = {"dataset": str(tmp_path / "one.npz"), "split": "iid", "alpha": None, "rounds": 2,
               "factors": (1.0,), "warmup_shares": (0.5,), "classifiers": ()}  # fmt: skip
    fill(tmp_path, held.name, [held.spec(**setting)])
    found = load_results(tmp_path, held.name)
    assert "all is right, as with one class, in one" in FIGURES["real_data"].summary(found)
    files = FIGURES["real_data"].draw(found, tmp_path, LOOK)
    assert read_page(with_suffix(files, ".json")[0]).panels[0].x.high == 100.0


def test_a_band_without_an_upper_edge_is_filled_to_the_top():
    page, x = Page("open"), np.array([1.0, 2.0, 3.0])
    panel = page.panel("one", "x", log("y"))
    seeds = np.full((FEW_SEEDS, 3), 2.0) + np.arange(FEW_SEEDS)[:, None]
    seeds[0, 2] = np.inf
    panel.curve("fed_avg", x, seeds)
    (axes,) = drawing.drawn(page, 7.2).axes
    assert len(axes.collections) == 2
    tops = [max(path.vertices[:, 1].max() for path in c.get_paths()) for c in axes.collections]
    assert tops == [pytest.approx(np.quantile(seeds[:, 1], 0.9)), axes.get_ylim()[1]]


@pytest.mark.parametrize("ends", [(0.97, 1.12), (16, 23), (2e-5, 3e-4), (3e4, 8e4), (0.3, 0.34)])
def test_logarithmic_axes_have_two_labels(ends):
    page = Page("narrow")
    page.panel("one", log("x"), log("y")).add("line", "fed_avg", ends, ends)
    figure = drawing.drawn(page, 7.2)
    figure.canvas.draw()
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        low, high = axis.get_view_interval()
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        shown = [t.label1.get_text() for t in ticks if low <= t.get_loc() <= high]
        assert len([text for text in shown if text]) >= 2


def test_what_is_drawn_is_what_the_csv_says():
    page, x = Page("every"), np.array([1.0, 2.0, 3.0])
    panel = page.panel("one", log("x"), Axis("y", low=0.0, high=9.0))
    seeds = np.array([[3.0, 1.0, 2.0 + k] for k in range(FEW_SEEDS)])
    panel.curve("fed_avg", x, seeds)
    panel.curve("scaffold", x, seeds[:2])
    panel.best(x, seeds)
    panel.level("reference", 0.5)
    panel.rim(x, np.where(x > 2.0, np.inf, seeds))
    figure = drawing.drawn(page, 7.2)
    (axes,) = figure.axes
    assert (axes.get_xscale(), axes.get_ylim()) == ("log", (0.0, 9.0))
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(lines["FedAvg"].get_ydata(), [3.0, 1.0, 4.0])
    np.testing.assert_array_equal(lines["SCAFFOLD"].get_ydata(), seeds[0])  # a line per seed
    np.testing.assert_array_equal(lines["best length T*"].get_xydata(), [[2.0, 1.0]])
    np.testing.assert_array_equal(lines["unstable for some seeds"].get_xdata(), [3.0])
    kinds = [mark.kind for mark in panel.marks]
    assert kinds == ["line", "seed 0", "seed 1", "points", "horizontal", "rim"]
    band = panel.marks[0]
    np.testing.assert_allclose(band.low[2], np.quantile(seeds[:, 2], 0.1))
    assert len(axes.collections) == 2  # the band, and the bar of the best lengths


def test_pages_refuse_what_no_reader_can_take_in():
    page = Page("full")
    with pytest.raises(ValueError, match="title must be one line"):
        page.panel("two\nlines", "x", "y")
    for number_ in range(MOST_PANELS):
        page.panel(str(number_), "x", "y")
    with pytest.raises(ValueError, match="at most 6 panels"):
        page.panel("seven", "x", "y")


def test_files_that_do_not_belong_together_are_refused(tmp_path, without_images):
    page = Page("one")
    page.panel("a", "x", "y").add("line", "fed_avg", [1.0, 2.0], [3.0, 4.0])
    path = page.save(tmp_path, LOOK)[-1]
    rows = path.with_suffix(".csv").read_text(encoding="utf-8").splitlines()
    path.with_suffix(".csv").write_text("\n".join([*rows, rows[-1]]), encoding="utf-8")
    with pytest.raises(ValueError, match="must be of one figure: 2 and 3 rows"):
        read_page(path)


def test_same_results_same_images_with_fonts_inside(store, tmp_path):
    held = results(store, "bounds")
    first, again = (FIGURES["bounds"].draw(held, tmp_path / k, LOOK) for k in "ab")
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
    (pdf,) = with_suffix(first, ".pdf")
    content = pdf.read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"/Subtype /Image" not in content


def test_width_and_style_are_respected(store, tmp_path):
    import matplotlib as mpl
    import matplotlib.image

    style = tmp_path / "mine.mplstyle"
    style.write_text("savefig.dpi: 50\n")
    look = PageLook(str(style), 3.5)
    made = FIGURES["bounds"].draw(results(store, "bounds"), tmp_path, look)
    assert matplotlib.image.imread(made[0]).shape[1] == 175
    with mpl.rc_context({"lines.linewidth": 4.0, "axes.grid": True}), drawing.style_of(LOOK):
        assert mpl.rcParams["lines.linewidth"] == 4.0  # set by the user
        assert mpl.rcParams["savefig.dpi"] == drawing.RC["savefig.dpi"]
    page = Page("colours")
    page.panel("a", "x", "y").curve("fed_avg", [0.0, 1.0], [[1.0, 2.0]])
    with mpl.rc_context({"axes.prop_cycle": mpl.cycler(color=["#123456", "#654321"])}):
        (axes,) = drawing.drawn(page, 7.2).axes
    assert axes.lines[0].get_color() == "#123456"


@pytest.mark.parametrize("name", COMPARISONS)
def test_diverged_runs_are_drawn_as_far_as_they_go(tmp_path, without_images, name):
    held = simulation(FIGURES[name].simulation)
    fill(tmp_path, held.name, held.specs("tiny", {"factors": [1e9], "seed": [0, 1]}))
    found = load_results(tmp_path, held.name)
    assert FIGURES[name].draw(found, tmp_path / "figures", LOOK)
    assert FIGURES[name].summary(found)


def test_the_outcome_is_computed(store, monkeypatch):
    """Swapping the two ways of training in the stored numbers turns the verdict around."""
    figure, held = module("update_jump", "figures"), results(store, "update_jump")
    assert "vanishes for one block of one layer: reproduced in both worlds" in figure.summary(held)
    monkeypatch.setattr(figure, "_mismatch", lambda world, variant: np.ones(2))
    assert "is not reproduced in any" not in figure.summary(held).splitlines()[2]
    assert "not reproduced in any of 2 worlds" in figure.summary(held).splitlines()[2]


def test_curves_of_few_seeds_are_the_stored_numbers(store, drawn):
    (path,) = with_suffix(drawn["bias_drift_objective"], ".csv")
    rows = [row for row in table(path) if row["panel"] == "target 1.5, covariate 0"]
    world = worlds(results(store, "bias_drift_objective"))[0]
    for seed, values in enumerate(excess(world)):
        kept = [row for row in rows if row["mark"] == f"seed {seed}"]
        np.testing.assert_array_equal(floats(kept, "y"), values)
    stars = [row for row in rows if row["series"] == LOOKS["oracle"].label]
    np.testing.assert_array_equal(floats(stars, "y"), excess(world).min(axis=1))


def test_unstable_entries_are_not_drawn(store, drawn):
    (path,) = with_suffix(drawn["bias_drift_objective"], ".csv")
    rows = [row for row in table(path) if row["panel"] == "target 1.5, covariate 0.3"]
    world = worlds(results(store, "bias_drift_objective"))[1]
    lost = ~np.isfinite(bounded(excess(world)))
    assert lost.any()
    assert not lost.all()
    for seed, row in enumerate(lost):
        kept = [r for r in rows if r["mark"] == f"seed {seed}"]
        assert [not r["y"] for r in kept] == row.tolist()
    assert "inf" not in {row[name] for row in rows for name in ("y", "low", "high")}


def test_tightness_is_sorted_by_its_median(store):
    shown = module("tightness", "figures").rows(results(store, "tightness"))
    medians = [float(np.median(r.tightness)) for r in shown if r.tightness.size]
    assert medians == sorted(medians)


def test_argmin_figure_has_a_point_per_run(store, drawn):
    held = results(store, "certificate_argmin")
    lines = table(with_suffix(drawn["certificate_argmin"], ".csv")[0])
    points = [r for r in lines if r["panel"].startswith("argmin") and r["series"] == "merged"]
    scale = REGIME["local_lr"] * REGIME["local_steps"]
    kept = [r.dataset for r in held if r.dataset["warmup_star"] >= 0]
    expected = sorted(scale * float(d["argmin_certificate"]) for d in kept)
    np.testing.assert_allclose(sorted(floats(points, "y")), expected)


def test_real_data_figure_and_table_hold_the_stored_numbers(store, drawn):
    paths = drawn["real_data"]
    held = {world.label: world for world in groups(results(store, "real_data"))}
    rows = table(next(p for p in paths if p.name == "real_data_table.csv"))
    assert len(rows) == 4 * len(held)
    for row in rows[::4]:
        accuracy = 100.0 * held[row["data"]].values("test_accuracy", method="fed_avg")
        assert row["accuracy (%)"] == in_words(accuracy)
    curves = table(next(p for p in paths if p.name == "real_data_rounds.csv"))
    world = next(iter(held.values()))
    kept = [r for r in curves if r["panel"] == world.label and r["series"] == "FedFrozen"]
    expected = 100.0 * world.values("accuracy_rounds", method="fed_frozen")[0]
    np.testing.assert_allclose(floats(kept, "y"), expected)


def test_slopes_are_the_published_exponents(store):
    figure = module("orders", "figures")
    for world in groups(results(store, "orders")):
        for name, order in figure.ORDERS.items():
            for by_step in (True, False):
                slope = figure.slopes(world, name, by_step=by_step)
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
    assert found[0].values("objective").shape == (2, 13)
    spread_along = "problem.kernel_heterogeneity"
    (along,) = groups(load_results(store, "personal_attention"), spread_along)
    assert along.seeds == 4
    assert [part.seeds for part in along.split(spread_along)] == [2, 2]


def test_every_setting_of_every_preset_has_a_label_of_its_own():
    for name in {figure.simulation for figure in FIGURES.values()}:
        held = simulation(name)
        for preset in held.presets:
            specs = [json.loads(task.spec) for task in held.tasks(preset)]
            found = groups([Result(spec, None, {}, Path()) for spec in specs])
            assert len({group.label for group in found}) == len(found), (name, preset)


def test_every_method_has_a_look_of_its_own():
    looks = looks_of(METHODS)
    assert len({(look.colour, look.line, look.marker) for look in looks.values()}) == len(METHODS)
    assert all(looks[name].label == row.label for name, row in METHODS.items())
    own = looks_of(["fed_avg", "my_method", "another"])
    assert own["my_method"].label == "my method"
    assert len({look[1:] for look in own.values()} | {look[1:] for look in LOOKS.values()}) >= (
        len({look[1:] for look in LOOKS.values()}) + 1
    )


def test_words():
    assert in_words([]) == "undefined"
    assert in_words([1e-15]) == "0"
    assert number(float("nan")) == "undefined"
    assert reproduced([]) == "not tested"
    assert reproduced([False, False]) == "not reproduced in any of 2 worlds"
    assert mostly([True, True, False]) is False
    assert [list(p) for p in pages([1, 2, 3], 2)] == [[1, 2], [3]]


def test_modules_do_not_import_matplotlib():
    for figure in FIGURES.values():
        text = figure.path.read_text(encoding="utf-8")
        assert "\nimport matplotlib" not in text
        assert "\nfrom matplotlib" not in text
