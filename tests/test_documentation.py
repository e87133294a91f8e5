"""The pages of the documentation: their links, the page of each strategy, and the examples. `make docs` builds them."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

from hirise_imb.strategies import STRATEGIES
from hirise_imb.strategies.spaces import search_space

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
PAGES += sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
PAPER = re.compile(r"([A-Z][\w-]+)(?: (?:et al\.|& [A-Z][\w-]+|and [A-Z][\w-]+))? ((?:19|20)\d\d)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page_name_files(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_has_a_page(name: str) -> None:
    page = (DOCS / "strategies" / f"{name}.md").read_text(encoding="utf-8")
    for directive in ("strategy-parameters", "strategy-results", "strategy-papers"):
        assert f"```{{{directive}}} {name}\n" in page
    index = (DOCS / "strategies" / "index.md").read_text(encoding="utf-8")
    in_tables = chain.from_iterable(line.split()[1:] for line in index.splitlines() if line.startswith("```{strategy-"))
    assert name in set(in_tables)
    assert f"\n{name}\n" in index[index.index("{toctree}") :]


def test_the_bibliography_has_every_paper_that_a_declaration_names() -> None:
    entries = set(re.findall(r"^@\w+\{(\w+),", (DOCS / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))
    sources = {strategy.source for strategy in STRATEGIES.values()}
    for strategy in STRATEGIES.values():
        sources |= {parameter.source for parameter in search_space(strategy.parameters)}
    named = {author.lower() + year for source in sources for author, year in PAPER.findall(source)}
    assert len(named) > 40
    assert named - entries == set()


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.name)
def test_an_example_compiles(script: Path) -> None:
    compile(script.read_text(encoding="utf-8"), str(script), "exec")
