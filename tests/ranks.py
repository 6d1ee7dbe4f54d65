"""Ranks of gloo on this machine: functions that run on all of them, and what they compare."""

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from torch_geometric_diff import nn
from torch_geometric_diff.ops import (
    DiffusionOperator,
    PartitionedOperator,
    Recurrence,
    SparseOperator,
    propagate,
)

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "torch_geometric", "torch_geometric_diff.nn"])


def launch(size: int, function: Callable[..., Any], *args: Any, timeout: float = 200) -> list[Any]:
    """``function(rank, size, *args)`` on so many ranks: what they return.

    Raises:
        AssertionError: If one of them raises, with the text of the first that does.
    """
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            _CONTEXT.Process(target=_run, args=(rank, size, folder, function, args))
            for rank in range(size)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(timeout)
        hung = [rank for rank, process in enumerate(ranks) if process.is_alive()]
        for rank in hung:
            ranks[rank].kill()
        texts = [path.read_text() for path in sorted(Path(folder).glob("*.txt"))]
        texts.sort(key=lambda text: "by peer" in text)  # what followed comes last
        assert not texts, texts[0]
        assert not hung, f"ranks {hung} hang"
        files = [Path(folder) / f"{rank}.pt" for rank in range(size)]
        return [torch.load(file, weights_only=False) for file in files]


def _run(rank: int, size: int, folder: str, function: Callable[..., Any], args: Any) -> None:
    torch.set_num_threads(1)
    store, limit = f"file://{folder}/store", timedelta(seconds=120)
    try:
        if size > 1:
            settings: Any = {"rank": rank, "world_size": size, "timeout": limit}
            dist.init_process_group("gloo", init_method=store, **settings)
        torch.save(function(rank, size, *args), Path(folder) / f"{rank}.pt")
        if size > 1:
            dist.barrier()
            dist.destroy_process_group()
    except BaseException:
        Path(folder, f"{rank}.txt").write_text(f"rank {rank}: {traceback.format_exc()}")
        raise SystemExit(1) from None


def share(rank: int, size: int, edge_index: Tensor, weight: Tensor | None) -> tuple[Any, Any]:
    """The edges that a rank passes: the last one none where there are several."""
    readers = max(size - 1, 1)
    bounds = [edge_index.size(1) * r // readers for r in range(readers + 1)]
    some = slice(bounds[rank], bounds[rank + 1]) if rank < readers else slice(0, 0)
    return edge_index[:, some], None if weight is None else weight[some]


def check_call(
    call: Callable[[Tensor, Any], Tensor], x: Tensor, whole: Any, part: PartitionedOperator
) -> None:
    """The rows, and the gradients of a loss over all ranks, of a call in parts and of one."""
    nodes = part.nodes
    own, other = x.index_select(-2, nodes).clone().requires_grad_(), x.clone().requires_grad_()
    y, wanted = call(own, part), call(other, whole)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if x.dtype == torch.float32 else {}
    torch.testing.assert_close(y, wanted.index_select(-2, nodes), **tolerance)
    if not wanted.requires_grad:
        assert not y.requires_grad
        return
    upstream = torch.linspace(-1, 1, wanted.numel(), dtype=x.dtype).view_as(wanted)
    y.backward(upstream.index_select(-2, nodes))
    wanted.backward(upstream)
    assert own.grad is not None and other.grad is not None
    torch.testing.assert_close(own.grad, other.grad.index_select(-2, nodes), **tolerance)


OPERATORS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (SparseOperator, {}),
    "gcn_norm": (SparseOperator.gcn_norm, {}),
    "bare": (SparseOperator.gcn_norm, {"add_self_loops": False}),
    "sym": (DiffusionOperator, {"step_size": 0.02}),
    "row": (DiffusionOperator, {"normalization": "row"}),
    "none": (DiffusionOperator, {"normalization": None, "step_size": 0.01}),
    "loopless": (DiffusionOperator, {"add_self_loops": False, "step_size": 0.01}),
}


