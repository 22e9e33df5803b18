"""Numbers of C1 to C3, C11, C12, C15 and C16: the profile, symmetries, moments."""

import numpy as np
import reference as ref
from reference import matrix_mean, norm_sq

from claim_cases.build import energy, loss_terms, norm, norm_2, one
from linattn.streams import stream


def gap(case):
    inst, theta = case.inst, case.theta
    star = ref.minimizer(inst, theta)
    away = stream(case.instance.seed, "distance").normal(size=star.shape)
    there = star + away * 0.5 * (1.0 + norm(star)) / norm(away)
    value, lowest = ref.objective(inst, theta, there), ref.profile(inst, theta)
    scale = abs(value) + abs(lowest) + loss_terms(case)
    return one(value - lowest, ref.gap(inst, theta, there), scale)


def kernel_direction(case, name, share):
    """A random kernel direction of a share of the kernel's size, as the library draws it."""
    params = case.instance.params
    drawn = stream(case.instance.seed, name).normal(size=params.flat.size)
    theta, _ = ref.unflatten(drawn, case.theta, case.value)
    return tuple(share * norm(case.theta) / norm(theta) * part for part in theta)


def envelope(case):
    direction = kernel_direction(case, "direction", 1.0)
    slope = ref.dot(ref.profile_gradient(case.inst, case.theta), direction)
    return one(slope, slope, None)


def moved(case):
    return kernel_direction(case, "move", 1 / 3)


def both_terms(case):
    """The sizes of the terms of P before and after the move."""
    return loss_terms(case) + loss_terms(case, ref.add(case.theta, moved(case)))


def increment(case):
    (kernel,), (move,) = case.theta, moved(case)
    sides = ref.increment(case.inst, kernel, move)
    slope = ref.dot(ref.profile_gradient(case.inst, kernel), move)
    bend = 0.5 * ref.dot(
        move, ref.curvature_apply(case.inst, ref.minimizer(case.inst, kernel), move)
    )
    gain = ref.resolve_gain(case.inst, kernel, kernel + move)
    terms = (sides["left"], ref.profile(case.inst, kernel), slope, bend, gain)
    return one(sides["left"], sides["right"], sum(map(abs, terms)) + both_terms(case))


def increment_bound(case):
    (kernel,), (move,) = case.theta, moved(case)
    sides = ref.increment(case.inst, kernel, move)
    slope = ref.dot(ref.profile_gradient(case.inst, kernel), move)
    largest = ref.curvature(case.inst, kernel)
    terms = (sides["left"], ref.profile(case.inst, kernel), slope, 0.5 * largest * norm_sq(move))
    scale = sum(map(abs, terms)) + both_terms(case)
    return one(sides["left"], sides["upper"], scale, L_K=largest)


def stale(case, bound):
    there = ref.add(case.theta, moved(case))
    sides = ref.increment_free(case.inst, case.theta, there)
    gain = ref.resolve_gain(case.inst, case.theta, there) if bound == "right" else 0.0
    scale = abs(sides["left"]) + abs(sides["upper"]) + gain + both_terms(case)
    return one(sides["left"], sides[bound], scale)


def euler(case):
    inst, theta, value = case.inst, case.theta, case.value
    sides = (ref.euler_factored if ref.is_factored(theta) else ref.euler_merged)(
        inst, *theta, value
    )
    kernel, slope = ref.gradient(inst, theta, value)
    pairs = [*zip(kernel, theta, strict=True), (slope, value)]
    scale = sum(norm(a) * norm(b) for a, b in pairs) + 2 * ref.ridge(inst, theta, value)
    return one(norm(sides[0]), norm(sides[1]), scale + energy(case))


def gauge(case):
    size = case.theta[0].shape[-1] if ref.is_factored(case.theta) else len(case.value)
    noise = stream(case.instance.seed, "gauge").normal(size=(size, size))
    change = np.eye(size) + 0.3 * noise / np.sqrt(size)
    loss = ref.data_loss(case.inst, case.theta, case.value)
    return one(loss, loss, np.linalg.cond(change) ** 2 * (2 * loss + energy(case)))


def any_point(case):
    """What L-BFGS finds is the library's; it must be below the start and above the bound."""
    bound = ref.lower_bound(case.inst, case.theta, case.value)
    limit = ref.threshold(case.inst) / norm_2(
        ref.residual_matrix(case.inst, case.theta, case.value)
    )
    rr, ry = ref.residual_products(case.inst, case.theta, case.value)
    assert limit < abs(ry / rr)  # the threshold is what bounds
    return one(None, bound, None)


def moment(case):
    inst = case.inst
    grams = [np.mean([X.T @ X / len(X) for X, _ in client], axis=0) for client in inst.clients]
    covariance, left = matrix_mean(inst.weights, grams), ref.kernels(case.theta)[0]
    draw = stream(case.instance.seed, "pairings")
    right, tokens = draw.normal(size=left.shape), int(draw.integers(1, 13))
    size = norm(ref.psi(covariance, left, right, tokens))
    scale = 15 * norm_2(covariance) ** 3 * norm(left) * norm(right) * len(left)
    return one(size, size, scale)
