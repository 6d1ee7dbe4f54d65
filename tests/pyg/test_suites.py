"""PyG's own tests with this package's classes in the place of PyG's.

They need PyG's repository, which its wheel does not hold:
``PYG_REPOSITORY=../pytorch_geometric pytest tests/pyg``.
"""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from pyg.replaced import NAMES

REPOSITORY = os.environ.get("PYG_REPOSITORY")
TESTS = Path(REPOSITORY or "") / "test"
# what is not promised: the names of private attributes. TorchScript is not either, see replaced.py
EXCUSES = re.compile("has no attribute '_")


def files() -> list[str]:
    """The test files that name one of the classes."""
    if REPOSITORY is None:
        return []
    word = re.compile(rf"\b({'|'.join(NAMES)})\b")
    paths = sorted(TESTS.rglob("test_*.py"))
    return [str(path.relative_to(TESTS)) for path in paths if word.search(path.read_text())]


def outcomes(folder: Path, *options: str) -> dict[str, str | None]:
    """What each test of the files says when it fails, None if it passes, in one process."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-W", "ignore", "-m", "pytest", "-q", *files()]
    command += [f"--junitxml={report}", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["--rootdir", str(TESTS), *options]
    roots = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, roots))}
    done = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True)
    assert report.exists(), done.stdout + done.stderr
    cases = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        bad = [part for part in case if part.tag in ("failure", "error")]
        text = "".join(f"{part.get('message')}{part.text}" for part in bad)
        cases[f"{case.get('classname')}::{case.get('name')}"] = text or None
    return cases


@pytest.mark.slow
@pytest.mark.skipif(REPOSITORY is None, reason="PYG_REPOSITORY names no repository of PyG")
def test_as_pyg(tmp_path: Path) -> None:
    assert files(), f"no tests of these layers in {TESTS}"
    theirs, ours = outcomes(tmp_path), outcomes(tmp_path, "-p", "pyg.replaced")
    assert ours.keys() == theirs.keys()
    new = {name: text for name, text in ours.items() if text and theirs[name] is None}
    excused = {name for name, text in new.items() if EXCUSES.search(text)}
    own = sum(text is not None for text in theirs.values())
    print(f"{len(ours)} tests in {len(files())} files, {own} fail by themselves, {sorted(excused)}")
    assert not {name: text for name, text in new.items() if name not in excused}
