"""The rows of the record of predicted trade-offs: written from stored runs, read again.

`scripts/response_findings.py` writes them and says what they say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from kept import all_whole, origin, read_rows, write_json, write_rows
from pages import RECORD

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.linalg import lowest_point

FOLDER = RECORD / "response"
CONTROL = "identical clients"
Row = dict[str, Any]
Rows = list[Row]


def _shared(run: Result) -> Row:
    spec = run.spec
    kind = "factored" if spec["initial"]["kernel"] == "factored" else "merged"
    kind = "two heads" if spec["initial"]["num_heads"] > 1 else kind
    kind = "unequal weights" if spec["weights"] == "rising" else kind
    return {
        "kind": CONTROL if spec["identical"] else kind,
        "target": spec["problem"]["value_heterogeneity"],
        "covariate": spec["problem"]["covariate_heterogeneity"],
        "local_lr": spec["local_lr"],
        "local_steps": spec["local_steps"],
        "seed": spec["seed"],
    }


def _trade_offs(runs: Iterable[Result]) -> Iterator[Row]:
    """A run of `response`: T̂ at the last tolerance, the log law, the regret of every route."""
    names = ("stake", "saved", "tradeoff", "warmup_star", "num_impulses_coarse", "law_rate",
             "law_crossing", "law_time")  # fmt: skip
    told = ("predicted_star", "regret", "worst_error", "estimated_error", "num_impulses", "trusted",
            "reason")  # fmt: skip
    routes = ("first_order", "log_law", "pass", "certificate", "profile", "observable", "certified")
    for run in runs:
        data = run.dataset
        lengths, objective = data["warmup"].values, data["objective"].values
        above = np.where(np.isfinite(objective), objective, np.inf)
        held = set(data["route"].values.tolist()) if "route" in data else set()
        yield {
            **_shared(run),
            "rounds": int(lengths[-1]),
            "best_length": lowest_point(lengths, above),
            **{name: data[name].item() for name in names},
            **{name: data[name].values.tolist()[-1] for name in told},
            **{
                name: data["route_regret"].sel(route=name).item() if name in held else np.nan
                for name in routes
            },
        }


def _impulses(runs: Iterable[Result]) -> Iterator[Row]:
    """A tolerance of a run of `impulses`, or a number of passes."""
    names = ("worst_error", "path_error", "regret", "num_impulses")
    for run in runs:
        data = run.dataset
        for dim, prefix in (("tolerance", ""), ("passes", "pass_")):
            for k, at in enumerate(data[dim].values.tolist()):
                yield {
                    **_shared(run),
                    "rounds": data["rounds"].item(),
                    "by": dim,
                    "at": at,
                    **{name: data[prefix + name].values[k].item() for name in names},
                }


def _random(runs: Iterable[Result]) -> Iterator[Row]:
    """A seed of `random_predictions`."""
    for run in runs:
        names = sorted(str(name) for name in run.dataset)
        yield {"seed": run.spec["seed"], **{name: run.dataset[name].item() for name in names}}


def _sampled(runs: Iterable[Result]) -> Iterator[Row]:
    """A setting of `sampled_response`: ``error_at_star`` is that of E P at its best length."""
    names = ("tradeoff", "stake", "regret", "worst_error", "profile_regret", "profile_worst_error",
             "trusted", "reason")  # fmt: skip
    for run in runs:
        data, spec = run.dataset, run.spec
        profile, told = data["profile"].values, data["predicted_profile"].values
        star = int(np.nanargmin(profile))
        yield {
            **_shared(run),
            "participation": spec["participation"],
            "batch_size": spec["batch_size"] or 0,
            "num_runs": spec["num_runs"],
            "error_at_star": abs(told[star] - profile[star])
            / (profile[star] - data["reference"].item()),
            **{name: data[name].item() for name in names},
        }


def _worlds(runs: Iterable[Result]) -> Iterator[Row]:
    """A tolerance of a run of `predicted_worlds`."""
    for run in runs:
        data, spec = run.dataset, run.spec
        for k, tolerance in enumerate(data["tolerance"].values.tolist()):
            yield {
                "world": _world(spec),
                "seed": spec["seed"],
                "parameters": data["parameters"].item(),
                "rounds": data["rounds"].item(),
                "drift": data["drift"].item(),
                "tolerance": tolerance,
                **{
                    name: data[name].values[k].item()
                    for name in ("path_error", "objective_error", "num_impulses")
                },
            }


def _tuned(runs: Iterable[Result]) -> Iterator[Row]:
    """A method of a run of `tuned_prediction`: excesses over P_ref, and what was chosen."""
    for run in runs:
        data, spec = run.dataset, run.spec
        for k, method in enumerate(data["method"].values.tolist()):
            yield {
                "method": method,
                "target": spec["problem"]["value_heterogeneity"],
                "covariate": spec["problem"]["covariate_heterogeneity"],
                "local_steps": spec["local_steps"],
                "rounds": spec["rounds"],
                "seed": spec["seed"],
                "tolerance": spec["tolerance"],
                **{
                    f"{name}_excess": (data[name].values[k] - data["reference"]).item()
                    for name in ("measured", "predicted", "reached")
                },
                **{
                    f"{name}_{what}": data[f"{name}_{what}"].values[k].item()
                    for name in ("measured", "predicted")
                    for what in ("local_lr", "length")
                },
                "interior": bool(data["interior"].values[k]),
            }


def _world(spec: Row) -> str:
    kind = {"relu": "of ReLU gates", "identity": "of linear attention"}
    return f"deep models {kind[spec['model']['feature_map']]}" if spec["deep"] else spec["data"]


TABLES: dict[str, tuple[str, Callable[[Iterable[Result]], Iterator[Row]]]] = {
    "trade_offs": ("response", _trade_offs),
    "impulses": ("impulses", _impulses),
    "random": ("random_predictions", _random),
    "sampled": ("sampled_response", _sampled),
    "worlds": ("predicted_worlds", _worlds),
    "tuned": ("tuned_prediction", _tuned),
}


def write_record(results: Path) -> None:
    """Write the rows of every simulation, and where they come from.

    Of simulations of which the store has no run the rows stay as they were.
    """
    names = [name for name, _ in TABLES.values()]
    stored = all_whole(results, [n for n in names if any(results.glob(f"{n}-*.nc"))] or names)
    FOLDER.mkdir(parents=True, exist_ok=True)
    known = FOLDER / "provenance.json"  # of tables that another store gave
    origins: dict[str, Any] = json.loads(known.read_text("utf-8")) if known.is_file() else {}
    for table, (simulation, rows_of) in TABLES.items():
        if simulation not in stored:
            continue
        runs = stored[simulation]
        held = sorted(rows_of(runs), key=lambda row: tuple(row.values())[:7])
        write_rows(FOLDER / f"{table}.csv", held, digits=6)
        origins[simulation] = origin(runs)
    write_json(FOLDER / "provenance.json", origins)


def rows(table: str) -> Rows:
    """Return the rows of a table of the record: numbers where they can be read as such."""
    path = FOLDER / f"{table}.csv"
    if not path.exists():
        return []
    return [{name: _value(text) for name, text in row.items()} for row in read_rows(path)]


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text


def column(held: Rows, name: str) -> Array:
    """Return a column as an array."""
    return np.array([row[name] for row in held])


def drift(row: Row) -> float:
    """The drift number s, rounded because E is."""
    return float(round(0.5 * row["local_lr"] * (row["local_steps"] - 1.0), 3))
