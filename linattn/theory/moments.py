"""The frozen stage under sampled clients and minibatches: its first two moments, exactly (C20)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from linattn._checks import MOST_ENTRIES, positive_int
from linattn._display import draw_gaps, facts_html
from linattn._settings import LocalSteps, check_sampling, check_stragglers, steps_per_client
from linattn._threads import one_blas_thread
from linattn._typing import Array
from linattn.linalg import finite_or_inf, stack_heads
from linattn.objectives.forms import sequence_equations
from linattn.theory.congruence import SymmetricBasis
from linattn.theory.frozen import FrozenStage, frozen_stage
from linattn.theory.local_noise import ClientSteps, noise_power
from linattn.theory.weights import weight_moments
from linattn.types import Params, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LISTED = 10_000_000
"""Local steps whose chances fit into memory, one each."""
# H·d + m: beyond it one matrix on symmetric matrices takes more than 250 MB.
MAX_MOMENT_ROWS = 104
# Squaring the round beats stepping through R rounds where R > log₂ R · (rows of its matrix)/this:
# measured at 20 to 2,000 rows, products of matrices being faster than as many of vectors.
PRODUCT_SPEED = 3


def frozen_moments(
    problem: Problem,
    params: Params,
    *,
    local_steps: LocalSteps,
    local_lr: float,
    participation: float = 1.0,
    batch_size: int | None = None,
    frozen_lr: float | str | None = None,
    sampling: str = "uniform",
    stragglers: float = 0.0,
) -> FrozenMoments:
    """Return the exact first two moments of sampled FedAvg on the value block at a frozen kernel.

        E F(B, V_R) − P(B) = ½⟨A, E[e_R e_Rᵀ]⟩ = ½‖E e_R‖²_A + ½ tr(A Cov e_R),   e = V − V*

    for every step size, averaged over the draws of clients, minibatches and stragglers that `run`
    makes. Nothing is simulated.

    Parameters
    ----------
    problem : Problem
    params : Params
        Kernel B and the value block V_0 from which the stage starts.
    local_steps, participation, batch_size, sampling, stragglers
        As in `run`.
    local_lr : float
        η of the warm-up.
    frozen_lr : None, float or "safe"
        Step size of this stage, as in `fed_frozen`.

    Raises
    ------
    ValueError
        If an argument is out of range; if clients of unequal weight are sampled uniformly and there
        are more than 20,000 subsets of them; if H·d + m exceeds `MAX_MOMENT_ROWS`.

    Notes
    -----
    Source: C20; stragglers by conditioning on the number of steps. Cost, with s = Hd(Hd + 1)/2: per
    client with minibatches n_i (Hd)⁴/2 multiply-adds and about 2 log₂ E products of s × s matrices,
    then s² per round, or log of the number of rounds such products where that is cheaper.
    """
    stage = frozen_stage(
        problem, params, local_steps=local_steps, local_lr=local_lr, frozen_lr=frozen_lr
    )
    shares = check_sampling(participation, sampling)
    batch = None if batch_size is None else positive_int("batch_size", batch_size)
    rows = check_moment_rows(params)
    drawn = weight_moments(problem.weights, shares)
    work = stage.local_work._replace(stragglers=check_stragglers(stragglers))
    stage = replace(
        stage,
        work=work if work.stragglers else stage.work,
        averaging=None if drawn.mean is problem.weights else drawn.mean,
    )
    basis = SymmetricBasis(rows[0], sum(rows))
    # More BLAS threads lose time on many products of this size.
    with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
        each = (_client_steps(problem, params, stage, i, batch) for i in range(problem.num_clients))
        moves, noise = _client_noise(basis, each, drawn.squares)
        mean = np.tensordot(drawn.mean, moves, 1)
        values, vectors = np.linalg.eigh(drawn.covariance)
        factors = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
        # Weights sum to one, so only differences between clients are sampled.
        noise += basis.gram(np.tensordot(factors, moves - mean, 1))
        return FrozenMoments(stage, basis, mean, noise)


def check_moment_rows(params: Params) -> tuple[int, int]:
    """Return (Hd, m), refused where the moments would be too large."""
    inner, outputs = stack_heads(params.value).shape
    if inner + outputs > MAX_MOMENT_ROWS:
        raise ValueError(
            f"params must have H·d + m <= {MAX_MOMENT_ROWS} for exact moments, got "
            f"{inner + outputs}; take the mean of many runs."
        )
    return inner, outputs


def _client_steps(
    problem: Problem, params: Params, stage: FrozenStage, client: int, batch_size: int | None
) -> ClientSteps:
    """A_i, r_i, the spread of its sequences, and how many steps it takes."""
    steps, stragglers = stage.local_work
    every = steps_per_client(steps, problem.num_clients)
    count = positive_int("local_steps", every[client], maximum=MOST_LISTED)
    chances = np.full(count, stragglers / count)
    chances[-1] += 1.0 - stragglers
    size, noise = int(problem.client_sizes[client]), None
    if batch_size is not None and batch_size < size:
        hessians, linears = sequence_equations(problem, params.kernels(), client)
        residuals = linears - hessians @ stack_heads(stage.minimizer)
        spread = np.concatenate([-hessians, residuals], axis=2)
        # Variance of the mean of b of n_i sequences without replacement, over n_i.
        share = (size - batch_size) / (batch_size * (size - 1)) / size
        noise = stage.local_lr * np.sqrt(share) * (spread - spread.mean(axis=0))
    residual = -stage.gradients_at_minimizer[client]
    return ClientSteps(stage.hessians[client], residual, noise, chances, stage.local_lr)


def _client_noise(
    basis: SymmetricBasis, clients: Iterable[ClientSteps], squares: Array
) -> tuple[Array, Array]:
    """Mean moves of all clients, (C, n, N), and Σ E[w_i²] times the noise of their local steps."""
    moves, noise = [], np.zeros((basis.num_inner, len(basis.low)))
    for client, square in zip(clients, squares, strict=True):
        possible, chances = client.moves()
        mean = np.tensordot(chances, possible, 1)
        moves.append(mean)
        if len(chances) > 1:
            noise += square * basis.gram(np.sqrt(chances)[:, None, None] * (possible - mean))
        from_batches = client.noise_map(basis)
        if from_batches is not None:
            noise += square * from_batches
    return np.stack(moves), noise


class MomentParts(NamedTuple):
    """Expected gap = bias + noise, units of loss."""

    bias: float
    noise: float


@dataclass(frozen=True, eq=False)
class FrozenMoments:
    """E[V_t − V*] and the covariance of V_t over all draws; see `frozen_moments`.

    With Z = E[zzᵀ], z = (V − V*; I), a round is Z⁺ = Ḡ Z Ḡᵀ + 𝓝(Z): the mean round, and what
    sampling of clients, minibatches and stragglers add. The mean ν = E[V − V*] follows the frozen
    stage with E[w_i] in place of p_i, the covariance Σ⁺ = M̂ΣM̂ + 𝓝(Z), so that noise is never the
    difference of two numbers.

    Attributes
    ----------
    stage : FrozenStage
        The mean round: its rate, fixed point and bias.
    basis : SymmetricBasis
        Coordinates of symmetric matrices.
    mean_move : array, shape (Hd, Hd + m)
        Ḡ − I without its zero rows.
    noise_map : array, shape (n(n + 1)/2, N(N + 1)/2), n = Hd, N = Hd + m
        𝓝 in these coordinates.
    """

    stage: FrozenStage
    basis: SymmetricBasis
    mean_move: Array
    noise_map: Array
    _known: dict[int, Array] = field(default_factory=dict, init=False, repr=False)

    def __repr__(self) -> str:
        verdict = "stable" if self.stable else "unstable"
        return (
            f"FrozenMoments({verdict}, mean rate {self.mean_rate:.6g}, second-moment rate "
            f"{self.second_moment_rate:.6g}, noise floor {self.noise_floor:.3g}, "
            f"{len(self.stage.weights)} clients, E = {self.stage.local_work})"
        )

    def _repr_html_(self) -> str:
        return facts_html(
            "FrozenMoments",
            [
                ("stable", self.stable),
                ("rate of the mean", self.mean_rate),
                ("rate of the second moment", self.second_moment_rate),
                ("floor above P(B), bias", self.floor_parts.bias),
                ("floor above P(B), noise", self.floor_parts.noise),
                ("clients", len(self.stage.weights)),
                ("local steps E", self.stage.local_work),
            ],
        )

    def plot(self, axes: Axes | None = None, *, rounds: int = 100) -> Axes:
        """Draw E F(B, V_t) − P(B) for t = 0..rounds, and the floor it ends at.

        Returns
        -------
        matplotlib Axes
        """
        most = positive_int("rounds", rounds, maximum=MOST_ENTRIES)
        gaps = [self.expected_gap(t) for t in range(most + 1)]
        return draw_gaps(axes, gaps, self.noise_floor, "E F(B, V_t) − P(B)")

    @cached_property
    def _covariance_gap(self) -> tuple[Array, Array]:
        """Eigenvalues and vectors of I − 𝓛 with 𝓛(Σ) = M̂ΣM̂ + 𝓝(Σ), which is self-adjoint.

        From I − M̂ without subtraction: Σ − M̂ΣM̂ = (I − M̂)Σ + Σ(I − M̂) − (I − M̂)Σ(I − M̂).
        """
        gone, inner = self._gone, SymmetricBasis(self.basis.inner, self.basis.inner)
        units = inner.unpack(np.eye(inner.num_inner))
        gap = inner.pack(gone @ units + units @ gone) - inner.gram(gone[None])
        gap -= self.noise_map[:, : inner.num_inner]
        with one_blas_thread():
            values, vectors = np.linalg.eigh(0.5 * (gap + gap.T))
        return values, vectors

    @property
    def _gone(self) -> Array:
        """I − M̂."""
        return -self.mean_move[:, : self.basis.inner]

    @cached_property
    def _finite(self) -> bool:
        """Whether a round is within the range of floating-point numbers."""
        return bool(np.isfinite(self.noise_map).all() and np.isfinite(self.mean_move).all())

    @property
    def mean_rate(self) -> float:
        """ρ(M̂): the contraction of E[V] per round."""
        return self.stage.rate

    @cached_property
    def second_moment_rate(self) -> float:
        """ρ(𝓛) ≥ ρ(M̂)²: the contraction of the second moment per round; inf after overflow."""
        if not self._finite:
            return float("inf")
        return float(np.abs(1.0 - self._covariance_gap[0]).max())

    @property
    def stable(self) -> bool:
        """Whether the second moment contracts; the mean may do so although it does not."""
        return self.second_moment_rate < 1.0

    def mean(self, rounds: int) -> Array:
        """Return E[V] after `rounds` rounds, (H, d, m); see `FrozenStage.after`."""
        return self.stage.after(rounds)

    def covariance(self, rounds: int) -> Array:
        """Return E[(V − E V)(V − E V)ᵀ] after `rounds` rounds, outputs summed, (Hd, Hd).

        All of it is inf beyond the range of floating-point numbers.
        """
        return self.basis.unpack(self._spread(positive_int("rounds", rounds, minimum=0)))

    def second_moment(self, rounds: int) -> Array:
        """Return E[(V − V*)(V − V*)ᵀ] after `rounds` rounds, outputs summed, (Hd, Hd).

        All of it is inf beyond the range of floating-point numbers.
        """
        error = self.stage.error(rounds)
        with np.errstate(over="ignore", invalid="ignore"):
            return _all_or_inf(error @ error.T + self.covariance(rounds))

    def expected_gap(self, rounds: int) -> float:
        """Return E F(B, V) − P(B) after `rounds` rounds; inf beyond the range of numbers."""
        return self.bias(rounds) + self.noise(rounds)

    def bias(self, rounds: int) -> float:
        """Return ½‖E[V] − V*‖²_A after `rounds` rounds."""
        with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
            error = self.stage.error(rounds)
            size = 0.5 * float(np.vdot(error, self.stage.hessian @ error))
        return finite_or_inf(size)

    def noise(self, rounds: int) -> float:
        """Return ½ tr(A Cov V) after `rounds` rounds."""
        return self._half_trace(self._spread(positive_int("rounds", rounds, minimum=0)))

    def _half_trace(self, spread: Array) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            size = 0.5 * float(self.basis.pack(self.stage.hessian) @ spread)
        return finite_or_inf(size)

    @cached_property
    def floor_parts(self) -> MomentParts:
        """Bias and noise after infinitely many rounds; inf where the second moment is unstable."""
        if not self.stable:
            return MomentParts(float("inf"), float("inf"))
        values, vectors = self._covariance_gap
        source = self.noise_map @ self._pure(stack_heads(self.stage.bias))
        spread = vectors @ ((vectors.T @ source) / values)
        return MomentParts(self.stage.floor, self._half_trace(spread))

    @property
    def noise_floor(self) -> float:
        """lim E F(B, V_R) − P(B), bias and noise together; inf where unstable."""
        return sum(self.floor_parts)

    def _pure(self, error: Array) -> Array:
        """Coordinates of (e; I)(e; I)ᵀ."""
        lifted = np.concatenate([error, np.eye(error.shape[1])])
        return self.basis.pack(lifted @ lifted.T)

    def _spread(self, rounds: int) -> Array:
        """Coordinates of Cov V after `rounds` rounds, remembered wherever it was read."""
        known = self._known
        if not known:
            known[0] = np.zeros(self.basis.num_inner)
        if rounds not in known:
            start = max(t for t in known if t <= rounds)
            with np.errstate(over="ignore", invalid="ignore"), one_blas_thread():
                known[rounds] = _all_or_inf(self._advanced(start, rounds))
        return known[rounds]

    def _advanced(self, start: int, rounds: int) -> Array:
        """From round `start` on by steps, or from round 0 by squaring."""
        basis, gone, spread = self.basis, self._gone, self._known[start]
        products = rounds.bit_length() * basis.num_inner / PRODUCT_SPEED
        if not self._finite:
            return np.full_like(spread, np.inf)
        if rounds - start > products:
            step = np.eye(basis.size)
            step[: basis.inner] += self.mean_move
            error = self.stage.error(0)
            return noise_power(basis, self.noise_map, step, rounds) @ self._pure(error)
        inner = slice(0, basis.num_inner)
        for t in range(start, rounds):
            wide = basis.unpack(spread)
            half = wide - gone @ wide
            kept = basis.pack(half - half @ gone)
            added = self._pure(self.stage.error(t))
            added[inner] += spread
            spread = kept + self.noise_map @ added
        return spread


def _all_or_inf(numbers: Array) -> Array:
    """An array, or inf in its place where it is not finite."""
    return numbers if np.isfinite(numbers).all() else np.full_like(numbers, np.inf)
