"""The estimators of the battery, each beside what it computes in dense float64 algebra."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from dense import as_form, dense_step, dense_weight
from torch import Tensor

from torch_geometric_diff import DiffusionClassifier, NodeClassifier
from torch_geometric_diff.estimators.node.candidates import TEACHER_TEMPERATURE
from torch_geometric_diff.estimators.node.inputs import random_frequencies

N, FEATURES, CLASSES = 60, 4, 3
TRAIN = torch.arange(0, N, 4)


@dataclass
class Estimator:
    """An estimator and what is known of its answers.

    Attributes:
        name: What it is called in the table.
        fit: The fitted model, of points and labels, -1 where there is none.
        answer: The probabilities of the classes, of a fitted model and the points.
        dense: The same in dense float64 algebra; None where there is no such form.
        tolerance: What rounding may make of probabilities.
        refuses: Columns of the table where it says no, and what it says.
        beside: Columns that ask something else of it, or nothing, and why.
    """

    name: str
    fit: Callable[..., Any]
    answer: Callable[[Any, Any], Tensor]
    dense: Callable[[], Tensor] | None
    tolerance: float
    refuses: dict[str, tuple[type[Exception], str]] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)


def graph() -> tuple[Tensor, Tensor]:
    """Weighted edges, most of them within the classes."""
    generator = torch.Generator().manual_seed(1)
    same = (Y[:, None] == Y[None, :]).double()
    edges = torch.rand(N, N, generator=generator).double() < 0.02 + 0.1 * same
    edges = edges.triu(1).nonzero().t()
    weight = torch.rand(edges.size(1), generator=generator).double() + 0.5
    return torch.cat([edges, edges.flip(0)], 1), weight.repeat(2)


def points(count: int, seed: int) -> Tensor:
    """Points about the means of three classes, in halves of a float: of no two equal distances."""
    noise = torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed))
    means = 1.2 * torch.eye(CLASSES, FEATURES)[torch.arange(count) % CLASSES]
    return (means + noise).double()


Y = torch.arange(N) % CLASSES
X, NEW = points(N, 0), points(20, 1)
LABELS = torch.full((N,), -1).index_copy(0, TRAIN, Y[TRAIN])
EDGES, WEIGHT = graph()

# DiffusionClassifier ##############################################################################

NEAR, STEPS, TRUST = 5, 40, 0.3


def diffusion(weight: float) -> Callable[..., DiffusionClassifier]:
    def fit(x: Any, y: Any, model: Any = None) -> DiffusionClassifier:
        model = model or DiffusionClassifier(NEAR, num_steps=STEPS, feature_weight=weight)
        return model.fit(x, y)

    return fit


def transduced(model: DiffusionClassifier, x: Any) -> Tensor:
    """Of the points of ``fit`` and of new ones, in the form and at the scale of ``x``."""
    new = NEW * SCALE
    if isinstance(x, Tensor) and x.layout != torch.strided:
        new = new.to_sparse()
    elif isinstance(x, Tensor):
        new = new.to(x.dtype)
    found = [model.label_distributions_, model.predict_proba(new)]
    return torch.from_numpy(np.concatenate([each.astype(np.float64) for each in found]))


SCALE = 1.0  # of new points


def relative(distance: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest of each row of distances and their weights."""
    near, index = distance.sort(stable=True)
    near, index = near[:, :NEAR], index[:, :NEAR]
    return index, torch.exp(-8 * (near / near[:, -1:]).square())


def heat_alone() -> tuple[Tensor, Tensor, Tensor]:
    """The walk, the distributions that diffused and the one-hot labels."""
    index, weight = relative(torch.cdist(X, X).fill_diagonal_(torch.inf))
    matrix = torch.zeros(N, N).double().scatter(1, index, weight)
    matrix = matrix + matrix.t()
    degree = matrix.sum(1, keepdim=True)
    walk, one_hot = matrix / degree, torch.zeros(N, CLASSES).double()
    one_hot[TRAIN, Y[TRAIN]] = 1
    total = sum(torch.linalg.matrix_power(walk, k) for k in range(STEPS + 1)) @ (one_hot / degree)
    total[TRAIN] = one_hot[TRAIN]
    return walk, total / total.sum(1, keepdim=True), one_hot


def of_new(*values: Tensor) -> list[Tensor]:
    index, weight = relative(torch.cdist(NEW, X))
    weight = weight / weight.sum(1, keepdim=True)
    return [(weight.unsqueeze(2) * each[index]).sum(1) for each in values]


def dense_heat() -> Tensor:
    _, diffused, _ = heat_alone()
    return torch.cat([diffused, *of_new(diffused)])


def likelihoods(share: Tensor, x: Tensor) -> Tensor:
    """Gaussian classes of one covariance, a fifth of which is a multiple of the identity."""
    total = share.sum(0)
    mean = share.t() @ X / total[:, None]
    gap = X[:, None] - mean
    within = torch.einsum("nc,ncd,nce->de", share, gap, gap) / N
    identity = torch.eye(FEATURES).double()
    inverse = (0.8 * within + 0.2 * within.trace() / FEATURES * identity).inverse()
    gap = x[:, None] - mean
    return -torch.einsum("ncd,de,nce->nc", gap, inverse, gap) / 2


