"""Without the compiled module the package says so once, and how to get it."""

import subprocess
import sys

CODE = """
import sys, warnings
sys.modules["torch_geometric_diff._C"] = None
warnings.simplefilter("ignore")
import torch, torch_geometric
warnings.resetwarnings()
warnings.simplefilter("always", RuntimeWarning)
from torch_geometric_diff import DiffConv, kernels
x, edge_index = torch.ones(3, 2), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
for _ in range(3):
    assert torch.allclose(DiffConv(2)(x, edge_index), x)
assert "was not built" in kernels()["cpu"]
"""


def test_one_warning_names_the_way_out() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("has no compiled kernels here") == 1
    assert "install a C++ compiler" in done.stderr
