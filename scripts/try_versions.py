"""Run the tests with the oldest dependencies that are declared, and with the newest there are.

Every combination gets a virtual environment of its own, without `constraints.txt`. Interpreters
that are not here are left out, and said to be. Oldest means the lower bound of every requirement
of `pyproject.toml`; Python 3.11 is the only one for which all of them exist.

    python scripts/try_versions.py --record docs/record/versions.json
    python scripts/try_versions.py --only newest-3.13 -- tests/federated tests/theory

What follows `--` goes to pytest. Exit status 1 if a combination fails.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COMBINATIONS = ("oldest-3.11", "newest-3.11", "newest-3.12", "newest-3.13")
EXTRA = "test"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")


def lower_bounds(requirements: Iterable[str]) -> dict[str, str]:
    """The oldest version that every requirement allows.

    Raises
    ------
    ValueError
        If one states no lower bound.
    """
    found = {}
    for text in requirements:
        match = _REQUIREMENT.fullmatch(text)
        if match is None:
            raise ValueError(f"requirements must be NAME>=VERSION, got {text!r}.")
        found[match[1]] = match[2]
    return found


def declared() -> list[str]:
    """What the package and its tests require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"][EXTRA]]


def interpreter(version: str) -> str | None:
    """A Python of this version: on the path, or one that pyenv keeps."""
    found = shutil.which(f"python{version}")
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for candidate in [*([found] if found else []), *map(str, kept)]:
        asked = subprocess.run([candidate, "-c", "import venv, ssl"], capture_output=True)
        if asked.returncode == 0:
            return candidate
    return None


def attempt(name: str, place: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Make the environment of a combination, run the tests in it, and say how they ended."""
    age, _, version = name.partition("-")
    python = interpreter(version)
    if python is None:
        return {"combination": name, "outcome": f"no Python {version} here"}
    subprocess.run([python, "-m", "venv", place], check=True)
    own = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [own, "-m", "pip", "-qq", "--disable-pip-version-check"]
    pins = place / "pins.txt"
    bounds = lower_bounds(declared()) if age == "oldest" else {}
    pins.write_text("".join(f"{key}=={value}\n" for key, value in bounds.items()))
    made = subprocess.run([*pip, "install", "-c", pins, "-e", f"{ROOT}[{EXTRA}]"], check=False)
    if made.returncode:
        return {"combination": name, "outcome": "cannot be installed"}
    command = [own, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, check=False)
    frozen = subprocess.run([*pip, "freeze", "--exclude-editable"], capture_output=True, text=True)
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    summary = re.findall(r"\d+ (?:passed|failed|skipped|errors?)", done.stdout)
    return {
        "combination": name,
        "outcome": "passed" if done.returncode == 0 else f"exit status {done.returncode}",
        "tests": ", ".join(summary),
        "failed": failed,
        "versions": frozen.stdout.split(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the combinations; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=COMBINATIONS)
    parser.add_argument("--record", type=Path, help="JSON file for outcomes and versions")
    parser.add_argument("tests", nargs="*", help="for pytest; default all")
    options = parser.parse_args(arguments)
    found = []
    for name in options.only or COMBINATIONS:
        with tempfile.TemporaryDirectory() as place:
            found.append(attempt(name, Path(place), options.tests))
        print(name, found[-1]["outcome"], found[-1].get("tests", ""), flush=True)
        for line in found[-1].get("failed", []):
            print(f"  {line}", flush=True)
    if options.record:
        text = json.dumps({"tests": options.tests or ["all"], "combinations": found}, indent=1)
        options.record.write_text(text + "\n", encoding="utf-8")
    ended = {entry["outcome"] for entry in found if not entry["outcome"].startswith("no Python")}
    return int(ended != {"passed"})


if __name__ == "__main__":
    sys.exit(main())
