"""Every local step of a warm-up as a step of inexact descent on the profile (C14)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Unpack

import numpy as np

from linattn._typing import Array
from linattn.analysis.certificate import Ledger
from linattn.analysis.trajectory import recorded_driver
from linattn.federated.method import Method
from linattn.federated.rounds import RunSettings, check_settings
from linattn.types import Params, Problem

if TYPE_CHECKING:
    import xarray as xr


class DescentSteps(NamedTuple):
    """P⁺ ≤ P − (η/2)‖∇P‖² + (η/2)‖ε‖² − (η/2)(1 − eta_L)‖g‖² at every local step.

    Attributes
    ----------
    profile : array, shape (N + 1,)
        P at the virtual iterates, units of loss.
    slopes_sq, errors_sq : array, shape (N,)
        ‖∇P‖² and ‖ε‖², ε = g − ∇P.
    eta_L : array, shape (N,)
        ηL_K (merged), or 2ρ/(η‖g‖²) (factored).
    completed : bool
        Whether all iterates were finite.
    end : Params
        The last virtual iterate.
    ledger : xarray.Dataset
        The same run as `descent_certificate` returns it.
    """

    profile: Array
    slopes_sq: Array
    errors_sq: Array
    eta_L: Array
    completed: bool
    end: Params
    ledger: xr.Dataset


def descent_steps(
    problem: Problem,
    params: Params,
    *,
    method: Method | None = None,
    **settings: Unpack[RunSettings],
) -> DescentSteps:
    """Return the local steps of a FedAvg warm-up as steps of inexact descent on P.

    Parameters
    ----------
    problem : Problem
    params : Params
        Start.
    method : Method, optional
        Default `fed_avg()`. Whether the inequality speaks of it is for the caller to ask
        (`linattn.analysis.applicable`).
    **settings
        As in `run`.

    Notes
    -----
    Source: C14, C4. Cost: that of `descent_certificate`.
    """
    checked = check_settings(**settings)
    driver = recorded_driver(problem, params, checked, method)
    ledger = Ledger(problem, params)
    completed = ledger.follow(driver)
    slopes, errors, curvatures = np.array(ledger.steps).reshape(-1, 3).T
    profile, table = np.array(ledger.profiles), ledger.finish(checked.rounds)
    return DescentSteps(profile, slopes, errors, curvatures, completed, driver.params, table)
