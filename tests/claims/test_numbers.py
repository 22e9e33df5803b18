"""The numbers behind every verdict, against the naive twin and formulas written out here.

A claim that compares two numbers may hold with both of them wrong, or with a scale that allows too
much. So measured, bound, scale and constants are computed once more: trajectories by
`reference.fedavg`, the frozen stage from client matrices that the twin builds from tokens.
"""

import sys
from typing import Any, NamedTuple

import bridge
import numpy as np
import pytest
import reference as ref
from reference import matrix_mean, norm_sq, stack

import linattn as la
from linattn.claims import (
    Instance,
    along,
    c02_envelope,
    c05_tracking,
    c17_inexact,
    c19_published,
    c20_averages,
    get_claim,
    published_runs,
    value_descent,
)
from linattn.claims.record import LONG_BUDGET, Claim, Condition, Measurement, judge, shared
from linattn.claims.record import shared_runs as sharing
from linattn.federated.rounds import choose_participants, draw_batches
from linattn.streams import stream

CLOSE = 1e-7
CLIENTS = {"num_clients": 3, "dim": 3, "num_outputs": 2}
TINY = CLIENTS | {"dim": 2, "num_outputs": 1}


def norm(array):
    """Frobenius norm of an array, or of a tuple of arrays."""
    return float(np.sqrt(norm_sq(array)))


class Case(NamedTuple):
    """One instance in both languages."""

    inst: ref.Instance
    theta: tuple
    value: np.ndarray
    instance: Instance

    @property
    def eta(self):
        return self.instance.local_lr


def build(seed=0, kind="merged", heads=2, multiple=0.3, frozen=None, options=None, **settings):
    """A case with η = multiple / max(L_K, max λ_max(A_i)) at the start, or frozen / max λ_max."""
    options = CLIENTS if options is None else options
    _, inst, theta, value, problem, params = bridge.make(seed, kind, heads, **options)
    eta = 2.0 * multiple * ref.safe_step(inst, theta)
    if frozen is not None:
        tops = [norm_2(ref.client_matrix(inst, i, theta)) for i in range(len(inst.clients))]
        eta = frozen / max(tops)
    chosen = {"rounds": 2, "local_steps": 4, "local_lr": eta, "seed": seed} | settings
    return Case(inst, ref.blocks(theta), value, Instance(problem, params, **chosen))


class Numbers(NamedTuple):
    """What a claim should return: rows of (measured, bound, scale), the last of them shown."""

    rows: list
    constants: dict[str, Any] = {}  # noqa: RUF012


def one(measured, bound, scale, **constants):
    return Numbers([(measured, bound, scale)], constants)


def energy(case):
    """c̄ = Σp mean ‖Y‖²/q, the size of the terms of P."""
    return 2.0 * ref.data_loss(case.inst, tuple(0 * b for b in case.theta), 0 * case.value)


def warmup(case):
    """The twin's run with the participants and minibatches of the library."""
    at, count = case.instance, len(case.inst.clients)
    chosen = [choose_participants(count, at.participation, at.seed, t).tolist()
              for t in range(at.rounds)]  # fmt: skip
    batches = None
    if at.batch_size is not None:
        batches = [
            {i: draw_batches(len(case.inst.clients[i]), at.batch_size, at.local_steps,
                             stream(at.seed, "batch", i, t)) for i in chosen[t]}
            for t in range(at.rounds)
        ]  # fmt: skip
    return ref.fedavg(
        case.inst, case.theta, case.value, rounds=at.rounds, local_steps=at.local_steps,
        local_lr=case.eta, participants=chosen, batches=batches,
    )  # fmt: skip


# --- objectives and the profile: C1, C2, C3


def gap(case):
    inst, theta = case.inst, case.theta
    star = ref.minimizer(inst, theta)
    away = stream(case.instance.seed, "distance").normal(size=star.shape)
    there = star + away * 0.5 * (1.0 + norm(star)) / norm(away)
    value, lowest = ref.objective(inst, theta, there), ref.profile(inst, theta)
    return one(value - lowest, ref.gap(inst, theta, there), abs(value) + abs(lowest))


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


def increment(case):
    (kernel,), (move,) = case.theta, moved(case)
    sides = ref.increment(case.inst, kernel, move)
    slope = ref.dot(ref.profile_gradient(case.inst, kernel), move)
    bend = 0.5 * ref.dot(
        move, ref.curvature_apply(case.inst, ref.minimizer(case.inst, kernel), move)
    )
    gain = ref.resolve_gain(case.inst, kernel, kernel + move)
    terms = (sides["left"], ref.profile(case.inst, kernel), slope, bend, gain)
    return one(sides["left"], sides["right"], sum(map(abs, terms)))


def increment_bound(case):
    (kernel,), (move,) = case.theta, moved(case)
    sides = ref.increment(case.inst, kernel, move)
    slope = ref.dot(ref.profile_gradient(case.inst, kernel), move)
    largest = ref.curvature(case.inst, kernel)
    terms = (sides["left"], ref.profile(case.inst, kernel), slope, 0.5 * largest * norm_sq(move))
    return one(sides["left"], sides["upper"], sum(map(abs, terms)), L_K=largest)


def stale(case, bound):
    there = ref.add(case.theta, moved(case))
    sides = ref.increment_free(case.inst, case.theta, there)
    gain = ref.resolve_gain(case.inst, case.theta, there) if bound == "right" else 0.0
    scale = abs(sides["left"]) + abs(sides["upper"]) + gain
    return one(sides["left"], sides[bound], scale)


# --- the warm-up: C4, C5, C6, C10, C14


def ledger(case, upper):
    run = warmup(case)
    table = ref.certificate(case.inst, run, case.eta)
    start, end = table["profile"][[0, -1]]
    if not upper:
        terms = [abs(start), abs(end), *(abs(table[name][-1]) for name in ref.SIGNED)]
        return one(end, table["additive"][-1], sum(terms) + energy(case))
    terms = [abs(table[name][-1]) for name in (*ref.COSTS, "descent_paid", "step_term")]
    return Numbers(
        [(end, table["certificate"][-1], abs(start) + sum(terms))],
        {"max ηL_K": max(step_curvature(case, s) for s in run.steps), "violated local steps": 0},
    )


def step_curvature(case, step):
    """ηL_K, or 2ρ/(η‖g‖²) for factored kernels."""
    if not ref.is_factored(step.theta):
        return case.eta * ref.curvature(case.inst, step.theta)
    remainder = ref.step_remainder(case.inst, step, case.eta)
    return max(0.0, 2 * remainder / (case.eta * norm_sq(step.update)))


def tracking(case):
    """At eight local steps of the first round, its end included."""
    run, count = warmup(case), case.instance.local_steps
    places = [(s.theta, s.value) for s in run.steps[:count]] + [run.path[1]]
    chosen = sorted({int(k * count / 7) for k in range(8)})
    return [tracking_row(case, *places[k]) for k in chosen]


