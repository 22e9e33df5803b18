"""Mutation run of the analytical side: every mutant of a bound must fail a claim test.

Mutants come from the source of `linattn/theory`, `linattn/analysis` and `linattn/claims`: every
number in arithmetic times ½ and times 2, every added or subtracted term dropped, every comparison
flipped. Each is run against the tests of claims in a forked process, the tests of its own module
first. Survivors are listed; those in `EQUIVALENT` carry the reason why no test can see them.

    python scripts/mutate_claims.py --sample 100
    python scripts/mutate_claims.py --module theory/inexact.py
    python scripts/mutate_claims.py --record results/mutants.json

With a record a run that was stopped continues: only what was killed is not tried again.
Exit status 1 if more than 5 % survive without a reason. Needs a platform with `os.fork`.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("theory", "analysis", "claims")
# Searches, tallies, storage, drawing of instances, and answers made of checked parts are
# no bounds.
LEFT_OUT = {
    *(f"claims/{name}.py" for name in ("instances", "adversary", "worst", "table", "tally")),
    *(f"analysis/{name}.py" for name in ("assess", "budget", "describe", "outputs", "suspicions")),
    *(f"analysis/{name}.py" for name in ("study", "study_cell")),
    *(f"theory/{name}.py" for name in ("certify", "balls")),
}
ALLOWED = 0.05
SECONDS = 240.0
FLIPPED = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
# Every number of a claim against the twin: seconds, and most mutants end here.
NUMBERS = "tests/claims/test_cases.py::test_the_numbers_are_the_twins"
# Modules that have tests of their own name, which notice most of their mutants.
OWN = (
    "theory/tracking", "theory/consensus", "theory/inexact", "theory/drift", "theory/published",
    "theory/population", "theory/scaffold", "theory/frozen", "theory/moments", "theory/impulse",
    "theory/prediction", "theory/in_context", "analysis/certificate", "analysis/centralized",
    "analysis/bias_drift",
)  # fmt: skip
FIRST = {f"{name}.py": (f"tests/{name.replace('/', '/test_')}.py",) for name in OWN} | {
    "theory/symmetry.py": (NUMBERS,),
    "theory/wick.py": ("tests/theory/test_population.py",),
    "theory/stage.py": ("tests/theory/test_frozen.py", "tests/theory/test_unequal_work.py"),
    "theory/bias.py": ("tests/theory/test_frozen.py", "tests/theory/test_unequal_work.py"),
    "theory/local_work.py": ("tests/theory/test_unequal_work.py",),
    "theory/congruence.py": ("tests/theory/test_moments.py",),
    "theory/local_noise.py": ("tests/theory/test_moments.py",),
    "theory/weights.py": ("tests/theory/test_moments.py",),
    "theory/interpolation.py": ("tests/theory/test_prediction.py",),
    "theory/in_context_law.py": ("tests/theory/test_in_context.py",),
    "theory/polynomials.py": ("tests/theory/test_polynomials.py", "tests/theory/test_frozen.py"),
    "analysis/descent_steps.py": (NUMBERS,),
    "analysis/mismatch.py": (NUMBERS,),
    "analysis/trajectory.py": (NUMBERS,),
    "analysis/applicable.py": ("tests/claims/test_guards.py",),
}
CLAIM_TESTS = tuple(
    f"tests/claims/test_{name}.py" for name in ("parts", "judge", "conditions", "broken", "guards")
)
REPLAY = "tests/claims/test_worst.py::test_the_tightest_instance_is_replayed"
# What is left of the tests above the room of a mutant; those below cannot see it.
REST = {
    "theory": (*CLAIM_TESTS, "tests/claims/test_cases.py", REPLAY, "tests/analysis"),
    "analysis": (*CLAIM_TESTS, "tests/claims/test_cases.py", REPLAY),
    "claims": ("tests/claims/test_cases.py", REPLAY, "tests/theory/test_published.py"),
}
_ALLOWANCE = "the rounding of a singular value, 1e-12 of it, no more than rounding itself"
_MARGIN = "a margin of 1e-9 in log s; every split gives a valid bound, and the best one is searched"
EQUIVALENT: dict[str, str] = {
    "theory/tracking.py _norm 1.0 + SPECTRAL_SLACK -> 1.0": _ALLOWANCE,
    "theory/tracking.py factor_size 1.0 + SPECTRAL_SLACK -> 1.0": _ALLOWANCE,
    "theory/consensus.py segment_constant 1.0 + SPECTRAL_SLACK -> 1.0": _ALLOWANCE,
    "analysis/certificate.py _step abs(self.profile) + sum((abs(x) for x in terms.values())) -> ": (
        "the scale of a rounding allowance of 1e-12; either part alone is of its size"
    ),
    "analysis/certificate.py finish rounds + 1 -> rounds + 0.5": "arange has R + 1 entries still",
    "analysis/mismatch.py aggregation_mismatch kernel - kernel_mean -> kernel": (
        "Σp B̃G(V_i − V̄) = B̃GΣp(V_i − V̄) = 0"
    ),
    "analysis/mismatch.py aggregation_mismatch model.value - mean.value -> model.value": (
        "Σp(B_i − B̃)GV̄ = 0"
    ),
    "analysis/centralized.py at set(wanted) - self._known.keys() -> set(wanted)": (
        "descends zero steps from what is known to what is known"
    ),
    "theory/published.py heterogeneous_smoothness 1.0 + SPECTRAL_SLACK -> 1.0": _ALLOWANCE,
    "theory/bias.py first_order_bias stage.hessians - stage.hessian -> stage.hessians": (
        "Σp A g* = A Σp g* = 0, so subtracting A from every A_i changes rounding only"
    ),
    "theory/inexact.py composite_bound np.log(max(": _MARGIN,
    "theory/inexact.py composite_bound top - 60.0": (
        "the grid only brackets the minimum that is searched next, and a split below e^-30 is "
        "none up to rounding"
    ),
    "theory/inexact.py composite_bound 1.0 / relative ** 2 - 1.0 -> 1.0 / relative ** 2 - 0.5": (
        "the splits it adds leave no descent and have an infinite bound"
    ),
}
"""Mutants that no test can see, by the start of their name, and why."""


class Mutant(NamedTuple):
    """A changed module: its path below linattn/, a stable name, and the new source."""

    path: str
    name: str
    source: str


class _Site(NamedTuple):
    node: ast.AST
    replacement: ast.expr
    text: str


def mutants(path: str) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    text = (ROOT / "linattn" / path).read_text(encoding="utf-8")
    tree = ast.parse(text)
    owners = _owners(tree)
    seen: Counter[str] = Counter()
    for k, site in enumerate(list(_sites(tree))):
        fresh = ast.parse(text)
        target = list(_sites(fresh))[k]
        source = ast.unparse(_Swap(target.node, target.replacement).visit(fresh))
        name = f"{path} {owners[site.node]} {site.text}"
        seen[name] += 1
        yield Mutant(path, name if seen[name] == 1 else f"{name} ({seen[name]})", source)


class _Swap(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.expr) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else super().visit(node)


def _owners(tree: ast.Module) -> dict[ast.AST, str]:
    """The innermost function, class or assigned name around every node."""
    held: dict[ast.AST, str] = {}

    def walk(node: ast.AST, owner: str) -> None:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            owner = node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and not owner:
            owner = node.targets[0].id
        held[node] = owner
        for child in ast.iter_child_nodes(node):
            walk(child, owner)

    walk(tree, "")
    return held


def _sites(tree: ast.Module) -> Iterator[_Site]:
    skipped = _not_numbers(tree)
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.BinOp):
            yield from _arithmetic(node)
        elif isinstance(node, ast.Compare) and len(node.ops) == 1:
            flipped = FLIPPED.get(type(node.ops[0]))
            if flipped is not None:
                new = ast.Compare(node.left, [flipped()], node.comparators)
                yield _site(node, new)


def _not_numbers(tree: ast.Module) -> set[ast.AST]:
    """Nodes inside annotations, subscripts (indices), strings and error messages."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, (ast.FunctionDef, ast.arg, ast.AnnAssign)):
            parts = [getattr(node, "returns", None), getattr(node, "annotation", None)]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, (ast.JoinedStr, ast.Raise)):
            parts = [node]
        for part in parts:
            if part is not None:
                found.update(ast.walk(part))
    return found


