"""What looks wrong with a problem: one sentence per suspicion, with what was found."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from linattn._typing import AnyArray
from linattn.analysis.heterogeneity import pooled_gram
from linattn.objectives.population import population
from linattn.objectives.steps import client_value_curvatures
from linattn.types import Params, Problem

# Steps go with the third power of the tokens' scale, so a thousand is far.
FAR_SCALE = 1e3
FEW_SEQUENCES = 5
MOST_WEIGHT = 0.5
ILL_CONDITIONED = 1e8
SAME_CHANNEL = 1e-12
LARGE_STEP = 10.0


def suspicions(
    problem: Problem, params: Params, safe_step: float, *, local_lr: float | None = None
) -> tuple[str, ...]:
    """Return what looks wrong with a problem, one sentence each; nothing is an error.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start; gives the kernel at which steps are judged.
    safe_step : float
        `linattn.safe_step` there.
    local_lr : float, optional
        η.

    Notes
    -----
    Source: C15 (collapse at B = 0), C7 (stability of local steps). Cost: one pass over the
    statistics and a singular value of a (d², dm) matrix.
    """
    found = [*_scale(problem), *_channels(problem), *_clients(problem), *_ridges(problem)]
    if local_lr is not None and np.isfinite(safe_step):
        found += _steps(problem, params, safe_step, local_lr)
    return tuple(found)


def _scale(problem: Problem) -> Iterator[str]:
    pairs = (
        ("tokens", float(np.trace(pooled_gram(problem))) / problem.dim),
        ("targets", population(problem).form.energy / problem.num_outputs),
    )
    for name, square in pairs:
        if square == 0.0:
            yield f"all {name} are zero."
        elif not 1.0 / FAR_SCALE <= square <= FAR_SCALE:
            yield (
                f"{name} have a mean square of {square:.3g}: scale them to about 1, or steps and "
                "ridges mean little."
            )


def _channels(problem: Problem) -> Iterator[str]:
    gram = pooled_gram(problem)
    sizes = np.sqrt(np.diag(gram))
    live = np.flatnonzero(sizes > 0.0)
    if live.size < problem.dim:
        yield f"channels {_listed(np.flatnonzero(sizes == 0.0))} are zero in every token."
    if live.size == 0:
        return
    if sizes[live].max() > FAR_SCALE * sizes[live].min():
        small, large = live[np.argmin(sizes[live])], live[np.argmax(sizes[live])]
        yield (
            f"channel {large} is {sizes[large] / sizes[small]:.3g} times as large as channel "
            f"{small}: standardize them."
        )
    alike = gram[np.ix_(live, live)] / np.outer(sizes[live], sizes[live])
    low, high = np.nonzero(np.triu(np.abs(alike) >= 1.0 - SAME_CHANNEL, 1))
    if low.size:
        named = [f"{live[a]} and {live[b]}" for a, b in zip(low, high, strict=True)]
        yield f"channels {_listed(named)} are the same up to a factor, constants for instance."
        return
    eigenvalues = np.linalg.eigvalsh(alike)
    if eigenvalues[-1] > ILL_CONDITIONED * max(eigenvalues[0], 0.0):
        yield (
            "channels are nearly linearly dependent: the condition number of their correlations "
            f"is {eigenvalues[-1] / max(eigenvalues[0], np.finfo(float).tiny):.3g}."
        )


def _clients(problem: Problem) -> Iterator[str]:
    sizes, weights = problem.client_sizes, problem.weights
    few = np.flatnonzero(sizes < FEW_SEQUENCES)
    if few.size:
        yield (
            f"{few.size} of {sizes.size} clients hold fewer than {FEW_SEQUENCES} sequences: "
            f"{_listed(few)}."
        )
    heavy = int(np.argmax(weights))
    if sizes.size > 2 and weights[heavy] > MOST_WEIGHT:
        yield f"client {heavy} has {weights[heavy]:.0%} of the weight: F is nearly its own."
    digests = _digests(problem)
    owners: dict[tuple[bytes, ...], list[int]] = {}
    for i, (first, last) in enumerate(pairwise(problem.offsets.tolist())):
        owners.setdefault(tuple(sorted(digests[first:last])), []).append(i)
    copies = [held for held in owners.values() if len(held) > 1]
    if copies:
        named = [" and ".join(map(str, held[:3])) for held in copies]
        yield f"clients {_listed(named)} hold the same sequences: no drift comes from them."
        return
    repeated = len(digests) - len(set(digests))
    if repeated:
        yield f"{repeated} of {len(digests)} sequences are copies of others."


def _digests(problem: Problem) -> list[bytes]:
    """A digest of every sequence's statistics."""
    arrays = [array for array in problem.statistics if array is not None]
    return [
        hashlib.blake2b(b"".join(array[s].tobytes() for array in arrays), digest_size=16).digest()
        for s in range(problem.num_sequences)
    ]


def _ridges(problem: Problem) -> Iterator[str]:
    if problem.kernel_ridge == 0.0:
        yield "kernel_ridge is 0: (aB, V/a) predicts the same, so P need not have a minimizer."
        return
    held = problem.statistics
    cross, gram = held.cross_moments(), held.gram
    weighted = (cross * problem.sequence_weights[:, None, None]).reshape(len(gram), -1)
    tensor = (weighted.T @ gram.reshape(len(gram), -1)).reshape(*cross.shape[1:], *gram.shape[1:])
    slope = tensor.transpose(0, 2, 3, 1).reshape(problem.dim**2, -1)  # 𝒢 at B = 0, C15
    if not np.isfinite(slope).all():
        return
    gain = float(np.linalg.norm(slope, 2))
    threshold = float(np.sqrt(problem.value_ridge) * np.sqrt(problem.kernel_ridge))
    if gain <= threshold:
        yield (
            "ridges are so strong that B = 0 is the best merged kernel: √(λμ) is "
            f"{threshold:.3g}, and from {gain:.3g} on there is nothing to learn."
        )


def _steps(problem: Problem, params: Params, safe_step: float, local_lr: float) -> Iterator[str]:
    top = float(client_value_curvatures(problem, params).max())
    if local_lr * top >= 2.0:
        yield (
            f"local_lr {local_lr:.3g} is beyond 2/λ_max = {2.0 / top:.3g} of a client's value "
            "block at the start: its local steps grow."
        )
    elif local_lr > LARGE_STEP * safe_step:
        yield (
            f"local_lr {local_lr:.3g} is {local_lr / safe_step:.3g} times the safe step "
            f"{safe_step:.3g}."
        )


def _listed(items: Sequence[object] | AnyArray, most: int = 5) -> str:
    """The first few of a list, and how many more there are."""
    named = ", ".join(str(item) for item in items[:most])
    return named if len(items) <= most else f"{named} and {len(items) - most} more"
