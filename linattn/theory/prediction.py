"""A FedAvg run from its centralized rounds and a few dozen measurements of drift (C23, C24)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from linattn._checks import MOST_ENTRIES, positive_int, real
from linattn._display import axes_or_new, facts_html
from linattn._settings import LocalSteps, StepSize
from linattn._threads import one_blas_thread
from linattn._typing import Array, IntArray
from linattn.linalg import finite_or_inf
from linattn.oracles.protocol import Outcome
from linattn.streams import stream
from linattn.theory.impulse import RoundMaps
from linattn.theory.interpolation import (
    ORDER,
    Along,
    Clock,
    Draft,
    Forced,
    Node,
    interpolate,
    polynomial,
    retraced,
)
from linattn.types import Federation, Params

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOVE = 1e-9
"""How far the start of the second path is moved, relative to its norm."""
CHAOS = 1e4
"""Amplification of that move beyond which nothing predicts a run."""


@dataclass(frozen=True, eq=False)
class PredictedRun:
    """What `predict_run` returns.

    Attributes
    ----------
    path : list of Params
        Rounds 0 to R, up to the last finite one.
    times : array, shape (len(path),)
        τ_t = Σ η Ē, units of 1/curvature.
    impulse_rounds : array of int, shape (K,)
        Where impulses were measured (C23: in the last pass).
    impulses : array, shape (K, D)
        I there.
    interval_error : array, shape (number of intervals,)
        e of every accepted interval that was tested.
    num_rejected : int
        Impulses that were measured and not used.
    amplification : float
        Largest growth of a move of the start by 1e-9; NaN if it was not asked for.
    outcome : Outcome
        ``completed``; ``diverged`` at a round; ``stopped`` where `max_impulses` were used up;
        ``unpredictable`` if the amplification exceeds 1e4.
    """

    path: list[Params]
    times: Array
    impulse_rounds: IntArray
    impulses: Array
    interval_error: Array
    num_rejected: int
    amplification: float
    outcome: Outcome

    @property
    def num_impulses(self) -> int:
        """K; `num_rejected` more were measured."""
        return len(self.impulse_rounds)

    @property
    def flats(self) -> Array:
        """The path as an array, (n + 1, D)."""
        return np.stack([params.flat for params in self.path])

    def _repr_html_(self) -> str:
        return facts_html(
            "PredictedRun",
            [
                ("status", self.outcome.status),
                ("round", self.outcome.round),
                ("reason", self.outcome.reason or None),
                ("impulses", self.num_impulses),
                ("rejected", self.num_rejected),
                ("amplification", self.amplification),
            ],
        )

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the size of the drift impulse in the rounds in which it was measured.

        Returns
        -------
        matplotlib Axes
        """
        axes = axes_or_new(axes)
        axes.plot(self.impulse_rounds, np.linalg.norm(self.impulses, axis=1), "o-", markersize=3)
        axes.set(xlabel="round", ylabel="‖I‖ (parameter norm)", yscale="log")
        return axes

    def __repr__(self) -> str:
        reason = f": {self.outcome.reason}" if self.outcome.reason else ""
        return (
            f"PredictedRun({self.outcome.status} at round {self.outcome.round}{reason}; "
            f"{self.num_impulses} impulses, {self.num_rejected} rejected, "
            f"amplification {self.amplification:.3g})"
        )


