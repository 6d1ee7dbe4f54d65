"""The files that are released: they build, are small, and install where only torch and PyG are."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
MEGABYTE = 2**20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files alone, as a fresh clone has them."""
    folder = tmp_path_factory.mktemp("sources")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("no git checkout")
    for name in files.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def sdist(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    code = "import sys\nfrom scikit_build_core.build import build_sdist\n"
    code += "print(build_sdist(sys.argv[1]))"
    name = run(sys.executable, "-c", code, out, cwd=sources).split()[-1]
    return out / name


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, so that the sdist is known to be whole."""
    pytest.importorskip("nanobind", reason="nanobind")
    out = tmp_path_factory.mktemp("wheel")
    command = "-m pip wheel -q --no-deps --no-build-isolation --disable-pip-version-check".split()
    run(sys.executable, *command, "-w", out, sdist)
    (built,) = out.glob("*.whl")
    return built


def test_sdist_is_small_and_holds_what_a_packager_needs(sdist: Path) -> None:
    assert sdist.stat().st_size < MEGABYTE
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CMakeLists.txt", "pyproject.toml"} <= names
    assert "torch_geometric_diff/csrc/propagate.cpp" in names
    assert not [name for name in names if "results/" in name or name.endswith((".png", ".gif"))]


def test_wheel_is_small_and_holds_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        sizes = {entry.filename: entry.compress_size for entry in archive.infolist()}
    # the kernels of three instruction sets, those of attention among them, and the Python files
    module = sum(size for name, size in sizes.items() if "/_C." in name)
    assert module < MEGABYTE and sum(sizes.values()) - module < MEGABYTE * 0.3
    tops = {name.split("/")[0] for name in names}
    assert tops <= {"torch_geometric_diff", wheel.name.rsplit("-", 3)[0] + ".dist-info"}
    assert "torch_geometric_diff/py.typed" in names
    assert not [name for name in names if "csrc" in name]
    assert [name for name in names if name.startswith("torch_geometric_diff/_C")]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The Python of a new environment with the wheel, and where it lies in it."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # torch and PyG of this environment, which are not downloaded again
    (packages / "torch.pth").write_text(str(Path(torch.__file__).parents[1]))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    return folder / "venv" / "bin" / "python", packages


def test_wheel_runs_in_an_environment_of_its_own(fresh: tuple[Path, Path], tmp_path: Path) -> None:
    python, packages = fresh
    code = (
        "import torch, torch_geometric_diff as t\n"
        "assert t.kernels()['cpu'] is None, t.kernels()\n"
        f"assert t.__file__.startswith({str(packages)!r}), t.__file__\n"
        "conv = t.DiffConv(4)\n"
        "print(conv(torch.ones(3, 2), torch.tensor([[0, 1], [1, 0]])).tolist())\n"
    )
    out = run(python, "-W", "ignore", "-c", code, cwd=tmp_path)
    assert out.strip() == str([[1.0, 1.0]] * 3)


# nothing of the repository, no network: what a page shows is what comes out
OFFLINE = """
import doctest, importlib.util, re, runpy, socket, sys
import torch, torch_geometric_diff
assert torch_geometric_diff.__file__.startswith(sys.argv[2]), torch_geometric_diff.__file__
def refuse(*_, **__): raise OSError("no network here")
socket.socket.connect = refuse
assert not [n for n in ("benchmarks", "examples") if importlib.util.find_spec(n)]
torch.manual_seed(0)
if sys.argv[1].endswith(".py"):
    runpy.run_path(sys.argv[1], run_name="__main__")
else:
    text = open(sys.argv[1], encoding="utf-8").read()
    for block in re.findall("```python\\n(.*?)```", text, re.DOTALL):
        if ">>>" not in block and "(model)" not in block:
            exec(block, {})
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testfile(sys.argv[1], False, optionflags=flags).failed == 0
"""
SCRIPTS = [
    "README.md",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/tutorials/*.md")),
    *("docs/index.md", "docs/howto.md", "docs/moving.md"),
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("examples/*.py")),
]


@pytest.mark.parametrize("page", SCRIPTS)
def test_pages_and_examples_run_from_the_wheel_alone(
    page: str, fresh: tuple[Path, Path], tmp_path: Path
) -> None:
    for extra in ("matplotlib", "sklearn", "networkx"):
        pytest.importorskip(extra)
    python, packages = fresh
    copy = tmp_path / Path(page).name
    copy.write_bytes((ROOT / page).read_bytes())
    out = run(python, "-W", "ignore", "-c", OFFLINE, copy, packages, cwd=tmp_path)
    if page.startswith("examples/"):
        assert out.strip()
