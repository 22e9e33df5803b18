"""C20: exact moments of the sampled frozen stage, against every draw and against many runs."""

from itertools import pairwise

import numpy as np

from linattn.analysis.outcomes import MAX_OUTCOMES, count_outcomes, frozen_ensemble, frozen_outcomes
from linattn.claims.along import settings
from linattn.claims.conditions import FED_AVG, strict, well_conditioned, yes_or_no
from linattn.claims.frozen_runs import stage_of
from linattn.claims.record import Claim, Constant, Instance, Measurement, Requirement, shared
from linattn.theory.moments import MAX_MOMENT_ROWS, FrozenMoments, frozen_moments
from linattn.types import Problem

ENSEMBLE = 400
"""Runs of an ensemble, fixed before any was run."""
FEW = 3
"""Clients, and sequences of each, of a random instance whose draws are listed."""
LISTED = 20_000
MOST_STEPS = 5


@shared
def _moments(instance: Instance) -> FrozenMoments:
    how = settings(instance)
    del how["rounds"], how["seed"]
    return frozen_moments(instance.problem, instance.params, **how)


def _exactly(instance: Instance) -> Measurement:
    """E[(V − V*)(V − V*)ᵀ] after all rounds."""
    stage = stage_of(instance)
    listed = frozen_outcomes(instance.problem, instance.params, **settings(instance))
    measured = listed.second_moment
    predicted = _moments(instance).second_moment(instance.rounds)
    start = float(np.sum((stage.start - stage.minimizer) ** 2))
    return Measurement(
        float(np.linalg.norm(measured)),
        float(np.linalg.norm(predicted)),
        float(np.trace(measured)) + start + float(np.sum(stage.minimizer**2)),
        residual=float(np.linalg.norm(measured - predicted)),
        constants=(Constant("draws", len(listed.chances), "listed"),),
    )


def _ensemble(instance: Instance) -> Measurement:
    """The mean gap of independent runs, in standard errors."""
    moments, how = _moments(instance), settings(instance)
    found = frozen_ensemble(instance.problem, instance.params, num_runs=ENSEMBLE, **how)
    return Measurement(
        found.mean, moments.expected_gap(instance.rounds), found.standard_error,
        constants=(Constant("noise", _noise_share(instance), "share of the expected gap"),),
    )  # fmt: skip


def _noise_share(instance: Instance) -> float:
    moments = _moments(instance)
    noise, bias = moments.noise(instance.rounds), moments.bias(instance.rounds)
    return noise / (noise + bias) if noise > 0.0 else 0.0


def sampled(instance: Instance) -> Instance:
    """With half of the clients where an instance has neither minibatches nor sampling."""
    drawn = instance.participation < 1.0 or instance.batch_size is not None
    return instance if drawn else instance._replace(participation=0.5)


def short(instance: Instance) -> Instance:
    """Up to five local steps: a run takes a millisecond, and there are many."""
    return sampled(instance)._replace(local_steps=min(MOST_STEPS, instance.local_steps))


def few_draws(instance: Instance) -> Instance:
    """Three clients of three sequences, two local steps, and as many rounds as can be listed."""
    problem, batch = instance.problem, instance.batch_size
    few = sampled(
        instance._replace(
            problem=_shortened(problem.subset(range(min(FEW, problem.num_clients)))),
            rounds=2,
            local_steps=min(2, instance.local_steps),
            batch_size=None if batch is None else min(2, batch),
        )
    )
    return few if _draws(few) <= LISTED else few._replace(rounds=1)


def _shortened(problem: Problem) -> Problem:
    """The first sequences of every client."""
    kept = [np.arange(i, min(j, i + FEW)) for i, j in pairwise(problem.offsets)]
    ends = np.cumsum([0, *(len(rows) for rows in kept)])
    return problem.rearranged(np.concatenate(kept), ends, problem.weights)


def _draws(instance: Instance) -> int:
    return count_outcomes(instance.problem, **settings(instance))


FEW_DRAWS = Requirement(
    f"at most {LISTED:,} draws to list",
    lambda at: float(LISTED - min(_draws(at), MAX_OUTCOMES)),
    essential=True,
)
FEW_ROWS = Requirement(
    f"H·d + m ≤ {MAX_MOMENT_ROWS}",
    lambda at: float(MAX_MOMENT_ROWS - at.params.value[..., 0].size - at.params.value.shape[-1]),
    essential=True,
)

CLAIMS = (
    Claim(
        "C20",
        "E[(V − V*)(V − V*)ᵀ] after sampled rounds, against the list of all draws",
        "identity",
        "Sampling, minibatches, unequal work",
        _exactly,
        needs=FED_AVG,
        conditions=(FEW_ROWS, FEW_DRAWS, well_conditioned(1e4)),
        suit=few_draws,
    ),
    Claim(
        "C20 ensemble",
        f"E F(B, V) − P(B) after sampled rounds, against the mean of {ENSEMBLE:,} runs",
        "statistical",
        "Sampling, minibatches, unequal work",
        _ensemble,
        needs=FED_AVG,
        conditions=(
            FEW_ROWS,
            yes_or_no("something is drawn", lambda at: _noise_share(at) > 1e-6, "no draw matters"),
            Requirement(
                "a second moment that contracts",
                lambda at: strict(1.0 - _moments(at).second_moment_rate),
            ),
        ),
        share=0.05,
        record=1_000,
        suit=short,
    ),
)
