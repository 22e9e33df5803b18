"""Drift impulses at chosen rounds, and polynomials in time through them (C24)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
        return cls(sizes, np.concatenate([[0.0], np.cumsum(sizes)]) * maps.mean_steps)

    @property
    def rounds(self) -> int:
        """R."""
        return len(self.step_sizes)

    def scale(self, t: int) -> float:
        """η_t², to which impulses are proportional in the first order; at R that of the last."""
        return float(self.step_sizes[min(t, self.rounds - 1)] ** 2)


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


def measure(maps: RoundMaps, clock: Clock, flat: Array, t: int) -> Node:
    """Measure the impulse of round t at `flat`; after the last round with its step size."""
    impulse = maps.impulse(flat, min(t, clock.rounds - 1))
    floor = NOTHING * float(np.linalg.norm(flat))
    return Node(t, float(clock.times[t]), impulse / clock.scale(t), floor / clock.scale(t))


def polynomial(nodes: list[Node], times: Array) -> Array:
    """The polynomial through the nodes (Lagrange) at some times, (n, D)."""
    knots = np.array([node.time for node in nodes])
    basis = np.ones((len(times), len(nodes)))
    for j in range(len(nodes)):
        for k in range(len(nodes)):
            if k != j:
                basis[:, j] *= (times - knots[k]) / (knots[j] - knots[k])
    return np.asarray(basis @ np.stack([node.impulse for node in nodes]))


def forced(maps: RoundMaps, clock: Clock, flat: Array, t: int, impulses: Array) -> Array:
    """θ⁺ = Φ(θ) + I for rounds t, t + 1, … with impulses given per η², (n, D) -> (n, D)."""
    out = np.empty_like(impulses)
    pushes = impulses * clock.step_sizes[t : t + len(impulses), None] ** 2
    for j, push in enumerate(pushes):
        flat = maps.central(flat, t + j) + push
        out[j] = flat
    return out


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


Advance = Callable[[Array, int, int, list[Node]], Array]
"""(θ_t, t, stop, nodes) -> θ of rounds t + 1 .. stop with the polynomial through the nodes."""


def advance_forced(maps: RoundMaps, clock: Clock) -> Advance:
    """Let the path follow Φ and the polynomial."""

    def advance(flat: Array, t: int, stop: int, nodes: list[Node]) -> Array:
        return forced(maps, clock, flat, t, polynomial(nodes, clock.times[t:stop]))

    return advance


def advance_along(flats: Array) -> Advance:
    """Stay on a known path."""

    def advance(flat: Array, t: int, stop: int, nodes: list[Node]) -> Array:
        return flats[t + 1 : stop + 1]

    return advance


def interpolate(
    maps: RoundMaps,
    clock: Clock,
    start: Array,
    advance: Advance,
    *,
    tolerance: float,
    max_impulses: float = float("inf"),
) -> Draft:
    """Walk with as few impulses as the tolerance allows.

    Predictor through the last three impulses, a new impulse at its end, e = ‖I_new − I_predicted‖ /
    ‖I_new‖; halve the interval where e > 1.5 tolerance, else correct with the polynomial through
    the new impulse and the two before. The next interval is at most twice this one, scaled by
    (tolerance/e)^⅓.

    Parameters
    ----------
    maps, clock
        Of the run.
    start : array, shape (D,)
    advance : callable
        `advance_forced` (C24) or `advance_along` (C23).
    tolerance : float
        0 measures every round.
    max_impulses : float
        Where the walk stops.

    Notes
    -----
    Source: C24. Cost: two passes of Φ (none along a known path) and one round of all clients for
    every impulse, rejected ones included.
    """
    walk = _Walk(maps, clock, advance, tolerance, max_impulses, start)
    while walk.outcome is None:
        walk.go()
    return Draft(np.concatenate(walk.path), walk.nodes, walk.errors, walk.rejected, walk.outcome)


class _Walk:
    """The state of `interpolate`: θ_t, what was measured, and the interval to try next."""

    def __init__(
        self,
        maps: RoundMaps,
        clock: Clock,
        advance: Advance,
        tolerance: float,
        max_impulses: float,
        start: Array,
    ) -> None:
        self.maps, self.clock, self.advance = maps, clock, advance
        self.tolerance, self.max_impulses = tolerance, max_impulses
        self.flat, self.t, self.interval = start, 0, 1
        self.path, self.errors, self.rejected = [start[None]], list[float](), 0
        self.nodes = [measure(maps, clock, start, 0)] if clock.rounds else []
        self.outcome = None if clock.rounds else Outcome("completed", 0, "")

    def go(self) -> None:
        """Try one interval."""
        t, rounds = self.t, self.clock.rounds
        stop = min(t + self.interval, rounds)
        ahead = self.advance(self.flat, t, stop, self.nodes[-ORDER - 1 :])
        trouble = self.maps.trouble(ahead[-1])
        if trouble and stop > t + 1:
            self.interval = (stop - t) // 2
        elif trouble:
            self.outcome = Outcome("diverged", t, trouble)
        elif stop == t + 1 == rounds:  # no round is left that another impulse could push
            self._accept(ahead, stop)
        elif len(self.nodes) + self.rejected >= self.max_impulses:
            reason = f"max_impulses = {self.max_impulses:g} were measured"
            self.outcome = Outcome("stopped", t, reason)
        else:
            self._test(ahead, stop)

    def _test(self, ahead: Array, stop: int) -> None:
        """Measure at the end of the interval; reject it, or correct and accept it."""
        t, times = self.t, self.clock.times
        node = measure(self.maps, self.clock, ahead[-1], stop)
        error = mismatch(node, polynomial(self.nodes[-ORDER - 1 :], times[stop : stop + 1])[0])
        if stop > t + 1:
            if not error <= REJECT * self.tolerance:
                self.rejected += 1
                self.interval = (stop - t) // 2
                return
            ahead = self.advance(self.flat, t, stop, [*self.nodes[-ORDER:], node])
        self.interval = next_interval(stop - t, self.tolerance, error)
        self.nodes.append(node)
        self.errors.append(error)
        self._accept(ahead, stop)

    def _accept(self, ahead: Array, stop: int) -> None:
        self.path.append(ahead)
        self.flat, self.t = ahead[-1], stop
        if stop == self.clock.rounds:
            self.outcome = Outcome("completed", stop, "")


def mismatch(node: Node, predicted: Array) -> float:
    """e = ‖I_new − I_predicted‖/‖I_new‖; NaN where an impulse is not finite."""
    gap = float(np.linalg.norm(node.impulse - predicted))
    return gap / max(float(np.linalg.norm(node.impulse)), node.floor)


def next_interval(interval: int, tolerance: float, error: float) -> int:
    """At most twice this one, scaled by (tolerance/e)^(1/(order + 1)); at least one round."""
    if not np.isfinite(error):
        return 1
    scale = GROWTH if error == 0.0 else (tolerance / error) ** (1.0 / (ORDER + 1))
    return max(1, int(interval * min(GROWTH, scale)))


def retraced(maps: RoundMaps, clock: Clock, start: Array, stops: Iterable[int]) -> Array:
    """Walk with `advance_forced` from stop to stop, whatever the errors.

    Parameters
    ----------
    maps, clock
        Of the run.
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
    advance = advance_forced(maps, clock)
    nodes, path, t = [measure(maps, clock, start, 0)], [start[None]], 0
    for stop in stops:
        ahead = advance(path[-1][-1], t, stop, nodes[-ORDER - 1 :])
        if np.isfinite(ahead[-1]).all():
            nodes.append(measure(maps, clock, ahead[-1], stop))
            if stop > t + 1:
                ahead = advance(path[-1][-1], t, stop, nodes[-ORDER - 1 :])
        path.append(ahead)
        t = stop
        if not np.isfinite(ahead[-1]).all():
            break
    return np.concatenate(path)
