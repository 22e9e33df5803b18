"""``linattn report``: one page that holds everything a folder of results has, and needs no network.

The page is static HTML, so it is read and printed without scripts too; a script adds filters and
draws the figures from the numbers of their CSV with Plotly (basic bundle, MIT licence, inlined).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from linattn._display import facts_html, table_html
from linattn.experiments.files import write_atomically
from linattn.report.contents import Contents, Drawing, Judged, Runs, contents

NAME = "report.html"
STATES = ("violated", "refused", "not applicable", "vacuous", "reported", "holds")
"""States of a verdict, what asks for attention first."""
COLOURS = 128
IMAGES = 5 * 2**20
"""Bytes of images that a page holds; figures beyond link to the file beside it."""


def write_report(store: Path) -> Path:
    """Write ``report.html`` into a folder of results and return its path.

    Parameters
    ----------
    store : Path
        The output folder of sweeps, with what `linattn figures` and `linattn verify` added.

    Raises
    ------
    ValueError
        If the store is not a folder.
    OSError
        If it cannot be written.

    Notes
    -----
    The same folder gives the same bytes: nothing on the page is a time. Cost: every file of the
    store is read once; a second or two.
    """
    path = store / NAME
    write_atomically(path, render(contents(store), store.name).encode())
    return path


def render(found: Contents, title: str) -> str:
    """Return the page of some contents."""
    assets = files("linattn.report") / "assets"
    data = {drawing.name: drawing.panels for drawing in found.figures}
    return Template((assets / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=(assets / "page.css").read_text(encoding="utf-8"),
        summary=_summary(found),
        warnings=_warnings(found.warnings),
        verdicts=_verdicts(found.verdicts),
        figures="".join(_figures(found.figures)),
        runs="".join(map(_runs, found.runs)),
        data=_embedded(data),
        plotly=(assets / "plotly-basic.min.js").read_text(encoding="utf-8"),
        script=(assets / "page.js").read_text(encoding="utf-8"),
    )


def _embedded(data: object) -> str:
    """JSON that may stand inside a script element, whatever its texts are."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _summary(found: Contents) -> str:
    states = [verdict.state for verdict in found.verdicts]
    counted = [f"{states.count(state)} {state}" for state in STATES if state in states]
    stored = sum(runs.states.get("stored", 0) for runs in found.runs)
    return (
        f"{stored} stored runs of {len(found.runs)} simulations, {len(found.figures)} figures, "
        f"{len(states)} verdicts{': ' if counted else ''}{', '.join(counted)}."
    )


def _warnings(sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<section id="warnings"><h2>Warnings</h2><ul>{items}</ul></section>'


def _verdicts(verdicts: Sequence[Judged]) -> str:
    states = [state for state in STATES if any(v.state == state for v in verdicts)]
    chips = "".join(
        f'<label class="state {_slug(state)}"><input type="checkbox" value="{state}" checked> '
        f"{state}</label>"
        for state in states
    )
    heads = "".join(
        f'<th scope="col"><button type="button">{head}</button></th>'
        for head in ("claim", "state", "statement", "kind", "instances", "measured", "bound",
                     "tightness")
    )  # fmt: skip
    rows = "".join(map(_verdict, verdicts))
    return (
        f'<div id="filters"><input type="search" placeholder="filter" aria-label="filter">{chips}'
        f'<output id="shown">{len(verdicts)} of {len(verdicts)}</output></div>'
        f'<table id="verdicts"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    )


def _verdict(verdict: Judged) -> str:
    numbers = (verdict.measured, verdict.bound, verdict.tightness)
    details = "".join(
        f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in verdict.details.items()
    )
    more = f"<details><summary>more</summary><dl>{details}</dl></details>" if details else ""
    count = "" if verdict.instances is None else str(verdict.instances)
    cells = [
        f"<th scope='row'>{escape(verdict.claim)}</th>",
        f'<td><span class="state {_slug(verdict.state)}">{escape(verdict.state)}</span></td>',
        f"<td>{escape(verdict.statement)}{more}</td>",
        f"<td>{escape(verdict.kind)}</td>",
        f'<td class="number">{count}</td>',
        *(f'<td class="number">{_said(number)}</td>' for number in numbers),
    ]
    return f'<tr data-state="{escape(verdict.state)}">{"".join(cells)}</tr>'


def _said(number: float | None) -> str:
    return "" if number is None or number != number else f"{number:.6g}"


def _slug(state: str) -> str:
    return escape(state.replace(" ", "-"))


def _figures(drawings: Iterable[Drawing]) -> Iterable[str]:
    """Every figure: caption, panels for the script, and its image."""
    left = IMAGES
    for drawing in drawings:
        image, size = _image(drawing, left)
        left -= size
        name = escape(drawing.name)
        caption = "".join(
            f"<p>{escape(part)}</p>" for part in drawing.caption.split("\n\n") if part
        )
        yield (
            f'<section class="figure" id="figure-{name}"><h3>{name}</h3>{caption}'
            f'<div class="panels" data-figure="{name}"></div>{image}</section>'
        )


def _image(drawing: Drawing, room: int) -> tuple[str, int]:
    """The figure as drawn, inside the page while there is room, and the bytes it took."""
    if drawing.image is None:
        return "", 0
    content = smaller(drawing.image.read_bytes())
    source, size = f"figures/{drawing.image.name}", 0
    if len(content) <= room:
        encoded = base64.b64encode(content).decode()
        source, size = f"data:image/png;base64,{encoded}", len(encoded)
    name = escape(drawing.name)
    return (
        f'<details class="drawn" open><summary>as drawn</summary><img alt="figure {name}" '
        f'loading="lazy" src="{escape(source)}"></details>',
        size,
    )


def smaller(content: bytes) -> bytes:
    """The PNG with a palette of its own, a third of its size; lines and letters stay sharp."""
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        few = image.convert("RGB").quantize(
            COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
    buffer = io.BytesIO()
    few.save(buffer, "PNG")
    return min(buffer.getvalue(), content, key=len)


def _runs(runs: Runs) -> str:
    states = ", ".join(f"{count} {state}" for state, count in runs.states.items())
    presets = ", ".join(f"{name} ({count})" for name, count in runs.presets.items())
    specs = table_html(runs.varied, runs.specs, caption="what differs") if runs.varied else ""
    return (
        f'<details class="runs"><summary><b>{escape(runs.name)}</b>: {escape(states)}; presets '
        f"{escape(presets or 'none')}</summary>{specs}"
        f"{facts_html('what all runs share', runs.same.items())}"
        f"{''.join(map(_origin, runs.origins))}</details>"
    )


def _origin(origin: Mapping[str, object]) -> str:
    versions = origin.get("versions")
    flat = {key: value for key, value in origin.items() if key != "versions"}
    if isinstance(versions, Mapping):
        flat |= versions
    return facts_html("provenance", flat.items())