def _arithmetic(node: ast.BinOp) -> Iterator[_Site]:
    sides = (node.left, node.right)
    if any(isinstance(s, (ast.JoinedStr, ast.List, ast.Tuple)) or _is_text(s) for s in sides):
        return
    if isinstance(node.op, (ast.Add, ast.Sub)):
        yield _site(node, node.left)
        if isinstance(node.op, ast.Add):
            yield _site(node, node.right)
    for k, side in enumerate(sides):
        if isinstance(side, ast.Constant) and type(side.value) in (int, float):
            for factor in (0.5, 2):
                changed = ast.Constant(_scaled(side.value, factor))
                pair = (changed, node.right) if k == 0 else (node.left, changed)
                if changed.value != side.value:
                    yield _site(node, ast.BinOp(pair[0], node.op, pair[1]))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _scaled(value: float, factor: float) -> float:
    product = value * factor
    return int(product) if isinstance(value, int) and product == int(product) else product


def _site(old: ast.AST, new: ast.expr) -> _Site:
    return _Site(old, ast.copy_location(new, old), f"{ast.unparse(old)} -> {ast.unparse(new)}")


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads the mutated source under the module's own name."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> object:  # type: ignore[override]
        return compile(self.source, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.path = str(ROOT / "linattn" / mutant.path)
        self.name = "linattn." + mutant.path.removesuffix(".py").replace("/", ".")
        self.source = mutant.source

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:  # type: ignore[override]
        if name != self.name:
            return None
        loader = _Loader(name, self.path, self.source)
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


def survives(mutant: Mutant | None, tests: Sequence[str]) -> bool:
    """Whether all tests pass with the mutant in place, within the time allowed."""
    child = os.fork()
    if child == 0:
        _run_and_exit(mutant, tests)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False  # a mutant that does not end is noticed


def _run_and_exit(mutant: Mutant | None, tests: Sequence[str]) -> None:
    """In the child: import the mutant instead of the module, run pytest, leave."""
    import pytest

    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    if mutant is not None:
        sys.meta_path.insert(0, _Finder(mutant))
        _import_again()
    os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], [_NoShrinking()])))


