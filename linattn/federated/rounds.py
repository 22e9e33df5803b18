"""`run`: the one loop over rounds — participation, local steps, averaging, observers, outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from linattn._checks import one_of, positive_int, real
from linattn._threads import one_blas_thread
from linattn._typing import Array, BoolArray, IntArray
from linattn.data.deep_tokens import DeepProblem
from linattn.federated.accounting import Traffic
from linattn.federated.deep_oracle import DeepOracle
from linattn.federated.method import Method, Plan, Proposal, RoundContext
from linattn.federated.oracle import (
    METRICS,
    LocalTask,
    LocalTrace,
    Oracle,
    StatisticsOracle,
    explicit_steps,
)
from linattn.federated.result import Outcome, Result
from linattn.objectives.joint import check_fits
from linattn.streams import stream
from linattn.types import Federation, Params, Problem

DRIVER_METRICS = (
    "kernel_drift",
    "value_drift",
    "kernel_trained",
    "local_lr",
    "floats_up",
    "floats_down",
)
ALL_METRICS = (*METRICS, *DRIVER_METRICS)


class Settings(NamedTuple):
    """How rounds are run, whatever the method."""

    rounds: int
    local_steps: int
    local_lr: float
    batch_size: int | None
    participation: float
    seed: int
    start_round: int


class Round(NamedTuple):
    """One finished round: what observers see.

    Attributes
    ----------
    context : RoundContext
        The state before the round.
    plan : Plan
        The plan that was accepted.
    ends : array, shape (P, D)
    flat : array, shape (D,)
        Server parameters after the round.
    trace : LocalTrace or None
        Every local step, if recorded.
    floats_up, floats_down : int
        Of this round, rejected proposals included.
    memory : object
        Server memory after the round.
    """

    context: RoundContext
    plan: Plan
    ends: Array
    flat: Array
    trace: LocalTrace | None
    floats_up: int
    floats_down: int
    memory: Any


def run(
    method: Method,
    problem: Problem | DeepProblem,
    params: Params,
    *,
    rounds: int,
    local_steps: int,
    local_lr: float,
    batch_size: int | None = None,
    participation: float = 1.0,
    seed: int = 0,
    record_params: bool = False,
    metrics: Sequence[str] | None = None,
    evaluate: Callable[[Params], Mapping[str, float]] | None = None,
    start_round: int = 0,
    memory: Any = None,
) -> Result:
    """Run a federated method by explicit local gradient steps.

    Every round all participants start at the server's parameters, take `local_steps` steps of size
    `local_lr` on F_i, and the server averages with w_i = p_i / Σ_S p_j.

    Parameters
    ----------
    method : Method
    problem : Problem or DeepProblem
    params : Params
        Start.
    rounds : int
        R; the run ends after round R − 1, whatever `start_round`.
    local_steps : int
        E.
    local_lr : float
        η, for every trained parameter.
    batch_size : int, optional
        Each local step draws min(batch_size, n_i) of the client's sequences without replacement,
        from the stream (seed, "batch", client, round); default all.
    participation : float
        Share of the clients per round, max(1, round(participation·C)) of them uniformly without
        replacement, from the stream (seed, "participation", round). With unequal p the mean of w_i
        is not p_i: sampled FedAvg then aims at a slightly different average, as in practice.
    seed : int
    record_params : bool
        Keep the server parameters of every round in ``result.path``.
    metrics : sequence of str, optional
        Which of `linattn.federated.rounds.ALL_METRICS` to compute; default all. A `DeepProblem` has
        neither profile nor gap.
    evaluate : callable (Params) -> dict, optional
        Test quantities added to the history.
    start_round : int
        Continue a run at this round; with ``memory=result.memory`` it continues bit for bit.
    memory : object, optional
        ``Result.memory`` of the run that is continued.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If an argument is out of range or the parameters do not fit the problem.

    Notes
    -----
    Source: theory section 3. Cost: rounds · E · Σ_S n_i (5H + 1) d² m multiply-adds (token
    readout), plus one evaluation of the metrics per round.
    """
    oracle = make_oracle(problem, params)
    settings = check_settings(
        rounds=rounds,
        local_steps=local_steps,
        local_lr=local_lr,
        batch_size=batch_size,
        participation=participation,
        seed=seed,
        start_round=start_round,
    )
    chosen = check_metrics(oracle, metrics)
    driver = RoundDriver(method, problem, oracle, params, settings, memory=memory)
    history = _History(oracle, chosen, evaluate)
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        return _observe(driver, history, settings, params, record_params)


def make_oracle(problem: Problem | DeepProblem, params: Params) -> Oracle:
    """Return the oracle of a problem, once the parameters are known to fit it."""
    if isinstance(problem, DeepProblem):
        problem.model.check_params(params)
        return DeepOracle(problem)
    check_fits(problem, params)
    return StatisticsOracle(problem, params.layout)


def check_metrics(oracle: Oracle, metrics: Sequence[str] | None) -> tuple[str, ...]:
    """Return the metrics that were asked for, by default all that the problem has."""
    chosen = (*oracle.metric_names, *DRIVER_METRICS) if metrics is None else tuple(metrics)
    for name in chosen:
        one_of("metrics", name, ALL_METRICS)
        if name in METRICS and name not in oracle.metric_names:
            raise ValueError(
                f"metrics must leave out {name!r} for a deep problem, which has only "
                f"{', '.join(map(repr, oracle.metric_names))}: the kernel profile needs one layer."
            )
    return chosen


def check_settings(
    *,
    rounds: int,
    local_steps: int,
    local_lr: float,
    batch_size: int | None = None,
    participation: float = 1.0,
    seed: int = 0,
    start_round: int = 0,
) -> Settings:
    """Validate the arguments that all runs share."""
    if batch_size is not None:
        batch_size = positive_int("batch_size", batch_size)
    rounds = positive_int("rounds", rounds, minimum=0)
    start_round = positive_int("start_round", start_round, minimum=0)
    if start_round > rounds:
        raise ValueError(f"start_round must be <= rounds = {rounds}, got {start_round}.")
    return Settings(
        rounds,
        positive_int("local_steps", local_steps),
        real("local_lr", local_lr, above=0.0),
        batch_size,
        real("participation", participation, above=0.0, maximum=1.0),
        positive_int("seed", seed, minimum=0),
        start_round,
    )


def _observe(
    driver: RoundDriver,
    history: _History,
    settings: Settings,
    params: Params,
    record_params: bool,
) -> Result:
    """Drive to the end or to divergence, filling the history."""
    history.start(params)
    path = [params]
    outcome = Outcome("completed", settings.rounds, "")
    for t in range(settings.start_round, settings.rounds):
        try:
            done = driver.step(t)
            trouble = history.add(done, driver.params)
        except FloatingPointError as error:
            trouble = str(error)
        if trouble:
            outcome = Outcome("diverged", t, trouble)
            break
        params = driver.params
        if record_params:
            path.append(params)
    return Result(
        params=params,
        path=path if record_params else [],
        outcome=outcome,
        freeze_round=driver.freeze_round,
        start_round=settings.start_round,
        columns=history.columns(),
        memory=driver.memory,
    )


class RoundDriver:
    """Iterator over finished rounds; observers decide what to keep.

    Client memory is keyed by client and created when first used; nothing here depends on the
    number of clients that never participate.
    """

    def __init__(
        self,
        method: Method,
        problem: Federation,
        oracle: Oracle,
        params: Params,
        settings: Settings,
        *,
        memory: Any = None,
        record: bool = False,
    ) -> None:
        self.method = method
        self.problem = problem
        self.oracle = oracle
        self.settings = settings
        self.record = record or method.records_steps
        self.params = params
        self.traffic = Traffic(params.layout)
        self.server: Any = None
        self.clients: dict[int, Any] = {}
        self.freeze_round: int | None = None
        self._begun = False
        if memory is not None:
            self.server, self.clients, self.traffic, self.freeze_round = memory.restore()
            self._begun = True

    @property
    def memory(self) -> Memory:
        """Everything a continued run needs besides parameters and round."""
        return Memory(self.server, dict(self.clients), self.traffic.copy(), self.freeze_round)

    def __iter__(self) -> Iterator[Round]:
        for t in range(self.settings.start_round, self.settings.rounds):
            yield self.step(t)

    def step(self, t: int) -> Round:
        """Run round t: plan, train, review until accepted, aggregate."""
        context = self._context(t)
        if not self._begun:
            self._begun = True
            if self.method.server_memory is not None:
                self.server = self.method.server_memory(context)
        for i in context.participants.tolist():
            self._client(context, i)
        up = down = 0
        while True:
            plan = self.method.plan(context, self.server)
            task = self._task(context, plan)
            down += self.traffic.download(context.participants)
            ends, trace = self._train(context, plan, task)
            proposal = Proposal(plan, ends, context.weights @ ends, trace)
            up += self._uploads(context, plan)
            verdict = None
            if self.method.review is not None:
                verdict = self.method.review(context, self.server, proposal)
            if verdict is None:
                break
            self.server = verdict
        flat = self._aggregate(context, proposal)
        self.traffic.publish(plan.trained)
        if plan.trained & self.params.layout.kernel_blocks:
            self.freeze_round = None
        elif self.freeze_round is None:
            self.freeze_round = t
        self.params = Params(self.params.layout, flat)
        return Round(context, plan, ends, flat, trace, up, down, self.server)

    def _context(self, t: int) -> RoundContext:
        participants = choose_participants(
            self.oracle.num_clients, self.settings.participation, self.settings.seed, t
        )
        chosen = self.problem.weights[participants]
        everyone = len(participants) == self.oracle.num_clients
        return RoundContext(
            round=t,
            params=self.params,
            participants=participants,
            weights=chosen if everyone else chosen / chosen.sum(),
            local_steps=self.settings.local_steps,
            local_lr=self.settings.local_lr,
            problem=self.problem,
            oracle=self.oracle,
        )

    def _task(self, context: RoundContext, plan: Plan) -> LocalTask:
        count, flat = len(context.participants), context.params.flat
        mask = np.tile(context.params.layout.mask(plan.trained), (count, 1))
        prox, shift = self._directions(context)
        return LocalTask(
            context.participants,
            np.tile(flat, (count, 1)),
            flat,
            mask,
            context.local_steps,
            plan.local_lr,
            prox,
            shift,
            self._batches(context),
            self.record,
        )

    def _directions(self, context: RoundContext) -> tuple[float, Array]:
        """The prox weight, and shifts stacked over participants."""
        size = context.params.layout.size
        if self.method.direction is None:
            return 0.0, np.zeros((0, size))
        terms = [
            self.method.direction(context, int(i), self.server, self._client(context, int(i)))
            for i in context.participants
        ]
        if len({term.prox for term in terms}) > 1:
            raise ValueError("direction must give all participants of a round the same prox.")
        shifts = [np.zeros(size) if term.shift is None else term.shift for term in terms]
        any_shift = any(term.shift is not None for term in terms)
        return terms[0].prox, np.stack(shifts) if any_shift else np.zeros((0, size))

    def _client(self, context: RoundContext, client: int) -> Any:
        if self.method.client_memory is not None and client not in self.clients:
            self.clients[client] = self.method.client_memory(context, client)
        return self.clients.get(client)

    def _batches(self, context: RoundContext) -> list[IntArray] | None:
        size = self.settings.batch_size
        if size is None:
            return None
        return [
            draw_batches(
                self.oracle.batch_limit(int(i)),
                size,
                context.local_steps,
                stream(self.settings.seed, "batch", int(i), context.round),
            )
            for i in context.participants
        ]

    def _train(
        self, context: RoundContext, plan: Plan, task: LocalTask
    ) -> tuple[Array, LocalTrace | None]:
        penalty = self.method.penalty_gradient
        if penalty is None:
            return self.oracle.train(task)
        return explicit_steps(
            self.oracle, task, lambda i, flat: penalty(context, i, self.clients.get(i), flat)
        )

    def _uploads(self, context: RoundContext, plan: Plan) -> int:
        extra = self.method.extra_floats_up
        per_client = 0 if extra is None else extra(context, self.server)
        trained = int(context.params.layout.mask(plan.trained).sum())
        return len(context.participants) * (trained + per_client)

    def _aggregate(self, context: RoundContext, proposal: Proposal) -> Array:
        if self.method.update_client is not None:
            for k, i in enumerate(context.participants.tolist()):
                self.clients[i] = self.method.update_client(
                    context, i, self.server, self._client(context, i), proposal.ends[k]
                )
        if self.method.aggregate is not None:
            flat, self.server = self.method.aggregate(context, self.server, proposal)
            return flat
        # Entries nobody trained stay exactly: a weighted mean of equal numbers may round.
        trained = context.params.layout.mask(proposal.plan.trained)
        return np.where(trained, proposal.mean, context.params.flat)


class Memory(NamedTuple):
    """What a continued run needs: server and client memories, what clients hold, the freezing."""

    server: Any
    clients: dict[int, Any]
    traffic: Traffic
    freeze_round: int | None

    def restore(self) -> Memory:
        """Independent copies, so that one memory may start several runs."""
        return self._replace(clients=dict(self.clients), traffic=self.traffic.copy())


def choose_participants(num_clients: int, participation: float, seed: int, t: int) -> IntArray:
    """Return the sorted participants of round t."""
    count = max(1, round(participation * num_clients))
    if count == num_clients:
        return np.arange(num_clients, dtype=np.int64)
    drawn = stream(seed, "participation", t).choice(num_clients, count, replace=False)
    return np.sort(drawn).astype(np.int64)


def draw_batches(
    count: int, batch_size: int, local_steps: int, generator: np.random.Generator
) -> IntArray:
    """Return sorted minibatches of every local step, (E, min(batch_size, count))."""
    size = min(batch_size, count)
    drawn = [generator.choice(count, size, replace=False) for _ in range(local_steps)]
    return np.sort(np.stack(drawn), axis=1).astype(np.int64)


class _History:
    """Columns of the history, one entry per round and one for the start."""

    def __init__(
        self,
        oracle: Oracle,
        names: tuple[str, ...],
        evaluate: Callable[[Params], Mapping[str, float]] | None,
    ) -> None:
        self.oracle = oracle
        self.names = names
        self.evaluate = evaluate
        self.rows: list[dict[str, float]] = []

    def start(self, params: Params) -> None:
        """Entry 0: the start, before any training."""
        try:
            row = self._global(params)
        except FloatingPointError as error:
            raise ValueError(
                f"params must have a finite objective at the start: {error}."
            ) from None
        bad = _not_finite(row)
        if bad:
            raise ValueError(f"params must have a finite objective at the start, got a {bad}.")
        nothing = {"kernel_trained": False, "floats_up": 0, "floats_down": 0}
        for name in DRIVER_METRICS:
            if name in self.names:
                row[name] = nothing.get(name, np.nan)
        self.rows.append(row)

    def _global(self, params: Params) -> dict[str, float]:
        row = self.oracle.metrics(params, self.names)
        if self.evaluate is not None:
            row.update({name: float(x) for name, x in self.evaluate(params).items()})
        return row

    def add(self, done: Round, params: Params) -> str:
        """Append the entry after a round; return why it diverged, or nothing."""
        if not np.isfinite(done.flat).all():
            return "non-finite parameters"
        row = self._global(params)
        bad = _not_finite(row)
        if bad:
            return bad
        row.update(self._local(done))
        self.rows.append(row)
        return ""

    def _local(self, done: Round) -> dict[str, float]:
        layout = done.context.params.layout
        kernel = layout.mask(layout.kernel_blocks)
        spread = done.ends - done.context.weights @ done.ends
        row = {
            "kernel_drift": weighted_norm(done.context.weights, spread[:, kernel]),
            "value_drift": weighted_norm(done.context.weights, spread[:, ~kernel]),
            "kernel_trained": bool(done.plan.trained & layout.kernel_blocks),
            "local_lr": done.plan.local_lr,
            "floats_up": done.floats_up,
            "floats_down": done.floats_down,
        }
        return {name: x for name, x in row.items() if name in self.names}

    def columns(self) -> dict[str, Array | BoolArray | IntArray]:
        """The history as arrays."""
        return {name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}


def _not_finite(row: Mapping[str, float]) -> str:
    """The first global quantity that is NaN or infinite, if any."""
    bad = [name for name in METRICS if not np.isfinite(row.get(name, 0.0))]
    return f"non-finite {bad[0]}" if bad else ""


def weighted_norm(weights: Array, rows: Array) -> float:
    """(Σ w_i ‖row_i‖²)^½."""
    return float(np.sqrt(weights @ np.einsum("ij,ij->i", rows, rows)))
