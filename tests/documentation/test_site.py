"""The site builds without a warning, links resolve, the tutorial runs as a notebook."""

import re
from importlib.util import find_spec

import pytest
from documentation.pages import ROOT, pages
from processes import finished

import linattn as la

SITE = ("sphinx", "myst_parser", "numpydoc", "furo")
NOTEBOOK = ("jupytext", "nbclient", "ipykernel")
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(#[^)\s]*)?\)")
PATH = re.compile(r"`((?:linattn|simulations|figures|tests|docs|scripts|benchmarks|\.ci)/[^`\s]*)`")
FETCHED = re.compile(r"<(?:script|img|iframe|source)[^>]+src=\"(https?:)?//|@import\s+url")
STYLE = re.compile(r"<link[^>]+rel=\"(?:stylesheet|preload|preconnect)\"[^>]+href=\"(https?:)?//")


def needs(packages):
    missing = [name for name in packages if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built from nothing with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    code, _, err = finished("-m", "sphinx", "-W", "--keep-going", "-q", ROOT / "docs", folder)
    assert (code, err) == (0, "")
    return folder


@needs(SITE)
def test_every_public_name_has_an_entry(site):
    text = "".join(p.read_text(encoding="utf-8") for p in (site / "reference").glob("*.html"))
    missing = [n for n in la.__all__ if n[0] != "_" and f'id="linattn.{n}"' not in text]
    assert missing == []


@needs(SITE)
def test_names_on_pages_link_to_the_reference(site):
    text = (site / "glossary.html").read_text(encoding="utf-8")
    assert 'href="reference/analysis.html#linattn.bias_drift"' in text
    assert len(set(re.findall(r'href="reference/\w+\.html#linattn\.(\w+)"', text))) > 30


@needs(SITE)
def test_a_reader_fetches_nothing(site):
    every = sorted(site.rglob("*.html"))
    assert len(every) > 25
    for path in every:
        text = path.read_text(encoding="utf-8")
        assert not FETCHED.search(text), path
        assert not STYLE.search(text), path


@needs(SITE)
def test_pages_of_code_show_their_code(site):
    text = (site / "howto" / "own_simulation.html").read_text(encoding="utf-8")
    assert 'class="highlight-python' in text
    assert "GainSpec" in text


@pytest.mark.parametrize("page", pages())
def test_links_resolve(page):
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)
    for target, anchor in LINK.findall(text):
        if target.startswith("http"):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        made = "reference" in target  # by the build
        assert made or path.exists(), f"{page}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in heads}
            assert anchor[1:] in slugs, f"{page}: {target}{anchor}"


@pytest.mark.parametrize("page", pages())
def test_paths_that_are_named_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in PATH.findall(text):
        if not re.search(r"[A-Z]{2}|\*", path):  # a pattern: NAME, cXX, *
            assert (ROOT / path).exists(), f"{page}: {path}"


@needs(NOTEBOOK)
def test_the_tutorial_is_a_notebook(tmp_path):
    import jupytext
    import nbclient

    notebook = jupytext.read(ROOT / "docs" / "tutorial.md")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) >= 8
    place = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()
    shown = [output.get("data", {}) for cell in cells for output in cell.outputs]
    assert sum("text/html" in data for data in shown) >= 3
    assert sum("image/png" in data for data in shown) == 1
