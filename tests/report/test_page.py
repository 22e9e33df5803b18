"""The report of a folder: one page, whole, offline, whose filter and figures work in a browser."""

import csv
import hashlib
import html
import json
import re
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest
from experiments.toy import SIMULATION, ToySpec

from linattn.claims import Condition, Verdict
from linattn.experiments.find import PageLook
from linattn.experiments.store import write_manifest
from linattn.experiments.verification import COLUMNS
from linattn.report import contents as gathering
from linattn.report.canvas import Page
from linattn.report.page import IMAGES, write_report
from scripts import call, put

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
CLAIMS = [
    {"claim": "C1", "kind": "identity", "provenance": "ours", "status": "holds", "instances": "4",
     "measured": "2", "bound": "2", "tightness_max": "1e-16", "statement": "gap", "source": "here"},
    {"claim": "C4", "kind": "upper", "provenance": "ours", "status": "violated", "instances": "4",
     "measured": "10", "bound": "9", "tightness_max": "0.9", "statement": "<b>descent</b> & more"},
    {"claim": "Khaled", "kind": "upper", "provenance": "recalled", "status": "refused",
     "instances": "1", "statement": "averages", "conditions": "ηL ≤ 1: slack -0.5"},
]  # fmt: skip


def fill(folder):
    """A store with verdicts, a figure, runs of a simulation, a damaged file."""
    specs = [ToySpec(seed=seed) for seed in (0, 1, 10)]
    for spec in specs:
        put(folder, SIMULATION, spec)
    write_manifest(folder, "toy", "few", [SIMULATION.task(spec) for spec in specs])
    (folder / "toy-0000000000000000.nc").write_bytes(b"broken")
    (folder / "verify").mkdir()
    with open(folder / "verify" / "claims.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(CLAIMS)
    for name in ("first", "second"):
        page, across = Page(name), np.arange(30.0)
        for title in ("left", "</script><i>right"):
            panel = page.panel(title, "round", "loss")
            panel.add("line", "fed_avg", across, 0.7**across, ends=(0.5 * 0.7**across, across))
            panel.level("oracle", 3.0, upright=True)
        page.save(folder / "figures", PageLook())
    (folder / "figures" / "first.md").write_text("What & why.\n\nSecond part.", encoding="utf-8")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("my results")
    fill(folder)
    return folder


@pytest.fixture
def verdicts(monkeypatch):
    """What the stored results themselves must satisfy."""
    found = [
        Verdict("C9 stored", "identity", "holds", 1.5, 1.5, 0.0, (), (Condition("stable", 0.0),),
                (), 1e-12, 3.0)
    ]  # fmt: skip
    monkeypatch.setattr(gathering, "stored_verdicts", lambda store: found)


@pytest.fixture
def page(store, verdicts):
    return write_report(store)


def embedded(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S).group(1))


def test_everything_is_on_the_page(page):
    text = page.read_text(encoding="utf-8")
    plain = html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<script.*?</script>", "", text)))
    words = " ".join(plain.split())
    assert "3 stored runs of 1 simulations, 2 figures, 4 verdicts: 1 violated, 1 refused" in words
    assert "C4 violated <b>descent</b> & more" in words
    assert "Khaled refused averages" in words
    assert "upper, recalled" in words
    assert "C9 stored holds on the stored results" in words
    assert "What & why. Second part." in words
    assert "toy : 1 damaged, 3 stored; presets few (3)" in words
    assert list(embedded(text)) == ["first", "second"]
    assert [panel["title"] for panel in embedded(text)["first"]] == ["left", "</script><i>right"]


def test_specs_are_sorted_by_number_and_say_where_they_come_from(store, verdicts):
    (runs,) = gathering.contents(store).runs
    assert (runs.varied, runs.specs) == (["seed"], [["0"], ["1"], ["10"]])
    assert runs.same
    assert runs.origins[0]["versions"]["numpy"] == np.__version__


def test_warnings(store, tmp_path, verdicts, monkeypatch):
    found = gathering.contents(store).warnings
    assert found == ["toy-0000000000000000.nc is damaged and in no figure.", "C4 is violated."]
    held = shutil.copytree(store, tmp_path / "held")
    next(path for path in held.glob("toy-*.nc") if path.read_bytes() != b"broken").unlink()
    shutil.rmtree(held / "figures")
    shutil.rmtree(held / "verify")
    monkeypatch.setattr(gathering, "stored_verdicts", lambda store: [])
    assert gathering.contents(held).warnings[1:] == [
        "1 of 3 runs of toy --preset few are gone.",
        f"No claim was checked: `linattn verify --output {held}` does it.",
        f"No figure was drawn: `linattn figures --output {held}` does it.",
    ]


def test_same_folder_same_bytes(store, verdicts, page):
    before = page.read_bytes()
    assert write_report(store).read_bytes() == before


def test_images_beyond_the_room_are_linked(store, verdicts, monkeypatch):
    held = write_report(store).read_text(encoding="utf-8")
    assert held.count('src="data:image/png;base64,') == 2
    room = int(1.5 * len(re.search(r'src="data:image/png;base64,([^"]*)"', held).group(1)))
    monkeypatch.setattr("linattn.report.page.IMAGES", room)
    text = write_report(store).read_text(encoding="utf-8")
    assert text.count('src="data:image/png;base64,') == 1
    assert 'src="figures/second.png"' in text


