from dataclasses import replace

import numpy as np
import pytest
import torch

from fewshot import methods
from fewshot.methods import LabelPropagation, LaplacianShot, LogisticRegression, SimpleShot
from fewshot.methods.ptmap import transport
from fewshot.methods.tim import TIM, AlphaTIM
from fewshot.tasks import Tasks, TaskSampler

ALL = (
    methods.BDCSPN,
    methods.Diffusion,
    methods.HeatPrototypes,
    methods.LabelPropagation,
    methods.LaplacianShot,
    methods.LogisticRegression,
    methods.PowerPrototype,
    methods.PriorFreePTMAP,
    methods.PTMAP,
    methods.SimpleShot,
    TIM,
    AlphaTIM,
)


def sampled(noise: float, shot: int, count: int, width: int = 24) -> tuple[Tasks, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(10, width, generator=generator)
    labels = torch.arange(10).repeat_interleave(40)
    features = centers[labels] + noise * torch.randn(400, width, generator=generator)
    features = features.relu()
    return TaskSampler(features, labels, shot=shot, seed=0)(0, count), features.mean(0)


@pytest.mark.parametrize("method", ALL)
def test_every_method_solves_easy_tasks_and_treats_each_task_alone(method):
    tasks, mean = sampled(noise=0.2, shot=1, count=3)
    method = method(steps=100) if issubclass(method, TIM) else method()
    tasks = method.prepare(tasks, mean)
    together = method.predict(tasks)
    assert together.shape == tasks.query_labels.shape
    assert (together == tasks.query_labels).float().mean() > 0.97
    alone = method.predict(tasks.split(1)[1])
    assert torch.equal(alone[0], together[1])


@pytest.mark.parametrize("method", [m for m in ALL if not issubclass(m, TIM)])
def test_the_order_of_the_queries_does_not_matter(method):
    tasks, mean = sampled(noise=0.8, shot=2, count=2)
    method = method(steps=2) if issubclass(method, methods.PTMAP) else method()
    order = torch.randperm(75)
    shuffled = replace(tasks, query=tasks.query[:, order])
    straight = method.predict(method.prepare(tasks, mean))
    permuted = method.predict(method.prepare(shuffled, mean))
    assert (permuted == straight[:, order]).float().mean() > 0.99  # rounding may flip one


def test_logistic_regression_is_that_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="needs scikit-learn")
    tasks, mean = sampled(noise=1.0, shot=5, count=2)
    tasks = LogisticRegression().prepare(tasks, mean)
    weight, intercept = LogisticRegression(C=3.0, steps=2000).fit(tasks)
    for i in range(2):
        peer = linear_model.LogisticRegression(C=3.0, tol=1e-10, max_iter=10000)
        peer.fit(tasks.support[i].double().numpy(), tasks.support_labels.numpy())
        assert np.allclose(weight[i].numpy(), peer.coef_, atol=1e-4)
        centered = peer.intercept_ - peer.intercept_.mean()
        assert np.allclose(
            intercept[i, 0].numpy() - intercept[i].mean().item(), centered, atol=1e-4
        )


def test_transport_has_its_margins():
    plan = transport(torch.rand(3, 20, 5), sharpness=10.0)
    assert torch.allclose(plan.sum(2), torch.ones(3, 20), atol=1e-4)
    assert torch.allclose(plan.sum(1), torch.full((3, 5), 4.0), atol=1e-4)


def shannon(p: torch.Tensor, _: float) -> torch.Tensor:
    return -(p * p.log()).sum(-1)


def tsallis(p: torch.Tensor, alpha: float) -> torch.Tensor:
    return (1 - (p**alpha).sum(-1)) / (alpha - 1)


@pytest.mark.parametrize(
    ("tim", "shot", "entropy", "alpha", "support_weight", "condition_weight"),
    [
        (TIM(), 2, shannon, 0, 0.1, 0.1),
        (AlphaTIM(), 2, tsallis, 2, 1, 1),
        (AlphaTIM(), 5, tsallis, 7, 1, 1),
        (AlphaTIM(alpha=3.5), 2, tsallis, 3.5, 1, 1),
    ],
)
def test_tim_follows_the_gradient_of_its_loss(
    tim, shot, entropy, alpha, support_weight, condition_weight
):
    tasks, mean = sampled(noise=0.8, shot=shot, count=1)
    tasks = tim.prepare(tasks, mean)
    points, labels = tasks.points.double(), tasks.support_labels
    w = tasks.prototypes.double().requires_grad_()
    p = (-tim.temperature / 2 * torch.cdist(points, w).square()).softmax(-1)
    support, query = p[0, : len(labels)], p[0, len(labels) :]
    loss = -support_weight * support[torch.arange(len(labels)), labels].log().mean()
    loss = loss - entropy(query.mean(0), alpha) + condition_weight * entropy(query, alpha).mean()
    loss.backward()
    one_hot = torch.nn.functional.one_hot(labels).double().T
    assert torch.allclose(tim._gradient(points, w.detach(), one_hot), w.grad, atol=1e-8)


def test_ptmap_without_its_prior_lets_the_classes_be_of_any_size():
    tasks, mean = sampled(noise=0.2, shot=1, count=4)
    tasks = SimpleShot().prepare(tasks, mean)
    one_class = replace(
        tasks, query=tasks.query[:, :15], query_labels=tasks.query_labels[:, :15]
    )  # all queries are of the first class
    free = methods.PriorFreePTMAP(steps=0)
    shares = free._plan(one_class, tasks.prototypes)
    assert torch.allclose(shares.sum(-1), torch.ones(4, 15))
    assert (free.predict(one_class) == 0).all()
    assert (methods.PTMAP(steps=0).predict(one_class) != 0).any()


def test_laplacian_shot_without_graph_is_nearest_prototype():
    tasks, mean = sampled(noise=1.0, shot=1, count=4)
    method = LaplacianShot(lamda=0.0, rectify=False)
    tasks = method.prepare(tasks, mean)
    assert torch.equal(method.predict(tasks), SimpleShot().predict(tasks))
    strong = LaplacianShot(lamda=5.0, rectify=False).predict(tasks)
    assert not torch.equal(strong, SimpleShot().predict(tasks))
    with pytest.raises(ValueError, match="'knn' is 80, but a task has only 75"):
        LaplacianShot(knn=80).predict(tasks)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: LabelPropagation(alpha=1.0), "alpha"),
        (lambda: LaplacianShot(lamda=-1.0), "lamda"),
        (lambda: methods.Diffusion(step_size=float("nan")), "step_size"),
        (lambda: methods.PTMAP(rate=-0.1), "rate"),
        (lambda: AlphaTIM(alpha=1.0), "alpha"),
        (lambda: methods.HeatPrototypes(trust=-1.0), "trust"),
        (lambda: methods.HeatPrototypes(retention=1.0), "retention"),
        (lambda: methods.HeatPrototypes(prior="even"), "prior"),
        (lambda: methods.HeatPrototypes(log_odds=float("nan")), "log_odds"),
    ],
)
def test_bad_settings_are_named(build, name):
    with pytest.raises(ValueError, match=f"'{name}' must be"):
        build()
