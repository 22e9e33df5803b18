"""What separates the averaged gradient of a local step from the gradient of the profile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from linattn._typing import Array, BoolArray
from linattn.federated.rounds import Round
from linattn.objectives.forms import SequenceForm
from linattn.objectives.population import Population
from linattn.types import Params, Problem


class StepErrors(NamedTuple):
    """ε of one local step, split into its four sources; flat kernel vectors."""

    track: Array
    drift: Array
    noise: Array
    sampling: Array


class ErrorSplit:
    """The errors of a round, local step by local step.

    All sums run over S_e, the participants that still work at local step e, with the weights w_i of
    the round: g = Σ w_i ĝ_i, noise = Σ w_i [ĝ_i − ∂F_i(B_i, V_i)], drift = Σ w_i [∂F_i(B_i, V_i) −
    ∂F_i(B̄, V̄)], sampling = Σ w_i ∂F_i(B̄, V̄) − ∂F(B̄, V̄), which is zero where everybody works.

    Parameters
    ----------
    problem : Problem
    held : Population
        Of the problem.
    kernel : slice
        Kernel entries of flat parameters.
    done : Round
        With its trace.
    """

    def __init__(self, problem: Problem, held: Population, kernel: slice, done: Round) -> None:
        self.problem, self.held, self.kernel, self.done = problem, held, kernel, done
        self._shares: dict[bytes, _Share | None] = {}

    def steps(
        self, first: int, places: Array, minimizers: Array
    ) -> Iterator[tuple[Array, StepErrors, Array]]:
        """g, the parts of ε, and ∇P at the virtual iterates of local steps from the first on.

        Parameters
        ----------
        first : int
        places : array, shape (n, D)
            B̄ and V̄.
        minimizers : array, shape (n, Hd, m)
            V*(B̄).
        """
        trace, context, kernel = self.done.trace, self.done.context, self.kernel
        assert trace is not None
        layout = context.params.layout
        joints = self.held.values_and_gradients(layout, places)[1][:, kernel]
        slopes = self.held.profile_kernel_gradients(layout, places, minimizers)
        for e, (flat, joint, slope) in enumerate(zip(places, joints, slopes, strict=True), first):
            update = context.weights @ trace.gradients[e][:, kernel]
            local = context.weights @ trace.full_gradients[e][:, kernel]
            share = self._share(context.local_steps > e)
            centre = joint if share is None else share.slope(self.held, Params(layout, flat))
            errors = StepErrors(joint - slope, local - centre, update - local, centre - joint)
            yield update, errors, slope

    def _share(self, working: BoolArray) -> _Share | None:
        key = working.tobytes()
        if key not in self._shares:
            self._shares[key] = self._make_share(working)
        return self._shares[key]

    def _make_share(self, working: BoolArray) -> _Share | None:
        """Σ w_i F_i of those who work; None where it is F."""
        context, problem = self.done.context, self.problem
        weights = context.weights[working]
        if np.array_equal(weights, problem.weights):
            return None
        total = 1.0 if working.all() else float(weights.sum())
        part = problem.subset(context.participants[working].tolist())
        part = replace(part, weights=weights / total)
        return _Share(SequenceForm(part.statistics, part.sequence_weights), total)


class _Share(NamedTuple):
    """total · Σ w_i F_i with weights w_i that sum to one."""

    form: SequenceForm
    total: float

    def slope(self, held: Population, params: Params) -> Array:
        """Its flat gradient in the kernel parameters, with the ridge of `held`."""
        gradient = self.form.gradient(params.kernels(), params.value).kernel
        return self.total * held.chain(params, gradient)
