"""Attention over the edges of a graph, without a Tensor of edges x heads x channels."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from .._utils.checks import check_dropout, check_integer, check_real, is_finite
from .._utils.functorch import is_differentiated, is_grads_batch, is_transformed
from .._utils.native import _C
from ..graph.adjacency import check_values, parse_edges
from ._build import Built, compress
from ._pattern import Pattern, inverse_permutation, native
from ._random import draw_seeds, dropout_scale, dropout_threshold, keep_mask, step_keys
from .operator import SparseOperator

_CHUNK_ROWS = 64  # kChunkRows of csrc/attention.h
SCORES = ("additive", "dot", "joint")


class EdgeList:
    """The edges of a graph in the order given, and where those of each target and source are.

    Args:
        adj (Tensor, EdgeIndex or SparseTensor): The graph; a sparse matrix by rows.
        num_nodes (int, optional): The number of nodes. (default: read off ``adj``)

    Attributes:
        target (Tensor): The target of every edge, :math:`(E,)`.
        source (Tensor): The source of every edge, :math:`(E,)`.
        num_nodes (int): The number of nodes.

    Example:
        >>> edges = EdgeList(torch.tensor([[0, 1, 1], [1, 0, 2]]))
        >>> edges.num_nodes, edges.source.tolist(), edges.target.tolist()
        (3, [0, 1, 1], [1, 0, 2])
    """

    def __init__(self, adj: Any, num_nodes: int | None = None) -> None:
        edges = parse_edges(adj, None, num_nodes)
        check_values(edges, signed=True)
        self.target, self.source, self.num_nodes = edges.row, edges.col, edges.num_nodes
        self._by_end: dict[bool, tuple[Tensor, Tensor, Tensor]] = {}
        self._entries: tuple[Pattern, Tensor] | None = None

    def index(self) -> Tensor:
        """Sources and targets, :math:`(2, E)`."""
        return torch.stack([self.source, self.target])

    def with_self_loops(self) -> "EdgeList":
        """The edges that are no self-loops, and one self-loop a node behind them."""
        others = self.source != self.target
        nodes = torch.arange(self.num_nodes, device=self.source.device)
        loops = nodes.expand(2, -1)
        return EdgeList(torch.cat([self.index()[:, others], loops], dim=1), self.num_nodes)

    def operator(self, weight: Tensor) -> SparseOperator:
        """The matrix of weights :math:`(E,)` of the edges; those of equal edges are summed.

        Edges are sorted at the first call alone.
        """
        if self._entries is None:
            self._entries = compress(self.target, self.source, self.num_nodes)
        pattern, entry = self._entries
        value = weight.new_zeros(pattern.col.numel()).index_add(0, entry, weight)
        operator = object.__new__(SparseOperator)
        operator._set(Built(pattern, value, None), reorder=False)
        return operator

    def by_end(self, source: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Row pointers of the targets (or the sources), the other end of every entry, its edge."""
        if source not in self._by_end:
            self._by_end[source] = self._sorted(source)
        return self._by_end[source]

    def _sorted(self, source: bool) -> tuple[Tensor, Tensor, Tensor]:
        row, col = (self.source, self.target) if source else (self.target, self.source)
        pattern, entry = compress(row, col, self.num_nodes)
        if pattern.col.numel() == row.numel():
            edge = inverse_permutation(entry.long())
            return pattern.rowptr.long(), pattern.col.long(), edge
        edge = torch.argsort(row, stable=True)  # each of several equal edges has a weight
        rowptr = torch.nn.functional.pad(row.bincount(minlength=self.num_nodes).cumsum(0), (1, 0))
        return rowptr, col[edge], edge


class _Plan(NamedTuple):
    edges: EdgeList
    score: str
    factor: float
    threshold: int
    seed: int | None


