"""One instance in the language of the library and in the twin's, and how numbers are listed."""

from typing import Any, NamedTuple

import bridge
import numpy as np
import reference as ref
from reference import norm_sq

from linattn.claims import Instance
from linattn.federated.rounds import choose_participants, draw_batches
from linattn.streams import stream

CLOSE = 1e-7
FITTED = 2e-3
"""Of orders: their errors are differences, of which the smallest are near rounding."""
CLIENTS = {"num_clients": 3, "dim": 3, "num_outputs": 2}
TINY = CLIENTS | {"dim": 2, "num_outputs": 1}


def norm(array):
    """Frobenius norm of an array, or of a tuple of arrays."""
    return float(np.sqrt(norm_sq(array)))


def norm_2(matrix):
    return float(np.linalg.norm(matrix, 2))


def named(rows):
    """Names of tests of rows that begin with a claim."""
    return [f"{row[0]}-{k}" for k, row in enumerate(rows)]


class Case(NamedTuple):
    """One instance in both languages."""

    inst: ref.Instance
    theta: tuple
    value: np.ndarray
    instance: Instance

    @property
    def eta(self):
        return self.instance.local_lr

    @property
    def matrices(self):
        return [ref.client_matrix(self.inst, i, self.theta) for i in range(len(self.inst.clients))]

    @property
    def top(self):
        """max_i λ_max(A_i)."""
        return max(float(np.linalg.eigvalsh(a)[-1]) for a in self.matrices)

    @property
    def mean(self):
        """A."""
        return ref.value_matrix(self.inst, self.theta)

    @property
    def largest(self):
        """λ_max(A)."""
        return float(np.linalg.eigvalsh(self.mean)[-1])

    def at(self, eta):
        return self._replace(instance=self.instance._replace(local_lr=float(eta)))


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


def loss_terms(case, theta=None):
    """c̄ + ‖A‖₂‖V*‖²: the sizes of the terms of P."""
    theta = case.theta if theta is None else theta
    largest = norm_2(ref.value_matrix(case.inst, theta))
    return energy(case) + largest * norm_sq(ref.minimizer(case.inst, theta))


def gradient_terms(case):
    """The largest (‖M‖‖Z‖ + ‖K‖)(‖GV‖ + ‖GBᵀ‖) of a sequence, and the ridges."""
    inst, heads, largest = case.inst, ref.kernels(case.theta), 0.0
    for X, Y in (sequence for client in inst.clients for sequence in client):
        U, gram = ref.queries(X, inst.readout), X.T @ X / len(X)
        mapped, turned = gram @ case.value, [gram @ kernel.T for kernel in heads]
        predicted = norm(sum(b @ v for b, v in zip(heads, mapped, strict=True)))
        residual = norm(U.T @ U) * predicted + norm(U.T @ Y)
        largest = max(largest, residual / len(U) * (norm(mapped) + norm(np.array(turned))))
    factor = 1.0
    if ref.is_factored(case.theta):
        pairs = zip(*case.theta, strict=True)
        factor = max(1.0, *(np.sqrt(norm_2(q) ** 2 + norm_2(k) ** 2) for q, k in pairs))
    ridge = max(inst.kernel_ridge, inst.value_ridge)
    return factor * largest + ridge * np.sqrt(norm_sq(case.theta) + norm_sq(case.value))


def rounded(size, budget=1e-10):
    """A few roundings of numbers of a size, in the units of a scale."""
    return 1e-15 * size / budget


def participants(case):
    """Those of every round, as the library draws them."""
    at, count = case.instance, len(case.inst.clients)
    return [choose_participants(count, at.participation, at.seed, t).tolist()
            for t in range(at.rounds)]  # fmt: skip


def batches(case, t, chosen):
    """Sequences of every participant and local step of round t, None for all."""
    at, sizes = case.instance, [len(client) for client in case.inst.clients]
    if at.batch_size is None:
        return None
    return {i: draw_batches(sizes[i], at.batch_size, at.local_steps,
                            stream(at.seed, "batch", i, t)) for i in chosen}  # fmt: skip


def warmup(case):
    """The twin's run with the participants and minibatches of the library."""
    at, chosen = case.instance, participants(case)
    drawn = [batches(case, t, chosen[t]) for t in range(at.rounds)]
    return ref.fedavg(
        case.inst, case.theta, case.value, rounds=at.rounds, local_steps=at.local_steps,
        local_lr=case.eta, participants=chosen, batches=None if drawn[0] is None else drawn,
    )  # fmt: skip


def close(ours, theirs, relative=CLOSE):
    """Equal to a relative tolerance, or to rounding of the largest; None stands for any number."""
    ours, theirs = np.array(ours, float), np.array(theirs, float)
    assert ours.shape == theirs.shape
    known = ~np.isnan(theirs)
    smallest = 1e-13 * np.abs(theirs[known]).max(initial=0.0)
    np.testing.assert_allclose(ours[known], theirs[known], rtol=relative, atol=smallest)
