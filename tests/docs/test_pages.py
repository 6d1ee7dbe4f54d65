"""The examples of the pages run, and the pages lead somewhere."""

import doctest
import re
from pathlib import Path

import pytest
import torch

from docs.extensions.rows import PAGES as ROWS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += sorted((ROOT / "docs" / "tutorials").glob("*.md"))
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if page.stem == "mini_batches":
        pytest.skip("tested beside its loaders")
    if "sklearn" in page.read_text() or "digits" in page.read_text():
        pytest.importorskip("sklearn", reason="scikit-learn")
    if "benchmarks.ogb" in page.read_text():
        pytest.importorskip("ogb", reason="ogb")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found = doctest.testfile(str(page), module_relative=False, optionflags=FLAGS)
    assert found.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_to_files(page: Path) -> None:
    built = {"gallery/index", "api/index", "api/layers"}  # made when the site is
    built |= {f"rows/{name}" for name in ("index", *ROWS)}
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
        path = (page.parent / target).resolve()
        docs = ROOT / "docs"
        name = str(path.relative_to(docs).with_suffix("")) if path.is_relative_to(docs) else ""
        assert path.exists() or name in built, f"{page.name} leads to '{target}'"


def test_transforms_are_those_of_the_battery() -> None:
    from battery.table import table

    assert (ROOT / "docs/transforms.md").read_text() == table()
