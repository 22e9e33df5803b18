"""Worlds as validated fields: which clients, which model, which start; their making is seeded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from linattn._fields import Count, NonNegative, Part, Positive
from linattn._typing import Array
from linattn.attention import accuracy
from linattn.data.deep_tokens import DeepProblem, deep_problem
from linattn.data.synthetic import draw_clients, draw_sequences, synthetic_problem
from linattn.data.tokens import ClientData
from linattn.deep import DeepAttention
from linattn.objectives.starts import initial_params
from linattn.objectives.value import ValueBlock
from linattn.types import Params, Problem

Clients = list[tuple[Array, Array]]


class ProblemSpec(Part):
    """Arguments of `linattn.synthetic_problem`; the defaults are the base problem."""

    num_clients: Count = 8
    sequences_per_client: Count = 64
    num_tokens: Count = 16
    dim: Count = 6
    num_outputs: Count = 4
    num_heads: Count = 1
    value_heterogeneity: NonNegative = 0.0
    covariate_heterogeneity: NonNegative = 0.0
    kernel_heterogeneity: NonNegative = 0.0
    noise: NonNegative = 0.1
    shared_tokens: bool = False
    readout: Literal["token", "mean", "last"] = "token"
    value_ridge: Positive = 0.05
    kernel_ridge: NonNegative = 0.01

    def make(self, seed: int) -> Problem:
        """Return the problem."""
        return synthetic_problem(**msgspec.to_builtins(self), seed=seed)

    def clients(self, seed: int, *, fresh: bool = False) -> Clients:
        """Return tokens and targets of every client of `make`, from its streams.

        ``fresh=True`` draws other sequences of the same clients, for tests.
        """
        drawn = draw_clients(
            seed,
            num_clients=self.num_clients,
            dim=self.dim,
            num_outputs=self.num_outputs,
            num_heads=self.num_heads,
            value_heterogeneity=self.value_heterogeneity,
            covariate_heterogeneity=self.covariate_heterogeneity,
            kernel_heterogeneity=self.kernel_heterogeneity,
            shared_tokens=self.shared_tokens,
        )
        size = (self.sequences_per_client, self.num_tokens, self.dim)
        suffix = " test" if fresh else ""
        return [
            draw_sequences(client, size, noise=self.noise, readout=self.readout, suffix=suffix)
            for client in drawn
        ]


class InitialSpec(Part):
    """Arguments of `linattn.initial_params`; the default scale gives kernel entries N(0, .09)."""

    num_heads: Count = 1
    kernel: Literal["merged", "factored"] = "merged"
    rank: Count | None = None
    scale: Positive = 0.3 * math.sqrt(6.0)
    value: Literal["zeros", "normal", "minimizer"] = "zeros"

    def __post_init__(self) -> None:
        if self.kernel == "merged" and self.rank is not None:
            raise ValueError(
                f"initial.rank must be null for merged kernels, got {self.rank}; set "
                'initial.kernel="factored" to choose a rank.'
            )

    def make(self, problem: Problem, seed: int) -> Params:
        """Return the start."""
        return initial_params(problem, **msgspec.to_builtins(self), seed=seed)


class ModelSpec(Part):
    """Arguments of `linattn.DeepAttention` that the problem does not decide, and the start."""

    num_layers: Count = 2
    inner_dim: Count = 3
    feature_map: Literal["identity", "relu"] = "relu"
    residual: bool = True
    scale: Positive = 0.7

    def make(self, problem: ProblemSpec, seed: int) -> tuple[DeepProblem, Params]:
        """Return the deep problem on the clients of `problem`, and its start."""
        fields = msgspec.to_builtins(self)
        scale = fields.pop("scale")
        model = DeepAttention(
            dim=problem.dim,
            num_outputs=problem.num_outputs,
            num_heads=problem.num_heads,
            readout=problem.readout,
            **fields,
        )
        ridge = {"kernel": problem.kernel_ridge, "value": problem.value_ridge}
        deep = deep_problem(model, problem.clients(seed), ridge=ridge)
        return deep, model.initial_params(scale=scale, seed=seed)


class World(NamedTuple):
    """Problem, start and step size; `tests` are every client's own test tokens and labels.

    A regression has targets and queries in their place, and no share that is right.
    """

    problem: Problem | DeepProblem
    params: Params
    local_lr: float
    readout: str = "token"
    tests: list[ClientData] | None = None

    def share_right(self, models: Sequence[Params]) -> float:
        """Test accuracy of the models that clients use, over all their own test sequences."""
        if self.tests is None or len(self.tests[0]) != 2:
            return float("nan")
        right = [
            accuracy(model, tokens, labels, readout=self.readout) * len(labels)
            for model, (tokens, labels) in zip(models, self.tests, strict=True)
            if len(labels)  # a small client may have none
        ]
        return float(sum(right) / sum(len(labels) for _, labels in self.tests))


def consistent_targets(problem: Problem, params: Params) -> Problem:
    """Return the problem with targets for which every client's own gradient vanishes at V*.

    Client i gets the targets Φ V_i with V_i = V° + λ H_i⁻¹ V°, so that C_i = A_i V° and all
    g_i* = 0 although the A_i differ. V° is the value minimizer of `problem`.

    Notes
    -----
    Source: null control of C8. Cost: one solve of size Hd per client.
    """
    shape = params.value.shape
    common = ValueBlock(problem, params).minimizer().reshape(-1, shape[-1])
    kernels, held = params.kernels(), problem.statistics
    fields: dict[str, list[Array]] = {"cross": [], "target": [], "energy": []}
    for i in range(problem.num_clients):
        hessian = ValueBlock(problem.subset([i]), params).hessian
        features = hessian - problem.value_ridge * np.eye(len(hessian))
        teacher = common + problem.value_ridge * np.linalg.solve(features, common)
        part = held.take(problem.client(i))
        pulled = np.einsum("hab,sbc,hcm->sam", kernels, part.gram, teacher.reshape(shape))
        if part.query is None:
            cross = part.query_moments() @ pulled
            fields["cross"].append(cross)
            fields["energy"].append(np.einsum("sam,sam->s", pulled, cross))
        else:
            target = np.einsum("sa,sam->sm", part.query, pulled)
            fields["target"].append(target)
            fields["energy"].append(np.einsum("sm,sm->s", target, target))
    new = {name: np.concatenate(arrays) for name, arrays in fields.items() if arrays}
    return replace(problem, statistics=held._replace(**new))
