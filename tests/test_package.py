"""The shape of the package: what it imports, and that its documentation runs."""

import ast
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import torch_geometric_diff

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "torch_geometric_diff"


def imports(path: Path) -> set[str]:
    """The absolute names that a file imports, relative ones resolved."""
    package = [*path.relative_to(ROOT).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return names


@pytest.mark.parametrize(
    "part, forbidden",
    [
        ("", ("benchmarks", "fewshot", "toys")),
        ("graph", ("torch_geometric_diff.nn", "torch_geometric_diff.data")),
        ("ops", ("torch_geometric_diff.nn", "torch_geometric_diff.data")),
        ("nn", ("torch_geometric_diff.data", "torch_geometric_diff.experiment")),
    ],
)
def test_imports_point_one_way(part, forbidden):
    for path in (PACKAGE / part).rglob("*.py"):
        wrong = [name for name in imports(path) if name.startswith(forbidden)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_core_needs_no_extra():
    blocked = (
        "torch_scatter torch_sparse torch_cluster sklearn matplotlib pandas ogb optuna "
        "torchdiffeq plotly PIL safetensors pynndescent triton"
    ).split()
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "import torch_geometric_diff, torch_geometric_diff.nn, torch_geometric_diff.data\n"
        "import torch_geometric_diff.graph, torch_geometric_diff.transforms\n"
        "import torch_geometric_diff.experiment, torch_geometric_diff.metrics\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_version_is_written_once_for_each_reader():
    assert version("torch-geometric-diff") == torch_geometric_diff.__version__


def test_the_readme_example_runs():
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    code = example.group(1)
    assert len(code.strip().splitlines()) <= 12
    namespace: dict = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["out"].shape[0] == namespace["x"].shape[0]
