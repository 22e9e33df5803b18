"""What freezing at a length costs against the best one: stake and relative regret."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

TRADE_OFF = 1e-3
"""Smallest share of the gain of training the kernel that freezing must save."""


def best_length(table: xr.Dataset) -> int:
    """Return T* of a warm-up length table, −1 if no entry is stable."""
    star = table.attrs["warmup_star"]
    return -1 if star is None else int(star)


def stake(table: xr.Dataset) -> float:
    """Return (F_never − F(T*))/(F(T=0) − F(T*)): what freezing can save, of what training gains.

    Parameters
    ----------
    table : Dataset
        Of `linattn.bias_drift`, with the lengths 0 and R.

    Returns
    -------
    float
        NaN if no length is stable; +inf where never freezing diverges, or where T* = 0, training
        the kernel gains nothing, and freezing saves something.
    """
    fall, price = _fall_and_price(table)
    if np.isnan(price) or (fall > 0.0 and price < np.inf):
        return price / fall
    return float(np.inf if price > 0.0 else 0.0)


def has_tradeoff(table: xr.Dataset) -> bool:
    """Whether F_never − F(T*) is at least 1e-3 of F(T=0) − F(T*) (lengths 0 and R in the table)."""
    fall, price = _fall_and_price(table)
    return price > 0.0 and price >= TRADE_OFF * fall


def relative_regret(table: xr.Dataset, objective: float) -> float:
    """Return (F − F(T*)) / (F_never − F(T*)), NaN where there is no trade-off.

    0 is the best warm-up length, 1 is never freezing.
    """
    if not has_tradeoff(table):
        return float("nan")
    best, never = _best(table), float(table["objective"][-1])
    if not np.isfinite(never):  # against a diverging run every finite loss is the oracle's
        return 0.0 if np.isfinite(objective) else 1.0
    return (objective - best) / (never - best)


def _fall_and_price(table: xr.Dataset) -> tuple[float, float]:
    """F(T=0) − F(T*) and F_never − F(T*), NaN if no length is stable."""
    best, objective = _best(table), table["objective"].values
    best = best if np.isfinite(best) else np.nan
    return float(objective[0]) - best, float(objective[-1]) - best


def _best(table: xr.Dataset) -> float:
    return float(np.where(table["stable"], table["objective"], np.inf).min())