def both(
    name: str,
    rank: int,
    size: int,
    edge_index: Tensor,
    weight: Tensor | None,
    num_nodes: int,
    dtype: torch.dtype = torch.float64,
    **settings: Any,
) -> tuple[Any, PartitionedOperator]:
    """An operator of one process and its part."""
    whole, options = OPERATORS[name]
    options = {**options, "num_nodes": num_nodes, "dtype": dtype}
    kind = "gcn_norm" if name == "bare" else name if name in ("plain", "gcn_norm") else "diffusion"
    own = share(rank, size, edge_index, weight)
    part = PartitionedOperator.from_edges(*own, kind=kind, **options, **settings)
    return whole(edge_index, weight, **options), part


RECURRENCES = {
    "power": Recurrence.power(3),
    "ppr": Recurrence.ppr(4, 0.2),
    "states": Recurrence.states([0, 2, 3]),
    "chebyshev": Recurrence(4, a=0.7, b=-0.3, c=[0.1, 0.2, 0.3, 0.4], d=0.2, w=[1, 0, 2, 0.5, 1]),
    "none": Recurrence(0),
}


def check_recurrences(rank: int, size: int, graph: Any, dtype: torch.dtype) -> None:
    """All recurrences over all operators of a graph."""
    edge_index, weight, num_nodes, settings = graph
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    wide = torch.randn(2, num_nodes, 37, generator=generator, dtype=dtype)  # several tiles
    for name in OPERATORS:
        whole, part = both(name, rank, size, edge_index, weight, num_nodes, dtype, **settings)
        assert whole.is_symmetric or not part.is_symmetric
        total = int(sum(part.of_all_ranks(part.nnz)))
        assert total == whole.nnz
        for features in (x, wide) if name in ("gcn_norm", "row") else (x,):
            for recurrence in RECURRENCES.values():
                check_call(lambda z, p, r=recurrence: propagate(z, p, r), features, whole, part)  # type: ignore[misc]


def check_float32(rank: int, size: int, graph: Any) -> None:
    """In float32 equal to rounding."""
    edge_index, weight, num_nodes, _settings = graph
    x = torch.randn(num_nodes, 40, generator=torch.Generator().manual_seed(0))
    for name in ("gcn_norm", "row", "sym"):
        whole, part = both(name, rank, size, edge_index, weight, num_nodes, torch.float32)
        check_call(lambda z, p: propagate(z, p, Recurrence.ppr(6, 0.1)), x, whole, part)
        part._halo.row_bytes = 32  # as of very large graphs
        y, wanted = (
            propagate(z, p, Recurrence.power(4)) for z, p in ((x[part.nodes], part), (x, whole))
        )
        torch.testing.assert_close(y, wanted[part.nodes], rtol=1e-5, atol=1e-6)


def check_masks(rank: int, size: int, graph: Any) -> None:
    """Dropout by the same masks, to the last bit: forward, backward, of batches and parts."""
    edge_index, weight, num_nodes, settings = graph
    for dtype in (torch.float64, torch.float32):
        whole, part = both("row", rank, size, edge_index, weight, num_nodes, dtype, **settings)
        x = torch.ones(2, num_nodes, 70, dtype=dtype)
        for seed in (7, [3, 2**62]):
            for recurrence in (Recurrence.power(3), Recurrence.ppr(2, 0.1)):
                check_call(
                    lambda z, p, s=seed, r=recurrence: propagate(z, p, r, dropout=0.4, seed=s),  # type: ignore[misc]
                    x, whole, part,
                )  # fmt: skip
        identity = torch.arange(num_nodes).expand(2, -1)
        loops = SparseOperator(identity, num_nodes=num_nodes, dtype=dtype)
        mine = PartitionedOperator.from_edges(
            identity if rank == 0 else identity[:, :0],
            num_nodes=num_nodes,
            kind="plain",
            dtype=dtype,
            **settings,
        )
        masks = [propagate(z, p, Recurrence.states([0, 1, 2]), dropout=0.5, seed=11)
                 for z, p in ((x.index_select(-2, mine.nodes), mine), (x, loops))]  # fmt: skip
        assert torch.equal(masks[0], masks[1].index_select(-2, mine.nodes))
    torch.manual_seed(rank)  # seeds that no rank would draw alike
    drawn = propagate(x.index_select(-2, mine.nodes), mine, Recurrence.power(1), dropout=0.5)
    torch.manual_seed(0)
    wanted = propagate(x, loops, Recurrence.power(1), dropout=0.5)
    assert torch.equal(drawn, wanted.index_select(-2, mine.nodes))


