"""Starting points: random parameters of a stated size in either parametrization."""

from __future__ import annotations

import numpy as np

from linattn._checks import MOST_ENTRIES, one_of, positive_int, real, shown
from linattn._typing import Array
from linattn.objectives.profile import KernelProfile
from linattn.streams import stream
from linattn.types import Params, Problem, single_layer


def random_blocks(
    problem: Problem,
    *,
    num_heads: int,
    kernel: str,
    rank: int | None,
    scale: float,
    generator: np.random.Generator,
) -> dict[str, Array]:
    """Draw kernel blocks whose kernels have E‖B_h‖² = scale²·d in both parametrizations."""
    d = problem.dim
    if kernel == "merged":
        return {"kernel": generator.normal(size=(num_heads, d, d)) * scale / np.sqrt(d)}
    r = positive_int("rank", d if rank is None else rank)
    std = np.sqrt(scale / np.sqrt(r * d))
    shape = (num_heads, d, r)
    return {
        "query": generator.normal(size=shape) * std,
        "key": generator.normal(size=shape) * std,
    }


def initial_params(
    problem: Problem,
    *,
    num_heads: int = 1,
    kernel: str = "merged",
    rank: int | None = None,
    scale: float = 1.0,
    value: str = "zeros",
    seed: int = 0,
) -> Params:
    """Return random starting parameters.

    Parameters
    ----------
    problem : Problem
        Gives d and m (and V* for ``value="minimizer"``).
    num_heads : int
        Heads H.
    kernel : {"merged", "factored"}
        Train B_h, entries N(0, scale²/d), or Q_h and K_h, entries N(0, scale/√(r d)), so that
        E‖QKᵀ‖² = E‖B‖² = scale²·d.
    rank : int, optional
        r of the factors; default d. Refused for merged kernels.
    scale : float
        Size of the kernel, > 0.
    value : {"zeros", "normal", "minimizer"}
        V = 0, entries N(0, scale²/d), or V*(B).
    seed : int

    Raises
    ------
    ValueError
        If an argument is out of range; the sentence names it.

    Notes
    -----
    Source: Model. Small factored starts are trapped at the origin (Objectives). Cost: none, but one
    linear solve for ``value="minimizer"``.
    """
    single_layer(problem)
    positive_int("num_heads", num_heads, maximum=MOST_ENTRIES // problem.dim**2)
    positive_int("seed", seed, minimum=0, maximum=None)
    one_of("kernel", kernel, ("merged", "factored"))
    one_of("value", value, ("zeros", "normal", "minimizer"))
    scale = real("scale", scale, above=0.0)
    if kernel == "merged" and rank is not None:
        raise ValueError(
            f"rank must be None for kernel='merged', got {shown(rank)}; use 'factored'."
        )
    blocks = random_blocks(
        problem,
        num_heads=num_heads,
        kernel=kernel,
        rank=rank,
        scale=scale,
        generator=stream(seed, "initial kernel"),
    )
    shape = (num_heads, problem.dim, problem.num_outputs)
    blocks["value"] = np.zeros(shape)
    if value == "normal":
        draws = stream(seed, "initial value").normal(size=shape)
        blocks["value"] = draws * scale / np.sqrt(problem.dim)
    build = Params.merged if kernel == "merged" else Params.factored
    params = build(**blocks)
    if value == "minimizer":
        params = params.replace(value=KernelProfile(problem).minimizer(params))
    return params
