"""Every public name says what it takes and gives: parameters, shapes, errors, source and cost."""

import inspect
import re
from functools import cached_property

import pytest

import linattn as la

NAMES = [name for name in la.__all__ if not name.startswith("__")]
FUNCTIONS = [name for name in NAMES if inspect.isroutine(getattr(la, name))]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(la, name))]
SERVICES = {"check", "load_dataset", "load_results", "save_dataset"}
"""What reads, writes or passes on, and has no equation."""
LISTED = re.compile(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: :.*)?$")
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
ARRAYS = re.compile(r"\b(array|Array)s?\b")
SHAPE = re.compile(r"\([^()]*\w[^()]*\)|number of|one (entry )?per")


def sections(doc):
    """The parts of a numpydoc text by their headings; what comes first under ''."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", doc, flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def described(section):
    """Names that a section describes, with the line that introduces each and what follows it."""
    found, current = {}, []
    for line in section.splitlines():
        match = LISTED.match(line)
        if match:
            current = [name.strip().lstrip("*") for name in match.group(1).split(",")]
            found |= dict.fromkeys(current, line)
        else:
            for name in current:
                found[name] += "\n" + line
    return found


def parts_of(name):
    return sections(inspect.getdoc(getattr(la, name)) or "")


def settings(function):
    """Parameters by position and by keyword only."""
    parameters = inspect.signature(function).parameters.values()
    by_position = [p.name for p in parameters if p.kind in POSITIONAL]
    return by_position, [p.name for p in parameters if p.name not in by_position]


def test_every_name_is_one_or_the_other():
    assert set(FUNCTIONS) | set(CLASSES) == set(NAMES)
    assert len(FUNCTIONS) > 30
    assert len(CLASSES) > 15


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_describes_what_it_takes_and_gives(name):
    function, parts = getattr(la, name), parts_of(name)
    by_position, by_keyword = settings(function)
    assert len(by_position) <= 3, "settings are keyword-only"
    assert set(described(parts.get("Parameters", ""))) == {*by_position, *by_keyword}
    assert "Returns" in parts or re.match(r"(Return|Yield|Check)", parts[""])
    if by_position or by_keyword:
        assert "Raises" in parts


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_says_where_it_comes_from_and_what_it_costs(name):
    function, parts = getattr(la, name), parts_of(name)
    if not any(settings(function)):
        return  # nothing is computed from nothing
    notes = parts.get("Notes", "")
    assert re.search(r"Source: \S+", notes) or name in SERVICES
    assert re.search(r"\b[Cc]osts?\b", notes)


@pytest.mark.parametrize("name", NAMES)
def test_arrays_have_shapes(name):
    parts = parts_of(name)
    for heading in ("Parameters", "Attributes", "Returns"):
        for what, text in described(parts.get(heading, "")).items():
            head = text.splitlines()[0]
            if ARRAYS.search(head) and " : " in head:
                assert SHAPE.search(text), f"{name}.{what}: {head}"


@pytest.mark.parametrize("name", CLASSES)
def test_a_record_describes_its_fields(name):
    record, parts = getattr(la, name), parts_of(name)
    fields = getattr(record, "_fields", ()) or getattr(record, "__dataclass_fields__", ())
    text = parts.get("Attributes", "") + parts.get("Parameters", "")
    assert [f for f in fields if f not in described(text) and f[0] != "_"] == []


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_record_does_is_described(name):
    for member, thing in vars(getattr(la, name)).items():
        if member.startswith("_"):
            continue
        if isinstance(thing, property):
            thing = thing.fget
        elif isinstance(thing, cached_property):
            thing = thing.func
        elif isinstance(thing, classmethod | staticmethod):
            thing = thing.__func__
        if inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{member}"
            assert len(settings(thing)[0]) <= 4, f"{name}.{member}: settings are keyword-only"
