"""The fast training of many tasks against the plain loop with torch.optim.SGD."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from fewshot.methods import Diffusion
from fewshot.methods.plain import train_plain
from fewshot.methods.training import Network, Problem, Schedule, _gradient, train
from fewshot.tasks import Tasks


def some_tasks(count: int, shot: int = 1, width: int = 20) -> Tasks:
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(count, 5, width, generator=generator, dtype=torch.float64)
    labels = torch.arange(5)

    def points(per_class: int) -> torch.Tensor:
        clean = centers.repeat_interleave(per_class, dim=1)
        return clean + 0.8 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)

    return Tasks(
        support=points(shot) / width**0.5,
        query=points(7) / width**0.5,
        support_labels=labels.repeat_interleave(shot),
        query_labels=labels.repeat_interleave(7).repeat(count, 1),
        seeds=tuple(range(10, 10 + count)),
    )


def single(problem: Problem, i: int) -> Problem:
    cost = None if problem.cost is None else problem.cost[i : i + 1]
    points, laplacian = problem.points[i : i + 1], problem.laplacian[i : i + 1]
    return replace(problem, points=points, laplacian=laplacian, cost=cost)


@pytest.mark.parametrize("shot", [1, 5])
@pytest.mark.parametrize(("alpha", "mu"), [(0.0, 0.0), (0.05, 0.0), (0.02, 0.01)])
def test_equal_to_the_plain_loop(shot, alpha, mu):
    tasks = some_tasks(count=2, shot=shot)
    problem = Diffusion(alpha=alpha, mu=mu, n_top=6, sigma=3).problem(tasks)
    network = Network.draw(tasks.seeds, tasks.way, tasks.query)
    kept = [layer.clone() for layer in network]
    fast = train(problem, network)
    assert all(torch.equal(a, b) for a, b in zip(network, kept, strict=True)), "changed its input"
    for i in range(2):
        slow = train_plain(single(problem, i), Network(*(layer[i : i + 1] for layer in network)))
        if not mu:  # the mean over the classes is free
            slow = slow - slow.mean(-1, keepdim=True)
        assert slow.std() > 0.5, "the loop did not train"
        assert (fast[i] - slow[0]).abs().max() < 1e-10


def test_the_smoothness_term_is_that_of_the_paper():
    tasks = some_tasks(count=1)
    problem = Diffusion(mu=0.3, n_top=6, sigma=3).problem(tasks)
    z = torch.randn(1, 40, 5, dtype=torch.float64)
    weights = torch.diag_embed(problem.laplacian.diagonal(dim1=1, dim2=2)) - problem.laplacian
    z.requires_grad_()
    term = 0.3 * (weights * (z.unsqueeze(2) - z.unsqueeze(1)).square().sum(-1)).sum()
    cross = nn.functional.cross_entropy(z[0, :5], problem.labels)
    (expected,) = torch.autograd.grad(term + cross, z)
    target = torch.eye(5, dtype=torch.float64)
    assert torch.allclose(_gradient(z.detach(), problem, target), expected, atol=1e-12)


def test_other_schedules():
    tasks = some_tasks(count=1)
    problem = Diffusion(n_top=6, sigma=3, layer_num=0).problem(tasks)
    network = Network.draw(tasks.seeds, 5, tasks.query)
    for schedule in (Schedule(epochs=0), Schedule(7, lr=0.3, momentum=0.0, weight_decay=0.1)):
        slow = train_plain(problem, network, schedule)
        fast = train(problem, network, schedule)
        assert (fast - slow + slow.mean(-1, keepdim=True)).abs().max() < 1e-12


def test_initial_numbers_are_those_of_linear_layers():
    like = torch.empty(0, 64)
    network = Network.draw(tuple(range(30)), 5, like)
    reference = nn.Linear(64, 64)
    for layer in network:
        assert layer.abs().max() <= 64**-0.5
        assert abs(layer.std() - 64**-0.5 / 3**0.5) < 0.002
    assert abs(reference.weight.std() - network.fc1.std()) < 0.003
    alone = Network.draw((7,), 5, like)
    assert torch.equal(alone.fc2[0], network.fc2[7]) and not torch.equal(alone.fc2, alone.fc1)


def test_threads_change_nothing():
    tasks = some_tasks(count=5)
    method = Diffusion(n_top=6, sigma=3, schedule=Schedule(20))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(method.predict(tasks))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    assert (results[0] == tasks.query_labels).float().mean() > 0.6


def test_side_by_side_is_one_by_one():
    """What a GPU does, all tasks in one batch, against one task at a time."""
    tasks = some_tasks(count=4)
    method = Diffusion(n_top=6, sigma=3)
    network = Network.draw(tasks.seeds, 5, tasks.query)
    together = train(method.problem(tasks), network)
    for i, one in enumerate(tasks.split(1)):
        alone = train(method.problem(one), Network(*(layer[i : i + 1] for layer in network)))
        assert torch.allclose(alone[0], together[i], atol=1e-10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu():
    tasks = some_tasks(count=4)
    method = Diffusion(n_top=6, sigma=3)
    assert torch.equal(method.predict(tasks), method.predict(tasks.to("cuda")).cpu())
