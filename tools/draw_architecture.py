"""Draws docs/architecture.svg: the rooms of the package and the imports between them.

Rooms are in the order of the import contract in pyproject.toml. An arrow is an import; arrows that follow from others
(A imports B and B imports C, so A may import C) are left out to keep the picture readable.

    python tools/draw_architecture.py
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import grimp

ROOMS: dict[str, tuple[float, int, str]] = {
    # room: horizontal centre (0 to 1), row from the top, content
    "study": (0.21, 0, "python -m entry"),
    "testing": (0.80, 3, "checks for plug-ins"),
    "cli": (0.32, 1, "commands, tables"),
    "api": (0.56, 1, "scripts, notebooks"),
    "pipeline": (0.21, 2, "whole studies"),
    "review": (0.44, 2, "what to label next"),
    "export": (0.67, 2, "for other runtimes"),
    "prediction": (0.44, 3, "models, new images"),
    "reporting": (0.10, 4, "page, figures, files"),
    "search": (0.32, 4, "Optuna, leases"),
    "training": (0.54, 5, "recipe to run"),
    "strategies": (0.78, 6, "recipe families"),
    "recipe": (0.60, 7, "one way to fit"),
    "losses": (0.91, 8, "for Keras"),
    "samplers": (0.41, 8, "imbalanced-learn"),
    "estimators": (0.38, 7, "scikit-learn"),
    "models": (0.60, 8, "heads, closed forms"),
    "imbalance": (0.60, 9, "remedies"),
    "features": (0.68, 10, "cache, views"),
    "backbones": (0.74, 11, "pretrained networks"),
    "metrics": (0.235, 11, "scores, bootstrap"),
    "forensics": (0.10, 12, "published tables"),
    "data": (0.460, 12, "data sets, splits"),
    "config": (0.89, 13, "study definition"),
    "utils": (0.50, 14, "files, errors"),
}
WIDTH, ROW, BOX = 1000, 74, (170, 46)
SVG = Path(__file__).parents[1] / "docs" / "architecture.svg"


def direct_imports() -> dict[str, set[str]]:
    """Returns the rooms that each room imports."""
    graph = grimp.build_graph("hirise_imb", include_external_packages=False)
    imports: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in graph.modules:
        if (room := (*module.split("."), "")[1]) not in {"", *ROOMS}:
            raise ValueError(f"the picture has no place for the room {room}")
        for imported in graph.find_modules_directly_imported_by(module):
            one, other = ((*name.split("."), "")[1] for name in (module, imported))
            if one in ROOMS and other in ROOMS and one != other:
                imports[one].add(other)
    return imports


def reduce(imports: dict[str, set[str]]) -> list[tuple[str, str]]:
    """Returns the arrows that do not follow from others (the transitive reduction)."""

    def reachable(room: str) -> set[str]:
        return {other for near in imports[room] for other in {near} | reachable(near)}

    return [
        (room, near)
        for room, nears in imports.items()
        for near in sorted(nears)
        if not any(near in reachable(other) for other in nears - {near})
    ]


def place(room: str) -> tuple[float, float]:
    """Returns the centre of the box of a room."""
    across, row, _ = ROOMS[room]
    return WIDTH * across, ROW * (row + 0.6)


def draw() -> str:
    """Returns the picture as SVG."""
    height = ROW * (max(row for _, row, _ in ROOMS.values()) + 1.2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif">',
        "<title>The rooms of hirise_imb and their imports</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#475569"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    for room, near in reduce(direct_imports()):
        (x1, y1), (x2, y2) = place(room), place(near)
        y1, y2 = y1 + BOX[1] / 2, y2 - BOX[1] / 2 - 2
        bend = max(20.0, (y2 - y1) / 2.5)
        parts.append(
            f'<path d="M{x1:.0f} {y1:.0f}C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}" '
            'fill="none" stroke="#475569" stroke-width="1.4" marker-end="url(#tip)"/>'
        )
    for room, (_, _, content) in ROOMS.items():
        x, y = place(room)
        parts.append(
            f'<rect x="{x - BOX[0] / 2:.0f}" y="{y - BOX[1] / 2:.0f}" width="{BOX[0]}" height="{BOX[1]}" rx="6" '
            'fill="#eff6ff" stroke="#2563eb"/>'
            f'<text x="{x:.0f}" y="{y - 3:.0f}" text-anchor="middle" font-size="15" font-weight="bold" '
            f'fill="#111827">{escape(room)}</text>'
            f'<text x="{x:.0f}" y="{y + 15:.0f}" text-anchor="middle" font-size="12" fill="#475569">'
            f"{escape(content)}</text>"
        )
    return "\n".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    SVG.write_text(draw(), encoding="utf-8")
