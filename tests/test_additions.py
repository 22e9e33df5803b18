"""What an addition costs: one of each kind is added to a copy, and the tests of the house pass.

`tests/additions/KIND` holds the new files of an addition, `LINES` what existing files get. The
number of both together is what `CONTRIBUTING.md` promises.
"""

import itertools
import re
import shutil
from typing import NamedTuple

import pytest
from processes import ROOT, printed

NEW = ROOT / "tests" / "additions"
KINDS = sorted(path.name for path in NEW.iterdir())
COPIED = ("linattn", "simulations", "figures", "scripts", "tests", "docs", "paper_notes.md",
          "README.md", "CONTRIBUTING.md", "pyproject.toml")  # fmt: skip
NOTES = "paper_notes.md"
FIGURES, CASES, GUARDS = (
    f"tests/{path}.py::test_" for path in ("figures/test_figures", "claims/test_cases",
                                           "claims/test_guards"))  # fmt: skip
TESTS = (
    "tests/test_paper_notes.py",
    "tests/test_architecture.py",
    "tests/experiments/test_simulation.py::test_every_simulation_declares_the_three_presets",
    f"{FIGURES}every_setting_of_every_preset_has_a_label_of_its_own",
    f"{FIGURES}modules_do_not_import_matplotlib",
    f"{FIGURES}every_method_has_a_look_of_its_own",
    "tests/federated/test_added.py",
    f"{CASES}every_claim_has_its_case",
    f"{CASES}the_numbers_are_the_twins[C99-0]",
    f"{GUARDS}a_stored_instance_breaks_what_does_not_apply[C99-minibatches]",
    f"{GUARDS}every_claim_applies_and_holds_or_there_is_a_reason[minibatches]",
    "tests/test_record.py::test_claim_was_checked_on_many_instances[C99]",
    "tests/claims/test_guards_record.py",
    "tests/data/test_datasets.py::test_the_shipped_files_carry_their_digest_provenance_and_licence",
    "tests/oracles/test_added.py",
)


class Line(NamedTuple):
    """Text put in front of the one and only `before` of a file."""

    path: str
    before: str
    text: str


ROWS = {"simulation"}
"""Kinds whose row in the notes is not counted."""
TABLE = "linattn/federated/methods/table.py"
LINES = {
    "simulation": [
        Line(NOTES, "| C12 | gauge", "| added | squares | `linattn.objectives.joint.Joint` | "
             "`tests/test_additions.py` | `added` |\n"),
    ],
    "method": [
        Line(TABLE, "from linattn.federated.methods.averaging import",
             "from linattn.federated.methods.added import added\n"),
        Line(TABLE, '    "scaffold": Listed(',
             '    "added": Listed("Added", lambda c: added(), common=False),\n'),
    ],
    "claim": [
        Line("tests/claim_cases/table.py", '    "C1": Case(',
             '    "C99": New(((lambda case: one(norm(slope(case)), norm(slope(case)), '
             '2 * norm(slope(case))), {}),), deviations={"minibatches": 0}),\n'),
        Line("tests/claim_cases/table.py", "Case, Long = ClaimCase",
             "from reference import flatten, gradient\nfrom claim_cases.build import norm, one\n"
             "def slope(at):\n    return flatten(*gradient(at.inst, at.theta, at.value))\n\n"),
        Line(NOTES, "| C12 | gauge", "| C99 | ∇F = Σp∇F_i | "
             "`linattn.claims.ours.c99_added.mean_gradient` | `tests/test_additions.py` | |\n"),
        Line(NOTES, "## 9. The other methods", "**C99.** ∇F = Σp_i∇F_i.\n\n"),
    ],
    "data_set": [
        Line("linattn/data/datasets.py", '    "watch": "', '    "added": "{digest}",\n'),
        Line("linattn/data/splits.py", '    "schools": Splits(',
             '    "added": Splits(lambda split, **options: items_split(split, '
             'dataset=load_dataset("added"), **options), ("iid", "dirichlet"), "iid", 41),\n'),
    ],
    "problem_kind": [],
}  # fmt: skip
FOUND = """
from pathlib import Path
import linattn as la
from linattn.claims.instances import random_instance
from linattn.claims.table import check_instance
from linattn.experiments.find import find_scripts, load_simulations
from linattn.experiments.specs import WorldSpec
from linattn.report.looks import looks_of

assert "added" in [held.name for held in load_simulations()]
assert "added" in [path.stem for path in find_scripts("figures")]
(claim,) = [claim for claim in la.claims() if claim.id == "C99"]
drawn = [random_instance(0, index) for index in range(20)]
assert {check_instance(claim, at._replace(batch_size=None)).status for at in drawn} == {"holds"}
assert la.load_dataset("added").num_items == 40
assert WorldSpec(data="added").world().problem.num_sequences == 30
assert looks_of(["added"])["added"].label == "Added"
"""


def new_files(kind):
    """New files of a kind, by their place in the repository."""
    return {p.relative_to(NEW / kind).as_posix(): p for p in (NEW / kind).rglob("*.py")}


def promised(text):
    """The counts that a text states: ``method 3``, ``problem kind 3``."""
    kinds = "|".join(kind.replace("_", " ") for kind in KINDS)
    return {kind.replace(" ", "_"): int(n) for kind, n in re.findall(rf"({kinds}) (\d)", text)}


def test_contributing_says_what_each_costs():
    said = promised((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    table = (ROOT / "docs" / "maintainers.md").read_text(encoding="utf-8")
    assert set(said) == set(KINDS)
    for kind in KINDS:
        touched = {*new_files(kind), *(line.path for line in LINES[kind])}
        assert len(touched) == said[kind] + (kind in ROWS), touched
        assert f"\n| {kind.replace('_', ' ')} |" in table


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A copy of the repository, with what is compiled, and one of everything added."""
    root = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, root / name)
    for kind in KINDS:
        for path, file in new_files(kind).items():
            shutil.copy2(file, root / path)
    digest = python(root, "scripts/make_added.py").strip()
    for path, before, text in itertools.chain.from_iterable(LINES.values()):
        held = (root / path).read_text(encoding="utf-8")
        assert held.count(before) == 1, f"{path}: {before}"
        text = text.replace("{digest}", digest) + before
        (root / path).write_text(held.replace(before, text), encoding="utf-8")
    return root


def python(root, *words):
    """Run Python in the copy; return what it printed."""
    own = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return printed(*words, place=root, timeout=600, **own)


def test_everything_added_is_found(place):
    python(place, "-c", FOUND)


def test_an_added_simulation_runs_and_is_drawn(place):
    out = python(place, "-m", "linattn", "run", "added", "--preset", "tiny")
    assert out.endswith("2 computed, 0 there before\n")
    assert "2 runs" in python(place, "-m", "linattn", "figures", "added")
    assert (place / "results" / "figures" / "added.png").stat().st_size > 10_000


def test_the_tests_of_the_house_pass(place):
    python(place, "-m", "pytest", "-p", "no:cacheprovider", *TESTS)
