"""Operators in parts: on 1 to 4 ranks of gloo what one process computes."""

from collections.abc import Callable
from typing import Any

import pytest
import ranks
import torch
from dense import random_graph
from torch import Tensor

from torch_geometric_diff.nn import DiffConv
from torch_geometric_diff.ops import DiffusionOperator, PartitionedOperator, heat

SIZES = [1, 2, 3, 4]


def graph_of(kind: str, size: int) -> tuple[Tensor, Tensor | None, int, dict[str, Any]]:
    """A graph and how it is shared out."""
    num_nodes = 41
    edge_index, weight = random_graph(num_nodes, 200, undirected=kind == "symmetric")
    settings: dict[str, Any] = {}
    if kind == "doubled":  # the same edges again, loops among them, unweighted
        return torch.cat([edge_index, edge_index[:, ::2]], 1), None, num_nodes, settings
    if kind == "parts":
        drawn = torch.randint(size, (num_nodes,), generator=torch.Generator().manual_seed(4))
        settings["parts"] = drawn.clamp(max=max(size - 2, 0))  # the last rank owns nothing
    if kind == "edgeless":
        return edge_index[:, :0], None, num_nodes, settings
    if kind == "tiny":  # fewer nodes than ranks
        return torch.tensor([[0, 1, 1], [1, 0, 1]]), torch.tensor([1.0, 2.0, 3.0]), 2, settings
    return edge_index, weight, num_nodes, settings


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["directed", "symmetric", "doubled", "parts", "edgeless", "tiny"])
def test_recurrences(kind: str, size: int) -> None:
    ranks.launch(size, ranks.check_recurrences, graph_of(kind, size), torch.float64)


CHECKS = [
    ranks.check_float32,
    ranks.check_masks,
    ranks.check_fixed_and_bounds,
    ranks.check_layers,
    ranks.check_gradients,
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__[6:])
def test_calls(check: Callable[..., None], size: int) -> None:
    kind = "directed" if size % 2 else "parts" if check is not ranks.check_float32 else "symmetric"
    graph = graph_of(kind, size)
    if check is ranks.check_gradients:
        edge_index, weight = random_graph(7, 20)
        graph = (edge_index, weight, 7, {})
    ranks.launch(size, check, graph)


def test_hub(tmp_path: Any) -> None:
    """A node of degree 10^5, whose row is one slab and whose column all ranks read."""
    ranks.launch(2, ranks.check_hub, 100_001)


@pytest.mark.parametrize("size", [1, 3])
def test_sources(size: int, tmp_path: Any) -> None:
    ranks.launch(size, ranks.check_sources, str(tmp_path))


@pytest.mark.parametrize("size", [2, 3])
def test_refusals(size: int) -> None:
    ranks.launch(size, ranks.check_refusals)


def test_steps_too_small_to_hold_the_laplacian() -> None:
    edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    operator = PartitionedOperator.from_edges(edge_index, num_nodes=3, step_size=1e-6)
    learned = DiffConv(3, learn_step_size=True)
    for function in (lambda x: heat(x, operator), lambda x: learned(x, operator)):
        with pytest.raises(ValueError, match="'step_size' of at least"):
            function(torch.eye(3))
    x = torch.eye(3, dtype=torch.float64)
    whole = heat(x, DiffusionOperator(edge_index, num_nodes=3, dtype=torch.float64))
    exact = PartitionedOperator.from_edges(
        edge_index, num_nodes=3, step_size=1e-6, dtype=torch.float64
    )
    torch.testing.assert_close(heat(x, exact), whole, rtol=0, atol=1e-6)
