"""The network of the paper."""

from collections.abc import Callable, Sequence
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import Linear, Module

from ..._utils.modules import is_untouched
from ...ops import diffuse as diffuse_features
from ..conv._linear import add_bias, apply_weight, is_narrowing
from ..conv._seeds import draw_layer_seeds
from ..conv.diff_conv import DiffConv
from ..sparse_linear import check_input
from .residual_block import ResidualBlock

DIFFUSE = ("features", "logits", "probabilities")


class DiffResNet(Module):
    r"""Diff-ResNet from the `"Diffusion Mechanism in Residual Neural Network: Theory and
    Applications" <https://arxiv.org/abs/2105.03155>`_ paper: a residual block, :math:`K` steps of
    diffusion and a linear classifier,

    .. math::
        \mathbf{H} = \mathbf{X} + \mathrm{ReLU}(\mathbf{X} \mathbf{\Theta}^{\top} + \mathbf{b}),
        \qquad \mathbf{H} \leftarrow (\mathbf{I} - h \mathbf{L}) (\mathbf{M}_k \odot \mathbf{H}),
        \qquad \mathbf{Z} = \mathbf{H} \mathbf{C}^{\top} + \mathbf{c}

    Diffusion is linear and leaves constants as they are, so without dropout it commutes with the
    classifier: in evaluation, and whenever dropout is 0, the :math:`C` columns of
    :math:`\mathbf{Z}` are diffused instead of the :math:`F` columns of :math:`\mathbf{H}`, equal to
    rounding.

    Args:
        in_channels (int): The width :math:`F` of the input.
        out_channels (int): The number of classes :math:`C`.
        num_steps (int): The number of steps :math:`K`.
        step_size (float): The step size :math:`h`.
        dropout (float, optional): The probability to drop a feature before each step.
            (default: :obj:`0.0`)
        diffuse (str, optional): What is diffused: :obj:`"features"` (the paper), :obj:`"logits"`
            (dropout then falls on logits), or :obj:`"probabilities"` (`COIN
            <https://arxiv.org/abs/2403.15726>`_). (default: :obj:`"features"`)
        **kwargs (optional): Additional arguments of
            :class:`~torch_geometric_diff.nn.DiffConv`.

    Shapes:
        - **input:** node features :math:`(N, F)`, dense or a constant ``torch.sparse`` CSR matrix
          (a bag of words stays sparse in the first layer); the graph as in
          :class:`~torch_geometric_diff.nn.DiffConv`
        - **output:** logits :math:`(N, C)`; log-probabilities for :obj:`"probabilities"`

    Raises:
        ValueError: On arguments out of range, or features of another width.
        TypeError: On features that are no floating Tensor.

    Example:
        >>> model = DiffResNet(16, 3, num_steps=20, step_size=0.25, dropout=0.25)
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> model(torch.randn(3, 16), edge_index).shape
        torch.Size([3, 3])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_steps: int,
        step_size: float,
        dropout: float = 0.0,
        diffuse: str = "features",
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if diffuse not in DIFFUSE:
            raise ValueError(f"Expected 'diffuse' to be one of {DIFFUSE} (got {diffuse!r})")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.diffuse = diffuse
        self.block = ResidualBlock(in_channels)
        self.conv = DiffConv(num_steps, step_size, dropout, **kwargs)
        self.classifier = Linear(in_channels, out_channels)

    def reset_parameters(self) -> None:
        """Draw new weights and clear the cached graph."""
        self.block.reset_parameters()
        self.conv.reset_parameters()
        self.classifier.reset_parameters()

    def forward(
        self,
        x: Tensor,
        edge_index: Any,
        edge_weight: Optional[Tensor] = None,
        nodes: Optional[Tensor] = None,
    ) -> Tensor:
        """The logits of all nodes, or :math:`(n, C)` of the indices ``nodes`` alone."""
        check_input(x, self.in_channels)

        def diffuse(h: Tensor) -> Tensor:
            return self.conv(h, edge_index, edge_weight, nodes).to(h.dtype)

        return self._logits(self.block(x), diffuse, [self.classifier])

    @staticmethod
    def side_by_side(
        models: Sequence["DiffResNet"],
        x: Tensor,
        edge_index: Any,
        edge_weight: Optional[Tensor] = None,
        nodes: Optional[Tensor] = None,
    ) -> Tensor:
        """The logits :math:`(B, N, C)` of several networks that differ in their weights alone, or
        :math:`(B, n, C)` of each network's own ``nodes`` :math:`(B, n)`.

        Their features are diffused side by side in one call. Every network draws the seed of its
        masks from the ``generator`` of its own layer, so it does not notice the others.

        Raises:
            ValueError: If the networks differ in more than their weights, or learn a step size.
        """
        first = models[0]
        for model in models:
            conv = model.conv
            if not is_untouched(conv, DiffConv) or conv._is_observed() or conv.learn_step_size:
                raise ValueError(
                    "Networks whose 'conv' is replaced, observed or learns its step size cannot "
                    "go side by side"
                )
            if model._settings() != first._settings():
                raise ValueError(
                    "Expected 'models' to differ in their weights alone (got "
                    f"{model._settings()} beside {first._settings()})"
                )

        def diffuse(h: Tensor) -> Tensor:
            seeds: Any = None
            conv = first.conv
            if conv.drops:
                seeds = torch.cat([draw_layer_seeds(1, model.conv.generator) for model in models])
            operator = conv.operator(h, edge_index, edge_weight)
            h = diffuse_features(h, operator, conv.num_steps, conv.dropout, seeds, conv.training)
            if nodes is None:
                return h
            pairs = zip(h, nodes, strict=True)
            return torch.stack([own.index_select(0, wanted) for own, wanted in pairs])

        h = torch.stack([model.block(x) for model in models])
        return first._logits(h, diffuse, [model.classifier for model in models])

    def _settings(self) -> dict[str, Any]:
        names = ("num_steps", "step_size", "dropout", "normalization", "add_self_loops", "flow")
        own = {name: getattr(self.conv, name) for name in (*names, "training")}
        return {"diffuse": self.diffuse, **own}

    def _logits(
        self, h: Tensor, diffuse: Callable[[Tensor], Tensor], heads: list[Module]
    ) -> Tensor:
        """The logits of features by a classifier, or of a batch by the classifier of each."""

        def each(function: Callable[[Any, Tensor], Tensor], h: Tensor) -> Tensor:
            if h.dim() == 2:
                return function(heads[0], h)
            pairs = zip(heads, h, strict=True)
            return torch.stack([function(head, own) for head, own in pairs])

        if self.diffuse == "features":
            if not self._commutes() or not all(is_narrowing(head, h) for head in heads):
                return each(_call, diffuse(h))
            return each(add_bias, diffuse(each(apply_weight, h)))
        z = each(_call, h)
        if self.diffuse == "probabilities":
            u = diffuse(z.softmax(dim=-1))
            return u.clamp(min=torch.finfo(u.dtype).tiny).log()
        return diffuse(z)

    def _commutes(self) -> bool:
        """Whether diffusion commutes with a linear map."""
        conv = self.conv
        return is_untouched(conv, DiffConv) and not conv.drops and not conv._is_observed()

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"diffuse='{self.diffuse}', conv={self.conv})"
        )


def _call(head: Module, h: Tensor) -> Tensor:
    return head(h)
