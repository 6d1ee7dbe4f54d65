"""Simple spectral graph convolution."""

from typing import Any

from torch import Tensor

from ...ops import Recurrence
from ._docs import with_common_docs
from ._linear import LinearPropagation
from .base import as_number, check_alpha


@with_common_docs
class SSGConv(LinearPropagation):
    r"""The simple spectral graph convolutional operator from the `"Simple Spectral Graph
    Convolution" <https://openreview.net/forum?id=CYO5T-YjWZV>`_ paper.

    .. math::
        \mathbf{X}^{\prime} = \frac{1}{K} \sum_{k=1}^K \left( (1 - \alpha) {\left(
        \mathbf{\hat{D}}^{-1/2} \mathbf{\hat{A}} \mathbf{\hat{D}}^{-1/2} \right)}^k \mathbf{X} +
        \alpha \mathbf{X} \right) \mathbf{\Theta},

    where :math:`\mathbf{\hat{A}} = \mathbf{A} + \mathbf{I}` denotes the adjacency matrix with
    inserted self-loops and :math:`\hat{D}_{ii} = \sum_j \hat{A}_{ij}` its diagonal degree matrix.
    Entries of :math:`\mathbf{A}` are the edge weights (default: :obj:`1`). The same results as
    :class:`torch_geometric.nn.SSGConv`, all steps in one kernel, and on the narrower side of
    :math:`\mathbf{\Theta}`. An improved :class:`~torch_geometric_diff.nn.SGConv` against
    oversmoothing.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive the size from the first
            input(s) to the forward method.
        out_channels (int): Size of each output sample.
        alpha (float): Teleport probability :math:`\alpha \in [0, 1]`; a Tensor of one number may be
            learned.
        <linear arguments>

    <linear shapes and errors>

    Example:
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> SSGConv(16, 4, alpha=0.1, K=8)(x, edge_index).shape
        torch.Size([3, 4])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        alpha: float,
        K: int = 1,
        cached: bool = False,
        add_self_loops: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, K, cached, add_self_loops, bias, **kwargs)
        self.alpha = check_alpha(alpha)
        self.reset_parameters()

    def _recurrence(self) -> Recurrence:
        alpha = as_number(self.alpha)
        if self.K == 0:
            return Recurrence(0, w=alpha.reshape(1) if isinstance(alpha, Tensor) else [alpha])
        return Recurrence.ssgc(self.K, alpha)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"K={self.K}, alpha={self.alpha})"
        )
