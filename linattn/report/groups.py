"""Stored results in groups: everything but the seed is the same, so seeds give the spread."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from linattn._typing import Array
from linattn.data.splits import DATASETS
from linattn.experiments.own import own_name
from linattn.experiments.store import Result
from linattn.report.words import number

HETEROGENEITY = {
    "problem.value_heterogeneity": "target",
    "problem.covariate_heterogeneity": "covariate",
    "problem.kernel_heterogeneity": "kernel",
}
ALWAYS = ("target", "covariate")
SPLITS = {
    "sheets": "form sheets",
    "iid": "IID",
    "sides": "one side tested",
    "subjects": "subjects left out",
}
SAID = (
    "seed",
    "num_starts",
    "data",
    "dataset",
    "split",
    "alpha",
    "deep",
    "initial.kernel",
    "initial.rank",
    *HETEROGENEITY,
)
"""Fields that are in the label by other words, or never."""
WORDS = {
    "initial.num_heads": "H = {}",
    "local_lr": "η = {}",
    "local_steps": "E = {}",
    "participation": "participation {}",
    "batch_size": "batch {}",
    "problem.num_clients": "C = {}",
    "problem.sequences_per_client": "S = {}",
    "rounds": "R = {}",
    "budget": "budget {}",
    "groups": "by {}",
}


@dataclass(frozen=True)
class Group:
    """The runs of one setting, by seed.

    Attributes
    ----------
    label : str
        The setting in words, as ``target 1.5, covariate 0.3``.
    results : list of Result
        Sorted by the fields that vary within the group, then by seed.
    fields : mapping
        What all of them share, nested fields under dotted names.
    """

    label: str
    results: list[Result]
    fields: Mapping[str, Any]

    @property
    def seeds(self) -> int:
        """Number of results, one per seed unless something else varies within the group."""
        return len(self.results)

    @property
    def heterogeneity(self) -> tuple[float, ...]:
        """Of targets, covariates and kernels; zero where the spec has no such field."""
        return tuple(float(self.fields.get(name, 0.0)) for name in HETEROGENEITY)

    @property
    def factored(self) -> bool:
        """Whether query and key weights are trained instead of the kernel."""
        return self.fields.get("initial.kernel") == "factored"

    def coordinate(self, name: str) -> Array:
        """Return a coordinate that all seeds share, as `warmup` or `round`."""
        return np.asarray(self.results[0].dataset[name].values, dtype=float)

    def names(self, name: str) -> list[str]:
        """Return a coordinate of names, as `method`."""
        return [str(entry) for entry in self.results[0].dataset[name].values]

    def values(self, name: str, **at: Any) -> Array:
        """Return a variable of all seeds, seed first; ``dim=value`` picks along a dimension.

        Results of several lengths are filled up with NaN.
        """
        arrays = [
            np.asarray((r.dataset[name].sel(at) if at else r.dataset[name]).values, dtype=float)
            for r in self.results
        ]
        shape = np.max([array.shape for array in arrays], axis=0)
        if any(array.shape != tuple(shape) for array in arrays):
            pads = [[(0, n - k) for n, k in zip(shape, a.shape, strict=True)] for a in arrays]
            arrays = [
                np.pad(a, p, constant_values=np.nan) for a, p in zip(arrays, pads, strict=True)
            ]
        return np.stack(arrays)

    def split(self, *names: str) -> list[Group]:
        """Return the parts that agree in some fields as well, in the order of their values."""
        parts = groups(self.results, split_by=names)
        return [replace(part, fields={**self.fields, **part.fields}) for part in parts]

    def only(self, keep: Callable[[Result], bool]) -> Group:
        """Return the group with some of its results, all of them if none would be left."""
        kept = [result for result in self.results if keep(result)]
        return Group(self.label, kept or self.results, self.fields)


def groups(
    results: Sequence[Result], *within: str, split_by: Sequence[str] | None = None
) -> list[Group]:
    """Group results by everything but the seed and the fields `within`, in words.

    Usual settings come before those that say what is special about them, merged kernels before
    factored ones, synthetic problems before deep models and real data, each by heterogeneity. What
    more than half of the settings of a world have in common is not said.

    Parameters
    ----------
    results : sequence of Result
    *within : str
        Dotted fields that may vary in a group.
    split_by : sequence of str, optional
        Group by these fields alone instead; they are the label, and the order.
    """

    def flat(result: Result) -> dict[str, Any]:
        fields = spec_fields(result)
        if split_by is not None:
            return {name: fields.get(name) for name in split_by}
        return {k: v for k, v in fields.items() if k != "seed" and k not in within}

    def order(result: Result) -> list[Any]:
        fields = spec_fields(result)
        return [fields[name] for name in (*within, "seed") if fields.get(name) is not None]

    found: dict[str, tuple[dict[str, Any], list[Result]]] = {}
    for result in sorted(results, key=order):
        key = json.dumps(flat(result), sort_keys=True)
        found.setdefault(key, (flat(result), []))[1].append(result)
    every = [fields for fields, _ in found.values()]
    if split_by is not None:
        parts = [Group(_told(split_by, f), held, f) for f, held in found.values()]
        return sorted(parts, key=lambda g: [g.fields[name] for name in split_by])
    made = [Group(_label(f, every, within), held, f) for f, held in found.values()]

    def rank(group: Group) -> tuple[Any, ...]:
        special = group.label != _base(group.fields, within)
        return (_kind(group.fields), special, group.factored, group.heterogeneity, group.label)

    return sorted(made, key=rank)


def spec_fields(result: Result) -> dict[str, Any]:
    """Return the fields of the spec of a run, nested ones under dotted names."""
    return dotted(result.spec)


def field(result: Result, name: str) -> Any:
    """Return a dotted field of the spec of a result."""
    return spec_fields(result)[name]


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the entries of nested mappings under dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= dotted(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _kind(flat: Mapping[str, Any]) -> int:
    """Synthetic problems, deep models, real data."""
    return 2 if flat.get("data", "synthetic") != "synthetic" else int(bool(flat.get("deep")))


def _label(
    flat: Mapping[str, Any], every: Sequence[Mapping[str, Any]], within: Sequence[str]
) -> str:
    """What a reader needs to tell a setting from the others."""
    base = _base(flat, within)
    alike = [other for other in every if _base(other, within) == base]
    names = {name for row in alike for name in row} - set(SAID)
    told = sorted(n for n in names if not _usual(n, flat, alike))
    return ", ".join([base, *([_told(told, flat)] if told else [])])


def _usual(name: str, flat: Mapping[str, Any], alike: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a setting has the value that more than half of those like it have."""
    value = json.dumps(flat.get(name))
    return 2 * sum(json.dumps(row.get(name)) == value for row in alike) > len(alike)


