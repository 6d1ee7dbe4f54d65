"""What every layer takes, tried when the pages are built."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.nn import HeteroConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from torch_geometric_diff import nn

if TYPE_CHECKING:  # the tests read this without Sphinx
    from sphinx.application import Sphinx

TEXT = """# Which layer takes what

Tried on a small graph when these pages were built: *yes* stands where the result equals that of the
plain `edge_index`, *no* where the layer says that it does not take it.

{table}

- `torch.func` and derivatives of derivatives: [under every transform](../transforms.md).
- *batch*: graphs of a `Batch`, one call for all. *relations*: as a part of PyG's `HeteroConv`, for
  edges among nodes of one type. *bipartite*: a pair of features.
- All steps of a call run in one kernel, in C++ on the CPU and in Triton on a GPU
  ([GPUs](../gpu.md)).
- As in PyG, `LabelPropagation` normalizes a graph without `edge_weight`, and takes weights as they
  are.
"""
N = 6
EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 4, 5], [1, 0, 2, 1, 3, 2, 4, 3, 5, 4]])
WEIGHT = torch.tensor([1.0, 1.0, 2.0, 2.0, 0.5, 0.5, 1.0, 1.0, 3.0, 3.0])
LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "DiffConv": lambda: nn.DiffConv(3),
    "HeatConv": lambda: nn.HeatConv(0.7),
    "APPNP": lambda: nn.APPNP(3, 0.1),
    "GPRConv": lambda: nn.GPRConv(3, 0.1),
    "SGConv": lambda: nn.SGConv(4, 3, K=2),
    "SSGConv": lambda: nn.SSGConv(4, 3, alpha=0.1, K=2),
    "LabelPropagation": lambda: nn.LabelPropagation(3, 0.9),
    "AttentionDiffusion": lambda: nn.AttentionDiffusion(4, 3),
    "DiffResNet": lambda: nn.DiffResNet(4, 3, num_steps=3, step_size=0.25),
}


def call(layer: torch.nn.Module, x: Any, graph: Any, *weight: Tensor) -> Tensor:
    """The result of a layer, on labels where it is for labels."""
    if isinstance(layer, nn.LabelPropagation):
        y = x.sigmoid() if isinstance(x, Tensor) else tuple(part.sigmoid() for part in x)
        return layer(y, graph, None, *weight)
    return layer(x, graph, *weight)


def weights(layer: torch.nn.Module) -> Tensor:
    """The weights that stand for none."""
    if isinstance(layer, nn.LabelPropagation):
        return gcn_norm(EDGES, None, N, add_self_loops=False)[1]
    return torch.ones(EDGES.shape[1])


def sparse(layout: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """With a matrix of torch: the transpose, as everywhere in PyG."""

    def probe(layer: torch.nn.Module, x: Tensor) -> Tensor:
        matrix = torch.sparse_coo_tensor(EDGES.flip(0), torch.ones(EDGES.shape[1]), (N, N))
        return call(layer, x, layout(matrix.coalesce()))

    return probe


def edge_weight(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """With weights that change nothing; others must change something."""
    if torch.allclose(call(layer, x, EDGES, WEIGHT), call(layer, x, EDGES)):
        raise AssertionError("Expected weights to change the result")
    return call(layer, x, EDGES, weights(layer))


def edge_index(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """With PyG's subclass of Tensor."""
    from torch_geometric import EdgeIndex

    return call(layer, x, EdgeIndex(EDGES, sparse_size=(N, N)))


def sparse_tensor(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """With torch-sparse's matrix."""
    from torch_sparse import SparseTensor

    return call(layer, x, SparseTensor(row=EDGES[1], col=EDGES[0], sparse_sizes=(N, N)))


def bipartite(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """With a pair of features."""
    return call(layer, (x, x), EDGES)


def batch(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """Two graphs at once; the first."""
    both = Batch.from_data_list([Data(x=x, edge_index=EDGES), Data(x=x + 1, edge_index=EDGES)])
    return call(layer, both.x, both.edge_index)[:N]


def relations(layer: torch.nn.Module, x: Tensor) -> Tensor:
    """In a model of several kinds of nodes."""
    key = ("paper", "cites", "paper")
    if isinstance(layer, nn.LabelPropagation):
        return HeteroConv({key: layer})({"paper": x.sigmoid()}, {key: EDGES})["paper"]
    return HeteroConv({key: layer})({"paper": x}, {key: EDGES})["paper"]


COLUMNS: dict[str, Callable[..., Tensor]] = {
    "`edge_weight`": edge_weight,
    "`EdgeIndex`": edge_index,
    "CSR": sparse(lambda matrix: matrix.to_sparse_csr()),
    "COO": sparse(lambda matrix: matrix),
    "`SparseTensor`": sparse_tensor,
    "batch": batch,
    "relations": relations,
    "bipartite": bipartite,
}


def cell(layer: torch.nn.Module, probe: Callable[..., Tensor], x: Tensor) -> str:
    """What a layer makes of one form; raises where it is wrong in silence."""
    with torch.no_grad():
        expected = call(layer, x, EDGES)
        try:
            result = probe(layer, x)
        except (TypeError, ValueError, AttributeError, NotImplementedError):
            return "no"
        except ImportError:
            return "not installed"
    if not torch.allclose(result, expected, atol=1e-5):
        raise AssertionError(f"Expected the result of 'edge_index' of {layer} ({probe.__name__})")
    return "yes"


def battery() -> dict[str, dict[str, str]]:
    """The table of docs/transforms.md, which the tests hold: what is compiled and exported."""
    lines = (Path(__file__).parents[1] / "transforms.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    head = rows[0]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)}


def table() -> str:
    """Every layer."""
    torch.manual_seed(0)
    x, transforms = torch.randn(N, 4), battery()
    shown = [*COLUMNS, "compile", "export"]
    lines = [f"| | {' | '.join(shown)} |", "| --- " * (len(shown) + 1) + "|"]
    for name, make in LAYERS.items():
        layer = make().eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cells = [cell(layer, probe, x) for probe in COLUMNS.values()]
        own = transforms.get(name, {})
        cells += [own.get(key, "-") for key in ("compile", "export")]
        lines.append(f"| [`{name}`](torch_geometric_diff.nn.{name}.md) | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(app: "Sphinx") -> None:
    """Write the page if it changed."""
    path, text = Path(app.srcdir) / "api" / "layers.md", TEXT.format(table=table())
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def setup(app: "Sphinx") -> dict[str, bool]:
    """Write the page before anything is read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
