"""Numbers of C7 to C9 and C13: the frozen stage, step by step."""

import numpy as np
import reference as ref
from reference import matrix_mean, norm_sq, stack

from claim_cases.build import Numbers, loss_terms, norm, one


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
    rounds = at.rounds
    table = ref.bias_drift(
        case.inst, case.theta, case.value, rounds=rounds, warmup_rounds=rounds // 2,
        local_steps=at.local_steps, local_lr=case.eta,
    )  # fmt: skip
    parts = [table[name] for name in PARTS]
    measured = table["objective"]
    return one(measured, sum(parts), measured + sum(map(abs, parts)) + loss_terms(case))


def freezing(case, rule):
    """The best length here is the longest."""
    options = {"local_steps": case.instance.local_steps, "local_lr": case.eta, "trace": False}
    options["rounds"] = case.instance.rounds
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
