"""What one line gains: published models trained before and after it, single layers, memory.

python -m benchmarks.speed --suite accelerate
"""

import copy
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor
from torch.nn import Identity, Linear, Module
from torch_geometric.data import Data
from torch_geometric.utils import softmax

from benchmarks.speed.build import molecules
from benchmarks.speed.graphs import Case, arxiv, citation, synthetic
from benchmarks.speed.harness import Harness, Row
from benchmarks.speed.memory import in_child, resident
from benchmarks.speed.peers import forms
from benchmarks.speed.propagation import both
from benchmarks.speed.published import MODELS, DAGNNProp, GPRProp, Perceptron, stack
from torch_geometric_diff import accelerate
from torch_geometric_diff.data import load_graph
from torch_geometric_diff.nn import AttentionDiffusion

EPOCHS = {"cora": 100, "pubmed": 8}  # a step of PyG's SSGC takes seconds on Pubmed


def graph(name: str) -> Data:
    """Planetoid's graph, or a random one of its shape where the data is not there."""
    try:
        return load_graph(name, source="planetoid")
    except FileNotFoundError:
        sizes = {"cora": (2485, 5069, 1433, 7), "pubmed": (19717, 44324, 500, 3)}[name]
        case = synthetic(f"random graph of the shape of {name}", *sizes[:3])
        generator = torch.Generator().manual_seed(0)
        y = torch.randint(sizes[3], (case.num_nodes,), generator=generator)
        x = (torch.rand(case.num_nodes, case.channels, generator=generator) < 0.02).float()
        return Data(x=x, y=y, edge_index=case.edge_index)


def masks(data: Data) -> tuple[Tensor, Tensor]:
    """The nodes to train on, 20 a class, and to test on."""
    train = torch.cat([(data.y == c).nonzero().view(-1)[:20] for c in range(int(data.y.max()) + 1)])
    rest = torch.ones(data.num_nodes, dtype=torch.bool)
    rest[train] = False
    return train, rest.nonzero().view(-1)[-1000:]


# Published models. ###############################################################################


def training_step(model: Module, data: Data) -> Callable[[], None]:
    """A step of training, with random numbers that depend on nothing but its number."""
    train, _ = masks(data)
    adam = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    count = iter(range(1 << 30))

    def run() -> None:
        torch.manual_seed(next(count))
        model.train()
        adam.zero_grad()
        F.cross_entropy(model(data.x, data.edge_index)[train], data.y[train]).backward()
        adam.step()

    return run


def predict(model: Module, data: Data) -> Tensor:
    """The logits, or what is made of them once the model is trained."""
    model.eval()
    train, _ = masks(data)
    with torch.no_grad():
        out = model(data.x, data.edge_index)
        if isinstance(model, Perceptron):
            out = model.post(out.softmax(-1), data.y[train], train, data.edge_index)
        return out


def published(harness: Harness, name: str, quick: bool) -> list[Row]:
    """Every model: seconds of training, accuracy, and how far outputs of the same weights are."""
    data, rows = graph(name), []
    _, test = masks(data)
    size = f"{data.num_nodes} x {data.num_features}"
    for title, make in MODELS.items():
        torch.manual_seed(0)
        before = make(data.num_features, int(data.y.max()) + 1)
        after = copy.deepcopy(before)
        report = accelerate(after)
        expected, found = predict(before, data), predict(after, data)
        difference = float((found - expected).abs().max() / expected.abs().max())
        models = {"ours": after, "PyG's layers": before}
        steps: dict[str, Callable[[], object]] = {
            key: training_step(model, data) for key, model in models.items()
        }
        what = "a training step"
        if isinstance(before, Perceptron):  # what is propagated is propagated once
            what = "C&S of a trained perceptron"
            for step in steps.values():
                for _ in range(10 if quick else EPOCHS[name]):
                    step()
            steps = {key: functools.partial(predict, model, data) for key, model in models.items()}
        new = harness.compare(
            f"{title} on {name} ({size}), seconds of {what}",
            steps,
            ours="ours",
            repeats=5 if quick else EPOCHS[name],
        )
        for row in new:
            right = predict(models[row["name"]], data)[test].argmax(-1) == data.y[test]
            row |= {"accuracy": float(right.float().mean()), "difference": difference}
            row["accelerated"] = f"{len(report.replaced)} layers, {len(report.left)} left"
        rows += with_aims(new, {"PyG's layers": 1})
    return rows


