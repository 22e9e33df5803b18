"""FedPart's claim: update norms jump after averaging because layers do not match.

The problem is that of the other simulations with more and smaller clients. Run
``python simulations/update_jump.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._fields import Count, Positive
from linattn._typing import Array
from linattn.analysis.outputs import relative_mismatch
from linattn.data.worlds import InitialSpec, ProblemSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import FACTORED, SMALL, TARGET, SyntheticSpec
from linattn.experiments.tables import padded
from linattn.federated.method import Proposal, observed

if TYPE_CHECKING:
    import xarray as xr

VARIANTS = ("full", "one_block", "value_only")


class UpdateJumpSpec(SyntheticSpec):
    """Norms of local updates before and after averaging: full, one block in turn, value only."""

    rounds: Count = 20
    local_steps: Count = 20
    local_lr: Positive = 0.02

    def num_steps(self) -> int:
        """Those of one run."""
        return self.rounds * self.local_steps


def run(spec: UpdateJumpSpec) -> xr.Dataset:
    """Return three ways of training, every round of each.

    Dimensions: `variant`: everything, one block at a time in turn, the value block alone (at a
    frozen kernel a convex problem in one block, where no blocks can mismatch); `round` = 1..rounds.
    ``before`` is Σ w_i‖∇F_i‖ in the trained blocks at the clients' ends, ``after`` the same at
    their average: with plain gradient steps η times these are the last update norm before averaging
    and the first one after it, on the same blocks. ``mismatch`` is that of outputs, relative.
    """
    import xarray as xr

    problem, params = spec.prepared()
    methods = {
        "full": la.fed_avg(),
        "one_block": la.fed_part(initial_rounds=0, rounds_per_group=1),
        "value_only": la.fed_frozen(warmup_rounds=0),
    }
    rows = {name: _observed(spec, problem, params, methods[name]) for name in VARIANTS}
    units = {"before": "loss per parameter", "after": "loss per parameter", "objective": "loss"}
    data: dict[str, Any] = {
        name: (
            ("variant", "round"),
            np.stack([rows[variant][name] for variant in VARIANTS]),
            {"units": units.get(name, "1")},
        )
        for name in ("before", "after", "mismatch", "objective")
    }
    return xr.Dataset(data, {"variant": list(VARIANTS), "round": np.arange(1, spec.rounds + 1)})


def _observed(
    spec: UpdateJumpSpec, problem: la.Problem, params: la.Params, method: la.Method
) -> dict[str, Array]:
    """Norms and mismatch of every round, NaN after a divergence."""
    seen: dict[str, list[float]] = {"before": [], "after": [], "mismatch": []}

    def observe(context: la.RoundContext, proposal: Proposal) -> None:
        mean = np.tile(proposal.mean, (len(proposal.ends), 1))
        for name, points in (("before", proposal.ends), ("after", mean)):
            seen[name].append(_update_norm(context, proposal, points))
        seen["mismatch"].append(relative_mismatch(context, proposal))

    result = la.run(
        observed(method, observe), problem, params, rounds=spec.rounds,
        local_steps=spec.local_steps, local_lr=spec.local_lr, metrics=("objective",),
    )  # fmt: skip
    columns = {name: padded(np.array(values), spec.rounds) for name, values in seen.items()}
    return columns | {"objective": padded(result.columns["objective"], spec.rounds + 1)[1:]}


def _update_norm(context: la.RoundContext, proposal: Proposal, points: Array) -> float:
    """Σ w_i‖∇F_i(point_i)‖ in the trained blocks."""
    trained = context.params.layout.mask(proposal.plan.trained)
    norms = [
        np.linalg.norm(context.oracle.gradient(int(i), point)[trained])
        for i, point in zip(context.participants, points, strict=True)
    ]
    return float(context.weights @ np.array(norms))


IID = ProblemSpec(num_clients=10, num_tokens=8, sequences_per_client=32)
HETEROGENEOUS = ProblemSpec(num_clients=10, num_tokens=8, sequences_per_client=32,
                            value_heterogeneity=1.5, covariate_heterogeneity=0.3)  # fmt: skip
SIMULATION = Simulation(
    UpdateJumpSpec,
    run,
    presets={
        "paper": [
            Grid(UpdateJumpSpec(rounds=90, problem=problem, initial=initial), {"seed": range(10)})
            for problem in (IID, HETEROGENEOUS)
            for initial in (InitialSpec(), FACTORED)
        ],
        "quick": [
            Grid(UpdateJumpSpec(problem=problem), {"seed": range(2)})
            for problem in (IID, HETEROGENEOUS)
        ],
        "tiny": [Grid(UpdateJumpSpec(rounds=6, local_steps=3, problem=SMALL),
                      {TARGET: [0.0, 1.5], "seed": range(2)})],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
