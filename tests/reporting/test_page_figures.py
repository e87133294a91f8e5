"""Figures as parts of a page: their ids, colours and text under the pointer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from builders import CLASSES
from drawn_results import (
    data,
    search_of,
    usual,
    with_searches,
)

from hirise_imb.reporting import Results, html
from hirise_imb.reporting.figures import gallery, style, svg


@pytest.fixture(scope="module")
def results() -> Results:
    return usual()


@pytest.fixture(scope="module")
def parts(results: Results) -> dict[str, str]:
    """The figures of a page with searches, as parts of it, by name."""
    drawn = gallery.of_study(with_searches(results, search_of(12)))
    figures = {name: draw().figure for name, draw in drawn.items() if not name.startswith("confusion/")}
    return {name: svg.embed(svg.draw_svg(canvas), name) for name, canvas in figures.items()}


def test_figures_of_a_page_have_no_style_attributes_and_no_common_ids(parts: Mapping[str, str]) -> None:
    ids: list[str] = []
    for name, part in parts.items():
        root = ElementTree.fromstring(part)
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert all(reference in own for reference in re.findall(r"url\(#([^)]*)\)", part)), name
        ids += own
        assert not [element for element in root.iter() if "style" in element.attrib or element.tag == "style"], name
        assert not re.search(r"href|<image|\bon[a-z]+=", part), name
    assert len(ids) == len(set(ids)) > 5


def test_colours_of_figures_are_those_of_the_page(parts: Mapping[str, str]) -> None:
    defined: dict[str, list[str]] = {}
    css = (Path(html.__file__).parent / "templates" / "figures.css.jinja").read_text(encoding="utf-8")
    for name, colour in re.findall(r"(--[a-z0-9-]+): (#[0-9a-f]+);", css):
        defined.setdefault(name, []).append(colour)
    of_page = {"--paper", "--soft", "--line"}
    for name, part in parts.items():
        colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', part)) - {"none", "currentColor"}
        assert all(colour.startswith("var(--") for colour in colours), name
        used = {colour[4:-1] for colour in colours} - of_page
        # A light and a dark one.
        assert all(len(defined[colour]) == 2 for colour in used), name


def test_marks_have_text_under_the_pointer(parts: Mapping[str, str], results: Results) -> None:
    for name, part in parts.items():
        assert "<title>" in part, name
    [plain] = [text for text in titles_of(parts["figures/arms"]) if text.startswith("plain: macro F1")][:1]
    assert f"{results.main_score('plain').mean:.3f}, 95 % confidence interval" in plain
    assert len(titles_of(parts["figures/f1_per_class"])) == len(results.arms) * len(CLASSES)
    sources = titles_of(parts["figures/sources"])
    assert sum("recall" in text for text in sources) == len(data(results, "sources"))


def titles_of(part: str) -> list[str]:
    return [str(title.text) for title in ElementTree.fromstring(part).iter("title")]


def test_a_mark_keeps_its_place_in_a_page() -> None:
    canvas = style.figure(4, 3, (0.5, 0.5, 0.5, 0.5))
    axes = canvas.subplots()
    xs, ys = [0, 0.25, 0.5, 0.75, 0.75, 1], [0.1, 0.9, 0.2, 0.2, 0.5, 0.8]
    axes.plot(xs, ys, color=style.BLUE)
    [squares] = axes.plot([0.25], [0.9], "s", color=style.ORANGE)
    style.add_hover_text(squares, "a <b> & c")
    part = svg.embed(svg.draw_svg(canvas), "figures/some figure")
    root = ElementTree.fromstring(part)
    assert root.attrib["viewBox"] == "0 0 288 216"
    assert (root.attrib["width"], root.attrib["height"]) == ("384", "288")
    [line] = [path.attrib["d"] for path in root.iter("path") if path.get("stroke") == "var(--blue)"]
    drawn = axes.transData.transform(np.column_stack([xs, ys])) * 72 / canvas.dpi
    places = np.column_stack([drawn[:, 0], 216 - drawn[:, 1]])
    np.testing.assert_allclose(corners_of(line), places, atol=0.011)
    [square] = [path for path in root.iter("path") if path.get("fill") == "var(--orange)"]
    corners = np.array(re.findall(r"-?[0-9.]+", square.attrib["d"].replace("H", " H").replace("V", " V")), float)
    assert corners[0] == pytest.approx(places[1, 0] - 3, abs=0.011)
    assert titles_of(part) == ["a <b> & c"]


def corners_of(path: str) -> list[tuple[float, float]]:
    """The corners of a path that consists of a start and of steps."""
    x, y = 0.0, 0.0
    corners = []
    for command, text in re.findall(r"([A-Za-z])([^A-Za-z]*)", path):
        numbers = [float(number) for number in text.split()]
        steps = {"h": [(number, 0.0) for number in numbers], "v": [(0.0, number) for number in numbers]}
        for right, down in steps.get(command, list(zip(numbers[::2], numbers[1::2], strict=False))):
            x, y = x + right, y + down
            corners.append((x, y))
    return corners
