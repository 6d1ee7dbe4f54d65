"""The variant of Diff-ResNet that ``benchmarks.tune`` searches: narrow, on a richer graph.

The words go through a small encoder with dropout, residual blocks follow, and what is diffused are
the few columns of the classifier instead of the many of the features. The graph is that of the
citations, joined with the nearest neighbors by words.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Dropout, Module, Sequential
from torch_geometric.data import Data

from benchmarks.nodes.peers import glorot_linear
from torch_geometric_diff.graph import feature_graph
from torch_geometric_diff.nn import DiffConv, ResidualBlock
from torch_geometric_diff.nn.sparse_linear import Linear

word_graph = lru_cache(maxsize=32)(feature_graph)  # a search asks for the same ones again


def mixed_graph(data: Data, neighbors: int, mix: float) -> tuple[Tensor, Tensor]:
    """Citations of weight 1 and word neighbors of weight ``mix`` times theirs."""
    weight = torch.ones(data.num_edges, device=data.edge_index.device)
    if neighbors == 0 or mix == 0:
        return data.edge_index, weight
    edge_index, knn_weight = word_graph(data.x, neighbors)
    return (
        torch.cat([data.edge_index, edge_index], dim=1),
        torch.cat([weight, mix * knn_weight]),
    )


class NarrowDiffResNet(Module):
    """Encoder, ``num_blocks`` residual blocks, classifier, diffusion of its output."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden: int,
        input_dropout: float,
        hidden_dropout: float,
        num_blocks: int,
        diffuse: str,
        layer_num: int,
        step_size: float,
        dropout: float,
        normalization: str,
        self_loops: bool,
        learn_step_size: bool = False,
    ) -> None:
        super().__init__()
        if diffuse not in ("logits", "probabilities"):
            raise ValueError(
                f"Expected 'diffuse' to be 'logits' or 'probabilities' (got {diffuse!r})"
            )
        self.first = Linear.from_dense(glorot_linear(in_channels, hidden), input_dropout)
        self.blocks = Sequential(*(ResidualBlock(hidden) for _ in range(num_blocks)))
        self.dropout = Dropout(hidden_dropout)
        self.classifier = glorot_linear(hidden, num_classes)
        self.diffuse = diffuse
        self.conv = DiffConv(
            layer_num,
            step_size,
            dropout,
            normalization,
            self_loops,
            cached=True,
            learn_step_size=learn_step_size,
        )

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor) -> Tensor:
        z = self.classifier(self.dropout(self.blocks(self.first(x).relu())))
        if self.diffuse == "logits":
            return self.conv(z, edge_index, edge_weight)
        u = self.conv(z.softmax(dim=-1), edge_index, edge_weight)
        return u.clamp(min=torch.finfo(u.dtype).tiny).log()