def edge_attention(
    target: Tensor,
    source: Tensor,
    edges: EdgeList,
    value: Tensor | None = None,
    *,
    score: str = "additive",
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    factor: float | None = None,
    dropout: float = 0.0,
    seed: int | None = None,
    training: bool = True,
) -> Tensor:
    r"""A softmax of scores over the edges into each node, and the sum of the sources' values by it,

    .. math::
        \mathbf{y}_i^{(h)} = \sum_{j \to i} m_{ij}^{(h)} \alpha_{ij}^{(h)} \, \mathbf{v}_j^{(h)},
        \qquad \alpha_{ij}^{(h)} = \mathrm{softmax}_{j \to i} \; s_{ij}^{(h)},

    with the scores

    - ``'additive'`` :math:`\mathrm{LeakyReLU}(a_j + b_i + e_{ij})` (`GAT
      <https://arxiv.org/abs/1710.10903>`_),
    - ``'joint'`` :math:`\langle \mathbf{w}, \mathrm{LeakyReLU}(\mathbf{a}_j + \mathbf{b}_i) \rangle
      + e_{ij}` (`GATv2 <https://arxiv.org/abs/2105.14491>`_),
    - ``'dot'`` :math:`c \, \langle \mathbf{a}_j, \mathbf{b}_i \rangle + e_{ij}`, the scaled dot
      product,

    of sources :math:`a` and targets :math:`b`. On the CPU one kernel makes scores, softmax and sum;
    the forward pass keeps :math:`N \times H` numbers, the backward pass takes
    :math:`E \times H` more. Second derivatives, ``torch.func``,
    ``torch.compile`` and other devices take the same in torch's operations, which hold
    :math:`E \times H \times F` numbers.

    Args:
        target (Tensor): What the targets give to the scores.
        source (Tensor): What the sources give to the scores.
        edges (EdgeList): The edges; equal ones count each.
        value (Tensor, optional): The values of the sources. (default: none: the weights
            :math:`m \alpha` themselves are returned, in the order of the edges)
        score (str, optional): The kind of score. (default: :obj:`"additive"`)
        weight (Tensor, optional): The vectors :math:`\mathbf{w}` of ``'joint'`` scores.
        bias (Tensor, optional): What the edges give to the scores. (default: none)
        factor (float, optional): The slope of LeakyReLU, or the factor :math:`c`.
            (default: :obj:`0.2`, or :math:`1 / \sqrt{D}`)
        dropout (float, optional): The probability to drop a weight, rounded to a multiple of
            1/65536. (default: :obj:`0.0`)
        seed (int, optional): The seed of dropout. (default: drawn from torch's CPU generator)
        training (bool, optional): Whether dropout applies. (default: :obj:`True`)

    Shapes:
        - **input:** ``target`` and ``source`` :math:`(N, H)` for ``'additive'``, else
          :math:`(N, H, D)`; ``value`` :math:`(N, H, F)`; ``weight`` :math:`(H, D)`; ``bias``
          :math:`(E, H)`
        - **output:** :math:`(N, H, F)`; zeros for a node without edges; without ``value``
          :math:`(E, H)`

    Raises:
        ValueError: On an unknown score, or shapes that do not fit each other.
        TypeError: If the Tensors are not of one floating type.

    Example:
        >>> edges = EdgeList(torch.tensor([[0, 1, 2], [2, 2, 2]]))
        >>> scores = torch.tensor([[0.0], [0.0], [10.0]])
        >>> edge_attention(torch.zeros(3, 1), scores, edges).flatten()
        tensor([4.5396e-05, 4.5396e-05, 9.9991e-01])
    """
    if score not in SCORES:
        raise ValueError(f"Expected 'score' to be one of {SCORES} (got {score!r})")
    parts = {"source": source, "value": value, "weight": weight, "bias": bias}
    _check(target, edges, score, parts)
    if factor is None:
        factor = target.size(-1) ** -0.5 if score == "dot" and target.size(-1) > 0 else 0.2
    factor = check_real("factor", factor, is_finite, "be finite")
    threshold = dropout_threshold(check_dropout(dropout)) if training else 0
    if seed is not None:
        seed = check_integer("seed", seed, 0)
    elif threshold and not torch.compiler.is_compiling():
        drawn = draw_seeds(1)
        if is_transformed(drawn):
            raise NotImplementedError(
                "'edge_attention' has no masks for each element under vmap: use "
                "randomness='same', or a 'seed'"
            )
        seed = int(drawn)
    plan = _Plan(edges, score, factor, threshold, seed)
    wide = torch.float64 if target.dtype == torch.float64 else torch.float32
    inputs = [None if t is None else t.to(wide) for t in (target, source, value, weight, bias)]
    return _run(inputs, plan).to(target.dtype)


