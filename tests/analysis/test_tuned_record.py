"""The record of freezing against never freezing, both tuned: whole, and what the notes say."""

from pages import told

from linattn.experiments.specs import WORLDS
from linattn.report.canvas import read_page
from scripts import module

SCRIPT = module("tuned_findings", "scripts")
EVERYBODY = "equal rounds, all clients"


def test_the_notes_say_what_the_record_says():
    assert told("tuned") == SCRIPT.findings()


def test_every_regime_is_there_and_intervals_hold_their_median():
    rows = [row for row in SCRIPT.rows() if row["budget"] == EVERYBODY]
    assert len({row["world"] for row in rows}) == len(WORLDS)
    assert len(rows) == 4 * len(WORLDS)
    for row in rows:
        low, middle, high = (float(row[name]) for name in ("low", "over FedAvg", "high"))
        assert low <= middle <= high


def test_the_figure_is_drawn_again_from_the_record(tmp_path, monkeypatch):
    monkeypatch.setattr("linattn.report.draw.images", lambda page, look: {})
    pages = sorted(SCRIPT.FOLDER.glob("step_size*.json"))
    for source in [path for path in pages if not path.stem.endswith("provenance")]:
        for path in read_page(source).save(tmp_path, None):
            assert path.read_bytes() == (SCRIPT.FOLDER / path.name).read_bytes()
