"""No file of the project imports, at any remove, itself."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, modules: set[str]) -> set[str]:
    """The modules of the project that a file imports when it is imported itself."""
    package = module_of(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            inner = {f"{name}.{alias.name}" for alias in node.names} & modules
            found |= inner or {name}
    return (found & modules) - {module_of(path)}


@pytest.mark.parametrize("part", ["torch_geometric_diff", "benchmarks", "fewshot", "toys"])
def test_imports_make_no_circle(part: str) -> None:
    files = {module_of(path): path for path in (ROOT / part).rglob("*.py")}
    graph = {name: imports(path, {*files}) for name, path in files.items()}
    TopologicalSorter(graph).prepare()
