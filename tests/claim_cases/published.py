"""Numbers of the published bounds on the frozen stage."""

import numpy as np
import reference as ref
from reference import norm_sq

from claim_cases.build import Numbers, norm, norm_2, one
from claim_cases.descent import descent_scale
from claim_cases.frozen import Frozen, stage


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
    scale = bound + descent_scale(held, steps, case.eta)
    return one(held.excess(steps[-1][2]), bound, scale, μ=mu)


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
