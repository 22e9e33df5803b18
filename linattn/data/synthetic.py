"""Synthetic federated problems with three separate kinds of heterogeneity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from linattn._checks import MOST_ENTRIES, one_of, positive_int, real
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.attention import predict
from linattn.data.tokens import problem_from_tokens
from linattn.streams import stream
from linattn.types import READOUTS, Params, Problem


class ClientDraw(NamedTuple):
    """What distinguishes a client, tokens x = mixing z and its teacher, and its streams."""

    mixing: Array
    teacher: Params
    seed: int
    client: int
    covariates_of: int


def draw_clients(
    seed: int,
    *,
    num_clients: int,
    dim: int,
    num_outputs: int,
    num_heads: int,
    value_heterogeneity: float,
    covariate_heterogeneity: float,
    kernel_heterogeneity: float,
    shared_tokens: bool,
) -> Iterator[ClientDraw]:
    """Yield W_i = I + a·N/√d and the teacher of every client; see `synthetic_problem`.

    Notes
    -----
    Source: Model. Streams (seed, name, client) with name in covariate, kernel,
    value; (seed, teacher) for what the clients share.
    """
    root = np.sqrt(dim)
    draws = stream(seed, "teacher")
    kernel = draws.normal(size=(num_heads, dim, dim)) / root
    value = draws.normal(size=(num_heads, dim, num_outputs)) / root
    for i in range(num_clients):
        owner = 0 if shared_tokens else i
        apart = stream(seed, "covariate", owner).normal(size=(dim, dim))
        own_kernel = stream(seed, "kernel", i).normal(size=kernel.shape)
        own_value = stream(seed, "value", i).normal(size=value.shape)
        teacher = Params.merged(
            kernel + kernel_heterogeneity * own_kernel / root,
            value + value_heterogeneity * own_value / root,
        )
        mixing = np.eye(dim) + covariate_heterogeneity * apart / root
        yield ClientDraw(mixing, teacher, seed, i, owner)


def draw_sequences(
    drawn: ClientDraw, size: tuple[int, int, int], *, noise: float, readout: str, suffix: str = ""
) -> tuple[Array, Array]:
    """Return tokens of shape `size` and targets (S, q, m) of a client, from its streams.

    Another `suffix` of the streams tokens and noise draws other sequences, for tests.
    """
    plain = stream(drawn.seed, f"tokens{suffix}", drawn.covariates_of).normal(size=size)
    with one_blas_thread():
        tokens = plain @ drawn.mixing.T
    clean = np.asarray(predict(drawn.teacher, tokens, readout=readout))
    own = stream(drawn.seed, f"noise{suffix}", drawn.client)
    return tokens, clean + noise * own.normal(size=clean.shape)


def synthetic_problem(
    *,
    num_clients: int,
    sequences_per_client: int,
    num_tokens: int,
    dim: int,
    num_outputs: int,
    value_ridge: float,
    kernel_ridge: float,
    num_heads: int = 1,
    value_heterogeneity: float = 0.0,
    covariate_heterogeneity: float = 0.0,
    kernel_heterogeneity: float = 0.0,
    noise: float = 0.0,
    shared_tokens: bool = False,
    readout: str = "token",
    weights: Sequence[float] | str | None = None,
    seed: int = 0,
) -> Problem:
    """Return a problem whose clients have teachers of the model's own class.

    With N a fresh standard normal array: tokens x = W_i z, z ~ N(0, I), W_i = I + a·N/√d; the
    common teacher has B°_h, V°_h with entries N(0, 1/d), client i has B°_h + b·N/√d and
    V°_h + v·N/√d; targets are the teacher's predictions plus noise·N.

    Parameters
    ----------
    num_clients, sequences_per_client, num_tokens, dim, num_outputs : int
        C, S_i, n, d and m.
    value_ridge, kernel_ridge : float
        λ > 0 and μ ≥ 0.
    num_heads : int
        Heads of the teachers.
    value_heterogeneity, covariate_heterogeneity, kernel_heterogeneity : float
        v ("target heterogeneity"), a and b. Zero means the same distribution, not the same data.
    noise : float
        Standard deviation of the target noise.
    shared_tokens : bool
        Give all clients the tokens of client 0, so that all A_i(B) are equal (a null control of
        C8).
    readout : {"token", "mean", "last"}
    weights : None, "equal" or sequence of float
        p_i; None is equal here because all clients have the same number of sequences.
    seed : int

    Raises
    ------
    ValueError
        If an argument is out of range; the sentence names it.

    Notes
    -----
    Source: Model. Every array comes from a stream (seed, name, client) with name
    in covariate, kernel, value, tokens, noise, teacher; none depends on the method or on other
    clients. Cost: O(C S n d (d + m)).
    """
    sizes = [
        positive_int(name, value, maximum=MOST_ENTRIES)
        for name, value in (
            ("num_clients", num_clients),
            ("sequences_per_client", sequences_per_client),
            ("num_tokens", num_tokens),
            ("dim", dim),
            ("num_outputs", num_outputs),
            ("num_heads", num_heads),
        )
    ]
    clients, sequences, length, d, m, heads = sizes
    a = real("covariate_heterogeneity", covariate_heterogeneity, minimum=0.0)
    b = real("kernel_heterogeneity", kernel_heterogeneity, minimum=0.0)
    v = real("value_heterogeneity", value_heterogeneity, minimum=0.0)
    noise = real("noise", noise, minimum=0.0)
    one_of("readout", readout, READOUTS)
    seed = positive_int("seed", seed, minimum=0, maximum=None)

    drawn = draw_clients(
        seed,
        num_clients=clients,
        dim=d,
        num_outputs=m,
        num_heads=heads,
        value_heterogeneity=v,
        covariate_heterogeneity=a,
        kernel_heterogeneity=b,
        shared_tokens=shared_tokens,
    )
    size = (sequences, length, d)
    return problem_from_tokens(
        (draw_sequences(client, size, noise=noise, readout=readout) for client in drawn),
        readout=readout,
        weights=weights,
        value_ridge=value_ridge,
        kernel_ridge=kernel_ridge,
    )
