"""Models behind ``--model``: each is prepared once per graph and built anew for every trial."""

from typing import Any

import torch
from torch.nn import Module
from torch_geometric.data import Data

from torch_geometric_diff.data import sparse_features
from torch_geometric_diff.experiment import Fit, Trial, fit
from torch_geometric_diff.graph import DiffusionOperator
from torch_geometric_diff.nn import DiffResNet


class Method:
    """A model prepared for one graph; the keywords of ``__init__`` are its settings.

    Args:
        data (torch_geometric.data.Data): The graph, on the device to run on.
    """

    inputs: tuple[Any, ...]  # arguments of the model

    def __init__(self, data: Data) -> None:
        self.data = data
        self.num_classes = int(data.y.max()) + 1

    def model(self) -> Module:
        """A freshly initialised model."""
        raise NotImplementedError

    def run(self, trial: Trial, **training: Any) -> Fit:
        """Train from the trial's seed; ``training`` are options of :func:`fit`."""
        torch.manual_seed(trial.init_seed)
        model = self.model().to(self.data.y.device)
        return fit(model, self.inputs, self.data.y, trial.train, trial.val, **training)


class DiffResNetMethod(Method):
    """The paper's network; ``diffuse='probabilities'`` is COIN."""

    def __init__(
        self,
        data: Data,
        *,
        step_size: float,
        layer_num: int,
        dropout: float,
        diffuse: str = "features",
    ) -> None:
        super().__init__(data)
        operator = DiffusionOperator(
            data.edge_index,
            num_nodes=data.num_nodes,
            step_size=step_size,
            normalization="sym",
            add_self_loops=True,
        )
        self.inputs = (sparse_features(data), operator)
        self.arguments = (layer_num, step_size, dropout, diffuse)

    def model(self) -> Module:
        model = DiffResNet(self.data.num_features, self.num_classes, *self.arguments)
        # Kept by columns, the weight needs no copy in front of the sparse product.
        weight = model.block.lin1.weight
        weight.data = weight.data.t().contiguous().t()
        return model


METHODS: dict[str, type[Method]] = {
    "diff-resnet": DiffResNetMethod,
}
