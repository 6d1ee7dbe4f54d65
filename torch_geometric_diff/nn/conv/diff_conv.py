"""Diffusion as a message passing layer."""

from functools import partial
from math import isinf
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import Parameter

from ..._utils.checks import check_dropout, check_integer
from ..._utils.functorch import cacheable
from ...ops import DiffusionOperator, Recurrence, SparseOperator
from ...ops.heat_kernel import check_digits
from ...ops.operator import check_step_size
from ._cache import Graph
from ._laplacian import Diffusion
from ._recipes import DiffusionStep
from .base import Recipe, as_text

LEAST_STEP = 0.1  # of the longest one that averages, below which an operator loses digits


class DiffConv(Diffusion):
    r"""The diffusion operator from the `"Diffusion Mechanism in Residual Neural Network: Theory
    and Applications" <https://arxiv.org/abs/2105.03155>`_ paper.

    .. math::
        \mathbf{X}^{(k + 1)} = (\mathbf{I} - h \, \mathbf{L}) \,
        (\mathbf{M}_k \odot \mathbf{X}^{(k)}), \qquad
        \mathbf{L} = \mathrm{diag}(\mathbf{\hat{W}} \mathbf{1}) - \mathbf{\hat{W}},

    for :math:`k = 0, \ldots, K - 1`, where
    :math:`\mathbf{\hat{W}} = \mathbf{\hat{D}}^{-1/2} (\mathbf{W} + \mathbf{I})
    \mathbf{\hat{D}}^{-1/2}` denotes the normalized adjacency matrix with self-loops, :math:`h` the
    step size and :math:`\mathbf{M}_k` a dropout mask. Its node-wise formulation is

    .. math::
        \mathbf{x}_i \leftarrow \mathbf{x}_i + h \sum_{j \in \mathcal{N}(i)} \hat{w}_{ij} \,
        (\mathbf{x}_j - \mathbf{x}_i)

    where :math:`w_{ij}` is the edge weight from source node :obj:`j` to target node :obj:`i`
    (default: :obj:`1.0`). Rows of the operator sum to one: constants stay as they are. All
    :math:`K` steps run in one kernel, and with constant weights nothing is kept for the backward
    pass. Attributes act at the next call.

    .. note::
        Explicit steps diverge past a step size of :math:`2 / \lambda_{\max}(\mathbf{L})`; a warning
        names both numbers. PyG's explainers count this layer as one hop, whatever
        :math:`K` is: pass a subgraph of :math:`K` hops to explain single nodes.

    Args:
        num_steps (int): The number of steps :math:`K \ge 0`.
        step_size (float, optional): The step size :math:`h > 0`. (default: :obj:`0.25`)
        dropout (float, optional): The probability in :math:`[0, 1)` to drop a **feature** (not an
            edge) before each step during training. (default: :obj:`0.0`)
        normalization (str, optional): :obj:`"sym"`, :obj:`"row"`
            (:math:`\mathbf{\hat{D}}^{-1} (\mathbf{W} + \mathbf{I})`) or :obj:`None` for the weights
            as they are. (default: :obj:`"sym"`)
        add_self_loops (bool, optional): Whether the degrees of the normalization count a self-loop
            at every node. (default: :obj:`True`)
        cached (bool, optional): If set to :obj:`True`, the operator is built at the first call and
            reused. Another graph afterwards is an error, not a wrong result. This parameter should
            only be set to :obj:`True` in transductive learning scenarios. (default: :obj:`False`)
        learn_step_size (bool, optional): If set to :obj:`True`, :math:`h` is a parameter.
            (default: :obj:`False`)
        generator (torch.Generator, optional): The CPU generator that the seeds of the masks are
            drawn from. (default: torch's own)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:**
          node features :math:`(|\mathcal{V}|, F)` or :math:`(B, |\mathcal{V}|, F)`,
          edge indices :math:`(2, |\mathcal{E}|)` or a sparse matrix
          :math:`(|\mathcal{V}|, |\mathcal{V}|)` or a
          :class:`~torch_geometric_diff.ops.DiffusionOperator`,
          edge weights :math:`(|\mathcal{E}|)` *(optional)*,
          indices :math:`(n,)` of the nodes that are wanted *(optional; default: all)*
        - **output:** the shape of the node features; with ``nodes``, :math:`n` in the place of
          :math:`|\mathcal{V}|`

    Raises:
        ValueError: On arguments out of range, a bipartite graph, an ``edge_weight`` beside a sparse
            matrix, weights that are negative or not finite, a graph that is not the cached one, or
            ``nodes`` that are none.
        TypeError: If ``nodes`` are no indices.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> conv = DiffConv(num_steps=100, step_size=0.5, normalization="row")
        >>> conv(torch.tensor([[0.0], [0.0], [7.0]]), edge_index)  # shared out by degree
        tensor([[2.0000],
                [2.0000],
                [2.0000]])
    """

    def __init__(
        self,
        num_steps: int,
        step_size: float = 0.25,
        dropout: float = 0.0,
        normalization: Optional[str] = "sym",
        add_self_loops: bool = True,
        cached: bool = False,
        learn_step_size: bool = False,
        generator: Optional[torch.Generator] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(normalization, add_self_loops, cached, **kwargs)
        check_step_size(step_size)
        self.num_steps = check_integer("num_steps", num_steps, 0)
        self.initial_step_size = float(step_size)
        self.dropout = check_dropout(dropout)
        self.generator = generator
        self.step_size: Any = Parameter(torch.empty(())) if learn_step_size else step_size
        self.reset_parameters()

    @property
    def learn_step_size(self) -> bool:
        """Whether the step size is a parameter."""
        return isinstance(self.step_size, Parameter)

    def reset_parameters(self) -> None:
        """Reset the learned step size and clear the cache."""
        super().reset_parameters()
        if self.learn_step_size:
            torch.nn.init.constant_(self.step_size, self.initial_step_size)

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Optional[Tensor] = None,
        nodes: Optional[Tensor] = None,
    ) -> Tensor:
        """Diffuse ``x`` over the graph, see the class; the rows of the indices ``nodes`` alone."""
        graph = (edge_index, edge_weight)
        return self._propagate(
            self._check(x, graph),
            graph,
            self._recipe(),
            self._recurrence(),
            dropout=self.dropout,
            generator=self.generator,
            nodes=nodes,
        )

    def _operator(self, x: Tensor, graph: Graph, recipe: Recipe) -> SparseOperator:
        operator = super()._operator(x, graph, recipe)
        return _of_any_step(operator) if isinstance(self.step_size, Tensor) else operator

    def _recurrence(self) -> Any:
        if not isinstance(self.step_size, Tensor):
            return Recurrence.power(self.num_steps)
        return partial(_steps_of_size, num_steps=self.num_steps, step_size=self.step_size)

    @property
    def drops(self) -> bool:
        """Whether dropout applies now."""
        return self.training and self.dropout > 0

    def _recipe(self) -> DiffusionStep:
        step_size = self.step_size
        if isinstance(step_size, Tensor):  # a learned one is reached from the first
            step_size = self.initial_step_size
        return DiffusionStep(self.normalization, self.add_self_loops, step_size)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(num_steps={self.num_steps}, "
            f"step_size={as_text(self.step_size)})"
        )


