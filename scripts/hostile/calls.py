"""Calls of the public API with one bad argument: an answer, or one sentence of our own."""

from __future__ import annotations

import math
import random
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import linattn as la
from hostile import Tally, described, is_sentence

SECONDS = 5
"""After so long a call hangs."""
ALLOWED = (ValueError, TypeError, FileNotFoundError, FloatingPointError)
ENDLESS = ("10**24", "1e308")
"""What may take for ever, because it was asked to."""


class Call(NamedTuple):
    """A call that works, of which arguments are then exchanged."""

    function: Callable[..., Any]
    arguments: dict[str, Any]

    def __call__(self, **changed: Any) -> Any:
        return self.function(**(self.arguments | changed))


def good_calls(folder: Path) -> dict[str, Call]:
    """Every public function with arguments that are fine, and quick."""
    problem = la.synthetic_problem(**SIZES)
    params = la.initial_params(problem, num_heads=1, scale=0.7, value="normal")
    tokens = [
        (
            np.random.default_rng(i).normal(size=(3, 4, 2)),
            np.random.default_rng(i).normal(size=(3, 4, 1)),
        )
        for i in range(2)
    ]
    gated = la.DeepAttention(num_layers=1, dim=2, inner_dim=2, num_outputs=1, feature_map="relu")
    at = {"problem": problem, "params": params}
    run = at | {"rounds": 2, "local_steps": 2, "local_lr": 0.05}
    seen = np.random.default_rng(0).normal(size=(3, 4, 2))
    la.save_dataset(folder / "data.npz", **DATA)
    made = {
        "synthetic_problem": SIZES,
        "initial_params": {"problem": problem, "num_heads": 1, "kernel": "merged", "rank": None,
                           "scale": 1.0, "value": "zeros", "seed": 0},
        "problem_from_tokens": {"clients": tokens, "value_ridge": 0.1, "kernel_ridge": 0.1,
                                "readout": "token", "weights": None},
        "run": run | {"method": la.fed_avg(), "batch_size": 2, "participation": 1.0,
                      "sampling": "uniform", "stragglers": 0.0, "seed": 0, "record_params": True,
                      "metrics": ["objective"], "evaluate": None, "evaluate_clients": None,
                      "start_round": 0, "memory": None},
        "frozen_stage": at | {"local_steps": 2, "local_lr": 0.05, "frozen_lr": None,
                              "normalized": False},
        "scaffold_stage": at | {"local_steps": 2, "local_lr": 0.05, "frozen_lr": None,
                                "server_lr": 1.0, "option": 2},
        "frozen_moments": at | {"local_steps": 2, "local_lr": 0.05, "participation": 0.5,
                                "batch_size": 2, "frozen_lr": None, "sampling": "uniform",
                                "stragglers": 0.0},
        "bias_drift": run | {"warmup_lengths": [0, 1], "participation": 1.0, "batch_size": None,
                             "seed": 0, "frozen_lr": None, "reference": 1.0},
        "descent_certificate": run | {"batch_size": None, "participation": 1.0, "seed": 0,
                                      "method": la.fed_avg()},
        "assess": run | {"num_starts": 1},
        "check": {"claim": "C7", **run, "seed": 0},
        "describe": at | {"local_lr": 0.05, "local_steps": 2},
        "reference_value": {"problem": problem, "like": params, "num_starts": 1, "seed": 0},
        "safe_step": at,
        "pool": {"problem": problem},
        "euler_identity": at,
        "change_gauge": {"params": params, "change": np.eye(1)},
        "aggregation_mismatch": {"problem": problem, "models": [params, params],
                                 "weights": np.array([0.5, 0.5])},
        "synchronized_control": run | {"warmup_lengths": [0, 1]},
        "drift_impulse": at | {"local_steps": 2, "local_lr": 0.05},
        "predict_run": run | {"tolerance": 0.1, "passes": None, "max_impulses": None},
        "predict_trade_off": run | {"warmup_lengths": [0, 1], "tolerance": 0.1, "reference": 1.0},
        "study": at | {"methods": ["fed_avg"], "local_lrs": [0.05], "local_steps": 2, "rounds": 2,
                       "warmup_lengths": [0, 1], "participation": 1.0, "batch_size": None,
                       "seeds": [0], "workers": 1, "time_budget": None},
        "predict": {"params": params, "tokens": seen, "readout": "token"},
        "loss": {"params": params, "tokens": seen, "targets": np.ones((3, 4, 1)),
                 "readout": "token"},
        "accuracy": {"params": params, "tokens": seen, "labels": np.zeros((3, 4), int),
                     "readout": "token"},
        "in_context_problem": {"num_clients": 2, "sequences_per_client": 2, "context_length": 3,
                               "dim": 2, "value_ridge": 0.1, "kernel_ridge": 0.1, "noise": 0.1,
                               "covariance_heterogeneity": 0.1, "seed": 0},
        "in_context_optimum": {"covariances": np.stack([np.eye(2)] * 2), "context_length": 3,
                               "noise": 0.1, "weights": "equal", "value_ridge": 0.0},
        "partition": {"labels": np.arange(20) % 3, "scheme": "dirichlet", "num_clients": 3,
                      "alpha": 1.0, "seed": 0},
        "load_dataset": {"name_or_path": str(folder / "data.npz")},
        "save_dataset": {"path": folder / "other.npz", **DATA},
        "load_results": {"store": str(folder), "name": None, "preset": None, "where": None},
        "solve_selection": {"scores": np.ones((2, 2)), "budgets": np.array([1, 1]),
                            "consistency": 0.0},
        "fed_avg": {"server_momentum": 0.5, "server_lr": 1.0},
        "fed_prox": {"prox": 0.1},
        "fed_adam": {"server_lr": 0.1, "beta1": 0.9, "beta2": 0.9, "tau": 0.1},
        "fed_yogi": {"server_lr": 0.1, "beta1": 0.9, "beta2": 0.9, "tau": 0.1},
        "fed_nova": {"server_lr": 1.0},
        "fed_part": {"groups": "block", "initial_rounds": 1, "rounds_per_group": 1},
        "fed_part_cost": {"backward_fraction": 0.5, "num_groups": 2},
        "fed_frozen": {"warmup_rounds": 1, "frozen": "fed_avg", "freeze": "kernel",
                       "frozen_lr": None, "frozen_participation": None},
        "fed_sq": {"structural": gated.initial_params(seed=0)},
        "fed_tp": {"hypernetwork": "linear", "embedding_dim": 2, "blocks": ["kernel"],
                   "server_lr": 1.0},
        "fine_tuned": {"steps": 2, "local_lr": None},
        "local_attention": {"blocks": ["kernel"]},
        "moon": {"weight": 0.1, "temperature": 0.5},
        "scaffold": {"server_lr": 1.0, "option": 2},
        "selective": {"budget": 1, "consistency": 0.0, "scores": "gradient", "always": ["readout"]},
        "freeze_rule": {"name": "profile"},
        "DeepAttention": {"num_layers": 1, "dim": 2, "inner_dim": 2, "num_outputs": 1,
                          "num_heads": 1, "feature_map": "relu", "residual": False,
                          "readout": "token"},
        "Layout": {"blocks": (("kernel", (1, 2, 2)), ("value", (1, 2, 1)))},
        "Joint": {"problem": problem},
        "KernelProfile": {"problem": problem},
        "ValueBlock": at,
    }  # fmt: skip
    calls = {name: Call(getattr(la, name), arguments) for name, arguments in made.items()}
    merged = {"kernel": params.kernel, "value": params.value}
    calls["Params.merged"] = Call(la.Params.merged, merged)
    factored = {"query": np.ones((2, 1)), "key": np.ones((2, 1)), "value": np.ones((2, 1))}
    calls["Params.factored"] = Call(la.Params.factored, factored)
    calls["Params.load"] = Call(la.Params.load, {"path": folder / "params.npz"})
    params.save(folder / "params.npz")
    return calls