def dense_with_features() -> Tensor:
    """The docstring of DiffusionClassifier, word for word."""
    walk, diffused, one_hot = heat_alone()
    proportion = one_hot.sum(0) / one_hot.sum()
    share, label = diffused, diffused.argmax(1)
    for _ in range(10):
        fitted, pull = share, -(share.mean(0) / proportion).log()
        logits = (1 - TRUST) * 2 * (diffused.clamp(min=1e-12).log() + walk @ share)
        share = (logits + TRUST * likelihoods(fitted, X) + pull).softmax(1)
        share[TRAIN] = one_hot[TRAIN]
        before, label = label, share.argmax(1)
        if torch.equal(before, label):
            break
    heat, near = of_new(diffused, share)
    logits = (1 - TRUST) * 2 * (heat.clamp(min=1e-12).log() + near)
    return torch.cat([share, (logits + TRUST * likelihoods(fitted, NEW) + pull).softmax(1)])


# NodeClassifier ###################################################################################

SETTINGS: dict[str, Any] = {
    "num_steps": 3,
    "neighbors": 3,
    "neighbor_weight": 0.5,
    "normalizations": ("row",),
    "max_epochs": 4,
}


def nodes(candidate: str) -> Callable[..., NodeClassifier]:
    def fit(
        x: Any,
        y: Tensor,
        form: str = "edge_index",
        order: Tensor | None = None,
        model: Any = None,
    ) -> Any:
        edge_index = EDGES if order is None else order.argsort()[EDGES]
        adjacency, weight = as_form(form, edge_index, WEIGHT, N)
        train = (y >= 0).nonzero().view(-1)
        model = model or NodeClassifier(candidates=candidate, **SETTINGS)
        return model.fit(x, adjacency, y, train, weight)

    return fit


def probabilities(model: NodeClassifier, x: Any) -> Tensor:
    return model.predict_proba().double()


@cache
def trained() -> NodeClassifier:
    return nodes("diffusion")(X, LABELS)


def dense_network() -> Tensor:
    """What the trained networks say, in dense algebra, for training has no closed form."""
    model = trained()
    x = (X - X.mean(0)) / X.var(0, correction=0).sqrt()
    diffused = torch.linalg.matrix_power(dense_step(dense_weight(EDGES, WEIGHT, N), 0.5, "row"), 6)
    left = (diffused @ x).square().mean(0).sqrt()  # of every column
    x = x * left / left.max()
    unit = torch.nn.functional.normalize(x - x.mean(0), dim=1)
    squared, index = torch.cdist(unit, unit).square().sort(stable=True)
    weight = torch.exp(-squared[:, :4] / squared[:, 2:3])  # the point itself among four
    near = torch.zeros(N, N).double().scatter(1, index[:, :4], weight).fill_diagonal_(0)
    joined = dense_weight(EDGES, WEIGHT, N) + 0.5 * (near + near.t()) / 2
    frequencies, phase = (each.double() for each in random_frequencies(x.float()))
    waves = (x @ frequencies + phase).cos()
    to_unit = torch.nn.functional.normalize
    parts = to_unit(x, dim=1), to_unit(waves - waves.mean(0), dim=1)
    x = to_unit(torch.cat(parts, dim=1), dim=1)
    candidate: Any = deepcopy(model.candidates_["diffusion"])
    network = candidate.models["row"].double()
    h = x @ network.encoder.weight.t()
    for _ in range(3):
        h = dense_step(joined, 0.5, "row") @ h
    logits = (h + network.bias).log_softmax(1)
    found, given = (torch.bincount(each, minlength=3) for each in (logits.argmax(1), Y[TRAIN]))
    larger = ((found + 1.0) / (found + 1.0).sum() / (given / given.sum())).log()
    logits = logits + model.prior_correction / (1 + 4 * 5**-1.5) * larger
    target = (logits / TEACHER_TEMPERATURE).softmax(1)
    target[TRAIN] = torch.nn.functional.one_hot(Y[TRAIN]).double()
    student = candidate.student.double()
    return (target + (x @ student.weight.t() + student.bias).softmax(1)).detach() / 2


DRAWN = "the order decides which random numbers it gets, as another seed does"
FOLDS = "the order decides which labels are left out together"
OF_NODES: dict[str, Any] = {
    "beside": {"points in another order": DRAWN, "classes in another order": DRAWN},
}
GIVEN_BY_X = {"forms of the graph": "its graph is made of X"}
ESTIMATORS = [
    Estimator(
        "DiffusionClassifier, heat alone",
        diffusion(0),
        transduced,
        dense_heat,
        1e-10,
        beside=GIVEN_BY_X,
    ),
    Estimator(
        "DiffusionClassifier",
        diffusion(TRUST),
        transduced,
        dense_with_features,
        1e-10,
        beside=GIVEN_BY_X,
    ),
    Estimator("NodeClassifier", nodes("diffusion"), probabilities, dense_network, 2e-5, **OF_NODES),
    Estimator(
        "NodeClassifier, learned compatibility of classes",
        nodes("belief_propagation"),
        probabilities,
        None,
        2e-5,
        beside={
            "value": "its iterations have no closed form",
            "points in another order": FOLDS,
            "classes in another order": FOLDS,
        },
    ),
]
