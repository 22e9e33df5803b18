"""Sampling, minibatches and unequal work: the expected trade-off, noise floors, stability.

Run ``python simulations/noise.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from msgspec import Meta

import linattn as la
from linattn._fields import Count, Fraction
from linattn._typing import Array
from linattn.analysis.sampled import kernel_terms, warmup_draws
from linattn.analysis.stability import critical_steps
from linattn.claims import Verdict
from linattn.data.worlds import ProblemSpec
from linattn.experiments import Simulation
from linattn.experiments.checks import Column, worst
from linattn.experiments.specs import HETEROGENEOUS, SMALL, WORLDS, RegimeSpec, distinct, regimes
from linattn.experiments.tables import reference_variables
from linattn.federated.settings import check_settings

if TYPE_CHECKING:
    import xarray as xr

KERNEL = ("unreached", "drift", "shift", "spread")
VALUE = ("value_transient", "value_floor", "value_cross", "value_noise")
FACTORS = tuple(2.0**k for k in range(-2, 4))
"""Of the step size, for the noise floor."""
SHRINKING = tuple(2.0**-k for k in range(8))
"""Of the step size, for the bias of unequal work."""


class NoiseSpec(RegimeSpec):
    """A regime under several participations and batch sizes.

    A batch size of at least `sequences_per_client` is the full batch.
    """

    problem: ProblemSpec = HETEROGENEOUS
    participation: tuple[Fraction, ...] = (1.0, 0.5, 0.25, 0.125)
    batch_sizes: tuple[Count, ...] = (64, 8)
    num_draws: Annotated[int, Meta(ge=2)] = 16
    num_lengths: Annotated[int, Meta(ge=2)] = 20
    num_starts: Count = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("participation", self.participation)
        distinct("batch_sizes", self.batch_sizes)

    def lengths(self) -> tuple[int, ...]:
        """Warm-up lengths from 0 to R, evenly in their square roots."""
        spaced = np.linspace(0.0, np.sqrt(self.rounds), self.num_lengths) ** 2
        return tuple(sorted({round(t) for t in spaced}))

    def draws(self, participation: float, batch_size: int) -> dict[str, Any]:
        """Participation and batch, as functions take them."""
        whole = batch_size >= self.problem.sequences_per_client
        return {"participation": participation, "batch_size": None if whole else batch_size}

    def cost(self) -> float:
        """That of all draws."""
        draws = len(self.participation) * len(self.batch_sizes) * self.num_draws
        return super().cost() * draws


def run(spec: NoiseSpec) -> xr.Dataset:
    """Return the expected trade-off under every participation and batch size, and what noise does.

    Dimensions: `participation`; `batch_size`; `warmup`; `step`, step sizes around η; `small_step`,
    step sizes from η down.

    - ``objective``: E F(B_T, V_R) over draws of the warm-up, the frozen stage exact in expectation;
      ``profile``: E P(B_T); each with its standard error; the parts of the kernel bias
      (`linattn.analysis.sampled.KernelTerms`) and of the value block (C9, C20); ``undone``.
    - At the kernel of T* with everybody: ``floor_bias`` and ``floor_noise`` by step size,
      ``critical_mean`` and ``critical_second_moment``.
    - There too, ½‖V_∞ − V*‖²_A of equal work and of work from 1 to 2E − 1 steps, averaged plainly
      and normalized: ``floor_equal``, ``floor_plain``, ``floor_normalized``.
    """
    import xarray as xr

    problem, params = spec.prepared()
    found = spec.reference(spec.num_starts)
    held = _Warmups(spec, problem, params, found.value)
    shape = (len(spec.participation), len(spec.batch_sizes))
    cells = [held.cell(spec.draws(*pair)) for pair in product(spec.participation, spec.batch_sizes)]
    data: dict[str, Any] = {
        name: (
            ("participation", "batch_size", "warmup"),
            np.array([cell[name] for cell in cells]).reshape(*shape, -1),
            {"units": "1" if name == "undone" else "loss"},
        )
        for name in cells[0]
    }
    best = int(np.argmin(held.everybody["objective"].values))
    data |= _floors(spec, problem, held.full[best])
    data |= _unequal(spec, problem, held.full[best])
    coordinates = {
        "participation": list(spec.participation),
        "batch_size": list(spec.batch_sizes),
        "warmup": list(spec.lengths()),
        "step": [factor * spec.local_lr for factor in FACTORS],
        "small_step": [factor * spec.local_lr for factor in SHRINKING],
    }
    return xr.Dataset(data | reference_variables(found), coordinates)


class _Warmups:
    """Warm-ups of a regime: with everybody, without clients, and drawn."""

    def __init__(
        self, spec: NoiseSpec, problem: la.Problem, params: la.Params, reference: float
    ) -> None:
        self.spec, self.problem, self.params, self.reference = spec, problem, params, reference
        self.lengths = spec.lengths()
        self.descent = la.CentralizedDescent(problem, params, spec.local_lr)
        self.central = self.descent.at(spec.local_steps * t for t in self.lengths)
        (path,) = self._draws({})
        self.full = [path[t] for t in self.lengths]
        self.everybody = self._table(path, {}, 0)

    def _draws(self, drawn: dict[str, Any]) -> list[list[la.Params]]:
        settings = check_settings(rounds=self.spec.rounds, **self.spec.settings(), **drawn)
        return warmup_draws(self.problem, self.params, settings, num_draws=self.spec.num_draws)

    def _table(self, path: list[la.Params], drawn: dict[str, Any], draw: int) -> xr.Dataset:
        return la.bias_drift(
            self.problem,
            self.params,
            warmup_lengths=self.lengths,
            rounds=self.spec.rounds,
            reference=self.reference,
            path=path,
            descent=self.descent,
            seed=draw,
            **self.spec.settings(),
            **drawn,
        )

    def cell(self, drawn: dict[str, Any]) -> dict[str, Array]:
        """All quantities of one participation and batch size, each (L,)."""
        draws = self._draws(drawn)
        terms = kernel_terms(
            self.problem,
            [[path[t] for t in self.lengths] for path in draws],
            full=self.full,
            central=self.central,
            reference=self.reference,
        )
        tables = [self._table(path, drawn, k) for k, path in enumerate(draws)]
        objectives = np.array([table["objective"].values for table in tables])
        count = len(draws)
        errors = objectives.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else 0.0
        return {
            "objective": objectives.mean(axis=0),
            "objective_error": errors * np.ones(len(self.lengths)),
            "profile": terms.kernel_bias + self.reference,
            "profile_error": terms.standard_error,
            **{name: getattr(terms, name) for name in (*KERNEL, "undone")},
            **{n: np.mean([table[n].values for table in tables], axis=0) for n in VALUE},
        }


def _floors(spec: NoiseSpec, problem: la.Problem, at: la.Params) -> dict[str, Any]:
    """Noise floors by step size, and the steps that are too large."""
    shape = (len(spec.participation), len(spec.batch_sizes))
    floors = np.empty((2, *shape, len(FACTORS)))
    critical = np.empty((2, *shape))
    for i, share in enumerate(spec.participation):
        for j, size in enumerate(spec.batch_sizes):
            drawn = {"local_steps": spec.local_steps, **spec.draws(share, size)}
            critical[:, i, j] = critical_steps(problem, at, **drawn)
            for k, factor in enumerate(FACTORS):
                step = factor * spec.local_lr
                floors[:, i, j, k] = la.frozen_moments(
                    problem, at, local_lr=step, **drawn
                ).floor_parts
    cells, inverse = ("participation", "batch_size"), {"units": "1/curvature"}
    return {
        "floor_bias": ((*cells, "step"), floors[0], {"units": "loss"}),
        "floor_noise": ((*cells, "step"), floors[1], {"units": "loss"}),
        "critical_mean": (cells, critical[0], inverse),
        "critical_second_moment": (cells, critical[1], inverse),
    }


def _unequal(spec: NoiseSpec, problem: la.Problem, at: la.Params) -> dict[str, Any]:
    """½‖V_∞ − V*‖²_A of equal and unequal work with the same mean, as the step shrinks."""
    spaced = np.linspace(1, 2 * spec.local_steps - 1, problem.num_clients)
    work = [round(count) for count in spaced]
    stage = partial(la.frozen_stage, problem, at, local_lr=spec.local_lr)
    stages = {
        "equal": stage(local_steps=spec.local_steps),
        "plain": stage(local_steps=work),
        "normalized": stage(local_steps=work, normalized=True),
    }
    floors = {
        f"floor_{name}": [s.at_step(f * spec.local_lr).floor for f in SHRINKING]
        for name, s in stages.items()
    }
    return {name: ("small_step", row, {"units": "loss"}) for name, row in floors.items()}


def _additive(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(held: xr.Dataset) -> Column:
        parts = [held[name].values for name in (*KERNEL, *VALUE)]
        size = abs(held["reference"].values) + sum(abs(part) for part in parts)
        return held["objective"].values, held["reference"].values + sum(parts), size

    statement = "E F − P_ref is the sum of its eight parts"
    return worst("C9 noise stored", statement, "identity", map(column, runs))


def _ordered(runs: Sequence[xr.Dataset]) -> Verdict:
    def column(held: xr.Dataset) -> Column:
        mean = held["critical_mean"].values
        return held["critical_second_moment"].values, mean * (1.0 + 1e-3), mean

    return worst("C20 stored", "the second moment breaks first", "upper", map(column, runs))


MAIN = [(0.75, 0.3)]
OTHERS = [world for world in WORLDS[1:] if world not in MAIN]
MAP = NoiseSpec(batch_sizes=(64,), num_draws=8)
"""Drift numbers times worlds, on full batches."""

SIMULATION = Simulation(
    NoiseSpec,
    run,
    presets={
        "paper": [
            *regimes(NoiseSpec(), [(0.02, 11)], seeds=10, worlds=MAIN),
            *regimes(MAP, [(0.02, 2), (0.02, 6), (0.02, 21), (0.04, 1)], seeds=10, worlds=MAIN),
            *regimes(MAP, [(0.02, 6), (0.02, 21)], seeds=10, worlds=OTHERS),
        ],
        "quick": regimes(
            NoiseSpec(participation=(1.0, 0.5, 0.125), num_draws=3, num_lengths=8, num_starts=4),
            [(0.04, 11)], worlds=MAIN,
        ),
        "tiny": regimes(
            NoiseSpec(problem=SMALL, horizon=2.0, participation=(1.0, 0.5), batch_sizes=(6, 2),
                      num_draws=2, num_lengths=4, num_starts=2),
            [(0.02, 3)], seeds=2, worlds=MAIN,
        ),
    },
    checks=(_additive, _ordered),
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
