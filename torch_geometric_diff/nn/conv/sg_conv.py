"""Simplified graph convolution."""

from typing import Any

from ...ops import Recurrence
from ._docs import with_common_docs
from ._linear import LinearPropagation


@with_common_docs
class SGConv(LinearPropagation):
    r"""The simple graph convolutional operator from the `"Simplifying Graph Convolutional Networks"
    <https://arxiv.org/abs/1902.07153>`_ paper.

    .. math::
        \mathbf{X}^{\prime} = {\left(\mathbf{\hat{D}}^{-1/2} \mathbf{\hat{A}}
        \mathbf{\hat{D}}^{-1/2} \right)}^K \mathbf{X} \mathbf{\Theta},

    where :math:`\mathbf{\hat{A}} = \mathbf{A} + \mathbf{I}` denotes the adjacency matrix with
    inserted self-loops and :math:`\hat{D}_{ii} = \sum_j \hat{A}_{ij}` its diagonal degree matrix.
    Entries of :math:`\mathbf{A}` are the edge weights (default: :obj:`1`). The same results as
    :class:`torch_geometric.nn.SGConv`, all steps in one kernel, and on the narrower side of
    :math:`\mathbf{\Theta}`.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive the size from the first
            input(s) to the forward method.
        out_channels (int): Size of each output sample.
        <linear arguments>

    <linear shapes and errors>

    Example:
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> SGConv(16, 4, K=2)(x, edge_index).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int = 1,
        cached: bool = False,
        add_self_loops: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, K, cached, add_self_loops, bias, **kwargs)
        self.reset_parameters()

    def _recurrence(self) -> Recurrence:
        return Recurrence.power(self.K)
