"""FedAvg and FedFrozen with every second stage on real data, trained to the end.

Digits by form sheet, by Dirichlet splits and IID; watch recordings by subject. Every method has its
best step and warm-up length by the training objective.
Run ``python simulations/real_data.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from msgspec import Meta

import linattn as la
from linattn._fields import Count, Fraction, Positive
from linattn._typing import Array, IntArray
from linattn.data.federated_data import FederatedData
from linattn.data.sequences import one_hot
from linattn.data.worlds import InitialSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.data_spec import DataSpec
from linattn.experiments.specs import REAL_RIDGE, increasing
from linattn.experiments.tables import along, padded, single
from linattn.experiments.tuning import FACTORS, Tuned, best_step, near
from linattn.linalg import finite_or_inf
from linattn.objectives.descent import local_minimum

if TYPE_CHECKING:
    import xarray as xr

STAGES = {"fed_frozen": "fed_avg", "frozen_scaffold": "scaffold", "frozen_one_shot": "one_shot"}
METHODS = ("fed_avg", *STAGES)
CURVES = {"objective": "loss", "accuracy": "1", "floats": "floats"}
UNITS = {
    "objective": "loss",
    "test_loss": "loss",
    "floats": "floats",
    "length": "rounds",
    "profile": "loss",
    "ceiling_objective": "loss",
    "unit_step": "1/curvature",
    "predicted_objective": "loss",
}
Classifier = Literal["linear", "kernel"]


class RealDataSpec(DataSpec):
    """One split, start, number of heads, E, participation and batch size of a data set.

    FedAvg is run at `factors` of `linattn.safe_step` at the start, the others at its best one and
    the neighbours of that, all at further ones until their best is inside; `warmup_shares` are T/R.
    `classifiers` of scikit-learn are trained centrally for context.
    """

    initial: InitialSpec = InitialSpec(scale=1.0)
    rounds: Count = 200
    local_steps: Count = 20
    participation: Fraction = 1.0
    batch_size: Count | None = None
    factors: tuple[Positive, ...] = FACTORS
    warmup_shares: tuple[Annotated[float, Meta(gt=0, lt=1)], ...] = (0.25, 0.5, 0.75, 0.9, 0.99)
    central_iterations: Count = 300
    classifiers: tuple[Classifier, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        increasing("factors", self.factors)
        increasing("warmup_shares", self.warmup_shares)

    def lengths(self) -> tuple[int, ...]:
        """The warm-up lengths T, from 1 to R − 1."""
        asked = {round(share * self.rounds) for share in self.warmup_shares}
        return tuple(sorted({min(max(t, 1), max(self.rounds - 1, 1)) for t in asked}))

    def cost(self) -> float:
        """Gradient steps of the warm-ups at every step size, times heads and data."""
        steps = self.rounds * self.local_steps * 3 * len(self.factors)
        return float(steps * self.initial.num_heads * self.work)

    @property
    def random(self) -> bool:
        """Whether clients or sequences are drawn."""
        return self.participation < 1.0 or self.batch_size is not None

    def settings(self) -> dict[str, Any]:
        """What all runs share."""
        return {
            "rounds": self.rounds,
            "local_steps": self.local_steps,
            "participation": self.participation,
            "batch_size": self.batch_size,
            "seed": self.seed,
        }


class World(NamedTuple):
    """Data, training problem, start, and test sequences as statistics."""

    data: FederatedData
    problem: la.Problem
    params: la.Params
    tests: la.Statistics
    labels: IntArray

    def measure(self, reached: la.Params) -> dict[str, float]:
        """Test accuracy, and mean test loss ½‖ŷ − y‖², of a model."""
        gram, query, target = self.tests.gram, self.tests.query, self.tests.target
        assert query is not None
        assert target is not None
        pulled = np.tensordot(query, reached.kernels(), (1, 1))  # (S, H, d): B_hᵀ u
        held = (pulled @ gram).reshape(len(pulled), -1)
        prediction = held @ reached.value.reshape(held.shape[1], -1)
        error = prediction - target
        right = prediction.argmax(axis=1) == self.labels
        loss = 0.5 * float(np.vdot(error, error)) / len(held)
        return {"accuracy": float(right.mean()), "test_loss": loss}


def make_world(spec: RealDataSpec) -> World:
    """Return the clients of a spec."""
    data = spec.federated()

    def stated(clients: list[tuple[Array, Array]]) -> la.Problem:
        return la.problem_from_tokens(clients, readout=data.readout, value_ridge=REAL_RIDGE,
                                      kernel_ridge=REAL_RIDGE)  # fmt: skip

    problem, (tokens, labels) = stated(data.train), data.test
    tests = stated([(tokens, one_hot(labels, len(data.class_names)))]).statistics
    return World(data, problem, spec.initial.make(problem, spec.seed), tests, labels)


class Ended(NamedTuple):
    """A run from round 0 on: its curves, its warm-up length, and its parameters by round."""

    curves: dict[str, Array]
    length: int
    path: list[la.Params]

    @property
    def loss(self) -> float:
        """Training objective at the end, +inf where the run diverged."""
        return finite_or_inf(float(self.curves["objective"][-1]))


def run(spec: RealDataSpec) -> xr.Dataset:
    """Return what every method ends with at its best step and warm-up length.

    Dimensions: `method`; `warmup`, T/R; `round` = 0..R; `classifier`. Along `method`: ``objective``
    (training), ``test_accuracy``, ``test_loss``, ``floats`` both ways, ``length`` T (R for FedAvg),
    ``factor`` and whether it is ``interior``, ``stability`` (standard deviation of test accuracy
    over the last R/10 rounds). ``*_rounds``: along rounds. ``*_warmup``: at every warm-up length,
    the best step of the method. ``profile``: P at the end of FedAvg. ``ceiling_*``: the same model
    trained centrally, by L-BFGS on P. ``predicted_objective``: FedAvg by C24, from
    ``num_impulses``, NaN where clients or sequences are drawn. ``classifier_accuracy``.
    """
    import xarray as xr

    runs = _Runs(spec, make_world(spec))
    average = best_step(partial(runs.ends, "fed_avg"), spec.factors)
    around = near(average.factor)
    best = {"fed_avg": average} | {n: best_step(partial(runs.ends, n), around) for n in STAGES}
    rows = [_row(spec, runs.world, tuned) for tuned in best.values()]
    data: dict[str, Any] = along("method", rows, UNITS)
    for name, units in CURVES.items():
        curves = np.stack([_lowest(tuned.found).curves[name] for tuned in best.values()])
        data[f"{name}_rounds"] = (("method", "round"), curves, {"units": units})
        ends = [[ended.curves[name][-1] for ended in tuned.found] for tuned in best.values()]
        data[f"{name}_warmup"] = (("method", "warmup"), np.array(ends), {"units": units})
    data |= _beside(spec, runs.world, runs.unit * average.factor, _lowest(average.found))
    data |= single({"unit_step": runs.unit}, UNITS)
    return xr.Dataset(data, {"method": list(METHODS), "round": np.arange(spec.rounds + 1),
                             "warmup": list(spec.lengths()),
                             "classifier": list(spec.classifiers)})  # fmt: skip


class _Runs:
    """FedAvg at factors of the unit step, which is also the warm-up of all second stages."""

    def __init__(self, spec: RealDataSpec, world: World) -> None:
        self.spec, self.world = spec, world
        self.unit = la.safe_step(world.problem, world.params)
        self._warm: dict[float, Ended] = {}

    def ends(self, name: str, factor: float) -> tuple[list[Ended], float]:
        """A method after every warm-up length, all alike for FedAvg, and the smallest loss."""
        if factor not in self._warm:
            result = self._trained(la.fed_avg(), self.world.params, factor)
            curves = _curves(self.spec, result.columns)
            self._warm[factor] = Ended(curves, self.spec.rounds, result.path)
        warm, lengths = self._warm[factor], self.spec.lengths()
        if name == "fed_avg":
            return [warm] * len(lengths), warm.loss
        found = [
            self._forked(name, warm, length, factor)
            if length < len(warm.path)
            else warm._replace(length=length)
            for length in lengths
        ]
        return found, _lowest(found).loss

    def _forked(self, name: str, warm: Ended, length: int, factor: float) -> Ended:
        """The run FedFrozen(T) to the bit, from the recorded warm-up."""
        method = la.fed_frozen(warmup_rounds=length, frozen=STAGES[name])
        result = self._trained(method, warm.path[length], factor, start_round=length)
        after = _curves(self.spec, result.columns, warm.curves["floats"][length])
        kept = {key: np.concatenate([warm.curves[key][:length], after[key]])[: self.spec.rounds + 1]
                for key in CURVES}  # fmt: skip
        return Ended(kept, length, result.path[-1:])

    def _trained(
        self, method: la.Method, start: la.Params, factor: float, **more: Any
    ) -> la.Result:
        return la.run(
            method,
            self.world.problem,
            start,
            local_lr=self.unit * factor,
            record_params=True,
            metrics=("objective", "floats_up", "floats_down"),
            evaluate=self.world.measure,
            **self.spec.settings(),
            **more,
        )


def _lowest(found: list[Ended]) -> Ended:
    return min(found, key=lambda ended: ended.loss)


def _curves(spec: RealDataSpec, columns: Mapping[str, Any], spent: float = 0.0) -> dict[str, Array]:
    """Objective, accuracy and floats so far of every round, NaN after a divergence."""
    floats = spent + np.cumsum(columns["floats_up"] + columns["floats_down"])
    raw = {"objective": columns["objective"], "accuracy": columns["accuracy"], "floats": floats}
    return {name: padded(np.asarray(values), spec.rounds + 1) for name, values in raw.items()}


def _row(spec: RealDataSpec, world: World, tuned: Tuned[list[Ended]]) -> dict[str, float]:
    """What a method ends with at its best."""
    ended = _lowest(tuned.found)
    last = max(2, spec.rounds // 10)  # one round has no spread
    finite = np.isfinite(tuned.loss)
    return {
        "objective": tuned.loss,
        "test_accuracy": float(ended.curves["accuracy"][-1]),
        "test_loss": world.measure(ended.path[-1])["test_loss"] if finite else np.nan,
        "floats": float(ended.curves["floats"][-1]),
        "length": ended.length,
        "stability": float(np.std(ended.curves["accuracy"][-last:])),
        **tuned.said(),
    }


def _beside(spec: RealDataSpec, world: World, step: float, average: Ended) -> dict[str, Any]:
    """What FedAvg left of the value block, the ceiling, the prediction and other classifiers."""
    problem = world.problem
    value, _, central = local_minimum(problem, world.params, max_iterations=spec.central_iterations)
    predicted = np.full(spec.rounds + 1, np.nan)
    count = np.nan
    if not spec.random:
        found = la.predict_run(problem, world.params, rounds=spec.rounds, check_chaos=False,
                               local_steps=spec.local_steps, local_lr=step)  # fmt: skip
        losses = [la.Joint(problem).value(params) for params in found.path]
        predicted, count = padded(np.array(losses), spec.rounds + 1), found.num_impulses
    values = {
        "profile": la.KernelProfile(problem).value(average.path[-1]),
        "ceiling_objective": value,
        "ceiling_accuracy": world.measure(central)["accuracy"],
        "num_impulses": count,
    }
    scores = [_classified(world, name) for name in spec.classifiers]
    return single(values, UNITS) | {
        "predicted_objective": ("round", predicted, {"units": "loss"}),
        "classifier_accuracy": ("classifier", np.array(scores, dtype=float), {"units": "1"}),
    }


def _classified(world: World, name: str) -> float:
    """Test accuracy of a plain classifier on all training sequences, tokens side by side."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    tokens, targets = (np.concatenate(part) for part in zip(*world.data.train, strict=True))
    model = LogisticRegression(max_iter=2000) if name == "linear" else SVC()
    fitted = make_pipeline(StandardScaler(), model).fit(
        tokens.reshape(len(tokens), -1), targets.argmax(axis=1)
    )
    tests = world.data.test[0]
    return float((fitted.predict(tests.reshape(len(tests), -1)) == world.labels).mean())


