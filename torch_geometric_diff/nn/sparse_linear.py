"""A linear layer whose input may be sparse, such as a bag of words, with dropout of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .._utils.memo import PerTensor
from ..ops.sparse_product import multiply

_computed = PerTensor()  # of sparse matrices that are given to layers again and again
Blocks = list[Tensor]  # CSR matrices side by side
BLOCK_ROWS = 2048  # so that columns of a block of the other factor lie in the nearest cache


class _Constant(NamedTuple):
    """A CSR matrix without a gradient and its transpose, each made when a product asks for it."""

    matrix: Callable[[], Blocks]
    transpose: Callable[[], Blocks]

    def t(self) -> "_Constant":
        return _Constant(self.transpose, self.matrix)


class _Product(torch.autograd.Function):
    """A constant sparse matrix times a dense one, and a bias; the gradient is a product again."""

    @staticmethod
    def forward(dense: Tensor, bias: Tensor | None, constant: _Constant) -> Tensor:
        out = _multiply(constant.matrix(), dense)
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


def _multiply(blocks: Blocks, dense: Tensor) -> Tensor:
    if len(blocks) == 1:
        return multiply(blocks[0], dense)
    parts = dense.split([block.size(1) for block in blocks])
    out = multiply(blocks[0], parts[0])
    for block, part in zip(blocks[1:], parts[1:], strict=True):
        out += multiply(block, part)
    return out


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
    return x if x.layout != torch.sparse_csr else _computed.get(Tensor.to_dense, x)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: Any) -> Tensor:
    return torch.sparse_csr_tensor(rows, columns, values, shape, check_invariants=False)


class _Block(NamedTuple):
    """A block of the transpose, and the entry of the matrix behind each of its own."""

    rows: Tensor
    columns: Tensor
    entry: Tensor
    shape: tuple[int, int]


def _transpose_blocks(x: Tensor) -> list[_Block]:
    """The transpose in blocks of so many rows of ``x`` that each has some work for every row."""
    rows, columns, kind = x.crow_indices(), x.col_indices(), x.crow_indices().dtype
    position = torch.arange(columns.numel(), dtype=torch.float64, device=x.device)
    count = min(x.size(0) // BLOCK_ROWS, columns.numel() // (64 * max(x.size(1), 1)))
    size = -(-x.size(0) // max(count, 1)) if x.device.type == "cpu" else x.size(0)
    blocks = []
    for first in range(0, max(x.size(0), 1), max(size, 1)):
        own = rows[first : first + size + 1]
        entries, shape = slice(int(own[0]), int(own[-1])), (own.numel() - 1, x.size(1))
        block = _csr(own - own[0], columns[entries], position[entries], shape)
        moved = block.t().to_sparse_csr()
        index = moved.crow_indices().to(kind), moved.col_indices().to(kind)
        blocks.append(_Block(*index, moved.values().long(), shape[::-1]))
    return blocks


def _transposed(x: Tensor, values: Tensor) -> Blocks:
    """The transpose of the matrix that has these values in the place of its own."""
    return [
        _csr(block.rows, block.columns, values[block.entry], block.shape)
        for block in _computed.get(_transpose_blocks, x)
    ]


def _transpose(x: Tensor) -> Blocks:
    return _transposed(x, x.values())


def _dropped(x: Tensor, p: float) -> _Constant:
    """The matrix with each entry dropped with probability ``p``, the others scaled up."""
    values = F.dropout(x.values(), p)
    matrix = _csr(x.crow_indices(), x.col_indices(), values, x.shape)
    return _Constant(lambda: [matrix], lambda: _transposed(x, values))


def _whole(x: Tensor) -> _Constant:
    """The matrix itself; its transpose is made once."""
    return _Constant(lambda: [x], lambda: _computed.get(_transpose, x))


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
            constant = _whole(input)
        return _Product.apply(self.weight.t(), self.bias, constant)

    def extra_repr(self) -> str:
        """The sizes, and the dropout if there is any."""
        return super().extra_repr() + (f", dropout={self.dropout}" if self.dropout else "")
