"""Numbers of the rates of inexact descent and of the drift of a round."""

import numpy as np
import reference as ref
from reference import norm_sq, stack

from claim_cases.build import Numbers, batches, gradient_terms, norm, participants, rounded, warmup
from claim_cases.frozen import Frozen


def curved(held):
    return {"L = λ_max(A)": held.values[-1], "μ = λ_min(A)": held.values[0]}


def descent_scale(held, steps, eta):
    places = [x for x, _, _ in steps] + [steps[-1][2]]
    largest = max(norm_sq(e) for _, e, _ in steps)
    along = max(norm(held.slope(x)) for x in places[:-1]) * norm(held.start)
    return max(map(held.excess, places)) + 0.5 * eta * largest + rounded(along)


def sampled_steps(held, case):
    """(x, e, x⁺) of local steps on minibatches of some clients, by the gradients of tokens."""
    server, found = case.value, []
    for t, chosen in enumerate(participants(case)):
        weights, drawn = ref.applied_weights(case.inst, chosen), batches(case, t, chosen)
        models = dict.fromkeys(chosen, server)
        for e in range(held.count):
            centre = sum(weights[i] * models[i] for i in chosen)
            slopes = {i: ref.client_gradient(case.inst, i, case.theta, models[i], drawn[i][e])[1]
                      for i in chosen}  # fmt: skip
            applied = sum(weights[i] * slopes[i] for i in chosen)
            places = [stack(v) for v in (centre, applied, centre - held.eta * applied)]
            found.append((places[0], places[1] - held.slope(places[0]), places[2]))
            models = {i: models[i] - held.eta * slopes[i] for i in chosen}
        server = sum(weights[i] * models[i] for i in chosen)
    return found


def absolute(case):
    held = Frozen(case)
    noisy = case.instance.batch_size is not None
    steps = sampled_steps(held, case) if noisy else held.steps(False)
    bound, rows = held.excess(held.start), []
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


def path_noise(case, places, largest):
    """Rounding of gradients and of the places at which they are taken; `largest` is a curvature."""
    size = max(norm(place) for row in places for place in row.values())
    return rounded(gradient_terms(case) + largest * size)


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
        noise = path_noise(case, places, max(secants[-len(weights) :]))
        rows.append((measured, bound, starts + measured + noise))
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
        kernel = sum(norm_sq(part) for part in case.theta)
        size = max(np.sqrt(kernel + norm_sq(v)) for row in places[:-1] for v in row)
        noise = rounded(gradient_terms(case) + held.largest * size)
        rows.append((norm(error), bound, held.mean(starts) + noise))
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
    noise = path_noise(case, places, max(np.max(s) for s in secants.values()))
    return Numbers(
        [(measured, norm(bounds), starts + measured + noise)],
        {"max L_θθ": max(s[0] for s in secants.values()),
         "max L_VV": max(s[3] for s in secants.values())},
    )  # fmt: skip
