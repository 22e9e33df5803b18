"""paper_notes.md against the code, both ways."""

import ast
import importlib
import inspect
import re
from functools import lru_cache
from typing import Any, NamedTuple

import pytest
from processes import ROOT, printed

import linattn as la

TABLE = "| id | statement | function | test | figure |"


class Row(NamedTuple):
    id: str
    functions: list[str]
    tests: list[str]
    figures: list[str]


def rows() -> list[Row]:
    text = (ROOT / "paper_notes.md").read_text(encoding="utf-8")
    lines = text[text.index(TABLE) :].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line]
    return [Row(c[0], *(re.findall(r"`([^`]+)`", part) for part in c[2:5])) for c in cells]


def resolve(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return getattr(resolve(module), attribute)


def source_line(thing: Any) -> str:
    found = re.search(r"Source: (.+)", inspect.getdoc(thing) or "")
    return found.group(1) if found else ""


def figure_names() -> set[str]:
    texts = [p.read_text(encoding="utf-8") for p in (ROOT / "figures").glob("*.py")]
    found = [re.search(r'^NAME = "(\w+)"', text, re.M) for text in texts]
    return {match.group(1) for match in found if match}


@lru_cache(maxsize=1)
def collected() -> set[str]:
    asked = ("--collect-only", "-q", "-o", "addopts=", "tests", "--import-mode=importlib")
    out = printed("-m", "pytest", *asked, place=ROOT)
    nodes = {re.sub(r"\[.*", "", line) for line in out.splitlines() if "::" in line}
    return nodes | {node.split("::")[0] for node in nodes}


def test_the_table_is_read():
    table = rows()
    assert len(table) > 30
    assert len({row.id for row in table}) == len(table)
    assert all(row.functions and row.tests for row in table)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_functions_exist_and_cite_their_source(row):
    for name in row.functions:
        assert source_line(resolve(name)), f"{name} has no Source: line"


def test_claims_and_sources_agree():
    """A claim's number stands on the Source: line of a function that its row names."""
    for row in rows():
        number = re.match(r"C\d+f?", row.id)
        if number:
            cited = " ".join(source_line(resolve(name)) for name in row.functions)
            assert number.group() in cited, row.id


DATA = "the data set's own provenance, `load_dataset`"


def citations() -> list[tuple[str, str]]:
    """Every source that a docstring of the library or a claim names: where, and the sentence."""
    found = [(claim.id, claim.source) for claim in la.claims()]
    for path in sorted((ROOT / "linattn").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                text = " ".join((ast.get_docstring(node) or "").split())
                source = re.search(r"Source: (.+?)\.(?= [A-Z‖]|$)", text)
                if source and source.group(1) != DATA:
                    found.append((f"{path.name}: {getattr(node, 'name', '')}", source.group(1)))
    return found


@pytest.mark.parametrize(("place", "source"), citations())
def test_citations_resolve(place, source):
    """To a claim, a heading or a paper of the notes; a part of them may stand in parentheses."""
    text = (ROOT / "paper_notes.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (?:\d+\. )?(.+)$", text, re.M)
    papers = text[text.index("## Papers") : text.index("## Where everything is")]
    claimed = [name for name in re.findall(r"\bC\d+f?", source) if f"**{name}" in text]
    arxiv = [number for number in re.findall(r"\d{4}\.\d{5}", source) if number in papers]
    listed = re.findall(r"^- ([^:,]+(?:, [^:,]+)*?)(?: \d{4})?[:,]", papers, re.M)
    named = [name for name in (*headings, *listed) if name in source]
    assert claimed or arxiv or named, f"{place} cites what the notes lack: {source}"
    assert len(claimed) == len(re.findall(r"\bC\d+f?", source)), source
    assert len(arxiv) == len(re.findall(r"\d{4}\.\d{5}", source)), source


def test_no_citation_is_a_number_of_another_text():
    for path in sorted((ROOT / "linattn").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"theory sections? \d|Source: (literature|contract|none)", text), path
        for heading in re.findall(r"\(notes, ([^),;]+)", text):
            assert heading in (ROOT / "paper_notes.md").read_text(encoding="utf-8"), heading


def test_tests_are_collected():
    nodes = collected()
    for row in rows():
        assert set(row.tests) <= nodes, row.id


def test_figures_exist():
    names = figure_names()
    for row in rows():
        assert set(row.figures) <= names, row.id


def test_every_claim_has_a_row():
    assert {claim.id for claim in la.claims()} <= {row.id for row in rows()}


def test_every_public_function_with_a_source_has_a_row():
    named = {inspect.unwrap(resolve(name)) for row in rows() for name in row.functions}
    for name in la.__all__:
        thing = inspect.unwrap(getattr(la, name))
        if callable(thing) and source_line(thing):
            assert thing in named, f"linattn.{name} cites a source but has no row"


def test_every_figure_has_a_row():
    assert figure_names() <= {name for row in rows() for name in row.figures}
