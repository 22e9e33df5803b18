"""Stored results in groups: everything but the seed is the same, so seeds give the spread."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from linattn._typing import Array
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
SAID = ("seed", "data", "split", "alpha", "deep", "initial.kernel", "initial.rank", *HETEROGENEITY)
"""Fields that are in the label by other words, or never."""


@dataclass(frozen=True)
class Group:
    """The runs of one setting, by seed.

    Attributes
    ----------
    label : str
        The setting in words, as ``target 1.5, covariate 0.3``.
    results : list of Result
        One per seed, or sorted by another field and then by seed.
    fields : mapping
        The spec without the seed, nested fields under dotted names.
    """

    label: str
    results: list[Result]
    fields: Mapping[str, Any]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.results)

    @property
    def heterogeneity(self) -> tuple[float, ...]:
        """Of targets, covariates and kernels; zero where the spec has no such field."""
        return tuple(float(self.fields.get(name, 0.0)) for name in HETEROGENEITY)

    @property
    def factored(self) -> bool:
        """Whether query and key weights are trained instead of the kernel."""
        return self.fields.get("initial.kernel") == "factored"

    @property
    def local_steps(self) -> list[int]:
        """The numbers of local steps E of every run."""
        return [int(steps) for steps in self.results[0].dataset["local_steps"].values]

    def coordinate(self, name: str) -> Array:
        """Return a coordinate that all seeds share, as `warmup` or `round`."""
        return np.asarray(self.results[0].dataset[name].values, dtype=float)

    def values(self, name: str, local_steps: int | None = None) -> Array:
        """Return a variable of all seeds, seed first, at one number of local steps or at all."""
        arrays = [np.asarray(result.dataset[name].values, dtype=float) for result in self.results]
        if local_steps is not None:
            place = self.local_steps.index(local_steps)
            arrays = [array[place] for array in arrays]
        return np.stack(arrays)

    def title(self, local_steps: int) -> str:
        """Name the setting at one number of local steps."""
        return f"{self.label}, E = {local_steps}"


def groups(results: Sequence[Result], *, along: str = "seed") -> list[Group]:
    """Group results by everything but the seed (and the field `along`), in words.

    Results of a group are sorted by `along`, then by seed; groups with merged kernels come first,
    synthetic ones before deep models and real data, each by heterogeneity.
    """
    found: dict[str, tuple[dict[str, Any], list[Result]]] = {}
    for result in sorted(results, key=lambda r: (spec_fields(r)[along], spec_fields(r)["seed"])):
        flat = {k: v for k, v in spec_fields(result).items() if k not in ("seed", along)}
        found.setdefault(json.dumps(flat, sort_keys=True), (flat, []))[1].append(result)
    every = [flat for flat, _ in found.values()]
    made = [Group(_label(flat, every, along), held, flat) for flat, held in found.values()]
    return sorted(made, key=lambda g: (_kind(g.fields), g.factored, g.heterogeneity, g.label))


def spec_fields(result: Result) -> dict[str, Any]:
    """Return the fields of the spec of a run, nested ones under dotted names."""
    return dict(_flat(result.spec))


def field(result: Result, name: str) -> Any:
    """Return a dotted field of the spec of a result."""
    return spec_fields(result)[name]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _kind(flat: Mapping[str, Any]) -> int:
    """Synthetic problems, deep models, real data."""
    return 2 if flat.get("data", "synthetic") != "synthetic" else int(bool(flat.get("deep")))


def _label(flat: Mapping[str, Any], every: Sequence[Mapping[str, Any]], along: str) -> str:
    """What a reader needs to tell a setting from the others."""
    base = _base(flat, along)
    alike = [other for other in every if _base(other, along) == base]
    names = {name for row in alike for name in row} - set(SAID)
    told = sorted(n for n in names if len({json.dumps(row.get(n)) for row in alike}) > 1)
    return ", ".join([base, *(f"{_word(name)} {_said(flat.get(name))}" for name in told)])


def _base(flat: Mapping[str, Any], along: str) -> str:
    """Data, parametrization and heterogeneity in words."""
    factored = ["factored"] if flat.get("initial.kernel") == "factored" else []
    data = flat.get("data", "synthetic")
    if data != "synthetic":
        split = flat.get("split", "dirichlet" if data == "digits" else "sides")
        words = f"Dirichlet {flat['alpha']:g}" if split == "dirichlet" else SPLITS.get(split, split)
        return ", ".join([str(data), words, *factored])
    levels = [
        f"{word} {flat[name]:g}"
        for name, word in HETEROGENEITY.items()
        if name in flat and name != along and (flat[name] or word in ALWAYS)
    ]
    deep = []
    if flat.get("deep"):
        kind = "ReLU" if flat["model.feature_map"] == "relu" else "linear"
        deep = [f"deep {kind} (L = {flat['model.num_layers']})"]
    return ", ".join([*deep, *factored, *levels]) or "all runs"


def _word(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ")


def _said(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return " ".join(map(_said, value))
    return "default" if value is None else str(value)
