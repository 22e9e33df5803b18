"""The floors of the house: imports only go down, numba in one room, a light `import linattn`."""

import ast
from pathlib import Path

import pytest
from processes import printed

import linattn

PACKAGE = Path(__file__).parents[1] / "linattn"
# A room is a module or folder directly below linattn/.
FLOORS = {
    "_checks": 0, "_display": 0, "_doors": 0, "_fields": 0, "_files": 0, "_settings": 0,
    "_threads": 0, "_typing": 0, "types": 0, "clients": 0, "_progress": 0, "params": 0,
    "streams": 0, "linalg": 0,
    "attention": 1, "_kernels": 1, "deep": 1.5,  # stacks the layers of attention
    "objectives": 2, "data": 2.2,  # worlds have a start
    "oracles": 2.5,
    "federated": 3, "theory": 3,
    "analysis": 4,
    "claims": 5, "experiments": 5.5,  # stages print the claim table
    "report": 6, "cli": 6.5, "__main__": 7, "__init__": 7,
}  # fmt: skip
# A problem names its oracle, which is all that is above it: `problem.oracle(params)`.
# A simulation run as a script is a command line.
ASKED = {"types": {"oracles", "objectives"}, "data": {"oracles"}, "experiments": {"cli"}}
HEAVY = ("xarray", "pandas", "matplotlib", "numba", "rich", "typer", "narwhals", "polars",
         "scipy.stats")  # fmt: skip


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path, *, only_at_load=False):
    """Absolute names of imported modules; optionally without those inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = set()
    if only_at_load:
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        for node in ast.walk(tree):
            lazy = isinstance(node, functions) or (
                isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            )
            if lazy:
                inner |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in inner:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(path):
    """Rooms of linattn that a module imports, whether at load or later."""
    rooms = set()
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "linattn" and len(parts) > 1 and parts[1] in FLOORS:
            rooms.add(parts[1])
        elif name == "linattn":
            rooms.add("__init__")
    return rooms


def test_every_room_has_a_floor():
    assert {room_of(path) for path in modules()} <= set(FLOORS)


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_only_go_down(path):
    here = room_of(path)
    for room in imported_rooms(path) - {here} - ASKED.get(here, set()):
        if room == "__init__" and FLOORS[here] >= 5:
            continue  # experiments, claims and reports are users of the public names
        below = FLOORS[room] < FLOORS[here]
        level = FLOORS[room] == FLOORS[here] == 0
        assert below or level, f"{here} (floor {FLOORS[here]}) imports {room} ({FLOORS[room]})"


def test_federated_and_theory_never_meet():
    for path in modules():
        if room_of(path) in ("federated", "theory"):
            assert not imported_rooms(path) & ({"federated", "theory"} - {room_of(path)})


def test_only_the_kernels_import_numba():
    for path in modules():
        names = {name.split(".")[0] for name in imports_of(path)}
        assert "numba" not in names or room_of(path) == "_kernels", path


def test_the_kernels_are_loaded_lazily():
    for path in modules():
        if room_of(path) != "_kernels":
            names = imports_of(path, only_at_load=True)
            assert not [n for n in names if n.startswith("linattn._kernels")], path


def test_the_twin_imports_numpy_only():
    tree = Path(__file__).with_name("reference.py")
    allowed = {"__future__", "itertools", "typing", "numpy"}
    assert {name.split(".")[0] for name in imports_of(tree)} <= allowed


def test_importing_linattn_is_light():
    """Nor is the room of simulations heavy."""
    say = f"print([name for name in {HEAVY!r} if name in sys.modules])"
    assert printed("-c", f"import sys, linattn, linattn.experiments; {say}") == "[]\n"
    assert len(linattn.__all__) > 20


def test_public_names_exist_once_and_are_sorted():
    assert linattn.__all__ == sorted(set(linattn.__all__))
    assert all(hasattr(linattn, name) for name in linattn.__all__)
