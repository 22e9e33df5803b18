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
CLIENTS = {"num_clients": 3, "dim": 3, "num_outputs": 2}
TINY = CLIENTS | {"dim": 2, "num_outputs": 1}


def norm(array):
    """Frobenius norm of an array, or of a tuple of arrays."""
    return float(np.sqrt(norm_sq(array)))


def norm_2(matrix):
    return float(np.linalg.norm(matrix, 2))


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


def close(ours, theirs):
    """Equal to CLOSE, or to rounding of the largest; None stands for any number."""
    ours, theirs = np.array(ours, float), np.array(theirs, float)
    assert ours.shape == theirs.shape
    known = ~np.isnan(theirs)
    smallest = 1e-13 * np.abs(theirs[known]).max(initial=0.0)
    np.testing.assert_allclose(ours[known], theirs[known], rtol=CLOSE, atol=smallest)
