"""``--help`` and typos wait for nothing: torch is imported when the flags are right."""

import subprocess
import sys

import pytest

LIGHT = ["benchmarks.speed", "toys.two_moon", "toys.two_circle", "toys.two_spiral", "toys.xor"]
HEAVY = ("torch", "numpy", "scipy", "torch_geometric", "matplotlib")


@pytest.mark.parametrize("flag, code", [("--help", 0), ("--no_such_flag", 2)])
@pytest.mark.parametrize("module", LIGHT)
def test_nothing_heavy_is_imported(module: str, flag: str, code: int) -> None:
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['x', '{flag}']\n"
        "try:\n"
        f"    runpy.run_module('{module}', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    code = stop.code or 0\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert module in done.stdout + done.stderr or "usage" in done.stdout + done.stderr
