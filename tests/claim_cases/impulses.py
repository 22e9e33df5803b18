"""Numbers of C17, C18, C23 and C24: rounds and centralized rounds by explicit steps of the twin."""

import numpy as np
import reference as ref
from method_cases import log_slope

import linattn as la
from claim_cases.build import Numbers, norm
from linattn.claims.ours import c18_response

ROUNDS, HORIZON = 32, 3.0  # of C23
LONG, INTERVALS = 96, (24, 12, 6)  # of C24 order


def flat(theta, value):
    return ref.flatten(theta, value)


class Steps:
    """Gradient steps on F_i and F of one case, on flat vectors."""

    def __init__(self, case):
        self.case, self.inst, self.count = case, case.inst, case.instance.local_steps
        self.start = flat(case.theta, case.value)
        self.clients = range(len(self.inst.clients))

    def parts(self, vector):
        return ref.unflatten(vector, self.case.theta, self.case.value)

    def slope(self, vector, client=None):
        at = self.parts(vector)
        if client is None:
            return flat(*ref.gradient(self.inst, *at))
        return flat(*ref.client_gradient(self.inst, client, *at))

    def curved(self, vector, direction, client=None):
        away = self.parts(direction)
        return flat(*ref.joint_hvp(self.inst, *self.parts(vector), *away, client))

    def steps(self, vector, eta, client=None):
        for _ in range(self.count):
            vector = vector - eta * self.slope(vector, client)
        return vector

    def federated(self, vector, eta):
        ends = [self.steps(vector, eta, i) for i in self.clients]
        return sum(p * end for p, end in zip(self.inst.weights, ends, strict=True))

    def impulse(self, vector, eta):
        return self.federated(vector, eta) - self.steps(vector, eta)

    def modified(self, eta, share):
        """E steps on F − share·(s/2)Σp‖∇F_i − ∇F‖²."""
        vector, drift = self.start, share * 0.5 * eta * (self.count - 1)
        for _ in range(self.count):
            vector = vector - eta * (self.slope(vector) - drift * _field(self, vector))
        return vector

    def run(self, rounds, eta):
        path = [self.start]
        for _ in range(rounds):
            path.append(self.federated(path[-1], eta))
        return np.array(path)

    def passed(self, rounds, eta, most):
        """The paths after 0, 1, .., most passes."""
        impulses, paths = np.zeros((rounds, self.start.size)), []
        for _ in range(most + 1):
            path = [self.start]
            for push in impulses:
                path.append(self.steps(path[-1], eta) + push)
            paths.append(np.array(path))
            impulses = [self.impulse(vector, eta) for vector in path[:-1]]
        return paths

    def interpolated(self, rounds, eta, k):
        """Impulses every k rounds, parabolas between them, predictor and corrector."""
        known, path = [(0, self.impulse(self.start, eta))], [self.start]

        def ahead(t):
            there, vector = [], path[t]
            for r in range(t, t + k):
                vector = self.steps(vector, eta) + parabola(known[-3:], r)
                there.append(vector)
            return there

        for t in range(0, rounds, k):
            known.append((t + k, self.impulse(ahead(t)[-1], eta)))
            path += ahead(t)
        return np.array(path)


def parabola(nodes, at):
    """The polynomial through two or three nodes, or the one there is."""
    times, rows = [t for t, _ in nodes], np.array([row for _, row in nodes])
    powers = np.vander(np.array(times) - times[-1], increasing=True).astype(float)
    return np.linalg.solve(powers, rows).T @ float(at - times[-1]) ** np.arange(len(nodes))


def furthest(rows):
    return float(np.linalg.norm(rows, axis=1).max())


def modified(case, share):
    steps = Steps(case)
    sizes = [0.01 * 2 * ref.safe_step(case.inst, case.theta) / steps.count / 2**k for k in range(3)]
    errors = [norm(steps.federated(steps.start, eta) - steps.modified(eta, share)) for eta in sizes]
    order = 2.0 + share
    return Numbers([(log_slope(sizes, errors), order, order)],
                   {"largest η": sizes[0], "smallest error": errors[-1]})  # fmt: skip


def passes(case):
    """After 0 to 3 passes, every error far above rounding."""
    steps, errors, sizes = Steps(case), [], []
    for h in range(3):
        rounds = ROUNDS * 2**h
        eta = HORIZON * 2 * ref.safe_step(case.inst, case.theta) / (steps.count * rounds)
        path = steps.run(rounds, eta)
        errors.append([furthest(passed - path) for passed in steps.passed(rounds, eta, 3)])
        sizes.append(eta)
    orders = [log_slope(sizes, row) for row in np.transpose(errors)]
    k = int(np.argmax(np.arange(1, 5) - orders))
    return Numbers([(orders[k], k + 1.0, k + 1.0)],
                   {f"k = {j}": order for j, order in enumerate(orders)})  # fmt: skip