SIZES = {"num_clients": 2, "sequences_per_client": 3, "num_tokens": 4, "dim": 2, "num_outputs": 1,
         "value_ridge": 0.1, "kernel_ridge": 0.1, "num_heads": 1, "value_heterogeneity": 0.5,
         "covariate_heterogeneity": 0.2, "kernel_heterogeneity": 0.0, "noise": 0.1,
         "shared_tokens": False, "readout": "token", "weights": None, "seed": 0}  # fmt: skip
DATA = {"items": [np.ones((2, 2)), np.zeros((3, 2))], "labels": [0, 1], "class_names": ["a", "b"],
        "channel_names": ["x", "y"]}  # fmt: skip


def bad_values() -> dict[str, Any]:
    """Values that hardly any argument takes, by name."""
    wide = la.synthetic_problem(**(SIZES | {"dim": 3}))
    deep = la.DeepAttention(num_layers=1, dim=2, inner_dim=2, num_outputs=1)
    layout = la.Layout((("value", (1, 2, 1)), ("kernel", (1, 2, 2))))
    return {
        "None": None, "True": True, "0": 0, "-1": -1, "1.5": 1.5, "nan": math.nan, "inf": math.inf,
        "-inf": -math.inf, "1e308": 1e308, "5e-324": 5e-324, "10**24": 10**24, "1j": 1j,
        "''": "", "'x'": "x", "b'x'": b"x", "[]": [], "[1]": [1], "[[1], [1, 2]]": [[1], [1, 2]],
        "['x']": ["x"], "{}": {}, "{'a': 1}": {"a": 1}, "()": (), "{1}": {1}, "object()": object(),
        "range(3)": range(3), "iter([])": iter([]), "slice": slice(3), "Ellipsis": ...,
        "la.fed_avg": la.fed_avg, "la.fed_avg()": la.fed_avg(), "lambda": lambda *a, **k: None,
        "la.Params": la.Params, "print": print, "Exception()": Exception("x"), "la": la,
        "zeros(0)": np.zeros(0), "zeros(3)": np.zeros(3), "ones((2, 2))": np.ones((2, 2)),
        "ones((1, 2, 2))": np.ones((1, 2, 2)), "nans": np.full((1, 2, 2), np.nan),
        "float32": np.ones((1, 2, 2), np.float32), "complex": np.ones((2, 2), complex),
        "texts": np.array(["a", "b"]), "objects": np.array([None, 1], object),
        "masked": np.ma.masked_array(np.ones((1, 2, 2)), np.ones((1, 2, 2), bool)),
        "0-d": np.array(1.0), "np.int8": np.int8(1), "np.float16": np.float16(1),
        "datetime64": np.datetime64("2020-01-01"), "Path": Path("/nonexistent/x"),
        "other problem": wide, "other params": la.initial_params(wide),
        "deep model": deep, "deep params": deep.initial_params(seed=0),
        "swapped params": la.Params(layout, np.zeros(6)),
        "value only": la.Params(la.Layout((("value", (1, 2, 1)),)), np.zeros(2)),
        "huge params": la.Params.merged(np.full((2, 2), 1e300), np.full((2, 1), 1e300)),
        "big": np.ones((40, 40)),
    }  # fmt: skip