def test_a_page_stays_below_eight_mebibytes():
    fixed = sum(len(path.read_bytes()) for path in (files("linattn.report") / "assets").iterdir())
    assert fixed + IMAGES < 7 * 2**20


def test_command(store, verdicts, capsys):
    assert call("report", "--output", store) == 0
    assert capsys.readouterr().out == f"{store / 'report.html'}\n"
    assert call("report", "--output", store / "nothing") == 2
    assert "store must be a folder with results" in capsys.readouterr().err


def test_the_plotting_library_is_the_one_it_says():
    assets = files("linattn.report") / "assets"
    digest = hashlib.sha256((assets / "plotly-basic.min.js").read_bytes()).hexdigest()
    assert digest in (assets / "plotly-basic.provenance.txt").read_text(encoding="utf-8")


WATCH = """<script>
window.seen = [];
addEventListener("error", (event) => seen.push("error: " + event.message));
addEventListener("unhandledrejection", (event) => seen.push("rejected: " + event.reason));
addEventListener("securitypolicyviolation", (event) => seen.push("request: " + event.blockedURI));
for (const name of ["error", "warn"]) console[name] = (text) => seen.push(name + ": " + text);
</script>"""
ACT = """<script>
addEventListener("load", () => setTimeout(async () => {
  const rows = () => [...document.querySelectorAll("#verdicts tbody tr")]
    .filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
  const type = (text) => { const box = document.querySelector("#filters input[type=search]");
    box.value = text; box.dispatchEvent(new Event("input")); return rows(); };
  const check = (state) => { document.querySelector(`#filters input[value="${state}"]`).click();
    return rows(); };
  const sort = (k) => { document.querySelectorAll("#verdicts thead button")[k].click();
    return rows(); };
  const found = { opened: performance.now(), all: rows(), words: type("DESCENT more"),
    none: type("nothing"), again: type(""), unchecked: check("holds"), checked: check("holds"),
    up: sort(5), down: sort(5), shown: document.getElementById("shown").textContent };
  document.getElementById("section-figures").scrollIntoView();
  await new Promise((done) => setTimeout(done, 500));
  const plots = [...document.querySelectorAll("#figure-first .plot")];
  found.plots = plots.map((plot) => plot.data.map((trace) => [trace.meta, trace.visible]));
  document.querySelector("#figure-first .bar button").click();
  found.hidden = plots.map((plot) => plot.data.map((trace) => [trace.meta, trace.visible]));
  const scale = document.querySelectorAll("#figure-first select")[1];
  scale.value = "linear"; scale.dispatchEvent(new Event("change"));
  found.scales = plots.map((plot) => plot.layout.yaxis.type ?? "linear");
  found.uploads = document.querySelectorAll('[data-title*="hare"], [data-title*="loud"]').length;
  found.buttons = document.querySelectorAll(".modebar-btn").length;
  found.requests = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:") && !name.startsWith("blob:"));
  found.seen = seen;
  document.title = JSON.stringify(found);
}, 0));
</script>"""


@pytest.fixture(scope="module")
def browsed(store, tmp_path_factory):
    """What a browser saw on the page while filters, legends and scales were used."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    text = write_report(store).read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("browser")
    watched = folder / "watched.html"
    watched.write_text(
        text.replace("<style>", WATCH + "<style>", 1).replace("</body>", ACT + "</body>"),
        encoding="utf-8",
    )
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900",
         f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=6000",
         "--run-all-compositor-stages-before-draw", "--dump-dom", watched.as_uri()],
        capture_output=True, text=True, encoding="utf-8", timeout=120, check=True,
    )  # fmt: skip
    return json.loads(html.unescape(re.search(r"<title>(\{.*?)</title>", done.stdout).group(1)))


def test_no_error_and_no_request_in_a_browser(browsed):
    assert browsed["seen"] == []
    assert browsed["requests"] == []
    assert browsed["buttons"] > 0
    assert browsed["uploads"] == 0
    assert browsed["opened"] < 3000


def test_the_table_filters_and_sorts(browsed):
    everything = ["C1", "C4", "Khaled"]
    assert browsed["all"][:3] == browsed["again"][:3] == browsed["checked"][:3] == everything
    assert browsed["words"] == ["C4"]
    assert browsed["none"] == []
    assert browsed["unchecked"] == ["C4", "Khaled"]
    assert browsed["up"][:2] == ["C1", "C4"]  # measured 2, 10, and nothing last
    assert browsed["down"][:2] == ["C4", "C1"]
    assert browsed["up"][-1] == browsed["down"][-1] == "Khaled"
    assert browsed["shown"] == "3 of 3"


def test_figures_are_drawn_hidden_and_rescaled(browsed):
    names = [{meta for meta, _ in plot} for plot in browsed["plots"]]
    assert names == [{"FedAvg", "best length T*"}] * 2
    for plot, after in zip(browsed["plots"], browsed["hidden"], strict=True):
        assert all(visible is True for _, visible in plot)
        assert {meta for meta, visible in after if visible is False} == {"FedAvg"}
    assert browsed["scales"] == ["linear", "linear"]
