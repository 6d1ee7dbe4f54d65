"""Candidate models of the classes of nodes, among which the labels choose."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module
from torch.optim import Adam

from ...nn import RandomPropagation, consistency
from ...nn.sparse_linear import Linear
from ...ops import DiffusionOperator, diffuse
from ..model_selection import fit_ridge, log_likelihood, stratified_sample
from .inputs import GraphInputs, multiply, transpose
from .settings import Settings

MOST_JUDGED = 1000  # labeled nodes that are left out in turn
ASSUMED_LABELS = 4.0  # for the shares of the classes being those of the labels
TEACHER_TEMPERATURE = 0.5  # of what the student learns
LONGER = 4  # times as many steps at most, where long ones are not stable
SMALLEST_WEIGHT = 0.1  # of a network; with less it is not trained
AVERAGED = 1 / 3  # of the epochs, the last, whose weights are averaged


class Labeled(NamedTuple):
    """The labeled nodes of a graph and their classes, numbered from 0 on."""

    nodes: Tensor
    labels: Tensor
    num_classes: int

    def sample(self, size: int) -> Tensor:
        """Indices of at most ``size`` of them."""
        return stratified_sample(self.labels, size)

    def can_be_judged(self) -> Tensor:
        """Which labels others can predict: those whose class has another one."""
        return self.labels.bincount(minlength=self.num_classes)[self.labels] > 1

    def trust(self) -> float:
        """How far predicted class shares are trusted: few labels a class say little of them."""
        per_class = len(self.labels) / self.num_classes
        return 1 / (1 + ASSUMED_LABELS * per_class**-1.5)

    def prior_correction(self, logits: Tensor, exponent: float) -> Tensor:
        """What logits gain by how much larger each class is among predictions than among labels."""
        predicted = logits.argmax(dim=1).bincount(minlength=self.num_classes).float() + 1
        given = self.labels.bincount(minlength=self.num_classes).float()
        ratio = predicted / predicted.sum() / (given / given.sum()).clamp(min=1e-9)
        return exponent * self.trust() * ratio.log()


class Candidate(ABC):
    """A model of the classes of nodes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.num_epochs = 0  # of its training; known when it is judged

    @abstractmethod
    def is_feasible(self, graph: GraphInputs, num_classes: int) -> bool:
        """Whether the graph has what the model reads, and is not too large."""

    @abstractmethod
    def judge(self, graph: GraphInputs, labeled: Labeled, judged: Tensor) -> Tensor:
        """The log-likelihoods of the labels ``judged``, each predicted by others.

        What this learns is kept for :meth:`fit`, which follows.
        """

    @abstractmethod
    def fit(self, graph: GraphInputs, labeled: Labeled, epoch: Callable[[], Any]) -> None:
        """Learn; ``epoch`` is called after each epoch."""

    @abstractmethod
    def logits(self, graph: GraphInputs, labeled: Labeled) -> Tensor:
        """Logits [N, C] of all nodes of a graph, some of whose labels may be known."""


