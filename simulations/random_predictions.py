"""Predictions of random federations, in the order of their seeds, none left out (C24).

Run ``python simulations/random_predictions.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._fields import Positive
from linattn.analysis.predicted import COARSER, SAFETY, judge
from linattn.analysis.regret import has_tradeoff, stake
from linattn.analysis.study_cell import default_grid
from linattn.experiments import Grid, Simulation, Spec
from linattn.experiments.predictions import RegimeWorld, Tables, compared, path_error, spent
from linattn.experiments.tables import single
from linattn.streams import stream
from linattn.theory.prediction import prediction_error

if TYPE_CHECKING:
    import xarray as xr

NAMES = ("token", "mean", "last")


class RandomSpec(Spec):
    """The federation of a seed: data, model, weights, start, step and drift are drawn from it."""

    tolerance: Positive = 0.01
    horizon: Positive = 60.0

    def cost(self) -> float:
        """All alike: what a seed draws is not known before."""
        return 1e8

    def tables(self) -> Tables:
        """The problem and its settings."""
        draw = stream(self.seed, "random predictions")
        problem = _problem(draw, self.seed)
        params = la.initial_params(
            problem,
            num_heads=int(draw.integers(1, 4)),
            kernel=str(draw.choice(["merged", "factored"])),
            scale=float(np.sqrt(_between(draw, 0.0025, 0.5) * problem.statistics.gram.shape[-1])),
            seed=self.seed,
        )
        step, drift = _between(draw, 0.005, 0.04), _between(draw, 0.005, 0.5)
        count = max(2, round(1.0 + 2.0 * drift / step))
        rounds = max(2, round(self.horizon / (step * count)))
        reference = la.reference_value(problem, like=params, num_starts=8, seed=self.seed)
        settings = {"rounds": rounds, "local_steps": count, "local_lr": step}
        return Tables(RegimeWorld(problem, params, reference), default_grid(rounds), settings)


def _between(draw: np.random.Generator, low: float, high: float) -> float:
    """Log-uniform."""
    return float(np.exp(draw.uniform(np.log(low), np.log(high))))


def _problem(draw: np.random.Generator, seed: int) -> la.Problem:
    clients = int(draw.integers(2, 11))
    weights: str | list[float] = "equal"
    if draw.random() < 0.5:
        weights = draw.dirichlet(np.full(clients, 2.0)).tolist()
    return la.synthetic_problem(
        num_clients=clients,
        sequences_per_client=int(draw.integers(4, 49)),
        num_tokens=int(draw.integers(4, 21)),
        dim=int(draw.integers(2, 8)),
        num_outputs=int(draw.integers(1, 5)),
        covariate_heterogeneity=float(draw.uniform(0.0, 0.5)),
        kernel_heterogeneity=float(draw.uniform(0.0, 0.5)),
        value_heterogeneity=float(draw.uniform(0.0, 1.5)),
        noise=float(draw.uniform(0.0, 0.5)),
        value_ridge=_between(draw, 0.01, 0.2),
        kernel_ridge=_between(draw, 0.003, 0.05),
        readout=str(draw.choice(NAMES)),
        weights=weights,
        seed=seed,
    )


def run(spec: RandomSpec) -> xr.Dataset:
    """Return what was drawn, how far the prediction is off, and whether it says so.

    ``path_error`` is the largest ‖θ̂ − θ‖/‖θ‖ over rounds, ``estimated_path_error`` what two
    tolerances say of it; ``outcome`` and ``predicted_outcome`` of the run; ``trusted``, ``reason``
    belong to T̂. See `linattn.experiments.predictions.compared` for the others.
    """
    import xarray as xr

    tables = spec.tables()
    world = tables.world
    measured_run = la.run(la.fed_avg(), world.problem, world.params, record_params=True, metrics=(),
                          **tables.settings)  # fmt: skip
    measured = tables.along(measured_run.path)
    fine = la.predict_run(world.problem, world.params, tolerance=spec.tolerance, **tables.settings)
    coarse = tables.predicted_run(COARSER * spec.tolerance)
    table, other = tables.along(fine.path), tables.along(coarse.path)
    verdict = judge(table, other, fine)
    values: dict[str, Any] = {
        **_drawn(tables),
        "outcome": measured_run.outcome.status,
        "predicted_outcome": fine.outcome.status,
        "outcome_round": measured_run.outcome.round,
        "predicted_outcome_round": fine.outcome.round,
        "path_error": path_error(measured_run.path, fine.path),
        "estimated_path_error": SAFETY * float(prediction_error(coarse, fine).max()),
        "tradeoff": has_tradeoff(measured),
        "stake": stake(measured),
        "num_impulses": spent(fine),
        "num_impulses_coarse": spent(coarse),
        "amplification": fine.amplification,
        "trusted": verdict.trusted,
        "reason": verdict.reason,
    }
    return xr.Dataset(single(compared(measured, table) | values, UNITS))


def _drawn(tables: Tables) -> dict[str, Any]:
    problem, params = tables.world.problem, tables.world.params
    return {
        "rounds": tables.rounds,
        "local_steps": tables.settings["local_steps"],
        "local_lr": tables.settings["local_lr"],
        "clients": problem.num_clients,
        "parameters": params.flat.size,
        "readout": problem.readout,
        "kernel": "merged" if params.kernel is not None else "factored",
        "heads": params.value.shape[0],
        "equal_weights": bool(np.ptp(problem.weights) < 1e-12),
    }


UNITS = {
    "predicted_star": "rounds",
    "rounds": "rounds",
    "outcome_round": "rounds",
    "predicted_outcome_round": "rounds",
    "local_lr": "1/curvature",
}

SIMULATION = Simulation(
    RandomSpec,
    run,
    presets={
        "paper": [Grid(RandomSpec(), {"seed": range(200)})],
        "quick": [Grid(RandomSpec(horizon=20.0), {"seed": range(4)})],
        "tiny": [Grid(RandomSpec(horizon=5.0), {"seed": range(2)})],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
