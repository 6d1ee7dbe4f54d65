"""Peak memory of forward and backward, each measured in a process of its own."""

import subprocess
import sys

import pytest

CHILD = """
import resource, sys, torch
from torch_geometric_diff import DiffusionOperator, diffuse
num_steps = int(sys.argv[1])
generator = torch.Generator().manual_seed(0)
edge_index = torch.randint(2485, (2, 5069), generator=generator)
operator = DiffusionOperator(torch.cat([edge_index, edge_index.flip(0)], 1), num_nodes=2485)
x = torch.randn(2485, 1433, requires_grad=True)
diffuse(x, operator, 1, 0.25).sum().backward()
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
diffuse(x, operator, num_steps, 0.25).square().sum().backward()
print(start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(num_steps: int) -> tuple[int, int]:
    out = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(num_steps)],
        check=True,
        capture_output=True,
        text=True,
    )
    start, end = out.stdout.split()
    return int(start), int(end)


def test_memory_does_not_grow_with_the_number_of_steps():
    pytest.importorskip("resource", reason="'resource' needs a Unix system")
    start, few = peak(20)
    _, many = peak(200)
    assert abs(many - few) < 0.02 * few
    # 20 steps that keep their features would take 20 x 14 MB
    assert few - start < 100_000
