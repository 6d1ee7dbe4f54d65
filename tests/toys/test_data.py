"""The points lie where the paper lays them."""

import pytest
import torch
from numpy.random import RandomState

from toys.data import two_circle, two_moon, two_spiral, xor

DRAWS = [two_moon, two_circle, two_spiral, xor]


@pytest.mark.parametrize("draw", DRAWS)
def test_counts_and_seeds(draw):
    x, y = draw(403, 0.1, RandomState(0))
    assert x.shape == (403, 2) and x.dtype == torch.float32 and y.dtype == torch.int64
    sizes = torch.bincount(y)
    assert sizes.sum() == 403 and sizes.max() - sizes.min() <= 1
    assert torch.equal(draw(403, 0.1, RandomState(0))[0], x)
    assert not torch.equal(draw(403, 0.1, RandomState(1))[0], x)


def test_shapes_without_noise():
    x, y = two_moon(100, 0.0, RandomState(0))
    torch.testing.assert_close(x[y == 0].norm(dim=1), torch.ones(50))
    torch.testing.assert_close((x[y == 1] - torch.tensor([1.0, 0.5])).norm(dim=1), torch.ones(50))
    assert x[y == 0, 1].min() > -1e-6 and x[y == 1, 1].max() < 0.5 + 1e-6

    x, y = two_circle(100, 0.0, RandomState(0))
    torch.testing.assert_close(x.norm(dim=1), 2.0 - y)

    x, y = two_spiral(100, 0.0, RandomState(0))
    torch.testing.assert_close(x[y == 0], -x[y == 1])
    radius = x[y == 0].norm(dim=1)
    torch.testing.assert_close(radius, torch.linspace(1, 1 + 2 * torch.pi, 50))

    x, y = xor(400, 0.0, RandomState(0))
    corners = torch.tensor([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0]])
    radius = (x - corners[y]).norm(dim=1)
    assert radius.max() <= 0.75
    assert radius.square().mean() == pytest.approx(0.75**2 / 2, rel=0.1)  # uniform on the disc


@pytest.mark.parametrize("draw", DRAWS)
def test_noise_has_its_deviation(draw):
    clean, noisy = (draw(1000, noise, RandomState(0))[0] for noise in (0.0, 0.2))
    assert float((noisy - clean).std()) == pytest.approx(0.2, rel=0.1)
