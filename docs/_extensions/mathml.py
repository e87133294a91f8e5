"""Formulas as MathML, which browsers draw by themselves: the pages need no network and no script for them."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx


def _draw_inline(writer: nodes.NodeVisitor, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def _draw_block(writer: nodes.NodeVisitor, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the renderer of formulas."""
    app.add_html_math_renderer("mathml", inline_renderers=(_draw_inline, None), block_renderers=(_draw_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
