"""What the battery tries: a public function or layer beside the same thing in dense algebra.

A new layer joins by one line in ``CASES``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from dense import dense_step, dense_weight, random_graph
from torch import Tensor

from torch_geometric_diff.graph import gaussian_knn_graph, knn_graph
from torch_geometric_diff.nn import DiffConv
from torch_geometric_diff.ops import (
    DiffusionOperator,
    Recurrence,
    SparseOperator,
    diffuse,
    heat,
    propagate,
)
from torch_geometric_diff.ops.random import dropout_scale, keep_mask

N, K, SEED, P = 7, 3, 5, 0.25
EDGES, WEIGHT = random_graph(N, 8)


@dataclass
class Case:
    """A function of Tensors and its dense twin.

    Attributes:
        name: What it is called in the table.
        function: The public function, of Tensors that may all be differentiated.
        dense: The same in dense float64 algebra.
        inputs: The Tensors, float64.
        module: A layer behind ``function``, if there is one.
        refuses: Columns of the table where it says no, and what it says.
    """

    name: str
    function: Callable[..., Tensor]
    dense: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    module: torch.nn.Module | None = None
    refuses: dict[str, tuple[type[Exception], str]] = field(default_factory=dict)


def features(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def euler(x: Tensor, weight: Tensor, step: Any = 0.25, dropout: float = 0.0) -> Tensor:
    """Diffusion, word for word."""
    matrix = dense_step(dense_weight(EDGES, weight, N), step)
    for k in range(K):
        if dropout:
            keep = keep_mask(SEED, k, *x.shape[-2:], round(dropout * 65536))
            x = x * keep * dropout_scale(round(dropout * 65536))
        x = matrix @ x
    return x


def mixed(x: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
    """A recurrence with everything in it."""
    a, b, c, d, w = coefficients[:K], 0.5, 0.25, 0.1, coefficients
    matrix = dense_weight(EDGES, weight, N)
    before, z, total = torch.zeros_like(x), x, w[0] * x
    for k in range(K):
        before, z = z, a[k] * (matrix @ z) + d * z + (b * before if k else 0) + c * x
        total = total + w[k + 1] * z
    return total


def mixed_ours(x: Tensor, weight: Tensor, coefficients: Tensor) -> Tensor:
    recurrence = Recurrence(K, a=coefficients[:K], b=0.5, c=0.25, d=0.1, w=coefficients)
    return propagate(x, SparseOperator(EDGES, weight, num_nodes=N), recurrence)


def operator(weight: Tensor = WEIGHT, **settings: Any) -> DiffusionOperator:
    return DiffusionOperator(EDGES, weight, num_nodes=N, **settings)


SYMMETRIC = torch.cat([EDGES, EDGES.flip(0)], 1)


def heat_dense(x: Tensor, t: Tensor) -> Tensor:
    matrix = dense_step(dense_weight(SYMMETRIC, WEIGHT.repeat(2), N), 0.25)
    laplacian = (torch.eye(N, dtype=torch.float64) - matrix) / 0.25
    return torch.linalg.matrix_exp(-t * laplacian) @ x


def heat_ours(x: Tensor, t: Tensor) -> Tensor:
    return heat(x, DiffusionOperator(SYMMETRIC, WEIGHT.repeat(2), num_nodes=N), t, tol=1e-13)


def distances(x: Tensor) -> Tensor:
    return knn_graph(x, 2, return_distances=True)[1]


def distances_dense(x: Tensor) -> Tensor:
    full = torch.cdist(x.detach(), x.detach()).fill_diagonal_(torch.inf)
    index = full.sort(stable=True).indices[:, :2]
    return (x[index] - x[:, None]).square().sum(-1).sqrt().flatten()


def weights(x: Tensor) -> Tensor:
    return gaussian_knn_graph(x, 3, 1.0)[1]


def step_layer(layer: DiffConv) -> Callable[..., Tensor]:
    def function(x: Tensor, weight: Tensor, step: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"step_size": step}, (x, EDGES, weight))

    return function


def layer(*arguments: Any, **settings: Any) -> DiffConv:
    return DiffConv(*arguments, **settings)


X = features(N, 2)
COEFFICIENTS = features(K + 1)
PLAIN, LEARNED, CACHED = layer(K), layer(K, learn_step_size=True), layer(K, cached=True)

CASES = [
    Case("diffuse", lambda x: diffuse(x, operator(), K), lambda x: euler(x, WEIGHT), (X,)),
    Case(
        "diffuse, dropout",
        lambda x: diffuse(x, operator(), K, P, SEED),
        lambda x: euler(x, WEIGHT, dropout=P),
        (X,),
    ),
    Case(
        "diffuse, learned weights",
        lambda x, w: diffuse(x, operator(w), K, P, SEED),
        lambda x, w: euler(x, w, dropout=P),
        (X, WEIGHT),
    ),
    Case(
        "diffuse, learned step",
        lambda x, h: diffuse(x, operator(step_size=h), K),
        lambda x, h: euler(x, WEIGHT, h),
        (X, torch.tensor(0.3, dtype=torch.float64)),
    ),
    Case("propagate, all learned", mixed_ours, mixed, (X, WEIGHT, COEFFICIENTS)),
    Case(
        "heat, learned time",
        heat_ours,
        heat_dense,
        (X, torch.tensor(0.7).double()),
        refuses=dict.fromkeys(("compile", "export"), (Exception, "learned time is not compiled")),
    ),
    Case(
        "operator @ x",
        lambda x, w: SparseOperator(EDGES, w, num_nodes=N) @ x,
        lambda x, w: dense_weight(EDGES, w, N) @ x,
        (X, WEIGHT),
        refuses={"compile": (Exception, "SparseOperator")},
    ),
    Case("DiffConv", lambda x, w: PLAIN(x, EDGES, w), euler, (X, WEIGHT), PLAIN),
    Case("DiffConv, cached", lambda x: CACHED(x, EDGES, WEIGHT), lambda x: euler(x, WEIGHT), (X,)),
    Case(
        "DiffConv, learned step",
        step_layer(LEARNED),
        euler,
        (X, WEIGHT, torch.tensor(0.3).double()),
    ),
    Case(
        "knn_graph, distances",
        distances,
        distances_dense,
        (features(N, 3),),
        refuses=dict.fromkeys(("vmap", "vmap, all", "vmap of grad"), (Exception, "under vmap"))
        | dict.fromkeys(("compile", "export"), (Exception, "knn_graph|data-dependent|Dynamo")),
    ),
]
