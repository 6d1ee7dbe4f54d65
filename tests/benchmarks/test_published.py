"""Published models before and after one line: outputs, gradients, checkpoints."""

import copy

import pytest
import torch
from dense import random_graph
from torch import Tensor

from benchmarks.speed.published import MODELS, Perceptron
from torch_geometric_diff import accelerate
from torch_geometric_diff.acceleration import _graphs

N, CHANNELS, CLASSES = 40, 12, 3


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small graph is worth a matrix at its first sight."""
    monkeypatch.setattr(_graphs, "TINY", 0)
    monkeypatch.setattr(_graphs, "PAYS", 1)


def results(model: torch.nn.Module, x: Tensor, edge_index: Tensor) -> list[Tensor]:
    """The outputs and all gradients in one row, with the same random numbers in every call."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    out = model(x, edge_index)
    grads = torch.autograd.grad(
        out.square().sum(), [x, *model.parameters()], allow_unused=True, materialize_grads=True
    )
    if isinstance(model, Perceptron):
        mask = torch.arange(N) % 2 == 0
        out = model.post(out.softmax(-1), torch.arange(N // 2) % CLASSES, mask, edge_index)
    return [out, torch.cat([grad.flatten() for grad in grads])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    edge_index, _ = random_graph(N, 160, 0)
    x = torch.rand(N, CHANNELS, dtype=dtype)
    plain = MODELS[name](CHANNELS, CLASSES).to(dtype)
    model = copy.deepcopy(plain)
    report = accelerate(model)
    assert report.replaced and not report.left
    training = (False,) if name == "GAT" else (False, True)  # its kernel drops others
    for each in training:
        plain.train(each), model.train(each)
        found, expected = (results(m, x, edge_index) for m in (model, plain))
        tolerance = 1e-5 if dtype == torch.float32 else 1e-12
        for one, other in zip(found, expected, strict=True):
            size = float(other.detach().abs().max())
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * size)
    model.load_state_dict(plain.state_dict())
    plain.load_state_dict(model.state_dict())
