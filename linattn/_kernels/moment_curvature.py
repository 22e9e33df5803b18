"""Compiled Hessian-vector products and normal equations on the moments of a client."""

import numpy as np

from linattn._kernels.jit import inner
from linattn._kernels.lanes import WIDTH, load, plus, spread, store
from linattn._kernels.layout import Client, Shape, scale
from linattn._kernels.moments import (
    Places,
    add_tensor,
    add_tensor_pull,
    add_value_image,
    contract,
    pair_image,
    pair_products,
    value_pairs,
)
from linattn._kernels.products import add_product, multiply
from linattn._kernels.views import matrix, vector
from linattn._typing import Array


@inner
def pair_product(
    moments: Array,
    linear: Array,
    shape: Shape,
    at: Places,
    room: Array,
    kernel_out: Array,
    value_out: Array,
) -> None:
    """Hessian of one head applied to (D, W), all of which are in `room`.

        ∂B' = 𝓚(V)D + 𝓚'B − κᵀW,   ∂V' = H'V + H(B)W − κD

    𝓚' and H' are derivatives of 𝓚(V) and H(B) along the direction: twice what the mixed products
    give.
    """
    size, flat = shape.dim * shape.dim, shape.dim * shape.outputs
    pairs = at.by_kernel - at.values
    for j in range(0, size, WIDTH):
        store(room, at.slope + j, spread(0.0))
    for j in range(flat):
        value_out[j] = 0.0
    value_pairs(room, at.value, at.value, shape, at.values)
    pair_products(room, at.kernel, at.direction, size, at.squares)
    contract(moments, pairs, room, at.values, at.squares, at.by_kernel, at.by_value)
    pair_image(room, at, at.by_value, at.direction, size, at.slope)
    for r in range(pairs):
        room[at.by_kernel + r] *= 2.0
    add_value_image(room, at.by_kernel, at.value, shape, value_out)
    value_pairs(room, at.value, at.value_direction, shape, at.values)
    pair_products(room, at.kernel, at.kernel, size, at.squares)
    contract(moments, pairs, room, at.values, at.squares, at.by_kernel, at.by_value)
    for j in range(0, at.direction - at.by_value, WIDTH):
        half = load(room, at.by_value + j)
        store(room, at.by_value + j, plus(half, half))
    pair_image(room, at, at.by_value, at.kernel, size, at.slope)
    add_value_image(room, at.by_kernel, at.value_direction, shape, value_out)
    contract(linear, flat, room, at.value_direction, at.direction, at.linear, at.pulled)
    for i in range(size):
        kernel_out[i] = room[at.slope + i] - room[at.pulled + i]
    for j in range(flat):
        value_out[j] -= room[at.linear + j]


@inner
def add_pair_system(
    own: Client,
    kernel: Array,
    shape: Shape,
    at: Places,
    room: Array,
    hessian: Array,
    linear: Array,
) -> None:
    """Add H(B) and C(B) of one head."""
    dim, outputs = shape.dim, shape.outputs
    for i in range(dim * dim):
        room[at.kernel + i] = kernel[i]
    pair_products(room, at.kernel, at.kernel, dim * dim, at.squares)
    pairs = at.by_kernel - at.values
    contract(own.moments, pairs, room, at.values, at.squares, at.by_kernel, at.by_value)
    contract(own.linear, dim * outputs, room, at.value, at.kernel, at.linear, at.pulled)
    r = at.by_kernel
    for k in range(dim):
        for other in range(k, dim):
            hessian[k, other] += room[r]
            hessian[other, k] += room[r]  # the diagonal holds half, and is added twice
            r += 1
        for c in range(outputs):
            linear[k, c] += room[at.linear + k * outputs + c]


@inner
def moment_product(
    own: Client,
    kernels: Array,
    value: Array,
    kernel_direction: Array,
    value_direction: Array,
    tensor: Array,
    slope: Array,
    kernel_out: Array,
    value_out: Array,
) -> None:
    """Hessian of several heads applied to (D, W): with w' = Σ D ⊗ V + B ⊗ W, the chain rule of

    slope' = Φ w' with (B, V), and of slope = Φ w − κ with (D, W).
    """
    size = tensor.shape[0]
    moments, flat = matrix(own.moments, 0, size, size), vector(slope, 0, slope.size)
    scale(kernel_out, 0.0)
    scale(value_out, 0.0)
    scale(tensor, 0.0)
    add_tensor(own, kernels, value, tensor)
    multiply(moments, tensor, slope)
    for j in range(flat.size):
        flat[j] -= own.linear[j]
    add_tensor_pull(own, slope, kernel_direction, value_direction, kernel_out, value_out)
    scale(tensor, 0.0)
    add_tensor(own, kernel_direction, value, tensor)
    add_tensor(own, kernels, value_direction, tensor)
    multiply(moments, tensor, slope)
    add_tensor_pull(own, slope, kernels, value, kernel_out, value_out)


@inner
def add_moment_system(own: Client, kernels: Array, hessian: Array, linear: Array) -> None:
    """Add EᵀΦE and Eᵀκ, E (f', Hd) with B_h[a, b] in row (a, {b, k}) of column (h, k)."""
    (heads, dim, _), outputs = kernels.shape, linear.shape[1]
    half = dim * (dim + 1) // 2
    size = dim * half
    maps, images = np.zeros((size, heads * dim)), np.empty((size, heads * dim))
    for h in range(heads):
        for a in range(dim):
            for b in range(dim):
                for k in range(dim):
                    maps[a * half + own.pair[b, k], h * dim + k] += kernels[h, a, b]
    multiply(matrix(own.moments, 0, size, size), maps, images)
    add_product(maps.T, images, hessian)
    add_product(maps.T, matrix(own.linear, 0, size, outputs), linear)
