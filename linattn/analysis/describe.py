"""What a problem is like before anything is run: sizes, heterogeneity, steps, what looks wrong."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from linattn._checks import positive_int, real
from linattn._display import facts_html
from linattn._threads import one_blas_thread
from linattn._typing import AnyArray, Array
from linattn.analysis.heterogeneity import (
    Spread,
    covariance_spread,
    pooled_gram,
    target_spread,
)
from linattn.analysis.predicted import predict_trade_off
from linattn.analysis.suspicions import suspicions
from linattn.objectives.joint import check_fits
from linattn.objectives.population import population
from linattn.objectives.starts import initial_params
from linattn.objectives.steps import safe_step
from linattn.types import Params, Problem, single_layer

if TYPE_CHECKING:
    import xarray as xr

# The predicted trade-off looks as far ahead as this many safe steps, in so many rounds at most.
HORIZON = 500.0
MOST_ROUNDS = 2000


@dataclass(frozen=True, eq=False)
class Description:
    """Answer of `describe`; print it.

    Attributes
    ----------
    problem : Problem
    start : Params
        Where steps, curvatures and target heterogeneity are taken.
    covariance_heterogeneity : Spread
        Of the clients' mean Gram matrices, relative to ‖Σp mean G‖.
    target_heterogeneity : Spread
        Of the clients' value gradients at V* of the start's kernel, g_i* = A_iV* − C_i, relative
        to ‖C‖: what they want besides what all want.
    token_condition, value_condition : float
        Condition numbers of Σp mean G and of A.
    token_scale, target_scale : float
        Mean square of a token's channel and of a target's output.
    safe_step : float
        Units of 1/curvature.
    warnings : tuple of str
        What looks wrong, one sentence each.
    local_lr, local_steps, drift_number : float, int, float, or None
        η, E and s = η(E − 1)/2, where given.
    trade_off : xarray.Dataset or None
        The table of `predict_trade_off`, where η and E are given.
    """

    problem: Problem
    start: Params
    covariance_heterogeneity: Spread
    target_heterogeneity: Spread
    token_condition: float
    value_condition: float
    token_scale: float
    target_scale: float
    safe_step: float
    warnings: tuple[str, ...]
    local_lr: float | None = None
    local_steps: int | None = None
    trade_off: xr.Dataset | None = None

    @property
    def drift_number(self) -> float | None:
        """s = η(E − 1)/2, units of 1/curvature."""
        if self.local_lr is None or self.local_steps is None:
            return None
        return 0.5 * self.local_lr * (self.local_steps - 1)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values, in the order to read them."""
        problem = self.problem
        out = [
            ("clients", f"{problem.num_clients}, weights {_span(problem.weights)}"),
            ("sequences", f"{problem.num_sequences}, per client {_span(problem.client_sizes)}"),
            ("channels, outputs", f"{problem.dim}, {problem.num_outputs}"),
            ("readout", problem.readout),
            ("ridges", f"value {problem.value_ridge:.3g}, kernel {problem.kernel_ridge:.3g}"),
            ("mean square of tokens, targets", f"{self.token_scale:.3g}, {self.target_scale:.3g}"),
            ("covariance heterogeneity", str(self.covariance_heterogeneity)),
            ("target heterogeneity", str(self.target_heterogeneity)),
            ("condition of tokens", f"{self.token_condition:.3g}"),
            ("condition of the value block", f"{self.value_condition:.3g}"),
            ("safe step", f"{self.safe_step:.3g}"),
        ]
        if self.local_lr is not None:
            factor = self.local_lr / self.safe_step
            out.append(("local_lr", f"{self.local_lr:.3g}, {factor:.3g} times the safe step"))
        if self.drift_number is not None:
            out.append(("drift number", f"{self.drift_number:.3g} (E = {self.local_steps})"))
        if self.trade_off is not None:
            out.append(("predicted best warm-up", _predicted_words(self.trade_off)))
        return out

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows) + 2
        lines = [f"{name:<{width}}{value}" for name, value in rows]
        found = [f"looks wrong: {sentence}" for sentence in self.warnings]
        return "\n".join(lines + (found or ["nothing looks wrong"]))

    def __repr__(self) -> str:
        found = f"suspicions: {len(self.warnings)}"
        return f"Description({self.problem!r}; safe step {self.safe_step:.3g}; {found})"

    def _repr_html_(self) -> str:
        found = [f"Looks wrong: {sentence}" for sentence in self.warnings]
        items = "".join(f"<li>{escape(s)}</li>" for s in found or ["Nothing looks wrong."])
        return f"{facts_html('Description', self.rows())}<ul>{items}</ul>"


