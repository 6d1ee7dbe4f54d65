"""What the layers that propagate share: the operator and its cache, the kernel, the messages."""

from collections.abc import Callable
from typing import Any, Optional, Union
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.typing import Adj, OptTensor
from torch_geometric.utils import spmm

from ..._utils.checks import check_has_values, check_real, is_finite
from ..._utils.functorch import cacheable, is_tracing
from ...graph.adjacency import is_sparse_adjacency, sparse_matrix
from ...ops import PartitionedOperator, Recurrence, SparseOperator, propagate
from ...ops._sparse import SparseProduct
from ...ops._stepwise import propagate_by
from ...ops.functional import check_features, select
from ...ops.operator import kind_of
from ._cache import CachedOperator, Graph, is_learned
from ._recipes import Adjacency, DiffusionStep
from ._seeds import draw_layer_seeds

Recipe = Union[Adjacency, DiffusionStep]
Product = Callable[[Tensor], Tensor]

_PATCHABLE = ("message", "aggregate", "message_and_aggregate", "update", "propagate")
_MESSAGE_HOOKS = tuple(
    f"_{name}_forward_{kind}"
    for name in ("propagate", "message", "aggregate", "message_and_aggregate")
    for kind in ("hooks", "pre_hooks")
)
_trusted: "WeakKeyDictionary[type, tuple]" = WeakKeyDictionary()  # functions by layer class
_PACKAGES = (__name__.partition(".")[0], "torch_geometric")