def _check(target: Tensor, edges: EdgeList, score: str, parts: dict[str, Tensor | None]) -> None:
    heads = target.size(1) if target.dim() > 1 else 0
    dims = 2 if score == "additive" else 3
    if target.dim() != dims or target.size(0) != edges.num_nodes:
        raise ValueError(
            f"Expected 'target' of {edges.num_nodes} rows and {dims} dimensions for {score!r} "
            f"scores (got shape {list(target.shape)})"
        )
    value = parts["value"]
    wanted = {
        "source": list(target.shape),
        "value": [edges.num_nodes, heads, value.size(-1) if value is not None else 0],
        "weight": list(target.shape[1:]),
        "bias": [edges.target.numel(), heads],
    }
    if (parts["weight"] is None) == (score == "joint"):
        raise ValueError(
            f"Expected 'weight' for 'joint' scores and no others (got {score!r} scores)"
        )
    for name, part in parts.items():
        if part is None:
            continue
        if list(part.shape) != wanted[name]:
            raise ValueError(f"Expected {name!r} of shape {wanted[name]} (got {list(part.shape)})")
        if part.dtype != target.dtype or not part.is_floating_point():
            raise TypeError(
                f"Expected {name!r} of the floating type of 'target', {target.dtype} "
                f"(got {part.dtype})"
            )


def _run(inputs: list[Tensor | None], plan: _Plan) -> Tensor:
    """The fused kernel where it can, else torch's operations."""
    given = [t for t in inputs if t is not None]
    fused = not torch.compiler.is_compiling() and native(plan.edges.target)
    if not fused or any(is_transformed(t) or t.device.type != "cpu" for t in given):
        return _composed(inputs, plan)
    if any(map(is_differentiated, given)):
        return _Attention.apply(plan, *inputs)
    return _forward(plan, inputs)[0]


def _composed(inputs: list[Tensor | None], plan: _Plan) -> Tensor:
    """The same of operations that torch differentiates and compiles."""
    target, source, value, weight, bias = inputs
    assert target is not None and source is not None
    row, col, shape = plan.edges.target, plan.edges.source, target.shape[:2]
    s, t = source[col], target[row]
    if plan.score == "additive":
        scores = s + t if bias is None else s + t + bias
        scores = torch.nn.functional.leaky_relu(scores, plan.factor)
    else:
        if plan.score == "dot":
            scores = plan.factor * (s * t).sum(-1)
        else:
            assert weight is not None
            scores = (weight * torch.nn.functional.leaky_relu(s + t, plan.factor)).sum(-1)
        scores = scores if bias is None else scores + bias
    index = row.unsqueeze(1).expand_as(scores)
    largest = torch.full(shape, -torch.inf, dtype=scores.dtype, device=scores.device)
    largest = largest.scatter_reduce(0, index, scores.detach(), "amax")
    weights = (scores - largest[row]).exp()
    total = torch.zeros(shape, dtype=scores.dtype, device=scores.device)
    weights = weights / total.index_add(0, row, weights)[row]
    weights = _dropped(weights, plan)
    if value is None:
        return weights
    out = torch.zeros(*shape, value.size(-1), dtype=value.dtype, device=value.device)
    return out.index_add(0, row, weights.unsqueeze(-1) * value[col])


def _dropped(weights: Tensor, plan: _Plan) -> Tensor:
    if not plan.threshold:
        return weights
    if plan.seed is None:  # compiled, where no seed can be read
        return torch.nn.functional.dropout(weights, plan.threshold / 65536)
    edges, heads = weights.shape
    keep = keep_mask(plan.seed, 1, edges, heads, plan.threshold, weights.device)
    return torch.where(keep, weights * dropout_scale(plan.threshold), 0.0)


def _arguments(plan: _Plan, inputs: list[Tensor | None]) -> dict[str, Any]:
    target, source, value, weight, bias = (
        None if t is None else t.detach().contiguous() for t in inputs
    )
    assert target is not None
    return {
        "score": _C.Score(SCORES.index(plan.score)),
        "heads": target.size(1),
        "factor": plan.factor,
        "target": target,
        "source": source,
        "weight": weight,
        "bias": bias,
        "value": value,
        "mask": (
            *map(int, step_keys(torch.tensor(plan.seed or 0, device="cpu"), 1)),
            plan.threshold,
        ),
        "threads": torch.get_num_threads(),
    }