def _steps_of_size(operator: DiffusionOperator, num_steps: int, step_size: Tensor) -> Recurrence:
    """Steps of a learned size with an operator of another: (1 - r) x + r P x is r times as long."""
    operator.check_stability(step_size)
    r = step_size.reshape(()) / operator.step_size
    return Recurrence(num_steps, a=r, d=1 - r)


def _of_any_step(operator: Any) -> SparseOperator:
    """The operator with a step size that is not tiny: much longer steps than its own are made of
    what its diagonal, close to 1, has lost of the Laplacian.
    """
    if not isinstance(operator, DiffusionOperator):  # in parts
        check_digits(operator)
        return operator
    without = 1.0 if operator.requires_grad else 1e30  # of a graph without edges any size is right
    if torch.compiler.is_compiling():  # a graph does not branch on values
        degree = operator.laplacian().detach().amax() if operator.nnz else torch.zeros(())
        return operator.with_step_size(torch.where(degree > 0, 1 / degree, without))
    longest, step_size = operator.gershgorin_step_size, operator.step_size
    if isinstance(step_size, Tensor) or not LEAST_STEP * longest > step_size:
        return operator
    longest = without if isinf(longest) else longest
    if operator.requires_grad:
        return operator.with_step_size(longest)
    with cacheable():
        return operator._derived("longest step", lambda: operator.with_step_size(longest))
