"""Operators of unusual weights, types and places, and what may be done with one."""

import copy
import io
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from dense import dense_step, dense_weight, random_graph

from torch_geometric_diff import DiffusionOperator, diffuse
from torch_geometric_diff.nn import DiffConv
from torch_geometric_diff.ops import SparseOperator

EDGE = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    "weight, dtype",
    [
        (6e4, torch.float16),
        (3e38, torch.float32),
        (3e38, torch.bfloat16),
        (1e300, torch.float64),
        (6e-8, torch.float16),
        (1e-39, torch.float32),
        (1e-39, torch.bfloat16),
        (1e-310, torch.float64),
    ],
)
@pytest.mark.parametrize("normalization", ["sym", "row"])
def test_extreme_weights(weight, dtype, normalization, learned):
    # without loops, the scale of the weights does not matter
    expected = dense_step(dense_weight(EDGE, torch.ones(4).double(), 3), 0.5, normalization, False)
    operator = DiffusionOperator(
        EDGE,
        torch.full((4,), weight, dtype=dtype).requires_grad_(learned),
        step_size=0.5,
        normalization=normalization,
        add_self_loops=False,
    )
    assert operator.dtype == dtype
    tolerance = 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(operator.to_dense().double(), expected, atol=tolerance, rtol=0)
    assert 0.5 < operator.max_stable_step_size < 2.5


def test_degrees_of_half_precision_do_not_overflow():
    weight = torch.tensor([6e4, 6e4], dtype=torch.float16)
    keywords = {"step_size": 0.5, "normalization": "row", "add_self_loops": False}
    operator = DiffusionOperator(torch.tensor([[1, 2], [0, 0]]), weight, num_nodes=3, **keywords)
    assert diffuse(torch.tensor([[0.0], [1.0], [1.0]]), operator, 1)[0].item() == 0.5


def test_bfloat16_warns_as_others_do():
    weight = torch.ones(4, dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match="largest stable step size of this graph is 0.6667"):
        DiffusionOperator(EDGE, weight, step_size=3.0, normalization=None)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    "weight, dtype, keywords",
    [
        (1e308, None, {"normalization": "row"}),  # the degree
        (1e308, None, {"normalization": "sym"}),
        (1e300, torch.float32, {"normalization": None}),  # the entry
        (1e6, torch.float16, {"normalization": None}),
    ],
)
def test_overflow_is_refused(weight, dtype, keywords, learned):
    index, weight = torch.tensor([[1, 2], [0, 0]]), torch.full((2,), weight, dtype=torch.float64)
    if learned and dtype is not None:
        return  # a learned entry may pass through any value
    with pytest.raises(ValueError, match=r"'edge_weight' whose sum.* finite .*\(got infinity\)"):
        DiffusionOperator(index, weight.requires_grad_(learned), dtype=dtype, **keywords)


def test_with_step_size_keeps_its_precision():
    edge_index, weight = random_graph(20, 60)
    weight = weight.float()
    tiny = DiffusionOperator(edge_index, weight, num_nodes=20, step_size=1e-7)
    expected = DiffusionOperator(edge_index, weight, num_nodes=20, step_size=0.25)
    for operator in (tiny.with_step_size(0.25), tiny.t().with_step_size(0.25).t()):
        torch.testing.assert_close(operator.to_dense(), expected.to_dense(), atol=1e-7, rtol=0)


def test_default_device_and_type_change_nothing():
    edge_index, weight = random_graph(20, 60)
    x = torch.randn(20, 3)
    learned = weight.clone().requires_grad_()

    def results():
        operators = [
            DiffusionOperator(edge_index, num_nodes=20, dtype=torch.float32),
            DiffusionOperator(edge_index, weight, num_nodes=20, normalization="row"),
            DiffusionOperator(edge_index, learned, num_nodes=20),
            SparseOperator.gcn_norm(edge_index, weight, num_nodes=20),
            SparseOperator.gcn_norm(edge_index, learned, num_nodes=20),
        ]
        operators += [operator.t() for operator in operators]
        operators += [operators[0].with_step_size(0.1)]
        outs = [diffuse(x, operator, 2, 0.3, seed=5) for operator in operators]
        torch.manual_seed(0)
        outs += [diffuse(x, operators[0], 2, 0.3)]  # a seed is drawn
        return outs + [operator.to_dense() for operator in operators]

    expected = results()
    torch.set_default_device("meta")
    try:
        found = results()
    finally:
        torch.set_default_device(None)
    for a, b in zip(found, expected, strict=True):
        assert a.device.type == "cpu" and torch.equal(a, b)


