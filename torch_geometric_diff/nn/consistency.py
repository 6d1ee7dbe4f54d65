"""What several views of the same nodes disagree about."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Consistency(torch.autograd.Function):
    """The loss and, while its parts are at hand, its gradient.

    Sums over the few classes are products with a matrix of ones, several times as fast on a CPU as
    reductions of short rows.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, temperature: float) -> Tensor:
        num_classes = logits.size(-1)
        ones = logits.new_ones(num_classes, num_classes)
        centred = logits - logits @ (ones / num_classes)
        p = centred.clamp_(-40, 40).exp_()  # e^80 and its sums are finite; past it p is 0 or 1
        p /= p @ ones
        target = p.mean(dim=-2).pow_(1 / temperature)
        target /= target @ ones
        difference = p - target.unsqueeze(-2)
        count = p.numel() // num_classes
        weighted = p * difference
        ctx.save_for_backward((weighted - p * (weighted @ ones)).mul_(2 / count))
        return difference.square().sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * grads[0], None


def consistency(logits: Tensor, temperature: float = 0.5) -> Tensor:
    r"""How far the views of a node lie from their sharpened mean, over all nodes,

    .. math::
        \frac{1}{N V} \sum_{i = 1}^{N} \sum_{v = 1}^{V}
        \| \mathbf{p}_{iv} - \mathbf{q}_i \|_2^2, \qquad
        q_{ic} \propto \Big( \frac{1}{V} \sum_{v = 1}^{V} p_{ivc} \Big)^{1 / T},

    with :math:`\mathbf{p}_{iv}` the softmax of the logits of node :math:`i` in view :math:`v`. No
    gradient passes the target :math:`\mathbf{q}_i`. From `"Graph Random Neural Networks for
    Semi-Supervised Learning on Graphs" <https://arxiv.org/abs/2005.11079>`_.

    Args:
        logits (Tensor): The logits of all views.
        temperature (float, optional): The temperature :math:`T > 0`; below 1 it sharpens.
            (default: :obj:`0.5`)

    Shapes:
        - **input:** logits :math:`(N, V, C)`
        - **output:** a number

    Raises:
        ValueError: If ``logits`` are not of three dimensions or ``temperature`` is not positive.

    Example:
        >>> views = torch.tensor([[[2.0, 0.0], [2.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]]])
        >>> consistency(views[:1], temperature=1.0), consistency(views[1:], temperature=1.0)
        (tensor(0.), tensor(0.2900))
    """
    if logits.dim() != 3 or not logits.is_floating_point():
        raise ValueError(
            f"Expected 'logits' to be floating, of shape [N, V, C] "
            f"(got {list(logits.shape)}, {logits.dtype})"
        )
    if not temperature > 0:
        raise ValueError(f"Expected 'temperature' to be positive (got {temperature})")
    return _Consistency.apply(logits, temperature)