def with_aims(rows: list[Row], aims: dict[str, float]) -> list[Row]:
    """Rows with the ratio that is aimed at."""
    for row in rows:
        if row["name"] in aims:
            row["aim"] = aims[row["name"]]
    return rows


# Single layers. ##################################################################################


def layers(harness: Harness, case: Case) -> list[Row]:
    """The propagation of models, forward and backward, against the form that its authors use."""
    width = case.channels
    cases: list[tuple[str, Module, int, float]] = [
        ("LightGCN's three steps", _LightGCN(), width, 5),
        ("LGConv", pyg.LGConv(), width, 5),
        ("TAGConv", pyg.TAGConv(width, width), width, 2.4),
        ("ChebConv", pyg.ChebConv(width, width, 4), width, 2.4),
        ("MixHopConv", pyg.MixHopConv(width, width), width, 2.4),
        ("DAGNN's class", DAGNNProp(3), 3, 2.4),
        ("GPR-GNN's class", GPRProp(), 3, 4),
        ("GPR-GNN's class", GPRProp(), width, 10),
    ]
    rows: list[Row] = []
    for name, layer, columns, aim in cases:
        x = torch.rand(case.num_nodes, columns, requires_grad=True)
        after = accelerate(copy.deepcopy(layer)).model
        candidates = {
            "ours": both(after, x, case.edge_index),
            "PyG, edge_index": both(layer, x, case.edge_index),
        }
        title = f"{name} alone: {case.name} ({case.num_nodes} x {columns}), forward + backward"
        rows += with_aims(harness.compare(title, candidates, ours="ours"), {"PyG, edge_index": aim})
    return rows


