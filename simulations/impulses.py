"""How many measurements of drift a prediction needs: error against impulses (C23, C24).

One run of FedAvg against its prediction at several tolerances, and against passes along the
centralized path. Run ``python simulations/impulses.py --preset quick``; results go to
``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import linattn as la
from linattn._fields import Index, Positive
from linattn.analysis.regret import has_tradeoff
from linattn.experiments import Simulation
from linattn.experiments.predictions import PredictedSpec, Tables, compared, path_error, spent
from linattn.experiments.specs import FACTORED, WORLDS, distinct, increasing, regimes
from linattn.experiments.tables import along, single

if TYPE_CHECKING:
    import xarray as xr

UNITS = {"predicted_star": "rounds", "rounds": "rounds", "num_impulses": "1"}


class ImpulsesSpec(PredictedSpec):
    """A run predicted at some tolerances (C24), and by some numbers of passes (C23)."""

    tolerances: tuple[Positive, ...] = (0.1, 0.03, 0.01, 0.003, 0.001)
    passes: tuple[Index, ...] = (0, 1, 2, 3)
    pass_tolerance: Positive = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("tolerances", self.tolerances)
        increasing("passes", self.passes)


def run(spec: ImpulsesSpec) -> xr.Dataset:
    """Return errors and impulses of every prediction.

    Dimensions `tolerance` and, with the prefix ``pass_``, `passes` (0: the centralized path).
    ``worst_error`` is that of the curve over warm-up lengths relative to its excess, ``path_error``
    the largest ‖θ̂ − θ‖/‖θ‖ over rounds, ``regret`` that of T̂, ``num_impulses`` with rejected ones,
    of a pass those of all passes before it, too.
    """
    import xarray as xr

    tables = spec.tables()
    path = tables.measured_path()
    measured = tables.along(path)
    rows = [_row(tables, path, measured, tables.predicted_run(t)) for t in spec.tolerances]
    passed, total = [], 0
    for count in range(spec.passes[-1] + 1):
        found = tables.predicted_run(spec.pass_tolerance, passes=count)
        row = _row(tables, path, measured, found)
        total += row["num_impulses"]
        if count in spec.passes:
            passed.append({f"pass_{name}": value for name, value in row.items()}
                          | {"pass_num_impulses": total})  # fmt: skip
    values = {"rounds": tables.rounds, "tradeoff": has_tradeoff(measured)}
    data = along("tolerance", rows, UNITS) | along("passes", passed, UNITS) | single(values, UNITS)
    return xr.Dataset(data, {"tolerance": list(spec.tolerances), "passes": list(spec.passes)})


def _row(
    tables: Tables, path: list[la.Params], measured: xr.Dataset, found: la.PredictedRun
) -> dict[str, Any]:
    return compared(measured, tables.along(found.path)) | {
        "path_error": path_error(path, found.path),
        "num_impulses": spent(found),
    }


MAIN = [(0.75, 0.3)]
EQUAL = [(0.02, 51), (0.02, 10), (0.01, 10), (0.005, 10)]
"""59, 300, 600 and 1,200 rounds at equal horizon."""

SIMULATION = Simulation(
    ImpulsesSpec,
    run,
    presets={
        "paper": [
            *regimes(ImpulsesSpec(), [*EQUAL, (0.0025, 10)], seeds=10, worlds=MAIN),
            *regimes(ImpulsesSpec(), [(0.02, 10)], seeds=3, worlds=WORLDS[1:3]),
            *regimes(ImpulsesSpec(initial=FACTORED), [(0.02, 10)], seeds=10, worlds=MAIN),
        ],
        "quick": regimes(
            ImpulsesSpec(tolerances=(0.1, 0.03, 0.01, 0.003), num_lengths=40, num_starts=4),
            [(0.02, 51), (0.02, 10), (0.01, 10)],
            worlds=MAIN,
        ),
        "tiny": regimes(
            ImpulsesSpec(horizon=5.0, passes=(0, 1), num_lengths=10, num_starts=1),
            [(0.02, 11)],
            worlds=MAIN,
        ),
    },
)


if __name__ == "__main__":
    SIMULATION.main()
