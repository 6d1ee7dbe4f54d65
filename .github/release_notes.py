"""Print the section of one version of CHANGELOG.md: `python .github/release_notes.py 0.2.0`."""

import re
import sys
from pathlib import Path


def notes(changelog: str, version: str) -> str:
    """What stands under the heading of a version.

    Raises:
        ValueError: If there is no such section, or nothing in it.
    """
    pattern = rf"^## {re.escape(version)}(?![\w.])[^\n]*\n(.*?)(?=^## |\Z)"
    section = re.search(pattern, changelog, re.MULTILINE | re.DOTALL)
    if section is None or not section[1].strip():
        raise ValueError(f"Expected CHANGELOG.md to have a section '## {version}'")
    return section[1].strip() + "\n"


if __name__ == "__main__":
    file = Path(__file__).parents[1] / "CHANGELOG.md"
    print(notes(file.read_text(encoding="utf-8"), sys.argv[1]), end="")