class DiffusionNetworks(Candidate):
    """Networks of diffused logits on the edges joined with neighbors by features, and a student.

    A ridge regression on diffused features judges them, and estimates how large the classes are.
    """

    def is_feasible(self, graph: GraphInputs, num_classes: int) -> bool:
        """Whether there are features."""
        return graph.has_features

    def diffusions(self, graph: GraphInputs) -> dict[str | None, tuple[DiffusionOperator, int]]:
        """The operator of each network and its number of steps, by its normalization."""
        s, found = self.settings, {}
        for how in s.normalizations:
            operator = graph.stable_operator(s.step_size, how, s.neighbors, s.neighbor_weight)
            steps = round(s.num_steps * s.step_size / float(operator.step_size))
            found[how] = operator, min(steps, LONGER * s.num_steps)
        return found

    def judge(self, graph: GraphInputs, labeled: Labeled, judged: Tensor) -> Tensor:
        """By a ridge regression on diffused features, which is the network without its training."""
        nodes, labels = labeled.nodes[judged], labeled.labels[judged]
        one_hot = torch.zeros(graph.num_nodes, len(nodes), dtype=torch.float32, device=nodes.device)
        one_hot[nodes, torch.arange(len(nodes), device=nodes.device)] = 1
        transposed, found = transpose(graph.features), []
        for name, (operator, steps) in self.diffusions(graph).items():
            # rows of the diffused features, by the transposed operator: a column a node
            spread = diffuse(one_hot, operator.t(), steps)
            ridge = fit_ridge(multiply(transposed, spread).t(), labels, labeled.num_classes)
            found.append((log_likelihood(ridge.scores, labels), ridge, name))
        weights = torch.stack([each[0].sum() for each in found]).softmax(dim=0).tolist()
        likelihood, self.ridge, self.best = found[weights.index(max(weights))]
        self.weights = {f[2]: w for f, w in zip(found, weights, strict=True) if w > SMALLEST_WEIGHT}
        networks = len(self.weights) + (self.settings.student > 0)
        self.num_epochs = self.settings.max_epochs * networks
        return likelihood

    def class_prior(self, graph: GraphInputs) -> Tensor:
        """The mean probability of each class by the regression that judges."""
        own = multiply(graph.features, self.ridge.coefficients.float())
        logits = diffuse(own, *self.diffusions(graph)[self.best])
        return logits.softmax(dim=1).mean(dim=0)

    def fit(self, graph: GraphInputs, labeled: Labeled, epoch: Callable[[], Any]) -> None:
        """Train the networks and the student."""
        s, sizes = self.settings, (graph.features.size(1), labeled.num_classes)
        self.weight_decay = s.weight_decay * (sizes[0] / 1000) ** 0.5 * self.ridge.penalty**0.25
        self.models, prior = {}, self.class_prior(graph)
        for name in self.weights:
            operator, steps = self.diffusions(graph)[name]
            step_size = float(operator.step_size)
            how = (None, steps, step_size, s.num_views, s.node_dropout, 0.5, name)
            model = single(RandomPropagation, *sizes, *how).to(graph.device)
            model.reset_parameters()
            self._train(model, graph.features, operator, labeled, prior, epoch)
            self.models[name] = model.eval()
        self.correction = torch.zeros_like(prior)
        self.correction = labeled.prior_correction(self._teach(graph), s.prior_correction)
        self.student = None
        if s.student > 0:
            student, target = single(Linear, *sizes).to(graph.device), self._targets(graph, labeled)
            torch.nn.init.xavier_uniform_(student.weight)
            torch.nn.init.zeros_(student.bias)
            self._descend(
                student, lambda _: F.cross_entropy(student(graph.features), target), epoch
            )
            self.student = student

    def _train(
        self,
        model: RandomPropagation,
        x: Tensor,
        operator: DiffusionOperator,
        labeled: Labeled,
        prior: Tensor,
        epoch: Callable[[], Any],
    ) -> None:
        s, trust = self.settings, labeled.trust()
        target = labeled.labels.repeat_interleave(s.num_views)
        parameters: list[Tensor] = [*model.parameters()]
        average = [torch.zeros_like(parameter) for parameter in parameters]
        first = s.max_epochs - max(1, round(AVERAGED * s.max_epochs))

        def loss(number: int) -> Tensor:
            if number > first:  # the state after the epoch before
                share = 1 / (number - first)
                torch._foreach_lerp_(average, [p.detach() for p in parameters], share)
            logits = model(x, operator)
            supervised = F.cross_entropy(logits[labeled.nodes].flatten(0, 1), target)
            weight = s.consistency * min(1.0, number / s.warmup)
            return supervised + weight * consistency(logits, s.temperature, prior, trust)

        self._descend(model, loss, epoch)
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 / (s.max_epochs - first))
        with torch.no_grad():
            torch._foreach_copy_(parameters, average)

    def _descend(
        self, model: Module, loss: Callable[[int], Tensor], epoch: Callable[[], Any]
    ) -> None:
        """Minimize the loss of each epoch by Adam."""
        s, parameters = self.settings, model.parameters()
        optimizer = Adam(parameters, lr=s.lr, weight_decay=self.weight_decay, fused=True)
        for number in range(s.max_epochs):
            optimizer.zero_grad()
            loss(number).backward()
            optimizer.step()
            epoch()

    @torch.no_grad()
    def _teach(self, graph: GraphInputs) -> Tensor:
        """Log-probabilities of the networks, moved by the prior correction."""
        probabilities = sum(
            self.weights[name]
            * model(graph.features, self.diffusions(graph)[name][0]).softmax(dim=1)
            for name, model in self.models.items()
        )
        return log(probabilities / sum(self.weights.values())) + self.correction

    def _targets(self, graph: GraphInputs, labeled: Labeled) -> Tensor:
        """Sharpened probabilities, and the labels where they are known."""
        target = (self._teach(graph) / TEACHER_TEMPERATURE).softmax(dim=1)
        target[labeled.nodes] = F.one_hot(labeled.labels, labeled.num_classes).to(target)
        return target

    @torch.no_grad()
    def logits(self, graph: GraphInputs, labeled: Labeled) -> Tensor:
        """Those of the networks, mixed with the student's."""
        if self.student is None:
            return self._teach(graph)
        own = self.student(graph.features).softmax(dim=1)
        return log(self._targets(graph, labeled).lerp(own, self.settings.student))


class RidgeRegression(Candidate):
    """A ridge regression on one of the graph's inputs, without diffusion of the classes."""

    def __init__(self, settings: Settings, input: str) -> None:
        super().__init__(settings)
        self.input = input

    def is_feasible(self, graph: GraphInputs, num_classes: int) -> bool:
        """Whether there are features."""
        return graph.has_features or self.input == "structural_kernel"

    def judge(self, graph: GraphInputs, labeled: Labeled, judged: Tensor) -> Tensor:
        """Each label by all others."""
        x = getattr(graph, self.input)[labeled.nodes]
        self.ridge = fit_ridge(x, labeled.labels, labeled.num_classes)
        return log_likelihood(self.ridge.scores, labeled.labels)[judged]

    def fit(self, graph: GraphInputs, labeled: Labeled, epoch: Callable[[], Any]) -> None:
        """Correct the class prior; the rest is learned by :meth:`judge`."""
        exponent = self.settings.prior_correction
        self.correction = labeled.prior_correction(self._scores(graph), exponent)

    def _scores(self, graph: GraphInputs) -> Tensor:
        return (getattr(graph, self.input).double() @ self.ridge.coefficients).float()

    def logits(self, graph: GraphInputs, labeled: Labeled) -> Tensor:
        """Those of the regression."""
        return self._scores(graph) + self.correction


def single(make: Callable[..., Any], *arguments: Any) -> Any:
    """A module in single precision, whatever torch's default; its random numbers are not drawn."""
    with torch.random.fork_rng([]):
        return make(*arguments).to(torch.float32)


def log(probabilities: Tensor) -> Tensor:
    """The logarithm, also of 0 finite."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
