"""The tightest instance of every bound, written down as the point that a search found."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from linattn.claims.adversary import FORBIDDEN, Part, decode
from linattn.claims.record import Instance

RARE = 1e-3
"""Share of random instances that a search must beat."""


@dataclass(frozen=True)
class Found:
    """The tightest instance that searches found.

    Attributes
    ----------
    claim : str
    factored : bool
    vector : tuple of float
        The point of the box that `linattn.claims.adversary.decode` makes the instance of.
    tightness : float
        bound/measured (upper) or measured/bound (lower), 1 is tight.
    random_quantile : float
        The tightness that one in a thousand random instances reaches.
    evaluations : int
    optimizer : str
        Which one found it, or "random search".
    """

    claim: str
    factored: bool
    vector: tuple[float, ...]
    tightness: float
    random_quantile: float
    evaluations: int
    optimizer: str

    @property
    def instance(self) -> Instance:
        """The instance."""
        return decode(np.array(self.vector), factored=self.factored)

    def __repr__(self) -> str:
        return (
            f"Found({self.claim}: tightness {self.tightness:.6g} by {self.optimizer} in "
            f"{self.evaluations} evaluations; random search {self.random_quantile:.6g} at 99.9 %)"
        )


def joined(claim: str, factored: bool, parts: Mapping[str, Sequence[Part]]) -> Found:
    """Return the best of all parts, by optimizer.

    Raises
    ------
    ValueError
        If nothing usable was found.
    """
    every = [(name, part) for name, found in parts.items() for part in found]
    count = sum(part.evaluations for _, part in every)
    name, best = min(every, key=lambda pair: pair[1].value)
    if best.value >= FORBIDDEN:
        raise ValueError(f"claim {claim} was not judged on any of {count} instances tried.")
    random = np.concatenate([part.random for _, part in every])
    rare = float(np.exp(np.quantile(random, RARE))) if random.size else float("inf")
    return Found(
        claim,
        factored,
        tuple(best.vector.tolist()),
        float(np.exp(best.value)),
        rare,
        count,
        "random search" if best.at_random else name,
    )


def file_name(claim: str) -> str:
    """Return the name of a claim's file: its ASCII letters and digits, joined by underscores."""
    plain = unicodedata.normalize("NFKD", claim.replace("–", " ")).encode("ascii", "ignore")
    return "_".join(re.findall(r"\w+", plain.decode().lower())) + ".json"


def write_found(folder: Path, found: Found) -> Path:
    """Write what a search found, a line per field; return the file.

    Floats are written so that they are read back exactly.
    """
    lines = [f'"{name}": {json.dumps(value, ensure_ascii=False)}'
             for name, value in asdict(found).items()]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(found.claim)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return path


def read_found(path: Path) -> Found:
    """Return what `write_found` wrote."""
    held = json.loads(path.read_text(encoding="utf-8"))
    return Found(**(held | {"vector": tuple(held["vector"])}))
