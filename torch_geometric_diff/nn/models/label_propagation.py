"""Label propagation."""

from collections.abc import Callable
from typing import Any, Optional

import torch
from torch import Tensor
from torch_geometric.utils import one_hot

from ..._utils.checks import check_integer, row_mask
from ...ops import PartitionedOperator, Recurrence
from ..conv._cache import Graph
from ..conv.base import Propagation, as_number, check_alpha


class LabelPropagation(Propagation):
    r"""The label propagation operator, firstly introduced in the `"Learning from Labeled and
    Unlabeled Data with Label Propagation" <http://mlg.eng.cam.ac.uk/zoubin/papers/CMU-CALD-02-107.pdf>`_
    paper.

    .. math::
        \mathbf{Y}^{\prime} = \alpha \cdot \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2}
        \mathbf{Y} + (1 - \alpha) \mathbf{Y},

    where unlabeled data is inferred by labeled data via propagation, in the form of the `"Combining
    Label Propagation And Simple Models Out-performs Graph Neural Networks"
    <https://arxiv.org/abs/2010.13993>`_ paper. The same results as
    :class:`torch_geometric.nn.LabelPropagation`, all steps in one kernel. No gradient passes.

    Args:
        num_layers (int): The number of propagations.
        alpha (float): The :math:`\alpha` coefficient.
        cached (bool, optional): If set to :obj:`True`, the matrix is built at the first call and
            reused. Another graph afterwards is an error. (default: :obj:`False`)

    Raises:
        ValueError: On arguments out of range, an ``edge_weight`` beside a sparse matrix, weights
            that are not finite, a ``mask`` that names no node, or a graph that is not the cached
            one.

    Example:
        >>> pairs = torch.tensor([[0, 0, 1, 2, 3, 3, 4], [1, 2, 2, 3, 4, 5, 5]])  # two triangles
        >>> edge_index = torch.cat([pairs, pairs.flip(0)], dim=1)
        >>> y, known = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 5])
        >>> LabelPropagation(num_layers=10, alpha=0.9)(y, edge_index, known).argmax(dim=1)
        tensor([0, 0, 0, 1, 1, 1])
    """

    add_self_loops = False
    normalize = None  # as the graph says

    def __init__(self, num_layers: int, alpha: float, cached: bool = False) -> None:
        super().__init__(cached)
        self.num_layers = check_integer("num_layers", num_layers, 0)
        self.alpha = check_alpha(alpha)

    @torch.no_grad()
    def forward(
        self,
        y: Tensor,
        edge_index: Any,
        mask: Optional[Tensor] = None,
        edge_weight: Optional[Tensor] = None,
        post_step: Optional[Callable[[Tensor], Tensor]] = None,
    ) -> Tensor:
        r"""Propagate the labels.

        Args:
            y (torch.Tensor): The labels :math:`\mathbf{Y}`: classes :math:`(N,)` or
                :math:`(N, 1)`, or a row of class scores a node :math:`(N, C)`.
            edge_index (torch.Tensor or SparseTensor): The graph in any form, or a
                :class:`~torch_geometric_diff.ops.SparseOperator`. An ``edge_index`` without
                weights, a ``SparseTensor`` without values and a ``torch.sparse`` matrix are
                normalized; weights and the values of a ``SparseTensor`` are taken as they are.
            mask (torch.Tensor, optional): A mask or indices of the nodes whose labels are used.
                (default: all)
            edge_weight (torch.Tensor, optional): The edge weights. (default: :obj:`None`)
            post_step (callable, optional): A function to apply after each propagation. If none is
                given, the output is clamped between 0 and 1, in the kernel.
                (default: :obj:`None`)
        """
        graph, scores = (edge_index, edge_weight), _scores(y, mask, edge_index)
        if post_step is None:
            return self.spread_scores(scores, graph, bounds=(0.0, 1.0))
        recipe, out = self._recipe(), self._check(scores, graph)
        operator = self._operator(out, graph, recipe)
        product = self._product(out, operator, graph, recipe)
        given = (1 - self.alpha) * out
        for _ in range(self.num_layers):
            moved = product(out.to(operator.dtype).unsqueeze(0)).squeeze(0)
            out = post_step(moved.to(given.dtype) * self.alpha + given)
        return out

    def spread_scores(self, scores: Tensor, graph: Graph, **limits: Any) -> Tensor:
        """Propagate rows of class scores within ``bounds`` or beside ``fixed`` rows."""
        recurrence = Recurrence.ppr(self.num_layers, 1 - as_number(self.alpha))
        x = self._check(scores, graph)
        return self._propagate(x, graph, self._recipe(), recurrence, **limits)

    def builds_as(self, other: "LabelPropagation") -> bool:
        """Whether another layer makes the same operator of a graph."""
        return (self._recipe(), self.flow) == (other._recipe(), other.flow)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(num_layers={self.num_layers}, alpha={self.alpha})"


def _scores(y: Tensor, mask: Optional[Tensor], graph: Any) -> Tensor:
    """Rows of class scores, zeros where the mask is not."""
    is_scores = isinstance(y, Tensor) and y.is_floating_point()
    if not isinstance(y, Tensor) or y.dim() not in ((2, 3) if is_scores else (1, 2)):
        got = f"{y.dtype} of shape {list(y.shape)}" if isinstance(y, Tensor) else y
        raise ValueError(
            "Expected 'y' to hold classes, integers of shape [N] or [N, 1], or scores of shape "
            f"[N, C] (got {got})"
        )
    if mask is not None:
        row_mask("mask", mask, y.size(0))
    known = y if mask is None else y[mask]
    if not is_scores:
        if y.dim() == 1 or (y.dtype == torch.long and y.size(0) == y.numel()):
            classes = int(y.max()) + 1 if y.numel() else 0
            if known.numel() and int(known.min()) < 0:
                raise ValueError(
                    "Expected 'y' to hold classes of at least 0 at the nodes whose labels are "
                    f"used (got {int(known.min())})"
                )
            if isinstance(graph, PartitionedOperator):  # no rank need see the last class
                classes = int(max(graph.of_all_ranks(classes)))
            known = one_hot(known.view(-1).long(), num_classes=classes)
        else:
            known = known.to(torch.get_default_dtype())
    if mask is None:
        return known
    out = known.new_zeros(y.size(0), *known.shape[1:])
    out[mask] = known
    return out
