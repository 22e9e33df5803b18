"""Make the shipped data set ``digits`` from the copy that scikit-learn carries.

Needs: ``linattn`` and scikit-learn (``pip install -e ".[test]"``). No network.

Does: takes the 1,797 images of ``sklearn.datasets.load_digits``, adds the inferred form sheet of
every image, checks what it claims about the sheets, and writes ``digits.npz``,
``digits.provenance.txt`` and ``digits.licence.txt``. The same images give the same bytes on every
platform; the SHA-256 is printed and compared with the one that ``linattn.data.datasets`` records.

    python scripts/make_digits.py [--output FOLDER]
"""

import argparse
import difflib
import itertools
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from linattn.data.datasets import FOLDER, SHIPPED
from linattn.data.saving import save_dataset

# First item of every inferred sheet: where the labels start to repeat the form.
SHEET_STARTS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667)
NUM_ITEMS = 1797

PROVENANCE = """\
digits: 1,797 images of handwritten digits, 8 x 8 pixels, 10 classes

Source: the test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak,
July 1998, UCI Machine Learning Repository, as carried by scikit-learn (datasets.load_digits), which
describes it so: "This is a copy of the test set of the UCI ML hand-written digits
datasets https://archive.ics.uci.edu/ml/datasets/Optical+Recognition+of+Handwritten+Digits".
32 x 32 bitmaps were divided into blocks of 4 x 4 and the pixels that are on were counted in each.

Changes: pixel counts 0..16 are stored as 8-bit integers with a scale of 1/16, order unchanged; the
group "sheet" was added.

Inferred form sheets: the set names no writers. Its labels repeat a form of 130 digits, so the items
were cut where the form starts again, at
0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667.
This gives 14 sheets. Eight carry the 130 labels of the form exactly; five lack 4, 7, 2, 2 and 8 of
them and keep the order of the others; one (the third) ends in 3 where the form has 8. The sheets
are an inference of this project and not known to be writers: the description speaks of 13 people.

References:
C. Kaynak (1995) Methods of Combining Multiple Classifiers and Their Applications to Handwritten
Digit Recognition, MSc Thesis, Bogazici University.
E. Alpaydin, C. Kaynak (1998) Cascading Classifiers, Kybernetika.

Made by: scripts/make_digits.py
SHA-256 of digits.npz: {sha256}
"""

LICENCE = """\
The description of the data that scikit-learn carries contains no licence statement; it names the
creator, "E. Alpaydin (alpaydin '@' boun.edu.tr)", and the UCI repository as the source. The UCI
repository has said of its collection: "Datasets will be licensed under a Creative Commons
Attribution 4.0 International license (CC BY 4.0) which allows for the sharing and adaptation of the
datasets for any purpose, provided that the appropriate credit is given (see Citation Policy)."
That sentence was read as quoted in a public discussion (fairlearn issue 1064), not on the page of
this data set. Credit and the list of changes are in digits.provenance.txt.

The copy was taken from scikit-learn, which carries this notice:

BSD 3-Clause License

Copyright (c) 2007-2026 The scikit-learn developers.
All rights reserved.

Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:

* Redistributions of source code must retain the above copyright notice, this
  list of conditions and the following disclaimer.

* Redistributions in binary form must reproduce the above copyright notice,
  this list of conditions and the following disclaimer in the documentation
  and/or other materials provided with the distribution.

* Neither the name of the copyright holder nor the names of its
  contributors may be used to endorse or promote products derived from
  this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS"
AND ANY EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE
IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE
FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER
CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY,
OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""


def missing_labels(form: str, sheet: str) -> int | None:
    """How many labels of the form a sheet lacks; None unless it is the form with some left out."""
    matcher = difflib.SequenceMatcher(None, form, sheet, autojunk=False)
    kinds = {kind for kind, *_ in matcher.get_opcodes()}
    return len(form) - len(sheet) if kinds <= {"equal", "delete"} else None


def main(output: Path) -> str:
    """Write the three files and return the SHA-256 of the data."""
    pixels, labels = load_digits(return_X_y=True)
    if pixels.shape != (NUM_ITEMS, 64) or not np.isin(pixels, np.arange(17)).all():
        raise SystemExit("load_digits() is not the set this script was written for; stop.")
    cuts = [*SHEET_STARTS, NUM_ITEMS]
    sheets = ["".join(map(str, labels[a:b])) for a, b in itertools.pairwise(cuts)]
    missing = [missing_labels(sheets[0], sheet) for sheet in sheets]
    # What PROVENANCE says of the sheets, in their order.
    if missing != [0, 4, None, 0, 0, 0, 0, 7, 2, 0, 2, 0, 8, 0]:
        raise SystemExit(f"the sheets do not repeat the form as recorded: {missing}; stop.")
    sha256 = save_dataset(
        output / "digits.npz",
        pixels.astype(np.uint8).reshape(NUM_ITEMS, 8, 8),
        labels,
        class_names=[str(k) for k in range(10)],
        channel_names=[f"column {k}" for k in range(8)],
        groups={"sheet": np.repeat(np.arange(len(sheets)), np.diff(cuts))},
        scale=np.full(8, 1 / 16),
    )
    for what, text in (("provenance", PROVENANCE.format(sha256=sha256)), ("licence", LICENCE)):
        (output / f"digits.{what}.txt").write_bytes(text.encode())
    return sha256


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=FOLDER)
    digest = main(parser.parse_args().output)
    print(f"digits.npz SHA-256 {digest}")
    print("as recorded" if digest == SHIPPED["digits"] else f"recorded is {SHIPPED['digits']!r}")
