"""Compiled gradients on the moments of a client, at a cost without the number of sequences.

The data loss is a quadratic in W = Σ_h B_h ⊗ V_h (notes, Moments). With several heads W is
formed, folded because G is symmetric; with one head the moments are contracted with V Vᵀ and with
B ⊗ B instead.
"""

from typing import NamedTuple

import numpy as np

from linattn._kernels.jit import inner
from linattn._kernels.lanes import (
    WIDTH,
    load,
    padded,
    plus,
    spread,
    store,
    times,
    times_plus,
    total,
)
from linattn._kernels.layout import Client, Shape, scale
from linattn._kernels.products import multiply
from linattn._kernels.views import matrix
from linattn._typing import Array


class Places(NamedTuple):
    """Where things lie in the room for one head: x = vec(B), v pairs k ≤ k', w pairs i ≥ j.

    One array and places in it, because every array costs two counts of references per call. All
    but the values begin and end with a register, and what lies beyond their entries is zero or
    meets zeros.
    """

    masks: int  # of every remainder: ones up to it, zeros beyond
    sums: int  # of rows
    kernel: int  # x and zeros
    slope: int  # 𝓚(V) x
    pulled: int  # κᵀ V
    squares: int  # x_i x_j + x_j x_i on the pairs
    by_value: int  # 𝓚(V) on the pairs, half of it on the diagonal
    direction: int  # vec(D) of a direction (D, W), and zeros
    value: int  # V
    value_direction: int  # W
    values: int  # V Vᵀ + V Vᵀ on the pairs
    by_kernel: int  # H(B) on the pairs, half of it on the diagonal
    linear: int  # κ x
    end: int


@inner
def places_of(dim: int, outputs: int, width: int) -> Places:
    """Places for moments with `width` columns."""
    size, flat, pairs = padded(dim * dim), dim * outputs, dim * (dim + 1) // 2
    first = WIDTH * WIDTH
    squares = first + 4 * size
    direction = squares + 2 * width
    value = direction + size
    values = value + 2 * flat
    linear = values + 2 * pairs
    return Places(
        0,
        first,
        first + size,
        first + 2 * size,
        first + 3 * size,
        squares,
        squares + width,
        direction,
        value,
        value + flat,
        values,
        values + pairs,
        linear,
        linear + flat,
    )


@inner
def pair_room(at: Places) -> Array:
    """Room for one head, with masks and zeros where they belong."""
    room = np.zeros(at.end)
    for r in range(WIDTH):
        for j in range(r + 1):
            room[at.masks + r * WIDTH + j] = 1.0
    return room


@inner
def contract(
    matrix: Array, rows: int, room: Array, left: int, right: int, by_row: int, by_column: int
) -> None:
    """by_row = matrix @ right and by_column = left @ matrix, in one pass over the flat matrix."""
    width = matrix.size // rows
    for j in range(0, width, WIDTH):
        store(room, by_column + j, spread(0.0))
    fours = rows - rows % 4
    for r in range(0, fours, 4):
        a, b, c, d = r * width, (r + 1) * width, (r + 2) * width, (r + 3) * width
        y0, y1 = spread(room[left + r]), spread(room[left + r + 1])
        y2, y3 = spread(room[left + r + 2]), spread(room[left + r + 3])
        s0, s1, s2, s3 = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
        for j in range(0, width, WIDTH):
            x, out = load(room, right + j), load(room, by_column + j)
            a_j, b_j = load(matrix, a + j), load(matrix, b + j)
            c_j, d_j = load(matrix, c + j), load(matrix, d + j)
            s0, s1 = times_plus(a_j, x, s0), times_plus(b_j, x, s1)
            s2, s3 = times_plus(c_j, x, s2), times_plus(d_j, x, s3)
            out = times_plus(y1, b_j, times_plus(y0, a_j, out))
            store(room, by_column + j, times_plus(y3, d_j, times_plus(y2, c_j, out)))
        room[by_row + r], room[by_row + r + 1] = total(s0), total(s1)
        room[by_row + r + 2], room[by_row + r + 3] = total(s2), total(s3)
    for r in range(fours, rows):
        y0, s0 = spread(room[left + r]), spread(0.0)
        for j in range(0, width, WIDTH):
            a_j = load(matrix, r * width + j)
            s0 = times_plus(a_j, load(room, right + j), s0)
            store(room, by_column + j, times_plus(y0, a_j, load(room, by_column + j)))
        room[by_row + r] = total(s0)


@inner
def pair_products(room: Array, x: int, y: int, size: int, out: int) -> None:
    """x_i y_j + x_j y_i of all pairs i ≥ j.

    A row is written in whole registers: what it writes too far the following rows write again.
    """
    row = out
    for i in range(size):
        x_i, y_i = spread(room[x + i]), spread(room[y + i])
        for j in range(0, i + 1, WIDTH):
            product = times(x_i, load(room, y + j))
            store(room, row + j, times_plus(y_i, load(room, x + j), product))
        row += i + 1


@inner
def pair_image(room: Array, at: Places, packed: int, x: int, size: int, out: int) -> None:
    """out += P x for a symmetric matrix given on the pairs i ≥ j, half of it on the diagonal.

    A number that is stored alone is not read back soon: a register that spans it would wait.
    """
    row = packed
    for i in range(size):
        x_i, sum_so_far, last = spread(room[x + i]), spread(0.0), i - i % WIDTH
        for j in range(0, last, WIDTH):
            entries = load(room, row + j)
            sum_so_far = times_plus(entries, load(room, x + j), sum_so_far)
            store(room, out + j, times_plus(entries, x_i, load(room, out + j)))
        entries = times(load(room, row + last), load(room, at.masks + (i - last) * WIDTH))
        sum_so_far = times_plus(entries, load(room, x + last), sum_so_far)
        store(room, out + last, times_plus(entries, x_i, load(room, out + last)))
        room[at.sums + i] = total(sum_so_far)
        row += i + 1
    for j in range(0, size, WIDTH):
        store(room, out + j, plus(load(room, out + j), load(room, at.sums + j)))