def predict_run(
    problem: Federation,
    params: Params,
    *,
    rounds: int,
    local_steps: LocalSteps,
    local_lr: StepSize,
    tolerance: float = 0.01,
    passes: int | None = None,
    max_impulses: int | None = None,
    check_chaos: bool = True,
) -> PredictedRun:
    """Predict the path of FedAvg: full batches, all clients, without running it.

    A round is exactly θ⁺ = Φ(θ) + I(θ): E steps on F and the drift impulse. The impulse is measured
    at a few rounds of the predicted run itself and interpolated in between by a parabola in τ
    (drift interpolation, C24); ``passes=k`` measures along the centralized path instead, and again
    along each of k − 1 paths that follow (C23).

    Parameters
    ----------
    problem : Problem, DeepProblem or any other `linattn.types.Federation`
    params : Params
        Start.
    rounds : int
        R.
    local_steps : int, or one int per client
        E; with unequal work Φ is ⌈Ē⌉ steps of ηĒ/⌈Ē⌉ on F_q, q_i = p_iE_i/Ē.
    local_lr : float, array or callable
        η; one per round; or a function of the round.
    tolerance : float
        Relative error of the impulse that an interval may have, ≥ 0; 0 measures every round, and
        the path is that of ``run(fed_avg(), ...)`` to rounding.
    passes : int, optional
        k ≥ 0 passes of C23; 0 is the centralized path, and after R of them the first R rounds are
        exact, so that more are not made.
    max_impulses : int, optional
        Where the prediction stops; the rejected ones count.
    check_chaos : bool
        Whether to follow a second path from a start moved by 1e-9 (C24 only).

    Returns
    -------
    PredictedRun

    Raises
    ------
    TypeError, ValueError
        If the parameters do not fit the problem, or an argument is out of range.

    Notes
    -----
    Source: C24, C23. Cost: with K impulses, K rounds of all clients and two to three passes of R·E
    gradients on pooled data (each C times cheaper than a federated run where data is held as
    moments); as much again for the second path. With K near R, which a short run has, or one whose
    clients are at their limit of stability, a prediction is no cheaper than the run, nor is it for
    problems without moments, where a pass costs what a run does.

    The test of an interval is local and bounds no error of θ: compare two tolerances
    (`prediction_error`).

    Examples
    --------
    >>> import linattn as la
    >>> problem = la.synthetic_problem(num_clients=3, sequences_per_client=4, num_tokens=4, dim=2,
    ...     num_outputs=1, value_heterogeneity=1.0, value_ridge=0.1, kernel_ridge=0.1)
    >>> params = la.initial_params(problem)
    >>> settings = {"rounds": 400, "local_steps": 5, "local_lr": 0.02}
    >>> predicted = la.predict_run(problem, params, **settings)
    >>> run = la.run(la.fed_avg(), problem, params, **settings)
    >>> predicted.num_impulses < 50, bool(
    ...     np.abs(predicted.path[-1].flat - run.params.flat).max() < 1e-3)
    (True, True)
    """
    rounds = positive_int("rounds", rounds, minimum=0, maximum=MOST_ENTRIES)
    tolerance = real("tolerance", tolerance, minimum=0.0)
    count = None if passes is None else min(positive_int("passes", passes, minimum=0), rounds)
    cap = float("inf") if max_impulses is None else positive_int("max_impulses", max_impulses)
    maps = RoundMaps(problem, params, local_steps=local_steps, local_lr=local_lr, rounds=rounds)
    clock = Clock.of(maps, rounds)
    growth = float("nan")
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"), one_blas_thread():
        if count is None:
            course = Forced(maps, clock)
            draft = interpolate(course, params.flat, tolerance=tolerance, max_impulses=cap)
            if check_chaos and rounds:
                growth = amplification(course, draft)
        else:
            drafts = iterated(maps, clock, params.flat, tolerance=tolerance, max_impulses=cap)
            draft = list(islice(drafts, count + 1))[-1]
    return _report(draft, clock, params, growth)


def _report(draft: Draft, clock: Clock, params: Params, growth: float) -> PredictedRun:
    outcome = draft.outcome
    if growth > CHAOS and outcome.status != "diverged":
        reason = f"of a start moved by {MOVE:g} the distance grows {growth:.1e} times"
        outcome = Outcome("unpredictable", outcome.round, reason)
    scales = np.array([clock.scale(node.round) for node in draft.nodes])
    impulses = [node.impulse for node in draft.nodes] or [np.zeros((0, params.flat.size))]
    return PredictedRun(
        path=[Params(params.layout, flat) for flat in draft.flats],
        times=clock.times[: len(draft.flats)],
        impulse_rounds=np.array([node.round for node in draft.nodes], dtype=np.int64),
        impulses=np.vstack(impulses) * scales[:, None] if len(scales) else impulses[0],
        interval_error=np.array(draft.errors),
        num_rejected=draft.rejected,
        amplification=growth,
        outcome=outcome,
    )


