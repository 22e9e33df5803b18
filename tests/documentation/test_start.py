"""The start page word by word, from a fresh copy and a fresh environment, for `.ci/run`."""

import os
import shutil
import subprocess

import pytest
from documentation.pages import ROOT, blocks

LEFT = (".git", ".venv", "build", "dist", "results", "__pycache__", ".*_cache", ".hypothesis")


@pytest.mark.skipif("LINATTN_FRESH" not in os.environ, reason="LINATTN_FRESH is not set: slow")
@pytest.mark.parametrize("page", ["docs/start.md"])
def test_page_word_by_word(page, tmp_path):
    clone = tmp_path / "linattn"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(*LEFT))
    words, code, shown = ["set -euo pipefail"], "", []
    for block in blocks(page):
        if block.language == "sh":
            words.append(block.text)
        elif block.language == "python":
            code += block.text
            # As somebody who pastes block after block into one session.
            (clone / "pasted.py").write_text(code, encoding="utf-8")
        elif block.language == "text":
            shown.append(block.text.splitlines()[0])
    words.append("MPLBACKEND=agg python pasted.py")
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["bash", "-c", "\n".join(words)],
        cwd=clone, env=kept, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (picture, page) = (clone / name for name in ("answer.png", "results/report.html"))
    assert picture.stat().st_size > 10_000
    assert "bounds" in page.read_text(encoding="utf-8")
    assert shown[0].startswith("best warm-up")
    assert [line for line in shown if line not in done.stdout] == []