def check_fixed_and_bounds(rank: int, size: int, graph: Any) -> None:
    """Fixed rows, bounds, chosen nodes, and second order beside fixed rows."""
    edge_index, weight, num_nodes, settings = graph
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_nodes, 6, generator=generator, dtype=torch.float64)
    known = torch.rand(num_nodes, generator=generator) < 0.3
    whole, part = both("gcn_norm", rank, size, edge_index, weight, num_nodes, **settings)

    def call(z: Tensor, p: Any, recurrence: Recurrence, **options: Any) -> Tensor:
        mask = known[p.nodes] if isinstance(p, PartitionedOperator) else known
        return propagate(z, p, recurrence, fixed=mask, **options)

    for recurrence in (Recurrence.power(3), Recurrence.ppr(3, 0.3), RECURRENCES["chebyshev"]):
        check_call(lambda z, p, r=recurrence: call(z, p, r), x, whole, part)  # type: ignore[misc]
        for limits in ((-0.2, 0.4), None):
            check_call(lambda z, p, r=recurrence, b=limits: call(z, p, r, bounds=b), x, whole, part)  # type: ignore[misc]
    bounded = propagate(x[part.nodes], part, Recurrence.ppr(3, 0.3), bounds=(0, 0.1))
    wanted = propagate(x, whole, Recurrence.ppr(3, 0.3), bounds=(0, 0.1))
    torch.testing.assert_close(bounded, wanted[part.nodes])
    own = torch.arange(part.num_rows).flip(0)[::2]
    chosen = propagate(x[part.nodes], part, Recurrence.power(2), nodes=own)
    torch.testing.assert_close(chosen, propagate(x, whole, Recurrence.power(2))[part.nodes[own]])


def check_layers(rank: int, size: int, graph: Any) -> None:
    """The layers, and the shares of the gradients of what they learn."""
    edge_index, _, num_nodes, settings = graph
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(num_nodes, 8, generator=generator, dtype=torch.float64)
    gcn = both("gcn_norm", rank, size, edge_index, None, num_nodes, **settings)
    row = both("row", rank, size, edge_index, None, num_nodes, **settings)
    draws = torch.Generator()

    def layers() -> list[tuple[torch.nn.Module, Any]]:
        torch.manual_seed(0)
        alpha = torch.nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
        appnp = nn.APPNP(4, 0.1)
        appnp.register_parameter("learned", alpha)
        appnp.alpha = alpha
        found = [
            (nn.APPNP(5, 0.1, feature_dropout=0.0), gcn), (appnp, gcn), (nn.GPRConv(3), gcn),
            (nn.SGConv(8, 3, K=2), gcn), (nn.SSGConv(8, 20, alpha=0.1, K=3), gcn),
            (nn.DiffConv(3, 0.25), row), (nn.DiffConv(3, 0.25, dropout=0.5, generator=draws), row),
            (nn.DiffConv(3, 0.25, learn_step_size=True), row),
            (nn.HeatConv(2.0), row), (nn.HeatConv(1.0, learn_t=True), row),
        ]  # fmt: skip
        return [(layer.double(), operators) for layer, operators in found]

    for (own, (whole, part)), (other, _) in zip(layers(), layers(), strict=True):
        draws.manual_seed(5)
        z, y = x[part.nodes].requires_grad_(), x.clone().requires_grad_()
        out = own(z, part)
        draws.manual_seed(5)
        wanted = other(y, whole)
        torch.testing.assert_close(out, wanted[part.nodes], msg=lambda m, o=own: f"{o}: {m}")
        upstream = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
        wanted.backward(upstream)
        out.backward(upstream[part.nodes])
        torch.testing.assert_close(z.grad, y.grad[part.nodes])  # type: ignore[index]
        for mine, theirs in zip(own.parameters(), other.parameters(), strict=True):
            if size > 1:
                dist.all_reduce(mine.grad)
            torch.testing.assert_close(mine.grad, theirs.grad, msg=lambda m, o=own: f"{o}: {m}")
    check_labels(x, gcn)


