"""What the layers that propagate and then apply a linear map share."""

from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parameter import UninitializedParameter
from torch_geometric.nn.dense.linear import Linear

from ..._utils.checks import check_integer
from ...ops import Recurrence, SparseOperator
from .base import Propagation


class _Kept(NamedTuple):
    """Propagated features, and what they were made of."""

    x: Tensor  # shares the memory and the version of the features
    version: int
    operator: SparseOperator
    recurrence: Recurrence
    out: Tensor


class LinearPropagation(Propagation):
    r"""The base of the layers that propagate and then apply a linear map :math:`\mathbf{\Theta}`.

    The two commute: where :math:`\mathbf{\Theta}` makes rows shorter it comes first. With
    ``cached`` the propagated features are kept; features that are not those of the call before are
    propagated anew.

    Args:
        in_channels (int): Size of each input sample, or :obj:`-1` to derive the size from the
            first input.
        out_channels (int): Size of each output sample.
        K (int): Number of hops :math:`K`.
        cached (bool): Whether to keep the operator and the propagated features.
        add_self_loops (bool): Whether to add self-loops.
        bias (bool): Whether to learn an additive bias.
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.
    """

    _kept: Optional[_Kept]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        K: int,
        cached: bool,
        add_self_loops: bool,
        bias: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(cached, **kwargs)
        self.add_self_loops = add_self_loops
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.K = check_integer("K", K, 0)
        self.lin = Linear(in_channels, out_channels, bias=bias)
        self._kept = None

    def reset_parameters(self) -> None:
        """Draw new weights and clear the cache."""
        super().reset_parameters()
        self.lin.reset_parameters()
        self._kept = None

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None) -> Tensor:
        """Propagate ``x`` over the graph and apply the linear map, see the class."""
        self._check_features(x)
        if self.cached and self._can_keep(x):
            return self.lin(self._propagated(x, edge_index, edge_weight))
        if self._is_linear_first(x):
            out = self.run(F.linear(x, self.lin.weight), edge_index, edge_weight)
            return out if self.lin.bias is None else out + self.lin.bias
        return self.lin(self.run(x, edge_index, edge_weight))

    def _is_linear_first(self, x: Tensor) -> bool:
        lin = self.lin
        return (
            type(lin) is Linear
            and not isinstance(lin.weight, UninitializedParameter)
            and not lin._forward_hooks
            and not lin._forward_pre_hooks
            and lin.weight.size(0) < lin.weight.size(1) == x.size(-1)
            and not self._is_observed()
        )

    def _can_keep(self, x: Tensor) -> bool:
        return (
            not torch.compiler.is_compiling()  # which cannot ask the next question but one
            and not x.requires_grad
            and not x.is_inference()
            and not self._is_observed()
        )

    def _propagated(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor]) -> Tensor:
        operator = self.operator(x, edge_index, edge_weight)  # finds out if the graph is another
        recurrence = self.recurrence(operator)
        kept = self._kept
        if kept is not None and (kept.operator, kept.recurrence) == (operator, recurrence):
            if kept.x._version == kept.version and _is_same(kept.x, x):
                return kept.out
        with torch.inference_mode(False), torch.no_grad():  # training may follow
            out = self.run(x, edge_index, edge_weight)
            self._kept = _Kept(x.detach(), x._version, operator, recurrence, out)
        return out

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, K={self.K})"


def _is_same(kept: Tensor, x: Tensor) -> bool:
    """Whether two Tensors lie at one place in memory, or else are equal."""
    if (kept.shape, kept.dtype, kept.device) != (x.shape, x.dtype, x.device):
        return False
    one_place = kept.data_ptr() == x.data_ptr() and kept.stride() == x.stride()
    return one_place or torch.equal(kept, x)
