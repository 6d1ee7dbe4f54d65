"""The matrix of one diffusion step, built once."""

import contextlib
import functools
import warnings
from numbers import Real
from typing import Any

import scipy.sparse
import torch
from torch import Tensor
from typing_extensions import Self

from .._utils.checks import check_has_values
from .._utils.functorch import cacheable, is_differentiated, uncompiled, unwrap
from ..graph.adjacency import NORMALIZATIONS, loops_of, parse_edges, wide_dtype
from ._build import Recipe, build, laplacian_of
from ._matrix import SparseMatrix
from ._stability import DENSE_NODES, Stability, edge_bound, largest_stable_step, user_stacklevel
from .functional import diffuse
from .partition import PartitionedOperator


def check_step_size(step_size: float | Tensor) -> float | Tensor:
    """A step size, which must be positive and finite: a Tensor if it may be learned."""
    if isinstance(step_size, Tensor):
        if step_size.numel() != 1:
            raise ValueError(
                f"Expected 'step_size' to be one number (got shape {list(step_size.shape)})"
            )
        check_has_values("step_size", step_size)
        if torch.compiler.is_compiling() or is_differentiated(step_size):
            return step_size  # a learned step may pass through any value
        step_size = float(step_size)
    elif isinstance(step_size, bool) or not isinstance(step_size, Real):
        raise TypeError(f"Expected 'step_size' to be a number (got {step_size!r})")
    if not 0 < step_size < float("inf"):
        raise ValueError(f"Expected 'step_size' to be positive and finite (got {step_size})")
    return float(step_size)


