"""Propagated features as transforms: powers, personalized PageRank and heat."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from .._utils.checks import check_integer, check_real
from ..nn import HeatConv
from ..ops import Recurrence, SparseOperator, propagate


class _Propagated(BaseTransform):
    """What the transforms share: how a graph is read.

    It is ``data.adj_t`` if there is one, else ``data.edge_index``, with the weights
    ``data.edge_weight`` or else a floating ``data.edge_attr`` of one number an edge, where PyG's
    ``GDC`` writes them. Other edge features are no weights.
    """

    attr: str
    add_self_loops: bool

    def _features(self, data: Data) -> Tensor:
        x = data.get(self.attr, None)
        if not isinstance(x, Tensor):
            raise ValueError(f"Expected 'data' to hold features in {self.attr!r} (got {data})")
        return x

    def _graph(self, data: Data) -> tuple[Any, Tensor | None]:
        adj_t = data.get("adj_t")
        if adj_t is not None:
            return adj_t, None
        if data.edge_index is None:
            raise ValueError(f"Expected 'data' to hold an 'edge_index' or 'adj_t' (got {data})")
        weight, attr = data.get("edge_weight"), data.edge_attr
        if weight is None and isinstance(attr, Tensor) and attr.dim() == 1:
            weight = attr if attr.is_floating_point() else None
        return data.edge_index, weight

    def _propagate(self, data: Data, recurrence: Recurrence) -> Tensor:
        x = self._features(data)
        with torch.no_grad():
            operator = SparseOperator.gcn_norm(
                *self._graph(data),
                num_nodes=x.size(0),
                add_self_loops=self.add_self_loops,
                dtype=torch.float64 if x.dtype == torch.float64 else torch.float32,
            )
            return propagate(x, operator, recurrence)


@functional_transform("powers")
class SIGN(_Propagated):
    r"""The features of several neighborhoods at once, from the `"SIGN: Scalable Inception Graph
    Neural Networks" <https://arxiv.org/abs/2004.11198>`_ paper,

    .. math::
        \mathbf{X}^{(k)} = {\left( \mathbf{D}^{-1/2} \mathbf{A} \mathbf{D}^{-1/2} \right)}^k
        \mathbf{X},

    saved in :obj:`data.x1`, :obj:`data.x2`, ... (functional name: :obj:`powers`). The same values
    as :class:`torch_geometric.transforms.SIGN`, all in one kernel.

    Args:
        K (int or sequence of int): The number of hops, for all of :math:`1, \ldots, K`; or the
            numbers of hops that are wanted.
        attr (str, optional): The attribute that holds :math:`\mathbf{X}`, and the names of the
            results without their numbers. (default: :obj:`"x"`)
        add_self_loops (bool, optional): Whether to add self-loops. (default: :obj:`False`)

    Raises:
        ValueError: If a number of hops is less than 1, or ``data`` holds no features or no graph.

    Example:
        >>> from torch_geometric.data import Data
        >>> data = Data(x=torch.eye(2), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> SIGN(2)(data)
        Data(x=[2, 2], edge_index=[2, 2], x1=[2, 2], x2=[2, 2])
    """

    def __init__(
        self, K: int | Sequence[int], attr: str = "x", add_self_loops: bool = False
    ) -> None:
        steps = list(K) if isinstance(K, Sequence) else range(1, check_integer("K", K, 1) + 1)
        self.steps = [check_integer("K", k, 1) for k in steps]
        if not self.steps:
            raise ValueError(f"Expected 'K' to hold numbers of hops (got {K!r})")
        self.attr = attr
        self.add_self_loops = add_self_loops

    def forward(self, data: Data) -> Data:
        """Write the features of ``data``."""
        out = self._propagate(data, Recurrence.states(self.steps))
        for k, x in zip(self.steps, out, strict=True):
            data[f"{self.attr}{k}"] = x.clone()
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(K={self.steps})"


@functional_transform("personalized_page_rank")
class PersonalizedPageRank(_Propagated):
    r"""Replaces features by their personalized PageRank,

    .. math::
        \mathbf{X} \leftarrow \alpha \sum_{k=0}^{K-1} (1 - \alpha)^k \mathbf{P}^k \mathbf{X}
        + (1 - \alpha)^K \mathbf{P}^K \mathbf{X}, \qquad \mathbf{P} = \mathbf{\hat{D}}^{-1/2}
        (\mathbf{A} + \mathbf{I}) \mathbf{\hat{D}}^{-1/2},

    what :class:`~torch_geometric_diff.nn.APPNP` computes, once, before training (functional name:
    :obj:`personalized_page_rank`).

    Args:
        alpha (float, optional): The teleport probability :math:`\alpha \in [0, 1]`.
            (default: :obj:`0.1`)
        K (int, optional): The number of steps :math:`K`. (default: :obj:`10`)
        attr (str, optional): The attribute that holds :math:`\mathbf{X}`. (default: :obj:`"x"`)
        add_self_loops (bool, optional): Whether to add self-loops. (default: :obj:`True`)

    Raises:
        ValueError: On arguments out of range, or if ``data`` holds no features or no graph.

    Example:
        >>> from torch_geometric.data import Data
        >>> data = Data(x=torch.eye(2), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> PersonalizedPageRank(alpha=0.5, K=1)(data).x
        tensor([[0.7500, 0.2500],
                [0.2500, 0.7500]])
    """

    def __init__(
        self, alpha: float = 0.1, K: int = 10, attr: str = "x", add_self_loops: bool = True
    ) -> None:
        self.alpha = check_real("alpha", alpha, lambda a: 0 <= a <= 1, "lie in [0, 1]")
        self.K = check_integer("K", K, 0)
        self.attr = attr
        self.add_self_loops = add_self_loops

    def forward(self, data: Data) -> Data:
        """Write the features of ``data``."""
        data[self.attr] = self._propagate(data, Recurrence.ppr(self.K, self.alpha))
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(alpha={self.alpha}, K={self.K})"


@functional_transform("heat")
class Heat(_Propagated):
    r"""Replaces features by what they are after they diffused for a time :math:`t`,

    .. math::
        \mathbf{X} \leftarrow e^{-t \mathbf{L}} \, \mathbf{X},

    what :class:`~torch_geometric_diff.nn.HeatConv` computes, once, before training (functional
    name: :obj:`heat`).

    Args:
        t (float, optional): The time :math:`t \ge 0`. (default: :obj:`1.0`)
        tol (float, optional): A bound of the error, relative to the norm of a column.
            (default: :obj:`1e-6`)
        normalization (str, optional): :obj:`"sym"`, :obj:`"row"` or :obj:`None`.
            (default: :obj:`"sym"`)
        attr (str, optional): The attribute that holds :math:`\mathbf{X}`. (default: :obj:`"x"`)
        add_self_loops (bool, optional): Whether the degrees of the normalization count a self-loop
            at every node. (default: :obj:`True`)

    Raises:
        ValueError: On arguments out of range, or if ``data`` holds no features or no graph.

    Example:
        >>> from torch_geometric.data import Data
        >>> data = Data(x=torch.eye(2), edge_index=torch.tensor([[0, 1], [1, 0]]))
        >>> Heat(t=100.0)(data).x
        tensor([[0.5000, 0.5000],
                [0.5000, 0.5000]])
    """

    def __init__(
        self,
        t: float = 1.0,
        tol: float = 1e-6,
        normalization: str | None = "sym",
        attr: str = "x",
        add_self_loops: bool = True,
    ) -> None:
        self.conv = HeatConv(t, False, tol, normalization, add_self_loops)
        self.attr = attr

    def forward(self, data: Data) -> Data:
        """Write the features of ``data``."""
        with torch.no_grad():
            data[self.attr] = self.conv(self._features(data), *self._graph(data))
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(t={self.conv.t:g}, tol={self.conv.tol:g})"
