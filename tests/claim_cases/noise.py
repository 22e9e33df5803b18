"""Numbers of C19: sampled rounds by a loop, covariance and shift by Runge–Kutta steps."""

import numpy as np
import reference as ref

from claim_cases.build import Numbers
from claim_cases.impulses import Steps
from linattn.federated.rounds import choose_participants

RUNS, ROUNDS, HORIZON, PARTS = 100, 25, 0.5, 20


class Noise(Steps):
    """One of two clients a round, so that the drawn one weighs 1 and the mean weights are ½."""

    def __init__(self, case):
        super().__init__(case)
        assert len(self.inst.clients) == 2
        assert case.instance.participation == 0.5
        self.shares = np.array([0.5, 0.5])
        self.eta = HORIZON * 2 * ref.safe_step(case.inst, case.theta) / (ROUNDS * self.count)

    def ended(self, seed=None):
        """θ after all rounds, of drawn clients or of the mean."""
        vector = self.start
        for t in range(ROUNDS):
            ends = [self.steps(vector, self.eta, i) for i in self.clients]
            if seed is None:
                vector = self.shares @ np.array(ends)
            else:
                vector = ends[choose_participants(2, 0.5, seed, t)[0]]
        return vector

    def mean_slope(self, vector):
        return self.shares @ np.array([self.slope(vector, i) for i in self.clients])

    def rates(self, state):
        """θ', Σ' and m' per unit of ηE."""
        vector, spread, shift = state
        own = np.array([self.slope(vector, i) for i in self.clients])
        units = np.eye(vector.size)
        hessian = np.array([
            self.shares @ np.array([self.curved(vector, unit, i) for i in self.clients])
            for unit in units
        ])  # fmt: skip
        apart = own - self.shares @ own
        drawn = np.einsum("i,ia,ib->ab", self.shares, apart, apart)
        bent, slope = 0.0, self.shares @ own
        for size, v in zip(*np.linalg.eigh(spread)[:1], np.linalg.eigh(spread)[1].T, strict=True):
            up, down = (self.mean_slope(vector + sign * v) for sign in (1.0, -1.0))
            bent = bent + size * (up - 2.0 * slope + down)
        return (-slope, drawn - hessian @ spread - spread @ hessian, -hessian @ shift - 0.5 * bent)

    def predicted(self):
        """Σ and m at the end, by the classical Runge–Kutta method."""
        size, step = self.start.size, self.eta * self.count * ROUNDS / PARTS
        state = (self.start, np.zeros((size, size)), np.zeros(size))

        def moved(rates, share):
            return tuple(a + share * step * b for a, b in zip(state, rates, strict=True))

        for _ in range(PARTS):
            first = self.rates(state)
            second = self.rates(moved(first, 0.5))
            third = self.rates(moved(second, 0.5))
            last = self.rates(moved(third, 1.0))
            state = tuple(
                a + step / 6 * (p + 2 * q + 2 * r + s)
                for a, p, q, r, s in zip(state, first, second, third, last, strict=True)
            )
        scale = self.eta * self.count
        return scale * state[1], scale * state[2]


def _statistic(found, expected, variance, **constants):
    """The variance of a normal θ is the least that is allowed for."""
    error = np.sqrt(max(np.var(found, ddof=1), variance) / len(found))
    return Numbers([(np.mean(found), expected, error)], constants)


def _ends(held, case):
    return [held.ended(case.instance.seed + k) for k in range(RUNS)]


def spread(case):
    held = Noise(case)
    covariance, shift = held.predicted()
    still, size = held.ended(), np.trace(covariance) + shift @ shift
    found = [float(np.sum((end - still) ** 2)) for end in _ends(held, case)]
    variance = 2 * np.sum(np.linalg.eigh(covariance)[0] ** 2) + 4 * shift @ covariance @ shift
    return _statistic(found, size, variance, **{"‖m‖²": shift @ shift / size})


def profile(case):
    """The profile is that of the true weights."""
    held, inst = Noise(case), case.inst
    still, count = held.ended(), case.value.size
    theta = held.parts(still)[0]
    slope = np.concatenate([part.ravel() for part in ref.profile_gradient(inst, theta)])
    kernel = held.predicted()[0][:-count, :-count]
    hessian = []
    for unit in np.eye(len(kernel)):
        direction = held.parts(np.concatenate([unit, np.zeros(count)]))[0]
        curved = ref.profile_hvp(inst, theta, direction)
        hessian.append(np.concatenate([part.ravel() for part in curved]))
    product = np.array(hessian) @ kernel
    bent, variance = 0.5 * np.trace(product), 0.5 * np.trace(product @ product)
    found = [
        ref.profile(inst, held.parts(end)[0]) - ref.profile(inst, theta)
        - float((end - still)[:-count] @ slope)
        for end in _ends(held, case)
    ]  # fmt: skip
    return _statistic(found, bent, variance)
