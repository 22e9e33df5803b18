"""Stored runs of the method simulations by world, and what a caption may say about a claim."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from linattn._typing import Array
from linattn.experiments.store import Result
from linattn.report.regimes import Regime, spec_fields, varying

T = TypeVar("T")
LEVELS = (
    ("problem.value_heterogeneity", "target"),
    ("problem.covariate_heterogeneity", "covariate"),
    ("problem.kernel_heterogeneity", "kernel"),
)
SHARE = 0.9
"""Share of seeds in which a claim must hold, the upper end of the bands."""
NOT_SHOWN = ("kind", "seed", "data", "alpha", "deep", "initial.kernel", "initial.rank")


def worlds(results: Sequence[Result], *, along: str = "seed") -> list[Regime]:
    """Group results by everything but the seed (and the field `along`), in words.

    Results of a world are sorted by `along`, then by seed.
    """
    groups: dict[str, list[Result]] = {}
    fields: dict[str, dict[str, Any]] = {}
    for result in sorted(results, key=lambda r: (spec_fields(r)[along], spec_fields(r)["seed"])):
        flat = {k: v for k, v in spec_fields(result).items() if k not in ("seed", along)}
        text = json.dumps(flat, sort_keys=True)
        groups.setdefault(text, []).append(result)
        fields[text] = flat
    shown = [k for k in varying(list(fields.values())) if k not in NOT_SHOWN]
    found = []
    for text, flat in fields.items():
        label = _label(flat, along)
        alike = [other for other in fields.values() if _label(other, along) == label]
        told = [k for k in shown if len({json.dumps(o.get(k)) for o in alike}) > 1]
        words = [label, *(f"{_word(k)} {flat[k]}" for k in told if not k.startswith("problem.val"))]
        levels = tuple(float(flat.get(name, 0.0)) for name, _ in LEVELS)
        factored = flat.get("initial.kernel") == "factored"
        found.append(Regime(", ".join(words), groups[text], levels, factored))
    return sorted(
        found, key=lambda r: (r.factored, r.label.startswith(("deep", "digits", "watch")))
    )


def field(result: Result, name: str) -> Any:
    """Return a dotted field of the spec of a result."""
    return spec_fields(result)[name]


def pages(found: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Return the items in runs of at most `size`."""
    for first in range(0, len(found), size):
        yield found[first : first + size]


def page_name(name: str, number: int) -> str:
    """Stem of the files of page `number`, counted from 0."""
    return name if number == 0 else f"{name}_{number + 1}"


def reproduced(hits: Sequence[bool], what: str = "world") -> str:
    """Say whether a claim was reproduced, from one truth value per case.

    Examples
    --------
    >>> reproduced([True, True]), reproduced([False]), reproduced([True, False], "setting")
    ('reproduced in both worlds', 'not reproduced', 'reproduced in 1 of 2 settings')
    """
    yes, count = sum(map(bool, hits)), len(hits)
    if not count:
        return "not tested"
    if yes == 0:
        return "not reproduced" + ("" if count == 1 else f" in any of {count} {what}s")
    if yes < count:
        return f"reproduced in {yes} of {count} {what}s"
    ends = {1: "", 2: f" in both {what}s"}
    return "reproduced" + ends.get(count, f" in all {count} {what}s")


def mostly(seeds: ArrayLike) -> bool:
    """Whether something is true in at least nine of ten seeds.

    Examples
    --------
    >>> mostly([True] * 9 + [False]), mostly([True, False])
    (True, False)
    """
    return bool(np.mean(np.asarray(seeds, dtype=bool)) >= SHARE - 1e-12)


def last_known(values: Array) -> Array:
    """Values whose NaN (diverged, never reached) count as +inf, worse than anything."""
    return np.where(np.isnan(values), np.inf, values)


def _word(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ")


def _label(flat: Mapping[str, Any], along: str) -> str:
    """The data of a world in words."""
    if flat["data"] == "digits":
        return f"digits, Dirichlet {flat['alpha']:g}"
    if flat["data"] == "watch":
        return "watch, one side tested"
    shown = [
        f"{word} {flat[name]:g}"
        for name, word in LEVELS
        if name != along and (flat[name] or word != "kernel")
    ]
    if flat["deep"]:
        kind = "ReLU" if flat["model.feature_map"] == "relu" else "linear"
        return ", ".join([f"deep {kind} (L = {flat['model.num_layers']})", *shown])
    factored = ["factored"] if flat["initial.kernel"] == "factored" else []
    return ", ".join(["synthetic", *factored, *shown])
