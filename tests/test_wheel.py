"""What a stranger installs: the wheel holds all that the command line needs, from any folder."""

import os
import subprocess
import sys
import zipfile
from importlib.util import find_spec

import pytest
from processes import ROOT

NEEDED = ("build", "hatchling", "twine")
MISSING = [name for name in NEEDED if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


def call(*command, **settings):
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, **settings
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    done = call("build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    assert done.returncode == 0, done.stderr + done.stdout
    (made,) = folder.glob("*.whl")
    return made


def test_index_would_take_both_distributions(wheel):
    every = [str(path) for path in wheel.parent.iterdir()]
    assert len(every) == 2
    done = call("twine", "check", "--strict", *every)
    assert done.returncode == 0, done.stdout


def test_wheel_holds_the_package_and_its_scripts_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "linattn").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".nbi", ".nbc")
    }
    scripts = {
        f"linattn/{folder}/{path.name}"
        for folder in ("simulations", "figures")
        for path in (ROOT / folder).glob("*.py")
    }
    assert len(scripts) > 20
    assert held == package | scripts


def test_installed_copy_finds_its_scripts_from_an_empty_folder(wheel, tmp_path):
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(installed)
    empty.mkdir()
    place = {"cwd": empty, "env": {**os.environ, "PYTHONPATH": str(installed)}}
    done = call("linattn", "run", "bounds", "--preset", "tiny", "--dry-run", **place)
    assert done.returncode == 0, done.stderr
    assert "1 run" in done.stdout
    done = call("linattn", "figures", "bounds", "--output", ".", **place)
    assert done.returncode == 1
    assert "make them with `linattn run bounds --output .`" in done.stderr
    code = "from linattn.experiments.find import *; print(find_folder('figures'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, **place
    )
    assert done.stdout.strip() == str(installed / "linattn" / "figures")
