"""Figures that the record keeps, with where the runs in them come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linattn.experiments.find import PageLook, find_script, load_figure
from linattn.experiments.store import Result


def origin(runs: Sequence[Result]) -> dict[str, Any]:
    """Return how many runs there are, and every provenance among them once."""
    made = sorted({json.dumps(run.provenance, sort_keys=True) for run in runs})
    return {"runs": len(runs), "made by": [json.loads(text) for text in made]}


def keep(name: str, runs: Sequence[Result], folder: Path) -> None:
    """Draw a figure of runs into a folder, but for PDFs, which its CSV and JSON give again."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in load_figure(find_script(name, "figures")).draw(runs, folder, PageLook()):
        if path.suffix == ".pdf":
            path.unlink()
    text = json.dumps({"simulation": name, **origin(runs)}, indent=1, sort_keys=True) + "\n"
    (folder / f"{name}_provenance.json").write_text(text, encoding="utf-8")
