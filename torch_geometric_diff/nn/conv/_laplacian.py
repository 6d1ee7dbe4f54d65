"""What the layers that diffuse share: the Laplacian, as an operator and as fluxes along edges."""

from typing import Any, Optional

from torch import Tensor
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import spmm

from ...graph.adjacency import NORMALIZATIONS
from ...ops import DiffusionOperator
from ._recipes import DiffusionStep
from .base import Propagation


class Diffusion(Propagation):
    r"""The base of the layers that diffuse with the Laplacian
    :math:`\mathbf{L} = \mathrm{diag}(\mathbf{\hat{W}} \mathbf{1}) - \mathbf{\hat{W}}`.

    Args:
        normalization (str, optional): :obj:`"sym"`, :obj:`"row"` or :obj:`None`.
            (default: :obj:`"sym"`)
        add_self_loops (bool, optional): Whether the degrees of the normalization count a self-loop
            at every node. (default: :obj:`True`)
        cached (bool, optional): See :class:`~torch_geometric_diff.nn.conv.base.Propagation`.
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.
    """

    operators = DiffusionOperator

    def __init__(
        self,
        normalization: Optional[str] = "sym",
        add_self_loops: bool = True,
        cached: bool = False,
        **kwargs: Any,
    ) -> None:
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"Expected 'normalization' to be 'sym', 'row' or None (got {normalization!r})"
            )
        super().__init__(cached, **kwargs)
        self.add_self_loops = add_self_loops
        self.normalization = normalization

    def _recipe(self) -> DiffusionStep:
        return DiffusionStep(self.normalization, self.add_self_loops)

    def message(self, x_i: Tensor, x_j: Tensor, edge_weight: OptTensor) -> Tensor:  # type: ignore[override]
        """The flux along an edge.

        A masked edge is one removed from the normalized graph, its target's degree in the Laplacian
        included; the normalization itself keeps the degrees of the whole graph, as in GCNConv.
        """
        return edge_weight.view(-1, 1) * (x_j - x_i)

    def message_and_aggregate(self, adj_t: Adj, x: Tensor) -> Tensor:
        r"""All fluxes into a node, :math:`- \mathbf{L} \mathbf{X}`."""
        ones = x.new_ones(x.size(-2), 1)
        return spmm(adj_t, x, reduce=self.aggr) - spmm(adj_t, ones, reduce=self.aggr) * x
