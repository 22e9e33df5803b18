"""Several rounds at once, where a method promises that nothing but averaging happens in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from linattn._typing import Array, IntArray
from linattn.federated.driver import RoundDriver, task_plan
from linattn.federated.method import FOREVER, Method, Plan, RoundContext, train_everything
from linattn.linalg import weighted_spread, weighted_sum
from linattn.oracles.protocol import Draws, Evaluated, LocalTask, Rounds


class Stretch(NamedTuple):
    """Finished rounds under one plan: what the history sees.

    Attributes
    ----------
    first : int
        Number of the first round.
    plan : Plan
    path : array, shape (N, D)
        Server parameters after every round.
    bills : array of int, shape (N, 3)
        Floats up, floats down and multiply-adds of every round; zeros where nobody counts them.
    drifts : array, shape (N, 2)
        (Σ w_i ‖·_i − mean‖²)^½ of kernel and value entries, just before averaging; NaN in single
        rounds where nobody measures them.
    starts : Evaluated or None
        F and ∇F where every round starts, if its first local steps told.
    context : RoundContext or None
        What the slots of the method saw, of a single round.
    """

    first: int
    plan: Plan
    path: Array
    bills: IntArray
    drifts: Array
    starts: Evaluated | None = None
    context: RoundContext | None = None


@runtime_checkable
class RunsRounds(Protocol):
    """An oracle that can run several rounds at once."""

    def together(self, task: LocalTask) -> int:
        """How many rounds like this one pay to run in one call."""

    def rounds(self, task: LocalTask, draws: Draws) -> Rounds:
        """Whole rounds of all draws, the first of which is `task`."""


def may_stretch(driver: RoundDriver) -> bool:
    """Whether rounds may be plain: participants take E steps of one size on full batches.

    What the method does in a round, and what its plan promises, is asked later.
    """
    settings = driver.settings
    return (
        settings.batch_size is None
        and settings.stragglers == 0.0
        and isinstance(settings.local_steps, int)
        and isinstance(settings.local_lr, float)
        and isinstance(driver.oracle, RunsRounds)
    )


def stretches(driver: RoundDriver) -> Iterator[Stretch]:
    """Run all rounds of a driver, several at once where they are plain."""
    t, last, plain = driver.settings.start_round, driver.settings.rounds, may_stretch(driver)
    while t < last:
        done = advance(driver, t, last - t if plain else 1)
        yield done
        t += len(done.path)


def advance(driver: RoundDriver, t: int, limit: int) -> Stretch:
    """Run round t, and up to `limit` rounds where they are plain and one call may run several."""
    if limit > 1 and driver.quiet and driver.method.sampling is None:
        oracle, context = driver.oracle, driver.context(t)
        assert isinstance(oracle, RunsRounds)
        driver.mark()
        driver.begin(context)
        context = driver.planned(context)
        limit = min(limit, _plain_rounds(driver.method, task_plan(context)))
        if limit > 1:
            task = driver.task(context)._replace(record=False)
            limit = min(limit, oracle.together(task))
            if limit > 1:
                draws = driver.draws(context, limit)
                return _settle(driver, context, draws, oracle.rounds(task, draws))
    return _single(driver, t)


def promised_rounds(method: Method, plan: Plan) -> int:
    """Return for how many rounds plan and extra costs of a method stay as they are, from now on."""
    if method.plan is train_everything and method.extra_cost is None:
        return FOREVER
    return plan.rounds


def _plain_rounds(method: Method, plan: Plan) -> int:
    """For how many rounds all train and share the same blocks."""
    plain = plan.trained and plan.blocks is None and not plan.kept and not plan.generated
    return promised_rounds(method, plan) if plain else 1


def _settle(driver: RoundDriver, context: RoundContext, draws: Draws, found: Rounds) -> Stretch:
    """Account for plain rounds, and let the driver go on from their end."""
    plan, traffic, count = task_plan(context), driver.traffic, len(found.path)
    downloads = []
    if draws.everybody:
        downloads = traffic.repeat(context.participants, plan.trained, count)
    else:
        for t in range(count):
            downloads.append(traffic.download(draws.round(t)[0]))
            traffic.publish(plan.trained)
    bills = np.zeros((count, 3), dtype=np.int64)
    if driver.counts_costs:
        bills += driver.plain_costs(context, draws)
        bills[:, 1] += downloads
    driver.adopt(context.round, plan, found.path[-1])
    driver.round = context.round + count
    return Stretch(context.round, plan, found.path, bills, found.drifts, found.starts)


def _single(driver: RoundDriver, t: int) -> Stretch:
    """One round of any method."""
    done = driver.step(t)
    bill = np.array([[done.floats_up, done.floats_down, done.multiply_adds]])
    apart = np.full((1, 2), np.nan)
    if driver.measures_drift:
        weights, ends = done.context.weights, done.ends
        mean, kernel = weighted_sum(weights, ends), driver.mask(driver.params.layout.kernel_blocks)
        apart[0] = [weighted_spread(weights, ends[:, p], mean[p]) for p in (kernel, ~kernel)]
    return Stretch(t, done.plan, done.flat[None], bill, apart, context=done.context)
