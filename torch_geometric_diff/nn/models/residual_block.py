"""The convection part of Diff-ResNet."""

import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from ..._utils.modules import is_untouched
from ..sparse_linear import Linear, densify


class ResidualBlock(Module):
    r"""A residual block, an Euler step of :math:`\dot{\mathbf{x}} = f(\mathbf{x})`:

    .. math::
        \mathbf{h} = \mathbf{x} + \mathrm{ReLU}(\mathbf{W}_1 \mathbf{x} + \mathbf{b}_1)
        \qquad \textrm{or} \qquad
        \mathbf{h} = \mathbf{x} + \mathbf{W}_2 \, \mathrm{ReLU}(\mathbf{W}_1 \mathbf{x} +
        \mathbf{b}_1) + \mathbf{b}_2

    The first form is that of the paper's graph experiments, the second that of its few-shot
    experiments and toys (`"Diffusion Mechanism in Residual Neural Network: Theory and Applications"
    <https://arxiv.org/abs/2105.03155>`_).

    Args:
        channels (int): The width :math:`F`.
        num_layers (int, optional): 1 for the first form, 2 for the second. (default: :obj:`1`)

    Shapes:
        - **input:** features :math:`(*, F)`, dense or ``torch.sparse`` CSR :math:`(N, F)`
        - **output:** dense features of the same shape

    Example:
        >>> ResidualBlock(16, num_layers=2)(torch.randn(5, 16)).shape
        torch.Size([5, 16])
    """

    def __init__(self, channels: int, num_layers: int = 1) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"Expected 'channels' to be at least 1 (got {channels})")
        if num_layers not in (1, 2):
            raise ValueError(f"Expected 'num_layers' to be 1 or 2 (got {num_layers})")
        self.channels = channels
        self.num_layers = num_layers
        self.lin1 = Linear(channels, channels)
        self.lin2 = Linear(channels, channels) if num_layers == 2 else None

    def reset_parameters(self) -> None:
        """Draw new weights."""
        self.lin1.reset_parameters()
        if self.lin2 is not None:
            self.lin2.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        out = F.relu(self.lin1(x), inplace=is_untouched(self.lin1, Linear))
        if self.lin2 is not None:
            out = self.lin2(out)
        return out + densify(x)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.channels}, num_layers={self.num_layers})"
