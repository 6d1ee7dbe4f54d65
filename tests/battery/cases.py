"""What the battery tries: a public function or layer beside the same thing in dense algebra.

A new layer joins by one line in ``CASES``.
"""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from dense import dense_step, dense_weight, random_graph
from torch import Tensor
from torch_geometric.data import Data

from torch_geometric_diff.graph import gaussian_knn_graph, knn_graph
from torch_geometric_diff.metrics import dirichlet_energy, distance_diameter_ratio, separability
from torch_geometric_diff.nn import (
    APPNP,
    AttentionDiffusion,
    CorrectAndSmooth,
    DiffConv,
    DiffResNet,
    GPRConv,
    HeatConv,
    LabelPropagation,
    RandomPropagation,
    ResidualBlock,
    SGConv,
    SSGConv,
    consistency,
)
from torch_geometric_diff.ops import (
    DiffusionOperator,
    EdgeList,
    Recurrence,
    SparseOperator,
    diffuse,
    edge_attention,
    heat,
    propagate,
    sparse_mm,
)
from torch_geometric_diff.ops._random import dropout_scale, keep_mask
from torch_geometric_diff.preprocessing import diffuse_features
from torch_geometric_diff.transforms import SIGN, GaussianKNNGraph, Heat, PersonalizedPageRank

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
        refuses: Columns of the table where it says no, and the package's own sentence there.
        beside: Columns that do not apply, and why.
        constant: Whether no gradient passes: what comes out asks for none.
        module: The layer or model, if it is one.
        call: What makes the function of the module, or of a copy.
        autocast: The type of what comes out under autocast to bfloat16: that of PyG.
        outcomes: What happened in the columns that were tried in this process.
    """

    name: str
    function: Callable[..., Tensor]
    dense: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    refuses: dict[str, str] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)
    constant: bool = False
    module: torch.nn.Module | None = None
    call: Callable[[Any], Callable[..., Tensor]] | None = None
    autocast: torch.dtype = torch.float32
    outcomes: dict[str, str] = field(default_factory=dict)


def of_module(
    name: str,
    module: torch.nn.Module,
    call: Callable[[Any], Callable[..., Tensor]],
    dense: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    **rest: Any,
) -> Case:
    """The case of a layer or a model."""
    return Case(name, call(module), dense, inputs, module=module, call=call, **rest)


def of_graph(layer: Any) -> Callable[..., Tensor]:
    """A layer as a function of features and weights."""
    return lambda x, weight: layer(x, EDGES, weight)


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


def gaussian_dense(x: Tensor) -> Tensor:
    full = torch.cdist(x.detach(), x.detach())
    index = full.sort(stable=True).indices[:, :3]
    return torch.exp(-(x[index] - x[:, None]).square().sum(-1)).flatten()


def gaussian_symmetric(x: Tensor) -> Tensor:
    """The weights of a symmetric graph, of widths that follow the points."""
    edge_index, weight = gaussian_knn_graph(x, 4, ("local", 3), symmetrize="mean")
    return dense_weight(edge_index, weight, len(x)).flatten()


def gaussian_symmetric_dense(x: Tensor) -> Tensor:
    full = torch.cdist(x.detach(), x.detach())
    index = full.sort(stable=True).indices[:, :4]
    squared = (x[index] - x[:, None]).square().sum(-1)
    weight = torch.exp(-squared / squared[:, 2:3])
    rows = torch.arange(len(x)).repeat_interleave(4)
    matrix = weight.new_zeros(len(x), len(x)).index_put((rows, index.flatten()), weight.flatten())
    return ((matrix + matrix.t()) / 2).flatten()


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


def with_parameter(name: str) -> Callable[[torch.nn.Module], Callable[..., Tensor]]:
    def call(layer: torch.nn.Module) -> Callable[..., Tensor]:
        return lambda x, weight, value: torch.func.functional_call(
            layer, {name: value}, (x, EDGES, weight)
        )

    return call


def heat_layer(x: Tensor, weight: Tensor) -> Tensor:
    matrix = dense_step(dense_weight(EDGES, weight, N), 0.25)
    laplacian = (torch.eye(N, dtype=torch.float64) - matrix) / 0.25
    return torch.linalg.matrix_exp(-0.5 * laplacian) @ x


def heat_learned(x: Tensor, weight: Tensor, log_t: Tensor) -> Tensor:
    matrix = dense_step(dense_weight(EDGES, weight, N), 0.25)
    laplacian = (torch.eye(N, dtype=torch.float64) - matrix) / 0.25
    return torch.linalg.matrix_exp(-log_t.exp() * laplacian) @ x


HELD = torch.tensor([1, 4])


def held_ours(x: Tensor, bounds: Any = None) -> Tensor:
    return propagate(x, operator(), Recurrence.ppr(K, 0.2), fixed=HELD, bounds=bounds)


def held_dense(x: Tensor, bounds: Any = None) -> Tensor:
    matrix = dense_step(dense_weight(EDGES, WEIGHT, N), 0.25)
    kept = x[HELD] if bounds is None else x[HELD].clamp(*bounds)
    z = x.index_copy(0, HELD, kept)
    for _ in range(K):
        z = (0.8 * (matrix @ z) + 0.2 * x).index_copy(0, HELD, kept)
        z = z if bounds is None else z.clamp(*bounds)
    return z


def held_learned(x: Tensor, weight: Tensor, d: Tensor) -> Tensor:
    recurrence = Recurrence(K, a=0.5, c=0.2, d=d)
    return propagate(x, SparseOperator(EDGES, weight, num_nodes=N), recurrence, fixed=HELD)


def held_learned_dense(x: Tensor, weight: Tensor, d: Tensor) -> Tensor:
    matrix, z = dense_weight(EDGES, weight, N), x
    for k in range(K):
        z = (0.5 * (matrix @ z) + d[k] * z + 0.2 * x).index_copy(0, HELD, x[HELD])
    return z


def network(x: Tensor, weight: Tensor) -> Tensor:
    """Diff-ResNet in evaluation, in the type of ``x``."""
    block, classifier = NETWORK.block.lin1, NETWORK.classifier
    h = x + (x @ block.weight.t().to(x) + block.bias.to(x)).relu()
    return euler(h @ classifier.weight.t().to(x) + classifier.bias.to(x), weight)


def views(x: Tensor, weight: Tensor) -> Tensor:
    matrix = dense_step(dense_weight(EDGES, weight, N), 0.5, "row")
    h = x @ VIEWS.encoder.weight.t().to(x)
    for _ in range(K):
        h = matrix @ h
    return h + VIEWS.bias.to(x)


def residual(x: Tensor) -> Tensor:
    first, second = BLOCK.lin1, BLOCK.lin2
    h = (x @ first.weight.t().to(x) + first.bias.to(x)).relu()
    return x + h @ second.weight.t().to(x) + second.bias.to(x)


def in_type(module: torch.nn.Module) -> Callable[..., Tensor]:
    """The module with its parameters in the type of its first argument."""

    def function(x: Tensor, *rest: Tensor) -> Tensor:
        parameters = {name: p.detach().to(x.dtype) for name, p in module.named_parameters()}
        graph = (EDGES,) if rest else ()
        return torch.func.functional_call(module, parameters, (x, *graph, *rest))

    return function


def agreement(logits: Tensor) -> Tensor:
    p = logits.softmax(-1)
    target = p.detach().mean(1).square()
    target = target / target.sum(-1, keepdim=True)
    return (p - target[:, None]).square().sum(-1).mean()


@torch.no_grad()
def labels(y: Tensor, weight: Tensor) -> Tensor:
    matrix, z = dense_weight(EDGES, weight, N), y
    for _ in range(K):
        z = (0.8 * (matrix @ z) + 0.2 * y).clamp(0, 1)
    return z


TRUTH = torch.tensor([1, 0])  # of the held nodes


@torch.no_grad()
def corrected(y: Tensor, weight: Tensor, autoscale: bool = True) -> Tensor:
    """Correct and smooth, step by step."""
    truth = torch.nn.functional.one_hot(TRUTH, 2).to(y)
    matrix = dense_weight(EDGES, weight, N)
    error = torch.zeros_like(y).index_copy(0, HELD, truth - y[HELD])
    z = error
    for _ in range(K):
        z = 0.7 * (matrix @ z) + 0.3 * error
        z = z.clamp(-1, 1) if autoscale else z.index_copy(0, HELD, error[HELD])
    if autoscale:
        scale = error[HELD].abs().sum() / len(HELD) / z.abs().sum(1, keepdim=True)
        z = torch.where(scale.isfinite() & (scale <= 1000), scale, 1.0) * z
    z = start = (y + z).index_copy(0, HELD, truth)
    for _ in range(K):
        z = (0.8 * (matrix @ z) + 0.2 * start).clamp(0, 1)
    return z


def of_labels(post: CorrectAndSmooth) -> Callable[..., Tensor]:
    return lambda y, w: post(y, TRUTH, HELD, EDGES, w)


def written(transform: Any, name: str = "x") -> Callable[..., Tensor]:
    """What a transform writes."""

    def function(x: Tensor, weight: Tensor | None = None) -> Tensor:
        return transform(Data(x=x, edge_index=EDGES, edge_weight=weight))[name]

    return function


def a_number(metric: Callable[..., float]) -> Callable[[Tensor], Tensor]:
    """What a metric of classes returns, as a Tensor."""
    return lambda x: torch.tensor(metric(x, CLASSES), dtype=x.dtype, device="cpu")


def normalized(x: Tensor, weight: Tensor, steps: int) -> Tensor:
    matrix = dense_weight(EDGES, weight, N)
    degree = matrix.sum(1)
    inverse = torch.where(degree > 0, degree, 1.0).rsqrt() * (degree > 0)
    return torch.linalg.matrix_power(inverse[:, None] * matrix * inverse, steps) @ x


CLASSES = torch.arange(N) % 3


def ratio(x: Tensor) -> Tensor:
    distance, same = torch.cdist(x, x), CLASSES[:, None] == CLASSES
    return distance[~same].min() / distance[same].max()


def share(x: Tensor) -> Tensor:
    means = torch.stack([x[CLASSES == c].mean(0) for c in range(3)])[CLASSES]
    return (means - x.mean(0)).square().sum() / (x - x.mean(0)).square().sum()


def streamed(x: Tensor) -> Tensor:
    with tempfile.TemporaryDirectory() as folder:
        out = diffuse_features(x, operator(), K, f"{folder}/out.npy")
        return torch.from_numpy(out.copy()).to(x.dtype)


def attention_dense(x: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Two heads of three, self-loops replaced by one of each node."""
    q, k = ((x @ w.mT).unflatten(-1, (2, 3)).movedim(-2, -3) for w in (query, key))
    scores = (q @ k.mT) / 3**0.5
    count = torch.zeros(N, N, dtype=x.dtype).index_put(
        (EDGES[1], EDGES[0]), x.new_ones(EDGES.size(1)), True
    )
    count = torch.where(torch.eye(N, dtype=torch.bool), 1.0, count)
    shares = count * (scores - scores.detach().amax(-1, keepdim=True)).exp()
    matrix = (shares / shares.sum(-1, keepdim=True)).mean(-3)
    for _ in range(K):
        x = x + 0.25 * (matrix @ x - x)
    return x