def tracking_row(case, theta, value):
    inst, heads = case.inst, ref.kernels(theta)
    delta = norm(value - ref.minimizer(inst, theta))
    factor = 1.0
    if ref.is_factored(theta):
        sizes = [norm_2(q) ** 2 + norm_2(k) ** 2 for q, k in zip(*theta, strict=True)]
        factor = np.sqrt(max(sizes))
    coupling = norm_2(ref.coupling_matrix(inst, heads))
    kappa = ref.coupling_constant(inst, heads)
    here, there = ref.gradient(inst, theta, value)[0], ref.profile_gradient(inst, theta)
    return Numbers(
        [(norm(ref.add(here, there, -1)), factor * (coupling * delta + kappa * delta**2),
          norm(here) + norm(there))],
        {"‖J‖₂": coupling, "κ": kappa, "factor": factor, "‖Δ‖": delta},
    )  # fmt: skip


def norm_2(matrix):
    return float(np.linalg.norm(matrix, 2))


def tracking_bound(case):
    rows = tracking(case)
    return Numbers([row.rows[0] for row in rows], rows[-1].constants)


def lag_terms(case, step):
    """‖Δ⁺‖, ‖its prediction‖, the sum of |terms|, ‖I − ηA‖₂ and η‖ε_V‖ + ‖V*(B⁺) − V*(B)‖."""
    inst, eta = case.inst, case.eta
    after, predicted = ref.tracking_recursion(inst, step, eta)
    star, star_next = ref.minimizer(inst, step.theta), ref.minimizer(inst, step.theta_next)
    hessian = ref.value_matrix(inst, step.theta)
    lag = stack(step.value - star)
    error = eta * norm(step.value_update - ref.gradient(inst, step.theta, step.value)[1])
    parts = (step.value_next, star_next, star, lag, eta * hessian @ lag)
    contraction = np.abs(1 - eta * np.linalg.eigvalsh(hessian)).max()
    scale = sum(norm(part) for part in parts) + error
    return norm(after), norm(predicted), scale, contraction, error + norm(star_next - star)


def recursion(case):
    return Numbers([lag_terms(case, step)[:3] for step in warmup(case).steps])


