"""Fills templates with the views that `view` and `index` have computed."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from hirise_imb.metrics.registry import label_of
from hirise_imb.reporting import formatting
from hirise_imb.reporting.html.parts import breakable
from hirise_imb.utils.terminal import escape_controls


def render(template: str, view: object) -> str:
    """Fills a template of this package with the fields of a view; an undefined name is an error."""
    fields: dict[str, Any] = vars(view)
    return _environment(template.endswith(".md.jinja")).get_template(template).render(fields) + "\n"


@cache
def _environment(is_markdown: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("hirise_imb.reporting.html"),
        autoescape=select_autoescape(["html.jinja", "md.jinja"]),
        # Text that is already escaped for Markdown is not escaped for HTML.
        finalize=_escape_markdown if is_markdown else None,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": breakable,
        "cell": _markdown_cell,
        "code_block": _code_block,
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


def _escape_markdown(value: object) -> object:
    """Escapes text of the data, so that it is shown as it is: no markup, no HTML, no end of a table's cell."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = re.sub(r"[\\`*\[\]|]", r"\\\g<0>", escape_controls(value))
    # "p < 0.05" begins no tag.
    return Markup(re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=[#\w])", "&amp;", text)))


def _markdown_cell(text: object) -> object:
    """Returns text for a cell of a Markdown table, in one line."""
    return text if isinstance(text, Markup) else _escape_markdown(" ".join(str(text).split()))


def _code_block(text: str, language: str) -> Markup:
    """Returns a block of Markdown that shows a file; its fence is longer than any in the file."""
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return Markup(f"{fence}{language}\n{escape_controls(text)}{fence}")
