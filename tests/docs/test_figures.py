"""Every measured figure of the pages comes from a row of results."""

import re
from pathlib import Path

import pytest

from benchmarks.readme import cell, filled, pages

ROOT = Path(__file__).parents[2]
PAGES = [page for page in pages(ROOT) if page.name != "changelog.md"]
MARKED = (
    re.compile(r"^<!-- (\w+) -->$.*?^<!-- /\1 -->$", re.DOTALL | re.MULTILINE),  # tables
    re.compile(r"<!-- row .*?<!-- /row -->", re.DOTALL),  # one figure
    re.compile(r"<!-- given -->.*?<!-- /given -->", re.DOTALL),  # of a paper, or by definition
    re.compile(r"```.*?```", re.DOTALL),  # examples, which run
    re.compile(r"`[^`\n]*`"),
    re.compile(r"\b95 % interval"),
)
UNITS = r"(?:ms|us|ns|s|seconds?|minutes?|[GMK]i?B|%|x|percent|times as|times the|times faster)"
FIGURE = re.compile(
    rf"±|\b\d+\.\d+ points|[+-]\d+\.\d|\b\d[\d,.]*\s{UNITS}(?![\w-])"
    r"|\b\d+(?:\.\d+)?x\b|\b\d\d\.\d+\b(?!\.)"
)


def figures(text: str) -> list[str]:
    """What looks measured outside of marks."""
    for pattern in MARKED:
        text = pattern.sub(" ", text)
    return [text[max(0, m.start() - 40) : m.end() + 20] for m in FIGURE.finditer(text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_figure_is_typed(page: Path) -> None:
    assert figures(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", pages(ROOT), ids=lambda page: page.stem)
def test_pages_are_those_of_the_rows(page: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn")
    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, "run 'python -m benchmarks.readme'"


@pytest.mark.parametrize(
    "text", ["it takes 38 s", "85.05 on Cora", "4 GiB of memory", "7.7x", "gains +0.12", "1 ± 2"]
)
def test_typed_figures_are_seen(text: str) -> None:
    assert len(figures(text)) >= 1
    assert figures(f"<!-- given -->{text}<!-- /given -->") == []


def test_a_figure_needs_its_row() -> None:
    assert re.fullmatch(r"[\d.]+ MB", cell("memory | K = 20, | ours | MB"))
    with pytest.raises(ValueError, match="Expected one row of"):
        cell("memory | K = 21, | ours | MB")
    with pytest.raises(ValueError, match="Expected rows of a speed suite"):
        cell("nothing | K | ours | MB")
    with pytest.raises(ValueError, match="Expected a mark"):
        filled("<!-- nothing -->\n<!-- /nothing -->\n")


def test_the_long_pages_are_short() -> None:
    names = ("benchmarks.md", "accuracy.md")
    texts = [(ROOT / "docs" / name).read_text(encoding="utf-8") for name in names]
    assert sum(len(text.splitlines()) for text in texts) < 450