def contraction(case):
    steps = [lag_terms(case, step) for step in warmup(case).steps]
    bound, rows = norm(case.value - ref.minimizer(case.inst, case.theta)), []
    for after, _, scale, factor, push in steps:
        bound = factor * bound + push
        rows.append((after, bound, scale))
    shown = [rows[k] for k in (0, len(rows) // 2, len(rows) - 1)]
    return Numbers(shown, {"max ‖I − ηA‖₂": max(step[3] for step in steps)})


def consensus(case):
    """Local steps of one round, both sides of their recursion, every ζ_e, and the scale."""
    eta, steps = case.eta, warmup(case).steps[: case.instance.local_steps]
    sides = [ref.consensus_step(case.inst, step, eta) for step in steps]
    zetas = []
    for step in steps:
        here = dict.fromkeys(step.local, (step.theta, step.value))
        gradients = ref.joint_models(ref.local_gradients(case.inst, here))
        zetas.append(ref.client_spread(step.weights, gradients))
    scale = max(side["left"] for side in sides) + eta * max(zetas)
    return steps, sides, zetas, scale


def secant(case):
    _, sides, zetas, scale = consensus(case)
    rows = [(side["left"], side["upper"], scale) for side in sides]
    chain = 0.0
    for side, zeta in zip(sides, zetas, strict=True):
        chain = (1 + case.eta * side["secant"]) * chain + case.eta * zeta
    largest = max(side["secant"] for side in sides[1:])
    return Numbers(
        [*rows, (sides[-1]["left"], chain, scale)], {"max L_e": largest, "max ζ_e": max(zetas)}
    )


def segment(case):
    """At six local steps of the round, the first and the last included."""
    steps, sides, zetas, scale = consensus(case)
    rows, constants = [], []
    for e in sorted({int(k * (len(steps) - 1) / 5) for k in range(6)}):
        constants.append(ref.segment_constant(case.inst, steps[e]))
        bound = (1 + case.eta * constants[-1]) * sides[e]["before"] + case.eta * zetas[e]
        rows.append((sides[e]["left"], bound, scale))
    return Numbers(rows, {"max L_e": max(constants)})


def frozen_consensus(case, bound):
    at = case.instance
    sides = ref.frozen_consensus(
        case.inst, case.theta, case.value, local_steps=at.local_steps, step_size=case.eta
    )
    top = case.eta * max(np.linalg.eigvalsh(a)[-1] for a in Frozen(case).hessians)
    upper = sides[bound]
    return Numbers(
        [(sides["left"], upper, upper + norm(case.value))], {"ζ": sides["zeta"], "ηλ_max": top}
    )


def value_maps(case, theta, value):
    """Σ_h B_h G V_h of every sequence."""
    maps = []
    for client in case.inst.clients:
        for X, _ in client:
            gram = X.T @ X / len(X)
            pairs = zip(ref.kernels(theta), value, strict=True)
            maps.append(sum(kernel @ gram @ v for kernel, v in pairs))
    return np.array(maps)


def mismatch(case):
    """At the end of the first round, before averaging, over all sequences."""
    last = warmup(case).steps[case.instance.local_steps - 1]
    batches = None
    at = case.instance
    if at.batch_size is not None:
        batches = {i: draw_batches(len(case.inst.clients[i]), at.batch_size, at.local_steps,
                                   stream(at.seed, "batch", i, 0)) for i in last.local}  # fmt: skip
    gradients = ref.local_gradients(case.inst, last.local, batches, at.local_steps - 1)
    ends = ref.take_step(last.local, gradients, case.eta, case.eta)
    mean = sum(last.weights[i] * value_maps(case, *ends[i]) for i in ends)
    apart = norm(mean - value_maps(case, *ref.average(last.weights, ends)))
    return one(apart, apart, 2 * norm(mean))


def chain(case):
    inst, eta, steps = case.inst, case.eta, warmup(case).steps
    end, reference = steps[-1].theta_next, 0.0
    if not ref.is_factored(end):
        reference = max(0.0, ref.lower_bound(inst, end, ref.minimizer(inst, end)))
    start = ref.profile(inst, steps[0].theta)
    bound, rows, moduli, errors = start - reference, [], [], 0.0
    for step in steps:
        excess = ref.profile(inst, step.theta) - reference
        moduli.append(np.clip(norm_sq(step.profile_gradient) / (2 * excess), 0, 1 / eta))
        error = 0.5 * eta * norm_sq(ref.total_error(step))
        bound = (1 - eta * moduli[-1]) * bound + error
        errors += error
        rows.append((ref.profile(inst, step.theta_next) - reference, bound))
    scale = start + reference + errors
    return Numbers(
        [(*row, scale) for row in rows], {"P_ref": reference, "median m_k": np.median(moduli)}
    )


# --- symmetries, bounds of the profile, moments: C11, C12, C15, C16


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


# --- the frozen stage, step by step


class Frozen:
    """Client matrices from tokens, and every local step with full batches by a loop."""

    def __init__(self, case):
        inst, at = case.inst, case.instance
        self.weights, self.eta, self.count = inst.weights, case.eta, at.local_steps
        clients = range(len(inst.clients))
        self.hessians = np.array([ref.client_matrix(inst, i, case.theta) for i in clients])
        self.linears = np.array([ref.client_linear(inst, i, case.theta) for i in clients])
        self.hessian, self.linear = self.mean(self.hessians), self.mean(self.linears)
        self.star, self.start = np.linalg.solve(self.hessian, self.linear), stack(case.value)
        self.at_star = [norm(a @ self.star - c) for a, c in self.clients()]
        self.values, self.spectra = (
            np.linalg.eigvalsh(self.hessian),
            [np.linalg.eigvalsh(a) for a in self.hessians],
        )
        self.smallest = min(v[0] for v in self.spectra)
        self.largest = max(v[-1] for v in self.spectra)
        self.size = norm_sq(self.star) + norm_sq(self.start)
        self.rounds, server = [], self.start
        for _ in range(at.rounds):
            places = [[server] * len(self.hessians)]
            for _ in range(self.count):
                here = zip(places[-1], self.client_slopes(places[-1]), strict=True)
                places.append([v - self.eta * g for v, g in here])
            server = self.mean(places[-1])
            self.rounds.append(places)

    def clients(self):
        return zip(self.hessians, self.linears, strict=True)

    def mean(self, items):
        return matrix_mean(self.weights, items)

    def excess(self, value):
        lag = value - self.star
        return 0.5 * float(np.sum(lag * (self.hessian @ lag)))

    def slope(self, value):
        return self.hessian @ (value - self.star)

    def client_slopes(self, values):
        return [a @ v - c for v, (a, c) in zip(values, self.clients(), strict=True)]

    def spread(self, places):
        """Σp‖V_i − V̄‖²."""
        centre = self.mean(places)
        return float(self.mean([norm_sq(v - centre) for v in places]))

    def steps(self, every_round):
        """(x, e, x⁺) of local steps, or of rounds with the mean gradient of a round."""
        found = []
        for places in self.rounds:
            centres = [self.mean(row) for row in places]
            applied = [self.mean(self.client_slopes(row)) for row in places[:-1]]
            if every_round:
                mean = sum(applied) / len(applied)
                found.append((centres[0], mean - self.slope(centres[0]), centres[-1]))
            else:
                errors = [g - self.slope(x) for g, x in zip(applied, centres, strict=False)]
                found += zip(centres, errors, centres[1:], strict=False)
        return found

    def heterogeneity_sq(self):
        """Largest ‖∇F_i − ∇F‖² at local and virtual iterates."""
        found = []
        for row in (row for places in self.rounds for row in places):
            for values in (row, [self.mean(row)] * len(row)):
                pairs = zip(self.client_slopes(values), values, strict=True)
                found += [norm_sq(g - self.hessian @ v + self.linear) for g, v in pairs]
        return max(found)


def stage(case):
    """C7 and C8 of the twin."""
    at = case.instance
    return ref.frozen_quantities(
        case.inst, case.theta, local_steps=at.local_steps, step_size=case.eta
    )


def closed_form(case):
    at, held = case.instance, stage(case)
    path = ref.frozen_rounds(case.inst, case.theta, case.value, rounds=at.rounds,
                             local_steps=at.local_steps, step_size=case.eta)  # fmt: skip
    after = norm(ref.frozen_after(held, case.value, at.rounds))
    scale = norm(stack(case.value) - held.fixed_point) + norm(held.fixed_point)
    return Numbers([(norm(path[-1]), after, scale)], {"ρ": held.rate})


def fixed_point(case):
    held = stage(case)
    size = norm(held.fixed_point)
    return one(size, size, size + norm(held.minimizer))


def bias_bound(case):
    held = stage(case)
    top = case.eta * held.largest
    bound = held.bound if top > 1 else held.bound_small_step
    return Numbers([(norm(held.bias), bound, norm(held.minimizer))], {"ηλ_max": top})


def first_order(case):
    held = stage(case)
    return one(norm(held.bias), norm(held.bias_first_order), norm(held.minimizer))


PARTS = ("kernel_bias", "value_transient", "value_floor", "value_cross")


def trade_off(case):
    at = case.instance
    rounds = max(2, at.rounds)
    table = ref.bias_drift(
        case.inst, case.theta, case.value, rounds=rounds, warmup_rounds=rounds // 2,
        local_steps=at.local_steps, local_lr=case.eta,
    )  # fmt: skip
    parts = [table[name] for name in PARTS]
    measured = table["objective"]
    return one(measured, sum(parts), measured + sum(map(abs, parts)) + energy(case))


def freezing(case, rule):
    """The best length here is the longest, and four rounds are the fewest."""
    options = {"local_steps": case.instance.local_steps, "local_lr": case.eta, "trace": False}
    options["rounds"] = max(4, case.instance.rounds)
    run = ref.fedavg(case.inst, case.theta, case.value, **options)
    ends = [
        ref.objective(case.inst, *ref.fedavg(case.inst, case.theta, case.value,
                                             warmup_rounds=t, **options).path[-1])
        for t in range(options["rounds"] + 1)
    ]  # fmt: skip
    assert int(np.argmin(ends)) == options["rounds"]
    chosen = ref.freeze_round(case.inst, run.path, rule)
    measured = ends[-1 if chosen is None else chosen]
    return one(measured, min(ends), measured)


# --- inexact descent and drift


def curved(held):
    return {"L = λ_max(A)": held.values[-1], "μ = λ_min(A)": held.values[0]}


def descent_scale(held, steps, eta):
    places = [x for x, _, _ in steps] + [steps[-1][2]]
    largest = max(norm_sq(e) for _, e, _ in steps)
    return max(map(held.excess, places)) + 0.5 * eta * largest


def absolute(case):
    held = Frozen(case)
    steps, bound, rows = held.steps(False), held.excess(held.start), []
    scale = descent_scale(held, steps, case.eta)
    for _, error, after in steps:
        bound = (1 - case.eta * held.values[0]) * bound + 0.5 * case.eta * norm_sq(error)
        rows.append((held.excess(after), bound, scale))
    return Numbers(rows, curved(held))


def relative(case):
    held = Frozen(case)
    steps, eta, (mu, top) = held.steps(False), case.eta, held.values[[0, -1]]
    scale, rows = descent_scale(held, steps, eta), []
    for x, error, after in steps:
        share = norm(error) / norm(held.slope(x))
        if rows and min(2 - eta * top * (1 + share), 1 - share) < 0:
            break
        step = eta * (1 - share if eta * top <= 1 else 1 + share)
        rate = 1 - mu * step * (2 - top * step)
        rows.append((held.excess(after), rate * held.excess(x), scale))
    return Numbers(rows, curved(held) | {"steps": len(rows)})


def quadratic_factor(x, count):
    return sum(1 - (1 - x) ** k for k in range(count)) / count


def composite(case):
    """Brute force over B_d and the split."""
    held = Frozen(case)
    steps, step, mu = held.steps(True), case.eta * held.count, held.values[0]
    factor = quadratic_factor(min(1.0, case.eta * held.largest), held.count)
    splits, best = np.exp(np.linspace(-30, 30, 60001)), None
    for slope in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0):
        sums = [held.mean([norm(g) for g in held.client_slopes([x] * len(held.hessians))])
                for x, _, _ in steps]  # fmt: skip
        offset = max(0.0, *(s - slope * norm(held.slope(x))
                            for s, (x, _, _) in zip(sums, steps, strict=True)))  # fmt: skip
        kept = 1 - (1 + splits) * (factor * slope) ** 2
        kept = np.where(kept > 0, kept, np.nan)
        rate = 1 - step * mu * kept
        floor = (1 + 1 / splits) * (factor * offset) ** 2 / (2 * mu * kept)
        values = rate ** len(steps) * held.excess(held.start) + floor * (1 - rate ** len(steps))
        if not np.isnan(values).all() and (best is None or np.nanmin(values) < best[0]):
            best = np.nanmin(values), slope, offset
    bound, slope, offset = best
    scale = descent_scale(held, steps, step)
    return Numbers(
        [(held.excess(steps[-1][2]), bound, scale)],
        curved(held) | {"split s": None, "B_d": slope, "G_d": offset},
    )


def pl_rate(x, share):
    """τ at ηL = x and μ/L = share, three regimes."""
    if x <= 1:
        root = np.sqrt(4 - 2 * (1 + share) * (2 - x) * share * x)
        return ((share * (1 - x) + root) / (2 + share)) ** 2
    if x <= np.sqrt(3):
        return 1 + (x - 2) * (-x - 2) * share * x / (-share * x - 2)
    return (x - 1) ** 2 / ((x - 1) ** 2 + share * x * (2 - x))


def exact(case):
    held = Frozen(case)
    rate = pl_rate(case.eta * held.values[-1], held.values[0] / held.values[-1])
    value, rows = held.start, []
    for _ in range(min(10, held.count)):
        before = held.excess(value)
        value = value - case.eta * held.slope(value)
        rows.append((held.excess(value), rate * before, before))
    return Numbers(rows, curved(held) | {"rate": rate})


def client_paths(case):
    """(weights, places, full gradients) of every round: dicts of flat vectors per local step."""
    at, found = case.instance, []
    steps = warmup(case).steps
    for t in range(at.rounds):
        row = steps[t * at.local_steps : (t + 1) * at.local_steps]
        places = [{i: ref.flatten(*m) for i, m in step.local.items()} for step in row]
        slopes = [
            {i: ref.flatten(*g) for i, g in ref.local_gradients(case.inst, step.local).items()}
            for step in row
        ]
        found.append((row[0].weights, places, slopes))
    return found


def round_error(weights, slopes):
    """‖Σw (1/E)Σ_k(∇F_i(w^k) − ∇F_i(w))‖."""
    means = {i: sum(s[i] for s in slopes) / len(slopes) - slopes[0][i] for i in weights}
    return norm(sum(w * means[i] for i, w in weights.items()))


def growth(x, count):
    return sum((1 + x) ** k - 1 for k in range(count)) / count


def general_drift(case):
    rows, secants = [], []
    for weights, places, slopes in client_paths(case):
        bound = starts = 0.0
        for i, w in weights.items():
            ratios = [norm(slopes[k + 1][i] - slopes[k][i]) / norm(places[k + 1][i] - places[k][i])
                      for k in range(len(places) - 1)]  # fmt: skip
            secants.append(max(ratios))
            bound += w * growth(case.eta * secants[-1], len(places)) * norm(slopes[0][i])
            starts += w * norm(slopes[0][i])
        measured = round_error(weights, slopes)
        rows.append((measured, bound, starts + measured))
    return Numbers(rows, {"max L_i": max(secants)})


def quadratic_drift(case):
    held = Frozen(case)
    factors = [quadratic_factor(held.eta * v[-1], held.count) for v in held.spectra]
    rows = []
    for places in held.rounds:
        slopes = [held.client_slopes(row) for row in places[:-1]]
        error = sum(held.mean(row) for row in slopes) / len(slopes) - held.mean(slopes[0])
        starts = [norm(g) for g in slopes[0]]
        bound = held.mean([f * s for f, s in zip(factors, starts, strict=True)])
        rows.append((norm(error), bound, held.mean(starts)))
    return Numbers(rows, {"max ψ_q": max(factors)})


def block_bound(eta, count, secants, start):
    """The recursion of both blocks, growth of the value gradient through the kernel only."""
    (kk, kv, vk, vv), (kernel, value) = secants, start
    changed, total = np.zeros(2), np.zeros(2)
    for _ in range(count - 1):
        change, push = eta * (kk * kernel + kv * value), eta * vk * kernel
        changed += (change, push + eta * vv * value)
        kernel, value = kernel + change, value + push
        total += (changed[0], min(changed[1], value + start[1]))
    return total / count


def block_drift(case):
    """Secants of moving the kernel, then the value block."""
    weights, places, slopes = client_paths(case)[0]
    split, eta = sum(part.size for part in case.theta), case.eta
    secants, bounds, starts = {}, 0.0, 0.0
    for i, w in weights.items():
        rows = []
        for k in range(len(places) - 1):
            before, after = places[k][i], places[k + 1][i]
            between = np.concatenate([after[:split], before[split:]])
            half = ref.flatten(*ref.client_gradient(
                case.inst, i, *ref.unflatten(between, case.theta, case.value)))  # fmt: skip
            first, second = half - slopes[k][i], slopes[k + 1][i] - half
            moves = norm((after - before)[:split]), norm((after - before)[split:])
            changes = [norm(g[part]) for part in (slice(split), slice(split, None))
                       for g in (first, second)]  # fmt: skip
            rows.append(np.array(changes) / (*moves, *moves))
        secants[i] = np.max(rows, axis=0)
        start = norm(slopes[0][i][:split]), norm(slopes[0][i][split:])
        bounds = bounds + w * block_bound(eta, len(places), secants[i], start)
        starts += w * sum(start)
    measured = round_error(weights, slopes)
    return Numbers(
        [(measured, norm(bounds), starts + measured)],
        {"max L_θθ": max(s[0] for s in secants.values()),
         "max L_VV": max(s[3] for s in secants.values())},
    )  # fmt: skip


# --- published bounds


def operator(case):
    held, frozen = Frozen(case), stage(case)
    xi = max(np.abs(1 - held.eta * v).max() for v in held.spectra)
    total = held.eta * held.mean(held.at_star)
    factor = sum(xi**k for k in range(1, held.count)) / (1 - xi**held.count)
    rows = [(norm(frozen.bias), factor * total, norm(held.star))]
    return Numbers(rows, {"ηλ_max": held.eta * held.largest})


def surrogate(held):
    """Eigenvalues of Σp S_iA_i, and k_E."""
    parts = [ref.power_sum(a, held.eta, np.ones(held.count)) @ a for a in held.hessians]
    ends = [1 - (1 - held.eta * x) ** held.count for x in (held.largest, held.smallest)]
    return np.linalg.eigvalsh(held.mean(parts)), ends[0] / ends[1]


def condition_number(case):
    values, bound = surrogate(Frozen(case))
    measured = values[-1] / values[0]
    return one(measured, bound, bound * measured)


def alignment(case):
    held, frozen = Frozen(case), stage(case)
    bound = surrogate(held)[1]
    start, end = np.sqrt(held.largest / held.smallest), np.sqrt(bound)
    radius = max(norm(np.linalg.solve(a, c)) for a, c in held.clients())
    value = 8 * radius * (start - end) / (start + end)
    return one(norm(frozen.bias), value, norm(held.star), k_E=bound)


def biased(case):
    """(m, ζ²) fitted to the visited errors; here the best m is not zero."""
    held = Frozen(case)
    steps, mu, found = held.steps(False), held.values[0], []
    for part in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9):
        left = [norm_sq(e) - part * norm_sq(held.slope(x)) for x, e, _ in steps]
        kept = mu * (1 - part)
        fall = (1 - case.eta * kept) ** len(steps) * held.excess(held.start)
        found.append(fall + max(0.0, *left) / (2 * kept))
    assert np.argmin(found) > 0
    bound = min(found)
    largest = max(map(held.excess, [held.start, *(after for _, _, after in steps)]))
    return one(held.excess(steps[-1][2]), bound, largest + bound, μ=mu)


