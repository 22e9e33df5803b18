"""CSVs of figures as panels of a page: all numbers, looks, scales that show them."""

import csv
import math

import numpy as np
import pytest

from linattn.experiments.find import PageLook
from linattn.report.canvas import Page
from linattn.report.looks import LOOKS
from linattn.report.panels import PALETTE, Extent, Scale, range_of, read_panels, scale_of

ROUNDS = np.array([0.0, 1.0, 10.0, 200.0])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A figure with every kind of mark."""
    folder = tmp_path_factory.mktemp("figures")
    values = np.array([2.0, 1e-3, np.nan, 1e-6])
    page = Page("every")
    one, two = (page.panel(title, "round", "loss") for title in ("losses", "levels"))
    one.add("line", "fed_avg", ROUNDS, values, ends=(values / 2, values * 2))
    one.add("line", "bound", ROUNDS, 2 * values, label="a bound of one's own", line="-.")
    one.level("oracle", 10.5, upright=True)
    two.add("points", "fed_frozen", ROUNDS, [1.0, 2.0, 3.0, 4.0], ends=([0.0] * 4, [5.0] * 4))
    two.level("reference", 1.5)
    two.add("line", "kernel_bias", ROUNDS, [1.0, 2.0, 1.0, 0.5])
    page.save(folder, PageLook())
    return folder / "every.csv"


def test_every_number_of_the_csv_is_in_a_panel(drawn):
    rows = list(csv.DictReader(drawn.read_text(encoding="utf-8").splitlines()))
    panels = read_panels(drawn)
    assert [panel["title"] for panel in panels] == ["losses", "levels"]
    shown = [
        (panel["title"], series["name"], series["x"][k], series["y"][k])
        for panel in panels
        for series in panel["series"]
        for k in range(len(series["x"]))
    ]
    numbers = [(row["panel"], row["series"], *(row[k] for k in "xy")) for row in rows]
    written = [(*row[:2], *(float(v) if v else None for v in row[2:])) for row in numbers]
    assert shown == written
    (average,) = [s for s in panels[0]["series"] if s["name"] == LOOKS["fed_avg"].label]
    assert average["low"] == [1.0, 5e-4, None, 5e-7]
    assert average["band"] == "10–90 % of seeds"
    assert [s["low"] for s in panels[0]["series"] if s["name"] == "a bound of one's own"] == [[]]


def test_looks_are_those_of_the_figure_or_by_name_or_of_a_palette(drawn, tmp_path):
    alone = tmp_path / "alone.csv"
    alone.write_bytes(drawn.read_bytes())
    for path, own in ((drawn, (LOOKS["bound"].colour, "dashdot")), (alone, (PALETTE[0], "solid"))):
        series = {s["name"]: s for panel in read_panels(path) for s in panel["series"]}
        for name in ("fed_avg", "fed_frozen", "kernel_bias"):
            assert series[LOOKS[name].label]["colour"] == LOOKS[name].colour
        one = series["a bound of one's own"]
        assert (one["colour"], one["dash"]) == own
        assert series[LOOKS["oracle"].label]["colour"] == "#000000"  # the ink of a page
        assert series["FedAvg"]["symbol"] == "square"


def test_panels_of_one_label_share_their_scale(drawn):
    one, two = read_panels(drawn)
    assert one["x_scale"] == two["x_scale"] == Scale("symlog", 1.0)._asdict()
    assert one["y_scale"] == two["y_scale"]
    apart = one["series"][1]["y"], two["series"][0]["y"]
    assert [scale_of([v for v in y if v is not None]).kind for y in apart] == ["log", "linear"]


@pytest.mark.parametrize(
    ("middle", "levels", "kind"),
    [
        ([1.0, 50.0], [], "linear"),
        ([0.01, 1.0], [], "log"),
        ([0.01, 1.0], [-1.0], "linear"),  # a logarithm would lose the level
        ([0.0, 3.0, 400.0], [], "symlog"),
        ([0.0, 0.0], [], "linear"),
        ([], [], "linear"),
        ([-1e-17, 0.4, 0.5, 0.6], [], "linear"),  # rounding around 0 is no second scale
    ],
)
def test_scale(middle, levels, kind):
    assert scale_of(middle, levels).kind == kind


def test_threshold_separates_the_small_numbers():
    scale = scale_of([0.0, 1e-3, 2e-3, 5e-3, 6e-3, 0.9, 4.0, -2.0, 3e-3])
    assert scale == Scale("symlog", 1e-3)
    assert scale_of([0, 1, 5, 1000]) == Scale("symlog", 1.0)


def test_range_leaves_out_what_diverges_and_what_is_rounding():
    assert range_of(Extent([1.0, 2.0], [], [0.5, 3.0]), "linear") is None
    assert range_of(Extent([1.0, 2.0], [0.5], [1e23]), "linear") == (0.5, 2.0)
    assert range_of(Extent([1e-40, 1.0], [], []), "log") == (1e-14, 1.0)
    assert range_of(Extent([], [], [1.0]), "linear") is None
    assert range_of(Extent([0.0, 0.0], [], [1e9]), "linear") is None


def test_rows_and_stated_numbers(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(
        "panel,x_label,y_label,series,mark,x,y,low,high,band\n"
        "p,x,,FedAvg,row name,,0.0,,,\n"
        "p,x,,FedAvg,points,1.0,0.0,0.5,inf,\"10–90 % of seeds, along x\"\n"
        "p,x,,regret,text,,0.25,0.125,0.5,10–90 % of seeds\n"
        "p,x,,unstable,rim,3.0,,,,\n",
        encoding="utf-8",
    )  # fmt: skip
    (panel,) = read_panels(path)
    assert panel["row_names"] == [[0.0, "FedAvg"]]
    assert panel["stated"] == ["regret: 0.25 (0.125 to 0.5)"]
    point, rim = panel["series"]
    assert (point["sideways"], point["band"], point["high"]) == (True, "10–90 % of seeds", [None])
    assert (rim["mark"], rim["x"], rim["y"]) == ("rim", [3.0], [None])


def test_a_csv_of_something_else_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="must have the columns panel, x_label"):
        read_panels(path)


def test_seven_digits_are_kept(drawn):
    every = [v for p in read_panels(drawn) for s in p["series"] for v in s["y"] if v is not None]
    assert all(math.isclose(v, float(f"{v:.7g}"), rel_tol=0.0) for v in every)
