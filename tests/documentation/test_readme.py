"""The README's numbers are those of the record, and what it says of commands is so."""

import re

from documentation.pages import ROOT, blocks, same_output
from pages import RECORD, told

import linattn as la
from linattn.cli import app
from linattn.experiments.find import load_module
from linattn.report.words import OF_BOOTSTRAP, OF_SEEDS

README = (ROOT / "README.md").read_text(encoding="utf-8")
WRITER = load_module(ROOT / "scripts" / "write_readme.py")


def part(name):
    return told(name, ROOT / "README.md")


def test_claims_are_those_of_the_record():
    assert part("claims") == WRITER.claims_part()
    known = WRITER.recorded()
    ours = [
        c.id for c in la.claims()
        if c.provenance == "ours" and c.kind != "report" and c.id in known
    ]  # fmt: skip
    assert re.findall(r"^\| ([^|]+) \|", part("claims"), re.M)[2:] == ours


def test_what_sampling_does_is_what_the_record_says():
    assert part("sampling") == WRITER.in_short()
    assert part("pays") == WRITER.when_it_pays() + "\n"
    caption = (RECORD / "paper" / "participation.md").read_text(encoding="utf-8")
    for words in (OF_BOOTSTRAP, OF_SEEDS):
        assert words in part("sampling")
        assert words in caption


def test_the_answer_is_the_one_of_the_example():
    assert same_output(part("example"), WRITER.example_part(README))
    languages = {block.language for block in blocks("README.md")}
    assert languages == {"python", "sh", "powershell", "text"}


def test_what_the_readme_says_about_the_example():
    """Control variates end lower, at twice the traffic; one local step has no trade-off."""
    names = {}
    code = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    exec(code[: code.index("print")], names)
    problem = names["problem"]
    params = la.initial_params(problem)
    setting = {"rounds": 300, "local_lr": 0.02, "metrics": ["objective", "floats_up"]}
    average, frozen, corrected = (
        la.run(method, problem, params, local_steps=10, **setting).columns
        for method in (la.fed_avg(), la.fed_frozen(warmup_rounds=90), la.scaffold())
    )
    assert corrected["objective"][-1] < frozen["objective"][-1] < average["objective"][-1]
    assert corrected["floats_up"][-1] == 2 * average["floats_up"][-1]
    lengths = [0, 100, 200, 300]
    for held, steps in ((problem, 1), (la.pool(problem), 10)):
        table = la.bias_drift(
            held, params, warmup_lengths=lengths, rounds=300, local_steps=steps, local_lr=0.02,
            reference=1.0,
        )  # fmt: skip
        assert table.attrs["warmup_star"] == 300
    said = part("example")
    assert "T* = 90 of R = 300" in said
    tuned, exact = re.findall(r"(saves nothing|saves \d+%|costs \d+%)", said)
    assert int(re.search(r"saves (\d+)", tuned).group(1)) < 10
    assert int(re.search(r"\d+", exact).group()) > 30


def test_every_command_is_described_and_no_other():
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `linattn (\w+)", page, re.M)
    assert sorted(described) == sorted(command.name for command in app.registered_commands)


def test_versions_agree():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {la.__version__}\n" in cited
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{la.__version__}"' in declared
    assert f"## {la.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
