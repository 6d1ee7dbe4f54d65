"""What the ranks of ``torch.distributed`` tell each other, and the rows that they exchange."""

import copy
import mmap
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ._pattern import index_dtype
from .kernels import cpu, kernel_for

CSR = tuple[Tensor, Tensor, Tensor]
T = TypeVar("T")
_TILE = 1 << 26  # bytes of a tile that are no matter


class Ranks:
    """The ranks of a process group; a single one where there is none."""

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.rank, self.size, self.device = 0, 1, torch.device("cpu")
        if dist.is_available() and dist.is_initialized():
            self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
            if self.rank < 0:
                raise ValueError("Expected 'group' to hold this rank (got another's group)")
            if dist.get_backend(group) == "nccl":
                self.device = torch.device("cuda", torch.cuda.current_device())

    def gather(self, numbers: Sequence[int]) -> Tensor:
        """As many whole numbers of every rank, a row a rank."""
        own = torch.tensor(numbers, dtype=torch.long, device="cpu")
        if self.size == 1:
            return own.unsqueeze(0)
        own = own.to(self.device)
        rows = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(rows, own, group=self.group)
        return torch.stack(rows).cpu()

    def gather_objects(self, value: T) -> list[T]:
        """Any object of every rank."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.group)
        return values

    def exchange(
        self, received: Tensor, sent: Tensor, counts: list[int], sent_counts: list[int]
    ) -> Any:
        """Begin to send so many rows to every rank and to receive so many: what is waited for."""
        if self.size == 1:
            return None
        return dist.all_to_all_single(
            received, sent, counts, sent_counts, group=self.group, async_op=True
        )

    def exchanged(self, sent: Tensor, sent_counts: list[int]) -> tuple[Tensor, list[int]]:
        """Send so many rows to every rank; what they sent here, in their order."""
        if self.size == 1:
            return sent, sent_counts
        counts = self.gather(sent_counts)[:, self.rank].tolist()
        sent = sent.to(self.device)
        received = sent.new_empty(sum(counts), *sent.shape[1:])
        _wait(self.exchange(received, sent, counts, sent_counts))
        return received.cpu(), counts

    @contextmanager
    def agreement(self) -> Iterator[dict[str, Any]]:
        """What one rank raises within, all raise, and so is what they disagree on of the facts that
        they put into the dict.
        """
        facts: dict[str, Any] = {}
        error = None
        try:
            yield facts
        except Exception as raised:
            error = raised
        if self.size == 1:
            if error is not None:
                raise error
            return
        codes = self.gather([error is not None, zlib.crc32(repr(facts).encode())])
        if bool(codes[:, 0].any()):
            met = self.gather_objects(None if error is None else str(error))
            if error is not None:
                raise error
            rank = int(codes[:, 0].argmax())
            raise ValueError(f"rank {rank}: {met[rank]}")
        if bool((codes[:, 1] != codes[0, 1]).any()):
            _refuse(self.gather_objects(facts))


def _wait(work: Any) -> None:
    if work is not None:
        work.wait()


def _refuse(facts: list[dict[str, Any]]) -> None:
    for name, value in facts[0].items():
        others = [rank for rank, each in enumerate(facts) if each.get(name) != value]
        if others:
            other = facts[others[0]].get(name)
            raise ValueError(
                f"Expected all ranks to agree on '{name}' (got {value} on rank 0 and {other} on "
                f"rank {others[0]})"
            )


class Halo:
    """The rows that a rank reads of others and those of its own that they read.

    Args:
        ranks: The ranks.
        num_rows: The rows of its own, which come first in what :meth:`products` multiplies.
        sent: Which of them the other ranks read, rank by rank.
        sent_counts: How many each of them reads.
        counts: How many rows it reads of each.
        num_entries: The number of entries of its rows.
    """

    def __init__(
        self,
        ranks: Ranks,
        num_rows: int,
        sent: Tensor,
        sent_counts: list[int],
        counts: list[int],
        num_entries: int,
    ) -> None:
        self.ranks, self.num_rows = ranks, num_rows
        self.sent = sent.to(index_dtype(max(num_rows, sent.numel())))
        self.sent_counts, self.counts = sent_counts, counts
        self._made: dict[str, CSR] = {}
        sizes = ranks.gather([num_rows + self.size, num_entries])
        rows, entries = sizes.max(dim=0).values.tolist()
        # of a row of a tile, the same on all ranks: half a cache line where whole ones would take
        # more memory than half of the entries
        self.row_bytes = 64 if 64 * rows <= max(_TILE, 4 * entries) else 32

    @property
    def size(self) -> int:
        """The number of rows of others."""
        return sum(self.counts)

    def to(self, device: torch.device) -> "Halo":
        """The same on another device."""
        other = copy.copy(self)
        other.sent, other._made = self.sent.to(device), {}
        return other

    def filled(self, x: Tensor) -> Tensor:
        """Rows of its own (n, C), followed by those of others."""
        others = x.new_empty(self.size, x.size(1))
        sent = x.index_select(0, self.sent)
        _wait(self.ranks.exchange(others, sent, self.counts, self.sent_counts))
        return torch.cat([x, others])

    def products(self, csr: CSR, x: Tensor, memory: list[tuple[Tensor, Tensor]]) -> Tensor:
        """A matrix times its own rows (B, n, C) and those of others: tile by tile, where the next
        one's rows travel meanwhile. What it leaves in ``memory`` serves the next call.
        """
        n, height = self.num_rows, self.num_rows + self.size
        select, y = self._selection(x.dtype), _in_huge_pages(x.numel(), x).view(x.shape)

        def begin(x: Tensor) -> tuple[Any, Any]:
            count, widest = x.size(1), self.row_bytes // x.element_size()
            width = _power_of_two(count)
            if not memory:
                sizes = height * widest, self.sent.numel() * widest
                memory.append((_in_huge_pages(sizes[0], x), _in_huge_pages(sizes[1], x)))
            slot = memory.pop()
            rows = slot[0][: height * width].view(height, width)
            rows[:n, :count] = x
            sent = slot[1][: self.sent.numel() * count].view(-1, count)
            _multiply(select, rows, sent, 0, count)
            others = rows[n:] if count == width else x.new_empty(self.size, count)
            work = self.ranks.exchange(others, sent, self.counts, self.sent_counts)
            return (rows, others, slot), work

        def end(state: Any, y: Tensor, first: int, count: int) -> None:
            rows, others, slot = state
            if count < rows.size(1):
                rows[n:, :count] = others
            _multiply(csr, rows, y, first, count)
            memory.append(slot)

        return self._by_tiles(x, y, begin, end)

    def transposed_products(self, csr_t: CSR, x: Tensor) -> Tensor:
        """The transpose of :meth:`products`, whose matrix has been transposed: what comes out in
        rows of others goes back to them.
        """
        n, y = self.num_rows, x.new_empty(x.shape)

        def begin(x: Tensor) -> tuple[Any, Any]:
            rows = _times(csr_t, x)
            back = rows.new_empty(self.sent.numel(), rows.size(1))
            work = self.ranks.exchange(back, rows[n:], self.sent_counts, self.counts)
            return (rows, back), work

        def end(state: Any, y: Tensor, first: int, count: int) -> None:
            rows, back = state
            own = y[:, first : first + count]
            torch.add(rows[:n], _times(self._returns(x.dtype), back), out=own)

        return self._by_tiles(x, y, begin, end)

    def _by_tiles(self, x: Tensor, y: Tensor, begin: Callable, end: Callable) -> Tensor:
        """Tiles of columns, the same on all ranks; the exchange of one is begun before another is
        finished.
        """
        waiting: list[Any] = []

        def finish(b: int, first: int, count: int, state: Any, work: Any) -> None:
            _wait(work)
            end(state, y[b], first, count)

        columns, width = x.size(-1), self.row_bytes // x.element_size()
        for b in range(x.size(0)):
            for first in range(0, columns, width):
                count = min(width, columns - first)
                waiting.append((b, first, count, *begin(x[b, :, first : first + count])))
                if len(waiting) > 1:
                    finish(*waiting.pop(0))
        for each in waiting:
            finish(*each)
        return y

    def _selection(self, dtype: torch.dtype) -> CSR:
        """The matrix that takes what the others read."""
        return self._once("selection", dtype, lambda: (_counted(self.sent), self.sent))

    def _returns(self, dtype: torch.dtype) -> CSR:
        """The matrix that adds what comes back to the rows it was of."""

        def find() -> tuple[Tensor, Tensor]:
            order = torch.argsort(self.sent, stable=True)
            counts = torch.bincount(self.sent, minlength=self.num_rows)
            rowptr = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
            return rowptr.to(self.sent.dtype), order.to(self.sent.dtype)

        return self._once("returns", dtype, find)

    def _once(
        self, name: str, dtype: torch.dtype, find: Callable[[], tuple[Tensor, Tensor]]
    ) -> CSR:
        """A matrix of ones."""
        known = self._made.get(name)
        if known is None or known[2].dtype != dtype:
            rowptr, col = find() if known is None else known[:2]
            self._made[name] = known = rowptr, col, torch.ones_like(col, dtype=dtype)
        return known


def _counted(index: Tensor) -> Tensor:
    """Row pointers of one entry a row."""
    return torch.arange(index.numel() + 1, dtype=index.dtype, device=index.device)


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _in_huge_pages(size: int, like: Tensor) -> Tensor:
    """Memory that is read at random: a page of 4 KiB for each row would miss the TLB."""
    if like.device.type != "cpu" or size < 1 << 20 or not hasattr(mmap, "MADV_HUGEPAGE"):
        return like.new_empty(size)
    block = mmap.mmap(-1, size * like.element_size(), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(block, dtype=like.dtype)


def _times(csr: CSR, x: Tensor) -> Tensor:
    """A matrix of any shape times (n, C), of a tile."""
    count = x.size(1)
    y = x.new_empty(csr[0].numel() - 1, count)
    tile = torch.nn.functional.pad(x, (0, _power_of_two(count) - count)).contiguous()
    _multiply(csr, tile, y, 0, count)
    return y


def _multiply(csr: CSR, x: Tensor, y: Tensor, first: int, count: int) -> None:
    """Columns of ``y``: a matrix of any shape times as many columns of a tile."""
    if kernel_for(x.device) is cpu:
        cpu.multiply_tile(y, x, csr, first, count)
        return
    size = (csr[0].numel() - 1, x.size(0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
        matrix = torch.sparse_csr_tensor(*csr, size, device=x.device, check_invariants=False)
    y[:, first : first + count] = matrix @ x[:, :count]
