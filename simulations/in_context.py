"""In-context regression: bias and drift in a world whose best model is known without any fit (C22).

Clients differ in the covariance of their inputs. The start is a small multiple of the model that
the optimum is a refinement of: B = diag(σI, 0), V = σe_{D+1}.
Run ``python simulations/in_context.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn._fields import Count, NonNegative, Positive
from linattn._typing import Array
from linattn.analysis.predicted import filled
from linattn.analysis.regret import best_length, has_tradeoff
from linattn.claims import Verdict
from linattn.data.in_context import in_context_covariances
from linattn.experiments import Grid, Simulation, Spec
from linattn.experiments.checks import Column, worst
from linattn.experiments.tables import reference_variables, single
from linattn.theory.in_context_law import in_context_limit
from linattn.theory.population import PopulationLimit

if TYPE_CHECKING:
    import xarray as xr

UNITS = {"warmup_star": "rounds", "warmup_exact": "rounds", "optimum": "loss", "learned": "loss"}
MOST = 60
"""Warm-up lengths."""


class InContextSpec(Spec):
    """A federation of in-context regressions, a start, η, E and the horizon τ_R = ηER."""

    num_clients: Count = 8
    sequences_per_client: Count = 512
    context_length: Count = 16
    dim: Count = 4
    covariance_heterogeneity: NonNegative = 0.5
    noise: NonNegative = 0.1
    value_ridge: Positive = 0.05
    kernel_ridge: Positive = 0.01
    scale: Positive = 0.3
    local_lr: Positive = 0.005
    local_steps: Count = 21
    horizon: Positive = 60.0
    num_starts: Count = 20

    @property
    def rounds(self) -> int:
        """R = τ_R/(ηE), rounded."""
        return max(1, round(self.horizon / (self.local_lr * self.local_steps)))

    def cost(self) -> float:
        """Gradient steps of one trajectory, times the data."""
        data = self.num_clients * self.sequences_per_client
        return float(self.rounds * self.local_steps * data * (self.dim + 1) ** 2)

    def lengths(self) -> Array:
        """Up to `MOST` warm-up lengths, with 0 and R."""
        return np.unique(np.linspace(0, self.rounds, MOST).astype(int))

    def start(self) -> la.Params:
        """Return B = diag(σI, 0) and V = σe_{D+1}."""
        kernel, value = np.zeros((self.dim + 1, self.dim + 1)), np.zeros((self.dim + 1, 1))
        kernel[:-1, :-1], value[-1] = self.scale * np.eye(self.dim), self.scale
        return la.Params.merged(kernel, value)


def run(spec: InContextSpec) -> xr.Dataset:
    """Return the trade-off on the drawn sequences and on infinitely many; dimension `warmup`.

    ``objective`` and ``profile`` are those of `linattn.bias_drift` on the sequences of the clients;
    ``objective_exact`` is F of the same end in exact moments, ``apart`` how far the kernel is from
    the optimum there, ‖vB − θ*‖/‖θ*‖ of the features, v = V*(B)_{D+1}. Without dimension:
    ``optimum``, F of the best model by formula; ``learned``, F in exact moments of the best model
    of the drawn sequences, whose excess is what the clients do not know; the best lengths on the
    sequences and in exact moments, −1 if nothing is stable; ``tradeoff``; the reference value of P.
    """
    import xarray as xr

    world: dict[str, Any] = {
        "context_length": spec.context_length, "noise": spec.noise,
        "value_ridge": spec.value_ridge, "kernel_ridge": spec.kernel_ridge,
    }  # fmt: skip
    drawn: dict[str, Any] = {
        "num_clients": spec.num_clients, "dim": spec.dim, "seed": spec.seed,
        "covariance_heterogeneity": spec.covariance_heterogeneity,
    }  # fmt: skip
    problem = la.in_context_problem(
        sequences_per_client=spec.sequences_per_client, **drawn, **world
    )
    covariances = in_context_covariances(**drawn)
    limit = in_context_limit(covariances, **world)
    best = la.in_context_optimum(covariances, **world)
    start, lengths = spec.start(), spec.lengths()
    reference = la.reference_value(problem, like=start, num_starts=spec.num_starts, seed=spec.seed)
    settings: dict[str, Any] = {"local_steps": spec.local_steps, "local_lr": spec.local_lr}
    warm = la.run(la.fed_avg(), problem, start, rounds=spec.rounds, record_params=True, metrics=(),
                  **settings)  # fmt: skip
    path = filled(warm.path, spec.rounds)
    table = la.bias_drift(problem, start, path=path, rounds=spec.rounds, reference=reference,
                          warmup_lengths=lengths.tolist(), **settings)  # fmt: skip
    rows = [
        _in_exact_moments(problem, path[t], spec.rounds - t, settings, limit, best.params)
        if np.isfinite(table["objective"].sel(warmup=t)) else (np.inf, np.nan)
        for t in lengths.tolist()
    ]  # fmt: skip
    exact, apart = np.array(rows).T
    values = {
        "optimum": best.loss,
        "learned": limit.objective(reference.params),
        "warmup_star": best_length(table),
        "warmup_exact": int(lengths[np.argmin(exact)]) if np.isfinite(exact).any() else -1,
        "tradeoff": has_tradeoff(table),
    }
    columns = {
        "objective": table["objective"],
        "profile": table["profile"],
        "objective_exact": ("warmup", exact, {"units": "loss"}),
        "apart": ("warmup", apart, {"units": "1"}),
    }
    fixed = single(values, UNITS) | reference_variables(reference)
    return xr.Dataset(columns | fixed, {"warmup": lengths})


def _in_exact_moments(
    problem: la.Problem,
    reached: la.Params,
    frozen: int,
    settings: dict[str, Any],
    limit: PopulationLimit,
    best: la.Params,
) -> tuple[float, float]:
    """F after the frozen rounds in exact moments, and the distance of the kernel from the best."""
    stage = la.frozen_stage(problem, reached, **settings)
    ended = reached.replace(value=stage.after(frozen))
    features = _features(reached.replace(value=limit.minimizer(reached)))
    wanted = _features(best)
    apart = float(np.linalg.norm(features - wanted) / np.linalg.norm(wanted))
    return limit.objective(ended), apart


def _features(params: la.Params) -> Array:
    """vB on the features: what the model multiplies the mean of x y with."""
    return np.asarray(params.value[0, -1, 0] * params.kernels()[0, :-1, :-1])


def _optimum(runs: Sequence[xr.Dataset]) -> Verdict:
    """No model is better in exact moments than the formula says."""

    def column(found: xr.Dataset) -> Column:
        reached = np.minimum(float(found["objective_exact"].min()), found["learned"].values)
        return reached, found["optimum"].values, abs(found["optimum"].values)

    return worst("C22 stored", "F ≥ F of the optimum by formula", "lower", map(column, runs))


def _apart(spec: InContextSpec, steps: Sequence[int], seeds: int) -> list[Grid]:
    axes: dict[str, Sequence[Any]] = {
        "covariance_heterogeneity": [0.0, 0.5, 1.0],
        "local_steps": steps,
        "seed": range(seeds),
    }
    return [Grid(spec, axes)]


SIMULATION = Simulation(
    InContextSpec,
    run,
    presets={
        "paper": _apart(InContextSpec(), (1, 9, 21, 41), 10),
        "quick": _apart(
            InContextSpec(horizon=30.0, sequences_per_client=256, num_starts=2), (1, 21), 2
        ),
        "tiny": _apart(
            InContextSpec(num_clients=3, sequences_per_client=16, dim=2, horizon=3.0, num_starts=2),
            (21,), 1,
        ),
    },
    checks=(_optimum,),
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
