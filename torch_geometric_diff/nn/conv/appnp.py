"""Personalized PageRank of predictions."""

from typing import Any, Optional

from torch import Tensor

from ..._utils.checks import check_dropout, check_integer, check_real
from ...ops import Recurrence
from ._docs import with_common_docs
from .base import Propagation, as_number, check_alpha


@with_common_docs
class APPNP(Propagation):
    r"""The approximate personalized propagation of neural predictions layer from the `"Predict
    then Propagate: Graph Neural Networks meet Personalized PageRank"
    <https://arxiv.org/abs/1810.05997>`_ paper.

    .. math::
        \mathbf{X}^{(k)} = (1 - \alpha) \, \mathbf{\hat{D}}^{-1/2} \mathbf{\hat{A}}
        \mathbf{\hat{D}}^{-1/2} \, \mathbf{X}^{(k-1)} + \alpha \mathbf{X}^{(0)},
        \qquad \mathbf{X}^{(0)} = \mathbf{X}, \quad k = 1, \ldots, K

    where :math:`\mathbf{\hat{A}} = \mathbf{A} + \mathbf{I}` denotes the adjacency matrix with
    inserted self-loops and :math:`\hat{D}_{ii} = \sum_j \hat{A}_{ij}` its diagonal degree matrix.
    Entries of :math:`\mathbf{A}` are the edge weights (default: :obj:`1`). The same results as
    :class:`torch_geometric.nn.APPNP`, in one kernel; with constant weights nothing is kept for the
    backward pass.

    .. note::
        :class:`torch_geometric.nn.APPNP` drops, in every step, what the steps before have left of
        the edges: of :math:`p = 0.5` and ten steps, 0.1 % are left at the end. Here every step
        draws anew from **all** edges, as in the paper; it costs a product a step.
        ``feature_dropout`` is free.

    Args:
        K (int): Number of iterations :math:`K`.
        alpha (float): Teleport probability :math:`\alpha`; a Tensor of one number may be learned.
        dropout (float, optional): Dropout probability of the entries of the normalized matrix,
            self-loops among them, during training, drawn anew in each step.
            (default: :obj:`0.0`)
        <matrix arguments>

    <matrix shapes and errors>

    Example:
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> APPNP(K=10, alpha=0.1)(x, edge_index).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        K: int,
        alpha: float,
        dropout: float = 0.0,
        cached: bool = False,
        add_self_loops: bool = True,
        normalize: bool = True,
        feature_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(cached, **kwargs)
        self.add_self_loops = add_self_loops
        self.normalize = normalize
        self.K = check_integer("K", K, 0)
        self.alpha = check_alpha(alpha)
        self.dropout = check_real("dropout", dropout, lambda p: 0 <= p <= 1, "lie in [0, 1]")
        self.feature_dropout = check_dropout(feature_dropout, "feature_dropout")

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None) -> Tensor:
        """Propagate ``x`` over the graph, see the class."""
        graph = (edge_index, edge_weight)
        x = self._check(x, graph)
        recurrence = Recurrence.ppr(self.K, as_number(self.alpha))
        dropouts: dict[str, Any] = {"dropout": self.feature_dropout, "edge_dropout": self.dropout}
        return self._propagate(x, graph, self._recipe(), recurrence, **dropouts)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(K={self.K}, alpha={self.alpha})"
