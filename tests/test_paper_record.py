"""The figures that the record keeps: drawn again from it, and with where their runs come from."""

import json

import pytest
from pages import RECORD

from linattn.experiments.find import find_scripts, load_figure
from linattn.report.canvas import read_page
from scripts import module

SCRIPT = module("paper_record", "scripts")
FOLDER = RECORD / "paper"
ORIGINS = sorted(FOLDER.glob("*_provenance.json"))
PAGES = sorted(set(FOLDER.glob("*.json")) - set(ORIGINS))


@pytest.mark.parametrize("source", PAGES, ids=lambda path: path.stem)
def test_a_figure_is_drawn_again_from_the_record(source, tmp_path, monkeypatch):
    """Read and saved again, a page is its files there to the byte; images aside."""
    monkeypatch.setattr("linattn.report.draw.images", lambda page, look: {})
    for path in read_page(source).save(tmp_path, None):
        assert path.read_bytes() == source.with_name(path.name).read_bytes()
    assert source.with_suffix(".png").stat().st_size > 10_000


def test_every_figure_has_its_origin_and_the_record_stays_small():
    named = {path.name.removesuffix("_provenance.json") for path in ORIGINS}
    assert all(any(page.stem.startswith(name) for name in named) for page in PAGES)
    for path in ORIGINS:
        held = json.loads(path.read_text(encoding="utf-8"))
        assert held["runs"] > 0
        assert all({"numerics", "script", "versions"} <= made.keys() for made in held["made by"])
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 10e6


def test_the_table_of_runs_has_the_runs_of_every_figure():
    listed = {row["simulation"]: int(row["runs"]) for row in SCRIPT.read_rows(SCRIPT.RUNS)}
    drawn = {figure.name: figure for figure in map(load_figure, find_scripts("figures"))}
    for path in ORIGINS:
        held = json.loads(path.read_text(encoding="utf-8"))
        assert drawn[held["figure"]].simulation == held["simulation"]
        assert held["runs"] <= listed[held["simulation"]]