def iterated(
    maps: RoundMaps,
    clock: Clock,
    start: Array,
    *,
    tolerance: float,
    max_impulses: float = float("inf"),
) -> Iterator[Draft]:
    """Yield the centralized path, and the path after every further pass (C23).

    A pass is θ⁺ = Φ(θ) + I(previous path). It ends with a path that is not whole.

    Notes
    -----
    Source: C23. Cost: each pass one pass of Φ, and one round of all clients per impulse.
    """
    course, zero = Forced(maps, clock), np.zeros((clock.rounds, len(start)))
    flats, trouble = _finite(maps, start, course.follow(start, 0, zero))
    draft = Draft(flats, [], [], 0, trouble or Outcome("completed", clock.rounds, ""))
    yield draft
    measured = 0
    while clock.rounds and draft.outcome.status == "completed":
        along = interpolate(
            Along(maps, clock, draft.flats),
            start,
            tolerance=tolerance,
            max_impulses=max_impulses - measured,
        )
        if along.outcome.status != "completed":
            yield along._replace(flats=draft.flats[: along.outcome.round + 1])
            return
        measured += len(along.nodes) + along.rejected
        flats, trouble = _finite(maps, start, course.follow(start, 0, _between(along.nodes, clock)))
        draft = along._replace(flats=flats, outcome=trouble or along.outcome)
        yield draft


def _between(nodes: list[Node], clock: Clock) -> Array:
    """The impulses of all rounds: parabolas as in `interpolate`, (R, D)."""
    parts = []
    for k in range(1, len(nodes)):
        a, b = nodes[k - 1].round, nodes[k].round
        near = nodes[max(0, k - ORDER) : k + 1] if b > a + 1 else nodes[k - 1 : k]
        parts.append(polynomial(near, clock.times[a:b]))
    last = nodes[-1]
    if last.round < clock.rounds:  # a last interval of one round
        parts.append(polynomial([last], clock.times[last.round : clock.rounds]))
    return np.concatenate(parts)


def _finite(maps: RoundMaps, start: Array, ahead: Array) -> tuple[Array, Outcome | None]:
    """The rounds from the start on that are finite, and the divergence after them."""
    flats = np.concatenate([start[None], ahead])
    fine = np.array([not maps.trouble(flat) for flat in flats[1:]], dtype=bool)
    if fine.all():
        return flats, None
    t = int(np.argmin(fine))
    return flats[: t + 1], Outcome("diverged", t, maps.trouble(flats[t + 1]))


def amplification(course: Forced, draft: Draft) -> float:
    """Return the largest growth along a predicted path of a move of its start by 1e-9.

    The second path has impulses of its own at the same rounds.

    Notes
    -----
    Source: C24. Cost: that of the path without its rejected intervals.
    """
    start = draft.flats[0]
    direction = stream(0, "moved start").normal(size=start.shape)
    size = MOVE * (float(np.linalg.norm(start)) or 1.0)
    moved = start + size / float(np.linalg.norm(direction)) * direction
    stops = {*(node.round for node in draft.nodes), len(draft.flats) - 1} - {0}
    other = retraced(course, moved, sorted(stops))
    gaps = np.linalg.norm(other - draft.flats[: len(other)], axis=1)
    return finite_or_inf(float(gaps.max() / gaps[0]))


def prediction_error(coarse: PredictedRun, fine: PredictedRun) -> Array:
    """Return the estimated error of `fine` from a prediction at a larger tolerance.

    ‖θ_coarse − θ_fine‖/‖θ_fine‖ of every round that both reached.

    Parameters
    ----------
    coarse, fine : PredictedRun
        Of the same run; `coarse` with, say, three times the tolerance.

    Returns
    -------
    array, shape (n + 1,)

    Notes
    -----
    Source: C24. Cost: none.
    """
    count = min(len(coarse.path), len(fine.path))
    left, right = coarse.flats[:count], fine.flats[:count]
    sizes = np.maximum(np.linalg.norm(right, axis=1), np.finfo(float).tiny)
    return np.asarray(np.linalg.norm(left - right, axis=1) / sizes)
