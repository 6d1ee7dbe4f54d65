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


# What each room may import: the rooms below it.
ROOMS: dict[str, set[str]] = {
    "_utils": set(),
    "graph": {"_utils"},
    "data": {"_utils"},
    "ops": {"_utils", "graph"},
    "nn": {"_utils", "graph", "ops"},
    "metrics": {"_utils", "graph", "ops"},
    "preprocessing": {"_utils", "graph", "ops"},
    "acceleration": {"_utils", "graph", "ops", "nn"},
    "estimators": {"_utils", "graph", "ops", "nn"},
    "transforms": {"_utils", "graph", "ops", "nn"},
    "__init__": {"_utils"},
}
# for type checkers alone, and what is imported when a name is first used
LAZY = {"__init__", "estimators/__init__"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, source: str | None = None) -> set[str]:
    """The modules that a file imports: names of a package that are modules count as these."""
    package = [*path.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text() if source is None else source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                below = ROOT.joinpath(*module.split("."), alias.name)
                is_module = any(map(Path.exists, (below, *map(below.with_suffix, (".py", ".pyi")))))
                found.add(f"{module}.{alias.name}" if is_module else module)
    return found


def inner_imports() -> dict[str, set[str]]:
    """For every module of the package the modules of the package that it imports."""
    return {
        module_of(path): {name for name in imports(path) if name.startswith("torch_geometric_diff")}
        for path in PACKAGE.rglob("*.py")
        if str(path.relative_to(PACKAGE).with_suffix("")) not in LAZY
    }


def wrong_imports(module: str, targets: set[str]) -> set[str]:
    room = module.split(".")[1]
    allowed = ROOMS[room] | {room}
    if module == "torch_geometric_diff._utils.native":  # alone imports the compiled module
        allowed |= {"_C"}
    return {
        target
        for target in targets
        if target == "torch_geometric_diff" or target.split(".")[1] not in allowed
    }


def test_imports_point_one_way():
    for module, targets in inner_imports().items():
        assert not wrong_imports(module, targets), (module, wrong_imports(module, targets))
    for path in PACKAGE.rglob("*.py"):
        foreign = {name.split(".")[0] for name in imports(path)}
        assert not foreign & {"benchmarks", "fewshot", "toys", "tests"}, path


def test_bare_imports_of_the_package_are_seen():
    path = PACKAGE / "ops" / "operator.py"
    for source in ("from .. import nn", "import torch_geometric_diff.nn", "from ..nn import APPNP"):
        assert wrong_imports("torch_geometric_diff.ops.operator", imports(path, source))
    for source in ("from .. import diffuse", "import torch_geometric_diff"):
        assert wrong_imports("torch_geometric_diff.ops.operator", imports(path, source))


def test_every_module_is_in_a_room():
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists()):
            assert path.stem in ROOMS, path


def test_no_circle_of_imports():
    graph = inner_imports()
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above[above.index(module) :], module])
        if module not in done:
            for target in graph.get(module, set()):
                visit(target, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_functions_are_short():
    """At most 60 lines without the signature and the docstring; ruff counts the branches."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = node.end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= 60, f"{path.name}: '{node.name}' has {lines} lines"


def test_the_front_door_is_lazy_and_the_core_needs_no_extra():
    blocked = (
        "torch_scatter torch_sparse torch_cluster sklearn matplotlib pandas ogb optuna "
        "torchdiffeq plotly PIL safetensors triton"
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


def test_release_notes_are_the_section_of_the_version():
    path = ROOT / ".github" / "release_notes.py"
    namespace: dict = {"__name__": "release_notes"}
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    text = "# Changelog\n\n## 1.1.0 (x)\n\n- new\n\n## 1.1 (y)\n\n- old\n"
    assert namespace["notes"](text, "1.1.0") == "- new\n"
    assert namespace["notes"](text, "1.1") == "- old\n"
    with pytest.raises(ValueError, match="to have a section '## 3.0'"):
        namespace["notes"](text, "3.0")
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert namespace["notes"](changelog, torch_geometric_diff.__version__)