def average_drift(case):
    """E local steps of every client from V*."""
    held = Frozen(case)
    ends = []
    for a, c in held.clients():
        value = held.star
        for _ in range(held.count):
            value = value - held.eta * (a @ value - c)
        ends.append(value)
    length = held.eta * held.count
    drift, mean = norm(held.mean(ends) - held.star) / length, held.mean(held.at_star)
    return one(drift, drift, norm(held.star) / length + drift + mean, **{"Σp‖g_i*‖": mean})


def smooth(case):
    held = Frozen(case)
    spread = [a - held.hessian for a in held.hessians]
    constant = np.sqrt(norm_2(held.mean([s @ s for s in spread])))
    rows = [row for places in held.rounds for row in places]
    scale = held.largest * max(norm(v) for row in rows for v in row)
    return Numbers(
        [(norm(held.mean([a @ (v - held.mean(row))
                          for a, v in zip(held.hessians, row, strict=True)])),
          constant * np.sqrt(held.spread(row)), scale) for row in rows],
        {"L_h": constant},
    )  # fmt: skip


def khaled(case):
    held = Frozen(case)
    eta, count = held.eta, held.count
    means = [held.excess(held.mean(row)) for places in held.rounds for row in places[:-1]]
    sigma_sq = held.mean([g**2 for g in held.at_star])
    bound = 2 * norm_sq(held.start - held.star) / (eta * len(means))
    bound += 24 * eta**2 * sigma_sq * count**2 * held.largest
    return Numbers([(np.mean(means), bound, bound)], {"L": held.largest, "σ*²": sigma_sq})


