"""Compiled gradients on the moments of a client, at a cost without the number of sequences.

The data loss is a quadratic in W = Σ_h B_h ⊗ V_h (notes, Moments). With several heads W is
formed, folded because G is symmetric; with one head the moments are contracted with V Vᵀ and with
B ⊗ B instead.
"""

import numpy as np
from numba import njit

from linattn._typing import Array, IntArray


# Sums may be reordered here, which lets them vectorize; NaN and infinity still behave.
@njit(cache=True, fastmath={"reassoc", "contract"})
def contract_pairs(
    moments: Array, left: Array, right: Array, by_row: Array, by_column: Array
) -> None:
    """by_row = moments @ right and by_column = left @ moments, in one pass over the moments."""
    rows, width = moments.shape
    for j in range(width):
        by_column[j] = 0.0
    fours = rows - rows % 4
    for r in range(0, fours, 4):
        a, b, c, d = moments[r], moments[r + 1], moments[r + 2], moments[r + 3]
        y0, y1, y2, y3 = left[r], left[r + 1], left[r + 2], left[r + 3]
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for j in range(width):
            x = right[j]
            s0 += a[j] * x
            s1 += b[j] * x
            s2 += c[j] * x
            s3 += d[j] * x
            by_column[j] += (y0 * a[j] + y1 * b[j]) + (y2 * c[j] + y3 * d[j])
        by_row[r], by_row[r + 1], by_row[r + 2], by_row[r + 3] = s0, s1, s2, s3
    for r in range(fours, rows):
        a, y0, s0 = moments[r], left[r], 0.0
        for j in range(width):
            s0 += a[j] * right[j]
            by_column[j] += y0 * a[j]
        by_row[r] = s0


@njit(cache=True, fastmath={"reassoc", "contract"})
def pair_gradient(
    moments: Array,
    linear: Array,
    kernel: Array,
    value_t: Array,
    kernel_gradient: Array,
    value_gradient_t: Array,
    room: Array,
) -> None:
    """Mean data gradient of one head: ∂B = 𝓚(V)B − κV and ∂V = H(B)V − κB from pair moments.

    A row of `moments` belongs to k ≤ k' and holds Φ_kk' + Φ_k'k (Φ_kk on the diagonal), a column
    to i ≥ j among the pairs i = (a, b), of which the matrix is symmetric.
    """
    outputs, dim = value_t.shape
    rows, width = moments.shape
    flat, slope = kernel.reshape(-1), kernel_gradient.reshape(-1)
    left, by_row = room[0, :rows], room[1, :rows]
    right, by_column = room[2, :width], room[3, :width]
    r = 0
    for k in range(dim):
        for other in range(k, dim):
            total = 0.0
            for c in range(outputs):
                total += value_t[c, k] * value_t[c, other]
            left[r] = total
            r += 1
    for i in range(dim * dim):
        part, x = right[i * (i + 1) // 2 :], 2.0 * flat[i]
        for other in range(i):
            part[other] = x * flat[other]
        part[i] = flat[i] * flat[i]
    contract_pairs(moments, left, right, by_row, by_column)
    for i in range(dim * dim):
        part, x, total = by_column[i * (i + 1) // 2 :], flat[i], 0.0
        for other in range(i):
            total += part[other] * flat[other]
            slope[other] += part[other] * x
        slope[i] = total + part[i] * x
    for k in range(dim):
        for c in range(outputs):
            row, v, total = linear[k * outputs + c], value_t[c, k], 0.0
            for i in range(dim * dim):
                slope[i] -= v * row[i]
                total += row[i] * flat[i]
            value_gradient_t[c, k] = -total
    r = 0
    for k in range(dim):
        for other in range(k, dim):
            x = by_row[r] if other == k else 0.5 * by_row[r]
            r += 1
            for c in range(outputs):
                value_gradient_t[c, k] += x * value_t[c, other]
                if other != k:
                    value_gradient_t[c, other] += x * value_t[c, k]


@njit(cache=True)
def moment_gradient(
    moments: Array,
    linear: Array,
    pair: IntArray,
    kernels: Array,
    value_t: Array,
    kernel_gradient: Array,
    value_gradient_t: Array,
    tensor: Array,
    slope: Array,
    need_kernel: bool,
) -> None:
    """Mean data gradient from folded moments: slope = Φ w − κ, contracted with V and B."""
    heads, outputs, dim = value_t.shape
    half = moments.shape[0] // dim
    for j in range(tensor.shape[0]):
        for c in range(outputs):
            tensor[j, c] = 0.0
    for h in range(heads):
        for a in range(dim):
            for b in range(dim):
                x = kernels[h, a, b]
                for k in range(dim):
                    row = a * half + pair[b, k]
                    for c in range(outputs):
                        tensor[row, c] += x * value_t[h, c, k]
    np.dot(moments, tensor, slope)
    for j in range(tensor.shape[0]):
        for c in range(outputs):
            slope[j, c] -= linear[j, c]
    for c in range(outputs):
        for k in range(dim):
            for h in range(heads):
                value_gradient_t[h, c, k] = 0.0
    for h in range(heads):
        for a in range(dim):
            for b in range(dim):
                x, total = kernels[h, a, b], 0.0
                for k in range(dim):
                    row = a * half + pair[b, k]
                    for c in range(outputs):
                        total += slope[row, c] * value_t[h, c, k]
                        value_gradient_t[h, c, k] += slope[row, c] * x
                if need_kernel:
                    kernel_gradient[h, a, b] = total
