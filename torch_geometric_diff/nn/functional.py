"""What several views of the same nodes disagree about."""

import math
from typing import Any

import torch
from torch import Tensor

from .._utils.functorch import is_transformed

ROUNDS = 3  # of scaling, after which targets have about the shares that they are to have


class _Consistency(torch.autograd.Function):
    """The loss and, while its parts are at hand, its gradient.

    Sums over the few classes are products with a matrix of ones, several times as fast on a CPU as
    reductions of short rows.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, temperature: float, prior: Tensor | None, trust: float
    ) -> Tensor:
        ones = logits.new_ones(logits.size(-1), logits.size(-1))
        p = _softmax(logits, ones)
        target = _target(p.mean(dim=-2), temperature, prior, trust)
        difference = p - target.unsqueeze(-2)
        count = p.numel() // logits.size(-1)
        weighted = p * difference
        gradient = (weighted - p * (weighted @ ones)).mul_(2 / count)
        ctx.save_for_backward(logits, gradient)
        ctx.options = (temperature, prior, trust)
        return difference.square().sum() / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        logits, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # it is to be differentiated again
            loss = _composed(logits, *ctx.options)
            (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
        return gradient * grads[0], None, None, None


def _softmax(logits: Tensor, ones: Tensor) -> Tensor:
    if logits.numel() and logits.device.type == "cpu":
        centered = logits - logits @ (ones / len(ones))
        low, high = centered.aminmax()
        if -40 <= low and high <= 40:  # e^80 and its sums are finite
            p = centered.exp_()
            return p.div_(p @ ones)
    return logits.softmax(dim=-1)


def _sharpened(mean: Tensor, temperature: float) -> Tensor:
    size = mean.size(-1)
    if math.log(max(size, 1)) > 60 * temperature:  # or a row of powers might underflow to zeros
        mean = mean / mean.amax(dim=-1, keepdim=True)
    power = mean.pow(1 / temperature)
    return power / (power @ mean.new_ones(size, size))


def _target(mean: Tensor, temperature: float, prior: Tensor | None, trust: float) -> Tensor:
    target = _sharpened(mean, temperature)
    if prior is None:
        return target
    least = torch.finfo(mean.dtype).tiny
    own, prior = target.mean(dim=0), prior.to(mean)
    shares = prior.clamp(min=least).log().lerp(own.clamp(min=least).log(), trust).softmax(dim=0)
    for _ in range(ROUNDS):
        target = target * (shares / target.mean(dim=0).clamp(min=least))
        target = target / target.sum(dim=-1, keepdim=True).clamp(min=least)
    return target


def _composed(logits: Tensor, temperature: float, prior: Tensor | None, trust: float) -> Tensor:
    """The same of operations that torch differentiates."""
    p = logits.softmax(dim=-1)
    target = _target(p.detach().mean(dim=-2), temperature, prior, trust)
    return (p - target.unsqueeze(-2)).square().sum(dim=-1).mean()


def consistency(
    logits: Tensor,
    temperature: float = 0.5,
    prior: Tensor | None = None,
    trust: float = 1.0,
) -> Tensor:
    r"""How far the views of a node lie from their sharpened mean, over all nodes,

    .. math::
        \frac{1}{N V} \sum_{i = 1}^{N} \sum_{v = 1}^{V}
        \| \mathbf{p}_{iv} - \mathbf{q}_i \|_2^2, \qquad
        q_{ic} \propto \Big( \frac{1}{V} \sum_{v = 1}^{V} p_{ivc} \Big)^{1 / T},

    with :math:`\mathbf{p}_{iv}` the softmax of the logits of node :math:`i` in view :math:`v`. No
    gradient passes the target :math:`\mathbf{q}_i`. From `"Graph Random Neural Networks for
    Semi-Supervised Learning on Graphs" <https://arxiv.org/abs/2005.11079>`_.

    Sharpening makes large classes larger, and where features and edges say little the largest one
    takes all nodes. With a ``prior`` :math:`\mathbf{s}` the targets are scaled, class by class, and
    their rows made to sum to one again, so that their mean over all nodes comes close to a multiple
    of :math:`\bar{\mathbf{q}}^{t} \, \mathbf{s}^{1 - t}`, with :math:`\bar{\mathbf{q}}` that of the
    targets as they are and :math:`t` the ``trust`` (distribution alignment, `"ReMixMatch"
    <https://arxiv.org/abs/1911.09785>`_).

    Args:
        logits (Tensor): The logits of all views.
        temperature (float, optional): The temperature :math:`T > 0`; below 1 it sharpens.
            (default: :obj:`0.5`)
        prior (Tensor, optional): Assumed shares of the classes, :math:`(C,)`. (default: none)
        trust (float, optional): How far the targets' own shares are trusted, between 0 and 1.
            (default: :obj:`1.0`)

    Shapes:
        - **input:** logits :math:`(N, V, C)`
        - **output:** a number

    Raises:
        ValueError: If ``logits`` are not floating, of three dimensions, ``temperature`` is not
            positive, ``prior`` does not have a share a class, or ``trust`` is not in [0, 1].

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
    if prior is not None and prior.shape != logits.shape[-1:]:
        raise ValueError(
            f"Expected 'prior' of shape [{logits.size(-1)}], a share a class "
            f"(got {list(prior.shape)})"
        )
    if not 0 <= trust <= 1:
        raise ValueError(f"Expected 'trust' to lie in [0, 1] (got {trust})")
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    fused = not (torch.compiler.is_compiling() or is_transformed(wide))
    loss = _Consistency.apply if fused else _composed
    return loss(wide, temperature, prior, trust).to(logits.dtype)