def guided(held):
    return {"L": held.largest, "ζ²": held.heterogeneity_sq()}


def field_guide(case):
    held = Frozen(case)
    length = held.eta * held.count
    means = [held.excess(held.mean(row)) for places in held.rounds for row in places[1:]]
    bound = norm_sq(held.start - held.star) / (2 * length * len(held.rounds))
    bound += 18 * length**2 * held.largest * held.heterogeneity_sq()
    return Numbers([(np.mean(means), bound, bound)], guided(held))


def guide_drift(case):
    """The largest distance before the last local step of a round."""
    held = Frozen(case)
    rows = [row for places in held.rounds for row in places[:-1]]
    measured = max(norm_sq(v - held.mean(row)) for row in rows for v in row)
    bound = 18 * (held.eta * held.count) ** 2 * held.heterogeneity_sq()
    return Numbers([(measured, bound, bound + 1e-8 * norm_sq(held.start))], guided(held))


def guide_progress(case):
    held, rows = Frozen(case), []
    length = held.eta * held.count
    for places in held.rounds:
        first, last = (norm_sq(held.mean(places[k]) - held.star) for k in (0, -1))
        gained = (first - last) / (2 * length)
        drift = held.largest * np.mean([held.spread(row) for row in places[:-1]])
        measured = np.mean([held.excess(held.mean(row)) for row in places[1:]])
        rows.append((measured, gained + drift, abs(gained) + drift + first / length))
    return Numbers(rows, guided(held))


# --- the table

STIFF = CLIENTS | {"value_ridge": 1.0}
NOISY = {"batch_size": 2, "participation": 0.6}
TABLE = [
    ("C1", gap, {}),
    ("C1", gap, {"kind": "factored"}),
    ("C2", envelope, {}),
    ("C2", envelope, {"kind": "factored"}),
    ("C3", increment, {}),
    ("C3 bound", increment_bound, {}),
    ("C3f", lambda case: stale(case, "right"), {"kind": "factored"}),
    ("C3f bound", lambda case: stale(case, "upper"), {}),
    ("C4", lambda case: ledger(case, upper=True), NOISY),
    ("C4f", lambda case: ledger(case, upper=True), NOISY | {"kind": "factored", "multiple": 0.03}),
    ("C4 additive", lambda case: ledger(case, upper=False), NOISY),
    ("C5", tracking_bound, NOISY | {"local_steps": 15, "rounds": 1, "options": TINY}),
    ("C5", tracking_bound, {"kind": "factored", "rounds": 1}),
    ("C5 recursion", recursion, NOISY),
    ("C5 contraction", contraction, NOISY | {"kind": "factored", "local_steps": 3}),
    ("C6", secant, {"participation": 0.6}),
    ("C6", secant, {"kind": "factored"}),
    ("C6 segment", segment, {"local_steps": 8, "rounds": 1, "heads": 1, "options": TINY}),
    ("C6 frozen", lambda case: frozen_consensus(case, "upper"), {"frozen": 1.7}),
    ("C6 contracting", lambda case: frozen_consensus(case, "upper_small_step"), {"frozen": 0.7}),
    ("C7", closed_form, {"frozen": 1.2, "rounds": 3}),
    ("C8", fixed_point, {"frozen": 1.2}),
    ("C8 bound", bias_bound, {"frozen": 0.8}),
    ("C8 bound", bias_bound, {"frozen": 1.6}),
    ("C8 first order", first_order, {"frozen": 0.8}),
    ("C9", trade_off, {"rounds": 4}),
    ("C9", trade_off, {"rounds": 1, "kind": "factored"}),
    ("C10", mismatch, NOISY),
    ("C10", mismatch, {"kind": "factored"}),
    ("C11", euler, {}),
    ("C11", euler, {"kind": "factored"}),
    ("C12", gauge, {}),
    ("C12", gauge, {"kind": "factored"}),
    *[(f"C13 {rule}", lambda case, rule=rule: freezing(case, rule), {"rounds": 3})
      for rule in ("profile", "observable", "certified")],
    ("C14", chain, NOISY | {"multiple": 0.1}),
    ("C14", chain, {"kind": "factored", "multiple": 0.1}),
    ("C15 any point", any_point, {}),
    ("C16", moment, {}),
    ("C16", moment, {"seed": 4}),  # at the largest number of tokens
    ("inexact absolute", absolute, {"frozen": 0.8}),
    ("inexact relative", relative, {"frozen": 0.8, "rounds": 3}),
    ("inexact composite", composite, {"frozen": 0.4}),
    ("inexact composite", composite, {"frozen": 0.2, "rounds": 30, "options": STIFF}),
    ("PL rate", exact, {"frozen": 1.5}),
    ("PL rate", exact, {"frozen": 4.2}),
    ("PL rate", exact, {"frozen": 2.5, "local_steps": 12}),
    ("drift general", general_drift, {"participation": 0.6}),
    ("drift general", general_drift, {"kind": "factored"}),
    ("drift quadratic", quadratic_drift, {"frozen": 0.8}),
    ("drift blocks", block_drift, {"participation": 0.6}),
    ("drift blocks", block_drift, {"kind": "factored"}),
    ("Malinovsky", operator, {"frozen": 1.6}),
    ("Charles–Konečný condition", condition_number, {"frozen": 0.7}),
    ("Charles–Konečný alignment", alignment, {"frozen": 0.7}),
    ("Ajalloeian–Stich", biased, {"frozen": 0.7}),
    ("Ajalloeian–Stich", biased, {"seed": 2, "frozen": 0.7, "rounds": 30, "options": STIFF}),
    ("average drift", average_drift, {"frozen": 1.2}),
    ("heterogeneous smoothness", smooth, {"frozen": 0.7}),
    ("Khaled", khaled, {"frozen": 0.03}),
    ("field guide", field_guide, {"frozen": 0.2}),
    ("field guide drift", guide_drift, {"frozen": 0.2}),
    ("field guide progress", guide_progress, {"frozen": 0.2}),
]  # fmt: skip


