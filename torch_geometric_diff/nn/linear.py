"""A linear layer whose input may be sparse, such as a bag of words, with dropout of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.diffusion import multiply


class _Constant(NamedTuple):
    """A CSR matrix without a gradient and its transpose, each made when a product asks for it."""

    matrix: Callable[[], Tensor]
    transpose: Callable[[], Tensor]

    def t(self) -> "_Constant":
        return _Constant(self.transpose, self.matrix)


class _Product(torch.autograd.Function):
    """A constant sparse matrix times a dense one, and a bias; the gradient is a product again."""

    @staticmethod
    def forward(dense: Tensor, bias: Tensor | None, constant: _Constant) -> Tensor:
        out = multiply(constant.matrix(), dense)
        return out if bias is None else out.add_(bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.constant, ctx.shape = inputs[2], output.shape

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        needs, (grad,) = ctx.needs_input_grad, grads
        dense = _Product.apply(grad, None, ctx.constant.t()) if needs[0] else None
        return dense, grad.sum(0) if needs[1] else None, None

    @staticmethod
    def jvp(ctx: Any, dense: Tensor | None, bias: Tensor | None, _: Any) -> Tensor:
        if dense is None:
            return bias.expand(ctx.shape)  # type: ignore[union-attr]
        return _Product.apply(dense, bias, ctx.constant)

    @staticmethod
    def vmap(info: Any, in_dims: Any, dense: Tensor, bias: Any, constant: _Constant) -> Any:
        if in_dims[0] is None:
            dense = dense.unsqueeze(1)
        else:
            dense = dense.movedim(in_dims[0], 1)  # of many matrices side by side
        out = _Product.apply(dense.flatten(1), None, constant).unflatten(1, dense.shape[1:])
        if bias is None:
            return out, 1
        return out + (bias if in_dims[1] is None else bias.movedim(in_dims[1], 0)), 1


def _once(x: Tensor, name: str, function: Callable[[Tensor], Any]) -> Any:
    """``function(x)`` of a sparse matrix, kept on it until its values are changed in place."""
    values = x.values()
    version = 0 if values.is_inference() else values._version
    kept = getattr(x, name, None)
    if kept is None or kept[0] != version:
        kept = (version, function(x))
        setattr(x, name, kept)
    return kept[1]


def check_input(x: Any, in_channels: int) -> None:
    """Refuse features that are no floating matrices, dense or CSR, of that many columns."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"Expected 'x' to be a floating Tensor (got {got})")
    if x.layout not in (torch.strided, torch.sparse_csr):
        raise TypeError(f"Expected 'x' to be dense or in CSR form (got layout {x.layout})")
    if x.dim() < 2 or x.size(-1) != in_channels:
        raise ValueError(f"Expected 'x' of shape [N, {in_channels}] (got {list(x.shape)})")


def densify(x: Tensor) -> Tensor:
    """A dense form of ``x``, made once for a sparse matrix."""
    return x if x.layout != torch.sparse_csr else _once(x, "_dense", Tensor.to_dense)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: Any) -> Tensor:
    return torch.sparse_csr_tensor(rows, columns, values, shape, check_invariants=False)


def _transposed(x: Tensor) -> Tensor:
    return x.t().to_sparse_csr()


def _places(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns of the transpose, and where its values lie among those of ``x``."""
    position = torch.arange(x.values().numel(), dtype=torch.float64, device=x.device)
    moved = _transposed(_csr(x.crow_indices(), x.col_indices(), position, x.shape))
    kind = x.crow_indices().dtype
    return moved.crow_indices().to(kind), moved.col_indices().to(kind), moved.values().long()


def _dropped(x: Tensor, p: float) -> _Constant:
    """The matrix with each entry dropped with probability ``p``, the others scaled up."""
    values = F.dropout(x.values(), p)

    def transpose() -> Tensor:
        rows, columns, place = _once(x, "_places", _places)
        return _csr(rows, columns, values[place], x.shape[::-1])

    matrix = _csr(x.crow_indices(), x.col_indices(), values, x.shape)
    return _Constant(lambda: matrix, transpose)


class Linear(torch.nn.Linear):
    r"""A :class:`torch.nn.Linear` that also takes a constant ``torch.sparse`` CSR matrix, with
    dropout of its input,

    .. math::
        \mathbf{X} \mapsto \mathrm{dropout}(\mathbf{X}) \, \mathbf{W}^{\top} + \mathbf{b}.

    Only the stored entries of a sparse input are dropped and multiplied, so a bag of words with one
    percent of nonzeros costs one percent. The weight lies in memory by columns, so that neither the
    sparse product nor its gradient needs to transpose it; the matrix is transposed once.

    Args:
        in_channels (int): Size of an input row.
        out_channels (int): Size of an output row.
        bias (bool, optional): Learn a bias. (default: :obj:`True`)
        dropout (float, optional): Probability to drop an entry of the input in training.
            (default: :obj:`0.0`)

    Shapes:
        - **input:** features :math:`(*, F_{in})`, dense, or CSR of shape :math:`(N, F_{in})`
        - **output:** dense features :math:`(*, F_{out})`

    Raises:
        ValueError: If ``dropout`` is no probability, or a sparse input requires a gradient.
    """

    def __init__(
        self, in_channels: int, out_channels: int, bias: bool = True, dropout: float = 0.0
    ) -> None:
        if not 0 <= dropout <= 1:
            raise ValueError(f"Expected 'dropout' to lie in [0, 1] (got {dropout})")
        super().__init__(in_channels, out_channels, bias)
        self.dropout = dropout
        self.weight.data = self.weight.data.t().contiguous().t()

    @classmethod
    def from_dense(cls, layer: torch.nn.Module, dropout: float = 0.0) -> "Linear":
        """The layer that has the parameters of ``layer``, a linear layer of torch or PyG."""
        weight: Any = layer.weight
        with torch.device("meta"):  # draws no random numbers
            linear = cls(weight.size(1), weight.size(0), layer.bias is not None, dropout)
        linear.weight, linear.bias = weight, layer.bias  # type: ignore[assignment]
        weight.data = weight.data.t().contiguous().t()
        return linear

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        if input.layout != torch.sparse_csr:
            return super().forward(F.dropout(input, self.dropout, self.training))
        if input.requires_grad:
            raise ValueError(
                "Expected a constant 'input' in CSR form (got one that requires a gradient); "
                "make it dense"
            )
        if self.training and self.dropout > 0:
            constant = _dropped(input, self.dropout)
        else:
            constant = _Constant(lambda: input, lambda: _once(input, "_transposed", _transposed))
        return _Product.apply(self.weight.t(), self.bias, constant)

    def extra_repr(self) -> str:
        """The sizes, and the dropout if there is any."""
        return super().extra_repr() + (f", dropout={self.dropout}" if self.dropout else "")