def every_impulse(case):
    steps, at = Steps(case), case.instance
    path = steps.run(at.rounds, case.eta)
    size = furthest(path)
    growth = la.predict_run(at.problem, at.params, rounds=at.rounds, local_steps=at.local_steps,
                            local_lr=case.eta, tolerance=0.0).amplification  # fmt: skip
    return Numbers([(size, size, size * max(1.0, growth))], {"amplification": growth})


def intervals(case):
    steps = Steps(case)
    eta = 0.25 * 2 * ref.safe_step(case.inst, case.theta) / (LONG * steps.count)
    path = steps.run(LONG, eta)
    errors = [furthest(steps.interpolated(LONG, eta, k) - path) for k in INTERVALS]
    return Numbers([(log_slope(INTERVALS, errors), 3.0, 3.0)], {"smallest error": errors[-1]})


def two_tolerances(case):
    """The error of the library's prediction, by the twin's run; its walk has tests of its own."""
    at, path = case.instance, Steps(case).run(case.instance.rounds, case.eta)
    how = {"rounds": at.rounds, "local_steps": at.local_steps, "local_lr": case.eta}
    coarse, fine = (la.predict_run(at.problem, at.params, tolerance=tolerance, **how)
                    for tolerance in (0.04, 0.01))  # fmt: skip
    sizes = np.linalg.norm(fine.flats, axis=1)
    moved = np.linalg.norm(coarse.flats - fine.flats, axis=1) / sizes
    error = np.linalg.norm(fine.flats - path, axis=1) / np.linalg.norm(path, axis=1)
    return Numbers([(error.max(), 2.0 * moved.max(), 1.0)],
                   {"impulses": fine.num_impulses + fine.num_rejected})  # fmt: skip


def predicted_length(case):
    """Relative regret of T̂ in the twin's table of all lengths."""
    at = case.instance
    how = {"rounds": at.rounds, "local_steps": at.local_steps, "local_lr": case.eta}
    found = la.predict_trade_off(at.problem, at.params, reference=0.0, **how)
    path = ref.fedavg(case.inst, case.theta, case.value, trace=False, **how).path
    objective = np.array([_ended(case, *path[t], at.rounds - t) for t in range(at.rounds + 1)])
    best = objective.min()
    regret = (objective[found.attrs["warmup_star"]] - best) / (objective[-1] - best)
    return Numbers([(regret, 0.0, 1.0)], {"trusted": float(found.attrs["trusted"])})


def _ended(case, theta, value, rounds):
    """F after more rounds with the kernel frozen."""
    held = ref.frozen_quantities(case.inst, theta, local_steps=case.instance.local_steps,
                                 step_size=case.eta)  # fmt: skip
    end = ref.frozen_after(held, value, rounds)
    return ref.objective(case.inst, theta, end if end.ndim == 3 else ref.unstack(end, len(value)))


def _field(steps, vector):
    """c = Σp_iH_i(g_i − g)."""
    own, total = [steps.slope(vector, i) for i in steps.clients], 0.0
    mean = sum(p * row for p, row in zip(steps.inst.weights, own, strict=True))
    for i, p in enumerate(steps.inst.weights):
        total = total + p * steps.curved(vector, own[i] - mean, i)
    return total


def tangent(case):
    """C18: path and tangent by the same steps as the run."""
    steps, errors, drifts = Steps(case), [], []
    longest = 0.5 * 2 * ref.safe_step(case.inst, case.theta) / (8 * steps.count)
    for h in range(3):
        eta, rounds = longest / 2**h, 8 * 2**h
        flat, moved = steps.start, 0 * steps.start
        for _ in range(rounds * steps.count):
            pull = steps.curved(flat, moved) - _field(steps, flat)
            flat, moved = flat - eta * steps.slope(flat), moved - eta * pull
        drifts.append(0.5 * eta * (steps.count - 1))
        errors.append(norm(steps.run(rounds, eta)[-1] - flat - drifts[-1] * moved))
    return Numbers([(log_slope(drifts, errors), 2.0, 2.0)], {"smallest error": errors[-1]})


def settled_bias(case):
    """C18 at a minimizer: Newton's steps by dense Hessians of the twin, rounds by its loop."""
    steps = Steps(case)
    rest = c18_response._rest(case.instance).flat
    hessian = ref.joint_hessian(case.inst, *steps.parts(rest))
    assert norm(steps.slope(rest)) < 1e-9
    assert np.linalg.eigvalsh(hessian)[0] > 0
    moved = np.linalg.solve(hessian, _field(steps, rest))
    largest = 2 * 0.01 / (np.linalg.eigvalsh(hessian)[-1] * (steps.count - 1))
    drifts, errors = [], []
    for h in range(3):
        eta, flat = largest / 2**h, rest
        for _ in range(12):
            ended = steps.federated(flat, eta) - flat
            flat = flat + np.linalg.solve(hessian, ended) / (eta * steps.count)
        drifts.append(0.5 * eta * (steps.count - 1))
        errors.append(norm(flat - rest - drifts[-1] * moved))
    return Numbers([(log_slope(drifts, errors), 2.0, 2.0)], {"smallest error": errors[-1]})