def measured_with_rows(claim, instance, monkeypatch):
    """The measurement, and every row from which the one to show was chosen."""
    measure = get_claim(claim).measure
    module, rows = sys.modules[getattr(measure, "func", measure).__module__], []
    if hasattr(module, "shown"):
        honest = module.shown

        def recording(listed, budget):
            rows[:] = list(listed)
            return honest(rows, budget)

        monkeypatch.setattr(module, "shown", recording)
    found = measure(instance)
    return found, rows or [found[:3]]


def close(ours, theirs):
    """Equal to CLOSE, or to rounding of the largest; None stands for any number."""
    ours, theirs = np.array(ours, float), np.array(theirs, float)
    assert ours.shape == theirs.shape
    known = ~np.isnan(theirs)
    smallest = 1e-13 * np.abs(theirs[known]).max(initial=0.0)
    np.testing.assert_allclose(ours[known], theirs[known], rtol=CLOSE, atol=smallest)


@pytest.mark.parametrize(
    ("claim", "numbers", "options"), TABLE, ids=[f"{row[0]}-{k}" for k, row in enumerate(TABLE)]
)
def test_the_numbers_are_the_twins(claim, numbers, options, monkeypatch):
    case = build(**options)
    found, rows = measured_with_rows(claim, case.instance, monkeypatch)
    expected = numbers(case)
    if claim == "C5 recursion":  # the step with the largest residual, which is rounding, is shown
        near = min(expected.rows, key=lambda row: abs(row[0] - found.measured))
        expected = expected._replace(rows=[near])
    close(rows, expected.rows)
    close(found[:3], expected.rows[-1])
    assert all(condition.slack >= 0 for condition in found.conditions)
    constants = {constant.name: constant.value for constant in found.constants}
    assert sorted(constants) == sorted(expected.constants)
    close(list(constants.values()), [expected.constants[name] for name in constants])
    if found.residual is not None:
        assert found.residual <= 1e-11 * found.scale


def test_every_claim_has_its_numbers():
    assert {row[0] for row in TABLE} | {"C15"} == {claim.id for claim in la.claims()}


LONG = {
    "C2", "C5 recursion", "C5 contraction", "C6", "C6 segment", "C6 frozen", "C6 contracting",
    "C8 bound", "C14", "inexact absolute", "inexact relative", "inexact composite", "PL rate",
    "drift general", "drift quadratic", "drift blocks", "Malinovsky", "Charles–Konečný alignment",
    "Ajalloeian–Stich", "average drift", "heterogeneous smoothness", "field guide progress",
}  # fmt: skip


def test_every_claim_has_its_budget():
    cases = [build(kind=kind, multiple=0.02) for kind in ("merged", "factored")]
    for claim in la.claims():
        budgets = {claim.measure(case.instance).budget for case in cases if claim.id != "C15"}
        assert max(budgets, default=1e-12) == (1e-10 if claim.id in LONG else 1e-12), claim.id


@pytest.mark.parametrize(("kind", "how"), [("merged", "C15 at the last iterate"),
                                           ("factored", "zero")])  # fmt: skip
def test_the_chain_says_where_its_reference_comes_from(kind, how):
    found = get_claim("C14").measure(build(kind=kind, multiple=0.1).instance)
    assert (found.constants[0].how, found.constants[0].value > 0) == (how, kind == "merged")


# --- lower bounds of the profile: what a search finds is not the twin's


@pytest.mark.parametrize("kind", ["merged", "factored"])
def test_searched_minimum_is_between_the_bound_and_the_start(kind):
    case = build(kind=kind, heads=1, options=TINY)
    start, names = ref.profile(case.inst, case.theta), ("C15", "C15 any point")
    for name in names if kind == "merged" else names[:1]:
        found = get_claim(name).measure(case.instance)
        assert 0 < found.bound <= found.measured < start
        assert found.scale == pytest.approx(found.measured + energy(case), rel=1e-12)
        assert [c.slack for c in found.conditions if c.slack < 0] == []


# --- which step is shown


@pytest.mark.parametrize(
    ("rows", "index"),
    [
        ([(1.0, 2.0, 1.0), (3.0, 4.0, 1.0)], 1),  # all fine: the last
        ([(2.1, 2.0, 1.0), (9.0, 9.05, 1.0), (1.0, 1.0, 1.0)], 0),  # not the largest
        ([(2.1, 2.0, 1.0), (2.2, 2.0, 1.0), (1.0, 3.0, 1.0)], 1),
        ([(2.1, 2.0, 0.1), (5.0, 4.0, 100.0), (1.0, 3.0, 1.0)], 0),  # relative to the terms
        ([(9.05, 9.0, 1.0), (1.0, 3.0, 1.0)], 1),  # within the budget
        ([(9.06, 9.0, 1.0), (1.0, 3.0, 1.0)], 0),
        ([(1.0, 0.0, 0.0), (1.0, 3.0, 1.0)], 0),  # no terms at all
    ],
)
def test_the_row_that_fails_the_most_is_shown_else_the_last(rows, index):
    assert along.shown(iter(rows), 0.055) == rows[index]


