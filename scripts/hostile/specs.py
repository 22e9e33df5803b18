"""Specs at random: a task that can be read back, or one sentence; small ones are computed."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import inspect

from hostile import Tally, described, is_sentence
from hostile.calls import HangError, limited
from linattn.experiments.find import load_simulations
from linattn.experiments.simulation import Simulation, Task
from linattn.experiments.store import encode
from linattn.experiments.validation import dotted_fields
from linattn.experiments.worker import compute

SECONDS = 4
CHEAP = 3e4
"""Gradient steps of a run that is computed, not only named."""
EVERY = 20
JUNK: tuple[Any, ...] = (
    None, True, "", "x", -1, 0, 0.5, 1e308, 5e-324, math.nan, math.inf, -0.0, 10**30, [], [[]],
    {}, {"a": 1}, "1", [1, "x"], "../x", "\ud800", "ρ", 2**63, -(2**63),
)  # fmt: skip
NUMBERS = (1, 2, 3, 5, 8, 0.1, 0.25, 0.5, 1.0, 1.5, 4.0, 0.02, 1e-3, 1e3)


def run(seed: int, count: int, folder: Path) -> Tally:
    """Change some fields of the smallest preset of a simulation, so many times."""
    draw, simulations = random.Random(seed), load_simulations()
    tally = Tally("specs", Counter(), [])
    for number in range(count):
        held = draw.choice(simulations)
        changes = _changes(held, draw)
        tally.counts["specs"] += 1
        try:
            with limited(SECONDS):
                tasks = held.tasks(_smallest(held), changes)
        except ValueError as error:
            tally.counts["sentence"] += 1
            if not is_sentence(error):
                tally.faults.append(f"{held.name} {changes}: {described(error)}")
            continue
        except Exception as error:
            tally.faults.append(f"{held.name} {changes}: {described(error)}")
            continue
        tally.counts["task"] += 1
        task = draw.choice(tasks)
        fault = _read_back(held, task)
        if not fault and task.cost <= CHEAP and number % EVERY == 0:
            how, fault = _computed(held, task)
            tally.counts[how] += 1
        if fault:
            tally.faults.append(f"{held.name} {changes}: {fault}")
    return tally


def _smallest(held: Simulation[Any]) -> str:
    return "tiny" if "tiny" in held.presets else next(iter(held.presets))


def _changes(held: Simulation[Any], draw: random.Random) -> dict[str, Any]:
    """One to three fields with values that they may take, or hardly may."""
    fields = dotted_fields(held.spec)
    names = draw.sample(sorted(fields), min(draw.randint(1, 3), len(fields)))
    return {name: _value(fields[name], draw) for name in names}


def _value(kind: inspect.Type, draw: random.Random) -> Any:
    if draw.random() < 0.3:
        return draw.choice(JUNK)
    if isinstance(kind, inspect.LiteralType):
        return draw.choice(kind.values)
    if isinstance(kind, inspect.UnionType):
        return _value(draw.choice(kind.types), draw)
    if isinstance(kind, inspect.VarTupleType):
        return [_value(kind.item_type, draw) for _ in range(draw.randint(0, 3))]
    if isinstance(kind, inspect.BoolType):
        return draw.random() < 0.5
    return draw.choice(NUMBERS)


def _read_back(held: Simulation[Any], task: Task) -> str:
    """What is wrong with a task: its text must give itself again."""
    again = held.task(held.spec_from(json.loads(task.spec)))
    if again != task:
        return f"{task.spec} becomes {again.spec}"
    return "" if math.isfinite(task.cost) else f"cost {task.cost}"


def _computed(held: Simulation[Any], task: Task) -> tuple[str, str]:
    """Compute a run within some seconds: it can be stored, or says in one sentence why not."""
    try:
        with limited(SECONDS), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            encode(task, held, compute(held, task))
    except HangError:
        return "not waited for", ""
    except (ValueError, FloatingPointError) as error:
        return "refused", "" if is_sentence(error) or _own(error) else described(error)
    except Exception as error:
        return "fault", described(error)
    return "computed", ""


def _own(error: BaseException) -> bool:
    """Whether a simulation of the repository raised it, in one sentence."""
    return str(error).endswith(".") and "\n" not in str(error)