@pytest.mark.parametrize("undirected", [True, False])
def test_trained_after_inference_mode(undirected):
    edge_index, weight = random_graph(20, 60, undirected=undirected)
    x = torch.randn(20, 3, dtype=torch.float64)
    with torch.inference_mode():
        learned = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
        operator = DiffusionOperator(edge_index, weight, num_nodes=20)
        built_otherwise = DiffusionOperator(edge_index, weight, num_nodes=20, step_size=learned)
        conv = DiffConv(2, cached=True)
        for found in (diffuse(x, operator, 2), conv(x, edge_index, weight)):
            assert found.is_inference()
        scaled = operator.with_step_size(0.1)
    for act in (
        lambda x: diffuse(x, operator, 2),
        lambda x: diffuse(x, scaled, 2),
        lambda x: conv(x, edge_index, weight),
    ):
        leaf = x.clone().requires_grad_()
        act(leaf).square().sum().backward()
        assert leaf.grad.isfinite().all()
    assert not built_otherwise.value.requires_grad
    for op in (operator, built_otherwise):
        step_size = torch.tensor(0.1, requires_grad=True)
        diffuse(x, op.with_step_size(step_size), 2).square().sum().backward()
        assert step_size.grad.isfinite()


@pytest.mark.parametrize("kind", [DiffusionOperator, SparseOperator])
def test_copies(kind):
    edge_index, weight = random_graph(20, 60)
    operator = kind(edge_index, weight, num_nodes=20)
    operator.csr(transpose=True), operator.rows()
    file = io.BytesIO()
    torch.save(operator, file)
    file.seek(0)
    copies = [
        torch.load(file, weights_only=True),
        pickle.loads(pickle.dumps(operator)),
        copy.deepcopy(operator),
        copy.copy(operator),
    ]
    for other in copies:
        assert type(other) is kind and repr(other) == repr(operator)
        assert torch.equal(other.to_dense(), operator.to_dense())
        assert torch.equal(other.t().to_dense(), operator.t().to_dense())
        if kind is DiffusionOperator:
            assert other.max_stable_step_size == operator.max_stable_step_size
            assert torch.equal(other.with_step_size(0.1).value, operator.with_step_size(0.1).value)


def test_numbers_of_numpy():
    operator = DiffusionOperator(EDGE, num_nodes=np.int64(5), step_size=np.float32(0.125))
    assert operator.num_nodes == 5 and operator.step_size == 0.125
    assert type(operator.step_size) is float
    assert DiffusionOperator(EDGE, step_size=np.int64(1)).step_size == 1.0
    for keywords, name in [
        ({"step_size": True}, "step_size"),
        ({"step_size": "1"}, "step_size"),
        ({"num_nodes": True}, "num_nodes"),
        ({"num_nodes": 5.0}, "num_nodes"),
    ]:
        with pytest.raises(TypeError, match=f"'{name}' to be an? "):
            DiffusionOperator(EDGE, **keywords)
    with pytest.raises(ValueError, match="'num_nodes' .* negative"):
        DiffusionOperator(EDGE[:, :0], num_nodes=-1)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_build_refuses_a_bad_graph(backend):
    def act(x, edge_index, weight):
        operator = DiffusionOperator(edge_index, weight, num_nodes=4, normalization=None)
        return diffuse(x, operator, 1)

    compiled = torch.compile(act, backend=backend, fullgraph=True)
    x, weight, edge = torch.eye(4), torch.tensor([0.5]), torch.tensor([[3], [1]])
    torch.testing.assert_close(compiled(x, edge, weight), act(x, edge, weight))
    for bad, value in [
        (torch.tensor([[5], [1]]), 1.0),
        (torch.tensor([[1], [-1]]), 1.0),
        (edge, -1.0),
        (edge, math.nan),
        (edge, math.inf),
    ]:
        with pytest.raises(RuntimeError, match="Expected"):
            compiled(x, bad, torch.tensor([value]))


@pytest.mark.skipif(torch.__version__ < "2.9", reason="compiled and exported by torch 2.9 or newer")
def test_exported_build_refuses_a_bad_graph():
    module = torch.export.export(
        DiffConv(1, normalization=None), (torch.eye(4), torch.tensor([[3], [1]]))
    ).module()
    with pytest.raises(RuntimeError, match="Expected"):
        module(torch.eye(4), torch.tensor([[5], [1]]))


def test_no_edge_index_by_vmap():
    with pytest.raises(NotImplementedError, match="one 'edge_index'"):
        torch.vmap(lambda e: DiffusionOperator(e, num_nodes=3).value)(EDGE[None])


def test_no_warning_of_ours_when_weights_are_learned_and_stable():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DiffusionOperator(EDGE, torch.ones(4, requires_grad=True), step_size=0.9)


@pytest.mark.parametrize("index", [2**48, 2**62, 2**63 - 1])
def test_absurd_numbers_of_nodes(index):
    """An index that is garbage ends in an error, not beyond the memory that was asked for."""
    with pytest.raises(ValueError, match="at most 2\\^48 nodes"):
        DiffusionOperator(torch.tensor([[0], [index]]))
    with pytest.raises(ValueError, match="at most 2\\^48 nodes"):
        DiffusionOperator(torch.tensor([[0], [1]]), num_nodes=index + 1)
