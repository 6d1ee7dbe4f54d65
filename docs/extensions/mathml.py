"""Formulas as MathML, which browsers draw by themselves: no page fetches or runs anything."""

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}")  # whose ``&`` are its own


def inline(self: Any, node: nodes.math) -> None:
    """A formula in a line."""
    self.body.append(convert(node.astext(), display="inline"))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    """A formula of its own."""
    for row in rows(node.astext()):
        self.body.append(f'<div class="math-block">{convert(row, display="block")}</div>\n')
    raise nodes.SkipNode


def rows(latex: str) -> list[str]:
    """The formulas of a block, or one of several lines that are aligned at their ``&``."""
    found = [" ".join(row.split()) for row in latex.strip().split("\n\n")]
    if any("&" in ENVIRONMENT.sub("", row) for row in found):
        lines = r" \\ ".join(found)
        return [rf"\begin{{align*}} {lines} \end{{align*}}"]
    return found


def setup(app: Sphinx) -> dict[str, bool]:
    """Offer it to ``html_math_renderer``."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
