"""The record of freezing against never freezing, both tuned: whole."""

from linattn.experiments.specs import WORLDS
from scripts import module

SCRIPT = module("tuned_findings", "scripts")
EVERYBODY = "equal rounds, all clients"


def test_every_regime_is_there_and_intervals_hold_their_median():
    rows = [row for row in SCRIPT.rows() if row["budget"] == EVERYBODY]
    assert len({row["world"] for row in rows}) == len(WORLDS)
    assert len(rows) == 4 * len(WORLDS)
    for row in rows:
        low, middle, high = (float(row[name]) for name in ("low", "over FedAvg", "high"))
        assert low <= middle <= high
