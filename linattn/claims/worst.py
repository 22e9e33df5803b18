"""Instances written down: the tightest one of every bound, to be replayed."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from linattn.claims.adversary import Found
from linattn.claims.record import Instance
from linattn.types import Params, Problem, Statistics

SETTINGS = ("rounds", "local_steps", "local_lr", "batch_size", "participation", "seed")


def file_name(claim: str) -> str:
    """Return the name of a claim's file: its ASCII letters and digits, joined by underscores."""
    plain = unicodedata.normalize("NFKD", claim.replace("–", " ")).encode("ascii", "ignore")
    return "_".join(re.findall(r"\w+", plain.decode().lower())) + ".json"


def write_found(folder: Path, found: Found) -> Path:
    """Write what a search found; return the file.

    Notes
    -----
    Source: none; a service. Floats are written so that they are read back exactly.
    """
    record = {
        "claim": found.claim,
        "tightness": found.tightness,
        "random_quantile": found.random_quantile,
        "evaluations": found.evaluations,
        "optimizer": found.optimizer,
        "instance": _instance_record(found.instance),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(found.claim)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_found(path: Path) -> Found:
    """Return what `write_found` wrote.

    Notes
    -----
    Source: none; a service.
    """
    held = json.loads(path.read_text(encoding="utf-8"))
    instance = _instance(held.pop("instance"))
    return Found(instance=instance, **held)


def _instance_record(instance: Instance) -> dict[str, Any]:
    problem, params = instance.problem, instance.params
    statistics = {
        name: None if array is None else array.tolist()
        for name, array in problem.statistics._asdict().items()
    }
    return {
        "statistics": statistics,
        "offsets": problem.offsets.tolist(),
        "weights": problem.weights.tolist(),
        "value_ridge": problem.value_ridge,
        "kernel_ridge": problem.kernel_ridge,
        "readout": problem.readout,
        "params": {name: params[name].tolist() for name in params.layout.names},
        **{name: getattr(instance, name) for name in SETTINGS},
    }


def _instance(held: dict[str, Any]) -> Instance:
    arrays: dict[str, Any] = {
        name: None if value is None else np.array(value, dtype=np.float64)
        for name, value in held["statistics"].items()
    }
    problem = Problem(
        Statistics(**arrays),
        np.array(held["offsets"], dtype=np.int64),
        np.array(held["weights"], dtype=np.float64),
        held["value_ridge"],
        held["kernel_ridge"],
        held["readout"],
    )
    blocks = {name: np.array(value) for name, value in held["params"].items()}
    build = Params.factored if "query" in blocks else Params.merged
    params = build(**blocks)
    return Instance(problem, params, **{name: held[name] for name in SETTINGS})
