"""The convex problem behind C15: least squares plus the nuclear norm in W = Σ_h vec(B_h) vec(V_h)ᵀ.

min_W data(W) + τ‖W‖_* has no number of heads in it. W is (d², dm), so with min(d², dm) heads every
W is a product BᵀV, and τ‖W‖_* is the least (τ/2)(‖B‖² + ‖V‖²) over such products: the fit, from
which starts and lower bounds come.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, cast

import numpy as np

from linattn._typing import AnyArray, Array
from linattn.objectives.moment_form import MAX_MOMENT_ENTRIES, DataForm, MomentForm
from linattn.objectives.population import Population
from linattn.objectives.tensor import TensorData

# The bound is valid wherever the fit stops, so these limit only its tightness.
RELATIVE_GAP = 1e-7
MAX_ITERATIONS = 1000
MIN_ITERATIONS = 250
MAX_WORK = 8e10  # multiply-adds
CHECK_EVERY = 20
MEMORY = 5
# Residuals swing around their limit; the norm of a mean of them exceeds τ less than that of one.
AVERAGE = 0.9


def lower_bound(data: TensorData, image: Array, threshold: float) -> float:
    """Return the C15(a) bound from the residual at Z."""
    weighed = data.weigh(image)
    along = float(np.vdot(data.cross, image))
    rr = data.energy - 2.0 * along + float(np.vdot(image, weighed))
    if rr <= 0.0:
        return 0.0
    slope = data.pull(weighed - data.cross)
    # The smaller Gram matrix gives the norm in a tenth of the time of a singular value.
    thin = slope if slope.shape[0] >= slope.shape[1] else slope.T
    norm = float(np.sqrt(max(np.linalg.eigvalsh(thin.T @ thin)[-1], 0.0)))
    limit, ry = threshold / norm if norm > 0.0 else np.inf, along - data.energy
    t = float(np.clip(-ry / rr, -limit, limit))
    return -0.5 * t * t * rr - t * ry


def wide_form(held: Population) -> DataForm:
    """The form that is cheaper for many heads: moments wherever they fit, f² m for any width."""
    problem = held.problem
    if isinstance(held.form.twin, MomentForm) or problem.dim**6 > MAX_MOMENT_ENTRIES:
        return held.form.twin
    return MomentForm(problem.statistics, problem.sequence_weights)


def dual_lower_bound(held: Population, kernel: Array, value: Array, threshold: float) -> float:
    """Return the C15(a) lower bound of min_W data(W) + τ‖W‖_* from any point (B, V).

    Parameters
    ----------
    held : Population
    kernel : array, shape (H, d, d)
    value : array, shape (H, d, m)
    threshold : float
        τ; for merged kernels √(λμ).

    Notes
    -----
    With rr = 2·data loss, ry = Σ w(⟨K, Z⟩ − c), t = clip(−ry/rr, ±τ/‖𝒢‖₂): −½t²rr − t·ry.
    Source: C15(a), weak duality.
    """
    data, heads = held.form.twin.tensor, len(kernel)
    product = kernel.reshape(heads, -1).T @ value.reshape(heads, -1)
    return lower_bound(data, data.image(product), threshold)


class WideFit(NamedTuple):
    """A near-minimizer as balanced heads, and the best bound that was met on the way.

    Attributes
    ----------
    kernel : array, shape (H, d, d)
    value : array, shape (H, d, m)
    lower_bound : float
        Of min_W data(W) + τ‖W‖_*, by weak duality.
    """

    kernel: Array
    value: Array
    lower_bound: float


def wide_fit(held: Population, threshold: float) -> WideFit:
    """Minimize data(BᵀV) + (τ/2)(‖B‖² + ‖V‖²) over min(d², dm) heads: C15's convex problem.

    The fit ends when the loss is within 1e-7 of the bound, relatively, or after a number of
    iterations that falls with the size; the bound is valid wherever it ends.

    Parameters
    ----------
    held : Population
    threshold : float
        τ > 0.

    Notes
    -----
    Source: C15; L-BFGS as in Liu and Nocedal 1989, with the exact minimum along every line. Cost
    of an iteration: three products with the Gram matrices (S d² (d + 1) m / 2 multiply-adds each)
    or two with the moments (f² m), and five of the size of W, min(d², dm) d³ m.
    """
    data, dim = wide_form(held).tensor, held.problem.dim
    heads = min(dim**2, dim * held.problem.num_outputs)
    objective = _Objective(data, heads, threshold)
    bound = lower_bound(data, np.zeros_like(data.cross), threshold)
    down = data.pull(data.cross)  # −𝒢 at W = 0
    image = data.image(down)
    curved = float(np.vdot(image, data.weigh(image)))
    flat = np.zeros(heads * sum(down.shape))
    if curved > 0.0:
        flat = objective.balanced(down * (float(np.vdot(down, down)) / curved))
        work = 3 * image.size * len(data.low) + 5 * heads * down.size
        iterations = int(np.clip(MAX_WORK / work, MIN_ITERATIONS, MAX_ITERATIONS))
        if iterations < MAX_ITERATIONS:  # it ends far above rounding: half the bytes and the time
            objective, flat = objective.rough(), _single(flat)
        flat, bound = _descend(objective, flat, data, bound, iterations)
    kernel, value = objective.blocks(flat.astype(np.float64))
    shape = (heads, dim, -1)
    return WideFit(kernel.reshape(shape), value.reshape(shape), bound)


def _single(array: Array) -> Array:
    """In single precision, which the type does not say."""
    return cast(Array, array.astype(np.float32))


class _Point(NamedTuple):
    """Flat (B, V), Z of BᵀV, and ΨZ; of a line, coefficients t and t² of the last two."""

    flat: Array
    image: Array
    weighed: Array


POWERS = np.arange(1, 5)
_COMPANION = np.diag(np.ones(2), -1)


def _cubic_roots(coefficients: Array) -> AnyArray:
    """`numpy.roots` of four numbers, without what it does for polynomials of any degree."""
    if not coefficients.all():
        return np.asarray(np.roots(coefficients))
    companion = _COMPANION.copy()
    companion[0] = -coefficients[1:] / coefficients[0]
    return np.linalg.eigvals(companion)


class _Line(NamedTuple):
    """From a point along a way: Z = Z₀ + tZ₁ + t²Z₂, and the loss c₁t + c₂t² + c₃t³ + c₄t⁴."""

    way: Array
    images: tuple[Array, Array]
    weighed: tuple[Array, Array]
    coefficients: Array

    def minimum(self) -> float:
        """The t > 0 where the loss is smallest, or 0."""
        roots = _cubic_roots((POWERS * self.coefficients)[::-1])
        real = roots[np.abs(roots.imag) <= 1e-9 * np.abs(roots)].real
        losses = [float(self.coefficients @ t**POWERS) for t in real]
        falls = [(loss, t) for loss, t in zip(losses, real.tolist(), strict=True) if t > 0.0]
        return min(falls, default=(0.0, 0.0))[1]


class _Objective:
    """data(BᵀV) + (τ/2)(‖B‖² + ‖V‖²) of flat (B, V)."""

    def __init__(self, data: TensorData, heads: int, threshold: float) -> None:
        self.data = data
        self.heads = heads
        self.threshold = float(threshold)  # not of a type that widens single precision
        self.split = heads * data.dim**2

    def rough(self) -> _Objective:
        """The same in single precision."""
        data = self.data._replace(
            gram=None if self.data.gram is None else _single(self.data.gram),
            middle=_single(self.data.middle),
            cross=_single(self.data.cross),
        )
        return _Objective(data, self.heads, self.threshold)

    def blocks(self, flat: Array) -> tuple[Array, Array]:
        """B (H, d²) and V (H, dm)."""
        kernel, value = flat[: self.split], flat[self.split :]
        return kernel.reshape(self.heads, -1), value.reshape(self.heads, -1)

    def balanced(self, tensor: Array) -> Array:
        """W as BᵀV, the smaller factor a multiple of the identity."""
        scale = (float(np.vdot(tensor, tensor)) / self.heads) ** 0.25
        factors = [tensor.T / scale, scale * np.eye(self.heads)]
        if self.heads < tensor.shape[1]:
            factors = [scale * np.eye(self.heads), tensor / scale]
        return np.concatenate([factor.reshape(-1) for factor in factors])

    def at(self, flat: Array) -> _Point:
        kernel, value = self.blocks(flat)
        image = self.data.image(kernel.T @ value)
        return _Point(flat, image, self.data.weigh(image))

    def loss(self, point: _Point) -> float:
        ridge = 0.5 * self.threshold * float(point.flat @ point.flat)
        pulled = float(np.vdot(point.image, point.weighed - 2.0 * self.data.cross))
        return 0.5 * (self.data.energy + pulled) + ridge

    def gradient(self, point: _Point) -> Array:
        kernel, value = self.blocks(point.flat)
        slope = self.data.pull(point.weighed - self.data.cross)
        flat = np.concatenate([(value @ slope.T).reshape(-1), (kernel @ slope).reshape(-1)])
        return np.asarray(flat + self.threshold * point.flat)

    def line(self, point: _Point, way: Array) -> _Line:
        (kernel, value), (along_kernel, along_value) = self.blocks(point.flat), self.blocks(way)
        first = self.data.image(along_kernel.T @ value + kernel.T @ along_value)
        second = self.data.image(along_kernel.T @ along_value)
        weighed = self.data.weigh(first), self.data.weigh(second)
        residual = point.weighed - self.data.cross
        coefficients = [
            float(np.vdot(residual, first)) + self.threshold * float(point.flat @ way),
            0.5 * float(np.vdot(first, weighed[0]))
            + float(np.vdot(residual, second))
            + 0.5 * self.threshold * float(way @ way),
            float(np.vdot(first, weighed[1])),
            0.5 * float(np.vdot(second, weighed[1])),
        ]
        return _Line(way, (first, second), weighed, np.array(coefficients))

    def moved(self, point: _Point, line: _Line, t: float) -> _Point:
        (first, second), (weighed_first, weighed_second) = line.images, line.weighed
        return _Point(
            point.flat + t * line.way,
            point.image + t * first + t * t * second,
            point.weighed + t * weighed_first + t * t * weighed_second,
        )


def _descend(
    objective: _Objective, flat: Array, data: TensorData, bound: float, iterations: int
) -> tuple[Array, float]:
    """L-BFGS; returns where it ends and the best bound, which `data` gives."""
    point, memory = objective.at(flat), LastSteps(MEMORY)
    slope, mean = objective.gradient(point), point.image
    for k in range(1, iterations + 1):
        line = objective.line(point, memory.direction(slope))
        t = line.minimum()
        if t == 0.0:  # rounding is all that is left
            return point.flat, bound
        point, before = objective.moved(point, line, t), slope
        slope = objective.gradient(point)
        memory.add(t * line.way, slope - before)
        mean = AVERAGE * mean + (1.0 - AVERAGE) * point.image
        if k % CHECK_EVERY == 0 or k == iterations:
            bound = max(bound, lower_bound(data, mean.astype(np.float64), objective.threshold))
            loss = objective.loss(point)
            if loss - bound <= RELATIVE_GAP * loss:
                break
    return point.flat, bound


class LastSteps:
    """The last steps and changes of the gradient, which make an inverse Hessian (L-BFGS)."""

    def __init__(self, size: int) -> None:
        self.pairs: deque[tuple[Array, Array, float]] = deque(maxlen=size)

    def add(self, step: Array, change: Array) -> None:
        """Remember a step, unless the gradient shows no positive curvature along it."""
        product = float(step @ change)
        if product > 0.0:
            self.pairs.append((step, change, product))

    def direction(self, slope: Array) -> Array:
        """Minus the inverse Hessian times the slope."""
        out, factors = -slope, []
        for step, change, product in reversed(self.pairs):
            factors.append(float(step @ out) / product)
            out -= factors[-1] * change
        if self.pairs:
            _, change, product = self.pairs[-1]
            out *= product / float(change @ change)
        for (step, change, product), factor in zip(self.pairs, reversed(factors), strict=True):
            out += (factor - float(change @ out) / product) * step
        return np.asarray(out)
