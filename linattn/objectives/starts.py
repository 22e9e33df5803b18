"""Starting points: random parameters of a stated size in either parametrization."""

from __future__ import annotations

import numpy as np

from linattn._checks import MOST_ENTRIES, as_float64, one_of, positive_int, real, shown
from linattn._typing import Array
from linattn.objectives.profile import KernelProfile
from linattn.streams import stream
from linattn.types import Layout, Params, Problem, single_layer


def random_kernel(layout: Layout, scale: float, generator: np.random.Generator) -> Array:
    """Draw the flat kernel parameters: E‖B_h‖² = scale²·d in both parametrizations."""
    entries = generator.normal(size=layout.kernel_part.stop)
    if "kernel" in layout.slices:
        return np.asarray(entries * scale / np.sqrt(layout.shapes["kernel"][-1]))
    _, dim, rank = layout.shapes["query"]
    return np.asarray(entries * np.sqrt(scale / np.sqrt(rank * dim)))


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
    dim = problem.dim
    heads = positive_int("num_heads", num_heads, maximum=MOST_ENTRIES // dim**2)
    positive_int("seed", seed, minimum=0, maximum=None)
    one_of("kernel", kernel, ("merged", "factored"))
    one_of("value", value, ("zeros", "normal", "minimizer"))
    scale = real("scale", scale, above=0.0)
    if kernel == "merged" and rank is not None:
        raise ValueError(
            f"rank must be None for kernel='merged', got {shown(rank)}; use 'factored'."
        )
    names, width = ["kernel"], dim
    if kernel == "factored":
        names, width = ["query", "key"], positive_int("rank", dim if rank is None else rank)
    kernel_blocks = tuple((name, (heads, dim, width)) for name in names)
    layout = Layout((*kernel_blocks, ("value", (heads, dim, problem.num_outputs))))
    values = np.zeros(heads * dim * problem.num_outputs)
    if value == "normal":
        draws = stream(seed, "initial value").normal(size=values.size)
        values = draws * scale / np.sqrt(dim)
    start = random_kernel(layout, scale, stream(seed, "initial kernel"))
    params = Params(layout, as_float64("params", np.concatenate([start, values])))
    if value == "minimizer":
        params = params.replace(value=KernelProfile(problem).minimizer(params))
    return params
