"""Numbers of C20 and C21: every draw listed, every run by a loop, every power sum dense."""

import numpy as np
import reference as ref
from enumeration import Draws, listed_moments
from method_cases import log_slope
from reference import matrix_mean, norm_sq, stack

from claim_cases.build import Numbers, norm
from claim_cases.frozen import Frozen
from linattn.federated.rounds import choose_participants
from linattn.streams import stream

ENSEMBLE = 400


def _draws(case):
    at, clients = case.instance, len(case.inst.clients)
    count = max(1, round(at.participation * clients))
    return Draws([at.local_steps] * clients, case.eta, count, batch_size=at.batch_size)


def listed(case):
    found = listed_moments(case.inst, case.theta, case.value, _draws(case), case.instance.rounds)
    star = stack(ref.minimizer(case.inst, case.theta))
    size = norm(found.second_moment)
    scale = np.trace(found.second_moment) + norm_sq(stack(case.value) - star) + norm_sq(star)
    return Numbers([(size, size, scale)], {"draws": found.outcomes})


def ensemble(case):
    """Sampled rounds without minibatches, seed by seed."""
    at, held = case.instance, Frozen(case)
    expected = listed_moments(case.inst, case.theta, case.value, _draws(case), at.rounds)
    powers = [np.linalg.matrix_power(np.eye(len(a)) - case.eta * a, at.local_steps)
              for a in held.hessians]  # fmt: skip
    own = [np.linalg.solve(a, c) for a, c in held.clients()]
    gaps = []
    for k in range(ENSEMBLE):
        value = held.start
        for t in range(at.rounds):
            chosen = choose_participants(len(own), at.participation, at.seed + k, t)
            weights = ref.applied_weights(case.inst, chosen.tolist())
            value = sum(w * (own[i] + powers[i] @ (value - own[i])) for i, w in weights.items())
        gaps.append(held.excess(value))
    bias = expected.mean - held.star
    share = 1.0 - 0.5 * float(np.sum(bias * (held.hessian @ bias))) / expected.expected_gap
    error = np.std(gaps, ddof=1) / np.sqrt(ENSEMBLE)
    return Numbers([(np.mean(gaps), expected.expected_gap, error)], {"noise": share})


def work(case):
    draw = stream(case.instance.seed, "work")
    return draw.integers(1, case.instance.local_steps + 1, len(case.inst.clients)).tolist()


def _constants(case):
    return {"max E_i / min E_i": max(work(case)) / min(work(case))}


def _shares(case, *, normalized):
    p, steps = case.inst.weights, work(case)
    return p * (p @ steps) / steps if normalized else p


def _fixed_point(case, eta, *, normalized):
    held, shares = Frozen(case), _shares(case, normalized=normalized)
    sums = [ref.power_sum(a, eta, np.ones(e))
            for a, e in zip(held.hessians, work(case), strict=True)]  # fmt: skip
    left, right = (
        sum(w * s @ part for w, s, part in zip(shares, sums, parts, strict=True))
        for parts in (held.hessians, held.linears)
    )
    return np.linalg.solve(left, right)


def unequal_rounds(case):
    held, steps, value = Frozen(case), work(case), Frozen(case).start
    for _ in range(case.instance.rounds):
        ends = []
        for (a, c), count in zip(held.clients(), steps, strict=True):
            own = value
            for _ in range(count):
                own = own - case.eta * (a @ own - c)
            ends.append(own)
        value = matrix_mean(case.inst.weights, ends)
    fixed = _fixed_point(case, case.eta, normalized=False)
    scale = norm(held.start - fixed) + norm(fixed)
    return Numbers([(norm(value), norm(value), scale)], _constants(case))


def normalized_fixed_point(case):
    fixed = _fixed_point(case, case.eta, normalized=True)
    size = norm(fixed)
    scale = size + norm(ref.minimizer(case.inst, case.theta))
    return Numbers([(size, size, scale)], _constants(case))


def limit_of_small_steps(case, *, normalized):
    held, steps = Frozen(case), work(case)
    sizes = [1e-2 / (max(steps) * case.top) / 2**k for k in range(3)]
    limit = held.star
    if not normalized:
        shares = case.inst.weights * steps
        limit = np.linalg.solve(
            *(np.tensordot(shares, p, 1) for p in (held.hessians, held.linears))
        )
    errors = [norm(_fixed_point(case, eta, normalized=normalized) - limit) for eta in sizes]
    # Differences of solutions: the last one has few digits.
    return Numbers([(log_slope(sizes, errors), 1.0, 1.0)],
                   _constants(case) | {"smallest error": errors[-1]})  # fmt: skip