def _forward(plan: _Plan, inputs: list[Tensor | None]) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and of each target the largest score and one over the sum of exponentials."""
    target, _, value, _, _ = inputs
    assert target is not None
    heads = target.size(1)
    if value is None:
        out = target.new_empty(plan.edges.target.numel(), heads)
    else:
        out = value.new_empty(value.shape)
    largest, inverse = (target.new_empty(target.size(0), heads) for _ in range(2))
    if target.size(0) * heads:
        csr = plan.edges.by_end(source=False)
        _C.attend(
            _C.Pass.FORWARD, csr=csr, largest=largest, inverse=inverse, out=out,
            **_arguments(plan, inputs),
        )  # fmt: skip
    return out, largest, inverse


class _Attention(Function):
    """The kernel, whose derivatives of derivatives torch's operations make."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *inputs: Tensor | None) -> Tensor:
        out, largest, inverse = _forward(plan, [*inputs])
        ctx.plan = plan
        weights = inputs[2] is None
        kept = out if not (weights and plan.threshold) else None
        ctx.save_for_backward(*inputs, kept, largest, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *inputs, out, largest, inverse = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or is_grads_batch(grads[0]):
            return None, *_composed_backward(ctx.plan, inputs, grads[0], wanted)
        if largest.numel() == 0:
            return None, *(None if t is None else torch.zeros_like(t) for t in inputs)
        return None, *_backward(ctx.plan, inputs, grads[0], out, largest, inverse, wanted)


def _composed_backward(
    plan: _Plan, inputs: list[Tensor | None], grad: Tensor, wanted: tuple[bool, ...]
) -> list[Tensor | None]:
    """The gradients by torch's operations, which differentiate again and take batches."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # views, as one input may have been made of another: its gradient is not asked for here
        views = [None if t is None else t.view_as(t) for t in inputs]
        some = [t for t, need in zip(views, wanted, strict=True) if t is not None and need]
        out = _composed(views, plan)
        grads = iter(torch.autograd.grad(out, some, grad, create_graph=again, allow_unused=True))
    return [next(grads) if need else None for need in wanted]


def _backward(
    plan: _Plan,
    inputs: list[Tensor | None],
    grad: Tensor,
    out: Tensor | None,
    largest: Tensor,
    inverse: Tensor,
    wanted: tuple[bool, ...],
) -> list[Tensor | None]:
    """One pass over the targets, one over the sources."""
    target, source, value, weight, bias = inputs
    assert target is not None and source is not None
    grad = grad.contiguous()
    same: dict[str, Any] = {"grad": grad, "largest": largest, "inverse": inverse}
    if value is None:
        same |= {"inner": torch.empty_like(largest), "weights": out}
    else:
        assert out is not None
        same["inner"] = (grad * out).sum(-1)
    heads, parts = target.size(1), 1 if value is None else 2
    edges = target.new_empty(plan.edges.target.numel(), parts, heads)  # of scores, and the weights
    same |= {"d_edges": edges, **_arguments(plan, inputs)}
    d_target, d_source = torch.empty_like(target), torch.empty_like(source)
    d_value = torch.empty_like(value) if wanted[2] and value is not None else None
    d_weight = None
    if wanted[3] and weight is not None:
        d_weight = weight.new_zeros(-(-target.size(0) // _CHUNK_ROWS), *weight.shape)
    targets = {"csr": plan.edges.by_end(source=False), "d_node": d_target}
    _C.attend(_C.Pass.TARGETS, **targets, d_weight=d_weight, **same)
    if wanted[1] or wanted[2]:
        sources = {"csr": plan.edges.by_end(source=True), "d_node": d_source}
        _C.attend(_C.Pass.SOURCES, **sources, d_value=d_value, **same)
    total = None if d_weight is None else d_weight.sum(0)
    d_bias = edges[:, 0] if wanted[4] and bias is not None else None
    return [d_target, d_source if wanted[1] else None, d_value, total, d_bias]
