"""Multiply-adds of gradients, read from block names and shapes."""

from __future__ import annotations

from typing import NamedTuple

from linattn.deep import DeepAttention
from linattn.types import Layout


class Work(NamedTuple):
    """Multiply-adds per token, per sequence and per local step."""

    per_token: int = 0
    per_sequence: int = 0
    per_step: int = 0

    def plus(self, other: Work, times: int = 1) -> Work:
        """This and `times` the other."""
        return Work(*(a + times * b for a, b in zip(self, other, strict=True)))

    def total(self, tokens: int, sequences: int, steps: int) -> int:
        """Of so many tokens, sequences and steps."""
        return self.per_token * tokens + self.per_sequence * sequences + self.per_step * steps


NO_WORK = Work()


def statistics_work(layout: Layout, trained: frozenset[str], *, rank_one: bool) -> Work:
    """Return the work of one client gradient of the single-layer model in the trained blocks.

    Per sequence, with U_h = G V_h (token readout): U_h H d²m, Z = Σ B_h U_h H d²m, R = M Z − K d²m;
    ∂B_h = R U_hᵀ H d²m; ∂V_h = G B_hᵀ R 2H d²m: (5H + 1) d²m in all. With one query per sequence
    (mean, last): G B_hᵀ u and the prediction H(2d² + dm); ∂V_h H dm; ∂B_h H(2d² + dm). Factored
    kernels add H d²r per step to form B, and as much for each of ∂Q and ∂K.

    Notes
    -----
    Source: Model. Nothing trained leaves the forward pass.
    """
    heads, dim, outputs = layout.shapes["value"]
    square, flat = dim * dim, dim * outputs
    if rank_one:
        forward = heads * (2 * square + flat)
        kernel, value = forward, heads * flat
    else:
        forward = (2 * heads + 1) * dim * flat
        kernel, value = heads * dim * flat, 2 * heads * dim * flat
    kernel_part = kernel if trained & layout.kernel_blocks else 0
    value_part = value if "value" in trained else 0
    product = heads * square * layout.shapes["query"][-1] if "query" in layout.shapes else 0
    per_step = product * (1 + len(trained & layout.kernel_blocks))
    return Work(0, forward + kernel_part + value_part, per_step)


def deep_work(model: DeepAttention, trained: frozenset[str], *, predictions: bool = True) -> Work:
    """Return the work of one gradient of a deep model in the trained blocks.

    With the unit a = H d r per token and b = H r d² per sequence, a layer costs 4a + b forward
    (queries, keys, KᵀX, Q N; M W_V). Backward, a layer whose input gradient is needed costs as much
    as its products ask: ∂Q a, ∂W_Q a, ∂N a, ∂W_V b, ∂M b, ∂K a, ∂W_K a, ∂X 3a. The backward pass
    stops at the lowest layer with a trained block. The readout costs d m per query forward, and d m
    for each of ∂W_O and the cotangent below.

    Parameters
    ----------
    model : DeepAttention
    trained : frozenset of str
        Nothing trained leaves the forward pass.
    predictions : bool
        False for a loss on the features that the readout multiplies.
    """
    heads, dim, inner, layers = model.num_heads, model.dim, model.inner_dim, model.num_layers
    below = [k for k in range(layers) if any(f"layer{k}.{n}" in trained for n in LAYER_BLOCKS)]
    units, squares = 4 * layers, layers
    for layer in range(min(below, default=layers), layers):
        a, b = _backward_products(trained, layer, to_tokens=layer > below[0])
        units, squares = units + a, squares + b
    reads = dim * model.num_outputs * predictions * (1 + ("readout" in trained) + bool(below))
    token_reads = reads if model.readout == "token" else 0
    return Work(
        units * heads * dim * inner + token_reads,
        squares * heads * inner * dim * dim + reads - token_reads,
        0,
    )


LAYER_BLOCKS = ("query", "key", "value")


def _backward_products(trained: frozenset[str], layer: int, *, to_tokens: bool) -> tuple[int, int]:
    """Products of size H d r per token, and of size H r d² per sequence."""
    query, key, value = (f"layer{layer}.{name}" in trained for name in LAYER_BLOCKS)
    units = (query or to_tokens) + query + (value or key or to_tokens)
    units += (key or to_tokens) + key + 3 * to_tokens
    return units, value + (key or to_tokens)