class _LightGCN(Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = torch.nn.ModuleList(pyg.LGConv() for _ in range(3))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out = x / 4
        for conv in self.convs:
            x = conv(x, edge_index)
            out = out + x / 4
        return out


STACKS = {
    "GCN": pyg.GCNConv,
    "SAGE": pyg.SAGEConv,
    "GIN": lambda i, o: pyg.GINConv(Linear(i, o)),
}


WITHOUT = "PyG, if its sums took no time"


def without_sums(model: Module) -> Module:
    """The model with nothing summed: what no product with a matrix can be faster than."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, pyg.MessagePassing):
            layer.propagate = lambda _, x, **__: x if isinstance(x, Tensor) else x[0]
    return model


def two_layers(
    harness: Harness, case: Case, hidden: int, aims: tuple[float, float], repeats: int
) -> list[Row]:
    """Two layers of GCN, SAGE and GIN, forward and backward, against all forms of PyG's."""
    x, rows = torch.rand(case.num_nodes, case.channels), []
    graphs = forms(case)
    for name, conv in STACKS.items():
        model = stack(conv, hidden)(case.channels, 40)
        model.drop = 0.0
        after = accelerate(copy.deepcopy(model)).model
        candidates = {"ours": both(after, x, case.edge_index, width=40)}
        for form, adj in graphs.items():
            candidates[f"PyG, {form}"] = both(model, x, adj, width=40)
        candidates[WITHOUT] = both(without_sums(model), x, case.edge_index, width=40)
        title = f"two-layer {name}, hidden {hidden}: {case.name} ({case.num_nodes} x "
        title += f"{case.channels}), forward + backward"
        new = harness.compare(title, candidates, ours="ours", repeats=repeats)
        known = ("ours", "PyG, edge_index", WITHOUT)
        others = [row["name"] for row in new if row["name"] not in known]
        rows += with_aims(new, {"PyG, edge_index": aims[0], **dict.fromkeys(others, aims[1])})
    return rows


def new_batches(harness: Harness) -> list[Row]:
    """A batch of molecules that is another one in every step."""
    case, rows = molecules(128), []
    x = torch.rand(case.num_nodes, case.channels)
    for name, conv in STACKS.items():
        model = stack(conv, 64)(case.channels, 40)
        model.drop = 0.0
        candidates = {}
        for key, each in (
            ("ours", accelerate(copy.deepcopy(model)).model),
            ("PyG, edge_index", model),
        ):
            candidates[key] = lambda each=each: both(each, x, case.edge_index.clone(), width=40)()
        title = f"two-layer {name}, hidden 64, a new batch in every step: {case.name}, "
        new = harness.compare(title + "forward + backward", candidates, ours="ours", repeats=30)
        rows += with_aims(new, {"PyG, edge_index": 1})
    return rows


# Attention. ######################################################################################


def attention_layer(name: str) -> Module:
    """GAT or GATv2, 8 heads of 8, without the first linear map."""
    layer: Any
    if name == "GAT":
        layer = pyg.GATConv(64, 8, heads=8, add_self_loops=False)
        layer.lin = Identity()
    else:
        layer = pyg.GATv2Conv(64, 8, heads=8, add_self_loops=False)
        layer.lin_l = layer.lin_r = Identity()
    return layer


def attention(harness: Harness, case: Case, repeats: int) -> list[Row]:
    """GAT and GATv2 without the first linear map, forward and backward."""
    rows: list[Row] = []
    x = torch.rand(case.num_nodes, 64, requires_grad=True)
    for name in ("GAT", "GATv2"):
        layer = attention_layer(name)
        after = accelerate(copy.deepcopy(layer)).model
        candidates = {
            "ours": both(after, x, case.edge_index, width=64),
            "PyG, edge_index": both(layer, x, case.edge_index, width=64),
        }
        title = f"{name}, 8 heads of 8, no linear map: {case.name} ({case.num_nodes} nodes), "
        new = harness.compare(
            title + "forward + backward", candidates, ours="ours", repeats=repeats
        )
        rows += with_aims(new, {"PyG, edge_index": 4})
    return rows


class GrandLinear(Module):
    """GRAND's linear form as its repository has it: attention once, explicit Euler steps, each a
    ``torch_sparse.spmm`` of the mean over the heads.
    """

    def __init__(self, ours: AttentionDiffusion) -> None:
        super().__init__()
        self.K, self.step = ours.num_steps, ours.step_size
        self.heads, self.width = ours.heads, ours.attention_channels
        self.lin_query, self.lin_key = ours.lin_query, ours.lin_key

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """The features after all steps."""
        shape = (x.size(0), self.heads, self.width)
        query, key = self.lin_query(x).view(shape), self.lin_key(x).view(shape)
        source, target = edge_index
        scores = (query[target] * key[source]).sum(-1) / self.width**0.5
        alpha = softmax(scores, target, num_nodes=x.size(0)).mean(1)
        for _ in range(self.K):
            messages = alpha.unsqueeze(-1) * x[source]
            ax = torch.zeros_like(x).index_add(0, target, messages)
            x = x + self.step * (ax - x)
        return x


def diffusion_pair(num_steps: int) -> dict[str, Module]:
    """Both forms of attention diffusion, with the same parameters."""
    torch.manual_seed(0)
    ours = AttentionDiffusion(64, num_steps=num_steps, add_self_loops=False)
    return {"ours": ours, "GRAND's own form": GrandLinear(ours)}


def attention_diffusion(harness: Harness, case: Case) -> list[Row]:
    """The linear form of GRAND."""
    x = torch.rand(case.num_nodes, 64, requires_grad=True)
    candidates = {
        name: both(layer, x, case.edge_index, width=64)
        for name, layer in diffusion_pair(10).items()
    }
    title = f"AttentionDiffusion, K = 10: {case.name} ({case.num_nodes} x 64), forward + backward"
    new = harness.compare(title, candidates, ours="ours", repeats=3)
    return with_aims(new, {"GRAND's own form": 8})


# Memory. #########################################################################################

MEMORY: dict[str, tuple[str, float]] = {  # graph, how many times ours PyG's has to be
    "GCNConv": ("arxiv", 5),
    "SAGEConv": ("arxiv", 5),
    "GINConv": ("arxiv", 5),
    "GAT": ("arxiv", 5),
    "GATv2": ("arxiv", 5),
    "AttentionDiffusion, K = 10": ("pubmed", 1),
    "AttentionDiffusion, K = 100": ("pubmed", 1),
}


def _layer(what: str, name: str) -> Module:
    if what.startswith("AttentionDiffusion"):
        return diffusion_pair(int(what.split()[-1]))[name]
    if what in ("GAT", "GATv2"):
        layer = attention_layer(what)
    else:
        layer = STACKS[what.removesuffix("Conv")](64, 64)
    return accelerate(layer).model if name == "ours" else layer


def measure(what: str, name: str) -> dict[str, float]:
    """Bytes and seconds of one forward and backward pass, beside the graph and the input."""
    case = arxiv(True) if MEMORY[what][0] == "arxiv" else citation("pubmed")
    x = torch.rand(case.num_nodes, 64, requires_grad=True)
    run = both(_layer(what, name), x, case.edge_index, width=64)
    # what the first call loads, and what is made of the graph once; one step of many, so that the
    # memory which the kernel keeps for the next call counts as that of the next call
    one = what.rpartition(" ")[0] + " 1" if "K = " in what else what
    both(_layer(one, name), x, case.edge_index, width=64)()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before, start = resident("VmRSS"), time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - start, "bytes": resident("VmHWM") - before}


