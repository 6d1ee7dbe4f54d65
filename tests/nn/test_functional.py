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


def test_classes_far_below_the_others_change_nothing() -> None:
    logits = torch.tensor([[[100.0, 95.0, -1000.0], [0.0, 9.0, -1000.0]]], requires_grad=True)
    values = [f(logits, 0.5) for f in (consistency, reference)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*[torch.autograd.grad(value, logits)[0] for value in values])


@pytest.mark.parametrize("temperature", [1e-3, 0.02])
def test_a_low_temperature_does_not_underflow(temperature: float) -> None:
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))
    mean = logits.softmax(dim=-1).mean(dim=1)
    target = (mean.log() / temperature).softmax(dim=-1).unsqueeze(1)
    expected = (logits.softmax(dim=-1) - target).square().sum(dim=-1).mean()
    torch.testing.assert_close(consistency(logits, temperature), expected)


def test_half_precision_does_not_overflow() -> None:
    logits = torch.tensor([[[30.0, -30.0], [30.0, -30.0]], [[0.0, 1.0], [1.0, 0.0]]])
    for dtype in (torch.float16, torch.bfloat16):
        out = consistency(logits.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), consistency(logits), atol=1e-2, rtol=0)


def test_second_derivatives() -> None:
    logits = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)

    def twice(function) -> Tensor:
        loss = function(logits, 0.5)
        (first,) = torch.autograd.grad(loss, logits, create_graph=True)
        return torch.autograd.grad(loss + first.square().sum(), logits)[0]

    torch.testing.assert_close(twice(consistency), twice(reference))


def test_refuses_what_it_cannot_take() -> None:
    with pytest.raises(ValueError, match=r"shape \[N, V, C\] \(got \[3, 2\], torch.float32\)"):
        consistency(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"'temperature' to be positive \(got 0\)"):
        consistency(torch.zeros(3, 2, 2), 0)


@pytest.mark.parametrize("trust", [0.0, 0.5, 1.0])
def test_targets_keep_to_shares(trust: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 4, 3, generator=generator, dtype=torch.float64)
    logits[..., 0] += 1  # a large class, which sharpening makes larger
    logits.requires_grad_()
    prior = torch.tensor([0.2, 0.3, 0.5])
    p = logits.softmax(dim=-1)
    mean = p.detach().mean(dim=1)
    q = mean**2 / (mean**2).sum(dim=1, keepdim=True)
    sharpened = q.mean(dim=0)
    shares = sharpened**trust * prior.double() ** (1 - trust)
    shares = shares / shares.sum()
    for _ in range(3):
        q = q * shares / q.mean(dim=0)
        q = q / q.sum(dim=1, keepdim=True)
    allowed = 0.2 * (sharpened - shares).abs().max() + 1e-9
    assert (q.mean(dim=0) - shares).abs().max() < allowed
    expected = (p - q.unsqueeze(1)).square().sum(dim=-1).mean()
    value = consistency(logits, 0.5, prior, trust)
    torch.testing.assert_close(value, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (value, expected)]
    torch.testing.assert_close(*gradients)


def test_refuses_other_priors() -> None:
    views = torch.zeros(3, 2, 4)
    with pytest.raises(ValueError, match=r"'prior' of shape \[4\].*got \[3\]"):
        consistency(views, prior=torch.ones(3))
    with pytest.raises(ValueError, match=r"'trust' to lie in \[0, 1\] \(got 2\)"):
        consistency(views, prior=torch.ones(4) / 4, trust=2)
