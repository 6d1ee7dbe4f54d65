"""A first layer whose input, a bag of words, stays sparse, dropout included."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from torch_geometric.data import Data

from torch_geometric_diff.data import sparse_features
from torch_geometric_diff.ops import sparse_mm


class BagOfWords:
    """The features of a graph as CSR and, for the backward pass, their transpose.

    Args:
        x (torch.Tensor): The features as CSR with 32-bit indices.
        binary (bool): One for every word instead of the values of ``x``.
    """

    def __init__(self, x: Tensor, binary: bool = False) -> None:
        self.x, self.binary = x, binary
        self.values = torch.ones_like(self.x.values()) if binary else self.x.values()
        position = torch.arange(self.values.numel(), device=self.values.device)
        order = torch.sparse_csr_tensor(
            self.x.crow_indices(), self.x.col_indices(), position.double(), self.x.shape
        )
        transpose = order.t().to_sparse_csr()
        self.order = transpose.values().long()  # of the transpose's values among the values
        self.rows = (self.x.crow_indices(), self.x.col_indices())
        self.columns = (transpose.crow_indices().int(), transpose.col_indices().int())

    def select(self, nodes: Tensor) -> "BagOfWords":
        """The features of some nodes alone."""
        x = self.x.to_sparse_coo().index_select(0, nodes)
        return BagOfWords(sparse_features(Data(x)), self.binary)

    def matrix(self, values: Tensor) -> Tensor:
        """The features with other values at the same places."""
        return torch.sparse_csr_tensor(*self.rows, values, self.x.shape, check_invariants=False)

    def transpose(self, values: Tensor) -> Tensor:
        """The transpose of :meth:`matrix`."""
        shape = self.x.shape[::-1]
        return torch.sparse_csr_tensor(
            *self.columns, values[self.order], shape, check_invariants=False
        )


class _Product(torch.autograd.Function):
    """``bag.matrix(values) @ weight.t()``, differentiable in the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bag: BagOfWords, values: Tensor) -> Tensor:
        ctx.bag, ctx.values = bag, values
        return sparse_mm(bag.matrix(values), weight.t())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        transpose = ctx.bag.transpose(ctx.values)
        return sparse_mm(transpose, grad).t(), None, None


class BagLinear(Module):
    """Dropout and a linear layer on a bag of words: ``linear(dropout(x))``.

    Args:
        bag (BagOfWords): The features; they are no argument of the forward pass.
        linear (torch.nn.Module): Holds ``weight`` and perhaps ``bias``.
        dropout (float): Probability to drop a feature of a node.
    """

    def __init__(self, bag: BagOfWords, linear: Module, dropout: float = 0.0) -> None:
        super().__init__()
        self.bag = bag
        self.linear = linear
        self.dropout = dropout

    def forward(self) -> Tensor:
        values = F.dropout(self.bag.values, self.dropout, self.training)
        out = _Product.apply(self.linear.weight, self.bag, values)
        return out if self.linear.bias is None else out + self.linear.bias
