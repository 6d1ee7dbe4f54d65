"""The heat kernel as a layer."""

import math
from functools import partial
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import Parameter

from ..._utils.checks import check_real
from ..._utils.functorch import uncompiled
from ...ops.heat_kernel import heat, heat_recurrence
from ._laplacian import Diffusion
from .base import as_text


class HeatConv(Diffusion):
    r"""Diffusion for a time :math:`t`, exact to a tolerance,

    .. math::
        \mathbf{X}^{\prime} = e^{-t \mathbf{L}} \, \mathbf{X}, \qquad
        \mathbf{L} = \mathrm{diag}(\mathbf{\hat{W}} \mathbf{1}) - \mathbf{\hat{W}},

    where :math:`\mathbf{\hat{W}} = \mathbf{\hat{D}}^{-1/2} (\mathbf{W} + \mathbf{I})
    \mathbf{\hat{D}}^{-1/2}` denotes the normalized adjacency matrix with self-loops. It is what
    :class:`~torch_geometric_diff.nn.DiffConv` tends to as its steps, :math:`K h = t`, become many
    and short, without a bound on them: any time is stable. The expansion, in Chebyshev polynomials
    for a symmetric :math:`\mathbf{L}`, runs in one kernel, see
    :meth:`~torch_geometric_diff.ops.heat`.

    Args:
        t (float, optional): The time :math:`t \ge 0`. (default: :obj:`1.0`)
        learn_t (bool, optional): If set to :obj:`True`, the time is learned. The parameter is
            :math:`\log t`, so that it stays positive. (default: :obj:`False`)
        tol (float, optional): A bound in :math:`(0, 1)` of the error of the truncated expansion,
            relative to the norm of a column of ``x``. (default: :obj:`1e-6`)
        normalization (str, optional): :obj:`"sym"`, :obj:`"row"`
            (:math:`\mathbf{\hat{D}}^{-1} (\mathbf{W} + \mathbf{I})`) or :obj:`None` for the weights
            as they are. (default: :obj:`"sym"`)
        add_self_loops (bool, optional): Whether the degrees of the normalization count a self-loop
            at every node. (default: :obj:`True`)
        cached (bool, optional): If set to :obj:`True`, the operator is built at the first call and
            reused. Another graph afterwards is an error, not a wrong result. This parameter should
            only be set to :obj:`True` in transductive learning scenarios. (default: :obj:`False`)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:**
          node features :math:`(|\mathcal{V}|, F)` or :math:`(B, |\mathcal{V}|, F)`,
          edge indices :math:`(2, |\mathcal{E}|)` or a sparse matrix
          :math:`(|\mathcal{V}|, |\mathcal{V}|)` or a
          :class:`~torch_geometric_diff.ops.DiffusionOperator`,
          edge weights :math:`(|\mathcal{E}|)` *(optional)*
        - **output:** the shape of the node features

    Raises:
        ValueError: On arguments out of range, a bipartite graph, an ``edge_weight`` beside a sparse
            matrix, weights that are negative or not finite, or a graph that is not the cached one.

    Example:
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> conv = HeatConv(t=2.0, learn_t=True)
        >>> conv(x, edge_index).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        t: float = 1.0,
        learn_t: bool = False,
        tol: float = 1e-6,
        normalization: Optional[str] = "sym",
        add_self_loops: bool = True,
        cached: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(normalization, add_self_loops, cached, **kwargs)
        self.initial_t = _check_time(t, learn_t)
        self.tol = check_real("tol", tol, lambda v: 0 < v < 1, "lie in (0, 1)")
        self.log_t: Any = Parameter(torch.empty(())) if learn_t else None
        self.reset_parameters()

    @property
    def learn_t(self) -> bool:
        """Whether the time is learned."""
        return self.log_t is not None

    @property
    def t(self) -> Any:
        """The time: a number, or a Tensor if it is learned."""
        return self.log_t.exp() if self.learn_t else self._t

    @t.setter
    def t(self, value: float) -> None:
        value = _check_time(value, self.learn_t)
        if self.learn_t:
            torch.nn.init.constant_(self.log_t, math.log(value))
        else:
            self._t = value

    def reset_parameters(self) -> None:
        """Set the time to what it began with and clear the cache."""
        super().reset_parameters()
        self.t = self.initial_t

    @partial(uncompiled, reason="the number of its steps depends on values")
    def forward(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None) -> Tensor:
        """Diffuse ``x`` over the graph, see the class."""
        graph = (edge_index, edge_weight)
        x, recipe = self._check(x, graph), self._recipe()
        if self._is_observed():
            expansion = partial(heat_recurrence, t=self.t, tol=self.tol)
            return self._propagate(x, graph, recipe, expansion)
        return heat(x, self._operator(x, graph, recipe), self.t, tol=self.tol)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(t={as_text(self.t)}, tol={self.tol:g})"


def _check_time(t: Any, learned: bool) -> float:
    if learned:
        return check_real("t", t, lambda v: 0 < v < math.inf, "be positive and finite, as learned")
    return check_real("t", t, lambda v: 0 <= v < math.inf, "be at least 0 and finite")
