"""The first layer: sparse input equals dense, dropout included, to every derivative."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, grad, jvp, vmap

from torch_geometric_diff.nn import sparse_linear as linear_module
from torch_geometric_diff.nn.sparse_linear import Linear
from torch_geometric_diff.ops import sparse_mm


def words(rows: int = 19, columns: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(rows, columns, dtype=torch.float64, generator=generator)
    x = x * (x < 0.3)
    x[4] = 0.0
    return x


def layer(**options) -> Linear:
    torch.manual_seed(1)
    return Linear(30, 5, **options).double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("requires", [True, False])
def test_sparse_equals_dense(bias: bool, requires: bool) -> None:
    linear, x = layer(bias=bias).requires_grad_(requires), words()
    out, expected = linear(x.to_sparse_csr()), x @ linear.weight.t()
    expected = expected + linear.bias if bias else expected
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(linear(x), expected)
    assert out.requires_grad == requires


def test_the_stored_entries_are_dropped() -> None:
    linear, x = layer(dropout=0.4), words()
    csr = x.to_sparse_csr()
    torch.manual_seed(2)
    values = F.dropout(csr.values(), 0.4)
    dense = torch.sparse_csr_tensor(csr.crow_indices(), csr.col_indices(), values, csr.shape)
    dense = dense.to_dense()
    assert 0.2 < (values == 0).double().mean() < 0.6
    for _ in range(2):  # the second time with what the matrix keeps
        torch.manual_seed(2)
        out = linear(csr)
        torch.testing.assert_close(out, dense @ linear.weight.t() + linear.bias)
        (gradient,) = torch.autograd.grad(out.square().sum(), linear.weight)
        torch.testing.assert_close(gradient, 2 * out.detach().t() @ dense)
    assert torch.equal(linear.eval()(csr), linear(csr))
    torch.testing.assert_close(linear(csr), linear(x))


def test_derivatives_of_any_order() -> None:
    linear, csr = layer(), words().to_sparse_csr()

    def apply(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional_call(linear, {"weight": weight, "bias": bias}, (csr,))

    state = tuple(p.detach().clone().requires_grad_() for p in (linear.weight, linear.bias))
    assert torch.autograd.gradcheck(apply, state, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda *s: apply(*s).sin(), state)


def test_function_transforms() -> None:
    linear, x = layer(), words()
    csr, weight = x.to_sparse_csr(), linear.weight.detach().clone()

    def loss(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return functional_call(linear, {"weight": weight}, (x,)).square().sum()

    # a sparse matrix is no argument of a transform, in torch itself
    by_form = [grad(lambda w, x=form: loss(w, x))(weight) for form in (csr, x)]
    torch.testing.assert_close(*by_form)
    many = torch.stack([weight, 2 * weight, -weight])
    sparse, dense = (vmap(grad(lambda w, x=form: loss(w, x)))(many) for form in (csr, x))
    torch.testing.assert_close(sparse, dense)
    sparse, dense = (jvp(lambda w, x=form: loss(w, x), (weight,), (weight,)) for form in (csr, x))
    torch.testing.assert_close(sparse, dense)


@pytest.mark.parametrize("dims", [(0, None), (None, 0), (0, 0)])
def test_vmap_over_either_parameter(dims: tuple[int | None, int | None]) -> None:
    linear, csr = layer(), words().to_sparse_csr()

    def apply(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return functional_call(linear, {"weight": weight, "bias": bias}, (csr,))

    single = [linear.weight.detach(), linear.bias.detach()]
    double = [2 * parameter for parameter in single]
    many, alone = list(single), [list(single), list(single)]
    for i, dim in enumerate(dims):
        if dim is not None:
            many[i], alone[1][i] = torch.stack([single[i], double[i]]), double[i]
    expected = torch.stack([apply(*each) for each in alone])
    torch.testing.assert_close(vmap(apply, dims)(*many), expected)


def test_a_change_in_place_is_noticed() -> None:
    linear, csr = layer(), words().to_sparse_csr()
    linear(csr).sum().backward()
    first = linear.weight.grad.clone()
    csr.values().mul_(2)
    linear.zero_grad()
    linear(csr).sum().backward()
    torch.testing.assert_close(linear.weight.grad, 2 * first)


@pytest.mark.parametrize("bias", [True, False])
def test_from_dense_shares_the_parameters_and_draws_nothing(bias: bool) -> None:
    dense, x = torch.nn.Linear(30, 5, bias).double(), words()
    state = torch.get_rng_state()
    linear = Linear.from_dense(dense, dropout=0.5).eval()
    assert torch.equal(state, torch.get_rng_state())
    assert linear.weight is dense.weight and linear.bias is dense.bias
    torch.testing.assert_close(linear(x.to_sparse_csr()), dense(x))
    assert "dropout=0.5" in repr(linear) and "dropout" not in repr(layer())


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="'dropout'"):
        Linear(3, 2, dropout=1.5)
    with pytest.raises(ValueError, match="constant 'input'"):
        layer()(words().to_sparse_csr().requires_grad_())


def test_sparse_input_within_torch_compile() -> None:
    torch._dynamo.reset()
    linear, x = Linear(5, 3), torch.eye(5).to_sparse_csr()
    compiled = torch.compile(linear, backend="eager")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch looks at '.grad' of what is no leaf
        torch.testing.assert_close(compiled(x), linear(x))
    product = torch.compile(lambda dense: sparse_mm(x, dense + 1), backend="eager")
    assert torch.equal(product(torch.ones(5, 2)), 2 * torch.ones(5, 2))


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_transpose_in_blocks(dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "BLOCK_ROWS", 100)
    linear, x = layer(dropout=dropout), words(1030)
    csr = x.to_sparse_csr()
    torch.manual_seed(2)
    out = linear(csr)
    torch.manual_seed(2)
    values = F.dropout(csr.values(), dropout)
    dense = torch.sparse_csr_tensor(csr.crow_indices(), csr.col_indices(), values, csr.shape)
    (gradient,) = torch.autograd.grad(out.square().sum(), linear.weight)
    blocks = linear_module._computed.get(linear_module._transpose_blocks, csr)
    assert len(blocks) > 2
    torch.testing.assert_close(gradient, 2 * out.detach().t() @ dense.to_dense())