@pytest.mark.parametrize(("count", "slack"), [(0, -1.0), (1, -1.0), (2, 0.0), (3, 0.0)])
def test_finite_needs_as_many_rounds(count, slack):
    assert along.finite([None] * count, 2) == Condition("finite trajectory", slack)


def test_recursion_shows_the_largest_relative_residual(monkeypatch):
    """Not the largest lag, nor the largest residual."""

    def step(after, predicted, terms):
        return c05_tracking._LagStep(np.array([after]), np.array([predicted]), terms, 1.0, 0.0)

    steps = [step(50.0, 50.1, 10.0), step(1.0, 1.2, 2.0), step(3.0, 2.0, 200.0)]
    finite = Condition("finite trajectory", 0.0)
    monkeypatch.setattr(c05_tracking, "_lag_steps", lambda instance: (1.0, steps, 2.0, finite))
    found = c05_tracking._recursion(None)
    assert found[:3] == (1.0, 1.2, 2.0)
    assert found.residual == pytest.approx(0.2)


# --- differences of the profile (C2)


def test_difference_is_of_order_eight_from_a_tenth_down():
    """Odd moments of the stencil: 1/2 for the slope, 0 for powers up to seven."""
    k, c = np.arange(1, 5), np.array(c02_envelope.STENCIL)
    assert [c @ k**p for p in (1, 3, 5, 7)] == pytest.approx([0.5, 0, 0, 0], abs=1e-12)
    assert np.log10(c02_envelope.STEPS) == pytest.approx(-np.arange(1, 5, 0.5))


def test_difference_is_the_twins():
    case, step = build(kind="factored"), 0.05
    direction = kernel_direction(case, "direction", 1.0)
    flat = np.concatenate([*(part.ravel() for part in direction), 0 * case.value.ravel()])
    found = c02_envelope._difference(case.instance, flat, step)
    values = {k: ref.profile(case.inst, ref.add(case.theta, direction, k * step))
              for k in range(-4, 5)}  # fmt: skip
    pairs = list(enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), start=1))
    slope = sum(c * (values[k] - values[-k]) for k, c in pairs) / step
    size = sum(abs(c) * (values[k] + values[-k]) for k, c in pairs) / step
    assert found == pytest.approx((slope, size), rel=1e-9)


def test_step_where_neighbours_agree_is_taken(monkeypatch):
    slopes = iter([5.0, 1.0, 3.0, 3.01, 4.0, 6.0, 7.0, 9.0])
    sizes = iter(range(8))
    monkeypatch.setattr(
        c02_envelope, "_difference", lambda *arguments: (next(slopes), float(next(sizes)))
    )
    found = get_claim("C2").measure(build().instance)
    assert (found.measured, found.scale) == (3.01, 3.0)


# --- the frozen stage by hand


def scalar_stage(hessians=(1.0, 3.0), linears=(2.0, -1.0), weights=(0.25, 0.75)):
    """Two clients with one parameter: A = 2.5, C = −0.25, V* = −0.1, V_0 = 2."""
    return la.FrozenStage(
        weights=np.array(weights), hessians=np.reshape(hessians, (2, 1, 1)),
        linears=np.reshape(linears, (2, 1, 1)), start=np.full((1, 1, 1), 2.0),
        local_steps=2, local_lr=0.1,
    )  # fmt: skip


def frozen_by_hand():
    """One round of two local steps of the scalar clients."""
    places = [[2.0, 2.0], [2.0, 1.3], [2.0, 0.81]]
    return published_runs.FrozenRounds(scalar_stage(), np.reshape(places, (1, 3, 2, 1, 1)))


def test_frozen_rounds_by_hand():
    held = frozen_by_hand()
    assert held.means.ravel() == pytest.approx([2.0, 0.5 + 0.975, 0.5 + 0.6075])
    assert held.excess(held.means).ravel() == pytest.approx(
        [1.25 * 2.1**2, 1.25 * 1.575**2, 1.25 * 1.2075**2]
    )
    assert held.distance_sq == pytest.approx(2.1**2)
    # ∇F_1 − ∇F = −1.5V − 2.25 is larger than ∇F_2 − ∇F = 0.5V + 0.75, and largest at V = 2.
    assert held.heterogeneity_sq == pytest.approx(5.25**2)


def test_heterogeneity_is_taken_at_local_and_virtual_iterates():
    """Client 2 has the steep difference 3V and is alone far from zero, so the mean is nearer."""
    held = scalar_stage(hessians=(1.0, 5.0), linears=(0.0, 0.0), weights=(0.75, 0.25))
    far = published_runs.FrozenRounds(held, np.reshape([0.0, 4.0], (1, 1, 2, 1, 1)))
    assert far.heterogeneity_sq == pytest.approx((3.0 * 4.0) ** 2)
    turned = published_runs.FrozenRounds(held, np.reshape([4.0, 0.0], (1, 1, 2, 1, 1)))
    assert turned.heterogeneity_sq == pytest.approx((3.0 * 3.0) ** 2)  # client 2 at the mean, 3


def test_smoothness_and_small_step_by_hand():
    held = scalar_stage()
    assert published_runs.smoothness(held) == pytest.approx(3.0)
    name, slack = published_runs.small_step(held, 0.25)
    assert (name, slack) == ("ηL ≤ 0.25", pytest.approx(-0.05))


def test_curvatures_and_roundings_by_hand():
    held = la.FrozenStage(
        weights=np.array([0.5, 0.5]), hessians=np.array([np.diag([1.0, 8.0]), np.diag([3.0, 2.0])]),
        linears=np.array([[[6.0], [0.0]], [[6.0], [10.0]]]), start=np.array([[[5.0], [-2.0]]]),
        local_steps=1, local_lr=0.1,
    )  # fmt: skip
    assert value_descent.curvatures(held) == pytest.approx((2.0, 5.0, 8.0))
    size = (3.0**2 + 1.0**2) + (5.0**2 + 2.0**2)  # ‖V*‖² + ‖V_0‖²
    found = 1e29 * value_descent.rounding(held, 1e-3), 1e29 * value_descent.squared_rounding(held)
    assert found == pytest.approx((5.0 * 2.5 * size * 1e3, 2.5**2 * size))


@pytest.mark.parametrize("every_round", [False, True])
def test_value_descent_is_the_twins(every_round):
    case = build(seed=1)
    held = Frozen(case)
    found, condition = value_descent.value_descent(
        case.instance, value_descent.stage_of(case.instance), every_round=every_round
    )
    steps = held.steps(every_round)
    places = [x for x, _, _ in steps]
    assert condition == Condition("finite trajectory", 0.0)
    close(found.excess, [held.excess(x) for x in (*places, steps[-1][2])])
    close(found.slopes, [held.slope(x).ravel() for x in places])
    close(found.errors, [e.ravel() for _, e, _ in steps])
    close(found.slope_norms, [norm(held.slope(x)) for x in places])
    close(found.error_norms, [norm(e) for _, e, _ in steps])
    close(found.client_norms, [[norm(g) for g in held.client_slopes([x] * 3)] for x in places])
    assert found.step_size == pytest.approx(case.eta * (4 if every_round else 1))


