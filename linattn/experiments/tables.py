"""Datasets that runs return, built from rows, each variable with its unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from linattn._typing import Array
from linattn.objectives.reference import Reference

if TYPE_CHECKING:
    import xarray as xr

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
