"""What sampling and minibatches do to the warm-up: kernel bias in four parts, over many draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from linattn._checks import positive_int
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.analysis.bias_drift import is_drawn, warmup_path
from linattn.analysis.synchronized import finite_profiles
from linattn.federated.settings import Settings
from linattn.types import Params, Problem

Path = Sequence[Params]


class KernelTerms(NamedTuple):
    """E P(B_T) − P_ref over warm-up lengths, (L,), in four parts that add up to it.

    Attributes
    ----------
    unreached : array
        P(B^sync) − P_ref: what centralized steps of the same number have not reached either.
    drift : array
        P(B^full) − P(B^sync): what client drift does when everybody takes part on full batches.
    shift : array
        P(E θ) − P(B^full): what the draws do to the mean path.
    spread : array
        E P − P(E θ): what their scatter around it costs, ½⟨∇²P, Cov⟩ to leading order.
    standard_error : array
        Of E P; zero where nothing is drawn.
    undone : array
        Share of the drift that the shift undoes, −⟨E θ − θ^full, δ⟩/‖δ‖² with δ = θ^full − θ^sync
        over all trained parameters; NaN where there is no drift.
    """

    unreached: Array
    drift: Array
    shift: Array
    spread: Array
    standard_error: Array
    undone: Array

    @property
    def kernel_bias(self) -> Array:
        """Their sum, E P(B_T) − P_ref."""
        return self.unreached + self.drift + self.shift + self.spread


def warmup_draws(
    problem: Problem, params: Params, settings: Settings, *, num_draws: int
) -> list[list[Params]]:
    """Return the parameters of rounds 0..R of FedAvg for several draws of clients and batches.

    Seeds count up from that of the settings; one run stands for all where nothing is drawn.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    settings : Settings
    num_draws : int

    Raises
    ------
    ValueError
        If `num_draws` is not positive.

    Notes
    -----
    Source: Sampling, minibatches, unequal work. Cost: num_draws runs of R rounds.
    """
    count, rounds = positive_int("num_draws", num_draws), range(settings.rounds + 1)
    with one_blas_thread():
        return [
            warmup_path(problem, params, rounds, settings._replace(seed=settings.seed + k))
            for k in range(count if is_drawn(problem, settings) else 1)
        ]


def kernel_terms(
    problem: Problem, draws: Sequence[Path], *, full: Path, central: Path, reference: float
) -> KernelTerms:
    """Return the parts of the expected kernel bias, estimated from draws of the warm-up.

        E P(B_T) − P_ref = [P(B^sync) − P_ref] + [P(B^full) − P(B^sync)]
                         + [P(E θ_T) − P(B^full)] + [E P(B_T) − P(E θ_T)]

    Parameters
    ----------
    problem : Problem
    draws : sequence of sequence of Params
        Independent warm-ups, each at the same L lengths.
    full : sequence of Params
        The warm-up with everybody and full batches, at these lengths.
    central : sequence of Params
        The synchronized control at these lengths, E·T centralized steps.
    reference : float
        P_ref.

    Notes
    -----
    Source: C9 in expectation; the parts are those of C19 without its linearization. The mean of D
    draws scatters around E θ with a D-th of the covariance, so the spread between draws and their
    mean is multiplied by D/(D − 1), and the shift is what remains: both are then free of bias to
    leading order. Cost: L·(D + 3) profiles.
    """
    count = len(draws)
    layout = full[0].layout
    every = np.array([[at.flat for at in path] for path in draws])
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        mean = every.mean(axis=0)
        profiles = np.array([finite_profiles(problem, path) for path in draws])
        at_mean = finite_profiles(problem, [Params(layout, flat) for flat in mean])
        plain, smooth = finite_profiles(problem, full), finite_profiles(problem, central)
        total = profiles.mean(axis=0)
        scale = count / (count - 1) if count > 1 else 0.0
        spread = scale * (total - at_mean)
        error = profiles.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else 0.0 * total
        there = np.array([at.flat for at in full])
        drifted = there - np.array([at.flat for at in central])
        size = np.sum(drifted**2, axis=1)
        undone = -np.sum((mean - there) * drifted, axis=1) / np.where(size > 0.0, size, np.nan)
        shift = total - spread - plain
    return KernelTerms(smooth - reference, plain - smooth, shift, spread, error, undone)
