import itertools
import math
from dataclasses import replace

import pytest
import torch

from fewshot.methods import HeatPrototypes
from fewshot.methods.heat import _log_sizes, within_metric
from fewshot.tasks import TaskSampler
from fewshot.weights import gaussian_weights, heat_kernel


@pytest.fixture(scope="module")
def pool() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(8).repeat_interleave(90)
    centers = torch.randn(8, 24, generator=generator)
    return (centers[labels] + torch.randn(720, 24, generator=generator)).relu(), labels


def accuracy(prior, sampler, mean):
    method = HeatPrototypes(prior=prior)
    tasks = method.prepare(sampler(0, 20), mean)
    return (method.predict(tasks) == tasks.query_labels).float().mean().item()


def test_the_heat_kernel_is_the_sum_of_all_steps():
    w = gaussian_weights(torch.randn(2, 30, 4, dtype=torch.float64))
    scale = w.sum(-1).rsqrt()
    s = w * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    steps = sum(0.7**k * torch.matrix_power(s, k) for k in range(120))
    assert torch.allclose(heat_kernel(w, 0.7), 0.3 * steps, atol=1e-12)


def test_the_probabilities_of_class_sizes_sum_to_one():
    """Over all labelings of five points by three classes, and by closed forms."""
    sizes = torch.tensor(
        [[labels.count(c) for c in range(3)] for labels in itertools.product(range(3), repeat=5)]
    )
    assert _log_sizes(sizes.double(), 2.0).exp().sum().item() == pytest.approx(1.0)
    six = torch.tensor([2.0, 2.0, 2.0], dtype=torch.float64)
    ways = math.factorial(6) / math.factorial(2) ** 3
    assert _log_sizes(six, None).exp().item() == pytest.approx(1 / ways)


def test_balanced_prior_gives_balanced_shares(pool):
    tasks = TaskSampler(*pool, seed=0)(0, 4)
    points = torch.nn.functional.normalize(tasks.points, dim=-1)
    labels = torch.nn.functional.one_hot(tasks.support_labels).float().T
    kernel = heat_kernel(gaussian_weights(tasks.points), 0.8)
    for rounds, atol in ((1, 0.05), (3, 0.15)):  # as near as Sinkhorn's last 40 iterations come
        method = HeatPrototypes(prior="balanced", rounds=rounds)
        shares, _ = method._fit(points @ points.mT, kernel, labels, "balanced")
        assert torch.allclose(shares.sum(1), torch.ones(4, 75), atol=1e-5)
        assert torch.allclose(shares.sum(2), torch.full((4, 5), 15.0), atol=atol)


def test_the_metric_whitens_the_covariance_inside_the_classes():
    """Against the covariance of the features themselves."""
    x = torch.randn(2, 30, 6, dtype=torch.float64)
    weight = torch.rand(2, 3, 30, dtype=torch.float64)
    mean = weight @ x / weight.sum(2, keepdim=True)
    off = (x.unsqueeze(1) - mean.unsqueeze(2)) * weight.sqrt().unsqueeze(3)
    covariance = (off.mT @ off).sum(1) / weight.sum((1, 2))[:, None, None]
    trace = covariance.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    inverse = torch.linalg.inv(covariance + 0.1 * trace * torch.eye(6))
    scale = trace / (inverse * covariance).sum((1, 2))[:, None, None]
    found = within_metric(x @ x.mT, weight, 0.1)
    assert torch.allclose(found, scale * (x @ inverse @ x.mT), atol=1e-10)


def test_settings_are_checked():
    for name, value in (("shrinkage", 0.0), ("rounds", 0), ("trust", -1.0), ("base_count", -1.0)):
        with pytest.raises(ValueError, match=f"'{name}' must be"):
            HeatPrototypes(**{name: value})


def test_each_task_tells_whether_its_queries_are_balanced(pool):
    mean = pool[0].mean(0)
    for unbalanced in (False, True):
        sampler = TaskSampler(*pool, seed=0, unbalanced=unbalanced)
        found = {p: accuracy(p, sampler, mean) for p in ("learned", "balanced", "dirichlet")}
        right, wrong = ("dirichlet", "balanced") if unbalanced else ("balanced", "dirichlet")
        assert found[right] > found[wrong]
        assert found["learned"] > (found[right] + found[wrong]) / 2


def test_only_inner_products_matter(pool):
    tasks = TaskSampler(*pool, seed=0)(0, 3)
    turn = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(0))).Q
    turned = replace(tasks, support=tasks.support @ turn, query=tasks.query @ turn)
    method = HeatPrototypes()
    same = (method.predict(turned) == method.predict(tasks)).float().mean()
    assert same > 0.99  # rounding may flip one