class _NoShrinking:
    """Plugin: one failing example is enough, making it small takes most of the time."""

    def pytest_configure(self) -> None:
        """Before the tests are imported, and after the plugin of hypothesis."""
        from hypothesis import Phase, settings

        settings.register_profile("mutants", phases=(Phase.explicit, Phase.generate), database=None)
        settings.load_profile("mutants")


def _import_again() -> None:
    """Forget the rooms that a mutant may change or that build on them, and import them anew."""
    for name in list(sys.modules):
        if name.startswith(tuple(f"linattn.{room}" for room in (*ROOMS, "experiments", "report"))):
            del sys.modules[name]
    try:
        importlib.reload(importlib.import_module("linattn"))
    except Exception:  # the mutant cannot even be imported
        os._exit(1)


def warm() -> None:
    """Import everything and load what is compiled, so that every child starts with it.

    Nothing below the rooms of the mutants imports from them, so it need not be imported again.
    """
    sys.path.insert(0, str(ROOT))
    for name in ("pytest", "scipy.optimize", "scipy.stats", "xarray", "linattn"):
        importlib.import_module(name)
    claims = importlib.import_module("linattn.claims.table")
    instance = importlib.import_module("linattn.claims.instances").random_instance(0, 0)
    claims.check_all(claims.claims(), instance)


def first_tests(path: str) -> tuple[str, ...]:
    """The tests that most likely notice a mutant of a module."""
    if path.startswith("claims/"):
        return (NUMBERS, *CLAIM_TESTS)
    return FIRST.get(path, (f"tests/{path.split('/')[0]}",))


class Record:
    """Which mutants were killed and which survived, kept in a file if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.killed: dict[str, bool] = {}
        if path is not None and path.exists():
            self.killed = json.loads(path.read_text(encoding="utf-8"))

    def add(self, mutant: Mutant, *, killed: bool) -> None:
        """Note how a mutant fared."""
        self.killed[mutant.name] = killed
        if self.path is not None:
            text = json.dumps(self.killed, indent=0, ensure_ascii=False)
            self.path.write_text(text + "\n", encoding="utf-8")


def tried(chosen: Sequence[Mutant], record: Record) -> list[Mutant]:
    """Return the survivors, saying how each mutant fared."""
    alive, passing = [], set[tuple[str, ...]]()
    for k, mutant in enumerate(chosen, start=1):
        if record.killed.get(mutant.name):
            continue
        first = first_tests(mutant.path)
        rest = REST[mutant.path.split("/")[0]]
        for tests in {first, rest} - passing:
            if not survives(None, tests):
                raise RuntimeError(f"the tests fail without any mutant: {' '.join(tests)}")
            passing.add(tests)
        lived = survives(mutant, first) and survives(mutant, rest)
        alive += [mutant] if lived else []
        record.add(mutant, killed=not lived)
        state = "SURVIVED" if lived else "killed"
        print(f"{k}/{len(chosen)} {state} {mutant.name}", flush=True)
    return alive


def reason(mutant: Mutant) -> str | None:
    """Why no test can see this mutant, if that is known."""
    return next((why for name, why in EQUIVALENT.items() if mutant.name.startswith(name)), None)


def modules() -> list[str]:
    """Modules that state bounds, as paths below linattn/."""
    found = [p for room in ROOMS for p in sorted((ROOT / "linattn" / room).rglob("*.py"))]
    paths = [p.relative_to(ROOT / "linattn").as_posix() for p in found]
    return [p for p in paths if p not in LEFT_OUT and not p.endswith("__init__.py")]


def main() -> int:
    """Run the mutants that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", action="append", help="path below linattn/; default all")
    parser.add_argument("--sample", type=int, help="a random sample of so many mutants")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="only count the mutants")
    parser.add_argument("--record", type=Path, help="file of what was killed and what survived")
    options = parser.parse_args()
    every = [m for path in options.module or modules() for m in mutants(path)]
    if options.sample is not None and options.sample < len(every):
        every = random.Random(options.seed).sample(every, options.sample)
    if options.list:
        print(len(every))
        return 0
    warm()
    alive = tried(every, Record(options.record))
    unexplained = [m for m in alive if reason(m) is None]
    for mutant in alive:
        print(f"survivor: {mutant.name}: {reason(mutant) or 'no reason known'}")
    share = len(unexplained) / len(every)
    print(f"{len(every)} mutants, {len(alive)} survived, {len(unexplained)} without a reason "
          f"({share:.1%})")  # fmt: skip
    return int(share > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
