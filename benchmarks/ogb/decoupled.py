"""A decoupled model: everything is diffused before or after, and an MLP trains on rows."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam
from torch_geometric.data import Data
from torch_geometric.nn import MLP

from benchmarks.common import EarlyStopping, Fit, Trial, accuracy
from benchmarks.ogb.models import Method
from torch_geometric_diff.nn import CorrectAndSmooth
from torch_geometric_diff.ops import DiffusionOperator, Recurrence, SparseOperator, propagate

INFERENCE = 1 << 15  # rows that are classified at once
ALPHAS = (0.3, 0.8)  # how far predictions are spread


class DiffusedMLPMethod(Method):
    r"""An MLP on the rows of diffused features and diffused labels.

    With :math:`\mathbf{P}` the random walk, the input of a node is its row of

    .. math::
        \left[ \mathbf{X}, \mathbf{P} \mathbf{X}, \ldots, \mathbf{P}^{K} \mathbf{X}, \;
        \mathbf{P} \mathbf{Y}, \ldots, \mathbf{P}^{L} \mathbf{Y} \right]

    The features are diffused once. The labels :math:`\mathbf{Y}` are those of known nodes, zero
    elsewhere: in every epoch one half of the training nodes, drawn anew, is known and the MLP
    trains on the others in mini-batches, so that no node sees its own label; all training nodes
    are known in validation and test, and the smaller numbers of training scaled up to theirs.

    At the end the predictions are smoothed over the graph, corrected before or not, where the
    validation nodes like that better (`"Combining Label Propagation and Simple Models"
    <https://arxiv.org/abs/2010.13993>`_).

    Args:
        data (torch_geometric.data.Data): The undirected graph.
        feature_steps (int): Steps :math:`K`.
        label_steps (int): Steps :math:`L`, 0 for no labels.
        post_steps (int): Steps of correction and of smoothing, 0 for neither.
        batch_size (int): Rows of a mini-batch.
        **settings: Those of :class:`Method`.
    """

    training = {"lr": 0.003, "max_epochs": 40, "patience": 10}

    def __init__(
        self,
        data: Data,
        *,
        feature_steps: int = 3,
        label_steps: int = 2,
        post_steps: int = 20,
        batch_size: int = 1024,
        **settings: Any,
    ) -> None:
        super().__init__(data, **settings)
        if min(feature_steps, label_steps, post_steps) < 0 or batch_size < 2:
            raise ValueError(
                f"Expected 'feature_steps', 'label_steps' and 'post_steps' of at least 0 and "
                f"'batch_size' of at least 2 (got {feature_steps}, {label_steps}, {post_steps} and "
                f"{batch_size})"
            )
        self.operator = DiffusionOperator(
            data.edge_index, num_nodes=data.num_nodes, step_size=1.0, normalization="row"
        )
        self.adjacency = SparseOperator.gcn_norm(
            data.edge_index, num_nodes=data.num_nodes, add_self_loops=False
        )
        self.label_steps, self.post_steps, self.batch_size = label_steps, post_steps, batch_size
        steps = self.diffused(data.x, range(feature_steps + 1))
        self.x = F.normalize(steps - steps.mean(dim=0), dim=0).mul_(len(steps) ** 0.5)

    def diffused(self, x: Tensor, steps: Any) -> Tensor:
        """The states after so many steps, side by side."""
        states = propagate(x, self.operator, Recurrence.states([*steps]))
        return states.movedim(0, 1).flatten(1)

    def labels(self, known: Tensor, count: int) -> Tensor:
        """The diffused labels of the known nodes, as if ``count`` were known."""
        y = self.data.x.new_zeros(self.data.num_nodes, self.data.num_classes)
        y[known, self.data.y[known]] = count / known.numel()
        return self.diffused(y, range(1, self.label_steps + 1))

    def model(self) -> MLP:
        inputs = self.x.size(1) + self.label_steps * self.data.num_classes
        channels = [inputs] + [self.hidden] * (self.num_layers - 1) + [self.data.num_classes]
        return MLP(channels, dropout=self.dropout, norm="batch_norm")

    def rows(self, nodes: Tensor, labels: Tensor | None) -> Tensor:
        """The inputs of some nodes."""
        x = self.x[nodes]
        return x if labels is None else torch.cat([x, labels[nodes]], dim=1)

    def epoch(self, train: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and classes, batch by batch."""
        order, labels = train[torch.randperm(train.numel(), device=train.device)], None
        if self.label_steps:
            known, order = order.tensor_split(2)
            labels = self.labels(known, train.numel())
        for nodes in order.tensor_split(max(order.numel() // self.batch_size, 1)):
            yield self.rows(nodes, labels), self.data.y[nodes]

    @torch.no_grad()
    def classify(self, model: MLP, nodes: Tensor, labels: Tensor | None) -> Tensor:
        """The logits of some nodes, dropout off."""
        model.eval()
        return torch.cat([model(self.rows(part, labels)) for part in nodes.split(INFERENCE)])

    def run(self, trial: Trial, **training: Any) -> Fit:
        """Train from the trial's seed and keep the state that its validation nodes like best."""
        torch.manual_seed(trial.init_seed)
        y, model = self.data.y, self.model().to(self.data.y.device)
        patience, max_epochs = training.pop("patience"), training.pop("max_epochs")
        optimizer = Adam(model.parameters(), **training)
        stopping, kept = EarlyStopping(patience), model.state_dict()
        known = self.labels(trial.train, trial.train.numel()) if self.label_steps else None
        for _ in range(max_epochs):
            model.train()
            for x, target in self.epoch(trial.train):
                optimizer.zero_grad()
                F.cross_entropy(model(x), target).backward()
                optimizer.step()
            logits = self.classify(model, trial.val, known)
            loss = float(F.cross_entropy(logits, y[trial.val]))
            hits = (logits.argmax(dim=-1) == y[trial.val]).float().mean()
            if stopping.progress(loss, float(hits)):
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            if stopping.stop:
                break
        model.load_state_dict(kept)
        logits = self.classify(model, torch.arange(len(y), device=y.device), known)
        return Fit(self.smoothed(logits, trial), stopping.best_epoch, stopping.epochs)

    def smoothed(self, logits: Tensor, trial: Trial) -> Tensor:
        """The predictions, smoothed or not, whichever classifies the validation nodes best."""
        if self.post_steps == 0:
            return logits
        y, soft = self.data.y, logits.softmax(dim=-1)
        known = (y[trial.train], trial.train, self.adjacency)
        candidates = [soft]
        for alpha in ALPHAS:
            post = CorrectAndSmooth(self.post_steps, max(ALPHAS), self.post_steps, alpha)
            candidates += [post.smooth(soft, *known), post(soft, *known)]
        return max(candidates, key=lambda found: accuracy(found, y, trial.val))
