"""Correct and smooth."""

from typing import Any, Optional

import torch
from torch import Tensor
from torch_geometric.utils import one_hot

from ..._utils.checks import check_indices, row_mask
from ..._utils.modules import is_untouched
from ...ops import PartitionedOperator
from .label_propagation import LabelPropagation


class CorrectAndSmooth(torch.nn.Module):
    r"""The correct and smooth (C&S) post-processing model from the `"Combining Label Propagation
    And Simple Models Out-performs Graph Neural Networks" <https://arxiv.org/abs/2010.13993>`_
    paper, where soft predictions :math:`\mathbf{Z}` (obtained from a simple base predictor) are
    first corrected based on ground-truth training label information :math:`\mathbf{Y}` and residual
    propagation.

    .. math::
        \mathbf{e}^{(0)}_i &= \begin{cases}
            \mathbf{y}_i - \mathbf{z}_i, & \text{if }i \text{ is training node,}\\
            \mathbf{0}, & \text{else}
        \end{cases}

    .. math::
        \mathbf{E}^{(\ell)} &= \alpha_1 \mathbf{D}^{-1/2}\mathbf{A} \mathbf{D}^{-1/2}
        \mathbf{E}^{(\ell - 1)} + (1 - \alpha_1) \mathbf{E}^{(0)}

        \mathbf{\hat{Z}} &= \mathbf{Z} + \gamma \cdot \mathbf{E}^{(L_1)},

    where :math:`\gamma` denotes the scaling factor (either fixed or automatically determined), and
    then smoothed over the graph via label propagation

    .. math::
        \mathbf{\hat{z}}^{(0)}_i &= \begin{cases}
            \mathbf{y}_i, & \text{if }i\text{ is training node,}\\
            \mathbf{\hat{z}}_i, & \text{else}
        \end{cases}

    .. math::
        \mathbf{\hat{Z}}^{(\ell)} = \alpha_2 \mathbf{D}^{-1/2}\mathbf{A} \mathbf{D}^{-1/2}
        \mathbf{\hat{Z}}^{(\ell - 1)} + (1 - \alpha_2) \mathbf{\hat{Z}}^{(0)}

    to obtain the final prediction :math:`\mathbf{\hat{Z}}^{(L_2)}`. The same results as
    :class:`torch_geometric.nn.CorrectAndSmooth`; each of the two propagations runs in one kernel,
    and a call of both builds the matrix once.

    Args:
        num_correction_layers (int): The number of propagations :math:`L_1`.
        correction_alpha (float): The :math:`\alpha_1` coefficient.
        num_smoothing_layers (int): The number of propagations :math:`L_2`.
        smoothing_alpha (float): The :math:`\alpha_2` coefficient.
        autoscale (bool, optional): If set to :obj:`True`, will automatically determine the scaling
            factor :math:`\gamma`, and errors are clamped between -1 and 1; else the errors of
            training nodes are kept fixed. (default: :obj:`True`)
        scale (float, optional): The scaling factor :math:`\gamma`, in case
            :obj:`autoscale = False`. (default: :obj:`1.0`)

    Raises:
        ValueError: On arguments out of range, or if ``y_true`` does not have a row for each node of
            ``mask``.

    Example:
        >>> pairs = torch.tensor([[0, 0, 1, 2, 3, 3, 4], [1, 2, 2, 3, 4, 5, 5]])  # two triangles
        >>> edge_index = torch.cat([pairs, pairs.flip(0)], dim=1)
        >>> y, known = torch.tensor([0, 1]), torch.tensor([0, 5])
        >>> soft = torch.full((6, 2), 0.5)  # a model that knows nothing
        >>> post = CorrectAndSmooth(10, 0.9, 10, 0.9)
        >>> soft = post.correct(soft, y, known, edge_index)
        >>> post.smooth(soft, y, known, edge_index).argmax(dim=1)
        tensor([0, 0, 0, 1, 1, 1])
    """

    def __init__(
        self,
        num_correction_layers: int,
        correction_alpha: float,
        num_smoothing_layers: int,
        smoothing_alpha: float,
        autoscale: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.autoscale = autoscale
        self.scale = scale
        self.prop1 = LabelPropagation(num_correction_layers, correction_alpha)
        self.prop2 = LabelPropagation(num_smoothing_layers, smoothing_alpha)

    def forward(
        self,
        y_soft: Tensor,
        y_true: Tensor,
        mask: Tensor,
        edge_index: Any,
        edge_weight: Optional[Tensor] = None,
    ) -> Tensor:
        r"""Applies both :meth:`correct` and :meth:`smooth`."""
        graph = (edge_index, edge_weight)
        first, second = self.prop1, self.prop2
        if _is_fused(first) and _is_fused(second) and first.builds_as(second):
            y_soft = first._check(y_soft, graph)
            with torch.no_grad():
                graph = (first.operator(y_soft, *graph), None)
        y_soft = self.correct(y_soft, y_true, mask, *graph)
        return self.smooth(y_soft, y_true, mask, *graph)

    def correct(
        self,
        y_soft: Tensor,
        y_true: Tensor,
        mask: Tensor,
        edge_index: Any,
        edge_weight: Optional[Tensor] = None,
    ) -> Tensor:
        r"""Spread the errors at training nodes.

        Args:
            y_soft (torch.Tensor): The soft predictions :math:`\mathbf{Z}` obtained from a simple
                base predictor.
            y_true (torch.Tensor): The ground-truth label information :math:`\mathbf{Y}` of training
                nodes.
            mask (torch.Tensor): A mask or index tensor denoting which nodes were used for training.
            edge_index (torch.Tensor or SparseTensor): The graph, see :class:`LabelPropagation`.
            edge_weight (torch.Tensor, optional): The edge weights. (default: :obj:`None`)
        """
        y_true = _rows(y_soft, y_true, mask)
        error = torch.zeros_like(y_soft)
        error[mask] = y_true - y_soft[mask]
        smoothed = self._smooth_errors(error, mask, edge_index, edge_weight)
        if not self.autoscale:
            return y_soft + self.scale * smoothed
        sigma, size = _mean_error(error[mask], edge_index), smoothed.abs().sum(1, keepdim=True)
        reached = size > 0  # no NaN in values or gradients where no error came
        scale = sigma / torch.where(reached, size, 1.0)
        scale = torch.where(reached & (scale <= 1000), scale, 1.0)
        return y_soft + scale * smoothed

    @torch.no_grad()
    def _smooth_errors(
        self, error: Tensor, mask: Tensor, edge_index: Any, edge_weight: Optional[Tensor]
    ) -> Tensor:
        if _is_fused(self.prop1):
            limits: dict[str, Any] = {"bounds": (-1.0, 1.0)} if self.autoscale else {"fixed": mask}
            return self.prop1.spread_scores(error, (edge_index, edge_weight), **limits)

        def limit(x: Tensor) -> Tensor:
            if self.autoscale:
                return x.clamp(-1.0, 1.0)
            x[mask] = error[mask].to(x.dtype)
            return x

        return self.prop1(error, edge_index, edge_weight=edge_weight, post_step=limit)

    def smooth(
        self,
        y_soft: Tensor,
        y_true: Tensor,
        mask: Tensor,
        edge_index: Any,
        edge_weight: Optional[Tensor] = None,
    ) -> Tensor:
        r"""Spread the labels of training nodes over the corrected predictions.

        Args:
            y_soft (torch.Tensor): The corrected predictions :math:`\mathbf{Z}` obtained from
                :meth:`correct`.
            y_true (torch.Tensor): The ground-truth label information :math:`\mathbf{Y}` of training
                nodes.
            mask (torch.Tensor): A mask or index tensor denoting which nodes were used for training.
            edge_index (torch.Tensor or SparseTensor): The graph, see :class:`LabelPropagation`.
            edge_weight (torch.Tensor, optional): The edge weights. (default: :obj:`None`)
        """
        y_true = _rows(y_soft, y_true, mask)
        y_soft = y_soft.clone()
        y_soft[mask] = y_true
        return self.prop2(y_soft, edge_index, edge_weight=edge_weight)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(\n"
            f"  correct: num_layers={self.prop1.num_layers}, alpha={self.prop1.alpha}\n"
            f"  smooth:  num_layers={self.prop2.num_layers}, alpha={self.prop2.alpha}\n"
            f"  autoscale={self.autoscale}, scale={self.scale}\n"
            ")"
        )


def _is_fused(part: Any) -> bool:
    """Whether a part is label propagation and nothing else, that nobody looks at."""
    return is_untouched(part, LabelPropagation) and not part._is_observed()


def _mean_error(error: Tensor, graph: Any) -> Tensor:
    """The absolute error of a training node, in the mean over all."""
    total, count = error.abs().sum(), len(error)
    if not isinstance(graph, PartitionedOperator):
        return total / count
    if total.requires_grad:
        raise ValueError("Expected constant 'y_soft' beside a PartitionedOperator")
    sums = [sum(graph.of_all_ranks(each)) for each in (float(total), float(count))]
    return total.new_tensor(sums[0] / sums[1])


def _rows(y_soft: Tensor, y_true: Tensor, mask: Tensor) -> Tensor:
    """A row of class scores for every training node."""
    row_mask("mask", mask, y_soft.size(0))
    count, classes = int(mask.sum()) if mask.dtype == torch.bool else mask.size(0), y_soft.size(-1)
    if y_true.dim() not in (1, 2) or y_true.size(0) != count:
        raise ValueError(
            f"Expected 'y_true' to have {count} rows, one a node of 'mask' "
            f"(got shape {list(y_true.shape)})"
        )
    if y_true.shape == (count, classes) and (classes > 1 or y_true.is_floating_point()):
        return y_true.to(y_soft.dtype)
    if y_true.numel() != count or y_true.is_floating_point() or y_true.dtype == torch.bool:
        raise ValueError(
            f"Expected 'y_true' to hold classes, integers of shape [{count}], or scores of shape "
            f"[{count}, {classes}] (got {y_true.dtype} of shape {list(y_true.shape)})"
        )
    index = y_true.view(-1).long()
    check_indices("y_true", index, classes)
    return one_hot(index, num_classes=classes, dtype=y_soft.dtype)
