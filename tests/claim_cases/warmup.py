"""Numbers of C4 to C6, C10 and C14: local steps of the warm-up by the twin."""

import numpy as np
import reference as ref
from reference import norm_sq, stack

from claim_cases.build import (
    Numbers,
    batches,
    gradient_terms,
    loss_terms,
    norm,
    norm_2,
    one,
    rounded,
    warmup,
)
from claim_cases.frozen import Frozen


def ledger(case, upper):
    run = warmup(case)
    table = ref.certificate(case.inst, run, case.eta)
    start, end = table["profile"][[0, -1]]
    if not upper:
        terms = [abs(start), abs(end), *(abs(table[name][-1]) for name in ref.SIGNED)]
        return one(end, table["additive"][-1], sum(terms) + loss_terms(case))
    terms = [abs(table[name][-1]) for name in (*ref.COSTS, "descent_paid", "step_term")]
    return Numbers(
        [(end, table["certificate"][-1], abs(start) + sum(terms) + loss_terms(case))],
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
          norm(here) + norm(there) + rounded(gradient_terms(case), 1e-12))],
        {"‖J‖₂": coupling, "κ": kappa, "factor": factor, "‖Δ‖": delta},
    )  # fmt: skip


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
    largest = max(norm(model) for step in steps for model in ref.joint_models(step.local).values())
    moved = eta * len(steps) * gradient_terms(case)
    scale = max(side["left"] for side in sides) + eta * max(zetas) + rounded(largest + moved)
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
    at = case.instance
    drawn = batches(case, 0, last.local)
    gradients = ref.local_gradients(case.inst, last.local, drawn, at.local_steps - 1)
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
    scale = start + reference + errors + loss_terms(case)
    return Numbers(
        [(*row, scale) for row in rows], {"P_ref": reference, "median m_k": np.median(moduli)}
    )
