"""Python in processes of its own, with the package of this repository."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


def finished(*arguments, place=None, timeout=None, **environment):
    """Run Python; return exit status, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=place, env=ENVIRONMENT | environment, timeout=timeout,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def printed(*arguments, **options):
    """Run Python, which must end well; return what it printed."""
    code, out, err = finished(*arguments, **options)
    assert code == 0, out + err
    return out
