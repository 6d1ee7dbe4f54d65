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
from torch_geometric_diff.nn import APPNP, DiffConv, GPRConv, HeatConv, SGConv, SSGConv
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


def adjacency(weight: Tensor) -> Tensor:
    """The matrix of ``gcn_norm``, loops added where there are none."""
    matrix = dense_weight(EDGES, weight, N)
    matrix = matrix + torch.diag((matrix.diagonal() == 0).to(matrix.dtype))
    inverse = matrix.sum(1).rsqrt()
    return inverse[:, None] * matrix * inverse


def appnp(x: Tensor, weight: Tensor) -> Tensor:
    matrix, z = adjacency(weight), x
    for _ in range(K):
        z = 0.8 * (matrix @ z) + 0.2 * x
    return z


def powers(x: Tensor, weight: Tensor, gamma: Tensor) -> Tensor:
    matrix, z, total = adjacency(weight), x, gamma[0] * x
    for k in range(K):
        z = matrix @ z
        total = total + gamma[k + 1] * z
    return total


def ssgc(x: Tensor, weight: Tensor, theta: Tensor) -> Tensor:
    gamma = torch.tensor([0.1, *[0.9 / K] * K], dtype=torch.float64)
    return powers(x, weight, gamma) @ theta.t()


def sgc(x: Tensor, weight: Tensor, theta: Tensor) -> Tensor:
    matrix = adjacency(weight)
    return matrix @ (matrix @ (matrix @ x)) @ theta.t()


def with_parameter(layer: torch.nn.Module, name: str) -> Callable[..., Tensor]:
    def function(x: Tensor, weight: Tensor, value: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {name: value}, (x, EDGES, weight))

    return function


def heat_layer(x: Tensor, weight: Tensor) -> Tensor:
    matrix = dense_step(dense_weight(EDGES, weight, N), 0.25)
    laplacian = (torch.eye(N, dtype=torch.float64) - matrix) / 0.25
    return torch.linalg.matrix_exp(-0.5 * laplacian) @ x


X = features(N, 2)
COEFFICIENTS = features(K + 1)
THETA, PPR = features(4, 2), APPNP(K, 0.2)
NO_BUILD = dict.fromkeys(("compile", "export"), (Exception, "."))  # steps depend on the graph
PLAIN, LEARNED, CACHED = DiffConv(K), DiffConv(K, learn_step_size=True), DiffConv(K, cached=True)

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
        with_parameter(LEARNED, "step_size"),
        euler,
        (X, WEIGHT, torch.tensor(0.3).double()),
    ),
    Case("APPNP", lambda x, w: PPR(x, EDGES, w), appnp, (X, WEIGHT)),
    Case("GPRConv", with_parameter(GPRConv(K), "gamma"), powers, (X, WEIGHT, COEFFICIENTS)),
    Case(
        "SGConv",
        with_parameter(SGConv(2, 4, K, bias=False), "lin.weight"),
        sgc,
        (X, WEIGHT, THETA),
    ),
    Case(
        "SSGConv",
        with_parameter(SSGConv(2, 4, 0.1, K, bias=False), "lin.weight"),
        ssgc,
        (X, WEIGHT, THETA),
    ),
    Case(
        "HeatConv",
        lambda x, w: HeatConv(0.5, tol=1e-13)(x, EDGES, w),
        heat_layer,
        (X, WEIGHT),
        refuses=NO_BUILD,
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
