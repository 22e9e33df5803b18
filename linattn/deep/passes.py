"""One attention layer forward and backward, and the readout: pure functions on stacked sequences.

    X⁺ = [X +] Σ_h φ(X W_Q) φ(X W_K)ᵀ X W_V / n        φ = identity or ReLU

With Q = φ(X W_Q) and K = φ(X W_K), heads side by side, the layer is evaluated from the right,

    M_h = K_hᵀ X / n  (r, d),    N_h = M_h W_V  (r, d),    X⁺ = [X +] Σ_h Q_h N_h,

so the n × n attention matrix is never formed. The derivation is the chain rule; the tests compare
with loops over tokens, with finite differences and with automatic differentiation.

Shapes are those of one model. With an axis more in front, of weights and tokens alike, several
models run at once, each on its own sequences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from linattn._typing import Array, BoolArray
from linattn.types import Layout


class Layer(NamedTuple):
    """Weights of one layer, or their gradient: query and key (d, H·r), value (H, d, d)."""

    query: Array
    key: Array
    value: Array


def layer_weights(layout: Layout, flat: Array, number: int) -> Layer:
    """Weights of layer `number`, heads of query and key side by side."""
    query, key = (layout.view(flat, f"layer{number}.{name}") for name in ("query", "key"))
    return Layer(
        _side_by_side(query), _side_by_side(key), layout.view(flat, f"layer{number}.value")
    )


def store_gradient(layout: Layout, out: Array, number: int, gradient: Layer) -> None:
    """Write the gradient of layer `number` into the flat vector `out`."""
    for name, sides in (("query", gradient.query), ("key", gradient.key)):
        block = layout.view(out, f"layer{number}.{name}")
        block[...] = sides.reshape(block.swapaxes(-3, -2).shape).swapaxes(-3, -2)
    layout.view(out, f"layer{number}.value")[...] = gradient.value


def _side_by_side(weights: Array) -> Array:
    """(H, d, r) as (d, H·r)."""
    return weights.swapaxes(-3, -2).reshape(*weights.shape[:-3], weights.shape[-2], -1)


class LayerTape(NamedTuple):
    """What the backward pass of a layer needs from its forward pass.

    Attributes
    ----------
    tokens : array, shape (S, n, d)
        X, the input of the layer.
    query, key : array, shape (S, n, H·r)
        Q and K after φ.
    moments : array, shape (S, H, r, d)
        M_h.
    product : array, shape (S, H·r, d)
        N_h, heads stacked.
    query_gate, key_gate : array of bool, shape (S, n, H·r), or None
        φ' where φ is ReLU; None for the identity.
    """

    tokens: Array
    query: Array
    key: Array
    moments: Array
    product: Array
    query_gate: BoolArray | None
    key_gate: BoolArray | None


class Trace(NamedTuple):
    """A forward pass over stacked sequences, ready for `DeepAttention.pull_back`.

    Attributes
    ----------
    features : array, shape (S, q, d)
        U, the tokens read from the last layer: the representation.
    predictions : array, shape (S, q, m)
        Ŷ = U W_O.
    layers : tuple of LayerTape
    weights : tuple of Layer
    readout : array, shape (d, m)
        W_O.
    """

    features: Array
    predictions: Array
    layers: tuple[LayerTape, ...]
    weights: tuple[Layer, ...]
    readout: Array


def _times(tokens: Array, weights: Array) -> Array:
    """Tokens (S, n, a) times weights (a, b), as one matrix product."""
    flat = tokens.reshape(*weights.shape[:-2], -1, tokens.shape[-1]) @ weights
    return flat.reshape(*tokens.shape[:-1], weights.shape[-1])


def outer(left: Array, right: Array) -> Array:
    """Σ over sequences and tokens of left (S, n, a) and right (S, n, b): (a, b)."""
    columns = _rows(left).swapaxes(-1, -2)
    if not left.flags.c_contiguous:  # last tokens of sequences
        columns = np.ascontiguousarray(columns)
    return np.asarray(columns @ _rows(right))


def _rows(tokens: Array) -> Array:
    """Sequences (S, n, a) below one another, (S·n, a)."""
    return tokens.reshape(*tokens.shape[:-3], -1, tokens.shape[-1])


def _outer_heads(left: Array, right: Array) -> Array:
    """Σ over sequences and rows of left (S, H, r, a) and right (S, H, r, b): (H, a, b)."""
    *models, _, heads, _, width = left.shape
    k = len(models)
    front = range(k)
    rows = left.transpose(*front, k + 1, k + 3, k, k + 2).reshape(*models, heads, width, -1)
    columns = right.swapaxes(k, k + 1).reshape(*models, heads, -1, right.shape[-1])
    return rows @ columns


def layer_forward(
    layer: Layer, tokens: Array, *, residual: bool, relu: bool, gates: BoolArray | None
) -> tuple[Array, LayerTape]:
    """Return the output of a layer and the tape of its backward pass.

    Parameters
    ----------
    layer : Layer
    tokens : array, shape (S, n, d)
    residual, relu : bool
    gates : array of bool, shape (S, 2, n, H, r), or None
        Fixed gates of query and key features; None opens the features that are positive.

    Notes
    -----
    Cost: S n (4 H r d) + S H r d² multiply-adds.
    """
    *stack, length, dim = tokens.shape
    query, key = _times(tokens, layer.query), _times(tokens, layer.key)
    query_gate = key_gate = None
    if relu:
        if gates is None:
            query_gate, key_gate = query > 0, key > 0
        else:
            query_gate, key_gate = (gates[..., j, :, :, :].reshape(query.shape) for j in (0, 1))
        # Products, not a selection: a NaN must stay visible.
        query, key = query * query_gate, key * key_gate
    heads = layer.value.shape[-3]
    moments = (key.swapaxes(-1, -2) @ tokens / length).reshape(*stack, heads, -1, dim)
    product = (moments @ layer.value[..., None, :, :, :]).reshape(*stack, -1, dim)
    out = query @ product
    if residual:
        out += tokens
    return out, LayerTape(tokens, query, key, moments, product, query_gate, key_gate)


def layer_backward(
    layer: Layer, tape: LayerTape, cotangent: Array, *, residual: bool, to_tokens: bool
) -> tuple[Layer, Array]:
    """Return the gradient in the weights, and the cotangent of the layer's input.

    With D = ∂/∂X⁺: ∂Q = D Nᵀ, ∂N = Qᵀ D, ∂W_V = Mᵀ ∂N, ∂M = ∂N W_Vᵀ, ∂K = X ∂Mᵀ / n,
    ∂X = [D +] K ∂M / n + ∂Q W_Qᵀ + ∂K W_Kᵀ, with ∂Q and ∂K gated before they enter the weights.

    Parameters
    ----------
    layer : Layer
    tape : LayerTape
    cotangent : array, shape (S, n, d)
        D.
    residual : bool
    to_tokens : bool
        Whether ∂X is needed; without it an empty array is returned.

    Notes
    -----
    Gradients are summed over sequences. Cost: about twice that of `layer_forward`.
    """
    *stack, length, dim = tape.tokens.shape
    d_query = cotangent @ tape.product.swapaxes(-1, -2)
    d_product = (tape.query.swapaxes(-1, -2) @ cotangent).reshape(tape.moments.shape)
    d_value = _outer_heads(tape.moments, d_product)
    values = layer.value.swapaxes(-1, -2)[..., None, :, :, :]
    d_moments = (d_product @ values).reshape(*stack, -1, dim) / length
    d_key = tape.tokens @ d_moments.swapaxes(-1, -2)
    if tape.query_gate is not None:
        d_query, d_key = d_query * tape.query_gate, d_key * tape.key_gate
    gradient = Layer(outer(tape.tokens, d_query), outer(tape.tokens, d_key), d_value)
    if not to_tokens:
        return gradient, np.empty(0)
    d_tokens = tape.key @ d_moments
    d_tokens += _times(d_query, layer.query.swapaxes(-1, -2))
    d_tokens += _times(d_key, layer.key.swapaxes(-1, -2))
    if residual:
        d_tokens += cotangent
    return gradient, d_tokens


def read_backward(cotangent: Array, readout: str, length: int) -> Array:
    """Cotangent (S, n, d) of the tokens from that of the tokens read, (S, q, d)."""
    if readout == "token":
        return cotangent
    *stack, _, dim = cotangent.shape
    if readout == "mean":
        return np.broadcast_to(cotangent / length, (*stack, length, dim))
    out = np.zeros((*stack, length, dim))
    out[..., -1:, :] = cotangent
    return out
