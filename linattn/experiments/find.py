"""From a name or a path to what a file declares: a simulation, a figure, a module of one's own."""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from linattn.experiments.files import file_sha
from linattn.experiments.simulation import Simulation

_loaded: dict[Path, tuple[str, ModuleType]] = {}


WIDTH = 7.2
"""Width of a figure over both columns of a page, in inches."""


class PageLook(NamedTuple):
    """How figures are drawn.

    Attributes
    ----------
    style : str
        A matplotlib style, or a file of one, on top of the shared look; empty for none.
    width : float
        Inches, of figures that do not need more.
    """

    style: str = ""
    width: float = WIDTH


class Figure(NamedTuple):
    """A figure: one file with ``NAME`` and ``draw``.

    Attributes
    ----------
    name : str
        Stem of the files it makes.
    simulation : str
        Whose results it draws: ``SIMULATION`` of the file, by default its ``NAME``.
    draw : callable (results, folder, PageLook) -> paths
    summary : callable (results) -> str, or None
        The numbers to read beside it.
    path : Path
    """

    name: str
    simulation: str
    draw: Callable[..., list[Path]]
    summary: Callable[..., str] | None
    path: Path


def find_folder(name: str) -> Path:
    """Return the shipped folder `name`: inside an installed package, beside a cloned one.

    Raises
    ------
    ValueError
        If it is in neither place; the installation is broken.
    """
    package = Path(__file__).resolve().parents[1]
    # Inside first: beside an installed package lie those of other people.
    for place in (package / name, package.parent / name):
        if any(place.glob("*.py")):
            return place
    raise ValueError(
        f"{name}/ must lie in {package} or beside it, but it does not; install linattn again, or "
        "give the path of a file."
    )


def shipped(path: Path) -> bool:
    """Whether a file belongs to the package's own folders: its results then change by version."""
    return path.resolve().parent in {find_folder(name) for name in ("simulations", "figures")}


def find_scripts(name: str) -> list[Path]:
    """Return the public scripts of a folder, by name.

    Raises
    ------
    ValueError
        If the folder cannot be found.
    """
    return sorted(path for path in find_folder(name).glob("*.py") if path.name[0] != "_")


def find_script(script: str, folder: str = "simulations") -> Path:
    """Return the script of a path or of a bare name such as ``bias_drift``.

    Raises
    ------
    ValueError
        If there is no such script.
    """
    if Path(script).is_file():
        return Path(script).resolve()
    known = find_scripts(folder)
    for path in known:
        if script in (path.name, path.stem, f"{folder}/{path.name}"):
            return path
    names = ", ".join(path.stem for path in known)
    raise ValueError(f"script must be a file or one of {names}, got {script!r}.")


def load_module(path: Path) -> ModuleType:
    """Import a file by its path, once per process while its text stays.

    Modules beside it can be imported as if it were run as a script.

    Raises
    ------
    ValueError
        If it is not a Python file, or importing it fails: one sentence with file and line.
    """
    path = path.resolve()
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"script must be a Python file, got {path}.")
    text = path.read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    if path in _loaded and _loaded[path][0] == digest:
        return _loaded[path][1]
    # A name of its own: files of equal stem in several folders, beside installed packages.
    name = f"_linattn_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    found = spec_from_file_location(name, path)
    assert found is not None
    module = module_from_spec(found)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        # Python's bytecode cache tells texts apart by size and second only.
        exec(compile(text, str(path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(told(path, error, "cannot be imported")) from error
    _loaded[path] = digest, module
    return module


def loaded_sha(path: Path) -> str:
    """Return the SHA-256 of a file: of the text that was imported, where it was."""
    held = _loaded.get(path.resolve())
    return file_sha(path) if held is None else held[0]


def load_simulation(path: Path) -> Simulation[Any]:
    """Return the ``SIMULATION`` that a file declares.

    Raises
    ------
    ValueError
        If it cannot be imported, declares none, or is named like one of the package without being
        it: the results of both would be taken for each other's.
    """
    simulation = getattr(load_module(path), "SIMULATION", None)
    if not isinstance(simulation, Simulation):
        raise ValueError(f"script must declare SIMULATION = Simulation(...), but {path} does not.")
    ours = shipped_texts().get(path.stem)
    if ours is not None and loaded_sha(path) != ours and not shipped(path):
        raise ValueError(
            f"script must have a name of its own, but {path} is called like a simulation of the "
            "package; rename the file."
        )
    return simulation


def shipped_texts() -> dict[str, str]:
    """Return the SHA-256 of the package's own simulations, by stem."""
    return _texts(find_folder("simulations"))


@cache
def _texts(folder: Path) -> dict[str, str]:
    return {path.stem: file_sha(path) for path in folder.glob("*.py")}


def load_simulations(own: Iterable[str] = ()) -> list[Simulation[Any]]:
    """Return the simulations of the repository, and some of the user's own.

    Raises
    ------
    ValueError
        If the folder cannot be found, or a script is not there or declares no simulation.
    """
    paths = [*find_scripts("simulations"), *map(find_script, own)]
    return [load_simulation(path) for path in dict.fromkeys(paths)]


def load_figure(path: Path) -> Figure:
    """Return the figure that a file declares.

    Raises
    ------
    ValueError
        If it cannot be imported, has no ``NAME`` and ``draw``, or its ``SIMULATION`` is no name.
    """
    module = load_module(path)
    name, draw = getattr(module, "NAME", None), getattr(module, "draw", None)
    if not isinstance(name, str) or not callable(draw):
        raise ValueError(
            f"figure must have NAME and draw(results, folder, look), but {path} has not."
        )
    drawn = getattr(module, "SIMULATION", name)
    if not isinstance(drawn, str):
        raise ValueError(f"SIMULATION of a figure must be a name, but {path} has {drawn!r}.")
    return Figure(name, drawn, draw, getattr(module, "summary", None), path)


def told(path: Path, error: BaseException, failed: str) -> str:
    """Return where and why the code of a file `failed`, in a sentence."""
    if isinstance(error, SyntaxError) and error.filename in (str(path), None):
        where = f"line {error.lineno}: " if error.lineno else ""
        return f"{path} cannot be read: {where}{error.msg}."
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    where = f"line {lines[-1]}: " if lines else ""
    text = " ".join(str(error).split())
    return f"{path} {failed}: {where}{type(error).__name__}: {text}"
