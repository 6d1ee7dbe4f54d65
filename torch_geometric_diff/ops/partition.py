"""An operator whose rows are shared out over the ranks of ``torch.distributed``."""

import copy
import warnings
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.autograd import Function
from typing_extensions import Self

from .._utils.checks import check_integer, check_real
from .._utils.functorch import is_transformed
from ..graph.adjacency import NORMALIZATIONS
from ._build import Recipe
from ._parts import Layout, blocks_of, collect, make_part
from ._pattern import Stored
from ._random import keep_mask, make_seeds
from ._ranks import CSR, Halo, Ranks
from ._stability import user_stacklevel
from .kernels import reference
from .recurrence import Recurrence, Table

_DTYPES = (torch.float32, torch.float64)
_MASKED_ROWS = 1 << 12  # whose masks are made at once: their bits stay in cache


class PartitionedOperator(Stored):
    r"""The rows of a :class:`~torch_geometric_diff.ops.SparseOperator` or
    :class:`~torch_geometric_diff.ops.DiffusionOperator` that one rank of ``torch.distributed``
    owns, for graphs that outgrow a machine.

    It goes where such an operator goes: :func:`~torch_geometric_diff.ops.propagate`,
    :func:`~torch_geometric_diff.ops.diffuse`, :func:`~torch_geometric_diff.ops.heat` and the
    layers. Features, masks and results are those of the own rows, :attr:`nodes`, and values,
    gradients and dropout masks are those of one process. All ranks make each call together, and
    all call ``backward``. In every step a rank gets the rows of others that its own read, its halo,
    by ``all_to_all_single``: a tile of columns travels while another is multiplied. The gradients
    are those of the sum of all ranks' losses; those of learned coefficients are a rank's share, as
    are those of any layer, to be summed over the ranks.

    Built by :meth:`from_edges`, from edges of which none need have all. Without a process group
    there is one rank.

    Attributes:
        num_nodes (int): The number of nodes of the graph.
        nodes (Tensor): The nodes :math:`(n,)` whose rows this rank owns, ascending.
        rowptr (Tensor): Row pointers :math:`(n + 1,)`.
        col (Tensor): The column of every entry: own rows come first, then those of the halo.
        value (Tensor): The entries.
        step_size (float or None): The step size of a diffusion operator.
        is_symmetric (bool): Whether the matrix is known to equal its transpose: of ``undirected``
            edges, unless normalized by rows.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> operator = PartitionedOperator.from_edges(edge_index, num_nodes=3, step_size=0.5)
        >>> operator
        PartitionedOperator(num_nodes=3, rows=3, nnz=7, halo=0, rank=0 of 1)
        >>> (operator @ torch.ones(3, 1)).flatten()
        tensor([1., 1., 1.])
    """

    num_nodes: int
    nodes: Tensor
    rowptr: Tensor
    col: Tensor
    value: Tensor
    step_size: float | None
    is_symmetric: bool
    requires_grad = False
    is_step = True  # its rows sum to 1, if it has a step size
    ranks: Ranks
    _halo: Halo
    _largest_degree: float
    _crossing: int
    _transposed: CSR | None
    _fixed: Tensor | None = None  # rows without entries

    @classmethod
    def from_edges(
        cls,
        edge_index: Any,
        edge_weight: Any = None,
        *,
        num_nodes: int,
        kind: str = "diffusion",
        step_size: float = 0.25,
        normalization: str | None = "sym",
        add_self_loops: bool = True,
        undirected: bool = False,
        parts: Any = None,
        dtype: torch.dtype | None = None,
        group: Any = None,
    ) -> Self:
        """The rows of this rank from edges of which each rank passes some. All ranks call it.

        Args:
            edge_index (Tensor, ndarray or iterable): Edges :math:`(2, E_r)`, (source, target), that
                no other rank passes: an array, which may be mapped to a file, or blocks of it,
                each alone or with its weights. One block after the other is read.
            edge_weight (Tensor or ndarray, optional): Their weights :math:`(E_r,)`.
                (default: ones)
            num_nodes (int): The number of nodes :math:`N`.
            kind (str, optional): :obj:`"diffusion"` for what
                :class:`~torch_geometric_diff.ops.DiffusionOperator` makes of the edges,
                :obj:`"gcn_norm"` for :meth:`SparseOperator.gcn_norm`, or :obj:`"plain"` for
                :class:`~torch_geometric_diff.ops.SparseOperator`. (default: :obj:`"diffusion"`)
            step_size (float, optional): The step size of diffusion. Only one up to
                :attr:`gershgorin_step_size` is sure to be stable. (default: :obj:`0.25`)
            normalization (str, optional): That of diffusion: :obj:`"sym"`, :obj:`"row"` or
                :obj:`None`. (default: :obj:`"sym"`)
            add_self_loops (bool, optional): As there, not for ``"plain"``. (default: :obj:`True`)
            undirected (bool, optional): Take both directions of every edge, each once, and no
                self-loops, whatever the files hold. (default: :obj:`False`)
            parts (Tensor or ndarray, optional): The rank that is to own every node :math:`(N,)`,
                the same on all ranks. (default: ranges of as many nodes)
            dtype (torch.dtype, optional): float32 or float64. (default: that of torch)
            group (ProcessGroup, optional): The ranks. (default: all)

        Raises:
            ValueError: On what the classes above refuse of any rank's edges, ``parts`` that name no
                rank, or ranks that disagree: on all ranks.
        """
        ranks = Ranks(group)
        self = object.__new__(cls)
        with ranks.agreement() as facts:
            self.num_nodes = check_integer("num_nodes", num_nodes, 0)
            self.step_size = None
            if kind == "diffusion":
                self.step_size = check_real(
                    "step_size", step_size, lambda h: 0 < h < float("inf"), "be positive and finite"
                )
            recipe = _recipe(kind, normalization, step_size, add_self_loops)
            dtype = torch.get_default_dtype() if dtype is None else dtype
            if dtype not in _DTYPES:
                raise TypeError(f"Expected 'dtype' to be float32 or float64 (got {dtype})")
            parts = None if parts is None else _checked_parts(parts, self.num_nodes, ranks.size)
            facts |= {"num_nodes": num_nodes, "dtype": dtype, "undirected": undirected}
            facts |= {
                **recipe._asdict(),
                "parts": None if parts is None else zlib.crc32(parts.data),
            }
        layout = Layout(self.num_nodes, ranks.size, parts)
        blocks = blocks_of(edge_index, edge_weight)
        entries = collect(blocks, ranks, layout, undirected, recipe.signed)
        part = make_part(entries, ranks, layout, recipe, dtype, undirected)
        self.ranks, self.nodes = ranks, layout.nodes(ranks.rank)
        (self.rowptr, self.col, self.value), self._halo, largest, self._crossing = part
        self._largest_degree = max(self.of_all_ranks(largest))
        self.is_symmetric = undirected and recipe.normalization != "row"
        self._transposed = None
        if self.step_size is not None:
            self.check_stability(self.step_size)
        return self

    @property
    def num_rows(self) -> int:
        """The number of rows that this rank owns."""
        return self.rowptr.numel() - 1

    @property
    def gershgorin_step_size(self) -> float:
        """See :attr:`DiffusionOperator.gershgorin_step_size`."""
        return 1 / self._largest_degree if self._largest_degree else float("inf")

    def check_stability(self, step_size: float | Tensor) -> None:
        """Warn if steps of a size are sure to diverge. Between that and
        :attr:`gershgorin_step_size` nothing is said.
        """
        size = float(step_size.detach()) if isinstance(step_size, Tensor) else step_size
        # the largest eigenvalue is at least N / (N - 1) times the largest degree
        bound = 2 * (1 - 1 / max(self.num_nodes, 2)) * self.gershgorin_step_size
        if self.is_symmetric and size > bound * (1 + 1e-2) and self.ranks.rank == 0:
            warnings.warn(
                f"Diffusion diverges: 'step_size' is {size:.4g}, and the largest stable step size "
                f"of this graph is at most {bound:.4g}",
                stacklevel=user_stacklevel(),
            )

    def traffic(self, columns: int = 1) -> dict[str, float]:
        """The share of the entries in columns of another rank (``cut``), the bytes that all ranks
        send in a step over so many columns (``bytes``), and those that the busiest sends or
        receives (``largest``). All ranks call it.
        """
        width = columns * self.value.element_size()
        sent, received = self._halo.sent.numel(), self._halo.size
        told = self.ranks.gather([self._crossing, self.nnz, sent, max(sent, received)])
        cut = int(told[:, 0].sum()) / max(int(told[:, 1].sum()), 1)
        rows, largest = int(told[:, 2].sum()), int(told[:, 3].max())
        return {"cut": cut, "bytes": rows * width, "largest": largest * width}

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The operator on another device or with another floating type, as ``Tensor.to``."""
        value = self.value.to(*args, **kwargs)
        if value is self.value:
            return self
        if value.dtype not in _DTYPES:
            raise TypeError(f"Expected 'dtype' to be float32 or float64 (got {value.dtype})")
        other = copy.copy(self)
        other.value, other._transposed, device = value, None, value.device
        other.rowptr, other.col = self.rowptr.to(device), self.col.to(device)
        other.nodes, other._halo = self.nodes.to(device), self._halo.to(device)
        return other

    def without_rows(self, mask: Tensor) -> Self:
        """The same with nothing in the rows of a mask :math:`(n,)`."""
        other = copy.copy(self)
        other._fixed = mask.unsqueeze(1)
        return other

    def of_all_ranks(self, number: float) -> list[float]:
        """A number of every rank, of all that call together."""
        bits = np.array([number], np.float64).view(np.int64).tolist()
        return self.ranks.gather(bits)[:, 0].numpy().view(np.float64).tolist()

    def same_seeds(self, seed: int | Sequence[int] | None, count: int) -> list[int]:
        """The seeds of a batch; where none is given, those that the first rank draws."""
        return self.ranks.gather(make_seeds(seed, count).tolist())[0].tolist()

    def run(
        self,
        x: Tensor,
        table: Table,
        seeds: list[int],
        threshold: int,
        bounds: tuple[float, float] | None,
    ) -> Tensor:
        """A recurrence of constant coefficients, [I, B, n, F] to [O, B, n, F], whose gradient is
        the transposed recurrence, which keeps nothing.
        """
        if is_transformed(x):
            raise NotImplementedError(
                "Expected 'x' outside of transforms of 'torch.func' and of forward mode beside a "
                "PartitionedOperator"
            )
        return _Run.apply(x, _Plan(self, table, seeds, threshold, bounds))

    def products(self, z: Tensor, transpose: bool, memory: list[Any]) -> Tensor:
        """The matrix, or its transpose, times a batch [B, n, F]; no gradient passes. ``memory`` is
        that of the products of a call.
        """
        if transpose and self._fixed is not None:
            z = z.masked_fill(self._fixed, 0.0)
        if not transpose or self.is_symmetric:
            out = self._halo.products((self.rowptr, self.col, self.value), z, memory)
        else:
            out = self._halo.transposed_products(self._csr_t(), z)
        return out if transpose or self._fixed is None else out.masked_fill_(self._fixed, 0.0)

    def _csr_t(self) -> CSR:
        """The transpose of the rows: those of the halo come last."""
        if self._transposed is None:
            arrays = (each.cpu().numpy() for each in (self.value, self.col, self.rowptr))
            shape = self.num_rows, self.num_rows + self._halo.size
            turned = scipy.sparse.csr_matrix(tuple(arrays), shape=shape).T.tocsr()
            parts = (turned.indptr, turned.indices, turned.data)
            rowptr, col, value = (torch.from_numpy(each).to(self.device) for each in parts)
            self._transposed = rowptr.to(self.col.dtype), col.to(self.col.dtype), value
        return self._transposed

    def __matmul__(self, x: Tensor) -> Tensor:
        """The product with the own rows of ``x``, shape :math:`(n, F)` or :math:`(B, n, F)`."""
        batch = x[None] if x.dim() == 3 else x[None, None]
        return self.run(batch, Recurrence.power(1).constant, [0], 0, None).view_as(x)

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(num_nodes={self.num_nodes}, rows={self.num_rows}, "
            f"nnz={self.nnz}, halo={self._halo.size}, rank={self.ranks.rank} of {self.ranks.size})"
        )


class _Plan:  # not a tuple: torch.func would look for Tensors inside
    """A call: all but the inputs."""

    def __init__(
        self,
        operator: PartitionedOperator,
        table: Table,
        seeds: list[int],
        threshold: int,
        bounds: tuple[float, float] | None,
        reverse: bool = False,
    ) -> None:
        self.operator, self.table, self.seeds = operator, table, seeds
        self.threshold, self.bounds, self.reverse = threshold, bounds, reverse

    def t(self) -> "_Plan":
        """The plan of the transpose."""
        rest = (self.seeds, self.threshold, self.bounds, not self.reverse)
        return _Plan(self.operator, self.table.t, *rest)

    def run(self, x: Tensor) -> Tensor:
        """Step by step, each with its exchange."""
        steps, operator = self.table.values.size(1) - 1, self.operator
        seeds = torch.tensor(self.seeds, dtype=torch.long)
        masks = _Masks(x[0], self.threshold, seeds, steps, operator.nodes)
        rows, reverse, memory = self.table.values.tolist(), self.reverse, list[Any]()
        return reference.run(
            x, lambda z: operator.products(z, reverse, memory), rows, masks, reverse, self.bounds
        )


class _Masks(reference.Masks):
    """Masks some rows at a time."""

    def __call__(self, z: Tensor, step: int) -> Tensor:
        if not self.threshold:
            return z
        out = torch.empty_like(z)
        for b, seed in enumerate(self.seeds):
            at = 0
            for rows in self.rows.split(_MASKED_ROWS):  # type: ignore[union-attr]
                here = slice(at, at + rows.numel())
                keep = keep_mask(seed, step - 1, rows, z.size(-1), self.threshold, z.device)
                out[b, here] = reference.drop(z[b, here], keep, self.threshold)
                at += rows.numel()
        return out


class _Run(Function):
    """The call under autograd."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, plan: _Plan) -> Tensor:
        ctx.plan = plan
        return plan.run(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Run.apply(grads[0].contiguous(), ctx.plan.t()), None


def _recipe(kind: str, normalization: str | None, step_size: float, add_self_loops: bool) -> Recipe:
    """What the entries of a kind of operator are."""
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"Expected 'normalization' to be 'sym', 'row' or None (got {normalization!r})"
        )
    recipes = {
        "diffusion": Recipe(normalization, "step", step_size, add_self_loops),
        "gcn_norm": Recipe("sym", "keep" if add_self_loops else "given"),
        "plain": Recipe(signed=True),
    }
    if kind not in recipes:
        raise ValueError(f"Expected 'kind' to be one of {[*recipes]} (got {kind!r})")
    return recipes[kind]


def _checked_parts(parts: Any, num_nodes: int, size: int) -> np.ndarray:
    """The rank of every node."""
    parts = np.asarray(parts)
    if parts.shape != (num_nodes,) or parts.dtype.kind not in "iu":
        raise ValueError(
            f"Expected 'parts' to hold the rank of each of {num_nodes} nodes (got {parts.dtype} "
            f"of shape {list(parts.shape)})"
        )
    if num_nodes and not 0 <= int(parts.min()) <= int(parts.max()) < size:
        raise ValueError(
            f"Expected 'parts' to lie in [0, {size - 1}], the ranks (got {int(parts.min())} to "
            f"{int(parts.max())})"
        )
    return np.ascontiguousarray(parts, np.int32)
