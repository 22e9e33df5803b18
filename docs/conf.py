"""The site: ``sphinx-build -W docs build/site``. Nothing is fetched, now or by a reader."""

import sys
from pathlib import Path

import linattn

sys.path.insert(0, str(Path(__file__).parent))

project = "linattn"
author = "the linattn authors"
version = release = linattn.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "extension"]
exclude_patterns = ["record"]
suppress_warnings = ["myst.header"]
myst_heading_anchors = 3
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more
default_role = "py:obj"

html_theme = "furo"
html_title = f"linattn {version}"
html_copy_source = False
html_show_copyright = False