def descent_by_hand(excess, slopes, errors, step=0.5):
    columns = (np.reshape(part, (-1, 1)).astype(float) for part in (slopes, errors))
    return value_descent.ValueDescent(np.array(excess), *columns, np.zeros((len(slopes), 2)), step)


CURVED = value_descent.Curvatures(0.5, 1.0, 1.0)


@pytest.mark.parametrize(
    ("errors", "slacks"),
    [
        ([0.2, 1.0, -0.5], [0.9, 0.5, 0.75]),  # shares 0.1, 0.5, 0.25: 1 − ε is the slack
        ([0.2, 2.2, -0.5], [0.9]),  # the second is larger than its slope
        ([3.0, 1.0, -0.5], [-0.5, 0.5, 0.75]),  # so is the first, which is judged all the same
        ([3.0, 2.2, -0.5], [-0.5]),
        ([2.0, 0.2, 0.2], [0.0, 0.9, 0.9]),
        ([0.2, 2.0, 0.2], [0.9, 0.0, 0.9]),  # just as large is not too large
    ],
)
def test_relative_rows_end_before_an_error_is_too_large(errors, slacks):
    descent = descent_by_hand([8.0, 4.0, 2.0, 1.0], [2.0, 2.0, 2.0], errors)
    rows, found = c17_inexact._relative_rows(descent, CURVED, 7.0)
    shares = [abs(e) / 2.0 for e in errors[: len(slacks)]]
    assert found == pytest.approx([min(2 - 0.5 * (1 + s), 1 - s) for s in shares])
    assert found == pytest.approx(slacks)
    expected = [(descent.excess[k + 1],
                 (1 - 0.5 * (1 - s) * 0.5 * (2 - 0.5 * (1 - s))) * descent.excess[k], 7.0)
                for k, s in enumerate(shares)]  # fmt: skip
    assert np.array(rows) == pytest.approx(np.array(expected))


def test_slack_of_a_relative_error_at_a_large_step():
    """ηL = 1.5 and ε = 0.2: 2 − ηL(1 + ε) = 0.2 is less than 1 − ε."""
    descent = descent_by_hand([8.0, 4.0], [2.0], [0.4], step=1.5)
    assert c17_inexact._relative_rows(descent, CURVED, 1.0)[1] == pytest.approx([0.2])


def test_roundings_are_part_of_the_scales(monkeypatch):
    """Where everything else is zero they are the scale; else they add to it."""
    held = scalar_stage()
    still = descent_by_hand([0.0, 0.0], [0.0], [0.0])
    expected = value_descent.rounding(held, LONG_BUDGET)
    assert c17_inexact._scale(still, held) == expected > 0
    case = build(multiple=0.1)
    for module, name, claim in (
        (c19_published, "rounding", "Ajalloeian–Stich"),
        (c20_averages, "squared_rounding", "field guide progress"),
    ):
        before = get_claim(claim).measure(case.instance).scale
        monkeypatch.setattr(module, name, lambda *arguments: 1e-3)
        added = get_claim(claim).measure(case.instance).scale - before
        length = case.eta * case.instance.local_steps
        share = 1.0 if name == "rounding" else 1.0 / (length * LONG_BUDGET)
        assert added == pytest.approx(1e-3 * share, rel=1e-6)


def test_allowance_of_the_drift_is_a_share_of_the_start():
    found = get_claim("field guide drift").measure(build(multiple=0.1).instance)
    expected = 1e-8 * norm_sq(build().value)
    assert found.scale - found.bound == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("share", "refused"), [(0.8e-10, True), (1.25e-10, False)])
def test_rate_is_judged_where_the_gap_is_no_rounding(share, refused):
    """From V* + share·‖V*‖ along the top eigenvector of A the gap is ½L(share·‖V*‖)²."""
    case = build(seed=3, heads=1)
    held = Frozen(case)
    away = np.zeros_like(held.star)
    away[:, 0] = np.linalg.eigh(held.hessian)[1][:, -1] * share * norm(held.star)
    params = case.instance.params
    there = params.replace(value=(held.star + away).reshape(params.value.shape))
    found = get_claim("PL rate").measure(case.instance._replace(params=there))
    assert [c.slack < 0 for c in found.conditions][1:] == ([True] if refused else [])


# --- how a measurement is judged


def verdict(kind, *numbers, **options):
    claim = Claim("X", "test", kind, "test", lambda instance: None)
    return judge(claim, Measurement(*numbers, **options))


@pytest.mark.parametrize(
    ("kind", "numbers", "tightness", "status"),
    [
        ("identity", (3.0, 1.0, 8.0), 0.25, "violated"),
        ("identity", (3.0, 1.0, 8.0, 1e-13), 1.25e-14, "holds"),  # the residual, where there is one
        ("identity", (3.0, 3.0, 8.0, 2.0), 0.25, "violated"),
        ("identity", (0.0, 0.0, 0.0), 0.0, "holds"),
        ("upper", (2.0, 3.0, 1.0), 1.5, "holds"),
        ("upper", (2.0, 3.0, 1e13), np.nan, "holds"),
        ("upper", (-2.0, 3.0, 1.0), -1.5, "holds"),
        ("upper", (3.0, 3.0 - 1e-12, 2.0), 1.0, "holds"),
        ("upper", (3.0, 3.0 - 3e-12, 2.0), 1.0, "violated"),
        ("upper", (2.0, np.inf, 1.0), np.nan, "holds"),
        ("lower", (3.0, 2.0, 1.0), 1.5, "holds"),
        ("lower", (3.0, 0.0, 1.0), np.nan, "holds"),
        ("lower", (3.0, -1.0, 1.0), np.nan, "holds"),
        ("lower", (3.0, 4.0, 1.0), 0.75, "violated"),
        ("report", (3.0, 4.0, 1.0), np.nan, "reported"),
    ],
)
def test_tightness_by_hand(kind, numbers, tightness, status):
    found = verdict(kind, *numbers)
    assert found.status == status
    assert found.tightness == pytest.approx(tightness, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize(("slack", "status"), [(0.0, "holds"), (-1e-300, "refused"),
                                               (np.nan, "refused")])  # fmt: skip
def test_a_condition_is_met_at_its_limit(slack, status):
    assert verdict("upper", 1.0, 2.0, 1.0, conditions=(Condition("x", slack),)).status == status


def test_runs_are_shared_within_a_block_only():
    calls = []

    @shared
    def run(instance):
        calls.append(instance)
        return len(calls)

    first, second = build().instance, replace_seed(build().instance)
    assert [run(first), run(first)] == [1, 2]
    with sharing():
        assert [run(first), run(second), run(first), run(second)] == [3, 4, 3, 4]
    assert run(first) == 5


def replace_seed(instance):
    return instance._replace(seed=instance.seed + 1)
