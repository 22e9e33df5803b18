"""Every block of code on every page runs, and prints what the page says."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from documentation.pages import ROOT, blocks, pages, same_output

KINDS = {"python", "sh", "text", "powershell"}
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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of a reader who follows one page after the other."""
    return tmp_path_factory.mktemp("reader")


@pytest.mark.parametrize("page", [p for p in pages() if blocks(p)])
def test_blocks_run(page, place, monkeypatch):
    monkeypatch.chdir(place)
    plt.switch_backend("agg")
    names = {"__name__": "__main__"}
    printed = ""
    for block in blocks(page):
        assert block.language in KINDS, f"{page}: {block.language!r} block"
        if block.language == "text":
            # What follows code is its output; formulas follow none.
            assert not printed or same_output(block.text, printed), f"{page} prints:\n{printed}"
            printed = ""
        elif block.language == "python" and block.argument:
            (place / block.argument).write_text(block.text, encoding="utf-8")
            printed = ""
        elif block.language == "python":
            printed = python(block.text, names, page)
        elif block.language == "sh" and block.argument != FRESH:
            shell(block.text, place)
            printed = ""
    plt.close("all")


def test_outputs_are_compared_as_a_reader_does():
    assert same_output("T* = 89 of R\nloss  1.2990", "T* = 89 of R loss 1.29904")
    assert same_output("floor 1e-40", "floor 3e-22")
    assert not same_output("loss 1.299", "loss 1.305")
    assert not same_output("holds", "violated")
