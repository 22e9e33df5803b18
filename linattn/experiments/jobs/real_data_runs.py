"""The simulated runs on a shipped data set: one warm-up, forked at every warm-up length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np

import linattn as la
from linattn._typing import Array, IntArray
from linattn.data.sequences import one_hot
from linattn.data.splits import FederatedData
from linattn.experiments.specs import RealDataSpec

MOST_HALVINGS = 60
RISING = 1e-9
"""Relative rise per round that is growth, not rounding or the last bit of settling."""


class HeldOut(NamedTuple):
    """Test sequences as statistics: Gram matrices, mean tokens, one-hot targets and labels."""

    gram: Array
    query: Array
    target: Array
    labels: IntArray


class Curve(NamedTuple):
    """One simulated run: every round from 0 on, and where it ended.

    `diverged` is the round at which it diverged, −1 if it did not; then the arrays end there.
    """

    local_steps: int
    warmup: int
    objective: Array
    accuracy: Array
    loss: Array
    diverged: int


class Attempt(NamedTuple):
    """All runs at one step factor, with the warm-up paths; the last one may have diverged."""

    factor: float
    curves: list[Curve]
    paths: dict[int, list[la.Params]]

    @property
    def diverged(self) -> bool:
        """Whether its last run diverged, so that the factor must be halved."""
        return self.curves[-1].diverged >= 0


def federated(spec: RealDataSpec) -> FederatedData:
    """Return the split of a spec."""
    if spec.data == "watch":
        return la.watch_split(spec.split, seed=spec.seed)
    return la.digits_split(spec.split, alpha=spec.alpha, seed=spec.seed)


def prepared(spec: RealDataSpec, data: FederatedData) -> tuple[la.Problem, la.Params, HeldOut]:
    """Return the training problem, the start, and the test set."""

    def stated(clients: list[tuple[Array, Array]]) -> la.Problem:
        return la.problem_from_tokens(
            clients,
            readout=data.readout,
            value_ridge=spec.value_ridge,
            kernel_ridge=spec.kernel_ridge,
        )

    problem = stated(data.train)
    params = la.initial_params(problem, **msgspec.to_builtins(spec.initial), seed=spec.seed)
    tokens, labels = data.test
    targets = one_hot(labels, len(data.class_names))
    held = stated([(tokens, targets)]).statistics
    assert held.query is not None
    assert held.target is not None
    return problem, params, HeldOut(held.gram, held.query, held.target, labels)


def features(test: HeldOut, kernels: Array) -> Array:
    """Return G B_hᵀ u of every test sequence, (S, Hd): predictions are these times V."""
    pulled = np.tensordot(test.query, kernels, (1, 1))  # (S, H, d): B_hᵀ u
    return np.asarray((pulled @ test.gram).reshape(len(pulled), -1))


def measure(test: HeldOut, held: Array, value: Array) -> dict[str, float]:
    """Return test accuracy and mean test loss ½‖ŷ − y‖² from the features at a kernel."""
    prediction = held @ value.reshape(-1, value.shape[-1])
    error = prediction - test.target
    right = prediction.argmax(axis=1) == test.labels
    return {"accuracy": float(right.mean()), "loss": 0.5 * float(np.vdot(error, error)) / len(held)}


def settle(
    spec: RealDataSpec, problem: la.Problem, params: la.Params, test: HeldOut, step: float
) -> list[Attempt]:
    """Try step factors s, s/2, s/4, … until no run diverges; return all attempts.

    Raises
    ------
    ValueError
        If runs still diverge after `MOST_HALVINGS` halvings.
    """
    factor, attempts = spec.step_factor, []
    for _ in range(MOST_HALVINGS + 1):
        attempts.append(attempt(spec, problem, params, test, factor, step))
        if not attempts[-1].diverged:
            return attempts
        factor *= 0.5
    raise ValueError(
        f"step_factor must be small enough for a run that does not diverge, but {MOST_HALVINGS} "
        f"halvings of {spec.step_factor:g} were not enough."
    )


def attempt(
    spec: RealDataSpec,
    problem: la.Problem,
    params: la.Params,
    test: HeldOut,
    factor: float,
    step: float,
) -> Attempt:
    """Simulate every method at one step size, until the first one diverges."""
    tried = Attempt(factor, [], {})
    # The largest number of local steps diverges first, so that a bad factor costs little.
    for steps in reversed(spec.local_steps):
        result, curve = fed_avg_curve(spec, problem, params, test, steps, factor * step)
        tried.curves.append(curve)
        if tried.diverged:
            return tried
        tried.paths[steps] = result.path
        for length in spec.lengths()[:-1]:
            tried.curves.append(
                fed_frozen_curve(spec, problem, test, result.path, curve, length, factor * step)
            )
            if tried.diverged:
                return tried
    return tried


def fed_avg_curve(
    spec: RealDataSpec,
    problem: la.Problem,
    params: la.Params,
    test: HeldOut,
    local_steps: int,
    local_lr: float,
) -> tuple[la.Result, Curve]:
    """Simulate FedAvg, which is also the warm-up of every length."""
    result = la.run(
        la.fed_avg(),
        problem,
        params,
        rounds=spec.rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        record_params=True,
        metrics=("objective",),
        evaluate=lambda reached: measure(test, features(test, reached.kernels()), reached.value),
    )
    columns = {name: np.asarray(column) for name, column in result.columns.items()}
    return result, _curve(spec, local_steps, spec.rounds, columns, result)


def fed_frozen_curve(
    spec: RealDataSpec,
    problem: la.Problem,
    test: HeldOut,
    path: list[la.Params],
    warmup: Curve,
    length: int,
    local_lr: float,
) -> Curve:
    """Simulate the frozen rounds from the recorded warm-up: the run FedFrozen(T) to the bit."""
    start = path[length]
    held, block = features(test, start.kernels()), la.ValueBlock(problem, start)
    result = la.run(
        la.fed_frozen(warmup_rounds=length, frozen_lr=spec.frozen_lr),
        problem,
        start,
        rounds=spec.rounds,
        local_steps=warmup.local_steps,
        local_lr=local_lr,
        start_round=length,
        metrics=(),
        evaluate=lambda reached: (
            {"objective": block.value(reached.value)} | measure(test, held, reached.value)
        ),
    )
    before = {name: getattr(warmup, name)[:length] for name in ("objective", "accuracy", "loss")}
    columns = {name: np.concatenate([before[name], result.columns[name]]) for name in before}
    return _curve(spec, warmup.local_steps, length, columns, result)


def _curve(
    spec: RealDataSpec,
    local_steps: int,
    length: int,
    columns: Mapping[str, Array],
    result: la.Result,
) -> Curve:
    """A curve over all rounds, NaN after divergence.

    A run that still rises at its end, above its start, has diverged as well: its numbers are finite
    only because it ran out of rounds.
    """
    objective = columns["objective"]
    diverged = result.outcome.round if result.outcome.status == "diverged" else -1
    if diverged < 0 and objective[-1] > max(objective[0], objective[-2] * (1.0 + RISING)):
        diverged = spec.rounds
    missing = spec.rounds + 1 - len(objective)
    padded = {
        name: np.concatenate([columns[name], np.full(missing, np.nan)])
        for name in ("objective", "accuracy", "loss")
    }
    return Curve(local_steps, length, **padded, diverged=diverged)
