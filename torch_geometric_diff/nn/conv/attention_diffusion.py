"""Diffusion along edges whose weights attention learns."""

from typing import Any, Optional

import torch
from scipy.stats import poisson
from torch import Tensor
from torch.nn import Linear

from ..._utils.checks import check_dropout, check_integer, check_real
from ...ops import Recurrence, propagate
from ...ops.attention import EdgeList, edge_attention
from ..sparse_linear import check_input


class AttentionDiffusion(torch.nn.Module):
    r"""Diffusion by attention of the input, the linear form of `"GRAND: Graph Neural Diffusion"
    <https://arxiv.org/abs/2106.10934>`_,

    .. math::
        \frac{d \mathbf{X}}{dt} = (\mathbf{A} - \mathbf{I}) \mathbf{X}, \qquad
        A_{ij} = \frac{1}{H} \sum_{h=1}^{H} \mathrm{softmax}_{j \to i}
        \frac{\langle \mathbf{Q}_h \mathbf{x}_i, \mathbf{K}_h \mathbf{x}_j \rangle}{\sqrt{D}},

    by :math:`K` Euler steps of size :math:`h`, or, with ``t``, exactly to a tolerance, as powers of
    :math:`\mathbf{A}` weighted by a Poisson distribution. The weights are made once, of the input;
    all steps run in one kernel. Its backward pass has a few steps of some columns in memory and
    computes others again, so that memory does not grow with :math:`K`.

    Args:
        in_channels (int): Size of each input sample.
        attention_channels (int, optional): The size :math:`D` of a head. (default: :obj:`16`)
        heads (int, optional): The number of heads :math:`H`. (default: :obj:`4`)
        num_steps (int, optional): The number of steps :math:`K`. (default: :obj:`10`)
        step_size (float, optional): The step size, in :math:`(0, 1]`. (default: :obj:`0.25`)
        t (float, optional): The time; ``num_steps`` and ``step_size`` are not used then.
            (default: :obj:`None`)
        attention_dropout (float, optional): The probability to drop a weight of a head during
            training. (default: :obj:`0.0`)
        add_self_loops (bool, optional): Whether each node attends to itself. A node without an edge
            and without this decays to zero. (default: :obj:`True`)
        cached (bool, optional): If set to :obj:`True`, the edges are sorted at the first call and
            reused; another graph afterwards is an error. (default: :obj:`False`)

    Shapes:
        - **input:**
          node features :math:`(|\mathcal{V}|, F)`,
          edge indices :math:`(2, |\mathcal{E}|)` or a sparse matrix, whose values are not read
        - **output:** the shape of the node features

    Raises:
        ValueError: On arguments out of range, or a graph that is not the cached one.

    Example:
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> AttentionDiffusion(16, heads=2, num_steps=20)(x, edge_index).shape
        torch.Size([3, 16])
    """

    def __init__(
        self,
        in_channels: int,
        attention_channels: int = 16,
        heads: int = 4,
        num_steps: int = 10,
        step_size: float = 0.25,
        t: Optional[float] = None,
        attention_dropout: float = 0.0,
        add_self_loops: bool = True,
        cached: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = check_integer("in_channels", in_channels, 1)
        self.attention_channels = check_integer("attention_channels", attention_channels, 1)
        self.heads = check_integer("heads", heads, 1)
        self.num_steps = check_integer("num_steps", num_steps, 0)
        self.step_size = check_real("step_size", step_size, lambda h: 0 < h <= 1, "lie in (0, 1]")
        if t is not None:
            t = check_real("t", t, lambda v: 0 <= v <= 1e4, "lie in [0, 10000]")
        self.t = t
        self.attention_dropout = check_dropout(attention_dropout, "attention_dropout")
        self.add_self_loops = add_self_loops
        self.cached = cached
        width = self.heads * self.attention_channels
        self.lin_query = Linear(in_channels, width, bias=False)
        self.lin_key = Linear(in_channels, width, bias=False)
        self.reset_parameters()

    def __prepare_scriptable__(self) -> None:
        raise TypeError(
            f"'{self.__class__.__name__}' cannot be scripted: TorchScript has no such kernel. "
            "Use 'torch.compile' or 'torch.export' instead"
        )

    def reset_parameters(self) -> None:
        """Draw new weights and clear the cached graph."""
        torch.nn.init.xavier_uniform_(self.lin_query.weight)
        torch.nn.init.xavier_uniform_(self.lin_key.weight)
        self._cached: Optional[tuple[EdgeList, Tensor]] = None

    def forward(self, x: Tensor, edge_index: Any) -> Tensor:
        """Diffuse ``x`` over the graph, see the class."""
        check_input(x, self.in_channels)
        if x.dim() != 2 or x.layout != torch.strided:
            raise ValueError(
                f"Expected 'x' to be dense, of shape [N, {self.in_channels}] (got {x.layout} of "
                f"shape {list(x.shape)})"
            )
        edges = self._edges(edge_index, x.size(-2))
        operator = edges.operator(self.attention(x, edges))
        return propagate(x, operator, self._recurrence())

    def attention(self, x: Tensor, edges: EdgeList) -> Tensor:
        """The mean of the heads' weights of every edge, :math:`(E,)`, in the order of ``edges``."""
        shape = (x.size(0), self.heads, self.attention_channels)
        query, key = self.lin_query(x).view(shape), self.lin_key(x).view(shape)
        dropout = self.attention_dropout
        weights = edge_attention(
            query, key, edges, score="dot", dropout=dropout, training=self.training
        )
        return weights.mean(dim=1)

    def _recurrence(self) -> Recurrence:
        if self.t is None:
            return Recurrence(self.num_steps, a=self.step_size, d=1 - self.step_size)
        steps = int(poisson.isf(1e-9, self.t)) + 1 if self.t > 0 else 0
        return Recurrence(steps, w=[float(w) for w in poisson.pmf(range(steps + 1), self.t)])

    def _edges(self, edge_index: Any, num_nodes: int) -> EdgeList:
        if self._cached is not None:
            edges, graph = self._cached
            given = EdgeList(edge_index, num_nodes)
            if edges.num_nodes != num_nodes or not torch.equal(graph, given.index()):
                raise ValueError(
                    f"'{self.__class__.__name__}(cached=True)' was called with another graph than "
                    "the one in its cache; call 'reset_parameters()' or set 'cached=False'"
                )
            return edges
        given = EdgeList(edge_index, num_nodes)
        edges = given.with_self_loops() if self.add_self_loops else given
        if self.cached and not torch.compiler.is_compiling():
            self._cached = (edges, given.index().clone())
        return edges

    def __repr__(self) -> str:
        how = f"num_steps={self.num_steps}, step_size={self.step_size:g}"
        if self.t is not None:
            how = f"t={self.t:g}"
        return f"{self.__class__.__name__}({self.in_channels}, heads={self.heads}, {how})"
