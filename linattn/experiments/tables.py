"""Datasets that runs return, built from rows, each variable with its unit; tables as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from linattn._typing import Array
from linattn.experiments.files import csv_bytes, open_folder, write_atomically
from linattn.objectives.reference import Reference

if TYPE_CHECKING:
    import xarray as xr

LATEX = {
    "−": "$-$", "∞": r"$\infty$", "η": r"$\eta$", "^": r"\^{}", "~": r"\~{}", "*": "$^*$",
    "≤": r"$\le$", "≥": r"$\ge$", "‖": r"$\Vert$", "Σ": r"$\Sigma$", "→": r"$\to$",
}  # fmt: skip
Variables = dict[str, tuple[Any, ...]]


def stacked(parts: Sequence[xr.Dataset], local_steps: Sequence[int]) -> xr.Dataset:
    """Return the datasets of all numbers of local steps as one, dimension `local_steps` first."""
    import xarray as xr

    coordinate = xr.DataArray(np.array(local_steps), dims="local_steps", name="local_steps")
    # Attributes of the parts differ, but every variable keeps its unit.
    bare = [xr.Dataset(part.data_vars, part.coords) for part in parts]
    return xr.concat(bare, dim=coordinate, combine_attrs="override", join="exact")


def along(dim: str, rows: Sequence[Mapping[str, Any]], units: Mapping[str, str]) -> Variables:
    """Return variables along `dim`, one entry per row, each with its unit."""
    return {
        name: (dim, np.array([row[name] for row in rows]), {"units": units.get(name, "1")})
        for name in rows[0]
    }


def single(values: Mapping[str, Any], units: Mapping[str, str]) -> Variables:
    """Return variables without dimension, each with its unit."""
    return {name: ((), value, {"units": units.get(name, "1")}) for name, value in values.items()}


def reference_variables(reference: Reference) -> Variables:
    """Return the reference value of P as variables without dimension (no bound is NaN)."""
    bound = reference.lower_bound
    values = {
        "reference": reference.value,
        "reference_lower_bound": np.nan if bound is None else bound,
        "reference_gradient_norm": reference.gradient_norm,
        "reference_certified": reference.certified,
    }
    units = {"reference_gradient_norm": "loss per parameter", "reference_certified": "1"}
    return single(values, dict.fromkeys(values, "loss") | units)


def padded(values: Array, length: int) -> Array:
    """Return a column of a run at full length, NaN after a divergence."""
    out = np.full(length, np.nan)
    out[: len(values)] = values
    return out


def write_table(
    folder: Path, name: str, head: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[Path]:
    """Write a table as CSV and as LaTeX (booktabs) into a folder and return the two paths."""
    columns = "l" * len(head)
    lines = [" & ".join(map(_latex, row)) + r" \\" for row in (head, *rows)]
    latex = "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
         r"\bottomrule", r"\end{tabular}", ""]
    )  # fmt: skip
    paths = [open_folder(folder) / f"{name}.{suffix}" for suffix in ("csv", "tex")]
    for path, content in zip(paths, (csv_bytes(head, rows), latex.encode()), strict=True):
        write_atomically(path, content)
    return paths


def _latex(cell: str) -> str:
    """The cell with what LaTeX reads as commands made plain."""
    escaped = "".join(f"\\{c}" if c in "&%$#_{}" else c for c in str(cell).replace("\\", "/"))
    for sign, words in LATEX.items():
        escaped = escaped.replace(sign, words)
    return escaped
