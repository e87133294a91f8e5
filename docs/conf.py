"""Settings of the documentation site: `make docs` builds it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

import hirise_imb
from hirise_imb.utils.environment import load_tensorflow

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_extensions"))

project = "hirise_imb"
author = "the authors of hirise_imb"
copyright = "the authors of hirise_imb, MIT licence"
release = hirise_imb.__version__

extensions = [
    "mathml",
    "strategy_pages",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "_extensions"]

html_theme = "pydata_sphinx_theme"
html_title = "hirise_imb"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_align": "left",
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a page that another one includes may begin below the first level

# Docstrings mark code by single backticks.
default_role = "code"
# scikit-learn writes these methods; its documentation explains them.
autodoc_default_options = {
    "members": True,
    "exclude-members": "set_fit_request, set_score_request, set_fit_resample_request, get_metadata_routing",
}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
# Names of types that say more than what they stand for.
autodoc_type_aliases = {
    name: name
    for name in (
        "ArrayLike",
        "Floats",
        "Ints",
        "Labels",
        "Logits",
        "Rows",
        "Splitter",
        "Estimator",
        "Settings",
        "Value",
    )
}
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

copybutton_exclude = ".linenos, .gp, .go"

sphinx_gallery_conf = {
    "examples_dirs": "../examples/pitfalls",
    "gallery_dirs": "pitfalls",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "matplotlib_animations": False,
    "write_computation_times": False,
}
load_tensorflow()  # here, without its messages, before autodoc imports it with the losses

OUTSIDE = {
    "CONTRIBUTING.md": "/contributing.md",
    "CHANGELOG.md": "/changelog.md",
    "benchmarks/results.md": "/benchmarks.md",
    "benchmarks/results-before.md": "/benchmarks-before.md",
    "tools/README.md": "/tools.md",
    "examples/pitfalls": "/pitfalls/index.rst",
}
"""Files outside `docs/` that pages link to as the repository shows them, and what the site has in their place."""


def _link_pages(_app: Sphinx, _docname: str, source: list[str]) -> None:
    text = source[0]
    for outside, page in OUTSIDE.items():
        text = re.sub(rf"\]\((?:\.\./)+{re.escape(outside)}\)", f"]({page})", text)
    text = re.sub(r"\]\((?:\.\./)+examples/pitfalls/(\w+)\.py\)", r"](/pitfalls/\1.rst)", text)
    # The page of a report is one file, which a reader of the site can download.
    source[0] = re.sub(r"\]\(((?:\.\./)+reports/[\w/-]+/report)\.md(?:#[\w-]+)?\)", r"](\1.html)", text)


def _mark_examples(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Makes an indented block after a paragraph a block of code, as Markdown has it; docstrings are written so."""
    marked = []
    paragraph = False
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("    ") and not before and paragraph:
            marked += ["::", ""]
        if line:
            paragraph = not line.startswith(" ")
        marked.append(line)
    lines[:] = marked


def setup(app: Sphinx) -> None:
    """Connects the changes of pages and docstrings."""
    app.connect("source-read", _link_pages)
    app.connect("autodoc-process-docstring", _mark_examples, priority=100)  # before napoleon
