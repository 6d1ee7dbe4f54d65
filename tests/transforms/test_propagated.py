import copy

import pytest
import torch
import torch_geometric.nn as pyg
import torch_geometric.transforms as T
from dense import as_form, random_graph
from torch_geometric.data import Data

from torch_geometric_diff import nn
from torch_geometric_diff.transforms import SIGN, Heat, PersonalizedPageRank

N, F = 23, 4


def data(weighted=True):
    edge_index, weight = random_graph(N, 60)
    torch.manual_seed(0)
    weight = weight.float() if weighted else None
    return Data(x=torch.randn(N, F), edge_index=edge_index, edge_weight=weight)


@pytest.mark.parametrize("weighted", [True, False])
def test_sign_equals_pyg(weighted):
    expected = T.SIGN(3)(data(weighted))
    out = SIGN(3)(data(weighted))
    for k in (1, 2, 3):
        torch.testing.assert_close(out[f"x{k}"], expected[f"x{k}"])
    assert torch.equal(out.x, data().x)
    some = SIGN([2, 1], attr="x")(data(weighted))
    assert "x3" not in some and torch.equal(some.x2, out.x2) and torch.equal(some.x1, out.x1)
    assert repr(SIGN(2)) == "SIGN(K=[1, 2])"


@pytest.mark.parametrize("weighted", [True, False])
def test_page_rank_and_heat_equal_the_layers(weighted):
    given = data(weighted)
    arguments = (given.x, given.edge_index, given.edge_weight)
    out = PersonalizedPageRank(0.2, 5)(copy.copy(given))
    torch.testing.assert_close(out.x, pyg.APPNP(5, 0.2)(*arguments))
    out = Heat(3.0)(copy.copy(given))
    torch.testing.assert_close(out.x, nn.HeatConv(3.0)(*arguments))
    out = T.Compose([Heat(1.0), PersonalizedPageRank()])(copy.copy(given))
    assert out.x.shape == (N, F)
    assert repr(PersonalizedPageRank()) == "PersonalizedPageRank(alpha=0.1, K=10)"
    assert repr(Heat(2)) == "Heat(t=2, tol=1e-06)"


def test_sparse_adjacency_and_double():
    given = data()
    expected = PersonalizedPageRank(add_self_loops=False)(copy.copy(given)).x
    adj_t = as_form("csr", given.edge_index, given.edge_weight.double(), N)[0]
    out = PersonalizedPageRank(add_self_loops=False)(Data(x=given.x.double(), adj_t=adj_t)).x
    assert out.dtype == torch.float64
    torch.testing.assert_close(out.float(), expected)


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: SIGN(0), ValueError, r"'K' .* \(got 0\)"),
        (lambda: SIGN([1, 0]), ValueError, r"'K' .* \(got 0\)"),
        (lambda: SIGN([]), ValueError, r"'K' .* \(got \[\]\)"),
        (lambda: SIGN(1.5), TypeError, r"'K' .* \(got 1.5\)"),
        (lambda: PersonalizedPageRank(1.5), ValueError, r"'alpha' .* \(got 1.5\)"),
        (lambda: Heat(-1), ValueError, r"'t' .* \(got -1\)"),
        (lambda: Heat(tol=2), ValueError, r"'tol' .* \(got 2\)"),
        (lambda: SIGN(1)(Data(edge_index=data().edge_index)), ValueError, "features in 'x'"),
        (lambda: Heat()(Data(x=data().x)), ValueError, "'edge_index' or 'adj_t'"),
    ],
)
def test_bad_input(make, error, text):
    with pytest.raises(error, match=text):
        make()
