from dataclasses import replace

import pytest
import torch

from fewshot.tasks import (
    Tasks,
    TaskSampler,
    center_and_normalize,
    power_transform,
    rectified_prototypes,
    shift_queries,
)
from fewshot.weights import gaussian_weights, laplacian


@pytest.fixture
def pool() -> tuple[torch.Tensor, torch.Tensor]:
    """Features whose first column names the class and whose second names the image."""
    labels = torch.arange(8).repeat_interleave(40)[torch.randperm(320)]
    return torch.stack([labels, torch.arange(320), torch.randn(320)], dim=1).float(), labels


def test_a_task_holds_what_it_promises(pool):
    tasks = TaskSampler(*pool, way=5, shot=2, query_per_class=6, seed=3)(4, 3)
    assert tasks.support.shape == (3, 10, 3) and tasks.query.shape == (3, 30, 3)
    assert tasks.way == 5 and len(tasks.seeds) == len(set(tasks.seeds)) == 3
    for task in range(3):
        images = tasks.points[task, :, 1]
        assert len(images.unique()) == 40, "an image was drawn twice"
        classes = tasks.support[task, ::2, 0]
        assert len(classes.unique()) == 5
        assert torch.equal(tasks.support[task, :, 0], classes[tasks.support_labels])
        assert torch.equal(tasks.query[task, :, 0], classes[tasks.query_labels[task]])
        assert torch.equal(tasks.query_labels[task].bincount(), torch.full((5,), 6))


def test_a_task_depends_on_seed_and_number_only(pool):
    sampler = TaskSampler(*pool, seed=5)
    many, one = sampler(0, 10), sampler(7, 1)
    assert torch.equal(many.query[7], one.query[0]) and many.seeds[7] == one.seeds[0]
    assert not torch.equal(TaskSampler(*pool, seed=6)(7, 1).query, one.query)
    parts = many.split(4)
    assert [len(part.seeds) for part in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([part.query for part in parts]), many.query)


def test_unbalanced_queries_follow_a_dirichlet_distribution(pool):
    sampler = TaskSampler(*pool, query_per_class=7, unbalanced=True, seed=0)
    tasks = sampler(0, 2000)
    counts = torch.nn.functional.one_hot(tasks.query_labels, 5).sum(1).double()
    assert torch.equal(counts.sum(1), torch.full((2000,), 35.0).double())
    # Dirichlet-multinomial with parameter 2: n p (1 - p) (n + 10) / (1 + 10)
    assert counts.mean(0).sub(7).abs().max() < 0.4
    assert abs(counts.var(0).mean().item() - 35 * 0.2 * 0.8 * 45 / 11) < 1.5


def test_a_pool_too_small_is_refused(pool):
    with pytest.raises(ValueError, match="'way' is 9.*8 classes"):
        TaskSampler(*pool, way=9)
    with pytest.raises(ValueError, match="needs 45 images per class.*class 0 has only 40"):
        TaskSampler(*pool, shot=30)
    with pytest.raises(ValueError, match="needs 76 .*all queries fall on one class"):
        TaskSampler(*pool, unbalanced=True)
    with pytest.raises(ValueError, match="'shot' must be at least 1"):
        TaskSampler(*pool, shot=0)


def small_task() -> Tasks:
    """Two classes on the axes and four queries."""
    query = torch.tensor([[4.0, 1], [1, 3], [5, 0], [0, 2]])
    return Tasks(
        support=torch.tensor([[[2.0, 0], [0, 2]]]),
        query=query.unsqueeze(0),
        support_labels=torch.tensor([0, 1]),
        query_labels=torch.tensor([[0, 1, 0, 1]]),
        seeds=(0,),
    )


def test_preprocessing():
    tasks = small_task()
    mean = torch.tensor([1.0, -1])
    centered = center_and_normalize(tasks, mean)
    assert torch.allclose(centered.support[0, 0], torch.tensor([1.0, 1]) / 2**0.5)
    assert torch.allclose(centered.query.norm(dim=-1), torch.ones(1, 4))
    shifted = shift_queries(tasks)
    assert torch.allclose(shifted.query.mean(1), tasks.support.mean(1))
    assert torch.allclose(shifted.query - tasks.query, torch.tensor([-1.5, -0.5]).expand(1, 4, 2))
    power = power_transform(replace(tasks, query=-tasks.query))
    assert torch.allclose(power.query[0, 0], -torch.tensor([2.0, 1]) / 5**0.5, atol=1e-5)


def test_rectified_prototypes_by_hand():
    tasks = small_task()
    p = (10 * torch.nn.functional.normalize(tasks.points[0], dim=1)).softmax(1)  # axes: prototypes
    own = [0, 2, 4], [1, 3, 5]
    expected = torch.stack(
        [(p[rows, c, None] * tasks.points[0, rows]).mean(0) for c, rows in enumerate(own)]
    )
    assert torch.allclose(rectified_prototypes(tasks)[0], expected)


def test_a_class_without_points_keeps_its_prototype():
    x, y = [1.0, 0.0], [0.0, 1.0]
    tasks = Tasks(
        support=torch.tensor([[x, x, y, y, x, y]]),  # the points of class 2 look like 0 and 1
        query=torch.tensor([[x]]),
        support_labels=torch.tensor([0, 0, 1, 1, 2, 2]),
        query_labels=torch.tensor([[0]]),
        seeds=(0,),
    )
    rectified = rectified_prototypes(tasks)[0]
    assert torch.equal(rectified[2], torch.tensor([0.5, 0.5]))
    assert rectified[0, 0] > 0.5 and rectified[0, 1] == 0


def test_gaussian_weights_by_hand():
    x = torch.tensor([[0.0], [1], [3], [7]], dtype=torch.float64)
    r = (x - x.T).abs()
    width = torch.tensor([3.0, 2, 3, 6], dtype=torch.float64)  # third smallest of each row
    kept = r < torch.tensor([[3.0], [2], [3], [6]])  # n_top = 3: strictly below the third smallest
    w = torch.exp(-((r / width[:, None]) ** 2)) * kept
    s = w.sum(1)
    w = w / (s[:, None] * s[None]).sqrt()
    got = gaussian_weights(x.unsqueeze(0), n_top=3, sigma=3)[0]
    assert torch.allclose(got, (w + w.T) / 2, atol=1e-14)
    lap = laplacian(got)
    assert torch.allclose(lap.sum(1), torch.zeros(4, dtype=lap.dtype), atol=1e-15)
    assert torch.linalg.eigvalsh(lap).min() > -1e-12


def test_gaussian_weights_of_many_tasks_and_duplicates():
    x = torch.randn(3, 20, 6)
    together = gaussian_weights(x)
    assert torch.allclose(together[1], gaussian_weights(x[1]))
    assert ((together > 0).sum(-1) >= 7).all()
    x[:, :12] = x[:, :1]  # more duplicates than n_top
    w = gaussian_weights(x)
    assert (
        torch.isfinite(w).all() and torch.equal(w, w.mT) and (w.diagonal(dim1=1, dim2=2) > 0).all()
    )
    for name, value in (("n_top", 21), ("sigma", 0)):
        with pytest.raises(ValueError, match=f"'{name}' must be in 1 ... 20"):
            gaussian_weights(x, **{name: value})
