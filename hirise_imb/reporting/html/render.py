"""Renders templates; what they show was computed before."""

from __future__ import annotations

import base64
import hashlib
from bisect import bisect
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from hirise_imb.metrics.registry import label_of
from hirise_imb.reporting import formatting

_SHARES = (0.02, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92)
"""Where a share of a class takes the next of the colours s1 to s9 of the stylesheet; one that is 0 has none."""

_CHANGES = (0.05, 0.1, 0.2, 0.35)
"""Where a difference of shares takes the next of the colours p1 to p5 (more) or m1 to m5 (less)."""


def rendered(template: str, view: Mapping[str, Any]) -> str:
    """A template of this package with its values; what is not defined is an error."""
    return _environment().get_template(template).render(view) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hirise_imb.reporting.html"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": formatting.score,
        "signed": formatting.signed,
        "label": label_of,
        "cell": _cell,
        "breakable": _breakable,
        "chance": formatting.p_digits,
        "p_value": formatting.p_value,
        "count": formatting.count,
        "percent": formatting.percent,
        "points": formatting.points,
        "duration": formatting.duration,
        "shade": _shade,
        "shift": _shift,
    }
    script = environment.get_template("page.js.jinja").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "script": Markup(script),
        # A page runs this script and no other, whatever stands in the names and files that it shows.
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
    }
    return environment


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore or a slash, where there is little room."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace("/", "/<wbr>"))


def _cell(text: object) -> str:
    """Text that stays in its cell of a Markdown table, and is nothing but text there."""
    return " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _shade(share: float) -> str:
    """The class of a cell that shows a share."""
    return f"s{1 + bisect(_SHARES, share)}" if share > 0 else "s0"


def _shift(difference: float) -> str:
    """The class of a cell that shows a difference of shares."""
    if abs(difference) < 0.0005:
        return "s0"
    return f"{'p' if difference > 0 else 'm'}{1 + bisect(_CHANGES, abs(difference))}"
