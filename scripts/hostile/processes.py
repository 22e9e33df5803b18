"""Processes that die, race, or find the disk full: nothing is lost, nothing is wrong."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import count as numbers
from pathlib import Path

import numpy as np

import linattn as la
from hostile import Tally, is_sentence
from hostile.stores import NAME, PRESET, SETTINGS, ended, forked, held, small_sweep
from linattn.experiments.find import find_script
from linattn.experiments.store import read_manifest

RUNS = 12
LONGEST = 0.4
"""Seconds until a kill, at most."""


def kills(seed: int, count: int, folder: Path) -> Tally:
    """Kill a sweep, or a process that saves over what it saved, at random moments."""
    draw, sweep = random.Random(seed), small_sweep(RUNS)
    tally = Tally("kills", Counter(), [])
    stores = numbers()
    output, saved = folder / "sweep-0", Saved(folder / "params.npz")
    for number in numbers():
        if tally.counts["kills"] == count:
            break
        before = held(output).keys()
        saving = draw.random() < 0.25
        child = forked(saved.write_on if saving else lambda: sweep.write(output))  # noqa: B023
        time.sleep(draw.uniform(0.0, LONGEST))
        os.kill(child, signal.SIGKILL)
        status = ended(child)
        tally.counts["kills" if status < 0 else "finished before"] += 1
        found = saved.faults() if saving else sweep.faults(output, set(before))
        found += [] if status <= 0 else [f"status {status}"]
        tally.faults.extend([f"kill {number}: {fault}" for fault in found])
        if held(output).keys() == sweep.expected.keys():
            tally.counts["sweeps completed"] += 1
            output = folder / f"sweep-{next(stores) + 1}"
    sweep.write(output)
    if held(output) != sweep.expected or len(read_manifest(output, NAME)[PRESET]) != RUNS:
        tally.faults.append("the last sweep is not complete")
    return tally


class Saved:
    """A file of parameters that is written over again and again, by one of two versions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        draws = np.random.default_rng(0).normal(size=(2, 5000))
        layout = la.Layout((("kernel", (1, 50, 50)), ("value", (1, 50, 50))))
        self.versions = [la.Params(layout, flat) for flat in draws]
        self.versions[0].save(path)

    def write_on(self) -> None:
        """Save for ever."""
        for number in numbers():
            self.versions[number % 2].save(self.path)

    def faults(self) -> list[str]:
        """Whether the file is neither version."""
        try:
            flat = la.Params.load(self.path).flat
        except ValueError as error:
            return [f"saved parameters are gone: {error}"]
        same = any(np.array_equal(flat, version.flat) for version in self.versions)
        return [] if same else ["saved parameters are others"]


def commands(seed: int, count: int, folder: Path) -> Tally:
    """Kill whole commands with two workers, or one of their workers; the command again completes.

    No worker outlives its command.
    """
    draw, sweep = random.Random(seed), small_sweep(RUNS)
    tally = Tally("commands", Counter(), [])
    for number in range(count):
        output = folder / f"command-{number}"
        process = _command(output)
        time.sleep(draw.uniform(0.5, 4.0))
        workers = _children(process.pid)
        only_worker = bool(workers) and draw.random() < 0.5
        os.kill(draw.choice(workers) if only_worker else process.pid, signal.SIGKILL)
        process.wait()
        tally.counts["workers killed" if only_worker else "commands killed"] += 1
        deadline = time.monotonic() + 20.0
        while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        found = sweep.faults(output, set())
        found += [f"worker {pid} lives on" for pid in workers if _alive(pid)]
        status = _command(output).wait()
        if status or held(output) != sweep.expected:
            found.append(f"the same command again ends with {status}, incomplete")
        tally.faults.extend([f"command {number}: {fault}" for fault in found])
    return tally


def races(seed: int, count: int, folder: Path) -> Tally:
    """Let two or three processes compute one sweep into one store at the same time."""
    draw, sweep = random.Random(seed), small_sweep(4)
    tally = Tally("races", Counter(), [])
    for number in range(count):
        output = folder / f"race-{number}"
        children = []
        for _ in range(draw.choice((2, 2, 3))):
            children.append(forked(lambda: sweep.write(output)))  # noqa: B023
            time.sleep(draw.choice((0.0, 0.0, 0.01, 0.1)))
        found = [f"status {status}" for status in map(ended, children) if status]
        found += sweep.faults(output, set(sweep.expected))
        found += [f"{path.name} is left" for path in output.glob(".*")]
        tally.counts["races"] += 1
        tally.faults.extend([f"race {number}: {fault}" for fault in found])
    return tally


def full_disk(seed: int, count: int, folder: Path) -> Tally:
    """Write where files cannot grow beyond a random size: one sentence, and the old file stays."""
    draw, sweep = random.Random(seed), small_sweep(2)
    largest = max(map(len, sweep.expected.values()))
    saved = Saved(folder / "small.npz")
    data = folder / "data.npz"
    items = [np.arange(600.0).reshape(300, 2), np.ones((300, 2))]
    names = {"class_names": ["a", "b"], "channel_names": ["x", "y"]}
    la.save_dataset(data, items, [0, 1], **names)
    works: dict[str, Callable[[], None]] = {
        "results": lambda: sweep.write(folder / "full"),
        "parameters": lambda: saved.versions[1].save(saved.path),
        "data": lambda: la.save_dataset(data, items, [1, 0], **names),
    }
    sweep.fill(folder / "full")
    first = sorted(sweep.expected)[0]
    whole = data.read_bytes()
    tally = Tally("full disk", Counter(), [])
    for number in range(count):
        name = draw.choice(sorted(works))
        limit = draw.randrange(largest if name == "results" else len(whole))
        if name == "results":
            (folder / "full" / first).unlink(missing_ok=True)
        before = held(folder / "full").keys()
        status = ended(forked(lambda: _within(limit, works[name])))  # noqa: B023
        tally.counts[{0: "written", 3: "one sentence"}.get(status, "faults")] += 1
        found = [] if status in (0, 3) else [f"{name} within {limit} bytes: status {status}"]
        found += sweep.faults(folder / "full", set(before)) + saved.faults()
        found += [f"{path.name} is left" for path in [*folder.glob(".*"), *folder.glob("*/.*")]]
        if status and data.read_bytes() != whole:
            found.append("the data set is another")
        la.save_dataset(data, items, [0, 1], **names)
        tally.faults.extend([f"full disk {number}: {fault}" for fault in found])
    return tally


def _within(limit: int, work: Callable[[], None]) -> None:
    """Work while no file may grow beyond a limit; status 3 if that ends in one sentence."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        work()
    except OSError as error:
        if is_sentence(error):
            os._exit(3)
        raise


def _command(output: Path) -> subprocess.Popen[bytes]:
    """The sweep as a command, two workers."""
    settings = SETTINGS | {"seed": list(range(RUNS))}
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return subprocess.Popen(
        [sys.executable, "-m", "linattn", "run", str(find_script(NAME)), "--preset", PRESET,
         "--workers", "2", "--output", str(output), *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _children(pid: int) -> list[int]:
    """Processes started by a process that compute."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(part) for part in listed.read_text().split()] if listed.exists() else []
    return [child for child in found if b"spawn_main" in _command_line(child)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _alive(pid: int) -> bool:
    return b"spawn_main" in _command_line(pid)
