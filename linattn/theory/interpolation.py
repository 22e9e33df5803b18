"""Drift impulses at chosen rounds, and polynomials in time through them (C24)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from linattn._typing import Array
from linattn.oracles.protocol import Outcome
from linattn.theory.impulse import RoundMaps

ORDER = 2
"""Degree of the polynomials; see `paper_notes.md` for the trials of 1 and 3."""
REJECT = 1.5
"""An interval is halved where its error is this many tolerances."""
GROWTH = 2.0
"""The next interval is at most this many times longer."""
NOTHING = 1e-12
"""Impulses this small against the parameters are rounding: of equal clients, or of E = 1."""


class Clock(NamedTuple):
    """Step sizes η_t (R,) and times τ_t = Σ_{r<t} η_r Ē (R + 1,)."""

    step_sizes: Array
    times: Array

    @classmethod
    def of(cls, maps: RoundMaps, rounds: int) -> Clock:
        """The clock of a run."""
        sizes = np.array([maps.step_size(t) for t in range(rounds)], dtype=np.float64)
        with np.errstate(over="ignore"):
            return cls(sizes, np.concatenate([[0.0], np.cumsum(sizes)]) * maps.mean_steps)

    @property
    def rounds(self) -> int:
        """R."""
        return len(self.step_sizes)

    def scale(self, t: int) -> float:
        """η_t², to which impulses are proportional in the first order; at R that of the last."""
        with np.errstate(over="ignore"):
            square = float(self.step_sizes[min(t, self.rounds - 1)] ** 2)
        return max(square, np.finfo(np.float64).tiny)  # a step may be too small to be squared


class Node(NamedTuple):
    """A measured impulse.

    Attributes
    ----------
    round : int
    time : float
        τ.
    impulse : array, shape (D,)
        I/η²: with a step schedule, what varies smoothly.
    floor : float
        Norm below which it counts as zero.
    """

    round: int
    time: float
    impulse: Array
    floor: float


def polynomial(nodes: list[Node], times: Array) -> Array:
    """The polynomial through the nodes (Lagrange) at some times, (n, D)."""
    knots = np.array([node.time for node in nodes])
    basis = np.ones((len(times), len(nodes)))
    for j in range(len(nodes)):
        for k in range(len(nodes)):
            if k != j:
                basis[:, j] *= (times - knots[k]) / (knots[j] - knots[k])
    return np.asarray(basis @ np.stack([node.impulse for node in nodes]))


class Draft(NamedTuple):
    """A path and the impulses on it.

    Attributes
    ----------
    flats : array, shape (n + 1, D)
        Rounds 0 to n ≤ R.
    nodes : list of Node
        Accepted impulses.
    errors : list of float
        e of every accepted interval that was tested.
    rejected : int
    outcome : Outcome
    """

    flats: Array
    nodes: list[Node]
    errors: list[float]
    rejected: int
    outcome: Outcome


class Forced:
    """θ⁺ = Φ(θ) + I with the impulse of the path itself (C24).

    A course: how a walk goes on, and what it measures on the way. A state begins with θ.
    """

    def __init__(self, maps: RoundMaps, clock: Clock) -> None:
        self.maps = maps
        self.clock = clock

    def measure(self, state: Array, t: int) -> Node:
        """Measure the impulse of round t; after the last round with its step size."""
        impulse = self.maps.impulse(state, min(t, self.clock.rounds - 1))
        return self.node(t, impulse, NOTHING * float(np.linalg.norm(state)))

    def node(self, t: int, impulse: Array, floor: float) -> Node:
        """The node of an impulse at round t."""
        scale = self.clock.scale(t)
        return Node(t, float(self.clock.times[t]), impulse / scale, floor / scale)

    def predict(self, state: Array, t: int, stop: int, nodes: list[Node]) -> Array:
        """States of rounds t + 1 .. stop: Φ and the polynomial through nodes up to t, (n, ...)."""
        return self.follow(state, t, polynomial(nodes, self.clock.times[t:stop]))

    def correct(self, state: Array, t: int, ahead: Array, nodes: list[Node]) -> Array:
        """`ahead` again, with a node at its end; one round has used its own impulse already."""
        return ahead if len(ahead) == 1 else self.predict(state, t, t + len(ahead), nodes)

    def follow(self, flat: Array, t: int, impulses: Array) -> Array:
        """θ⁺ = Φ(θ) + I for rounds t, t + 1, … with impulses given per η², (n, D) -> (n, D)."""
        sizes = self.clock.step_sizes[t : t + len(impulses), None]
        return self.maps.follow(flat, t, impulses * sizes**2)

    def error(self, node: Node, predicted: Array) -> float:
        """e = ‖I_new − I_predicted‖/‖I_new‖; NaN if not finite."""
        return mismatch(node.impulse, predicted, node.floor)

    def trouble(self, state: Array) -> str:
        """Why a state has diverged, or nothing: it or its objective is not finite."""
        return self.maps.trouble(state)


class Along(Forced):
    """A known path, whose impulses are wanted (C23)."""

    def __init__(self, maps: RoundMaps, clock: Clock, flats: Array) -> None:
        super().__init__(maps, clock)
        self.flats = flats

    def predict(self, state: Array, t: int, stop: int, nodes: list[Node]) -> Array:
        """Stay on the path."""
        return self.flats[t + 1 : stop + 1]


def interpolate(
    course: Forced, start: Array, *, tolerance: float, max_impulses: float = float("inf")
) -> Draft:
    """Walk with as few impulses as the tolerance allows.

    Predictor through the last three impulses, a new impulse at its end, e = ‖I_new − I_predicted‖ /
    ‖I_new‖; halve the interval where e > 1.5 tolerance, else correct with the polynomial through
    the new impulse and the two before. The next interval is at most twice this one, scaled by
    (tolerance/e)^⅓.

    Parameters
    ----------
    course : Forced
        `Forced` (C24), `Along` (C23) or another.
    start : array, shape (D,)
    tolerance : float
        0 measures every round.
    max_impulses : float
        Where the walk stops.

    Notes
    -----
    Source: C24. Cost: two passes of Φ (none along a known path) and one round of all clients for
    every impulse, rejected ones included.
    """
    walk = _Walk(course, start, tolerance, max_impulses)
    while walk.outcome is None:
        walk.go()
    return Draft(np.concatenate(walk.path), walk.nodes, walk.errors, walk.rejected, walk.outcome)


class _Walk:
    """The state of `interpolate`: θ_t, what was measured, and the interval to try next."""

    def __init__(self, course: Forced, start: Array, tolerance: float, max_impulses: float) -> None:
        self.course, self.tolerance, self.max_impulses = course, tolerance, max_impulses
        self.rounds = course.clock.rounds
        self.state, self.t, self.interval = start, 0, 1
        self.path, self.errors, self.rejected = [start[None]], list[float](), 0
        self.nodes = [course.measure(start, 0)] if self.rounds else []
        self.outcome = None if self.rounds else Outcome("completed", 0, "")

    def go(self) -> None:
        """Try one interval."""
        t = self.t
        stop = min(t + self.interval, self.rounds)
        ahead = self.course.predict(self.state, t, stop, self.nodes[-ORDER - 1 :])
        trouble = self.course.trouble(ahead[-1])
        if trouble and stop > t + 1:
            self.interval = (stop - t) // 2
        elif trouble:
            self.outcome = Outcome("diverged", t, trouble)
        elif stop == t + 1 == self.rounds:  # no round is left that another impulse could push
            self._accept(ahead)
        elif len(self.nodes) + self.rejected >= self.max_impulses:
            reason = f"max_impulses = {self.max_impulses:g} were measured"
            self.outcome = Outcome("stopped", t, reason)
        else:
            self._test(ahead, stop)

    def _test(self, ahead: Array, stop: int) -> None:
        """Measure at the end of the interval; reject it, or correct and accept it."""
        t, times = self.t, self.course.clock.times
        node = self.course.measure(ahead[-1], stop)
        predicted = polynomial(self.nodes[-ORDER - 1 :], times[stop : stop + 1])[0]
        error = self.course.error(node, predicted)
        if not error <= REJECT * self.tolerance and stop > t + 1:
            self.rejected += 1
            self.interval = (stop - t) // 2
            return
        self.interval = next_interval(stop - t, self.tolerance, error)
        self.nodes.append(node)
        self.errors.append(error)
        self._accept(ahead)

    def _accept(self, ahead: Array) -> None:
        """Correct the interval, with the last impulse at its end or, in the last round, without."""
        ahead = self.course.correct(self.state, self.t, ahead, self.nodes[-ORDER - 1 :])
        self.path.append(ahead)
        self.state, self.t = ahead[-1], self.t + len(ahead)
        if self.t == self.rounds:
            self.outcome = Outcome("completed", self.t, "")


def mismatch(impulse: Array, predicted: Array, floor: float) -> float:
    """Relative error; of impulses below the floor, relative to the floor."""
    gap = float(np.linalg.norm(impulse - predicted))
    if gap == 0.0:  # at a stationary start of zeros, impulse and floor vanish too
        return 0.0
    return gap / max(float(np.linalg.norm(impulse)), floor)


def next_interval(interval: int, tolerance: float, error: float) -> int:
    """At most twice this one, scaled by (tolerance/e)^(1/(order + 1)); at least one round."""
    if not np.isfinite(error):
        return 1
    scale = GROWTH if error == 0.0 else (tolerance / error) ** (1.0 / (ORDER + 1))
    return max(1, int(interval * min(GROWTH, scale)))


def retraced(course: Forced, start: Array, stops: Iterable[int]) -> Array:
    """Walk from stop to stop, whatever the errors.

    Parameters
    ----------
    course : Forced
    start : array, shape (D,)
    stops : iterable of int
        Increasing rounds > 0 where impulses are measured and intervals end.

    Returns
    -------
    array, shape (n + 1, D)
        To the last stop, or up to the interval that is not finite.

    Notes
    -----
    Source: C24. Cost: as `interpolate` without rejected intervals.
    """
    nodes, path, t = [course.measure(start, 0)], [start[None]], 0
    for stop in stops:
        state = path[-1][-1]
        ahead = course.predict(state, t, stop, nodes[-ORDER - 1 :])
        if np.isfinite(ahead[-1]).all():
            nodes.append(course.measure(ahead[-1], stop))
            ahead = course.correct(state, t, ahead, nodes[-ORDER - 1 :])
        path.append(ahead)
        t = stop
        if not np.isfinite(ahead[-1]).all():
            break
    return np.concatenate(path)
