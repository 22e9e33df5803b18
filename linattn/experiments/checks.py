"""Claims judged on what simulations stored: the measured and the analytical number of every run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from linattn._typing import Array

if TYPE_CHECKING:
    from linattn.claims import Verdict

SOURCE = "stored results"
FORMULA_BUDGET = 1e-12
"""Of statements about long runs of matrix recursions, relative to the numbers compared."""
Column = tuple[Any, Any, Any]
"""Measured, analytical, and the sum of the |terms|; arrays of any shapes that broadcast."""


def worst(
    name: str,
    statement: str,
    kind: str,
    columns: Iterable[Column],
    budget: float = 1e-10,
) -> Verdict:
    """Judge the worst of many entries, each (measured, analytical, sum of the |terms|).

    Entries that are not finite are left out: they are past a divergence, which is stored as such.
    Those of rounding decide only where there are no others, or where they violate the claim.
    """
    from linattn.claims import Claim, Measurement, judge

    def flat(position: int) -> Array:
        return np.concatenate([np.ravel(np.broadcast_arrays(*c)[position]) for c in listed])

    listed = list(columns)
    measured, bound, scale = flat(0), flat(1), flat(2)
    usable = np.isfinite(measured) & np.isfinite(bound) & np.isfinite(scale)
    measured, bound, scale = measured[usable], bound[usable], scale[usable]
    sign = {"upper": measured - bound, "lower": bound - measured}
    excess = sign.get(kind, np.abs(measured - bound)) / np.where(scale > 0.0, scale, 1.0)
    size = np.maximum(abs(measured), abs(bound)) if kind == "identity" else abs(measured)
    telling = (size > budget * scale) | (excess > budget)
    ranked = np.where(telling | ~telling.any(), excess, -np.inf)
    at = int(np.argmax(ranked)) if len(ranked) else -1
    triple = [float(v[at]) if at >= 0 else 0.0 for v in (measured, bound, scale)]
    measurement = Measurement(triple[0], triple[1], triple[2])
    claim = Claim(name, statement, kind, SOURCE, lambda _: measurement, budget=budget)
    return judge(claim, measurement)