def judge(call: Call, argument: str, value: Any) -> tuple[str, str]:
    """How a call ends: ("answer" | "sentence" | "fault", why it is a fault)."""
    try:
        with limited(SECONDS), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            call(**{argument: value})
    except ALLOWED as error:
        own = callable(value) and str(error).startswith(f"{getattr(value, '__name__', '')}() ")
        return ("sentence", "") if own or is_sentence(error) else ("fault", described(error))
    except Exception as error:
        return "fault", described(error)
    return "answer", ""


class HangError(Exception):
    """A call took too long."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise HangError after some seconds, where there are alarms."""

    def hang(number: int, frame: object) -> None:
        raise HangError(f"no answer in {seconds} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(seed: int, count: int, folder: Path) -> Tally:
    """Judge so many calls, drawn without replacement from all there are."""
    calls, values = good_calls(folder), bad_values()
    for call in calls.values():
        call()  # or the campaign itself is wrong
    every = [(n, a, v) for n, call in calls.items() for a in call.arguments for v in values]
    drawn = random.Random(seed).sample(every, min(count, len(every)))
    counts: Counter[str] = Counter()
    faults = []
    for name, argument, value in drawn:
        how, why = judge(calls[name], argument, values[value])
        if why.startswith("HangError") and value in ENDLESS:
            how = "endless"
        counts[how] += 1
        if how == "fault":
            faults.append(f"{name}({argument}={value}): {why}")
    return Tally("calls", counts, faults)
