"""A classifier that sees a graph in several views at once, each without some of the nodes."""

from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module, Parameter

from ..._utils.checks import check_dropout, check_integer, check_real
from ..conv.diff_conv import DiffConv
from ..sparse_linear import Linear, check_input


class RandomPropagation(Module):
    r"""A linear map diffused over the graph; in training, several views of it at once,

    .. math::
        \mathbf{Z}_v = (\mathbf{I} - h \mathbf{L})^K \,
        (\mathbf{m}_v \odot \mathbf{X} \mathbf{\Theta}) + \mathbf{b},
        \qquad v = 1, \ldots, V,

    where :math:`\mathbf{m}_v` drops each node with probability :math:`p` and scales the others by
    :math:`1 / (1 - p)`: what a node is must then be told from many of its surroundings. The views
    are columns of one call of the diffusion. With ``hidden_channels`` the map leads to hidden
    units, followed, after the diffusion, by ReLU, dropout and a linear classifier. Train it with
    :func:`~torch_geometric_diff.nn.consistency`; :class:`~torch_geometric_diff.NodeClassifier` does
    all of that. The random propagation is that of `"Graph Random Neural Networks for
    Semi-Supervised Learning on Graphs" <https://arxiv.org/abs/2005.11079>`_.

    Args:
        in_channels (int): The width of the input.
        out_channels (int): The number of classes :math:`C`.
        hidden_channels (int, optional): The number of hidden units. (default: none)
        num_steps (int, optional): The number of steps :math:`K`. (default: :obj:`8`)
        step_size (float, optional): The step size :math:`h`. (default: :obj:`0.5`)
        num_views (int, optional): The number of views :math:`V`. (default: :obj:`4`)
        node_dropout (float, optional): The probability :math:`p` to drop a node from a view.
            (default: :obj:`0.5`)
        dropout (float, optional): The probability to drop a hidden unit. (default: :obj:`0.5`)
        normalization (str, optional): See :class:`~torch_geometric_diff.nn.DiffConv`.
            (default: :obj:`"row"`)
        **kwargs (optional): Additional arguments of :class:`~torch_geometric_diff.nn.DiffConv`.

    Shapes:
        - **input:** node features :math:`(N, F)`, dense or a constant ``torch.sparse`` CSR matrix;
          the graph as in :class:`~torch_geometric_diff.nn.DiffConv`
        - **output:** logits, :math:`(N, V, C)` in training and :math:`(N, C)` in evaluation

    Raises:
        TypeError: On arguments that are no numbers.
        ValueError: On arguments out of range.

    Example:
        >>> model = RandomPropagation(16, 3, num_steps=4, num_views=2)
        >>> x, edge_index = torch.randn(3, 16), torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> model(x, edge_index).shape, model.eval()(x, edge_index).shape
        (torch.Size([3, 2, 3]), torch.Size([3, 3]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: Optional[int] = None,
        num_steps: int = 8,
        step_size: float = 0.5,
        num_views: int = 4,
        node_dropout: float = 0.5,
        dropout: float = 0.5,
        normalization: Optional[str] = "row",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_views = check_integer("num_views", num_views, 1)
        self.node_dropout = check_real(
            "node_dropout", node_dropout, lambda p: 0 <= p < 1, "lie in [0, 1)"
        )
        self.dropout = check_dropout(dropout)
        width = out_channels
        if hidden_channels is not None:
            width = check_integer("hidden_channels", hidden_channels, 1)
        self.encoder = Linear(in_channels, width, bias=False)
        self.bias = Parameter(torch.zeros(width))
        self.conv = DiffConv(num_steps, step_size, normalization=normalization, **kwargs)
        self.classifier = None if hidden_channels is None else torch.nn.Linear(width, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights and clear the cached graph."""
        torch.nn.init.xavier_uniform_(self.encoder.weight)
        torch.nn.init.zeros_(self.bias)
        self.conv.reset_parameters()
        if self.classifier is not None:
            torch.nn.init.xavier_uniform_(self.classifier.weight)
            torch.nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None) -> Tensor:
        """The logits of all nodes, see the class."""
        check_input(x, self.in_channels)
        h = self.encoder(x).unsqueeze(1)  # [N, 1, H]
        if self.training:
            h = torch.where(self._node_mask(h), h * (1 / (1 - self.node_dropout)), 0.0)
        views, width = h.shape[1:]
        h = self.conv(h.flatten(1), edge_index, edge_weight).to(h.dtype).view(-1, views, width)
        h = h + self.bias.to(h.dtype)
        if self.classifier is not None:
            h = self.classifier(F.dropout(h.relu(), self.dropout, self.training))
        return h if self.training else h.squeeze(1)

    def _node_mask(self, h: Tensor) -> Tensor:
        """Which nodes each view keeps, [N, V, 1]."""
        shape = h.size(0), self.num_views, 1
        return torch.rand(shape, dtype=torch.float32, device=h.device) >= self.node_dropout

    def __repr__(self) -> str:
        hidden = "" if self.classifier is None else f", hidden_channels={self.bias.numel()}"
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}{hidden}, "
            f"num_views={self.num_views}, node_dropout={self.node_dropout:g}, conv={self.conv})"
        )