SPLITS: list[dict[str, Any]] = [
    {"data": "digits", "split": "sheets"},
    {"data": "digits", "split": "dirichlet", "alpha": 0.05},
    {"data": "digits", "split": "dirichlet", "alpha": 0.5},
    {"data": "digits", "split": "iid"},
    {"data": "watch", "split": "sides"},
]
SKEWED = SPLITS[1]


def grid(split: Mapping[str, Any], seeds: int, heads: int = 1, **fields: Any) -> Grid:
    """Return the runs of one split over seeds."""
    initial = InitialSpec(num_heads=heads, scale=1.0)
    return Grid(RealDataSpec(**split, initial=initial, **fields), {"seed": range(seeds)})


BOTH: tuple[Classifier, ...] = ("linear", "kernel")
SIMULATION = Simulation(
    RealDataSpec,
    run,
    version=2,
    presets={
        "paper": [
            *(grid(s, 10, rounds=300, participation=p, classifiers=BOTH)
              for s in SPLITS for p in (1.0, 0.3)),
            *(grid(s, 3, 4, rounds=500, participation=p, factors=(10.0, 30.0))
              for s in SPLITS[:2] for p in (1.0, 0.3)),
            *(grid(SKEWED, 10, rounds=n, local_steps=e) for e, n in ((1, 600), (10, 300))),
            grid(SKEWED, 10, rounds=300, participation=0.3, batch_size=16),
        ],
        "quick": [
            *(grid(SKEWED, 2, rounds=30, factors=(1.0, 3.0), warmup_shares=(0.5,), participation=p,
                   central_iterations=50) for p in (1.0, 0.3)),
            grid(SPLITS[4], 2, rounds=30, factors=(1.0, 3.0), warmup_shares=(0.5,),
                 central_iterations=50),
        ],
        "tiny": [
            grid(split, 1, rounds=10, local_steps=5, factors=(1.0, 3.0), central_iterations=10,
                 warmup_shares=(0.2, 0.5)) for split in (SKEWED, SPLITS[4])
        ],
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
