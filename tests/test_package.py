"""The shape of the package: what it imports, and that its documentation runs."""

import ast
import re
import subprocess
import sys
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
        ("nn", ("torch_geometric_diff.data", "benchmarks.common")),
    ],
)
def test_imports_point_one_way(part, forbidden):
    for path in (PACKAGE / part).rglob("*.py"):
        wrong = [name for name in imports(path) if name.startswith(forbidden)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_the_front_door_is_lazy_and_the_core_needs_no_extra():
    blocked = (
        "torch_scatter torch_sparse torch_cluster sklearn matplotlib pandas ogb optuna "
        "torchdiffeq plotly PIL safetensors pynndescent triton"
    ).split()
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "import torch_geometric_diff\n"
        "assert not {'torch', 'torch_geometric', 'numpy', 'scipy'} & {*sys.modules}\n"
        "import torch_geometric_diff.nn, torch_geometric_diff.data\n"
        "import torch_geometric_diff.graph, torch_geometric_diff.transforms\n"
        "import benchmarks.common, torch_geometric_diff.metrics\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_version_is_one_for_each_reader():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None and cited[1] == torch_geometric_diff.__version__


def test_every_public_name_is_found_at_the_front_door():
    for name in torch_geometric_diff.__all__:
        assert getattr(torch_geometric_diff, name) is not None
        assert name in dir(torch_geometric_diff)
    assert callable(torch_geometric_diff.kernels)
    for module in torch_geometric_diff._MODULES:  # a name that is both would depend on the order
        assert module not in torch_geometric_diff.__all__
    assert not {path.stem for path in PACKAGE.iterdir()} & {*torch_geometric_diff.__all__}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = torch_geometric_diff.nothing


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    seen = {
        alias.asname
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen | {"__version__"} == {*torch_geometric_diff.__all__}
    assert (PACKAGE / "py.typed").exists()


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_workflows_and_templates_parse(path):
    yaml = pytest.importorskip("yaml", reason="PyYAML")
    content = yaml.safe_load(path.read_text())
    if path.parent.name == "workflows":
        assert {"name", "jobs"} < {*content} and True in content  # `on` is true in YAML 1.1
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        for job in content["jobs"].values():
            for step in job["steps"]:
                assert "uses" in step or "run" in step
                assert set(re.findall(r"make ([a-z]+)", step.get("run", ""))) <= targets


def test_other_configurations_parse():
    yaml = pytest.importorskip("yaml", reason="PyYAML")
    for name in (".pre-commit-config.yaml", "CITATION.cff"):
        assert yaml.safe_load((ROOT / name).read_text())


def test_the_readme_example_runs():
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    code = example.group(1)
    assert len(code.strip().splitlines()) <= 12
    namespace: dict = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["out"].shape[0] == namespace["x"].shape[0]
