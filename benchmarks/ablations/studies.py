"""The studies of ``benchmarks.ablations``: what each changes of the published Diff-ResNet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch_geometric.data import Data
from torch_geometric.utils import to_torch_csr_tensor

from benchmarks.nodes.models import METHODS, Method, adjacency
from benchmarks.nodes.peers import SymmetricAPPNP
from benchmarks.nodes.settings import TRAINING, choose_settings
from torch_geometric_diff.nn import DiffConv
from torch_geometric_diff.ops import DiffusionOperator

Row = dict[str, Any]
Value = float | str
APPNP_ALPHA = 0.1  # its authors'
ENCODERS = ("mlp", "gcn", "gat", "sage")


@dataclass(frozen=True)
class Variant:
    """One point of a study."""

    value: Value  # number or name on the axis
    model: str
    settings: Row
    after: str | None = None  # 'diffusion' or 'appnp': what follows the model's logits
    base: bool = False  # the others are compared with it
    most_splits: int | None = None  # fewer for what is expensive


def published(dataset: str) -> Row:
    """The published settings of Diff-ResNet."""
    return choose_settings(dataset, ["diff-resnet"], {})["diff-resnet"]


def with_published(grid: list[float], value: float) -> list[float]:
    """The grid with the published value in it."""
    return sorted({*grid, value})


def stable_step_size(data: Data) -> float:
    """The step size past which diffusion on this graph diverges."""
    operator = DiffusionOperator(data.edge_index, num_nodes=data.num_nodes, step_size=1e-3)
    return operator.max_stable_step_size


def steps(data: Data) -> list[Variant]:
    """Number of steps, the last two on few splits.

    The step size is the published one where it is stable, else nine tenths of the largest stable
    one (Pubmed: hundreds of the published steps would grow past all numbers).
    """
    settings, bound = published(data.name), stable_step_size(data)
    step = settings["step_size"] if settings["step_size"] <= bound else float(f"{0.9 * bound:.3g}")
    return [
        Variant(
            value,
            "diff-resnet",
            {**settings, "step_size": step, "layer_num": value},
            base=value == settings["layer_num"],
            most_splits=5 if value >= 100 else None,
        )
        for value in map(
            int, with_published([0, 1, 2, 5, 10, 20, 50, 100, 200], settings["layer_num"])
        )
    ]


def step_size(data: Data) -> list[Variant]:
    """Step size at the published number of steps, up to a little more than is stable."""
    settings, bound = published(data.name), stable_step_size(data)
    shares = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.05, 1.1)
    grid = [float(f"{share * bound:.3g}") for share in shares]
    return [
        Variant(
            value,
            "diff-resnet",
            {**settings, "step_size": value},
            base=value == settings["step_size"],
        )
        for value in with_published(grid, settings["step_size"])
    ]


def dropout(data: Data) -> list[Variant]:
    """Dropout before each step."""
    settings = published(data.name)
    return [
        Variant(
            value, "diff-resnet", {**settings, "dropout": value}, base=value == settings["dropout"]
        )
        for value in with_published([0.0, 0.15, 0.45, 0.6, 0.75], settings["dropout"])
    ]


def diffuse(data: Data) -> list[Variant]:
    """What is diffused; dropout is the published one, probabilities have none (COIN)."""
    settings = published(data.name)
    return [
        Variant("features", "diff-resnet", settings, base=True),
        Variant("logits", "diff-resnet", {**settings, "diffuse": "logits"}),
        Variant(
            "probabilities", "diff-resnet", {**settings, "diffuse": "probabilities", "dropout": 0.0}
        ),
    ]


def learned(data: Data) -> list[Variant]:
    """Fixed against learned step size, which starts from the published one.

    Both without dropout: the diffusion then runs on the logits, while the gradient of the step size
    through the dropped features of every step would take forty times as long.
    """
    settings = {**published(data.name), "dropout": 0.0}
    return [
        Variant("fixed", "diff-resnet", settings, base=True),
        Variant("learned", "diff-resnet", {**settings, "learn_step_size": True}),
    ]


def encoders(data: Data) -> list[Variant]:
    """Encoders alone, followed by DiffConv, and followed by APPNP's propagation of as many steps.

    What follows takes the logits, which needs no change to the encoder: what a user would try
    first. Steps and step size are those published for Diff-ResNet, nothing is tuned.
    """
    diffusion = published(data.name)
    added: dict[str, Row] = {
        "diffusion": {name: diffusion[name] for name in ("layer_num", "step_size")},
        "appnp": {"layer_num": diffusion["layer_num"], "alpha": APPNP_ALPHA},
    }
    variants = []
    for encoder in ENCODERS:
        settings = choose_settings(data.name, [encoder], {})[encoder]
        variants.append(Variant(encoder, encoder, settings, base=True))
        for name, more in added.items():
            own = {**settings, "after": more}
            variants.append(Variant(f"{encoder} + {name}", encoder, own, after=name))
    return variants


STUDIES: dict[str, Callable[[Data], list[Variant]]] = {
    "steps": steps,
    "step_size": step_size,
    "dropout": dropout,
    "diffuse": diffuse,
    "learned": learned,
    "encoders": encoders,
}


class Followed(Module):
    """An encoder and what is dropped after it, on its logits."""

    def __init__(self, encoder: Module, propagate: Module, graph: Any) -> None:
        super().__init__()
        self.encoder, self.propagate, self.graph = encoder, propagate, graph

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Those of the encoder: what follows has no parameters."""
        groups = getattr(self.encoder, "parameter_groups", None)
        return groups(weight_decay) if groups else [{"params": [*self.encoder.parameters()]}]

    def forward(self, *inputs: Any) -> Tensor:
        return self.propagate(self.encoder(*inputs), self.graph)


def follow(method: Method, data: Data, name: str, settings: Row) -> Method:
    """Let diffusion or APPNP's propagation follow the models of a method."""
    graph: Any
    propagate: Module
    if name == "diffusion":
        propagate = DiffConv(settings["layer_num"], settings["step_size"])
        graph = propagate.operator(data.x, data.edge_index)
    else:
        propagate = SymmetricAPPNP(settings["layer_num"], settings["alpha"], normalize=False)
        edges = adjacency(data, normalize=True, self_loops=True)
        graph = to_torch_csr_tensor(*edges, size=data.num_nodes)
    encoder = method.model
    method.hops = None
    method.model = lambda: Followed(encoder(), propagate, graph)  # type: ignore[method-assign]
    return method


def build(data: Data, variant: Variant) -> Method:
    """The method of a variant, prepared for the graph."""
    settings = {k: v for k, v in variant.settings.items() if k not in TRAINING | {"after"}}
    method = METHODS[variant.model](data, **settings)
    if variant.after is None:
        return method
    return follow(method, data, variant.after, variant.settings["after"])
