"""The history of a run: which quantities, computed when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from linattn._checks import one_of
from linattn._typing import AnyArray, Array
from linattn.federated.answers import Answers
from linattn.federated.driver import RoundDriver
from linattn.federated.selection import selection_errors
from linattn.federated.stretch import Stretch
from linattn.oracles.protocol import METRICS, Evaluated
from linattn.types import Params

DRIFT_METRICS = ("kernel_drift", "value_drift")
COST_METRICS = ("floats_up", "floats_down", "multiply_adds")
DRIVER_METRICS = (*DRIFT_METRICS, "kernel_trained", "local_lr", *COST_METRICS)
# Of the models that clients use, computed by default where a method makes them personal.
PERSONAL_METRICS = ("personal_objective",)
# One gradient of every client per round, so only on demand.
SELECTION_METRICS = ("unselected_gradient", "selection_skew", "selection_error")
ALL_METRICS = (*METRICS, *DRIVER_METRICS, *PERSONAL_METRICS, *SELECTION_METRICS)

Columns = dict[str, AnyArray]
EvaluateClients = Callable[[Sequence[Params]], Mapping[str, float]]


def check_metrics(driver: RoundDriver, metrics: Sequence[str] | None) -> tuple[str, ...]:
    """Return the metrics that were asked for, by default all that are cheap and make sense."""
    oracle = driver.oracle
    own = () if driver.method.personal is None else PERSONAL_METRICS
    chosen = (*oracle.metric_names, *DRIVER_METRICS, *own) if metrics is None else tuple(metrics)
    for name in chosen:
        one_of("metrics", name, ALL_METRICS)
        if name in METRICS and name not in oracle.metric_names:
            raise ValueError(
                f"metrics must leave out {name!r} for a deep problem, which has only "
                f"{', '.join(map(repr, oracle.metric_names))}: the kernel profile needs one layer."
            )
    return chosen


class History:
    """Columns of the history: an entry for the start, for every so many rounds, and for the last.

    Parameters
    ----------
    driver : RoundDriver
    names : tuple of str
        Metrics; those that are not named are not computed.
    evaluate, evaluate_clients : callable, optional
        More of them, from the server's parameters and from the models of the clients.
    every : int
        Rounds between entries. Floats and multiply-adds of an entry are those since the last one.
    """

    def __init__(
        self,
        driver: RoundDriver,
        names: tuple[str, ...],
        evaluate: Callable[[Params], Mapping[str, float]] | None = None,
        evaluate_clients: EvaluateClients | None = None,
        every: int = 1,
    ) -> None:
        self.driver = driver
        self.names = names
        self.evaluate = evaluate
        self.evaluate_clients = evaluate_clients
        self.answers = Answers("evaluate", (*names, "round"))
        self.client_answers = Answers("evaluate_clients", (*names, "round"))
        self.every = every
        self.rounds: list[int] = []
        self._parts: list[Columns] = []
        self._bill = np.zeros(3, dtype=np.int64)

    def reads(self, names: Collection[str]) -> bool:
        """Whether any of these metrics was asked for."""
        return not set(names).isdisjoint(self.names)

    @property
    def needs_single_rounds(self) -> bool:
        """Whether entries are made of what only the end of their own round shows."""
        wanted = self.reads((*PERSONAL_METRICS, *SELECTION_METRICS))
        return self.evaluate_clients is not None or wanted

    def start(self, params: Params) -> None:
        """Entry 0: the start, before any training."""
        first = self.driver.settings.start_round
        columns = self._global(params.flat[None], first, None)
        bad = _first_not_finite(columns)
        if bad is not None:
            raise ValueError(f"params must have a finite objective at the start, got a {bad[1]}.")
        nothing = {"kernel_trained": False, "floats_up": 0, "floats_down": 0, "multiply_adds": 0}
        for name in (*DRIVER_METRICS, *SELECTION_METRICS):
            if name in self.names:
                columns[name] = np.array([nothing.get(name, np.nan)])
        self._append(columns, [first])

    def add(self, done: Stretch) -> tuple[int, str]:
        """Append the entries of some rounds; return how many were finite, and why the next was not.

        A round between entries is known to have diverged only by its parameters.
        """
        count, trouble = len(done.path), ""
        if not np.isfinite(done.path).all():
            count = int(np.argmin([np.isfinite(flat).all() for flat in done.path]))
            trouble = "non-finite parameters"
        places = [j for j in range(count) if self._is_entry(done.first + j + 1)]
        columns: Columns = {}
        if places:
            columns = self._global(done.path[places], done.first, self._known(done, places))
            bad = _first_not_finite(columns)
            if bad is not None:
                count, trouble = places[bad[0]], bad[1]
                places = places[: bad[0]]
        if places:
            columns = {name: column[: len(places)] for name, column in columns.items()}
            columns.update(self._local(done, places))
            self._append(columns, [done.first + j + 1 for j in places])
        left = places[-1] + 1 if places else 0
        self._bill += done.bills[left:].sum(axis=0)
        return count, trouble

    def _is_entry(self, t: int) -> bool:
        settings = self.driver.settings
        return (t - settings.start_round) % self.every == 0 or t == settings.rounds

    def _known(self, done: Stretch, places: list[int]) -> Evaluated | None:
        """F and ∇F at the first of these places: a round starts where the one before ended."""
        if done.starts is None:
            return None
        next_rounds = [j + 1 for j in places if j + 1 < len(done.path)]
        return Evaluated(*(array[next_rounds] for array in done.starts))

    def _global(self, points: Array, t: int, known: Evaluated | None) -> Columns:
        """What server parameters (N, D) say; t is the round of the last one, or the next."""
        driver, layout = self.driver, self.driver.params.layout
        columns: Columns = dict(
            driver.oracle.metrics(
                points, self.names, known=known, next_round=driver.shares_gradients
            )
        )
        if self.evaluate is not None:
            held = [self.answers(self.evaluate(Params(layout, flat))) for flat in points]
            for name in held[0]:
                columns[name] = np.array([one[name] for one in held])
        if self.needs_single_rounds:
            columns.update({name: np.array([x]) for name, x in self._personal(t).items()})
        return columns

    def _personal(self, t: int) -> dict[str, float]:
        """Σ p_i F_i(θ_i) at the models that clients use, and what the caller makes of them."""
        models, driver = self.driver.client_models(t), self.driver
        row = {}
        if "personal_objective" in self.names:
            parts = [driver.oracle.objective(i, flat) for i, flat in enumerate(models)]
            row["personal_objective"] = float(driver.problem.weights @ np.array(parts))
        if self.evaluate_clients is not None:
            held = [Params(driver.params.layout, flat) for flat in models]
            taken = self.answers.names or ()
            row.update(self.client_answers(self.evaluate_clients(held), taken))
        return row

    def _local(self, done: Stretch, places: list[int]) -> Columns:
        """What the rounds themselves say."""
        sums = np.cumsum(done.bills, axis=0)[places]
        bills = np.diff(sums, axis=0, prepend=-self._bill[None])
        self._bill = np.zeros(3, dtype=np.int64)
        trained = bool(done.plan.trained & self.driver.params.layout.kernel_blocks)
        columns: Columns = {
            "kernel_drift": done.drifts[places, 0],
            "value_drift": done.drifts[places, 1],
            "kernel_trained": np.full(len(places), trained),
            "local_lr": np.full(len(places), done.plan.local_lr),
            "floats_up": bills[:, 0],
            "floats_down": bills[:, 1],
            "multiply_adds": bills[:, 2],
        }
        if self.reads(SELECTION_METRICS):
            assert done.context is not None
            found = zip(SELECTION_METRICS, selection_errors(done.context), strict=True)
            columns.update({name: np.array([x]) for name, x in found})
        return {name: column for name, column in columns.items() if name in self.names}

    def _append(self, columns: Columns, rounds: list[int]) -> None:
        self._parts.append(columns)
        self.rounds.extend(rounds)

    def columns(self) -> Columns:
        """The history as arrays."""
        return {
            name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]
        }


def _first_not_finite(columns: Columns) -> tuple[int, str] | None:
    """The first entry at which a global quantity is NaN or infinite, and which one."""
    held = [name for name in METRICS if name in columns]
    if not held:
        return None
    finite = np.stack([np.isfinite(columns[name]) for name in held])
    if finite.all():
        return None
    entry = int(np.argmin(finite.all(axis=0)))
    return entry, f"non-finite {held[int(np.argmin(finite[:, entry]))]}"