def describe(
    problem: Problem,
    params: Params | None = None,
    *,
    local_lr: float | None = None,
    local_steps: int | None = None,
) -> Description:
    """Return what a problem is like before anything is run, and what looks wrong with it.

    Parameters
    ----------
    problem : Problem
    params : Params, optional
        Start; default `initial_params(problem)`, one merged head.
    local_lr : float, optional
        η, compared with the safe step.
    local_steps : int, optional
        E; with η also the drift number and the predicted trade-off, as far ahead as 500 safe steps
        of time τ (2,000 rounds at most).

    Returns
    -------
    Description
        With a text and an HTML form.

    Raises
    ------
    TypeError, ValueError
        If the problem is not of a single layer, the start does not fit it, or η or E is out of
        range.

    Notes
    -----
    Source: C8 (the frozen bias is the product of the two heterogeneities, and grows with the drift
    number), C3 (safe step), C24 (prediction). Cost: one pass over the statistics and that of
    `safe_step`; with η and E that of `predict_trade_off`, seconds on small problems.

    Examples
    --------
    >>> import linattn as la
    >>> problem = la.synthetic_problem(num_clients=4, sequences_per_client=50, num_tokens=8, dim=3,
    ...     num_outputs=2, value_ridge=0.05, kernel_ridge=0.01)
    >>> found = describe(problem, local_lr=0.02, local_steps=11)
    >>> round(found.drift_number, 3), found.warnings
    (0.1, ())
    """
    single_layer(problem, "describe")
    if local_lr is not None:
        local_lr = real("local_lr", local_lr, above=0.0)
    if local_steps is not None:
        local_steps = positive_int("local_steps", local_steps)
    start = initial_params(problem) if params is None else params
    if not isinstance(start, Params):
        raise TypeError(f"params must be Params, got {type(start).__name__}.")
    check_fits(problem, start)
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):
        at, gram = _at_start(problem, start), pooled_gram(problem)
        found = suspicions(problem, start, at.safe_step, local_lr=local_lr)
        return Description(
            problem,
            start,
            covariance_heterogeneity=covariance_spread(problem),
            target_heterogeneity=at.targets,
            token_condition=_condition(gram),
            value_condition=at.condition,
            token_scale=float(np.trace(gram)) / problem.dim,
            target_scale=population(problem).form.energy / problem.num_outputs,
            safe_step=at.safe_step,
            warnings=found + at.warnings,
            local_lr=local_lr,
            local_steps=local_steps,
            trade_off=None
            if local_lr is None or local_steps is None
            else _predicted(problem, start, at.safe_step, local_lr, local_steps),
        )


class _Start(NamedTuple):
    """What is measured at the start's kernel, and why it could not be."""

    safe_step: float
    condition: float
    targets: Spread
    warnings: tuple[str, ...]


def _at_start(problem: Problem, start: Params) -> _Start:
    """Safe step, condition of A and target heterogeneity; NaN where doubles do not suffice."""
    try:
        hessian = population(problem).value_system(start.kernels()).hessian
        return _Start(
            safe_step(problem, start), _condition(hessian), target_spread(problem, start), ()
        )
    except (FloatingPointError, np.linalg.LinAlgError) as error:
        unknown = float("nan")
        sentence = f"nothing can be computed at the start: {error}; scale the data."
        return _Start(unknown, unknown, Spread(unknown, unknown), (sentence,))


def _condition(matrix: Array) -> float:
    """λ_max/λ_min of a symmetric positive semidefinite matrix; infinite where it is singular."""
    eigenvalues = np.linalg.eigvalsh(matrix)
    lowest = max(float(eigenvalues[0]), 0.0)
    return float(eigenvalues[-1]) / lowest if lowest > 0.0 else float("inf")


def _predicted(
    problem: Problem, start: Params, step: float, local_lr: float, local_steps: int
) -> xr.Dataset | None:
    """The predicted table of warm-up lengths, as far ahead as `HORIZON` safe steps.

    None where P_ref need not exist or the start is beyond doubles, both of which are said.
    """
    if problem.kernel_ridge == 0.0 or not np.isfinite(step):
        return None
    rounds = int(np.clip(np.ceil(HORIZON * step / (local_lr * local_steps)), 1, MOST_ROUNDS))
    return predict_trade_off(
        problem, start, rounds=rounds, local_steps=local_steps, local_lr=local_lr
    )


def _predicted_words(table: xr.Dataset) -> str:
    """What a predicted table says: the length, and whether it is to be trusted."""
    held = table.attrs
    best = "none" if held["warmup_star"] is None else held["warmup_star"]
    doubt = "" if held["trusted"] else f", not to be trusted: {held['reason']}"
    return f"{best} of {held['rounds']} rounds{doubt}"


def _span(values: AnyArray) -> str:
    """Least, median and greatest, or the one value they have."""
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g} (median {middle:.3g})"
