"""The reference value: best known P by multi-start, and its lower bound C15."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.optimize

from linattn._checks import positive_int
from linattn._typing import Array
from linattn.linalg import stack_heads
from linattn.objectives.joint import check_fits
from linattn.objectives.population import Population, population
from linattn.objectives.starts import random_blocks
from linattn.streams import stream
from linattn.types import Layout, Params, Problem

CERTIFIED_GAP = 1e-6


@dataclass(frozen=True)
class Reference:
    """Best known value of the kernel profile.

    Attributes
    ----------
    value : float
        Best P over all starts.
    params : Params
        Where it is attained, with value block V*.
    gradient_norm : float
        ‖∇P‖ there.
    num_starts : int
    lower_bound : float or None
        C15 lower bound of inf P over every number of heads (merged kernels); None if factored.
    certified : bool
        Whether the point is globally optimal: lower_bound within 1e-6 relative of value.
    """

    value: float
    params: Params
    gradient_norm: float
    num_starts: int
    lower_bound: float | None
    certified: bool

    def __repr__(self) -> str:
        bound = "none" if self.lower_bound is None else f"{self.lower_bound:.6g}"
        verdict = "certified" if self.certified else "best known"
        return (
            f"Reference({verdict} {self.value:.6g}, lower bound {bound}, "
            f"gradient norm {self.gradient_norm:.1e}, {self.num_starts} starts)"
        )