def _told(names: Sequence[str], flat: Mapping[str, Any]) -> str:
    words = (WORDS.get(n) or n.rpartition(".")[2].replace("_", " ") + " {}" for n in names)
    return ", ".join(w.format(_said(flat.get(n))) for w, n in zip(words, names, strict=True))


def _base(flat: Mapping[str, Any], within: Sequence[str]) -> str:
    """Data, parametrization and heterogeneity in words."""
    factored = ["factored"] if flat.get("initial.kernel") == "factored" else []
    data = flat.get("data", "synthetic")
    if data != "synthetic":
        split = flat.get("split") or DATASETS[data].usual
        words = f"Dirichlet {flat['alpha']:g}" if split == "dirichlet" else SPLITS.get(split, split)
        return ", ".join([own_name(flat.get("dataset") or data), words, *factored])
    levels = [
        f"{word} {flat[name]:g}"
        for name, word in HETEROGENEITY.items()
        if name in flat and name not in within and (flat[name] or word in ALWAYS)
    ]
    deep = []
    if flat.get("deep"):
        kind = "ReLU" if flat["model.feature_map"] == "relu" else "linear"
        deep = [f"deep {kind} L = {flat['model.num_layers']}"]
    return ", ".join([*deep, *factored, *levels]) or "all runs"


def _said(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return " ".join(map(_said, value))
    return "default" if value is None else str(value)
