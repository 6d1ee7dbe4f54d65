from dataclasses import replace

import numpy as np
import pytest
import torch

from fewshot import methods
from fewshot.methods import LabelPropagation, LaplacianShot, LogisticRegression, SimpleShot
from fewshot.methods.ptmap import transport
from fewshot.methods.tim import TIM
from fewshot.tasks import Tasks, TaskSampler

ALL = (
    methods.BDCSPN,
    methods.Diffusion,
    methods.LabelPropagation,
    methods.LaplacianShot,
    methods.LogisticRegression,
    methods.PowerPrototype,
    methods.PTMAP,
    methods.SimpleShot,
    methods.TIM,
)


def sampled(noise: float, shot: int, count: int, width: int = 24) -> tuple[Tasks, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(10, width, generator=generator)
    labels = torch.arange(10).repeat_interleave(40)
    features = centres[labels] + noise * torch.randn(400, width, generator=generator)
    features = features.relu()
    return TaskSampler(features, labels, shot=shot, seed=0)(0, count), features.mean(0)


@pytest.mark.parametrize("method", ALL)
def test_every_method_solves_easy_tasks_and_treats_each_task_alone(method):
    tasks, mean = sampled(noise=0.2, shot=1, count=3)
    method = method(steps=100) if method is TIM else method()
    tasks = method.prepare(tasks, mean)
    together = method.predict(tasks)
    assert together.shape == tasks.query_labels.shape
    assert (together == tasks.query_labels).float().mean() > 0.97
    alone = method.predict(tasks.split(1)[1])
    assert torch.equal(alone[0], together[1])


@pytest.mark.parametrize("method", [m for m in ALL if m is not TIM])
def test_the_order_of_the_queries_does_not_matter(method):
    tasks, mean = sampled(noise=0.8, shot=2, count=2)
    method = method(steps=2) if method is methods.PTMAP else method()
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
        centred = peer.intercept_ - peer.intercept_.mean()
        assert np.allclose(intercept[i, 0].numpy() - intercept[i].mean().item(), centred, atol=1e-4)


def test_transport_has_its_margins():
    plan = transport(torch.rand(3, 20, 5), sharpness=10.0)
    assert torch.allclose(plan.sum(2), torch.ones(3, 20), atol=1e-4)
    assert torch.allclose(plan.sum(1), torch.full((3, 5), 4.0), atol=1e-4)


def test_tim_follows_the_gradient_of_its_loss():
    """One step of Adam from the prototypes has the sign of autograd's gradient."""
    tasks, mean = sampled(noise=0.8, shot=2, count=1)
    tim = TIM()
    tasks = tim.prepare(tasks, mean)
    seen = []

    class Spy(torch.optim.Adam):
        def step(self, closure=None):  # noqa: ANN001
            seen.append(self.param_groups[0]["params"][0].grad.clone())
            return super().step(closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Spy)
        TIM(steps=1).predict(tasks)
    w = tasks.prototypes.clone().requires_grad_()
    support = tim._logits(tasks.support, w).log_softmax(-1)
    p = tim._logits(tasks.query, w).softmax(-1)
    loss = -0.1 * support[0, torch.arange(10), tasks.support_labels].mean()
    marginal = p.mean(1)
    loss = loss + (marginal * marginal.log()).sum() - 0.1 * (p * (p + 1e-12).log()).sum(-1).mean()
    loss.backward()
    assert torch.allclose(seen[0], w.grad, atol=1e-5)


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
    ],
)
def test_bad_settings_are_named(build, name):
    with pytest.raises(ValueError, match=f"'{name}' must be"):
        build()
