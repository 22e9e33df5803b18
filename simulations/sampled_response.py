"""The trade-off under sampled clients and minibatches: an ensemble of runs against its prediction.

Run ``python simulations/sampled_response.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._fields import Count, Fraction
from linattn.analysis.bias_drift import warmup_star
from linattn.analysis.regret import has_tradeoff, stake
from linattn.experiments import Simulation
from linattn.experiments.predictions import PredictedSpec, Tables, compared, judged
from linattn.experiments.specs import regimes
from linattn.experiments.tables import Variables, single

if TYPE_CHECKING:
    import xarray as xr

UNITS = {"predicted_star": "rounds", "reference": "loss"}


class SampledSpec(PredictedSpec):
    """A regime of which clients, or minibatches, are drawn, run `num_runs` times."""

    participation: Fraction = 0.25
    batch_size: Count | None = None
    num_runs: Count = 60
    num_lengths: Count = 31

    def cost(self) -> float:
        """That of all runs."""
        return super().cost() * self.num_runs

    @property
    def draws(self) -> dict[str, Any]:
        """Participation and batch, as functions take them."""
        return {"participation": self.participation, "batch_size": self.batch_size}


def run(spec: SampledSpec) -> xr.Dataset:
    """Return means over runs and their standard errors, and what was predicted.

    Dimension `warmup`. ``objective`` is E F(B_T, V_R) and ``profile`` E P(B_T) over the runs (given
    a warm-up the frozen stage is exact, C20), with ``_error`` their standard errors and with
    ``predicted_`` the prediction; ``everybody`` is F(B_T, V_R) of the predicted run of all clients
    and full batches, ``everybody_profile`` its P(B_T). What else there is belongs to the objective;
    see `linattn.experiments.predictions`. ``profile_regret`` and ``profile_worst_error`` are those
    of E P.
    """
    import xarray as xr

    tables = spec.tables()
    descent = la.CentralizedDescent(tables.world.problem, tables.world.params, spec.local_lr)
    found = [_one(spec, tables, descent, seed) for seed in range(spec.num_runs)]
    measured = _mean(found)
    predicted = tables.predicted(0.01, **spec.draws)
    everybody = tables.along(tables.predicted_run(0.01).path)
    both = {name: [held[name].values for held in found] for name in ("objective", "profile")}
    data: Variables = {}
    for name, runs in both.items():
        for label, values in (
            (name, np.mean(runs, axis=0)),
            (f"{name}_error", np.std(runs, axis=0, ddof=1) / np.sqrt(len(runs))),
            (f"predicted_{name}", predicted[name].values),
        ):
            data[label] = ("warmup", values, {"units": "loss"})
    for label, name in (("everybody", "objective"), ("everybody_profile", "profile")):
        data[label] = ("warmup", everybody[name].values, {"units": "loss"})
    of_profile = compared(_profile(measured), _profile(predicted))
    values = {
        **compared(measured, predicted),
        **judged(predicted),
        "profile_regret": of_profile["regret"],
        "profile_worst_error": of_profile["worst_error"],
        "reference": tables.world.reference.value,
        "tradeoff": has_tradeoff(measured),
        "stake": stake(measured),
    }
    return xr.Dataset(data | single(values, UNITS), {"warmup": measured["warmup"].values})


def _one(
    spec: SampledSpec, tables: Tables, descent: la.CentralizedDescent, seed: int
) -> xr.Dataset:
    """A run of its own draws, with the frozen stage in expectation."""
    world = tables.world
    return la.bias_drift(
        world.problem, world.params, warmup_lengths=tables.lengths, reference=world.reference,
        descent=descent, seed=seed, **tables.settings, **spec.draws,
    )  # fmt: skip


def _mean(found: list[xr.Dataset]) -> xr.Dataset:
    """The table of the means, with T* of the mean."""
    first = found[0]
    means = {
        name: np.mean([held[name].values for held in found], axis=0)
        for name in ("objective", "profile", "stable")
    }
    stable = means["stable"] == 1.0
    table = first[["objective", "profile"]].assign(
        {name: ("warmup", values) for name, values in (means | {"stable": stable}).items()}
    )
    star = warmup_star(table["warmup"].values.tolist(), means["objective"], stable)
    return table.assign_attrs(warmup_star=star)


def _profile(table: xr.Dataset) -> xr.Dataset:
    """The table of E P(B_T) in place of the objective: one exact value round after T."""
    profile = table["profile"].values
    stable = np.isfinite(profile)
    held = table[["profile"]].assign(objective=("warmup", profile), stable=("warmup", stable))
    star = warmup_star(table["warmup"].values.tolist(), profile, stable)
    return held.assign_attrs({**table.attrs, "warmup_star": star})


MAIN = [(0.75, 0.3)]
PAIRS = [(0.02, 6), (0.02, 11)]

SIMULATION = Simulation(
    SampledSpec,
    run,
    presets={
        "paper": [
            *regimes(SampledSpec(), PAIRS, seeds=10, worlds=MAIN),
            *regimes(SampledSpec(batch_size=8, num_runs=30), PAIRS, seeds=5, worlds=MAIN),
            *regimes(SampledSpec(participation=1.0, batch_size=8, num_runs=30), PAIRS, seeds=3,
                     worlds=MAIN),
        ],
        "quick": regimes(SampledSpec(num_runs=12, num_lengths=20, num_starts=4), [(0.02, 21)],
                         worlds=MAIN),
        "tiny": regimes(
            SampledSpec(horizon=5.0, num_runs=3, num_lengths=5, num_starts=1),
            [(0.02, 11)],
            worlds=MAIN,
        ),
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
