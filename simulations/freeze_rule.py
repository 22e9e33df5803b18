"""When to freeze without knowing the answer: the rules C13 against the best warm-up length.

Run ``python simulations/freeze_rule.py --preset quick``; results go to ``./results``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

import linattn as la
from linattn._fields import Positive
from linattn.analysis.regret import best_length, has_tradeoff, relative_regret
from linattn.experiments import Simulation
from linattn.experiments.specs import FACTORED, WORLDS, RegimeSpec, distinct, regimes
from linattn.experiments.tables import along, single

if TYPE_CHECKING:
    import xarray as xr

Rule = Literal["profile", "observable", "certified"]
UNITS = {
    "warmup_star": "rounds",
    "never_floats_up": "floats",
    "never_floats_down": "floats",
    "rule_round": "rounds",
    "rule_objective": "loss",
    "rule_floats_up": "floats",
    "rule_floats_down": "floats",
}


class FreezeRuleSpec(RegimeSpec):
    """Freezing rules C13 against the best warm-up length and against never freezing."""

    frozen_lr: Positive | Literal["safe"] | None = None
    rules: tuple[Rule, ...] = ("profile", "observable", "certified")

    def __post_init__(self) -> None:
        super().__post_init__()
        distinct("rules", self.rules)


def run(spec: FreezeRuleSpec) -> xr.Dataset:
    """Return where every rule freezes and what that costs.

    Dimensions: `warmup`, the objective against which rules are judged; `rule`. ``rule_round`` is
    the number of warm-up rounds (R if the rule never fired); ``rule_regret`` is relative regret,
    NaN where there is no trade-off (``tradeoff`` = 0); ``rule_excess`` is F(T̂)/F(T*) − 1. The
    floats are those of the whole run.
    """
    problem, params = spec.prepared()
    table = la.bias_drift(
        problem,
        params,
        warmup_lengths=spec.lengths(),
        rounds=spec.rounds,
        frozen_lr=spec.frozen_lr,
        reference=0.0,  # only the objective is used
        **spec.settings(),
    )
    rows = [_row(spec, problem, params, table, rule) for rule in spec.rules]
    once = {"local_steps": 1, "local_lr": spec.local_lr}  # floats are the same at any E
    never = _trained(spec, la.fed_avg(), problem, params, **once)
    values = {
        "warmup_star": best_length(table),
        "tradeoff": has_tradeoff(table),
        "never_floats_up": _total(never, "floats_up"),
        "never_floats_down": _total(never, "floats_down"),
    }
    part = table[["objective", "stable"]].assign_coords(rule=list(spec.rules))
    return part.drop_attrs(deep=False).assign(along("rule", rows, UNITS) | single(values, UNITS))


def _row(
    spec: FreezeRuleSpec, problem: la.Problem, params: la.Params, table: xr.Dataset, rule: str
) -> dict[str, float]:
    method = la.fed_frozen(warmup_rounds=la.freeze_rule(rule), frozen_lr=spec.frozen_lr)
    result = _trained(spec, method, problem, params, **spec.settings())
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
    spec: FreezeRuleSpec, method: la.Method, problem: la.Problem, params: la.Params, **settings: Any
) -> la.Result:
    metrics = ("floats_up", "floats_down")
    return la.run(method, problem, params, rounds=spec.rounds, metrics=metrics, **settings)


def _total(result: la.Result, name: str) -> float:
    return float(result.columns[name].sum())


FEW = [(0.02, 11), (0.02, 21)]
MAIN = [(0.75, 0.3)]
SIMULATION = Simulation(
    FreezeRuleSpec,
    run,
    presets={
        "paper": [
            *regimes(FreezeRuleSpec(), [(0.02, 1), (0.02, 6), *FEW, (0.02, 51)], seeds=10),
            *regimes(FreezeRuleSpec(), [(0.01, 11), (0.01, 21)], seeds=10),
            *regimes(FreezeRuleSpec(initial=FACTORED), FEW, seeds=10, worlds=MAIN,
                     problem__kernel_heterogeneity=[0.0, 0.5]),
        ],
        "quick": regimes(FreezeRuleSpec(), [(0.02, 6), (0.02, 21)], worlds=WORLDS[1:]),
        "tiny": regimes(FreezeRuleSpec(horizon=10.0), [(0.02, 6), (0.02, 21)], worlds=MAIN),
    },
)  # fmt: skip


if __name__ == "__main__":
    SIMULATION.main()