class SparseOperator(SparseMatrix):
    r"""A square sparse matrix :math:`\mathbf{A}` that acts on the features of a graph's nodes,
    stored once as CSR, with its transpose (the same object when it is symmetric).

    The entries are taken as they are, of any sign; entries at the same place are summed.

    Args:
        adj (Tensor, EdgeIndex or SparseTensor): An ``edge_index`` of shape :math:`(2, E)`, or a
            square sparse matrix :math:`\mathbf{A}^{\top}` (``torch_sparse.SparseTensor``,
            ``torch.sparse`` COO, CSR or CSC) whose rows are the targets.
        edge_weight (Tensor, optional): Weights :math:`(E,)` of an ``edge_index``. Weights that
            require gradients get them through :meth:`~torch_geometric_diff.ops.diffuse`.
            (default: ones)
        num_nodes (int, optional): The number of nodes :math:`N`. (default: read off ``adj``)
        reorder (bool, optional): Let the CPU kernel visit the nodes in an order that brings
            neighbors closer in memory, see
            :class:`~torch_geometric_diff.ops.DiffusionOperator`. (default: :obj:`False`)
        dtype (torch.dtype, optional): The type of the values. (default: that of the weights)

    Raises:
        ValueError: On indices out of range, entries that are infinite or NaN, or shapes that do not
            match.
        TypeError: On a type that is no adjacency.

    Attributes:
        rowptr (Tensor): Row pointers :math:`(N + 1,)`, int32 where they fit, else int64.
        col (Tensor): Column indices, of the same type.
        value (Tensor): The entries.

    Example:
        >>> operator = SparseOperator(torch.tensor([[0, 1], [1, 2]]), num_nodes=3)
        >>> operator @ torch.tensor([[1.0], [2.0], [3.0]])  # from source to target
        tensor([[0.],
                [1.],
                [2.]])
    """

    def __init__(
        self,
        adj: Any,
        edge_weight: Tensor | None = None,
        *,
        num_nodes: int | None = None,
        reorder: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        edges = parse_edges(adj, edge_weight, num_nodes)
        self._set(build(edges, Recipe(signed=True), dtype), reorder)

    @classmethod
    def gcn_norm(
        cls,
        adj: Any,
        edge_weight: Tensor | None = None,
        *,
        num_nodes: int | None = None,
        add_self_loops: bool = True,
        improved: bool = False,
        reorder: bool = False,
        dtype: torch.dtype | None = None,
    ) -> "SparseOperator":
        r"""The adjacency matrix as normalized for graph convolutions,
        :math:`\mathbf{\hat{D}}^{-1/2} \mathbf{\hat{A}} \mathbf{\hat{D}}^{-1/2}` with
        :math:`\mathbf{\hat{A}} = \mathbf{A} + \mathbf{I}` (or :math:`+ 2 \mathbf{I}` if
        ``improved``): the same values as PyG's ``gcn_norm``.

        As there, a loop that an ``edge_index`` holds keeps its weight, a ``SparseTensor`` gets its
        diagonal set, and the diagonal of a ``torch.sparse`` matrix is added to. The arguments are
        those of the class.

        Args:
            adj (Tensor, EdgeIndex or SparseTensor): The graph.
            edge_weight (Tensor, optional): Weights that are not negative.
            num_nodes (int, optional): The number of nodes.
            add_self_loops (bool, optional): Whether to add the loops. (default: :obj:`True`)
            improved (bool, optional): Loops of weight 2 instead of 1. (default: :obj:`False`)
            reorder (bool, optional): See the class. (default: :obj:`False`)
            dtype (torch.dtype, optional): The type of the values.
        """
        edges = parse_edges(adj, edge_weight, num_nodes)
        diagonal = loops_of(adj) if add_self_loops else "given"
        recipe = Recipe("sym", diagonal, 2.0 if improved else 1.0)
        self = object.__new__(SparseOperator)
        self._set(build(edges, recipe, dtype), reorder)
        return self

    def __matmul__(self, x: Tensor) -> Tensor:
        """The product with ``x``, shape :math:`(N, F)` or :math:`(B, N, F)`."""
        return diffuse(x, self, 1)


class DiffusionOperator(SparseOperator):
    r"""The matrix of one explicit Euler step of diffusion on a graph,

    .. math::
        \mathbf{P} = \mathbf{I} - h \, \mathbf{L}, \qquad
        \mathbf{L} = \mathrm{diag}(\mathbf{W} \mathbf{1}) - \mathbf{W},

    stored once as CSR, with its transpose (the same object when :math:`\mathbf{P}` is symmetric).
    Here :math:`w_{ij}` is the normalized weight of the edge from :math:`j` to :math:`i` and
    :math:`h` is ``step_size``. Rows of :math:`\mathbf{P}` sum to 1, so constants are fixed points,
    on directed graphs too. From `"Diffusion Mechanism in Residual Neural Network: Theory and
    Applications" <https://arxiv.org/abs/2105.03155>`_.

    Args:
        adj (Tensor, EdgeIndex or SparseTensor): An ``edge_index`` of shape :math:`(2, E)`, or a
            square sparse matrix :math:`\mathbf{A}^{\top}` (``torch_sparse.SparseTensor``,
            ``torch.sparse`` COO, CSR or CSC) whose rows are the targets.
        edge_weight (Tensor, optional): Weights :math:`(E,)` of an ``edge_index``. Weights that
            require gradients get them through :meth:`~torch_geometric_diff.ops.diffuse`.
            (default: ones)
        num_nodes (int, optional): The number of nodes :math:`N`. (default: read off ``adj``)
        step_size (float or Tensor, optional): The step size :math:`h > 0`. (default: :obj:`0.25`)
        normalization (str, optional): :obj:`"sym"` for
            :math:`\mathbf{D}^{-1/2} \mathbf{W} \mathbf{D}^{-1/2}`, :obj:`"row"` for
            :math:`\mathbf{D}^{-1} \mathbf{W}`, or :obj:`None`. (default: :obj:`"sym"`)
        add_self_loops (bool, optional): Count a self-loop of weight 1 into the degrees of the
            normalization. (default: :obj:`True`)
        reorder (bool, optional): Let the CPU kernel visit the nodes in reverse Cuthill-McKee order
            where that brings neighbors much closer in memory. It pays for large graphs whose nodes
            come in no useful order, and costs about as much as ten steps, once. Results and
            attributes keep the given order. (default: :obj:`False`)
        dtype (torch.dtype, optional): The type of the values. (default: that of the weights)

    Raises:
        ValueError: On indices out of range, weights that are negative, infinite or NaN, shapes
            that do not match, ``step_size`` that is not positive, or an unknown normalization.
        TypeError: On a type that is no adjacency.

    Attributes:
        rowptr (Tensor): Row pointers :math:`(N + 1,)`, int32 where they fit, else int64.
        col (Tensor): Column indices, of the same type.
        value (Tensor): The entries of :math:`\mathbf{P}`.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> operator = DiffusionOperator(edge_index, step_size=0.5, normalization="row")
        >>> operator
        DiffusionOperator(num_nodes=3, nnz=7, step_size=0.5, symmetric=False)
        >>> operator.to_dense().sum(dim=1)
        tensor([1., 1., 1.])
        >>> operator.gershgorin_step_size < operator.max_stable_step_size
        True
    """

    def __init__(
        self,
        adj: Any,
        edge_weight: Tensor | None = None,
        *,
        num_nodes: int | None = None,
        step_size: float | Tensor = 0.25,
        normalization: str | None = "sym",
        add_self_loops: bool = True,
        reorder: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"Expected 'normalization' to be 'sym', 'row' or None (got {normalization!r})"
            )
        self.step_size = check_step_size(step_size)
        edges = parse_edges(adj, edge_weight, num_nodes)
        built = build(edges, Recipe(normalization, "step", self.step_size, add_self_loops), dtype)
        self._set(built, reorder)
        self._laplacian, self._is_transposed, self._is_step = built.laplacian, False, True
        self._begin()
        if torch.compiler.is_compiling():
            return
        self._derived("largest degree", lambda: built.largest_degree)
        if self._may_diverge(self.step_size):
            learned = edge_weight is not None and is_differentiated(edge_weight)
            weight = None if learned else edge_weight
            stability = Stability.of(adj, weight, num_nodes, normalization, add_self_loops)
            self._derived("stability", lambda: stability)
            self.check_stability(self.step_size)

    _STATE = (*SparseOperator._STATE, "step_size", "_is_transposed", "_is_step")

    def __getstate__(self) -> dict[str, Any]:
        laplacian = self._laplacian if self._as_built else self.laplacian()
        return super().__getstate__() | {"laplacian": laplacian, "_is_step": self.is_step}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._laplacian = state["laplacian"]
        self._begin()

    def _begin(self) -> None:
        """Take the entries for those of the Laplacian and the step size."""
        self._first = self.value, None if torch.compiler.is_compiling() else self.value._version

    @property
    def _as_built(self) -> bool:
        """Whether nobody has changed the entries since."""
        value, version = self._first
        is_compiling = torch.compiler.is_compiling()
        return self.value is value and (is_compiling or version in (None, value._version))

    @property
    def is_step(self) -> bool:
        """Whether the rows of the matrix, or of its transpose, sum to 1: nobody changed them."""
        return self._is_step and self._as_built

    def _copy(self, value: Tensor) -> Self:
        other = super()._copy(value)
        if not self._as_built:
            other._laplacian, other._is_step = self.laplacian(), False
        other._begin()
        if not torch.compiler.is_compiling():
            stability, degree = self._stability, self._cache.get("largest degree")
            other._derived("stability", lambda: stability)
            if degree is not None:
                other._derived("largest degree", lambda: degree)
        return other

    def with_step_size(self, step_size: float | Tensor) -> "DiffusionOperator":
        """The operator of the same graph with another step size, which may be learned."""
        step_size = check_step_size(step_size)
        laplacian = self.laplacian()
        scale = step_size.reshape(()).to(laplacian) if isinstance(step_size, Tensor) else step_size
        value = (self._pattern.diagonal.to(laplacian) - scale * laplacian).to(self.dtype)
        other = self._copy(value)
        other.step_size, other._laplacian = step_size, laplacian
        other.check_stability(step_size)
        return other

    def laplacian(self) -> Tensor:
        r"""The entries of :math:`\mathbf{L} = (\mathbf{I} - \mathbf{P}) / h` in the pattern of the
        operator, in the widest type.
        """
        if self._as_built and self._laplacian is not None:
            return self._laplacian
        if self.requires_grad or torch.compiler.is_compiling():
            return self._find_laplacian()
        with cacheable():
            return self._derived("laplacian", self._find_laplacian)

    def _find_laplacian(self) -> Tensor:
        step_size = self.step_size
        if isinstance(step_size, Tensor):
            step_size = step_size.reshape(()).to(self.value)
        if self._as_built:
            return laplacian_of(self._pattern, self.value, step_size, self._is_transposed)
        value = self.value.to(wide_dtype(self.device))
        return (self._pattern.diagonal.to(value) - value) / step_size

    def t(self) -> Self:
        """The transposed operator; the same object if the matrix is symmetric."""
        other = super().t()
        if other is not self:
            other._is_transposed = not self._is_transposed
            if other._laplacian is not None:
                other._laplacian = self._transposed(other._laplacian)
        return other

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The operator on another device or with another floating type, as ``Tensor.to``."""
        other = super().to(*args, **kwargs)
        if other is not self:
            is_half = torch.finfo(other.dtype).bits < 32  # tiny steps underflow
            laplacian = self.laplacian() if is_half else self._laplacian
            if laplacian is not None:
                other._laplacian = laplacian.to(other.device)
        return other

    @property
    def _largest_degree(self) -> float:
        return self._derived("largest degree", lambda: largest_degree(self))

    @property
    def gershgorin_step_size(self) -> float:
        r"""The step size up to which every step averages, :math:`1 / \max_i \sum_{j \ne i} w_{ij}`.

        Below it each row of :math:`\mathbf{P}` is a convex combination: the maximum principle
        holds and nothing diverges. It costs nothing, and is a lower bound of
        :attr:`max_stable_step_size`. Infinite for a graph without edges.
        """
        largest = self._largest_degree
        return float("inf") if not largest else 1 / largest

    @property
    def max_stable_step_size(self) -> float:
        r"""The step size past which diffusion diverges, estimated on the CPU.

        :math:`\min 2 \, \mathrm{Re} \lambda / |\lambda|^2` over the eigenvalues
        :math:`\lambda \ne 0` of :math:`\mathbf{L}`, which is
        :math:`2 / \lambda_{\max}(\mathbf{L})` for a symmetric one. Infinite for a graph without
        edges.

        Within 1 % for a symmetric :math:`\mathbf{L}`, for one that a scaling makes symmetric (an
        undirected graph normalized by rows), and for a directed graph whose strongly connected
        components have up to 300 nodes each. For other directed graphs it is
        :attr:`gershgorin_step_size`, up to which nothing grows: longer steps may be stable, and no
        warning comes.
        """
        if not self._largest_degree:
            return float("inf")
        limit = self._limit()
        return limit if limit > self.gershgorin_step_size else self.gershgorin_step_size

    @property
    def _stability(self) -> Stability:
        return self._derived("stability", Stability)

    def _limit(self) -> float:
        """The estimate, NaN if there is none."""
        if self._stability.limit is None or self.requires_grad:
            limit = largest_stable_step(self._scipy_laplacian(), self._is_self_adjoint())
            self._stability.limit = limit
        return self._stability.limit

    def _scipy_laplacian(self) -> scipy.sparse.csr_matrix:
        with torch.no_grad():
            value = unwrap(self.laplacian()).cpu().double().numpy()
        arrays = value, self.col.cpu().numpy(), self.rowptr.cpu().numpy()
        matrix = scipy.sparse.csr_matrix(arrays, shape=(self.num_nodes, self.num_nodes), copy=True)
        matrix.sum_duplicates()  # of a compiled graph; SciPy's components would never end
        return matrix

    def _is_self_adjoint(self) -> bool:
        """Whether the matrix is symmetric, its entries learned or not."""
        return self._pattern.is_symmetric(self.value.detach())

    def _may_diverge(self, step_size: float | Tensor) -> bool:
        """Whether some step does not average, and nothing keeps us from looking closer."""
        if torch.compiler.is_compiling() or not _is_readable(self.value):
            return False
        if isinstance(step_size, Tensor):
            # reading a learned step off an accelerator would wait for it at every call
            if step_size.device.type != "cpu" or not _is_readable(step_size):
                return False
            step_size = float(step_size.detach())
        return step_size * self._largest_degree > 1 + 1e-6

    def check_stability(self, step_size: float | Tensor) -> None:
        """Warn if diffusion on this graph diverges with steps of a size: once a graph.

        Two bounds, of one pass over the edges, tell most steps; only between them the spectrum is
        estimated, once a graph.
        """
        if not self._may_diverge(step_size) or self._stability.warned:
            return
        stability, largest = self._stability, self._largest_degree
        step_size = float(step_size.detach()) if isinstance(step_size, Tensor) else step_size
        bound, about = None, "is"
        if self.is_step and self._is_self_adjoint():
            # the largest eigenvalue is at least N / (N - 1) times the largest degree
            least = 2 * (1 - 1 / self.num_nodes) / largest
            if step_size > least * (1 + 1e-2) and self.num_nodes > DENSE_NODES:
                bound, about = least, "is at most"
            elif step_size <= edge_bound(self._scipy_laplacian()):
                return
        if bound is None:
            if stability.limit is not None and self.requires_grad:
                return  # learned entries: the estimate was another's
            bound = self._limit()
        if step_size > bound * (1 + 1e-2):  # never if it is NaN
            stability.warned = True
            warnings.warn(
                f"Diffusion diverges: 'step_size' is {step_size:.4g}, and the largest stable step "
                f"size of this graph {about} {bound:.4g}",
                stacklevel=user_stacklevel(),
            )

    def _describe(self) -> str:
        step_size = self.step_size
        step = "learned" if isinstance(step_size, Tensor) else f"{step_size:g}"
        return (
            f"num_nodes={self.num_nodes}, nnz={self.nnz}, step_size={step}, "
            f"symmetric={self.is_symmetric}"
        )


def kind_of(operator: Any) -> type:
    """The class of an operator; of one in parts, that of the whole."""
    if isinstance(operator, PartitionedOperator):
        return SparseOperator if operator.step_size is None else DiffusionOperator
    return type(operator)


@functools.partial(uncompiled, reason="it reads the entries of the operator")
def largest_degree(operator: DiffusionOperator) -> float:
    """The largest weighted degree."""
    diagonal = unwrap(operator.laplacian().detach())[operator.pattern.diagonal]
    return float(diagonal.max()) if diagonal.numel() else 0.0


def _is_readable(tensor: Tensor) -> bool:
    """Whether a Tensor's values can be read."""
    return not tensor.is_meta and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


with contextlib.suppress(AttributeError):  # torch.load reads an operator with weights_only=True
    torch.serialization.add_safe_globals([SparseOperator, DiffusionOperator])
