"""Values that are not in memory: signs that torch puts off, and zeros."""

import copy

import pytest
import torch
from dense import dense_step, dense_weight, random_graph
from torch.func import jacfwd, jacrev

from torch_geometric_diff.graph import gaussian_knn_graph, knn_graph
from torch_geometric_diff.metrics import dirichlet_energy
from torch_geometric_diff.nn import APPNP, DiffConv, GPRConv, HeatConv, LabelPropagation
from torch_geometric_diff.ops import DiffusionOperator, diffuse, sparse_mm

N = 20
EDGES, WEIGHT = random_graph(N, 40)


def conjugate(*shape: int) -> torch.Tensor:
    x = torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    x = x.conj().imag
    assert x.is_neg()
    return x


def test_imaginary_parts_of_conjugates() -> None:
    x, operator = conjugate(N, 3), DiffusionOperator(EDGES, WEIGHT, num_nodes=N)
    matrix = torch.eye(N).double().to_sparse_csr()
    functions = [
        lambda x: diffuse(x, operator, 2),
        lambda x: DiffConv(2)(X, EDGES, x[:, 0].square().repeat(9)[: len(WEIGHT)]),
        lambda x: sparse_mm(matrix, x),
        lambda x: dirichlet_energy(x, EDGES),
        lambda x: knn_graph(x, 2, return_distances=True)[1],
        lambda x: gaussian_knn_graph(x, 3, 1.0, cosine=True)[1],
        lambda x: LabelPropagation(2, 0.9)(x.sigmoid(), EDGES),
    ]
    for function in functions:
        torch.testing.assert_close(function(x), function(x.resolve_neg()))
    for leaf in (x, x.resolve_neg()):
        weight = WEIGHT.clone().requires_grad_()
        out = diffuse(leaf, DiffusionOperator(EDGES, weight, num_nodes=N), 2)
        expected = torch.linalg.matrix_power(dense_step(dense_weight(EDGES, weight, N), 0.25), 2)
        found, right = (
            torch.autograd.grad((y * x).square().sum(), weight)[0] for y in (out, expected @ leaf)
        )
        torch.testing.assert_close(found, right)


X = torch.randn(N, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_tangents_that_are_zero(kernel: str) -> None:
    """Of a factor beside everything else, nested: torch keeps no memory for some of them."""

    def ours(s: torch.Tensor) -> torch.Tensor:
        return DiffConv(3)(X * s, EDGES, WEIGHT * s).sin().sum()

    def dense(s: torch.Tensor) -> torch.Tensor:
        matrix = dense_step(dense_weight(EDGES, WEIGHT * s, N), 0.25)
        return (torch.linalg.matrix_power(matrix, 3) @ (X * s)).sin().sum()

    s = torch.tensor(0.7, dtype=torch.float64)
    for derivative in (
        lambda f: jacfwd(jacfwd(f)),
        lambda f: jacfwd(jacrev(jacfwd(f))),
        lambda f: jacfwd(jacfwd(jacfwd(f))),
    ):
        torch.testing.assert_close(derivative(ours)(s), derivative(dense)(s))


@pytest.mark.parametrize("layer", [DiffConv(2), APPNP(2, 0.1), GPRConv(2), HeatConv(0.5)], ids=repr)
def test_what_has_no_values_is_named(layer) -> None:
    x, edge_index = torch.randn(2, 3), torch.tensor([[0, 1], [1, 0]])
    for name, *given in (("x", x.to("meta"), edge_index), ("edge_index", x, edge_index.to("meta"))):
        with pytest.raises(ValueError, match=f"'{name}' to have values .got .* device 'meta'"):
            layer(*given)
    with pytest.raises(ValueError, match="'edge_weight' to have values"):
        layer(x, edge_index, torch.ones(2, device="meta"))


@pytest.mark.parametrize(
    ("layer", "name"), [(DiffConv(2, learn_step_size=True), "step_size"), (GPRConv(2), "gamma")]
)
def test_parameters_without_values_are_named(layer, name) -> None:
    with pytest.raises(ValueError, match=f"'{name}' to have values"):
        copy.deepcopy(layer).to("meta")(torch.randn(2, 3), torch.tensor([[0, 1], [1, 0]]))
