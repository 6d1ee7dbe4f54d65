"""Generalized PageRank with learned weights."""

from collections.abc import Sequence
from typing import Any, Optional, Union

import torch
from torch import Tensor
from torch.nn import Parameter

from ..._utils.checks import check_dropout, check_integer, check_real
from ...ops import Recurrence
from ._docs import with_common_docs
from .base import Propagation

INITS = ("ppr", "nppr", "sgc", "random")


@with_common_docs
class GPRConv(Propagation):
    r"""The generalized PageRank propagation from the `"Adaptive Universal Generalized PageRank
    Graph Neural Network" <https://arxiv.org/abs/2006.07988>`_ paper (GPR-GNN).

    .. math::
        \mathbf{X}^{\prime} = \sum_{k=0}^K \gamma_k {\left( \mathbf{\hat{D}}^{-1/2} \mathbf{\hat{A}}
        \mathbf{\hat{D}}^{-1/2} \right)}^k \mathbf{X}

    where the weights :math:`\gamma_k`, of any sign, are learned: positive ones smooth, alternating
    ones sharpen, so that graphs whose neighbors differ are served as well.
    :math:`\mathbf{\hat{A}} = \mathbf{A} + \mathbf{I}` denotes the adjacency matrix with inserted
    self-loops and :math:`\hat{D}_{ii} = \sum_j \hat{A}_{ij}` its diagonal degree matrix. Entries of
    :math:`\mathbf{A}` are the edge weights (default: :obj:`1`).

    Args:
        K (int): Number of hops :math:`K`.
        alpha (float, optional): The parameter :math:`\alpha` of ``init``. (default: :obj:`0.1`)
        init (str or sequence of float, optional): What :math:`\gamma_k` begins with: :obj:`"ppr"`
            for :math:`\alpha (1 - \alpha)^k` and :math:`(1 - \alpha)^K` last, which is APPNP;
            :obj:`"nppr"` for :math:`\alpha^k / \sum_j |\alpha|^j`, which allows negative
            :math:`\alpha`; :obj:`"sgc"` for the last power alone; :obj:`"random"` for uniform ones
            of both signs whose absolute values sum to 1; or the :math:`K + 1` numbers themselves.
            (default: :obj:`"ppr"`)
        <matrix arguments>

    <matrix shapes and errors>

    Example:
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> conv = GPRConv(K=2, alpha=0.5)
        >>> conv(x, edge_index).shape
        torch.Size([3, 16])
        >>> conv.gamma.tolist()
        [0.5, 0.25, 0.25]
    """

    def __init__(
        self,
        K: int,
        alpha: float = 0.1,
        init: Union[str, Sequence[float]] = "ppr",
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
        self.alpha = check_real("alpha", alpha, lambda a: -1 <= a <= 1, "lie in [-1, 1]")
        self.init = init
        self.feature_dropout = check_dropout(feature_dropout, "feature_dropout")
        self.gamma = Parameter(torch.empty(self.K + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights to what they began with and clear the cache."""
        super().reset_parameters()
        with torch.no_grad():
            self.gamma.copy_(self._initial())

    def _initial(self) -> Tensor:
        size = self.gamma.numel()
        if not isinstance(self.init, str):
            gamma = torch.as_tensor(self.init, dtype=torch.float64, device="cpu")
            if gamma.shape != (size,) or not bool(gamma.isfinite().all()):
                raise ValueError(f"Expected 'init' to be {size} finite numbers (got {self.init})")
            return gamma
        k = torch.arange(size, dtype=torch.float64, device="cpu")
        if self.init == "ppr":
            gamma = self.alpha * (1 - self.alpha) ** k
            gamma[-1] = (1 - self.alpha) ** (size - 1)
            return gamma
        if self.init == "sgc":
            return (k == size - 1).double()
        if self.init == "nppr":
            gamma = self.alpha**k
        elif self.init == "random":
            gamma = 2 * torch.rand(size, dtype=torch.float64, device="cpu") - 1
        else:
            raise ValueError(f"Expected 'init' to be one of {INITS} or numbers (got {self.init!r})")
        return gamma / gamma.abs().sum()

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None) -> Tensor:
        """Propagate ``x`` over the graph, see the class."""
        graph = (edge_index, edge_weight)
        x, recurrence = self._check(x, graph), Recurrence(self.K, w=self.gamma)
        return self._propagate(x, graph, self._recipe(), recurrence, dropout=self.feature_dropout)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(K={self.K}, alpha={self.alpha}, init={self.init!r})"