def check_labels(x: Tensor, operators: tuple[Any, PartitionedOperator]) -> None:
    """Label propagation, of classes of which a rank need not see the last; correct and smooth."""
    whole, part = operators
    y = torch.arange(len(x)) * 4 // len(x)  # sorted: no rank sees all classes
    known = torch.arange(len(x)) % 3 == 0
    nodes = part.nodes
    layer = nn.LabelPropagation(4, 0.8)
    for mask in (None, known):
        for step in (None, lambda z: z.clamp(0.1, 0.7)):
            out = layer(y[nodes], part, None if mask is None else mask[nodes], post_step=step)
            torch.testing.assert_close(out, layer(y, whole, mask, post_step=step)[nodes])
    soft = x[:, :4].softmax(1)
    for autoscale in (True, False):
        post = nn.CorrectAndSmooth(3, 0.7, 2, 0.5, autoscale=autoscale)
        mine = post(soft[nodes], y[nodes][known[nodes]], known[nodes], part)
        torch.testing.assert_close(mine, post(soft, y[known], known, whole)[nodes])


def check_gradients(rank: int, size: int, graph: Any) -> None:
    """Numeric gradients of a loss over all ranks, first and second, by rows and coefficients."""
    edge_index, weight, num_nodes, _ = graph
    part = both("row", rank, size, edge_index, weight, num_nodes)[1]
    x = torch.randn(num_nodes, 2, generator=torch.Generator().manual_seed(3)).double()
    w = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)

    def call(z: Tensor, w: Tensor | None, **options: Any) -> Tensor:
        recurrence = Recurrence.ppr(2, 0.2) if w is None else Recurrence(2, w=w)
        return propagate(z[part.nodes], part, recurrence, dropout=0.3, seed=1, **options).sin()

    def numeric(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
        found = torch.zeros_like(at)
        for i in range(at.numel()):
            step = torch.zeros_like(at).flatten()
            step[i] = 1e-6
            ends = [
                sum(part.of_all_ranks(float(function(at + s * step.view_as(at)).sum().detach())))
                for s in (1, -1)
            ]
            found.view(-1)[i] = (ends[0] - ends[1]) / 2e-6
        return found

    def total(grad: Tensor) -> Tensor:
        if size > 1:
            dist.all_reduce(grad)
        return grad

    cases: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [
        (lambda z: call(z, None), x),
        (lambda z: call(z, None, bounds=(-0.5, 0.5)), x),
        (lambda z: call(z, None, fixed=part.nodes % 2 == 0), x),
        (lambda z: call(z, w), x),
        (lambda v: call(x, v), w),
    ]
    for function, at in cases:
        at = at.clone().requires_grad_()
        (grad,) = torch.autograd.grad(function(at).sum(), at)
        torch.testing.assert_close(
            total(grad), numeric(function, at.detach()), rtol=1e-4, atol=1e-6
        )

    def slope(z: Tensor) -> Tensor:  # the gradient by own rows of the loss of all ranks
        z = z if z.requires_grad else z.clone().requires_grad_()
        (grad,) = torch.autograd.grad(call(z, None).sum(), z, create_graph=True)
        return grad.square()

    at = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(slope(at).sum(), at)
    torch.testing.assert_close(total(grad), numeric(slope, x), rtol=1e-4, atol=1e-6)


def check_hub(rank: int, size: int, num_nodes: int) -> None:
    """Stars of both directions, and a path."""
    others = torch.arange(1, num_nodes)
    hub = torch.zeros_like(others)
    edges = torch.cat([torch.stack([others, hub]), torch.stack([others[:-1], others[1:]])], 1)
    x = torch.randn(num_nodes, 3, generator=torch.Generator().manual_seed(0)).double()
    for settings in ({}, {"undirected": True}):
        whole_edges = edges if not settings else torch.cat([edges, edges.flip(0)], 1)
        whole = SparseOperator.gcn_norm(whole_edges, num_nodes=num_nodes, dtype=torch.float64)
        own = share(rank, size, edges, None)
        part = PartitionedOperator.from_edges(
            *own, num_nodes=num_nodes, kind="gcn_norm", dtype=torch.float64, **settings
        )
        assert part.is_symmetric == bool(settings)
        check_call(lambda z, p: propagate(z, p, Recurrence.ppr(2, 0.1)), x, whole, part)


def check_sources(rank: int, size: int, folder: str) -> None:
    """Edges in arrays, mapped files and blocks, with weights or without, are the same operator."""
    generator = torch.Generator().manual_seed(3)
    edges = torch.randint(30, (2, 100), generator=generator)
    weight = torch.rand(100, generator=generator, dtype=torch.float64)
    first, last = 100 * rank // size, 100 * (rank + 1) // size
    own, own_weight = edges[:, first:last], weight[first:last]
    np.save(f"{folder}/{rank}.npy", own.numpy())
    mapped = np.load(f"{folder}/{rank}.npy", mmap_mode="r")
    blocks = [(own[:, :5], own_weight[:5]), (own[:, 5:], own_weight[5:])]
    sources = [(own, own_weight), (mapped, own_weight.numpy()), (iter(blocks), None)]
    sources += [(own.int(), own_weight[:, None])]
    settings: Any = {"num_nodes": 30, "kind": "gcn_norm", "dtype": torch.float64}
    parts = [PartitionedOperator.from_edges(*source, **settings) for source in sources]
    for other in parts[1:]:
        assert torch.equal(other.col, parts[0].col) and torch.equal(other.value, parts[0].value)
    whole = SparseOperator.gcn_norm(edges, weight, num_nodes=30, dtype=torch.float64)
    x = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(parts[0] @ x[parts[0].nodes], (whole @ x)[parts[0].nodes])
    half = parts[0].to(torch.float32)
    assert half.dtype == torch.float32 and half.to(torch.float32) is half
    moved = parts[0].traffic(columns=3)
    halo = sum(parts[0].of_all_ranks(parts[0]._halo.size))
    assert moved["bytes"] == halo * 3 * 8 and 0 <= moved["cut"] <= 1
    assert (moved["bytes"] == 0) == (size == 1)


def check_refusals(rank: int, size: int) -> None:
    """What one rank meets, or they disagree on, all refuse, and all can go on."""
    edges = torch.tensor([[0, 1], [1, 2]]) if rank == 0 else torch.zeros(2, 0, dtype=torch.long)

    def refused(match: str, error: type[Exception], *args: Any, **settings: Any) -> None:
        with pytest.raises(error, match=match):
            PartitionedOperator.from_edges(*args, **{"num_nodes": 3, **settings})

    bad = torch.tensor([[0], [3]]) if rank == 1 else edges
    refused(r"indices of 'edge_index' to lie in \[0, 2\]", ValueError, bad)
    heavy = torch.tensor([1.0, -1.0]) if rank == 0 else torch.zeros(0)
    refused("to be finite and not negative", ValueError, edges, heavy)
    refused("agree on 'num_nodes'", ValueError, edges, num_nodes=3 + rank)
    refused("agree on 'scale'", ValueError, edges, step_size=0.1 + rank)
    refused("'kind' to be one of", ValueError, edges, kind="other")
    refused("'parts' to lie in", ValueError, edges, parts=torch.tensor([0, 1, size]))
    first = edges if rank else (edges, torch.ones(2))
    blocks = [first, (edges, torch.ones(edges.size(1)))] if rank else [first]
    refused("for all edges or none", ValueError, iter(blocks))
    part = PartitionedOperator.from_edges(edges, num_nodes=3, step_size=0.1)
    x = torch.ones(part.num_rows, 2 + rank)
    with pytest.raises(ValueError, match="agree on 'columns of 'x''"):
        propagate(x, part, Recurrence.power(1))
    wrong = torch.ones(part.num_rows + (rank == 1), 2)
    with pytest.raises(ValueError, match="one row a node of this rank"):
        propagate(wrong, part, Recurrence.power(1))
    with pytest.raises(ValueError, match="agree on 'num_steps'"):
        propagate(x[:, :2], part, Recurrence.power(1 + rank))
    with pytest.raises(TypeError, match="Expected a DiffusionOperator"):
        plain = PartitionedOperator.from_edges(edges, num_nodes=3, kind="plain")
        nn.DiffConv(1)(x[:, :2], plain)
    layer = nn.APPNP(2, 0.1, dropout=0.5)
    with pytest.raises(ValueError, match="'dropout' of edges to be 0"):
        layer(x[:, :2], part)
    torch.testing.assert_close(propagate(x[:, :2], part, Recurrence.power(2)), x[:, :2])
