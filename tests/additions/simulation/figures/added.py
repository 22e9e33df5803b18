"""Squared entries of the added simulation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from linattn.experiments.find import PageLook
from linattn.experiments.store import Result
from linattn.report.canvas import Page

NAME = "added"
SIMULATION = "added"


def draw(results: Sequence[Result], folder: Path, look: PageLook) -> list[Path]:
    """Draw the figure of stored results into `folder`; return its files."""
    page = Page(NAME, "Squared entries of a normal vector.", summary(results).splitlines())
    values = np.stack([result.dataset["squared"].values for result in results])
    panel = page.panel("squares", "entry (1)", "square (1)")
    panel.curve("measured", np.arange(values.shape[1]), values)
    return page.save(folder, look)


def summary(results: Sequence[Result]) -> str:
    """Return their number."""
    return f"{len(results)} runs"
