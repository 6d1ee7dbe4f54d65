"""Every public name is documented with an example, and every example runs."""

import doctest
import inspect
from importlib import import_module
from typing import Any

import pytest
import torch

from docs.public import public_names

NAMES = [(module, name) for module, names in public_names().items() for name in names]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def scope(module: str) -> dict[str, Any]:
    """What an example may use without importing it."""
    found = {"torch": torch}
    for home in (*(f"torch_geometric_diff.{part}" for part in ("ops", "nn", "graph")), module):
        names = public_names()[home]
        found |= {name: getattr(import_module(home), name) for name in names}
    return found


@pytest.mark.parametrize("module, name", NAMES, ids=[name for _, name in NAMES])
def test_public_names_have_examples_that_run(module: str, name: str) -> None:
    value = getattr(import_module(module), name)
    assert "Example:" in (inspect.getdoc(value) or ""), f"{module}.{name} has no 'Example:'"
    torch.manual_seed(0)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    report: list[str] = []
    for test in doctest.DocTestFinder(recurse=inspect.isclass(value)).find(
        value, name, globs=scope(module)
    ):
        runner.run(test, out=report.append)
    failed, attempted = runner.summarize(verbose=False)
    assert attempted > 0 and failed == 0, "".join(report)


def test_names_that_should_be_public_are() -> None:
    found = {name for _, name in NAMES}
    assert {"DiffConv", "propagate", "heat", "knn_graph", "DiffusionClassifier"} <= found
    assert "NodeClassifier" in found and "diffuse_features" in found and "kernels" in found
