"""Fills templates with the views that `view` and `index` have computed."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from hirise_imb.metrics.registry import label_of
from hirise_imb.reporting import formatting
from hirise_imb.reporting.html.parts import breakable


def render(template: str, view: object) -> str:
    """Fills a template of this package with the fields of a view; an undefined name is an error."""
    fields: dict[str, Any] = vars(view)
    return _environment().get_template(template).render(fields) + "\n"


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
        "breakable": breakable,
        "cell": _markdown_cell,
        "label": label_of,
        "p_digits": formatting.p_digits,
        "percent": formatting.percent,
        "score": formatting.score,
        "signed": formatting.signed,
        "upper_first": formatting.upper_first,
    }
    script = environment.get_template("page.js.jinja").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "script": Markup(script),
        # The hash allows this script and no other, whatever the names and files contain that a page shows.
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
    }
    return environment


def _markdown_cell(text: object) -> str:
    """Escapes text for a cell of a Markdown table, so that it can't end the cell or act as markup."""
    return " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
