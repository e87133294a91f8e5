"""Renders templates; what they show was computed before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from hirise_imb.reporting.style import score, signed


def rendered(template: str, view: Mapping[str, Any]) -> str:
    """A template of this package with its values; what is not defined is an error."""
    return _environment().get_template(template).render(view) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hirise_imb.reporting"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": score, "signed": signed, "cell": _cell, "breakable": _breakable}
    return environment


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore or a slash, where there is little room."""
    return Markup(str(escape(name)).replace("_", "_<wbr>").replace("/", "/<wbr>"))


def _cell(text: object) -> str:
    """Text that stays in its cell of a Markdown table, and is nothing but text there."""
    return " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
