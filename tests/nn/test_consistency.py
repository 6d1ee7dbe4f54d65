"""The consistency of views against its formula, differentiated by torch."""

import pytest
import torch
from torch import Tensor

from torch_geometric_diff.nn import consistency


def reference(logits: Tensor, temperature: float) -> Tensor:
    p = logits.softmax(dim=-1)
    with torch.no_grad():
        q = p.mean(dim=1) ** (1 / temperature)
        q = q / q.sum(dim=-1, keepdim=True)
    return (p - q.unsqueeze(1)).square().sum(dim=-1).mean()


@pytest.mark.parametrize("temperature", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_value_and_gradient_equal_the_formula(temperature: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 4, 5, generator=generator, dtype=torch.float64) + shift
    logits.requires_grad_()
    values = [f(logits, temperature) for f in (consistency, reference)]
    gradients = [torch.autograd.grad(2.5 * value, logits)[0] for value in values]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_views_that_agree_and_are_sure_cost_nothing() -> None:
    logits = torch.tensor([1e4, 0.0, -1e4]).expand(7, 3, 3)  # no overflow either
    torch.testing.assert_close(consistency(logits), torch.tensor(0.0))
    opposed = torch.tensor([[[1e4, 0.0], [0.0, 1e4]]])  # each half a unit from (0.5, 0.5), twice
    torch.testing.assert_close(consistency(opposed), torch.tensor(0.5))


def test_refuses_what_it_cannot_take() -> None:
    with pytest.raises(ValueError, match=r"shape \[N, V, C\] \(got \[3, 2\], torch.float32\)"):
        consistency(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"'temperature' to be positive \(got 0\)"):
        consistency(torch.zeros(3, 2, 2), 0)
