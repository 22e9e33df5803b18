"""In-context linear regression as a federated world: its best model is known without any fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from linattn._checks import MOST_ENTRIES, as_float64, is_listing, listing, positive_int, real
from linattn._threads import one_blas_thread
from linattn._typing import Array, IntArray
from linattn.data.tokens import problem_from_tokens
from linattn.linalg import square_root
from linattn.streams import stream
from linattn.types import Problem

# Asymmetry and negative eigenvalues that rounding explains, relative to the largest entry.
SYMMETRY_SLACK = 1e-12
# Third powers must be finite, and so must the largest number of tokens as a float.
LARGEST_VARIANCE = 1e100
LONGEST = 2**53


def in_context_covariances(
    *, num_clients: int, dim: int, covariance_heterogeneity: float = 0.0, seed: int = 0
) -> Array:
    """Return the covariances Λ_i of the clients of `in_context_problem`, (C, D, D), diagonal.

    The eigenvalues are exp(a z − a²/2), z ~ N(0, 1), with mean one; a = covariance_heterogeneity.

    Parameters
    ----------
    num_clients, dim : int
        C and the number of features D.
    covariance_heterogeneity : float
        a ≥ 0; every Λ_i = I at 0.
    seed : int
        Streams (seed, covariance, client).

    Raises
    ------
    ValueError
        If an argument is out of range.

    Notes
    -----
    Source: C22 (the covariances commute, so that the joint optimum has a formula). Cost: none.
    """
    spread = real("covariance_heterogeneity", covariance_heterogeneity, minimum=0.0, maximum=100.0)
    positive_int("dim", dim, maximum=MOST_ENTRIES)
    seed = positive_int("seed", seed, minimum=0, maximum=None)
    draws = [
        stream(seed, "covariance", i).normal(size=dim)
        for i in range(positive_int("num_clients", num_clients))
    ]
    return np.stack([np.diag(np.exp(spread * z - 0.5 * spread**2)) for z in draws])


def in_context_problem(
    *,
    num_clients: int,
    sequences_per_client: int,
    context_length: int | Sequence[int],
    dim: int,
    value_ridge: float,
    kernel_ridge: float,
    covariance_heterogeneity: float = 0.0,
    noise: float | Sequence[float] = 0.0,
    covariances: Any = None,
    weights: Sequence[float] | str | None = None,
    seed: int = 0,
) -> Problem:
    """Return the problem of predicting ⟨w, x_q⟩ from examples of a new w in every sequence.

    The context tokens are z_j = (x_j, y_j), j ≤ n, with x ~ N(0, Λ_i), y = ⟨w, x⟩ + ε,
    w ~ N(0, I), ε ~ N(0, σ²); the query is (x_q, 0) and the target ⟨w, x_q⟩. G is made of the
    context only. d = D + 1, m = 1.

    Parameters
    ----------
    num_clients, sequences_per_client : int
        C and S_i.
    context_length : int or one int per client
        n.
    dim : int
        Number of features D; tokens have D + 1 channels.
    value_ridge, kernel_ridge : float
        λ > 0 and μ ≥ 0.
    covariance_heterogeneity : float
        a of `in_context_covariances`.
    noise : float or one float per client
        Standard deviation σ of the context's targets.
    covariances : array, shape (C, D, D), optional
        Λ_i in place of those drawn; they need not commute.
    weights : None, "equal" or sequence of float
    seed : int
        Streams (seed, name, client) with name in covariance, context, task, noise, query.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range or a covariance is not symmetric positive semidefinite.

    Notes
    -----
    Source: C22; the world is that of Ahn et al. (arXiv 2306.00297) and Zhang, Frei and Bartlett
    (arXiv 2306.09927). `in_context_optimum` is its best model.
    Cost: O(C S n D²).

    Examples
    --------
    >>> in_context_problem(num_clients=2, sequences_per_client=3, context_length=4, dim=2,
    ...     value_ridge=0.1, kernel_ridge=0.1)
    Problem(2 clients, 6 sequences, dim 3, 1 outputs, readout 'queries', value_ridge 0.1, \
kernel_ridge 0.1)
    """
    count, size = positive_int("num_clients", num_clients), positive_int("dim", dim)
    if covariances is None:
        held = in_context_covariances(
            num_clients=count,
            dim=size,
            covariance_heterogeneity=covariance_heterogeneity,
            seed=seed,
        )
    else:
        held = check_covariances(covariances)
        if held.shape[:2] != (count, size) or covariance_heterogeneity != 0.0:
            raise ValueError(
                f"covariances must be ({count}, {size}, {size}) for these clients and features and "
                f"go without covariance_heterogeneity, got shape {held.shape} and "
                f"{covariance_heterogeneity!r}."
            )
    return problem_from_tokens(
        in_context_clients(
            held,
            sequences_per_client=sequences_per_client,
            context_length=context_length,
            noise=noise,
            seed=seed,
        ),
        value_ridge=value_ridge,
        kernel_ridge=kernel_ridge,
        weights=weights,
    )


def in_context_clients(
    covariances: Array,
    *,
    sequences_per_client: int,
    context_length: int | Sequence[int],
    noise: float | Sequence[float] = 0.0,
    seed: int = 0,
) -> Iterator[tuple[Array, Array, Array]]:
    """Yield tokens (S, n, D + 1), targets (S, 1, 1) and queries (S, 1, D + 1) of every client.

    Parameters
    ----------
    covariances : array, shape (C, D, D)
        Λ_i, symmetric positive semidefinite.
    sequences_per_client, context_length, noise, seed
        As in `in_context_problem`; another seed draws other sequences, for tests.

    Raises
    ------
    TypeError, ValueError
        As `in_context_problem`.

    Notes
    -----
    Source: C22. Cost: O(C S n D²).
    """
    count, dim = covariances.shape[:2]
    sequences = positive_int("sequences_per_client", sequences_per_client, maximum=MOST_ENTRIES)
    lengths, levels = context_lengths(context_length, count), noise_levels(noise, count)
    seed = positive_int("seed", seed, minimum=0, maximum=None)

    def normal(name: str, client: int, *shape: int) -> Array:
        return stream(seed, name, client).normal(size=shape)

    for i, (covariance, n) in enumerate(zip(covariances, lengths.tolist(), strict=True)):
        with one_blas_thread():
            root = square_root(covariance)
            inputs = normal("context", i, sequences, n, dim) @ root
            asked = normal("query", i, sequences, 1, dim) @ root
        task = normal("task", i, sequences, dim)
        answers = np.einsum("snk,sk->sn", inputs, task)
        answers = answers + levels[i] * normal("noise", i, sequences, n)
        yield (
            np.concatenate([inputs, answers[..., None]], axis=2),
            np.einsum("sqk,sk->sq", asked, task)[..., None],
            np.concatenate([asked, np.zeros((sequences, 1, 1))], axis=2),
        )


def check_covariances(covariances: Any) -> Array:
    """Return covariances as (C, D, D), of one client where they are (D, D).

    Raises
    ------
    TypeError, ValueError
        If they are not finite float64, square, symmetric and positive semidefinite.
    """
    array = as_float64("covariances", covariances, ndim=(2, 3))
    array = array[None] if array.ndim == 2 else array
    if array.size == 0 or array.shape[1] != array.shape[2]:
        raise ValueError(f"covariances must have shape (C, D, D) or (D, D), got {array.shape}.")
    slack = SYMMETRY_SLACK * max(1.0, float(np.abs(array).max()))
    apart = float(np.abs(array - array.transpose(0, 2, 1)).max())
    lowest = float(np.linalg.eigvalsh(array).min())
    if np.abs(array).max() > LARGEST_VARIANCE:
        raise ValueError(
            f"covariances must be at most {LARGEST_VARIANCE:g}, got {np.abs(array).max():.3g}."
        )
    if apart > slack or lowest < -slack:
        raise ValueError(
            "covariances must be symmetric and positive semidefinite, got an asymmetry of "
            f"{apart:.3g} and a least eigenvalue of {lowest:.3g}."
        )
    return array


def per_client(name: str, value: Any, count: int) -> list[Any]:
    """Return one entry per client, from one for all or from one per client.

    Raises
    ------
    ValueError
        If their number is another.
    """
    given = listing(name, value) if is_listing(value) else [value] * count
    if len(given) != count:
        raise ValueError(f"{name} must be one number or {count}, one per client, got {len(given)}.")
    return given


def context_lengths(value: Any, count: int) -> IntArray:
    """Return n of every client, (C,), after refusing what is no positive integer."""
    given = [positive_int("context_length", n) for n in per_client("context_length", value, count)]
    if max(given) > LONGEST:
        raise ValueError(f"context_length must be at most 2**53, got {max(given):.3g}.")
    return np.array(given, dtype=np.int64)


def noise_levels(value: Any, count: int) -> Array:
    """Return σ of every client, (C,), after refusing what is negative."""
    given = per_client("noise", value, count)
    return np.array([real("noise", level, minimum=0.0) for level in given])
