"""Turns matplotlib's SVG into small files, and those into parts of a page.

A page shows dozens of figures inside its own HTML, under a policy that may ignore `style` attributes. Therefore a file
has presentation attributes only, no ids but those of clipping areas, and text as text. Alone it has the colours and the
font of `style`; in a page its colours become the variables of the page, so that they follow a dark colour scheme.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, fromstring, register_namespace, tostring

from markupsafe import Markup

from hirise_imb.reporting.figures.style import CSS_COLOURS, FONTS, HOVER, INK, NEXT, PAPER

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_PIXELS_PER_POINT = 4 / 3
"""CSS pixels in a point, the unit of coordinates."""

_FEWEST_IN_GROUP = 3
_SHARED = {"clip-path", "fill", "fill-opacity", "font-size", "font-weight", "text-anchor", "stroke", "stroke-dasharray"}
_SHARED |= {"stroke-linecap", "stroke-linejoin", "stroke-opacity", "stroke-width"}
"""Attributes that shapes inherit from a group."""
_GENERATED_ID = re.compile(r"[\w.]+_\d+")
_NUMBER = r"-?\d+(?:\.\d+)?"
_COORDINATE = re.compile(r"-?\d+\.\d+")
_COMMAND = re.compile(r"([A-Za-z])([^A-Za-z]*)")
_COLOUR = re.compile(r'(fill|stroke)="(#[0-9a-f]{6})"')
_REFERENCE = re.compile(r'(id="|url\(#)(area\d+)')
_LINES = re.compile(r' d="(M[-. 0-9]+(?:[LHVM][-. 0-9]+){3,})"')
"""A path that has at least three lines after its start."""
_ROOT = re.compile(r'<svg xmlns="[^"]*" viewBox="([^"]*)"[^>]*?( fill=[^>]*)>')
_BACKGROUND = re.compile(r"<rect [^>]*/>")
_DEFAULTS = {"stroke-linejoin": "round", "stroke-linecap": "butt", "stroke-dashoffset": "0", "text-anchor": "start"}
_NOT_NEEDED = {"font-family", "font-stretch", "font-variant"}


def draw_svg(canvas: Figure) -> str:
    """Returns a figure as an SVG file that looks right by itself; equal figures are equal files."""
    buffer = StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = fromstring(buffer.getvalue().partition("?>")[2])
    width, height = (float(number) for number in drawn.attrib["viewBox"].split()[2:])
    root = Element(f"{_SVG}svg", {"viewBox": f"0 0 {width:g} {height:g}"})
    root.attrib |= {"width": f"{width:g}pt", "height": f"{height:g}pt", "font-family": FONTS}
    # matplotlib leaves black out, which is the initial colour of text and areas.
    root.attrib |= {"fill": INK, "font-size": "10", "stroke-linejoin": "round"}
    root.append(Element(f"{_SVG}rect", {"width": "100%", "height": "100%", "fill": PAPER}))
    markers = {mark.attrib["id"]: mark for mark in drawn.iter(f"{_SVG}path") if "id" in mark.attrib}
    root.extend(_share_attributes(list(_tidy(drawn, markers))))
    areas = {clip.attrib["id"]: clip for clip in drawn.iter(f"{_SVG}clipPath")}
    _number_areas(root, areas)
    register_namespace("", _SVG[1:-1])
    return tostring(root, encoding="unicode") + "\n"


def embed(svg: str, name: str) -> Markup:
    """Returns an SVG file of `draw_svg` as a part of a page.

    Args:
        svg: content of the file.
        name: name of the figure, from which ids are made that no other figure has.
    """
    prefix = re.sub(r"[^A-Za-z0-9_-]", lambda match: f".{ord(match[0]):x}", name)

    def open_root(match: re.Match[str]) -> str:
        width, height = (_PIXELS_PER_POINT * float(number) for number in match[1].split()[2:])
        return f'<svg viewBox="{match[1]}" width="{width:.0f}" height="{height:.0f}" aria-hidden="true"{match[2]}>'

    text = _BACKGROUND.sub("", _ROOT.sub(open_root, svg, count=1), count=1)
    text = _REFERENCE.sub(rf"\g<1>{prefix}-\g<2>", text)
    text = _LINES.sub(_use_steps, text)
    # Without white space, numbers fuse for readers of the text alone.
    text = text.replace("</text><", "</text>\n<").replace("</title>", "</title>\n")
    return Markup(_COLOUR.sub(lambda match: f'{match[1]}="{CSS_COLOURS.get(match[2], match[2])}"', text).rstrip())


def _use_steps(match: re.Match[str]) -> str:
    """Writes the corners of a line as steps from one to the next, which are shorter than places."""
    x, y = 0.0, 0.0
    parts: list[str] = []
    for command, numbers in _COMMAND.findall(match[1]):
        values = [float(number) for number in numbers.split()]
        if command == "M" and not parts:
            (x, y), step = values, numbers
        elif command == "H":
            command, step, x = "h", _round(values[0] - x), values[0]
        elif command == "V":
            command, step, y = "v", _round(values[0] - y), values[0]
        else:
            steps = []
            for new_x, new_y in zip(values[::2], values[1::2], strict=True):
                steps.append(f"{_round(new_x - x)} {_round(new_y - y)}")
                x, y = new_x, new_y
            command, step = command.lower(), " ".join(steps)
        parts.append(command + step)
    return f' d="{"".join(parts)}"'


def _tidy(parent: Element, markers: dict[str, Element]) -> Iterator[Element]:
    """Yields the shapes inside an element in their order, without groups that only have a generated id."""
    for element in parent:
        tag = element.tag.removeprefix(_SVG)
        if tag in ("defs", "metadata"):
            continue
        if tag == "use":
            yield _place(markers[element.attrib[f"{_XLINK}href"][1:]], element)
        elif tag != "g":
            yield _shape(element)
        else:
            yield from _group(element, list(_tidy(element, markers)))


def _group(element: Element, shapes: list[Element]) -> Iterator[Element]:
    """Yields the content of a group: with its hover texts, in a group of its own if it has a name, or as it is."""
    clip, name = element.attrib.get("clip-path"), element.attrib.get("id", "")
    for shape in shapes:
        if clip is not None:
            shape.attrib.setdefault("clip-path", clip)
    texts = name.removeprefix(HOVER).split(NEXT) if name.startswith(HOVER) else []
    if len(texts) > 1 and len(texts) == len(shapes):
        for shape, text in zip(shapes, texts, strict=True):
            shape.insert(0, _title(text))
        yield from shapes
    elif len(texts) == 1 and len(shapes) == 1:
        shapes[0].insert(0, _title(texts[0]))
        yield from shapes
    elif texts or (name and not _GENERATED_ID.fullmatch(name)):
        group = Element(f"{_SVG}g", {} if texts else {"id": name})
        group.extend([*map(_title, texts[:1]), *_share_attributes(shapes)])
        yield group
    else:
        yield from shapes


def _title(text: str) -> Element:
    title = Element(f"{_SVG}title")
    title.text = text
    return title


def _shape(element: Element) -> Element:
    """Returns a shape with presentation attributes and short coordinates."""
    attributes = {name: value for name, value in element.attrib.items() if name not in ("style", "id", "transform")}
    attributes |= _presentation(element.attrib.get("style", ""))
    if not (transform := element.attrib.get("transform", "rotate(-0 ")).startswith("rotate(-0 "):
        attributes["transform"] = _shorten(transform)
    for name in attributes.keys() & {"x", "y", "width", "height"}:
        attributes[name] = _shorten(attributes[name])
    if "d" in attributes and (circle := _circle(attributes["d"])) is not None:
        del attributes["d"]
        return Element(f"{_SVG}circle", circle | attributes)
    if "d" in attributes:
        attributes["d"] = _path(attributes["d"])
    shape = Element(element.tag, attributes)
    shape.text = element.text if element.tag == f"{_SVG}text" else None
    return shape


def _place(marker: Element, use: Element) -> Element:
    """Returns a marker at one of its places."""
    style = "; ".join(filter(None, (marker.attrib.get("style"), use.attrib.get("style"))))
    shape = _shape(Element(marker.tag, {"d": marker.attrib["d"], "style": style}))
    if shape.tag == f"{_SVG}circle":
        return Element(shape.tag, {**shape.attrib, "cx": _shorten(use.attrib["x"]), "cy": _shorten(use.attrib["y"])})
    # Its coordinates move, not the shape: a moved shape would take its clipping area along.
    turn, offsets = 0, (float(use.attrib["x"]), float(use.attrib["y"]))

    def move(number: re.Match[str]) -> str:
        nonlocal turn
        turn = 1 - turn
        return _round(float(number[0]) + offsets[1 - turn])

    shape.attrib["d"] = re.sub(_NUMBER, move, shape.attrib["d"])
    return shape


def _presentation(style: str) -> dict[str, str]:
    """Returns the declarations of a `style` attribute as presentation attributes, without those that change nothing."""
    pairs = dict(part.strip().split(": ", 1) for part in style.split(";") if part.strip())
    return {
        name: value.removesuffix("px") if name == "font-size" else _shorten(value)
        for name, value in pairs.items()
        if name not in _NOT_NEEDED and _DEFAULTS.get(name) != value
    }


def _circle(path: str) -> dict[str, str] | None:
    """Returns the centre and radius of a circle, which matplotlib draws as eight curves from the bottom; else None."""
    if re.sub(r"[^A-Za-z]", "", path) != "MCCCCCCCCz":
        return None
    numbers = [float(number) for number in re.findall(_NUMBER, path)]
    x, bottom, top = numbers[0], numbers[1], numbers[2 + 6 * 4 - 1]
    return {"cx": _round(x), "cy": _round((bottom + top) / 2), "r": _round((bottom - top) / 2)}


def _path(path: str) -> str:
    """Returns a path without blanks and repeated commands that it does not need."""
    parts, previous, place = [], "", ["", ""]
    for command, numbers in _COMMAND.findall(path):
        values = [_shorten(number) for number in numbers.split()]
        if command == "L" and place[1] == values[1]:
            command, text = "H", values[0]
        elif command == "L" and place[0] == values[0]:
            command, text = "V", values[1]
        else:
            text = " ".join(values)
        parts.append(f" {text}" if command == previous in "LHV" else f"{command}{text}")
        previous, place = command, values[-2:] or place
    return "".join(parts)


def _shorten(text: str) -> str:
    """Rounds the numbers in a string to two decimals (1/7200 inch)."""
    return _COORDINATE.sub(lambda match: _round(float(match[0])), text)


def _round(number: float) -> str:
    return f"{round(number, 2) + 0.0:.2f}".rstrip("0").rstrip(".")  # the sum turns -0 into 0


def _share_attributes(shapes: list[Element]) -> Iterator[Element]:
    """Yields shapes in their order, neighbours with the same look in a group that has it for all of them."""
    for (tag, look), neighbours in groupby(shapes, key=_look):
        run = list(neighbours)
        if len(run) < _FEWEST_IN_GROUP or not look or tag == f"{_SVG}g":
            yield from run
            continue
        group = Element(f"{_SVG}g", dict(look))
        for shape in run:
            for name in group.attrib:
                del shape.attrib[name]
            group.append(shape)
        yield group


def _look(shape: Element) -> tuple[str, tuple[tuple[str, str], ...]]:
    return shape.tag, tuple((name, value) for name, value in shape.attrib.items() if name in _SHARED)


def _number_areas(root: Element, areas: dict[str, Element]) -> None:
    """Adds the clipping areas that shapes refer to, with ids that depend on their order only."""
    names: dict[str, str] = {}
    for shape in root.iter():
        if (reference := shape.attrib.get("clip-path")) is not None:
            key = reference.removeprefix("url(#").removesuffix(")")
            names.setdefault(key, f"area{len(names) + 1}")
            shape.attrib["clip-path"] = f"url(#{names[key]})"
    for place, (key, name) in enumerate(names.items(), 1):
        clip = Element(f"{_SVG}clipPath", {"id": name})
        clip.extend(map(_shape, areas[key]))
        root.insert(place, clip)


def write_svg(canvas: Figure, path: Path) -> None:
    """Writes a figure as SVG."""
    path.write_text(draw_svg(canvas), encoding="utf-8", newline="\n")
