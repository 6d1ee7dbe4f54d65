"""Seconds an epoch of the paper's Cora setting, a training step and a validation, as
``benchmarks.planetoid`` trains: several epochs of ``fit``, its start and end included."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module

from benchmarks.common import fit, keep_freed_memory
from benchmarks.nodes.models import OncePerState
from benchmarks.speed.graphs import citation
from benchmarks.speed.harness import Harness
from torch_geometric_diff import DiffusionOperator
from torch_geometric_diff.nn import DiffResNet

NUM_STEPS, STEP_SIZE, DROPOUT, CLASSES = 20, 0.25, 0.25, 7
EPOCHS = 5


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
    keep_freed_memory()  # as the command does
    case = citation("cora")
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(case.num_nodes, case.channels, generator=generator) < 0.0127).float()
    x = x / x.sum(1, keepdim=True).clamp(min=1)
    y = torch.randint(CLASSES, (case.num_nodes,), generator=generator)
    nodes = torch.randperm(case.num_nodes, generator=generator)
    operator = DiffusionOperator(
        case.edge_index, num_nodes=case.num_nodes, step_size=STEP_SIZE, add_self_loops=True
    )
    ours = DiffResNet(case.channels, CLASSES, NUM_STEPS, STEP_SIZE, DROPOUT)
    ours.block = OncePerState(ours.block)  # type: ignore[assignment]
    epochs = 1 if quick else EPOCHS

    def train(model: Module, x: Tensor) -> Callable[[], object]:
        graph = (x, operator)
        return partial(fit, [model], graph, y, nodes[:140], nodes[-210:], max_epochs=epochs)

    rows = harness.compare(
        f"{case.name} ({case.num_nodes} x {case.channels}), one epoch (training step + validation)",
        {
            "ours": train(ours, x.to_sparse_csr()),
            "original form": train(_original(x, operator), x),
        },
        ours="ours",
        repeats=5,
    )
    return [{**row, "seconds": row["seconds"] / epochs} for row in rows]
