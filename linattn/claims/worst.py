"""The tightest instance of every bound, written down as the point that a search found."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import asdict
from pathlib import Path

from linattn.claims.adversary import Found


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