class Propagation(MessagePassing):
    r"""The base of the layers that run a :class:`~torch_geometric_diff.ops.Recurrence` over a
    graph, by default with the adjacency matrix as normalized for graph convolutions.

    ``forward`` gives ``_propagate`` the features, the graph, the recipe of the matrix and the
    recurrence; all steps run in one kernel. Explanations, hooks on messages, and messages that are
    not the package's own get the message passing form, which has equal results.

    Args:
        cached (bool, optional): If set to :obj:`True`, the operator is built at the first call and
            reused. Another graph afterwards is an error. (default: :obj:`False`)
        **kwargs (optional): Additional arguments of
            :class:`torch_geometric.nn.conv.MessagePassing`.

    Attributes:
        normalize (bool): Whether to normalize the adjacency matrix.
        add_self_loops (bool): Whether the normalization adds loops.

    Raises:
        ValueError: If :obj:`aggr` is no sum or :obj:`node_dim` is not -2.
    """

    normalize: Optional[bool] = True
    add_self_loops: bool = True
    operators: type[SparseOperator] = SparseOperator  # what may be given in the place of a graph
    _caches: tuple[str, ...] = ("_cached",)
    _cached: Optional[CachedOperator]

    def __init__(self, cached: bool = False, **kwargs: Any) -> None:
        kwargs.setdefault("aggr", "add")
        super().__init__(**kwargs)
        if self.aggr not in ("add", "sum"):
            raise ValueError(f"Expected 'aggr' to be 'add' (got {kwargs['aggr']!r})")
        if self.node_dim != -2:
            raise ValueError(f"Expected 'node_dim' to be -2 (got {self.node_dim})")
        self.cached = cached
        self.__dict__.update(dict.fromkeys(self._caches))

    def reset_parameters(self) -> None:
        """Clear the cache."""
        super().reset_parameters()
        self.__dict__.update(dict.fromkeys(self._caches))

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files of a layer come without what it has cached."""
        return {**self.__dict__, **dict.fromkeys(self._caches)}

    def __prepare_scriptable__(self) -> None:
        raise TypeError(self._no_torchscript("scripted"))

    def _no_torchscript(self, what: str) -> str:
        return (
            f"'{self.__class__.__name__}' cannot be {what}: TorchScript has no such kernel. "
            "Use 'torch.compile' or 'torch.export' instead"
        )

    def operator(
        self, x: Tensor, edge_index: Any, edge_weight: Optional[Tensor] = None
    ) -> SparseOperator:
        """The operator of this layer on a graph, from the cache if there is one."""
        graph = (edge_index, edge_weight)
        return self._operator(self._check(x, graph), graph, self._recipe())

    def _recipe(self) -> Recipe:
        """What the operator is, as the attributes say now."""
        return Adjacency(self.normalize, self.add_self_loops)

    def _check(self, x: Any, graph: Graph) -> Tensor:
        """The features, in the type that they have beside the weights."""
        if isinstance(x, (tuple, list)) and any(isinstance(part, Tensor) for part in x):
            raise ValueError(
                f"'{self.__class__.__name__}' received a tuple of node features as input while "
                "this layer does not support bipartite message passing. Please try other layers "
                "such as 'SAGEConv' or 'GraphConv' instead"
            )
        if is_tracing():
            raise TypeError(self._no_torchscript("traced"))
        check_features(x)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                check_has_values(name, parameter)
        dtype = _weight_dtype(graph)
        if dtype is None or dtype == x.dtype:
            return x
        return x.to(torch.promote_types(x.dtype, dtype))

    def _propagate(
        self,
        x: Tensor,
        graph: Graph,
        recipe: Recipe,
        recurrence: Union[Recurrence, Callable[[Any], Recurrence]],
        *,
        dropout: float = 0.0,
        edge_dropout: float = 0.0,
        generator: Optional[torch.Generator] = None,
        nodes: Optional[Tensor] = None,
        **limits: Any,
    ) -> Tensor:
        """Run a recurrence, or what makes one of the operator, on features that were checked.

        See :func:`~torch_geometric_diff.ops.propagate`.
        """
        operator = self._operator(x, graph, recipe)
        if not isinstance(recurrence, Recurrence):
            recurrence = recurrence(operator)
        settings: dict[str, Any] = {"dropout": dropout, "training": self.training, **limits}
        if generator is not None and dropout and self.training:
            settings["seed"] = draw_layer_seeds(x.size(0) if x.dim() == 3 else 1, generator)
        drop = edge_dropout if self.training else 0.0
        if not drop and not self._is_observed():
            return propagate(x, operator, recurrence, **settings, nodes=nodes)
        product = self._product(x, operator, graph, recipe, drop)
        return select(propagate_by(product, x, recurrence, **settings), nodes)

    # The operator and its cache. ##################################################################

    def _operator(self, x: Tensor, graph: Graph, recipe: Recipe) -> SparseOperator:
        if issubclass(kind_of(graph[0]), SparseOperator):
            return self._ready(*graph)
        cache: Any = self._cached
        is_compiling = torch.compiler.is_compiling()
        if not self.cached or (cache is None and is_compiling):
            return self._build(x, graph, recipe)
        settings = (recipe, self.flow, _precision(x), x.device)
        is_current = cache is not None and cache.settings == settings
        if is_current and not is_compiling and cache.knows(graph):
            pass
        elif is_learned(*graph):
            raise ValueError("'cached=True' does not go with learned 'edge_weight'")
        elif not is_current:
            with cacheable():
                cache = CachedOperator(self._build(x, graph, recipe), graph, settings)
            self._cached = cache
        elif not cache.is_of(graph):
            if is_compiling or not cache.is_equal(self._build(x, graph, recipe)):
                raise ValueError(
                    f"'{self.__class__.__name__}(cached=True)' was called with another graph than "
                    "the one in its cache; call 'reset_parameters()' or set 'cached=False'"
                )
            cache.remember(graph)
        if cache.operator.num_nodes != x.size(-2):
            raise ValueError(
                f"Expected 'x' to have {cache.operator.num_nodes} rows, the nodes of the cached "
                f"graph (got {x.size(-2)})"
            )
        return cache.operator

    def _ready(self, operator: Any, weight: Optional[Tensor]) -> SparseOperator:
        """An operator that was given in the place of a graph."""
        name, given = self.operators.__name__, kind_of(operator)
        if not issubclass(given, self.operators):
            raise TypeError(f"Expected a {name} (got a {given.__name__})")
        if weight is not None:
            raise ValueError(
                f"Expected 'edge_weight' to be None beside a {name}, which holds its weights "
                "(got both)"
            )
        return operator

    def _build(self, x: Tensor, graph: Graph, recipe: Recipe) -> SparseOperator:
        adjacency, weight = self._source_to_target(graph[0]), graph[1]
        settings = {"num_nodes": x.size(-2), "reorder": self.cached, "dtype": _precision(x)}
        return recipe.operator(adjacency, weight, **settings)

    def _source_to_target(self, edge_index: Any) -> Any:
        """The graph in the other direction if that is the flow."""
        if self.flow == "source_to_target" or not isinstance(edge_index, Tensor):
            return edge_index
        if is_sparse_adjacency(edge_index):
            raise ValueError(
                "Expected 'flow' to be 'source_to_target' for a sparse 'edge_index', whose rows "
                "are the targets (got 'target_to_source'); transpose the matrix instead"
            )
        return edge_index.flip([0])

    # The message passing form: explanations and hooks need to see the messages. ###################

    def _is_observed(self) -> bool:
        """Whether somebody looks at the messages or has changed them."""
        own, home = self.__dict__, type(self)
        if self.explain or any(map(own.__getitem__, _MESSAGE_HOOKS)):
            return True
        functions = (home.message, home.aggregate, home.message_and_aggregate, home.update)
        return (functions != _trusted.get(home) and _are_changed(home, functions)) or any(
            map(own.__contains__, _PATCHABLE)
        )

    def _product(
        self, x: Tensor, operator: SparseOperator, graph: Graph, recipe: Recipe, drop: float = 0.0
    ) -> Product:
        """One product with the operator, of whose entries ``drop`` are dropped at every call."""
        is_observed = self._is_observed()
        if isinstance(operator, PartitionedOperator) and not is_observed:
            if drop:
                raise ValueError(
                    "Expected 'dropout' of edges to be 0 beside a PartitionedOperator, whose ranks "
                    f"would draw each their own (got {drop}); 'feature_dropout' has masks of all"
                )
            return operator.__matmul__
        if not is_observed and not torch.compiler.is_compiling():
            return lambda z: SparseProduct.apply(
                F.dropout(operator.value, drop), z, operator.pattern
            )
        if issubclass(kind_of(graph[0]), SparseOperator):
            raise ValueError(
                f"Explanations and hooks need an 'edge_index' (got a {type(operator).__name__})"
            )
        adjacency = self._source_to_target(graph[0])
        edges = recipe.edges(adjacency, graph[1], operator.num_nodes, operator.dtype)
        index: Any = (edges.col, edges.row)
        index = torch.stack(index if self.flow == "source_to_target" else index[::-1])
        fused = is_sparse_adjacency(adjacency) and self.fuse and not self.explain
        if fused and not drop and x.dim() == 2:
            index = sparse_matrix(edges)
        step_size = operator.step_size if isinstance(recipe, DiffusionStep) else None  # type: ignore[attr-defined]

        def product(z: Tensor) -> Tensor:  # of a batch of one if there is none
            own = z if x.dim() == 3 else z.squeeze(0)
            # propagate_type: (x: Tensor, edge_weight: OptTensor)
            out = self.propagate(index, x=own, edge_weight=F.dropout(edges.weight, drop))
            return (out if step_size is None else own + step_size * out).view_as(z)

        return product

    def message(self, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        """A neighbor times the weight of the edge."""
        return x_j if edge_weight is None else edge_weight.view(-1, 1) * x_j

    def message_and_aggregate(self, adj_t: Adj, x: Tensor) -> Tensor:
        """The sum of all messages into a node."""
        return spmm(adj_t, x, reduce=self.aggr)


def _are_changed(home: type, functions: tuple) -> bool:
    """Whether some functions of a class are not the package's own or PyG's; known ones are kept."""
    names = [getattr(function, "__module__", None) or "" for function in functions]
    if not all(name.partition(".")[0] in _PACKAGES for name in names):
        return True
    if not torch.compiler.is_compiling():
        _trusted[home] = functions
    return False


def check_alpha(alpha: Any) -> Any:
    """A coefficient: a finite number, or a Tensor of one, which may be learned."""
    if not isinstance(alpha, Tensor):
        return check_real("alpha", alpha, is_finite, "be finite")
    if alpha.numel() != 1 or not alpha.is_floating_point():
        raise ValueError(
            f"Expected 'alpha' to be one floating number (got shape {list(alpha.shape)})"
        )
    return alpha


def as_number(alpha: Any) -> Any:
    """A coefficient without dimensions."""
    return alpha.reshape(()) if isinstance(alpha, Tensor) else alpha


def as_text(value: Any) -> str:
    """A number for a ``repr``; one on the device 'meta' has no value."""
    if isinstance(value, Tensor):
        return "?" if value.is_meta else f"{value.item():g}"
    return f"{value:g}"


def _precision(x: Tensor) -> torch.dtype:
    """The type in which ``x`` is propagated."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _weight_dtype(graph: Graph) -> Optional[torch.dtype]:
    """The floating type of the weights of a graph, if there are such."""
    adjacency, weight = graph
    dtype = None
    if isinstance(weight, Tensor):
        dtype = weight.dtype
    elif is_sparse_adjacency(adjacency):
        if isinstance(adjacency, Tensor):
            dtype = adjacency.dtype
        elif adjacency.has_value():
            dtype = adjacency.dtype()
    return dtype if dtype is not None and dtype.is_floating_point else None
