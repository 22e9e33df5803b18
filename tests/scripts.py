"""Simulations and figures of the repository, loaded as the command line does it."""

import pytest

from linattn.cli import main
from linattn.experiments.find import find_script, load_module, load_simulation
from linattn.experiments.store import encode, write_manifest
from linattn.experiments.worker import compute


def call(*arguments):
    """Run the command line in this process; return its exit status."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return end.value.code or 0


def module(name, folder="simulations"):
    """The module of a script."""
    return load_module(find_script(name, folder))


def simulation(name):
    """The simulation of a name."""
    return load_simulation(find_script(name))


def run(name, **fields):
    """Spec and dataset of one run of a simulation."""
    held = simulation(name)
    spec = held.spec(**fields)
    return spec, compute(held, held.task(spec))


def put(store, held, spec, dataset=None):
    """Store a run, computed unless it is given; return its file."""
    task = held.task(spec)
    path = store / task.file
    path.write_bytes(encode(task, held, compute(held, task) if dataset is None else dataset))
    return path


def fill(store, name, specs, preset="test"):
    """Store runs of a simulation as those of a complete preset."""
    held = simulation(name)
    for spec in specs:
        put(store, held, spec)
    write_manifest(store, name, preset, [held.task(spec) for spec in specs])


class Trap:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)
