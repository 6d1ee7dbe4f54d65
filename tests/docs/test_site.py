"""The built pages in a browser: no error, no dead link, no page wider than its window."""

import asyncio
import inspect
import os
import re
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, open_page

import torch_geometric_diff
from docs.public import public_names

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as `make docs` builds them; or those of the folder ``SITE``."""
    if os.environ.get("SITE"):
        return Path(os.environ["SITE"]).resolve()
    for name in (
        "sphinx",
        "myst_parser",
        "furo",
        "sphinx_copybutton",
        "latex2mathml",
        "matplotlib",
        "sklearn",
        "ogb",
    ):
        pytest.importorskip(name, reason=name)
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, "-d", str(out / "doctrees"), str(ROOT / "docs"), str(out / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out / "html"


class Links(HTMLParser):
    """What a page refers to, what it loads, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.follows: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {found["id"]} if found.get("id") else set()
        if tag == "a" and found.get("href"):
            self.follows.append(found["href"] or "")
        elif tag in ("img", "script", "iframe", "source") and found.get("src"):
            self.loads.append(found["src"] or "")
        elif tag == "link" and "stylesheet" in (found.get("rel") or ""):
            self.loads.append(found["href"] or "")


def test_links_lead_somewhere_and_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = {page: Links(page) for page in site.rglob("*.html")}
    assert len(pages) > 30
    dead = []
    for page, links in pages.items():
        for link in (*links.follows, *links.loads):
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in links.loads and parts.scheme != "data":
                    dead.append(f"{page.name} loads {link}")
                continue
            target = page
            if parts.path:
                target = (page.parent / urllib.parse.unquote(parts.path)).resolve()
            anchor = urllib.parse.unquote(parts.fragment)
            if not target.exists():
                dead.append(f"{page.name}: {link}")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                dead.append(f"{page.name}: {link} (no such anchor)")
    assert not dead, "\n".join(dead)


def test_every_public_name_has_a_page_with_its_signature(site: Path) -> None:
    for module, names in public_names().items():
        listed = Links(site / "api" / f"{module}.html").follows
        for name in names:
            full = f"{module}.{name}"
            assert f"{full}.html" in listed, f"{module} does not list '{name}'"
            path = site / "api" / f"{full}.html"
            assert full in Links(path).anchors
            text = path.read_text(encoding="utf-8")
            signature = text.partition(f'id="{full}"')[2].partition("</dt>")[0]
            value = getattr(import_module(module), name)
            for parameter in inspect.signature(value).parameters:
                assert f">{parameter}<" in signature, (
                    f"{full} has no '{parameter}' in its signature"
                )
            assert "__init__" not in text


def test_front_door_is_on_the_first_page(site: Path) -> None:
    follows = Links(site / "api" / "index.html").follows
    for name in torch_geometric_diff.__all__:
        assert name == "__version__" or any(link.endswith(f".{name}.html") for link in follows)
    assert any(link.startswith("api/index.html") for link in Links(site / "index.html").follows)


def test_attributes_exist_and_keep_their_underscore(site: Path) -> None:
    found = 0
    for module, names in public_names().items():
        for name in names:
            value = getattr(import_module(module), name)
            section = (
                (inspect.getdoc(value) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
            )
            text = (site / "api" / f"{module}.{name}.html").read_text(encoding="utf-8")
            for attribute in re.findall(r"^    (\w+) \(", section, re.MULTILINE):
                found += 1
                assert f"<strong>{attribute}</strong>" in text, f"{name}.{attribute}"
    assert found > 20


def test_formulas_are_drawn_in_full(site: Path) -> None:
    formulas = 0
    for path in site.rglob("*.html"):
        for formula in re.findall(r"<math.*?</math>", path.read_text(encoding="utf-8"), re.DOTALL):
            formulas += 1
            assert not re.search(r"<m[ion][^>]*>(&<|&amp;|\\\\)", formula), (
                f"{path.name}: {formula}"
            )
    assert formulas > 100


def complaints(events: list[dict[str, Any]]) -> list[str]:
    """What went wrong while a page loaded."""
    found = []
    for event in events:
        method, params = event["method"], event.get("params", {})
        if method == "Runtime.exceptionThrown":
            found.append(f"exception: {params['exceptionDetails'].get('text')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            found.append(f"console: {params['args']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            found.append(f"log: {params['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "data:", "about:")):
                found.append(f"asks the network for {url}")
    return found


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("name", WIDTHS)
def test_pages_are_quiet_and_fit(name: str, site: Path, tmp_path: Path) -> None:
    pages = sorted(page for page in site.rglob("*.html") if "_modules" not in page.parts)
    wrong: list[str] = []

    async def look() -> None:
        async with open_page(tmp_path, *WIDTHS[name]) as page:
            for path in pages:
                place = path.relative_to(site)
                events = await page.open(path.as_uri())
                width = await page.evaluate("document.documentElement.scrollWidth")
                wrong.extend(f"{place}: {text}" for text in complaints(events))
                if width > WIDTHS[name][0]:
                    wrong.append(f"{place}: {width} pixels wide")
                if "<math" in path.read_text():
                    drawn = await page.evaluate("document.querySelector('math').clientWidth")
                    if not drawn:
                        wrong.append(f"{place}: a formula is not drawn")

    asyncio.run(look())
    assert not wrong, "\n".join(wrong)
