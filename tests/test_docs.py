"""The documentation's code runs, and its statements hold."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("docs/own_method.md", "README.md")


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    assert blocks, f"{page} has no python block"
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
