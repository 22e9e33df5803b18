"""All draws of sampled frozen rounds, one by one: what exact moments are compared with.

At a frozen kernel every draw of a round maps V to M V + c. This module lists the maps of all
subsets of clients, minibatches and numbers of local steps with their probabilities, from the
naive twin's matrices.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import reference as ref


class Draws(NamedTuple):
    """How a round is drawn; `steps` holds E_i."""

    steps: list
    step_size: float
    num_drawn: int
    sampling: str = "uniform"
    batch_size: int | None = None
    stragglers: float = 0.0


class Maps(NamedTuple):
    """V -> matrix V + shift with a probability, for N draws: (N,), (N, n, n), (N, n, m)."""

    chances: np.ndarray
    matrices: np.ndarray
    shifts: np.ndarray


def batch_steps(inst, i, theta, draws):
    """One local step of client i for every minibatch, all equally probable."""
    sequences = inst.clients[i]
    size = min(draws.batch_size or len(sequences), len(sequences))
    matrices, shifts = [], []
    for chosen in combinations(range(len(sequences)), size):
        alone = inst._replace(clients=[[sequences[s] for s in chosen]])
        hessian = ref.client_matrix(alone, 0, theta)
        matrices.append(np.eye(len(hessian)) - draws.step_size * hessian)
        shifts.append(draws.step_size * ref.client_linear(alone, 0, theta))
    count = len(matrices)
    return Maps(np.full(count, 1 / count), np.array(matrices), np.array(shifts))


def after(later, first):
    """Every map of `later` after every map of `first`, drawn independently."""
    size, outputs = first.shifts.shape[1:]
    chances = later.chances[:, None] * first.chances[None]
    matrices = later.matrices[:, None] @ first.matrices[None]
    shifts = later.matrices[:, None] @ first.shifts[None] + later.shifts[:, None]
    return Maps(
        chances.reshape(-1), matrices.reshape(-1, size, size), shifts.reshape(-1, size, outputs)
    )


def joined(parts):
    """The maps of several lists in one."""
    return Maps(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def client_rounds(inst, i, theta, draws):
    """All local steps of client i, for every number of them that it may take."""
    single = batch_steps(inst, i, theta, draws)
    whole, parts, count = single, [], draws.steps[i]
    for e in range(1, count + 1):
        chance = draws.stragglers / count + (1 - draws.stragglers) * (e == count)
        if chance > 0:
            parts.append(whole._replace(chances=chance * whole.chances))
        whole = after(single, whole) if e < count else whole
    return joined(parts)


def weight_draws(p, count, sampling):
    """(probability, {client: averaging weight}) of every draw of clients."""
    if sampling == "uniform":
        subsets = list(combinations(range(len(p)), count))
        for chosen in subsets:
            total = sum(p[i] for i in chosen)
            yield 1 / len(subsets), {i: p[i] / total for i in chosen}
        return
    for drawn in product(range(len(p)), repeat=count):
        yield (
            float(np.prod([p[i] for i in drawn])),
            {i: drawn.count(i) / count for i in set(drawn)},
        )


def round_maps(inst, theta, draws):
    """All maps of one round."""
    ends = [client_rounds(inst, i, theta, draws) for i in range(len(inst.weights))]
    parts = []
    for chance, weights in weight_draws(inst.weights, draws.num_drawn, draws.sampling):
        mean = None
        for i, w in weights.items():
            own = Maps(ends[i].chances, w * ends[i].matrices, w * ends[i].shifts)
            mean = own if mean is None else independent_sum(mean, own)
        parts.append(mean._replace(chances=chance * mean.chances))
    return joined(parts)


def independent_sum(left, right):
    """Sums of every map of `left` with every map of `right`."""
    size, outputs = left.shifts.shape[1:]
    return Maps(
        (left.chances[:, None] * right.chances[None]).reshape(-1),
        (left.matrices[:, None] + right.matrices[None]).reshape(-1, size, size),
        (left.shifts[:, None] + right.shifts[None]).reshape(-1, size, outputs),
    )


class Listed(NamedTuple):
    """Exact moments after some rounds: E[V] (n, m), E[eeᵀ] (n, n), E F − P, number of outcomes."""

    mean: np.ndarray
    second_moment: np.ndarray
    expected_gap: float
    outcomes: int


def listed_moments(inst, theta, V, draws, rounds):
    """The moments of V after `rounds` rounds, over all outcomes."""
    single = round_maps(inst, theta, draws)
    assert abs(single.chances.sum() - 1) < 1e-12
    whole = single
    for _ in range(rounds - 1):
        whole = after(single, whole)
    values = whole.matrices @ ref.stack(V) + whole.shifts
    errors = values - ref.stack(ref.minimizer(inst, theta))
    second = np.einsum("k,kam,kbm->ab", whole.chances, errors, errors, optimize=True)
    mean = np.tensordot(whole.chances, values, 1)
    gap = 0.5 * float(np.trace(ref.value_matrix(inst, theta) @ second))
    return Listed(mean, second, gap, len(whole.chances))
