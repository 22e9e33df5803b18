"""What the site adds to Sphinx: reference pages from ``linattn.__all__``, formulas, links to names.

- One page per room of the package, written before the sources are read, so that no public name can
  be missing and none is listed by hand.
- Indented paragraphs of a docstring are formulas, set as they stand.
- ``la.name`` in the text of any page is a link to the reference; a name that is not public is a
  warning, and warnings are errors.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

import linattn

ROOMS = {
    "data": "Data and problems",
    "model": "Model and arrays",
    "objectives": "Objectives",
    "federated": "Methods and runs",
    "theory": "Theory",
    "analysis": "A run and its theory side by side",
    "claims": "Claims",
    "experiments": "Studies and stored results",
}
MODEL = ("types", "params", "attention", "deep")
FOLDER = "reference"
BARS = re.compile(r"\|(?=(?:[^`]*`[^`]*`)*[^`]*$)")
"""Bars outside of code."""
LINKED = re.compile(r"la\.([A-Za-z_]\w*)(?:\(.*|\.\w+)?")


def room_of(name: str) -> str:
    """The room whose page documents a public name."""
    room = inspect.unwrap(getattr(linattn, name)).__module__.split(".")[1]
    return "model" if room in MODEL else room


def pages() -> dict[str, list[str]]:
    """Public names by room."""
    found: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name in linattn.__all__:
        if not name.startswith("__"):
            found[room_of(name)].append(name)
    return found


def write_reference(app: Sphinx) -> None:
    """Write a page per room below ``reference/``, and the page that lists them."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    for room, names in pages().items():
        parts = [f"# {ROOMS[room]}", "```{py:currentmodule} linattn\n```"]
        parts += [_directive(name) for name in names]
        _write(folder / f"{room}.md", "\n\n".join(parts))
    index = ["# Reference", "Every public name, `import linattn as la`.", _contents()]
    _write(folder / "index.md", "\n\n".join(index))


def _directive(name: str) -> str:
    kind = "class" if inspect.isclass(getattr(linattn, name)) else "function"
    options = "\n:members:" if kind == "class" else ""
    return (
        f"```{{eval-rst}}\n.. auto{kind}:: linattn.{name}"
        + options.replace("\n", "\n   ")
        + "\n```"
    )


def _contents() -> str:
    return "```{toctree}\n" + "\n".join(ROOMS) + "\n```"


def _write(path: Path, text: str) -> None:
    """Unchanged pages keep their time, so that they are not read again."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text + "\n":
        path.write_text(text + "\n", encoding="utf-8")


def set_formulas(
    app: Sphinx, what: str, name: str, thing: object, options: Any, lines: list[str]
) -> None:
    """Make indented paragraphs literal, as they are meant: equations in plain letters.

    In other lines the bars of |x| are no markup.
    """
    lines[:] = [BARS.sub(r"\\|", line) for line in lines]
    made: list[str] = []
    for k, line in enumerate(lines):
        first = line.startswith("    ") and k > 0 and not lines[k - 1].strip()
        if first and not _inside_block(lines, k):
            made += ["::", ""]
        made.append(line)
    lines[:] = made


def _inside_block(lines: list[str], k: int) -> bool:
    """Whether an indented line belongs to a field, a list or a directive before it."""
    before = [line for line in lines[:k] if line.strip() and not line.startswith("    ")]
    opens = (":", "-", "*", "..", ">>>")
    return bool(before) and before[-1].lstrip().startswith(opens)


def skip_fields(
    app: Sphinx, what: str, name: str, thing: object, skip: bool, options: Any
) -> bool | None:
    """Fields of named tuples are described under Attributes."""
    doc = getattr(thing, "__doc__", None) or ""
    return True if doc.startswith("Alias for field number") else None


class LinkNames(SphinxTransform):
    """Turn ``la.name`` in code spans into links."""

    default_priority = 400

    def apply(self, **settings: Any) -> None:
        """Replace the text of every code span that begins with ``la.``."""
        for span in list(self.document.findall(nodes.literal)):
            match = LINKED.fullmatch(span.astext())
            if match is None or isinstance(span.parent, pending_xref | nodes.reference):
                continue
            name = match.group(1)
            if name not in linattn.__all__:
                logger = logging.getLogger(__name__)
                logger.warning("%s is no public name", span.astext(), location=span)
                continue
            link = pending_xref(
                "", refdomain="py", reftype="obj", reftarget=f"linattn.{name}", refexplicit=True
            )
            link["refdoc"] = self.env.docname
            span.replace_self(link)
            link += span


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything."""
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-docstring", set_formulas, priority=900)
    app.connect("autodoc-skip-member", skip_fields)
    app.add_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
