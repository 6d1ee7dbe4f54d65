"""What a call on a GPU costs on paper: launches, memory and bytes, counted from its plan.

python -m benchmarks.speed.gpu --paper
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from torch_geometric_diff.ops import Recurrence
from torch_geometric_diff.ops.kernels import cuda
from torch_geometric_diff.ops.kernels.plan import How, Plan, Rows, shape_of


class Card(NamedTuple):
    """Bytes a second of memory and of the L2 cache, and the size of the cache."""

    memory: float
    l2: float
    l2_size: int


# memory: data sheets; L2: what public microbenchmarks read
CARDS = {"A100": Card(1.56e12, 4.0e12, 40 << 20), "H100": Card(3.35e12, 5.5e12, 50 << 20)}
GRAPHS = {  # nodes, entries with self-loops, longest row
    "Cora": (2_485, 12_623, 169),
    "Pubmed": (19_717, 108_365, 172),
    "ogbn-arxiv": (169_343, 2_501_829, 13_156),
    "ogbn-products": (2_449_029, 126_167_309, 17_482),
}


class Cost(NamedTuple):
    """Of K steps: launches, bytes of states and of scratch, and of one step what is read and
    written.
    """

    launches: int
    states: int
    scratch: int
    gathered: int
    streamed: int
    tile: int  # bytes of the columns that are gathered from at a time

    def host_calls(self, card: Card) -> int:
        """Of a second call: the first launch and the rest as a graph, where the states fit."""
        return min(self.launches, 2) if self.states <= card.l2_size else self.launches

    def seconds(self, card: Card) -> tuple[float, float]:
        """A step at least, by the L2 cache and by memory."""
        kept = self.tile <= 0.75 * card.l2_size
        through_memory = self.streamed + (0 if kept else self.gathered)
        return (self.gathered + self.streamed) / card.l2, through_memory / card.memory


def cost(
    nodes: int, entries: int, longest: int, channels: int, steps: int, dtype: torch.dtype
) -> Cost:
    """Of the powers of a matrix, whose other rows are as long as each other: it counts the same."""
    degree = torch.full((nodes,), (entries - longest) // (nodes - 1))
    degree[0] = longest
    degree[1 : 1 + entries - int(degree.sum())] += 1
    rowptr = torch.nn.functional.pad(degree.cumsum(0), (1, 0)).int()
    rows = Rows(rowptr, torch.empty(entries, dtype=torch.int32), None, True)
    shape = shape_of(Recurrence.power(steps).table().numpy().tobytes(), steps + 1, 1)
    x = torch.empty(1, 1, nodes, channels, dtype=dtype, device="meta")
    layout = cuda._layout(x, rows, nodes, channels)
    whole = layout.units * layout.vec == channels
    return of_plan(Plan(rows, shape, layout, How(aligned=whole, direct=whole)))


def of_plan(one: Plan) -> Cost:
    """The cost of any plan."""
    layout, rows = one.layout, one.rows
    state = layout.slot * layout.size
    blocks = layout.batch * -(-layout.units // layout.lanes)
    lists = 12 * len(rows.first) + 8 * rows.nnz  # where rows begin; columns and values
    gathered = rows.nnz * layout.batch * layout.units * 16
    partials = 2 * 4 * one.scratch["partials"]
    launches, states = sum(map(len, one.launches)), one.num_slots * state
    tile = layout.num_rows * min(layout.lanes, layout.units) * 16
    return Cost(launches, states, one.bytes(), gathered, blocks * lists + state + partials, tile)


def table(channels: Sequence[int] = (16, 40, 64, 128), steps: int = 10) -> list[dict[str, Any]]:
    """A row for every graph and width."""
    rows = []
    for graph, (nodes, entries, longest) in GRAPHS.items():
        for width in channels:
            one = cost(nodes, entries, longest, width, steps, torch.float32)
            row = {"graph": graph, "channels": width, "steps": steps, **one._asdict()}
            for name, card in CARDS.items():
                row[f"{name} host calls"] = one.host_calls(card)
                row[f"{name} L2 us"], row[f"{name} memory us"] = (
                    round(1e6 * each, 1) for each in one.seconds(card)
                )
            rows.append(row)
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table as the documentation has it."""
    lines = [
        "| graph | columns | launches, K = 10 | host calls, A100 / H100 | scratch "
        "| gathered a step | streamed a step | A100: L2 / memory | H100: L2 / memory |",
        "| --- " * 9 + "|",
    ]
    for row in rows:
        times = [f"{row[f'{card} L2 us']:g} / {row[f'{card} memory us']:g} us" for card in CARDS]
        sizes = [f"{row[name] / 1e6:,.1f} MB" for name in ("scratch", "gathered", "streamed")]
        calls = " / ".join(str(row[f"{card} host calls"]) for card in CARDS)
        cells = [row["graph"], row["channels"], row["launches"], calls, *sizes, *times]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
