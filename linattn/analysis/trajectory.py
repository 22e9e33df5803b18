"""Every local step of a run, round by round: what claims about trajectories measure on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Unpack

import numpy as np

from linattn._threads import one_blas_thread
from linattn._typing import Array, IntArray
from linattn.federated import fed_avg
from linattn.federated.method import Method
from linattn.federated.rounds import RoundDriver, RunSettings, Settings, check_settings
from linattn.oracles.protocol import oracle_of
from linattn.types import Params, Problem


class LocalPath(NamedTuple):
    """One round of local steps.

    Attributes
    ----------
    participants : array of int, shape (P,)
    weights : array, shape (P,)
        w_i as applied by the server.
    places : array, shape (E + 1, P, D)
        Local iterates, the last before averaging; E is the largest number of local steps, and who
        finished earlier stays.
    gradients, full_gradients : array, shape (E, P, D)
        The gradients that were used, and the full-batch ones at the same places; zero once a
        client has finished.
    step_size : float
        η of this round.
    """

    participants: IntArray
    weights: Array
    places: Array
    gradients: Array
    full_gradients: Array
    step_size: float

    @property
    def mean(self) -> Array:
        """Virtual iterate Σ w_i w_{i,e} of every local step, (E + 1, D)."""
        return np.tensordot(self.weights, self.places, (0, 1))

    def spread(self, rows: Array) -> Array:
        """(Σ w_i ‖x_i − x̄‖²)^½ of rows (..., P, D), over all entries: (...)."""
        centre = np.einsum("p,...pd->...d", self.weights, rows)
        sizes = np.sum((rows - centre[..., None, :]) ** 2, axis=-1)
        return np.asarray(np.sqrt(sizes @ self.weights))


def recorded_driver(
    problem: Problem, params: Params, settings: Settings, method: Method | None = None
) -> RoundDriver:
    """Return the driver of a run that hands back every local step; default FedAvg."""
    oracle = oracle_of(problem, params)
    return RoundDriver(method or fed_avg(), problem, oracle, params, settings, record=True)


def local_paths(
    problem: Problem,
    params: Params,
    *,
    method: Method | None = None,
    **settings: Unpack[RunSettings],
) -> Iterator[LocalPath]:
    """Yield every round of a run with all its local steps, until one is not finite.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    method : Method, optional
        Default `fed_avg()`.
    **settings
        As in `run`.

    Notes
    -----
    Source: Warm-up (virtual iterate). Cost: the run itself, 3 E P D numbers of memory.
    """
    driver = recorded_driver(problem, params, check_settings(**settings), method)
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        for done in driver:
            assert done.trace is not None
            places = np.concatenate([done.trace.iterates, done.ends[None]])
            if not np.isfinite(places).all():
                return
            yield LocalPath(
                done.context.participants,
                done.context.weights,
                places,
                done.trace.gradients,
                done.trace.full_gradients,
                done.plan.local_lr,
            )


def client_gradients(problem: Problem, layout_of: Params, clients: IntArray, at: Array) -> Array:
    """Return ∇F_i of every given client at every point, full batches, ridges included.

    Parameters
    ----------
    problem : Problem
    layout_of : Params
        Gives the blocks of a point.
    clients : array of int, shape (P,)
    at : array, shape (N, D) or (N, P, D)
        Points shared by the clients, or one per client.

    Returns
    -------
    array, shape (N, P, D)

    Notes
    -----
    Source: Model. Cost: N P client gradients in one compiled call.
    """
    count, size = len(clients), layout_of.layout.size
    places = at if at.ndim == 3 else np.repeat(at[:, None], count, axis=1)
    starts = np.ascontiguousarray(places.reshape(-1, size))
    found = problem.oracle(layout_of).gradients(np.tile(clients, len(places)), starts)[1]
    return found.reshape(places.shape)
