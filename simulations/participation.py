"""Few clients in the warm-up, everybody in one exact value round: what each participation reaches.

Run ``python simulations/participation.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from msgspec.structs import replace

import linattn as la
from linattn._fields import Count, Fraction, Positive
from linattn.analysis.budget import KINDS
from linattn.analysis.participation import ENDS, Plan, TunedEnds, tuned_ends
from linattn.claims import Verdict
from linattn.data.worlds import InitialSpec, ProblemSpec, World
from linattn.experiments import Grid, Simulation, Spec
from linattn.experiments.checks import worst
from linattn.experiments.specs import (
    COVARIATE,
    HETEROGENEOUS,
    SMALL,
    TARGET,
    WORLDS,
    distinct,
    single_layer_world,
)
from linattn.experiments.tables import single
from linattn.types import single_layer

if TYPE_CHECKING:
    import xarray as xr

UNITS = {"score": "1", "local_lr": "1/curvature", "interior": "1", "rounds": "rounds",
         "warmup": "rounds"}  # fmt: skip


class ParticipationSpec(Spec):
    """FedAvg and FedFrozen of several participations, at the budget of R rounds of everybody.

    Digits are a Dirichlet split among fourteen clients. The first step that is tried is
    `first_factor` times `linattn.safe_step`.
    """

    data: Literal["synthetic", "digits"] = "synthetic"
    problem: ProblemSpec = HETEROGENEOUS
    alpha: Positive = 0.05
    initial: InitialSpec = InitialSpec()
    rounds: Count = 100
    local_steps: Count = 10
    first_factor: Positive = 0.5
    participation: tuple[Fraction, ...] = (1.0, 0.5, 0.25, 0.125)
    num_draws: Annotated[int, Meta(ge=2)] = 4
    num_lengths: Annotated[int, Meta(ge=2)] = 8
    num_starts: Count = 20

    def __post_init__(self) -> None:
        distinct("participation", self.participation)

    def cost(self) -> float:
        """Gradient steps of all draws at some steps, times the data."""
        size = self.problem.num_clients * self.problem.sequences_per_client * self.problem.dim**2
        scale = 20 if self.data == "digits" else 1
        steps = self.rounds * self.local_steps * self.num_draws * len(self.participation)
        return float(5 * steps * size * scale)

    def world(self) -> World:
        """Problem, start, the step that is tried first, and what is tested."""
        world = single_layer_world(self.data, self.problem, self.initial, self.alpha, self.seed)
        return world._replace(local_lr=self.first_factor * world.local_lr)


def run(spec: ParticipationSpec) -> xr.Dataset:
    """Return `linattn.analysis.participation.TunedEnds` of every participation.

    Dimensions: `participation`, of the warm-up; `budget`, what FedAvg of everybody spends in R
    rounds, in rounds, floats or multiply-adds; `end`: FedAvg, FedFrozen with the second stage by as
    many clients, by everybody, and by one exact round of everybody. Scores are test accuracies.
    Without dimension: the reference value of P, NaN for digits.
    """
    import xarray as xr

    world = spec.world()
    problem, clients = single_layer(world.problem), world.problem.num_clients
    evaluate = None if world.tests is None else lambda at: world.share_right([at] * clients)
    found = [
        tuned_ends(
            problem,
            world.params,
            Plan(spec.rounds, spec.local_steps, share, spec.num_draws, spec.num_lengths),
            unit_step=world.local_lr,
            evaluate=evaluate,
        )
        for share in spec.participation
    ]
    dims = ("participation", "budget", "end")
    data: dict[str, Any] = {
        name: (dims, np.stack([getattr(one, name) for one in found]).astype(float),
               {"units": UNITS.get(name, "loss")})
        for name in TunedEnds._fields
    }  # fmt: skip
    coordinates = {"participation": list(spec.participation), "budget": list(KINDS),
                   "end": list(ENDS)}  # fmt: skip
    return xr.Dataset(data | single({"reference": _reference(spec, world)}, {}), coordinates)


def _reference(spec: ParticipationSpec, world: World) -> float:
    if spec.data != "synthetic":
        return float("nan")
    problem, more = single_layer(world.problem), {"num_starts": spec.num_starts, "seed": spec.seed}
    return la.reference_value(problem, like=world.params, **more).value


def _above_profile(runs: Sequence[xr.Dataset]) -> Verdict:
    columns = [
        (held["profile"].values[known], held["loss"].values[known], held["loss"].values[known])
        for held in runs
        for known in [np.isfinite(held["loss"].values)]
    ]
    return worst("C1 participation stored", "P ≤ F at every end", "upper", columns)


FOURTEEN = (1.0, 0.5, 0.25, 0.15)
DIGITS = ParticipationSpec(data="digits", rounds=50, local_steps=20, first_factor=8.0,
                           participation=FOURTEEN)  # fmt: skip
MAIN = {TARGET: [0.75], COVARIATE: [0.3]}
SEEDS = {"seed": range(10)}

SIMULATION = Simulation(
    ParticipationSpec,
    run,
    presets={
        "paper": [
            Grid(ParticipationSpec(), {**MAIN, **SEEDS}),
            Grid(DIGITS, {"seed": range(10)}),
            *[Grid(ParticipationSpec(), {TARGET: [target], COVARIATE: [covariate], **SEEDS})
              for target, covariate in WORLDS[1:] if (target, covariate) != (0.75, 0.3)],
            Grid(ParticipationSpec(), {**MAIN, "local_steps": [1, 50], **SEEDS}),
        ],
        "quick": [
            Grid(ParticipationSpec(rounds=40, num_draws=2, num_lengths=5, num_starts=4,
                                   participation=(1.0, 0.25)), MAIN),
            Grid(replace(DIGITS, rounds=10, num_draws=2, num_lengths=5, participation=(1.0, 0.15))),
        ],
        "tiny": [
            Grid(ParticipationSpec(problem=SMALL, rounds=4, local_steps=3, num_draws=2,
                                   num_lengths=3, num_starts=2, participation=(1.0, 0.3)),
                 {"seed": range(2)}),
        ],
    },
    checks=(_above_profile,),
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
