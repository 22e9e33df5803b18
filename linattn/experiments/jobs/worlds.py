"""The clients that the methods of a run share, and what is observed while they train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import numpy as np

import linattn as la
from linattn._typing import Array, IntArray
from linattn.attention import predict
from linattn.data.synthetic import draw_client
from linattn.experiments.method_specs import WorldSpec
from linattn.experiments.specs import ProblemSpec
from linattn.federated.method import Proposal, average
from linattn.oracles.protocol import Oracle
from linattn.streams import stream
from linattn.types import Federation

Clients = list[tuple[Array, Array]]
Observe = Callable[[la.RoundContext, Proposal], None]


class World(NamedTuple):
    """Problem, start and step size; `tests` are every client's own test tokens and labels."""

    problem: la.Problem | la.DeepProblem
    params: la.Params
    local_lr: float
    readout: str = "token"
    tests: list[tuple[Array, IntArray]] | None = None


def make_world(spec: WorldSpec) -> World:
    """Return the world of a spec."""
    if spec.data != "synthetic":
        return _real_world(spec)
    if not spec.deep:
        problem = la.synthetic_problem(**msgspec.to_builtins(spec.problem), seed=spec.seed)
        return World(problem, _start(spec, problem), spec.local_lr)
    held, made = spec.problem, msgspec.to_builtins(spec.model)
    scale = made.pop("scale")
    model = la.DeepAttention(
        dim=held.dim, num_outputs=held.num_outputs, num_heads=held.num_heads,
        readout=held.readout, **made,
    )  # fmt: skip
    ridge = {"kernel": held.kernel_ridge, "value": held.value_ridge}
    deep = la.deep_problem(model, synthetic_clients(held, seed=spec.seed), ridge=ridge)
    return World(deep, model.initial_params(scale=scale, seed=spec.seed), spec.local_lr)


def synthetic_clients(problem: ProblemSpec, *, seed: int, fresh: bool = False) -> Clients:
    """Return tokens and targets of every client of `linattn.synthetic_problem`, from its streams.

    ``fresh=True`` draws other sequences of the same clients, for tests.
    """
    held, suffix = problem, " test" if fresh else ""
    size = (held.sequences_per_client, held.num_tokens, held.dim)
    out = []
    for i in range(held.num_clients):
        owner = 0 if held.shared_tokens else i
        drawn = draw_client(
            seed,
            i,
            dim=held.dim,
            num_outputs=held.num_outputs,
            num_heads=held.num_heads,
            value_heterogeneity=held.value_heterogeneity,
            covariate_heterogeneity=held.covariate_heterogeneity,
            kernel_heterogeneity=held.kernel_heterogeneity,
            covariates_of=owner,
        )
        tokens = stream(seed, f"tokens{suffix}", owner).normal(size=size) @ drawn.mixing.T
        clean = np.asarray(predict(drawn.teacher, tokens, readout=held.readout))
        noise = stream(seed, f"noise{suffix}", i).normal(size=clean.shape)
        out.append((tokens, clean + held.noise * noise))
    return out


def _start(spec: WorldSpec, problem: la.Problem) -> la.Params:
    return la.initial_params(problem, **msgspec.to_builtins(spec.initial), seed=spec.seed)


def _real_world(spec: WorldSpec) -> World:
    if spec.data == "digits":
        data = la.digits_split("dirichlet", alpha=spec.alpha, seed=spec.seed)
    else:
        data = la.watch_split("sides", seed=spec.seed)
    problem = la.problem_from_tokens(
        data.train, readout=data.readout, value_ridge=1e-4, kernel_ridge=1e-4
    )
    params = _start(spec, problem)
    step = spec.step_factor * la.safe_step(problem, params)
    return World(problem, params, step, data.readout, data.client_tests)


def train(
    method: la.Method, world: World, spec: WorldSpec, *, observe: Observe | None = None, **more: Any
) -> la.Result:
    """Run a method in a world; `observe` sees every proposal before it is aggregated."""
    settings: dict[str, Any] = {
        "rounds": spec.rounds,
        "local_steps": spec.local_steps,
        "local_lr": world.local_lr,
        "seed": spec.seed,
    }
    if observe is not None:
        method = observed(method, observe)
    start = more.pop("params", world.params)
    return la.run(method, world.problem, start, **settings | more)


def observed(method: la.Method, observe: Observe) -> la.Method:
    """Return the same method, whose proposals are shown to `observe`."""
    inner = method.aggregate

    def aggregate(context: la.RoundContext, memory: Any, proposal: Proposal) -> tuple[Array, Any]:
        observe(context, proposal)
        if inner is None:
            return average(context, proposal), memory
        return inner(context, memory, proposal)

    return replace(method, aggregate=aggregate)


def predictions(oracle: Oracle, problem: Federation, params: la.Params) -> Array:
    """Return the predictions of a model on all training sequences as one vector.

    Sequences are scaled by (p_i/n_i)^½ and single-layer queries replaced by rows with the same
    inner products, so that norms are those of F's loss.
    """
    parts = []
    for client, weight in enumerate(problem.weights):
        root = np.sqrt(weight / oracle.batch_limit(client))
        parts.append(root * oracle.predictions(client, params.flat).reshape(-1))
    return np.concatenate(parts)


def output_mismatch(
    oracle: Oracle, problem: Federation, models: Sequence[la.Params], weights: Array
) -> tuple[Array, float]:
    """Return F(w̄) − Σ w_i F(w_i) on all training sequences, and the norm of Σ w_i F(w_i)."""
    mean = la.Params(models[0].layout, weights @ np.stack([model.flat for model in models]))
    made = np.stack([predictions(oracle, problem, model) for model in models])
    averaged = weights @ made
    return predictions(oracle, problem, mean) - averaged, float(np.linalg.norm(averaged))


def relative_mismatch(context: la.RoundContext, proposal: Proposal) -> float:
    """‖F(w̄) − Σ w_i F(w_i)‖/‖Σ w_i F(w_i)‖ of a round, NaN where some block is not averaged."""
    if proposal.plan.kept or proposal.plan.generated:
        return float("nan")
    models = [la.Params(context.params.layout, end) for end in proposal.ends]
    off, scale = output_mismatch(context.oracle, context.problem, models, context.weights)
    return float(np.linalg.norm(off)) / max(scale, np.finfo(float).tiny)


def share_right(world: World, models: Sequence[la.Params]) -> float:
    """Test accuracy of the models that clients use, over all their own test sequences."""
    if world.tests is None:
        return float("nan")
    right = [
        la.accuracy(model, tokens, labels, readout=world.readout) * len(labels)
        for model, (tokens, labels) in zip(models, world.tests, strict=True)
        if len(labels)  # a small client may have none
    ]
    return float(sum(right) / sum(len(labels) for _, labels in world.tests))


def padded(values: Array, length: int) -> Array:
    """Return a column of a run at full length, NaN after a divergence."""
    out = np.full(length, np.nan)
    out[: len(values)] = values
    return out
