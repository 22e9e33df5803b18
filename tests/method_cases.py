"""Small instances on which the methods are compared: one layer in both languages, and two."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from bridge import relative_error, same_bits
from worlds import APART, world

import linattn as la
from linattn.federated.rounds import choose_participants, draw_batches
from linattn.streams import stream

RUN = {"rounds": 4, "local_steps": 3, "record_params": True}
NOISY = {"batch_size": 2, "participation": 0.5, "seed": 9}
KINDS = ("merged", "factored", "deep")
RIDGE = {"kernel": 0.03, "value": 0.05}
WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])


class Case(NamedTuple):
    """An instance with a step size at which a few rounds stay finite."""

    problem: la.Problem
    params: la.Params
    step: float

    def run(self, method, **changes):
        """`RUN` at that step, unless it is changed."""
        settings = RUN | {"local_lr": self.step} | changes
        return la.run(method, self.problem, self.params, **settings)


def deep_case(seed=0, *, weights=None, **options):
    """(problem, params) of a two-layer model."""
    sizes = {"num_layers": 2, "dim": 3, "inner_dim": 2, "num_outputs": 2, "num_heads": 2}
    model = la.DeepAttention(**(sizes | {"feature_map": "relu", "residual": True} | options))
    problem = la.deep_problem(model, deep_clients(model, seed), ridge=RIDGE, weights=weights)
    return problem, model.initial_params(scale=0.5, seed=seed)


def deep_clients(model, seed):
    """Tokens and targets of three to six ragged sequences, shifted from client to client."""
    clients = []
    for i in range(4):
        rng = np.random.default_rng((seed, i))
        tokens = [rng.standard_normal((2 + s % 3, model.dim)) + 0.2 * i for s in range(3 + i)]
        rows = [len(x) if model.readout == "token" else 1 for x in tokens]
        clients.append((tokens, [rng.standard_normal((q, model.num_outputs)) for q in rows]))
    return clients


def case(kind, seed=0, **options):
    """The instance of a kind and a seed."""
    if kind == "deep":
        return Case(*deep_case(seed, **options), 0.02)
    levels = APART | {"kernel_heterogeneity": 0.5}
    problem = world(sequences_per_client=5, num_tokens=6, **levels, seed=seed, **options)
    params = la.initial_params(
        problem, num_heads=2, kernel=kind, scale=0.7, value="normal", seed=seed
    )
    return Case(problem, params, la.safe_step(problem, params))


def uneven_case(kind, seed=0):
    """The same with clients of unequal weight, at the step of equal ones."""
    held = case(kind, seed)
    return held._replace(problem=replace(held.problem, weights=WEIGHTS))


def drifting_world(**more):
    """Five clients on which drift takes back a good part of what training gains."""
    usual = {"num_clients": 5, "sequences_per_client": 8, "num_tokens": 6,
             "value_heterogeneity": 0.75, "covariate_heterogeneity": 0.3}  # fmt: skip
    problem = world(**(usual | more))
    return problem, la.initial_params(problem, scale=0.7)


def frozen_world(num_heads=1):
    """Unequal clients at a step of half of 1/max λ_max(A_i)."""
    problem = world(sequences_per_client=8, num_tokens=6, **APART, noise=0.0, weights=WEIGHTS)
    params = la.initial_params(problem, num_heads=num_heads, scale=0.7, value="normal")
    stage = la.frozen_stage(problem, params, local_steps=1, local_lr=1.0)
    return Case(problem, params, 0.5 / stage.largest_step_curvature)


def equal_runs(left, right, but=()):
    """Paths and whole histories equal to the bit."""
    assert left.outcome.status == right.outcome.status == "completed"
    assert all(same_bits(a, b) for a, b in zip(left.path, right.path, strict=True))
    names = [name for name in right.columns if name not in but]
    assert [name for name in left.columns if name not in but] == names
    for name in names:
        assert same_bits(left.columns[name], right.columns[name]), name


def close_runs(left, right, tolerance=1e-12):
    """Paths equal to a relative tolerance."""
    for a, b in zip(left.path, right.path, strict=True):
        assert relative_error(a.flat, b.flat) < tolerance


def check_continued(build, problem, params, stops, **options):
    """A run that was left at some round and gone on with is the whole run, to the bit."""
    options = {"record_params": True} | options
    whole = la.run(build(), problem, params, **options)
    for stop in stops:
        first = la.run(build(), problem, params, **(options | {"rounds": stop}))
        rest = la.run(
            build(), problem, first.params, start_round=stop, memory=first.memory, **options
        )
        assert all(same_bits(a, b) for a, b in zip(rest.path, whole.path[stop:], strict=True))
        for name, column in rest.columns.items():
            assert same_bits(column[1:], whole.columns[name][stop + 1 :]), name
        assert rest.history["round"].values.tolist() == list(range(stop, options["rounds"] + 1))
        assert (rest.freeze_round, rest.outcome) == (whole.freeze_round, whole.outcome)


def naive_run(held, steps=lambda t, i: RUN["local_steps"], step=lambda t: 1.0, normalized=False,
              rounds=RUN["rounds"], batch_size=None, participation=1.0, seed=0):  # fmt: skip
    """FedAvg or FedNova at multiples of the step, one client and one gradient at a time."""
    problem, x = held.problem, held.params.flat.copy()
    oracle = problem.oracle(held.params)
    for t in range(rounds):
        chosen = choose_participants(problem.num_clients, participation, seed, t)
        weights = problem.weights[chosen] / problem.weights[chosen].sum()
        moves, counts = [], []
        for i in chosen.tolist():
            count, w = steps(t, i), x.copy()
            batches = [None] * count
            if batch_size is not None:
                generator = stream(seed, "batch", i, t)
                batches = draw_batches(oracle.batch_limit(i), batch_size, count, generator)
            for batch in batches:
                w = w - held.step * step(t) * oracle.gradient(i, w, batch)
            moves.append(w - x)
            counts.append(count)
        if normalized:
            mean = sum(p * e for p, e in zip(weights, counts, strict=True))
            moves = [mean * move / e for move, e in zip(moves, counts, strict=True)]
        x = x + sum(p * move for p, move in zip(weights, moves, strict=True))
    return x


def log_slope(sizes, values):
    """Slope of log values against log sizes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
