"""When to freeze without knowing the answer: the rules C13 against the best warm-up length.

Run ``python simulations/freeze_rule.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

import linattn as la
from linattn._fields import Positive
from linattn.analysis.regret import best_length, has_tradeoff, relative_regret
from linattn.data.worlds import InitialSpec, ProblemSpec
from linattn.experiments import Grid, Simulation
from linattn.experiments.specs import (
    SyntheticSpec,
    distinct,
)
from linattn.experiments.tables import (
    along,
    single,
    stacked,
)

if TYPE_CHECKING:
    import xarray as xr

UNITS = {
    "warmup_star": "rounds",
    "never_floats_up": "floats",
    "never_floats_down": "floats",
    "rule_round": "rounds",
    "rule_objective": "loss",
    "rule_floats_up": "floats",
    "rule_floats_down": "floats",
}


Rule = Literal["profile", "observable", "certified"]


class FreezeRuleSpec(SyntheticSpec):
    """Freezing rules C13 against the best warm-up length and against never freezing."""

    frozen_lr: Positive | Literal["safe"] | None = None
    rules: tuple[Rule, ...] = ("profile", "observable", "certified")

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("rules", self.rules)


def run(spec: FreezeRuleSpec) -> xr.Dataset:
    """Return where every rule freezes and what that costs, for every number of local steps.

    Dimensions: `local_steps`; `warmup` = 0..rounds, the objective against which rules are judged;
    `rule`. ``rule_round`` is the number of warm-up rounds (R if the rule never fired);
    ``rule_regret`` is relative regret, NaN where there is no trade-off (``tradeoff`` = 0);
    ``rule_excess`` is F(T̂)/F(T*) − 1. The floats are those of the whole run.
    """
    problem, params = spec.prepared()
    parts = [_panel(spec, problem, params, local_steps=steps) for steps in spec.local_steps]
    return stacked(parts, spec.local_steps)


def _panel(
    spec: FreezeRuleSpec, problem: la.Problem, params: la.Params, *, local_steps: int
) -> xr.Dataset:
    table = la.bias_drift(
        problem,
        params,
        warmup_lengths=range(spec.rounds + 1),
        rounds=spec.rounds,
        local_steps=local_steps,
        local_lr=spec.local_lr,
        frozen_lr=spec.frozen_lr,
        reference=0.0,  # only the objective is used
    )

    rows = [
        _row(spec, problem, params, table=table, local_steps=local_steps, rule=name)
        for name in spec.rules
    ]
    never = _trained(spec, problem, params, method=la.fed_avg(), local_steps=1)  # any E
    values = {
        "warmup_star": best_length(table),
        "tradeoff": has_tradeoff(table),
        "never_floats_up": _total(never, "floats_up"),
        "never_floats_down": _total(never, "floats_down"),
    }
    part = table[["objective", "stable"]].assign_coords(rule=list(spec.rules))
    return part.assign(along("rule", rows, UNITS)).assign(single(values, UNITS))


def _row(
    spec: FreezeRuleSpec,
    problem: la.Problem,
    params: la.Params,
    *,
    table: xr.Dataset,
    local_steps: int,
    rule: str,
) -> dict[str, float]:
    method = la.fed_frozen(warmup_rounds=la.freeze_rule(rule), frozen_lr=spec.frozen_lr)
    result = _trained(spec, problem, params, method=method, local_steps=local_steps)
    completed = result.outcome.status == "completed"
    objective = la.Joint(problem).value(result.params) if completed else np.inf
    star = table.attrs["warmup_star"]
    best = np.nan if star is None else float(table["objective"].sel(warmup=star))
    return {
        "rule_round": spec.rounds if result.freeze_round is None else result.freeze_round,
        "rule_objective": objective,
        "rule_floats_up": _total(result, "floats_up"),
        "rule_floats_down": _total(result, "floats_down"),
        "rule_regret": relative_regret(table, objective),
        "rule_excess": objective / best - 1.0,
    }


def _trained(
    spec: FreezeRuleSpec,
    problem: la.Problem,
    params: la.Params,
    *,
    method: la.Method,
    local_steps: int,
) -> la.Result:
    return la.run(
        method,
        problem,
        params,
        rounds=spec.rounds,
        local_steps=local_steps,
        local_lr=spec.local_lr,
        seed=spec.seed,
        metrics=("floats_up", "floats_down"),
    )


def _total(result: la.Result, name: str) -> float:
    return float(result.columns[name].sum())


HETEROGENEOUS = ProblemSpec(value_heterogeneity=0.75, covariate_heterogeneity=0.3)


SIMULATION = Simulation(
    FreezeRuleSpec,
    run,
    presets={
        "paper": [
            Grid(
                FreezeRuleSpec(rounds=400, local_steps=(1, 10, 50)),
                {
                    "seed": range(10),
                    "problem.value_heterogeneity": [0.0, 0.75, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
            Grid(
                FreezeRuleSpec(
                    rounds=400,
                    local_steps=(1, 10, 50),
                    problem=HETEROGENEOUS,
                    initial=InitialSpec(kernel="factored", rank=3),
                ),
                {"seed": range(10), "problem.kernel_heterogeneity": [0.0, 0.5]},
            ),
        ],
        "quick": [
            Grid(
                FreezeRuleSpec(rounds=100, local_steps=(1, 20)),
                {
                    "seed": range(3),
                    "problem.value_heterogeneity": [0.0, 1.5],
                    "problem.covariate_heterogeneity": [0.0, 0.3],
                },
            ),
        ],
        "tiny": [
            Grid(FreezeRuleSpec(rounds=10, local_steps=(1, 5), problem=HETEROGENEOUS)),
        ],
    },
)


if __name__ == "__main__":
    SIMULATION.main()
