"""Parts of pages that scripts make: between ``<!-- NAME -->`` and ``<!-- end of NAME -->``."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kept import NotWhole

from linattn.experiments.files import write_atomically

ROOT = Path(__file__).resolve().parents[1]
NOTES = ROOT / "paper_notes.md"
RECORD = ROOT / "docs" / "record"


def told(name: str, page: Path = NOTES) -> str:
    """Return what stands in a part."""
    (found,) = _part(name).findall(page.read_text(encoding="utf-8"))
    return str(found)


def tell(name: str, words: str, page: Path = NOTES) -> bool:
    """Put words in a part; return whether it changed."""
    if told(name, page) == words:
        return False
    text = page.read_text(encoding="utf-8")
    write_atomically(page, _part(name).sub(lambda _: words, text).encode())
    return True


def table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (heads, *rows))
    return [head, f"|{'---|' * len(heads)}", *lines]


def _part(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.S)


def main(
    name: str, findings: Callable[[], str], write_record: Callable[[Path], None], about: str
) -> int:
    """Write the record of stored results, if asked, and what it says into the notes.

    Exit status 2, and nothing written, if the store has not what the record needs.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--results", type=Path, help="folder of stored results to record")
    given = parser.parse_args()
    if given.results is not None:
        try:
            write_record(given.results)
        except NotWhole as error:
            print(error, file=sys.stderr)
            return 2
    print("written" if tell(name, findings()) else "as it was")
    return 0
