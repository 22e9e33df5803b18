"""Every block of code on every page runs, and prints what the page says."""

import contextlib
import io
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from documentation.pages import ROOT, blocks, pages, same_output

from linattn.experiments.clusters import parse_scheduler

KINDS = {"python", "sh", "text", "toml", "powershell"}
EXTRAS = {"dask": ("distributed",), "frame": ("narwhals", "pandas")}
"""Words after the language for blocks that need an extra: they run where it is installed."""
FRESH = "fresh"
"""Blocks that make an environment run in one that is made for them (`.ci/run`)."""
ENVIRONMENT = {
    **os.environ,
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "PYTHONPATH": str(ROOT),
    "MPLBACKEND": "agg",
}


def shell(text, place):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=place, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    return done.stdout


def python(text, names, where):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, where, "exec"), names)
    return out.getvalue()


def lacking(argument):
    """Whether a block needs an extra that is not installed."""
    return any(find_spec(package) is None for package in EXTRAS.get(argument, ()))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of a reader who follows one page after the other."""
    return tmp_path_factory.mktemp("reader")


# The README's blocks run in test_readme.
@pytest.mark.parametrize("page", [p for p in pages() if blocks(p) and p != "README.md"])
def test_blocks_run(page, place, monkeypatch):
    monkeypatch.chdir(place)
    plt.switch_backend("agg")
    names = {"__name__": "__main__"}
    printed = ""
    for block in blocks(page):
        assert block.language in KINDS, f"{page}: {block.language!r} block"
        if block.argument == FRESH or lacking(block.argument):
            continue
        if block.language == "text":
            # What follows code is its output; formulas follow none.
            assert not printed or same_output(block.text, printed), f"{page} prints:\n{printed}"
        printed = ""
        if block.language in ("python", "toml") and "." in block.argument:
            (place / block.argument).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            printed = python(block.text, names, page)
        elif block.language == "sh":
            shell(block.text, place)
        if block.language == "toml":
            assert parse_scheduler(block.argument)
    plt.close("all")


def test_outputs_are_compared_as_a_reader_does():
    assert same_output("T* = 89 of R\nloss  1.2990", "T* = 89 of R loss 1.29904")
    assert same_output("floor 1e-40", "floor 3e-22")
    assert not same_output("loss 1.299", "loss 1.305")
    assert not same_output("holds", "violated")
