"""The freezing rules C13 against the best warm-up length and against never freezing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import linattn as la
from linattn.analysis.bias_drift import BiasDrift, bias_drift
from linattn.experiments.jobs.common import has_tradeoff, prepared, relative_regret, stacked
from linattn.experiments.specs import FreezeRuleSpec
from linattn.federated import Method, Result, fed_avg, fed_frozen, freeze_rule
from linattn.federated import run as simulate

if TYPE_CHECKING:
    import xarray as xr

UNITS = {
    "rule_round": "rounds",
    "rule_objective": "loss",
    "rule_floats_up": "floats",
    "rule_floats_down": "floats",
    "rule_regret": "1",
    "rule_excess": "1",
}


def run(spec: FreezeRuleSpec) -> xr.Dataset:
    """Return where every rule freezes and what that costs, for every number of local steps.

    Dimensions: `local_steps`; `warmup` = 0..rounds, the table against which rules are judged;
    `rule`. ``rule_round`` is the number of warm-up rounds (R if the rule never fired);
    ``rule_regret`` is relative regret, NaN where there is no trade-off (``tradeoff`` = 0);
    ``rule_excess`` is F(T̂)/F(T*) − 1.
    """
    problem, params = prepared(spec)
    parts = [_panel(spec, problem, params, steps) for steps in spec.local_steps]
    return stacked(parts, spec.local_steps)


def _panel(
    spec: FreezeRuleSpec, problem: la.Problem, params: la.Params, local_steps: int
) -> xr.Dataset:
    import xarray as xr

    table = bias_drift(
        problem,
        params,
        warmup_lengths=range(spec.rounds + 1),
        rounds=spec.rounds,
        local_steps=local_steps,
        local_lr=spec.local_lr,
        frozen_lr=spec.frozen_lr,
        reference=0.0,  # the objective alone is used
    )

    def trained(method: Method) -> Result:
        return simulate(
            method,
            problem,
            params,
            rounds=spec.rounds,
            local_steps=local_steps,
            local_lr=spec.local_lr,
            seed=spec.seed,
            metrics=("objective", "floats_up", "floats_down"),
        )

    runs = [trained(_rule_method(name, spec)) for name in spec.rules]
    never = trained(fed_avg())
    rows = [_row(result, spec.rounds, table) for result in runs]
    star = table.warmup_star
    data: dict[str, Any] = {
        "objective": ("warmup", table["objective"], {"units": "loss"}),
        "stable": ("warmup", table["stable"]),
        "warmup_star": ((), -1 if star is None else star, {"units": "rounds"}),
        "tradeoff": ((), has_tradeoff(table)),
        "never_floats_up": ((), float(never.columns["floats_up"].sum()), {"units": "floats"}),
    }
    data |= {
        name: ("rule", np.array([row[name] for row in rows]), {"units": UNITS[name]})
        for name in UNITS
    }
    return xr.Dataset(data, coords={"warmup": table.warmup, "rule": list(spec.rules)})


def _rule_method(name: str, spec: FreezeRuleSpec) -> Method:
    return fed_frozen(warmup_rounds=freeze_rule(name), frozen_lr=spec.frozen_lr)


def _row(result: Result, rounds: int, table: BiasDrift) -> dict[str, float]:
    diverged = result.outcome.status == "diverged"
    objective = np.inf if diverged else float(result.columns["objective"][-1])
    best = np.where(table["stable"], table["objective"], np.inf).min()
    return {
        "rule_round": rounds if result.freeze_round is None else result.freeze_round,
        "rule_objective": objective,
        "rule_floats_up": float(result.columns["floats_up"].sum()),
        "rule_floats_down": float(result.columns["floats_down"].sum()),
        "rule_regret": relative_regret(table, objective),
        "rule_excess": objective / best - 1.0 if np.isfinite(best) else np.nan,
    }