def memory() -> list[Row]:
    """Peak memory, each in a process of its own; here the ratio is that of the bytes."""
    rows: list[Row] = []
    if not Path("/proc/self/clear_refs").exists():
        print("memory is left out: it reads '/proc/self', which only Linux has")
        return rows
    few: dict[str, float] = {}
    for what, (where, aim) in MEMORY.items():
        other = "GRAND's own form" if "Diffusion" in what else "PyG, edge_index"
        taken = {}
        for name in ("ours", other) if not what.endswith("100") else ("ours",):
            taken[name] = in_child(__spec__.name, what, name)
        few.setdefault("Diffusion" if "Diffusion" in what else what, taken["ours"]["bytes"])
        for name, row in taken.items():
            case = f"{what}, memory of both passes: {where} shape x 64"
            new = {"case": case, "name": name, "seconds": row["seconds"], "MB": row["bytes"] / 1e6}
            new["ratio"] = row["bytes"] / max(taken["ours"]["bytes"], 1)
            if what.endswith("100"):
                new["of K = 10"], new["aim"] = row["bytes"] / few["Diffusion"], 1.1
            rows += with_aims([new], {other: aim})
    return rows


def run(harness: Harness, quick: bool) -> list[Row]:
    """The rows of the suite."""
    rows = published(harness, "cora", quick)
    pubmed = citation("pubmed")
    rows += layers(harness, pubmed._replace(channels=8 if quick else 64))
    rows += attention(harness, pubmed, 3)
    rows += attention_diffusion(harness, pubmed)
    if quick:
        return rows
    rows += published(harness, "pubmed", quick)
    rows += two_layers(harness, citation("cora"), 64, (1, 1), 20)
    rows += new_batches(harness)
    rows += two_layers(harness, pubmed, 64, (1.5, 1), 5)
    large = arxiv(True)
    for hidden in (16, 64):
        rows += two_layers(harness, large, hidden, (10, 2.8), 2)
    rows += two_layers(harness, large, 256, (6, 1.9), 1)
    rows += attention(harness, large, 2)
    return rows if harness.is_beside else rows + memory()


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2])))