@inner
def value_pairs(room: Array, left: int, right: int, shape: Shape, out: int) -> None:
    """Σ_c V_kc W_k'c + W_kc V_k'c of all pairs k ≤ k'."""
    dim, outputs = shape.dim, shape.outputs
    for k in range(dim):
        for other in range(k, dim):
            here, there, so_far = k * outputs, other * outputs, 0.0
            for c in range(outputs):
                so_far += room[left + here + c] * room[right + there + c]
                so_far += room[right + here + c] * room[left + there + c]
            room[out] = so_far
            out += 1


@inner
def add_value_image(room: Array, pairs: int, value: int, shape: Shape, out: Array) -> None:
    """out += H V for a symmetric matrix given on the pairs k ≤ k', half of it on the diagonal."""
    dim, outputs = shape.dim, shape.outputs
    for k in range(dim):
        for other in range(k, dim):
            x, here, there = room[pairs], k * outputs, other * outputs
            pairs += 1
            for c in range(outputs):
                out[here + c] += x * room[value + there + c]
                out[there + c] += x * room[value + here + c]


@inner
def pair_gradient(
    moments: Array,
    linear: Array,
    shape: Shape,
    at: Places,
    room: Array,
    kernel_gradient: Array,
    value_gradient: Array,
) -> float:
    """Data gradient of one head at the kernel and value in `room`; return the loss but ½c.

        ∂B = 𝓚(V)B − κᵀV,   ∂V = H(B)V − κB,   ½⟨V, H(B)V⟩ − ⟨V, κB⟩

    A row of the moments belongs to k ≤ k' and holds the half of Φ_kk' + Φ_k'k (Φ_kk / 2 on the
    diagonal), a column to i ≥ j among the pairs i = (a, b), in which such a row is symmetric, and
    which holds half of it on the diagonal. All arrays are flat.
    """
    size, flat = shape.dim * shape.dim, shape.dim * shape.outputs
    pairs = at.by_kernel - at.values
    value_pairs(room, at.value, at.value, shape, at.values)
    pair_products(room, at.kernel, at.kernel, size, at.squares)
    contract(moments, pairs, room, at.values, at.squares, at.by_kernel, at.by_value)
    contract(linear, flat, room, at.value, at.kernel, at.linear, at.pulled)
    for i in range(0, size, WIDTH):
        store(room, at.slope + i, spread(0.0))
    pair_image(room, at, at.by_value, at.kernel, size, at.slope)
    for i in range(size):
        kernel_gradient[i] = room[at.slope + i] - room[at.pulled + i]
    loss = 0.0
    for r in range(pairs):
        loss += room[at.values + r] * room[at.by_kernel + r]
    loss *= 0.5
    for j in range(flat):
        loss -= room[at.value + j] * room[at.linear + j]
        value_gradient[j] = -room[at.linear + j]
    add_value_image(room, at.by_kernel, at.value, shape, value_gradient)
    return loss


@inner
def moment_gradient(
    own: Client,
    kernels: Array,
    value: Array,
    tensor: Array,
    slope: Array,
    kernel_gradient: Array,
    value_gradient: Array,
) -> float:
    """Mean data gradient from folded moments, slope = Φ w − κ contracted with V and B; the loss."""
    outputs, size = value.shape[2], tensor.shape[0]
    scale(tensor, 0.0)
    add_tensor(own, kernels, value, tensor)
    multiply(matrix(own.moments, 0, size, size), tensor, slope)
    loss = own.energy
    for j in range(size):
        for c in range(outputs):
            pulled = own.linear[j * outputs + c]
            loss += tensor[j, c] * (slope[j, c] - 2.0 * pulled)
            slope[j, c] -= pulled
    scale(kernel_gradient, 0.0)
    scale(value_gradient, 0.0)
    add_tensor_pull(own, slope, kernels, value, kernel_gradient, value_gradient)
    return 0.5 * loss


@inner
def add_tensor(own: Client, kernels: Array, value: Array, tensor: Array) -> None:
    """tensor += Σ_h B_h ⊗ V_h on the rows (a, {b, k}) of the folded moments."""
    heads, dim, outputs = value.shape
    half = tensor.shape[0] // dim
    for h in range(heads):
        for a in range(dim):
            for b in range(dim):
                x = kernels[h, a, b]
                for k in range(dim):
                    row = a * half + own.pair[b, k]
                    for c in range(outputs):
                        tensor[row, c] += x * value[h, k, c]


@inner
def add_tensor_pull(
    own: Client,
    slope: Array,
    kernels: Array,
    value: Array,
    kernel_gradient: Array,
    value_gradient: Array,
) -> None:
    """Add the slope in W contracted with V and with B: the chain rule of w = Σ_h B_h ⊗ V_h."""
    heads, dim, outputs = value.shape
    half = slope.shape[0] // dim
    for h in range(heads):
        for a in range(dim):
            for b in range(dim):
                x, sum_so_far = kernels[h, a, b], 0.0
                for k in range(dim):
                    row = a * half + own.pair[b, k]
                    for c in range(outputs):
                        sum_so_far += slope[row, c] * value[h, k, c]
                        value_gradient[h, k, c] += slope[row, c] * x
                kernel_gradient[h, a, b] += sum_so_far
