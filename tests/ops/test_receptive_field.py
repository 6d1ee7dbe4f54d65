"""Steps to some nodes alone: the bits of all rows, forward and backward."""

import pytest
import torch

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.ops import Recurrence, SparseOperator, diffuse, propagate
from torch_geometric_diff.ops.kernels import cpu


def ring(num_nodes: int, directed: bool) -> torch.Tensor:
    """A cycle with a few chords, in random order of the nodes."""
    generator = torch.Generator().manual_seed(num_nodes)
    name = torch.randperm(num_nodes, generator=generator)
    row = torch.arange(num_nodes)
    edges = torch.stack([row, (row + 1) % num_nodes])
    chords = torch.randint(num_nodes, (2, num_nodes // 8), generator=generator)
    edges = name[torch.cat([edges, chords], dim=1)]
    return edges if directed else torch.cat([edges, edges.flip(0)], dim=1)


def both(operator, x, steps, dropout, nodes, threads=1, dense=False):
    """Result and gradient of the nodes, asked for twice; ``dense``: selected from all rows."""
    out = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for _ in range(2):
            leaf = x.clone().requires_grad_()
            if dense:
                y = diffuse(leaf, operator, steps, dropout, seed=3).index_select(-2, nodes)
            else:
                y = diffuse(leaf, operator, steps, dropout, seed=3, nodes=nodes)
            weight = torch.linspace(-1, 1, y.numel(), dtype=x.dtype).view_as(y)
            (grad,) = torch.autograd.grad((y * weight).sum(), leaf)
            out = [y.detach(), grad]
    finally:
        torch.set_num_threads(before)
    return out


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [16, 70])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_has_the_bits_of_all_rows(directed, dtype, columns, steps):
    operator = SparseOperator.gcn_norm(ring(300, directed), num_nodes=300, dtype=dtype)
    nodes = torch.tensor([7, 250, 3, 31])
    x = torch.randn(2, 300, columns, dtype=dtype)
    for dropout in (0.0, 0.4):
        wanted = both(operator, x, steps, dropout, nodes, dense=True)
        for threads in (1, 3):
            got = both(operator, x, steps, dropout, nodes, threads)
            assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))
    reach = operator.receptive_field(nodes, steps)
    assert (reach is not None) == (cpu.available() is None)


@pytest.mark.skipif(cpu.available() is not None, reason="of the C++ kernel")
def test_shares_a_tile_among_threads():
    num_nodes = 20_000
    operator = DiffusionOperator(ring(num_nodes, False), num_nodes=num_nodes, reorder=True)
    assert operator.is_reordered
    nodes = torch.randperm(num_nodes)[:50]
    x = torch.randn(num_nodes, 16)
    wanted = both(operator, x, 4, 0.2, nodes, dense=True)
    got = both(operator, x, 4, 0.2, nodes, threads=2)
    assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))
    assert operator.receptive_field(nodes, 4) is not None


def test_other_calls_select_their_rows():
    edge_index, nodes = ring(40, False), torch.tensor([5, 5, 0])
    operator = SparseOperator.gcn_norm(edge_index, num_nodes=40)
    x = torch.randn(40, 20)
    for recurrence in (Recurrence.ppr(3, 0.1), Recurrence.power(3), Recurrence.states([1, 2])):
        for _ in range(3):
            got = propagate(x, operator, recurrence, nodes=nodes)
            assert torch.equal(got, propagate(x, operator, recurrence)[..., nodes, :])
    none = torch.zeros(0, dtype=torch.long)
    for _ in range(3):
        assert diffuse(x, operator, 2, nodes=none).shape == (0, 20)


def test_follows_other_nodes_and_steps():
    operator = SparseOperator.gcn_norm(ring(300, False), num_nodes=300)
    x = torch.randn(300, 16)
    for nodes in (torch.tensor([1, 2]), torch.tensor([1, 3]), torch.tensor([1])):
        for steps in (2, 3):
            for _ in range(3):
                got = diffuse(x, operator, steps, nodes=nodes)
                assert torch.equal(got, diffuse(x, operator, steps)[nodes])


def test_differentiates_twice_and_in_forward_mode():
    operator = SparseOperator.gcn_norm(ring(40, True), num_nodes=40, dtype=torch.float64)
    nodes = torch.tensor([4, 9])

    def some(x):
        return diffuse(x.repeat_interleave(16, dim=1), operator, 2, 0.3, seed=1, nodes=nodes)

    x = torch.randn(40, 1, dtype=torch.float64, requires_grad=True)
    some(x), some(x)
    assert torch.autograd.gradcheck(some, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(some, x)


@pytest.mark.parametrize(
    ("nodes", "error"),
    [
        ([0], TypeError),
        (torch.tensor([0.0]), TypeError),
        (torch.zeros(4, dtype=torch.bool), TypeError),
        (torch.tensor([4]), ValueError),
        (torch.tensor([-1]), ValueError),
    ],
)
def test_refuses_what_are_no_nodes(nodes, error):
    operator = SparseOperator.gcn_norm(torch.tensor([[0, 1], [1, 0]]), num_nodes=4)
    with pytest.raises(error, match="'nodes'"):
        diffuse(torch.randn(4, 2), operator, 1, nodes=nodes)
