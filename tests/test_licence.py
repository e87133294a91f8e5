"""The licences that the wheel declares are those of the files that it contains."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.licenses import canonicalize_license_expression

ROOT = Path(__file__).parents[1]
TITLES = {"MIT": "MIT License", "Apache-2.0": "Apache License"}
"""Beginning of the text of each licence."""


def test_the_expression_names_the_licence_of_each_text_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    expression = canonicalize_license_expression(project["license"])
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in project["license-files"]]
    # All of them apply at once, which OR would deny.
    assert sorted(expression.split(" AND ")) == sorted(TITLES)
    for title in TITLES.values():
        assert any(text.lstrip().startswith(title) for text in texts)


def test_all_licence_texts_of_the_package_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("LICENSE*", "hirise_imb/**/LICENSE*", "hirise_imb/**/NOTICE*")
        for path in ROOT.glob(pattern)
    }
    assert found == set(project["license-files"])


def test_the_readme_names_both_licences() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(name in readme for name in TITLES)
