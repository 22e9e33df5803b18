"""What simulations of the predicted trade-off share: a regime with its world, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from linattn._fields import Count
from linattn.analysis.bias_drift import bias_drift
from linattn.analysis.predicted import curve_error, filled, objective_at, predict_trade_off
from linattn.analysis.regret import best_length, relative_regret
from linattn.analysis.study_cell import simulated_warmup
from linattn.data.worlds import InitialSpec, ProblemSpec
from linattn.experiments.specs import RegimeSpec
from linattn.objectives.reference import Reference, reference_value
from linattn.theory.log_law import LogLaw, log_law
from linattn.theory.prediction import PredictedRun, predict_run
from linattn.theory.response import DriftResponse, drift_response
from linattn.types import Params, Problem, pool

if TYPE_CHECKING:
    import xarray as xr

Weights = Literal["sequences", "rising"]


class PredictedSpec(RegimeSpec):
    """A regime whose trade-off is predicted.

    `weights`: p_i of all clients alike, as their numbers of sequences are, or in proportion to
    1, 2, …, C. `identical`: every client holds all data. The curves have at most `num_lengths`
    warm-up lengths.
    """

    weights: Weights = "sequences"
    identical: bool = False
    num_lengths: Annotated[int, Meta(ge=2)] = 200
    num_starts: Count = 20

    def lengths(self) -> tuple[int, ...]:
        """Every warm-up length up to `num_lengths`, else so many of them, 0 and R among them."""
        every = super().lengths()
        kept = np.linspace(0, len(every) - 1, min(len(every), self.num_lengths)).round()
        return tuple(every[k] for k in sorted({int(k) for k in kept}))

    def world(self, num_starts: int) -> RegimeWorld:
        """Problem, start and reference value, which all (η, E) share."""
        return _world(
            self.problem, self.initial, self.weights, self.identical, self.seed, num_starts
        )

    def prepared(self) -> tuple[Problem, Params]:
        """Problem and start of the world."""
        world = self.world(self.num_starts)
        return world.problem, world.params

    def reference(self, num_starts: int) -> Reference:
        """The reference value of the world."""
        return self.world(num_starts).reference

    def tables(self) -> Tables:
        """The world and all settings, as tables take them."""
        settings = {"rounds": self.rounds, **self.settings()}
        return Tables(self.world(self.num_starts), self.lengths(), settings)


@dataclass(frozen=True, eq=False)
class RegimeWorld:
    """What all (η, E) share."""

    problem: Problem
    params: Params
    reference: Reference


@lru_cache(maxsize=256)
def _response(world: RegimeWorld, horizon: float) -> DriftResponse:
    return drift_response(world.problem, world.params, horizon)


@lru_cache(maxsize=256)
def _law(response: DriftResponse) -> LogLaw | None:
    try:
        return log_law(response)
    except ValueError:  # no minimum near the end of the path
        return None


@lru_cache(maxsize=256)
def _world(
    problem: ProblemSpec,
    initial: InitialSpec,
    weights: Weights,
    identical: bool,
    seed: int,
    num_starts: int,
) -> RegimeWorld:
    made = problem.make(seed)
    if identical:
        made = pool(made)
    if weights == "rising":
        rising = np.arange(1.0, made.num_clients + 1.0)
        made = replace(made, weights=rising / rising.sum())
    start = initial.make(made, seed)
    return RegimeWorld(made, start, reference_value(made, like=start, num_starts=num_starts))


@dataclass(frozen=True)
class Tables:
    """Warm-up length tables of one world and one (η, E).

    Attributes
    ----------
    world : RegimeWorld
    lengths : tuple of int
    settings : dict
        rounds, local_steps, local_lr.
    """

    world: RegimeWorld
    lengths: tuple[int, ...]
    settings: dict[str, Any]

    @property
    def rounds(self) -> int:
        """R."""
        return int(self.settings["rounds"])

    @property
    def round_time(self) -> float:
        """ηE."""
        return float(self.settings["local_lr"] * self.settings["local_steps"])

    @property
    def drift(self) -> float:
        """The drift number s = η(E − 1)/2."""
        return 0.5 * (self.round_time - float(self.settings["local_lr"]))

    def rounds_to(self, time: float) -> int:
        """The number of rounds nearest to a warm-up time τ, at most R."""
        return round(min(self.rounds, time / self.round_time))

    def response(self) -> DriftResponse:
        """Of the world, up to the horizon to two digits, so that all (η, E) share one."""
        return _response(self.world, float(f"{self.rounds * self.round_time:.2g}"))

    def law(self) -> LogLaw | None:
        """The log law of the response, None where the path does not come near a minimum."""
        return _law(self.response())

    def measured_path(self) -> list[Params]:
        """Rounds 0 to R of FedAvg, up to a divergence."""
        return simulated_warmup(self.world.problem, self.world.params, **self.settings)

    def along(self, path: list[Params], lengths: Sequence[int] = ()) -> xr.Dataset:
        """The table of a path; `lengths` instead of the usual ones."""
        return bias_drift(
            self.world.problem, self.world.params, warmup_lengths=lengths or self.lengths,
            path=filled(path, self.rounds), reference=self.world.reference, **self.settings,
        )  # fmt: skip

    def predicted(self, tolerance: float, **more: Any) -> xr.Dataset:
        """That of the predicted run, with its verdict."""
        return predict_trade_off(
            self.world.problem, self.world.params, warmup_lengths=self.lengths,
            tolerance=tolerance, reference=self.world.reference, **self.settings, **more,
        )  # fmt: skip

    def predicted_run(self, tolerance: float, **more: Any) -> PredictedRun:
        """The predicted run alone."""
        return predict_run(self.world.problem, self.world.params, tolerance=tolerance,
                           check_chaos=False, **self.settings, **more)  # fmt: skip


def compared(measured: xr.Dataset, table: xr.Dataset) -> dict[str, Any]:
    """Return how far a predicted table is from the measured one.

    ``predicted_star`` is T̂ (−1: nothing is stable), ``regret`` its relative regret, NaN where there
    is no trade-off, ``worst_error`` max_T |F̂ − F|/(F − P_ref).
    """
    star = table.attrs["warmup_star"]
    return {
        "predicted_star": best_length(table),
        "regret": relative_regret(measured, objective_at(measured, star)),
        "worst_error": curve_error(measured, table),
    }


def judged(table: xr.Dataset) -> dict[str, Any]:
    """Return what a predicted table says of itself; rejected impulses are counted."""
    held = table.attrs
    return {
        "estimated_error": held["curve_error"],
        "num_impulses": held["num_impulses"] + held["num_rejected"],
        "amplification": held["amplification"],
        "trusted": held["trusted"],
        "reason": held["reason"],
    }


def spent(run: PredictedRun) -> int:
    """Return how many impulses a predicted run took, with rejected ones."""
    return run.num_impulses + run.num_rejected


def path_error(measured: Sequence[Params], predicted: Sequence[Params]) -> float:
    """Return max_t ‖θ̂_t − θ_t‖/‖θ_t‖ over the rounds that both reach."""
    pairs = zip(measured, predicted, strict=False)
    apart = [np.linalg.norm(b.flat - a.flat) / np.linalg.norm(a.flat) for a, b in pairs]
    return float(np.max(apart))
