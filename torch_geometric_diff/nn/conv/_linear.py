"""What the layers that propagate and then apply a linear map share."""

from typing import Any, NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.dense.linear import Linear

from ..._utils.checks import check_integer
from ..._utils.functorch import cacheable, is_differentiated
from ..._utils.modules import is_untouched
from ...ops import PartitionedOperator, Recurrence, SparseOperator
from ...ops import propagate as run_recurrence
from .base import Propagation

LINEAR = (Linear, torch.nn.Linear)


def is_narrowing(lin: Any, x: Tensor) -> bool:
    """Whether a module is a linear map, and nothing else, that makes rows shorter."""
    if not is_untouched(lin, *LINEAR):
        return False
    takes = lin.weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type)
    return takes and lin.weight.size(0) < lin.weight.size(1) == x.size(-1)


def apply_weight(lin: Any, x: Tensor) -> Tensor:
    """A linear map without its bias, which commutes with any propagation."""
    return F.linear(x, lin.weight)


def add_bias(lin: Any, x: Tensor) -> Tensor:
    """What :func:`apply_weight` left out, in the type of ``x``, which autocast may have lowered."""
    return x if lin.bias is None else x + lin.bias.to(x.dtype)


class _Propagated(NamedTuple):
    """Propagated features, and what they were made of."""

    x: Tensor  # shares the memory and the version of the features
    operator: SparseOperator
    recurrence: Recurrence
    versions: tuple[int, int]
    out: Tensor

    def is_of(self, x: Tensor, operator: SparseOperator, recurrence: Recurrence) -> bool:
        """Whether these features, propagated so, give the result."""
        old, value = self.x, operator.value
        return (
            self.operator is operator
            and not value.requires_grad
            and self.recurrence is recurrence
            and self.versions == (old._version, value._version)
            and (old.shape, old.dtype, old.device) == (x.shape, x.dtype, x.device)
            and (
                (old.data_ptr() == x.data_ptr() and old.stride() == x.stride())
                or torch.equal(old, x)
            )
        )


class LinearPropagation(Propagation):
    r"""The base of the layers that propagate and then apply a linear map :math:`\mathbf{\Theta}`.

    With ``cached`` the propagated features are kept; features that are not those of the call before
    are propagated anew.

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

    lin: Any
    _caches = ("_cached", "_propagated")
    _propagated: Optional[_Propagated]

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

    def reset_parameters(self) -> None:
        """Draw new weights and clear the cache."""
        super().reset_parameters()
        self.lin.reset_parameters()

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None) -> Tensor:
        """Propagate ``x`` over the graph and apply the linear map, see the class."""
        graph = (edge_index, edge_weight)
        x, recipe, recurrence = self._check(x, graph), self._recipe(), self._recurrence()
        is_observed = self._is_observed()
        if self.cached and not is_observed and not torch.compiler.is_compiling():
            operator = self._operator(x, graph, recipe)
            out = self._from_cache(x, operator, recurrence)
            if out is not None:
                return self.lin(out)
            graph = (operator, None)

        def propagate(x: Tensor) -> Tensor:
            return self._propagate(x, graph, recipe, recurrence)

        if is_observed or not is_narrowing(self.lin, x):
            return self.lin(propagate(x))
        return add_bias(self.lin, propagate(apply_weight(self.lin, x)))

    def _recurrence(self) -> Recurrence:
        raise NotImplementedError

    def _from_cache(
        self, x: Tensor, operator: SparseOperator, recurrence: Recurrence
    ) -> Optional[Tensor]:
        """The propagated features, None where they are learned or nobody can tell changes."""
        if is_differentiated(x) or x.is_inference():
            return None
        propagated = self._propagated
        if propagated is None or not propagated.is_of(x, operator, recurrence):
            if not _is_constant(operator, recurrence):
                return None
            with cacheable(), torch.no_grad():
                out = run_recurrence(x, operator, recurrence)
                versions = x._version, operator.value._version
                propagated = _Propagated(x.detach(), operator, recurrence, versions, out)
                self._propagated = propagated
        return propagated.out

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, K={self.K})"


def _is_constant(operator: SparseOperator, recurrence: Recurrence) -> bool:
    """Whether constants are propagated to constants, and changes in place can be seen."""
    if isinstance(operator, PartitionedOperator):
        return False  # all ranks take part in a call, whatever each of them remembers
    learned = operator.requires_grad or recurrence.is_learned
    return not (learned or operator.value.is_inference())