def attention_of(layer: torch.nn.Module) -> Callable[..., Tensor]:
    names = ("lin_query.weight", "lin_key.weight")
    return lambda x, *weights: torch.func.functional_call(
        layer, dict(zip(names, weights, strict=True)), (x, EDGES)
    )


def joint_attention(x: Tensor, weight: Tensor) -> Tensor:
    x, edges = x.unsqueeze(1), EdgeList(EDGES, N)
    return edge_attention(x, x, edges, x, score="joint", weight=weight).squeeze(1)


def joint_attention_dense(x: Tensor, weight: Tensor) -> Tensor:
    pairs = torch.nn.functional.leaky_relu(x.unsqueeze(-2) + x.unsqueeze(-3), 0.2)
    count = torch.zeros(N, N, dtype=x.dtype).index_put(
        (EDGES[1], EDGES[0]), x.new_ones(EDGES.size(1)), True
    )
    shares = count * (pairs * weight).sum(-1).exp()
    total = shares.sum(-1, keepdim=True)
    return (shares / torch.where(total > 0, total, 1.0)) @ x


X = features(N, 2)
torch.manual_seed(0)
ATTENTION = AttentionDiffusion(2, 3, 2, K)
NETWORK, VIEWS = DiffResNet(2, 3, K, 0.25).eval(), RandomPropagation(2, 3, num_steps=K).eval()
BLOCK = ResidualBlock(2, num_layers=2)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the beta state of sparse CSR
    SPARSE = {
        dtype: dense_weight(EDGES, WEIGHT, N).to(dtype).to_sparse_csr()
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    }
DERIVATIVES = (
    *("backward", "backward twice", "func.grad", "vjp", "jvp", "jacrev", "jacfwd"),
    *("hessian", "jacfwd twice", "jacrev twice", "vmap of grad"),
)
NOT_COMPILED = dict.fromkeys(("compile, one graph", "export"), "cannot be part of an? .* graph: ")
SEARCH = "Neighbors cannot be searched under vmap"
NEIGHBORS = dict.fromkeys(("vmap", "vmap, all", "vmap of grad"), SEARCH) | NOT_COMPILED
A_NUMBER = dict.fromkeys((*DERIVATIVES[2:], "vmap", "vmap, all"), "no transform follows")
OF_DATA = {"compile, one graph": "torch.compile does not make PyG's Data"}
A_FLOAT = dict.fromkeys(
    ("compile, one graph", "export"), "it returns no Tensor, or writes a file: no part of a graph"
)
COEFFICIENTS = features(K + 1)
THETA = features(4, 2)
WEIGHTS = {dtype: WEIGHT.to(dtype) for dtype in SPARSE}

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
        refuses=NOT_COMPILED,
    ),
    Case(
        "operator @ x",
        lambda x, w: SparseOperator(EDGES, w, num_nodes=N) @ x,
        lambda x, w: dense_weight(EDGES, w, N) @ x,
        (X, WEIGHT),
        beside={"compile, one graph": "torch.compile does not see @ of an object"},
    ),
    of_module("DiffConv", DiffConv(K), of_graph, euler, (X, WEIGHT)),
    of_module(
        "DiffConv, cached",
        torch.nn.ModuleList(DiffConv(K, cached=True) for _ in SPARSE),
        lambda layers: lambda x: layers[[*SPARSE].index(x.dtype)](x, EDGES, WEIGHTS[x.dtype]),
        lambda x: euler(x, WEIGHT),
        (X,),
    ),
    of_module(
        "DiffConv, learned step",
        DiffConv(K, learn_step_size=True),
        with_parameter("step_size"),
        euler,
        (X, WEIGHT, torch.tensor(0.3).double()),
    ),
    of_module("APPNP", APPNP(K, 0.2), of_graph, appnp, (X, WEIGHT)),
    of_module("GPRConv", GPRConv(K), with_parameter("gamma"), powers, (X, WEIGHT, COEFFICIENTS)),
    of_module(
        "SGConv",
        SGConv(2, 4, K, bias=False),
        with_parameter("lin.weight"),
        sgc,
        (X, WEIGHT, THETA),
        autocast=torch.bfloat16,
    ),
    of_module(
        "SSGConv",
        SSGConv(2, 4, 0.1, K, bias=False),
        with_parameter("lin.weight"),
        ssgc,
        (X, WEIGHT, THETA),
        autocast=torch.bfloat16,
    ),
    of_module(
        "HeatConv",
        HeatConv(0.5, tol=1e-13),
        of_graph,
        heat_layer,
        (X, WEIGHT),
        refuses=NOT_COMPILED,
    ),
    Case(
        "knn_graph, distances",
        distances,
        distances_dense,
        (features(N, 3),),
        refuses=NEIGHBORS,
    ),
    Case(
        "gaussian_knn_graph",
        lambda x: gaussian_knn_graph(x, 3, 1.0)[1],
        gaussian_dense,
        (features(N, 3),),
        refuses=NEIGHBORS,
    ),
    Case(
        "gaussian_knn_graph, local and symmetric",
        gaussian_symmetric,
        gaussian_symmetric_dense,
        (features(N, 3),),
        refuses=NEIGHBORS,
    ),
    Case("propagate, held rows", held_ours, held_dense, (X,)),
    Case(
        "propagate, held rows and bounds",
        lambda x: held_ours(x, (-0.5, 0.5)),
        lambda x: held_dense(x, (-0.5, 0.5)),
        (X,),
    ),
    Case(
        "propagate, held rows, all learned",
        held_learned,
        held_learned_dense,
        (X, WEIGHT, COEFFICIENTS[:K]),
    ),
    Case(
        "sparse_mm",
        lambda x: sparse_mm(SPARSE[x.dtype], x),
        lambda x: SPARSE[torch.float64].to_dense() @ x,
        (X,),
        refuses=dict.fromkeys(
            (
                *DERIVATIVES,
                "inference first",
                "vmap",
                "vmap, all",
                "requires_grad",
                "jacobian, vectorized",
            ),
            "no gradient passes",
        )
        | NOT_COMPILED,
        constant=True,
    ),
    of_module(
        "HeatConv, learned time",
        HeatConv(0.5, learn_t=True, tol=1e-13),
        with_parameter("log_t"),
        heat_learned,
        (X, WEIGHT, torch.tensor(-0.3).double()),
        refuses=NOT_COMPILED,
    ),
    of_module(
        "AttentionDiffusion",
        ATTENTION,
        attention_of,
        attention_dense,
        (X, features(6, 2), features(6, 2).flip(0)),
    ),
    Case("edge_attention", joint_attention, joint_attention_dense, (X, features(1, 2))),
    of_module("DiffResNet", NETWORK, in_type, network, (X, WEIGHT), autocast=torch.bfloat16),
    of_module("RandomPropagation", VIEWS, in_type, views, (X, WEIGHT), autocast=torch.bfloat16),
    of_module("ResidualBlock", BLOCK, in_type, residual, (X,)),
    Case("consistency", lambda x: consistency(x, 0.5), agreement, (features(N, 2, 3),)),
    Case(
        "dirichlet_energy",
        lambda x, w: dirichlet_energy(x, EDGES, w),
        lambda x, w: (w * (x[EDGES[0]] - x[EDGES[1]]).square().sum(1)).sum() / 2,
        (X, WEIGHT),
    ),
    of_module(
        "LabelPropagation",
        LabelPropagation(K, 0.8),
        lambda layer: lambda y, w: layer(y, EDGES, edge_weight=w),
        labels,
        (features(N, 2).sigmoid(), WEIGHT),
        constant=True,
    ),
    of_module(
        "CorrectAndSmooth",
        CorrectAndSmooth(K, 0.7, K, 0.8),
        of_labels,
        corrected,
        (features(N, 2).sigmoid(), WEIGHT),
        constant=True,
    ),
    of_module(
        "CorrectAndSmooth, fixed scale",
        CorrectAndSmooth(K, 0.7, K, 0.8, autoscale=False),
        of_labels,
        lambda y, w: corrected(y, w, False),
        (features(N, 2).sigmoid(), WEIGHT),
        constant=True,
    ),
    Case(
        "PersonalizedPageRank",
        written(PersonalizedPageRank(0.2, K)),
        torch.no_grad()(appnp),
        (X, WEIGHT),
        beside=OF_DATA,
        constant=True,
    ),
    Case(
        "SIGN",
        written(SIGN([1, K]), f"x{K}"),
        torch.no_grad()(lambda x, w: normalized(x, w, K)),
        (X, WEIGHT),
        beside=OF_DATA,
        constant=True,
    ),
    Case(
        "Heat",
        written(Heat(0.5, tol=1e-13)),
        torch.no_grad()(heat_layer),
        (X, WEIGHT),
        refuses={"export": NOT_COMPILED["export"]},
        beside=OF_DATA,
        constant=True,
    ),
    Case(
        "GaussianKNNGraph",
        written(GaussianKNNGraph(3, 1.0), "edge_weight"),
        gaussian_dense,
        (features(N, 3),),
        refuses=NEIGHBORS,
        beside=OF_DATA,
    ),
    Case(
        "distance_diameter_ratio",
        a_number(distance_diameter_ratio),
        ratio,
        (X,),
        refuses=A_NUMBER,
        beside=A_FLOAT,
        constant=True,
    ),
    Case(
        "separability",
        a_number(separability),
        share,
        (X,),
        refuses=A_NUMBER,
        beside=A_FLOAT,
        constant=True,
    ),
    Case(
        "diffuse_features",
        streamed,
        lambda x: euler(x, WEIGHT),
        (X,),
        refuses=A_NUMBER,
        beside=A_FLOAT,
        constant=True,
    ),
]

# every layer and model in training, with what it takes beside features and a graph
LAYERS: dict[str, tuple[torch.nn.Module, dict[str, Any]]] = {
    "DiffConv": (DiffConv(K, dropout=P), {}),
    "DiffConv, learned step": (DiffConv(K, learn_step_size=True), {}),
    "APPNP": (APPNP(K, 0.2, dropout=P), {}),
    "GPRConv": (GPRConv(K), {}),
    "HeatConv": (HeatConv(0.5, learn_t=True), {}),
    "AttentionDiffusion": (AttentionDiffusion(2, num_steps=K), {}),
    "SGConv": (SGConv(2, 4, K), {}),
    "SSGConv": (SSGConv(2, 4, 0.1, K), {}),
    "DiffResNet": (DiffResNet(2, 3, K, 0.25), {}),
    "RandomPropagation": (RandomPropagation(2, 3, num_steps=K), {}),
    "LabelPropagation": (LabelPropagation(K, 0.8), {"mask": HELD}),
    "CorrectAndSmooth": (CorrectAndSmooth(K, 0.7, K, 0.8), {"y_true": TRUTH, "mask": HELD}),
}
