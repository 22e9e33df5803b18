"""The figures that compare methods, on tiny presets: files, drawn numbers in the CSV, captions."""

import csv

import numpy as np
import pytest

from linattn.experiments import load_results
from linattn.experiments.catalog import find_folder, load_script, load_sweep
from linattn.experiments.store import write_manifest, write_result
from linattn.experiments.worker import compute
from linattn.report.looks import LOOKS
from linattn.report.style import Sheet
from linattn.report.worlds import mostly, pages, reproduced, worlds

FIGURES = (
    "methods", "second_stage", "update_jump", "part_schedule", "personal_attention", "gates",
    "selection",
)  # fmt: skip


def figure(name):
    return load_script(find_folder("figures") / f"{name}.py")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The tiny preset of every simulation of methods."""
    folder = tmp_path_factory.mktemp("store")
    for kind in FIGURES:
        specs = load_sweep(find_folder("simulations") / f"{kind}.py").specs("tiny")
        for spec in specs:
            write_result(folder, spec, compute(spec))
        write_manifest(folder, kind, preset="tiny", specs=specs)
    return folder


@pytest.fixture(scope="module")
def drawn(store, tmp_path_factory):
    """Files and sheets of every figure, drawn once; PDFs are left out for speed."""
    folder, sheets, save, image = tmp_path_factory.mktemp("figures"), [], Sheet.save, Sheet._image
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sheet, "save", lambda self, out: sheets.append(self) or save(self, out))
        patch.setattr(Sheet, "_image", lambda s, kind: image(s, kind) if kind == "png" else b"")
        made = {}
        for name in FIGURES:
            first = len(sheets)
            files = figure(name).draw(store, folder)
            made[name] = (files, sheets[first:])
    return made


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", FIGURES)
def test_files(drawn, name):
    files, _ = drawn[name]
    assert figure(name).NAME == figure(name).KIND == name
    assert [path.suffix for path in files] == [".png", ".pdf", ".csv"]
    assert files[0].stem == name
    assert files[0].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FIGURES)
def test_csv_is_what_is_drawn(drawn, name):
    """Every labelled line of every panel has its numbers in the CSV."""
    files, sheets = drawn[name]
    rows, count = table(files[-1]), 0
    for axes, panel in sheets[0].panels.items():
        here = [r for r in rows if r["panel"] == panel.title and r["mark"] != "row name"]
        for line in axes.lines:
            held = [row for row in here if row["series"] == line.get_label()]
            if line.get_label().startswith("_") or held[0]["mark"] in ("horizontal", "vertical"):
                continue
            stored = {(row["x"], row["y"]) for row in held}
            for x, y in zip(*line.get_data(), strict=True):
                pair = tuple("" if v != v else str(float(v)) for v in (x, y))
                assert pair in stored
                count += 1
    assert count > 10


@pytest.mark.parametrize("name", FIGURES)
def test_the_caption_states_the_claim_and_its_outcome(store, drawn, name):
    caption = " ".join(drawn[name][1][0].figure.get_suptitle().split()).replace("\u00a0", " ")
    assert any(word in caption for word in ("Claim", "Premise", "Prediction"))
    assert "reproduced" in caption
    assert "10–90 %" in caption
    words = figure(name).summary(store)
    assert "reproduced" in words
    assert "target 0" in words


def test_the_outcome_is_computed(store, tmp_path, monkeypatch):
    """Swapping the two ways of training in the stored numbers turns the verdict around."""
    module = figure("update_jump")
    before = module._claims(worlds(load_results(store, "update_jump")))
    assert "that it vanishes for one block of one layer is reproduced in both worlds" in before
    monkeypatch.setattr(module, "_mismatch", lambda world, variant: np.ones(2))
    assert "is not reproduced in any of 2 worlds" in module._claims(
        worlds(load_results(store, "update_jump"))
    )


@pytest.mark.parametrize("name", FIGURES)
def test_diverged_runs_are_drawn_as_far_as_they_go(tmp_path, monkeypatch, name):
    monkeypatch.setattr(Sheet, "_arrange", lambda self: None)
    monkeypatch.setattr(Sheet, "_image", lambda self, suffix: b"")
    sweep = load_sweep(find_folder("simulations") / f"{name}.py")
    specs = [
        *sweep.specs("tiny", {"local_lr": 5.0, "seed": 0}),
        *sweep.specs("tiny", {"local_lr": 5.0, "seed": 1}),
    ]
    for spec in specs:
        write_result(tmp_path, spec, compute(spec))
    write_manifest(tmp_path, name, preset="tiny", specs=specs)
    assert figure(name).draw(tmp_path, tmp_path / "figures")
    assert figure(name).summary(tmp_path)


@pytest.mark.parametrize("name", FIGURES)
def test_missing_results(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"linattn run simulations/{name}.py"):
        figure(name).draw(tmp_path, tmp_path / "figures")


def test_worlds_have_names_of_their_own(store):
    found = worlds(load_results(store, "methods"))
    assert len({world.label for world in found}) == len(found) == 2
    assert all(world.seeds == 2 for world in found)
    along = worlds(load_results(store, "personal_attention"), along="problem.kernel_heterogeneity")
    assert [world.seeds for world in along] == [4]


def test_paper_presets_can_be_told_apart():
    """Every world of every paper preset would have a label of its own."""
    from linattn.experiments.store import Result

    for name in FIGURES:
        specs = load_sweep(find_folder("simulations") / f"{name}.py").specs("paper")
        along = "problem.kernel_heterogeneity" if name == "personal_attention" else "seed"
        found = worlds([Result(spec, None, {}, None) for spec in specs], along=along)
        labels = [world.label for world in found]
        assert len(set(labels)) == len(labels), name


def test_every_method_has_a_look_of_its_own():
    from typing import get_args

    from linattn.experiments.method_specs import MethodName

    names = get_args(MethodName)
    shown = [(LOOKS[n].colour, LOOKS[n].line, LOOKS[n].marker) for n in names]
    assert len(set(shown)) == len(names)


def test_words():
    assert reproduced([]) == "not tested"
    assert reproduced([False, False]) == "not reproduced in any of 2 worlds"
    assert mostly([True, True, False]) is False
    assert [list(p) for p in pages([1, 2, 3], 2)] == [[1, 2], [3]]
