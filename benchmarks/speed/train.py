"""Seconds an epoch of the paper's Cora setting: a training step and a validation."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module

from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.nn import DiffResNet

from .graphs import citation
from .harness import Harness

NUM_STEPS, STEP_SIZE, DROPOUT, CLASSES = 20, 0.25, 0.25, 7


class Original(Module):
    """The network in its original form: dense first layer, COO products, features diffused."""

    def __init__(self, channels: int, weight: Tensor, degree: Tensor) -> None:
        super().__init__()
        self.lin, self.classifier = Linear(channels, channels), Linear(channels, CLASSES)
        self.weight, self.degree = weight, degree

    def forward(self, x: Tensor, operator: None) -> Tensor:
        """Diffuse the features of all nodes."""
        h = x + F.relu(self.lin(x))
        for _ in range(NUM_STEPS):
            h = F.dropout(h, DROPOUT, self.training)
            h = h - STEP_SIZE * (torch.sparse.mm(self.degree, h) - torch.sparse.mm(self.weight, h))
        return self.classifier(h)


def _original(x: Tensor, operator: DiffusionOperator) -> Original:
    size = (operator.num_nodes, operator.num_nodes)
    laplacian = (torch.eye(size[0]) - operator.to_dense()) / STEP_SIZE
    degree = laplacian.diagonal()
    weight = (torch.diag(degree) - laplacian).to_sparse()
    index = torch.arange(size[0]).expand(2, -1)
    return Original(x.size(1), weight, torch.sparse_coo_tensor(index, degree, size))


def run(harness: Harness, quick: bool) -> list[dict[str, Any]]:
    """The rows of the suite."""
    case = citation("cora")
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(case.num_nodes, case.channels, generator=generator) < 0.0127).float()
    x = x / x.sum(1, keepdim=True).clamp(min=1)
    y = torch.randint(CLASSES, (case.num_nodes,), generator=generator)
    nodes = torch.randperm(case.num_nodes, generator=generator)
    train, val = nodes[:140], nodes[140:350]
    operator = DiffusionOperator(
        case.edge_index, num_nodes=case.num_nodes, step_size=STEP_SIZE, add_self_loops=True
    )

    def epoch(model: Module, x: Tensor, fused: bool) -> Callable[[], None]:
        adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4, fused=fused)

        def run() -> None:
            model.train()
            adam.zero_grad()
            F.cross_entropy(model(x, operator)[train], y[train]).backward()
            adam.step()
            model.eval()
            with torch.no_grad():
                F.cross_entropy(model(x, operator)[val], y[val])

        return run

    ours = DiffResNet(case.channels, CLASSES, NUM_STEPS, STEP_SIZE, DROPOUT)
    return harness.compare(
        f"{case.name} graph, one epoch (training step + validation)",
        {
            "ours": epoch(ours, x.to_sparse_csr(), True),
            "original form": epoch(_original(x, operator), x, False),
        },
        ours="ours",
        repeats=5 if quick else 15,
    )
