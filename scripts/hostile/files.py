"""Stored files with a flipped bit, cut short, with a block gone: refused, or read as they were."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import linattn as la
from hostile import Tally, described, is_sentence
from hostile.stores import NAME, PRESET, held, small_sweep
from linattn.experiments.store import MANIFESTS

BLOCK = 512
REFUSALS = (ValueError, TypeError, UserWarning)


def damaged(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """The content with one thing wrong, and what that is."""
    place = draw.randrange(len(content))
    how = draw.choice(("bit", "bit", "bit", "cut", "block", "tail"))
    if how == "cut":
        return how, content[:place]
    if how == "tail":
        return how, content + draw.randbytes(draw.randint(1, BLOCK))
    if how == "block":
        end = min(place + BLOCK, len(content))
        return how, content[:place] + bytes(end - place) + content[end:]
    flipped = content[place] ^ 1 << draw.randrange(8)
    return how, content[:place] + bytes([flipped]) + content[place + 1 :]


def run(seed: int, count: int, folder: Path) -> Tally:
    """Damage results, manifests, parameters and data sets; read each as a user does."""
    draw, sweep = random.Random(seed), small_sweep(4)
    store = folder / "store"
    sweep.fill(store)
    readers = _readers(folder, store, sorted(sweep.expected))
    tally = Tally("files", Counter(), [])
    for number in range(count):
        path = draw.choice(sorted(readers))
        whole = path.read_bytes()
        how, content = damaged(whole, draw)
        path.write_bytes(content)
        ending, why = _ending(readers[path])
        if content == whole:
            how = "nothing"
        tally.counts[f"{how}: {ending}"] += 1
        if why:
            tally.faults.append(f"{number}: {path.name}, {how}: {why}")
        if path.suffix == ".nc" and number % 50 == 0:
            sweep.write(store)  # damage is set aside and made good
            aside = path.with_name(path.name + ".damaged")
            if held(store) != sweep.expected or (content != whole) != aside.exists():
                tally.faults.append(f"{number}: {path.name}, {how}: not made good")
            aside.unlink(missing_ok=True)
            tally.counts["made good"] += 1
        path.write_bytes(whole)
    return tally


def _readers(folder: Path, store: Path, files: list[str]) -> dict[Path, Callable[[], bool]]:
    """For every file what reads it and says whether it is what was written."""
    params = la.Params.merged(np.arange(9.0).reshape(3, 3), np.ones((3, 2)))
    params.save(folder / "params.npz")
    items = [np.arange(8.0).reshape(4, 2), np.ones((3, 2))]
    la.save_dataset(
        folder / "data.npz", items=items, labels=[0, 1], class_names=["a", "b"],
        channel_names=["x", "y"], groups={"who": ["p", "q"]}, scale=[1.0, 2.0],
    )  # fmt: skip

    def read_data() -> Any:
        return _plain(replace(la.load_dataset(folder / "data.npz"), sha256=""))

    data = read_data()
    results = {r.path.name: r for r in la.load_results(store, NAME)}

    def read_params() -> bool:
        found = la.Params.load(folder / "params.npz")
        return found.layout == params.layout and np.array_equal(found.flat, params.flat)

    def read_store(**options: Any) -> bool:
        found = la.load_results(store, NAME, **options)
        return all(
            r.spec == results[r.path.name].spec
            and r.provenance == results[r.path.name].provenance
            and r.dataset.identical(results[r.path.name].dataset)
            for r in found
        )

    return {
        folder / "params.npz": read_params,
        folder / "data.npz": lambda: read_data() == data,
        store / MANIFESTS / f"{NAME}.json": lambda: read_store(preset=PRESET),
        **{store / name: read_store for name in files},
    }


def _plain(value: Any) -> Any:
    """Arrays as what can be compared."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return _plain(vars(value)) if hasattr(value, "__dict__") else value


def _ending(read: Callable[[], bool]) -> tuple[str, str]:
    """How reading ends, and what is wrong with that."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            same = read()
    except REFUSALS as error:
        return ("refused", "" if is_sentence(error) else described(error))
    except Exception as error:
        return "fault", described(error)
    return ("read as it was", "") if same else ("fault", "other content is believed")
